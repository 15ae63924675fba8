//! How large the store is, and by how much a command can make it larger: what `--store-bytes-max` is held against.

use super::execute::{INTEGER_BYTES_MAX, parse_integer};
use super::{Command, Request, Step, Store, TimedOp, WriteOp};

/// What an item takes besides its key and value, in bytes. It has places in the list, the order, the hints and among
/// those that go, an index and a digest, and the allocator adds something. 180 to 280 were measured.
pub const ITEM_BYTES: usize = 256;

impl Store {
    /// Memory of all keys and values with what belongs to them, in bytes. Not in it are what a snapshot keeps while it
    /// is taken, sessions, and the newest changes.
    pub fn stored_bytes(&self) -> usize {
        self.bytes() + self.len() * ITEM_BYTES
    }

    /// By how much a value of this length makes the store larger.
    fn growth_by(&self, key: &[u8], value_bytes: usize) -> usize {
        match self.value_bytes(key) {
            Some(before) => value_bytes.saturating_sub(before),
            None => ITEM_BYTES + key.len() + value_bytes,
        }
    }

    fn growth_by_number(&self, key: &[u8], delta: i64) -> usize {
        let sum = match self.item(key) {
            Some(item) => parse_integer(&item.value).and_then(|number| number.checked_add(delta)),
            None => Some(delta),
        };
        // What is no number is refused when it is carried out.
        let digits = sum.map_or(0, |sum| sum.to_string().len().min(INTEGER_BYTES_MAX));
        self.growth_by(key, digits)
    }
}

impl WriteOp<'_> {
    /// By how much the operation makes the store larger if its condition holds, at most and as the store is now.
    pub fn growth_bytes(&self, store: &Store) -> usize {
        match self {
            WriteOp::Put { key, value }
            | WriteOp::Set { key, value, .. }
            | WriteOp::CompareAndSet { key, value, .. } => store.growth_by(key, value.len()),
            WriteOp::PutMany { pairs } => {
                pairs.pairs().map(|(key, value)| store.growth_by(key, value.len())).sum()
            }
            WriteOp::Append { key, value, .. } => {
                let before = store.value_bytes(key).unwrap_or(0);
                store.growth_by(key, before + value.len())
            }
            WriteOp::Increment { key, delta } => store.growth_by_number(key, *delta),
            WriteOp::Timed { op, .. } => op.growth_bytes(store),
            WriteOp::Delete { .. }
            | WriteOp::DeleteMany { .. }
            | WriteOp::Remove { .. }
            | WriteOp::Flush => 0,
        }
    }
}

impl TimedOp<'_> {
    fn growth_bytes(&self, store: &Store) -> usize {
        match self {
            TimedOp::Set { key, value, .. } => store.growth_by(key, value.len()),
            TimedOp::Expire { .. } | TimedOp::RemoveExpired { .. } => 0,
            // What one step frees is no room for another one: nobody knows yet whether it is there to be freed.
            TimedOp::Transaction(transaction) => transaction
                .steps
                .iter()
                .map(|step| match step {
                    // An earlier step may have changed the number.
                    Step::Write(WriteOp::Increment { key, .. }) => {
                        store.growth_by(key, INTEGER_BYTES_MAX)
                    }
                    Step::Write(op) => op.growth_bytes(store),
                    Step::Timed(op) => op.growth_bytes(store),
                    Step::Read(_) => 0,
                })
                .sum(),
        }
    }
}

impl Request {
    /// The same of a request.
    pub fn growth_bytes(&self, store: &Store) -> usize {
        let Request::Write { command } = self else { return 0 };
        command_growth_bytes(command, store)
    }
}

/// The same of a command as the log has it.
pub fn command_growth_bytes(command: &[u8], store: &Store) -> usize {
    match Command::decode(command) {
        Ok(Command::Write { op, .. }) => op.growth_bytes(store),
        _ => 0,
    }
}
