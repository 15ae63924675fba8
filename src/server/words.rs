//! What monitoring asks for: the four-letter words of ZooKeeper's tools, and settings under Redis's
//! names.

use super::talk::Step;
use super::texts::TextTalk;
use super::{Server, info};
use crate::kv::glob;
use crate::net::ConnId;
use crate::protocol::text::{ConfigQuery, Word};
use crate::wal::Disk;
use std::time::Instant;

impl<D: Disk> Server<D> {
    /// As ZooKeeper answers: the bytes alone, then the end of the connection.
    pub(super) fn raw_word(
        &mut self,
        conn: ConnId,
        talk: &mut TextTalk,
        word: Word,
        now: Instant,
    ) -> Step {
        self.leave(conn, talk);
        let text = self.word(word, now);
        self.say(conn, talk, |out, _| out.extend_from_slice(text.as_bytes()))
    }

    pub(super) fn word(&self, word: Word, now: Instant) -> String {
        match word {
            Word::Ruok => "imok".to_string(),
            Word::Isro => match self.replica.node().raft().leader() {
                Some(_) => "rw".to_string(),
                None => "ro".to_string(),
            },
            Word::Srvr => self.srvr(),
            Word::Mntr => self.mntr(now),
            Word::Conf => self.conf(),
        }
    }

    fn srvr(&self) -> String {
        let node = self.replica.node();
        format!(
            "raftkv version: {}\nReceived: {}\nConnections: {}\nOutstanding: {}\nZxid: 0x{:x}\n\
             Mode: {}\nNode count: {}\n",
            env!("CARGO_PKG_VERSION"),
            self.requests,
            self.links.net.connections(),
            node.requests_pending(),
            node.machine().applied(),
            node.raft().role_name(),
            node.machine().store().len(),
        )
    }

    /// ZooKeeper's names for what it has too, then every field of `INFO`.
    fn mntr(&self, now: Instant) -> String {
        let node = self.replica.node();
        let store = node.machine().store();
        let mut fields = info::fields(&[
            ("zk_version", &env!("CARGO_PKG_VERSION")),
            ("zk_server_state", &node.raft().role_name()),
            ("zk_packets_received", &self.requests),
            ("zk_num_alive_connections", &self.links.net.connections()),
            ("zk_outstanding_requests", &node.requests_pending()),
            ("zk_znode_count", &store.len()),
            ("zk_approximate_data_size", &store.bytes()),
        ]);
        fields.extend(self.sections(now).into_iter().flat_map(|(_, fields)| fields));
        fields.iter().map(|(name, value)| format!("{name}\t{value}\n")).collect()
    }

    fn conf(&self) -> String {
        let config = &self.config;
        let identity = self.links.identity();
        info::fields(&[
            ("clientPort", &self.links.net.local_addr().port()),
            ("dataDir", &config.data_dir.display()),
            ("maxClientCnxns", &config.connections_max),
            ("serverId", &config.number),
            ("name", &config.name),
            ("cluster", &config.cluster),
            ("clusterId", &format_args!("{:016x}", identity.cluster_id)),
            ("heartbeatMillis", &config.heartbeat.as_millis()),
            ("electionMillis", &config.election.as_millis()),
        ])
        .iter()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect()
    }

    /// `CONFIG GET`: Redis's names, so that its tools find what they look for.
    pub(super) fn settings(&self, query: &ConfigQuery) -> Vec<(&'static str, String)> {
        let ConfigQuery::Get(patterns) = query;
        let is_wanted = |name: &str| {
            let matches = |pattern: &Vec<u8>| {
                // Longer than every name, so only stars could make it fit; nobody asks like that.
                pattern.len() <= CONFIG_PATTERN_BYTES_MAX
                    && glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes())
            };
            patterns.iter().any(matches)
        };
        [
            ("appendfsync", "always".to_string()),
            ("appendonly", "yes".to_string()),
            ("databases", "1".to_string()),
            ("maxclients", self.config.connections_max.to_string()),
            ("maxmemory", self.config.store_bytes_max.unwrap_or(0).to_string()),
            ("maxmemory-policy", "noeviction".to_string()),
            ("port", self.links.net.local_addr().port().to_string()),
            ("proto-max-bulk-len", self.limits.value_bytes_max.to_string()),
            ("save", String::new()),
            ("timeout", "0".to_string()),
        ]
        .into_iter()
        .filter(|(name, _)| is_wanted(name))
        .collect()
    }
}

/// The longest pattern of a setting's name, in bytes.
const CONFIG_PATTERN_BYTES_MAX: usize = 256;
