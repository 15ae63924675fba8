//! What the committed log means, worked out a second time and simply: every version of every key, every
//! outcome. Answers to clients are held against it.
//!
//! An answer names the log index at which it happened. If it says what was true there, and no answer that
//! was given before a request began names a later index, then the log itself is an order that explains
//! everything clients saw: that is linearizability, checked at each answer.

use super::faults::{Counts, Fault};
use raftkv::kv::{
    self, Answer, Command, Condition, Expiry, Found, Outcome, ReadOp, Refusal, Request, RequestId,
    SESSION_VALUE_BYTES_MAX, Step, StepOutcome, TimeCondition, TimedOp, Transaction, WriteOp,
};
use raftkv::raft::{Bytes, Entry, Index, Payload};
use std::collections::BTreeMap;
use std::rc::Rc;

type Value = Option<Rc<[u8]>>;

/// What a key is from one entry on.
#[derive(Debug, Clone)]
pub struct Version {
    pub begins: Index,
    /// `None`: it does not exist.
    pub value: Value,
    /// In milliseconds of Unix time; 0: never.
    pub expires_at: u64,
}

#[derive(Default)]
pub struct Model {
    /// For each key what it was, in the order of the log.
    versions: BTreeMap<Vec<u8>, Vec<Version>>,
    /// The latest stamp in the log.
    clock_ms: u64,
    pub seen: Counts,
    /// The newest request of each session, and what it was answered.
    sessions: BTreeMap<u64, Option<(u64, Executed)>>,
    /// By index, from 1: the entry's command and what came of it, if it was first executed there.
    log: Vec<Option<(Rc<[u8]>, Executed)>>,
    /// Where each command that is sent once, because nothing remembers it, is in the log.
    places: BTreeMap<Rc<[u8]>, Index>,
    /// Such commands whose client was told "not done".
    not_done: BTreeMap<Rc<[u8]>, &'static str>,
    keys: i64,
}

type Executed = (Index, Outcome);

impl Model {
    pub fn applied(&self) -> Index {
        self.log.len() as Index
    }

    /// Keys that exist at the end of the log.
    pub fn keys(&self) -> u64 {
        self.keys as u64
    }

    /// Keys that ever existed, as they are at the end of the log.
    pub fn newest(&self) -> impl Iterator<Item = (&[u8], &Version)> {
        self.versions
            .iter()
            .map(|(key, versions)| (&key[..], versions.last().expect("a key has a version")))
    }

    pub fn clock_ms(&self) -> u64 {
        self.clock_ms
    }

    /// The newest request of each session that had one, and what it was answered.
    pub fn newest_requests(&self) -> impl Iterator<Item = (RequestId, kv::Executed)> {
        self.sessions.iter().filter_map(|(session, newest)| {
            let (sequence, (index, outcome)) = newest.clone()?;
            let executed = kv::Executed { index, outcome };
            Some((RequestId { session: *session, sequence }, executed))
        })
    }

    /// No clock has shown more than `latest_wall_ms` so far.
    pub fn apply(&mut self, entry: &Entry, latest_wall_ms: u64) {
        assert_eq!(entry.index, self.applied() + 1);
        let Payload::Command(bytes) = &entry.payload else { return self.log.push(None) };
        let command = Command::decode(bytes).expect("what is committed can be read");
        if let Command::Write { op: WriteOp::Timed { stamp, .. }, .. } = command {
            let latest = latest_wall_ms.max(self.clock_ms);
            assert!(stamp <= latest, "entry {} has the time {stamp}: it is {latest}", entry.index);
            assert!(stamp > 0, "entry {} has no time", entry.index);
        }
        let bytes = &without_stamp(bytes);
        let executed = match command {
            Command::OpenSession => {
                self.sessions.insert(entry.index, None);
                (entry.index, Outcome::SessionOpened { session: entry.index })
            }
            Command::Write { request: None, op } => {
                self.check_once(bytes, entry.index, &op);
                (entry.index, self.execute(entry.index, op))
            }
            Command::Write { request: Some(id), op } => self.execute_once(entry.index, id, op),
        };
        self.log.push(Some((bytes.clone(), executed)));
    }

