//! How a cluster begins, and how nodes come into one: on nodes without disks or sockets, which forget
//! everything when they are made anew.

mod common;

use common::core::config;
use raftkv::kv::{Limits, Machine};
use raftkv::node::{Config, Node, Peer, Standing};
use raftkv::raft::{
    Config as RaftConfig, FOUNDING_TERM, HardState, NodeId, Restored, Waits, node_id, number,
};
use std::collections::{BTreeMap, BTreeSet};

/// Longer than any of this takes.
const TICKS_MAX: usize = 500;

/// Nodes by number, each connected with some of the others.
struct Room {
    nodes: BTreeMap<u64, Node>,
    connected: BTreeSet<(u64, u64)>,
    auto_members: bool,
}

/// A node with an empty disk, in its first, second, ... life.
fn empty_node(number: u64, life: u64, auto_members: bool) -> Node {
    make(number, life, auto_members, Restored::default())
}

/// A node whose disk is not quite empty.
fn node_with(number: u64, life: u64, restored: Restored) -> Node {
    make(number, life, true, restored)
}

fn make(number: u64, life: u64, auto_members: bool, restored: Restored) -> Node {
    let id = node_id(number, 1000 * number + life);
    let config = Config {
        raft: RaftConfig { id, voters: BTreeSet::new(), seed: id, ..config(1, 3) },
        name: format!("raft-{number}"),
        address: format!("raft-{number}:6000"),
        initial: (0..3).map(|number| (number, format!("raft-{number}"))).collect(),
        auto_members,
        limits: Limits::default(),
        forward_timeout_ticks: 50,
        snapshot_log_bytes: 1 << 20,
        snapshot_piece_bytes: 1 << 10,
    };
    Node::new(config, restored, Machine::default())
}

impl Room {
    fn new() -> Room {
        Room { nodes: BTreeMap::new(), connected: BTreeSet::new(), auto_members: true }
    }

    /// Starts a node with an empty disk and connects it with all that are there.
    fn start(&mut self, number: u64, life: u64) {
        let others: Vec<u64> = self.nodes.keys().copied().collect();
        self.nodes.insert(number, empty_node(number, life, self.auto_members));
        others.into_iter().for_each(|other| self.connect(number, other));
    }

    fn connect(&mut self, a: u64, b: u64) {
        let hello = |node: &Node| Peer {
            id: node.raft().id(),
            name: node.config().name.clone(),
            address: node.config().address.clone(),
            standing: node.standing(),
            limits: None,
        };
        let (from_a, from_b) = (hello(&self.nodes[&a]), hello(&self.nodes[&b]));
        self.node(a).peer_connected(from_b);
        self.node(b).peer_connected(from_a);
        self.connected.extend([(a, b), (b, a)]);
    }

    /// The process ends; what it knew is gone.
    fn stop(&mut self, gone: u64) {
        let id = self.nodes.remove(&gone).expect("it runs").raft().id();
        self.connected.retain(|(a, b)| *a != gone && *b != gone);
        self.nodes.values_mut().for_each(|node| node.peer_unreachable(id));
    }

    fn node(&mut self, number: u64) -> &mut Node {
        self.nodes.get_mut(&number).expect("it runs")
    }

    fn tick(&mut self) {
        let numbers: Vec<u64> = self.nodes.keys().copied().collect();
        for number in &numbers {
            self.node(*number).tick();
        }
        while numbers.iter().any(|number| self.turn(*number)) {}
    }

    /// Returns whether there was anything to do.
    fn turn(&mut self, from: u64) -> bool {
        let node = self.node(from);
        if !node.has_work() {
            return false;
        }
        let id = node.raft().id();
        let (ready, early) = node.take_ready(Waits::default());
        let mut messages = node.persisted(ready);
        messages.extend(node.carry_out().expect("entries can be applied").messages);
        for (to, message) in [early, messages].concat() {
            let is_connected = self.connected.contains(&(from, number(to)));
            if let Some(node) = self.nodes.get_mut(&number(to))
                && node.raft().id() == to
                && is_connected
            {
                node.peer_message(id, message).expect("one leader a term");
            }
        }
        true
    }

    fn run_until(&mut self, what: &str, condition: impl Fn(&Room) -> bool) {
        for _ in 0..TICKS_MAX {
            if condition(self) {
                return;
            }
            self.tick();
        }
        panic!("{what} within {TICKS_MAX} ticks: {:?}", self.roles());
    }

    fn run(&mut self) {
        (0..TICKS_MAX).for_each(|_| self.tick());
    }

    fn roles(&self) -> Vec<(u64, &'static str)> {
        self.nodes.iter().map(|(number, node)| (*number, node.raft().role_name())).collect()
    }

    fn cluster_ids(&self) -> BTreeSet<u64> {
        let founded = self.nodes.values().filter(|node| node.raft().is_founded());
        founded.map(|node| node.raft().membership().cluster_id).collect()
    }

