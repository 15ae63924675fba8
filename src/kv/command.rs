//! What a log entry tells the store to do, and its bytes. The same bytes travel in a client's request, in
//! the log and to the followers, so they are written once and never re-encoded.

use super::timed::{REMOVE_EXPIRED, TRANSACTION, is_timed};
use super::{Blobs, TimedOp};
use crate::codec::{
    Malformed, Reader, put_blob, put_bool, put_i64, put_option, put_u8, put_u32, put_u64,
};
use crate::raft::Bytes;
use std::ops::Range;

/// Names one request of one client for exactly-once execution (Raft thesis 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId {
    /// The session: the log index of the `OpenSession` that began it. Never 0.
    pub session: u64,
    /// Rising within the session; a retry repeats the number.
    pub sequence: u64,
}

/// A command borrows from the bytes of its log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// Begins a session; its id is the index of this entry.
    OpenSession,
    Write {
        /// `None`: executed as often as it is in the log.
        request: Option<RequestId>,
        op: WriteOp<'a>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOp<'a> {
    Put {
        key: &'a [u8],
        value: &'a [u8],
    },
    Delete {
        key: &'a [u8],
    },
    /// Writes `value` if the key has the `expected` value (`None`: if it does not exist).
    CompareAndSet {
        key: &'a [u8],
        expected: Option<&'a [u8]>,
        value: &'a [u8],
    },
    /// Adds to a decimal integer; a missing key counts as 0.
    Increment {
        key: &'a [u8],
        delta: i64,
    },
    /// Writes `value` if the condition holds.
    Set {
        key: &'a [u8],
        value: &'a [u8],
        condition: Condition<'a>,
        /// Whether the outcome has the value from before.
        get: bool,
    },
    /// Removes the key, if there is nothing `expected` or it has that value.
    Remove {
        key: &'a [u8],
        expected: Option<&'a [u8]>,
        /// Whether the outcome has the value from before.
        get: bool,
    },
    /// Keys and their values in turn. Of a key that comes twice the last value stays.
    PutMany {
        pairs: Blobs<'a>,
    },
    DeleteMany {
        keys: Blobs<'a>,
    },
    /// Adds to the end of the value, unless it would then be longer than `bytes_max`. The limit is in
    /// the log because all nodes must come to the same result, whatever their own configuration says.
    Append {
        key: &'a [u8],
        value: &'a [u8],
        bytes_max: u32,
    },
    /// Removes everything.
    Flush,
    /// What depends on the time.
    Timed {
        /// In milliseconds of Unix time; 0: still to be written by the leader ([`Command::stamp`]).
        stamp: u64,
        op: TimedOp<'a>,
    },
}

/// What must be so for a value to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition<'a> {
    Always,
    /// The key does not exist.
    Absent,
    /// The key exists.
    Present,
    /// The key has this value.
    Equals(&'a [u8]),
}

const OPEN_SESSION: u8 = 0;
const PUT: u8 = 1;
const DELETE: u8 = 2;
const COMPARE_AND_SET: u8 = 3;
const INCREMENT: u8 = 4;
const SET: u8 = 5;
const REMOVE: u8 = 6;
const PUT_MANY: u8 = 7;
const DELETE_MANY: u8 = 8;
const APPEND: u8 = 9;
// 10 to 13 are the timed ones.
const FLUSH: u8 = 14;

/// In the first byte of a command, beside its kind: session and sequence follow.
const OF_SESSION: u8 = 0x40;

const ALWAYS: u8 = 0;
const ABSENT: u8 = 1;
const PRESENT: u8 = 2;
const EQUALS: u8 = 3;

impl<'a> WriteOp<'a> {
    /// The longest key in the operation.
    pub fn key_bytes(&self) -> usize {
        match *self {
            WriteOp::PutMany { pairs } => longest(pairs.pairs().map(|(key, _)| key)),
            WriteOp::DeleteMany { keys } => longest(keys.iter()),
            WriteOp::Timed { op, .. } => op.key_bytes(),
            _ => self.key().map_or(0, <[u8]>::len),
        }
    }

    /// The key of an operation that has one.
    pub(super) fn key(&self) -> Option<&'a [u8]> {
        match *self {
            WriteOp::Put { key, .. }
            | WriteOp::Delete { key }
            | WriteOp::CompareAndSet { key, .. }
            | WriteOp::Increment { key, .. }
            | WriteOp::Set { key, .. }
            | WriteOp::Remove { key, .. }
            | WriteOp::Append { key, .. } => Some(key),
            WriteOp::Timed {
                op: TimedOp::Set { key, .. } | TimedOp::Expire { key, .. }, ..
            } => Some(key),
            WriteOp::Timed { .. }
            | WriteOp::PutMany { .. }
            | WriteOp::DeleteMany { .. }
            | WriteOp::Flush => None,
        }
    }

    /// The longest value in the operation, or that it may lead to.
    pub fn value_bytes(&self) -> usize {
        match *self {
            WriteOp::Put { value, .. } => value.len(),
            WriteOp::CompareAndSet { expected, value, .. } => {
                value.len().max(expected.map_or(0, <[u8]>::len))
            }
            WriteOp::Set { value, condition, .. } => value.len().max(condition.value_bytes()),
            WriteOp::Remove { expected, .. } => expected.map_or(0, <[u8]>::len),
            WriteOp::PutMany { pairs } => longest(pairs.pairs().map(|(_, value)| value)),
            WriteOp::Append { value, bytes_max, .. } => value.len().max(bytes_max as usize),
            WriteOp::Timed { op, .. } => op.value_bytes(),
            WriteOp::Delete { .. }
            | WriteOp::DeleteMany { .. }
            | WriteOp::Increment { .. }
            | WriteOp::Flush => 0,
        }
    }

    /// Whether it can make the state larger.
    pub fn grows(&self) -> bool {
        match self {
            WriteOp::Delete { .. }
            | WriteOp::DeleteMany { .. }
            | WriteOp::Remove { .. }
            | WriteOp::Flush => false,
            WriteOp::Timed { op, .. } => op.grows(),
            _ => true,
        }
    }

    pub(super) fn kind(&self) -> u8 {
        match self {
            WriteOp::Put { .. } => PUT,
            WriteOp::Delete { .. } => DELETE,
            WriteOp::CompareAndSet { .. } => COMPARE_AND_SET,
            WriteOp::Increment { .. } => INCREMENT,
            WriteOp::Set { .. } => SET,
            WriteOp::Remove { .. } => REMOVE,
            WriteOp::PutMany { .. } => PUT_MANY,
            WriteOp::DeleteMany { .. } => DELETE_MANY,
            WriteOp::Append { .. } => APPEND,
            WriteOp::Flush => FLUSH,
            WriteOp::Timed { op, .. } => op.kind(),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            WriteOp::Put { key, value } => {
                put_blob(out, key);
                put_blob(out, value);
            }
            WriteOp::Delete { key } => put_blob(out, key),
            WriteOp::CompareAndSet { key, expected, value } => {
                put_blob(out, key);
                put_option(out, expected, put_blob);
                put_blob(out, value);
            }
            WriteOp::Increment { key, delta } => {
                put_blob(out, key);
                put_i64(out, delta);
            }
            WriteOp::Set { key, value, condition, get } => {
                put_blob(out, key);
                condition.encode(out);
                put_bool(out, get);
                put_blob(out, value);
            }
            WriteOp::Remove { key, expected, get } => {
                put_blob(out, key);
                put_option(out, expected, put_blob);
                put_bool(out, get);
            }
            WriteOp::PutMany { pairs: items } | WriteOp::DeleteMany { keys: items } => {
                items.encode(out);
            }
            WriteOp::Append { key, value, bytes_max } => {
                put_blob(out, key);
                put_u32(out, bytes_max);
                put_blob(out, value);
            }
            WriteOp::Flush => {}
            WriteOp::Timed { stamp, op } => {
                put_u64(out, stamp);
                op.encode(out);
            }
        }
    }

    /// What is not timed.
    pub(super) fn read(kind: u8, reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        match kind {
            FLUSH => return Ok(WriteOp::Flush),
            PUT_MANY => {
                let pairs = Blobs::read(reader)?;
                let is_even = pairs.count().is_multiple_of(2);
                return if is_even {
                    Ok(WriteOp::PutMany { pairs })
                } else {
                    Err(Malformed("number of keys: the last one has no value"))
                };
            }
            DELETE_MANY => return Ok(WriteOp::DeleteMany { keys: Blobs::read(reader)? }),
            _ => {}
        }
        let key = reader.blob("key")?;
        let expected = |reader: &mut Reader<'a>| {
            reader.option("expected value", |reader| reader.blob("expected value"))
        };
        Ok(match kind {
            PUT => WriteOp::Put { key, value: reader.blob("value")? },
            DELETE => WriteOp::Delete { key },
            COMPARE_AND_SET => WriteOp::CompareAndSet {
                key,
                expected: expected(reader)?,
                value: reader.blob("value")?,
            },
            INCREMENT => WriteOp::Increment { key, delta: reader.i64("delta")? },
            SET => WriteOp::Set {
                key,
                condition: Condition::read(reader)?,
                get: reader.bool("whether the value from before is wanted")?,
                value: reader.blob("value")?,
            },
            REMOVE => WriteOp::Remove {
                key,
                expected: expected(reader)?,
                get: reader.bool("whether the value from before is wanted")?,
            },
            APPEND => WriteOp::Append {
                key,
                bytes_max: reader.u32("longest value")?,
                value: reader.blob("value")?,
            },
            _ => return Err(Malformed("command kind")),
        })
    }
}

