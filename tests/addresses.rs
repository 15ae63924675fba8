//! Clusters of real processes whose members know each other by name only, as pods do: the names move, lie, and
//! are not to be had for a while.

mod load;
mod names;
#[allow(dead_code)] // Other tests use the rest.
mod processes;

use load::{await_progress, check_told, with_writers};
use names::{Mood, NameServer, ResolverFiles};
use processes::{Cluster, await_condition};
use std::net::TcpListener;

const ALL: [usize; 3] = [0, 1, 2];

fn name(node: usize) -> String {
    format!("raft-{node}.test")
}

/// Three nodes at these addresses, none of them started, that ask one name server for each other.
fn pods(hosts: [&str; 3]) -> (Cluster, NameServer, ResolverFiles) {
    let names = NameServer::start(&[]);
    // Short, so that what is tried again within a test is tried often.
    let conf = format!("nameserver {}\noptions timeout:1 attempts:1\n", names.address());
    let files = ResolverFiles::new(&conf, "");
    let mut cluster = Cluster::stopped(3, &[]);
    cluster.use_names(files.config());
    for (node, host) in ALL.into_iter().zip(hosts) {
        move_to(&mut cluster, &names, node, host);
    }
    (cluster, names, files)
}

/// The next process of this node has this address, and its name says so.
fn move_to(cluster: &mut Cluster, names: &NameServer, node: usize, host: &str) {
    cluster.move_to(node, host);
    names.set(&name(node), &[host.trim_matches(['[', ']'])]);
}

fn start_all(cluster: &mut Cluster) -> usize {
    ALL.iter().for_each(|node| cluster.start_node(*node));
    cluster.await_voters(&ALL)
}

fn await_log(cluster: &Cluster, node: usize, part: &str) {
    await_condition(&format!("the log of raft-{node} to say {part:?}"), || {
        cluster.log(node).contains(part)
    });
}

/// Each in turn, also those whom the others dial, and the leader.
#[test]
fn nodes_that_return_with_another_address_are_found_under_load() {
    let (mut cluster, names, _files) = pods(["127.0.1.1", "127.0.1.2", "127.0.1.3"]);
    start_all(&mut cluster);
    let told = with_writers(&mut cluster, |cluster| {
        for node in ALL {
            let leader = cluster.await_leader();
            await_progress(cluster, leader);
            cluster.kill(node);
            move_to(cluster, &names, node, &format!("127.0.2.{}", node + 1));
            cluster.start_node(node);
            let leader = cluster.await_voters(&ALL);
            await_progress(cluster, leader);
        }
    });
    check_told(&cluster, &told);
    cluster.await_same_applied();
}

/// An address that another pod has got: the other one says who it is, and nobody takes it for the member.
#[test]
fn names_that_lead_to_the_wrong_node_bring_nobody_into_its_place() {
    let hosts = ["127.0.3.1", "127.0.3.2", "127.0.3.3"];
    let (mut cluster, names, _files) = pods(hosts);
    start_all(&mut cluster);
    cluster.client().put(b"colour", b"blue").expect("written");
    ALL.iter().for_each(|node| cluster.kill(*node));
    // raft-1 has the address and the port that the others look for raft-0 at.
    let mut impostor = cluster.command(1);
    impostor.args(["--listen", &cluster.address(0)]);
    cluster.start_node(2);
    cluster.start_command(1, impostor);
    await_log(&cluster, 2, "dialled raft-0 (number 0) and reached raft-1");
    assert_eq!(cluster.terminate(1).code(), Some(0));
    names.set(&name(0), &["127.0.3.4"]);
    cluster.move_to(0, "127.0.3.4");
    cluster.start_node(0);
    cluster.start_node(1);
    cluster.await_voters(&ALL);
    let read = cluster.client().get(b"colour").expect("read");
    assert_eq!(read.value.as_deref(), Some(&b"blue"[..]));
    cluster.await_same_applied();
}

/// Connections that are there need no names; what comes meanwhile waits, and is found afterwards.
#[test]
fn a_name_server_that_is_down_stops_no_cluster_that_runs() {
    for mood in [Mood::Silent, Mood::Fails] {
        let (mut cluster, names, _files) = pods(["127.0.4.1", "127.0.4.2", "127.0.4.3"]);
        let leader = start_all(&mut cluster);
        let told = with_writers(&mut cluster, |cluster| {
            await_progress(cluster, leader);
            names.behave(mood);
            await_progress(cluster, leader);
            let others: Vec<usize> = ALL.into_iter().filter(|node| *node != leader).collect();
            cluster.kill(leader);
            let next = cluster.await_leader_among(&others);
            assert_ne!(next, leader);
            let asked = names.asked();
            cluster.start_node(leader);
            await_condition("somebody to ask in vain", || names.asked() > asked);
            names.behave(Mood::Answers);
            let leader = cluster.await_voters(&ALL);
            await_progress(cluster, leader);
        });
        check_told(&cluster, &told);
        cluster.await_same_applied();
    }
}

/// All of them start while nobody answers for their names, and are founded when somebody does.
#[test]
fn a_cluster_that_starts_without_a_name_server_is_founded_when_there_is_one() {
    let (mut cluster, names, _files) = pods(["127.0.5.1", "127.0.5.2", "127.0.5.3"]);
    names.behave(Mood::Silent);
    ALL.iter().for_each(|node| cluster.start_node(*node));
    for node in [1, 2] {
        await_log(&cluster, node, "raft-0 cannot be reached: raft-0.test: no answer from");
    }
    names.behave(Mood::Answers);
    cluster.await_voters(&ALL);
}

#[test]
fn a_cluster_with_ipv6_addresses_only_is_founded_and_survives_its_leader() {
    if TcpListener::bind("[::1]:0").is_err() {
        return eprintln!("SKIPPED: this machine has no IPv6");
    }
    let (mut cluster, _names, _files) = pods(["[::1]"; 3]);
    let leader = start_all(&mut cluster);
    let told = with_writers(&mut cluster, |cluster| {
        await_progress(cluster, leader);
        cluster.kill(leader);
        let others: Vec<usize> = ALL.into_iter().filter(|node| *node != leader).collect();
        let next = cluster.await_leader_among(&others);
        await_progress(cluster, next);
        cluster.start_node(leader);
        cluster.await_voters(&ALL);
    });
    check_told(&cluster, &told);
    cluster.await_same_applied();
}

/// Nodes that listen on both kinds, one whose name has only the one, one only the other, and one both.
#[test]
fn nodes_with_different_kinds_of_addresses_make_one_cluster() {
    if TcpListener::bind("[::]:0").is_err() {
        return eprintln!("SKIPPED: this machine has no IPv6");
    }
    let (mut cluster, names, _files) = pods(["127.0.0.1"; 3]);
    for (node, addresses) in [(0, &["::1"][..]), (1, &["127.0.0.1"]), (2, &["127.0.0.1", "::1"])] {
        names.set(&name(node), addresses);
        let port = cluster.address(node).rsplit(':').next().expect("a port").to_string();
        let mut command = cluster.command(node);
        command.args(["--listen", &format!("[::]:{port}")]);
        cluster.start_command(node, command);
    }
    let leader = cluster.await_voters(&ALL);
    let told = with_writers(&mut cluster, |cluster| await_progress(cluster, leader));
    check_told(&cluster, &told);
    cluster.await_same_applied();
}