    /// All that run are voters, and one of them leads.
    fn is_at_full_strength(&self) -> bool {
        let ids: BTreeSet<NodeId> = self.nodes.values().map(|node| node.raft().id()).collect();
        let agrees = |node: &Node| {
            node.raft().membership().voters().collect::<BTreeSet<_>>() == ids
                && node.raft().membership_is_committed()
        };
        self.nodes.values().all(agrees) && self.nodes.values().any(|node| node.raft().is_leader())
    }
}

#[test]
fn a_cluster_is_founded_once_every_initial_member_is_there_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]] {
        let mut room = Room::new();
        for (place, number) in order.into_iter().enumerate() {
            room.start(number, 1);
            if place < 2 {
                room.run();
                assert!(room.nodes.values().all(|node| node.standing() == Standing::Empty));
            }
        }
        room.run_until("a cluster of three", Room::is_at_full_strength);
        assert_eq!(room.cluster_ids().len(), 1);
    }
}

#[test]
fn who_waits_says_for_whom() {
    let mut room = Room::new();
    room.start(0, 1);
    room.start(1, 1);
    room.run();
    let waits = room.nodes[&0].founding_waits_for();
    assert_eq!(waits, [("raft-2".to_string(), "not connected")]);
}

#[test]
fn two_wiped_disks_of_three_found_no_cluster_over_the_third_ones_data() {
    for wiped in [[0, 1], [0, 2], [1, 2]] {
        let mut room = Room::new();
        (0..3).for_each(|number| room.start(number, 1));
        room.run_until("a cluster of three", Room::is_at_full_strength);
        let before = room.cluster_ids();
        wiped.into_iter().for_each(|number| room.stop(number));
        wiped.into_iter().for_each(|number| room.start(number, 2));
        room.run();
        assert_eq!(room.cluster_ids(), before, "{wiped:?}");
        for number in wiped {
            assert_eq!(room.nodes[&number].raft().role_name(), "waiting", "{wiped:?}");
        }
        assert!(room.nodes.values().all(|node| !node.raft().is_leader()), "{wiped:?}");
    }
}

/// The third one's data is there, only nobody can ask it.
#[test]
fn two_wiped_disks_found_no_cluster_while_the_third_node_is_down() {
    let mut room = Room::new();
    (0..2).for_each(|number| room.start(number, 2));
    room.run();
    assert!(room.nodes.values().all(|node| node.standing() == Standing::Empty));
}

#[test]
fn a_founding_outlives_its_author() {
    let mut room = Room::new();
    (0..3).for_each(|number| room.start(number, 1));
    // It reaches raft-1, and then the founder's disk is lost.
    room.connected.retain(|pair| !matches!(pair, (0, 2) | (2, 0)));
    room.run_until("one who has heard of it", |room| room.nodes[&1].raft().is_founded());
    assert!(!room.nodes[&2].raft().is_founded());
    let before = room.cluster_ids();
    room.stop(0);
    room.start(0, 2);
    room.run_until("full strength", Room::is_at_full_strength);
    assert_eq!(room.cluster_ids(), before);
}

#[test]
fn a_lost_disk_is_replaced_by_itself_whoever_loses_it() {
    for lost in 0..3 {
        let mut room = Room::new();
        (0..3).for_each(|number| room.start(number, 1));
        room.run_until("a cluster of three", Room::is_at_full_strength);
        let before = room.nodes[&lost].raft().id();
        room.stop(lost);
        room.start(lost, 2);
        room.run_until("full strength", Room::is_at_full_strength);
        let membership = room.nodes[&lost].raft().membership();
        assert!(membership.was_removed(before) && membership.members.len() == 3);
    }
}

/// Two processes under one name: the one that is a member stays.
#[test]
fn a_member_that_answers_is_not_replaced() {
    let mut room = Room::new();
    (0..3).for_each(|number| room.start(number, 1));
    room.run_until("a cluster of three", Room::is_at_full_strength);
    let leader = room.nodes.values().find(|node| node.raft().is_leader()).unwrap();
    let (leader, before) = (number(leader.raft().id()), leader.raft().membership().clone());
    let twin = (0..3).find(|number| *number != leader).unwrap();
    let peer = Peer {
        id: node_id(twin, 77),
        name: format!("raft-{twin}"),
        address: "elsewhere:6000".to_string(),
        standing: Standing::Empty,
        limits: None,
    };
    room.node(leader).peer_connected(peer);
    room.run();
    assert_eq!(room.nodes[&leader].raft().membership(), &before);
}

#[test]
fn nodes_beyond_the_initial_ones_come_in_one_after_the_other() {
    let mut room = Room::new();
    (0..3).for_each(|number| room.start(number, 1));
    room.run_until("a cluster of three", Room::is_at_full_strength);
    (3..7).for_each(|number| room.start(number, 1));
    room.run_until("a cluster of seven", |room| {
        room.is_at_full_strength() && room.nodes.len() == 7
    });
}

