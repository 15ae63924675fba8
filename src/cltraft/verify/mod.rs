//! `cltraft verify`: many clients on few keys, and a checker that looks, while they run, whether what they saw is
//! linearizable ([`crate::linearizable`]).

mod window;
mod worker;

use super::args::{Output, VerifyPlan};
use super::commands::Trouble;
use super::json::Object;
use super::progress::Progress;
use super::signals::Signals;
use super::{Exit, complain};
use crate::client::{Client, ClientConfig};
use crate::linearizable::{STATES_MAX, check_within};
use std::io::Write;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use window::{Key, Window};
use worker::Worker;

/// Between two lines of progress.
const TELL: Duration = Duration::from_secs(1);
/// How often the clock and the signals are looked at.
const SLICE: Duration = Duration::from_millis(50);
/// Windows that wait for the checker; whoever brings one more waits.
const WINDOWS_MAX: usize = 64;
/// Values that were read, for comparing and setting: so that some of these succeed.
const SEEN_MAX: usize = 16;

/// Operations by what became of them.
#[derive(Debug, Default)]
struct Tally {
    done: AtomicU64,
    unknown: AtomicU64,
    not_done: AtomicU64,
    checked: AtomicU64,
    windows: AtomicU64,
    /// Windows for which the search was given up.
    undecided: AtomicU64,
}

/// What all clients and the checker share.
struct Run<'a> {
    plan: &'a VerifyPlan,
    keys: Vec<Key>,
    begun: Instant,
    is_over: AtomicBool,
    tally: Tally,
    seen: Mutex<Vec<Option<Vec<u8>>>>,
    /// What the checker has found.
    violation: Mutex<Option<String>>,
}

impl Run<'_> {
    /// In microseconds; never 0, which is before everything.
    fn now(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64 + 1
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn saw(&self, value: Option<Vec<u8>>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push(value);
        if seen.len() > SEEN_MAX {
            seen.remove(0);
        }
    }

    /// One that was read a moment ago, of any key.
    fn some_value(&self, rng: &mut fastrand::Rng) -> Option<Vec<u8>> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        rng.choice(seen.iter()).cloned().flatten()
    }

    fn violation(&self) -> Option<String> {
        self.violation.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn check(&self, window: &Window) {
        match check_within(&window.ops, STATES_MAX) {
            Ok(()) => {}
            Err(violation) if violation.is_undecided() => {
                self.tally.undecided.fetch_add(1, Ordering::Relaxed);
            }
            Err(violation) => {
                let mut found = self.violation.lock().unwrap_or_else(PoisonError::into_inner);
                found.get_or_insert(violation.to_string());
                self.is_over.store(true, Ordering::Relaxed);
            }
        }
        self.tally.checked.fetch_add(window.own as u64, Ordering::Relaxed);
        self.tally.windows.fetch_add(1, Ordering::Relaxed);
    }

    fn check_all(&self, windows: &Receiver<Window>) {
        while let Ok(window) = windows.recv() {
            self.check(&window);
        }
    }

    fn line(&self) -> String {
        let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Tally { done, unknown, not_done, checked, undecided, .. } = &self.tally;
        format!(
            "{:4} s  operations {}, unknown {}, not done {}, checked {}, undecided windows {}",
            self.begun.elapsed().as_secs(),
            number(done),
            number(unknown),
            number(not_done),
            number(checked),
            number(undecided)
        )
    }
}

pub struct Verify<'a> {
    pub plan: &'a VerifyPlan,
    pub config: &'a ClientConfig,
    pub output: Output,
}

