//! The state machine over any log, against a plain map.
//!
//! Input: entries. Each begins with a byte: 0, a no-op; 1, the bytes of a command as they are (a length, the
//! bytes); from 2 on, a command put together from the bytes that follow.

use super::input::Input;
use raftkv::kv::{
    Blobs, Command, Condition, EXPIRES_AT_MAX, Executed, Expiry, Found, Machine, Outcome, ReadOp,
    Refusal, RequestId, SESSION_VALUE_BYTES_MAX, Step, StepOutcome, TimeCondition, TimedOp,
    Transaction, WriteOp, parse_integer,
};
use raftkv::raft::{Entry, Index, Payload};
use std::collections::BTreeMap;

pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let (mut machine, mut model) = (Machine::default(), Model::default());
    while !input.is_empty() {
        let index = machine.applied() + 1;
        let payload = choose_payload(&mut input);
        let entry = Entry { term: 1, index, payload };
        match (machine.apply(&entry), &entry.payload) {
            (Ok(executed), Payload::Noop) => assert_eq!(executed, None),
            (Ok(executed), Payload::Command(bytes)) => {
                let command = Command::decode(bytes).expect("it was applied");
                assert_eq!(command.to_bytes(), **bytes, "a command has one encoding");
                let actual = executed.expect("a command has an outcome");
                assert_eq!(actual, model.execute(index, command, &actual), "{command:?}");
            }
            (Err(_), Payload::Command(bytes)) => {
                assert!(Command::decode(bytes).is_err());
                assert_eq!(machine.applied(), index - 1);
            }
            (_, Payload::Members(_)) => unreachable!("none was chosen"),
            (Err(malformed), Payload::Noop) => panic!("{malformed}"),
        }
    }
    model.check(&machine);
}

pub fn choose_payload(input: &mut Input<'_>) -> Payload {
    let kind = input.byte();
    match kind {
        0 => return Payload::Noop,
        1 => return Payload::Command(input.blob().into()),
        _ => {}
    }
    // Few keys, values and sessions, so that commands meet.
    let request = (kind % 2 == 1).then(|| RequestId {
        session: u64::from(input.byte() % 8) + 1,
        sequence: u64::from(input.byte() % 8),
    });
    let key = &b"key"[..usize::from(input.byte() % 4)];
    // Kinds beyond the first five have their own numbers, so that inputs that are kept mean what they
    // meant.
    let many;
    let op = match if kind < 200 { kind / 2 % 5 } else { 5 + kind / 2 % 5 } {
        0 => return Payload::Command(Command::OpenSession.to_bytes().into()),
        1 => WriteOp::Put { key, value: input.blob() },
        2 => WriteOp::Delete { key },
        3 => {
            let expected = (input.byte() % 2 == 1).then(|| input.blob());
            WriteOp::CompareAndSet { key, expected, value: input.blob() }
        }
        4 => {
            let mut delta = [0; 8];
            input.take(8).iter().zip(&mut delta).for_each(|(byte, to)| *to = *byte);
            WriteOp::Increment { key, delta: i64::from_be_bytes(delta) }
        }
        5 => {
            let condition = match input.byte() % 4 {
                0 => Condition::Always,
                1 => Condition::Absent,
                2 => Condition::Present,
                _ => Condition::Equals(input.blob()),
            };
            WriteOp::Set { key, condition, get: input.byte() % 2 == 1, value: input.blob() }
        }
        6 => {
            let expected = (input.byte() % 2 == 1).then(|| input.blob());
            WriteOp::Remove { key, expected, get: input.byte() % 2 == 1 }
        }
        7 => {
            let (one, other) = (input.blob(), input.blob());
            many = Blobs::to_bytes([key, one, &b"ke"[..], other]);
            WriteOp::PutMany { pairs: Blobs::new(&many).expect("just encoded") }
        }
        8 => {
            many = Blobs::to_bytes([key, &b"ke"[..], key]);
            WriteOp::DeleteMany { keys: Blobs::new(&many).expect("just encoded") }
        }
        _ => {
            let bytes_max = u32::from(input.byte());
            WriteOp::Append { key, bytes_max, value: input.blob() }
        }
    };
    Payload::Command(Command::Write { request, op }.to_bytes().into())
}

