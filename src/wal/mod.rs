//! The write-ahead log: what a node has promised, in the order it promised it. One call of [`Wal::sync`]
//! makes everything appended since the last one durable, with one write and one fdatasync. Beside the log
//! are the snapshots that let it be cut off at its beginning.
//!
//! # The idea
//!
//! The unit is the *batch*: everything of one `sync` is one frame under one checksum, so it is there as
//! a whole or not at all. A batch is written only after the sync of the one before it returned. Hence at
//! any crash at most one batch is unsynced, it is the last thing in the log, and it has not been
//! acknowledged, whatever order its sectors reached the disk in. And a disk writes each sector of 512
//! bytes as a whole or not at all, and leaves those beside it alone, so after a crash a sector is empty or agrees
//! with its checksum. (SQLite calls that a powersafe overwrite. Of a disk that breaks it, the damage is noticed.)
//! Recovery rests on both:
//!
//! - what is no whole batch, in sound sectors and with no later batch behind it, is a *torn tail*, and is
//!   cut;
//! - everything else that is wrong is *damage*: a batch with a later one behind it was once synced, and a
//!   sector that is neither empty nor agrees with its checksum was once written. So a flipped bit is never
//!   taken for a crash, not even in the last batch.
//!
//! There is no record for a truncation: an entry whose index is not above an earlier one's replaces that
//! entry and everything after it.
//!
//! # Damage
//!
//! A node that forgets what it acknowledged must not vote, and a node that forgets its vote must not even
//! follow. So the hard state is kept in several places: in every batch, in the header of every segment, and
//! in a sector of its own in each segment, which is written and synced together with each batch that
//! changes it. When a part of the log is lost, recovery
//!
//! 1. refuses to start, changing nothing, if a newer hard state than it found may be lost with it;
//! 2. otherwise writes the file `damaged`, which says what was lost, and keeps the hard state;
//! 3. then cuts the log where the hole is, and goes on with what is before it.
//!
//! [`Recovered::damaged`] says so at every start, until the log's owner, having fetched what was lost from
//! its peers, calls [`Wal::mark_whole`]. Nothing is lost, and nothing said, if the hole is in a part that a
//! snapshot covers.
//!
//! # Format
//!
//! All integers are big-endian; CRC is CRC32C. The log is a row of files `wal-<number>.log`, the number
//! being 16 lower-case hexadecimal digits, counted up from 1 without gaps; the first ones are gone once
//! compacted. A file is allocated in full when it is made, and so neither grows nor shrinks; a batch that
//! would not fit goes into the next file, which is made as large as that batch needs. A file is a row of
//! sectors of 512 bytes; the unused ones are zero. It is:
//!
//! ```text
//! segment header (the first sector, never written again)
//!     0   8  magic "RAFTKVWL"
//!     8   4  format version, 2
//!    12   4  salt: where the CRCs of this segment's sectors and batches begin, instead of at 0
//!    16   8  segment number, as in the file's name
//!    24   8  bytes allocated for this file, a multiple of 512
//!    32   8  sequence number of the first batch here
//!    40   4  header CRC of the batch before it (0: none)
//!    44   8  index of the entry before it, or of where the log begins  \
//!    52   8  term of that entry                                         | the state at the
//!    60   8  term                                                       | start of this segment
//!    68   1  voted for somebody? 0 or 1                                 |
//!    69   8  the number of that node, or 0                             /
//!    77   1  was this file a segment before? 0 or 1
//!    78   4  the salt that it had then, or 0
//!    82 426  zero
//!   508   4  CRC of bytes 0..508
//! copy of the hard state (the second sector; written again at each change)
//!     0   8  magic "RAFTKVHS"
//!     8   8  segment number
//!    16   8  term
//!    24   1  voted for somebody? 0 or 1
//!    25   8  the number of that node, or 0
//!    33 475  zero
//!   508   4  CRC of bytes 0..508
//! sector of batches, all others
//!     0 508  a part of the stream of batches, which goes on in the next sector
//!   508   4  CRC, salted, of the sector's number (8 bytes, counted from 0 at the start of the file)
//!            and bytes 0..508; 1 if it would be 0, so that only an unused sector is all zero
//! batch, any number of times, in the stream
//!     0   4  magic "btch"
//!     4   4  payload length in bytes
//!     8   8  sequence number, counted from 1 over all segments
//!    16   4  header CRC of the batch before it (0: none), which chains the batches
//!    20   8  term
//!    28   1  voted for somebody? 0 or 1
//!    29   8  the number of that node, or 0
//!    37   4  CRC of the payload, salted
//!    41   4  CRC of bytes 0..41, salted
//!    45   .  payload: records
//! record
//!     0   1  type: 1 entry, 2 base, 3 next entry
//!     1   4  body length in bytes
//!     5   .  body
//! entry body: term 8, index 8, kind 1 (0 no-op, 1 command, 2 members), then what it carries
//! base body:  index 8, term 8: the log before is void, the next entry follows this one
//! next entry body: kind and the rest as above. It has the term, and the index plus 1, of the entry that
//!             the record before it in the same batch is
//! ```
//!
//! The salt differs between segments and between nodes, so that neither bytes of another segment nor a
//! value that a client made to look like a batch pass for one. Every future version keeps the magic and
//! the version at the start, and the CRC at the end, of a 512-byte segment header.
//!
//! A new segment is made as `segment.tmp`, synced, renamed, and its folder synced, before its first
//! batch is written. So the mere name of a segment proves that everything before it was synced; its
//! header says up to which batch.
//!
//! Snapshots are in files of their own, `snapshot-<index>-<term>` (16 hexadecimal digits each); their
//! format is described in `snapshot.rs`, that of `damaged` in `marker.rs`.

