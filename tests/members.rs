//! Real processes that come, go, lose their disks and hand over.

mod load;
#[allow(dead_code)] // Other tests use the rest.
mod processes;

use load::{await_progress, check_told, with_writers};
use processes::{Cluster, Info, PATIENCE, await_condition, run};
use raftkv::kv::MemberRequest;
use raftkv::node::{PeerMessage, Standing};
use raftkv::protocol::frame::{self, FrameStep};
use raftkv::protocol::hello::{HELLO_BYTES_MAX, Hello, Role, VERSION_MAX, VERSION_MIN};
use raftkv::protocol::peer;
use raftkv::raft::Message;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

const ALL: [usize; 3] = [0, 1, 2];

fn field(cluster: &Cluster, node: usize, name: &str) -> String {
    let info = cluster.info(node).unwrap_or_default();
    info.get(name).cloned().unwrap_or_default()
}

fn await_field(cluster: &Cluster, node: usize, name: &str, part: &str) {
    await_condition(&format!("{name} of raft-{node} to say {part:?}"), || {
        field(cluster, node, name).contains(part)
    });
}

fn await_log(cluster: &Cluster, node: usize, part: &str) {
    await_condition(&format!("the log of raft-{node} to say {part:?}"), || {
        cluster.log(node).contains(part)
    });
}

fn info(cluster: &Cluster, node: usize) -> Info {
    cluster.info(node).expect("it answers")
}

/// The client program on all nodes.
fn cltraft(cluster: &Cluster, words: &[&str]) -> (Option<i32>, String, String) {
    let servers: Vec<String> = (0..cluster.size()).map(|node| cluster.address(node)).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cltraft"));
    run(command.env_clear().args(["--servers", &servers.join(","), "--timeout", "20s"]).args(words))
}

fn recover(cluster: &Cluster, node: usize, words: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_srvraft"));
    command.env_clear().arg("recover").arg(format!("raft-{node}"));
    run(command.arg("--data-dir").arg(cluster.data_dir(node)).args(words))
}

fn remove(cluster: &Cluster, node: usize) {
    let request = MemberRequest::Remove { name: format!("raft-{node}") };
    cluster.client().member(request).expect("it is a member");
}

// Restarts and lost disks under load.

#[test]
fn a_rolling_restart_of_all_nodes_under_load_loses_and_doubles_nothing() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.await_leader();
    let told = with_writers(&mut cluster, |cluster| {
        for node in ALL {
            let leader = cluster.await_leader();
            await_progress(cluster, leader);
            assert_eq!(cluster.terminate(node).code(), Some(0));
            let leader = cluster.await_leader();
            await_progress(cluster, leader);
            cluster.start_node(node);
            cluster.await_voters(&ALL);
        }
    });
    check_told(&cluster, &told);
    cluster.await_same_applied();
}

#[test]
fn nodes_that_lose_their_disks_under_load_come_back_by_themselves() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.await_leader();
    let told = with_writers(&mut cluster, |cluster| {
        // A follower's, then the leader's.
        for node in [(leader + 1) % 3, cluster.await_leader()] {
            let before = field(cluster, node, "incarnation");
            let successor = cluster.await_leader();
            await_progress(cluster, successor);
            cluster.kill(node);
            cluster.wipe(node);
            cluster.start_node(node);
            let leader = cluster.await_voters(&ALL);
            assert_ne!(field(cluster, node, "incarnation"), before, "it is another node");
            await_progress(cluster, leader);
        }
    });
    check_told(&cluster, &told);
    cluster.await_same_applied();
}

