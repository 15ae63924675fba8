//! The segment that batches go to, how a new one is made, and the reserve for when the disk is full.
//!
//! The reserve is a file of a segment's size that holds nothing. When there is no room for a new segment,
//! it becomes one, so that what must be written on the way out of a full disk (the entries that lead to
//! the next snapshot, a vote) can be. Its name says its size: `reserve-<bytes>`, 16 hexadecimal digits.

use super::direct::Aligned;
use super::segment::{self, BATCHES_OFFSET, COPY_OFFSET, FIRST_SECTOR};
use super::segment::{SegmentHeader, Standing};
use super::{Disk, WalConfig, WalError, sector};
use crate::raft::{HardState, Index};
use std::collections::VecDeque;
use std::ops::Range;

/// A segment that is not needed any more becomes one that will be: its blocks are allocated and written, so that
/// a sync has nothing to write but data. On ext4 that takes less than half the time. Its name is
/// `spare-<the segment's number>`; a restart removes it.
pub struct Spare {
    pub name: String,
    pub capacity: u64,
    /// All sectors with batches have this salt, or are zero.
    pub salt: u32,
}

pub fn spare_name(number: u64) -> String {
    format!("spare-{number:016x}")
}

pub fn is_spare(name: &str) -> bool {
    name.strip_prefix("spare-").is_some_and(|number| u64::from_str_radix(number, 16).is_ok())
}

/// What a segment is called until its header is durable. At most one exists; a crash may leave it
/// behind.
pub const UNFINISHED_SEGMENT: &str = "segment.tmp";
pub const UNFINISHED_RESERVE: &str = "reserve.tmp";

/// Most zeros of one write, each of which waits for the disk.
const ZEROS_BYTES_MAX: u64 = 256 << 10;

/// The segment that batches go to.
pub struct Active<F> {
    pub header: SegmentHeader,
    pub file: F,
    /// Where the next batch goes, in bytes of the stream.
    pub end: u64,
    /// What the sector holds that `end` lies in.
    pub partial: Vec<u8>,
    /// The highest index of an entry in it; 0 if there is none.
    pub last_index: Index,
}

impl<F> Active<F> {
    fn new(header: SegmentHeader, file: F) -> Self {
        Active { header, file, end: 0, partial: Vec::new(), last_index: 0 }
    }

    pub fn has_room_for(&self, frame_bytes: u64) -> bool {
        self.end + frame_bytes <= segment::room(self.header.capacity)
    }

    /// Writes a batch, with one write from the start of the sector that the log ends in. `image` is
    /// scratch space. Nothing is synced yet.
    pub fn write_batch<D: Disk<File = F>>(
        &mut self,
        disk: &mut D,
        batch: &[u8],
        image: &mut Aligned,
    ) -> Result<(), WalError> {
        let first = FIRST_SECTOR + self.end / sector::DATA_BYTES as u64;
        // The sector that is shared with the batch before.
        let shared = (sector::DATA_BYTES - self.partial.len()).min(batch.len());
        self.partial.extend_from_slice(&batch[..shared]);
        let (shared_part, rest) = (&self.partial, &batch[shared..]);
        let sectors = image.begin(sector::encoded_bytes(shared_part) + sector::encoded_bytes(rest));
        sector::encode(self.header.salt, first, shared_part, sectors);
        sector::encode(self.header.salt, first + 1, rest, sectors);
        self.write(disk, first * sector::SECTOR_BYTES as u64, image.bytes())?;
        self.end += batch.len() as u64;
        let in_last = (self.end % sector::DATA_BYTES as u64) as usize;
        if batch.len() > shared {
            self.partial.clear();
            self.partial.extend_from_slice(&batch[batch.len() - in_last..]);
        } else if in_last == 0 {
            self.partial.clear();
        }
        Ok(())
    }

    pub fn write_copy<D: Disk<File = F>>(
        &mut self,
        disk: &mut D,
        hard_state: HardState,
    ) -> Result<(), WalError> {
        let copy = segment::encode_copy(self.header.number, hard_state);
        self.write(disk, COPY_OFFSET, &copy)
    }

