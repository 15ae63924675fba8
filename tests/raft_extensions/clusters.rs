//! Idle, single and larger clusters.

use crate::common::cluster::Cluster;
use crate::common::core::*;
use crate::*;
use raftkv::raft::Config;
use std::collections::BTreeSet;

/// With the default timing and nothing to do, a cluster of three exchanges 20 heartbeats a second
/// and follower, and nothing else.
#[test]
fn an_idle_cluster_exchanges_heartbeats_only() {
    let mut cluster = Cluster::with(3, |config| *config = Config::new(config.id, 1..=3, config.id));
    let leader = cluster.elect();
    cluster.run(50);
    let (term, last) = (cluster.raft(leader).term(), cluster.raft(leader).log().last());
    let seconds = 60;
    let messages = cluster.run(seconds * 100);
    assert_eq!(messages, seconds as usize * 20 * 2 * 2, "with their replies");
    assert_eq!((cluster.raft(leader).term(), cluster.raft(leader).log().last()), (term, last));
    assert!(cluster.raft(leader).is_leader());
}

/// One node elects itself, commits with its own disk, and tells nobody.
#[test]
fn a_single_node_is_a_cluster() {
    let mut raft = alone();
    propose(&mut raft, 8);
    let ready = raft.take_ready();
    assert_eq!((ready.early.len(), ready.messages.len(), ready.entries.len()), (0, 0, 1));
    assert_eq!(raft.commit_index(), 1, "not before it is on disk");
    raft.persisted();
    assert_eq!(raft.commit_index(), 2);
    for _ in 0..10 * ELECTION_TICKS_MAX {
        raft.tick();
    }
    assert!(raft.is_leader() && !raft.has_ready());
}

/// A restarted single node is a follower until it has won its election again.
#[test]
fn a_restarted_single_node_is_not_a_leader_at_once() {
    let mut raft = follower(1, 1, 1, &[1, 1]);
    assert_eq!((raft.role_name(), raft.commit_index(), raft.read(1)), ("follower", 0, false));
    time_out(&mut raft);
    turn(&mut raft);
    turn(&mut raft);
    assert_eq!((raft.term(), raft.commit_index()), (2, 3));
}

/// Somebody who is no voter follows, and does not ask for votes.
#[test]
fn a_node_that_is_no_voter_does_not_campaign() {
    let config = Config { voters: BTreeSet::from([1, 2, 3]), ..config(9, 3) };
    let mut raft = started(config, 1, &[]);
    for _ in 0..5 * ELECTION_TICKS_MAX {
        raft.tick();
    }
    assert_eq!((raft.role_name(), raft.has_ready()), ("learner", false));
}

/// Section 6: "servers [...] vote for a candidate that is not part of the server's own latest configuration": it
/// may have become a member without this voter's knowing.
#[test]
fn a_candidate_that_the_voter_does_not_know_may_win_its_vote() {
    let mut voter = follower(2, 3, 1, &[]);
    step(&mut voter, 9, request_pre_vote(2, (9, 1)));
    assert_eq!(only_reply(&mut voter), pre_vote(2, true));
    step(&mut voter, 9, request_vote(2, (9, 1)));
    assert_eq!(only_reply(&mut voter), vote(2, true));
}

/// Five nodes go on without any two of them, and stop without three.
#[test]
fn five_nodes_survive_two() {
    let mut cluster = Cluster::new(5);
    for crashes in 0..=2 {
        let leader = cluster.elect();
        let position = cluster.propose(leader, "a").expect("a leader");
        cluster.turn(leader);
        cluster.settle();
        assert_eq!(cluster.raft(leader).commit_index(), position.index, "{crashes} crashed");
        cluster.crash(leader, 0);
    }
    cluster.run(20 * ELECTION_TICKS_MAX);
    assert_eq!(cluster.leader(), None, "two of five");
}

/// With the default timeouts, of which each tick is 10 ms.
#[test]
fn three_nodes_that_start_together_have_a_leader_within_two_seconds() {
    for seed in 0..200 {
        let mut cluster = Cluster::with(3, |config| {
            *config = Config::new(config.id, 1..=3, seed * 10 + config.id)
        });
        let ticks = (1..=200).find(|_| {
            cluster.run(1);
            cluster.leader().is_some()
        });
        assert!(ticks.is_some(), "seed {seed}: {}", cluster.summary());
        let (leader, term) = (cluster.leader(), cluster.raft(1).term());
        cluster.run(500);
        assert_eq!((cluster.leader(), cluster.raft(1).term()), (leader, term), "seed {seed}");
    }
}