    fn execute_once(&mut self, index: Index, id: RequestId, op: WriteOp<'_>) -> Executed {
        let refused = |refusal| (index, Outcome::Refused(refusal));
        match self.sessions.get(&id.session) {
            None => return refused(Refusal::UnknownSession),
            Some(Some((newest, executed))) if *newest == id.sequence => return executed.clone(),
            Some(Some((newest, _))) if *newest > id.sequence => {
                return refused(Refusal::StaleSequence);
            }
            Some(_) => {}
        }
        let executed = (index, self.execute(index, op));
        let mut remembered = executed.clone();
        if is_forgotten(&executed.1) {
            remembered.1 = Outcome::Refused(Refusal::AnswerForgotten);
        }
        self.sessions.insert(id.session, Some((id.sequence, remembered)));
        executed
    }

    fn execute(&mut self, index: Index, op: WriteOp<'_>) -> Outcome {
        match op {
            WriteOp::Put { key, value } => {
                self.set(key, index, Some(value), 0);
                Outcome::Put
            }
            WriteOp::Delete { key } => {
                let exists = self.value_at(key, index).is_some();
                self.remove(key, index);
                Outcome::Deleted(exists)
            }
            WriteOp::CompareAndSet { key, expected, value } => {
                let swaps = self.value_at(key, index).as_deref() == expected;
                if swaps {
                    self.set(key, index, Some(value), 0);
                }
                Outcome::Swapped(swaps)
            }
            WriteOp::Increment { key, delta } => {
                let current = self.value_at(key, index);
                let number = match current.as_deref().map(std::str::from_utf8) {
                    None => Some(0),
                    Some(Ok(text)) => text.parse().ok().filter(|n: &i64| n.to_string() == text),
                    Some(Err(_)) => None,
                };
                match number.map(|number| number.checked_add(delta)) {
                    None => Outcome::Refused(Refusal::NotAnInteger),
                    Some(None) => Outcome::Refused(Refusal::Overflow),
                    Some(Some(sum)) => {
                        let expires_at = self.expires_at(key, index);
                        self.set(key, index, Some(sum.to_string().as_bytes()), expires_at);
                        Outcome::Counter(sum)
                    }
                }
            }
            WriteOp::Flush => {
                self.seen.add(Fault::Flushed);
                let keys: Vec<Vec<u8>> = self.versions.keys().cloned().collect();
                keys.iter().for_each(|key| self.remove(key, index));
                Outcome::Put
            }
            WriteOp::Timed { stamp, op } => {
                if stamp < self.clock_ms {
                    self.seen.add(Fault::StampBehind);
                }
                self.clock_ms = self.clock_ms.max(stamp);
                self.execute_timed(index, op)
            }
            other => unreachable!("no client of the simulation sends {other:?}"),
        }
    }

    fn execute_timed(&mut self, index: Index, op: TimedOp<'_>) -> Outcome {
        match op {
            TimedOp::Set { key, value, condition: Condition::Always, get: false, expiry } => {
                let Expiry::After(after) = expiry else { unreachable!("all are relative") };
                let expires_at = self.clock_ms.checked_add_signed(after).expect("it is later");
                self.set(key, index, Some(value), expires_at);
                Outcome::Changed { done: true, old: None }
            }
            TimedOp::Expire { key, expiry, condition: TimeCondition::Always, get: false } => {
                let current = self.value_at(key, index);
                let expires_at = match expiry {
                    Expiry::After(after) => self.clock_ms.checked_add_signed(after).expect("later"),
                    _ => 0,
                };
                let done = current.is_some() && (expires_at, self.expires_at(key, index)) != (0, 0);
                if done {
                    self.set(key, index, current.as_deref(), expires_at);
                }
                Outcome::Changed { done, old: None }
            }
            TimedOp::RemoveExpired { keys_max } => {
                let now = self.clock_ms;
                let mut due: Vec<(u64, Vec<u8>)> = self
                    .newest()
                    .filter(|(_, newest)| newest.value.is_some())
                    .filter(|(_, newest)| (1..=now).contains(&newest.expires_at))
                    .map(|(key, newest)| (newest.expires_at, key.to_vec()))
                    .collect();
                due.sort();
                due.truncate(keys_max as usize);
                for (_, key) in &due {
                    self.seen.add(Fault::KeyExpired);
                    self.remove(key, index);
                }
                Outcome::Counter(due.len() as i64)
            }
            TimedOp::Transaction(transaction) => self.execute_together(index, transaction),
            other => unreachable!("no client of the simulation sends {other:?}"),
        }
    }

