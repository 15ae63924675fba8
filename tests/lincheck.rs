//! The checker of linearizability, checked: known good and bad histories, all orders of small ones, and
//! histories as large and unclear as a simulator makes them.

#[path = "lincheck/brute.rs"]
mod brute;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use raftkv::linearizable::{Call, Evidence, Op, Res, Violation, check, check_within};
use std::cell::Cell;

// ---------------------------------------------------------------- histories in few words

/// By client `client` from `invoked` to `returned`.
fn op(client: u32, invoked: u64, returned: u64, call: Call, result: Res) -> Op {
    let (returned, result) = (Some(returned), Some(result));
    Op { client, key: b"k".to_vec(), call, invoked, returned, result }
}

/// By client `client` from `invoked` on, with an outcome that nobody knows.
fn lost(client: u32, invoked: u64, call: Call) -> Op {
    Op { client, key: b"k".to_vec(), call, invoked, returned: None, result: None }
}

fn get(client: u32, invoked: u64, returned: u64, value: Option<&str>) -> Op {
    op(client, invoked, returned, Call::Get, Res::Value(bytes(value)))
}

fn put(client: u32, invoked: u64, returned: u64, value: &str) -> Op {
    op(client, invoked, returned, Call::Put(value.into()), Res::Put)
}

fn delete(client: u32, invoked: u64, returned: u64, existed: bool) -> Op {
    op(client, invoked, returned, Call::Delete, Res::Deleted(existed))
}

fn set(expected: Option<&str>, value: &str) -> Call {
    Call::CompareAndSet { expected: bytes(expected), value: value.into() }
}

fn bytes(text: Option<&str>) -> Option<Vec<u8>> {
    text.map(|text| text.as_bytes().to_vec())
}

fn assert_possible(history: &[Op]) {
    check(history).unwrap();
    assert!(brute::is_linearizable(history), "by definition it is not: {history:?}");
}

/// The misfit's line of the evidence.
fn assert_impossible(history: &[Op], misfit: &str) {
    let violation = check(history).expect_err("the history is impossible");
    assert!(!brute::is_linearizable(history), "by definition it is possible: {history:?}");
    let text = violation.to_string();
    let line = text.lines().find(|line| line.trim_start().starts_with('>'));
    assert!(line.is_some_and(|line| line.contains(misfit)), "{misfit} is not the misfit: {text}");
}

// ---------------------------------------------------------------- good and bad histories

#[test]
fn an_empty_history_is_possible() {
    assert_possible(&[]);
}

#[test]
fn a_key_begins_without_a_value() {
    assert_possible(&[get(1, 0, 1, None)]);
    assert_impossible(&[get(1, 0, 1, Some("a"))], "get");
}

#[test]
fn a_stale_read_is_impossible() {
    let stale = |client| [put(1, 0, 1, "a"), put(1, 2, 3, "b"), get(client, 4, 5, Some("a"))];
    assert_impossible(&stale(1), "get -> \"a\"");
    assert_impossible(&stale(2), "get -> \"a\"");
}

#[test]
fn a_read_during_a_write_may_see_either() {
    for seen in [Some("a"), Some("b")] {
        assert_possible(&[put(1, 0, 1, "a"), put(1, 2, 9, "b"), get(2, 4, 5, seen)]);
    }
}

#[test]
fn a_value_that_nobody_wrote_is_not_read() {
    assert_impossible(&[put(1, 0, 1, "a"), get(2, 0, 3, Some("c"))], "get -> \"c\"");
}

/// Both values are possible, but not in this order: the first read settles that the write is done.
#[test]
fn reads_do_not_go_back() {
    let (old, new) = (put(1, 0, 1, "a"), put(1, 2, 9, "b"));
    let reads = |first, second| {
        [old.clone(), new.clone(), get(2, 3, 4, Some(first)), get(3, 5, 6, Some(second))]
    };
    assert_possible(&reads("a", "b"));
    assert_impossible(&reads("b", "a"), "client 3: get -> \"a\"");
}

#[test]
fn a_lost_update_is_impossible() {
    let both_from_one = [
        put(1, 0, 1, "1"),
        op(1, 2, 5, Call::Increment(1), Res::Counter(2)),
        op(2, 3, 6, Call::Increment(1), Res::Counter(2)),
    ];
    assert_impossible(&both_from_one, "increment by 1 -> 2");
}

