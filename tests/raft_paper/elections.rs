//! Section 5.2: leader election, and the durability of votes (Figure 2).

use crate::common::cluster::{Cluster, Envelope};
use crate::common::core::*;
use crate::granted;
use raftkv::raft::{Config, HardState, Index, Message, NodeId, Payload, Raft, Ready, Term};
use std::collections::BTreeSet;

/// §5.2: "when servers start up, they begin as followers".
#[test]
fn a_node_starts_as_a_follower_that_knows_no_leader() {
    let raft = follower(1, 3, 7, &[1, 2]);
    assert_eq!((raft.role_name(), raft.leader(), raft.term()), ("follower", None, 7));
}

/// §5.2: "leaders send periodic heartbeats (AppendEntries RPCs that carry no log entries) to all
/// followers".
#[test]
fn a_leader_sends_heartbeats_to_all_followers() {
    let mut raft = settled_leader(1, 3, 1, &[]);
    for _ in 0..3 {
        for _ in 1..HEARTBEAT_TICKS {
            raft.tick();
            assert!(!raft.has_ready(), "not before its time");
        }
        raft.tick();
        let messages = sent(&mut raft);
        let receivers: Vec<NodeId> = messages.iter().map(|(to, _)| *to).collect();
        assert_eq!(receivers, [2, 3]);
        assert!(messages.iter().all(|(_, message)| entries_of(message).is_empty()));
    }
}

/// §5.2: "a server remains in follower state as long as it receives valid RPCs from a leader".
#[test]
fn a_follower_that_hears_heartbeats_begins_no_election() {
    let mut raft = follower(2, 3, 1, &[]);
    for _ in 0..10 * ELECTION_TICKS_MAX / HEARTBEAT_TICKS {
        for _ in 0..HEARTBEAT_TICKS {
            raft.tick();
        }
        step(&mut raft, 1, append(1, (0, 0), 0, vec![]));
        turn(&mut raft);
    }
    assert_eq!((raft.role_name(), raft.term()), ("follower", 1));
}

/// §5.2: "to begin an election, a follower increments its current term and transitions to candidate
/// state. It then votes for itself and issues RequestVote RPCs in parallel to each of the other
/// servers".
#[test]
fn an_election_asks_everybody_in_a_new_term() {
    let mut raft = follower(1, 3, 2, &[1, 2]);
    time_out(&mut raft);
    turn(&mut raft);
    step(&mut raft, 3, pre_vote(3, true));
    let Ready { hard_state, messages, .. } = turn(&mut raft);
    assert_eq!(raft.role_name(), "candidate");
    assert_eq!(hard_state, Some(HardState { term: 3, voted_for: Some(1) }));
    assert_eq!(messages, [(2, request_vote(3, (2, 2))), (3, request_vote(3, (2, 2)))]);
}

/// §5.2: "each candidate will time out and start a new election by incrementing its term".
#[test]
fn a_candidate_that_times_out_begins_a_new_election() {
    let mut raft = candidate(1, 3, 3, &[]);
    time_out(&mut raft);
    assert_eq!((raft.role_name(), raft.term()), ("pre-candidate", 3));
    turn(&mut raft);
    step(&mut raft, 2, pre_vote(4, true));
    assert_eq!((raft.role_name(), raft.term()), ("candidate", 4));
    let requests = sent(&mut raft);
    assert_eq!(requests, [(2, request_vote(4, (0, 0))), (3, request_vote(4, (0, 0)))]);
}

