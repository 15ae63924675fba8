//! What becomes of a write, and its bytes: in answers, and in the session table of a snapshot.

use super::transaction::STEP_ANSWER_BYTES;
use super::{Found, Value};
use crate::codec::{Malformed, Reader, put_blob, put_bool, put_i64, put_option, put_u8, put_u64};
use crate::codec::{put_list, read_list};

/// What became of a write that is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The store holds the value.
    Put,
    /// Whether the key existed.
    Deleted(bool),
    /// Whether the key had the expected value and was written.
    Swapped(bool),
    /// The value after an increment, the length after an append, or how many keys were removed.
    Counter(i64),
    /// Whether a value was written or removed, and the one from before, if that was asked for and there
    /// was one.
    Changed {
        done: bool,
        old: Option<Value>,
    },
    SessionOpened {
        session: u64,
    },
    /// What came of each step; `None`: a watched key was changed, and nothing is done.
    Transaction(Option<Vec<StepOutcome>>),
    /// Committed, and of no effect: the state machine refused it. Certainly not done.
    Refused(Refusal),
}

/// What came of one step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    Written(Outcome),
    Found(Found),
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
    /// The value would be longer than allowed.
    TooLong,
    /// This request was executed before, and the value that it was answered with was too long to be
    /// remembered.
    AnswerForgotten,
    /// The answers to the steps of a transaction would be longer than allowed, or its reads too much work.
    TransactionTooLarge,
}

// An outcome has the number of the first command that can have it.
const SESSION_OPENED: u8 = 0;
const PUT: u8 = 1;
const DELETED: u8 = 2;
const SWAPPED: u8 = 3;
const COUNTER: u8 = 4;
const CHANGED: u8 = 5;
const TRANSACTION: u8 = 13;
const REFUSED: u8 = 255;

// The outcome of a step that reads has the number of such a step.
const FOUND: u8 = 128;

const REFUSALS: [Refusal; 7] = [
    Refusal::NotAnInteger,
    Refusal::Overflow,
    Refusal::UnknownSession,
    Refusal::StaleSequence,
    Refusal::TooLong,
    Refusal::AnswerForgotten,
    Refusal::TransactionTooLarge,
];

fn refusal_code(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::NotAnInteger => 1,
        Refusal::Overflow => 2,
        Refusal::UnknownSession => 3,
        Refusal::StaleSequence => 4,
        Refusal::TooLong => 5,
        Refusal::AnswerForgotten => 6,
        Refusal::TransactionTooLarge => 7,
    }
}

impl Outcome {
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Outcome::Put => put_u8(out, PUT),
            Outcome::Deleted(existed) => {
                put_u8(out, DELETED);
                put_bool(out, *existed);
            }
            Outcome::Swapped(matched) => {
                put_u8(out, SWAPPED);
                put_bool(out, *matched);
            }
            Outcome::Counter(value) => {
                put_u8(out, COUNTER);
                put_i64(out, *value);
            }
            Outcome::Changed { done, old } => {
                put_u8(out, CHANGED);
                put_bool(out, *done);
                put_option(out, old.as_deref(), put_blob);
            }
            Outcome::SessionOpened { session } => {
                put_u8(out, SESSION_OPENED);
                put_u64(out, *session);
            }
            Outcome::Transaction(steps) => {
                put_u8(out, TRANSACTION);
                put_option(out, steps.as_ref(), |out, steps| {
                    put_list(out, steps, |out, step| step.encode(out));
                });
            }
            Outcome::Refused(refusal) => {
                put_u8(out, REFUSED);
                put_u8(out, refusal_code(*refusal));
            }
        }
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let kind = reader.u8("outcome")?;
        Self::read(kind, reader)
    }

    /// About how long the value in it is, if it is one that may be long, in bytes.
    pub(super) fn value_bytes(&self) -> usize {
        match self {
            Outcome::Changed { old: Some(value), .. } => value.len(),
            Outcome::Transaction(Some(steps)) => steps.iter().map(StepOutcome::bytes).sum(),
            _ => 0,
        }
    }

    fn read(kind: u8, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match kind {
            SESSION_OPENED => Outcome::SessionOpened { session: reader.u64("session")? },
            PUT => Outcome::Put,
            DELETED => Outcome::Deleted(reader.bool("whether the key existed")?),
            SWAPPED => Outcome::Swapped(reader.bool("whether the value was the expected one")?),
            COUNTER => Outcome::Counter(reader.i64("counter")?),
            CHANGED => Outcome::Changed {
                done: reader.bool("whether it was done")?,
                old: reader
                    .option("value from before", |reader| reader.blob("value from before"))?
                    .map(Into::into),
            },
            TRANSACTION => Outcome::Transaction(
                reader.option("steps", |reader| read_list(reader, StepOutcome::read))?,
            ),
            REFUSED => {
                let code = reader.u8("refusal")?;
                let known = REFUSALS.into_iter().find(|refusal| refusal_code(*refusal) == code);
                Outcome::Refused(known.ok_or(Malformed("refusal"))?)
            }
            _ => return Err(Malformed("outcome")),
        })
    }
}

impl StepOutcome {
    /// Never less than its encoding.
    pub(super) fn bytes(&self) -> usize {
        let values = match self {
            StepOutcome::Written(outcome) => outcome.value_bytes(),
            StepOutcome::Found(found) => found.bytes(),
        };
        STEP_ANSWER_BYTES + values
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            StepOutcome::Written(outcome) => outcome.encode(out),
            StepOutcome::Found(found) => {
                put_u8(out, FOUND);
                found.encode(out);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        match reader.u8("outcome of a step")? {
            FOUND => Found::read(reader).map(StepOutcome::Found),
            SESSION_OPENED | TRANSACTION => Err(Malformed("outcome of a step")),
            kind => Outcome::read(kind, reader).map(StepOutcome::Written),
        }
    }
}
