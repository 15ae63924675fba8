//! Compaction, InstallSnapshot (section 7), and voters whose disk has lost what they acknowledged.

use crate::*;
use raftkv::raft::{
    AppendOutcome, HardState, Membership, Position, Ready, Restored, SnapshotChunk, SnapshotRead,
    Term,
};
use std::rc::Rc;

fn three_voters() -> Rc<Membership> {
    Rc::new(Membership::of_voters(1..=3))
}

fn at(index: Index, term: Term) -> Position {
    Position { index, term }
}

/// The leader of term 2 in a cluster of three, all 6 entries committed by node 2, the first 4 compacted.
fn compacted_leader() -> Raft {
    let mut raft = leader(1, 3, 2, &[1, 1, 1, 1, 1]);
    turn(&mut raft);
    step(&mut raft, 2, accepted(2, 6));
    turn(&mut raft);
    assert_eq!(raft.commit_index(), 6);
    raft.compact(at(5, 1), at(4, 1));
    raft
}

/// Node 3 says that its log ends here.
fn falls_behind(raft: &mut Raft, index: Index, term: Term) -> Ready {
    raft.peer_connected(3);
    let prev = sent_to(raft, 3).iter().find_map(|message| match message {
        Message::AppendEntries { prev_log_index, .. } => Some(*prev_log_index),
        _ => None,
    });
    step(raft, 3, rejected(2, prev.expect("it is asked"), (index, term)));
    turn(raft)
}

fn chunk(position: Position, offset: u64, data: &[u8], done: bool) -> Message {
    Message::InstallSnapshot {
        term: 2,
        last_included_index: position.index,
        last_included_term: position.term,
        offset,
        data: data.into(),
        done,
    }
}

fn received(raft: &mut Raft, position: Position, offset: u64) -> Ready {
    let reply = Message::SnapshotReply {
        term: 2,
        last_included_index: position.index,
        last_included_term: position.term,
        offset,
    };
    step(raft, 3, reply);
    turn(raft)
}

fn only_chunk(ready: Ready) -> SnapshotChunk {
    let [chunk] = <[SnapshotChunk; 1]>::try_from(ready.snapshot_chunks).expect("one chunk");
    chunk
}

/// N02.
#[test]
fn a_follower_behind_the_log_is_sent_the_newest_snapshot_piece_by_piece() {
    let mut raft = compacted_leader();
    let ready = falls_behind(&mut raft, 2, 1);
    let read = |offset| vec![SnapshotRead { to: 3, term: 2, position: at(5, 1), offset }];
    assert_eq!(ready.snapshot_reads, read(0));
    assert!(turn(&mut raft).snapshot_reads.is_empty(), "one piece is under way");
    assert_eq!(received(&mut raft, at(5, 1), 100).snapshot_reads, read(100));
    // The follower's word counts, also if it says that it has less than was sent.
    assert_eq!(received(&mut raft, at(5, 1), 40).snapshot_reads, read(40));
    step(&mut raft, 3, accepted(2, 5));
    let messages = sent_to(&mut raft, 3);
    assert_eq!(spans(&messages), [(6, 6)], "and then the entries after it");
}

#[test]
fn a_follower_that_the_log_still_reaches_gets_no_snapshot() {
    let mut raft = compacted_leader();
    let ready = falls_behind(&mut raft, 4, 1);
    assert!(ready.snapshot_reads.is_empty());
    let appends: Vec<Message> = ready.early.into_iter().map(|(_, message)| message).collect();
    assert_eq!(spans(&appends), [(5, 6)]);
}

#[test]
fn a_transfer_goes_on_after_a_lost_connection_and_lost_pieces_are_sent_again() {
    let mut raft = compacted_leader();
    falls_behind(&mut raft, 2, 1);
    received(&mut raft, at(5, 1), 100);
    raft.peer_unreachable(3);
    assert!(turn(&mut raft).snapshot_reads.is_empty());
    raft.peer_connected(3);
    let reads = turn(&mut raft).snapshot_reads;
    assert_eq!(reads, [SnapshotRead { to: 3, term: 2, position: at(5, 1), offset: 100 }]);
    let mut again = Vec::new();
    for _ in 0..50 {
        raft.tick();
        step(&mut raft, 2, accepted(2, 6));
        again.extend(turn(&mut raft).snapshot_reads);
    }
    assert!((1..=10).contains(&again.len()), "now and then: {again:?}");
    assert!(again.iter().all(|read| read.offset == 100));
}