#[test]
fn an_increment_done_twice_is_impossible() {
    let history = [op(1, 0, 1, Call::Increment(1), Res::Counter(1)), get(2, 2, 3, Some("2"))];
    assert_impossible(&history, "get -> \"2\"");
    let with_a_lost_one = [&history[..], &[lost(3, 0, Call::Increment(1))]].concat();
    assert_possible(&with_a_lost_one);
}

#[test]
fn of_two_swaps_of_one_value_only_one_succeeds() {
    let swaps = |second| {
        [
            put(1, 0, 1, "a"),
            op(1, 2, 5, set(Some("a"), "b"), Res::Swapped(true)),
            op(2, 2, 6, set(Some("a"), "c"), Res::Swapped(second)),
        ]
    };
    assert_possible(&swaps(false));
    assert_impossible(&swaps(true), "set \"c\" if \"a\"");
}

#[test]
fn a_swap_of_nothing_needs_the_key_to_be_absent() {
    assert_possible(&[op(1, 0, 1, set(None, "a"), Res::Swapped(true)), get(1, 2, 3, Some("a"))]);
    assert_impossible(
        &[put(1, 0, 1, "a"), op(1, 2, 3, set(None, "b"), Res::Swapped(true))],
        "set \"b\" if none",
    );
    assert_impossible(&[op(1, 0, 1, set(None, "a"), Res::Swapped(false))], "another value");
}

#[test]
fn deletes_know_whether_the_key_was_there() {
    assert_possible(&[put(1, 0, 1, "a"), delete(1, 2, 3, true), delete(1, 4, 5, false)]);
    assert_impossible(&[put(1, 0, 1, "a"), delete(1, 2, 3, false)], "was not there");
    assert_impossible(&[delete(1, 0, 1, true)], "deleted");
    assert_impossible(
        &[put(1, 0, 1, "a"), delete(1, 2, 6, true), delete(2, 3, 7, true)],
        "deleted",
    );
    assert_impossible(&[put(1, 0, 1, "a"), delete(1, 2, 3, true), get(1, 4, 5, Some("a"))], "get");
}

#[test]
fn increments_are_refused_for_a_reason() {
    let increment = |result| op(2, 2, 3, Call::Increment(1), result);
    assert_possible(&[put(1, 0, 1, "a"), increment(Res::NotAnInteger)]);
    assert_possible(&[put(1, 0, 1, "01"), increment(Res::NotAnInteger)]);
    assert_possible(&[put(1, 0, 1, "-9223372036854775808"), increment(Res::Counter(-i64::MAX))]);
    assert_possible(&[put(1, 0, 1, "9223372036854775807"), increment(Res::Overflow)]);
    assert_possible(&[put(1, 0, 1, "9223372036854775808"), increment(Res::NotAnInteger)]);
    assert_impossible(&[put(1, 0, 1, "7"), increment(Res::NotAnInteger)], "not an integer");
    assert_impossible(&[put(1, 0, 1, "7"), increment(Res::Overflow)], "overflow");
    assert_impossible(&[increment(Res::NotAnInteger)], "not an integer");
}

#[test]
fn an_unknown_write_may_have_happened_or_not() {
    for seen in [Some("a"), Some("b")] {
        assert_possible(&[
            put(1, 0, 1, "a"),
            lost(2, 2, Call::Put("b".into())),
            get(3, 4, 5, seen),
        ]);
    }
}

#[test]
fn an_unknown_write_that_was_seen_stays_seen() {
    let history = [
        put(1, 0, 1, "a"),
        lost(2, 2, Call::Put("b".into())),
        get(3, 4, 5, Some("b")),
        get(3, 6, 7, Some("a")),
    ];
    assert_impossible(&history, "client 3: get -> \"a\"");
}

#[test]
fn an_unknown_write_may_take_effect_late_and_once() {
    let late = |last| {
        [
            lost(1, 0, Call::Put("late".into())),
            put(2, 1, 2, "a"),
            get(2, 3, 4, Some("a")),
            get(2, 5, 6, Some("late")),
            put(2, 7, 8, "b"),
            get(2, 9, 10, last),
        ]
    };
    assert_possible(&late(Some("b")));
    assert_impossible(&late(Some("late")), "9..10");
}

#[test]
fn an_unknown_write_does_not_take_effect_before_its_call() {
    let history = [get(1, 0, 1, Some("b")), lost(2, 2, Call::Put("b".into()))];
    assert_impossible(&history, "get -> \"b\"");
}

