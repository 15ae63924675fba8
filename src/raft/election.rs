//! Pre-vote, vote and campaign (sections 5.2 and 5.4.1; thesis 9.6 and 4.2.3).

use super::log::Position;
use super::role::{Role, Votes};
use super::{Message, NodeId, Raft, Term};
use std::rc::Rc;

/// How often a follower that saw its leader's process end tries again soon, before it falls back to
/// the ordinary timeout.
const HURRIED_ATTEMPTS: u32 = 8;

impl Raft {
    /// Section 5.2: "if a follower receives no communication over a period of time called the election
    /// timeout", it begins an election; so does a candidate whose election came to nothing. With pre-vote
    /// it first asks whether it could win.
    pub(super) fn tick_election(&mut self) {
        self.election_elapsed_ticks += 1;
        if self.election_elapsed_ticks < self.election_timeout_ticks || !self.may_campaign() {
            return;
        }
        self.hurried_attempts = self.hurried_attempts.saturating_sub(1);
        self.become_pre_candidate();
        if self.has_majority() {
            return self.campaign(false);
        }
        let Position { index: last_log_index, term: last_log_term } = self.log.last();
        let term = self.hard_state.term + 1;
        self.ask_voters(Message::RequestPreVote { term, last_log_index, last_log_term });
    }

    pub(super) fn campaign(&mut self, by_leader: bool) {
        self.elections.begun += 1;
        self.become_candidate();
        let Position { index: last_log_index, term: last_log_term } = self.log.last();
        let term = self.hard_state.term;
        self.ask_voters(Message::RequestVote { term, last_log_index, last_log_term, by_leader });
    }

    fn ask_voters(&mut self, request: Message) {
        for voter in self.other_voters().collect::<Vec<_>>() {
            self.send(voter, request.clone());
        }
    }

    /// A new random timeout (section 5.2: "chosen randomly from a fixed interval"), from now.
    pub(super) fn restart_election_timer(&mut self) {
        self.election_elapsed_ticks = 0;
        let (min, max) = if self.hurried_attempts > 0 {
            (self.config.heartbeat_ticks, 3 * self.config.heartbeat_ticks)
        } else {
            (self.config.election_ticks_min, self.config.election_ticks_max)
        };
        self.election_timeout_ticks = self.rng.u32(min..=max);
    }

    /// The leader's process has ended: its connection was closed and a new one refused. There is nothing
    /// left to wait for, so this node asks for pre-votes soon, the voters one after the other so that
    /// they do not split the vote.
    pub fn peer_process_ended(&mut self, peer: NodeId) {
        if !matches!(self.role, Role::Follower { leader: Some(leader) } if leader == peer) {
            return;
        }
        self.role = Role::Follower { leader: None };
        self.hurried_attempts = HURRIED_ATTEMPTS;
        let membership = Rc::clone(self.membership());
        let others = membership.voters().filter(|id| *id != peer);
        let rank = others.take_while(|id| *id != self.config.id).count() as u32;
        let step = self.config.heartbeat_ticks.div_ceil(2);
        self.election_elapsed_ticks = 0;
        self.election_timeout_ticks = 1 + rank * step + self.rng.u32(0..=1);
    }

    /// Thesis 4.2.3: "if a server receives a RequestVote request within the minimum election timeout of
    /// hearing from a current leader, it does not update its term or grant its vote". A leader hears from
    /// itself for as long as it has its quorum.
    pub(super) fn hears_a_leader(&self) -> bool {
        match self.role {
            Role::Leader(_) => true,
            Role::Follower { leader } => {
                leader.is_some() && self.election_elapsed_ticks < self.config.election_ticks_min
            }
            Role::PreCandidate { .. } | Role::Candidate { .. } => false,
        }
    }

    /// Section 5.4.1: "if the logs have last entries with different terms, then the log with the later
    /// term is more up-to-date. If the logs end with the same term, then whichever log is longer".
    fn is_up_to_date(&self, candidate_last: Position) -> bool {
        let own = self.log.last();
        (candidate_last.term, candidate_last.index) >= (own.term, own.index)
    }

    /// Answers without changing any state, so that a node which cannot win disturbs nobody.
    pub(super) fn handle_request_pre_vote(
        &mut self,
        from: NodeId,
        term: Term,
        candidate_last: Position,
    ) {
        let granted = term > self.hard_state.term
            && !self.hears_a_leader()
            && self.may_vote(candidate_last)
            && self.is_up_to_date(candidate_last);
        let term = if granted { term } else { self.hard_state.term };
        self.send(from, Message::PreVoteReply { term, granted });
    }

    /// `term` is this node's own by now: `step` has seen to newer and older ones.
    pub(super) fn handle_request_vote(&mut self, from: NodeId, candidate_last: Position) {
        let voted_for = self.hard_state.voted_for;
        let is_led = matches!(self.role, Role::Follower { leader: Some(_) });
        let is_free = voted_for.map_or(!is_led, |id| id == from);
        let granted =
            is_free && self.may_vote(candidate_last) && self.is_up_to_date(candidate_last);
        if granted {
            if voted_for.is_none() {
                self.hard_state.voted_for = Some(from);
                self.hard_state_unwritten = true;
                self.role = Role::Follower { leader: None };
            }
            self.restart_election_timer();
        }
        self.send(from, Message::VoteReply { term: self.hard_state.term, granted });
    }

    pub(super) fn handle_pre_vote_reply(&mut self, from: NodeId, term: Term, granted: bool) {
        // A granted reply repeats the term that was asked about; one of an earlier round does not fit.
        if granted && term != self.hard_state.term + 1 {
            return;
        }
        let Role::PreCandidate { votes } = &mut self.role else { return };
        votes.insert(from, granted);
        if self.has_majority() {
            self.campaign(false);
        } else if self.is_lost() {
            self.become_follower(self.hard_state.term, None);
        }
    }

    /// Only replies of the current term come here.
    pub(super) fn handle_vote_reply(&mut self, from: NodeId, granted: bool) {
        self.count_vote(from, granted);
    }

    pub(super) fn count_vote(&mut self, from: NodeId, granted: bool) {
        let Role::Candidate { votes } = &mut self.role else { return };
        votes.insert(from, granted);
        if self.has_majority() {
            self.become_leader();
        } else if self.is_lost() {
            self.become_follower(self.hard_state.term, None);
        }
    }

    /// While this node asks for votes: whether that node would give it its vote, if it has answered.
    pub fn vote_of(&self, id: NodeId) -> Option<bool> {
        self.votes().and_then(|votes| votes.get(&id).copied())
    }

    fn votes(&self) -> Option<&Votes> {
        match &self.role {
            Role::PreCandidate { votes } | Role::Candidate { votes } => Some(votes),
            Role::Follower { .. } | Role::Leader(_) => None,
        }
    }

    /// Section 5.2: "a candidate wins an election if it receives votes from a majority of the servers in
    /// the full cluster for the same term".
    fn has_majority(&self) -> bool {
        self.majority_says(true)
    }

    fn is_lost(&self) -> bool {
        self.majority_says(false)
    }

    fn majority_says(&self, granted: bool) -> bool {
        self.votes()
            .is_some_and(|votes| self.is_majority(|id| votes.get(&id).copied() == Some(granted)))
    }
}
