//! Values as the store holds them: shared with the answers that carry them, and cheap to append to.
//!
//! A long value that a client appends to becomes a *buffer*: it has spare room at its end and a running hash, so an
//! append costs what it adds. As long as somebody else shares the buffer (an answer on its way out, a snapshot that
//! is being taken), an append copies it first.

use std::fmt;
use std::ops::Deref;
use std::rc::Rc;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

/// From this length on, in bytes, a value that is appended to becomes a buffer. A shorter one is copied, which costs
/// less than a microsecond and leaves no spare room behind.
pub const BUFFER_BYTES_MIN: usize = 4 * 1024;

/// A buffer that is full grows by this part of its length.
const SPARE_FRACTION: usize = 4;

/// Names a buffer among all that a process has made; only its end ever changes.
pub(super) type BufferId = u64;

#[derive(Clone)]
pub struct Value(Held);

#[derive(Clone)]
enum Held {
    Whole(Rc<[u8]>),
    Buffer(Rc<Buffer>),
}

#[derive(Clone)]
struct Buffer {
    id: BufferId,
    bytes: Vec<u8>,
    seed: u64,
    /// The hash of all bytes, under the seed.
    hash: Xxh3,
}

impl Value {
    /// As `xxh3_64_with_seed` has it.
    pub(super) fn hash(&self, seed: u64) -> u64 {
        match &self.0 {
            Held::Buffer(buffer) if buffer.seed == seed => buffer.hash.digest(),
            _ => xxh3_64_with_seed(self, seed),
        }
    }

    /// Writes over a value of the same length that nobody shares. Returns whether that was possible.
    pub(super) fn overwrite(&mut self, bytes: &[u8]) -> bool {
        match &mut self.0 {
            Held::Whole(held) => match Rc::get_mut(held) {
                Some(held) if held.len() == bytes.len() => {
                    held.copy_from_slice(bytes);
                    true
                }
                _ => false,
            },
            Held::Buffer(_) => false,
        }
    }

    /// Adds to the end. `next_id` names the buffer that the value may become. Returns how many bytes were moved.
    pub(super) fn append(&mut self, end: &[u8], seed: u64, next_id: &mut BufferId) -> usize {
        let length = self.len() + end.len();
        if length < BUFFER_BYTES_MIN {
            *self = [&**self, end].concat().into();
            return length;
        }
        let (buffer, copied) = self.exclusive_buffer(end.len(), seed, next_id);
        if buffer.bytes.capacity() < length {
            buffer.bytes.reserve_exact(end.len() + length / SPARE_FRACTION);
        }
        buffer.bytes.extend_from_slice(end);
        buffer.hash.update(end);
        copied + end.len()
    }

    /// The value as a buffer that nobody shares, and how many bytes that has moved.
    fn exclusive_buffer(
        &mut self,
        room: usize,
        seed: u64,
        next_id: &mut BufferId,
    ) -> (&mut Buffer, usize) {
        let mut copied = 0;
        let is_ready = match &mut self.0 {
            Held::Buffer(buffer) => buffer.seed == seed && Rc::get_mut(buffer).is_some(),
            Held::Whole(_) => false,
        };
        if !is_ready {
            copied = self.len();
            let mut bytes = Vec::with_capacity(copied + room);
            bytes.extend_from_slice(self);
            let (id, hash) = match &self.0 {
                // What it is a copy of is what it begins with, so it may go by the same name.
                Held::Buffer(buffer) if buffer.seed == seed => (buffer.id, buffer.hash.clone()),
                _ => {
                    *next_id += 1;
                    let mut hash = Xxh3::with_seed(seed);
                    hash.update(self);
                    (*next_id, hash)
                }
            };
            self.0 = Held::Buffer(Rc::new(Buffer { id, bytes, seed, hash }));
        }
        match &mut self.0 {
            Held::Buffer(buffer) => (Rc::get_mut(buffer).expect("it is nobody else's"), copied),
            Held::Whole(_) => unreachable!("it is a buffer now"),
        }
    }

