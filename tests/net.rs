//! Accepted connections on real sockets: reading, writing, limits, and every way to end.

mod net_bench;

use net_bench::{Node, PATIENCE, config, pattern};
use raftkv::net::{Net, NetConfig, NetEvent};
use socket2::SockRef;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Much more than the socket buffers of a loopback connection hold.
const A_LOT: usize = 12 * 1024 * 1024;

fn reset_on_close(client: TcpStream) {
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn bytes_come_and_go_one_by_one() {
    let mut node = Node::start(config(None));
    let mut client = node.connect();
    for byte in b"slow bytes" {
        client.write_all(&[*byte]).unwrap();
        let conn = node.readable();
        assert_eq!(node.net.inbox(conn).unwrap(), [*byte]);
        node.net.consume(conn, 1);
        node.send(conn, &[*byte]);
        let mut echo = [0];
        client.read_exact(&mut echo).unwrap();
        assert_eq!(echo, [*byte]);
    }
}

#[test]
fn a_stream_is_echoed_through_small_buffers() {
    let mut node = Node::start(config(None));
    let mut client = node.connect();
    let bytes = pattern(A_LOT);
    let sent = bytes.clone();
    let mut writer = client.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let reader = std::thread::spawn(move || {
        let mut echo = Vec::new();
        client.read_to_end(&mut echo).unwrap();
        echo
    });
    let deadline = Instant::now() + PATIENCE;
    while !reader.is_finished() {
        assert!(Instant::now() < deadline);
        for event in node.turn() {
            let NetEvent::Readable(conn) = event else { panic!("{event:?}") };
            let inbox = node.net.inbox(conn).unwrap().to_vec();
            assert!(inbox.len() <= 64 * 1024, "the limit of the inbox");
            node.net.consume(conn, inbox.len());
            node.net.outbox(conn).unwrap().extend_from_slice(&inbox);
            if node.net.half_closed(conn) {
                node.net.close_after_flush(conn);
            }
        }
    }
    writer.join().unwrap();
    assert!(reader.join().unwrap() == bytes);
}

#[test]
fn an_answer_reaches_a_client_that_has_half_closed() {
    let mut node = Node::start(config(None));
    let mut client = node.connect();
    client.write_all(b"INFO\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let conn = node.readable();
    node.until("the end of the request is seen", |net| net.half_closed(conn));
    assert_eq!(node.net.inbox(conn).unwrap(), b"INFO\n");
    let answer = pattern(A_LOT);
    node.net.outbox(conn).unwrap().extend_from_slice(&answer);
    node.net.close_after_flush(conn);
    assert_eq!(node.net.inbox(conn), None, "the connection is no longer the caller's");
    assert!(node.net.outbox(conn).is_none());
    assert!(node.drain(client).unwrap() == answer);
    node.until("the connection is gone", |net| net.connections() == 0);
}

#[test]
fn half_closing_is_told_even_without_a_byte() {
    let mut node = Node::start(config(None));
    let client = node.connect();
    client.shutdown(Shutdown::Write).unwrap();
    let conn = node.readable();
    assert!(node.net.half_closed(conn));
    assert_eq!(node.net.inbox(conn).unwrap(), b"");
}

/// A reset would destroy the answer on its way.
#[test]
fn unread_bytes_do_not_turn_a_close_into_a_reset() {
    let mut node = Node::start(config(None));
    let mut client = node.connect();
    client.write_all(&[b'x'; 32 * 1024]).unwrap();
    let conn = node.readable();
    node.net.outbox(conn).unwrap().extend_from_slice(b"-ERR too long\r\n");
    node.net.close_after_flush(conn);
    node.net.push();
    let mut writer = client.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        writer.write_all(&[b'x'; 4 * 1024 * 1024]).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    assert_eq!(node.drain(client).unwrap(), b"-ERR too long\r\n");
    node.until("all of it is read and the connection gone", |net| net.connections() == 0);
    writer.join().unwrap();
}

#[test]
fn a_slow_reader_gets_everything_in_the_end() {
    let mut node = Node::start(config(None));
    let (client, conn) = node.client();
    let bytes = pattern(A_LOT);
    node.send(conn, &bytes);
    let waiting = node.net.outbox_len(conn);
    assert!(waiting > 0, "the socket took {A_LOT} bytes at once");
    node.send(conn, b"and more");
    assert!(node.net.outbox_len(conn) >= waiting, "what is new goes behind what waits");
    node.net.close_after_flush(conn);
    let read = node.drain(client).unwrap();
    assert!(read == [&bytes[..], b"and more"].concat());
}

#[test]
fn an_outbox_far_over_its_limit_ends_its_connection() {
    let mut node = Node::start(NetConfig { outbox_bytes_max: 1000, ..config(None) });
    let (_client, conn) = node.client();
    node.net.outbox(conn).unwrap().resize(A_LOT, 0);
    node.net.push();
    let (peer, by_other_side, reason) = node.closed(conn);
    assert_eq!((peer, by_other_side), (None, false));
    assert!(reason.contains("the limit is 1000"), "{reason}");
    assert_eq!(node.net.outbox_len(conn), 0);
}

#[test]
fn what_clients_have_not_read_is_counted_for_as_long_as_they_are_there() {
    let mut node = Node::start(config(None));
    let (_reset, reset_conn) = node.client();
    let (reader, reader_conn) = node.client();
    for conn in [reset_conn, reader_conn] {
        node.send(conn, &pattern(A_LOT));
    }
    let unsent = [reset_conn, reader_conn].map(|conn| node.net.outbox_len(conn));
    assert!(unsent.iter().all(|bytes| *bytes > A_LOT / 2), "the kernel took most: {unsent:?}");
    assert_eq!(node.net.clients_unsent(), unsent[0] + unsent[1]);
    let mut by_client: Vec<_> = node.net.unsent_by_client().collect();
    by_client.sort();
    assert_eq!(by_client, [(reset_conn, unsent[0]), (reader_conn, unsent[1])]);
    node.net.close(reset_conn);
    assert_eq!(node.net.clients_unsent(), unsent[1], "what nobody will read any more");
    node.net.close_after_flush(reader_conn);
    assert_eq!(node.drain(reader).unwrap().len(), A_LOT);
    assert_eq!(node.net.clients_unsent(), 0);
}

#[test]
fn whoever_is_not_read_from_and_takes_bytes_is_told_once() {
    let mut node = Node::start(config(None));
    let (reader, reader_conn) = node.client();
    let (_deaf, deaf_conn) = node.client();
    let (_heard, heard_conn) = node.client();
    for conn in [reader_conn, deaf_conn] {
        node.net.pause_reading(conn, true);
        node.send(conn, &pattern(A_LOT));
    }
    node.send(heard_conn, b"answer");
    assert_eq!(node.net.take_drained(), [reader_conn, deaf_conn], "the sockets took a part");
    assert_eq!(node.net.take_drained(), []);
    node.net.close_after_flush(reader_conn);
    assert_eq!(node.drain(reader).unwrap().len(), A_LOT);
    assert_eq!(node.net.take_drained(), [reader_conn], "the other one has not read");
}

#[test]
fn what_many_clients_say_at_once_is_read_in_several_turns() {
    const CLIENTS: usize = 100;
    const EACH: usize = 60_000;
    const PER_TURN: usize = 4 * 1024 * 1024;
    const { assert!(CLIENTS * EACH > PER_TURN && CLIENTS * EACH < 2 * PER_TURN) };
    let mut node = Node::start(config(None));
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| node.connect()).collect();
    clients.iter_mut().for_each(|client| client.write_all(&[b'x'; EACH]).unwrap());
    let (mut turns, mut heard) = (0, 0);
    while heard < CLIENTS * EACH {
        let before = node.net.received_bytes();
        node.turn();
        let read = (node.net.received_bytes() - before) as usize;
        assert!(read <= PER_TURN, "{read} bytes in a turn");
        heard += read;
        turns += usize::from(read > 0);
    }
    assert!(turns >= 2);
}

#[test]
fn connections_that_are_reset_before_they_are_accepted_leave_nothing() {
    let mut node = Node::start(config(None));
    for _ in 0..50 {
        reset_on_close(node.connect());
    }
    let (_client, conn) = node.client();
    node.until("only the one that speaks is left", |net| net.connections() == 1);
    assert!(node.net.inbox(conn).is_some());
}

#[test]
fn a_full_inbox_is_read_on_after_it_was_consumed() {
    let mut node = Node::start(NetConfig { inbox_bytes_max: 1000, ..config(None) });
    let mut client = node.connect();
    let bytes = pattern(5000);
    client.write_all(&bytes).unwrap();
    let conn = node.readable();
    let mut read = Vec::new();
    while read.len() < bytes.len() {
        let want = 1000.min(bytes.len() - read.len());
        let inbox = node.inbox_of(conn, want);
        assert_eq!(inbox.len(), want, "the limit of the inbox");
        read.extend_from_slice(&inbox[..want.div_ceil(2)]);
        node.net.consume(conn, want.div_ceil(2));
    }
    assert!(read == bytes);
}

#[test]
fn a_loud_connection_is_read_in_portions_and_a_quiet_one_beside_it() {
    let mut node = Node::start(NetConfig { inbox_bytes_max: A_LOT, ..config(None) });
    let (mut loud, loud_conn) = node.client();
    let (mut quiet, quiet_conn) = node.client();
    let bytes = pattern(A_LOT);
    let writer = std::thread::spawn(move || {
        loud.write_all(&bytes).unwrap();
        loud
    });
    quiet.write_all(b"!").unwrap();
    let (mut before, mut turns, mut heard) = (0, 0, false);
    while before < A_LOT {
        let events = node.turn();
        let len = node.net.inbox(loud_conn).unwrap().len();
        assert!(len - before <= 256 * 1024, "{} bytes in one turn", len - before);
        // What waits in the socket is announced again, without a new edge.
        assert_eq!(len > before, events.contains(&NetEvent::Readable(loud_conn)));
        heard |= events.contains(&NetEvent::Readable(quiet_conn));
        (before, turns) = (len, turns + 1);
        assert!(turns < 100_000, "no progress");
    }
    assert!(heard);
    writer.join().unwrap();
}

#[test]
fn a_paused_connection_is_not_read() {
    let mut node = Node::start(config(None));
    let (mut paused, paused_conn) = node.client();
    let (mut other, other_conn) = node.client();
    node.net.pause_reading(paused_conn, true);
    paused.write_all(b"later").unwrap();
    for _ in 0..3 {
        // The loop has turned when the other one is heard.
        other.write_all(b"!").unwrap();
        assert_eq!(node.readable(), other_conn);
        node.net.consume(other_conn, 1);
    }
    assert_eq!(node.net.inbox(paused_conn).unwrap(), b"");
    node.net.pause_reading(paused_conn, false);
    assert_eq!(node.readable(), paused_conn);
    assert_eq!(node.inbox_of(paused_conn, 5), b"later");
    // What the caller left in the inbox is announced again, though nothing new has come.
    node.net.pause_reading(paused_conn, true);
    node.net.pause_reading(paused_conn, false);
    assert_eq!(node.readable(), paused_conn);
}

#[test]
fn a_reset_is_told_once_even_while_reading_is_paused() {
    for paused in [false, true] {
        let mut node = Node::start(config(None));
        let (client, conn) = node.client();
        node.net.pause_reading(conn, paused);
        reset_on_close(client);
        let (peer, by_other_side, reason) = node.closed(conn);
        assert_eq!((peer, by_other_side), (None, true), "{reason}");
        assert_eq!(node.net.connections(), 0);
        node.net.close(conn);
        assert_eq!(node.turn(), []);
    }
}

#[test]
fn bytes_before_the_end_can_be_read_after_it() {
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut node = Node::start(config(Some(peer.local_addr().unwrap())));
    let (mut client, conn) = node.client();
    node.net.attach_peer(conn, 1);
    assert_eq!(node.net.peer_state(1), "connected");
    client.write_all(b"last words").unwrap();
    drop(client);
    let closed = node.closed(conn);
    assert_eq!(closed, (Some(1), true, "closed by the other side".to_string()));
    assert_eq!(node.net.inbox(conn).unwrap(), b"last words");
    node.turn();
    assert_eq!(node.net.inbox(conn), None);
    assert_eq!(node.net.peer_state(1), "not connected");
}

#[test]
fn a_peer_that_had_half_closed_before_it_was_known_is_closed() {
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut node = Node::start(config(Some(peer.local_addr().unwrap())));
    let client = node.connect();
    client.shutdown(Shutdown::Write).unwrap();
    let conn = node.readable();
    node.net.attach_peer(conn, 1);
    assert_eq!(node.closed(conn).0, Some(1));
}

#[test]
fn a_reused_slot_knows_nothing_of_its_last_owner() {
    let mut node = Node::start(config(None));
    let (_first, old) = node.client();
    node.net.outbox(old).unwrap().extend_from_slice(b"late");
    node.net.close(old);
    node.turn();
    let (mut second, new) = node.client();
    assert_eq!((old.to_string(), new.to_string()), ("c0.0".to_string(), "c0.1".to_string()));
    assert!(node.net.outbox(old).is_none());
    assert_eq!((node.net.inbox(old), node.net.outbox_len(old)), (None, 0));
    assert_eq!(node.net.remote_addr(old), None);
    node.net.consume(old, 100);
    node.net.pause_reading(old, true);
    node.net.close_after_flush(old);
    node.net.close(old);
    node.send(new, b"ok");
    let mut answer = [0; 2];
    second.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"ok");
}

