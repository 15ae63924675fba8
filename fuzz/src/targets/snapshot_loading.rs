//! A state machine from bytes that claim to be its snapshot, and from the files of a data folder that
//! has suffered: what is loaded is what was once frozen, or nothing is.
//!
//! Input: a byte. Odd: the payload's pieces, its head, and then its keys and values as they are, but
//! with the right count and digest, which no fuzzer guesses. Even: [`INJURIES`], 4 bytes each, to the
//! snapshots of a small folder, then choices for what is in it.

use super::commands::choose_payload;
use super::input::{Input, Pieces};
use crate::mem_disk::{Files, MemDisk};
use crate::model;
use raftkv::codec::{Reader, put_sized, put_u8, put_u64};
use raftkv::kv::{Command, Condition, Expiry, Loader, Machine, TimedOp, WriteOp};
use raftkv::payload::put_membership;
use raftkv::raft::{Entry, Index, Membership, Payload, Position};
use raftkv::wal::{Recovered, SnapshotKind, Wal, WalError};

const INJURIES: usize = 2;
const SEGMENT_BYTES: u64 = 1024;
/// Entries of a folder: enough for two snapshots, and some to follow them.
const ENTRIES_MAX: u8 = 24;

pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    if input.byte() % 2 == 1 {
        load_claimed(&mut input);
    } else {
        load_injured(&mut input);
    }
}

/// Whatever is believed is what a snapshot of it says again, byte for byte: so nothing was made up, and
/// no two snapshots mean the same.
fn load_claimed(input: &mut Input<'_>) {
    let pieces = Pieces::choose(input);
    let honest = !input.byte().is_multiple_of(4);
    let sessions = input.blob();
    let pairs = input.rest();
    let (keys, digest) = if honest { summary(pairs) } else { (1, 7) };
    let mut payload = Vec::new();
    put_u8(&mut payload, 3);
    put_u64(&mut payload, 9);
    put_u64(&mut payload, 1_000);
    put_u64(&mut payload, keys);
    put_u64(&mut payload, digest);
    put_sized(&mut payload, |out| put_membership(out, &Membership::default()));
    payload.extend_from_slice(sessions);
    payload.extend_from_slice(pairs);
    if let Some(machine) = load(pieces.of(&payload)) {
        assert_eq!(machine.applied(), 9);
        assert!(freeze(machine, 50) == payload, "another snapshot of the same state");
    }
}

/// The number of the keys that can be read, and the digest of them, their values and their times.
fn summary(pairs: &[u8]) -> (u64, u64) {
    let mut machine = Machine::default();
    let mut reader = Reader::new(pairs);
    while let (Ok(key), Ok(_modified), Ok(expires_at), Ok(value)) =
        (reader.blob("key"), reader.u64("index"), reader.i64("time"), reader.blob("value"))
    {
        let expiry = if expires_at == 0 { Expiry::Never } else { Expiry::At(expires_at) };
        let op = TimedOp::Set { key, value, condition: Condition::Always, get: false, expiry };
        let put = Command::Write { request: None, op: WriteOp::Timed { stamp: 0, op } };
        let payload = Payload::Command(put.to_bytes().into());
        let index = machine.applied() + 1;
        machine.apply(&Entry { term: 1, index, payload }).expect("it was just encoded");
    }
    (machine.store().len() as u64, machine.store().digest())
}

fn load<'p>(pieces: impl Iterator<Item = &'p [u8]>) -> Option<Machine> {
    let mut loader = Loader::default();
    for piece in pieces {
        loader.feed(piece).ok()?;
    }
    loader.finish().ok()
}

/// The snapshot of a state, taken in pieces of about this many bytes.
fn freeze(mut machine: Machine, piece_bytes: usize) -> Vec<u8> {
    machine.begin_snapshot();
    let mut payload = Vec::new();
    loop {
        let (piece, is_last) = machine.snapshot_piece(piece_bytes);
        payload.extend(piece);
        if is_last {
            return payload;
        }
    }
}

/// What a data folder was made to hold: the log, and the snapshot of the state after each of its
/// entries.
struct Past {
    entries: Vec<Entry>,
    payloads: Vec<Vec<u8>>,
}

fn load_injured(input: &mut Input<'_>) {
    let injuries = [(); INJURIES].map(|()| Injury::choose(input));
    let disk = MemDisk::default();
    let past = write(&disk, input);
    let sound = disk.files();
    let mut files = sound.clone();
    injuries.iter().for_each(|injury| injury.befall(&mut files));
    let disk = MemDisk::holding(&files);
    match model::open(&disk, SEGMENT_BYTES) {
        Ok((wal, recovered)) => check_recovered(&past, wal, recovered, files == sound),
        Err(
            WalError::Corrupt { .. } | WalError::Foreign { .. } | WalError::UnknownVersion { .. },
        ) => {
            assert_ne!(files, sound, "a sound folder is refused");
            assert_eq!(disk.files(), files, "a refused folder was changed");
        }
        Err(other) => panic!("{other}"),
    }
}

