//! Leadership transfer (thesis 3.10): without the wait for a timeout, without a lost write, and given up in
//! time.

use crate::*;
use raftkv::raft::{HandoverError, ProposeError};

fn hand_over(cluster: &mut Cluster, from: NodeId, to: Option<NodeId>) -> NodeId {
    let to = cluster.server_mut(from).core_mut().hand_over(to).expect("a voter that answers");
    cluster.turn(from);
    to
}

#[test]
fn leadership_goes_to_the_chosen_voter_without_a_timeout() {
    for to in 1..=5 {
        let mut cluster = Cluster::new(5);
        let from = cluster.elect();
        if to == from {
            continue;
        }
        cluster.run(2 * HEARTBEAT_TICKS);
        let term = cluster.raft(from).term();
        assert_eq!(hand_over(&mut cluster, from, Some(to)), to);
        cluster.settle();
        assert_eq!((cluster.leader(), cluster.raft(to).term()), (Some(to), term + 1));
    }
}

#[test]
fn a_successor_that_lags_is_brought_level_first() {
    let mut cluster = Cluster::new(3);
    let from = cluster.elect();
    let to = other_than(&cluster, &[from]);
    cluster.cut(from, to);
    for n in 0..30 {
        cluster.propose(from, &format!("{n}")).unwrap();
        cluster.turn(from);
    }
    cluster.run(2 * HEARTBEAT_TICKS);
    cluster.heal();
    cluster.run(2 * HEARTBEAT_TICKS);
    let last = cluster.propose(from, "the last").unwrap();
    hand_over(&mut cluster, from, Some(to));
    cluster.run(4 * HEARTBEAT_TICKS);
    assert_eq!(cluster.leader(), Some(to));
    assert!(cluster.raft(to).commit_index() > last.index, "nothing is lost, and its no-op follows");
}

#[test]
fn nobody_is_told_to_go_on_before_it_has_the_whole_log() {
    let mut raft = settled_leader(1, 3, 1, &[]);
    accepts(&mut raft, 2, 1);
    let written = propose(&mut raft, 1);
    raft.hand_over(Some(2)).unwrap();
    let is_told = |raft: &mut Raft| {
        let told = Message::TimeoutNow { term: raft.term() };
        sent_to(raft, 2).contains(&told)
    };
    assert!(!is_told(&mut raft));
    accepts(&mut raft, 2, written);
    assert!(raft.has_ready() && is_told(&mut raft));
    assert!(!is_told(&mut raft), "once is enough");
}

#[test]
fn nothing_is_proposed_while_leadership_is_handed_over() {
    let mut raft = settled_leader(1, 3, 1, &[]);
    accepts(&mut raft, 2, 1);
    raft.hand_over(None).unwrap();
    assert_eq!(raft.propose(Payload::Noop), Err(ProposeError::HandingOver));
}

/// E14: a dead successor costs at most one election timeout.
#[test]
fn a_handover_that_comes_to_nothing_is_given_up_within_the_longest_election_timeout() {
    let mut raft = settled_leader(1, 3, 1, &[]);
    accepts(&mut raft, 2, 1);
    raft.hand_over(Some(2)).unwrap();
    for _ in 0..ELECTION_TICKS_MAX {
        assert!(raft.is_handing_over());
        raft.tick();
        turn(&mut raft);
        accepts(&mut raft, 3, 1);
    }
    assert!(raft.is_leader() && !raft.is_handing_over());
    assert!(raft.propose(Payload::Noop).is_ok());
}

#[test]
fn leadership_goes_only_to_a_voter_that_was_heard_lately() {
    let mut raft = follower(1, 3, 1, &[]);
    assert_eq!(raft.hand_over(None), Err(HandoverError::NotLeader));
    let mut raft = settled_leader(1, 3, 1, &[]);
    assert_eq!(raft.hand_over(Some(9)), Err(HandoverError::NotAVoter));
    assert_eq!(raft.hand_over(Some(1)), Err(HandoverError::NotAVoter), "it leads already");
    for _ in 0..ELECTION_TICKS_MIN {
        raft.tick();
        turn(&mut raft);
        accepts(&mut raft, 3, 1);
    }
    assert_eq!(raft.hand_over(Some(2)), Err(HandoverError::Silent));
    assert_eq!(raft.hand_over(None), Ok(3));
    assert_eq!(raft.hand_over(None), Ok(3), "it is under way");
    assert_eq!(raft.hand_over(Some(2)), Err(HandoverError::UnderWay));
    assert_eq!(alone().hand_over(None), Err(HandoverError::Silent), "there is nobody else");
}

/// Of two that were heard lately, the one that needs least.
#[test]
fn without_a_choice_the_most_up_to_date_voter_takes_over() {
    let mut raft = settled_leader(1, 3, 1, &[]);
    let written = propose(&mut raft, 1);
    turn(&mut raft);
    accepts(&mut raft, 2, written - 1);
    accepts(&mut raft, 3, written);
    assert_eq!(raft.hand_over(None), Ok(3));
}

/// Thesis 4.2.3: voters that hear a leader refuse their vote, but not if the leader itself wants the election.
#[test]
fn a_vote_that_the_leader_asks_for_is_given_while_the_leader_is_heard() {
    let Message::RequestVote { term, last_log_index, last_log_term, .. } = request_vote(2, (9, 1))
    else {
        unreachable!("it is one")
    };
    for by_leader in [false, true] {
        let mut voter = led_follower(3, 3);
        let request = Message::RequestVote { term, last_log_index, last_log_term, by_leader };
        step(&mut voter, 2, request);
        let replies = sent_to(&mut voter, 2);
        let expected = if by_leader { vec![vote(2, true)] } else { vec![] };
        assert_eq!(replies, expected, "by_leader: {by_leader}");
    }
}

#[test]
fn a_late_word_to_take_over_begins_no_election() {
    let mut raft = led_follower(2, 3);
    step(&mut raft, 1, append(3, (0, 0), 0, vec![]));
    turn(&mut raft);
    step(&mut raft, 1, Message::TimeoutNow { term: 1 });
    assert_eq!((raft.role_name(), raft.term()), ("follower", 3));
    step(&mut raft, 3, Message::TimeoutNow { term: 3 });
    assert_eq!((raft.role_name(), raft.term()), ("follower", 3), "node 3 does not lead");
    step(&mut raft, 1, Message::TimeoutNow { term: 3 });
    assert_eq!((raft.role_name(), raft.term()), ("candidate", 4));
}
