//! Whether all replicas hold the same state: they compare digests at the same log indexes.
//!
//! Every node notes its digest whenever it applies an index that is a multiple of [`POINT_EVERY`]. Followers
//! report theirs to the leader. Once a majority of the voters agree on one, whoever has another is told; it
//! may be the leader itself. Nobody believes a single other node, so one broken state cannot take the sound
//! ones with it.

use crate::ordered::Few;
use crate::raft::{Index, NodeId, quorum};
use std::collections::VecDeque;

/// Indexes between two points of comparison.
pub const POINT_EVERY: Index = 512;
/// Points that are remembered: a follower may be this far behind and still be compared.
const POINTS_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    pub index: Index,
    pub digest: u64,
}

#[derive(Debug, Default)]
pub struct Audit {
    own: VecDeque<Point>,
    /// What the others said, at the leader.
    reports: Few<Index, Few<NodeId, u64>>,
    /// Points that a majority has agreed on.
    compared: u64,
}

impl Audit {
    /// Notes the state after `index`, and returns the point if this is one.
    pub fn applied(&mut self, index: Index, digest: u64) -> Option<Point> {
        if !index.is_multiple_of(POINT_EVERY) {
            return None;
        }
        if self.own.len() == POINTS_MAX {
            self.own.pop_front();
        }
        let point = Point { index, digest };
        self.own.push_back(point);
        Some(point)
    }

    /// A report, the own one included, of one of this many voters. Returns what a majority agrees on, if
    /// it does now, and who differs from it.
    pub fn report(
        &mut self,
        from: NodeId,
        point: Point,
        voters: usize,
    ) -> Option<(Point, Vec<NodeId>)> {
        let reports = self.reports.get_or_insert_with(point.index, Few::new);
        reports.insert(from, point.digest);
        let agreeing = |digest: u64| reports.values().filter(|other| **other == digest).count();
        let digest = reports
            .values()
            .copied()
            .find(|digest| agreeing(*digest) >= quorum::majority(voters))?;
        let differing: Vec<NodeId> =
            reports.iter().filter(|(_, other)| **other != digest).map(|(id, _)| *id).collect();
        if reports.len() == voters {
            self.reports.remove(&point.index);
            self.compared += 1;
        }
        while self.reports.len() > POINTS_MAX {
            self.reports.pop_first();
        }
        Some((Point { index: point.index, digest }, differing))
    }

    /// Whether this node's own state at that point was another one. Points that it has forgotten say
    /// nothing.
    pub fn contradicts(&self, agreed: Point) -> bool {
        self.own.iter().any(|own| own.index == agreed.index && own.digest != agreed.digest)
    }

    /// Points at which all voters were compared under this leader.
    pub fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(digest: u64) -> Point {
        Point { index: POINT_EVERY, digest }
    }

    #[test]
    fn the_one_that_differs_from_a_majority_is_named_whoever_reports_first() {
        for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
            let mut audit = Audit::default();
            let mut named = Vec::new();
            for node in order {
                let digest = if node == 3 { 7 } else { 5 };
                if let Some((agreed, differing)) = audit.report(node, point(digest), 3) {
                    assert_eq!(agreed, point(5));
                    named.extend(differing);
                }
            }
            assert_eq!(named, [3]);
        }
    }

    #[test]
    fn without_a_majority_nobody_is_named() {
        let mut audit = Audit::default();
        assert_eq!(audit.report(1, point(1), 3), None);
        assert_eq!(audit.report(2, point(2), 3), None);
        assert_eq!(audit.report(3, point(3), 3), None);
    }

    #[test]
    fn a_node_contradicts_only_a_point_that_it_remembers() {
        let mut audit = Audit::default();
        assert!(audit.applied(1, 5).is_none());
        audit.applied(POINT_EVERY, 5).expect("a point");
        assert!(audit.contradicts(point(6)));
        assert!(!audit.contradicts(point(5)));
        for later in 2..=POINTS_MAX as u64 + 1 {
            audit.applied(later * POINT_EVERY, 5).expect("a point");
        }
        assert!(!audit.contradicts(point(6)), "forgotten");
    }
}
