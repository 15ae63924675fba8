//! Clients: each asks one thing at a time, of any node, and remembers what it was told.
//!
//! A client with a session repeats a write under the same number until it is answered. One without a session
//! takes a write of unknown outcome for what it is, and goes on. Reads are repeated freely.

use super::faults::{Fault, Swarm};
use super::operator;
use super::world::{Event, Heard, Input, MS, Micros, Number, World};
use raftkv::kv::{
    Answer, Command, Condition, Expiry, FailureCode, Found, Outcome, ReadOp, Refusal, Request,
    RequestId, Step, StepBuffer, TimeCondition, TimedOp, Transaction, Value, WatchedBuffer,
    WriteOp,
};
use raftkv::node::Routing;
use raftkv::raft::Index;
use std::rc::Rc;

/// One attempt of one client: the client's number in the lowest byte.
pub type Ticket = u64;

/// How often something is asked without a session before it is given up.
const ATTEMPTS_MAX: u32 = 6;

/// What a client asked, and what became of it.
#[derive(Debug, Clone)]
pub struct Record {
    pub client: usize,
    pub request: Request,
    pub invoked: Micros,
    /// With the time. `None`: it may have happened, or may happen yet.
    pub answer: Option<(Micros, Answer)>,
}

#[derive(Debug)]
struct Asking {
    request: Request,
    invoked: Micros,
    /// The newest index in any answer that was given before this was asked.
    floor: Index,
    /// Of the attempt that nothing was heard of yet.
    ticket: Option<Ticket>,
    node: Number,
    attempts: u32,
    /// An attempt went wrong without a word whether it took effect.
    is_unknown: bool,
}

#[derive(Debug, Default)]
struct Client {
    wants_session: bool,
    session: Option<u64>,
    sequence: u64,
    /// What it has read of the keys of its next transaction.
    watched: Option<Vec<(Rc<[u8]>, Index)>>,
    asking: Option<Asking>,
    /// Where the next attempt goes, if it knows.
    hint: Option<Number>,
}

pub struct Clients {
    clients: Vec<Client>,
    rng: fastrand::Rng,
    last_ticket: u64,
    last_unique: u64,
    /// The newest index in any answer.
    floor: Index,
    /// Nobody begins anything any more; the last client has this many requests left.
    probes_left: Option<u32>,
    pub history: Vec<Record>,
    pub answered: u64,
    pub unknown: u64,
}

impl Clients {
    pub fn new(swarm: &Swarm, mut rng: fastrand::Rng) -> Self {
        let mut clients: Vec<Client> = (0..swarm.clients)
            .map(|_| Client { wants_session: rng.u32(0..10) < swarm.sessions, ..Client::default() })
            .collect();
        clients.push(Client { wants_session: true, ..Client::default() });
        Clients {
            clients,
            rng,
            last_ticket: 0,
            last_unique: 0,
            floor: 0,
            probes_left: None,
            history: Vec::new(),
            answered: 0,
            unknown: 0,
        }
    }

    /// What clients still ask when a cluster is given up that has lost its majority: it may have been done.
    pub fn unanswered(&self) -> Vec<Record> {
        let record = |(client, asking): (usize, &Asking)| Record {
            client,
            request: asking.request.clone(),
            invoked: asking.invoked,
            answer: None,
        };
        let asking = self.clients.iter().map(|client| client.asking.as_ref()).enumerate();
        let writes = asking.filter_map(|(client, asking)| Some((client, asking?)));
        writes.filter(|(_, asking)| !opens_session(&asking.request)).map(record).collect()
    }

    /// The client that has nothing to do until everything is healed.
    fn prober(&self) -> usize {
        self.clients.len() - 1
    }

    /// Everybody has what was asked for, the prober included.
    pub fn are_content(&self) -> bool {
        self.probes_left == Some(0) && self.clients.iter().all(|client| client.asking.is_none())
    }

