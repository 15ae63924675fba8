//! One connection to one server: names resolved, hello exchanged, one request outstanding at a time.
//!
//! Every wait is in slices, so that a caller who wants to stop is heard; and every wait ends, as a machine
//! that is paused or gone never closes anything.

use super::address::parse_address;
use crate::codec::Malformed;
use crate::net::{ResolverConfig, resolve_blocking};
use crate::protocol::Limits;
use crate::protocol::client::{ReplyBody, ReplyFrame, RequestBody, RequestFrame};
use crate::protocol::frame::{FrameStep, MAGIC, SKIP_BYTES_MAX, next_frame, put_frame};
use crate::protocol::hello::{HELLO_BYTES_MAX, VERSION_MAX, VERSION_MIN};
use crate::protocol::hello::{Hello, HelloReply, Role, Welcome};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How often a wait looks whether the caller wants to stop.
const SLICE: Duration = Duration::from_millis(50);
/// For the look-up of a name, per connection attempt: room for a lost packet or two.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(1);
const READ_BYTES: usize = 64 * 1024;

/// An attempt that brought no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub reason: String,
    /// All of the request was handed to the network: the server may carry it out.
    pub sent: bool,
    /// Nothing happened, rather than something wrong.
    pub timed_out: bool,
}

impl Lost {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Lost { reason: reason.into(), sent: false, timed_out: false }
    }

    pub(super) fn timed_out(reason: impl Into<String>) -> Self {
        Lost { timed_out: true, ..Lost::new(reason) }
    }
}

/// What bounds an attempt.
pub(super) struct Patience<'a> {
    /// The end of everything, if there is one.
    pub total: Option<Instant>,
    /// Whether the caller wants to stop.
    pub stop: &'a mut dyn FnMut() -> bool,
}

impl Patience<'_> {
    /// Now and `limit`, or the end of everything if that is earlier.
    fn until(&self, limit: Duration) -> Instant {
        let end = Instant::now() + limit;
        self.total.map_or(end, |total| total.min(end))
    }
}

/// How to open connections.
pub(super) struct Dial<'a> {
    pub resolver: &'a ResolverConfig,
    /// Of the TCP handshake with each address, and of the hello.
    pub connect_timeout: Duration,
    /// The client's name, for the server's log.
    pub name: &'a str,
    /// 0: any cluster.
    pub cluster_id: u64,
}

pub(super) struct Connection {
    link: Link,
    pub welcome: Welcome,
    limits: Limits,
    last_id: u64,
    /// No reply to the last request has come yet.
    is_asked: bool,
}

impl Connection {
    pub fn open(server: &str, dial: &Dial<'_>, patience: &mut Patience<'_>) -> Result<Self, Lost> {
        let (host, port) = parse_address(server, None).map_err(Lost::new)?;
        let resolve_until = patience.until(RESOLVE_TIMEOUT);
        let addresses =
            resolve_blocking(&host, port, dial.resolver, resolve_until).map_err(|reason| Lost {
                timed_out: Instant::now() >= resolve_until,
                ..Lost::new(reason)
            })?;
        let mut link = Link::connect(&addresses, dial.connect_timeout, patience)?;
        let welcome = link.hello(dial, patience)?;
        let limits = Limits {
            key_bytes_max: welcome.key_bytes_max,
            value_bytes_max: welcome.value_bytes_max,
        };
        Ok(Connection { link, welcome, limits, last_id: 0, is_asked: false })
    }

    /// Whether the connection can be used: a server that went away while it was idle has closed it, or
    /// it would have to send something nobody asked for.
    pub fn is_usable(&self) -> bool {
        self.link.is_silent()
    }

    /// Sends `body` and waits for its answer, until no byte has moved for `timeout`. After an error the
    /// connection must not be used again: a late answer would be taken for that of another request.
    pub fn ask(
        &mut self,
        body: &RequestBody,
        timeout: Duration,
        patience: &mut Patience<'_>,
    ) -> Result<ReplyBody, Lost> {
        let id = self.send(body, timeout, patience)?;
        let sent = |lost| Lost { sent: true, ..lost };
        let reply = self.receive(timeout, patience).map_err(sent)?;
        if reply.id != id {
            let reason = format!("answered request {} instead of {id}", reply.id);
            return Err(sent(Lost::new(reason)));
        }
        Ok(reply.body)
    }

    /// Sends `body`, and returns the id that its replies will have.
    pub fn send(
        &mut self,
        body: &RequestBody,
        timeout: Duration,
        patience: &mut Patience<'_>,
    ) -> Result<u64, Lost> {
        self.last_id += 1;
        let id = self.last_id;
        let mut bytes = Vec::new();
        put_frame(&mut bytes, |out| RequestFrame { id, body: body.clone() }.encode(out));
        self.link.send(&bytes, timeout, patience)?;
        self.is_asked = true;
        Ok(id)
    }

    /// The next reply, whichever it is. After a timeout the connection may go on.
    pub fn receive(
        &mut self,
        timeout: Duration,
        patience: &mut Patience<'_>,
    ) -> Result<ReplyFrame, Lost> {
        // A value may be longer than what the server takes today.
        let reply = self.link.receive(SKIP_BYTES_MAX, ReplyFrame::decode, timeout, patience)?;
        self.is_asked &= reply.id != self.last_id;
        Ok(reply)
    }

    /// Whether no reply to the last request has come yet.
    pub fn is_asked(&self) -> bool {
        self.is_asked
    }

