//! What the committed log means, worked out a second time and simply: every version of every key, every
//! outcome. Answers to clients are held against it.
//!
//! An answer names the log index at which it happened. If it says what was true there, and no answer that
//! was given before a request began names a later index, then the log itself is an order that explains
//! everything clients saw: that is linearizability, checked at each answer.

use raftkv::kv::{self, Answer, Command, Outcome, Refusal, Request, RequestId, WriteOp};
use raftkv::raft::{Entry, Index, Payload};
use std::collections::BTreeMap;
use std::rc::Rc;

type Value = Option<Rc<[u8]>>;

#[derive(Default)]
pub struct Model {
    /// For each key its values, with the index that each begins at.
    versions: BTreeMap<Vec<u8>, Vec<(Index, Value)>>,
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

    /// Keys that ever existed, with their newest value.
    pub fn newest(&self) -> impl Iterator<Item = (&[u8], &Value)> {
        self.versions
            .iter()
            .map(|(key, versions)| (&key[..], &versions.last().expect("a key has a version").1))
    }

    /// The newest request of each session that had one, and what it was answered.
    pub fn newest_requests(&self) -> impl Iterator<Item = (RequestId, kv::Executed)> {
        self.sessions.iter().filter_map(|(session, newest)| {
            let (sequence, (index, outcome)) = newest.clone()?;
            let executed = kv::Executed { index, outcome };
            Some((RequestId { session: *session, sequence }, executed))
        })
    }

    pub fn apply(&mut self, entry: &Entry) {
        assert_eq!(entry.index, self.applied() + 1);
        let Payload::Command(bytes) = &entry.payload else { return self.log.push(None) };
        let command = Command::decode(bytes).expect("what is committed can be read");
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
        self.sessions.insert(id.session, Some((id.sequence, executed.clone())));
        executed
    }

    fn execute(&mut self, index: Index, op: WriteOp<'_>) -> Outcome {
        let current = |model: &Self, key: &[u8]| model.value_at(key, index);
        match op {
            WriteOp::Put { key, value } => {
                self.set(key, index, Some(value));
                Outcome::Put
            }
            WriteOp::Delete { key } => {
                let current = current(self, key);
                if current.is_some() {
                    self.set(key, index, None);
                }
                Outcome::Deleted(current.is_some())
            }
            WriteOp::CompareAndSet { key, expected, value } => {
                let swaps = current(self, key).as_deref() == expected;
                if swaps {
                    self.set(key, index, Some(value));
                }
                Outcome::Swapped(swaps)
            }
            WriteOp::Increment { key, delta } => {
                let number = match current(self, key).as_deref().map(std::str::from_utf8) {
                    None => Some(0),
                    Some(Ok(text)) => text.parse().ok().filter(|n: &i64| n.to_string() == text),
                    Some(Err(_)) => None,
                };
                match number.map(|number| number.checked_add(delta)) {
                    None => Outcome::Refused(Refusal::NotAnInteger),
                    Some(None) => Outcome::Refused(Refusal::Overflow),
                    Some(Some(sum)) => {
                        self.set(key, index, Some(sum.to_string().as_bytes()));
                        Outcome::Counter(sum)
                    }
                }
            }
            other => unreachable!("no client of the simulation sends {other:?}"),
        }
    }

    fn set(&mut self, key: &[u8], index: Index, value: Option<&[u8]>) {
        let existed = self.value_at(key, index).is_some();
        self.keys += i64::from(value.is_some()) - i64::from(existed);
        let versions = self.versions.entry(key.to_vec()).or_default();
        versions.push((index, value.map(Rc::from)));
    }

    /// After everything up to `index` is applied.
    fn value_at(&self, key: &[u8], index: Index) -> Value {
        let versions = self.versions.get(key)?;
        let count = versions.partition_point(|(begins, _)| *begins <= index);
        versions[..count].last()?.1.clone()
    }

    /// Commands without a session are made to be unique, deletions apart, and each is in the log once.
    fn check_once(&mut self, bytes: &Rc<[u8]>, index: Index, op: &WriteOp<'_>) {
        if let WriteOp::Delete { .. } = op {
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
    pub fn not_done(&mut self, command: &Rc<[u8]>, told: &'static str) {
        if let Ok(Command::Write { request: None, op }) = Command::decode(command)
            && !matches!(op, WriteOp::Delete { .. })
        {
            let place = self.places.get(command);
            assert_eq!(place, None, "{op:?} is committed, and its client was told {told:?}");
            self.not_done.insert(command.clone(), told);
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
                if expected != *value {
                    return Err(format!("the value is {expected:?} at {index}"));
                }
                Ok(*index)
            }
            (Request::Write { command }, Answer::Written { outcome, index, .. }) => {
                self.check_known(*index)?;
                match &self.log[*index as usize - 1] {
                    Some((logged, executed)) if logged == command => {
                        if *executed != (*index, outcome.clone()) {
                            return Err(format!("the outcome is {executed:?}"));
                        }
                        Ok(*index)
                    }
                    other => Err(format!("{other:?} is at {index}")),
                }
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
