//! Writes in this leader's log that have no answer yet, and what they will cost when they are applied.

use super::Origin;
use crate::ordered::InOrder;
use crate::raft::{Index, Term};

/// Work ([`crate::kv::Needs`]) of all of them, about a second. When it is reached, writes are refused as not done: the
/// last of them would be answered too late, and the log in memory would grow.
pub const PENDING_WORK_MAX: u64 = 1_000_000_000;

#[derive(Debug, Clone, Copy)]
pub(super) struct PendingWrite {
    pub term: Term,
    pub origin: Origin,
    /// What it costs, about.
    pub work: u64,
    /// By how much it makes the store larger, at most.
    pub growth_bytes: usize,
}

/// By index.
#[derive(Debug, Default)]
pub(super) struct PendingWrites {
    writes: InOrder<Index, PendingWrite>,
    /// Sums over all of them.
    work: u64,
    growth_bytes: usize,
}

impl PendingWrites {
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    pub fn work(&self) -> u64 {
        self.work
    }

    pub fn growth_bytes(&self) -> usize {
        self.growth_bytes
    }

    pub fn insert(&mut self, index: Index, write: PendingWrite) {
        self.work += write.work;
        self.growth_bytes += write.growth_bytes;
        self.writes.insert(index, write);
    }

    pub fn remove(&mut self, index: Index) -> Option<PendingWrite> {
        let write = self.writes.remove(&index)?;
        self.count_out(&write);
        Some(write)
    }

    /// Takes out those that are wanted, in order.
    pub fn extract(
        &mut self,
        is_wanted: impl FnMut(&Index, &PendingWrite) -> bool,
    ) -> Vec<PendingWrite> {
        let writes = self.writes.extract(is_wanted);
        writes.iter().for_each(|write| self.count_out(write));
        writes
    }

    fn count_out(&mut self, write: &PendingWrite) {
        self.work -= write.work;
        self.growth_bytes -= write.growth_bytes;
    }

    pub fn into_values(self) -> impl Iterator<Item = PendingWrite> {
        self.writes.into_values()
    }
}
