//! What is answered, as RESP.

use super::{NOT_AN_INTEGER, Time};
use crate::kv::{Answer, Failure, FailureCode, Found, Outcome, Refusal, StepOutcome};
use crate::protocol::resp::{
    Version, put_array, put_bulk, put_error, put_integer, put_map, put_null, put_simple,
};
use crate::raft::Index;

/// How a reply is to be written: commands ask for the same thing and answer it differently.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reply {
    pub shape: Shape,
    pub version: Version,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Shape {
    /// As the answer itself says.
    #[default]
    Plain,
    /// `OK` if it was done, else nothing.
    OkOrNull,
    /// 1 if it was done, else 0.
    Flag,
    /// The value from before.
    Old,
    /// How many keys exist.
    Count,
    /// The length of the only value.
    Length,
    /// What kind of value it is.
    Type,
    /// The only value.
    First,
    /// A page of keys, and a cursor that is still to be found for what follows.
    Scan,
    /// A page of keys, and this cursor; 0: it is the last one.
    Page(u64),
    /// Of a digest, the number of keys.
    KeyCount,
    /// When a key goes.
    Time(Time),
}

/// Appends the reply to a [`super::TextCommand::Ask`].
pub fn answer_to_resp(answer: &Answer, reply: Reply, out: &mut Vec<u8>) {
    match answer {
        Answer::Value { value: Some(value), .. } => put_bulk(out, value),
        Answer::Value { value: None, .. } => put_null(out, reply.version),
        Answer::Written { outcome, .. } => put_outcome(out, reply, outcome),
        Answer::Digest { keys, .. } if reply.shape == Shape::KeyCount => {
            put_integer(out, *keys as i64);
        }
        Answer::Digest { digest, keys, index, .. } => {
            put_digest(out, reply.version, *digest, *keys, Some(*index));
        }
        Answer::Found { found, .. } => put_found(out, reply, found),
        Answer::Member { .. } => put_simple(out, "OK"),
        // No text command asks for one, so that another node has made a mistake.
        Answer::Backup { .. } => put_error(out, "ERR a part of a backup came instead of an answer"),
        Answer::Failed(failure) => put_failure(out, failure),
    }
}

/// One part of the reply to a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Planned {
    /// It is known already.
    Ready(Vec<u8>),
    /// What came of the next of its steps.
    Step(Shape),
}

impl Planned {
    pub fn put_ready(&self, out: &mut Vec<u8>) {
        if let Planned::Ready(reply) = self {
            out.extend_from_slice(reply);
        }
    }
}

/// Appends the reply to `EXEC`.
pub fn transaction_to_resp(answer: &Answer, planned: &[Planned], reply: Reply, out: &mut Vec<u8>) {
    match answer {
        Answer::Written { outcome: Outcome::Transaction(Some(steps)), .. } => {
            let mut steps = steps.iter();
            put_array(out, planned.len());
            for part in planned {
                match part {
                    Planned::Ready(_) => part.put_ready(out),
                    Planned::Step(shape) => {
                        let step = steps.next().expect("the log has as many steps as were queued");
                        put_step(out, Reply { shape: *shape, ..reply }, step);
                    }
                }
            }
        }
        Answer::Written { outcome: Outcome::Transaction(None), .. } => {
            put_null_array(out, reply.version);
        }
        other => answer_to_resp(other, reply, out),
    }
}

fn put_step(out: &mut Vec<u8>, reply: Reply, step: &StepOutcome) {
    match step {
        StepOutcome::Written(outcome) => put_outcome(out, reply, outcome),
        StepOutcome::Found(found) => put_found(out, reply, found),
    }
}

fn put_null_array(out: &mut Vec<u8>, version: Version) {
    match version {
        Version::Resp2 => out.extend_from_slice(b"*-1\r\n"),
        Version::Resp3 => put_null(out, version),
    }
}

fn put_digest(out: &mut Vec<u8>, version: Version, digest: u64, keys: u64, index: Option<Index>) {
    put_map(out, version, 2 + usize::from(index.is_some()));
    put_bulk(out, b"digest");
    put_bulk(out, format!("{digest:016x}").as_bytes());
    put_bulk(out, b"keys");
    put_bulk(out, keys.to_string().as_bytes());
    if let Some(index) = index {
        put_bulk(out, b"index");
        put_bulk(out, index.to_string().as_bytes());
    }
}

