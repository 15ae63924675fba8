//! Reads by rounds (thesis 6.4).

use crate::common::cluster::Cluster;
use crate::common::core::*;
use crate::*;
use raftkv::raft::{AppendOutcome, ConfirmedRead, Index, Message, NodeId, Raft};

fn confirmed(raft: &mut Raft) -> Vec<(u64, Index)> {
    raft.take_reads().into_iter().map(|ConfirmedRead { id, index }| (id, index)).collect()
}

/// The newest round that the messages of a turn carry.
fn round_of(messages: &[(NodeId, Message)]) -> u64 {
    let round = |message: &Message| match message {
        Message::AppendEntries { round, .. } => *round,
        other => panic!("not AppendEntries: {other:?}"),
    };
    messages.iter().map(|(_, message)| round(message)).max().expect("a message")
}

/// A read waits for a majority to answer a message that was sent after it arrived.
#[test]
fn a_read_is_confirmed_by_a_majority() {
    let mut raft = settled_leader(1, 5, 1, &[]);
    assert!(raft.read(7));
    let messages = sent(&mut raft);
    assert_eq!((messages.len(), round_of(&messages)), (4, 1), "everybody is asked, at once");
    step(&mut raft, 2, accepted_in_round(1, 1, 1));
    step(&mut raft, 2, accepted_in_round(1, 1, 1));
    assert_eq!(confirmed(&mut raft), []);
    step(&mut raft, 3, accepted_in_round(1, 1, 1));
    assert_eq!(confirmed(&mut raft), [(7, 1)]);
    assert_eq!(raft.reads_waiting(), 0);
}

/// A new leader does not know what is committed before its no-op is (section 8): the read waits for
/// it.
#[test]
fn a_read_at_a_new_leader_waits_for_its_noop() {
    let mut raft = leader(1, 3, 3, &[1, 2]);
    assert!(raft.read(7));
    for _ in 0..HEARTBEAT_TICKS {
        raft.tick();
    }
    assert_eq!(round_of(&sent(&mut raft)), 0, "no round begins");
    step(&mut raft, 2, accepted_in_round(3, 2, 0));
    turn(&mut raft);
    assert_eq!(confirmed(&mut raft), []);
    step(&mut raft, 2, accepted_in_round(3, 3, 0));
    assert!(raft.has_ready(), "the no-op is committed, the round may begin");
    assert_eq!(round_of(&sent(&mut raft)), 1);
    step(&mut raft, 2, accepted_in_round(3, 3, 1));
    assert_eq!(confirmed(&mut raft), [(7, 3)], "it sees what earlier leaders committed");
}

/// Replies to what was sent before the read arrived prove nothing about it.
#[test]
fn replies_of_earlier_rounds_and_terms_confirm_nothing() {
    let mut raft = settled_leader(1, 3, 1, &[]);
    raft.read(1);
    turn(&mut raft);
    step(&mut raft, 2, accepted_in_round(1, 1, 1));
    assert_eq!(confirmed(&mut raft), [(1, 1)]);
    raft.read(2);
    turn(&mut raft);
    for from in [2, 3] {
        step(&mut raft, from, accepted_in_round(1, 1, 0));
        step(&mut raft, from, accepted_in_round(1, 1, 1));
        step(&mut raft, from, rejected(1, 1, (0, 0)));
        step(
            &mut raft,
            from,
            Message::AppendReply {
                term: 0,
                round: 2,
                outcome: AppendOutcome::Accepted { match_index: 1 },
            },
        );
    }
    assert_eq!(confirmed(&mut raft), []);
    step(&mut raft, 3, accepted_in_round(1, 1, 2));
    assert_eq!(confirmed(&mut raft), [(2, 1)]);
}

/// One exchange serves all reads that wait; those that come during it share the next.
#[test]
fn reads_that_wait_share_a_round() {
    let mut raft = settled_leader(1, 3, 1, &[]);
    for id in 0..100 {
        raft.read(id);
    }
    assert_eq!(sent(&mut raft).len(), 2, "one message to each follower");
    for id in 100..200 {
        raft.read(id);
    }
    assert!(!raft.has_ready(), "they wait for the round in flight to end");
    step(&mut raft, 2, accepted_in_round(1, 1, 1));
    let ids: Vec<u64> = raft.take_reads().iter().map(|read| read.id).collect();
    assert_eq!(ids, (0..100).collect::<Vec<u64>>());
    assert_eq!(round_of(&sent(&mut raft)), 2);
    step(&mut raft, 3, accepted_in_round(1, 1, 2));
    assert_eq!(raft.take_reads().len(), 100);
    assert!(!raft.has_ready());
}

