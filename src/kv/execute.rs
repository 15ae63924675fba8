//! What operations do to the store.

use super::read::Budget;
use super::timed::Fate;
use super::work::OP_WORK;
use super::{
    Condition, Expiry, Outcome, Refusal, Step, StepOutcome, Store, TimeCondition, TimedOp,
    Transaction, WriteOp,
};
use crate::raft::Index;

/// When an operation is carried out, as the log says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Of its entry.
    pub index: Index,
    /// In milliseconds of Unix time.
    pub now_ms: u64,
}

impl Store {
    pub fn apply(&mut self, op: WriteOp<'_>, at: Moment) -> Outcome {
        match op {
            WriteOp::Put { key, value } => {
                self.put(key, value, 0, at.index);
                Outcome::Put
            }
            WriteOp::Delete { key } => Outcome::Deleted(self.delete(key)),
            WriteOp::Set { key, value, condition, get } => {
                self.set(key, value, condition, get, Expiry::Never, at)
            }
            WriteOp::Remove { key, expected, get } => {
                let old = self.item(key).map(|item| &*item.value);
                let done = old.is_some() && (expected.is_none() || old == expected);
                let old = if get { self.get(key) } else { None };
                if done {
                    self.delete(key);
                }
                Outcome::Changed { done, old }
            }
            WriteOp::PutMany { pairs } => {
                pairs.pairs().for_each(|(key, value)| self.put(key, value, 0, at.index));
                Outcome::Put
            }
            WriteOp::DeleteMany { keys } => {
                let removed = keys.iter().filter(|key| self.delete(key)).count();
                Outcome::Counter(removed as i64)
            }
            WriteOp::Append { key, value, bytes_max } => self.append(key, value, bytes_max, at),
            WriteOp::CompareAndSet { key, expected, value } => {
                let matches = self.item(key).map(|item| &*item.value) == expected;
                if matches {
                    self.put(key, value, 0, at.index);
                }
                Outcome::Swapped(matches)
            }
            WriteOp::Increment { key, delta } => self.increment(key, delta, at),
            WriteOp::Flush => {
                self.flush();
                Outcome::Put
            }
            WriteOp::Timed { op, .. } => self.apply_timed(op, at),
        }
    }

    fn apply_timed(&mut self, op: TimedOp<'_>, at: Moment) -> Outcome {
        match op {
            TimedOp::Set { key, value, condition, get, expiry } => {
                self.set(key, value, condition, get, expiry, at)
            }
            TimedOp::Expire { key, expiry, condition, get } => {
                self.expire(key, expiry, condition, get, at)
            }
            TimedOp::RemoveExpired { keys_max } => self.remove_expired(keys_max, at.now_ms),
            TimedOp::Transaction(transaction) => self.carry_out(transaction, at),
        }
    }

    fn expires_at(&self, key: &[u8]) -> u64 {
        self.item(key).map_or(0, |item| item.expires_at)
    }

    fn set(
        &mut self,
        key: &[u8],
        value: &[u8],
        condition: Condition<'_>,
        get: bool,
        expiry: Expiry,
        at: Moment,
    ) -> Outcome {
        let done = condition.holds(self.item(key).map(|item| &*item.value));
        let old = if get { self.get(key) } else { None };
        if done {
            match expiry.fate(self.expires_at(key), at.now_ms) {
                Fate::Until(expires_at) => self.put(key, value, expires_at, at.index),
                // As if it were written, and its time had come.
                Fate::Gone => {
                    self.delete(key);
                }
            }
        }
        Outcome::Changed { done, old }
    }