#[test]
fn a_cluster_grows_to_five_and_shrinks_to_three_under_load() {
    let mut cluster = Cluster::with_joiners(5, 3, &[]);
    ALL.iter().for_each(|node| cluster.start_node(*node));
    cluster.await_voters(&ALL);
    let told = with_writers(&mut cluster, |cluster| {
        cluster.start_node(3);
        cluster.start_node(4);
        let leader = cluster.await_voters(&[0, 1, 2, 3, 4]);
        await_progress(cluster, leader);
        for node in [3, 4] {
            remove(cluster, node);
            await_field(cluster, node, "raft_role", "removed");
        }
        let leader = cluster.await_voters(&ALL);
        await_progress(cluster, leader);
    });
    for node in [3, 4] {
        assert_eq!(cluster.terminate(node).code(), Some(0));
    }
    check_told(&cluster, &told);
    cluster.await_same_applied();
}

// Founding.

#[test]
fn a_cluster_is_founded_in_whatever_order_and_however_late_its_nodes_start() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut cluster = Cluster::stopped(3, &[]);
        for (at, node) in order.into_iter().enumerate() {
            cluster.start_node(node);
            // Those that are there know whom they wait for; nobody else is in the list.
            for (missing, there) in order[at + 1..]
                .iter()
                .flat_map(|missing| order[..=at].iter().map(move |there| (missing, there)))
            {
                await_field(
                    &cluster,
                    *there,
                    "raft_waits_for",
                    &format!("raft-{missing} (not con"),
                );
                assert_eq!(field(&cluster, *there, "raft_role"), "waiting");
            }
        }
        cluster.await_voters(&ALL);
        assert_eq!(field(&cluster, 0, "raft_waits_for"), "");
        cluster.client().put(b"a", b"1").expect("it is written");
    }
}

#[test]
fn two_wiped_disks_of_three_never_found_a_cluster_and_all_say_what_they_wait_for() {
    let mut cluster = Cluster::start(3, &["--heartbeat", "10ms", "--election", "100ms"]);
    cluster.await_leader();
    cluster.client().put(b"colour", b"blue").expect("it is written");
    let founded = field(&cluster, 2, "raft_cluster_id");
    cluster.await_same_applied();
    ALL.iter().for_each(|node| cluster.kill(*node));
    // Among them the one that would found a new cluster.
    let kept = [cluster.wipe(0), cluster.wipe(1)];
    ALL.iter().for_each(|node| cluster.start_node(*node));

    let advice = "srvraft recover raft-2 --data-dir DIR --accept-loss-of raft-0,raft-1";
    await_field(&cluster, 2, "raft_waits_for", advice);
    await_log(&cluster, 2, advice);
    // That is after ten elections.
    await_log(&cluster, 2, "raft-2 has had no leader for");
    for node in [0, 1] {
        assert_eq!(field(&cluster, node, "raft_role"), "waiting");
        let what = field(&cluster, node, "raft_waits_for");
        assert!(what.contains("to be taken in by the leader of the cluster"), "{what}");
    }
    let (status, _, errors) = cltraft(&cluster, &["status"]);
    assert_eq!(status, Some(1));
    assert!(errors.contains("no majority: 1 of 3 voters answered"), "{errors}");
    assert!(errors.contains(advice) && errors.contains("raft-0 waits to be taken in"), "{errors}");

    recover_and_refuse_old_folders(&mut cluster, &founded, &kept[1]);
}

/// Whoever founds a cluster relies on it.
#[test]
fn a_node_that_has_data_says_so_in_the_first_words_that_it_ever_says() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.await_leader();
    cluster.client().put(b"a", b"1").expect("it is written");
    cluster.await_same_applied();
    ALL.iter().for_each(|node| cluster.kill(*node));
    let listener = TcpListener::bind(cluster.address(0)).expect("the port is free again");
    cluster.start_node(2);
    let (mut stream, _) = listener.accept().expect("it dials those with lower numbers");
    let mut bytes = Vec::new();
    let hello = loop {
        let mut more = [0; 1024];
        let count = stream.read(&mut more).expect("it speaks first");
        assert!(count > 0, "it says something");
        bytes.extend_from_slice(&more[..count]);
        let Some(frames) = bytes.get(frame::MAGIC.len()..) else { continue };
        if let Ok(FrameStep::Frame { payload, .. }) = frame::next_frame(frames, HELLO_BYTES_MAX) {
            break Hello::decode(payload).expect("a hello");
        }
    };
    let founded = field(&cluster, 2, "raft_cluster_id");
    let Role::Peer { standing: Standing::Member { cluster_id }, .. } = hello.role else {
        panic!("{hello:?}");
    };
    assert_eq!(format!("{cluster_id:016x}"), founded);
}