    /// Its limit on answers is so high that no transaction of the simulation meets it.
    fn execute_together(&mut self, index: Index, transaction: Transaction<'_>) -> Outcome {
        let before = index - 1;
        if transaction.watched.iter().any(|(key, version)| self.version(key, before) != version) {
            self.seen.add(Fault::TransactionAborted);
            return Outcome::Transaction(None);
        }
        let steps = transaction.steps.iter().map(|step| match step {
            Step::Write(op) => StepOutcome::Written(self.execute(index, op)),
            Step::Timed(op) => StepOutcome::Written(self.execute_timed(index, op)),
            Step::Read(op) => {
                StepOutcome::Found(self.found(&op, index).expect("clients read values"))
            }
        });
        Outcome::Transaction(Some(steps.collect()))
    }

    fn remove(&mut self, key: &[u8], index: Index) {
        if self.value_at(key, index).is_some() {
            self.set(key, index, None, 0);
        }
    }

    fn set(&mut self, key: &[u8], index: Index, value: Option<&[u8]>, expires_at: u64) {
        let existed = self.value_at(key, index).is_some();
        self.keys += i64::from(value.is_some()) - i64::from(existed);
        let versions = self.versions.entry(key.to_vec()).or_default();
        versions.push(Version { begins: index, value: value.map(Rc::from), expires_at });
    }

    /// After everything up to `index` is applied.
    fn at(&self, key: &[u8], index: Index) -> Option<&Version> {
        let versions = self.versions.get(key)?;
        let count = versions.partition_point(|version| version.begins <= index);
        versions[..count].last()
    }

    fn value_at(&self, key: &[u8], index: Index) -> Value {
        self.at(key, index)?.value.clone()
    }

    fn expires_at(&self, key: &[u8], index: Index) -> u64 {
        self.at(key, index).map_or(0, |version| version.expires_at)
    }

    /// 0: it does not exist.
    fn version(&self, key: &[u8], index: Index) -> Index {
        let version = self.at(key, index).filter(|version| version.value.is_some());
        version.map_or(0, |version| version.begins)
    }

    /// What a read finds; `None`: the model does not know such reads.
    fn found(&self, op: &ReadOp, index: Index) -> Option<Found> {
        match op {
            ReadOp::Values(keys) => Some(Found::Values(
                keys.iter().map(|key| self.value_at(key, index).map(kv::Value::from)).collect(),
            )),
            ReadOp::Versions(keys) => {
                Some(Found::Versions(keys.iter().map(|key| self.version(key, index)).collect()))
            }
            _ => None,
        }
    }

    /// Commands without a session are made to be unique, deletions apart, and each is in the log once.
    fn check_once(&mut self, bytes: &Rc<[u8]>, index: Index, op: &WriteOp<'_>) {
        if !is_unique(op) {
            return;
        }
        if let Some(told) = self.not_done.get(bytes) {
            panic!("entry {index}, {op:?}, is committed, and its client was told {told:?}");
        }
        if let Some(before) = self.places.insert(bytes.clone(), index) {
            panic!("{op:?} was sent once and is committed twice, at {before} and {index}");
        }
    }

