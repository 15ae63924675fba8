//! What an entry costs when it is applied: time, counted as *work*, and memory. All of it is known before the entry is
//! proposed, so that no entry is ever committed that a node cannot apply.
//!
//! Most operations cost what their own bytes do. Two depend on the state, and are estimated from it, never too low.
//! An append to a long value copies it if somebody shares it, as a transaction does that may have to take it back. A
//! search looks at keys that it does not name.

use super::execute::INTEGER_BYTES_MAX;
use super::value::BUFFER_BYTES_MIN;
use super::{Command, RANGE_WORK_MAX, Range, ReadOp, Step, Store, TimedOp, Transaction, WriteOp};
use std::collections::BTreeSet;

/// A unit of work is about a nanosecond: so much an operation costs besides its bytes,
pub(super) const OP_WORK: u64 = 500;
/// so many bytes are hashed and copied in a unit,
pub(super) const BYTES_PER_WORK: u64 = 4;
/// and a step of a search is one.
const _: () = assert!(RANGE_WORK_MAX < u32::MAX as usize);

/// The most memory, in bytes, that an entry may need beside its own bytes and its answer: for copies of values that it
/// appends to. Also what one entry may move.
pub const ENTRY_COPIES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The most work of an entry: more than any transaction of short values and any search may take, and about 50 ms.
pub const ENTRY_WORK_MAX: u64 = 48_000_000;

/// How long a key is, in bytes, for the estimate of a search.
const TYPICAL_KEY_BYTES: usize = 64;

/// What an entry needs, at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    pub work: u64,
    /// Bytes of values that it copies.
    pub copies: usize,
}

impl Needs {
    fn op(bytes: usize) -> Self {
        Needs { work: OP_WORK + bytes as u64 / BYTES_PER_WORK, copies: 0 }
    }

    fn ops(count: usize, bytes: usize) -> Self {
        Needs { work: count as u64 * OP_WORK + bytes as u64 / BYTES_PER_WORK, copies: 0 }
    }

    fn copy(bytes: usize) -> Self {
        Needs { work: 2 * bytes as u64 / BYTES_PER_WORK, copies: bytes }
    }

    fn add(&mut self, other: Needs) {
        self.work += other.work;
        self.copies += other.copies;
    }
}

impl Command<'_> {
    /// On this state. What is applied before it may add so much as its own bytes have.
    pub fn needs(&self, store: &Store) -> Needs {
        match self {
            Command::OpenSession => Needs::op(0),
            Command::Write { op, .. } => op.needs(store),
        }
    }
}

impl WriteOp<'_> {
    fn needs(&self, store: &Store) -> Needs {
        match self {
            WriteOp::Append { key, .. } => {
                let mut needs = self.own_needs();
                needs.add(Needs::copy(store.append_copies(key)));
                needs
            }
            WriteOp::Timed { op: TimedOp::Transaction(transaction), .. } => {
                transaction.needs(store)
            }
            _ => self.own_needs(),
        }
    }

    /// Whatever the state is.
    fn own_needs(&self) -> Needs {
        match self {
            WriteOp::PutMany { pairs } => Needs::ops(pairs.count() / 2, pairs.bytes()),
            WriteOp::DeleteMany { keys } => Needs::ops(keys.count(), keys.bytes()),
            WriteOp::Timed { op: TimedOp::RemoveExpired { keys_max }, .. } => {
                Needs::ops(*keys_max as usize, 0)
            }
            WriteOp::Increment { key, .. } => Needs::op(key.len() + INTEGER_BYTES_MAX),
            // A short value is copied as a whole.
            WriteOp::Append { key, value, .. } => {
                Needs::op(key.len() + value.len() + BUFFER_BYTES_MIN)
            }
            _ => Needs::op(self.key_bytes() + self.value_bytes()),
        }
    }
}

impl Transaction<'_> {
    fn needs(&self, store: &Store) -> Needs {
        let mut needs = Needs::ops(self.watched.count(), 0);
        let mut searched = 0;
        // The first append to each long value copies it, since the value from before is kept until the end.
        let mut appended = BTreeSet::new();
        for step in self.steps.iter() {
            match step {
                Step::Write(op) => {
                    needs.add(op.own_needs());
                    if let WriteOp::Append { key, .. } = op
                        && let Some(bytes) = store.value_bytes(key)
                        && bytes >= BUFFER_BYTES_MIN
                        && appended.insert(key)
                    {
                        needs.add(Needs::copy(bytes));
                    }
                }
                Step::Timed(op) => needs.add(WriteOp::Timed { stamp: 0, op }.own_needs()),
                Step::Read(op) => {
                    needs.add(Needs::ops(1 + op.keys(), 0));
                    searched += op.search_work(store);
                }
            }
        }
        // All searches of a transaction share this.
        needs.work += searched.min(RANGE_WORK_MAX) as u64;
        needs
    }
}

impl ReadOp {
    /// Steps that a search takes, at most.
    pub fn search_work(&self, store: &Store) -> usize {
        match self {
            ReadOp::Range(range) => range.search_work(store),
            _ => 0,
        }
    }
}

impl Range {
    fn search_work(&self, store: &Store) -> usize {
        let keys = match &self.pattern {
            None => store.len().min(self.keys_max as usize + 1),
            Some(_) => store.len(),
        };
        let pattern_bytes = self.pattern.as_ref().map_or(0, |pattern| pattern.len());
        let key_work = Range::KEY_STEPS + TYPICAL_KEY_BYTES * pattern_bytes;
        keys.saturating_mul(key_work).min(RANGE_WORK_MAX)
    }
}