/// One message of 26 bytes, from a node that is not even a member.
#[test]
fn a_stranger_that_asks_for_votes_of_the_last_term_leaves_the_leader_where_it_is() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.await_leader();
    let follower = (leader + 1) % 3;
    let info = cluster.info(follower).expect("it answers");
    let (number, incarnation) = (7, 7);
    let role = Role::Peer {
        node: number,
        incarnation,
        name: format!("raft-{number}"),
        standing: Standing::Empty,
        address: "127.0.0.1:1".to_string(),
        limits: None,
    };
    let cluster_id = u64::from_str_radix(&info["cluster_id"], 16).expect("a number");
    let hello = Hello { version_min: VERSION_MIN, version_max: VERSION_MAX, cluster_id, role };
    let (term, by_leader) = (i64::MAX as u64, true);
    let vote = Message::RequestVote { term, last_log_index: 9, last_log_term: term, by_leader };
    let mut bytes = frame::MAGIC.to_vec();
    frame::put_frame(&mut bytes, |out| hello.encode(out));
    frame::put_frame(&mut bytes, |out| peer::encode(&PeerMessage::Raft(vote), out));
    let mut stream = cluster.connect(follower);
    stream.write_all(&bytes).expect("it is sent");
    let mut said = Vec::new();
    // Closed, maybe with bytes unread.
    stream.read_to_end(&mut said).ok();
    let now = cluster.info(follower).expect("it answers");
    assert_eq!(
        (&now["raft_term"], &now["raft_leader"]),
        (&info["raft_term"], &info["raft_leader"])
    );
    assert!(cluster.log(follower).contains("from a node that is no member"));
    cluster.client().put(b"a", b"1").expect("it is written");
}

/// The only node that has its data becomes the cluster.
fn recover_and_refuse_old_folders(cluster: &mut Cluster, founded: &str, kept: &std::path::Path) {
    let (status, _, errors) = recover(cluster, 2, &["--accept-loss-of", "raft-0,raft-1"]);
    assert_eq!(status, Some(1), "it runs");
    assert!(errors.contains("in use by another process"), "{errors}");
    cluster.kill(2);
    let (status, _, errors) = recover(cluster, 2, &[]);
    assert_eq!(status, Some(1), "nobody has accepted the loss");
    assert!(errors.contains("say so: --accept-loss-of raft-0,raft-1"), "{errors}");
    let (status, said, errors) = recover(cluster, 2, &["--accept-loss-of", "raft-0,raft-1"]);
    assert_eq!(status, Some(0), "{errors}");
    assert!(
        said.contains(&format!("before:  cluster {founded} of raft-0, raft-1, raft-2")),
        "{said}"
    );
    cluster.start_node(2);
    cluster.await_voters(&ALL);
    assert_ne!(field(cluster, 2, "raft_cluster_id"), founded);
    let value = cluster.client().get(b"colour").expect("it is read").value;
    assert_eq!(value.as_deref(), Some(&b"blue"[..]), "what the folder held is there");

    cluster.kill(1);
    cluster.wipe(1);
    fs::rename(kept, cluster.data_dir(1)).expect("the old disk is found again");
    cluster.start_node(1);
    let reason = format!("raft-1 holds data of the cluster founded as {founded}");
    await_log(cluster, 0, &reason);
    await_log(cluster, 1, &reason);
    // Of two that refuse each other, each names the other one.
    await_log(cluster, 2, &format!("raft-1 of {founded}: start one of them with an empty folder"));
    let (status, _, errors) = cltraft(cluster, &["status"]);
    assert_eq!(status, Some(1));
    assert!(errors.contains(&reason), "{errors}");
}

