//! What the store has let go of and has not freed yet: giving back a gigabyte in one turn is a pause that costs a
//! leader its leadership.

use super::Value;
use super::contents::Contents;
use super::frozen::Frozen;

/// A value that is shorter, in bytes, is freed at once: that costs no more than writing it did.
const KEPT_BYTES_MIN: usize = 4 * 1024;

/// How much may be freed at a time.
#[derive(Debug, Clone, Copy)]
pub struct FreeBudget {
    items: usize,
    /// Of values.
    bytes: usize,
}

impl FreeBudget {
    pub const ALL: FreeBudget = FreeBudget { items: usize::MAX, bytes: usize::MAX };

    /// At most so many items, and about so many bytes: one item may go beyond them.
    pub fn of(items: usize, bytes: usize) -> Self {
        FreeBudget { items, bytes }
    }

    pub(super) fn has_some(&self) -> bool {
        self.items > 0 && self.bytes > 0
    }

    /// An item with so many bytes is freed.
    pub(super) fn take(&mut self, bytes: usize) {
        self.items -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

#[derive(Debug, Default)]
pub(super) struct Garbage {
    contents: Vec<Contents>,
    frozen: Vec<Frozen>,
    values: Vec<Value>,
    /// How many bytes the values have.
    value_bytes: usize,
}

impl Garbage {
    pub fn add_value(&mut self, value: Value) {
        if value.len() >= KEPT_BYTES_MIN {
            self.value_bytes += value.len();
            self.values.push(value);
        }
    }

    pub fn add_contents(&mut self, contents: Contents) {
        self.contents.push(contents);
    }

    pub fn add_frozen(&mut self, mut frozen: Frozen) {
        self.contents.extend(frozen.emptied.take());
        if frozen.old_items() > 0 {
            self.frozen.push(frozen);
        }
    }

    pub fn append(&mut self, mut other: Garbage) {
        self.contents.append(&mut other.contents);
        self.frozen.append(&mut other.frozen);
        self.values.append(&mut other.values);
        self.value_bytes += other.value_bytes;
    }

    /// What was added last, if nothing was freed since.
    pub fn take_back_contents(&mut self) -> Option<Contents> {
        self.contents.pop()
    }

    pub fn free_some(&mut self, mut budget: FreeBudget) {
        while budget.has_some()
            && let Some(value) = self.values.pop()
        {
            self.value_bytes -= value.len();
            budget.take(value.len());
        }
        while let Some(contents) = self.contents.last_mut() {
            contents.drop_some(&mut budget);
            if !contents.is_dropped() {
                return;
            }
            self.contents.pop();
        }
        while let Some(frozen) = self.frozen.last_mut() {
            frozen.drop_some(&mut budget);
            if frozen.old_items() > 0 {
                return;
            }
            self.frozen.pop();
        }
    }

    /// How many items are not free yet.
    pub fn items(&self) -> usize {
        let contents = self.contents.iter().map(|contents| contents.len() + contents.expiring());
        let frozen = self.frozen.iter().map(Frozen::old_items);
        contents.chain(frozen).sum::<usize>() + self.values.len()
    }

    /// Of values and flushed contents that are not free yet.
    pub fn bytes(&self) -> usize {
        self.contents.iter().map(|contents| contents.bytes).sum::<usize>() + self.value_bytes
    }
}