/// What the commands mean, in the plainest way.
#[derive(Clone, Default)]
struct Model {
    map: BTreeMap<Vec<u8>, Known>,
    clock: u64,
    /// The newest request of each session, if there was one yet.
    sessions: BTreeMap<u64, Option<(u64, Executed)>>,
}

#[derive(Clone)]
struct Known {
    value: Vec<u8>,
    modified: Index,
    /// 0: never.
    expires_at: u64,
}

impl Model {
    /// `actual` is what the machine says; of a transaction it is believed what it found in ranges, and that
    /// it was too large.
    fn execute(&mut self, index: Index, command: Command<'_>, actual: &Executed) -> Executed {
        let Command::Write { request, op } = command else {
            self.sessions.insert(index, None);
            return Executed { index, outcome: Outcome::SessionOpened { session: index } };
        };
        let refused = |refusal| Executed { index, outcome: Outcome::Refused(refusal) };
        let Some(RequestId { session, sequence }) = request else {
            return Executed { index, outcome: self.write(op, index, &actual.outcome) };
        };
        match self.sessions.get(&session) {
            None => refused(Refusal::UnknownSession),
            Some(Some((newest, executed))) if *newest == sequence => executed.clone(),
            Some(Some((newest, _))) if *newest > sequence => refused(Refusal::StaleSequence),
            Some(_) => {
                let outcome = self.write(op, index, &actual.outcome);
                let executed = Executed { index, outcome };
                let mut remembered = executed.clone();
                let is_long = match &remembered.outcome {
                    Outcome::Changed { old: Some(old), .. } => old.len() > SESSION_VALUE_BYTES_MAX,
                    Outcome::Transaction(Some(steps)) => {
                        steps.iter().map(step_bytes).sum::<usize>() > SESSION_VALUE_BYTES_MAX
                    }
                    _ => false,
                };
                if is_long {
                    remembered.outcome = Outcome::Refused(Refusal::AnswerForgotten);
                }
                self.sessions.insert(session, Some((sequence, remembered)));
                executed
            }
        }
    }

    fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.map.get(key).map(|known| known.value.clone())
    }

    fn put(&mut self, key: &[u8], value: &[u8], expires_at: u64, modified: Index) {
        self.map.insert(key.to_vec(), Known { value: value.to_vec(), modified, expires_at });
    }

    fn expires_at(&self, key: &[u8]) -> u64 {
        self.map.get(key).map_or(0, |known| known.expires_at)
    }

    /// `None`: it goes at once.
    fn fate(&self, expiry: Expiry, current: u64) -> Option<u64> {
        let at = match expiry {
            Expiry::Never => return Some(0),
            Expiry::Keep => return Some(current),
            Expiry::After(after) => i128::from(self.clock) + i128::from(after),
            Expiry::At(at) => i128::from(at),
        };
        let is_over = at <= i128::from(self.clock);
        (!is_over).then(|| u64::try_from(at).unwrap().min(EXPIRES_AT_MAX))
    }

    fn write(&mut self, op: WriteOp<'_>, index: Index, actual: &Outcome) -> Outcome {
        match op {
            WriteOp::Put { key, value } => {
                self.put(key, value, 0, index);
                Outcome::Put
            }
            WriteOp::Delete { key } => Outcome::Deleted(self.map.remove(key).is_some()),
            WriteOp::CompareAndSet { key, expected, value: new } => {
                let matches = self.value(key).as_deref() == expected;
                if matches {
                    self.put(key, new, 0, index);
                }
                Outcome::Swapped(matches)
            }
            WriteOp::Increment { key, delta } => {
                let Some(number) = self.value(key).map_or(Some(0), |value| parse_integer(&value))
                else {
                    return Outcome::Refused(Refusal::NotAnInteger);
                };
                let Ok(sum) = i64::try_from(i128::from(number) + i128::from(delta)) else {
                    return Outcome::Refused(Refusal::Overflow);
                };
                self.put(key, sum.to_string().as_bytes(), self.expires_at(key), index);
                Outcome::Counter(sum)
            }
            WriteOp::Set { key, value, condition, get } => {
                self.set(key, value, condition, get, Expiry::Never, index)
            }
            WriteOp::Remove { key, expected, get } => {
                let old = self.value(key);
                let fits = expected.is_none() || old.as_deref() == expected;
                let done = fits && self.map.remove(key).is_some();
                Outcome::Changed { done, old: old.filter(|_| get).map(Into::into) }
            }
            WriteOp::PutMany { pairs } => {
                for (key, value) in pairs.pairs() {
                    self.put(key, value, 0, index);
                }
                Outcome::Put
            }
            WriteOp::DeleteMany { keys } => {
                let removed = keys.iter().filter(|key| self.map.remove(*key).is_some()).count();
                Outcome::Counter(removed as i64)
            }
            WriteOp::Append { key, value, bytes_max } => {
                let mut whole = self.value(key).unwrap_or_default();
                whole.extend_from_slice(value);
                if whole.len() > bytes_max as usize {
                    return Outcome::Refused(Refusal::TooLong);
                }
                let length = whole.len() as i64;
                self.put(key, &whole, self.expires_at(key), index);
                Outcome::Counter(length)
            }
            WriteOp::Flush => {
                self.map.clear();
                Outcome::Put
            }
            WriteOp::Timed { stamp, op } => {
                self.clock = self.clock.max(stamp);
                self.timed(op, index, actual)
            }
        }
    }

    fn set(
        &mut self,
        key: &[u8],
        value: &[u8],
        condition: Condition<'_>,
        get: bool,
        expiry: Expiry,
        index: Index,
    ) -> Outcome {
        let old = self.value(key);
        let done = match condition {
            Condition::Always => true,
            Condition::Absent => old.is_none(),
            Condition::Present => old.is_some(),
            Condition::Equals(expected) => old.as_deref() == Some(expected),
        };
        match self.fate(expiry, self.expires_at(key)) {
            _ if !done => {}
            Some(at) => self.put(key, value, at, index),
            None => drop(self.map.remove(key)),
        }
        Outcome::Changed { done, old: old.filter(|_| get).map(Into::into) }
    }

    fn timed(&mut self, op: TimedOp<'_>, index: Index, actual: &Outcome) -> Outcome {
        match op {
            TimedOp::Set { key, value, condition, get, expiry } => {
                self.set(key, value, condition, get, expiry, index)
            }
            TimedOp::Expire { key, expiry, condition, get } => {
                let Some(known) = self.map.get(key).cloned() else {
                    return Outcome::Changed { done: false, old: None };
                };
                let (current, fate) = (known.expires_at, self.fate(expiry, known.expires_at));
                // Never is later than any time.
                let late = |at: u64| if at == 0 { u128::MAX } else { at.into() };
                let wanted = fate.map_or(0, late);
                let holds = match condition {
                    TimeCondition::Always => true,
                    TimeCondition::Nx => current == 0,
                    TimeCondition::Xx => current != 0,
                    TimeCondition::Gt => wanted > late(current),
                    TimeCondition::Lt => wanted < late(current) || current == 0,
                    TimeCondition::XxLt => current != 0 && wanted < late(current),
                };
                let done = holds && (current != 0 || fate != Some(0));
                match fate {
                    _ if !done => {}
                    Some(at) => self.put(key, &known.value, at, index),
                    None => drop(self.map.remove(key)),
                }
                Outcome::Changed { done, old: get.then(|| known.value.into()) }
            }
            TimedOp::RemoveExpired { keys_max } => {
                let due = |known: &Known| (1..=self.clock).contains(&known.expires_at);
                let mut keys: Vec<(u64, Vec<u8>)> = self
                    .map
                    .iter()
                    .filter(|(_, known)| due(known))
                    .map(|(key, known)| (known.expires_at, key.clone()))
                    .collect();
                keys.sort();
                keys.truncate(keys_max as usize);
                keys.iter().for_each(|(_, key)| drop(self.map.remove(key)));
                Outcome::Counter(keys.len() as i64)
            }
            TimedOp::Transaction(transaction) => self.together(transaction, index, actual),
        }
    }

    fn together(&mut self, op: Transaction<'_>, index: Index, actual: &Outcome) -> Outcome {
        let modified = |key: &[u8]| self.map.get(key).map_or(0, |known| known.modified);
        if op.watched.iter().any(|(key, index)| modified(key) != index) {
            return Outcome::Transaction(None);
        }
        let Outcome::Transaction(Some(actual)) = actual else {
            // The least that its steps answer is known; the rest is a matter of counting.
            assert!(op.steps.count() > 0, "nothing is never too much");
            return Outcome::Refused(Refusal::TransactionTooLarge);
        };
        let bytes: usize = actual.iter().map(step_bytes).sum();
        assert!(bytes <= op.answer_bytes_max as usize, "{bytes} bytes are too many");
        let mut outcomes = Vec::new();
        for (step, actual) in op.steps.iter().zip(actual) {
            outcomes.push(match (step, actual) {
                (Step::Write(op), StepOutcome::Written(actual)) => {
                    StepOutcome::Written(self.write(op, index, actual))
                }
                (Step::Timed(op), StepOutcome::Written(actual)) => {
                    StepOutcome::Written(self.timed(op, index, actual))
                }
                (Step::Read(op), StepOutcome::Found(actual)) => {
                    StepOutcome::Found(self.read(&op, actual))
                }
                (step, actual) => panic!("{step:?} is answered with {actual:?}"),
            });
        }
        Outcome::Transaction(Some(outcomes))
    }

    fn read(&self, op: &ReadOp, actual: &Found) -> Found {
        match op {
            ReadOp::Values(keys) => {
                Found::Values(keys.iter().map(|key| Some(self.value(key)?.into())).collect())
            }
            ReadOp::Lengths(keys) => {
                let length = |known: &Known| known.value.len() as u32;
                Found::Lengths(keys.iter().map(|key| self.map.get(&**key).map(length)).collect())
            }
            ReadOp::Versions(keys) => {
                let modified = |key: &std::rc::Rc<[u8]>| {
                    self.map.get(&**key).map_or(0, |known| known.modified)
                };
                Found::Versions(keys.iter().map(modified).collect())
            }
            ReadOp::Expiry(key) => {
                let expires_at = self.map.get(&**key).map(|known| known.expires_at);
                Found::Expiry { expires_at, now: self.clock }
            }
            ReadOp::Range(_) | ReadOp::RandomKey | ReadOp::Digest => actual.clone(),
        }
    }

    fn check(&self, machine: &Machine) {
        let store = machine.store();
        for (key, known) in &self.map {
            let item = store.item(key).expect("a key that was written");
            assert_eq!(&*item.value, known.value.as_slice());
            assert_eq!((item.modified, item.expires_at), (known.modified, known.expires_at));
        }
        let bytes: usize = self.map.iter().map(|(key, known)| key.len() + known.value.len()).sum();
        assert_eq!((store.len(), store.bytes()), (self.map.len(), bytes));
        assert_eq!(machine.clock_ms(), self.clock);
        assert_eq!(machine.sessions().len(), self.sessions.len());
        assert_eq!(store.digest(), self.digest_of_puts(), "the digest remembers how it came about");
    }

    fn digest_of_puts(&self) -> u64 {
        let mut machine = Machine::default();
        for (index, (key, Known { value, expires_at, .. })) in (1..).zip(&self.map) {
            let expiry = match *expires_at {
                0 => Expiry::Never,
                at => Expiry::At(at as i64),
            };
            let op = TimedOp::Set { key, value, condition: Condition::Always, get: false, expiry };
            let put = Command::Write { request: None, op: WriteOp::Timed { stamp: 0, op } };
            let entry = Entry { term: 1, index, payload: Payload::Command(put.to_bytes().into()) };
            machine.apply(&entry).expect("a command that was just written");
        }
        machine.store().digest()
    }
}

/// What the answer to a step counts for.
fn step_bytes(outcome: &StepOutcome) -> usize {
    16 + match outcome {
        StepOutcome::Written(Outcome::Changed { old: Some(old), .. }) => old.len(),
        StepOutcome::Written(_) => 0,
        StepOutcome::Found(Found::Values(values)) => {
            values.iter().map(|value| 5 + value.as_ref().map_or(0, |value| value.len())).sum()
        }
        StepOutcome::Found(Found::Lengths(lengths)) => 5 * lengths.len(),
        StepOutcome::Found(Found::Versions(versions)) => 8 * versions.len(),
        StepOutcome::Found(Found::Keys { items, next }) => {
            let items: usize = items.iter().map(|item| 5 + item.len()).sum();
            items + 5 + next.as_ref().map_or(0, |next| next.len())
        }
        StepOutcome::Found(Found::Expiry { .. } | Found::Digest { .. }) => 16,
    }
}
