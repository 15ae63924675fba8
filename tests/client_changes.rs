//! The client library's change stream against servers that go away, fall silent, forget and lie.

mod mock;

use mock::{Mock, Seen, Step};
use raftkv::client::{Client, ClientConfig, ClientError, StreamEvent, Why};
use raftkv::kv::{Answer, Change, Failure, FailureCode};
use raftkv::protocol::changes::Streamed;
use raftkv::protocol::client::ReplyBody;
use std::ops::ControlFlow;
use std::time::Duration;

/// Timeouts that no test waits for.
fn client(servers: &[String]) -> Client {
    Client::new(ClientConfig {
        connect_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(10),
        tell_after: Duration::ZERO,
        total_timeout: Some(Duration::from_secs(60)),
        seed: 1,
        ..ClientConfig::new(servers.iter().cloned())
    })
}

fn begun(from: u64) -> ReplyBody {
    ReplyBody::Changes(Streamed::Begun { from })
}

fn set(value: &str) -> Change {
    Change::Set { key: b"k"[..].into(), value: value.as_bytes().into() }
}

fn changed(index: u64, value: &str, more: bool) -> ReplyBody {
    ReplyBody::Changes(Streamed::Changes { index, changes: vec![set(value)], more })
}

fn failed(code: FailureCode) -> ReplyBody {
    let message = "in its own words".to_owned();
    ReplyBody::Answer(Answer::Failed(Failure { code, message, leader: None }))
}

/// In words, until the changes of `last` or later are told.
fn until(client: &mut Client, from: Option<u64>, last: u64) -> Result<Vec<String>, ClientError> {
    let mut told = Vec::new();
    let ended = client.changes(b"k", from, |event| {
        let index = match &event {
            StreamEvent::Changes { index, changes } => {
                let words: Vec<String> = changes
                    .iter()
                    .map(|change| match change {
                        Change::Set { value, .. } => String::from_utf8_lossy(value).into_owned(),
                        other => format!("{other:?}"),
                    })
                    .collect();
                told.push(format!("{index} {}", words.join(",")));
                *index
            }
            StreamEvent::Begun { from, .. } => {
                told.push(format!("from {from}"));
                0
            }
            StreamEvent::Progress { index } => {
                told.push(format!("upto {index}"));
                *index
            }
            StreamEvent::Lost { reason, .. } => {
                told.push(format!("lost: {reason}"));
                0
            }
        };
        if index >= last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    ended.map(|()| told)
}

/// Whatever a server has told whole is not asked for again, and what it has not is.
#[test]
fn it_goes_on_at_another_server_after_what_it_has_seen_whole() {
    let one = Mock::start(|_, _| {
        let bodies = vec![
            begun(5),
            changed(5, "a", false),
            ReplyBody::Changes(Streamed::Progress { index: 8 }),
            changed(9, "half", true),
        ];
        Step::Stream(bodies, false)
    });
    let two = Mock::start(|_, _| {
        let bodies = vec![
            begun(9),
            changed(9, "half", true),
            changed(9, "whole", false),
            changed(10, "b", false),
        ];
        Step::Stream(bodies, true)
    });
    let servers = [one.address(), two.address()];
    let told = until(&mut client(&servers), None, 10).expect("it goes on");
    assert_eq!(one.seen(), [Seen::Changes(None)]);
    assert_eq!(two.seen(), [Seen::Changes(Some(9))]);
    let lost = "lost: the connection was closed before the answer";
    assert_eq!(
        told,
        ["from 5", "5 a", "upto 8", lost, "from 9", "9 half,whole", "10 b"].map(String::from)
    );
}

#[test]
fn forgotten_changes_are_an_error_that_no_other_server_is_asked_about() {
    let one = Mock::start(|_, _| Step::Stream(vec![failed(FailureCode::Compacted)], true));
    let other = Mock::start(|_, _| Step::Silence);
    let servers = [one.address(), other.address()];
    let error = until(&mut client(&servers), Some(1), 10).expect_err("they are forgotten");
    assert_eq!(*error.why(), Why::Compacted("compacted: in its own words".to_owned()));
    assert!(matches!(error, ClientError::NotDone { .. }));
    assert!(other.seen().is_empty());
}

/// A machine that is gone closes nothing, and a node that knows no leader has no news.
#[test]
fn a_server_that_falls_silent_or_has_no_leader_is_left() {
    let silent = Mock::start(|seen, _| match seen {
        Seen::Changes(_) => Step::Stream(vec![begun(3), changed(3, "a", false)], true),
        _ => Step::Silence,
    });
    let leaderless = Mock::start(|seen, _| match seen {
        Seen::Changes(_) => Step::Stream(vec![begun(4), changed(4, "b", false)], true),
        _ => Step::Status(vec![("raft_leader".to_owned(), "-1".to_owned())]),
    });
    let mut asked = false;
    let good = Mock::start(move |seen, _| match seen {
        Seen::Changes(_) => Step::Stream(vec![begun(5)], true),
        // Silence alone is no reason, if there is a leader.
        _ if !std::mem::replace(&mut asked, true) => {
            Step::Status(vec![("raft_leader".to_owned(), "2".to_owned())])
        }
        _ => Step::Raw(mock::reply_bytes(1, changed(5, "c", false))),
    });
    let servers = [silent.address(), leaderless.address(), good.address()];
    let told = until(&mut client(&servers), Some(3), 5).expect("one of them is good");
    let silence = "lost: has said nothing for 2s";
    let leader = "lost: knows no leader";
    assert_eq!(
        told,
        ["from 3", "3 a", silence, "from 4", "4 b", leader, "from 5", "5 c"].map(String::from)
    );
    assert_eq!(good.seen(), [Seen::Changes(Some(5)), Seen::Status, Seen::Status]);
}

#[test]
fn what_nobody_asked_for_is_not_believed() {
    let lies: [fn() -> ReplyBody; 3] = [
        || changed(4, "again", false),
        || ReplyBody::Changes(Streamed::Progress { index: 4 }),
        || ReplyBody::Status(Vec::new()),
    ];
    for lie in lies {
        let liar = Mock::start(move |_, _| Step::Stream(vec![begun(5), lie()], true));
        let good = Mock::start(|_, _| Step::Stream(vec![begun(5), changed(5, "a", false)], true));
        let servers = [liar.address(), good.address()];
        let told = until(&mut client(&servers), Some(5), 5).expect("the other one is good");
        assert_eq!(told.last().map(String::as_str), Some("5 a"), "{told:?}");
        assert_eq!(liar.seen().len(), 1);
    }
}

#[test]
fn without_any_server_it_ends_within_the_total_timeout() {
    let nobody = ["127.0.0.1:1".to_owned()];
    let mut client = Client::new(ClientConfig {
        total_timeout: Some(Duration::from_millis(300)),
        ..ClientConfig::new(nobody)
    });
    let error = until(&mut client, None, 1).expect_err("there is none");
    assert_eq!(*error.why(), Why::TimedOut(Duration::from_millis(300)));
    assert_eq!(error.servers()[0].reason, "connection refused");
}
