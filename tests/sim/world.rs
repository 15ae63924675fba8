//! The world of one run: machines, their processes, the network between them, clients, and the events that
//! are due. One thread, one seed, time in microseconds that passes only from event to event.

use super::clients::{Clients, Ticket};
use super::disk::SimDisk;
use super::faults::{Counts, Fault, Strike, Swarm};
use super::invariants::Judge;
use super::members::Stops;
use super::network::{ConnId, Network, Pair};
use super::operator::Operator;
use super::progress::Transfers;
use super::trace::Trace;
use raftkv::kv::{Answer, Request};
use raftkv::node::{Outgoing, Peer, Routing};
use raftkv::raft::{NodeId, node_id};
use raftkv::replica::Replica;
use raftkv::wal::Identity;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::rc::Rc;

/// Of a machine, from 1: the number in its name. What runs there is a [`NodeId`], another one after each loss of
/// the disk.
pub type Number = u64;

/// Microseconds since the run began.
pub type Micros = u64;
pub const MS: Micros = 1000;
pub const SECOND: Micros = 1000 * MS;

/// A tick of a clock that does not drift.
pub const TICK: Micros = 10 * MS;

/// When a run begins, in milliseconds of Unix time.
const WALL_START_MS: u64 = 1_700_000_000_000;
/// How far wall clocks are from that at most, until they are set to another time.
const WALL_OFFSET_MS: i64 = 300;

/// After all faults have ended, everything must be well within this time.
pub const CALM_MAX: Micros = 10 * SECOND;
/// What is left of a cluster that has lost its majority is watched for so long.
const DOOMED_FOR: Micros = 2 * SECOND;

/// What reaches a process. It takes it in at its next turn.
#[derive(Debug)]
pub enum Input {
    /// A message, and the connection without which it is worth nothing.
    Peer {
        from: NodeId,
        to: NodeId,
        bound_to: Option<ConnId>,
        bytes: Rc<[u8]>,
    },
    Connected(Peer),
    Unreachable(NodeId),
    Ended(NodeId),
    Request {
        ticket: Ticket,
        request: Request,
        routing: Routing,
    },
}

#[derive(Debug)]
pub enum Event {
    Arrive(Number, Input),
    Turn {
        node: Number,
        process: u64,
    },
    /// A flush is over, and what it held back leaves.
    Leave {
        node: Number,
        process: u64,
        outgoing: Outgoing,
    },
    Start(Number),
    /// A disk is not full any more, unless it was struck again.
    SpaceAgain(Number),
    Strike(Strike, Micros),
    /// A majority loses its disks.
    Doom,
    /// A node cannot send any more.
    Mute(NodeId),
    // Connections.
    Dial {
        node: Number,
        process: u64,
        peer: Number,
    },
    Probe {
        node: Number,
        process: u64,
        peer: Number,
    },
    Connect(Pair),
    Closed {
        node: Number,
        peer: Number,
        conn: ConnId,
        by_other_side: bool,
    },
    // Clients.
    ClientActs(usize),
    ClientHears(Ticket, Heard),
    OperatorActs(Ticket),
}

/// What a client gets to know of its request.
#[derive(Debug)]
pub enum Heard {
    Answer(Answer),
    /// Nobody listens there; the request was not even sent.
    Refused,
    /// The connection is lost, or there is no answer for too long.
    Nothing,
}

/// What ends: a process, whose machine goes on, or the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Process,
    Machine,
}

/// Where in its turn a process ends; the disk has points of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    BeforeFlush,
    WhileSendingEarly,
    BeforeSending,
    WhileSending,
}

pub struct Process {
    pub number: u64,
    pub replica: Replica<SimDisk>,
    pub inbox: Vec<Input>,
    pub next_tick: Micros,
    /// When the next turn is due.
    pub turn_at: Option<Micros>,
    pub busy_until: Micros,
    pub paused_until: Micros,
    pub crash_point: Option<CrashPoint>,
    /// It was told to stop, and hands over first.
    pub stops: Option<Stops>,
    /// Another node has told it that it was removed: it dials nobody any more.
    pub is_told_of_removal: bool,
}

pub enum State {
    Up(Box<Process>),
    Down { powered: bool },
}

/// What is known of the files of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Whole,
    /// They were damaged, and no start has seen them since.
    Struck,
    /// Something was lost, and is not known to be back.
    Damaged,
}

/// One machine.
pub struct Host {
    pub disk: SimDisk,
    /// What its disk says that it is, from the first start on.
    pub identity: Option<Identity>,
    pub state: State,
    pub health: Health,
    pub processes: u64,
    /// How long a tick takes by its clock.
    pub tick: Micros,
    pub fast_until: Micros,
    /// How far its wall clock is from the true time, in milliseconds.
    pub wall_offset_ms: i64,
    /// Until when its disk is slow, and how slow.
    pub slow: (Micros, Micros),
    pub full_until: Micros,
}

