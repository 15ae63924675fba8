//! Keys as the store holds them: a short one lies in the map itself. Looking a key up compares it with a
//! dozen others; with each of those behind a pointer, that was most of what a write cost the store.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

/// The longest key that is held in place, in bytes: with it a key takes 24 bytes, a pointer 16.
const SHORT_BYTES_MAX: usize = 22;

#[derive(Clone)]
pub struct Key(Held);

#[derive(Clone)]
enum Held {
    Short { length: u8, bytes: [u8; SHORT_BYTES_MAX] },
    Long(Rc<[u8]>),
}

impl From<&[u8]> for Key {
    fn from(key: &[u8]) -> Self {
        if key.len() > SHORT_BYTES_MAX {
            return Key(Held::Long(key.into()));
        }
        let mut bytes = [0; SHORT_BYTES_MAX];
        bytes[..key.len()].copy_from_slice(key);
        Key(Held::Short { length: key.len() as u8, bytes })
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Held::Short { length, bytes } => &bytes[..usize::from(*length)],
            Held::Long(bytes) => bytes,
        }
    }
}

/// Whoever looks for a key has it as bytes; both are ordered alike.
impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl Key {
    /// For those who keep keys in another way.
    pub fn share(&self) -> Rc<[u8]> {
        match &self.0 {
            Held::Short { .. } => (**self).into(),
            Held::Long(bytes) => Rc::clone(bytes),
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_bytes_however_long_and_takes_24() {
        assert_eq!(size_of::<Key>(), 24);
        for length in 0..2 * SHORT_BYTES_MAX {
            let bytes = vec![0xff; length];
            let key = Key::from(bytes.as_slice());
            assert_eq!(*key, *bytes);
            assert_eq!(*key.share(), *bytes);
        }
    }

    #[test]
    fn keys_are_in_the_order_of_their_bytes_short_and_long() {
        let mut texts: Vec<Vec<u8>> = (0..=SHORT_BYTES_MAX + 2)
            .flat_map(|length| [vec![0; length], vec![b'a'; length], vec![0xff; length]])
            .collect();
        texts.sort();
        let keys: Vec<Key> = texts.iter().map(|text| text.as_slice().into()).collect();
        assert!(keys.is_sorted());
        assert!(keys.iter().zip(&texts).all(|(key, text)| **key == **text));
    }
}
