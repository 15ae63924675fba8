//! Real processes on real sockets: what a user of a running cluster relies on.

mod load;
#[allow(dead_code)] // The benches use the rest.
mod processes;

use load::{await_progress, check_told, with_writers};
use processes::{Cluster, PATIENCE, await_condition, run};
use raftkv::client::ClientError;
use raftkv::kv::Outcome;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

/// Short timeouts, so that elections cost little; long enough for a machine that is busy with other tests.
const QUICK: [&str; 4] = ["--heartbeat", "20ms", "--election", "150ms"];

fn number(info: &processes::Info, name: &str) -> u64 {
    info[name].parse().unwrap_or_else(|_| panic!("{name} is a number: {}", info[name]))
}

#[test]
fn three_nodes_elect_one_leader_and_keep_it_while_idle() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.await_leader();
    let term = number(&cluster.info(leader).expect("it answers"), "raft_term");
    // Longer than three of the longest election timeouts: a follower that hears nothing would campaign.
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        for node in 0..3 {
            let info = cluster.info(node).expect("it answers");
            assert_eq!(number(&info, "raft_term"), term, "no election while idle");
        }
    }
    assert_eq!(cluster.await_leader(), leader);
}

#[test]
fn a_client_that_asks_a_follower_is_sent_to_the_leader() {
    let cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let follower = (leader + 1) % 3;
    let mut client = cluster.client_of(follower, PATIENCE);
    let written = client.put(b"a", b"1").expect("the redirect is followed");
    assert_eq!(written.leader, leader as u64);
    assert_eq!(client.get(b"a").expect("it is read").value.as_deref(), Some(&b"1"[..]));
}

#[test]
fn a_text_command_is_answered_at_any_node() {
    let cluster = Cluster::start(3, &QUICK);
    cluster.await_leader();
    for node in 0..3 {
        assert_eq!(cluster.nc(node, &format!("SET k {node}\r\nGET k\n")), {
            format!("+OK\r\n$1\r\n{node}\r\n")
        });
        assert_eq!(cluster.nc(node, "INCR n\nPING\nNOSUCH x\nGET missing\n"), {
            let unknown = "-ERR unknown command 'NOSUCH', with args beginning with: 'x' ";
            format!(":{}\r\n+PONG\r\n{unknown}\r\n$-1\r\n", node + 1)
        });
    }
}

#[test]
fn a_half_closed_connection_gets_the_whole_answer() {
    let cluster = Cluster::start(3, &QUICK);
    cluster.await_leader();
    let value = "v".repeat(900_000);
    let mut client = cluster.client();
    client.put(b"large", value.as_bytes()).expect("it is written");
    for node in 0..3 {
        let answer = cluster.nc(node, "GET large\nGET large\n");
        assert_eq!(answer.len(), 2 * (value.len() + "$900000\r\n\r\n".len()));
        assert!(cluster.nc(node, "INFO\n").contains("raft_commit_index:"));
    }
}

#[test]
fn kills_of_the_leader_under_load_lose_and_double_nothing() {
    let mut cluster = Cluster::start(3, &QUICK);
    let told = with_writers(&mut cluster, |cluster| {
        for _ in 0..3 {
            let leader = cluster.await_leader();
            await_progress(cluster, leader);
            cluster.kill(leader);
            let successor = cluster.await_leader();
            assert_ne!(successor, leader);
            await_progress(cluster, successor);
            cluster.start_node(leader);
        }
        cluster.await_leader();
    });
    check_told(&cluster, &told);
    cluster.await_same_applied();
}

#[test]
fn a_restart_of_all_nodes_keeps_everything() {
    let mut cluster = Cluster::start(3, &QUICK);
    let told = with_writers(&mut cluster, |cluster| {
        let leader = cluster.await_leader();
        await_progress(cluster, leader);
    });
    let before = cluster.client().digest().expect("it is read").digest;
    for node in 0..3 {
        cluster.kill(node);
    }
    for node in 0..3 {
        cluster.start_node(node);
    }
    cluster.await_leader();
    assert_eq!(cluster.client().digest().expect("it is read").digest, before);
    check_told(&cluster, &told);
}

