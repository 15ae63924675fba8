//! Disks that are slower than the network (thesis 10.2.1).

use crate::common::checker::Checker;
use crate::common::cluster::{Cluster, Envelope};
use crate::common::core::*;
use crate::*;
use raftkv::raft::{Message, Ready};

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
