//! Who belongs to the cluster, as far as a node decides it by itself: how a cluster is founded, how nodes come
//! in, and how leadership is handed over.
//!
//! *Founding.* Of the initial members the one with the lowest number founds the cluster, once every one of them
//! is connected and says that its disk is empty; a majority would not do, or two nodes with new disks could
//! found an empty cluster over the third one's data. The founding is the first entry of the log; whoever has it
//! passes it on to those that it names and that are still empty, so that it survives the loss of its
//! author.
//!
//! *Coming in.* A node with an empty disk that finds a cluster applies: any member passes that on to the
//! leader, which takes it in as a learner and makes it a voter once it has caught up. If the node has the name
//! of a member, that member's disk is lost: the same log entry removes the lost one, which is gone for
//! good, as nobody may vote twice. One change at a time.

use super::requests::failure;
use super::{Node, Origin, PeerMessage, PendingWrite};
use crate::kv::{Answer, FailureCode, Limits, MemberRequest};
use crate::ordered::Few;
use crate::raft::{
    Change, ChangeError, Distrust, FOUNDING_TERM, HandoverError, Member, Membership, NodeId,
    Payload, Term, number,
};
use std::rc::Rc;

/// Nodes that may wait to be taken in. One more is not heard until there is room.
const APPLICANTS_MAX: usize = 32;

/// What a node says of its own place when it is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its disk holds nothing: it belongs to no cluster and never did.
    Empty,
    /// Its disk holds a term and nothing else: a cluster has spoken to it, and what it needs to belong to that
    /// was not said, or was taken back.
    Contacted,
    /// Its disk has lost so much that it does not know its cluster any more.
    Lost,
    Member {
        cluster_id: u64,
    },
}

/// Another node, as it introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub id: NodeId,
    pub name: String,
    /// `host:port` where it is to be found.
    pub address: String,
    pub standing: Standing,
    /// The longest keys and values that it takes from clients; one of version 0.1.0 that dials does not say it.
    pub limits: Option<Limits>,
}

/// A node that wants to be taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applicant {
    pub id: NodeId,
    pub name: String,
    pub address: String,
}

/// A peer that a message can be handed to at the moment.
#[derive(Debug)]
pub(super) struct Connected {
    peer: Peer,
    /// It was told of the founding over this connection.
    is_told: bool,
}

/// A transfer that somebody waits for.
#[derive(Debug)]
pub(super) struct PendingTransfer {
    pub origin: Origin,
    pub term: Term,
    pub deadline_ticks: u64,
}

impl Node {
    /// What it says of itself to others. The term of a founding alone is what a crash has left of one that
    /// nobody was told of.
    pub fn standing(&self) -> Standing {
        let cluster_id = self.raft.membership().cluster_id;
        if self.raft.is_founded() {
            Standing::Member { cluster_id }
        } else if !self.has_nothing() {
            Standing::Lost
        } else if self.raft.term() > FOUNDING_TERM {
            Standing::Contacted
        } else {
            Standing::Empty
        }
    }

    /// No log, and none that was lost.
    fn has_nothing(&self) -> bool {
        !self.raft.is_founded() && !self.raft.is_damaged() && self.raft.log().last().index == 0
    }

    /// Whether another node may take part in the consensus of this one's cluster. Members may, also those whose removal or
    /// admission this node does not know to be committed. And so may those that say they belong to the same cluster:
    /// this node may be too far behind to know them. What a node said of itself when it was connected may be out of
    /// date; its connection is closed then, and it says it anew with the next one.
    pub(super) fn check_sender(&self, from: NodeId) -> Result<(), Distrust> {
        let cluster_id = self.raft.membership().cluster_id;
        let says_so =
            |connected: &Connected| connected.peer.standing == Standing::Member { cluster_id };
        let is_heard = !self.raft.is_founded()
            || self.raft.knows_member(from)
            || self.connected.get(&from).is_some_and(says_so);
        if is_heard { Ok(()) } else { Err(Distrust::Stranger) }
    }

    pub fn peer_connected(&mut self, peer: Peer) {
        self.raft.peer_connected(peer.id);
        self.note_limits(&peer);
        self.connected.insert(peer.id, Connected { peer, is_told: false });
    }

