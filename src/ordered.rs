//! Maps that are sorted lists: every type of a `BTreeMap` brings 6 to 20 KB of program along for splitting and
//! joining nodes.
//!
//! [`Few`] is for tens of items at most, the members of a cluster and what is kept for each: there are no nodes to
//! split. [`InOrder`] is for what waits, however much that is: what comes last is last, and goes last.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::ops::Index;
use std::{slice, vec};

/// Items by key, in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Few<K, V> {
    items: Vec<(K, V)>,
}

/// As a map's: the two halves of each item.
pub type Iter<'a, K, V> = std::iter::Map<slice::Iter<'a, (K, V)>, fn(&'a (K, V)) -> (&'a K, &'a V)>;
pub type IterMut<'a, K, V> =
    std::iter::Map<slice::IterMut<'a, (K, V)>, fn(&'a mut (K, V)) -> (&'a K, &'a mut V)>;

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Few::new()
    }
}

impl<K, V> Few<K, V> {
    pub const fn new() -> Self {
        Few { items: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn clear(&mut self) {
        self.items.clear();
    }

    pub fn iter(&self) -> Iter<'_, K, V> {
        self.items.iter().map(|(key, value)| (key, value))
    }

    pub fn iter_mut(&mut self) -> IterMut<'_, K, V> {
        self.items.iter_mut().map(|(key, value)| (&*key, value))
    }

    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + ExactSizeIterator + Clone {
        self.items.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + ExactSizeIterator + Clone {
        self.items.iter().map(|(_, value)| value)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.items.iter_mut().map(|(_, value)| value)
    }

    pub fn into_values(self) -> impl Iterator<Item = V> {
        self.items.into_iter().map(|(_, value)| value)
    }

    pub fn first_key_value(&self) -> Option<(&K, &V)> {
        self.items.first().map(|(key, value)| (key, value))
    }

    pub fn last_key_value(&self) -> Option<(&K, &V)> {
        self.items.last().map(|(key, value)| (key, value))
    }

    pub fn pop_first(&mut self) -> Option<(K, V)> {
        (!self.is_empty()).then(|| self.items.remove(0))
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.items.retain_mut(|(key, value)| keep(key, value));
    }
}

impl<K: Ord, V> Few<K, V> {
    /// Where the key is, or where it would be. Asked for in a hundred places.
    #[inline(never)]
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.items.binary_search_by(|(other, _)| other.borrow().cmp(key))
    }

    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().map(|at| &self.items[at].1)
    }

    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().map(|at| &mut self.items[at].1)
    }

    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_ok()
    }

    /// The value that the key had before.
    #[inline(never)]
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            Ok(at) => Some(std::mem::replace(&mut self.items[at].1, value)),
            Err(at) => {
                self.items.insert(at, (key, value));
                None
            }
        }
    }

    /// The key's value, which is made if it has none.
    pub fn get_or_insert_with(&mut self, key: K, value: impl FnOnce() -> V) -> &mut V {
        let at = match self.find(&key) {
            Ok(at) => at,
            Err(at) => {
                self.items.insert(at, (key, value()));
                at
            }
        };
        &mut self.items[at].1
    }

    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.find(key).ok().map(|at| self.items.remove(at).1)
    }
}

impl<K: Ord, V> Extend<(K, V)> for Few<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, items: I) {
        for (key, value) in items {
            self.insert(key, value);
        }
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Few<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(items: I) -> Self {
        let mut few = Few::new();
        few.extend(items);
        few
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for Few<K, V> {
    fn from(items: [(K, V); N]) -> Self {
        items.into_iter().collect()
    }
}

impl<K: Ord + Borrow<Q>, V, Q: Ord + ?Sized> Index<&Q> for Few<K, V> {
    type Output = V;

    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("the key is there")
    }
}

impl<K, V> IntoIterator for Few<K, V> {
    type Item = (K, V);
    type IntoIter = vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<'a, K, V> IntoIterator for &'a Few<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, K, V> IntoIterator for &'a mut Few<K, V> {
    type Item = (&'a K, &'a mut V);
    type IntoIter = IterMut<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

/// Items whose keys come in their order, and mostly go in it. Out of order, each that comes or goes moves those on
/// one side of it.
#[derive(Debug)]
pub struct InOrder<K, V> {
    items: VecDeque<(K, V)>,
}

impl<K, V> Default for InOrder<K, V> {
    fn default() -> Self {
        InOrder { items: VecDeque::new() }
    }
}

impl<K, V> InOrder<K, V> {
    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.items.iter().map(|(_, value)| value)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.items.iter_mut().map(|(_, value)| value)
    }

    pub fn into_values(self) -> impl Iterator<Item = V> {
        self.items.into_iter().map(|(_, value)| value)
    }

