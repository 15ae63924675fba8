//! Keys with what is known of them, and what is kept up with every change: their order, their order in time,
//! their size and a digest.

use super::hints::{Hints, Place};
use super::pages::Pages;
use crate::raft::Index;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hint::black_box;
use std::ops::Bound;
use std::rc::Rc;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

pub(super) use super::key::Key;
pub(super) type Value = Rc<[u8]>;

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
    /// Of the item under its key: whoever replaces it need not read the value again, which is mostly in no
    /// cache by then.
    digest: u64,
}

impl Item {
    pub fn new(key: &[u8], value: Value, modified: Index, expires_at: u64) -> Self {
        let digest = item_digest(hash_of(key), &value, expires_at);
        Item { value, modified, expires_at, digest }
    }
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
                slot.key.first().map_or(0, |byte| u64::from(*byte)) ^ slot.item.digest
            });
        }
        for slot in slots.iter().flatten() {
            let value = &slot.item.value;
            read ^= Rc::strong_count(value) as u64;
            let lines =
                value.iter().skip(LINE_BYTES - 1).step_by(LINE_BYTES).take(LOOK_AHEAD_LINES);
            read ^= lines.fold(0, |read, byte| read ^ u64::from(*byte));
        }
        black_box(read);
        count
    }

    /// As [`Contents::insert`], but a value of the same length that nobody else has is written over.
    pub fn write(&mut self, key: &[u8], value: &[u8], modified: Index, expires_at: u64) {
        let hash = hash_of(key);
        let Some(place) = self.place(key, hash) else {
            return self.add(key, hash, Item::new(key, value.into(), modified, expires_at));
        };
        let item = &mut self.slots[place as usize].item;
        let (digest, before) = (item_digest(hash, value, expires_at), item.expires_at);
        self.digest = self.digest.wrapping_sub(item.digest).wrapping_add(digest);
        self.bytes = self.bytes - item.value.len() + value.len();
        match Rc::get_mut(&mut item.value) {
            Some(bytes) if bytes.len() == value.len() => bytes.copy_from_slice(value),
            _ => item.value = value.into(),
        }
        (item.modified, item.expires_at, item.digest) = (modified, expires_at, digest);
        self.reschedule(key, before, expires_at);
        self.fit_hints();
    }

    pub fn insert(&mut self, key: &[u8], item: Item) {
        let hash = hash_of(key);
        let Some(place) = self.place(key, hash) else { return self.add(key, hash, item) };
        let slot = &mut self.slots[place as usize].item;
        let (before, expires_at) = (slot.expires_at, item.expires_at);
        self.digest = self.digest.wrapping_sub(slot.digest).wrapping_add(item.digest);
        self.bytes = self.bytes - slot.value.len() + item.value.len();
        *slot = item;
        self.reschedule(key, before, expires_at);
        self.fit_hints();
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
        self.digest = self.digest.wrapping_add(item.digest);
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
        self.digest = self.digest.wrapping_sub(item.digest);
        self.bytes -= key.len() + item.value.len();
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

    /// Frees the memory of some keys, whatever else is kept up. Returns how many of `keys_max` are left.
    pub fn drop_some(&mut self, keys_max: usize) -> usize {
        let mut left = keys_max;
        while left > 0 && self.expiring.pop_first().is_some() {
            left -= 1;
        }
        while left > 0 && self.slots.pop().is_some() {
            self.order.pop_first();
            left -= 1;
        }
        left
    }

    pub fn is_dropped(&self) -> bool {
        self.slots.is_empty() && self.expiring.is_empty()
    }
}

/// What there is, wherever it lies: equal states are alike.
impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Contents { slots: _, order: _, hints: _, expiring, digest, bytes } = self;
        f.debug_map().entries(self.range(Bound::Unbounded, Bound::Unbounded)).finish()?;
        f.debug_list().entry(expiring).entry(digest).entry(bytes).finish()
    }
}

/// The hash of a key; inlined in the eight places that need it, it would take 700 bytes of program in each.
#[inline(never)]
fn hash_of(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// Of what clients can see: when a key was changed is left out.
fn item_digest(key_hash: u64, value: &[u8], expires_at: u64) -> u64 {
    let pair = xxh3_64_with_seed(value, key_hash);
    match expires_at {
        0 => pair,
        at => xxh3_64_with_seed(&at.to_be_bytes(), pair),
    }
}
