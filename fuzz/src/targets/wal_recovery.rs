//! The write-ahead log after whatever happened to its files: it recovers what was written up to some batch,
//! or refuses and changes nothing.
//!
//! Input: a byte. Odd: the rest is the first segment of a log. Even: [`INJURIES`], 6 bytes each, then choices for a
//! small log whose files suffer them. An injury never writes bytes of the fuzzer's choice: those could be a
//! forged batch with right checksums, which is no damage.

use super::input::Input;
use crate::mem_disk::{Files, MemDisk, SECTOR_BYTES};
use crate::model::{self, Batch, Model, command, hard_state, noop};
use raftkv::wal::{Recovered, Wal, WalError};
use std::ops::Range;

/// Three flipped bits in one batch are found for certain by its CRC32C, four are not.
const INJURIES: usize = 3;
/// How many zeros a batch may end with, in bytes: commands end with other bytes, and a vote is a number of 8.
const ENDING_ZEROS_MAX: usize = 16;
const FIRST_SEGMENT: &str = "wal-0000000000000001.log";
const SEGMENT_BYTES: u64 = 2048;

pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    if input.byte() % 2 == 1 {
        recover_segment(input.rest());
    } else {
        recover_injured(&mut input);
    }
}

fn recover_segment(bytes: &[u8]) {
    let files = Files::from([(FIRST_SEGMENT.to_owned(), bytes.to_vec())]);
    if let Some(found) = recover(&files, SEGMENT_BYTES) {
        assert!(found.entries.iter().zip(1..).all(|(entry, index)| entry.index == index));
        assert!(found.entries.is_sorted_by_key(|entry| entry.term));
    }
}

fn recover_injured(input: &mut Input<'_>) {
    let injuries = [(); INJURIES].map(|()| Injury::choose(input));
    let segment_bytes = 600 + 8 * u64::from(input.byte());
    let states = write(segment_bytes, input);
    let sound = &states.last().expect("the first state is that of an empty log").files;
    let mut files = sound.clone();
    injuries.iter().for_each(|injury| injury.befall(&mut files));
    let Some(found) = recover(&files, segment_bytes) else {
        assert_ne!(files, *sound, "a sound log is refused");
        return;
    };
    let upto = (0..states.len()).rev().find(|upto| is_held(&states[*upto..], &found));
    let upto = upto.unwrap_or_else(|| panic!("never written: {found:?}"));
    for (number, (before, after)) in states.iter().zip(&states[1..]).enumerate().skip(upto) {
        assert!(!is_intact(&before.files, &after.files, &files), "batch {} is cut off", number + 1);
    }
}

/// What the log held after some batch, and its files then.
struct State {
    model: Model,
    files: Files,
}

/// Whether the log held this in the first of these states. The copy of the hard state lies beside the
/// batches that change it: the vote may be there, and they gone.
fn is_held(states: &[State], found: &Model) -> bool {
    states[0].model.entries == found.entries
        && states.iter().any(|state| state.model.hard_state == found.hard_state)
}

/// Whether all that one batch wrote is there: it was written after everything before it was durable, so
/// whatever became of that, the batch may not be cut off. A batch of nothing wrote nothing.
fn is_intact(before: &Files, after: &Files, now: &Files) -> bool {
    before != after
        && after.iter().all(|(name, written)| {
            let range = changed(before.get(name).map_or(&[], Vec::as_slice), written);
            now.get(name).and_then(|now| now.get(range.clone())) == Some(&written[range])
        })
}

/// From the first byte that is new to the last. What a file had no bytes for was 0.
fn changed(before: &[u8], after: &[u8]) -> Range<usize> {
    let is_new = |at: &usize| before.get(*at).copied().unwrap_or(0) != after[*at];
    let Some(first) = (0..after.len()).find(is_new) else { return 0..0 };
    let last = (first..after.len()).rfind(is_new).unwrap_or(first);
    first..(last + 1 + ENDING_ZEROS_MAX).min(after.len())
}

/// Writes a few batches. The states are those before the first one and after each.
fn write(segment_bytes: u64, input: &mut Input<'_>) -> Vec<State> {
    let disk = MemDisk::default();
    let (mut wal, _) = model::open(&disk, segment_bytes).expect("an empty folder");
    let mut model = Model::default();
    let mut states = vec![State { model: model.clone(), files: disk.files() }];
    for _ in 0..input.byte() % 8 {
        let batch = choose_batch(&model, input);
        batch.append_to(&mut wal);
        wal.sync().expect("the disk is sound");
        model.apply(&batch);
        states.push(State { model: model.clone(), files: disk.files() });
    }
    states
}

