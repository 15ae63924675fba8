//! The connections to the other members: who is dialled, who has said hello, and what is lost when a
//! connection ends.
//!
//! Of two members the one with the higher number dials, so that they never dial each other at once. If a
//! connection ends that the other side should dial again, this side tries once whether anybody listens
//! there: "refused" means that the process has ended, which is worth knowing before any timeout.

use super::passing::{IN_OUTBOX_BYTES, Passing};
use super::refusals::Refusals;
use crate::config::{Config, parse_host_port};
use crate::kv::Limits;
use crate::net::{ConnId, Net, NetConfig, PeerAddress, ResolverConfig};
use crate::node::{self, Node, PeerMessage, Standing};
use crate::ordered::Few;
use crate::protocol::hello::{
    self, Hello, HelloReply, Refused, RefusedCode, Role, VERSION_MAX, VERSION_MIN, Welcome,
};
use crate::protocol::resp::TextLimits;
use crate::protocol::{
    PEER_FRAME_BYTES_MAX, client_frame_bytes_max, frame, peer, peer_frame_bytes_max,
};
use crate::raft::{Distrust, Membership, NodeId, node_id, number};
use crate::wal::Identity;
use log::{debug, error, info, warn};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A peer that has taken nothing for so long although something waits for it hangs: its connection is closed. Nothing
/// else that it does or does not read closes it.
const HANGS: Duration = Duration::from_secs(5);
/// Nodes that are connected and are no members: those that want to be taken in, and whoever says that it is a node.
/// One more is refused until there is room.
pub const STRANGERS_MAX: usize = 32;
/// What waits for one of those of Raft's messages: short answers, and the founding.
const STRANGER_OUTBOX_BYTES: usize = 64 * 1024;
/// Connections accepted beyond `--connections-max`: a member finds its place there however many clients
/// there are, and a client is told why it has none.
pub const HEADROOM: usize = 64;
/// Of all memory for connections, what Raft's messages to all peers may take that hang or are slow.
const RAFT_PART: usize = 8;
/// Of all memory for connections, what may be room that clients keep for their next words.
const KEPT_ROOM_PART: usize = 16;
/// A connection to a member that ends sooner, without a word, was not wanted by the other side.
const BRIEF: Duration = Duration::from_secs(1);
/// A member that has said nothing for so long gives way to another process of its name.
const TWIN_PATIENCE: Duration = Duration::from_secs(2);

pub struct Links {
    pub net: Net,
    identity: Identity,
    /// By number.
    peers: Few<u64, Link>,
    /// Names of the peers, by number.
    names: Few<u64, String>,
    membership: Rc<Membership>,
    committed: Rc<Membership>,
    leads: bool,
    /// Who is known to lead, and since when: from then on it, or whoever may elect one, is asked.
    leader: (Option<NodeId>, Instant),
    /// Others say that this node was removed.
    is_removed: bool,
    /// Connections to be closed, and why.
    unwanted: Vec<(ConnId, &'static str)>,
    refusals: Refusals,
    /// Connections to members that came or went in this turn, in words.
    news: Vec<String>,
    welcome: Welcome,
    clients_max: usize,
    /// What waits for a peer of Raft's messages, and for all peers. More of them are lost, as on a network that
    /// loses messages.
    raft_bytes_max: usize,
    raft_bytes_of_all_max: usize,
    /// A request waits to be passed on for so long, and then it is not.
    pass_on_within: Duration,
    /// Ticks after which a peer that takes nothing hangs.
    hangs_ticks: u64,
    /// Requests that were to be passed on, and never will be.
    not_sent: Vec<u64>,
    refuses_clients: bool,
}

/// How another node is reached from here.
pub struct Reach<'a> {
    pub number: u64,
    pub name: &'a str,
    pub is_connected: bool,
    /// If it is connected, since it was last heard from or began to be asked; else since it is not.
    pub since: Duration,
    /// Why it is not connected.
    pub trouble: String,
}

