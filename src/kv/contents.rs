//! Keys with what is known of them, and what is kept up with every change: their order in time, their size
//! and a digest.

use crate::raft::Index;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

pub(super) use super::key::Key;
pub(super) type Value = Rc<[u8]>;

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
        let digest = item_digest(key, &value, expires_at);
        Item { value, modified, expires_at, digest }
    }
}

#[derive(Debug, Default)]
pub(super) struct Contents {
    pub map: BTreeMap<Key, Item>,
    /// Keys that go, in the order of their times.
    expiring: BTreeSet<(u64, Key)>,
    pub digest: u64,
    /// Of keys and values.
    pub bytes: usize,
}

impl Contents {
    pub fn insert(&mut self, key: &[u8], item: Item) -> Option<Item> {
        self.digest = self.digest.wrapping_add(item.digest);
        self.bytes += item.value.len();
        let expires_at = item.expires_at;
        let old = match self.map.get_mut(key) {
            Some(slot) => Some(std::mem::replace(slot, item)),
            None => {
                self.bytes += key.len();
                self.map.insert(key.into(), item);
                None
            }
        };
        let before = old.as_ref().map_or(0, |old| old.expires_at);
        if let Some(old) = &old {
            self.digest = self.digest.wrapping_sub(old.digest);
            self.bytes -= old.value.len();
        }
        if before != expires_at {
            self.reschedule(key, before, expires_at);
        }
        old
    }

    fn reschedule(&mut self, key: &[u8], before: u64, expires_at: u64) {
        let (key, _) = self.map.get_key_value(key).expect("the key was just written");
        if before != 0 {
            self.expiring.remove(&(before, key.clone()));
        }
        if expires_at != 0 {
            self.expiring.insert((expires_at, key.clone()));
        }
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<Item> {
        let (key, item) = self.map.remove_entry(key)?;
        self.digest = self.digest.wrapping_sub(item.digest);
        self.bytes -= key.len() + item.value.len();
        if item.expires_at != 0 {
            self.expiring.remove(&(item.expires_at, key));
        }
        Some(item)
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
        while left > 0 && self.map.pop_first().is_some() {
            left -= 1;
        }
        left
    }

    pub fn is_dropped(&self) -> bool {
        self.map.is_empty() && self.expiring.is_empty()
    }
}

/// Of what clients can see: when a key was changed is left out.
fn item_digest(key: &[u8], value: &[u8], expires_at: u64) -> u64 {
    let pair = xxh3_64_with_seed(value, xxh3_64(key));
    match expires_at {
        0 => pair,
        at => xxh3_64_with_seed(&at.to_be_bytes(), pair),
    }
}