/// Writes a log, with snapshots at two of its entries and perhaps compacted behind the first of them.
fn write(disk: &MemDisk, input: &mut Input<'_>) -> Past {
    let choices = [(); 4].map(|()| input.byte());
    let count = Index::from(choices[0] % ENTRIES_MAX) + 2;
    let first = Index::from(choices[1]) % count + 1;
    let second = first + Index::from(choices[2]) % (count - first + 1);
    let (mut wal, _) = model::open(disk, SEGMENT_BYTES).expect("an empty folder");
    let mut machine = Machine::default();
    let mut past = Past { entries: Vec::new(), payloads: vec![freeze(Machine::default(), 50)] };
    wal.append_hard_state(model::hard_state(1, None));
    for index in 1..=count {
        let mut entry = Entry { term: 1, index, payload: choose_payload(input) };
        if machine.apply(&entry).is_err() {
            entry.payload = Payload::Noop;
            machine.apply(&entry).expect("a no-op is always applied");
        }
        wal.append_entries(std::slice::from_ref(&entry));
        wal.sync().expect("the disk is sound");
        past.entries.push(entry);
        past.payloads.push(payload_of(&mut machine));
    }
    for (at, is_compacted) in [(first, false), (second, choices[3] % 2 == 1)] {
        let position = Position { index: at, term: 1 };
        wal.begin_snapshot(SnapshotKind::Own, position).expect("the disk is sound");
        let payload = &past.payloads[at as usize];
        wal.append_snapshot(SnapshotKind::Own, payload).expect("the disk is sound");
        wal.finish_snapshot(SnapshotKind::Own).expect("the disk is sound");
        if is_compacted {
            wal.compact(first).expect("the disk is sound");
        }
    }
    past
}

fn payload_of(machine: &mut Machine) -> Vec<u8> {
    machine.begin_snapshot();
    let (payload, is_last) = machine.snapshot_piece(usize::MAX);
    assert!(is_last, "one piece has room for everything");
    payload
}

/// What is handed out is the state at some index and the entries after it, and all of them unless it is
/// said that something is lost.
fn check_recovered(past: &Past, mut wal: Wal<MemDisk>, recovered: Recovered, is_sound: bool) {
    let Recovered { snapshot, base, entries, damaged, notes, .. } = recovered;
    let mut payload = past.payloads[0].clone();
    if let Some(file) = snapshot {
        assert_eq!(file.position, base);
        payload = wal.read_snapshot(base, 0, usize::MAX).expect("it was checked as a whole");
        assert!(payload == past.payloads[base.index as usize], "another state than was frozen");
        let machine = load(payload.chunks(31)).expect("what was frozen can be loaded");
        assert_eq!(machine.applied(), base.index);
    }
    let expected = past.entries.iter().skip(base.index as usize).take(entries.len());
    assert!(entries.iter().eq(expected), "other entries than were written");
    let upto = base.index + entries.len() as Index;
    let is_all = upto == past.entries.len() as Index;
    assert!(is_all || damaged.is_some(), "entries after {upto} are missing, and nobody says so");
    assert!(!is_sound || (damaged.is_none() && notes.is_empty()), "{damaged:?} {notes:?}");
    assert!(load(payload.chunks(1000)).is_some());
}

/// All of one size, so that changing one leaves the rest of an input as it was.
struct Injury {
    kind: u8,
    file: u8,
    at: u16,
}

impl Injury {
    fn choose(input: &mut Input<'_>) -> Self {
        Injury { kind: input.byte(), file: input.byte(), at: input.u16() }
    }

    fn befall(&self, files: &mut Files) {
        let names: Vec<String> =
            files.keys().filter(|name| name.starts_with("snapshot-")).cloned().collect();
        let Some(name) = names.get(usize::from(self.file) % names.len().max(1)) else { return };
        let bytes = files.get_mut(name).expect("a name in the list");
        let at = usize::from(self.at) % bytes.len().max(1);
        match self.kind % 8 {
            0 => {}
            1 => {
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (self.kind / 8 % 8))
            }
            2 => bytes.truncate(at),
            3 => bytes.resize(bytes.len() + at + 1, 0),
            4 => bytes.iter_mut().skip(at).take(512).for_each(|byte| *byte = 0),
            5 => drop(files.remove(name)),
            6 => {
                // Under the name of another one, or of one that was never taken.
                let copy = files[name].clone();
                let index = u64::from(self.at % 64);
                files.insert(format!("snapshot-{index:016x}-{:016x}", 1), copy);
            }
            _ => {
                let copy = files[name].clone();
                let kinds = ["snapshot-own.tmp", "snapshot-incoming.tmp", "snapshot.corrupt"];
                files.insert(kinds[at % kinds.len()].to_owned(), copy);
            }
        }
    }
}
