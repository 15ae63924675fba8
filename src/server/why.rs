//! Why there is no leader, or why this node is of no use, or what else is not as it should be, in words: for
//! `WHY`, the page, `/readyz` and the log.

use super::Server;
use super::links::{Links, Reach};
use super::watch;
use crate::config::Config;
use crate::lines::{self, clean};
use crate::net::seconds;
use crate::node::Node;
use crate::raft::{Index, NodeId, Raft, number, quorum};
use crate::wal::Disk;
use std::time::{Duration, Instant};

/// For so many of the longest election timeouts, a node that has been asked may stay silent.
const SILENT_ELECTIONS: u32 = 2;
/// ... and an election may take so many.
const QUICK_ELECTIONS: u32 = 4;

/// How much is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Ok,
    /// Clients are served, and something is missing.
    Degraded,
    /// Clients of this node are not served.
    Down,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    pub level: Level,
    /// In one sentence or two.
    pub headline: String,
    /// One thing each.
    pub details: Vec<String>,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Degraded => "degraded",
            Level::Down => "down",
        }
    }
}

impl Why {
    /// A line for each.
    pub fn text(&self) -> String {
        let details = self.details.iter().map(|detail| format!("\n{}", clean(detail)));
        clean(&self.headline) + &details.collect::<String>()
    }
}

impl<D: Disk> Server<D> {
    pub(super) fn why(&self, now: Instant) -> Why {
        let node = self.replica.node();
        let raft = node.raft();
        let reasons = self.unready(now);
        let belongs = raft.is_founded() && raft.membership().contains(raft.id());
        let mut why = if belongs && !self.links.is_removed() && raft.leader().is_none() {
            self.unled(now)
        } else if !reasons.is_empty() {
            let headline = format!("{} is not ready: {}.", self.config.name, reasons.join("; "));
            let others = self.links.reaches(now).map(|reach| self.line(&reach));
            let details = if belongs { Vec::new() } else { others.collect() };
            Why { level: Level::Down, headline, details }
        } else {
            self.led(now)
        };
        self.add_remarks(&mut why, now);
        why
    }

    fn line(&self, reach: &Reach<'_>) -> String {
        line(&self.config, self.replica.node(), reach)
    }

    /// There is no leader.
    fn unled(&self, now: Instant) -> Why {
        let (config, node) = (&self.config, self.replica.node());
        let raft = node.raft();
        let (name, term) = (&config.name, raft.term());
        let voters = raft.membership().voter_count();
        let others = voters - usize::from(raft.membership().is_voter(raft.id()));
        let answering = voters_that_answer(config, raft, &self.links, now);
        let lasts = self.watch.leaderless_for(now);
        let role = raft.role_name();
        // What goes on changing is no part of the headline, which is read out whenever it changes.
        let lasting = format!("{name}: has known no leader for {}", seconds(lasts));
        let details =
            std::iter::once(lasting).chain(lines(config, node, &self.links, now)).collect();
        let needed = quorum::majority(voters);
        let headline = if let Some(what) = watch::waits_for(node) {
            format!("There is no leader in term {term}: {name} waits {what}.")
        } else if !is_electable(config, raft, &self.links, now) {
            format!(
                "There is no leader in term {term}: {name} reaches {answering} of {others} other voters, and \
                 {needed} of {voters} must reach each other."
            )
        } else if self.watch.electable_for(now) < config.election * 2 * QUICK_ELECTIONS {
            format!(
                "There is no leader in term {term}: an election is under way; {name} is a {role}."
            )
        } else {
            format!(
                "There is no leader in term {term}, though {name}, a {role}, reaches {answering} of {others} \
                 other voters: some may have lost data, and do not vote."
            )
        };
        Why { level: Level::Down, headline, details }
    }

