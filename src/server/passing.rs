//! What goes to another node for the sake of clients: requests that are passed on to the leader, and its answers to
//! them. It shares a connection with Raft's messages, and must neither delay them nor crowd them out.
//!
//! So it waits here, in its order, and only a little of it at a time goes into the outbox: a message of Raft never waits
//! for more. How much waits is bounded by whoever asks: a follower takes no more from its clients than
//! [`AWAITED_BYTES_MAX`](super::AWAITED_BYTES_MAX), and a leader carries out no more for a follower than
//! [`PEER_ANSWERS_BYTES_MAX`].

use crate::node::PeerMessage;
use crate::protocol::{frame, peer};
use std::collections::VecDeque;
use std::time::Instant;

/// More of it goes into the outbox when that has less.
pub const IN_OUTBOX_BYTES: usize = 256 * 1024;
/// Answers to one peer that wait, and about what those will take that are not known yet, together with their requests:
/// twice what a follower of this version asks for. A request beyond it is refused and not carried out.
pub const PEER_ANSWERS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Room for refusals beyond that. A peer that does not read these either is not told.
const REFUSALS_BYTES_MAX: usize = 1024 * 1024;
/// A message of this length becomes the outbox, and is not copied into it.
const LONG_BYTES: usize = 64 * 1024;
/// What a message takes besides its bytes.
const MESSAGE_BYTES: usize = 64;

/// Messages that wait for one peer.
#[derive(Debug, Default)]
pub struct Passing {
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    frame: Vec<u8>,
    /// Of a request, its id.
    request: Option<u64>,
    since: Instant,
}

impl Waiting {
    fn bytes(&self) -> usize {
        MESSAGE_BYTES + self.frame.capacity()
    }
}

impl Passing {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// That wait, with what holding them takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the id of a request for which there is no room.
    pub fn push(&mut self, message: &PeerMessage, now: Instant) -> Option<u64> {
        let request = match message {
            PeerMessage::Forward { id, .. } => Some(*id),
            _ => None,
        };
        if self.bytes >= PEER_ANSWERS_BYTES_MAX + REFUSALS_BYTES_MAX {
            return request;
        }
        let mut frame = Vec::new();
        frame::put_frame(&mut frame, |out| peer::encode(message, out));
        let waiting = Waiting { frame, request, since: now };
        self.bytes += waiting.bytes();
        self.waiting.push_back(waiting);
        None
    }

    /// Moves what has waited longest into an outbox, until that has enough.
    pub fn fill(&mut self, outbox: &mut Vec<u8>, mut outbox_bytes: usize) {
        while outbox_bytes < IN_OUTBOX_BYTES
            && let Some(waiting) = self.pop()
        {
            outbox_bytes += waiting.frame.len();
            match outbox.is_empty() && waiting.frame.len() >= LONG_BYTES {
                true => *outbox = waiting.frame,
                false => outbox.extend_from_slice(&waiting.frame),
            }
        }
    }

    fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.waiting.pop_front()?;
        self.bytes -= waiting.bytes();
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some(waiting)
    }

    /// Ids of the requests that came before this and are still here: they go no more.
    pub fn give_up(&mut self, before: Instant, not_sent: &mut Vec<u64>) {
        while self.waiting.front().is_some_and(|waiting| waiting.since < before) {
            not_sent.extend(self.pop().and_then(|waiting| waiting.request));
        }
    }

    /// The connection is gone. Returns the ids of the requests that were here.
    pub fn clear(&mut self, not_sent: &mut Vec<u64>) {
        while let Some(waiting) = self.pop() {
            not_sent.extend(waiting.request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Answer, Request};
    use std::time::Duration;

    fn request(id: u64, bytes: usize) -> PeerMessage {
        PeerMessage::Forward { id, request: Request::Get { key: vec![b'k'; bytes].into() } }
    }

    fn encoded(messages: &[PeerMessage]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            frame::put_frame(&mut bytes, |out| peer::encode(message, out));
        }
        bytes
    }

    #[test]
    fn little_of_it_is_in_the_outbox_at_a_time_and_its_order_stays() {
        let (mut passing, now) = (Passing::default(), Instant::now());
        let messages: Vec<_> = (0..20).map(|id| request(id, 50_000)).collect();
        messages.iter().for_each(|message| assert_eq!(passing.push(message, now), None));
        let mut sent = Vec::new();
        while !passing.is_empty() {
            let mut outbox = vec![0; 1000];
            passing.fill(&mut outbox, 1000);
            let taken = outbox.len() - 1000;
            assert!(taken > 0 && taken < IN_OUTBOX_BYTES + 60_000, "{taken}");
            sent.extend_from_slice(&outbox[1000..]);
        }
        assert_eq!((sent, passing.bytes()), (encoded(&messages), 0));
        let mut outbox = Vec::new();
        passing.push(&messages[0], now);
        passing.fill(&mut outbox, IN_OUTBOX_BYTES);
        assert!(outbox.is_empty(), "others wait there");
    }

    #[test]
    fn what_nobody_reads_is_bounded_and_refusals_have_some_room() {
        let (mut passing, now) = (Passing::default(), Instant::now());
        let value: std::rc::Rc<[u8]> = vec![0; 1024 * 1024].into();
        let answer = Answer::Value { value: Some(value.into()), index: 1, leader: 0 };
        for id in 0..100 {
            passing.push(&PeerMessage::ForwardReply { id, answer: answer.clone() }, now);
        }
        assert!(passing.bytes() < PEER_ANSWERS_BYTES_MAX + REFUSALS_BYTES_MAX + 2 * 1024 * 1024);
        assert_eq!(passing.push(&request(7, 1), now), Some(7), "it was not taken");
    }

    #[test]
    fn requests_that_were_not_sent_are_named_and_answers_are_not() {
        let (mut passing, now) = (Passing::default(), Instant::now());
        let answer = Answer::Digest { digest: 0, keys: 0, index: 1, leader: 0 };
        passing.push(&request(1, 10), now);
        passing.push(&PeerMessage::ForwardReply { id: 2, answer }, now);
        passing.push(&request(3, 10), now + Duration::from_secs(1));
        let mut not_sent = Vec::new();
        passing.give_up(now + Duration::from_millis(1), &mut not_sent);
        assert_eq!(not_sent, [1]);
        passing.clear(&mut not_sent);
        assert_eq!((not_sent, passing.bytes()), (vec![1, 3], 0));
    }
}
