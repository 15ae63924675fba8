//! The room that the log takes on the disk: its oldest segments are removed when a snapshot has what is in them, and
//! some of their files kept for new ones; a reserve lets it go on for a segment when the disk is full.

use super::active::{self, Spare};
use super::{Disk, Wal, WalError, segment};
use crate::raft::Index;

/// Files of removed segments that are kept for new ones.
pub const SPARES_MAX: usize = 4;

impl<D: Disk> Wal<D> {
    /// Removes the oldest segments, as long as they hold no entry above `upto`. The one that is written to
    /// always stays.
    ///
    /// # Errors
    ///
    /// As [`Wal::compact_some`].
    pub fn compact(&mut self, upto: Index) -> Result<(), WalError> {
        self.compact_some(upto, usize::MAX).map(|_| ())
    }

    /// The same for at most `segments_max` of them. Returns whether none is left to be removed.
    ///
    /// # Errors
    ///
    /// An error of the disk, which is final.
    ///
    /// # Panics
    ///
    /// If no finished snapshot reaches `upto`: then the entries are the only ones there are.
    pub fn compact_some(&mut self, upto: Index, segments_max: usize) -> Result<bool, WalError> {
        self.check_running()?;
        let snapshot = self.snapshots().last().map_or(0, |file| file.position.index);
        assert!(upto <= snapshot, "compacted up to {upto}, but the snapshot ends at {snapshot}");
        let useless = self.closed.iter().take_while(|closed| closed.last_index <= upto).count();
        if useless == 0 {
            return Ok(true);
        }
        let compacted = self.remove_oldest(useless.min(segments_max));
        self.or_stop(compacted)?;
        if useless <= segments_max {
            self.shape.forget_before(upto);
        }
        self.fill_reserve()?;
        Ok(useless <= segments_max)
    }

    /// Removes the files that are kept for new segments: room on the disk is scarce.
    ///
    /// # Errors
    ///
    /// An error of the disk, which is final.
    #[inline(never)]
    pub fn drop_spares(&mut self) -> Result<(), WalError> {
        self.check_running()?;
        for spare in std::mem::take(&mut self.spares) {
            let removed = self.disk.remove(&spare.name);
            let removed =
                removed.map_err(|e| WalError::io("remove", self.disk.path(&spare.name), e));
            self.or_stop(removed)?;
        }
        Ok(())
    }

    /// Room that a new segment needs.
    pub fn segment_bytes(&self) -> u64 {
        segment::capacity_for(&self.config, 0)
    }

    /// Whether the reserve is used up: the disk was full, and the next new segment may not be possible.
    pub fn is_low(&self) -> bool {
        self.reserve.is_none()
    }

    /// Room on the disk, in bytes, what is being removed included; `None` if nobody knows.
    ///
    /// # Errors
    ///
    /// An error of the disk; nothing has happened.
    pub fn free_bytes(&self) -> Result<Option<u64>, WalError> {
        let free = self.disk.free_bytes();
        let free = free.map_err(|e| WalError::io("ask for the room on", self.disk.path(""), e))?;
        Ok(free.map(|bytes| bytes.saturating_add(self.disk.leaving_bytes())))
    }

    /// Makes the reserve again, if it is used up and there is room for it. Cheap if there is none; call it
    /// now and then while [`Wal::is_low`].
    ///
    /// # Errors
    ///
    /// An error of the disk other than its being full; it is final.
    pub fn fill_reserve(&mut self) -> Result<(), WalError> {
        self.check_running()?;
        let filled = active::fill_reserve(&mut self.disk, &self.config, &mut self.reserve);
        self.or_stop(filled)
    }

    /// Bytes allocated on disk for all segments.
    #[inline(never)]
    pub fn bytes_on_disk(&self) -> u64 {
        let closed: u64 = self.closed.iter().map(|closed| closed.bytes).sum();
        closed + self.active.header.capacity
    }

    pub fn segments(&self) -> usize {
        self.closed.len() + 1
    }

    /// Oldest first, so that what a crash leaves is a log that begins later, at best; recovery takes it
    /// with any of them missing. Some of the files are kept for new segments, as long as there is room.
    fn remove_oldest(&mut self, count: usize) -> Result<(), WalError> {
        let spares_max = if self.is_low() { 0 } else { SPARES_MAX };
        for closed in self.closed.drain(..count) {
            let name = segment::file_name(closed.number);
            match closed.salt {
                Some(salt) if self.spares.len() < spares_max => {
                    let spare = active::spare_name(closed.number);
                    let renamed = self.disk.rename(&name, &spare);
                    renamed.map_err(|e| WalError::io("rename", self.disk.path(&name), e))?;
                    self.spares.push_back(Spare { name: spare, capacity: closed.bytes, salt });
                }
                _ => {
                    let removed = self.disk.remove(&name);
                    removed.map_err(|e| WalError::io("remove", self.disk.path(&name), e))?;
                }
            }
        }
        let first = self.closed.front().map_or(self.active.header.number, |closed| closed.number);
        self.places.forget_before(first);
        self.disk.sync_dir().map_err(|e| WalError::io("sync", self.disk.path(""), e))
    }
}
