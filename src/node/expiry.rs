//! Keys whose time has come. The leader proposes that they go; until that is applied they are there, for
//! everybody alike. So what the log says is all that counts, and a clock that is behind brings nothing back.

use super::Node;
use crate::kv::{Command, EXPIRED_PER_ENTRY_MAX, TimedOp, WriteOp};
use crate::raft::{Payload, Position};

impl Node {
    /// The wall clock of this machine, in milliseconds of Unix time. It may jump.
    pub fn set_time(&mut self, unix_ms: u64) {
        self.wall_ms = unix_ms;
    }

    /// What time it is for a leader: never before that of the log.
    pub(super) fn now_ms(&self) -> u64 {
        self.wall_ms.max(self.machine.clock_ms())
    }

    /// At the leader, and one entry at a time: each is small, and more that are due follow when it is
    /// applied. Called before a turn is written, so that there is nothing in the log in memory after it that
    /// the disk was not given.
    pub(super) fn remove_expired(&mut self) {
        if !self.raft.is_leader() || self.is_removing_expired() {
            return;
        }
        let now = self.now_ms();
        if self.machine.store().next_expiry().is_none_or(|at| at > now) {
            return;
        }
        let op = TimedOp::RemoveExpired { keys_max: EXPIRED_PER_ENTRY_MAX };
        let op = WriteOp::Timed { stamp: now, op };
        let command = Command::Write { request: None, op }.to_bytes();
        // One that cannot be proposed at the moment is proposed in a later turn.
        self.removing_expired = self.raft.propose(Payload::Command(command.into())).ok();
    }

    /// Whether such an entry of this leadership is not applied yet.
    fn is_removing_expired(&self) -> bool {
        let is_pending = |position: Position| {
            position.term == self.raft.term() && position.index > self.machine.applied()
        };
        self.removing_expired.is_some_and(is_pending)
    }
}
