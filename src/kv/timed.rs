//! Operations whose meaning depends on what time it is, and their bytes.
//!
//! No node looks at its own clock when it applies one: the leader that proposes it writes a *stamp* into its
//! bytes, always at the same place, and all nodes go by that ([`super::Machine`] keeps it from going back).
//! A key exists until an entry of the log removes it, whatever any clock says.

use super::{Condition, Transaction};
use crate::codec::{Malformed, Reader, put_blob, put_bool, put_i64, put_u8, put_u32};

/// Keys that one entry removes because their time has come, at most; the rest goes with the next.
pub const EXPIRED_PER_ENTRY_MAX: u32 = 1024;

/// The latest time at which a key may go, in milliseconds of Unix time: what Redis can say.
pub const EXPIRES_AT_MAX: u64 = i64::MAX as u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimedOp<'a> {
    /// Writes `value` if the condition holds, and says when the key goes.
    Set {
        key: &'a [u8],
        value: &'a [u8],
        condition: Condition<'a>,
        /// Whether the outcome has the value from before.
        get: bool,
        expiry: Expiry,
    },
    /// Says anew when a key goes, if it exists and the condition holds.
    Expire {
        key: &'a [u8],
        expiry: Expiry,
        condition: TimeCondition,
        /// Whether the outcome has the value.
        get: bool,
    },
    /// Removes so many keys whose time has come, the earliest first. The limit is in the log so that all
    /// nodes remove the same ones. Leaders propose it.
    RemoveExpired {
        keys_max: u32,
    },
    Transaction(Transaction<'a>),
}

/// When a key goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    Never,
    /// As it was.
    Keep,
    /// So many milliseconds after the stamp.
    After(i64),
    /// In milliseconds of Unix time.
    At(i64),
}

/// What must be so for the time of a key to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeCondition {
    Always,
    /// It has none.
    Nx,
    /// It has one.
    Xx,
    /// It has an earlier one than is wanted. None at all is the latest.
    Gt,
    /// It has a later one, or none.
    Lt,
    /// It has one, and that is later.
    XxLt,
}

pub(super) const SET: u8 = 10;
pub(super) const EXPIRE: u8 = 11;
pub(super) const REMOVE_EXPIRED: u8 = 12;
pub(super) const TRANSACTION: u8 = 13;

const NEVER: u8 = 0;
const KEEP: u8 = 1;
const AFTER: u8 = 2;
const AT: u8 = 3;

const CONDITIONS: [TimeCondition; 6] = [
    TimeCondition::Always,
    TimeCondition::Nx,
    TimeCondition::Xx,
    TimeCondition::Gt,
    TimeCondition::Lt,
    TimeCondition::XxLt,
];

/// Whether commands of this kind have a stamp.
pub(super) fn is_timed(kind: u8) -> bool {
    (SET..=TRANSACTION).contains(&kind)
}

impl<'a> TimedOp<'a> {
    pub(super) fn kind(&self) -> u8 {
        match self {
            TimedOp::Set { .. } => SET,
            TimedOp::Expire { .. } => EXPIRE,
            TimedOp::RemoveExpired { .. } => REMOVE_EXPIRED,
            TimedOp::Transaction(_) => TRANSACTION,
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            TimedOp::Set { key, value, condition, get, expiry } => {
                put_blob(out, key);
                condition.encode(out);
                put_bool(out, get);
                expiry.encode(out);
                put_blob(out, value);
            }
            TimedOp::Expire { key, expiry, condition, get } => {
                put_blob(out, key);
                expiry.encode(out);
                put_u8(out, condition.code());
                put_bool(out, get);
            }
            TimedOp::RemoveExpired { keys_max } => put_u32(out, keys_max),
            TimedOp::Transaction(transaction) => transaction.encode(out),
        }
    }

    pub(super) fn read(kind: u8, reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(match kind {
            SET => TimedOp::Set {
                key: reader.blob("key")?,
                condition: Condition::read(reader)?,
                get: reader.bool("whether the value from before is wanted")?,
                expiry: Expiry::read(reader)?,
                value: reader.blob("value")?,
            },
            EXPIRE => TimedOp::Expire {
                key: reader.blob("key")?,
                expiry: Expiry::read(reader)?,
                condition: TimeCondition::read(reader)?,
                get: reader.bool("whether the value is wanted")?,
            },
            REMOVE_EXPIRED => {
                TimedOp::RemoveExpired { keys_max: reader.u32("most keys to remove")? }
            }
            TRANSACTION => TimedOp::Transaction(Transaction::read(reader)?),
            _ => return Err(Malformed("command kind")),
        })
    }

