//! When what makes the state larger is refused: the disk has no room for it, or the store has as much as it may.
//! A leader decides that before it proposes anything. Reads, deletes and the removal of keys whose time has come go on,
//! and it ends by itself when there is room again.

use super::Node;
use super::requests::{failure, grows};
use crate::kv::{
    Command, Failure, FailureCode, Request, STORE_IS_FULL, Seen, command_growth_bytes,
};

/// Why a node refuses, as a leader, what makes the state larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoGrowth {
    /// There is no room for the log or the next snapshot.
    Disk,
    /// The store has reached `--store-bytes-max`.
    Store,
}

impl NoGrowth {
    pub const ALL: [NoGrowth; 2] = [NoGrowth::Disk, NoGrowth::Store];

    pub fn name(self) -> &'static str {
        match self {
            NoGrowth::Disk => "disk",
            NoGrowth::Store => "store",
        }
    }

    /// What a person should know: after the name of the node and a colon.
    pub fn in_words(self) -> &'static str {
        match self {
            NoGrowth::Disk => "its disk is nearly full: writes that need room are refused",
            NoGrowth::Store => {
                "its store is full (--store-bytes-max): writes that would make it larger are refused; delete keys, \
                 or raise the limit on every node"
            }
        }
    }
}

impl Node {
    /// Space on the disk is scarce: only what frees some is taken.
    pub fn refuse_growth(&mut self, refuse: bool) {
        self.is_disk_low = refuse;
    }

    /// The store may have so many bytes ([`crate::kv::Store::stored_bytes`]).
    pub fn limit_store(&mut self, bytes_max: Option<usize>) {
        self.store_bytes_max = bytes_max;
    }

    pub fn store_bytes_max(&self) -> Option<usize> {
        self.store_bytes_max
    }

    /// Why growth is refused at the moment, or would be if this node led.
    pub fn no_growth(&self) -> Option<NoGrowth> {
        if self.is_disk_low {
            return Some(NoGrowth::Disk);
        }
        let is_full = |max: usize| self.machine.store().stored_bytes() >= max;
        self.store_bytes_max.is_some_and(is_full).then_some(NoGrowth::Store)
    }

    /// Refuses what makes the state larger, if that is not possible. Another node's room is its own affair.
    pub(super) fn check_growth(&self, request: &Request) -> Result<(), Failure> {
        if !self.raft.is_leader() {
            return Ok(());
        }
        let store = self.machine.store();
        let bytes = store.stored_bytes() + self.writes.growth_bytes();
        let what = match self.store_bytes_max {
            _ if self.is_disk_low && grows(request) => {
                "the disk is full: nothing was done; delete keys or make space".to_string()
            }
            Some(max) if bytes >= max && request.growth_bytes(store) > 0 => format!(
                "{STORE_IS_FULL}: it has {bytes} bytes, the limit is {max} (--store-bytes-max); nothing was done, \
                 delete keys"
            ),
            _ => return Ok(()),
        };
        match self.was_carried_out(request) {
            true => Ok(()),
            false => Err(failure(FailureCode::Overloaded, what)),
        }
    }

    /// A retry makes nothing larger.
    fn was_carried_out(&self, request: &Request) -> bool {
        let Request::Write { command } = request else { return false };
        match Command::decode(command) {
            Ok(Command::Write { request: Some(id), .. }) => {
                matches!(self.machine.sessions().seen(id), Seen::Before(_))
            }
            _ => false,
        }
    }

    /// By how much a command will make the store larger once it is applied. It is not counted without need.
    pub(super) fn growth_of(&self, command: &[u8]) -> usize {
        match self.store_bytes_max {
            Some(_) => command_growth_bytes(command, self.machine.store()),
            None => 0,
        }
    }
}
