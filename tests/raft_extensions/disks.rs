//! Disks that are slower than the network (thesis 10.2.1).

use crate::common::checker::Checker;
use crate::common::cluster::{Cluster, Envelope};
use crate::common::core::*;
use crate::*;
use raftkv::raft::{Message, Ready, Waits};

/// Followers alone can commit an entry that is not on the leader's disk yet, and a leader alone
/// cannot.
#[test]
fn followers_can_be_a_majority_without_the_leaders_disk() {
    let mut raft = settled_leader(1, 3, 1, &[]);
    propose(&mut raft, 8);
    raft.take_ready();
    step(&mut raft, 2, accepted(1, 2));
    assert_eq!(raft.commit_index(), 1);
    step(&mut raft, 3, accepted(1, 2));
    assert_eq!((raft.commit_index(), raft.log().durable_index()), (2, 1));
}

/// A leader may let its disk be late as long as the others are a majority without it. What it has not written
/// does not count as its own copy, and comes whole with the next turn that writes.
#[test]
fn a_leader_whose_disk_is_late_does_not_count_itself() {
    let wanted = Waits { sending: false, own_disk: true };
    let mut raft = settled_leader(1, 3, 1, &[]);
    for _ in 0..2 {
        propose(&mut raft, 8);
        assert_eq!(raft.may_wait(wanted), wanted);
        let ready = raft.take_ready_with(wanted);
        assert_eq!((ready.entries.len(), ready.early.len()), (0, 2), "sent, and not written");
        raft.persisted();
        assert_eq!(raft.log().durable_index(), 1);
    }
    assert!(raft.has_ready() && !raft.has_ready_with(wanted), "only its disk has something to do");
    step(&mut raft, 2, accepted(1, 3));
    assert_eq!(raft.commit_index(), 1, "it has not written what it is asked to count");
    step(&mut raft, 3, accepted(1, 2));
    assert_eq!(raft.commit_index(), 2, "the others are a majority without it");
    assert_eq!(raft.take_ready().entries.len(), 2);
    raft.persisted();
    assert_eq!((raft.log().durable_index(), raft.commit_index()), (3, 3));
}

/// Without a majority beside it a leader's disk is needed at once: others that do not answer, or too few.
#[test]
fn a_leader_that_is_needed_for_the_majority_writes_at_once() {
    let wanted = Waits { sending: false, own_disk: true };
    let mut raft = settled_leader(1, 3, 1, &[]);
    assert_eq!(raft.may_wait(wanted), wanted);
    for _ in 0..=2 * config(1, 3).heartbeat_ticks {
        raft.tick();
        step(&mut raft, 2, accepted(1, 1));
    }
    assert_eq!(raft.may_wait(wanted), Waits::default(), "node 3 has not answered for long");
    step(&mut raft, 3, accepted(1, 1));
    assert_eq!(raft.may_wait(wanted), wanted);
    raft.peer_unreachable(3);
    assert_eq!(raft.may_wait(wanted), Waits::default(), "its connection is gone");
    assert_eq!(settled_leader(1, 2, 1, &[]).may_wait(wanted), Waits::default(), "one of two");
    assert_eq!(led_follower(1, 3).may_wait(wanted), Waits::default(), "only a leader may");
}

/// Entries that gather are neither sent nor written, and everything else goes on; then they go together.
#[test]
fn entries_that_gather_leave_in_one_message() {
    let wanted = Waits { sending: true, own_disk: true };
    let mut raft = settled_leader(1, 3, 1, &[]);
    propose(&mut raft, 8);
    propose(&mut raft, 8);
    assert_eq!(raft.may_wait(wanted), wanted);
    assert!(raft.has_ready() && !raft.has_ready_with(wanted));
    raft.read(7);
    let ready = raft.take_ready_with(wanted);
    assert!(ready.entries.is_empty());
    let entries = |message: &Message| match message {
        Message::AppendEntries { entries, .. } => entries.len(),
        other => panic!("{other:?}"),
    };
    let sent: Vec<usize> = ready.early.iter().map(|(_, message)| entries(message)).collect();
    assert_eq!(sent, [0, 0], "the read's round does not wait, and takes no entries along");
    raft.persisted();
    let ready = raft.take_ready();
    let sent: Vec<usize> = ready.early.iter().map(|(_, message)| entries(message)).collect();
    assert_eq!((sent, ready.entries.len()), (vec![2, 2], 2));
    raft.persisted();
}

/// What is proposed after `take_ready` is not in the `Ready`, so `persisted` says nothing about it.
#[test]
fn entries_after_take_ready_are_not_durable_with_it() {
    let mut raft = settled_leader(1, 3, 1, &[]);
    propose(&mut raft, 8);
    assert_eq!(raft.take_ready().entries.len(), 1);
    propose(&mut raft, 8);
    raft.persisted();
    assert_eq!(raft.log().durable_index(), 2);
    step(&mut raft, 2, accepted(1, 3));
    assert_eq!(raft.commit_index(), 2);
    turn(&mut raft);
    assert_eq!(raft.commit_index(), 3);
}

