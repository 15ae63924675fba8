//! What concerns the whole process: signals, and running out of descriptors.

mod net_bench;

use net_bench::{Node, PATIENCE, config};
use raftkv::net::NetEvent;
use std::fs::File;
use std::io::Read;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

#[test]
fn signals_are_events() {
    let mut node = Node::start(config(None));
    use signal_hook::consts::*;
    let all = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM, SIGXCPU, SIGXFSZ];
    for signal in all {
        signal_hook::low_level::raise(signal).unwrap();
        node.find(|event| (*event == NetEvent::Signal(signal)).then_some(()));
    }
}

const CHILD: &str = "RAFTKV_TEST_FEW_DESCRIPTORS";

/// Runs the next test in a process of its own, with few descriptors.
#[test]
fn running_out_of_descriptors_turns_clients_away_and_ends() {
    let itself = std::env::current_exe().unwrap();
    let status = Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" --exact few_descriptors --ignored --nocapture"])
        .arg(itself)
        .env(CHILD, "1")
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
#[ignore = "needs few descriptors: the test before this one runs it"]
fn few_descriptors() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let mut node = Node::start(config(None));
    let (mut early, early_conn) = node.client();
    let mut late = Vec::new();
    let mut taken = Vec::new();
    // Every client of this test costs a descriptor of this process, too. So they connect first.
    for _ in 0..5 {
        late.push(node.connect());
    }
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    // Nothing is left to accept them with, and still they are not left hanging.
    for client in &mut late {
        turn_until_closed(&mut node, client);
    }
    node.send(early_conn, b"!");
    early.read_exact(&mut [0; 1]).unwrap();
    assert_eq!(node.net.connections(), 1);
    drop(taken);
    let (_client, conn) = node.client();
    assert_ne!(conn, early_conn, "accepting goes on as soon as there are descriptors");
}

fn turn_until_closed(node: &mut Node, client: &mut TcpStream) {
    client.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    for _ in 0..PATIENCE.as_millis() {
        node.turn();
        match client.read(&mut [0; 1]) {
            Ok(0) => return,
            Ok(_) => panic!("bytes from nowhere"),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
    panic!("left hanging");
}
