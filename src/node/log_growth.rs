//! How far the log has grown towards the next snapshot, counted so that the nodes of a cluster do not all take
//! theirs at the same time: a disk that is busy with one slows down syncs, and a majority of the disks should not be.

use crate::raft::{NodeId, number};

/// As long as the log is when a snapshot is taken.
const WHOLE: u64 = 1 << 40;
/// New nodes begin at so many different points of the way, by their numbers, and keep that distance: entries
/// count at every node for the same share of it.
const PHASES: u64 = 3;

#[derive(Debug)]
pub(super) struct LogGrowth(u64);

impl LogGrowth {
    /// Of a node; one that has a log or a snapshot begins where these end.
    pub fn new(id: NodeId, is_fresh: bool) -> Self {
        LogGrowth(if is_fresh { WHOLE / PHASES * (number(id) % PHASES) } else { 0 })
    }

    /// An entry of `bytes` was applied, and a snapshot is taken after `bytes_max`.
    pub fn add(&mut self, bytes: usize, bytes_max: usize) {
        let share = u128::from(WHOLE) * bytes as u128 / bytes_max.max(1) as u128;
        self.0 = self.0.saturating_add(u64::try_from(share).unwrap_or(u64::MAX));
    }

    /// Whether it is `times` as long as it is when a snapshot is taken, or longer.
    pub fn is_long(&self, times: u64) -> bool {
        self.0 >= WHOLE * times
    }

    /// A snapshot begins, or has come.
    pub fn restart(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::node_id;

    const QUICK: usize = 300;
    const SLOW: usize = 1200;

    /// After which of so many entries a new node takes its snapshots. The first half of them find a limit that they
    /// reach quickly.
    fn snapshots_of(at: u64, entries: usize) -> Vec<usize> {
        let mut growth = LogGrowth::new(node_id(at, 1), true);
        let mut taken = Vec::new();
        for entry in 1..=entries {
            growth.add(100, 100 * if entry <= entries / 2 { QUICK } else { SLOW });
            if growth.is_long(1) {
                growth.restart();
                taken.push(entry);
            }
        }
        taken
    }

    #[test]
    fn new_nodes_take_turns_with_their_snapshots_also_when_the_limit_changes() {
        let entries = 48 * QUICK;
        let mut taken: Vec<usize> = (0..3).flat_map(|at| snapshots_of(at, entries)).collect();
        taken.sort_unstable();
        let gaps = |from: usize, to: usize| {
            let taken: Vec<usize> =
                taken.iter().copied().filter(|entry| (from..to).contains(entry)).collect();
            assert!(taken.len() > 6, "{taken:?}");
            taken.windows(2).map(|pair| pair[1] - pair[0]).min().expect("several were taken")
        };
        // Rounding makes each a few entries late.
        assert!(gaps(1, entries / 2) >= QUICK / 3 - 10);
        assert!(gaps(entries / 2 + SLOW, entries) >= SLOW / 3 - 10);
    }

    #[test]
    fn a_node_that_has_a_log_begins_where_it_ends() {
        let mut growth = LogGrowth::new(node_id(2, 1), false);
        growth.add(99, 100);
        assert!(!growth.is_long(1));
        growth.add(2, 100);
        assert!(growth.is_long(1) && !growth.is_long(2));
    }
}
