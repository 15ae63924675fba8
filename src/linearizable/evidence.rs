//! From a history that has no order to the least of it that shows so. Every cut keeps the proof: if what
//! is left has no order, the whole has none.
//!
//! - *The end.* The part of a history up to some moment has an order if the whole has: operations that
//!   have not returned by then count as unknown. So there is one return up to which the history is
//!   possible, and with which it is not: that operation cannot be placed.
//! - *The beginning.* If, during an operation that leaves a certain value behind, no other known operation
//!   was under way, then all known ones are before it or after it, and those after it begin with that
//!   value. Unknown ones may still come.
//! - *Operations that change nothing* can be left out of any order.

use super::model::{Values, changes_nothing, parse_integer};
use super::search::search;
use super::{Call, Op, Res};
use std::fmt;

/// Beyond this many operations, those that change nothing are not tried one by one.
const TRIED_ONE_BY_ONE_MAX: usize = 300;
/// Bytes of a key or value that are printed.
const SHOWN_BYTES_MAX: usize = 40;

/// Operations of one key that no register can have answered so.
#[derive(Debug, Clone)]
pub struct Evidence {
    pub key: Vec<u8>,
    /// All before it is left out; what follows begins with the value that it left behind.
    pub start: Option<Op>,
    /// In the order of their calls.
    pub ops: Vec<Op>,
    /// The one of them that cannot be placed.
    pub misfit: usize,
    /// An order of the others, as positions, and the value it ends with, if one was found in the states
    /// allowed. Of the unknown operations, and of the misfit, it has what must have taken effect.
    pub order: Option<(Vec<usize>, Option<Vec<u8>>)>,
}

/// Takes the evidence from the operations of one key, which have no order.
pub fn collect(key: &[u8], ops: &[&Op], states_max: usize) -> Evidence {
    let judge = Judge { states_max };
    let mut ops = judge.cut_end(ops);
    let start = judge.cut_beginning(&mut ops);
    let value = start.as_ref().and_then(value_after).flatten();
    judge.leave_out_what_changes_nothing(&mut ops, value.as_deref());
    let misfit = misfit(&ops);
    let order = judge.order_without(misfit, &ops, value.as_deref());
    Evidence { key: key.to_vec(), start, ops, misfit, order }
}

/// The operation that returned last. Of those at the same time it is the last one, as in `cut_end`.
fn misfit(ops: &[Op]) -> usize {
    let known = ops.iter().enumerate().filter(|(_, op)| op.returned.is_some());
    known.max_by_key(|(i, op)| (op.returned, *i)).expect("unknown operations alone are possible").0
}

fn as_unknown(op: &Op) -> Op {
    Op { returned: None, result: None, ..op.clone() }
}

struct Judge {
    states_max: usize,
}

impl Judge {
    /// False also if that is not known.
    fn is_impossible(&self, ops: &[Op], start: Option<&[u8]>) -> bool {
        let ops: Vec<&Op> = ops.iter().collect();
        matches!(search(&ops, start, self.states_max), Ok(None))
    }

    /// The shortest impossible beginning, in the order of calls.
    fn cut_end(&self, ops: &[&Op]) -> Vec<Op> {
        let mut ops: Vec<Op> = ops.iter().map(|op| (*op).clone()).collect();
        ops.sort_by_key(|op| (op.invoked, op.returned.unwrap_or(u64::MAX)));
        let mut returns: Vec<(u64, usize)> =
            ops.iter().enumerate().filter_map(|(i, op)| Some((op.returned?, i))).collect();
        returns.sort_unstable();
        let until = |last: (u64, usize)| -> Vec<Op> {
            let called = ops.iter().enumerate().filter(|(_, op)| op.invoked <= last.0);
            let seen = |(i, op): (usize, &Op)| {
                let is_over = op.returned.is_some_and(|at| (at, i) <= last);
                if is_over { op.clone() } else { as_unknown(op) }
            };
            called.map(seen).collect()
        };
        // All returns together are impossible; so the point lies before the last one, or at it.
        let earlier = &returns[..returns.len() - 1];
        let point = earlier.partition_point(|last| !self.is_impossible(&until(*last), None));
        until(returns[point])
    }

    /// Leaves out what the latest possible operation settles, and returns that one.
    fn cut_beginning(&self, ops: &mut Vec<Op>) -> Option<Op> {
        let after = |start: &Op| -> Vec<Op> {
            let is_after = |op: &&Op| op.returned.is_none() || is_before(start, op);
            ops.iter().filter(is_after).cloned().collect()
        };
        // What is impossible after one of them is so after each earlier one.
        let starts = lone(ops);
        let settles = |start: &&Op| {
            let value = value_after(start).expect("a lone operation leaves a certain value");
            self.is_impossible(&after(start), value.as_deref())
        };
        let point = starts.partition_point(settles);
        let start = (*starts.get(point.checked_sub(1)?)?).clone();
        *ops = after(&start);
        Some(start)
    }

    fn leave_out_what_changes_nothing(&self, ops: &mut Vec<Op>, start: Option<&[u8]>) {
        // An unknown read can never matter.
        ops.retain(|op| op.returned.is_some() || op.call != Call::Get);
        if ops.len() > TRIED_ONE_BY_ONE_MAX {
            return;
        }
        for i in (0..ops.len()).rev() {
            if i == misfit(ops) || !leaves_all_as_it_is(&ops[i]) {
                continue;
            }
            let op = ops.remove(i);
            if !self.is_impossible(ops, start) {
                ops.insert(i, op);
            }
        }
    }

