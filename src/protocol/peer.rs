//! What nodes say to each other, as payloads of frames.
//!
//! Beyond the bytes being whole, a message must make sense before the core sees it: numbers start where
//! the paper starts them, stay so far from the end of their range that adding to them is safe, and the
//! terms of a log never fall. The core may then treat a contradiction as a fault of its own.

use super::Kind;
use super::client::{
    answer_kind, put_answer_body, put_request_body, read_answer, read_request, request_kind,
};
use crate::codec::{Malformed, Reader, put_blob, put_bool, put_sized, put_u8, put_u32, put_u64};
use crate::node::{Applicant, PeerMessage};
use crate::payload::{
    ADDRESS_BYTES_MAX, NAME_BYTES_MAX, put_membership, put_payload, read_membership, read_payload,
    read_text,
};
use crate::raft::{AppendOutcome, Bytes, Entry, Index, Message, Term};
use std::rc::Rc;

/// Terms, log indexes and read rounds end here; a cluster never gets there.
pub const NUMBER_MAX: u64 = i64::MAX as u64;

/// The shortest entry: its term, its length and its kind, in bytes.
const ENTRY_BYTES_MIN: usize = 13;

const REJECTED: u8 = 0;
const ACCEPTED: u8 = 1;

/// Appends a message as the payload of a frame.
pub fn encode(message: &PeerMessage, out: &mut Vec<u8>) {
    match message {
        PeerMessage::Raft(message) => put_raft(out, message),
        PeerMessage::Forward { id, request } => {
            put_u8(out, Kind::Forward as u8);
            put_u64(out, *id);
            put_u8(out, request_kind(request) as u8);
            put_request_body(out, request);
        }
        PeerMessage::ForwardReply { id, answer } => {
            put_u8(out, Kind::ForwardReply as u8);
            put_u64(out, *id);
            put_u8(out, answer_kind(answer) as u8);
            put_answer_body(out, answer);
        }
        PeerMessage::DigestReport { index, digest } => {
            put_point(out, Kind::DigestReport, *index, *digest);
        }
        PeerMessage::Diverged { index, digest } => {
            put_point(out, Kind::Diverged, *index, *digest);
        }
        PeerMessage::Found(membership) => {
            put_u8(out, Kind::Found as u8);
            put_membership(out, membership);
        }
        PeerMessage::Applies(applicant) => {
            put_u8(out, Kind::Applies as u8);
            put_u64(out, applicant.id);
            put_blob(out, applicant.name.as_bytes());
            put_blob(out, applicant.address.as_bytes());
        }
    }
}

fn put_point(out: &mut Vec<u8>, kind: Kind, index: Index, digest: u64) {
    put_u8(out, kind as u8);
    put_u64(out, index);
    put_u64(out, digest);
}

/// Reads the payload of a frame. The commands in it are copied once, together, into a block that the log keeps.
pub fn decode(payload: &[u8]) -> Result<PeerMessage, Malformed> {
    let mut reader = Reader::new(payload);
    let message = match Kind::read(&mut reader)? {
        Kind::Forward => PeerMessage::Forward {
            id: reader.u64("forward id")?,
            request: read_request(Kind::read(&mut reader)?, &mut reader)?,
        },
        Kind::ForwardReply => PeerMessage::ForwardReply {
            id: reader.u64("forward id")?,
            answer: read_answer(Kind::read(&mut reader)?, &mut reader)?,
        },
        Kind::DigestReport => PeerMessage::DigestReport {
            index: number(&mut reader, "log index")?,
            digest: reader.u64("digest")?,
        },
        Kind::Diverged => PeerMessage::Diverged {
            index: number(&mut reader, "log index")?,
            digest: reader.u64("digest")?,
        },
        Kind::Found => PeerMessage::Found(Rc::new(read_membership(&mut reader)?)),
        Kind::Applies => PeerMessage::Applies(Applicant {
            id: reader.u64("applicant's id")?,
            name: read_text(&mut reader, "applicant's name", NAME_BYTES_MAX)?,
            address: read_text(&mut reader, "applicant's address", ADDRESS_BYTES_MAX)?,
        }),
        kind => PeerMessage::Raft(read_raft(kind, &mut reader)?),
    };
    reader.finish("message: bytes after its end")?;
    Ok(message)
}

