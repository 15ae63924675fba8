//! The conversation on one connection: bytes in, requests to the node, and what is owed in return.
//!
//! Everything here returns at "need more bytes" and starts again where it left off when more have come. What
//! the other side sends wrong ends its connection, with a reason; it never ends more than that.

use super::line::Cost;
use super::memory::{Charge, Total};
use super::passing::PEER_ANSWERS_BYTES_MAX;
use super::streams::Stream;
use super::texts::TextTalk;
use super::{Asked, ReplyTo, Server};
use crate::kv::{Answer, Command, Failure, FailureCode, Limits, Request};
use crate::net::ConnId;
use crate::node::{self, PeerMessage, Routing, Ticket};
use crate::protocol::client::{self, ReplyBody, ReplyFrame, RequestBody, RequestFrame};
use crate::protocol::frame::{self, FrameStep, Skip};
use crate::protocol::hello::{HELLO_BYTES_MAX, Hello, HelloReply, RefusedCode, Role, Welcome};
use crate::protocol::resp;
use crate::protocol::sniff::{Sniffed, sniff};
use crate::protocol::{PEER_FRAME_BYTES_MAX, client_frame_bytes_max, peer};
use crate::raft::{NodeId, node_id};
use crate::wal::Disk;
use log::debug;
use std::time::Instant;

/// What has been agreed on so far.
#[derive(Debug)]
pub enum Talk {
    /// Nobody knows yet what is spoken.
    Undecided,
    /// Binary, and the other side dialled: its hello comes first.
    AwaitingHello,
    /// Binary, and this node dialled and said hello.
    AwaitingWelcome {
        peer: u64,
        magic_seen: bool,
    },
    Peer {
        peer: NodeId,
    },
    Client(ClientTalk),
    Text(Box<TextTalk>),
    Http,
}

/// A binary client. Its requests are answered in any order, by id.
#[derive(Debug, Default)]
pub struct ClientTalk {
    pub unanswered: usize,
    /// About what those requests take, and their answers will.
    pub awaited_bytes: usize,
    /// Changes that it is told of; a connection has one stream.
    pub stream: Option<Stream>,
    /// What is kept for that.
    pub kept: Charge,
    /// The rest of a frame that is too long.
    skip: Option<Skip>,
}

/// Why reading ended for now.
pub enum Pause {
    /// Until more bytes come.
    NeedMore,
    /// Until the other side takes its answers, or the node has given those that come first.
    MustWait,
    /// Until a later turn: it has had its share of this one.
    TurnIsOver,
    /// The connection is to be closed at once.
    Close(String),
    /// ... after what is in the outbox.
    CloseAfterFlush,
}

pub type Step = Result<(), Pause>;

/// A write that costs more, in work, is paid for by that, too; others by their bytes alone.
const HEAVY_WORK: u64 = 64 * 1024;

/// What an answer takes besides a value.
const ANSWER_BYTES: usize = 64;

/// What a connection waits for, beside the bytes in its outbox.
#[derive(Debug, Clone, Copy, Default)]
pub struct Owed {
    pub answers: usize,
    /// About.
    pub bytes: usize,
}

impl Talk {
    pub fn owed(&self) -> Owed {
        match self {
            Talk::Client(client) => client.owed(),
            Talk::Text(text) => text.owed(),
            _ => Owed::default(),
        }
    }

    /// Whether something is to be said to the other side, although it says no more itself: `echo GET a | nc` and
    /// `echo CHANGES | nc` listen. Who has subscribed does not: that is the end of a subscriber, as in Redis, and
    /// what it could be told comes so rarely that nobody would notice for long that it has gone.
    pub fn owes_answers(&self) -> bool {
        self.owed().answers > 0 || self.streams()
    }

    pub fn streams(&self) -> bool {
        match self {
            Talk::Client(client) => client.stream.is_some(),
            Talk::Text(text) => text.stream.is_some(),
            _ => false,
        }
    }

