//! Keys that go by themselves, transactions and sessions, against real processes and as Redis's clients see
//! them.

#[allow(dead_code)] // Other tests use the rest.
mod processes;
#[allow(dead_code)]
mod resp;

use processes::{Cluster, await_condition};
use resp::Resp;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const QUICK: [&str; 4] = ["--heartbeat", "20ms", "--election", "150ms"];

fn number(said: &str) -> i64 {
    said.strip_prefix(':')
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{said}"))
}

fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

/// Nothing waits here for a time to come: all are far away, or over.
#[test]
fn times_are_told_and_changed_as_in_redis_at_every_node() {
    let cluster = Cluster::start(3, &QUICK);
    cluster.await_leader();
    for node in 0..3 {
        let mut client = Resp::connect(&cluster, node);
        client.expect(&[
            ("SET a 1 EX 1000", "+OK"),
            ("TTL a", ":1000"),
            ("EXPIRE a 2000 LT", ":0"),
            ("EXPIRE a 2000 NX", ":0"),
            ("EXPIRE a 2000 XX", ":1"),
            ("EXPIRE a 3000 GT", ":1"),
            ("TTL a", ":3000"),
            ("EXPIREAT a 99999999999", ":1"),
            ("EXPIRETIME a", ":99999999999"),
            ("PEXPIRETIME a", ":99999999999000"),
            ("INCR a", ":2"),
            ("APPEND a 0", ":2"),
            ("EXPIRETIME a", ":99999999999"),
            ("SET a 7 KEEPTTL", "+OK"),
            ("EXPIRETIME a", ":99999999999"),
            ("GETEX a PERSIST", "7"),
            ("TTL a", ":-1"),
            ("PERSIST a", ":0"),
            ("EXPIRE a 2000 GT", ":0"),
            ("EXPIRE a 2000 XX LT", ":0"),
            ("PEXPIRE a 2000000 LT", ":1"),
            ("PERSIST a", ":1"),
            ("GETEX a EXAT 99999999999", "7"),
            ("PEXPIRETIME a", ":99999999999000"),
            ("SET a 8", "+OK"),
            ("TTL a", ":-1"),
            ("SETEX a 100 9", "+OK"),
            ("TTL a", ":100"),
            ("PSETEX a 50000 9", "+OK"),
            ("TTL a", ":50"),
            ("SET a 10 PXAT 99999999999000 GET", "9"),
            ("EXPIREAT a 1", ":1"),
            ("TTL a", ":-2"),
            ("PTTL a", ":-2"),
            ("EXPIRETIME a", ":-2"),
            ("EXPIRE a 10", ":0"),
            ("PERSIST a", ":0"),
            ("GETEX a EX 10", "(nil2)"),
            ("SET a 1 PXAT 1", "+OK"),
            ("EXISTS a", ":0"),
            ("SET a 1", "+OK"),
            ("EXPIRE a -1", ":1"),
            ("EXISTS a", ":0"),
        ]);
        assert_eq!(client.ask("SET a 1 PX 100000"), "+OK");
        let left = number(&client.ask("PTTL a"));
        assert!((1..=100_000).contains(&left), "{left}");
        let off = number(&client.ask("PEXPIRETIME a")) - unix_ms();
        assert!((1..=100_000).contains(&off), "{off}");
        assert!(client.ask("INFO keyspace").contains("expiring_keys:1"));
        assert_eq!(client.ask("DEL a"), ":1");
    }
}

