//! What entries cost when they are applied: that it does not depend on what they do not change, and is known before.

use crate::transactions::{read, write};
use crate::*;
use raftkv::kv::{FreeBudget, Needs};

const MIB: usize = 1024 * 1024;

/// What applying it costs, in work.
fn work_of(machine: &mut Machine, op: WriteOp<'_>) -> u64 {
    let before = machine.store().work();
    apply(machine, Command::Write { request: None, op });
    machine.store().work() - before
}

fn with_long_value(key: &str) -> Machine {
    let mut machine = Machine::default();
    work_of(&mut machine, WriteOp::Put { key: key.as_bytes(), value: &vec![b'7'; MIB] });
    machine
}

fn append<'a>(key: &'a str, value: &'a [u8]) -> WriteOp<'a> {
    WriteOp::Append { key: key.as_bytes(), value, bytes_max: u32::MAX }
}

fn expire(key: &str, expiry: Expiry) -> WriteOp<'_> {
    let (key, condition) = (key.as_bytes(), TimeCondition::Always);
    WriteOp::Timed { stamp: 1, op: TimedOp::Expire { key, expiry, condition, get: true } }
}

#[test]
fn a_command_costs_nothing_for_the_length_of_a_value_that_it_does_not_change() {
    let mut machine = with_long_value("k");
    let short = work_of(&mut machine, put("short", "7"));
    for op in [
        expire("k", Expiry::After(1000)),
        expire("k", Expiry::Never),
        increment("k", 1),
        cas("k", Some("7"), "8"),
        WriteOp::Remove { key: b"k", expected: Some(b"7"), get: true },
        WriteOp::Set { key: b"k", value: b"7", condition: Condition::Absent, get: true },
        append("k", b""),
    ] {
        let first = work_of(&mut machine, op);
        let again = work_of(&mut machine, op);
        assert!(again <= 2 * short, "{op:?}: {first}, then {again}; a short SET: {short}");
    }
    assert!(work_of(&mut machine, delete("k")) <= 2 * short);
}

#[test]
fn an_append_to_a_long_value_costs_what_it_adds() {
    let mut machine = with_long_value("k");
    let first = work_of(&mut machine, append("k", b"x"));
    let next = work_of(&mut machine, append("k", b"x"));
    assert!(first > 100 * next, "{first}, then {next}");
}

#[test]
fn what_is_deleted_replaced_or_kept_for_a_snapshot_is_freed_little_by_little() {
    let mut machine = Machine::default();
    let value = vec![b'x'; MIB];
    for key in ["a", "b", "c", "d"] {
        work_of(&mut machine, WriteOp::Put { key: key.as_bytes(), value: &value });
    }
    machine.begin_snapshot();
    work_of(&mut machine, delete("a"));
    work_of(&mut machine, put("b", "short"));
    work_of(&mut machine, put("short", "1"));
    work_of(&mut machine, delete("short"));
    let garbage = |machine: &Machine| {
        (machine.store().garbage_items(), machine.store().garbage_bytes() / MIB)
    };
    assert_eq!(garbage(&machine), (2, 2), "a short value is freed at once");
    machine.free_some(FreeBudget::of(10, 1));
    assert_eq!(garbage(&machine), (1, 1), "one may go beyond the budget");
    machine.free_some(FreeBudget::of(1, usize::MAX));
    assert_eq!(garbage(&machine), (0, 0));
    machine.abandon_snapshot();
    assert_eq!(machine.store().garbage_items(), 3, "a, b and short as they were");
    machine.free_some(FreeBudget::of(2, usize::MAX));
    assert_eq!(machine.store().garbage_items(), 1);
}

#[test]
fn a_transaction_keeps_each_value_once_however_often_it_changes_it() {
    let mut machine = with_long_value("k");
    let steps = || (0..1500).map(|_| write("k", "x")).chain((0..1500).map(|_| appended("k")));
    let op = Op::Transaction(0, Together::new(Vec::new(), u32::MAX, steps().collect()));
    let needs = command(&op).needs(machine.store());
    assert!(needs.copies <= MIB, "{needs:?}");
    let op = Op::Transaction(0, Together::new(Vec::new(), 1, vec![appended("k"), appended("k")]));
    let before = machine.store().digest();
    apply(&mut machine, command(&op));
    assert_eq!(machine.store().digest(), before, "it was taken back");
}

