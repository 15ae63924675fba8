//! What the log says of this node's place in the cluster, one line for each change: of role, term or leader,
//! to a cluster without a leader, to a slow disk and back.

use super::events::{Events, Kind};
use super::links::Links;
use super::why;
use crate::config::Config;
use crate::net::seconds;
use crate::node::{NoGrowth, Node, Standing};
use crate::raft::{Index, Member, Membership, NodeId, Term, quorum};
use log::{info, warn};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Without a leader for so many of the longest election timeouts, something is wrong that an election does
/// not mend.
const ELECTIONS_MAX: u32 = 10;
/// A flush that takes longer is a slow one.
const SLOW_FLUSH: Duration = Duration::from_millis(500);
/// What a node waits for is worth a line when it has waited so long.
const WAIT_TOLD_AFTER: Duration = Duration::from_secs(1);
/// This part of the store is free again before the log says so, and may say anew that it is full.
const FREED_PART: usize = 16;
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
    /// Since when there has been none although this node reaches enough voters.
    electable_since: Option<Instant>,
    /// The committed membership that was told of.
    membership: Option<Rc<Membership>>,
    /// What this node has waited for, and since when; told once it has lasted.
    waits: Option<(String, Instant, bool)>,
    slow: Option<SlowFlushes>,
    /// The log says that the store is full.
    told_full: bool,
    /// Limits that differ, in words.
    limits: Option<String>,
    /// What was applied, and the newest snapshot.
    stored: Option<(Index, Index)>,
    is_ready: bool,
    pub events: Events,
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
            self.tell_majority_lost(config, raft.term());
        } else if before != Some(state) {
            self.tell_place(config, raft.membership(), state);
        }
        self.look_at_members(config, node, now);
        self.look_at_limits(config, node);
        self.look_at_store(config, node);
        if raft.leader().is_some() || !raft.is_founded() || links.is_removed() {
            self.leaderless_since = None;
            self.electable_since = None;
            self.told_leaderless = false;
            return;
        }
        match why::is_electable(config, raft, links, now) {
            true => self.electable_since = self.electable_since.or(Some(now)),
            false => self.electable_since = None,
        }
        let since = *self.leaderless_since.get_or_insert(now);
        if !self.told_leaderless && now - since >= config.election * 2 * ELECTIONS_MAX {
            self.told_leaderless = true;
            tell_leaderless(config, node, links, now - since, now);
        }
    }

    fn look_at_store(&mut self, config: &Config, node: &Node) {
        let Some(max) = config.store_bytes_max else { return };
        let (bytes, name) = (node.machine().store().stored_bytes(), &config.name);
        if !self.told_full && bytes >= max {
            self.told_full = true;
            warn!("{name}: {} ({bytes} bytes, the limit is {max})", NoGrowth::Store.in_words());
        }
        if self.told_full && bytes < max - max / FREED_PART {
            self.told_full = false;
            info!("{name}: there is room in its store again");
        }
    }

    fn look_at_limits(&mut self, config: &Config, node: &Node) {
        let trouble = node.cluster_limits().trouble(&config.limits);
        if trouble == self.limits {
            return;
        }
        match &trouble {
            Some(what) => warn!("{}: {what}", config.name),
            None => info!("{}: all members take what it takes", config.name),
        }
        self.limits = trouble;
    }

    fn look_at_members(&mut self, config: &Config, node: &Node, now: Instant) {
        let raft = node.raft();
        match waits_for(node) {
            None => self.waits = None,
            Some(what) => {
                let is_new = self.waits.as_ref().is_none_or(|(before, ..)| *before != what);
                if is_new {
                    self.waits = Some((what, now, false));
                }
                if let Some((what, since, told)) = &mut self.waits
                    && !*told
                    && now >= *since + WAIT_TOLD_AFTER
                {
                    *told = true;
                    match raft.is_founded() {
                        true => warn!("{} waits {what}", config.name),
                        false => info!("{} waits {what}", config.name),
                    }
                }
            }
        }
        let membership = raft.membership();
        let is_told = self.membership.as_ref().is_some_and(|told| Rc::ptr_eq(told, membership));
        if is_told || !raft.is_founded() || !raft.membership_is_committed() {
            return;
        }
        match self.membership.replace(Rc::clone(membership)) {
            Some(before) => self.tell_changes(&before, membership),
            None => self.tell(Kind::Members, format!("members: {}", in_words(membership))),
        }
    }

    /// A line in the log, and on the page.
    #[inline(never)]
    fn tell(&mut self, kind: Kind, what: String) {
        info!("{what}");
        self.events.note(kind, what);
    }

    /// Since when there has been no leader.
    pub fn leaderless_for(&self, now: Instant) -> Duration {
        let since = self.leaderless_since;
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Since when there has been none although this node reaches enough voters.
    pub fn electable_for(&self, now: Instant) -> Duration {
        let since = self.electable_since;
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// How slow the slowest flush was, while they are slow.
    pub fn slow_flushes(&self) -> Option<Duration> {
        self.slow.as_ref().map(|slow| slow.slowest)
    }

    /// The newest snapshot is another one. What was applied before it was there tells whose it is: a leader sends
    /// one that goes further.
    pub fn look_at_snapshot(&mut self, newest: Index, applied: Index) {
        let Some((before, newest_before)) = self.stored.replace((applied, newest)) else { return };
        if newest == newest_before {
            return;
        }
        let what = match newest > before {
            true => format!("a snapshot up to index {newest} has come from the leader"),
            false => format!("a snapshot up to index {newest} is taken"),
        };
        self.events.note(Kind::Snapshot, what);
    }

    /// `reasons`: why the node is not ready.
    pub fn look_at_readiness(&mut self, config: &Config, reasons: &[String]) {
        let is_ready = reasons.is_empty();
        if is_ready != std::mem::replace(&mut self.is_ready, is_ready) {
            let what = match is_ready {
                true => format!("{} is ready", config.name),
                false => format!("{} is not ready: {}", config.name, reasons.join("; ")),
            };
            self.events.note(Kind::Ready, what);
        }
    }

    /// `took`: to write and sync what arrived in a turn, and to carry out what is committed.
    pub fn look_at_flush(&mut self, took: Duration, now: Instant) {
        if took >= SLOW_FLUSH {
            if self.slow.is_none() {
                let what = format!(
                    "storing what arrived in one turn took {} ms: the disk is slow, or the machine is busy",
                    took.as_millis()
                );
                warn!("{what}");
                self.events.note(Kind::Disk, what);
            }
            let slow = self.slow.get_or_insert(SlowFlushes { count: 0, slowest: took, last: now });
            slow.count += 1;
            slow.slowest = slow.slowest.max(took);
            slow.last = now;
        } else if let Some(slow) = self.slow.take_if(|slow| now - slow.last >= CALM) {
            let (count, slowest) = (slow.count, slow.slowest.as_millis());
            let what = "storing is fast again";
            self.tell(
                Kind::Disk,
                format!("{what}; {count} turns were slow, the slowest took {slowest} ms"),
            );
        }
    }

    fn tell_changes(&mut self, before: &Membership, after: &Membership) {
        for (id, member) in &after.members {
            let name = &member.name;
            let what = match before.members.get(id) {
                None => match before.named(name) {
                    Some(_) => format!(
                        "{name} has lost its disk: it is removed, and taken in anew as a learner"
                    ),
                    None => format!("{name} is taken in as a learner, at {}", member.address),
                },
                Some(was) if !was.is_voter && member.is_voter => format!("{name} is a voter now"),
                Some(_) => continue,
            };
            self.tell(Kind::Members, what);
        }
        for (id, member) in &before.members {
            if !after.contains(*id) && after.named(&member.name).is_none() {
                self.tell(Kind::Members, format!("{} is removed", member.name));
            }
        }
        info!("members: {}", in_words(after));
    }

    fn tell_majority_lost(&mut self, config: &Config, term: Term) {
        let what = format!(
            "{} no longer leads term {term}: for an election timeout no majority has answered it",
            config.name
        );
        warn!("{what}");
        self.events.note(Kind::Election, what);
    }

    fn tell_place(
        &mut self,
        config: &Config,
        membership: &Membership,
        (role, term, leader): Place,
    ) {
        let name =
            |id: NodeId| membership.members.get(&id).map_or("?", |member| member.name.as_str());
        let own = &config.name;
        let what = match (role, leader) {
            ("leader", _) => format!("{own} leads term {term}"),
            ("follower", Some(leader)) => format!("{own} follows {} in term {term}", name(leader)),
            ("learner", Some(leader)) => {
                format!("{own} learns from {} in term {term}", name(leader))
            }
            ("waiting", _) => format!("{own} belongs to no cluster yet"),
            ("removed", _) => format!("{own} was removed from the cluster"),
            ("follower" | "learner", None) => format!("{own} knows no leader in term {term}"),
            (candidate, _) => format!("{own} is a {candidate} in term {term}"),
        };
        self.tell(Kind::Election, what);
    }
}

/// Why a node that belongs to no cluster does not come in, or why one that does has no leader and will have
/// none, in words.
pub fn waits_for(node: &Node) -> Option<String> {
    if node.raft().is_founded() {
        return waits_for_lost_disks(node);
    }
    let waiting = node.founding_waits_for();
    if node.standing() == Standing::Lost {
        return Some("for a leader to send what its disk has lost".to_string());
    }
    if node.meets_a_cluster() {
        return Some("to be taken in by the leader of the cluster that it has found".to_string());
    }
    let names: Vec<String> = waiting.iter().map(|(name, why)| format!("{name} ({why})")).collect();
    Some(match names.is_empty() {
        true => "for the initial member with the lowest number to found the cluster".to_string(),
        false => format!("for all initial members to have an empty disk: {}", names.join(", ")),
    })
}

/// Of a majority of the voters the disks are empty: whatever they knew is nowhere else to be had for certain.
/// Only a person can say that it is lost.
fn waits_for_lost_disks(node: &Node) -> Option<String> {
    let raft = node.raft();
    let membership = raft.membership();
    let lost = node.voters_with_empty_disks();
    let needed = quorum::majority(membership.voter_count());
    let own = membership.members.get(&raft.id())?;
    if raft.leader().is_some() || membership.voter_count() - lost.len() >= needed {
        return None;
    }
    let others: Vec<&str> = membership
        .members
        .iter()
        .filter(|(id, _)| **id != raft.id())
        .map(|(_, member)| member.name.as_str())
        .collect();
    Some(format!(
        "for the data of {}, whose disks are empty: without it there is no majority of the {} voters. Start \
         them with their data; if it is lost for good, stop {name}, keep a copy of its data folder, and run: \
         srvraft recover {name} --data-dir DIR --accept-loss-of {}",
        lost.join(" and "),
        membership.voter_count(),
        others.join(","),
        name = own.name,
    ))
}

fn in_words(membership: &Membership) -> String {
    let word = |member: &Member| match member.is_voter {
        true => member.name.clone(),
        false => format!("{} (learner)", member.name),
    };
    membership.members.values().map(word).collect::<Vec<_>>().join(", ")
}

/// A leader steps down within its own term for one reason only: check-quorum.
fn has_lost_majority(before: Place, now: Place) -> bool {
    before.0 == "leader" && now == ("follower", before.1, None)
}

/// Members that reach each other and elect nobody have lost something: the line has to send its reader
/// there.
fn tell_leaderless(config: &Config, node: &Node, links: &Links, since: Duration, now: Instant) {
    let voters = node.raft().membership().voter_count();
    let damage = if node.raft().is_damaged() {
        "; this node has lost data and does not vote"
    } else if links.peers_connected() >= voters / 2 {
        "; as these do, some of them may have lost data, and do not vote: see their logs"
    } else {
        ""
    };
    let advice = if damage.is_empty() {
        ""
    } else {
        "; if a majority has, only a sound copy of a data folder helps, and nothing is made up until then"
    };
    let states: Vec<String> = why::lines(config, node, links, now).collect();
    warn!(
        "{} has had no leader for {}; {} of {voters} voters must reach each other: {}{damage}{advice}",
        config.name,
        seconds(since),
        quorum::majority(voters),
        states.join("; ")
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