    /// The limits of keys and values that the server named.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// A socket and what has arrived on it.
struct Link {
    stream: TcpStream,
    inbox: Vec<u8>,
}

impl Link {
    fn connect(
        addresses: &[SocketAddr],
        timeout: Duration,
        patience: &Patience<'_>,
    ) -> Result<Self, Lost> {
        let mut last = Lost::new("the name has no address");
        for address in addresses {
            let left = patience.until(timeout).saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match TcpStream::connect_timeout(address, left) {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(|error| Lost::new(io_text(&error)))?;
                    return Ok(Link { stream, inbox: Vec::new() });
                }
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    last = Lost::timed_out(format!("{address} does not accept within {left:.0?}"));
                }
                Err(error) => last = Lost::new(io_text(&error)),
            }
        }
        Err(last)
    }

    fn hello(&mut self, dial: &Dial<'_>, patience: &mut Patience<'_>) -> Result<Welcome, Lost> {
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            cluster_id: dial.cluster_id,
            role: Role::Client { name: dial.name.to_owned() },
        };
        let mut bytes = MAGIC.to_vec();
        put_frame(&mut bytes, |out| hello.encode(out));
        self.send(&bytes, dial.connect_timeout, patience)?;
        while self.inbox.len() < MAGIC.len() {
            self.fill(dial.connect_timeout, patience)?;
        }
        if self.inbox[..MAGIC.len()] != MAGIC {
            return Err(Lost::new(
                "this is no raftkv server: its first bytes are of something else",
            ));
        }
        self.inbox.drain(..MAGIC.len());
        let timeout = dial.connect_timeout;
        match self.receive(HELLO_BYTES_MAX, HelloReply::decode, timeout, patience)? {
            HelloReply::Welcome(welcome) => accept(welcome),
            HelloReply::Refused(refused) => Err(Lost::new(format!("refused: {refused}"))),
        }
    }

    fn send(
        &mut self,
        mut bytes: &[u8],
        timeout: Duration,
        patience: &mut Patience<'_>,
    ) -> Result<(), Lost> {
        let mut until = patience.until(timeout);
        while !bytes.is_empty() {
            let slice = slice(until, timeout)?;
            self.stream
                .set_write_timeout(Some(slice))
                .map_err(|error| Lost::new(io_text(&error)))?;
            match self.stream.write(bytes) {
                Ok(0) => return Err(Lost::new("the connection was closed")),
                Ok(count) => {
                    bytes = &bytes[count..];
                    until = patience.until(timeout);
                }
                Err(error) => wait_on(&error, patience)?,
            }
        }
        Ok(())
    }

    /// The next frame, decoded.
    fn receive<T>(
        &mut self,
        limit: usize,
        decode: impl Fn(&[u8]) -> Result<T, Malformed>,
        timeout: Duration,
        patience: &mut Patience<'_>,
    ) -> Result<T, Lost> {
        loop {
            match next_frame(&self.inbox, limit).map_err(|error| Lost::new(error.to_string()))? {
                FrameStep::NeedMore { .. } => {}
                FrameStep::Frame { payload, consumed } => {
                    let message = decode(payload).map_err(|error| Lost::new(error.to_string()))?;
                    self.inbox.drain(..consumed);
                    return Ok(message);
                }
                FrameStep::Oversized { payload_bytes, .. } => {
                    return Err(Lost::new(format!(
                        "answered with {payload_bytes} bytes, the limit is {limit}"
                    )));
                }
            }
            self.fill(timeout, patience)?;
        }
    }

    /// Waits for some bytes.
    fn fill(&mut self, timeout: Duration, patience: &mut Patience<'_>) -> Result<(), Lost> {
        let until = patience.until(timeout);
        let mut chunk = [0; READ_BYTES];
        loop {
            let slice = slice(until, timeout)?;
            self.stream
                .set_read_timeout(Some(slice))
                .map_err(|error| Lost::new(io_text(&error)))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Lost::new("the connection was closed before the answer")),
                Ok(count) => {
                    self.inbox.extend_from_slice(&chunk[..count]);
                    return Ok(());
                }
                Err(error) => wait_on(&error, patience)?,
            }
        }
    }

    /// Whether the other side has neither closed nor sent anything.
    fn is_silent(&self) -> bool {
        let peek = |stream: &TcpStream| -> io::Result<usize> {
            stream.set_nonblocking(true)?;
            let result = stream.peek(&mut [0]);
            stream.set_nonblocking(false)?;
            result
        };
        let quiet = peek(&self.stream).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        quiet && self.inbox.is_empty()
    }
}

fn accept(welcome: Welcome) -> Result<Welcome, Lost> {
    if (VERSION_MIN..=VERSION_MAX).contains(&welcome.version) {
        return Ok(welcome);
    }
    Err(Lost::new(format!(
        "chose protocol version {}, this client speaks {VERSION_MIN} to {VERSION_MAX}",
        welcome.version
    )))
}

/// How long the next system call may wait.
fn slice(until: Instant, timeout: Duration) -> Result<Duration, Lost> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Lost::timed_out(format!("no answer within {timeout:?}")));
    }
    Ok(left.min(SLICE))
}

/// After a failed system call: `Ok` if it is to be repeated.
fn wait_on(error: &io::Error, patience: &mut Patience<'_>) -> Result<(), Lost> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {
            if (patience.stop)() { Err(Lost::new("interrupted")) } else { Ok(()) }
        }
        _ => Err(Lost::new(io_text(error))),
    }
}

/// The error without the number that the operating system gives it.
fn io_text(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            "the connection was closed by the server".to_owned()
        }
        ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        _ => error.to_string(),
    }
}
