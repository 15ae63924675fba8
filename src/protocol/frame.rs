//! Frames: how messages are cut out of the byte stream, and how damage is noticed.
//!
//! Each side starts with the magic, then sends frames: length (u32) and CRC32C (u32) of the payload, then
//! the payload. A wrong checksum means that the stream can't be believed any more, including the lengths
//! that say where frames end, so the connection is closed. A frame that is merely too long is skipped and
//! answered, and the connection goes on: the sender asked for too much, it did not lose its way.

use crate::codec::{Reader, put_u32};
use std::fmt;

/// How a binary connection starts, in both directions: `R` with its highest bit set, `K`, `V`, and the
/// number of the frame format. The first byte keeps it apart from every text command and from TLS, and
/// the first two are not UTF-8, so that no text in any language can be mistaken for it. The last byte
/// changes only if frames or the hello change; everything else is negotiated in the hello.
pub const MAGIC: [u8; 4] = [b'R' | 0x80, b'K', b'V', 1];

/// Length and checksum, in bytes.
pub const HEADER_BYTES: usize = 8;

/// The longest payload that is skipped rather than taken for a broken stream, in bytes.
pub const SKIP_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How much of a payload that is too long is shown before it is skipped, in bytes: enough for the
/// message type and the request id.
pub const OVERSIZED_HEAD_BYTES: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameStep<'a> {
    /// Call again once there are this many bytes in all; never more than the limit and the header.
    NeedMore { at_least: usize },
    /// A frame whose checksum is right; `consumed` bytes are to be dropped from the inbox.
    Frame { payload: &'a [u8], consumed: usize },
    /// A frame of `payload_bytes`, more than the limit. `head` is the start of its payload, before any
    /// checksum was compared. All that `skip` counts, header and head included, is to be dropped.
    Oversized { head: &'a [u8], payload_bytes: usize, skip: Skip },
}

/// Why a connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// A payload has at least its message type.
    Empty,
    TooLong {
        payload_bytes: usize,
    },
    Checksum {
        stated: u32,
        computed: u32,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Empty => write!(f, "frame without a payload"),
            FrameError::TooLong { payload_bytes } => {
                write!(f, "frame of {payload_bytes} bytes, beyond even {SKIP_BYTES_MAX}")
            }
            FrameError::Checksum { stated, computed } => write!(
                f,
                "frame with the checksum {computed:08x} instead of {stated:08x}: damaged on the way"
            ),
        }
    }
}

impl std::error::Error for FrameError {}

/// Looks for one frame at the front of `inbox`. `limit` is the longest payload taken, in bytes.
pub fn next_frame(inbox: &[u8], limit: usize) -> Result<FrameStep<'_>, FrameError> {
    let mut reader = Reader::new(inbox);
    let (Ok(length), Ok(stated)) = (reader.u32("length"), reader.u32("checksum")) else {
        return Ok(FrameStep::NeedMore { at_least: HEADER_BYTES });
    };
    let length = length as usize;
    if length == 0 {
        return Err(FrameError::Empty);
    }
    if length > limit {
        return oversized(reader.rest(), length);
    }
    let Ok(payload) = reader.take(length, "payload") else {
        return Ok(FrameStep::NeedMore { at_least: HEADER_BYTES + length });
    };
    let computed = crc32c::crc32c(payload);
    if computed != stated {
        return Err(FrameError::Checksum { stated, computed });
    }
    Ok(FrameStep::Frame { payload, consumed: HEADER_BYTES + length })
}

fn oversized(after_header: &[u8], length: usize) -> Result<FrameStep<'_>, FrameError> {
    if length > SKIP_BYTES_MAX {
        return Err(FrameError::TooLong { payload_bytes: length });
    }
    let head_bytes = length.min(OVERSIZED_HEAD_BYTES);
    Ok(match after_header.get(..head_bytes) {
        None => FrameStep::NeedMore { at_least: HEADER_BYTES + head_bytes },
        Some(head) => FrameStep::Oversized {
            head,
            payload_bytes: length,
            skip: Skip::new(HEADER_BYTES + length),
        },
    })
}

/// Bytes of the stream that are still to be dropped, as they arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skip {
    left: usize,
}

impl Skip {
    pub fn new(bytes: usize) -> Self {
        Skip { left: bytes }
    }

    /// How many of `available` bytes are to be dropped now.
    pub fn advance(&mut self, available: usize) -> usize {
        let now = available.min(self.left);
        self.left -= now;
        now
    }

    pub fn is_done(&self) -> bool {
        self.left == 0
    }
}

/// Appends one frame; `write` appends its payload, which must not be empty.
pub fn put_frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    put_u32(out, 0);
    put_u32(out, 0);
    write(out);
    seal(out, start);
}

/// Fills in the header of the frame that begins at `start`.
#[inline(never)]
fn seal(out: &mut [u8], start: usize) {
    let (header, payload) = out[start..].split_at_mut(HEADER_BYTES);
    let length = u32::try_from(payload.len()).expect("a payload is shorter than 4 GiB");
    debug_assert!(length > 0, "a payload has at least its message type");
    header[..4].copy_from_slice(&length.to_be_bytes());
    header[4..].copy_from_slice(&crc32c::crc32c(payload).to_be_bytes());
}
