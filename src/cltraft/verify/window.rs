//! The operations of one key, cut into windows that are checked one by one while the run goes on.
//!
//! A window ends when nobody is at work on its key: new operations are turned away, those under way come to an
//! end, and a last read says which value the key has. That read is part of the window. What comes after it
//! begins with its value, so that the search for an order never has more than one window to look through.
//!
//! An operation whose outcome is unknown may take effect at any later moment. It is part of its own window
//! and of all windows after it; that allows for more than can have happened, and so it never raises a false
//! alarm. When there are too many of them, the key is left, and another one taken in its place.

use crate::linearizable::{Call, Op, Res};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A window has this many operations, or lasts so long.
const OPERATIONS_MAX: usize = 200;
const TIME_MAX: Duration = Duration::from_secs(1);
/// Of operations with an unknown outcome on one key. Each may multiply the orders to look through.
const UNKNOWN_MAX: usize = 8;

pub struct Key {
    /// Which of the keys that stand for each other.
    number: usize,
    prefix: String,
    state: Mutex<State>,
}

struct State {
    /// How many keys were left behind before this one.
    generation: u64,
    in_flight: usize,
    is_ending: bool,
    began: Instant,
    /// The value that it begins with, if there is one.
    start: Option<Vec<u8>>,
    /// Unknown outcomes of windows before.
    unknown: Vec<Op>,
    ops: Vec<Op>,
}

/// Some operations of one key, for the checker.
pub struct Window {
    /// In any order; with what goes before it.
    pub ops: Vec<Op>,
    /// Of them, those that are in no other window.
    pub own: usize,
}

/// What a client has to do after its operation.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    GoOn,
    /// Read the key, and end the window with that.
    EndWindow,
}