/// The leader that stamped the time is dead when it comes; the next one removes the key, and nobody ever
/// sees it again, not even when all have read their disks anew.
#[test]
fn a_key_goes_at_its_time_though_the_leader_died_and_never_comes_back() {
    let mut cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let mut client = Resp::connect(&cluster, leader);
    let lives = Duration::from_secs(2);
    let begun = Instant::now();
    client.expect(&[("SET stays 1", "+OK"), ("SET goes 1 PX 2000", "+OK")]);
    cluster.kill(leader);
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    cluster.await_leader_among(&others);
    let mut client = Resp::connect(&cluster, others[0]);
    let mut was_seen = false;
    loop {
        let asked = begun.elapsed();
        match client.ask("GET goes").as_str() {
            "1" => was_seen = true,
            "(nil2)" => {
                assert!(begun.elapsed() >= lives, "it is gone {asked:?} after it was set");
                break;
            }
            said => assert!(said.starts_with("-CLUSTERDOWN"), "{said}"),
        }
        assert!(asked < lives + Duration::from_secs(10), "it is still there after {asked:?}");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(was_seen, "the new leader had it");
    cluster.start_node(leader);
    cluster.await_leader();
    cluster.await_same_applied();
    for node in 0..3 {
        cluster.kill(node);
    }
    for node in 0..3 {
        cluster.start_node(node);
    }
    cluster.await_leader();
    for node in 0..3 {
        let mut client = Resp::connect(&cluster, node);
        client.expect(&[("GET goes", "(nil2)"), ("TTL goes", ":-2"), ("GET stays", "1")]);
        let state = client.ask("INFO keyspace");
        assert!(state.contains("keys:1\r\n"), "{state}");
    }
}

/// More than one entry removes.
#[test]
fn thousands_of_keys_go_at_once() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let mut client = Resp::connect(&cluster, 0);
    for key in 0..3000 {
        client.send(&["SET", &format!("k{key}"), "v", "PX", "200"]);
    }
    (0..3000).for_each(|_| assert_eq!(client.hear(), "+OK"));
    client.ask("SET stays 1");
    await_condition("they are gone", || client.ask("DBSIZE") == ":1");
    assert!(client.ask("INFO keyspace").contains("expired_keys:3000"));
}

#[test]
fn a_transaction_is_as_in_redis_at_every_node() {
    let cluster = Cluster::start(3, &QUICK);
    cluster.await_leader();
    for node in 0..3 {
        let mut client = Resp::connect(&cluster, node);
        client.expect(&[
            ("EXEC", "-ERR EXEC without MULTI"),
            ("DISCARD", "-ERR DISCARD without MULTI"),
            ("MULTI", "+OK"),
            ("EXEC", "[]"),
            ("MULTI", "+OK"),
            ("MULTI", "-ERR MULTI calls can not be nested"),
            ("WATCH a", "-ERR WATCH inside MULTI is not allowed"),
            ("SET a x EX 100", "+QUEUED"),
            ("INCR a", "+QUEUED"),
            ("GET a", "+QUEUED"),
            ("PING", "+QUEUED"),
            ("SET b 5 FOO", "+QUEUED"),
            ("INCRBY n 7", "+QUEUED"),
            ("MGET a none n", "+QUEUED"),
            ("TTL a", "+QUEUED"),
            ("EXISTS a n n", "+QUEUED"),
            ("TYPE a", "+QUEUED"),
            ("KEYS *", "+QUEUED"),
            ("DBSIZE", "+QUEUED"),
            ("ECHO hello", "+QUEUED"),
            ("UNWATCH", "+QUEUED"),
            ("DEL a n", "+QUEUED"),
            (
                "EXEC",
                "[+OK -ERR value is not an integer or out of range x +PONG -ERR syntax error :7 \
                 [x (nil2) 7] :100 :3 +string [a n] :2 hello +OK :2]",
            ),
            ("EXISTS a n", ":0"),
            ("MULTI", "+OK"),
            ("SET a 1", "+QUEUED"),
            ("DISCARD", "+OK"),
            ("EXISTS a", ":0"),
            ("MULTI", "+OK"),
            ("SET a 1", "+QUEUED"),
            ("RESET", "+RESET"),
            ("EXEC", "-ERR EXEC without MULTI"),
            ("EXISTS a", ":0"),
        ]);
    }
}

