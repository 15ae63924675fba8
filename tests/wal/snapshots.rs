//! Snapshots on disk: what is written is read again, what is damaged is noticed, and the log goes on where
//! they end.

use crate::mem_disk::{Files, MemDisk, Unsynced};
use crate::model::{self, command, hard_state, noop, position};
use proptest::prelude::*;
use raftkv::raft::{Entry, Position};
use raftkv::wal::{
    Recovered, SET_ASIDE, SNAPSHOT_SYNC_BYTES, SnapshotFile, SnapshotKind, Wal, WalError,
};

use SnapshotKind::{Incoming, Own};

const BLOCK_BYTES: usize = 64 << 10;
const SEGMENT_BYTES: u64 = 2048;

fn payload(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn name(position: Position) -> String {
    format!("snapshot-{:016x}-{:016x}", position.index, position.term)
}

fn open(disk: &MemDisk) -> (Wal<MemDisk>, Recovered) {
    model::open(disk, SEGMENT_BYTES).unwrap()
}

/// Writes a snapshot in pieces of this many bytes.
fn write(
    wal: &mut Wal<MemDisk>,
    kind: SnapshotKind,
    position: Position,
    payload: &[u8],
    piece: usize,
) -> SnapshotFile {
    wal.begin_snapshot(kind, position).unwrap();
    let mut written = 0;
    for part in payload.chunks(piece) {
        assert_eq!(wal.snapshot_progress(kind), Some((position, written)));
        wal.append_snapshot(kind, part).unwrap();
        written += part.len() as u64;
    }
    let file = wal.finish_snapshot(kind).unwrap();
    assert_eq!(wal.snapshot_progress(kind), None);
    assert_eq!(file, SnapshotFile { position, payload_bytes: payload.len() as u64 });
    file
}

/// Ten entries, one to a batch, in several segments.
fn ten_entries(wal: &mut Wal<MemDisk>) -> Vec<Entry> {
    let entries: Vec<Entry> = (1..=10).map(|i| command(i / 4 + 1, i, &[i as u8; 500])).collect();
    wal.append_hard_state(hard_state(3, Some(1)));
    for entry in &entries {
        wal.append_entries(std::slice::from_ref(entry));
        wal.sync().unwrap();
    }
    entries
}

/// A folder with ten entries and snapshots of the fourth and the eighth.
fn two_snapshots() -> (MemDisk, Vec<Entry>) {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk);
    let entries = ten_entries(&mut wal);
    write(&mut wal, Own, position(4, 2), &payload(300), 100);
    write(&mut wal, Own, position(8, 3), &payload(400), 100);
    (disk, entries)
}

