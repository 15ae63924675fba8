//! A full disk: what could not be done has not been done, and what was promised is kept; the reserve is
//! there for the way out, and everything goes on when there is room again.

use crate::mem_disk::{DISK_IS_FULL, MemDisk};
use crate::model::{self, Batch, Model, command, hard_state, position};
use raftkv::raft::Entry;
use raftkv::wal::{SnapshotKind, Wal, WalError};

use SnapshotKind::Own;

const SEGMENT_BYTES: u64 = 2048;

fn open(disk: &MemDisk) -> Wal<MemDisk> {
    model::open(disk, SEGMENT_BYTES).unwrap().0
}

/// An entry that leaves no room for a second one in its segment.
fn large(index: u64) -> Entry {
    command(1, index, &[index as u8; 700])
}

fn reserves(disk: &MemDisk) -> usize {
    disk.files().keys().filter(|name| name.starts_with("reserve")).count()
}

#[test]
fn the_reserve_becomes_the_next_segment_and_is_made_again() {
    let disk = MemDisk::default();
    let mut wal = open(&disk);
    assert!(!wal.is_low() && reserves(&disk) == 1);
    wal.append_entries(&[large(1)]);
    wal.sync().unwrap();
    disk.full_after(0);
    wal.append_entries(&[large(2)]);
    wal.sync().unwrap();
    assert!(wal.is_low() && reserves(&disk) == 0);
    wal.fill_reserve().unwrap();
    assert!(wal.is_low() && reserves(&disk) == 0);
    let files = disk.files();

    wal.append_entries(&[large(3)]);
    wal.append_hard_state(hard_state(2, Some(1)));
    for _ in 0..3 {
        let error = wal.sync().unwrap_err();
        assert!(error.is_full(), "{error}");
        assert!(error.to_string().contains(DISK_IS_FULL), "{error}");
        assert_eq!(disk.files(), files, "nothing half-made stays");
    }
    let (_, recovered) = model::open(&disk, SEGMENT_BYTES).unwrap();
    assert_eq!(recovered.entries, vec![large(1), large(2)]);

    disk.heal();
    wal.append_entries(&[large(4)]);
    wal.sync().unwrap();
    assert!(!wal.is_low() && reserves(&disk) == 1, "there is room again");
    let (_, recovered) = model::open(&disk, SEGMENT_BYTES).unwrap();
    assert_eq!(recovered.entries, (1..=4).map(large).collect::<Vec<_>>());
    assert_eq!(recovered.hard_state, hard_state(2, Some(1)));
}

#[test]
fn a_batch_that_the_reserve_is_too_small_for_leaves_it_to_others() {
    let disk = MemDisk::default();
    let mut wal = open(&disk);
    disk.full_after(0);
    wal.append_entries(&[command(1, 1, &[1; 5000])]);
    assert!(wal.sync().unwrap_err().is_full());
    assert!(!wal.is_low());
    disk.heal();
    wal.sync().unwrap();
    assert_eq!(model::open(&disk, SEGMENT_BYTES).unwrap().1.entries[0].payload.len(), 5000);
}

/// What fits into the newest segment needs no room: it was set aside.
#[test]
fn small_batches_go_on_while_the_newest_segment_lasts() {
    let disk = MemDisk::default();
    let mut wal = open(&disk);
    disk.make_full();
    for term in 1..=10 {
        wal.append_hard_state(hard_state(term, None));
        wal.sync().unwrap();
    }
    assert!(!wal.is_low());
}

/// The way out: a snapshot does not need the log's room, and the log it covers is given back.
#[test]
fn compaction_makes_room_for_the_reserve() {
    let disk = MemDisk::default();
    let mut wal = open(&disk);
    for index in 1..=5 {
        wal.append_entries(&[large(index)]);
        wal.sync().unwrap();
    }
    wal.begin_snapshot(Own, position(5, 1)).unwrap();
    wal.append_snapshot(Own, b"all five").unwrap();
    wal.finish_snapshot(Own).unwrap();
    disk.full_after(0);
    wal.append_entries(&[large(6)]);
    wal.sync().unwrap();
    assert!(wal.is_low());
    disk.heal();
    wal.compact(5).unwrap();
    assert!(!wal.is_low() && wal.segments() == 1);
}