    /// Nobody will be told any more; what was asked may have happened.
    pub fn give_up(&mut self) {
        for (client, asking) in self.clients.iter_mut().enumerate() {
            let Some(Asking { request, invoked, .. }) = asking.asking.take() else { continue };
            if !opens_session(&request) {
                self.history.push(Record { client, request, invoked, answer: None });
            }
        }
    }

    pub fn who_waits(&self) -> String {
        let waits =
            self.clients.iter().enumerate().filter_map(|(id, c)| Some((id, c.asking.as_ref()?)));
        let waits: Vec<String> =
            waits.map(|(id, asking)| format!("client {id}: {:?}", asking.request)).collect();
        format!("{:?} probes left; {}", self.probes_left, waits.join("; "))
    }

    fn unique(&mut self) -> u64 {
        self.last_unique += 1;
        self.last_unique
    }

    /// Unlike any other value; mostly a number, so that it can be incremented.
    fn value(&mut self, swarm: &Swarm) -> Vec<u8> {
        let mut value = (self.unique() * 1000).to_string().into_bytes();
        if swarm.value_bytes_max > 0 && self.rng.u32(0..3) == 0 {
            value.push(b'.');
            value.resize(value.len() + self.rng.usize(0..swarm.value_bytes_max), b'x');
        }
        value
    }

    fn key(&mut self, swarm: &Swarm) -> Vec<u8> {
        vec![b'a' + self.rng.u64(0..swarm.keys) as u8]
    }

    /// What a client has in mind next.
    fn choose(&mut self, id: usize, swarm: &Swarm) -> Request {
        if self.clients[id].wants_session && self.clients[id].session.is_none() {
            return write(None, Command::OpenSession);
        }
        let is_read = match self.probes_left {
            Some(left) => left == 1,
            None => self.rng.u32(0..10) < 3,
        };
        let key = self.key(swarm);
        let is_timed = swarm.is_timed && self.probes_left.is_none();
        if is_timed && is_read && self.rng.bool() {
            let other = self.key(swarm);
            return Request::Read(ReadOp::Versions(vec![key.into(), other.into()]));
        }
        if is_read {
            return Request::Get { key: key.into() };
        }
        if self.rng.u32(0..60) == 0 {
            return Request::Digest;
        }
        let client = &mut self.clients[id];
        client.sequence += 1;
        let sequence = client.sequence;
        let request = client.session.map(|session| RequestId { session, sequence });
        if let Some(watched) = self.clients[id].watched.take() {
            return self.transaction(request, &watched, swarm);
        }
        let value = self.value(swarm);
        if is_timed && self.rng.u32(0..3) == 0 {
            return self.timed(request, &key, &value);
        }
        match self.rng.u32(0..10) {
            0..4 => write(request, WriteOp::Put { key: &key, value: &value }),
            4 => write(request, WriteOp::Delete { key: &key }),
            5 | 6 => {
                let expected = self.guess(&key);
                let expected = expected.as_deref();
                write(request, WriteOp::CompareAndSet { key: &key, expected, value: &value })
            }
            _ => {
                // A delta that no other command has makes the command unique.
                let delta = self.unique() as i64 * if self.rng.bool() { 1 } else { -1 };
                write(request, WriteOp::Increment { key: &key, delta })
            }
        }
    }

    /// About when keys go, or that all of them do.
    fn timed(&mut self, request: Option<RequestId>, key: &[u8], value: &[u8]) -> Request {
        let expiry = Expiry::After(self.rng.i64(1..=600));
        let (condition, get) = (Condition::Always, false);
        let op = match self.rng.u32(0..20) {
            0 => return write(request, WriteOp::Flush),
            1..14 => TimedOp::Set { key, value, condition, get, expiry },
            _ => {
                let expiry = if self.rng.u32(0..4) == 0 { Expiry::Never } else { expiry };
                TimedOp::Expire { key, expiry, condition: TimeCondition::Always, get }
            }
        };
        write(request, WriteOp::Timed { stamp: 0, op })
    }

