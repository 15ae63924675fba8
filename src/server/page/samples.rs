//! The last minutes in numbers, one sample a second, for the plots of the page.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Samples that are kept, one a second: five minutes.
pub const SAMPLES_MAX: usize = 300;
const PERIOD: Duration = Duration::from_secs(1);
/// A quarter of an octave each, from a microsecond to more than two minutes.
const BUCKETS: usize = 4 * 28;

/// What happened in one second. Times are in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// The end of it, in seconds since the Unix epoch.
    pub at: u64,
    /// Log entries that were committed.
    pub writes: u64,
    pub reads: u64,
    pub request_p50: u32,
    pub request_p99: u32,
    pub sync_p50: u32,
    pub sync_p99: u32,
    pub sync_max: u32,
    pub turn_max: u32,
    /// Of turns without their syncs.
    pub unsynced_max: u32,
    pub commit_index: u64,
    pub applied: u64,
    pub log_bytes: u64,
}

impl Sample {
    pub const FIELDS: [&str; 13] = [
        "at",
        "writes",
        "reads",
        "request_p50_us",
        "request_p99_us",
        "sync_p50_us",
        "sync_p99_us",
        "sync_max_us",
        "turn_max_us",
        "turn_unsynced_max_us",
        "commit_index",
        "applied",
        "log_bytes",
    ];

    /// In the order of `FIELDS`.
    pub fn values(&self) -> [u64; Sample::FIELDS.len()] {
        [
            self.at,
            self.writes,
            self.reads,
            u64::from(self.request_p50),
            u64::from(self.request_p99),
            u64::from(self.sync_p50),
            u64::from(self.sync_p99),
            u64::from(self.sync_max),
            u64::from(self.turn_max),
            u64::from(self.unsynced_max),
            self.commit_index,
            self.applied,
            self.log_bytes,
        ]
    }
}

/// Times since the last sample, each to within a fifth.
#[derive(Debug)]
pub struct Times {
    counts: [u32; BUCKETS],
    count: u64,
    max_us: u32,
}

impl Default for Times {
    fn default() -> Self {
        Times { counts: [0; BUCKETS], count: 0, max_us: 0 }
    }
}

impl Times {
    pub fn observe(&mut self, time: Duration) {
        let us = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        self.counts[bucket(us)] += 1;
        self.count += 1;
        self.max_us = self.max_us.max(us);
    }

    pub fn max_us(&self) -> u32 {
        self.max_us
    }

    /// No less than so many of a hundred of the times, in microseconds; 0 if there are none.
    pub fn percentile_us(&self, percent: u64) -> u32 {
        let wanted = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let at = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        });
        at.map_or(0, |at| upper_us(at).min(self.max_us))
    }
}

fn bucket(us: u32) -> usize {
    if us < 4 {
        return us as usize;
    }
    let octave = us.ilog2() as usize;
    let quarter = (us >> (octave - 2)) as usize & 3;
    (4 * (octave - 1) + quarter).min(BUCKETS - 1)
}

/// The longest time of a bucket; the last one has no end.
fn upper_us(at: usize) -> u32 {
    match at {
        0..4 => at as u32,
        _ if at == BUCKETS - 1 => u32::MAX,
        _ => ((5 + (at as u32 & 3)) << (at / 4 - 1)) - 1,
    }
}

/// Totals of what only grows: a sample has what they grew by.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// What is committed as far as this node has heard; 0: it has heard nothing.
    pub writes: u64,
    /// Reads of all clients, that this node confirmed because it leads.
    pub led_reads: u64,
    /// Reads of this node's own clients.
    pub own_reads: u64,
    /// Whether it leads: its own clients' reads are among all of them then.
    pub leads: bool,
}

impl Totals {
    /// Writes and reads.
    fn since(self, before: Totals) -> (u64, u64) {
        // The first word of a leader is no burst of writes.
        let writes = match before.writes {
            0 => 0,
            writes => self.writes.saturating_sub(writes),
        };
        let reads = match self.leads {
            true => self.led_reads.saturating_sub(before.led_reads),
            false => self.own_reads.saturating_sub(before.own_reads),
        };
        (writes, reads)
    }
}

#[derive(Debug, Default)]
pub struct Samples {
    ring: VecDeque<Sample>,
    due: Option<Instant>,
    before: Totals,
    pub requests: Times,
    pub turns: Times,
    /// Turns without their syncs.
    pub unsynced: Times,
}

