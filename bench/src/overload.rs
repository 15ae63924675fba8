//! raftkv at twice what it can take: what is acknowledged, what is refused and how, how much memory that costs, and
//! how long the loops turn; alone, and beside clients that misbehave.
//!
//! The nodes and the load share one machine, so "what it can take" is what they can do together: the best of what
//! closed loops reach. The load of an open loop that asks for more than that takes processor time from the nodes.

use crate::Options;
use crate::crowd::{Deaf, Elsewhere, Storm, idle};
use crate::fairness::put_large;
use crate::load::{self, Mark, Measured, Work};
use crate::servers::{Cluster, Kind};
use crate::suite::fill;
use crate::turns::Turns;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const CLIENTS: usize = 256;
/// Of a closed loop that is to reach what can be reached.
const PIPELINE: usize = 16;
/// Of the open loop: enough that it does not wait for answers, whatever the server does.
const PIPELINE_MAX: usize = 1024;
const TIMES: f64 = 2.0;
const DEAF: usize = 200;
const IDLE: usize = 10_000;
const STORM_THREADS: usize = 4;
/// What a storm costs the machine, whatever a node does.
const ELSEWHERE: &str = "beside a storm of connections to somebody else";
const TWICE: &str = "open loop, twice that";
/// What a node logs of a turn that took long.
const SLOW_TURN: &str = "a turn took";
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// After a part, before memory is looked at again.
const SETTLING: Duration = Duration::from_secs(2);

const HEADER: &str = "\
| load | due/s | acknowledged/s | p50 ms | p99 ms | refused/s | p99 of refusals ms | not sent | RSS of the nodes before, most, after (MiB) | longest turn of each node |
|---|---:|---:|---:|---:|---:|---:|---:|---|---|";

pub fn run(options: &Options) -> Result<(), String> {
    let cluster = Cluster::start(Kind::Raftkv, 3, &options.raftkv, &options.data)?;
    fill(&cluster, &options.work)?;
    let leader = cluster.leader().ok_or("nobody leads")?;
    put_large(cluster.addresses()[leader])?;
    let bench = Bench { cluster, leader, only: &options.only };
    let closed = Work { clients: CLIENTS, pipeline: 1, rate: None, ..options.work.clone() };
    println!("{HEADER}");
    let plain = bench.part("closed loop, 256 clients", &closed)?.per_second();
    if bench.is_wanted(TWICE) {
        bench.twice(&closed, plain)?;
    }
    bench.beside_crowds(&closed)?;
    bench.part("closed loop, afterwards", &closed)?;
    Ok(())
}

struct Bench<'a> {
    cluster: Cluster,
    leader: usize,
    only: &'a str,
}