    /// Of the keys that the client watches.
    fn transaction(
        &mut self,
        request: Option<RequestId>,
        watched: &[(Rc<[u8]>, Index)],
        swarm: &Swarm,
    ) -> Request {
        let (mut watches, mut steps) = (WatchedBuffer::default(), StepBuffer::default());
        watched.iter().for_each(|(key, index)| watches.push(key, *index));
        for _ in 0..self.rng.u32(1..4) {
            let (key, _) = &watched[self.rng.usize(0..watched.len())];
            let value = self.value(swarm);
            let expiry = Expiry::After(self.rng.i64(1..=600));
            let (condition, get) = (Condition::Always, false);
            let delta = self.unique() as i64;
            steps.push(&match self.rng.u32(0..5) {
                0 => Step::Write(WriteOp::Put { key, value: &value }),
                1 => Step::Write(WriteOp::Delete { key }),
                2 => Step::Timed(TimedOp::Set { key, value: &value, condition, get, expiry }),
                3 => Step::Write(WriteOp::Increment { key, delta }),
                _ => Step::Read(ReadOp::Values(vec![key.clone()])),
            });
        }
        let op = TimedOp::Transaction(Transaction {
            watched: watches.watched(),
            answer_bytes_max: 100_000,
            steps: steps.steps(),
        });
        write(request, WriteOp::Timed { stamp: 0, op })
    }

    /// What somebody read there last.
    fn guess(&self, key: &[u8]) -> Option<Value> {
        self.history.iter().rev().take(20).find_map(|record| {
            match (&record.request, &record.answer) {
                (Request::Get { key: read }, Some((_, Answer::Value { value, .. })))
                    if **read == *key =>
                {
                    Some(value.clone())
                }
                _ => None,
            }
        })?
    }

    fn client_of(&mut self, ticket: Ticket) -> Option<usize> {
        let id = (ticket & 0xff) as usize;
        let is_current = self.clients[id].asking.as_ref().is_some_and(|a| a.ticket == Some(ticket));
        is_current.then_some(id)
    }
}

fn write<'a>(request: Option<RequestId>, what: impl Into<Wanted<'a>>) -> Request {
    let command = match what.into() {
        Wanted::Command(command) => command,
        Wanted::Op(op) => Command::Write { request, op },
    };
    Request::Write { command: command.to_bytes().into() }
}

enum Wanted<'a> {
    Command(Command<'a>),
    Op(WriteOp<'a>),
}

impl<'a> From<Command<'a>> for Wanted<'a> {
    fn from(command: Command<'a>) -> Self {
        Wanted::Command(command)
    }
}

impl<'a> From<WriteOp<'a>> for Wanted<'a> {
    fn from(op: WriteOp<'a>) -> Self {
        Wanted::Op(op)
    }
}

fn uses_session(request: &Request) -> bool {
    let Request::Write { command } = request else { return false };
    matches!(Command::decode(command), Ok(Command::Write { request: Some(_), .. }))
}

fn opens_session(request: &Request) -> bool {
    let Request::Write { command } = request else { return false };
    matches!(Command::decode(command), Ok(Command::OpenSession))
}

impl World {
    pub fn begin_clients(&mut self) {
        for id in 0..self.clients.prober() {
            self.act_soon(id, self.swarm.think);
        }
    }

    /// Nobody begins anything new, but the prober writes, reads, writes and reads.
    pub fn begin_probe(&mut self) {
        self.clients.probes_left = Some(4);
        self.act_soon(self.clients.prober(), MS);
    }

    fn act_soon(&mut self, id: usize, mean: Micros) {
        let at = self.now + self.clients.rng.u64(0..=2 * mean);
        self.schedule(at, Event::ClientActs(id));
    }

