//! The log in memory: what Raft reads. The write-ahead log is what it is rebuilt from.
//!
//! Invariants:
//! - indexes are contiguous, starting right after `before.index` (0 until logs are compacted);
//! - terms never decrease along the log, and no entry has term 0;
//! - `durable_index <= last_index`: entries up to it are known to be on this node's disk;
//! - `unwritten_from <= last_index + 1`: entries from it on were not handed to the disk yet.

use super::{Entry, Index, Term};
use std::collections::VecDeque;

#[derive(Debug)]
pub struct Log {
    before: Position,
    entries: VecDeque<Entry>,
    durable_index: Index,
    unwritten_from: Index,
    /// Of the entries from there on.
    unwritten_bytes: usize,
}

/// The place of one entry: what the paper's consistency check compares (section 5.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub index: Index,
    pub term: Term,
}

impl Log {
    /// A log as it was read from disk, beginning after `before`: all of it durable.
    pub fn new(before: Position, entries: Vec<Entry>) -> Self {
        let mut log = Log {
            before,
            entries: VecDeque::with_capacity(entries.len()),
            durable_index: before.index,
            unwritten_from: before.index + 1,
            unwritten_bytes: 0,
        };
        for entry in entries {
            log.append(entry);
        }
        log.durable_index = log.last().index;
        log.unwritten_from = log.durable_index + 1;
        log.unwritten_bytes = 0;
        log
    }

    pub fn last(&self) -> Position {
        self.entries
            .back()
            .map_or(self.before, |entry| Position { index: entry.index, term: entry.term })
    }

    /// The last entry that is compacted; 0 if none is.
    pub fn before(&self) -> Position {
        self.before
    }

    /// Forgets the entries up to `upto`, which must be one of them.
    pub fn compact(&mut self, upto: Position) {
        if upto.index <= self.before.index {
            return;
        }
        assert_eq!(self.term_at(upto.index), Some(upto.term), "what is compacted is in the log");
        self.entries.drain(..(upto.index - self.before.index) as usize);
        self.before = upto;
    }

    /// A snapshot at `position` has become the state. Keeps what follows it, if the log agrees with it;
    /// else the log is void and begins anew after it. Returns whether it is void.
    pub fn install(&mut self, position: Position) -> bool {
        if self.term_at(position.index) == Some(position.term) {
            self.compact(position);
            return false;
        }
        *self = Log::new(position, Vec::new());
        true
    }

    pub fn durable_index(&self) -> Index {
        self.durable_index
    }

    /// The term of the entry at `index`, also of the one just before the log; `None` outside of it.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.before.index {
            return Some(self.before.term);
        }
        self.get(index).map(|entry| entry.term)
    }

    pub fn get(&self, index: Index) -> Option<&Entry> {
        let offset = index.checked_sub(self.before.index + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    pub fn append(&mut self, entry: Entry) {
        let last = self.last();
        assert_eq!(entry.index, last.index + 1, "the log has no gaps");
        assert!(entry.term >= last.term, "terms never decrease along the log");
        assert!(entry.term > 0, "no entry belongs to term 0");
        self.unwritten_bytes += entry.cost_bytes();
        self.entries.push_back(entry);
    }

    /// Drops the entry at `index` and everything after it.
    pub fn truncate_from(&mut self, index: Index) {
        assert!(index > self.before.index, "what is compacted cannot be truncated");
        let keep = (index - self.before.index - 1) as usize;
        self.entries.truncate(keep);
        self.durable_index = self.durable_index.min(index - 1);
        self.unwritten_from = self.unwritten_from.min(index);
        self.unwritten_bytes = self.iter_from(self.unwritten_from).map(Entry::cost_bytes).sum();
    }

    /// Entries from `first` on, at least one if there is one, then as many as `bytes_max` allows.
    pub fn slice(&self, first: Index, bytes_max: usize) -> Vec<Entry> {
        let mut bytes = 0;
        self.iter_from(first)
            .take_while(|entry| {
                let is_first = bytes == 0;
                bytes += entry.cost_bytes();
                is_first || bytes <= bytes_max
            })
            .cloned()
            .collect()
    }

    pub fn iter_from(&self, first: Index) -> impl Iterator<Item = &Entry> {
        assert!(first > self.before.index, "entries before {first} are compacted");
        let skip = (first - self.before.index - 1) as usize;
        self.entries.range(skip.min(self.entries.len())..)
    }

    /// The newest position, at or before `index`, whose term is not above `term`: the last place where a
    /// log ending in (`index`, `term`) can agree with this one. Skips whole terms (section 5.3).
    pub fn last_possible_match(&self, index: Index, term: Term) -> Position {
        let mut index = index.min(self.last().index);
        while index > self.before.index {
            let here = self.get(index).expect("between the ends of the log").term;
            if here <= term {
                return Position { index, term: here };
            }
            index -= 1;
        }
        self.before
    }

    /// Hands out what the disk has not been given yet.
    pub fn take_unwritten(&mut self) -> Vec<Entry> {
        let first = self.unwritten_from;
        self.unwritten_from = self.last().index + 1;
        self.unwritten_bytes = 0;
        self.iter_from(first).cloned().collect()
    }

    /// The newest entry that the disk has been given.
    pub fn last_written(&self) -> Position {
        let index = self.unwritten_from - 1;
        Position {
            index,
            term: self.term_at(index).expect("what is written is in the log, or just before it"),
        }
    }

    pub fn unwritten_bytes(&self) -> usize {
        self.unwritten_bytes
    }

    pub fn has_unwritten(&self) -> bool {
        self.unwritten_from <= self.last().index
    }

    /// The disk holds the log up to `position` now, unless that entry was replaced meanwhile: then its
    /// successor at the same index is not durable yet.
    pub fn mark_durable(&mut self, position: Position) {
        if self.term_at(position.index) == Some(position.term) {
            self.durable_index = self.durable_index.max(position.index);
        }
    }
}
