//! Raft: pure consensus. No sockets, files, clock, threads or global randomness; nothing else of this
//! crate but the map of a few items. Section numbers are those of "In Search of an Understandable Consensus Algorithm (Extended
//! Version)" (Ongaro and Ousterhout, 2014), "thesis" is "Consensus: Bridging Theory and Practice"
//! (Ongaro, 2014).
//!
//! # The protocol in short
//!
//! Time is cut into terms, each with at most one leader. A node that has not heard from a leader for an
//! election timeout asks the others whether they would vote for it (pre-vote), and if a majority would,
//! begins a new term and asks for their votes. A voter gives one vote a term, to a candidate whose log is
//! at least as complete as its own, and not while it hears from a leader. Clients' commands go to the
//! leader, which appends them to its log and sends them to the others; an entry is committed once a
//! majority has it on disk, and then every node applies it in order. A leader that has not heard from a
//! majority for an election timeout steps down.
//!
//! # How it is driven
//!
//! Inputs change memory only: [`Raft::tick`], [`Raft::step`], [`Raft::propose`], [`Raft::read`]. Then, once
//! per turn of the loop:
//!
//! 1. [`Raft::take_ready`] says what is to be done, in [`Ready`];
//! 2. `early` messages may leave; they speak of nothing that must be on disk first (thesis 10.2.1);
//! 3. hard state and entries are written and synced;
//! 4. [`Raft::persisted`]: this node's own disk now counts as one more replica, and its vote for itself as
//!    one more vote;
//! 5. [`Ready::messages`] leave; [`Raft::commit_index`] says how far to apply, [`Raft::take_reads`] which
//!    reads may be answered.
//!
//! # What is deliberately missing
//!
//! - Joint consensus (thesis 4.3): members change one at a time (`membership.rs`).
//! - Lease reads (thesis 6.4.1): they trust clocks.

mod bytes;
mod config;
mod election;
mod handover;
mod log;
mod membership;
mod message;
mod progress;
pub mod quorum;
mod read;
mod ready;
mod replication;
mod role;
mod snapshot;

pub use bytes::Bytes;
pub use config::Config;
pub use handover::HandoverError;
pub use log::{Log, Position};
pub use membership::{
    Change, ChangeError, FOUNDING_TERM, MEMBERS_MAX, Member, Membership, REMOVED_MAX,
};
pub use message::{
    AppendOutcome, Entry, HardState, Index, Message, NUMBER_MAX, NodeId, Payload, Round, Term,
    node_id, number,
};
pub use read::{ConfirmedRead, ReadId};
pub use ready::{Ready, Waits};
pub use replication::{LogRead, ProposeError};
pub use snapshot::{SnapshotChunk, SnapshotRead};

use membership::Memberships;
use replication::Append;
use role::Role;
use std::fmt;
use std::rc::Rc;

/// What a node's disk remembers.
#[derive(Debug, Default)]
pub struct Restored {
    pub hard_state: HardState,
    /// Where the state begins: that of the newest snapshot, which the caller has loaded.
    pub snapshot: Option<Position>,
    /// The members at that snapshot, if there is one.
    pub membership: Rc<Membership>,
    /// Of the entry just before `entries`, at or before the snapshot's.
    pub base: Position,
    pub entries: Vec<Entry>,
    /// Something that was acknowledged in this term or before is lost (0: nothing is). This node does not
    /// vote until it is whole again.
    pub lost_in_term: Term,
}

/// Two leaders of one term. Raft rules it out (section 5.2, "election safety"), so a node has lost what its
/// disk should remember, or lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contradiction {
    pub term: Term,
    /// Who is known to lead the term.
    pub known: NodeId,
    /// Who sent AppendEntries of that term.
    pub claims: NodeId,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Contradiction { term, known, claims } = self;
        write!(f, "node {claims} claims to lead term {term}, which node {known} leads")
    }
}

