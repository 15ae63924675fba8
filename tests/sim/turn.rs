//! What a process does, from its start to its end. A turn is that of the real server: take in what arrived,
//! let at most one tick pass, flush, send.

use super::disk::{Failure, SimDisk};
use super::faults::Fault;
use super::image::Image;
use super::progress::Before;
use super::world::{
    CrashPoint, Ending, Event, Health, Host, Input, MS, Number, Process, State, TICK, World,
};
use raftkv::kv::Limits;
use raftkv::node::{self, Outgoing, PeerMessage};
use raftkv::protocol::peer;
use raftkv::raft::{self, Distrust, Index, Message, NodeId, Waits, node_id, number};
use raftkv::replica::{Replica, ReplicaError, Speech};
use raftkv::wal::{Disk, Identity, Recovered, Wal, WalConfig, WalError};

/// Of the hello: all of these nodes are meant to talk to each other.
pub const CLUSTER_ID: u64 = 7;
const UNCOMMITTED_BYTES_MAX: usize = 4000;
const FORWARD_TIMEOUT_TICKS: u64 = 40;
/// A clock that runs ahead ticks so often.
const FAST_TICK: u64 = MS;
/// One flush out of so many is followed by a recovery of the durable bytes; with votes in it, of fewer, and
/// too if it changed more than the end of the log.
const FLUSHES_PER_RECOVERY: u32 = 256;
const CHANGES_PER_RECOVERY: u32 = 4;

impl World {
    // Start.

    pub fn start(&mut self, id: Number) {
        if !matches!(self.host(id).state, State::Down { .. }) || self.stays_out(id) {
            return;
        }
        self.trace.event(self.now, &[5, id], || format!("{id} starts"));
        self.strike_files(id);
        if self.nemesis.f64() < self.swarm.recovery_crash && !self.is_lull() {
            let left = self.nemesis.u32(0..10);
            self.host(id).disk.arm(Failure::Crash, left);
        }
        match self.open(id) {
            Ok(replica) => self.started(id, replica),
            Err(error) => {
                self.trace.tell(self.now, || format!("{id} cannot start: {error}"));
                let ending = if self.is_for_want_of_room(id, &error) {
                    Ending::Process
                } else {
                    let fired = self.host(id).disk.fired();
                    assert!(fired.is_some(), "node {id} cannot start: {error}");
                    self.faults.add(Fault::CrashInRecovery);
                    self.any_ending()
                };
                self.end_disk(id, ending);
                self.start_again(id, ending);
            }
        }
    }

    fn stays_out(&self, id: Number) -> bool {
        self.is_healed && !self.core.contains(&id)
    }

    fn open(&mut self, id: Number) -> Result<Replica<SimDisk>, WalError> {
        let seed = self.rng.u64(..);
        let wal = self.wal_config();
        let mut disk = self.host(id).disk.clone();
        let found = Identity::load_or_create(&mut disk, CLUSTER_ID, id, &name(id), seed)?;
        let config = self.node_config(id, node_id(id, found.incarnation), seed);
        let (replica, opened) = Replica::open(config, disk, wal)?;
        self.trace.tell(self.now, || format!("{id} is {found:x?} and has {opened:?}"));
        let known = self.host(id).identity.get_or_insert_with(|| found.clone());
        assert_eq!(*known, found, "node {id} is another one without having lost its disk");
        Ok(replica)
    }

    pub fn wal_config(&mut self) -> WalConfig {
        WalConfig { segment_bytes: self.swarm.segment_bytes, salt_seed: self.rng.u64(..) }
    }

