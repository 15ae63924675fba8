//! The bytes between a socket and the protocol: one [`Inbox`] and one [`Outbox`] for each connection.
//!
//! Taking a frame off the front must not move what is behind it, and ten thousand idle connections must
//! not hold memory. So both are plain vectors with a cursor, and an empty one gives a large allocation back.

use std::io::{self, ErrorKind, IoSlice, Write};

/// Bytes of room that an empty buffer keeps for the next message.
const KEPT_CAPACITY: usize = 16 * 1024;
/// The same for a peer: there are few, and under load each batch of entries would need it again.
const PEER_KEPT_CAPACITY: usize = 512 * 1024;

/// An inbox that is longer and full gets room for one part in so many more; shorter ones double theirs.
const DOUBLED_BYTES: usize = 256 * 1024;
const GROWTH_PART: usize = 4;

/// Bytes that arrived and were not consumed yet.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// Room, of which a part is in use.
    bytes: Vec<u8>,
    /// Everything before it is consumed.
    start: usize,
    /// Nothing has arrived from here on.
    end: usize,
    /// The most unconsumed bytes.
    max: usize,
    /// The most room that is kept for nothing.
    kept: usize,
}

impl Inbox {
    pub(crate) fn new(max: usize) -> Inbox {
        Inbox { bytes: Vec::new(), start: 0, end: 0, max, kept: KEPT_CAPACITY }
    }

    /// It turned out to be a peer's, which may have so many unconsumed bytes.
    pub(crate) fn keep_for_peer(&mut self, max: usize) {
        self.kept = PEER_KEPT_CAPACITY;
        self.max = max;
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Memory that it holds, in bytes.
    pub(crate) fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Keeps no room for nothing.
    pub(crate) fn give_back(&mut self) {
        if self.start == self.end {
            *self = Inbox { bytes: Vec::new(), start: 0, end: 0, ..*self };
        }
    }

    /// Bytes that still fit.
    pub(crate) fn room(&self) -> usize {
        self.max.saturating_sub(self.bytes().len())
    }

    /// Where the next bytes go, at most [`Inbox::room`]; they are there once [`Inbox::arrived`] says so.
    pub(crate) fn spare(&mut self, most: usize) -> &mut [u8] {
        self.make_room(most);
        let wanted = self.end + most;
        if self.bytes.len() < wanted {
            self.bytes.resize(wanted, 0);
        }
        &mut self.bytes[self.end..wanted]
    }

    pub(crate) fn arrived(&mut self, n: usize) {
        self.end += n;
    }

    /// Appends bytes, at most [`Inbox::room`].
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        let end = self.end + bytes.len();
        match self.bytes.get_mut(self.end..end) {
            Some(place) => place.copy_from_slice(bytes),
            None => {
                self.bytes.truncate(self.end);
                // Doubling would hold twice what has come of many long messages.
                if self.end > 0 && end > DOUBLED_BYTES && end > self.bytes.capacity() {
                    self.bytes.reserve_exact(bytes.len() + end / GROWTH_PART);
                }
                self.bytes.extend_from_slice(bytes);
            }
        }
        self.end = end;
    }

    /// Moving no more than was consumed since the last move keeps the cost a constant for each byte.
    #[inline(never)]
    fn make_room(&mut self, wanted: usize) {
        debug_assert!(wanted <= self.room(), "the reader reads no more than fits");
        if self.start > 0 && self.start >= self.bytes().len() {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// Takes `n` bytes off the front.
    ///
    /// # Panics
    /// If there are fewer.
    pub(crate) fn consume(&mut self, n: usize) {
        assert!(n <= self.bytes().len(), "consumed {n} bytes of {}", self.bytes().len());
        self.start += n;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.capacity() > self.kept {
                self.bytes = Vec::new();
            }
        }
    }
}

/// Bytes to send. New ones are appended to one vector while another one drains into the socket; when that is
/// empty the two change places. What the socket has taken of a long one is given back by halves, so that a slow
/// reader costs about what it has not read, and no byte is moved more often than once on average.
#[derive(Debug)]
pub(crate) struct Outbox {
    draining: Vec<u8>,
    /// Bytes of `draining` that the socket has taken.
    sent: usize,
    filling: Vec<u8>,
    /// The most room that is kept for nothing.
    kept: usize,
}

/// What became of an attempt to send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    Everything,
    /// The socket takes no more for now.
    Part,
}