/// Terms rise by one with each election, so a node that was away for years is no further behind than this. A message of a
/// later term is no word of a correct node. Taken over, it could be the last term there is: nobody could be elected
/// any more.
pub const TERM_JUMP_MAX: Term = 1 << 32;

/// Why a message is not heard. It has changed nothing, and its sender is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distrust {
    Contradiction(Contradiction),
    /// Its term is too far ahead of this node's own.
    TermJump {
        own: Term,
        theirs: Term,
    },
    /// It is no member, and belongs to no cluster or to another one.
    Stranger,
}

impl From<Contradiction> for Distrust {
    fn from(contradiction: Contradiction) -> Self {
        Distrust::Contradiction(contradiction)
    }
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Distrust::Contradiction(contradiction) => {
                write!(f, "{contradiction}; one of them has lost what its disk should remember")
            }
            Distrust::TermJump { own, theirs } => {
                write!(f, "a message of term {theirs}, which no election leads to from term {own}")
            }
            Distrust::Stranger => write!(f, "a message of consensus from a node that is no member"),
        }
    }
}

/// Since this node began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Elections {
    pub begun: u64,
    pub won: u64,
}

#[derive(Debug)]
pub struct Raft {
    config: Config,
    hard_state: HardState,
    hard_state_unwritten: bool,
    log: Log,
    memberships: Memberships,
    commit_index: Index,
    role: Role,
    rng: fastrand::Rng,
    election_elapsed_ticks: u32,
    election_timeout_ticks: u32,
    /// More than 0: the leader's process is known to have ended, and timeouts are short.
    hurried_attempts: u32,
    /// The newest snapshot on disk.
    snapshot: Option<Position>,
    /// More than 0: something is lost, see [`Restored::lost_in_term`].
    lost_in_term: Term,
    snapshot_chunks: Vec<SnapshotChunk>,
    snapshot_reads: Vec<SnapshotRead>,
    log_reads: Vec<LogRead>,
    early_messages: Vec<(NodeId, Message)>,
    messages: Vec<(NodeId, Message)>,
    confirmed_reads: Vec<ConfirmedRead>,
    aborted_reads: Vec<ReadId>,
    /// The highest commit index that a leader has told of.
    heard_commit: Index,
    elections: Elections,
    /// What the outstanding `Ready` will have made durable: the term, and the end of the log.
    persisting: Option<(HardState, Position)>,
}

impl Raft {
    /// A node whose disk holds its whole log.
    pub fn new(config: Config, hard_state: HardState, entries: Vec<Entry>) -> Self {
        Raft::restore(config, Restored { hard_state, entries, ..Restored::default() })
    }

    /// A node as its disk remembers it. It starts as a follower that knows no leader.
    pub fn restore(config: Config, restored: Restored) -> Self {
        let Restored { mut hard_state, snapshot, membership, base, entries, lost_in_term } =
            restored;
        // A leader's snapshot may have reached the disk just before the term that it came with. Whoever
        // votes has its term on disk first, so there was no vote in this one.
        let hard_state_unwritten = base.term > hard_state.term;
        if hard_state_unwritten {
            hard_state = HardState { term: base.term, voted_for: None };
        }
        assert!(config.heartbeat_ticks >= 1, "a heartbeat takes at least one tick");
        assert!(
            config.heartbeat_ticks < config.election_ticks_min
                && config.election_ticks_min <= config.election_ticks_max,
            "a leader is heard from before anybody's election timeout"
        );
        let commit_index = snapshot.map_or(base.index, |position| position.index);
        let first = config.or_voters(membership);
        let memberships = Memberships::new(commit_index, first, entries.iter());
        let log = Log::new(base, entries);
        assert!(commit_index <= log.last().index, "the log reaches the snapshot");
        assert!(log.last().term <= hard_state.term, "the hard state is as new as the log");
        let rng = fastrand::Rng::with_seed(config.seed);
        let mut raft = Raft {
            config,
            hard_state,
            hard_state_unwritten,
            log,
            memberships,
            commit_index,
            role: Role::Follower { leader: None },
            rng,
            election_elapsed_ticks: 0,
            election_timeout_ticks: 0,
            hurried_attempts: 0,
            snapshot,
            lost_in_term,
            snapshot_chunks: Vec::new(),
            snapshot_reads: Vec::new(),
            log_reads: Vec::new(),
            early_messages: Vec::new(),
            messages: Vec::new(),
            confirmed_reads: Vec::new(),
            aborted_reads: Vec::new(),
            heard_commit: 0,
            elections: Elections::default(),
            persisting: None,
        };
        raft.leave_lost_terms();
        raft.restart_election_timer();
        raft
    }

