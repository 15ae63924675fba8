//! Entries read back while the log goes on: those that its owner has dropped from memory, and a follower needs.
//!
//! Where on disk they are is remembered for one batch in [`PLACE_BYTES`]. Between two places entries come in
//! order, each once: a batch that replaces entries has a place, and the places of what it replaces are forgotten.

use super::record::{BATCH_HEADER_BYTES, BatchHeader, Record, Records};
use super::sector::{DATA_BYTES, SECTOR_BYTES, SectorState, Sectors};
use super::segment::{self, FIRST_SECTOR, HEADER_BYTES, SegmentHeader};
use super::{Disk, Wal, WalError};
use crate::raft::{Entry, Index};
use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};

/// Whoever looks for an entry reads at most so much before it, and the batch that it is in.
const PLACE_BYTES: u64 = 64 << 10;
/// Read at once.
const WINDOW_BYTES: u64 = 128 << 10;

/// A batch, and its first entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    first: Index,
    segment: u64,
    /// In bytes of the segment's stream.
    offset: u64,
}

/// Where entries are; both they and their places on disk rise.
#[derive(Debug, Default)]
pub struct Places {
    known: VecDeque<Place>,
    last_index: Index,
}

impl Places {
    /// A batch with these entries, of which the first is the lowest, is in a segment at `offset`.
    pub fn add(&mut self, entries: RangeInclusive<Index>, segment: u64, offset: u64) {
        let first = *entries.start();
        let is_next = first == self.last_index + 1;
        let is_near = self.known.back().is_some_and(|last| {
            last.segment == segment && offset.saturating_sub(last.offset) < PLACE_BYTES
        });
        self.last_index = *entries.end();
        if is_next && is_near {
            return;
        }
        while self.known.back().is_some_and(|last| last.first >= first) {
            self.known.pop_back();
        }
        self.known.push_back(Place { first, segment, offset });
    }

    /// What was before is void.
    pub fn clear(&mut self) {
        *self = Places::default();
    }

    /// The segments before this one are gone.
    pub fn forget_before(&mut self, segment: u64) {
        while self.known.front().is_some_and(|place| place.segment < segment) {
            self.known.pop_front();
        }
    }

    /// Where the entries before and from `index` on are, and where in the log that ends.
    fn find(&self, index: Index) -> Option<(Place, Option<Place>)> {
        let after = self.known.partition_point(|place| place.first <= index);
        let place = self.known[after.checked_sub(1)?];
        Some((place, self.known.get(after).copied()))
    }
}

