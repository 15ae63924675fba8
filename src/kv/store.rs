//! The keys and values: an ordered map, and a digest of it that is kept up with every change.

pub use super::contents::Item;
use super::contents::{Contents, Key};
use super::frozen::Frozen;
use super::garbage::{FreeBudget, Garbage};
use super::value::BufferId;
use super::work::{BYTES_PER_WORK, OP_WORK};
use super::{ChangeRef, History, Value};
use crate::codec::Malformed;
use crate::raft::Index;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use xxhash_rust::xxh3::xxh3_64;

#[derive(Debug, Default)]
pub struct Store {
    pub(super) contents: Contents,
    frozen: Option<Frozen>,
    garbage: Garbage,
    /// What the transaction that is being carried out has changed; the newest stage is the last.
    undo: Option<Vec<Stage>>,
    pub(super) history: History,
    meter: Meter,
}

/// Work of all entries so far. It is no part of the state, which a snapshot may have brought.
#[derive(Default)]
struct Meter(u64);

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meter")
    }
}

/// What a transaction has changed until it emptied the store, or its end.
#[derive(Debug, Default)]
struct Stage {
    /// Each key as it was before its first change: so many changes of one long value keep it once.
    before: BTreeMap<Key, Option<Item>>,
    /// The store was emptied; a snapshot that is being taken has what it held, or else the garbage.
    flush: Option<Flush>,
}

#[derive(Debug)]
struct Flush {
    is_frozen: bool,
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

    /// The value that a buffer had when it was so long, as long as the history names it.
    pub(super) fn buffer_then(&self, key: &[u8], buffer: BufferId, length: usize) -> &[u8] {
        let live = self.contents.get(key).map(|item| &item.value);
        let live = live.filter(|value| value.buffer() == Some(buffer));
        let value = live.or_else(|| self.history.kept_buffer(buffer));
        &value.expect("a buffer is kept as long as the history names it")[..length]
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
        if let Some(frozen) = self.frozen.take() {
            self.garbage.add_frozen(frozen);
        }
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
        if let Some(stage) = self.undo.as_mut().and_then(|stages| stages.last_mut())
            && !stage.before.contains_key(key)
        {
            stage.before.insert(key.into(), self.contents.get(key).cloned());
        }
    }

    /// A value that is in the store no more.
    fn discard(&mut self, value: Option<Value>) {
        let Some(value) = value else { return };
        if value.buffer().is_some() {
            self.history.keep_buffer(&value);
        }
        self.garbage.add_value(value);
    }

    fn count_work(&mut self, bytes: usize) {
        self.meter.0 += OP_WORK + bytes as u64 / BYTES_PER_WORK;
    }

    /// Work that was done otherwise for an entry.
    pub(super) fn add_work(&mut self, work: u64) {
        self.meter.0 += work;
    }

    /// What all entries have cost so far; see `work.rs`.
    pub fn work(&self) -> u64 {
        self.meter.0
    }

    // The five ways in which anything ever changes.

    pub(super) fn put(&mut self, key: &[u8], value: &[u8], expires_at: u64, modified: Index) {
        self.keep(key);
        let replaced = self.contents.write(key, value, modified, expires_at);
        self.discard(replaced);
        self.history.record(ChangeRef::Set { key, value });
        self.count_work(key.len() + value.len());
    }

    /// Adds to the end of the value of a key that exists. Returns how long it is then.
    pub(super) fn append_to(&mut self, key: &[u8], end: &[u8], modified: Index) -> usize {
        self.keep(key);
        let appended = self.contents.append(key, end, modified);
        let (length, moved) = (appended.value.len(), appended.moved);
        match appended.value.buffer() {
            Some(buffer) => self.history.record_append(key, buffer, length),
            None => self.history.record(ChangeRef::Set { key, value: appended.value }),
        }
        self.count_work(key.len() + moved);
        length
    }

