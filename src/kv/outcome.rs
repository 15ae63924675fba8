//! What becomes of a write, and its bytes: in answers, and in the session table of a snapshot.

use crate::codec::{Malformed, Reader, put_bool, put_i64, put_u8, put_u64};

/// What became of a write that is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The store holds the value.
    Put,
    /// Whether the key existed.
    Deleted(bool),
    /// Whether the key had the expected value and was written.
    Swapped(bool),
    /// The value after the increment.
    Counter(i64),
    SessionOpened {
        session: u64,
    },
    /// Committed, and of no effect: the state machine refused it. Certainly not done.
    Refused(Refusal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The value to increment is not a decimal 64-bit integer.
    NotAnInteger,
    /// The increment would leave the 64-bit range.
    Overflow,
    /// The session was never opened, or was the least recently used one when another was opened.
    UnknownSession,
    /// A newer request of this session was already executed.
    StaleSequence,
}

// The outcome of a command has the command's own number.
const SESSION_OPENED: u8 = 0;
const PUT: u8 = 1;
const DELETED: u8 = 2;
const SWAPPED: u8 = 3;
const COUNTER: u8 = 4;
const REFUSED: u8 = 255;

const REFUSALS: [Refusal; 4] =
    [Refusal::NotAnInteger, Refusal::Overflow, Refusal::UnknownSession, Refusal::StaleSequence];

fn refusal_code(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::NotAnInteger => 1,
        Refusal::Overflow => 2,
        Refusal::UnknownSession => 3,
        Refusal::StaleSequence => 4,
    }
}

impl Outcome {
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Outcome::Put => put_u8(out, PUT),
            Outcome::Deleted(existed) => {
                put_u8(out, DELETED);
                put_bool(out, existed);
            }
            Outcome::Swapped(matched) => {
                put_u8(out, SWAPPED);
                put_bool(out, matched);
            }
            Outcome::Counter(value) => {
                put_u8(out, COUNTER);
                put_i64(out, value);
            }
            Outcome::SessionOpened { session } => {
                put_u8(out, SESSION_OPENED);
                put_u64(out, session);
            }
            Outcome::Refused(refusal) => {
                put_u8(out, REFUSED);
                put_u8(out, refusal_code(refusal));
            }
        }
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match reader.u8("outcome")? {
            SESSION_OPENED => Outcome::SessionOpened { session: reader.u64("session")? },
            PUT => Outcome::Put,
            DELETED => Outcome::Deleted(reader.bool("whether the key existed")?),
            SWAPPED => Outcome::Swapped(reader.bool("whether the value was the expected one")?),
            COUNTER => Outcome::Counter(reader.i64("counter")?),
            REFUSED => {
                let code = reader.u8("refusal")?;
                let known = REFUSALS.into_iter().find(|refusal| refusal_code(*refusal) == code);
                Outcome::Refused(known.ok_or(Malformed("refusal"))?)
            }
            _ => return Err(Malformed("outcome")),
        })
    }
}
