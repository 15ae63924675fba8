//! Keeping peers connected: look up, connect, try again.
//!
//! The dialer holds one small state machine for each peer and decides; the loop opens the sockets. Time
//! passes only in [`Dialer::poll`]: what happens to a socket is noted when it happens, and what follows
//! from it is done at the next poll.
//!
//! An *attempt* is one look-up and one try at each address that it found. It ends connected, or in one
//! [`DialStep::Failed`]. Attempts go on for ever, with growing pauses, and the pause is forgotten only when
//! the peer has spoken: a forwarder that accepts everything and closes it again is no peer.

use super::resolver::{Progress, Query};
use super::{ConnId, DNS_TOKEN, NetConfig, PeerAddress, ResolverConfig};
use crate::ordered::Few;
use mio::Registry;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Attempts without a pause before them: the first one, and one more at once.
const PROMPT_ATTEMPTS: u32 = 2;
/// The first pause. Jitter makes every pause shorter, by up to three fifths.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// An address that has not answered for so long is asked by one socket more, which asks at once, while the kernel
/// would repeat the first one's question after a second: a storm of other connections leaves a full queue there,
/// which takes one in many and drops the others in silence.
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(25);

/// Attempts of one probe. A process that ends closes its sockets one after the other, the listening one
/// maybe last, so a first attempt may still find it open.
const PROBE_ATTEMPTS: u32 = 8;
/// Between two attempts of a probe.
const PROBE_PAUSE: Duration = Duration::from_millis(5);

/// What the loop must do for the dialer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DialStep {
    /// Open a socket to this address; answer with `connecting` or `connect_failed`.
    Connect { peer: u64, to: SocketAddr },
    /// Close this socket: it took too long to connect.
    Abandon { conn: ConnId },
    /// An attempt ended without a connection.
    Failed { peer: u64, refused: bool, reason: String },
}

#[derive(Debug)]
pub(super) struct Dialer {
    peers: Few<u64, Peer>,
    resolver: ResolverConfig,
    connect_timeout: Duration,
    redial_max: Duration,
    random: fastrand::Rng,
}

#[derive(Debug)]
struct Peer {
    address: PeerAddress,
    /// To be kept connected.
    wanted: bool,
    /// Attempts of a probe that are still to be made; one that fails is the last, unless a process there was ending.
    probes_left: u32,
    /// Where the peer came from when it last came to us.
    hint: Option<IpAddr>,
    /// A connection that the peer made to us.
    attached: Option<ConnId>,
    state: State,
    /// Sockets of a dial that has ended, to be closed with the next poll.
    superfluous: Vec<ConnId>,
    /// Attempts in a row that brought no word of the peer.
    failures: u32,
    failing_since: Option<Instant>,
    attempt: Attempt,
    /// What came of the last attempt; empty if nothing bad.
    last_problem: String,
}

/// What the attempt under way has met so far.
#[derive(Debug, Default)]
struct Attempt {
    problems: Vec<String>,
    /// Something else than a refusal was among them.
    unclear: bool,
    /// A process there took the connection as it ended: whatever it was, it is about to be clear.
    reset: bool,
}

#[derive(Debug)]
enum State {
    /// No attempt under way, none planned.
    Idle,
    /// The last attempt or connection has ended; the pause begins with the next poll.
    Ended,
    Pausing {
        until: Instant,
    },
    Resolving {
        query: Box<Query>,
        until: Instant,
    },
    /// Addresses to try, in order.
    Trying {
        rest: VecDeque<SocketAddr>,
    },
    Connecting(Connecting),
    Connected {
        conn: ConnId,
    },
}

#[derive(Debug)]
struct Connecting {
    /// All to the same address; the first one that connects is kept.
    conns: Vec<ConnId>,
    to: SocketAddr,
    rest: VecDeque<SocketAddr>,
    /// When there is to be one more.
    next: Instant,
    until: Instant,
}

impl Dialer {
    pub(super) fn new(config: &NetConfig) -> Dialer {
        let peers = config.peers.iter().map(|address| (address.id, Peer::new(address.clone())));
        Dialer {
            peers: peers.collect(),
            resolver: config.resolver.clone(),
            connect_timeout: config.connect_timeout,
            redial_max: config.redial_max,
            random: fastrand::Rng::with_seed(config.seed),
        }
    }

    /// From now on this peer is kept connected.
    pub(super) fn dial(&mut self, peer: u64, now: Instant) {
        let peer = self.peer(peer);
        peer.wanted = true;
        if matches!(peer.state, State::Idle) {
            peer.state = State::Pausing { until: now };
        }
    }

