//! How the main job goes, for whoever asks from outside: probes, Prometheus, and `nc`.
//!
//! The job writes it down as it goes, and a thread of its own (`probe.rs`) reads it. Time comes in as an
//! argument, so that what is said can be tested.

use crate::client::{Client, Counts};
use crate::lines;
use crate::protocol::exposition::{Decimal, Exposition};
use crate::server::{Histogram, SECONDS};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A verification is fresh for so many intervals, and the time on top that an election and a slow disk may take.
const FRESH_INTERVALS: u32 = 3;
const FRESH_SLACK: Duration = Duration::from_secs(10);
/// The job looks around more often than this, however long the cluster is silent.
const ALIVE_SLACK: Duration = Duration::from_secs(30);

pub struct Health {
    interval: Duration,
    state: Mutex<State>,
}

struct State {
    writes: u64,
    reads: u64,
    mismatches: u64,
    outcome_unknown: u64,
    counts: Counts,
    write_seconds: Histogram,
    read_seconds: Histogram,
    /// By number, and its address.
    leader: Option<(u64, String)>,
    verified_at: Option<Instant>,
    alive_until: Instant,
}

impl Health {
    pub fn new(interval: Duration, now: Instant) -> Self {
        let state = State {
            writes: 0,
            reads: 0,
            mismatches: 0,
            outcome_unknown: 0,
            counts: Counts::default(),
            write_seconds: Histogram::new(&SECONDS),
            read_seconds: Histogram::new(&SECONDS),
            leader: None,
            verified_at: None,
            alive_until: now + ALIVE_SLACK,
        };
        Health { interval, state: Mutex::new(state) }
    }

    /// Nothing in here can be left half done by a panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    // What the job writes down.

    /// The job is about to wait for at most this long.
    pub fn waits(&self, duration: Duration, now: Instant) {
        self.state().alive_until = now + duration + ALIVE_SLACK;
    }

    pub fn wrote(&self, took: Duration) {
        let mut state = self.state();
        state.writes += 1;
        state.write_seconds.observe(Decimal::seconds(took));
    }

    pub fn outcome_unknown(&self) {
        self.state().outcome_unknown += 1;
    }

    pub fn read(&self, took: Duration) {
        let mut state = self.state();
        state.reads += 1;
        state.read_seconds.observe(Decimal::seconds(took));
    }

    pub fn verified(&self, now: Instant) {
        self.state().verified_at = Some(now);
    }

    pub fn mismatch(&self) {
        self.state().mismatches += 1;
    }

    /// What the client library has counted so far.
    pub fn counts(&self, client: &Client) {
        self.state().counts = client.counts();
    }

    /// `None`: nobody answers.
    pub fn leader(&self, leader: Option<(u64, &str)>) {
        self.state().leader = leader.map(|(number, server)| (number, server.to_owned()));
    }

    // What is asked from outside.

    /// Why the job is stuck, if it is.
    pub fn stuck(&self, now: Instant) -> Option<String> {
        let late = now.saturating_duration_since(self.state().alive_until);
        (!late.is_zero())
            .then(|| format!("the job has not turned for {} s", (late + ALIVE_SLACK).as_secs()))
    }

    /// Why the last verification is not fresh, if it is not.
    pub fn stale(&self, now: Instant) -> Option<String> {
        let state = self.state();
        if state.mismatches > 0 {
            return Some("a wrong value was read".to_owned());
        }
        let Some(at) = state.verified_at else {
            return Some("nothing has been verified yet".to_owned());
        };
        let age = now.saturating_duration_since(at);
        let fresh = self.interval.saturating_mul(FRESH_INTERVALS).saturating_add(FRESH_SLACK);
        (age > fresh).then(|| {
            let (age, fresh) = (age.as_secs(), fresh.as_secs());
            format!("the last verification was {age} s ago, more than {fresh} s")
        })
    }

    /// One line.
    pub fn line(&self, now: Instant) -> String {
        let standing = match (self.stuck(now), self.stale(now)) {
            (Some(why), _) => format!("stuck: {why}"),
            (None, Some(why)) => format!("not ready: {why}"),
            (None, None) => "ready".to_owned(),
        };
        let state = self.state();
        let Counts { redirects, timeouts, connections_lost, refusals } = state.counts;
        let errors = timeouts + connections_lost + refusals + state.outcome_unknown;
        let leader = match &state.leader {
            Some((number, server)) => format!("{number} ({server})"),
            None => "none".to_owned(),
        };
        format!(
            "{standing}; writes {}, reads {}, wrong values {}, redirects {redirects}, errors {errors}, \
             leader {leader}\n",
            state.writes, state.reads, state.mismatches
        )
    }

