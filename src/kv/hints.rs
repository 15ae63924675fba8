//! Where an item probably is: a table that finds the place of a key with one look into memory, where the
//! ordered map takes half a dozen, each after the other.
//!
//! It may forget and it may be wrong: whoever asks compares the key, and asks the map if no hint leads to it.
//! So a full bucket leaves a key out, whoever chooses keys that fall into one bucket only makes those as
//! slow as the map is, and a table that has become too small is replaced by an empty one that fills up again
//! on the way.

use std::hint::black_box;

/// Hints in a bucket: as many as a line of the cache has.
const BUCKET_HINTS: usize = 8;
/// There are so many buckets, at least, that this is how many keys each has in the mean: then one key in 60
/// is left out. After the table has grown it is half of that.
const BUCKET_KEYS_MAX: usize = 5;
/// If there are more than this, the table gives way to a smaller one.
const BUCKETS_PER_KEY_MAX: usize = 2;
/// Keys that are entered in a table that has grown, with each one that is looked for to be written.
const REFILLED_PER_WRITE: usize = 8;

/// A number of an item, below 2^32: each takes more than a hundred bytes, and no node has 400 GB.
pub(super) type Place = u32;

/// The upper half of a hash, and a place plus one; 0: nothing.
type Hint = u64;

#[derive(Default)]
pub(super) struct Hints {
    /// None, or a power of two.
    buckets: Vec<[Hint; BUCKET_HINTS]>,
    /// Items up to this place, less those that buckets had no room for, have been entered since the table grew.
    filled: usize,
}

fn hint(hash: u64, place: Place) -> Hint {
    (hash >> 32) << 32 | (u64::from(place) + 1)
}

impl Hints {
    /// Of no bucket, while there are none.
    fn bucket(&self, hash: u64) -> usize {
        hash as usize & self.buckets.len().wrapping_sub(1)
    }

    /// Where the key with this hash may be.
    pub fn places(&self, hash: u64) -> impl Iterator<Item = Place> {
        let is_like = move |hint: &&Hint| **hint >> 32 == hash >> 32;
        let hints = self.buckets.get(self.bucket(hash)).into_iter().flatten();
        hints.filter(is_like).filter_map(|hint| (*hint as u32).checked_sub(1))
    }

    /// The memory that [`Hints::places`] looks at.
    pub fn touch(&self, hash: u64) -> u64 {
        // A bucket may lie in two lines.
        let bucket = self.buckets.get(self.bucket(hash));
        bucket.map_or(0, |bucket| bucket[0] ^ bucket[BUCKET_HINTS - 1])
    }

    pub fn add(&mut self, hash: u64, place: Place) {
        self.replace(hash, 0, hint(hash, place));
    }

    pub fn remove(&mut self, hash: u64, place: Place) {
        self.replace(hash, hint(hash, place), 0);
    }

    /// If it is there.
    fn replace(&mut self, hash: u64, old: Hint, new: Hint) {
        let at = self.bucket(hash);
        let mut hints = self.buckets.get_mut(at).into_iter().flatten();
        if let Some(hint) = hints.find(|hint| **hint == old) {
            *hint = new;
        }
    }

    /// Gets another table if this one is too small for so many keys, or much too large, and goes on filling it.
    /// `hash_of` is asked for the items at some places below `keys`.
    pub fn fit(&mut self, keys: usize, hash_of: impl Fn(usize) -> u64) {
        let is_small = keys > self.buckets.len() * BUCKET_KEYS_MAX;
        if is_small || self.buckets.len() > BUCKETS_PER_KEY_MAX * (keys + 1) {
            let count = (keys / BUCKET_KEYS_MAX + 1).next_power_of_two();
            *self = Hints { buckets: vec![[0; BUCKET_HINTS]; count], filled: 0 };
        }
        if self.filled < keys {
            self.refill(keys, hash_of);
        }
    }

    fn refill(&mut self, keys: usize, hash_of: impl Fn(usize) -> u64) {
        let places = self.filled..keys.min(self.filled + REFILLED_PER_WRITE);
        let mut hashes = [0; REFILLED_PER_WRITE];
        hashes.iter_mut().zip(places.clone()).for_each(|(hash, place)| *hash = hash_of(place));
        // All of them at the same time, so that they wait for memory once.
        black_box(hashes.iter().fold(0, |read, hash| read ^ self.touch(*hash)));
        for (place, hash) in places.zip(hashes) {
            let place = place as Place;
            if !self.places(hash).any(|other| other == place) {
                self.add(hash, place);
            }
            self.filled += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: usize) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&key.to_be_bytes())
    }

    fn filled(keys: usize) -> Hints {
        let mut hints = Hints::default();
        for key in 0..keys {
            hints.add(hash(key), key as Place);
            hints.fit(key + 1, hash);
        }
        hints
    }

    fn found(hints: &Hints, keys: usize) -> usize {
        let is_found = |key: &usize| hints.places(hash(*key)).any(|place| place as usize == *key);
        (0..keys).filter(is_found).count()
    }

    #[test]
    fn nearly_all_keys_are_found_also_soon_after_it_has_grown() {
        for keys in [1, 5, 6, 1000, 40_960, 46_090, 100_000] {
            let hints = filled(keys);
            let found = found(&hints, keys);
            assert!(found * 100 >= keys * 97, "{found} of {keys}");
        }
    }

    #[test]
    fn just_after_it_has_grown_it_knows_some_and_nothing_that_is_wrong() {
        let hints = filled(5 * 8192 + 1);
        assert_eq!(found(&hints, 5 * 8192 + 1), REFILLED_PER_WRITE);
    }

    #[test]
    fn a_bucket_that_is_full_leaves_keys_out_and_has_room_again() {
        let mut hints = filled(1);
        let same = |key: u64| key << 32;
        (1..100).for_each(|key| hints.add(same(key), key as Place));
        let known =
            |hints: &Hints| (1..100).filter(|key| hints.places(same(*key)).count() == 1).count();
        assert_eq!(known(&hints), BUCKET_HINTS - 1);
        hints.remove(same(1), 1);
        hints.add(same(99), 99);
        assert_eq!((known(&hints), hints.places(same(99)).next()), (BUCKET_HINTS - 1, Some(99)));
    }

    #[test]
    fn it_becomes_small_when_most_keys_are_gone() {
        let mut hints = filled(100_000);
        (0..99_000).for_each(|key| hints.remove(hash(key), key as Place));
        let large = hints.buckets.len();
        hints.fit(1000, hash);
        assert!(hints.buckets.len() <= large / 16);
    }
}
