//! What the time of raftkv's loops goes to, from their own metrics: the share of it that waits for the disk, by the
//! number of clients, and what that does to reads beside the writes.

use crate::Options;
use crate::load::Work;
use crate::servers::{Cluster, Kind, metrics};
use crate::suite::{fill, measure};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

type Metrics = BTreeMap<String, f64>;

pub fn run(options: &Options) -> Result<(), String> {
    let nodes = options.nodes.unwrap_or(3);
    let cluster = Cluster::start(Kind::Raftkv, nodes, &options.raftkv, &options.data)?;
    fill(&cluster, &options.work)?;
    let leader = cluster.leader().ok_or("nobody leads")?;
    println!(
        "| SET and GET, clients | node | syncs | in turns besides | entries a sync | turns/s | op/s | p50 ms | p99 ms |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|---:|---:|");
    for (clients, reads_percent) in [(1, 0), (16, 0), (64, 0), (256, 0), (64, 50), (64, 100)] {
        let work = Work { clients, reads_percent, ..options.work.clone() };
        let (begun, before) = (Instant::now(), all(&cluster.addresses()));
        let round = measure(&cluster, &work)?;
        let (took, after) = (begun.elapsed().as_secs_f64(), all(&cluster.addresses()));
        for (number, (after, before)) in after.iter().zip(&before).enumerate() {
            let grown = |name: &str| {
                let of = |metrics: &Metrics| metrics.get(name).copied().unwrap_or_default();
                of(after) - of(before)
            };
            let syncs = grown("raftkv_fsync_seconds_sum");
            let turns = grown("raftkv_loop_turn_seconds_sum");
            let batches = grown("raftkv_batch_entries_count").max(1.0);
            println!(
                "| {clients}, {reads_percent} % GET | {} | {:.0} % | {:.0} % | {:.1} | {:.0} | {:.0} | {:.2} | {:.2} |",
                if number == leader { "leader" } else { "follower" },
                100.0 * syncs / took,
                100.0 * (turns - syncs) / took,
                grown("raftkv_batch_entries_sum") / batches,
                grown("raftkv_loop_turn_seconds_count") / took,
                round.per_second,
                round.p50_us / 1e3,
                round.p99_us / 1e3,
            );
        }
    }
    Ok(())
}

fn all(nodes: &[SocketAddr]) -> Vec<Metrics> {
    let parse = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_string(), value.trim().parse().ok()?))
    };
    let of = |node: &SocketAddr| metrics(*node).lines().filter_map(parse).collect();
    nodes.iter().map(of).collect()
}
