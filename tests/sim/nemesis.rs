//! Where the faults strike.

use super::disk::{Failure, Operation};
use super::faults::{Fault, Strike, Swarm};
use super::world::{CrashPoint, Ending, Event, MS, Micros, Number, World};

const CRASH_POINTS: [CrashPoint; 4] = [
    CrashPoint::BeforeFlush,
    CrashPoint::WhileSendingEarly,
    CrashPoint::BeforeSending,
    CrashPoint::WhileSending,
];

impl World {
    /// The first strike of each kind that this run has.
    pub fn let_loose(&mut self) {
        for (strike, every) in self.swarm.strikes.clone() {
            self.next_strike(strike, every);
        }
    }

    fn next_strike(&mut self, strike: Strike, every: Micros) {
        let at = self.now + self.nemesis.u64(0..=2 * every);
        self.schedule(at, Event::Strike(strike, every));
    }

    pub fn strike(&mut self, strike: Strike, every: Micros) {
        if self.is_healed {
            return;
        }
        if self.is_lull() && strike != Strike::Heal {
            return self.next_strike(strike, every);
        }
        self.trace.event(self.now, &[3, strike as u64], || format!("strikes: {strike:?}"));
        let ids: Vec<Number> = self.ids().collect();
        let any = ids[self.nemesis.usize(0..ids.len())];
        let leader = ids.iter().copied().find(|id| self.leads(*id));
        // What happens to leaders is the most instructive.
        let id = leader.filter(|_| self.nemesis.u32(0..5) < 2).unwrap_or(any);
        if strike == Strike::Heal {
            return self.heal_partition();
        }
        self.strike_at(id, strike);
        self.next_strike(strike, every);
    }

    fn strike_at(&mut self, id: Number, strike: Strike) {
        let ids: Vec<Number> = self.ids().collect();
        match strike {
            Strike::Partition | Strike::Lag if ids.len() == 1 => {}
            Strike::Partition => self.partition(&ids, id),
            Strike::Lag => self.lag(id),
            Strike::Reset => {
                let other = ids[self.nemesis.usize(0..ids.len())];
                self.reset_any(id, other);
            }
            Strike::Kill | Strike::PowerCut if !self.is_up(id) => {}
            Strike::Kill => {
                self.faults.add(Fault::ProcessKilled);
                self.end_process(id, Ending::Process, None);
            }
            Strike::PowerCut => {
                self.faults.add(Fault::PowerCut);
                self.end_process(id, Ending::Machine, None);
            }
            Strike::PowerCutOfAll => {
                self.faults.add(Fault::PowerCutOfAll);
                for id in ids {
                    self.end_process(id, Ending::Machine, None);
                }
            }
            Strike::CrashInTurn => {
                let point = CRASH_POINTS[self.nemesis.usize(0..CRASH_POINTS.len())];
                self.plan_crash(id, point);
            }
            Strike::CrashAtDisk => {
                let left = self.nemesis.u32(0..8);
                self.host(id).disk.arm(Failure::Crash, left);
            }
            Strike::DiskRefuses => {
                let failure = if self.nemesis.bool() { Failure::Write } else { Failure::Sync };
                let left = self.nemesis.u32(0..4);
                self.host(id).disk.arm(failure, left);
            }
            Strike::Rot => self.strike_files_in_use(id),
            Strike::Wipe => self.wipe_if_it_may_be(id),
            Strike::Join => self.join(),
            Strike::Change => self.ask_for_change(id),
            Strike::Transfer => self.ask_for_transfer(),
            Strike::ClockJumps => {
                self.faults.add(Fault::ClockJumped);
                // Also by so much that the others do not make up for it within the run.
                let most = [50, 500, 5_000, 3_600_000][self.nemesis.usize(0..4)];
                self.host(id).wall_offset_ms = self.nemesis.i64(-most..=most);
            }
            Strike::Stop => self.tell_to_stop(id),
            _ => self.strike_for_a_while(id, strike),
        }
    }

    fn strike_for_a_while(&mut self, id: Number, strike: Strike) {
        match strike {
            Strike::Pause => {
                let until = self.now + self.nemesis.u64(20 * MS..=700 * MS);
                self.pause(id, until);
            }
            Strike::SlowDisk => {
                self.faults.add(Fault::DiskSlow);
                let until = self.now + self.nemesis.u64(50 * MS..=700 * MS);
                let latency = self.nemesis.u64(5 * MS..=300 * MS);
                self.host(id).slow = (until, latency);
            }
            Strike::ClockFast => {
                self.faults.add(Fault::ClockFast);
                let until = self.now + self.nemesis.u64(10 * MS..=300 * MS);
                self.host(id).fast_until = until;
            }
            Strike::DiskFull if self.nemesis.u32(0..4) == 0 => self.next_receiver_is_full = true,
            Strike::DiskFull => {
                let until = self.now + self.nemesis.u64(20 * MS..=1000 * MS);
                self.fill_disk(id, until);
            }
            Strike::ClockStops => {
                self.faults.add(Fault::ClockStopped);
                let until = self.now + self.nemesis.u64(50 * MS..=800 * MS);
                self.stop_clock(id, until);
            }
            _ => unreachable!("{strike:?} is over at once"),
        }
    }

