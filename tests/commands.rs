//! `COMMANDS.md` lists what the code has, in the same words and order.

use raftkv::kv::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use raftkv::protocol::resp::ARGUMENTS_MAX;
use raftkv::protocol::text::SPECS;

const DOCUMENT: &str = include_str!("../COMMANDS.md");

#[test]
fn the_page_has_a_row_for_every_command_and_for_no_other() {
    let rows: Vec<&str> = DOCUMENT.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(rows.len(), SPECS.len());
    for (row, spec) in rows.into_iter().zip(SPECS) {
        let expected = format!("| `{}` | {} | ", spec.usage.replace('|', "\\|"), spec.summary);
        assert!(row.starts_with(&expected), "{row}\nis to begin with\n{expected}");
    }
}

#[test]
fn its_limits_are_those_of_the_code() {
    let keys = format!("Keys have up to {} KiB", KEY_BYTES_MAX / 1024);
    let values = format!("values up to {} MiB", VALUE_BYTES_MAX / 1024 / 1024);
    for words in [keys, values, format!("up to {ARGUMENTS_MAX} words")] {
        assert!(DOCUMENT.contains(&words), "{words}");
    }
    assert!(DOCUMENT.contains(&format!("At most {} keys", ARGUMENTS_MAX - 1)));
}
