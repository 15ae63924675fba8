//! Counting without allocating: a few numbers for each turn of the loop, read when somebody asks.

use super::page::Times;
use crate::protocol::exposition::{Buckets, Decimal};
use crate::wal::Disk;
use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

pub const BUCKETS: usize = 16;

/// From what a fast disk takes to what costs a leader its office.
pub const SECONDS: [Decimal; BUCKETS] = micros([
    100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
]);
pub const ENTRIES: [Decimal; BUCKETS] = powers_of_two(1);
pub const BYTES: [Decimal; BUCKETS] = powers_of_two(64);

const fn micros(values: [u64; BUCKETS]) -> [Decimal; BUCKETS] {
    let mut bounds = [Decimal::whole(0); BUCKETS];
    let mut at = 0;
    while at < BUCKETS {
        bounds[at] = Decimal::seconds(Duration::from_micros(values[at]));
        at += 1;
    }
    bounds
}

const fn powers_of_two(first: u64) -> [Decimal; BUCKETS] {
    let mut bounds = [Decimal::whole(0); BUCKETS];
    let mut at = 0;
    while at < BUCKETS {
        bounds[at] = Decimal::whole(first << at);
        at += 1;
    }
    bounds
}

#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [Decimal; BUCKETS],
    /// Values up to each bound that are above the one before.
    counts: [u64; BUCKETS],
    count: u64,
    sum: Decimal,
}

impl Histogram {
    pub const fn new(bounds: &'static [Decimal; BUCKETS]) -> Self {
        Histogram { bounds, counts: [0; BUCKETS], count: 0, sum: Decimal::whole(0) }
    }

    pub fn observe(&mut self, value: Decimal) {
        if let Some(at) = self.bounds.iter().position(|bound| value <= *bound) {
            self.counts[at] += 1;
        }
        self.count += 1;
        self.sum += value;
    }

    pub fn buckets(&self) -> Buckets<'_> {
        Buckets { bounds: self.bounds, counts: &self.counts, count: self.count, sum: self.sum }
    }
}

/// How long syncs took.
pub type Syncs = Rc<RefCell<SyncTimes>>;

#[derive(Debug)]
pub struct SyncTimes {
    /// All of them, in seconds.
    pub all: Histogram,
    /// Those since the last sample.
    pub lately: Times,
    /// What the disk has taken since the present turn began.
    turn: DiskTime,
    /// What of it went to writes that no sync has followed.
    writes: Duration,
}

/// Time that a turn waits for the disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskTime {
    /// A sync has the writes with it that it is for: past the page cache, they wait for the disk as well.
    pub syncs: Duration,
    /// What else there is of writing, reading, making and removing files.
    pub files: Duration,
}

impl SyncTimes {
    fn new() -> Self {
        SyncTimes {
            all: Histogram::new(&SECONDS),
            lately: Times::default(),
            turn: DiskTime::default(),
            writes: Duration::ZERO,
        }
    }

    /// Ends a turn: the next one begins with nothing.
    pub fn take_turn(&mut self) -> DiskTime {
        self.writes = Duration::ZERO;
        std::mem::take(&mut self.turn)
    }

    fn synced(&mut self, sync: Duration) {
        let writes = std::mem::take(&mut self.writes);
        let took = writes + sync;
        self.all.observe(Decimal::seconds(took));
        self.lately.observe(took);
        self.turn.syncs += took;
        self.turn.files -= writes;
    }

    fn written(&mut self, write: Duration) {
        self.writes += write;
        self.turn.files += write;
    }
}

/// A disk whose syncs are timed. The log itself knows no clock.
pub struct TimedDisk<D> {
    disk: D,
    syncs: Syncs,
}

impl<D: Disk> TimedDisk<D> {
    pub fn new(disk: D) -> (Self, Syncs) {
        let syncs = Rc::new(RefCell::new(SyncTimes::new()));
        (TimedDisk { disk, syncs: Rc::clone(&syncs) }, syncs)
    }

    fn timed<T>(&mut self, sync: impl FnOnce(&mut D) -> T) -> T {
        let begun = Instant::now();
        let result = sync(&mut self.disk);
        self.syncs.borrow_mut().synced(begun.elapsed());
        result
    }

