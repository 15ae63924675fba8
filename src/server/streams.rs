//! Change streams: what is applied at this node goes out to those that asked for it, in the order of the
//! log.
//!
//! A stream is a position in the state machine's history and no queue of its own, so a client that does
//! not read costs no memory beyond a small outbox: it waits, and when what it has not read is forgotten,
//! it is told so, and its stream ends. What one entry of the log has changed goes out as a whole, so that
//! a client that has seen an index can go on at the next one, here or at any other node.

use super::Server;
use super::feeding::WaitsFor;
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
use std::time::{Duration, Instant};

/// Of a stream, what a client has not read, in bytes; more waits in the history. What one entry has
/// changed may go beyond it.
const STREAM_OUTBOX_BYTES: usize = 256 * 1024;
/// What is done for all streams of a node together in a turn, put in bytes that are written to sockets; the rest
/// waits for the next one. It is some milliseconds.
const STREAMS_WORK_PER_TURN: usize = 2 * 1024 * 1024;
/// What the other work costs, in the same unit. A change of another key has to be passed as well, and each client that
/// is sent something costs a system call.
const LOOK_WORK: usize = 128;
const PASSED_CHANGE_WORK: usize = 128;
const SEND_WORK: usize = 8 * 1024;
/// How often a client is told how far the log is, if none of its changes tells it.
const PROGRESS_PERIOD: Duration = Duration::from_secs(1);
/// How often one that says no more is told so in any case. Nothing else would find out that it has gone.
const HALF_CLOSED_PERIOD: Duration = Duration::from_secs(10);
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
    /// Its client says no more, and is told at once how far the log is.
    is_mark_wanted: bool,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Resp(Version),
    /// The id of a binary request, and the most changes of one frame, in bytes.
    Frames(u64, usize),
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
                self.streams.insert(conn);
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
                self.streams.insert(conn);
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
        Ok(Stream { prefix, form, next, told: next - 1, told_at: now, is_mark_wanted: false })
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

    /// The client of a stream says no more. It listens, as `echo CHANGES | nc` does, or it has gone: the next thing that
    /// it is told finds that out.
    pub(super) fn streams_to_half_closed(&mut self, conn: ConnId) {
        let stream = match self.talks.get_mut(&conn) {
            Some(Talk::Text(text)) => text.stream.as_mut(),
            Some(Talk::Client(client)) => client.stream.as_mut(),
            _ => None,
        };
        if let Some(stream) = stream {
            stream.is_mark_wanted = true;
            self.streams.note(conn);
        }
    }

    /// Streams get what they lack, as far as their clients read and the turn goes.
    pub(super) fn feed_streams(&mut self, now: Instant) {
        if self.streams.len() == 0 {
            return;
        }
        let machine = self.replica.node().machine();
        self.streams.look(machine.applied(), machine.history().first(), now);
        let state = self.can_stream();
        if state.is_err() {
            self.streams.look_at_all();
        }
        let mut left = STREAMS_WORK_PER_TURN;
        for _ in 0..self.streams.ready_len() {
            if left == 0 {
                break;
            }
            let Some(conn) = self.streams.next() else { break };
            let fed = match &state {
                Ok(()) => self.feed_stream(conn, left, now),
                Err(failure) => Fed { ended: Some(failure.clone()), ..Fed::default() },
            };
            left = left.saturating_sub(LOOK_WORK + fed.work);
            if let Some(failure) = fed.ended {
                left = left.saturating_sub(SEND_WORK);
                self.end_stream(conn, failure);
            }
        }
    }

    fn feed_stream(&mut self, conn: ConnId, work_max: usize, now: Instant) -> Fed {
        let outbox_max = self.config.client_outbox_bytes_max;
        let batch_bytes_max = outbox_max + client_frame_bytes_max(&self.limits);
        let machine = self.replica.node().machine();
        let stream = match self.talks.get_mut(&conn) {
            // What came before the stream is answered first.
            Some(Talk::Text(text)) if text.owed().answers > 0 => {
                self.streams.put_back(conn, WaitsFor::Answers, None);
                return Fed::default();
            }
            Some(Talk::Text(text)) => text.stream.as_mut(),
            Some(Talk::Client(client)) => client.stream.as_mut(),
            _ => None,
        };
        let Some(stream) = stream else {
            self.streams.forget(conn);
            return Fed::default();
        };
        let unread_max = STREAM_OUTBOX_BYTES.min(outbox_max / 2);
        let room = unread_max.saturating_sub(self.links.net.outbox_len(conn));
        let half_closed = self.links.net.half_closed(conn);
        let first = machine.history().first();
        if stream.next < first {
            return Fed { ended: Some(compacted(Compacted { first }, machine)), ..Fed::default() };
        }
        let mut fed = Fed::default();
        if room > 0
            && stream.is_due(machine.applied(), half_closed, now)
            && let Some(outbox) = self.links.net.outbox(conn)
        {
            let before = outbox.len();
            let limits =
                FeedLimits { room, work: work_max.min(STREAM_OUTBOX_BYTES), batch_bytes_max };
            fed = stream.feed(machine, outbox, limits, half_closed, now);
            let written = outbox.len() - before;
            fed.work += written + if written > 0 { SEND_WORK } else { 0 };
        }
        let is_full = self.links.net.outbox_len(conn) >= unread_max;
        let waits_for = match stream.is_due(machine.applied(), half_closed, now) {
            true if is_full => WaitsFor::Room(stream.next),
            true => WaitsFor::Turn,
            false => WaitsFor::Entries,
        };
        if let WaitsFor::Room(_) = waits_for {
            self.links.net.tell_when_drained(conn);
        }
        self.streams.put_back(conn, waits_for, stream.mark_at(half_closed));
        fed
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
    /// In bytes that are written to sockets.
    work: usize,
    ended: Option<Failure>,
}

