//! redis-py against a real cluster, in both versions of RESP, and through the death of a leader.
//!
//! It needs python3 with the package `redis`, which `cargo test` does not; `PYTHON` names another
//! interpreter.

#[allow(dead_code)] // Other tests use the rest.
mod processes;

use processes::{Cluster, run};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

const QUICK: [&str; 4] = ["--heartbeat", "20ms", "--election", "150ms"];

fn redis_py(cluster: &Cluster, node: usize, what: &str) -> Command {
    let python = std::env::var("PYTHON").unwrap_or("python3".to_string());
    let address = cluster.address(node);
    let (_, port) = address.rsplit_once(':').expect("host:port");
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/redis_py.py")).args([what, port]);
    command
}

#[test]
#[ignore = "needs python3 with redis"]
fn its_calls_are_answered_as_it_expects_at_every_node() {
    let cluster = Cluster::start(3, &QUICK);
    cluster.await_leader();
    for node in 0..3 {
        let (status, _, errors) = run(&mut redis_py(&cluster, node, "calls"));
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
    let mut child = redis_py(&cluster, (leader + 1) % 3, "count")
        .arg("4")
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("it says that it begins");
    cluster.kill(leader);
    let mut counts = String::new();
    output.read_to_string(&mut counts).expect("it counts");
    assert!(child.wait().expect("it ends").success());
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
    let mut cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let port = |node| cluster.address(node).rsplit_once(':').expect("host:port").1.to_owned();
    let ports: Vec<String> = (0..3).map(port).collect();
    let python = std::env::var("PYTHON").unwrap_or("python3".to_string());
    let mut child = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/redis_py.py"))
        .args(["sentinel", &ports.join(","), &ports[leader]])
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("it says that it begins");
    assert_eq!(line, "writing\n");
    cluster.kill(leader);
    let mut said = String::new();
    output.read_to_string(&mut said).expect("it writes");
    assert!(child.wait().expect("it ends").success());
    let (acknowledged, new) = said.trim().split_once(' ').expect("two numbers");
    assert!(acknowledged.parse::<u32>().expect("a number") >= 200, "{said}");
    let next = cluster.await_leader_among(&cluster.running());
    assert_eq!(new, ports[next], "it found the leader there is");
    println!("acknowledged {acknowledged}, then led by {new}");
}