// Who is not let in.

#[test]
fn a_data_folder_of_a_cluster_founded_separately_is_refused_and_both_say_why() {
    let mut ours = Cluster::start(3, &[]);
    let mut others = Cluster::start(3, &[]);
    ours.await_voters(&ALL);
    others.await_voters(&ALL);
    let (founded, theirs) =
        (field(&ours, 0, "raft_cluster_id"), field(&others, 0, "raft_cluster_id"));
    ours.kill(2);
    ours.wipe(2);
    others.kill(2);
    fs::rename(others.data_dir(2), ours.data_dir(2)).expect("a mistake with the disks");
    ours.start_node(2);
    let reason = format!("raft-2 holds data of the cluster founded as {theirs}");
    await_log(&ours, 2, &reason);
    await_log(&ours, 0, &reason);
    await_field(&ours, 0, "peer_raft-2", &reason);
    assert!(ours.log(0).contains(&format!("of {founded}: start one of them")), "{}", ours.log(0));
    let refused = ours.log(0).matches(&reason).count();
    assert_eq!(refused, 1, "once per reason, however often it tries");
    ours.client().put(b"a", b"1").expect("the others go on");
    let fields = info(&ours, 0);
    assert!(fields["member_raft-2"].starts_with("voter,"), "nobody took its place");
}

#[test]
fn a_second_process_under_the_name_of_a_member_is_refused_and_the_first_stays() {
    let mut cluster = Cluster::with_joiners(4, 3, &[]);
    ALL.iter().for_each(|node| cluster.start_node(*node));
    cluster.await_voters(&ALL);
    let before = info(&cluster, 0)["member_raft-2"].clone();
    // In the place of the fourth, with a folder of its own, and the name of the third.
    let mut command = cluster.command(2);
    let address = cluster.address(3);
    command.args(["--listen", &address, "--advertise", &address]);
    command.arg("--data-dir").arg(cluster.data_dir(3));
    cluster.start_command(3, command);
    let reason = "another process runs under the name raft-2, with another data folder";
    await_log(&cluster, 3, reason);
    await_log(&cluster, 0, reason);
    // It goes on trying, longer than a member may be silent.
    let told = cluster.info(0).and_then(|info| info.get("refused_0").cloned());
    assert!(told.is_some_and(|told| told.contains(reason)), "the status says so too");
    let began = Instant::now();
    await_condition("the second one to have tried for a while", || {
        assert_eq!(info(&cluster, 0)["member_raft-2"], before, "the first one keeps its place");
        began.elapsed() > Duration::from_secs(3)
    });
    assert_eq!(field(&cluster, 2, "peer_raft-0"), "connected");
    assert_eq!(field(&cluster, 3, "raft_role"), "waiting");
}

/// Whoever is empty is let in by every cluster of its name; it must not stay with all of them.
#[test]
fn a_node_that_two_clusters_have_met_belongs_to_the_one_that_takes_it_in() {
    let mut cluster = Cluster::with_joiners(5, 4, &[]);
    let peers = |cluster: &Cluster, nodes: &[usize]| {
        let peer = |node: &usize| format!("raft-{node}={}", cluster.address(*node));
        nodes.iter().map(peer).collect::<Vec<_>>().join(",")
    };
    let mut command = cluster.command(0);
    command.args(["--peers", &peers(&cluster, &[0]), "--auto-members", "off"]);
    cluster.start_command(0, command);
    for node in [1, 2, 3] {
        let mut command = cluster.command(node);
        command.args(["--peers", &peers(&cluster, &[1, 2, 3])]);
        cluster.start_command(node, command);
    }
    cluster.await_voters(&[0]);
    cluster.await_voters(&[1, 2, 3]);
    // It dials all of them.
    cluster.start_node(4);
    cluster.await_voters(&[1, 2, 3, 4]);
    await_log(&cluster, 4, "raft-0 is disconnected: it belongs to another cluster");
    await_log(
        &cluster,
        4,
        "raft-0: it refuses this node: Cluster: raft-4 holds data of the cluster",
    );
    await_condition("the other cluster to count on it no more", || {
        cluster.info(0).is_some_and(|info| !info.contains_key("applicant_raft-4"))
    });
}

