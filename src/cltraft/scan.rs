//! `cltraft scan`: keys and values in order, a page at a time.
//!
//! Each page is a linearizable read of its own, and the next one begins at the key where it ended. So a key
//! that is there all the time is shown exactly once, whatever else is written meanwhile; one that comes or goes
//! during the scan may be shown or not.

use super::args::{Output, Scan};
use super::commands::Trouble;
use super::json::Object;
use crate::client::Client;
use crate::kv::Range;
use std::io::Write;
use std::rc::Rc;

/// Keys that one page looks at, at most; short values end it here, long ones at the limit of an answer.
const PAGE_KEYS_MAX: u32 = 1000;

/// Returns how many keys were shown.
pub fn run(
    client: &mut Client,
    scan: &Scan,
    output: Output,
    out: &mut dyn Write,
) -> Result<u64, Trouble> {
    let Some((mut start, end)) = bounds(scan) else { return Ok(0) };
    let mut shown = 0;
    loop {
        let left = scan.limit.map_or(u64::MAX, |limit| limit - shown);
        let range = Range {
            start: start.as_slice().into(),
            end: end.as_deref().map(Rc::from),
            reverse: false,
            pattern: None,
            with_values: !scan.keys_only,
            keys_max: left.min(u64::from(PAGE_KEYS_MAX)) as u32,
            partial: true,
        };
        let page = client.range(range)?;
        for (key, value) in &page.pairs {
            line(key, value.as_deref(), output, out)?;
            shown += 1;
        }
        // Somebody may wait for what there is.
        out.flush()?;
        match page.next {
            Some(next) if scan.limit != Some(shown) => start = next,
            _ => return Ok(shown),
        }
    }
}

/// From where to where; `None` if there is nothing between.
fn bounds(scan: &Scan) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let start =
        scan.start.clone().map_or(scan.prefix.clone(), |start| start.max(scan.prefix.clone()));
    let end = match (after_prefix(&scan.prefix), scan.end.clone()) {
        (Some(after), Some(end)) => Some(after.min(end)),
        (after, end) => after.or(end),
    };
    end.as_ref().is_none_or(|end| start < *end).then_some((start, end))
}

/// The least key that comes after all keys with this prefix; `None`: there is none.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut after = prefix[..=last].to_vec();
    after[last] += 1;
    Some(after)
}

fn line(
    key: &[u8],
    value: Option<&[u8]>,
    output: Output,
    out: &mut dyn Write,
) -> Result<(), Trouble> {
    match (output, value) {
        (Output::Json, value) => {
            let mut object = Object::default().bytes("key", key);
            if let Some(value) = value {
                object = object.bytes("value", value);
            }
            writeln!(out, "{}", object.finish())?;
        }
        (Output::Table, Some(value)) => writeln!(out, "{}\t{}", escaped(key), escaped(value))?,
        (Output::Table, None) => writeln!(out, "{}", escaped(key))?,
    }
    Ok(())
}

/// One line of text without a tab, from which the bytes can be told: UTF-8 as it is, but for control characters
/// and the backslash, which are `\n`, `\r`, `\t`, `\\`, `\u{...}`, and other bytes, which are `\x..`.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' || c.is_control() {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_as_text() {
        assert_eq!(escaped("a\tb\\c\né \x1b[2J".as_bytes()), "a\\tb\\\\c\\né \\u{1b}[2J");
        assert_eq!(escaped(b"\xff\x00"), "\\xff\\u{0}");
    }

    #[test]
    fn what_comes_after_a_prefix() {
        assert_eq!(after_prefix(b"a"), Some(b"b".to_vec()));
        assert_eq!(after_prefix(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(after_prefix(b"\xff\xff"), None);
        assert_eq!(after_prefix(b""), None);
    }

    #[test]
    fn prefix_start_and_end_hold_together() {
        let scan = |prefix: &str, start: Option<&str>, end: Option<&str>| {
            let bytes = |text: &str| text.as_bytes().to_vec();
            let (start, end) = (start.map(bytes), end.map(bytes));
            bounds(&Scan { prefix: bytes(prefix), start, end, limit: None, keys_only: false })
        };
        let some = |start: &str, end: Option<&str>| {
            Some((start.as_bytes().to_vec(), end.map(|end| end.as_bytes().to_vec())))
        };
        assert_eq!(scan("", None, None), some("", None));
        assert_eq!(scan("p", None, None), some("p", Some("q")));
        assert_eq!(scan("p", Some("pb"), Some("z")), some("pb", Some("q")));
        assert_eq!(scan("p", Some("a"), Some("pc")), some("p", Some("pc")));
        assert_eq!(scan("p", Some("q"), None), None);
        assert_eq!(scan("", Some("b"), Some("a")), None);
    }
}