#[test]
fn closing_one_connection_of_a_batch_leaves_no_word_of_it() {
    let mut node = Node::start(config(None));
    let (mut a, conn_a) = node.client();
    let (mut b, conn_b) = node.client();
    a.write_all(b"a").unwrap();
    b.write_all(b"b").unwrap();
    // Both are in the kernel's next batch; b is closed before it is read, and c comes into the same batch.
    node.net.close(conn_b);
    let mut c = node.connect();
    c.write_all(b"c").unwrap();
    let mut seen = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while seen.len() < 2 && Instant::now() < deadline {
        for event in node.turn() {
            let NetEvent::Readable(conn) = event else { panic!("{event:?}") };
            assert_ne!(conn, conn_b);
            if !seen.contains(&conn) {
                seen.push(conn);
            }
        }
    }
    let letters: Vec<&[u8]> = seen.iter().map(|conn| node.net.inbox(*conn).unwrap()).collect();
    assert!(seen.contains(&conn_a));
    assert!(letters.contains(&&b"a"[..]) && letters.contains(&&b"c"[..]));
}

#[test]
fn a_storm_beyond_the_limit_is_turned_away_and_the_rest_served() {
    let mut node = Node::start(NetConfig { connections_max: 4, ..config(None) });
    let mut clients: Vec<TcpStream> = (0..50).map(|_| node.connect()).collect();
    node.until("the storm is over", |net| net.connections() == 4);
    let mut served = Vec::new();
    for (number, client) in clients.iter_mut().enumerate() {
        if number < 4 {
            client.write_all(b"!").unwrap();
            let conn = node.readable();
            node.net.consume(conn, 1);
            served.push(conn);
        } else {
            node.turn();
            let ended = client.read(&mut [0; 1]);
            assert!(matches!(ended, Ok(0)) || ended.is_err(), "one too many is served");
            assert!(!matches!(ended, Err(error) if error.kind() == ErrorKind::WouldBlock));
        }
    }
    assert_eq!(node.net.connections(), 4);
    node.net.close(served[0]);
    let (_, conn) = node.client();
    assert!(!served.contains(&conn), "a free place is taken again");
}