    /// A connection breaks at once, or the next transfer of a snapshot breaks in its middle.
    fn reset_any(&mut self, id: Number, other: Number) {
        if let Some((from, to)) = self.transfer_under_way() {
            self.reset(from, to);
        } else if self.nemesis.bool() {
            self.cut_transfer_after = Some(self.nemesis.u32(0..4));
        } else {
            self.reset(id, other);
        }
    }

    pub fn is_lull(&self) -> bool {
        let Swarm { storm, lull, .. } = self.swarm;
        self.now % (storm + lull) >= storm
    }

    pub fn fill_disk(&mut self, id: Number, until: Micros) {
        self.faults.add(Fault::DiskFull);
        let host = self.host(id);
        host.full_until = until;
        host.disk.set_full(true);
        self.schedule(until, Event::SpaceAgain(id));
    }

    pub fn space_again(&mut self, id: Number) {
        let now = self.now;
        let host = self.host(id);
        if now >= host.full_until {
            host.disk.set_full(false);
        }
    }

    pub fn leads(&self, id: Number) -> bool {
        self.process_ref(id).is_some_and(|process| process.replica.node().raft().is_leader())
    }

    fn heal_partition(&mut self) {
        if self.network.is_partitioned() {
            self.faults.add(Fault::Healed);
            self.network.unblock_all();
        }
    }

    /// One shape at a time, until it heals or another takes its place.
    fn partition(&mut self, ids: &[Number], id: Number) {
        if self.nemesis.bool() {
            self.network.unblock_all();
        }
        let mut shuffled = ids.to_vec();
        self.nemesis.shuffle(&mut shuffled);
        let half = ids.len() / 2;
        match self.nemesis.u32(0..5) {
            0 => {
                self.faults.add(Fault::SplitInTwo);
                let (left, right) = shuffled.split_at(half);
                self.block(left, right, true);
            }
            1 => {
                self.faults.add(Fault::NodeIsolated);
                self.block(&[id], ids, true);
            }
            2 => {
                self.faults.add(Fault::LinksOneWay);
                let (left, right) = shuffled.split_at(self.nemesis.usize(1..ids.len()));
                self.block(left, right, false);
            }
            3 => {
                self.faults.add(Fault::LinksOneWay);
                self.block(&[id], ids, false);
            }
            _ => {
                self.faults.add(Fault::Bridge);
                let (left, right) = shuffled[1..].split_at(half);
                self.block(left, right, true);
            }
        }
        self.heal_within(1500 * MS);
    }

    fn heal_within(&mut self, most: Micros) {
        let heals = self.now + self.nemesis.u64(50 * MS..=most);
        self.schedule(heals, Event::Strike(Strike::Heal, 0));
    }

    /// What is sent to a node arrives late. If it cannot send either after a while, the others choose a
    /// new leader when old replies still tell it that they follow.
    fn lag(&mut self, id: Number) {
        self.faults.add(Fault::LinksLag);
        let lasts = self.nemesis.u64(100 * MS..=800 * MS);
        let lag = self.nemesis.u64(50 * MS..=800 * MS);
        self.network.lag(id, self.now + lasts, lag);
        if self.nemesis.bool() {
            let mute_at = self.now + self.nemesis.u64(0..=lasts);
            self.schedule(mute_at, Event::Mute(id));
        }
    }

    pub fn mute(&mut self, id: Number) {
        if self.is_healed {
            return;
        }
        self.faults.add(Fault::LagThenMute);
        let ids: Vec<Number> = self.ids().collect();
        self.block(&[id], &ids, false);
        self.heal_within(1000 * MS);
    }

    fn block(&mut self, left: &[Number], right: &[Number], both_ways: bool) {
        self.trace.tell(self.now, || format!("no way from {left:?} to {right:?}, {both_ways}"));
        for &from in left {
            for &to in right.iter().filter(|to| **to != from) {
                self.network.block(from, to);
                if both_ways {
                    self.network.block(to, from);
                }
            }
        }
    }

    /// A fault of the disk has ended the process: of which kind was it?
    pub fn count_disk_fault(&mut self, failure: Failure, operation: Operation) {
        self.faults.add(match (failure, operation) {
            (Failure::Write, _) => Fault::WriteRefused,
            (Failure::Sync, _) => Fault::SyncRefused,
            (Failure::Crash, Operation::Write) => Fault::CrashBeforeWrite,
            (Failure::Crash, Operation::Sync) => Fault::CrashBeforeSync,
            (Failure::Crash, _) => Fault::CrashAtFile,
        });
    }
}