    /// The longest key in the operation.
    pub(super) fn key_bytes(&self) -> usize {
        match self {
            TimedOp::Set { key, .. } | TimedOp::Expire { key, .. } => key.len(),
            TimedOp::RemoveExpired { .. } => 0,
            TimedOp::Transaction(transaction) => transaction.key_bytes(),
        }
    }

    /// The longest value in the operation, or that it may lead to.
    pub(super) fn value_bytes(&self) -> usize {
        match self {
            TimedOp::Set { value, condition, .. } => value.len().max(condition.value_bytes()),
            TimedOp::Expire { .. } | TimedOp::RemoveExpired { .. } => 0,
            TimedOp::Transaction(transaction) => transaction.value_bytes(),
        }
    }

    /// Whether it can make the state larger.
    pub(super) fn grows(&self) -> bool {
        match self {
            TimedOp::Set { .. } => true,
            TimedOp::Expire { .. } | TimedOp::RemoveExpired { .. } => false,
            TimedOp::Transaction(transaction) => transaction.grows(),
        }
    }
}

/// What an [`Expiry`] comes to at a certain time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays until then, in milliseconds of Unix time; 0: for ever.
    Until(u64),
    /// It goes at once.
    Gone,
}

impl Expiry {
    /// For a key that so far stays until `current`, at the time `now`.
    pub(super) fn fate(self, current: u64, now: u64) -> Fate {
        let at = match self {
            Expiry::Never => return Fate::Until(0),
            Expiry::Keep => return Fate::Until(current),
            Expiry::After(after) => i128::from(now) + i128::from(after),
            Expiry::At(at) => i128::from(at),
        };
        if at <= i128::from(now) || at <= 0 {
            return Fate::Gone;
        }
        Fate::Until(u64::try_from(at).map_or(EXPIRES_AT_MAX, |at| at.min(EXPIRES_AT_MAX)))
    }

    fn encode(self, out: &mut Vec<u8>) {
        let (kind, time) = match self {
            Expiry::Never => (NEVER, None),
            Expiry::Keep => (KEEP, None),
            Expiry::After(after) => (AFTER, Some(after)),
            Expiry::At(at) => (AT, Some(at)),
        };
        put_u8(out, kind);
        time.into_iter().for_each(|time| put_i64(out, time));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match reader.u8("kind of expiry")? {
            NEVER => Expiry::Never,
            KEEP => Expiry::Keep,
            AFTER => Expiry::After(reader.i64("milliseconds until the key goes")?),
            AT => Expiry::At(reader.i64("time at which the key goes")?),
            _ => return Err(Malformed("kind of expiry")),
        })
    }
}

impl TimeCondition {
    /// For a key that stays until `current` (0: for ever) and is to stay until `wanted`.
    pub(super) fn holds(self, current: u64, wanted: Fate) -> bool {
        let wanted = match wanted {
            Fate::Gone => 0,
            Fate::Until(0) => u64::MAX,
            Fate::Until(at) => at,
        };
        let later_than_current = current != 0 && wanted > current;
        let earlier_than_current = current == 0 || wanted < current;
        match self {
            TimeCondition::Always => true,
            TimeCondition::Nx => current == 0,
            TimeCondition::Xx => current != 0,
            TimeCondition::Gt => later_than_current,
            TimeCondition::Lt => earlier_than_current,
            TimeCondition::XxLt => current != 0 && earlier_than_current,
        }
    }

    fn code(self) -> u8 {
        match self {
            TimeCondition::Always => 0,
            TimeCondition::Nx => 1,
            TimeCondition::Xx => 2,
            TimeCondition::Gt => 3,
            TimeCondition::Lt => 4,
            TimeCondition::XxLt => 5,
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let code = reader.u8("condition of a time")?;
        let known = CONDITIONS.into_iter().find(|condition| condition.code() == code);
        known.ok_or(Malformed("condition of a time"))
    }
}
