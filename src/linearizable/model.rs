//! One key as a register: what each call does to it, and what it answers. Written anew, sharing nothing
//! with the store under test.
//!
//! Values are numbered, so that states are compared and remembered cheaply. Values that no operation could
//! tell apart share one number: see [`Values::of`].

use super::Op;
use std::collections::{BTreeSet, HashMap};

/// What a client asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    Get,
    Put(Vec<u8>),
    Delete,
    /// Like a deletion, whatever was there.
    Clear,
    CompareAndSet {
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
    },
    Increment(i64),
}

/// What it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Res {
    Value(Option<Vec<u8>>),
    Put,
    /// Whether the key existed.
    Deleted(bool),
    /// Whether the key had the expected value, and has the new one.
    Swapped(bool),
    /// The value after the increment.
    Counter(i64),
    /// The increment was refused.
    NotAnInteger,
    /// The increment was refused.
    Overflow,
}

/// The number of a value.
pub type State = u32;
/// There is no such key.
pub const ABSENT: State = 0;
/// Some value that nobody can tell from others.
const UNSEEN: State = 1;

/// A [`Call`] with numbered values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    Get,
    Put(State),
    Delete,
    Clear,
    Swap { expected: State, value: State },
    Increment(i64),
}

/// A [`Res`] with numbered values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Value(State),
    Put,
    Deleted(bool),
    Swapped(bool),
    Counter(i64),
    NotAnInteger,
    Overflow,
}

/// The numbers of one key's values.
pub struct Values {
    numbers: HashMap<Vec<u8>, State>,
    /// By number: what the value is to an increment.
    integers: Vec<Option<i64>>,
    /// Values that are told apart by somebody. All others are `UNSEEN`, apart from integers if there are
    /// increments.
    seen: BTreeSet<Vec<u8>>,
    has_increments: bool,
}

impl Values {
    /// For the operations of one key, and the value it begins with.
    ///
    /// A value differs from another, to a client, if it was read, or is expected by a compare-and-set, or
    /// is added to. Any two values for which none of that is so answer every call of the history in the
    /// same way, so a search that takes them for one misses nothing and finds nothing new.
    pub fn of(ops: &[&Op], start: Option<&[u8]>) -> Values {
        let mut seen: BTreeSet<Vec<u8>> = start.map(<[u8]>::to_vec).into_iter().collect();
        for op in ops {
            if let Some(Res::Value(Some(value))) = &op.result {
                seen.insert(value.clone());
            }
            if let Call::CompareAndSet { expected: Some(expected), .. } = &op.call {
                seen.insert(expected.clone());
            }
        }
        let has_increments = ops.iter().any(|op| matches!(op.call, Call::Increment(_)));
        // An absent key counts as 0.
        let integers = vec![Some(0), None];
        Values { numbers: HashMap::new(), integers, seen, has_increments }
    }

    pub fn number(&mut self, value: Option<&[u8]>) -> State {
        let Some(value) = value else { return ABSENT };
        if let Some(number) = self.numbers.get(value) {
            return *number;
        }
        let integer = parse_integer(value);
        let is_told_apart = self.seen.contains(value) || (self.has_increments && integer.is_some());
        if !is_told_apart {
            return UNSEEN;
        }
        let number = State::try_from(self.integers.len()).expect("fewer values than 2^32");
        self.integers.push(integer);
        self.numbers.insert(value.to_vec(), number);
        number
    }

    pub fn act(&mut self, call: &Call) -> Act {
        match call {
            Call::Get => Act::Get,
            Call::Put(value) => Act::Put(self.number(Some(value))),
            Call::Delete => Act::Delete,
            Call::Clear => Act::Clear,
            Call::CompareAndSet { expected, value } => Act::Swap {
                expected: self.number(expected.as_deref()),
                value: self.number(Some(value)),
            },
            Call::Increment(delta) => Act::Increment(*delta),
        }
    }

    pub fn answer(&mut self, res: &Res) -> Answer {
        match res {
            Res::Value(value) => Answer::Value(self.number(value.as_deref())),
            Res::Put => Answer::Put,
            Res::Deleted(existed) => Answer::Deleted(*existed),
            Res::Swapped(swapped) => Answer::Swapped(*swapped),
            Res::Counter(counter) => Answer::Counter(*counter),
            Res::NotAnInteger => Answer::NotAnInteger,
            Res::Overflow => Answer::Overflow,
        }
    }

    /// The state after an operation, and its answer.
    pub fn apply(&mut self, act: Act, state: State) -> (State, Answer) {
        match act {
            Act::Get => (state, Answer::Value(state)),
            Act::Put(value) => (value, Answer::Put),
            Act::Delete => (ABSENT, Answer::Deleted(state != ABSENT)),
            Act::Clear => (ABSENT, Answer::Put),
            Act::Swap { expected, value } if state == expected => (value, Answer::Swapped(true)),
            Act::Swap { .. } => (state, Answer::Swapped(false)),
            Act::Increment(delta) => {
                let Some(integer) = self.integers[state as usize] else {
                    return (state, Answer::NotAnInteger);
                };
                match integer.checked_add(delta) {
                    Some(sum) => {
                        let text = sum.to_string();
                        (self.number(Some(text.as_bytes())), Answer::Counter(sum))
                    }
                    None => (state, Answer::Overflow),
                }
            }
        }
    }
}

/// Whether an operation with this answer leaves every state, in which it can give this answer, as it is.
pub fn changes_nothing(act: Act, answer: Answer) -> bool {
    match answer {
        Answer::Value(_)
        | Answer::Deleted(false)
        | Answer::Swapped(false)
        | Answer::NotAnInteger
        | Answer::Overflow => true,
        Answer::Swapped(true) => matches!(act, Act::Swap { expected, value } if expected == value),
        Answer::Put | Answer::Deleted(true) | Answer::Counter(_) => false,
    }
}

/// The canonical decimal text of a 64-bit integer: what an increment takes, and writes.
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        digits => (1, digits),
    };
    let is_canonical = match digits {
        [b'0'] => sign == 1,
        [b'1'..=b'9', ..] => digits.len() <= 19 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !is_canonical {
        return None;
    }
    // 19 digits fit in 128 bits.
    let number = digits.iter().fold(0i128, |sum, digit| sum * 10 + i128::from(digit - b'0'));
    i64::try_from(sign * number).ok()
}
