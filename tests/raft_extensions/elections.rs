//! Pre-vote (thesis 9.6) and late votes.

use crate::common::cluster::{Cluster, Envelope};
use crate::common::core::*;
use crate::*;
use raftkv::raft::Ready;

/// A request for a pre-vote changes nothing at the receiver, granted or not: no term, no vote, no
/// timer.
#[test]
fn a_pre_vote_changes_nothing_at_the_voter() {
    for last in [(9, 9), (0, 0)] {
        let mut asked = follower(2, 3, 1, &[1]);
        let mut left_alone = follower(2, 3, 1, &[1]);
        step(&mut asked, 1, request_pre_vote(2, last));
        let Ready { hard_state, entries, .. } = turn(&mut asked);
        assert_eq!((hard_state, entries.len(), asked.role_name()), (None, 0, "follower"));
        for tick in 1.. {
            asked.tick();
            left_alone.tick();
            assert_eq!(asked.has_ready(), left_alone.has_ready(), "tick {tick}");
            if asked.has_ready() {
                break;
            }
        }
    }
}

/// It is granted to whoever could win: no leader is heard, the log is complete enough, the term is
/// new.
#[test]
fn a_pre_vote_is_granted_to_whoever_could_win() {
    let cases = [
        ((2, 2), 3, pre_vote(3, true)),
        ((2, 2), 9, pre_vote(9, true)),
        ((1, 2), 3, pre_vote(2, false)),
        ((9, 1), 3, pre_vote(2, false)),
        ((2, 2), 2, pre_vote(2, false)),
    ];
    for (last, term, expected) in cases {
        let mut raft = follower(2, 3, 2, &[1, 2]);
        step(&mut raft, 1, request_pre_vote(term, last));
        assert_eq!(only_reply(&mut raft), expected, "{last:?} in term {term}");
    }
}

/// Two can be told yes: it is not a vote.
#[test]
fn a_pre_vote_binds_nobody() {
    let mut raft = follower(3, 3, 1, &[]);
    for candidate in [1, 2] {
        step(&mut raft, candidate, request_pre_vote(2, (0, 0)));
        assert_eq!(only_reply(&mut raft), pre_vote(2, true));
    }
}

/// Nobody who hears a leader helps to replace it, not even the leader; after the smallest election
/// timeout without it, a follower does.
#[test]
fn a_pre_vote_is_refused_while_a_leader_is_heard() {
    let mut leader = settled_leader(1, 3, 1, &[]);
    step(&mut leader, 3, request_pre_vote(2, (9, 1)));
    assert_eq!(sent_to(&mut leader, 3), [pre_vote(1, false)]);
    let mut follower = led_follower(2, 3);
    for tick in 0..=ELECTION_TICKS_MIN {
        let expected =
            if tick < ELECTION_TICKS_MIN { pre_vote(1, false) } else { pre_vote(2, true) };
        step(&mut follower, 3, request_pre_vote(2, (9, 1)));
        assert_eq!(sent_to(&mut follower, 3), [expected], "after {tick} ticks");
        follower.tick();
    }
}

/// The term rises only when a majority would vote.
#[test]
fn a_pre_candidate_needs_a_majority_to_begin_a_term() {
    let mut raft = follower(1, 5, 1, &[]);
    time_out(&mut raft);
    turn(&mut raft);
    for from in [2, 2, 9] {
        step(&mut raft, from, pre_vote(2, true));
        assert_eq!((raft.role_name(), raft.term()), ("pre-candidate", 1));
    }
    step(&mut raft, 3, pre_vote(2, true));
    assert_eq!((raft.role_name(), raft.term()), ("candidate", 2));
}

#[test]
fn a_pre_candidate_that_a_majority_refuses_is_a_follower_again() {
    let mut raft = follower(1, 3, 1, &[]);
    time_out(&mut raft);
    turn(&mut raft);
    step(&mut raft, 2, pre_vote(1, false));
    assert_eq!(raft.role_name(), "pre-candidate");
    step(&mut raft, 3, pre_vote(1, false));
    assert_eq!((raft.role_name(), raft.term()), ("follower", 1));
}

/// A refusal with a newer term is how a node that fell behind catches up with the terms.
#[test]
fn a_pre_candidate_learns_a_newer_term_from_a_refusal() {
    let mut raft = follower(1, 3, 1, &[]);
    time_out(&mut raft);
    turn(&mut raft);
    step(&mut raft, 2, pre_vote(7, false));
    assert_eq!((raft.role_name(), raft.term()), ("follower", 7));
}

/// What was answered in an earlier round, or about another term, is not counted.
#[test]
fn late_pre_votes_are_ignored() {
    let mut raft = follower(1, 5, 3, &[]);
    time_out(&mut raft);
    turn(&mut raft);
    step(&mut raft, 2, pre_vote(4, true));
    time_out(&mut raft);
    turn(&mut raft);
    for late in [pre_vote(3, true), pre_vote(5, true), pre_vote(2, false)] {
        step(&mut raft, 4, late.clone());
        step(&mut raft, 5, late);
    }
    step(&mut raft, 3, pre_vote(4, true));
    assert_eq!(raft.role_name(), "pre-candidate", "itself and server 3, of this round");
    step(&mut raft, 2, pre_vote(4, true));
    assert_eq!((raft.role_name(), raft.term()), ("candidate", 4));
}