/// §5.2: "a candidate wins an election if it receives votes from a majority of the servers in the
/// full cluster for the same term", its own included.
#[test]
fn a_candidate_wins_with_a_majority_and_not_before() {
    type Votes = &'static [(NodeId, bool)];
    let cases: &[(u64, Votes, &str)] = &[
        (3, &[], "candidate"),
        (3, &[(2, true)], "leader"),
        (3, &[(2, false)], "candidate"),
        (3, &[(2, false), (3, true)], "leader"),
        (3, &[(2, false), (3, false)], "follower"),
        (5, &[(2, true)], "candidate"),
        (5, &[(2, true), (2, true)], "candidate"),
        (5, &[(2, true), (3, true)], "leader"),
        (5, &[(2, true), (3, false), (4, false)], "candidate"),
        (5, &[(2, true), (3, false), (4, false), (5, true)], "leader"),
        (5, &[(2, false), (3, false), (4, false)], "follower"),
        // Somebody who is no voter.
        (3, &[(9, true)], "candidate"),
    ];
    for (voters, votes, expected) in cases {
        let mut raft = candidate(1, *voters, 1, &[]);
        for (from, granted) in *votes {
            step(&mut raft, *from, vote(1, *granted));
        }
        assert_eq!(raft.role_name(), *expected, "{voters} voters, {votes:?}");
    }
}

/// §5.2: "once a candidate wins an election, it becomes leader. It then sends heartbeat messages to
/// all of the other servers to establish its authority", and at once.
#[test]
fn a_new_leader_speaks_to_everybody_at_once() {
    let mut raft = candidate(1, 5, 1, &[]);
    step(&mut raft, 2, vote(1, true));
    step(&mut raft, 3, vote(1, true));
    let Ready { early, .. } = turn(&mut raft);
    let receivers: Vec<NodeId> = early.iter().map(|(to, _)| *to).collect();
    assert_eq!(receivers, [2, 3, 4, 5]);
    assert!(early.iter().all(|(_, message)| matches!(message, Message::AppendEntries { .. })));
}

/// §8: "Raft handles this by having each leader commit a blank no-op entry into the log at the
/// start of its term."
#[test]
fn a_new_leader_begins_its_term_with_a_noop() {
    let mut raft = candidate(1, 3, 4, &[1, 3]);
    step(&mut raft, 2, vote(4, true));
    let last = raft.log().get(3).expect("a third entry");
    assert_eq!((last.term, &last.payload), (4, &Payload::Noop));
    assert_eq!(turn(&mut raft).entries.len(), 1, "and writes it");
}

/// §5.2: "each server will vote for at most one candidate in a given term, on a
/// first-come-first-served basis"; the same candidate may ask again.
#[test]
fn a_voter_votes_once_a_term() {
    for (voted_for, from, expected) in [
        (None, 2, true),
        (None, 3, true),
        (Some(2), 2, true),
        (Some(3), 3, true),
        (Some(2), 3, false),
        (Some(3), 2, false),
        (Some(1), 2, false),
    ] {
        let mut raft = Raft::new(config(1, 3), HardState { term: 1, voted_for }, vec![]);
        step(&mut raft, from, request_vote(1, (0, 0)));
        let Ready { hard_state, messages, .. } = turn(&mut raft);
        assert_eq!(granted(&messages[0].1), expected, "{voted_for:?} asked by {from}");
        let new = (expected && voted_for.is_none()).then_some(from);
        let written = new.map(|id| HardState { term: 1, voted_for: Some(id) });
        assert_eq!(hard_state, written, "{voted_for:?} asked by {from}: a new vote is written");
    }
}

/// §5.2: a new term frees the vote.
#[test]
fn a_vote_of_an_older_term_does_not_bind() {
    let mut raft = Raft::new(config(1, 3), HardState { term: 1, voted_for: Some(2) }, vec![]);
    step(&mut raft, 3, request_vote(2, (0, 0)));
    assert_eq!(only_reply(&mut raft), vote(2, true));
    assert_eq!(raft.hard_state(), HardState { term: 2, voted_for: Some(3) });
}

/// Figure 2: votedFor is "updated on stable storage before responding to RPCs": a granted vote
/// leaves only in what is sent after the sync, together with the hard state that says so.
#[test]
fn a_vote_is_durable_before_it_is_answered() {
    let mut raft = follower(1, 3, 1, &[]);
    step(&mut raft, 2, request_vote(2, (0, 0)));
    let ready = raft.take_ready();
    assert_eq!(ready.hard_state, Some(HardState { term: 2, voted_for: Some(2) }));
    assert_eq!(ready.messages, [(2, vote(2, true))]);
    assert!(ready.early.is_empty(), "nothing leaves before the sync");
}