#[test]
fn a_transaction_is_charged_for_every_long_value_that_it_appends_to() {
    let mut machine = Machine::default();
    let keys: Vec<String> = (0..10).map(|key| key.to_string()).collect();
    for key in &keys {
        work_of(&mut machine, WriteOp::Put { key: key.as_bytes(), value: &vec![b'x'; MIB] });
    }
    let steps = keys.iter().flat_map(|key| [appended(key), appended(key)]).collect();
    let op = Op::Transaction(0, Together::new(Vec::new(), u32::MAX, steps));
    assert_eq!(command(&op).needs(machine.store()).copies, 10 * MIB);
}

#[test]
fn searches_in_a_transaction_are_known_before_however_short_the_answer_may_be() {
    let mut machine = Machine::default();
    for key in 0..10_000 {
        work_of(&mut machine, put(&format!("key-{key}"), "v"));
    }
    let search = || {
        Part::Read(ReadOp::Range(raftkv::kv::Range {
            start: b"".as_slice().into(),
            end: None,
            reverse: false,
            pattern: Some(b"*z".as_slice().into()),
            with_values: false,
            keys_max: 1024,
            partial: false,
        }))
    };
    let op = |count| {
        let steps = (0..count).map(|_| search()).collect();
        Op::Transaction(0, Together::new(Vec::new(), 64, steps))
    };
    let needs: Vec<u64> =
        [1, 2].map(|count| command(&op(count)).needs(machine.store()).work).into();
    assert!(needs[0] > 10_000 * 32 && needs[1] > needs[0] * 19 / 10, "{needs:?}");
    let before = machine.store().work();
    apply(&mut machine, command(&op(1)));
    let cost = machine.store().work() - before;
    assert!(cost > 10_000 * 32 && cost <= needs[0], "{cost} of {needs:?}");
}

fn appended(key: &str) -> Part {
    Part::Write(Op::Append(key.into(), b"x".to_vec(), u32::MAX))
}

fn command(op: &Op) -> Command<'_> {
    Command::Write { request: None, op: op.as_write() }
}

proptest! {
    /// Whatever came before, and whoever shares the values: a snapshot, an answer.
    #[test]
    fn no_entry_costs_more_than_was_known_before(
        ops in prop::collection::vec((op(), any::<bool>()), 1..60),
    ) {
        let mut machine = Machine::default();
        let mut answers = Vec::new();
        for (op, is_snapshot_begun) in ops {
            if is_snapshot_begun {
                machine.begin_snapshot();
            }
            let Needs { work, .. } = command(&op).needs(machine.store());
            let before = machine.store().work();
            answers.push(apply(&mut machine, command(&op)));
            let cost = machine.store().work() - before;
            // What is taken back is done twice.
            prop_assert!(cost <= 2 * work, "{:?} cost {}, known was {}", op, cost, work);
        }
    }
}

#[test]
fn a_read_of_a_value_that_grows_is_not_touched_by_the_next_append() {
    let mut machine = with_long_value("k");
    work_of(&mut machine, append("k", b"1"));
    let answer = machine.store().get(b"k").expect("it is there");
    work_of(&mut machine, append("k", b"2"));
    assert_eq!((answer.len(), answer.last()), (MIB + 1, Some(&b'1')));
    let Outcome::Transaction(Some(outcomes)) = crate::transactions::run(
        &mut machine,
        &[],
        u32::MAX,
        vec![read(&["k"]), appended("k"), read(&["k"])],
    ) else {
        panic!("it is carried out")
    };
    let lengths: Vec<usize> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            StepOutcome::Found(Found::Values(values)) => values[0].as_deref().map(<[u8]>::len),
            _ => None,
        })
        .collect();
    assert_eq!(lengths, [MIB + 2, MIB + 3]);
}
