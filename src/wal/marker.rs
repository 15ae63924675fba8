//! The file `damaged`: what this node knows it has lost. It is durable before anything is cut off, and
//! stays until the node's owner says that the log is whole again. It keeps the hard state meanwhile,
//! because what is cut off may have been where that was written.
//!
//! ```text
//! raftkv damaged 1
//! term 7
//! vote 2
//! what data/wal-0000000000000003.log is damaged at byte 4096: a sector's checksum is wrong
//! crc32c 89abcdef
//! ```
//!
//! It is text, for people to read. The first line ends in the format version; the vote may be `none`; the
//! checksum is of all lines above it.

use super::active::give_name;
use super::{Disk, WalError};
use crate::raft::HardState;

pub(super) const FILE: &str = "damaged";
pub const UNFINISHED_MARKER: &str = "damaged.tmp";
const TITLE: &str = "raftkv damaged ";
const VERSION: u32 = 1;
/// Longest account of what was lost, in bytes; a longer one is cut off.
const WHAT_BYTES_MAX: usize = 2000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    pub what: String,
    pub hard_state: HardState,
}

impl Marker {
    pub fn read<D: Disk>(disk: &D, names: &[String]) -> Result<Option<Marker>, WalError> {
        if !names.iter().any(|name| name == FILE) {
            return Ok(None);
        }
        let path = disk.path(FILE);
        let bytes = disk.read(FILE).map_err(|e| WalError::io("read", path.clone(), e))?;
        match parse(&bytes) {
            Ok(Ok(marker)) => Ok(Some(marker)),
            Ok(Err(version)) => Err(WalError::UnknownVersion { file: path, version }),
            // It may be the last to know a vote.
            Err(what) => Err(WalError::corrupt(path, 0, what)),
        }
    }

    /// What this and then another loss amount to.
    pub fn and(mut self, what: &str) -> Self {
        if !self.what.contains(what) {
            self.what = format!("{}; {what}", self.what);
        }
        self
    }

    /// Durable when this returns. Takes the place of an earlier one.
    pub fn write<D: Disk>(&self, disk: &mut D) -> Result<(), WalError> {
        let text = self.encode();
        let path = disk.path(UNFINISHED_MARKER);
        let fail = |operation| {
            let path = path.clone();
            move |e| WalError::io(operation, path, e)
        };
        let mut file = disk.create(UNFINISHED_MARKER, text.len() as u64).map_err(fail("create"))?;
        disk.write_at(&mut file, 0, text.as_bytes()).map_err(fail("write"))?;
        disk.sync_data(&mut file).map_err(fail("sync"))?;
        give_name(disk, UNFINISHED_MARKER, FILE)
    }

    pub fn remove<D: Disk>(disk: &mut D) -> Result<(), WalError> {
        disk.remove(FILE).map_err(|e| WalError::io("remove", disk.path(FILE), e))?;
        disk.sync_dir().map_err(|e| WalError::io("sync", disk.path(""), e))
    }

    fn encode(&self) -> String {
        let HardState { term, voted_for } = self.hard_state;
        let vote = voted_for.map_or("none".to_owned(), |node| node.to_string());
        let what = one_line(&self.what);
        let text = format!("{TITLE}{VERSION}\nterm {term}\nvote {vote}\nwhat {what}\n");
        let crc = crc32c::crc32c(text.as_bytes());
        format!("{text}crc32c {crc:08x}\n")
    }
}

/// The text as the file can hold it.
pub fn one_line(what: &str) -> String {
    let mut line = String::new();
    for character in what.chars() {
        if line.len() + character.len_utf8() > WHAT_BYTES_MAX {
            break;
        }
        line.push(if character.is_control() { ' ' } else { character });
    }
    line
}

/// Only what [`Marker::encode`] makes, byte for byte, is a marker; that covers the checksum too.
fn parse(bytes: &[u8]) -> Result<Result<Marker, u32>, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
    let mut lines = text.lines();
    let mut field = |start: &str| lines.next().and_then(|line| line.strip_prefix(start));
    match field(TITLE).and_then(|digits| digits.parse::<u32>().ok()) {
        None => return Err("it does not begin like an account of damage"),
        Some(VERSION) => {}
        Some(version) => return Ok(Err(version)),
    }
    let fields = (|| {
        let term = field("term ")?.parse().ok()?;
        let voted_for = match field("vote ")? {
            "none" => None,
            node => Some(node.parse().ok()?),
        };
        let what = field("what ")?.to_owned();
        Some(Marker { what, hard_state: HardState { term, voted_for } })
    })();
    match fields {
        Some(marker) if marker.encode().as_bytes() == bytes => Ok(Ok(marker)),
        _ => Err("its checksum is wrong"),
    }
}
