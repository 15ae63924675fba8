//! Connections between the nodes, and what happens to messages on them.
//!
//! A connection is made by the node with the higher number, breaks when a process ends, when it is silent for
//! too long, or for no reason, and each side learns of that in its own time, as on TCP. Messages of Raft are
//! treated worse than TCP would in most runs: they are lost, overtake each other, come twice, or come after
//! their connection is gone. Forwarded requests are not: that they arrive at most once, and at the process
//! that was meant, is what the connection is for.

use super::faults::{Fault, Swarm};
use super::turn::{CLUSTER_ID, address, name};
use super::world::{Event, Input, MS, Micros, Number, World};
use raftkv::node::{Peer, PeerMessage, Standing};
use raftkv::protocol::hello::{self, Hello, RefusedCode, Role, VERSION_MAX, VERSION_MIN, Welcome};
use raftkv::protocol::peer;
use raftkv::raft::{NodeId, node_id, number};
use raftkv::wal::Identity;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

pub type ConnId = u64;

/// A connection as one of its nodes sees it.
#[derive(Debug, Default)]
struct Side {
    conn: Option<ConnId>,
    /// Who is, or last was, at the other end.
    peer: Option<NodeId>,
    /// The other side closed the last connection, and nobody knows yet why.
    may_have_ended: bool,
    /// Since when nothing comes back.
    silent_since: Option<Micros>,
    last_arrival: Micros,
}

pub struct Network {
    sides: BTreeMap<(Number, Number), Side>,
    /// From, to.
    blocked: BTreeSet<(Number, Number)>,
    /// Until when messages to a node take longer, and how much.
    lags: BTreeMap<Number, (Micros, Micros)>,
    last_conn: ConnId,
    pub rng: fastrand::Rng,
}

/// What two processes need to know of each other to be connected: the nodes, and which of their processes; and
/// what the one that dials says of itself.
#[derive(Debug)]
pub struct Pair {
    pub dialler: (Number, u64),
    pub listener: (Number, u64),
    pub hello: Hello,
}

impl Network {
    pub fn new(rng: fastrand::Rng) -> Self {
        Network {
            sides: BTreeMap::new(),
            blocked: BTreeSet::new(),
            lags: BTreeMap::new(),
            last_conn: 0,
            rng,
        }
    }

    pub fn latency(&mut self, swarm: &Swarm) -> Micros {
        self.rng.u64(swarm.latency.0..=swarm.latency.1)
    }

    pub fn block(&mut self, from: Number, to: Number) {
        self.blocked.insert((from, to));
    }

    pub fn lag(&mut self, to: NodeId, until: Micros, lag: Micros) {
        self.lags.insert(to, (until, lag));
    }

    pub fn end_lag(&mut self) {
        self.lags.clear();
    }

    pub fn unblock_all(&mut self) {
        self.blocked.clear();
    }

    pub fn is_partitioned(&self) -> bool {
        !self.blocked.is_empty()
    }

    fn passes(&self, from: Number, to: Number) -> bool {
        !self.blocked.contains(&(from, to))
    }

    fn passes_both_ways(&self, a: Number, b: Number) -> bool {
        self.passes(a, b) && self.passes(b, a)
    }

    fn side(&mut self, me: Number, peer: Number) -> &mut Side {
        self.sides.entry((me, peer)).or_default()
    }

    pub fn conn(&self, me: Number, peer: Number) -> Option<ConnId> {
        self.sides.get(&(me, peer))?.conn
    }

    /// The connection with this node, and not with another one under its name.
    pub fn conn_with(&self, me: Number, peer: NodeId) -> Option<ConnId> {
        let side = self.sides.get(&(me, number(peer)))?;
        side.conn.filter(|_| side.peer == Some(peer))
    }

    /// Who is at the other end of a connection.
    pub fn connected_to(&self, me: Number, peer: Number) -> Option<NodeId> {
        let side = self.sides.get(&(me, peer))?;
        side.peer.filter(|_| side.conn.is_some())
    }
}

impl World {
    pub fn send(&mut self, from: Number, addressee: NodeId, message: &PeerMessage) {
        let to = number(addressee);
        let Some(conn) = self.network.conn_with(from, addressee) else { return };
        let mut bytes = Vec::new();
        peer::encode(message, &mut bytes);
        self.note_piece(from, to, message);
        self.trace.bytes(&bytes);
        self.trace.event(self.now, &[1, from, to], || format!("{from} -> {to} {message:?}"));
        let is_heard = self.network.passes_both_ways(from, to) && self.is_powered(to);
        self.note_silence(from, to, conn, is_heard);
        if !self.network.passes(from, to) || !self.is_powered(to) {
            return;
        }
        if is_heard && self.network.conn(to, from) != Some(conn) {
            // Nobody knows this connection there: it is reset.
            let at = self.now + 2 * self.network.latency(&self.swarm);
            return self.close_later(at, from, to, conn, true);
        }
        if self.network.rng.f64() < self.swarm.loss {
            self.trace.tell(self.now, || format!("{from} -> {to} is lost"));
            return self.faults.add(Fault::MessageLost);
        }
        let is_bound = self.swarm.ordered || !matches!(message, PeerMessage::Raft(_));
        let bytes: Rc<[u8]> = bytes.into();
        self.carry(from, addressee, is_bound.then_some(conn), bytes.clone());
        if !is_bound && self.network.rng.f64() < self.swarm.duplication {
            self.faults.add(Fault::MessageDuplicated);
            self.carry(from, addressee, None, bytes);
        }
    }

