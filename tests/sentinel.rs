//! What libraries that go straight to the leader ask for: `SENTINEL`, `ROLE`, and to be told when another
//! member leads.

#[allow(dead_code)] // Other tests use the rest.
mod processes;
#[allow(dead_code)]
mod resp;

use processes::{Cluster, await_condition};
use resp::Resp;

const QUICK: [&str; 4] = ["--heartbeat", "20ms", "--election", "150ms"];

/// As messages have it: `127.0.0.1 PORT`.
fn place(cluster: &Cluster, node: usize) -> String {
    cluster.address(node).replace(':', " ")
}

fn field<'a>(instance: &'a str, name: &str) -> &'a str {
    let words: Vec<&str> = instance.trim_matches(['[', ']', '{', '}']).split(' ').collect();
    let at = words.iter().position(|word| *word == name).unwrap_or_else(|| panic!("no {name}"));
    words[at + 1]
}

#[test]
fn every_node_says_where_the_leader_is_and_who_else_there_is() {
    let cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    for node in 0..3 {
        let mut client = Resp::connect(&cluster, node);
        let at = format!("[{}]", place(&cluster, leader));
        client.expect(&[
            ("SENTINEL get-master-addr-by-name raftkv", &at),
            ("sentinel GET-MASTER-ADDR-BY-NAME mymaster", &at),
            ("SENTINEL get-master-addr-by-name other", "(nil2)"),
            ("SENTINEL master other", "-ERR No such master with that name"),
            ("SENTINEL replicas other", "-ERR No such master with that name"),
            ("SENTINEL masters x", "-ERR wrong number of arguments for 'sentinel|masters' command"),
            ("SENTINEL frob", "-ERR unknown subcommand 'frob'. Try SENTINEL HELP."),
        ]);
        let master = client.ask("SENTINEL master raftkv");
        for (name, value) in [
            ("name", "raftkv"),
            ("flags", "master"),
            ("num-slaves", "2"),
            ("num-other-sentinels", "2"),
            ("quorum", "2"),
        ] {
            assert_eq!(field(&master, name), value, "{master}");
        }
        assert_eq!(field(&master, "runid").len(), 40);
        assert!(client.ask("SENTINEL masters").contains("name mymaster ip 127.0.0.1"));
        let sentinels = client.ask("SENTINEL sentinels mymaster");
        for other in 0..3 {
            let port = format!(" ip 127.0.0.1 port {} ", cluster.port(other));
            let replicas = client.ask("SENTINEL slaves mymaster");
            assert_eq!(replicas.contains(&port), other != leader, "{replicas}");
            assert_eq!(sentinels.contains(&port), other != node, "{sentinels}");
        }
        let my_id = client.ask("SENTINEL myid");
        assert!(my_id.len() == 40 && !sentinels.contains(&my_id));
        assert!(client.ask("SENTINEL ckquorum mymaster").starts_with("+OK 3 usable Sentinels."));
        let role = client.ask("ROLE");
        let section = client.ask("INFO replication");
        if node == leader {
            assert!(role.starts_with("[master :") && role.contains("[127.0.0.1 "), "{role}");
            assert!(section.contains("role:master\r\nconnected_slaves:2\r\nslave0:ip=127.0.0.1"));
        } else {
            let expected = format!("[slave {} connected :", place(&cluster, leader));
            assert!(role.replace(" :", " ").starts_with(&expected.replace(" :", " ")), "{role}");
            assert!(section.contains("role:slave\r\nmaster_host:127.0.0.1\r\n"), "{section}");
        }
        client.ask("HELLO 3");
        assert!(client.ask("SENTINEL masters").starts_with("[{name raftkv "), "maps");
        assert_eq!(client.ask("SENTINEL get-master-addr-by-name other"), "(nil)");
    }
}

/// One that is known to be lost is not announced.
#[test]
fn without_a_majority_there_is_no_master() {
    let mut cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let mut client = Resp::connect(&cluster, one);
    cluster.kill(leader);
    cluster.kill(other);
    await_condition("the master to be lost", || {
        client.ask("SENTINEL get-master-addr-by-name mymaster") == "(nil2)"
    });
    let master = client.ask("SENTINEL master mymaster");
    assert_eq!((field(&master, "flags"), field(&master, "port")), ("master,s_down,o_down", "0"));
    await_condition("the quorum to be lost", || {
        client.ask("SENTINEL ckquorum mymaster").starts_with("-NOQUORUM 1 usable Sentinels.")
    });
    assert!(client.ask("ROLE").starts_with("[slave  :0 connect :"), "nobody to follow");
    assert!(client.ask("SENTINEL replicas mymaster").contains("slave,s_down,disconnected"));
}

