//! What operations mean, said once more and in the simplest way.

use crate::*;

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub value: Vec<u8>,
    pub modified: Index,
    pub expires_at: Option<i128>,
}

#[derive(Debug, Clone, Default)]
pub struct Model {
    pub keys: BTreeMap<Vec<u8>, Known>,
    pub clock: u64,
}

impl Model {
    fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.keys.get(key).map(|known| known.value.clone())
    }

    fn time(&self, key: &[u8]) -> Option<i128> {
        self.keys.get(key)?.expires_at
    }

    fn write(&mut self, key: &[u8], value: Vec<u8>, expires_at: Option<i128>, modified: Index) {
        self.keys.insert(key.to_vec(), Known { value, modified, expires_at });
    }

    /// Gone, if the time is not later than now.
    fn write_until(&mut self, key: &[u8], value: Vec<u8>, time: Option<i128>, modified: Index) {
        match time {
            Some(at) if at <= i128::from(self.clock) => drop(self.keys.remove(key)),
            time => self.write(key, value, time, modified),
        }
    }

    fn time_of(&self, key: &[u8], expiry: Expiry) -> Option<i128> {
        match expiry {
            Expiry::Never => None,
            Expiry::Keep => self.time(key),
            Expiry::After(after) => Some(i128::from(self.clock) + i128::from(after)),
            Expiry::At(at) => Some(i128::from(at)),
        }
        .map(|at| at.min(i128::from(i64::MAX)))
    }

    pub fn apply(&mut self, op: &Op, index: Index) -> Outcome {
        self.clock = self.clock.max(op.stamp());
        match op.clone() {
            Op::Put(key, value) => {
                self.write(&key, value, None, index);
                Outcome::Put
            }
            Op::Delete(key) => Outcome::Deleted(self.keys.remove(&key).is_some()),
            Op::Cas(key, expected, value) => {
                if self.value(&key) != expected {
                    return Outcome::Swapped(false);
                }
                self.write(&key, value, None, index);
                Outcome::Swapped(true)
            }
            Op::Increment(key, delta) => self.increment(&key, delta, index),
            Op::Set(key, value, when, get) => {
                self.set(&key, value, &when, get, Expiry::Never, index)
            }
            Op::Remove(key, expected, get) => {
                let old = self.value(&key);
                let fits = expected.is_none() || old == expected;
                let done = fits && self.keys.remove(&key).is_some();
                Outcome::Changed { done, old: old.filter(|_| get).map(Into::into) }
            }
            Op::PutMany(encoded) => {
                for (key, value) in blobs(&encoded).pairs() {
                    self.write(key, value.to_vec(), None, index);
                }
                Outcome::Put
            }
            Op::DeleteMany(encoded) => {
                let keys = blobs(&encoded);
                let removed = keys.iter().filter(|key| self.keys.remove(*key).is_some()).count();
                Outcome::Counter(removed as i64)
            }
            Op::Append(key, value, bytes_max) => {
                let mut whole = self.value(&key).unwrap_or_default();
                whole.extend(value);
                if whole.len() > bytes_max as usize {
                    return Outcome::Refused(Refusal::TooLong);
                }
                let length = whole.len() as i64;
                self.write(&key, whole, self.time(&key), index);
                Outcome::Counter(length)
            }
            Op::Flush => {
                self.keys.clear();
                Outcome::Put
            }
            Op::SetUntil(_, key, value, when, get, expiry) => {
                self.set(&key, value, &when, get, expiry, index)
            }
            Op::Expire(_, key, expiry, condition, get) => {
                self.expire(&key, expiry, condition, get, index)
            }
            Op::RemoveExpired(_, keys_max) => {
                let mut due: Vec<(i128, Vec<u8>)> = self
                    .keys
                    .iter()
                    .filter_map(|(key, known)| Some((known.expires_at?, key.clone())))
                    .filter(|(at, _)| *at <= i128::from(self.clock))
                    .collect();
                due.sort();
                due.truncate(keys_max as usize);
                due.iter().for_each(|(_, key)| drop(self.keys.remove(key)));
                Outcome::Counter(due.len() as i64)
            }
            Op::Transaction(_, together) => self.together(&together, index),
        }
    }

    fn increment(&mut self, key: &[u8], delta: i64, index: Index) -> Outcome {
        let held = self.value(key).unwrap_or_else(|| b"0".to_vec());
        let integer: Option<i128> = String::from_utf8(held.clone())
            .ok()
            .and_then(|text| text.parse().ok())
            .filter(|integer: &i128| integer.to_string().as_bytes() == held)
            .filter(|integer| i64::try_from(*integer).is_ok());
        let Some(integer) = integer else { return Outcome::Refused(Refusal::NotAnInteger) };
        let Ok(counter) = i64::try_from(integer + i128::from(delta)) else {
            return Outcome::Refused(Refusal::Overflow);
        };
        self.write(key, counter.to_string().into_bytes(), self.time(key), index);
        Outcome::Counter(counter)
    }

    fn set(
        &mut self,
        key: &[u8],
        value: Vec<u8>,
        when: &When,
        get: bool,
        expiry: Expiry,
        index: Index,
    ) -> Outcome {
        let old = self.value(key);
        let done = match when {
            When::Always => true,
            When::Absent => old.is_none(),
            When::Present => old.is_some(),
            When::Equals(expected) => old.as_ref() == Some(expected),
        };
        if done {
            let time = self.time_of(key, expiry);
            // What is kept stays, whether it is over or not: only the log removes it.
            match expiry {
                Expiry::Keep => self.write(key, value, time, index),
                _ => self.write_until(key, value, time, index),
            }
        }
        Outcome::Changed { done, old: old.filter(|_| get).map(Into::into) }
    }

    fn expire(
        &mut self,
        key: &[u8],
        expiry: Expiry,
        condition: TimeCondition,
        get: bool,
        index: Index,
    ) -> Outcome {
        let Some(known) = self.keys.get(key).cloned() else {
            return Outcome::Changed { done: false, old: None };
        };
        let (current, wanted) = (known.expires_at, self.time_of(key, expiry));
        let is_over = expiry != Expiry::Keep && wanted.is_some_and(|at| at <= self.clock.into());
        // No time is later than all times, and what is over is before them.
        let forever = i128::MAX;
        let place = if is_over { i128::MIN } else { wanted.unwrap_or(forever) };
        let holds = match condition {
            TimeCondition::Always => true,
            TimeCondition::Nx => current.is_none(),
            TimeCondition::Xx => current.is_some(),
            TimeCondition::Gt => current.is_some_and(|current| place > current),
            TimeCondition::Lt => current.is_none_or(|current| place < current),
            TimeCondition::XxLt => current.is_some_and(|current| place < current),
        };
        let done = holds && (current.is_some() || wanted.is_some());
        if done {
            match expiry {
                Expiry::Keep => self.write(key, known.value.clone(), wanted, index),
                _ => self.write_until(key, known.value.clone(), wanted, index),
            }
        }
        Outcome::Changed { done, old: get.then(|| known.value.into()) }
    }

    fn together(&mut self, together: &Together, index: Index) -> Outcome {
        for (key, modified) in &together.watched {
            if self.keys.get(key).map_or(0, |known| known.modified) != *modified {
                return Outcome::Transaction(None);
            }
        }
        let (mut copy, mut bytes, mut outcomes) = (self.clone(), 0, Vec::new());
        for part in &together.parts {
            // The stamp of the whole counts for its parts.
            let outcome = match part {
                Part::Write(op) => {
                    let clock = copy.clock;
                    let outcome = copy.apply(&op.without_stamp(), index);
                    copy.clock = clock;
                    StepOutcome::Written(outcome)
                }
                Part::Read(op) => StepOutcome::Found(copy.read(op)),
            };
            bytes += 16 + answer_bytes(&outcome);
            outcomes.push(outcome);
        }
        if bytes > together.answer_bytes_max as usize {
            return Outcome::Refused(Refusal::TransactionTooLarge);
        }
        *self = copy;
        Outcome::Transaction(Some(outcomes))
    }

    fn read(&self, op: &ReadOp) -> Found {
        match op {
            ReadOp::Values(keys) => {
                Found::Values(keys.iter().map(|key| Some(self.value(key)?.into())).collect())
            }
            ReadOp::Versions(keys) => {
                let modified =
                    |key: &std::rc::Rc<[u8]>| self.keys.get(&**key).map_or(0, |k| k.modified);
                Found::Versions(keys.iter().map(modified).collect())
            }
            ReadOp::Expiry(key) => {
                let time = |known: &Known| known.expires_at.map_or(0, |at| at as u64);
                Found::Expiry { expires_at: self.keys.get(&**key).map(time), now: self.clock }
            }
            other => unreachable!("{other:?} is not generated"),
        }
    }
}

