//! The state machine: what the log's commands mean. Pure and deterministic: no clock, no randomness, no
//! collection whose order depends on anything but its contents.

mod command;
mod limits;
mod machine;
mod outcome;
mod request;
mod session;
mod snapshot;
mod store;

pub use command::{Command, RequestId, WriteOp};
pub use limits::{KEY_BYTES_MAX, Limits, VALUE_BYTES_MAX};
pub use machine::Machine;
pub use outcome::{Outcome, Refusal};
pub use request::{Answer, Failure, FailureCode, LeaderHint, MemberRequest, Request};
pub use session::{Executed, SESSIONS_MAX, Seen, Sessions};
pub use snapshot::Loader;
pub use store::{Store, parse_integer};
