//! Change streams: what is applied at this node goes out to those that asked for it, in the order of the
//! log.
//!
//! A stream is a position in the state machine's history and no queue of its own, so a client that does
//! not read costs no memory beyond a small outbox: it waits, and when what it has not read is forgotten,
//! it is told so, and its stream ends. What one entry of the log has changed goes out as a whole, so that
//! a client that has seen an index can go on at the next one, here or at any other node.

use super::Server;
use super::talk::{ClientTalk, Step, Talk};
use super::texts::TextTalk;
use crate::kv::{Answer, Batch, ChangeRef, Compacted, Failure, FailureCode, Machine};
use crate::net::ConnId;
use crate::protocol::changes::Streamed;
use crate::protocol::client::{ReplyBody, ReplyFrame};
use crate::protocol::resp::{self, Version};
use crate::protocol::{client_frame_bytes_max, frame, text};
use crate::raft::Index;
use crate::wal::Disk;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Of a stream, what a client has not read, in bytes; more waits in the history. What one entry has
/// changed may go beyond it.
const STREAM_OUTBOX_BYTES: usize = 256 * 1024;
/// What all streams of a node together get in a turn, in bytes; the rest waits for the next one.
const STREAMS_BYTES_PER_TURN: usize = 4 * 1024 * 1024;
/// What passing a change costs, put in bytes of an answer: also one of another key takes time.
const PASSED_CHANGE_BYTES: usize = 16;
/// How often a client is told how far the log is, if none of its changes tells it.
const PROGRESS_PERIOD: Duration = Duration::from_secs(1);
/// Changes in one frame, in bytes: the rest of those of an index goes into the next.
const FRAME_CHANGES_BYTES: usize = 256 * 1024;

/// What a stream takes besides its prefix.
const STREAM_BYTES: usize = 128;

/// A place in the log, and what is wanted from there on.
#[derive(Debug)]
pub struct Stream {
    prefix: Vec<u8>,
    form: Form,
    /// Of the changes that are not out yet.
    next: Index,
    /// What the client has been told of last, and when.
    told: Index,
    told_at: Instant,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Resp(Version),
    /// The id of a binary request, and the most changes of one frame, in bytes.
    Frames(u64, usize),
}

/// Those that there are.
#[derive(Debug, Default)]
pub struct Streams {
    of: BTreeSet<ConnId>,
    /// Who was the last one to get something; the next one's turn is after it.
    served_last: Option<ConnId>,
    /// Somebody would take more at once.
    has_more: bool,
}

impl Streams {
    pub fn len(&self) -> usize {
        self.of.len()
    }

    pub fn forget(&mut self, conn: ConnId) {
        self.of.remove(&conn);
    }

    /// Whether the next turn has something to do without further input.
    pub fn has_work(&self) -> bool {
        self.has_more
    }
}

impl<D: Disk> Server<D> {
    /// `CHANGES` of a text client.
    pub(super) fn stream_to_text(
        &mut self,
        conn: ConnId,
        talk: &mut TextTalk,
        prefix: Vec<u8>,
        from: Option<Index>,
        now: Instant,
    ) -> Step {
        let form = Form::Resp(talk.client.version);
        match self.begin_stream(prefix, from, form, now) {
            Ok(stream) => {
                self.say(conn, talk, |out, _| stream.put_begun(out))?;
                talk.stream = Some(stream);
                self.streams.of.insert(conn);
                Ok(())
            }
            Err(failure) => self.say(conn, talk, |out, _| put_failure(out, failure)),
        }
    }

    /// The same of a binary one.
    pub(super) fn stream_to_client(
        &mut self,
        conn: ConnId,
        talk: &mut ClientTalk,
        id: u64,
        (prefix, from): (Vec<u8>, Option<Index>),
        now: Instant,
    ) -> Step {
        let frame_bytes = FRAME_CHANGES_BYTES.min(client_frame_bytes_max(&self.limits));
        let form = Form::Frames(id, frame_bytes);
        let begun = match &talk.stream {
            Some(_) => Err(second_stream()),
            None => self.begin_stream(prefix, from, form, now),
        };
        let Some(outbox) = self.links.net.outbox(conn) else { return Ok(()) };
        match begun {
            Ok(stream) => {
                stream.put_begun(outbox);
                talk.kept.set(stream.kept_bytes());
                talk.stream = Some(stream);
                self.streams.of.insert(conn);
            }
            Err(failure) => form.put_end(outbox, failure),
        }
        Ok(())
    }

    fn begin_stream(
        &mut self,
        prefix: Vec<u8>,
        from: Option<Index>,
        form: Form,
        now: Instant,
    ) -> Result<Stream, Failure> {
        self.can_stream()?;
        self.may_keep(STREAM_BYTES + prefix.len())?;
        if prefix.len() > self.limits.key_bytes_max as usize {
            let (bytes, max) = (prefix.len(), self.limits.key_bytes_max);
            let message = format!("prefix of {bytes} bytes, keys have up to {max}");
            return Err(failure(FailureCode::TooLarge, message));
        }
        let machine = self.replica.node().machine();
        let next = from.map_or(machine.applied() + 1, |from| from.max(1));
        if next < machine.history().first() {
            let first = machine.history().first();
            return Err(compacted(Compacted { first }, machine));
        }
        Ok(Stream { prefix, form, next, told: next - 1, told_at: now })
    }