    /// A client was told that a command without a session is certainly not done.
    pub fn not_done(&mut self, command: &[u8], told: &'static str) {
        if let Ok(Command::Write { request: None, op }) = Command::decode(command)
            && is_unique(&op)
        {
            let place = self.places.get(command);
            assert_eq!(place, None, "{op:?} is committed, and its client was told {told:?}");
            self.not_done.insert(command.into(), told);
        }
    }

    /// Holds an answer that is no failure against the log. Returns the index at which it happened.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(&self, request: &Request, answer: &Answer) -> Result<Index, String> {
        match (request, answer) {
            (Request::Get { key }, Answer::Value { value, index, .. }) => {
                self.check_known(*index)?;
                let expected = self.value_at(key, *index);
                if expected.as_deref() != value.as_deref() {
                    return Err(format!("the value is {expected:?} at {index}"));
                }
                Ok(*index)
            }
            (Request::Write { command }, Answer::Written { outcome, index, .. }) => {
                self.check_known(*index)?;
                match &self.log[*index as usize - 1] {
                    Some((logged, executed)) if *logged == without_stamp(command) => {
                        // The first answer was lost, and a retry learns only that it was done.
                        let is_retry = *outcome == Outcome::Refused(Refusal::AnswerForgotten)
                            && is_forgotten(&executed.1);
                        if *executed != (*index, outcome.clone()) && !is_retry {
                            return Err(format!("the outcome is {executed:?}"));
                        }
                        Ok(*index)
                    }
                    other => Err(format!("{other:?} is at {index}")),
                }
            }
            (Request::Read(op), Answer::Found { found, index, .. }) => {
                self.check_known(*index)?;
                let expected = self.found(op, *index);
                if expected.as_ref() != Some(found) {
                    return Err(format!("{expected:?} is there at {index}"));
                }
                Ok(*index)
            }
            (Request::Digest, Answer::Digest { index, .. }) => {
                self.check_known(*index)?;
                Ok(*index)
            }
            _ => Err("the answer is of another kind than the request".to_owned()),
        }
    }

    fn check_known(&self, index: Index) -> Result<(), String> {
        if index <= self.applied() {
            return Ok(());
        }
        Err(format!("nothing beyond {} is committed", self.applied()))
    }
}

/// Whether a session does not remember it.
fn is_forgotten(outcome: &Outcome) -> bool {
    const STEP_BYTES: usize = 16;
    const ITEM_BYTES: usize = 5;
    let Outcome::Transaction(Some(steps)) = outcome else { return false };
    let bytes = |step: &StepOutcome| match step {
        StepOutcome::Found(Found::Values(values)) => values
            .iter()
            .map(|value| ITEM_BYTES + value.as_ref().map_or(0, |value| value.len()))
            .sum(),
        _ => 0,
    };
    let bytes: usize = steps.iter().map(|step| STEP_BYTES + bytes(step)).sum();
    bytes > SESSION_VALUE_BYTES_MAX
}

/// As clients send it: the leader writes the time into it.
fn without_stamp(command: &Bytes) -> Rc<[u8]> {
    let mut bytes = command.clone();
    Command::stamp(&mut bytes, 0);
    (*bytes).into()
}

/// Whether no client sends it a second time as another command.
fn is_unique(op: &WriteOp<'_>) -> bool {
    match op {
        WriteOp::Delete { .. } | WriteOp::Flush => false,
        WriteOp::Timed { op: TimedOp::Expire { .. } | TimedOp::RemoveExpired { .. }, .. } => false,
        WriteOp::Timed { op: TimedOp::Transaction(transaction), .. } => {
            transaction.steps.iter().any(|step| match step {
                Step::Write(op) => is_unique(&op),
                Step::Timed(op) => is_unique(&WriteOp::Timed { stamp: 0, op }),
                Step::Read(_) => false,
            })
        }
        _ => true,
    }
}
