//! Real processes are given commands that weigh little and ask for much: no node dies of one, no leader loses its
//! leadership, and everybody is answered.

#[allow(dead_code)] // Other tests use the rest.
mod processes;

use processes::{Cluster, PATIENCE, await_condition};
use raftkv::kv::{
    Answer, Command, FailureCode, Range, ReadOp, Request, Step, StepBuffer, TimedOp, Transaction,
    WatchedBuffer, WriteOp,
};
use raftkv::protocol::client::{ReplyBody, ReplyFrame, RequestBody, RequestFrame};
use raftkv::protocol::frame::{self, FrameStep};
use raftkv::protocol::hello::{Hello, Role, VERSION_MAX, VERSION_MIN};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

/// A tenth of the machine of a test may be all that its nodes get.
const FLAGS: &[&str] = &["--heartbeat", "100ms", "--election", "800ms"];

/// In MiB; what none of these commands may take a node to.
const MEMORY_MAX: u64 = 100;

fn term(cluster: &Cluster, node: usize) -> String {
    cluster.info(node).expect("it answers").remove("raft_term").expect("a term")
}

/// Key `k` gets a value of 1 MB.
fn build_k(cluster: &Cluster, node: usize) {
    let piece = "x".repeat(62_500);
    let replies = cluster.nc(node, &format!("APPEND k {piece}\n").repeat(16));
    assert!(replies.ends_with(":1000000\r\n"), "{replies}");
}

/// As `nc -N`: the last reply to these lines.
fn last_reply(cluster: &Cluster, node: usize, lines: &str) -> String {
    let mut stream = cluster.connect(node);
    let mut writer = stream.try_clone().expect("a second handle");
    let lines = lines.to_string();
    let writing = thread::spawn(move || {
        writer.write_all(lines.as_bytes()).expect("the node reads");
        writer.shutdown(Shutdown::Write).expect("it is open");
    });
    let mut replies = String::new();
    stream.read_to_string(&mut replies).expect("the node answers and closes");
    writing.join().expect("it wrote");
    replies.lines().last().unwrap_or_default().to_string()
}

fn transaction_of(command: &str, times: usize) -> String {
    format!("MULTI\n{}EXEC\n", format!("{command}\n").repeat(times))
}

#[test]
fn a_small_transaction_that_appends_very_often_to_a_long_value_kills_no_node() {
    let mut cluster = Cluster::start(3, FLAGS);
    let leader = cluster.await_leader();
    build_k(&cluster, leader);
    let before = term(&cluster, leader);
    let last = last_reply(&cluster, leader, &transaction_of("APPEND k x", 1500));
    assert_eq!(last, ":1001500");
    cluster.await_same_applied();
    for node in 0..3 {
        assert!(cluster.peak_mib(node) < MEMORY_MAX, "{} MiB", cluster.peak_mib(node));
    }
    assert_eq!(term(&cluster, leader), before);
    // As often as they start: it is in the log.
    (0..3).for_each(|node| cluster.kill(node));
    (0..3).for_each(|node| cluster.start_node(node));
    let leader = cluster.await_leader();
    assert_eq!(cluster.nc(leader, "STRLEN k\n"), ":1001500\r\n");
    assert!((0..3).all(|node| cluster.peak_mib(node) < MEMORY_MAX));
}

#[test]
fn a_transaction_that_needs_too_much_memory_is_refused_before_it_is_proposed() {
    let cluster = Cluster::start(3, FLAGS);
    let leader = cluster.await_leader();
    let value = "x".repeat(1_000_000);
    for key in 0..70 {
        let set = format!("*3\r\n$3\r\nSET\r\n$2\r\n{key:02}\r\n$1000000\r\n{value}\r\n");
        assert_eq!(cluster.nc(leader, &set), "+OK\r\n");
    }
    let all: String = (0..70).map(|key| format!("APPEND {key:02} x\n")).collect();
    let last = last_reply(&cluster, leader, &format!("MULTI\n{all}EXEC\n"));
    assert!(last.starts_with("-ERR the transaction appends to values of 70"), "{last}");
    assert!(last.contains("nothing was done"), "{last}");
    assert_eq!(cluster.nc(leader, "STRLEN 00\n"), ":1000000\r\n");
    assert_eq!(last_reply(&cluster, leader, &transaction_of("APPEND 00 x", 70)), ":1000070");
}

#[test]
fn many_commands_on_a_long_value_do_not_cost_the_leader_its_leadership() {
    let cluster = Cluster::start(3, FLAGS);
    let leader = cluster.await_leader();
    build_k(&cluster, leader);
    let before = term(&cluster, leader);
    assert_eq!(last_reply(&cluster, leader, &"APPEND k x\n".repeat(600)), ":1000600");
    for (command, reply) in [
        ("EXPIRE k 1000000", ":1"),
        ("PERSIST k", ":0"),
        ("INCR k", "-ERR value is not an integer or out of range"),
    ] {
        let last = last_reply(&cluster, leader, &transaction_of(command, 16_000));
        assert_eq!(last, reply, "{command}");
    }
    assert_eq!(term(&cluster, leader), before);
}

