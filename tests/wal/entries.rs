//! Synced entries that are read again while the log goes on.

use crate::mem_disk::MemDisk;
use crate::model::{command, open, position};
use raftkv::raft::{Entry, Index, Term};
use raftkv::wal::{SnapshotKind, Wal, WalError};

const SEGMENT_BYTES: u64 = 256 << 10;
/// Larger than what lies between two places that are remembered.
const ENTRY_BYTES: usize = 30_000;

fn entry(term: Term, index: Index) -> Entry {
    command(term, index, &vec![term as u8 * 16 + index as u8; ENTRY_BYTES])
}

fn entries(term: Term, indexes: impl Iterator<Item = Index>) -> Vec<Entry> {
    indexes.map(|index| entry(term, index)).collect()
}

fn append(wal: &mut Wal<MemDisk>, entries: &[Entry]) {
    wal.append_entries(entries);
    wal.sync().unwrap();
}

/// 40 entries, a batch each, in several segments; 20 to 29 were something else before.
fn replaced() -> (MemDisk, Wal<MemDisk>, Vec<Entry>) {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk, SEGMENT_BYTES).unwrap();
    entries(1, 1..30).iter().for_each(|entry| append(&mut wal, std::slice::from_ref(entry)));
    entries(2, 20..41).iter().for_each(|entry| append(&mut wal, std::slice::from_ref(entry)));
    let expected = [entries(1, 1..20), entries(2, 20..41)].concat();
    assert!(wal.segments() > 4);
    (disk, wal, expected)
}

#[test]
fn every_entry_is_found_where_it_was_written_last_also_after_a_restart() {
    let (disk, wal, expected) = replaced();
    let (again, _) = open(&disk.copy(), SEGMENT_BYTES).unwrap();
    for wal in [&wal, &again] {
        for first in 1..=40 {
            for last in first..=40 {
                let found = wal.read_entries(first..=last, usize::MAX).unwrap();
                assert!(found == expected[first as usize - 1..last as usize], "{first} to {last}");
            }
        }
        assert_eq!(wal.read_entries(41..=50, usize::MAX).unwrap(), []);
    }
}

#[test]
fn at_least_one_entry_is_read_and_then_no_more_than_was_asked_for() {
    let (_, wal, expected) = replaced();
    for (bytes_max, count) in [(0, 1), (ENTRY_BYTES, 1), (100_000, 3), (usize::MAX, 40)] {
        let found = wal.read_entries(1..=40, bytes_max).unwrap();
        assert!(found == expected[..count], "{bytes_max} bytes");
    }
}

#[test]
fn a_batch_that_replaces_its_own_entries_is_read_as_it_ended() {
    let (mut wal, _) = open(&MemDisk::default(), SEGMENT_BYTES).unwrap();
    append(&mut wal, &entries(1, 1..4));
    wal.append_entries(&entries(1, 4..7));
    wal.append_entries(&entries(2, 3..5));
    append(&mut wal, &entries(3, 4..6));
    append(&mut wal, &entries(3, 6..7));
    let expected =
        [entries(1, 1..3), entries(2, 3..4), entries(3, 4..6), entries(3, 6..7)].concat();
    assert!(wal.read_entries(1..=6, usize::MAX).unwrap() == expected);
}

/// Batches of any parts: with entries of several terms, some of which replace others of the same batch, and
/// logs that are void in the middle of one.
#[test]
fn what_any_row_of_entries_came_to_is_read_again_and_recovered() {
    for seed in 0..100 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let disk = MemDisk::default();
        let (mut wal, _) = open(&disk, SEGMENT_BYTES).unwrap();
        let mut expected: Vec<Entry> = Vec::new();
        for number in 0..8 {
            for _ in 0..rng.usize(1..4) {
                append_any(&mut wal, &mut expected, &mut rng);
            }
            wal.sync().unwrap();
            let (again, recovered) = open(&disk.copy(), SEGMENT_BYTES).unwrap();
            assert_eq!(recovered.entries, expected, "seed {seed}, batch {number}");
            for wal in [&wal, &again] {
                let found = wal.read_entries(1..=Index::MAX, usize::MAX).unwrap();
                assert_eq!(found, expected, "seed {seed}, batch {number}");
            }
        }
    }
}

/// Up to 4 entries, at times in the place of others, or of all.
fn append_any(wal: &mut Wal<MemDisk>, expected: &mut Vec<Entry>, rng: &mut fastrand::Rng) {
    if rng.u8(..8) == 0 {
        wal.reset(position(0, 0));
        expected.clear();
    }
    let back = if rng.u8(..3) == 0 { rng.usize(..4) } else { 0 };
    expected.truncate(expected.len().saturating_sub(back));
    let kept = expected.len();
    for _ in 0..rng.u8(u8::from(back > 0)..5) {
        let term = expected.last().map_or(1, |last| last.term) + u64::from(rng.u8(..5) == 0);
        let bytes = [rng.u8(..); 3];
        expected.push(command(term, expected.len() as Index + 1, &bytes));
    }
    wal.append_entries(&expected[kept..]);
}

#[test]
fn compacted_or_void_entries_are_not_found() {
    let (_, mut wal, expected) = replaced();
    wal.begin_snapshot(SnapshotKind::Own, position(35, 2)).unwrap();
    wal.finish_snapshot(SnapshotKind::Own).unwrap();
    wal.compact(35).unwrap();
    assert_eq!(wal.read_entries(1..=40, usize::MAX).unwrap(), []);
    assert!(wal.read_entries(36..=40, usize::MAX).unwrap() == expected[35..]);
    wal.reset(position(50, 3));
    append(&mut wal, &entries(3, 51..53));
    assert_eq!(wal.read_entries(36..=40, usize::MAX).unwrap(), []);
    assert!(wal.read_entries(51..=52, usize::MAX).unwrap() == entries(3, 51..53));
}

#[test]
fn no_damaged_byte_is_read_as_another_entry() {
    let (disk, wal, expected) = replaced();
    let name = disk.files().into_keys().find(|name| name.starts_with("wal-")).unwrap();
    let mut noticed = 0;
    for at in (0..SEGMENT_BYTES as usize).step_by(997) {
        disk.corrupt(&name, at);
        match wal.read_entries(1..=40, usize::MAX) {
            Ok(found) => assert!(found == expected, "byte {at}"),
            Err(WalError::BadLog { .. }) => noticed += 1,
            Err(error) => panic!("byte {at}: {error}"),
        }
        disk.corrupt(&name, at);
    }
    assert!(noticed > 200, "{noticed} of {}", SEGMENT_BYTES / 997);
    assert!(wal.read_entries(1..=40, usize::MAX).unwrap() == expected);
}