/// Figure 2, and the crash in between: a vote that did not reach the disk was not answered, one
/// that did is remembered.
#[test]
fn a_crash_never_makes_a_second_vote_of_a_term() {
    for (records, may_vote_again) in [(0, true), (1, false)] {
        let mut cluster = Cluster::new(3);
        cluster.server_mut(1).disk_is_slow = true;
        let ask = |from| Envelope { from, to: 1, message: request_vote(2, (0, 0)) };
        cluster.arrive(ask(2));
        cluster.turn(1);
        assert!(cluster.in_flight.is_empty(), "not answered yet");
        cluster.crash(1, records);
        cluster.restart(1);
        cluster.server_mut(1).disk_is_slow = false;
        cluster.arrive(ask(3));
        cluster.turn(1);
        assert_eq!(granted(&cluster.in_flight[0].message), may_vote_again, "{records} records");
    }
}

/// §5.2 and Figure 2: a candidate's vote for itself is a vote like any other: it counts once it is
/// durable.
#[test]
fn the_own_vote_counts_only_once_it_is_durable() {
    let mut raft = follower(1, 1, 0, &[]);
    time_out(&mut raft);
    assert_eq!((raft.role_name(), raft.term()), ("candidate", 1));
    assert_eq!(raft.take_ready().hard_state, Some(HardState { term: 1, voted_for: Some(1) }));
    assert_eq!(raft.role_name(), "candidate");
    raft.persisted();
    assert_eq!(raft.role_name(), "leader");
}

/// The same of five: two votes and an own one that is still under way are not a majority.
#[test]
fn two_votes_of_five_and_an_unsynced_own_one_do_not_win() {
    let mut raft = follower(1, 5, 0, &[]);
    time_out(&mut raft);
    turn(&mut raft);
    for voter in [2, 3] {
        step(&mut raft, voter, pre_vote(1, true));
    }
    raft.take_ready();
    for voter in [2, 3] {
        step(&mut raft, voter, vote(1, true));
    }
    assert_eq!(raft.role_name(), "candidate");
    raft.persisted();
    assert_eq!(raft.role_name(), "leader");
}

/// §5.2: "while waiting for votes, a candidate may receive an AppendEntries RPC from another server
/// claiming to be leader. If the leader's term is at least as large as the candidate's current
/// term, then the candidate recognizes the leader as legitimate and returns to follower state".
#[test]
fn a_candidate_recognizes_a_leader_of_its_term_or_a_newer_one() {
    for term in [3, 4] {
        let mut raft = candidate(1, 3, 3, &[]);
        step(&mut raft, 2, append(term, (0, 0), 0, vec![]));
        assert_eq!((raft.role_name(), raft.term(), raft.leader()), ("follower", term, Some(2)));
    }
}

/// §5.2: "if the term in the RPC is smaller than the candidate's current term, then the candidate
/// rejects the RPC and continues in candidate state".
#[test]
fn a_candidate_rejects_a_leader_of_an_older_term() {
    let mut raft = candidate(1, 3, 3, &[]);
    step(&mut raft, 2, append(2, (0, 0), 0, vec![]));
    assert_eq!(raft.role_name(), "candidate");
    assert_eq!(only_reply(&mut raft).term(), 3);
}

/// The ticks until a node times out, over many times.
fn timeouts(raft: &mut Raft, prepare: impl Fn(&mut Raft)) -> Vec<u32> {
    let mut timeouts = Vec::new();
    for _ in 0..1_000 {
        prepare(raft);
        turn(raft);
        let mut ticks = 0;
        while !raft.has_ready() {
            raft.tick();
            ticks += 1;
        }
        timeouts.push(ticks);
    }
    timeouts
}

fn assert_covers_the_range(timeouts: &[u32]) {
    let seen: BTreeSet<u32> = timeouts.iter().copied().collect();
    assert_eq!(seen, (ELECTION_TICKS_MIN..=ELECTION_TICKS_MAX).collect());
}

