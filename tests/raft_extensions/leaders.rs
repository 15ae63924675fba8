//! How a leader loses its office: check-quorum (thesis 6.2 and 4.2.3), the end of its process, and
//! what two leaders of one term would be.

use crate::common::cluster::{Cluster, Envelope};
use crate::common::core::*;
use crate::*;
use raftkv::raft::{Config, Contradiction, Distrust, NodeId, Raft};

/// Thesis 6.2: "a leader in Raft steps down if an election timeout elapses without a successful
/// round of heartbeats to a majority of its cluster".
#[test]
fn a_leader_without_a_majority_steps_down() {
    for (voters, answering, stays) in
        [(1, 0, true), (2, 0, false), (3, 0, false), (3, 1, true), (5, 1, false), (5, 2, true)]
    {
        let mut raft = if voters == 1 { alone() } else { settled_leader(1, voters, 1, &[]) };
        for _ in 0..3 * ELECTION_TICKS_MIN {
            raft.tick();
            turn(&mut raft);
            for from in 2..2 + answering {
                step(&mut raft, from, accepted(1, 1));
            }
        }
        assert_eq!(raft.is_leader(), stays, "{answering} of {voters} answer");
        assert_eq!(raft.term(), 1, "stepping down is no new term");
    }
}

/// It has just heard of a leader, itself; what was left of its timeout when it was elected is long over.
#[test]
fn a_leader_that_steps_down_waits_for_a_whole_timeout() {
    for seed in 0..50 {
        let mut raft = candidate_with(Config { seed, ..config(1, 3) }, 1, &[]);
        for _ in 1..ELECTION_TICKS_MIN {
            raft.tick();
        }
        step(&mut raft, 2, vote(1, true));
        step(&mut raft, 2, vote(9, false));
        turn(&mut raft);
        for tick in 1..ELECTION_TICKS_MIN {
            raft.tick();
            assert_eq!(raft.role_name(), "follower", "seed {seed}, tick {tick}");
        }
    }
}

/// A rejection is an answer too: a follower that catches up counts.
#[test]
fn a_follower_that_rejects_is_alive() {
    let mut raft = leader(1, 3, 3, &[1, 2, 2]);
    for _ in 0..3 * ELECTION_TICKS_MIN {
        raft.tick();
        turn(&mut raft);
        step(&mut raft, 2, rejected(3, 9, (0, 0)));
    }
    assert!(raft.is_leader());
}

/// Thesis 4.2.3: "if a server receives a RequestVote request within the minimum election timeout of
/// hearing from a current leader, it does not update its term or grant its vote".
#[test]
fn a_vote_is_refused_without_a_new_term_while_a_leader_is_heard() {
    let mut follower = led_follower(2, 3);
    let mut leader = settled_leader(1, 3, 1, &[]);
    for raft in [&mut follower, &mut leader] {
        step(raft, 3, request_vote(9, (9, 8)));
        assert_eq!((raft.term(), sent_to(raft, 3)), (1, vec![]));
    }
    forget_leader(&mut follower);
    step(&mut follower, 3, request_vote(9, (9, 8)));
    assert_eq!(sent_to(&mut follower, 3), [vote(9, true)]);
}

/// A node that is in a newer term all the same is not left behind: it refuses the leader's
/// messages, and that ends the older term.
#[test]
fn a_node_of_a_newer_term_can_come_back() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let ahead = other_than(&cluster, &[leader]);
    cluster.arrive(Envelope { from: leader, to: ahead, message: vote(50, false) });
    cluster.run_until(10 * ELECTION_TICKS_MAX, |cluster| {
        cluster.leader().is_some_and(|id| {
            let term = cluster.raft(id).term();
            term >= 50 && cluster.servers().all(|(_, server)| server.raft().term() == term)
        })
    });
}

/// Both sides of a partition: the minority's leader steps down, the majority elects another, and
/// the old one follows it when it is back.
#[test]
fn a_leader_in_the_minority_gives_way() {
    let mut cluster = Cluster::new(5);
    let old = cluster.elect();
    let companion = other_than(&cluster, &[old]);
    let majority: Vec<NodeId> =
        cluster.ids().into_iter().filter(|id| ![old, companion].contains(id)).collect();
    cluster.partition(&[old, companion], &majority);
    cluster.propose(old, "lost").expect("still a leader");
    cluster.run_until(2 * ELECTION_TICKS_MIN, |cluster| !cluster.raft(old).is_leader());
    let new = cluster.elect();
    assert!(majority.contains(&new));
    cluster.heal();
    cluster.run(ELECTION_TICKS_MAX);
    for id in cluster.ids() {
        assert_eq!(cluster.raft(id).leader(), Some(new));
        assert_eq!(cluster.raft(id).log().last(), cluster.raft(new).log().last());
    }
}

/// Without a majority nobody leads; with it again, somebody does.
#[test]
fn a_cluster_without_a_majority_recovers_when_it_is_back() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let others: Vec<NodeId> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    for id in &others {
        cluster.crash(*id, 0);
    }
    cluster.propose(leader, "a").expect("not noticed yet");
    let commit_index = cluster.raft(leader).commit_index();
    cluster.run(5 * ELECTION_TICKS_MAX);
    assert_eq!((cluster.leader(), cluster.raft(leader).commit_index()), (None, commit_index));
    cluster.restart(others[0]);
    cluster.elect();
}