// Members that go.

#[test]
fn a_removed_node_that_did_not_hear_of_it_is_told_and_disturbs_nobody() {
    let mut cluster = Cluster::with_joiners(4, 3, &[]);
    (0..4).for_each(|node| cluster.start_node(node));
    cluster.await_voters(&[0, 1, 2, 3]);
    cluster.kill(3);
    remove(&cluster, 3);
    let leader = cluster.await_voters(&ALL);
    let term = field(&cluster, leader, "raft_term");
    cluster.start_node(3);
    await_log(&cluster, 3, "raft-3 was removed from the cluster");
    await_field(&cluster, 3, "raft_role", "removed");
    let refused = cluster.client_of(3, Duration::from_millis(300)).put(b"a", b"1");
    let refused = refused.expect_err("it is no member").to_string();
    assert!(refused.starts_with("not done"), "{refused}");
    let (status, table, notes) = cltraft(&cluster, &["status"]);
    assert_eq!(status, Some(0), "the cluster is healthy: {notes}");
    assert!(table.contains("removed"), "{table}");
    assert!(notes.contains("note: raft-3 was removed from the cluster"), "{notes}");
    assert_eq!(cluster.terminate(3).code(), Some(0));
    assert_eq!(cluster.await_leader(), leader, "the leader stays");
    assert_eq!(field(&cluster, leader, "raft_term"), term, "nobody had to campaign");
    cluster.wipe(3);
    cluster.start_node(3);
    cluster.await_voters(&[0, 1, 2, 3]);
}

#[test]
fn a_leader_removes_itself_and_the_others_go_on() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.await_voters(&ALL);
    let (status, said, errors) =
        cltraft(&cluster, &["member", "remove", &format!("raft-{leader}")]);
    assert_eq!(status, Some(0), "{errors}");
    assert!(said.starts_with(&format!("raft-{leader} is removed, since index ")), "{said}");
    await_field(&cluster, leader, "raft_role", "removed");
    let left: Vec<usize> = ALL.into_iter().filter(|node| *node != leader).collect();
    cluster.await_voters(&left);
    cluster.client().put(b"a", b"1").expect("two of two");
}

#[test]
fn without_auto_members_a_node_comes_in_by_hand() {
    let mut cluster = Cluster::with_joiners(4, 3, &["--auto-members", "off"]);
    ALL.iter().for_each(|node| cluster.start_node(*node));
    cluster.await_voters(&ALL);
    let (status, _, errors) = cltraft(&cluster, &["member", "add", "raft-3"]);
    assert_eq!(status, Some(3));
    assert!(errors.contains("raft-3 does not wait to be taken in: start it first"), "{errors}");
    cluster.start_node(3);
    await_condition("the leader to list the node that waits", || {
        let (_, list, _) = cltraft(&cluster, &["member", "list"]);
        list.lines().any(|line| line.starts_with("raft-3  3       waiting"))
    });
    let (status, said, errors) = cltraft(&cluster, &["member", "add", "raft-3"]);
    assert_eq!(status, Some(0), "{errors}");
    assert!(said.starts_with("raft-3 is a learner, since index "), "{said}");
    await_field(&cluster, 3, "raft_role", "learner");
    await_condition("the learner to have caught up", || {
        let (status, said, errors) = cltraft(&cluster, &["member", "promote", "raft-3"]);
        assert!(status == Some(0) || errors.contains("it has not caught up"), "{errors}");
        status == Some(0) && said.starts_with("raft-3 is a voter, since index ")
    });
    cluster.await_voters(&[0, 1, 2, 3]);
    let (status, _, errors) = cltraft(&cluster, &["member", "promote", "raft-3"]);
    assert_eq!(status, Some(3));
    assert!(errors.contains("it is a voter already; nothing was done"), "{errors}");
}