fn put_found(out: &mut Vec<u8>, reply: Reply, found: &Found) {
    match (found, reply.shape) {
        (Found::Values(values), Shape::First) => match values.first() {
            Some(Some(value)) => put_bulk(out, value),
            _ => put_null(out, reply.version),
        },
        (Found::Keys { items, .. }, shape) => {
            if let Shape::Page(cursor) = shape {
                put_array(out, 2);
                put_bulk(out, cursor.to_string().as_bytes());
            }
            put_array(out, items.len());
            items.iter().for_each(|item| put_bulk(out, item));
        }
        (Found::Values(values), _) => {
            put_array(out, values.len());
            for value in values {
                match value {
                    Some(value) => put_bulk(out, value),
                    None => put_null(out, reply.version),
                }
            }
        }
        (Found::Lengths(lengths), Shape::Length) => {
            let length = lengths.first().copied().flatten().unwrap_or(0);
            put_integer(out, i64::from(length));
        }
        (Found::Lengths(lengths), Shape::Type) => {
            let exists = lengths.first().is_some_and(Option::is_some);
            put_simple(out, if exists { "string" } else { "none" });
        }
        (Found::Expiry { expires_at, now }, shape) => {
            let time = match shape {
                Shape::Time(time) => time,
                _ => Time { is_left: true, in_seconds: false },
            };
            put_integer(out, time.number(*expires_at, *now));
        }
        (Found::Digest { keys, .. }, Shape::KeyCount) => put_integer(out, *keys as i64),
        (Found::Digest { digest, keys }, _) => put_digest(out, reply.version, *digest, *keys, None),
        (Found::Versions(versions), _) => {
            put_array(out, versions.len());
            versions.iter().for_each(|version| put_integer(out, *version as i64));
        }
        (Found::Lengths(lengths), _) => {
            put_integer(out, lengths.iter().flatten().count() as i64);
        }
    }
}

fn put_outcome(out: &mut Vec<u8>, reply: Reply, outcome: &Outcome) {
    match outcome {
        Outcome::Put => put_simple(out, "OK"),
        Outcome::Deleted(done) | Outcome::Swapped(done) => put_integer(out, i64::from(*done)),
        Outcome::Counter(value) => put_integer(out, *value),
        Outcome::Changed { done, old } => match (reply.shape, done, old) {
            (Shape::Old, _, Some(old)) => put_bulk(out, old),
            (Shape::Old, _, None) => put_null(out, reply.version),
            (Shape::OkOrNull, true, _) => put_simple(out, "OK"),
            (Shape::OkOrNull, false, _) => put_null(out, reply.version),
            _ => put_integer(out, i64::from(*done)),
        },
        // Whoever asked for it knows how its steps are to be answered.
        Outcome::Transaction(steps) => match steps {
            None => put_null_array(out, reply.version),
            Some(steps) => {
                put_array(out, steps.len());
                let reply = Reply { shape: Shape::Plain, ..reply };
                steps.iter().for_each(|step| put_step(out, reply, step));
            }
        },
        Outcome::SessionOpened { session } => put_bulk(out, session.to_string().as_bytes()),
        Outcome::Refused(refusal) => put_error(
            out,
            match refusal {
                Refusal::NotAnInteger => NOT_AN_INTEGER,
                Refusal::Overflow => "ERR increment or decrement would overflow",
                Refusal::UnknownSession => "ERR unknown session",
                Refusal::StaleSequence => "ERR a newer request of this session was executed",
                Refusal::TooLong => "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
                Refusal::TransactionTooLarge => {
                    "ERR the answers of the transaction would be longer than allowed; nothing was done"
                }
                Refusal::AnswerForgotten => {
                    "ERR this request was executed, its answer was too long to be remembered"
                }
            },
        ),
    }
}

fn put_failure(out: &mut Vec<u8>, failure: &Failure) {
    if failure.is_store_full() {
        // In Redis's words, which its libraries know.
        let error =
            format!("OOM command not allowed when used memory > 'maxmemory'. {}", failure.message);
        return put_error(out, &error);
    }
    let word = match failure.code {
        FailureCode::OutcomeUnknown | FailureCode::TimedOut => "INDETERMINATE",
        FailureCode::NoLeader => "CLUSTERDOWN",
        FailureCode::NotLeader | FailureCode::Overloaded | FailureCode::ShuttingDown => "TRYAGAIN",
        FailureCode::Compacted => "COMPACTED",
        FailureCode::TooLarge | FailureCode::Malformed | FailureCode::NotPossible => "ERR",
    };
    put_error(out, &format!("{word} {}", failure.message));
}
