//! Connections between the nodes, and what happens to messages on them.
//!
//! A connection is made by the node with the higher number, breaks when a process ends, when it is silent for
//! too long, or for no reason, and each side learns of that in its own time, as on TCP. Messages of Raft are
//! treated worse than TCP would in most runs: they are lost, overtake each other, come twice, or come after
//! their connection is gone. Forwarded requests are not: that they arrive at most once, and at the process
//! that was meant, is what the connection is for.

use super::faults::{Fault, Swarm};
use super::world::{Event, Input, MS, Micros, World};
use raftkv::node::PeerMessage;
use raftkv::protocol::peer;
use raftkv::raft::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

pub type ConnId = u64;

/// A connection as one of its nodes sees it.
#[derive(Debug, Default)]
struct Side {
    conn: Option<ConnId>,
    /// The other side closed the last connection, and nobody knows yet why.
    may_have_ended: bool,
    /// Since when nothing comes back.
    silent_since: Option<Micros>,
    last_arrival: Micros,
}

pub struct Network {
    sides: BTreeMap<(NodeId, NodeId), Side>,
    /// From, to.
    blocked: BTreeSet<(NodeId, NodeId)>,
    /// Until when messages to a node take longer, and how much.
    lags: BTreeMap<NodeId, (Micros, Micros)>,
    last_conn: ConnId,
    pub rng: fastrand::Rng,
}

/// What two processes need to know of each other to be connected: the nodes, and which of their processes.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    pub dialler: (NodeId, u64),
    pub listener: (NodeId, u64),
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

    pub fn block(&mut self, from: NodeId, to: NodeId) {
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

    fn passes(&self, from: NodeId, to: NodeId) -> bool {
        !self.blocked.contains(&(from, to))
    }

    fn passes_both_ways(&self, a: NodeId, b: NodeId) -> bool {
        self.passes(a, b) && self.passes(b, a)
    }

    fn side(&mut self, me: NodeId, peer: NodeId) -> &mut Side {
        self.sides.entry((me, peer)).or_default()
    }

    pub fn conn(&self, me: NodeId, peer: NodeId) -> Option<ConnId> {
        self.sides.get(&(me, peer))?.conn
    }
}

impl World {
    pub fn send(&mut self, from: NodeId, to: NodeId, message: &PeerMessage) {
        let Some(conn) = self.network.conn(from, to) else { return };
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
        self.carry(from, to, is_bound.then_some(conn), bytes.clone());
        if !is_bound && self.network.rng.f64() < self.swarm.duplication {
            self.faults.add(Fault::MessageDuplicated);
            self.carry(from, to, None, bytes);
        }
    }

    fn carry(&mut self, from: NodeId, to: NodeId, bound_to: Option<ConnId>, bytes: Rc<[u8]>) {
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
        let side = self.network.side(from, to);
        if ordered {
            at = at.max(side.last_arrival);
        } else if at < side.last_arrival {
            self.faults.add(Fault::MessageReordered);
        }
        side.last_arrival = side.last_arrival.max(at);
        self.schedule(at, Event::Arrive(to, Input::Peer { from, bound_to, bytes }));
    }

    /// A connection on which nothing comes back is given up after a while.
    fn note_silence(&mut self, from: NodeId, to: NodeId, conn: ConnId, is_heard: bool) {
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

    fn close_later(
        &mut self,
        at: Micros,
        node: NodeId,
        peer: NodeId,
        conn: ConnId,
        by_other_side: bool,
    ) {
        self.schedule(at, Event::Closed { node, peer, conn, by_other_side });
    }

    /// A node learns that a connection is gone.
    pub fn closed(&mut self, node: NodeId, peer: NodeId, conn: ConnId, by_other_side: bool) {
        if self.network.conn(node, peer) != Some(conn) || !self.is_up(node) {
            return;
        }
        self.drop_side(node, peer, by_other_side);
        self.give(node, Input::Unreachable(peer));
        let at = self.now + self.network.latency(&self.swarm);
        if node > peer {
            self.schedule(at, Event::Dial { node, process: self.process_of(node), peer });
        } else if by_other_side {
            self.schedule(at, Event::Probe { node, process: self.process_of(node), peer });
        }
    }

    /// This side is gone; the other one learns it if the network lets it.
    fn drop_side(&mut self, node: NodeId, peer: NodeId, by_other_side: bool) {
        let side = self.network.side(node, peer);
        let Some(conn) = side.conn.take() else { return };
        *side = Side { may_have_ended: by_other_side, ..Side::default() };
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
    pub fn drop_connections(&mut self, node: NodeId) {
        for peer in self.ids() {
            if peer != node {
                self.drop_side(node, peer, false);
            }
        }
    }

    /// A new process dials the members with lower numbers.
    pub fn dial_all(&mut self, node: NodeId) {
        for peer in self.ids().filter(|peer| *peer < node) {
            let process = self.process_of(node);
            self.schedule(self.now, Event::Dial { node, process, peer });
        }
    }

    pub fn dial(&mut self, node: NodeId, process: u64, peer: NodeId) {
        if !self.is_process(node, process) || self.network.conn(node, peer).is_some() {
            return;
        }
        if self.network.passes_both_ways(node, peer) && self.is_up(peer) {
            let pair = Pair { dialler: (node, process), listener: (peer, self.process_of(peer)) };
            let at = self.now + 3 * self.network.latency(&self.swarm);
            return self.schedule(at, Event::Connect(pair));
        }
        self.probe(node, process, peer);
        let redial = self.now + self.network.rng.u64(20 * MS..=500 * MS);
        self.schedule(redial, Event::Dial { node, process, peer });
    }

    /// Nobody listening on a machine that answers is a process that has ended.
    pub fn probe(&mut self, node: NodeId, process: u64, peer: NodeId) {
        let is_refused =
            self.network.passes_both_ways(node, peer) && self.is_powered(peer) && !self.is_up(peer);
        if is_refused
            && self.is_process(node, process)
            && std::mem::take(&mut self.network.side(node, peer).may_have_ended)
        {
            self.give(node, Input::Ended(peer));
        }
    }

    pub fn connect(&mut self, pair: Pair) {
        let Pair { dialler: (a, of_a), listener: (b, of_b) } = pair;
        if !self.is_process(a, of_a) {
            return;
        }
        if !self.network.passes_both_ways(a, b) || !self.is_process(b, of_b) {
            return self
                .schedule(self.now + 20 * MS, Event::Dial { node: a, process: of_a, peer: b });
        }
        self.network.last_conn += 1;
        let conn = Some(self.network.last_conn);
        self.trace.event(self.now, &[2, a, b], || format!("{a} and {b} are connected"));
        for (node, peer) in [(a, b), (b, a)] {
            *self.network.side(node, peer) = Side { conn, ..Side::default() };
            self.give(node, Input::Connected(peer));
        }
    }

    /// The connection of two nodes breaks, for no reason that they know.
    pub fn reset(&mut self, a: NodeId, b: NodeId) {
        if let Some(conn) = self.network.conn(a, b) {
            self.faults.add(Fault::ConnectionReset);
            self.close_later(self.now, a, b, conn, true);
        }
    }
}