struct Link {
    name: String,
    /// From the configuration: kept connected whoever is a member.
    is_initial: bool,
    /// The connection that has said hello, both ways.
    conn: Option<ConnId>,
    /// Who is, or last was, at its other end.
    id: Option<NodeId>,
    /// What it said of its place in a cluster.
    standing: Standing,
    /// The other side closed the last connection, and nobody knows yet why.
    may_have_ended: bool,
    /// Refusals and failures are logged when they change, not each time.
    last_trouble: String,
    attached_at: Instant,
    /// When the last connection ended, or was first wanted.
    lost_at: Instant,
    heard_at: Instant,
    /// A message has come over the present connection.
    heard: bool,
    /// The last connection was brief; the next ones are not logged until one lasts.
    brief: bool,
    /// What goes there for clients, and waits.
    passing: Passing,
    /// Bytes that it had taken when that was looked at last, and for how many ticks it has taken none although
    /// some waited. Ticks, so that a pause of this node is none of the peer's.
    taken: u64,
    idle_ticks: u64,
}

impl Links {
    pub fn new(config: &Config, identity: Identity, now: Instant) -> io::Result<Self> {
        let others = || config.members.iter().filter(|(number, _)| **number != config.number);
        let mut net = Net::new(net_config(config), now)?;
        for (number, member) in others() {
            net.know_peer(PeerAddress {
                id: *number,
                name: member.name.clone(),
                host: member.host.clone(),
                port: member.port,
            });
            if *number < config.number {
                net.dial(*number, now);
            }
        }
        let link = |name: &String| Link::new(name.clone(), true, now);
        let peers = others().map(|(number, member)| (*number, link(&member.name))).collect();
        let names = others().map(|(number, member)| (*number, member.name.clone())).collect();
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
            standing: Standing::Empty,
            address: config.advertise.clone(),
        };
        Ok(Links {
            net,
            identity,
            peers,
            names,
            membership: Rc::default(),
            committed: Rc::default(),
            leads: false,
            leader: (None, now),
            is_removed: false,
            unwanted: Vec::new(),
            refusals: Refusals::default(),
            news: Vec::new(),
            welcome,
            clients_max: config.connections_max,
            raft_bytes_max: raft_bytes_max(config),
            raft_bytes_of_all_max: config.buffers_bytes_max / RAFT_PART,
            pass_on_within: config.request_timeout * 3 / 4,
            hangs_ticks: config.ticks(HANGS),
            not_sent: Vec::new(),
            refuses_clients: false,
        })
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Takes over who belongs to the cluster: members are kept connected, the one with the higher number
    /// dialling. A leader also dials its learners, which need not know it yet.
    pub fn follow(&mut self, node: &Node, now: Instant) {
        let raft = node.raft();
        let standing = node.standing();
        if std::mem::replace(&mut self.welcome.standing, standing) != standing {
            self.leave_other_clusters();
        }
        self.committed = Rc::clone(raft.committed_membership());
        if raft.is_removed() {
            self.stay_quiet();
        }
        if raft.leader() != self.leader.0 {
            self.leader = (raft.leader(), now);
        }
        let leads = raft.is_leader();
        let is_same = Rc::ptr_eq(raft.membership(), &self.membership) && leads == self.leads;
        if is_same {
            return;
        }
        self.leads = leads;
        self.membership = Rc::clone(raft.membership());
        let own = self.identity.node;
        let membership = Rc::clone(&self.membership);
        for (id, member) in membership.members.iter().filter(|(id, _)| number(**id) != own) {
            let number = number(*id);
            let new = || Link::new(member.name.clone(), false, now);
            let is_initial = self.peers.get_or_insert_with(number, new).is_initial;
            self.names.insert(number, member.name.clone());
            if let Ok((host, port)) = parse_host_port(&member.address)
                && !is_initial
            {
                self.net.know_peer(PeerAddress {
                    id: number,
                    name: member.name.clone(),
                    host,
                    port,
                });
            }
            let is_known = is_initial || parse_host_port(&member.address).is_ok();
            if is_known && !self.is_removed && (number < own || (leads && !member.is_voter)) {
                self.net.dial(number, now);
            }
        }
        let is_member = |number: u64| membership.numbered(number).is_some();
        let gone: Vec<u64> = self
            .peers
            .iter()
            .filter(|(number, link)| {
                !link.is_initial && link.conn.is_none() && !is_member(**number)
            })
            .map(|(number, _)| *number)
            .collect();
        gone.into_iter().for_each(|number| self.forget(number));
    }