fn receivers(messages: &[(NodeId, Message)]) -> Vec<NodeId> {
    messages.iter().map(|(to, _)| *to).collect()
}

/// A leader of five that all others follow, and whose first round was answered by 2 and 4 first.
fn leader_with_prompt_followers() -> Raft {
    let mut raft = settled_leader(1, 5, 1, &[]);
    (2..=5).for_each(|id| step(&mut raft, id, accepted(1, 1)));
    raft.read(1);
    assert_eq!(receivers(&sent(&mut raft)), [2, 3, 4, 5]);
    [4, 2].into_iter().for_each(|id| step(&mut raft, id, accepted_in_round(1, 1, 1)));
    assert_eq!(confirmed(&mut raft), [(1, 1)]);
    raft
}

/// Who was not needed for a majority is left alone, as long as a majority is as prompt as it was.
#[test]
fn those_who_answer_first_are_asked_again_and_no_more_than_it_takes() {
    let mut raft = leader_with_prompt_followers();
    for round in 2..10 {
        raft.read(round);
        assert_eq!(receivers(&sent(&mut raft)), [2, 4]);
        step(&mut raft, 2, accepted_in_round(1, 1, round));
        assert_eq!(confirmed(&mut raft), []);
        step(&mut raft, 4, accepted_in_round(1, 1, round));
        assert_eq!(confirmed(&mut raft), [(round, 1)]);
    }
}

/// Any majority will do: when the few do not answer within a tick, the others are asked the same, and with the
/// next round all are, from the first.
#[test]
fn the_others_are_asked_when_a_tick_passes_and_whoever_is_first_then_is_asked_from_then_on() {
    let mut raft = leader_with_prompt_followers();
    raft.read(2);
    assert_eq!(receivers(&sent(&mut raft)), [2, 4]);
    step(&mut raft, 4, accepted_in_round(1, 1, 2));
    raft.tick();
    let messages = sent(&mut raft);
    assert_eq!((receivers(&messages), round_of(&messages)), (vec![2, 3, 5], 2));
    step(&mut raft, 5, accepted_in_round(1, 1, 2));
    assert_eq!(confirmed(&mut raft), [(2, 1)]);
    raft.read(3);
    assert_eq!(receivers(&sent(&mut raft)), [2, 3, 4, 5]);
    [3, 5].into_iter().for_each(|id| step(&mut raft, id, accepted_in_round(1, 1, 3)));
    assert_eq!(confirmed(&mut raft), [(3, 1)]);
    raft.read(4);
    assert_eq!(receivers(&sent(&mut raft)), [3, 5]);
}

/// A connection that is gone is not waited for, not even for a tick.
#[test]
fn the_others_are_asked_at_once_when_one_of_the_few_is_gone() {
    let mut raft = leader_with_prompt_followers();
    raft.read(2);
    assert_eq!(receivers(&sent(&mut raft)), [2, 4]);
    raft.peer_unreachable(2);
    assert!(raft.has_ready());
    assert_eq!(receivers(&sent(&mut raft)), [2, 3, 4, 5]);
    [3, 4].into_iter().for_each(|id| step(&mut raft, id, accepted_in_round(1, 1, 2)));
    assert_eq!(confirmed(&mut raft), [(2, 1)]);
}

/// Whoever has entries to write may answer late, and whoever is to learn what is committed is sent a message anyway:
/// then the first of all count.
#[test]
fn all_are_asked_while_one_of_the_few_lacks_entries() {
    let mut raft = leader_with_prompt_followers();
    propose(&mut raft, 8);
    turn(&mut raft);
    raft.read(2);
    assert_eq!(receivers(&sent(&mut raft)), [2, 3, 4, 5]);
    [2, 3].into_iter().for_each(|id| step(&mut raft, id, accepted_in_round(1, 2, 2)));
    assert_eq!(confirmed(&mut raft), [(2, 1)]);
    raft.read(3);
    assert_eq!(
        receivers(&sent(&mut raft)),
        [2, 3, 4, 5],
        "they are committed, which is news to all"
    );
    [3, 5].into_iter().for_each(|id| step(&mut raft, id, accepted_in_round(1, 2, 3)));
    assert_eq!(confirmed(&mut raft), [(3, 2)]);
    raft.read(4);
    assert_eq!(receivers(&sent(&mut raft)), [3, 5]);
}