    /// There is such a peer, and it is to be found here.
    pub(super) fn know(&mut self, address: PeerAddress) {
        match self.peers.get_mut(&address.id) {
            Some(peer) => peer.address = address,
            None => drop(self.peers.insert(address.id, Peer::new(address))),
        }
    }

    /// This peer came by itself, has gone, and nobody will ask for it.
    pub(super) fn forget(&mut self, peer: u64) {
        let is_idle = |peer: &Peer| {
            let is_over = matches!(peer.state, State::Idle) && peer.superfluous.is_empty();
            is_over && peer.attached.is_none() && !peer.wanted && peer.probes_left == 0
        };
        if self.peers.get(&peer).is_some_and(is_idle) {
            self.peers.remove(&peer);
        }
    }

    /// Whether it is known where this peer is to be found.
    pub(super) fn has_address(&self, peer: u64) -> bool {
        self.peers.get(&peer).is_some_and(|peer| !peer.address.host.is_empty())
    }

    /// This peer need not be kept connected any more; a connection that is there stays.
    pub(super) fn leave(&mut self, peer: u64) {
        self.peer(peer).wanted = false;
    }

    /// A few attempts from now on, until one is refused. One that is under way will do; a connection
    /// needs none.
    pub(super) fn probe(&mut self, peer: u64, now: Instant) {
        let peer = self.peer(peer);
        if matches!(peer.state, State::Connected { .. }) {
            return;
        }
        peer.probes_left = PROBE_ATTEMPTS;
        if matches!(peer.state, State::Idle | State::Ended | State::Pausing { .. }) {
            peer.state = State::Pausing { until: now };
        }
    }

    /// The peer came to us from this address: worth a try where its name leads nowhere.
    pub(super) fn remember_address(&mut self, peer: u64, address: IpAddr) {
        self.peer(peer).hint = Some(address);
    }

    /// The peer's own connection to us is this one.
    pub(super) fn attached(&mut self, peer: u64, conn: ConnId) {
        let peer = self.peer(peer);
        peer.attached = Some(conn);
        peer.probes_left = 0;
    }

    /// The loop's answer to [`DialStep::Connect`].
    pub(super) fn connecting(&mut self, peer: u64, socket: ConnId) {
        if let State::Connecting(Connecting { conns, .. }) = &mut self.peer(peer).state {
            conns.push(socket);
        }
    }

    /// The other answer to it, at once or later.
    pub(super) fn connect_failed(&mut self, peer: u64, error: &io::Error) {
        let peer = self.peer(peer);
        if let Some(Connecting { to, rest, .. }) = peer.take_connecting(None) {
            if error.kind() == ErrorKind::ConnectionRefused {
                peer.attempt.problems.push(format!("refused by {to}"));
            } else {
                peer.attempt.unclear(format!("{to}: {error}"));
                peer.attempt.reset |= error.kind() == ErrorKind::ConnectionReset;
            }
            peer.state = State::Trying { rest };
        }
    }

    /// The socket is connected. True if it is to be kept; not so that of a probe, or another one was earlier.
    pub(super) fn connected(&mut self, peer: u64, conn: ConnId) -> bool {
        let peer = self.peer(peer);
        if peer.take_connecting(Some(conn)).is_none() {
            return false;
        }
        peer.probes_left = peer.probes_left.saturating_sub(1);
        // Taken back when the peer speaks.
        peer.failures = peer.failures.saturating_add(1);
        peer.state = if peer.wanted { State::Connected { conn } } else { State::Ended };
        if !peer.wanted {
            peer.all_is_well();
        }
        peer.wanted
    }

    /// The peer has shown on this connection that it is the peer.
    pub(super) fn spoken(&mut self, peer: u64) {
        self.peer(peer).all_is_well();
    }

    /// A connection to or from this peer is gone.
    pub(super) fn closed(&mut self, peer: u64, gone: ConnId) {
        let Some(peer) = self.peers.get_mut(&peer) else { return };
        if peer.attached == Some(gone) {
            peer.attached = None;
        }
        if matches!(peer.state, State::Connected { conn } if conn == gone) {
            peer.last_problem = "connection lost".to_string();
            peer.state = State::Ended;
        }
    }

    /// Lets time pass, and appends what the loop must do.
    pub(super) fn poll(&mut self, registry: &Registry, now: Instant, steps: &mut Vec<DialStep>) {
        let (resolver, random) = (&self.resolver, &mut self.random);
        let (connect_timeout, redial_max) = (self.connect_timeout, self.redial_max);
        let mut turn = Turn { registry, now, resolver, connect_timeout, redial_max, random, steps };
        for peer in self.peers.values_mut() {
            while peer.advance(&mut turn) {}
            let superfluous = peer.superfluous.drain(..);
            turn.steps.extend(superfluous.map(|conn| DialStep::Abandon { conn }));
        }
    }