    /// One tick of time has passed.
    pub fn tick(&mut self) {
        match self.role {
            Role::Leader(_) => self.tick_leader(),
            _ => self.tick_election(),
        }
    }

    /// A message has arrived. An error changes nothing.
    pub fn step(&mut self, from: NodeId, message: Message) -> Result<(), Distrust> {
        let (own, theirs) = (self.hard_state.term, message.term());
        if theirs.saturating_sub(own) > TERM_JUMP_MAX {
            return Err(Distrust::TermJump { own, theirs });
        }
        if !self.step_term(from, &message) {
            return Ok(());
        }
        match message {
            Message::RequestPreVote { term, last_log_index, last_log_term } => {
                let last = Position { index: last_log_index, term: last_log_term };
                self.handle_request_pre_vote(from, term, last);
            }
            Message::PreVoteReply { term, granted } => {
                self.handle_pre_vote_reply(from, term, granted);
            }
            Message::RequestVote { last_log_index, last_log_term, .. } => {
                let last = Position { index: last_log_index, term: last_log_term };
                self.handle_request_vote(from, last);
            }
            Message::VoteReply { granted, .. } => self.handle_vote_reply(from, granted),
            Message::AppendEntries {
                prev_log_index,
                prev_log_term,
                leader_commit,
                round,
                entries,
                ..
            } => {
                self.follow(from)?;
                self.heard_commit = self.heard_commit.max(leader_commit);
                let prev = Position { index: prev_log_index, term: prev_log_term };
                let append = Append { prev, leader_commit, round, entries };
                self.handle_append_entries(from, append);
            }
            Message::AppendReply { round, outcome, .. } => {
                self.handle_append_reply(from, round, outcome);
            }
            Message::InstallSnapshot {
                term,
                last_included_index,
                last_included_term,
                offset,
                data,
                done,
            } => {
                self.follow(from)?;
                let position = Position { index: last_included_index, term: last_included_term };
                let chunk = SnapshotChunk { from, term, position, offset, data, done };
                self.handle_install_snapshot(chunk);
            }
            Message::SnapshotReply { last_included_index, last_included_term, offset, .. } => {
                let position = Position { index: last_included_index, term: last_included_term };
                self.handle_snapshot_reply(from, position, offset);
            }
            Message::TimeoutNow { .. } => self.handle_timeout_now(from),
        }
        Ok(())
    }

    /// Section 5.1: newer terms are taken over, messages of older ones are rejected. Returns whether the
    /// message is to be handled; then its term is this node's own, pre-votes apart.
    fn step_term(&mut self, from: NodeId, message: &Message) -> bool {
        let (term, own) = (message.term(), self.hard_state.term);
        match message {
            // A pre-vote speaks of a term that nobody has begun yet.
            Message::RequestPreVote { .. } | Message::PreVoteReply { granted: true, .. } => true,
            Message::RequestVote { by_leader: false, .. }
                if term > own && self.hears_a_leader() =>
            {
                false
            }
            _ if term > own => {
                self.become_follower(term, None);
                true
            }
            _ if term == own => true,
            Message::AppendEntries { prev_log_index, .. } => {
                self.reject_stale_append(from, *prev_log_index);
                false
            }
            Message::InstallSnapshot { .. } => {
                self.reject_stale_append(from, 0);
                false
            }
            Message::RequestVote { .. } => {
                self.send(from, Message::VoteReply { term: own, granted: false });
                false
            }
            _ => false,
        }
    }

