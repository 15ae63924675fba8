//! Entries on their way: batches, windows and their limits.

use crate::common::cluster::Cluster;
use crate::common::core::*;
use crate::*;
use raftkv::raft::{Config, Entry, ProposeError, Raft, Ready};

/// A settled leader with small limits and a follower 2 in full pace.
fn paced_leader(adjust: impl FnOnce(&mut Config)) -> Raft {
    let mut config = config(1, 3);
    adjust(&mut config);
    settled_leader_with(config, 1, &[])
}

/// The cost of an entry with a payload of this size.
fn cost(payload_bytes: usize) -> usize {
    payload_bytes + Entry::OVERHEAD_BYTES
}

/// Proposals of one turn share one message, one write, one sync.
#[test]
fn proposals_of_a_turn_share_a_message() {
    let mut raft = paced_leader(|_| {});
    for _ in 0..10 {
        propose(&mut raft, 8);
    }
    let Ready { early, entries, .. } = turn(&mut raft);
    assert_eq!((early.len(), entries.len()), (2, 10));
    assert_eq!(spans(&[early[0].1.clone()]), [(2, 11)]);
}

/// The next turn's entries do not wait for the answer to the last's.
#[test]
fn messages_are_pipelined() {
    let mut raft = paced_leader(|_| {});
    for index in 2..10 {
        propose(&mut raft, 8);
        assert_eq!(spans(&sent_to(&mut raft, 2)), [(index, index)]);
    }
}

#[test]
fn a_large_backlog_is_split() {
    let mut raft = paced_leader(|config| config.append_bytes_max = 2 * cost(100));
    for _ in 0..5 {
        propose(&mut raft, 100);
    }
    assert_eq!(spans(&sent_to(&mut raft, 2)), [(2, 3), (4, 5), (6, 6)]);
}

#[test]
fn an_entry_beyond_the_limit_of_a_message_goes_alone() {
    let mut raft = paced_leader(|config| config.append_bytes_max = 2 * cost(100));
    for bytes in [100, 10_000, 10_000, 100, 100] {
        propose(&mut raft, bytes);
    }
    assert_eq!(spans(&sent_to(&mut raft, 2)), [(2, 2), (3, 3), (4, 4), (5, 6)]);
}

/// No more messages than the window holds; each acknowledgement makes room, and that is work to be
/// done at once.
#[test]
fn the_window_of_messages_is_bounded_and_opens_on_acknowledgements() {
    let mut raft = paced_leader(|config| config.inflight_messages_max = 3);
    for _ in 0..10 {
        propose(&mut raft, 8);
        turn(&mut raft);
    }
    assert!(!raft.has_ready(), "three messages are under way, the rest waits in the log");
    step(&mut raft, 2, accepted(1, 2));
    assert!(raft.has_ready(), "there is room for one");
    assert_eq!(spans(&sent_to(&mut raft, 2)), [(5, 11)], "and it takes all that waited");
    step(&mut raft, 2, accepted(1, 11));
    propose(&mut raft, 8);
    assert_eq!(spans(&sent_to(&mut raft, 2)), [(12, 12)]);
}

#[test]
fn the_window_of_bytes_is_bounded_and_opens_on_acknowledgements() {
    let mut raft = paced_leader(|config| {
        config.append_bytes_max = cost(100);
        config.inflight_bytes_max = 4 * cost(100);
    });
    for _ in 0..10 {
        propose(&mut raft, 100);
    }
    assert_eq!(spans(&sent_to(&mut raft, 2)), [(2, 2), (3, 3), (4, 4), (5, 5)]);
    assert!(!raft.has_ready());
    step(&mut raft, 2, accepted(1, 3));
    assert_eq!(spans(&sent_to(&mut raft, 2)), [(6, 6), (7, 7)]);
}

/// An acknowledgement that repeats or comes late makes no room that is not there.
#[test]
fn repeated_acknowledgements_open_nothing() {
    let mut raft = paced_leader(|config| config.inflight_messages_max = 2);
    for _ in 0..6 {
        propose(&mut raft, 8);
        turn(&mut raft);
    }
    step(&mut raft, 2, accepted(1, 1));
    step(&mut raft, 2, accepted(1, 1));
    assert!(!raft.has_ready());
}

/// While it is not known where the logs match, one message with entries is under way, however long
/// the answer takes; heartbeats carry none.
#[test]
fn a_silent_follower_is_sent_entries_once() {
    let mut raft = leader(1, 3, 3, &[1, 2]);
    propose(&mut raft, 8);
    turn(&mut raft);
    for _ in 0..10 {
        for _ in 0..HEARTBEAT_TICKS {
            raft.tick();
        }
        // The other follower keeps the leader in office.
        step(&mut raft, 3, accepted(3, 4));
        let to_silent = sent_to(&mut raft, 2);
        assert_eq!(to_silent.len(), 1);
        assert_eq!(spans(&to_silent), []);
    }
}

/// The answer to a heartbeat does what the answer to a lost probe would have done.
#[test]
fn the_answer_to_a_heartbeat_replaces_a_lost_probe() {
    let mut raft = leader(1, 3, 3, &[1, 2]);
    propose(&mut raft, 8);
    step(&mut raft, 2, accepted(3, 2));
    assert!(raft.has_ready());
    assert_eq!(spans(&sent_to(&mut raft, 2)), [(3, 4)]);
}

