//! The state machine: what the log's commands mean. Pure and deterministic: no clock, no randomness, no
//! collection whose order depends on anything but its contents.

mod blobs;
mod command;
pub mod glob;
mod limits;
mod machine;
mod outcome;
mod read;
mod request;
mod session;
mod snapshot;
mod store;

pub use blobs::Blobs;
pub use command::{Command, Condition, RequestId, WriteOp};
pub use limits::{KEY_BYTES_MAX, Limits, READ_KEYS_MAX, VALUE_BYTES_MAX};
pub use machine::Machine;
pub use outcome::{Outcome, Refusal};
pub use read::RANGE_WORK_MAX;
pub use request::{
    Answer, BackupPart, BackupRequest, Failure, FailureCode, Found, LeaderHint, MemberRequest,
    Range, ReadOp, Request,
};
pub use session::{Executed, SESSION_VALUE_BYTES_MAX, SESSIONS_MAX, Seen, Sessions};
pub use snapshot::Loader;
pub use store::{Store, parse_integer};