    /// When the next poll is due; `now` if something has happened that it must deal with.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let due = self.peers.values().filter_map(|peer| match &peer.state {
            _ if !peer.superfluous.is_empty() => Some(now),
            State::Idle | State::Connected { .. } => None,
            State::Ended | State::Trying { .. } => Some(now),
            State::Pausing { .. } if peer.attached.is_some() => None,
            State::Pausing { until } | State::Resolving { until, .. } => Some(*until),
            State::Connecting(connecting) => Some(connecting.next.min(connecting.until)),
        });
        due.min()
    }

    /// How it stands with a peer, in words.
    pub(super) fn describe(&self, peer: u64, now: Instant) -> String {
        match self.peers.get(&peer) {
            Some(peer) => peer.describe(now),
            None => "not in the configuration".to_string(),
        }
    }

    /// # Panics
    /// If the peer is not in the configuration: that is where the caller has its ids from.
    #[inline(never)]
    fn peer(&mut self, peer: u64) -> &mut Peer {
        let known = self.peers.get_mut(&peer);
        known.unwrap_or_else(|| panic!("peer {peer} is not in the configuration"))
    }
}

/// What a peer needs to take its next step.
struct Turn<'a> {
    registry: &'a Registry,
    now: Instant,
    resolver: &'a ResolverConfig,
    connect_timeout: Duration,
    redial_max: Duration,
    random: &'a mut fastrand::Rng,
    steps: &'a mut Vec<DialStep>,
}

impl Turn<'_> {
    /// The pause after so many attempts in vain.
    fn pause(&mut self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(PROMPT_ATTEMPTS) else { return Duration::ZERO };
        let longest = FIRST_PAUSE
            .saturating_mul(1 << doublings.min(20))
            .min(self.redial_max.max(FIRST_PAUSE));
        longest.mul_f64(1.0 - 0.6 * self.random.f64())
    }
}

impl Attempt {
    fn unclear(&mut self, problem: String) {
        self.problems.push(problem);
        self.unclear = true;
    }
}

impl Peer {
    fn new(address: PeerAddress) -> Peer {
        Peer {
            address,
            wanted: false,
            probes_left: 0,
            hint: None,
            attached: None,
            state: State::Idle,
            superfluous: Vec::new(),
            failures: 0,
            failing_since: None,
            attempt: Attempt::default(),
            last_problem: String::new(),
        }
    }

    /// Goes one state on if it is time. False if there is nothing to do but wait.
    fn advance(&mut self, turn: &mut Turn) -> bool {
        match &mut self.state {
            State::Idle | State::Connected { .. } => false,
            State::Ended if self.wanted => {
                self.state = State::Pausing { until: turn.now + turn.pause(self.failures) };
                true
            }
            State::Ended if self.probes_left > 0 => {
                self.state = State::Pausing { until: turn.now + PROBE_PAUSE };
                true
            }
            State::Ended => {
                self.state = State::Idle;
                false
            }
            State::Pausing { .. } if !self.wanted && self.probes_left == 0 => {
                self.state = State::Idle;
                false
            }
            // It has come by itself.
            State::Pausing { .. } if self.attached.is_some() => false,
            State::Pausing { until } if *until <= turn.now => {
                let host = &self.address.host;
                let seed = turn.random.u64(..);
                let query = Box::new(Query::new(host, turn.resolver, seed, DNS_TOKEN));
                self.attempt = Attempt::default();
                self.state = State::Resolving { query, until: turn.now };
                true
            }
            State::Pausing { .. } => false,
            State::Resolving { query, until } => match query.drive(turn.registry, turn.now) {
                Progress::Pending(next) => {
                    *until = next;
                    false
                }
                Progress::Done(found) => self.try_addresses(found),
                Progress::Failed(reason) => {
                    self.attempt.unclear(reason);
                    self.try_addresses(Vec::new())
                }
            },
            State::Trying { rest } => match rest.pop_front() {
                Some(to) => {
                    let (rest, until) = (std::mem::take(rest), turn.now + turn.connect_timeout);
                    let (conns, next) = (Vec::new(), turn.now);
                    self.state = State::Connecting(Connecting { conns, to, rest, next, until });
                    true
                }
                None => self.end_attempt(turn),
            },
            State::Connecting(connecting) if connecting.until <= turn.now => {
                self.give_up_connecting(turn)
            }
            State::Connecting(connecting) => {
                if connecting.next <= turn.now {
                    connecting.next = turn.now + ASKED_AGAIN_AFTER;
                    let to = connecting.to;
                    turn.steps.push(DialStep::Connect { peer: self.address.id, to });
                }
                false
            }
        }
    }