    /// A node that was removed disturbs nobody.
    fn stay_quiet(&mut self) {
        if !std::mem::replace(&mut self.is_removed, true) {
            self.peers.keys().for_each(|number| self.net.leave_peer(*number));
        }
    }

    /// Encodes a message straight into the peer's outbox. Without a connection, or if the peer does not read, it is
    /// lost, as on a network that loses messages; Raft sends again. What goes there for clients waits behind what
    /// went there before.
    pub fn send(&mut self, to: NodeId, message: &PeerMessage, now: Instant) {
        let fair_share = self.raft_bytes_of_all_max / self.peers.len().max(1);
        let link = self.peers.get_mut(&number(to)).filter(|link| link.id == Some(to));
        let Some((link, conn)) = link.and_then(|link| link.conn.map(|conn| (link, conn))) else {
            return self.not_sent.extend(request_id(message));
        };
        let is_for_clients =
            matches!(message, PeerMessage::Forward { .. } | PeerMessage::ForwardReply { .. });
        let mut waiting = self.net.outbox_len(conn);
        if is_for_clients && waiting >= IN_OUTBOX_BYTES && link.passing.is_empty() {
            // Mostly the socket takes it, and nothing has to wait.
            self.net.push();
            waiting = self.net.outbox_len(conn);
        }
        if is_for_clients && (waiting >= IN_OUTBOX_BYTES || !link.passing.is_empty()) {
            return self.not_sent.extend(link.passing.push(message, now));
        }
        let is_member = link.is_initial || self.membership.contains(to);
        let max =
            if is_member { self.raft_bytes_max.min(fair_share) } else { STRANGER_OUTBOX_BYTES };
        if waiting > max {
            return;
        }
        if let Some(outbox) = self.net.outbox(conn) {
            frame::put_frame(outbox, |out| peer::encode(message, out));
        }
    }

    /// Sends what the sockets take, also of what waits for clients.
    pub fn push(&mut self) {
        self.net.push();
        for link in self.peers.values_mut() {
            let Some(conn) = link.conn else { continue };
            // As long as it takes everything, nothing tells when it would take more.
            while !link.passing.is_empty() {
                let waiting = self.net.outbox_len(conn);
                if waiting >= IN_OUTBOX_BYTES {
                    break;
                }
                let Some(outbox) = self.net.outbox(conn) else { break };
                link.passing.fill(outbox, waiting);
                self.net.push();
            }
        }
    }

    /// What waits to be sent to this peer for clients, in bytes.
    pub fn passing_bytes(&self, peer: NodeId) -> usize {
        let link = self.peers.get(&number(peer)).filter(|link| link.id == Some(peer));
        link.map_or(0, |link| link.passing.bytes())
    }

    /// ... to all of them.
    pub fn passing_bytes_of_all(&self) -> usize {
        self.peers.values().map(|link| link.passing.bytes()).sum()
    }

    /// Other nodes that this one knows of.
    pub fn known(&self) -> usize {
        self.peers.len()
    }

    /// Whether there is no memory for more clients.
    pub fn refuse_clients(&mut self, refuse: bool) {
        self.refuses_clients = refuse;
    }

