//! Refused connections in the log: each reason once in a while, however often somebody tries.
//!
//! Anybody who reaches the port can be refused as often as he likes, and for as many reasons as he can think
//! of. Neither may fill the log.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Different refusals that are remembered, and so can be logged within `SILENCE`.
const TOLD_MAX: usize = 16;
/// The same refusal is not logged again for so long.
const SILENCE: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
pub struct Refusals {
    /// What was logged, and when.
    told: BTreeMap<String, Instant>,
}

impl Refusals {
    /// Whether this is worth a line.
    pub fn is_news(&mut self, what: &str, now: Instant) -> bool {
        if self.told.contains_key(what) || self.told.len() >= TOLD_MAX {
            self.told.retain(|_, at| now.saturating_duration_since(*at) < SILENCE);
        }
        if self.told.contains_key(what) || self.told.len() >= TOLD_MAX {
            return false;
        }
        self.told.insert(what.to_string(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_once_and_again_after_a_while() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        assert!(refusals.is_news("a", start));
        assert!(!refusals.is_news("a", start + SILENCE / 2));
        assert!(refusals.is_news("b", start + SILENCE / 2));
        assert!(refusals.is_news("a", start + SILENCE));
        assert!(!refusals.is_news("b", start + SILENCE));
    }

    #[test]
    fn whoever_invents_reasons_gets_a_few_lines() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        let lines = (0..10_000).filter(|n| refusals.is_news(&n.to_string(), start)).count();
        assert_eq!(lines, TOLD_MAX);
        assert!(refusals.is_news("later", start + SILENCE));
    }
}
