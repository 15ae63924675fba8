//! A cluster of cores in memory: each with a disk that may be slow or lose what it was not yet
//! given, and a network that delivers what it is told to, when it is told to. Nothing in here
//! decides: scripts, tests and random walks do.

use super::core::{command, config};
use raftkv::raft::{
    Config, ConfirmedRead, Entry, HardState, Message, NodeId, Position, ProposeError, Raft, ReadId,
    Ready,
};
use std::collections::{BTreeMap, BTreeSet};

/// Turns that a server may need in a row before it waits for something. More is a core that spins.
const TURNS_MAX: usize = 10;

/// What a server remembers over a crash.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    pub hard_state: HardState,
    pub entries: Vec<Entry>,
}

impl Disk {
    /// Writes the first `records` of what the `Ready` asks for, in its order.
    fn write(&mut self, ready: &Ready, records: usize) {
        let mut left = records;
        if let Some(hard_state) = ready.hard_state {
            if left == 0 {
                return;
            }
            self.hard_state = hard_state;
            left -= 1;
        }
        for entry in ready.entries.iter().take(left) {
            assert!(entry.index <= self.entries.len() as u64 + 1, "a gap before {}", entry.index);
            self.entries.truncate(entry.index as usize - 1);
            self.entries.push(entry.clone());
        }
    }

    pub fn holds(&self, entry: &Entry) -> bool {
        self.entries.get(entry.index as usize - 1) == Some(entry)
    }
}

/// One node: a core, unless it is crashed, and its disk.
#[derive(Debug)]
pub struct Server {
    config: Config,
    pub disk: Disk,
    core: Option<Raft>,
    /// Handed to the disk, and not yet known to be on it.
    writing: Option<Ready>,
    /// The disk finishes only when it is told to.
    pub disk_is_slow: bool,
    /// Read confirmations and abortions that nobody has looked at yet.
    pub confirmed_reads: Vec<ConfirmedRead>,
    pub aborted_reads: Vec<ReadId>,
    starts: u64,
}

impl Server {
    fn new(config: Config) -> Self {
        let mut server = Server {
            config,
            disk: Disk::default(),
            core: None,
            writing: None,
            disk_is_slow: false,
            confirmed_reads: Vec::new(),
            aborted_reads: Vec::new(),
            starts: 0,
        };
        server.start();
        server
    }

    fn start(&mut self) {
        let Disk { hard_state, entries } = self.disk.clone();
        let seed = self.config.seed.wrapping_add(self.starts << 32);
        self.core = Some(Raft::new(Config { seed, ..self.config.clone() }, hard_state, entries));
        self.starts += 1;
    }

    pub fn is_up(&self) -> bool {
        self.core.is_some()
    }

    /// The core of a server that is known to be up.
    pub fn raft(&self) -> &Raft {
        self.core.as_ref().expect("the server is up")
    }

    /// To be asked what no message asks.
    pub fn core_mut(&mut self) -> &mut Raft {
        self.raft_mut()
    }

    pub fn core(&self) -> Option<&Raft> {
        self.core.as_ref()
    }

    fn raft_mut(&mut self) -> &mut Raft {
        self.core.as_mut().expect("the server is up")
    }

    pub fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// How many records the disk is busy with.
    pub fn records_being_written(&self) -> usize {
        self.writing
            .as_ref()
            .map_or(0, |ready| usize::from(ready.hard_state.is_some()) + ready.entries.len())
    }
}

#[derive(Debug, Clone)]
pub struct Envelope {
    pub from: NodeId,
    pub to: NodeId,
    pub message: Message,
}

pub struct Cluster {
    servers: BTreeMap<NodeId, Server>,
    /// Sent and not yet delivered, oldest first.
    pub in_flight: Vec<Envelope>,
    cut: BTreeSet<(NodeId, NodeId)>,
}

impl Cluster {
    pub fn new(voters: u64) -> Self {
        Self::with(voters, |_| {})
    }

