//! The file that says what was lost: it is there before anything is cut, and until the owner says that
//! nothing is missing any more.

use crate::damage::{FRONT_BYTES, SECOND, SEGMENT_BYTES, Written, recover};
use crate::mem_disk::{MemDisk, SECTOR_BYTES};
use crate::model::{self, Batch, Model, command, hard_state, position};
use raftkv::wal::{SnapshotKind, WalError};

/// Recovery from damage, cut short by power cuts at every operation and repeated: the marker comes first,
/// and neither it nor the hard state is lost on the way.
#[test]
fn damage_is_reported_and_the_vote_kept_wherever_recovery_is_cut_short() {
    let batches: Vec<Batch> = (1..=6)
        .map(|i| Batch {
            hard_state: Some(hard_state(i, Some(i % 3))),
            entries: vec![command(1, i, &[7; 300])],
        })
        .collect();
    let written = Written::new(2048, &batches);
    let files = model::segments(&written.files);
    let newest = files.keys().next_back().unwrap();
    let mut rng = fastrand::Rng::with_seed(5);
    for seed in 0..400 {
        let mut damaged = written.files.clone();
        let name = files.keys().nth(rng.usize(..files.len())).unwrap();
        if rng.u8(..4) == 0 && name != newest {
            damaged.remove(name);
        } else {
            let places = [rng.usize(..SECTOR_BYTES), rng.usize(FRONT_BYTES..2000)];
            damaged.get_mut(name).unwrap()[places[usize::from(rng.bool())]] ^= 1 << rng.u8(..8);
        }
        let entries = recover(&damaged).1.unwrap().entries;
        for passing in 0.. {
            let disk = MemDisk::holding(&damaged);
            disk.fail_after(passing);
            let complete = model::open(&disk, 2048).is_ok();
            let disk = disk.after_power_cut(|| rng.bool());
            let (_, recovered) = model::open(&disk, 2048).unwrap();
            assert!(recovered.damaged.is_some(), "seed {seed}, {passing} operations");
            assert_eq!(recovered.hard_state, written.all().hard_state);
            assert_eq!(recovered.entries, entries);
            let disk = disk.after_power_cut(|| false);
            let (_, again) = model::open(&disk, 2048).unwrap();
            assert_eq!(
                (again.damaged, again.hard_state),
                (recovered.damaged, recovered.hard_state)
            );
            assert_eq!(again.entries, recovered.entries);
            if complete {
                assert!(passing >= 8, "{passing} operations can not have marked and cut anything");
                break;
            }
        }
    }
}

#[test]
fn a_second_damage_is_added_to_the_first() {
    let written = Written::small();
    let disk = MemDisk::holding(&written.files);
    let (mut wal, _) = model::open(&disk, SEGMENT_BYTES).unwrap();
    wal.mark_damaged("the digest differs at entry 7\nas node 2 says").unwrap();
    let first = "the digest differs at entry 7 as node 2 says";
    assert_eq!(wal.damaged(), Some(first));
    wal.append_hard_state(hard_state(8, Some(2)));
    wal.sync().unwrap();
    let mut files = disk.files();
    files.get_mut(SECOND).unwrap()[1100] ^= 4;
    let (disk, result) = recover(&files);
    let recovered = result.unwrap();
    assert_eq!(recovered.hard_state, hard_state(8, Some(2)), "newer than what the marker says");
    let text = recovered.damaged.unwrap();
    assert!(text.starts_with(first) && text.contains(SECOND), "{text}");
    let text_of = |disk: &MemDisk| String::from_utf8(disk.files()["damaged"].clone()).unwrap();
    assert!(text_of(&disk).starts_with("raftkv damaged 1\nterm 8\nvote 2\nwhat the digest"));
    assert!(text_of(&disk).contains(SECOND));
}

#[test]
fn a_marker_that_can_not_be_read_is_refused_whatever_bit_is_flipped() {
    let written = Written::small();
    let disk = MemDisk::holding(&written.files);
    model::open(&disk, SEGMENT_BYTES).unwrap().0.mark_damaged("lost").unwrap();
    let sound = disk.files();
    for bit in 0..sound["damaged"].len() * 8 {
        let mut files = sound.clone();
        files.get_mut("damaged").unwrap()[bit / 8] ^= 1 << (bit % 8);
        let (disk, result) = recover(&files);
        let error = result.unwrap_err();
        let expected = matches!(error, WalError::Corrupt { .. } | WalError::UnknownVersion { .. });
        assert!(expected && error.to_string().contains("mem/damaged"), "{error}");
        assert_eq!(disk.files(), files);
    }
}

/// A crash leaves the marker or not; afterwards it is gone for good.
#[test]
fn a_log_is_marked_whole_durably_or_not_at_all() {
    let written = Written::small();
    let disk = MemDisk::holding(&written.files);
    model::open(&disk, SEGMENT_BYTES).unwrap().0.mark_damaged("lost").unwrap();
    let marked = disk.files();
    for passing in 0..6 {
        for survives in [false, true] {
            let disk = MemDisk::holding(&marked);
            let (mut wal, recovered) = model::open(&disk, SEGMENT_BYTES).unwrap();
            assert_eq!(recovered.damaged.as_deref(), Some("lost"));
            disk.fail_after(passing);
            let done = wal.mark_whole().is_ok();
            let disk = disk.after_power_cut(|| survives);
            let (_, recovered) = model::open(&disk, SEGMENT_BYTES).unwrap();
            assert_eq!((recovered.hard_state, &recovered.entries), {
                let Model { hard_state, entries } = written.all();
                (*hard_state, entries)
            });
            assert!(!done || recovered.damaged.is_none());
            assert!(done == (passing >= 2));
        }
    }
}

/// An owner whose state differs from its peers' has to do without what it kept of it.
#[test]
fn wrong_snapshots_are_discarded_once_that_is_marked() {
    let disk = MemDisk::default();
    let (mut wal, _) = model::open(&disk, SEGMENT_BYTES).unwrap();
    wal.append_entries(&[command(1, 1, b"a"), command(1, 2, b"b")]);
    wal.append_hard_state(hard_state(2, Some(1)));
    wal.sync().unwrap();
    for index in [1, 2] {
        wal.begin_snapshot(SnapshotKind::Own, position(index, 1)).unwrap();
        wal.append_snapshot(SnapshotKind::Own, b"wrong").unwrap();
        wal.finish_snapshot(SnapshotKind::Own).unwrap();
    }
    wal.mark_damaged("the digest differs").unwrap();
    wal.reset(position(0, 0));
    wal.sync().unwrap();
    wal.discard_snapshots().unwrap();
    assert_eq!(wal.snapshots(), []);
    let disk = disk.after_power_cut(|| false);
    let (_, recovered) = model::open(&disk, SEGMENT_BYTES).unwrap();
    assert_eq!((recovered.snapshot, recovered.base), (None, position(0, 0)));
    assert_eq!((recovered.entries, recovered.hard_state), (vec![], hard_state(2, Some(1))));
    assert_eq!(recovered.damaged.as_deref(), Some("the digest differs"));
}

#[test]
#[should_panic(expected = "snapshots discarded without marking the loss")]
fn to_discard_snapshots_without_marking_that_is_a_bug_of_the_caller() {
    let _ = model::open(&MemDisk::default(), SEGMENT_BYTES).unwrap().0.discard_snapshots();
}