#[test]
fn those_that_have_subscribed_are_told_when_another_member_leads() {
    let mut cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let (node, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let mut one = Resp::connect(&cluster, node);
    assert_eq!(one.ask("SUBSCRIBE +switch-master"), "[subscribe +switch-master :1]");
    let mut two = Resp::connect(&cluster, other);
    two.ask("HELLO 3");
    assert_eq!(two.ask("PSUBSCRIBE +switch-* x?y"), ">[psubscribe +switch-* :1]");
    assert_eq!(two.hear(), ">[psubscribe x?y :2]");
    assert_eq!(two.ask("SET a 1"), "+OK", "RESP3 can tell an answer from what was not asked for");
    cluster.kill(leader);
    let next = cluster.await_leader_among(&[node, other]);
    let (from, to) = (place(&cluster, leader), place(&cluster, next));
    for name in ["raftkv", "mymaster"] {
        let message = format!("+switch-master {name} {from} {to}");
        assert_eq!(one.hear(), format!("[message {message}]"));
        assert_eq!(two.hear(), format!(">[pmessage +switch-* {message}]"));
    }
}

#[test]
fn subscriptions_are_as_in_redis() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let mut client = Resp::connect(&cluster, 0);
    let context =
        "only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context";
    client.expect(&[
        ("UNSUBSCRIBE", "[unsubscribe (nil2) :0]"),
        ("SUBSCRIBE a", "[subscribe a :1]"),
        ("SUBSCRIBE a", "[subscribe a :1]"),
        ("PSUBSCRIBE b*", "[psubscribe b* :2]"),
        ("PING", "[pong ]"),
        ("GET a", &format!("-ERR Can't execute 'get': {context}")),
        ("CHANGES", &format!("-ERR Can't execute 'changes': {context}")),
        ("UNSUBSCRIBE c", "[unsubscribe c :2]"),
        ("UNSUBSCRIBE", "[unsubscribe a :1]"),
        ("PUNSUBSCRIBE b*", "[punsubscribe b* :0]"),
        ("SET a 1", "+OK"),
        ("SUBSCRIBE a", "[subscribe a :1]"),
        ("RESET", "+RESET"),
        ("GET a", "1"),
    ]);
    assert!(client.ask("PUBLISH a b").starts_with("-ERR unknown command 'PUBLISH'"));
    assert_eq!(cluster.info(0).expect("it runs")["pubsub_clients"], "0");
}

/// Whoever has gone without unsubscribing looks like one who says no more. Redis closes both.
#[test]
fn a_subscriber_that_says_no_more_is_closed_after_its_replies() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    for greeting in ["HELLO 2", "HELLO 3"] {
        let mut client = Resp::connect(&cluster, 0);
        assert!(client.ask(greeting).starts_with('{') || greeting == "HELLO 2");
        // The reply to the write comes when it is committed, and before the one to what follows.
        client.send(&["SET", "a", greeting]);
        client.send(&["SUBSCRIBE", "a"]);
        client.send(&["PSUBSCRIBE", "b"]);
        client.shut_sending();
        assert_eq!(client.hear(), "+OK");
        assert!(client.hear().ends_with("[subscribe a :1]"));
        assert!(client.hear().ends_with("[psubscribe b :2]"));
        assert!(client.is_over(), "{greeting}");
    }
    drop((0..20).map(|_| {
        let mut client = Resp::connect(&cluster, 0);
        client.ask("SUBSCRIBE a");
        client
    }));
    await_condition("those that have gone to be forgotten", || {
        cluster.info(0).expect("it runs")["pubsub_clients"] == "0"
    });
}

/// In RESP3 a subscriber may say everything.
#[test]
fn whatever_ends_a_connection_ends_that_of_a_subscriber() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let line = "x".repeat(70_000);
    let ends = ["ruok", "srvr", "mntr", "isro", "conf", "QUIT", "*x\r", "a \"b", &line];
    let in_resp2 = ["QUIT", "*x\r", "a \"b", &line];
    let cases =
        ends.map(|end| ("HELLO 3", end)).into_iter().chain(in_resp2.map(|end| ("PING", end)));
    for (greeting, end) in cases {
        let mut client = Resp::connect(&cluster, 0);
        client.ask(greeting);
        assert!(client.ask("SUBSCRIBE a").ends_with("[subscribe a :1]"));
        // What follows is not read, nor is it in the way.
        client.send_line(&format!("{end}\nGET a"));
        assert!(!client.hear_all_text().contains("$-1"), "{end:.10}");
    }
    assert_eq!(cluster.info(0).expect("it runs")["pubsub_clients"], "0");
}
