//! What is compared, and how: every server gets every load, round by round, so that a slow minute of the machine
//! hits them all.

use crate::load::{self, Mark, Work};
use crate::report::{self, Round, median_of};
use crate::servers::{Cluster, Kind};
use crate::{Options, failover, process};
use rustix::process::Signal;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const MILLION: u64 = 1_000_000;
/// What a node may do after its start before it counts as idle.
const SETTLING: Duration = Duration::from_secs(10);
const RESTART_PATIENCE: Duration = Duration::from_secs(120);

/// One round of one load.
pub fn measure(cluster: &Cluster, work: &Work) -> Result<Round, String> {
    let leader = cluster.leader().ok_or("nobody leads")?;
    let targets: Vec<SocketAddr> = vec![cluster.addresses()[leader]];
    let pids = cluster.pids();
    let (mut begin, mut end) = Default::default();
    let (mut times_begin, mut times_end) = Default::default();
    let kind = cluster.kind;
    let measured = load::drive(&targets, &|| kind.wire(), work, &mut |mark| {
        let (usage, times) = (process::usage(&pids), process::cpu_times());
        match mark {
            Mark::Begin => (begin, times_begin) = (usage, times),
            Mark::End => (end, times_end) = (usage, times),
        }
    })
    .map_err(|error| format!("{}: {error}", kind.name()))?;
    let nodes = pids.len() as f64;
    Ok(Round::new(
        &measured,
        end.cpu_seconds - begin.cpu_seconds,
        (end.written_bytes - begin.written_bytes) as f64 / nodes,
        process::steal_percent(times_begin, times_end),
    ))
}

/// `load`: one line a round, then the medians.
pub fn load(options: &Options) -> Result<(), String> {
    println!("{}", report::HEADER);
    for kind in &options.servers {
        let nodes = options.nodes.unwrap_or(kind.nodes());
        let cluster = Cluster::start(*kind, nodes, &options.raftkv, &options.data)?;
        fill(&cluster, &options.work)?;
        let rounds = (0..options.rounds).map(|number| {
            let round = measure(&cluster, &options.work)?;
            eprintln!(
                "{}",
                report::row(&format!("round {number}"), kind.name(), std::slice::from_ref(&round))
            );
            Ok(round)
        });
        let rounds = rounds.collect::<Result<Vec<_>, String>>()?;
        println!("{}", report::row(&describe(&options.work), kind.name(), &rounds));
    }
    Ok(())
}

fn describe(work: &Work) -> String {
    let what = match work.reads_percent {
        0 => "SET".to_string(),
        100 => "GET".to_string(),
        percent => format!("{percent} % GET"),
    };
    let pipeline =
        if work.pipeline > 1 { format!(", pipeline {}", work.pipeline) } else { String::new() };
    let rate = work.rate.map_or(String::new(), |rate| format!(", {rate:.0}/s"));
    format!("{what}, {} clients{pipeline}{rate}", work.clients)
}

pub fn fill(cluster: &Cluster, work: &Work) -> Result<f64, String> {
    let leader = cluster.leader().ok_or("nobody leads")?;
    let kind = cluster.kind;
    load::fill(&[cluster.addresses()[leader]], &|| kind.wire(), work)
        .map_err(|error| format!("{}: {error}", kind.name()))
}

/// The loads of the comparison, and who takes part.
fn loads(base: &Work) -> Vec<(Work, Vec<Kind>)> {
    let all = Kind::ALL.to_vec();
    let work = |clients, pipeline, reads_percent| Work {
        clients,
        pipeline,
        reads_percent,
        ..base.clone()
    };
    vec![
        (work(1, 1, 0), all.clone()),
        (work(64, 1, 0), all.clone()),
        (work(256, 1, 0), all.clone()),
        (work(64, 16, 0), vec![Kind::Raftkv, Kind::Redis]),
        (work(64, 1, 100), all.clone()),
        (work(256, 1, 100), all),
    ]
}

