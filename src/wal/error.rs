//! What can go wrong with the data folder, each said in one line: what happened, to what, what to do.

use crate::raft::Position;
use std::fmt;
use std::io;
use std::path::PathBuf;

#[derive(Debug)]
pub enum WalError {
    /// The disk refused an operation ("write", "sync", ...).
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    /// Another process holds the lock.
    InUse { folder: PathBuf },
    /// A file does not hold what was once written and acknowledged.
    Corrupt {
        file: PathBuf,
        /// Bytes from the start of the file.
        offset: u64,
        what: String,
    },
    /// A file of a format version that this program does not know.
    UnknownVersion { file: PathBuf, version: u32 },
    /// The data folder is not this node's.
    Foreign { folder: PathBuf, what: String },
    /// A snapshot does not hold what was once written. It is no longer used.
    BadSnapshot {
        file: PathBuf,
        /// Bytes from the start of the file.
        offset: u64,
        what: String,
    },
    /// A part of the log that was read again does not hold what was once written.
    BadLog {
        file: PathBuf,
        /// Bytes of the stream of batches.
        at: u64,
        what: String,
    },
    /// No such snapshot is kept (any more), or none of that kind is being written.
    NoSnapshot { folder: PathBuf, position: Option<Position> },
    /// More records in one batch than the format allows.
    BatchTooLarge { bytes: usize, limit: usize },
    /// An earlier error, told in `first`, ended the log.
    Stopped { first: String },
}

impl WalError {
    #[inline(never)]
    pub(super) fn io(operation: &'static str, path: PathBuf, source: io::Error) -> Self {
        WalError::Io { operation, path, source }
    }

    /// Whether the disk (or this user's share of it) has no room left.
    pub fn is_full(&self) -> bool {
        let WalError::Io { source, .. } = self else { return false };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    pub(super) fn corrupt(file: PathBuf, offset: usize, what: impl Into<String>) -> Self {
        WalError::Corrupt { file, offset: offset as u64, what: what.into() }
    }
}

impl fmt::Display for WalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalError::Io { operation, path, source } => write!(
                f,
                "cannot {operation} {}: {source}{}",
                path.display(),
                if self.is_full() {
                    ""
                } else {
                    "; check the disk and the permissions, then start again"
                }
            ),
            WalError::InUse { folder } => write!(
                f,
                "data folder {} is in use by another process; stop that one, or give this node \
                 a data folder of its own",
                folder.display()
            ),
            WalError::Corrupt { file, offset, what } => write!(
                f,
                "{} is damaged at byte {offset}: {what}; nothing was changed; keep a copy of the \
                 data folder and replace this node by an empty one",
                file.display()
            ),
            WalError::BadSnapshot { file, offset, what } => write!(
                f,
                "snapshot {} is damaged at byte {offset}: {what}; it was set aside as {}, and an \
                 older one or another node's takes its place",
                file.display(),
                super::SET_ASIDE
            ),
            WalError::BadLog { file, at, what } => write!(
                f,
                "the log in {} is damaged at byte {at} of its batches: {what}; whoever needs it is sent a \
                 snapshot; check the disk",
                file.display()
            ),
            WalError::NoSnapshot { folder, position: Some(Position { index, term }) } => write!(
                f,
                "data folder {} holds no snapshot of index {index} and term {term} any more; \
                 take the newest one instead",
                folder.display()
            ),
            WalError::NoSnapshot { folder, position: None } => write!(
                f,
                "no such snapshot is being written to data folder {}; begin it first",
                folder.display()
            ),
            WalError::UnknownVersion { file, version } => write!(
                f,
                "{} has format version {version}, which this program does not know; start the \
                 program version that wrote it",
                file.display()
            ),
            WalError::Foreign { folder, what } => write!(
                f,
                "data folder {} {what}; check the node's name, cluster and data folder",
                folder.display()
            ),
            WalError::BatchTooLarge { bytes, limit } => write!(
                f,
                "a batch of {bytes} bytes is above the write-ahead log's limit of {limit} bytes; \
                 lower the limits on what a node takes in at once"
            ),
            WalError::Stopped { first } => write!(
                f,
                "the write-ahead log stopped at an earlier error ({first}); end this process and \
                 start it again"
            ),
        }
    }
}

impl std::error::Error for WalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            WalError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
