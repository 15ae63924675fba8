//! What the clients saw, judged from outside: without the log, by the times of calls and returns alone.

use super::clients::Record;
use super::world::World;
use raftkv::kv::{
    Answer, Command, Expiry, Found, Outcome, ReadOp, Refusal, Request, Step, StepOutcome, TimedOp,
    WriteOp,
};
use raftkv::linearizable::{self, Call, Op, Res};

/// Most states that the search for an order may visit for one key. Histories in which more would be needed
/// are left to the check of each answer against the log.
const STATES_MAX: usize = 200_000;

impl World {
    /// Returns whether an order of all operations was found, or else that none was ruled out.
    pub fn check_history(&self) -> bool {
        let unanswered = self.clients.unanswered();
        let records = self.clients.history.iter().chain(&unanswered);
        let keys: Vec<Vec<u8>> = self.judge.model.newest().map(|(key, _)| key.to_vec()).collect();
        let ops: Vec<Op> = records.flat_map(|record| ops(record, &keys)).collect();
        match linearizable::check_within(&ops, STATES_MAX) {
            Ok(()) => true,
            Err(violation) if violation.is_undecided() => false,
            Err(violation) => panic!("linearizability: {violation}"),
        }
    }
}

/// What it does to each key. That several happen at once is not seen here; the log shows it.
fn ops(record: &Record, keys: &[Vec<u8>]) -> Vec<Op> {
    let answer = record.answer.as_ref().map(|(_, answer)| answer);
    match &record.request {
        Request::Digest | Request::Backup(_) | Request::Member(_) | Request::Read(_) => Vec::new(),
        Request::Get { key } => {
            let result = answer.map(|answer| match answer {
                Answer::Value { value, .. } => value_read(value.as_deref()),
                other => unreachable!("{other:?} is not a value"),
            });
            vec![op(record, key, Call::Get, result)]
        }
        Request::Write { command } => {
            let Ok(Command::Write { op, .. }) = Command::decode(command) else { return Vec::new() };
            let outcome = answer.map(|answer| match answer {
                Answer::Written { outcome, .. } => outcome,
                other => unreachable!("{other:?} is not about a write"),
            });
            write_ops(record, keys, op, outcome)
        }
    }
}

fn op(record: &Record, key: &[u8], call: Call, result: Option<Res>) -> Op {
    let at = record.answer.as_ref().map(|(at, _)| *at);
    Op {
        client: record.client as u32,
        key: key.to_vec(),
        call,
        invoked: record.invoked,
        returned: at.filter(|_| result.is_some()),
        result,
    }
}

fn write_ops(
    record: &Record,
    keys: &[Vec<u8>],
    wanted: WriteOp<'_>,
    outcome: Option<&Outcome>,
) -> Vec<Op> {
    let (key, call) = match wanted {
        WriteOp::Put { key, value } => (key, Call::Put(value.to_vec())),
        WriteOp::Delete { key } => (key, Call::Delete),
        WriteOp::CompareAndSet { key, expected, value } => {
            let expected = expected.map(<[u8]>::to_vec);
            (key, Call::CompareAndSet { expected, value: value.to_vec() })
        }
        WriteOp::Increment { key, delta } => (key, Call::Increment(delta)),
        WriteOp::Flush => {
            let result = outcome.map(|_| Res::Put);
            return keys.iter().map(|key| op(record, key, Call::Clear, result.clone())).collect();
        }
        WriteOp::Timed { op, .. } => return timed_ops(record, keys, op, outcome),
        other => unreachable!("no client of the simulation sends {other:?}"),
    };
    vec![op(record, key, call, outcome.map(result))]
}

fn timed_ops(
    record: &Record,
    keys: &[Vec<u8>],
    wanted: TimedOp<'_>,
    outcome: Option<&Outcome>,
) -> Vec<Op> {
    match wanted {
        TimedOp::Set { key, value, .. } => {
            let put = op(record, key, Call::Put(value.to_vec()), outcome.map(|_| Res::Put));
            vec![put, goes_by_itself(record, key)]
        }
        TimedOp::Expire { key, expiry: Expiry::After(_), .. } => vec![goes_by_itself(record, key)],
        TimedOp::Transaction(transaction) => {
            let outcomes = match outcome {
                None => None,
                Some(Outcome::Transaction(Some(outcomes))) => Some(outcomes),
                // It is done; what its steps were answered is lost.
                Some(Outcome::Refused(Refusal::AnswerForgotten)) => None,
                Some(_) => return Vec::new(),
            };
            let of_step = |(at, step): (usize, Step<'_>)| {
                let outcome = outcomes.map(|outcomes| &outcomes[at]);
                step_ops(record, keys, step, outcome)
            };
            transaction.steps.iter().enumerate().flat_map(of_step).collect()
        }
        _ => Vec::new(),
    }
}

fn step_ops(
    record: &Record,
    keys: &[Vec<u8>],
    step: Step<'_>,
    outcome: Option<&StepOutcome>,
) -> Vec<Op> {
    let written = outcome.and_then(|outcome| match outcome {
        StepOutcome::Written(outcome) => Some(outcome),
        StepOutcome::Found(_) => None,
    });
    match (step, outcome) {
        (Step::Write(op), _) => write_ops(record, keys, op, written),
        (Step::Timed(op), _) => timed_ops(record, keys, op, written),
        (Step::Read(ReadOp::Values(read)), Some(StepOutcome::Found(Found::Values(values)))) => read
            .iter()
            .zip(values)
            .map(|(key, value)| op(record, key, Call::Get, Some(value_read(value.as_deref()))))
            .collect(),
        (Step::Read(_), _) => Vec::new(),
    }
}

/// At any moment from then on, or never: clocks are another matter.
fn goes_by_itself(record: &Record, key: &[u8]) -> Op {
    op(record, key, Call::Delete, None)
}

fn value_read(value: Option<&[u8]>) -> Res {
    Res::Value(value.map(<[u8]>::to_vec))
}

fn result(outcome: &Outcome) -> Res {
    match outcome {
        Outcome::Put => Res::Put,
        Outcome::Deleted(existed) => Res::Deleted(*existed),
        Outcome::Swapped(swapped) => Res::Swapped(*swapped),
        Outcome::Counter(sum) => Res::Counter(*sum),
        Outcome::Refused(Refusal::NotAnInteger) => Res::NotAnInteger,
        Outcome::Refused(Refusal::Overflow) => Res::Overflow,
        other => unreachable!("{other:?} is not about a key"),
    }
}
