//! The newest changes of the store, in the order of the log: what a change stream is fed from.
//!
//! Only effects are kept. A compare-and-set that found another value, the removal of a key that does not
//! exist, or a retry leave none. Each change belongs to the log index that made it, and the changes of
//! one index are kept or forgotten together, so that whoever has seen an index can go on at the next
//! one. It is filled by applying the log, so every node has it; it is no part of a snapshot: it begins
//! anew after one, and says so.

use super::Key;
use crate::raft::Index;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

/// The most changes that are kept.
pub const HISTORY_CHANGES_MAX: usize = 65_536;
/// The most memory for them, in bytes. A change that is longer is kept alone; several of one index that
/// are longer together are not kept at all.
pub const HISTORY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a change takes besides its key and value, in bytes.
const CHANGE_BYTES: usize = 96;

/// What became of a key, or of all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Set {
        key: Key,
        value: Rc<[u8]>,
    },
    Deleted {
        key: Key,
    },
    /// There are no keys any more.
    Flushed,
}

impl Change {
    /// Whether it is of a key that begins so; the end of all keys is of every key.
    pub fn concerns(&self, prefix: &[u8]) -> bool {
        match self {
            Change::Set { key, .. } | Change::Deleted { key } => key.starts_with(prefix),
            Change::Flushed => true,
        }
    }

    /// About how much memory it takes, or how long it is in an answer, in bytes; never too little.
    pub fn cost_bytes(&self) -> usize {
        CHANGE_BYTES
            + match self {
                Change::Set { key, value } => key.len() + value.len(),
                Change::Deleted { key } => key.len(),
                Change::Flushed => 0,
            }
    }
}

/// A bounded ring of changes.
#[derive(Default)]
pub struct History {
    changes: VecDeque<(Index, Change)>,
    bytes: usize,
    /// Everything from this index on is here.
    first: Index,
    /// The entry that is being applied. 0: none, and nothing is recorded.
    current: Index,
}

/// The changes of one index, at least one.
#[derive(Debug, Clone)]
pub struct Batch<'a> {
    pub index: Index,
    history: &'a History,
    places: Range<usize>,
}

/// Some of the changes that were asked for are forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Everything from this index on is still here.
    pub first: Index,
}

impl History {
    /// Everything from this index on is here.
    pub fn first(&self) -> Index {
        self.first
    }

    pub fn len(&self) -> usize {
        self.changes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Memory of what is kept, in bytes; never too little.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The changes of `from` and later indices, in order.
    pub fn since(&self, from: Index) -> Result<impl Iterator<Item = Batch<'_>>, Compacted> {
        if from < self.first {
            return Err(Compacted { first: self.first });
        }
        let mut at = self.changes.partition_point(|(index, _)| *index < from);
        Ok(std::iter::from_fn(move || {
            let (index, _) = *self.changes.get(at)?;
            let same = self.changes.range(at..).take_while(|(other, _)| *other == index).count();
            let places = at..at + same;
            at += same;
            Some(Batch { index, history: self, places })
        }))
    }

    /// What follows comes from this state on.
    pub(super) fn start_after(&mut self, applied: Index) {
        *self = History { first: applied + 1, ..History::default() };
    }

    /// What follows belongs to the entry at `index`.
    pub(super) fn begin(&mut self, index: Index) {
        self.current = index;
    }

    pub(super) fn record(&mut self, change: Change) {
        // Outside of any entry (a snapshot is being loaded), or the index has too many changes.
        if self.current == 0 || self.first > self.current {
            return;
        }
        self.bytes += change.cost_bytes();
        self.changes.push_back((self.current, change));
        while self.changes.len() > HISTORY_CHANGES_MAX || self.bytes > HISTORY_BYTES_MAX {
            let oldest = self.changes.front().map_or(self.current, |(index, _)| *index);
            if oldest == self.current && self.changes.len() == 1 {
                return;
            }
            self.forget(oldest);
        }
    }

    /// The entry that is being applied changes nothing after all, and what is done to undo it is no change.
    pub(super) fn take_back(&mut self) {
        while self.changes.back().is_some_and(|(index, _)| *index == self.current) {
            let (_, change) = self.changes.pop_back().expect("it was just there");
            self.bytes -= change.cost_bytes();
        }
        self.current = 0;
    }

    fn forget(&mut self, index: Index) {
        while self.changes.front().is_some_and(|(oldest, _)| *oldest == index) {
            let (_, change) = self.changes.pop_front().expect("it was just there");
            self.bytes -= change.cost_bytes();
        }
        self.first = index + 1;
    }
}

/// Without its contents: it is no part of the state, and of two equal states one may remember more.
impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").finish_non_exhaustive()
    }
}

impl<'a> Batch<'a> {
    pub fn changes(&self) -> impl Iterator<Item = &'a Change> + use<'a> {
        self.history.changes.range(self.places.clone()).map(|(_, change)| change)
    }
}