    fn try_addresses(&mut self, mut found: Vec<IpAddr>) -> bool {
        found.extend(self.hint.filter(|hint| !found.contains(hint)));
        let port = self.address.port;
        let rest = found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
        self.state = State::Trying { rest };
        true
    }

    fn give_up_connecting(&mut self, turn: &mut Turn) -> bool {
        let Some(Connecting { to, rest, .. }) = self.take_connecting(None) else { return false };
        self.attempt.unclear(format!("no answer from {to} for {}", seconds(turn.connect_timeout)));
        self.state = State::Trying { rest };
        true
    }

    fn end_attempt(&mut self, turn: &mut Turn) -> bool {
        let Attempt { problems, unclear, reset } = std::mem::take(&mut self.attempt);
        self.last_problem = problems.join("; ");
        self.failures = self.failures.saturating_add(1);
        self.failing_since.get_or_insert(turn.now);
        self.probes_left = if reset { self.probes_left.saturating_sub(1) } else { 0 };
        self.state = State::Ended;
        let (peer, reason) = (self.address.id, self.last_problem.clone());
        turn.steps.push(DialStep::Failed { peer, refused: !unclear, reason });
        true
    }

    /// Ends it; all its sockets but `kept` are to be closed.
    fn take_connecting(&mut self, kept: Option<ConnId>) -> Option<Connecting> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Connecting(connecting) => {
                let others = connecting.conns.iter().filter(|conn| Some(**conn) != kept);
                self.superfluous.extend(others);
                Some(connecting)
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    fn all_is_well(&mut self) {
        self.failures = 0;
        self.failing_since = None;
        self.last_problem.clear();
    }

    fn describe(&self, now: Instant) -> String {
        let failing = match self.failing_since {
            Some(since) => format!(" for {}", seconds(now.saturating_duration_since(since))),
            None => String::new(),
        };
        let problem =
            if self.last_problem.is_empty() { "not connected" } else { &self.last_problem };
        match &self.state {
            State::Connected { .. } => "connected".to_string(),
            _ if self.attached.is_some() => "connected".to_string(),
            State::Idle | State::Ended => format!("{problem}{failing}"),
            State::Pausing { until } => {
                let pause = seconds(until.saturating_duration_since(now));
                format!("{problem}{failing}, next try in {pause}")
            }
            State::Resolving { query, .. } => match query.trouble() {
                Some(trouble) => format!("resolving {}: {trouble}{failing}", self.address.host),
                None => format!("resolving {}{failing}", self.address.host),
            },
            State::Trying { .. } => format!("connecting to {}", self.address.host),
            State::Connecting(connecting) => format!("connecting to {}{failing}", connecting.to),
        }
    }
}

/// A duration for a person: `0.3 s`, `12 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    let ms = duration.as_millis();
    let tenths = (ms + 50) / 100;
    if tenths < 100 {
        format!("{}.{} s", tenths / 10, tenths % 10)
    } else {
        format!("{} s", (ms + 500) / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    /// It knows the peer 1, at this address.
    fn dialer_and_peer() -> (Dialer, SocketAddr) {
        let host = Ipv4Addr::LOCALHOST.to_string();
        let address = PeerAddress { id: 1, name: "raft-1".to_string(), host, port: 1 };
        let dialer = Dialer {
            peers: [(1, Peer::new(address))].into(),
            resolver: ResolverConfig::default(),
            connect_timeout: Duration::from_millis(100),
            redial_max: Duration::from_secs(1),
            random: fastrand::Rng::with_seed(0),
        };
        (dialer, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)))
    }

    fn steps(dialer: &mut Dialer, now: Instant) -> Vec<DialStep> {
        let poll = mio::Poll::new().expect("a poll");
        let mut steps = Vec::new();
        dialer.poll(poll.registry(), now, &mut steps);
        steps
    }

    /// An address that says nothing is asked by one socket after the other; returns these, and the present time.
    fn asked_in_vain(dialer: &mut Dialer, to: SocketAddr) -> (Vec<ConnId>, Instant) {
        let mut now = Instant::now();
        dialer.dial(1, now);
        let conns: Vec<ConnId> = (0..4).map(ConnId::for_test).collect();
        for conn in &conns {
            assert_eq!(steps(dialer, now), [DialStep::Connect { peer: 1, to }]);
            dialer.connecting(1, *conn);
            assert_eq!(steps(dialer, now), [], "not before it is time");
            now += ASKED_AGAIN_AFTER;
            assert_eq!(dialer.deadline(now), Some(now));
        }
        (conns, now)
    }