#[test]
fn a_newer_snapshot_takes_the_place_of_the_one_that_is_being_sent() {
    let mut raft = compacted_leader();
    falls_behind(&mut raft, 2, 1);
    received(&mut raft, at(5, 1), 100);
    raft.compact(at(6, 2), at(5, 1));
    let reads = received(&mut raft, at(5, 1), 200).snapshot_reads;
    assert_eq!(reads, [SnapshotRead { to: 3, term: 2, position: at(6, 2), offset: 0 }]);
}

#[test]
fn a_snapshot_is_being_sent_while_its_follower_answers() {
    let mut raft = compacted_leader();
    assert!(!raft.is_sending_snapshot());
    falls_behind(&mut raft, 2, 1);
    assert!(!raft.is_sending_snapshot(), "it may be gone, and hold up compaction for nothing");
    received(&mut raft, at(5, 1), 100);
    assert!(raft.is_sending_snapshot());
    // A follower that never answers does not hold up compaction for ever.
    for _ in 0..2000 {
        raft.tick();
        step(&mut raft, 2, accepted(2, 6));
        turn(&mut raft);
    }
    assert!(!raft.is_sending_snapshot());
}

/// N03.
#[test]
fn a_snapshot_of_what_is_committed_is_ignored_and_said_to_be_there() {
    let mut raft = follower(3, 3, 2, &[1, 1, 1]);
    step(&mut raft, 1, append(2, (3, 1), 3, vec![]));
    turn(&mut raft);
    step(&mut raft, 1, chunk(at(2, 1), 0, b"late", true));
    let ready = turn(&mut raft);
    assert!(ready.snapshot_chunks.is_empty());
    assert_eq!(ready.messages, [(1, accepted(2, 3))]);
}

#[test]
fn a_snapshot_of_a_deposed_leader_is_refused_with_the_newer_term() {
    let mut raft = follower(3, 3, 5, &[]);
    step(&mut raft, 1, chunk(at(2, 1), 0, b"old", true));
    let ready = turn(&mut raft);
    assert!(ready.snapshot_chunks.is_empty());
    assert_eq!(ready.messages[0].1.term(), 5);
}

/// Figure 13, steps 6 and 7; N05.
#[test]
fn installing_keeps_the_log_after_the_snapshot_only_if_it_agrees_with_it() {
    for (terms_before, is_void, terms_after) in
        [(&[1, 1, 1, 1][..], false, &[1][..]), (&[1, 1, 2, 2], true, &[]), (&[1], true, &[])]
    {
        let mut raft = follower(3, 3, 2, terms_before);
        step(&mut raft, 1, chunk(at(3, 1), 0, b"state", true));
        let received = only_chunk(turn(&mut raft));
        assert_eq!(raft.install_snapshot(&received, three_voters()), is_void, "{terms_before:?}");
        assert_eq!(terms(&raft), terms_after, "{terms_before:?}");
        assert_eq!((raft.commit_index(), raft.log().before()), (3, at(3, 1)));
        assert_eq!(turn(&mut raft).messages, [(1, accepted(2, 3))]);
        // And the log goes on from there.
        step(&mut raft, 1, append(2, (3, 1), 3, entries(4, &[2])));
        assert_eq!(only_reply(&mut raft), accepted(2, 4));
    }
}

/// R06.
#[test]
fn a_message_that_begins_before_the_compacted_log_deletes_nothing() {
    let mut raft = follower(3, 3, 2, &[1, 1, 1, 1, 2]);
    step(&mut raft, 1, append(2, (5, 2), 4, vec![]));
    turn(&mut raft);
    raft.compact(at(4, 1), at(4, 1));
    for (prev, new) in [((0, 0), entries(1, &[1])), ((2, 1), entries(3, &[1])), ((3, 1), vec![])] {
        step(&mut raft, 1, append(2, prev, 4, new));
        assert_eq!(only_reply(&mut raft), accepted(2, 4));
        assert_eq!(terms(&raft), [2]);
    }
}

fn damaged(terms: &[Term]) -> Raft {
    let restored = Restored {
        hard_state: HardState { term: 1, voted_for: None },
        entries: entries(1, terms),
        lost_in_term: 1,
        ..Restored::default()
    };
    Raft::restore(config(3, 3), restored)
}

