//! The search for an order of one key's operations: that of Wing and Gong ("Testing and Verifying
//! Concurrent Objects"), which takes one operation after the other that none of the rest must precede, and
//! goes back when none fits; with Lowe's memory ("Testing for linearizability") of which operations taken
//! and which state led nowhere. Three rules keep it fast; each only leaves out what cannot be missed.
//!
//! 1. *What changes nothing is taken at once.* If an operation that changes nothing, in any state in which
//!    its result is right (`model::changes_nothing`), may come next with its result, it does. In any order
//!    that has it later it can be moved to here: nothing before it was hindered by its being later, and
//!    nothing after it sees that it is gone.
//!
//! 2. *An unknown operation is taken only to make the next result right.* It never must be taken, and it
//!    may be taken at any time after its call. So, given an order, take one that directly precedes an
//!    operation whose result would be right without it, too. If that operation changes nothing, the two
//!    can be swapped. If not, the state after it is the same with and without, for every operation that
//!    changes something and its result: so the unknown one can be left out. Repeated until no longer
//!    possible (the unknown ones at the end are left out), all that is left stand in chains, each directly
//!    before an operation with a known result that is right after the whole chain and not before. No link
//!    of a chain leaves the state unchanged, or it could be left out as well.
//!
//! 3. *Less used is better.* Unknown operations that do the same are one class: once called, one is as
//!    good as the other. If a state was reached before, with the same known operations taken, and with no
//!    more of any class used, then whatever is possible now was possible then.

use super::Op;
use super::model::{Act, Answer, State, Values, changes_nothing};
use std::collections::{BTreeMap, HashMap};

/// Positions in the list of operations, in an order that explains every result. It holds the unknown
/// operations that have to have taken effect, and no others.
pub type Order = Vec<usize>;

#[derive(Debug)]
pub struct Undecided {
    /// That were visited.
    pub states: usize,
}

/// Links that a chain of unknown operations may have, in one search after the other, and which part of the
/// states each search may visit. An order is mostly found with short chains, and there are many more long
/// ones; only to rule all orders out takes them all.
const SEARCHES: [(usize, usize); 3] = [(1, 16), (3, 4), (usize::MAX, 1)];

/// Looks for an order of the operations of one key, which begins with the value `start`. `None`: there is
/// none.
pub fn search(
    ops: &[&Op],
    start: Option<&[u8]>,
    states_max: usize,
) -> Result<Option<Order>, Undecided> {
    let mut result = Ok(None);
    for (chain_max, part) in SEARCHES {
        let mut search = Search::new(ops, start, chain_max, states_max / part);
        result = search.run();
        if matches!(result, Ok(Some(_))) || result.is_ok() && !search.has_cut_chains {
            break;
        }
    }
    result
}

/// An operation whose result is known.
struct Known {
    position: usize,
    invoked: u64,
    returned: u64,
    act: Act,
    answer: Answer,
    changes_nothing: bool,
}

/// Operations with unknown outcome that do the same, in the order of their calls.
#[derive(Default)]
struct Class {
    positions: Vec<usize>,
    invoked: Vec<u64>,
}

/// Which known operations were taken, and what that led to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    /// All before this one are taken...
    next: usize,
    /// ... but these, which were called before the last one taken and had not returned then: so there are
    /// never more of them than clients.
    left: Vec<usize>,
    state: State,
}

impl Place {
    fn take(&mut self, known: usize, state: State) {
        if known >= self.next {
            self.left.extend(self.next..known);
            self.next = known + 1;
        } else {
            self.left.retain(|left| *left != known);
        }
        self.state = state;
    }
}

/// How many of each class were taken.
type Used = Box<[u32]>;

fn is_no_more(used: &Used, than: &Used) -> bool {
    used.iter().zip(than).all(|(a, b)| a <= b)
}

struct Node {
    place: Place,
    used: Used,
    /// Positions of the operations taken since the node above.
    taken: Vec<usize>,
}

/// One node of the path that is being tried, and what is left to try after it.
struct Step {
    node: Node,
    children: std::vec::IntoIter<Node>,
    has_chains: bool,
}

/// A state that a chain of unknown operations leads to.
struct Reached {
    state: State,
    used: Used,
    /// The chain's last link, and where it was added.
    link: Option<(usize, usize)>,
    links: usize,
}

/// Unknown operations, each with the time of its call and its position, as classes.
fn classes(mut unknown: Vec<(u64, usize, Act)>) -> Vec<(Act, Class)> {
    unknown.sort_by_key(|(invoked, ..)| *invoked);
    let mut classes: Vec<(Act, Class)> = Vec::new();
    let mut class_of = HashMap::new();
    for (invoked, position, act) in unknown {
        let class = *class_of.entry(act).or_insert(classes.len());
        if class == classes.len() {
            classes.push((act, Class::default()));
        }
        classes[class].1.positions.push(position);
        classes[class].1.invoked.push(invoked);
    }
    classes
}

