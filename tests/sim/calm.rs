//! The end of a run: all faults are over, and the cluster has to get well, and back to full strength.

use super::world::{CALM_MAX, Ending, Event, MS, Number, State, TICK, World};

impl World {
    /// All faults end. Those that are to get well are a majority, or everybody.
    pub fn heal(&mut self) {
        self.trace.event(self.now, &[4], || "everything is healed".to_owned());
        self.is_healed = true;
        (self.cut_transfer_after, self.next_receiver_is_full) = (None, false);
        self.network.unblock_all();
        self.network.end_lag();
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

    /// Everybody, or as few as can get well: those that are whole are a majority of the voters, whatever became
    /// of the last changes.
    fn choose_core(&mut self) {
        let mut core: Vec<Number> = self.ids().collect();
        self.nemesis.shuffle(&mut core);
        // Only all of them together can found a cluster.
        let may_shrink = self.judge.committed() > 0 && !self.is_doomed;
        if self.nemesis.bool() && may_shrink {
            for id in core.clone() {
                let rest: Vec<Number> = core.iter().copied().filter(|at| *at != id).collect();
                if self.is_enough(|at| rest.contains(&at)) && !rest.is_empty() {
                    core = rest;
                }
            }
        }
        core.sort_unstable();
        self.core = core;
    }

    /// Those that are not to get well are dead, or alone.
    fn leave_out(&mut self, id: Number) {
        if self.nemesis.bool() {
            self.end_process(id, Ending::Machine, None);
        }
        for other in self.ids().filter(|other| *other != id) {
            self.network.block(id, other);
            self.network.block(other, id);
        }
    }

    /// A leader has answered a write and a read, everybody is whole, has caught up and votes again, no client waits.
    pub fn is_well(&self) -> bool {
        self.clients.are_content()
            && self.core.iter().all(|id| self.is_at_full_strength(*id))
            && self.core.iter().all(|id| self.has_removed_what_is_due(*id))
    }

    /// A leader has, by its own clock and that of the log.
    fn has_removed_what_is_due(&self, id: Number) -> bool {
        let Some(process) = self.process_ref(id) else { return true };
        let node = process.replica.node();
        let now = self.wall_ms(id).max(node.machine().clock_ms());
        let first = node.machine().store().next_expiry();
        !node.raft().is_leader() || first.is_none_or(|at| at > now)
    }

    /// Who was removed stays so. Who lost its disk is taken in again, unless that is left to the operator.
    fn is_at_full_strength(&self, id: Number) -> bool {
        let (Some(process), Some(membership)) =
            (self.process_ref(id), self.judge.committed_membership())
        else {
            return false;
        };
        let node = process.replica.node();
        let me = node.raft().id();
        let is_member = membership.contains(me);
        if membership.was_removed(me) || !(is_member || self.swarm.auto_members) {
            return true;
        }
        let has_come_in = !self.swarm.auto_members || membership.is_voter(me);
        let has_caught_up = node.machine().applied() == self.judge.committed();
        has_come_in && has_caught_up && !node.raft().is_damaged()
    }

    pub fn what_is_missing(&self) -> String {
        let state = |id: Number| match self.process_ref(id).map(|p| p.replica.node()) {
            None => format!("{id} is down"),
            Some(node) => format!(
                "{id} ({:x}) is {}{} in term {}, log up to {}, applied {}, members {:x?} {:?}",
                node.raft().id(),
                if node.raft().is_damaged() { "damaged " } else { "" },
                node.raft().role_name(),
                node.raft().term(),
                node.raft().log().last().index,
                node.machine().applied(),
                node.raft().membership().voters().collect::<Vec<_>>(),
                node.founding_waits_for(),
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

    pub fn check_end(&mut self) -> bool {
        self.clients.give_up();
        for &id in self.core.iter().filter(|_| !self.is_doomed) {
            let process = self.process_ref(id).expect("the core is up");
            let node = process.replica.node();
            let membership = self.judge.committed_membership().expect("a write was committed");
            if membership.contains(node.raft().id()) {
                self.judge.check_state(node.raft().id(), node);
            }
        }
        self.check_history()
    }
}
