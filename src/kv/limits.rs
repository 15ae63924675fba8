//! How long keys and values may be.

use super::{Command, Failure, FailureCode, Request};

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

impl Limits {
    /// Refuses a request whose key or value is too long, or whose command cannot be read.
    pub fn check(&self, request: &Request) -> Result<(), Failure> {
        let (key_bytes, value_bytes) = match request {
            Request::Get { key } => (key.len(), 0),
            Request::Write { command } => match Command::decode(command) {
                Ok(Command::Write { op, .. }) => (op.key().len(), op.value_bytes()),
                Ok(Command::OpenSession) => (0, 0),
                Err(malformed) => {
                    let message = malformed.to_string();
                    return Err(Failure { code: FailureCode::Malformed, message, leader: None });
                }
            },
            Request::Digest | Request::Member(_) => (0, 0),
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
