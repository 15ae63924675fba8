//! One TCP connection: its socket, its two buffers and what is known about it.
//!
//! mio tells of *changes*: a socket that was once reported readable is not reported again until more
//! arrives. So `may_read` remembers the report until a read says that nothing is left.

use super::ConnId;
use super::buffer::{Flushed, Inbox, Outbox};
use mio::net::TcpStream;
use mio::{Interest, Registry};
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

/// A peer that vanished without a word is noticed by its unanswered probes within 4 s.
const PEER_KEEPALIVE: KeepAlive = KeepAlive { idle_s: 1, interval_s: 1, probes: 3 };
/// A client that vanished only costs a slot, and probes cost a sleeping laptop its connection.
pub(super) const CLIENT_KEEPALIVE: KeepAlive = KeepAlive { idle_s: 60, interval_s: 10, probes: 3 };

/// Bytes for a client that the kernel takes and cannot send yet. Its own limit grows to megabytes for each of those
/// who do not read, and copying them costs the others.
pub(super) const CLIENT_UNSENT_IN_KERNEL: u32 = 128 * 1024;
/// What the system is set to.
const UNSENT_IN_KERNEL: u32 = 0;

pub(super) struct KeepAlive {
    pub(super) idle_s: u64,
    pub(super) interval_s: u64,
    pub(super) probes: u32,
}

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Our dial is under way.
    Connecting,
    Open,
    /// No longer the server's; what is left of its answers is on the way out.
    Flushing,
    /// Everything is sent and our side is shut. Closing now, with bytes of the other side unread, would
    /// send a reset, and that can destroy answers on their way; so its bytes are read and dropped.
    Lingering,
}

/// How reading ended.
#[derive(Debug)]
pub(super) enum End {
    /// The other side sends no more.
    HalfClosed,
    Failed(io::Error),
}

/// What one turn of reading brought.
#[derive(Debug)]
pub(super) struct ReadResult {
    pub(super) bytes: usize,
    pub(super) end: Option<End>,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnId,
    /// Gone as soon as the connection is closed; the slot lives on to the end of the turn, so that no late
    /// event of the turn can meet a new connection in it.
    stream: Option<TcpStream>,
    pub(super) phase: Phase,
    pub(super) remote: SocketAddr,
    /// Accepted, not dialed.
    pub(super) inbound: bool,
    pub(super) peer: Option<u64>,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    pub(super) outbox_max: usize,
    /// Bytes that the socket has taken.
    pub(super) taken: u64,
    /// What it had unsent when that was looked at last, if it is a client.
    pub(super) counted_unsent: usize,
    /// What its inbox had when that was looked at last, if it is a client.
    pub(super) counted_unserved: usize,
    /// The memory of its buffers when that was looked at last, and how much of it was kept for nothing.
    pub(super) counted_held: usize,
    pub(super) counted_kept: usize,
    /// It has more to say than it may at the moment, and waits for its turn.
    pub(super) withheld: bool,
    /// It may say more than others may at the moment.
    pub(super) has_turn: bool,
    /// The socket may hold bytes, or the news of its end.
    pub(super) may_read: bool,
    /// The poll has told of the end: only a read that finds it says the last.
    pub(super) may_end: bool,
    pub(super) paused: bool,
    pub(super) half_closed: bool,
    /// The server must hear of this connection even if no byte arrives: it stopped in the middle.
    pub(super) announce: bool,
    /// In the list of connections to read from.
    pub(super) listed: bool,
    /// In the list of connections with bytes to send.
    pub(super) dirty: bool,
    /// In the list of those that are not read from and have taken bytes.
    pub(super) drained: bool,
    /// The server wants to hear when it has taken bytes.
    pub(super) is_awaited: bool,
    /// When patience with its present phase ends.
    pub(super) deadline: Option<Instant>,
    registered: Option<Interest>,
}

/// The limits of a new connection's buffers, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) inbox_max: usize,
    pub(super) outbox_max: usize,
}

impl Connection {
    pub(super) fn new(
        id: ConnId,
        stream: TcpStream,
        remote: SocketAddr,
        phase: Phase,
        limits: Limits,
    ) -> Connection {
        Connection {
            id,
            stream: Some(stream),
            phase,
            remote,
            inbound: phase == Phase::Open,
            peer: None,
            inbox: Inbox::new(limits.inbox_max),
            outbox: Outbox::default(),
            outbox_max: limits.outbox_max,
            taken: 0,
            counted_unsent: 0,
            counted_unserved: 0,
            counted_held: 0,
            counted_kept: 0,
            withheld: false,
            has_turn: false,
            may_read: false,
            may_end: false,
            paused: false,
            half_closed: false,
            announce: false,
            listed: false,
            dirty: false,
            drained: false,
            is_awaited: false,
            deadline: None,
            registered: None,
        }
    }

    /// It turned out to be this peer's.
    pub(super) fn be_peer(&mut self, peer: u64, limits: Limits) {
        self.peer = Some(peer);
        self.outbox_max = limits.outbox_max;
        self.inbox.keep_for_peer(limits.inbox_max);
        self.outbox.keep_for_peer();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.stream.is_none()
    }

    /// Whether the server still has a say in this connection.
    pub(super) fn is_open(&self) -> bool {
        !self.is_closed() && self.phase == Phase::Open
    }

    /// Closes the socket. The inbox stays, so that what arrived before can still be read in this turn.
    pub(super) fn close(&mut self) {
        self.stream = None;
        self.outbox = Outbox::default();
    }

    pub(super) fn wants_reading(&self) -> bool {
        let wanted = match self.phase {
            Phase::Connecting => false,
            Phase::Open => !self.paused && !self.withheld && self.inbox.room() > 0,
            Phase::Flushing | Phase::Lingering => true,
        };
        wanted && self.may_read && !self.half_closed && !self.is_closed()
    }

