//! Whose data folder this is. A folder mounted at the wrong node would make that node deny votes it
//! gave, and an empty folder under a known name is a new incarnation, not the node that once was.
//!
//! The file `identity` is text, for people to read:
//!
//! ```text
//! raftkv identity 1
//! cluster 00000000000000ff
//! node 2
//! name raft-2
//! incarnation 0123456789abcdef
//! crc32c 89abcdef
//! ```
//!
//! The first line ends in the format version; the checksum is of all lines above it.

use super::{Disk, WalError, marker, segment};
use crate::raft::NodeId;

pub(super) const FILE: &str = "identity";
const UNFINISHED_FILE: &str = "identity.tmp";
const TITLE: &str = "raftkv identity ";
const VERSION: u32 = 1;
/// Longest name of a node, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub cluster_id: u64,
    pub node: NodeId,
    /// 1 to 255 bytes, without control characters.
    pub name: String,
    /// Drawn at random when the folder was new: tells a node from one of the same name that lost its
    /// disk.
    pub incarnation: u64,
}

impl Identity {
    /// The identity that the data folder holds, or in a folder without a log a new one, which is durable when
    /// this returns. Call it before [`super::Wal::open`].
    ///
    /// # Errors
    ///
    /// [`WalError::Foreign`] if the folder is another node's or another cluster's, or holds a log but no
    /// identity; [`WalError::Corrupt`] if the file is damaged; [`WalError::Io`].
    pub fn load_or_create<D: Disk>(
        disk: &mut D,
        cluster_id: u64,
        node: NodeId,
        name: &str,
        incarnation_if_new: u64,
    ) -> Result<Identity, WalError> {
        let wanted =
            Identity { cluster_id, node, name: name.to_owned(), incarnation: incarnation_if_new };
        let names = disk.list().map_err(|e| WalError::io("list", disk.path(""), e))?;
        if let Some(found) = wanted.load(disk, &names)? {
            return Ok(found);
        }
        wanted.create(disk, names.iter().any(|name| name == UNFINISHED_FILE))?;
        Ok(wanted)
    }

    /// The identity that the data folder holds; `None` if there is no log.
    ///
    /// # Errors
    ///
    /// As [`Identity::load_or_create`].
    pub fn load_existing<D: Disk>(
        disk: &mut D,
        cluster_id: u64,
        node: u64,
        name: &str,
    ) -> Result<Option<Identity>, WalError> {
        let wanted = Identity { cluster_id, node, name: name.to_owned(), incarnation: 0 };
        let names = disk.list().map_err(|e| WalError::io("list", disk.path(""), e))?;
        wanted.load(disk, &names)
    }

    /// The one in the folder, if there is a log of it, and it is of the same node and cluster as this.
    fn load<D: Disk>(&self, disk: &mut D, names: &[String]) -> Result<Option<Self>, WalError> {
        if !names.iter().any(|name| name == FILE) {
            if names.iter().any(|name| segment::is_wal_name(name)) {
                let what = "holds a log, but no file that says whose it is";
                return Err(foreign(disk, what.to_owned()));
            }
            return Ok(None);
        }
        let bytes = disk.read(FILE).map_err(|e| WalError::io("read", disk.path(FILE), e))?;
        let found = parse(&bytes, disk)?;
        if (found.cluster_id, found.node, &found.name) != (self.cluster_id, self.node, &self.name) {
            return Err(foreign(disk, format!("belongs to {found}, not to {self}")));
        }
        // Nothing was ever written under this incarnation, or somebody has removed it: what it once promised is
        // gone, so it is another one from now on. Not if the log went with an account of it: that keeps the vote.
        let is_promised = |name: &String| segment::is_wal_name(name) || name == marker::FILE;
        if !names.iter().any(is_promised) {
            return Ok(None);
        }
        // The process that renamed it here may not have lived to sync the folder.
        disk.sync_dir().map_err(|e| WalError::io("sync", disk.path(""), e))?;
        Ok(Some(found))
    }

    /// Under another name first, so that the file is there as a whole or not at all.
    fn create<D: Disk>(&self, disk: &mut D, unfinished_exists: bool) -> Result<(), WalError> {
        if self.name.is_empty()
            || self.name.len() > MAX_NAME_BYTES
            || self.name.contains(char::is_control)
        {
            let what = format!(
                "cannot be given to a node called {:?}: a name has 1 to {MAX_NAME_BYTES} bytes \
                 and no control characters",
                self.name
            );
            return Err(foreign(disk, what));
        }
        if unfinished_exists {
            disk.remove(UNFINISHED_FILE)
                .map_err(|e| WalError::io("remove", disk.path(UNFINISHED_FILE), e))?;
        }
        let text = self.encode();
        let path = disk.path(UNFINISHED_FILE);
        let fail = |operation| {
            let path = path.clone();
            move |e| WalError::io(operation, path, e)
        };
        let mut file = disk.create(UNFINISHED_FILE, text.len() as u64).map_err(fail("create"))?;
        disk.write_at(&mut file, 0, text.as_bytes()).map_err(fail("write"))?;
        disk.sync_data(&mut file).map_err(fail("sync"))?;
        disk.rename(UNFINISHED_FILE, FILE).map_err(fail("rename"))?;
        disk.sync_dir().map_err(|e| WalError::io("sync", disk.path(""), e))
    }

    fn encode(&self) -> String {
        let Identity { cluster_id, node, name, incarnation } = self;
        let text = format!(
            "{TITLE}{VERSION}\ncluster {cluster_id:016x}\nnode {node}\nname {name}\n\
             incarnation {incarnation:016x}\n"
        );
        let crc = crc32c::crc32c(text.as_bytes());
        format!("{text}crc32c {crc:08x}\n")
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Identity { cluster_id, node, name, .. } = self;
        write!(f, "node {name} (number {node}) of cluster {cluster_id:016x}")
    }
}

fn foreign<D: Disk>(disk: &D, what: String) -> WalError {
    WalError::Foreign { folder: disk.path(""), what }
}

/// Only what [`Identity::encode`] makes, byte for byte, is an identity; that covers the checksum too.
fn parse<D: Disk>(bytes: &[u8], disk: &D) -> Result<Identity, WalError> {
    let damaged = |offset, what| WalError::corrupt(disk.path(FILE), offset, what);
    let text = std::str::from_utf8(bytes)
        .map_err(|e| damaged(e.valid_up_to(), "the identity is not text"))?;
    let mut lines = text.lines();
    let mut field = |start: &str| lines.next().and_then(|line| line.strip_prefix(start));
    let version = field(TITLE).and_then(|digits| digits.parse::<u32>().ok());
    match version {
        None => return Err(damaged(0, "it does not begin like an identity")),
        Some(VERSION) => {}
        Some(version) => return Err(WalError::UnknownVersion { file: disk.path(FILE), version }),
    }
    let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
    let fields = (|| {
        Some(Identity {
            cluster_id: field("cluster ").and_then(hex)?,
            node: field("node ").and_then(|digits| digits.parse().ok())?,
            name: field("name ")?.to_owned(),
            incarnation: field("incarnation ").and_then(hex)?,
        })
    })();
    let Some(identity) = fields else {
        return Err(damaged(0, "a line of the identity is missing or unreadable"));
    };
    let expected = identity.encode();
    if expected.as_bytes() == bytes {
        return Ok(identity);
    }
    let same = expected.bytes().zip(bytes).take_while(|(a, b)| a == *b).count();
    Err(damaged(same, "the identity's checksum is wrong"))
}