/// A batch that may follow: a new term, a vote, entries, at times in the place of older ones.
fn choose_batch(model: &Model, input: &mut Input<'_>) -> Batch {
    let flags = input.byte();
    let has = |bit: u8| flags >> bit & 1 == 1;
    let mut batch = Batch::default();
    let mut term = model.hard_state.term;
    if has(0) || term == 0 {
        term += 1;
        batch.hard_state = Some(hard_state(term, has(1).then_some(u64::from(input.byte() % 3))));
    }
    let back = u64::from(flags >> 2 & 3).min(model.last_index());
    let first = model.last_index() + 1 - back;
    for index in (first..).take(usize::from(flags >> 4 & 3)) {
        let bytes = vec![flags | 1; 2 * usize::from(input.byte())];
        let is_noop = has(6) && index == first;
        batch.entries.push(if is_noop { noop(term, index) } else { command(term, index, &bytes) });
    }
    batch
}

/// All of one size, so that changing one leaves the rest of an input as it was.
struct Injury {
    kind: u8,
    file: u8,
    at: u16,
    /// What a bit, a length or a place is chosen by.
    more: [u8; 2],
}

impl Injury {
    fn choose(input: &mut Input<'_>) -> Self {
        Injury {
            kind: input.byte(),
            file: input.byte(),
            at: input.u16(),
            more: [input.byte(), input.byte()],
        }
    }

    fn befall(&self, files: &mut Files) {
        let Some(name) = file_name(files, self.file) else { return };
        let bytes = files.get_mut(&name).expect("a name in the list");
        let at = usize::from(self.at) % bytes.len().max(1);
        match self.kind % 8 {
            0 => {}
            1 => {
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (self.more[0] % 8))
            }
            2 => {
                let lost = usize::from(u16::from_be_bytes(self.more)) % (2 * SECTOR_BYTES);
                bytes.iter_mut().skip(at).take(lost).for_each(|byte| *byte = 0);
            }
            3 => bytes.truncate(at),
            4 => bytes.resize(bytes.len() + at, 0),
            5 => drop(files.remove(&name)),
            6 => self.misplace_sector(files, &name, at),
            _ => self.copy_file(files, &name),
        }
    }

    /// A write that went to the wrong place.
    fn misplace_sector(&self, files: &mut Files, from: &str, at: usize) {
        let mut sectors = files[from].chunks(SECTOR_BYTES).skip(at / SECTOR_BYTES);
        let Some(sector) = sectors.next().map(<[u8]>::to_vec) else { return };
        let Some(to) = file_name(files, self.more[0]) else { return };
        let bytes = files.get_mut(&to).expect("a name in the list");
        let place = bytes.chunks_exact_mut(sector.len()).nth(usize::from(self.more[1]));
        place.into_iter().for_each(|place| place.copy_from_slice(&sector));
    }

    /// Over another file of the log, or under a name that something else would have.
    fn copy_file(&self, files: &mut Files, from: &str) {
        let to = match self.more[0] {
            0 => "segment.tmp".to_owned(),
            number => format!("wal-{:016x}.log", number % 8),
        };
        files.insert(to, files[from].clone());
    }
}

fn file_name(files: &Files, nth: u8) -> Option<String> {
    files.keys().nth(usize::from(nth) % files.len().max(1)).cloned()
}

/// What is recovered, checked to be of use; `None` if the log is refused, checked to be left alone, or is
/// said to lack something, checked to be said again at the next start.
fn recover(files: &Files, segment_bytes: u64) -> Option<Model> {
    let disk = MemDisk::holding(files);
    match model::open(&disk, segment_bytes) {
        Ok((wal, recovered)) if recovered.damaged.is_some() => {
            drop(wal);
            let (_, again) = model::open(&disk, segment_bytes).expect("it was just recovered");
            assert!(again.damaged.is_some(), "the damage is forgotten");
            None
        }
        Ok((wal, recovered)) => {
            let Recovered { hard_state, ref entries, .. } = recovered;
            let found = Model { hard_state, entries: entries.clone() };
            check_goes_on(&disk, wal, &found, segment_bytes);
            Some(found)
        }
        Err(WalError::Corrupt { .. } | WalError::UnknownVersion { .. }) => {
            assert_eq!(disk.files(), *files, "a damaged log was changed");
            None
        }
        Err(other) => panic!("{other}"),
    }
}

/// A recovered log takes a batch, and holds it when it is opened again.
fn check_goes_on(disk: &MemDisk, mut wal: Wal<MemDisk>, found: &Model, segment_bytes: u64) {
    let newest_term = found.entries.last().map_or(1, |entry| entry.term);
    let term = newest_term.max(found.hard_state.term);
    let entries = vec![command(term, found.last_index() + 1, b"after the recovery")];
    let batch = Batch { hard_state: None, entries };
    batch.append_to(&mut wal);
    wal.sync().expect("the disk is sound");
    drop(wal);
    let mut expected = found.clone();
    expected.apply(&batch);
    let (_, again) = model::open(disk, segment_bytes).expect("it was just recovered");
    assert_eq!(Model { hard_state: again.hard_state, entries: again.entries }, expected);
    assert_eq!((again.damaged, again.torn_bytes), (None, 0));
}
