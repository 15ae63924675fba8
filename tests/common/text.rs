//! Messages and entries in few words. `3@2` is the place of an entry: index 3, term 2; `1@2` before
//! a role is a node: node 1 in term 2.

use raftkv::raft::{AppendOutcome, Entry, Member, Membership, Message, NodeId, Payload};

pub fn entry(entry: &Entry) -> String {
    let what = match &entry.payload {
        Payload::Noop => "no-op".into(),
        Payload::Command(bytes) => String::from_utf8_lossy(bytes),
        Payload::Members(membership) => members(membership).into(),
    };
    format!("{}@{} {what}", entry.index, entry.term)
}

/// `members 1 2 (3)`: in brackets, who does not vote.
pub fn members(membership: &Membership) -> String {
    let word = |(id, member): (&NodeId, &Member)| match member.is_voter {
        true => format!(" {id}"),
        false => format!(" ({id})"),
    };
    let words: String = membership.members.iter().map(word).collect();
    format!("members{words}")
}

pub fn entries<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> String {
    entries.into_iter().map(entry).collect::<Vec<_>>().join(", ")
}

fn verdict(granted: bool) -> &'static str {
    if granted { "granted" } else { "refused" }
}

pub fn message(message: &Message) -> String {
    let term = message.term();
    match message {
        Message::RequestPreVote { last_log_index, last_log_term, .. } => {
            format!("RequestPreVote term={term} last={last_log_index}@{last_log_term}")
        }
        Message::PreVoteReply { granted, .. } => {
            format!("PreVoteReply term={term} {}", verdict(*granted))
        }
        Message::RequestVote { last_log_index, last_log_term, by_leader, .. } => {
            let by_leader = if *by_leader { " by-leader" } else { "" };
            format!("RequestVote term={term} last={last_log_index}@{last_log_term}{by_leader}")
        }
        Message::TimeoutNow { .. } => format!("TimeoutNow term={term}"),
        Message::VoteReply { granted, .. } => {
            format!("VoteReply term={term} {}", verdict(*granted))
        }
        Message::AppendEntries {
            prev_log_index,
            prev_log_term,
            leader_commit,
            round,
            entries,
            ..
        } => format!(
            "AppendEntries term={term} prev={prev_log_index}@{prev_log_term} commit={leader_commit} \
             round={round} [{}]",
            self::entries(entries)
        ),
        Message::AppendReply { round, outcome, .. } => {
            let outcome = match outcome {
                AppendOutcome::Accepted { match_index } => format!("accepted match={match_index}"),
                AppendOutcome::Rejected { prev_log_index, hint_index, hint_term, .. } => {
                    format!("rejected prev={prev_log_index} hint={hint_index}@{hint_term}")
                }
            };
            format!("AppendReply term={term} round={round} {outcome}")
        }
        Message::InstallSnapshot {
            last_included_index,
            last_included_term,
            offset,
            data,
            done,
            ..
        } => format!(
            "InstallSnapshot term={term} last={last_included_index}@{last_included_term} \
             offset={offset} bytes={} done={done}",
            data.len()
        ),
        Message::SnapshotReply { last_included_index, last_included_term, offset, .. } => format!(
            "SnapshotReply term={term} last={last_included_index}@{last_included_term} offset={offset}"
        ),
    }
}