mod active;
mod batch;
mod direct;
mod disk;
mod entries;
mod error;
mod identity;
mod marker;
mod record;
mod recovery;
mod replay;
mod room;
mod sector;
mod segment;
mod shape;
mod snapshot;
mod snapshots;

pub use disk::{Disk, FileDisk};
pub use error::WalError;
pub use identity::Identity;
pub use room::SPARES_MAX;
pub use snapshot::{BLOCK_BYTES, SYNC_BYTES as SNAPSHOT_SYNC_BYTES, SnapshotFile};
pub use snapshots::{SET_ASIDE, SNAPSHOTS_KEPT, SnapshotKind};

use crate::raft::{Entry, HardState, Index, Position, Term};
use active::{Active, NoSegment, Reserve, Spare};
use batch::{Batch, KEPT_BUFFER_BYTES};
use direct::Aligned;
use entries::Places;
use marker::Marker;
use record::{BATCH_HEADER_BYTES, BatchHeader};
use segment::Standing;
use shape::LogShape;
use snapshots::Snapshots;
use std::collections::VecDeque;

/// Most bytes of records in one batch. A larger one is refused by [`Wal::sync`], for good; the limits on
/// what one turn of the loop takes in are far below it.
pub const MAX_BATCH_BYTES: usize = 1 << 30;

/// Most bytes of a segment; a larger [`WalConfig::segment_bytes`] is taken for this.
pub const MAX_SEGMENT_BYTES: u64 = 2 << 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalConfig {
    /// Bytes allocated for each new segment; existing ones keep their size. Raised to whole sectors, and to
    /// what the segment's first batch needs. The reserve is as large.
    pub segment_bytes: u64,
    /// Differs between nodes and between a node's incarnations; the salts of new segments come from it.
    pub salt_seed: u64,
}

impl Default for WalConfig {
    /// Segments of 16 MiB.
    fn default() -> Self {
        WalConfig { segment_bytes: 16 << 20, salt_seed: 0 }
    }
}

/// What start-up found. All of it is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    pub hard_state: HardState,
    /// The newest snapshot that is whole: every byte of it was read and checked.
    pub snapshot: Option<SnapshotFile>,
    /// The position before `entries`: the snapshot's, or without one 0/0.
    pub base: Position,
    /// Contiguous, from `base.index + 1`.
    pub entries: Vec<Entry>,
    /// Bytes of a last batch that was never acknowledged, now cut off; 0 if there was none.
    pub torn_bytes: u64,
    /// What was lost that may have been acknowledged, and where, for a person to read. The node may not
    /// vote or count on its log before it has it again; see [`Wal::mark_whole`].
    pub damaged: Option<String>,
    /// The newest term in which something may have been acknowledged that is lost; 0 if nothing is.
    pub lost_in_term: Term,
    /// Damage that cost nothing, and what became of it, for a person to read.
    pub notes: Vec<String>,
}

/// A segment that no more batches go to.
#[derive(Debug, Clone, Copy)]
struct Closed {
    number: u64,
    bytes: u64,
    /// The highest index of an entry in it that may still count; 0 if there is none.
    last_index: Index,
    /// Of all its sectors that are in use, if its file can become another segment.
    salt: Option<u32>,
}

