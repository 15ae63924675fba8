//! Who belongs to the cluster, and changes to it (section 6; thesis 4.1 to 4.3): one member at a time.
//!
//! A membership is a log entry. The newest one in a node's log is in force, committed or not (thesis 4.1: "a
//! server always uses the latest configuration in its log"), and one whose entry is truncated is out of force
//! again. Memberships that follow each other differ in one voter at most, so that their majorities overlap;
//! for the same reason a leader proposes none before it has committed an entry of its own term, nor while
//! another is not committed.
//!
//! A node is a member by its [`NodeId`], which was drawn when its data folder was made. One that has lost its
//! disk comes back under the same name with another id: it is in no membership, so nothing that the lost one
//! promised is expected of it, and no vote of it counts.

use super::progress::Progress;
use super::role::{Leadership, Role};
use super::{Entry, Index, NodeId, Payload, Position, Raft, Term, number};
use crate::ordered::Few;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

/// Members, learners included, of one cluster.
pub const MEMBERS_MAX: usize = 32;
/// Removed nodes that are remembered, so that they can be told. Older ones are only unknown.
pub const REMOVED_MAX: usize = 64;

/// Of the founding. Elections begin with the term after it.
pub const FOUNDING_TERM: Term = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Such as `raft-2`. Raft never looks at it.
    pub name: String,
    /// `host:port` as the node itself gave it: a hint.
    pub address: String,
    /// Counts for majorities; else it is a learner, which only follows.
    pub is_voter: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// Drawn when the cluster was founded; 0: there is none.
    pub cluster_id: u64,
    pub members: Few<NodeId, Member>,
    /// Who was a member, oldest first.
    pub removed: VecDeque<NodeId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A node that is to follow, and to become a voter once it has caught up. It takes the place of
    /// `replaces`, which is removed with the same entry.
    AddLearner {
        id: NodeId,
        name: String,
        address: String,
        replaces: Option<NodeId>,
    },
    /// A learner that has caught up becomes a voter.
    Promote {
        id: NodeId,
    },
    Remove {
        id: NodeId,
    },
}

/// Why a change is not made. Nothing was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeError {
    NotLeader,
    /// This leader has not yet committed an entry of its own term.
    TermNotBegun,
    /// Another change is not yet committed.
    UnderWay,
    /// The leader is handing over.
    HandingOver,
    AlreadyMember,
    /// Who was removed does not come back: what it promised is not expected of it any more.
    WasRemoved,
    NotAMember,
    AlreadyVoter,
    /// The learner lacks too much of the log, or does not answer.
    NotCaughtUp,
    /// Too few of the voters that would be left were heard from lately.
    WouldLoseQuorum,
    TooMany,
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChangeError::NotLeader => "this node is not the leader",
            ChangeError::TermNotBegun => {
                "the leader has committed nothing in its term yet; try again"
            }
            ChangeError::UnderWay => "another change of the members is under way; try again",
            ChangeError::HandingOver => "the leader is handing over; try again",
            ChangeError::AlreadyMember => "it is a member already",
            ChangeError::WasRemoved => "it was removed; with an empty folder it can come in anew",
            ChangeError::NotAMember => "it is not a member",
            ChangeError::AlreadyVoter => "it is a voter already",
            ChangeError::NotCaughtUp => "it has not caught up with the log; try again later",
            ChangeError::WouldLoseQuorum => {
                "too few of the voters that would be left answer; start them first"
            }
            ChangeError::TooMany => "the cluster has as many members as it may have",
        })
    }
}

impl Membership {
    /// Voters without names, for those that need none.
    pub fn of_voters(voters: impl IntoIterator<Item = NodeId>) -> Self {
        let voter = |id: NodeId| {
            let (name, address) = (id.to_string(), String::new());
            (id, Member { name, address, is_voter: true })
        };
        Membership { members: voters.into_iter().map(voter).collect(), ..Membership::default() }
    }