    fn abandoned(conns: &[ConnId]) -> Vec<DialStep> {
        conns.iter().map(|conn| DialStep::Abandon { conn: *conn }).collect()
    }

    #[test]
    fn a_duration_for_a_person_is_rounded() {
        let said = |ms| seconds(Duration::from_millis(ms));
        assert_eq!([49, 50, 1249, 9949].map(said), ["0.0 s", "0.1 s", "1.2 s", "9.9 s"]);
        assert_eq!([9950, 12_499, 12_500].map(said), ["10 s", "12 s", "13 s"]);
    }

    #[test]
    fn of_several_sockets_that_ask_one_address_the_first_that_connects_is_kept() {
        let (mut dialer, to) = dialer_and_peer();
        let (conns, now) = asked_in_vain(&mut dialer, to);
        assert!(dialer.connected(1, conns[2]));
        assert!(!dialer.connected(1, conns[3]), "there is one already");
        assert_eq!(dialer.deadline(now), Some(now), "the others are to be closed");
        let others: Vec<ConnId> = conns.into_iter().filter(|conn| conn.slot() != 2).collect();
        assert_eq!(steps(&mut dialer, now), abandoned(&others));
        assert_eq!((steps(&mut dialer, now), dialer.deadline(now)), (vec![], None));
    }

    #[test]
    fn an_address_that_does_not_answer_is_given_up_with_all_that_asked_it() {
        let (mut dialer, to) = dialer_and_peer();
        let (conns, now) = asked_in_vain(&mut dialer, to);
        let mut steps = steps(&mut dialer, now);
        steps.retain(|step| matches!(step, DialStep::Abandon { .. }));
        assert_eq!(steps, abandoned(&conns));
    }

    #[test]
    fn one_refusal_is_the_answer_to_all_that_asked() {
        let (mut dialer, to) = dialer_and_peer();
        let (conns, now) = asked_in_vain(&mut dialer, to);
        dialer.connect_failed(1, &ErrorKind::ConnectionRefused.into());
        let mut steps = steps(&mut dialer, now);
        assert!(matches!(steps[0], DialStep::Failed { refused: true, .. }), "{steps:?}");
        steps.retain(|step| matches!(step, DialStep::Abandon { .. }));
        assert_eq!(steps, abandoned(&conns));
    }

    #[test]
    fn a_probe_that_meets_a_process_at_its_end_is_made_again_until_it_is_refused() {
        let poll = mio::Poll::new().expect("a poll");
        let (mut dialer, to) = dialer_and_peer();
        let mut now = Instant::now();
        dialer.probe(1, now);
        for (kind, is_refused) in
            [(ErrorKind::ConnectionReset, false), (ErrorKind::ConnectionRefused, true)]
        {
            let mut steps = Vec::new();
            dialer.poll(poll.registry(), now, &mut steps);
            assert_eq!(steps, [DialStep::Connect { peer: 1, to }]);
            dialer.connect_failed(1, &kind.into());
            let mut steps = Vec::new();
            dialer.poll(poll.registry(), now, &mut steps);
            let ended = matches!(steps[..], [DialStep::Failed { peer: 1, refused, .. }] if refused == is_refused);
            assert!(ended, "{steps:?}");
            now += PROBE_PAUSE;
        }
        let mut steps = Vec::new();
        dialer.poll(poll.registry(), now, &mut steps);
        assert_eq!(steps, [], "what was refused is not asked again");
    }

    #[test]
    fn a_peer_that_came_by_itself_is_forgotten_when_it_has_gone_and_one_that_is_dialled_is_not() {
        let (mut dialer, _) = dialer_and_peer();
        let conn = ConnId::for_test(0);
        let host = String::new();
        dialer.know(PeerAddress { id: 2, name: "raft-2".to_string(), host, port: 0 });
        dialer.attached(2, conn);
        dialer.forget(2);
        assert!(dialer.peers.contains_key(&2), "it is connected");
        dialer.closed(2, conn);
        dialer.forget(2);
        assert!(!dialer.peers.contains_key(&2));
        dialer.closed(2, conn);
        dialer.dial(1, Instant::now());
        dialer.forget(1);
        assert!(dialer.peers.contains_key(&1));
    }
}
