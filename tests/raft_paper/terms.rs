//! Section 5.1: terms.

use crate::common::core::*;
use crate::outcome;
use raftkv::raft::AppendOutcome;

/// §5.1: "if one server's current term is smaller than the other's, then it updates its current
/// term to the larger value", whatever message tells it.
#[test]
fn a_newer_term_in_any_message_is_taken_over() {
    let messages = [
        request_vote(9, (0, 0)),
        vote(9, false),
        pre_vote(9, false),
        append(9, (0, 0), 0, vec![]),
        accepted(9, 0),
        rejected(9, 1, (0, 0)),
    ];
    for message in messages {
        let mut raft = follower(1, 3, 2, &[1, 2]);
        step(&mut raft, 2, message.clone());
        assert_eq!(raft.term(), 9, "{message:?}");
        assert_eq!(turn(&mut raft).hard_state.map(|state| state.term), Some(9), "{message:?}");
    }
}

/// §5.1: "if a candidate or leader discovers that its term is out of date, it immediately reverts
/// to follower state".
#[test]
fn a_candidate_reverts_to_follower_on_a_newer_term() {
    for message in [append(4, (0, 0), 0, vec![]), vote(4, false), request_vote(4, (0, 0))] {
        let mut raft = candidate(1, 3, 3, &[]);
        step(&mut raft, 2, message.clone());
        assert_eq!((raft.role_name(), raft.term()), ("follower", 4), "{message:?}");
    }
}

/// §5.1: the same of a leader. (A RequestVote alone does not do it: thesis 4.2.3.)
#[test]
fn a_leader_reverts_to_follower_on_a_newer_term() {
    for message in [append(4, (0, 0), 0, vec![]), accepted(4, 0), vote(4, false)] {
        let mut raft = leader(1, 3, 3, &[]);
        step(&mut raft, 2, message.clone());
        assert_eq!((raft.role_name(), raft.term()), ("follower", 4), "{message:?}");
    }
}

/// §5.1: "if a server receives a request with a stale term number, it rejects the request", and the
/// answer carries the newer term.
#[test]
fn a_request_of_an_older_term_is_rejected() {
    let mut raft = follower(1, 3, 5, &[1]);
    step(&mut raft, 2, request_vote(4, (9, 4)));
    assert_eq!(only_reply(&mut raft), vote(5, false));
    step(&mut raft, 2, append(4, (1, 1), 1, entries(2, &[4])));
    let reply = only_reply(&mut raft);
    assert_eq!(reply.term(), 5);
    assert!(matches!(outcome(&reply), AppendOutcome::Rejected { .. }));
    assert_eq!((terms(&raft), raft.commit_index()), (vec![1], 0));
}

/// §5.1: replies of an older term change nothing and are not answered.
#[test]
fn a_reply_of_an_older_term_is_ignored() {
    let mut raft = candidate(1, 3, 5, &[1]);
    for reply in [vote(4, true), accepted(4, 1), rejected(4, 1, (0, 0)), pre_vote(4, false)] {
        step(&mut raft, 2, reply);
    }
    assert_eq!((raft.role_name(), raft.term()), ("candidate", 5));
    assert!(!raft.has_ready());
}