    /// Of no cluster: the node was neither founded nor taken in.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn voters(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().filter(|(_, member)| member.is_voter).map(|(id, _)| *id)
    }

    #[inline(never)]
    pub fn voter_count(&self) -> usize {
        self.voters().count()
    }

    #[inline(never)]
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.members.get(&id).is_some_and(|member| member.is_voter)
    }

    #[inline(never)]
    pub fn contains(&self, id: NodeId) -> bool {
        self.members.contains_key(&id)
    }

    pub fn was_removed(&self, id: NodeId) -> bool {
        self.removed.contains(&id)
    }

    /// About as long as it is in a log.
    #[cold]
    #[inline(never)]
    pub fn cost_bytes(&self) -> usize {
        let members = self.members.values();
        members.map(|member| member.name.len() + member.address.len() + 16).sum::<usize>()
            + self.removed.len() * 8
    }

    /// The member of that number, if one has it; no two have.
    #[inline(never)]
    pub fn numbered(&self, at: u64) -> Option<NodeId> {
        self.members.keys().copied().find(|id| number(*id) == at)
    }

    /// The member of that name, if one has it.
    pub fn named(&self, name: &str) -> Option<NodeId> {
        self.members.iter().find(|(_, member)| member.name == name).map(|(id, _)| *id)
    }

    fn changed(&self, change: &Change) -> Result<Membership, ChangeError> {
        let mut after = self.clone();
        match change {
            Change::AddLearner { id, name, address, replaces } => {
                if self.contains(*id) {
                    return Err(ChangeError::AlreadyMember);
                }
                if self.was_removed(*id) {
                    return Err(ChangeError::WasRemoved);
                }
                if let Some(replaced) = replaces {
                    after.remove(*replaced)?;
                }
                if after.members.len() >= MEMBERS_MAX {
                    return Err(ChangeError::TooMany);
                }
                let (name, address) = (name.clone(), address.clone());
                after.members.insert(*id, Member { name, address, is_voter: false });
            }
            Change::Promote { id } => {
                let member = after.members.get_mut(id).ok_or(ChangeError::NotAMember)?;
                if std::mem::replace(&mut member.is_voter, true) {
                    return Err(ChangeError::AlreadyVoter);
                }
            }
            Change::Remove { id } => after.remove(*id)?,
        }
        if after.voter_count() == 0 {
            return Err(ChangeError::WouldLoseQuorum);
        }
        Ok(after)
    }

    fn remove(&mut self, id: NodeId) -> Result<(), ChangeError> {
        self.members.remove(&id).ok_or(ChangeError::NotAMember)?;
        if self.removed.len() >= REMOVED_MAX {
            self.removed.pop_front();
        }
        self.removed.push_back(id);
        Ok(())
    }
}

/// The memberships that a node's log says, oldest first, from the last one that is committed on; the first is
/// that of the state before the log.
#[derive(Debug)]
pub struct Memberships {
    /// Index of the entry, and what it says.
    known: Vec<(Index, Rc<Membership>)>,
}

impl Memberships {
    /// `first` is in force at `base`, before `entries`.
    pub fn new<'a>(
        base: Index,
        first: Rc<Membership>,
        entries: impl Iterator<Item = &'a Entry>,
    ) -> Self {
        let mut memberships = Memberships { known: vec![(base, first)] };
        entries.filter(|entry| entry.index > base).for_each(|entry| memberships.appended(entry));
        memberships
    }

    pub fn newest(&self) -> &Rc<Membership> {
        &self.known.last().expect("there is always one").1
    }

    /// The newest one that is committed, as far as it is known.
    pub fn committed_one(&self) -> &Rc<Membership> {
        &self.known.first().expect("there is always one").1
    }

    /// The one that the newest takes the place of, if that may still be truncated. After a restart nobody knows
    /// what is committed, but it is the newest that may not be.
    pub fn one_before(&self) -> Option<&Rc<Membership>> {
        let [.., (_, before), _] = &self.known[..] else { return None };
        Some(before)
    }

    pub fn newest_index(&self) -> Index {
        self.known.last().expect("there is always one").0
    }

    pub fn appended(&mut self, entry: &Entry) {
        if let Payload::Members(membership) = &entry.payload {
            self.known.push((entry.index, Rc::clone(membership)));
        }
    }

    pub fn truncated_from(&mut self, index: Index) {
        let first_gone = self.known.partition_point(|(at, _)| *at < index).max(1);
        self.known.truncate(first_gone);
    }

    /// Those before the newest committed one will not be in force again.
    pub fn committed(&mut self, index: Index) {
        let newest = self.known.partition_point(|(at, _)| *at <= index).saturating_sub(1);
        self.known.drain(..newest);
    }
}

