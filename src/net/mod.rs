//! The network under the loop: sockets, bytes and names. It knows neither frames nor Raft.
//!
//! Everything happens on the caller's thread. [`Net::wait`] blocks until something happens or a deadline
//! comes, reads what has arrived into *inboxes* and reports it as [`NetEvent`]s. The caller takes bytes off
//! the inboxes, appends its answers to *outboxes*, and [`Net::push`] sends them. Nothing else blocks.
//!
//! Rules that hold everywhere here:
//! - A connection is known by its [`ConnId`], slot and generation: a late word about a closed connection
//!   reaches nobody. Slots become free between waits only, so within one turn no slot has two owners.
//! - What the kernel says of a socket is a hint. What is true is found out by reading and writing.
//! - The end of a client's bytes does not end the connection: `echo GET a | nc` wants its answer.
//! - Time comes in with `wait`, `dial` and `probe`; between two waits it stands still.
//! - Every buffer has a limit. An inbox that is full is not read into until something is consumed; an outbox
//!   that grows to twice its limit closes its connection, but the caller should not let it come to that.

mod buffer;
mod connection;
mod dialer;
pub mod dns;
mod intake;
mod listener;
mod resolve_blocking;
mod resolver;
mod signals;
mod turn;

pub(crate) use dialer::seconds;
pub use resolve_blocking::resolve_blocking;
pub use resolver::ResolverConfig;
pub use signals::{Asks, Terminal, asks, catch_early_signals, signal_name};

use connection::{Connection, Limits, Phase};
use dialer::Dialer;
use intake::Intake;
use listener::Acceptor;
use mio::{Interest, Poll, Token};
use signal_hook_mio::v1_0::Signals;
use slab::Slab;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Socket events taken from the kernel at once; more of them come with the next wait.
const EVENTS_PER_POLL: usize = 1024;
/// Bytes that one read call asks for at most.
const READ_CHUNK: usize = 64 * 1024;

/// What a connection takes here beside its buffers.
#[cfg(test)]
pub(crate) const CONNECTION_BYTES: usize = size_of::<Connection>();

const LISTENER_TOKEN: Token = Token(usize::MAX);
const SIGNAL_TOKEN: Token = Token(usize::MAX - 1);
const DNS_TOKEN: Token = Token(usize::MAX - 2);

/// A connection: the slot it uses, and which of the slot's connections it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    slot: u32,
    generation: u32,
}

impl ConnId {
    fn token(self) -> Token {
        const { assert!(usize::BITS >= 64, "a token holds slot and generation") };
        Token((self.generation as usize) << 32 | self.slot as usize)
    }

    /// Below the most connections there have been at once; used again.
    pub(crate) fn slot(self) -> usize {
        self.slot as usize
    }

    #[cfg(test)]
    pub(crate) fn for_test(slot: u32) -> ConnId {
        ConnId { slot, generation: 0 }
    }

    #[cfg(test)]
    pub(crate) fn with_next_generation(self) -> ConnId {
        ConnId { generation: self.generation + 1, ..self }
    }

    fn from_token(token: Token) -> ConnId {
        ConnId { slot: token.0 as u32, generation: (token.0 >> 32) as u32 }
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}.{}", self.slot, self.generation)
    }
}

/// Where a peer is to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    pub id: u64,
    pub name: String,
    /// An address or a name; a name is looked up anew for every dial.
    pub host: String,
    pub port: u16,
}

/// What the network has to know and where its limits are.
#[derive(Debug, Clone)]
pub struct NetConfig {
    /// Address and port, not a name: `0.0.0.0:6000` or `[::]:6000` (which takes IPv4 as well).
    pub listen: String,
    pub peers: Vec<PeerAddress>,
    /// Accepted connections, clients and peers together; one more is closed at once.
    pub connections_max: usize,
    /// Bytes of one connection that arrived and were not consumed. It must hold the longest message.
    pub inbox_bytes_max: usize,
    /// The same of all accepted connections that are no peers: long messages take turns from half of it on, and
    /// whoever has few bytes is read all the same.
    pub unserved_bytes_max: usize,
    /// Room in all buffers of clients that is kept although nothing is in it, for their next words.
    pub kept_bytes_max: usize,
    /// Bytes waiting to be sent to one client.
    pub outbox_bytes_max: usize,
    /// The same of a peer: its messages may be longer.
    pub peer_inbox_bytes_max: usize,
    /// Bytes waiting to be sent to one peer.
    pub peer_outbox_bytes_max: usize,
    /// How long one address may take to accept a dial. 1 s is a good value.
    pub connect_timeout: Duration,
    /// The longest pause between two attempts to reach a peer. 500 ms is a good value.
    pub redial_max: Duration,
    /// How long bytes sent to a peer may stay unacknowledged. 3 s is a good value.
    pub user_timeout: Duration,
    /// How long a connection may say nothing sensible at its beginning, how long it may take at its end to accept
    /// its last answers, and how long a message may take for which others wait. 10 s is a good value.
    pub silent_timeout: Duration,
    pub resolver: ResolverConfig,
    /// For jitter and DNS query ids. Another one for each start of the process.
    pub seed: u64,
}

