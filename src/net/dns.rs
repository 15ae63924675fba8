//! Names to addresses, as a state machine without a socket.
//!
//! `getaddrinfo` blocks its caller and does not work in a static binary, so the look-up is ours. A
//! [`Lookup`] says which packet to send where ([`Step::Send`]), is told of each packet that arrives
//! ([`Lookup::on_packet`]), and of the time with every call. The poll loop and the blocking client drive
//! the same machine, each with its own sockets.
//!
//! A name stands for several full names (search domains). They are asked for one after the other; for
//! each of them A and AAAA go out side by side. "No such name" and "no address" lead to the next full name;
//! an error or silence of a server leads to the next server, round after round. When all servers are silent
//! the look-up fails: that is about the servers, and more names would only take longer.
//!
//! Missing on purpose: TCP for truncated answers, EDNS, DNSSEC, and a cache. Every dial looks its name up
//! anew, since a pod that comes back has another address.

mod config;
mod packet;

pub use config::{HOST_NAME_MAX, Hosts, NAMESERVERS_MAX, ResolvConf, SEARCH_DOMAINS_MAX};
pub use config::{is_host_name, literal};

use packet::{Answer, Kind};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Addresses kept of one name.
pub const ADDRESSES_MAX: usize = 16;
/// The longest packet that a name server may send: without EDNS 512 bytes, and some do not keep to it.
pub const PACKET_MAX: usize = 4096;
/// How long a second answer is waited for once the first one has brought addresses (RFC 8305, 3).
const SECOND_ANSWER_WAIT: Duration = Duration::from_millis(50);

/// What a look-up wants next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send this, then ask again.
    Send { server: SocketAddr, packet: Vec<u8> },
    /// Nothing to do until a packet arrives or this moment has come.
    WaitUntil(Instant),
    /// The addresses, never none, IPv4 first.
    Done(Vec<IpAddr>),
    /// What was asked and what came of it, for a person.
    Failed(String),
}

/// One name on its way to its addresses.
#[derive(Debug)]
pub struct Lookup {
    host: String,
    servers: Vec<SocketAddr>,
    timeout: Duration,
    tries_max: u32,
    random: fastrand::Rng,
    /// Full names still to ask for.
    names: VecDeque<String>,
    /// The full name that is being asked for.
    name: String,
    questions: [Question; 2],
    /// When addresses of one kind are enough.
    enough_at: Option<Instant>,
    /// What came of the names so far.
    problems: Vec<String>,
    finished: Option<Result<Vec<IpAddr>, String>>,
}

/// One of the two questions about a name.
#[derive(Debug)]
struct Question {
    kind: Kind,
    /// Packets sent; also chooses the server.
    tries: u32,
    /// Where packets went, with their ids: a slow server's answer still counts after its time-out.
    sent: Vec<(SocketAddr, u16)>,
    state: Asking,
    /// What the last server did instead of answering.
    problem: String,
    /// Whether any server has said anything at all.
    heard: bool,
}

#[derive(Debug)]
enum Asking {
    ToSend,
    Sent {
        server: SocketAddr,
        until: Instant,
    },
    Answered(Answer),
    /// Every server had its turns.
    Exhausted,
}

impl Question {
    fn new(kind: Kind) -> Question {
        let (sent, state, problem) = (Vec::new(), Asking::ToSend, String::new());
        Question { kind, tries: 0, sent, state, problem, heard: false }
    }

    fn addresses(&self) -> &[IpAddr] {
        match &self.state {
            Asking::Answered(Answer::Addresses(addresses)) => addresses,
            _ => &[],
        }
    }

    fn settled(&self) -> bool {
        matches!(self.state, Asking::Answered(_) | Asking::Exhausted)
    }

    /// The server asked last is of no use: on to the next one, if it still has a turn.
    fn next_server(&mut self, problem: String, tries_max: u32) {
        self.problem = problem;
        self.state = if self.tries < tries_max { Asking::ToSend } else { Asking::Exhausted };
    }
}

impl Lookup {
    /// Begins to look up `host`: an address, a name in `hosts`, or a name to ask the servers for.
    /// `seed` makes the query ids; it must be another one for every look-up, and hard to guess.
    pub fn new(host: &str, conf: &ResolvConf, hosts: &Hosts, seed: u64) -> Lookup {
        let mut lookup = Lookup {
            host: host.to_string(),
            servers: conf.nameservers.clone(),
            timeout: conf.timeout,
            tries_max: conf.attempts * conf.nameservers.len() as u32,
            random: fastrand::Rng::with_seed(seed),
            names: VecDeque::new(),
            name: String::new(),
            questions: [Question::new(Kind::A), Question::new(Kind::Aaaa)],
            enough_at: None,
            problems: Vec::new(),
            finished: None,
        };
        if let Some(address) = literal(host) {
            lookup.finished = Some(Ok(vec![address]));
        } else if !is_host_name(host) {
            lookup.finished = Some(Err(format!("{host:?} is not a host name")));
        } else {
            let known = hosts.get(host);
            if known.is_empty() {
                lookup.names = conf.candidates(host).into();
                lookup.next_name();
            } else {
                lookup.finished = Some(Ok(in_order(known)));
            }
        }
        lookup
    }

    /// What to do now. Call it again after every `Send`, and after every packet.
    pub fn poll(&mut self, now: Instant) -> Step {
        self.expire(now);
        loop {
            match &self.finished {
                Some(Ok(addresses)) => return Step::Done(addresses.clone()),
                Some(Err(reason)) => return Step::Failed(reason.clone()),
                None => {}
            }
            if let Some(step) = self.send(now) {
                return step;
            }
            if !self.conclude(now) {
                return Step::WaitUntil(self.deadline(now));
            }
        }
    }

