//! The state machine as bytes and back, a bounded piece at a time.
//!
//! Writing never stalls the loop: a cursor walks the ordered map, some bytes per call, and what changes
//! ahead of it keeps its old value until the cursor has passed ([`super::Store`]). Reading takes pieces as they
//! come, cut anywhere.
//!
//! ```text
//! version 3, applied index 8, time of the log 8, keys 8, digest 8
//! members: length 4, then as in a log entry
//! sessions: number 4; for each: id 8, sequence 8, used at 8, executed? 1, and if so: index 8, outcome
//! for each key, in order: key (length 4, bytes), index of its last change 8, time at which it goes 8,
//! value (length 4, bytes)
//! ```
//!
//! Damage is noticed by the file around it; the digest at the end proves that what was loaded is what was
//! frozen.

use super::session::{SESSION_VALUE_BYTES_MAX, Sessions};
use super::{EXPIRES_AT_MAX, Item, Machine, Store};
use crate::codec::{Malformed, Reader, put_sized, put_u8, put_u64};
use crate::payload::{put_membership, read_membership};
use crate::raft::{Index, Membership};
use std::rc::Rc;

const VERSION: u8 = 3;
/// The part before the keys is at most this long: all sessions there may be.
const HEAD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// No configuration allows a longer key or value.
const FIELD_BYTES_MAX: usize = 64 * 1024 * 1024;

pub(super) fn put_head(out: &mut Vec<u8>, machine: &Machine) {
    put_u8(out, VERSION);
    put_u64(out, machine.applied());
    put_u64(out, machine.clock_ms());
    put_u64(out, machine.store().len() as u64);
    put_u64(out, machine.store().digest());
    put_sized(out, |out| put_membership(out, machine.membership()));
    machine.sessions().encode(out);
}

/// About how long a snapshot is; never too little.
pub(super) fn size(store: &Store, sessions: &Sessions) -> usize {
    const HEAD_BYTES: usize = 40;
    const SESSION_BYTES: usize = 64 + SESSION_VALUE_BYTES_MAX;
    const KEY_BYTES: usize = 24;
    HEAD_BYTES + sessions.len() * SESSION_BYTES + store.len() * KEY_BYTES + store.bytes()
}

/// Rebuilds a state machine from the pieces of a snapshot.
#[derive(Debug, Default)]
pub struct Loader {
    unread: Vec<u8>,
    head: Option<Head>,
    store: Store,
}

#[derive(Debug)]
struct Head {
    applied: Index,
    clock_ms: u64,
    keys: u64,
    digest: u64,
    membership: Rc<Membership>,
    sessions: Sessions,
}

impl Loader {
    /// The next piece, in order.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), Malformed> {
        self.unread.extend_from_slice(piece);
        if self.head.is_none() {
            let mut reader = Reader::new(&self.unread);
            match read_head(&mut reader) {
                Ok(head) => self.head = Some(head),
                Err(Incomplete::NeedMore) if self.unread.len() < HEAD_BYTES_MAX => return Ok(()),
                Err(Incomplete::NeedMore) => return Err(Malformed("snapshot: head")),
                Err(Incomplete::Malformed(malformed)) => return Err(malformed),
            }
            let read = self.unread.len() - reader.rest().len();
            self.unread.drain(..read);
        }
        let mut rest = &self.unread[..];
        while let Some((key, item, after)) = next_item(rest)? {
            if item.expires_at > EXPIRES_AT_MAX {
                return Err(Malformed("snapshot: time of a key"));
            }
            self.store.load(key, item)?;
            rest = after;
        }
        let read = self.unread.len() - rest.len();
        self.unread.drain(..read);
        Ok(())
    }

    /// After the last piece.
    pub fn finish(self) -> Result<Machine, Malformed> {
        let head = self.head.ok_or(Malformed("snapshot: no head"))?;
        if !self.unread.is_empty() || self.store.len() as u64 != head.keys {
            return Err(Malformed("snapshot: number of keys"));
        }
        if self.store.digest() != head.digest {
            return Err(Malformed("snapshot: digest"));
        }
        let Head { applied, clock_ms, membership, sessions, .. } = head;
        Ok(Machine::restored(self.store, sessions, applied, clock_ms, membership))
    }
}

enum Incomplete {
    NeedMore,
    Malformed(Malformed),
}

fn read_head(reader: &mut Reader<'_>) -> Result<Head, Incomplete> {
    let missing = |_: Malformed| Incomplete::NeedMore;
    if reader.u8("version").map_err(missing)? != VERSION {
        return Err(Incomplete::Malformed(Malformed(
            "snapshot: its version, which this program does not read",
        )));
    }
    let applied = reader.u64("applied index").map_err(missing)?;
    let clock_ms = reader.u64("time of the log").map_err(missing)?;
    let keys = reader.u64("number of keys").map_err(missing)?;
    let digest = reader.u64("digest").map_err(missing)?;
    let mut members = Reader::new(reader.blob("members").map_err(missing)?);
    let membership = read_membership(&mut members).map_err(Incomplete::Malformed)?;
    members.finish("members: bytes after their end").map_err(Incomplete::Malformed)?;
    // Whether bytes are wrong or only not there yet shows when there can be no more of them.
    let sessions = Sessions::decode(reader).map_err(missing)?;
    Ok(Head { applied, clock_ms, keys, digest, membership: Rc::new(membership), sessions })
}

/// A key or value, and the bytes after it.
type Field<'a> = (&'a [u8], &'a [u8]);

/// A key, what is known of it, and the bytes after it.
type Known<'a> = (&'a [u8], Item, &'a [u8]);

/// `None` if it is not all there yet.
fn next_item(bytes: &[u8]) -> Result<Option<Known<'_>>, Malformed> {
    let Some((key, rest)) = next_field(bytes)? else { return Ok(None) };
    let mut reader = Reader::new(rest);
    let (Ok(modified), Ok(expires_at)) = (reader.u64("index"), reader.u64("time")) else {
        return Ok(None);
    };
    let Some((value, rest)) = next_field(reader.rest())? else { return Ok(None) };
    Ok(Some((key, Item::new(key, value.into(), modified, expires_at), rest)))
}

fn next_field(bytes: &[u8]) -> Result<Option<Field<'_>>, Malformed> {
    let mut reader = Reader::new(bytes);
    let Ok(len) = reader.u32("length") else { return Ok(None) };
    let len = len as usize;
    if len > FIELD_BYTES_MAX {
        return Err(Malformed("snapshot: length of a key or value"));
    }
    Ok(reader.rest().split_at_checked(len))
}