impl Key {
    pub fn new(prefix: &str, number: usize) -> Self {
        let state = State {
            generation: 0,
            in_flight: 0,
            is_ending: false,
            began: Instant::now(),
            start: None,
            unknown: Vec::new(),
            ops: Vec::new(),
        };
        Key { number, prefix: prefix.to_owned(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    fn name(&self, generation: u64) -> Vec<u8> {
        format!("{}k{}.{generation}", self.prefix, self.number).into_bytes()
    }

    /// All keys that this one has been.
    pub fn names(&self) -> Vec<Vec<u8>> {
        (0..=self.state().generation).map(|generation| self.name(generation)).collect()
    }

    /// The key's name, for one operation; `None`: its window is about to end.
    pub fn enter(&self) -> Option<Vec<u8>> {
        let mut state = self.state();
        if state.is_ending {
            return None;
        }
        state.in_flight += 1;
        Some(self.name(state.generation))
    }

    /// The operation is over. `None`: it was certainly not done.
    pub fn leave(&self, op: Option<Op>) -> Next {
        let mut state = self.state();
        state.ops.extend(op);
        state.in_flight -= 1;
        state.is_ending |= state.ops.len() >= OPERATIONS_MAX || state.began.elapsed() >= TIME_MAX;
        if state.is_ending && state.in_flight == 0 { Next::EndWindow } else { Next::GoOn }
    }

    /// The name, for the read that ends the window.
    pub fn ending(&self) -> Vec<u8> {
        self.name(self.state().generation)
    }

    /// Takes the window, with the read that ends it, and lets operations in again.
    pub fn end(&self, last: Op) -> Window {
        let Some(Res::Value(value)) = last.result.clone() else {
            unreachable!("a window ends with a read that was answered")
        };
        let mut state = self.state();
        state.ops.push(last);
        let window = state.take();
        if state.unknown.len() > UNKNOWN_MAX {
            state.generation += 1;
            state.unknown.clear();
            state.start = None;
        } else {
            state.start = value;
        }
        state.is_ending = false;
        state.began = Instant::now();
        window
    }

    /// What there is at the end of the run, when nobody is at work any more.
    pub fn rest(&self) -> Window {
        self.state().take()
    }
}

impl State {
    fn take(&mut self) -> Window {
        let ops = std::mem::take(&mut self.ops);
        let own = ops.len();
        let Some(first) = ops.first() else { return Window { ops, own } };
        // It was there before everything else.
        let start = self.start.take().map(|value| Op {
            client: 0,
            key: first.key.clone(),
            call: Call::Put(value),
            invoked: 0,
            returned: Some(0),
            result: Some(Res::Put),
        });
        let before = std::mem::take(&mut self.unknown);
        let is_unknown = |op: &&Op| op.returned.is_none() && op.call != Call::Get;
        let unknown: Vec<Op> =
            before.iter().chain(ops.iter().filter(is_unknown)).cloned().collect();
        let ops = start.into_iter().chain(before).chain(ops).collect();
        self.unknown = unknown;
        Window { ops, own }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linearizable::check;

    fn op(key: &Key, at: u64, call: Call, result: Option<Res>) -> Op {
        let returned = result.as_ref().map(|_| at + 1);
        Op { client: 1, key: key.ending(), call, invoked: at, returned, result }
    }

    fn put(key: &Key, at: u64, value: &str) -> Op {
        op(key, at, Call::Put(value.into()), Some(Res::Put))
    }

    fn get(key: &Key, at: u64, value: Option<&str>) -> Op {
        op(key, at, Call::Get, Some(Res::Value(value.map(|value| value.into()))))
    }

    #[test]
    fn a_window_ends_when_nobody_is_at_work_and_the_next_begins_with_its_value() {
        let key = Key::new("p/", 3);
        assert_eq!(key.enter(), Some(b"p/k3.0".to_vec()));
        for at in 0..OPERATIONS_MAX as u64 - 1 {
            key.enter().expect("it has room");
            assert_eq!(key.leave(Some(put(&key, 10 * at + 1, &at.to_string()))), Next::GoOn);
        }
        key.enter().expect("it has room");
        assert_eq!(key.leave(Some(put(&key, 5001, "x"))), Next::GoOn, "one is still at work");
        assert_eq!(key.enter(), None);
        assert_eq!(key.leave(None), Next::EndWindow);
        let window = key.end(get(&key, 6001, Some("x")));
        assert_eq!((window.own, window.ops.len()), (OPERATIONS_MAX + 1, OPERATIONS_MAX + 1));
        check(&window.ops).expect("it is possible");
        key.enter().expect("it is open again");
        key.leave(Some(get(&key, 7001, Some("old"))));
        let (rest, text) = (key.rest(), "what was there before is gone");
        check(&rest.ops).expect_err(text);
    }

    #[test]
    fn what_is_unknown_may_happen_in_every_later_window() {
        let key = Key::new("p/", 0);
        key.enter().expect("it is open");
        key.leave(Some(op(&key, 1, Call::Put(b"late".to_vec()), None)));
        check(&key.end(get(&key, 11, None)).ops).expect("it has not happened");
        key.enter().expect("it is open");
        key.leave(Some(get(&key, 21, Some("late"))));
        check(&key.end(get(&key, 31, Some("late"))).ops).expect("it has happened");
        key.enter().expect("it is open");
        key.leave(Some(get(&key, 41, Some("never"))));
        check(&key.rest().ops).expect_err("nobody wrote that");
    }

    #[test]
    fn a_key_with_much_unknown_is_left_for_another() {
        let key = Key::new("p/", 0);
        for at in 0..=UNKNOWN_MAX as u64 {
            key.enter().expect("it is open");
            key.leave(Some(op(&key, 1 + at, Call::Put(at.to_string().into_bytes()), None)));
        }
        key.end(get(&key, 100, Some("3")));
        assert_eq!(key.enter(), Some(b"p/k0.1".to_vec()));
        key.leave(Some(get(&key, 201, None)));
        check(&key.rest().ops).expect("the other one begins empty");
        assert_eq!(key.names(), [b"p/k0.0".to_vec(), b"p/k0.1".to_vec()]);
    }
}
