//! One snapshot file: opaque bytes, the *payload*, under a checksum per block, so that any part of it can
//! be read and trusted by itself, and so that none of it is ever in memory as a whole.
//!
//! ```text
//! header (64 bytes, written last)
//!     0   8  magic "RAFTKVSN"
//!     8   4  format version, 1
//!    12   4  salt: where the CRCs of this file's blocks begin, instead of at 0
//!    16   8  index of the last entry that the snapshot includes
//!    24   8  the term of that entry
//!    32   8  payload length in bytes
//!    40   4  CRC of the whole payload
//!    44  16  zero
//!    60   4  CRC of bytes 0..60
//! block, as many as the payload needs
//!     0   4  length in bytes: 65536, or in the last block what is left (never 0)
//!     4   .  that part of the payload
//!     .   4  CRC of the block's number (8 bytes, from 0), its length and its data, salted
//! ```
//!
//! Integers are big-endian, CRC is CRC32C. Nothing follows the last block. All blocks but the last are
//! equally long, so the block that holds a given byte is found by arithmetic. The header is written when
//! the payload is complete; until then its place is zero, and the file has a temporary name.

use super::{Disk, WalError};
use crate::codec::{Malformed, Reader, put_u32, put_u64};
use crate::raft::Position;

/// Bytes of payload in each block but the last.
pub const BLOCK_BYTES: usize = 64 << 10;

/// A sync waits for the file system's journal, whatever there is to be written: so a snapshot is not synced with each
/// piece, but before one that would make more than so much of it that is not. Most of that is on disk by then, as it
/// was written in earlier turns ([`Disk::start_writing`]).
pub const SYNC_BYTES: usize = 512 << 10;

const HEADER_BYTES: usize = 64;
/// Length before, CRC behind a block's data.
const FRAME_BYTES: usize = BLOCK_BYTES + 4 + 4;
const COVERED_BYTES: usize = HEADER_BYTES - 4;
const MAGIC: &[u8; 8] = b"RAFTKVSN";
const VERSION: u32 = 1;
/// Bytes read at once when a whole file is checked.
const CHECK_BLOCKS: u64 = 4;

/// A finished snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotFile {
    /// The last entry that it includes.
    pub position: Position,
    pub payload_bytes: u64,
}

/// Why a file is not the snapshot that it should be.
pub enum Problem {
    Bad {
        offset: u64,
        what: String,
    },
    /// Of the disk, or a format version of the future: nothing is said about the content.
    Error(WalError),
}

impl Problem {
    fn bad(offset: u64, what: impl Into<String>) -> Self {
        Problem::Bad { offset, what: what.into() }
    }
}

#[inline(never)]
pub fn file_name(position: Position) -> String {
    format!("snapshot-{:016x}-{:016x}", position.index, position.term)
}

/// The position in a snapshot's name; `None` for every name that [`file_name`] does not make.
pub fn position_in(name: &str) -> Option<Position> {
    let (index, term) = name.strip_prefix("snapshot-")?.split_once('-')?;
    let hex = |digits| u64::from_str_radix(digits, 16).ok();
    let position = Position { index: hex(index)?, term: hex(term)? };
    (file_name(position) == name).then_some(position)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub file: SnapshotFile,
    salt: u32,
    payload_crc: u32,
}

impl Header {
    pub fn file_name(&self) -> String {
        file_name(self.file.position)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(MAGIC);
        put_u32(&mut out, VERSION);
        put_u32(&mut out, self.salt);
        put_u64(&mut out, self.file.position.index);
        put_u64(&mut out, self.file.position.term);
        put_u64(&mut out, self.file.payload_bytes);
        put_u32(&mut out, self.payload_crc);
        out.resize(COVERED_BYTES, 0);
        let crc = crc32c::crc32c(&out);
        put_u32(&mut out, crc);
        out
    }

    /// The version is believed only after the CRC, and `None` stands for one of the future.
    fn decode(bytes: &[u8]) -> Result<Result<Header, u32>, Malformed> {
        let mut reader = Reader::new(bytes);
        let covered = reader.take(COVERED_BYTES, "header: it is incomplete")?;
        let crc = reader.u32("header: it is incomplete")?;
        let mut reader = Reader::new(covered);
        if reader.take(MAGIC.len(), "magic")? != MAGIC {
            return Err(Malformed("header: it does not begin like a snapshot's"));
        }
        if crc32c::crc32c(covered) != crc {
            return Err(Malformed("header: its checksum is wrong"));
        }
        match reader.u32("version")? {
            VERSION => {}
            other => return Ok(Err(other)),
        }
        let salt = reader.u32("salt")?;
        let index = reader.u64("index")?;
        let term = reader.u64("term")?;
        let payload_bytes = reader.u64("payload length")?;
        let payload_crc = reader.u32("payload CRC")?;
        let file = SnapshotFile { position: Position { index, term }, payload_bytes };
        Ok(Ok(Header { file, salt, payload_crc }))
    }

