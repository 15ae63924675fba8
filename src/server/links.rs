//! The connections to the other members: who is dialled, who has said hello, and what is lost when a
//! connection ends.
//!
//! Of two members the one with the higher number dials, so that they never dial each other at once. If a
//! connection ends that the other side should dial again, this side tries once whether anybody listens
//! there: "refused" means that the process has ended, which is worth knowing before any timeout.

use super::refusals::Refusals;
use crate::config::{Config, Member};
use crate::net::{ConnId, Net, NetConfig, PeerAddress, ResolverConfig};
use crate::node::PeerMessage;
use crate::protocol::hello::{
    self, Hello, HelloReply, KnownPeer, Refused, RefusedCode, Role, VERSION_MAX, VERSION_MIN,
    Welcome,
};
use crate::protocol::resp::TextLimits;
use crate::protocol::{client_frame_bytes_max, frame, peer, peer_frame_bytes_max};
use crate::raft::NodeId;
use crate::wal::Identity;
use log::{debug, info, warn};
use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

/// What a peer has not read. Far more than the window of AppendEntries allows, so a peer that reaches it
/// does not read at all; its connection is closed.
const PEER_OUTBOX_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Connections accepted beyond `--connections-max`: a member finds its place there however many clients
/// there are, and a client is told why it has none.
pub const HEADROOM: usize = 64;
/// A connection to a member that ends sooner, without a word, was not wanted by the other side.
const BRIEF: Duration = Duration::from_secs(1);

pub struct Links {
    pub net: Net,
    identity: Identity,
    peers: BTreeMap<NodeId, Link>,
    /// What `judge` compares with; in the order of `peers`.
    known: Vec<KnownPeer>,
    overflowing: Vec<ConnId>,
    refusals: Refusals,
    welcome: Welcome,
    clients_max: usize,
}

struct Link {
    name: String,
    /// The connection that has said hello, both ways.
    conn: Option<ConnId>,
    /// The other side closed the last connection, and nobody knows yet why.
    may_have_ended: bool,
    /// Refusals and failures are logged when they change, not each time.
    last_trouble: String,
    attached_at: Instant,
    /// A message has come over the present connection.
    heard: bool,
    /// The last connection was brief; the next ones are not logged until one lasts.
    brief: bool,
}

impl Links {
    pub fn new(config: &Config, identity: Identity, now: Instant) -> io::Result<Self> {
        let others: BTreeMap<NodeId, Member> =
            config.members.clone().into_iter().filter(|(id, _)| *id != config.id).collect();
        let mut net = Net::new(net_config(config, &others), now)?;
        for id in others.keys().filter(|id| **id < config.id) {
            net.dial(*id, now);
        }
        let known = others
            .iter()
            .map(|(id, member)| KnownPeer {
                node: *id,
                name: member.name.clone(),
                incarnation: None,
            })
            .collect();
        let link = |member: Member| Link {
            name: member.name,
            conn: None,
            may_have_ended: false,
            last_trouble: String::new(),
            attached_at: now,
            heard: false,
            brief: false,
        };
        let frame_bytes_max = client_frame_bytes_max(&config.limits);
        let welcome = Welcome {
            version: VERSION_MAX,
            cluster_id: identity.cluster_id,
            node: identity.node,
            incarnation: identity.incarnation,
            name: identity.name.clone(),
            frame_bytes_max: u32::try_from(frame_bytes_max).expect("checked limits"),
            key_bytes_max: config.limits.key_bytes_max,
            value_bytes_max: config.limits.value_bytes_max,
        };
        Ok(Links {
            net,
            identity,
            peers: others.into_iter().map(|(id, member)| (id, link(member))).collect(),
            known,
            overflowing: Vec::new(),
            refusals: Refusals::default(),
            welcome,
            clients_max: config.connections_max,
        })
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Encodes a message straight into the peer's outbox. Without a connection it is lost, as on a
    /// network that loses messages; Raft sends again.
    pub fn send(&mut self, to: NodeId, message: &PeerMessage) {
        let Some(conn) = self.peers.get(&to).and_then(|link| link.conn) else { return };
        if self.net.outbox_len(conn) > PEER_OUTBOX_BYTES_MAX {
            if !self.overflowing.contains(&conn) {
                self.overflowing.push(conn);
            }
            return;
        }
        if let Some(outbox) = self.net.outbox(conn) {
            frame::put_frame(outbox, |out| peer::encode(message, out));
        }
    }

    /// Connections whose other side does not read, to be closed.
    pub fn take_overflowing(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.overflowing)
    }

