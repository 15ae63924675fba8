//! `cltraft changes`: a line for every change, for as long as it is wanted.

use super::data::Data;
use super::signals::Signals;
use super::{Exit, complain, output_failed};
use crate::client::{Client, StreamEvent};
use crate::kv::Change;
use crate::raft::Index;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Until a signal, or until the changes that come next are not remembered any more. `client` has not been
/// asked anything yet.
pub fn run(client: Client, prefix: &[u8], from: Option<Index>) -> Exit {
    let signals = match Signals::install() {
        Ok(signals) => Arc::new(signals),
        Err(error) => {
            complain(&format!("cannot catch signals: {error}"));
            return Exit::NotDone;
        }
    };
    let mut client = client.pause_with({
        let signals = Arc::clone(&signals);
        move |duration| signals.wait(duration)
    });
    let (mut failed, mut out) = (None, Data::on_stdout(&signals));
    let ended = client.changes(prefix, from, |event| match tell(event, &mut out) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    });
    match (ended, failed) {
        (_, Some(error)) => output_failed(&error),
        (Ok(()), None) => Exit::Done,
        // Somebody has seen enough.
        (Err(_), None) if signals.wait(std::time::Duration::ZERO).is_break() => Exit::Done,
        (Err(error), None) => {
            complain(&error.to_string());
            Exit::NotDone
        }
    }
}

fn tell(event: StreamEvent, out: &mut dyn Write) -> io::Result<()> {
    match event {
        StreamEvent::Begun { server, from } => {
            complain(&format!("{server} sends changes from index {from} on"));
        }
        StreamEvent::Lost { server, reason } => {
            complain(&format!("{server} is lost ({reason}); another server is asked"));
        }
        StreamEvent::Changes { index, changes } => {
            for change in &changes {
                out.write_all(line(index, change).as_bytes())?;
            }
            out.flush()?;
        }
        StreamEvent::Progress { .. } => {}
    }
    Ok(())
}

/// Index, what has happened, key and value; the key has no blanks, so that the rest is the value.
fn line(index: Index, change: &Change) -> String {
    let mut line = match change {
        Change::Set { key, value } => {
            format!("{index} set {} {}", escaped(key, true), escaped(value, false))
        }
        Change::Deleted { key } => format!("{index} del {}", escaped(key, true)),
        Change::Flushed => format!("{index} flush"),
    };
    line.push('\n');
    line
}

/// Text as it is, but for what would break a line, or could not be read back.
fn escaped(bytes: &[u8], in_words: bool) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\r' => text.push_str("\\r"),
                blank if blank.is_control() || (in_words && blank.is_whitespace()) => {
                    let mut bytes = [0; 4];
                    push_bytes(&mut text, blank.encode_utf8(&mut bytes).as_bytes());
                }
                other => text.push(other),
            }
        }
        push_bytes(&mut text, chunk.invalid());
    }
    text
}

fn push_bytes(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        write!(text, "\\x{byte:02x}").expect("a String takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_one_line_whatever_is_in_it() {
        let set = |key: &[u8], value: &[u8]| Change::Set { key: key.into(), value: value.into() };
        for (change, expected) in [
            (set(b"a", b"1"), "7 set a 1\n"),
            (set(b"a b\\", b"two words\n\x1b[2J"), "7 set a\\x20b\\\\ two words\\n\\x1b[2J\n"),
            (set("ñ\u{a0}\u{85}".as_bytes(), b"\xff\t"), "7 set ñ\\xc2\\xa0\\xc2\\x85 \\xff\\t\n"),
            (Change::Deleted { key: b"\0"[..].into() }, "7 del \\x00\n"),
            (Change::Flushed, "7 flush\n"),
        ] {
            assert_eq!(line(7, &change), expected);
        }
    }
}