#[test]
fn silence_at_the_beginning_ends_a_connection_and_words_save_it() {
    let silent_timeout = Duration::from_millis(50);
    let mut node = Node::start(NetConfig { silent_timeout, ..config(None) });
    let (_spoken, spoken_conn) = node.client();
    node.net.mark_spoken(spoken_conn);
    let (_garbage, garbage_conn) = node.client();
    let mut silent = node.connect();
    let (_, by_other_side, reason) = node.closed(garbage_conn);
    assert_eq!((by_other_side, reason.as_str()), (false, "said nothing for 0.1 s"));
    node.until("only one is left", |net| net.connections() == 1);
    assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
    assert!(node.net.inbox(spoken_conn).is_some());
}

#[test]
fn a_connection_whose_next_words_are_awaited_ends_without_them() {
    let silent_timeout = Duration::from_millis(50);
    let mut node = Node::start(NetConfig { silent_timeout, ..config(None) });
    let (mut client, conn) = node.client();
    node.net.mark_spoken(conn);
    node.net.await_words(conn);
    let (_, by_other_side, reason) = node.closed(conn);
    assert_eq!((by_other_side, reason.as_str()), (false, "said nothing for 0.1 s"));
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_client_that_never_reads_its_last_answer_is_given_up() {
    let silent_timeout = Duration::from_millis(50);
    let mut node = Node::start(NetConfig { silent_timeout, ..config(None) });
    let (_client, conn) = node.client();
    node.net.outbox(conn).unwrap().resize(A_LOT, 0);
    node.net.close_after_flush(conn);
    node.net.push();
    assert_eq!(node.net.connections(), 1, "it waits to be flushed");
    node.until("patience ends", |net| net.connections() == 0);
}

#[test]
fn a_port_in_use_and_a_name_to_listen_on_are_clear_errors() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let error = Net::new(NetConfig { listen, ..config(None) }, Instant::now()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains("is another node running there?"), "{error}");
    for listen in ["localhost:6000", "127.0.0.1", "6000", ""] {
        let listen = listen.to_string();
        let error = Net::new(NetConfig { listen, ..config(None) }, Instant::now()).err().unwrap();
        assert!(error.to_string().contains("give an address and a port"), "{error}");
    }
}

#[test]
fn an_ipv6_socket_takes_ipv4_as_well() {
    let config = NetConfig { listen: "[::]:0".to_string(), ..config(None) };
    let mut node = match Net::new(config.clone(), Instant::now()) {
        Ok(_) => Node::start(config),
        // A machine without IPv6.
        Err(error) => {
            return assert!(error.to_string().contains("cannot listen on [::]:0"), "{error}");
        }
    };
    let port = node.net.local_addr().port();
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.write_all(b"!").unwrap();
    let conn = node.readable();
    assert_eq!(node.net.remote_addr(conn), Some(client.local_addr().unwrap()));
}

#[test]
fn waiting_ends_at_the_deadline_and_not_before_it() {
    let mut node = Node::start(config(None));
    node.turn();
    for micros in [100, 900, 1100, 5300] {
        let began = Instant::now();
        let deadline = began + Duration::from_micros(micros);
        let mut events = Vec::new();
        node.net.wait(deadline, began, &mut events).unwrap();
        assert!(Instant::now() >= deadline, "woken too early after {micros} us: that would spin");
        assert_eq!(events, []);
    }
}