    pub fn write<D: Disk<File = F>>(
        &mut self,
        disk: &mut D,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), WalError> {
        disk.write_at(&mut self.file, offset, bytes)
            .map_err(|e| WalError::io("write", disk.path(&self.header.file_name()), e))
    }

    /// No more batches go here. What an earlier life of the file has left behind the last one is made zero, durably,
    /// so that all of it has one salt.
    pub fn close<D: Disk<File = F>>(&mut self, disk: &mut D) -> Result<(), WalError> {
        if self.header.old_salt.is_none() {
            return Ok(());
        }
        let unused = FIRST_SECTOR + self.end.div_ceil(sector::DATA_BYTES as u64);
        self.clear(disk, unused * sector::SECTOR_BYTES as u64..self.header.capacity)?;
        self.sync(disk)
    }

    /// Writes zeros.
    pub fn clear<D: Disk<File = F>>(
        &mut self,
        disk: &mut D,
        bytes: Range<u64>,
    ) -> Result<(), WalError> {
        clear(disk, &mut self.file, &self.header.file_name(), bytes)
    }

    pub fn sync<D: Disk<File = F>>(&mut self, disk: &mut D) -> Result<(), WalError> {
        disk.sync_data(&mut self.file)
            .map_err(|e| WalError::io("sync", disk.path(&self.header.file_name()), e))
    }
}

/// Why there is no new segment.
pub enum NoSegment {
    /// No room on the disk; nothing has changed.
    Full(WalError),
    Failed(WalError),
}

impl NoSegment {
    pub fn into_error(self) -> WalError {
        match self {
            NoSegment::Full(error) | NoSegment::Failed(error) => error,
        }
    }
}

/// The reserve's size in bytes, if there is a reserve.
pub type Reserve = Option<u64>;

/// Makes a segment and then its name durable, out of a spare one if there is one that fits. Only after that may
/// a batch go into it. On a full disk the reserve is used, if it is large enough.
pub fn create_segment<D: Disk>(
    disk: &mut D,
    config: &WalConfig,
    number: u64,
    start: Standing,
    frame_bytes: u64,
    (spares, reserve): (&mut VecDeque<Spare>, &mut Reserve),
) -> Result<Active<D::File>, NoSegment> {
    let capacity = segment::capacity_for(config, frame_bytes);
    let header = SegmentHeader::new(number, capacity, config, start);
    let fits = |spare: &Spare| spare.capacity == capacity && spare.salt != header.salt;
    if spares.front().is_some_and(fits)
        && let Some(spare) = spares.pop_front()
    {
        let header = SegmentHeader { old_salt: Some(spare.salt), ..header };
        let opened = disk.open(&spare.name, capacity);
        let opened = opened.map_err(|e| WalError::io("open", disk.path(&spare.name), e));
        let mut file = opened.map_err(NoSegment::Failed)?;
        write_front(disk, &mut file, &spare.name, &header.front()).map_err(NoSegment::Failed)?;
        return name_segment(disk, &spare.name, header, file);
    }
    let made = create_prepared(disk, UNFINISHED_SEGMENT, capacity, &header.front());
    let error = match made {
        Ok(file) => return name_segment(disk, UNFINISHED_SEGMENT, header, file),
        Err(NoSegment::Full(error)) => error,
        Err(failed) => return Err(failed),
    };
    match *reserve {
        Some(capacity) if segment::room(capacity) >= frame_bytes => {
            let name = reserve_name(capacity);
            let header = SegmentHeader::new(number, capacity, config, start);
            let file = prepare_reserve(disk, &name, capacity, &header.front())?;
            *reserve = None;
            name_segment(disk, &name, header, file)
        }
        _ => Err(NoSegment::Full(error)),
    }
}

/// A file of `bytes` that begins like this, durable but for its name. After a failure for want of room it
/// is gone.
fn create_prepared<D: Disk>(
    disk: &mut D,
    name: &str,
    bytes: u64,
    front: &[u8],
) -> Result<D::File, NoSegment> {
    let made = disk
        .create(name, bytes)
        .map_err(|e| WalError::io("create", disk.path(name), e))
        .and_then(|mut file| write_front(disk, &mut file, name, front).map(|()| file));
    match made {
        Ok(file) => Ok(file),
        Err(error) if error.is_full() => match disk.remove(name) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(NoSegment::Failed(WalError::io("remove", disk.path(name), e)))
            }
            _ => Err(NoSegment::Full(error)),
        },
        Err(error) => Err(NoSegment::Failed(error)),
    }
}

