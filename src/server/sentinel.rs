//! For libraries that go straight to the leader: what Redis Sentinel answers, and `ROLE`. Every node
//! answers for the whole cluster, with the addresses that the members themselves have given: names, which
//! are looked up anew when a pod comes back elsewhere.

use super::info::fields;
use super::talk::Step;
use super::texts::TextTalk;
use super::{Server, watch};
use crate::config::parse_host_port;
use crate::net::ConnId;
use crate::protocol::resp::{
    Version, put_array, put_bulk, put_error, put_integer, put_map, put_simple,
};
use crate::protocol::text::SentinelQuery;
use crate::raft::{Index, Member, NodeId, quorum};
use crate::wal::Disk;
use std::fmt;

/// The master's name in every tutorial; the cluster's own name means the same.
const USUAL_NAME: &str = "mymaster";

/// Where a member is to be found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    pub host: String,
    pub port: u16,
}

impl Place {
    fn of(member: &Member) -> Option<Place> {
        let (host, port) = parse_host_port(&member.address).ok()?;
        Some(Place { host, port })
    }
}

/// As Sentinel's messages have it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.host, self.port)
    }
}

/// Names and values of an instance.
type Fields = Vec<(String, String)>;

impl<D: Disk> Server<D> {
    pub(super) fn sentinel(
        &mut self,
        conn: ConnId,
        talk: &mut TextTalk,
        query: &SentinelQuery,
    ) -> Step {
        let mut reply = Vec::new();
        self.put_sentinel(query, talk.client.version, &mut reply);
        self.say(conn, talk, |out, _| out.extend_from_slice(&reply))
    }

    fn put_sentinel(&self, query: &SentinelQuery, version: Version, out: &mut Vec<u8>) {
        let names = self.master_names();
        let known = |name: &[u8]| names.iter().find(|known| known.as_bytes() == name);
        match query {
            // As in Redis, also of a name that nobody knows.
            SentinelQuery::MasterAddress(name) => match self.leader_place() {
                Some(place) if known(name).is_some() => {
                    put_array(out, 2);
                    put_bulk(out, place.host.as_bytes());
                    put_bulk(out, place.port.to_string().as_bytes());
                }
                _ => put_no_array(out, version),
            },
            SentinelQuery::Masters => {
                let masters: Vec<Fields> =
                    names.iter().map(|name| self.master_fields(name)).collect();
                put_instances(out, version, &masters);
            }
            SentinelQuery::MyId => {
                put_bulk(out, self.run_id(self.replica.node().raft().id()).as_bytes());
            }
            SentinelQuery::Master(name)
            | SentinelQuery::Replicas(name)
            | SentinelQuery::Sentinels(name)
            | SentinelQuery::CheckQuorum(name) => match (known(name), query) {
                (None, _) => put_error(out, "ERR No such master with that name"),
                (Some(name), SentinelQuery::Master(_)) => {
                    put_fields(out, version, &self.master_fields(name));
                }
                (Some(_), SentinelQuery::Replicas(_)) => {
                    put_instances(out, version, &self.replicas());
                }
                (Some(_), SentinelQuery::Sentinels(_)) => {
                    put_instances(out, version, &self.sentinels());
                }
                (Some(_), _) => self.put_quorum(out),
            },
        }
    }

    /// What the leader may be called: by the cluster's name, or as everywhere.
    pub(super) fn master_names(&self) -> Vec<String> {
        let mut names = vec![self.config.cluster.clone()];
        if self.config.cluster != USUAL_NAME {
            names.push(USUAL_NAME.to_string());
        }
        names
    }

    /// Where the leader is, if one is known.
    #[inline(never)]
    pub(super) fn leader_place(&self) -> Option<Place> {
        let raft = self.replica.node().raft();
        Place::of(raft.membership().members.get(&raft.leader()?)?)
    }

    /// 40 hexadecimal digits, as Redis has them: of a member and its data folder.
    fn run_id(&self, id: NodeId) -> String {
        format!("{:024x}{id:016x}", self.links.identity().cluster_id)
    }

