//! Commands about keys and values. Each write is one entry of the log, however many keys it has.

use super::{
    NOT_AN_INTEGER, SYNTAX_ERROR, Shape, Spec, TextCommand, Verb, ask, integer, wrong_number,
};
use crate::kv::{Blobs, Command, Condition, Limits, ReadOp, Request, WriteOp};
use std::rc::Rc;

pub(super) fn command(
    spec: &Spec,
    args: &[Vec<u8>],
    limits: &Limits,
) -> Result<TextCommand, String> {
    let increment = |key, delta| write(WriteOp::Increment { key, delta }, Shape::Plain);
    Ok(match (spec.verb, args) {
        (Verb::Set, [key, value, options @ ..]) => set(key, value, options)?,
        (Verb::SetNx, [key, value]) => {
            let condition = Condition::Absent;
            write(WriteOp::Set { key, value, condition, get: false }, Shape::Flag)
        }
        (Verb::GetSet, [key, value]) => {
            let condition = Condition::Always;
            write(WriteOp::Set { key, value, condition, get: true }, Shape::Old)
        }
        (Verb::GetDel, [key]) => {
            write(WriteOp::Remove { key, expected: None, get: true }, Shape::Old)
        }
        (Verb::DelIfEq, [key, value]) => {
            let expected = Some(value.as_slice());
            write(WriteOp::Remove { key, expected, get: false }, Shape::Flag)
        }
        (Verb::Del, [key]) => write(WriteOp::Delete { key }, Shape::Plain),
        (Verb::Del, keys) => {
            let keys = Blobs::to_bytes(keys.iter().map(Vec::as_slice));
            let keys = Blobs::new(&keys).map_err(|malformed| format!("ERR {malformed}"))?;
            write(WriteOp::DeleteMany { keys }, Shape::Plain)
        }
        (Verb::MSet, pairs) if !pairs.len().is_multiple_of(2) => {
            return Err(wrong_number(spec.name));
        }
        (Verb::MSet, pairs) => {
            let pairs = Blobs::to_bytes(pairs.iter().map(Vec::as_slice));
            let pairs = Blobs::new(&pairs).map_err(|malformed| format!("ERR {malformed}"))?;
            write(WriteOp::PutMany { pairs }, Shape::Plain)
        }
        (Verb::Append, [key, value]) => {
            let bytes_max = limits.value_bytes_max;
            write(WriteOp::Append { key, value, bytes_max }, Shape::Plain)
        }
        (Verb::Cas, [key, old, new]) => {
            write(WriteOp::CompareAndSet { key, expected: Some(old), value: new }, Shape::Plain)
        }
        (Verb::Incr, [key]) => increment(key, 1),
        (Verb::Decr, [key]) => increment(key, -1),
        (Verb::IncrBy, [key, n]) => increment(key, integer(n)?),
        (Verb::DecrBy, [key, n]) => {
            increment(key, integer(n)?.checked_neg().ok_or("ERR decrement would overflow")?)
        }
        (Verb::Get, [key]) => ask(Request::Get { key: key.as_slice().into() }, Shape::Plain),
        (Verb::MGet, keys) => ask(Request::Read(ReadOp::Values(shared(keys))), Shape::Plain),
        (Verb::Exists, keys) => ask(lengths(keys), Shape::Count),
        (Verb::StrLen, keys) => ask(lengths(keys), Shape::Length),
        (Verb::Type, keys) => ask(lengths(keys), Shape::Type),
        _ => return Err(wrong_number(spec.name)),
    })
}

/// A text command has no session: it is executed as often as it is in the log, and put there once.
fn write(op: WriteOp<'_>, shape: Shape) -> TextCommand {
    let command = Command::Write { request: None, op }.to_bytes();
    ask(Request::Write { command: command.into() }, shape)
}

fn shared(keys: &[Vec<u8>]) -> Vec<Rc<[u8]>> {
    keys.iter().map(|key| key.as_slice().into()).collect()
}

fn lengths(keys: &[Vec<u8>]) -> Request {
    Request::Read(ReadOp::Lengths(shared(keys)))
}

/// Options of `SET` that Redis has and that need an expiry.
const EXPIRY_OPTIONS: [&[u8]; 4] = [b"ex", b"px", b"exat", b"pxat"];

fn set(key: &[u8], value: &[u8], options: &[Vec<u8>]) -> Result<TextCommand, String> {
    let mut condition = Condition::Always;
    let mut get = false;
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let lower = option.to_ascii_lowercase();
        match lower.as_slice() {
            b"get" => {
                get = true;
                continue;
            }
            b"keepttl" => return Err(no_expiry("KEEPTTL")),
            other if EXPIRY_OPTIONS.contains(&other) => {
                let time = options.next().ok_or(SYNTAX_ERROR)?;
                // As in Redis, a time that is none is told first.
                super::parse_i64(time).ok_or(NOT_AN_INTEGER)?;
                return Err(no_expiry(&String::from_utf8_lossy(&lower).to_uppercase()));
            }
            b"nx" if matches!(condition, Condition::Always | Condition::Absent) => {
                condition = Condition::Absent;
            }
            b"xx" if matches!(condition, Condition::Always | Condition::Present) => {
                condition = Condition::Present;
            }
            b"ifeq" if condition == Condition::Always => {
                condition = Condition::Equals(options.next().ok_or(SYNTAX_ERROR)?);
            }
            // Also two conditions, which contradict each other.
            _ => return Err(SYNTAX_ERROR.to_owned()),
        }
    }
    Ok(match (condition, get) {
        (Condition::Always, false) => write(WriteOp::Put { key, value }, Shape::Plain),
        (condition, get) => {
            let shape = if get { Shape::Old } else { Shape::OkOrNull };
            write(WriteOp::Set { key, value, condition, get }, shape)
        }
    })
}

fn no_expiry(option: &str) -> String {
    format!("ERR {option} is not supported: keys do not expire here")
}
