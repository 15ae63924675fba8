//! What a connection with text commands is owed: commands are executed, and answered, in the order they came in.

use super::memory::{Charge, Total};
use super::pubsub::Subscriptions;
use super::streams::Stream;
use super::talk::Owed;
use super::transactions::Collected;
use crate::protocol::resp::{SkipCommand, Version};
use crate::protocol::text::Context;
use std::collections::VecDeque;

/// What a reply takes beside its room, while it waits.
const SLOT_BYTES: usize = 64;
/// Room for slots that is kept when there are none.
const KEPT_SLOTS: usize = 16;

/// A text client. Its commands are answered in order: each has a slot, and the filled ones at the front
/// are written.
#[derive(Debug, Default)]
pub struct TextTalk {
    slots: VecDeque<Option<Vec<u8>>>,
    /// The number of the slot at the front.
    first_slot: u64,
    /// Commands that the node has not answered: all of them reads, or all of them writes.
    unanswered: usize,
    unanswered_are_writes: bool,
    /// The next command has to wait for them.
    is_held: bool,
    /// About what the requests take whose slots are empty, and their answers will.
    pub awaited_bytes: usize,
    /// Bytes in filled slots behind an empty one.
    held: Charge,
    /// What else this node keeps for it: what it has collected, subscribed to, and said of itself.
    kept: Charge,
    pub skip: Option<SkipCommand>,
    /// After QUIT, a four-letter word or a protocol error nothing more is read.
    is_leaving: bool,
    pub client: TextClient,
    /// A transaction that is to come, and what it depends on.
    pub collected: Box<Collected>,
    /// Replies are written here at the moment, and not to the connection: they are parts of another.
    pub aside: Option<Vec<u8>>,
    /// Changes that it is told of.
    pub stream: Option<Stream>,
    pub subscriptions: Subscriptions,
}

/// What a text client has said of itself, and how it wants to be answered.
#[derive(Debug, Default)]
pub struct TextClient {
    /// Rises with every text client of this process.
    pub id: u64,
    pub version: Version,
    pub name: String,
    pub library_name: String,
    pub library_version: String,
    /// Reads are answered from what this node has.
    pub read_only: bool,
}

impl TextTalk {
    /// `all_held`: bytes of replies that wait with all connections; `all_kept`: of what else is kept for them.
    pub fn new(id: u64, all_held: &Total, all_kept: &Total) -> Self {
        let client = TextClient { id, ..TextClient::default() };
        let (held, kept) = (Charge::new(all_held), Charge::new(all_kept));
        TextTalk { client, held, kept, ..TextTalk::default() }
    }

    pub fn kept_bytes(&self) -> usize {
        self.kept.bytes()
    }

    /// What is kept for it may have changed.
    pub fn recount(&mut self) {
        let client = &self.client;
        let names = [&client.name, &client.library_name, &client.library_version];
        let names: usize = names.iter().map(|name| name.capacity()).sum();
        let stream = self.stream.as_ref().map_or(0, Stream::kept_bytes);
        let others = names + stream + self.subscriptions.kept_bytes();
        self.kept.set(self.collected.kept_bytes() + others);
    }

    /// Bytes of replies that earlier ones hold back.
    pub fn held_bytes(&self) -> usize {
        self.held.bytes()
    }

    pub fn owed(&self) -> Owed {
        Owed { answers: self.slots.len(), bytes: self.awaited_bytes + self.held.bytes() }
    }

    pub fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    /// It has said its last, and is closed once it has its answers. So nothing may come any more that it does not
    /// ask for, or that end would never come.
    pub fn leave(&mut self) {
        self.is_leaving = true;
        self.stop_listening();
    }

    /// What comes without being asked for ends.
    pub fn stop_listening(&mut self) {
        self.stream = None;
        self.subscriptions = Subscriptions::default();
    }

