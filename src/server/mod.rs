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
mod passing;
mod paused;
mod pubsub;
mod ready;
mod refusals;
mod sentinel;
mod signals;
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
use crate::kv::{Answer, Limits};
use crate::net::{ConnId, NetEvent, Terminal};
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
use memory::Memory;
use metrics::Counts;
use pace::Pace;
use page::{Sample, Samples, Totals};
use paused::Paused;
use pubsub::Herald;
use ready::Level;
use signals::Stopping;
use slab::Slab;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{fmt, io};
use talk::Talk;
use turns::{Phases, Turns};
use unread::Unread;
use watch::Watch;

/// Bytes of requests, and about those of their answers, that all clients of this node may wait for together; beyond it
/// requests wait unread. It bounds what one turn copies, and what one node asks of the leader's connection to it.
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
    /// What the heavy ones of all writes that were ever asked for cost, in work.
    asked_work: u64,
    /// The same with what the requests take.
    asked_bytes: usize,
    /// Connections that are not read from until they have taken their answers, or until their earlier
    /// commands are answered.
    paused: Paused,
    pace: Pace,
    /// Clients that have said more than was taken in.
    line: Line,
    unread: Unread,
    memory: Memory,
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
    streams: Feeding,
    herald: Herald,
    slowest_flush: Duration,
    turns: Turns,
    terminal: Terminal,
    stopping: Option<Stopping>,
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
    /// What the request takes until then.
    request_bytes: usize,
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
        let memory = Memory::default();
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
            asked_work: 0,
            asked_bytes: 0,
            paused: Paused::default(),
            pace: Pace::default(),
            line: Line::default(),
            unread: Unread::default(),
            cursors: Cursors::new(&memory.kept),
            memory,
            watch: Watch::default(),
            counts: Counts::new(syncs),
            samples: Samples::default(),
            level: Level::default(),
            started: now,
            turn_began: now,
            requests: 0,
            text_clients: 0,
            streams: Feeding::default(),
            herald: Herald::default(),
            slowest_flush: Duration::ZERO,
            turns: Turns::new(),
            terminal: Terminal::of_this_process(),
            stopping: None,
        })
    }

    /// Runs until a signal asks it to stop.
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
                    NetEvent::Signal(number) => {
                        if self.signalled(number, now) {
                            self.stop(number);
                            return Ok(());
                        }
                    }
                    event => self.handle(event, now),
                }
            }
            if now >= self.next_tick {
                self.replica.inputs().tick();
                self.links.tick(now);
                self.drop_not_sent();
                self.talks.tidy();
                // Lines that could not be written, and how many they were.
                log::logger().flush();
                self.next_tick = (self.next_tick + self.config.tick()).max(now);
            }
            let heard = Instant::now();
            self.flush()?;
            let flushed = Instant::now();
            self.feed_streams(now);
            // Before anybody is served: answers are not to wait for others' commands.
            self.links.push();
            self.line.begin_turn();
            self.resume();
            self.serve_line();
            self.links.push();
            self.close_who_read_least(now);
            self.look_at_memory(now);
            self.turned([woke, heard, flushed, Instant::now()]);
            if let Some(signal) = self.may_stop(now) {
                self.stop(signal);
                return Ok(());
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
            self.drop_not_sent();
            self.replica.inputs().peer_unreachable(peer);
        }
    }

    /// What was to be passed on and was not is not done, and its client is told so.
    pub(in crate::server) fn drop_not_sent(&mut self) {
        for id in self.links.take_not_sent() {
            self.replica.inputs().forward_not_sent(id);
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
                    links.send(to, &message, begun);
                }
                links.push();
            })
            .map_err(ServerError::Replica)?;
        self.pace.flushed(self.replica.node().raft(), self.replica.waits(), begun);
        for (to, message) in outgoing.messages {
            self.links.send(to, &message, begun);
        }
        let now = Instant::now();
        self.drop_not_sent();
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
            self.terminal.look();
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
        let asked_bytes = asked.request_bytes + asked.answer_bytes;
        self.awaited_bytes -= asked.answer_bytes;
        self.asked_bytes -= asked_bytes;
        let form = match asked.reply {
            ReplyTo::Slot(_, form) => self.with_cursor(form, &answer),
            ReplyTo::Request(_) => text::Reply::default(),
        };
        let Some(talk) = self.talks.get_mut(&asked.conn) else { return };
        let Some(outbox) = self.links.net.outbox(asked.conn) else { return };
        match (asked.reply, talk) {
            (ReplyTo::Request(id), Talk::Client(client)) => {
                client.unanswered -= 1;
                client.awaited_bytes -= asked_bytes;
                let reply = ReplyFrame { id, body: ReplyBody::Answer(answer) };
                frame::put_frame(outbox, |out| reply.encode(out));
            }
            (ReplyTo::Slot(slot, _), Talk::Text(texts)) => {
                let collected = texts.collected_reply(slot, &answer, form);
                if collected.is_some() {
                    texts.recount();
                }
                texts.answered(slot, asked_bytes, outbox, |out| match collected {
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
