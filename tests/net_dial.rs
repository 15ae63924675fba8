//! Dialing peers on real sockets: refusals, silence, names, redials and probes.

mod names;
mod net_bench;

use names::{Mood, NameServer, ResolverFiles};
use net_bench::{Node, PATIENCE, config};
use raftkv::net::{NetConfig, NetEvent, PeerAddress};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// A port that is taken but refuses connections until it listens.
fn taken_port() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A peer whose host is a name, and the files to look it up with.
fn named(host: &str, to: SocketAddr, files: &ResolverFiles) -> NetConfig {
    let (name, host) = ("raft-1".to_string(), host.to_string());
    let peers = vec![PeerAddress { id: 1, name, host, port: to.port() }];
    NetConfig { peers, resolver: files.config(), ..config(None) }
}

fn asking(server: &NameServer) -> ResolverFiles {
    ResolverFiles::new(&format!("nameserver {}\n", server.address()), "")
}

#[test]
fn a_refused_peer_is_dialed_until_it_listens() {
    let (socket, address) = taken_port();
    let mut node = Node::start(config(Some(address)));
    assert_eq!(node.net.peer_state(1), "not connected");
    node.net.dial(1, Instant::now());
    for _ in 0..5 {
        assert_eq!(node.dial_failed(), (true, format!("refused by {address}")));
    }
    node.until("it pauses", |net| net.peer_state(1).contains("next try in"));
    assert!(node.net.peer_state(1).starts_with(&format!("refused by {address} for ")));
    socket.listen(8).unwrap();
    let conn = node.dialed();
    assert_eq!((node.net.peer_state(1), node.net.connections()), ("connected".to_string(), 1));
    let listener: TcpListener = socket.into();
    let mut peer = accept(&listener);
    node.send(conn, b"hello");
    let mut hello = [0; 5];
    peer.read_exact(&mut hello).unwrap();
    peer.write_all(b"welcome").unwrap();
    assert_eq!(node.inbox_of(conn, 7), b"welcome");
}

/// The pauses between attempts grow, but not beyond the limit, and the second attempt comes at once.
#[test]
fn attempts_at_a_refusing_peer_are_neither_few_nor_many() {
    let (_socket, address) = taken_port();
    let redial_max = Duration::from_millis(100);
    let mut node = Node::start(NetConfig { redial_max, ..config(Some(address)) });
    let began = Instant::now();
    node.net.dial(1, began);
    for _ in 0..12 {
        node.dial_failed();
    }
    // Two without a pause, pauses of at least 20, 40, 40 ... ms before the ten others.
    assert!(began.elapsed() >= Duration::from_millis(20 + 9 * 40), "{:?}", began.elapsed());
}

#[test]
fn a_lost_connection_is_dialed_again_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut node = Node::start(config(Some(listener.local_addr().unwrap())));
    node.net.dial(1, Instant::now());
    let mut last = None;
    for _ in 0..5 {
        let conn = node.dialed();
        assert_ne!(Some(conn), last);
        node.net.mark_spoken(conn);
        drop(accept(&listener));
        let closed = node.closed(conn);
        assert_eq!(closed, (Some(1), true, "closed by the other side".to_string()));
        last = Some(conn);
    }
}

#[test]
fn a_connection_that_the_caller_closes_is_dialed_again_without_a_word_of_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut node = Node::start(config(Some(listener.local_addr().unwrap())));
    node.net.dial(1, Instant::now());
    let first = node.dialed();
    node.net.close(first);
    let second = node.find(|event| match event {
        NetEvent::Dialed { conn, .. } => Some(*conn),
        other => panic!("{other:?}"),
    });
    assert_ne!(first, second);
}

/// Connections that end before the peer has said anything count as failures: no busy loop.
#[test]
fn a_peer_that_closes_at_once_is_dialed_with_pauses() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut node = Node::start(config(Some(listener.local_addr().unwrap())));
    let began = Instant::now();
    node.net.dial(1, began);
    for _ in 0..8 {
        let conn = node.dialed();
        drop(accept(&listener));
        node.closed(conn);
    }
    assert!(began.elapsed() >= Duration::from_millis(20 + 4 * 40), "{:?}", began.elapsed());
}

#[test]
fn a_peer_that_does_not_answer_is_given_up_and_tried_again() {
    // A listener whose queue is full: the kernel drops further attempts in silence.
    let (socket, address) = taken_port();
    socket.listen(0).unwrap();
    let mut fill = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        fill.push(stream);
    }
    let connect_timeout = Duration::from_millis(50);
    let mut node = Node::start(NetConfig { connect_timeout, ..config(Some(address)) });
    node.net.dial(1, Instant::now());
    for _ in 0..2 {
        let (refused, reason) = node.dial_failed();
        assert!(!refused);
        assert_eq!(reason, format!("no answer from {address} for 0.1 s"));
    }
    assert_eq!(node.net.connections(), 0);
}