struct Search {
    values: Values,
    /// In the order of their calls.
    known: Vec<Known>,
    /// The earliest return of this known operation and all later ones.
    earliest_return: Vec<u64>,
    classes: Vec<(Act, Class)>,
    start: State,
    /// Links that a chain may have.
    chain_max: usize,
    /// A longer chain was not tried.
    has_cut_chains: bool,
    visited: HashMap<Place, Vec<Used>>,
    states: usize,
    states_max: usize,
}

impl Search {
    fn new(ops: &[&Op], start: Option<&[u8]>, chain_max: usize, states_max: usize) -> Search {
        let mut values = Values::of(ops, start);
        let mut known = Vec::new();
        let mut unknown = Vec::new();
        for (position, op) in ops.iter().enumerate() {
            let (invoked, act) = (op.invoked, values.act(&op.call));
            if let (Some(returned), Some(res)) = (op.returned, &op.result) {
                let answer = values.answer(res);
                let changes_nothing = changes_nothing(act, answer);
                known.push(Known { position, invoked, returned, act, answer, changes_nothing });
            } else if act != Act::Get {
                unknown.push((invoked, position, act));
            }
        }
        known.sort_by_key(|op| (op.invoked, op.returned));
        let mut earliest_return = vec![u64::MAX; known.len() + 1];
        for (i, op) in known.iter().enumerate().rev() {
            earliest_return[i] = op.returned.min(earliest_return[i + 1]);
        }
        Search {
            start: values.number(start),
            values,
            known,
            earliest_return,
            classes: classes(unknown),
            chain_max,
            has_cut_chains: false,
            visited: HashMap::new(),
            states: 0,
            states_max,
        }
    }

    /// Depth first; the path down is kept here, since histories are longer than stacks are deep.
    fn run(&mut self) -> Result<Option<Order>, Undecided> {
        let mut path: Vec<Step> = Vec::new();
        let mut next = Some(Node {
            place: Place { next: 0, left: Vec::new(), state: self.start },
            used: vec![0; self.classes.len()].into(),
            taken: Vec::new(),
        });
        loop {
            if let Some(mut node) = next.take() {
                self.take_what_changes_nothing(&mut node);
                if node.place.next == self.known.len() && node.place.left.is_empty() {
                    let above = path.into_iter().flat_map(|step| step.node.taken);
                    return Ok(Some(above.chain(node.taken).collect()));
                }
                if self.is_new(&node)? {
                    let children = self.children(&node).into_iter();
                    path.push(Step { node, children, has_chains: false });
                }
            }
            let Some(step) = path.last_mut() else { return Ok(None) };
            next = step.children.next();
            if next.is_some() {
                continue;
            }
            if step.has_chains {
                path.pop();
            } else {
                step.children = self.children_after_chains(&step.node)?.into_iter();
                step.has_chains = true;
            }
        }
    }

    fn count_state(&mut self) -> Result<(), Undecided> {
        if self.states == self.states_max {
            return Err(Undecided { states: self.states });
        }
        self.states += 1;
        Ok(())
    }

    /// Rule 3.
    fn is_new(&mut self, node: &Node) -> Result<bool, Undecided> {
        let before = self.visited.entry(node.place.clone()).or_default();
        if before.iter().any(|used| is_no_more(used, &node.used)) {
            return Ok(false);
        }
        before.retain(|used| !is_no_more(&node.used, used));
        before.push(node.used.clone());
        self.count_state()?;
        Ok(true)
    }

    /// What was called later than this has to wait for an operation that is not yet taken.
    fn horizon(&self, place: &Place) -> u64 {
        let left = place.left.iter().map(|known| self.known[*known].returned);
        left.fold(self.earliest_return[place.next], u64::min)
    }

    /// The known operations that may be taken next, the most urgent first; rule 4.
    fn candidates(&self, place: &Place, horizon: u64) -> Vec<usize> {
        let later = (place.next..self.known.len())
            .take_while(|known| self.known[*known].invoked <= horizon);
        let mut candidates: Vec<usize> = place.left.iter().copied().chain(later).collect();
        candidates.sort_by_key(|known| self.known[*known].returned);
        let mut met = Vec::new();
        candidates.retain(|known| {
            let Known { act, answer, .. } = self.known[*known];
            let is_first = !met.contains(&(act, answer));
            met.push((act, answer));
            is_first
        });
        candidates
    }