impl NetConfig {
    fn peer_limits(&self) -> Limits {
        let (inbox_max, outbox_max) = (self.peer_inbox_bytes_max, self.peer_outbox_bytes_max);
        Limits { inbox_max, outbox_max }
    }
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetEvent {
    /// There are bytes in the inbox, or the other side has half-closed ([`Net::half_closed`]). Comes again
    /// while more waits in the socket, after `consume` has made room, and at the end of a pause.
    Readable(ConnId),
    /// A peer that is kept connected has accepted a dial.
    Dialed { conn: ConnId, peer: u64 },
    /// An attempt at a peer failed; if the peer is kept connected there will be more. `refused`: nobody
    /// listens at any of its addresses.
    DialFailed { peer: u64, refused: bool, reason: String },
    /// The connection is gone; the last word on it, and never about one that the caller closed. The inbox
    /// can be read until the next wait. `by_other_side`: it shut down or reset the connection; not so when
    /// a limit or a time-out ended it.
    Closed { conn: ConnId, peer: Option<u64>, by_other_side: bool, reason: String },
    /// A signal; [`asks`] tells what for.
    Signal(i32),
}

/// The sockets of one node.
pub struct Net {
    config: NetConfig,
    poll: Poll,
    ready: mio::Events,
    signals: Signals,
    local_addr: SocketAddr,
    acceptor: Acceptor,
    dialer: Dialer,
    intake: Intake,
    connections: Slab<Connection>,
    next_generation: u32,
    /// Accepted connections that are not closed.
    inbound: usize,
    /// Connections to read from, ready or to be announced; an edge will not come back for them.
    readable: Vec<ConnId>,
    /// The list that is being worked through, empty between turns.
    reading: Vec<ConnId>,
    /// Connections with bytes to send, or to be closed once they are sent.
    dirty: Vec<ConnId>,
    /// Connections that are not read from, of whose bytes the sockets have taken some.
    drained: Vec<ConnId>,
    /// Slots of closed connections, free from the next wait on.
    closed: Vec<usize>,
    /// Events for the caller.
    queued: Vec<NetEvent>,
    scratch: Box<[u8]>,
    received_bytes: u64,
    sent_bytes: u64,
    /// Bytes that waited to be sent to all clients after the last push.
    clients_unsent: usize,
    /// The memory of all buffers: of clients, of peers, and of clients what is kept for nothing.
    clients_held: usize,
    peers_held: usize,
    kept_bytes: usize,
    /// When the last wait was over and its reading began.
    woke: Instant,
    /// The time of the last call that brought it.
    now: Instant,
    /// When to look for connections whose patience is at its end.
    sweep_at: Option<Instant>,
}

impl Net {
    /// Listens, and takes over the signals that a node answers. The error says what could not be done and why.
    pub fn new(config: NetConfig, now: Instant) -> io::Result<Net> {
        let poll = Poll::new()?;
        let mut listener = listener::listen(&config.listen)?;
        let local_addr = listener.local_addr()?;
        let mut signals = signals::install()?;
        poll.registry().register(&mut listener, LISTENER_TOKEN, Interest::READABLE)?;
        poll.registry().register(&mut signals, SIGNAL_TOKEN, Interest::READABLE)?;
        Ok(Net {
            poll,
            ready: mio::Events::with_capacity(EVENTS_PER_POLL),
            signals,
            local_addr,
            acceptor: Acceptor::new(listener, config.connections_max),
            dialer: Dialer::new(&config),
            intake: Intake::new(config.unserved_bytes_max, config.inbox_bytes_max),
            connections: Slab::new(),
            next_generation: 0,
            inbound: 0,
            readable: Vec::new(),
            reading: Vec::new(),
            dirty: Vec::new(),
            drained: Vec::new(),
            closed: Vec::new(),
            queued: Vec::new(),
            scratch: vec![0; READ_CHUNK].into_boxed_slice(),
            received_bytes: 0,
            sent_bytes: 0,
            clients_unsent: 0,
            clients_held: 0,
            peers_held: 0,
            kept_bytes: 0,
            woke: now,
            now,
            sweep_at: None,
            config,
        })
    }

