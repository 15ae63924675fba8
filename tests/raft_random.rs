//! Random walks of whole clusters: messages are lost, delayed, repeated and reordered, links are
//! cut, disks are slow, processes end between any two steps of a turn with any part of it on disk.
//! After every step the promises of `common/checker.rs` are checked; then everything is healed, and
//! the cluster must get on.
//!
//! A walk is repeated by its seed: `SEED=7 cargo test --test raft_random -- --nocapture` also
//! prints each step.

mod common;

use common::checker::Checker;
use common::cluster::{Cluster, Envelope};
use common::core::{ELECTION_TICKS_MAX, HEARTBEAT_TICKS};
use common::text;
use raftkv::raft::{NodeId, Raft, ReadId};
use std::ops::Range;

const STEPS: usize = 8_000;
/// The network forgets the oldest message beyond this, or a walk would drown in old ones.
const IN_FLIGHT_MAX: usize = 60;

/// What the walks came across: a walk in which nothing happens proves nothing.
#[derive(Debug, Default)]
struct Counts {
    leaders: usize,
    committed: usize,
    reads_confirmed: usize,
    reads_given_up: usize,
    entries_replaced: usize,
    repeated: usize,
    lost: usize,
    crashes_while_writing: usize,
    refused_by_limits: usize,
}

struct Walk<'a> {
    cluster: Cluster,
    checker: Checker,
    rng: fastrand::Rng,
    counts: &'a mut Counts,
    last_read: ReadId,
    proposals: u64,
    is_told: bool,
}

/// How a failure is repeated, printed when a check panics.
struct Repeat(u64);

impl Drop for Repeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to repeat: SEED={} cargo test --test raft_random -- --nocapture", self.0);
        }
    }
}

impl<'a> Walk<'a> {
    fn new(voters: u64, seed: u64, is_told: bool, counts: &'a mut Counts) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        // Small limits, so that windows fill and entries are split.
        let messages_max = rng.usize(1..=4);
        let bytes_max = rng.usize(1..=4) * 50;
        let cluster = Cluster::with(voters, |config| {
            config.seed = seed * 10 + config.id;
            config.inflight_messages_max = messages_max;
            config.append_bytes_max = bytes_max;
            config.inflight_bytes_max = 2 * bytes_max;
            config.uncommitted_bytes_max = 600;
        });
        Walk {
            cluster,
            checker: Checker::default(),
            rng,
            counts,
            last_read: 0,
            proposals: 0,
            is_told,
        }
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_told {
            eprintln!("{}", what());
        }
    }

    fn any(&mut self, ids: &[NodeId]) -> Option<NodeId> {
        self.rng.choice(ids).copied()
    }

    fn any_up(&mut self) -> Option<NodeId> {
        let up = self.cluster.up();
        self.any(&up)
    }

    /// One random step, and the checks of whoever took it.
    fn step(&mut self) {
        let touched = match self.rng.u32(0..1000) {
            0..330 => self.deliver(),
            330..640 => self.turn(),
            640..820 => self.tick(),
            820..920 => self.propose(),
            920..950 => self.read(),
            950..960 => self.notice(),
            960..968 => self.crash(),
            968..985 => self.restart(),
            985..994 => self.cut(),
            _ => self.heal(),
        };
        if let Some(id) = touched {
            self.check(id);
        }
        while self.cluster.in_flight.len() > IN_FLIGHT_MAX {
            self.cluster.in_flight.remove(0);
            self.counts.lost += 1;
        }
    }

    fn check(&mut self, id: NodeId) {
        self.checker.check(&self.cluster, id);
        let server = self.cluster.server_mut(id);
        for read in std::mem::take(&mut server.confirmed_reads) {
            self.checker.check_read(read.id, read.index);
            self.counts.reads_confirmed += 1;
        }
        self.counts.reads_given_up += std::mem::take(&mut server.aborted_reads).len();
    }