impl Default for Outbox {
    fn default() -> Self {
        Outbox { draining: Vec::new(), sent: 0, filling: Vec::new(), kept: KEPT_CAPACITY }
    }
}

impl Outbox {
    /// It turned out to be a peer's.
    pub(crate) fn keep_for_peer(&mut self) {
        self.kept = PEER_KEPT_CAPACITY;
    }

    /// Where to append.
    pub(crate) fn filling(&mut self) -> &mut Vec<u8> {
        &mut self.filling
    }

    pub(crate) fn len(&self) -> usize {
        self.draining.len() - self.sent + self.filling.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory that it holds, in bytes.
    pub(crate) fn held(&self) -> usize {
        self.draining.capacity() + self.filling.capacity()
    }

    /// Keeps no room for nothing.
    pub(crate) fn give_back(&mut self) {
        if self.is_empty() {
            *self = Outbox { kept: self.kept, ..Outbox::default() };
        }
    }

    /// Writes until everything is written or the writer would block.
    pub(crate) fn flush(&mut self, to: &mut impl Write) -> io::Result<Flushed> {
        while !self.is_empty() {
            let rest = &self.draining[self.sent..];
            let written = match (rest.is_empty(), self.filling.is_empty()) {
                (true, _) => to.write(&self.filling),
                (_, true) => to.write(rest),
                _ => to.write_vectored(&[IoSlice::new(rest), IoSlice::new(&self.filling)]),
            };
            match written {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => self.taken(n),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Flushed::Part),
                Err(error) => return Err(error),
            }
        }
        Ok(Flushed::Everything)
    }

    /// The socket took `n` bytes off the front.
    fn taken(&mut self, n: usize) {
        if self.draining.is_empty() && n == self.filling.len() {
            // As it mostly is; filled again while it is in the cache.
            return empty(&mut self.filling, self.kept);
        }
        self.sent += n;
        if self.sent >= self.draining.len() {
            self.sent -= self.draining.len();
            empty(&mut self.draining, self.kept);
            std::mem::swap(&mut self.draining, &mut self.filling);
        }
        if self.sent == self.draining.len() {
            self.sent = 0;
            empty(&mut self.draining, self.kept);
        } else if self.sent >= KEPT_CAPACITY.max(self.draining.len() / 2) {
            self.draining.drain(..self.sent);
            self.draining.shrink_to_fit();
            self.sent = 0;
        }
    }
}

