//! `WHY` and `RAFT` against real processes: what a node says of a cluster that works, lacks something or has no
//! leader, and changes of members by hand.

#[allow(dead_code)] // Other tests use the rest.
mod processes;

use processes::{Cluster, await_condition};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};

const QUICK: [&str; 4] = ["--heartbeat", "20ms", "--election", "150ms"];
/// For what is told of one term: a busy machine brings about no other one.
const STEADY: [&str; 4] = ["--heartbeat", "50ms", "--election", "600ms"];

/// A text for people, as `nc` gets it.
fn text(cluster: &Cluster, node: usize, line: &str) -> String {
    let answer = cluster.nc(node, &format!("{line}\n"));
    let (head, text) = answer.split_once("\r\n").expect("a line of its own for the length");
    let length: usize = head[1..].parse().unwrap_or_else(|_| panic!("{answer}"));
    assert_eq!(text.len(), length + 2, "{answer}");
    text.trim_end().to_string()
}

fn why(cluster: &Cluster, node: usize) -> String {
    text(cluster, node, "WHY")
}

/// Waits until the first line is this, and further lines begin so.
fn await_why(cluster: &Cluster, node: usize, headline: &str, details: &[&str]) -> String {
    let mut said = String::new();
    await_condition(&format!("raft-{node} to say: {headline} {details:?}"), || {
        let now = why(cluster, node);
        if now != said {
            println!("raft-{node}: {now}");
            said = now;
        }
        let says = |detail: &&str| said.lines().skip(1).any(|line| line.starts_with(detail));
        said.lines().next() == Some(headline) && details.iter().all(says)
    });
    said
}

fn await_answers(cluster: &Cluster, node: usize) {
    await_condition("the node to answer", || cluster.info(node).is_some());
}

fn term(cluster: &Cluster, node: usize) -> String {
    cluster.info(node).expect("it answers")["raft_term"].clone()
}

