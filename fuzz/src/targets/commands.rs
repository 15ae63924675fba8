//! The state machine over any log, against a plain map.
//!
//! Input: entries. Each begins with a byte: 0, a no-op; 1, the bytes of a command as they are (a length, the
//! bytes); from 2 on, a command put together from the bytes that follow.

use super::input::Input;
use raftkv::kv::{
    Blobs, Command, Condition, Executed, Machine, Outcome, Refusal, RequestId,
    SESSION_VALUE_BYTES_MAX, WriteOp, parse_integer,
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
                assert_eq!(executed, Some(model.execute(index, command)), "{command:?}");
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
#[derive(Default)]
struct Model {
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The newest request of each session, if there was one yet.
    sessions: BTreeMap<u64, Option<(u64, Executed)>>,
}

impl Model {
    fn execute(&mut self, index: Index, command: Command<'_>) -> Executed {
        let Command::Write { request, op } = command else {
            self.sessions.insert(index, None);
            return Executed { index, outcome: Outcome::SessionOpened { session: index } };
        };
        let refused = |refusal| Executed { index, outcome: Outcome::Refused(refusal) };
        let Some(RequestId { session, sequence }) = request else {
            return Executed { index, outcome: self.write(op) };
        };
        match self.sessions.get(&session) {
            None => refused(Refusal::UnknownSession),
            Some(Some((newest, executed))) if *newest == sequence => executed.clone(),
            Some(Some((newest, _))) if *newest > sequence => refused(Refusal::StaleSequence),
            Some(_) => {
                let executed = Executed { index, outcome: self.write(op) };
                let mut remembered = executed.clone();
                if let Outcome::Changed { old: Some(old), .. } = &remembered.outcome
                    && old.len() > SESSION_VALUE_BYTES_MAX
                {
                    remembered.outcome = Outcome::Refused(Refusal::AnswerForgotten);
                }
                self.sessions.insert(session, Some((sequence, remembered)));
                executed
            }
        }
    }

    fn write(&mut self, op: WriteOp<'_>) -> Outcome {
        match op {
            WriteOp::Put { key, value } => {
                self.map.insert(key.to_vec(), value.to_vec());
                Outcome::Put
            }
            WriteOp::Delete { key } => Outcome::Deleted(self.map.remove(key).is_some()),
            WriteOp::CompareAndSet { key, expected, value: new } => {
                let matches = self.map.get(key).map(Vec::as_slice) == expected;
                if matches {
                    self.map.insert(key.to_vec(), new.to_vec());
                }
                Outcome::Swapped(matches)
            }
            WriteOp::Increment { key, delta } => {
                let Some(number) = self.map.get(key).map_or(Some(0), |value| parse_integer(value))
                else {
                    return Outcome::Refused(Refusal::NotAnInteger);
                };
                let Ok(sum) = i64::try_from(i128::from(number) + i128::from(delta)) else {
                    return Outcome::Refused(Refusal::Overflow);
                };
                self.map.insert(key.to_vec(), sum.to_string().into_bytes());
                Outcome::Counter(sum)
            }
            WriteOp::Set { key, value, condition, get } => {
                let old = self.map.get(key).cloned();
                let done = match condition {
                    Condition::Always => true,
                    Condition::Absent => old.is_none(),
                    Condition::Present => old.is_some(),
                    Condition::Equals(expected) => old.as_deref() == Some(expected),
                };
                if done {
                    self.map.insert(key.to_vec(), value.to_vec());
                }
                Outcome::Changed { done, old: old.filter(|_| get).map(Into::into) }
            }
            WriteOp::Remove { key, expected, get } => {
                let old = self.map.get(key).cloned();
                let fits = expected.is_none() || old.as_deref() == expected;
                let done = fits && self.map.remove(key).is_some();
                Outcome::Changed { done, old: old.filter(|_| get).map(Into::into) }
            }
            WriteOp::PutMany { pairs } => {
                for (key, value) in pairs.pairs() {
                    self.map.insert(key.to_vec(), value.to_vec());
                }
                Outcome::Put
            }
            WriteOp::DeleteMany { keys } => {
                let removed = keys.iter().filter(|key| self.map.remove(*key).is_some()).count();
                Outcome::Counter(removed as i64)
            }
            WriteOp::Append { key, value, bytes_max } => {
                let mut whole = self.map.get(key).cloned().unwrap_or_default();
                whole.extend_from_slice(value);
                if whole.len() > bytes_max as usize {
                    return Outcome::Refused(Refusal::TooLong);
                }
                let length = whole.len() as i64;
                self.map.insert(key.to_vec(), whole);
                Outcome::Counter(length)
            }
        }
    }

    fn check(&self, machine: &Machine) {
        let store = machine.store();
        for (key, value) in &self.map {
            assert_eq!(store.get(key).as_deref(), Some(value.as_slice()));
        }
        let bytes: usize = self.map.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert_eq!((store.len(), store.bytes()), (self.map.len(), bytes));
        assert_eq!(machine.sessions().len(), self.sessions.len());
        assert_eq!(store.digest(), self.digest_of_puts(), "the digest remembers how it came about");
    }

    fn digest_of_puts(&self) -> u64 {
        let mut machine = Machine::default();
        for (index, (key, value)) in (1..).zip(&self.map) {
            let put = Command::Write { request: None, op: WriteOp::Put { key, value } };
            let entry = Entry { term: 1, index, payload: Payload::Command(put.to_bytes().into()) };
            machine.apply(&entry).expect("a command that was just written");
        }
        machine.store().digest()
    }
}
