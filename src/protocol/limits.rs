//! The frame lengths that follow from the limits of keys and values.

use super::frame::SKIP_BYTES_MAX;
use crate::kv::{Failure, FailureCode, Limits};

/// The entries of one AppendEntries, in bytes, less the last: a batch ends with the entry that reaches this.
pub const PEER_BATCH_BYTES_MAX: usize = 256 * 1024;

/// The longest payload of a frame that a client may send or get, in bytes: a compare-and-set of the
/// longest key and two of the longest values.
pub fn client_frame_bytes_max(limits: &Limits) -> usize {
    limits.command_bytes_max()
}

/// The longest payload of a frame that a node takes from another, in bytes. It does not depend on the limits of keys and
/// values: the log and the snapshots of others have what was written before this node had its present ones.
pub const PEER_FRAME_BYTES_MAX: usize = SKIP_BYTES_MAX;

/// The longest payload of a frame that a node sends to another because of what it takes from clients, in bytes: a full
/// batch whose last entry is the longest possible one.
pub fn peer_frame_bytes_max(limits: &Limits) -> usize {
    client_frame_bytes_max(limits).saturating_add(PEER_BATCH_BYTES_MAX)
}

impl Limits {
    /// Whether a node can run with these limits; the error is for the person who set them.
    pub fn validate(&self) -> Result<(), String> {
        let frame = peer_frame_bytes_max(self);
        if frame <= SKIP_BYTES_MAX {
            return Ok(());
        }
        Err(format!(
            "keys of {} bytes and values of {} bytes need frames of {frame} bytes between nodes, and \
             frames end at {SKIP_BYTES_MAX} bytes: lower the limit of values",
            self.key_bytes_max, self.value_bytes_max
        ))
    }

    /// The answer to a client's frame that was skipped because of its length.
    pub fn frame_too_large(&self, payload_bytes: usize) -> Failure {
        let limit = client_frame_bytes_max(self);
        failure(
            FailureCode::TooLarge,
            format!(
                "frame of {payload_bytes} bytes, the limit is {limit}: keys have up to {} bytes, values \
                 up to {}",
                self.key_bytes_max, self.value_bytes_max
            ),
        )
    }
}

fn failure(code: FailureCode, message: String) -> Failure {
    Failure { code, message, leader: None }
}
