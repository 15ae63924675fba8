//! One client of `verify`: random operations on random keys, one after the other, each with its times.

use super::Run;
use super::window::{Key, Next, Window};
use crate::client::{Client, ClientError, Why};
use crate::kv::{Outcome, Refusal};
use crate::linearizable::{Call, Op, Res};
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

/// After an operation that was not done, or when all windows are about to end.
const PAUSE: Duration = Duration::from_millis(10);

pub struct Worker<'a> {
    pub run: &'a Run<'a>,
    pub number: u32,
    pub client: Client,
    pub rng: fastrand::Rng,
    pub windows: SyncSender<Window>,
}

impl Worker<'_> {
    pub fn work(mut self) {
        let mut values = 0;
        while !self.run.is_over() {
            let at = self.rng.usize(0..self.run.keys.len());
            let key = &self.run.keys[at];
            let Some(name) = key.enter() else {
                std::thread::sleep(PAUSE);
                continue;
            };
            values += 1;
            let call = self.call(values);
            let op = self.carry_out(name, call);
            let has_failed = op.as_ref().is_none_or(|op| op.returned.is_none());
            if key.leave(op) == Next::EndWindow {
                self.end_window(key);
            }
            if has_failed && !self.run.is_over() {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Every value is a number that no other operation writes, but for sums.
    fn call(&mut self, values: u64) -> Call {
        let clients = self.run.plan.clients as u64;
        let number = values * clients + u64::from(self.number);
        let value = (number * 1000).to_string().into_bytes();
        match self.rng.u32(0..100) {
            0..40 => Call::Get,
            40..65 => Call::Put(value),
            65..80 => Call::CompareAndSet { expected: self.run.some_value(&mut self.rng), value },
            80..90 => Call::Increment(1),
            _ => Call::Delete,
        }
    }

    /// The operation as it went; `None`: it was certainly not done, so that it is as if it had not been asked for.
    fn carry_out(&mut self, key: Vec<u8>, call: Call) -> Option<Op> {
        let invoked = self.run.now();
        let answer = match &call {
            Call::Get => self.client.get(&key).map(|read| Res::Value(read.value)),
            Call::Clear => unreachable!("nobody here clears the store"),
            Call::Put(value) => self.client.put(&key, value).map(|_| Res::Put),
            Call::Delete => self
                .client
                .delete(&key)
                .map(|written| Res::Deleted(written.outcome == Outcome::Deleted(true))),
            Call::CompareAndSet { expected, value } => {
                let written = self.client.compare_and_set(&key, expected.as_deref(), value);
                written.map(|written| Res::Swapped(written.outcome == Outcome::Swapped(true)))
            }
            Call::Increment(delta) => {
                self.client.increment(&key, *delta).map(|written| match written.outcome {
                    Outcome::Counter(sum) => Res::Counter(sum),
                    other => unreachable!("the client library has checked it: {other:?}"),
                })
            }
        };
        let returned = self.run.now();
        let tally = &self.run.tally;
        let result = match answer {
            Ok(result) => Some(result),
            Err(error) => match error.why() {
                Why::Refused(Refusal::NotAnInteger) => Some(Res::NotAnInteger),
                Why::Refused(Refusal::Overflow) => Some(Res::Overflow),
                _ if matches!(error, ClientError::NotDone { .. }) => {
                    tally.not_done.fetch_add(1, Ordering::Relaxed);
                    return None;
                }
                _ => None,
            },
        };
        match &result {
            Some(result) => {
                tally.done.fetch_add(1, Ordering::Relaxed);
                if let Res::Value(value) = result {
                    self.run.saw(value.clone());
                }
            }
            None => {
                tally.unknown.fetch_add(1, Ordering::Relaxed);
            }
        }
        let returned = result.is_some().then_some(returned);
        Some(Op { client: self.number, key, call, invoked, returned, result })
    }

    fn end_window(&mut self, key: &Key) {
        while !self.run.is_over() {
            let Some(read) = self.carry_out(key.ending(), Call::Get) else {
                std::thread::sleep(PAUSE);
                continue;
            };
            // The checker takes one after the other; whoever is faster waits. It has gone only when all is over.
            let _ = self.windows.send(key.end(read));
            return;
        }
    }
}
