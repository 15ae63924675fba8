//! Messages and entries in few words. `3@2` is the place of an entry: index 3, term 2; `1@2` before
//! a role is a node: node 1 in term 2.

use raftkv::raft::{AppendOutcome, Entry, Message, Payload};

pub fn entry(entry: &Entry) -> String {
    let what = match &entry.payload {
        Payload::Noop => "no-op".into(),
        Payload::Command(bytes) => String::from_utf8_lossy(bytes),
    };
    format!("{}@{} {what}", entry.index, entry.term)
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
        Message::RequestVote { last_log_index, last_log_term, .. } => {
            format!("RequestVote term={term} last={last_log_index}@{last_log_term}")
        }
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
