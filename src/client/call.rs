//! One request until it is answered or given up: attempts, rounds and pauses.

use super::connection::{Connection, Dial, Lost, Patience};
use super::{CONNECTIONS_MAX, Change, Client, ClientError, Told, Why, parse_address};
use crate::kv::{Answer, BackupPart, Failure, FailureCode, Request};
use crate::protocol::client::{ReplyBody, RequestBody};
use crate::raft::NodeId;
use std::time::{Duration, Instant};

/// Shortest and longest pause between rounds.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// A pause is this fraction of the time that no leader has answered so far. So it grows by itself, and
/// whatever an election takes, pausing adds at most an eighth to it.
const PAUSE_FRACTION: u32 = 8;
/// Of an address that a server names, in bytes: a DNS name has up to 255.
const ADDRESS_BYTES_MAX: usize = 300;
/// Of a server's message that is shown, in characters.
const MESSAGE_CHARS_MAX: usize = 300;

/// A request under way.
pub(super) struct Call {
    began: Instant,
    timeout: Option<Duration>,
    /// Whether the caller has to know if an attempt was carried out.
    matters: bool,
    /// An attempt that may be done is the last one.
    is_once: bool,
    /// An attempt ended without an answer after its bytes had left: the write may be carried out.
    pub may_be_done: bool,
}

impl Call {
    pub fn read(timeout: Option<Duration>) -> Self {
        Call { began: Instant::now(), timeout, matters: false, is_once: false, may_be_done: false }
    }

    pub fn write(timeout: Option<Duration>) -> Self {
        Call { matters: true, ..Call::read(timeout) }
    }

    pub fn once(timeout: Option<Duration>) -> Self {
        Call { is_once: true, ..Call::write(timeout) }
    }

    /// The opening of the session that `write` needs. It shares the deadline; a session opened twice, or
    /// opened and never used, matters to nobody.
    pub fn for_session(write: &Call) -> Self {
        Call { matters: false, ..*write }
    }

    fn deadline(&self) -> Option<Instant> {
        self.began.checked_add(self.timeout?)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }
}

impl Client {
    /// Asks until there is an answer of a leader. [`Answer::Failed`] is never returned.
    pub(super) fn ask(&mut self, request: Request, call: &mut Call) -> Result<Answer, ClientError> {
        let body = RequestBody::Ask(request);
        self.route.begin_round();
        let began = Instant::now();
        loop {
            let now = Instant::now();
            if (self.pause)(Duration::ZERO).is_break() {
                return Err(self.give_up(Why::Interrupted, call.may_be_done));
            }
            self.check_time(call)?;
            if call.is_once && call.may_be_done {
                return Err(self.give_up(Why::NotRepeated, true));
            }
            let Some(server) = self.route.next(now) else {
                self.end_of_round(now - began, call);
                continue;
            };
            match self.attempt(&server, &body, call.deadline()) {
                Ok(Answer::Failed(failure)) => self.failure(&server, failure, call)?,
                Ok(answer) => {
                    self.leader_answered(&server, &answer);
                    return Ok(answer);
                }
                Err(lost) => {
                    call.may_be_done |= call.matters && lost.sent;
                    self.lost(&server, lost);
                }
            }
        }
    }

    /// Asks one server and no other, as its answer is about what only it has, until it answers or the time is over.
    pub(super) fn ask_at(&mut self, server: &str, request: Request) -> Result<Answer, ClientError> {
        let mut call = Call::read(self.config.total_timeout);
        let body = RequestBody::Ask(request);
        loop {
            if (self.pause)(Duration::ZERO).is_break() {
                return Err(self.give_up(Why::Interrupted, false));
            }
            self.check_time(&call)?;
            match self.attempt(server, &body, call.deadline()) {
                Ok(Answer::Failed(failure)) => self.failure(server, failure, &mut call)?,
                Ok(answer) => return Ok(answer),
                Err(lost) => self.lost(server, lost),
            }
            let _ = (self.pause)(PAUSE_MAX);
        }
    }

    /// The total timeout of a call.
    pub(super) fn check_time(&self, call: &Call) -> Result<(), ClientError> {
        if call.is_over(Instant::now()) {
            let timeout = call.timeout.unwrap_or_default();
            return Err(self.give_up(Why::TimedOut(timeout), call.may_be_done));
        }
        Ok(())
    }

    /// One request to one server.
    fn attempt(
        &mut self,
        server: &str,
        body: &RequestBody,
        deadline: Option<Instant>,
    ) -> Result<Answer, Lost> {
        let mut connection = self.connection(server, deadline)?;
        if let RequestBody::Ask(request) = body
            && let Err(failure) = connection.limits().check(request)
        {
            // Not sent: the server said in its hello that it would refuse.
            self.keep(server, connection);
            return Ok(Answer::Failed(failure));
        }
        let Client { config, pause, .. } = self;
        let mut stop = || pause(Duration::ZERO).is_break();
        let mut patience = Patience { total: deadline, stop: &mut stop };
        let reply = connection.ask(body, config.request_timeout, &mut patience)?;
        self.keep(server, connection);
        match reply {
            ReplyBody::Answer(answer) => Ok(answer),
            ReplyBody::Status(_) => Err(unasked("its status")),
            ReplyBody::Changes(_) => Err(unasked("changes")),
        }
    }