    /// Everybody but the leader, with the state of its connection to this node.
    fn others(&self) -> impl Iterator<Item = (NodeId, Place, bool)> {
        let node = self.replica.node();
        let raft = node.raft();
        let members = raft.membership().members.iter();
        let others = members.filter(move |(id, _)| Some(**id) != raft.leader());
        others.filter_map(move |(id, member)| {
            let is_up = *id == raft.id() || node.is_connected(*id);
            Some((*id, Place::of(member)?, is_up))
        })
    }

    fn master_fields(&self, name: &str) -> Fields {
        let raft = self.replica.node().raft();
        let leader = self.leader_place();
        let flags = if leader.is_some() { "master" } else { "master,s_down,o_down" };
        let run_id = raft.leader().map_or(String::new(), |id| self.run_id(id));
        let membership = raft.membership();
        let mut fields = self.instance(name, &leader.unwrap_or_default(), run_id, flags);
        fields.extend(self::fields(&[
            ("role-reported", &"master"),
            ("role-reported-time", &"0"),
            ("config-epoch", &raft.term()),
            ("num-slaves", &self.others().count()),
            ("num-other-sentinels", &(membership.members.len().max(1) - 1)),
            ("quorum", &quorum::majority(membership.voter_count())),
            ("failover-timeout", &(self.config.election * 2).as_millis()),
            ("parallel-syncs", &membership.members.len()),
        ]));
        fields
    }

    /// What all instances have. Nothing is asked of them on purpose, so all times since then are 0.
    fn instance(&self, name: &str, place: &Place, run_id: String, flags: &str) -> Fields {
        let mut instance = fields(&[
            ("name", &name),
            ("ip", &place.host),
            ("port", &place.port),
            ("runid", &run_id),
            ("flags", &flags),
        ]);
        instance.extend(fields(&[
            ("link-pending-commands", &0),
            ("link-refcount", &"1"),
            ("last-ping-sent", &0),
            ("last-ok-ping-reply", &0),
            ("last-ping-reply", &0),
            ("down-after-milliseconds", &self.config.election.as_millis()),
            ("info-refresh", &0),
        ]));
        instance
    }

    fn replicas(&self) -> Vec<Fields> {
        let master = self.leader_place();
        let matches = self.replica.node().raft().match_indexes();
        let fields_of = |(id, place, is_up): (NodeId, Place, bool)| {
            let name = format!("{}:{}", place.host, place.port);
            let flags = if is_up { "slave" } else { "slave,s_down,disconnected" };
            let offset = self.offset_of(id, &matches);
            let has_link = is_up && master.is_some();
            let master = master.clone().unwrap_or_default();
            let mut fields = self.instance(&name, &place, self.run_id(id), flags);
            fields.extend(self::fields(&[
                ("role-reported", &"slave"),
                ("role-reported-time", &"0"),
                ("master-link-down-time", &"0"),
                ("master-link-status", &if has_link { "ok" } else { "err" }),
                ("master-host", &master.host),
                ("master-port", &master.port),
                ("slave-priority", &"100"),
                ("slave-repl-offset", &offset),
                ("replica-announced", &"1"),
            ]));
            fields
        };
        self.others().map(fields_of).collect()
    }

    /// How far a member's log is known to be that of the leader; only the leader knows it of others.
    fn offset_of(&self, id: NodeId, matches: &[(NodeId, Index)]) -> Index {
        let node = self.replica.node();
        match matches.iter().find(|(peer, _)| *peer == id) {
            Some((_, index)) => *index,
            None if id == node.raft().id() => node.machine().applied(),
            None => 0,
        }
    }

    /// Every other member: each answers as this one does.
    fn sentinels(&self) -> Vec<Fields> {
        let node = self.replica.node();
        let members = node.raft().membership().members.iter();
        let others = members.filter(|(id, _)| **id != node.raft().id());
        let fields_of = |(id, member): (&NodeId, &Member)| {
            let place = Place::of(member)?;
            let flags = if node.is_connected(*id) { "sentinel" } else { "sentinel,s_down" };
            let run_id = self.run_id(*id);
            let mut fields = self.instance(&run_id.clone(), &place, run_id, flags);
            fields.extend(self::fields(&[
                ("last-hello-message", &"0"),
                ("voted-leader", &"?"),
                ("voted-leader-epoch", &"0"),
            ]));
            Some(fields)
        };
        others.filter_map(fields_of).collect()
    }