    /// For Prometheus.
    pub fn metrics(&self, now: Instant) -> Vec<u8> {
        let is_fresh = u8::from(self.stale(now).is_none());
        let state = self.state();
        let mut out = Exposition::default();
        let version = env!("CARGO_PKG_VERSION");
        out.info("raftkv_client_build_info", "Version of the client.", &[("version", version)]);
        out.counter("raftkv_client_writes_total", "Writes acknowledged.", state.writes);
        out.counter("raftkv_client_reads_total", "Reads answered.", state.reads);
        let help = "Values read that cannot be right. Anything but 0 is a bug of the cluster.";
        out.counter("raftkv_client_mismatches_total", help, state.mismatches);
        let help = "Answers that named another node as the leader, or none.";
        out.counter("raftkv_client_redirects_total", help, state.counts.redirects);
        let Counts { timeouts, connections_lost, refusals, .. } = state.counts;
        let errors = [
            ("connection", connections_lost),
            ("outcome_unknown", state.outcome_unknown),
            ("refused", refusals),
            ("timeout", timeouts),
        ];
        let help = "Attempts that failed, by kind; and writes given up with an unknown outcome.";
        out.counters("raftkv_client_errors_total", help, "kind", errors);
        let help = "From the first attempt of a write to its acknowledgement.";
        out.histogram("raftkv_client_write_seconds", help, state.write_seconds.buckets());
        let help = "From the first attempt of a read to its answer.";
        out.histogram("raftkv_client_read_seconds", help, state.read_seconds.buckets());
        if let Some((number, server)) = &state.leader {
            let labels = [("leader", number.to_string()), ("address", server.clone())];
            let labels = labels.each_ref().map(|(name, value)| (*name, value.as_str()));
            out.info("raftkv_client_leader_info", "Who answered last as the leader.", &labels);
        }
        let dropped =
            [("stderr", lines::stderr().dropped()), ("stdout", lines::stdout().dropped())];
        let help = "Lines that were not written, because nothing could be written.";
        out.counters("raftkv_client_lines_dropped_total", help, "stream", dropped);
        out.gauge("raftkv_client_ready", "Whether the last verification is fresh.", is_fresh);
        if let Some(at) = state.verified_at {
            let age = Decimal::seconds(now.saturating_duration_since(at));
            let help = "Since the last value that was read and found right.";
            out.gauge("raftkv_client_verification_age_seconds", help, age);
        }
        out.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_whose_last_verification_is_fresh() {
        let start = Instant::now();
        let health = Health::new(Duration::from_secs(2), start);
        assert_eq!(health.stale(start).as_deref(), Some("nothing has been verified yet"));
        health.verified(start);
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(health.stale(after(16)), None);
        let why = "the last verification was 17 s ago, more than 16 s";
        assert_eq!(health.stale(after(17)).as_deref(), Some(why));
        health.mismatch();
        assert_eq!(health.stale(start).as_deref(), Some("a wrong value was read"));
    }

    #[test]
    fn stuck_is_who_does_not_turn() {
        let start = Instant::now();
        let health = Health::new(Duration::from_secs(3600), start);
        health.waits(Duration::from_secs(3600), start);
        assert_eq!(health.stuck(start + Duration::from_secs(3630)), None);
        let late = health.stuck(start + Duration::from_secs(3640));
        assert_eq!(late.as_deref(), Some("the job has not turned for 40 s"));
    }

    #[test]
    fn a_line_for_people() {
        let start = Instant::now();
        let health = Health::new(Duration::ZERO, start);
        health.wrote(Duration::from_millis(1));
        health.read(Duration::from_millis(1));
        health.verified(start);
        health.leader(Some((2, "h:1")));
        let line =
            "ready; writes 1, reads 1, wrong values 0, redirects 0, errors 0, leader 2 (h:1)\n";
        assert_eq!(health.line(start), line);
        health.leader(None);
        assert!(health.line(start).ends_with(", leader none\n"));
    }
}