    /// What an append to a key copies, beside its own bytes, if the state stays as it is.
    pub(super) fn append_copies(&self, key: &[u8]) -> usize {
        let Some(item) = self.contents.get(key) else { return 0 };
        // The snapshot that is being taken may share it by then.
        if self.frozen.is_some() { item.value.len() } else { item.value.append_copies() }
    }

    /// Only when the key goes changes, which is in no history. The key exists.
    pub(super) fn reschedule(&mut self, key: &[u8], expires_at: u64, at: Index) {
        self.keep(key);
        self.contents.set_expiry(key, expires_at, at);
        self.count_work(key.len());
    }

    pub(super) fn delete(&mut self, key: &[u8]) -> bool {
        self.keep(key);
        self.count_work(key.len());
        let Some(item) = self.contents.remove(key) else { return false };
        self.discard(Some(item.value));
        self.history.record(ChangeRef::Deleted { key });
        true
    }

    /// Whatever there is goes at once; its memory is freed by [`Store::free_some`]. A snapshot that is being taken
    /// keeps it.
    pub(super) fn flush(&mut self) {
        if self.is_empty() {
            return;
        }
        self.contents.buffers().for_each(|value| self.history.keep_buffer(value));
        self.history.record(ChangeRef::Flushed);
        let mut emptied = Contents::default();
        emptied.name_buffers_after(&self.contents);
        let contents = std::mem::replace(&mut self.contents, emptied);
        let is_frozen = match &mut self.frozen {
            Some(frozen) if frozen.emptied.is_none() => {
                frozen.emptied = Some(contents);
                true
            }
            _ => {
                self.garbage.add_contents(contents);
                false
            }
        };
        if let Some(stages) = &mut self.undo {
            stages.last_mut().expect("a stage is open").flush = Some(Flush { is_frozen });
            stages.push(Stage::default());
        }
    }

    /// From here on everything can be taken back.
    pub(super) fn begin(&mut self) {
        self.undo = Some(vec![Stage::default()]);
    }

    pub(super) fn commit(&mut self) {
        self.undo = None;
    }

    /// Takes back what has changed since `begin`.
    pub(super) fn roll_back(&mut self) {
        self.history.take_back();
        for stage in self.undo.take().unwrap_or_default().into_iter().rev() {
            if let Some(flush) = stage.flush {
                self.take_flush_back(flush.is_frozen);
            }
            for (key, before) in stage.before {
                self.keep(&key);
                self.count_work(key.len());
                let replaced = match before {
                    Some(item) => self.contents.insert(&key, item),
                    None => self.contents.remove(&key).map(|item| item.value),
                };
                replaced.into_iter().for_each(|value| self.garbage.add_value(value));
            }
        }
    }

    /// Takes back the newest flush. What came after it is taken back already.
    fn take_flush_back(&mut self, is_frozen: bool) {
        let newest = match &mut self.frozen {
            Some(frozen) if is_frozen => frozen.emptied.take(),
            _ => self.garbage.take_back_contents(),
        };
        let mut contents = newest.expect("what was flushed in this entry is not freed yet");
        contents.name_buffers_after(&self.contents);
        self.contents = contents;
    }

    /// What another store holds goes like what was flushed.
    pub(super) fn free_slowly(&mut self, mut other: Store) {
        other.thaw();
        self.garbage.append(other.garbage);
        self.garbage.add_contents(other.contents);
    }

    /// Frees some of the memory of what the store has let go of.
    pub(super) fn free_some(&mut self, budget: FreeBudget) {
        self.garbage.free_some(budget);
    }

    /// How many items the store has let go of whose memory is not free yet.
    pub fn garbage_items(&self) -> usize {
        self.garbage.items()
    }

    /// How many bytes of values these have, about.
    pub fn garbage_bytes(&self) -> usize {
        self.garbage.bytes()
    }
}

/// The first bytes as a number, so that keys are in the order of their numbers.
fn head_number(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    head.iter_mut().zip(key).for_each(|(to, byte)| *to = *byte);
    u64::from_be_bytes(head)
}
