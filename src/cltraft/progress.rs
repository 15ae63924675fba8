//! How it goes, on standard error: one line that is written over and over, and only on a terminal.

use crate::lines;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

/// Of a bar, in characters.
const BAR: usize = 30;
/// Between two pictures of a bar.
const REDRAW: Duration = Duration::from_millis(200);

pub struct Progress {
    is_terminal: bool,
    has_line: bool,
    begun: Instant,
    drawn_at: Option<Instant>,
}

impl Progress {
    pub fn on_stderr() -> Self {
        let is_terminal = io::stderr().is_terminal();
        Progress { is_terminal, has_line: false, begun: Instant::now(), drawn_at: None }
    }

    /// The line, in the place of the one before.
    pub fn say(&mut self, line: &str) {
        if self.is_terminal {
            lines::stderr().draw(&format!("\r\x1b[K{line}"));
            self.has_line = true;
        }
    }

    /// The line, and where there is no terminal one after the other.
    pub fn say_or_log(&mut self, line: &str) {
        if self.is_terminal {
            return self.say(line);
        }
        lines::stderr().say(line);
    }

    /// How much of `total` is done, in bytes or anything else, by the name of `unit`.
    pub fn bar(&mut self, done: u64, total: u64, amount: impl Fn(u64) -> String) {
        let now = Instant::now();
        if self.drawn_at.is_some_and(|at| now - at < REDRAW) {
            return;
        }
        self.drawn_at = Some(now);
        let seconds = self.begun.elapsed().as_secs_f64().max(0.001);
        let rate = amount((done as f64 / seconds) as u64);
        self.say(&format!("{}  {}  {rate}/s", picture(done, total), amount(done)));
    }

    /// The line goes.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.has_line) {
            lines::stderr().draw("\r\x1b[K");
        }
    }
}

fn picture(done: u64, total: u64) -> String {
    let part = if total == 0 { 1.0 } else { (done as f64 / total as f64).min(1.0) };
    let filled = (part * BAR as f64) as usize;
    format!("[{}{}] {:3.0} %", "#".repeat(filled), " ".repeat(BAR - filled), part * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        assert_eq!(picture(0, 10), format!("[{}]   0 %", " ".repeat(30)));
        assert_eq!(picture(5, 10), format!("[{}{}]  50 %", "#".repeat(15), " ".repeat(15)));
        assert_eq!(picture(11, 10), format!("[{}] 100 %", "#".repeat(30)));
        assert_eq!(picture(0, 0), format!("[{}] 100 %", "#".repeat(30)));
    }
}
