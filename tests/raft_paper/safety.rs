//! Section 5.4: safety, and what has to be durable (Figure 2).

use crate::common::cluster::Cluster;
use crate::common::core::*;
use crate::granted;
use raftkv::raft::{HardState, Index, Raft, Ready, Term};

/// §5.4.1: "the RPC includes information about the candidate's log".
#[test]
fn a_request_for_votes_says_where_the_log_ends() {
    let mut raft = candidate(1, 3, 5, &[1, 2, 2]);
    time_out(&mut raft);
    turn(&mut raft);
    step(&mut raft, 2, pre_vote(6, true));
    assert_eq!(sent_to(&mut raft, 3), [request_vote(6, (3, 2))]);
}

/// §5.4.1: "if the logs have last entries with different terms, then the log with the later term is
/// more up-to-date. If the logs end with the same term, then whichever log is longer is more
/// up-to-date". The voter denies its vote if its own is more up-to-date.
#[test]
fn a_voter_denies_its_vote_to_a_log_behind_its_own() {
    let cases: &[(&[Term], (Index, Term), bool)] = &[
        // The same term.
        (&[1], (1, 1), true),
        (&[1], (2, 1), true),
        (&[1, 1], (1, 1), false),
        // The candidate's is later.
        (&[1], (1, 2), true),
        (&[1], (2, 2), true),
        (&[1, 1], (1, 2), true),
        // The voter's is later.
        (&[2], (1, 1), false),
        (&[2], (2, 1), false),
        (&[2, 2], (1, 1), false),
        // Longer, of an older term.
        (&[1, 3], (99, 2), false),
        // Empty logs.
        (&[], (0, 0), true),
        (&[1], (0, 0), false),
    ];
    for (voter_log, candidate_last, expected) in cases {
        let mut raft = follower(2, 3, 3, voter_log);
        step(&mut raft, 1, request_vote(4, *candidate_last));
        let reply = only_reply(&mut raft);
        assert_eq!(granted(&reply), *expected, "{voter_log:?} asked with {candidate_last:?}");
        let voted_for = raft.hard_state().voted_for;
        assert_eq!(voted_for, expected.then_some(1), "a refusal leaves the vote free");
    }
}

/// §5.4.1, between nodes: a log that misses what is committed does not win.
#[test]
fn a_node_that_misses_a_committed_entry_is_not_elected() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let behind = *cluster.ids().iter().find(|id| **id != leader).expect("another server");
    cluster.isolate(behind);
    cluster.propose(leader, "a").expect("a leader");
    cluster.turn(leader);
    cluster.settle();
    let committed = cluster.raft(leader).commit_index();
    assert_eq!(committed, cluster.raft(leader).log().last().index);
    cluster.crash(leader, 0);
    cluster.heal();
    // Only the one that has the entry can win, whoever begins.
    let new_leader = cluster.elect();
    assert_ne!(new_leader, behind);
    let raft = cluster.raft(new_leader);
    assert_eq!(raft.log().get(committed).expect("committed").payload, command("a"));
}

/// §5.4.2: "Raft never commits log entries from previous terms by counting replicas. Only log
/// entries from the leader's current term are committed by counting replicas".
#[test]
fn a_leader_commits_older_entries_only_with_one_of_its_own_term() {
    for (match_index, commit) in [(1, 0), (2, 0), (3, 3)] {
        let mut raft = leader(1, 3, 3, &[1, 2]);
        step(&mut raft, 2, accepted(3, match_index));
        assert_eq!(raft.commit_index(), commit, "match index {match_index}");
    }
}

/// Figure 8 (c) to (e): an entry of an old term on a majority can still be overwritten, so it was
/// not committed; with one of the leader's own term behind it, it is, and nobody without it can
/// win.
#[test]
fn figure_8_an_old_entry_on_a_majority_is_not_committed() {
    // (c): S1 leads term 4, its entry 2@2 is on S1, S2 and S3. Its own entry 3@4 is on nobody else.
    let mut s1 = leader(1, 5, 4, &[1, 2]);
    step(&mut s1, 2, accepted(4, 2));
    step(&mut s1, 3, accepted(4, 2));
    assert_eq!(s1.commit_index(), 0, "three of five have 2@2, and it counts for nothing");
    // (d): S5 with 2@3 wins S2's vote and overwrites.
    let mut s2 = follower(2, 5, 4, &[1, 2]);
    step(&mut s2, 5, request_vote(5, (2, 3)));
    assert_eq!(only_reply(&mut s2), vote(5, true));
    step(&mut s2, 5, append(5, (1, 1), 0, entries(2, &[3])));
    assert_eq!(terms(&s2), [1, 3]);
    // (e): instead S1 brings 3@4 to a majority; both are committed, and S5 cannot win.
    step(&mut s1, 2, accepted(4, 3));
    step(&mut s1, 3, accepted(4, 3));
    assert_eq!(s1.commit_index(), 3);
    let mut s3 = follower(3, 5, 4, &[1, 2, 4]);
    step(&mut s3, 5, request_vote(5, (2, 3)));
    assert_eq!(only_reply(&mut s3), vote(5, false));
}

/// §5.3 and Figure 2: the leader's own log is one of the majority's only as far as it is on its own
/// disk.
#[test]
fn the_own_log_counts_only_once_it_is_durable() {
    let mut raft = settled_leader(1, 3, 1, &[]);
    raft.propose(command("a")).expect("a leader");
    raft.take_ready();
    step(&mut raft, 2, accepted(1, 2));
    assert_eq!(raft.commit_index(), 1, "one disk of three");
    raft.persisted();
    assert_eq!(raft.commit_index(), 2);
}

/// §5.5: "Raft RPCs are idempotent": a repeated request is answered the same and changes nothing.
#[test]
fn repeated_requests_change_nothing() {
    let requests = [
        append(2, (1, 1), 1, entries(2, &[2, 2])),
        request_vote(2, (1, 1)),
        append(1, (0, 0), 0, vec![]),
    ];
    for request in requests {
        let mut raft = follower(2, 3, 2, &[1]);
        step(&mut raft, 1, request.clone());
        let first = only_reply(&mut raft);
        let (log, hard_state, commit) = (terms(&raft), raft.hard_state(), raft.commit_index());
        step(&mut raft, 1, request);
        let Ready { early, hard_state: unwritten, entries, messages, .. } = turn(&mut raft);
        assert_eq!(messages, [(1, first)]);
        assert_eq!((early.len(), unwritten, entries.len()), (0, None, 0), "nothing to write");
        assert_eq!(
            (terms(&raft), raft.hard_state(), raft.commit_index()),
            (log, hard_state, commit)
        );
    }
}

/// Figure 2: a node that starts again knows its term, its vote and its log, and no commit index.
#[test]
fn a_restart_keeps_what_figure_2_calls_persistent() {
    let hard_state = HardState { term: 4, voted_for: Some(3) };
    let mut raft = Raft::new(config(2, 3), hard_state, entries(1, &[1, 4]));
    assert_eq!((raft.hard_state(), terms(&raft), raft.commit_index()), (hard_state, vec![1, 4], 0));
    assert!(!raft.has_ready(), "nothing of it is written again");
    assert_eq!(raft.log().durable_index(), 2);
    step(&mut raft, 1, append(4, (2, 4), 2, vec![]));
    assert_eq!(raft.commit_index(), 2, "the leader tells");
}
