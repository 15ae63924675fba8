//! Backups: a client asks for the state, and gets the newest snapshot file of this node in pieces.
//!
//! It goes in three steps, none of which makes anybody wait. *Begin* is a linearizable read that is answered
//! with an index; whatever was acknowledged before is in the state there. The node then wishes for a snapshot
//! at that index or later. *Find* says where it is, once it is on disk. A *piece* is read from the file by its
//! offset. Nothing is kept for a client but the wish, so a client that goes away leaves nothing behind.
//!
//! Two snapshots are on disk, so the file is there until two more were taken. While pieces are asked for, none is
//! taken only because the log has become long, within limits; if the file is gone all the same, the client is
//! told to begin again.

use super::requests::{failure, overloaded};
use super::{Node, Origin};
use crate::kv::{Answer, BackupPart, BackupRequest, Failure, FailureCode};
use crate::raft::{Index, Position, number};
use std::rc::Rc;

/// Pieces that are read from the disk in one turn.
const READS_PER_TURN: usize = 4;
/// Pieces that wait to be read, of all clients.
const READS_MAX: usize = 64;
/// While pieces are asked for, the log grows to so many times its usual length before the next snapshot.
const PINNED_LOG_TIMES: u64 = 4;

#[derive(Debug, Default)]
pub(super) struct Backups {
    /// The newest snapshot on disk, and how long it is.
    newest: Option<(Position, u64)>,
    /// Somebody waits for a snapshot at this index or later.
    wanted: Index,
    /// Pieces are asked for until about then.
    used_until_ticks: u64,
    reads: Vec<(Origin, BackupRead)>,
}

/// To be read from a snapshot file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupRead {
    pub position: Position,
    pub offset: u64,
}

/// What came of it.
#[derive(Debug)]
pub enum BackupBytes {
    Read(Vec<u8>),
    /// The file is not there any more, or is not that long, or is damaged.
    Gone,
}

impl Node {
    /// A snapshot is on disk: taken, received, or found there at the start.
    pub fn snapshot_is_there(&mut self, position: Position, payload_bytes: u64) {
        self.backups.newest = Some((position, payload_bytes));
    }

    /// Whether a backup waits for a snapshot that is newer than the newest one.
    pub(super) fn backup_wants_snapshot(&self) -> bool {
        let newest = self.backups.newest.map_or(0, |(position, _)| position.index);
        self.backups.wanted > newest
    }

    /// Whether the snapshots on disk should stay for a while.
    pub(super) fn is_backed_up(&self) -> bool {
        let is_used = self.now_ticks < self.backups.used_until_ticks;
        is_used && !self.log_growth.is_long(PINNED_LOG_TIMES)
    }

    /// The confirmed beginning: the state as it is now, or a later one.
    pub(super) fn begin_backup(&mut self) -> Answer {
        let index = self.machine.applied();
        self.backups.wanted = self.backups.wanted.max(index);
        let leader = number(self.raft.id());
        Answer::Backup { part: BackupPart::Begun, index, leader }
    }

    /// What any node answers from its own disk.
    pub(super) fn go_on_with_backup(&mut self, origin: Origin, request: BackupRequest) {
        self.backups.used_until_ticks = self.now_ticks + self.config.forward_timeout_ticks;
        match request {
            BackupRequest::Begin => {
                unreachable!("that is a read, and answered when it is confirmed")
            }
            BackupRequest::Find { index } => {
                let answer = self.find_backup(index);
                self.answer(origin, answer);
            }
            BackupRequest::Piece { index, term, offset } => {
                if self.backups.reads.len() >= READS_MAX {
                    let what = format!("{READS_MAX} pieces of backups wait to be read");
                    return self.answer(origin, Answer::Failed(overloaded(what)));
                }
                let position = Position { index, term };
                self.backups.reads.push((origin, BackupRead { position, offset }));
            }
        }
    }

    fn find_backup(&mut self, index: Index) -> Answer {
        let leader = number(self.raft.id());
        if let Some((position, bytes)) = self.backups.newest
            && position.index >= index
        {
            let part = BackupPart::Found { term: position.term, bytes };
            return Answer::Backup { part, index: position.index, leader };
        }
        if index > self.machine.applied() {
            let what = format!("{} has not applied index {index}", self.config.name);
            return Answer::Failed(gone(&what));
        }
        if self.is_disk_low {
            let what = format!(
                "the disk of {} is full, so that no snapshot can be taken",
                self.config.name
            );
            return Answer::Failed(gone(&what));
        }
        // A restart may have forgotten the wish.
        self.backups.wanted = self.backups.wanted.max(index);
        Answer::Backup { part: BackupPart::NotYet, index, leader }
    }

    /// What is to be read from the disk in this turn.
    pub fn take_backup_reads(&mut self) -> Vec<(BackupTicket, BackupRead)> {
        let count = self.backups.reads.len().min(READS_PER_TURN);
        let reads = self.backups.reads.drain(..count);
        reads.map(|(origin, read)| (BackupTicket(origin), read)).collect()
    }

    pub(super) fn has_backup_reads(&self) -> bool {
        !self.backups.reads.is_empty()
    }

    pub fn backup_read(&mut self, ticket: BackupTicket, read: BackupRead, bytes: BackupBytes) {
        let BackupRead { position, .. } = read;
        let answer = match bytes {
            BackupBytes::Read(bytes) => Answer::Backup {
                part: BackupPart::Piece(Rc::from(bytes)),
                index: position.index,
                leader: number(self.raft.id()),
            },
            BackupBytes::Gone => {
                let index = position.index;
                Answer::Failed(gone(&format!("the snapshot at index {index} is not here any more")))
            }
        };
        self.answer(ticket.0, answer);
    }

    /// The state is thrown away, and its files with it.
    pub(super) fn abandon_backups(&mut self) {
        let what = "this node gave up its state";
        for (origin, _) in std::mem::take(&mut self.backups).reads {
            self.answer(origin, Answer::Failed(gone(what)));
        }
    }
}

/// Who asked for a piece.
#[derive(Debug)]
pub struct BackupTicket(Origin);

/// Trying again, here or elsewhere, brings nothing: the client has to begin anew.
fn gone(what: &str) -> Failure {
    failure(FailureCode::NotPossible, format!("{what}; begin the backup again"))
}