    /// Where this node listens: the port that was chosen if the configured one was 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Bytes that arrived and were not consumed; `None` once the connection is closed and a wait has passed,
    /// or if the caller has closed it.
    pub fn inbox(&self, conn: ConnId) -> Option<&[u8]> {
        let connection = self.connections.get(conn.slot as usize)?;
        let known = connection.id == conn && connection.phase == Phase::Open;
        known.then(|| connection.inbox.bytes())
    }

    /// Takes `n` bytes off the front of the inbox.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn consume(&mut self, conn: ConnId, n: usize) {
        let Some(connection) = self.connections.get_mut(conn.slot as usize) else { return };
        if connection.id == conn && connection.phase == Phase::Open {
            connection.inbox.consume(n);
            connection.has_turn &= n == 0;
            self.count_unserved(conn);
            self.list_readable(conn);
        }
    }

    /// Where to append bytes for the other side, and nothing but append; [`Net::push`] sends them.
    pub fn outbox(&mut self, conn: ConnId) -> Option<&mut Vec<u8>> {
        self.open(conn)?;
        self.mark_dirty(conn);
        Some(self.open(conn)?.outbox.filling())
    }

    /// Bytes that wait to be sent.
    pub fn outbox_len(&self, conn: ConnId) -> usize {
        let connection = self.connections.get(conn.slot as usize);
        connection.filter(|known| known.id == conn).map_or(0, |known| known.outbox.len())
    }

    /// Bytes that its socket has taken, since the connection began.
    pub fn taken(&self, conn: ConnId) -> u64 {
        let connection = self.connections.get(conn.slot as usize);
        connection.filter(|known| known.id == conn).map_or(0, |known| known.taken)
    }

    /// Bytes that wait to be sent to all that are no peers, without what was appended since the last push.
    pub fn clients_unsent(&self) -> usize {
        self.clients_unsent
    }

    /// Each connection, and how many of them are its own.
    pub fn unsent_by_client(&self) -> impl Iterator<Item = (ConnId, usize)> {
        self.connections.iter().map(|(_, known)| (known.id, known.counted_unsent))
    }

    /// The memory of the buffers of all that are no peers, in bytes.
    pub fn clients_held(&self) -> usize {
        self.clients_held
    }

    /// ... and of all peers.
    pub fn peers_held(&self) -> usize {
        self.peers_held
    }

    /// ... of each connection.
    pub fn held_by_connection(&self) -> impl Iterator<Item = (ConnId, usize)> {
        self.connections.iter().map(|(_, known)| (known.id, known.counted_held))
    }

    /// Memory is short: long messages take turns, whatever their limit says.
    pub fn be_short_of_memory(&mut self, is_short: bool) {
        self.intake.is_short = is_short;
    }

    /// Connections that have taken bytes since the last call, of those whose reading is paused or that were asked
    /// for.
    pub fn take_drained(&mut self) -> Vec<ConnId> {
        let drained = std::mem::take(&mut self.drained);
        for conn in &drained {
            if let Some(connection) = self.get(*conn) {
                (connection.drained, connection.is_awaited) = (false, false);
            }
        }
        drained
    }

    /// [`Net::take_drained`] tells once when the connection has taken some of its bytes, also if it is read from.
    pub fn tell_when_drained(&mut self, conn: ConnId) {
        if let Some(connection) = self.open(conn) {
            connection.is_awaited = true;
        }
    }

    /// When the last wait was over: what follows is work.
    pub fn woke(&self) -> Instant {
        self.woke
    }

    /// Sends what the sockets take of everything that was appended since the last push. The rest follows
    /// during the next waits.
    pub fn push(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for conn in dirty.drain(..) {
            if let Some(connection) = self.get(conn) {
                connection.dirty = false;
                self.flush(conn);
            }
        }
        // Its allocation is worth keeping, and flushing makes nothing dirty.
        self.dirty = dirty;
    }

    /// Stops or resumes reading from a connection: the answer to a client that never reads its own.
    pub fn pause_reading(&mut self, conn: ConnId, paused: bool) {
        let Some(connection) = self.open(conn) else { return };
        connection.has_turn &= !paused;
        if std::mem::replace(&mut connection.paused, paused) && !paused {
            connection.announce = true;
            self.list_readable(conn);
        }
    }

    /// The connection has said something sensible: it may be silent from now on.
    pub fn mark_spoken(&mut self, conn: ConnId) {
        let Some(connection) = self.open(conn) else { return };
        connection.deadline = None;
        if let Some(peer) = connection.peer {
            self.dialer.spoken(peer);
        }
    }

    /// The connection has to say something sensible again within the silent timeout.
    pub fn await_words(&mut self, conn: ConnId) {
        let deadline = self.now + self.config.silent_timeout;
        let Some(connection) = self.open(conn) else { return };
        connection.deadline = Some(deadline);
        self.sweep_no_later_than(deadline);
    }

