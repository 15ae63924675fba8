//! Refused connections in the log: each reason once in a while, however often somebody tries. And those of
//! nodes in the status, for as long as they try.
//!
//! Anybody who reaches the port can be refused as often as he likes, and for as many reasons as he can think
//! of. Neither may fill the log.

use crate::ordered::Few;
use std::time::{Duration, Instant};

/// Different refusals that are remembered, and so can be logged within `SILENCE`.
const TOLD_MAX: usize = 16;
/// The same refusal is not logged again for so long.
const SILENCE: Duration = Duration::from_secs(600);

/// A node that is refused dials again within half a second; one that has not for so long has given up.
const RECENT: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct Refusals {
    /// What was logged.
    told: Few<String, Told>,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    /// When it happened last.
    last_at: Instant,
    /// It is about a node, not a client.
    is_node: bool,
}

impl Refusals {
    /// Whether this is worth a line.
    pub fn is_news(&mut self, what: &str, is_node: bool, now: Instant) -> bool {
        if self.told.contains_key(what) || self.told.len() >= TOLD_MAX {
            self.told.retain(|_, told| now.saturating_duration_since(told.at) < SILENCE);
        }
        if let Some(told) = self.told.get_mut(what) {
            told.last_at = now;
            return false;
        }
        if self.told.len() >= TOLD_MAX {
            return false;
        }
        self.told.insert(what.to_string(), Told { at: now, last_at: now, is_node });
        true
    }

    /// Nodes that were refused lately, and why.
    pub fn of_nodes(&self, now: Instant) -> impl Iterator<Item = &str> {
        let is_recent = move |told: &Told| now.saturating_duration_since(told.last_at) < RECENT;
        let told = self.told.iter().filter(move |(_, told)| told.is_node && is_recent(told));
        told.map(|(what, _)| what.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_once_and_again_after_a_while() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        assert!(refusals.is_news("a", false, start));
        assert!(!refusals.is_news("a", false, start + SILENCE / 2));
        assert!(refusals.is_news("b", false, start + SILENCE / 2));
        assert!(refusals.is_news("a", false, start + SILENCE));
        assert!(!refusals.is_news("b", false, start + SILENCE));
    }

    #[test]
    fn nodes_that_are_refused_are_shown_for_as_long_as_they_try() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        refusals.is_news("a client", false, start);
        refusals.is_news("a node", true, start);
        refusals.is_news("a node", true, start + RECENT / 2);
        let shown = |after| refusals.of_nodes(start + after).collect::<Vec<_>>();
        assert_eq!(shown(RECENT), ["a node"]);
        assert!(shown(RECENT * 3 / 2).is_empty());
    }

    #[test]
    fn whoever_invents_reasons_gets_a_few_lines() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        let lines = (0..10_000).filter(|n| refusals.is_news(&n.to_string(), false, start)).count();
        assert_eq!(lines, TOLD_MAX);
        assert!(refusals.is_news("later", false, start + SILENCE));
    }
}
