//! The whole state, from the server that has a snapshot of it, a piece at a time.

use super::{Client, ClientError, Why};
use crate::kv::{Answer, BackupPart, BackupRequest, Request};
use crate::raft::{Index, Term};
use std::time::Duration;

/// Between two questions whether a snapshot is ready.
const BACKUP_PAUSE: Duration = Duration::from_millis(50);

/// Where a backup is to be fetched from: the snapshot of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupSource {
    /// `host:port`.
    pub server: String,
    pub cluster_id: u64,
    /// Of the last entry that it includes.
    pub index: Index,
    pub term: Term,
    /// How long it is.
    pub bytes: u64,
}

impl Client {
    /// Begins a backup, and waits until the state is ready to be fetched: everything that was acknowledged before
    /// is in it. The leader gives it, and goes on to if it leads no more.
    pub fn begin_backup(&mut self) -> Result<BackupSource, ClientError> {
        let wanted = match self.read(Request::Backup(BackupRequest::Begin))? {
            Answer::Backup { part: BackupPart::Begun, index, .. } => index,
            other => return Err(self.nonsense(&other, false)),
        };
        let server = self.route.leader().expect("it has just answered").to_owned();
        loop {
            // However long the snapshot takes, the server answers each time.
            let step = Request::Backup(BackupRequest::Find { index: wanted });
            match self.ask_at(&server, step)? {
                Answer::Backup { part: BackupPart::NotYet, .. } => {
                    if (self.pause)(BACKUP_PAUSE).is_break() {
                        return Err(self.give_up(Why::Interrupted, false));
                    }
                }
                Answer::Backup { part: BackupPart::Found { term, bytes }, index, .. }
                    if index >= wanted =>
                {
                    let cluster_id = self.cluster_id;
                    return Ok(BackupSource { server, cluster_id, index, term, bytes });
                }
                other => return Err(self.nonsense(&other, false)),
            }
        }
    }

    /// Some bytes of it, from `offset` on.
    pub fn backup_piece(
        &mut self,
        source: &BackupSource,
        offset: u64,
    ) -> Result<Vec<u8>, ClientError> {
        let BackupSource { index, term, .. } = *source;
        let step = Request::Backup(BackupRequest::Piece { index, term, offset });
        match self.ask_at(&source.server, step)? {
            Answer::Backup { part: BackupPart::Piece(bytes), index: of, .. } if of == index => {
                Ok(bytes.to_vec())
            }
            other => Err(self.nonsense(&other, false)),
        }
    }
}