    /// The state after a known operation, if its result is right in this state.
    fn applied(&mut self, known: usize, state: State) -> Option<State> {
        let Known { act, answer, .. } = self.known[known];
        let (after, actual) = self.values.apply(act, state);
        (actual == answer).then_some(after)
    }

    /// Rule 1.
    fn take_what_changes_nothing(&mut self, node: &mut Node) {
        loop {
            let horizon = self.horizon(&node.place);
            let state = node.place.state;
            let candidates = self.candidates(&node.place, horizon);
            let fits = |known: &usize| {
                self.known[*known].changes_nothing && self.applied(*known, state).is_some()
            };
            let fitting: Vec<usize> = candidates.into_iter().filter(fits).collect();
            for known in &fitting {
                node.place.take(*known, state);
                node.taken.push(self.known[*known].position);
            }
            if fitting.is_empty() {
                return;
            }
        }
    }

    fn children(&mut self, node: &Node) -> Vec<Node> {
        let mut children = Vec::new();
        for known in self.candidates(&node.place, self.horizon(&node.place)) {
            if let Some(after) = self.applied(known, node.place.state) {
                children.push(self.child(node, node.used.clone(), Vec::new(), known, after));
            }
        }
        children
    }

    /// Rule 2: what may be taken next once unknown operations have made its result right.
    fn children_after_chains(&mut self, node: &Node) -> Result<Vec<Node>, Undecided> {
        let horizon = self.horizon(&node.place);
        let mut waiting = self.candidates(&node.place, horizon);
        waiting.retain(|known| self.applied(*known, node.place.state).is_none());
        if waiting.is_empty() {
            return Ok(Vec::new());
        }
        let reached = self.reach(node, horizon)?;
        let mut children = Vec::new();
        for known in waiting {
            for at in 1..reached.len() {
                let Some(after) = self.applied(known, reached[at].state) else { continue };
                if !self.fits_before(known, &reached, at) {
                    let used = reached[at].used.clone();
                    let chain = self.chain(&reached, at, &node.used);
                    children.push(self.child(node, used, chain, known, after));
                }
            }
        }
        Ok(children)
    }

    fn child(
        &self,
        above: &Node,
        used: Used,
        mut taken: Vec<usize>,
        known: usize,
        after: State,
    ) -> Node {
        let mut place = above.place.clone();
        place.take(known, after);
        taken.push(self.known[known].position);
        Node { place, used, taken }
    }

    /// Every state that unknown operations called by now lead to, each with the least of them. The
    /// first is the state of the node itself.
    fn reach(&mut self, node: &Node, horizon: u64) -> Result<Vec<Reached>, Undecided> {
        let state = node.place.state;
        let used = node.used.clone();
        let mut reached = vec![Reached { state, used, link: None, links: 0 }];
        let mut by_state: BTreeMap<State, Vec<usize>> = BTreeMap::from([(state, vec![0])]);
        let mut from = 0;
        // Shorter chains come before longer ones.
        while from < reached.len() {
            for class in 0..self.classes.len() {
                let (act, Class { invoked, .. }) = &self.classes[class];
                let called = invoked.partition_point(|at| *at <= horizon);
                let Reached { state, used, links, .. } = &reached[from];
                if used[class] as usize == called {
                    continue;
                }
                if *links == self.chain_max {
                    self.has_cut_chains = true;
                    return Ok(reached);
                }
                let links = links + 1;
                let (after, _) = self.values.apply(*act, *state);
                let mut used = used.clone();
                used[class] += 1;
                let before = by_state.entry(after).or_default();
                if !before.iter().any(|at| is_no_more(&reached[*at].used, &used)) {
                    before.push(reached.len());
                    reached.push(Reached { state: after, used, link: Some((from, class)), links });
                    self.count_state()?;
                }
            }
            from += 1;
        }
        Ok(reached)
    }

    /// Whether a known operation is right before the chain is complete.
    fn fits_before(&mut self, known: usize, reached: &[Reached], mut at: usize) -> bool {
        while let Some((before, _)) = reached[at].link {
            at = before;
            if self.applied(known, reached[at].state).is_some() {
                return true;
            }
        }
        false
    }

    /// The positions of a chain's operations.
    fn chain(&self, reached: &[Reached], mut at: usize, used: &Used) -> Vec<usize> {
        let mut links = Vec::new();
        while let Some((before, class)) = reached[at].link {
            links.push(class);
            at = before;
        }
        let mut used = used.clone();
        let position = |class: usize| {
            let (_, Class { positions, .. }) = &self.classes[class];
            used[class] += 1;
            positions[used[class] as usize - 1]
        };
        links.into_iter().rev().map(position).collect()
    }
}