impl Samples {
    pub fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| now >= due)
    }

    /// `sample` has what is not counted here. After a pause of the process there is a gap, and not a second in
    /// which very much happened.
    pub fn take(&mut self, mut sample: Sample, totals: Totals, syncs: &mut Times, now: Instant) {
        let is_first = self.due.is_none();
        let is_late = self.due.is_some_and(|due| now >= due + PERIOD);
        self.due = match self.due {
            Some(due) if !is_late => Some(due + PERIOD),
            _ => Some(now + PERIOD),
        };
        let before = std::mem::replace(&mut self.before, totals);
        let requests = std::mem::take(&mut self.requests);
        let turns = std::mem::take(&mut self.turns);
        let unsynced = std::mem::take(&mut self.unsynced);
        let syncs = std::mem::take(syncs);
        if is_first {
            return;
        }
        if !is_late {
            (sample.writes, sample.reads) = totals.since(before);
        }
        sample.request_p50 = requests.percentile_us(50);
        sample.request_p99 = requests.percentile_us(99);
        sample.sync_p50 = syncs.percentile_us(50);
        sample.sync_p99 = syncs.percentile_us(99);
        sample.sync_max = syncs.max_us();
        sample.turn_max = turns.max_us();
        sample.unsynced_max = unsynced.max_us();
        if self.ring.len() >= SAMPLES_MAX {
            self.ring.pop_front();
        } else if self.ring.is_empty() {
            // Growing by itself, it would take twice as much.
            self.ring.reserve_exact(SAMPLES_MAX);
        }
        self.ring.push_back(sample);
    }

    /// The newest so many, the oldest of them first.
    pub fn newest(&self, count: usize) -> impl Iterator<Item = &Sample> {
        self.ring.iter().skip(self.ring.len().saturating_sub(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_falls_into_a_bucket_that_reaches_it_by_a_quarter_at_most() {
        let mut us = 0_u32;
        while us < 1 << 27 {
            let (at, upper) = (bucket(us), upper_us(bucket(us)));
            assert!(us <= upper && upper <= us + us / 4, "{us} in {at} up to {upper}");
            assert!(us == 0 || bucket(us) >= bucket(us - 1));
            us += 1 + us / 100;
        }
        assert_eq!(bucket(u32::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_what_was_observed() {
        let mut times = Times::default();
        assert_eq!(times.percentile_us(99), 0, "nothing was observed");
        for ms in 1..=100 {
            times.observe(Duration::from_millis(ms));
        }
        let close = |got: u32, ms: u32| got >= ms * 1000 && got <= ms * 1250;
        assert!(close(times.percentile_us(50), 50), "{}", times.percentile_us(50));
        assert!(times.percentile_us(99) <= 100_000, "never more than the longest");
        assert!(close(times.percentile_us(99), 99), "{}", times.percentile_us(99));
        assert_eq!((times.percentile_us(100), times.max_us()), (100_000, 100_000));
        times.observe(Duration::from_secs(1 << 40));
        assert_eq!(times.percentile_us(100), u32::MAX, "longer than can be told");
    }

    fn take(samples: &mut Samples, writes: u64, now: Instant) {
        let totals = Totals { writes, ..Totals::default() };
        samples.take(Sample::default(), totals, &mut Times::default(), now);
    }

    #[test]
    fn a_sample_has_what_a_second_brought_and_five_minutes_are_kept() {
        let (mut samples, start) = (Samples::default(), Instant::now());
        for second in 0..=SAMPLES_MAX as u32 + 5 {
            let now = start + PERIOD * second;
            assert!(samples.is_due(now));
            take(&mut samples, 100 + 10 * u64::from(second), now);
            assert!(!samples.is_due(now + PERIOD / 2));
        }
        assert_eq!(samples.newest(usize::MAX).count(), SAMPLES_MAX);
        assert!(samples.newest(usize::MAX).all(|sample| sample.writes == 10), "nor the first 100");
        assert_eq!(samples.newest(3).count(), 3);
    }

    #[test]
    fn what_came_in_a_pause_of_the_process_is_not_counted_for_one_second() {
        let (mut samples, start) = (Samples::default(), Instant::now());
        take(&mut samples, 1, start);
        take(&mut samples, 50_000, start + PERIOD * 10);
        take(&mut samples, 50_007, start + PERIOD * 11);
        let writes: Vec<u64> = samples.newest(2).map(|sample| sample.writes).collect();
        assert_eq!(writes, [0, 7]);
    }

    #[test]
    fn reads_are_those_of_all_clients_at_a_leader_and_else_of_the_own_ones() {
        let before = Totals { led_reads: 5, own_reads: 5, ..Totals::default() };
        let after = Totals { writes: 1000, led_reads: 45, own_reads: 15, leads: true };
        assert_eq!(after.since(before), (0, 40), "and what was committed before is no burst");
        assert_eq!(Totals { leads: false, ..after }.since(before), (0, 10));
    }
}
