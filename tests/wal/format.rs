//! The format, byte by byte as documented, and what is damage although its checksums are right.

use crate::mem_disk::{Files, MemDisk};
use crate::model::{self, command, hard_state, noop, position};
use raftkv::wal::{Recovered, WalError};

const NAME: &str = "wal-0000000000000001.log";
const RESERVE: &str = "reserve-0000000000001000";
const SALT: u32 = 0x0bad_cafe;
const VERSION: u32 = 2;

type Vote = (u64, Option<u64>);

fn sealed_sector(mut out: Vec<u8>) -> Vec<u8> {
    out.resize(508, 0);
    let crc = crc32c::crc32c(&out);
    out.extend(crc.to_be_bytes());
    out
}

fn vote((term, voted_for): Vote) -> Vec<u8> {
    let voted = u8::from(voted_for.is_some());
    [&term.to_be_bytes()[..], &[voted], &voted_for.unwrap_or(0).to_be_bytes()].concat()
}

/// A segment header, written by hand from the documentation.
fn header(version: u32) -> Vec<u8> {
    let mut out = b"RAFTKVWL".to_vec();
    out.extend(version.to_be_bytes());
    out.extend(SALT.to_be_bytes());
    out.extend(1_u64.to_be_bytes()); // segment number
    out.extend(4096_u64.to_be_bytes()); // bytes allocated
    out.extend(1_u64.to_be_bytes()); // sequence number of the first batch
    out.extend([0; 4]); // no batch before it
    out.extend([0; 8 + 8]); // no entry before it
    out.extend(vote((0, None)));
    sealed_sector(out)
}

fn copy(state: Vote) -> Vec<u8> {
    let mut out = b"RAFTKVHS".to_vec();
    out.extend(1_u64.to_be_bytes()); // segment number
    out.extend(vote(state));
    sealed_sector(out)
}

fn batch(sequence: u64, previous_crc: u32, state: Vote, records: &[Vec<u8>]) -> (Vec<u8>, u32) {
    let payload = records.concat();
    let mut out = b"btch".to_vec();
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend(sequence.to_be_bytes());
    out.extend(previous_crc.to_be_bytes());
    out.extend(vote(state));
    out.extend(crc32c::crc32c_append(SALT, &payload).to_be_bytes());
    let crc = crc32c::crc32c_append(SALT, &out);
    out.extend(crc.to_be_bytes());
    out.extend(payload);
    (out, crc)
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32).to_be_bytes(), body].concat()
}

fn entry(term: u64, index: u64, command: Option<&[u8]>) -> Vec<u8> {
    let kind = u8::from(command.is_some());
    let numbers = [term.to_be_bytes(), index.to_be_bytes()].concat();
    record(1, &[&numbers[..], &[kind], command.unwrap_or_default()].concat())
}

/// An entry that follows the one of the record before it.
fn next_entry(command: Option<&[u8]>) -> Vec<u8> {
    let kind = u8::from(command.is_some());
    record(3, &[&[kind], command.unwrap_or_default()].concat())
}

fn base(index: u64, term: u64) -> Vec<u8> {
    record(2, &[index.to_be_bytes(), term.to_be_bytes()].concat())
}

/// The only segment, with these batches laid out over its sectors.
fn segment(header: Vec<u8>, copy: Vec<u8>, batches: &[Vec<u8>]) -> Files {
    let mut bytes = [header, copy].concat();
    for (number, data) in (2_u64..).zip(batches.concat().chunks(508)) {
        let mut sector = data.to_vec();
        sector.resize(508, 0);
        let crc = crc32c::crc32c_append(SALT, &number.to_be_bytes());
        let crc = crc32c::crc32c_append(crc, &sector);
        bytes.extend(sector);
        bytes.extend(crc.to_be_bytes());
    }
    bytes.resize(4096, 0);
    Files::from([(NAME.to_owned(), bytes), (RESERVE.to_owned(), vec![0; 4096])])
}

fn recover(files: &Files) -> Recovered {
    model::open(&MemDisk::holding(files), 4096).unwrap().1
}

fn damage(files: &Files) -> String {
    recover(files).damaged.expect("the log is damaged")
}

#[test]
fn a_log_written_by_hand_from_the_documentation_is_read() {
    let records = [entry(1, 1, None), entry(2, 2, Some(b"set a 1"))];
    let (first, crc) = batch(1, 0, (2, Some(1)), &records);
    let long = [7; 900];
    let records = [entry(3, 2, Some(b"")), entry(3, 3, Some(&long)), next_entry(None)];
    let (second, _) = batch(2, crc, (3, None), &records);
    let files = segment(header(VERSION), copy((3, None)), &[first, second]);
    let recovered = recover(&files);
    let entries = vec![noop(1, 1), command(3, 2, b""), command(3, 3, &long), noop(3, 4)];
    let expected = Recovered {
        hard_state: hard_state(3, None),
        snapshot: None,
        base: position(0, 0),
        entries,
        torn_bytes: 0,
        damaged: None,
        lost_in_term: 0,
        notes: vec![],
    };
    assert_eq!(recovered, expected);
}

