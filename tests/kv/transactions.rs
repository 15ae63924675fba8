//! Transactions: all or nothing, in one entry; and flushes, which one may have to take back.

use crate::*;
use raftkv::kv::{FreeBudget, Limits, Loader, Request, STEPS_MAX};
use std::ops::Range;

const ANSWER_BYTES_MAX: u32 = 10_000;

pub fn read(keys: &[&str]) -> Part {
    Part::Read(ReadOp::Values(keys.iter().map(|key| key.as_bytes().into()).collect()))
}

pub fn write(key: &str, value: &str) -> Part {
    Part::Write(Op::Put(key.into(), value.into()))
}

pub fn run(
    machine: &mut Machine,
    watched: &[(&str, Index)],
    bytes_max: u32,
    parts: Vec<Part>,
) -> Outcome {
    let watched = watched.iter().map(|(key, index)| (key.as_bytes().to_vec(), *index)).collect();
    let op = Op::Transaction(0, Together::new(watched, bytes_max, parts));
    apply(machine, Command::Write { request: None, op: op.as_write() }).outcome
}

fn values(values: &[Option<&str>]) -> StepOutcome {
    let value = |value: &Option<&str>| value.map(|value| value.as_bytes().into());
    StepOutcome::Found(Found::Values(values.iter().map(value).collect()))
}

const PUT: StepOutcome = StepOutcome::Written(Outcome::Put);

#[test]
fn steps_see_what_earlier_ones_did_and_a_refused_one_stops_none() {
    let mut machine = Machine::default();
    let parts = vec![
        write("a", "x"),
        Part::Write(Op::Increment("a".into(), 1)),
        read(&["a", "b"]),
        write("b", "2"),
        read(&["b"]),
    ];
    let outcome = run(&mut machine, &[], ANSWER_BYTES_MAX, parts);
    let refused = StepOutcome::Written(Outcome::Refused(Refusal::NotAnInteger));
    let steps = vec![PUT, refused, values(&[Some("x"), None]), PUT, values(&[Some("2")])];
    assert_eq!(outcome, Outcome::Transaction(Some(steps)));
    let modified = ["a", "b"].map(|key| machine.store().modified(key.as_bytes()));
    assert_eq!(modified, [1, 1], "by one entry");
}

/// Also if the value is the same again: it is another write, at another index.
#[test]
fn nothing_is_done_if_a_watched_key_has_changed() {
    let mut machine = Machine::default();
    let plain = |op| Command::Write { request: None, op };
    apply(&mut machine, plain(put("a", "1")));
    let set_b = || vec![write("b", "1")];
    assert_eq!(
        run(&mut machine, &[("a", 1), ("none", 0)], ANSWER_BYTES_MAX, set_b()),
        Outcome::Transaction(Some(vec![PUT]))
    );
    apply(&mut machine, plain(put("a", "1")));
    for watched in [[("a", 1)], [("a", 0)], [("none", 1)]] {
        let before = machine.store().digest();
        let outcome = run(&mut machine, &watched, ANSWER_BYTES_MAX, vec![write("b", "2")]);
        assert_eq!(outcome, Outcome::Transaction(None), "{watched:?}");
        assert_eq!(machine.store().digest(), before);
    }
    let at = machine.store().modified(b"a");
    apply(&mut machine, plain(delete("a")));
    apply(&mut machine, plain(put("a", "1")));
    assert_eq!(
        run(&mut machine, &[("a", at)], ANSWER_BYTES_MAX, set_b()),
        Outcome::Transaction(None),
        "another key of the same name"
    );
}

