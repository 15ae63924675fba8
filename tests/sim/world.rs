//! The world of one run: machines, their processes, the network between them, clients, and the events that
//! are due. One thread, one seed, time in microseconds that passes only from event to event.

use super::clients::{Clients, Ticket};
use super::disk::SimDisk;
use super::faults::{Counts, Fault, Strike, Swarm};
use super::invariants::Judge;
use super::network::{ConnId, Network, Pair};
use super::progress::Transfers;
use super::trace::Trace;
use raftkv::kv::{Answer, Request};
use raftkv::node::{Outgoing, Routing};
use raftkv::raft::NodeId;
use raftkv::replica::Replica;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::rc::Rc;

/// Microseconds since the run began.
pub type Micros = u64;
pub const MS: Micros = 1000;
pub const SECOND: Micros = 1000 * MS;

/// A tick of a clock that does not drift.
pub const TICK: Micros = 10 * MS;

/// After all faults have ended, everything must be well within this time.
const CALM_MAX: Micros = 10 * SECOND;

/// What reaches a process. It takes it in at its next turn.
#[derive(Debug)]
pub enum Input {
    /// A message, and the connection without which it is worth nothing.
    Peer {
        from: NodeId,
        bound_to: Option<ConnId>,
        bytes: Rc<[u8]>,
    },
    Connected(NodeId),
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
    Arrive(NodeId, Input),
    Turn {
        node: NodeId,
        process: u64,
    },
    /// A flush is over, and what it held back leaves.
    Leave {
        node: NodeId,
        process: u64,
        outgoing: Outgoing,
    },
    Start(NodeId),
    /// A disk is not full any more, unless it was struck again.
    SpaceAgain(NodeId),
    Strike(Strike, Micros),
    // Connections.
    Dial {
        node: NodeId,
        process: u64,
        peer: NodeId,
    },
    Probe {
        node: NodeId,
        process: u64,
        peer: NodeId,
    },
    Connect(Pair),
    Closed {
        node: NodeId,
        peer: NodeId,
        conn: ConnId,
        by_other_side: bool,
    },
    // Clients.
    ClientActs(usize),
    ClientHears(Ticket, Heard),
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
    pub state: State,
    pub health: Health,
    pub processes: u64,
    /// How long a tick takes by its clock.
    pub tick: Micros,
    pub fast_until: Micros,
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
    pub clients: Clients,
    pub judge: Judge,
    pub faults: Counts,
    pub trace: Trace,
    /// For faults, for hosts.
    pub nemesis: fastrand::Rng,
    pub rng: fastrand::Rng,
    /// Faults have ended; the cluster has to get well.
    pub is_healed: bool,
    /// Who is to get well.
    pub core: Vec<NodeId>,
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
    world.run_until(healed + CALM_MAX, World::is_well);
    assert!(world.is_well(), "liveness: {}", world.what_is_missing());
    let calm = world.now - healed;
    let is_decided = world.check_end();
    Report {
        hash: world.trace.hash(),
        faults: world.faults,
        events: world.last_event,
        terms_led: world.judge.terms_led() as u64,
        committed: world.judge.committed(),
        answered: world.clients.answered,
        unknown: world.clients.unknown,
        calm,
        is_decided,
    }
}

impl World {
    fn new(seed: u64, is_told: bool) -> World {
        let mut rng = fastrand::Rng::with_seed(seed);
        let swarm = Swarm::draw(&mut rng.fork());
        let hosts = (0..swarm.nodes)
            .map(|_| Host {
                disk: SimDisk::new(rng.u64(..)),
                state: State::Down { powered: true },
                health: Health::Whole,
                processes: 0,
                tick: TICK + (TICK as f64 * swarm.drift * (2.0 * rng.f64() - 1.0)) as Micros,
                fast_until: 0,
                slow: (0, 0),
                full_until: 0,
            })
            .collect();
        let mut faults = Counts::default();
        if swarm.drift > 0.0 {
            faults.add(Fault::ClockDrift);
        }
        let world = World {
            now: 0,
            events: BTreeMap::new(),
            last_event: 0,
            hosts,
            network: Network::new(rng.fork()),
            transfers: Transfers::new(),
            cut_transfer_after: None,
            clients: Clients::new(&swarm, rng.fork()),
            judge: Judge::new(1..=swarm.nodes),
            faults,
            trace: Trace::new(is_told),
            nemesis: rng.fork(),
            rng: rng.fork(),
            is_healed: false,
            core: Vec::new(),
            swarm,
        };
        world.trace.tell(0, || format!("seed {seed}: {:#?}", world.swarm));
        world
    }

