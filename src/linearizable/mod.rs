//! Is what the clients saw possible? A checker of linearizability for histories of a key/value store.
//!
//! Each key is a register of its own, and a history is linearizable if that of each key is (Herlihy and
//! Wing, "Linearizability", theorem 1), so keys are checked one by one. For one key, the checker looks for
//! an order of the operations in which each one takes effect at one moment between its call and its
//! return, and each result is the one that a register gives (`model.rs`, `search.rs`). An operation whose
//! outcome is unknown may take effect at any moment after its call, also long after the history ends, or
//! never.
//!
//! If there is no such order, the history is cut down to what shows that (`evidence.rs`).

mod evidence;
mod model;
mod search;

pub use evidence::Evidence;
pub use model::{Call, Res};

use search::Undecided;
use std::collections::BTreeMap;
use std::fmt;

/// States that the search for the order of one key's operations may visit, by default. Each costs up to a
/// few hundred bytes.
pub const STATES_MAX: usize = 2_000_000;

/// What one client did to one key, and what it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    pub client: u32,
    pub key: Vec<u8>,
    pub call: Call,
    /// In any unit. An operation is before another only if it returned at a *smaller* time than the
    /// other was invoked, so that numbering all calls and returns in their order loses nothing, and a
    /// coarse clock raises no false alarm.
    pub invoked: u64,
    /// `None`: the outcome is unknown.
    pub returned: Option<u64>,
    /// There is one if and only if there is a time of return.
    pub result: Option<Res>,
}

/// Why a history did not pass.
pub enum Violation {
    NotLinearizable(Box<Evidence>),
    /// The search for an order was given up.
    Undecided {
        key: Vec<u8>,
        operations: usize,
        states: usize,
    },
}

/// Checks a history, whose operations may come in any order.
///
/// # Panics
///
/// If the history is not one: a return before the call, or a result without a return.
pub fn check(history: &[Op]) -> Result<(), Violation> {
    check_within(history, STATES_MAX)
}

/// Like [`check`], visiting at most `states_max` states for each key.
pub fn check_within(history: &[Op], states_max: usize) -> Result<(), Violation> {
    let mut keys: BTreeMap<&[u8], Vec<&Op>> = BTreeMap::new();
    for op in history {
        assert_eq!(op.returned.is_some(), op.result.is_some(), "a return has a result: {op:?}");
        assert!(op.returned.is_none_or(|at| at >= op.invoked), "returned before its call: {op:?}");
        keys.entry(&op.key).or_default().push(op);
    }
    let mut undecided = None;
    for (key, ops) in keys {
        match search::search(&ops, None, states_max) {
            Ok(Some(_)) => {}
            Ok(None) => {
                let evidence = evidence::collect(key, &ops, states_max);
                return Err(Violation::NotLinearizable(Box::new(evidence)));
            }
            Err(Undecided { states }) => {
                let (key, operations) = (key.to_vec(), ops.len());
                undecided.get_or_insert(Violation::Undecided { key, operations, states });
            }
        }
    }
    undecided.map_or(Ok(()), Err)
}

impl Violation {
    pub fn is_undecided(&self) -> bool {
        matches!(self, Violation::Undecided { .. })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::NotLinearizable(evidence) => write!(f, "{evidence}"),
            Violation::Undecided { key, operations, states } => write!(
                f,
                "key \"{}\": no order of its {operations} operations was found in {states} states, and \
                 none was ruled out; allow more states, or let fewer clients share a key",
                key.escape_ascii()
            ),
        }
    }
}

/// The same as it is displayed, so that `unwrap` is readable.
impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
