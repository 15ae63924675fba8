//! Writes, each carried out once, however many attempts it takes: the session that this client has in the cluster,
//! and the number of each write in it.

use super::call::Call;
use super::{Client, ClientError, Why, Written};
use crate::kv::{Answer, Command, Outcome, Refusal, Request, RequestId, TimedOp, WriteOp};

/// Sessions opened for one write. Each is forgotten only after many others were opened, so a second loss
/// in a row means that the cluster has more clients than sessions.
const SESSIONS_PER_WRITE_MAX: usize = 3;

/// A session of the cluster, and the number that the next write gets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    id: u64,
    next_sequence: u64,
}

impl Client {
    /// Once, however many attempts it takes.
    pub(super) fn write(&mut self, op: WriteOp<'_>) -> Result<Written, ClientError> {
        let mut call = Call::write(self.config.total_timeout);
        for _ in 0..SESSIONS_PER_WRITE_MAX {
            let id = self.next_request_id(&call)?;
            let command = Command::Write { request: Some(id), op }.to_bytes();
            let answer = self.ask(Request::Write { command: command.into() }, &mut call)?;
            match answer {
                Answer::Written { outcome: Outcome::Refused(Refusal::UnknownSession), .. } => {
                    self.session = None;
                    if call.may_be_done {
                        return Err(self.give_up(Why::SessionLost, true));
                    }
                }
                Answer::Written { outcome: Outcome::Refused(refusal), .. } => {
                    // With one request at a time nobody overtakes it, so a stale sequence is a riddle.
                    let riddle =
                        matches!(refusal, Refusal::StaleSequence | Refusal::AnswerForgotten);
                    return Err(self.give_up(Why::Refused(refusal), riddle));
                }
                Answer::Written { outcome, index, leader } if outcome_fits(op, &outcome) => {
                    return Ok(Written { outcome, index, leader });
                }
                other => return Err(self.nonsense(&other, true)),
            }
        }
        Err(self.give_up(Why::SessionsCrowded, false))
    }

    /// The name of the next write, in a session that is opened if there is none.
    fn next_request_id(&mut self, call: &Call) -> Result<RequestId, ClientError> {
        let session = match self.session {
            Some(session) => session,
            None => Session { id: self.open_session(call)?, next_sequence: 1 },
        };
        let next = Session { next_sequence: session.next_sequence + 1, ..session };
        self.session = Some(next);
        Ok(RequestId { session: session.id, sequence: session.next_sequence })
    }

    fn open_session(&mut self, write: &Call) -> Result<u64, ClientError> {
        let command = Command::OpenSession.to_bytes();
        let mut call = Call::for_session(write);
        match self.ask(Request::Write { command: command.into() }, &mut call)? {
            Answer::Written { outcome: Outcome::SessionOpened { session }, .. } if session != 0 => {
                Ok(session)
            }
            other => Err(self.nonsense(&other, false)),
        }
    }
}

fn outcome_fits(op: WriteOp<'_>, outcome: &Outcome) -> bool {
    matches!(
        (op, outcome),
        (WriteOp::Put { .. }, Outcome::Put)
            | (WriteOp::Delete { .. }, Outcome::Deleted(_))
            | (WriteOp::CompareAndSet { .. }, Outcome::Swapped(_))
            | (WriteOp::Increment { .. }, Outcome::Counter(_))
            | (WriteOp::Set { .. } | WriteOp::Remove { .. }, Outcome::Changed { .. })
            | (WriteOp::PutMany { .. }, Outcome::Put)
            | (WriteOp::DeleteMany { .. } | WriteOp::Append { .. }, Outcome::Counter(_))
            | (WriteOp::Flush, Outcome::Put)
            | (
                WriteOp::Timed { op: TimedOp::Set { .. } | TimedOp::Expire { .. }, .. },
                Outcome::Changed { .. }
            )
            | (WriteOp::Timed { op: TimedOp::Transaction(_), .. }, Outcome::Transaction(_))
    )
}