/// The answer to the round is what counts, not whether the follower has the newest entries.
#[test]
fn a_follower_that_lags_confirms_reads() {
    let mut raft = leader(1, 3, 3, &[1, 2]);
    step(&mut raft, 2, accepted(3, 3));
    turn(&mut raft);
    raft.read(1);
    turn(&mut raft);
    let reply = Message::AppendReply {
        term: 3,
        round: 1,
        outcome: AppendOutcome::Rejected {
            prev_log_index: 2,
            hint_index: 0,
            hint_term: 0,
            lost_entries: false,
        },
    };
    step(&mut raft, 3, reply);
    assert_eq!(confirmed(&mut raft), [(1, 3)]);
}

/// A read sees what was committed when its round began, not when it is confirmed: enough, and no
/// later writes are waited for.
#[test]
fn a_read_sees_the_commit_index_of_its_round() {
    let mut raft = settled_leader(1, 3, 1, &[]);
    raft.read(1);
    turn(&mut raft);
    propose(&mut raft, 8);
    turn(&mut raft);
    step(&mut raft, 2, accepted_in_round(1, 2, 1));
    assert_eq!((confirmed(&mut raft), raft.commit_index()), (vec![(1, 1)], 2));
}

/// Lost leadership gives up all of them, those in flight and those that wait.
#[test]
fn reads_are_given_up_when_leadership_is_lost() {
    type Lose = fn(&mut Raft);
    let newer_term: Lose = |raft| step(raft, 2, accepted(2, 0));
    let newer_leader: Lose = |raft| step(raft, 2, append(2, (1, 1), 1, vec![]));
    let no_quorum: Lose = |raft| (0..2 * ELECTION_TICKS_MIN).for_each(|_| raft.tick());
    for lose in [newer_term, newer_leader, no_quorum] {
        let mut raft = settled_leader(1, 3, 1, &[]);
        raft.read(1);
        turn(&mut raft);
        raft.read(2);
        lose(&mut raft);
        assert!(raft.has_ready());
        assert_eq!(raft.take_aborted_reads(), [1, 2]);
        assert_eq!((confirmed(&mut raft), raft.reads_waiting()), (vec![], 0));
        for from in [2, 3] {
            step(&mut raft, from, accepted_in_round(1, 1, 1));
        }
        assert_eq!(confirmed(&mut raft), []);
    }
}

/// A leader that was paused and replaced: whatever arrives from before, in any order, its read is
/// not confirmed.
#[test]
fn a_paused_leader_that_was_replaced_confirms_no_read() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    // Everything the old leader sent is answered, the answers are under way while it is paused.
    for _ in 0..HEARTBEAT_TICKS {
        cluster.tick(old);
    }
    cluster.turn(old);
    for envelope in std::mem::take(&mut cluster.in_flight) {
        let to = envelope.to;
        cluster.arrive(envelope);
        cluster.turn(to);
    }
    let answers = std::mem::take(&mut cluster.in_flight);
    assert_eq!(answers.len(), 2);
    cluster.isolate(old);
    let others: Vec<NodeId> = cluster.ids().into_iter().filter(|id| *id != old).collect();
    let has_new_leader = |cluster: &Cluster| others.iter().any(|id| cluster.raft(*id).is_leader());
    for _ in 0..20 * ELECTION_TICKS_MAX {
        if has_new_leader(&cluster) {
            break;
        }
        for id in &others {
            cluster.tick(*id);
            cluster.turn(*id);
        }
        cluster.settle();
    }
    assert!(has_new_leader(&cluster));
    // It wakes up, still a leader by its own account, and is asked.
    assert!(cluster.read(old, 1));
    cluster.turn(old);
    cluster.heal();
    for envelope in answers {
        cluster.arrive(envelope);
        cluster.turn(old);
    }
    assert!(cluster.server(old).confirmed_reads.is_empty());
    cluster.settle();
    assert!(cluster.server(old).confirmed_reads.is_empty());
    assert_eq!(cluster.server(old).aborted_reads, [1]);
}

/// Alone, a leader is its own majority.
#[test]
fn a_single_node_confirms_reads_at_once() {
    let mut raft = alone();
    raft.read(1);
    turn(&mut raft);
    assert_eq!(confirmed(&mut raft), [(1, 1)]);
}
