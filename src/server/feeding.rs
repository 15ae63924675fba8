//! Whose change stream is fed in a turn.
//!
//! There may be ten thousand streams. A turn looks only at those for which something has changed: an entry was applied,
//! the client has read, its earlier commands are answered, or a mark is due. And it does no more than so much work for
//! all of them together: the others come first in the next turn.

use crate::net::ConnId;
use crate::raft::Index;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Instant;

/// Streams by what they wait for. Each is in exactly one of the four sets.
#[derive(Debug, Default)]
pub struct Feeding {
    all: BTreeMap<ConnId, Known>,
    /// Those to be looked at.
    ready: BTreeSet<ConnId>,
    /// Everything that is applied is out.
    level: BTreeSet<ConnId>,
    /// Their clients have to read first; by the index that they go on at, because the history may forget it.
    full: BTreeSet<(Index, ConnId)>,
    /// What came before the stream has to be answered first.
    held: BTreeSet<ConnId>,
    /// When to look at a stream although nothing happens.
    marks: BTreeSet<(Instant, ConnId)>,
    /// The next one's turn is after it.
    looked_at_last: Option<ConnId>,
    /// What was applied when it was looked last.
    applied: Index,
}

#[derive(Debug, Default)]
struct Known {
    /// What it goes on at, if it is one of the full.
    full_at: Option<Index>,
    mark_at: Option<Instant>,
}

/// What a stream waits for once it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitsFor {
    /// There is more for it.
    Turn,
    Entries,
    /// Its client has to read; it goes on at this index.
    Room(Index),
    Answers,
}

impl Feeding {
    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn insert(&mut self, conn: ConnId) {
        self.all.insert(conn, Known::default());
        self.ready.insert(conn);
    }

    pub fn forget(&mut self, conn: ConnId) {
        self.take_out(conn);
        if let Some(Known { mark_at: Some(at), .. }) = self.all.remove(&conn) {
            self.marks.remove(&(at, conn));
        }
    }

    /// Whether the next turn has something to do without further input.
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How many a turn should look at.
    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Its client has read, or has its answers, or has said its last: it is looked at.
    pub fn note(&mut self, conn: ConnId) {
        if self.all.contains_key(&conn) {
            self.take_out(conn);
            self.ready.insert(conn);
        }
    }

    /// The same of one that waits for its answers.
    pub fn note_answer(&mut self, conn: ConnId) {
        if self.held.remove(&conn) {
            self.ready.insert(conn);
        }
    }

    /// So much is applied, changes from `first` on are remembered, and time has passed.
    pub fn look(&mut self, applied: Index, first: Index, now: Instant) {
        if applied != self.applied {
            self.applied = applied;
            match self.ready.is_empty() {
                true => std::mem::swap(&mut self.ready, &mut self.level),
                false => self.ready.append(&mut self.level),
            }
        }
        while let Some((next, conn)) = self.full.first().copied()
            && next < first
        {
            self.note(conn);
        }
        while let Some((at, conn)) = self.marks.first().copied()
            && at <= now
        {
            self.marks.remove(&(at, conn));
            let Some(known) = self.all.get_mut(&conn) else { continue };
            known.mark_at = None;
            if self.level.remove(&conn) {
                self.ready.insert(conn);
            }
        }
    }

    /// All of them are looked at: they are to end.
    pub fn look_at_all(&mut self) {
        self.ready.extend(self.all.keys());
        self.level.clear();
        self.full.clear();
        self.held.clear();
        self.all.values_mut().for_each(|known| known.full_at = None);
    }

    /// The one whose turn it is. It has to be put back, or forgotten.
    pub fn next(&mut self) -> Option<ConnId> {
        let after = self.looked_at_last.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.ready.range((after, Bound::Unbounded)).next().or(self.ready.first());
        let conn = *next?;
        self.ready.remove(&conn);
        self.looked_at_last = Some(conn);
        Some(conn)
    }

    /// It was looked at. `mark_at`: when a mark is due, if nothing else comes.
    pub fn put_back(&mut self, conn: ConnId, waits_for: WaitsFor, mark_at: Option<Instant>) {
        let Some(known) = self.all.get_mut(&conn) else { return };
        // One that is due earlier does no harm: then it is looked at.
        if known.mark_at.is_none()
            && let Some(at) = mark_at
        {
            known.mark_at = mark_at;
            self.marks.insert((at, conn));
        }
        match waits_for {
            WaitsFor::Turn => drop(self.ready.insert(conn)),
            WaitsFor::Entries => drop(self.level.insert(conn)),
            WaitsFor::Answers => drop(self.held.insert(conn)),
            WaitsFor::Room(next) => {
                known.full_at = Some(next);
                self.full.insert((next, conn));
            }
        }
    }