/// In bytes.
struct FeedLimits {
    /// What its client may have unread.
    room: usize,
    /// For changes that are passed, also those that nobody asked for.
    work: usize,
    batch_bytes_max: usize,
}

impl Stream {
    /// What it takes.
    pub fn kept_bytes(&self) -> usize {
        STREAM_BYTES + self.prefix.capacity()
    }

    fn is_due(&self, applied: Index, half_closed: bool, now: Instant) -> bool {
        self.next <= applied || self.is_worth_a_mark(half_closed, now)
    }

    /// Everything before `next` is out.
    fn is_worth_a_mark(&self, half_closed: bool, now: Instant) -> bool {
        self.is_mark_wanted || self.mark_at(half_closed).is_some_and(|at| now >= at)
    }

    /// When a mark is due, if nothing else is told until then.
    fn mark_at(&self, half_closed: bool) -> Option<Instant> {
        if self.next - 1 > self.told {
            return Some(self.told_at + PROGRESS_PERIOD);
        }
        half_closed.then_some(self.told_at + HALF_CLOSED_PERIOD)
    }

    fn feed(
        &mut self,
        machine: &Machine,
        out: &mut Vec<u8>,
        limits: FeedLimits,
        half_closed: bool,
        now: Instant,
    ) -> Fed {
        let FeedLimits { room, work, batch_bytes_max } = limits;
        let (mut fed, begin) = (Fed::default(), out.len());
        let batches = match machine.store().changes_since(self.next) {
            Ok(batches) => batches,
            Err(forgotten) => {
                return Fed { ended: Some(compacted(forgotten, machine)), ..fed };
            }
        };
        let mut is_level = true;
        for batch in batches {
            if out.len() - begin >= room || fed.work >= work {
                is_level = false;
                break;
            }
            let (mut passed, mut count, mut bytes) = (0, 0, 0);
            for change in batch.changes() {
                passed += 1;
                if change.concerns(&self.prefix) {
                    (count, bytes) = (count + 1, bytes + change.cost_bytes());
                }
            }
            fed.work += passed * PASSED_CHANGE_WORK;
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
                let wanted = batch.changes().filter(|change| change.concerns(&self.prefix));
                self.form.put_batch(out, &batch, count, wanted);
                (self.told, self.told_at) = (batch.index, now);
            }
            self.next = batch.index + 1;
        }
        if is_level {
            self.next = self.next.max(machine.applied() + 1);
            if self.is_worth_a_mark(half_closed, now) {
                (self.told, self.told_at) = (self.next - 1, now);
                self.is_mark_wanted = false;
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
