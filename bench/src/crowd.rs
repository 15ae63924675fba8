//! Whoever is connected beside the clients that are measured: one that takes all it can get, and those that misbehave.

use crate::wire::{Resp, Step, Wire, command};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub const LARGE_BYTES: usize = 1_000_000;
/// A large value that is there to be read.
pub const LARGE_KEY: &[u8] = b"large";
/// Commands that are written with one call, if they are small.
const BATCH: usize = 64;

/// When no socket takes more of what deaf clients say, until they try again.
const DEAF_PAUSE: Duration = Duration::from_millis(1);

/// What one client does as fast as it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greed {
    LargeWrites,
    DeepPipeline,
    LargeReads,
    Ranges,
    LocalRanges,
    Words,
}

impl Greed {
    pub const ALL: [Greed; 6] = [
        Greed::LargeWrites,
        Greed::DeepPipeline,
        Greed::LargeReads,
        Greed::Ranges,
        Greed::LocalRanges,
        Greed::Words,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Greed::LargeWrites => "1 MB values back to back",
            Greed::DeepPipeline => "a pipeline of 10,000 SETs",
            Greed::LargeReads => "reads of 1 MB, 64 deep",
            Greed::Ranges => "KEYS, RANGE, SCAN and MGET, 1000 deep",
            Greed::LocalRanges => "the same after READONLY",
            Greed::Words => "INFO, COMMAND and PING, 10,000 deep",
        }
    }

    fn depth(self) -> usize {
        match self {
            Greed::LargeWrites => 4,
            Greed::DeepPipeline | Greed::Words => 10_000,
            Greed::LargeReads => 64,
            Greed::Ranges | Greed::LocalRanges => 1000,
        }
    }

    fn put(self, number: usize, value: &[u8], out: &mut Vec<u8>) {
        match self {
            Greed::LargeWrites => {
                command(&[b"SET", format!("greedy:{}", number % 8).as_bytes(), value], out)
            }
            Greed::DeepPipeline => {
                command(&[b"SET", format!("greedy:{number:08}").as_bytes(), &value[..256]], out)
            }
            Greed::LargeReads => command(&[b"GET", LARGE_KEY], out),
            Greed::Ranges | Greed::LocalRanges => put_range(number, out),
            Greed::Words => match number % 100 {
                0 => command(&[b"COMMAND"], out),
                1..4 => command(&[b"INFO"], out),
                _ => command(&[b"PING"], out),
            },
        }
    }
}

fn put_range(number: usize, out: &mut Vec<u8>) {
    match number % 4 {
        // All keys are looked at, and few fit.
        0 => command(&[b"KEYS", b"*99999"], out),
        1 => command(&[b"RANGE", b"key:", b"key;", b"LIMIT", b"1000"], out),
        2 => command(&[b"SCAN", b"0", b"COUNT", b"1000"], out),
        _ => {
            let keys: Vec<Vec<u8>> = (0..1000).map(|key| crate::load::key(key * 7)).collect();
            let words = std::iter::once(&b"MGET"[..]).chain(keys.iter().map(Vec::as_slice));
            command(&words.collect::<Vec<&[u8]>>(), out);
        }
    }
}

/// One greedy client at work.
pub struct Greedy {
    stream: TcpStream,
    answered: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Greedy {
    pub fn start(greed: Greed, target: SocketAddr) -> Result<Self, String> {
        let stream = connect(target)?;
        let (mut to, mut from) = (clone(&stream)?, clone(&stream)?);
        if greed == Greed::LocalRanges {
            to.write_all(b"READONLY\r\n").map_err(|error| error.to_string())?;
        }
        // Its room is what is on its way.
        let (asked, answers) = sync_channel::<()>(greed.depth());
        let (answered, refused) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let writer = thread::spawn(move || {
            let value = vec![b'v'; LARGE_BYTES];
            let batch = BATCH.min(greed.depth() / 4);
            for number in (0..).step_by(batch) {
                let mut out = Vec::new();
                (number..number + batch).for_each(|number| greed.put(number, &value, &mut out));
                let has_room = (0..batch).all(|_| asked.send(()).is_ok());
                if !has_room || to.write_all(&out).is_err() {
                    return;
                }
            }
        });
        let (good, bad) = (answered.clone(), refused.clone());
        let reader = thread::spawn(move || {
            let (mut inbox, mut buffer, mut resp) = (Vec::new(), vec![0; 1 << 18], Resp);
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                inbox.extend_from_slice(&buffer[..count]);
                let mut taken = 0;
                while let Ok(Step::Answer { consumed, result }) =
                    resp.step(&inbox[taken..], &mut Vec::new())
                {
                    taken += consumed;
                    if result.is_ok() { &good } else { &bad }.fetch_add(1, Ordering::Relaxed);
                    // The one to READONLY comes unasked.
                    let _ = answers.try_recv();
                }
                inbox.drain(..taken);
            }
        });
        Ok(Greedy { stream, answered, refused, threads: vec![writer, reader] })
    }