#[test]
fn a_dialed_peer_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_timeout = Duration::from_millis(50);
    let peer = config(Some(listener.local_addr().unwrap()));
    let mut node = Node::start(NetConfig { silent_timeout, ..peer });
    node.net.dial(1, Instant::now());
    let conn = node.dialed();
    let (peer, by_other_side, _) = node.closed(conn);
    assert_eq!((peer, by_other_side), (Some(1), false));
    node.dialed();
}

#[test]
fn a_probe_of_a_refusing_peer_fails_once() {
    let (_socket, address) = taken_port();
    let mut node = Node::start(config(Some(address)));
    node.net.probe(1, Instant::now());
    assert!(node.dial_failed().0);
    assert!(node.net.peer_state(1).starts_with(&format!("refused by {address}")));
    // A second one would come at once.
    node.turn();
    assert_eq!(node.turn(), []);
}

#[test]
fn a_probe_that_succeeds_is_closed_in_silence() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut node = Node::start(config(Some(listener.local_addr().unwrap())));
    node.net.probe(1, Instant::now());
    let (mut client, _) = node.client();
    node.until("the probe is over", |net| net.peer_state(1) == "not connected");
    assert_eq!(accept(&listener).read(&mut [0; 1]).unwrap(), 0);
    // Nothing is heard of it, before the word of another connection nor after.
    client.write_all(b"!").unwrap();
    let events = std::iter::repeat_with(|| node.turn()).find(|events| !events.is_empty()).unwrap();
    assert!(matches!(events[..], [NetEvent::Readable(_)]), "{events:?}");
}

#[test]
fn a_dial_during_a_probe_keeps_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut node = Node::start(config(Some(listener.local_addr().unwrap())));
    let now = Instant::now();
    node.net.probe(1, now);
    node.net.dial(1, now);
    let conn = node.dialed();
    node.net.probe(1, Instant::now());
    accept(&listener).write_all(b"!").unwrap();
    assert_eq!(node.inbox_of(conn, 1), b"!");
}

#[test]
fn a_name_is_looked_up_anew_for_each_attempt() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = NameServer::start(&[("other.test", &["127.0.0.1"])]);
    let files = asking(&server);
    let mut node = Node::start(named("raft-1.test", address, &files));
    node.net.dial(1, Instant::now());
    for _ in 0..3 {
        assert_eq!(node.dial_failed(), (false, "raft-1.test: no such name".to_string()));
    }
    assert!(node.net.peer_state(1).contains("raft-1.test"), "{}", node.net.peer_state(1));
    server.set("raft-1.test", &["127.0.0.1"]);
    let conn = node.dialed();
    assert_eq!(node.net.remote_addr(conn), Some(address));
}

#[test]
fn every_address_of_a_name_is_tried() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Nobody listens on that port of the other loopback addresses.
    let server = NameServer::start(&[("raft-1.test", &["127.0.0.2", "127.0.0.3", "127.0.0.1"])]);
    let files = asking(&server);
    let mut node = Node::start(named("raft-1.test", address, &files));
    node.net.dial(1, Instant::now());
    let conn = node.dialed();
    assert_eq!(node.net.remote_addr(conn), Some(address));
}

#[test]
fn a_peer_is_refused_only_if_all_its_addresses_refuse() {
    let (_socket, address) = taken_port();
    let server = NameServer::start(&[("raft-1.test", &["127.0.0.2", "127.0.0.1"])]);
    let files = asking(&server);
    let mut node = Node::start(named("raft-1.test", address, &files));
    node.net.probe(1, Instant::now());
    let (refused, reason) = node.dial_failed();
    assert!(refused);
    let port = address.port();
    assert_eq!(reason, format!("refused by 127.0.0.2:{port}; refused by 127.0.0.1:{port}"));
}

/// Refused questions, answers cut short and silence: the peer is found as soon as its name is.
#[test]
fn a_name_server_in_trouble_is_asked_until_it_answers() {
    for mood in [Mood::Fails, Mood::Truncates, Mood::Silent] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = NameServer::start(&[("raft-1.test", &["127.0.0.1"])]);
        server.behave(mood);
        let conf = format!("nameserver {}\noptions attempts:1 timeout:1\n", server.address());
        let files = ResolverFiles::new(&conf, "");
        let mut node = Node::start(named("raft-1.test.", address, &files));
        node.net.dial(1, Instant::now());
        let (refused, reason) = node.dial_failed();
        assert!(!refused && reason.starts_with("raft-1.test"), "{mood:?}: {reason}");
        server.behave(Mood::Answers);
        let conn = node.dialed();
        assert_eq!(node.net.remote_addr(conn), Some(address));
    }
}

