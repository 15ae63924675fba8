//! Real processes over HTTP: alive, ready, counted; beside text commands, on the same port.

#[allow(dead_code)] // Other tests use the rest.
mod processes;

use processes::{Cluster, await_condition};
use raftkv::kv::MemberRequest;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

const QUICK: [&str; 4] = ["--heartbeat", "20ms", "--election", "150ms"];

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// One answer off a connection; the body is as long as the head says, or not there.
fn read_answer(stream: &mut TcpStream, is_head: bool) -> Answer {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).expect("it answers"), 1, "{}", head.escape_ascii());
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("a head is text");
    let length = head.split("Content-Length: ").nth(1).and_then(|rest| rest.lines().next());
    let length: usize = length.and_then(|length| length.parse().ok()).expect("a length");
    let mut body = vec![0; if is_head { 0 } else { length }];
    stream.read_exact(&mut body).expect("the whole body");
    let status = head[9..12].parse().expect("a status");
    Answer { status, head, body: String::from_utf8(body).expect("a body is text") }
}

fn get(cluster: &Cluster, node: usize, path: &str) -> Answer {
    let mut stream = cluster.connect(node);
    let request = format!("GET {path} HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it is sent");
    let answer = read_answer(&mut stream, false);
    assert_eq!(stream.read(&mut [0]).expect("its end"), 0, "it closes, as it was asked to");
    answer
}

fn is_alive(cluster: &Cluster, node: usize) -> bool {
    let answer = get(cluster, node, "/livez");
    (answer.status, answer.body.as_str()) == (200, "alive\n")
}

fn is_ready(cluster: &Cluster, node: usize) -> bool {
    let answer = get(cluster, node, "/readyz");
    assert_eq!(answer.status == 200, answer.body == "ready\n", "{answer:?}");
    answer.status == 200
}

/// Waits until a node is not ready for this reason; it is alive all the same, and says of itself that it
/// is not ready.
fn await_reason(cluster: &Cluster, node: usize, reason: &str) {
    await_condition(&format!("raft-{node} not to be ready: {reason}"), || {
        let answer = get(cluster, node, "/readyz");
        answer.status == 503 && answer.body.contains(reason)
    });
    assert!(is_alive(cluster, node), "alive does not depend on {reason}");
    assert_eq!(metrics(cluster, node)["raftkv_ready"], 0.0);
}

/// By name with labels.
fn metrics(cluster: &Cluster, node: usize) -> BTreeMap<String, f64> {
    let answer = get(cluster, node, "/metrics");
    assert_eq!(answer.status, 200);
    let samples = answer.body.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.to_string(), value.parse().expect("a number"))
        })
        .collect()
}

fn role(cluster: &Cluster, node: usize) -> String {
    let metrics = metrics(cluster, node);
    let roles =
        metrics.iter().filter(|(name, value)| name.starts_with("raftkv_role{") && **value == 1.0);
    let roles: Vec<&str> = roles.map(|(name, _)| name.split('"').nth(1).expect("a role")).collect();
    assert_eq!(roles.len(), 1, "{roles:?}");
    roles[0].to_string()
}

#[test]
fn a_node_is_alive_without_a_leader_and_ready_only_with_one() {
    let mut cluster = Cluster::stopped(3, &QUICK);
    cluster.start_node(0);
    await_condition("the node to answer", || cluster.info(0).is_some());
    await_reason(&cluster, 0, "it belongs to no cluster: it waits for all initial members");
    assert_eq!(role(&cluster, 0), "waiting");
    cluster.start_node(1);
    cluster.start_node(2);
    await_condition("all to be ready", || (0..3).all(|node| is_ready(&cluster, node)));
    let leader = cluster.await_leader();
    for node in 0..3 {
        assert!(is_alive(&cluster, node));
        let expected = if node == leader { "leader" } else { "follower" };
        assert_eq!(role(&cluster, node), expected);
    }
    let (alone, other) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.kill(leader);
    cluster.kill(other);
    await_reason(&cluster, alone, "it knows no leader in term");
    cluster.start_node(leader);
    await_condition("two to be ready", || [alone, leader].iter().all(|n| is_ready(&cluster, *n)));
}

