//! Bytes to messages and back, for everything that comes through the one port. Pure: no sockets, no
//! clock, no state but what the caller hands back. `wire-protocol.md` is the same thing in prose and hex.
//!
//! A connection's first bytes say what it speaks ([`sniff`]):
//!
//! - *binary* ([`frame`]): a magic, then frames with a length and a checksum. The first frame each way is
//!   a hello ([`hello`]); after it a connection carries either a client's requests and their replies
//!   ([`client`]) or what nodes say to each other ([`peer`]).
//! - *text*: RESP arrays, as Redis libraries send them, or lines that a person types ([`resp`]); what
//!   the words mean is in [`text`].
//! - *HTTP* ([`http`]): probes and a scraper; what a scraper reads is written by [`exposition`].
//!
//! All parsers have the same shape: a function of the bytes received so far that answers "need more",
//! "here is one, this long", "too long: skip this much and go on" or "broken: close". Parsing the same
//! bytes again after more have come gives the same answer, so that the speed at which bytes trickle in
//! never matters. Nothing is allocated because of a length that is claimed but has not arrived.

pub mod changes;
pub mod client;
pub mod exposition;
pub mod frame;
pub mod hello;
pub mod http;
mod limits;
pub mod peer;
pub mod resp;
pub mod sniff;
pub mod text;

pub use crate::kv::Limits;
pub use limits::{
    PEER_BATCH_BYTES_MAX, PEER_FRAME_BYTES_MAX, client_frame_bytes_max, peer_frame_bytes_max,
};

use crate::codec::Malformed;

/// What a frame is: the first byte of its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    Hello = 0x01,
    Welcome = 0x02,
    Refused = 0x03,
    // A client's requests ...
    Get = 0x10,
    Write = 0x11,
    Digest = 0x12,
    Status = 0x13,
    Member = 0x14,
    Read = 0x15,
    Changes = 0x16,
    Backup = 0x17,
    // ... and their replies: the request's number plus 0x10.
    Value = 0x20,
    Written = 0x21,
    StateDigest = 0x22,
    StatusReply = 0x23,
    MemberReply = 0x24,
    FoundReply = 0x25,
    ChangesReply = 0x26,
    BackupReply = 0x27,
    Failed = 0x2f,
    // Between nodes.
    RequestPreVote = 0x40,
    PreVoteReply = 0x41,
    RequestVote = 0x42,
    VoteReply = 0x43,
    AppendEntries = 0x44,
    AppendReply = 0x45,
    InstallSnapshot = 0x46,
    SnapshotReply = 0x47,
    TimeoutNow = 0x48,
    Forward = 0x50,
    ForwardReply = 0x51,
    DigestReport = 0x52,
    Diverged = 0x53,
    Found = 0x54,
    Applies = 0x55,
}

impl Kind {
    pub const ALL: [Kind; 35] = [
        Kind::Hello,
        Kind::Welcome,
        Kind::Refused,
        Kind::Get,
        Kind::Write,
        Kind::Digest,
        Kind::Status,
        Kind::Member,
        Kind::Read,
        Kind::Changes,
        Kind::Backup,
        Kind::Value,
        Kind::Written,
        Kind::StateDigest,
        Kind::StatusReply,
        Kind::MemberReply,
        Kind::FoundReply,
        Kind::ChangesReply,
        Kind::BackupReply,
        Kind::Failed,
        Kind::RequestPreVote,
        Kind::PreVoteReply,
        Kind::RequestVote,
        Kind::VoteReply,
        Kind::AppendEntries,
        Kind::AppendReply,
        Kind::InstallSnapshot,
        Kind::SnapshotReply,
        Kind::TimeoutNow,
        Kind::Forward,
        Kind::ForwardReply,
        Kind::DigestReport,
        Kind::Diverged,
        Kind::Found,
        Kind::Applies,
    ];

    pub fn from_u8(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|known| *known as u8 == byte)
    }

    fn read(reader: &mut crate::codec::Reader<'_>) -> Result<Self, Malformed> {
        Kind::from_u8(reader.u8("message type")?).ok_or(Malformed("message type"))
    }
}