    /// Takes a packet that came from `from`. One that answers nothing we asked is ignored.
    pub fn on_packet(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) {
        let Some(id) = packet::id(bytes).filter(|_| self.finished.is_none()) else { return };
        let tries_max = self.tries_max;
        for question in &mut self.questions {
            if question.settled() || !question.sent.contains(&(from, id)) {
                continue;
            }
            let Some(answer) = packet::read_answer(bytes, &self.name, question.kind) else {
                continue;
            };
            question.heard = true;
            match answer {
                Answer::ServerFailed(word) => {
                    // Of a server that was given up before, this is no news.
                    if matches!(question.state, Asking::Sent { server, .. } if server == from) {
                        question.next_server(format!("{from} answered {word}"), tries_max);
                    }
                }
                answer => {
                    if matches!(answer, Answer::Addresses(_)) && self.enough_at.is_none() {
                        self.enough_at = Some(now + SECOND_ANSWER_WAIT);
                    }
                    question.state = Asking::Answered(answer);
                }
            }
        }
    }

    /// A packet could not be sent to this server, or was refused there.
    pub fn on_unreachable(&mut self, server: SocketAddr, reason: &str) {
        let tries_max = self.tries_max;
        for question in &mut self.questions {
            if matches!(question.state, Asking::Sent { server: asked, .. } if asked == server) {
                question.next_server(format!("{server} cannot be asked: {reason}"), tries_max);
            }
        }
    }

    /// What holds the look-up up, for a person: the last trouble with a server.
    pub fn trouble(&self) -> Option<&str> {
        let unsettled = self.questions.iter().filter(|question| !question.settled());
        unsettled.map(|question| question.problem.as_str()).find(|problem| !problem.is_empty())
    }

    fn expire(&mut self, now: Instant) {
        let tries_max = self.tries_max;
        for question in &mut self.questions {
            if let Asking::Sent { server, until } = question.state
                && until <= now
            {
                question.next_server(format!("no answer from {server}"), tries_max);
            }
        }
    }

    fn send(&mut self, now: Instant) -> Option<Step> {
        let due = |question: &&mut Question| matches!(question.state, Asking::ToSend);
        let question = self.questions.iter_mut().find(due)?;
        let server = self.servers[question.tries as usize % self.servers.len()];
        let id = self.random.u16(..);
        question.tries += 1;
        match packet::query(id, &self.name, question.kind) {
            Some(packet) => {
                question.sent.push((server, id));
                question.state = Asking::Sent { server, until: now + self.timeout };
                Some(Step::Send { server, packet })
            }
            None => {
                question.state = Asking::Answered(Answer::NoSuchName);
                None
            }
        }
    }

    /// Draws the conclusion from the answers. False if there is none yet.
    fn conclude(&mut self, now: Instant) -> bool {
        let [a, aaaa] = &self.questions;
        let found: Vec<IpAddr> = a.addresses().iter().chain(aaaa.addresses()).copied().collect();
        let both = a.settled() && aaaa.settled();
        if !found.is_empty() {
            let enough = both || self.enough_at.is_some_and(|moment| moment <= now);
            if enough {
                self.finished = Some(Ok(in_order(found)));
            }
            return enough;
        }
        // NXDOMAIN is about every kind. Some servers say it wrongly for AAAA, none for A.
        if !both && !matches!(a.state, Asking::Answered(Answer::NoSuchName)) {
            return false;
        }
        let silent = |q: &Question| matches!(q.state, Asking::Exhausted) && !q.heard;
        if silent(a) && silent(aaaa) {
            self.finished = Some(Err(format!("{}: {}", self.host, a.problem)));
            return true;
        }
        self.problems.push(format!("{}: {}", self.name, outcome(a, aaaa)));
        self.next_name();
        true
    }

    fn next_name(&mut self) {
        self.questions = [Question::new(Kind::A), Question::new(Kind::Aaaa)];
        self.enough_at = None;
        match self.names.pop_front() {
            Some(name) => self.name = name,
            None => self.finished = Some(Err(self.problems.join("; "))),
        }
    }

    fn deadline(&self, now: Instant) -> Instant {
        let sent = self.questions.iter().filter_map(|question| match question.state {
            Asking::Sent { until, .. } => Some(until),
            _ => None,
        });
        // With nothing sent and nothing to conclude there would be no moment; then the caller asks again.
        sent.chain(self.enough_at).min().unwrap_or(now)
    }
}

/// What came of a name without addresses, in words.
fn outcome<'a>(a: &'a Question, aaaa: &'a Question) -> &'a str {
    let outcomes = [a, aaaa].map(|question| match &question.state {
        Asking::Exhausted => (0, question.problem.as_str()),
        Asking::Answered(Answer::Truncated) => (1, "the answer is too long for one packet"),
        Asking::Answered(Answer::NoSuchName) => (2, "no such name"),
        _ => (3, "no address"),
    });
    outcomes.into_iter().min().map_or("no address", |(_, words)| words)
}

fn in_order(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut seen = Vec::new();
    addresses.retain(|address| !seen.contains(address) && (seen.push(*address), true).1);
    let (v6, mut addresses): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    addresses.extend(v6);
    addresses.truncate(ADDRESSES_MAX);
    addresses
}