#[test]
fn a_snapshot_of_any_size_is_read_as_it_was_written() {
    let sizes = [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES, 200_000];
    for (index, size) in (1..).zip(sizes) {
        let disk = MemDisk::default();
        let (mut wal, _) = open(&disk);
        let expected = payload(size);
        let file = write(&mut wal, Own, position(index, 1), &expected, 10_000);
        let read = |wal: &mut Wal<MemDisk>, offset, most| {
            wal.read_snapshot(file.position, offset, most).unwrap()
        };
        assert_eq!(read(&mut wal, 0, usize::MAX), expected);
        let (mut wal, recovered) = open(&disk);
        assert_eq!((recovered.snapshot, recovered.base), (Some(file), file.position));
        assert_eq!((wal.snapshots(), &recovered.damaged), (&[file][..], &None));
        let mut streamed = Vec::new();
        loop {
            let part = read(&mut wal, streamed.len() as u64, 30_000);
            if part.is_empty() {
                break;
            }
            streamed.extend(part);
        }
        assert_eq!(streamed, expected);
        assert_eq!(read(&mut wal, size as u64 + 5, 10), b"");
        assert_eq!(read(&mut wal, u64::MAX, usize::MAX), b"");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_part_of_a_snapshot_can_be_read(
        pieces in prop::collection::vec(1_usize..90_000, 0..6),
        parts in prop::collection::vec((0_u64..400_000, 0_usize..200_000), 1..8),
    ) {
        let disk = MemDisk::default();
        let (mut wal, _) = open(&disk);
        let expected = payload(pieces.iter().sum());
        wal.begin_snapshot(Incoming, position(9, 2)).unwrap();
        let mut rest = &expected[..];
        for piece in pieces {
            let (now, later) = rest.split_at(piece);
            wal.append_snapshot(Incoming, now).unwrap();
            rest = later;
        }
        wal.finish_snapshot(Incoming).unwrap();
        for (offset, bytes) in parts {
            let start = expected.len().min(offset as usize);
            let end = expected.len().min(start + bytes);
            let read = wal.read_snapshot(position(9, 2), offset, bytes).unwrap();
            prop_assert_eq!(&read[..], &expected[start..end]);
        }
    }
}

/// No sync is ever large, there is not one for each piece, what it waits for was written by earlier ones, and the name
/// comes when everything is synced.
#[test]
fn what_is_not_synced_of_a_snapshot_is_bounded() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk);
    wal.begin_snapshot(Own, position(1, 1)).unwrap();
    let appends = 2 * SNAPSHOT_SYNC_BYTES / BLOCK_BYTES + 4;
    let (mut unsynced, mut syncs) = (0, 0);
    for append in 0..appends {
        let before = disk.counts();
        wal.append_snapshot(Own, &payload(BLOCK_BYTES)).unwrap();
        let after = disk.counts();
        assert_eq!(after.writes - before.writes, 1);
        if after.syncs > before.syncs {
            (unsynced, syncs) = (0, syncs + after.syncs - before.syncs);
            let durable = disk.after_power_cut_of(|what| what == Unsynced::Name).files();
            let earlier = 64 + append * (BLOCK_BYTES + 8);
            assert_eq!(durable["snapshot-own.tmp"].len(), earlier, "what earlier ones wrote");
        }
        unsynced += BLOCK_BYTES;
        assert!(unsynced < SNAPSHOT_SYNC_BYTES, "{unsynced} bytes are not synced");
    }
    assert_eq!(syncs, 2);
    let lost = disk.after_power_cut(|| false).files().remove("snapshot-own.tmp");
    assert_eq!(lost, None, "its name is not durable before it is finished");
    wal.finish_snapshot(Own).unwrap();
    let kept = disk.after_power_cut(|| false).files().remove(&name(position(1, 1)));
    assert_eq!(kept.unwrap().len(), 64 + appends * (BLOCK_BYTES + 8));
}

#[test]
fn the_header_and_the_blocks_are_as_documented() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk);
    let content = payload(BLOCK_BYTES + 10);
    write(&mut wal, Own, position(5, 3), &content, 70_000);
    let bytes = &disk.files()[&name(position(5, 3))];
    let salt = u32::from_be_bytes(bytes[12..16].try_into().unwrap());
    let mut expected = b"RAFTKVSN".to_vec();
    expected.extend(1_u32.to_be_bytes());
    expected.extend(salt.to_be_bytes());
    expected.extend(5_u64.to_be_bytes());
    expected.extend(3_u64.to_be_bytes());
    expected.extend((content.len() as u64).to_be_bytes());
    expected.extend(crc32c::crc32c(&content).to_be_bytes());
    expected.resize(60, 0);
    expected.extend(crc32c::crc32c(&expected).to_be_bytes());
    for (number, data) in (0_u64..).zip(content.chunks(BLOCK_BYTES)) {
        let block = [&(data.len() as u32).to_be_bytes()[..], data].concat();
        let crc = crc32c::crc32c_append(salt, &number.to_be_bytes());
        let crc = crc32c::crc32c_append(crc, &block);
        expected.extend(block);
        expected.extend(crc.to_be_bytes());
    }
    assert!(*bytes == expected, "other bytes than documented");
}

#[test]
fn the_newest_two_are_kept_in_order() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk);
    let positions = [position(10, 1), position(20, 1), position(30, 2), position(25, 2)];
    for at in positions {
        write(&mut wal, Own, at, &payload(100), 30);
    }
    let kept = |wal: &Wal<MemDisk>| -> Vec<Position> {
        wal.snapshots().iter().map(|file| file.position).collect()
    };
    let expected = vec![position(25, 2), position(30, 2)];
    assert_eq!(kept(&wal), expected);
    write(&mut wal, Incoming, position(30, 2), &payload(55), 55);
    assert_eq!(kept(&wal), expected, "one of the same position takes its place");
    assert_eq!(wal.read_snapshot(position(30, 2), 0, 100).unwrap(), payload(55));
    assert_eq!(kept(&open(&disk).0), expected);
    let names: Vec<String> =
        disk.files().into_keys().filter(|name| name.starts_with("snapshot")).collect();
    assert_eq!(names, expected.into_iter().map(name).collect::<Vec<_>>());
    let gone = wal.read_snapshot(position(10, 1), 0, 1).unwrap_err();
    assert!(matches!(gone, WalError::NoSnapshot { position: Some(_), .. }));
    assert!(gone.to_string().contains("index 10 and term 1"), "{gone}");
}

