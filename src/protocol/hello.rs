//! The first frame each way: who speaks, in which version, and whether that is acceptable.
//!
//! The dialer sends [`Hello`], the other side answers [`HelloReply`]. These frames must be understood by
//! every version there will ever be, or versions could not be negotiated: fields are only ever added at
//! the end, and a reader ignores what comes after the fields that it knows.

use super::Kind;
use crate::codec::{Malformed, Reader, put_blob, put_u8, put_u16, put_u32, put_u64};
use crate::kv::Limits;
use crate::node::Standing;
use crate::ordered::Few;
use crate::payload::read_text;
pub use crate::payload::{ADDRESS_BYTES_MAX, NAME_BYTES_MAX};
use crate::raft::{Membership, NUMBER_MAX, node_id};
use std::fmt;

/// The oldest version of the messages that this program speaks.
pub const VERSION_MIN: u16 = 2;
/// The newest version of the messages that this program speaks.
pub const VERSION_MAX: u16 = 2;

/// The longest payload of a hello or of its reply, in bytes; the frame limit until a hello is accepted.
pub const HELLO_BYTES_MAX: usize = 1024;
/// The longest reason of a refusal, in bytes of UTF-8. Longer ones are cut.
pub const REASON_BYTES_MAX: usize = 512;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    pub version_min: u16,
    pub version_max: u16,
    /// 0: a client that takes any cluster.
    pub cluster_id: u64,
    pub role: Role,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    Peer {
        node: u64,
        /// Drawn when the node's data folder was made; another one is another node, whatever its name.
        incarnation: u64,
        name: String,
        /// What it says of its place in a cluster.
        standing: Standing,
        /// `host:port` where others find it.
        address: String,
        /// The longest keys and values that it takes; version 0.1.0 does not say it.
        limits: Option<Limits>,
    },
    /// The name is for logs only.
    Client { name: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HelloReply {
    Welcome(Welcome),
    /// The connection is closed after it.
    Refused(Refused),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The version that both sides speak from here on.
    pub version: u16,
    pub cluster_id: u64,
    pub node: u64,
    pub incarnation: u64,
    pub name: String,
    /// The longest payload that the dialer may send, in bytes.
    pub frame_bytes_max: u32,
    pub key_bytes_max: u32,
    pub value_bytes_max: u32,
    /// For nodes: as in a node's hello.
    pub standing: Standing,
    pub address: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub code: RefusedCode,
    /// What does not fit, and what to do.
    pub reason: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The other side's words: a line break in them would forge a line of a log.
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let reason: String = self.reason.chars().map(printable).collect();
        write!(f, "{:?}: {reason}", self.code)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedCode {
    /// No version that both speak.
    Version,
    /// The node belongs to another cluster.
    Cluster,
    /// No member has the peer's number.
    UnknownNode,
    /// The peer's number belongs to the answering node, or to another name.
    WrongNode,
    /// The peer's number and name are right, and its data is not that of the member.
    Incarnation,
    /// Too many connections.
    Busy,
    /// The node is leaving.
    ShuttingDown,
    /// The peer was removed from the cluster.
    Removed,
    /// A code of a later version.
    Other(u8),
}

impl RefusedCode {
    pub const KNOWN: [RefusedCode; 8] = [
        RefusedCode::Version,
        RefusedCode::Cluster,
        RefusedCode::UnknownNode,
        RefusedCode::WrongNode,
        RefusedCode::Incarnation,
        RefusedCode::Busy,
        RefusedCode::ShuttingDown,
        RefusedCode::Removed,
    ];

    pub fn to_u8(self) -> u8 {
        match self {
            RefusedCode::Version => 1,
            RefusedCode::Cluster => 2,
            RefusedCode::UnknownNode => 3,
            RefusedCode::WrongNode => 4,
            RefusedCode::Incarnation => 5,
            RefusedCode::Busy => 6,
            RefusedCode::ShuttingDown => 7,
            RefusedCode::Removed => 8,
            RefusedCode::Other(code) => code,
        }
    }

    pub fn from_u8(code: u8) -> Self {
        let known = Self::KNOWN.into_iter().find(|known| known.to_u8() == code);
        known.unwrap_or(RefusedCode::Other(code))
    }
}

const ROLE_PEER: u8 = 1;
const ROLE_CLIENT: u8 = 2;

impl Hello {
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u8(out, Kind::Hello as u8);
        put_u16(out, self.version_min);
        put_u16(out, self.version_max);
        put_u64(out, self.cluster_id);
        match &self.role {
            Role::Peer { node, incarnation, name, standing, address, limits } => {
                put_u8(out, ROLE_PEER);
                put_u64(out, *node);
                put_u64(out, *incarnation);
                put_name(out, name);
                put_place(out, *standing, address);
                if let Some(limits) = limits {
                    put_u32(out, limits.key_bytes_max);
                    put_u32(out, limits.value_bytes_max);
                }
            }
            Role::Client { name } => {
                put_u8(out, ROLE_CLIENT);
                put_name(out, name);
            }
        }
    }

    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        if Kind::read(&mut reader)? != Kind::Hello {
            return Err(Malformed("hello: another message came first"));
        }
        let version_min = reader.u16("oldest version")?;
        let version_max = reader.u16("newest version")?;
        if version_min > version_max {
            return Err(Malformed("versions: the oldest is newer than the newest"));
        }
        let cluster_id = reader.u64("cluster id")?;
        let role = match reader.u8("role")? {
            ROLE_PEER => {
                let node = reader.u64("node number")?;
                let incarnation = reader.u64("incarnation")?;
                let name = read_name(&mut reader)?;
                let (standing, address) = read_place(&mut reader)?;
                let limits = read_limits(&mut reader)?;
                Role::Peer { node, incarnation, name, standing, address, limits }
            }
            ROLE_CLIENT => Role::Client { name: read_name(&mut reader)? },
            _ => return Err(Malformed("role")),
        };
        Ok(Hello { version_min, version_max, cluster_id, role })
    }
}

