//! Change streams of real processes: every acknowledged write once and in order, also when the leader
//! dies, and what a client that does not read costs.

#[allow(dead_code)] // Other tests use the rest.
mod processes;
#[allow(dead_code)] // Other tests use the rest.
mod resp;

use processes::{Cluster, await_condition};
use raftkv::client::StreamEvent;
use raftkv::kv::Change;
use resp::Resp;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::process::{Command, Stdio};

const QUICK: [&str; 4] = ["--heartbeat", "20ms", "--election", "150ms"];

/// Index and changes of the next `change`, passing over progress.
fn next_change(stream: &mut Resp) -> (u64, String) {
    loop {
        let said = stream.hear();
        let inner = said.strip_prefix('[').and_then(|it| it.strip_suffix(']')).expect("an array");
        if let Some(change) = inner.strip_prefix("change :") {
            let (index, changes) = change.split_once(' ').expect("an index and changes");
            return (index.parse().expect("an index"), changes.to_owned());
        }
        assert!(inner.starts_with("progress :"), "{said}");
    }
}

fn begin(cluster: &Cluster, node: usize, command: &str) -> Resp {
    let mut stream = Resp::connect(cluster, node);
    let said = stream.ask(command);
    assert!(said.starts_with("[changes :"), "{said}");
    stream
}

#[test]
fn every_node_streams_effects_and_nothing_else_in_both_versions() {
    let cluster = Cluster::start(3, &QUICK);
    cluster.await_leader();
    let from = cluster.await_same_applied() + 1;
    let mut client = Resp::connect(&cluster, 0);
    client.expect(&[
        ("MSET a 1 b 2", "+OK"),
        ("SET a 2 NX", "(nil2)"),
        ("DEL none", ":0"),
        ("INCRBY a 4", ":5"),
        ("SET other 1", "+OK"),
        ("DEL a b none", ":2"),
    ]);
    for node in 0..3 {
        let mut stream = Resp::connect(&cluster, node);
        assert_eq!(stream.ask(&format!("CHANGES FROM {from}")), format!("[changes :{from}]"));
        let mut prefixed = Resp::connect(&cluster, node);
        prefixed.ask("HELLO 3");
        prefixed.send(&["changes", "prefix", "o", "from", &from.to_string()]);
        assert_eq!(prefixed.hear(), format!(">[changes :{from}]"));
        let all: Vec<_> = (0..4).map(|_| next_change(&mut stream)).collect();
        let expected = [
            (from, "[[set a 1] [set b 2]]"),
            (from + 3, "[[set a 5]]"),
            (from + 4, "[[set other 1]]"),
            (from + 5, "[[del a] [del b]]"),
        ];
        assert_eq!(all, expected.map(|(index, changes)| (index, changes.to_owned())));
        let other = from + 4;
        assert_eq!(prefixed.hear(), format!(">[change :{other} [[set other 1]]]"));
        // Of what comes after, nothing begins so: a mark tells how far that is.
        assert_eq!(prefixed.hear(), format!(">[progress :{}]", from + 5));
        let mut resumed = begin(&cluster, (node + 1) % 3, &format!("CHANGES FROM {}", from + 4));
        assert_eq!(next_change(&mut resumed).0, from + 4);
    }
}

#[test]
fn a_stream_from_nc_begins_with_what_comes_next() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let mut client = Resp::connect(&cluster, 0);
    client.expect(&[("SET before 1", "+OK")]);
    let mut stream = Resp::connect(&cluster, 0);
    stream.send_line("GET before");
    stream.send_line("CHANGES");
    assert_eq!(stream.hear(), "1", "what was asked before comes first");
    assert!(stream.hear().starts_with("[changes :"));
    // As `echo CHANGES | nc` does: it says no more, and listens.
    stream.shut_sending();
    client.expect(&[("SET after 1", "+OK")]);
    assert_eq!(next_change(&mut stream).1, "[[set after 1]]");
}

#[test]
fn while_changes_are_streamed_only_little_is_taken_and_reset_ends_it() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let mut client = Resp::connect(&cluster, 0);
    let mut stream = begin(&cluster, 0, "CHANGES FROM 1000000");
    let only = "only PING / QUIT / RESET are allowed in this context";
    stream.expect(&[
        ("GET a", &format!("-ERR Can't execute 'get': {only}")),
        ("CHANGES", &format!("-ERR Can't execute 'changes': {only}")),
        ("SUBSCRIBE a", &format!("-ERR Can't execute 'subscribe': {only}")),
        ("PING", "[pong ]"),
        ("PING x", "[pong x]"),
        ("RESET", "+RESET"),
        ("SET a 1", "+OK"),
        ("GET a", "1"),
    ]);
    assert_eq!(cluster.info(0).expect("it runs")["change_streams"], "0");
    client.expect(&[
        ("CHANGES FROM", "-ERR syntax error"),
        ("CHANGES TO 1", "-ERR syntax error"),
        ("CHANGES FROM x", "-ERR value is not an integer or out of range"),
        ("CHANGES FROM -1", "-ERR FROM is a log index, which is never negative"),
    ]);
    let mut stream = begin(&cluster, 0, "CHANGES");
    stream.expect(&[("QUIT", "+OK")]);
    assert!(stream.is_over());
}

