//! Reading the log: which of its segments are whole, which continue each other, and where and why that
//! ends. Nothing is changed here.
//!
//! What is read becomes a row of [`Run`]s: segments that continue each other without a hole. A sound log
//! is one run. Several can be left of a log whose oldest segments a crash removed only in part, or of one
//! that the disk has damaged; [`super::recovery`] says which of them counts.

use super::entries::Places;
use super::record::{BATCH_HEADER_BYTES, BATCH_MAGIC, BatchHeader, Record, Records};
use super::sector::{DATA_BYTES, SECTOR_BYTES, SectorState, Sectors};
use super::segment::{
    self, BATCHES_OFFSET, COPY_OFFSET, FIRST_SECTOR, FIRST_SEGMENT, NoHeader, SegmentHeader,
    Standing,
};
use super::shape::{LogShape, raise};
use super::{Closed, Disk, WalError};
use crate::raft::{Entry, HardState, Index, Position};
use std::collections::VecDeque;
use std::path::PathBuf;

/// Why there is no further batch in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Nothing was ever written from here on.
    Clean,
    /// Something is here, all of it in sound sectors, but no whole batch: what a crash kept of the last
    /// one, perhaps mixed with what it kept of an earlier last one that was cut off before.
    Torn,
    /// No crash leaves this behind.
    Damaged {
        /// Bytes from the start of the file.
        offset: u64,
        what: String,
    },
}

/// A segment with a valid header, as it was read.
pub struct Segment {
    pub header: SegmentHeader,
    /// The copy of the hard state, unless it is damaged.
    pub copy: Option<HardState>,
    pub sectors: Sectors,
    pub file_bytes: u64,
    path: PathBuf,
    /// The end of the last valid batch, in bytes of the stream, and where that batch begins.
    pub end: usize,
    pub last_batch: usize,
    /// The highest index of an entry in it; 0 if there is none.
    pub last_index: Index,
    pub stop: Stop,
}

impl Segment {
    fn new(header: SegmentHeader, bytes: &[u8], path: PathBuf) -> Self {
        let used = bytes.len().min(usize::try_from(header.capacity).unwrap_or(usize::MAX));
        let batches = bytes.get(BATCHES_OFFSET as usize..used).unwrap_or_default();
        Segment {
            header,
            copy: segment::decode_copy(header.number, bytes),
            sectors: Sectors::decode(header.salt, header.old_salt, FIRST_SECTOR, batches),
            file_bytes: bytes.len() as u64,
            path,
            end: 0,
            last_batch: 0,
            last_index: 0,
            stop: Stop::Clean,
        }
    }

    /// The header of the batch at the end, which is whole.
    fn next_batch(&self, standing: &Standing) -> Result<BatchHeader, Stop> {
        let start = self.end;
        if self.sectors.is_unused(start) {
            return Err(Stop::Clean);
        }
        let head = start..start + BATCH_HEADER_BYTES;
        let header = match self.sectors.state(head.clone()) {
            SectorState::Rotten => return Err(self.rotten(start)),
            SectorState::Empty => None,
            SectorState::Valid => {
                let bytes = self.sectors.data.get(head).unwrap_or_default();
                BatchHeader::decode(bytes, self.header.salt)
            }
        };
        let Some(header) = header else { return Err(Stop::Torn) };
        // From here on the header is one that this node wrote: what contradicts it was never written so.
        let expected = standing.next_sequence;
        let frame = start..start + header.frame_bytes();
        if header.sequence != expected {
            let found = header.sequence;
            let what = format!("batch {found} is here, where batch {expected} should be");
            return Err(self.damaged(start, what));
        }
        if header.previous_crc != standing.previous_crc {
            let what = format!("batch {expected} does not follow the batch before it");
            return Err(self.damaged(start, what));
        }
        if frame.end as u64 > segment::room(self.header.capacity) {
            let what = format!("batch {expected} is longer than its segment");
            return Err(self.damaged(start, what));
        }
        match self.sectors.state(frame.clone()) {
            SectorState::Rotten => return Err(self.rotten(start)),
            SectorState::Empty => return Err(Stop::Torn),
            SectorState::Valid => {}
        }
        // A file that ends too early has fewer sectors than its header says.
        match self.sectors.data.get(start + BATCH_HEADER_BYTES..frame.end) {
            Some(payload) if header.covers(payload, self.header.salt) => Ok(header),
            _ => Err(Stop::Torn),
        }
    }