#[test]
fn unknown_operations_work_in_chains() {
    let history = |lost_ones: &[Call]| {
        let lost = lost_ones.iter().map(|call| lost(9, 0, call.clone()));
        lost.chain([put(1, 1, 2, "a"), get(1, 3, 4, Some("d"))]).collect::<Vec<_>>()
    };
    let links = [set(Some("b"), "c"), set(Some("a"), "b"), set(Some("c"), "d")];
    assert_possible(&history(&links));
    assert_impossible(&history(&links[..2]), "get -> \"d\"");
}

#[test]
fn an_unknown_write_explains_a_swap_that_failed_and_a_delete_that_did_not() {
    let lost = lost(1, 0, Call::Put("x".into()));
    let failed = op(2, 3, 4, set(Some("a"), "b"), Res::Swapped(false));
    assert_possible(&[lost.clone(), put(2, 1, 2, "a"), failed.clone()]);
    assert_impossible(&[put(2, 1, 2, "a"), failed], "another value");
    let twice = [put(2, 1, 2, "a"), delete(2, 3, 4, true), delete(2, 5, 6, true)];
    assert_possible(&[&twice[..], &[lost]].concat());
    assert_impossible(&twice, "5..6");
}

#[test]
fn equal_times_count_as_concurrent() {
    for seen in [None, Some("a")] {
        assert_possible(&[put(1, 0, 5, "a"), get(2, 5, 6, seen)]);
    }
}

#[test]
fn an_answer_of_another_kind_is_impossible() {
    assert_impossible(&[op(1, 0, 1, Call::Get, Res::Put)], "get -> done");
    assert_impossible(&[op(1, 0, 1, Call::Delete, Res::Value(None))], "delete -> none");
}

#[test]
fn keys_are_checked_one_by_one() {
    let on = |key: &str, op: Op| Op { key: key.into(), ..op };
    let history =
        [on("x", put(1, 0, 1, "a")), on("y", get(1, 2, 3, None)), on("x", get(1, 4, 5, Some("a")))];
    check(&history).unwrap();
    let violation = check(&[&history[..], &[on("y", get(2, 6, 7, Some("a")))]].concat());
    let text = violation.unwrap_err().to_string();
    assert!(text.starts_with("key \"y\" is not linearizable"), "{text}");
}

#[test]
#[should_panic(expected = "returned before its call")]
fn a_history_in_which_time_goes_back_is_none() {
    let _ = check(&[get(1, 5, 4, None)]);
}

// ---------------------------------------------------------------- evidence

/// The rest of the history is left out: what came before, what changed nothing, what came after.
#[test]
fn the_evidence_is_small_and_readable() {
    let mut history = Vec::new();
    for i in 0..500 {
        let (at, value) = (10 * i, i.to_string());
        history.push(put(1, at, at + 1, &value));
        history.push(get(2, at + 2, at + 4, Some(&value)));
        history.push(get(3, at + 3, at + 5, Some(&value)));
    }
    history.push(put(4, 2497, 2499, "b"));
    history[3 * 250 - 1] = get(3, 2493, 2501, Some("b"));
    history[3 * 250 + 1] = get(2, 2502, 2504, Some("b"));
    let Err(Violation::NotLinearizable(evidence)) = check(&history) else { panic!("impossible") };
    let expected = "\
key \"k\" is not linearizable, #3 cannot be placed:
before             2490..2491  client 1: put \"249\" -> done
    #1             2497..2499  client 4: put \"b\" -> done
    #2             2500..2501  client 1: put \"250\" -> done
  > #3             2502..2504  client 2: get -> \"b\"
possible without it: [#1 #2], which ends with \"250\"";
    assert_eq!(evidence.to_string(), expected);
}

#[test]
fn too_few_states_are_told_from_a_violation() {
    let history: Vec<Op> = (0..20).map(|i| put(i, 0, 9, &i.to_string())).collect();
    let reads = (0..20).map(|i| get(i, 0, 9, Some(&i.to_string())));
    let history: Vec<Op> = history.into_iter().chain(reads).collect();
    let read = |value: &str| [&history[..], &[get(99, 10, 11, Some(value))]].concat();
    let violation = check_within(&read("never written"), 1_000).unwrap_err();
    assert!(violation.is_undecided(), "{violation}");
    assert!(violation.to_string().contains("41 operations"), "{violation}");
    check_within(&read("19"), 1_000).unwrap();
}

// ---------------------------------------------------------------- all orders of small histories

#[derive(Debug, Clone)]
struct Sketch {
    call: Call,
    invoked: u64,
    lasts: u64,
    /// When it takes effect: before it returns, or if it is unknown, ever.
    takes_effect_after: u64,
    is_unknown: bool,
    /// An answer other than the right one.
    lie: Option<Res>,
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec!["a", "b", "1", "2", "9223372036854775807"]).prop_map(Into::into)
}