impl Bench<'_> {
    fn target(&self) -> SocketAddr {
        self.cluster.addresses()[self.leader]
    }

    fn is_wanted(&self, name: &str) -> bool {
        name.contains(self.only)
    }

    /// Once and twice what closed loops reach.
    fn twice(&self, closed: &Work, plain: f64) -> Result<(), String> {
        let deep = Work { pipeline: PIPELINE, ..closed.clone() };
        let capacity =
            self.part("closed loop, 256 clients, 16 deep", &deep)?.per_second().max(plain);
        let open = |rate| Work { pipeline: PIPELINE_MAX, rate: Some(rate), ..closed.clone() };
        // The same generator at what the nodes can take: what it costs by itself is no loss by overload.
        let once = self.part("open loop, as much as that", &open(capacity))?.per_second();
        let twice = self.part(TWICE, &open(TIMES * capacity))?.per_second();
        println!("kept: {:.0} % of the open loop's {once:.0}/s", 100.0 * twice / once);
        println!("      {:.0} % of the closed loop's {capacity:.0}/s", 100.0 * twice / capacity);
        Ok(())
    }

    /// The ordinary load, beside those that misbehave.
    fn beside_crowds(&self, work: &Work) -> Result<(), String> {
        let name = "beside 10,000 idle connections";
        if self.is_wanted(name) {
            self.beside_idle(name, work)?;
        }
        for (name, speaks) in [
            ("beside a storm of connections with one GET each", true),
            ("beside a storm of connections without a word", false),
            (ELSEWHERE, false),
        ] {
            if self.is_wanted(name) {
                let elsewhere = Elsewhere::start()?;
                let target = if name == ELSEWHERE { elsewhere.at } else { self.target() };
                let storm = Storm::start(STORM_THREADS, speaks, target);
                let measured = self.part(name, work)?;
                let (served, failed) = storm.stop();
                let seconds = measured.seconds + work.warmup.as_secs_f64();
                println!("  {:.0} connections/s, {failed} failed", served as f64 / seconds);
            }
        }
        let name = "beside 200 clients that never read";
        if self.is_wanted(name) {
            let deaf = Deaf::start(DEAF, self.target())?;
            self.part(&format!("{name}, as they come"), work)?;
            thread::sleep(SETTLING);
            self.part(&format!("{name}, later"), work)?;
            deaf.stop();
        }
        Ok(())
    }

    fn beside_idle(&self, name: &str, work: &Work) -> Result<(), String> {
        let before = self.cluster.resident_kib()[self.leader];
        let (mut streams, refusals) = idle(IDLE, self.target())?;
        let each = (self.cluster.resident_kib()[self.leader] as f64 - before as f64) * 1024.0
            / streams.len().max(1) as f64;
        println!(
            "  {} idle connections, {each:.0} bytes of the node each; {} were turned away: {}",
            streams.len(),
            refusals.len(),
            refusals.first().map_or("", String::as_str)
        );
        // Room for those that are measured.
        streams.truncate(IDLE - 2 * CLIENTS);
        self.part(name, work)?;
        Ok(())
    }

    fn part(&self, name: &str, work: &Work) -> Result<Measured, String> {
        let nodes = self.cluster.addresses();
        let before = self.cluster.resident_kib();
        let told = self.cluster.logged(SLOW_TURN);
        let mut turns = None;
        let stop = AtomicBool::new(false);
        let wire = || self.cluster.kind.wire();
        let (measured, most) = thread::scope(|scope| {
            let watcher = scope.spawn(|| self.most_resident(&stop));
            let measured = load::drive(&[self.target()], &wire, work, &mut |mark| {
                if mark == Mark::Begin {
                    turns = Some(Turns::of(&nodes));
                }
            });
            stop.store(true, Ordering::Relaxed);
            (measured, watcher.join().expect("it only looks"))
        });
        let measured = measured.map_err(|error| format!("{name}: {error}"))?;
        let turns = turns.map(|before| Turns::of(&nodes).since(&before)).unwrap_or_default();
        thread::sleep(SETTLING);
        let memory = [before, most, self.cluster.resident_kib()].map(|kib| mib(&kib));
        let due = work.rate.map_or("-".to_string(), |rate| format!("{rate:.0}"));
        println!("| {name} | {due} | {} | {} | {turns} |", row(&measured), memory.join(", "));
        for (text, count) in &measured.errors {
            println!("  {:.0}/s: {text}", *count as f64 / measured.seconds);
        }
        let slow = self.cluster.logged(SLOW_TURN);
        slow.iter().filter(|line| !told.contains(line)).for_each(|line| println!("  {line}"));
        Ok(measured)
    }

    /// The most memory that each node had, as often as it was looked at.
    fn most_resident(&self, stop: &AtomicBool) -> Vec<u64> {
        let mut most = self.cluster.resident_kib();
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(LOOK_EVERY);
            let now = self.cluster.resident_kib();
            most.iter_mut().zip(now).for_each(|(most, now)| *most = now.max(*most));
        }
        most
    }
}

fn row(measured: &Measured) -> String {
    let at = |quantile| measured.latency.value_at_quantile(quantile) as f64 / 1e3;
    format!(
        "{:.0} | {:.2} | {:.2} | {:.0} | {:.2} | {}",
        measured.per_second(),
        at(0.5),
        at(0.99),
        measured.errors_in_all() as f64 / measured.seconds,
        measured.error_latency.value_at_quantile(0.99) as f64 / 1e3,
        measured.unsent,
    )
}

fn mib(kib: &[u64]) -> String {
    let nodes: Vec<String> = kib.iter().map(|kib| (kib / 1024).to_string()).collect();
    nodes.join("/")
}