fn put_raft(out: &mut Vec<u8>, message: &Message) {
    match message {
        Message::RequestPreVote { term, last_log_index, last_log_term } => {
            put_ballot(out, Kind::RequestPreVote, *term, *last_log_index, *last_log_term);
        }
        Message::RequestVote { term, last_log_index, last_log_term, by_leader } => {
            put_ballot(out, Kind::RequestVote, *term, *last_log_index, *last_log_term);
            put_bool(out, *by_leader);
        }
        Message::PreVoteReply { term, granted } => {
            put_vote(out, Kind::PreVoteReply, *term, *granted)
        }
        Message::VoteReply { term, granted } => put_vote(out, Kind::VoteReply, *term, *granted),
        Message::AppendEntries {
            term,
            prev_log_index,
            prev_log_term,
            leader_commit,
            round,
            entries,
        } => {
            put_u8(out, Kind::AppendEntries as u8);
            for number in [term, prev_log_index, prev_log_term, leader_commit, round] {
                put_u64(out, *number);
            }
            put_entries(out, *prev_log_index, entries);
        }
        Message::AppendReply { term, round, outcome } => {
            put_u8(out, Kind::AppendReply as u8);
            put_u64(out, *term);
            put_u64(out, *round);
            put_append_outcome(out, outcome);
        }
        Message::InstallSnapshot {
            term,
            last_included_index,
            last_included_term,
            offset,
            data,
            done,
        } => {
            put_u8(out, Kind::InstallSnapshot as u8);
            for number in [term, last_included_index, last_included_term, offset] {
                put_u64(out, *number);
            }
            put_bool(out, *done);
            put_blob(out, data);
        }
        Message::TimeoutNow { term } => {
            put_u8(out, Kind::TimeoutNow as u8);
            put_u64(out, *term);
        }
        Message::SnapshotReply { term, last_included_index, last_included_term, offset } => {
            put_u8(out, Kind::SnapshotReply as u8);
            for number in [term, last_included_index, last_included_term, offset] {
                put_u64(out, *number);
            }
        }
    }
}

fn put_ballot(out: &mut Vec<u8>, kind: Kind, term: Term, last_index: Index, last_term: Term) {
    put_u8(out, kind as u8);
    put_u64(out, term);
    put_u64(out, last_index);
    put_u64(out, last_term);
}

fn put_vote(out: &mut Vec<u8>, kind: Kind, term: Term, granted: bool) {
    put_u8(out, kind as u8);
    put_u64(out, term);
    put_bool(out, granted);
}

/// Indexes are not sent: an entry's place says its index.
fn put_entries(out: &mut Vec<u8>, prev_log_index: Index, entries: &[Entry]) {
    put_u32(out, u32::try_from(entries.len()).expect("a batch has fewer than 2^32 entries"));
    for (entry, index) in entries.iter().zip(prev_log_index + 1..) {
        debug_assert_eq!(entry.index, index, "entries follow prev_log_index without gaps");
        put_u64(out, entry.term);
        put_sized(out, |out| put_payload(out, &entry.payload));
    }
}

fn put_append_outcome(out: &mut Vec<u8>, outcome: &AppendOutcome) {
    match *outcome {
        AppendOutcome::Accepted { match_index } => {
            put_u8(out, ACCEPTED);
            put_u64(out, match_index);
        }
        AppendOutcome::Rejected { prev_log_index, hint_index, hint_term, lost_entries } => {
            put_u8(out, REJECTED);
            put_u64(out, prev_log_index);
            put_u64(out, hint_index);
            put_u64(out, hint_term);
            put_bool(out, lost_entries);
        }
    }
}

fn read_raft(kind: Kind, reader: &mut Reader<'_>) -> Result<Message, Malformed> {
    match kind {
        Kind::RequestPreVote => {
            let (term, last_log_index, last_log_term) = read_ballot(reader)?;
            Ok(Message::RequestPreVote { term, last_log_index, last_log_term })
        }
        Kind::RequestVote => {
            let (term, last_log_index, last_log_term) = read_ballot(reader)?;
            let by_leader = reader.bool("whether the leader asked for it")?;
            Ok(Message::RequestVote { term, last_log_index, last_log_term, by_leader })
        }
        Kind::PreVoteReply => {
            let term = number(reader, "term")?;
            let granted = reader.bool("whether the vote is granted")?;
            // A node that was never in an election says no in term 0; it can't say yes in it.
            if granted && term == 0 {
                return Err(Malformed("term: a vote in term 0"));
            }
            Ok(Message::PreVoteReply { term, granted })
        }
        Kind::VoteReply => Ok(Message::VoteReply {
            term: term_of_message(reader)?,
            granted: reader.bool("whether the vote is granted")?,
        }),
        Kind::AppendEntries => read_append_entries(reader),
        Kind::InstallSnapshot => read_install_snapshot(reader),
        Kind::SnapshotReply => {
            let (term, last_included_index, last_included_term) = read_included(reader)?;
            let offset = number(reader, "offset")?;
            Ok(Message::SnapshotReply { term, last_included_index, last_included_term, offset })
        }
        Kind::TimeoutNow => Ok(Message::TimeoutNow { term: term_of_message(reader)? }),
        Kind::AppendReply => Ok(Message::AppendReply {
            term: term_of_message(reader)?,
            round: number(reader, "round")?,
            outcome: read_append_outcome(reader)?,
        }),
        _ => Err(Malformed("message type: not one between nodes")),
    }
}