fn call() -> impl Strategy<Value = Call> {
    let expected = prop::option::weighted(0.8, value());
    prop_oneof![
        3 => Just(Call::Get),
        3 => value().prop_map(Call::Put),
        2 => Just(Call::Delete),
        1 => Just(Call::Clear),
        3 => (expected, value()).prop_map(|(expected, value)| Call::CompareAndSet { expected, value }),
        3 => (-1..=2i64).prop_map(Call::Increment),
    ]
}

fn res() -> impl Strategy<Value = Res> {
    prop_oneof![
        4 => prop::option::of(value()).prop_map(Res::Value),
        1 => Just(Res::Put),
        2 => any::<bool>().prop_map(Res::Deleted),
        2 => any::<bool>().prop_map(Res::Swapped),
        2 => (-1..=4i64).prop_map(Res::Counter),
        1 => Just(Res::NotAnInteger),
        1 => Just(Res::Overflow),
    ]
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let lie = prop::option::weighted(0.15, res());
    (call(), 0..12u64, 0..8u64, 0..8u64, prop::bool::weighted(0.35), lie).prop_map(
        |(call, invoked, lasts, effect, is_unknown, lie)| {
            let takes_effect_after = if is_unknown { 2 * effect } else { effect.min(lasts) };
            Sketch { call, invoked, lasts, takes_effect_after, is_unknown, lie }
        },
    )
}

/// What a register answers to the sketch, lies apart.
fn history_of(sketches: &[Sketch]) -> Vec<Op> {
    let effect = |i: &usize| sketches[*i].invoked + sketches[*i].takes_effect_after;
    let mut by_effect: Vec<usize> = (0..sketches.len()).collect();
    by_effect.sort_by_key(effect);
    let mut value = None;
    let mut ops = Vec::new();
    for i in by_effect {
        let Sketch { call, invoked, lasts, is_unknown, lie, .. } = sketches[i].clone();
        let right = brute::apply(&mut value, &call);
        ops.push(if is_unknown {
            lost(i as u32, invoked, call)
        } else {
            op(i as u32, invoked, invoked + lasts, call, lie.unwrap_or(right))
        });
    }
    ops
}

#[test]
fn small_histories_are_judged_as_by_trying_all_orders() {
    let (possible, impossible) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(Config { cases: 6_000, ..Config::default() });
    let judged = runner.run(&vec(sketch(), 1..=6), |sketches| {
        let history = history_of(&sketches);
        let verdict = check(&history);
        prop_assert_eq!(verdict.is_ok(), brute::is_linearizable(&history), "{:?}", history);
        let counter = if verdict.is_ok() { &possible } else { &impossible };
        counter.set(counter.get() + 1);
        if let Err(Violation::NotLinearizable(evidence)) = verdict {
            prop_assert!(check(&history_with_start(&evidence)).is_err(), "{}", evidence);
        }
        Ok(())
    });
    judged.unwrap();
    let counts = (possible.get(), impossible.get());
    assert!(counts.0 > 1_000 && counts.1 > 1_000, "possible and impossible: {counts:?}");
}

/// The evidence as a history of its own: the value that it begins with is written first.
fn history_with_start(evidence: &Evidence) -> Vec<Op> {
    let first = evidence.start.as_ref().map(|start| {
        let value = match (&start.call, start.result.as_ref().unwrap()) {
            (_, Res::Value(value)) => value.clone(),
            (Call::Put(value) | Call::CompareAndSet { value, .. }, _) => Some(value.clone()),
            (_, Res::Counter(counter)) => Some(counter.to_string().into()),
            _ => None,
        };
        let call = value.map_or(Call::Delete, Call::Put);
        let result = if call == Call::Delete { Res::Deleted(false) } else { Res::Put };
        Op { call, result: Some(result), ..start.clone() }
    });
    first.into_iter().chain(evidence.ops.iter().cloned()).collect()
}

// ---------------------------------------------------------------- large histories

