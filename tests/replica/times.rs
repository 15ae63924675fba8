//! Whose clock counts: that of the leader, once, when it proposes.

use crate::*;
use raftkv::kv::{Condition, Expiry, Found, Outcome, ReadOp, TimeCondition, TimedOp};
use raftkv::raft::{Entry, Payload};

/// What the stamp of a client says does not matter.
fn set_for(key: &[u8], ms: i64, stamp: u64) -> Request {
    let (condition, expiry) = (Condition::Always, Expiry::After(ms));
    let op = TimedOp::Set { key, value: b"v", condition, get: false, expiry };
    write(WriteOp::Timed { stamp, op })
}

fn expires_at(replica: &Replica<MemDisk>, key: &[u8]) -> Option<u64> {
    replica.node().machine().store().item(key).map(|item| item.expires_at)
}

fn leader_at(unix_ms: u64) -> Replica<MemDisk> {
    let mut replica = open(MemDisk::default(), 1);
    replica.inputs().set_time(unix_ms);
    elected(&mut replica);
    replica
}

#[test]
fn the_leader_says_what_time_it_is_whatever_a_client_says() {
    let mut replica = leader_at(10_000);
    for (stamp, time) in [(0, 10_000), (77, 10_005), (u64::MAX, 10_010)] {
        replica.inputs().set_time(time);
        assert!(matches!(ask(&mut replica, set_for(b"a", 100, stamp)), Answer::Written { .. }));
        assert_eq!(expires_at(&replica, b"a"), Some(time + 100), "{stamp}");
    }
    let transaction = {
        let mut steps = raftkv::kv::StepBuffer::default();
        let (expiry, condition) = (Expiry::After(7), TimeCondition::Always);
        let op = TimedOp::Expire { key: b"a", expiry, condition, get: false };
        steps.push(&raftkv::kv::Step::Timed(op));
        let watched = raftkv::kv::WatchedBuffer::default();
        let (watched, steps) = (watched.watched(), steps.steps());
        let op = TimedOp::Transaction(raftkv::kv::Transaction {
            watched,
            answer_bytes_max: 1000,
            steps,
        });
        write(WriteOp::Timed { stamp: 5, op })
    };
    ask(&mut replica, transaction);
    assert_eq!(expires_at(&replica, b"a"), Some(10_017));
}

#[test]
fn keys_that_are_due_are_removed_by_one_entry_and_then_there_is_peace() {
    let mut replica = leader_at(10_000);
    ask(&mut replica, set_for(b"a", 100, 0));
    ask(&mut replica, set_for(b"b", 100, 0));
    let applied = replica.node().machine().applied();
    replica.inputs().set_time(20_000);
    for _ in 0..10 {
        replica.inputs().tick();
        turn(&mut replica);
    }
    let machine = replica.node().machine();
    assert_eq!((machine.applied(), machine.store().len()), (applied + 1, 0));
    assert_eq!(machine.clock_ms(), 20_000, "the time of that entry");
    assert_eq!(replica.node().tally().expired, 2);
}

#[test]
fn a_leader_whose_clock_was_set_back_goes_on_from_the_time_of_the_log() {
    let mut replica = leader_at(10_000);
    ask(&mut replica, set_for(b"a", 500, 0));
    replica.inputs().set_time(3_000);
    ask(&mut replica, set_for(b"b", 100, 0));
    assert_eq!(expires_at(&replica, b"b"), Some(10_100));
    let read = Request::Read(ReadOp::Expiry(b"a"[..].into()));
    let Answer::Found { found, .. } = ask(&mut replica, read) else { panic!("a time") };
    assert_eq!(found, Found::Expiry { expires_at: Some(10_500), now: 10_000 });
    for _ in 0..10 {
        replica.inputs().tick();
        turn(&mut replica);
    }
    assert_eq!(replica.node().machine().store().len(), 2, "its clock has not come so far");
    replica.inputs().set_time(10_100);
    replica.inputs().tick();
    turn(&mut replica);
    turn(&mut replica);
    assert_eq!((expires_at(&replica, b"a"), expires_at(&replica, b"b")), (Some(10_500), None));
}

/// A follower's clock may be years ahead.
#[test]
fn a_follower_goes_by_the_times_in_the_log_and_not_by_its_own_clock() {
    let mut replica = follower(&MemDisk::default());
    replica.inputs().set_time(99_999_999);
    let Request::Write { command } = set_for(b"a", 100, 10_000) else { unreachable!("a write") };
    let entry = Entry { term: 1, index: 1, payload: Payload::Command(command) };
    hear(&mut replica, append(1, (0, 0), 1, vec![entry]));
    for _ in 0..5 {
        replica.inputs().tick();
        turn(&mut replica);
    }
    assert_eq!(expires_at(&replica, b"a"), Some(10_100));
    assert_eq!(replica.node().machine().clock_ms(), 10_000);
    assert_eq!(replica.node().raft().log().last().index, 1, "it proposes nothing");
}

/// Every read of a connection that takes old values is of what is there.
#[test]
fn what_a_node_has_is_read_as_it_is_whatever_its_clock_says() {
    let mut replica = leader_at(10_000);
    let answer = ask(&mut replica, set_for(b"a", 100, 0));
    let Answer::Written { outcome, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(outcome, Outcome::Changed { done: true, old: None });
    replica.inputs().set_time(20_000);
    let get = Request::Get { key: b"a"[..].into() };
    let local = replica.inputs().read_locally(&get);
    assert!(matches!(local, Answer::Value { value: Some(_), .. }), "{local:?}");
}
