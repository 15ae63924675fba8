//! Keys that go: by the times that leaders stamp, and by nothing else.

use crate::*;
use raftkv::kv::{EXPIRED_PER_ENTRY_MAX, EXPIRES_AT_MAX, Limits, Loader, Request};
use raftkv::raft::Bytes;

fn timed(machine: &mut Machine, stamp: u64, op: TimedOp<'_>) -> Outcome {
    apply(machine, Command::Write { request: None, op: WriteOp::Timed { stamp, op } }).outcome
}

fn set(machine: &mut Machine, stamp: u64, key: &str, expiry: Expiry) -> Outcome {
    let (key, condition) = (key.as_bytes(), Condition::Always);
    timed(machine, stamp, TimedOp::Set { key, value: b"v", condition, get: false, expiry })
}

fn remove_expired(machine: &mut Machine, stamp: u64) -> Outcome {
    timed(machine, stamp, TimedOp::RemoveExpired { keys_max: EXPIRED_PER_ENTRY_MAX })
}

fn expires_at(machine: &Machine, key: &str) -> Option<u64> {
    machine.store().item(key.as_bytes()).map(|item| item.expires_at)
}

const DONE: Outcome = Outcome::Changed { done: true, old: None };

/// Nobody looks at a clock: whatever time the log has come to, what no entry has removed is there.
#[test]
fn a_key_is_there_until_an_entry_removes_it() {
    let mut machine = Machine::default();
    assert_eq!(set(&mut machine, 100, "a", Expiry::After(10)), DONE);
    assert_eq!(set(&mut machine, 500, "b", Expiry::After(10)), DONE);
    assert_eq!(get(machine.store(), "a").as_deref(), Some("v"), "390 ms over its time");
    assert_eq!(remove_expired(&mut machine, 509), Outcome::Counter(1));
    assert_eq!((get(machine.store(), "a"), expires_at(&machine, "b")), (None, Some(510)));
    assert_eq!(remove_expired(&mut machine, 510), Outcome::Counter(1));
    assert!(machine.store().is_empty());
    assert_eq!(machine.store().next_expiry(), None);
}

/// A leader whose clock is behind its predecessor's does not turn the time back.
#[test]
fn time_never_goes_back_when_a_leader_s_clock_is_behind() {
    let mut machine = Machine::default();
    set(&mut machine, 1000, "a", Expiry::After(10));
    set(&mut machine, 400, "b", Expiry::After(10));
    assert_eq!(machine.clock_ms(), 1000);
    assert_eq!(expires_at(&machine, "b"), Some(1010), "from the time of the log on");
    assert_eq!(set(&mut machine, 400, "c", Expiry::At(900)), DONE);
    assert_eq!(get(machine.store(), "c"), None, "its time was over already");
    assert_eq!(remove_expired(&mut machine, 0), Outcome::Counter(0));
    assert_eq!(remove_expired(&mut machine, 1010), Outcome::Counter(2));
}

#[test]
fn keys_go_in_the_order_of_their_times_and_not_too_many_at_once() {
    let mut machine = Machine::default();
    for (key, at) in [("a", 30), ("b", 10), ("c", 20), ("d", 20)] {
        set(&mut machine, 1, key, Expiry::At(at));
    }
    let two = TimedOp::RemoveExpired { keys_max: 2 };
    assert_eq!(timed(&mut machine, 25, two), Outcome::Counter(2));
    assert_eq!((expires_at(&machine, "b"), expires_at(&machine, "c")), (None, None));
    assert_eq!(timed(&mut machine, 25, two), Outcome::Counter(1));
    assert_eq!((expires_at(&machine, "d"), expires_at(&machine, "a")), (None, Some(30)));
}

/// A key that was given another time, or none, has only that.
#[test]
fn a_time_that_was_changed_or_taken_away_does_not_come() {
    let mut machine = Machine::default();
    for key in ["put", "later", "kept", "persisted"] {
        set(&mut machine, 1, key, Expiry::At(50));
    }
    apply(&mut machine, Command::Write { request: None, op: put("put", "1") });
    set(&mut machine, 2, "later", Expiry::At(70));
    set(&mut machine, 2, "kept", Expiry::Keep);
    let (expiry, condition) = (Expiry::Never, TimeCondition::Always);
    let persist = TimedOp::Expire { key: b"persisted", expiry, condition, get: true };
    let old = Some(b"v"[..].into());
    assert_eq!(timed(&mut machine, 2, persist), Outcome::Changed { done: true, old: old.clone() });
    assert_eq!(timed(&mut machine, 2, persist), Outcome::Changed { done: false, old });
    assert_eq!(remove_expired(&mut machine, 60), Outcome::Counter(1));
    assert_eq!(get(machine.store(), "kept"), None);
    assert_eq!(remove_expired(&mut machine, 70), Outcome::Counter(1));
    assert_eq!(machine.store().len(), 2, "those that stay");
}

