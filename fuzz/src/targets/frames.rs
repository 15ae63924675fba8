//! The first bytes of a connection and the frames after them: the same, however they are cut into pieces.
//!
//! Input: a byte (odd: make the checksums right), three lengths of pieces, the stream.

use super::input::{Input, Pieces};
use crate::streams::{FRAME_LIMIT, cut_frames};
use raftkv::protocol::frame::{HEADER_BYTES, MAGIC};
use raftkv::protocol::sniff::{Sniffed, sniff};

pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let makes_checksums = input.byte() % 2 == 1;
    let pieces = Pieces::choose(&mut input);
    let stream = input.rest();
    check_sniff(stream);
    let mut frames = stream.strip_prefix(&MAGIC).unwrap_or(stream).to_vec();
    if makes_checksums {
        seal(&mut frames);
    }
    let at_once = cut_frames([&frames[..]]);
    assert_eq!(cut_frames(pieces.of(&frames)), at_once, "the pieces made a difference");
}

/// What the first bytes were taken for, more bytes do not change.
fn check_sniff(stream: &[u8]) {
    let mut decided = Sniffed::NeedMore;
    for end in 0..=stream.len().min(2 * MAGIC.len()) {
        let now = sniff(&stream[..end]);
        assert!(decided == Sniffed::NeedMore || decided == now, "{decided:?}, then {now:?}");
        decided = now;
    }
    assert!(stream.len() < MAGIC.len() || decided != Sniffed::NeedMore);
}

/// Makes the checksum of every frame right that is whole and within the limit.
fn seal(mut frames: &mut [u8]) {
    while let Some((header, rest)) = frames.split_at_mut_checked(HEADER_BYTES) {
        let (length, checksum) = header.split_at_mut(4);
        let length = u32::from_be_bytes(length.try_into().expect("4 bytes")) as usize;
        let Some((payload, rest)) = rest.split_at_mut_checked(length) else { return };
        if length <= FRAME_LIMIT {
            checksum.copy_from_slice(&crc32c::crc32c(payload).to_be_bytes());
        }
        frames = rest;
    }
}
