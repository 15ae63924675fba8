//! What a node says of itself: `INFO` in Redis's form, and the same fields for the binary status request.

use super::{Server, memory, watch};
use crate::lines::{self, clean};
use crate::node::NoGrowth;
use crate::raft::{Member, NodeId, number};
use crate::wal::Disk;
use std::fmt::Display;
use std::time::Instant;

/// A title with its fields.
pub type Section = (&'static str, Vec<(String, String)>);

/// In an order for people.
pub type Sections = Vec<Section>;

impl<D: Disk> Server<D> {
    pub(super) fn sections(&self, now: Instant) -> Sections {
        vec![
            ("Server", self.server_section(now)),
            ("Health", self.health_section(now)),
            ("Clients", self.clients_section()),
            ("Memory", self.memory_section()),
            ("Raft", self.raft_section()),
            ("Replication", self.replication_section()),
            ("Members", self.members_section()),
            ("Peers", self.peers_section(now)),
            ("Persistence", self.persistence_section()),
            ("Keyspace", self.keyspace_section()),
        ]
    }

    /// What `WHY` says, a field for each line.
    fn health_section(&self, now: Instant) -> Vec<(String, String)> {
        let why = self.why(now);
        let lines = std::iter::once(why.headline).chain(why.details);
        let named = lines.enumerate().map(|(at, line)| (format!("why_{at}"), line));
        std::iter::once(("health".to_string(), why.level.name().to_string())).chain(named).collect()
    }

    fn server_section(&self, now: Instant) -> Vec<(String, String)> {
        let identity = self.links.identity();
        fields(&[
            ("version", &env!("CARGO_PKG_VERSION")),
            ("process_id", &std::process::id()),
            ("tcp_port", &self.links.net.local_addr().port()),
            ("uptime_in_seconds", &(now - self.started).as_secs()),
            ("cluster", &self.config.cluster),
            ("cluster_id", &format_args!("{:016x}", identity.cluster_id)),
            ("incarnation", &format_args!("{:016x}", identity.incarnation)),
            ("log_lines_dropped", &lines::stderr().dropped()),
        ])
    }

    fn clients_section(&self) -> Vec<(String, String)> {
        let peers = self.links.peers_connected();
        fields(&[
            ("connected_clients", &(self.links.net.connections() - peers)),
            ("maxclients", &self.config.connections_max),
            ("requests_received", &self.requests),
            ("requests_pending", &self.replica.node().requests_pending()),
            ("unread_bytes", &self.unread_bytes()),
            ("unread_clients_closed", &self.unread.closed),
            ("unserved_bytes", &self.links.net.clients_unserved()),
            ("unserved_clients_closed", &self.links.net.unserved_closed()),
            ("change_streams", &self.streams.len()),
            ("pubsub_clients", &self.herald.listeners()),
        ])
    }

    /// What connections have this node hold, and the most that it needs beside its data.
    fn memory_section(&self) -> Vec<(String, String)> {
        let buffers = self.buffers();
        let mut section = fields(&[
            ("used_memory_rss", &memory::resident_bytes().unwrap_or(0)),
            ("buffers_bytes", &buffers.total()),
            ("buffers_bytes_max", &self.config.buffers_bytes_max),
            ("buffers_connections_closed", &self.memory.closed),
            ("buffers_requests_refused", &self.memory.refused),
        ]);
        let part = |(name, bytes)| (format!("buffers_{name}_bytes"), format!("{bytes}"));
        section.extend(buffers.parts().map(part));
        let needed_max = memory::needed_max(&self.config).to_string();
        section.push(("memory_needed_max_bytes".to_string(), needed_max));
        let part = |(name, bytes)| (format!("memory_needed_{name}_bytes"), format!("{bytes}"));
        section.extend(memory::needed(&self.config).map(part));
        section
    }

    pub(super) fn raft_section(&self) -> Vec<(String, String)> {
        let node = self.replica.node();
        let raft = node.raft();
        let leader = raft.leader();
        let membership = raft.membership();
        let leader_name = leader.and_then(|id| membership.members.get(&id));
        fields(&[
            ("raft_node", &number(raft.id())),
            ("raft_name", &self.config.name),
            ("raft_role", &self.role()),
            ("raft_term", &raft.term()),
            ("raft_leader", &leader.map_or("-1".to_string(), |id| number(id).to_string())),
            ("raft_leader_name", &leader_name.map_or(String::new(), |member| member.name.clone())),
            ("raft_commit_index", &raft.commit_index()),
            ("raft_last_applied", &node.machine().applied()),
            ("raft_last_log_index", &raft.log().last().index),
            ("raft_last_log_term", &raft.log().last().term),
            ("raft_voters", &membership.voter_count()),
            ("raft_learners", &(membership.members.len() - membership.voter_count())),
            ("raft_cluster_id", &format_args!("{:016x}", membership.cluster_id)),
            ("raft_membership_index", &raft.membership_index()),
            ("raft_waits_for", &watch::waits_for(node).unwrap_or_default()),
            ("key_bytes_max", &node.cluster_limits().limits.key_bytes_max),
            ("value_bytes_max", &node.cluster_limits().limits.value_bytes_max),
            (
                "limits_differ",
                &node.cluster_limits().trouble(&self.config.limits).unwrap_or_default(),
            ),
        ])
    }

    /// A node that was removed may have to be told so by others.
    pub(super) fn role(&self) -> &'static str {
        if self.links.is_removed() { "removed" } else { self.replica.node().raft().role_name() }
    }

    /// Every member, this node included: how it counts, and where it is. At the leader also those that wait to
    /// be taken in.
    fn members_section(&self) -> Vec<(String, String)> {
        let membership = self.replica.node().raft().membership();
        let member = |(id, member): (&NodeId, &Member)| {
            let counts = if member.is_voter { "voter" } else { "learner" };
            let place = place(*id, &member.address);
            (format!("member_{}", member.name), format!("{counts},{place}"))
        };
        let applicants = self.replica.node().applicants();
        let waiting = applicants.filter(|applicant| !membership.contains(applicant.id));
        let applicants = waiting.map(|applicant| {
            (format!("applicant_{}", applicant.name), place(applicant.id, &applicant.address))
        });
        membership.members.iter().map(member).chain(applicants).collect()
    }

    fn peers_section(&self, now: Instant) -> Vec<(String, String)> {
        let matches = self.replica.node().raft().match_indexes();
        let mut section = Vec::new();
        for (id, name, state) in self.links.peer_states() {
            section.push((format!("peer_{name}"), state));
            if let Some((_, index)) = matches.iter().find(|(peer, _)| number(*peer) == id) {
                section.push((format!("match_index_{name}"), index.to_string()));
            }
        }
        let refused = self.links.refused_nodes(now).enumerate();
        section.extend(refused.map(|(at, what)| (format!("refused_{at}"), what.to_string())));
        section
    }

    fn persistence_section(&self) -> Vec<(String, String)> {
        let wal = self.replica.wal();
        let node = self.replica.node();
        let raft = node.raft();
        let newest = wal.snapshots().last();
        fields(&[
            ("raft_log_bytes", &wal.bytes_on_disk()),
            ("raft_log_segments", &wal.segments()),
            ("raft_log_first_index", &(raft.log().before().index + 1)),
            ("raft_snapshots", &wal.snapshots().len()),
            ("raft_snapshot_index", &newest.map_or(0, |file| file.position.index)),
            ("raft_snapshot_bytes", &newest.map_or(0, |file| file.payload_bytes)),
            ("raft_snapshot_in_progress", &u8::from(self.replica.is_taking_snapshot())),
            ("disk_space", &self.replica.space()),
            ("growth_refused", &node.no_growth().map_or("", NoGrowth::name)),
            ("raft_damaged", &u8::from(raft.is_damaged())),
            ("slowest_flush_milliseconds", &self.slowest_flush.as_millis()),
            ("slowest_turn_milliseconds", &self.turns.slowest.as_millis()),
            ("slowest_turn_unsynced_milliseconds", &self.turns.slowest_unsynced.as_millis()),
        ])
    }

    fn keyspace_section(&self) -> Vec<(String, String)> {
        let machine = self.replica.node().machine();
        fields(&[
            ("digest", &format_args!("{:016x}", machine.store().digest())),
            ("digests_compared", &self.replica.node().digests_compared()),
            ("keys", &machine.store().len()),
            ("expiring_keys", &machine.store().expiring()),
            ("expired_keys", &self.replica.node().tally().expired),
            ("keyspace_bytes", &machine.store().bytes()),
            ("store_bytes", &machine.store().stored_bytes()),
            ("store_bytes_max", &self.config.store_bytes_max.unwrap_or(0)),
            ("sessions", &machine.sessions().len()),
            ("changes_first_index", &machine.history().first()),
            ("changes_bytes", &machine.history().bytes()),
        ])
    }
}

fn place(id: NodeId, address: &str) -> String {
    format!("incarnation={:012x},address={address}", id & ((1 << 48) - 1))
}

pub(super) fn fields(fields: &[(&str, &dyn Display)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// The text of `INFO`: all sections, or those that are named, in any case.
pub fn text(sections: &Sections, wanted: &[String]) -> String {
    let everything = ["all", "default", "everything"];
    let is_wanted = |title: &str| {
        wanted.is_empty()
            || wanted
                .iter()
                .any(|name| name.eq_ignore_ascii_case(title) || everything.contains(&name.as_str()))
    };
    let mut text = String::new();
    for (title, fields) in sections.iter().filter(|(title, _)| is_wanted(title)) {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        text.push_str(&format!("# {title}\r\n"));
        for (name, value) in fields {
            // Strangers choose names and reasons; a line of theirs is no field.
            text.push_str(&format!("{}:{}\r\n", clean(name), clean(value)));
        }
    }
    text
}

/// A section in one line, for the log.
pub fn line((title, fields): &Section) -> String {
    let fields = fields.iter().map(|(name, value)| format!(" {name}={value}"));
    format!("{title}:{}", fields.collect::<String>())
}