    /// Whether what this node has applied may be shown.
    fn can_stream(&self) -> Result<(), Failure> {
        let node = self.replica.node();
        if node.machine().applied() > 0 && node.diverged_at().is_none() {
            return Ok(());
        }
        let message = format!("{} has no state to read from; ask another", self.config.name);
        Err(failure(FailureCode::NoLeader, message))
    }

    /// Every stream gets what it lacks, as far as its client reads.
    pub(super) fn feed_streams(&mut self, now: Instant) {
        self.streams.has_more = false;
        if self.streams.of.is_empty() {
            return;
        }
        let state = self.can_stream();
        let mut order: Vec<ConnId> = self.streams.of.iter().copied().collect();
        let had_their_turn = order.partition_point(|conn| Some(*conn) <= self.streams.served_last);
        order.rotate_left(had_their_turn);
        let mut left = STREAMS_BYTES_PER_TURN;
        for conn in order {
            let ended = match &state {
                Ok(()) => self.feed_stream(conn, &mut left, now),
                Err(failure) => Some(failure.clone()),
            };
            if let Some(failure) = ended {
                self.end_stream(conn, failure);
            }
        }
    }

    /// Returns why the stream ends, if it does.
    fn feed_stream(&mut self, conn: ConnId, left: &mut usize, now: Instant) -> Option<Failure> {
        let outbox_max = self.config.client_outbox_bytes_max;
        let batch_bytes_max = outbox_max + client_frame_bytes_max(&self.limits);
        let machine = self.replica.node().machine();
        let talk = self.talks.get_mut(&conn)?;
        let stream = match talk {
            // What came before the stream is answered first.
            Talk::Text(text) if text.owed().answers > 0 => return None,
            Talk::Text(text) => text.stream.as_mut(),
            Talk::Client(client) => client.stream.as_mut(),
            _ => None,
        };
        let Some(stream) = stream else {
            self.streams.forget(conn);
            return None;
        };
        let waiting = self.links.net.outbox_len(conn);
        let room = STREAM_OUTBOX_BYTES.min(outbox_max / 2).saturating_sub(waiting).min(*left);
        let first = machine.history().first();
        if stream.next < first {
            return Some(compacted(Compacted { first }, machine));
        }
        if !stream.is_due(machine.applied(), now) {
            return None;
        }
        if room == 0 {
            // Its client reads, others have used up the turn.
            self.streams.has_more |= *left == 0;
            return None;
        }
        let outbox = self.links.net.outbox(conn)?;
        let before = outbox.len();
        let fed = stream.feed(machine, outbox, room, batch_bytes_max, now);
        self.streams.served_last = Some(conn);
        *left = left.saturating_sub((outbox.len() - before).max(fed.work));
        self.streams.has_more |= fed.has_more;
        fed.ended
    }

    fn end_stream(&mut self, conn: ConnId, failure: Failure) {
        self.streams.forget(conn);
        let stream = match self.talks.get_mut(&conn) {
            Some(Talk::Text(text)) => {
                let stream = text.stream.take();
                text.recount();
                stream
            }
            Some(Talk::Client(client)) => {
                client.kept.set(0);
                client.stream.take()
            }
            _ => None,
        };
        if let (Some(stream), Some(outbox)) = (stream, self.links.net.outbox(conn)) {
            stream.form.put_end(outbox, failure);
        }
        self.close_if_done(conn);
    }
}

/// What became of an attempt to feed a stream.
#[derive(Default)]
struct Fed {
    /// For changes that were passed, also those that nobody asked for, in bytes.
    work: usize,
    has_more: bool,
    ended: Option<Failure>,
}

impl Stream {
    /// What it takes.
    pub fn kept_bytes(&self) -> usize {
        STREAM_BYTES + self.prefix.capacity()
    }

    fn is_due(&self, applied: Index, now: Instant) -> bool {
        self.next <= applied || self.is_worth_a_mark(now)
    }

    /// Everything before `next` is out.
    fn is_worth_a_mark(&self, now: Instant) -> bool {
        self.next - 1 > self.told && now >= self.told_at + PROGRESS_PERIOD
    }

