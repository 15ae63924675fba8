//! Medians and tables.

use crate::load::Measured;
use std::time::Duration;

/// One round.
#[derive(Debug, Clone)]
pub struct Round {
    pub per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub cpu_us: f64,
    /// Written to disk, an operation and node.
    pub disk_bytes: f64,
    pub errors: u64,
    pub gap: Duration,
    pub steal_percent: f64,
}

impl Round {
    pub fn new(
        measured: &Measured,
        cpu_seconds: f64,
        disk_bytes_a_node: f64,
        steal_percent: f64,
    ) -> Self {
        let operations = measured.operations.max(1) as f64;
        let at = |quantile| measured.latency.value_at_quantile(quantile) as f64;
        Round {
            per_second: measured.per_second(),
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            cpu_us: cpu_seconds * 1e6 / operations,
            disk_bytes: disk_bytes_a_node / operations,
            errors: measured.errors_in_all(),
            gap: measured.longest_gap,
            steal_percent,
        }
    }
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => (values[count / 2 - 1] + values[count / 2]) / 2.0,
    }
}

pub fn median_of(rounds: &[Round], what: impl Fn(&Round) -> f64) -> f64 {
    median(rounds.iter().map(what))
}

pub const HEADER: &str = "\
| load | server | op/s, median (min to max) | p50 ms | p99 ms | p99.9 ms | server CPU us/op | disk B/op, node | longest gap ms | errors | steal |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|";

/// A row of the table under `HEADER`.
pub fn row(load: &str, server: &str, rounds: &[Round]) -> String {
    let milliseconds = |what: fn(&Round) -> f64| median_of(rounds, what) / 1e3;
    let speeds = rounds.iter().map(|round| round.per_second);
    let least = speeds.clone().fold(f64::INFINITY, f64::min);
    let most = speeds.fold(0.0, f64::max);
    format!(
        "| {load} | {server} | {:.0} ({least:.0} to {most:.0}) | {:.2} | {:.2} | {:.2} | {:.1} | {:.0} | {:.0} | {} | {:.0} % |",
        median_of(rounds, |round| round.per_second),
        milliseconds(|round| round.p50_us),
        milliseconds(|round| round.p99_us),
        milliseconds(|round| round.p999_us),
        median_of(rounds, |round| round.cpu_us),
        median_of(rounds, |round| round.disk_bytes),
        rounds.iter().map(|round| round.gap.as_secs_f64() * 1e3).fold(0.0, f64::max),
        rounds.iter().map(|round| round.errors).sum::<u64>(),
        median_of(rounds, |round| round.steal_percent),
    )
}

/// Median and worst, in seconds.
pub fn times(what: &str, times: &[Duration]) -> String {
    let seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    let all: Vec<String> = seconds.iter().map(|time| format!("{time:.3}")).collect();
    format!(
        "{what}: median {:.3} s, worst {:.3} s, of {}\n  all: {}",
        median(seconds.iter().copied()),
        seconds.iter().copied().fold(0.0, f64::max),
        times.len(),
        all.join(" ")
    )
}