#[test]
fn nobody_comes_in_by_himself_if_that_is_switched_off() {
    let mut room = Room::new();
    room.auto_members = false;
    (0..3).for_each(|number| room.start(number, 1));
    room.run_until("a cluster of three", Room::is_at_full_strength);
    room.start(3, 1);
    room.run();
    assert_eq!(room.nodes[&3].raft().role_name(), "waiting");
    let knows = |node: &Node| node.applicants().any(|applicant| applicant.name == "raft-3");
    assert!(room.nodes.values().any(knows), "the leader knows who waits");
}

/// What a founder's disk may keep of a turn that a crash has cut short: the term, and no log.
#[test]
fn a_founding_that_a_crash_cut_short_is_begun_again() {
    let mut room = Room::new();
    let hard_state = HardState { term: FOUNDING_TERM, voted_for: None };
    room.nodes.insert(0, node_with(0, 1, Restored { hard_state, ..Restored::default() }));
    (1..3).for_each(|number| room.start(number, 1));
    room.run_until("a cluster of three", Room::is_at_full_strength);
}

#[test]
fn a_founding_is_told_again_for_as_long_as_nobody_leads() {
    let mut room = Room::new();
    (0..3).for_each(|number| room.start(number, 1));
    room.tick();
    assert!(room.nodes[&0].raft().is_founded());
    // Whatever leaves the founder in the next moments arrives nowhere.
    let connected = std::mem::take(&mut room.connected);
    (0..5).for_each(|_| room.tick());
    assert!(!room.nodes[&1].raft().is_founded() && !room.nodes[&2].raft().is_founded());
    room.connected = connected;
    room.run_until("a cluster of three", Room::is_at_full_strength);
}

/// All that began it have lost their disks, but one that came later has not.
#[test]
fn no_cluster_is_founded_beside_a_member_of_one() {
    let mut room = Room::new();
    (0..3).for_each(|number| room.start(number, 1));
    room.run_until("a cluster of three", Room::is_at_full_strength);
    room.start(3, 1);
    room.run_until("a cluster of four", Room::is_at_full_strength);
    let before = room.cluster_ids();
    (0..3).for_each(|number| room.stop(number));
    (0..3).for_each(|number| room.start(number, 2));
    room.run();
    assert_eq!(room.cluster_ids(), before);
}

/// A leader took it in, sent it a part of the log or only a term, and lost its office before that was committed.
#[test]
fn a_node_that_was_taken_in_for_nothing_applies_again() {
    for has_a_log in [true, false] {
        let mut room = Room::new();
        (0..3).for_each(|number| room.start(number, 1));
        room.run_until("a cluster of three", Room::is_at_full_strength);
        let founding = room.nodes[&0].raft().log().get(1).expect("the founding").clone();
        let hard_state = HardState { term: 2, voted_for: None };
        let entries = if has_a_log { vec![founding] } else { Vec::new() };
        let node = node_with(3, 1, Restored { hard_state, entries, ..Restored::default() });
        let cluster_id = room.nodes[&0].raft().membership().cluster_id;
        let member = Standing::Member { cluster_id };
        let expected = if has_a_log { member } else { Standing::Contacted };
        assert_eq!(node.standing(), expected);
        room.nodes.insert(3, node);
        (0..3).for_each(|number| room.connect(3, number));
        room.run_until("a cluster of four", Room::is_at_full_strength);
    }
}

/// It knows that a cluster exists, so nobody founds another one with it.
#[test]
fn a_node_that_a_cluster_has_spoken_to_is_not_one_with_an_empty_disk() {
    let mut room = Room::new();
    (0..2).for_each(|number| room.start(number, 1));
    let hard_state = HardState { term: FOUNDING_TERM + 1, voted_for: None };
    room.nodes.insert(2, node_with(2, 1, Restored { hard_state, ..Restored::default() }));
    (0..2).for_each(|number| room.connect(2, number));
    room.run();
    assert!(room.cluster_ids().is_empty());
    let waits = room.nodes[&0].founding_waits_for();
    assert_eq!(waits, [("raft-2".to_string(), "a cluster has spoken to it")]);
}

/// It hears of everything at once, after it was held up: that all were there, and that one has lost its disk since.
#[test]
fn a_cluster_is_founded_of_those_that_are_there_now() {
    let mut room = Room::new();
    (0..3).for_each(|number| room.start(number, 1));
    let lost = room.nodes[&1].raft().id();
    room.stop(1);
    room.start(1, 2);
    room.run_until("a cluster of three", Room::is_at_full_strength);
    assert!(!room.nodes[&0].raft().membership().was_removed(lost), "it never was a member");
}
