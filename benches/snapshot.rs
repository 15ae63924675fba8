//! What snapshots cost while the cluster is written to, and what endless writes leave behind:
//! `cargo bench --bench snapshot`.
//!
//! Three real nodes with default settings on loopback, with their data under `TMPDIR`: that has to be a
//! real disk for the figures to mean anything. First a state of `SNAPSHOT_STATE_MIB` (1024) is written,
//! and then written over until every node has taken a snapshot of all of it from beginning to end. Told
//! are the longest turn of each node's loop, the longest time in which no write was answered to anybody,
//! and the longest that one client waited which writes one key after the other; beside them, as a
//! measure of what the disk itself does meanwhile, the longest sync of a small file that no node has to
//! do with. Then, on a new cluster, 1000 keys are written over for `SNAPSHOT_OVERWRITE_SECONDS` (600);
//! told is what each node has on its disk and in its memory, every 10 seconds. 0 leaves a part out.

#[path = "../tests/processes/mod.rs"]
#[allow(dead_code)] // The tests use the rest.
mod processes;

use processes::{Cluster, Info};
use raftkv::protocol::resp;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
const VALUE_BYTES: u64 = 1024;
/// Connections, and the writes that each has under way.
const WRITERS: u64 = 8;
const PIPELINED: u64 = 64;
const FEW_KEYS: u64 = 1000;
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
const WATCH_EVERY: Duration = Duration::from_millis(250);

fn main() {
    let state_mib = number("SNAPSHOT_STATE_MIB", 1024);
    if state_mib > 0 {
        snapshot_under_load(state_mib);
    }
    let seconds = number("SNAPSHOT_OVERWRITE_SECONDS", 600);
    if seconds > 0 {
        overwrite_few_keys(Duration::from_secs(seconds));
    }
}

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).unwrap_or_default();
    if text.is_empty() { default } else { text.parse().expect("a number in the environment") }
}

fn snapshot_under_load(state_mib: u64) {
    let cluster = Cluster::start(3, &[]);
    cluster.await_leader();
    let keys = state_mib * MIB / VALUE_BYTES;
    println!("{keys} keys with values of {VALUE_BYTES} bytes, on three nodes");
    let peaks = Peaks::default();

    let load = Load::start(&cluster, keys, Some(keys));
    let bystander = Bystander::start();
    let begun = Instant::now();
    watch(&cluster, &peaks, |_| load.is_done());
    load.finish("to write them", begun);
    bystander.finish();
    report_nodes(&cluster, &peaks);

    let load = Load::start(&cluster, keys, None);
    let probe = Probe::start(&cluster);
    let bystander = Bystander::start();
    let begun = Instant::now();
    let whole = state_mib * MIB;
    let before: Vec<u64> = infos(&cluster).iter().map(last_index).collect();
    watch(&cluster, &peaks, |infos| {
        let has_new = |(info, before): (&Info, &u64)| {
            field(info, "raft_snapshot_index") > *before
                && field(info, "raft_snapshot_bytes") >= whole
        };
        infos.iter().zip(&before).all(has_new)
    });
    probe.finish();
    load.finish("to write over them, with a snapshot of all on each node", begun);
    bystander.finish();
    report_nodes(&cluster, &peaks);
}

fn overwrite_few_keys(duration: Duration) {
    let cluster = Cluster::start(3, &[]);
    cluster.await_leader();
    println!(
        "{FEW_KEYS} keys written over for {duration:?}; for each node MiB on disk / in memory"
    );
    let peaks = Peaks::default();
    let load = Load::start(&cluster, FEW_KEYS, None);
    let bystander = Bystander::start();
    let begun = Instant::now();
    let mut sampled = Instant::now();
    watch(&cluster, &peaks, |_| {
        let now = Instant::now();
        if now - sampled >= SAMPLE_EVERY {
            sampled = now;
            let sample = |node| {
                format!("{} / {}", disk_bytes(&cluster, node) / MIB, memory(&cluster, node) / MIB)
            };
            let nodes: Vec<String> = (0..3).map(sample).collect();
            let seconds = (now - begun).as_secs();
            println!("  {seconds:4} s  {}  ({} writes)", nodes.join("   "), load.answered());
        }
        now - begun >= duration
    });
    load.finish("to write over them", begun);
    bystander.finish();
    report_nodes(&cluster, &peaks);
}

// The nodes.