    /// Requests that were to be passed on since the last call, and never will be.
    pub fn take_not_sent(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.not_sent)
    }

    /// Connections to be closed, and why.
    pub fn take_unwanted(&mut self) -> Vec<(ConnId, &'static str)> {
        std::mem::take(&mut self.unwanted)
    }

    /// Whoever was let in while this node belonged to no cluster, and belongs to another one than this node does
    /// now, would be refused today.
    fn leave_other_clusters(&mut self) {
        let Standing::Member { cluster_id: ours } = self.welcome.standing else { return };
        let is_of_another = |link: &&Link| match link.standing {
            Standing::Member { cluster_id } => cluster_id != ours,
            Standing::Empty | Standing::Contacted | Standing::Lost => false,
        };
        let others = self.peers.values().filter(is_of_another).filter_map(|link| link.conn);
        self.unwanted.extend(others.map(|conn| (conn, "it belongs to another cluster")));
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
                standing: self.welcome.standing,
                address: self.welcome.address.clone(),
                limits: Some(Limits {
                    key_bytes_max: self.welcome.key_bytes_max,
                    value_bytes_max: self.welcome.value_bytes_max,
                }),
            },
        };
        if let Some(outbox) = self.net.outbox(conn) {
            outbox.extend_from_slice(&frame::MAGIC);
            frame::put_frame(outbox, |out| hello.encode(out));
        }
    }

    /// Answers a hello. `Err`: refused; the refusal is sent and the connection to be closed after it.
    pub fn answer_hello(
        &mut self,
        conn: ConnId,
        hello: &Hello,
        now: Instant,
    ) -> Result<(), Refused> {
        let crowded = self.is_crowded() && matches!(hello.role, Role::Client { .. });
        let judged = match crowded {
            true => Err(self.too_many()),
            false => hello::judge(hello, &self.us()),
        };
        let judged = match (&hello.role, judged) {
            (Role::Peer { node, incarnation, .. }, Ok(version)) => self
                .judge_twin(*node, *incarnation, now)
                .and_then(|()| self.judge_crowd(*node, *incarnation))
                .map(|()| version),
            (_, judged) => judged,
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
    pub fn judge_welcome(&self, peer: u64, welcome: &Welcome, now: Instant) -> Result<(), Refused> {
        hello::judge_welcome(welcome, &self.us(), peer)?;
        self.judge_twin(peer, welcome.incarnation, now)
    }

    /// Two processes that run under one name would take each other's place for ever: the one that is connected
    /// and heard from keeps it.
    fn judge_twin(&self, peer: u64, incarnation: u64, now: Instant) -> Result<(), Refused> {
        let Some(link) = self.peers.get(&peer) else { return Ok(()) };
        let is_another = link.id.is_some_and(|id| id != node_id(peer, incarnation));
        if is_another && link.conn.is_some() && now < link.heard_at + TWIN_PATIENCE {
            let reason = format!(
                "another process runs under the name {}, with another data folder: stop one of them",
                link.name
            );
            return Err(Refused { code: RefusedCode::Incarnation, reason });
        }
        Ok(())
    }

    /// Anybody who reaches the port can say that he is a node.
    fn judge_crowd(&self, node: u64, incarnation: u64) -> Result<(), Refused> {
        let is_known = self.membership.contains(node_id(node, incarnation))
            || self.peers.get(&node).is_some_and(|link| link.is_initial || link.conn.is_some());
        if is_known || self.strangers().count() < STRANGERS_MAX {
            return Ok(());
        }
        let reason = format!("{STRANGERS_MAX} nodes that are no members are connected: try again");
        Err(Refused { code: RefusedCode::Busy, reason })
    }

    /// Connections of nodes that are no members, and what waits to be passed on to each.
    pub fn strangers(&self) -> impl Iterator<Item = (ConnId, usize)> {
        let is_stranger = |link: &&Link| {
            !link.is_initial && link.id.is_none_or(|id| !self.membership.contains(id))
        };
        let strangers = self.peers.values().filter(is_stranger);
        strangers.filter_map(|link| Some((link.conn?, link.passing.bytes())))
    }

    fn us(&self) -> hello::Identity<'_> {
        hello::Identity {
            cluster_id: self.identity.cluster_id,
            node: self.identity.node,
            incarnation: self.identity.incarnation,
            name: &self.identity.name,
            standing: self.welcome.standing,
            membership: &self.membership,
            committed: &self.committed,
            peers: &self.names,
        }
    }

    /// Both sides have said hello. Returns the connection that this one replaces, and who was at its end.
    pub fn attach(
        &mut self,
        conn: ConnId,
        peer: &node::Peer,
        now: Instant,
    ) -> Option<(ConnId, NodeId)> {
        let number = number(peer.id);
        if !self.peers.contains_key(&number) {
            self.net.know_peer(PeerAddress {
                id: number,
                name: peer.name.clone(),
                host: String::new(),
                port: 0,
            });
            self.names.insert(number, peer.name.clone());
            self.peers.insert(number, Link::new(peer.name.clone(), false, now));
        }
        self.net.attach_peer(conn, number);
        // A name may be gone as soon as its process is, and it is then that a probe has to find the place.
        if let Some(address) = self.net.remote_addr(conn).filter(|_| number > self.identity.node) {
            self.net.remember_address(number, address.ip());
        }
        let link = self.peers.get_mut(&number).expect("it was just there");
        link.standing = peer.standing;
        link.may_have_ended = false;
        link.attached_at = now;
        link.heard_at = now;
        link.heard = false;
        if !link.brief {
            self.news.push(link.connected());
        }
        link.passing.clear(&mut self.not_sent);
        (link.taken, link.idle_ticks) = (0, 0);
        let before = link.id.replace(peer.id);
        link.conn.replace(conn).zip(before)
    }

    /// A message has come from a member.
    pub fn heard(&mut self, peer: NodeId, now: Instant) {
        let Some(link) = self.peers.get_mut(&number(peer)) else { return };
        link.heard = true;
        link.heard_at = now;
        if link.brief {
            self.news.push(link.connected());
        }
    }

    pub fn tick(&mut self, now: Instant) {
        for link in self.peers.values_mut() {
            if link.brief && link.conn.is_some() && now >= link.attached_at + BRIEF {
                self.news.push(link.connected());
            }
            if let Some(before) = now.checked_sub(self.pass_on_within) {
                link.passing.give_up(before, &mut self.not_sent);
            }
            let Some(conn) = link.conn else { continue };
            let taken = self.net.taken(conn);
            let is_idle = self.net.outbox_len(conn) > 0 && taken == link.taken;
            link.idle_ticks = if is_idle { link.idle_ticks + 1 } else { 0 };
            link.taken = taken;
            if link.idle_ticks == self.hangs_ticks {
                self.unwanted.push((conn, "it takes nothing of what it is sent"));
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
        let (number, link) = self.peers.iter_mut().find(|(_, link)| link.conn == Some(conn))?;
        link.conn = None;
        link.passing.clear(&mut self.not_sent);
        link.may_have_ended = by_other_side;
        self.news.extend(link.disconnected(reason, now));
        let (number, id, is_initial) = (*number, link.id, link.is_initial);
        let dials_itself = number > self.identity.node;
        if by_other_side && dials_itself && self.net.has_address(number) {
            self.net.probe(number, now);
        }
        if !is_initial && self.membership.numbered(number).is_none() {
            self.forget(number);
        }
        id
    }

    /// A node that is none of ours has gone.
    fn forget(&mut self, number: u64) {
        self.net.leave_peer(number);
        self.net.forget_peer(number);
        self.peers.remove(&number);
        self.names.remove(&number);
    }

    /// Returns whose process has ended, if this tells it.
    pub fn dial_failed(&mut self, peer: u64, refused: bool, reason: &str) -> Option<NodeId> {
        let link = self.peers.get_mut(&peer)?;
        if link.last_trouble != reason {
            info!("{} cannot be reached: {reason}", link.name);
            link.last_trouble = reason.to_string();
        }
        link.id.filter(|_| refused && std::mem::take(&mut link.may_have_ended))
    }

    /// A member that was dialled refuses this node, or is not the one that it should be; logged once per
    /// reason.
    pub fn note_refusal(&mut self, peer: u64, reason: &str) {
        let Some(link) = self.peers.get_mut(&peer) else { return };
        if link.last_trouble != reason {
            warn!("{}: {reason}", link.name);
            link.last_trouble = reason.to_string();
        }
    }

    /// A message from this node is not heard, and its connection is closed; logged once per reason.
    pub fn note_distrust(&mut self, from: NodeId, distrust: &Distrust, now: Instant) {
        let name = self.peers.get(&number(from)).map_or("a node", |link| &link.name);
        let what = format!("{name}: {distrust}");
        if self.refusals.is_news(&what, true, now) {
            error!("{what}; its connection is closed");
        }
    }

    /// A member says that this node was removed. Only its own log or an empty folder could say otherwise.
    pub fn was_told_of_removal(&mut self) {
        if !self.is_removed {
            warn!(
                "{} was removed from the cluster: stop it, or start it with an empty folder to come in anew",
                self.identity.name
            );
        }
        self.stay_quiet();
    }

    /// Whether this node was removed, by its own log or by what others say.
    pub fn is_removed(&self) -> bool {
        self.is_removed
    }

    /// Somebody was refused who claimed to be a member, or was a client.
    pub fn note_refused(
        &mut self,
        conn: ConnId,
        claimed: Option<u64>,
        refused: &Refused,
        now: Instant,
    ) {
        let from = self.net.remote_addr(conn).map_or("?".to_string(), |at| at.ip().to_string());
        let what = format!("a connection from {from} is refused: {refused}");
        if self.refusals.is_news(&what, claimed.is_some(), now) {
            warn!("{what}");
        }
        // Whoever is connected is not the one that was refused.
        if let Some(link) = claimed.and_then(|id| self.peers.get_mut(&id))
            && link.conn.is_none()
        {
            link.last_trouble = what;
        }
    }

    /// Nodes that were refused lately, and why.
    pub fn refused_nodes(&self, now: Instant) -> impl Iterator<Item = &str> {
        self.refusals.of_nodes(now)
    }

    /// Whether there are more clients than there may be, or no memory for more.
    pub fn is_crowded(&self) -> bool {
        self.refuses_clients || self.net.accepted() > self.clients_max
    }

    /// The answer to a client's hello when there are too many.
    pub fn too_many(&self) -> Refused {
        Refused {
            code: RefusedCode::Busy,
            reason: match self.refuses_clients {
                true => format!(
                    "{} has no memory for more connections: ask another node, or later",
                    self.identity.name
                ),
                false => format!(
                    "{} has {} connections already: ask another node, or later",
                    self.identity.name, self.clients_max
                ),
            },
        }
    }

    /// Name and state of every other member, in words.
    pub fn peer_states(&self) -> Vec<(u64, String, String)> {
        let state = |id: u64, link: &Link| {
            let dialled_state = self.net.peer_state(id);
            match (link.conn, link.last_trouble.is_empty()) {
                (Some(_), _) => "connected".to_string(),
                (None, true) if id > self.identity.node => "waiting for its connection".to_string(),
                (None, true) => dialled_state,
                (None, false) => format!("disconnected: {}", link.last_trouble),
            }
        };
        self.peers
            .iter()
            .map(|(number, link)| (*number, link.name.clone(), state(*number, link)))
            .collect()
    }

    /// How every other node that this one knows of is reached.
    pub fn reaches(&self, now: Instant) -> impl Iterator<Item = Reach<'_>> {
        self.peers.iter().map(move |(number, link)| {
            let is_connected = link.conn.is_some();
            // Whoever was not asked had no reason to say anything.
            let heard_or_asked = link.heard_at.max(self.leader.1);
            let begun = if is_connected { heard_or_asked } else { link.lost_at };
            let trouble = match is_connected {
                true => String::new(),
                false if !link.last_trouble.is_empty() => link.last_trouble.clone(),
                false if *number > self.identity.node => "it has not dialled this node".to_string(),
                false => self.net.peer_state(*number),
            };
            Reach {
                number: *number,
                name: &link.name,
                is_connected,
                since: now.saturating_duration_since(begun),
                trouble,
            }
        })
    }

    /// Connections to members that came or went since the last call, in words.
    pub fn take_news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }

    /// Every other node that this one knows of, and whether it is connected.
    pub fn peers(&self) -> impl Iterator<Item = (&str, bool)> {
        self.peers.values().map(|link| (link.name.as_str(), link.conn.is_some()))
    }

    #[inline(never)]
    pub fn peers_connected(&self) -> usize {
        self.peers.values().filter(|link| link.conn.is_some()).count()
    }
}

