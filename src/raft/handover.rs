//! Leadership transfer (thesis 3.10): a leader that is to stop, or is told to, brings a voter level with its
//! own log, and then has it begin an election at once, without the wait for a timeout. Until that is over
//! it takes no proposals, so that the successor can catch up; if nothing comes of it within the longest
//! election timeout, it goes on as before.

use super::role::{Leadership, Role};
use super::{Index, Message, NodeId, Raft};
use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handover {
    to: NodeId,
    elapsed_ticks: u32,
    told: bool,
}

/// Why leadership is not handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandoverError {
    NotLeader,
    /// It is under way already, to another node.
    UnderWay,
    /// The successor has to be a voter other than the leader.
    NotAVoter,
    /// Not heard from lately, or nobody was.
    Silent,
}

impl fmt::Display for HandoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HandoverError::NotLeader => "this node is not the leader",
            HandoverError::UnderWay => "leadership is being handed over already; try again",
            HandoverError::NotAVoter => "only another voter can become the leader",
            HandoverError::Silent => "no voter that could take over was heard from lately",
        })
    }
}

impl Leadership {
    /// Whether the successor has the whole log on disk, and was not told to go on yet.
    pub fn may_tell_successor(&self, last_index: Index) -> bool {
        self.handover.as_ref().is_some_and(|handover| {
            let progress = self.progress.get(&handover.to);
            !handover.told && progress.is_some_and(|peer| peer.match_index == last_index)
        })
    }
}

impl Raft {
    /// Hands over to this voter, or to the one that needs least. Returns to whom; whether it succeeds shows in
    /// who leads.
    pub fn hand_over(&mut self, to: Option<NodeId>) -> Result<NodeId, HandoverError> {
        let Role::Leader(leadership) = &self.role else { return Err(HandoverError::NotLeader) };
        if let Some(handover) = &leadership.handover {
            let is_same = to.is_none_or(|to| to == handover.to);
            return if is_same { Ok(handover.to) } else { Err(HandoverError::UnderWay) };
        }
        let to = match to {
            Some(to) if !self.other_voters().any(|id| id == to) => {
                return Err(HandoverError::NotAVoter);
            }
            Some(to) if !self.was_heard_lately(to) => return Err(HandoverError::Silent),
            Some(to) => to,
            None => self.best_successor().ok_or(HandoverError::Silent)?,
        };
        if let Role::Leader(leadership) = &mut self.role {
            leadership.handover = Some(Handover { to, elapsed_ticks: 0, told: false });
        }
        Ok(to)
    }

    /// Whether a handover is under way.
    pub fn is_handing_over(&self) -> bool {
        matches!(&self.role, Role::Leader(leadership) if leadership.handover.is_some())
    }

    /// Of the voters heard from lately, the one that lacks least.
    fn best_successor(&self) -> Option<NodeId> {
        let Role::Leader(leadership) = &self.role else { return None };
        self.other_voters()
            .filter(|id| self.was_heard_lately(*id))
            .max_by_key(|id| leadership.progress.get(id).map(|progress| progress.match_index))
    }

    pub(super) fn tick_handover(&mut self) {
        let Role::Leader(leadership) = &mut self.role else { return };
        leadership.handover.take_if(|handover| {
            handover.elapsed_ticks += 1;
            handover.elapsed_ticks >= self.config.election_ticks_max
        });
    }

    /// The successor is told as soon as it has the whole log on disk.
    pub(super) fn hand_over_if_level(&mut self) {
        let (term, last_index) = (self.hard_state.term, self.log.last().index);
        let Role::Leader(leadership) = &mut self.role else { return };
        if leadership.may_tell_successor(last_index)
            && let Some(handover) = &mut leadership.handover
        {
            handover.told = true;
            let to = handover.to;
            self.send(to, Message::TimeoutNow { term });
        }
    }

    /// A leader that is removed: somebody is asked to go on at once.
    pub(super) fn leave_office(&mut self) {
        if let Some(successor) = self.best_successor() {
            self.send(successor, Message::TimeoutNow { term: self.hard_state.term });
        }
        self.become_follower(self.hard_state.term, None);
    }

    /// No pre-vote: the leader itself wants the election.
    pub(super) fn handle_timeout_now(&mut self, from: NodeId) {
        let is_led =
            matches!(self.role, Role::Follower { leader } if leader.is_none_or(|id| id == from));
        if is_led && self.may_campaign() {
            self.campaign(true);
        }
    }
}
