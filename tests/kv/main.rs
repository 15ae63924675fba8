//! The state machine: what commands do to the store, that requests of a session are carried out
//! once, and that the same entries give the same state and the same outcomes everywhere.

mod commands;
mod growth;
mod history;
mod machine;
mod model;
mod reads;
mod sessions;
mod snapshots;
mod store;
mod times;
mod transactions;
mod work;

use model::{Model, answer_bytes, assert_same};
use proptest::prelude::*;
use raftkv::kv::{
    BUFFER_BYTES_MIN, Blobs, Command, Condition, Executed, Expiry, Found, Machine, Moment, Outcome,
    ReadOp, Refusal, RequestId, SESSION_VALUE_BYTES_MAX, Step as TransactionStep, StepBuffer,
    StepOutcome, Store, TimeCondition, TimedOp, Transaction, WatchedBuffer, WriteOp,
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

/// For what does not depend on it.
pub const AT: Moment = Moment { index: 1, now_ms: 0 };

pub fn get(store: &Store, key: &str) -> Option<String> {
    store.get(key.as_bytes()).map(|value| String::from_utf8(value.to_vec()).expect("text"))
}

pub fn store_of(pairs: &[(&str, &str)]) -> Store {
    let mut store = Store::default();
    for (key, value) in pairs {
        store.apply(put(key, value), AT);
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
    Flush,
    /// With their stamps.
    SetUntil(u64, Vec<u8>, Vec<u8>, When, bool, Expiry),
    Expire(u64, Vec<u8>, Expiry, TimeCondition, bool),
    RemoveExpired(u64, u32),
    Transaction(u64, Together),
}

/// A transaction as parts, and as the bytes that they make.
#[derive(Debug, Clone)]
pub struct Together {
    watched: Vec<(Vec<u8>, Index)>,
    answer_bytes_max: u32,
    parts: Vec<Part>,
    watched_bytes: WatchedBuffer,
    step_bytes: StepBuffer,
}

#[derive(Debug, Clone)]
pub enum Part {
    /// No transaction.
    Write(Op),
    Read(ReadOp),
}

impl Together {
    pub fn new(
        watched: Vec<(Vec<u8>, Index)>,
        answer_bytes_max: u32,
        parts: Vec<Part>,
    ) -> Together {
        let (mut watched_bytes, mut step_bytes) = Default::default();
        watched
            .iter()
            .for_each(|(key, index)| WatchedBuffer::push(&mut watched_bytes, key, *index));
        for part in &parts {
            let step = match part {
                Part::Write(op) => match op.as_write() {
                    WriteOp::Timed { op, .. } => TransactionStep::Timed(op),
                    op => TransactionStep::Write(op),
                },
                Part::Read(op) => TransactionStep::Read(op.clone()),
            };
            StepBuffer::push(&mut step_bytes, &step);
        }
        Together { watched, answer_bytes_max, parts, watched_bytes, step_bytes }
    }
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
                WriteOp::Set { key, value, condition: when.as_condition(), get: *get }
            }
            Op::Remove(key, expected, get) => {
                WriteOp::Remove { key, expected: expected.as_deref(), get: *get }
            }
            Op::PutMany(pairs) => WriteOp::PutMany { pairs: blobs(pairs) },
            Op::DeleteMany(keys) => WriteOp::DeleteMany { keys: blobs(keys) },
            Op::Append(key, value, bytes_max) => {
                WriteOp::Append { key, value, bytes_max: *bytes_max }
            }
            Op::Flush => WriteOp::Flush,
            Op::SetUntil(stamp, key, value, when, get, expiry) => {
                let (condition, get, expiry) = (when.as_condition(), *get, *expiry);
                let op = TimedOp::Set { key, value, condition, get, expiry };
                WriteOp::Timed { stamp: *stamp, op }
            }
            Op::Expire(stamp, key, expiry, condition, get) => {
                let (expiry, condition, get) = (*expiry, *condition, *get);
                WriteOp::Timed {
                    stamp: *stamp,
                    op: TimedOp::Expire { key, expiry, condition, get },
                }
            }
            Op::RemoveExpired(stamp, keys_max) => {
                let op = TimedOp::RemoveExpired { keys_max: *keys_max };
                WriteOp::Timed { stamp: *stamp, op }
            }
            Op::Transaction(stamp, together) => {
                let op = TimedOp::Transaction(Transaction {
                    watched: together.watched_bytes.watched(),
                    answer_bytes_max: together.answer_bytes_max,
                    steps: together.step_bytes.steps(),
                });
                WriteOp::Timed { stamp: *stamp, op }
            }
        }
    }

    fn stamp(&self) -> u64 {
        match self.as_write() {
            WriteOp::Timed { stamp, .. } => stamp,
            _ => 0,
        }
    }
}

impl When {
    fn as_condition(&self) -> Condition<'_> {
        match self {
            When::Always => Condition::Always,
            When::Absent => Condition::Absent,
            When::Present => Condition::Present,
            When::Equals(value) => Condition::Equals(value),
        }
    }
}

