//! Majority arithmetic, nothing else.

use super::Index;

/// The smallest number of voters that overlaps with every other such set.
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The largest index that a majority of the voters has reached, given every voter's own.
pub fn majority_index(mut indexes: Vec<Index>) -> Index {
    assert!(!indexes.is_empty(), "a cluster has at least one voter");
    indexes.sort_unstable();
    indexes[indexes.len() - majority(indexes.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn majorities_of_small_clusters() {
        let sizes: Vec<usize> = (1..=7).map(majority).collect();
        assert_eq!(sizes, [1, 2, 2, 3, 3, 4, 4]);
    }

    proptest! {
        /// Against the definition itself, tried for every candidate index.
        #[test]
        fn majority_index_is_the_largest_that_enough_voters_reached(
            indexes in prop::collection::vec(0u64..20, 1..8)
        ) {
            let reached = |index: u64| indexes.iter().filter(|i| **i >= index).count();
            let slow = (0..=20).rev().find(|i| reached(*i) > indexes.len() / 2).unwrap();
            prop_assert_eq!(majority_index(indexes.clone()), slow);
        }
    }
}