    /// ... of the set that it is in.
    fn take_out(&mut self, conn: ConnId) {
        let Some(known) = self.all.get_mut(&conn) else { return };
        if let Some(next) = known.full_at.take() {
            self.full.remove(&(next, conn));
        } else {
            let _ = self.ready.remove(&conn) || self.level.remove(&conn) || self.held.remove(&conn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn conn(slot: u32) -> ConnId {
        ConnId::for_test(slot)
    }

    /// With these streams, of which none has anything to do.
    fn level(slots: &[u32], now: Instant) -> Feeding {
        let mut feeding = Feeding::default();
        slots.iter().for_each(|slot| feeding.insert(conn(*slot)));
        feeding.look(10, 1, now);
        while let Some(conn) = feeding.next() {
            feeding.put_back(conn, WaitsFor::Entries, None);
            if feeding.ready.is_empty() {
                break;
            }
        }
        feeding
    }

    fn looked_at(feeding: &mut Feeding) -> Vec<ConnId> {
        std::iter::from_fn(|| feeding.next()).collect()
    }

    #[test]
    fn a_turn_looks_at_no_stream_for_which_nothing_has_changed() {
        let now = Instant::now();
        let mut feeding = level(&[1, 2, 3, 4], now);
        feeding.look(10, 1, now);
        assert!(!feeding.has_work());
        feeding.note(conn(3));
        feeding.note(conn(9));
        assert_eq!(looked_at(&mut feeding), [conn(3)], "the other one has no stream");
        feeding.put_back(conn(3), WaitsFor::Room(11), None);
        feeding.look(11, 1, now);
        assert_eq!(looked_at(&mut feeding), [conn(4), conn(1), conn(2)], "3 does not read");
        feeding.put_back(conn(1), WaitsFor::Answers, None);
        feeding.put_back(conn(2), WaitsFor::Turn, None);
        feeding.put_back(conn(4), WaitsFor::Entries, None);
        feeding.look(12, 1, now);
        assert_eq!(looked_at(&mut feeding), [conn(4), conn(2)], "1 waits for its answers");
        feeding.note_answer(conn(1));
        feeding.note_answer(conn(3));
        assert_eq!(looked_at(&mut feeding), [conn(1)]);
    }

    #[test]
    fn a_client_that_does_not_read_is_looked_at_when_what_it_lacks_is_forgotten() {
        let now = Instant::now();
        let mut feeding = level(&[1, 2], now);
        looked_at(&mut feeding);
        for (slot, next) in [(1, 20), (2, 30)] {
            feeding.note(conn(slot));
            assert_eq!(feeding.next(), Some(conn(slot)));
            feeding.put_back(conn(slot), WaitsFor::Room(next), None);
        }
        feeding.look(50, 20, now);
        assert!(!feeding.has_work());
        feeding.look(50, 21, now);
        assert_eq!(looked_at(&mut feeding), [conn(1)]);
    }

    #[test]
    fn a_mark_is_due_once_and_not_of_one_that_has_gone() {
        let now = Instant::now();
        let due = now + Duration::from_secs(1);
        let mut feeding = level(&[1, 2], now);
        for slot in [1, 2] {
            feeding.note(conn(slot));
            assert_eq!(feeding.next(), Some(conn(slot)));
            feeding.put_back(conn(slot), WaitsFor::Entries, Some(due));
        }
        feeding.forget(conn(2));
        feeding.look(10, 1, due - Duration::from_millis(1));
        assert!(!feeding.has_work());
        feeding.look(10, 1, due);
        assert_eq!(looked_at(&mut feeding), [conn(1)]);
        feeding.put_back(conn(1), WaitsFor::Entries, None);
        feeding.look(10, 1, due);
        assert!(!feeding.has_work() && feeding.marks.is_empty());
    }

    #[test]
    fn nothing_remains_of_a_stream_whatever_it_waits_for() {
        let now = Instant::now();
        let mut feeding = Feeding::default();
        let waits = [WaitsFor::Turn, WaitsFor::Entries, WaitsFor::Room(5), WaitsFor::Answers];
        for (slot, waits_for) in (0..).zip(waits) {
            feeding.insert(conn(slot));
            assert_eq!(feeding.next(), Some(conn(slot)));
            feeding.put_back(conn(slot), waits_for, Some(now));
            feeding.forget(conn(slot));
            feeding.put_back(conn(slot), waits_for, Some(now));
        }
        let Feeding { all, ready, level, full, held, marks, .. } = &feeding;
        assert!(all.is_empty() && ready.is_empty() && level.is_empty());
        assert!(full.is_empty() && held.is_empty() && marks.is_empty());
    }

    #[test]
    fn all_are_looked_at_when_they_are_to_end() {
        let now = Instant::now();
        let mut feeding = level(&[1, 2, 3], now);
        feeding.note(conn(1));
        assert_eq!(feeding.next(), Some(conn(1)));
        feeding.put_back(conn(1), WaitsFor::Room(7), None);
        feeding.look_at_all();
        assert_eq!(looked_at(&mut feeding), [conn(2), conn(3), conn(1)]);
        assert_eq!(feeding.len(), 3);
    }
}