impl Verify<'_> {
    pub fn run(
        &self,
        client: &mut Client,
        signals: &Signals,
        out: &mut dyn Write,
    ) -> Result<Exit, Trouble> {
        // Nobody there is told at once, and once.
        client.digest()?;
        let run = Run {
            plan: self.plan,
            keys: (0..self.plan.keys).map(|key| Key::new(&self.plan.prefix, key)).collect(),
            begun: Instant::now(),
            is_over: AtomicBool::new(false),
            tally: Tally::default(),
            seen: Mutex::new(Vec::new()),
            violation: Mutex::new(None),
        };
        let is_stopped = std::sync::Arc::new(AtomicBool::new(false));
        thread::scope(|scope| {
            let (sender, windows) = sync_channel(WINDOWS_MAX);
            let checker = scope.spawn({
                let run = &run;
                move || run.check_all(&windows)
            });
            let mut seeds = fastrand::Rng::with_seed(self.plan.seed);
            let workers: Vec<_> = (0..self.plan.clients)
                .map(|number| {
                    let config = ClientConfig { seed: seeds.u64(..), ..self.config.clone() };
                    let is_stopped = std::sync::Arc::clone(&is_stopped);
                    let client = Client::new(config).pause_with(move |pause| {
                        thread::sleep(pause);
                        match is_stopped.load(Ordering::Relaxed) {
                            true => ControlFlow::Break(()),
                            false => ControlFlow::Continue(()),
                        }
                    });
                    let (rng, windows) = (seeds.fork(), sender.clone());
                    let worker = Worker { run: &run, number: number as u32, client, rng, windows };
                    scope.spawn(move || worker.work())
                })
                .collect();
            drop(sender);
            self.watch(&run, signals);
            is_stopped.store(signals.wait(Duration::ZERO).is_break(), Ordering::Relaxed);
            for worker in workers {
                worker.join().expect("a client does not panic");
            }
            checker.join().expect("the checker does not panic");
        });
        for key in &run.keys {
            run.check(&key.rest());
        }
        self.report(&run, client, out)
    }

    /// Until the time is over, a signal comes, or the checker has found something.
    fn watch(&self, run: &Run<'_>, signals: &Signals) {
        let mut progress = Progress::on_stderr();
        let mut told_at = Instant::now();
        while !run.is_over() {
            let is_late = self.plan.duration.is_some_and(|end| run.begun.elapsed() >= end);
            if is_late || signals.wait(SLICE).is_break() {
                break;
            }
            if told_at.elapsed() >= TELL {
                told_at = Instant::now();
                progress.say_or_log(&run.line());
            }
        }
        progress.end();
        run.is_over.store(true, Ordering::Relaxed);
    }

    fn report(
        &self,
        run: &Run<'_>,
        client: &mut Client,
        out: &mut dyn Write,
    ) -> Result<Exit, Trouble> {
        let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Tally { done, unknown, not_done, checked: _, windows, undecided } = &run.tally;
        let (violation, seed) = (run.violation(), self.plan.seed);
        match self.output {
            Output::Json => {
                let object = Object::default()
                    .bool("linearizable", violation.is_none())
                    .real("seconds", run.begun.elapsed().as_secs_f64())
                    .number("operations", number(done))
                    .number("unknown", number(unknown))
                    .number("not_done", number(not_done))
                    .number("windows", number(windows))
                    .number("undecided", number(undecided))
                    .number("seed", seed);
                let object = match &violation {
                    Some(text) => object.text("violation", text),
                    None => object.null("violation"),
                };
                writeln!(out, "{}", object.finish())?;
            }
            Output::Table => {
                if let Some(text) = &violation {
                    writeln!(out, "{}", printable(text))?;
                }
                let verdict = match &violation {
                    Some(_) => "NOT linearizable",
                    None if number(undecided) > 0 => "nothing found, but not all was decided",
                    None => "linearizable",
                };
                writeln!(
                    out,
                    "{verdict}: operations {}, unknown {}, not done {}, windows {}, undecided {}, clients \
                     {}, keys {}, seed {seed}, {:.1} s (times are in microseconds)",
                    number(done),
                    number(unknown),
                    number(not_done),
                    number(windows),
                    number(undecided),
                    self.plan.clients,
                    self.plan.keys,
                    run.begun.elapsed().as_secs_f64()
                )?;
            }
        }
        out.flush()?;
        if violation.is_some() {
            complain("the keys are left as they are, so that they can be looked at");
            return Ok(Exit::No);
        }
        if number(done) == 0 {
            complain("no operation was done, so that nothing is shown");
            return Ok(Exit::NotDone);
        }
        self.clean_up(run, client);
        Ok(Exit::Done)
    }

    fn clean_up(&self, run: &Run<'_>, client: &mut Client) {
        for name in run.keys.iter().flat_map(Key::names) {
            if let Err(error) = client.delete(&name) {
                let prefix = printable(&self.plan.prefix);
                return complain(&format!("keys that begin with {prefix} are left: {error}"));
            }
        }
    }
}

/// Several lines, in which values of anybody may be.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}
