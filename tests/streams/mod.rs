//! What a connection does with bytes as they come: it keeps them in an inbox and cuts messages off its
//! front. The limits are small, so that short streams go beyond them.

// Every test binary compiles all of it and uses a part.
#![allow(dead_code)]

use raftkv::protocol::frame::{FrameError, FrameStep, HEADER_BYTES, Skip, next_frame};
use raftkv::protocol::http::{self, HttpStep};
use raftkv::protocol::resp::{ProtocolError, SkipCommand, TextLimits, TextStep, next_command};

/// The longest payload of a frame, in bytes.
pub const FRAME_LIMIT: usize = 256;

pub const TEXT_LIMITS: TextLimits = TextLimits {
    arguments_max: 8,
    argument_bytes_max: 100,
    command_bytes_max: 300,
    inline_bytes_max: 120,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    Frame(Vec<u8>),
    Oversized {
        head: Vec<u8>,
        payload_bytes: usize,
    },
    /// The last thing that is cut off a connection.
    Broken(FrameError),
}

/// The frames of a stream that is received in these pieces.
pub fn cut_frames<'a>(received: impl IntoIterator<Item = &'a [u8]>) -> Vec<Cut> {
    let (mut inbox, mut cuts, mut skip) = (Inbox::default(), Vec::new(), None);
    for piece in received {
        inbox.bytes.extend_from_slice(piece);
        if let Err(last) = drain_frames(&mut inbox, &mut cuts, &mut skip) {
            cuts.push(Cut::Broken(last));
            break;
        }
    }
    cuts
}

#[derive(Default)]
struct Inbox {
    bytes: Vec<u8>,
    /// The least that is needed, as the parser said.
    needed: usize,
}

impl Inbox {
    /// The parser wants more, up to `limit`.
    fn wait(&mut self, at_least: usize, limit: usize) {
        assert!(at_least > self.bytes.len() && at_least <= limit, "{at_least} bytes of {limit}");
        self.needed = at_least;
    }

    /// The parser has decided: what it needed before must have come, or it would have been waited for in
    /// vain.
    fn decided(&mut self) {
        assert!(self.bytes.len() >= self.needed, "decided before {} bytes came", self.needed);
        self.needed = 0;
    }

    fn drop(&mut self, bytes: usize) {
        self.bytes.drain(..bytes);
    }
}

fn drain_frames(
    inbox: &mut Inbox,
    cuts: &mut Vec<Cut>,
    skip: &mut Option<Skip>,
) -> Result<(), FrameError> {
    loop {
        if let Some(mut skipping) = skip.take() {
            let dropped = skipping.advance(inbox.bytes.len());
            inbox.drop(dropped);
            if !skipping.is_done() {
                *skip = Some(skipping);
                return Ok(());
            }
        }
        let step = next_frame(&inbox.bytes, FRAME_LIMIT);
        let consumed = match step {
            Ok(FrameStep::NeedMore { at_least }) => {
                inbox.wait(at_least, FRAME_LIMIT + HEADER_BYTES);
                return Ok(());
            }
            Ok(FrameStep::Frame { payload, consumed }) => {
                cuts.push(Cut::Frame(payload.to_vec()));
                consumed
            }
            Ok(FrameStep::Oversized { head, payload_bytes, skip: begun }) => {
                cuts.push(Cut::Oversized { head: head.to_vec(), payload_bytes });
                *skip = Some(begun);
                0
            }
            Err(error) => {
                inbox.decided();
                return Err(error);
            }
        };
        inbox.decided();
        inbox.drop(consumed);
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Command(Vec<Vec<u8>>),
    TooLong(String),
    /// The last thing that is said on a connection.
    Error(String),
    CrossProtocol,
}

/// The commands of a stream that is received in these pieces.
pub fn cut_commands<'a>(received: impl IntoIterator<Item = &'a [u8]>) -> Vec<Said> {
    let (mut inbox, mut said, mut skip) = (Inbox::default(), Vec::new(), None);
    for piece in received {
        inbox.bytes.extend_from_slice(piece);
        if let Err(last) = drain_commands(&mut inbox, &mut said, &mut skip) {
            said.push(last);
            break;
        }
    }
    said
}

fn drain_commands(
    inbox: &mut Inbox,
    said: &mut Vec<Said>,
    skip: &mut Option<SkipCommand>,
) -> Result<(), Said> {
    let broken = |ProtocolError(text)| Said::Error(text);
    loop {
        if let Some(mut skipping) = skip.take() {
            let dropped = skipping.advance(&inbox.bytes).map_err(broken)?;
            inbox.drop(dropped);
            if !skipping.is_done() {
                *skip = Some(skipping);
                return Ok(());
            }
        }
        let mut words = Vec::new();
        let step = next_command(&inbox.bytes, &mut words, &TEXT_LIMITS);
        if let TextStep::NeedMore { at_least } = step {
            inbox.wait(at_least, TEXT_LIMITS.inbox_bytes_min());
            return Ok(());
        }
        let consumed = match step {
            TextStep::NeedMore { .. } | TextStep::Empty { consumed: 0 } => {
                unreachable!("{step:?} makes no progress")
            }
            TextStep::Command { args, consumed } => {
                said.push(Said::Command(args.into_iter().map(<[u8]>::to_vec).collect()));
                Ok(consumed)
            }
            TextStep::Empty { consumed } => Ok(consumed),
            TextStep::Oversized { error, consumed, skip: begun } => {
                said.push(Said::TooLong(error));
                *skip = Some(begun);
                Ok(consumed)
            }
            TextStep::Error(error) => Err(broken(error)),
            TextStep::CrossProtocol => Err(Said::CrossProtocol),
        };
        inbox.decided();
        inbox.drop(consumed?);
    }
}

/// What a connection that speaks HTTP has asked, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Request(http::Request),
    /// The last thing that is asked on a connection.
    Error(http::Status),
}

/// The requests of a stream that is received in these pieces.
pub fn cut_requests<'a>(received: impl IntoIterator<Item = &'a [u8]>) -> Vec<Asked> {
    let (mut inbox, mut asked) = (Inbox::default(), Vec::new());
    for piece in received {
        inbox.bytes.extend_from_slice(piece);
        loop {
            match http::next_request(&inbox.bytes) {
                HttpStep::NeedMore { at_least } => {
                    inbox.wait(at_least, http::HEAD_BYTES_MAX);
                    break;
                }
                HttpStep::Request { request, consumed } => {
                    inbox.decided();
                    inbox.drop(consumed);
                    asked.push(Asked::Request(request));
                }
                HttpStep::Error(status) => {
                    inbox.decided();
                    asked.push(Asked::Error(status));
                    return asked;
                }
            }
        }
    }
    asked
}
