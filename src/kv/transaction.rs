//! Several operations as one: all of them, with nothing in between, or none (Redis's `MULTI`).
//!
//! It is one entry of the log, and carries the keys that its client has watched with the index at which each
//! was last changed. So it means the same whoever passes it on, and however often it is asked again.

use super::timed::{EXPIRE, REMOVE_EXPIRED, SET, TRANSACTION};
use super::{ReadOp, TimedOp, WriteOp};
use crate::codec::{Malformed, Reader, put_blob, put_u8, put_u32, put_u64};
use crate::raft::Index;
use std::fmt;

/// Operations of one transaction, at most.
pub const STEPS_MAX: usize = 16 * 1024;
/// Keys that one client may watch.
pub const WATCHED_KEYS_MAX: usize = 1024;

/// What each step takes in the answer, at least, in bytes.
pub const STEP_ANSWER_BYTES: usize = 16;

/// The kind of a step that reads; those of writes are the kinds of commands.
const READ: u8 = 128;

/// Its parts are checked when they are read, so that walking them cannot fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transaction<'a> {
    /// If one of them differs, nothing is done.
    pub watched: Watched<'a>,
    /// If the answers would be longer, in bytes, nothing is done. The limit is in the log because all nodes
    /// must come to the same result, whatever their own configuration says.
    pub answer_bytes_max: u32,
    pub steps: Steps<'a>,
}

/// Keys, each with the index of the entry that changed it last; 0: it does not exist.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Watched<'a> {
    count: u32,
    bytes: &'a [u8],
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Steps<'a> {
    count: u32,
    bytes: &'a [u8],
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<'a> {
    /// Neither timed nor a session's.
    Write(WriteOp<'a>),
    /// With the stamp of the whole; no transaction.
    Timed(TimedOp<'a>),
    Read(ReadOp),
}

/// Watched keys that are being collected.
#[derive(Debug, Clone, Default)]
pub struct WatchedBuffer {
    count: u32,
    bytes: Vec<u8>,
}

/// Steps that are being collected.
#[derive(Debug, Clone, Default)]
pub struct StepBuffer {
    count: u32,
    bytes: Vec<u8>,
}

impl<'a> Transaction<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.watched.count);
        out.extend_from_slice(self.watched.bytes);
        put_u32(out, self.answer_bytes_max);
        put_u32(out, self.steps.count);
        out.extend_from_slice(self.steps.bytes);
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Transaction {
            watched: Watched::read(reader)?,
            answer_bytes_max: reader.u32("longest answer")?,
            steps: Steps::read(reader)?,
        })
    }

    /// The longest key in it.
    pub(super) fn key_bytes(&self) -> usize {
        let watched = self.watched.iter().map(|(key, _)| key.len());
        let used = self.steps.iter().map(|step| match step {
            Step::Write(op) => op.key_bytes(),
            Step::Timed(op) => op.key_bytes(),
            Step::Read(op) => op.key_bytes(),
        });
        watched.chain(used).max().unwrap_or(0)
    }

    /// The longest value in it, or that a step may lead to.
    pub(super) fn value_bytes(&self) -> usize {
        let values = self.steps.iter().map(|step| match step {
            Step::Write(op) => op.value_bytes(),
            Step::Timed(op) => op.value_bytes(),
            Step::Read(_) => 0,
        });
        values.max().unwrap_or(0)
    }

    pub(super) fn grows(&self) -> bool {
        self.steps.iter().any(|step| match step {
            Step::Write(op) => op.grows(),
            Step::Timed(op) => op.grows(),
            Step::Read(_) => false,
        })
    }
}

impl<'a> Watched<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let count = reader.u32("number of watched keys")?;
        let whole = reader.rest();
        for _ in 0..count {
            watched(reader)?;
        }
        let bytes = &whole[..whole.len() - reader.rest().len()];
        Ok(Watched { count, bytes })
    }

    pub fn count(&self) -> usize {
        self.count as usize
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Index)> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || watched(&mut reader).ok())
    }
}

fn watched<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], Index), Malformed> {
    Ok((reader.blob("watched key")?, reader.u64("index of a watched key")?))
}

impl<'a> Steps<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let count = reader.u32("number of steps")?;
        let whole = reader.rest();
        for _ in 0..count {
            Step::read(reader)?;
        }
        let bytes = &whole[..whole.len() - reader.rest().len()];
        Ok(Steps { count, bytes })
    }

    pub fn count(&self) -> usize {
        self.count as usize
    }

    pub fn iter(&self) -> impl Iterator<Item = Step<'a>> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || Step::read(&mut reader).ok())
    }
}

impl<'a> Step<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Step::Write(op) => {
                put_u8(out, op.kind());
                op.encode(out);
            }
            Step::Timed(op) => {
                put_u8(out, op.kind());
                op.encode(out);
            }
            Step::Read(op) => {
                put_u8(out, READ);
                op.encode(out);
            }
        }
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        match reader.u8("kind of a step")? {
            READ => ReadOp::read(reader).map(Step::Read),
            kind @ (SET | EXPIRE) => TimedOp::read(kind, reader).map(Step::Timed),
            REMOVE_EXPIRED | TRANSACTION => Err(Malformed("kind of a step")),
            kind => WriteOp::read(kind, reader).map(Step::Write),
        }
    }
}

impl WatchedBuffer {
    pub fn push(&mut self, key: &[u8], modified: Index) {
        put_blob(&mut self.bytes, key);
        put_u64(&mut self.bytes, modified);
        self.count += 1;
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        self.watched().iter().any(|(watched, _)| watched == key)
    }

    pub fn watched(&self) -> Watched<'_> {
        Watched { count: self.count, bytes: &self.bytes }
    }

    /// Encoded.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl StepBuffer {
    pub fn push(&mut self, step: &Step<'_>) {
        step.encode(&mut self.bytes);
        self.count += 1;
    }

    pub fn steps(&self) -> Steps<'_> {
        Steps { count: self.count, bytes: &self.bytes }
    }

    /// Encoded.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl fmt::Debug for Watched<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(key, index): (&[u8], Index)| (key.escape_ascii().to_string(), index);
        f.debug_list().entries(self.iter().map(shown)).finish()
    }
}

impl fmt::Debug for Steps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
