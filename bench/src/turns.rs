//! How long the loops of raftkv's nodes turned, from their own histograms.

use crate::servers::metrics;
use std::net::SocketAddr;

/// No turn of a loop should be longer.
pub const TURN_SECONDS_MAX: f64 = 0.05;

/// The histogram of one node: turns up to each bound, in seconds; the last bound is without end.
#[derive(Debug, Clone)]
struct Buckets(Vec<(f64, u64)>);

/// Of all nodes, from their start until now.
#[derive(Debug, Clone)]
pub struct Turns(Vec<Buckets>);

impl Turns {
    pub fn of(nodes: &[SocketAddr]) -> Self {
        Turns(nodes.iter().map(|node| Buckets::parse(&metrics(*node))).collect())
    }

    /// For each node: how many turns since `before` were too long, and what the longest was not above.
    pub fn since(&self, before: &Turns) -> String {
        let nodes = self.0.iter().zip(&before.0).map(|(now, before)| now.since(before));
        nodes.collect::<Vec<String>>().join(", ")
    }
}

impl Buckets {
    fn parse(said: &str) -> Self {
        let bucket = |line: &str| {
            let rest = line.strip_prefix("raftkv_loop_turn_seconds_bucket{le=\"")?;
            let (bound, count) = rest.split_once("\"} ")?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            Some((bound, count.trim().parse().ok()?))
        };
        Buckets(said.lines().filter_map(bucket).collect())
    }

    fn since(&self, before: &Buckets) -> String {
        let grown: Vec<(f64, u64)> =
            self.0.iter().zip(&before.0).map(|(now, old)| (now.0, now.1 - old.1)).collect();
        let Some((_, all)) = grown.last().copied() else { return "unknown".to_string() };
        let longest =
            grown.iter().find(|(_, count)| *count == all).map_or(0.0, |(bound, _)| *bound);
        let short = grown.iter().filter(|(bound, _)| *bound <= TURN_SECONDS_MAX).map(|(_, n)| *n);
        let long = all - short.max().unwrap_or(0);
        format!("<={:.0} ms ({long} of {all} too long)", longest * 1e3)
    }
}