/// To make a key go at a time is a change of it, and so is that it goes.
#[test]
fn a_watched_key_has_changed_when_its_time_did_or_came() {
    let mut machine = Machine::default();
    let timed = |stamp, op| Command::Write { request: None, op: WriteOp::Timed { stamp, op } };
    apply(&mut machine, Command::Write { request: None, op: put("a", "1") });
    let (expiry, condition) = (Expiry::At(50), TimeCondition::Always);
    let op = TimedOp::Expire { key: b"a", expiry, condition, get: false };
    apply(&mut machine, timed(1, op));
    let aborted = Outcome::Transaction(None);
    assert_eq!(run(&mut machine, &[("a", 1)], ANSWER_BYTES_MAX, Vec::new()), aborted);
    apply(&mut machine, timed(60, TimedOp::RemoveExpired { keys_max: 1 }));
    assert_eq!(run(&mut machine, &[("a", 2)], ANSWER_BYTES_MAX, Vec::new()), aborted);
    let done = Outcome::Transaction(Some(Vec::new()));
    assert_eq!(run(&mut machine, &[("a", 0)], ANSWER_BYTES_MAX, Vec::new()), done);
}

/// Whether a snapshot is being taken or not, and with flushes in the middle.
#[test]
fn a_transaction_whose_answers_are_too_long_leaves_everything_as_it_was() {
    for (is_frozen, was_flushed) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut machine = Machine::default();
        let plain = |op| Command::Write { request: None, op };
        apply(&mut machine, plain(put("gone", "1")));
        if was_flushed {
            apply(&mut machine, plain(WriteOp::Flush));
        }
        apply(&mut machine, plain(put("a", "1")));
        let until = Op::SetUntil(5, b"t".into(), b"v".into(), When::Always, false, Expiry::At(9));
        apply(&mut machine, plain(until.as_write()));
        let before = machine.store().digest();
        let known = ["a", "t"].map(|key| machine.store().item(key.as_bytes()).cloned());
        if is_frozen {
            machine.begin_snapshot();
        }
        let parts = vec![
            write("a", "2"),
            Part::Write(Op::Flush),
            write("b", "3"),
            Part::Write(Op::Flush),
            write("a", "4"),
            Part::Write(Op::Delete("t".into())),
            read(&["a"]),
        ];
        let refused = Outcome::Refused(Refusal::TransactionTooLarge);
        assert_eq!(run(&mut machine, &[], 100, parts), refused);
        let store = machine.store();
        assert_eq!((store.digest(), store.next_expiry()), (before, Some(9)));
        assert_eq!(["a", "t"].map(|key| store.item(key.as_bytes()).cloned()), known);
        if is_frozen {
            let (bytes, _) = machine.snapshot_piece(usize::MAX);
            let mut loader = Loader::default();
            loader.feed(&bytes).expect("it was just written");
            assert_eq!(loader.finish().expect("it is whole").store().digest(), before);
        }
    }
}

/// Thesis 6.3, for a transaction.
#[test]
fn a_retried_transaction_is_answered_with_its_first_outcome() {
    let mut machine = Machine::default();
    let session = open(&mut machine);
    let together = |index| {
        let watched = vec![(b"n".to_vec(), index)];
        let parts = vec![Part::Write(Op::Increment("n".into(), 1))];
        Op::Transaction(0, Together::new(watched, ANSWER_BYTES_MAX, parts))
    };
    let op = together(0);
    let request = Some(RequestId { session, sequence: 1 });
    let first = apply(&mut machine, Command::Write { request, op: op.as_write() });
    let counted = StepOutcome::Written(Outcome::Counter(1));
    assert_eq!(first.outcome, Outcome::Transaction(Some(vec![counted])));
    let again = apply(&mut machine, Command::Write { request, op: op.as_write() });
    assert_eq!(again, first, "though the watched key has changed since, by itself");
    assert_eq!(get(machine.store(), "n").as_deref(), Some("1"));
}

#[test]
fn a_flush_is_done_at_once_and_its_memory_freed_little_by_little() {
    let mut machine = Machine::default();
    for key in 0..100 {
        apply(&mut machine, Command::Write { request: None, op: put(&format!("k{key}"), "v") });
    }
    apply(&mut machine, Command::Write { request: None, op: WriteOp::Flush });
    let store = machine.store();
    assert_eq!((store.len(), store.bytes(), store.digest(), store.garbage_items()), (0, 0, 0, 100));
    apply(&mut machine, Command::Write { request: None, op: put("a", "1") });
    apply(&mut machine, Command::Write { request: None, op: WriteOp::Flush });
    apply(&mut machine, Command::Write { request: None, op: put("b", "1") });
    machine.free_some(FreeBudget::of(41, usize::MAX));
    assert_eq!((machine.store().garbage_items(), machine.store().len()), (60, 1));
    machine.free_some(FreeBudget::of(100, usize::MAX));
    assert_eq!((machine.store().garbage_items(), machine.store().len()), (0, 1));
}