    fn node_config(&self, id: Number, node: NodeId, seed: u64) -> node::Config {
        let swarm = &self.swarm;
        let raft = raft::Config {
            heartbeat_ticks: swarm.heartbeat_ticks,
            election_ticks_min: swarm.election_ticks,
            election_ticks_max: 2 * swarm.election_ticks,
            append_bytes_max: swarm.append_bytes_max,
            inflight_messages_max: swarm.inflight_messages_max,
            inflight_bytes_max: 3 * swarm.append_bytes_max,
            uncommitted_bytes_max: UNCOMMITTED_BYTES_MAX,
            ..raft::Config::new(node, [], seed)
        };
        node::Config {
            raft,
            name: name(id),
            address: address(id),
            initial: (1..=swarm.nodes).map(|id| (id, name(id))).collect(),
            auto_members: swarm.auto_members,
            limits: Limits::default(),
            forward_timeout_ticks: FORWARD_TIMEOUT_TICKS,
            snapshot_log_bytes: swarm.snapshot_log_bytes,
            snapshot_piece_bytes: swarm.snapshot_piece_bytes,
        }
    }

    fn started(&mut self, id: Number, replica: Replica<SimDisk>) {
        if self.process_of(id) > 0 {
            self.faults.add(Fault::Restarted);
        }
        let is_struck = self.host(id).health == Health::Struck;
        if self.judge.started(self.known_node_of(id), &replica, is_struck) {
            self.faults.add(Fault::FellBack);
        }
        let is_damaged = replica.node().raft().is_damaged();
        if is_struck {
            self.faults.add(if is_damaged { Fault::FoundDamaged } else { Fault::FoundHarmless });
        }
        self.host(id).health = if is_damaged { Health::Damaged } else { Health::Whole };
        let now = self.now;
        let host = self.host(id);
        host.processes += 1;
        let process = Process {
            number: host.processes,
            replica,
            inbox: Vec::new(),
            next_tick: now + host.tick,
            turn_at: None,
            busy_until: now,
            paused_until: now,
            crash_point: None,
            stops: None,
            is_told_of_removal: false,
        };
        host.state = State::Up(Box::new(process));
        self.wake(id, now);
        self.dial_all(id);
    }

    // A turn.

    pub fn turn(&mut self, id: Number, number: u64) {
        let now = self.now;
        let Some(process) = self.process(id) else { return };
        if process.number != number || process.turn_at != Some(now) {
            return;
        }
        process.turn_at = None;
        let free_at = process.busy_until.max(process.paused_until);
        if free_at > now {
            return self.wake(id, free_at);
        }
        let wall_ms = self.wall_ms(id);
        self.judge.latest_wall_ms = self.judge.latest_wall_ms.max(wall_ms);
        self.process(id).expect("it is its turn").replica.inputs().set_time(wall_ms);
        self.take_in(id);
        let ticked = self.tick(id);
        self.flush(id, ticked);
    }

    fn take_in(&mut self, id: Number) {
        let process = self.process(id).expect("it is its turn");
        for input in std::mem::take(&mut process.inbox) {
            self.trace.event(self.now, &[7, id], || format!("{id} takes in {}", words(&input)));
            let conn_now = match &input {
                Input::Peer { from, .. } => self.network.conn_with(id, *from),
                _ => None,
            };
            let me = self.known_node_of(id);
            let node = self.process(id).expect("it is its turn").replica.inputs();
            match input {
                Input::Peer { to, .. } if to != me => {}
                Input::Peer { bound_to: Some(conn), .. } if conn_now != Some(conn) => {}
                Input::Peer { from, bytes, .. } => {
                    let message = peer::decode(&bytes).expect("what a node encodes can be read");
                    match node.peer_message(from, message) {
                        Ok(()) => {}
                        // As the server does: what it says of itself with the next connection counts.
                        Err(Distrust::Stranger) => {
                            if let Some(conn) = conn_now {
                                self.close_later(self.now, id, number(from), conn, false);
                            }
                        }
                        Err(distrust) => {
                            panic!("election safety: node {id} finds that {distrust}");
                        }
                    }
                }
                Input::Connected(peer) => node.peer_connected(peer),
                Input::Unreachable(peer) => node.peer_unreachable(peer),
                Input::Ended(peer) => node.peer_process_ended(peer),
                Input::Request { ticket, request, routing } => {
                    node.request(ticket, request, routing);
                }
            }
            // One input may change the members, let a commit be counted by them, and the next undo that.
            self.look(id);
        }
    }

