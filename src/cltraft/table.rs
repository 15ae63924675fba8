//! Text in columns, also with what servers say in it.

use std::fmt::Write;

/// What stands where a server said nothing.
pub const MISSING: &str = "-";
/// Cells beyond this many characters are cut, so that no server can flood the terminal.
const CELL_CHARS_MAX: usize = 160;
/// The same for a whole line.
const LINE_CHARS_MAX: usize = 600;

/// One line for each row, its cells under those of the first one.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            write!(line, "{cell:<width$}  ").expect("a String takes everything");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Text from a server, made safe to print: one line, no control characters, bounded.
pub fn cell(text: &str) -> String {
    bounded(text, CELL_CHARS_MAX)
}

/// The same for a sentence, which has a line for itself.
pub fn line(text: &str) -> String {
    bounded(text, LINE_CHARS_MAX)
}

fn bounded(text: &str, chars_max: usize) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if clean.chars().count() <= chars_max {
        return clean;
    }
    clean.chars().take(chars_max - 3).chain("...".chars()).collect()
}
