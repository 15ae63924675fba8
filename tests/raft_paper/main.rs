//! The rules of "In Search of an Understandable Consensus Algorithm (Extended Version)", one test
//! each, in the order of its sections. What goes beyond the paper is in `raft_extensions`.

#[path = "../common/mod.rs"]
mod common;

mod elections;
mod replication;
mod safety;
mod terms;

use raftkv::raft::{AppendOutcome, Message};

pub fn granted(message: &Message) -> bool {
    match message {
        Message::VoteReply { granted, .. } => *granted,
        other => panic!("not a VoteReply: {other:?}"),
    }
}

pub fn outcome(message: &Message) -> AppendOutcome {
    match message {
        Message::AppendReply { outcome, .. } => *outcome,
        other => panic!("not an AppendReply: {other:?}"),
    }
}