    /// Initial members that keep a new cluster from being founded: name, and why.
    pub fn founding_waits_for(&self) -> Vec<(String, &'static str)> {
        let others = self.config.initial.iter().filter(|(at, _)| **at != number(self.raft.id()));
        others
            .filter_map(|(at, name)| match self.connected_as(*at).map(|peer| peer.standing) {
                None => Some((name.clone(), "not connected")),
                Some(Standing::Empty) => None,
                Some(Standing::Contacted) => Some((name.clone(), "a cluster has spoken to it")),
                Some(Standing::Lost) => Some((name.clone(), "its disk has lost its data")),
                Some(Standing::Member { .. }) => Some((name.clone(), "belongs to a cluster")),
            })
            .collect()
    }

    /// Voters in whose place a node with an empty disk is connected.
    pub fn voters_with_empty_disks(&self) -> Vec<&str> {
        let came_back_empty = |id: NodeId| {
            self.connected_as(number(id))
                .is_some_and(|peer| peer.id != id && peer.standing == Standing::Empty)
        };
        let members = self.raft.membership().members.iter();
        let lost = members.filter(|(id, member)| member.is_voter && came_back_empty(**id));
        lost.map(|(_, member)| member.name.as_str()).collect()
    }

    /// Whether a connected node belongs to a cluster.
    pub fn meets_a_cluster(&self) -> bool {
        let is_member =
            |connected: &Connected| matches!(connected.peer.standing, Standing::Member { .. });
        self.connected.values().any(is_member)
    }

    #[inline(never)]
    fn connected_as(&self, at: u64) -> Option<&Peer> {
        self.connected.values().map(|connected| &connected.peer).find(|peer| number(peer.id) == at)
    }

    /// Not before all that arrived is heard: it may say that one of them is gone again, or has lost its disk.
    fn found_if_all_are_empty(&mut self) {
        let own = number(self.raft.id());
        let is_founder = self.config.initial.first_key_value().is_some_and(|(at, _)| *at == own);
        let is_empty = self.standing() == Standing::Empty;
        if !is_founder || !is_empty || self.meets_a_cluster() {
            return;
        }
        if !self.founding_waits_for().is_empty() {
            return;
        }
        let voter = |name: &str, address: &str| Member {
            name: name.to_string(),
            address: address.to_string(),
            is_voter: true,
        };
        let mut members =
            Few::from([(self.raft.id(), voter(&self.config.name, &self.config.address))]);
        for at in self.config.initial.keys().filter(|at| **at != own) {
            let peer = self.connected_as(*at).expect("all are connected");
            members.insert(peer.id, voter(&peer.name, &peer.address));
        }
        let cluster_id = self.rng.u64(1..);
        let membership = Membership { cluster_id, members, ..Membership::default() };
        self.raft.found(Rc::new(membership));
    }

    /// A founding has arrived, and holds if it names this node, and this node has no log. A candidate may have
    /// been heard before it; no vote was given then.
    pub(super) fn learn_founding(&mut self, founding: Rc<Membership>) {
        if self.has_nothing() && founding.is_voter(self.raft.id()) && founding.cluster_id != 0 {
            self.raft.found(founding);
        }
    }

    /// Passes the founding on, once it is on disk, to members that have not heard of it. While nobody leads,
    /// it is said again and again: they do not vote without it. A leader sends them all of its log.
    fn spread_founding(&mut self) {
        let log = self.raft.log();
        let founding = match log.get(1).map(|entry| &entry.payload) {
            Some(Payload::Members(founding)) if log.durable_index() >= 1 => Rc::clone(founding),
            _ => return,
        };
        let is_time = self.now_ticks.is_multiple_of(u64::from(self.config.raft.heartbeat_ticks));
        let says_again = is_time && self.raft.leader().is_none();
        for (id, connected) in &mut self.connected {
            let is_new = !connected.is_told || says_again;
            let has_nothing =
                matches!(connected.peer.standing, Standing::Empty | Standing::Contacted);
            if has_nothing && is_new && founding.is_voter(*id) {
                connected.is_told = true;
                self.messages.push((*id, PeerMessage::Found(Rc::clone(&founding))));
            }
        }
    }

