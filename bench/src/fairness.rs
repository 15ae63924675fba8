//! What 63 ordinary clients get beside one that takes all it can.
//!
//! Everything runs on one machine: what a greedy client costs in processor time it takes from the others as well,
//! whatever the servers do.

use crate::Options;
use crate::crowd::{Greed, Greedy, LARGE_BYTES, LARGE_KEY};
use crate::load::{self, Mark, Measured, Work};
use crate::servers::{Cluster, Kind};
use crate::suite::fill;
use crate::turns::Turns;
use crate::wire::{Step, command};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const CLIENTS: usize = 63;

const HEADER: &str = "\
| beside 63 clients with SETs | op/s | p50 ms | p99 ms | p99.9 ms | worst ms | op of the slowest client / the median | greedy: answers/s | errors/s | longest turn of each node |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---|";

pub fn run(options: &Options) -> Result<(), String> {
    let cluster = Cluster::start(Kind::Raftkv, 3, &options.raftkv, &options.data)?;
    fill(&cluster, &options.work)?;
    let leader = cluster.leader().ok_or("nobody leads")?;
    put_large(cluster.addresses()[leader])?;
    println!("{HEADER}");
    let greeds = std::iter::once(None).chain(Greed::ALL.into_iter().map(Some));
    for greed in greeds {
        let name = greed.map_or("nobody", Greed::name);
        if name.contains(&options.only) {
            part(&cluster, leader, &options.work, greed, name)?;
        }
    }
    Ok(())
}

fn part(
    cluster: &Cluster,
    leader: usize,
    base: &Work,
    greed: Option<Greed>,
    name: &str,
) -> Result<(), String> {
    let nodes = cluster.addresses();
    let work = Work { clients: CLIENTS, pipeline: 1, rate: None, ..base.clone() };
    let greedy = greed.map(|greed| Greedy::start(greed, nodes[leader])).transpose()?;
    let counts = || greedy.as_ref().map_or((0, 0), Greedy::counts);
    let mut turns = None;
    let (mut begin, mut end) = ((0, 0), (0, 0));
    let wire = || cluster.kind.wire();
    let measured = load::drive(&[nodes[leader]], &wire, &work, &mut |mark| match mark {
        Mark::Begin => (turns, begin) = (Some(Turns::of(&nodes)), counts()),
        Mark::End => end = counts(),
    })?;
    let turns = turns.map(|before| Turns::of(&nodes).since(&before)).unwrap_or_default();
    let per_second = |what: u64| what as f64 / measured.seconds;
    println!(
        "| {name} | {} | {:.0} | {:.0} | {turns} |",
        row(&measured),
        per_second(end.0 - begin.0),
        per_second(end.1 - begin.1),
    );
    if let Some(greedy) = greedy {
        greedy.stop();
    }
    Ok(())
}

fn row(measured: &Measured) -> String {
    let at = |quantile| measured.latency.value_at_quantile(quantile) as f64 / 1e3;
    let mut shares = measured.per_client.clone();
    shares.sort_unstable();
    format!(
        "{:.0} | {:.2} | {:.2} | {:.2} | {:.1} | {} / {}",
        measured.per_second(),
        at(0.5),
        at(0.99),
        at(0.999),
        measured.latency.max() as f64 / 1e3,
        shares[0],
        shares[shares.len() / 2],
    )
}

/// The large value that is read.
pub fn put_large(target: SocketAddr) -> Result<(), String> {
    let mut stream = TcpStream::connect(target).map_err(|error| error.to_string())?;
    let patience = Some(Duration::from_secs(10));
    stream.set_read_timeout(patience).map_err(|error| error.to_string())?;
    let (mut out, mut answer) = (Vec::new(), [0; 64]);
    command(&[b"SET", LARGE_KEY, &vec![b'v'; LARGE_BYTES]], &mut out);
    stream.write_all(&out).map_err(|error| error.to_string())?;
    let count = stream.read(&mut answer).map_err(|error| error.to_string())?;
    match Kind::Raftkv.wire().step(&answer[..count], &mut out)? {
        Step::Answer { result, .. } => result,
        _ => Err("half an answer".to_string()),
    }
}
