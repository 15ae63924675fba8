//! One file of the log: its name, the header that says where in the log it begins, and the copy of the
//! newest hard state.

use super::record::{put_hard_state, put_position, read_hard_state, read_position};
use super::sector::{DATA_BYTES, SECTOR_BYTES};
use super::{MAX_SEGMENT_BYTES, WalConfig};
use crate::codec::{Malformed, Reader, put_u32, put_u64};
use crate::raft::{HardState, Position};

/// One sector, so that writing the first batch does not touch the header's sector again.
pub const HEADER_BYTES: usize = SECTOR_BYTES;
/// Where the sector with the copy of the hard state begins.
pub const COPY_OFFSET: u64 = HEADER_BYTES as u64;
/// The first sector with batches, and where it begins.
pub const FIRST_SECTOR: u64 = 2;
pub const BATCHES_OFFSET: u64 = FIRST_SECTOR * SECTOR_BYTES as u64;
pub const FIRST_SEGMENT: u64 = 1;

const MAGIC: &[u8; 8] = b"RAFTKVWL";
const COPY_MAGIC: &[u8; 8] = b"RAFTKVHS";
const VERSION: u32 = 2;

/// Where the log stands between two batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub next_sequence: u64,
    /// The header CRC of the last batch; 0 before the first one.
    pub previous_crc: u32,
    /// The newest entry, or where the log begins if there is none.
    pub last: Position,
    pub hard_state: HardState,
}

impl Standing {
    /// Where an empty log stands.
    pub const START: Standing = Standing {
        next_sequence: 1,
        previous_crc: 0,
        last: Position { index: 0, term: 0 },
        hard_state: HardState { term: 0, voted_for: None },
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    pub number: u64,
    /// Bytes allocated for the file; whole sectors.
    pub capacity: u64,
    pub salt: u32,
    /// Of the segment that this file was before, if it was one: sectors with that salt are not in use.
    pub old_salt: Option<u32>,
    pub start: Standing,
}

/// Why there is no header.
#[derive(Debug, PartialEq, Eq)]
pub enum NoHeader {
    /// Never finished, or damaged.
    Damaged(&'static str),
    UnknownVersion(u32),
}

impl From<Malformed> for NoHeader {
    fn from(malformed: Malformed) -> Self {
        NoHeader::Damaged(malformed.0)
    }
}

impl SegmentHeader {
    pub fn new(number: u64, capacity: u64, config: &WalConfig, start: Standing) -> Self {
        let salt = fastrand::Rng::with_seed(config.salt_seed.rotate_left(32) ^ number).u32(..);
        SegmentHeader { number, capacity, salt, old_salt: None, start }
    }

    pub fn file_name(&self) -> String {
        file_name(self.number)
    }

    /// What a new segment begins with: this header, and the first copy of the hard state.
    pub fn front(&self) -> Vec<u8> {
        [self.encode(), encode_copy(self.number, self.start.hard_state)].concat()
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(MAGIC);
        put_u32(&mut out, VERSION);
        put_u32(&mut out, self.salt);
        put_u64(&mut out, self.number);
        put_u64(&mut out, self.capacity);
        put_u64(&mut out, self.start.next_sequence);
        put_u32(&mut out, self.start.previous_crc);
        put_position(&mut out, self.start.last);
        put_hard_state(&mut out, self.start.hard_state);
        out.push(u8::from(self.old_salt.is_some()));
        put_u32(&mut out, self.old_salt.unwrap_or_default());
        seal_sector(out)
    }