#[test]
fn a_paused_leader_never_serves_an_old_value_when_it_wakes() {
    let cluster = Cluster::start(3, &QUICK);
    for round in 0..3 {
        let old = cluster.await_leader();
        let mut client = cluster.client();
        client.put(b"k", b"old").expect("it is written");
        // Asked before the pause ends, so that it is the first thing the leader sees when it wakes.
        let mut early = cluster.connect(old);
        early.write_all(b"PING\n").expect("it is sent");
        let mut answers = BufReader::new(early.try_clone().expect("a second handle"));
        let mut line = String::new();
        answers.read_line(&mut line).expect("it answers");
        cluster.pause(old);
        let others: Vec<usize> = (0..3).filter(|node| *node != old).collect();
        cluster.await_leader_among(&others);
        let mut others_client = cluster.client_of(others[0], PATIENCE);
        others_client.put(b"k", b"new").expect("the majority goes on");
        early.write_all(b"GET k\n").expect("it is sent");
        early.shutdown(Shutdown::Write).expect("it is half closed");
        cluster.resume(old);
        let mut answer = String::new();
        answers.read_to_string(&mut answer).expect("it answers");
        let is_new = answer == "$3\r\nnew\r\n";
        assert!(is_new || answer.starts_with('-'), "round {round}: an old value: {answer:?}");
    }
}

#[test]
fn without_a_majority_nothing_is_written_and_it_recovers_with_one() {
    let mut cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    cluster.client().put(b"a", b"1").expect("it is written");
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    for node in &others {
        cluster.kill(*node);
    }
    let mut lonely = cluster.client_of(leader, Duration::from_secs(2));
    let failed = lonely.put(b"a", b"2").expect_err("one of three is no majority");
    let possible = match failed {
        ClientError::NotDone { .. } => vec![b"1".to_vec()],
        ClientError::OutcomeUnknown { .. } => vec![b"1".to_vec(), b"2".to_vec()],
    };
    await_condition("the leader to step down", || {
        cluster.info(leader).is_some_and(|info| info["raft_role"] != "leader")
    });
    let answer = cluster.nc(leader, "GET a\n");
    assert!(answer.starts_with("-CLUSTERDOWN "), "{answer}");
    for node in &others {
        cluster.start_node(*node);
    }
    cluster.await_leader();
    let mut client = cluster.client();
    let value = client.get(b"a").expect("it is read").value.expect("it is there");
    assert!(possible.contains(&value), "{value:?} is one of {possible:?}");
    client.put(b"a", b"3").expect("writes go on");
}

#[test]
fn sigterm_ends_a_node_with_status_0_and_the_others_go_on() {
    let mut cluster = Cluster::start(3, &QUICK);
    for _ in 0..3 {
        let leader = cluster.await_leader();
        cluster.client().put(b"a", b"1").expect("it is written");
        assert_eq!(cluster.terminate(leader).code(), Some(0));
        cluster.await_leader();
        cluster.start_node(leader);
    }
}

#[test]
fn a_killed_leader_is_replaced_without_waiting_for_the_election_timeout() {
    // Nobody's election timeout ends before that, so only the closed and refused connection can tell.
    let shortest_timeout = Duration::from_secs(3);
    let mut cluster = Cluster::start(3, &["--heartbeat", "50ms", "--election", "3s"]);
    let leader = cluster.await_leader();
    cluster.kill(leader);
    let killed = Instant::now();
    cluster.await_leader();
    assert!(killed.elapsed() < shortest_timeout, "took {:?}", killed.elapsed());
}

