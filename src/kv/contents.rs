//! Keys with what is known of them, and what is kept up with every change: their order, their order in time,
//! their size and a digest.

use super::Value;
use super::garbage::FreeBudget;
use super::hints::{Hints, Place};
use super::pages::Pages;
use super::value::BufferId;
use crate::raft::Index;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hint::black_box;
use std::mem;
use std::ops::Bound;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

pub(super) use super::key::Key;

/// How many keys [`super::Machine::look_ahead`] takes: what they lead to must still be in the cache when the last
/// of them is written.
pub const LOOK_AHEAD_KEYS: usize = 32;

/// Of the cache, in bytes, and how much of each value is read ahead.
const LINE_BYTES: usize = 64;
const LOOK_AHEAD_LINES: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub value: Value,
    /// The entry that changed the value, or when the key goes, last.
    pub modified: Index,
    /// In milliseconds of Unix time; 0: never.
    pub expires_at: u64,
    /// Of key and value: replacing an item, or its time, need not read the value again, which is mostly in no
    /// cache by then.
    hash: u64,
}

impl Item {
    pub fn new(key: &[u8], value: Value, modified: Index, expires_at: u64) -> Self {
        let hash = value.hash(hash_of(key));
        Item { value, modified, expires_at, hash }
    }

    /// Covers what clients can see, so not when the key was changed.
    fn digest(&self) -> u64 {
        match self.expires_at {
            0 => self.hash,
            at => xxh3_64_with_seed(&at.to_be_bytes(), self.hash),
        }
    }
}

/// What an append has come to.
pub(super) struct Appended<'a> {
    pub value: &'a Value,
    /// Bytes that were copied or hashed.
    pub moved: usize,
}

struct Slot {
    key: Key,
    item: Item,
}

/// Every item lies in one list, in no order; `order` and `hints` say where.
#[derive(Default)]
pub(super) struct Contents {
    slots: Pages<Slot>,
    order: BTreeMap<Key, Place>,
    hints: Hints,
    /// Keys that go, in the order of their times.
    expiring: BTreeSet<(u64, Key)>,
    pub digest: u64,
    /// Of keys and values.
    pub bytes: usize,
    /// Keys whose values are buffers.
    buffers: BTreeSet<Key>,
    /// The name of the newest buffer.
    buffer_id: BufferId,
}

impl Contents {
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn get(&self, key: &[u8]) -> Option<&Item> {
        self.place(key, hash_of(key)).map(|place| &self.slots[place as usize].item)
    }

    fn place(&self, key: &[u8], hash: u64) -> Option<Place> {
        let is_there =
            |place: &Place| self.slots.get(*place as usize).is_some_and(|slot| *slot.key == *key);
        let hinted = self.hints.places(hash).find(is_there);
        hinted.or_else(|| self.order.get(key).copied())
    }

    /// Reads what leads to these keys, and their values, into the cache: all of them at the same time, where one
    /// after the other would wait for memory half a dozen times each. Returns how many it has taken.
    pub fn look_ahead(&self, keys: &mut dyn Iterator<Item = &[u8]>) -> usize {
        let mut hashes = [0; LOOK_AHEAD_KEYS];
        let count = hashes.iter_mut().zip(keys).map(|(hash, key)| *hash = hash_of(key)).count();
        let hashes = &hashes[..count];
        // Each step needs what the one before has read, and nothing of its own: so the reads of a step overlap.
        let mut read = hashes.iter().fold(0, |read, hash| read ^ self.hints.touch(*hash));
        let mut slots = [None; LOOK_AHEAD_KEYS];
        for (slot, hash) in slots.iter_mut().zip(hashes) {
            *slot = self.hints.places(*hash).find_map(|place| self.slots.get(place as usize));
            read ^= slot.map_or(0, |slot| {
                slot.key.first().map_or(0, |byte| u64::from(*byte)) ^ slot.item.hash
            });
        }
        for slot in slots.iter().flatten() {
            let value = &slot.item.value;
            read ^= value.touch();
            let lines =
                value.iter().skip(LINE_BYTES - 1).step_by(LINE_BYTES).take(LOOK_AHEAD_LINES);
            read ^= lines.fold(0, |read, byte| read ^ u64::from(*byte));
        }
        black_box(read);
        count
    }

