//! Reads that are not of one value, on the state as it is at one moment.

use super::transaction::STEP_ANSWER_BYTES;
use super::{
    Failure, FailureCode, Found, Limits, Range, ReadOp, Step, Store, TimedOp, Value, WriteOp, glob,
};
use std::rc::Rc;

/// What each item of an answer takes besides its bytes.
const ITEM_BYTES: usize = 5;
/// What one read may cost, in steps of looking at a key: each takes `Range::KEY_STEPS`, and comparing it with
/// a pattern at most the product of both lengths. It is some milliseconds, so that a turn stays short.
/// The reads of a transaction share it.
pub const RANGE_WORK_MAX: usize = 16 * 1024 * 1024;

/// What an answer may still have.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Of keys and values.
    pub answer_bytes: usize,
    /// In steps of looking at a key.
    work: usize,
}

impl Budget {
    pub fn of(answer_bytes: usize) -> Self {
        Budget { answer_bytes, work: RANGE_WORK_MAX }
    }

    /// What has been used of the work.
    pub fn worked(&self) -> usize {
        RANGE_WORK_MAX - self.work
    }
}

impl ReadOp {
    /// Fails if the answer would be too long, or too much work: then nothing is left out in silence.
    /// `number` is another one each time; `now` is in milliseconds of Unix time.
    pub fn carry_out(
        &self,
        store: &Store,
        budget: &mut Budget,
        number: u64,
        now: u64,
    ) -> Result<Found, Failure> {
        match self {
            ReadOp::Values(keys) => {
                let bytes = values_bytes(keys, store);
                let bytes_max = budget.answer_bytes;
                if bytes > bytes_max {
                    return Err(too_large(format!(
                        "the values have {bytes} bytes together, the limit of an answer is \
                         {bytes_max} bytes: ask for fewer keys at a time"
                    )));
                }
                Ok(Found::Values(keys.iter().map(|key| store.get(key)).collect()))
            }
            ReadOp::Lengths(keys) => {
                let length = |bytes| u32::try_from(bytes).expect("a value is shorter than 4 GiB");
                Ok(Found::Lengths(
                    keys.iter().map(|key| store.value_bytes(key).map(length)).collect(),
                ))
            }
            ReadOp::Range(range) => range.carry_out(store, budget),
            ReadOp::RandomKey => {
                Ok(Found::Values(vec![store.random_key(number).map(|key| key.share().into())]))
            }
            ReadOp::Expiry(key) => {
                let expires_at = store.item(key).map(|item| item.expires_at);
                Ok(Found::Expiry { expires_at, now })
            }
            ReadOp::Versions(keys) => {
                Ok(Found::Versions(keys.iter().map(|key| store.modified(key)).collect()))
            }
            ReadOp::Digest => {
                Ok(Found::Digest { digest: store.digest(), keys: store.len() as u64 })
            }
        }
    }

    /// How long the answer may be on this state, at most.
    pub fn answer_bytes(&self, store: &Store, limits: &Limits) -> usize {
        match self {
            ReadOp::Values(keys) => values_bytes(keys, store),
            ReadOp::Lengths(keys) => keys.len() * ITEM_BYTES,
            ReadOp::Range(Range { with_values: false, keys_max, .. }) => {
                let key_bytes = limits.key_bytes_max as usize + ITEM_BYTES;
                limits.answer_bytes_max().min((*keys_max as usize).saturating_mul(key_bytes))
            }
            ReadOp::Range(_) => limits.answer_bytes_max(),
            ReadOp::RandomKey => limits.key_bytes_max as usize,
            ReadOp::Versions(keys) => keys.len() * size_of::<u64>(),
            ReadOp::Expiry(_) | ReadOp::Digest => STEP_ANSWER_BYTES,
        }
    }

    /// The longest key, or bound or pattern of keys, in it.
    #[inline(never)]
    pub fn key_bytes(&self) -> usize {
        match self {
            ReadOp::Values(keys) | ReadOp::Lengths(keys) | ReadOp::Versions(keys) => {
                keys.iter().map(|key| key.len()).max().unwrap_or(0)
            }
            ReadOp::Range(range) => {
                let bounds = [Some(&range.start), range.end.as_ref(), range.pattern.as_ref()];
                bounds.into_iter().flatten().map(|bytes| bytes.len()).max().unwrap_or(0)
            }
            ReadOp::Expiry(key) => key.len(),
            ReadOp::RandomKey | ReadOp::Digest => 0,
        }
    }