    /// What it may say, if that is not everything.
    pub fn context(&self) -> Option<Context> {
        if self.stream.is_some() {
            return Some(Context::STREAMING);
        }
        let is_mixed = self.client.version == Version::Resp2 && !self.subscriptions.is_empty();
        is_mixed.then_some(Context::SUBSCRIBED)
    }

    fn next_slot(&mut self) -> u64 {
        self.slots.push_back(None);
        self.first_slot + self.slots.len() as u64 - 1
    }

    /// Whether a request has to wait, so that commands are executed in the order they came in. The log
    /// keeps that of writes. A read is not in the log: it sees whatever is applied once it is confirmed, which
    /// may lack a write sent before it, or have one sent after it.
    pub fn hold(&mut self, is_write: bool) -> bool {
        self.is_held = self.unanswered > 0 && self.unanswered_are_writes != is_write;
        self.is_held
    }

    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// The place of the answer to a request that the node is asked.
    pub fn await_answer(&mut self, is_write: bool) -> u64 {
        self.unanswered += 1;
        self.unanswered_are_writes = is_write;
        self.next_slot()
    }

    /// The node has answered: the reply is written if nothing earlier holds it back, and what it held back.
    pub fn answered(
        &mut self,
        slot: u64,
        awaited_bytes: usize,
        outbox: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        self.unanswered -= 1;
        self.is_held &= self.unanswered > 0;
        self.awaited_bytes -= awaited_bytes;
        if slot == self.first_slot {
            self.pop_slot();
            write(outbox);
            return self.write_ready(outbox);
        }
        let mut reply = Vec::new();
        write(&mut reply);
        self.fill(slot, reply);
    }

    /// Bytes that wait with a slot, for what it is to become.
    pub fn hold_bytes(&mut self, bytes: usize) {
        self.held.add(bytes);
    }

    pub fn release(&mut self, bytes: usize) {
        self.held.take(bytes);
    }

    /// For what the node need not be asked.
    pub fn answer_at_once(&mut self, reply: Vec<u8>) {
        if let Some(aside) = &mut self.aside {
            return aside.extend(reply);
        }
        let slot = self.next_slot();
        self.fill(slot, reply);
    }

    fn fill(&mut self, slot: u64, reply: Vec<u8>) {
        let at = usize::try_from(slot - self.first_slot).expect("slots are few");
        self.held.add(SLOT_BYTES + reply.capacity());
        self.slots[at] = Some(reply);
    }

    /// Writes the replies that nothing earlier holds back.
    pub fn write_ready(&mut self, outbox: &mut Vec<u8>) {
        while let Some(Some(reply)) = self.slots.front() {
            outbox.extend_from_slice(reply);
            self.held.take(SLOT_BYTES + reply.capacity());
            self.pop_slot();
        }
    }

    fn pop_slot(&mut self) {
        self.slots.pop_front();
        self.first_slot += 1;
        if self.slots.is_empty() && self.slots.capacity() > KEPT_SLOTS {
            self.slots = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_earlier_replies_hold_back_is_counted_until_it_is_written_or_its_client_has_gone() {
        let (all, kept) = (Total::default(), Total::default());
        let held_bytes = |bytes| SLOT_BYTES + bytes;
        let mut held = TextTalk::new(1, &all, &kept);
        held.await_answer(false);
        held.answer_at_once(vec![0; 100]);
        let mut free = TextTalk::new(2, &all, &kept);
        free.answer_at_once(vec![0; 10]);
        let mut outbox = Vec::new();
        held.write_ready(&mut outbox);
        let both = held_bytes(100) + held_bytes(10);
        assert_eq!((outbox.len(), held.held_bytes(), all.get()), (0, held_bytes(100), both));
        free.write_ready(&mut outbox);
        assert_eq!((outbox.len(), free.held_bytes(), all.get()), (10, 0, held_bytes(100)));
        drop(held);
        assert_eq!(all.get(), 0);
    }
}
