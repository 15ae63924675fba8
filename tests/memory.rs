//! Real processes whose clients and peers would have them hold more than they may: what that costs, and that others are
//! served meanwhile.

#[allow(dead_code)] // Other tests use the rest.
mod processes;

use processes::{Cluster, Info, PATIENCE, await_condition};
use raftkv::kv::{Answer, FailureCode, Request};
use raftkv::node::{PeerMessage, Standing};
use raftkv::protocol::frame::{self, FrameStep};
use raftkv::protocol::hello::{Hello, HelloReply, RefusedCode, Role, VERSION_MAX, VERSION_MIN};
use raftkv::protocol::peer;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const MIB: u64 = 1024 * 1024;

fn number(info: &Info, name: &str) -> u64 {
    info[name].parse().unwrap_or_else(|_| panic!("{name}: {}", info[name]))
}

fn field(cluster: &Cluster, node: usize, name: &str) -> u64 {
    number(&cluster.info(node).expect("it answers"), name)
}

/// The most memory that a node ever had, in MiB.
fn peak_mib(cluster: &Cluster, node: usize) -> u64 {
    let status = format!("/proc/{}/status", cluster.process_id(node));
    let status = fs::read_to_string(status).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a Linux process");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("KiB") / 1024
}

fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A line without its end.
fn line(stream: &mut TcpStream) -> String {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while !line.ends_with(b"\r\n") && stream.read(&mut byte).expect("it answers") == 1 {
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("text").trim_end().to_string()
}

fn ask(stream: &mut TcpStream, words: &[&[u8]]) -> String {
    stream.write_all(&command(words)).expect("it is sent");
    line(stream)
}

/// `WATCH` of 500 keys of 4,000 bytes.
fn watch_much(client: usize) -> Vec<u8> {
    let keys: Vec<Vec<u8>> = (0..500)
        .map(|key| [format!("{client:04}{key:04}").as_bytes(), &[b'k'; 3992]].concat())
        .collect();
    let mut words: Vec<&[u8]> = vec![b"WATCH"];
    words.extend(keys.iter().map(Vec::as_slice));
    command(&words)
}

/// Says hello as a node, and returns what it is told.
fn hello_as(cluster: &Cluster, to: usize, role: Role) -> (TcpStream, HelloReply) {
    let info = cluster.info(to).expect("it answers");
    let cluster_id = u64::from_str_radix(&info["cluster_id"], 16).expect("a number");
    let hello = Hello { version_min: VERSION_MIN, version_max: VERSION_MAX, cluster_id, role };
    let mut bytes = frame::MAGIC.to_vec();
    frame::put_frame(&mut bytes, |out| hello.encode(out));
    let mut stream = cluster.connect(to);
    stream.write_all(&bytes).expect("it is sent");
    let mut magic = [0; 4];
    stream.read_exact(&mut magic).expect("the magic");
    let reply = HelloReply::decode(&payload(&mut stream)).expect("a reply");
    (stream, reply)
}

fn payload(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; frame::HEADER_BYTES];
    stream.read_exact(&mut bytes).expect("a header");
    let length = u32::from_be_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
    bytes.resize(frame::HEADER_BYTES + length, 0);
    stream.read_exact(&mut bytes[frame::HEADER_BYTES..]).expect("a payload");
    match frame::next_frame(&bytes, length).expect("a frame") {
        FrameStep::Frame { payload, .. } => payload.to_vec(),
        step => panic!("{step:?}"),
    }
}

fn standing_of_a_member(info: &Info) -> Standing {
    let cluster_id = u64::from_str_radix(&info["raft_cluster_id"], 16).expect("a number");
    Standing::Member { cluster_id }
}

/// As many requests for the value of `k` as a node passes on for its clients.
fn forwards(count: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for id in 0..count {
        let message = PeerMessage::Forward { id, request: Request::Get { key: b"k"[..].into() } };
        frame::put_frame(&mut bytes, |out| peer::encode(&message, out));
    }
    bytes
}