    fn start_all(&mut self) {
        for id in self.ids() {
            let at = self.rng.u64(0..=20 * MS);
            self.schedule(at, Event::Start(id));
        }
        self.let_loose();
        self.begin_clients();
    }

    pub fn schedule(&mut self, at: Micros, event: Event) {
        self.last_event += 1;
        self.events.insert((at.max(self.now), self.last_event), event);
    }

    /// Lets time pass until nothing is due any more before `end`, or `is_enough`.
    fn run_until(&mut self, end: Micros, is_enough: impl Fn(&World) -> bool) {
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
                }
            }
            Event::Start(node) => self.start(node),
            Event::SpaceAgain(node) => self.space_again(node),
            Event::Strike(strike, every) => self.strike(strike, every),
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
        }
        false
    }

    // Machines and their processes.

    pub fn ids(&self) -> RangeInclusive<NodeId> {
        1..=self.hosts.len() as NodeId
    }

    pub fn host(&mut self, id: NodeId) -> &mut Host {
        &mut self.hosts[id as usize - 1]
    }

    fn host_ref(&self, id: NodeId) -> &Host {
        &self.hosts[id as usize - 1]
    }

    pub fn process(&mut self, id: NodeId) -> Option<&mut Process> {
        match &mut self.host(id).state {
            State::Up(process) => Some(process),
            _ => None,
        }
    }

    pub fn process_ref(&self, id: NodeId) -> Option<&Process> {
        match &self.host_ref(id).state {
            State::Up(process) => Some(process),
            _ => None,
        }
    }

    pub fn is_up(&self, id: NodeId) -> bool {
        self.process_ref(id).is_some()
    }

    /// Whether the machine answers, be there a process or not.
    pub fn is_powered(&self, id: NodeId) -> bool {
        !matches!(self.host_ref(id).state, State::Down { powered: false })
    }

    /// The number of the newest process.
    pub fn process_of(&self, id: NodeId) -> u64 {
        self.host_ref(id).processes
    }

    pub fn is_process(&self, id: NodeId, process: u64) -> bool {
        self.is_up(id) && self.process_of(id) == process
    }

    fn arrive(&mut self, node: NodeId, input: Input) {
        if self.is_up(node) {
            self.give(node, input);
        } else if let Input::Request { ticket, .. } = input
            && self.is_powered(node)
        {
            self.tell_client(ticket, Heard::Refused);
        }
    }

    /// Something for a process to take in at its next turn.
    pub fn give(&mut self, node: NodeId, input: Input) {
        let Some(process) = self.process(node) else { return };
        process.inbox.push(input);
        let at = process.busy_until.max(process.paused_until);
        self.wake(node, at);
    }

    /// The next turn is due at `at`, or sooner if one is due sooner.
    pub fn wake(&mut self, node: NodeId, at: Micros) {
        let at = at.max(self.now);
        let Some(process) = self.process(node) else { return };
        if process.turn_at.is_some_and(|due| due <= at) {
            return;
        }
        process.turn_at = Some(at);
        let process = process.number;
        self.schedule(at, Event::Turn { node, process });
    }

    pub fn plan_crash(&mut self, node: NodeId, point: CrashPoint) {
        if let Some(process) = self.process(node) {
            process.crash_point = Some(point);
        }
    }

    pub fn pause(&mut self, node: NodeId, until: Micros) {
        if let Some(process) = self.process(node) {
            process.paused_until = until;
            self.faults.add(Fault::Paused);
        }
    }

    pub fn stop_clock(&mut self, node: NodeId, until: Micros) {
        if let Some(process) = self.process(node) {
            process.next_tick = until;
        }
    }

    // The end.

    /// All faults end. Those that are to get well are a majority, or everybody.
    fn heal(&mut self) {
        self.trace.event(self.now, &[4], || "everything is healed".to_owned());
        self.is_healed = true;
        self.cut_transfer_after = None;
        self.network.unblock_all();
        self.choose_core();
        let swarm = &mut self.swarm;
        (swarm.loss, swarm.delay, swarm.duplication, swarm.request_loss) = (0.0, 0.0, 0.0, 0.0);
        (swarm.recovery_crash, swarm.rot) = (0.0, 0.0);
        swarm.disk_latency = (20, 200);
        for id in self.ids() {
            let now = self.now;
            let host = self.host(id);
            host.disk.disarm();
            host.disk.set_full(false);
            (host.fast_until, host.slow) = (0, (0, 0));
            if let State::Up(process) = &mut host.state {
                process.crash_point = None;
                process.paused_until = now;
                process.next_tick = process.next_tick.min(now + TICK);
            }
            self.wake(id, now);
            if !self.core.contains(&id) {
                self.leave_out(id);
            } else if !self.is_up(id) {
                self.schedule(now + MS, Event::Start(id));
            }
        }
        self.begin_probe();
    }

    /// Everybody, or as few as can get well: a majority that has lost nothing.
    fn choose_core(&mut self) {
        let (mut whole, mut ill): (Vec<NodeId>, Vec<NodeId>) =
            self.ids().partition(|id| self.host_ref(*id).health == Health::Whole);
        self.nemesis.shuffle(&mut whole);
        if self.nemesis.bool() {
            whole.truncate(self.hosts.len() / 2 + 1);
            ill.retain(|_| self.nemesis.bool());
        }
        self.core = [whole, ill].concat();
        self.core.sort_unstable();
    }

    /// Those that are not to get well are dead, or alone.
    fn leave_out(&mut self, id: NodeId) {
        if self.nemesis.bool() {
            self.end_process(id, Ending::Machine, None);
        }
        for other in self.ids().filter(|other| *other != id) {
            self.network.block(id, other);
            self.network.block(other, id);
        }
    }

    /// A leader has answered a write and a read, everybody is whole and has caught up, no client waits.
    fn is_well(&self) -> bool {
        self.clients.are_content() && self.core.iter().all(|id| self.has_caught_up(*id))
    }

    fn has_caught_up(&self, id: NodeId) -> bool {
        self.process_ref(id).is_some_and(|process| {
            let node = process.replica.node();
            !node.raft().is_damaged() && node.machine().applied() == self.judge.committed()
        })
    }

    fn what_is_missing(&self) -> String {
        let state = |id: NodeId| match self.process_ref(id).map(|p| p.replica.node()) {
            None => format!("{id} is down"),
            Some(node) => format!(
                "{id} is {}{} in term {}, log up to {}, applied {}",
                if node.raft().is_damaged() { "damaged " } else { "" },
                node.raft().role_name(),
                node.raft().term(),
                node.raft().log().last().index,
                node.machine().applied()
            ),
        };
        let states: Vec<String> = self.core.iter().map(|id| state(*id)).collect();
        format!(
            "{} ms after the last fault, of {} entries: {}; {}",
            CALM_MAX / MS,
            self.judge.committed(),
            states.join("; "),
            self.clients.who_waits()
        )
    }

    fn check_end(&self) -> bool {
        for &id in &self.core {
            let process = self.process_ref(id).expect("the core is up");
            self.judge.check_state(id, process.replica.node());
        }
        self.check_history()
    }
}
