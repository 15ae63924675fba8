//! Sockets for a [`Lookup`]: what turns the pure look-up into packets, inside a poll loop.
//!
//! Each look-up has its own sockets, one for each server that it asks, connected to it: the kernel picks a
//! fresh source port, drops what comes from elsewhere, and reports a server that refuses packets, which
//! otherwise would look like silence.

use super::dns::{Hosts, Lookup, NAMESERVERS_MAX, PACKET_MAX, ResolvConf, Step};
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Bytes read of `resolv.conf` and of `hosts`; what follows is ignored.
const CONFIG_FILE_MAX: u64 = 1 << 20;
/// Packets taken from one socket in one turn; the rest waits for the next one.
const PACKETS_PER_TURN: usize = 32;

/// Where a machine keeps what it knows about names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolverConfig {
    pub resolv_conf: PathBuf,
    pub hosts: PathBuf,
}

impl Default for ResolverConfig {
    fn default() -> Self {
        ResolverConfig { resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into() }
    }
}

/// How far a look-up has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Drive it again when one of its sockets is readable, and at this moment.
    Pending(Instant),
    Done(Vec<IpAddr>),
    Failed(String),
}

/// One look-up with its sockets.
#[derive(Debug)]
pub(crate) struct Query {
    lookup: Lookup,
    sockets: Vec<(SocketAddr, UdpSocket)>,
    /// Under which every socket is registered: there are few, so all of them are tried.
    token: Token,
}

impl Query {
    /// Reads the two files anew, since they change under a running node, and begins.
    pub(crate) fn new(host: &str, config: &ResolverConfig, seed: u64, token: Token) -> Query {
        let conf = ResolvConf::parse(&read_config(&config.resolv_conf));
        let hosts = Hosts::parse(&read_config(&config.hosts));
        Query { lookup: Lookup::new(host, &conf, &hosts, seed), sockets: Vec::new(), token }
    }

    /// Takes what has arrived and sends what is due.
    pub(crate) fn drive(&mut self, registry: &Registry, now: Instant) -> Progress {
        let more = self.receive(now);
        loop {
            match self.lookup.poll(now) {
                Step::Send { server, packet } => {
                    if let Err(error) = self.send(server, &packet, registry) {
                        self.lookup.on_unreachable(server, &error.to_string());
                    }
                }
                Step::WaitUntil(_) if more => return Progress::Pending(now),
                Step::WaitUntil(until) => return Progress::Pending(until),
                Step::Done(addresses) => return Progress::Done(addresses),
                Step::Failed(reason) => return Progress::Failed(reason),
            }
        }
    }

    /// What holds the look-up up, if anything.
    pub(crate) fn trouble(&self) -> Option<&str> {
        self.lookup.trouble()
    }

    fn send(&mut self, server: SocketAddr, packet: &[u8], registry: &Registry) -> io::Result<()> {
        let known = self.sockets.iter().position(|(address, _)| *address == server);
        let index = match known {
            Some(index) => index,
            None => {
                debug_assert!(self.sockets.len() < NAMESERVERS_MAX, "one socket for each server");
                self.sockets.push((server, connect(server, registry, self.token)?));
                self.sockets.len() - 1
            }
        };
        let socket = &self.sockets[index].1;
        match retry(|| socket.send(packet)) {
            // A full send buffer is a packet lost, and the look-up knows what to do about lost packets.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            result => result.map(|_| ()),
        }
    }

    /// True if a socket may hold more than was taken.
    fn receive(&mut self, now: Instant) -> bool {
        let mut buffer = [0; PACKET_MAX];
        let mut more = false;
        for (server, socket) in &self.sockets {
            let mut taken = 0;
            while taken < PACKETS_PER_TURN {
                match retry(|| socket.recv(&mut buffer)) {
                    Ok(len) => self.lookup.on_packet(*server, &buffer[..len], now),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => self.lookup.on_unreachable(*server, &error.to_string()),
                }
                taken += 1;
            }
            more |= taken == PACKETS_PER_TURN;
        }
        more
    }
}

fn connect(server: SocketAddr, registry: &Registry, token: Token) -> io::Result<UdpSocket> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(server)?;
    registry.register(&mut socket, token, Interest::READABLE)?;
    Ok(socket)
}

/// A system call that a signal interrupted is simply made again.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// A missing or unreadable file is an empty one: then the defaults hold.
fn read_config(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(CONFIG_FILE_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
