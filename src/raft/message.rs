//! What Raft nodes say to each other, and what they keep on disk. One variant per RPC and reply, each
//! with only the fields it needs; names are those of Figure 2 of the Raft paper.

use super::{Bytes, Membership};
use std::rc::Rc;

/// Of one data folder: the number at the end of the node's name (2 for `raft-2`) in the upper 16 bits, and 48
/// bits that were drawn when the folder was made. The protocol only compares it.
pub type NodeId = u64;

const INCARNATION_BITS: u32 = 48;
/// The largest number at the end of a node's name.
pub const NUMBER_MAX: u64 = u16::MAX as u64;

/// The node of this number whose data folder drew this incarnation; its upper bits do not count.
pub fn node_id(number: u64, incarnation: u64) -> NodeId {
    assert!(number <= NUMBER_MAX, "numbers of nodes have 16 bits");
    number << INCARNATION_BITS | incarnation & ((1 << INCARNATION_BITS) - 1)
}

/// The number at the end of the node's name: what people, clients and addresses go by.
pub fn number(id: NodeId) -> u64 {
    id >> INCARNATION_BITS
}
/// A term of Raft, counted from 1; 0 is "before any election".
pub type Term = u64;
/// A position in the log, counted from 1; 0 is "before the first entry".
pub type Index = u64;
/// A read round of one leader in one term, counted from 1 (see `read.rs`).
pub type Round = u64;

/// What a log entry carries. Raft never looks inside a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// The empty entry that a new leader starts its term with (section 8).
    Noop,
    /// Shared, so that the log, the write-ahead log and every follower's message hold one copy.
    Command(Bytes),
    /// Who belongs to the cluster from here on (section 6).
    Members(Rc<Membership>),
}

impl Payload {
    pub fn len(&self) -> usize {
        match self {
            Payload::Noop => 0,
            Payload::Command(bytes) => bytes.len(),
            Payload::Members(membership) => membership.cost_bytes(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub term: Term,
    pub index: Index,
    pub payload: Payload,
}

impl Entry {
    /// Fixed cost of an entry in a message or in memory, added to its payload by every limit in bytes.
    pub const OVERHEAD_BYTES: usize = 32;

    pub fn cost_bytes(&self) -> usize {
        self.payload.len() + Self::OVERHEAD_BYTES
    }
}

/// Figure 2, "persistent state on all servers", less the log itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HardState {
    pub term: Term,
    pub voted_for: Option<NodeId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// "Would you vote for me in `term`?" (thesis 9.6). Changes no state at the receiver.
    RequestPreVote {
        term: Term,
        last_log_index: Index,
        last_log_term: Term,
    },
    /// `term` is the term asked about if granted, the replier's own term if not.
    PreVoteReply {
        term: Term,
        granted: bool,
    },
    /// Section 5.2 and 5.4.1.
    RequestVote {
        term: Term,
        last_log_index: Index,
        last_log_term: Term,
        /// The leader has asked for this election, so nobody has to protect it (thesis 4.2.3).
        by_leader: bool,
    },
    VoteReply {
        term: Term,
        granted: bool,
    },
    /// Section 5.3; without entries it is the heartbeat of section 5.2. The entries are those right
    /// after `prev_log_index`, without gaps.
    AppendEntries {
        term: Term,
        prev_log_index: Index,
        prev_log_term: Term,
        leader_commit: Index,
        /// The newest read round the leader has begun; the reply repeats it.
        round: Round,
        entries: Vec<Entry>,
    },
    AppendReply {
        term: Term,
        round: Round,
        outcome: AppendOutcome,
    },
    /// Section 7, Figure 13: a piece of the leader's snapshot, which covers the log up to
    /// `last_included_index`.
    InstallSnapshot {
        term: Term,
        last_included_index: Index,
        last_included_term: Term,
        /// Where `data` belongs, in bytes from the start of the snapshot.
        offset: u64,
        data: Rc<[u8]>,
        /// `data` is the last piece.
        done: bool,
    },
    /// How many bytes of that snapshot the follower has on disk. When it has installed all of it, it
    /// answers with an `AppendReply` instead.
    SnapshotReply {
        term: Term,
        last_included_index: Index,
        last_included_term: Term,
        offset: u64,
    },
    /// From a leader to the voter that is to succeed it: begin an election at once (thesis 3.10).
    TimeoutNow {
        term: Term,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendOutcome {
    /// The log matches the leader's up to here, and is on disk up to here.
    Accepted { match_index: Index },
    /// The log has no entry of the asked term at `prev_log_index` (repeated from the request, so that a
    /// late reply is told from a current one). The newest entry that may match is at `hint_index`, of
    /// `hint_term`: section 5.3, the fast back-up. `lost_entries`: the follower's disk has lost some
    /// that it had acknowledged, so what the leader knows of its log does not hold any more.
    Rejected { prev_log_index: Index, hint_index: Index, hint_term: Term, lost_entries: bool },
}

impl Message {
    pub fn term(&self) -> Term {
        match *self {
            Message::RequestPreVote { term, .. }
            | Message::PreVoteReply { term, .. }
            | Message::RequestVote { term, .. }
            | Message::VoteReply { term, .. }
            | Message::AppendEntries { term, .. }
            | Message::AppendReply { term, .. }
            | Message::InstallSnapshot { term, .. }
            | Message::SnapshotReply { term, .. }
            | Message::TimeoutNow { term } => term,
        }
    }
}
