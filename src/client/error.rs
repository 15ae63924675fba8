//! Why a request was given up. The one distinction that matters to a caller comes first: not done, or
//! perhaps done.

use crate::kv::Refusal;
use std::fmt;
use std::time::Duration;

/// A request that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientError {
    /// The store does not hold the write, and never will. A read is always this.
    NotDone { why: Why, servers: Vec<ServerReason> },
    /// The write may have been carried out, or may yet be. Read the key to find out.
    OutcomeUnknown { why: Why, servers: Vec<ServerReason> },
}

impl ClientError {
    pub fn why(&self) -> &Why {
        match self {
            ClientError::NotDone { why, .. } | ClientError::OutcomeUnknown { why, .. } => why,
        }
    }

    /// What each server said or did last, in the order of the configured list.
    pub fn servers(&self) -> &[ServerReason] {
        match self {
            ClientError::NotDone { servers, .. } | ClientError::OutcomeUnknown { servers, .. } => {
                servers
            }
        }
    }
}

/// What ended the attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// No leader answered within the total timeout.
    TimedOut(Duration),
    /// The caller's `pause` asked to stop.
    Interrupted,
    /// The write is committed and of no effect: the store refused it.
    Refused(Refusal),
    /// A server turned the request down in a way that no other server or later attempt would change: key
    /// or value too large, request malformed. Its own words.
    Rejected(String),
    /// The changes that come next are not remembered any more: read the keys again. The server's own words.
    Compacted(String),
    /// The way to the leader was lost, or its leadership, and a second attempt would be another change.
    NotRepeated,
    /// The cluster no longer knows the session, so a repetition can't be told from a new request.
    SessionLost,
    /// Sessions are lost as fast as they are opened: more clients than the cluster keeps sessions for.
    SessionsCrowded,
    /// A server answered something that does not belong to the request. A bug of the server.
    Nonsense(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::TimedOut(timeout) => write!(f, "no leader answered within {timeout:?}"),
            Why::Interrupted => f.write_str("interrupted"),
            Why::Refused(refusal) => f.write_str(refusal_text(*refusal)),
            Why::Rejected(message) | Why::Compacted(message) => f.write_str(message),
            Why::NotRepeated => {
                f.write_str("no answer came back; look at the status before trying again")
            }
            Why::SessionLost => f.write_str(
                "the cluster no longer knows this client's session (too many clients in between?)",
            ),
            Why::SessionsCrowded => f.write_str(
                "each session is forgotten before its first use: too many clients at the same time",
            ),
            Why::Nonsense(what) => write!(f, "a server's answer makes no sense: {what}"),
        }
    }
}

fn refusal_text(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NotAnInteger => "the value is not a decimal 64-bit integer",
        Refusal::Overflow => "the result would leave the range of a 64-bit integer",
        Refusal::UnknownSession => "the session is unknown",
        Refusal::TooLong => "the value would be longer than allowed",
        Refusal::AnswerForgotten => "the request was carried out, its answer was too long to keep",
        Refusal::TransactionTooLarge => "the answers would be longer than allowed",
        Refusal::StaleSequence => "a newer request of the session was already carried out",
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            ClientError::NotDone { .. } => "not done",
            ClientError::OutcomeUnknown { .. } => "outcome unknown",
        };
        write!(f, "{kind}: {}", self.why())?;
        if self.servers().is_empty() { Ok(()) } else { write!(f, " ({})", joined(self.servers())) }
    }
}

impl std::error::Error for ClientError {}

/// Why one server did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerReason {
    /// `host:port`.
    pub server: String,
    pub reason: String,
}

impl fmt::Display for ServerReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.server, self.reason)
    }
}

/// `a: reason; b: reason`, in one line.
pub fn joined(servers: &[ServerReason]) -> String {
    servers.iter().map(ServerReason::to_string).collect::<Vec<_>>().join("; ")
}