impl HelloReply {
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            HelloReply::Welcome(welcome) => {
                put_u8(out, Kind::Welcome as u8);
                put_u16(out, welcome.version);
                put_u64(out, welcome.cluster_id);
                put_u64(out, welcome.node);
                put_u64(out, welcome.incarnation);
                put_name(out, &welcome.name);
                put_u32(out, welcome.frame_bytes_max);
                put_u32(out, welcome.key_bytes_max);
                put_u32(out, welcome.value_bytes_max);
                put_place(out, welcome.standing, &welcome.address);
            }
            HelloReply::Refused(refused) => {
                put_u8(out, Kind::Refused as u8);
                put_u8(out, refused.code.to_u8());
                put_blob(out, cut(&refused.reason, REASON_BYTES_MAX).as_bytes());
            }
        }
    }

    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        match Kind::read(&mut reader)? {
            Kind::Welcome => read_welcome(&mut reader).map(HelloReply::Welcome),
            Kind::Refused => Ok(HelloReply::Refused(Refused {
                code: RefusedCode::from_u8(reader.u8("reason code")?),
                reason: reader.text("reason")?.to_owned(),
            })),
            _ => Err(Malformed("reply to the hello: another message came first")),
        }
    }
}

fn read_welcome(reader: &mut Reader<'_>) -> Result<Welcome, Malformed> {
    let version = reader.u16("version")?;
    let cluster_id = reader.u64("cluster id")?;
    let node = reader.u64("node number")?;
    let incarnation = reader.u64("incarnation")?;
    let name = read_name(reader)?;
    let frame_bytes_max = reader.u32("longest frame")?;
    let key_bytes_max = reader.u32("longest key")?;
    let value_bytes_max = reader.u32("longest value")?;
    let (standing, address) = read_place(reader)?;
    Ok(Welcome {
        version,
        cluster_id,
        node,
        incarnation,
        name,
        frame_bytes_max,
        key_bytes_max,
        value_bytes_max,
        standing,
        address,
    })
}

const STANDING_EMPTY: u8 = 0;
const STANDING_MEMBER: u8 = 1;
const STANDING_LOST: u8 = 2;
const STANDING_CONTACTED: u8 = 3;

fn put_place(out: &mut Vec<u8>, standing: Standing, address: &str) {
    let (code, founded) = match standing {
        Standing::Empty => (STANDING_EMPTY, 0),
        Standing::Contacted => (STANDING_CONTACTED, 0),
        Standing::Member { cluster_id } => (STANDING_MEMBER, cluster_id),
        Standing::Lost => (STANDING_LOST, 0),
    };
    put_u8(out, code);
    put_u64(out, founded);
    put_blob(out, cut(address, ADDRESS_BYTES_MAX).as_bytes());
}

fn read_place(reader: &mut Reader<'_>) -> Result<(Standing, String), Malformed> {
    let code = reader.u8("standing")?;
    let founded = reader.u64("id of the founded cluster")?;
    let standing = match (code, founded) {
        (STANDING_EMPTY, 0) => Standing::Empty,
        (STANDING_CONTACTED, 0) => Standing::Contacted,
        (STANDING_LOST, 0) => Standing::Lost,
        (STANDING_MEMBER, cluster_id) if cluster_id != 0 => Standing::Member { cluster_id },
        _ => return Err(Malformed("standing")),
    };
    Ok((standing, read_text(reader, "address", ADDRESS_BYTES_MAX)?))
}

/// Version 0.1.0 ends before them.
fn read_limits(reader: &mut Reader<'_>) -> Result<Option<Limits>, Malformed> {
    if reader.rest().is_empty() {
        return Ok(None);
    }
    let key_bytes_max = reader.u32("longest key")?;
    let value_bytes_max = reader.u32("longest value")?;
    Ok(Some(Limits { key_bytes_max, value_bytes_max }))
}

fn put_name(out: &mut Vec<u8>, name: &str) {
    put_blob(out, cut(name, NAME_BYTES_MAX).as_bytes());
}

