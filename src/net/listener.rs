//! The listening socket, and what to do when there is no room for one more connection.
//!
//! A connection that nobody accepts stays in the kernel's queue, and its edge does not come again. So every
//! connection is accepted, and one too many is closed at once. Out of descriptors even that fails; then a
//! descriptor that was kept in reserve is given up for the moment that it takes.
//!
//! Those who are connected come first. A loop that has little else to do accepts as fast as it can; one that is
//! busy spends a part of its time on new connections, and the rest of a storm waits in the kernel's queue, or
//! finds no room there and tries again. What every accepted socket needs is set on the listening one, from which
//! Linux copies it.

use super::connection::{CLIENT_KEEPALIVE, CLIENT_UNSENT_IN_KERNEL};
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
const ACCEPTS_PER_TURN: u32 = 256;
/// About what a connection costs from being accepted to being closed, if little is said on it.
const ACCEPT_COST: Duration = Duration::from_micros(20);
/// Of the time in which the loop is at work, new connections get one part in so many: 5000 in a second. Time
/// in which it has nothing to do is all theirs.
const BUSY_PARTS: u32 = 10;
const ALLOWANCE_MAX: Duration = ACCEPT_COST.saturating_mul(ACCEPTS_PER_TURN);
/// When the allowance is used up and nothing else is to be done, the next attempt.
const ALLOWANCE_PAUSE: Duration = Duration::from_millis(1);
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
    retry_at: Option<Instant>,
    /// Time that may be spent on new connections.
    allowance: Duration,
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
    // Inherited: small messages leave at once, a client that vanished is noticed some day, and what one does not
    // read waits here, where it is counted.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(CLIENT_UNSENT_IN_KERNEL)?;
    socket.set_tcp_keepalive(&CLIENT_KEEPALIVE.params())?;
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
            allowance: ALLOWANCE_MAX,
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

    /// Time has passed: so much in which the loop was at work, and so much in which it had nothing to do.
    pub(super) fn earn(&mut self, busy: Duration, idle: Duration) {
        self.allowance = (self.allowance + busy / BUSY_PARTS + idle).min(ALLOWANCE_MAX);
    }

    /// Whether there may be something to accept at once.
    pub(super) fn has_work(&self) -> bool {
        self.ready && self.allowance >= ACCEPT_COST
    }

    /// When to look again, if nothing else happens.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.ready { Some(now + ALLOWANCE_PAUSE) } else { self.retry_at }
    }

    /// The next connection. `open`: how many there are already. `None`: no more for now.
    pub(super) fn accept(&mut self, open: usize, now: Instant) -> Option<(TcpStream, SocketAddr)> {
        while self.has_work() {
            self.allowance -= ACCEPT_COST;
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

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;

    /// How many of those in the queue are accepted.
    fn accepted(acceptor: &mut Acceptor) -> Vec<TcpStream> {
        let now = Instant::now();
        std::iter::from_fn(|| acceptor.accept(0, now)).map(|(stream, _)| stream).collect()
    }

    fn acceptor_and_clients(count: u32) -> (Acceptor, Vec<std::net::TcpStream>) {
        let listener = listen("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let clients = (0..count).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        (Acceptor::new(listener, 10_000), clients)
    }

    #[test]
    fn accepted_sockets_have_what_was_set_on_the_listening_one() {
        let (mut acceptor, _clients) = acceptor_and_clients(1);
        let streams = accepted(&mut acceptor);
        let socket = SockRef::from(&streams[0]);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), CLIENT_UNSENT_IN_KERNEL);
        let seconds = Duration::from_secs;
        assert_eq!(socket.tcp_keepalive_time().unwrap(), seconds(CLIENT_KEEPALIVE.idle_s));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), seconds(CLIENT_KEEPALIVE.interval_s));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), CLIENT_KEEPALIVE.probes);
    }

    #[test]
    fn a_busy_loop_accepts_a_part_of_a_storm_and_an_idle_one_all_of_it() {
        let (mut acceptor, _clients) = acceptor_and_clients(ACCEPTS_PER_TURN + 100);
        let now = Instant::now();
        assert_eq!(accepted(&mut acceptor).len(), ACCEPTS_PER_TURN as usize, "one turn's");
        assert!(!acceptor.has_work(), "it would keep the loop from waiting");
        assert_eq!(acceptor.deadline(now), Some(now + ALLOWANCE_PAUSE), "the others are not lost");
        acceptor.earn(ACCEPT_COST * 10 * BUSY_PARTS, Duration::ZERO);
        assert_eq!(accepted(&mut acceptor).len(), 10, "a tenth of the time of a busy loop");
        acceptor.earn(Duration::ZERO, ACCEPT_COST * 20);
        assert_eq!(accepted(&mut acceptor).len(), 20, "all the time of an idle one");
        acceptor.earn(Duration::ZERO, Duration::from_secs(1));
        assert_eq!(accepted(&mut acceptor).len(), 70, "the rest");
        assert_eq!(acceptor.deadline(now), None);
    }
}
