//! Which faults there are, how often each happened, and how many a run is to see.
//!
//! A run draws for each kind whether it happens and how often ("swarm testing"): a run with all of them at
//! once hides what needs a quiet moment in between, and most bugs need only a few kinds together.

use super::world::{MS, Micros, SECOND};
use std::fmt;

macro_rules! faults {
    ($($name:ident: $words:literal,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Fault { $($name,)* }

        impl Fault {
            pub const ALL: &[(Fault, &str)] = &[$((Fault::$name, $words),)*];
        }
    };
}

faults! {
    MessageLost: "message lost",
    MessageDelayed: "message delayed",
    MessageReordered: "message overtaken by a later one",
    MessageDuplicated: "message delivered twice",
    SplitInTwo: "partition: two groups",
    NodeIsolated: "partition: one node alone",
    LinksOneWay: "partition: one way",
    Bridge: "partition: groups joined by one node",
    LinksLag: "links to one node lag",
    LagThenMute: "links to one node lag, and it cannot send",
    Healed: "partition healed",
    ConnectionReset: "connection lost",
    RequestLost: "client's request lost",
    AnswerLost: "answer to a client lost",
    ProcessKilled: "process killed between turns",
    PowerCut: "power cut",
    PowerCutOfAll: "power cut of all nodes",
    CrashBeforeFlush: "crash before the flush",
    CrashWhileSendingEarly: "crash when some early messages have left",
    CrashBeforeWrite: "crash before or in a write",
    CrashBeforeSync: "crash after the write, at the sync",
    CrashAtFile: "crash while a file is made, named or removed",
    CrashBeforeSending: "crash after the sync, before messages leave",
    CrashWhileSending: "crash when some messages and answers have left",
    CommitAheadOfOwnDisk: "commit of what the leader's disk does not have",
    CrashInRecovery: "crash in recovery",
    Restarted: "restart",
    Paused: "process paused",
    DiskSlow: "slow disk",
    WriteRefused: "write refused",
    SyncRefused: "sync refused",
    UnsyncedForgotten: "power cut: unsynced data gone",
    UnsyncedTorn: "power cut: a part of unsynced data kept",
    UnsyncedReordered: "power cut: later data kept, earlier gone",
    DiskFull: "disk full",
    TurnHeld: "disk full: a turn waits for room",
    SnapshotGivenUp: "disk full: a snapshot is given up",
    IncomingGivenUp: "disk full: a leader's snapshot is given up",
    NoStartOnFullDisk: "disk full: a process cannot start",
    BitFlipped: "bit flipped in a file",
    BitFlippedInUse: "bit flipped in a file that is in use",
    SegmentLost: "file of the log lost",
    SnapshotLost: "snapshot lost",
    SnapshotMisplaced: "snapshot under another one's name",
    SnapshotRefused: "seen: a snapshot in use found to be damaged",
    FoundDamaged: "seen: a start finds that something is lost",
    FoundHarmless: "seen: a start finds that nothing is lost",
    FellBack: "seen: an older snapshot takes the place of the newest",
    WholeAgain: "seen: all that was lost is back",
    SnapshotTaken: "seen: own snapshot taken",
    SnapshotInstalled: "seen: a leader's snapshot installed",
    TransferResumed: "seen: a transfer goes on over a new connection",
    TransferRestarted: "seen: a transfer begins again",
    TransferReplaced: "seen: another snapshot or leader takes over a transfer",
    LogDropped: "seen: old files of the log dropped",
    LogReadAgain: "seen: entries read from the disk for a follower",
    ClockFast: "clock runs ahead",
    ClockStopped: "clock stands still",
    ClockDrift: "clocks drift",
    ClockJumped: "wall clock set to another time",
    KeyExpired: "seen: a key goes because its time has come",
    StampBehind: "seen: a stamp that is behind the time of the log",
    TransactionAborted: "seen: a transaction whose watched keys have changed",
    Flushed: "seen: all keys are flushed",
    DiskWiped: "disk wiped",
    DiskOfLeaderWiped: "disk wiped: the leader's",
    WipedWhileUnfounded: "disk wiped before the cluster is founded",
    MajorityWiped: "disks of a majority wiped",
    NodeJoins: "new node started",
    RemovalAsked: "operator: remove a member",
    RemovalOfLeaderAsked: "operator: remove the leader",
    AdditionAsked: "operator: add a node",
    PromotionAsked: "operator: promote a learner",
    TransferAsked: "operator: hand over",
    StopAsked: "process told to stop",
    LeaderStopped: "seen: a leader hands over and stops",
    TransferDone: "seen: the operator's handover succeeds",
    Founded: "seen: a cluster is founded",
    FoundedAnew: "seen: founded again, after the first founder lost it",
    LearnerAdded: "seen: a node is taken in",
    MemberReplaced: "seen: a node takes the place of one that is lost",
    LearnerPromoted: "seen: a learner becomes a voter",
    MemberRemoved: "seen: a member is removed",
    LeaderRemovesItself: "seen: a leader removes itself",
    ChangeUndone: "seen: a change of the members is truncated",
    RemovedRefused: "seen: a removed node is refused",
}

/// How often a fault happened, and in how many runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    times: u64,
    runs: u64,
}