#[test]
fn a_transaction_with_a_command_that_there_is_not_does_nothing() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let mut client = Resp::connect(&cluster, 0);
    let aborted = "-EXECABORT Transaction discarded because of previous errors.";
    let not_allowed = "-ERR Command not allowed inside a transaction";
    for (wrong, error) in [
        ("NOSUCH a", "-ERR unknown command 'NOSUCH', with args beginning with: 'a' "),
        ("SET a", "-ERR wrong number of arguments for 'set' command"),
        ("EXEC now", "-ERR wrong number of arguments for 'exec' command"),
        ("HELLO 3", not_allowed),
        ("SCAN 0", not_allowed),
        ("SESSION 1 1 SET a 1", not_allowed),
        ("SESSION OPEN", not_allowed),
    ] {
        assert_eq!(client.ask("MULTI"), "+OK");
        assert_eq!(client.ask("SET a 1"), "+QUEUED");
        assert_eq!(client.ask(wrong), error.trim_end(), "{wrong}");
        assert_eq!(client.ask("SET a 2"), "+QUEUED");
        assert_eq!(client.ask("EXEC"), aborted, "{wrong}");
        assert_eq!(client.ask("GET a"), "(nil2)", "{wrong}");
    }
    // What is longer than a command may be is skipped, and is an error like the others.
    let long = "v".repeat(3 << 20);
    assert_eq!(client.ask("MULTI"), "+OK");
    assert!(client.ask(&format!("SET a {long}")).starts_with('-'));
    assert_eq!(client.ask("EXEC"), aborted);
    assert_eq!(client.ask("MULTI"), "+OK");
    assert!(client.ask(&format!("SET {} 1", &long[..5000])).starts_with("-ERR key of 5000 bytes"));
    assert_eq!(client.ask("EXEC"), aborted);
}

#[test]
fn a_watched_key_that_changes_keeps_a_transaction_from_being_done() {
    let cluster = Cluster::start(3, &QUICK);
    cluster.await_leader();
    let mut other = Resp::connect(&cluster, 0);
    for (node, version) in [(0, 2), (1, 3), (2, 2)] {
        let mut client = Resp::connect(&cluster, node);
        client.ask(&format!("HELLO {version}"));
        let nothing = if version == 3 { "(nil)" } else { "(nil2)" };
        client.ask("SET a 1");
        let aborts = ["SET a 1", "EXPIRE a 100", "PERSIST a", "DEL a", "SET a 1", "FLUSHALL"];
        for write in aborts {
            client.expect(&[("WATCH none a", "+OK"), ("MULTI", "+OK"), ("INCR a", "+QUEUED")]);
            other.ask(write);
            assert_eq!(client.ask("EXEC"), nothing, "{write}");
        }
        client.expect(&[
            // Nobody else has changed it.
            ("SET a 1", "+OK"),
            ("WATCH a", "+OK"),
            ("MULTI", "+OK"),
            ("INCR a", "+QUEUED"),
            ("EXEC", "[:2]"),
            // Watches are over.
            ("WATCH a", "+OK"),
            ("INCR a", ":3"),
            ("UNWATCH", "+OK"),
            ("MULTI", "+OK"),
            ("INCR a", "+QUEUED"),
            ("EXEC", "[:4]"),
            ("WATCH a", "+OK"),
            ("INCR a", ":5"),
            ("MULTI", "+OK"),
            ("DISCARD", "+OK"),
            ("MULTI", "+OK"),
            ("INCR a", "+QUEUED"),
            ("EXEC", "[:6]"),
            // The own write counts as well.
            ("WATCH a", "+OK"),
            ("INCR a", ":7"),
            ("MULTI", "+OK"),
            ("INCR a", "+QUEUED"),
            ("EXEC", nothing),
            // A transaction of reads alone.
            ("WATCH a", "+OK"),
            ("MULTI", "+OK"),
            ("EXEC", "[]"),
        ]);
        // All in one go: what is watched is looked up before EXEC is sent on.
        for words in [
            &["WATCH", "a"][..],
            &["MULTI"],
            &["GET", "a"],
            &["EXEC"],
            &["WATCH", "a"],
            &["INCR", "a"],
            &["MULTI"],
            &["EXEC"],
        ] {
            client.send(words);
        }
        let said: Vec<String> = (0..8).map(|_| client.hear()).collect();
        let expected = ["+OK", "+OK", "+QUEUED", "[7]", "+OK", ":8", "+OK", nothing];
        assert_eq!(said, expected);
    }
}

