//! redis-py against a real cluster, in both versions of RESP, and through the death of a leader.
//!
//! It needs python3 with the package `redis`, which `cargo test` does not; `PYTHON` names another
//! interpreter.

#[allow(dead_code)] // Other tests use the rest.
mod processes;

use processes::redis::{QUICK, killing_the_leader, sentinel_client_survives_the_leader};
use processes::{Cluster, run};
use std::process::Command;

fn python() -> Command {
    let mut command = Command::new(std::env::var("PYTHON").unwrap_or("python3".to_string()));
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/redis_py.py"));
    command
}

#[test]
#[ignore = "needs python3 with redis"]
fn its_calls_are_answered_as_it_expects_at_every_node() {
    let cluster = Cluster::start(3, &QUICK);
    cluster.await_leader();
    for node in 0..3 {
        let (status, _, errors) = run(python().args(["calls", &cluster.port(node)]));
        assert_eq!(status, Some(0), "node {node}: {errors}");
    }
}

/// It repeats by itself what is called not done; what is acknowledged is there, and nothing is there
/// twice.
#[test]
#[ignore = "needs python3 with redis"]
fn its_increments_are_neither_lost_nor_doubled_when_the_leader_dies() {
    let mut cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let mut client = python();
    client.args(["count", &cluster.port((leader + 1) % 3), "4"]);
    let counts = killing_the_leader(&mut cluster, leader, &mut client);
    let counts: Vec<u64> =
        counts.split_whitespace().map(|n| n.parse().expect("a number")).collect();
    let [acknowledged, unknown, counter] = counts[..] else { panic!("{counts:?}") };
    assert!(acknowledged > 0 && counter >= acknowledged, "an increment is lost: {counts:?}");
    assert!(counter <= acknowledged + unknown, "an increment was done twice: {counts:?}");
    println!("acknowledged {acknowledged}, unknown {unknown}, counter {counter}");
}

/// It asks every node as a sentinel, goes to the leader, and finds the next one.
#[test]
#[ignore = "needs python3 with redis"]
fn its_sentinel_client_writes_through_the_death_of_the_leader() {
    let mut client = python();
    client.arg("sentinel");
    sentinel_client_survives_the_leader(client);
}
