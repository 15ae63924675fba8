//! Exactly-once execution (Raft thesis 6.3): for each session the sequence number of its newest request
//! and what became of it, so that a retry is answered with the first execution's outcome.
//!
//! A session has one request outstanding at a time, so one answer per session is enough. Sessions are
//! forgotten in log order, the least recently used first, so that every node forgets the same ones.

use super::{Outcome, Refusal, RequestId};
use crate::codec::{Malformed, Reader, put_option, put_u32, put_u64};
use crate::raft::Index;
use std::collections::BTreeMap;

/// Sessions that are remembered, the same number on every node. When it is reached, opening one forgets
/// the least recently used one; that client is told `UnknownSession`.
pub const SESSIONS_MAX: usize = 16_384;

/// The longest value in an outcome that a session remembers, in bytes. So the table stays small, however
/// long values are; whoever retries a request whose outcome had a longer one is told that it was
/// executed.
pub const SESSION_VALUE_BYTES_MAX: usize = 128;

#[derive(Debug, Default)]
pub struct Sessions {
    by_id: BTreeMap<u64, Session>,
    /// Session ids by the log index of their newest request. An index belongs to one request.
    by_use: BTreeMap<Index, u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Session {
    sequence: u64,
    executed: Option<Executed>,
    used_at: Index,
}

/// A request that was carried out: when, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    pub index: Index,
    pub outcome: Outcome,
}

/// What the table knows of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    New,
    Before(Executed),
    /// A newer request of the session was executed; what became of this one is forgotten.
    Stale,
    UnknownSession,
}

impl Sessions {
    pub fn open(&mut self, index: Index) {
        if self.by_id.len() >= SESSIONS_MAX
            && let Some((_, id)) = self.by_use.pop_first()
        {
            self.by_id.remove(&id);
        }
        self.by_id.insert(index, Session { sequence: 0, executed: None, used_at: index });
        self.by_use.insert(index, index);
    }

    pub fn seen(&self, request: RequestId) -> Seen {
        let Some(session) = self.by_id.get(&request.session) else { return Seen::UnknownSession };
        match &session.executed {
            Some(executed) if request.sequence == session.sequence => {
                Seen::Before(executed.clone())
            }
            Some(_) if request.sequence < session.sequence => Seen::Stale,
            _ => Seen::New,
        }
    }

    /// Remembers a request that `seen` called new.
    pub fn executed(&mut self, request: RequestId, mut executed: Executed) {
        if executed.outcome.value_bytes() > SESSION_VALUE_BYTES_MAX {
            executed.outcome = Outcome::Refused(Refusal::AnswerForgotten);
        }
        let session = self.by_id.get_mut(&request.session).expect("the session was just seen");
        self.by_use.remove(&session.used_at);
        self.by_use.insert(executed.index, request.session);
        *session = Session {
            sequence: request.sequence,
            used_at: executed.index,
            executed: Some(executed),
        };
    }

    /// For a snapshot.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.by_id.len() as u32);
        for (id, session) in &self.by_id {
            put_u64(out, *id);
            put_u64(out, session.sequence);
            put_u64(out, session.used_at);
            put_option(out, session.executed.as_ref(), |out, executed| {
                put_u64(out, executed.index);
                executed.outcome.encode(out);
            });
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut sessions = Sessions::default();
        let count = reader.u32("number of sessions")?;
        if count as usize > SESSIONS_MAX {
            return Err(Malformed("number of sessions"));
        }
        for _ in 0..count {
            let id = reader.u64("session")?;
            let sequence = reader.u64("sequence")?;
            let used_at = reader.u64("last use of a session")?;
            let executed = reader.option("executed request", |reader| {
                let index = reader.u64("log index")?;
                Ok(Executed { index, outcome: Outcome::decode(reader)? })
            })?;
            // One encoding for one table: else replicas that loaded it would forget different sessions.
            if sessions.by_id.last_key_value().is_some_and(|(last, _)| *last >= id) {
                return Err(Malformed("order of sessions"));
            }
            if sessions.by_use.insert(used_at, id).is_some() {
                return Err(Malformed("last use of a session"));
            }
            sessions.by_id.insert(id, Session { sequence, executed, used_at });
        }
        Ok(sessions)
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}