/// The write-ahead log of one node, and its snapshots. See the module's head for what it promises.
pub struct Wal<D: Disk> {
    disk: D,
    config: WalConfig,
    active: Active<D::File>,
    /// The segments before, oldest first.
    closed: VecDeque<Closed>,
    /// Where the log stands on disk.
    standing: Standing,
    /// Where it will stand once the batch is on disk.
    shape: LogShape,
    batch: Batch,
    /// The batch as sectors, while it is being written.
    image: Aligned,
    snapshots: Snapshots<D::File>,
    /// Where synced entries are.
    places: Places,
    /// Files of removed segments, for new ones.
    spares: VecDeque<Spare>,
    reserve: Reserve,
    /// What the marker says.
    damaged: Option<String>,
    /// The error after which nothing is accepted any more.
    failed: Option<String>,
}

impl<D: Disk> Wal<D> {
    /// Reads the log and the newest snapshot, cuts a torn tail, marks and cuts what is damaged, and is
    /// ready to append. An empty folder becomes an empty log.
    ///
    /// # Errors
    ///
    /// A folder that holds something else, another format version, a lost hard state, or an error of the
    /// disk. Unless it is an error of the disk, the folder is left as it was found. After an error of the
    /// disk, opening again is safe.
    pub fn open(disk: D, config: WalConfig) -> Result<(Wal<D>, Recovered), WalError> {
        recovery::open(disk, config)
    }

    /// Puts entries into the next batch; nothing is written yet. They must be contiguous, and their
    /// first may follow the newest entry or replace an earlier one, and with it everything after that
    /// one.
    ///
    /// # Panics
    ///
    /// If the entries leave a gap, or an entry's term is below that of the entry before it.
    pub fn append_entries(&mut self, entries: &[Entry]) {
        if self.failed.is_some() {
            return;
        }
        for entry in entries {
            if let Err(broken) = self.shape.put_entry(entry.index, entry.term) {
                panic!("appended to the write-ahead log: {broken}");
            }
            self.batch.put_entry(entry);
        }
    }

    /// Makes a hard state part of the next batch; nothing is written yet.
    ///
    /// # Panics
    ///
    /// If the term goes backwards, or a vote is changed or taken back within its term.
    pub fn append_hard_state(&mut self, hard_state: HardState) {
        if self.failed.is_some() {
            return;
        }
        if let Err(broken) = self.shape.put_hard_state(hard_state) {
            panic!("appended to the write-ahead log: {broken}");
        }
    }

    /// Makes the log void from the next batch on; nothing is written yet. The next entry's index is
    /// `base.index + 1`, and nothing up to `base` can be replaced any more. A snapshot of `base` must have
    /// been finished before, unless it is 0/0.
    pub fn reset(&mut self, base: Position) {
        if self.failed.is_some() {
            return;
        }
        self.shape.reset(base);
        self.batch.put_base(base);
    }

