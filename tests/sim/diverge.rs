//! A replica whose state is not that of the others: by a bug, or by bits that flipped in memory, nobody
//! knows. The nodes compare digests; the one that differs has to find out, throw its state away and fetch it
//! again.

use super::faults::Swarm;
use super::image::{newest_snapshot, snapshot_name};
use super::world::{CALM_MAX, Ending, Health, MS, Number, SECOND, World};
use crate::mem_disk::MemDisk;
use raftkv::kv::{Command, Machine, WriteOp};
use raftkv::raft::{Entry, Index, Payload, Position};
use raftkv::wal::{Disk, SnapshotKind, Wal};

/// Simulated time within which the nodes have compared their digests, at the pace of these clients.
const COMPARED_WITHIN: u64 = 60 * SECOND;
const SEEDS: std::ops::Range<u64> = 1..6;

impl World {
    pub fn leader(&self) -> Option<Number> {
        self.ids().find(|id| self.leads(*id))
    }

    pub fn wait_for(&mut self, what: &str, is_so: impl Fn(&World) -> bool) {
        let end = self.now + COMPARED_WITHIN;
        self.run_until(end, &is_so);
        assert!(is_so(self), "{what} in time: {}", self.what_is_missing());
    }

    /// The newest snapshot on a machine that is down becomes one of a state with a key that nobody has
    /// written.
    fn give_other_state(&mut self, id: Number, position: Position) {
        let entries = self.judge.reference.entries_up_to(position.index);
        let noop = &entries[1];
        assert_eq!(noop.payload, Payload::Noop, "the first leader's, after the founding");
        let op = WriteOp::Put { key: b"never written", value: b"by anybody" };
        let command = Command::Write { request: None, op }.to_bytes().into();
        let other = Entry { payload: Payload::Command(command), ..noop.clone() };
        let mut machine = Machine::default();
        for entry in [&entries[0], &other].into_iter().chain(&entries[2..]) {
            machine.apply(entry).expect("it was applied before");
        }
        machine.begin_snapshot();
        let (bytes, is_whole) = machine.snapshot_piece(usize::MAX);
        assert!(is_whole, "there is no limit");

        let spare = MemDisk::default();
        let config = self.wal_config();
        let (mut wal, _) = Wal::open(spare.clone(), config).expect("an empty disk");
        wal.begin_snapshot(SnapshotKind::Own, position).expect("there is room");
        wal.append_snapshot(SnapshotKind::Own, &bytes).expect("there is room");
        wal.finish_snapshot(SnapshotKind::Own).expect("there is room");
        let name = snapshot_name(position);
        let mut files = self.host(id).disk.files();
        files.insert(name.clone(), spare.read(&name).expect("it was just made"));
        self.host(id).disk.replace(&files);
        let node = self.known_node_of(id);
        self.judge.differing.insert(node);
    }

    /// A follower comes back with a state of its own.
    fn one_that_differs(seed: u64) -> (World, Number) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let swarm = Swarm {
            snapshot_log_bytes: 2000,
            value_bytes_max: 0,
            think: 5 * MS,
            clients: 4,
            // A flush would make the states equal again.
            is_timed: false,
            down_max: 50 * MS,
            ..Swarm::without_faults(&mut rng)
        };
        let mut world = World::of(swarm, rng, false);
        world.start_all();
        world.wait_for("commits", |world| world.judge.committed() > 200);
        let leader = world.leader().expect("they have just committed something");
        let id = world.ids().find(|id| *id != leader).expect("there are three");
        let process = world.process_ref(id).expect("nothing goes wrong");
        let position = newest_snapshot(&process.replica);
        assert!(position.index > 0, "a snapshot after that many commits");
        world.end_process(id, Ending::Process, None);
        world.give_other_state(id, position);
        world.wait_for("the restart", |world| world.is_up(id));
        // It is not so far behind that it is sent a snapshot, which would be the end of it.
        world.wait_for("the log", |world| world.applied(id) > world.judge.committed() - 5);
        let machine = world.process_ref(id).expect("it is up").replica.node().machine();
        let expected = world.judge.reference.digest(machine.applied());
        assert_ne!(Some(machine.store().digest()), expected, "its state is to be another one");
        (world, id)
    }

    pub fn applied(&self, id: Number) -> Index {
        self.process_ref(id).map_or(0, |process| process.replica.node().machine().applied())
    }

    fn differs(&self, id: Number) -> bool {
        self.judge.differing.contains(&self.known_node_of(id))
    }

    /// The third node hears nothing while the leader commits with this one, so that only this one can
    /// follow it.
    fn becomes_leader(&mut self, id: Number) {
        let leader = self.leader().expect("they commit");
        let third = self.ids().find(|other| ![id, leader].contains(other)).expect("of three");
        self.network.block(leader, third);
        let committed = self.judge.committed();
        self.wait_for("commits", |world| world.judge.committed() > committed + 10);
        self.network.unblock_all();
        for other in self.ids().filter(|other| *other != leader) {
            self.network.block(leader, other);
            self.network.block(other, leader);
        }
        self.wait_for("the election", |world| world.leads(id));
        self.network.unblock_all();
    }

    /// It has noticed, is whole again, and holds what all hold.
    fn fetches_it_again(&mut self, id: Number) {
        self.wait_for("the comparison", |world| !world.differs(id));
        let node = self.process_ref(id).expect("it goes on").replica.node();
        assert!(node.raft().is_damaged() && !node.raft().is_leader(), "it has no say meanwhile");
        assert_eq!(self.hosts[id as usize - 1].health, Health::Damaged);
        self.wait_for("its own state", |world| {
            world.hosts[id as usize - 1].health == Health::Whole
        });
        self.heal();
        let end = self.now + CALM_MAX;
        self.run_until(end, World::is_well);
        assert!(self.is_well(), "{}", self.what_is_missing());
        assert!(self.check_end(), "an order of all that clients did");
    }
}

#[test]
fn a_follower_whose_state_differs_throws_it_away_and_fetches_it_again() {
    for seed in SEEDS {
        let (mut world, id) = World::one_that_differs(seed);
        world.fetches_it_again(id);
    }
}

#[test]
fn a_leader_whose_state_differs_gives_up_its_office_and_fetches_it_again() {
    for seed in SEEDS {
        let (mut world, id) = World::one_that_differs(seed);
        world.becomes_leader(id);
        world.fetches_it_again(id);
    }
}