/// The answers to these requests.
fn answers(stream: &mut TcpStream, count: usize) -> Vec<Answer> {
    let mut answers = Vec::new();
    while answers.len() < count {
        match peer::decode(&payload(stream)).expect("a message") {
            PeerMessage::ForwardReply { answer, .. } => answers.push(answer),
            PeerMessage::Raft(_) => {}
            message => panic!("{message:?}"),
        }
    }
    answers
}

/// What they all send at once is more than the leader's connection may have waiting.
#[test]
fn a_followers_clients_wait_for_the_leader_and_never_cost_it_its_connection() {
    const CLIENTS: usize = 100;
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.await_leader();
    let follower = (leader + 1) % 3;
    let term = field(&cluster, leader, "raft_term");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let mut stream = cluster.connect(follower);
            thread::spawn(move || {
                let set = command(&[b"SET", format!("k{client}").as_bytes(), &[b'v'; 500_000]]);
                stream.write_all(&set).expect("it is read some time");
                line(&mut stream)
            })
        })
        .collect();
    let mut small = cluster.connect(follower);
    for round in 0..20 {
        let key = format!("small{round}");
        assert_eq!(ask(&mut small, &[b"SET", key.as_bytes(), b"v"]), "+OK");
    }
    for client in clients {
        let said = client.join().expect("it is answered");
        // That more is asked than it can take is said in good time, and nothing was done.
        assert!(said == "+OK" || said.starts_with("-TRYAGAIN more is asked"), "{said}");
    }
    for node in 0..3 {
        let log = cluster.log(node);
        assert!(!log.contains("is disconnected"), "{log}");
    }
    assert_eq!(field(&cluster, leader, "raft_term"), term, "no election");
}

/// A follower that asks for very much and takes none of it, as one whose machine is too slow.
#[test]
fn answers_that_a_peer_does_not_take_are_bounded_and_cost_it_no_connection_until_it_hangs() {
    const ASKED: u64 = 200;
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.await_leader();
    cluster.client().put(b"k", &vec![b'v'; 1_000_000]).expect("it is written");
    let node = (leader + 1) % 3;
    let info = cluster.info(node).expect("it answers");
    let incarnation = u64::from_str_radix(&info["incarnation"], 16).expect("a number");
    cluster.kill(node);
    let (name, address) = (format!("raft-{node}"), cluster.address(node));
    let standing = standing_of_a_member(&info);
    let role = Role::Peer { node: node as u64, incarnation, name, standing, address, limits: None };
    let state = format!("peer_raft-{node}");
    await_condition("the leader to miss the node", || {
        cluster.info(leader).expect("it answers")[&state] != "connected"
    });
    let (mut stream, reply) = hello_as(&cluster, leader, role);
    assert!(matches!(reply, HelloReply::Welcome(_)), "{reply:?}");
    stream.write_all(&forwards(ASKED)).expect("it is sent");
    let held = || field(&cluster, leader, "buffers_peers_bytes");
    await_condition("much to wait for it", || held() > 25 * MIB);
    assert!(held() < 40 * MIB, "{}", held());
    assert_eq!(cluster.nc(leader, "SET others served\n"), "+OK\r\n");
    let answers = answers(&mut stream, ASKED as usize);
    let is_refused = |answer: &&Answer| matches!(answer, Answer::Failed(failure) if failure.code == FailureCode::Overloaded);
    let refused = answers.iter().filter(is_refused).count();
    let told = answers.iter().filter(|answer| matches!(answer, Answer::Value { .. })).count();
    assert!(refused > 100 && told > 20 && refused + told == 200, "{refused}, {told}");
    assert_eq!(cluster.info(leader).expect("it answers")[&state], "connected");
    // And then it takes nothing for good.
    stream.write_all(&forwards(ASKED)).expect("it is sent");
    await_condition("it to be given up", || {
        cluster.info(leader).expect("it answers")[&state] != "connected"
    });
    await_condition("nothing to be left", || held() < 3 * MIB);
    assert!(peak_mib(&cluster, leader) < 130, "{} MiB", peak_mib(&cluster, leader));
}