impl<D: Disk> Wal<D> {
    /// Synced entries, from the first of `wanted` on: at least one, then as many as `bytes_max` allows; none if
    /// they were compacted.
    ///
    /// # Errors
    ///
    /// [`WalError::BadLog`] if what was read is not what was written. It is not said to be lost: a snapshot may
    /// have it. The disk's errors. None of them is final.
    pub fn read_entries(
        &self,
        wanted: RangeInclusive<Index>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, WalError> {
        let wanted = *wanted.start()..=self.standing.last.index.min(*wanted.end());
        let mut found =
            Found { entries: Vec::new(), next: *wanted.start(), wanted, room: bytes_max };
        while !found.is_full()
            && let Some((place, end)) = self.places.find(found.next)
        {
            let next = found.next;
            self.read_part(place, end, &mut found)?;
            if found.next == next && !found.is_full() {
                let what = format!("entry {next} is not where it was written");
                return Err(self.bad_log(place.segment, place.offset, what));
            }
        }
        Ok(found.entries)
    }

    /// From a place up to the next.
    fn read_part(
        &self,
        place: Place,
        end: Option<Place>,
        found: &mut Found,
    ) -> Result<(), WalError> {
        let mut part = self.open_part(place.segment)?;
        let salt = part.header.salt;
        let stop = end.filter(|end| end.segment == place.segment).map(|end| end.offset);
        let below = end.map_or(Index::MAX, |end| end.first);
        let mut at = place.offset;
        while stop.is_none_or(|stop| at < stop) && !found.is_full() && found.next < below {
            let Some(head) = self.read_stream(&mut part, at, BATCH_HEADER_BYTES as u64)? else {
                break;
            };
            let Some(header) = BatchHeader::decode(head, salt) else { break };
            let frame_bytes = header.frame_bytes() as u64;
            let frame = self.read_stream(&mut part, at, frame_bytes)?.unwrap_or_default();
            let payload = frame.get(BATCH_HEADER_BYTES..).unwrap_or_default();
            if !header.covers(payload, salt) || !found.take(payload, below) {
                let what = "a batch does not agree with its checksum".to_owned();
                return Err(self.bad_log(place.segment, at, what));
            }
            at += frame_bytes;
        }
        Ok(())
    }

    fn open_part(&self, segment: u64) -> Result<Part, WalError> {
        let name = segment::file_name(segment);
        let read = self.disk.read_at(&name, 0, HEADER_BYTES);
        let front = read.map_err(|e| WalError::io("read", self.disk.path(&name), e))?;
        match SegmentHeader::decode(&front) {
            Ok(header) if header.number == segment => {
                Ok(Part { header, data: Vec::new(), start: 0 })
            }
            _ => Err(self.bad_log(segment, 0, "the header is not the segment's".to_owned())),
        }
    }

    /// Bytes of a segment's stream; `None` if it ends before, or nothing was written there.
    fn read_stream<'a>(
        &self,
        part: &'a mut Part,
        at: u64,
        bytes: u64,
    ) -> Result<Option<&'a [u8]>, WalError> {
        let wanted = at..at + bytes;
        if wanted.end > segment::room(part.header.capacity) {
            return Ok(None);
        }
        if part.range(&wanted).is_none() {
            self.read_window(part, &wanted)?;
        }
        Ok(part.range(&wanted).map(|range| &part.data[range]))
    }

    /// Whole sectors, up to the first that does not hold a part of the log.
    fn read_window(&self, part: &mut Part, wanted: &Range<u64>) -> Result<(), WalError> {
        let first = wanted.start / DATA_BYTES as u64;
        let end = wanted.end.max(wanted.start + WINDOW_BYTES).div_ceil(DATA_BYTES as u64);
        let number = FIRST_SECTOR + first;
        let name = segment::file_name(part.header.number);
        let (offset, count) = (number * SECTOR_BYTES as u64, end - first);
        let read = self.disk.read_at(&name, offset, count as usize * SECTOR_BYTES);
        let bytes = read.map_err(|e| WalError::io("read", self.disk.path(&name), e))?;
        let sectors = Sectors::decode(part.header.salt, part.header.old_salt, number, &bytes);
        let is_used = |sector: &usize| {
            let start = sector * DATA_BYTES;
            sectors.state(start..start + DATA_BYTES) == SectorState::Valid
        };
        let used = (0..sectors.data.len() / DATA_BYTES).take_while(is_used).count();
        part.data = sectors.data;
        part.data.truncate(used * DATA_BYTES);
        part.start = first * DATA_BYTES as u64;
        Ok(())
    }

    fn bad_log(&self, segment: u64, at: u64, what: String) -> WalError {
        let file = self.disk.path(&segment::file_name(segment));
        WalError::BadLog { file, at, what }
    }
}

/// A segment, and some of its stream.
struct Part {
    header: SegmentHeader,
    data: Vec<u8>,
    /// Where in the stream `data` begins.
    start: u64,
}

impl Part {
    /// Where in `data` these bytes of the stream are.
    fn range(&self, wanted: &Range<u64>) -> Option<Range<usize>> {
        let start = wanted.start.checked_sub(self.start)? as usize;
        let end = start + (wanted.end - wanted.start) as usize;
        (end <= self.data.len()).then_some(start..end)
    }
}

struct Found {
    entries: Vec<Entry>,
    next: Index,
    wanted: RangeInclusive<Index>,
    /// Bytes that entries may still have.
    room: usize,
}

impl Found {
    fn is_full(&self) -> bool {
        self.next > *self.wanted.end() || self.room == 0 && !self.entries.is_empty()
    }

    /// Takes what is wanted of a batch, up to the index from which on entries were replaced. Returns whether all
    /// of it could be read.
    fn take(&mut self, payload: &[u8], below: Index) -> bool {
        let mut of_batch: Vec<Entry> = Vec::new();
        for record in Records::new(payload) {
            match record {
                Ok(Record::Entry(entry)) => {
                    of_batch.truncate(of_batch.partition_point(|other| other.index < entry.index));
                    of_batch.push(entry);
                }
                Ok(Record::Base(_)) => of_batch.clear(),
                Err(_) => return false,
            }
        }
        for entry in of_batch.into_iter().filter(|entry| entry.index < below) {
            if entry.index == self.next && !self.is_full() {
                self.push(entry);
            }
        }
        true
    }

    fn push(&mut self, entry: Entry) {
        let cost = entry.cost_bytes();
        if cost > self.room && !self.entries.is_empty() {
            self.room = 0;
            return;
        }
        self.room = self.room.saturating_sub(cost);
        self.next += 1;
        self.entries.push(entry);
    }
}
