//! Text commands against real processes, as Redis's libraries send them.

#[allow(dead_code)] // Other tests use the rest.
mod processes;
#[allow(dead_code)]
mod resp;

use processes::{Cluster, await_condition};
use resp::Resp;
use std::collections::BTreeSet;

const QUICK: [&str; 4] = ["--heartbeat", "20ms", "--election", "150ms"];

#[test]
fn strings_are_as_in_redis_at_every_node() {
    let cluster = Cluster::start(3, &QUICK);
    cluster.await_leader();
    for node in 0..3 {
        let mut client = Resp::connect(&cluster, node);
        client.expect(&[
            ("MSET a 1 b 2 a 3", "+OK"),
            ("MGET a none b", "[3 (nil2) 2]"),
            ("SET a 4 NX", "(nil2)"),
            ("SET a 4 XX GET", "3"),
            ("SET a 5 IFEQ 4", "+OK"),
            ("SET a 6 IFEQ 4", "(nil2)"),
            ("SETNX a 7", ":0"),
            ("GETSET a 8", "5"),
            ("APPEND a 9", ":2"),
            ("STRLEN a", ":2"),
            ("INCRBY a 10", ":99"),
            ("TYPE a", "+string"),
            ("EXISTS a a none", ":2"),
            ("DELIFEQ a 1", ":0"),
            ("GETDEL a", "99"),
            ("GETDEL a", "(nil2)"),
            ("APPEND new x", ":1"),
            ("DEL a b new new", ":2"),
            ("DBSIZE", ":0"),
            ("TYPE a", "+none"),
        ]);
    }
}

#[test]
fn resp3_begins_with_its_greeting_and_ends_with_reset() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let mut client = Resp::connect(&cluster, 0);
    assert_eq!(client.ask("GET none"), "(nil2)");
    let greeting = client.ask("HELLO 3 SETNAME me");
    assert!(greeting.starts_with("{server raftkv version "), "{greeting}");
    assert!(greeting.contains(" role master proto :3 "), "{greeting}");
    client.expect(&[
        ("GET none", "(nil)"),
        ("CLIENT GETNAME", "me"),
        ("CONFIG GET save", "{save }"),
        ("SET a 1 XX", "(nil)"),
    ]);
    assert!(client.ask("INFO server").starts_with("txt:# Server"), "a text for people");
    client.expect(&[("RESET", "+RESET"), ("GET none", "(nil2)"), ("CLIENT GETNAME", "(nil2)")]);
    // The answers to what was sent before a greeting are in the version from before.
    client.send(&["GET", "none"]);
    client.send(&["HELLO", "3"]);
    client.send(&["GET", "none"]);
    assert_eq!(client.hear(), "(nil2)");
    assert!(client.hear().starts_with('{'));
    assert_eq!(client.hear(), "(nil)");
}

#[test]
fn a_scan_finds_what_stays_while_keys_come_and_go() {
    let cluster = Cluster::start(3, &QUICK);
    cluster.await_leader();
    let mut client = Resp::connect(&cluster, 0);
    let mut writer = Resp::connect(&cluster, 1);
    for number in 0..60 {
        client.ask(&format!("SET stays:{number:02} {number}"));
    }
    let (mut cursor, mut found, mut pages) = ("0".to_owned(), BTreeSet::new(), 0);
    loop {
        let page = client.ask(&format!("SCAN {cursor} COUNT 7 MATCH stays:*"));
        let (next, keys) = page[1..page.len() - 1].split_once(" [").expect("a cursor and keys");
        for key in keys.trim_end_matches(']').split(' ').filter(|key| !key.is_empty()) {
            assert!(found.insert(key.to_owned()), "{key} came twice");
        }
        // Before and behind the place of the scan, so that places shift.
        writer.ask(&format!("MSET a{pages} x stays:{pages:02}x y stays:5{pages}y z"));
        writer.ask(&format!("DEL a{} stays:{pages:02}x", pages - 1));
        pages += 1;
        if next == "0" {
            break;
        }
        cursor = next.to_owned();
    }
    assert!(pages > 60 / 7, "{pages} pages");
    for number in 0..60 {
        assert!(found.contains(&format!("stays:{number:02}")), "{number} is missing");
    }
    assert!(client.ask("SCAN 1").starts_with("-ERR invalid cursor"));
    assert_eq!(client.ask("SCAN 0 TYPE list"), "[0 []]");
}

#[test]
fn ranges_are_in_order_and_bounded() {
    let cluster = Cluster::start(1, &["--heartbeat", "20ms", "--election", "150ms"]);
    cluster.await_leader();
    let mut client = Resp::connect(&cluster, 0);
    client.expect(&[
        ("RANDOMKEY", "(nil2)"),
        ("MSET a 1 b 2 c 3 d 4", "+OK"),
        ("RANGE b d", "[b 2 c 3]"),
        ("RANGE b  REV LIMIT 2", "[d 4 c 3]"),
        ("RANGE d a", "[]"),
        ("RANGE a z LIMIT 0", "[]"),
        ("KEYS [b-c]", "[b c]"),
        ("KEYS *", "[a b c d]"),
        ("DEL a b d", ":3"),
        ("RANDOMKEY", "c"),
    ]);
    let large = "v".repeat(600_000);
    client.ask(&format!("MSET x {large} y {large}"));
    assert!(client.ask("RANGE x z").starts_with("-ERR the answer would be longer than"));
    assert!(client.ask("MGET x y").starts_with("-ERR the values have"));
    assert_eq!(client.ask("RANGE x z LIMIT 1"), format!("[x {large}]"));
    assert_eq!(client.ask("STRLEN x"), ":600000");
    let error = "-ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    assert_eq!(client.ask(&format!("APPEND x {large}")), error);
}

/// Linearizable reads need a majority; those of a connection that has said so do not.
#[test]
fn a_read_only_connection_is_answered_without_a_majority() {
    let mut cluster = Cluster::start(3, &QUICK);
    cluster.await_leader();
    let mut client = Resp::connect(&cluster, 0);
    assert_eq!(client.ask("SET a 1"), "+OK");
    cluster.await_same_applied();
    cluster.kill(1);
    cluster.kill(2);
    await_condition("the majority is missed", || {
        Resp::connect(&cluster, 0).ask("GET a").starts_with("-CLUSTERDOWN")
    });
    client.expect(&[("READONLY", "+OK"), ("GET a", "1"), ("MGET a b", "[1 (nil2)]")]);
    assert!(client.ask("SET a 2").starts_with('-'), "writes still need one");
    assert_eq!(client.ask("READWRITE"), "+OK");
    assert!(client.ask("GET a").starts_with("-CLUSTERDOWN"));
    assert_eq!(cluster.nc(0, "isro\n"), "ro");
}

#[test]
fn four_letter_words_are_answered_as_zookeepers_tools_want_it() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    assert_eq!(cluster.nc(0, "ruok\n"), "imok");
    assert_eq!(cluster.nc(0, "isro\n"), "rw");
    assert!(cluster.nc(0, "srvr\n").contains("\nMode: leader\n"));
    assert!(cluster.nc(0, "mntr\n").contains("\nzk_server_state\tleader\n"));
    assert!(cluster.nc(0, "conf\n").contains("\nserverId=0\n"));
    // After an earlier command they wait for their turn, and a library gets them in RESP.
    assert_eq!(cluster.nc(0, "SET a 1\nruok\nSET a 2\n"), "+OK\r\nimok");
    assert_eq!(Resp::connect(&cluster, 0).ask("ruok"), "imok");
}