/// The acknowledged writes of a client, and a stream at a node that may die: it goes on at another one
/// where it was.
#[test]
fn through_the_death_of_a_leader_a_resumed_stream_has_every_write_once_and_in_order() {
    let mut cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let follower = (leader + 1) % 3;
    let from = cluster.await_same_applied() + 1;
    let mut at_leader = begin(&cluster, leader, &format!("CHANGES PREFIX w FROM {from}"));
    let mut at_follower = begin(&cluster, follower, &format!("CHANGES PREFIX w FROM {from}"));
    let mut client = cluster.client();
    let write = |client: &mut raftkv::client::Client, number: u32| {
        let value = number.to_string();
        client.put(b"w", value.as_bytes()).expect("the cluster takes it").index
    };
    let mut written: BTreeMap<u64, String> = BTreeMap::new();
    for number in 0..200 {
        written.insert(write(&mut client, number), number.to_string());
    }
    let mut seen = Vec::new();
    for _ in 0..50 {
        seen.push(next_change(&mut at_leader));
    }
    cluster.kill(leader);
    for number in 200..400 {
        written.insert(write(&mut client, number), number.to_string());
    }
    let last = *written.keys().last().expect("there are some");
    let expected: Vec<(u64, String)> =
        written.iter().map(|(index, value)| (*index, format!("[[set w {value}]]"))).collect();
    let next = seen.last().expect("it has seen some").0 + 1;
    let mut resumed = begin(&cluster, follower, &format!("CHANGES PREFIX w FROM {next}"));
    while seen.last().expect("some").0 < last {
        seen.push(next_change(&mut resumed));
    }
    assert_eq!(seen, expected);
    let mut followed = Vec::new();
    while followed.last().is_none_or(|(index, _)| *index < last) {
        followed.push(next_change(&mut at_follower));
    }
    assert_eq!(followed, expected);
    // Also from the third one, which nobody has asked so far, and from one that comes back.
    cluster.start_node(leader);
    for node in [(leader + 2) % 3, leader] {
        cluster.await_same_applied();
        let mut again = begin(&cluster, node, &format!("CHANGES PREFIX w FROM {from}"));
        let again: Vec<_> = expected.iter().map(|_| next_change(&mut again)).collect();
        assert_eq!(again, expected);
    }
}

fn resident_bytes(cluster: &Cluster, node: usize) -> u64 {
    let path = format!("/proc/{}/statm", cluster.process_id(node));
    let pages = std::fs::read_to_string(path).expect("the process runs");
    let pages: u64 = pages.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a number");
    pages * 4096
}

/// What it has not read is in the history and in one small outbox, whatever comes.
#[test]
fn who_does_not_read_is_told_that_changes_are_forgotten_and_costs_little() {
    // With little log in memory, so that what is measured is not the log.
    let flags = [&QUICK[..], &["--snapshot-log-bytes", "1MiB", "--segment-bytes", "1MiB"]].concat();
    let cluster = Cluster::start(1, &flags);
    cluster.await_leader();
    let value = vec![b'v'; 500_000];
    let mut client = cluster.client();
    // As much as is remembered, so that the history is full before and after.
    for _ in 0..24 {
        client.put(b"k", &value).expect("written");
    }
    let mut streams: Vec<Resp> = (0..8).map(|_| begin(&cluster, 0, "CHANGES")).collect();
    let mut reader = begin(&cluster, 0, "CHANGES");
    let before = resident_bytes(&cluster, 0);
    let mut last = 0;
    for _ in 0..120 {
        last = client.put(b"k", &value).expect("written").index;
        assert_eq!(next_change(&mut reader).0, last, "who reads misses nothing");
    }
    await_condition("those that do not read to be cut", || {
        cluster.info(0).expect("it runs")["change_streams"] == "1"
    });
    let after = resident_bytes(&cluster, 0);
    let each = after.saturating_sub(before) / streams.len() as u64;
    assert!(each < 4 * 1024 * 1024, "{each} bytes for each, of {} streamed", 120 * value.len());
    for stream in &mut streams {
        let error = loop {
            let said = stream.hear();
            if said.starts_with('-') {
                break said;
            }
        };
        assert!(error.starts_with("-COMPACTED changes up to index "), "{error}");
        let advised = error.rsplit_once(' ').expect("words").1;
        let next: u64 = advised.parse().expect("an index");
        assert!(next <= last + 1 && error.contains("; read the keys again and go on from "));
        // The connection is as before, and the advice can be followed.
        assert_eq!(stream.ask("STRLEN k"), ":500000");
        assert_eq!(stream.ask("CHANGES FROM 1"), {
            let first = cluster.info(0).expect("it runs")["changes_first_index"].clone();
            let forgotten = first.parse::<u64>().expect("an index") - 1;
            let next = last + 1;
            format!(
                "-COMPACTED changes up to index {forgotten} are forgotten; read the keys again and go on \
                 from {next}"
            )
        });
        assert_eq!(
            stream.ask(&format!("CHANGES FROM {}", last + 1)),
            format!("[changes :{}]", last + 1)
        );
    }
}

