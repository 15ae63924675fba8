//! The judge: what must hold whatever happens, checked at every node that did something.
//!
//! From Figure 3 of the Raft paper: election safety, log matching, leader completeness, state machine
//! safety, and that leaders only append. Of this implementation: a commit is on the disks of a majority;
//! nothing leaves before the disk has it; a restart finds exactly what was promised; equal digests at equal
//! indexes; nothing goes backwards.
//!
//! What a disk holds is known twice: as the node's memory says at the end of a flush, and as a recovery of
//! the disk's durable bytes finds it, now and then and at every start (`promises.rs`).

use super::electorate::Electorates;
use super::image::{Image, same_up_to, term_in};
use super::model::Model;
use super::reference::Reference;
use raftkv::kv::Seen;
use raftkv::node::Node;
use raftkv::payload::put_payload;
use raftkv::raft::{Entry, HardState, Index, Membership, NodeId, Raft, Term, number};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use xxhash_rust::xxh3::xxh3_64;

/// What is known of one node.
#[derive(Default)]
pub struct View {
    /// The log in memory at the last look.
    pub memory: Vec<Term>,
    pub leads: Option<Term>,
    pub term: Term,
    pub commit: Index,
    pub applied: Index,
    pub durable: Image,
    /// A turn that waits for room on the disk.
    pub held: Option<Image>,
    /// A leader's snapshot was given up in this turn, or in the last one.
    pub gave_up_incoming: (bool, bool),
    /// What the next start may find instead: that, and the batch under way when the process ended.
    pub written: Option<Image>,
    /// What the disk has lost. It was acknowledged before, and counts for what is committed.
    pub lost: Vec<Image>,
    /// All of the disk is lost, and with it the node: what comes back is another one.
    pub is_gone: bool,
    /// The entry of the newest membership in memory, as of the last look and of the one before.
    pub members_at: Option<(Index, Term)>,
    pub members_before: Option<(Index, Term)>,
}

/// An entry as the first log that held it had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    term: Term,
    payload: u64,
    term_before: Term,
}

#[derive(Debug, Clone, Copy)]
struct Committed {
    term: Term,
    payload: u64,
    /// The term whose leader was the first to call it committed.
    known_in: Term,
}

#[derive(Default)]
pub struct Judge {
    pub views: BTreeMap<NodeId, View>,
    leaders: BTreeMap<Term, NodeId>,
    pub votes: BTreeMap<(NodeId, Term), NodeId>,
    /// By index, from 1: every entry that was ever in a log.
    entries: Vec<Vec<Known>>,
    committed: Vec<Committed>,
    pub reference: Reference,
    pub model: Model,
    pub electorates: Electorates,
    /// Nodes that were given another state, and are to find out.
    pub differing: BTreeSet<NodeId>,
    /// What any wall clock has ever shown, in milliseconds of Unix time.
    pub latest_wall_ms: u64,
}

impl Judge {
    pub fn terms_led(&self) -> usize {
        self.leaders.len()
    }

    pub fn committed(&self) -> Index {
        self.committed.len() as Index
    }

    pub fn has_led(&self, at: u64) -> bool {
        self.leaders.values().any(|id| number(*id) == at)
    }

    /// What the committed entry at this index says of the members, if it does.
    pub fn membership_committed_at(&self, index: Index) -> Option<&Rc<Membership>> {
        let term = *self.reference.terms().get((index as usize).checked_sub(1)?)?;
        self.electorates.at((index, term))
    }

    /// Nothing has come of a cluster, and all that knew of it have lost it.
    pub fn forget_founding(&mut self) {
        self.leaders.clear();
        self.votes.clear();
        self.entries.clear();
        self.electorates.forget();
    }

    /// The node has lost its disk. What it had acknowledged counts for what is committed.
    pub fn wiped(&mut self, id: NodeId) {
        let view = self.views.entry(id).or_default();
        let mut lost = std::mem::take(&mut view.lost);
        lost.push(std::mem::take(&mut view.durable));
        *view = View { lost, is_gone: true, ..View::default() };
    }