#[test]
fn a_cluster_that_works_and_one_that_lacks_a_node_are_told_apart_at_every_node() {
    let mut cluster = Cluster::start(3, &STEADY);
    let leader = cluster.await_leader();
    let (follower, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let term = term(&cluster, leader);
    let all = format!("All 3 nodes work. raft-{leader} leads term {term}.");
    await_why(&cluster, leader, &all, &[]);
    let reaches =
        format!("raft-{leader} leads term {term}, and raft-{follower} reaches all 3 nodes.");
    await_why(&cluster, follower, &reaches, &[]);

    cluster.kill(other);
    let two = format!(
        "2 of 3 nodes work. raft-{leader} leads term {term}; if one more voter fails, there is no majority."
    );
    let gone = format!("raft-{other}: not connected for ");
    await_why(&cluster, leader, &two, &[&gone]);
    let reaches = format!("raft-{leader} leads term {term}; raft-{follower} reaches 2 of 3 nodes.");
    await_why(&cluster, follower, &reaches, &[&gone]);
    cluster.start_node(other);
    await_why(&cluster, leader, &all, &[]);

    cluster.pause(other);
    let hangs = format!("raft-{other}: connected, silent for ");
    await_why(&cluster, leader, &two, &[&hangs]);
    cluster.resume(other);
    await_why(&cluster, leader, &all, &[]);
}

#[test]
fn without_a_majority_every_voter_that_is_missed_is_named_with_the_reason() {
    let mut cluster = Cluster::start(3, &STEADY);
    let leader = cluster.await_leader();
    let (dead, hangs) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.pause(hangs);
    cluster.kill(dead);
    let headline = format!(
        "There is no leader in term {}: raft-{leader} reaches 0 of 2 other voters, and 2 of 3 must reach each other.",
        term(&cluster, leader)
    );
    let details = [
        format!("raft-{leader}: has known no leader for "),
        format!("raft-{dead}: not connected for "),
        format!("raft-{hangs}: connected, silent for "),
    ];
    let said = await_why(&cluster, leader, &headline, &details.each_ref().map(String::as_str));
    assert_eq!(said.lines().count(), 4, "{said}");
    let refused = format!("refused by {}", cluster.address(dead));
    await_condition("the reason", || why(&cluster, leader).contains(&refused));
    cluster.resume(hangs);
    cluster.start_node(dead);
    cluster.await_leader();
}

/// Two followers have nothing to say to each other while there is a leader.
#[test]
fn a_follower_that_was_not_asked_is_not_called_silent() {
    let cluster = Cluster::start(3, &STEADY);
    let leader = cluster.await_leader();
    let (asking, other) = ((leader + 1) % 3, (leader + 2) % 3);
    // Longer than anybody who is asked may be silent.
    await_condition("the connection to be old", || {
        cluster.info(asking).expect("it answers")["uptime_in_seconds"].parse::<u64>().unwrap_or(0)
            >= 4
    });
    assert_eq!(cluster.await_leader(), leader, "nothing has happened");
    cluster.pause(leader);
    cluster.pause(other);
    let mut said = String::new();
    await_condition("the leader to be missed", || {
        said = why(&cluster, asking);
        said.starts_with("There is no leader")
    });
    assert!(said.contains(": an election is under way; raft-"), "{said}");
    assert!(!said.contains("silent"), "{said}");
    await_condition("the silence to be told", || {
        why(&cluster, asking).contains("connected, silent")
    });
    cluster.resume(leader);
    cluster.resume(other);
}

#[test]
fn a_name_that_leads_nowhere_is_named() {
    let mut cluster = Cluster::start(3, &QUICK);
    cluster.await_leader();
    (0..3).for_each(|node| cluster.kill(node));
    let hosts = cluster.data_dir(2).join("../hosts");
    fs::write(&hosts, "127.0.0.1 somebody-else\n").expect("the folder is the test's own");
    let elsewhere = cluster.address(0).replace("127.0.0.1", "raft-0.nowhere.invalid");
    let peers =
        format!("raft-0={elsewhere},raft-1={},raft-2={}", cluster.address(1), cluster.address(2));
    let mut command = cluster.command(2);
    command.args(["--peers", &peers, "--resolv-conf", "/nonexistent/resolv.conf"]);
    command.arg("--hosts").arg(&hosts);
    cluster.start_command(2, command);
    await_answers(&cluster, 2);
    await_condition("the name to be told", || {
        let said = why(&cluster, 2);
        let of = |node: usize| {
            let line = format!("raft-{node}: not connected for ");
            said.lines().find(|said| said.starts_with(&line)).unwrap_or_default().to_string()
        };
        said.starts_with("There is no leader in term ")
            && of(0).contains("raft-0.nowhere.invalid")
            && of(1).contains("refused by")
    });
}

#[test]
fn a_node_that_belongs_to_no_cluster_says_for_whom_it_waits() {
    let mut cluster = Cluster::stopped(3, &QUICK);
    cluster.start_node(0);
    await_answers(&cluster, 0);
    let headline = "raft-0 is not ready: it belongs to no cluster: it waits for all initial members to have \
                    an empty disk: raft-1 (not connected), raft-2 (not connected).";
    await_why(&cluster, 0, headline, &["raft-1: not connected for ", "raft-2: not connected for "]);
    cluster.start_node(1);
    cluster.start_node(2);
    cluster.await_leader();
}

/// One voter is dead, one has lost a part of its log: the third one cannot be elected, and says who refuses.
#[test]
fn a_damaged_voter_says_so_and_is_seen_to_refuse_its_vote() {
    let mut cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let mut client = cluster.client();
    for key in 0..100 {
        client.put(format!("k{key}").as_bytes(), &[b'v'; 300]).expect("it is written");
    }
    (0..3).for_each(|node| cluster.kill(node));
    cluster.damage_log(leader);
    let sound = (leader + 1) % 3;
    cluster.start_node(leader);
    cluster.start_node(sound);
    [leader, sound].iter().for_each(|node| await_answers(&cluster, *node));
    let lost =
        format!("raft-{leader}: its disk has lost data; it does not vote until it has it back");
    await_condition("the damage to be told", || why(&cluster, leader).contains(&lost));
    let refuses = format!("raft-{leader}: connected, refuses raft-{sound} its vote: ");
    await_condition("the refusal to be told", || why(&cluster, sound).contains(&refuses));
    await_condition("that it lasts to be told", || {
        why(&cluster, sound).contains(": some may have lost data, and do not vote.")
    });
    cluster.start_node((leader + 2) % 3);
    cluster.await_leader();
}

#[test]
fn raft_tells_of_the_cluster_at_every_node() {
    let cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    cluster.await_same_applied();
    let name = format!("raft-{leader}");
    let address = cluster.address(leader);
    let expected =
        format!("*2\r\n${}\r\n{name}\r\n${}\r\n{address}\r\n", name.len(), address.len());
    for node in 0..3 {
        assert_eq!(cluster.nc(node, "RAFT LEADER\n"), expected);
        let members = cluster.nc(node, "raft members\n");
        assert!(members.starts_with("*3\r\n*16\r\n"), "{members}");
        for other in 0..3 {
            assert!(members.contains(&format!("\r\n{}\r\n", cluster.address(other))), "{members}");
        }
        assert_eq!(members.matches("\r\nvoter\r\n").count(), 3, "{members}");
        assert_eq!(members.matches("\r\nleader\r\n").count(), 1, "{members}");
        // Only the leader knows how far the others are; every node knows it of itself.
        let unknown = if node == leader { 0 } else { 4 };
        assert_eq!(members.matches("$-1\r\n").count(), unknown, "{members}");
        let status = cluster.nc(node, "RAFT STATUS\n");
        assert!(status.contains(&format!("\r\nraft_name\r\n$6\r\nraft-{node}\r\n")), "{status}");
    }
    assert!(text(&cluster, 0, "RAFT HELP").contains("RAFT TRANSFER [name]"));
    let mut stream = cluster.connect(0);
    stream.write_all(b"HELLO 3\r\nRAFT MEMBERS\r\nECHO end\r\n").expect("it is sent");
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("it answers"));
    assert!(lines.by_ref().any(|line| line == "*3"), "the greeting, then the members");
    assert_eq!(lines.next().as_deref(), Some("%8"), "maps in RESP3");
    assert!(lines.any(|line| line == "end"));
}