    /// Any message, mostly one of the oldest: it arrives, arrives and stays to arrive again, or is
    /// lost.
    fn deliver(&mut self) -> Option<NodeId> {
        let in_flight = self.cluster.in_flight.len();
        if in_flight == 0 {
            return None;
        }
        let oldest = if self.rng.u32(0..4) > 0 { in_flight.min(3) } else { in_flight };
        let index = self.rng.usize(0..oldest);
        let fate = self.rng.u32(0..100);
        let envelope = if fate < 10 {
            self.counts.repeated += 1;
            self.cluster.in_flight[index].clone()
        } else {
            self.cluster.in_flight.remove(index)
        };
        if (10..17).contains(&fate) {
            self.counts.lost += 1;
            return None;
        }
        let Envelope { from, to, ref message } = envelope;
        self.tell(|| format!("{from} -> {to} {}", text::message(message)));
        self.checker.check_sent(&envelope);
        let last = |cluster: &Cluster| cluster.server(to).core().map(|raft| raft.log().last());
        let before = last(&self.cluster);
        self.cluster.arrive(envelope);
        let after = last(&self.cluster);
        if let (Some(before), Some(after)) = (before, after)
            && self.cluster.raft(to).log().term_at(before.index) != Some(before.term)
        {
            self.tell(|| format!("{to} replaces {before:?}, ends with {after:?}"));
            self.counts.entries_replaced += 1;
        }
        Some(to)
    }

    /// Half a turn of somebody: asks the core, or finishes the writing.
    fn turn(&mut self) -> Option<NodeId> {
        let has_half_a_turn = |id: &NodeId| {
            let server = self.cluster.server(*id);
            server.is_writing() || server.core().is_some_and(Raft::has_ready)
        };
        let ids: Vec<NodeId> = self.cluster.up().into_iter().filter(has_half_a_turn).collect();
        let id = self.any(&ids)?;
        if self.cluster.server(id).is_writing() {
            self.tell(|| format!("{id} has written"));
            self.cluster.finish_turn(id);
        } else {
            self.tell(|| format!("{id} writes"));
            let was_leader = self.cluster.raft(id).is_leader();
            self.cluster.begin_turn(id);
            assert_eq!(self.cluster.raft(id).is_leader(), was_leader, "asking changes no role");
        }
        Some(id)
    }

    fn tick(&mut self) -> Option<NodeId> {
        let id = self.any_up()?;
        self.cluster.tick(id);
        Some(id)
    }

    /// At anybody who says it leads, be it of an older term.
    fn any_leader(&mut self) -> Option<NodeId> {
        let leads = |id: &NodeId| self.cluster.raft(*id).is_leader();
        let ids: Vec<NodeId> = self.cluster.up().into_iter().filter(leads).collect();
        self.any(&ids)
    }

    fn propose(&mut self) -> Option<NodeId> {
        let id = self.any_leader()?;
        self.proposals += 1;
        let text = format!("{}", self.proposals);
        self.tell(|| format!("{id} is proposed {text}"));
        let refused = self.cluster.propose(id, &text).is_err();
        self.counts.refused_by_limits += usize::from(refused);
        Some(id)
    }

    fn read(&mut self) -> Option<NodeId> {
        let id = self.any_leader()?;
        self.last_read += 1;
        self.tell(|| format!("{id} is asked to read"));
        assert!(self.cluster.read(id, self.last_read), "a leader takes reads");
        self.checker.read_begins(self.last_read);
        Some(id)
    }

    /// What a network may say of a peer, true or not.
    fn notice(&mut self) -> Option<NodeId> {
        let id = self.any_up()?;
        let ids = self.cluster.ids();
        let peer = self.any(&ids).filter(|peer| *peer != id)?;
        match self.rng.u32(0..3) {
            0 => self.cluster.peer_connected(id, peer),
            1 => self.cluster.peer_unreachable(id, peer),
            _ => self.cluster.peer_process_ended(id, peer),
        }
        Some(id)
    }

    /// Whom a fault hits: every second time a leader, where it does most harm.
    fn victim(&mut self) -> Option<NodeId> {
        let leader = if self.rng.bool() { self.any_leader() } else { None };
        leader.or_else(|| self.any_up())
    }

    /// With any part of what was being written on disk.
    fn crash(&mut self) -> Option<NodeId> {
        let id = self.victim()?;
        let records = self.cluster.server(id).records_being_written();
        self.counts.crashes_while_writing += usize::from(records > 0);
        let written = self.rng.usize(0..=records);
        self.tell(|| format!("{id} crashes, {written} of {records} records are written"));
        self.cluster.crash(id, written);
        self.checker.crashed(id);
        None
    }

    fn restart(&mut self) -> Option<NodeId> {
        let down: Vec<NodeId> = self
            .cluster
            .servers()
            .filter(|(_, server)| !server.is_up())
            .map(|(id, _)| id)
            .collect();
        let id = self.any(&down)?;
        self.tell(|| format!("{id} starts"));
        self.cluster.restart(id);
        Some(id)
    }