    /// What can only be said once all batches are read: whether the rest can come from a crash. Anything
    /// valid there can not: it was written after the sync of what is bad before it.
    fn judge_rest(&mut self, next_sequence: u64) {
        if matches!(self.stop, Stop::Damaged { .. }) {
            return;
        }
        let later = self.headers_from(self.end).find(|(_, header)| header.sequence > next_sequence);
        if self.sectors.first_rotten(self.end).is_some() {
            self.stop = self.rotten(self.end);
        } else if let Some((at, _)) = later {
            let at = file_offset(at);
            let what = format!("no valid batch, but a later one's header follows at byte {at}");
            self.stop = self.damaged(self.end, what);
        } else if self.file_bytes < self.header.capacity {
            let made = self.header.capacity;
            let what = format!("the file ends here; it was made {made} bytes long");
            self.stop = Stop::Damaged { offset: self.file_bytes, what };
        }
    }

    /// Every batch header from a place on, with where it begins. Somebody may keep copies of this very file
    /// as values: so only what a header newer than expected says means anything.
    fn headers_from(&self, place: usize) -> impl Iterator<Item = (usize, BatchHeader)> {
        let data = &self.sectors.data[..self.sectors.used()];
        let magic = BATCH_MAGIC.as_slice();
        let starts = (place..data.len()).filter(move |&at| data[at..].starts_with(magic));
        starts.filter_map(move |at| {
            BatchHeader::decode(&data[at..], self.header.salt).map(|header| (at, header))
        })
    }

    fn rotten(&self, from: usize) -> Stop {
        let at = self.sectors.first_rotten(from).unwrap_or(from);
        self.damaged(at, "a sector's checksum is wrong")
    }

    fn damaged(&self, at: usize, what: impl Into<String>) -> Stop {
        Stop::Damaged { offset: file_offset(at), what: what.into() }
    }

    /// Bytes of the file from the end of the last valid batch to the last one that is not zero.
    pub fn torn_bytes(&self) -> u64 {
        let data = &self.sectors.data;
        let used = data.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        file_offset(used.max(self.end)) - file_offset(self.end)
    }

    /// The newest hard state that is found in this file, whether it can be reached by reading or not.
    fn raise_hard_state(&self, hard_state: &mut HardState) {
        raise(hard_state, self.header.start.hard_state);
        for (_, header) in self.headers_from(self.end) {
            raise(hard_state, header.hard_state);
        }
    }
}

/// Where a byte of the stream is in the file.
fn file_offset(at: usize) -> u64 {
    BATCHES_OFFSET + (at / DATA_BYTES * SECTOR_BYTES + at % DATA_BYTES) as u64
}

/// Segments that continue each other, and what they amount to.
pub struct Run {
    pub standing: Standing,
    pub shape: LogShape,
    /// Contiguous; empty if nothing follows where the run begins.
    pub entries: Vec<Entry>,
    pub places: Places,
    pub closed: VecDeque<Closed>,
    pub newest: Segment,
    /// Why the log does not go on after it, though it should.
    pub hole: Option<String>,
}

impl Run {
    fn new(segment: Segment) -> Self {
        let start = segment.header.start;
        let mut run = Run {
            standing: start,
            shape: LogShape::starting_after(start.last, start.hard_state),
            entries: Vec::new(),
            places: Places::default(),
            closed: VecDeque::new(),
            newest: segment,
            hole: None,
        };
        run.read_batches();
        run
    }

    fn extend(&mut self, segment: Segment) {
        let before = std::mem::replace(&mut self.newest, segment);
        self.closed.push_back(Closed {
            number: before.header.number,
            bytes: before.file_bytes,
            last_index: before.last_index,
            salt: None,
        });
        self.read_batches();
    }

    fn read_batches(&mut self) {
        let stop = loop {
            match self.newest.next_batch(&self.standing) {
                Err(stop) => break stop,
                Ok(header) => {
                    if let Err((at, what)) = self.apply(&header) {
                        break self.newest.damaged(at, what);
                    }
                }
            }
        };
        self.newest.stop = stop;
        self.newest.judge_rest(self.standing.next_sequence);
    }

