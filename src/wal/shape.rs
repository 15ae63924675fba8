//! What every log obeys, kept while it is written and checked while it is read: indexes without a gap,
//! terms that never go backwards, at most one vote a term. One home for both sides, so that nothing can
//! be appended that a later recovery would not take.

use crate::raft::{HardState, Index, Position, Term};

/// The log less its commands: a few bytes for each term, however long it is.
#[derive(Debug, Clone)]
pub struct LogShape {
    last_index: Index,
    /// The first known index of each term; both rise. The first one may be that of the position just
    /// before the first entry.
    terms: Vec<(Index, Term)>,
    /// The last index that can not be replaced any more: where the log was last told to begin.
    floor: Index,
    hard_state: HardState,
}

impl Default for LogShape {
    fn default() -> Self {
        LogShape::starting_after(Position { index: 0, term: 0 }, HardState::default())
    }
}

impl LogShape {
    /// A log of which only the end is known.
    pub fn starting_after(last: Position, hard_state: HardState) -> Self {
        LogShape {
            last_index: last.index,
            terms: vec![(last.index, last.term)],
            floor: 0,
            hard_state,
        }
    }

    /// The newest entry's position.
    pub fn last(&self) -> Position {
        let term = self.terms.last().map_or(0, |&(_, term)| term);
        Position { index: self.last_index, term }
    }

    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The term at an index, if it is known here.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index > self.last_index {
            return None;
        }
        let after = self.terms.partition_point(|&(first, _)| first <= index);
        Some(self.terms[after.checked_sub(1)?].1)
    }

    /// Everything before is void; the next entry follows `base`.
    pub fn reset(&mut self, base: Position) {
        *self = LogShape { floor: base.index, ..LogShape::starting_after(base, self.hard_state) };
    }

    /// Forgets terms that ended before `index`.
    pub fn forget_before(&mut self, index: Index) {
        let ended = self.terms.iter().skip(1).take_while(|&&(first, _)| first <= index).count();
        self.terms.drain(..ended);
    }

    /// Appends an entry, or replaces one and everything after it. The error says which rule it breaks;
    /// the shape is of no use after it.
    pub fn put_entry(&mut self, index: Index, term: Term) -> Result<(), String> {
        let LogShape { last_index, floor, .. } = *self;
        if index <= floor {
            return Err(format!("entry {index} is not above {floor}, where the log begins"));
        }
        if index > last_index.saturating_add(1) {
            return Err(format!("entry {index} leaves a gap: the newest entry is {last_index}"));
        }
        while self.terms.last().is_some_and(|&(first, _)| first >= index) {
            self.terms.pop();
        }
        match self.terms.last() {
            Some(&(_, before)) if term < before => {
                let before_index = index - 1;
                return Err(format!(
                    "entry {index} has term {term}, below term {before} of entry {before_index}"
                ));
            }
            Some(&(_, before)) if term == before => {}
            _ => self.terms.push((index, term)),
        }
        self.last_index = index;
        Ok(())
    }

    /// The error says which rule the new hard state breaks.
    pub fn put_hard_state(&mut self, new: HardState) -> Result<(), String> {
        let old = self.hard_state;
        if new.term < old.term {
            return Err(format!("term {} follows term {}: terms only rise", new.term, old.term));
        }
        if let Some(vote) = old.voted_for
            && new.term == old.term
            && new.voted_for != Some(vote)
        {
            return Err(format!(
                "the vote of term {} went to node {vote}, and later elsewhere",
                old.term
            ));
        }
        self.hard_state = new;
        Ok(())
    }
}

/// Takes `other` if it can only have come after `hard_state`.
pub fn raise(hard_state: &mut HardState, other: HardState) {
    let age = |state: &HardState| (state.term, state.voted_for.is_some());
    if age(&other) > age(hard_state) {
        *hard_state = other;
    }
}