/// What lies between is unknown after a snapshot was installed.
#[test]
fn a_snapshot_from_the_leader_ends_a_stream() {
    let flags =
        [&QUICK[..], &["--snapshot-log-bytes", "64KiB", "--segment-bytes", "64KiB"]].concat();
    let cluster = Cluster::start(3, &flags);
    let leader = cluster.await_leader();
    let follower = (leader + 1) % 3;
    cluster.await_same_applied();
    let mut stream = begin(&cluster, follower, "CHANGES");
    let mut client = cluster.client();
    client.put(b"k", b"first").expect("written");
    assert_eq!(next_change(&mut stream).1, "[[set k first]]");
    cluster.pause(follower);
    let value = vec![b'v'; 50_000];
    let written =
        |info: &processes::Info| info["raft_log_first_index"].parse::<u64>().expect("a number");
    let applied = cluster.info(leader).expect("it runs")["raft_last_applied"].clone();
    let applied: u64 = applied.parse().expect("an index");
    // More than is under way to a follower at most, which it takes when it goes on.
    const LACKS: u64 = 200;
    await_condition("the leader to forget what the follower lacks", || {
        client.put(b"k", &value).expect("written");
        cluster.info(leader).is_some_and(|info| written(&info) > applied + LACKS)
    });
    cluster.resume(follower);
    // What was under way to it when it stopped may come first.
    let error = loop {
        let said = stream.hear();
        if said.starts_with('-') {
            break said;
        }
    };
    assert!(error.starts_with("-COMPACTED changes up to index "), "{error}");
    // Once no other snapshot follows, the advice can be followed.
    cluster.await_same_applied();
    let error = stream.ask("CHANGES FROM 1");
    let next = error.rsplit_once(' ').expect("words").1.to_owned();
    assert_eq!(stream.ask(&format!("CHANGES FROM {next}")), format!("[changes :{next}]"));
    let last = client.put(b"k", b"last").expect("written").index;
    assert_eq!(next_change(&mut stream), (last, "[[set k last]]".to_owned()));
}

/// More work than fits into a turn, so they take turns; none is forgotten meanwhile.
#[test]
fn many_streams_that_are_far_behind_each_get_everything() {
    const CHANGES: u64 = 4000;
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let from = cluster.await_same_applied() + 1;
    let mut client = Resp::connect(&cluster, 0);
    let value = "v".repeat(100);
    for number in 0..CHANGES {
        client.send(&["SET", &format!("k{}", number % 10), &value]);
    }
    (0..CHANGES).for_each(|_| assert_eq!(client.hear(), "+OK"));
    let command = |number: usize| match number % 3 {
        0 => format!("CHANGES FROM {from}"),
        1 => format!("CHANGES PREFIX k3 FROM {from}"),
        _ => format!("CHANGES PREFIX none FROM {from}"),
    };
    let mut streams: Vec<Resp> =
        (0..90).map(|number| begin(&cluster, 0, &command(number))).collect();
    client.expect(&[("SET k3 last", "+OK"), ("SET none last", "+OK")]);
    // The last ones do not read until the first ones have everything.
    for (number, stream) in streams.iter_mut().enumerate() {
        let (every, offset, last) = match number % 3 {
            0 => (1, 0, CHANGES),
            1 => (10, 3, CHANGES),
            _ => (CHANGES, CHANGES, CHANGES + 1),
        };
        for index in (offset..CHANGES).step_by(every as usize) {
            assert_eq!(next_change(stream).0, from + index, "stream {number}");
        }
        assert_eq!(next_change(stream).0, from + last, "stream {number}");
    }
}

