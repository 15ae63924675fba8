//! The promises of Figure 3 of the paper, checked after every step, and three of this
//! implementation: what is committed is on the disks of a majority, a vote that was sent is never
//! given twice, and a read sees everything that was committed before it began.

use super::cluster::{Cluster, Envelope};
use raftkv::raft::{Entry, Index, Message, NodeId, ReadId, Term};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Checker {
    leaders: BTreeMap<Term, NodeId>,
    /// Every entry that was ever in a log, with the term of the one before it.
    entries: BTreeMap<(Index, Term), (Entry, Term)>,
    /// What any server has ever known to be committed, and in which term it was first known.
    committed: Vec<(Entry, Term)>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// For each read, how much was committed when it began.
    reads: BTreeMap<ReadId, Index>,
    seen: BTreeMap<NodeId, Seen>,
}

/// A server's log and commit index at the last look.
#[derive(Default)]
struct Seen {
    terms: Vec<Term>,
    commit_index: Index,
}

impl Checker {
    /// How many terms had a leader.
    pub fn leaders(&self) -> usize {
        self.leaders.len()
    }

    /// How many entries are known to be committed.
    pub fn committed(&self) -> usize {
        self.committed.len()
    }

    /// A crashed server starts with a commit index of 0 again.
    pub fn crashed(&mut self, id: NodeId) {
        self.seen.remove(&id);
    }

    pub fn read_begins(&mut self, read: ReadId) {
        self.reads.insert(read, self.committed.len() as Index);
    }

    pub fn check_read(&mut self, read: ReadId, index: Index) {
        let floor = self.reads.remove(&read).expect("each read is confirmed once");
        assert!(index >= floor, "read {read} saw {index}, {floor} was committed before it began");
    }

    /// Figure 2: a server votes "at most once" a term.
    pub fn check_sent(&mut self, envelope: &Envelope) {
        let Envelope { from, to, message } = envelope;
        if let Message::VoteReply { term, granted: true } = message {
            let first = *self.votes.entry((*from, *term)).or_insert(*to);
            assert_eq!(first, *to, "server {from} votes twice in term {term}");
        }
    }

    /// To be called for a server after every step it took.
    pub fn check(&mut self, cluster: &Cluster, id: NodeId) {
        if cluster.server(id).is_up() {
            self.check_log_matching(cluster, id);
            self.check_commit(cluster, id);
            self.check_leader(cluster, id);
        }
    }

    /// "Election Safety: at most one leader can be elected in a given term"; "Leader Completeness:
    /// if a log entry is committed in a given term, then that entry will be present in the logs of
    /// the leaders for all higher-numbered terms".
    fn check_leader(&mut self, cluster: &Cluster, id: NodeId) {
        let raft = cluster.raft(id);
        if !raft.is_leader() {
            return;
        }
        let term = raft.term();
        let first = *self.leaders.entry(term).or_insert(id);
        assert_eq!(first, id, "two leaders of term {term}");
        for (entry, _) in self.committed.iter().filter(|(_, known_in)| *known_in <= term) {
            let held = raft.log().get(entry.index);
            assert_eq!(held, Some(entry), "leader {id} of term {term} misses what is committed");
        }
    }

    /// "Log Matching: if two logs contain an entry with the same index and term, then the logs are
    /// identical in all entries up through the given index."
    fn check_log_matching(&mut self, cluster: &Cluster, id: NodeId) {
        let log = cluster.raft(id).log();
        let seen = self.seen.entry(id).or_default();
        let terms: Vec<Term> = log.iter_from(1).map(|entry| entry.term).collect();
        let same = seen.terms.iter().zip(&terms).take_while(|(old, new)| old == new).count();
        for entry in log.iter_from(same as Index + 1) {
            let before = log.term_at(entry.index - 1).expect("the log has no gaps");
            let new = (entry.clone(), before);
            let known = self.entries.entry((entry.index, entry.term)).or_insert(new);
            assert_eq!(known, &(entry.clone(), before), "logs differ behind a match, server {id}");
        }
        seen.terms = terms;
    }

    /// "State Machine Safety: if a server has applied a log entry at a given index to its state
    /// machine, no other server will ever apply a different log entry for the same index."
    fn check_commit(&mut self, cluster: &Cluster, id: NodeId) {
        let raft = cluster.raft(id);
        let seen = self.seen.entry(id).or_default();
        assert!(raft.commit_index() >= seen.commit_index, "server {id} takes a commit back");
        for index in seen.commit_index + 1..=raft.commit_index() {
            let entry = raft.log().get(index).expect("what is committed is in the log");
            if let Some((known, _)) = self.committed.get(index as usize - 1) {
                assert_eq!(entry, known, "server {id} commits something else");
            } else {
                check_durable(cluster, entry);
                self.committed.push((entry.clone(), raft.term()));
            }
        }
        seen.commit_index = raft.commit_index();
    }
}

fn check_durable(cluster: &Cluster, entry: &Entry) {
    let copies = cluster.servers().filter(|(_, server)| server.disk.holds(entry)).count();
    let voters = cluster.servers().count();
    assert!(copies > voters / 2, "{entry:?} is committed with {copies} copies on {voters} disks");
}
