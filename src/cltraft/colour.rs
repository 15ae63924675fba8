//! Colours, only for a terminal, and only if nobody minds (<https://no-color.org>).

use std::io::{self, IsTerminal};

pub const BOLD: &str = "1";
pub const RED: &str = "31";
pub const GREEN: &str = "32";

pub fn on_stdout() -> bool {
    let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    is_wanted && io::stdout().is_terminal()
}

pub fn painted(colour: &str, text: &str) -> String {
    format!("\x1b[{colour}m{text}\x1b[0m")
}