    /// The first words on a connection that this node dialled.
    pub fn say_hello(&mut self, conn: ConnId) {
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            cluster_id: self.identity.cluster_id,
            role: Role::Peer {
                node: self.identity.node,
                incarnation: self.identity.incarnation,
                name: self.identity.name.clone(),
            },
        };
        if let Some(outbox) = self.net.outbox(conn) {
            outbox.extend_from_slice(&frame::MAGIC);
            frame::put_frame(outbox, |out| hello.encode(out));
        }
    }

    /// Answers a hello. `Err`: refused; the refusal is sent and the connection to be closed after it.
    pub fn answer_hello(&mut self, conn: ConnId, hello: &Hello) -> Result<(), Refused> {
        let crowded = self.is_crowded() && matches!(hello.role, Role::Client { .. });
        let judged = match crowded {
            true => Err(self.too_many()),
            false => hello::judge(hello, &self.us()),
        };
        let reply = match &judged {
            Ok(version) => {
                HelloReply::Welcome(Welcome { version: *version, ..self.welcome.clone() })
            }
            Err(refused) => HelloReply::Refused(refused.clone()),
        };
        if let Some(outbox) = self.net.outbox(conn) {
            outbox.extend_from_slice(&frame::MAGIC);
            frame::put_frame(outbox, |out| reply.encode(out));
        }
        judged.map(|_| ())
    }

    /// Whether the node that answered is the one that was dialled.
    pub fn judge_welcome(&self, peer: NodeId, welcome: &Welcome) -> Result<(), Refused> {
        let dialled =
            self.known.iter().find(|known| known.node == peer).expect("dialled peers are members");
        hello::judge_welcome(welcome, &self.us(), dialled)
    }

    fn us(&self) -> hello::Identity<'_> {
        hello::Identity {
            cluster_id: self.identity.cluster_id,
            node: self.identity.node,
            incarnation: self.identity.incarnation,
            name: &self.identity.name,
            peers: &self.known,
        }
    }

    /// Both sides have said hello. Returns the connection that this one replaces.
    pub fn attach(
        &mut self,
        conn: ConnId,
        peer: NodeId,
        incarnation: u64,
        now: Instant,
    ) -> Option<ConnId> {
        self.net.attach_peer(conn, peer);
        // A name may be gone as soon as its process is, and it is then that a probe has to find the place.
        if let Some(address) = self.net.remote_addr(conn).filter(|_| peer > self.identity.node) {
            self.net.remember_address(peer, address.ip());
        }
        if let Some(known) = self.known.iter_mut().find(|known| known.node == peer) {
            known.incarnation = Some(incarnation);
        }
        let link = self.peers.get_mut(&peer).expect("judged peers are members");
        link.may_have_ended = false;
        link.attached_at = now;
        link.heard = false;
        if !link.brief {
            link.connected();
        }
        link.conn.replace(conn)
    }

    /// A message has come from a member.
    pub fn heard(&mut self, peer: NodeId) {
        let Some(link) = self.peers.get_mut(&peer) else { return };
        link.heard = true;
        if link.brief {
            link.connected();
        }
    }

    pub fn tick(&mut self, now: Instant) {
        for link in self.peers.values_mut() {
            if link.brief && link.conn.is_some() && now >= link.attached_at + BRIEF {
                link.connected();
            }
        }
    }

    /// Returns the peer whose connection this was.
    pub fn detach(
        &mut self,
        conn: ConnId,
        by_other_side: bool,
        reason: &str,
        now: Instant,
    ) -> Option<NodeId> {
        let (id, link) = self.peers.iter_mut().find(|(_, link)| link.conn == Some(conn))?;
        link.conn = None;
        link.may_have_ended = by_other_side;
        link.disconnected(reason, now);
        let dials_itself = *id > self.identity.node;
        if by_other_side && dials_itself {
            self.net.probe(*id, now);
        }
        Some(*id)
    }

    /// Returns whether this tells that the peer's process has ended.
    pub fn dial_failed(&mut self, peer: NodeId, refused: bool, reason: &str) -> bool {
        let Some(link) = self.peers.get_mut(&peer) else { return false };
        if link.last_trouble != reason {
            info!("{} cannot be reached: {reason}", link.name);
            link.last_trouble = reason.to_string();
        }
        refused && std::mem::take(&mut link.may_have_ended)
    }

    /// A member that was dialled refuses this node, or is not the one that it should be; logged once per
    /// reason.
    pub fn note_refusal(&mut self, peer: NodeId, reason: &str) {
        let Some(link) = self.peers.get_mut(&peer) else { return };
        if link.last_trouble != reason {
            warn!("{}: {reason}", link.name);
            link.last_trouble = reason.to_string();
        }
    }

    /// Somebody was refused who claimed to be a member, or was a client.
    pub fn note_refused(
        &mut self,
        conn: ConnId,
        claimed: Option<NodeId>,
        refused: &Refused,
        now: Instant,
    ) {
        let from = self.net.remote_addr(conn).map_or("?".to_string(), |at| at.ip().to_string());
        let what = format!("a connection from {from} is refused: {refused}");
        if self.refusals.is_news(&what, now) {
            warn!("{what}");
        }
        // Whoever is connected is not the one that was refused.
        if let Some(link) = claimed.and_then(|id| self.peers.get_mut(&id))
            && link.conn.is_none()
        {
            link.last_trouble = what;
        }
    }

    /// Whether there are more clients than there may be.
    pub fn is_crowded(&self) -> bool {
        self.net.accepted() > self.clients_max
    }

    /// The answer to a client's hello when there are too many.
    pub fn too_many(&self) -> Refused {
        Refused {
            code: RefusedCode::Busy,
            reason: format!(
                "{} has {} connections already: ask another node, or later",
                self.identity.name, self.clients_max
            ),
        }
    }

    /// Name and state of every other member, in words.
    pub fn peer_states(&self) -> Vec<(NodeId, String, String)> {
        let state = |id: NodeId, link: &Link| {
            let dialled_state = self.net.peer_state(id);
            match (link.conn, link.last_trouble.is_empty()) {
                (Some(_), _) => "connected".to_string(),
                (None, true) if id > self.identity.node => "waiting for its connection".to_string(),
                (None, true) => dialled_state,
                (None, false) => format!("disconnected: {}", link.last_trouble),
            }
        };
        self.peers.iter().map(|(id, link)| (*id, link.name.clone(), state(*id, link))).collect()
    }

    pub fn peers_connected(&self) -> usize {
        self.peers.values().filter(|link| link.conn.is_some()).count()
    }
}

