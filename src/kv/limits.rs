//! How long keys and values may be.

use super::{
    Command, Failure, FailureCode, ReadOp, Request, STEPS_MAX, Step, TimedOp, Transaction,
    WATCHED_KEYS_MAX, WriteOp,
};

/// Default limit of a key, in bytes.
pub const KEY_BYTES_MAX: usize = 4 * 1024;
/// Default limit of a value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;

/// Largest key and value that a node accepts. All nodes of a cluster should have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In bytes.
    pub key_bytes_max: u32,
    /// In bytes.
    pub value_bytes_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { key_bytes_max: KEY_BYTES_MAX as u32, value_bytes_max: VALUE_BYTES_MAX as u32 }
    }
}

/// The most keys of one read.
pub const READ_KEYS_MAX: usize = 1024;

/// However short keys and values are, an answer with several has this room, in bytes.
const ANSWER_BYTES_MIN: usize = 32 * 1024;

/// Room in a command, and the frame with it, for everything that is neither key nor value, in bytes.
const COMMAND_OVERHEAD_BYTES: usize = 1024;

/// However short keys and values are, a status, the message of a failure, and a typed line with a length
/// before each of its words have this room, in bytes.
const COMMAND_BYTES_MIN: usize = 72 * 1024;

/// What a key and its value take in an answer besides their bytes.
const PAIR_BYTES: usize = 16;

impl Limits {
    /// Keys and values that one answer may have in all, in bytes: it has to fit into a frame between
    /// nodes.
    pub fn answer_bytes_max(&self) -> usize {
        let longest = self.value_bytes_max as usize + self.key_bytes_max as usize;
        (longest + PAIR_BYTES).max(ANSWER_BYTES_MIN)
    }

    /// The longest command, in bytes: a compare-and-set of the longest key and two of the longest values.
    pub fn command_bytes_max(&self) -> usize {
        let values = (self.value_bytes_max as usize).saturating_mul(2);
        let longest = values.saturating_add(self.key_bytes_max as usize);
        longest.saturating_add(COMMAND_OVERHEAD_BYTES).max(COMMAND_BYTES_MIN)
    }

    /// Refuses what a node with these limits would have to store and could not have taken itself. Other nodes may
    /// have limits of their own for answers.
    pub fn check_lengths(&self, request: &Request) -> Result<(), Failure> {
        let Request::Write { command } = request else { return Ok(()) };
        if let Ok(Command::Write { op, .. }) = Command::decode(command) {
            within("key", op.key_bytes(), self.key_bytes_max)?;
            within("value", op.value_bytes(), self.value_bytes_max)?;
        }
        let limit = u32::try_from(self.command_bytes_max()).unwrap_or(u32::MAX);
        within("command", command.len(), limit)
    }

    /// Refuses a request whose key or value is too long, or whose command cannot be read.
    pub fn check(&self, request: &Request) -> Result<(), Failure> {
        match request {
            Request::Get { key } => within("key", key.len(), self.key_bytes_max),
            Request::Write { command } => match Command::decode(command) {
                Ok(Command::Write { op, .. }) => self.check_write(&op),
                Ok(Command::OpenSession) => Ok(()),
                Err(malformed) => Err(refused(FailureCode::Malformed, malformed.to_string())),
            },
            Request::Read(op) => self.check_read(op),
            Request::Digest | Request::Backup(_) | Request::Member(_) => Ok(()),
        }
    }

    fn check_write(&self, op: &WriteOp<'_>) -> Result<(), Failure> {
        within("key", op.key_bytes(), self.key_bytes_max)?;
        within("value", op.value_bytes(), self.value_bytes_max)?;
        match op {
            WriteOp::Timed { op: TimedOp::RemoveExpired { .. }, .. } => {
                let what = "only a leader removes keys because their time has come".to_string();
                Err(refused(FailureCode::Malformed, what))
            }
            WriteOp::Timed { op: TimedOp::Transaction(transaction), .. } => {
                self.check_transaction(transaction)
            }
            _ => Ok(()),
        }
    }

    fn check_transaction(&self, transaction: &Transaction<'_>) -> Result<(), Failure> {
        let Transaction { watched, answer_bytes_max, steps } = transaction;
        few("watched keys", watched.count(), WATCHED_KEYS_MAX)?;
        few("steps of a transaction", steps.count(), STEPS_MAX)?;
        few("bytes of answers", *answer_bytes_max as usize, self.answer_bytes_max())?;
        steps.iter().try_for_each(|step| match step {
            Step::Read(op) => self.check_read(&op),
            Step::Write(_) | Step::Timed(_) => Ok(()),
        })
    }

    fn check_read(&self, op: &ReadOp) -> Result<(), Failure> {
        few("keys", op.keys(), READ_KEYS_MAX)?;
        within("key", op.key_bytes(), self.key_bytes_max)
    }
}

fn few(what: &str, number: usize, limit: usize) -> Result<(), Failure> {
    if number <= limit {
        return Ok(());
    }
    let message = format!("{number} {what}, the limit is {limit}: ask for fewer");
    Err(refused(FailureCode::TooLarge, message))
}

fn refused(code: FailureCode, message: String) -> Failure {
    Failure { code, message, leader: None }
}

fn within(what: &str, bytes: usize, limit: u32) -> Result<(), Failure> {
    if bytes <= limit as usize {
        return Ok(());
    }
    let message =
        format!("{what} of {bytes} bytes, the limit is {limit} bytes: send a shorter {what}");
    Err(refused(FailureCode::TooLarge, message))
}