    fn tick(&mut self, id: Number) -> bool {
        let now = self.now;
        let host = self.host(id);
        let period = if now < host.fast_until { FAST_TICK } else { host.tick };
        let process = self.process(id).expect("it is its turn");
        if now >= process.next_tick {
            process.next_tick = (process.next_tick + period).max(now);
            process.replica.inputs().tick();
            self.trace.mix(id);
            return true;
        }
        false
    }

    fn look(&mut self, id: Number) {
        if let State::Up(process) = &self.hosts[id as usize - 1].state {
            self.judge.look(process.replica.node());
        }
        self.note_changes();
    }

    fn flush(&mut self, id: Number, ticked: bool) {
        self.look(id);
        let wanted = self.waits(ticked);
        if self.crashes_at(id, CrashPoint::BeforeFlush, |process| process.replica.has_work()) {
            self.faults.add(Fault::CrashBeforeFlush);
            let ending = self.any_ending();
            return self.end_process(id, ending, None);
        }
        let disk = self.host(id).disk.clone();
        let operations = disk.operations();
        let process = self.process(id).expect("it is its turn");
        let before = Before::of(&process.replica, &disk);
        let may_crash = process.crash_point == Some(CrashPoint::WhileSendingEarly);
        if process.replica.leaves_all(wanted) {
            let next = process.next_tick;
            return self.wake(id, next);
        }
        let (mut early, mut durable) = (Vec::new(), Vec::new());
        let mut result = process.replica.flush_with(wanted, |speech| match speech {
            Speech::Early(messages) => {
                early = messages;
                if may_crash && !early.is_empty() {
                    disk.arm(Failure::Crash, 0);
                }
            }
            Speech::Durable(messages) => durable = messages,
        });
        if let Ok(outgoing) = &mut result {
            durable.append(&mut outgoing.messages);
            outgoing.messages = durable;
        }
        let crashes = may_crash && !early.is_empty();
        if crashes {
            early.truncate(self.nemesis.usize(0..=early.len()));
        }
        let evicted = self
            .process(id)
            .map_or(0, |process| process.replica.node().raft().log().evicted().index);
        for (to, message) in early {
            if is_read_again(&message, evicted) {
                self.faults.add(Fault::LogReadAgain);
            }
            self.judge.check_early(self.known_node_of(id), &message, &disk);
            self.send(id, to, &message);
        }
        self.trace.mix(disk.hash());
        let wrote = disk.operations() > operations;
        match result {
            _ if crashes => self.crash_while_sending_early(id, wrote),
            Ok(outgoing) => self.flushed(id, outgoing, wrote, &before),
            Err(error) => self.disk_failed(id, &error),
        }
    }

    /// What the server's pace would leave for later is left to chance, but no longer than for a tick.
    fn waits(&mut self, ticked: bool) -> Waits {
        if ticked || self.rng.f64() >= self.swarm.waiting {
            return Waits::default();
        }
        Waits { sending: self.rng.bool(), own_disk: self.rng.bool() }
    }

    /// Nothing was written, or the disk was to see to it that not all was.
    fn crash_while_sending_early(&mut self, id: Number, wrote: bool) {
        self.faults.add(Fault::CrashWhileSendingEarly);
        let ending = self.any_ending();
        if wrote {
            self.end_process_in_flush(id, ending);
        } else {
            self.end_process(id, ending, None);
        }
    }

    fn crashes_at(
        &mut self,
        id: Number,
        point: CrashPoint,
        is_time: impl Fn(&Process) -> bool,
    ) -> bool {
        let Some(process) = self.process(id) else { return false };
        let is_planned = process.crash_point == Some(point) && is_time(process);
        if is_planned {
            process.crash_point = None;
        }
        is_planned
    }

