//! The members of the cluster, and those that wait to be, as this node sees them: for the page and `RAFT`.

use super::{Server, why};
use crate::protocol::resp::{
    Version, put_array, put_bulk, put_integer, put_map, put_null, put_text,
};
use crate::protocol::text::{self, RaftQuery};
use crate::raft::{Index, NodeId, number};
use crate::wal::Disk;
use std::time::Instant;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    pub name: String,
    pub number: u64,
    /// Empty: it is not known.
    pub address: String,
    /// `voter`, `learner`, or `none` for one that is no member, or none yet.
    pub counts_as: &'static str,
    /// As far as it can be told from here: `unknown` for one that is not connected, or while there is no leader.
    pub role: &'static str,
    pub is_self: bool,
    pub is_connected: bool,
    /// Connected, and not silent although it has been asked.
    pub is_answering: bool,
    /// In words.
    pub state: String,
    /// How far its log is known to match that of the leader: at the leader, and of a node itself.
    pub match_index: Option<Index>,
    /// Entries that it is known to lack.
    pub lag: Option<Index>,
}

impl<D: Disk> Server<D> {
    /// By number.
    pub(super) fn members(&self, now: Instant) -> Vec<MemberView> {
        let node = self.replica.node();
        let raft = node.raft();
        let mut views = Vec::new();
        let matches = raft.match_indexes();
        let last = raft.log().last().index;
        for reach in self.links.reaches(now) {
            let id = raft.membership().numbered(reach.number);
            let match_index = matches.iter().find(|(peer, _)| Some(*peer) == id);
            let match_index = match_index.map(|(_, index)| *index);
            let role = self.role_of(id, reach.is_connected);
            views.push(MemberView {
                name: reach.name.to_string(),
                number: reach.number,
                address: self.address_of(reach.number, id),
                counts_as: self.counts_as(id),
                role,
                is_self: false,
                is_connected: reach.is_connected,
                is_answering: why::is_answering(&self.config, raft, &reach),
                state: why::state(&self.config, node, &reach),
                match_index,
                lag: match_index.map(|index| last.saturating_sub(index)),
            });
        }
        let own = self.own_view();
        let at = views.partition_point(|view| view.number < own.number);
        views.insert(at, own);
        views
    }

    fn own_view(&self) -> MemberView {
        let node = self.replica.node();
        let raft = node.raft();
        let durable = raft.log().durable_index();
        // A node that does not lead has heard what is committed, and may lack a part of it.
        let known = raft.known_commit();
        MemberView {
            name: self.config.name.clone(),
            number: number(raft.id()),
            address: self.config.advertise.clone(),
            counts_as: self.counts_as(Some(raft.id())),
            role: self.role(),
            is_self: true,
            is_connected: true,
            is_answering: true,
            state: "this node".to_string(),
            match_index: Some(durable),
            lag: (known > 0).then(|| known.saturating_sub(raft.log().last().index)),
        }
    }

    fn counts_as(&self, id: Option<NodeId>) -> &'static str {
        let membership = self.replica.node().raft().membership();
        match id.filter(|id| membership.contains(*id)) {
            Some(id) if membership.is_voter(id) => "voter",
            Some(_) => "learner",
            None => "none",
        }
    }

    fn role_of(&self, id: Option<NodeId>, is_connected: bool) -> &'static str {
        let raft = self.replica.node().raft();
        match (raft.leader(), self.counts_as(id)) {
            (leader, _) if leader.is_some() && leader == id => "leader",
            (_, "none") => "waiting",
            (Some(_), "voter") if is_connected => "follower",
            (Some(_), "learner") if is_connected => "learner",
            _ => "unknown",
        }
    }

    fn address_of(&self, number: u64, id: Option<NodeId>) -> String {
        let member = id.and_then(|id| self.replica.node().raft().membership().members.get(&id));
        match (member, self.config.members.get(&number)) {
            (Some(member), _) => member.address.clone(),
            (None, Some(initial)) => format!("{}:{}", initial.host, initial.port),
            (None, None) => String::new(),
        }
    }

    /// `RAFT`, as far as this node can answer it by itself.
    pub(super) fn put_raft(
        &self,
        query: RaftQuery,
        now: Instant,
        out: &mut Vec<u8>,
        version: Version,
    ) {
        match query {
            RaftQuery::Help => put_text(out, version, &text::raft_help()),
            RaftQuery::Status => {
                let fields = self.raft_section();
                put_map(out, version, fields.len());
                for (name, value) in fields {
                    put_bulk(out, name.as_bytes());
                    put_bulk(out, value.as_bytes());
                }
            }
            RaftQuery::Leader => {
                let raft = self.replica.node().raft();
                match raft.leader().and_then(|id| raft.membership().members.get(&id)) {
                    Some(leader) => {
                        put_array(out, 2);
                        put_bulk(out, leader.name.as_bytes());
                        put_bulk(out, leader.address.as_bytes());
                    }
                    None => put_null(out, version),
                }
            }
            RaftQuery::Members => {
                let members = self.members(now);
                put_array(out, members.len());
                members.iter().for_each(|member| member.put(out, version));
            }
        }
    }
}

impl MemberView {
    fn put(&self, out: &mut Vec<u8>, version: Version) {
        let texts = [
            ("name", self.name.as_str()),
            ("address", self.address.as_str()),
            ("counts-as", self.counts_as),
            ("role", self.role),
            ("state", self.state.as_str()),
        ];
        let numbers =
            [("number", Some(self.number)), ("match-index", self.match_index), ("lag", self.lag)];
        put_map(out, version, texts.len() + numbers.len());
        for (name, value) in texts {
            put_bulk(out, name.as_bytes());
            put_bulk(out, value.as_bytes());
        }
        for (name, value) in numbers {
            put_bulk(out, name.as_bytes());
            match value {
                Some(value) => put_integer(out, i64::try_from(value).unwrap_or(i64::MAX)),
                None => put_null(out, version),
            }
        }
    }
}
