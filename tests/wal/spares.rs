//! Compacted segments become new ones. What they held before is never found again, whatever a crash leaves.

use crate::mem_disk::MemDisk;
use crate::model::{self, command};
use raftkv::raft::{Entry, Index, Position};
use raftkv::wal::{SPARES_MAX, SnapshotKind, Wal};

const SEGMENT_BYTES: u64 = 4096;

fn spares(disk: &MemDisk) -> usize {
    disk.files().keys().filter(|name| name.starts_with("spare-")).count()
}

/// A snapshot at `index`, and the log before it cut off.
fn cut(wal: &mut Wal<MemDisk>, index: Index) {
    let position = Position { index, term: 1 };
    wal.begin_snapshot(SnapshotKind::Own, position).unwrap();
    wal.append_snapshot(SnapshotKind::Own, b"all of it").unwrap();
    wal.finish_snapshot(SnapshotKind::Own).unwrap();
    wal.compact(index).unwrap();
}

/// Of a size that differs from entry to entry, so that batches end in other places in each life of a file.
fn entry(index: Index) -> Entry {
    let mut rng = fastrand::Rng::with_seed(index);
    command(1, index, &vec![index as u8 | 1; rng.usize(0..2500)])
}

fn append(wal: &mut Wal<MemDisk>, index: Index) {
    wal.append_entries(&[entry(index)]);
    wal.sync().unwrap();
}

#[test]
fn compacted_segments_become_new_ones_and_a_restart_drops_them() {
    let disk = MemDisk::default();
    let (mut wal, _) = model::open(&disk, SEGMENT_BYTES).unwrap();
    (1..=40).for_each(|index| append(&mut wal, index));
    assert!(wal.segments() > SPARES_MAX + 1);
    cut(&mut wal, 40);
    assert_eq!((wal.segments(), spares(&disk)), (1, SPARES_MAX), "and the others are removed");
    (41..=50).for_each(|index| append(&mut wal, index));
    assert_eq!(spares(&disk), 0, "they are segments again");
    cut(&mut wal, 50);
    assert!(spares(&disk) > 0);
    wal.drop_spares().unwrap();
    assert_eq!(spares(&disk), 0);
    (51..=60).for_each(|index| append(&mut wal, index));
    cut(&mut wal, 60);
    let (_, recovered) = model::open(&disk, SEGMENT_BYTES).unwrap();
    assert_eq!((recovered.damaged, spares(&disk)), (None, 0));
}

#[test]
fn what_a_file_held_in_an_older_life_is_never_found() {
    let disk = MemDisk::default();
    let (mut wal, _) = model::open(&disk, SEGMENT_BYTES).unwrap();
    let mut begins = 0;
    for index in 1..=300_u64 {
        append(&mut wal, index);
        let copy = disk.copy();
        let (_, recovered) = model::open(&copy, SEGMENT_BYTES).unwrap();
        assert_eq!((recovered.damaged, recovered.torn_bytes), (None, 0), "after {index}");
        let expected: Vec<Entry> = (begins + 1..=index).map(entry).collect();
        assert_eq!(recovered.entries, expected, "after {index}");
        if index.is_multiple_of(9) {
            cut(&mut wal, index);
            begins = index;
        }
    }
}

/// A batch of which any sectors are missing leaves there what the file held before. The log goes on from there.
#[test]
fn a_crash_in_a_file_that_was_used_before_is_told_from_damage() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut disk = MemDisk::default();
    let (mut index, mut crashes) = (0, 0);
    while crashes < 300 {
        let (mut wal, recovered) = model::open(&disk, SEGMENT_BYTES).unwrap();
        assert_eq!(recovered.damaged, None, "crash {crashes}, at entry {index}");
        let last = recovered.entries.last().map_or(recovered.base.index, |last| last.index);
        assert!(last == index || last == index + 1, "{last} of {index}");
        index = last;
        for _ in 0..rng.usize(0..3) {
            for _ in 0..rng.usize(4..12) {
                index += 1;
                append(&mut wal, index);
            }
            cut(&mut wal, index - rng.u64(0..3));
        }
        disk.fail_after(rng.usize(0..4));
        wal.append_entries(&[entry(index + 1)]);
        while wal.sync().is_ok() {
            index += 1;
            wal.append_entries(&[entry(index + 1)]);
        }
        disk = disk.after_power_cut(|| rng.bool());
        crashes += 1;
    }
}
