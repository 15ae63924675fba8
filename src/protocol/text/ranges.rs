//! Commands about many keys. They only read, and what they read in one go is bounded.

use super::{SYNTAX_ERROR, Shape, TextCommand, ask, integer};
use crate::kv::{Range, ReadOp, Request};
use std::rc::Rc;

/// How many keys `SCAN` looks at if it is not told (as in Redis).
const SCAN_COUNT: u32 = 10;

pub(super) fn keys(pattern: &[u8]) -> TextCommand {
    let range = Range { keys_max: u32::MAX, partial: false, ..fitting(Some(pattern)) };
    ask(Request::Read(ReadOp::Range(range)), Shape::Plain)
}

pub(super) fn scan(args: &[&[u8]]) -> Result<TextCommand, String> {
    let (cursor, mut options) = args.split_first().expect("its row asks for an argument");
    let cursor = std::str::from_utf8(cursor).ok().and_then(|text| text.parse().ok());
    let cursor = cursor.ok_or("ERR invalid cursor")?;
    let (mut pattern, mut count, mut is_string) = (None, SCAN_COUNT, true);
    while let [option, value, rest @ ..] = options {
        match option.to_ascii_lowercase().as_slice() {
            b"match" => pattern = Some(*value),
            b"count" => match integer(value)? {
                ..1 => return Err(SYNTAX_ERROR.to_owned()),
                number => count = u32::try_from(number).unwrap_or(u32::MAX),
            },
            b"type" => is_string = value.eq_ignore_ascii_case(b"string"),
            _ => return Err(SYNTAX_ERROR.to_owned()),
        }
        options = rest;
    }
    if !options.is_empty() {
        return Err(SYNTAX_ERROR.to_owned());
    }
    let mut range = Range { keys_max: count, partial: true, ..fitting(pattern) };
    if !is_string {
        // There are only strings: nothing fits.
        (range.start, range.end) = (Rc::default(), Some(Rc::default()));
    }
    Ok(TextCommand::Scan { cursor, range })
}

pub(super) fn range(args: &[&[u8]]) -> Result<TextCommand, String> {
    let (bounds, mut options) = args.split_at(2);
    let end = Some(bounds[1]).filter(|end| !end.is_empty());
    let mut range = Range {
        start: bounds[0].into(),
        end: end.map(Into::into),
        with_values: true,
        keys_max: u32::MAX,
        partial: false,
        ..fitting(None)
    };
    while let Some((option, rest)) = options.split_first() {
        options = match (option.to_ascii_lowercase().as_slice(), rest) {
            (b"rev", rest) => {
                range.reverse = true;
                rest
            }
            (b"limit", [number, rest @ ..]) => {
                let number = integer(number)?;
                range.keys_max = match number {
                    ..0 => return Err("ERR value is out of range, must be positive".to_owned()),
                    number => u32::try_from(number).unwrap_or(u32::MAX),
                };
                rest
            }
            _ => return Err(SYNTAX_ERROR.to_owned()),
        };
    }
    Ok(ask(Request::Read(ReadOp::Range(range)), Shape::Plain))
}

/// All keys, or those that fit the pattern: they begin with what stands before its first special byte.
fn fitting(pattern: Option<&[u8]>) -> Range {
    let pattern = pattern.filter(|pattern| *pattern != b"*");
    let literal = pattern.map_or(&[][..], |pattern| {
        let special = pattern.iter().position(|byte| b"*?[\\".contains(byte));
        &pattern[..special.unwrap_or(pattern.len())]
    });
    Range {
        start: literal.into(),
        end: after_prefix(literal),
        reverse: false,
        pattern: pattern.map(Into::into),
        with_values: false,
        keys_max: SCAN_COUNT,
        partial: true,
    }
}

/// The least key that is greater than all that begin so; `None`: there is none.
fn after_prefix(prefix: &[u8]) -> Option<Rc<[u8]>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut after = prefix[..=last].to_vec();
    after[last] += 1;
    Some(after.into())
}
