//! How raftkv grows with the size of values, and the number of clients, nodes and keys: a table, and a plot as SVG.

use crate::Options;
use crate::load::Work;
use crate::plot::{Line, Plot};
use crate::report::{self, Round, median_of};
use crate::servers::{Cluster, Kind};
use crate::suite::{fill, measure};
use std::fs;

/// Bytes of all values together, at most: with large values there are fewer keys.
const VALUES_BYTES_MAX: usize = 256 << 20;

struct Point {
    x: f64,
    rounds: Vec<Round>,
}

pub fn run(options: &Options) -> Result<(), String> {
    let base = &options.work;
    let (title, points) = match options.by.as_str() {
        "values" => {
            let sizes = [16, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
            let works = sizes.map(|value_bytes| {
                let keys = base.keys.min((VALUES_BYTES_MAX / value_bytes) as u64);
                (value_bytes as f64, Work { value_bytes, keys, ..base.clone() })
            });
            ("bytes of a value", each_alone(options, 3, &works)?)
        }
        "clients" => {
            let numbers = [1, 4, 16, 64, 256, 1000, 4000, 10_000];
            let works = numbers.map(|clients| (clients as f64, Work { clients, ..base.clone() }));
            ("clients", together(options, &works)?)
        }
        "nodes" => {
            let mut points = Vec::new();
            for nodes in [1, 3, 5, 7] {
                points.extend(each_alone(options, nodes, &[(nodes as f64, base.clone())])?);
            }
            ("nodes", points)
        }
        "keys" => {
            // Small values, so that ten million of them on three nodes fit into memory.
            let numbers = [10_000, 100_000, 1_000_000, 10_000_000];
            let works =
                numbers.map(|keys| (keys as f64, Work { keys, value_bytes: 16, ..base.clone() }));
            ("keys", each_alone(options, 3, &works)?)
        }
        other => return Err(format!("there is no sweep by {other}; see --help")),
    };
    print(title, &points);
    draw(options, title, &points)
}

fn each_alone(
    options: &Options,
    nodes: usize,
    works: &[(f64, Work)],
) -> Result<Vec<Point>, String> {
    let one = |(x, work): &(f64, Work)| {
        let cluster = Cluster::start(Kind::Raftkv, nodes, &options.raftkv, &options.data)?;
        fill(&cluster, work)?;
        Ok(Point { x: *x, rounds: rounds(options, &cluster, work)? })
    };
    works.iter().map(one).collect()
}

fn together(options: &Options, works: &[(f64, Work)]) -> Result<Vec<Point>, String> {
    let nodes = options.nodes.unwrap_or(3);
    let cluster = Cluster::start(Kind::Raftkv, nodes, &options.raftkv, &options.data)?;
    fill(&cluster, &works[0].1)?;
    let one =
        |(x, work): &(f64, Work)| Ok(Point { x: *x, rounds: rounds(options, &cluster, work)? });
    works.iter().map(one).collect()
}

fn rounds(options: &Options, cluster: &Cluster, work: &Work) -> Result<Vec<Round>, String> {
    (0..options.rounds).map(|_| measure(cluster, work)).collect()
}

fn print(title: &str, points: &[Point]) {
    println!("by {title}");
    println!("{}", report::HEADER);
    for point in points {
        println!("{}", report::row(&format!("{} {title}", point.x), "raftkv", &point.rounds));
    }
}

fn draw(options: &Options, title: &str, points: &[Point]) -> Result<(), String> {
    let Some(file) = &options.plot else { return Ok(()) };
    let line = |name: &str, what: fn(&Round) -> f64| Line {
        name: name.to_string(),
        points: points.iter().map(|point| (point.x, median_of(&point.rounds, what))).collect(),
    };
    let plots = [
        Plot {
            title: "operations a second".to_string(),
            x: title.to_string(),
            lines: vec![line("SET", |round| round.per_second)],
        },
        Plot {
            title: "latency in milliseconds".to_string(),
            x: title.to_string(),
            lines: vec![
                line("median", |round| round.p50_us / 1e3),
                line("99 %", |round| round.p99_us / 1e3),
                line("99.9 %", |round| round.p999_us / 1e3),
            ],
        },
    ];
    fs::write(file, crate::plot::svg(&plots))
        .map_err(|error| format!("{}: {error}", file.display()))
}