#[test]
fn one_of_each_kind_is_written_at_a_time_and_can_be_given_up() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk);
    let files = disk.files();
    wal.begin_snapshot(Own, position(3, 1)).unwrap();
    wal.begin_snapshot(Incoming, position(7, 1)).unwrap();
    wal.append_snapshot(Own, b"own").unwrap();
    wal.append_snapshot(Incoming, b"lost").unwrap();
    wal.begin_snapshot(Incoming, position(8, 1)).unwrap();
    wal.append_snapshot(Incoming, b"incoming").unwrap();
    assert_eq!(wal.snapshot_progress(Own), Some((position(3, 1), 3)));
    assert_eq!(wal.snapshot_progress(Incoming), Some((position(8, 1), 8)));
    wal.finish_snapshot(Incoming).unwrap();
    assert_eq!(wal.read_snapshot(position(8, 1), 0, 99).unwrap(), b"incoming");
    wal.abandon_snapshot(Own).unwrap();
    wal.abandon_snapshot(Own).unwrap();
    let none = wal.append_snapshot(Own, b"more").unwrap_err();
    assert!(matches!(none, WalError::NoSnapshot { position: None, .. }), "{none}");
    assert!(matches!(wal.finish_snapshot(Own), Err(WalError::NoSnapshot { .. })));
    assert_eq!(wal.snapshot_progress(Own), None);
    wal.begin_snapshot(Own, position(9, 1)).unwrap();
    drop(wal);
    let (wal, _) = open(&disk);
    assert_eq!(wal.snapshots().len(), 1);
    assert_eq!(disk.files().len(), files.len() + 1, "leftovers are removed");
}

#[test]
fn the_log_is_handed_out_from_the_snapshot_on() {
    let (disk, entries) = two_snapshots();
    let (_, recovered) = open(&disk);
    assert_eq!((recovered.base, &recovered.entries[..]), (position(8, 3), &entries[8..]));
    assert_eq!((recovered.damaged, recovered.notes), (None, vec![]));
}

#[test]
fn a_log_is_cut_off_behind_a_snapshot_by_whole_segments() {
    let (disk, entries) = two_snapshots();
    let (mut wal, _) = open(&disk);
    let segments = wal.segments();
    wal.compact(3).unwrap();
    assert_eq!(wal.segments(), segments - 3, "one entry is in each segment");
    assert_eq!(wal.segments(), model::segments(&disk.files()).len());
    assert_eq!(wal.bytes_on_disk(), wal.segments() as u64 * SEGMENT_BYTES);
    wal.compact(4).unwrap();
    let (mut wal, recovered) = open(&disk);
    assert_eq!(wal.segments(), segments - 4);
    assert_eq!((recovered.base, &recovered.entries[..]), (position(8, 3), &entries[8..]));
    wal.compact(8).unwrap();
    wal.append_entries(&[noop(3, 11)]);
    wal.sync().unwrap();
    let (wal, recovered) = open(&disk);
    assert_eq!((recovered.entries.len(), recovered.damaged), (3, None));
    assert!(wal.segments() <= 3);
}

#[test]
#[should_panic(expected = "compacted up to 9, but the snapshot ends at 8")]
fn to_cut_the_log_off_beyond_the_snapshot_is_a_bug_of_the_caller() {
    open(&two_snapshots().0).0.compact(9).unwrap();
}

#[test]
fn the_active_segment_stays_and_knows_the_hard_state() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk);
    ten_entries(&mut wal);
    write(&mut wal, Own, position(10, 3), b"all", 3);
    wal.compact(10).unwrap();
    assert_eq!(wal.segments(), 1);
    let (_, recovered) = open(&disk);
    assert_eq!((recovered.entries, recovered.base), (vec![], position(10, 3)));
    assert_eq!((recovered.hard_state, recovered.damaged), (hard_state(3, Some(1)), None));
}

#[test]
fn a_log_that_was_reset_begins_at_the_base() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk);
    ten_entries(&mut wal);
    write(&mut wal, Incoming, position(50, 4), b"from the leader", 5);
    wal.reset(position(50, 4));
    wal.append_entries(&[noop(4, 51)]);
    wal.append_hard_state(hard_state(4, None));
    wal.sync().unwrap();
    let (mut wal, recovered) = open(&disk);
    assert_eq!((recovered.base, recovered.entries), (position(50, 4), vec![noop(4, 51)]));
    assert_eq!((recovered.hard_state, recovered.damaged), (hard_state(4, None), None));
    wal.compact(50).unwrap();
    assert_eq!(wal.segments(), 1, "nothing before the base is of use");
    wal.append_entries(&[noop(5, 51), noop(5, 52)]);
    wal.sync().unwrap();
    let (_, recovered) = open(&disk);
    assert_eq!(recovered.entries, vec![noop(5, 51), noop(5, 52)]);
}

