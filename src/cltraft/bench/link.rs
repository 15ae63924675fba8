//! One connection of `bench`: it does not block, and has many requests under way.

use crate::protocol::client::{ReplyBody, ReplyFrame, RequestBody, RequestFrame};
use crate::protocol::frame::{FrameStep, MAGIC, SKIP_BYTES_MAX, next_frame, put_frame};
use crate::protocol::hello::{HELLO_BYTES_MAX, Hello, HelloReply, Role, VERSION_MAX, VERSION_MIN};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

const READ_BYTES: usize = 64 * 1024;
/// Of an answer: one value of the longest that any server allows.
const FRAME_BYTES_MAX: usize = SKIP_BYTES_MAX;

/// A request that has no answer yet.
#[derive(Debug, Clone, Copy)]
pub struct Pending {
    /// When it should have been sent.
    pub due: Instant,
    pub sent: Instant,
    pub is_read: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Connecting,
    /// Until the other side's magic is there.
    Magic,
    Hello,
    Open,
}

pub struct Link {
    token: Token,
    stream: Option<TcpStream>,
    phase: Phase,
    inbox: Vec<u8>,
    /// Bytes of `inbox` that are used up.
    read: usize,
    outbox: Vec<u8>,
    /// By id; ids rise, so the first is the oldest.
    pending: BTreeMap<u64, Pending>,
    last_id: u64,
    /// When a closed one may be opened again.
    pub retry_at: Instant,
}

/// What ends a connection.
pub struct Broken(pub String);

impl Link {
    pub fn new(token: Token, now: Instant) -> Self {
        Link {
            token,
            stream: None,
            phase: Phase::Closed,
            inbox: Vec::new(),
            read: 0,
            outbox: Vec::new(),
            pending: BTreeMap::new(),
            last_id: 0,
            retry_at: now,
        }
    }

    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Whether requests can be sent.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub fn under_way(&self) -> usize {
        self.pending.len()
    }

    /// When the oldest request without an answer was sent.
    pub fn oldest(&self) -> Option<Instant> {
        self.pending.first_key_value().map(|(_, pending)| pending.sent)
    }

    pub fn connect(&mut self, to: SocketAddr, registry: &Registry) -> Result<(), Broken> {
        let broken = |error: std::io::Error| Broken(error.to_string());
        let mut stream = TcpStream::connect(to).map_err(broken)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut stream, self.token, interest).map_err(broken)?;
        self.stream = Some(stream);
        self.phase = Phase::Connecting;
        Ok(())
    }

    /// Forgets the connection; what was under way is returned.
    pub fn close(&mut self, retry_at: Instant) -> Vec<Pending> {
        self.stream = None;
        self.phase = Phase::Closed;
        self.inbox.clear();
        self.read = 0;
        self.outbox.clear();
        self.retry_at = retry_at;
        std::mem::take(&mut self.pending).into_values().collect()
    }

    /// The request leaves with the next flush.
    pub fn send(&mut self, body: RequestBody, pending: Pending) {
        self.last_id += 1;
        let id = self.last_id;
        put_frame(&mut self.outbox, |out| RequestFrame { id, body }.encode(out));
        self.pending.insert(id, pending);
    }

    /// The socket has become writable: perhaps it is connected.
    pub fn writable(&mut self) -> Result<(), Broken> {
        if self.phase == Phase::Connecting {
            let Some(stream) = &self.stream else { return Ok(()) };
            if let Ok(Some(error)) | Err(error) = stream.take_error() {
                return Err(Broken(error.to_string()));
            }
            match stream.peer_addr() {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(()),
                Err(error) => return Err(Broken(error.to_string())),
            }
            stream.set_nodelay(true).map_err(|error| Broken(error.to_string()))?;
            self.phase = Phase::Magic;
            let hello = Hello {
                version_min: VERSION_MIN,
                version_max: VERSION_MAX,
                cluster_id: 0,
                role: Role::Client { name: "cltraft bench".to_owned() },
            };
            self.outbox.extend_from_slice(&MAGIC);
            put_frame(&mut self.outbox, |out| hello.encode(out));
        }
        self.flush()
    }

    /// Sends what the socket takes.
    pub fn flush(&mut self) -> Result<(), Broken> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        if self.phase == Phase::Connecting {
            return Ok(());
        }
        let mut sent = 0;
        while sent < self.outbox.len() {
            match stream.write(&self.outbox[sent..]) {
                Ok(0) => return Err(Broken("the connection was closed".to_owned())),
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Broken(error.to_string())),
            }
        }
        self.outbox.drain(..sent);
        Ok(())
    }

    /// Reads all there is; every answer goes to `answered` with what it answers.
    pub fn readable(&mut self, answered: &mut dyn FnMut(Pending, ReplyBody)) -> Result<(), Broken> {
        let mut chunk = [0; READ_BYTES];
        loop {
            let Some(stream) = &mut self.stream else { return Ok(()) };
            match stream.read(&mut chunk) {
                Ok(0) => return Err(Broken("the connection was closed by the server".to_owned())),
                Ok(count) => self.inbox.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Broken(error.to_string())),
            }
            self.take_frames(answered)?;
        }
    }

    fn take_frames(&mut self, answered: &mut dyn FnMut(Pending, ReplyBody)) -> Result<(), Broken> {
        let broken = |what: &dyn std::fmt::Display| Broken(what.to_string());
        loop {
            let inbox = &self.inbox[self.read..];
            if self.phase == Phase::Magic {
                let Some(magic) = inbox.get(..MAGIC.len()) else { break };
                if magic != MAGIC {
                    return Err(Broken("this is no raftkv server".to_owned()));
                }
                self.read += MAGIC.len();
                self.phase = Phase::Hello;
                continue;
            }
            let limit = if self.phase == Phase::Hello { HELLO_BYTES_MAX } else { FRAME_BYTES_MAX };
            match next_frame(inbox, limit).map_err(|error| broken(&error))? {
                FrameStep::NeedMore { .. } => break,
                FrameStep::Oversized { payload_bytes, .. } => {
                    return Err(Broken(format!("an answer of {payload_bytes} bytes")));
                }
                FrameStep::Frame { payload, consumed } if self.phase == Phase::Hello => {
                    match HelloReply::decode(payload).map_err(|error| broken(&error))? {
                        HelloReply::Welcome(_) => self.phase = Phase::Open,
                        HelloReply::Refused(refused) => return Err(broken(&refused)),
                    }
                    self.read += consumed;
                }
                FrameStep::Frame { payload, consumed } => {
                    let reply = ReplyFrame::decode(payload).map_err(|error| broken(&error))?;
                    let pending = self.pending.remove(&reply.id);
                    let Some(pending) = pending else {
                        return Err(Broken(format!("answered {}, not asked", reply.id)));
                    };
                    self.read += consumed;
                    answered(pending, reply.body);
                }
            }
        }
        // Moved once for all that came together.
        self.inbox.drain(..self.read);
        self.read = 0;
        Ok(())
    }
}