/// Nothing is sent to it that would find that out, and the kernel asks only after a minute.
#[test]
fn a_stream_whose_client_has_gone_is_closed_although_nothing_changes() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let mut listens = begin(&cluster, 0, "CHANGES FROM 1000000");
    listens.shut_sending();
    assert_eq!(listens.hear(), "[progress :999999]", "it says no more, and is told so");
    for _ in 0..20 {
        drop(begin(&cluster, 0, "CHANGES"));
    }
    await_condition("those that have gone to be forgotten", || {
        cluster.info(0).expect("it runs")["change_streams"] == "1"
    });
}

fn cltraft(cluster: &Cluster, words: &[&str]) -> Command {
    let servers: Vec<String> = (0..cluster.size()).map(|node| cluster.address(node)).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cltraft"));
    command.env_clear().args(["--servers", &servers.join(",")]).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn cltraft_prints_every_change_once_through_the_death_of_its_server() {
    let mut cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let from = (cluster.await_same_applied() + 1).to_string();
    let mut child = cltraft(&cluster, &["changes", "--prefix", "w", "--from", &from])
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut errors = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    let mut line = || lines.next().expect("there is more").expect("text");
    let mut client = cluster.client();
    let mut expected = Vec::new();
    let write = |client: &mut raftkv::client::Client, expected: &mut Vec<String>| {
        let number = expected.len();
        client.put(b"other", b"x").expect("written");
        let value = format!("{number} two\nlines");
        let index = client.put(b"w", value.as_bytes()).expect("written").index;
        expected.push(format!("{index} set w {number} two\\nlines"));
    };
    (0..50).for_each(|_| write(&mut client, &mut expected));
    let mut seen: Vec<String> = (0..10).map(|_| line()).collect();
    let begun = errors.next().expect("it says where").expect("text");
    let (server, rest) = begun.split_once(' ').expect("a server");
    assert_eq!(rest, format!("sends changes from index {from} on"));
    let node = (0..3).find(|node| cluster.address(*node) == server).expect("one of them");
    cluster.kill(node);
    (0..50).for_each(|_| write(&mut client, &mut expected));
    seen.extend((10..100).map(|_| line()));
    assert_eq!(seen, expected);
    let lost = errors.next().expect("it says so").expect("text");
    assert!(lost.starts_with(&format!("{server} is lost (")), "{lost}; leader was {leader}");
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::TERM,
    )
    .expect("the process is ours");
    assert_eq!(processes::wait_for_exit(&mut child).code(), Some(0));
}

#[test]
fn cltraft_ends_with_3_when_changes_are_forgotten() {
    let flags =
        [&QUICK[..], &["--snapshot-log-bytes", "64KiB", "--segment-bytes", "64KiB"]].concat();
    let mut cluster = Cluster::start(1, &flags);
    cluster.await_leader();
    let mut client = cluster.client();
    let value = vec![b'v'; 50_000];
    await_condition("a snapshot", || {
        client.put(b"k", &value).expect("written");
        cluster.info(0).is_some_and(|info| info["raft_snapshots"] == "2")
    });
    cluster.kill(0);
    cluster.start_node(0);
    cluster.await_leader();
    let output = cltraft(&cluster, &["changes", "--from", "1"]).output().expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(errors.starts_with("not done: compacted: changes up to index "), "{errors}");
    assert!(errors.contains("read the keys again and go on from "), "{errors}");
}

/// It is more than goes into one frame.
#[test]
fn an_entry_of_many_changes_comes_whole_over_frames() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let from = cluster.await_same_applied() + 1;
    let large = "v".repeat(1000);
    let mut words = vec!["MSET".to_owned()];
    (0..511).for_each(|number| words.extend([format!("k{number:03}"), format!("{number}{large}")]));
    let mut client = Resp::connect(&cluster, 0);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    client.send(&words);
    assert_eq!(client.hear(), "+OK");
    let mut told = Vec::new();
    let ended = cluster.client().changes(b"k", Some(from), |event| {
        let StreamEvent::Changes { index, changes } = event else {
            return ControlFlow::Continue(());
        };
        assert_eq!(index, from);
        told.extend(changes);
        ControlFlow::Break(())
    });
    ended.expect("it ends when it has had enough");
    let expected: Vec<Change> = (0..511)
        .map(|number| Change::Set {
            key: format!("k{number:03}").as_bytes().into(),
            value: format!("{number}{large}").as_bytes().into(),
        })
        .collect();
    assert!(told == expected, "{} of 511 changes", told.len());
}
