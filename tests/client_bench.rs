//! `cltraft bench` against real nodes: what it counts, and what it does not hide. Nothing here says how fast
//! anything is.

#[allow(dead_code)] // Other tests use the rest.
mod processes;

use processes::{Cluster, await_condition, wait_for_exit};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const QUICK: [&str; 4] = ["--heartbeat", "20ms", "--election", "150ms"];

fn bench(cluster: &Cluster, words: &[&str]) -> Command {
    let servers: Vec<String> = (0..cluster.size()).map(|node| cluster.address(node)).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cltraft"));
    command.env_clear().args(["--servers", &servers.join(","), "bench", "--warmup", "0"]);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Exit status, standard output, standard error.
fn end(mut child: Child) -> (Option<i32>, String, String) {
    wait_for_exit(&mut child);
    let output = child.wait_with_output().expect("it has ended");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A number of the answer, the first of this name.
fn number(json: &str, name: &str) -> f64 {
    let (_, after) = json.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("{json}"));
    let digits = after.split([',', '}']).next().unwrap_or_default();
    digits.parse().unwrap_or_else(|_| panic!("{name} is {digits}: {json}"))
}

fn await_keys(cluster: &Cluster, node: usize) {
    await_condition("the first writes", || {
        let keys = cluster.nc(node, "DBSIZE\n");
        keys.trim_start_matches(':').trim().parse::<u64>().is_ok_and(|keys| keys > 5)
    });
}

#[test]
fn a_closed_loop_counts_reads_and_writes() {
    let cluster = Cluster::start(3, &QUICK);
    cluster.await_leader();
    let words =
        ["--clients", "4", "--pipeline", "8", "--duration", "1s", "--reads", "50", "--keys", "50"];
    let child = bench(&cluster, &[&words[..], &["--output", "json"]].concat()).spawn().unwrap();
    let (status, json, said) = end(child);
    assert_eq!((status, said.as_str(), json.lines().count()), (Some(0), "", 1), "{json}");
    let all = number(&json, "requests");
    let (_, of_reads) = json.split_once("\"microseconds_of_reads\":").expect("reads");
    let (_, of_writes) = json.split_once("\"microseconds_of_writes\":").expect("writes");
    let (reads, writes) = (number(of_reads, "requests"), number(of_writes, "requests"));
    assert!(reads > 0.0 && writes > 0.0 && reads + writes == all, "{json}");
    assert_eq!(number(&json, "failed"), 0.0, "{json}");
    let order = ["p50", "p90", "p99", "p99_9", "max"].map(|name| number(&json, name));
    assert!(order.is_sorted() && order[0] > 0.0, "{json}");
    assert!(number(&json, "requests_per_second") <= all, "what came late is not counted: {json}");
    let keys = cluster.client().digest().unwrap().keys;
    assert_eq!(keys, 50, "the keys that it was given, and no others");
    let child = bench(&cluster, &["--duration", "200ms"]).spawn().unwrap();
    let (status, table, _) = end(child);
    let first = "closed loop; clients 16, pipeline 1, keys 10000, value 100 B, reads 0 %\n";
    assert!(status == Some(0) && table.starts_with(first), "{table}");
    assert!(table.contains("P99.9") && table.contains("\nwrites "), "{table}");
}

/// A closed loop would ask a few times less, and call the rest fast.
#[test]
fn an_open_loop_sees_a_pause_with_every_request_that_was_due() {
    let cluster = Cluster::start(1, &[]);
    cluster.await_leader();
    let words = ["--rate", "200", "--duration", "3s", "--clients", "2", "--output", "json"];
    let child = bench(&cluster, &words).spawn().unwrap();
    await_keys(&cluster, 0);
    cluster.pause(0);
    // The pause itself is what is measured.
    std::thread::sleep(Duration::from_millis(900));
    cluster.resume(0);
    let (status, json, _) = end(child);
    assert_eq!(status, Some(0), "{json}");
    assert_eq!(number(&json, "requests") + number(&json, "failed"), 600.0, "{json}");
    // Of 600 requests some 180 were due in the pause, and 60 of them in its first third.
    assert!(number(&json, "p90") >= 500_000.0, "{json}");
}

#[test]
fn it_goes_on_with_the_next_leader_and_tells_what_was_lost() {
    let mut cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let words = ["--clients", "4", "--duration", "4s", "--output", "json"];
    let child = bench(&cluster, &words).spawn().unwrap();
    await_keys(&cluster, leader);
    cluster.kill(leader);
    let next = cluster.await_leader_among(&cluster.running());
    let applied = |node: usize| {
        let info = cluster.info(node).expect("it runs");
        info["raft_last_applied"].parse::<u64>().expect("a number")
    };
    let before = applied(next);
    await_condition("writes at the next leader", || applied(next) > before);
    let (status, json, _) = end(child);
    assert_eq!(status, Some(0), "{json}");
    assert!(number(&json, "failed") > 0.0 && json.contains("\"connection lost: "), "{json}");
}

#[test]
fn nobody_there_is_not_done() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cltraft"));
    command.env_clear().args(["--servers", "127.0.0.1:1", "--timeout", "300ms", "bench"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}
