//! The keys and values: an ordered map, and a digest of it that is kept up with every change.

use super::{Change, History, Outcome, Refusal, WriteOp};
use crate::codec::{Malformed, put_blob};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// What passing a key costs, put in bytes of a piece: also one that leaves nothing in it takes time.
const PASSED_KEY_BYTES: usize = 32;

type Key = Rc<[u8]>;
type Value = Rc<[u8]>;

#[derive(Debug, Default)]
pub struct Store {
    map: BTreeMap<Key, Value>,
    digest: u64,
    bytes: usize,
    frozen: Option<Frozen>,
    history: History,
}

/// The contents at one moment, on their way out while the store goes on changing.
#[derive(Debug, Default)]
struct Frozen {
    /// Everything up to this key is out.
    cursor: Option<Key>,
    /// Keys ahead of the cursor that have changed since, with the value they had, if any. At most as much as
    /// the store held; each is dropped when the cursor passes it.
    old: BTreeMap<Key, Option<Value>>,
}

impl Store {
    pub fn get(&self, key: &[u8]) -> Option<Value> {
        self.map.get(key).cloned()
    }

    /// How long the value is.
    pub fn value_bytes(&self, key: &[u8]) -> Option<usize> {
        self.map.get(key).map(|value| value.len())
    }

    /// Keys with their values, from `start` on and before `end`.
    pub fn range(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&Key, &Value)> {
        let end = match end {
            // A map panics at a range that ends before its start.
            Some(end) => Bound::Excluded(end.max(start)),
            None => Bound::Unbounded,
        };
        self.map.range::<[u8], _>((Bound::Included(start), end))
    }