    fn flushed(&mut self, id: Number, mut outgoing: Outgoing, wrote: bool, before: &Before) {
        let State::Up(process) = &self.hosts[id as usize - 1].state else {
            unreachable!("its turn")
        };
        let Host { health, disk, .. } = &self.hosts[id as usize - 1];
        let (is_struck, gave_up) = (*health == Health::Struck, before.gave_up_incoming(disk));
        let me = process.replica.node().raft().id();
        let raft = process.replica.node().raft();
        if raft.is_leader() && raft.commit_index() > raft.log().durable_index() {
            self.faults.add(Fault::CommitAheadOfOwnDisk);
        }
        self.judge.flushed(me, &process.replica, is_struck, gave_up);
        for (to, message) in &outgoing.messages {
            self.judge.check_sent(me, *to, message, &process.replica);
        }
        self.note_changes();
        let has_changed = self.note_progress(id, before);
        if wrote {
            self.recover_now_and_then(id, &outgoing, has_changed);
        }
        let has_something = !outgoing.messages.is_empty() || !outgoing.answers.is_empty();
        if self.crashes_at(id, CrashPoint::BeforeSending, |_| wrote && has_something) {
            self.faults.add(Fault::CrashBeforeSending);
            let ending = self.any_ending();
            return self.end_process(id, ending, None);
        }
        let sends_several = outgoing.messages.len() + outgoing.answers.len() > 1;
        if self.crashes_at(id, CrashPoint::WhileSending, |_| sends_several) {
            self.faults.add(Fault::CrashWhileSending);
            outgoing.messages.truncate(self.nemesis.usize(0..=outgoing.messages.len()));
            outgoing.answers.truncate(self.nemesis.usize(0..=outgoing.answers.len()));
            self.leave(id, outgoing);
            let ending = self.any_ending();
            return self.end_process(id, ending, None);
        }
        self.end_turn(id, outgoing, wrote);
    }

    /// What the flush held back leaves when the disk is done, and so long the process does nothing else.
    fn end_turn(&mut self, id: Number, outgoing: Outgoing, wrote: bool) {
        let now = self.now;
        let mut takes = 0;
        if wrote {
            let (least, most) = self.swarm.disk_latency;
            takes = self.rng.u64(least..=most);
            let (slow_until, slowness) = self.host(id).slow;
            takes += if now < slow_until { slowness } else { 0 };
        }
        let process = self.process(id).expect("it is its turn");
        process.busy_until = now + takes;
        let has_work = process.replica.has_work() || !process.inbox.is_empty();
        let next = if has_work { now } else { process.next_tick };
        let next = next.max(process.busy_until);
        let number = process.number;
        self.wake(id, next);
        if takes == 0 || outgoing == Outgoing::default() {
            self.leave(id, outgoing);
            self.stop_if_it_may(id);
        } else {
            self.schedule(now + takes, Event::Leave { node: id, process: number, outgoing });
        }
    }

    pub fn leave(&mut self, id: Number, outgoing: Outgoing) {
        for (to, message) in &outgoing.messages {
            self.send(id, *to, message);
        }
        for (ticket, answer) in outgoing.answers {
            self.answer_client(ticket, answer);
        }
    }

    fn recover_now_and_then(&mut self, id: Number, outgoing: &Outgoing, has_changed: bool) {
        let is_vote = |message: &PeerMessage| {
            matches!(
                message,
                PeerMessage::Raft(
                    Message::VoteReply { granted: true, .. } | Message::RequestVote { .. }
                )
            )
        };
        let has_vote = outgoing.messages.iter().any(|(_, message)| is_vote(message));
        let is_special = has_vote || has_changed;
        let per = if is_special { CHANGES_PER_RECOVERY } else { FLUSHES_PER_RECOVERY };
        if self.rng.u32(0..per) > 0 || self.host(id).health == Health::Struck {
            return;
        }
        let image = self.host(id).disk.durable_image();
        let config = self.wal_config();
        let recovered = recover(id, image, config).expect("what is synced can be read");
        let (found, promised) =
            (self.judge.image_of(&recovered), self.judge.durable(self.known_node_of(id)));
        assert_eq!(&found, promised, "node {id}: not on its disk, after a sync");
    }

