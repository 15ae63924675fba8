//! `RAFT`: who belongs to the cluster, who leads it, and changes of both.

use super::{Shape, TextCommand, start_of, unknown_subcommand, wrong_number};
use crate::kv::{MemberRequest, Request};
use crate::payload::NAME_BYTES_MAX;

/// What any node answers by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RaftQuery {
    Status,
    Leader,
    Members,
    Help,
}

/// Each subcommand in lower case, how it is written, and what it does.
const SUBCOMMANDS: [(&str, &str, &str); 8] = [
    ("status", "RAFT STATUS", "names and values: the section Raft of INFO"),
    ("leader", "RAFT LEADER", "name and address of the leader, or nothing"),
    ("members", "RAFT MEMBERS", "all nodes, as this one sees them"),
    ("transfer", "RAFT TRANSFER [name]", "let another voter lead"),
    ("add", "RAFT ADD name", "take in a node that waits, as a learner"),
    ("promote", "RAFT PROMOTE name", "make a learner that has caught up a voter"),
    ("remove", "RAFT REMOVE name", "remove a member"),
    ("help", "RAFT HELP", "this list"),
];

pub(super) fn raft(args: &[&[u8]]) -> Result<TextCommand, String> {
    let (subcommand, args) = args.split_first().expect("its row asks for an argument");
    let name = String::from_utf8_lossy(subcommand).to_ascii_lowercase();
    let query = |query| Ok(TextCommand::Raft(query));
    let change =
        |request| Ok(TextCommand::Ask { request: Request::Member(request), shape: Shape::Plain });
    match (name.as_str(), args) {
        ("status", []) => query(RaftQuery::Status),
        ("leader", []) => query(RaftQuery::Leader),
        ("members", []) => query(RaftQuery::Members),
        ("help", []) => query(RaftQuery::Help),
        ("transfer", []) => change(MemberRequest::Transfer { to: None }),
        ("transfer", [to]) => change(MemberRequest::Transfer { to: Some(member_name(to)?) }),
        ("add", [name]) => change(MemberRequest::Add { name: member_name(name)? }),
        ("promote", [name]) => change(MemberRequest::Promote { name: member_name(name)? }),
        ("remove", [name]) => change(MemberRequest::Remove { name: member_name(name)? }),
        (name, _) if SUBCOMMANDS.iter().any(|(known, ..)| *known == name) => {
            Err(wrong_number(&format!("raft|{name}")))
        }
        _ => Err(unknown_subcommand("RAFT", subcommand)),
    }
}

/// Checked here, as another node would hang up on one that passes on what it cannot read.
fn member_name(name: &[u8]) -> Result<String, String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        let length = name.len();
        return Err(format!(
            "ERR a member's name has 1 to {NAME_BYTES_MAX} bytes, not {length}; nothing was done"
        ));
    }
    String::from_utf8(name.to_vec()).map_err(|_| {
        let shown = start_of(name, NAME_BYTES_MAX);
        format!("ERR the name {shown} is not UTF-8; nothing was done")
    })
}

/// `RAFT HELP`.
pub fn raft_help() -> String {
    let width = SUBCOMMANDS.iter().map(|(_, usage, _)| usage.len()).max().unwrap_or(0);
    let line = |(_, usage, what): &(&str, &str, &str)| format!("{usage:width$}  {what}\n");
    SUBCOMMANDS.iter().map(line).collect()
}