/// Votes of an earlier term, and pre-votes that arrive when they are not asked for any more.
#[test]
fn late_votes_are_ignored() {
    let mut raft = candidate(1, 3, 3, &[]);
    for late in [vote(2, true), pre_vote(3, true), pre_vote(4, true)] {
        step(&mut raft, 2, late.clone());
        assert_eq!((raft.role_name(), raft.term()), ("candidate", 3), "{late:?}");
    }
    let mut raft = led_follower(2, 3);
    for late in [vote(1, true), pre_vote(2, true)] {
        step(&mut raft, 1, late.clone());
        step(&mut raft, 3, late);
    }
    assert_eq!((raft.role_name(), raft.term(), raft.leader()), ("follower", 1, Some(1)));
}

/// A node that was cut off for long comes back with its old term and disturbs nobody.
#[test]
fn a_node_that_was_cut_off_does_not_disturb_when_it_returns() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let term = cluster.raft(leader).term();
    let lonely = other_than(&cluster, &[leader]);
    cluster.isolate(lonely);
    cluster.run(20 * ELECTION_TICKS_MAX);
    assert_eq!(cluster.raft(lonely).term(), term, "it asks, and begins no term");
    cluster.propose(leader, "a").expect("a leader");
    cluster.heal();
    cluster.run(5 * ELECTION_TICKS_MAX);
    for (id, server) in cluster.servers() {
        let raft = server.raft();
        assert_eq!((raft.term(), raft.leader()), (term, Some(leader)), "server {id}");
        assert_eq!(raft.log().last().index, cluster.raft(leader).log().last().index);
    }
}

/// One direction cut: who hears the leader does not campaign, though nobody hears it.
#[test]
fn a_follower_that_cannot_send_does_not_campaign() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let mute = other_than(&cluster, &[leader]);
    for to in cluster.ids() {
        cluster.cut(mute, to);
    }
    for _ in 0..5 * ELECTION_TICKS_MAX {
        cluster.run(1);
        assert_eq!(cluster.raft(mute).role_name(), "follower");
    }
    assert_eq!(cluster.leader(), Some(leader));
}

/// The other direction: who hears nobody asks on and on, and the others refuse.
#[test]
fn a_follower_that_cannot_hear_does_not_unseat_the_leader() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let term = cluster.raft(leader).term();
    let deaf = other_than(&cluster, &[leader]);
    for from in cluster.ids() {
        cluster.cut(from, deaf);
    }
    cluster.run(10 * ELECTION_TICKS_MAX);
    assert!(cluster.raft(leader).is_leader());
    assert!(cluster.servers().all(|(_, server)| server.raft().term() == term));
}

/// Two of five answer so late that every vote of theirs is of an earlier term: there is a leader
/// all the same.
#[test]
fn slow_voters_do_not_keep_the_others_from_electing() {
    let mut cluster = Cluster::new(5);
    let mut late: Vec<Envelope> = Vec::new();
    for _ in 0..20 * ELECTION_TICKS_MAX {
        for id in cluster.up() {
            cluster.tick(id);
            cluster.turn(id);
        }
        while !cluster.in_flight.is_empty() {
            let envelope = cluster.in_flight.remove(0);
            if envelope.from >= 4 {
                late.push(envelope);
                continue;
            }
            let to = envelope.to;
            cluster.arrive(envelope);
            cluster.turn(to);
        }
        if late.len() > 40 {
            cluster.arrive(late.remove(0));
        }
        if cluster.leader().is_some_and(|id| cluster.raft(id).commit_index() > 0) {
            return;
        }
    }
    panic!("no leader: {}", cluster.summary());
}

/// Terms rise by one with each election. Of a message of the last term that there is, nobody could recover.
#[test]
fn a_term_that_no_election_leads_to_is_not_taken_over() {
    use raftkv::raft::{AppendOutcome, Distrust, Message, TERM_JUMP_MAX};
    let term = i64::MAX as u64;
    let outcome = AppendOutcome::Accepted { match_index: 0 };
    for message in [
        request_pre_vote(term, (9, 9)),
        Message::RequestVote { term, last_log_index: 9, last_log_term: 9, by_leader: true },
        pre_vote(term, true),
        vote(term, true),
        append(term, (0, 0), 0, Vec::new()),
        Message::AppendReply { term, round: 0, outcome },
        Message::TimeoutNow { term },
    ] {
        let mut raft = led_follower(2, 3);
        let before = (raft.hard_state(), raft.leader());
        let error = raft.step(1, message.clone());
        assert_eq!(
            error,
            Err(Distrust::TermJump { own: before.0.term, theirs: term }),
            "{message:?}"
        );
        assert_eq!((raft.hard_state(), raft.leader()), before);
        assert_eq!(raft.take_ready().messages, []);
    }
    let mut raft = follower(2, 3, 1, &[1]);
    step(&mut raft, 1, append(1 + TERM_JUMP_MAX, (1, 1), 0, Vec::new()));
    assert_eq!(raft.term(), 1 + TERM_JUMP_MAX, "somebody may have been away for very long");
}