    /// Whether the next command would overtake those that the node has not answered.
    pub fn is_held(&self) -> bool {
        matches!(self, Talk::Text(text) if text.is_held())
    }

    pub fn is_leaving(&self) -> bool {
        matches!(self, Talk::Text(text) if text.is_leaving())
    }
}

impl ClientTalk {
    fn new(all_kept: &Total) -> Self {
        ClientTalk { kept: Charge::new(all_kept), ..ClientTalk::default() }
    }

    pub fn kept_bytes(&self) -> usize {
        self.kept.bytes()
    }

    fn owed(&self) -> Owed {
        Owed { answers: self.unanswered, bytes: self.awaited_bytes }
    }
}

impl<D: Disk> Server<D> {
    /// Bytes have come, or the end of them.
    pub(super) fn readable(&mut self, conn: ConnId, now: Instant) {
        let waits = self.paused.contains(conn) || self.line.has(conn);
        if self.links.net.inbox(conn).is_none() || waits {
            return;
        }
        // Out of the map while it is at work, so that it and the server can both be borrowed.
        let mut talk = self.talks.remove(&conn).unwrap_or(Talk::Undecided);
        self.line.begin(conn, now);
        let pause = loop {
            let taken = match talk {
                // What the cluster lives on is not rationed.
                Talk::Peer { .. } => self.step(conn, &mut talk, now),
                _ => self.step_in_turn(conn, &mut talk, now),
            };
            if let Err(pause) = taken {
                break pause;
            }
        };
        self.talks.insert(conn, talk);
        match pause {
            Pause::NeedMore => self.close_if_done(conn),
            Pause::TurnIsOver => {
                let unread = self.inbox(conn).len();
                self.line.stand(conn, unread, now);
                self.links.net.pause_reading(conn, true);
            }
            Pause::MustWait => {
                self.paused.insert(conn);
                self.links.net.pause_reading(conn, true);
            }
            Pause::Close(reason) => {
                debug!("{conn}: {reason}");
                self.close(conn, &reason, now);
            }
            Pause::CloseAfterFlush => self.let_go(conn),
        }
    }

    /// The next thing that a client has said, if its share of the turn goes that far.
    fn step_in_turn(&mut self, conn: ConnId, talk: &mut Talk, now: Instant) -> Step {
        let unread = self.inbox(conn).len();
        if unread > 0 && self.line.is_used_up() && !self.line.is_late() {
            return Err(Pause::TurnIsOver);
        }
        let unsent = self.links.net.outbox_len(conn);
        let (searched, awaited) = (self.replica.node().search_steps(), self.awaited_bytes);
        let asked_work = self.asked_work;
        self.step(conn, talk, now)?;
        let taken = unread.saturating_sub(self.inbox(conn).len());
        self.line.heard(taken);
        if self.line.take_refused() {
            return Ok(());
        }
        let said = self.links.net.outbox_len(conn).saturating_sub(unsent);
        let searched = self.replica.node().search_steps() - searched;
        let search_steps = searched + self.asked_work - asked_work;
        let awaited = self.awaited_bytes.saturating_sub(awaited);
        self.line.pay(Cost { bytes: taken + said, awaited, search_steps: search_steps as usize });
        Ok(())
    }

    /// Takes in the next thing that was said.
    fn step(&mut self, conn: ConnId, talk: &mut Talk, now: Instant) -> Step {
        match talk {
            Talk::Undecided => self.step_undecided(conn, talk, now),
            Talk::AwaitingHello => self.step_hello(conn, talk, now),
            Talk::AwaitingWelcome { peer, magic_seen: false } => {
                let peer = *peer;
                self.take_magic(conn)?;
                *talk = Talk::AwaitingWelcome { peer, magic_seen: true };
                Ok(())
            }
            Talk::AwaitingWelcome { peer, magic_seen: true } => {
                let peer = *peer;
                self.step_welcome(conn, peer, talk, now)
            }
            Talk::Peer { peer } => self.step_peer(conn, *peer, now),
            Talk::Client(client) => self.step_client(conn, client, now),
            Talk::Text(text) => self.step_text(conn, text, now),
            Talk::Http => self.step_http(conn, now),
        }
    }