impl Link {
    fn new(name: String, is_initial: bool, now: Instant) -> Link {
        Link {
            name,
            is_initial,
            conn: None,
            id: None,
            standing: Standing::Empty,
            may_have_ended: false,
            last_trouble: String::new(),
            attached_at: now,
            lost_at: now,
            heard_at: now,
            heard: false,
            brief: false,
            passing: Passing::default(),
            taken: 0,
            idle_ticks: 0,
        }
    }

    /// What is worth telling of it is returned as well.
    fn connected(&mut self) -> String {
        let what = format!("{} is connected", self.name);
        info!("{what}");
        self.brief = false;
        self.last_trouble.clear();
        what
    }

    fn disconnected(&mut self, reason: &str, now: Instant) -> Option<String> {
        let was_brief = self.brief;
        self.brief = !self.heard && now < self.attached_at + BRIEF;
        self.lost_at = now;
        let what = match (was_brief, self.brief) {
            (true, true) => {
                debug!("{} is disconnected again: {reason}", self.name);
                return None;
            }
            (false, true) => {
                self.last_trouble = format!("{reason} at once; its own log may say why");
                format!("{} is disconnected: {}", self.name, self.last_trouble)
            }
            (_, false) => format!("{} is disconnected: {reason}", self.name),
        };
        info!("{what}");
        Some(what)
    }
}

