//! The listening socket, and what to do when there is no room for one more connection.
//!
//! A connection that nobody accepts stays in the kernel's queue, and its edge does not come again. So every
//! connection is accepted, and one too many is closed at once. Out of descriptors even that fails; then a
//! descriptor that was kept in reserve is given up for the moment that it takes.

use log::{info, warn};
use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;
/// Connections accepted in one turn; the rest waits for the next one.
pub(super) const ACCEPTS_PER_TURN: usize = 1024;
/// When accepting fails for lack of something, the next attempt.
const RETRY: Duration = Duration::from_millis(100);

/// The same numbers on every Linux.
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

#[derive(Debug)]
pub(super) struct Acceptor {
    pub(super) listener: TcpListener,
    connections_max: usize,
    /// An open file that stands for one more descriptor.
    reserve: Option<File>,
    /// There may be connections to accept.
    pub(super) ready: bool,
    pub(super) retry_at: Option<Instant>,
    /// What the log has already been told of.
    told_full: bool,
    told_starved: bool,
}

/// Listens on `address`, an address and a port, never a name.
pub(super) fn listen(address: &str) -> io::Result<TcpListener> {
    let parsed: SocketAddr = address.parse().map_err(|_| {
        let text = format!(
            "cannot listen on {address:?}: give an address and a port, such as 0.0.0.0:6000 or [::]:6000"
        );
        io::Error::new(ErrorKind::InvalidInput, text)
    })?;
    bind(parsed).map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::AddrInUse => {
                "; is another node running there? Stop it or choose another port"
            }
            ErrorKind::AddrNotAvailable => "; this machine does not have that address",
            ErrorKind::PermissionDenied => "; ports below 1024 need special rights",
            _ => "",
        };
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}{advice}"))
    })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted node must not wait for the old connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

impl Acceptor {
    pub(super) fn new(listener: TcpListener, connections_max: usize) -> Acceptor {
        Acceptor {
            listener,
            connections_max,
            reserve: open_reserve(),
            ready: true,
            retry_at: None,
            told_full: false,
            told_starved: false,
        }
    }

    /// Ends the pause after a failure, when its time has come.
    pub(super) fn on_time(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.ready = true;
        }
    }

    /// The next connection. `open`: how many there are already. `None`: no more for now.
    pub(super) fn accept(&mut self, open: usize, now: Instant) -> Option<(TcpStream, SocketAddr)> {
        let mut turned_away = 0;
        while self.ready && turned_away < ACCEPTS_PER_TURN {
            match self.listener.accept() {
                Ok((stream, remote)) => {
                    self.told_starved = false;
                    if open < self.connections_max {
                        // Not at the first free slot, or a storm at the limit would fill the log.
                        self.told_full &= open > self.connections_max - self.connections_max / 10;
                        return Some((stream, canonical(remote)));
                    }
                    self.tell_full();
                }
                Err(error) => self.on_error(&error, now),
            }
            turned_away += 1;
        }
        None
    }

    fn on_error(&mut self, error: &io::Error, now: Instant) {
        match error.raw_os_error() {
            _ if error.kind() == ErrorKind::WouldBlock => self.ready = false,
            Some(EMFILE | ENFILE) => {
                self.tell_starved(error);
                if !self.refuse_one() {
                    self.pause(now);
                }
            }
            _ if is_about_one_connection(error) => {}
            _ => {
                self.tell_starved(error);
                self.pause(now);
            }
        }
    }

    fn pause(&mut self, now: Instant) {
        self.ready = false;
        self.retry_at = Some(now + RETRY);
    }

    /// Closes the next connection in the queue by means of the reserve. False if that was not possible.
    fn refuse_one(&mut self) -> bool {
        if self.reserve.take().is_none() {
            self.reserve = open_reserve();
            return self.reserve.is_some();
        }
        let accepted = self.listener.accept();
        let done = match &accepted {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        drop(accepted);
        self.reserve = open_reserve();
        done && self.reserve.is_some()
    }

    fn tell_full(&mut self) {
        if !self.told_full {
            self.told_full = true;
            let max = self.connections_max;
            info!("{max} connections are open, the limit: new ones are closed until some end");
        }
    }

    fn tell_starved(&mut self, error: &io::Error) {
        if !self.told_starved {
            self.told_starved = true;
            warn!(
                "cannot accept new connections: {error}; a limit of open files can be raised (ulimit -n)"
            );
        }
    }
}

/// accept(2) also reports what happened to a connection before it was accepted.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Interrupted
            | ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::TimedOut
            | ErrorKind::NetworkDown
            | ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::PermissionDenied
    )
}

/// An IPv4 address stays one, also when it comes through an IPv6 socket.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn open_reserve() -> Option<File> {
    File::open("/dev/null").ok()
}
