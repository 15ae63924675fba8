//! Linearizable reads without a log entry: ReadIndex (thesis 6.4).
//!
//! A read that arrives is answered from the state at the commit index of that moment, once a majority has
//! answered a message that was sent *after* it arrived: then no other leader can have committed anything
//! newer before it arrived. Every AppendEntries carries the number of the newest round, every reply
//! repeats it, so one exchange confirms all reads of a round. One round is in flight at a time; reads that
//! arrive meanwhile share the next. A number is never used for two rounds, so a late reply confirms
//! nothing that began after it.

use super::role::{Leadership, Role};
use super::{Index, NodeId, Raft, Round};

/// A read is known to its caller by a number of the caller's choice.
pub type ReadId = u64;

/// A read that may be answered once the state machine has applied `index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfirmedRead {
    pub id: ReadId,
    pub index: Index,
}

#[derive(Debug, Default)]
pub struct Reads {
    /// The newest round begun in this term.
    round: Round,
    in_flight: Option<ReadRound>,
    waiting: Vec<ReadId>,
}

#[derive(Debug)]
struct ReadRound {
    index: Index,
    ids: Vec<ReadId>,
}

impl Reads {
    pub fn round(&self) -> Round {
        self.round
    }

    pub fn len(&self) -> usize {
        self.waiting.len() + self.in_flight.as_ref().map_or(0, |round| round.ids.len())
    }

    pub fn take_all(&mut self) -> Vec<ReadId> {
        let mut ids = self.in_flight.take().map_or(Vec::new(), |round| round.ids);
        ids.append(&mut self.waiting);
        ids
    }
}

impl Leadership {
    pub fn reads_may_begin(&self, commit_index: Index) -> bool {
        !self.reads.waiting.is_empty()
            && self.reads.in_flight.is_none()
            && commit_index >= self.first_index
    }
}

impl Raft {
    /// Asks for a linearizable read. It comes out of `take_reads` confirmed, or of `take_aborted_reads`
    /// if leadership is lost first. Returns whether this node is the leader.
    pub fn read(&mut self, id: ReadId) -> bool {
        let Role::Leader(leadership) = &mut self.role else { return false };
        leadership.reads.waiting.push(id);
        true
    }

    /// Begins a round for the reads that wait, unless one is in flight, or the leader has not yet
    /// committed an entry of its term and so does not know the newest commit index (section 8).
    pub(super) fn begin_read_round(&mut self) {
        let commit_index = self.commit_index;
        let Role::Leader(leadership) = &mut self.role else { return };
        if !leadership.reads_may_begin(commit_index) {
            return;
        }
        let reads = &mut leadership.reads;
        reads.round += 1;
        reads.in_flight =
            Some(ReadRound { index: commit_index, ids: std::mem::take(&mut reads.waiting) });
        leadership.progress.values_mut().for_each(|progress| progress.owes_message = true);
        self.confirm_read_round();
    }

    /// Confirms the round in flight if a majority, this leader included, has answered it.
    pub(super) fn confirm_read_round(&mut self) {
        let Role::Leader(Leadership { reads, progress, .. }) = &self.role else { return };
        let has_answered = |id: NodeId| match progress.get(&id) {
            Some(peer) => peer.round >= reads.round,
            None => true,
        };
        if reads.in_flight.is_none() || !self.is_majority(has_answered) {
            return;
        }
        let Role::Leader(Leadership { reads, .. }) = &mut self.role else { return };
        let round = reads.in_flight.take().expect("a round is in flight");
        let confirmed = round.ids.into_iter().map(|id| ConfirmedRead { id, index: round.index });
        self.confirmed_reads.extend(confirmed);
    }
}