    /// Takes a whole batch or nothing of it.
    fn apply(&mut self, header: &BatchHeader) -> Result<(), (usize, String)> {
        let start = self.newest.end;
        let frame_end = start + header.frame_bytes();
        let mut shape = self.shape.clone();
        shape.put_hard_state(header.hard_state).map_err(|what| (start, what))?;
        let payload = &self.newest.sectors.data[start + BATCH_HEADER_BYTES..frame_end];
        let mut unread = Records::new(payload);
        let mut records = Vec::new();
        loop {
            let at = frame_end - unread.unread_bytes();
            let Some(record) = unread.next() else { break };
            let record = record.map_err(|e| (at, e.to_string()))?;
            match &record {
                Record::Entry(entry) => {
                    shape.put_entry(entry.index, entry.term).map_err(|what| (at, what))?;
                }
                Record::Base(base) => shape.reset(*base),
            }
            records.push(record);
        }
        self.note_place(&records, start as u64);
        records.into_iter().for_each(|record| self.take(record));
        self.shape = shape;
        self.standing = Standing {
            next_sequence: header.sequence.saturating_add(1),
            previous_crc: header.crc,
            last: self.shape.last(),
            hard_state: self.shape.hard_state(),
        };
        self.newest.last_batch = start;
        self.newest.end = frame_end;
        Ok(())
    }

    /// Where the entries of a batch are.
    fn note_place(&mut self, records: &[Record], offset: u64) {
        let mut span = None;
        for record in records {
            match record {
                Record::Entry(Entry { index, .. }) => {
                    let (first, _) = span.unwrap_or((*index, 0));
                    span = Some((first.min(*index), *index));
                }
                Record::Base(_) => {
                    self.places.clear();
                    span = None;
                }
            }
        }
        if let Some((first, last)) = span {
            self.places.add(first..=last, self.newest.header.number, offset);
        }
    }

    fn take(&mut self, record: Record) {
        match record {
            Record::Entry(entry) => {
                let first = self.entries.first().map_or(entry.index, |first| first.index);
                self.entries.truncate(entry.index.saturating_sub(first) as usize);
                self.newest.last_index = self.newest.last_index.max(entry.index);
                self.entries.push(entry);
            }
            Record::Base(_) => {
                self.entries.clear();
                self.newest.last_index = 0;
                self.closed.iter_mut().for_each(|closed| closed.last_index = 0);
            }
        }
    }

    /// Whether this and a snapshot (or with 0/0 nothing) are all there is of the log up to the run's end:
    /// either goes on where the other ends, or they overlap.
    pub fn connects_to(&self, snapshot: Position) -> bool {
        snapshot.index > self.shape.last().index || self.shape.term_at(snapshot.index).is_some()
    }

    /// The log is whole without the copy of the hard state, but a person may want to know.
    pub fn damage_to_copy(&self) -> Option<String> {
        let what = "the copy of the term and vote, which is written anew";
        self.newest.copy.is_none().then(|| damage_at(&self.newest, COPY_OFFSET, what))
    }

    pub fn has_number(&self, number: u64) -> bool {
        let first = self.closed.front().map_or(self.newest.header.number, |closed| closed.number);
        (first..=self.newest.header.number).contains(&number)
    }

    fn is_continued_by(&self, header: &SegmentHeader) -> bool {
        self.newest.header.number + 1 == header.number && header.start == self.standing
    }

    /// Why the newest segment does not lead on to the next one.
    fn why_not(&self, next: &SegmentHeader) -> String {
        let path = self.newest.path.display();
        let at = file_offset(self.newest.end);
        let (found, begins) = (self.standing.next_sequence, next.start.next_sequence);
        match &self.newest.stop {
            _ if found == begins => format!(
                "{} does not begin where the log before it ends, at byte {at} of {path}",
                next.file_name()
            ),
            Stop::Damaged { offset, what } => damage_at(&self.newest, *offset, what),
            _ => format!(
                "{path} is damaged at byte {at}: nothing valid is here, where batch {found} \
                 should be; the next segment begins with batch {begins}"
            ),
        }
    }
}

fn damage_at(segment: &Segment, offset: u64, what: &str) -> String {
    format!("{} is damaged at byte {offset}: {what}", segment.path.display())
}

/// A place where the log breaks off though it goes on.
pub struct Hole {
    pub what: String,
    /// There should be a segment and is none. A crash in the middle of a compaction does that too.
    pub is_missing: bool,
}

/// All that is left of the log.
pub struct Replay {
    pub runs: Vec<Run>,
    /// Why there is not just one run.
    pub holes: Vec<Hole>,
    /// The highest that any part of any segment knows of.
    pub hard_state: HardState,
    /// Whether no higher one can be lost.
    pub is_hard_state_certain: bool,
    /// Numbers of all segments, rising.
    pub numbers: Vec<u64>,
}