/// The most that was seen of each node.
#[derive(Default)]
struct Peaks {
    disk: [AtomicU64; 3],
    log: [AtomicU64; 3],
}

/// Looks at all nodes again and again, until it is enough.
fn watch(cluster: &Cluster, peaks: &Peaks, mut is_enough: impl FnMut(&[Info]) -> bool) {
    loop {
        let infos = infos(cluster);
        for (node, info) in infos.iter().enumerate() {
            peaks.disk[node].fetch_max(disk_bytes(cluster, node), Ordering::Relaxed);
            peaks.log[node].fetch_max(field(info, "raft_log_bytes"), Ordering::Relaxed);
        }
        if is_enough(&infos) {
            return;
        }
        thread::sleep(WATCH_EVERY);
    }
}

fn infos(cluster: &Cluster) -> Vec<Info> {
    (0..3).map(|node| cluster.info(node).expect("every node answers")).collect()
}

fn field(info: &Info, name: &str) -> u64 {
    info[name].parse().unwrap_or_else(|_| panic!("{name} is a number: {}", info[name]))
}

fn last_index(info: &Info) -> u64 {
    field(info, "raft_last_log_index")
}

fn report_nodes(cluster: &Cluster, peaks: &Peaks) {
    for (node, info) in infos(cluster).iter().enumerate() {
        println!(
            "  raft-{node} ({}): longest turn {} ms (flush {}), disk {} MiB (most {}), log {} MiB (most {}), \
             memory {} MiB (most {}), state {} MiB",
            info["raft_role"],
            info["slowest_turn_milliseconds"],
            info["slowest_flush_milliseconds"],
            disk_bytes(cluster, node) / MIB,
            peaks.disk[node].load(Ordering::Relaxed) / MIB,
            field(info, "raft_log_bytes") / MIB,
            peaks.log[node].load(Ordering::Relaxed) / MIB,
            memory(cluster, node) / MIB,
            status(cluster, node, "VmHWM:") / MIB,
            field(info, "keyspace_bytes") / MIB,
        );
    }
}

/// What is set aside for the files of a node, which is what counts when a disk is full.
fn disk_bytes(cluster: &Cluster, node: usize) -> u64 {
    let entries = fs::read_dir(cluster.data_dir(node)).expect("the data folder");
    // A file may be gone between its name and its size.
    let blocks = |entry: std::io::Result<fs::DirEntry>| entry.ok()?.metadata().ok();
    entries.filter_map(blocks).map(|metadata| metadata.blocks() * 512).sum()
}

fn memory(cluster: &Cluster, node: usize) -> u64 {
    status(cluster, node, "VmRSS:")
}

/// A field of the kernel's account of a process, in bytes.
fn status(cluster: &Cluster, node: usize, name: &str) -> u64 {
    let path = format!("/proc/{}/status", cluster.process_id(node));
    let text = fs::read_to_string(path).expect("the node runs");
    let line = text.lines().find(|line| line.starts_with(name)).expect("the kernel tells it");
    let kib = line.split_whitespace().nth(1).expect("a number of KiB");
    kib.parse::<u64>().expect("a number of KiB") * 1024
}

// The load.

/// When writes were answered.
#[derive(Debug)]
struct Answers {
    last: Instant,
    longest_gap: Duration,
    count: u64,
    refused: u64,
}

impl Answers {
    fn shared() -> Arc<Mutex<Self>> {
        let none = Duration::ZERO;
        Arc::new(Mutex::new(Answers {
            last: Instant::now(),
            longest_gap: none,
            count: 0,
            refused: 0,
        }))
    }

    fn add(&mut self, count: u64, refused: u64) {
        if count > 0 {
            let now = Instant::now();
            self.longest_gap = self.longest_gap.max(now - self.last);
            self.last = now;
        }
        self.count += count;
        self.refused += refused;
    }
}