impl Raft {
    /// The members as of the newest entry that says so, committed or not.
    pub fn membership(&self) -> &Rc<Membership> {
        self.memberships.newest()
    }

    /// The members as of the newest committed entry that says so, as far as this node knows.
    pub fn committed_membership(&self) -> &Rc<Membership> {
        self.memberships.committed_one()
    }

    /// Whether it is a member by the newest membership of this log, by the one before, or by the committed one.
    pub fn knows_member(&self, id: NodeId) -> bool {
        self.membership().contains(id)
            || self.committed_membership().contains(id)
            || self.memberships.one_before().is_some_and(|before| before.contains(id))
    }

    /// Whether it belongs to a cluster. One that does not has an empty disk, or has lost all of it.
    pub fn is_founded(&self) -> bool {
        !self.membership().is_empty()
    }

    /// Whether it was a member, and is none any more: for good, as an entry that is not committed may be
    /// truncated, and this node be needed until it is.
    pub fn is_removed(&self) -> bool {
        self.committed_membership().was_removed(self.config.id)
    }

    /// Of the log entry that the newest membership is from.
    pub fn membership_index(&self) -> Index {
        self.memberships.newest_index()
    }

    /// Whether the newest membership is committed, as far as this node knows.
    pub fn membership_is_committed(&self) -> bool {
        self.memberships.newest_index() <= self.commit_index
    }

    /// The cluster begins, with this node as one of its voters: the first entry of every member's log, and the
    /// same on all. Only for a node that has no log. It may have a term and a vote: a crash can cut off the log and
    /// leave the vote that came with it.
    pub fn found(&mut self, membership: Rc<Membership>) {
        assert!(!self.is_founded() && self.log.last() == Position::default(), "the log is empty");
        assert!(membership.is_voter(self.config.id), "it is one of the voters");
        self.hard_state.term = self.hard_state.term.max(FOUNDING_TERM);
        self.hard_state_unwritten = true;
        let payload = Payload::Members(membership);
        self.append_entry(Entry { term: FOUNDING_TERM, index: 1, payload });
        self.restart_election_timer();
        // One of them need not wait long: nobody leads yet. It gives the others the time to hear of it.
        if self.membership().voters().next() == Some(self.config.id) {
            self.election_timeout_ticks = 2 * self.config.heartbeat_ticks;
        }
    }

    /// At the leader: proposes the membership that the change makes of the present one.
    pub fn propose_change(&mut self, change: &Change) -> Result<Position, ChangeError> {
        let Role::Leader(leadership) = &self.role else { return Err(ChangeError::NotLeader) };
        if leadership.handover.is_some() {
            return Err(ChangeError::HandingOver);
        }
        if self.commit_index < leadership.first_index {
            return Err(ChangeError::TermNotBegun);
        }
        if !self.membership_is_committed() {
            return Err(ChangeError::UnderWay);
        }
        let after = self.membership().changed(change)?;
        if let Change::Promote { id } = change
            && !self.has_caught_up(*id)
        {
            return Err(ChangeError::NotCaughtUp);
        }
        let answering = after.voters().filter(|id| self.was_heard_lately(*id)).count();
        if answering < super::quorum::majority(after.voter_count()) {
            return Err(ChangeError::WouldLoseQuorum);
        }
        let position = Position { index: self.log.last().index + 1, term: self.hard_state.term };
        let payload = Payload::Members(Rc::new(after));
        let entry = Entry { term: position.term, index: position.index, payload };
        if let Role::Leader(leadership) = &mut self.role {
            leadership.uncommitted_bytes += entry.cost_bytes();
        }
        self.append_entry(entry);
        Ok(position)
    }

