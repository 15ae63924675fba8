//! The snapshots of a data folder: the newest two that are finished, and at most one of each kind that is
//! being written.
//!
//! Two are kept so that damage to the newer one costs nothing: the older one and the log, which is only
//! cut off behind the older one, give the same state. A snapshot that turns out damaged is renamed to
//! `snapshot.corrupt`, for a person to look at; it replaces the one before it there, so that damage can
//! not fill the disk.

use super::snapshot::{self, Header, Problem, SnapshotFile, Writer};
use super::{Disk, Wal, WalError};
use crate::ordered::Few;
use crate::raft::Position;

/// Finished snapshots kept.
pub const SNAPSHOTS_KEPT: usize = 2;

/// The name of the last damaged snapshot.
pub const SET_ASIDE: &str = "snapshot.corrupt";

const OWN: &str = "snapshot-own.tmp";
const INCOMING: &str = "snapshot-incoming.tmp";

/// Where a snapshot comes from. One of each can be written at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotKind {
    /// Of this node's state machine.
    Own,
    /// From the leader.
    Incoming,
}

impl SnapshotKind {
    fn temporary_name(self) -> &'static str {
        match self {
            SnapshotKind::Own => OWN,
            SnapshotKind::Incoming => INCOMING,
        }
    }
}

/// Whether a name is that of a snapshot which is not finished: worth nothing after a restart.
pub fn is_temporary(name: &str) -> bool {
    name == OWN || name == INCOMING
}

pub struct Snapshots<F> {
    finished: Vec<Header>,
    /// The same, as the owner of the log sees them.
    files: Vec<SnapshotFile>,
    own: Option<Writer<F>>,
    incoming: Option<Writer<F>>,
}

impl<F> Snapshots<F> {
    pub fn new(finished: Vec<Header>) -> Self {
        let files = finished.iter().map(|header| header.file).collect();
        Snapshots { finished, files, own: None, incoming: None }
    }

    fn writer(&mut self, kind: SnapshotKind) -> &mut Option<Writer<F>> {
        match kind {
            SnapshotKind::Own => &mut self.own,
            SnapshotKind::Incoming => &mut self.incoming,
        }
    }

    /// Puts a snapshot into its place in the row; an equal one is replaced.
    fn insert(&mut self, new: Header) {
        let key = |header: &Header| (header.file.position.index, header.file.position.term);
        self.finished.retain(|header| key(header) != key(&new));
        let at = self.finished.partition_point(|header| key(header) < key(&new));
        self.finished.insert(at, new);
        self.files = self.finished.iter().map(|header| header.file).collect();
    }

    fn take(&mut self, at: usize) -> Header {
        self.files.remove(at);
        self.finished.remove(at)
    }
}

/// What the folder's names say about snapshots, and what their files do.
pub struct Found {
    /// Oldest first. The newest is whole; the older ones have a valid header.
    pub finished: Vec<Header>,
    /// Damaged ones, and what is wrong with them.
    pub damaged: Vec<(String, String)>,
}

/// Looks for the newest snapshot that is whole, reading it once from beginning to end. Changes nothing.
pub fn find<D: Disk>(disk: &D, names: &[String]) -> Result<Found, WalError> {
    let positions = names.iter().filter_map(|name| snapshot::position_in(name));
    let positions: Few<Position, ()> = positions.map(|position| (position, ())).collect();
    let mut found = Found { finished: Vec::new(), damaged: Vec::new() };
    for (position, ()) in positions.into_iter().rev() {
        let checked = Header::read(disk, position).and_then(|header| {
            if found.finished.is_empty() {
                header.check(disk)?;
            }
            Ok(header)
        });
        match checked {
            Ok(header) => found.finished.insert(0, header),
            Err(Problem::Error(error)) => return Err(error),
            Err(Problem::Bad { offset, what }) => {
                let name = snapshot::file_name(position);
                let path = disk.path(&name);
                let what = format!("{} is damaged at byte {offset}: {what}", path.display());
                found.damaged.push((name, what));
            }
        }
    }
    Ok(found)
}