    /// A client asks something new, or again.
    pub fn client_acts(&mut self, id: usize) {
        if self.clients.clients[id].asking.is_none() {
            let may_begin = match self.clients.probes_left {
                None => true,
                Some(left) => id == self.clients.prober() && left > 0,
            };
            if !may_begin {
                return;
            }
            let request = self.clients.choose(id, &self.swarm);
            let asking = Asking {
                request,
                invoked: self.now,
                floor: self.clients.floor,
                ticket: None,
                node: 0,
                attempts: 0,
                is_unknown: false,
            };
            self.clients.clients[id].asking = Some(asking);
        }
        self.attempt(id);
    }

    fn attempt(&mut self, id: usize) {
        // Once all is healed, those that stay out would only cost the client's patience.
        let ids = if self.is_healed { self.core.clone() } else { self.ids().collect() };
        let clients = &mut self.clients;
        clients.last_ticket += 1;
        let ticket = clients.last_ticket << 8 | id as u64;
        let any = ids[clients.rng.usize(0..ids.len())];
        let client = &mut clients.clients[id];
        let node = client.hint.take().unwrap_or(any);
        let asking = client.asking.as_mut().expect("the client asks");
        asking.ticket = Some(ticket);
        asking.node = node;
        asking.attempts += 1;
        let request = asking.request.clone();
        let routing = if clients.rng.u32(0..3) == 0 { Routing::Redirect } else { Routing::Forward };
        let patience = clients.rng.u64(100 * MS..=800 * MS);
        self.trace.event(self.now, &[9, ticket, node], || {
            format!("client {id} asks {node}, {routing:?}, #{ticket}: {request:?}")
        });
        self.schedule(self.now + patience, Event::ClientHears(ticket, Heard::Nothing));
        if self.clients.rng.f64() < self.swarm.request_loss {
            return self.faults.add(Fault::RequestLost);
        }
        let at = self.client_latency();
        self.schedule(at, Event::Arrive(node, Input::Request { ticket, request, routing }));
    }

    fn client_latency(&mut self) -> Micros {
        let (least, most) = self.swarm.latency;
        self.now + self.clients.rng.u64(least..=most)
    }

    pub fn answer_client(&mut self, ticket: Ticket, answer: Answer) {
        if self.clients.rng.f64() < self.swarm.request_loss {
            return self.faults.add(Fault::AnswerLost);
        }
        self.tell_client(ticket, Heard::Answer(answer));
    }

    pub fn tell_client(&mut self, ticket: Ticket, heard: Heard) {
        let at = self.client_latency();
        self.schedule(at, Event::ClientHears(ticket, heard));
    }

    /// The process that some clients wait for has ended; most of them notice.
    pub fn drop_clients(&mut self, node: Number) {
        for id in 0..self.clients.clients.len() {
            let waits = self.clients.clients[id].asking.as_ref().filter(|a| a.node == node);
            let Some(ticket) = waits.and_then(|asking| asking.ticket) else { continue };
            if self.clients.rng.u32(0..4) > 0 {
                self.tell_client(ticket, Heard::Nothing);
            }
        }
    }

    pub fn client_hears(&mut self, ticket: Ticket, heard: Heard) {
        if operator::is_operators(ticket) {
            return self.operator_hears(ticket, heard);
        }
        let Some(id) = self.clients.client_of(ticket) else { return };
        self.trace.event(self.now, &[10, ticket], || format!("client {id} hears {heard:?}"));
        // One word on each attempt is enough.
        self.clients.clients[id].asking.as_mut().expect("the client asks").ticket = None;
        match heard {
            Heard::Answer(Answer::Failed(failure)) => {
                if let Some(leader) = &failure.leader {
                    self.clients.clients[id].hint = Some(leader.id);
                }
                if failure.code.outcome_is_unknown() {
                    self.outcome_unknown(id);
                } else {
                    self.not_done(id, failure.code);
                }
            }
            Heard::Answer(answer) => self.answered(id, answer),
            Heard::Refused => self.not_done(id, FailureCode::ShuttingDown),
            Heard::Nothing => self.outcome_unknown(id),
        }
    }