    fn step_undecided(&mut self, conn: ConnId, talk: &mut Talk, now: Instant) -> Step {
        match sniff(self.inbox(conn)) {
            Sniffed::NeedMore => return Err(Pause::NeedMore),
            Sniffed::Text if self.links.is_crowded() => {
                let refused = self.links.too_many();
                self.links.note_refused(conn, None, &refused, now);
                // In Redis's words, which its libraries know.
                if let Some(outbox) = self.links.net.outbox(conn) {
                    resp::put_error(outbox, "ERR max number of clients reached");
                }
                return Err(Pause::CloseAfterFlush);
            }
            Sniffed::Refused(reason) => return Err(Pause::Close(reason.to_string())),
            Sniffed::Text => {
                self.links.net.mark_spoken(conn);
                self.text_clients += 1;
                let (held, kept) = (&self.unread.held_bytes, &self.memory.kept);
                *talk = Talk::Text(Box::new(TextTalk::new(self.text_clients, held, kept)));
            }
            // Without `mark_spoken`: each request has to come in time, the first as well.
            Sniffed::Http => *talk = Talk::Http,
            Sniffed::Binary => {
                self.links.net.consume(conn, frame::MAGIC.len());
                *talk = Talk::AwaitingHello;
            }
        }
        Ok(())
    }

    fn take_magic(&mut self, conn: ConnId) -> Step {
        match sniff(self.inbox(conn)) {
            Sniffed::NeedMore => Err(Pause::NeedMore),
            Sniffed::Binary => {
                self.links.net.consume(conn, frame::MAGIC.len());
                Ok(())
            }
            Sniffed::Text | Sniffed::Http => {
                Err(Pause::Close("the dialled port speaks another protocol".into()))
            }
            Sniffed::Refused(reason) => Err(Pause::Close(reason.to_string())),
        }
    }

    pub(super) fn inbox(&self, conn: ConnId) -> &[u8] {
        self.links.net.inbox(conn).unwrap_or_default()
    }

