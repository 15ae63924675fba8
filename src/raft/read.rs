//! Linearizable reads without a log entry: ReadIndex (thesis 6.4).
//!
//! A read that arrives is answered from the state at the commit index of that moment, once a majority has
//! answered a message that was sent *after* it arrived: then no other leader can have committed anything
//! newer before it arrived. Every AppendEntries carries the number of the newest round, every reply
//! repeats it, so one exchange confirms all reads of a round. One round is in flight at a time; reads that
//! arrive meanwhile share the next. A number is never used for two rounds, so a late reply confirms
//! nothing that began after it.
//!
//! To ask one node more costs as much as some reads do. So as long as nothing is being replicated, only those are asked
//! who answered first when all were asked, just enough for a majority. With every tick all are asked again: another
//! one may be faster by now, or one of the few may not answer any more.

use super::progress::Progress;
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
    /// Who answered first when all were asked, as many as it took; nobody: all are asked next.
    prompt: Vec<NodeId>,
}

#[derive(Debug)]
struct ReadRound {
    index: Index,
    ids: Vec<ReadId>,
    asked: Asked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// The prompt ones.
    Few,
    /// Those, and later the others as well.
    Rest,
    All,
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
            && self.knows_commit(commit_index)
    }

    fn knows_commit(&self, commit_index: Index) -> bool {
        commit_index >= self.first_index
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

    /// Whether this node leads and has committed an entry of its term. Unless another one leads meanwhile, which a
    /// round that begins later finds out, nothing is committed that it does not know of.
    pub fn knows_commit(&self) -> bool {
        matches!(&self.role, Role::Leader(leadership) if leadership.knows_commit(self.commit_index))
    }

    /// Begins a round for the reads that wait, unless one is in flight, or the leader has not yet
    /// committed an entry of its term and so does not know the newest commit index (section 8).
    pub(super) fn begin_read_round(&mut self) {
        let (index, asked) = (self.commit_index, self.whom_to_ask());
        let Role::Leader(leadership) = &mut self.role else { return };
        if !leadership.reads_may_begin(index) {
            return;
        }
        let Leadership { reads, progress, .. } = leadership;
        reads.round += 1;
        let ids = std::mem::take(&mut reads.waiting);
        reads.in_flight = Some(ReadRound { index, ids, asked });
        for (id, peer) in progress {
            peer.owes_message |= asked == Asked::All || reads.prompt.contains(id);
        }
        self.confirm_read_round();
    }

    /// The prompt ones, if they make a majority with this node and have nothing else to do than to answer, and nobody
    /// is to be told what is committed.
    fn whom_to_ask(&self) -> Asked {
        let Role::Leader(Leadership { reads, progress, .. }) = &self.role else {
            return Asked::All;
        };
        let last_index = self.log.last().index;
        let is_level = |id: &NodeId| {
            let is_level =
                |peer: &Progress| peer.match_index == last_index && peer.keeps_up(&self.config);
            progress.get(id).is_some_and(is_level)
        };
        let suffice = !reads.prompt.is_empty()
            && reads.prompt.iter().all(is_level)
            && progress.values().all(|peer| peer.told_commit == self.commit_index)
            && self.is_majority(|id| id == self.config.id || reads.prompt.contains(&id));
        if suffice { Asked::Few } else { Asked::All }
    }

    /// Time has passed, or a follower is gone: whoever was not asked yet is, and so are all with the next round.
    pub(super) fn ask_all(&mut self) {
        let Role::Leader(Leadership { reads, progress, .. }) = &mut self.role else { return };
        reads.prompt.clear();
        if let Some(round) = reads.in_flight.as_mut().filter(|round| round.asked == Asked::Few) {
            round.asked = Asked::Rest;
            progress.values_mut().for_each(|peer| peer.owes_message |= peer.round < reads.round);
        }
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
        let others = self.membership().voters().filter(|id| *id != self.config.id);
        let answered: Vec<NodeId> = others.filter(|id| has_answered(*id)).collect();
        let Role::Leader(Leadership { reads, .. }) = &mut self.role else { return };
        let round = reads.in_flight.take().expect("a round is in flight");
        if round.asked == Asked::All {
            reads.prompt = answered;
        }
        let confirmed = round.ids.into_iter().map(|id| ConfirmedRead { id, index: round.index });
        self.confirmed_reads.extend(confirmed);
    }
}
