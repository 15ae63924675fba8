//! The state machine over any log, against a plain map.
//!
//! Input: entries. Each begins with a byte: 0, a no-op; 1, the bytes of a command as they are (a length, the
//! bytes); from 2 on, a command put together from the bytes that follow.

use super::input::Input;
use raftkv::kv::{Command, Executed, Machine, Outcome, Refusal, RequestId, WriteOp, parse_integer};
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
    let op = match kind / 2 % 5 {
        0 => return Payload::Command(Command::OpenSession.to_bytes().into()),
        1 => WriteOp::Put { key, value: input.blob() },
        2 => WriteOp::Delete { key },
        3 => {
            let expected = (input.byte() % 2 == 1).then(|| input.blob());
            WriteOp::CompareAndSet { key, expected, value: input.blob() }
        }
        _ => {
            let mut delta = [0; 8];
            input.take(8).iter().zip(&mut delta).for_each(|(byte, to)| *to = *byte);
            WriteOp::Increment { key, delta: i64::from_be_bytes(delta) }
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
            Some(Some((newest, executed))) if *newest == sequence => *executed,
            Some(Some((newest, _))) if *newest > sequence => refused(Refusal::StaleSequence),
            Some(_) => {
                let executed = Executed { index, outcome: self.write(op) };
                self.sessions.insert(session, Some((sequence, executed)));
                executed
            }
        }
    }

    fn write(&mut self, op: WriteOp<'_>) -> Outcome {
        let value = self.map.get(op.key());
        match op {
            WriteOp::Put { key, value } => {
                self.map.insert(key.to_vec(), value.to_vec());
                Outcome::Put
            }
            WriteOp::Delete { key } => Outcome::Deleted(self.map.remove(key).is_some()),
            WriteOp::CompareAndSet { key, expected, value: new } => {
                let matches = value.map(Vec::as_slice) == expected;
                if matches {
                    self.map.insert(key.to_vec(), new.to_vec());
                }
                Outcome::Swapped(matches)
            }
            WriteOp::Increment { key, delta } => {
                let Some(number) = value.map_or(Some(0), |value| parse_integer(value)) else {
                    return Outcome::Refused(Refusal::NotAnInteger);
                };
                let Ok(sum) = i64::try_from(i128::from(number) + i128::from(delta)) else {
                    return Outcome::Refused(Refusal::Overflow);
                };
                self.map.insert(key.to_vec(), sum.to_string().into_bytes());
                Outcome::Counter(sum)
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