    pub fn view(&mut self, id: NodeId) -> &mut View {
        self.views.get_mut(&id).expect("the node is a member")
    }

    /// To be called after every input of a node, and again after its flush.
    pub fn look(&mut self, node: &Node) {
        let raft = node.raft();
        let id = raft.id();
        self.look_at_founding(raft);
        self.look_at_log(id, raft);
        self.look_at_members(raft);
        self.look_at_commit(id, raft);
        self.look_at_office(id, raft);
        let applied = node.machine().applied();
        let view = self.view(id);
        assert!(raft.term() >= view.term, "node {id:x} takes term {} back", view.term);
        assert!(applied >= view.applied, "node {id:x} takes back what it applied");
        assert!(applied <= raft.commit_index(), "node {id:x} applies what is not committed");
        view.term = raft.term();
        view.applied = applied;
        let (digest, expected) = (node.machine().store().digest(), self.reference.digest(applied));
        if !self.differing.contains(&id) {
            assert_eq!(Some(digest), expected, "the state of node {id:x} at {applied}");
        }
    }

    /// "Log Matching: if two logs contain an entry with the same index and term, then the logs are identical
    /// in all entries up through the given index." "Leader Append-Only: a leader never overwrites or
    /// deletes entries in its log."
    fn look_at_log(&mut self, id: NodeId, raft: &Raft) {
        let log = raft.log();
        let (first, last) = (log.before(), log.last().index);
        assert!(self.reference.has(first), "the log of node {id:x} begins after {first:?}");
        let committed = self.reference.terms();
        let view = self.views.get_mut(&id).expect("the node is a member");
        let before = view.memory.len() as Index;
        let same = same_up_to(&view.memory, raft, last, committed);
        let still_leads = raft.is_leader() && view.leads == Some(raft.term());
        assert!(!still_leads || same == before, "leader {id:x} removes entries of its log");
        assert!(same >= view.commit, "node {id:x} removes entry {}, which is committed", same + 1);
        view.memory.truncate(same as usize);
        if same < first.index {
            view.memory.extend(&committed[same as usize..first.index as usize]);
        }
        for entry in log.iter_from(same.max(first.index) + 1) {
            self.view(id).memory.push(entry.term);
            self.note_members(raft, entry);
            let known = Known {
                term: entry.term,
                payload: payload_hash(entry),
                term_before: log.term_at(entry.index - 1).expect("the log has no gaps"),
            };
            note_entry(&mut self.entries, entry.index, known, id);
        }
    }

    /// "Election Safety: at most one leader can be elected in a given term." "Leader Completeness: if a log
    /// entry is committed in a given term, then that entry will be present in the logs of the leaders for
    /// all higher-numbered terms."
    fn look_at_office(&mut self, id: NodeId, raft: &Raft) {
        let leads = raft.is_leader().then(|| raft.term());
        if std::mem::replace(&mut self.view(id).leads, leads) == leads {
            return;
        }
        let Some(term) = leads else { return };
        let first = *self.leaders.entry(term).or_insert(id);
        assert_eq!(first, id, "election safety: two leaders of term {term}");
        let voted = self.views[&id].durable.hard_state;
        let own_vote = HardState { term, voted_for: Some(id) };
        assert_eq!(voted, own_vote, "node {id:x} leads by a vote that is not on its disk");
        self.check_elected(id, term);
        let count = self.committed.partition_point(|committed| committed.known_in <= term);
        // One entry stands for all before it, by log matching.
        if count > 0 {
            let (index, expected) = (count as Index, self.committed[count - 1].term);
            let held = term_in(raft, index, self.reference.terms());
            let rule = "leader completeness";
            assert_eq!(held, Some(expected), "{rule}: leader {id:x} of term {term}, entry {index}");
        }
    }

