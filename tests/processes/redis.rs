//! Redis's libraries as clients of a cluster whose leader dies.

use super::Cluster;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

pub const QUICK: [&str; 4] = ["--heartbeat", "20ms", "--election", "150ms"];

/// Kills the leader once the client says `writing`; returns what else it says until it ends, well.
pub fn killing_the_leader(cluster: &mut Cluster, leader: usize, client: &mut Command) -> String {
    let mut client = client.stdout(Stdio::piped()).spawn().expect("the client starts");
    let mut output = BufReader::new(client.stdout.take().expect("it is piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("it says that it begins");
    assert_eq!(line, "writing\n");
    cluster.kill(leader);
    let mut said = String::new();
    output.read_to_string(&mut said).expect("it writes");
    assert!(client.wait().expect("it ends").success());
    said
}

/// `client`, told all ports and the leader's, writes at whom the sentinels call the leader, and says how many writes
/// were acknowledged and where the last one was.
pub fn sentinel_client_survives_the_leader(mut client: Command) {
    let mut cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let ports: Vec<String> = (0..3).map(|node| cluster.port(node)).collect();
    client.args([&ports.join(","), &ports[leader]]);
    let said = killing_the_leader(&mut cluster, leader, &mut client);
    let (acknowledged, new) = said.trim().split_once(' ').expect("two numbers");
    assert!(acknowledged.parse::<u32>().expect("a number") >= 200, "{said}");
    let next = cluster.await_leader_among(&cluster.running());
    assert_eq!(new, ports[next], "it found the leader there is");
    println!("acknowledged {acknowledged}, then led by {new}");
}
