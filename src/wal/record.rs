//! Batches and the records in them, as bytes. The layouts are in the head of the parent module.

use super::MAX_BATCH_BYTES;
use crate::codec::{Malformed, Reader, put_bool, put_sized, put_u8, put_u32, put_u64};
use crate::payload::{put_payload, read_payload};
use crate::raft::{Entry, HardState, Position};

pub const BATCH_HEADER_BYTES: usize = 45;
pub const BATCH_MAGIC: &[u8; 4] = b"btch";
/// The part of the header that its own CRC covers.
const COVERED_BYTES: usize = BATCH_HEADER_BYTES - 4;

const ENTRY: u8 = 1;
const BASE: u8 = 2;
const NEXT_ENTRY: u8 = 3;

/// CRC32C that starts from the salt of a segment instead of from 0.
fn salted_crc(salt: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(salt, bytes)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub payload_bytes: u32,
    pub sequence: u64,
    pub previous_crc: u32,
    /// After this batch.
    pub hard_state: HardState,
    pub payload_crc: u32,
    /// The CRC of the fields above; the next batch repeats it.
    pub crc: u32,
}

impl BatchHeader {
    /// Fills the header in at the front of a finished batch, and returns its CRC.
    pub fn seal(
        batch: &mut [u8],
        sequence: u64,
        previous_crc: u32,
        hard_state: HardState,
        salt: u32,
    ) -> u32 {
        let (room, payload) = batch.split_at_mut(BATCH_HEADER_BYTES);
        let mut header = Vec::with_capacity(BATCH_HEADER_BYTES);
        header.extend_from_slice(BATCH_MAGIC);
        put_u32(&mut header, u32::try_from(payload.len()).expect("a batch is below its limit"));
        put_u64(&mut header, sequence);
        put_u32(&mut header, previous_crc);
        put_hard_state(&mut header, hard_state);
        put_u32(&mut header, salted_crc(salt, payload));
        let crc = salted_crc(salt, &header);
        put_u32(&mut header, crc);
        room.copy_from_slice(&header);
        crc
    }

    /// The header at the front of `bytes`, if there is one that [`BatchHeader::seal`] can have made.
    pub fn decode(bytes: &[u8], salt: u32) -> Option<BatchHeader> {
        let bytes = bytes.get(..BATCH_HEADER_BYTES)?;
        let mut reader = Reader::new(bytes);
        if reader.take(BATCH_MAGIC.len(), "magic").ok()? != BATCH_MAGIC {
            return None;
        }
        let header = BatchHeader {
            payload_bytes: reader.u32("payload length").ok()?,
            sequence: reader.u64("sequence number").ok()?,
            previous_crc: reader.u32("previous CRC").ok()?,
            hard_state: read_hard_state(&mut reader).ok()?,
            payload_crc: reader.u32("payload CRC").ok()?,
            crc: reader.u32("header CRC").ok()?,
        };
        let is_ours = header.payload_bytes as usize <= MAX_BATCH_BYTES
            && salted_crc(salt, &bytes[..COVERED_BYTES]) == header.crc;
        is_ours.then_some(header)
    }

    pub fn frame_bytes(&self) -> usize {
        BATCH_HEADER_BYTES + self.payload_bytes as usize
    }

    /// Whether these are the bytes that the batch was sealed with.
    pub fn covers(&self, payload: &[u8], salt: u32) -> bool {
        salted_crc(salt, payload) == self.payload_crc
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    Entry(Entry),
    /// The log before is void; the next entry follows this position.
    Base(Position),
}

/// `before` is the position of the entry that the record before it in its batch is, if it is one.
pub fn put_entry(out: &mut Vec<u8>, before: Option<Position>, entry: &Entry) {
    let position = Position { index: entry.index, term: entry.term };
    if before.and_then(next) == Some(position) {
        put_record(out, NEXT_ENTRY, |out| put_payload(out, &entry.payload));
        return;
    }
    put_record(out, ENTRY, |out| {
        put_u64(out, entry.term);
        put_u64(out, entry.index);
        put_payload(out, &entry.payload);
    });
}

/// The position of a [`NEXT_ENTRY`] after this one.
fn next(before: Position) -> Option<Position> {
    Some(Position { index: before.index.checked_add(1)?, term: before.term })
}

pub fn put_base(out: &mut Vec<u8>, base: Position) {
    put_record(out, BASE, |out| put_position(out, base));
}

fn put_record(out: &mut Vec<u8>, kind: u8, put_body: impl FnOnce(&mut Vec<u8>)) {
    put_u8(out, kind);
    put_sized(out, put_body);
}

/// The records of a batch, in order. After an error nothing more can be read.
pub struct Records<'a> {
    unread: Reader<'a>,
    /// What a [`NEXT_ENTRY`] goes by: the entry that the record before it is, if it is one.
    before: Option<Position>,
}

impl<'a> Records<'a> {
    pub fn new(payload: &'a [u8]) -> Self {
        Records { unread: Reader::new(payload), before: None }
    }

    pub fn unread_bytes(&self) -> usize {
        self.unread.rest().len()
    }

    fn read(&mut self) -> Result<Record, Malformed> {
        let kind = self.unread.u8("record type")?;
        let mut body = Reader::new(self.unread.blob("record length")?);
        let position = match kind {
            ENTRY => {
                let term = body.u64("entry's term")?;
                Position { index: body.u64("entry's index")?, term }
            }
            NEXT_ENTRY => self
                .before
                .and_then(next)
                .ok_or(Malformed("record: a next entry without the one before it"))?,
            BASE => {
                let base = read_position(&mut body)?;
                body.finish("base's length")?;
                self.before = None;
                return Ok(Record::Base(base));
            }
            _ => return Err(Malformed("record: its type is unknown")),
        };
        self.before = Some(position);
        let Position { index, term } = position;
        Ok(Record::Entry(Entry {
            term,
            index,
            payload: read_payload(body, &|command| command.into())?,
        }))
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.unread.is_empty()).then(|| self.read())
    }
}

pub fn put_position(out: &mut Vec<u8>, position: Position) {
    put_u64(out, position.index);
    put_u64(out, position.term);
}

pub fn read_position(reader: &mut Reader<'_>) -> Result<Position, Malformed> {
    Ok(Position { index: reader.u64("position's index")?, term: reader.u64("position's term")? })
}

pub fn put_hard_state(out: &mut Vec<u8>, hard_state: HardState) {
    put_u64(out, hard_state.term);
    put_bool(out, hard_state.voted_for.is_some());
    put_u64(out, hard_state.voted_for.unwrap_or(0));
}

pub fn read_hard_state(reader: &mut Reader<'_>) -> Result<HardState, Malformed> {
    let term = reader.u64("hard state's term")?;
    let voted = reader.bool("hard state's vote")?;
    let vote = reader.u64("hard state's vote")?;
    Ok(HardState { term, voted_for: voted.then_some(vote) })
}
