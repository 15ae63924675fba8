//! What monitoring asks for: the four-letter words of ZooKeeper's tools, and settings under Redis's
//! names.

use super::Server;
use super::talk::Step;
use super::texts::TextTalk;
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
        talk.leaving = true;
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
        let mut fields = vec![
            ("zk_version".to_string(), env!("CARGO_PKG_VERSION").to_string()),
            ("zk_server_state".to_string(), node.raft().role_name().to_string()),
            ("zk_packets_received".to_string(), self.requests.to_string()),
            ("zk_num_alive_connections".to_string(), self.links.net.connections().to_string()),
            ("zk_outstanding_requests".to_string(), node.requests_pending().to_string()),
            ("zk_znode_count".to_string(), store.len().to_string()),
            ("zk_approximate_data_size".to_string(), store.bytes().to_string()),
        ];
        fields.extend(self.sections(now).into_iter().flat_map(|(_, fields)| fields));
        fields.iter().map(|(name, value)| format!("{name}\t{value}\n")).collect()
    }

    fn conf(&self) -> String {
        let config = &self.config;
        let identity = self.links.identity();
        [
            ("clientPort", self.links.net.local_addr().port().to_string()),
            ("dataDir", config.data_dir.display().to_string()),
            ("maxClientCnxns", config.connections_max.to_string()),
            ("serverId", config.number.to_string()),
            ("name", config.name.clone()),
            ("cluster", config.cluster.clone()),
            ("clusterId", format!("{:016x}", identity.cluster_id)),
            ("heartbeatMillis", config.heartbeat.as_millis().to_string()),
            ("electionMillis", config.election.as_millis().to_string()),
        ]
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
            ("maxmemory", "0".to_string()),
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