    /// Holds an answer against the committed log.
    fn answered(&mut self, id: usize, answer: Answer) {
        let asking = self.clients.clients[id].asking.take().expect("the client asks");
        let request = &asking.request;
        let checked = self.judge.model.check(request, &answer).and_then(|index| match answer {
            Answer::Digest { digest, .. } => self.judge.check_digest(index, digest).map(|()| index),
            _ => Ok(index),
        });
        let index = checked.unwrap_or_else(|wrong| {
            panic!("client {id} asked {request:?} and was told {answer:?}, but {wrong}")
        });
        let floor = asking.floor + u64::from(request.is_write());
        assert!(
            index >= floor,
            "linearizability: {request:?} of client {id} began when {} was answered, and {answer:?}",
            asking.floor
        );
        let lost = [Refusal::UnknownSession, Refusal::StaleSequence].map(Outcome::Refused);
        if let Answer::Written { outcome, .. } = &answer {
            assert!(!lost.contains(outcome), "the session of client {id} is lost: {answer:?}");
            if let Outcome::SessionOpened { session } = outcome {
                self.clients.clients[id].session = Some(*session);
            }
        }
        if let (Request::Read(ReadOp::Versions(keys)), Answer::Found { found, .. }) =
            (request, &answer)
            && let Found::Versions(versions) = found
        {
            let watched = keys.iter().cloned().zip(versions.iter().copied()).collect();
            self.clients.clients[id].watched = Some(watched);
        }
        self.clients.floor = self.clients.floor.max(index);
        self.clients.answered += 1;
        self.finished(id, asking, Some(answer));
    }

    fn not_done(&mut self, id: usize, code: FailureCode) {
        let asking = self.clients.clients[id].asking.as_ref().expect("the client asks");
        if asking.attempts < ATTEMPTS_MAX || self.must_succeed(id) {
            return self.act_soon(id, self.swarm.think.min(10 * MS));
        }
        let asking = self.clients.clients[id].asking.take().expect("the client asks");
        if asking.is_unknown {
            return self.finished(id, asking, None);
        }
        if let Request::Write { command } = &asking.request {
            self.judge.model.not_done(command, code_words(code));
        }
        self.act_soon(id, self.swarm.think);
    }

    fn outcome_unknown(&mut self, id: usize) {
        let must_succeed = self.must_succeed(id);
        let asking = self.clients.clients[id].asking.as_mut().expect("the client asks");
        let may_repeat = !asking.request.is_write()
            || uses_session(&asking.request)
            || opens_session(&asking.request);
        asking.is_unknown |= asking.request.is_write();
        if may_repeat && (asking.attempts < ATTEMPTS_MAX || must_succeed) {
            return self.act_soon(id, self.swarm.think.min(10 * MS));
        }
        let asking = self.clients.clients[id].asking.take().expect("the client asks");
        self.clients.unknown += 1;
        self.finished(id, asking, None);
    }

    /// Whoever uses a session, or sees whether the cluster is well, asks until there is an answer.
    fn must_succeed(&self, id: usize) -> bool {
        let client = &self.clients.clients[id];
        let asking = client.asking.as_ref().expect("the client asks");
        id == self.clients.prober() || uses_session(&asking.request)
    }

    fn finished(&mut self, id: usize, asking: Asking, answer: Option<Answer>) {
        let Asking { request, invoked, .. } = asking;
        let opened = opens_session(&request);
        let answer = answer.map(|answer| (self.now, answer));
        if !opened {
            self.clients.history.push(Record { client: id, request, invoked, answer });
        }
        if id == self.clients.prober() && !opened {
            self.clients.probes_left = self.clients.probes_left.map(|left| left - 1);
        }
        self.act_soon(id, self.swarm.think);
    }
}

fn code_words(code: FailureCode) -> &'static str {
    match code {
        FailureCode::NotLeader => "not the leader",
        FailureCode::NoLeader => "no leader",
        FailureCode::Overloaded => "overloaded",
        FailureCode::ShuttingDown => "nobody listens",
        _ => "not done",
    }
}
