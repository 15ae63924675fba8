//! What a node does when a signal asks for something ([`crate::net::Asks`]), and how it stops.

use super::{Server, info as about};
use crate::kv::{Answer, Failure, FailureCode};
use crate::net::{Asks, asks, signal_name};
use crate::node::Ticket;
use crate::wal::Disk;
use log::info;
use std::time::Instant;

/// The sections of `INFO` that a node writes into its log when it is asked how it is. Members and peers are in what
/// `WHY` says, as far as anything is wrong with them.
const TOLD_SECTIONS: [&str; 6] =
    ["Server", "Clients", "Raft", "Replication", "Persistence", "Keyspace"];

/// A signal has asked for the end.
#[derive(Debug, Clone, Copy)]
pub struct Stopping {
    pub signal: i32,
    until: Instant,
}

impl<D: Disk> Server<D> {
    /// Returns whether the node ends now: the second signal that asks it to stop asks for no patience.
    pub(super) fn signalled(&mut self, signal: i32, now: Instant) -> bool {
        let name = &self.config.name;
        match asks(signal) {
            Asks::ToStop if self.stopping.is_some() => return true,
            Asks::ToStop => self.begin_to_stop(signal, now),
            // Not a second one: the shell and the kernel may both send it.
            Asks::ToReload if self.stopping.is_some() => {}
            Asks::ToReload if self.terminal.is_lost() => {
                info!("{name} has lost its terminal");
                self.begin_to_stop(signal, now);
            }
            Asks::ToReload => info!("{name} has nothing to reload, and goes on: SIGHUP"),
            Asks::ForState => self.tell_state(signal, now),
            Asks::Nothing => {}
        }
        false
    }

    /// A leader hands over first, and what waits is answered, for as long as that may take.
    fn begin_to_stop(&mut self, signal: i32, now: Instant) {
        let name = &self.config.name;
        match self.replica.inputs().leave() {
            true => info!("{name} hands over and stops: {}", signal_name(signal)),
            false => info!("{name} stops: {}", signal_name(signal)),
        }
        // Of the longest election timeouts one for the successor, and one for its first answers.
        let until = now + self.config.election * 4;
        self.stopping = Some(Stopping { signal, until });
    }

    /// The signal that has asked for the end, once the node may stop.
    pub(super) fn may_stop(&self, now: Instant) -> Option<i32> {
        let stopping = self.stopping?;
        let is_settled = !self.replica.node().raft().is_handing_over();
        let may = now >= stopping.until || (is_settled && self.asked.is_empty());
        may.then_some(stopping.signal)
    }

    /// What still waits is answered with what is known, and the process ends.
    pub(super) fn stop(&mut self, signal: i32) {
        info!(
            "{} ends: {}; {} requests are unanswered",
            self.config.name,
            signal_name(signal),
            self.asked.len()
        );
        let tickets: Vec<(usize, bool)> =
            self.asked.iter().map(|(ticket, asked)| (ticket, asked.is_write)).collect();
        for (ticket, is_write) in tickets {
            let (code, message) = if is_write {
                let what =
                    "the node stops before the write was committed; it may or may not take effect";
                (FailureCode::OutcomeUnknown, what)
            } else {
                (FailureCode::ShuttingDown, "the node stops; nothing was done, ask another node")
            };
            let failure = Failure { code, message: message.to_string(), leader: None };
            self.deliver(ticket as Ticket, Answer::Failed(failure), Instant::now());
        }
        self.links.push();
    }

    /// For an operator who can reach the process, and not its port: what `WHY` says, and some of `INFO`.
    fn tell_state(&self, signal: i32, now: Instant) {
        let name = &self.config.name;
        let why = self.why(now);
        info!("{name} is {}: {} ({})", why.level.name(), why.headline, signal_name(signal));
        why.details.iter().for_each(|detail| info!("{name} tells: {detail}"));
        let sections = self.sections(now);
        let told = sections.iter().filter(|(title, _)| TOLD_SECTIONS.contains(title));
        told.for_each(|section| info!("{name} tells: {}", about::line(section)));
    }
}
