//! Clients that are not read from until they have taken enough of their answers, or until their earlier commands are
//! answered.
//!
//! There may be ten thousand of them, so a turn looks at those only for whom something has changed: an answer has come,
//! their socket has taken some bytes, or what all share has room again.

use super::talk::{Owed, Talk};
use super::{AWAITED_BYTES_MAX, Server};
use crate::net::ConnId;
use crate::wal::Disk;
use std::collections::BTreeSet;
use std::time::Instant;

/// A client with no more to be served than this, in bytes, and nothing under way goes on although those with more have
/// all under way that clients may have together.
const LITTLE_BYTES: usize = 4 * 1024;
/// ... up to one part in so many of that.
const OVERTAKING_PART: usize = 8;

#[derive(Debug, Default)]
pub struct Paused {
    all: BTreeSet<ConnId>,
    /// Those that may be able to go on.
    changed: BTreeSet<ConnId>,
    /// The one that was read from last; the next one's turn is after it.
    resumed_last: Option<ConnId>,
    /// When they were looked at last, all clients together had so much unread that each may have little.
    was_scarce: bool,
}

impl Paused {
    pub fn insert(&mut self, conn: ConnId) {
        self.all.insert(conn);
        self.changed.insert(conn);
    }

    pub fn remove(&mut self, conn: ConnId) {
        self.all.remove(&conn);
        self.changed.remove(&conn);
    }

    pub fn contains(&self, conn: ConnId) -> bool {
        self.all.contains(&conn)
    }

    /// Something has changed for this client, if it is one of them.
    pub fn note(&mut self, conn: ConnId) {
        if self.all.contains(&conn) {
            self.changed.insert(conn);
        }
    }

    /// What each may have unread: when that is more again, all of them may go on.
    fn note_scarcity(&mut self, is_scarce: bool) {
        if std::mem::replace(&mut self.was_scarce, is_scarce) && !is_scarce {
            self.changed.extend(&self.all);
        }
    }

    /// Those of whom it is to be found out, from the next one's turn on.
    fn take_changed(&mut self) -> Vec<ConnId> {
        let mut changed: Vec<ConnId> = std::mem::take(&mut self.changed).into_iter().collect();
        let had_their_turn = changed.partition_point(|conn| Some(*conn) <= self.resumed_last);
        changed.rotate_left(had_their_turn);
        changed
    }

    fn resumed(&mut self, conn: ConnId) {
        self.remove(conn);
        self.resumed_last = Some(conn);
    }
}

impl<D: Disk> Server<D> {
    /// Clients that can go on are read again. They take turns: what all share may be used up by the first few.
    pub(super) fn resume(&mut self) {
        for conn in self.links.net.take_drained() {
            self.paused.note(conn);
            self.streams.note(conn);
        }
        self.paused.note_scarcity(self.is_unread_scarce());
        if self.is_awaited_full(2) {
            return;
        }
        let mut ready = self.paused.take_changed();
        ready.retain(|conn| !self.must_wait(*conn));
        let now = Instant::now();
        for conn in ready {
            if self.is_awaited_full(1) {
                self.paused.note(conn);
                continue;
            }
            self.paused.resumed(conn);
            self.links.net.pause_reading(conn, false);
            self.readable(conn, now);
        }
    }

    /// Whether a client that was held back still waits for its earlier commands, or has more than half of
    /// what it may have.
    fn must_wait(&self, conn: ConnId) -> bool {
        let talk = self.talks.get(&conn);
        let owed = talk.map(Talk::owed).unwrap_or_default();
        talk.is_some_and(Talk::is_held) || self.has_its_part(conn, owed, 2)
    }

    /// Whether nothing more is to be taken in from a client for now.
    pub(super) fn is_full(&self, conn: ConnId, owed: Owed) -> bool {
        self.has_its_part(conn, owed, 1)
            || (self.is_awaited_full(1) && !self.may_overtake(conn, owed))
    }

    /// Whether a client says little, and has nothing under way: it need not wait for those who have much, as long as
    /// there is room of its kind.
    fn may_overtake(&self, conn: ConnId, owed: Owed) -> bool {
        let room = AWAITED_BYTES_MAX + AWAITED_BYTES_MAX / OVERTAKING_PART;
        owed.answers == 0 && self.inbox(conn).len() <= LITTLE_BYTES && self.asked_bytes < room
    }

    /// Whether a client has a `1/divisor` or more of what it may have unread or unanswered.
    fn has_its_part(&self, conn: ConnId, owed: Owed, divisor: usize) -> bool {
        owed.answers >= self.config.client_pipeline_max.div_ceil(divisor)
            || self.links.net.outbox_len(conn) + owed.bytes
                >= self.unread_bytes_max().div_ceil(divisor)
    }

    /// Whether all clients have a `1/divisor` or more under way of what they may have together.
    fn is_awaited_full(&self, divisor: usize) -> bool {
        self.asked_bytes >= AWAITED_BYTES_MAX.div_ceil(divisor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conns(slots: &[u32]) -> Vec<ConnId> {
        slots.iter().map(|slot| ConnId::for_test(*slot)).collect()
    }

    fn paused(slots: &[u32]) -> Paused {
        let mut paused = Paused::default();
        conns(slots).into_iter().for_each(|conn| paused.insert(conn));
        paused
    }

    #[test]
    fn a_client_is_looked_at_when_it_is_paused_and_then_only_when_something_changes_for_it() {
        let mut paused = paused(&[1, 2, 3]);
        assert_eq!(paused.take_changed(), conns(&[1, 2, 3]));
        assert_eq!(paused.take_changed(), []);
        conns(&[2, 9]).into_iter().for_each(|conn| paused.note(conn));
        assert_eq!(paused.take_changed(), conns(&[2]), "the other one is not paused");
        paused.note(ConnId::for_test(3));
        paused.remove(ConnId::for_test(3));
        assert_eq!(paused.take_changed(), [], "it has gone");
    }

    #[test]
    fn all_are_looked_at_when_each_may_have_more_unread_again() {
        let mut paused = paused(&[1, 2]);
        paused.take_changed();
        paused.note_scarcity(true);
        assert_eq!(paused.take_changed(), [], "nobody may have more");
        paused.note_scarcity(false);
        assert_eq!(paused.take_changed(), conns(&[1, 2]));
        paused.note_scarcity(false);
        assert_eq!(paused.take_changed(), []);
    }

    #[test]
    fn they_take_turns() {
        let mut paused = paused(&[1, 2, 3, 4]);
        paused.resumed(ConnId::for_test(2));
        assert_eq!(paused.take_changed(), conns(&[3, 4, 1]));
    }
}