#[test]
fn a_second_process_on_a_data_folder_is_refused() {
    let cluster = Cluster::start(3, &QUICK);
    cluster.await_leader();
    let mut second = cluster.command(0);
    let (status, _, errors) = run(second.args(["--listen", "127.0.0.1:0"]));
    assert_eq!(status, Some(1));
    assert!(errors.contains("in use by another process"), "{errors}");
}

#[test]
fn a_port_in_use_and_a_foreign_data_folder_are_refused_with_a_reason() {
    let mut cluster = Cluster::start(3, &QUICK);
    cluster.await_leader();
    let mut on_same_port = cluster.command(1);
    let elsewhere = cluster.data_dir(1).with_extension("elsewhere");
    let (status, _, errors) = run(on_same_port.arg("--data-dir").arg(&elsewhere));
    assert_eq!(status, Some(1));
    assert!(errors.contains(&cluster.address(1)) && errors.contains("in use"), "{errors}");

    cluster.kill(2);
    let (status, _, errors) = run(cluster.command(2).args(["--cluster", "another"]));
    assert_eq!(status, Some(1));
    assert!(errors.contains("cluster"), "{errors}");

    let folder_of_1 = cluster.data_dir(1);
    cluster.kill(1);
    let (status, _, errors) = run(cluster.command(2).arg("--data-dir").arg(&folder_of_1));
    assert_eq!(status, Some(1));
    assert!(errors.contains("raft-1"), "{errors}");
}

#[test]
fn a_node_of_another_cluster_is_refused_and_both_say_so() {
    let mut cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let stranger = (leader + 1) % 3;
    cluster.kill(stranger);
    let data = cluster.data_dir(stranger).with_extension("other");
    let mut command = cluster.command(stranger);
    command.args(["--cluster", "another", "--data-dir"]).arg(&data);
    cluster.start_command(stranger, command);
    await_condition("the stranger to say why it is alone", || {
        cluster.log(stranger).contains("is of cluster")
    });
    await_condition("the leader to say so too", || {
        cluster.log(leader).contains("is of cluster") || {
            let other = (leader + 2) % 3;
            cluster.log(other).contains("is of cluster")
        }
    });
}

#[test]
fn garbage_and_silence_on_the_port_do_not_disturb_others() {
    let cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let _silent: Vec<_> = (0..200).map(|_| cluster.connect(leader)).collect();
    let garbage: [&[u8]; 6] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\xd2KV\x01\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xd2KV\x02hello",
        b"*1\r\n$-5\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\0\0\0\0\0\0",
    ];
    for bytes in garbage {
        let mut stream = cluster.connect(leader);
        stream.write_all(bytes).expect("it is sent");
        let mut answer = Vec::new();
        // Closed by the node; a reset is as good as an end.
        let _ = stream.read_to_end(&mut answer);
    }
    assert_eq!(cluster.nc(leader, "PING\n"), "+PONG\r\n");
    cluster.client().put(b"a", b"1").expect("writes go on");
}

#[test]
fn too_large_values_are_refused_and_the_connection_stays_usable() {
    let cluster = Cluster::start(3, &["--value-bytes-max", "64KiB", "--key-bytes-max", "100B"]);
    let leader = cluster.await_leader();
    let mut client = cluster.client_of(leader, PATIENCE);
    client.put(b"k", &vec![b'v'; 64 * 1024]).expect("the limit itself is allowed");
    for (key, value) in [(vec![b'k'; 101], vec![b'v'; 10]), (b"k".to_vec(), vec![b'v'; 65_537])] {
        let refused = client.put(&key, &value).expect_err("beyond a limit");
        assert!(matches!(refused, ClientError::NotDone { .. }), "{refused}");
    }
    let written = client.put(b"k", b"small").expect("the connection goes on");
    assert_eq!(written.outcome, Outcome::Put);
    let array =
        |value: &str| format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\n", value.len());
    let lines = format!("{}{}", array(&"v".repeat(3_000_000)), array("7"));
    let answer = cluster.nc(leader, &format!("{lines}GET k\n"));
    assert!(answer.starts_with("-ERR argument of 3000000 bytes"), "{answer}");
    assert!(answer.ends_with("+OK\r\n$1\r\n7\r\n"), "{answer}");
}