    /// The header at the front of a file.
    pub fn decode(file: &[u8]) -> Result<SegmentHeader, NoHeader> {
        let (covered, crc) = open_sector(file).ok_or(Malformed("the header is incomplete"))?;
        let mut reader = Reader::new(covered);
        if reader.take(MAGIC.len(), "magic")? != MAGIC {
            return Err(NoHeader::Damaged("it does not begin like a segment"));
        }
        if crc32c::crc32c(covered) != crc {
            return Err(NoHeader::Damaged("the header's checksum is wrong"));
        }
        match reader.u32("version")? {
            VERSION => {}
            other => return Err(NoHeader::UnknownVersion(other)),
        }
        let salt = reader.u32("salt")?;
        let number = reader.u64("segment number")?;
        let capacity = reader.u64("capacity")?;
        let start = Standing {
            next_sequence: reader.u64("sequence number")?,
            previous_crc: reader.u32("previous CRC")?,
            last: read_position(&mut reader)?,
            hard_state: read_hard_state(&mut reader)?,
        };
        let was_used = reader.u8("whether it was a segment before")? != 0;
        let old_salt = reader.u32("its salt before")?;
        let old_salt = was_used.then_some(old_salt);
        let is_possible = (BATCHES_OFFSET..=MAX_SEGMENT_BYTES).contains(&capacity)
            && capacity.is_multiple_of(SECTOR_BYTES as u64);
        if !is_possible {
            return Err(NoHeader::Damaged("the header claims an impossible size"));
        }
        Ok(SegmentHeader { number, capacity, salt, old_salt, start })
    }
}

/// The second sector of a segment: the hard state once more, so that a vote is not lost with the batch
/// that it was written in.
pub fn encode_copy(number: u64, hard_state: HardState) -> Vec<u8> {
    let mut out = Vec::with_capacity(SECTOR_BYTES);
    out.extend_from_slice(COPY_MAGIC);
    put_u64(&mut out, number);
    put_hard_state(&mut out, hard_state);
    seal_sector(out)
}

/// The copy in a segment's file, unless it is damaged.
pub fn decode_copy(number: u64, file: &[u8]) -> Option<HardState> {
    let sector = file.get(COPY_OFFSET as usize..BATCHES_OFFSET as usize)?;
    let mut reader = Reader::new(sector);
    reader.take(COPY_MAGIC.len() + 8, "magic and number").ok()?;
    let hard_state = read_hard_state(&mut reader).ok()?;
    // Only what is written byte for byte; that covers magic, number and checksum too.
    (encode_copy(number, hard_state) == sector).then_some(hard_state)
}

/// Fills a sector up, and puts the CRC at its end.
fn seal_sector(mut out: Vec<u8>) -> Vec<u8> {
    out.resize(DATA_BYTES, 0);
    let crc = crc32c::crc32c(&out);
    put_u32(&mut out, crc);
    out
}

/// What the CRC at the end of the first sector covers, and that CRC, which is not checked.
fn open_sector(bytes: &[u8]) -> Option<(&[u8], u32)> {
    let mut reader = Reader::new(bytes);
    let covered = reader.take(DATA_BYTES, "sector").ok()?;
    Some((covered, reader.u32("sector's CRC").ok()?))
}

/// Bytes of batches that fit into a segment of this size.
pub fn room(capacity: u64) -> u64 {
    capacity.saturating_sub(BATCHES_OFFSET) / SECTOR_BYTES as u64 * DATA_BYTES as u64
}

/// The size of a new segment with room for a batch of `frame_bytes`, however small segments are meant to
/// be.
pub fn capacity_for(config: &WalConfig, frame_bytes: u64) -> u64 {
    let sectors = FIRST_SECTOR + frame_bytes.div_ceil(DATA_BYTES as u64).max(1);
    let wanted = config.segment_bytes.min(MAX_SEGMENT_BYTES).next_multiple_of(SECTOR_BYTES as u64);
    wanted.max(sectors * SECTOR_BYTES as u64)
}

#[inline(never)]
pub fn file_name(number: u64) -> String {
    format!("wal-{number:016x}.log")
}

/// Whether a name claims to be a segment's, rightly or wrongly.
pub fn is_wal_name(name: &str) -> bool {
    name.starts_with("wal-")
}

/// The number in a segment's name; `None` for every name that [`file_name`] does not make.
pub fn number_in(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("wal-")?.strip_suffix(".log")?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    // The number after it must exist too.
    (number < u64::MAX && file_name(number) == name).then_some(number)
}