#[test]
fn a_snapshot_that_finds_no_room_is_given_up_and_the_log_goes_on() {
    /// Making the file, its header's place, three pieces, the last block, the header; then it is synced and named.
    const WRITES: usize = 7;
    let payload = vec![7; 200_000];
    let snapshot = |wal: &mut Wal<MemDisk>| {
        wal.begin_snapshot(Own, position(1, 1))?;
        for part in payload.chunks(70_000) {
            wal.append_snapshot(Own, part)?;
        }
        wal.finish_snapshot(Own)
    };
    for passing in 0.. {
        let disk = MemDisk::default();
        let mut wal = open(&disk);
        wal.append_entries(&[large(1)]);
        wal.sync().unwrap();
        let files = disk.files();
        disk.full_after(passing);
        match snapshot(&mut wal) {
            Err(error) => {
                assert!(error.is_full(), "{error}");
                assert_eq!(wal.snapshot_progress(Own), None);
                let finished = wal.snapshots().len();
                assert!(finished == 0 && !disk.files().contains_key("snapshot-own.tmp"));
                if passing < WRITES {
                    assert_eq!(disk.files(), files, "after {passing} operations");
                }
                wal.append_hard_state(hard_state(3, None));
                wal.sync().unwrap();
                disk.heal();
                snapshot(&mut wal).unwrap();
            }
            Ok(_) => {
                assert!(passing > WRITES, "only {passing} operations");
                break;
            }
        }
        assert_eq!(wal.read_snapshot(position(1, 1), 0, 300_000).unwrap(), payload);
        let (_, recovered) = model::open(&disk, SEGMENT_BYTES).unwrap();
        assert_eq!((recovered.base, recovered.damaged), (position(1, 1), None));
    }
}

/// The disk is full from any operation on: either nothing has happened and the same call works later, or
/// the log has stopped; what was acknowledged is there in both cases.
#[test]
fn a_disk_that_fills_up_at_any_operation_costs_nothing_acknowledged() {
    let (mut retried, mut stopped) = (0, 0);
    for passing in 0..120 {
        let disk = MemDisk::default();
        let mut wal = open(&disk);
        disk.full_after(passing);
        let mut acknowledged = Model::default();
        let mut under_way = Model::default();
        for index in 1..=20 {
            let state = (index % 3 == 0).then(|| hard_state(index, Some(1)));
            let batch = Batch { hard_state: state, entries: vec![large(index)] };
            batch.append_to(&mut wal);
            under_way.apply(&batch);
            match wal.sync() {
                Ok(()) => acknowledged = under_way.clone(),
                Err(error) if error.is_full() => {
                    assert!(matches!(error, WalError::Io { .. }));
                    if wal.sync().is_err_and(|again| !again.is_full()) {
                        stopped += 1;
                        break;
                    }
                    retried += 1;
                    let (_, recovered) = model::open(&disk.copy(), SEGMENT_BYTES).unwrap();
                    assert_eq!(Model::of(&recovered), acknowledged, "after {passing} operations");
                    disk.heal();
                    wal.sync().unwrap();
                    acknowledged = under_way.clone();
                }
                Err(error) => panic!("{error}"),
            }
        }
        disk.heal();
        let (_, recovered) = model::open(&disk, SEGMENT_BYTES).unwrap();
        let found = Model::of(&recovered);
        assert!(found.entries.len() >= acknowledged.entries.len());
        assert!(found == acknowledged || found.entries == under_way.entries[..found.entries.len()]);
    }
    assert!(retried > 10 && stopped > 10, "{retried} retried, {stopped} stopped");
}

/// A start needs no room, as long as it has nothing to mark.
#[test]
fn a_node_starts_on_a_full_disk() {
    let disk = MemDisk::default();
    let mut wal = open(&disk);
    for index in 1..=3 {
        wal.append_entries(&[large(index)]);
        wal.sync().unwrap();
    }
    drop(wal);
    let with_reserve = disk.copy();
    let without: Vec<String> =
        disk.files().into_keys().filter(|name| name.starts_with("reserve")).collect();
    let mut files = disk.files();
    files.retain(|name, _| !without.contains(name));
    for (disk, is_low) in [(with_reserve, false), (MemDisk::holding(&files), true)] {
        disk.make_full();
        let (mut wal, recovered) = model::open(&disk, SEGMENT_BYTES).unwrap();
        assert_eq!((recovered.entries.len(), wal.is_low()), (3, is_low));
        disk.heal();
        wal.fill_reserve().unwrap();
        assert!(!wal.is_low());
    }
}