#[test]
fn what_is_written_is_as_documented() {
    let long = [0xee; 600];
    let first = batch(1, 0, (2, Some(1)), &[entry(1, 1, None)]);
    let files = segment(header(VERSION), copy((2, Some(1))), std::slice::from_ref(&first.0));
    let disk = MemDisk::holding(&files);
    let (mut wal, _) = model::open(&disk, 4096).unwrap();
    assert_eq!(disk.files(), files);
    wal.append_entries(&[command(2, 2, b"set a 1")]);
    wal.append_hard_state(hard_state(4, None));
    wal.sync().unwrap();
    wal.append_entries(&[command(2, 3, &long)]);
    wal.sync().unwrap();
    let second = batch(2, first.1, (4, None), &[entry(2, 2, Some(b"set a 1"))]);
    let third = batch(3, second.1, (4, None), &[entry(2, 3, Some(&long))]);
    let mut batches = vec![first.0, second.0, third.0];
    assert_eq!(disk.files(), segment(header(VERSION), copy((4, None)), &batches));
    wal.reset(position(0, 0));
    wal.append_entries(&[command(4, 1, b"")]);
    wal.sync().unwrap();
    batches.push(batch(4, third.1, (4, None), &[base(0, 0), entry(4, 1, Some(b""))]).0);
    assert_eq!(disk.files(), segment(header(VERSION), copy((4, None)), &batches));
}

/// Where an entry is said by the one before it, but only by one of its batch.
#[test]
fn an_entry_after_another_of_its_batch_and_term_is_written_without_term_and_index() {
    let disk = MemDisk::holding(&segment(header(VERSION), copy((0, None)), &[]));
    let (mut wal, _) = model::open(&disk, 4096).unwrap();
    let state = (3, None);
    wal.append_hard_state(hard_state(3, None));
    wal.append_entries(&[noop(1, 1), command(1, 2, b"a"), command(2, 3, b"b"), noop(2, 4)]);
    wal.append_entries(&[command(2, 3, b"again")]);
    wal.append_entries(&[command(2, 4, b"c")]);
    wal.sync().unwrap();
    wal.append_entries(&[command(2, 5, b"d"), command(2, 6, b"e")]);
    wal.sync().unwrap();
    wal.append_entries(&[command(2, 7, b"void")]);
    wal.reset(position(7, 2));
    wal.append_entries(&[command(2, 8, b"f"), command(2, 9, b"g")]);
    wal.sync().unwrap();
    let (next, full) = (|text| next_entry(Some(text)), |t, i, text| entry(t, i, Some(text)));
    let replaced = [full(2, 3, b"b"), next_entry(None), full(2, 3, b"again"), next(b"c")];
    let records = [&[entry(1, 1, None), next(b"a")], &replaced[..]].concat();
    let (first, crc) = batch(1, 0, state, &records);
    let (second, crc) = batch(2, crc, state, &[full(2, 5, b"d"), next(b"e")]);
    let records = [full(2, 7, b"void"), base(7, 2), full(2, 8, b"f"), next(b"g")];
    let (third, _) = batch(3, crc, state, &records);
    assert_eq!(disk.files(), segment(header(VERSION), copy(state), &[first, second, third]));
}

#[test]
fn a_new_segment_begins_as_documented() {
    let disk = MemDisk::default();
    drop(model::open(&disk, 4096).unwrap());
    let files = disk.files();
    let mut expected = header(VERSION);
    let salt = &files[NAME][12..16];
    expected[12..16].copy_from_slice(salt);
    expected.truncate(508);
    assert_eq!(files, segment(sealed_sector(expected), copy((0, None)), &[]));
}

#[test]
fn a_newer_format_version_is_refused_as_such() {
    for batches in [vec![], vec![vec![1; 100]]] {
        assert_refused(VERSION + 1, &batches);
    }
}

/// What it says could be taken for something else.
#[test]
fn an_older_format_version_is_refused_as_such() {
    assert_refused(VERSION - 1, &[batch(1, 0, (1, None), &[entry(1, 1, None)]).0]);
}

fn assert_refused(unknown: u32, batches: &[Vec<u8>]) {
    let files = segment(header(unknown), copy((0, None)), batches);
    let disk = MemDisk::holding(&files);
    let error = model::open(&disk, 4096).map(|_| ()).unwrap_err();
    let is_told = matches!(error, WalError::UnknownVersion { version, .. } if version == unknown);
    assert!(is_told, "{error}");
    assert!(error.to_string().contains(NAME));
    assert_eq!(disk.files(), files);
}