#[test]
fn what_clients_collect_is_bounded_for_all_together_and_refused_as_not_done() {
    let cluster = Cluster::start(1, &["--buffers-bytes-max", "64MiB"]);
    let node = cluster.await_leader();
    let mut clients: Vec<_> = (0..20).map(|_| cluster.connect(node)).collect();
    let mut said = Vec::new();
    for (client, stream) in clients.iter_mut().enumerate() {
        stream.write_all(&watch_much(client)).expect("it is sent");
        said.push(line(stream));
    }
    let watched = said.iter().filter(|said| *said == "+OK").count();
    let refused = said.iter().filter(|said| said.starts_with("-TRYAGAIN")).count();
    assert!(watched > 0 && refused > 10 && watched + refused == 20, "{said:?}");
    assert!(said[19].contains("nothing was done"), "{}", said[19]);
    // What is not protected is not done either.
    let last = clients.last_mut().expect("there are some");
    assert_eq!(ask(last, &[b"MULTI"]), "+OK");
    assert_eq!(ask(last, &[b"SET", b"k", b"v"]), "+QUEUED");
    assert!(ask(last, &[b"EXEC"]).starts_with("-EXECABORT"));
    assert_eq!(cluster.nc(node, "GET k\n"), "$-1\r\n");
    // Neither is a transaction of which a command was refused.
    let mut queueing = vec![cluster.connect(node)];
    let mut queued = 0;
    await_condition("a command to be refused", || {
        let other = queueing.last_mut().expect("there is one");
        if queued % 40 == 0 {
            assert_eq!(ask(other, &[b"MULTI"]), "+OK");
        }
        queued += 1;
        let said = ask(other, &[b"SET", b"k", &[b'v'; 50_000]]);
        if queued % 40 == 0 {
            queueing.push(cluster.connect(node));
        }
        said.starts_with("-TRYAGAIN")
    });
    let other = queueing.last_mut().expect("there is one");
    assert!(ask(other, &[b"EXEC"]).starts_with("-EXECABORT"));
    assert_eq!(cluster.nc(node, "GET k\n"), "$-1\r\n");
    let queueing: Vec<_> = queueing.drain(..).rev().skip(1).collect();
    let long = [b's'; 100];
    let names: Vec<Vec<u8>> =
        (0..64u8).map(|name| [&long[..], &[b'a' + name % 26, name]].concat()).collect();
    let mut words: Vec<&[u8]> = vec![b"SUBSCRIBE"];
    words.extend(names.iter().map(Vec::as_slice));
    let mut listeners: Vec<TcpStream> = Vec::new();
    await_condition("a subscription to be refused", || {
        let mut listener = cluster.connect(node);
        let said = ask(&mut listener, &words);
        listeners.push(listener);
        said.starts_with("-TRYAGAIN")
    });
    assert!(field(&cluster, node, "buffers_kept_bytes") <= 8 * MIB);
    assert!(field(&cluster, node, "buffers_requests_refused") > 10);
    let is_told = || cluster.nc(node, "WHY\n").contains("--buffers-bytes-max");
    assert!(is_told(), "{}", cluster.nc(node, "WHY\n"));
    drop((clients, queueing, listeners));
    await_condition("nothing to be left", || field(&cluster, node, "buffers_kept_bytes") == 0);
    assert!(!is_told());
    let mut again = cluster.connect(node);
    again.write_all(&watch_much(0)).expect("it is sent");
    assert_eq!(line(&mut again), "+OK");
}

