//! Entries that only the disk has, because a node keeps only the newest part of its log in memory.

use crate::*;
use raftkv::raft::{Entry, Log, LogRead, Position, Ready, Term};

fn at(index: Index, term: Term) -> Position {
    Position { index, term }
}

/// The leader of term 2, all 6 entries committed by node 2, the first 4 only on its disk.
fn leader_with_evicted() -> Raft {
    let mut raft = leader(1, 3, 2, &[1, 1, 1, 1, 1]);
    turn(&mut raft);
    step(&mut raft, 2, accepted(2, 6));
    turn(&mut raft);
    assert_eq!(raft.commit_index(), 6);
    raft.evict(4, 0, usize::MAX);
    assert_eq!((raft.log().before(), raft.log().evicted()), (at(0, 0), at(4, 1)));
    raft
}

/// Node 3 says that its log ends here.
fn falls_behind(raft: &mut Raft, index: Index, term: Term) -> Ready {
    raft.peer_connected(3);
    turn(raft);
    step(raft, 3, rejected(2, 5, (index, term)));
    turn(raft)
}

fn read_from(first: Index) -> LogRead {
    let bytes_max = config(1, 3).append_bytes_max;
    LogRead { to: 3, term: 2, first, last: 4, bytes_max }
}

#[test]
fn a_follower_that_needs_what_is_not_in_memory_gets_it_from_the_disk_and_then_from_memory() {
    let mut raft = leader_with_evicted();
    let ready = falls_behind(&mut raft, 1, 1);
    assert_eq!((ready.log_reads, ready.snapshot_reads), (vec![read_from(2)], vec![]));
    let (to, message) = raft.log_read(read_from(2), entries(2, &[1, 1])).expect("a message");
    assert_eq!((to, message), (3, append(2, (1, 1), 6, entries(2, &[1, 1]))));
    let ready = turn(&mut raft);
    assert!(ready.early.is_empty() && ready.log_reads.is_empty(), "a probe is under way");
    step(&mut raft, 3, accepted(2, 3));
    assert_eq!(turn(&mut raft).log_reads, [read_from(4)]);
    raft.log_read(read_from(4), entries(4, &[1])).expect("a message");
    assert_eq!(spans(&sent_to(&mut raft, 3)), [(5, 6)]);
}

#[test]
fn a_heartbeat_waits_for_what_is_read_and_leaves_with_it() {
    let mut raft = leader_with_evicted();
    falls_behind(&mut raft, 1, 1);
    raft.log_read(read_from(2), entries(2, &[1])).expect("a message");
    step(&mut raft, 3, accepted(2, 2));
    (0..HEARTBEAT_TICKS).for_each(|_| raft.tick());
    let ready = turn(&mut raft);
    assert_eq!(ready.log_reads, [read_from(3)]);
    assert!(ready.early.iter().all(|(to, _)| *to != 3), "one message");
}

#[test]
fn what_is_not_what_the_log_says_is_not_sent_and_a_snapshot_is() {
    let wrong: [Vec<Entry>; 4] =
        [vec![], entries(2, &[2]), entries(3, &[1]), entries(2, &[1, 1, 1, 1, 1, 1, 1])];
    for found in wrong {
        let mut raft = leader_with_evicted();
        falls_behind(&mut raft, 1, 1);
        assert_eq!(raft.log_read(read_from(2), found), None);
        assert_eq!(raft.log().before(), at(4, 1));
        assert!(!raft.log_connects_to_snapshot(), "a new one is wanted");
        turn(&mut raft);
        raft.compact(at(6, 2), at(4, 1));
        assert!(raft.log_connects_to_snapshot());
        let reads = turn(&mut raft).snapshot_reads;
        let newest = reads.last().map(|read| (read.to, read.position));
        assert_eq!(newest, Some((3, at(6, 2))));
    }
}

#[test]
fn what_was_read_for_an_earlier_term_or_place_is_not_sent() {
    let mut raft = leader_with_evicted();
    falls_behind(&mut raft, 1, 1);
    assert_eq!(raft.log_read(read_from(3), entries(3, &[1])), None);
    let of_another_term = LogRead { term: 1, ..read_from(2) };
    assert_eq!(raft.log_read(of_another_term, entries(2, &[1])), None);
    assert_eq!(raft.log().before(), at(0, 0), "it is still there");
}

#[test]
fn only_what_is_committed_and_on_disk_leaves_memory_and_only_beyond_what_is_kept() {
    let mut raft = settled_leader(1, 3, 2, &[1, 1, 1]);
    propose(&mut raft, 10);
    raft.take_ready();
    accepts(&mut raft, 2, 5);
    accepts(&mut raft, 3, 5);
    raft.evict(Index::MAX, 0, 1);
    assert_eq!(raft.log().evicted(), at(1, 1), "so many at a time");
    raft.evict(Index::MAX, usize::MAX, usize::MAX);
    assert_eq!(raft.log().evicted(), at(1, 1), "as much is kept");
    raft.evict(Index::MAX, 0, usize::MAX);
    assert_eq!((raft.commit_index(), raft.log().evicted()), (5, at(4, 2)), "its disk is late");
    raft.persisted();
    let uncommitted = propose(&mut raft, 10);
    turn(&mut raft);
    raft.evict(Index::MAX, 0, usize::MAX);
    assert_eq!(raft.log().evicted(), at(5, 2));
    assert_eq!((raft.log().durable_index(), raft.log().get(uncommitted).is_some()), (6, true));
}

/// Everything that the log says of itself is the same, in memory or not.
#[test]
fn a_log_says_the_same_of_what_is_not_in_memory() {
    let terms = [1, 1, 1, 4, 4, 6, 6, 6, 7];
    for compacted in 0..terms.len() {
        for evicted in compacted..=terms.len() {
            let mut whole = Log::new(Position::default(), entries(1, &terms));
            let mut log = Log::new(Position::default(), entries(1, &terms));
            log.evict(evicted as Index, 0, usize::MAX);
            let upto = log.term_at(compacted as Index).map(|term| at(compacted as Index, term));
            log.compact(upto.expect("it is in the log"));
            whole.compact(upto.expect("it is in the log"));
            assert_eq!((log.before(), log.last()), (whole.before(), whole.last()));
            for index in 0..=terms.len() as Index + 1 {
                assert_eq!(log.term_at(index), whole.term_at(index));
                for term in 0..9 {
                    let expected = whole.last_possible_match(index, term);
                    assert_eq!(log.last_possible_match(index, term), expected);
                }
            }
            let first = log.evicted().index + 1;
            assert!(log.iter_from(first).eq(whole.iter_from(first)));
        }
    }
}