    /// A cluster whose configurations are changed by `adjust`.
    pub fn with(voters: u64, adjust: impl Fn(&mut Config)) -> Self {
        let server = |id| {
            let mut config = config(id, voters);
            adjust(&mut config);
            (id, Server::new(config))
        };
        Cluster {
            servers: (1..=voters).map(server).collect(),
            in_flight: Vec::new(),
            cut: BTreeSet::new(),
        }
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.servers.keys().copied().collect()
    }

    pub fn up(&self) -> Vec<NodeId> {
        self.servers.iter().filter(|(_, server)| server.is_up()).map(|(id, _)| *id).collect()
    }

    pub fn servers(&self) -> impl Iterator<Item = (NodeId, &Server)> {
        self.servers.iter().map(|(id, server)| (*id, server))
    }

    pub fn server(&self, id: NodeId) -> &Server {
        &self.servers[&id]
    }

    pub fn server_mut(&mut self, id: NodeId) -> &mut Server {
        self.servers.get_mut(&id).expect("the server exists")
    }

    pub fn raft(&self, id: NodeId) -> &Raft {
        self.server(id).raft()
    }

    /// The leader of the newest term, if it is up.
    pub fn leader(&self) -> Option<NodeId> {
        self.servers()
            .filter_map(|(_, server)| server.core())
            .filter(|raft| raft.is_leader())
            .max_by_key(|raft| raft.term())
            .map(Raft::id)
    }

    // Inputs. None of them takes the server's turn.

    pub fn tick(&mut self, id: NodeId) {
        self.server_mut(id).raft_mut().tick();
    }

    pub fn propose(&mut self, id: NodeId, text: &str) -> Result<Position, ProposeError> {
        self.server_mut(id).raft_mut().propose(command(text))
    }

    pub fn read(&mut self, id: NodeId, read: ReadId) -> bool {
        self.server_mut(id).raft_mut().read(read)
    }

    pub fn peer_connected(&mut self, id: NodeId, peer: NodeId) {
        self.server_mut(id).raft_mut().peer_connected(peer);
    }

    pub fn peer_unreachable(&mut self, id: NodeId, peer: NodeId) {
        self.server_mut(id).raft_mut().peer_unreachable(peer);
    }

    pub fn peer_process_ended(&mut self, id: NodeId, peer: NodeId) {
        self.server_mut(id).raft_mut().peer_process_ended(peer);
    }

    /// Whether what leaves for `to` arrives there now.
    pub fn is_connected(&self, from: NodeId, to: NodeId) -> bool {
        !self.cut.contains(&(from, to)) && self.server(to).is_up()
    }

    /// Hands a message to its receiver. Returns whether it arrived.
    pub fn arrive(&mut self, envelope: Envelope) -> bool {
        let Envelope { from, to, message } = envelope;
        if !self.is_connected(from, to) {
            return false;
        }
        let step = self.server_mut(to).raft_mut().step(from, message);
        step.expect("no two leaders of one term");
        true
    }

    // A server's turn, in its two halves.

    /// Asks the core what is to be done: what may leave early leaves, the rest is handed to the
    /// disk.
    pub fn begin_turn(&mut self, id: NodeId) {
        let server = self.server_mut(id);
        assert!(!server.is_writing(), "the disk is busy");
        let mut ready = server.raft_mut().take_ready();
        let early = std::mem::take(&mut ready.early);
        server.writing = Some(ready);
        self.post(id, early);
    }

    /// The disk is done: the rest leaves.
    pub fn finish_turn(&mut self, id: NodeId) {
        let server = self.server_mut(id);
        let ready = server.writing.take().expect("the disk is writing something");
        server.disk.write(&ready, usize::MAX);
        server.raft_mut().persisted();
        let confirmed = server.raft_mut().take_reads();
        server.confirmed_reads.extend(confirmed);
        let aborted = server.raft_mut().take_aborted_reads();
        server.aborted_reads.extend(aborted);
        self.post(id, ready.messages);
    }

    fn post(&mut self, from: NodeId, messages: Vec<(NodeId, Message)>) {
        let envelopes = messages.into_iter().map(|(to, message)| Envelope { from, to, message });
        self.in_flight.extend(envelopes);
    }