#[inline(never)]
fn empty(bytes: &mut Vec<u8>, kept: usize) {
    bytes.clear();
    if bytes.capacity() > kept {
        *bytes = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn inbox_keeps_its_limit_and_gives_memory_back() {
        let mut inbox = Inbox::new(1 << 20);
        inbox.append(&vec![1; 1 << 20]);
        assert_eq!(inbox.room(), 0);
        inbox.consume((1 << 20) - 1);
        assert_eq!((inbox.bytes(), inbox.room()), (&[1][..], (1 << 20) - 1));
        inbox.consume(1);
        assert_eq!(inbox.bytes.capacity(), 0);
    }

    #[test]
    fn inbox_moves_each_byte_a_bounded_number_of_times() {
        let mut inbox = Inbox::new(1 << 20);
        inbox.append(&[0; 1000]);
        for _ in 0..100_000 {
            inbox.append(&[0; 10]);
            inbox.consume(10);
            assert!(inbox.bytes.len() <= 3000, "consumed bytes pile up");
        }
    }

    #[test]
    fn a_peers_room_is_kept_for_the_next_batch_and_a_clients_is_not() {
        for (is_peer, kept) in [(true, 300_000), (false, 0)] {
            let (mut inbox, mut outbox) = (Inbox::new(1 << 20), Outbox::default());
            if is_peer {
                inbox.keep_for_peer(1 << 20);
                outbox.keep_for_peer();
            }
            inbox.append(&[1; 300_000]);
            inbox.consume(300_000);
            outbox.filling().extend_from_slice(&[2; 300_000]);
            let mut taker = Taker { appetite: usize::MAX, taken: Vec::new() };
            outbox.flush(&mut taker).unwrap();
            assert_eq!((inbox.bytes.capacity(), outbox.filling.capacity()), (kept, kept));
        }
    }

    /// A socket that takes some bytes, then says that it would block.
    struct Taker {
        appetite: usize,
        taken: Vec<u8>,
    }

    impl Write for Taker {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.appetite);
            if n == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.appetite -= n;
            self.taken.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
            self.write(&parts.iter().flat_map(|part| part.iter().copied()).collect::<Vec<u8>>())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn outbox_gives_back_what_was_taken_of_a_long_answer_before_the_last_byte_is() {
        let mut outbox = Outbox::default();
        outbox.filling().resize(1 << 20, 7);
        let mut taker = Taker { appetite: 0, taken: Vec::new() };
        for left in [700_000, 300_000, 100_000, 20_000] {
            taker.appetite = outbox.len() - left;
            outbox.flush(&mut taker).unwrap();
            assert_eq!(outbox.len(), left);
            assert!(outbox.draining.capacity() <= 2 * left + KEPT_CAPACITY, "{left} are left");
        }
    }

    proptest! {
        #[test]
        fn inbox_loses_and_reorders_nothing(
            steps in prop::collection::vec((any::<bool>(), 0..3000_usize, 0..1000_usize, 0..4000_usize), 0..60),
        ) {
            let mut inbox = Inbox::new(1 << 20);
            let mut expected = Vec::new();
            for (round, (in_place, arrived, unused, consumed)) in steps.into_iter().enumerate() {
                let bytes: Vec<u8> = (0..arrived).map(|i| (i * 7 + round) as u8).collect();
                expected.extend_from_slice(&bytes);
                if in_place {
                    inbox.spare(arrived + unused)[..arrived].copy_from_slice(&bytes);
                    inbox.arrived(arrived);
                } else {
                    inbox.append(&bytes);
                }
                prop_assert_eq!(inbox.bytes(), &expected[..]);
                let consumed = consumed.min(expected.len());
                expected.drain(..consumed);
                inbox.consume(consumed);
                prop_assert_eq!(inbox.bytes(), &expected[..]);
            }
        }

        #[test]
        fn outbox_loses_and_reorders_nothing(
            steps in prop::collection::vec((0..30_000_usize, 0..30_000_usize), 0..60),
        ) {
            let mut outbox = Outbox::default();
            let mut taker = Taker { appetite: 0, taken: Vec::new() };
            let mut written = Vec::new();
            for (round, (len, appetite)) in steps.into_iter().enumerate() {
                let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + round) as u8).collect();
                written.extend_from_slice(&bytes);
                outbox.filling().extend_from_slice(&bytes);
                taker.appetite = appetite;
                let flushed = outbox.flush(&mut taker).unwrap();
                prop_assert_eq!(flushed == Flushed::Everything, outbox.is_empty());
                prop_assert_eq!(outbox.len(), written.len() - taker.taken.len());
            }
            taker.appetite = usize::MAX;
            prop_assert_eq!(outbox.flush(&mut taker).unwrap(), Flushed::Everything);
            prop_assert_eq!(taker.taken, written);
        }
    }
}