/// A rejection is acted on at once, not at the next heartbeat.
#[test]
fn a_rejection_is_answered_at_once() {
    let mut raft = leader(1, 3, 3, &[1, 2]);
    step(&mut raft, 2, rejected(3, 2, (1, 1)));
    assert!(raft.has_ready());
    assert_eq!(spans(&sent_to(&mut raft, 2)), [(2, 3)]);
}

/// What was under way when the connection broke is sent again, from the last entry that is known to
/// be there.
#[test]
fn after_a_new_connection_entries_are_sent_again_from_the_match() {
    let mut raft = paced_leader(|config| config.inflight_messages_max = 2);
    for _ in 0..4 {
        propose(&mut raft, 8);
        turn(&mut raft);
    }
    raft.peer_unreachable(2);
    assert!(!raft.has_ready(), "nobody is there to be asked");
    raft.peer_connected(2);
    assert!(raft.has_ready());
    assert_eq!(spans(&sent_to(&mut raft, 2)), [(2, 5)]);
    assert!(!raft.has_ready(), "one probe at a time");
}

/// Without a notice of the connection, too: the next heartbeat asks.
#[test]
fn after_a_dropped_message_the_next_heartbeat_asks() {
    let mut raft = paced_leader(|_| {});
    propose(&mut raft, 8);
    turn(&mut raft);
    raft.peer_unreachable(2);
    for _ in 0..HEARTBEAT_TICKS {
        raft.tick();
    }
    assert_eq!(sent_to(&mut raft, 2), [append(1, (1, 1), 1, vec![])]);
    step(&mut raft, 2, accepted(1, 1));
    assert_eq!(spans(&sent_to(&mut raft, 2)), [(2, 2)]);
}

/// A follower that connects after the election, with a log like the leader's, is not sent all of
/// it.
#[test]
fn a_new_connection_is_probed_where_the_logs_may_match() {
    let mut raft = leader(1, 3, 3, &[1; 100]);
    raft.peer_connected(2);
    assert_eq!(spans(&sent_to(&mut raft, 2)), [(101, 101)], "the no-op alone");
}

/// An entry that was lost silently shows in the rejection of the next message.
#[test]
fn a_gap_is_filled_after_a_rejection() {
    let mut raft = paced_leader(|_| {});
    for _ in 0..3 {
        propose(&mut raft, 8);
        turn(&mut raft);
    }
    step(&mut raft, 2, rejected(1, 2, (1, 1)));
    assert_eq!(spans(&sent_to(&mut raft, 2)), [(2, 4)]);
}

/// A refused proposal is certainly not done: nothing of it is in the log.
#[test]
fn proposals_beyond_the_limit_are_refused_and_leave_nothing() {
    let mut raft = paced_leader(|config| config.uncommitted_bytes_max = 3 * cost(100));
    for _ in 0..3 {
        propose(&mut raft, 100);
    }
    for _ in 0..3 {
        assert_eq!(raft.propose(command("a")), Err(ProposeError::Overloaded));
    }
    assert_eq!(raft.log().last().index, 4);
    turn(&mut raft);
    step(&mut raft, 2, accepted(1, 2));
    assert_eq!(propose(&mut raft, 100), 5, "what is committed makes room");
    assert_eq!(raft.propose(command("a")), Err(ProposeError::Overloaded));
    turn(&mut raft);
    step(&mut raft, 2, accepted(1, 5));
    for _ in 0..3 {
        propose(&mut raft, 100);
    }
    assert_eq!(raft.propose(command("a")), Err(ProposeError::Overloaded), "counted exactly");
}

/// Entries of earlier terms and the no-op are nobody's proposals.
#[test]
fn only_own_proposals_count_as_uncommitted() {
    let config = Config { uncommitted_bytes_max: cost(10), ..config(1, 3) };
    let mut raft = leader_with(config, 3, &[1, 2, 2]);
    propose(&mut raft, 10);
    assert_eq!(raft.propose(command("a")), Err(ProposeError::Overloaded));
    turn(&mut raft);
    step(&mut raft, 2, accepted(3, 5));
    propose(&mut raft, 10);
}

#[test]
fn only_a_leader_takes_proposals() {
    for mut raft in [led_follower(2, 3), candidate(1, 3, 2, &[])] {
        assert_eq!(raft.propose(command("a")), Err(ProposeError::NotLeader));
        assert!(raft.log().last().index == 0 && !raft.read(1));
    }
}

/// A follower whose disk hangs holds back neither the others nor the commit, and catches up.
#[test]
fn a_slow_follower_slows_nobody() {
    let mut cluster = Cluster::with(3, |config| config.inflight_messages_max = 2);
    let leader = cluster.elect();
    let slow = other_than(&cluster, &[leader]);
    cluster.server_mut(slow).disk_is_slow = true;
    for number in 0..100 {
        let position = cluster.propose(leader, &number.to_string()).expect("a leader");
        cluster.turn(leader);
        cluster.settle();
        assert_eq!(cluster.raft(leader).commit_index(), position.index);
    }
    cluster.server_mut(slow).disk_is_slow = false;
    cluster.finish_turn(slow);
    cluster.turn(slow);
    cluster.run(2 * HEARTBEAT_TICKS);
    assert_eq!(cluster.raft(slow).log().last(), cluster.raft(leader).log().last());
}