    /// As [`Contents::insert`], but a value of the same length that nobody else has is written over. Returns the
    /// value that was there before, if it was not.
    pub fn write(
        &mut self,
        key: &[u8],
        value: &[u8],
        modified: Index,
        expires_at: u64,
    ) -> Option<Value> {
        let hash = hash_of(key);
        let Some(place) = self.place(key, hash) else {
            self.add(key, hash, Item::new(key, value.into(), modified, expires_at));
            return None;
        };
        let item = &mut self.slots[place as usize].item;
        let (digest, before) = (item.digest(), item.expires_at);
        self.bytes = self.bytes - item.value.len() + value.len();
        let replaced = match item.value.overwrite(value) {
            true => None,
            false => Some(mem::replace(&mut item.value, value.into())),
        };
        (item.modified, item.expires_at) = (modified, expires_at);
        item.hash = xxh3_64_with_seed(value, hash);
        self.digest = self.digest.wrapping_sub(digest).wrapping_add(item.digest());
        if replaced.as_ref().is_some_and(|replaced| replaced.buffer().is_some()) {
            self.buffers.remove(key);
        }
        self.reschedule(key, before, expires_at);
        self.fit_hints();
        replaced
    }

    /// Returns the value that was there before.
    pub fn insert(&mut self, key: &[u8], item: Item) -> Option<Value> {
        let hash = hash_of(key);
        self.note_buffer(key, item.value.buffer().is_some());
        let Some(place) = self.place(key, hash) else {
            self.add(key, hash, item);
            return None;
        };
        let slot = &mut self.slots[place as usize].item;
        let (before, expires_at) = (slot.expires_at, item.expires_at);
        self.digest = self.digest.wrapping_sub(slot.digest()).wrapping_add(item.digest());
        self.bytes = self.bytes - slot.value.len() + item.value.len();
        let replaced = mem::replace(slot, item).value;
        self.reschedule(key, before, expires_at);
        self.fit_hints();
        Some(replaced)
    }

    /// Only when the key goes changes. The key must exist.
    pub fn set_expiry(&mut self, key: &[u8], expires_at: u64, modified: Index) {
        let place = self.place(key, hash_of(key)).expect("the key exists");
        let item = &mut self.slots[place as usize].item;
        let (digest, before) = (item.digest(), item.expires_at);
        (item.modified, item.expires_at) = (modified, expires_at);
        self.digest = self.digest.wrapping_sub(digest).wrapping_add(item.digest());
        self.reschedule(key, before, expires_at);
    }

