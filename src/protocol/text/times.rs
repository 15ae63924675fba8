//! Commands about when keys go, and what others say about it.

use super::{
    NOT_AN_INTEGER, SYNTAX_ERROR, Shape, Spec, TextCommand, Verb, ask, write, wrong_number,
};
use crate::kv::{Expiry, ReadOp, Request, TimeCondition, TimedOp, WriteOp};

/// The latest time that Redis knows, with room for what is added to it, in milliseconds.
const AFTER_MS_MAX: i64 = i64::MAX - (1 << 44);

/// How a reply tells when a key goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// How long it stays, not until when.
    pub is_left: bool,
    /// Not in milliseconds.
    pub in_seconds: bool,
}

impl Time {
    /// As in Redis: -2 of a key that does not exist, -1 of one that stays.
    pub(super) fn number(self, expires_at: Option<u64>, now: u64) -> i64 {
        let time = match expires_at {
            None => return -2,
            Some(0) => return -1,
            Some(at) if self.is_left => at.saturating_sub(now),
            Some(at) => at,
        };
        let time = if self.in_seconds { time.saturating_add(500) / 1000 } else { time };
        i64::try_from(time).unwrap_or(i64::MAX)
    }
}

/// What a number means as a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    pub in_seconds: bool,
    /// Of Unix time, not from now on.
    pub is_absolute: bool,
}

/// The words that say when a key goes, with a number after each.
const UNITS: [(&[u8], Unit); 4] = [
    (b"ex", Unit { in_seconds: true, is_absolute: false }),
    (b"px", Unit { in_seconds: false, is_absolute: false }),
    (b"exat", Unit { in_seconds: true, is_absolute: true }),
    (b"pxat", Unit { in_seconds: false, is_absolute: true }),
];

pub(super) fn unit(option: &[u8]) -> Option<Unit> {
    UNITS.iter().find(|(name, _)| option.eq_ignore_ascii_case(name)).map(|(_, unit)| *unit)
}

/// For a value that is written, or read: no time that is 0 or before 1970.
pub(super) fn expiry(number: &[u8], unit: Unit, command: &str) -> Result<Expiry, String> {
    let number = super::parse_i64(number).ok_or(NOT_AN_INTEGER)?;
    if number <= 0 {
        return Err(invalid_time(command));
    }
    any_expiry(number, unit, command)
}

/// One that is over is allowed.
fn any_expiry(number: i64, unit: Unit, command: &str) -> Result<Expiry, String> {
    let factor = if unit.in_seconds { 1000 } else { 1 };
    let ms = number.checked_mul(factor).ok_or_else(|| invalid_time(command))?;
    match unit.is_absolute {
        true => Ok(Expiry::At(ms)),
        false if ms > AFTER_MS_MAX => Err(invalid_time(command)),
        false => Ok(Expiry::After(ms)),
    }
}

fn invalid_time(command: &str) -> String {
    format!("ERR invalid expire time in '{command}' command")
}

pub(super) fn command(spec: &Spec, args: &[&[u8]]) -> Result<TextCommand, String> {
    let relative = |in_seconds| Unit { in_seconds, is_absolute: false };
    let absolute = |in_seconds| Unit { in_seconds, is_absolute: true };
    let when = |key: &[u8], is_left, in_seconds| {
        let request = Request::Read(ReadOp::Expiry(key.into()));
        ask(request, Shape::Time(Time { is_left, in_seconds }))
    };
    Ok(match (spec.verb, args) {
        (Verb::Expire, args) => expire(args, relative(true), spec.name)?,
        (Verb::PExpire, args) => expire(args, relative(false), spec.name)?,
        (Verb::ExpireAt, args) => expire(args, absolute(true), spec.name)?,
        (Verb::PExpireAt, args) => expire(args, absolute(false), spec.name)?,
        (Verb::Ttl, [key]) => when(key, true, true),
        (Verb::PTtl, [key]) => when(key, true, false),
        (Verb::ExpireTime, [key]) => when(key, false, true),
        (Verb::PExpireTime, [key]) => when(key, false, false),
        (Verb::Persist, [key]) => change(key, Expiry::Never, TimeCondition::Always, false),
        (Verb::GetEx, [key, options @ ..]) => get_ex(key, options, spec.name)?,
        _ => return Err(wrong_number(spec.name)),
    })
}

fn change(key: &[u8], expiry: Expiry, condition: TimeCondition, get: bool) -> TextCommand {
    let op = TimedOp::Expire { key, expiry, condition, get };
    write(WriteOp::Timed { stamp: 0, op }, if get { Shape::Old } else { Shape::Flag })
}

/// Options are looked at before the number, as in Redis.
fn expire(args: &[&[u8]], unit: Unit, command: &str) -> Result<TextCommand, String> {
    let [key, number, options @ ..] = args else { return Err(wrong_number(command)) };
    let condition = time_condition(options)?;
    let number = super::parse_i64(number).ok_or(NOT_AN_INTEGER)?;
    Ok(change(key, any_expiry(number, unit, command)?, condition, false))
}

fn time_condition(options: &[&[u8]]) -> Result<TimeCondition, String> {
    let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
    for option in options {
        match option.to_ascii_lowercase().as_slice() {
            b"nx" => nx = true,
            b"xx" => xx = true,
            b"gt" => gt = true,
            b"lt" => lt = true,
            _ => {
                let option = super::start_of(option, super::SHOWN_BYTES_MAX);
                return Err(format!("ERR Unsupported option {option}"));
            }
        }
    }
    if nx && (xx || gt || lt) {
        let text = "ERR NX and XX, GT or LT options at the same time are not compatible";
        return Err(text.to_owned());
    }
    match (nx, xx, gt, lt) {
        (_, _, true, true) => {
            Err("ERR GT and LT options at the same time are not compatible".to_owned())
        }
        (true, ..) => Ok(TimeCondition::Nx),
        // What has no time is never the earlier one.
        (_, _, true, _) => Ok(TimeCondition::Gt),
        (_, true, _, true) => Ok(TimeCondition::XxLt),
        (_, true, ..) => Ok(TimeCondition::Xx),
        (.., true) => Ok(TimeCondition::Lt),
        _ => Ok(TimeCondition::Always),
    }
}

fn get_ex(key: &[u8], options: &[&[u8]], command: &str) -> Result<TextCommand, String> {
    let expiry = match options {
        [] => return Ok(ask(Request::Get { key: key.into() }, Shape::Plain)),
        [option] if option.eq_ignore_ascii_case(b"persist") => Expiry::Never,
        [option, number] => {
            let unit = unit(option).ok_or(SYNTAX_ERROR)?;
            expiry(number, unit, command)?
        }
        _ => return Err(SYNTAX_ERROR.to_owned()),
    };
    Ok(change(key, expiry, TimeCondition::Always, true))
}