/// How often each fault happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts([Count; Fault::ALL.len()]);

impl Default for Counts {
    fn default() -> Self {
        Counts([Count::default(); Fault::ALL.len()])
    }
}

impl Counts {
    /// In one run.
    pub fn add(&mut self, fault: Fault) {
        let count = &mut self.0[fault as usize];
        *count = Count { times: count.times + 1, runs: 1 };
    }

    /// Takes in those of other runs.
    pub fn merge(&mut self, other: &Counts) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            sum.times += count.times;
            sum.runs += count.runs;
        }
    }

    /// Takes in others of the same run.
    pub fn merge_run(&mut self, other: &Counts) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            *sum = Count { times: sum.times + count.times, runs: sum.runs.max(count.runs) };
        }
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.0[fault as usize].runs > 0
    }

    /// The kinds that never happened.
    pub fn missing(&self) -> Vec<&'static str> {
        let missing = Fault::ALL.iter().filter(|(fault, _)| !self.has(*fault));
        missing.map(|(_, words)| *words).collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>10} {:>8}", "times", "in runs")?;
        for (fault, words) in Fault::ALL {
            let Count { times, runs } = self.0[*fault as usize];
            writeln!(f, "{times:>10} {runs:>8}  {words}")?;
        }
        Ok(())
    }
}

/// What strikes from time to time, anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strike {
    Partition,
    Lag,
    Heal,
    Reset,
    Kill,
    PowerCut,
    PowerCutOfAll,
    CrashInTurn,
    CrashAtDisk,
    DiskRefuses,
    Pause,
    SlowDisk,
    ClockFast,
    ClockStops,
    ClockJumps,
    DiskFull,
    Rot,
    Wipe,
    Join,
    Change,
    Transfer,
    Stop,
}

const STRIKES: [(Strike, Micros); 21] = [
    (Strike::Partition, 500 * MS),
    (Strike::Lag, 500 * MS),
    (Strike::Reset, 400 * MS),
    (Strike::Kill, 900 * MS),
    (Strike::PowerCut, 900 * MS),
    (Strike::PowerCutOfAll, 3 * SECOND),
    (Strike::CrashInTurn, 600 * MS),
    (Strike::CrashAtDisk, 400 * MS),
    (Strike::DiskRefuses, 800 * MS),
    (Strike::Pause, 500 * MS),
    (Strike::SlowDisk, 700 * MS),
    (Strike::ClockFast, 700 * MS),
    (Strike::ClockStops, 700 * MS),
    (Strike::ClockJumps, 500 * MS),
    (Strike::DiskFull, 900 * MS),
    (Strike::Rot, 400 * MS),
    (Strike::Wipe, 700 * MS),
    (Strike::Join, 900 * MS),
    (Strike::Change, 700 * MS),
    (Strike::Transfer, 700 * MS),
    (Strike::Stop, 900 * MS),
];

/// What one run is like. Probabilities are of one message, request or restart.
#[derive(Debug, Clone)]
pub struct Swarm {
    /// Those that the cluster begins with.
    pub nodes: u64,
    /// With those that join.
    pub nodes_max: u64,
    /// Leaders take nodes in by themselves; else it is left to the operator.
    pub auto_members: bool,
    /// Nodes are first started within this time.
    pub start_spread: Micros,
    /// When a majority loses its disks, if it does.
    pub doom_at: Option<Micros>,
    /// How long faults happen, before the cluster is healed and judged.
    pub duration: Micros,
    /// What strikes does so for a while, and then lets the cluster recover for a while: one that never has
    /// a leader has nothing to lose.
    pub storm: Micros,
    pub lull: Micros,
    pub heartbeat_ticks: u32,
    pub election_ticks: u32,
    pub append_bytes_max: usize,
    pub inflight_messages_max: usize,
    /// One way between two machines, at least and at most.
    pub latency: (Micros, Micros),
    /// Messages keep their order and are bound to their connection, as on TCP.
    pub ordered: bool,
    pub loss: f64,
    pub delay: f64,
    pub delay_max: Micros,
    pub duplication: f64,
    /// How long until an unanswered connection is given up.
    pub silence_max: Micros,
    /// Of a file of the log.
    pub segment_bytes: u64,
    /// Of log between two snapshots.
    pub snapshot_log_bytes: usize,
    pub snapshot_piece_bytes: usize,
    /// One write or sync.
    pub disk_latency: (Micros, Micros),
    pub down_max: Micros,
    pub recovery_crash: f64,
    /// A file is struck before a start.
    pub rot: f64,
    /// Clocks run at 1 plus or minus this.
    pub drift: f64,
    /// What strikes, and its mean interval.
    pub strikes: Vec<(Strike, Micros)>,
    pub clients: usize,
    pub keys: u64,
    pub think: Micros,
    pub value_bytes_max: usize,
    pub request_loss: f64,
    /// Out of 10: how many clients use a session.
    pub sessions: u32,
    /// Clients let keys go at a time, watch them, and flush.
    pub is_timed: bool,
    /// How often a leader leaves entries for later.
    pub waiting: f64,
}

