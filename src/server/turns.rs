//! How long the turns of the loop take, and in a slow one, what took so long: a disk that does not sync in time
//! is another matter than work that this program should have cut into pieces.

use super::histogram::{DiskTime, Histogram, SECONDS};
use crate::protocol::exposition::Decimal;
use std::time::{Duration, Instant};

/// A turn that takes longer is worth a line.
const SLOW_TURN: Duration = Duration::from_millis(50);
/// The least time between two such lines.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// What a turn consisted of.
#[derive(Debug, Clone, Copy, Default)]
pub struct Phases {
    /// Reading and taking in what arrived, from the end of the wait on.
    pub input: Duration,
    /// Storing it, carrying out what is committed, a piece of a snapshot.
    pub flush: Duration,
    /// Reading from those who were held back, and sending.
    pub output: Duration,
    /// Of all of these, waiting for the disk.
    pub disk: DiskTime,
}

impl Phases {
    fn whole(self) -> Duration {
        self.input + self.flush + self.output
    }

    /// Without the syncs, which take as long as the disk takes.
    pub fn unsynced(self) -> Duration {
        self.whole().saturating_sub(self.disk.syncs)
    }

    fn in_words(self) -> String {
        format!(
            "a turn took {} ms: {} of input, {} of flush, {} of output; {} of it in syncs, {} in other work of \
             the disk",
            self.whole().as_millis(),
            self.input.as_millis(),
            self.flush.as_millis(),
            self.output.as_millis(),
            self.disk.syncs.as_millis(),
            self.disk.files.as_millis()
        )
    }
}

#[derive(Debug)]
pub struct Turns {
    pub all: Histogram,
    pub unsynced: Histogram,
    pub slowest: Duration,
    pub slowest_unsynced: Duration,
    told: Option<Instant>,
    /// Slow ones since then.
    untold: u64,
}

impl Turns {
    pub fn new() -> Self {
        Turns {
            all: Histogram::new(&SECONDS),
            unsynced: Histogram::new(&SECONDS),
            slowest: Duration::ZERO,
            slowest_unsynced: Duration::ZERO,
            told: None,
            untold: 0,
        }
    }

    /// Returns a line for the log, if there is one to be said.
    pub fn ended(&mut self, phases: Phases, now: Instant) -> Option<String> {
        let (whole, unsynced) = (phases.whole(), phases.unsynced());
        self.all.observe(Decimal::seconds(whole));
        self.unsynced.observe(Decimal::seconds(unsynced));
        self.slowest = self.slowest.max(whole);
        self.slowest_unsynced = self.slowest_unsynced.max(unsynced);
        if whole < SLOW_TURN {
            return None;
        }
        if self.told.is_some_and(|told| now - told < TOLD_EVERY) {
            self.untold += 1;
            return None;
        }
        self.told = Some(now);
        let words = phases.in_words();
        Some(match std::mem::take(&mut self.untold) {
            0 => words,
            untold => format!("{words} (and {untold} slow ones since the last line like this)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_slow_turn_is_told_with_its_parts_and_not_too_often() {
        let mut turns = Turns::new();
        let start = Instant::now();
        let disk = DiskTime { syncs: 45 * MS, files: 4 * MS };
        let slow = Phases { input: 2 * MS, flush: 55 * MS, output: 6 * MS, disk };
        let fast = Phases { flush: SLOW_TURN - MS, ..Phases::default() };
        let told = turns.ended(slow, start).expect("the first one");
        let words = "a turn took 63 ms: 2 of input, 55 of flush, 6 of output; 45 of it in syncs, 4 in other work of \
                     the disk";
        assert_eq!(told, words);
        for turn in [slow, slow, fast] {
            assert_eq!(turns.ended(turn, start + TOLD_EVERY - MS), None);
        }
        let told = turns.ended(slow, start + TOLD_EVERY);
        let more = format!("{words} (and 2 slow ones since the last line like this)");
        assert_eq!(told, Some(more));
        assert_eq!((turns.slowest, turns.slowest_unsynced), (63 * MS, SLOW_TURN - MS));
    }
}