    /// Turns for as long as the core has something to do and the disk keeps up.
    pub fn turn(&mut self, id: NodeId) {
        for _ in 0..TURNS_MAX {
            let server = self.server(id);
            if server.is_writing() || !server.core().is_some_and(Raft::has_ready) {
                return;
            }
            self.begin_turn(id);
            if !self.server(id).disk_is_slow {
                self.finish_turn(id);
            }
        }
        panic!("server {id} has work after {TURNS_MAX} turns without any input");
    }

    // Faults.

    /// The process ends; of what the disk was busy with, `records` are on it.
    pub fn crash(&mut self, id: NodeId, records: usize) {
        let server = self.server_mut(id);
        if let Some(ready) = server.writing.take() {
            server.disk.write(&ready, records);
        }
        server.core = None;
        server.confirmed_reads.clear();
        server.aborted_reads.clear();
    }

    /// The process starts again, from its disk.
    pub fn restart(&mut self, id: NodeId) {
        assert!(!self.server(id).is_up(), "server {id} is up");
        self.server_mut(id).start();
    }

    /// Cuts one direction between two servers.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    /// Cuts both directions between one group and the other.
    pub fn partition(&mut self, group: &[NodeId], others: &[NodeId]) {
        for (a, b) in group.iter().flat_map(|a| others.iter().map(move |b| (*a, *b))) {
            self.cut(a, b);
            self.cut(b, a);
        }
    }

    pub fn isolate(&mut self, id: NodeId) {
        let others: Vec<NodeId> = self.ids().into_iter().filter(|other| *other != id).collect();
        self.partition(&[id], &others);
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    // Time in which nothing goes wrong but what is cut or crashed.

    /// Delivers until nothing is in flight, every receiver taking its turn. Returns how many
    /// arrived.
    pub fn settle(&mut self) -> usize {
        let mut arrived = 0;
        while !self.in_flight.is_empty() {
            let envelope = self.in_flight.remove(0);
            let to = envelope.to;
            if self.arrive(envelope) {
                arrived += 1;
                self.turn(to);
            }
        }
        arrived
    }

    /// Ticks everybody and delivers everything, `ticks` times. Returns how many messages arrived.
    pub fn run(&mut self, ticks: u32) -> usize {
        let mut arrived = 0;
        for _ in 0..ticks {
            for id in self.up() {
                self.tick(id);
                self.turn(id);
            }
            arrived += self.settle();
        }
        arrived
    }

    /// Runs until `condition` holds. Returns the ticks it took.
    pub fn run_until(&mut self, ticks_max: u32, condition: impl Fn(&Cluster) -> bool) -> u32 {
        for ticks in 0..=ticks_max {
            if condition(self) {
                return ticks;
            }
            self.run(1);
        }
        panic!("not within {ticks_max} ticks: {}", self.summary());
    }

    /// Runs until there is a leader whose no-op is committed, and says who it is.
    pub fn elect(&mut self) -> NodeId {
        let is_settled = |cluster: &Cluster| {
            cluster.leader().is_some_and(|id| {
                let raft = cluster.raft(id);
                raft.log().term_at(raft.commit_index()) == Some(raft.term())
            })
        };
        self.run_until(20 * super::core::ELECTION_TICKS_MAX, is_settled);
        self.leader().expect("there is a leader")
    }

    /// Time passes for `id` alone until it asks for pre-votes.
    pub fn campaign(&mut self, id: NodeId) {
        for _ in 0..=super::core::ELECTION_TICKS_MAX {
            self.tick(id);
            let asks = self.raft(id).has_ready();
            self.turn(id);
            if asks {
                return;
            }
        }
        panic!("server {id} did not time out");
    }

    pub fn summary(&self) -> String {
        let of = |(id, server): (NodeId, &Server)| match server.core() {
            None => format!("{id} crashed"),
            Some(raft) => format!(
                "{id}@{} {} last={} commit={}",
                raft.term(),
                raft.role_name(),
                raft.log().last().index,
                raft.commit_index()
            ),
        };
        self.servers().map(of).collect::<Vec<_>>().join("; ")
    }
}