/// Of several that count by reading, watching and writing, none is lost.
#[test]
fn counting_with_watches_loses_nothing() {
    const ROUNDS: usize = 30;
    let cluster = Cluster::start(3, &QUICK);
    cluster.await_leader();
    thread::scope(|scope| {
        for node in 0..3 {
            let mut client = Resp::connect(&cluster, node);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    loop {
                        client.ask("WATCH n");
                        let n = client.ask("GET n").parse().unwrap_or(0);
                        client.ask("MULTI");
                        client.ask(&format!("SET n {}", n + 1));
                        match client.ask("EXEC").as_str() {
                            "[+OK]" => break,
                            said => assert_eq!(said, "(nil2)"),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(Resp::connect(&cluster, 1).ask("GET n"), (3 * ROUNDS).to_string());
}

#[test]
fn a_transaction_that_would_answer_too_much_is_not_done() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let mut client = Resp::connect(&cluster, 0);
    let large = "v".repeat(600_000);
    client.ask(&format!("SET x {large}"));
    client.expect(&[("MULTI", "+OK"), ("INCR n", "+QUEUED")]);
    client.expect(&[("GET x", "+QUEUED"), ("GET x", "+QUEUED"), ("FLUSHALL", "+QUEUED")]);
    let error =
        "-ERR the answers of the transaction would be longer than allowed; nothing was done";
    assert_eq!(client.ask("EXEC"), error);
    client.expect(&[("EXISTS n", ":0"), ("STRLEN x", ":600000")]);
    client.expect(&[("MULTI", "+OK"), ("GET x", "+QUEUED")]);
    assert_eq!(client.ask("EXEC"), format!("[{large}]"));
    // What is queued is bounded by what one entry may be.
    assert_eq!(client.ask("MULTI"), "+OK");
    let says: Vec<String> = (0..4).map(|_| client.ask(&format!("SET x {large}"))).collect();
    assert_eq!(&says[..3], ["+QUEUED"; 3]);
    assert!(says[3].starts_with("-ERR no room for the command"), "{}", says[3]);
    let aborted = "-EXECABORT Transaction discarded because of previous errors.";
    assert_eq!(client.ask("EXEC"), aborted);
}

#[test]
fn a_flush_removes_everything_at_once() {
    let cluster = Cluster::start(3, &QUICK);
    cluster.await_leader();
    let mut client = Resp::connect(&cluster, 0);
    for how in ["FLUSHALL", "flushdb async", "FLUSHALL SYNC"] {
        client.expect(&[("MSET a 1 b 2", "+OK"), ("SET c 3 EX 100", "+OK"), ("DBSIZE", ":3")]);
        client.expect(&[(how, "+OK"), ("DBSIZE", ":0"), ("GET a", "(nil2)"), ("TTL c", ":-2")]);
    }
    assert_eq!(client.ask("FUNCTION FLUSH"), "+OK");
    cluster.await_same_applied();
}

/// At whichever node, and also when the leader that did it is dead.
#[test]
fn what_has_a_name_in_a_session_is_done_once() {
    let mut cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let mut client = Resp::connect(&cluster, leader);
    let session = client.ask("SESSION OPEN");
    let count = format!("SESSION {session} 1 INCR n");
    client.expect(&[(&count, ":1"), (&count, ":1"), ("GET n", "1")]);
    let together = |client: &mut Resp, sequence: u32| {
        client.expect(&[("MULTI", "+OK"), ("INCR n", "+QUEUED"), ("GET n", "+QUEUED")]);
        client.ask(&format!("SESSION {session} {sequence} EXEC"))
    };
    assert_eq!(together(&mut client, 2), "[:2 2]");
    assert_eq!(together(&mut client, 2), "[:2 2]");
    cluster.kill(leader);
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    cluster.await_leader_among(&others);
    for node in others {
        let mut client = Resp::connect(&cluster, node);
        await_condition("it is told again", || together(&mut client, 2) == "[:2 2]");
        assert_eq!(client.ask("GET n"), "2");
        let stale = "-ERR a newer request of this session was executed";
        assert_eq!(client.ask(&count), stale);
        assert_eq!(client.ask("SESSION 999999 1 INCR n"), "-ERR unknown session");
    }
}
