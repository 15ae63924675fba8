//! The one way bytes are taken apart and put together, for every format: frames, log entries and
//! write-ahead log records. All integers are big-endian.
//!
//! Bytes from outside end here: [`Reader`] is the only thing that indexes them, it never panics, and what
//! it cannot read is [`Malformed`].

use byteorder::{BigEndian, ByteOrder};
use std::fmt;

/// Bytes that do not mean what their format says; `.0` names the part that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// Reads fields from the front of a byte slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// The next `len` bytes. `what` names the field in the error.
    pub fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        if len > self.rest.len() {
            return Err(Malformed(what));
        }
        let (head, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(head)
    }

    pub fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        Ok(self.take(1, what)?[0])
    }

    pub fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        Ok(BigEndian::read_u16(self.take(2, what)?))
    }

    pub fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        Ok(BigEndian::read_u32(self.take(4, what)?))
    }

    pub fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        Ok(BigEndian::read_u64(self.take(8, what)?))
    }

    pub fn i64(&mut self, what: &'static str) -> Result<i64, Malformed> {
        Ok(BigEndian::read_i64(self.take(8, what)?))
    }

    /// A byte that must be 0 or 1.
    pub fn bool(&mut self, what: &'static str) -> Result<bool, Malformed> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed(what)),
        }
    }

    /// A `u32` length and that many bytes.
    #[inline(never)]
    pub fn blob(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let len = self.u32(what)?;
        self.take(len as usize, what)
    }

    /// A blob that must be UTF-8.
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.blob(what)?).map_err(|_| Malformed(what))
    }

    /// A presence byte (0 or 1), then a value if it is 1.
    pub fn option<T>(
        &mut self,
        what: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.bool(what)? { read(self).map(Some) } else { Ok(None) }
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The end: trailing bytes are as wrong as missing ones.
    pub fn finish(self, what: &'static str) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed(what)) }
    }
}

// Fields are put in some hundred places: a call in each is as fast there as the room it would be copied into,
// and makes the program smaller.

#[inline(never)]
pub fn put_u8(out: &mut Vec<u8>, value: u8) {
    out.push(value);
}

pub fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[inline(never)]
pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[inline(never)]
pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[inline(never)]
pub fn put_bool(out: &mut Vec<u8>, value: bool) {
    out.push(u8::from(value));
}

/// A `u32` length and the bytes. Callers keep blobs far below 4 GiB; anything longer is a bug here.
#[inline(never)]
pub fn put_blob(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, u32::try_from(bytes.len()).expect("a blob is shorter than 4 GiB"));
    out.extend_from_slice(bytes);
}

/// Like [`put_blob`], for bytes that are written in place.
pub fn put_sized(out: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>)) {
    let length_at = out.len();
    put_u32(out, 0);
    let body_at = out.len();
    put(out);
    let length = u32::try_from(out.len() - body_at).expect("a blob is shorter than 4 GiB");
    out[length_at..body_at].copy_from_slice(&length.to_be_bytes());
}

pub fn put_option<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    put_bool(out, value.is_some());
    if let Some(value) = value {
        put(out, value);
    }
}

/// The number of items, then each.
pub fn put_list<T>(out: &mut Vec<u8>, items: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    put_u32(out, u32::try_from(items.len()).expect("a list has fewer than 2^32 items"));
    items.iter().for_each(|item| put(out, item));
}

/// Grows by what has arrived, not by the number that is claimed.
pub fn read_list<T>(
    reader: &mut Reader<'_>,
    read: impl Fn(&mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = reader.u32("number of items")?;
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(read(reader)?);
    }
    Ok(items)
}
