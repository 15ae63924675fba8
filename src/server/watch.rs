//! What the log says of this node's place in the cluster, one line for each change: of role, term or leader,
//! to a cluster without a leader, to a slow disk and back.

use super::links::Links;
use crate::config::Config;
use crate::node::Node;
use crate::raft::{NodeId, Term};
use log::{info, warn};
use std::time::{Duration, Instant};

/// Without a leader for so many of the longest election timeouts, something is wrong that an election does
/// not mend.
const ELECTIONS_MAX: u32 = 10;
/// A flush that takes longer is a slow one.
const SLOW_FLUSH: Duration = Duration::from_millis(500);
/// After so long without a slow flush they are over.
const CALM: Duration = Duration::from_secs(60);

/// Role, term and leader.
type Place = (&'static str, Term, Option<NodeId>);

#[derive(Debug, Default)]
pub struct Watch {
    seen: Option<Place>,
    /// Since when there has been no leader.
    leaderless_since: Option<Instant>,
    told_leaderless: bool,
    slow: Option<SlowFlushes>,
}

#[derive(Debug)]
struct SlowFlushes {
    count: u64,
    slowest: Duration,
    last: Instant,
}

impl Watch {
    pub fn look(&mut self, config: &Config, node: &Node, links: &Links, now: Instant) {
        let raft = node.raft();
        let state = (raft.role_name(), raft.term(), raft.leader());
        let before = self.seen.replace(state);
        if before.is_some_and(|before| has_lost_majority(before, state)) && !raft.is_damaged() {
            tell_majority_lost(config, raft.term());
        } else if before != Some(state) {
            tell_place(config, state);
        }
        if raft.leader().is_some() {
            self.leaderless_since = None;
            self.told_leaderless = false;
            return;
        }
        let since = *self.leaderless_since.get_or_insert(now);
        if !self.told_leaderless && now - since >= config.election * 2 * ELECTIONS_MAX {
            self.told_leaderless = true;
            tell_leaderless(config, raft.is_damaged(), links, now - since);
        }
    }

    /// `took`: to write and sync what arrived in a turn, and to carry out what is committed.
    pub fn look_at_flush(&mut self, took: Duration, now: Instant) {
        if took >= SLOW_FLUSH {
            if self.slow.is_none() {
                warn!(
                    "storing what arrived in one turn took {} ms: the disk is slow, or the machine is busy",
                    took.as_millis()
                );
            }
            let slow = self.slow.get_or_insert(SlowFlushes { count: 0, slowest: took, last: now });
            slow.count += 1;
            slow.slowest = slow.slowest.max(took);
            slow.last = now;
        } else if let Some(slow) = self.slow.take_if(|slow| now - slow.last >= CALM) {
            let (count, slowest) = (slow.count, slow.slowest.as_millis());
            info!("storing is fast again; {count} turns were slow, the slowest took {slowest} ms");
        }
    }
}

/// A leader steps down within its own term for one reason only: check-quorum.
fn has_lost_majority(before: Place, now: Place) -> bool {
    before.0 == "leader" && now == ("follower", before.1, None)
}

fn tell_majority_lost(config: &Config, term: Term) {
    warn!(
        "{} no longer leads term {term}: for an election timeout no majority has answered it",
        config.name
    );
}

fn tell_place(config: &Config, (role, term, leader): Place) {
    let name = |id: NodeId| config.members.get(&id).map_or("?", |member| member.name.as_str());
    match (role, leader) {
        ("leader", _) => info!("{} leads term {term}", config.name),
        ("follower", Some(leader)) => {
            info!("{} follows {} in term {term}", config.name, name(leader));
        }
        ("follower", None) => info!("{} knows no leader in term {term}", config.name),
        (candidate, _) => info!("{} is a {candidate} in term {term}", config.name),
    }
}

/// Members that reach each other and elect nobody have lost something: the line has to send its reader
/// there.
fn tell_leaderless(config: &Config, is_damaged: bool, links: &Links, since: Duration) {
    let damage = if is_damaged {
        "; this node has lost data and does not vote"
    } else if links.peers_connected() >= config.members.len() / 2 {
        "; as these do, some of them may have lost data, and do not vote: see their logs"
    } else {
        ""
    };
    let advice = if damage.is_empty() {
        ""
    } else {
        "; if a majority has, only a sound copy of a data folder helps, and nothing is made up until then"
    };
    let members = config.members.len();
    let states: Vec<String> =
        links.peer_states().iter().map(|(_, name, state)| format!("{name} {state}")).collect();
    warn!(
        "{} has had no leader for {:.0} s; {} of {members} members must reach each other: {}{damage}{advice}",
        config.name,
        since.as_secs_f64(),
        members / 2 + 1,
        states.join(", ")
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_flushes_in_a_row_are_one_change_and_their_end_another() {
        let mut watch = Watch::default();
        let start = Instant::now();
        for second in 0..100 {
            watch.look_at_flush(SLOW_FLUSH, start + Duration::from_secs(second));
            watch.look_at_flush(Duration::ZERO, start + Duration::from_secs(second));
        }
        assert_eq!(watch.slow.as_ref().map(|slow| slow.count), Some(100));
        watch.look_at_flush(Duration::ZERO, start + Duration::from_secs(99) + CALM);
        assert!(watch.slow.is_none());
    }
}
