//! The loop turn: the only place that joins network, clock and replica.
//!
//! A turn is: wait, take in what arrived (memory only), let time pass (at most one tick, and only after the
//! backlog, so that a slow disk is not taken for a dead leader), flush (persist, then speak), write out.
//! Nothing answers a request in the middle of a turn but the node's own status.

mod ahead;
mod commands;
mod conns;
mod cursors;
mod events;
mod feeding;
mod files;
mod histogram;
mod http;
mod info;
mod line;
mod links;
mod members;
mod memory;
mod metrics;
mod pace;
mod page;
mod paused;
mod pubsub;
mod ready;
mod refusals;
mod sentinel;
mod streams;
mod talk;
mod texts;
mod transactions;
mod turns;
mod unread;
mod watch;
mod why;
mod words;

use crate::config::Config;
use crate::kv::{Answer, Failure, FailureCode, Limits};
use crate::net::{self, ConnId, NetEvent};
use crate::node::Ticket;
use crate::protocol::client::{ReplyBody, ReplyFrame};
use crate::protocol::{frame, text};
use crate::replica::{Replica, ReplicaError, Speech};
use crate::wal::{Disk, Identity, WalError};
use conns::ByConn;
use cursors::Cursors;
use events::Kind;
use feeding::Feeding;
use line::Line;
use links::Links;
use log::info;
use metrics::Counts;
use pace::Pace;
use page::{Sample, Samples, Totals};
use paused::Paused;
use pubsub::Herald;
use ready::Level;
use slab::Slab;
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{fmt, io};
use talk::Talk;
use turns::{Phases, Turns};
use unread::Unread;
use watch::Watch;

/// Bytes of answers that all clients of this node may wait for together; beyond it requests wait unread.
/// It bounds what one turn copies, and what one node asks of the leader's connection to it.
const AWAITED_BYTES_MAX: usize = 16 * 1024 * 1024;

pub use histogram::{Histogram, SECONDS, Syncs, TimedDisk};

pub struct Server<D: Disk> {
    config: Config,
    limits: Limits,
    replica: Replica<D>,
    links: Links,
    talks: ByConn<Talk>,
    /// Requests the node has not answered, by ticket.
    asked: Slab<Asked>,
    /// About how long the answers to all of `asked` will be.
    awaited_bytes: usize,
    /// Connections that are not read from until they have taken their answers, or until their earlier
    /// commands are answered.
    paused: Paused,
    pace: Pace,
    /// Clients that have said more than was taken in.
    line: Line,
    unread: Unread,
    watch: Watch,
    counts: Counts,
    samples: Samples,
    level: Level,
    started: Instant,
    /// When the present turn began.
    turn_began: Instant,
    next_tick: Instant,
    requests: u64,
    /// Text connections there have been.
    text_clients: u64,
    cursors: Cursors,
    /// Of the commands that all connections have queued for transactions.
    queued_bytes: Rc<Cell<usize>>,
    streams: Feeding,
    herald: Herald,
    slowest_flush: Duration,
    turns: Turns,
    stopping: Option<Stopping>,
}

/// A signal has asked for the end.
#[derive(Debug, Clone, Copy)]
struct Stopping {
    signal: i32,
    until: Instant,
}