/// Writers that keep the cluster busy.
struct Load {
    answers: Arc<Mutex<Answers>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Writes to each of `keys` once, in order; or without a `total` to any of them, until it is
    /// finished.
    fn start(cluster: &Cluster, keys: u64, total: Option<u64>) -> Self {
        let leader = cluster.await_leader();
        let (answers, stop) = (Answers::shared(), Arc::new(AtomicBool::new(false)));
        let threads = (0..WRITERS).map(|writer| {
            let mut stream = cluster.connect(leader);
            let (answers, stop) = (answers.clone(), stop.clone());
            thread::spawn(move || {
                let mut random = fastrand::Rng::with_seed(writer);
                let mut next = writer;
                let mut choose = || {
                    next += WRITERS;
                    if total.is_some() { next - WRITERS } else { random.u64(..keys) }
                };
                while !stop.load(Ordering::Relaxed) {
                    let chosen: Vec<u64> =
                        (0..PIPELINED).map(|_| choose()).filter(|key| *key < keys).collect();
                    if chosen.is_empty() {
                        return;
                    }
                    write(&mut stream, &chosen, &answers);
                }
            })
        });
        let threads = threads.collect();
        Load { answers, stop, threads }
    }

    fn is_done(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    fn answered(&self) -> u64 {
        self.answers.lock().expect("no writer panics with the lock").count
    }

    fn finish(self, what: &str, begun: Instant) {
        let seconds = begun.elapsed().as_secs_f64();
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a writer panicked"));
        let answers = self.answers.lock().expect("no writer panics with the lock");
        println!(
            "{what}: {seconds:.0} s, {:.0} writes/s, {} refused; longest gap between two answers {} ms",
            answers.count as f64 / seconds,
            answers.refused,
            answers.longest_gap.as_millis()
        );
    }
}

/// Writes to all of these keys, and waits for the answers.
fn write(stream: &mut std::net::TcpStream, keys: &[u64], answers: &Mutex<Answers>) {
    let mut requests = Vec::new();
    let mut value = vec![b'v'; VALUE_BYTES as usize];
    for key in keys {
        value[..8].copy_from_slice(&fastrand::u64(..).to_be_bytes());
        resp::put_array(&mut requests, 3);
        resp::put_bulk(&mut requests, b"SET");
        resp::put_bulk(&mut requests, format!("k{key:09}").as_bytes());
        resp::put_bulk(&mut requests, &value);
    }
    stream.write_all(&requests).expect("the leader takes requests");
    let (mut missing, mut is_new_line) = (keys.len() as u64, true);
    let mut buffer = [0; 4096];
    while missing > 0 {
        let bytes = stream.read(&mut buffer).expect("the leader answers");
        assert!(bytes > 0, "the leader hung up");
        let (mut count, mut refused) = (0, 0);
        for byte in &buffer[..bytes] {
            count += u64::from(*byte == b'\n');
            refused += u64::from(is_new_line && *byte == b'-');
            is_new_line = *byte == b'\n';
        }
        missing -= count;
        let mut answers = answers.lock().expect("no writer panics with the lock");
        answers.add(count.saturating_sub(refused), refused);
    }
}

/// One client that writes one key after the other.
struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Probe {
    fn start(cluster: &Cluster) -> Self {
        let mut client = cluster.client();
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = thread::spawn(move || {
            let mut times = Vec::new();
            while !told.load(Ordering::Relaxed) {
                let asked = Instant::now();
                client.put(b"probe", b"value").expect("a majority is up");
                times.push(asked.elapsed());
            }
            times
        });
        Probe { stop, thread }
    }

    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        let mut times = self.thread.join().expect("the probe panicked");
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_millis();
        println!(
            "one client meanwhile: {} writes, median {} ms, 99 % {} ms, 99.9 % {} ms, worst {} ms",
            times.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        );
    }
}

/// Somebody else who uses the same disk, a little.
struct Bystander {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Bystander {
    fn start() -> Self {
        let path = std::env::temp_dir().join(format!("raftkv-bystander-{}", std::process::id()));
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = thread::spawn(move || {
            let mut file = fs::File::create(&path).expect("a file beside the nodes'");
            let mut times = Vec::new();
            while !told.load(Ordering::Relaxed) {
                let begun = Instant::now();
                file.write_all(&[1; 4096]).expect("room");
                file.sync_data().expect("a sound disk");
                times.push(begun.elapsed());
                thread::sleep(Duration::from_millis(20));
            }
            fs::remove_file(path).expect("the file is ours");
            times
        });
        Bystander { stop, thread }
    }

    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        let mut times = self.thread.join().expect("the bystander panicked");
        times.sort_unstable();
        println!(
            "the disk meanwhile: {} syncs of 4 KiB by somebody else, median {} ms, worst {} ms",
            times.len(),
            times[times.len() / 2].as_millis(),
            times[times.len() - 1].as_millis()
        );
    }
}
