//! A [`Net`] under test, driven by the test's own thread. Nothing here waits for a fixed time: each helper
//! turns the loop until what it waits for has happened, and fails after [`PATIENCE`].
#![allow(dead_code, reason = "each test binary uses its own part")]

use raftkv::net::{ConnId, Net, NetConfig, NetEvent, PeerAddress, ResolverConfig};
use std::collections::VecDeque;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

pub const PATIENCE: Duration = Duration::from_secs(20);

/// Small limits and short times, on a port of its own, with one peer, number 1, at `peer`.
pub fn config(peer: Option<SocketAddr>) -> NetConfig {
    let address = |to: SocketAddr| {
        let (name, host) = ("raft-1".to_string(), to.ip().to_string());
        PeerAddress { id: 1, name, host, port: to.port() }
    };
    NetConfig {
        listen: "127.0.0.1:0".to_string(),
        peers: peer.map(address).into_iter().collect(),
        connections_max: 100,
        inbox_bytes_max: 64 * 1024,
        unserved_bytes_max: 64 * 1024 * 1024,
        kept_bytes_max: 16 * 1024 * 1024,
        outbox_bytes_max: 16 * 1024 * 1024,
        peer_inbox_bytes_max: 16 * 1024 * 1024,
        peer_outbox_bytes_max: 16 * 1024 * 1024,
        connect_timeout: Duration::from_secs(10),
        redial_max: Duration::from_millis(100),
        user_timeout: Duration::from_secs(3),
        silent_timeout: Duration::from_secs(60),
        resolver: ResolverConfig::default(),
        seed: 1,
    }
}

pub struct Node {
    pub net: Net,
    events: VecDeque<NetEvent>,
}

impl Node {
    pub fn start(config: NetConfig) -> Node {
        Node { net: Net::new(config, Instant::now()).unwrap(), events: VecDeque::new() }
    }

    pub fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.net.local_addr()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_write_timeout(Some(PATIENCE)).unwrap();
        client.set_nodelay(true).unwrap();
        client
    }

    /// One turn of the loop: what has happened in it.
    pub fn turn(&mut self) -> Vec<NetEvent> {
        let mut events = Vec::new();
        let now = Instant::now();
        self.net.push();
        self.net.wait(now + Duration::from_millis(20), now, &mut events).unwrap();
        events
    }

    /// Turns the loop until an event is what `wanted` looks for. Others before it are dropped.
    pub fn find<T>(&mut self, wanted: impl Fn(&NetEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            while let Some(event) = self.events.pop_front() {
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
            let events = self.turn();
            self.events.extend(events);
        }
        panic!("waited for an event in vain");
    }

    /// Turns the loop until something about the net is true.
    pub fn until(&mut self, what: &str, holds: impl Fn(&Net) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(&self.net) {
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            let events = self.turn();
            self.events.extend(events);
        }
    }

    /// The next connection with something to read.
    pub fn readable(&mut self) -> ConnId {
        self.find(|event| match event {
            NetEvent::Readable(conn) => Some(*conn),
            _ => None,
        })
    }

    /// Turns the loop until so many bytes are in the inbox.
    pub fn inbox_of(&mut self, conn: ConnId, len: usize) -> Vec<u8> {
        self.until("the inbox is that full", |net| net.inbox(conn).is_some_and(|b| b.len() >= len));
        self.net.inbox(conn).unwrap().to_vec()
    }

    /// The end of a connection: peer, by the other side, reason.
    pub fn closed(&mut self, of: ConnId) -> (Option<u64>, bool, String) {
        self.find(|event| match event {
            NetEvent::Closed { conn, peer, by_other_side, reason } if *conn == of => {
                Some((*peer, *by_other_side, reason.clone()))
            }
            _ => None,
        })
    }

    pub fn dialed(&mut self) -> ConnId {
        self.find(|event| match event {
            NetEvent::Dialed { conn, peer: 1 } => Some(*conn),
            _ => None,
        })
    }

    pub fn dial_failed(&mut self) -> (bool, String) {
        self.find(|event| match event {
            NetEvent::DialFailed { peer: 1, refused, reason } => Some((*refused, reason.clone())),
            _ => None,
        })
    }

    pub fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        self.net.outbox(conn).unwrap().extend_from_slice(bytes);
        self.net.push();
    }

    /// A client that has said one byte, and its connection.
    pub fn client(&mut self) -> (TcpStream, ConnId) {
        let mut client = self.connect();
        std::io::Write::write_all(&mut client, b"?").unwrap();
        let conn = self.readable();
        self.net.consume(conn, 1);
        (client, conn)
    }

    /// Turns the loop while `client` reads to the end of what it gets.
    pub fn drain(&mut self, mut client: TcpStream) -> std::io::Result<Vec<u8>> {
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            client.read_to_end(&mut bytes).map(|_| bytes)
        });
        while !reader.is_finished() {
            let events = self.turn();
            self.events.extend(events);
        }
        reader.join().unwrap()
    }
}

/// Bytes of which no piece looks like another.
pub fn pattern(len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(len as u64);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}