/// A killed leader is replaced, and is a follower without another election when it is back.
#[test]
fn a_killed_leader_returns_as_a_follower() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    cluster.crash(old, 0);
    let new = cluster.elect();
    let term = cluster.raft(new).term();
    cluster.restart(old);
    cluster.run(5 * ELECTION_TICKS_MAX);
    let raft = cluster.raft(old);
    assert_eq!((raft.term(), raft.leader()), (term, Some(new)));
}

/// Ticks from the notice that the leader's process ended until another leads.
fn replacement_ticks(voters: u64, seed: u64, is_noticed: bool) -> u32 {
    let mut cluster = Cluster::with(voters, |config| {
        // The default timing: heartbeat 5 ticks of 10 ms, election 30 to 60.
        *config = Config::new(config.id, 1..=voters, seed * 100 + config.id);
    });
    let old = cluster.elect();
    cluster.run(20);
    cluster.crash(old, 0);
    for id in cluster.up() {
        if is_noticed {
            cluster.peer_process_ended(id, old);
        }
    }
    cluster.run_until(500, |cluster| cluster.leader().is_some())
}

/// A follower that knows that its leader's process ended does not wait for the timeout.
#[test]
fn a_leader_whose_process_ended_is_replaced_soon() {
    for voters in [3, 5] {
        for seed in 0..100 {
            let ticks = replacement_ticks(voters, seed, true);
            assert!(ticks <= 5, "{voters} voters, seed {seed}: {ticks} ticks of 10 ms");
        }
    }
    let unnoticed = (0..20).map(|seed| replacement_ticks(3, seed, false)).min();
    assert!(unnoticed >= Some(20), "otherwise it takes a timeout: {unnoticed:?}");
}

/// The voters ask one after the other, so that the first has its answers before the second asks.
#[test]
fn hurried_voters_do_not_split_the_vote() {
    for seed in 0..100 {
        let first_ask = |id: NodeId| {
            let mut raft = started(Config::new(id, 1..=5, seed * 10 + id), 1, &[]);
            step(&mut raft, 3, append(1, (0, 0), 0, vec![]));
            turn(&mut raft);
            raft.peer_process_ended(3);
            let ticks = (1..100).find(|_| {
                raft.tick();
                raft.has_ready()
            });
            ticks.expect("it asks")
        };
        let asks: Vec<u32> = [1, 2, 4, 5].map(first_ask).to_vec();
        assert!(asks.windows(2).all(|pair| pair[0] + 2 <= pair[1]), "seed {seed}: {asks:?}");
    }
}

/// Only the leader's end matters.
#[test]
fn the_end_of_a_follower_hurries_nobody() {
    let mut told = led_follower(2, 3);
    let mut untold = led_follower(2, 3);
    told.peer_process_ended(3);
    while !untold.has_ready() {
        assert!(!told.has_ready());
        told.tick();
        untold.tick();
    }
    assert!(told.has_ready());
}

/// If the leader is alive after all, the others refuse, and its next message ends the hurry.
#[test]
fn a_mistaken_hurry_does_not_unseat_a_leader() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let term = cluster.raft(leader).term();
    let mistaken = other_than(&cluster, &[leader]);
    for _ in 0..50 {
        cluster.peer_process_ended(mistaken, leader);
        cluster.run(HEARTBEAT_TICKS);
        assert_eq!(cluster.raft(mistaken).leader(), Some(leader));
    }
    assert!(cluster.servers().all(|(_, server)| server.raft().term() == term));
}

/// Somebody who is alone soon falls back to the ordinary timeout.
#[test]
fn a_hurry_ends_after_some_attempts() {
    let mut raft = started(Config::new(2, 1..=3, 7), 1, &[]);
    step(&mut raft, 1, append(1, (0, 0), 0, vec![]));
    turn(&mut raft);
    raft.peer_process_ended(1);
    let asks = |raft: &mut Raft, ticks: usize| {
        let mut asks = 0;
        for _ in 0..ticks {
            raft.tick();
            asks += usize::from(!sent(raft).is_empty());
        }
        asks
    };
    let hurried = asks(&mut raft, 120);
    assert!(hurried >= 8, "8 attempts, at most 15 ticks apart: {hurried}");
    let ordinary = asks(&mut raft, 6_000);
    assert!((100..=200).contains(&ordinary), "30 to 60 ticks apart: {ordinary}");
}

/// Two leaders of one term cannot be; who sees them says so and does nothing.
#[test]
fn a_second_leader_of_a_term_is_a_contradiction() {
    let mut follower = led_follower(2, 3);
    let mut leader = settled_leader(1, 3, 1, &[]);
    for raft in [&mut follower, &mut leader] {
        let (log, role, commit) = (terms(raft), raft.role_name(), raft.commit_index());
        let error = raft.step(3, append(1, (0, 0), 1, entries(1, &[1, 1, 1])));
        let contradiction = Contradiction { term: 1, known: 1, claims: 3 };
        assert_eq!(error, Err(Distrust::Contradiction(contradiction)));
        assert_eq!((terms(raft), raft.role_name(), raft.commit_index()), (log, role, commit));
        assert_eq!((raft.leader(), sent_to(raft, 3)), (Some(1), vec![]));
    }
    let error = Contradiction { term: 1, known: 1, claims: 3 }.to_string();
    assert_eq!(error, "node 3 claims to lead term 1, which node 1 leads");
}
