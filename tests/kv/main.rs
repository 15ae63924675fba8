//! The state machine: what commands do to the store, that requests of a session are carried out
//! once, and that the same entries give the same state and the same outcomes everywhere.

mod commands;
mod history;
mod machine;
mod reads;
mod sessions;
mod snapshots;
mod store;

use proptest::prelude::*;
use raftkv::kv::{
    Blobs, Command, Condition, Executed, Machine, Outcome, Refusal, RequestId,
    SESSION_VALUE_BYTES_MAX, Store, WriteOp,
};
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
    Set(Vec<u8>, Vec<u8>, When, bool),
    Remove(Vec<u8>, Option<Vec<u8>>, bool),
    /// As encoded [`Blobs`].
    PutMany(Vec<u8>),
    DeleteMany(Vec<u8>),
    Append(Vec<u8>, Vec<u8>, u32),
}

/// A [`Condition`] that owns its value.
#[derive(Debug, Clone)]
pub enum When {
    Always,
    Absent,
    Present,
    Equals(Vec<u8>),
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
            Op::Set(key, value, when, get) => {
                let condition = match when {
                    When::Always => Condition::Always,
                    When::Absent => Condition::Absent,
                    When::Present => Condition::Present,
                    When::Equals(value) => Condition::Equals(value),
                };
                WriteOp::Set { key, value, condition, get: *get }
            }
            Op::Remove(key, expected, get) => {
                WriteOp::Remove { key, expected: expected.as_deref(), get: *get }
            }
            Op::PutMany(pairs) => WriteOp::PutMany { pairs: blobs(pairs) },
            Op::DeleteMany(keys) => WriteOp::DeleteMany { keys: blobs(keys) },
            Op::Append(key, value, bytes_max) => {
                WriteOp::Append { key, value, bytes_max: *bytes_max }
            }
        }
    }
}

pub fn blobs(encoded: &[u8]) -> Blobs<'_> {
    Blobs::new(encoded).expect("just encoded")
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
    let when = prop_oneof![
        Just(When::Always),
        Just(When::Absent),
        Just(When::Present),
        value().prop_map(When::Equals),
    ];
    prop_oneof![
        (key(), value()).prop_map(|(key, value)| Op::Put(key, value)),
        key().prop_map(Op::Delete),
        (key(), prop::option::of(value()), value())
            .prop_map(|(key, expected, value)| Op::Cas(key, expected, value)),
        (key(), delta).prop_map(|(key, delta)| Op::Increment(key, delta)),
        (key(), value(), when, any::<bool>())
            .prop_map(|(key, value, when, get)| Op::Set(key, value, when, get)),
        (key(), prop::option::of(value()), any::<bool>())
            .prop_map(|(key, expected, get)| Op::Remove(key, expected, get)),
        prop::collection::vec((key(), value()), 1..4).prop_map(|pairs| {
            let items = pairs.iter().flat_map(|(key, value)| [&key[..], &value[..]]);
            Op::PutMany(Blobs::to_bytes(items))
        }),
        prop::collection::vec(key(), 1..4)
            .prop_map(|keys| Op::DeleteMany(Blobs::to_bytes(keys.iter().map(Vec::as_slice)))),
        (key(), value(), 0..25u32)
            .prop_map(|(key, value, bytes_max)| Op::Append(key, value, bytes_max)),
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
        Op::Set(key, value, when, get) => {
            let old = model.get(&key).cloned();
            let done = match when {
                When::Always => true,
                When::Absent => old.is_none(),
                When::Present => old.is_some(),
                When::Equals(expected) => old.as_ref() == Some(&expected),
            };
            if done {
                model.insert(key, value);
            }
            Outcome::Changed { done, old: old.filter(|_| get).map(Into::into) }
        }
        Op::Remove(key, expected, get) => {
            let old = model.get(&key).cloned();
            let fits = expected.is_none() || old == expected;
            let done = fits && model.remove(&key).is_some();
            Outcome::Changed { done, old: old.filter(|_| get).map(Into::into) }
        }
        Op::PutMany(encoded) => {
            for (key, value) in blobs(&encoded).pairs() {
                model.insert(key.to_vec(), value.to_vec());
            }
            Outcome::Put
        }
        Op::DeleteMany(encoded) => {
            let keys = blobs(&encoded);
            let removed = keys.iter().filter(|key| model.remove(*key).is_some()).count();
            Outcome::Counter(removed as i64)
        }
        Op::Append(key, value, bytes_max) => {
            let mut whole = model.get(&key).cloned().unwrap_or_default();
            whole.extend(value);
            if whole.len() > bytes_max as usize {
                return Outcome::Refused(Refusal::TooLong);
            }
            let length = whole.len() as i64;
            model.insert(key, whole);
            Outcome::Counter(length)
        }
    }
}