/// A cluster with so many keys that a search takes a while, and its leader.
fn with_many_keys() -> (Cluster, usize) {
    let cluster = Cluster::start(3, FLAGS);
    let leader = cluster.await_leader();
    let sets: String = (0..50_000).map(|key| format!("SET key:{key} v\n")).collect();
    assert_eq!(last_reply(&cluster, leader, &sets), "+OK");
    cluster.await_same_applied();
    (cluster, leader)
}

#[test]
fn searches_in_transactions_do_not_cost_the_leader_its_leadership() {
    let (cluster, leader) = with_many_keys();
    let before = term(&cluster, leader);
    thread::scope(|scope| {
        for client in 0..30 {
            let stream = cluster.connect(client % 3);
            scope.spawn(move || {
                let mut reader = BufReader::new(stream);
                for _ in 0..3 {
                    reader.get_mut().write_all(b"MULTI\r\nKEYS *z\r\nEXEC\r\n").expect("it reads");
                    let mut line = || {
                        let mut line = String::new();
                        reader.read_line(&mut line).expect("it answers");
                        line
                    };
                    let replies: String = (0..4).map(|_| line()).collect();
                    assert_eq!(replies, "+OK\r\n+QUEUED\r\n*1\r\n*0\r\n");
                }
            });
        }
    });
    assert_eq!(term(&cluster, leader), before);
}

/// A client's own limit of its answers says nothing of what they cost.
#[test]
fn searches_with_a_short_answer_are_paid_for_as_others_are() {
    const TRANSACTIONS: u64 = 100;
    let (cluster, leader) = with_many_keys();
    let before = term(&cluster, leader);
    let mut stream = binary(&cluster, leader);
    let command = search_with_a_short_answer();
    let mut requests = Vec::new();
    for id in 0..TRANSACTIONS {
        let request = Request::Write { command: command.clone().into() };
        let request = RequestFrame { id, body: RequestBody::Ask(request) };
        frame::put_frame(&mut requests, |out| request.encode(out));
    }
    assert!(requests.len() < 30_000);
    stream.write_all(&requests).expect("the node reads");
    for _ in 0..TRANSACTIONS {
        match next_reply(&mut stream) {
            ReplyBody::Answer(Answer::Written { .. }) => {}
            ReplyBody::Answer(Answer::Failed(failure)) => {
                assert_eq!(failure.code, FailureCode::Overloaded, "{failure:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(term(&cluster, leader), before);
    await_condition("all is applied", || cluster.info(leader).is_some());
}

/// Looks at every key several times, and would answer with 64 bytes at most.
fn search_with_a_short_answer() -> Vec<u8> {
    let range = Range {
        start: b"".as_slice().into(),
        end: None,
        reverse: false,
        pattern: Some(b"*z".as_slice().into()),
        with_values: false,
        keys_max: 1024,
        partial: false,
    };
    let mut steps = StepBuffer::default();
    (0..3).for_each(|_| steps.push(&Step::Read(ReadOp::Range(range.clone()))));
    let watched = WatchedBuffer::default();
    let (watched, steps) = (watched.watched(), steps.steps());
    let transaction = Transaction { watched, answer_bytes_max: 64, steps };
    let op = WriteOp::Timed { stamp: 0, op: TimedOp::Transaction(transaction) };
    Command::Write { request: None, op }.to_bytes()
}

/// A connection of a binary client that has been welcomed.
fn binary(cluster: &Cluster, node: usize) -> TcpStream {
    let mut stream = cluster.connect(node);
    let role = Role::Client { name: "test".to_string() };
    let hello = Hello { version_min: VERSION_MIN, version_max: VERSION_MAX, cluster_id: 0, role };
    let mut bytes = frame::MAGIC.to_vec();
    frame::put_frame(&mut bytes, |out| hello.encode(out));
    stream.write_all(&bytes).expect("the node reads");
    let mut magic = [0; frame::MAGIC.len()];
    stream.read_exact(&mut magic).expect("its magic");
    next_frame(&mut stream);
    stream
}

fn next_frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        match frame::next_frame(&bytes, 1 << 20).expect("a frame") {
            FrameStep::Frame { payload, .. } => return payload.to_vec(),
            FrameStep::NeedMore { .. } => {
                let mut next = [0];
                stream.read_exact(&mut next).expect("the node answers");
                bytes.push(next[0]);
            }
            FrameStep::Oversized { .. } => panic!("a short reply is expected"),
        }
    }
}

fn next_reply(stream: &mut TcpStream) -> ReplyBody {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout is set");
    ReplyFrame::decode(&next_frame(stream)).expect("a reply").body
}
