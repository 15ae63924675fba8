//! What a log entry tells the store to do, and its bytes. The same bytes travel in a client's request, in
//! the log and to the followers, so they are written once and never re-encoded.

use crate::codec::{Malformed, Reader, put_blob, put_i64, put_option, put_u8, put_u64};

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
}

const OPEN_SESSION: u8 = 0;
const PUT: u8 = 1;
const DELETE: u8 = 2;
const COMPARE_AND_SET: u8 = 3;
const INCREMENT: u8 = 4;

impl<'a> WriteOp<'a> {
    pub fn key(&self) -> &'a [u8] {
        match *self {
            WriteOp::Put { key, .. }
            | WriteOp::Delete { key }
            | WriteOp::CompareAndSet { key, .. }
            | WriteOp::Increment { key, .. } => key,
        }
    }

    /// The longest value in the operation.
    pub fn value_bytes(&self) -> usize {
        match *self {
            WriteOp::Put { value, .. } => value.len(),
            WriteOp::CompareAndSet { expected, value, .. } => {
                value.len().max(expected.map_or(0, <[u8]>::len))
            }
            WriteOp::Delete { .. } | WriteOp::Increment { .. } => 0,
        }
    }
}

impl<'a> Command<'a> {
    /// Kind, session and sequence (both 0 without a session), then the fields of the kind.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Command::Write { request, op } = self else {
            put_u8(out, OPEN_SESSION);
            return;
        };
        put_u8(
            out,
            match op {
                WriteOp::Put { .. } => PUT,
                WriteOp::Delete { .. } => DELETE,
                WriteOp::CompareAndSet { .. } => COMPARE_AND_SET,
                WriteOp::Increment { .. } => INCREMENT,
            },
        );
        put_u64(out, request.map_or(0, |id| id.session));
        put_u64(out, request.map_or(0, |id| id.sequence));
        put_blob(out, op.key());
        match *op {
            WriteOp::Put { value, .. } => put_blob(out, value),
            WriteOp::Delete { .. } => {}
            WriteOp::CompareAndSet { expected, value, .. } => {
                put_option(out, expected, put_blob);
                put_blob(out, value);
            }
            WriteOp::Increment { delta, .. } => put_i64(out, delta),
        }
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
        let kind = reader.u8("command kind")?;
        if kind == OPEN_SESSION {
            return Ok(Command::OpenSession);
        }
        let session = reader.u64("session")?;
        let sequence = reader.u64("sequence")?;
        if session == 0 && sequence != 0 {
            return Err(Malformed("sequence without a session"));
        }
        let request = (session != 0).then_some(RequestId { session, sequence });
        let key = reader.blob("key")?;
        let op = match kind {
            PUT => WriteOp::Put { key, value: reader.blob("value")? },
            DELETE => WriteOp::Delete { key },
            COMPARE_AND_SET => WriteOp::CompareAndSet {
                key,
                expected: reader.option("expected value", |r| r.blob("expected value"))?,
                value: reader.blob("value")?,
            },
            INCREMENT => WriteOp::Increment { key, delta: reader.i64("delta")? },
            _ => return Err(Malformed("command kind")),
        };
        Ok(Command::Write { request, op })
    }
}