    /// There is a leader, and this node is ready.
    fn led(&self, now: Instant) -> Why {
        let node = self.replica.node();
        let raft = node.raft();
        let membership = raft.membership();
        let leader = raft.leader().and_then(|id| membership.members.get(&id));
        let leader = leader.map_or("?", |member| member.name.as_str());
        let (term, name) = (raft.term(), &self.config.name);
        let members = membership.members.len();
        let missing: Vec<String> = self
            .links
            .reaches(now)
            .filter(|reach| membership.numbered(reach.number).is_some())
            .filter(|reach| !is_answering(&self.config, raft, reach))
            .map(|reach| self.line(&reach))
            .collect();
        let there = members - missing.len().min(members);
        let lagging = self.lagging();
        let headline = match (missing.is_empty(), raft.is_leader(), members) {
            (true, _, 1) => format!("The only node works: {leader} leads term {term}."),
            (true, true, _) if !lagging.is_empty() => {
                let count = lagging.len();
                format!(
                    "All {members} nodes work, and {count} of them lags. {leader} leads term {term}."
                )
            }
            (true, true, _) => format!("All {members} nodes work. {leader} leads term {term}."),
            (true, false, _) => {
                format!("{leader} leads term {term}, and {name} reaches all {members} nodes.")
            }
            (false, true, _) => {
                format!(
                    "{there} of {members} nodes work. {leader} leads term {term}{}.",
                    self.spare()
                )
            }
            (false, false, _) => {
                format!("{leader} leads term {term}; {name} reaches {there} of {members} nodes.")
            }
        };
        let details: Vec<String> = missing.into_iter().chain(lagging).collect();
        let level = if details.is_empty() { Level::Ok } else { Level::Degraded };
        Why { level, headline, details }
    }

    /// At the leader: members that lack what was committed more than a second ago.
    fn lagging(&self) -> Vec<String> {
        let raft = self.replica.node().raft();
        let before = self.samples.newest(2).next().map_or(0, |sample| sample.commit_index);
        let lags = |(id, index): &(NodeId, Index)| raft.was_heard_lately(*id) && *index < before;
        let lagging = raft.match_indexes().into_iter().filter(lags);
        let text = |(id, index): (NodeId, Index)| {
            let behind = raft.commit_index().saturating_sub(index);
            format!("{}: connected, log {behind} behind", called(self.replica.node(), id))
        };
        lagging.map(text).collect()
    }

    /// How many more voters a leader may lose.
    fn spare(&self) -> String {
        let raft = self.replica.node().raft();
        let membership = raft.membership();
        let answering = membership.voters().filter(|id| raft.was_heard_lately(*id)).count();
        match answering.saturating_sub(quorum::majority(membership.voter_count())) {
            0 => "; if one more voter fails, there is no majority".to_string(),
            1 => "; one more voter may fail".to_string(),
            spare => format!("; {spare} more voters may fail"),
        }
    }

    /// What is worth knowing besides.
    fn add_remarks(&self, why: &mut Why, now: Instant) {
        let node = self.replica.node();
        let raft = node.raft();
        let name = &self.config.name;
        let mut remark = |level: Level, text: String| {
            why.level = why.level.max(level);
            why.details.push(text);
        };
        let is_voter = raft.membership().is_voter(raft.id());
        if raft.is_damaged() && raft.leader().is_none() {
            let text =
                format!("{name}: its disk has lost data; it does not vote until it has it back");
            remark(Level::Down, text);
        }
        let voted_for = raft.hard_state().voted_for.filter(|id| *id != raft.id());
        if let Some(voted_for) = voted_for.filter(|_| raft.leader().is_none() && is_voter) {
            let candidate = called(node, voted_for);
            remark(
                Level::Down,
                format!("{name}: has voted for {candidate} in term {}", raft.term()),
            );
        }
        match node.no_growth() {
            _ if self.replica.is_out_of_space() => {
                let text = "its disk is full: it acknowledges nothing until there is room";
                remark(Level::Degraded, format!("{name}: {text}"));
            }
            Some(reason) => remark(Level::Degraded, format!("{name}: {}", reason.in_words())),
            None => {}
        }
        if let Some(what) = node.cluster_limits().trouble(&self.limits) {
            remark(Level::Degraded, format!("{name}: {what}"));
        }
        if self.is_memory_refused() {
            let text = "its connections have it hold nearly all memory that they may (--buffers-bytes-max): \
                        commands for which it would hold more are refused";
            remark(Level::Degraded, format!("{name}: {text}"));
        }
        if let Some(slowest) = self.watch.slow_flushes() {
            let ms = slowest.as_millis();
            remark(
                Level::Degraded,
                format!("{name}: its disk is slow: storing a turn took {ms} ms"),
            );
        }
        if let Some(trouble) = lines::stderr().trouble() {
            remark(Level::Degraded, format!("{name}: lines of its log are lost: {trouble}"));
        }
        for applicant in node.applicants().filter(|one| !raft.membership().contains(one.id)) {
            remark(Level::Ok, format!("{}: waits to be taken in", applicant.name));
        }
        self.links.refused_nodes(now).for_each(|what| remark(Level::Ok, what.to_string()));
    }
}

