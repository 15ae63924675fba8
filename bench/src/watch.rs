//! What nodes of ours say of themselves during a load.

use crate::servers::ask;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const PATIENCE: Duration = Duration::from_secs(5);

/// When a node was taking a snapshot, or throwing away what that made needless.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    pub node: usize,
    pub from: Instant,
    pub until: Instant,
}

/// Asks all nodes again and again.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Snapshot>, String>>,
}

impl Watch {
    pub fn start(addresses: &[SocketAddr], every: Duration) -> Self {
        let (addresses, stop) = (addresses.to_vec(), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || watch(&addresses, every, &told));
        Watch { stop, thread }
    }

    pub fn finish(self) -> Result<Vec<Snapshot>, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the watch panicked".to_string())?
    }
}

fn watch(
    addresses: &[SocketAddr],
    every: Duration,
    stop: &AtomicBool,
) -> Result<Vec<Snapshot>, String> {
    let connect = |address: &SocketAddr| {
        let stream = TcpStream::connect_timeout(address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    let streams: std::io::Result<Vec<TcpStream>> = addresses.iter().map(connect).collect();
    let mut streams = streams.map_err(|error| format!("watching: {error}"))?;
    let mut snapshots: Vec<Snapshot> = Vec::new();
    let mut open: Vec<Option<usize>> = vec![None; streams.len()];
    while !stop.load(Ordering::Relaxed) {
        for (node, stream) in streams.iter_mut().enumerate() {
            let from = Instant::now();
            let info = info(stream).map_err(|error| format!("watching: {error}"))?;
            let until = Instant::now();
            if !info.contains("raft_snapshot_in_progress:1") {
                open[node] = None;
            } else if let Some(at) = open[node] {
                snapshots[at].until = until;
            } else {
                open[node] = Some(snapshots.len());
                snapshots.push(Snapshot { node, from, until });
            }
        }
        thread::sleep(every);
    }
    Ok(snapshots)
}

/// A bulk string: its length, a line's end, so many bytes, a line's end.
fn info(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.write_all(b"INFO persistence\r\n")?;
    let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = match stream.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        said.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&said);
        if let Some((head, rest)) = text.split_once("\r\n")
            && let Ok(length) = head.trim_start_matches('$').parse::<usize>()
            && rest.len() >= length + 2
        {
            return Ok(rest.to_string());
        }
    }
}

pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Of a node's loop, by its own account.
#[derive(Debug, Clone, Copy, Default)]
pub struct Longest {
    pub turn_ms: f64,
    pub unsynced_ms: f64,
    pub sync_ms: f64,
}

/// The longest since a second of Unix time, for so long.
pub fn longest_turns(node: SocketAddr, since: u64, took: Duration) -> Result<Longest, String> {
    let said = ask(node, b"GET /history.json HTTP/1.0\r\n\r\n");
    let fields = between(&said, "\"sample_fields\":[", "]").ok_or("no history of the node")?;
    let samples = between(&said, "\"samples\":[[", "]]").ok_or("no history of the node yet")?;
    let place = |name: &str| {
        let mut names = fields.split(',').map(|field| field.trim_matches('"'));
        names.position(|field| field == name).ok_or(format!("the history has no {name}"))
    };
    let [at, turn, unsynced, sync] =
        ["at", "turn_max_us", "turn_unsynced_max_us", "sync_max_us"].map(place);
    let (at, turn, unsynced, sync) = (at?, turn?, unsynced?, sync?);
    let mut longest = Longest::default();
    for sample in samples.split("],[") {
        let values: Vec<u64> = sample.split(',').filter_map(|value| value.parse().ok()).collect();
        let value = |place: usize| values.get(place).copied().unwrap_or(0);
        if (since..=since + took.as_secs() + 1).contains(&value(at)) {
            let milliseconds = |place| value(place) as f64 / 1e3;
            longest.turn_ms = longest.turn_ms.max(milliseconds(turn));
            longest.unsynced_ms = longest.unsynced_ms.max(milliseconds(unsynced));
            longest.sync_ms = longest.sync_ms.max(milliseconds(sync));
        }
    }
    Ok(longest)
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(begin)?;
    Some(rest.split_once(end)?.0)
}
