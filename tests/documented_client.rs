//! `docs/client.py`, which was written from `wire-protocol.md` alone, against a real cluster.
//!
//! It needs python3, which `cargo test` does not: `.ci/run` asks for these tests by name.

#[allow(dead_code)] // Other tests use the rest.
mod processes;

use processes::{Cluster, PATIENCE, run};
use std::process::Command;
use std::thread;

const QUICK: [&str; 4] = ["--heartbeat", "20ms", "--election", "150ms"];

/// Runs it with all nodes, or with one: exit status, standard output, standard error.
fn client_py(servers: &str, words: &[&str]) -> (Option<i32>, String, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/client.py");
    run(Command::new("python3").arg(script).arg(servers).args(words))
}

fn all(cluster: &Cluster) -> String {
    let addresses: Vec<String> = (0..cluster.size()).map(|node| cluster.address(node)).collect();
    addresses.join(",")
}

#[test]
#[ignore = "needs python3"]
fn a_client_written_from_the_document_reads_and_writes() {
    let cluster = Cluster::start(3, &QUICK);
    cluster.await_leader();
    let servers = all(&cluster);
    let ask = |words: &[&str]| {
        let (status, out, _) = client_py(&servers, words);
        (status, out)
    };
    assert_eq!(ask(&["get", "a"]), (Some(1), String::new()), "no such key");
    assert_eq!(ask(&["put", "a", "blue"]), (Some(0), String::new()));
    assert_eq!(ask(&["get", "a"]), (Some(0), "blue\n".to_string()));
    assert_eq!(ask(&["incr", "a", "1"]).0, Some(2), "blue is no number");
    assert_eq!(ask(&["incr", "n", "one"]).0, Some(2), "nor is this");
    assert_eq!(ask(&["putex", "a", "1000", "green"]), (Some(0), String::new()));
    assert_eq!(ask(&["get", "a"]), (Some(0), "green\n".to_string()));
    let told = cluster.nc(1, "TTL a\n");
    let left: i64 = told[1..].trim().parse().expect("seconds");
    assert!((1..=1000).contains(&left), "{left}");
    assert_eq!(ask(&["putex", "a", "soon", "green"]).0, Some(2), "that is no number");
    assert_eq!(ask(&["del", "a"]), (Some(0), String::new()));
    assert_eq!(ask(&["del", "a"]), (Some(1), String::new()));
    for (node, sum) in [(0, "5\n"), (1, "10\n"), (2, "15\n")] {
        let (status, out, errors) = client_py(&cluster.address(node), &["incr", "n", "5"]);
        assert_eq!((status, out.as_str()), (Some(0), sum), "redirected from {node}: {errors}");
    }
}

#[test]
#[ignore = "needs python3"]
fn a_client_written_from_the_document_loses_and_doubles_nothing_when_leaders_die() {
    const INCREMENTS: usize = 20;
    let mut cluster = Cluster::start(3, &QUICK);
    cluster.await_leader();
    let servers = all(&cluster);
    let writer = thread::spawn(move || {
        (0..INCREMENTS).map(|_| client_py(&servers, &["incr", "n", "1"])).collect::<Vec<_>>()
    });
    while !writer.is_finished() {
        let leader = cluster.await_leader();
        cluster.kill(leader);
        cluster.await_leader();
        cluster.start_node(leader);
        cluster.await_leader();
    }
    for (told, expected) in writer.join().expect("it ran").into_iter().zip(1..) {
        assert_eq!(told, (Some(0), format!("{expected}\n"), String::new()));
    }
    let counter = cluster.client_of(0, PATIENCE).get(b"n").expect("it is read").value;
    assert_eq!(counter, Some(INCREMENTS.to_string().into_bytes()));
}
