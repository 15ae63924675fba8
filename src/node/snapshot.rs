//! Snapshots, and the log in memory that they make needless: when one is wanted, and what one that was taken or
//! received changes here. `Replica` moves their bytes.

use super::requests::{OUTCOME_UNKNOWN_ADVICE, failure};
use super::turn::APPLY_ENTRIES_PER_TURN;
use super::{Node, PeerMessage};
use crate::kv::{Answer, FailureCode, Machine};
use crate::raft::{Entry, LogRead, NodeId, Position, SnapshotChunk};
use std::rc::Rc;

/// Of the log, kept in memory for followers that are a little behind. What they need of what is older is read from
/// the disk, if it is not much older than the newest snapshot.
const LOG_IN_MEMORY_BYTES: usize = 8 * 1024 * 1024;
/// Entries that are dropped from memory in one turn: more than a turn brings, and of a KiB each, they take some
/// milliseconds.
const EVICTED_PER_TURN: usize = 2 * APPLY_ENTRIES_PER_TURN as usize;

impl Node {
    pub fn wants_snapshot(&self) -> bool {
        let is_long = self.log_growth.is_long(1);
        let is_read = self.raft.is_sending_snapshot() || self.is_backed_up();
        self.snapshot_is_due || self.backup_wants_snapshot() || (is_long && !is_read)
    }

    /// The newest one has turned out to be unreadable.
    pub fn take_snapshot_soon(&mut self) {
        self.snapshot_is_due = true;
    }

    /// Begins a snapshot of what is applied.
    pub fn begin_snapshot(&mut self) -> Position {
        self.log_growth.restart();
        self.snapshot_is_due = false;
        self.keeps_log_after = self.raft.log().evicted();
        self.machine.begin_snapshot();
        let index = self.machine.applied();
        let term = self.raft.log().term_at(index).expect("what is applied is in the log");
        Position { index, term }
    }

    /// The next piece of it, of about that size, and whether that is the last one.
    pub fn snapshot_piece(&mut self, bytes_max: usize) -> (Vec<u8>, bool) {
        self.machine.snapshot_piece(bytes_max)
    }

    /// The snapshot at `newest` that was taken is on disk: the log before it goes, but for what followers that are a
    /// little behind still need.
    pub fn snapshot_saved(&mut self, newest: Position) {
        self.raft.compact(newest, self.keeps_log_after);
    }

    /// Drops from memory what is applied and on disk of the log, but for the newest part.
    pub(super) fn evict_log(&mut self) {
        let kept = LOG_IN_MEMORY_BYTES.min(self.config.snapshot_log_bytes);
        self.raft.evict(self.machine.applied(), kept, EVICTED_PER_TURN);
    }

    /// Entries that were read from the disk for a follower; none if they can't be. Then it is sent a snapshot, and
    /// a new one if there is none that the log goes on from.
    pub fn log_read(
        &mut self,
        read: LogRead,
        entries: Vec<Entry>,
    ) -> Option<(NodeId, PeerMessage)> {
        let message = self.raft.log_read(read, entries);
        self.snapshot_is_due |= !self.raft.log_connects_to_snapshot();
        message.map(|(to, message)| (to, PeerMessage::Raft(message)))
    }

    pub fn abandon_snapshot(&mut self) {
        self.machine.abandon_snapshot();
    }

    /// Whether a piece of a leader's snapshot has become useless; the leader is told.
    pub fn snapshot_is_covered(&mut self, chunk: &SnapshotChunk) -> bool {
        self.raft.is_covered(chunk)
    }

    pub fn snapshot_received(&mut self, chunk: &SnapshotChunk, next: u64) {
        self.raft.snapshot_received(chunk, next);
    }

    /// A leader's snapshot is on disk, and `machine` is its state. Returns whether the log is void.
    pub fn install_snapshot(&mut self, chunk: &SnapshotChunk, machine: Machine) -> bool {
        let is_void = self.raft.install_snapshot(chunk, Rc::clone(machine.membership()));
        let old = std::mem::replace(&mut self.machine, machine);
        self.machine.free_slowly(old);
        self.log_growth.restart();
        // Their entries were committed, but what became of them is now only in the state.
        for write in self.writes.extract(|index, _| *index <= chunk.position.index) {
            self.no_longer_pending(&write);
            let what = format!("the write's entry is in a snapshot; {OUTCOME_UNKNOWN_ADVICE}");
            self.answer(write.origin, Answer::Failed(failure(FailureCode::OutcomeUnknown, what)));
        }
        is_void
    }
}
