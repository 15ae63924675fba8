//! Real processes that are misused or set up wrongly: what holds all the same, and what the log says of it.

#[allow(dead_code)] // Other tests use the rest.
mod processes;

use processes::{Cluster, await_condition, run};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

const QUICK: [&str; 4] = ["--heartbeat", "20ms", "--election", "150ms"];

/// The memory that a node has now, in bytes.
fn resident_bytes(cluster: &Cluster, node: usize) -> u64 {
    let path = format!("/proc/{}/statm", cluster.process_id(node));
    let pages = fs::read_to_string(path).expect("the process runs");
    let pages: u64 = pages.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a number");
    pages * 4096
}

/// One line to a node, and the first line of its answer.
fn ask(stream: &mut TcpStream, line: &str) -> String {
    stream.write_all(format!("{line}\n").as_bytes()).expect("it is sent");
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n") && stream.read(&mut byte).expect("it answers") == 1 {
        answer.push(byte[0]);
    }
    String::from_utf8(answer).expect("text").trim_end().to_string()
}

/// A request of a few bytes may have an answer of a megabyte, and a client may send very many at once: what
/// they cost is bounded at the leader, and at a node that has to ask the leader first.
#[test]
fn many_requests_for_a_large_value_cost_neither_memory_nor_leadership() {
    const VALUE_BYTES: usize = 1_000_000;
    const REQUESTS: usize = 200;
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.await_leader();
    let term = cluster.info(leader).expect("it answers")["raft_term"].clone();
    cluster.client().put(b"large", &vec![b'v'; VALUE_BYTES]).expect("it is written");
    for node in [leader, (leader + 1) % 3] {
        let mut stream = cluster.connect(node);
        let mut asking = stream.try_clone().expect("a second handle");
        let asked = thread::spawn(move || {
            asking.write_all("GET large\n".repeat(REQUESTS).as_bytes()).expect("it is sent");
        });
        let one = format!("${VALUE_BYTES}\r\n").len() + VALUE_BYTES + 2;
        let mut left = REQUESTS * one;
        let mut buffer = vec![0; 1 << 16];
        while left > 0 {
            let bytes = stream.read(&mut buffer).expect("the answers come");
            assert!(bytes > 0, "{left} bytes are missing from node {node}");
            left -= bytes;
        }
        asked.join().expect("it was sent");
    }
    for node in 0..3 {
        assert!(cluster.peak_mib(node) < 80, "node {node} took {} MiB", cluster.peak_mib(node));
        assert_eq!(cluster.info(node).expect("it answers")["raft_term"], term, "no election");
    }
}

/// A client may announce the longest value and keep its last byte: what many of them cost is bounded, others are served
/// meanwhile, and each is once it has said everything.
#[test]
fn half_requests_of_many_clients_cost_bounded_memory_and_each_is_served_when_it_is_whole() {
    const CLIENTS: usize = 100;
    const VALUE_BYTES: usize = 1024 * 1024;
    const UNSERVED_MAX: u64 = 16 * 1024 * 1024;
    let cluster = Cluster::start(1, &["--unserved-bytes-max", "16MiB"]);
    let node = cluster.await_leader();
    let unserved = || -> u64 {
        cluster.info(node).expect("it answers")["unserved_bytes"].parse().expect("a number")
    };
    let (go_on, waits) = std::sync::mpsc::channel::<()>();
    let waits = std::sync::Arc::new(std::sync::Mutex::new(waits));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (mut stream, waits) = (cluster.connect(node), waits.clone());
            thread::spawn(move || {
                let head = format!("*3\r\n$3\r\nSET\r\n$2\r\nk{}\r\n$", number % 8);
                let half = [head.as_bytes(), format!("{VALUE_BYTES}\r\n").as_bytes()].concat();
                stream.write_all(&half).expect("it is sent");
                stream.write_all(&vec![b'v'; VALUE_BYTES]).expect("it is read some time");
                // The channel's end tells all of them.
                let told = waits.lock().expect("nobody fails with it").recv();
                assert!(told.is_err(), "nothing is sent");
                stream.write_all(b"\r\n").expect("the end is sent");
                let mut answer = [0; 5];
                stream.read_exact(&mut answer).expect("it answers");
                assert_eq!(&answer, b"+OK\r\n");
            })
        })
        .collect();
    await_condition("more to be said than there is room for", || unserved() > UNSERVED_MAX / 2);
    for round in 0..20 {
        assert_eq!(cluster.nc(node, &format!("SET small {round}\n")), "+OK\r\n");
        assert!(unserved() <= UNSERVED_MAX, "{}", unserved());
    }
    drop(go_on);
    clients.into_iter().for_each(|client| client.join().expect("it was served"));
    assert_eq!(cluster.info(node).expect("it answers")["unserved_clients_closed"], "0");
    await_condition("nothing to be left", || unserved() < 100);
    // 8 MiB of values, as much of log, and what waits.
    assert!(cluster.peak_mib(node) < 90, "it took {} MiB", cluster.peak_mib(node));
}