/// How clients treat one key, for `Crowd::history`.
struct Crowd {
    clients: u32,
    operations: usize,
    /// Of a hundred operations, this many have an unknown outcome; half of those take effect.
    unknown_percent: u32,
    values: Values,
}

#[derive(Clone, Copy)]
enum Values {
    /// Each is written once.
    Distinct,
    /// A few, written again and again.
    Few,
    /// Mostly increments, by different amounts.
    Counter,
}

impl Crowd {
    /// What they may see: each operation takes effect at a random moment between call and return, or if
    /// nobody knows, even long after. Also says how many are unknown.
    fn history(&self, seed: u64) -> (Vec<Op>, usize) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut free_at = vec![0u64; self.clients as usize];
        let mut sketches = Vec::new();
        for i in 0..self.operations {
            let client = rng.usize(..free_at.len());
            let invoked = free_at[client] + rng.u64(0..20);
            let lasts = if rng.u32(0..50) == 0 { rng.u64(100..2_000) } else { rng.u64(1..50) };
            free_at[client] = invoked + lasts + 1;
            let is_unknown = rng.u32(0..100) < self.unknown_percent;
            let effect_at = match is_unknown {
                true if rng.bool() => u64::MAX,
                true => invoked + rng.u64(0..3_000),
                false => invoked + rng.u64(0..=lasts),
            };
            let call = self.values.call(&mut rng, i);
            sketches.push((effect_at, client as u32, invoked, invoked + lasts, is_unknown, call));
        }
        sketches.sort_by_key(|(effect_at, ..)| *effect_at);
        let unknown = sketches.iter().filter(|sketch| sketch.4).count();
        let mut value = None;
        let history =
            sketches.into_iter().map(|(_, client, invoked, returned, is_unknown, call)| {
                let result = brute::apply(&mut value, &call);
                if is_unknown {
                    lost(client, invoked, call)
                } else {
                    op(client, invoked, returned, call, result)
                }
            });
        (history.collect(), unknown)
    }
}

impl Values {
    fn call(self, rng: &mut fastrand::Rng, i: usize) -> Call {
        let mut value = |new: usize| {
            let number = match self {
                Values::Distinct => new,
                Values::Few | Values::Counter => rng.usize(..4),
            };
            format!("v{number}").into_bytes()
        };
        let (some, other) = (value(i), value(i.saturating_sub(3)));
        let kind = rng.u32(0..10);
        if let Values::Counter = self {
            match kind {
                0 => return Call::Put(rng.u32(..100).to_string().into()),
                1..7 => return Call::Increment(rng.i64(1..=5)),
                _ => {}
            }
        }
        match kind {
            0..3 => Call::Put(some),
            4 | 5 => Call::CompareAndSet { expected: Some(other), value: some },
            6 => Call::CompareAndSet { expected: None, value: some },
            3 | 7 => Call::Delete,
            _ => Call::Get,
        }
    }
}

/// Nothing here is timed: the limit of states is what may not be reached.
#[test]
fn large_histories_need_few_states() {
    for values in [Values::Distinct, Values::Few, Values::Counter] {
        for clients in [3, 10] {
            for seed in 0..10 {
                let crowd = Crowd { clients, operations: 4_000, unknown_percent: 1, values };
                let (history, unknown) = crowd.history(seed);
                assert!(unknown > 20, "only {unknown} are unknown");
                check(&history).unwrap();
            }
        }
    }
}

/// To rule everything out is more than to find one order: here unknown outcomes cost most.
#[test]
fn a_violation_at_the_end_of_a_large_history_is_found() {
    for (values, unknown_percent) in [(Values::Distinct, 1), (Values::Few, 0), (Values::Counter, 0)]
    {
        for clients in [3, 10] {
            let crowd = Crowd { clients, operations: 2_000, unknown_percent, values };
            let (mut history, _) = crowd.history(7);
            let end = history.iter().filter_map(|op| op.returned).max().unwrap();
            history.push(put(77, end + 1, end + 2, "last"));
            history.push(get(78, end + 3, end + 4, Some("last")));
            history.push(put(77, end + 5, end + 6, "newer"));
            history.push(get(79, end + 7, end + 8, Some("last")));
            let violation = check(&history).unwrap_err();
            assert!(!violation.is_undecided(), "{violation}");
            let text = violation.to_string();
            assert!(text.contains("client 79: get -> \"last\""), "{text}");
        }
    }
}
