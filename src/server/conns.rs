//! What is kept for each connection, found by its slot: every request looks several times. And the one place where
//! all of it is forgotten.

use super::Server;
use crate::net::ConnId;
use crate::wal::Disk;

/// Room that is kept although nobody is there.
const KEPT_SLOTS: usize = 64;

#[derive(Debug)]
pub struct ByConn<T> {
    /// By slot.
    slots: Vec<Option<(ConnId, T)>>,
    len: usize,
}

impl<T> Default for ByConn<T> {
    fn default() -> Self {
        ByConn { slots: Vec::new(), len: 0 }
    }
}

impl<T> ByConn<T> {
    pub fn get(&self, conn: &ConnId) -> Option<&T> {
        let (known, kept) = self.slots.get(conn.slot())?.as_ref()?;
        (known == conn).then_some(kept)
    }

    pub fn get_mut(&mut self, conn: &ConnId) -> Option<&mut T> {
        let (known, kept) = self.slots.get_mut(conn.slot())?.as_mut()?;
        (known == conn).then_some(kept)
    }

    /// In place of what was kept for this connection, or for an earlier one in its slot, which is gone.
    pub fn insert(&mut self, conn: ConnId, kept: T) {
        let slot = conn.slot();
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || None);
        }
        self.len += usize::from(self.slots[slot].replace((conn, kept)).is_none());
    }

    pub fn remove(&mut self, conn: &ConnId) -> Option<T> {
        let slot = self.slots.get_mut(conn.slot())?;
        let (_, kept) = slot.take_if(|(known, _)| known == conn)?;
        self.len -= 1;
        Some(kept)
    }

    /// Gives back the room of those who have gone.
    pub fn tidy(&mut self) {
        while self.slots.last().is_some_and(Option::is_none) {
            self.slots.pop();
        }
        let wanted = 2 * self.slots.len() + KEPT_SLOTS;
        if self.slots.capacity() > 2 * wanted {
            self.slots.shrink_to(wanted);
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten().map(|(_, kept)| kept)
    }
}

impl<D: Disk> Server<D> {
    /// Nothing more is said or heard on this connection: it is closed once its outbox is out.
    pub(super) fn let_go(&mut self, conn: ConnId) {
        self.forget(conn);
        self.links.net.close_after_flush(conn);
    }

    /// Every connection that ends comes here, in whichever way it ends. All fields are named: the compiler asks the
    /// author of a new one whether it keeps something for a connection.
    pub(super) fn forget(&mut self, conn: ConnId) {
        let Server {
            talks,
            paused,
            line,
            streams,
            herald,
            // By ticket; the node's answer ends it, and finds nobody.
            asked: _,
            // Of a member's connection, by `Links::detach`. Of others, only until the end of the turn.
            links: _,
            // Count what talks keep, which take it back when they are dropped.
            unread: _,
            memory: _,
            // By their numbers, which are good on any connection.
            cursors: _,
            config: _,
            limits: _,
            replica: _,
            awaited_bytes: _,
            asked_bytes: _,
            asked_work: _,
            pace: _,
            watch: _,
            counts: _,
            samples: _,
            level: _,
            started: _,
            turn_began: _,
            next_tick: _,
            requests: _,
            text_clients: _,
            slowest_flush: _,
            turns: _,
            stopping: _,
            terminal: _,
        } = self;
        talks.remove(&conn);
        paused.remove(conn);
        line.forget(conn);
        streams.forget(conn);
        herald.forget(conn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_has_its_own_and_none_that_of_another_in_its_slot() {
        let mut kept = ByConn::default();
        let conns: Vec<ConnId> = (0..100).map(ConnId::for_test).collect();
        for (at, conn) in conns.iter().enumerate() {
            kept.insert(*conn, at);
        }
        kept.insert(conns[7], 700);
        assert_eq!((kept.len(), kept.get(&conns[7])), (100, Some(&700)));
        let next = conns[8].with_next_generation();
        assert!(kept.get(&next).is_none() && kept.get_mut(&next).is_none());
        assert_eq!(kept.remove(&next), None);
        kept.insert(next, 800);
        assert_eq!((kept.len(), kept.get(&conns[8]), kept.get(&next)), (100, None, Some(&800)));
        assert_eq!((kept.remove(&conns[7]), kept.remove(&conns[7])), (Some(700), None));
        assert_eq!((kept.len(), kept.values().count()), (99, 99));
    }

    #[test]
    fn room_is_given_back_when_most_have_gone() {
        let mut kept = ByConn::default();
        let conns: Vec<ConnId> = (0..10_000).map(ConnId::for_test).collect();
        conns.iter().for_each(|conn| kept.insert(*conn, [0; 100]));
        conns[10..].iter().for_each(|conn| assert!(kept.remove(conn).is_some()));
        kept.tidy();
        assert_eq!(kept.len(), 10);
        assert!(kept.slots.capacity() <= 2 * (2 * 10 + KEPT_SLOTS));
        assert_eq!(kept.get(&conns[9]), Some(&[0; 100]));
    }
}
