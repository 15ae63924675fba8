//! What a node is at the moment, with the data that only that role has, and the ways between roles
//! (Figure 4 of the paper, with the pre-candidate of thesis 9.6 before the candidate).

use super::handover::Handover;
use super::progress::Progress;
use super::read::Reads;
use super::{Entry, Index, NodeId, Payload, Raft, Term};
use crate::ordered::Few;

/// Who answered a request for votes, and how.
pub type Votes = Few<NodeId, bool>;

#[derive(Debug)]
pub enum Role {
    Follower { leader: Option<NodeId> },
    PreCandidate { votes: Votes },
    Candidate { votes: Votes },
    Leader(Leadership),
}

#[derive(Debug)]
pub struct Leadership {
    /// Every other member, and those whose removal is not committed yet.
    pub progress: Few<NodeId, Progress>,
    /// The no-op that the term began with. Until it is committed, the leader does not know what is.
    pub first_index: Index,
    pub reads: Reads,
    pub heartbeat_elapsed_ticks: u32,
    pub quorum_elapsed_ticks: u32,
    /// Payload and overhead of the entries that are proposed and not yet committed.
    pub uncommitted_bytes: usize,
    /// What was committed at the last quorum check: a learner that has it has caught up.
    pub catch_up_index: Index,
    /// Under way to a successor: nothing new is proposed.
    pub handover: Option<Handover>,
}

impl Role {
    pub fn name(&self) -> &'static str {
        match self {
            Role::Follower { .. } => "follower",
            Role::PreCandidate { .. } => "pre-candidate",
            Role::Candidate { .. } => "candidate",
            Role::Leader(_) => "leader",
        }
    }
}

impl Raft {
    /// Section 5.1: "if one server's current term is smaller than the other's, then it updates its
    /// current term to the larger value"; candidates and leaders revert to followers.
    pub(super) fn become_follower(&mut self, term: Term, leader: Option<NodeId>) {
        assert!(term >= self.hard_state.term, "terms never decrease");
        if term > self.hard_state.term {
            self.set_term(term, None);
        }
        let is_news = leader.is_some() && self.leader() != leader;
        let was_leader = self.is_leader();
        if let Role::Leader(leadership) = &mut self.role {
            self.aborted_reads.extend(leadership.reads.take_all());
        }
        self.role = Role::Follower { leader };
        if leader.is_some() {
            self.hurried_attempts = 0;
        }
        // A newer term alone restarts nothing (Figure 2: only a leader that is heard, or a vote that is
        // given), or nodes that cannot win could hold back those that can. A leader has no timer to go on.
        if is_news || was_leader {
            self.restart_election_timer();
        }
    }

    pub(super) fn become_pre_candidate(&mut self) {
        self.role = Role::PreCandidate { votes: Votes::from([(self.config.id, true)]) };
        self.restart_election_timer();
    }

    /// The vote for itself counts only once it is on disk: see `Raft::persisted`.
    pub(super) fn become_candidate(&mut self) {
        self.set_term(self.hard_state.term + 1, Some(self.config.id));
        self.role = Role::Candidate { votes: Votes::new() };
        self.restart_election_timer();
    }

    pub(super) fn become_leader(&mut self) {
        self.elections.won += 1;
        let next_index = self.log.last().index + 1;
        self.role = Role::Leader(Leadership {
            progress: self.other_members().map(|id| (id, Progress::new(next_index))).collect(),
            first_index: next_index,
            reads: Reads::default(),
            heartbeat_elapsed_ticks: 0,
            quorum_elapsed_ticks: 0,
            uncommitted_bytes: 0,
            catch_up_index: next_index,
            handover: None,
        });
        self.hurried_attempts = 0;
        // Section 8: "each leader commit[s] a blank no-op entry into the log at the start of its term".
        let term = self.hard_state.term;
        self.append_entry(Entry { term, index: next_index, payload: Payload::Noop });
    }

    fn set_term(&mut self, term: Term, voted_for: Option<NodeId>) {
        self.hard_state.term = term;
        self.hard_state.voted_for = voted_for;
        self.hard_state_unwritten = true;
    }
}