fn longest<'a>(items: impl Iterator<Item = &'a [u8]>) -> usize {
    items.map(<[u8]>::len).max().unwrap_or(0)
}

impl<'a> Condition<'a> {
    pub fn holds(&self, current: Option<&[u8]>) -> bool {
        match *self {
            Condition::Always => true,
            Condition::Absent => current.is_none(),
            Condition::Present => current.is_some(),
            Condition::Equals(value) => current == Some(value),
        }
    }

    /// How long the value is that it names.
    pub(super) fn value_bytes(&self) -> usize {
        match self {
            Condition::Equals(value) => value.len(),
            Condition::Always | Condition::Absent | Condition::Present => 0,
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Condition::Always => put_u8(out, ALWAYS),
            Condition::Absent => put_u8(out, ABSENT),
            Condition::Present => put_u8(out, PRESENT),
            Condition::Equals(value) => {
                put_u8(out, EQUALS);
                put_blob(out, value);
            }
        }
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(match reader.u8("condition")? {
            ALWAYS => Condition::Always,
            ABSENT => Condition::Absent,
            PRESENT => Condition::Present,
            EQUALS => Condition::Equals(reader.blob("expected value")?),
            _ => return Err(Malformed("condition")),
        })
    }
}

impl<'a> Command<'a> {
    /// Kind, session and sequence if there is a session, the stamp of a timed command, then the fields of the
    /// kind.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Command::Write { request, op } = self else {
            put_u8(out, OPEN_SESSION);
            return;
        };
        match request {
            None => put_u8(out, op.kind()),
            Some(RequestId { session, sequence }) => {
                put_u8(out, op.kind() | OF_SESSION);
                put_u64(out, *session);
                put_u64(out, *sequence);
            }
        }
        op.encode(out);
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let command = Self::read(&mut reader)?;
        reader.finish("command: bytes after its end")?;
        Ok(command)
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let first = reader.u8("command kind")?;
        if first == OPEN_SESSION {
            return Ok(Command::OpenSession);
        }
        let (kind, is_of_session) = kind_in(first);
        let request = is_of_session.then(|| RequestId::read(reader)).transpose()?;
        let op = if is_timed(kind) {
            let stamp = reader.u64("stamp")?;
            WriteOp::Timed { stamp, op: TimedOp::read(kind, reader)? }
        } else {
            WriteOp::read(kind, reader)?
        };
        Ok(Command::Write { request, op })
    }

    /// The key that it is about, if it is about one.
    pub fn key(bytes: &'a [u8]) -> Option<&'a [u8]> {
        match Self::decode(bytes).ok()? {
            Command::Write { op, .. } => op.key(),
            Command::OpenSession => None,
        }
    }

    /// Whether it may cost much more than its bytes say ([`Command::needs`]), by its kind.
    pub fn may_be_heavy(bytes: &[u8]) -> bool {
        bytes.first().is_some_and(|first| matches!(kind_in(*first).0, APPEND | TRANSACTION))
    }

    /// Whether it removes keys because their time has come.
    pub fn removes_expired(bytes: &[u8]) -> bool {
        bytes.first().is_some_and(|first| kind_in(*first).0 == REMOVE_EXPIRED)
    }

    /// Writes the time, in milliseconds of Unix time, into a command that needs it.
    pub fn stamp(bytes: &mut Bytes, now_ms: u64) {
        let Some(at) = bytes.first().and_then(|first| stamp_at(*first)) else { return };
        if bytes.len() >= at.end {
            bytes.make_mut()[at].copy_from_slice(&now_ms.to_be_bytes());
        }
    }
}

impl RequestId {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let session = reader.u64("session")?;
        if session == 0 {
            return Err(Malformed("session: 0 is none"));
        }
        Ok(RequestId { session, sequence: reader.u64("sequence")? })
    }
}

/// The kind that the first byte of a command names, and whether it is one of a session.
fn kind_in(first: u8) -> (u8, bool) {
    (first & !OF_SESSION, first & OF_SESSION != 0)
}

/// Where the stamp is in a command with this first byte, if it has one.
fn stamp_at(first: u8) -> Option<Range<usize>> {
    let (kind, is_of_session) = kind_in(first);
    let start = if is_of_session { 1 + 8 + 8 } else { 1 };
    is_timed(kind).then_some(start..start + 8)
}
