//! The file of a backup (docs/backup.md): blocks with checksums, around the bytes of a snapshot.
//!
//! ```text
//! magic "raftkvB", version 1
//! blocks, each as a frame on the wire: length 4, CRC32C 4, payload
//!   'H' header, first: cluster's id 8, index 8, term 8, taken at (seconds since 1970) 8, bytes of the snapshot 8
//!   'S' the snapshot's next bytes, as often as it takes
//!   'E' end, last: bytes of the snapshot 8, their XXH3 8
//! ```

use crate::codec::{Malformed, Reader, put_u8, put_u64};
use crate::kv::{Loader, Machine};
use crate::protocol::frame::{FrameStep, next_frame, put_frame};
use std::io::{self, Read, Write};
use xxhash_rust::xxh3::Xxh3;

const MAGIC: [u8; 8] = *b"raftkvB\x01";
const HEADER: u8 = b'H';
const SNAPSHOT: u8 = b'S';
const END: u8 = b'E';
/// The longest block: a piece of a snapshot, with room for larger ones of later versions.
const BLOCK_BYTES_MAX: usize = 4 * 1024 * 1024;
const READ_BYTES: usize = 256 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub cluster_id: u64,
    /// Everything up to this log index is in it.
    pub index: u64,
    pub term: u64,
    /// Seconds since 1970.
    pub taken_at: u64,
    /// Of the snapshot.
    pub bytes: u64,
}

/// Why a file is no whole backup.
#[derive(Debug)]
pub enum BadFile {
    Io(io::Error),
    /// What is wrong, and at which byte of the file.
    Damaged {
        offset: u64,
        what: String,
    },
}

impl std::fmt::Display for BadFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BadFile::Io(error) => write!(f, "cannot be read: {error}"),
            BadFile::Damaged { offset, what } => write!(f, "is damaged at byte {offset}: {what}"),
        }
    }
}

/// Writes a backup, and builds its state on the side, so that what is kept has been read once.
pub struct Writer<W> {
    out: W,
    loader: Loader,
    hash: Xxh3,
    written: u64,
}

impl<W: Write> Writer<W> {
    pub fn begin(mut out: W, header: &Header) -> io::Result<Self> {
        let mut bytes = MAGIC.to_vec();
        put_frame(&mut bytes, |out| {
            put_u8(out, HEADER);
            for field in
                [header.cluster_id, header.index, header.term, header.taken_at, header.bytes]
            {
                put_u64(out, field);
            }
        });
        out.write_all(&bytes)?;
        Ok(Writer { out, loader: Loader::default(), hash: Xxh3::new(), written: 0 })
    }

    /// The next bytes of the snapshot. The inner error is that they make no sense.
    pub fn add(&mut self, piece: &[u8]) -> io::Result<Result<(), Malformed>> {
        let mut block = Vec::with_capacity(piece.len() + 16);
        put_frame(&mut block, |out| {
            put_u8(out, SNAPSHOT);
            out.extend_from_slice(piece);
        });
        self.out.write_all(&block)?;
        self.hash.update(piece);
        self.written += piece.len() as u64;
        Ok(self.loader.feed(piece))
    }

    pub fn end(mut self) -> io::Result<(W, Result<Machine, Malformed>)> {
        let mut block = Vec::new();
        put_frame(&mut block, |out| {
            put_u8(out, END);
            put_u64(out, self.written);
            put_u64(out, self.hash.digest());
        });
        self.out.write_all(&block)?;
        Ok((self.out, self.loader.finish()))
    }
}

