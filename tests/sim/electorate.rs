//! The judge on members: who counts, by its own reading of the logs.
//!
//! A membership is in force at a node from the moment that its entry is in the node's log until it is truncated
//! (thesis 4.1). Those that follow each other in a log differ in one voter at most, and a leader makes none
//! before it has committed an entry of its term, nor while another is not committed (thesis 4.1, and the
//! correction of 2015). Who votes and whose disk counts is whoever the candidate's or the leader's log names,
//! by id: one that was removed, that only follows, or that has lost its disk and came back, is not among them.

use super::invariants::Judge;
use raftkv::raft::{Entry, Index, Membership, NodeId, Payload, Raft, Term, number, quorum};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What a change of the members was, at the first log that had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    Founded { anew: bool },
    Added,
    Replaced,
    Promoted,
    Removed { id: NodeId, by_itself: bool },
    Undone,
}

#[derive(Default)]
pub struct Electorates {
    /// Of the founding that the logs begin with.
    cluster_id: Option<u64>,
    /// Every membership that was ever in a log, by its entry.
    known: BTreeMap<(Index, Term), Rc<Membership>>,
    pub news: Vec<News>,
}

impl Electorates {
    pub fn is_founded(&self) -> bool {
        self.cluster_id.is_some()
    }

    /// The newest one in a log.
    pub fn newest_in(&self, terms: &[Term]) -> Option<((Index, Term), &Rc<Membership>)> {
        let is_in = |(index, term): &(Index, Term)| terms.get(*index as usize - 1) == Some(term);
        let newest = self.known.iter().rev().find(|(at, _)| is_in(at));
        newest.map(|(at, membership)| (*at, membership))
    }

    /// All but what nobody was told yet.
    pub fn forget(&mut self) {
        self.cluster_id = None;
        self.known.clear();
    }

    pub fn at(&self, at: (Index, Term)) -> Option<&Rc<Membership>> {
        self.known.get(&at)
    }

    /// Those that may yet come into force, wherever their entries are.
    fn after(&self, committed: Index) -> impl Iterator<Item = &Rc<Membership>> {
        self.known.range((committed + 1, 0)..).map(|(_, membership)| membership)
    }
}

impl Judge {
    pub fn committed_membership(&self) -> Option<&Rc<Membership>> {
        self.electorates.newest_in(self.reference.terms()).map(|(_, membership)| membership)
    }

    /// The one that is in force for good, and those that may follow it.
    pub fn possible_memberships(&self) -> Vec<Rc<Membership>> {
        let newer = self.electorates.after(self.committed());
        self.committed_membership().into_iter().chain(newer).cloned().collect()
    }

    /// A log begins with another founding than those that were known: nothing of the first one may have come of
    /// it, and nobody may hold it any more.
    pub(super) fn look_at_founding(&mut self, raft: &Raft) {
        let founded = raft.membership().cluster_id;
        if !raft.is_founded() || self.electorates.cluster_id == Some(founded) {
            return;
        }
        let id = raft.id();
        let anew = self.electorates.is_founded();
        assert_eq!(self.committed(), 0, "node {id:x} founds a second cluster beside {founded:x}");
        for (other, view) in
            self.views.iter().filter(|(other, view)| **other != id && !view.is_gone)
        {
            let is_empty = view.memory.is_empty() && view.durable.terms.is_empty();
            assert!(is_empty, "node {id:x} founds a cluster, and {other:x} is founded already");
        }
        self.forget_founding();
        self.electorates.cluster_id = Some(founded);
        self.electorates.news.push(News::Founded { anew });
    }

    /// An entry that says who belongs to the cluster is in a log for the first time.
    pub(super) fn note_members(&mut self, raft: &Raft, entry: &Entry) {
        let Payload::Members(after) = &entry.payload else { return };
        let at = (entry.index, entry.term);
        if self.electorates.known.contains_key(&at) {
            return;
        }
        let id = raft.id();
        let terms = &self.views[&id].memory[..entry.index as usize - 1];
        match self.electorates.newest_in(terms) {
            None => check_founding(entry, after),
            Some(((index, _), before)) => {
                check_change(before, after);
                if raft.is_leader() && raft.term() == entry.term {
                    let commit = raft.commit_index();
                    assert!(index <= commit, "leader {id:x} changes members twice at once");
                    let newest = raft.log().term_at(commit);
                    let has_begun = newest == Some(entry.term);
                    assert!(has_begun, "leader {id:x} changes members before its first commit");
                }
                let news = what_changed(before, after, id);
                self.electorates.news.push(news);
            }
        }
        self.electorates.known.insert(at, Rc::clone(after));
    }