    /// Closes the connection now, also one that was to be closed later; what was not sent is lost.
    pub fn close(&mut self, conn: ConnId) {
        self.discard(conn);
    }

    /// Lets go of the connection: it is closed as soon as everything in its outbox has been sent, at the
    /// latest after the silent timeout. Takes effect with the next [`Net::push`].
    pub fn close_after_flush(&mut self, conn: ConnId) {
        let deadline = self.now + self.config.silent_timeout;
        let Some(connection) = self.open(conn) else { return };
        connection.phase = Phase::Flushing;
        connection.deadline = Some(deadline);
        connection.inbox.consume(connection.inbox.bytes().len());
        self.count_unserved(conn);
        self.sweep_no_later_than(deadline);
        self.mark_dirty(conn);
        self.list_readable(conn);
    }

    /// Whether the other side has said that it sends no more. It may still be waiting for answers.
    pub fn half_closed(&self, conn: ConnId) -> bool {
        let connection = self.connections.get(conn.slot as usize);
        connection.is_some_and(|known| known.id == conn && known.half_closed)
    }

    /// The address of the other side.
    pub fn remote_addr(&self, conn: ConnId) -> Option<SocketAddr> {
        let connection = self.connections.get(conn.slot as usize);
        connection.filter(|known| known.id == conn).map(|known| known.remote)
    }

    /// Keeps this peer connected from now on, for ever: [`NetEvent::Dialed`] when it has worked.
    ///
    /// # Panics
    /// Like all methods that take a peer, if the peer is not known.
    pub fn dial(&mut self, peer: u64, now: Instant) {
        self.now = self.now.max(now);
        self.dialer.dial(peer, now);
    }

    /// A peer that was not in the configuration, or is to be found elsewhere from now on.
    pub fn know_peer(&mut self, address: PeerAddress) {
        self.dialer.know(address);
    }

    /// A peer that came by itself, has gone, and is none that this node would dial.
    pub fn forget_peer(&mut self, peer: u64) {
        self.dialer.forget(peer);
    }

    /// Whether it is known where this peer is to be found.
    pub fn has_address(&self, peer: u64) -> bool {
        self.dialer.has_address(peer)
    }

    /// This peer need not be kept connected any more.
    pub fn leave_peer(&mut self, peer: u64) {
        self.dialer.leave(peer);
    }

    /// Only to learn whether somebody listens: a few attempts within some 40 ms, as an ending process closes
    /// its listening socket late. Success is not reported, failure is, as [`NetEvent::DialFailed`].
    pub fn probe(&mut self, peer: u64, now: Instant) {
        self.now = self.now.max(now);
        self.dialer.probe(peer, now);
    }

    /// An accepted connection turned out to be this peer's.
    pub fn attach_peer(&mut self, conn: ConnId, peer: u64) {
        let (user_timeout, limits) = (self.config.user_timeout, self.config.peer_limits());
        let Some(connection) = self.open(conn) else { return };
        let was_peer = connection.peer.is_some();
        connection.be_peer(peer, limits);
        let counted = std::mem::take(&mut connection.counted_unsent);
        let held = connection.counted_held;
        let options = connection.set_peer_options(user_timeout);
        let half_closed = connection.half_closed;
        self.clients_unsent -= counted;
        if !was_peer {
            self.clients_held -= held;
            self.peers_held += held;
        }
        self.count_unserved(conn);
        self.dialer.attached(peer, conn);
        match options {
            Err(error) => self.lose(conn, false, &format!("cannot be used: {error}")),
            Ok(()) if half_closed => self.lose(conn, true, CLOSED_BY_OTHER_SIDE),
            Ok(()) => {}
        }
    }

    /// The peer was seen at this address: tried as well when its name does not lead to it.
    pub fn remember_address(&mut self, peer: u64, address: IpAddr) {
        self.dialer.remember_address(peer, address.to_canonical());
    }

    /// Open connections, accepted and dialed.
    pub fn connections(&self) -> usize {
        let connected = |connection: &&Connection| {
            !connection.is_closed() && connection.phase != Phase::Connecting
        };
        self.connections.iter().map(|(_, connection)| connection).filter(connected).count()
    }

    /// The same with those that are being dialled or closed.
    pub fn connections_known(&self) -> usize {
        self.connections.len()
    }

    /// Open connections that this node accepted.
    pub fn accepted(&self) -> usize {
        self.inbound
    }

    /// Bytes read from all sockets.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Bytes that sockets have taken.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// How it stands with the connection to a peer, in words for a status line.
    pub fn peer_state(&self, peer: u64) -> String {
        self.dialer.describe(peer, self.now)
    }
}

/// The reason of an ordinary end.
const CLOSED_BY_OTHER_SIDE: &str = "closed by the other side";
