//! The loop that drives all connections of `bench` on one thread, so that measuring costs little.
//!
//! *Closed loop*: each connection has a fixed number of requests under way, and sends the next one when an answer
//! comes. *Open loop* (`--rate`): requests are due at fixed moments, whether answers come or not, and latency
//! counts from that moment. A server that stalls delays requests that were not even sent; a closed loop would
//! leave them out and look good ("coordinated omission").

use super::histogram::Histogram;
use super::link::{Broken, Link, Pending};
use crate::client::parse_address;
use crate::cltraft::args::BenchPlan;
use crate::kv::{Answer, Command, Failure, FailureCode, Outcome, Request, WriteOp};
use crate::net::{ResolverConfig, resolve_blocking};
use crate::protocol::client::{ReplyBody, RequestBody};
use mio::{Events, Poll, Token};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Before a connection that broke is tried again.
const RETRY: Duration = Duration::from_millis(50);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(1);
/// The loop looks around at least this often.
const SLICE: Duration = Duration::from_millis(50);
/// After the end, requests that are under way, or were due, have so long to be answered.
const DRAIN: Duration = Duration::from_secs(5);
const EVENTS_PER_POLL: usize = 1024;
/// Different errors that are told apart, so that a server's words cannot fill the memory.
const ERRORS_MAX: usize = 32;

/// What came of it, of the requests that were due after the warm-up.
#[derive(Debug, Default)]
pub struct Results {
    pub reads: Histogram,
    pub writes: Histogram,
    /// Requests that failed, by what happened.
    pub errors: BTreeMap<String, u64>,
    /// Answered before the end: the rest had to be waited for.
    pub answered_in_time: u64,
    /// From the end of the warm-up to the end.
    pub measured: Duration,
}

impl Results {
    pub fn all(&self) -> Histogram {
        let mut all = self.reads.clone();
        all.add(&self.writes);
        all
    }

    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    fn error(&mut self, what: &str, count: u64) {
        if count == 0 {
            return;
        }
        let is_known = self.errors.contains_key(what) || self.errors.len() < ERRORS_MAX;
        let what = if is_known { what } else { "other" };
        *self.errors.entry(what.to_owned()).or_default() += count;
    }
}

pub struct Driver<'a> {
    plan: &'a BenchPlan,
    servers: Vec<String>,
    /// An answer that takes longer is given up, and its connection with it.
    timeout: Option<Duration>,
    poll: Poll,
    links: Vec<Link>,
    /// Where each link is connected to.
    connected_to: Vec<Option<SocketAddr>>,
    /// The leader, as far as is known.
    target: SocketAddr,
    next_server: usize,
    rng: fastrand::Rng,
    value: Vec<u8>,
    begun: Instant,
    measured_from: Instant,
    end: Instant,
    /// Requests of the open loop that were sent.
    sent: u64,
    /// Where the search for a link with room begins.
    next_link: usize,
    results: Results,
    /// Of the last second, for the progress line.
    recent: Recent,
}

/// Since it was last taken.
#[derive(Debug, Default)]
pub struct Recent {
    pub latencies: Histogram,
    pub errors: u64,
}

impl<'a> Driver<'a> {
    pub fn new(
        plan: &'a BenchPlan,
        servers: Vec<String>,
        leader: &str,
        timeout: Option<Duration>,
    ) -> Result<Self, String> {
        let target = resolve(leader)?;
        let poll = Poll::new().map_err(|error| format!("cannot wait for sockets: {error}"))?;
        let begun = Instant::now();
        let mut rng = fastrand::Rng::with_seed(plan.seed);
        Ok(Driver {
            plan,
            servers,
            timeout,
            poll,
            links: (0..plan.clients).map(|at| Link::new(Token(at), begun)).collect(),
            connected_to: vec![None; plan.clients],
            target,
            next_server: 0,
            value: (0..plan.value_bytes).map(|_| rng.alphanumeric() as u8).collect(),
            rng,
            begun,
            measured_from: begun + plan.warmup,
            end: begun + plan.warmup + plan.duration,
            sent: 0,
            next_link: 0,
            results: Results::default(),
            recent: Recent::default(),
        })
    }

