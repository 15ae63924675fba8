//! Nodes that lose their disk, that join, and that are told to stop.

use super::electorate::News;
use super::faults::Fault;
use super::world::{Ending, Event, Host, Number, TICK, World};
use crate::mem_disk::Files;
use raftkv::raft::{number, quorum};

/// A process that was told to stop.
#[derive(Debug, Clone, Copy)]
pub struct Stops {
    /// At the latest then, as microseconds of the run.
    by: u64,
    /// It had an office to hand over.
    led: bool,
}

impl World {
    /// A disk is lost, with all that was on it, if the others can go on without it.
    pub fn wipe_if_it_may_be(&mut self, id: Number) {
        let is_founded = self.judge.electorates.is_founded();
        // Before it founds anything, nobody depends on the founder.
        let may_be = (!is_founded && id == 1) || self.is_enough(|at| at != id);
        if self.node_of(id).is_none() || !may_be || !self.would_be_known_without(id) {
            return;
        }
        if !is_founded {
            self.faults.add(Fault::WipedWhileUnfounded);
        }
        if self.leads(id) {
            self.faults.add(Fault::DiskOfLeaderWiped);
        }
        self.faults.add(Fault::DiskWiped);
        self.wipe(id);
    }

    fn wipe(&mut self, id: Number) {
        self.end_process(id, Ending::Machine, None);
        self.trace.event(self.now, &[12, id], || format!("{id} loses its disk"));
        let node = self.known_node_of(id);
        self.judge.wiped(node);
        let host = self.host(id);
        host.disk.replace(&Files::new());
        host.identity = None;
        host.health = super::world::Health::Whole;
    }

    /// So many disks are lost at once that nobody can have a majority again. What is left must not be taken for
    /// the beginning of another cluster.
    pub fn doom(&mut self) {
        let Some(membership) = self.judge.committed_membership().cloned() else { return };
        let mut voters: Vec<Number> = membership.voters().map(number).collect();
        let too_many = voters.len() - quorum::majority(voters.len()) + 1;
        if self.is_healed || too_many == voters.len() {
            return;
        }
        self.faults.add(Fault::MajorityWiped);
        self.is_doomed = true;
        self.nemesis.shuffle(&mut voters);
        for id in voters.into_iter().take(too_many) {
            if self.node_of(id).is_some() && self.would_be_known_without(id) {
                self.wipe(id);
            }
        }
    }

    /// A machine that did not belong to the initial members.
    pub fn join(&mut self) {
        if self.hosts.len() as u64 >= self.swarm.nodes_max {
            return;
        }
        self.faults.add(Fault::NodeJoins);
        let host = Host::new(&self.swarm, &mut self.nemesis);
        self.hosts.push(host);
        self.schedule(self.now, Event::Start(self.hosts.len() as Number));
    }

    /// As by SIGTERM.
    pub fn tell_to_stop(&mut self, id: Number) {
        let by = self.now + 4 * u64::from(self.swarm.election_ticks) * TICK;
        let Some(process) = self.process(id).filter(|process| process.stops.is_none()) else {
            return;
        };
        let led = process.replica.inputs().leave();
        process.stops = Some(Stops { by, led });
        let at = process.busy_until.max(process.paused_until);
        self.faults.add(Fault::StopAsked);
        self.trace.event(self.now, &[13, id], || format!("{id} is told to stop"));
        self.wake(id, at);
    }

    /// It stops when it leads no more and owes no answer, or when that takes too long.
    pub fn stop_if_it_may(&mut self, id: Number) {
        let now = self.now;
        let Some(process) = self.process(id) else { return };
        let Some(Stops { by, led }) = process.stops else { return };
        let node = process.replica.node();
        let is_over = !node.raft().is_handing_over() && node.requests_pending() == 0;
        let has_handed_over = led && is_over && !node.raft().is_leader();
        if now < by && !is_over {
            return;
        }
        if has_handed_over {
            self.faults.add(Fault::LeaderStopped);
        }
        self.end_process(id, Ending::Process, None);
    }

    /// Counts what became of the members since the last look.
    pub fn note_changes(&mut self) {
        for news in std::mem::take(&mut self.judge.electorates.news) {
            self.trace.tell(self.now, || format!("members: {news:x?}"));
            let fault = match news {
                News::Founded { anew: false } => Fault::Founded,
                News::Founded { anew: true } => Fault::FoundedAnew,
                News::Added => Fault::LearnerAdded,
                News::Replaced => Fault::MemberReplaced,
                News::Promoted => Fault::LearnerPromoted,
                News::Undone => Fault::ChangeUndone,
                News::Removed { id, by_itself } => {
                    let is_asked_for = self.operator.may_remove(number(id));
                    assert!(is_asked_for, "{id:x} is removed, and nobody has asked for it");
                    if by_itself {
                        self.faults.add(Fault::LeaderRemovesItself);
                    }
                    Fault::MemberRemoved
                }
            };
            self.faults.add(fault);
        }
    }
}
