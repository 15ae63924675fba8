//! Bytes of commands, shared by all who have to do with them.

use std::fmt;
use std::ops::{Deref, Range};
use std::rc::Rc;

/// A part of a block of bytes. The commands of one message are parts of one block: taking them in is one allocation,
/// and letting go of them touches no memory of theirs.
///
/// A block is there as long as any part of it, so whoever keeps a part for long counts more than that, or
/// [detaches](Bytes::detach) it. The log drops entries in their order, the oldest first: of what it has dropped, it
/// keeps the rest of the one block that its first entry is in, and that of one more for each time its end was
/// replaced. A block is as large as one message.
#[derive(Clone)]
pub struct Bytes {
    block: Rc<[u8]>,
    start: u32,
    end: u32,
}

impl Bytes {
    pub fn part_of(block: &Rc<[u8]>, part: Range<usize>) -> Self {
        assert!(part.start <= part.end && part.end <= block.len(), "a part lies in its block");
        Bytes { block: Rc::clone(block), start: place(part.start), end: place(part.end) }
    }

    /// Gives the bytes a block of their own, if they are only a part of one.
    #[inline(never)]
    pub fn detach(&mut self) {
        if self.len() < self.block.len() {
            *self = (&**self).into();
        }
    }

    /// For writing; those who share the bytes keep them as they are.
    #[inline(never)]
    pub fn make_mut(&mut self) -> &mut [u8] {
        if Rc::get_mut(&mut self.block).is_none() {
            *self = (&**self).into();
        }
        let range = self.range();
        &mut Rc::get_mut(&mut self.block).expect("nobody else has it")[range]
    }

    fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

fn place(at: usize) -> u32 {
    u32::try_from(at).expect("a block is shorter than 4 GiB")
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.block[self.range()]
    }
}

impl From<Rc<[u8]>> for Bytes {
    fn from(block: Rc<[u8]>) -> Self {
        let end = place(block.len());
        Bytes { block, start: 0, end }
    }
}

impl From<&[u8]> for Bytes {
    #[inline(never)]
    fn from(bytes: &[u8]) -> Self {
        Rc::<[u8]>::from(bytes).into()
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        bytes.as_slice().into()
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Bytes {}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_its_bytes_and_is_detached_from_all_others() {
        let block: Rc<[u8]> = (*b"0123456789").into();
        let gone = Rc::downgrade(&block);
        let mut part = Bytes::part_of(&block, 2..5);
        let mut whole = Bytes::from(block);
        assert_eq!((&*part, &*whole), (&b"234"[..], &b"0123456789"[..]));
        assert_eq!(part, Bytes::from(b"234".to_vec()));
        whole.detach();
        assert!(Rc::ptr_eq(&whole.block, &part.block), "a whole block is nobody else's to keep");
        part.detach();
        drop(whole);
        assert!(gone.upgrade().is_none());
        assert_eq!(&*part, b"234");
    }

    #[test]
    fn writing_leaves_others_as_they_are_and_copies_only_for_them() {
        let mut bytes = Bytes::from(b"abc".to_vec());
        let place = bytes.as_ptr();
        bytes.make_mut()[0] = b'x';
        assert_eq!((&*bytes, bytes.as_ptr()), (&b"xbc"[..], place));
        let kept = bytes.clone();
        bytes.make_mut()[1] = b'y';
        assert_eq!((&*bytes, &*kept), (&b"xyc"[..], &b"xbc"[..]));
    }
}