/// As with Redis's `maxmemory` and `noeviction`; and it ends by itself.
#[test]
fn a_full_store_says_so_everywhere_and_takes_what_makes_room() {
    let cluster = Cluster::start(3, &[&QUICK[..], &["--store-bytes-max", "1MiB"]].concat());
    let leader = cluster.await_leader();
    let follower = (leader + 1) % 3;
    let mut stream = cluster.connect(follower);
    let value = "v".repeat(50_000);
    let set =
        |stream: &mut TcpStream, key: &str, value: &str| ask(stream, &format!("SET {key} {value}"));
    let taken =
        (0..100).take_while(|key| set(&mut stream, &format!("k{key}"), &value) == "+OK").count();
    assert!((20..=22).contains(&taken), "{taken} values of {} bytes", value.len());
    for node in [leader, follower] {
        let mut stream = cluster.connect(node);
        let refused = set(&mut stream, "new", &value);
        assert!(
            refused.starts_with("-OOM command not allowed when used memory > 'maxmemory'."),
            "{refused}"
        );
        assert!(refused.contains("nothing was done"), "{refused}");
        assert_eq!(set(&mut stream, "k0", &value), "+OK", "no longer than before");
        assert_eq!(ask(&mut stream, "STRLEN k1"), format!(":{}", value.len()));
        assert_eq!(ask(&mut stream, "EXISTS new"), ":0");
        assert_eq!(ask(&mut stream, "MULTI"), "+OK");
        assert_eq!(ask(&mut stream, "SET new 1"), "+QUEUED");
        assert!(ask(&mut stream, "EXEC").starts_with("-OOM "));
    }
    let info = cluster.info(leader).expect("it answers");
    assert_eq!((&*info["growth_refused"], &*info["store_bytes_max"]), ("store", "1048576"));
    assert!(cluster.nc(leader, "WHY\n").contains("its store is full (--store-bytes-max)"));
    let get = |path: &str| cluster.nc(leader, &format!("GET {path} HTTP/1.0\r\n\r\n"));
    let ready = get("/readyz");
    assert!(ready.starts_with("HTTP/1.0 200") || ready.starts_with("HTTP/1.1 200"), "{ready}");
    assert!(ready.contains("ready, but its store is full"), "{ready}");
    assert!(get("/metrics").contains("raftkv_growth_refused{reason=\"store\"} 1\n"));
    assert!(cluster.log(leader).contains("its store is full"));
    let servers = cluster.address(leader);
    let mut status = Command::new(env!("CARGO_BIN_EXE_cltraft"));
    let (_, out, err) = run(status.args(["--servers", &servers, "status"]));
    assert!((out + &err).contains("its store is full (--store-bytes-max)"));
    // Time and deletes make room.
    assert_eq!(ask(&mut stream, "PEXPIRE k2 1"), ":1");
    assert_eq!(ask(&mut stream, "DEL k3"), ":1");
    await_condition("room for another value", || set(&mut stream, "new", &value) == "+OK");
    await_condition("the node to say so", || {
        set(&mut stream, "k4", "");
        cluster.info(leader).is_some_and(|info| info["growth_refused"].is_empty())
    });
    assert_eq!(get("/readyz").lines().last(), Some("ready"));
}

