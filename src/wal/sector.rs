//! Sectors: a disk writes one as a whole or not at all. So after a crash each is empty (all zero) or
//! holds what was once written there, and a sector that does neither has rotted. The log is a stream of
//! bytes laid out over the data parts of sectors, each under a checksum of its own; recovery can thus tell
//! what a crash left out from what the disk lost.

use std::ops::Range;

pub const SECTOR_BYTES: usize = 512;
/// Bytes of the stream in each sector; a CRC follows them.
pub const DATA_BYTES: usize = SECTOR_BYTES - 4;

/// Covers also where in the file the sector belongs, against writes that went elsewhere. Never 0, so that
/// no sector in use is all zero.
fn checksum(salt: u32, number: u64, data: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(salt, &number.to_be_bytes()), data).max(1)
}

/// How long the sectors are that hold `data`.
pub fn encoded_bytes(data: &[u8]) -> usize {
    data.len().div_ceil(DATA_BYTES) * SECTOR_BYTES
}

/// Appends the sectors that hold `data`, the first of which is the file's sector `first`. The last one is
/// filled up with zeros.
pub fn encode(salt: u32, first: u64, data: &[u8], out: &mut Vec<u8>) {
    out.reserve(encoded_bytes(data));
    for (number, part) in (first..).zip(data.chunks(DATA_BYTES)) {
        let start = out.len();
        out.extend_from_slice(part);
        out.resize(start + DATA_BYTES, 0);
        let crc = checksum(salt, number, &out[start..]);
        out.extend_from_slice(&crc.to_be_bytes());
    }
}

/// Ordered by what it means for bytes that cover several sectors: the worst one decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SectorState {
    Valid,
    /// All zero, or from an earlier life of the file: not written in this one, or not when the power went.
    Empty,
    Rotten,
}

/// Sectors as they were read.
pub struct Sectors {
    /// The stream; of a rotten sector whatever is there.
    pub data: Vec<u8>,
    states: Vec<SectorState>,
}

impl Sectors {
    /// Reads the sectors of a file from its sector `first` on. What is missing of the last one counts as
    /// zero, and so does what was written with `old_salt`.
    pub fn decode(salt: u32, old_salt: Option<u32>, first: u64, bytes: &[u8]) -> Sectors {
        let count = bytes.len().div_ceil(SECTOR_BYTES);
        let mut sectors =
            Sectors { data: Vec::with_capacity(count * DATA_BYTES), states: Vec::new() };
        for (number, sector) in (first..).zip(bytes.chunks(SECTOR_BYTES)) {
            let mut whole = [0; SECTOR_BYTES];
            whole[..sector.len()].copy_from_slice(sector);
            let (data, crc) = whole.split_at(DATA_BYTES);
            let is_sealed_with = |salt| checksum(salt, number, data).to_be_bytes() == crc;
            let state = if whole == [0; SECTOR_BYTES] {
                SectorState::Empty
            } else if is_sealed_with(salt) {
                SectorState::Valid
            } else if old_salt.is_some_and(is_sealed_with) {
                SectorState::Empty
            } else {
                SectorState::Rotten
            };
            sectors.states.push(state);
            match state {
                SectorState::Empty => sectors.data.resize(sectors.data.len() + DATA_BYTES, 0),
                _ => sectors.data.extend_from_slice(data),
            }
        }
        sectors
    }

    /// The worst sector that holds a part of `range`, which may go on beyond the end.
    #[inline(never)]
    pub fn state(&self, range: Range<usize>) -> SectorState {
        let touched = range.start / DATA_BYTES..range.end.div_ceil(DATA_BYTES);
        let states = self.states.iter().take(touched.end).skip(touched.start);
        states.copied().max().unwrap_or(SectorState::Valid)
    }

    /// Where in the stream the first rotten sector begins, not before the one that holds `from`.
    pub fn first_rotten(&self, from: usize) -> Option<usize> {
        let first = from / DATA_BYTES;
        let found = self.states.iter().skip(first).position(|&state| state == SectorState::Rotten);
        found.map(|at| (first + at) * DATA_BYTES)
    }

    /// The end of what is not empty: where in the stream the last such sector ends; 0 if there is none.
    pub fn used(&self) -> usize {
        let last = self.states.iter().rposition(|&state| state != SectorState::Empty);
        last.map_or(0, |last| (last + 1) * DATA_BYTES)
    }

    /// Whether nothing was ever written from here on.
    pub fn is_unused(&self, from: usize) -> bool {
        let next = from.next_multiple_of(DATA_BYTES);
        let here = self.data.get(from..next.min(self.data.len())).unwrap_or_default();
        self.state(from..next) != SectorState::Rotten
            && here.iter().all(|&byte| byte == 0)
            && self.used() <= next
    }
}
