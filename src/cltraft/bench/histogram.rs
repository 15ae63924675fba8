//! Latencies, counted in buckets that are narrow where values are small: as in HdrHistogram, each power of two
//! is split evenly, so that a quantile is off by less than two in a hundred whatever its size, and memory is
//! the same for a thousand values as for a billion.

use std::time::Duration;

/// Each power of two is split into 2 to the power of this.
const SPLIT_BITS: u32 = 6;
const SPLIT: u64 = 1 << SPLIT_BITS;
/// Up to the longest time in nanoseconds that a `u64` holds.
const BUCKETS: usize = ((64 - SPLIT_BITS as usize) + 1) * SPLIT as usize;

#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    /// In nanoseconds.
    sum: u128,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; BUCKETS], count: 0, sum: 0, max: 0 }
    }
}

/// Values below `SPLIT` have a bucket each; above, the highest bit says which block, and the bits after it where
/// in it.
fn bucket_of(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(SPLIT_BITS + 1);
    // Of a value at least as large as `SPLIT`, this has its highest bit at that place.
    let in_block = nanos >> shift;
    (u64::from(shift) * SPLIT + in_block) as usize
}

/// The largest value of a bucket.
fn last_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * SPLIT {
        return bucket;
    }
    let shift = bucket / SPLIT - 1;
    let in_block = bucket % SPLIT + SPLIT;
    // All bits below are ones.
    (in_block << shift) | ((1 << shift) - 1)
}

impl Histogram {
    pub fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket_of(nanos)] += 1;
        self.count += 1;
        self.sum += u128::from(nanos);
        self.max = self.max.max(nanos);
    }

    pub fn add(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    pub fn mean(&self) -> Duration {
        let mean = self.sum.checked_div(u128::from(self.count)).unwrap_or(0);
        Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// The least value that this part of all values does not exceed, rounded up to its bucket's end.
    pub fn quantile(&self, part: f64) -> Duration {
        let rank = ((part * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut below = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= rank {
                return Duration::from_nanos(last_of(bucket).min(self.max));
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_gaps() {
        for bucket in 1..BUCKETS {
            let (before, last) = (last_of(bucket - 1), last_of(bucket));
            assert!(before < last, "{bucket}");
            assert_eq!((bucket_of(before + 1), bucket_of(last)), (bucket, bucket));
        }
        assert_eq!((bucket_of(0), last_of(BUCKETS - 1)), (0, u64::MAX));
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values_but_for_the_rounding() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut values: Vec<u64> = (0..10_000).map(|_| 1 << rng.u64(0..40)).collect();
        values.iter_mut().for_each(|value| *value += rng.u64(0..*value));
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        for (at, value) in values.iter().enumerate() {
            let half = if at % 2 == 0 { &mut one } else { &mut other };
            half.record(Duration::from_nanos(*value));
        }
        one.add(&other);
        values.sort_unstable();
        for part in [0.0, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let rank = ((part * 10_000.0_f64).ceil() as usize).max(1);
            let (exact, told) = (values[rank - 1], one.quantile(part).as_nanos() as u64);
            assert!(told >= exact && told - exact <= exact / SPLIT, "{part}: {told} for {exact}");
        }
        assert_eq!(one.max().as_nanos() as u64, values[9_999]);
        assert_eq!(one.count(), 10_000);
        let mean = values.iter().map(|value| u128::from(*value)).sum::<u128>() / 10_000;
        assert_eq!(one.mean().as_nanos(), mean);
    }

    #[test]
    fn nothing_at_all_is_zero() {
        let empty = Histogram::default();
        assert_eq!((empty.quantile(0.99), empty.mean()), (Duration::ZERO, Duration::ZERO));
    }
}
