//! What the clients saw, judged from outside: without the log, by the times of calls and returns alone.

use super::clients::Record;
use super::world::World;
use raftkv::kv::{Answer, Command, Outcome, Refusal, Request, WriteOp};
use raftkv::linearizable::{self, Call, Op, Res};

/// Most states that the search for an order may visit for one key. Histories in which more would be needed
/// are left to the check of each answer against the log.
const STATES_MAX: usize = 200_000;

impl World {
    /// Returns whether an order of all operations was found, or else that none was ruled out.
    pub fn check_history(&self) -> bool {
        let unanswered = self.clients.unanswered();
        let ops: Vec<Op> = self.clients.history.iter().chain(&unanswered).filter_map(op).collect();
        match linearizable::check_within(&ops, STATES_MAX) {
            Ok(()) => true,
            Err(violation) if violation.is_undecided() => false,
            Err(violation) => panic!("linearizability: {violation}"),
        }
    }
}

/// `None`: not about a key.
fn op(record: &Record) -> Option<Op> {
    let (key, call) = match &record.request {
        Request::Read(_) => unreachable!("no client of the simulation reads several keys"),
        Request::Digest | Request::Backup(_) | Request::Member(_) => return None,
        Request::Get { key } => (key.to_vec(), Call::Get),
        Request::Write { command } => write_call(command)?,
    };
    let result = record.answer.as_ref().map(|(_, answer)| result(answer));
    Some(Op {
        client: record.client as u32,
        key,
        call,
        invoked: record.invoked,
        returned: record.answer.as_ref().map(|(at, _)| *at),
        result,
    })
}

fn write_call(command: &[u8]) -> Option<(Vec<u8>, Call)> {
    let Ok(Command::Write { op, .. }) = Command::decode(command) else { return None };
    let (key, call) = match op {
        WriteOp::Put { key, value } => (key, Call::Put(value.to_vec())),
        WriteOp::Delete { key } => (key, Call::Delete),
        WriteOp::CompareAndSet { key, expected, value } => {
            let expected = expected.map(<[u8]>::to_vec);
            (key, Call::CompareAndSet { expected, value: value.to_vec() })
        }
        WriteOp::Increment { key, delta } => (key, Call::Increment(delta)),
        other => unreachable!("no client of the simulation sends {other:?}"),
    };
    Some((key.to_vec(), call))
}

fn result(answer: &Answer) -> Res {
    match answer {
        Answer::Value { value, .. } => Res::Value(value.as_ref().map(|value| value.to_vec())),
        Answer::Written { outcome, .. } => match outcome {
            Outcome::Put => Res::Put,
            Outcome::Deleted(existed) => Res::Deleted(*existed),
            Outcome::Swapped(swapped) => Res::Swapped(*swapped),
            Outcome::Counter(sum) => Res::Counter(*sum),
            Outcome::Refused(Refusal::NotAnInteger) => Res::NotAnInteger,
            Outcome::Refused(Refusal::Overflow) => Res::Overflow,
            other => unreachable!("{other:?} is not about a key"),
        },
        other => unreachable!("{other:?} is not about a key"),
    }
}