#[test]
fn records_that_contradict_each_other_are_damage_with_its_place() {
    let cases: [(&[Vec<u8>], &str); 18] = [
        (&[entry(1, 2, None)], "entry 2 leaves a gap: the newest entry is 0"),
        (&[entry(1, 0, None)], "entry 0 is not above 0, where the log begins"),
        (&[base(5, 1), entry(1, 5, None)], "entry 5 is not above 5, where the log begins"),
        (&[base(5, 1), entry(1, 7, None)], "entry 7 leaves a gap: the newest entry is 5"),
        (&[base(5, 2), entry(1, 6, None)], "entry 6 has term 1, below term 2 of entry 5"),
        (&[entry(2, 1, None), entry(1, 2, None)], "entry 2 has term 1, below term 2 of entry 1"),
        (&[record(0, b"")], "its type is unknown"),
        (&[record(4, b"")], "its type is unknown"),
        (&[next_entry(None)], "a next entry without the one before it"),
        (&[base(0, 0), next_entry(None)], "a next entry without the one before it"),
        (&[entry(1, 1, None), base(1, 1), next_entry(None)], "a next entry without the one"),
        (&[entry(1, 1, None), record(3, b"")], "kind of an entry"),
        (&[entry(1, 1, None), record(3, &[0; 2])], "no-op's length"),
        (&[record(1, &[0; 16])], "kind of an entry"),
        (&[record(1, &[7; 17])], "kind of an entry"),
        (&[record(2, &[0; 17])], "base's length"),
        (&[record(2, &[0; 15])], "position's term"),
        (&[vec![1, 0, 0, 0, 9, 1, 2, 3]], "record length"),
    ];
    for (records, expected) in cases {
        let (sound, crc) = batch(1, 0, (1, None), &[]);
        let (bad, _) = batch(2, crc, (1, None), records);
        let files = segment(header(VERSION), copy((1, None)), &[sound.clone(), bad]);
        let text = damage(&files);
        assert!(text.contains(expected), "{text}");
        let before: usize = records[..records.len() - 1].iter().map(Vec::len).sum();
        let place = format!("at byte {}:", 1024 + sound.len() + 45 + before);
        assert!(text.contains(&place), "{text}");
        let recovered = recover(&files);
        assert_eq!((recovered.entries, recovered.hard_state), (vec![], hard_state(1, None)));
    }
}

#[test]
fn hard_states_that_contradict_each_other_are_damage() {
    let cases = [
        ((3, None), (2, None), "term 2 follows term 3"),
        ((3, Some(1)), (3, Some(2)), "the vote of term 3 went to node 1"),
        ((3, Some(1)), (3, None), "the vote of term 3 went to node 1"),
    ];
    for (before, after, expected) in cases {
        let (first, crc) = batch(1, 0, before, &[entry(1, 1, None)]);
        let (second, _) = batch(2, crc, after, &[entry(1, 2, None)]);
        let recovered = recover(&segment(header(VERSION), copy(after), &[first, second]));
        assert!(recovered.damaged.unwrap().contains(expected));
        assert_eq!(recovered.entries, vec![noop(1, 1)], "nothing of a bad batch is taken");
        assert_eq!(recovered.hard_state, hard_state(before.0, before.1));
    }
}

#[test]
fn batches_that_do_not_follow_each_other_are_damage() {
    let (first, crc) = batch(1, 0, (1, None), &[entry(1, 1, None)]);
    let (again, _) = batch(1, crc, (1, None), &[entry(1, 2, None)]);
    let (skipping, _) = batch(3, crc, (1, None), &[entry(1, 2, None)]);
    let (unchained, _) = batch(2, crc ^ 1, (1, None), &[entry(1, 2, None)]);
    let cases = [
        (again, "batch 1 is here, where batch 2 should be"),
        (skipping, "batch 3 is here, where batch 2 should be"),
        (unchained, "batch 2 does not follow the batch before it"),
    ];
    for (second, expected) in cases {
        let text = damage(&segment(header(VERSION), copy((1, None)), &[first.clone(), second]));
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn an_impossible_batch_length_is_never_believed() {
    let (mut huge, _) = batch(1, 0, (1, None), &[entry(1, 1, None)]);
    for (length, is_torn) in
        [(4096_u32, false), (1 << 30, false), ((1 << 30) + 1, true), (u32::MAX, true)]
    {
        huge[4..8].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c_append(SALT, &huge[..41]);
        huge[41..45].copy_from_slice(&crc.to_be_bytes());
        let files = segment(header(VERSION), copy((1, None)), std::slice::from_ref(&huge));
        if is_torn {
            let recovered = recover(&files);
            assert_eq!((recovered.entries, recovered.damaged), (vec![], None));
            assert!(recovered.torn_bytes > 0);
        } else {
            let text = damage(&files);
            assert!(text.contains("batch 1 is longer than its segment"), "{text}");
        }
    }
}

/// Sound sectors were all written by this node: at worst some for one last batch, and some for another.
#[test]
fn what_is_no_batch_in_sound_sectors_is_torn() {
    let (sound, crc) = batch(1, 0, (1, None), &[entry(1, 1, None)]);
    let (mut bad, _) = batch(2, crc, (1, None), &[entry(1, 2, Some(&[7; 700]))]);
    *bad.last_mut().unwrap() ^= 1;
    for rest in [bad, vec![1; 10]] {
        let recovered = recover(&segment(header(VERSION), copy((1, None)), &[sound.clone(), rest]));
        assert_eq!((recovered.entries, recovered.damaged), (vec![noop(1, 1)], None));
        assert!(recovered.torn_bytes > 0);
    }
}