impl<D: Disk> Wal<D> {
    /// Starts to write a snapshot of everything up to `position`. One of the same kind that was under way
    /// is given up.
    ///
    /// # Errors
    ///
    /// Like all that write snapshots: if the disk is full ([`WalError::is_full`]), this snapshot is given
    /// up, nothing of it is left, and the log goes on. Every other error of the disk is final.
    pub fn begin_snapshot(
        &mut self,
        kind: SnapshotKind,
        position: Position,
    ) -> Result<(), WalError> {
        self.abandon_snapshot(kind)?;
        // Only the salt's being different matters, and the two kinds may have the same position.
        let seed = self.config.salt_seed ^ position.index.rotate_left(20) ^ position.term;
        let salt = fastrand::Rng::with_seed(seed.wrapping_add(kind as u64)).u32(..);
        let created = Writer::create(&mut self.disk, kind.temporary_name(), position, salt);
        let writer = self.or_give_up(kind, created)?;
        *self.snapshots.writer(kind) = Some(writer);
        Ok(())
    }

    /// Adds to the payload. What fills a block is written before this returns, and no more than
    /// [`SNAPSHOT_SYNC_BYTES`](super::SNAPSHOT_SYNC_BYTES) is not synced then, or than `bytes` if that is more: the two
    /// bound how long it takes. It is durable when the snapshot is finished: until then it is worth nothing after a
    /// restart.
    ///
    /// # Errors
    ///
    /// [`WalError::NoSnapshot`] if none of this kind was begun; else as [`Wal::begin_snapshot`].
    pub fn append_snapshot(&mut self, kind: SnapshotKind, bytes: &[u8]) -> Result<(), WalError> {
        self.check_running()?;
        let Some(writer) = self.snapshots.writer(kind) else { return Err(self.none_begun()) };
        let appended = writer.append(&mut self.disk, bytes);
        self.or_give_up(kind, appended)
    }

    /// Makes the snapshot durable under its name, then removes all but the newest two.
    ///
    /// # Errors
    ///
    /// As [`Wal::append_snapshot`].
    pub fn finish_snapshot(&mut self, kind: SnapshotKind) -> Result<SnapshotFile, WalError> {
        self.check_running()?;
        let Some(writer) = self.snapshots.writer(kind).take() else {
            return Err(self.none_begun());
        };
        let finished = writer.finish(&mut self.disk);
        let header = self.or_give_up(kind, finished)?;
        self.snapshots.insert(header);
        while self.snapshots.files.len() > SNAPSHOTS_KEPT {
            self.remove_oldest_snapshot()?;
        }
        Ok(header.file)
    }

    /// Gives the older one of two up, for want of space. The newest one and the log after it make the
    /// state.
    ///
    /// # Errors
    ///
    /// An error of the disk, which is final.
    pub fn drop_older_snapshot(&mut self) -> Result<(), WalError> {
        self.check_running()?;
        if self.snapshots.files.len() == SNAPSHOTS_KEPT {
            self.remove_oldest_snapshot()?;
        }
        Ok(())
    }

    fn remove_oldest_snapshot(&mut self) -> Result<(), WalError> {
        let name = self.snapshots.take(0).file_name();
        let removed = self.disk.remove(&name);
        self.or_stop(removed.map_err(|e| WalError::io("remove", self.disk.path(&name), e)))?;
        // Its name may not come back once a part of it is gone.
        let synced = self.disk.sync_dir();
        self.or_stop(synced.map_err(|e| WalError::io("sync", self.disk.path(""), e)))
    }

    /// Gives back a part of the room of large files that were removed.
    ///
    /// # Errors
    ///
    /// An error of the disk, which is final.
    pub fn free_some(&mut self) -> Result<(), WalError> {
        self.check_running()?;
        let freed = self.disk.free_some();
        self.or_stop(freed.map_err(|e| WalError::io("free the room of", self.disk.path(""), e)))
    }

    /// Whether some of it is left.
    pub fn is_freeing(&self) -> bool {
        self.disk.leaving_bytes() > 0
    }

    /// Gives up the snapshot of this kind that is being written, if there is one.
    ///
    /// # Errors
    ///
    /// An error of the disk, which is final.
    #[inline(never)]
    pub fn abandon_snapshot(&mut self, kind: SnapshotKind) -> Result<(), WalError> {
        self.check_running()?;
        if self.snapshots.writer(kind).take().is_some() {
            self.remove_temporary(kind)?;
        }
        Ok(())
    }