    pub(super) fn tick_members(&mut self) {
        self.found_if_all_are_empty();
        self.spread_founding();
        if self.raft.is_founded()
            && self.now_ticks.is_multiple_of(u64::from(self.config.raft.heartbeat_ticks))
        {
            self.pass_on_applications();
        }
        let membership = Rc::clone(self.raft.membership());
        let is_over = |id: NodeId| membership.contains(id) || membership.was_removed(id);
        self.applicants.retain(|id, (_, until)| *until > self.now_ticks && !is_over(*id));
        if self.config.auto_members {
            self.admit();
        }
        self.tick_transfer();
    }

    /// Connected nodes that want to come in: the leader hears of them, again and again. Those that have a part of
    /// this cluster's log and are no members were taken in by a leader that could not commit that.
    fn pass_on_applications(&mut self) {
        let membership = Rc::clone(self.raft.membership());
        let may_apply = |standing: Standing| match standing {
            Standing::Empty | Standing::Contacted => true,
            Standing::Member { cluster_id } => cluster_id == membership.cluster_id,
            Standing::Lost => false,
        };
        let applicants: Vec<Applicant> = self
            .connected
            .values()
            .map(|connected| &connected.peer)
            .filter(|peer| may_apply(peer.standing))
            .filter(|peer| !membership.contains(peer.id) && !membership.was_removed(peer.id))
            .map(|Peer { id, name, address, .. }| Applicant {
                id: *id,
                name: name.clone(),
                address: address.clone(),
            })
            .collect();
        for applicant in applicants {
            match self.raft.leader() {
                Some(leader) if leader == self.raft.id() => self.note_applicant(applicant),
                Some(leader) => self.messages.push((leader, PeerMessage::Applies(applicant))),
                None => {}
            }
        }
    }

    pub(super) fn note_applicant(&mut self, applicant: Applicant) {
        let known = self.applicants.contains_key(&applicant.id);
        if self.raft.is_leader() && (known || self.applicants.len() < APPLICANTS_MAX) {
            let until = self.now_ticks + 2 * u64::from(self.config.raft.election_ticks_max);
            self.applicants.insert(applicant.id, (applicant, until));
        }
    }

    /// Names of nodes that wait to be taken in, as the leader knows them.
    pub fn applicants(&self) -> impl Iterator<Item = &Applicant> {
        self.applicants.values().map(|(applicant, _)| applicant)
    }

    /// The leader makes the next change that is due by itself, if there is one.
    fn admit(&mut self) {
        if !self.raft.is_leader() || !self.raft.membership_is_committed() {
            return;
        }
        let membership = Rc::clone(self.raft.membership());
        let learner = membership
            .members
            .iter()
            .find(|(id, member)| !member.is_voter && self.raft.has_caught_up(**id))
            .map(|(id, _)| *id);
        let change = match learner {
            Some(id) => Some(Change::Promote { id }),
            None => self
                .applicants
                .values()
                .find(|(applicant, _)| self.may_come_in(&membership, applicant))
                .map(|(applicant, _)| addition(&membership, applicant)),
        };
        // Whatever keeps it from being made now is looked at again with the next tick.
        if let Some(change) = change {
            self.raft.propose_change(&change).ok();
        }
    }

    /// A node whose name a member has is taken in once that member is surely gone: two processes may run under
    /// one name, and then the one that is a member stays.
    fn may_come_in(&self, membership: &Membership, applicant: &Applicant) -> bool {
        let lost = membership.numbered(number(applicant.id));
        !membership.contains(applicant.id)
            && !membership.was_removed(applicant.id)
            && lost.is_none_or(|lost| {
                let patience = 2 * self.config.raft.election_ticks_max;
                lost != self.raft.id()
                    && !self.connected.contains_key(&lost)
                    && self.raft.silent_ticks(lost).is_some_and(|silent| silent >= patience)
            })
    }

    // By hand.

