//! Compaction and InstallSnapshot (section 7, Figure 13).
//!
//! Raft never sees a snapshot's bytes, only positions and offsets. A leader whose log no longer has what a
//! follower needs asks its caller, through `Ready`, to read a chunk of the newest snapshot and send it; one
//! chunk is under way at a time. The follower's word on how much it has decides what is read next, so a
//! transfer resumes after a lost connection, and starts again if the follower threw away what it had. A
//! transfer belongs to one leader's term: chunks of another one are not mixed in.

use super::log::Position;
use super::membership::{Membership, Memberships};
use super::progress::{Pace, Transfer};
use super::role::{Leadership, Role};
use super::{AppendOutcome, HardState, Index, Message, NodeId, Raft, Term};
use std::rc::Rc;

/// To be read from a snapshot file and sent as [`Message::InstallSnapshot`] of this term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotRead {
    pub to: NodeId,
    pub term: Term,
    pub position: Position,
    pub offset: u64,
}

/// A piece of a snapshot that a leader sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotChunk {
    pub from: NodeId,
    pub term: Term,
    pub position: Position,
    pub offset: u64,
    pub data: Rc<[u8]>,
    pub done: bool,
}

impl Raft {
    /// A snapshot at `newest` is on disk, and the log up to `kept_from` will not be read from disk again:
    /// section 7, "once a server completes writing a snapshot, it may delete all log entries up through
    /// the last included index". Keeping more lets slow followers catch up from the log.
    pub fn compact(&mut self, newest: Position, kept_from: Position) {
        assert!(newest.index <= self.commit_index, "only what is committed is in a snapshot");
        assert!(kept_from.index <= newest.index, "the snapshot covers what the log drops");
        self.snapshot = Some(newest);
        self.log.compact(kept_from);
    }

    /// Whether a follower is being sent a snapshot and answers: its file should stay.
    pub fn is_sending_snapshot(&self) -> bool {
        match &self.role {
            Role::Leader(leadership) => leadership
                .progress
                .values()
                .any(|peer| matches!(&peer.pace, Pace::Snapshot(transfer) if transfer.is_alive())),
            _ => false,
        }
    }

    /// What is to be read for `to`, if it needs a snapshot and a chunk is owed.
    pub(super) fn read_for(&mut self, to: NodeId) {
        let Some(newest) = self.snapshot else { return };
        let term = self.hard_state.term;
        let Role::Leader(Leadership { progress, .. }) = &mut self.role else { return };
        let progress = progress.get_mut(&to).expect("the peer is a member");
        let Pace::Snapshot(transfer) = &mut progress.pace else { return };
        // Another snapshot has taken the place of the one that was being sent.
        if transfer.position != newest {
            *transfer = Transfer::new(newest);
        }
        if !std::mem::replace(&mut transfer.awaiting, true) {
            let Transfer { position, offset, .. } = *transfer;
            self.snapshot_reads.push(SnapshotRead { to, term, position, offset });
        }
    }

    /// A follower has this much of the snapshot.
    pub(super) fn handle_snapshot_reply(&mut self, from: NodeId, position: Position, next: u64) {
        let Role::Leader(Leadership { progress, .. }) = &mut self.role else { return };
        let Some(progress) = progress.get_mut(&from) else { return };
        progress.was_heard();
        if let Pace::Snapshot(transfer) = &mut progress.pace
            && transfer.position == position
        {
            transfer.progressed(next);
        }
    }

    /// A chunk has arrived from the leader of the current term.
    pub(super) fn handle_install_snapshot(&mut self, chunk: SnapshotChunk) {
        if !self.is_covered(&chunk) {
            self.snapshot_chunks.push(chunk);
        }
    }

    /// Late, or twice: what is committed here needs no snapshot, and the leader is told so. To be asked again
    /// before a chunk is written, as others of the same turn may have brought that about.
    pub fn is_covered(&mut self, chunk: &SnapshotChunk) -> bool {
        let is_covered = chunk.position.index <= self.commit_index;
        if is_covered {
            self.accept(chunk, self.commit_index);
        }
        is_covered
    }

    fn accept(&mut self, chunk: &SnapshotChunk, match_index: Index) {
        let term = self.hard_state.term;
        if chunk.term == term {
            let outcome = AppendOutcome::Accepted { match_index };
            self.send(chunk.from, Message::AppendReply { term, round: 0, outcome });
        }
    }

    /// The chunks up to `next` are on disk, or `next` is where the transfer has to go on.
    pub fn snapshot_received(&mut self, chunk: &SnapshotChunk, next: u64) {
        if chunk.term == self.hard_state.term {
            let SnapshotChunk { position, term, .. } = *chunk;
            let reply = Message::SnapshotReply {
                term,
                last_included_index: position.index,
                last_included_term: position.term,
                offset: next,
            };
            self.send(chunk.from, reply);
        }
    }

    /// The whole snapshot is on disk and has become the state, with these members. Returns whether the log is void: Figure
    /// 13, steps 6 and 7, "if existing log entry has same index and term as snapshot's last included
    /// entry, retain log entries following it", else "discard the entire log".
    pub fn install_snapshot(&mut self, chunk: &SnapshotChunk, membership: Rc<Membership>) -> bool {
        let position = chunk.position;
        assert!(position.index > self.commit_index, "older snapshots are not installed");
        let is_void = self.log.install(position);
        let first = self.log.before().index + 1;
        self.memberships = Memberships::new(
            position.index,
            self.config.or_voters(membership),
            self.log.iter_from(first),
        );
        self.commit_index = position.index;
        self.snapshot = Some(position);
        self.accept(chunk, position.index);
        is_void
    }

    /// A damaged node lost a part of its log that it had acknowledged. It is whole again once it holds an
    /// entry that a leader of a *later* term has committed in its own term: that leader was elected by nodes
    /// that have lost nothing, so it had everything that was ever committed with this node's help, and all
    /// of that comes before the entry in the log (section 5.4.3).
    pub(super) fn notice_whole(&mut self) {
        let term = self.hard_state.term;
        let is_durable = self.commit_index <= self.log.durable_index();
        if term > self.lost_in_term
            && is_durable
            && self.log.term_at(self.commit_index) == Some(term)
        {
            self.lost_in_term = 0;
        }
    }

    /// The leader of a term in which something was lost may yet commit with what this node acknowledged, and
    /// entries of that term say nothing about it. So a damaged node begins a new term, without a vote, and
    /// the others elect a leader.
    pub(super) fn leave_lost_terms(&mut self) {
        if self.is_damaged() && self.hard_state.term <= self.lost_in_term {
            self.hard_state = HardState { term: self.lost_in_term + 1, voted_for: None };
            self.hard_state_unwritten = true;
        }
    }
}