// Handing over.

#[test]
fn leadership_goes_to_the_node_that_is_named() {
    let mut cluster = Cluster::start(3, &[]);
    let mut leader = cluster.await_leader();
    for _ in 0..4 {
        let to = format!("raft-{}", (leader + 1) % 3);
        let (status, said, errors) = cltraft(&cluster, &["transfer", &to]);
        assert_eq!((status, said), (Some(0), format!("{to} leads\n")), "{errors}");
        leader = cluster.await_leader();
        assert_eq!(format!("raft-{leader}"), to);
    }
    let (status, said, _) = cltraft(&cluster, &["transfer"]);
    let successor = cluster.await_leader();
    assert_eq!((status, said), (Some(0), format!("raft-{successor} leads\n")));
    assert_ne!(successor, leader);
    let (_, list, _) = cltraft(&cluster, &["member", "list"]);
    let leads: Vec<&str> = list.lines().filter(|line| line.ends_with("yes")).collect();
    assert!(leads.len() == 1 && leads[0].starts_with(&format!("raft-{successor} ")), "{list}");

    let gone = (successor + 1) % 3;
    cluster.kill(gone);
    let term = field(&cluster, successor, "raft_term");
    await_condition("the leader to miss it", || {
        let (status, _, errors) = cltraft(&cluster, &["transfer", &format!("raft-{gone}")]);
        assert_eq!(status, Some(3), "{errors}");
        errors.contains("no voter that could take over was heard from lately")
    });
    let (status, _, errors) = cltraft(&cluster, &["transfer", "raft-9"]);
    assert_eq!(status, Some(3));
    assert!(errors.contains("raft-9 is not a member; nothing was done"), "{errors}");
    assert_eq!(cluster.await_leader(), successor);
    assert_eq!(field(&cluster, successor, "raft_term"), term);
}

#[test]
fn a_leader_that_is_stopped_hands_over_within_a_term_and_without_a_timeout() {
    // Nobody's election timeout ends before that.
    let shortest_timeout = Duration::from_secs(5);
    let mut cluster = Cluster::start(3, &["--heartbeat", "50ms", "--election", "5s"]);
    let leader = cluster.await_leader();
    let mut client = cluster.client();
    client.put(b"a", b"1").expect("it is written");
    let term: u64 = field(&cluster, leader, "raft_term").parse().expect("a number");
    let asked = Instant::now();
    assert_eq!(cluster.terminate(leader).code(), Some(0));
    client.put(b"a", b"2").expect("the successor is there");
    assert!(asked.elapsed() < shortest_timeout, "took {:?}", asked.elapsed());
    let successor = cluster.await_leader();
    assert_eq!(field(&cluster, successor, "raft_term"), (term + 1).to_string());
    assert!(cluster.log(leader).contains("hands over and stops: SIGTERM"));
}

#[test]
fn a_second_signal_ends_a_leader_that_cannot_hand_over_at_once() {
    let mut cluster = Cluster::start(3, &["--heartbeat", "50ms", "--election", "10s"]);
    let leader = cluster.await_leader();
    let others: Vec<usize> = ALL.into_iter().filter(|node| *node != leader).collect();
    others.iter().for_each(|node| cluster.pause(*node));
    cluster.ask_to_stop(leader);
    await_log(&cluster, leader, "hands over and stops: SIGTERM");
    assert!(cluster.info(leader).is_some(), "it waits for its successor");
    let asked = Instant::now();
    assert_eq!(cluster.terminate(leader).code(), Some(0));
    // By itself it would go on for the longest election timeout at least.
    assert!(asked.elapsed() < PATIENCE.min(Duration::from_secs(10)), "{:?}", asked.elapsed());
    others.iter().for_each(|node| cluster.resume(*node));
}
