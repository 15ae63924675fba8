//! What a node holds, in memory or on its disk, as the judge compares it.

use super::disk::SimDisk;
use raftkv::raft::{HardState, Index, Position, Raft, Term};
use raftkv::replica::Replica;
use raftkv::wal::Recovered;
use std::fmt;

/// The log as its terms, which by log matching say everything, and what else a disk remembers.
///
/// A log that begins with a snapshot is given the terms of the entries that are committed up to there: the
/// judge has held the snapshot's position against them. So images of logs that begin at different places can
/// be compared.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Image {
    pub hard_state: HardState,
    /// By index, from 1.
    pub terms: Vec<Term>,
    /// Where the newest snapshot ends.
    pub snapshot: Position,
    /// It knows that it has lost something.
    pub is_damaged: bool,
}

impl Image {
    pub fn of_memory(replica: &Replica<SimDisk>, committed: &[Term]) -> Image {
        let raft = replica.node().raft();
        let last = raft.log().last().index;
        let terms = (1..=last)
            .map(|index| term_in(raft, index, committed).expect("the log goes up to there"));
        Image {
            hard_state: raft.hard_state(),
            terms: terms.collect(),
            snapshot: newest_snapshot(replica),
            is_damaged: raft.is_damaged(),
        }
    }

    pub fn of_recovered(recovered: &Recovered, committed: &[Term]) -> Image {
        let mut terms = committed[..recovered.base.index as usize].to_vec();
        terms.extend(recovered.entries.iter().map(|entry| entry.term));
        Image {
            hard_state: recovered.hard_state,
            terms,
            snapshot: recovered.snapshot.map(|file| file.position).unwrap_or_default(),
            is_damaged: recovered.damaged.is_some(),
        }
    }

    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == 0 { Some(0) } else { self.terms.get(index as usize - 1).copied() }
    }

    pub fn last_index(&self) -> Index {
        self.terms.len() as Index
    }

    /// Follows a log up to `last`.
    pub fn follow(&mut self, raft: &Raft, last: Index, committed: &[Term]) {
        let same = same_up_to(&self.terms, raft, last, committed);
        self.terms.truncate(same as usize);
        let new = (same + 1..=last)
            .map(|index| term_in(raft, index, committed).expect("the log goes up to there"));
        self.terms.extend(new);
    }

    /// The log that a recovery finds if it found this one, and `snapshot` is the newest snapshot: either the
    /// snapshot is one of this log, or the log is void and begins anew after it.
    pub fn terms_under<'a>(&'a self, snapshot: Position, committed: &'a [Term]) -> &'a [Term] {
        if self.term_at(snapshot.index) == Some(snapshot.term) {
            &self.terms
        } else {
            &committed[..snapshot.index as usize]
        }
    }
}

/// Entries of the same term as one: `3..=7@2`.
impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HardState { term, voted_for } = self.hard_state;
        write!(f, "term {term}, vote {voted_for:?}, entries")?;
        let mut first = 1;
        for same in self.terms.chunk_by(|a, b| a == b) {
            let last = first + same.len() - 1;
            write!(f, " {first}..={last}@{}", same[0])?;
            first = last + 1;
        }
        let Position { index, term } = self.snapshot;
        let damaged = if self.is_damaged { ", damaged" } else { "" };
        write!(f, ", snapshot {index}@{term}{damaged}")
    }
}

pub fn newest_snapshot(replica: &Replica<SimDisk>) -> Position {
    replica.wal().snapshots().last().map(|file| file.position).unwrap_or_default()
}

/// What its file is called.
pub fn snapshot_name(position: Position) -> String {
    format!("snapshot-{:016x}-{:016x}", position.index, position.term)
}

/// The term of an entry of a log, of those before its beginning too.
pub fn term_in(raft: &Raft, index: Index, committed: &[Term]) -> Option<Term> {
    if 0 < index && index < raft.log().before().index {
        return Some(committed[index as usize - 1]);
    }
    raft.log().term_at(index).or((index == 0).then_some(0))
}

/// How far `terms` and a log are the same; searched from the end, as one place stands for all before it.
pub fn same_up_to(terms: &[Term], raft: &Raft, last: Index, committed: &[Term]) -> Index {
    let mut same = last.min(terms.len() as Index);
    while same > 0 && Some(terms[same as usize - 1]) != term_in(raft, same, committed) {
        same -= 1;
    }
    same
}
