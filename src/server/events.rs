//! What has happened at this node lately: the lines of its log that tell of elections, members, snapshots and
//! connections, kept for whoever looks at the page.

use super::unix_ms;
use std::collections::VecDeque;

/// Events that are remembered; the oldest is forgotten for the next.
pub const EVENTS_MAX: usize = 64;
/// The longest text of an event, in bytes; what is longer is cut.
pub const EVENT_BYTES_MAX: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Election,
    Members,
    Snapshot,
    Connection,
    Ready,
    Disk,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Rises by one with every event of this process.
    pub number: u64,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    pub kind: Kind,
    pub text: String,
}

#[derive(Debug, Default)]
pub struct Events {
    ring: VecDeque<Event>,
    count: u64,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Election => "election",
            Kind::Members => "members",
            Kind::Snapshot => "snapshot",
            Kind::Connection => "connection",
            Kind::Ready => "ready",
            Kind::Disk => "disk",
        }
    }
}

impl Events {
    pub fn note(&mut self, kind: Kind, text: impl Into<String>) {
        let mut text = text.into();
        let end = (0..=EVENT_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        if self.ring.len() >= EVENTS_MAX {
            self.ring.pop_front();
        }
        self.count += 1;
        self.ring.push_back(Event { number: self.count, at_ms: unix_ms(), kind, text });
    }

    /// The newest first.
    pub fn newest(&self) -> impl Iterator<Item = &Event> {
        self.ring.iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_events_are_kept_and_long_ones_cut() {
        let mut events = Events::default();
        for number in 0..EVENTS_MAX + 3 {
            events.note(Kind::Election, format!("event {number}"));
        }
        events.note(Kind::Disk, "ä".repeat(EVENT_BYTES_MAX));
        assert_eq!(events.newest().count(), EVENTS_MAX);
        let newest: Vec<&Event> = events.newest().take(2).collect();
        assert_eq!(newest[0].text, "ä".repeat(EVENT_BYTES_MAX / 2));
        assert_eq!(newest[1].text, format!("event {}", EVENTS_MAX + 2));
        assert_eq!(newest[0].number, EVENTS_MAX as u64 + 4);
    }
}