#[test]
fn a_damaged_voter_neither_votes_nor_campaigns() {
    let mut raft = damaged(&[1]);
    for _ in 0..500 {
        raft.tick();
        assert!(sent(&mut raft).is_empty(), "it does not ask for votes");
    }
    step(&mut raft, 1, request_pre_vote(3, (9, 1)));
    assert_eq!(only_reply(&mut raft), pre_vote(2, false));
    step(&mut raft, 1, request_vote(3, (9, 1)));
    assert_eq!(only_reply(&mut raft), vote(3, false));
    assert_eq!(raft.hard_state().voted_for, None);
}

/// Its acknowledgements in that term may still be on their way, and its leader may commit with them what is
/// lost here: entries of that term, or a snapshot of it, prove nothing.
#[test]
fn a_damaged_voter_leaves_the_term_in_which_it_has_lost_something() {
    let mut raft = damaged(&[1]);
    let ready = raft.take_ready();
    assert_eq!(ready.hard_state, Some(HardState { term: 2, voted_for: None }));
    raft.persisted();
    step(&mut raft, 1, append(1, (1, 1), 1, vec![]));
    assert_eq!(only_reply(&mut raft).term(), 2);
    assert_eq!((raft.commit_index(), raft.is_damaged()), (0, true));
}

#[test]
fn a_damaged_voter_that_starts_again_stays_in_its_term() {
    let restored = Restored {
        hard_state: HardState { term: 2, voted_for: None },
        entries: entries(1, &[1]),
        lost_in_term: 1,
        ..Restored::default()
    };
    let mut raft = Raft::restore(config(3, 3), restored);
    assert!(raft.is_damaged());
    assert_eq!(raft.take_ready().hard_state, None);
}

/// The entries that prove it must be on the disk: else a crash would leave a whole voter without them.
#[test]
fn a_damaged_voter_is_whole_only_once_that_is_on_its_disk() {
    let mut raft = damaged(&[1]);
    let before = raft.take_ready();
    step(&mut raft, 1, append(2, (1, 1), 2, entries(2, &[2])));
    assert_eq!(raft.commit_index(), 2);
    drop(before);
    raft.persisted();
    assert!(raft.is_damaged(), "what was synced is older");
    turn(&mut raft);
    assert!(!raft.is_damaged());
}

#[test]
fn a_damaged_voter_is_whole_when_the_leaders_own_term_is_committed_here() {
    let mut raft = damaged(&[1]);
    step(&mut raft, 1, append(2, (1, 1), 1, entries(2, &[1, 2])));
    turn(&mut raft);
    assert!(raft.is_damaged(), "what is committed so far is of an older term");
    step(&mut raft, 1, append(2, (3, 2), 2, vec![]));
    turn(&mut raft);
    assert!(raft.is_damaged());
    step(&mut raft, 1, append(2, (3, 2), 3, vec![]));
    turn(&mut raft);
    assert!(!raft.is_damaged());
    // It has heard from the leader, so its vote is free only in a while.
    forget_leader(&mut raft);
    step(&mut raft, 2, request_vote(3, (3, 2)));
    assert_eq!(only_reply(&mut raft), vote(3, true));
}

#[test]
fn a_leader_believes_a_follower_that_has_lost_what_it_had_acknowledged() {
    let mut raft = settled_leader(1, 3, 2, &[1, 1, 1]);
    step(&mut raft, 3, accepted(2, 4));
    turn(&mut raft);
    raft.peer_unreachable(3);
    raft.peer_connected(3);
    turn(&mut raft);
    let outcome = AppendOutcome::Rejected {
        prev_log_index: 4,
        hint_index: 1,
        hint_term: 1,
        lost_entries: true,
    };
    step(&mut raft, 3, Message::AppendReply { term: 2, round: 0, outcome });
    assert_eq!(spans(&sent_to(&mut raft, 3)), [(2, 4)]);
    assert_eq!(raft.match_indexes(), [(2, 4), (3, 1)]);
}

#[test]
fn a_snapshot_that_reached_the_disk_before_its_term_brings_the_term_with_it() {
    let restored = Restored {
        hard_state: HardState { term: 1, voted_for: Some(2) },
        snapshot: Some(at(9, 4)),
        membership: three_voters(),
        base: at(9, 4),
        ..Restored::default()
    };
    let mut raft = Raft::restore(config(3, 3), restored);
    let expected = HardState { term: 4, voted_for: None };
    assert_eq!(turn(&mut raft).hard_state, Some(expected), "and writes it");
}