impl Link {
    fn connected(&mut self) {
        info!("{} is connected", self.name);
        self.brief = false;
        self.last_trouble.clear();
    }

    fn disconnected(&mut self, reason: &str, now: Instant) {
        let was_brief = self.brief;
        self.brief = !self.heard && now < self.attached_at + BRIEF;
        match (was_brief, self.brief) {
            (true, true) => debug!("{} is disconnected again: {reason}", self.name),
            (false, true) => {
                self.last_trouble = format!("{reason} at once; its own log may say why");
                info!("{} is disconnected: {}", self.name, self.last_trouble);
            }
            (_, false) => info!("{} is disconnected: {reason}", self.name),
        }
    }
}

fn net_config(config: &Config, others: &BTreeMap<NodeId, Member>) -> NetConfig {
    let limits = &config.limits;
    let frame_bytes = peer_frame_bytes_max(limits) + frame::HEADER_BYTES;
    NetConfig {
        listen: config.listen.to_string(),
        peers: others
            .iter()
            .map(|(id, member)| PeerAddress {
                id: *id,
                name: member.name.clone(),
                host: member.host.clone(),
                port: member.port,
            })
            .collect(),
        connections_max: config.connections_max + HEADROOM,
        inbox_bytes_max: frame_bytes.max(TextLimits::new(limits).inbox_bytes_min()),
        outbox_bytes_max: config.client_outbox_bytes_max + client_frame_bytes_max(limits),
        peer_outbox_bytes_max: PEER_OUTBOX_BYTES_MAX + frame_bytes,
        connect_timeout: Duration::from_secs(1),
        redial_max: Duration::from_millis(500),
        user_timeout: Duration::from_secs(3),
        silent_timeout: Duration::from_secs(10),
        resolver: ResolverConfig {
            resolv_conf: config.resolv_conf.clone(),
            hosts: config.hosts.clone(),
        },
        seed: fastrand::u64(..),
    }
}
