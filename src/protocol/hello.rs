//! The first frame each way: who speaks, in which version, and whether that is acceptable.
//!
//! The dialer sends [`Hello`], the other side answers [`HelloReply`]. These frames must be understood by
//! every version there will ever be, or versions could not be negotiated: fields are only ever added at
//! the end, and a reader ignores what comes after the fields that it knows.

use super::Kind;
use crate::codec::{Malformed, Reader, put_blob, put_u8, put_u16, put_u32, put_u64};
use crate::raft::NodeId;
use std::fmt;

/// The oldest version of the messages that this program speaks.
pub const VERSION_MIN: u16 = 1;
/// The newest version of the messages that this program speaks.
pub const VERSION_MAX: u16 = 1;

/// The longest payload of a hello or of its reply, in bytes; the frame limit until a hello is accepted.
pub const HELLO_BYTES_MAX: usize = 1024;
/// The longest name, in bytes of UTF-8. Longer ones are cut.
pub const NAME_BYTES_MAX: usize = 255;
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
        node: NodeId,
        /// Drawn when the node's data folder was made; another one is another node, whatever its name.
        incarnation: u64,
        name: String,
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
    pub node: NodeId,
    pub incarnation: u64,
    pub name: String,
    /// The longest payload that the dialer may send, in bytes.
    pub frame_bytes_max: u32,
    pub key_bytes_max: u32,
    pub value_bytes_max: u32,
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
    /// A code of a later version.
    Other(u8),
}

impl RefusedCode {
    pub const KNOWN: [RefusedCode; 7] = [
        RefusedCode::Version,
        RefusedCode::Cluster,
        RefusedCode::UnknownNode,
        RefusedCode::WrongNode,
        RefusedCode::Incarnation,
        RefusedCode::Busy,
        RefusedCode::ShuttingDown,
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
            Role::Peer { node, incarnation, name } => {
                put_u8(out, ROLE_PEER);
                put_u64(out, *node);
                put_u64(out, *incarnation);
                put_name(out, name);
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
            ROLE_PEER => Role::Peer {
                node: reader.u64("node number")?,
                incarnation: reader.u64("incarnation")?,
                name: read_name(&mut reader)?,
            },
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
            Kind::Welcome => Ok(HelloReply::Welcome(Welcome {
                version: reader.u16("version")?,
                cluster_id: reader.u64("cluster id")?,
                node: reader.u64("node number")?,
                incarnation: reader.u64("incarnation")?,
                name: read_name(&mut reader)?,
                frame_bytes_max: reader.u32("longest frame")?,
                key_bytes_max: reader.u32("longest key")?,
                value_bytes_max: reader.u32("longest value")?,
            })),
            Kind::Refused => Ok(HelloReply::Refused(Refused {
                code: RefusedCode::from_u8(reader.u8("reason code")?),
                reason: reader.text("reason")?.to_owned(),
            })),
            _ => Err(Malformed("reply to the hello: another message came first")),
        }
    }
}

fn put_name(out: &mut Vec<u8>, name: &str) {
    put_blob(out, cut(name, NAME_BYTES_MAX).as_bytes());
}

/// Names are printed in logs: a line break in one would forge a line.
fn read_name(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    let name = reader.text("name")?;
    if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(Malformed("name"));
    }
    Ok(name.to_owned())
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
    pub node: NodeId,
    pub incarnation: u64,
    pub name: &'a str,
    /// The other members.
    pub peers: &'a [KnownPeer],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPeer {
    pub node: NodeId,
    pub name: String,
    /// `None` until the peer has been met for the first time.
    pub incarnation: Option<u64>,
}

/// Whether a hello is accepted by `us`: the version to speak, or why not.
pub fn judge(hello: &Hello, us: &Identity<'_>) -> Result<u16, Refused> {
    let version = judge_version(hello)?;
    let any_cluster = matches!(hello.role, Role::Client { .. }) && hello.cluster_id == 0;
    if !any_cluster && hello.cluster_id != us.cluster_id {
        return refuse(RefusedCode::Cluster, other_cluster(us, hello.cluster_id));
    }
    if let Role::Peer { node, incarnation, name } = &hello.role {
        judge_peer(us, *node, *incarnation, name)?;
    }
    Ok(version)
}

/// Whether the node that answered is the one that was dialled. A client expects no particular node.
pub fn judge_welcome(
    welcome: &Welcome,
    us: &Identity<'_>,
    dialled: &KnownPeer,
) -> Result<(), Refused> {
    if !(VERSION_MIN..=VERSION_MAX).contains(&welcome.version) {
        let reason = format!("{} chose version {}", welcome.name, welcome.version);
        return refuse(RefusedCode::Version, reason);
    }
    if welcome.cluster_id != us.cluster_id {
        return refuse(RefusedCode::Cluster, other_cluster(us, welcome.cluster_id));
    }
    if welcome.node != dialled.node {
        let reason = format!(
            "dialled {} (number {}) and reached {} (number {}): an old address, or a wrong one",
            dialled.name, dialled.node, welcome.name, welcome.node
        );
        return refuse(RefusedCode::WrongNode, reason);
    }
    judge_peer(us, welcome.node, welcome.incarnation, &welcome.name)
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
    node: NodeId,
    incarnation: u64,
    name: &str,
) -> Result<(), Refused> {
    if node == us.node {
        let reason = if incarnation == us.incarnation {
            format!("{} has dialled itself: check the peers' addresses", us.name)
        } else {
            format!("number {node} is {} itself: two nodes run under one name", us.name)
        };
        return refuse(RefusedCode::WrongNode, reason);
    }
    let Some(known) = us.peers.iter().find(|peer| peer.node == node) else {
        let reason =
            format!("{name} (number {node}) is no member: add it to the peers of {}", us.name);
        return refuse(RefusedCode::UnknownNode, reason);
    };
    if known.name != name {
        let reason = format!("number {node} is {} to {}, not {name}", known.name, us.name);
        return refuse(RefusedCode::WrongNode, reason);
    }
    match known.incarnation {
        Some(expected) if expected != incarnation => {
            let reason = format!(
                "{name} has the data of incarnation {incarnation:016x}, the member is {expected:016x}: \
                 its folder was lost or exchanged, or two nodes run under this name"
            );
            refuse(RefusedCode::Incarnation, reason)
        }
        _ => Ok(()),
    }
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