/// §5.2: "election timeouts are chosen randomly from a fixed interval": all of it, both ends
/// included.
#[test]
fn a_followers_timeouts_cover_the_whole_range() {
    let mut raft = follower(1, 3, 1, &[]);
    let mut term = 1;
    let timeouts: Vec<u32> = (0..1_000)
        .map(|_| {
            term += 1;
            step(&mut raft, 2, append(term, (0, 0), 0, vec![]));
            turn(&mut raft);
            let ticks = (1..).find(|_| {
                raft.tick();
                raft.has_ready()
            });
            ticks.expect("a timeout")
        })
        .collect();
    assert_covers_the_range(&timeouts);
}

/// §5.2: "each candidate restarts its randomized election timeout at the start of an election".
#[test]
fn a_candidates_timeouts_cover_the_whole_range() {
    let mut raft = candidate(1, 3, 1, &[]);
    assert_covers_the_range(&timeouts(&mut raft, |raft| {
        let next = raft.term() + 1;
        step(raft, 2, pre_vote(next, true));
    }));
}

/// §5.2: "to prevent split votes in the first place": nodes draw different timeouts, so mostly one
/// of them is alone at first.
#[test]
fn timeouts_differ_by_seed() {
    let draw = |id: NodeId| {
        let config = Config { seed: 100 + id, ..config(id, 5) };
        timeouts(&mut started(config, 1, &[]), |_| {})
    };
    let drawn: Vec<Vec<u32>> = (1..=5).map(draw).collect();
    let alone = (0..1_000).filter(|round| {
        let first = drawn.iter().map(|timeouts| timeouts[*round]).min().expect("five nodes");
        drawn.iter().filter(|timeouts| timeouts[*round] == first).count() == 1
    });
    assert!(alone.count() > 600, "with eleven values and five nodes about 7 of 10 times");
}

/// The tick of its last timer at which a follower times out that heard its leader at 0 and, at the
/// moment it would vote for another, may be asked to. `None` for a seed with which it has timed out
/// by then.
fn times_out_at(seed: u64, candidate_last: Option<(Index, Term)>) -> Option<u32> {
    let mut raft = started(Config { seed, ..config(1, 3) }, 1, &[1, 1]);
    step(&mut raft, 2, append(1, (2, 1), 0, vec![]));
    turn(&mut raft);
    for _ in 0..ELECTION_TICKS_MIN {
        raft.tick();
    }
    if raft.has_ready() {
        return None;
    }
    if let Some(last) = candidate_last {
        step(&mut raft, 3, request_vote(2, last));
        turn(&mut raft);
    }
    (ELECTION_TICKS_MIN + 1..).find(|_| {
        raft.tick();
        raft.has_ready()
    })
}

/// Figure 2, "rules for servers": an election timeout restarts on "AppendEntries RPC from current
/// leader or granting vote to candidate", so not on a vote that is refused, even if it brings a
/// newer term.
#[test]
fn a_refused_vote_does_not_restart_the_election_timer() {
    let mut tried = 0;
    for seed in 0..50 {
        let Some(left_alone) = times_out_at(seed, None) else { continue };
        assert_eq!(times_out_at(seed, Some((1, 1))), Some(left_alone), "refused, seed {seed}");
        let granted = times_out_at(seed, Some((2, 1))).expect("the same seed");
        assert!(granted >= 2 * ELECTION_TICKS_MIN, "granted, seed {seed}: {granted}");
        tried += 1;
    }
    assert!(tried > 30, "few seeds draw the smallest timeout: {tried}");
}

/// Figure 2, likewise: an AppendEntries of an older term is not from the current leader.
#[test]
fn a_stale_leader_does_not_restart_the_election_timer() {
    let mut raft = follower(1, 3, 5, &[]);
    for _ in 0..ELECTION_TICKS_MAX {
        step(&mut raft, 2, append(4, (0, 0), 0, vec![]));
        turn(&mut raft);
        raft.tick();
    }
    assert_ne!(raft.role_name(), "follower");
}