#[test]
fn a_leader_that_is_cut_off_is_not_ready_and_alive() {
    let cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    others.iter().for_each(|node| cluster.pause(*node));
    await_reason(&cluster, leader, "it knows no leader in term");
    others.iter().for_each(|node| cluster.resume(*node));
    await_condition("all to be ready again", || (0..3).all(|node| is_ready(&cluster, node)));
}

#[test]
fn a_node_that_stops_is_not_ready_before_it_ends() {
    let mut cluster = Cluster::start(3, &["--heartbeat", "50ms", "--election", "10s"]);
    let leader = cluster.await_leader();
    await_condition("the leader to be ready", || is_ready(&cluster, leader));
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    others.iter().for_each(|node| cluster.pause(*node));
    // Nobody takes over, so it has to wait.
    cluster.ask_to_stop(leader);
    await_reason(&cluster, leader, "it is stopping");
    assert_eq!(cluster.terminate(leader).code(), Some(0));
    others.iter().for_each(|node| cluster.resume(*node));
}

#[test]
fn a_node_that_was_removed_is_not_ready() {
    let cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let removed = (leader + 1) % 3;
    let request = MemberRequest::Remove { name: format!("raft-{removed}") };
    cluster.client().member(request).expect("it is a member");
    await_reason(&cluster, removed, "it was removed from the cluster");
    assert_eq!(role(&cluster, removed), "removed");
    await_condition("the leader to be ready", || is_ready(&cluster, leader));
    assert_eq!(metrics(&cluster, leader)["raftkv_members{counts_as=\"voter\"}"], 2.0);
}

#[test]
fn a_node_whose_disk_lost_data_is_not_ready() {
    let mut cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let mut client = cluster.client();
    for key in 0..100 {
        client.put(format!("k{key}").as_bytes(), &[b'v'; 300]).expect("it is written");
    }
    (0..3).for_each(|node| cluster.kill(node));
    cluster.damage_log(leader);
    cluster.start_node(leader);
    await_condition("the node to answer", || cluster.info(leader).is_some());
    await_reason(&cluster, leader, "its disk has lost data");
    assert_eq!(metrics(&cluster, leader)["raftkv_damaged"], 1.0);
    cluster.start_node((leader + 1) % 3);
    cluster.start_node((leader + 2) % 3);
    await_condition("the node to be ready", || is_ready(&cluster, leader));
}

#[test]
fn requests_on_one_connection_are_answered_in_order_and_others_close_it() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let mut stream = cluster.connect(0);
    let requests = "GET /livez HTTP/1.1\r\nHost: n\r\n\r\nHEAD /metrics HTTP/1.1\r\nHost: n\r\n\r\n\
        GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /none?a=b HTTP/1.1\r\nHost: n\r\n\r\n";
    // As slowly as a network can be.
    for byte in requests.as_bytes() {
        stream.write_all(&[*byte]).expect("it is sent");
    }
    let alive = read_answer(&mut stream, false);
    assert_eq!((alive.status, alive.body.as_str()), (200, "alive\n"));
    let head = read_answer(&mut stream, true);
    assert!(head.head.contains("\r\nContent-Type: text/plain; version=0.0.4"), "{head:?}");
    assert!(!head.head.contains("Content-Length: 0\r\n"), "{head:?}");
    let page = read_answer(&mut stream, false);
    assert!(page.head.contains("\r\nConnection: keep-alive\r\n"), "{page:?}");
    assert!(page.body.starts_with("<!doctype html>"), "{page:?}");
    let missing = read_answer(&mut stream, false);
    assert_eq!(missing.status, 404);
    for path in ["/ ", "/status.json", "/livez", "/readyz", "/metrics"] {
        assert!(missing.body.contains(&format!("\n{path}")), "{missing:?}");
    }
    stream.write_all(&requests.repeat(500).into_bytes()).expect("it is sent");
    for _ in 0..500 {
        let heads = [false, true, false, false];
        let statuses = heads.map(|is_head| read_answer(&mut stream, is_head).status);
        assert_eq!(statuses, [200, 200, 200, 404]);
    }
    stream.write_all(b"DELETE /livez HTTP/1.1\r\nHost: n\r\n\r\n").expect("it is sent");
    assert_eq!(read_answer(&mut stream, false).status, 405);
    assert_eq!(stream.read(&mut [0]).expect("its end"), 0);
}