    pub fn pop_first(&mut self) -> Option<(K, V)> {
        self.items.pop_front()
    }
}

impl<K: Ord, V> InOrder<K, V> {
    fn find(&self, key: &K) -> Result<usize, usize> {
        match self.items.front() {
            Some((first, _)) if first == key => Ok(0),
            _ => self.items.binary_search_by(|(other, _)| other.cmp(key)),
        }
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.find(key).ok().map(|at| &self.items[at].1)
    }

    /// The value that the key had before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if self.items.back().is_none_or(|(last, _)| *last < key) {
            self.items.push_back((key, value));
            return None;
        }
        match self.find(&key) {
            Ok(at) => Some(std::mem::replace(&mut self.items[at].1, value)),
            Err(at) => {
                self.items.insert(at, (key, value));
                None
            }
        }
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.find(key).ok()?;
        self.items.remove(at).map(|(_, value)| value)
    }

    /// Takes out those that are wanted.
    pub fn extract(&mut self, mut is_wanted: impl FnMut(&K, &V) -> bool) -> Vec<V> {
        let mut wanted = Vec::new();
        for (key, value) in std::mem::take(&mut self.items) {
            match is_wanted(&key, &value) {
                true => wanted.push(value),
                false => self.items.push_back((key, value)),
            }
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Debug, Clone)]
    enum Deed {
        Insert(u8, u32),
        GetOrInsert(u8, u32),
        Remove(u8),
        PopFirst,
        RetainEven,
    }

    fn deed() -> impl Strategy<Value = Deed> {
        prop_oneof![
            4 => (0u8..12, any::<u32>()).prop_map(|(key, value)| Deed::Insert(key, value)),
            2 => (0u8..12, any::<u32>()).prop_map(|(key, value)| Deed::GetOrInsert(key, value)),
            2 => (0u8..12).prop_map(Deed::Remove),
            1 => Just(Deed::PopFirst),
            1 => Just(Deed::RetainEven),
        ]
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds_in_the_same_order(
            deeds in prop::collection::vec(deed(), 0..60)
        ) {
            let mut few = Few::new();
            let mut map = BTreeMap::new();
            for deed in deeds {
                match deed {
                    Deed::Insert(key, value) => {
                        prop_assert_eq!(few.insert(key, value), map.insert(key, value));
                    }
                    Deed::GetOrInsert(key, value) => {
                        let made = *few.get_or_insert_with(key, || value);
                        prop_assert_eq!(made, *map.entry(key).or_insert(value));
                    }
                    Deed::Remove(key) => prop_assert_eq!(few.remove(&key), map.remove(&key)),
                    Deed::PopFirst => prop_assert_eq!(few.pop_first(), map.pop_first()),
                    Deed::RetainEven => {
                        few.retain(|_, value| *value % 2 == 0);
                        map.retain(|_, value| *value % 2 == 0);
                    }
                }
                prop_assert!(few.iter().eq(map.iter()));
                prop_assert!(few.keys().eq(map.keys()));
                prop_assert_eq!((few.len(), few.is_empty()), (map.len(), map.is_empty()));
                for key in 0..12 {
                    prop_assert_eq!(few.get(&key), map.get(&key));
                    prop_assert_eq!(few.contains_key(&key), map.contains_key(&key));
                }
            }
        }

        #[test]
        fn what_is_in_order_holds_what_a_map_holds_in_the_same_order(
            deeds in prop::collection::vec(deed(), 0..60)
        ) {
            let mut list = InOrder::default();
            let mut map = BTreeMap::new();
            for deed in deeds {
                match deed {
                    Deed::Insert(key, value) | Deed::GetOrInsert(key, value) => {
                        prop_assert_eq!(list.insert(key, value), map.insert(key, value));
                    }
                    Deed::Remove(key) => prop_assert_eq!(list.remove(&key), map.remove(&key)),
                    Deed::PopFirst => prop_assert_eq!(list.pop_first(), map.pop_first()),
                    Deed::RetainEven => {
                        let is_odd = |value: &u32| *value % 2 == 1;
                        let odd: Vec<u32> = map.values().copied().filter(is_odd).collect();
                        prop_assert_eq!(list.extract(|_, value| is_odd(value)), odd);
                        map.retain(|_, value| !is_odd(value));
                    }
                }
                prop_assert!(list.values().eq(map.values()));
                prop_assert!(list.values_mut().eq(map.values_mut()));
                prop_assert_eq!((list.len(), list.is_empty()), (map.len(), map.is_empty()));
                for key in 0..12 {
                    prop_assert_eq!(list.get(&key), map.get(&key));
                }
            }
            prop_assert!(list.into_values().eq(map.into_values()));
        }
    }
}