/// `table`: all loads, interleaved, then failover and memory.
pub fn table(options: &Options) -> Result<(), String> {
    let mut clusters = Vec::new();
    for kind in &options.servers {
        eprintln!("starting and filling {}", kind.name());
        let cluster = Cluster::start(*kind, kind.nodes(), &options.raftkv, &options.data)?;
        fill(&cluster, &options.work)?;
        cluster.signal_all(Signal::STOP);
        clusters.push(cluster);
    }
    let loads = loads(&options.work);
    let mut rounds: Vec<Vec<Vec<Round>>> = vec![vec![Vec::new(); clusters.len()]; loads.len()];
    for round in 0..options.rounds {
        for (at, (work, kinds)) in loads.iter().enumerate() {
            for (number, cluster) in clusters.iter().enumerate() {
                if !kinds.contains(&cluster.kind) {
                    continue;
                }
                // The others sleep, so that what they do when idle costs nobody.
                cluster.signal_all(Signal::CONT);
                cluster.await_writable()?;
                let measured = measure(cluster, work)?;
                cluster.signal_all(Signal::STOP);
                let name = cluster.kind.name();
                let line = report::row(&describe(work), name, std::slice::from_ref(&measured));
                eprintln!("round {}: {line}", round + 1);
                rounds[at][number].push(measured);
            }
        }
    }
    println!("{}", report::HEADER);
    for ((work, _), rounds) in loads.iter().zip(&rounds) {
        for (cluster, rounds) in
            clusters.iter().zip(rounds).filter(|(_, rounds)| !rounds.is_empty())
        {
            println!("{}", report::row(&describe(work), cluster.kind.name(), rounds));
        }
    }
    ratios(&loads, &clusters, &rounds);
    drop(clusters);
    failover::compare(options)?;
    memory(options)
}

/// Ours by theirs, from the medians.
fn ratios(loads: &[(Work, Vec<Kind>)], clusters: &[Cluster], rounds: &[Vec<Vec<Round>>]) {
    let Some(ours) = clusters.iter().position(|cluster| cluster.kind == Kind::Raftkv) else {
        return;
    };
    println!("\n| load | against | op/s | p50 | p99 | server CPU | disk bytes a node |");
    println!("|---|---|---:|---:|---:|---:|---:|");
    for ((work, _), rounds) in loads.iter().zip(rounds) {
        for (cluster, theirs) in clusters.iter().zip(rounds) {
            if cluster.kind == Kind::Raftkv || theirs.is_empty() {
                continue;
            }
            let ratio =
                |what: fn(&Round) -> f64| median_of(&rounds[ours], what) / median_of(theirs, what);
            println!(
                "| {} | {} | {:.2} x | {:.2} x | {:.2} x | {:.2} x | {:.2} x |",
                describe(work),
                cluster.kind.name(),
                ratio(|round| round.per_second),
                ratio(|round| round.p50_us),
                ratio(|round| round.p99_us),
                ratio(|round| round.cpu_us),
                ratio(|round| round.disk_bytes),
            );
        }
    }
    println!();
}

/// `memory`: idle, with a million keys, and how long a restart with them takes.
pub fn memory(options: &Options) -> Result<(), String> {
    if let Ok(metadata) = fs::metadata(&options.raftkv) {
        println!("binary: {} bytes", metadata.len());
    }
    for kind in &options.servers {
        let mut cluster = Cluster::start(*kind, kind.nodes(), &options.raftkv, &options.data)?;
        std::thread::sleep(SETTLING);
        println!("{}: idle, KiB: {:?}", kind.name(), cluster.resident_kib());
        // A million of these take minutes with the two others, and peers.md has them.
        if !matches!(kind, Kind::Raftkv | Kind::Redis) {
            continue;
        }
        let speed = fill(&cluster, &Work { keys: MILLION, ..options.work.clone() })?;
        std::thread::sleep(SETTLING);
        let resident = cluster.resident_kib();
        println!("{}: a million keys, KiB: {resident:?}, filled at {speed:.0}/s", kind.name());
        let mut times = Vec::new();
        for _ in 0..3 {
            times.push(restart(&mut cluster)?);
        }
        println!("{}", report::times(&format!("{}: restart with them", kind.name()), &times));
    }
    Ok(())
}

/// From the start of a node that was killed, not the leader if there are others, to a write over it.
fn restart(cluster: &mut Cluster) -> Result<Duration, String> {
    let leader = cluster.leader().ok_or("nobody leads")?;
    let victim = (leader + 1) % cluster.addresses().len();
    cluster.kill(victim);
    let begun = Instant::now();
    cluster.spawn(victim)?;
    while cluster.try_put(victim, b"restarted", Duration::from_secs(1)).is_err() {
        if begun.elapsed() > RESTART_PATIENCE {
            return Err(format!("{} does not come back", cluster.kind.name()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(begun.elapsed())
}