#[test]
fn what_is_no_request_for_a_page_is_refused_with_its_status_or_hung_up_on() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let long = format!("GET / HTTP/1.1\r\nHost: n\r\nX: {}\r\n\r\n", "x".repeat(9000));
    let long_line = format!("GET /{} HTTP/1.1\r\nHost: n\r\n\r\n", "x".repeat(9000));
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("PUT / HTTP/1.1\r\nHost: n\r\nContent-Length: 2\r\n\r\nhi", "405"),
        (&long_line, "414"),
        (&long, "431"),
    ] {
        let answer = cluster.nc(0, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    }
    for request in ["POST / HTTP/1.1\r\nHost: n\r\n\r\n", "Host: n\r\n\r\n"] {
        let mut stream = cluster.connect(0);
        stream.write_all(request.as_bytes()).expect("it is sent");
        let mut answer = Vec::new();
        // A reset is as good as an end.
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"", "{request}");
    }
    // A client that does not wait to be answered is answered, and one that says half is closed.
    assert!(cluster.nc(0, "GET /livez HTTP/1.0\n\n").ends_with("\r\n\r\nalive\n"));
    assert_eq!(cluster.nc(0, "GET /livez HTTP/1.0\nHos"), "");
    assert_eq!(cluster.nc(0, "GET /liv"), "");
}

#[test]
fn a_key_may_look_like_a_path() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let answer = cluster.nc(0, "GET /livez\nSET /livez 1\nGET /livez\nGET /livez HTTP/1.1\n");
    assert!(answer.starts_with("$-1\r\n+OK\r\n$1\r\n1\r\n-ERR "), "{answer}");
}

#[test]
fn a_probe_is_answered_when_there_are_too_many_clients() {
    let cluster = Cluster::start(1, &["--connections-max", "8"]);
    cluster.await_leader();
    let mut clients: Vec<TcpStream> = (0..8).map(|_| cluster.connect(0)).collect();
    for client in &mut clients {
        client.write_all(b"PING\n").expect("it is sent");
        let mut answer = [0; 7];
        client.read_exact(&mut answer).expect("it has a place");
        assert_eq!(&answer, b"+PONG\r\n");
    }
    assert_eq!(cluster.nc(0, "PING\n"), "-ERR max number of clients reached\r\n");
    let mut stream = cluster.connect(0);
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: n\r\n\r\n").expect("it is sent");
    let answer = read_answer(&mut stream, false);
    assert!(
        answer.head.contains("\r\nConnection: close\r\n"),
        "it takes nobody's place: {answer:?}"
    );
    assert_eq!((answer.status, answer.body.as_str()), (200, "alive\n"));
    assert_eq!(stream.read(&mut [0]).expect("its end"), 0);
}

#[test]
fn a_connection_that_asks_no_more_is_closed_and_one_of_a_text_client_is_not() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let mut text = cluster.connect(0);
    text.write_all(b"PING\n").expect("it is sent");
    text.read_exact(&mut [0; 7]).expect("it is answered");
    let request = b"GET /livez HTTP/1.1\r\nHost: n\r\n\r\n";
    // Nothing more, half a request, and nothing but half a request.
    let says = [(true, &b""[..]), (true, b"GET /livez HTTP/1.1\r\nHo"), (false, b"GET /li")];
    let mut streams = says.map(|(asks, then)| {
        let mut stream = cluster.connect(0);
        if asks {
            stream.write_all(request).expect("it is sent");
            assert_eq!(read_answer(&mut stream, false).status, 200);
        }
        stream.write_all(then).expect("it is sent");
        stream
    });
    for stream in &mut streams {
        assert_eq!(stream.read(&mut [0]).expect("its end"), 0);
    }
    text.write_all(b"PING\n").expect("it is sent");
    let mut answer = [0; 7];
    text.read_exact(&mut answer).expect("it is still connected");
    assert_eq!(&answer, b"+PONG\r\n");
}