/// Nobody listens at the first wrong address; at the second one nothing is ever heard.
#[test]
fn a_name_that_leads_to_a_wrong_address_for_a_while_is_looked_up_again() {
    let (void, taken) = taken_port();
    void.listen(0).unwrap();
    let mut fill = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&taken, Duration::from_millis(200)) {
        fill.push(stream);
    }
    // The peer has the same port at another address.
    let address = SocketAddr::new("127.0.0.9".parse().unwrap(), taken.port());
    let listener = TcpListener::bind(address).unwrap();
    let server = NameServer::start(&[("raft-1.test", &["127.0.0.2"])]);
    let files = asking(&server);
    let connect_timeout = Duration::from_millis(50);
    let config = NetConfig { connect_timeout, ..named("raft-1.test", address, &files) };
    let mut node = Node::start(config);
    node.net.dial(1, Instant::now());
    let port = address.port();
    assert_eq!(node.dial_failed(), (true, format!("refused by 127.0.0.2:{port}")));
    server.set("raft-1.test", &["127.0.0.1"]);
    let silent = format!("no answer from {taken} for 0.1 s");
    let silent = (false, silent);
    assert!((0..100).any(|_| node.dial_failed() == silent), "{silent:?}");
    server.set("raft-1.test", &["127.0.0.9"]);
    let conn = node.dialed();
    assert_eq!(node.net.remote_addr(conn), Some(address));
    accept(&listener);
}

/// A pod that is made anew: the old address is gone for good, the name stays.
#[test]
fn a_peer_that_returns_with_another_address_is_found_by_its_name() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = NameServer::start(&[("raft-1.test", &["127.0.0.1"])]);
    let files = asking(&server);
    let mut node = Node::start(named("raft-1.test", listener.local_addr().unwrap(), &files));
    node.net.dial(1, Instant::now());
    let conn = node.dialed();
    node.net.mark_spoken(conn);
    let stream = accept(&listener);
    drop((listener, stream));
    node.closed(conn);
    let (refused, _) = node.dial_failed();
    assert!(refused);
    let elsewhere = TcpListener::bind(("127.0.0.7", port)).unwrap();
    server.set("raft-1.test", &["127.0.0.7"]);
    let conn = node.dialed();
    assert_eq!(node.net.remote_addr(conn), Some(elsewhere.local_addr().unwrap()));
}

/// Of a peer with addresses of both kinds, either may lead nowhere.
#[test]
fn a_peer_with_both_kinds_of_addresses_is_reached_by_the_one_that_works() {
    let Ok(six) = TcpListener::bind("[::1]:0") else {
        return eprintln!("SKIPPED: this machine has no IPv6");
    };
    let four = TcpListener::bind("127.0.0.1:0").unwrap();
    for listener in [six, four] {
        let address = listener.local_addr().unwrap();
        let server = NameServer::start(&[("raft-1.test", &["127.0.0.1", "::1"])]);
        let files = asking(&server);
        let mut node = Node::start(named("raft-1.test", address, &files));
        node.net.dial(1, Instant::now());
        let conn = node.dialed();
        assert_eq!(node.net.remote_addr(conn), Some(address));
    }
}

#[test]
fn a_peer_without_a_name_is_found_where_it_came_from() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = NameServer::start(&[]);
    let files = asking(&server);
    let mut node = Node::start(named("raft-1.test", address, &files));
    node.net.remember_address(1, "::ffff:127.0.0.1".parse().unwrap());
    node.net.dial(1, Instant::now());
    let conn = node.dialed();
    assert_eq!(node.net.remote_addr(conn), Some(address));
}

#[test]
fn the_state_of_a_peer_names_a_silent_name_server() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = silent.local_addr().unwrap();
    let conf = format!("nameserver {server}\noptions timeout:1 attempts:5\n");
    let files = ResolverFiles::new(&conf, "");
    let mut node = Node::start(named("raft-1.test", "127.0.0.1:1".parse().unwrap(), &files));
    node.net.dial(1, Instant::now());
    let words = format!("resolving raft-1.test: no answer from {server}");
    node.until("it is said", |net| net.peer_state(1).starts_with(&words));
}

#[test]
fn two_nodes_talk() {
    let mut one = Node::start(config(None));
    let mut two = Node::start(config(Some(one.net.local_addr())));
    two.net.dial(1, Instant::now());
    let there = two.dialed();
    two.send(there, b"hello");
    let here = one.readable();
    assert_eq!(one.inbox_of(here, 5), b"hello");
    one.send(here, b"welcome");
    assert_eq!(two.inbox_of(there, 7), b"welcome");
    drop(one);
    assert_eq!(two.closed(there).0, Some(1));
}