    /// "State Machine Safety: if a server has applied a log entry at a given index to its state machine, no
    /// other server will ever apply a different log entry for the same index." And section 5.4.2: "only log
    /// entries from the leader's current term are committed by counting replicas".
    fn look_at_commit(&mut self, id: NodeId, raft: &Raft) {
        let (before, commit) = (self.views[&id].commit, raft.commit_index());
        assert!(commit >= before, "node {id:x} takes the commit of {before} back");
        // Nobody knows of a commit before the leader does; it may have lost its office in the same turn.
        let term_of_newest = raft.log().term_at(commit).expect("what is committed is in the log");
        if commit > self.committed() {
            let is_own =
                term_of_newest == raft.term() || Some(term_of_newest) == self.views[&id].leads;
            assert!(
                is_own,
                "commit rule: node {id:x} counts replicas of {commit}@{term_of_newest}"
            );
        }
        for index in before + 1..=commit {
            let Some(entry) = raft.log().get(index) else {
                // In the snapshot, whose state is compared as a whole.
                assert!(index <= raft.log().before().index, "what is committed is in the log");
                continue;
            };
            match self.committed.get(index as usize - 1) {
                None => self.commit(id, entry, term_of_newest),
                Some(committed) => {
                    let same =
                        (committed.term, committed.payload) == (entry.term, payload_hash(entry));
                    assert!(
                        same,
                        "state machine safety: node {id:x} commits another entry {index}"
                    );
                }
            }
        }
        self.view(id).commit = commit;
    }

    /// An entry is known to be committed for the first time.
    fn commit(&mut self, by: NodeId, entry: &Entry, known_in: Term) {
        if let Err(counts) = self.is_on_a_majority(by, (entry.index, entry.term)) {
            panic!(
                "entry {}@{} is committed by node {by:x}, and on {counts}",
                entry.index, entry.term
            );
        }
        for (id, view) in &self.views {
            let must_hold = view.leads.is_some_and(|term| term >= known_in);
            let held = view.memory.get(entry.index as usize - 1);
            assert!(
                !must_hold || held == Some(&entry.term),
                "leader completeness: leader {id:x} misses entry {} of term {}",
                entry.index,
                entry.term
            );
        }
        let payload = payload_hash(entry);
        self.committed.push(Committed { term: entry.term, payload, known_in });
        self.reference.apply(entry);
        self.model.apply(entry, self.latest_wall_ms);
    }

    pub fn check_digest(&self, index: Index, digest: u64) -> Result<(), String> {
        match self.reference.digest(index) {
            Some(known) if known == digest => Ok(()),
            // It is the one that tells, perhaps.
            Some(_) if !self.differing.is_empty() => Ok(()),
            other => Err(format!("the digest at {index} is {other:?}")),
        }
    }

    /// At the end, of a node that has applied everything.
    pub fn check_state(&self, id: NodeId, node: &Node) {
        let store = node.machine().store();
        assert_eq!(node.machine().applied(), self.committed(), "node {id:x} is behind");
        assert_eq!(store.len() as u64, self.model.keys(), "keys of node {id:x}");
        for (key, newest) in self.model.newest() {
            let held = store.item(key).map(|item| (&*item.value, item.modified, item.expires_at));
            let expected =
                newest.value.as_ref().map(|value| (&**value, newest.begins, newest.expires_at));
            assert_eq!(held, expected, "key {key:?} of node {id:x}");
        }
        assert_eq!(node.machine().clock_ms(), self.model.clock_ms(), "the time of node {id:x}");
        for (request, executed) in self.model.newest_requests() {
            let seen = node.machine().sessions().seen(request);
            assert_eq!(seen, Seen::Before(executed), "{request:?} in the sessions of node {id:x}");
        }
    }
}

fn note_entry(entries: &mut Vec<Vec<Known>>, index: Index, new: Known, id: NodeId) {
    let place = index as usize - 1;
    if entries.len() <= place {
        entries.resize(place + 1, Vec::new());
    }
    match entries[place].iter().find(|known| known.term == new.term) {
        None => entries[place].push(new),
        Some(known) => {
            assert_eq!(*known, new, "log matching: entry {index} of node {id:x} differs");
        }
    }
}

fn payload_hash(entry: &Entry) -> u64 {
    let mut bytes = Vec::new();
    put_payload(&mut bytes, &entry.payload);
    xxh3_64(&bytes)
}
