//! What one turn of the loop has to do: what may leave at once, what is written first, what leaves once that is on
//! disk, and what a leader leaves for a later turn.

use super::role::Role;
use super::{
    ConfirmedRead, Entry, HardState, LogRead, Message, NodeId, Raft, ReadId, SnapshotChunk,
    SnapshotRead,
};

/// What a leader leaves for a later turn, so that more entries share a message or a sync.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waits {
    /// New entries stay in its log and go nowhere.
    pub sending: bool,
    /// What is sent is not written to its own disk: the disks of the others commit it.
    pub own_disk: bool,
}

/// What one turn of the loop has to do, in the order of the fields.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// May leave at once: a leader's AppendEntries.
    pub early: Vec<(NodeId, Message)>,
    /// To be written, if there is one.
    pub hard_state: Option<HardState>,
    /// To be written after it. An index that was written before replaces that entry and all after it.
    pub entries: Vec<Entry>,
    /// To be written as far as possible, and then answered with `snapshot_received` or `install_snapshot`.
    pub snapshot_chunks: Vec<SnapshotChunk>,
    /// To be read from disk and sent; early, as what is read was synced long ago.
    pub snapshot_reads: Vec<SnapshotRead>,
    /// To be read from the disk's log and given to `log_read`, also early.
    pub log_reads: Vec<LogRead>,
    /// To be sent once all of it is synced: votes, requests for votes, acknowledgements.
    pub messages: Vec<(NodeId, Message)>,
}

impl Raft {
    /// Whether `take_ready` would give something to do.
    pub fn has_ready(&self) -> bool {
        self.has_ready_with(Waits::default())
    }

    /// The same, apart from what waits.
    pub fn has_ready_with(&self, waits: Waits) -> bool {
        let owes_append = match &self.role {
            Role::Leader(leadership) => {
                let last_index = self.log.last().index;
                leadership.progress.values().any(|progress| {
                    progress.owes_message
                        || !waits.sending && progress.may_send_entries(last_index, &self.config)
                        || progress.owes_chunk()
                }) || leadership.reads_may_begin(self.commit_index)
                    || leadership.may_tell_successor(last_index)
            }
            _ => false,
        };
        owes_append
            || self.hard_state_unwritten
            || !waits.own_disk && self.log.has_unwritten()
            || !self.messages.is_empty()
            || !self.snapshot_chunks.is_empty()
            || !self.confirmed_reads.is_empty()
            || !self.aborted_reads.is_empty()
    }

    /// Takes what this turn has to do. It must be done, and `persisted` called, before the next call.
    pub fn take_ready(&mut self) -> Ready {
        self.take_ready_with(Waits::default())
    }

    /// The same without what waits: that comes with a later call.
    pub fn take_ready_with(&mut self, waits: Waits) -> Ready {
        assert!(self.persisting.is_none(), "one Ready is outstanding at a time");
        self.begin_read_round();
        self.fill_appends(waits.sending);
        let entries = if waits.own_disk { Vec::new() } else { self.log.take_unwritten() };
        let hard_state = std::mem::take(&mut self.hard_state_unwritten).then_some(self.hard_state);
        self.persisting = Some((self.hard_state, self.log.last_written()));
        Ready {
            early: std::mem::take(&mut self.early_messages),
            hard_state,
            entries,
            snapshot_chunks: std::mem::take(&mut self.snapshot_chunks),
            snapshot_reads: std::mem::take(&mut self.snapshot_reads),
            log_reads: std::mem::take(&mut self.log_reads),
            messages: std::mem::take(&mut self.messages),
        }
    }

    /// Loses what is to be sent, and pieces of snapshots that came, as a network may: for a turn that
    /// cannot come to its end.
    pub fn drop_messages(&mut self) {
        self.snapshot_chunks.clear();
        self.messages.clear();
        self.early_messages.clear();
    }

    /// All of the outstanding `Ready` is on disk.
    pub fn persisted(&mut self) {
        let (hard_state, last) = self.persisting.take().expect("a Ready is outstanding");
        self.log.mark_durable(last);
        if hard_state == self.hard_state && hard_state.voted_for == Some(self.config.id) {
            self.count_vote(self.config.id, true);
        }
        self.advance_commit();
        // Those that a round waited for may have been removed.
        self.confirm_read_round();
        self.notice_whole();
    }

    /// Of what the caller would let wait, what may: only a leader's entries, and its own disk only as long as
    /// the others keep up. "The leader may even commit an entry before it has been written to its own disk, if
    /// a majority of followers have written it to their disks" (thesis 10.2.1).
    pub fn may_wait(&self, wanted: Waits) -> Waits {
        let Role::Leader(leadership) = &self.role else { return Waits::default() };
        let keeps_up =
            |id| leadership.progress.get(&id).is_some_and(|peer| peer.keeps_up(&self.config));
        let sending = wanted.sending && leadership.handover.is_none();
        Waits { sending, own_disk: sending || wanted.own_disk && self.is_majority(keeps_up) }
    }

    pub fn take_reads(&mut self) -> Vec<ConfirmedRead> {
        std::mem::take(&mut self.confirmed_reads)
    }

    /// Reads whose leader lost its office before they were confirmed: not done.
    pub fn take_aborted_reads(&mut self) -> Vec<ReadId> {
        std::mem::take(&mut self.aborted_reads)
    }
}
