//! What a log should hold, and shorthands to write one.

use crate::mem_disk::{Files, MemDisk};
use raftkv::raft::{Entry, HardState, Index, NodeId, Payload, Position, Term};
use raftkv::wal::{Disk, Recovered, Wal, WalConfig, WalError};

pub fn config(segment_bytes: u64) -> WalConfig {
    WalConfig { segment_bytes, salt_seed: 7 }
}

pub fn command(term: Term, index: Index, bytes: &[u8]) -> Entry {
    Entry { term, index, payload: Payload::Command(bytes.into()) }
}

pub fn noop(term: Term, index: Index) -> Entry {
    Entry { term, index, payload: Payload::Noop }
}

pub fn position(index: Index, term: Term) -> Position {
    Position { index, term }
}

pub fn hard_state(term: Term, voted_for: Option<NodeId>) -> HardState {
    HardState { term, voted_for }
}

/// The segments among the files of a folder.
pub fn segments(files: &Files) -> Files {
    let is_segment = |name: &str| name.starts_with("wal-");
    files.iter().filter(|(name, _)| is_segment(name)).map(|(n, b)| (n.clone(), b.clone())).collect()
}

/// What goes into one batch.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub hard_state: Option<HardState>,
    pub entries: Vec<Entry>,
}

impl Batch {
    pub fn append_to<D: Disk>(&self, wal: &mut Wal<D>) {
        if let Some(hard_state) = self.hard_state {
            wal.append_hard_state(hard_state);
        }
        wal.append_entries(&self.entries);
    }
}

/// What recovery should return.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    pub hard_state: HardState,
    pub entries: Vec<Entry>,
}

impl Model {
    pub fn apply(&mut self, batch: &Batch) {
        self.hard_state = batch.hard_state.unwrap_or(self.hard_state);
        for entry in &batch.entries {
            self.entries.truncate(entry.index as usize - 1);
            self.entries.push(entry.clone());
        }
    }

    /// What was recovered of a log that is whole and without snapshots.
    pub fn of(recovered: &Recovered) -> Model {
        assert_eq!((&recovered.damaged, recovered.notes.len()), (&None, 0));
        assert_eq!((recovered.snapshot, recovered.base), (None, position(0, 0)));
        Model { hard_state: recovered.hard_state, entries: recovered.entries.clone() }
    }

    pub fn last_index(&self) -> Index {
        self.entries.len() as Index
    }

    /// A batch that may follow: some entries, at times over older ones, at times a new term or a vote.
    pub fn random_batch(&self, rng: &mut fastrand::Rng, most_bytes: usize) -> Batch {
        let mut batch = Batch::default();
        let mut term = self.hard_state.term.max(1);
        if rng.u8(..4) == 0 {
            term += rng.u64(1..3);
            batch.hard_state = Some(hard_state(term, rng.bool().then(|| rng.u64(..3))));
        }
        let count = rng.u64(u64::from(batch.hard_state.is_none())..4);
        let back = if rng.u8(..4) == 0 { rng.u64(..4).min(self.last_index()) } else { 0 };
        let first = self.last_index() + 1 - back;
        for index in first..first + count {
            let bytes: Vec<u8> = (0..rng.usize(..=most_bytes)).map(|_| rng.u8(..)).collect();
            batch.entries.push(if rng.u8(..8) == 0 {
                noop(term, index)
            } else {
                command(term, index, &bytes)
            });
        }
        batch
    }
}

pub fn open(disk: &MemDisk, segment_bytes: u64) -> Result<(Wal<MemDisk>, Recovered), WalError> {
    Wal::open(disk.clone(), config(segment_bytes))
}

/// Writes a log of these batches, and returns what it holds after each: first nothing, then one more
/// batch each time.
pub fn write(disk: &MemDisk, segment_bytes: u64, batches: &[Batch]) -> Vec<Model> {
    let (mut wal, recovered) = open(disk, segment_bytes).expect("the log opens");
    let mut model = Model::of(&recovered);
    let mut models = vec![model.clone()];
    for batch in batches {
        batch.append_to(&mut wal);
        wal.sync().expect("the disk is sound");
        model.apply(batch);
        models.push(model.clone());
    }
    models
}

/// A log with all there is: votes, entries replaced, no-ops, an empty command.
pub fn small_log() -> Vec<Batch> {
    let batch = |hard_state, entries| Batch { hard_state, entries };
    vec![
        batch(Some(hard_state(1, Some(2))), vec![]),
        batch(None, vec![noop(1, 1), command(1, 2, b"set a 1"), command(1, 3, b"set b 2")]),
        batch(None, vec![command(1, 4, &[0xa5; 182])]),
        batch(Some(hard_state(3, None)), vec![]),
        batch(Some(hard_state(3, Some(1))), vec![command(3, 3, b"set c 3"), command(3, 4, b"")]),
        batch(None, vec![command(3, 5, &[0x5a; 120])]),
        batch(None, vec![command(3, 6, b"incr counter"), command(3, 7, b"the last command")]),
    ]
}