    /// Section 5.2: AppendEntries of the current term come from its one leader.
    fn follow(&mut self, leader: NodeId) -> Result<(), Contradiction> {
        let term = self.hard_state.term;
        match self.leader() {
            Some(known) if known != leader => Err(Contradiction { term, known, claims: leader }),
            _ => {
                self.become_follower(term, Some(leader));
                self.election_elapsed_ticks = 0;
                Ok(())
            }
        }
    }

    fn send(&mut self, to: NodeId, message: Message) {
        self.messages.push((to, message));
    }

    pub fn id(&self) -> NodeId {
        self.config.id
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    pub fn commit_index(&self) -> Index {
        self.commit_index
    }

    /// What is committed as far as this node has heard, which its own log may not reach; 0: it has heard nothing.
    pub fn known_commit(&self) -> Index {
        match self.role {
            Role::Leader(_) => self.commit_index,
            _ => self.heard_commit,
        }
    }

    pub fn elections(&self) -> Elections {
        self.elections
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// `leader`, `follower`, `candidate`, `pre-candidate`; `learner` for a follower that does not vote, `waiting`
    /// for a node that belongs to no cluster yet, `removed` for one that belongs to its cluster no more.
    #[inline(never)]
    pub fn role_name(&self) -> &'static str {
        let membership = self.membership();
        match self.role {
            Role::Follower { .. } if self.is_removed() => "removed",
            Role::Follower { .. } if !self.is_founded() => "waiting",
            Role::Follower { .. } if !membership.is_voter(self.config.id) => "learner",
            _ => self.role.name(),
        }
    }

    /// Who leads the current term, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        match self.role {
            Role::Follower { leader } => leader,
            Role::Leader(_) => Some(self.config.id),
            Role::PreCandidate { .. } | Role::Candidate { .. } => None,
        }
    }

    /// How far each follower's log is known to match, at the leader.
    #[inline(never)]
    pub fn match_indexes(&self) -> Vec<(NodeId, Index)> {
        match &self.role {
            Role::Leader(leadership) => {
                leadership.progress.iter().map(|(id, peer)| (*id, peer.match_index)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Of entries that this leader was proposed and has not committed.
    pub fn uncommitted_bytes(&self) -> usize {
        match &self.role {
            Role::Leader(leadership) => leadership.uncommitted_bytes,
            _ => 0,
        }
    }

    /// Reads that are neither confirmed nor aborted.
    pub fn reads_waiting(&self) -> usize {
        match &self.role {
            Role::Leader(leadership) => leadership.reads.len(),
            _ => 0,
        }
    }

    /// Whether it lost something that it had acknowledged, and has not got it back yet.
    pub fn is_damaged(&self) -> bool {
        self.lost_in_term > 0
    }

    /// Whether it may give a vote. A learner may: it can have become a voter without knowing it yet, and
    /// whoever asks counts only those that vote by its own log (section 6). A member that has not even the
    /// founding may vote for a log that a leader has written to, but not for the first leader: so that one's
    /// election leaves the founding on the disks of a majority.
    fn may_vote(&self, candidate_last: Position) -> bool {
        (self.is_founded() || candidate_last.term > FOUNDING_TERM) && !self.is_damaged()
    }

    /// Whether it may ask for votes. One that is not in the newest membership of its log may, until that is
    /// committed: its log may be the only one without which nobody can win. It does not count its own vote then
    /// (thesis 4.2.2).
    fn may_campaign(&self) -> bool {
        let id = self.config.id;
        let was_voter = || self.memberships.one_before().is_some_and(|before| before.is_voter(id));
        (self.membership().is_voter(id) || was_voter()) && !self.is_damaged()
    }
}
