//! The committed log, and the state that it makes: applied in one go by a state machine that never restarts
//! and never sees a snapshot. Every replica has to have the same state at the same index, however it got it.

use raftkv::kv::Machine;
use raftkv::raft::{Entry, Index, Position, Term};
use std::collections::BTreeMap;
use std::rc::Rc;

pub struct Reference {
    entries: Vec<Entry>,
    /// By index, from 1.
    terms: Vec<Term>,
    machine: Machine,
    /// By index, from 0.
    digests: Vec<u64>,
    /// Applies the log once more, from one snapshot to the next.
    snapshotter: Machine,
    snapshots: BTreeMap<Index, Rc<[u8]>>,
}

impl Default for Reference {
    fn default() -> Self {
        let machine = Machine::default();
        Reference {
            entries: Vec::new(),
            terms: Vec::new(),
            digests: vec![machine.store().digest()],
            machine,
            snapshotter: Machine::default(),
            snapshots: BTreeMap::new(),
        }
    }
}

impl Reference {
    pub fn apply(&mut self, entry: &Entry) {
        self.machine.apply(entry).expect("what is committed can be read");
        self.digests.push(self.machine.store().digest());
        self.terms.push(entry.term);
        self.entries.push(entry.clone());
    }

    pub fn entries_up_to(&self, index: Index) -> &[Entry] {
        &self.entries[..index as usize]
    }

    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Whether it is that of a committed entry, or before the first one.
    pub fn has(&self, position: Position) -> bool {
        match position.index.checked_sub(1) {
            None => position.term == 0,
            Some(place) => self.terms.get(place as usize) == Some(&position.term),
        }
    }

    pub fn digest(&self, index: Index) -> Option<u64> {
        self.digests.get(index as usize).copied()
    }

    /// The bytes of a snapshot at a committed index: every replica's are the same.
    pub fn snapshot(&mut self, index: Index) -> Rc<[u8]> {
        if let Some(known) = self.snapshots.get(&index) {
            return known.clone();
        }
        if self.snapshotter.applied() > index {
            self.snapshotter = Machine::default();
        }
        for entry in &self.entries[self.snapshotter.applied() as usize..index as usize] {
            self.snapshotter.apply(entry).expect("it was applied before");
        }
        self.snapshotter.begin_snapshot();
        let mut bytes = Vec::new();
        loop {
            let (piece, is_last) = self.snapshotter.snapshot_piece(usize::MAX);
            bytes.extend_from_slice(&piece);
            if is_last {
                break;
            }
        }
        self.snapshots.entry(index).or_insert(bytes.into()).clone()
    }
}