#[test]
fn what_is_done_is_counted() {
    let cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let follower = (leader + 1) % 3;
    cluster.await_same_applied();
    let before = metrics(&cluster, leader);
    let followed_before = metrics(&cluster, follower);
    for key in 0..20 {
        assert_eq!(cluster.nc(follower, &format!("SET k{key} 1\n")), "+OK\r\n");
        assert_eq!(cluster.nc(leader, &format!("GET k{key}\n")), "$1\r\n1\r\n");
    }
    cluster.await_same_applied();
    let after = metrics(&cluster, leader);
    let grown = |name: &str| after[name] - before[name];
    assert_eq!(grown("raftkv_proposals_total"), 20.0);
    assert_eq!(grown("raftkv_reads_total"), 20.0);
    assert_eq!(grown("raftkv_applied_index"), 20.0);
    assert_eq!(grown("raftkv_http_requests_total"), 1.0);
    assert!(grown("raftkv_fsync_seconds_count") >= grown("raftkv_batch_entries_count"));
    assert!(grown("raftkv_loop_turn_seconds_count") >= 40.0);
    assert!(grown("raftkv_network_received_bytes_total") > 400.0);
    assert!(grown("raftkv_network_sent_bytes_total") > 400.0);
    assert_eq!(after["raftkv_elections_won_total"], 1.0);
    assert_eq!(after["raftkv_connections{protocol=\"peer\"}"], 2.0);
    assert_eq!(after["raftkv_connections{protocol=\"http\"}"], 1.0);
    assert_eq!(after["raftkv_keys"], 20.0);
    for peer in (0..3).filter(|node| *node != leader) {
        let of = |name: &str| after[&format!("raftkv_peer_{name}{{peer=\"raft-{peer}\"}}")];
        assert_eq!(of("connected"), 1.0);
        assert_eq!((of("match_index"), of("lag_entries")), (after["raftkv_log_last_index"], 0.0));
    }
    let at_follower = metrics(&cluster, follower);
    // A leader's own disk may be late.
    let batches = "raftkv_batch_entries_sum";
    assert_eq!(at_follower[batches] - followed_before[batches], 20.0);
    assert_eq!(at_follower["raftkv_forwarded_total"], 20.0);
    assert_eq!(at_follower["raftkv_proposals_total"], 0.0);
    assert_eq!(at_follower["raftkv_term"], after["raftkv_term"]);
}

#[test]
fn every_metric_has_help_and_a_type_and_stands_once() {
    let cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let text = get(&cluster, leader, "/metrics").body;
    let mut types = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut buckets: BTreeMap<&str, f64> = BTreeMap::new();
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("# TYPE ") {
            let (name, kind) = head.split_once(' ').expect("a name and a type");
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
            assert_eq!(types.insert(name, kind), None, "{name} stands twice");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else if !line.starts_with("# HELP ") {
            let (sample, value) = line.rsplit_once(' ').expect("a name and a value");
            let value: f64 = value.parse().expect("a number");
            assert!(seen.insert(sample), "{sample} stands twice");
            let name = sample.split('{').next().expect("a name");
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let base = base.filter(|base| types.get(base) == Some(&"histogram")).unwrap_or(name);
            assert!(types.contains_key(base), "{line} comes before its type");
            if name.ends_with("_bucket") {
                let below = buckets.insert(base, value).unwrap_or(0.0);
                assert!(value >= below, "buckets never shrink: {line}");
            }
            if name.ends_with("_count") && base != name {
                assert_eq!(buckets[base], value, "the last bucket has all: {line}");
            }
        }
    }
    assert_eq!(buckets.len(), 6, "{buckets:?}");
}

/// Prometheus's own opinion. Its tools are no part of what `cargo test` needs.
#[test]
#[ignore = "needs promtool"]
fn promtool_is_content_with_the_metrics() {
    let cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    for node in [leader, (leader + 1) % 3] {
        let mut command = Command::new("promtool");
        command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("promtool is there");
        let text = get(&cluster, node, "/metrics").body;
        let mut input = child.stdin.take().expect("it is piped");
        input.write_all(text.as_bytes()).expect("promtool reads");
        drop(input);
        let output = child.wait_with_output().expect("promtool ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}");
    }
}