/// The header goes in under the reserve's own name: with a header or without, it is a reserve until it is
/// renamed. The rest is made zero again: what has rotted there since must not pass for a damaged log.
fn prepare_reserve<D: Disk>(
    disk: &mut D,
    name: &str,
    capacity: u64,
    front: &[u8],
) -> Result<D::File, NoSegment> {
    let opened = disk.open(name, capacity).map_err(|e| WalError::io("open", disk.path(name), e));
    let prepared = opened.and_then(|mut file| {
        clear(disk, &mut file, name, front.len() as u64..capacity)?;
        write_front(disk, &mut file, name, front).map(|()| file)
    });
    prepared.map_err(|error| {
        if error.is_full() { NoSegment::Full(error) } else { NoSegment::Failed(error) }
    })
}

fn clear<D: Disk>(
    disk: &mut D,
    file: &mut D::File,
    name: &str,
    bytes: Range<u64>,
) -> Result<(), WalError> {
    let zeros = vec![0; ZEROS_BYTES_MAX.min(bytes.end.saturating_sub(bytes.start)) as usize];
    for at in bytes.clone().step_by(ZEROS_BYTES_MAX as usize) {
        let part = (bytes.end - at).min(ZEROS_BYTES_MAX) as usize;
        disk.write_at(file, at, &zeros[..part])
            .map_err(|e| WalError::io("write", disk.path(name), e))?;
    }
    Ok(())
}

fn write_front<D: Disk>(
    disk: &mut D,
    file: &mut D::File,
    name: &str,
    front: &[u8],
) -> Result<(), WalError> {
    if !front.is_empty() {
        disk.write_at(file, 0, front).map_err(|e| WalError::io("write", disk.path(name), e))?;
    }
    disk.sync_data(file).map_err(|e| WalError::io("sync", disk.path(name), e))
}

fn name_segment<D: Disk>(
    disk: &mut D,
    from: &str,
    header: SegmentHeader,
    file: D::File,
) -> Result<Active<D::File>, NoSegment> {
    give_name(disk, from, &header.file_name()).map_err(NoSegment::Failed)?;
    Ok(Active::new(header, file))
}

pub fn give_name<D: Disk>(disk: &mut D, from: &str, to: &str) -> Result<(), WalError> {
    disk.rename(from, to).map_err(|e| WalError::io("rename", disk.path(from), e))?;
    disk.sync_dir().map_err(|e| WalError::io("sync", disk.path(""), e))
}

/// Makes the reserve if there is none and if there is room for it.
pub fn fill_reserve<D: Disk>(
    disk: &mut D,
    config: &WalConfig,
    reserve: &mut Reserve,
) -> Result<(), WalError> {
    if reserve.is_some() {
        return Ok(());
    }
    let bytes = segment::capacity_for(config, 0);
    match create_prepared(disk, UNFINISHED_RESERVE, bytes, &[]) {
        Err(NoSegment::Full(_)) => return Ok(()),
        other => other.map_err(NoSegment::into_error)?,
    };
    give_name(disk, UNFINISHED_RESERVE, &reserve_name(bytes))?;
    *reserve = Some(bytes);
    Ok(())
}

fn reserve_name(bytes: u64) -> String {
    format!("reserve-{bytes:016x}")
}

/// The size in a reserve's name; `None` for every name that [`reserve_name`] does not make.
pub fn reserve_in(name: &str) -> Option<u64> {
    let bytes = u64::from_str_radix(name.strip_prefix("reserve-")?, 16).ok()?;
    let is_possible = bytes.is_multiple_of(sector::SECTOR_BYTES as u64)
        && (BATCHES_OFFSET..=super::MAX_SEGMENT_BYTES).contains(&bytes);
    (is_possible && reserve_name(bytes) == name).then_some(bytes)
}