/// ABA: entries that are replaced while their sync is under way are not made durable by it.
#[test]
fn a_sync_does_not_acknowledge_entries_that_replaced_its_own() {
    let mut raft = settled_leader(1, 3, 1, &[]);
    propose(&mut raft, 8);
    propose(&mut raft, 8);
    assert_eq!(raft.take_ready().entries.len(), 2);
    // Meanwhile a leader of term 2 replaces them.
    step(&mut raft, 2, append(2, (1, 1), 1, entries(2, &[2, 2])));
    raft.persisted();
    assert_eq!((terms(&raft), raft.log().durable_index()), (vec![1, 2, 2], 1));
    let Ready { entries, messages, .. } = raft.take_ready();
    assert_eq!(entries.len(), 2, "the new ones are written after the old");
    assert_eq!(messages, [(2, accepted(2, 3))], "and acknowledged after that");
    raft.persisted();
    assert_eq!(raft.log().durable_index(), 3);
}

/// The same with a shorter log: the end of what was synced is gone.
#[test]
fn a_sync_does_not_acknowledge_entries_that_are_gone() {
    let mut raft = settled_leader(1, 3, 1, &[]);
    for _ in 0..5 {
        propose(&mut raft, 8);
    }
    raft.take_ready();
    step(&mut raft, 2, append(2, (1, 1), 1, entries(2, &[2])));
    raft.persisted();
    assert_eq!((terms(&raft), raft.log().durable_index()), (vec![1, 2], 1));
}

/// A vote that is on its way to the disk when the term moves on is not counted for the new term.
#[test]
fn a_sync_does_not_acknowledge_the_vote_of_another_term() {
    let mut raft = follower(1, 3, 1, &[]);
    time_out(&mut raft);
    turn(&mut raft);
    step(&mut raft, 2, pre_vote(2, true));
    assert_eq!(raft.take_ready().hard_state.map(|state| state.term), Some(2));
    step(&mut raft, 2, vote(5, false));
    step(&mut raft, 3, request_vote(5, (0, 0)));
    raft.persisted();
    assert_eq!(
        (raft.role_name(), raft.term(), raft.hard_state().voted_for),
        ("follower", 5, Some(3))
    );
}

/// A candidate that begins another term while its first vote for itself is being written has one
/// vote on disk, and it is of the term before.
#[test]
fn a_sync_does_not_acknowledge_the_own_vote_of_the_next_term() {
    let mut raft = follower(1, 1, 0, &[]);
    time_out(&mut raft);
    raft.take_ready();
    while raft.term() < 2 {
        raft.tick();
    }
    raft.persisted();
    assert_eq!((raft.role_name(), raft.term()), ("candidate", 2));
    assert_eq!(turn(&mut raft).hard_state.map(|state| state.term), Some(2));
    assert!(raft.is_leader());
}

/// Only a leader's AppendEntries leave before the sync, in every state a cluster passes through.
#[test]
fn only_the_leaders_entries_leave_early() {
    let mut cluster = Cluster::new(3);
    let mut early = 0;
    for tick in 0..300 {
        if tick % 100 == 50 {
            let leader = cluster.elect();
            cluster.crash(leader, 0);
            cluster.restart(leader);
        }
        for id in cluster.up() {
            cluster.tick(id);
            if let Some(leader) = cluster.leader() {
                cluster.propose(leader, "a").expect("a leader");
            }
            cluster.begin_turn(id);
            let is_append = |e: &Envelope| matches!(e.message, Message::AppendEntries { .. });
            early += cluster.in_flight.len();
            assert!(cluster.in_flight.iter().all(is_append), "{:?}", cluster.in_flight);
            cluster.in_flight.clear();
            cluster.finish_turn(id);
            assert!(!cluster.in_flight.iter().any(is_append), "{:?}", cluster.in_flight);
            cluster.settle();
        }
    }
    assert!(early > 0);
}

/// A crash between sending and syncing at the leader: its entry lives on the followers, and is
/// committed.
#[test]
fn an_entry_that_the_leader_lost_in_a_crash_may_still_be_committed() {
    let mut cluster = Cluster::new(3);
    let mut checker = Checker::default();
    let leader = cluster.elect();
    cluster.server_mut(leader).disk_is_slow = true;
    cluster.propose(leader, "a").expect("a leader");
    cluster.turn(leader);
    cluster.settle();
    assert_eq!(cluster.raft(leader).commit_index(), cluster.raft(leader).log().last().index);
    checker.check(&cluster, leader);
    cluster.crash(leader, 0);
    cluster.server_mut(leader).disk_is_slow = false;
    cluster.restart(leader);
    let new = cluster.elect();
    assert_ne!(new, leader, "its log is behind");
    checker.check(&cluster, new);
    cluster.run(ELECTION_TICKS_MAX);
    assert!(cluster.raft(leader).log().iter_from(1).any(|entry| entry.payload == command("a")));
}