#[test]
fn nodes_that_are_no_members_are_few_and_nothing_is_left_of_them_when_they_go() {
    const MAX: usize = 32;
    let cluster = Cluster::start(1, &["--auto-members", "off"]);
    let node = cluster.await_leader();
    let standing = standing_of_a_member(&cluster.info(node).expect("it answers"));
    let role = |number: u64| {
        let (name, address) = (format!("raft-{number}"), format!("nowhere-{number}:1"));
        Role::Peer { node: number, incarnation: number, name, standing, address, limits: None }
    };
    let mut strangers = Vec::new();
    for number in 100..100 + MAX as u64 {
        let (stream, reply) = hello_as(&cluster, node, role(number));
        assert!(matches!(reply, HelloReply::Welcome(_)), "{reply:?}");
        strangers.push(stream);
    }
    let (_, reply) = hello_as(&cluster, node, role(1000));
    assert!(
        matches!(&reply, HelloReply::Refused(refused) if refused.code == RefusedCode::Busy),
        "{reply:?}"
    );
    strangers[0].write_all(&forwards(3)).expect("it is sent");
    for answer in answers(&mut strangers[0], 3) {
        let Answer::Failed(failure) = answer else { panic!("{answer:?}") };
        assert!(failure.message.contains("nothing was done"), "{failure:?}");
    }
    drop(strangers);
    let others = || {
        let info = cluster.info(node).expect("it answers");
        info.keys().filter(|name| name.starts_with("peer_")).count()
    };
    await_condition("all of them to be forgotten", || others() == 0);
    let (_stream, reply) = hello_as(&cluster, node, role(1000));
    assert!(matches!(reply, HelloReply::Welcome(_)), "{reply:?}");
}

/// Each kind is within its own limit, and together they are within that of all.
#[test]
fn a_mixture_of_all_that_clients_may_have_held_stays_within_what_the_node_says_it_needs() {
    const MAX: u64 = 64 * MIB;
    let cluster = Cluster::start(1, &["--buffers-bytes-max", "64MiB"]);
    let node = cluster.await_leader();
    let before = peak_mib(&cluster, node);
    cluster.client().put(b"k", &vec![b'v'; 1_000_000]).expect("it is written");
    let half = command(&[b"SET", b"half", &vec![b'v'; 1_000_000]]);
    let mut transaction = command(&[b"MULTI"]);
    (0..30).for_each(|_| transaction.extend(command(&[b"SET", b"queued", &[b'v'; 50_000]])));
    let mut pings = command(&[b"SET", b"a", b"b"]);
    (0..900).for_each(|_| pings.extend(command(&[b"PING"])));
    let kinds = [
        command(&[b"GET", b"k"]).repeat(30),
        half[..half.len() - 5].to_vec(),
        transaction,
        watch_much(1),
        pings,
        command(&[b"CHANGES", &[b'p'; 4000]]),
        [command(&[b"CLIENT", b"SETNAME", &[b'n'; 100]]), command(&[b"ECHO", &[b'e'; 15_000]])]
            .concat(),
    ];
    let mut clients = Vec::new();
    for round in 0..40 {
        for (kind, bytes) in kinds.iter().enumerate() {
            let mut stream = cluster.connect(node);
            let bytes = bytes.clone();
            stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout is set");
            // Whoever is not read from has said what he could.
            clients.push((
                stream.try_clone().expect("a second handle"),
                thread::spawn(move || {
                    drop(stream.write_all(&bytes));
                }),
            ));
            if kind == 0 && round % 10 == 0 {
                assert_eq!(cluster.nc(node, "SET small served\n"), "+OK\r\n");
            }
        }
    }
    let deadline = Instant::now() + PATIENCE;
    let mut highest = 0;
    for _ in 0..20 {
        let info = cluster.info(node).expect("it answers");
        highest = highest.max(number(&info, "buffers_bytes"));
        assert_eq!(cluster.nc(node, "SET small served\n"), "+OK\r\n");
        assert!(Instant::now() < deadline, "it is slow");
    }
    let info = cluster.info(node).expect("it answers");
    assert!(highest > MAX / 4, "it was worth a test: {highest}");
    // What one turn brings is counted at its end.
    assert!(highest < MAX + MAX / 4, "{highest}");
    let needed = number(&info, "memory_needed_max_bytes") / MIB;
    let peak = peak_mib(&cluster, node);
    assert!(peak < before + 64 + 50 && peak < needed, "{peak} MiB, at most {needed} are needed");
    for (stream, writer) in clients {
        stream.shutdown(Shutdown::Both).ok();
        writer.join().expect("it has said what it could");
    }
    await_condition("nothing to be left", || field(&cluster, node, "buffers_bytes") < 4 * MIB);
}