    /// One whole frame, decoded and consumed.
    fn take_frame<T, E: ToString>(
        &mut self,
        conn: ConnId,
        bytes_max: usize,
        decode: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Result<T, Pause> {
        let (decoded, consumed) = match frame::next_frame(self.inbox(conn), bytes_max) {
            Ok(FrameStep::NeedMore { .. }) => return Err(Pause::NeedMore),
            Ok(FrameStep::Frame { payload, consumed }) => (decode(payload), consumed),
            Ok(FrameStep::Oversized { payload_bytes, .. }) => {
                let reason = format!("a frame of {payload_bytes} bytes, the limit is {bytes_max}");
                return Err(Pause::Close(reason));
            }
            Err(error) => return Err(Pause::Close(error.to_string())),
        };
        self.links.net.consume(conn, consumed);
        decoded.map_err(|error| Pause::Close(error.to_string()))
    }

    fn step_hello(&mut self, conn: ConnId, talk: &mut Talk, now: Instant) -> Step {
        let hello = self.take_frame(conn, HELLO_BYTES_MAX, Hello::decode)?;
        if let Err(refused) = self.links.answer_hello(conn, &hello, now) {
            let claimed = match hello.role {
                Role::Peer { node, .. } => Some(node),
                Role::Client { .. } => None,
            };
            self.links.note_refused(conn, claimed, &refused, now);
            return Err(Pause::CloseAfterFlush);
        }
        self.links.net.mark_spoken(conn);
        match hello.role {
            Role::Client { name } => {
                debug!("{conn}: client {name}");
                *talk = Talk::Client(ClientTalk::new(&self.memory.kept));
            }
            Role::Peer { node, incarnation, name, standing, address, limits } => {
                let id = node_id(node, incarnation);
                *talk = Talk::Peer { peer: id };
                let peer = node::Peer { id, name, address, standing, limits };
                self.peer_is_there(conn, peer, now);
            }
        }
        Ok(())
    }

    fn step_welcome(&mut self, conn: ConnId, peer: u64, talk: &mut Talk, now: Instant) -> Step {
        let welcome = match self.take_frame(conn, HELLO_BYTES_MAX, HelloReply::decode)? {
            HelloReply::Welcome(welcome) => welcome,
            HelloReply::Refused(refused) => {
                if refused.code == RefusedCode::Removed {
                    self.links.was_told_of_removal();
                }
                self.links.note_refusal(peer, &format!("it refuses this node: {refused}"));
                return Err(Pause::Close(refused.to_string()));
            }
        };
        if let Err(refused) = self.links.judge_welcome(peer, &welcome, now) {
            self.links.note_refusal(peer, &format!("its welcome is refused: {refused}"));
            return Err(Pause::Close(refused.to_string()));
        }
        self.links.net.mark_spoken(conn);
        let Welcome {
            name, address, standing, incarnation, key_bytes_max, value_bytes_max, ..
        } = welcome;
        let limits = Some(Limits { key_bytes_max, value_bytes_max });
        let id = node_id(peer, incarnation);
        *talk = Talk::Peer { peer: id };
        self.peer_is_there(conn, node::Peer { id, name, address, standing, limits }, now);
        Ok(())
    }

    fn peer_is_there(&mut self, conn: ConnId, peer: node::Peer, now: Instant) {
        if let Some((replaced, before)) = self.links.attach(conn, &peer, now) {
            self.close(replaced, "replaced by a newer connection", now);
            self.drop_not_sent();
            self.replica.inputs().peer_unreachable(before);
        }
        self.replica.inputs().peer_connected(peer);
    }

    fn step_peer(&mut self, conn: ConnId, from: NodeId, now: Instant) -> Step {
        let message = self.take_frame(conn, PEER_FRAME_BYTES_MAX, peer::decode)?;
        self.links.heard(from, now);
        if let PeerMessage::Forward { id, .. } = &message
            && self.answers_enough(from)
        {
            let what = "more answers wait for the node that passed this on than it takes; nothing was done, \
                        try again later";
            let (code, message) = (FailureCode::Overloaded, what.to_string());
            let answer = Answer::Failed(Failure { code, message, leader: None });
            self.links.send(from, &PeerMessage::ForwardReply { id: *id, answer }, now);
            return Ok(());
        }
        self.replica.inputs().peer_message(from, message).map_err(|distrust| {
            self.links.note_distrust(from, &distrust, now);
            Pause::Close(distrust.to_string())
        })
    }

    /// Whether no more is to be carried out for a peer's clients until it has taken some of their answers.
    fn answers_enough(&self, peer: NodeId) -> bool {
        let under_way = self.replica.node().forwarded_bytes(peer);
        let bytes = under_way + self.links.passing_bytes(peer);
        bytes >= PEER_ANSWERS_BYTES_MAX || (bytes > 0 && self.do_peers_have_enough())
    }

    fn step_client(&mut self, conn: ConnId, talk: &mut ClientTalk, now: Instant) -> Step {
        if let Some(skip) = &mut talk.skip {
            let available = self.links.net.inbox(conn).map_or(0, <[u8]>::len);
            self.links.net.consume(conn, skip.advance(available));
            if !skip.is_done() {
                return Err(Pause::NeedMore);
            }
            talk.skip = None;
        }
        if self.is_full(conn, talk.owed()) {
            return Err(Pause::MustWait);
        }
        let bytes_max = client_frame_bytes_max(&self.limits);
        let (request, consumed) = match frame::next_frame(self.inbox(conn), bytes_max) {
            Ok(FrameStep::NeedMore { .. }) => return Err(Pause::NeedMore),
            Ok(FrameStep::Frame { payload, consumed }) => (RequestFrame::decode(payload), consumed),
            Ok(FrameStep::Oversized { head, payload_bytes, skip }) => {
                let id = client::request_id(head);
                talk.skip = Some(skip);
                let failure = self.limits.frame_too_large(payload_bytes);
                return match id {
                    Some(id) => self.reply(conn, id, ReplyBody::Answer(Answer::Failed(failure))),
                    None => Err(Pause::Close(failure.message)),
                };
            }
            Err(error) => return Err(Pause::Close(error.to_string())),
        };
        self.links.net.consume(conn, consumed);
        self.requests += 1;
        match request {
            Ok(RequestFrame { id, body: RequestBody::Ask(_) }) if self.line.is_late() => {
                let failure = self.refuse_late();
                self.reply(conn, id, ReplyBody::Answer(failure))
            }
            Ok(RequestFrame { id, body: RequestBody::Ask(request) }) => {
                talk.unanswered += 1;
                talk.awaited_bytes +=
                    self.ask(conn, ReplyTo::Request(id), request, Routing::Redirect);
                Ok(())
            }
            Ok(RequestFrame { id, body: RequestBody::Status }) => {
                let fields = self.sections(now).into_iter().flat_map(|(_, fields)| fields);
                self.reply(conn, id, ReplyBody::Status(fields.collect()))
            }
            Ok(RequestFrame { id, body: RequestBody::Changes { prefix, from } }) => {
                self.stream_to_client(conn, talk, id, (prefix, from), now)
            }
            Err(bad) => match bad.id {
                Some(id) => {
                    let (code, message) = (FailureCode::Malformed, bad.malformed.to_string());
                    let failure = Failure { code, message, leader: None };
                    self.reply(conn, id, ReplyBody::Answer(Answer::Failed(failure)))
                }
                None => Err(Pause::Close(bad.malformed.to_string())),
            },
        }
    }

    /// The answer to a request that has waited for [`LATE`](super::line::LATE) and is not carried out.
    pub(super) fn refuse_late(&mut self) -> Answer {
        self.line.refuse();
        self.counts.late += 1;
        let message = "more is asked than this node can take; nothing was done, try again later";
        let (code, message) = (FailureCode::Overloaded, message.to_string());
        Answer::Failed(Failure { code, message, leader: None })
    }

    /// An answer that needs no waiting.
    fn reply(&mut self, conn: ConnId, id: u64, body: ReplyBody) -> Step {
        if let Some(outbox) = self.links.net.outbox(conn) {
            frame::put_frame(outbox, |out| ReplyFrame { id, body }.encode(out));
        }
        Ok(())
    }

    /// Returns about how many bytes the request takes, and its answer will.
    pub(super) fn ask(
        &mut self,
        conn: ConnId,
        reply: ReplyTo,
        request: Request,
        routing: Routing,
    ) -> usize {
        let answer_bytes = ANSWER_BYTES + self.replica.node().answer_bytes(&request);
        let request_bytes = node::request_bytes(&request);
        self.asked_work += self.heavy_work(&request);
        let asked = Asked {
            conn,
            reply,
            is_write: request.is_write(),
            arrived: self.turn_began,
            answer_bytes,
            request_bytes,
        };
        let ticket = self.asked.insert(asked);
        let value_bytes = self.replica.inputs().request(ticket as Ticket, request, routing);
        let answer_bytes = answer_bytes + value_bytes;
        self.asked[ticket].answer_bytes = answer_bytes;
        self.awaited_bytes += answer_bytes;
        self.asked_bytes += request_bytes + answer_bytes;
        request_bytes + answer_bytes
    }

    /// What a write costs when it is applied, if that is much more than its bytes say: as the state is now, at this
    /// node.
    fn heavy_work(&self, request: &Request) -> u64 {
        let Request::Write { command } = request else { return 0 };
        if !Command::may_be_heavy(command) {
            return 0;
        }
        let Ok(command) = Command::decode(command) else { return 0 };
        let work = command.needs(self.replica.node().machine().store()).work;
        if work > HEAVY_WORK { work } else { 0 }
    }
}