    /// Makes everything appended since the last call durable, with one write and one fdatasync, plus
    /// the write of a sector when the hard state changes, plus those of a new segment when the newest is
    /// full. With nothing appended it does nothing.
    ///
    /// # Errors
    ///
    /// If there is no room on the disk for a new segment, which [`WalError::is_full`] tells, nothing has
    /// happened: the batch is kept, more can be appended to it, and the next call tries again.
    ///
    /// Any other error is final, and every later call fails too: after a failed write or sync nobody
    /// knows what is on disk, and a second sync that succeeds proves nothing. End the process; recovery
    /// sorts it out.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.check_running()?;
        if !self.batch.has_records() && self.shape.hard_state() == self.standing.hard_state {
            return Ok(());
        }
        match self.make_room() {
            Ok(()) => {}
            Err(NoSegment::Full(error)) => return Err(error),
            Err(NoSegment::Failed(error)) => return self.or_stop(Err(error)),
        }
        let written = self.write_batch();
        self.or_stop(written)?;
        if self.batch.has_base {
            self.places.clear();
            self.closed.iter_mut().for_each(|closed| closed.last_index = 0);
            self.active.last_index = 0;
        }
        self.active.last_index = self.active.last_index.max(self.batch.last_index);
        if self.batch.first_index > 0 {
            let entries = self.batch.first_index..=self.standing.last.index;
            let offset = self.active.end - self.batch.bytes.len() as u64;
            self.places.add(entries, self.active.header.number, offset);
        }
        self.batch.clear();
        self.image.clear(KEPT_BUFFER_BYTES);
        Ok(())
    }

    /// What was lost and is not known to be whole again; also after a restart.
    pub fn damaged(&self) -> Option<&str> {
        self.damaged.as_deref()
    }

    /// Marks the log, durably, as lacking something: for losses that its owner finds. `what` is for a
    /// person to read.
    ///
    /// # Errors
    ///
    /// An error of the disk, which is final.
    pub fn mark_damaged(&mut self, what: &str) -> Result<(), WalError> {
        self.check_running()?;
        let hard_state = self.standing.hard_state;
        let marker = match self.damaged.take() {
            Some(before) => Marker { what: before, hard_state }.and(what),
            None => Marker { what: what.to_owned(), hard_state },
        };
        let written = marker.write(&mut self.disk);
        self.damaged = Some(marker::one_line(&marker.what));
        self.or_stop(written)
    }

    /// Gives everything up but term and vote: marks the log as lacking something, removes the snapshots, and
    /// makes the log void from the next batch on. `what` is for a person to read.
    ///
    /// # Errors
    ///
    /// An error of the disk, which is final.
    pub fn void(&mut self, what: &str) -> Result<(), WalError> {
        self.mark_damaged(what)?;
        self.abandon_snapshot(SnapshotKind::Own)?;
        self.abandon_snapshot(SnapshotKind::Incoming)?;
        self.discard_snapshots()?;
        self.reset(Position::default());
        Ok(())
    }

    /// Says that nothing is lacking any more, durably when this returns.
    ///
    /// # Errors
    ///
    /// An error of the disk, which is final.
    pub fn mark_whole(&mut self) -> Result<(), WalError> {
        self.check_running()?;
        if self.damaged.is_none() {
            return Ok(());
        }
        let removed = Marker::remove(&mut self.disk);
        self.or_stop(removed)?;
        self.damaged = None;
        Ok(())
    }

    #[inline(never)]
    fn check_running(&self) -> Result<(), WalError> {
        match &self.failed {
            Some(first) => Err(WalError::Stopped { first: first.clone() }),
            None => Ok(()),
        }
    }

    /// After an error nothing is accepted any more.
    fn or_stop<T>(&mut self, result: Result<T, WalError>) -> Result<T, WalError> {
        if let Err(error) = &result {
            self.stop(error);
        }
        result
    }

    #[cold]
    #[inline(never)]
    fn stop(&mut self, error: &WalError) {
        self.failed = Some(error.to_string());
    }

    /// Starts a segment if the batch needs one.
    fn make_room(&mut self) -> Result<(), NoSegment> {
        let payload_bytes = self.batch.bytes.len() - BATCH_HEADER_BYTES;
        if payload_bytes > MAX_BATCH_BYTES {
            let (bytes, limit) = (payload_bytes, MAX_BATCH_BYTES);
            return Err(NoSegment::Failed(WalError::BatchTooLarge { bytes, limit }));
        }
        let frame_bytes = self.batch.bytes.len() as u64;
        if self.active.has_room_for(frame_bytes) {
            return Ok(());
        }
        let was_low = self.is_low();
        self.active.close(&mut self.disk).map_err(NoSegment::Failed)?;
        let new = active::create_segment(
            &mut self.disk,
            &self.config,
            self.active.header.number + 1,
            self.standing,
            frame_bytes,
            (&mut self.spares, &mut self.reserve),
        )?;
        let before = std::mem::replace(&mut self.active, new);
        let has_usual_size = before.header.capacity == self.segment_bytes();
        self.closed.push_back(Closed {
            number: before.header.number,
            bytes: before.header.capacity,
            last_index: before.last_index,
            salt: has_usual_size.then_some(before.header.salt),
        });
        if was_low {
            active::fill_reserve(&mut self.disk, &self.config, &mut self.reserve)
                .map_err(NoSegment::Failed)?;
        }
        Ok(())
    }

    fn write_batch(&mut self) -> Result<(), WalError> {
        let Standing { next_sequence: sequence, previous_crc, .. } = self.standing;
        let hard_state = self.shape.hard_state();
        let salt = self.active.header.salt;
        let batch = &mut self.batch.bytes;
        let crc = BatchHeader::seal(batch, sequence, previous_crc, hard_state, salt);
        if hard_state != self.standing.hard_state {
            self.active.write_copy(&mut self.disk, hard_state)?;
        }
        self.active.write_batch(&mut self.disk, batch, &mut self.image)?;
        self.active.sync(&mut self.disk)?;
        self.standing = Standing {
            next_sequence: sequence + 1,
            previous_crc: crc,
            last: self.shape.last(),
            hard_state,
        };
        Ok(())
    }
}
