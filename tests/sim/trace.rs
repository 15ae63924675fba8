//! What happened in a run, as one number and, if asked for, as lines for people.
//!
//! Every event goes into the hash with all that matters of it: bytes of messages, operations of disks, ticks,
//! answers. Two runs of one seed with different hashes mean that something depends on more than the seed.

use super::world::Micros;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// An odd number with bits all over, to spread what is mixed in.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

pub struct Trace {
    hash: u64,
    is_told: bool,
}

impl Trace {
    /// `is_told`: each event is printed.
    pub fn new(is_told: bool) -> Self {
        Trace { hash: 0, is_told }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// An event in numbers, and in words that cost nothing unless they are printed.
    pub fn event(&mut self, now: Micros, numbers: &[u64], words: impl FnOnce() -> String) {
        self.mix(now);
        numbers.iter().for_each(|number| self.mix(*number));
        self.tell(now, words);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.hash = xxh3_64_with_seed(bytes, self.hash);
    }

    pub fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(SPREAD).rotate_left(29);
    }

    /// Words alone, for what another event already stands for.
    pub fn tell(&self, now: Micros, words: impl FnOnce() -> String) {
        if self.is_told {
            eprintln!("{:>9.3} ms  {}", now as f64 / 1000.0, words());
        }
    }
}
