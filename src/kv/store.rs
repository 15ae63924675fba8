//! The keys and values: an ordered map, and a digest of it that is kept up with every change.

pub use super::contents::Item;
use super::contents::{Contents, Key, Value};
use super::frozen::Frozen;
use super::{ChangeRef, History};
use crate::codec::Malformed;
use crate::raft::Index;
use std::ops::Bound;
use xxhash_rust::xxh3::xxh3_64;

#[derive(Debug, Default)]
pub struct Store {
    contents: Contents,
    frozen: Option<Frozen>,
    /// Contents that were flushed and are freed little by little.
    flushed: Vec<Contents>,
    /// What the transaction that is being carried out has changed, in order.
    undo: Option<Vec<Undo>>,
    history: History,
}

/// A change that may have to be taken back.
#[derive(Debug)]
enum Undo {
    /// As it was before.
    Item(Key, Option<Item>),
    /// The store was emptied; a snapshot that is being taken has what it held, or else `flushed`.
    Flush { is_frozen: bool },
}

impl Store {
    pub fn get(&self, key: &[u8]) -> Option<Value> {
        self.contents.get(key).map(|item| item.value.clone())
    }

    /// The value and what else is known of the key.
    #[inline(never)]
    pub fn item(&self, key: &[u8]) -> Option<&Item> {
        self.contents.get(key)
    }

    /// How long the value is.
    #[inline(never)]
    pub fn value_bytes(&self, key: &[u8]) -> Option<usize> {
        self.contents.get(key).map(|item| item.value.len())
    }

    /// The index of the entry that changed the key last; 0: it does not exist.
    pub fn modified(&self, key: &[u8]) -> Index {
        self.contents.get(key).map_or(0, |item| item.modified)
    }

    /// When the first key goes, in milliseconds of Unix time.
    pub fn next_expiry(&self) -> Option<u64> {
        self.contents.first_to_go().map(|(at, _)| *at)
    }

    /// The key that goes first, if its time has come.
    pub(super) fn due(&self, now: u64) -> Option<Key> {
        let (at, key) = self.contents.first_to_go()?;
        (*at <= now).then(|| key.clone())
    }

    /// How many keys will go by themselves.
    pub fn expiring(&self) -> usize {
        self.contents.expiring()
    }

    /// See [`super::Machine::look_ahead`].
    pub(super) fn look_ahead(&self, keys: &mut dyn Iterator<Item = &[u8]>) -> usize {
        self.contents.look_ahead(keys)
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
        let items = self.contents.range(Bound::Included(start), end);
        items.map(|(key, item)| (key, &item.value))
    }

    /// A key for a random number, in one look: the one after a random place between the first and the
    /// last. So a key after a gap is likelier than others.
    pub fn random_key(&self, number: u64) -> Option<Key> {
        let (first, last) = (self.contents.first_key()?, self.contents.last_key()?);
        let common = first.iter().zip(last.iter()).take_while(|(one, other)| one == other).count();
        let (low, high) = (head_number(&first[common..]), head_number(&last[common..]));
        let place = match (high - low).checked_add(1) {
            Some(width) => low + xxh3_64(&number.to_be_bytes()) % width,
            None => xxh3_64(&number.to_be_bytes()),
        };
        let place = [&first[..common], &place.to_be_bytes()].concat();
        let key = self.range(&place, None).next().map_or(last, |(key, _)| key);
        Some(key.clone())
    }