/// Who waits for an answer.
#[derive(Debug, Clone, Copy)]
struct Asked {
    conn: ConnId,
    reply: ReplyTo,
    is_write: bool,
    /// The turn in which it arrived.
    arrived: Instant,
    /// About how long the answer will be.
    answer_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
enum ReplyTo {
    /// The id of a binary request.
    Request(u64),
    /// The place of a text command on its connection, and how it is answered.
    Slot(u64, text::Reply),
}

/// Why a server ended against its will.
#[derive(Debug)]
pub enum ServerError {
    /// The limit of open files is too low for a node.
    Files(String),
    Listen(io::Error),
    Poll(io::Error),
    Wal(WalError),
    Replica(ReplicaError),
}

/// The wall clock: what a leader stamps the log with, and what events are shown with. One before 1970 is set wrongly, and counts as that.
fn unix_ms() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl<D: Disk> Server<D> {
    pub fn new(
        mut config: Config,
        identity: Identity,
        mut replica: Replica<D>,
        syncs: Syncs,
        now: Instant,
    ) -> Result<Self, ServerError> {
        config.connections_max =
            files::connections_possible(&config).map_err(ServerError::Files)?;
        let mut links = Links::new(&config, identity, now).map_err(ServerError::Listen)?;
        // Before the first hello: a node that has data must never say that it has none.
        links.follow(replica.node(), now);
        info!(
            "{} listens on {}; log up to {}, term {}",
            config.name,
            links.net.local_addr(),
            replica.node().raft().log().last().index,
            replica.node().raft().term()
        );
        replica.inputs().set_time(unix_ms());
        replica.inputs().limit_store(config.store_bytes_max);
        Ok(Server {
            limits: config.limits,
            next_tick: now + config.tick(),
            config,
            replica,
            links,
            talks: ByConn::default(),
            asked: Slab::new(),
            awaited_bytes: 0,
            paused: Paused::default(),
            pace: Pace::default(),
            line: Line::default(),
            unread: Unread::default(),
            watch: Watch::default(),
            counts: Counts::new(syncs),
            samples: Samples::default(),
            level: Level::default(),
            started: now,
            turn_began: now,
            requests: 0,
            text_clients: 0,
            cursors: Cursors::default(),
            queued_bytes: Rc::default(),
            streams: Feeding::default(),
            herald: Herald::default(),
            slowest_flush: Duration::ZERO,
            turns: Turns::new(),
            stopping: None,
        })
    }

    /// Runs until SIGTERM or SIGINT.
    pub fn run(&mut self) -> Result<(), ServerError> {
        let mut events = Vec::new();
        loop {
            let now = Instant::now();
            let has_work =
                self.replica.has_work() || self.streams.has_work() || !self.line.is_empty();
            let timer = self.pace.deadline().map_or(self.next_tick, |at| at.min(self.next_tick));
            let deadline = if has_work { now } else { timer };
            self.links.net.wait(deadline, now, &mut events).map_err(ServerError::Poll)?;
            let (woke, now) = (self.links.net.woke(), Instant::now());
            self.replica.inputs().set_time(unix_ms());
            self.turn_began = now;
            self.look_ahead(&events);
            for event in events.drain(..) {
                match event {
                    // The second one asks for no patience.
                    NetEvent::Signal(number) if self.stopping.is_some() => {
                        return self.stop(number);
                    }
                    NetEvent::Signal(number) => self.begin_to_stop(number, now),
                    event => self.handle(event, now),
                }
            }
            if now >= self.next_tick {
                self.replica.inputs().tick();
                self.links.tick(now);
                self.talks.tidy();
                self.next_tick = (self.next_tick + self.config.tick()).max(now);
            }
            let heard = Instant::now();
            self.flush()?;
            let flushed = Instant::now();
            self.feed_streams(now);
            // Before anybody is served: answers are not to wait for others' commands.
            self.links.net.push();
            self.line.begin_turn();
            self.resume();
            self.serve_line();
            self.links.net.push();
            self.close_who_read_least(now);
            self.turned([woke, heard, flushed, Instant::now()]);
            if let Some(stopping) = self.stopping.filter(|stopping| self.may_stop(*stopping, now)) {
                return self.stop(stopping.signal);
            }
        }
    }

    /// A turn is over that began, had taken everything in, was flushed and ended at these times.
    fn turned(&mut self, [began, heard, flushed, ended]: [Instant; 4]) {
        let phases = Phases {
            input: heard - began,
            flush: flushed - heard,
            output: ended - flushed,
            disk: self.counts.syncs.borrow_mut().take_turn(),
        };
        self.samples.turns.observe(ended - began);
        self.samples.unsynced.observe(phases.unsynced());
        if let Some(line) = self.turns.ended(phases, ended) {
            info!("{line}");
        }
    }

    fn handle(&mut self, event: NetEvent, now: Instant) {
        match event {
            NetEvent::Readable(conn) => self.readable(conn, now),
            NetEvent::Dialed { conn, peer } => {
                self.links.say_hello(conn);
                self.talks.insert(conn, Talk::AwaitingWelcome { peer, magic_seen: false });
            }
            NetEvent::DialFailed { peer, refused, reason } => {
                if let Some(ended) = self.links.dial_failed(peer, refused, &reason) {
                    self.replica.inputs().peer_process_ended(ended);
                }
            }
            NetEvent::Closed { conn, by_other_side, reason, .. } => {
                self.closed(conn, by_other_side, &reason, now);
            }
            NetEvent::Signal(_) => {}
        }
    }

    /// A connection is gone, whoever closed it.
    fn closed(&mut self, conn: ConnId, by_other_side: bool, reason: &str, now: Instant) {
        self.forget(conn);
        if let Some(peer) = self.links.detach(conn, by_other_side, reason, now) {
            self.replica.inputs().peer_unreachable(peer);
        }
    }

    fn close(&mut self, conn: ConnId, reason: &str, now: Instant) {
        self.links.net.close(conn);
        self.closed(conn, false, reason, now);
    }

    /// Step 4 of the turn.
    fn flush(&mut self) -> Result<(), ServerError> {
        let begun = Instant::now();
        let wanted = self.pace.wanted(self.replica.node().raft(), begun);
        if self.replica.leaves_all(wanted) {
            return Ok(());
        }
        let links = &mut self.links;
        let outgoing = self
            .replica
            .flush_with(wanted, |(Speech::Early(messages) | Speech::Durable(messages))| {
                for (to, message) in messages {
                    links.send(to, &message);
                }
                links.net.push();
            })
            .map_err(ServerError::Replica)?;
        self.pace.flushed(self.replica.node().raft(), self.replica.waits(), begun);
        for (to, message) in outgoing.messages {
            self.links.send(to, &message);
        }
        let now = Instant::now();
        for (ticket, answer) in outgoing.answers {
            self.deliver(ticket, answer, now);
        }
        let now = Instant::now();
        for (conn, reason) in self.links.take_unwanted() {
            self.close(conn, reason, now);
        }
        self.slowest_flush = self.slowest_flush.max(now - begun);
        self.links.follow(self.replica.node(), now);
        self.watch.look(&self.config, self.replica.node(), &self.links, now);
        self.watch.look_at_flush(now - begun, now);
        self.look(now);
        self.publish(now);
        Ok(())
    }

    /// What is counted, and what readiness is judged by.
    fn look(&mut self, now: Instant) {
        let raft = self.replica.node().raft();
        self.level.look(raft, self.config.election, now);
        self.counts.look_at_leader(raft.term(), raft.leader());
        let (entries, bytes) = self.replica.turn_written();
        self.counts.wrote_batch(entries, bytes);
        for what in self.links.take_news() {
            self.watch.events.note(Kind::Connection, what);
        }
        let newest = self.replica.wal().snapshots().last().map_or(0, |file| file.position.index);
        self.watch.look_at_snapshot(newest, self.replica.node().machine().applied());
        if self.samples.is_due(now) {
            let reasons = self.unready(now);
            self.watch.look_at_readiness(&self.config, &reasons);
            self.take_sample(now);
        }
    }

    fn take_sample(&mut self, now: Instant) {
        let node = self.replica.node();
        let raft = node.raft();
        let sample = Sample {
            at: unix_ms() / 1000,
            commit_index: raft.commit_index(),
            applied: node.machine().applied(),
            log_bytes: self.replica.wal().bytes_on_disk(),
            ..Sample::default()
        };
        let totals = Totals {
            writes: raft.known_commit(),
            led_reads: node.tally().reads + self.counts.local_reads,
            own_reads: self.counts.reads,
            leads: raft.is_leader(),
        };
        self.samples.take(sample, totals, &mut self.counts.syncs.borrow_mut().lately, now);
    }

    /// An answer reaches its connection, if that still exists.
    fn deliver(&mut self, ticket: Ticket, answer: Answer, now: Instant) {
        let asked = self.asked.remove(usize::try_from(ticket).expect("tickets are slab keys"));
        let took = now.saturating_duration_since(asked.arrived);
        self.counts.answered(took);
        self.samples.requests.observe(took);
        self.counts.reads += u64::from(!asked.is_write && !matches!(answer, Answer::Failed(_)));
        self.awaited_bytes -= asked.answer_bytes;
        let form = match asked.reply {
            ReplyTo::Slot(_, form) => self.with_cursor(form, &answer),
            ReplyTo::Request(_) => text::Reply::default(),
        };
        let Some(talk) = self.talks.get_mut(&asked.conn) else { return };
        let Some(outbox) = self.links.net.outbox(asked.conn) else { return };
        match (asked.reply, talk) {
            (ReplyTo::Request(id), Talk::Client(client)) => {
                client.unanswered -= 1;
                client.awaited_bytes -= asked.answer_bytes;
                let reply = ReplyFrame { id, body: ReplyBody::Answer(answer) };
                frame::put_frame(outbox, |out| reply.encode(out));
            }
            (ReplyTo::Slot(slot, _), Talk::Text(texts)) => {
                let collected = texts.collected_reply(slot, &answer, form);
                texts.answered(slot, asked.answer_bytes, outbox, |out| match collected {
                    Some(reply) => out.extend_from_slice(&reply),
                    None => text::answer_to_resp(&answer, form, out),
                });
            }
            _ => unreachable!("an answer fits the protocol that it was asked in"),
        }
        self.paused.note(asked.conn);
        self.streams.note_answer(asked.conn);
        self.close_if_done(asked.conn);
    }

    /// The other side has said all it will say, and has all its answers.
    fn close_if_done(&mut self, conn: ConnId) {
        let Some(talk) = self.talks.get(&conn) else { return };
        if talk.streams() && self.links.net.half_closed(conn) {
            return self.streams_to_half_closed(conn);
        }
        if talk.owes_answers() || self.paused.contains(conn) || self.line.has(conn) {
            return;
        }
        if talk.is_leaving() || self.links.net.half_closed(conn) {
            self.let_go(conn);
        }
    }

    /// Clients that stand in line, as far as the turn goes.
    fn serve_line(&mut self) {
        let now = Instant::now();
        let mut unreached = self.line.len();
        while unreached > 0 {
            let Some(conn) = self.line.next() else { break };
            self.links.net.pause_reading(conn, false);
            self.readable(conn, now);
            unreached -= 1;
        }
        self.line.end_turn(unreached, now);
        for _ in 0..self.line.long_len() {
            let Some(conn) = self.line.next_long() else { break };
            self.links.net.pause_reading(conn, false);
            self.readable(conn, now);
        }
    }

    /// SIGTERM or SIGINT: a leader hands over first, and what waits is answered, for as long as that may take.
    fn begin_to_stop(&mut self, signal: i32, now: Instant) {
        let name = &self.config.name;
        match self.replica.inputs().leave() {
            true => info!("{name} hands over and stops: {}", net::signal_name(signal)),
            false => info!("{name} stops: {}", net::signal_name(signal)),
        }
        // Of the longest election timeouts one for the successor, and one for its first answers.
        let until = now + self.config.election * 4;
        self.stopping = Some(Stopping { signal, until });
    }

    fn may_stop(&self, stopping: Stopping, now: Instant) -> bool {
        let is_settled = !self.replica.node().raft().is_handing_over();
        now >= stopping.until || (is_settled && self.asked.is_empty())
    }

    /// What still waits is answered with what is known, and the process ends.
    fn stop(&mut self, signal: i32) -> Result<(), ServerError> {
        info!(
            "{} ends: {}; {} requests are unanswered",
            self.config.name,
            net::signal_name(signal),
            self.asked.len()
        );
        let tickets: Vec<(usize, bool)> =
            self.asked.iter().map(|(ticket, asked)| (ticket, asked.is_write)).collect();
        for (ticket, is_write) in tickets {
            let (code, message) = if is_write {
                let what =
                    "the node stops before the write was committed; it may or may not take effect";
                (FailureCode::OutcomeUnknown, what)
            } else {
                (FailureCode::ShuttingDown, "the node stops; nothing was done, ask another node")
            };
            let failure = Failure { code, message: message.to_string(), leader: None };
            self.deliver(ticket as Ticket, Answer::Failed(failure), Instant::now());
        }
        self.links.net.push();
        Ok(())
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerError::Files(what) => write!(f, "{what}"),
            ServerError::Listen(error) => write!(f, "{error}"),
            ServerError::Poll(error) => write!(f, "waiting for events failed: {error}"),
            ServerError::Wal(error) => write!(f, "{error}"),
            ServerError::Replica(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for ServerError {}
