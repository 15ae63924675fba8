//! What a client may ask of the store and what it is told, whatever protocol it speaks.

use super::{Outcome, Value};
use crate::raft::{Bytes, Index, NodeId, Term};
use std::rc::Rc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Linearizable.
    Get { key: Rc<[u8]> },
    /// The bytes of a [`super::Command`]; they become the log entry as they are.
    Write { command: Bytes },
    /// A hash of the whole state, linearizable.
    Digest,
    /// Of several keys at one moment; linearizable.
    Read(ReadOp),
    /// The whole state, in pieces.
    Backup(BackupRequest),
    /// To the leader: a change of who belongs to the cluster, or of who leads it.
    Member(MemberRequest),
}

/// A read that is not of one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadOp {
    /// The values of these keys. Together they are at most [`super::Limits::answer_bytes_max`] long.
    Values(Vec<Rc<[u8]>>),
    /// How long the values of these keys are.
    Lengths(Vec<Rc<[u8]>>),
    Range(Range),
    /// Any key, or none if there is none.
    RandomKey,
    /// When this key goes.
    Expiry(Rc<[u8]>),
    /// Which entries of the log have changed these keys last.
    Versions(Vec<Rc<[u8]>>),
    /// A hash of the whole state.
    Digest,
}

/// Keys in order, from `start` on and before `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub start: Rc<[u8]>,
    pub end: Option<Rc<[u8]>>,
    /// From the last key to the first.
    pub reverse: bool,
    /// Only keys that fit this pattern ([`super::glob`]).
    pub pattern: Option<Rc<[u8]>>,
    /// Each key is followed by its value.
    pub with_values: bool,
    /// Of a partial answer the most keys that are looked at, else the most keys that are found.
    pub keys_max: u32,
    /// The answer may end early and then says where to go on. Else what is too much is an error, and
    /// nothing is left out in silence.
    pub partial: bool,
}

/// A step of a backup. All steps go to the node that answered the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupRequest {
    /// Linearizable. The answer has the index that the state is of, or of an earlier one.
    Begin,
    /// Whether there is a snapshot at this index or a later one yet, and which.
    Find { index: Index },
    /// Bytes of the snapshot at this position, from `offset` on.
    Piece { index: Index, term: Term, offset: u64 },
}

/// What a [`BackupRequest`] brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupPart {
    Begun,
    NotYet,
    /// How long the snapshot is, and the term of its last entry.
    Found {
        term: Term,
        bytes: u64,
    },
    Piece(Rc<[u8]>),
}

/// What a [`ReadOp`] has found, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Values(Vec<Option<Value>>),
    Lengths(Vec<Option<u32>>),
    /// Keys, or keys and values in turn; and the least key that was not looked at, if the answer is
    /// partial.
    Keys {
        items: Vec<Value>,
        next: Option<Rc<[u8]>>,
    },
    /// When the key goes, 0: never; `None`: it does not exist. And what time it was. Both in milliseconds of
    /// Unix time.
    Expiry {
        expires_at: Option<u64>,
        now: u64,
    },
    /// For each key the index of the entry that changed it last; 0: it does not exist.
    Versions(Vec<Index>),
    Digest {
        digest: u64,
        keys: u64,
    },
}

/// Members are called by their names, such as `raft-2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberRequest {
    /// A node that waits to be taken in becomes a learner.
    Add {
        name: String,
    },
    /// A learner that has caught up becomes a voter.
    Promote {
        name: String,
    },
    Remove {
        name: String,
    },
    /// Leadership goes to this voter, or to the one that is best prepared.
    Transfer {
        to: Option<String>,
    },
}

impl Request {
    /// Whether carrying it out twice may differ from carrying it out once.
    pub fn is_write(&self) -> bool {
        matches!(self, Request::Write { .. } | Request::Member(_))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// `index` is the last log index that the read saw.
    Value {
        value: Option<Value>,
        index: Index,
        leader: NodeId,
    },
    /// `index` is the log index of the write; for a retry that of its first execution.
    Written {
        outcome: Outcome,
        index: Index,
        leader: NodeId,
    },
    Digest {
        digest: u64,
        keys: u64,
        index: Index,
        leader: NodeId,
    },
    Found {
        found: Found,
        index: Index,
        leader: NodeId,
    },
    /// `index` is that of the state.
    Backup {
        part: BackupPart,
        index: Index,
        leader: NodeId,
    },
    /// The members are changed, by the log entry at `index`, or `leader` is the new leader, since that index.
    Member {
        index: Index,
        leader: NodeId,
    },
    Failed(Failure),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: FailureCode,
    /// What happened, to what, and what to do.
    pub message: String,
    /// Where to go instead, if known.
    pub leader: Option<LeaderHint>,
}

/// How the message begins if the store has as much as it may. It has no code of its own: a node of version 0.1.0 that
/// passed the request on would close its connection.
pub const STORE_IS_FULL: &str = "the store is full";

impl Failure {
    /// Whether what makes the store larger is refused, and other requests are not.
    pub fn is_store_full(&self) -> bool {
        self.code == FailureCode::Overloaded && self.message.starts_with(STORE_IS_FULL)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderHint {
    pub id: NodeId,
    /// `host:port` as the answering node knows it.
    pub address: String,
}

/// Below 128: certainly not done. From 128 on: the outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum FailureCode {
    /// This node is not the leader; `leader` says who is.
    NotLeader = 1,
    /// No leader is known at the moment.
    NoLeader = 2,
    /// Key, value or frame beyond the limit.
    TooLarge = 3,
    /// The request could not be understood.
    Malformed = 4,
    /// A limit on unfinished work is reached.
    Overloaded = 5,
    /// The node is leaving.
    ShuttingDown = 6,
    /// The members cannot be changed in this way, or not now.
    NotPossible = 7,
    /// The changes that were asked for are not remembered any more.
    Compacted = 8,
    /// Leadership was lost, or the way to the leader, after the write was handed on.
    OutcomeUnknown = 128,
    /// No answer within the request timeout.
    TimedOut = 129,
}

impl FailureCode {
    pub const ALL: [FailureCode; 10] = [
        FailureCode::NotLeader,
        FailureCode::NoLeader,
        FailureCode::TooLarge,
        FailureCode::Malformed,
        FailureCode::Overloaded,
        FailureCode::ShuttingDown,
        FailureCode::NotPossible,
        FailureCode::Compacted,
        FailureCode::OutcomeUnknown,
        FailureCode::TimedOut,
    ];

    pub fn from_u8(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|known| *known as u8 == code)
    }

    /// For people.
    pub fn in_words(self) -> &'static str {
        match self {
            FailureCode::NotLeader => "not the leader",
            FailureCode::NoLeader => "no leader known",
            FailureCode::TooLarge => "too large",
            FailureCode::Malformed => "not understood",
            FailureCode::Overloaded => "overloaded",
            FailureCode::ShuttingDown => "shutting down",
            FailureCode::NotPossible => "not possible",
            FailureCode::Compacted => "compacted",
            FailureCode::OutcomeUnknown => "outcome unknown",
            FailureCode::TimedOut => "timed out",
        }
    }

    /// Whether the request may have been, or may yet be, carried out.
    pub fn outcome_is_unknown(self) -> bool {
        self as u8 >= 128
    }
}
