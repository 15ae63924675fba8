//! How long writes stand still when the leader goes: `cargo bench --bench failover`.
//!
//! Three real nodes with default settings on loopback. The time is from the moment the leader is gone to
//! the answer of the first write that was sent after it, by a client that knows all nodes. Two ways to go:
//! `kill -9`, which closes its sockets, and a pause, which to the others is a machine that vanished.

#[path = "../tests/processes/mod.rs"]
#[allow(dead_code)] // The tests use the rest.
mod processes;
mod report;

use processes::Cluster;
use report::report;
use std::time::{Duration, Instant};

const TRIALS: usize = 20;

fn main() {
    let mut cluster = Cluster::start(3, &[]);
    let killed = trials(&mut cluster, Cluster::kill, Cluster::start_node);
    report("kill -9 of the leader, to the next answered write", killed);
    let paused = trials(&mut cluster, |c, node| c.pause(node), |c, node| c.resume(node));
    report("pause of the leader, to the next answered write", paused);
}

type Act = fn(&mut Cluster, usize);

/// `go` takes the leader away, `back` brings it back for the next time.
fn trials(cluster: &mut Cluster, go: Act, back: Act) -> Vec<Duration> {
    std::iter::repeat_with(|| trial(cluster, go, back)).take(TRIALS).collect()
}

fn trial(cluster: &mut Cluster, go: Act, back: Act) -> Duration {
    let leader = cluster.await_leader();
    let mut client = cluster.client();
    client.put(b"k", b"before").expect("the cluster is whole");
    go(cluster, leader);
    let gone = Instant::now();
    client.put(b"k", b"after").expect("a majority is up");
    let took = gone.elapsed();
    back(cluster, leader);
    cluster.await_same_applied();
    took
}