#[test]
#[should_panic(expected = "entry 50 is not above 50, where the log begins")]
fn to_replace_what_a_reset_made_final_is_a_bug_of_the_caller() {
    let (mut wal, _) = open(&MemDisk::default());
    wal.reset(position(50, 4));
    wal.append_entries(&[noop(4, 50)]);
}

/// A crash between a snapshot's end and the reset of the log: the log is made to begin there.
#[test]
fn a_log_that_ends_before_the_snapshot_or_disagrees_with_it_is_void() {
    for at in [position(50, 4), position(11, 3), position(10, 4), position(6, 3)] {
        let disk = MemDisk::default();
        let (mut wal, _) = open(&disk);
        ten_entries(&mut wal);
        write(&mut wal, Incoming, at, b"from the leader", 5);
        drop(wal);
        for _ in 0..2 {
            let (wal, recovered) = open(&disk);
            assert_eq!((recovered.base, recovered.entries), (at, vec![]));
            assert_eq!((recovered.damaged, recovered.notes), (None, vec![]));
            let known =
                if at.term > 3 { hard_state(at.term, None) } else { hard_state(3, Some(1)) };
            assert_eq!(recovered.hard_state, known, "the term of the snapshot or a newer one");
            drop(wal);
        }
        let (mut wal, _) = open(&disk);
        wal.append_entries(&[noop(4, at.index + 1)]);
        wal.sync().unwrap();
        assert_eq!(open(&disk).1.entries, vec![noop(4, at.index + 1)]);
    }
}

fn damage(disk: &MemDisk, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> MemDisk {
    let mut files = disk.files();
    change(files.get_mut(name).unwrap());
    MemDisk::holding(&files)
}

#[test]
fn any_flipped_bit_and_any_cut_of_a_snapshot_is_noticed_and_costs_nothing() {
    let (disk, entries) = two_snapshots();
    let newest = name(position(8, 3));
    let bytes = disk.files()[&newest].clone();
    let mut variants: Vec<Vec<u8>> = (0..bytes.len()).map(|cut| bytes[..cut].to_vec()).collect();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        variants.push(flipped);
    }
    variants.push([&bytes[..], b"x"].concat());
    for variant in variants {
        let damaged = damage(&disk, &newest, |bytes| *bytes = variant.clone());
        let (_, recovered) = open(&damaged);
        assert_eq!((recovered.base, &recovered.entries[..]), (position(4, 2), &entries[4..]));
        assert_eq!((recovered.damaged, recovered.notes.len()), (None, 1));
        assert!(recovered.notes[0].contains(&newest), "{:?}", recovered.notes);
        assert_eq!(damaged.files()[SET_ASIDE], variant);
        let (wal, recovered) = open(&damaged);
        assert_eq!((recovered.notes.len(), wal.snapshots().len()), (0, 1));
    }
}

#[test]
fn damage_met_while_reading_sets_the_snapshot_aside() {
    let disk = MemDisk::default();
    let (mut wal, _) = open(&disk);
    ten_entries(&mut wal);
    write(&mut wal, Own, position(4, 2), b"older", 9);
    write(&mut wal, Own, position(8, 3), &payload(3 * BLOCK_BYTES), BLOCK_BYTES);
    let newest = name(position(8, 3));
    // The disk rots under the running process.
    let in_second_block = 64 + BLOCK_BYTES + 8 + 100;
    let disk = damage(&disk, &newest, |_| ());
    let (mut wal, _) = open(&disk);
    disk.corrupt(&newest, in_second_block);
    let first = wal.read_snapshot(position(8, 3), 0, BLOCK_BYTES).unwrap();
    assert_eq!(first, payload(BLOCK_BYTES));
    let error = wal.read_snapshot(position(8, 3), BLOCK_BYTES as u64 - 1, 2).unwrap_err();
    assert!(matches!(error, WalError::BadSnapshot { .. }), "{error}");
    let place = format!("damaged at byte {}: malformed block", 64 + BLOCK_BYTES + 8);
    assert!(error.to_string().contains(&place), "{error}");
    assert_eq!(wal.snapshots().len(), 1);
    assert!(disk.files().contains_key(SET_ASIDE) && !disk.files().contains_key(&newest));
    let gone = wal.read_snapshot(position(8, 3), 0, 1).unwrap_err();
    assert!(matches!(gone, WalError::NoSnapshot { .. }));
    assert_eq!(wal.read_snapshot(position(4, 2), 0, 99).unwrap(), b"older");
    wal.append_entries(&[noop(3, 11)]);
    wal.sync().unwrap();
    assert_eq!(open(&disk).1.base, position(4, 2));
}