impl Replay {
    /// Reads every segment there is.
    ///
    /// # Errors
    ///
    /// Of the disk; a format version of the future; names that no segment of this log has.
    pub fn read<D: Disk>(disk: &D, names: &[String]) -> Result<Replay, WalError> {
        let numbers = segment_numbers(disk, names)?;
        let mut replay = Replay {
            runs: Vec::new(),
            holes: Vec::new(),
            hard_state: HardState::default(),
            is_hard_state_certain: true,
            numbers: Vec::new(),
        };
        for number in numbers {
            replay.read_segment(disk, number)?;
            replay.numbers.push(number);
        }
        if let Some(run) = replay.runs.last_mut()
            && run.hole.is_none()
            && let Stop::Damaged { offset, what } = &run.newest.stop
        {
            run.hole = Some(damage_at(&run.newest, *offset, what));
        }
        Ok(replay)
    }

    fn read_segment<D: Disk>(&mut self, disk: &D, number: u64) -> Result<(), WalError> {
        let name = segment::file_name(number);
        let path = disk.path(&name);
        let bytes = disk.read(&name).map_err(|e| WalError::io("read", path.clone(), e))?;
        self.note_missing(disk, number);
        match SegmentHeader::decode(&bytes) {
            Ok(header) if header.number != number => {
                let what = "it is a segment under the name of another";
                Err(WalError::corrupt(path, 0, what))
            }
            Ok(header) => {
                self.add(Segment::new(header, &bytes, path));
                Ok(())
            }
            Err(NoHeader::UnknownVersion(version)) => {
                Err(WalError::UnknownVersion { file: path, version })
            }
            Err(NoHeader::Damaged(what)) => {
                let what = format!("{} is damaged at byte 0: {what}", path.display());
                self.end_run(&what, false);
                let copy = segment::decode_copy(number, &bytes);
                self.is_hard_state_certain = copy.is_some();
                raise(&mut self.hard_state, copy.unwrap_or_default());
                Ok(())
            }
        }
    }

    /// Says so if the segment before this one is not there.
    fn note_missing<D: Disk>(&mut self, disk: &D, number: u64) {
        let before = self.numbers.last().copied();
        let expected = before.map_or(FIRST_SEGMENT, |before| before + 1);
        if number == expected {
            return;
        }
        if before.is_some() {
            let missing = disk.path(&segment::file_name(expected));
            let present = segment::file_name(number);
            let what = format!("{} is missing, though {present} is there", missing.display());
            self.end_run(&what, true);
        }
    }

    fn end_run(&mut self, why: &str, is_missing: bool) {
        self.holes.push(Hole { what: why.to_owned(), is_missing });
        if let Some(run) = self.runs.last_mut()
            && run.hole.is_none()
        {
            run.hole = Some(why.to_owned());
        }
    }

    fn add(&mut self, segment: Segment) {
        let header = segment.header;
        let continues = |run: &&mut Run| run.hole.is_none() && run.is_continued_by(&header);
        if let Some(run) = self.runs.last_mut().filter(continues) {
            run.extend(segment);
        } else {
            if let Some(run) = self.runs.last()
                && run.hole.is_none()
            {
                let why = run.why_not(&header);
                self.end_run(&why, false);
            }
            self.runs.push(Run::new(segment));
        }
        let run = self.runs.last().expect("one was just pushed or extended");
        let segment = &run.newest;
        raise(&mut self.hard_state, run.standing.hard_state);
        segment.raise_hard_state(&mut self.hard_state);
        raise(&mut self.hard_state, segment.copy.unwrap_or_default());
        let is_sound = !matches!(segment.stop, Stop::Damaged { .. });
        self.is_hard_state_certain = is_sound || segment.copy.is_some();
    }
}

/// The numbers of all segments, rising.
fn segment_numbers<D: Disk>(disk: &D, names: &[String]) -> Result<Vec<u64>, WalError> {
    let mut numbers = Vec::new();
    for name in names.iter().filter(|name| segment::is_wal_name(name)) {
        let Some(number) = segment::number_in(name) else {
            let what = "its name looks like a segment's, but is none";
            return Err(WalError::corrupt(disk.path(name), 0, what));
        };
        numbers.push(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}
