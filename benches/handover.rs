//! How long writes stand still when the leader is stopped in good order, and how long a lost disk leaves the
//! cluster without its full strength: `cargo bench --bench handover`.
//!
//! Three real nodes with default settings on loopback, with their data under `TMPDIR`. One client that knows all
//! nodes writes, one key after the other; the figure is the longest time between two answers around the moment at
//! which the leader is sent SIGTERM, or is killed with `kill -9`, or at which nothing happens. Then a state of
//! `HANDOVER_STATE_MIB` (100) is written, and a follower, then the leader, is killed and its folder removed;
//! the time is from its start with an empty folder, under the same load, until it is a voter again, and until it
//! has applied what the leader had at that moment.

#[path = "../tests/processes/mod.rs"]
#[allow(dead_code)] // The tests use the rest.
mod processes;
mod report;

use processes::{Cluster, await_condition};
use raftkv::client::Client;
use raftkv::protocol::resp;
use report::report;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const TRIALS: usize = 20;
const WIPES: usize = 3;
/// Answers before and after what happens, so that neither end of the load counts.
const ANSWERS: u64 = 50;
const VALUE_BYTES: usize = 1024;
const PIPELINED: usize = 64;

fn main() {
    let mut cluster = Cluster::start(3, &[]);
    report("nothing happens", trials(&mut cluster, |_, _| {}, |_, _| {}));
    let stop = |cluster: &mut Cluster, node| {
        assert_eq!(cluster.terminate(node).code(), Some(0));
    };
    report("SIGTERM of the leader", trials(&mut cluster, stop, Cluster::start_node));
    report("kill -9 of the leader", trials(&mut cluster, Cluster::kill, Cluster::start_node));
    let text = std::env::var("HANDOVER_STATE_MIB").unwrap_or("100".to_owned());
    let state_mib: usize = text.parse().expect("a number in the environment");
    if state_mib > 0 {
        lost_disk(&mut cluster, state_mib);
    }
}

type Act = fn(&mut Cluster, usize);

/// `go` takes the leader away, `back` brings it back for the next time.
fn trials(cluster: &mut Cluster, go: Act, back: Act) -> Vec<Duration> {
    std::iter::repeat_with(|| trial(cluster, go, back)).take(TRIALS).collect()
}

fn trial(cluster: &mut Cluster, go: Act, back: Act) -> Duration {
    let leader = cluster.await_leader();
    let load = Load::start(cluster.client());
    load.await_answers(ANSWERS);
    let gone = Instant::now();
    go(cluster, leader);
    load.await_answers(ANSWERS);
    let gap = longest_gap(&load.finish(), gone);
    if cluster.running().len() < cluster.size() {
        back(cluster, leader);
    }
    cluster.await_voters(&[0, 1, 2]);
    cluster.await_same_applied();
    gap
}

/// Of the times between two answers, the longest that was not over before `from`.
fn longest_gap(answers: &[Instant], from: Instant) -> Duration {
    let gaps = answers.windows(2).filter(|pair| pair[1] >= from).map(|pair| pair[1] - pair[0]);
    gaps.max().expect("there were answers after it")
}

/// One client that writes until it is told to stop, and when it was answered.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    answers: Arc<Mutex<Vec<Instant>>>,
    thread: JoinHandle<()>,
}

impl Load {
    fn start(mut client: Client) -> Load {
        let (stop, answered, answers) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::default());
        let thread = thread::spawn({
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            let answers: Arc<Mutex<Vec<Instant>>> = Arc::clone(&answers);
            move || {
                while !stop.load(Ordering::Relaxed) {
                    client.put(b"k", b"v").expect("a majority is up");
                    answers.lock().expect("nobody panicked").push(Instant::now());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Load { stop, answered, answers, thread }
    }

    /// So many more than there are now.
    fn await_answers(&self, more: u64) {
        let enough = self.answered.load(Ordering::Relaxed) + more;
        await_condition("answers", || self.answered.load(Ordering::Relaxed) >= enough);
    }

    fn finish(self) -> Vec<Instant> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("every write was answered");
        Arc::into_inner(self.answers).expect("the thread has ended").into_inner().expect("whole")
    }
}

fn lost_disk(cluster: &mut Cluster, state_mib: usize) {
    let leader = cluster.await_leader();
    fill(cluster, leader, state_mib);
    cluster.await_same_applied();
    for (who, offset) in [("a follower", 1), ("the leader", 0)] {
        wipes(cluster, who, offset, state_mib);
    }
}

/// The node that is `offset` after the leader loses its disk, again and again.
fn wipes(cluster: &mut Cluster, who: &str, offset: usize, state_mib: usize) {
    let (mut votes, mut level) = (Vec::new(), Vec::new());
    for trial in 0..WIPES {
        let node = (cluster.await_leader() + offset) % 3;
        let load = Load::start(cluster.client());
        load.await_answers(ANSWERS);
        cluster.kill(node);
        cluster.wipe(node);
        let began = Instant::now();
        cluster.start_node(node);
        cluster.await_voters(&[0, 1, 2]);
        votes.push(began.elapsed());
        let target = applied(cluster, cluster.await_leader());
        await_condition("it to have what the leader had", || applied(cluster, node) >= target);
        level.push(began.elapsed());
        let gap = longest_gap(&load.finish(), began);
        println!(
            "{who} with {state_mib} MiB wiped: a voter again after {:.2} s; longest time between two answers \
             meanwhile {:.0} ms",
            votes[trial].as_secs_f64(),
            gap.as_secs_f64() * 1e3
        );
    }
    report(&format!("{who}: empty disk to voter, {state_mib} MiB of state"), votes);
    report(&format!("{who}: empty disk to level, {state_mib} MiB of state"), level);
}

fn applied(cluster: &Cluster, node: usize) -> u64 {
    let info = cluster.info(node);
    info.map_or(0, |info| info["raft_last_applied"].parse().expect("a number"))
}

/// Keys of their own, pipelined over one connection.
fn fill(cluster: &Cluster, leader: usize, state_mib: usize) {
    let mut stream = cluster.connect(leader);
    let value = vec![b'v'; VALUE_BYTES];
    let keys = state_mib * (1 << 20) / VALUE_BYTES;
    for first in (0..keys).step_by(PIPELINED) {
        let chunk = first..keys.min(first + PIPELINED);
        let mut commands = Vec::new();
        for key in chunk.clone() {
            resp::put_array(&mut commands, 3);
            for word in [b"SET".as_slice(), format!("key-{key}").as_bytes(), &value] {
                resp::put_bulk(&mut commands, word);
            }
        }
        stream.write_all(&commands).expect("the leader reads");
        let mut answers = vec![0; chunk.len() * b"+OK\r\n".len()];
        stream.read_exact(&mut answers).expect("the leader answers");
        assert_eq!(answers, b"+OK\r\n".repeat(chunk.len()), "every write is done");
    }
}
