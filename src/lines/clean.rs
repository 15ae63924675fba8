//! One line of the log is one line, and harmless to the terminal that shows it.
//!
//! Names, addresses and reasons in it come from strangers who reach the port. A line break would make a second line,
//! which this node has never written. An escape sequence would do what it likes with the reader's terminal.

use std::fmt::Write;

/// The longest line of the log, with its end. It is what a pipe takes as a whole or not at all (`PIPE_BUF`).
pub const LINE_BYTES_MAX: usize = 4096;

/// What stands at the end of a line that is cut.
const CUT: &str = " ... (cut)";

/// The text without what would break a line, move a cursor or turn the direction of what follows. Each such character
/// is shown as `\u{1b}`; the three that people know are shown as `\n`, `\r` and `\t`.
pub fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' => clean.push_str("\\n"),
            '\r' => clean.push_str("\\r"),
            '\t' => clean.push_str("\\t"),
            other if is_harmful(other) => {
                // A String takes everything.
                let _ = write!(clean, "\\u{{{:x}}}", u32::from(other));
            }
            other => clean.push(other),
        }
    }
    clean
}

/// The head as it is and the text [`clean`], together at most [`LINE_BYTES_MAX`] bytes with the end of the line.
pub fn clean_line(head: &str, text: &str) -> String {
    let mut line = String::with_capacity(head.len() + text.len() + 1);
    line.push_str(head);
    line.push_str(&clean(text));
    if line.len() >= LINE_BYTES_MAX {
        let mut end = LINE_BYTES_MAX - 1 - CUT.len();
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push_str(CUT);
    }
    line
}

/// Control characters, separators of lines and paragraphs, and what sets the direction of text.
fn is_harmful(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(letter, '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_strangers_say_breaks_a_line_or_moves_a_cursor() {
        for (text, expected) in [
            ("raft-0 leads term 2", "raft-0 leads term 2"),
            ("a\r\nb\tc", "a\\r\\nb\\tc"),
            ("\x1b[2J\x07\0\x7f", "\\u{1b}[2J\\u{7}\\u{0}\\u{7f}"),
            ("\u{85}\u{9b}", "\\u{85}\\u{9b}"),
            ("\u{2028}\u{2029}\u{202e}evil", "\\u{2028}\\u{2029}\\u{202e}evil"),
            ("ñandú, 北京", "ñandú, 北京"),
        ] {
            assert_eq!(clean(text), expected);
        }
    }

    #[test]
    fn a_line_is_cut_where_a_pipe_would_split_it() {
        for letter in ["x", "ñ", "北", "\n"] {
            let line = clean_line("head ", &letter.repeat(LINE_BYTES_MAX));
            assert!(line.len() < LINE_BYTES_MAX, "{} bytes", line.len());
            assert!(line.len() > LINE_BYTES_MAX - 16, "{} bytes", line.len());
            assert!(line.starts_with("head ") && line.ends_with(" ... (cut)"));
        }
        let longest = "x".repeat(LINE_BYTES_MAX - 6);
        assert_eq!(clean_line("head ", &longest), format!("head {longest}"));
    }
}
