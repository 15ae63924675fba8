//! What a log entry carries, as bytes: the same on the wire, on disk and in snapshots.

use crate::codec::{Malformed, Reader, put_blob, put_bool, put_u8, put_u32, put_u64};
use crate::raft::{Bytes, MEMBERS_MAX, Member, Membership, NodeId, Payload, REMOVED_MAX};
use std::collections::VecDeque;
use std::rc::Rc;

/// The longest name of a node, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest address of a node, in bytes: a name of DNS, a colon and a port.
pub const ADDRESS_BYTES_MAX: usize = 263;

const NOOP: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERS: u8 = 2;

/// Kind, then what it carries up to the end.
pub fn put_payload(out: &mut Vec<u8>, payload: &Payload) {
    match payload {
        Payload::Noop => put_u8(out, NOOP),
        Payload::Command(command) => {
            put_u8(out, COMMAND);
            out.extend_from_slice(command);
        }
        Payload::Members(membership) => {
            put_u8(out, MEMBERS);
            put_membership(out, membership);
        }
    }
}

/// Reads up to the end. `share` makes what is kept of a command's bytes.
pub fn read_payload(
    mut reader: Reader<'_>,
    share: &dyn Fn(&[u8]) -> Bytes,
) -> Result<Payload, Malformed> {
    match reader.u8("kind of an entry")? {
        NOOP => {
            reader.finish("no-op's length")?;
            Ok(Payload::Noop)
        }
        COMMAND => Ok(Payload::Command(share(reader.rest()))),
        MEMBERS => {
            let membership = read_membership(&mut reader)?;
            reader.finish("members: bytes after their end")?;
            Ok(Payload::Members(Rc::new(membership)))
        }
        _ => Err(Malformed("kind of an entry")),
    }
}

/// Cluster id 8, members (number 4; for each: id 8, is a voter 1, name, address), removed (number 4, ids).
pub fn put_membership(out: &mut Vec<u8>, membership: &Membership) {
    let Membership { cluster_id, members, removed } = membership;
    put_u64(out, *cluster_id);
    put_u32(out, members.len() as u32);
    for (id, member) in members {
        put_u64(out, *id);
        put_bool(out, member.is_voter);
        put_blob(out, member.name.as_bytes());
        put_blob(out, member.address.as_bytes());
    }
    put_u32(out, removed.len() as u32);
    removed.iter().for_each(|id| put_u64(out, *id));
}

pub fn read_membership(reader: &mut Reader<'_>) -> Result<Membership, Malformed> {
    let mut membership =
        Membership { cluster_id: reader.u64("cluster id")?, ..Membership::default() };
    let count = reader.u32("number of members")? as usize;
    if count > MEMBERS_MAX {
        return Err(Malformed("number of members"));
    }
    for _ in 0..count {
        let id: NodeId = reader.u64("member's id")?;
        let member = Member {
            is_voter: reader.bool("whether a member votes")?,
            name: read_text(reader, "member's name", NAME_BYTES_MAX)?,
            address: read_text(reader, "member's address", ADDRESS_BYTES_MAX)?,
        };
        // In order, so that a membership has one form only.
        if membership.members.last_key_value().is_some_and(|(before, _)| *before >= id) {
            return Err(Malformed("member's id: not in order"));
        }
        membership.members.insert(id, member);
    }
    let count = reader.u32("number of removed members")? as usize;
    if count > REMOVED_MAX {
        return Err(Malformed("number of removed members"));
    }
    membership.removed = (0..count)
        .map(|_| reader.u64("removed member's id"))
        .collect::<Result<VecDeque<_>, _>>()?;
    Ok(membership)
}

/// Names and addresses are printed in logs: a line break in one would forge a line.
pub fn read_text(
    reader: &mut Reader<'_>,
    what: &'static str,
    bytes_max: usize,
) -> Result<String, Malformed> {
    let text = reader.text(what)?;
    if text.len() > bytes_max || text.chars().any(char::is_control) {
        return Err(Malformed(what));
    }
    Ok(text.to_owned())
}