    pub(super) fn change_members(&mut self, origin: Origin, request: MemberRequest) {
        let membership = Rc::clone(self.raft.membership());
        let named = |name: &str| membership.named(name).ok_or(ChangeError::NotAMember);
        let change = match &request {
            MemberRequest::Transfer { to } => return self.transfer(origin, to.as_deref()),
            MemberRequest::Add { name } if membership.named(name).is_some() => {
                Err(ChangeError::AlreadyMember)
            }
            MemberRequest::Add { name } => {
                let applicant = self.applicants().find(|applicant| applicant.name == *name);
                let Some(applicant) = applicant else {
                    let what = format!("{name} does not wait to be taken in: start it first");
                    return self.not_possible(origin, what);
                };
                Ok(addition(&membership, applicant))
            }
            MemberRequest::Promote { name } => named(name).map(|id| Change::Promote { id }),
            MemberRequest::Remove { name } => named(name).map(|id| Change::Remove { id }),
        };
        match change.and_then(|change| self.raft.propose_change(&change)) {
            Ok(position) => {
                let write = PendingWrite { term: position.term, origin, work: 0, growth_bytes: 0 };
                self.writes.insert(position.index, write);
            }
            Err(ChangeError::NotLeader) => self.fail_not_leader(origin),
            Err(error) => self.not_possible(origin, format!("{}: {error}", called(&request))),
        }
    }

    fn not_possible(&mut self, origin: Origin, what: String) {
        let failure = failure(FailureCode::NotPossible, format!("{what}; nothing was done"));
        self.answer(origin, Answer::Failed(failure));
    }

    fn transfer(&mut self, origin: Origin, to: Option<&str>) {
        let membership = Rc::clone(self.raft.membership());
        let to = match to.map(|name| (name, membership.named(name))) {
            Some((name, None)) => {
                return self.not_possible(origin, format!("{name} is not a member"));
            }
            Some((_, Some(id))) if id == self.raft.id() => {
                let (index, leader) = (self.raft.commit_index(), number(id));
                return self.answer(origin, Answer::Member { index, leader });
            }
            Some((_, Some(id))) => Some(id),
            None => None,
        };
        if self.transfer.is_some() {
            return self
                .not_possible(origin, "leadership is being handed over already".to_string());
        }
        let term = self.raft.term();
        match self.hand_over(to) {
            Ok(deadline_ticks) => {
                self.transfer = Some(PendingTransfer { origin, term, deadline_ticks });
            }
            Err(error) => self.not_possible(origin, error.to_string()),
        }
    }

    /// Requests that come meanwhile are held back. Returns until when, in ticks.
    pub fn hand_over(&mut self, to: Option<NodeId>) -> Result<u64, HandoverError> {
        self.raft.hand_over(to)?;
        self.held_until_ticks = self.now_ticks + 2 * u64::from(self.config.raft.election_ticks_max);
        Ok(self.held_until_ticks)
    }

    /// The process is about to end: a leader hands over, and new requests are sent elsewhere. Returns whether it
    /// hands over.
    pub fn leave(&mut self) -> bool {
        self.is_leaving = true;
        self.hand_over(None).is_ok()
    }

    fn tick_transfer(&mut self) {
        let Some(transfer) = &self.transfer else { return };
        let (term, own) = (self.raft.term(), self.raft.id());
        let outcome = match self.raft.leader() {
            Some(leader) if term > transfer.term && leader != own => {
                Ok((self.raft.commit_index(), number(leader)))
            }
            Some(leader) if leader == own && !self.raft.is_handing_over() => {
                let what = "the successor did not take over in time, and nothing has changed";
                Err(failure(FailureCode::NotPossible, what.to_string()))
            }
            _ if self.now_ticks >= transfer.deadline_ticks => {
                let what =
                    "leadership was given up, and nobody has taken it yet; ask for the status";
                Err(failure(FailureCode::OutcomeUnknown, what.to_string()))
            }
            _ => return,
        };
        let transfer = self.transfer.take().expect("it was just there");
        let answer = match outcome {
            Ok((index, leader)) => Answer::Member { index, leader },
            Err(failure) => Answer::Failed(failure),
        };
        self.answer(transfer.origin, answer);
    }
}

fn addition(membership: &Membership, applicant: &Applicant) -> Change {
    let Applicant { id, name, address } = applicant.clone();
    let replaces = membership.numbered(number(id));
    Change::AddLearner { id, name, address, replaces }
}

fn called(request: &MemberRequest) -> &str {
    match request {
        MemberRequest::Add { name }
        | MemberRequest::Promote { name }
        | MemberRequest::Remove { name } => name,
        MemberRequest::Transfer { to } => to.as_deref().unwrap_or("the leader"),
    }
}