/// Of a request that is passed on.
fn request_id(message: &PeerMessage) -> Option<u64> {
    match message {
        PeerMessage::Forward { id, .. } => Some(*id),
        _ => None,
    }
}

/// More than the window of AppendEntries and two messages of the greatest length: a peer that has so much unread takes
/// nothing at the moment.
fn raft_bytes_max(config: &Config) -> usize {
    config.inflight_bytes_max + 2 * peer_frame_bytes_max(&config.limits)
}

fn net_config(config: &Config) -> NetConfig {
    let limits = &config.limits;
    let frame_bytes = peer_frame_bytes_max(limits) + frame::HEADER_BYTES;
    NetConfig {
        listen: config.listen.to_string(),
        peers: Vec::new(),
        connections_max: config.connections_max + HEADROOM,
        inbox_bytes_max: frame_bytes.max(TextLimits::new(limits).inbox_bytes_min()),
        unserved_bytes_max: config.unserved_bytes_max,
        kept_bytes_max: config.buffers_bytes_max / KEPT_ROOM_PART,
        // One answer may be longer than what this node takes: a value from before it had its present limits.
        outbox_bytes_max: config.client_outbox_bytes_max + PEER_FRAME_BYTES_MAX,
        peer_inbox_bytes_max: PEER_FRAME_BYTES_MAX + frame::HEADER_BYTES,
        peer_outbox_bytes_max: raft_bytes_max(config) + PEER_FRAME_BYTES_MAX,
        // A member that comes back elsewhere is to be found within a second of its name leading there.
        connect_timeout: Duration::from_millis(400),
        redial_max: Duration::from_millis(400),
        // A member whose machine vanished sends no reset: its connection is given up, and its name looked up anew.
        user_timeout: Duration::from_millis(1500),
        silent_timeout: Duration::from_secs(10),
        resolver: ResolverConfig {
            resolv_conf: config.resolv_conf.clone(),
            hosts: config.hosts.clone(),
        },
        seed: fastrand::u64(..),
    }
}