/// Reads all of a file, and believes nothing of it before all of it was found to be right. `progress` is told
/// how many of how many bytes of the snapshot are read.
pub fn read(
    source: &mut dyn Read,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Header, Machine), BadFile> {
    let mut blocks = Blocks { source, inbox: Vec::new(), read: 0, offset: 0 };
    blocks.magic()?;
    let first = blocks.next()?;
    let header = read_header(&first).map_err(|wrong| blocks.damaged(wrong.0))?;
    let (mut loader, mut hash, mut bytes) = (Loader::default(), Xxh3::new(), 0);
    loop {
        let block = blocks.next()?;
        match block.split_first() {
            Some((&SNAPSHOT, piece)) => {
                bytes += piece.len() as u64;
                if bytes > header.bytes {
                    return Err(blocks.damaged("the snapshot is longer than its header says"));
                }
                hash.update(piece);
                loader.feed(piece).map_err(|malformed| blocks.damaged(malformed.0))?;
                progress(bytes, header.bytes);
            }
            Some((&END, end)) => {
                let mut reader = Reader::new(end);
                let told = (reader.u64("length").ok(), reader.u64("hash").ok());
                if told != (Some(bytes), Some(hash.digest()))
                    || bytes != header.bytes
                    || !reader.is_empty()
                {
                    return Err(blocks.damaged("the snapshot is not the one that was written"));
                }
                break;
            }
            _ => return Err(blocks.damaged("a block of an unknown kind")),
        }
    }
    blocks.nothing_more()?;
    let machine = loader.finish().map_err(|malformed| blocks.damaged(malformed.0))?;
    if machine.applied() != header.index {
        return Err(blocks.damaged("the snapshot is of another index than its header says"));
    }
    Ok((header, machine))
}

fn read_header(block: &[u8]) -> Result<Header, Malformed> {
    let mut reader = Reader::new(block);
    if reader.u8("kind of block")? != HEADER {
        return Err(Malformed("the first block is no header"));
    }
    let header = Header {
        cluster_id: reader.u64("cluster")?,
        index: reader.u64("index")?,
        term: reader.u64("term")?,
        taken_at: reader.u64("time")?,
        bytes: reader.u64("bytes")?,
    };
    reader.finish("header: bytes after its end")?;
    Ok(header)
}

struct Blocks<'a> {
    source: &'a mut dyn Read,
    inbox: Vec<u8>,
    /// Of the inbox, used up.
    read: usize,
    /// Where in the file the inbox's unused part begins.
    offset: u64,
}

impl Blocks<'_> {
    fn damaged(&self, what: impl Into<String>) -> BadFile {
        BadFile::Damaged { offset: self.offset, what: what.into() }
    }

    /// Whether there was more.
    fn fill(&mut self) -> Result<bool, BadFile> {
        self.inbox.drain(..std::mem::take(&mut self.read));
        let before = self.inbox.len();
        let limit = READ_BYTES as u64;
        (&mut *self.source).take(limit).read_to_end(&mut self.inbox).map_err(BadFile::Io)?;
        Ok(self.inbox.len() > before)
    }

    fn magic(&mut self) -> Result<(), BadFile> {
        self.fill()?;
        match self.inbox.get(..MAGIC.len()) {
            Some(magic) if magic == MAGIC => self.used(MAGIC.len()),
            Some(magic) if magic[..7] == MAGIC[..7] => {
                return Err(self.damaged("a version of the format that this program does not know"));
            }
            _ => return Err(self.damaged("this is no backup of raftkv")),
        }
        Ok(())
    }

    fn used(&mut self, bytes: usize) {
        self.read += bytes;
        self.offset += bytes as u64;
    }

    fn next(&mut self) -> Result<Vec<u8>, BadFile> {
        loop {
            match next_frame(&self.inbox[self.read..], BLOCK_BYTES_MAX) {
                Ok(FrameStep::Frame { payload, consumed }) => {
                    let block = payload.to_vec();
                    self.used(consumed);
                    return Ok(block);
                }
                Ok(FrameStep::NeedMore { .. }) => {
                    if !self.fill()? {
                        return Err(self.damaged("it ends too early"));
                    }
                }
                Ok(FrameStep::Oversized { payload_bytes, .. }) => {
                    return Err(self.damaged(format!("a block of {payload_bytes} bytes")));
                }
                Err(error) => return Err(self.damaged(error.to_string())),
            }
        }
    }

    fn nothing_more(&mut self) -> Result<(), BadFile> {
        if self.read < self.inbox.len() || self.fill()? {
            return Err(self.damaged("there are bytes after its end"));
        }
        Ok(())
    }
}