    fn put_quorum(&self, out: &mut Vec<u8>) {
        let node = self.replica.node();
        let membership = node.raft().membership();
        let is_there = |id: &NodeId| *id == node.raft().id() || node.is_connected(*id);
        let voters = membership.members.iter().filter(|(_, member)| member.is_voter);
        let usable = voters.filter(|(id, _)| is_there(id)).count();
        let needed = quorum::majority(membership.voter_count());
        if usable >= needed && needed > 0 {
            let text = format!(
                "OK {usable} usable Sentinels. Quorum and failover authorization can be reached"
            );
            return put_simple(out, &text);
        }
        let waits =
            watch::waits_for(node).map_or(String::new(), |what| format!("; it waits {what}"));
        let text = format!(
            "NOQUORUM {usable} usable Sentinels. Not enough available Sentinels to reach the majority \
             of {needed}{waits}"
        );
        put_error(out, &text);
    }

    /// `ROLE`: a leader's followers with how far they are, or where the leader is.
    pub(super) fn role_reply(&mut self, conn: ConnId, talk: &mut TextTalk) -> Step {
        let mut reply = Vec::new();
        self.put_role(&mut reply);
        self.say(conn, talk, |out, _| out.extend_from_slice(&reply))
    }

    fn put_role(&self, out: &mut Vec<u8>) {
        let node = self.replica.node();
        let applied = node.machine().applied() as i64;
        if node.raft().is_leader() {
            let matches = node.raft().match_indexes();
            let others: Vec<_> = self.others().filter(|(_, _, is_up)| *is_up).collect();
            put_array(out, 3);
            put_bulk(out, b"master");
            put_integer(out, applied);
            put_array(out, others.len());
            for (id, place, _) in others {
                put_array(out, 3);
                put_bulk(out, place.host.as_bytes());
                put_bulk(out, place.port.to_string().as_bytes());
                put_bulk(out, self.offset_of(id, &matches).to_string().as_bytes());
            }
            return;
        }
        let place = self.leader_place().unwrap_or_default();
        put_array(out, 5);
        put_bulk(out, b"slave");
        put_bulk(out, place.host.as_bytes());
        put_integer(out, i64::from(place.port));
        put_bulk(out, if self.is_linked() { b"connected" } else { b"connect" });
        put_integer(out, applied);
    }

    fn is_linked(&self) -> bool {
        let node = self.replica.node();
        node.raft().leader().is_some_and(|leader| node.is_connected(leader))
    }

    /// Redis's section of `INFO`: some libraries look there for the role.
    pub(super) fn replication_section(&self) -> Fields {
        let node = self.replica.node();
        let applied = node.machine().applied();
        if node.raft().is_leader() {
            let matches = node.raft().match_indexes();
            let others: Vec<_> = self.others().filter(|(_, _, is_up)| *is_up).collect();
            let mut section = fields(&[("role", &"master"), ("connected_slaves", &others.len())]);
            for (at, (id, Place { host, port }, _)) in others.into_iter().enumerate() {
                let offset = self.offset_of(id, &matches);
                let text = format!("ip={host},port={port},state=online,offset={offset},lag=0");
                section.push((format!("slave{at}"), text));
            }
            section.push(("master_repl_offset".to_string(), applied.to_string()));
            return section;
        }
        let Place { host, port } = self.leader_place().unwrap_or_default();
        let link = if self.is_linked() { "up" } else { "down" };
        fields(&[
            ("role", &"slave"),
            ("master_host", &host),
            ("master_port", &port),
            ("master_link_status", &link),
            ("slave_repl_offset", &applied),
            // Any node takes writes, and passes them on.
            ("slave_read_only", &"0"),
            ("connected_slaves", &"0"),
        ])
    }
}

fn put_no_array(out: &mut Vec<u8>, version: Version) {
    out.extend_from_slice(match version {
        Version::Resp2 => b"*-1\r\n",
        Version::Resp3 => b"_\r\n",
    });
}

fn put_instances(out: &mut Vec<u8>, version: Version, instances: &[Fields]) {
    put_array(out, instances.len());
    instances.iter().for_each(|fields| put_fields(out, version, fields));
}

fn put_fields(out: &mut Vec<u8>, version: Version, fields: &Fields) {
    put_map(out, version, fields.len());
    for (name, value) in fields {
        put_bulk(out, name.as_bytes());
        put_bulk(out, value.as_bytes());
    }
}
