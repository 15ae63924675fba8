//! The client library against servers that speak the real protocol and misbehave in every way a real
//! cluster can.

mod mock;

use mock::{CLUSTER, Greeting, Mock, Seen, Step, failed, opened, reply_bytes, value, written};
use raftkv::client::{Change, Client, ClientConfig, ClientError, Why};
use raftkv::kv::{Answer, FailureCode, Outcome, Refusal};
use raftkv::net::ResolverConfig;
use raftkv::protocol::client::ReplyBody;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Timeouts that no test waits for.
fn config(servers: &[String]) -> ClientConfig {
    ClientConfig {
        connect_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(10),
        tell_after: Duration::ZERO,
        total_timeout: Some(Duration::from_secs(60)),
        seed: 1,
        ..ClientConfig::new(servers.iter().cloned())
    }
}

fn client(servers: &[String]) -> Client {
    Client::new(config(servers))
}

/// Gives up where others pause before the second round: for requests that are meant to fail.
fn hasty(servers: &[String]) -> Client {
    let mut over = false;
    client(servers).pause_with(move |duration| {
        over |= !duration.is_zero();
        if over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
}

/// For servers that never answer.
fn impatient(servers: &[String]) -> Client {
    let short = Duration::from_millis(200);
    Client::new(ClientConfig { connect_timeout: short, request_timeout: short, ..config(servers) })
}

/// An address where nobody listens: a port that is never given out by itself.
fn nobody() -> String {
    "127.0.0.1:1".to_owned()
}

/// A leader that opens session 5 and takes every put.
fn good_leader() -> Mock {
    Mock::start(|seen, _| match seen {
        Seen::OpenSession => opened(5),
        Seen::Write(..) => written(Outcome::Put),
        _ => value(Some("v")),
    })
}

fn follower(hint: Option<String>) -> Mock {
    Mock::start(move |_, _| match &hint {
        Some(address) => failed(FailureCode::NotLeader, Some(address)),
        None => failed(FailureCode::NoLeader, None),
    })
}

#[test]
fn a_redirect_is_followed_and_remembered() {
    let leader = good_leader();
    let follower = follower(Some(leader.address()));
    let mut client = client(&[follower.address()]);
    assert_eq!(client.get(b"k").unwrap().value, Some(b"v".to_vec()));
    let written = client.put(b"k", b"w").unwrap();
    assert_eq!((written.outcome, written.index, written.leader), (Outcome::Put, 7, 2));
    assert_eq!(follower.seen().len(), 1, "the leader is remembered");
}

#[test]
fn one_session_and_rising_sequence_numbers() {
    let leader = good_leader();
    let mut client = client(&[leader.address()]);
    for _ in 0..3 {
        client.put(b"k", b"v").unwrap();
    }
    let expected = [Seen::OpenSession, Seen::Write(5, 1), Seen::Write(5, 2), Seen::Write(5, 3)];
    assert_eq!(leader.seen(), expected);
}

#[test]
fn a_write_whose_leader_dies_is_repeated_under_the_same_number() {
    let next = good_leader();
    let dying = Mock::start(|seen, _| match seen {
        Seen::OpenSession => opened(5),
        _ => Step::Die,
    });
    let mut client = client(&[dying.address(), next.address()]);
    assert_eq!(client.put(b"k", b"v").unwrap().outcome, Outcome::Put);
    assert_eq!(dying.seen(), [Seen::OpenSession, Seen::Write(5, 1)]);
    assert_eq!(next.seen(), [Seen::Write(5, 1)]);
    client.put(b"k", b"w").unwrap();
    assert_eq!(next.seen().last(), Some(&Seen::Write(5, 2)));
}

#[test]
fn a_write_that_gets_no_answer_is_repeated_under_the_same_number() {
    let next = good_leader();
    let paused = Mock::start(|seen, _| match seen {
        Seen::OpenSession => opened(5),
        _ => Step::Silence,
    });
    let mut client = impatient(&[paused.address(), next.address()]);
    client.put(b"k", b"v").unwrap();
    assert_eq!(paused.seen(), [Seen::OpenSession, Seen::Write(5, 1)]);
    assert_eq!(next.seen(), [Seen::Write(5, 1)]);
}

#[test]
fn an_unknown_outcome_from_the_server_is_repeated_under_the_same_number() {
    let mut attempts = 0;
    let leader = Mock::start(move |seen, _| {
        if *seen == Seen::OpenSession {
            return opened(5);
        }
        attempts += 1;
        match attempts {
            1 => failed(FailureCode::OutcomeUnknown, None),
            2 => failed(FailureCode::TimedOut, None),
            _ => written(Outcome::Counter(1)),
        }
    });
    let mut client = client(&[leader.address()]);
    assert_eq!(client.increment(b"n", 1).unwrap().outcome, Outcome::Counter(1));
    assert_eq!(leader.seen()[1..], [Seen::Write(5, 1), Seen::Write(5, 1), Seen::Write(5, 1)]);
}

/// The first attempt of a write ends with `first`, the second finds the session forgotten.
fn forgotten_after(first: impl Fn() -> Step + Send + 'static) {
    let mut attempts = 0;
    let leader = Mock::start(move |seen, _| {
        if *seen == Seen::OpenSession {
            return opened(5);
        }
        attempts += 1;
        match attempts {
            1 => first(),
            2 => written(Outcome::Refused(Refusal::UnknownSession)),
            _ => written(Outcome::Put),
        }
    });
    let mut client = client(&[leader.address()]);
    let error = client.put(b"k", b"v").unwrap_err();
    let unknown = matches!(&error, ClientError::OutcomeUnknown { why: Why::SessionLost, .. });
    assert!(unknown, "{error:?}");
    // The next write begins anew.
    client.put(b"k", b"w").unwrap();
    assert_eq!(leader.seen()[3..], [Seen::OpenSession, Seen::Write(5, 1)]);
}

#[test]
fn a_session_forgotten_after_a_repetition_leaves_the_outcome_unknown() {
    forgotten_after(|| Step::Close);
    forgotten_after(|| failed(FailureCode::OutcomeUnknown, None));
    forgotten_after(|| failed(FailureCode::TimedOut, None));
}

#[test]
fn a_session_forgotten_before_the_first_attempt_is_replaced() {
    let mut sessions = 4;
    let leader = Mock::start(move |seen, _| match seen {
        Seen::OpenSession => {
            sessions += 1;
            opened(sessions)
        }
        Seen::Write(5, _) => written(Outcome::Refused(Refusal::UnknownSession)),
        _ => written(Outcome::Put),
    });
    let mut client = client(&[leader.address()]);
    assert_eq!(client.put(b"k", b"v").unwrap().outcome, Outcome::Put);
    let expected = [Seen::OpenSession, Seen::Write(5, 1), Seen::OpenSession, Seen::Write(6, 1)];
    assert_eq!(leader.seen(), expected);
}

#[test]
fn sessions_that_never_live_end_the_write_undone() {
    let leader = Mock::start(|seen, _| match seen {
        Seen::OpenSession => opened(5),
        _ => written(Outcome::Refused(Refusal::UnknownSession)),
    });
    let error = client(&[leader.address()]).put(b"k", b"v").unwrap_err();
    let crowded = matches!(&error, ClientError::NotDone { why: Why::SessionsCrowded, .. });
    assert!(crowded, "{error:?}");
}

#[test]
fn a_refused_increment_is_certainly_not_done() {
    let leader = Mock::start(|seen, _| match seen {
        Seen::OpenSession => opened(5),
        _ => written(Outcome::Refused(Refusal::NotAnInteger)),
    });
    let error = client(&[leader.address()]).increment(b"k", 1).unwrap_err();
    assert_eq!(error.to_string(), "not done: the value is not a decimal 64-bit integer");
}

#[test]
fn an_answer_of_another_kind_is_nonsense_and_no_result() {
    let leader = Mock::start(|seen, _| match seen {
        Seen::OpenSession => opened(5),
        Seen::Write(..) => written(Outcome::Deleted(true)),
        _ => Step::Reply(Answer::Digest { digest: 1, keys: 1, index: 1, leader: 1 }),
    });
    let mut client = client(&[leader.address()]);
    let error = client.get(b"k").unwrap_err();
    assert!(matches!(&error, ClientError::NotDone { why: Why::Nonsense(_), .. }), "{error:?}");
    let error = client.put(b"k", b"v").unwrap_err();
    assert!(
        matches!(&error, ClientError::OutcomeUnknown { why: Why::Nonsense(_), .. }),
        "{error:?}"
    );
}

#[test]
fn each_server_has_its_reason() {
    let ignorant = follower(None);
    let away = nobody();
    let refusing = Mock::greeting(Greeting::Refuse("1000 connections\x1b[2J".into()), |_, _| {
        unreachable!("no request follows a refusal")
    });
    let error =
        hasty(&[away.clone(), ignorant.address(), refusing.address()]).get(b"k").unwrap_err();
    assert!(matches!(error, ClientError::NotDone { .. }));
    let reasons: Vec<_> = error.servers().iter().map(ToString::to_string).collect();
    assert_eq!(reasons[0], format!("{away}: connection refused"));
    assert_eq!(reasons[1], format!("{}: no leader known", ignorant.address()));
    assert_eq!(reasons[2], format!("{}: refused: Busy: 1000 connections [2J", refusing.address()));
}

#[test]
fn a_write_that_never_left_is_not_done_and_one_that_did_is_unknown() {
    let error = hasty(&[nobody()]).put(b"k", b"v").unwrap_err();
    assert!(matches!(error, ClientError::NotDone { .. }), "{error:?}");
    let deaf = Mock::start(|seen, _| match seen {
        Seen::OpenSession => opened(5),
        _ => Step::Close,
    });
    let error = hasty(&[deaf.address()]).put(b"k", b"v").unwrap_err();
    assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error:?}");
    // A session that may have been opened is nothing a caller has to know of.
    let deaf = Mock::start(|_, _| Step::Close);
    let error = hasty(&[deaf.address()]).put(b"k", b"v").unwrap_err();
    assert!(matches!(error, ClientError::NotDone { .. }), "{error:?}");
}

#[test]
fn the_total_timeout_ends_it() {
    let ignorant = follower(None);
    let total_timeout = Some(Duration::from_millis(100));
    let mut client = Client::new(ClientConfig { total_timeout, ..config(&[ignorant.address()]) });
    let error = client.get(b"k").unwrap_err();
    assert_eq!(*error.why(), Why::TimedOut(Duration::from_millis(100)));
}

#[test]
fn an_unreachable_hint_does_not_keep_the_leader_hidden() {
    let leader = good_leader();
    let misled = follower(Some(nobody()));
    let mut client = client(&[misled.address(), leader.address()]);
    assert_eq!(client.get(b"k").unwrap().leader, 2);
}

#[test]
fn a_hint_that_is_no_address_is_no_hint() {
    let leader = good_leader();
    for hint in ["", "host", "evil\x1b[2J:1", "http://host:1", &"x:".repeat(500)] {
        let misled = follower(Some(hint.to_owned()));
        let mut client = client(&[misled.address(), leader.address()]);
        assert_eq!(client.get(b"k").unwrap().leader, 2, "{hint:?}");
        let error = hasty(&[misled.address()]).get(b"k").unwrap_err();
        assert_eq!(error.servers().len(), 1, "{error:?}");
        assert!(!error.to_string().contains('\x1b'));
    }
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_passed_by() {
    let leader = good_leader();
    let frozen = Mock::greeting(Greeting::Silence, |_, _| Step::Silence);
    let mut client = impatient(&[frozen.address(), leader.address()]);
    assert_eq!(client.get(b"k").unwrap().value, Some(b"v".to_vec()));
}

#[test]
fn a_leader_that_appears_later_is_found() {
    let mut asked = 0;
    let elected = Mock::start(move |_, _| {
        asked += 1;
        if asked < 5 { failed(FailureCode::NoLeader, None) } else { value(None) }
    });
    let mut client = client(&[nobody(), elected.address()]);
    assert_eq!(client.get(b"k").unwrap().value, None);
    assert_eq!(elected.seen().len(), 5);
}

#[test]
fn changes_are_told_once() {
    let mut asked = 0;
    let leader = Mock::start(move |_, _| {
        asked += 1;
        match asked {
            2..=4 => failed(FailureCode::NoLeader, None),
            _ => value(None),
        }
    });
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut client = client(&[leader.address()]).on_change({
        let told = Arc::clone(&told);
        move |change| told.lock().unwrap().push(change.clone())
    });
    for _ in 0..3 {
        client.get(b"k").unwrap();
    }
    let told = told.lock().unwrap();
    let found = Change::Leader { leader: 2, server: leader.address() };
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!((&told[0], &told[2]), (&found, &found));
    let Change::NoLeader { servers } = &told[1] else { panic!("{told:?}") };
    assert_eq!(servers[0].reason, "no leader known");
}

#[test]
fn the_caller_can_stop_a_request_that_waits() {
    let silent = Mock::start(|_, _| Step::Silence);
    let mut config = config(&[silent.address()]);
    config.total_timeout = None;
    config.request_timeout = Duration::from_secs(3600);
    let mut asked = 0;
    let mut client = Client::new(config).pause_with(move |_| {
        asked += 1;
        if asked > 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let error = client.get(b"k").unwrap_err();
    assert_eq!(*error.why(), Why::Interrupted);
}

#[test]
fn what_the_server_would_refuse_is_not_sent() {
    let greeting = Greeting::Welcome { cluster_id: CLUSTER, value_bytes_max: 10 };
    let leader = Mock::greeting(greeting, |_, _| opened(5));
    let error = client(&[leader.address()]).put(b"k", b"12345678901").unwrap_err();
    assert!(matches!(&error, ClientError::NotDone { why: Why::Rejected(_), .. }), "{error:?}");
    assert!(error.to_string().contains("value of 11 bytes, the limit is 10 bytes"), "{error}");
    assert_eq!(leader.seen(), [Seen::OpenSession]);
}

#[test]
fn a_refusal_for_good_is_not_repeated() {
    let leader = Mock::start(|_, _| failed(FailureCode::TooLarge, None));
    let error = client(&[leader.address()]).get(b"k").unwrap_err();
    assert!(matches!(&error, ClientError::NotDone { why: Why::Rejected(_), .. }), "{error:?}");
    assert_eq!(leader.seen().len(), 1);
}

#[test]
fn another_cluster_is_not_mixed_up_with_ours() {
    let ours = Mock::start(|_, _| Step::Die);
    let greeting = Greeting::Welcome { cluster_id: CLUSTER + 1, value_bytes_max: 10 };
    let strangers = Mock::greeting(greeting, |_, _| value(Some("theirs")));
    let error = hasty(&[ours.address(), strangers.address()]).get(b"k").unwrap_err();
    let reason = &error.servers()[1].reason;
    assert_eq!(reason, "is of cluster 00000000000000c2, this client began with 00000000000000c1");
    assert_eq!(strangers.seen(), []);
}

/// Bytes that are no answer, each in its own way.
fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    let status = ReplyBody::Status(Vec::new());
    let answer = Answer::Value { value: None, index: 1, leader: 1 };
    let good = reply_bytes(1, ReplyBody::Answer(answer));
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut endless = good.clone();
    endless[..4].copy_from_slice(&u32::MAX.to_be_bytes());
    let mut unknown = Vec::new();
    raftkv::protocol::frame::put_frame(&mut unknown, |out| out.extend_from_slice(&[0x7f; 20]));
    vec![
        ("checksum", flipped),
        ("beyond", endless),
        ("malformed", unknown),
        ("instead of", reply_bytes(77, status.clone())),
        ("status", reply_bytes(1, status)),
        ("without a payload", vec![0; 8]),
    ]
}

#[test]
fn garbage_instead_of_an_answer_is_an_error() {
    for (word, bytes) in garbage() {
        let broken = Mock::start(move |_, _| Step::Raw(bytes.clone()));
        let error = hasty(&[broken.address()]).get(b"k").unwrap_err();
        let reason = &error.servers()[0].reason;
        assert!(reason.contains(word), "{word}: {reason}");
        assert!(matches!(error, ClientError::NotDone { .. }));
    }
}

#[test]
fn garbage_instead_of_a_hello_is_an_error() {
    for (word, bytes) in [
        ("no raftkv server", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("no raftkv server", b"-ERR unknown command\r\n".to_vec()),
        ("checksum", [&raftkv::protocol::frame::MAGIC[..], &[0, 0, 0, 1, 0, 0, 0, 0, 9]].concat()),
    ] {
        let other = Mock::greeting(Greeting::Raw(bytes), |_, _| Step::Close);
        let error = hasty(&[other.address()]).get(b"k").unwrap_err();
        assert!(error.servers()[0].reason.contains(word), "{error}");
    }
}

#[test]
fn a_connection_closed_between_requests_costs_nothing() {
    let leader = Mock::start(|seen, _| match seen {
        Seen::OpenSession => opened(5),
        _ => Step::Last(Answer::Written { outcome: Outcome::Put, index: 7, leader: 2 }),
    });
    let mut client = client(&[leader.address()]);
    for _ in 0..5 {
        client.put(b"k", b"v").unwrap();
    }
    let expected: Vec<_> = (1..=5).map(|sequence| Seen::Write(5, sequence)).collect();
    assert_eq!(leader.seen()[1..], expected);
}

#[test]
fn names_come_from_the_hosts_file() {
    let leader = good_leader();
    let port = leader.address().rsplit(':').next().unwrap().to_owned();
    let folder = std::env::temp_dir().join(format!("raftkv-client-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let hosts = folder.join("hosts");
    std::fs::write(&hosts, "127.0.0.1 raft-2.raft-service raft-2\n").unwrap();
    let resolver = ResolverConfig { resolv_conf: folder.join("none"), hosts };
    let servers = [format!("raft-2.raft-service:{port}")];
    let mut client = Client::new(ClientConfig { resolver, ..config(&servers) });
    assert_eq!(client.get(b"k").unwrap().value, Some(b"v".to_vec()));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn status_is_of_one_server() {
    let fields = vec![("raft_role".to_owned(), "leader".to_owned())];
    let node = Mock::start({
        let fields = fields.clone();
        move |_, _| Step::Status(fields.clone())
    });
    let mut client = client(&[nobody()]);
    assert_eq!(client.status(&node.address()), Ok(fields));
    assert_eq!(client.status(&nobody()), Err("connection refused".to_owned()));
    let closing = Mock::start(|_, _| Step::Close);
    let reason = client.status(&closing.address()).unwrap_err();
    assert_eq!(reason, "the connection was closed before the answer");
}

#[test]
fn digest() {
    let leader = Mock::start(|_, _| {
        Step::Reply(Answer::Digest { digest: 0xabc, keys: 3, index: 9, leader: 2 })
    });
    let state = client(&[leader.address()]).digest().unwrap();
    assert_eq!((state.digest, state.keys, state.index, state.leader), (0xabc, 3, 9, 2));
}