    fn carry(&mut self, from: Number, to: NodeId, bound_to: Option<ConnId>, bytes: Rc<[u8]>) {
        let mut at = self.now + self.network.latency(&self.swarm);
        if let Some((until, lag)) = self.network.lags.get(&to)
            && self.now < *until
        {
            at += lag;
        }
        if self.network.rng.f64() < self.swarm.delay {
            self.faults.add(Fault::MessageDelayed);
            at += self.network.rng.u64(0..=self.swarm.delay_max);
        }
        let ordered = self.swarm.ordered;
        let side = self.network.side(from, number(to));
        if ordered {
            at = at.max(side.last_arrival);
        } else if at < side.last_arrival {
            self.faults.add(Fault::MessageReordered);
        }
        side.last_arrival = side.last_arrival.max(at);
        let input = Input::Peer { from: self.known_node_of(from), to, bound_to, bytes };
        self.schedule(at, Event::Arrive(number(to), input));
    }

    /// A connection on which nothing comes back is given up after a while.
    fn note_silence(&mut self, from: Number, to: Number, conn: ConnId, is_heard: bool) {
        let (now, silence_max) = (self.now, self.swarm.silence_max);
        let side = self.network.side(from, to);
        if is_heard {
            side.silent_since = None;
            return;
        }
        let since = *side.silent_since.get_or_insert(now);
        if now >= since + silence_max {
            self.close_later(now, from, to, conn, false);
        }
    }

    pub fn close_later(
        &mut self,
        at: Micros,
        node: Number,
        peer: Number,
        conn: ConnId,
        by_other_side: bool,
    ) {
        self.schedule(at, Event::Closed { node, peer, conn, by_other_side });
    }

    /// A node learns that a connection is gone.
    pub fn closed(&mut self, node: Number, peer: Number, conn: ConnId, by_other_side: bool) {
        if self.network.conn(node, peer) != Some(conn) || !self.is_up(node) {
            return;
        }
        let who = self.network.connected_to(node, peer).expect("it has said hello");
        self.drop_side(node, peer, by_other_side);
        self.give(node, Input::Unreachable(who));
        let at = self.now + self.network.latency(&self.swarm);
        if node > peer {
            self.schedule(at, Event::Dial { node, process: self.process_of(node), peer });
        } else if by_other_side {
            self.schedule(at, Event::Probe { node, process: self.process_of(node), peer });
        }
    }

    /// This side is gone; the other one learns it if the network lets it.
    fn drop_side(&mut self, node: Number, peer: Number, by_other_side: bool) {
        let side = self.network.side(node, peer);
        let Some(conn) = side.conn.take() else { return };
        *side = Side { peer: side.peer, may_have_ended: by_other_side, ..Side::default() };
        if self.network.conn(peer, node) == Some(conn) {
            let hears = self.network.passes(node, peer) && self.is_powered(node);
            let after = if hears {
                self.network.latency(&self.swarm)
            } else {
                // Nothing comes from here any more: it is its own keep-alive that will tell.
                self.network.rng.u64(self.swarm.silence_max / 2..=self.swarm.silence_max)
            };
            self.close_later(self.now + after, peer, node, conn, hears);
        }
    }

    /// The node's process has ended, and its connections with it.
    pub fn drop_connections(&mut self, node: Number) {
        for peer in self.ids() {
            if peer != node {
                self.drop_side(node, peer, false);
                *self.network.side(node, peer) = Side::default();
            }
        }
    }

    /// A new process dials the nodes with lower numbers.
    pub fn dial_all(&mut self, node: Number) {
        for peer in self.ids().filter(|peer| *peer < node) {
            let process = self.process_of(node);
            self.schedule(self.now, Event::Dial { node, process, peer });
        }
    }

    pub fn dial(&mut self, node: Number, process: u64, peer: Number) {
        if !self.may_dial(node, process) || self.network.conn(node, peer).is_some() {
            return;
        }
        if self.network.passes_both_ways(node, peer) && self.is_up(peer) {
            let (dialler, listener) = ((node, process), (peer, self.process_of(peer)));
            let pair = Pair { dialler, listener, hello: self.hello_of(node) };
            let at = self.now + 3 * self.network.latency(&self.swarm);
            return self.schedule(at, Event::Connect(pair));
        }
        self.probe(node, process, peer);
        let redial = self.now + self.network.rng.u64(20 * MS..=500 * MS);
        self.schedule(redial, Event::Dial { node, process, peer });
    }

