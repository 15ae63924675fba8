//! The turn's flush, as far as it goes without a disk; `Replica` calls its parts in the order in which they are here.
//! What is to be written and sent is taken; once it is on disk, what waited for that leaves, what is committed is
//! applied, and what can be answered is answered. What may be much is done a part in every turn.

use super::{Node, Outgoing, PeerMessage, Unreadable};
use crate::kv::{Command, Executed, LOOK_AHEAD_KEYS, Outcome};
use crate::raft::{Index, NodeId, Payload, Ready, Waits};

/// Log bytes applied per turn, so that catching up does not keep the loop from its heartbeats.
const APPLY_BYTES_PER_TURN: usize = 4 * 1024 * 1024;
/// The same in entries. Both are well below what the machine's history keeps, so that a change stream that
/// is level does not miss what is applied in one turn.
pub(super) const APPLY_ENTRIES_PER_TURN: Index = 16_384;

/// Keys whose memory is freed in one turn after they were flushed: some, of very many a part, and never so many
/// that the turn is long. The most is about what a turn may bring, so that what waits does not grow.
const FREED_PER_TURN: usize = 16 * 1024;
const FREED_FRACTION: usize = 32;
const FREED_PER_TURN_MAX: usize = 128 * 1024;

/// A snapshot is taken when the log since the last one has reached the configured size, and this fraction of
/// the state: so that the snapshots of a large state do not cost many times its changes.
const SNAPSHOT_STATE_FRACTION: usize = 4;

impl Node {
    /// Whether the flush has anything to do.
    pub fn has_work(&self) -> bool {
        self.has_work_with(Waits::default())
    }

    /// The same, apart from what waits.
    pub fn has_work_with(&self, waits: Waits) -> bool {
        self.raft.has_ready_with(waits)
            || !self.messages.is_empty()
            || !self.answers.is_empty()
            || self.has_backup_reads()
            || !self.searches.is_empty()
            || self.may_release_held()
            || self.machine.applied() < self.raft.commit_index()
    }

    /// What is to be written, and what may be sent before that: a leader's entries, forwarded requests.
    pub fn take_ready(&mut self, waits: Waits) -> (Ready, Vec<(NodeId, PeerMessage)>) {
        self.evict_log();
        self.release_held();
        self.remove_expired();
        let mut ready = self.raft.take_ready_with(waits);
        let mut early = std::mem::take(&mut self.messages);
        let appends = std::mem::take(&mut ready.early);
        early.extend(appends.into_iter().map(|(to, message)| (to, PeerMessage::Raft(message))));
        (ready, early)
    }

    /// All of the `Ready` is on disk. Returns what may be sent now: whoever waits for it need not wait for
    /// this node's state machine.
    pub fn persisted(&mut self, ready: Ready) -> Vec<(NodeId, PeerMessage)> {
        self.raft.persisted();
        self.notice_lost_leadership();
        let messages = ready.messages.into_iter();
        messages.map(|(to, message)| (to, PeerMessage::Raft(message))).collect()
    }

    /// Applies what is committed, and answers what can be answered.
    pub fn carry_out(&mut self) -> Result<Outgoing, Unreadable> {
        self.abort_reads();
        for read in self.raft.take_reads() {
            self.confirmed.push_back((read.index, read.id));
        }
        self.apply_committed()?;
        self.answer_reads();
        self.search();
        let waiting = self.machine.store().flushed();
        let freed = (waiting / FREED_FRACTION).clamp(FREED_PER_TURN, FREED_PER_TURN_MAX);
        self.machine.free_flushed(freed);
        let messages = std::mem::take(&mut self.messages);
        Ok(Outgoing { messages, answers: std::mem::take(&mut self.answers) })
    }

    /// The turn waits for space on the disk, and this node promises nothing. What promises nothing goes
    /// on: a follower's clients are served by its leader, and whoever asked for what cannot be done is
    /// told so.
    pub fn held(&mut self) -> Outgoing {
        self.raft.drop_messages();
        self.abort_reads();
        self.notice_lost_leadership();
        let messages = std::mem::take(&mut self.messages);
        Outgoing { messages, answers: std::mem::take(&mut self.answers) }
    }

    fn abort_reads(&mut self) {
        for id in self.raft.take_aborted_reads() {
            if let Some(read) = self.take_read(id) {
                self.fail_not_leader(read.origin);
            }
        }
    }

    fn apply_committed(&mut self) -> Result<(), Unreadable> {
        let (mut bytes, mut looked_ahead) = (0, 0);
        let upto = self.raft.commit_index().min(self.machine.applied() + APPLY_ENTRIES_PER_TURN);
        while self.machine.applied() < upto && bytes < APPLY_BYTES_PER_TURN {
            let index = self.machine.applied() + 1;
            if index > looked_ahead {
                looked_ahead = self.look_ahead(index, upto);
            }
            let entry = self.raft.log().get(index).expect("what is committed is in the log");
            let (term, cost_bytes) = (entry.term, entry.cost_bytes());
            let removes_expired = matches!(&entry.payload,
                Payload::Command(command) if Command::removes_expired(command));
            let executed =
                self.machine.apply(entry).map_err(|cause| Unreadable { index, cause })?;
            bytes += cost_bytes;
            if removes_expired
                && let Some(Executed { outcome: Outcome::Counter(keys), .. }) = executed
            {
                self.tally.expired += keys as u64;
            }
            let digest = self.machine.store().digest();
            if let Some(point) = self.audit.applied(index, digest) {
                self.report(point);
            }
            let state = self.machine.store().bytes() / SNAPSHOT_STATE_FRACTION;
            self.log_growth.add(cost_bytes, self.config.snapshot_log_bytes.max(state));
            if let Some(write) = self.writes.remove(&index) {
                self.no_longer_pending(&write);
                assert_eq!(
                    write.term, term,
                    "pending writes end with the leadership they began in"
                );
                match executed {
                    Some(executed) => self.answer_written(write.origin, executed),
                    None => self.answer_changed(write.origin, index),
                }
            }
        }
        Ok(())
    }

    /// Returns up to which entry.
    fn look_ahead(&self, index: Index, upto: Index) -> Index {
        let upto = upto.min(index + LOOK_AHEAD_KEYS as Index - 1);
        let mut keys =
            (index..=upto).filter_map(|index| match &self.raft.log().get(index)?.payload {
                Payload::Command(command) => Command::key(command),
                _ => None,
            });
        self.machine.look_ahead(&mut keys);
        upto
    }
}