pub struct World {
    pub swarm: Swarm,
    pub now: Micros,
    events: BTreeMap<(Micros, u64), Event>,
    last_event: u64,
    pub hosts: Vec<Host>,
    pub network: Network,
    pub transfers: Transfers,
    /// The connection of the next transfer of a snapshot breaks after so many more pieces.
    pub cut_transfer_after: Option<u32>,
    /// The disk of whoever is sent a snapshot next has no room for it.
    pub next_receiver_is_full: bool,
    pub clients: Clients,
    pub operator: Operator,
    pub judge: Judge,
    pub faults: Counts,
    pub trace: Trace,
    /// For faults, for hosts.
    pub nemesis: fastrand::Rng,
    pub rng: fastrand::Rng,
    /// Faults have ended; the cluster has to get well.
    pub is_healed: bool,
    /// A majority of the voters has lost its disks; nothing is to be had from the others any more.
    pub is_doomed: bool,
    /// Who is to get well.
    pub core: Vec<Number>,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub hash: u64,
    pub faults: Counts,
    pub events: u64,
    pub terms_led: u64,
    pub committed: u64,
    pub answered: u64,
    pub unknown: u64,
    /// How long the cluster took to get well.
    pub calm: Micros,
    /// An order of all that clients did was found; else none was ruled out.
    pub is_decided: bool,
}

/// One run. Panics, with the broken rule, if one is broken.
pub fn run(seed: u64, is_told: bool) -> Report {
    let mut world = World::new(seed, is_told);
    world.start_all();
    world.run_until(world.swarm.duration, |_| false);
    world.heal();
    let healed = world.now;
    let calm = if world.is_doomed {
        world.run_until(healed + DOOMED_FOR, |_| false);
        0
    } else {
        world.run_until(healed + CALM_MAX, World::is_well);
        assert!(world.is_well(), "liveness: {}", world.what_is_missing());
        world.now - healed
    };
    let is_decided = world.check_end();
    let mut faults = world.faults;
    faults.merge_run(&world.judge.model.seen);
    Report {
        hash: world.trace.hash(),
        faults,
        events: world.last_event,
        terms_led: world.judge.terms_led() as u64,
        committed: world.judge.committed(),
        answered: world.clients.answered,
        unknown: world.clients.unknown,
        calm,
        is_decided,
    }
}

impl Host {
    pub fn new(swarm: &Swarm, rng: &mut fastrand::Rng) -> Host {
        Host {
            disk: SimDisk::new(rng.u64(..)),
            identity: None,
            state: State::Down { powered: true },
            health: Health::Whole,
            processes: 0,
            tick: TICK + (TICK as f64 * swarm.drift * (2.0 * rng.f64() - 1.0)) as Micros,
            fast_until: 0,
            wall_offset_ms: rng.i64(-WALL_OFFSET_MS..=WALL_OFFSET_MS),
            slow: (0, 0),
            full_until: 0,
        }
    }
}

impl World {
    fn new(seed: u64, is_told: bool) -> World {
        let mut rng = fastrand::Rng::with_seed(seed);
        let swarm = Swarm::draw(&mut rng.fork());
        let world = World::of(swarm, rng, is_told);
        world.trace.tell(0, || format!("seed {seed}: {:#?}", world.swarm));
        world
    }

    pub fn of(swarm: Swarm, mut rng: fastrand::Rng, is_told: bool) -> World {
        let hosts = (0..swarm.nodes).map(|_| Host::new(&swarm, &mut rng)).collect();
        let mut faults = Counts::default();
        if swarm.drift > 0.0 {
            faults.add(Fault::ClockDrift);
        }
        World {
            now: 0,
            events: BTreeMap::new(),
            last_event: 0,
            hosts,
            network: Network::new(rng.fork()),
            transfers: Transfers::new(),
            cut_transfer_after: None,
            next_receiver_is_full: false,
            clients: Clients::new(&swarm, rng.fork()),
            operator: Operator::default(),
            judge: Judge::default(),
            faults,
            trace: Trace::new(is_told),
            nemesis: rng.fork(),
            rng: rng.fork(),
            is_healed: false,
            is_doomed: false,
            core: Vec::new(),
            swarm,
        }
    }

    pub fn start_all(&mut self) {
        for id in self.ids() {
            let at = self.rng.u64(0..=self.swarm.start_spread);
            self.schedule(at, Event::Start(id));
        }
        if let Some(at) = self.swarm.doom_at {
            self.schedule(at, Event::Doom);
        }
        self.let_loose();
        self.begin_clients();
    }

    pub fn schedule(&mut self, at: Micros, event: Event) {
        self.last_event += 1;
        self.events.insert((at.max(self.now), self.last_event), event);
    }

    /// Lets time pass until nothing is due any more before `end`, or `is_enough`.
    pub fn run_until(&mut self, end: Micros, is_enough: impl Fn(&World) -> bool) {
        while let Some(((at, _), _)) = self.events.first_key_value() {
            if *at > end {
                self.now = end;
                return;
            }
            let ((at, _), event) = self.events.pop_first().expect("there is a first event");
            self.now = at;
            if self.happens(event) && is_enough(self) {
                return;
            }
        }
    }

