//! Whole clusters in a simulated world: the real `Replica`, and a network, disks, clocks and clients that do
//! their worst. One seed is one run, and repeats it exactly.
//!
//! - `cargo test --test sim`: some hundred runs, from a random seed that is printed;
//! - `SIM_SEED=7 cargo test --test sim`: that run; with `SIM_TRACE=1` also each of its events;
//! - `SIM_RUNS=20000`: so many, from `SIM_SEED` or a random seed on.

#[path = "../mem_disk/mod.rs"]
mod mem_disk;

mod budget;
mod calm;
mod clients;
mod damage;
mod disk;
mod diverge;
mod electorate;
mod faults;
mod full_disk;
mod history;
mod image;
mod invariants;
mod members;
mod model;
mod nemesis;
mod network;
mod operator;
mod progress;
mod promises;
mod reference;
mod trace;
mod turn;
mod world;

use faults::Counts;
use std::collections::BTreeSet;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use world::{Report, run};

/// How many runs there are unless it is said.
const RUNS: u64 = 500;
/// So many runs meet every kind of fault: the rarest one, a change of the members that is truncated, is in 1 run out
/// of 170.
const RUNS_THAT_MEET_ALL: u64 = 2000;
/// How many are run twice.
const REPEATED: u64 = 10;
const THREADS: usize = 2;
/// Random seeds are short, so that they can be typed.
const SEED_MAX: u64 = 1_000_000_000;

/// What many runs came to.
#[derive(Debug, Default)]
struct Sum {
    runs: u64,
    faults: Counts,
    events: u64,
    terms_led: u64,
    committed: u64,
    answered: u64,
    unknown: u64,
    /// Microseconds, and the seed.
    slowest_calm: (u64, u64),
    undecided: u64,
    failures: Vec<(u64, String)>,
}

impl Sum {
    fn add(&mut self, seed: u64, report: &Report) {
        self.runs += 1;
        self.faults.merge(&report.faults);
        self.events += report.events;
        self.terms_led += report.terms_led;
        self.committed += report.committed;
        self.answered += report.answered;
        self.unknown += report.unknown;
        self.slowest_calm = self.slowest_calm.max((report.calm, seed));
        self.undecided += u64::from(!report.is_decided);
    }
}

/// A variable of the environment that is a number.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, which is not a number")))
}

/// Past the capture of the test harness, which shows nothing of what goes well.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn try_run(seed: u64, is_told: bool) -> Result<Report, String> {
    catch_unwind(AssertUnwindSafe(|| run(seed, is_told))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()))
            .unwrap_or_else(|| "a panic without words".to_owned())
    })
}

/// Runs `runs` seeds from `first` on, until one fails.
fn run_all(first: u64, runs: u64, is_told: bool) -> Sum {
    let (next, has_failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !has_failed.load(Ordering::Relaxed) {
                    let offset = next.fetch_add(1, Ordering::Relaxed);
                    if offset >= runs {
                        return;
                    }
                    let seed = first.wrapping_add(offset);
                    let result = try_run(seed, is_told);
                    let mut sum = sum.lock().expect("no run panics with the lock");
                    match result {
                        Ok(report) => sum.add(seed, &report),
                        Err(rule) => {
                            has_failed.store(true, Ordering::Relaxed);
                            sum.failures.push((seed, rule));
                        }
                    }
                }
            });
        }
    });
    sum.into_inner().expect("no run panics with the lock")
}

#[test]
fn clusters_keep_every_promise_under_every_fault() {
    let seed = number("SIM_SEED");
    let runs = number("SIM_RUNS").unwrap_or(if seed.is_some() { 1 } else { RUNS });
    let first = seed.unwrap_or_else(|| fastrand::u64(..SEED_MAX));
    let begun = Instant::now();
    let is_told = number("SIM_TRACE").is_some_and(|value| value > 0);
    let mut sum = run_all(first, runs, is_told && runs == 1);
    sum.failures.sort_unstable();
    if let Some((seed, rule)) = sum.failures.first() {
        say(&format!("SIM_SEED={seed} breaks a rule: {rule}\nit was run {}", seed - first + 1));
        panic!("SIM_SEED={seed} {rule}");
    }
    let Sum { faults, events, terms_led, committed, answered, unknown, .. } = sum;
    say(&format!(
        "\n{runs} runs from SIM_SEED={first} in {:.1} s: {events} events, {terms_led} terms with a \
         leader, {committed} entries, {answered} answers, {unknown} unknown outcomes; well again \
         within {} ms (SIM_SEED={}); {} histories too unclear to decide\n{faults}",
        begun.elapsed().as_secs_f64(),
        sum.slowest_calm.0 / 1000,
        sum.slowest_calm.1,
        sum.undecided
    ));
    if runs >= RUNS_THAT_MEET_ALL {
        assert!(faults.missing().is_empty(), "never happened: {:?}", faults.missing());
    }
}

#[test]
fn a_seed_repeats_a_run_exactly() {
    let first = number("SIM_SEED").unwrap_or_else(|| fastrand::u64(..SEED_MAX));
    let mut hashes = BTreeSet::new();
    for seed in first..first + REPEATED {
        let [one, two] = [(); 2]
            .map(|()| try_run(seed, false).unwrap_or_else(|e| panic!("SIM_SEED={seed} {e}")));
        assert_eq!(one, two, "SIM_SEED={seed}");
        hashes.insert(one.hash);
    }
    assert_eq!(hashes.len() as u64, REPEATED, "different seeds from {first} on, different runs");
}