    /// "A server always uses the latest configuration in its log."
    pub(super) fn look_at_members(&mut self, raft: &Raft) {
        let id = raft.id();
        let newest = self.electorates.newest_in(&self.views[&id].memory);
        let at = newest.map(|(at, _)| at);
        let expected = newest.map(|(_, membership)| Rc::clone(membership)).unwrap_or_default();
        assert_eq!(*raft.membership(), expected, "the members as node {id:x} has them");
        let before = std::mem::replace(&mut self.view(id).members_at, at);
        let is_undone = |(index, term): (Index, Term)| {
            self.views[&id].memory.get(index as usize - 1) != Some(&term)
        };
        if before.is_some_and(is_undone) {
            self.electorates.news.push(News::Undone);
        }
        self.view(id).members_before = before;
    }

    /// "A candidate wins an election if it receives votes from a majority of the servers in the full cluster for
    /// the same term": the cluster of its own log.
    pub(super) fn check_elected(&self, id: NodeId, term: Term) {
        let memory = &self.views[&id].memory;
        let newest = self.electorates.newest_in(memory);
        let ((index, _), membership) = newest.expect("it belongs to a cluster");
        // Thesis 4.2.2: one that is removed by an entry of its log may be needed until that is committed, as far
        // as it knows.
        let before = self.electorates.newest_in(&memory[..index as usize - 1]);
        let may_lead = membership.is_voter(id)
            || (index > self.views[&id].commit
                && before.is_some_and(|(_, before)| before.is_voter(id)));
        assert!(may_lead, "node {id:x} leads term {term} and is no voter");
        let votes = membership
            .voters()
            .filter(|voter| *voter == id || self.votes.get(&(*voter, term)) == Some(&id))
            .count();
        let voters = membership.voter_count();
        assert!(
            votes >= quorum::majority(voters),
            "node {id:x} leads term {term} by {votes} votes of {voters} voters"
        );
    }

    /// Whether the disks of a majority hold an entry: of the members that are in force at the node that calls it
    /// committed. If it has changed them in the very turn in which it did, of those before.
    pub(super) fn is_on_a_majority(&self, by: NodeId, at: (Index, Term)) -> Result<(), String> {
        let view = &self.views[&by];
        let (newest, _) = self.electorates.newest_in(&view.memory).expect("it was founded");
        let before = view.members_before.filter(|before| *before != newest && newest.0 > at.0);
        let mut counts = Vec::new();
        for members_at in std::iter::once(newest).chain(before) {
            let membership = &self.electorates.known[&members_at];
            let copies = membership.voters().filter(|id| self.has_on_disk(*id, at)).count();
            let voters = membership.voter_count();
            if copies >= quorum::majority(voters) {
                return Ok(());
            }
            counts.push(format!("{copies} of the {voters} disks of {members_at:?}"));
        }
        Err(counts.join(", "))
    }

    fn has_on_disk(&self, id: NodeId, (index, term): (Index, Term)) -> bool {
        self.views.get(&id).is_some_and(|view| {
            let images = std::iter::once(&view.durable).chain(&view.lost);
            images.into_iter().any(|image| image.term_at(index) == Some(term))
        })
    }
}

fn check_founding(entry: &Entry, founding: &Membership) {
    assert_eq!((entry.index, entry.term), (1, 1), "a log begins with the founding");
    let all_vote = founding.voter_count() == founding.members.len();
    assert!(all_vote && founding.removed.is_empty(), "a founding of {founding:x?}");
}

fn check_change(before: &Membership, after: &Membership) {
    assert_eq!(before.cluster_id, after.cluster_id, "members of another cluster");
    let [old, new] = [before, after].map(|m| m.voters().collect::<BTreeSet<NodeId>>());
    let differ: Vec<NodeId> = old.symmetric_difference(&new).copied().collect();
    assert!(differ.len() <= 1, "two voters change at once: {differ:x?}");
    assert!(!new.is_empty(), "nobody votes any more");
    for id in after.members.keys() {
        assert!(!before.was_removed(*id), "node {id:x} was removed and is back");
        let is_new_voter = after.is_voter(*id) && !before.is_voter(*id);
        assert!(!is_new_voter || before.contains(*id), "voter {id:x} was no learner");
    }
    for id in before.members.keys().filter(|id| !after.contains(**id)) {
        assert!(after.was_removed(*id), "node {id:x} is forgotten");
    }
    let numbers: BTreeSet<u64> = after.members.keys().map(|id| number(*id)).collect();
    assert_eq!(numbers.len(), after.members.len(), "two members of one name: {after:x?}");
}

fn what_changed(before: &Membership, after: &Membership, leader: NodeId) -> News {
    let gone = before.members.keys().find(|id| !after.contains(**id));
    let is_added = after.members.keys().any(|id| !before.contains(*id));
    match (gone, is_added) {
        (Some(_), true) => News::Replaced,
        (Some(id), false) => News::Removed { id: *id, by_itself: *id == leader },
        (None, true) => News::Added,
        (None, false) => News::Promoted,
    }
}