    /// Good answers and errors until now.
    pub fn counts(&self) -> (u64, u64) {
        (self.answered.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }

    pub fn stop(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        self.threads.into_iter().for_each(|thread| drop(thread.join()));
    }
}

/// Clients that ask for large values and write, and never read an answer. One thread for all of them: hundreds would
/// take the processor from the nodes for as long as they are not blocked.
pub struct Deaf {
    stop: Arc<AtomicBool>,
    writer: JoinHandle<()>,
}

impl Deaf {
    pub fn start(clients: usize, target: SocketAddr) -> Result<Self, String> {
        let streams = (0..clients).map(|_| connect(target)).collect::<Result<Vec<_>, _>>()?;
        let mut out = Vec::new();
        for number in 0..BATCH {
            command(&[b"GET", LARGE_KEY], &mut out);
            command(&[b"SET", format!("deaf:{number}").as_bytes(), &[b'v'; 256]], &mut out);
        }
        for stream in &streams {
            stream.set_nonblocking(true).map_err(|error| error.to_string())?;
        }
        let stop = Arc::<AtomicBool>::default();
        let is_over = stop.clone();
        let mut clients: Vec<(TcpStream, usize)> = streams.into_iter().map(|it| (it, 0)).collect();
        let writer = thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let written: usize = clients.iter_mut().map(|it| write_on(it, &out)).sum();
                if written == 0 {
                    thread::sleep(DEAF_PAUSE);
                }
            }
        });
        Ok(Deaf { stop, writer })
    }

    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.writer.join());
    }
}

/// Writes on in what is said again and again; returns how many bytes of it the socket took.
fn write_on((stream, at): &mut (TcpStream, usize), out: &[u8]) -> usize {
    let written = stream.write(&out[*at..]).unwrap_or(0);
    *at = (*at + written) % out.len();
    written
}

/// Clients that have said something once; returns also what those heard that were turned away.
pub fn idle(clients: usize, target: SocketAddr) -> Result<(Vec<TcpStream>, Vec<String>), String> {
    let (mut streams, mut refusals) = (Vec::new(), Vec::new());
    for _ in 0..clients {
        let mut stream = connect(target)?;
        let patience = Some(Duration::from_secs(5));
        stream.set_read_timeout(patience).map_err(|error| error.to_string())?;
        let mut heard = [0; 64];
        let asked = stream.write_all(b"PING\r\n").and_then(|()| stream.read(&mut heard));
        match asked {
            Ok(count) if heard.starts_with(b"+PONG") && count > 0 => streams.push(stream),
            Ok(count) => {
                refusals.push(String::from_utf8_lossy(&heard[..count]).trim().to_string());
            }
            Err(error) => refusals.push(error.to_string()),
        }
    }
    Ok((streams, refusals))
}

/// Connections that come and go as fast as they can.
pub struct Storm {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Storm {
    /// `speaks`: each asks for one value before it goes.
    pub fn start(threads: usize, speaks: bool, target: SocketAddr) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (served, failed) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let storm = |_| {
            let (stop, served, failed) = (stop.clone(), served.clone(), failed.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let done = if visit(speaks, target) { &served } else { &failed };
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let threads = (0..threads).map(storm).collect();
        Storm { stop, served, failed, threads }
    }

    /// Connections that went well, and the others.
    pub fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| drop(thread.join()));
        (self.served.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

/// A listener that takes every connection and lets it go.
pub struct Elsewhere {
    pub at: SocketAddr,
}

impl Elsewhere {
    /// Until the end of the process.
    pub fn start() -> Result<Self, String> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let at = listener.local_addr().map_err(|error| error.to_string())?;
        thread::spawn(move || listener.incoming().for_each(drop));
        Ok(Elsewhere { at })
    }
}

fn visit(speaks: bool, target: SocketAddr) -> bool {
    let Ok(mut stream) = connect(target) else { return false };
    // Reset at its end, or the ports of one address would be used up by those that wait to be forgotten.
    let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
    let mut heard = [0; 64];
    !speaks
        || stream.write_all(b"GET none\r\n").is_ok()
            && matches!(stream.read(&mut heard), Ok(1..) if heard[0] == b'$')
}

fn connect(target: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect_timeout(&target, Duration::from_secs(5))
        .map_err(|error| format!("connect {target}: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(stream)
}

fn clone(stream: &TcpStream) -> Result<TcpStream, String> {
    stream.try_clone().map_err(|error| error.to_string())
}