    /// Reads the header of a snapshot by its name.
    pub fn read<D: Disk>(disk: &D, position: Position) -> Result<Header, Problem> {
        let name = file_name(position);
        let bytes = read_at(disk, &name, 0, HEADER_BYTES)?;
        let header = Header::decode(&bytes)
            .map_err(|malformed| Problem::bad(0, malformed.to_string()))?
            .map_err(|version| {
                Problem::Error(WalError::UnknownVersion { file: disk.path(&name), version })
            })?;
        if header.file.position != position {
            return Err(Problem::bad(16, "it is a snapshot under the name of another"));
        }
        Ok(header)
    }

    fn blocks(&self) -> u64 {
        self.file.payload_bytes.div_ceil(BLOCK_BYTES as u64)
    }

    /// Payload bytes in a block.
    fn bytes_in(&self, block: u64) -> usize {
        let before = block * BLOCK_BYTES as u64;
        (self.file.payload_bytes - before).min(BLOCK_BYTES as u64) as usize
    }

    /// The payload of `count` blocks from `first` on, each of them checked.
    fn read_blocks<D: Disk>(&self, disk: &D, first: u64, count: u64) -> Result<Vec<u8>, Problem> {
        let at = offset_of(first);
        let wanted = (first..first + count).map(|block| self.bytes_in(block) + 8).sum();
        let bytes = read_at(disk, &file_name(self.file.position), at, wanted)?;
        let mut payload = Vec::with_capacity(bytes.len());
        for (block, frame) in (first..first + count).zip(bytes.chunks(FRAME_BYTES)) {
            let data = open_frame(frame, self.salt, block, self.bytes_in(block))
                .map_err(|malformed| Problem::bad(offset_of(block), malformed.to_string()))?;
            payload.extend_from_slice(data);
        }
        if bytes.len() < wanted {
            return Err(Problem::bad(at + bytes.len() as u64, "the file ends here, too early"));
        }
        Ok(payload)
    }

    /// Payload bytes from `offset` on, at most `bytes_max`; fewer at the end.
    pub fn read_payload<D: Disk>(
        &self,
        disk: &D,
        offset: u64,
        bytes_max: usize,
    ) -> Result<Vec<u8>, Problem> {
        let end = offset.saturating_add(bytes_max as u64).min(self.file.payload_bytes);
        if offset >= end {
            return Ok(Vec::new());
        }
        let first = offset / BLOCK_BYTES as u64;
        let count = end.div_ceil(BLOCK_BYTES as u64) - first;
        let mut payload = self.read_blocks(disk, first, count)?;
        let skipped = (offset - first * BLOCK_BYTES as u64) as usize;
        payload.truncate(skipped + (end - offset) as usize);
        payload.drain(..skipped);
        Ok(payload)
    }

    /// Reads everything once.
    pub fn check<D: Disk>(&self, disk: &D) -> Result<(), Problem> {
        let mut crc = 0;
        let mut block = 0;
        while block < self.blocks() {
            let count = CHECK_BLOCKS.min(self.blocks() - block);
            crc = crc32c::crc32c_append(crc, &self.read_blocks(disk, block, count)?);
            block += count;
        }
        if crc != self.payload_crc {
            return Err(Problem::bad(40, "the payload's checksum is wrong"));
        }
        let end = HEADER_BYTES as u64 + self.blocks() * 8 + self.file.payload_bytes;
        let more = read_at(disk, &file_name(self.file.position), end, 1)?;
        if more.is_empty() { Ok(()) } else { Err(Problem::bad(end, "bytes after the end")) }
    }
}

fn read_at<D: Disk>(disk: &D, name: &str, offset: u64, bytes: usize) -> Result<Vec<u8>, Problem> {
    disk.read_at(name, offset, bytes)
        .map_err(|e| Problem::Error(WalError::io("read", disk.path(name), e)))
}

fn offset_of(block: u64) -> u64 {
    HEADER_BYTES as u64 + block * FRAME_BYTES as u64
}

fn block_crc(salt: u32, block: u64, length_and_data: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(salt, &block.to_be_bytes()), length_and_data)
}