    /// Whether it looks at keys that it does not name.
    pub fn is_search(&self) -> bool {
        matches!(self, ReadOp::Range(_))
    }

    /// How many keys it asks for by name.
    pub fn keys(&self) -> usize {
        match self {
            ReadOp::Values(keys) | ReadOp::Lengths(keys) | ReadOp::Versions(keys) => keys.len(),
            ReadOp::Expiry(_) => 1,
            ReadOp::Range(_) | ReadOp::RandomKey | ReadOp::Digest => 0,
        }
    }
}

impl WriteOp<'_> {
    /// How long the answer may be on this state, at most, beside what every answer has.
    pub fn answer_bytes(&self, store: &Store, limits: &Limits) -> usize {
        match self {
            WriteOp::Set { key, get: true, .. }
            | WriteOp::Remove { key, get: true, .. }
            | WriteOp::Timed {
                op: TimedOp::Set { key, get: true, .. } | TimedOp::Expire { key, get: true, .. },
                ..
            } => store.value_bytes(key).unwrap_or(0),
            WriteOp::Timed { op: TimedOp::Transaction(transaction), .. } => {
                let bytes = |step| match step {
                    Step::Write(op) => op.answer_bytes(store, limits),
                    Step::Timed(op) => WriteOp::Timed { stamp: 0, op }.answer_bytes(store, limits),
                    Step::Read(op) => op.answer_bytes(store, limits),
                };
                let sum: usize =
                    transaction.steps.iter().map(|step| STEP_ANSWER_BYTES + bytes(step)).sum();
                sum.min(transaction.answer_bytes_max as usize)
            }
            _ => 0,
        }
    }
}

#[inline(never)]
fn values_bytes(keys: &[Rc<[u8]>], store: &Store) -> usize {
    keys.iter().map(|key| ITEM_BYTES + store.value_bytes(key).unwrap_or(0)).sum()
}

impl Range {
    pub(super) const KEY_STEPS: usize = 32;

    /// What it costs is taken from the budget's work; its answer from the rest by whoever keeps it.
    fn carry_out(&self, store: &Store, budget: &mut Budget) -> Result<Found, Failure> {
        let mut pairs = store.range(&self.start, self.end.as_deref());
        let mut items: Vec<Value> = Vec::new();
        let (mut bytes, mut counted) = (0, 0);
        let bytes_max = budget.answer_bytes;
        while counted < self.keys_max {
            let pair = if self.reverse { pairs.next_back() } else { pairs.next() };
            let Some((key, value)) = pair else {
                return Ok(Found::Keys { items, next: None });
            };
            let pattern_bytes = self.pattern.as_ref().map_or(0, |pattern| pattern.len());
            let item_bytes = ITEM_BYTES
                + key.len()
                + if self.with_values { ITEM_BYTES + value.len() } else { 0 };
            let left = budget.work.checked_sub(Self::KEY_STEPS + key.len() * pattern_bytes);
            budget.work = left.unwrap_or(0);
            let is_work = left.is_none();
            let fits = self.pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, key));
            if is_work || (fits && bytes + item_bytes > bytes_max) {
                if !self.partial {
                    return Err(self.too_much(is_work, bytes_max));
                }
                // The first key is taken whatever it costs, so that a scan goes on.
                if counted > 0 {
                    return Ok(Found::Keys { items, next: Some(key.share()) });
                }
            }
            if fits {
                bytes += item_bytes;
                items.push(key.share().into());
                items.extend(self.with_values.then(|| value.clone()));
            }
            counted += u32::from(fits || self.partial);
        }
        let next = pairs.next().filter(|_| self.partial).map(|(key, _)| key.share());
        Ok(Found::Keys { items, next })
    }

    fn too_much(&self, is_work: bool, bytes_max: usize) -> Failure {
        let instead = if self.with_values { "give a LIMIT" } else { "use SCAN" };
        too_large(match is_work {
            true => format!("there are too many keys to look at in one go: {instead}"),
            false => format!("the answer would be longer than {bytes_max} bytes: {instead}"),
        })
    }
}

fn too_large(message: String) -> Failure {
    Failure { code: FailureCode::TooLarge, message, leader: None }
}
