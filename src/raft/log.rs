//! The log as Raft sees it: its newest entries are in memory, and of those before them, which only a follower
//! that lags can still need, only the terms are. The write-ahead log has all of them.
//!
//! Invariants:
//! - indexes are contiguous, starting right after `before.index` (0 until logs are compacted);
//! - entries after `evicted.index` are in memory; `before.index <= evicted.index <= durable_index`;
//! - terms never decrease along the log, and no entry has term 0;
//! - `durable_index <= last_index`: entries up to it are known to be on this node's disk;
//! - `unwritten_from <= last_index + 1`: entries from it on were not handed to the disk yet.

use super::{Entry, Index, Term};
use std::collections::VecDeque;

/// Room for so many entries is kept; what is far more than that and is needed is given back.
const ROOM_MIN: usize = 16 * 1024;

#[derive(Debug)]
pub struct Log {
    before: Position,
    /// The newest entry that only the disk has; `before` if there is none.
    evicted: Position,
    /// The first index of each term from `before` to `evicted`, less those that begin before that.
    evicted_terms: VecDeque<Position>,
    entries: VecDeque<Entry>,
    /// Of the entries in memory.
    bytes: usize,
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
            evicted: before,
            evicted_terms: VecDeque::new(),
            entries: VecDeque::with_capacity(entries.len()),
            bytes: 0,
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
            .map_or(self.evicted, |entry| Position { index: entry.index, term: entry.term })
    }

    /// The last entry that is compacted; 0 if none is.
    pub fn before(&self) -> Position {
        self.before
    }

    /// The newest entry that only the disk has; where the log begins if there is none.
    pub fn evicted(&self) -> Position {
        self.evicted
    }

    /// Forgets the entries up to `upto`, which must be one of them.
    pub fn compact(&mut self, upto: Position) {
        if upto.index <= self.before.index {
            return;
        }
        assert_eq!(self.term_at(upto.index), Some(upto.term), "what is compacted is in the log");
        let in_memory = upto.index.saturating_sub(self.evicted.index) as usize;
        self.drop_first(in_memory);
        self.before = upto;
        self.evicted = self.evicted.max(upto);
        while self.evicted_terms.front().is_some_and(|first| first.index <= upto.index) {
            self.evicted_terms.pop_front();
        }
    }

    /// Drops the oldest entries up to `upto` from memory, which the disk has and this node will not read again:
    /// `entries_max` of them, and only as long as there are more than `bytes_kept`.
    pub fn evict(&mut self, upto: Index, bytes_kept: usize, entries_max: usize) {
        assert!(upto <= self.durable_index, "what is evicted is on disk");
        let mut excess = self.bytes.saturating_sub(bytes_kept);
        let mut count = 0;
        while let Some(entry) = self.entries.get(count)
            && excess > 0
            && count < entries_max
            && entry.index <= upto
        {
            if entry.term > self.evicted.term {
                self.evicted_terms.push_back(Position { index: entry.index, term: entry.term });
            }
            self.evicted = Position { index: entry.index, term: entry.term };
            excess = excess.saturating_sub(entry.cost_bytes());
            count += 1;
        }
        self.drop_first(count);
    }

    fn drop_first(&mut self, count: usize) {
        self.bytes -= self.entries.drain(..count).map(|entry| entry.cost_bytes()).sum::<usize>();
        // After a start there are as many as the disk had.
        let wanted = ROOM_MIN.max(self.entries.len() * 2);
        if wanted < self.entries.capacity() / 4 {
            self.entries.shrink_to(wanted);
        }
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
        if self.before.index < index && index <= self.evicted.index {
            return Some(self.evicted_term_at(index).term);
        }
        self.get(index).map(|entry| entry.term)
    }

    /// Of an entry that only the disk has: its term, and where in the log that begins.
    fn evicted_term_at(&self, index: Index) -> Position {
        let after = self.evicted_terms.partition_point(|first| first.index <= index);
        let began = after.checked_sub(1).map(|at| self.evicted_terms[at]);
        began.unwrap_or(Position { index: self.before.index + 1, term: self.before.term })
    }

    /// An entry that is in memory.
    pub fn get(&self, index: Index) -> Option<&Entry> {
        let offset = index.checked_sub(self.evicted.index + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    pub fn append(&mut self, entry: Entry) {
        let last = self.last();
        assert_eq!(entry.index, last.index + 1, "the log has no gaps");
        assert!(entry.term >= last.term, "terms never decrease along the log");
        assert!(entry.term > 0, "no entry belongs to term 0");
        self.unwritten_bytes += entry.cost_bytes();
        self.bytes += entry.cost_bytes();
        self.entries.push_back(entry);
    }

    /// Drops the entry at `index` and everything after it.
    pub fn truncate_from(&mut self, index: Index) {
        assert!(index > self.evicted.index, "what only the disk has is committed");
        let keep = (index - self.evicted.index - 1) as usize;
        let dropped = self.entries.drain(keep.min(self.entries.len())..);
        self.bytes -= dropped.map(|entry| entry.cost_bytes()).sum::<usize>();
        self.durable_index = self.durable_index.min(index - 1);
        self.unwritten_from = self.unwritten_from.min(index);
        self.unwritten_bytes = self.iter_from(self.unwritten_from).map(Entry::cost_bytes).sum();
    }

    /// Entries from `first` on, at least one if there is one, then as many as `bytes_max` allows.
    pub fn slice(&self, first: Index, bytes_max: usize) -> Vec<Entry> {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let is_first = bytes == 0;
            bytes += entry.cost_bytes();
            is_first || bytes <= bytes_max
        };
        // Counted first, so that there is room for all of them at once.
        let count = self.iter_from(first).take_while(fits).count();
        let mut entries = Vec::with_capacity(count);
        entries.extend(self.iter_from(first).take(count).cloned());
        entries
    }

    pub fn iter_from(&self, first: Index) -> impl Iterator<Item = &Entry> {
        assert!(first > self.evicted.index, "entry {first} is not in memory any more");
        let skip = (first - self.evicted.index - 1) as usize;
        self.entries.range(skip.min(self.entries.len())..)
    }

    /// The newest position, at or before `index`, whose term is not above `term`: the last place where a
    /// log ending in (`index`, `term`) can agree with this one. Skips whole terms (section 5.3).
    pub fn last_possible_match(&self, index: Index, term: Term) -> Position {
        let mut index = index.min(self.last().index);
        while index > self.evicted.index {
            let here = self.get(index).expect("between the ends of the log").term;
            if here <= term {
                return Position { index, term: here };
            }
            index -= 1;
        }
        while index > self.before.index {
            let Position { index: first, term: here } = self.evicted_term_at(index);
            if here <= term {
                return Position { index, term: here };
            }
            index = first - 1;
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