impl Swarm {
    /// Three nodes, and nothing ever goes wrong.
    pub fn without_faults(rng: &mut fastrand::Rng) -> Swarm {
        Swarm {
            nodes: 3,
            ordered: true,
            loss: 0.0,
            delay: 0.0,
            duplication: 0.0,
            recovery_crash: 0.0,
            rot: 0.0,
            drift: 0.0,
            strikes: Vec::new(),
            request_loss: 0.0,
            ..Swarm::draw(rng)
        }
    }
}

/// How much of everything: a third of the runs have each kind or not, the others are calm or hell.
struct Mood {
    rng: fastrand::Rng,
    share: f64,
    intensity: f64,
}

impl Mood {
    fn draw(rng: &mut fastrand::Rng) -> Mood {
        let (share, intensity) = match rng.u32(0..12) {
            0 => (0.0, 0.0),
            1 => (1.0, 3.0),
            2 | 3 => (0.9, 1.5),
            4 | 5 => (0.15, 1.0),
            _ => (0.4, 0.3 + 1.5 * rng.f64()),
        };
        Mood { rng: rng.fork(), share, intensity }
    }

    fn has(&mut self) -> bool {
        self.rng.f64() < self.share
    }

    /// Those that the run has, in a storm one after the other within 15 to 200 ms in the mean: how much a
    /// cluster has to bear is not to depend on how many kinds there are.
    fn strikes(&mut self, rng: &mut fastrand::Rng) -> Vec<(Strike, Micros)> {
        let mut strikes: Vec<(Strike, f64)> = STRIKES
            .iter()
            .map(|(strike, every)| (*strike, *every as f64 * (0.5 + rng.f64())))
            .collect();
        strikes.retain(|_| self.has());
        let rate: f64 = strikes.iter().map(|(_, every)| 1.0 / every).sum();
        let gap = (15.0 + 185.0 * rng.f64()) * MS as f64;
        let slowing = gap * rate;
        strikes.iter().map(|(strike, every)| (*strike, (every * slowing) as Micros)).collect()
    }

    fn probability(&mut self, typical: f64) -> f64 {
        let drawn = typical * 2.0 * self.rng.f64() * self.intensity;
        if self.has() { drawn.min(0.5) } else { 0.0 }
    }
}

impl Swarm {
    pub fn draw(rng: &mut fastrand::Rng) -> Swarm {
        let mut mood = Mood::draw(rng);
        let base = [200, 500, 2 * MS, 8 * MS][rng.usize(0..4)];
        let election_ticks = rng.u32(10..=20);
        let strikes = mood.strikes(rng);
        let nodes = [1, 2, 3, 3, 3, 3, 3, 3, 4, 4, 5, 5, 5, 5][rng.usize(0..14)];
        let duration = rng.u64(2 * SECOND..=10 * SECOND);
        Swarm {
            nodes,
            nodes_max: nodes.max([3, 4, 5, 5, 5, 7][rng.usize(0..6)]),
            auto_members: rng.u32(0..5) > 0,
            start_spread: [20 * MS, 20 * MS, 300 * MS, 2 * SECOND][rng.usize(0..4)],
            doom_at: (rng.u32(0..30) == 0).then(|| rng.u64(0..=duration)),
            duration,
            storm: rng.u64(100..=1200) * MS,
            lull: if rng.u32(0..6) == 0 { 0 } else { rng.u64(300..=2000) * MS },
            heartbeat_ticks: rng.u32(2..=4),
            election_ticks,
            append_bytes_max: rng.usize(1..=8) * 150,
            inflight_messages_max: rng.usize(1..=5),
            latency: (base / 2, base * rng.u64(1..=4)),
            ordered: rng.u32(0..3) == 0,
            loss: mood.probability(0.05),
            delay: mood.probability(0.08),
            delay_max: rng.u64(10..=500) * MS,
            duplication: mood.probability(0.05),
            silence_max: rng.u64(200 * MS..=2 * SECOND),
            segment_bytes: [1024, 2048, 4096, 65536][rng.usize(0..4)],
            snapshot_log_bytes: [100, 200, 400, 1000, 4000][rng.usize(0..5)],
            // The smallest pieces over the slowest network would take longer than a cluster may to get well.
            snapshot_piece_bytes: [20, 100, 400, 4096][rng.usize(0..4)].max(base as usize / 80),
            disk_latency: [(20, 100), (100, 400), (500, 3 * MS)][rng.usize(0..3)],
            down_max: rng.u64(20..=1500) * MS,
            recovery_crash: mood.probability(0.3),
            rot: mood.probability(0.3),
            drift: mood.probability(0.15),
            strikes,
            clients: rng.usize(2..=8),
            keys: [1, 2, 3, 4, 5, 6, 25][rng.usize(0..7)],
            think: rng.u64(MS..=40 * MS),
            value_bytes_max: [0, 0, 40, 400][rng.usize(0..4)],
            request_loss: mood.probability(0.02),
            sessions: rng.u32(0..=10),
            is_timed: rng.bool(),
            waiting: [0.0, 0.3, 0.9][rng.usize(0..3)],
        }
    }
}