pub fn blobs(encoded: &[u8]) -> Blobs<'_> {
    Blobs::new(encoded).expect("just encoded")
}

/// Few keys, so that they meet.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec!["", "a", "b", "c"]).prop_map(|key| key.into())
}

/// Some are integers, and some so long that an append makes a buffer of them.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::sample::select(vec!["", "0", "1", "-5", "x", "9223372036854775807"])
            .prop_map(Vec::<u8>::from),
        4 => prop::collection::vec(any::<u8>(), 0..3),
        1 => (BUFFER_BYTES_MIN - 1..BUFFER_BYTES_MIN + 2).prop_map(|length| vec![b'v'; length]),
    ]
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![
        Just(When::Always),
        Just(When::Absent),
        Just(When::Present),
        value().prop_map(When::Equals),
    ]
}

/// Few moments, in no order.
fn stamp() -> impl Strategy<Value = u64> {
    0..60u64
}

fn expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![
        2 => (-3..30i64).prop_map(Expiry::After),
        2 => (-3..80i64).prop_map(Expiry::At),
        1 => any::<i64>().prop_map(Expiry::After),
        1 => any::<i64>().prop_map(Expiry::At),
        1 => Just(Expiry::Never),
        1 => Just(Expiry::Keep),
    ]
}

fn time_condition() -> impl Strategy<Value = TimeCondition> {
    prop::sample::select(vec![
        TimeCondition::Always,
        TimeCondition::Nx,
        TimeCondition::Xx,
        TimeCondition::Gt,
        TimeCondition::Lt,
        TimeCondition::XxLt,
    ])
}

pub fn op() -> impl Strategy<Value = Op> {
    let watched = prop::collection::vec((key(), 0..6u64), 0..2);
    let part =
        prop_oneof![3 => single_op().prop_map(Part::Write), 2 => read().prop_map(Part::Read)]
            .prop_filter("only leaders remove what is due", |part| {
                !matches!(part, Part::Write(Op::RemoveExpired(..)))
            });
    let together = (
        watched,
        prop_oneof![Just(100_000u32), Just(10_000), 0..120u32],
        prop::collection::vec(part, 0..6),
    )
        .prop_map(|(watched, bytes_max, parts)| Together::new(watched, bytes_max, parts));
    prop_oneof![
        6 => single_op(),
        1 => (stamp(), together).prop_map(|(stamp, together)| Op::Transaction(stamp, together)),
    ]
}

fn read() -> impl Strategy<Value = ReadOp> {
    let keys = || {
        prop::collection::vec(key(), 0..3)
            .prop_map(|keys| keys.iter().map(|key| key.as_slice().into()).collect::<Vec<_>>())
    };
    prop_oneof![
        keys().prop_map(ReadOp::Values),
        keys().prop_map(ReadOp::Versions),
        key().prop_map(|key| ReadOp::Expiry(key.into())),
    ]
}

/// Anything but a transaction.
fn single_op() -> impl Strategy<Value = Op> {
    let delta = prop_oneof![-3i64..3, Just(i64::MAX), Just(i64::MIN), any::<i64>()];
    let plain = prop_oneof![
        (key(), value()).prop_map(|(key, value)| Op::Put(key, value)),
        key().prop_map(Op::Delete),
        (key(), prop::option::of(value()), value())
            .prop_map(|(key, expected, value)| Op::Cas(key, expected, value)),
        (key(), delta).prop_map(|(key, delta)| Op::Increment(key, delta)),
        (key(), value(), when(), any::<bool>())
            .prop_map(|(key, value, when, get)| Op::Set(key, value, when, get)),
        (key(), prop::option::of(value()), any::<bool>())
            .prop_map(|(key, expected, get)| Op::Remove(key, expected, get)),
        prop::collection::vec((key(), value()), 1..4).prop_map(|pairs| {
            let items = pairs.iter().flat_map(|(key, value)| [&key[..], &value[..]]);
            Op::PutMany(Blobs::to_bytes(items))
        }),
        prop::collection::vec(key(), 1..4)
            .prop_map(|keys| Op::DeleteMany(Blobs::to_bytes(keys.iter().map(Vec::as_slice)))),
        (key(), value(), prop_oneof![0..25u32, Just(100_000)])
            .prop_map(|(key, value, bytes_max)| Op::Append(key, value, bytes_max)),
    ];
    let timed = prop_oneof![
        (stamp(), key(), value(), when(), any::<bool>(), expiry()).prop_map(
            |(stamp, key, value, when, get, expiry)| {
                Op::SetUntil(stamp, key, value, when, get, expiry)
            }
        ),
        (stamp(), key(), expiry(), time_condition(), any::<bool>()).prop_map(
            |(stamp, key, expiry, condition, get)| Op::Expire(stamp, key, expiry, condition, get)
        ),
        (stamp(), 0..4u32).prop_map(|(stamp, keys_max)| Op::RemoveExpired(stamp, keys_max)),
    ];
    prop_oneof![20 => plain, 12 => timed, 1 => Just(Op::Flush)]
}