    /// Whether a learner could become a voter without holding up commits: it has, by its last answer, all that
    /// was committed an election timeout ago (thesis 4.2.1: it can catch up in a round of that length).
    pub fn has_caught_up(&self, id: NodeId) -> bool {
        match &self.role {
            Role::Leader(leadership) => leadership.progress.get(&id).is_some_and(|progress| {
                let target = leadership.catch_up_index.max(leadership.first_index);
                self.was_heard_lately(id) && progress.match_index >= target
            }),
            _ => false,
        }
    }

    /// At the leader: whether this node has answered within the shortest election timeout.
    #[inline(never)]
    pub fn was_heard_lately(&self, id: NodeId) -> bool {
        match &self.role {
            Role::Leader(_) if id == self.config.id => true,
            Role::Leader(leadership) => leadership.progress.get(&id).is_some_and(|peer| {
                peer.has_answered && peer.silent_ticks < self.config.election_ticks_min
            }),
            _ => false,
        }
    }

    /// At the leader: ticks since another member has answered, or since this leader began to ask it.
    pub fn silent_ticks(&self, id: NodeId) -> Option<u32> {
        match &self.role {
            Role::Leader(leadership) => leadership.progress.get(&id).map(|peer| peer.silent_ticks),
            _ => None,
        }
    }

    /// All appending goes through here, so that a membership is in force as soon as it is in the log.
    pub(super) fn append_entry(&mut self, entry: Entry) {
        let says_members = matches!(entry.payload, Payload::Members(_));
        self.memberships.appended(&entry);
        self.log.append(entry);
        if says_members {
            self.members_changed();
        }
    }

    pub(super) fn truncate_log(&mut self, index: Index) {
        self.log.truncate_from(index);
        self.memberships.truncated_from(index);
    }

    /// A leader begins to send to new members. Those that are removed are sent to until the removal is
    /// committed, so that they learn of it.
    fn members_changed(&mut self) {
        let next_index = self.log.last().index;
        let others: Vec<NodeId> = self.other_members().collect();
        if let Role::Leader(leadership) = &mut self.role {
            for id in others {
                leadership.progress.get_or_insert_with(id, || Progress::new(next_index));
            }
        }
    }

    pub(super) fn other_members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.membership().members.keys().copied().filter(|id| *id != self.config.id)
    }

    pub(super) fn other_voters(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.membership().voters().filter(|id| *id != self.config.id)
    }

    /// Counts the voters for which `holds`, and says whether they are a majority.
    pub(super) fn is_majority(&self, holds: impl Fn(NodeId) -> bool) -> bool {
        let membership = self.membership();
        let count = membership.voters().filter(|id| holds(*id)).count();
        count >= super::quorum::majority(membership.voter_count())
    }

    /// At the leader, when the commit index has grown: those that are removed by what is committed are told
    /// so with one last message; if the leader is one of them, its office ends (thesis 4.2.2).
    pub(super) fn membership_committed(&mut self) {
        self.memberships.committed(self.commit_index);
        if !self.membership_is_committed() {
            return;
        }
        let membership = Rc::clone(self.membership());
        let Role::Leader(Leadership { progress, .. }) = &mut self.role else { return };
        let leaving: Vec<NodeId> =
            progress.keys().copied().filter(|id| !membership.contains(*id)).collect();
        for id in leaving {
            self.send_last_append(id);
            let Role::Leader(Leadership { progress, .. }) = &mut self.role else { return };
            progress.remove(&id);
        }
        if !membership.contains(self.config.id) {
            self.leave_office();
        }
    }
}
