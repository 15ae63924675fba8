//! A change stream that outlives the servers it comes from: lost at one, it goes on at another, at the
//! index after the last one it has seen.

use super::call::{Call, in_words};
use super::connection::{Connection, Lost, Patience};
use super::{Client, ClientError, Why};
use crate::kv::{Answer, Change, Failure, FailureCode};
use crate::protocol::changes::Streamed;
use crate::protocol::client::{ReplyBody, RequestBody};
use crate::protocol::frame::SKIP_BYTES_MAX;
use crate::raft::Index;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// A server that has said nothing for so long is asked how it is: a machine that is gone never closes
/// anything, and a node without a leader has no news.
const SILENCE: Duration = Duration::from_secs(2);
/// Of changes of one index, in bytes; no server remembers more.
const BATCH_BYTES_MAX: usize = SKIP_BYTES_MAX;

/// What a stream tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// `server` sends changes from this index on.
    Begun { server: String, from: Index },
    /// Everything that one write has changed. Indices rise, and none comes twice.
    Changes { index: Index, changes: Vec<Change> },
    /// Nothing is missing up to this index.
    Progress { index: Index },
    /// A server is lost, and another one is asked. Nothing is missing.
    Lost { server: String, reason: String },
}

/// Why one server's part of a stream has ended.
enum Ended {
    /// The caller wants no more.
    Wanted,
    Lost(Lost),
    Failed(Failure),
}

impl From<Lost> for Ended {
    fn from(lost: Lost) -> Self {
        Ended::Lost(lost)
    }
}

/// What is known of the stream, whichever server it comes from.
struct Progress<'a> {
    prefix: &'a [u8],
    /// The next index that is wanted; `None`: whatever comes next at the first server.
    next: Option<Index>,
    told: &'a mut dyn FnMut(StreamEvent) -> ControlFlow<()>,
    /// Something has come, or could have, since the last server was lost.
    is_alive: bool,
}

impl Client {
    /// Tells `told` of every change of keys that begin with `prefix`, from the log index `from` on or from now
    /// on, until it says `Break`. A server that is lost is replaced by another one; if none is found
    /// within the total timeout, or the changes that come next are not remembered any more
    /// ([`Why::Compacted`]), that is the error.
    pub fn changes(
        &mut self,
        prefix: &[u8],
        from: Option<Index>,
        mut told: impl FnMut(StreamEvent) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        let mut progress = Progress { prefix, next: from, told: &mut told, is_alive: false };
        let mut call = Call::read(self.config.total_timeout);
        let mut began = Instant::now();
        self.route.begin_round();
        loop {
            let now = Instant::now();
            if (self.pause)(Duration::ZERO).is_break() {
                return Err(self.give_up(Why::Interrupted, false));
            }
            self.check_time(&call)?;
            let Some(server) = self.route.next(now) else {
                self.end_of_round(now - began, &call);
                continue;
            };
            let ended = self.stream_from(&server, &mut progress);
            let was_alive = std::mem::take(&mut progress.is_alive);
            if was_alive {
                (call, began) = (Call::read(self.config.total_timeout), Instant::now());
                self.route.begin_round();
            }
            let reason = match ended {
                Ok(never) => match never {},
                Err(Ended::Wanted) => return Ok(()),
                Err(Ended::Lost(lost)) => {
                    let reason = lost.reason.clone();
                    self.lost(&server, lost);
                    reason
                }
                Err(Ended::Failed(failure)) if failure.code == FailureCode::Compacted => {
                    return Err(self.give_up(Why::Compacted(in_words(&failure)), false));
                }
                Err(Ended::Failed(failure)) => {
                    let reason = in_words(&failure);
                    self.failure(&server, failure, &mut call)?;
                    reason
                }
            };
            if was_alive && (progress.told)(StreamEvent::Lost { server, reason }).is_break() {
                return Ok(());
            }
        }
    }

    /// As long as this server has something to tell.
    fn stream_from(
        &mut self,
        server: &str,
        progress: &mut Progress<'_>,
    ) -> Result<std::convert::Infallible, Ended> {
        let mut connection = self.connection(server, None)?;
        let Client { config, pause, .. } = self;
        let mut stop = || pause(Duration::ZERO).is_break();
        let mut patience = Patience { total: None, stop: &mut stop };
        let (prefix, from) = (progress.prefix.to_vec(), progress.next);
        let body = RequestBody::Changes { prefix, from };
        let id = connection.send(&body, config.request_timeout, &mut patience)?;
        let mut pending = Vec::new();
        let mut pending_bytes = 0;
        loop {
            let reply = match connection.receive(SILENCE, &mut patience) {
                Err(lost) if lost.timed_out => {
                    ask_how_it_is(&mut connection, config.request_timeout, &mut patience)?;
                    continue;
                }
                reply => reply?,
            };
            if reply.id != id {
                is_led(&reply.body)?;
                progress.is_alive = true;
                continue;
            }
            match reply.body {
                ReplyBody::Changes(Streamed::Begun { from }) => {
                    progress.next.get_or_insert(from);
                    progress.tell(StreamEvent::Begun { server: server.to_owned(), from })?;
                }
                ReplyBody::Changes(Streamed::Changes { index, changes, more }) => {
                    pending_bytes += changes.iter().map(Change::cost_bytes).sum::<usize>();
                    pending.extend(changes);
                    if pending_bytes > BATCH_BYTES_MAX || progress.is_past(index) {
                        return Err(nonsense("changes that nobody asked for").into());
                    }
                    if !more {
                        progress.next = Some(index + 1);
                        pending_bytes = 0;
                        let changes = std::mem::take(&mut pending);
                        progress.tell(StreamEvent::Changes { index, changes })?;
                    }
                }
                ReplyBody::Changes(Streamed::Progress { index }) => {
                    if progress.is_past(index) {
                        return Err(nonsense("progress backwards").into());
                    }
                    progress.next = Some(index + 1);
                    progress.tell(StreamEvent::Progress { index })?;
                }
                ReplyBody::Answer(Answer::Failed(failure)) => return Err(Ended::Failed(failure)),
                ReplyBody::Answer(_) | ReplyBody::Status(_) => {
                    return Err(nonsense("something else than changes").into());
                }
            }
        }
    }
}

impl Progress<'_> {
    fn tell(&mut self, event: StreamEvent) -> Result<(), Ended> {
        self.is_alive |= !matches!(event, StreamEvent::Begun { .. });
        match (self.told)(event) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Ended::Wanted),
        }
    }

    /// Whether all of this index was told already.
    fn is_past(&self, index: Index) -> bool {
        self.next.is_some_and(|next| index < next)
    }
}

/// Its answer has to come before the next silence: until then other replies may.
fn ask_how_it_is(
    connection: &mut Connection,
    timeout: Duration,
    patience: &mut Patience<'_>,
) -> Result<(), Lost> {
    if connection.is_asked() {
        return Err(Lost::timed_out(format!("has said nothing for {SILENCE:?}")));
    }
    connection.send(&RequestBody::Status, timeout, patience).map(drop)
}

/// Nothing is committed at a node that knows no leader: others may have gone on without it.
fn is_led(body: &ReplyBody) -> Result<(), Lost> {
    let ReplyBody::Status(fields) = body else { return Err(nonsense("no status")) };
    match fields.iter().find(|(name, _)| name == "raft_leader") {
        Some((_, leader)) if leader != "-1" => Ok(()),
        _ => Err(Lost::new("knows no leader")),
    }
}

fn nonsense(what: &str) -> Lost {
    Lost::new(format!("answered with {what}"))
}