    // The end of a process.

    fn disk_failed(&mut self, id: Number, error: &ReplicaError) {
        let (failure, operation) = self.host(id).disk.fired().unwrap_or_else(|| {
            panic!("node {id} ends without a fault of its disk: {error}");
        });
        self.count_disk_fault(failure, operation);
        let ending = self.any_ending();
        self.end_process_in_flush(id, ending);
    }

    /// Not even the reserve is there, which a start may need.
    fn is_for_want_of_room(&mut self, id: Number, error: &WalError) -> bool {
        let is_so = error.is_full() && self.host(id).disk.is_full();
        if is_so {
            self.faults.add(Fault::NoStartOnFullDisk);
        }
        is_so
    }

    fn any_ending(&mut self) -> Ending {
        if self.nemesis.bool() { Ending::Process } else { Ending::Machine }
    }

    fn end_process_in_flush(&mut self, id: Number, ending: Ending) {
        let process = self.process_ref(id).expect("it is its turn");
        let under_way: Image = self.judge.under_way(self.known_node_of(id), &process.replica);
        self.end_process(id, ending, Some(under_way));
    }

    /// `under_way`: the log as it would be if the flush had come to its end.
    pub fn end_process(&mut self, id: Number, ending: Ending, under_way: Option<Image>) {
        if !self.is_up(id) {
            return;
        }
        self.trace.event(self.now, &[8, id], || format!("{id} ends: {ending:?}"));
        self.judge.ended(self.known_node_of(id), under_way);
        self.host(id).state = State::Down { powered: ending == Ending::Process };
        self.drop_connections(id);
        self.drop_clients(id);
        self.end_disk(id, ending);
        self.start_again(id, ending);
    }

    fn end_disk(&mut self, id: Number, ending: Ending) {
        let host = self.host(id);
        match ending {
            Ending::Process => host.disk.process_ended(),
            Ending::Machine => {
                let cut = host.disk.power_cut();
                match (cut.kept, cut.lost) {
                    (0, 1..) => self.faults.add(Fault::UnsyncedForgotten),
                    (1.., 1..) => self.faults.add(Fault::UnsyncedTorn),
                    _ => {}
                }
                if cut.is_reordered {
                    self.faults.add(Fault::UnsyncedReordered);
                }
            }
        }
    }

    fn start_again(&mut self, id: Number, ending: Ending) {
        self.host(id).state = State::Down { powered: ending == Ending::Process };
        let down = self.nemesis.u64(MS..=self.swarm.down_max.max(TICK));
        self.schedule(self.now + down, Event::Start(id));
    }
}

pub fn name(id: Number) -> String {
    format!("sim-{id}")
}

pub fn address(id: Number) -> String {
    format!("{}:6000", name(id))
}

/// What a start would find on a disk.
pub fn recover<D: Disk>(id: Number, mut disk: D, config: WalConfig) -> Result<Recovered, WalError> {
    Identity::load_or_create(&mut disk, CLUSTER_ID, id, &name(id), 0)?;
    Ok(Wal::open(disk, config)?.1)
}

fn words(input: &Input) -> String {
    match input {
        Input::Peer { from, bytes, .. } => format!("{:?} of {from}", peer::decode(bytes)),
        other => format!("{other:?}"),
    }
}

/// Whether it has entries that are not in its sender's memory.
fn is_read_again(message: &PeerMessage, evicted: Index) -> bool {
    let PeerMessage::Raft(Message::AppendEntries { entries, .. }) = message else { return false };
    entries.first().is_some_and(|entry| entry.index <= evicted)
}
