//! Signals, and what each asks of a node.
//!
//! | signal | what the node does |
//! |---|---|
//! | SIGTERM, SIGINT (Ctrl-C), SIGQUIT (Ctrl-\), SIGALRM, SIGXCPU, SIGPWR | stops gracefully: a leader hands over first; a second one ends the node at once |
//! | SIGHUP | goes on, as there is nothing to reload; but a node that has lost its terminal stops gracefully. Under `nohup` it stays ignored |
//! | SIGUSR1, SIGUSR2 | goes on, and writes into the log how it is |
//! | SIGXFSZ, SIGPIPE | goes on: the write fails, and says so |
//! | others | as the system has it: SIGTSTP (Ctrl-Z) and SIGSTOP hold it up until SIGCONT, SIGABRT and faults leave a core |
//!
//! SIGALRM ends a process that was started with a time limit, as `alarm` survives `exec`. SIGXCPU warns of `ulimit -t`
//! before the end. With SIGPWR a power supply or a container's host says that the machine goes down.
//! SIGTTOU cannot be caught usefully: it comes back with every write. So lines of the log that would cause it are
//! dropped ([`crate::lines`]).

use rustix::fs::{Mode, OFlags, open};
use rustix::process::Signal;
use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU, SIGXFSZ,
};
use signal_hook_mio::v1_0::Signals;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::{fs, io};

/// Not among signal-hook's.
const SIGPWR: i32 = Signal::POWER.as_raw();

const STOPPING: [i32; 6] = [SIGTERM, SIGINT, SIGQUIT, SIGALRM, SIGXCPU, SIGPWR];
/// They need not wait for the loop: their default action would end a node that reads its log back.
const OTHERS: [i32; 3] = [SIGUSR1, SIGUSR2, SIGXFSZ];

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// To hand over and stop.
    ToStop,
    /// To read the settings again, or to end with the terminal.
    ToReload,
    /// To say how it is.
    ForState,
    /// Nothing that is not known anyway.
    Nothing,
}

/// What a signal asks for.
pub fn asks(signal: i32) -> Asks {
    match signal {
        _ if STOPPING.contains(&signal) => Asks::ToStop,
        SIGHUP => Asks::ToReload,
        SIGUSR1 | SIGUSR2 => Asks::ForState,
        _ => Asks::Nothing,
    }
}

/// As people know it: `SIGTERM`.
pub fn signal_name(signal: i32) -> String {
    match signal_hook::low_level::signal_name(signal) {
        Some(name) => name.to_string(),
        None if signal == SIGPWR => "SIGPWR".to_string(),
        None => format!("signal {signal}"),
    }
}

/// From now on none of the signals that do not ask a node to stop ends the process, also before its loop turns. Those
/// that come until then are forgotten.
pub fn catch_early_signals() {
    let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    for signal in OTHERS.into_iter().chain(hangup) {
        // Without it, the signal does what it always does.
        let _ = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)));
    }
}

/// All that a node answers, as events of its loop.
pub(super) fn install() -> io::Result<Signals> {
    // `nohup` has said already that it goes on.
    let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    Signals::new(STOPPING.into_iter().chain(OTHERS).chain(hangup))
}

/// Whether this process was told to ignore a signal before it began. `false` where there is no `/proc`.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    u32::try_from(signal - 1).is_ok_and(|bit| mask.checked_shr(bit).unwrap_or(0) & 1 == 1)
}

/// The terminal that a node was started in.
#[derive(Debug)]
pub struct Terminal {
    /// In how many looks it may yet be missing. 0: there is none, or its end has nothing to do with a SIGHUP that comes
    /// now. The shell of a node that stays behind may exit and take the terminal along, long before a log is rotated.
    looks_left: u8,
}

/// The looks for which the end of a terminal is news. Its end may come just before one, and the signal after it.
const LOOKS: u8 = 2;

impl Terminal {
    pub fn of_this_process() -> Self {
        Terminal { looks_left: if has_terminal() { LOOKS } else { 0 } }
    }

    /// To be called about once a second.
    pub fn look(&mut self) {
        if self.looks_left > 0 {
            self.looks_left = if has_terminal() { LOOKS } else { self.looks_left - 1 };
        }
    }

    /// Whether there was one lately, and there is none any more: its window was closed, or its connection has ended.
    pub fn is_lost(&self) -> bool {
        self.looks_left > 0 && !has_terminal()
    }
}

fn has_terminal() -> bool {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    open("/dev/tty", flags, Mode::empty()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_names_that_people_know() {
        for (signal, name) in [(SIGTERM, "SIGTERM"), (SIGUSR2, "SIGUSR2"), (SIGPWR, "SIGPWR")] {
            assert_eq!(signal_name(signal), name);
        }
        assert_eq!(signal_name(64), "signal 64");
    }
}