    /// What is no sync.
    fn worked<T>(&mut self, work: impl FnOnce(&mut D) -> T) -> T {
        let begun = Instant::now();
        let result = work(&mut self.disk);
        self.worked_since(begun);
        result
    }

    #[inline(never)]
    fn worked_since(&self, begun: Instant) {
        self.syncs.borrow_mut().turn.files += begun.elapsed();
    }
}

impl<D: Disk> Disk for TimedDisk<D> {
    type File = D::File;

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.disk.read(name)
    }

    fn read_at(&self, name: &str, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let begun = Instant::now();
        let result = self.disk.read_at(name, offset, bytes);
        self.worked_since(begun);
        result
    }

    fn create(&mut self, name: &str, bytes: u64) -> io::Result<Self::File> {
        self.worked(|disk| disk.create(name, bytes))
    }

    fn open(&mut self, name: &str, bytes: u64) -> io::Result<Self::File> {
        self.worked(|disk| disk.open(name, bytes))
    }

    // In one copy, and not in each of the dozens that ask for it; the same below.
    #[inline(never)]
    fn write_at(&mut self, file: &mut Self::File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let begun = Instant::now();
        let result = self.disk.write_at(file, offset, bytes);
        self.syncs.borrow_mut().written(begun.elapsed());
        result
    }

    fn start_writing(&mut self, file: &mut Self::File, offset: u64, bytes: usize) {
        self.worked(|disk| disk.start_writing(file, offset, bytes));
    }

    #[inline(never)]
    fn sync_data(&mut self, file: &mut Self::File) -> io::Result<()> {
        self.timed(|disk| disk.sync_data(file))
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.worked(|disk| disk.rename(from, to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.worked(|disk| disk.remove(name))
    }

    fn free_some(&mut self) -> io::Result<()> {
        self.worked(Disk::free_some)
    }

    fn leaving_bytes(&self) -> u64 {
        self.disk.leaving_bytes()
    }

    #[inline(never)]
    fn sync_dir(&mut self) -> io::Result<()> {
        self.timed(Disk::sync_dir)
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        self.disk.free_bytes()
    }

    #[inline(never)]
    fn path(&self, name: &str) -> PathBuf {
        self.disk.path(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_up_to_the_first_bound_that_is_not_below_it() {
        let mut histogram = Histogram::new(&ENTRIES);
        let thousandths = |count| Decimal::seconds(Duration::from_millis(count));
        for value in [0, 1000, 1500, 2000, 32_768_000, 32_769_000].map(thousandths) {
            histogram.observe(value);
        }
        assert_eq!(histogram.counts[..2], [2, 2]);
        assert_eq!(histogram.counts[BUCKETS - 1], 1);
        assert_eq!(histogram.counts.iter().sum::<u64>(), 5, "one is above all bounds");
        assert_eq!((histogram.count, histogram.sum), (6, thousandths(65_541_500)));
    }

    #[test]
    fn a_sync_has_the_writes_of_its_turn_with_it() {
        let ms = Duration::from_millis;
        let mut times = SyncTimes::new();
        times.written(ms(1));
        times.written(ms(2));
        times.synced(ms(4));
        times.synced(ms(8));
        times.written(ms(16));
        let DiskTime { syncs, files } = times.take_turn();
        assert_eq!((syncs, files), (ms(15), ms(16)));
        times.synced(ms(32));
        let DiskTime { syncs, files } = times.take_turn();
        assert_eq!((syncs, files), (ms(32), Duration::ZERO), "that write was told already");
        assert_eq!((times.all.count, times.all.sum), (3, Decimal::seconds(ms(47))));
    }

    #[test]
    fn bounds_ascend() {
        for bounds in [SECONDS, ENTRIES, BYTES] {
            assert!(bounds.is_sorted_by(|one, next| one < next), "{bounds:?}");
        }
        assert_eq!(ENTRIES[BUCKETS - 1], Decimal::whole(32_768));
        assert_eq!(BYTES[BUCKETS - 1], Decimal::whole(2_097_152));
    }
}
