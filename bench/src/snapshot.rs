//! What a snapshot of a large state costs those who write meanwhile: one load at a fixed rate, whose requests are told
//! apart by whether a snapshot was under way on any node while they waited.

use crate::load::{self, Asked, Work};
use crate::report::median;
use crate::servers::{Cluster, Kind};
use crate::{Options, suite, watch};
use std::time::{Duration, Instant};

/// How often nodes are asked whether a snapshot is under way.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// About when it began and ended is known only so well.
const MARGIN: Duration = Duration::from_millis(200);
/// Before each round, for what the one before has begun.
const SETTLING: Duration = Duration::from_secs(2);
/// Fewer requests say nothing of one in a thousand.
const REQUESTS_MIN: usize = 10_000;

/// Milliseconds that half, 99 and 99.9 % of requests took at most, and the longest.
#[derive(Debug, Clone, Copy)]
struct Quantiles([f64; 4]);

impl Quantiles {
    fn of(mut times: Vec<Duration>) -> Result<Self, String> {
        if times.len() < REQUESTS_MIN {
            return Err(format!("{} requests are too few; ask for more seconds", times.len()));
        }
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        Ok(Quantiles([0.5, 0.99, 0.999, 1.0].map(|share| at(share).as_secs_f64() * 1e3)))
    }

    fn row(self, what: &str) -> String {
        let [p50, p99, p999, worst] = self.0;
        format!("| {what} | {p50:.2} | {p99:.2} | {p999:.2} | {worst:.1} |")
    }
}

/// One round: without and with a snapshot.
struct Round([Quantiles; 2]);

impl Round {
    fn ratio(&self) -> f64 {
        let [without, with] = self.0;
        with.0[2] / without.0[2]
    }
}

/// `snapshot`: rounds on one cluster, then the medians.
pub fn run(options: &Options) -> Result<(), String> {
    let nodes = options.nodes.unwrap_or(3);
    let cluster = Cluster::start(Kind::Raftkv, nodes, &options.raftkv, &options.data)?;
    let work = options.work.clone();
    let speed = suite::fill(&cluster, &work)?;
    let mebibytes = (work.keys * work.value_bytes as u64) >> 20;
    let rate = work.rate.ok_or("--rate: the load has to be one that the nodes can bear")?;
    println!("filled: {} keys, {mebibytes} MiB, at {speed:.0}/s; now {rate:.0} SET/s", work.keys);
    let rounds = (0..options.rounds).map(|number| {
        println!("round {}:", number + 1);
        round(&cluster, &work)
    });
    let rounds = rounds.collect::<Result<Vec<_>, String>>()?;
    println!("medians of {} rounds:\n{HEADER}", rounds.len());
    for (at, what) in ["without", "with a snapshot"].into_iter().enumerate() {
        let medians =
            std::array::from_fn(|column| median(rounds.iter().map(|round| round.0[at].0[column])));
        println!("{}", Quantiles(medians).row(what));
    }
    println!("p99.9 with by without: {:.2}", median(rounds.iter().map(Round::ratio)));
    Ok(())
}

const HEADER: &str = "| SET | p50 ms | p99 ms | p99.9 ms | worst ms |\n|---|---:|---:|---:|---:|";

fn round(cluster: &Cluster, work: &Work) -> Result<Round, String> {
    std::thread::sleep(SETTLING);
    cluster.await_writable()?;
    let leader = cluster.leader().ok_or("nobody leads")?;
    let addresses = cluster.addresses();
    let watch = watch::Watch::start(&addresses, LOOK_EVERY);
    let (begun, since) = (Instant::now(), watch::unix_seconds());
    let target = [addresses[leader]];
    let measured = load::drive(&target, &|| cluster.kind.wire(), work, &mut |_| {})?;
    let took = begun.elapsed();
    let snapshots = watch.finish()?;
    for (node, address) in addresses.iter().enumerate() {
        let longest = watch::longest_turns(*address, since, took)?;
        let of_node = snapshots.iter().filter(|snapshot| snapshot.node == node);
        let times = of_node.map(|s| format!("{:.1} s", (s.until - s.from).as_secs_f64()));
        println!(
            "  node {node}{}: longest turn {:.1} ms, without its syncs {:.1} ms; longest sync {:.1} ms; snapshots: {}",
            if node == leader { " (leader)" } else { "" },
            longest.turn_ms,
            longest.unsynced_ms,
            longest.sync_ms,
            times.collect::<Vec<_>>().join(", "),
        );
    }
    let is_meanwhile = |asked: &Asked| {
        let answered = asked.begun + asked.took;
        snapshots.iter().any(|s| asked.begun <= s.until + MARGIN && answered + MARGIN >= s.from)
    };
    let (with, without): (Vec<_>, Vec<_>) =
        measured.each.iter().partition(|asked| is_meanwhile(asked));
    println!("{HEADER}");
    let quantiles = |what: &str, asked: Vec<&Asked>| {
        let quantiles = Quantiles::of(asked.iter().map(|a| a.took).collect());
        let quantiles = quantiles.map_err(|error| format!("{what}: {error}"))?;
        println!("{}", quantiles.row(what));
        Ok::<_, String>(quantiles)
    };
    // What there is enough of is told, whatever becomes of the other.
    let [with, without] = [quantiles("with a snapshot", with), quantiles("without", without)];
    let round = Round([without?, with?]);
    println!("p99.9 with by without: {:.2}; {} errors", round.ratio(), measured.errors_in_all());
    Ok(round)
}
