//! A storm of connections without a word, against nodes that have work to do: members find their places all the same.

#[allow(dead_code)] // Other tests use the rest.
mod processes;

use processes::{Cluster, Info, await_condition};
use socket2::{Domain, Socket, Type};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const STORM_THREADS: usize = 3;
const WRITERS: usize = 4;
const PIPELINE: usize = 64;
/// A queue that takes one question in ten, asked once in 0.6 s, would cost twice that.
const PATIENCE_PER_START: Duration = Duration::from_secs(2);

/// Threads that go on until this is dropped.
struct Crowd {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn start<W: FnMut() + Send + 'static>(work: impl IntoIterator<Item = W>) -> Crowd {
        let stop = Arc::<AtomicBool>::default();
        let threads = work.into_iter().map(|mut work| {
            let stop = stop.clone();
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    work();
                }
            })
        });
        Crowd { threads: threads.collect(), stop }
    }

    /// Connections that are reset as soon as they are asked for, whether there is room in the queue or not.
    fn storm(at: &[SocketAddr]) -> Crowd {
        Crowd::start((0..STORM_THREADS).map(|thread| {
            let to = at[thread % at.len()].into();
            move || {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
                socket.set_nonblocking(true).expect("it is set");
                socket.set_linger(Some(Duration::ZERO)).expect("it is set");
                let _ = socket.connect(&to);
            }
        }))
    }

    /// What keeps a leader's loop at work.
    fn writers(cluster: &Cluster, node: usize) -> Crowd {
        Crowd::start((0..WRITERS).map(|writer| {
            let mut stream = cluster.connect(node);
            let commands = format!("SET k{writer} v\n").repeat(PIPELINE);
            let mut answers = vec![0; PIPELINE * "+OK\r\n".len()];
            move || {
                stream.write_all(commands.as_bytes()).expect("it is sent");
                stream.read_exact(&mut answers).expect("all are answered");
                assert!(answers.starts_with(b"+OK\r\n"), "the leader stays");
            }
        }))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.threads.drain(..).map(JoinHandle::join);
        let all_went_well = ended.fold(true, |well, ended| well & ended.is_ok());
        assert!(all_went_well || thread::panicking(), "a thread has failed");
    }
}

/// Asks on a connection that was there before the storm.
fn info(stream: &mut BufReader<TcpStream>) -> Info {
    stream.get_mut().write_all(b"*1\r\n$4\r\nINFO\r\n").expect("it is sent");
    let mut length = String::new();
    stream.read_line(&mut length).expect("it answers");
    let length: usize = length.trim_end()[1..].parse().expect("a length");
    let mut text = vec![0; length + 2];
    stream.read_exact(&mut text).expect("the rest");
    let text = String::from_utf8(text).expect("text");
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn is_connected(leader: &mut BufReader<TcpStream>, node: usize) -> bool {
    info(leader)[&format!("peer_raft-{node}")] == "connected"
}

fn number(info: &Info, name: &str) -> u64 {
    info.get(name).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Waits until the leader has a node's acknowledgement of what was committed when it came back.
fn await_follower(leader: &mut BufReader<TcpStream>, node: usize) {
    await_condition("the member to be connected", || is_connected(leader, node));
    let committed = number(&info(leader), "raft_commit_index");
    let matched = format!("match_index_raft-{node}");
    await_condition("it to catch up", || number(&info(leader), &matched) >= committed);
}

/// Followers that are killed and started again come back in time.
fn check_returns(cluster: &mut Cluster, leader: &mut BufReader<TcpStream>) {
    let mut returning = Duration::ZERO;
    for node in [1, 2, 1, 2] {
        cluster.kill(node);
        await_condition("it to be missed", || !is_connected(leader, node));
        cluster.start_node(node);
        let begun = Instant::now();
        await_follower(leader, node);
        returning += begun.elapsed();
    }
    assert!(returning < 4 * PATIENCE_PER_START, "four starts took {returning:?}");
}

#[test]
fn members_find_their_places_in_a_storm_of_connections_and_the_leader_stays() {
    let mut cluster = Cluster::start(3, &[]);
    let first = cluster.await_leader();
    if first != 0 {
        // The others dial it, and have to get through.
        assert!(cluster.nc(first, "RAFT TRANSFER raft-0\n").starts_with("+OK"));
        await_condition("raft-0 to lead", || cluster.await_leader() == 0);
    }
    let mut leader = BufReader::new(cluster.connect(0));
    let term = info(&mut leader)["raft_term"].clone();
    let _writers = Crowd::writers(&cluster, 0);
    let nodes: Vec<SocketAddr> =
        (0..3).map(|node| cluster.address(node).parse().expect("an address")).collect();
    for at in [&nodes[..1], &nodes] {
        let _storm = Crowd::storm(at);
        check_returns(&mut cluster, &mut leader);
    }
    assert_eq!(info(&mut leader)["raft_term"], term, "no election");
}
