//! `cltraft bench`: how many requests a second, and how long each takes.

mod driver;
mod histogram;
mod link;

use super::args::{BenchPlan, Output};
use super::commands::Trouble;
use super::json::Object;
use super::progress::Progress;
use super::signals::Signals;
use super::table::aligned;
use super::{Exit, complain};
use crate::client::Client;
use driver::{Driver, Recent, Results};
use histogram::Histogram;
use std::io::Write;
use std::time::{Duration, Instant};

/// Between two lines of progress.
const TELL: Duration = Duration::from_secs(1);

pub struct Bench<'a> {
    pub plan: &'a BenchPlan,
    pub servers: &'a [String],
    pub timeout: Option<Duration>,
    pub output: Output,
}

impl Bench<'_> {
    pub fn run(
        &self,
        client: &mut Client,
        signals: &Signals,
        out: &mut dyn Write,
    ) -> Result<Exit, Trouble> {
        // Whoever answers this leads.
        client.digest()?;
        let leader = client.leader().unwrap_or(&self.servers[0]).to_owned();
        let driver = Driver::new(self.plan, self.servers.to_vec(), &leader, self.timeout);
        let driver = driver.map_err(Trouble::Input)?;
        let begun = Instant::now();
        let (mut progress, mut told_at) = (Progress::on_stderr(), begun);
        let mut goes_on = |recent: &mut Recent| {
            let passed = told_at.elapsed();
            if passed >= TELL {
                progress.say(&line(begun.elapsed(), passed, recent));
                *recent = Recent::default();
                told_at = Instant::now();
            }
            signals.wait(Duration::ZERO).is_continue()
        };
        let results = driver.run(&mut goes_on);
        progress.end();
        let results =
            results.map_err(|error| Trouble::Input(format!("cannot wait for sockets: {error}")))?;
        match self.output {
            Output::Table => out.write_all(table(self.plan, &results).as_bytes())?,
            Output::Json => writeln!(out, "{}", json(self.plan, &results).finish())?,
        }
        out.flush()?;
        if results.all().count() == 0 {
            complain("no request was answered while it was measured");
            return Ok(Exit::NotDone);
        }
        Ok(Exit::Done)
    }
}

fn line(since: Duration, passed: Duration, recent: &Recent) -> String {
    let latencies = &recent.latencies;
    format!(
        "{:4} s  {:8.0}/s  p50 {}  p99 {}  max {}  errors {}",
        since.as_secs(),
        latencies.count() as f64 / passed.as_secs_f64(),
        milliseconds(latencies.quantile(0.5)),
        milliseconds(latencies.quantile(0.99)),
        milliseconds(latencies.max()),
        recent.errors
    )
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.3} ms", duration.as_secs_f64() * 1000.0)
}

const PERCENTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999)];

fn throughput(results: &Results) -> f64 {
    let seconds = results.measured.as_secs_f64();
    if seconds > 0.0 { results.answered_in_time as f64 / seconds } else { 0.0 }
}

fn table(plan: &BenchPlan, results: &Results) -> String {
    let titles = ["", "REQUESTS", "MEAN", "P50", "P90", "P99", "P99.9", "MAX"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for (name, histogram) in
        [("all", &results.all()), ("reads", &results.reads), ("writes", &results.writes)]
    {
        if histogram.count() > 0 {
            let mut row = vec![name.to_owned(), histogram.count().to_string()];
            row.push(milliseconds(histogram.mean()));
            let quantiles = PERCENTILES.iter().map(|(_, part)| histogram.quantile(*part));
            row.extend(quantiles.chain([histogram.max()]).map(milliseconds));
            rows.push(row);
        }
    }
    let loop_kind = match plan.rate {
        Some(rate) => format!("open loop, {rate} requests a second"),
        None => "closed loop".to_owned(),
    };
    let BenchPlan { clients, pipeline, value_bytes, reads_percent, keys, .. } = plan;
    let mut text = format!(
        "{loop_kind}; clients {clients}, pipeline {pipeline}, keys {keys}, value {value_bytes} B, reads \
         {reads_percent} %\n{:.0} requests a second, for {:.1} s\n\n",
        throughput(results),
        results.measured.as_secs_f64()
    );
    text.push_str(&aligned(&rows));
    if results.failed() > 0 {
        text.push_str(&format!("\nfailed: {}\n", results.failed()));
        for (what, count) in &results.errors {
            text.push_str(&format!("  {count}  {what}\n"));
        }
    }
    text
}

fn json(plan: &BenchPlan, results: &Results) -> Object {
    let micros = |duration: Duration| duration.as_nanos() as f64 / 1000.0;
    let latencies = |histogram: &Histogram| {
        let object = Object::default().number("requests", histogram.count());
        let object = object.real("mean", micros(histogram.mean()));
        let add = |object: Object, (name, part): &(&str, f64)| {
            object.real(name, micros(histogram.quantile(*part)))
        };
        let object = PERCENTILES.iter().fold(object, add);
        object.real("max", micros(histogram.max()))
    };
    let object = Object::default()
        .text("loop", if plan.rate.is_some() { "open" } else { "closed" })
        .number("clients", plan.clients as u64)
        .number("pipeline", plan.pipeline as u64)
        .number("keys", plan.keys)
        .number("value_bytes", plan.value_bytes as u64)
        .number("reads_percent", plan.reads_percent);
    let object = match plan.rate {
        Some(rate) => object.number("rate", rate),
        None => object.null("rate"),
    };
    let count = |object: Object, (what, count): (&String, &u64)| object.number(what, *count);
    object
        .real("seconds", results.measured.as_secs_f64())
        .real("requests_per_second", throughput(results))
        .object("microseconds", latencies(&results.all()))
        .object("microseconds_of_reads", latencies(&results.reads))
        .object("microseconds_of_writes", latencies(&results.writes))
        .number("failed", results.failed())
        .object("errors", results.errors.iter().fold(Object::default(), count))
}