    fn expire(
        &mut self,
        key: &[u8],
        expiry: Expiry,
        condition: TimeCondition,
        get: bool,
        at: Moment,
    ) -> Outcome {
        let Some(item) = self.item(key) else {
            return Outcome::Changed { done: false, old: None };
        };
        let current = item.expires_at;
        let old = get.then(|| item.value.clone());
        let fate = expiry.fate(current, at.now_ms);
        // To make a key stay that stays anyway is no change.
        let done = condition.holds(current, fate) && (current, fate) != (0, Fate::Until(0));
        if done {
            match fate {
                Fate::Until(expires_at) => self.reschedule(key, expires_at, at.index),
                Fate::Gone => {
                    self.delete(key);
                }
            }
        }
        Outcome::Changed { done, old }
    }

    fn remove_expired(&mut self, keys_max: u32, now: u64) -> Outcome {
        let mut removed = 0;
        while removed < i64::from(keys_max)
            && let Some(key) = self.due(now)
        {
            self.delete(&key);
            removed += 1;
        }
        Outcome::Counter(removed)
    }

    fn append(&mut self, key: &[u8], value: &[u8], bytes_max: u32, at: Moment) -> Outcome {
        let current = self.value_bytes(key);
        let length = current.unwrap_or(0) + value.len();
        if length > bytes_max as usize {
            return Outcome::Refused(Refusal::TooLong);
        }
        match current {
            Some(_) => drop(self.append_to(key, value, at.index)),
            None => self.put(key, value, 0, at.index),
        }
        Outcome::Counter(length as i64)
    }

    fn increment(&mut self, key: &[u8], delta: i64, at: Moment) -> Outcome {
        let current = match self.item(key) {
            Some(item) => parse_integer(&item.value),
            None => Some(0),
        };
        let Some(current) = current else { return Outcome::Refused(Refusal::NotAnInteger) };
        let Some(sum) = current.checked_add(delta) else {
            return Outcome::Refused(Refusal::Overflow);
        };
        self.put(key, sum.to_string().as_bytes(), self.expires_at(key), at.index);
        Outcome::Counter(sum)
    }

    /// All steps, or none of them. A step that is refused does not keep the others from being done, as in
    /// Redis.
    fn carry_out(&mut self, transaction: Transaction<'_>, at: Moment) -> Outcome {
        let differs = |(key, modified): (&[u8], Index)| self.modified(key) != modified;
        if transaction.watched.iter().any(differs) {
            return Outcome::Transaction(None);
        }
        self.begin();
        match self.carry_out_steps(transaction, at) {
            Some(outcomes) => {
                self.commit();
                Outcome::Transaction(Some(outcomes))
            }
            None => {
                self.roll_back();
                Outcome::Refused(Refusal::TransactionTooLarge)
            }
        }
    }

    /// `None`: the answers would be too long, or the reads too much work.
    fn carry_out_steps(
        &mut self,
        transaction: Transaction<'_>,
        at: Moment,
    ) -> Option<Vec<StepOutcome>> {
        let mut budget = Budget::of(transaction.answer_bytes_max as usize);
        let mut outcomes = Vec::new();
        for (number, step) in transaction.steps.iter().enumerate() {
            let outcome = match step {
                Step::Write(op) => StepOutcome::Written(self.apply(op, at)),
                Step::Timed(op) => StepOutcome::Written(self.apply_timed(op, at)),
                Step::Read(op) => {
                    let number = at.index.wrapping_add(number as u64);
                    let worked = budget.worked();
                    let found = op.carry_out(self, &mut budget, number, at.now_ms);
                    let searched = (budget.worked() - worked) as u64;
                    self.add_work(OP_WORK * (1 + op.keys() as u64) + searched);
                    StepOutcome::Found(found.ok()?)
                }
            };
            budget.answer_bytes = budget.answer_bytes.checked_sub(outcome.bytes())?;
            outcomes.push(outcome);
        }
        Some(outcomes)
    }
}

/// How long the longest integer is, that of `i64::MIN`.
pub(super) const INTEGER_BYTES_MAX: usize = 20;

/// A decimal 64-bit integer as Redis takes it: no plus sign, no leading zeros or blanks, no `-0`.
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    // What is longer need not be looked at, however long it is.
    if text.len() > INTEGER_BYTES_MAX {
        return None;
    }
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}
