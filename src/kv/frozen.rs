//! The contents at one moment, on their way out while the store goes on changing.

use super::contents::{Contents, Item, Key};
use super::garbage::FreeBudget;
use super::hints::Place;
use super::pages::Pages;
use crate::codec::{put_blob, put_u64};
use std::collections::BTreeMap;
use std::ops::Bound;

/// What passing a key costs, put in bytes of a piece: also one that leaves nothing in it takes time.
const PASSED_KEY_BYTES: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Frozen {
    /// Everything up to this key is out.
    cursor: Option<Key>,
    /// Keys ahead of the cursor that have changed since, with the place in `items` of what they were. At most as much
    /// as the store held; each is dropped when the cursor passes it. (A map of the items themselves would be one more
    /// type of map, which is kilobytes of program.)
    old: BTreeMap<Key, Place>,
    items: Pages<Option<Item>>,
    /// The store was emptied meanwhile, and this is what it held then: nothing in it changes any more.
    pub emptied: Option<Contents>,
}

impl Frozen {
    /// Keeps what a key is before it changes, if the cursor has not passed it.
    pub fn keep_old(&mut self, key: &[u8], contents: &Contents) {
        let is_out = self.cursor.as_ref().is_some_and(|cursor| key <= &**cursor);
        if self.emptied.is_none() && !is_out && !self.old.contains_key(key) {
            self.old.insert(key.into(), self.items.len() as Place);
            self.items.push(contents.get(key).cloned());
        }
    }

    /// Appends the next keys with what is known of them, until `out` has `bytes_max` or more, or the cursor has
    /// passed very many keys that are newer than the contents. Returns whether that was all of them.
    pub fn take(&mut self, contents: &Contents, out: &mut Vec<u8>, bytes_max: usize) -> bool {
        let Frozen { cursor, old, items, emptied } = self;
        let contents = emptied.as_ref().unwrap_or(contents);
        let after = cursor.clone();
        let after = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut current = contents.range(after, Bound::Unbounded).peekable();
        let mut passed = 0;
        while out.len() < bytes_max && passed * PASSED_KEY_BYTES < bytes_max {
            let old_key = old.first_key_value().map(|(key, _)| key);
            let next = match (current.peek(), old_key) {
                (None, None) => return true,
                (Some((key, _)), Some(old)) if *key < old => (*key).clone(),
                (Some((key, _)), None) => (*key).clone(),
                (_, Some(old)) => old.clone(),
            };
            let is_current = current.peek().is_some_and(|(key, _)| **key == next);
            let now = if is_current { current.next().map(|(_, item)| item.clone()) } else { None };
            // What it was goes before what it is.
            if let Some(item) = old.remove(&next).map_or(now, |place| items[place as usize].take())
            {
                put_blob(out, &next);
                put_u64(out, item.modified);
                put_u64(out, item.expires_at);
                put_blob(out, &item.value);
            }
            *cursor = Some(next);
            passed += 1;
        }
        false
    }

    /// Frees what is kept of old items, as far as `budget` goes.
    pub fn drop_some(&mut self, budget: &mut FreeBudget) {
        while budget.has_some()
            && let Some(item) = self.items.pop()
        {
            self.old.pop_first();
            budget.take(item.map_or(0, |item| item.value.len()));
        }
    }

    /// How many old items are kept.
    pub fn old_items(&self) -> usize {
        self.items.len()
    }
}