fn read_ballot(reader: &mut Reader<'_>) -> Result<(Term, Index, Term), Malformed> {
    let term = term_of_message(reader)?;
    let (last_log_index, last_log_term) = position(reader, term, "last log entry")?;
    Ok((term, last_log_index, last_log_term))
}

/// A snapshot covers at least one entry.
fn read_included(reader: &mut Reader<'_>) -> Result<(Term, Index, Term), Malformed> {
    let term = term_of_message(reader)?;
    let (index, index_term) = position(reader, term, "last included entry")?;
    if index == 0 {
        return Err(Malformed("last included entry: a snapshot of nothing"));
    }
    Ok((term, index, index_term))
}

fn read_install_snapshot(reader: &mut Reader<'_>) -> Result<Message, Malformed> {
    let (term, last_included_index, last_included_term) = read_included(reader)?;
    let offset = number(reader, "offset")?;
    let done = reader.bool("whether it is the last piece")?;
    let data: std::rc::Rc<[u8]> = reader.blob("piece of a snapshot")?.into();
    if data.len() as u64 > NUMBER_MAX - offset {
        return Err(Malformed("offset"));
    }
    Ok(Message::InstallSnapshot {
        term,
        last_included_index,
        last_included_term,
        offset,
        data,
        done,
    })
}

fn read_append_entries(reader: &mut Reader<'_>) -> Result<Message, Malformed> {
    let term = term_of_message(reader)?;
    let (prev_log_index, prev_log_term) = position(reader, term, "previous log entry")?;
    let leader_commit = number(reader, "leader's commit index")?;
    let round = number(reader, "round")?;
    let entries = read_entries(reader, term, prev_log_index, prev_log_term)?;
    Ok(Message::AppendEntries {
        term,
        prev_log_index,
        prev_log_term,
        leader_commit,
        round,
        entries,
    })
}

/// They are the last thing in a message.
fn read_entries(
    reader: &mut Reader<'_>,
    leader_term: Term,
    prev_log_index: Index,
    prev_log_term: Term,
) -> Result<Vec<Entry>, Malformed> {
    let count = reader.u32("number of entries")?;
    if count as usize > reader.rest().len() / ENTRY_BYTES_MIN {
        return Err(Malformed("number of entries: more than there are bytes"));
    }
    if u64::from(count) > NUMBER_MAX - prev_log_index {
        return Err(Malformed("index of an entry"));
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    // What is read next has to outlive the message.
    let block: Rc<[u8]> = reader.take(reader.rest().len(), "entries")?.into();
    let mut reader = Reader::new(&block);
    let mut entries = Vec::with_capacity(count as usize);
    let mut least_term = prev_log_term.max(1);
    for index in (prev_log_index + 1..).take(count as usize) {
        let term = number(&mut reader, "term of an entry")?;
        if term < least_term || term > leader_term {
            return Err(Malformed("term of an entry"));
        }
        least_term = term;
        let body = Reader::new(reader.blob("length of an entry")?);
        let end = block.len() - reader.rest().len();
        let share = |command: &[u8]| Bytes::part_of(&block, end - command.len()..end);
        entries.push(Entry { term, index, payload: read_payload(body, &share)? });
    }
    reader.finish("message: bytes after its end")?;
    Ok(entries)
}

fn read_append_outcome(reader: &mut Reader<'_>) -> Result<AppendOutcome, Malformed> {
    match reader.u8("outcome of an append")? {
        ACCEPTED => Ok(AppendOutcome::Accepted { match_index: number(reader, "match index")? }),
        REJECTED => Ok(AppendOutcome::Rejected {
            prev_log_index: number(reader, "previous log index")?,
            hint_index: number(reader, "hint index")?,
            hint_term: number(reader, "hint term")?,
            lost_entries: reader.bool("whether entries are lost")?,
        }),
        _ => Err(Malformed("outcome of an append")),
    }
}

fn number(reader: &mut Reader<'_>, what: &'static str) -> Result<u64, Malformed> {
    let value = reader.u64(what)?;
    if value <= NUMBER_MAX { Ok(value) } else { Err(Malformed(what)) }
}

fn term_of_message(reader: &mut Reader<'_>) -> Result<Term, Malformed> {
    match number(reader, "term")? {
        0 => Err(Malformed("term: 0 is before any election")),
        term => Ok(term),
    }
}

/// Index and term of a log entry: both 0 before the first one, else neither, and no entry is of a later
/// term than the message.
fn position(
    reader: &mut Reader<'_>,
    message_term: Term,
    what: &'static str,
) -> Result<(Index, Term), Malformed> {
    let index = number(reader, what)?;
    let term = number(reader, what)?;
    if (index == 0) != (term == 0) || term > message_term {
        return Err(Malformed(what));
    }
    Ok((index, term))
}