    fn order_without(
        &self,
        misfit: usize,
        ops: &[Op],
        start: Option<&[u8]>,
    ) -> Option<(Vec<usize>, Option<Vec<u8>>)> {
        let mut others = ops.to_vec();
        others[misfit] = as_unknown(&ops[misfit]);
        let others: Vec<&Op> = others.iter().collect();
        let order = search(&others, start, self.states_max).ok()??;
        let mut value = start.map(<[u8]>::to_vec);
        for i in &order {
            value = written(&ops[*i].call, value);
        }
        Some((order, value))
    }
}

fn is_before(a: &Op, b: &Op) -> bool {
    a.returned.is_some_and(|at| at < b.invoked)
}

/// Known operations that leave a certain value, and during which no other known one was under way; in
/// their order, without the last of all. `ops` is in the order of calls.
fn lone(ops: &[Op]) -> Vec<&Op> {
    let known: Vec<&Op> = ops.iter().filter(|op| op.returned.is_some()).collect();
    let mut latest_return = None;
    let mut lone = Vec::new();
    for pair in known.windows(2) {
        let [op, next] = pair else { unreachable!("windows of two") };
        let is_first = latest_return.is_none_or(|at| at < op.invoked);
        latest_return = latest_return.max(op.returned);
        if is_first && is_before(op, next) && value_after(op).is_some() {
            lone.push(*op);
        }
    }
    lone
}

/// The value that a known operation certainly leaves behind, if it tells.
fn value_after(op: &Op) -> Option<Option<Vec<u8>>> {
    match (&op.call, op.result.as_ref()?) {
        (Call::Get, Res::Value(value)) => Some(value.clone()),
        (Call::Put(value), Res::Put) => Some(Some(value.clone())),
        (Call::Delete, Res::Deleted(_)) | (Call::Clear, Res::Put) => Some(None),
        (Call::CompareAndSet { value, .. }, Res::Swapped(true)) => Some(Some(value.clone())),
        (Call::Increment(_), Res::Counter(counter)) => Some(Some(counter.to_string().into())),
        _ => None,
    }
}

fn leaves_all_as_it_is(op: &Op) -> bool {
    let mut values = Values::of(&[op], None);
    let act = values.act(&op.call);
    op.result.as_ref().is_some_and(|res| changes_nothing(act, values.answer(res)))
}

/// The value after a call.
fn written(call: &Call, value: Option<Vec<u8>>) -> Option<Vec<u8>> {
    match call {
        Call::Get => value,
        Call::Put(new) => Some(new.clone()),
        Call::Delete | Call::Clear => None,
        Call::CompareAndSet { expected, value: new } if *expected == value => Some(new.clone()),
        Call::CompareAndSet { .. } => value,
        Call::Increment(delta) => {
            let number = value.as_deref().map_or(Some(0), parse_integer);
            match number.and_then(|number| number.checked_add(*delta)) {
                Some(sum) => Some(sum.to_string().into()),
                None => value,
            }
        }
    }
}

// In words.

fn shown(bytes: &[u8]) -> String {
    let (start, rest) = bytes.split_at(bytes.len().min(SHOWN_BYTES_MAX));
    let more = if rest.is_empty() { String::new() } else { format!("... {} bytes", bytes.len()) };
    format!("\"{}\"{more}", start.escape_ascii())
}

fn shown_or_none(value: Option<&Vec<u8>>) -> String {
    value.map_or("none".into(), |value| shown(value))
}

fn call(call: &Call) -> String {
    match call {
        Call::Get => "get".into(),
        Call::Put(value) => format!("put {}", shown(value)),
        Call::Delete => "delete".into(),
        Call::Clear => "clear".into(),
        Call::CompareAndSet { expected, value } => {
            format!("set {} if {}", shown(value), shown_or_none(expected.as_ref()))
        }
        Call::Increment(delta) => format!("increment by {delta}"),
    }
}

fn result(res: Option<&Res>) -> String {
    match res {
        None => "unknown".into(),
        Some(Res::Value(value)) => shown_or_none(value.as_ref()),
        Some(Res::Put) => "done".into(),
        Some(Res::Deleted(true)) => "deleted".into(),
        Some(Res::Deleted(false)) => "was not there".into(),
        Some(Res::Swapped(true)) => "set".into(),
        Some(Res::Swapped(false)) => "another value".into(),
        Some(Res::Counter(counter)) => counter.to_string(),
        Some(Res::NotAnInteger) => "not an integer".into(),
        Some(Res::Overflow) => "overflow".into(),
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Evidence { key, start, ops, misfit, order } = self;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, op: &Op| {
            let returned = op.returned.map_or("?".into(), |at| at.to_string());
            let times = format!("{}..{returned}", op.invoked);
            let (call, result) = (call(&op.call), result(op.result.as_ref()));
            writeln!(f, "{name:>6}  {times:>21}  client {}: {call} -> {result}", op.client)
        };
        let name = |i: usize| format!("#{}", i + 1);
        writeln!(f, "key {} is not linearizable, {} cannot be placed:", shown(key), name(*misfit))?;
        if let Some(start) = start {
            line(f, "before", start)?;
        }
        for (i, op) in ops.iter().enumerate() {
            let mark = if i == *misfit { "> " } else { "" };
            line(f, &format!("{mark}{}", name(i)), op)?;
        }
        let Some((order, last)) = order else { return Ok(()) };
        let order: Vec<String> = order.iter().map(|i| name(*i)).collect();
        let last = shown_or_none(last.as_ref());
        write!(f, "possible without it: [{}], which ends with {last}", order.join(" "))
    }
}
