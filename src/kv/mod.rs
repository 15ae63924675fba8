//! The state machine: what the log's commands mean. Pure and deterministic: no clock, no randomness, no
//! collection whose order depends on anything but its contents.

mod blobs;
mod command;
mod contents;
mod execute;
mod frozen;
mod garbage;
pub mod glob;
mod growth;
mod hints;
mod history;
mod key;
mod limits;
mod machine;
mod outcome;
mod pages;
mod read;
mod read_codec;
mod request;
mod session;
mod snapshot;
mod store;
mod timed;
mod transaction;
mod value;
mod work;

pub use blobs::Blobs;
pub use command::{Command, Condition, RequestId, WriteOp};
pub use contents::LOOK_AHEAD_KEYS;
pub use execute::{Moment, parse_integer};
pub use garbage::FreeBudget;
pub use growth::{ITEM_BYTES, command_growth_bytes};
pub use history::{
    Batch, Change, ChangeRef, Compacted, HISTORY_BYTES_MAX, HISTORY_CHANGES_MAX, History,
};
pub use key::Key;
pub use limits::{KEY_BYTES_MAX, Limits, READ_KEYS_MAX, VALUE_BYTES_MAX};
pub use machine::Machine;
pub use outcome::{Outcome, Refusal, StepOutcome};
pub use read::{Budget, RANGE_WORK_MAX};
pub use request::{
    Answer, BackupPart, BackupRequest, Failure, FailureCode, Found, LeaderHint, MemberRequest,
    Range, ReadOp, Request, STORE_IS_FULL,
};
pub use session::{Executed, SESSION_VALUE_BYTES_MAX, SESSIONS_MAX, Seen, Sessions};
pub use snapshot::Loader;
pub use store::{Item, Store};
pub use timed::{EXPIRED_PER_ENTRY_MAX, EXPIRES_AT_MAX, Expiry, TimeCondition, TimedOp};
pub use transaction::{
    STEP_ANSWER_BYTES, STEPS_MAX, Step, StepBuffer, Steps, Transaction, WATCHED_KEYS_MAX, Watched,
    WatchedBuffer,
};
pub use value::{BUFFER_BYTES_MIN, Value};
pub use work::{ENTRY_COPIES_BYTES_MAX, ENTRY_WORK_MAX, Needs};