#[test]
fn raft_changes_are_carried_out_from_any_node() {
    let mut flags = QUICK.to_vec();
    flags.extend(["--auto-members", "off"]);
    let mut cluster = Cluster::with_joiners(4, 3, &flags);
    (0..3).for_each(|node| cluster.start_node(node));
    let leader = cluster.await_leader();
    let follower = (leader + 1) % 3;
    assert_eq!(cluster.nc(follower, &format!("RAFT TRANSFER raft-{follower}\n")), "+OK\r\n");
    assert_eq!(cluster.await_leader(), follower);
    let asked = (follower + 1) % 3;

    let answer = cluster.nc(asked, "RAFT ADD raft-3\n");
    assert!(answer.starts_with("-ERR raft-3 does not wait to be taken in"), "{answer}");
    assert!(answer.ends_with("nothing was done\r\n"), "{answer}");
    cluster.start_node(3);
    await_condition("it waits", || cluster.nc(asked, "RAFT ADD raft-3\n") == "+OK\r\n");
    await_condition("it is a learner that has caught up", || {
        cluster.nc(asked, "RAFT PROMOTE raft-3\n") == "+OK\r\n"
    });
    cluster.await_voters(&[0, 1, 2, 3]);
    assert_eq!(cluster.nc(asked, "RAFT REMOVE raft-3\n"), "+OK\r\n");
    await_condition("three are left", || {
        cluster.nc(asked, "RAFT MEMBERS\n").matches("\r\nvoter\r\n").count() == 3
    });
}

#[test]
fn what_raft_cannot_read_is_refused_here_and_costs_no_connection() {
    let cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let follower = (leader + 1) % 3;
    let long = "n".repeat(256);
    for (line, error) in [
        ("RAFT", "-ERR wrong number of arguments for 'raft' command"),
        ("RAFT ADD", "-ERR wrong number of arguments for 'raft|add' command"),
        ("RAFT LEADER x", "-ERR wrong number of arguments for 'raft|leader' command"),
        ("RAFT ELECT", "-ERR unknown subcommand 'ELECT'. Try RAFT HELP."),
        ("RAFT REMOVE nobody", "-ERR nobody: "),
        ("RAFT TRANSFER nobody", "-ERR nobody is not a member; nothing was done"),
        ("RAFT REMOVE \"\"", "-ERR a member's name has 1 to 255 bytes, not 0; nothing was done"),
        ("RAFT REMOVE \"\\xff\"", "-ERR the name \u{fffd} is not UTF-8; nothing was done"),
        (&format!("RAFT REMOVE {long}"), "-ERR a member's name has 1 to 255 bytes, not 256"),
        ("WHY not", "-ERR wrong number of arguments for 'why' command"),
    ] {
        let answer = cluster.nc(follower, &format!("{line}\n"));
        assert!(answer.starts_with(error), "{line}: {answer}");
    }
    assert_eq!(
        cluster.nc(follower, "SET a 1\n"),
        "+OK\r\n",
        "the way to the leader is still there"
    );
    assert!(!cluster.log(follower).contains("is disconnected"), "{}", cluster.log(follower));
}

#[test]
fn the_leader_is_nobody_while_there_is_none() {
    let mut cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    cluster.kill((leader + 1) % 3);
    cluster.kill((leader + 2) % 3);
    await_condition("nobody to lead", || cluster.nc(leader, "RAFT LEADER\n") == "$-1\r\n");
    let members = cluster.nc(leader, "RAFT MEMBERS\n");
    assert_eq!(members.matches("\r\nunknown\r\n").count(), 2, "{members}");
    assert!(cluster.nc(leader, "RAFT TRANSFER\n").starts_with("-CLUSTERDOWN "));
    let mut stream = cluster.connect(leader);
    stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.contains(": not connected for "), "the same words: {answer}");
}