    /// Until the end, or until `goes_on` says no; it is asked many times a second, with what happened.
    pub fn run(mut self, goes_on: &mut dyn FnMut(&mut Recent) -> bool) -> io::Result<Results> {
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        loop {
            let now = Instant::now();
            if !goes_on(&mut self.recent) {
                self.end = self.end.min(now);
                self.give_up_rest("no answer before the end");
                break;
            }
            if now >= self.end && (self.is_drained() || now >= self.end + DRAIN) {
                self.give_up_rest("no answer");
                break;
            }
            self.connect(now);
            self.issue(now);
            self.flush();
            match self.poll.poll(&mut events, Some(self.pause(now))) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                self.on_event(event.token().0, event.is_writable(), event.is_readable());
            }
            self.end_silent_links();
        }
        self.results.measured = self.end.saturating_duration_since(self.measured_from);
        Ok(self.results)
    }

    /// Of the open loop: requests that were due by now.
    fn due(&self, now: Instant) -> u64 {
        let Some(rate) = self.plan.rate else { return 0 };
        let time = now.min(self.end).saturating_duration_since(self.begun);
        (time.as_secs_f64() * rate as f64) as u64
    }

    fn is_drained(&self) -> bool {
        let is_idle = self.links.iter().all(|link| link.under_way() == 0);
        is_idle && self.sent >= self.due(self.end)
    }

    fn give_up_rest(&mut self, what: &str) {
        let now = Instant::now();
        for at in 0..self.links.len() {
            let pending = self.links[at].close(now);
            self.fail(pending, what);
        }
        let due = self.due(self.end);
        if self.plan.rate.is_some() {
            self.results
                .error("never sent: all connections were busy", due.saturating_sub(self.sent));
        }
    }

    /// When the next request is due, if that is soon.
    fn pause(&self, now: Instant) -> Duration {
        let Some(rate) = self.plan.rate.filter(|_| now < self.end) else { return SLICE };
        let next = self.begun + Duration::from_secs_f64((self.sent + 1) as f64 / rate as f64);
        let room = self.links.iter().any(|link| self.has_room(link));
        if room { next.saturating_duration_since(now).min(SLICE) } else { SLICE }
    }

    fn has_room(&self, link: &Link) -> bool {
        link.is_open() && link.under_way() < self.plan.pipeline
    }

    fn connect(&mut self, now: Instant) {
        for at in 0..self.links.len() {
            let target = self.target;
            let link = &mut self.links[at];
            // The leader is elsewhere: once what was asked here is answered.
            if link.is_open() && link.under_way() == 0 && self.connected_to[at] != Some(target) {
                link.close(now);
            }
            if link.is_closed() && link.retry_at <= now {
                self.connected_to[at] = Some(target);
                if let Err(broken) = link.connect(target, self.poll.registry()) {
                    self.broken(at, broken);
                }
            }
        }
    }

    fn issue(&mut self, now: Instant) {
        if self.plan.rate.is_some() {
            return self.issue_what_is_due(now);
        }
        if now >= self.end {
            return;
        }
        for at in 0..self.links.len() {
            while self.has_room(&self.links[at]) && self.connected_to[at] == Some(self.target) {
                self.send(at, now, now);
            }
        }
    }

    fn issue_what_is_due(&mut self, now: Instant) {
        let due = self.due(now);
        let rate = self.plan.rate.unwrap_or(1) as f64;
        let mut tried = 0;
        while self.sent < due && tried < self.links.len() {
            let at = self.next_link % self.links.len();
            self.next_link += 1;
            if !self.has_room(&self.links[at]) || self.connected_to[at] != Some(self.target) {
                tried += 1;
                continue;
            }
            tried = 0;
            self.sent += 1;
            let was_due = self.begun + Duration::from_secs_f64(self.sent as f64 / rate);
            self.send(at, was_due, now);
        }
    }

    fn send(&mut self, at: usize, due: Instant, now: Instant) {
        let key = format!("bench/{}", self.rng.u64(0..self.plan.keys));
        let is_read = self.rng.u64(0..100) < self.plan.reads_percent;
        let request = if is_read {
            Request::Get { key: key.as_bytes().into() }
        } else {
            let op = WriteOp::Put { key: key.as_bytes(), value: &self.value };
            // Without a session: nothing is repeated here.
            let command = Command::Write { request: None, op }.to_bytes();
            Request::Write { command: command.into() }
        };
        self.links[at].send(RequestBody::Ask(request), Pending { due, sent: now, is_read });
    }

    fn flush(&mut self) {
        for at in 0..self.links.len() {
            if let Err(broken) = self.links[at].flush() {
                self.broken(at, broken);
            }
        }
    }

    fn on_event(&mut self, at: usize, is_writable: bool, is_readable: bool) {
        if is_writable && let Err(broken) = self.links[at].writable() {
            return self.broken(at, broken);
        }
        if !is_readable {
            return;
        }
        let mut answers = Vec::new();
        let result = self.links[at].readable(&mut |pending, body| answers.push((pending, body)));
        let now = Instant::now();
        for (pending, body) in answers {
            self.answered(at, pending, &body, now);
        }
        if let Err(broken) = result {
            self.broken(at, broken);
        }
    }

    fn answered(&mut self, at: usize, pending: Pending, body: &ReplyBody, now: Instant) {
        match body {
            ReplyBody::Answer(Answer::Failed(failure)) => {
                self.fail([pending], failure.code.in_words());
                self.redirected(at, failure);
            }
            ReplyBody::Answer(Answer::Value { .. }) if pending.is_read => self.count(pending, now),
            ReplyBody::Answer(Answer::Written { outcome: Outcome::Put, .. })
                if !pending.is_read =>
            {
                self.count(pending, now);
            }
            _ => self.fail([pending], "an answer that makes no sense"),
        }
    }

    fn count(&mut self, pending: Pending, now: Instant) {
        let latency = now.saturating_duration_since(pending.due);
        self.recent.latencies.record(latency);
        if pending.due < self.measured_from {
            return;
        }
        let results = &mut self.results;
        if pending.is_read { &mut results.reads } else { &mut results.writes }.record(latency);
        results.answered_in_time += u64::from(now <= self.end);
    }

    fn fail(&mut self, pending: impl IntoIterator<Item = Pending>, what: &str) {
        let mut counted = 0;
        for request in pending {
            self.recent.errors += 1;
            counted += u64::from(request.due >= self.measured_from);
        }
        self.results.error(what, counted);
    }

    fn redirected(&mut self, at: usize, failure: &Failure) {
        if !matches!(failure.code, FailureCode::NotLeader | FailureCode::NoLeader)
            || self.connected_to[at] != Some(self.target)
        {
            return;
        }
        let hint = failure.leader.as_ref().and_then(|leader| resolve(&leader.address).ok());
        match hint {
            Some(address) => self.target = address,
            None => self.try_next_server(),
        }
        // Asking the same one again at once would only be refused again.
        let retry_at = Instant::now() + RETRY;
        self.links[at].retry_at = retry_at;
    }

    fn broken(&mut self, at: usize, Broken(reason): Broken) {
        let pending = self.links[at].close(Instant::now() + RETRY);
        self.fail(pending, &format!("connection lost: {reason}"));
        if self.connected_to[at] == Some(self.target) {
            self.try_next_server();
        }
    }

    fn try_next_server(&mut self) {
        for _ in 0..self.servers.len() {
            let server = &self.servers[self.next_server % self.servers.len()];
            self.next_server += 1;
            if let Ok(address) = resolve(server) {
                self.target = address;
                return;
            }
        }
    }

    /// A server that hangs closes nothing.
    fn end_silent_links(&mut self) {
        let Some(timeout) = self.timeout else { return };
        let now = Instant::now();
        for at in 0..self.links.len() {
            let oldest = self.links[at].oldest();
            if oldest.is_some_and(|sent| now.saturating_duration_since(sent) > timeout) {
                let pending = self.links[at].close(now + RETRY);
                self.fail(pending, &format!("no answer within {timeout:?}"));
                self.try_next_server();
            }
        }
    }
}

fn resolve(server: &str) -> Result<SocketAddr, String> {
    let (host, port) = parse_address(server, None)?;
    let until = Instant::now() + RESOLVE_TIMEOUT;
    let addresses = resolve_blocking(&host, port, &ResolverConfig::default(), until)?;
    addresses.first().copied().ok_or(format!("{host} has no address"))
}