    /// One that was removed disturbs nobody.
    fn may_dial(&self, node: Number, process: u64) -> bool {
        let is_quiet = self.process_ref(node).is_some_and(|process| {
            process.is_told_of_removal || process.replica.node().raft().is_removed()
        });
        self.is_process(node, process) && !is_quiet
    }

    /// Nobody listening on a machine that answers is a process that has ended.
    pub fn probe(&mut self, node: Number, process: u64, peer: Number) {
        let is_refused =
            self.network.passes_both_ways(node, peer) && self.is_powered(peer) && !self.is_up(peer);
        if is_refused
            && self.is_process(node, process)
            && std::mem::take(&mut self.network.side(node, peer).may_have_ended)
            && let Some(who) = self.network.side(node, peer).peer
        {
            self.give(node, Input::Ended(who));
        }
    }

    pub fn connect(&mut self, pair: Pair) {
        let Pair { dialler: (a, of_a), listener: (b, of_b), hello } = pair;
        if !self.is_process(a, of_a) {
            return;
        }
        if !self.network.passes_both_ways(a, b)
            || !self.is_process(b, of_b)
            || !self.do_agree(&hello, a, b)
        {
            let redial = self.now + self.network.rng.u64(20 * MS..=100 * MS);
            return self.schedule(redial, Event::Dial { node: a, process: of_a, peer: b });
        }
        let of_listener = self.peer_as_said(&self.hello_of(b));
        let of_dialler = self.peer_as_said(&hello);
        self.network.last_conn += 1;
        let conn = Some(self.network.last_conn);
        self.trace.event(self.now, &[2, a, b], || format!("{a} and {b} are connected"));
        for (node, peer) in [(a, of_listener), (b, of_dialler)] {
            let side = self.network.side(node, number(peer.id));
            let before = side.peer.filter(|_| side.conn.is_some());
            *side = Side { conn, peer: Some(peer.id), ..Side::default() };
            if let Some(before) = before {
                self.give(node, Input::Unreachable(before));
            }
            self.give(node, Input::Connected(peer));
        }
    }

    fn identity(&self, id: Number) -> &Identity {
        self.host_ref(id).identity.as_ref().expect("it runs")
    }

    fn standing_of(&self, id: Number) -> Standing {
        self.process_ref(id).expect("it runs").replica.node().standing()
    }

    fn hello_of(&self, id: Number) -> Hello {
        let Identity { node, incarnation, name, .. } = self.identity(id).clone();
        let (standing, address) = (self.standing_of(id), address(id));
        Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            cluster_id: CLUSTER_ID,
            role: Role::Peer { node, incarnation, name, standing, address, limits: None },
        }
    }

    fn peer_as_said(&self, hello: &Hello) -> Peer {
        let Role::Peer { node, incarnation, name, standing, address, limits } = hello.role.clone()
        else {
            unreachable!("only nodes are peers")
        };
        Peer { id: node_id(node, incarnation), name, address, standing, limits }
    }

    /// Whether both sides accept what the other one says of itself.
    fn do_agree(&mut self, hello: &Hello, dialler: Number, listener: Number) -> bool {
        let refused = self.judged_by(listener, |us| hello::judge(hello, us).map(|_| ()));
        if let Err(refused) = refused {
            self.trace.tell(self.now, || format!("{listener} refuses {dialler}: {refused}"));
            if refused.code == RefusedCode::Removed {
                self.faults.add(Fault::RemovedRefused);
                self.process(dialler).expect("it runs").is_told_of_removal = true;
            }
            return false;
        }
        let Identity { cluster_id, node, incarnation, name } = self.identity(listener).clone();
        let (standing, address) = (self.standing_of(listener), address(listener));
        let welcome = Welcome {
            version: VERSION_MAX,
            cluster_id,
            node,
            incarnation,
            name,
            frame_bytes_max: 0,
            key_bytes_max: 0,
            value_bytes_max: 0,
            standing,
            address,
        };
        let judged = self.judged_by(dialler, |us| hello::judge_welcome(&welcome, us, listener));
        if let Err(refused) = &judged {
            self.trace.tell(self.now, || format!("{dialler} refuses {listener}: {refused}"));
        }
        judged.is_ok()
    }

    fn judged_by<T>(&self, id: Number, judge: impl FnOnce(&hello::Identity<'_>) -> T) -> T {
        let process = self.process_ref(id).expect("it runs");
        let identity = self.identity(id);
        let peers = self.ids().filter(|at| *at != id).map(|at| (at, name(at))).collect();
        judge(&hello::Identity {
            cluster_id: identity.cluster_id,
            node: identity.node,
            incarnation: identity.incarnation,
            name: &identity.name,
            standing: process.replica.node().standing(),
            membership: process.replica.node().raft().membership(),
            committed: process.replica.node().raft().committed_membership(),
            peers: &peers,
        })
    }

    /// The connection of two nodes breaks, for no reason that they know.
    pub fn reset(&mut self, a: Number, b: Number) {
        if let Some(conn) = self.network.conn(a, b) {
            self.faults.add(Fault::ConnectionReset);
            self.close_later(self.now, a, b, conn, true);
        }
    }
}