    /// Returns whether it can have made a difference to how well the cluster is.
    fn happens(&mut self, event: Event) -> bool {
        match event {
            Event::Arrive(node, input) => self.arrive(node, input),
            Event::Turn { node, process } => {
                self.turn(node, process);
                return true;
            }
            Event::Leave { node, process, outgoing } => {
                if self.is_process(node, process) {
                    self.leave(node, outgoing);
                    self.stop_if_it_may(node);
                }
            }
            Event::Start(node) => self.start(node),
            Event::SpaceAgain(node) => self.space_again(node),
            Event::Strike(strike, every) => self.strike(strike, every),
            Event::Doom => self.doom(),
            Event::Mute(node) => self.mute(node),
            Event::Dial { node, process, peer } => self.dial(node, process, peer),
            Event::Probe { node, process, peer } => self.probe(node, process, peer),
            Event::Connect(pair) => self.connect(pair),
            Event::Closed { node, peer, conn, by_other_side } => {
                self.closed(node, peer, conn, by_other_side);
            }
            Event::ClientActs(client) => self.client_acts(client),
            Event::ClientHears(ticket, heard) => {
                self.client_hears(ticket, heard);
                return true;
            }
            Event::OperatorActs(ticket) => self.operator_acts(ticket),
        }
        false
    }

    // Machines and their processes.

    pub fn ids(&self) -> RangeInclusive<Number> {
        1..=self.hosts.len() as Number
    }

    pub fn host(&mut self, id: Number) -> &mut Host {
        &mut self.hosts[id as usize - 1]
    }

    pub fn host_ref(&self, id: Number) -> &Host {
        &self.hosts[id as usize - 1]
    }

    /// What the wall clock of a machine shows, in milliseconds of Unix time. It drifts like its ticks.
    pub fn wall_ms(&self, id: Number) -> u64 {
        let host = self.host_ref(id);
        let shown = WALL_START_MS + self.now * TICK / host.tick / MS;
        shown.saturating_add_signed(host.wall_offset_ms)
    }

    /// The node that its disk makes it, once it has started.
    pub fn node_of(&self, id: Number) -> Option<NodeId> {
        let identity = self.host_ref(id).identity.as_ref()?;
        Some(node_id(id, identity.incarnation))
    }

    /// Of one that runs, or has run since it last lost its disk.
    pub fn known_node_of(&self, id: Number) -> NodeId {
        self.node_of(id).expect("it has an identity since it was first started")
    }

    pub fn process(&mut self, id: Number) -> Option<&mut Process> {
        match &mut self.host(id).state {
            State::Up(process) => Some(process),
            _ => None,
        }
    }

    pub fn process_ref(&self, id: Number) -> Option<&Process> {
        match &self.host_ref(id).state {
            State::Up(process) => Some(process),
            _ => None,
        }
    }

    pub fn is_up(&self, id: Number) -> bool {
        self.process_ref(id).is_some()
    }

    /// Whether the machine answers, be there a process or not.
    pub fn is_powered(&self, id: Number) -> bool {
        !matches!(self.host_ref(id).state, State::Down { powered: false })
    }

    /// The number of the newest process.
    pub fn process_of(&self, id: Number) -> u64 {
        self.host_ref(id).processes
    }

    pub fn is_process(&self, id: Number, process: u64) -> bool {
        self.is_up(id) && self.process_of(id) == process
    }

    fn arrive(&mut self, node: Number, input: Input) {
        if self.is_up(node) {
            self.give(node, input);
        } else if let Input::Request { ticket, .. } = input
            && self.is_powered(node)
        {
            self.tell_client(ticket, Heard::Refused);
        }
    }

    /// Something for a process to take in at its next turn.
    pub fn give(&mut self, node: Number, input: Input) {
        let Some(process) = self.process(node) else { return };
        process.inbox.push(input);
        let at = process.busy_until.max(process.paused_until);
        self.wake(node, at);
    }

    /// The next turn is due at `at`, or sooner if one is due sooner.
    pub fn wake(&mut self, node: Number, at: Micros) {
        let at = at.max(self.now);
        let Some(process) = self.process(node) else { return };
        if process.turn_at.is_some_and(|due| due <= at) {
            return;
        }
        process.turn_at = Some(at);
        let process = process.number;
        self.schedule(at, Event::Turn { node, process });
    }

    pub fn plan_crash(&mut self, node: Number, point: CrashPoint) {
        if let Some(process) = self.process(node) {
            process.crash_point = Some(point);
        }
    }

    pub fn pause(&mut self, node: Number, until: Micros) {
        if let Some(process) = self.process(node) {
            process.paused_until = until;
            self.faults.add(Fault::Paused);
        }
    }

    pub fn stop_clock(&mut self, node: Number, until: Micros) {
        if let Some(process) = self.process(node) {
            process.next_tick = until;
        }
    }
}
