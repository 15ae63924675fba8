//! What a client asks and what it is told, as payloads of frames.
//!
//! Every payload is a message type, an id chosen by the asker, and a body. Replies carry the id of their
//! request. The bodies of requests and answers are the same when nodes pass them on to each other
//! ([`super::peer`]), so they are written here once.

use super::Kind;
use super::changes::{self, Streamed};
use crate::codec::{Malformed, Reader, put_blob, put_option, put_u8, put_u32, put_u64};
use crate::kv::{
    Answer, BackupPart, BackupRequest, Command, Failure, FailureCode, Found, LeaderHint,
    MemberRequest, Outcome, ReadOp, Request,
};
use crate::payload::{NAME_BYTES_MAX, read_text};
use crate::raft::Index;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFrame {
    /// Chosen by the client, different from those of its unanswered requests on this connection.
    pub id: u64,
    pub body: RequestBody,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestBody {
    Ask(Request),
    /// What the answering node knows of itself; any node answers, at once.
    Status,
    /// The changes of keys that begin with `prefix`, from the log index `from` on, or those that are still
    /// to come; any node answers, again and again.
    Changes {
        prefix: Vec<u8>,
        from: Option<Index>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyFrame {
    pub id: u64,
    pub body: ReplyBody,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyBody {
    Answer(Answer),
    /// Names and values, in an order for people.
    Status(Vec<(String, String)>),
    Changes(Streamed),
}

/// A request that can't be read. The frame around it was whole, so the connection is still good: the
/// answer is [`FailureCode::Malformed`] if the id could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadRequest {
    pub id: Option<u64>,
    pub malformed: Malformed,
}

impl RequestFrame {
    pub fn encode(&self, out: &mut Vec<u8>) {
        match &self.body {
            RequestBody::Ask(request) => {
                put_u8(out, request_kind(request) as u8);
                put_u64(out, self.id);
                put_request_body(out, request);
            }
            RequestBody::Status => {
                put_u8(out, Kind::Status as u8);
                put_u64(out, self.id);
            }
            RequestBody::Changes { prefix, from } => {
                put_u8(out, Kind::Changes as u8);
                put_u64(out, self.id);
                changes::put_request(out, prefix, *from);
            }
        }
    }

    pub fn decode(payload: &[u8]) -> Result<Self, BadRequest> {
        Self::read(payload).map_err(|malformed| BadRequest { id: request_id(payload), malformed })
    }

    fn read(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let kind = Kind::read(&mut reader)?;
        let id = reader.u64("request id")?;
        let body = match kind {
            Kind::Status => RequestBody::Status,
            Kind::Changes => {
                let (prefix, from) = changes::read_request(&mut reader)?;
                RequestBody::Changes { prefix, from }
            }
            kind => RequestBody::Ask(read_request(kind, &mut reader)?),
        };
        reader.finish("request: bytes after its end")?;
        Ok(RequestFrame { id, body })
    }
}

/// The request id in the first bytes of a payload, for requests that are skipped or can't be read.
pub fn request_id(head: &[u8]) -> Option<u64> {
    let mut reader = Reader::new(head);
    reader.u8("message type").ok()?;
    reader.u64("request id").ok()
}

impl ReplyFrame {
    pub fn encode(&self, out: &mut Vec<u8>) {
        match &self.body {
            ReplyBody::Answer(answer) => {
                put_u8(out, answer_kind(answer) as u8);
                put_u64(out, self.id);
                put_answer_body(out, answer);
            }
            ReplyBody::Status(fields) => {
                put_u8(out, Kind::StatusReply as u8);
                put_u64(out, self.id);
                put_u32(out, u32::try_from(fields.len()).expect("a status has few fields"));
                for (name, value) in fields {
                    put_blob(out, name.as_bytes());
                    put_blob(out, value.as_bytes());
                }
            }
            ReplyBody::Changes(streamed) => {
                put_u8(out, Kind::ChangesReply as u8);
                put_u64(out, self.id);
                streamed.encode(out);
            }
        }
    }

    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let kind = Kind::read(&mut reader)?;
        let id = reader.u64("request id")?;
        let body = match kind {
            Kind::StatusReply => ReplyBody::Status(read_status(&mut reader)?),
            Kind::ChangesReply => ReplyBody::Changes(Streamed::read(&mut reader)?),
            kind => ReplyBody::Answer(read_answer(kind, &mut reader)?),
        };
        reader.finish("reply: bytes after its end")?;
        Ok(ReplyFrame { id, body })
    }
}

fn read_status(reader: &mut Reader<'_>) -> Result<Vec<(String, String)>, Malformed> {
    let count = reader.u32("number of status fields")?;
    let mut fields = Vec::new();
    for _ in 0..count {
        let name = reader.text("name of a status field")?.to_owned();
        let value = reader.text("value of a status field")?.to_owned();
        fields.push((name, value));
    }
    Ok(fields)
}

pub(super) fn request_kind(request: &Request) -> Kind {
    match request {
        Request::Get { .. } => Kind::Get,
        Request::Write { .. } => Kind::Write,
        Request::Digest => Kind::Digest,
        Request::Member(_) => Kind::Member,
        Request::Read(_) => Kind::Read,
        Request::Backup(_) => Kind::Backup,
    }
}

pub(super) fn put_request_body(out: &mut Vec<u8>, request: &Request) {
    match request {
        Request::Get { key } => put_blob(out, key),
        Request::Write { command } => out.extend_from_slice(command),
        Request::Digest => {}
        Request::Member(request) => put_member_request(out, request),
        Request::Read(op) => op.encode(out),
        Request::Backup(request) => put_backup_request(out, *request),
    }
}

/// A command is checked here, where bytes come in: nobody behind this point meets a malformed one.
pub(super) fn read_request(kind: Kind, reader: &mut Reader<'_>) -> Result<Request, Malformed> {
    match kind {
        Kind::Get => Ok(Request::Get { key: reader.blob("key")?.into() }),
        Kind::Write => {
            let command = reader.take(reader.rest().len(), "command")?;
            Command::decode(command)?;
            Ok(Request::Write { command: command.into() })
        }
        Kind::Digest => Ok(Request::Digest),
        Kind::Member => read_member_request(reader).map(Request::Member),
        Kind::Read => ReadOp::read(reader).map(Request::Read),
        Kind::Backup => read_backup_request(reader).map(Request::Backup),
        _ => Err(Malformed("message type: not a request")),
    }
}

const ADD: u8 = 0;
const PROMOTE: u8 = 1;
const REMOVE: u8 = 2;
const TRANSFER: u8 = 3;

/// What, then the name; for a transfer to anybody it is empty.
fn put_member_request(out: &mut Vec<u8>, request: &MemberRequest) {
    let (what, name) = match request {
        MemberRequest::Add { name } => (ADD, name.as_str()),
        MemberRequest::Promote { name } => (PROMOTE, name.as_str()),
        MemberRequest::Remove { name } => (REMOVE, name.as_str()),
        MemberRequest::Transfer { to } => (TRANSFER, to.as_deref().unwrap_or_default()),
    };
    put_u8(out, what);
    put_blob(out, name.as_bytes());
}

fn read_member_request(reader: &mut Reader<'_>) -> Result<MemberRequest, Malformed> {
    let what = reader.u8("what to do with a member")?;
    let name = read_text(reader, "member's name", NAME_BYTES_MAX)?;
    match what {
        TRANSFER => Ok(MemberRequest::Transfer { to: Some(name).filter(|name| !name.is_empty()) }),
        _ if name.is_empty() => Err(Malformed("member's name: it is empty")),
        ADD => Ok(MemberRequest::Add { name }),
        PROMOTE => Ok(MemberRequest::Promote { name }),
        REMOVE => Ok(MemberRequest::Remove { name }),
        _ => Err(Malformed("what to do with a member")),
    }
}

const BEGIN: u8 = 0;
const FIND: u8 = 1;
const PIECE: u8 = 2;
const NOT_YET: u8 = 3;

fn put_backup_request(out: &mut Vec<u8>, request: BackupRequest) {
    match request {
        BackupRequest::Begin => put_u8(out, BEGIN),
        BackupRequest::Find { index } => {
            put_u8(out, FIND);
            put_u64(out, index);
        }
        BackupRequest::Piece { index, term, offset } => {
            put_u8(out, PIECE);
            put_u64(out, index);
            put_u64(out, term);
            put_u64(out, offset);
        }
    }
}

fn read_backup_request(reader: &mut Reader<'_>) -> Result<BackupRequest, Malformed> {
    match reader.u8("step of a backup")? {
        BEGIN => Ok(BackupRequest::Begin),
        FIND => Ok(BackupRequest::Find { index: reader.u64("log index")? }),
        PIECE => Ok(BackupRequest::Piece {
            index: reader.u64("log index")?,
            term: reader.u64("term")?,
            offset: reader.u64("offset")?,
        }),
        _ => Err(Malformed("step of a backup")),
    }
}

fn put_backup_part(out: &mut Vec<u8>, part: &BackupPart) {
    match part {
        BackupPart::Begun => put_u8(out, BEGIN),
        BackupPart::NotYet => put_u8(out, NOT_YET),
        BackupPart::Found { term, bytes } => {
            put_u8(out, FIND);
            put_u64(out, *term);
            put_u64(out, *bytes);
        }
        BackupPart::Piece(bytes) => {
            put_u8(out, PIECE);
            put_blob(out, bytes);
        }
    }
}

fn read_backup_part(reader: &mut Reader<'_>) -> Result<BackupPart, Malformed> {
    match reader.u8("part of a backup")? {
        BEGIN => Ok(BackupPart::Begun),
        NOT_YET => Ok(BackupPart::NotYet),
        FIND => Ok(BackupPart::Found {
            term: reader.u64("term")?,
            bytes: reader.u64("bytes of a snapshot")?,
        }),
        PIECE => Ok(BackupPart::Piece(reader.blob("piece of a snapshot")?.into())),
        _ => Err(Malformed("part of a backup")),
    }
}

pub(super) fn answer_kind(answer: &Answer) -> Kind {
    match answer {
        Answer::Value { .. } => Kind::Value,
        Answer::Written { .. } => Kind::Written,
        Answer::Digest { .. } => Kind::StateDigest,
        Answer::Member { .. } => Kind::MemberReply,
        Answer::Found { .. } => Kind::FoundReply,
        Answer::Backup { .. } => Kind::BackupReply,
        Answer::Failed(_) => Kind::Failed,
    }
}

pub(super) fn put_answer_body(out: &mut Vec<u8>, answer: &Answer) {
    match answer {
        Answer::Value { value, index, leader } => {
            put_u64(out, *index);
            put_u64(out, *leader);
            put_option(out, value.as_deref(), put_blob);
        }
        Answer::Written { outcome, index, leader } => {
            put_u64(out, *index);
            put_u64(out, *leader);
            outcome.encode(out);
        }
        Answer::Digest { digest, keys, index, leader } => {
            put_u64(out, *index);
            put_u64(out, *leader);
            put_u64(out, *digest);
            put_u64(out, *keys);
        }
        Answer::Member { index, leader } => {
            put_u64(out, *index);
            put_u64(out, *leader);
        }
        Answer::Found { found, index, leader } => {
            put_u64(out, *index);
            put_u64(out, *leader);
            found.encode(out);
        }
        Answer::Backup { part, index, leader } => {
            put_u64(out, *index);
            put_u64(out, *leader);
            put_backup_part(out, part);
        }
        Answer::Failed(failure) => {
            put_u8(out, failure.code as u8);
            put_blob(out, failure.message.as_bytes());
            put_option(out, failure.leader.as_ref(), |out, leader| {
                put_u64(out, leader.id);
                put_blob(out, leader.address.as_bytes());
            });
        }
    }
}

pub(super) fn read_answer(kind: Kind, reader: &mut Reader<'_>) -> Result<Answer, Malformed> {
    if kind == Kind::Failed {
        return Ok(Answer::Failed(read_failure(reader)?));
    }
    let is_answer = matches!(
        kind,
        Kind::Value
            | Kind::Written
            | Kind::StateDigest
            | Kind::MemberReply
            | Kind::FoundReply
            | Kind::BackupReply
    );
    if !is_answer {
        return Err(Malformed("message type: not an answer"));
    }
    let index = reader.u64("log index")?;
    let leader = reader.u64("leader")?;
    Ok(match kind {
        Kind::Value => {
            let value = reader.option("value", |r| r.blob("value"))?.map(Into::into);
            Answer::Value { value, index, leader }
        }
        Kind::Written => Answer::Written { outcome: Outcome::decode(reader)?, index, leader },
        Kind::MemberReply => Answer::Member { index, leader },
        Kind::FoundReply => Answer::Found { found: Found::read(reader)?, index, leader },
        Kind::BackupReply => Answer::Backup { part: read_backup_part(reader)?, index, leader },
        _ => Answer::Digest {
            digest: reader.u64("digest")?,
            keys: reader.u64("number of keys")?,
            index,
            leader,
        },
    })
}

fn read_failure(reader: &mut Reader<'_>) -> Result<Failure, Malformed> {
    let code = FailureCode::from_u8(reader.u8("failure code")?);
    Ok(Failure {
        code: code.ok_or(Malformed("failure code"))?,
        message: reader.text("failure message")?.to_owned(),
        leader: reader.option("leader", |r| {
            Ok(LeaderHint {
                id: r.u64("leader's number")?,
                address: r.text("leader's address")?.to_owned(),
            })
        })?,
    })
}