fn read_name(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    read_text(reader, "name", NAME_BYTES_MAX)
}

/// At most `bytes_max` bytes of `text`, without splitting a character.
fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Who answers a hello, and whom it knows.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    pub cluster_id: u64,
    pub node: u64,
    pub incarnation: u64,
    pub name: &'a str,
    pub standing: Standing,
    /// Of the cluster, as far as this node knows.
    pub membership: &'a Membership,
    /// The newest that is committed. Who is removed by a later one may yet be needed.
    pub committed: &'a Membership,
    /// Numbers and names of other nodes.
    pub peers: &'a Few<u64, String>,
}

/// Whether a hello is accepted by `us`: the version to speak, or why not.
pub fn judge(hello: &Hello, us: &Identity<'_>) -> Result<u16, Refused> {
    let version = judge_version(hello)?;
    let any_cluster = matches!(hello.role, Role::Client { .. }) && hello.cluster_id == 0;
    if !any_cluster && hello.cluster_id != us.cluster_id {
        return refuse(RefusedCode::Cluster, other_cluster(us, hello.cluster_id));
    }
    if let Role::Peer { node, incarnation, name, standing, .. } = &hello.role {
        judge_peer(us, *node, *incarnation, name, *standing)?;
    }
    Ok(version)
}

/// Whether the node that answered is the one that was dialled. A client expects no particular node.
pub fn judge_welcome(welcome: &Welcome, us: &Identity<'_>, dialled: u64) -> Result<(), Refused> {
    if !(VERSION_MIN..=VERSION_MAX).contains(&welcome.version) {
        let reason = format!("{} chose version {}", welcome.name, welcome.version);
        return refuse(RefusedCode::Version, reason);
    }
    if welcome.cluster_id != us.cluster_id {
        return refuse(RefusedCode::Cluster, other_cluster(us, welcome.cluster_id));
    }
    if welcome.node != dialled {
        let name = us.peers.get(&dialled).map_or("a node", String::as_str);
        let reason = format!(
            "dialled {name} (number {dialled}) and reached {} (number {}): an old address, or a wrong one",
            welcome.name, welcome.node
        );
        return refuse(RefusedCode::WrongNode, reason);
    }
    judge_peer(us, welcome.node, welcome.incarnation, &welcome.name, welcome.standing)
}

fn judge_version(hello: &Hello) -> Result<u16, Refused> {
    let version = hello.version_max.min(VERSION_MAX);
    if version >= hello.version_min.max(VERSION_MIN) {
        return Ok(version);
    }
    let reason = format!(
        "versions {} to {} are spoken here, not {} to {}: bring the older side up to date",
        VERSION_MIN, VERSION_MAX, hello.version_min, hello.version_max
    );
    refuse(RefusedCode::Version, reason)
}

fn judge_peer(
    us: &Identity<'_>,
    node: u64,
    incarnation: u64,
    name: &str,
    standing: Standing,
) -> Result<(), Refused> {
    if node == us.node {
        let reason = if incarnation == us.incarnation {
            format!("{} has dialled itself: check the peers' addresses", us.name)
        } else {
            format!("number {node} is {} itself: two nodes run under one name", us.name)
        };
        return refuse(RefusedCode::WrongNode, reason);
    }
    if node > NUMBER_MAX {
        let reason = format!("the number of {name} is above {NUMBER_MAX}");
        return refuse(RefusedCode::WrongNode, reason);
    }
    if let Some(known) = us.peers.get(&node).filter(|known| *known != name) {
        let reason = format!("number {node} is {known} to {}, not {name}", us.name);
        return refuse(RefusedCode::WrongNode, reason);
    }
    if let (Standing::Member { cluster_id: ours }, Standing::Member { cluster_id: theirs }) =
        (us.standing, standing)
        && ours != theirs
    {
        let reason = format!(
            "{name} holds data of the cluster founded as {theirs:016x}, {} of {ours:016x}: start one of \
             them with an empty folder to take it in",
            us.name
        );
        return refuse(RefusedCode::Cluster, reason);
    }
    let id = node_id(node, incarnation);
    if us.committed.was_removed(id) {
        let reason = format!(
            "{name} was removed from the cluster; with an empty folder it can come in anew"
        );
        return refuse(RefusedCode::Removed, reason);
    }
    let is_stranger = matches!(us.standing, Standing::Member { .. }) && !us.membership.contains(id);
    if is_stranger && standing == Standing::Lost {
        let reason = format!(
            "{name} is no member and its folder is damaged; with an empty folder it can come in anew"
        );
        return refuse(RefusedCode::UnknownNode, reason);
    }
    Ok(())
}

fn other_cluster(us: &Identity<'_>, theirs: u64) -> String {
    format!(
        "{} is of cluster {:016x}, not {theirs:016x}: all need the same --cluster",
        us.name, us.cluster_id
    )
}

fn refuse<T>(code: RefusedCode, reason: String) -> Result<T, Refused> {
    Err(Refused { code, reason })
}
