//! The state machine: what commands do to the store, that requests of a session are carried out
//! once, and that the same entries give the same state and the same outcomes everywhere.

mod commands;
mod machine;
mod sessions;
mod snapshots;
mod store;

use proptest::prelude::*;
use raftkv::kv::{Command, Executed, Machine, Outcome, Refusal, RequestId, Store, WriteOp};
use raftkv::raft::{Entry, Index, Payload};
use std::collections::BTreeMap;

pub fn put<'a>(key: &'a str, value: &'a str) -> WriteOp<'a> {
    WriteOp::Put { key: key.as_bytes(), value: value.as_bytes() }
}

pub fn delete(key: &str) -> WriteOp<'_> {
    WriteOp::Delete { key: key.as_bytes() }
}

pub fn cas<'a>(key: &'a str, expected: Option<&'a str>, value: &'a str) -> WriteOp<'a> {
    let expected = expected.map(str::as_bytes);
    WriteOp::CompareAndSet { key: key.as_bytes(), expected, value: value.as_bytes() }
}

pub fn increment(key: &str, delta: i64) -> WriteOp<'_> {
    WriteOp::Increment { key: key.as_bytes(), delta }
}

pub fn get(store: &Store, key: &str) -> Option<String> {
    store.get(key.as_bytes()).map(|value| String::from_utf8(value.to_vec()).expect("text"))
}

pub fn store_of(pairs: &[(&str, &str)]) -> Store {
    let mut store = Store::default();
    for (key, value) in pairs {
        store.apply(put(key, value));
    }
    store
}

pub fn entry(index: Index, command: Command<'_>) -> Entry {
    Entry { term: 1, index, payload: Payload::Command(command.to_bytes().into()) }
}

/// Applies the next entry with this command.
pub fn apply(machine: &mut Machine, command: Command<'_>) -> Executed {
    let entry = entry(machine.applied() + 1, command);
    machine.apply(&entry).expect("a command").expect("not a no-op")
}

pub fn open(machine: &mut Machine) -> u64 {
    match apply(machine, Command::OpenSession).outcome {
        Outcome::SessionOpened { session } => session,
        other => panic!("{other:?}"),
    }
}

/// A request of a session: increments "n", so that doing it twice shows.
pub fn request(machine: &mut Machine, session: u64, sequence: u64) -> Executed {
    let request = Some(RequestId { session, sequence });
    apply(machine, Command::Write { request, op: increment("n", 1) })
}

pub fn counter(executed: Executed) -> i64 {
    match executed.outcome {
        Outcome::Counter(counter) => counter,
        other => panic!("{other:?}"),
    }
}

// Operations as data, so that they can be generated.

#[derive(Debug, Clone)]
pub enum Op {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Cas(Vec<u8>, Option<Vec<u8>>, Vec<u8>),
    Increment(Vec<u8>, i64),
}

impl Op {
    pub fn as_write(&self) -> WriteOp<'_> {
        match self {
            Op::Put(key, value) => WriteOp::Put { key, value },
            Op::Delete(key) => WriteOp::Delete { key },
            Op::Cas(key, expected, value) => {
                WriteOp::CompareAndSet { key, expected: expected.as_deref(), value }
            }
            Op::Increment(key, delta) => WriteOp::Increment { key, delta: *delta },
        }
    }
}

/// Few keys and values, so that they meet; some values are integers.
pub fn op() -> impl Strategy<Value = Op> {
    let key = || prop::sample::select(vec!["", "a", "b", "c"]).prop_map(|key| key.into());
    let value = || {
        prop_oneof![
            prop::sample::select(vec!["", "0", "1", "-5", "x", "9223372036854775807"])
                .prop_map(Vec::<u8>::from),
            prop::collection::vec(any::<u8>(), 0..3),
        ]
    };
    let delta = prop_oneof![-3i64..3, Just(i64::MAX), Just(i64::MIN), any::<i64>()];
    prop_oneof![
        (key(), value()).prop_map(|(key, value)| Op::Put(key, value)),
        key().prop_map(Op::Delete),
        (key(), prop::option::of(value()), value())
            .prop_map(|(key, expected, value)| Op::Cas(key, expected, value)),
        (key(), delta).prop_map(|(key, delta)| Op::Increment(key, delta)),
    ]
}

pub type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// What an operation means, said once more and in the simplest way.
pub fn apply_to_model(model: &mut Model, op: &Op) -> Outcome {
    match op.clone() {
        Op::Put(key, value) => {
            model.insert(key, value);
            Outcome::Put
        }
        Op::Delete(key) => Outcome::Deleted(model.remove(&key).is_some()),
        Op::Cas(key, expected, value) => {
            if model.get(&key) != expected.as_ref() {
                return Outcome::Swapped(false);
            }
            model.insert(key, value);
            Outcome::Swapped(true)
        }
        Op::Increment(key, delta) => {
            let held = model.get(&key).map_or(b"0".to_vec(), Vec::clone);
            let integer: Option<i128> = String::from_utf8(held.clone())
                .ok()
                .and_then(|text| text.parse().ok())
                .filter(|integer: &i128| integer.to_string().as_bytes() == held)
                .filter(|integer| i64::try_from(*integer).is_ok());
            let Some(integer) = integer else { return Outcome::Refused(Refusal::NotAnInteger) };
            let Ok(counter) = i64::try_from(integer + i128::from(delta)) else {
                return Outcome::Refused(Refusal::Overflow);
            };
            model.insert(key, counter.to_string().into_bytes());
            Outcome::Counter(counter)
        }
    }
}