/// A leader's snapshot takes the place of a state of a million keys in one step.
#[test]
fn a_state_that_is_replaced_is_freed_little_by_little_with_what_it_kept() {
    let mut old = Machine::default();
    let fill = |machine: &mut Machine, keys: Range<u64>| {
        for key in keys {
            apply(machine, Command::Write { request: None, op: put(&format!("k{key}"), "v") });
        }
    };
    fill(&mut old, 0..10);
    apply(&mut old, Command::Write { request: None, op: WriteOp::Flush });
    fill(&mut old, 0..20);
    old.begin_snapshot();
    apply(&mut old, Command::Write { request: None, op: WriteOp::Flush });
    fill(&mut old, 0..30);
    let mut new = Machine::default();
    fill(&mut new, 0..5);
    let digest = new.store().digest();
    new.free_slowly(old);
    assert_eq!(
        (new.store().garbage_items(), new.store().len(), new.store().digest()),
        (60, 5, digest)
    );
    new.free_some(FreeBudget::of(41, usize::MAX));
    assert_eq!((new.store().garbage_items(), new.store().len()), (19, 5));
    new.free_some(FreeBudget::of(19, usize::MAX));
    assert_eq!((new.store().garbage_items(), new.store().digest()), (0, digest));
}

/// The snapshot that is being taken is the state at its beginning, and keeps it by itself.
#[test]
fn a_flush_does_not_reach_a_snapshot_that_is_being_taken() {
    let mut machine = Machine::default();
    for key in 0..50 {
        apply(&mut machine, Command::Write { request: None, op: put(&format!("k{key:02}"), "v") });
    }
    let before = machine.store().digest();
    machine.begin_snapshot();
    let (mut bytes, _) = machine.snapshot_piece(200);
    apply(&mut machine, Command::Write { request: None, op: put("k40", "changed") });
    for round in 0..3 {
        apply(&mut machine, Command::Write { request: None, op: WriteOp::Flush });
        apply(&mut machine, Command::Write { request: None, op: put("k45", &round.to_string()) });
        machine.free_some(FreeBudget::ALL);
    }
    let (rest, is_last) = machine.snapshot_piece(usize::MAX);
    bytes.extend(rest);
    assert!(is_last);
    let mut loader = Loader::default();
    loader.feed(&bytes).expect("it was just written");
    assert_eq!(loader.finish().expect("it is whole").store().digest(), before);
    assert_eq!(machine.store().garbage_items(), 51, "what the snapshot has held, and what k40 was");
}

#[test]
fn transactions_are_limited_in_steps_and_watched_keys_and_answers() {
    let limits = Limits::default();
    let check = |together: Together| {
        let op = Op::Transaction(0, together);
        let command = Command::Write { request: None, op: op.as_write() }.to_bytes().into();
        limits.check(&Request::Write { command }).map_err(|failure| failure.message)
    };
    let steps = |count| (0..count).map(|_| Part::Write(Op::Flush)).collect();
    let watched = |count| (0..count).map(|_| (b"a".to_vec(), 1)).collect();
    let most = u32::try_from(limits.answer_bytes_max()).expect("it is short");
    assert_eq!(check(Together::new(watched(1024), most, steps(STEPS_MAX))), Ok(()));
    let wrong = [
        Together::new(watched(1025), most, steps(1)),
        Together::new(watched(1), most, steps(STEPS_MAX + 1)),
        Together::new(watched(1), most + 1, steps(1)),
        Together::new(Vec::new(), most, vec![write(&"k".repeat(4097), "v")]),
        Together::new(Vec::new(), most, vec![read(&[&"k".repeat(4097)])]),
        Together::new(Vec::new(), most, vec![read(&["k"; 1025])]),
    ];
    for together in wrong {
        assert!(check(together).is_err());
    }
}
