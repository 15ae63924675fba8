//! Whether this node can serve clients or pass them on, and in words why not.

use super::{Server, watch, why};
use crate::raft::{Index, Raft};
use crate::wal::Disk;
use std::time::{Duration, Instant};

/// How far a node has to be to count as level: under load it is always a little behind, so what was
/// committed some time ago has to be applied, and not what is committed now.
#[derive(Debug, Default)]
pub struct Level {
    sampled: Option<Sampled>,
}

#[derive(Debug, Clone, Copy)]
struct Sampled {
    /// What has to be applied.
    target: Index,
    /// What will have to be after `until`.
    next: Index,
    until: Instant,
}

impl Level {
    /// Once a turn. Without a leader nobody knows what is committed, and the next one's word counts at
    /// once.
    pub fn look(&mut self, raft: &Raft, period: Duration, now: Instant) {
        let known = raft.known_commit();
        let until = now + period;
        self.sampled = match self.sampled {
            _ if raft.leader().is_none() || known == 0 => None,
            None => Some(Sampled { target: known, next: known, until }),
            Some(Sampled { next, until: over, .. }) if now >= over => {
                Some(Sampled { target: next, next: known, until })
            }
            same => same,
        };
    }

    /// How many entries are missing; `None` if what is committed is not known.
    fn behind(&self, applied: Index) -> Option<Index> {
        self.sampled.map(|sampled| sampled.target.saturating_sub(applied))
    }
}

impl<D: Disk> Server<D> {
    /// Why this node is of no use to a client at the moment; nothing if it is.
    pub(super) fn unready(&self, now: Instant) -> Vec<String> {
        let node = self.replica.node();
        let raft = node.raft();
        let mut reasons = Vec::new();
        if self.stopping.is_some() {
            reasons.push("it is stopping".to_string());
        }
        if self.links.is_removed() {
            reasons.push("it was removed from the cluster".to_string());
            return reasons;
        }
        if !raft.is_founded() || !raft.membership().contains(raft.id()) {
            let waits =
                watch::waits_for(node).map_or(String::new(), |what| format!(": it waits {what}"));
            reasons.push(format!("it belongs to no cluster{waits}"));
            return reasons;
        }
        // A roll-out that went on to the next voter meanwhile could take the majority away.
        if !raft.membership().is_voter(raft.id()) {
            reasons.push("it is a learner, which has no vote yet".to_string());
        }
        if raft.is_damaged() {
            reasons.push("its disk has lost data, which it has not got back yet".to_string());
        }
        if raft.is_leader() && self.replica.is_out_of_space() {
            reasons.push("it leads, and there is no room for the log on its disk".to_string());
        }
        reasons.extend(self.unreached(now).or_else(|| self.lags()));
        reasons
    }

    /// Why a request would reach no leader.
    fn unreached(&self, now: Instant) -> Option<String> {
        let node = self.replica.node();
        let raft = node.raft();
        let Some(leader) = raft.leader() else {
            let states: Vec<String> = why::lines(&self.config, node, &self.links, now).collect();
            let waits =
                watch::waits_for(node).map_or(String::new(), |what| format!("; it waits {what}"));
            let term = raft.term();
            return Some(format!(
                "it knows no leader in term {term}: {}{waits}",
                states.join("; ")
            ));
        };
        let name = raft.membership().members.get(&leader).map_or("?", |member| &member.name);
        let is_reached = leader == raft.id() || node.is_connected(leader);
        (!is_reached).then(|| format!("it is not connected to the leader, {name}"))
    }

    fn lags(&self) -> Option<String> {
        match self.level.behind(self.replica.node().machine().applied()) {
            None => Some("it has not heard yet what is committed".to_string()),
            Some(0) => None,
            Some(behind) => Some(format!("it is {behind} entries behind")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Config, HardState, Message};

    const PERIOD: Duration = Duration::from_millis(100);

    /// Hears of a leader that has committed so much, of which nothing arrives here.
    fn hear(raft: &mut Raft, leader_commit: Index) {
        let message = Message::AppendEntries {
            term: 1,
            prev_log_index: 1000,
            prev_log_term: 1,
            leader_commit,
            round: 0,
            entries: Vec::new(),
        };
        raft.step(2, message).expect("one leader");
    }

    #[test]
    fn a_node_is_behind_until_it_has_applied_what_its_leader_has_told_of() {
        let mut raft = Raft::new(Config::new(1, [1, 2, 3], 1), HardState::default(), Vec::new());
        let (mut level, start) = (Level::default(), Instant::now());
        level.look(&raft, PERIOD, start);
        assert_eq!(level.behind(0), None, "nobody has told anything");
        hear(&mut raft, 50);
        assert_eq!(raft.commit_index(), 0, "nothing of it is here");
        level.look(&raft, PERIOD, start);
        assert_eq!(
            (level.behind(0), level.behind(49), level.behind(50)),
            (Some(50), Some(1), Some(0))
        );
    }

    #[test]
    fn what_is_committed_just_now_need_not_be_applied_yet() {
        let mut raft = Raft::new(Config::new(1, [1, 2, 3], 1), HardState::default(), Vec::new());
        let (mut level, start) = (Level::default(), Instant::now());
        hear(&mut raft, 50);
        level.look(&raft, PERIOD, start);
        hear(&mut raft, 80);
        level.look(&raft, PERIOD, start + PERIOD / 2);
        level.look(&raft, PERIOD, start + PERIOD);
        assert_eq!(level.behind(50), Some(0), "80 was told within the last period");
        level.look(&raft, PERIOD, start + PERIOD * 2);
        assert_eq!(level.behind(50), Some(30));
    }

    #[test]
    fn the_next_leaders_word_counts_at_once() {
        let mut raft = Raft::new(Config::new(1, [1, 2, 3], 1), HardState::default(), Vec::new());
        let (mut level, start) = (Level::default(), Instant::now());
        hear(&mut raft, 50);
        level.look(&raft, PERIOD, start);
        raft.peer_process_ended(2);
        level.look(&raft, PERIOD, start);
        assert_eq!(level.behind(50), None);
        hear(&mut raft, 90);
        level.look(&raft, PERIOD, start);
        assert_eq!(level.behind(50), Some(40));
    }
}
