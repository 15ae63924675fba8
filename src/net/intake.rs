//! What all clients together have said and nobody has taken yet: requests that are not whole, and those that wait.
//!
//! Each may have a long request under way, and ten thousand with half of one would cost ten thousand times as much. So
//! from half of the limit on, a client is read only up to [`FEW_BYTES`], which is enough for small requests, and
//! whoever has more to say stands in a queue. The first few in it have their turn: they are read on until the
//! caller takes something, so that some request always comes to its end, whatever the others do. One that makes
//! nothing of its turn is closed after the silent timeout, if others wait.

use super::connection::Phase;
use super::{ConnId, Net};
use log::warn;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bytes that each client may have in its inbox however much the others have, and that one whose turn it is gets
/// more at a time: what is read beyond its request is no more than that.
const FEW_BYTES: usize = 4 * 1024;
/// From one part in so many of the limit on, clients stand in the queue.
const FREE_PART: usize = 2;
/// Those whose turn it is may have one part in so many together, each the longest request. What is left of the limit
/// is for the few bytes of each, and for those of the turn in which the queue begins.
const TURNS_PART: usize = 4;

#[derive(Debug)]
pub(super) struct Intake {
    max: usize,
    /// How many have their turn at once.
    turns_max: usize,
    pub(super) bytes: usize,
    /// Clients that have more to say.
    waiting: VecDeque<ConnId>,
    /// Those whose turn it is, and since when.
    turns: Vec<(ConnId, Instant)>,
    pub(super) closed: u64,
    /// Memory is short for other reasons.
    pub(super) is_short: bool,
    /// The log has been told since the last time that there was room for all.
    told: bool,
}

impl Intake {
    /// `max`: bytes of all clients; `inbox_max`: of one.
    pub(super) fn new(max: usize, inbox_max: usize) -> Intake {
        Intake {
            max,
            turns_max: (max / TURNS_PART / inbox_max.max(1)).max(1),
            bytes: 0,
            waiting: VecDeque::new(),
            turns: Vec::new(),
            closed: 0,
            is_short: false,
            told: false,
        }
    }

    fn is_scarce(&self) -> bool {
        self.is_short || self.bytes >= self.max / FREE_PART
    }
}

impl Net {
    /// Bytes of all that are no peers, which were read and not consumed.
    pub fn clients_unserved(&self) -> usize {
        self.intake.bytes
    }

    /// Clients that were closed because their requests did not come to an end while others waited.
    pub fn unserved_closed(&self) -> u64 {
        self.intake.closed
    }

    /// How much of so many bytes a connection is to be read at the moment; one that has to wait is put into the queue.
    pub(super) fn intake(&mut self, conn: ConnId, budget: usize) -> usize {
        let is_scarce = self.intake.is_scarce();
        let Some(connection) = self.get(conn) else { return 0 };
        if !is_scarce || connection.peer.is_some() || connection.phase != Phase::Open {
            return budget;
        }
        let few = match connection.has_turn {
            true => FEW_BYTES,
            false => FEW_BYTES.saturating_sub(connection.inbox.bytes().len()),
        };
        if few == 0 && connection.wants_reading() {
            connection.withheld = true;
            self.intake.waiting.push_back(conn);
        }
        budget.min(few)
    }

    /// The inbox has changed.
    #[inline(never)]
    pub(super) fn count_unserved(&mut self, conn: ConnId) {
        let Some(connection) = self.get(conn) else { return };
        let (counted, unserved) = (connection.counted_unserved, connection.client_unserved());
        connection.counted_unserved = unserved;
        self.intake.bytes = self.intake.bytes - counted + unserved;
        self.count_held(conn);
    }

    /// The memory of its buffers may have changed. What clients who say nothing keep for the next time is bounded.
    pub(super) fn count_held(&mut self, conn: ConnId) {
        let kept_max = self.config.kept_bytes_max;
        let kept = self.kept_bytes;
        let Some(connection) = self.get(conn) else { return };
        let (mut held, mut idle) = connection.held();
        let (counted, was_idle) = (connection.counted_held, connection.counted_kept);
        if idle > 0 && kept - was_idle + idle > kept_max {
            connection.inbox.give_back();
            connection.outbox.give_back();
            (held, idle) = connection.held();
        }
        (connection.counted_held, connection.counted_kept) = (held, idle);
        let is_peer = connection.peer.is_some();
        self.kept_bytes = kept - was_idle + idle;
        let all = if is_peer { &mut self.peers_held } else { &mut self.clients_held };
        *all = *all - counted + held;
    }

    /// Those who wait have their turn, as far as there is room.
    #[inline(never)]
    pub(super) fn admit(&mut self) {
        let patience = self.config.silent_timeout;
        self.end_turns(patience);
        let is_scarce = self.intake.is_scarce();
        self.intake.told &= is_scarce;
        while !is_scarce || self.intake.turns.len() < self.intake.turns_max {
            let Some(conn) = self.intake.waiting.pop_front() else { break };
            let now = self.now;
            let Some(connection) = self.get(conn) else { continue };
            connection.withheld = false;
            // One that is not to be read comes again when it is.
            if is_scarce && connection.wants_reading() {
                connection.has_turn = true;
                self.intake.turns.push((conn, now));
                self.sweep_no_later_than(now + patience);
            }
            self.list_readable(conn);
        }
    }

    fn end_turns(&mut self, patience: Duration) {
        let mut turns = std::mem::take(&mut self.intake.turns);
        let others_wait = !self.intake.waiting.is_empty();
        let is_scarce = self.intake.is_scarce();
        turns.retain(|(conn, since)| {
            let now = self.now;
            let Some(connection) = self.get(*conn) else { return false };
            connection.has_turn &= is_scarce;
            let is_over = !connection.has_turn;
            let is_stalled = others_wait && now >= *since + patience;
            if !is_over && is_stalled {
                self.close_stalled(*conn);
            }
            !is_over && !is_stalled
        });
        self.intake.turns = turns;
    }

    fn close_stalled(&mut self, conn: ConnId) {
        let Some(connection) = self.get(conn) else { return };
        let bytes = connection.inbox.bytes().len();
        let seconds = super::seconds(self.config.silent_timeout);
        let reason = format!("its request of more than {bytes} bytes did not end within {seconds}");
        self.intake.closed += 1;
        if !std::mem::replace(&mut self.intake.told, true) {
            let (all, max) = (self.intake.bytes, self.intake.max);
            warn!(
                "clients are closed whose long requests do not end while others wait: all clients together \
                 have sent {all} bytes that are not served, the limit is {max}"
            );
        }
        self.lose(conn, false, &reason);
    }
}
