//! Who changes the members by hand, and has leadership handed over: at any moment, in the middle of whatever else
//! happens. What it is told is held against the log, as with every client.

use super::clients::Ticket;
use super::faults::Fault;
use super::turn::name;
use super::world::{Event, Heard, Input, MS, Number, World};
use raftkv::kv::{Answer, MemberRequest, Request};
use raftkv::node::Routing;
use raftkv::raft::{Index, Membership, number};
use std::collections::{BTreeMap, BTreeSet};

/// In the lowest byte of a ticket, where clients have their number.
const MARK: u64 = 0xff;
const ATTEMPTS_MAX: u32 = 5;

#[derive(Debug, Clone)]
struct Errand {
    request: MemberRequest,
    /// Whom it is about, if about one.
    about: Number,
    attempts: u32,
    /// Where to ask next, if it was told.
    hint: Option<Number>,
}

#[derive(Default)]
pub struct Operator {
    last_ticket: u64,
    errands: BTreeMap<Ticket, Errand>,
    /// Whose removal was asked for, and is not known to be done or not done.
    leaving: BTreeSet<Number>,
}

pub fn is_operators(ticket: Ticket) -> bool {
    ticket & 0xff == MARK
}

impl Operator {
    pub fn may_remove(&self, id: Number) -> bool {
        self.leaving.contains(&id)
    }

    fn take_up(&mut self, errand: Errand) -> Ticket {
        self.last_ticket += 1;
        let ticket = self.last_ticket << 8 | MARK;
        self.errands.insert(ticket, errand);
        ticket
    }
}

impl World {
    /// A change of the members, mostly around this node.
    pub fn ask_for_change(&mut self, id: Number) {
        let kinds = if self.swarm.auto_members { 4 } else { 9 };
        let kind = self.nemesis.u32(0..kinds);
        let about = if kind < 2 { id } else { self.nemesis.u64(self.ids()) };
        let name = name(about);
        match kind {
            0 | 1 => self.ask_for_removal(about),
            2 | 4 | 5 => {
                self.faults.add(Fault::PromotionAsked);
                self.begin_errand(MemberRequest::Promote { name }, about);
            }
            _ => {
                self.faults.add(Fault::AdditionAsked);
                self.begin_errand(MemberRequest::Add { name }, about);
            }
        }
    }

    /// Only if the others can go on without it.
    fn ask_for_removal(&mut self, id: Number) {
        let is_member = self.judge.committed_membership().is_some_and(|membership| {
            self.node_of(id).is_some_and(|node| membership.contains(node))
        });
        if !is_member || !self.operator.leaving.insert(id) {
            return;
        }
        if !self.is_enough(|_| true) {
            self.operator.leaving.remove(&id);
            return;
        }
        let is_leader = self.leads(id);
        self.faults.add(if is_leader { Fault::RemovalOfLeaderAsked } else { Fault::RemovalAsked });
        self.begin_errand(MemberRequest::Remove { name: name(id) }, id);
    }

    pub fn ask_for_transfer(&mut self) {
        let about = self.nemesis.u64(self.ids());
        let to = self.nemesis.bool().then(|| name(about));
        self.faults.add(Fault::TransferAsked);
        self.begin_errand(MemberRequest::Transfer { to }, about);
    }

    fn begin_errand(&mut self, request: MemberRequest, about: Number) {
        let errand = Errand { request, about, attempts: 0, hint: None };
        let ticket = self.operator.take_up(errand);
        self.operator_acts(ticket);
    }

    pub fn operator_acts(&mut self, ticket: Ticket) {
        let any = self.nemesis.u64(self.ids());
        let errand = self.operator.errands.get_mut(&ticket).expect("it is about to be asked");
        errand.attempts += 1;
        let node = errand.hint.take().unwrap_or(any);
        let request = errand.request.clone();
        self.trace.event(self.now, &[14, ticket, node], || {
            format!("the operator asks {node}, #{ticket}: {request:?}")
        });
        let patience = self.nemesis.u64(200 * MS..=1500 * MS);
        self.schedule(self.now + patience, Event::ClientHears(ticket, Heard::Nothing));
        let routing = if self.nemesis.bool() { Routing::Redirect } else { Routing::Forward };
        let (least, most) = self.swarm.latency;
        let at = self.now + self.nemesis.u64(least..=most);
        let request = Request::Member(request);
        self.schedule(at, Event::Arrive(node, Input::Request { ticket, request, routing }));
    }

    pub fn operator_hears(&mut self, ticket: Ticket, heard: Heard) {
        let Some(mut errand) = self.operator.errands.remove(&ticket) else { return };
        self.trace
            .event(self.now, &[15, ticket], || format!("the operator hears {heard:?}, #{ticket}"));
        match heard {
            Heard::Answer(Answer::Failed(failure)) if failure.code.outcome_is_unknown() => {}
            Heard::Nothing => {}
            Heard::Answer(Answer::Failed(failure)) => {
                errand.hint = failure.leader.map(|leader| leader.id);
                self.was_not_done(errand);
            }
            Heard::Refused => self.was_not_done(errand),
            Heard::Answer(Answer::Member { index, leader }) => {
                self.was_done(&errand, index, leader);
            }
            Heard::Answer(other) => panic!("the operator asked {errand:?} and was told {other:?}"),
        }
    }

    fn was_not_done(&mut self, errand: Errand) {
        if errand.attempts < ATTEMPTS_MAX && !self.is_healed {
            let at = self.now + self.nemesis.u64(MS..=40 * MS);
            let ticket = self.operator.take_up(errand);
            self.schedule(at, Event::OperatorActs(ticket));
        } else if let MemberRequest::Remove { .. } = errand.request {
            self.operator.leaving.remove(&errand.about);
        }
    }

    /// The log has to say so at that place.
    fn was_done(&mut self, errand: &Errand, index: Index, leader: Number) {
        let about = errand.about;
        if let MemberRequest::Transfer { .. } = errand.request {
            assert!(self.judge.has_led(leader), "{leader} has never led: {errand:?}");
            return self.faults.add(Fault::TransferDone);
        }
        let membership = self.judge.membership_committed_at(index);
        let membership: &Membership = membership
            .unwrap_or_else(|| panic!("{errand:?} is said to be done at {index}, which it is not"));
        let member = membership.members.iter().find(|(id, _)| number(**id) == about);
        let is_so = match errand.request {
            MemberRequest::Add { .. } => member.is_some_and(|(_, member)| !member.is_voter),
            MemberRequest::Promote { .. } => member.is_some_and(|(_, member)| member.is_voter),
            _ => member.is_none(),
        };
        assert!(is_so, "{errand:?} is said to be done at {index}, with {membership:x?}");
        if let MemberRequest::Remove { .. } = errand.request {
            self.operator.leaving.remove(&about);
        }
    }
}