    /// A key for a random number, in one look: the one after a random place between the first and the
    /// last. So a key after a gap is likelier than others.
    pub fn random_key(&self, number: u64) -> Option<Key> {
        let (first, _) = self.map.first_key_value()?;
        let (last, _) = self.map.last_key_value()?;
        let common = first.iter().zip(last.iter()).take_while(|(one, other)| one == other).count();
        let (low, high) = (head_number(&first[common..]), head_number(&last[common..]));
        let place = match (high - low).checked_add(1) {
            Some(width) => low + xxh3_64(&number.to_be_bytes()) % width,
            None => xxh3_64(&number.to_be_bytes()),
        };
        let place = [&first[..common], &place.to_be_bytes()].concat();
        let (key, _) = self.range(&place, None).next().unwrap_or((last, last));
        Some(key.clone())
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Keys and values, in bytes, without what the map itself needs.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Equal for equal contents, however they came about: the sum of a hash of every pair.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    pub fn apply(&mut self, op: WriteOp<'_>) -> Outcome {
        match op {
            WriteOp::Put { key, value } => {
                self.put(key, value);
                Outcome::Put
            }
            WriteOp::Delete { key } => Outcome::Deleted(self.delete(key)),
            WriteOp::Set { key, value, condition, get } => {
                let old = self.get(key);
                let done = condition.holds(old.as_deref());
                if done {
                    self.put(key, value);
                }
                Outcome::Changed { done, old: old.filter(|_| get) }
            }
            WriteOp::Remove { key, expected, get } => {
                let old = self.get(key);
                let done = old.is_some() && (expected.is_none() || old.as_deref() == expected);
                if done {
                    self.delete(key);
                }
                Outcome::Changed { done, old: old.filter(|_| get) }
            }
            WriteOp::PutMany { pairs } => {
                pairs.pairs().for_each(|(key, value)| self.put(key, value));
                Outcome::Put
            }
            WriteOp::DeleteMany { keys } => {
                let removed = keys.iter().filter(|key| self.delete(key)).count();
                Outcome::Counter(removed as i64)
            }
            WriteOp::Append { key, value, bytes_max } => self.append(key, value, bytes_max),
            WriteOp::CompareAndSet { key, expected, value } => {
                let matches = self.map.get(key).map(|value| &**value) == expected;
                if matches {
                    self.put(key, value);
                }
                Outcome::Swapped(matches)
            }
            WriteOp::Increment { key, delta } => match self.incremented(key, delta) {
                Ok(counter) => {
                    self.put(key, counter.to_string().as_bytes());
                    Outcome::Counter(counter)
                }
                Err(refusal) => Outcome::Refused(refusal),
            },
        }
    }

    /// The newest changes.
    pub fn history(&self) -> &History {
        &self.history
    }

    pub(super) fn history_mut(&mut self) -> &mut History {
        &mut self.history
    }

    /// From here on `take_frozen` gives the contents as they are now.
    pub(super) fn freeze(&mut self) {
        self.frozen = Some(Frozen::default());
    }

    pub(super) fn thaw(&mut self) {
        self.frozen = None;
    }

    /// Appends the next keys and values of the frozen contents, until `out` has `bytes_max` or more, or
    /// the cursor has passed very many keys that are newer than the contents. Returns whether that was
    /// all of them.
    pub(super) fn take_frozen(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> bool {
        let Store { map, frozen, .. } = self;
        let Some(frozen) = frozen else { return true };
        let after = match &frozen.cursor {
            Some(key) => Bound::Excluded(key.clone()),
            None => Bound::Unbounded,
        };
        let mut current = map.range((after, Bound::Unbounded)).peekable();
        let mut passed = 0;
        while out.len() < bytes_max && passed * PASSED_KEY_BYTES < bytes_max {
            let old_key = frozen.old.first_key_value().map(|(key, _)| key);
            let next = match (current.peek(), old_key) {
                (None, None) => {
                    self.frozen = None;
                    return true;
                }
                (Some((key, _)), Some(old)) if *key < old => (*key).clone(),
                (Some((key, _)), None) => (*key).clone(),
                (_, Some(old)) => old.clone(),
            };
            let is_current = current.peek().is_some_and(|(key, _)| **key == next);
            let now =
                if is_current { current.next().map(|(_, value)| value.clone()) } else { None };
            // What it was goes before what it is.
            if let Some(value) = frozen.old.remove(&next).unwrap_or(now) {
                put_blob(out, &next);
                put_blob(out, &value);
            }
            frozen.cursor = Some(next);
            passed += 1;
        }
        false
    }

    /// Adds a pair of a snapshot; keys come in order, each once.
    pub(super) fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), Malformed> {
        if self.map.last_key_value().is_some_and(|(last, _)| **last >= *key) {
            return Err(Malformed("snapshot: order of keys"));
        }
        self.put(key, value);
        Ok(())
    }

    /// Keeps what a key is before it changes, if the cursor has not passed it.
    fn keep_old(&mut self, key: &[u8]) {
        let Some(frozen) = &mut self.frozen else { return };
        let is_out = frozen.cursor.as_ref().is_some_and(|cursor| key <= &**cursor);
        if !is_out && !frozen.old.contains_key(key) {
            frozen.old.insert(key.into(), self.map.get(key).cloned());
        }
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.keep_old(key);
        self.digest = self.digest.wrapping_add(pair_digest(key, value));
        self.bytes += value.len();
        let (key, value): (Key, Value) = (key.into(), value.into());
        self.history.record(Change::Set { key: key.clone(), value: value.clone() });
        if let Some(slot) = self.map.get_mut(&key) {
            self.digest = self.digest.wrapping_sub(pair_digest(&key, slot));
            self.bytes -= slot.len();
            *slot = value;
        } else {
            self.bytes += key.len();
            self.map.insert(key, value);
        }
    }

    fn delete(&mut self, key: &[u8]) -> bool {
        self.keep_old(key);
        let Some((key, value)) = self.map.remove_entry(key) else { return false };
        self.digest = self.digest.wrapping_sub(pair_digest(&key, &value));
        self.bytes -= key.len() + value.len();
        self.history.record(Change::Deleted { key });
        true
    }

    fn append(&mut self, key: &[u8], value: &[u8], bytes_max: u32) -> Outcome {
        let whole = match self.map.get(key) {
            Some(current) if current.len() + value.len() > bytes_max as usize => {
                return Outcome::Refused(Refusal::TooLong);
            }
            None if value.len() > bytes_max as usize => return Outcome::Refused(Refusal::TooLong),
            Some(current) => [current, value].concat(),
            None => value.to_vec(),
        };
        self.put(key, &whole);
        Outcome::Counter(whole.len() as i64)
    }

    fn incremented(&self, key: &[u8], delta: i64) -> Result<i64, Refusal> {
        let current = match self.map.get(key) {
            Some(value) => parse_integer(value).ok_or(Refusal::NotAnInteger)?,
            None => 0,
        };
        current.checked_add(delta).ok_or(Refusal::Overflow)
    }
}

/// The first bytes as a number, so that keys are in the order of their numbers.
fn head_number(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    head.iter_mut().zip(key).for_each(|(to, byte)| *to = *byte);
    u64::from_be_bytes(head)
}

fn pair_digest(key: &[u8], value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, xxh3_64(key))
}

/// A decimal 64-bit integer as Redis takes it: no plus sign, no leading zeros or blanks, no `-0`.
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}
