//! Old, repeated and rejected messages: fast back-up (section 5.3), and a log that never shrinks.

use crate::common::core::*;
use crate::*;
use proptest::prelude::*;
use raftkv::raft::{AppendOutcome, Index, Message, Raft, Ready};

fn is_rejection(message: &Message) -> bool {
    let Message::AppendReply { outcome, .. } = message else { return false };
    matches!(outcome, AppendOutcome::Rejected { .. })
}

/// Brings a follower's log to a leader's by hand. Returns how many messages it rejected.
fn rejections_until_caught_up(leader: &mut Raft, follower: &mut Raft) -> usize {
    let mut rejections = 0;
    for _ in 0..200 {
        for message in sent_to(leader, 2) {
            step(follower, 1, message);
        }
        for (_, message) in sent(follower) {
            rejections += usize::from(is_rejection(&message));
            step(leader, 2, message);
        }
        if follower.log().last() == leader.log().last() && !leader.has_ready() {
            return rejections;
        }
    }
    panic!("not caught up: {:?} and {:?}", terms(leader), terms(follower));
}

/// 50 entries that a deposed leader left behind cost two round trips, not 50.
#[test]
fn fifty_conflicting_entries_are_passed_in_few_round_trips() {
    let common = [1; 10];
    let log = |tail: &[u64]| [&common[..], tail].concat();
    let cases = [
        (log(&[3; 50]), log(&[2; 50]), 2),
        (log(&[3]), log(&[2; 50]), 2),
        (log(&[3; 50]), log(&[]), 1),
        (log(&[3; 50]), log(&[2; 5]), 2),
        // One round trip for each term that only one of them has.
        (log(&[[3; 10], [5; 10]].concat()), log(&[[2; 10], [4; 10]].concat()), 4),
    ];
    for (leader_log, follower_log, round_trips) in cases {
        let mut leader = leader(1, 3, 9, &leader_log);
        // Its first message was lost: it begins anew, from the end of its log.
        leader.peer_connected(2);
        let mut follower = follower(2, 3, 9, &follower_log);
        let rejections = rejections_until_caught_up(&mut leader, &mut follower);
        assert!(rejections <= round_trips, "{rejections} rejections of {follower_log:?}");
        assert_eq!(terms(&leader), terms(&follower));
    }
}

/// The messages of a leader to follower 2: each with what it proposed by then, some overlapping.
fn stream_of_appends() -> Vec<Message> {
    let mut leader = leader(1, 3, 3, &[1, 2]);
    let mut messages = Vec::new();
    for number in 0..8 {
        propose(&mut leader, number);
        if number % 3 == 1 {
            leader.peer_connected(2);
        }
        messages.extend(sent_to(&mut leader, 2));
        if number % 2 == 0 {
            step(&mut leader, 2, accepted(3, number as Index));
        }
    }
    messages
}

proptest! {
    /// Repeated, reordered, lost: the log of a follower only ever grows towards the leader's.
    #[test]
    fn old_messages_of_the_leader_never_shorten_the_log(
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..60)
    ) {
        let messages = stream_of_appends();
        let mut raft = follower(2, 3, 3, &[]);
        let mut last = 0;
        let mut commit = 0;
        for index in order {
            step(&mut raft, 1, index.get(&messages).clone());
            turn(&mut raft);
            prop_assert!(raft.log().last().index >= last, "{last} entries were there");
            prop_assert!(raft.commit_index() >= commit, "{commit} was committed");
            last = raft.log().last().index;
            commit = raft.commit_index();
        }
        let expected = [1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3];
        prop_assert_eq!(terms(&raft), &expected[..last as usize]);
    }
}

/// A delayed message that begins below the commit index overlaps with what cannot change.
#[test]
fn an_old_message_below_the_commit_index_is_accepted_and_changes_nothing() {
    let mut raft = follower(2, 3, 1, &[]);
    step(&mut raft, 1, append(1, (0, 0), 3, entries(1, &[1, 1, 1, 1])));
    turn(&mut raft);
    step(&mut raft, 1, append(1, (0, 0), 1, entries(1, &[1])));
    let Ready { entries, messages, .. } = turn(&mut raft);
    assert_eq!((entries.len(), messages), (0, vec![(1, accepted(1, 3))]));
    assert_eq!((raft.log().last().index, raft.commit_index()), (4, 3));
}

/// A rejection that arrives when the follower has caught up says nothing any more.
#[test]
fn a_late_rejection_is_ignored() {
    let mut raft = leader(1, 3, 3, &[1, 2, 2]);
    let late = rejected(3, 3, (1, 1));
    step(&mut raft, 2, late.clone());
    assert_eq!(spans(&sent_to(&mut raft, 2)), [(2, 4)]);
    step(&mut raft, 2, late.clone());
    assert!(!raft.has_ready(), "not what is being asked now");
    step(&mut raft, 2, accepted(3, 4));
    turn(&mut raft);
    propose(&mut raft, 8);
    assert_eq!(spans(&sent_to(&mut raft, 2)), [(5, 5)]);
    step(&mut raft, 2, late);
    assert!(!raft.has_ready(), "what is under way stays under way");
    propose(&mut raft, 8);
    assert_eq!(spans(&sent_to(&mut raft, 2)), [(6, 6)]);
}

/// Whatever a rejection hints at, what is known to be there is not sent again.
#[test]
fn a_rejection_does_not_go_back_behind_the_match() {
    let mut raft = settled_leader(1, 3, 3, &[1, 2, 2]);
    propose(&mut raft, 8);
    turn(&mut raft);
    propose(&mut raft, 8);
    turn(&mut raft);
    step(&mut raft, 2, rejected(3, 5, (1, 1)));
    assert_eq!(spans(&sent_to(&mut raft, 2)), [(5, 6)]);
}

/// An acknowledgement of more than there is cannot commit what nobody has.
#[test]
fn an_acknowledgement_beyond_the_log_is_not_believed() {
    let mut raft = leader(1, 3, 1, &[]);
    step(&mut raft, 2, accepted(1, 1_000));
    assert_eq!((raft.commit_index(), raft.match_indexes()[0]), (1, (2, 1)));
    assert_eq!(propose(&mut raft, 8), 2);
    turn(&mut raft);
    assert_eq!(raft.commit_index(), 1);
}