#[test]
fn without_a_snapshot_that_the_log_goes_on_from_it_is_void_and_marked() {
    let (sound, entries) = two_snapshots();
    let (older, newest) = (name(position(4, 2)), name(position(8, 3)));
    let flip = |files: &mut Files, name: &str| files.get_mut(name).unwrap()[70] ^= 1;
    // Not compacted: the log is enough.
    let mut files = sound.files();
    flip(&mut files, &older);
    flip(&mut files, &newest);
    let (_, recovered) = open(&MemDisk::holding(&files));
    assert_eq!((recovered.base, recovered.entries), (position(0, 0), entries.clone()));
    assert_eq!((recovered.damaged, recovered.notes.len()), (None, 2));

    open(&sound).0.compact(8).unwrap();
    for (both, base) in [(false, position(4, 2)), (true, position(0, 0))] {
        let mut files = sound.files();
        flip(&mut files, &newest);
        if both {
            flip(&mut files, &older);
        }
        let disk = MemDisk::holding(&files);
        for _ in 0..2 {
            let (_, recovered) = open(&disk);
            assert_eq!((recovered.base, recovered.entries), (base, vec![]));
            assert_eq!(recovered.hard_state, hard_state(3, Some(1)));
            let what = recovered.damaged.unwrap();
            assert!(what.contains("does not go on after"), "{what}");
        }
        let (mut wal, _) = open(&disk);
        wal.append_entries(&[noop(3, base.index + 1)]);
        wal.sync().unwrap();
        wal.mark_whole().unwrap();
        let (_, recovered) = open(&disk);
        assert_eq!((recovered.base, recovered.entries.len()), (base, 1));
        assert_eq!(recovered.damaged, None);
    }
}

/// The log before a snapshot is of no use, so damage to it costs nothing either.
#[test]
fn damage_to_a_part_of_the_log_that_a_snapshot_covers_is_harmless() {
    let (disk, entries) = two_snapshots();
    for number in 1..=8 {
        let segment = format!("wal-{number:016x}.log");
        let damaged = damage(&disk, &segment, |bytes| bytes[1100] ^= 1);
        let (_, recovered) = open(&damaged);
        assert_eq!((recovered.base, &recovered.entries[..]), (position(8, 3), &entries[8..]));
        assert_eq!(recovered.damaged, None);
        assert!(recovered.notes[0].contains(&segment), "{:?}", recovered.notes);
        assert_eq!(open(&damaged).1.notes, Vec::<String>::new());
    }
    let damaged = damage(&disk, "wal-0000000000000009.log", |bytes| bytes[1100] ^= 1);
    let (_, recovered) = open(&damaged);
    assert_eq!((recovered.base, recovered.entries.len()), (position(8, 3), 0));
    assert!(recovered.damaged.unwrap().contains("wal-0000000000000009.log"));
}

#[test]
fn snapshots_without_a_log_are_refused() {
    let (disk, _) = two_snapshots();
    let mut files = disk.files();
    files.retain(|name, _| !name.starts_with("wal-"));
    let disk = MemDisk::holding(&files);
    let error = model::open(&disk, SEGMENT_BYTES).err().unwrap();
    assert!(error.to_string().contains("holds snapshots, but no log"), "{error}");
    assert_eq!(disk.files(), files);
}

#[test]
fn a_snapshot_of_a_newer_format_or_under_another_name_is_not_loaded() {
    let (sound, _) = two_snapshots();
    let newest = name(position(8, 3));
    let newer = damage(&sound, &newest, |bytes| {
        bytes[11] = 2;
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_be_bytes());
    });
    let files = newer.files();
    let error = model::open(&newer, SEGMENT_BYTES).err().unwrap();
    assert!(matches!(error, WalError::UnknownVersion { version: 2, .. }), "{error}");
    assert_eq!(newer.files(), files);

    let mut files = sound.files();
    let content = files.remove(&newest).unwrap();
    files.insert(name(position(9, 3)), content);
    let (_, recovered) = open(&MemDisk::holding(&files));
    assert_eq!(recovered.base, position(4, 2));
    assert!(recovered.notes[0].contains("under the name of another"), "{:?}", recovered.notes);
}
