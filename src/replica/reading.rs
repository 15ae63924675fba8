//! What is read from the disk again: log and snapshots for followers, snapshots for clients' backups, and the
//! state for this node itself when it starts.

use super::Replica;
use crate::kv::{Loader, Machine};
use crate::node::{BackupBytes, BackupRead, PeerMessage};
use crate::raft::{LogRead, Message, NodeId, SnapshotRead};
use crate::wal::{Disk, SnapshotFile, Wal, WalError};

/// Of a snapshot, read for a client at a time.
const BACKUP_PIECE_BYTES_MAX: usize = 256 * 1024;

impl<D: Disk> Replica<D> {
    /// Entries that are not in memory any more, for a follower.
    pub(super) fn read_log(
        &mut self,
        read: &LogRead,
    ) -> Result<Option<(NodeId, PeerMessage)>, WalError> {
        let entries = match self.wal.read_entries(read.first..=read.last, read.bytes_max) {
            Ok(entries) => entries,
            Err(error @ WalError::BadLog { .. }) => {
                log::error!("{error}");
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        Ok(self.node.log_read(*read, entries))
    }

    /// The next piece of the newest snapshot, for a follower.
    pub(super) fn read_chunk(
        &mut self,
        read: &SnapshotRead,
    ) -> Result<Option<(NodeId, PeerMessage)>, WalError> {
        let SnapshotRead { to, term, position, offset } = *read;
        let file = self.wal.snapshots().iter().find(|file| file.position == position).copied();
        // Replaced by a newer one in this very moment; that is asked for next.
        let Some(file) = file else { return Ok(None) };
        let bytes_max = self.node.config().snapshot_piece_bytes;
        let data = match self.wal.read_snapshot(position, offset, bytes_max) {
            Ok(data) => data,
            Err(error @ WalError::BadSnapshot { .. }) => {
                log::error!("{error}; the state in memory is whole, and a new snapshot is taken");
                self.node.take_snapshot_soon();
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let message = Message::InstallSnapshot {
            term,
            last_included_index: position.index,
            last_included_term: position.term,
            offset,
            done: offset + data.len() as u64 >= file.payload_bytes,
            data: data.into(),
        };
        Ok(Some((to, PeerMessage::Raft(message))))
    }

    /// Pieces of snapshots that clients have asked for.
    pub(super) fn read_for_backups(&mut self) -> Result<(), WalError> {
        let limits = &self.node.config().limits;
        let bytes_max = BACKUP_PIECE_BYTES_MAX.min(limits.answer_bytes_max());
        for (ticket, read) in self.node.take_backup_reads() {
            let BackupRead { position, offset } = read;
            let mut files = self.wal.snapshots().iter();
            let is_there =
                files.any(|file| file.position == position && offset < file.payload_bytes);
            let bytes = if is_there {
                match self.wal.read_snapshot(position, offset, bytes_max) {
                    Ok(bytes) => BackupBytes::Read(bytes),
                    Err(error @ WalError::BadSnapshot { .. }) => {
                        log::error!("{error}; a new snapshot is taken");
                        self.node.take_snapshot_soon();
                        BackupBytes::Gone
                    }
                    Err(error) => return Err(error),
                }
            } else {
                BackupBytes::Gone
            };
            self.node.backup_read(ticket, read, bytes);
        }
        Ok(())
    }
}

/// The state of a snapshot file, read piece by piece.
pub(crate) fn load<D: Disk>(
    wal: &mut Wal<D>,
    file: &SnapshotFile,
    piece_bytes: usize,
) -> Result<Machine, WalError> {
    let mut loader = Loader::default();
    let mut offset = 0;
    while offset < file.payload_bytes {
        let piece = wal.read_snapshot(file.position, offset, piece_bytes)?;
        offset += piece.len() as u64;
        loader.feed(&piece).map_err(|malformed| wal.bad_snapshot(file, malformed.0))?;
    }
    loader.finish().map_err(|malformed| wal.bad_snapshot(file, malformed.0))
}