    /// Reads until the socket is empty, the inbox is full or `budget` bytes have been read. Once the server
    /// has let go of the connection, bytes are dropped.
    pub(super) fn read(&mut self, scratch: &mut [u8], budget: usize) -> ReadResult {
        let mut bytes = 0;
        while bytes < budget && self.wants_reading() {
            let keep = self.phase == Phase::Open;
            let most = if keep { self.inbox.room() } else { scratch.len() };
            let most = most.min(scratch.len()).min(budget - bytes);
            let Some(stream) = &mut self.stream else { break };
            // A peer's messages are large: what such a message goes on with is read to where it belongs.
            let in_place = keep && self.peer.is_some() && !self.inbox.bytes().is_empty();
            let place = if in_place { self.inbox.spare(most) } else { &mut scratch[..most] };
            match stream.read(place) {
                Ok(0) => {
                    self.half_closed = true;
                    self.may_read = false;
                    return ReadResult { bytes, end: Some(End::HalfClosed) };
                }
                Ok(n) => {
                    match keep {
                        true if in_place => self.inbox.arrived(n),
                        true => self.inbox.append(&scratch[..n]),
                        false => {}
                    }
                    bytes += n;
                    // The socket is empty, and what comes later is reported again (epoll(7), question 9).
                    // Asking once more would be a system call for every request.
                    if n < most && !self.may_end {
                        self.may_read = false;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.may_read = false,
                Err(error) => return ReadResult { bytes, end: Some(End::Failed(error)) },
            }
        }
        ReadResult { bytes, end: None }
    }

    /// Sends what the socket takes.
    pub(super) fn flush(&mut self) -> io::Result<Flushed> {
        match &mut self.stream {
            Some(stream) => self.outbox.flush(stream),
            None => Ok(Flushed::Everything),
        }
    }

    /// Of a client: bytes that wait to be sent.
    pub(super) fn client_unsent(&self) -> usize {
        if self.peer.is_none() { self.outbox.len() } else { 0 }
    }

    /// Of a client: bytes that were read and not consumed.
    pub(super) fn client_unserved(&self) -> usize {
        let is_client = self.peer.is_none() && !self.is_closed();
        if is_client { self.inbox.bytes().len() } else { 0 }
    }

    /// Memory of its buffers, and how much of it is kept for nothing. A peer's room is used again at once.
    pub(super) fn held(&self) -> (usize, usize) {
        let held = self.inbox.held() + self.outbox.held();
        let is_idle =
            self.peer.is_none() && self.inbox.bytes().is_empty() && self.outbox.is_empty();
        (held, if is_idle { held } else { 0 })
    }

    /// What the kernel should tell of: a function of the state and nothing else.
    fn interest(&self) -> Interest {
        match self.phase {
            Phase::Connecting => Interest::WRITABLE,
            _ if self.outbox.is_empty() => Interest::READABLE,
            _ => Interest::READABLE | Interest::WRITABLE,
        }
    }

    /// Tells the kernel, if the answer has changed.
    pub(super) fn update_interest(&mut self, registry: &Registry) -> io::Result<()> {
        let wanted = self.interest();
        let Some(stream) = &mut self.stream else { return Ok(()) };
        match self.registered {
            Some(interest) if interest == wanted => return Ok(()),
            Some(_) => registry.reregister(stream, self.id.token(), wanted)?,
            None => registry.register(stream, self.id.token(), wanted)?,
        }
        self.registered = Some(wanted);
        Ok(())
    }

    /// The error that the kernel keeps for this socket, if any.
    pub(super) fn pending_error(&self) -> Option<io::Error> {
        let stream = self.stream.as_ref()?;
        stream.take_error().unwrap_or_else(Some)
    }

    /// Whether the dial has come to its end: `None` while it goes on.
    pub(super) fn connected(&self) -> Option<io::Result<()>> {
        let stream = self.stream.as_ref()?;
        if let Some(error) = self.pending_error() {
            return Some(Err(error));
        }
        match (stream.peer_addr(), stream.local_addr()) {
            // Dialing a port of this machine that nobody listens on can, by chance, pick the same port as
            // its source and connect to itself.
            (Ok(peer), Ok(local)) if peer == local => {
                Some(Err(ErrorKind::ConnectionRefused.into()))
            }
            (Ok(_), _) => Some(Ok(())),
            (Err(error), _) if error.kind() == ErrorKind::NotConnected => None,
            (Err(error), _) => Some(Err(error)),
        }
    }

    /// Tells the other side that no more will come.
    pub(super) fn shut_our_side(&self) -> io::Result<()> {
        match &self.stream {
            Some(stream) => stream.shutdown(Shutdown::Write),
            None => Ok(()),
        }
    }

    /// Small messages leave at once; a peer that vanished is noticed soon, an idle one by probes, one that owes
    /// acknowledgements by `user_timeout`.
    pub(super) fn set_peer_options(&self, user_timeout: Duration) -> io::Result<()> {
        let Some(stream) = &self.stream else { return Ok(()) };
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        socket.set_tcp_notsent_lowat(UNSENT_IN_KERNEL)?;
        socket.set_tcp_keepalive(&PEER_KEEPALIVE.params())?;
        socket.set_tcp_user_timeout(Some(user_timeout))
    }
}

impl KeepAlive {
    pub(super) fn params(&self) -> TcpKeepalive {
        TcpKeepalive::new()
            .with_time(Duration::from_secs(self.idle_s))
            .with_interval(Duration::from_secs(self.interval_s))
            .with_retries(self.probes)
    }
}