#[test]
fn pipelined_text_commands_are_answered_in_order() {
    let cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    for node in [leader, (leader + 1) % 3] {
        let key = format!("n{node}");
        let commands: String = (0..3000).map(|i| format!("INCR {key}\nECHO {i}\n")).collect();
        let expected: String = (0..3000)
            .map(|i| format!(":{}\r\n${}\r\n{i}\r\n", i + 1, i.to_string().len()))
            .collect();
        assert_eq!(cluster.nc(node, &commands), expected, "at node {node}");
    }
}

#[test]
fn pipelined_text_commands_are_executed_in_order() {
    let cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let commands =
        "SET k 1\nGET k\nSET k 2\nGET k\nINCR k\nGET k\nCAS k 3 4\nGET k\nDEL k\nGET k\n";
    let expected =
        "+OK\r\n$1\r\n1\r\n+OK\r\n$1\r\n2\r\n:3\r\n$1\r\n3\r\n:1\r\n$1\r\n4\r\n:1\r\n$-1\r\n";
    for node in [leader, (leader + 1) % 3] {
        assert_eq!(cluster.nc(node, &commands.repeat(20)), expected.repeat(20), "at node {node}");
    }
}

#[test]
fn a_client_that_never_reads_is_held_back_and_others_are_served() {
    let cluster = Cluster::start(1, &["--client-outbox-bytes-max", "64KiB"]);
    let leader = cluster.await_leader();
    cluster.client().put(b"k", &vec![b'v'; 100_000]).expect("it is written");
    let mut greedy = cluster.connect(leader);
    greedy.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout is set");
    // Far more than all buffers between hold: the node stops reading, so this side cannot write on.
    let commands = b"GET k\n".repeat(100_000);
    let mut sent = 0;
    while sent < commands.len() {
        match greedy.write(&commands[sent..]) {
            Ok(bytes) => sent += bytes,
            Err(_) => break,
        }
    }
    assert_eq!(cluster.nc(leader, "PING\n"), "+PONG\r\n");
    let info = cluster.info(leader).expect("it answers");
    assert!(number(&info, "requests_received") < 10_000, "it is held back");
    let rss = std::fs::read_to_string(format!("/proc/{}/status", info["process_id"]));
    let rss = rss.expect("it runs");
    let line = rss.lines().find(|line| line.starts_with("VmRSS:")).expect("a Linux process");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    assert!(kib < 100 * 1024, "{line}");
}

#[test]
fn clients_that_never_read_are_closed_before_all_together_cost_too_much_and_others_are_served() {
    const CLIENTS: usize = 60;
    const UNREAD_MAX: u64 = 16 * 1024 * 1024;
    let cluster = Cluster::start(1, &["--unread-bytes-max", "16MiB"]);
    let node = cluster.await_leader();
    let value = vec![b'v'; 1_000_000];
    cluster.client().put(b"large", &value).expect("it is written");
    let commands = b"GET large\n".repeat(10);
    let mut deaf: Vec<_> = (0..CLIENTS).map(|_| cluster.connect(node)).collect();
    deaf.iter_mut().for_each(|client| client.write_all(&commands).expect("it is sent"));
    let field = |name| number(&cluster.info(node).expect("it answers"), name);
    await_condition("some are closed", || field("unread_clients_closed") > 0);
    for _ in 0..20 {
        let read = cluster.client().get(b"large").expect("it answers");
        assert!(read.value == Some(value.clone()), "one that reads is served");
        assert!(field("unread_bytes") <= UNREAD_MAX, "{}", field("unread_bytes"));
    }
    let closed = field("unread_clients_closed");
    assert!(closed < CLIENTS as u64 / 2 + 20, "{closed} are closed, the others wait");
    let told = cluster.log(node);
    assert!(told.contains("bytes of unread answers"), "{told}");
}