    /// Position and payload bytes so far of the snapshot of this kind that is being written.
    pub fn snapshot_progress(&self, kind: SnapshotKind) -> Option<(Position, u64)> {
        let writer = match kind {
            SnapshotKind::Own => &self.snapshots.own,
            SnapshotKind::Incoming => &self.snapshots.incoming,
        };
        writer.as_ref().map(|writer| (writer.position(), writer.payload_bytes()))
    }

    /// The finished snapshots, oldest first; at most two.
    pub fn snapshots(&self) -> &[SnapshotFile] {
        &self.snapshots.files
    }

    /// Payload bytes of a finished snapshot, checked, from payload byte `offset` on: `bytes_max` of them,
    /// or what is left.
    ///
    /// # Errors
    ///
    /// [`WalError::NoSnapshot`] if there is none of this position; [`WalError::BadSnapshot`] if what was
    /// read is damaged, and then the snapshot is no longer there. Of the disk's errors, only those met
    /// while setting a damaged snapshot aside are final.
    pub fn read_snapshot(
        &mut self,
        position: Position,
        offset: u64,
        bytes_max: usize,
    ) -> Result<Vec<u8>, WalError> {
        self.check_running()?;
        let Some(at) = self.snapshots.files.iter().position(|file| file.position == position)
        else {
            return Err(WalError::NoSnapshot {
                folder: self.disk.path(""),
                position: Some(position),
            });
        };
        match self.snapshots.finished[at].read_payload(&self.disk, offset, bytes_max) {
            Ok(payload) => Ok(payload),
            Err(Problem::Error(error)) => Err(error),
            Err(Problem::Bad { offset, what }) => {
                self.snapshots.take(at);
                let name = snapshot::file_name(position);
                let set_aside = set_aside(&mut self.disk, &name);
                self.or_stop(set_aside)?;
                Err(WalError::BadSnapshot { file: self.disk.path(&name), offset, what })
            }
        }
    }

    /// The error for a snapshot whose checksums are right and whose payload makes no sense.
    pub fn bad_snapshot(&self, file: &SnapshotFile, what: &str) -> WalError {
        let file = self.disk.path(&snapshot::file_name(file.position));
        WalError::BadSnapshot { file, offset: 0, what: what.to_owned() }
    }

    /// Removes all finished snapshots: for an owner that found their content to be wrong.
    ///
    /// # Errors
    ///
    /// An error of the disk, which is final.
    ///
    /// # Panics
    ///
    /// If the log is not marked as damaged: what the snapshots held is lost to this node.
    pub fn discard_snapshots(&mut self) -> Result<(), WalError> {
        self.check_running()?;
        assert!(self.damaged().is_some(), "snapshots discarded without marking the loss");
        while let Some(last) = self.snapshots.files.len().checked_sub(1) {
            let name = self.snapshots.take(last).file_name();
            let removed = self.disk.remove(&name);
            self.or_stop(removed.map_err(|e| WalError::io("remove", self.disk.path(&name), e)))?;
        }
        let synced = self.disk.sync_dir();
        self.or_stop(synced.map_err(|e| WalError::io("sync", self.disk.path(""), e)))
    }

    fn none_begun(&self) -> WalError {
        WalError::NoSnapshot { folder: self.disk.path(""), position: None }
    }

    /// After an error nothing is left of the snapshot under way; only a full disk is no reason to stop.
    #[inline(never)]
    fn or_give_up<T>(
        &mut self,
        kind: SnapshotKind,
        result: Result<T, WalError>,
    ) -> Result<T, WalError> {
        match result {
            Err(error) if error.is_full() => {
                *self.snapshots.writer(kind) = None;
                self.remove_temporary(kind)?;
                Err(error)
            }
            other => self.or_stop(other),
        }
    }

    #[inline(never)]
    fn remove_temporary(&mut self, kind: SnapshotKind) -> Result<(), WalError> {
        let name = kind.temporary_name();
        let removed = match self.disk.remove(name) {
            // A file that found no room for its name, or got its last name already.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|e| WalError::io("remove", self.disk.path(name), e)),
        };
        self.or_stop(removed)
    }
}

/// Takes a damaged snapshot out of use.
pub fn set_aside<D: Disk>(disk: &mut D, name: &str) -> Result<(), WalError> {
    disk.rename(name, SET_ASIDE).map_err(|e| WalError::io("rename", disk.path(name), e))?;
    disk.sync_dir().map_err(|e| WalError::io("sync", disk.path(""), e))
}