    /// The name of the buffer that it is, if it is one.
    pub(super) fn buffer(&self) -> Option<BufferId> {
        match &self.0 {
            Held::Buffer(buffer) => Some(buffer.id),
            Held::Whole(_) => None,
        }
    }

    /// What an append to it would move besides its own bytes, at least.
    pub(super) fn append_copies(&self) -> usize {
        match &self.0 {
            Held::Buffer(buffer) if Rc::strong_count(buffer) == 1 => 0,
            _ => self.len(),
        }
    }

    /// Looks at the memory in front of the bytes, so that it is in the cache.
    pub(super) fn touch(&self) -> u64 {
        match &self.0 {
            Held::Whole(bytes) => Rc::strong_count(bytes) as u64,
            Held::Buffer(buffer) => Rc::strong_count(buffer) as u64,
        }
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Held::Whole(bytes) => bytes,
            Held::Buffer(buffer) => &buffer.bytes,
        }
    }
}

impl From<Rc<[u8]>> for Value {
    fn from(bytes: Rc<[u8]>) -> Self {
        Value(Held::Whole(bytes))
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Value(Held::Whole(bytes.into()))
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Value(Held::Whole(bytes.into()))
    }
}

impl<const N: usize> From<[u8; N]> for Value {
    fn from(bytes: [u8; N]) -> Self {
        Value(Held::Whole(bytes.into()))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Value {}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEED: u64 = 7;

    #[test]
    fn a_value_takes_no_more_than_a_shared_slice() {
        assert_eq!(size_of::<Value>(), 16);
    }

    #[test]
    fn appending_to_a_long_value_moves_only_what_is_added() {
        let mut value = Value::from(vec![1; 1 << 20]);
        let mut next_id = 0;
        assert_eq!(value.append(b"x", SEED, &mut next_id), (1 << 20) + 1, "it becomes a buffer");
        for _ in 0..100_000 {
            assert_eq!(value.append(b"x", SEED, &mut next_id), 1);
        }
        assert_eq!((value.len(), next_id), ((1 << 20) + 100_001, 1));
        let Held::Buffer(buffer) = &value.0 else { panic!("it is a buffer") };
        assert!(buffer.bytes.capacity() <= value.len() * 5 / 4 + 2);
    }

    #[test]
    fn what_shares_a_value_does_not_see_what_is_appended() {
        let mut value = Value::from(vec![1; BUFFER_BYTES_MIN]);
        let mut next_id = 0;
        value.append(b"a", SEED, &mut next_id);
        let shared = value.clone();
        assert_eq!(value.append_copies(), value.len());
        assert_eq!(value.append(b"b", SEED, &mut next_id), shared.len() + 1);
        assert_eq!((shared.last(), value.last()), (Some(&b'a'), Some(&b'b')));
        assert_eq!((shared.buffer(), value.buffer()), (Some(1), Some(1)));
        drop(shared);
        assert_eq!((value.append_copies(), value.append(b"c", SEED, &mut next_id)), (0, 1));
    }

    proptest! {
        /// This holds for any pieces, under another seed, and while somebody shares the value.
        #[test]
        fn a_value_that_was_appended_to_is_like_one_that_was_written(
            pieces in prop::collection::vec((0..9000_usize, any::<bool>(), 0..3_u64), 1..20),
        ) {
            let (mut value, mut model, mut next_id) = (Value::from([]), Vec::new(), 0);
            let mut shared = Vec::new();
            for (round, (length, is_shared, seed)) in pieces.into_iter().enumerate() {
                let piece: Vec<u8> = (0..length).map(|at| (at * 31 + round) as u8).collect();
                shared.extend(is_shared.then(|| (value.clone(), model.clone())));
                value.append(&piece, seed, &mut next_id);
                model.extend_from_slice(&piece);
                prop_assert_eq!(&*value, &*model);
                for seed in 0..3 {
                    prop_assert_eq!(value.hash(seed), xxh3_64_with_seed(&model, seed));
                }
                shared.truncate(2);
            }
            for (value, model) in shared {
                prop_assert_eq!(&*value, &*model);
            }
        }
    }
}