    pub fn len(&self) -> usize {
        self.contents.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keys and values, in bytes, without what the map itself needs.
    pub fn bytes(&self) -> usize {
        self.contents.bytes
    }

    /// Equal for equal contents, however they came about: the sum of a hash of every key with its value
    /// and the time at which it goes.
    pub fn digest(&self) -> u64 {
        self.contents.digest
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
        self.thaw();
        self.frozen = Some(Frozen::default());
    }

    pub(super) fn thaw(&mut self) {
        let frozen = self.frozen.take();
        self.flushed.extend(frozen.and_then(|frozen| frozen.emptied));
    }

    /// Appends the next items of the frozen contents ([`Frozen::take`]). Returns whether that was all of
    /// them.
    pub(super) fn take_frozen(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> bool {
        let Some(frozen) = &mut self.frozen else { return true };
        let is_all = frozen.take(&self.contents, out, bytes_max);
        if is_all {
            self.thaw();
        }
        is_all
    }

    /// Adds an item of a snapshot; keys come in order, each once.
    pub(super) fn load(&mut self, key: &[u8], item: Item) -> Result<(), Malformed> {
        if self.contents.last_key().is_some_and(|last| **last >= *key) {
            return Err(Malformed("snapshot: order of keys"));
        }
        self.contents.push(key, item);
        Ok(())
    }

    /// What a key is before it changes: for a snapshot that is being taken, and to take the change back.
    fn keep(&mut self, key: &[u8]) {
        if let Some(frozen) = &mut self.frozen {
            frozen.keep_old(key, &self.contents);
        }
        if let Some(undo) = &mut self.undo {
            undo.push(Undo::Item(key.into(), self.contents.get(key).cloned()));
        }
    }

    // The four ways in which anything ever changes.

    pub(super) fn put(&mut self, key: &[u8], value: &[u8], expires_at: u64, modified: Index) {
        self.keep(key);
        self.contents.write(key, value, modified, expires_at);
        self.history.record(ChangeRef::Set { key, value });
    }

    /// Only when the key goes changes, which is in no history.
    pub(super) fn reschedule(&mut self, key: &[u8], value: Value, expires_at: u64, at: Index) {
        self.keep(key);
        self.contents.insert(key, Item::new(key, value, at, expires_at));
    }

    pub(super) fn delete(&mut self, key: &[u8]) -> bool {
        self.keep(key);
        let existed = self.contents.remove(key).is_some();
        if existed {
            self.history.record(ChangeRef::Deleted { key });
        }
        existed
    }

    /// Whatever there is goes at once; its memory is freed by [`Store::free_flushed`]. A snapshot that is
    /// being taken keeps it.
    pub(super) fn flush(&mut self) {
        if !self.is_empty() {
            self.history.record(ChangeRef::Flushed);
        }
        let contents = std::mem::take(&mut self.contents);
        let is_frozen = match &mut self.frozen {
            Some(frozen) if frozen.emptied.is_none() => {
                frozen.emptied = Some(contents);
                true
            }
            _ => {
                self.flushed.push(contents);
                false
            }
        };
        if let Some(undo) = &mut self.undo {
            undo.push(Undo::Flush { is_frozen });
        }
    }

    /// From here on everything can be taken back.
    pub(super) fn begin(&mut self) {
        self.undo = Some(Vec::new());
    }

    pub(super) fn commit(&mut self) {
        self.undo = None;
    }

    /// Takes back what has changed since `begin`.
    pub(super) fn roll_back(&mut self) {
        self.history.take_back();
        for change in self.undo.take().unwrap_or_default().into_iter().rev() {
            match change {
                Undo::Item(key, before) => {
                    self.keep(&key);
                    match before {
                        Some(item) => self.contents.insert(&key, item),
                        None => drop(self.contents.remove(&key)),
                    }
                }
                Undo::Flush { is_frozen } => self.take_flush_back(is_frozen),
            }
        }
    }

    /// Of the newest flush. What came after it is taken back already.
    fn take_flush_back(&mut self, is_frozen: bool) {
        let newest = match &mut self.frozen {
            Some(frozen) if is_frozen => frozen.emptied.take(),
            _ => self.flushed.pop(),
        };
        self.contents = newest.expect("what was flushed in this entry is not freed yet");
    }

    /// What another store holds goes like what was flushed.
    pub(super) fn free_slowly(&mut self, mut other: Store) {
        other.thaw();
        self.flushed.append(&mut other.flushed);
        self.flushed.push(other.contents);
    }

    /// Frees the memory of so many keys that were flushed.
    pub(super) fn free_flushed(&mut self, keys_max: usize) {
        let mut left = keys_max;
        while let Some(contents) = self.flushed.last_mut() {
            left = contents.drop_some(left);
            if !contents.is_dropped() {
                return;
            }
            self.flushed.pop();
        }
    }

    /// Keys that were flushed and whose memory is not free yet.
    pub fn flushed(&self) -> usize {
        self.flushed.iter().map(|contents| contents.len() + contents.expiring()).sum()
    }
}

/// The first bytes as a number, so that keys are in the order of their numbers.
fn head_number(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    head.iter_mut().zip(key).for_each(|(to, byte)| *to = *byte);
    u64::from_be_bytes(head)
}
