//! Commands about keys and values. Each write is one entry of the log, however many keys it has.

use super::{
    SYNTAX_ERROR, Shape, Spec, TextCommand, Verb, ask, integer, times, write, wrong_number,
};
use crate::kv::{Blobs, Condition, Expiry, Limits, ReadOp, Request, TimedOp, WriteOp};
use std::rc::Rc;
use times::Unit;

pub(super) fn command(spec: &Spec, args: &[&[u8]], limits: &Limits) -> Result<TextCommand, String> {
    let increment = |key, delta| write(WriteOp::Increment { key, delta }, Shape::Plain);
    Ok(match (spec.verb, args) {
        (Verb::Set, [key, value, options @ ..]) => set(key, value, options, spec.name)?,
        (Verb::SetEx, [key, seconds, value]) => {
            let unit = Unit { in_seconds: true, is_absolute: false };
            set_until(key, value, times::expiry(seconds, unit, spec.name)?)
        }
        (Verb::PSetEx, [key, milliseconds, value]) => {
            let unit = Unit { in_seconds: false, is_absolute: false };
            set_until(key, value, times::expiry(milliseconds, unit, spec.name)?)
        }
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
            let expected = Some(*value);
            write(WriteOp::Remove { key, expected, get: false }, Shape::Flag)
        }
        (Verb::Del, [key]) => write(WriteOp::Delete { key }, Shape::Plain),
        (Verb::Del, keys) => {
            let keys = Blobs::to_bytes(keys.iter().copied());
            let keys = Blobs::new(&keys).map_err(|malformed| format!("ERR {malformed}"))?;
            write(WriteOp::DeleteMany { keys }, Shape::Plain)
        }
        (Verb::MSet, pairs) if !pairs.len().is_multiple_of(2) => {
            return Err(wrong_number(spec.name));
        }
        (Verb::MSet, pairs) => {
            let pairs = Blobs::to_bytes(pairs.iter().copied());
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
        (Verb::Get, [key]) => ask(Request::Get { key: (*key).into() }, Shape::Plain),
        (Verb::MGet, keys) => ask(Request::Read(ReadOp::Values(shared(keys))), Shape::Plain),
        (Verb::Exists, keys) => ask(lengths(keys), Shape::Count),
        (Verb::StrLen, keys) => ask(lengths(keys), Shape::Length),
        (Verb::Type, keys) => ask(lengths(keys), Shape::Type),
        _ => return Err(wrong_number(spec.name)),
    })
}

fn shared(keys: &[&[u8]]) -> Vec<Rc<[u8]>> {
    keys.iter().map(|key| (*key).into()).collect()
}

fn lengths(keys: &[&[u8]]) -> Request {
    Request::Read(ReadOp::Lengths(shared(keys)))
}

fn set_until(key: &[u8], value: &[u8], expiry: Expiry) -> TextCommand {
    let op = TimedOp::Set { key, value, condition: Condition::Always, get: false, expiry };
    write(WriteOp::Timed { stamp: 0, op }, Shape::OkOrNull)
}

/// What `SET` is told besides key and value.
#[derive(Default)]
struct SetOptions<'a> {
    condition: Option<Condition<'a>>,
    get: bool,
    keep_ttl: bool,
    /// The number is looked at when all options are known, as in Redis.
    time: Option<(Unit, &'a [u8])>,
}

fn set(key: &[u8], value: &[u8], options: &[&[u8]], command: &str) -> Result<TextCommand, String> {
    let SetOptions { condition, get, keep_ttl, time } = set_options(options)?;
    let condition = condition.unwrap_or(Condition::Always);
    let expiry = match time {
        Some((unit, number)) => times::expiry(number, unit, command)?,
        None if keep_ttl => Expiry::Keep,
        None => Expiry::Never,
    };
    let shape = if get { Shape::Old } else { Shape::OkOrNull };
    Ok(match (condition, get, expiry) {
        (Condition::Always, false, Expiry::Never) => {
            write(WriteOp::Put { key, value }, Shape::Plain)
        }
        (condition, get, Expiry::Never) => {
            write(WriteOp::Set { key, value, condition, get }, shape)
        }
        (condition, get, expiry) => {
            let op = TimedOp::Set { key, value, condition, get, expiry };
            write(WriteOp::Timed { stamp: 0, op }, shape)
        }
    })
}

/// Also two conditions, or two times, which contradict each other, are none that can be understood.
fn set_options<'a>(words: &'a [&[u8]]) -> Result<SetOptions<'a>, String> {
    let mut options = SetOptions::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let SetOptions { condition, get, keep_ttl, time } = &mut options;
        match (word.to_ascii_lowercase().as_slice(), times::unit(word)) {
            (b"get", _) => *get = true,
            (b"nx", _) if matches!(condition, None | Some(Condition::Absent)) => {
                *condition = Some(Condition::Absent);
            }
            (b"xx", _) if matches!(condition, None | Some(Condition::Present)) => {
                *condition = Some(Condition::Present);
            }
            (b"ifeq", _) if condition.is_none() => {
                *condition = Some(Condition::Equals(words.next().ok_or(SYNTAX_ERROR)?));
            }
            (b"keepttl", _) if time.is_none() => *keep_ttl = true,
            (_, Some(unit))
                if !*keep_ttl && time.as_ref().is_none_or(|(known, _)| *known == unit) =>
            {
                *time = Some((unit, words.next().ok_or(SYNTAX_ERROR)?));
            }
            _ => return Err(SYNTAX_ERROR.to_owned()),
        }
    }
    Ok(options)
}