impl Op {
    fn without_stamp(&self) -> Op {
        match self.clone() {
            Op::SetUntil(_, key, value, when, get, expiry) => {
                Op::SetUntil(0, key, value, when, get, expiry)
            }
            Op::Expire(_, key, expiry, condition, get) => {
                Op::Expire(0, key, expiry, condition, get)
            }
            other => other,
        }
    }
}

/// What an answer takes besides what each has.
pub fn answer_bytes(outcome: &StepOutcome) -> usize {
    match outcome {
        StepOutcome::Written(Outcome::Changed { old: Some(old), .. }) => old.len(),
        StepOutcome::Written(_) => 0,
        StepOutcome::Found(Found::Values(values)) => {
            values.iter().map(|value| 5 + value.as_ref().map_or(0, |value| value.len())).sum()
        }
        StepOutcome::Found(Found::Versions(versions)) => 8 * versions.len(),
        StepOutcome::Found(_) => 16,
    }
}

/// All that is known of all keys, against the model.
pub fn assert_same(store: &Store, model: &Model) {
    assert_eq!(store.len(), model.keys.len());
    for (key, known) in &model.keys {
        let item = store.item(key).unwrap_or_else(|| panic!("{key:?} is missing"));
        let expires_at = known.expires_at.map_or(0, |at| at as u64);
        assert_eq!((&*item.value, item.modified), (&known.value[..], known.modified), "{key:?}");
        assert_eq!(item.expires_at, expires_at, "{key:?}");
    }
    let times = model.keys.values().filter_map(|known| known.expires_at);
    assert_eq!(store.expiring(), times.clone().count());
    assert_eq!(store.next_expiry(), times.min().map(|at| at as u64));
    let bytes: usize = model.keys.iter().map(|(key, known)| key.len() + known.value.len()).sum();
    assert_eq!(store.bytes(), bytes);
}