    fn feed(
        &mut self,
        machine: &Machine,
        out: &mut Vec<u8>,
        room: usize,
        batch_bytes_max: usize,
        now: Instant,
    ) -> Fed {
        let (mut fed, begin) = (Fed::default(), out.len());
        let batches = match machine.store().changes_since(self.next) {
            Ok(batches) => batches,
            Err(forgotten) => {
                return Fed { ended: Some(compacted(forgotten, machine)), ..fed };
            }
        };
        for batch in batches {
            if out.len() - begin >= room || fed.work >= room {
                fed.has_more = true;
                break;
            }
            let wanted = || batch.changes().filter(|change| change.concerns(&self.prefix));
            fed.work += batch.changes().count() * PASSED_CHANGE_BYTES;
            let (count, bytes) = wanted()
                .fold((0, 0), |(count, bytes), change| (count + 1, bytes + change.cost_bytes()));
            if count > 1 && bytes > batch_bytes_max {
                let index = batch.index;
                let message = format!(
                    "changes of index {index} are too long for one answer; {}",
                    advice(index + 1)
                );
                fed.ended = Some(failure(FailureCode::Compacted, message));
                return fed;
            }
            if count > 0 {
                self.form.put_batch(out, &batch, count, wanted());
                (self.told, self.told_at) = (batch.index, now);
            }
            self.next = batch.index + 1;
        }
        if !fed.has_more {
            self.next = self.next.max(machine.applied() + 1);
            if self.is_worth_a_mark(now) {
                (self.told, self.told_at) = (self.next - 1, now);
                self.form.put_progress(out, self.told);
            }
        }
        fed
    }

    fn put_begun(&self, out: &mut Vec<u8>) {
        match self.form {
            Form::Resp(version) => {
                resp::put_push(out, version, 2);
                resp::put_bulk(out, b"changes");
                put_index(out, self.next);
            }
            Form::Frames(id, _) => put_frame(out, id, Streamed::Begun { from: self.next }),
        }
    }
}

impl Form {
    fn put_batch<'a>(
        self,
        out: &mut Vec<u8>,
        batch: &Batch<'_>,
        count: usize,
        changes: impl Iterator<Item = ChangeRef<'a>>,
    ) {
        match self {
            Form::Resp(version) => {
                resp::put_push(out, version, 3);
                resp::put_bulk(out, b"change");
                put_index(out, batch.index);
                resp::put_array(out, count);
                changes.for_each(|change| put_change(out, change));
            }
            Form::Frames(id, bytes_max) => {
                put_frames(out, id, bytes_max, batch.index, changes);
            }
        }
    }

    fn put_progress(self, out: &mut Vec<u8>, index: Index) {
        match self {
            Form::Resp(version) => {
                resp::put_push(out, version, 2);
                resp::put_bulk(out, b"progress");
                put_index(out, index);
            }
            Form::Frames(id, _) => put_frame(out, id, Streamed::Progress { index }),
        }
    }

    fn put_end(self, out: &mut Vec<u8>, failure: Failure) {
        match self {
            Form::Resp(_) => put_failure(out, failure),
            Form::Frames(id, _) => {
                let reply = ReplyFrame { id, body: ReplyBody::Answer(Answer::Failed(failure)) };
                frame::put_frame(out, |out| reply.encode(out));
            }
        }
    }
}

fn put_change(out: &mut Vec<u8>, change: ChangeRef<'_>) {
    let words: &[&[u8]] = match change {
        ChangeRef::Set { key, value } => &[b"set", key, value],
        ChangeRef::Deleted { key } => &[b"del", key],
        ChangeRef::Flushed => &[b"flush"],
    };
    resp::put_array(out, words.len());
    words.iter().for_each(|word| resp::put_bulk(out, word));
}

fn put_index(out: &mut Vec<u8>, index: Index) {
    resp::put_integer(out, index as i64);
}

fn put_failure(out: &mut Vec<u8>, failure: Failure) {
    text::answer_to_resp(&Answer::Failed(failure), text::Reply::default(), out);
}

fn put_frame(out: &mut Vec<u8>, id: u64, streamed: Streamed) {
    let reply = ReplyFrame { id, body: ReplyBody::Changes(streamed) };
    frame::put_frame(out, |out| reply.encode(out));
}

/// As many frames as the changes of the index need.
fn put_frames<'a>(
    out: &mut Vec<u8>,
    id: u64,
    bytes_max: usize,
    index: Index,
    changes: impl Iterator<Item = ChangeRef<'a>>,
) {
    let (mut piece, mut bytes) = (Vec::new(), 0);
    for change in changes {
        if bytes > 0 && bytes + change.cost_bytes() > bytes_max {
            let changes = std::mem::take(&mut piece);
            put_frame(out, id, Streamed::Changes { index, changes, more: true });
            bytes = 0;
        }
        bytes += change.cost_bytes();
        piece.push(change.to_change());
    }
    put_frame(out, id, Streamed::Changes { index, changes: piece, more: false });
}

fn compacted(forgotten: Compacted, machine: &Machine) -> Failure {
    let message = format!(
        "changes up to index {} are forgotten; {}",
        forgotten.first - 1,
        advice(machine.applied() + 1)
    );
    failure(FailureCode::Compacted, message)
}

/// What is read after this answer has every change before `from`; what it has of later ones comes twice,
/// which changes nothing.
fn advice(from: Index) -> String {
    format!("read the keys again and go on from {from}")
}

fn second_stream() -> Failure {
    let message = "this connection has a change stream already, and takes one; open another \
                   connection, nothing was done";
    failure(FailureCode::Overloaded, message.to_string())
}

fn failure(code: FailureCode, message: String) -> Failure {
    Failure { code, message, leader: None }
}