/// What counts and what grows keeps its time, as in Redis.
#[test]
fn an_increment_and_an_append_leave_the_time_as_it_is() {
    let mut machine = Machine::default();
    set(&mut machine, 1, "a", Expiry::At(50));
    let append = WriteOp::Append { key: b"a", value: b"1", bytes_max: 10 };
    apply(&mut machine, Command::Write { request: None, op: append });
    assert_eq!(expires_at(&machine, "a"), Some(50));
    set(&mut machine, 1, "n", Expiry::At(60));
    apply(&mut machine, Command::Write { request: None, op: delete("n") });
    apply(&mut machine, Command::Write { request: None, op: increment("n", 1) });
    assert_eq!(expires_at(&machine, "n"), Some(0), "another key of the same name");
}

#[test]
fn times_beyond_all_limits_are_the_latest_there_is() {
    let mut machine = Machine::default();
    set(&mut machine, u64::MAX - 5, "a", Expiry::After(i64::MAX));
    assert_eq!(expires_at(&machine, "a"), Some(EXPIRES_AT_MAX));
    assert_eq!(machine.clock_ms(), u64::MAX - 5);
    set(&mut machine, 0, "b", Expiry::After(i64::MIN));
    assert_eq!(expires_at(&machine, "b"), None, "it is gone at once");
}

/// A retry is answered as before, though a first execution now would do something else.
#[test]
fn a_retry_with_another_stamp_changes_nothing() {
    let mut machine = Machine::default();
    let session = open(&mut machine);
    let request = Some(RequestId { session, sequence: 1 });
    let write = |stamp| {
        let (condition, get, expiry) = (Condition::Absent, true, Expiry::After(10));
        let op = TimedOp::Set { key: b"a", value: b"v", condition, get, expiry };
        Command::Write { request, op: WriteOp::Timed { stamp, op } }
    };
    let first = apply(&mut machine, write(100));
    remove_expired(&mut machine, 110);
    assert_eq!(apply(&mut machine, write(200)), first);
    assert_eq!(get(machine.store(), "a"), None, "it does not come back");
}

/// What was loaded from a snapshot goes on as the original: the time of the log is part of it.
#[test]
fn the_times_and_the_time_of_the_log_are_part_of_a_snapshot() {
    let mut machine = Machine::default();
    set(&mut machine, 1000, "a", Expiry::After(10));
    machine.begin_snapshot();
    let (bytes, _) = machine.snapshot_piece(usize::MAX);
    let mut loader = Loader::default();
    loader.feed(&bytes).expect("it was just written");
    let mut loaded = loader.finish().expect("it is whole");
    assert_eq!(loaded.store().item(b"a"), machine.store().item(b"a"));
    set(&mut loaded, 400, "b", Expiry::After(5));
    assert_eq!(expires_at(&loaded, "b"), Some(1005));
}

/// The stamp of a client counts for nothing: the leader writes its own in its place.
#[test]
fn a_stamp_takes_the_place_of_the_one_that_was_there() {
    let key = b"a";
    let op = TimedOp::Expire {
        key,
        expiry: Expiry::After(1),
        condition: TimeCondition::Always,
        get: false,
    };
    for request in [None, Some(RequestId { session: 7, sequence: 8 })] {
        let of = |stamp| Command::Write { request, op: WriteOp::Timed { stamp, op } };
        let mut bytes: Bytes = of(77).to_bytes().into();
        let kept = bytes.clone();
        Command::stamp(&mut bytes, 123);
        assert_eq!(Command::decode(&bytes), Ok(of(123)));
        assert_eq!(Command::decode(&kept), Ok(of(77)), "nobody else's bytes change");
        let mut plain: Bytes =
            Command::Write { request, op: put("a", "0123456789") }.to_bytes().into();
        let before = plain.clone();
        Command::stamp(&mut plain, 123);
        assert_eq!(plain, before);
    }
}

#[test]
fn a_client_may_not_remove_what_is_due() {
    let op = WriteOp::Timed { stamp: 0, op: TimedOp::RemoveExpired { keys_max: 1 } };
    let command = Command::Write { request: None, op }.to_bytes().into();
    let refused = Limits::default().check(&Request::Write { command });
    assert!(refused.is_err_and(|failure| failure.message.contains("only a leader")));
}
