//! How long keys and values may be.

use super::{Command, Failure, FailureCode, ReadOp, Request};

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

/// What a key and its value take in an answer besides their bytes.
const PAIR_BYTES: usize = 16;

impl Limits {
    /// Keys and values that one answer may have in all, in bytes: it has to fit into a frame between
    /// nodes.
    pub fn answer_bytes_max(&self) -> usize {
        let longest = self.value_bytes_max as usize + self.key_bytes_max as usize;
        (longest + PAIR_BYTES).max(ANSWER_BYTES_MIN)
    }

    /// Refuses a request whose key or value is too long, or whose command cannot be read.
    pub fn check(&self, request: &Request) -> Result<(), Failure> {
        let (key_bytes, value_bytes) = match request {
            Request::Get { key } => (key.len(), 0),
            Request::Write { command } => match Command::decode(command) {
                Ok(Command::Write { op, .. }) => (op.key_bytes(), op.value_bytes()),
                Ok(Command::OpenSession) => (0, 0),
                Err(malformed) => {
                    let message = malformed.to_string();
                    return Err(Failure { code: FailureCode::Malformed, message, leader: None });
                }
            },
            Request::Read(ReadOp::Values(keys) | ReadOp::Lengths(keys)) => {
                if keys.len() > READ_KEYS_MAX {
                    let keys = keys.len();
                    let message =
                        format!("{keys} keys, the limit is {READ_KEYS_MAX}: ask for fewer");
                    return Err(Failure { code: FailureCode::TooLarge, message, leader: None });
                }
                (keys.iter().map(|key| key.len()).max().unwrap_or(0), 0)
            }
            Request::Read(ReadOp::Range(range)) => {
                let bounds = [Some(&range.start), range.end.as_ref(), range.pattern.as_ref()];
                (bounds.into_iter().flatten().map(|bytes| bytes.len()).max().unwrap_or(0), 0)
            }
            Request::Read(ReadOp::RandomKey)
            | Request::Digest
            | Request::Backup(_)
            | Request::Member(_) => (0, 0),
        };
        within("key", key_bytes, self.key_bytes_max)?;
        within("value", value_bytes, self.value_bytes_max)
    }
}

fn within(what: &str, bytes: usize, limit: u32) -> Result<(), Failure> {
    if bytes <= limit as usize {
        return Ok(());
    }
    let message =
        format!("{what} of {bytes} bytes, the limit is {limit} bytes: send a shorter {what}");
    Err(Failure { code: FailureCode::TooLarge, message, leader: None })
}
