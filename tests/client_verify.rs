//! `cltraft verify`: it finds what is wrong at servers that lie, and nothing wrong at real nodes that are killed.

mod mock;
#[allow(dead_code)] // Other tests use the rest.
mod processes;

use mock::{Mock, Seen, Step, Store, written};
use processes::{Cluster, wait_for_exit};
use raftkv::kv::{Answer, Command as Entry, Outcome, Refusal, Request, WriteOp};
use raftkv::protocol::client::RequestBody;
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn verify(servers: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cltraft"));
    command.env_clear().args(["--servers", servers, "verify"]).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Exit status and standard output.
fn run(mock: &Mock, words: &[&str]) -> (Option<i32>, String) {
    let output = verify(&mock.address(), words).output().expect("the binary runs");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn nothing_is_wrong_with_an_honest_server_and_nothing_is_left_there() {
    let store = std::sync::Arc::new(std::sync::Mutex::new(Store::default()));
    let mock = Mock::start({
        let store = std::sync::Arc::clone(&store);
        move |_, body| store.lock().unwrap().handle(body)
    });
    let (status, text) = run(&mock, &["--duration", "1s", "--clients", "6", "--seed", "9"]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.starts_with("linearizable: operations ") && text.contains("seed 9, "), "{text}");
    assert!(
        text.contains(", unknown 0, not done 0, ") && text.contains(", undecided 0, "),
        "{text}"
    );
    assert!(store.lock().unwrap().map.is_empty(), "its keys are deleted");
    let words = ["--duration", "300ms", "--output", "json"];
    let (status, text) = run(&mock, &words);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.starts_with("{\"linearizable\":true,") && text.ends_with("\"violation\":null}\n"));
}

/// What the write of a request puts, if it is one.
fn put(body: &RequestBody) -> Option<(Vec<u8>, Vec<u8>)> {
    let RequestBody::Ask(Request::Write { command }) = body else { return None };
    match Entry::decode(command).expect("checked") {
        Entry::Write { op: WriteOp::Put { key, value }, .. } => {
            Some((key.to_vec(), value.to_vec()))
        }
        _ => None,
    }
}

fn assert_found(status: Option<i32>, text: &str) {
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("NOT linearizable: ") && text.contains("seed 5, "), "{text}");
    let misfit = text.lines().any(|line| line.trim_start().starts_with('>'));
    assert!(
        misfit && text.contains("verify-"),
        "the operation that does not fit is marked: {text}"
    );
}

const LIARS: [&str; 8] = ["--duration", "30s", "--clients", "4", "--keys", "2", "--seed", "5"];

#[test]
fn a_stale_read_is_found() {
    let mut store = Store::default();
    let mut puts: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    let mut reads = 0;
    let mock = Mock::start(move |seen, body| {
        if let Some((key, value)) = put(body) {
            puts.entry(key).or_default().push(value);
        }
        if let Seen::Get(key) = seen {
            reads += 1;
            // So old that nobody can be at work on it any more.
            let old = puts.get(key).and_then(|values| values.iter().rev().nth(10).cloned());
            if reads % 100 == 0 && old.is_some() {
                let value = old.map(|value| value.as_slice().into());
                return Step::Reply(Answer::Value { value, index: 9, leader: 2 });
            }
        }
        store.handle(body)
    });
    let (status, text) = run(&mock, &LIARS);
    assert_found(status, &text);
}

#[test]
fn a_lost_write_is_found() {
    let mut store = Store::default();
    let mut puts = 0;
    let mock = Mock::start(move |_, body| {
        puts += u64::from(put(body).is_some());
        if puts % 50 == 49 && put(body).is_some() {
            return written(Outcome::Put);
        }
        store.handle(body)
    });
    let (status, text) = run(&mock, &LIARS);
    assert_found(status, &text);
}

#[test]
fn a_write_done_twice_is_found() {
    let mut store = Store::default();
    let mut increments = 0;
    let mock = Mock::start(move |_, body| {
        if let RequestBody::Ask(Request::Write { command }) = body
            && let Entry::Write { op: WriteOp::Increment { .. }, .. } =
                Entry::decode(command).unwrap()
        {
            increments += 1;
            if increments % 20 == 0 {
                store.handle(body);
            }
        }
        store.handle(body)
    });
    let (status, text) = run(&mock, &LIARS);
    assert_found(status, &text);
}

/// Answers that never come are no violation, whether the writes were done or not.
#[test]
fn unknown_outcomes_are_no_false_alarm() {
    let mut store = Store::default();
    let (mut writes, mut lost) = (0, BTreeSet::new());
    let mock = Mock::start(move |seen, body| {
        let Seen::Write(session, sequence) = seen else { return store.handle(body) };
        if lost.contains(&(*session, *sequence)) {
            // A server that has forgotten the session cannot say what became of the write.
            return written(Outcome::Refused(Refusal::UnknownSession));
        }
        writes += 1;
        if writes % 20 != 0 {
            return store.handle(body);
        }
        lost.insert((*session, *sequence));
        if writes % 40 == 0 {
            store.handle(body);
        }
        Step::Close
    });
    let (status, text) = run(&mock, &["--duration", "2s", "--clients", "3", "--keys", "2"]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("linearizable: ") && !text.contains(", unknown 0, "), "{text}");
}

/// Seconds are short here; `VERIFY_SECONDS=600` makes it the ten minutes that a release is worth.
#[test]
fn nodes_that_are_killed_paused_and_started_again_stay_linearizable() {
    let seconds = std::env::var("VERIFY_SECONDS").ok().and_then(|text| text.parse().ok());
    let duration = Duration::from_secs(seconds.unwrap_or(6));
    let mut cluster = Cluster::start(3, &["--heartbeat", "20ms", "--election", "150ms"]);
    cluster.await_leader();
    let servers: Vec<String> = (0..3).map(|node| cluster.address(node)).collect();
    let time = format!("{}ms", duration.as_millis());
    let child = verify(&servers.join(","), &["--duration", &time, "--clients", "6"])
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the binary runs");
    let (end, mut kills) = (Instant::now() + duration, 0);
    while Instant::now() + Duration::from_secs(1) < end {
        let leader = cluster.await_leader();
        if kills % 3 == 2 {
            cluster.pause(leader);
            let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
            cluster.await_leader_among(&others);
            cluster.resume(leader);
        } else {
            cluster.kill(leader);
            let others = cluster.running();
            cluster.await_leader_among(&others);
            cluster.start_node(leader);
        }
        kills += 1;
        cluster.await_leader();
    }
    let mut child = child;
    // It stops by itself; only what is under way has to end, and its keys have to go.
    wait_for_exit(&mut child);
    let output = child.wait_with_output().expect("it has ended");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.starts_with("linearizable: ") && kills > 0, "{kills} kills: {text}");
    println!("{kills} times a leader was lost; {text}");
}