    /// Adds to the end of a value. The key must exist.
    pub fn append(&mut self, key: &[u8], end: &[u8], modified: Index) -> Appended<'_> {
        let hash = hash_of(key);
        let place = self.place(key, hash).expect("the key exists");
        let item = &mut self.slots[place as usize].item;
        let digest = item.digest();
        let was_buffer = item.value.buffer().is_some();
        let moved = item.value.append(end, hash, &mut self.buffer_id);
        (item.modified, item.hash) = (modified, item.value.hash(hash));
        self.digest = self.digest.wrapping_sub(digest).wrapping_add(item.digest());
        self.bytes += end.len();
        if !was_buffer && item.value.buffer().is_some() {
            self.buffers.insert(key.into());
        }
        Appended { value: &self.slots[place as usize].item.value, moved }
    }

    fn note_buffer(&mut self, key: &[u8], is_buffer: bool) {
        match is_buffer {
            true => drop(self.buffers.insert(key.into())),
            false if self.buffers.is_empty() => {}
            false => drop(self.buffers.remove(key)),
        }
    }

    /// The values that are buffers.
    pub fn buffers(&self) -> impl Iterator<Item = &Value> {
        self.buffers.iter().filter_map(|key| self.get(key)).map(|item| &item.value)
    }

    /// Buffers that are made from here on have other names than those of `before`.
    pub fn name_buffers_after(&mut self, before: &Contents) {
        self.buffer_id = before.buffer_id;
    }

    /// An item under a key that is not there.
    fn add(&mut self, key: &[u8], hash: u64, item: Item) {
        self.hints.add(hash, self.slots.len() as Place);
        self.push(key, item);
        self.fit_hints();
    }

    /// The same, but the table of hints gets it later: a start is not to wait for that.
    pub fn push(&mut self, key: &[u8], item: Item) {
        let expires_at = item.expires_at;
        self.digest = self.digest.wrapping_add(item.digest());
        self.bytes += key.len() + item.value.len();
        let slot = Slot { key: key.into(), item };
        self.order.insert(slot.key.clone(), self.slots.len() as Place);
        self.slots.push(slot);
        self.reschedule(key, 0, expires_at);
    }

    fn fit_hints(&mut self) {
        self.hints.fit(self.slots.len(), |place| hash_of(&self.slots[place].key));
    }

    fn reschedule(&mut self, key: &[u8], before: u64, expires_at: u64) {
        if before == expires_at {
            return;
        }
        let key = Key::from(key);
        if before != 0 {
            self.expiring.remove(&(before, key.clone()));
        }
        if expires_at != 0 {
            self.expiring.insert((expires_at, key));
        }
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<Item> {
        let (key, place) = self.order.remove_entry(key)?;
        let Slot { item, .. } = self.slots.swap_remove(place as usize);
        self.hints.remove(hash_of(&key), place);
        // The last one has taken its place.
        if let Some(moved) = self.slots.get(place as usize) {
            let (hash, last) = (hash_of(&moved.key), self.slots.len() as Place);
            *self.order.get_mut(&moved.key).expect("every key is in order") = place;
            self.hints.remove(hash, last);
            self.hints.add(hash, place);
        }
        self.fit_hints();
        self.digest = self.digest.wrapping_sub(item.digest());
        self.bytes -= key.len() + item.value.len();
        if item.value.buffer().is_some() {
            self.buffers.remove(&key);
        }
        if item.expires_at != 0 {
            self.expiring.remove(&(item.expires_at, key));
        }
        Some(item)
    }

    /// In the order of their keys.
    pub fn range<'a>(
        &'a self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&'a Key, &'a Item)> + use<'a> {
        let places = self.order.range::<[u8], _>((from, to));
        places.map(|(key, place)| (key, &self.slots[*place as usize].item))
    }

    pub fn first_key(&self) -> Option<&Key> {
        self.order.first_key_value().map(|(key, _)| key)
    }

    pub fn last_key(&self) -> Option<&Key> {
        self.order.last_key_value().map(|(key, _)| key)
    }

    /// The key that goes first, and when.
    pub fn first_to_go(&self) -> Option<&(u64, Key)> {
        self.expiring.first()
    }

    /// How many keys will go by themselves.
    pub fn expiring(&self) -> usize {
        self.expiring.len()
    }

    /// Frees the memory of some keys, whatever else is kept up, as far as `budget` goes.
    pub fn drop_some(&mut self, budget: &mut FreeBudget) {
        while budget.has_some() && self.expiring.pop_first().is_some() {
            budget.take(0);
        }
        while budget.has_some()
            && let Some(slot) = self.slots.pop()
        {
            self.order.pop_first();
            self.buffers.pop_first();
            budget.take(slot.item.value.len());
        }
    }

    pub fn is_dropped(&self) -> bool {
        self.slots.is_empty() && self.expiring.is_empty()
    }
}

/// What there is, wherever it lies: equal states are alike.
impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Contents { expiring, digest, bytes, .. } = self;
        f.debug_map().entries(self.range(Bound::Unbounded, Bound::Unbounded)).finish()?;
        f.debug_list().entry(expiring).entry(digest).entry(bytes).finish()
    }
}

/// The hash of a key; inlined in the eight places that need it, it would take 700 bytes of program in each.
#[inline(never)]
fn hash_of(key: &[u8]) -> u64 {
    xxh3_64(key)
}