    /// A connection taken out of the kept ones, or a new one.
    pub(super) fn connection(
        &mut self,
        server: &str,
        deadline: Option<Instant>,
    ) -> Result<Connection, Lost> {
        if let Some(kept) = self.connections.remove(server)
            && kept.is_usable()
        {
            return Ok(kept);
        }
        let Client { config, pause, .. } = self;
        let mut stop = || pause(Duration::ZERO).is_break();
        let mut patience = Patience { total: deadline, stop: &mut stop };
        let dial = Dial {
            resolver: &config.resolver,
            connect_timeout: config.connect_timeout,
            name: &config.name,
            cluster_id: self.cluster_id,
        };
        let connection = Connection::open(server, &dial, &mut patience)?;
        // Sessions and log indices mean nothing in another cluster. The server refuses a wrong id as well;
        // this is for one that has none yet, or is not so strict.
        let theirs = connection.welcome.cluster_id;
        if self.cluster_id == 0 {
            self.cluster_id = theirs;
        } else if theirs != self.cluster_id {
            let ours = self.cluster_id;
            let reason = format!("is of cluster {theirs:016x}, this client began with {ours:016x}");
            return Err(Lost { reason, sent: false, timed_out: false });
        }
        Ok(connection)
    }

    fn keep(&mut self, server: &str, connection: Connection) {
        if self.connections.len() >= CONNECTIONS_MAX {
            self.connections.pop_first();
        }
        self.connections.insert(server.to_owned(), connection);
    }

    /// A server's refusal: another one is asked, or the request is given up.
    pub(super) fn failure(
        &mut self,
        server: &str,
        failure: Failure,
        call: &mut Call,
    ) -> Result<(), ClientError> {
        let reason = in_words(&failure);
        match failure.code {
            FailureCode::NotLeader | FailureCode::NoLeader => self.counts.redirects += 1,
            _ => self.counts.refusals += 1,
        }
        match failure.code {
            FailureCode::TooLarge
            | FailureCode::Malformed
            | FailureCode::NotPossible
            | FailureCode::Compacted => {
                let message = format!("{server} refused the request: {reason}");
                return Err(self.give_up(Why::Rejected(message), call.may_be_done));
            }
            FailureCode::OutcomeUnknown | FailureCode::TimedOut => call.may_be_done |= call.matters,
            FailureCode::NotLeader
            | FailureCode::NoLeader
            | FailureCode::Overloaded
            | FailureCode::ShuttingDown => {}
        }
        let hint = failure.leader.map(|leader| leader.address).filter(|address| {
            address.len() <= ADDRESS_BYTES_MAX && parse_address(address, None).is_ok()
        });
        self.route.redirected(server, hint, reason);
        Ok(())
    }

    pub(super) fn lost(&mut self, server: &str, lost: Lost) {
        let reason = printable(&lost.reason);
        if lost.timed_out {
            self.counts.timeouts += 1;
            self.route.timed_out(server, reason, Instant::now());
        } else {
            self.counts.connections_lost += 1;
            self.route.failed(server, reason);
        }
    }

    fn leader_answered(&mut self, server: &str, answer: &Answer) {
        self.route.succeeded(server);
        let Some(leader) = leader_of(answer) else { return };
        if self.told != Told::Leader(leader) {
            self.told = Told::Leader(leader);
            (self.observer)(&Change::Leader { leader, server: server.to_owned() });
        }
    }

    /// Nobody answered: pauses, and says so once if it lasts. `waited` is the time since the first attempt.
    pub(super) fn end_of_round(&mut self, waited: Duration, call: &Call) {
        if self.told != Told::NoLeader {
            self.told = Told::Interrupted;
            if waited >= self.config.tell_after {
                self.told = Told::NoLeader;
                (self.observer)(&Change::NoLeader { servers: self.route.reasons() });
            }
        }
        let pause = (waited / PAUSE_FRACTION).clamp(PAUSE_MIN, PAUSE_MAX);
        // From half of it to all of it, so that clients that lost their leader together spread out.
        let pause = pause.mul_f64(0.5 + self.rng.f64() / 2.0);
        let left = call.deadline().map(|end| end.saturating_duration_since(Instant::now()));
        // The answer is asked for again at the next turn of the loop.
        let _ = (self.pause)(left.map_or(pause, |left| pause.min(left)));
    }
}

fn unasked(what: &str) -> Lost {
    Lost { sent: true, ..Lost::new(format!("answered with {what} instead")) }
}

fn leader_of(answer: &Answer) -> Option<NodeId> {
    match answer {
        Answer::Value { leader, .. }
        | Answer::Written { leader, .. }
        | Answer::Found { leader, .. }
        | Answer::Backup { part: BackupPart::Begun, leader, .. }
        | Answer::Digest { leader, .. } => Some(*leader),
        // After a transfer it is not the server that answered.
        Answer::Backup { .. } | Answer::Member { .. } | Answer::Failed(_) => None,
    }
}

/// A failure for people, in one line that is safe to print: its text comes from outside.
pub(super) fn in_words(failure: &Failure) -> String {
    let code = failure.code.in_words();
    let message = &failure.message;
    match (&failure.leader, message.is_empty()) {
        (Some(leader), _) => {
            printable(&format!("{code}, names {} ({})", leader.id, leader.address))
        }
        (None, true) => code.to_owned(),
        (None, false) => printable(&format!("{code}: {message}")),
    }
}

/// Text that may come from outside: one line, no control characters, bounded.
pub(super) fn printable(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(MESSAGE_CHARS_MAX).collect()
}