    fn cut(&mut self) -> Option<NodeId> {
        let ids = self.cluster.ids();
        let (a, b) = (self.victim()?, self.any(&ids)?);
        self.tell(|| format!("links of {a} are cut"));
        match self.rng.u32(0..3) {
            0 => self.cluster.isolate(a),
            1 => self.cluster.partition(&[a], &[b]),
            _ => self.cluster.cut(a, b),
        }
        None
    }

    fn heal(&mut self) -> Option<NodeId> {
        self.tell(|| "all links are there".into());
        self.cluster.heal();
        None
    }

    /// Everybody is up and connected again: a proposal is committed everywhere in bounded time, a
    /// read is confirmed.
    fn recover(&mut self) {
        self.cluster.heal();
        for id in self.cluster.ids() {
            if !self.cluster.server(id).is_up() {
                self.cluster.restart(id);
            }
            if self.cluster.server(id).is_writing() {
                self.cluster.finish_turn(id);
            }
            self.cluster.turn(id);
            self.check(id);
        }
        let leader = self.run_until(10 * ELECTION_TICKS_MAX, |walk| {
            let leader = walk.cluster.leader()?;
            let raft = walk.cluster.raft(leader);
            let last = raft.log().last();
            let is_settled = (raft.commit_index(), raft.term()) == (last.index, last.term);
            is_settled.then_some(leader)
        });
        self.tell(|| format!("healed: {leader} leads"));
        let position = self.cluster.propose(leader, "the end").expect("a leader, all is committed");
        self.last_read += 1;
        self.checker.read_begins(self.last_read);
        assert!(self.cluster.read(leader, self.last_read), "a leader takes reads");
        self.cluster.turn(leader);
        let confirmed = self.counts.reads_confirmed;
        self.run_until(20 * HEARTBEAT_TICKS, |walk| {
            let has_it = |id: &NodeId| walk.cluster.raft(*id).commit_index() >= position.index;
            let is_read = walk.counts.reads_confirmed > confirmed;
            (is_read && walk.cluster.ids().iter().all(has_it)).then_some(())
        });
    }

    fn run_until<T>(&mut self, ticks_max: u32, found: impl Fn(&Self) -> Option<T>) -> T {
        for _ in 0..=ticks_max {
            if let Some(found) = found(self) {
                return found;
            }
            self.cluster.run(1);
            self.cluster.ids().into_iter().for_each(|id| self.check(id));
        }
        panic!("no progress in {ticks_max} ticks after healing: {}", self.cluster.summary());
    }
}

fn walk(voters: u64, seed: u64, is_told: bool, counts: &mut Counts) {
    let _repeat = Repeat(seed);
    let mut walk = Walk::new(voters, seed, is_told, counts);
    for _ in 0..STEPS {
        walk.step();
    }
    walk.recover();
    walk.counts.leaders += walk.checker.leaders();
    walk.counts.committed += walk.checker.committed();
}

fn walks(voters: u64, seeds: Range<u64>) {
    let mut counts = Counts::default();
    if let Some(seed) = std::env::var_os("SEED") {
        let seed = seed.to_str().and_then(|text| text.parse().ok()).expect("SEED is a number");
        return walk(voters, seed, true, &mut counts);
    }
    let walked = (seeds.end - seeds.start) as usize;
    for seed in seeds {
        walk(voters, seed, false, &mut counts);
    }
    eprintln!("{walked} walks with {voters} servers: {counts:?}");
    let Counts { leaders, committed, reads_confirmed, reads_given_up, .. } = counts;
    assert!(leaders > 5 * walked && committed > 40 * walked, "{counts:?}");
    assert!(reads_confirmed > 5 * walked && reads_given_up > walked, "{counts:?}");
    let Counts {
        entries_replaced, refused_by_limits, repeated, lost, crashes_while_writing, ..
    } = counts;
    assert!(entries_replaced > walked / 2 && crashes_while_writing > walked, "{counts:?}");
    assert!(refused_by_limits > walked, "{counts:?}");
    assert!(repeated > 30 * walked && lost > 30 * walked, "{counts:?}");
}

#[test]
fn three_servers_keep_their_promises_whatever_happens() {
    walks(3, 0..600);
}

#[test]
fn five_servers_keep_their_promises_whatever_happens() {
    walks(5, 0..400);
}

/// An even number: half of them are no majority.
#[test]
fn four_servers_keep_their_promises_whatever_happens() {
    walks(4, 0..200);
}
