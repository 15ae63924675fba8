//! Many clients with long messages on real sockets: what is read and not taken is bounded, and nobody is forgotten.

mod net_bench;

use net_bench::{Node, PATIENCE, config};
use raftkv::net::{ConnId, NetConfig, NetEvent};
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

const LONGEST: usize = 64 * 1024;
const MAX: usize = 4 * LONGEST;
/// What each may have said however much the others have.
const FEW: usize = 4 * 1024;
const CLIENTS: usize = 40;
/// Of a message, without its end.
const BODY: usize = 60_000;
const END: u8 = b'!';

fn node(silent_timeout: Duration) -> Node {
    let config = config(None);
    Node::start(NetConfig { unserved_bytes_max: MAX, silent_timeout, ..config })
}

/// Clients that have said all of a long message but its end.
fn with_halves(node: &Node) -> Vec<TcpStream> {
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| node.connect()).collect();
    clients.iter_mut().for_each(|client| client.write_all(&[b'x'; BODY]).unwrap());
    clients
}

/// Whole messages are taken; returns how many, and who was closed.
fn turn(node: &mut Node) -> (usize, Vec<ConnId>) {
    let (mut taken, mut closed) = (0, Vec::new());
    for event in node.turn() {
        match event {
            NetEvent::Readable(conn) => {
                node.net.mark_spoken(conn);
                let inbox = node.net.inbox(conn).unwrap();
                if let Some(end) = inbox.iter().position(|byte| *byte == END) {
                    node.net.consume(conn, end + 1);
                    taken += 1;
                }
            }
            NetEvent::Closed { conn, by_other_side: false, reason, .. } => {
                assert!(reason.contains("did not end within"), "{reason}");
                closed.push(conn);
            }
            other => panic!("{other:?}"),
        }
    }
    let unserved = node.net.clients_unserved();
    assert!(unserved <= MAX + CLIENTS * FEW, "{unserved} bytes wait");
    (taken, closed)
}

/// Until no more can be read of what was said.
fn read_what_there_is_room_for(node: &mut Node) {
    let (mut before, mut quiet) = (0, 0);
    while quiet < 3 {
        assert_eq!(turn(node), (0, vec![]));
        let read = node.net.received_bytes();
        quiet = if read > 0 && read == before { quiet + 1 } else { 0 };
        before = read;
    }
}

#[test]
fn long_messages_of_many_are_read_in_turns_and_all_come_to_their_end() {
    let mut node = node(Duration::from_secs(60));
    let mut clients = with_halves(&node);
    read_what_there_is_room_for(&mut node);
    assert!(node.net.clients_unserved() > MAX / 2, "as much as there is room for");
    let mut small = node.connect();
    small.write_all(b"small!").unwrap();
    let deadline = Instant::now() + PATIENCE;
    while turn(&mut node).0 == 0 {
        assert!(Instant::now() < deadline, "a small message is read all the same");
    }
    // Those that were read first, come last.
    clients.iter_mut().rev().for_each(|client| client.write_all(&[END]).unwrap());
    let mut taken = 0;
    while taken < CLIENTS {
        assert!(Instant::now() < deadline, "{taken} came to their end");
        taken += turn(&mut node).0;
    }
    assert_eq!((node.net.clients_unserved(), node.net.unserved_closed()), (0, 0));
}

#[test]
fn those_whose_messages_do_not_end_are_closed_if_others_wait() {
    let mut node = node(Duration::from_millis(100));
    let _halves = with_halves(&node);
    let mut whole = node.connect();
    whole.write_all(&[b'x'; BODY]).unwrap();
    whole.write_all(&[END]).unwrap();
    let (mut taken, mut closed) = (0, Vec::new());
    let deadline = Instant::now() + PATIENCE;
    while taken == 0 || closed.is_empty() {
        assert!(Instant::now() < deadline, "{taken} taken, {} closed", closed.len());
        let (more, ended) = turn(&mut node);
        taken += more;
        closed.extend(ended);
    }
    assert_eq!(node.net.unserved_closed(), closed.len() as u64);
    assert!(closed.len() < CLIENTS, "those that nobody waits for may stay");
}

#[test]
fn what_is_not_taken_is_forgotten_with_its_client() {
    let mut node = node(Duration::from_secs(60));
    let (mut closed, conn) = node.client();
    closed.write_all(&[b'x'; 1000]).unwrap();
    let before = node.net.inbox(conn).unwrap().len();
    node.inbox_of(conn, before + 1000);
    assert_eq!(node.net.clients_unserved(), before + 1000);
    node.net.consume(conn, 500);
    assert_eq!(node.net.clients_unserved(), before + 500);
    node.net.close(conn);
    assert_eq!(node.net.clients_unserved(), 0);
}

/// Each keeps some room for its next words, and ten thousand of them would keep very much.
#[test]
fn room_that_clients_keep_for_their_next_words_is_bounded() {
    const KEPT: usize = 3 * 10_000;
    let mut node = Node::start(NetConfig { kept_bytes_max: KEPT, ..config(None) });
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| node.connect()).collect();
    for round in 0..3 {
        clients.iter_mut().for_each(|client| client.write_all(&[b'x'; 10_000]).unwrap());
        let (mut taken, mut most) = (0, 0);
        while taken < CLIENTS * 10_000 {
            let events = node.turn();
            most = most.max(node.net.clients_held());
            for event in events {
                let NetEvent::Readable(conn) = event else { panic!("{event:?}") };
                let bytes = node.net.inbox(conn).unwrap().len();
                node.net.mark_spoken(conn);
                node.net.consume(conn, bytes);
                taken += bytes;
            }
        }
        assert!(most >= 10_000, "what is there counts");
        let held = node.net.clients_held();
        assert!(held > 0 && held <= KEPT, "{held} bytes are held after round {round}");
    }
    drop(clients);
    let begun = Instant::now();
    while node.net.connections() > 0 {
        for event in node.turn() {
            if let NetEvent::Readable(conn) = event {
                node.net.close(conn);
            }
        }
        assert!(begun.elapsed() < PATIENCE);
    }
    assert_eq!(node.net.clients_held(), 0);
}
