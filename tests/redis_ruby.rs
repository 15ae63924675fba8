//! redis-rb as a client of Sentinel, through the death of the leader. It checks the `ROLE` of every server
//! that it is sent to, which redis-py does not.
//!
//! It needs ruby with the gem `redis` (Debian: ruby-redis), which `cargo test` does not.

#[allow(dead_code)] // Other tests use the rest.
mod processes;

use processes::Cluster;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

const QUICK: [&str; 4] = ["--heartbeat", "20ms", "--election", "150ms"];

#[test]
#[ignore = "needs ruby with redis"]
fn it_writes_through_the_death_of_the_leader() {
    let mut cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let port = |node| cluster.address(node).rsplit_once(':').expect("host:port").1.to_owned();
    let ports: Vec<String> = (0..3).map(port).collect();
    let mut child = Command::new("ruby")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/redis_ruby.rb"))
        .args([&ports.join(","), &ports[leader]])
        .stdout(Stdio::piped())
        .spawn()
        .expect("ruby starts");
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
