//! Several keys, or keys and values in turn, in the bytes of a command.

use crate::codec::{Malformed, Reader, put_blob, put_u32};
use std::fmt;

/// One or more blobs, as they are encoded: a number, then each with its length. They are checked when
/// they are read, so that walking them cannot fail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Blobs<'a> {
    count: u32,
    bytes: &'a [u8],
}

impl<'a> Blobs<'a> {
    /// What [`Blobs::to_bytes`] gave.
    pub fn new(encoded: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(encoded);
        let blobs = Self::read(&mut reader)?;
        reader.finish("blobs: bytes after their end")?;
        Ok(blobs)
    }

    pub fn to_bytes<'b>(items: impl IntoIterator<Item = &'b [u8]>) -> Vec<u8> {
        let mut out = Vec::new();
        put_u32(&mut out, 0);
        let mut count = 0u32;
        for item in items {
            put_blob(&mut out, item);
            count += 1;
        }
        out[..4].copy_from_slice(&count.to_be_bytes());
        out
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let count = reader.u32("number of keys")?;
        if count == 0 {
            return Err(Malformed("number of keys"));
        }
        let whole = reader.rest();
        for _ in 0..count {
            reader.blob("one of several keys")?;
        }
        let bytes = &whole[..whole.len() - reader.rest().len()];
        Ok(Blobs { count, bytes })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.count);
        out.extend_from_slice(self.bytes);
    }

    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Encoded.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || reader.blob("one of several keys").ok())
    }

    /// Two by two: keys with their values.
    pub fn pairs(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut items = self.iter();
        std::iter::from_fn(move || Some((items.next()?, items.next()?)))
    }
}

impl fmt::Debug for Blobs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|item| item.escape_ascii().to_string())).finish()
    }
}