/// The answer to a `SET` of so many bytes.
fn set(cluster: &Cluster, node: usize, bytes: usize) -> String {
    let mut stream = cluster.connect(node);
    write!(stream, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${bytes}\r\n").expect("it reads");
    stream.write_all(&vec![b'v'; bytes]).expect("it reads");
    ask(&mut stream, "\r")
}

/// As while the limits are changed node by node.
#[test]
fn a_member_that_takes_less_than_the_others_costs_no_leader_and_is_named() {
    const LARGER: [&str; 2] = ["--value-bytes-max", "4MiB"];
    let mut cluster = Cluster::stopped(3, &QUICK);
    for node in 0..3 {
        let mut command = cluster.command(node);
        if node != 1 {
            command.args(LARGER);
        }
        cluster.start_command(node, command);
    }
    cluster.await_leader();
    await_condition("a leader that would take more than raft-1", || {
        let leader = cluster.await_leader();
        leader != 1 || {
            cluster.nc(1, "RAFT TRANSFER raft-0\n");
            false
        }
    });
    let leader = cluster.await_leader();
    let term = cluster.info(leader).expect("it answers")["raft_term"].clone();
    for node in [leader, 2 - leader] {
        let refused = set(&cluster, node, 2 << 20);
        assert!(refused.contains("the limit is 1048576 bytes"), "{refused}");
        assert!(refused.contains("raft-1 takes no more") && refused.contains("nothing was done"));
    }
    assert_eq!(set(&cluster, leader, 1 << 20), "+OK");
    assert_eq!(cluster.nc(leader, "MULTI\nAPPEND k x\nEXEC\n").lines().count(), 4);
    let info = cluster.info(leader).expect("it answers");
    assert_eq!(info["raft_term"], term, "nobody was deposed");
    assert!(info["limits_differ"].contains("raft-1 takes 1048576"), "{}", info["limits_differ"]);
    assert!(cluster.nc(leader, "WHY\n").contains("and raft-1 takes 1048576"));
    let warned = cluster.log(leader).lines().filter(|line| line.contains("raft-1 takes")).count();
    assert_eq!(warned, 1, "the log says it once");
    // Also to raft-1 itself, which would not take such a value: it gets what is in the log, and in a snapshot.
    cluster.terminate(1);
    let mut command = cluster.command(1);
    command.args(LARGER);
    cluster.start_command(1, command);
    await_condition("raft-1 to take as much as the others", || {
        cluster.info(leader).is_some_and(|info| info["limits_differ"].is_empty())
    });
    assert_eq!(set(&cluster, leader, 2 << 20), "+OK");
    for wipe in [false, true] {
        cluster.terminate(1);
        if wipe {
            cluster.wipe(1);
        }
        cluster.start_node(1);
        cluster.await_voters(&[0, 1, 2]);
        cluster.await_same_applied();
    }
    assert_eq!(cluster.nc(1, "READONLY\nSTRLEN k\n"), format!("+OK\r\n:{}\r\n", 2 << 20));
    let status = run(Command::new(env!("CARGO_BIN_EXE_cltraft")).args([
        "--servers",
        &cluster.address(leader),
        "status",
    ]));
    assert!(status.1.contains("raft-1 takes 1048576") || status.2.contains("raft-1 takes 1048576"));
}

/// What the node keeps for a connection, it keeps no longer.
#[test]
fn connections_that_have_ended_cost_nothing() {
    const COUNT: usize = 10_000;
    /// Less than a connection costs by whatever is not forgotten: an entry of any map.
    const EACH: u64 = 16;
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let long = "x".repeat(20_000);
    assert_eq!(cluster.nc(0, &format!("SET long {long}\n")), "+OK\r\n");
    let conversations: [(&str, &str); 6] = [
        ("GET long\n", "xxx\r\n"),
        ("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", "alive\n"),
        ("SUBSCRIBE a\n", "a\r\n:1\r\n"),
        ("CHANGES\n", "changes\r\n"),
        ("WATCH long\nMULTI\nGET long\n", "+QUEUED\r\n"),
        ("SCAN 0\n", "long\r\n"),
    ];
    for (said, answer_end) in conversations {
        let mut buffer = vec![0; 32 * 1024];
        let mut converse = |count| {
            for _ in 0..count {
                let mut stream = cluster.connect(0);
                stream.write_all(said.as_bytes()).expect("the node reads");
                let mut heard = Vec::new();
                while !String::from_utf8_lossy(&heard).contains(answer_end) {
                    let read = stream.read(&mut buffer).expect("the node answers");
                    assert!(
                        read > 0,
                        "{said:?} is answered by {:?}",
                        String::from_utf8_lossy(&heard)
                    );
                    heard.extend_from_slice(&buffer[..read]);
                }
            }
            await_condition("all to be closed", || {
                cluster.info(0).is_some_and(|info| info["connected_clients"] == "1")
            });
            resident_bytes(&cluster, 0)
        };
        let before = converse(COUNT / 10);
        let after = converse(COUNT);
        let each = after.saturating_sub(before) / COUNT as u64;
        assert!(each < EACH, "{each} bytes remain of each {said:?}");
    }
}

/// The first line of an answer, without its end.
fn line(stream: &mut impl BufRead) -> String {
    let mut line = String::new();
    assert!(stream.read_line(&mut line).expect("it answers") > 0, "the connection has ended");
    line.trim_end().to_string()
}

/// How much is too much depends on the machine: twice as much is asked until something is refused.
#[test]
fn what_has_waited_for_too_long_is_refused_and_was_not_done() {
    const CLIENTS: usize = 200;
    const EACH_MAX: usize = 64_000;
    let cluster = Cluster::start(1, &[]);
    let node = cluster.await_leader();
    let mut clients: Vec<_> =
        (0..CLIENTS).map(|_| (BufReader::new(cluster.connect(node)), 0)).collect();
    let (mut each, mut refused) = (1000, 0);
    while refused == 0 {
        assert!(each <= EACH_MAX, "nothing is refused");
        for (number, (client, _)) in clients.iter_mut().enumerate() {
            let all = format!("INCR c{number}\n").repeat(each);
            client.get_mut().write_all(all.as_bytes()).expect("it is sent");
        }
        for (number, (client, done)) in clients.iter_mut().enumerate() {
            for _ in 0..each {
                let answer = line(client);
                if answer.starts_with(':') {
                    *done += 1;
                    assert_eq!(answer, format!(":{done}"), "in order, and each once");
                } else {
                    assert!(answer.starts_with("-TRYAGAIN "), "{answer}");
                    assert!(answer.contains("nothing was done"), "{answer}");
                    refused += 1;
                }
            }
            let asked = format!("INCRBY c{number} 0\n");
            client.get_mut().write_all(asked.as_bytes()).expect("it is usable");
            assert_eq!(line(client), format!(":{done}"), "what was refused was not done");
        }
        each *= 2;
    }
    assert!(clients.iter().any(|(_, done)| *done > 0), "some were served");
}

#[test]
fn a_client_too_many_is_told_so_and_a_member_still_finds_its_place() {
    let mut cluster = Cluster::start(3, &["--connections-max", "10"]);
    let leader = cluster.await_leader();
    let follower = (leader + 1) % 3;
    // Two of the ten may be members. Who has spoken, stays.
    let mut clients = Vec::new();
    let refused = loop {
        let mut client = cluster.connect(leader);
        match ask(&mut client, "PING").as_str() {
            "+PONG" => clients.push(client),
            other => break other.to_string(),
        }
        assert!(clients.len() <= 10, "there is a limit");
    };
    assert_eq!(refused, "-ERR max number of clients reached");
    assert!(clients.len() >= 8, "{} had a place", clients.len());
    let mut another = cluster.client_of(leader, Duration::from_millis(100));
    let error = another.get(b"a").expect_err("it is full").to_string();
    assert!(error.contains("Busy"), "{error}");

    cluster.kill(follower);
    cluster.start_node(follower);
    await_condition("the member to follow the leader again", || {
        cluster.info(follower).is_some_and(|info| info["raft_leader"] == leader.to_string())
    });
    assert!(cluster.log(leader).contains("Busy: raft-"), "{}", cluster.log(leader));
}

/// The node's command line with other limits of open files.
fn with_open_files(cluster: &Cluster, node: usize, ulimit: &str) -> Command {
    let given = cluster.command(node);
    let mut command = Command::new("bash");
    command.args(["-c", &format!("ulimit {ulimit}; exec \"$0\" \"$@\"")]).arg(given.get_program());
    command.args(given.get_args());
    command
}

#[test]
fn clients_do_not_take_the_files_that_the_log_needs() {
    let flags = ["--segment-bytes", "4KiB", "--connections-max", "1000"];
    let mut cluster = Cluster::stopped(1, &flags);
    cluster.start_command(0, with_open_files(&cluster, 0, "-n 130"));
    cluster.await_leader();
    assert!(cluster.log(0).contains("connections are limited to 31, not to 1000"));
    let mut writer = cluster.connect(0);
    assert_eq!(ask(&mut writer, "PING"), "+PONG");
    let _others: Vec<TcpStream> = (0..300).map(|_| cluster.connect(0)).collect();
    for key in 0..100 {
        assert_eq!(ask(&mut writer, &format!("SET k{key} {}", "v".repeat(1000))), "+OK");
    }
}

#[test]
fn the_limit_of_open_files_is_raised_as_far_as_it_is_needed() {
    let mut cluster = Cluster::stopped(1, &["--connections-max", "200"]);
    cluster.start_command(0, with_open_files(&cluster, 0, "-S -n 64"));
    cluster.await_leader();
    let clients: Vec<TcpStream> = (0..150)
        .map(|_| {
            let mut client = cluster.connect(0);
            assert_eq!(ask(&mut client, "PING"), "+PONG");
            client
        })
        .collect();
    assert_eq!(clients.len(), 150);

    let cluster = Cluster::stopped(1, &[]);
    let (status, _, errors) = run(&mut with_open_files(&cluster, 0, "-n 64"));
    assert_eq!(status, Some(1));
    assert!(errors.contains("the limit of open files is 64"), "{errors}");
}

#[test]
fn a_slip_in_a_list_of_members_does_not_fill_the_log_of_another() {
    let mut cluster = Cluster::stopped(3, &["--log-level", "debug"]);
    for node in [0, 1] {
        cluster.start_node(node);
    }
    let peers = format!(
        "raf-0={},raf-1={},raft-2={}",
        cluster.address(0),
        cluster.address(1),
        cluster.address(2)
    );
    let mut command = cluster.command(2);
    command.args(["--peers", &peers]);
    cluster.start_command(2, command);
    await_condition("the wrong one to try again and again", || {
        cluster.log(1).matches("raft-2 is disconnected again").count() >= 3
    });
    let log = cluster.log(1);
    assert_eq!(log.matches("raft-2 is connected").count(), 1, "{log}");
    assert_eq!(log.matches("raft-2 is disconnected:").count(), 1, "{log}");
    assert!(cluster.log(2).contains("number 1 is raf-1 to raft-2, not raft-1"));
    let info = cluster.info(1).expect("it answers");
    assert!(info["peer_raft-2"].contains("its own log may say why"), "{}", info["peer_raft-2"]);
    cluster.kill(2);
    cluster.start_node(2);
    cluster.await_leader();
    await_condition("the right one to be welcome", || {
        cluster.log(1).matches("raft-2 is connected").count() == 2
    });
}

#[test]
fn a_node_without_a_leader_says_once_what_is_missing() {
    let mut cluster = Cluster::start(3, &["--heartbeat", "10ms", "--election", "50ms"]);
    cluster.await_leader();
    let before = cluster.log(0).matches("has had no leader").count();
    cluster.kill(1);
    cluster.kill(2);
    await_condition("a line for whoever is woken by it", || {
        cluster.log(0).contains("raft-0 has had no leader for")
    });
    assert!(cluster.log(0).contains("2 of 3 voters must reach each other: raft-1: "));
    cluster.start_node(1);
    cluster.await_leader();
    let after = cluster.log(0).matches("has had no leader").count();
    assert_eq!(after, before + 1, "{}", cluster.log(0));
}

#[test]
fn a_leader_that_has_lost_its_majority_says_so() {
    let mut cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    for node in (0..3).filter(|node| *node != leader) {
        cluster.kill(node);
    }
    await_condition("the leader to say that it is none any more", || {
        let log = cluster.log(leader);
        let line = format!("raft-{leader} no longer leads term");
        log.lines().any(|said| {
            said.contains(" WARN ") && said.contains(&line) && said.contains("majority")
        })
    });
}

#[test]
fn the_log_names_the_signal_that_ended_a_node() {
    let mut cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    assert_eq!(cluster.terminate(0).code(), Some(0));
    assert!(cluster.log(0).contains("raft-0 stops: SIGTERM"), "{}", cluster.log(0));
}