/// Other voters that are connected and have said something lately.
fn voters_that_answer(config: &Config, raft: &Raft, links: &Links, now: Instant) -> usize {
    let membership = raft.membership();
    let answers = |reach: &Reach<'_>| {
        let votes = membership.numbered(reach.number).is_some_and(|id| membership.is_voter(id));
        votes && is_answering(config, raft, reach)
    };
    links.reaches(now).filter(answers).count()
}

/// Whether this node reaches as many voters as an election takes.
pub fn is_electable(config: &Config, raft: &Raft, links: &Links, now: Instant) -> bool {
    let membership = raft.membership();
    let own = usize::from(membership.is_voter(raft.id()));
    let needed = quorum::majority(membership.voter_count());
    voters_that_answer(config, raft, links, now) + own >= needed
}

/// Connected, and not silent although it has been asked: a leader asks everybody, others the leader, and while
/// there is none everybody.
pub fn is_answering(config: &Config, raft: &Raft, reach: &Reach<'_>) -> bool {
    let id = raft.membership().numbered(reach.number);
    let is_asked = match raft.leader() {
        Some(leader) => leader == raft.id() || Some(leader) == id,
        None => true,
    };
    reach.is_connected && !(is_asked && id.is_some() && is_silent(config, reach))
}

/// Whoever has been asked and says nothing for so long hangs, or cannot be heard.
fn is_silent(config: &Config, reach: &Reach<'_>) -> bool {
    reach.since >= silence(config)
}

/// Never less than what a busy machine may take.
fn silence(config: &Config) -> Duration {
    (config.election * 2 * SILENT_ELECTIONS).max(Duration::from_secs(1))
}

fn called(node: &Node, id: NodeId) -> String {
    let member = node.raft().membership().members.get(&id);
    member.map_or_else(|| format!("node {}", number(id)), |member| member.name.clone())
}

/// One line for each other member: how it is reached, and what keeps it from following or from electing.
pub fn lines<'a>(
    config: &'a Config,
    node: &'a Node,
    links: &'a Links,
    now: Instant,
) -> impl Iterator<Item = String> + 'a {
    let membership = node.raft().membership();
    let members = links.reaches(now).filter(|reach| membership.numbered(reach.number).is_some());
    members.map(move |reach| line(config, node, &reach))
}

fn line(config: &Config, node: &Node, reach: &Reach<'_>) -> String {
    format!("{}: {}", reach.name, state(config, node, reach))
}

/// How it stands with another node, without its name.
pub fn state(config: &Config, node: &Node, reach: &Reach<'_>) -> String {
    let raft = node.raft();
    if !reach.is_connected {
        let (since, trouble) = (seconds(reach.since), &reach.trouble);
        return format!("not connected for {since}: {trouble}");
    }
    let mut words = vec!["connected".to_string()];
    let id = raft.membership().numbered(reach.number);
    if !is_answering(config, raft, reach) {
        words.push(format!("silent for {}", seconds(reach.since)));
    }
    let Some(id) = id else { return words.remove(0) };
    if !node.is_connected(id) {
        words.push("with another data folder than the member's".to_string());
    }
    let is_voter = raft.membership().is_voter(id);
    if !is_voter {
        words.push("a learner, which has no vote".to_string());
    }
    match raft.vote_of(id) {
        Some(true) => words.push(format!("gives {} its vote", config.name)),
        Some(false) => words.push(format!(
            "refuses {} its vote: its log goes further, it hears a leader, or it has lost data",
            config.name
        )),
        None => {}
    }
    words.join(", ")
}