fn put_frame(out: &mut Vec<u8>, salt: u32, block: u64, data: &[u8]) {
    let start = out.len();
    put_u32(out, data.len() as u32);
    out.extend_from_slice(data);
    let crc = block_crc(salt, block, &out[start..]);
    put_u32(out, crc);
}

/// The data in a block of that number and of `expected` bytes.
fn open_frame(frame: &[u8], salt: u32, block: u64, expected: usize) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(frame);
    let covered = reader.take(4 + expected, "block: the file ends in it")?;
    if reader.u32("block: the file ends in it")? != block_crc(salt, block, covered) {
        return Err(Malformed("block: its checksum is wrong"));
    }
    let mut reader = Reader::new(covered);
    if reader.u32("block length")? as usize != expected {
        return Err(Malformed("block: it is not as long as the header says"));
    }
    Ok(reader.rest())
}

/// A snapshot that is being written, under a temporary name.
pub struct Writer<F> {
    name: &'static str,
    file: F,
    position: Position,
    salt: u32,
    crc: u32,
    payload_bytes: u64,
    /// Whole blocks that were written.
    blocks: u64,
    /// What does not fill a block yet.
    rest: Vec<u8>,
    /// Written since the last sync.
    unsynced_bytes: usize,
}

impl<F> Writer<F> {
    pub fn create<D: Disk<File = F>>(
        disk: &mut D,
        name: &'static str,
        position: Position,
        salt: u32,
    ) -> Result<Self, WalError> {
        let path = disk.path(name);
        let mut file = disk.create(name, 0).map_err(|e| WalError::io("create", path.clone(), e))?;
        disk.write_at(&mut file, 0, &[0; HEADER_BYTES])
            .map_err(|e| WalError::io("write", path, e))?;
        Ok(Writer {
            name,
            file,
            position,
            salt,
            crc: 0,
            payload_bytes: 0,
            blocks: 0,
            rest: Vec::with_capacity(BLOCK_BYTES),
            unsynced_bytes: HEADER_BYTES,
        })
    }

    pub fn position(&self) -> Position {
        self.position
    }

    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Writes every block that is full now, and syncs what was written before when that would become much; less than a
    /// block stays in memory.
    pub fn append<D: Disk<File = F>>(
        &mut self,
        disk: &mut D,
        mut bytes: &[u8],
    ) -> Result<(), WalError> {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.payload_bytes += bytes.len() as u64;
        let first = self.blocks;
        let mut frames = Vec::new();
        while self.rest.len() + bytes.len() >= BLOCK_BYTES {
            let (now, later) = bytes.split_at(BLOCK_BYTES - self.rest.len());
            self.rest.extend_from_slice(now);
            put_frame(&mut frames, self.salt, self.blocks, &self.rest);
            self.rest.clear();
            self.blocks += 1;
            bytes = later;
        }
        self.rest.extend_from_slice(bytes);
        if frames.is_empty() {
            return Ok(());
        }
        let offset = offset_of(first);
        if self.unsynced_bytes + frames.len() > SYNC_BYTES {
            self.sync(disk)?;
        }
        self.write(disk, offset, &frames)?;
        disk.start_writing(&mut self.file, offset, frames.len());
        Ok(())
    }

    /// The last block, the header, and the name.
    pub fn finish<D: Disk<File = F>>(mut self, disk: &mut D) -> Result<Header, WalError> {
        if !self.rest.is_empty() {
            let mut frame = Vec::with_capacity(self.rest.len() + 8);
            put_frame(&mut frame, self.salt, self.blocks, &self.rest);
            self.write(disk, offset_of(self.blocks), &frame)?;
        }
        let file = SnapshotFile { position: self.position, payload_bytes: self.payload_bytes };
        let header = Header { file, salt: self.salt, payload_crc: self.crc };
        self.write(disk, 0, &header.encode())?;
        self.sync(disk)?;
        disk.rename(self.name, &file_name(self.position))
            .map_err(|e| WalError::io("rename", disk.path(self.name), e))?;
        disk.sync_dir().map_err(|e| WalError::io("sync", disk.path(""), e))?;
        Ok(header)
    }

    fn write<D: Disk<File = F>>(
        &mut self,
        disk: &mut D,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), WalError> {
        disk.write_at(&mut self.file, offset, bytes)
            .map_err(|e| WalError::io("write", disk.path(self.name), e))?;
        self.unsynced_bytes += bytes.len();
        Ok(())
    }

    fn sync<D: Disk<File = F>>(&mut self, disk: &mut D) -> Result<(), WalError> {
        disk.sync_data(&mut self.file)
            .map_err(|e| WalError::io("sync", disk.path(self.name), e))?;
        self.unsynced_bytes = 0;
        Ok(())
    }
}
