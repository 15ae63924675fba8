//! What a node is told of itself, of timing and of limits.

use super::{Membership, NodeId};
use std::collections::BTreeSet;
use std::rc::Rc;

#[derive(Debug, Clone)]
pub struct Config {
    pub id: NodeId,
    /// Who votes for as long as neither the log nor a snapshot says who does. None: this node waits until it
    /// is founded or taken in.
    pub voters: BTreeSet<NodeId>,
    /// Between two heartbeats of a leader.
    pub heartbeat_ticks: u32,
    /// The election timeout is drawn anew, each time, from this interval, both ends included.
    pub election_ticks_min: u32,
    pub election_ticks_max: u32,
    /// Entries in one AppendEntries: payloads and
    /// [`Entry::OVERHEAD_BYTES`](super::Entry::OVERHEAD_BYTES). A larger entry goes alone.
    pub append_bytes_max: usize,
    /// AppendEntries with entries under way to one follower. When reached, the rest waits in the log.
    pub inflight_messages_max: usize,
    /// Bytes of entries under way to one follower, counted like `append_bytes_max`.
    pub inflight_bytes_max: usize,
    /// Bytes of entries proposed and not yet committed. When reached, proposals are refused.
    pub uncommitted_bytes_max: usize,
    /// All randomness of this node comes from here.
    pub seed: u64,
}

impl Config {
    /// The default limits and timing in ticks of 10 ms: heartbeat 50 ms, election 300 to 600 ms.
    pub fn new(id: NodeId, voters: impl IntoIterator<Item = NodeId>, seed: u64) -> Self {
        let mut founders = BTreeSet::new();
        founders.extend(voters);
        Config {
            id,
            voters: founders,
            heartbeat_ticks: 5,
            election_ticks_min: 30,
            election_ticks_max: 60,
            append_bytes_max: 256 * 1024,
            inflight_messages_max: 64,
            inflight_bytes_max: 4 * 1024 * 1024,
            uncommitted_bytes_max: 64 * 1024 * 1024,
            seed,
        }
    }
}

impl Config {
    /// Who is a member if nothing else says it.
    pub(super) fn or_voters(&self, membership: Rc<Membership>) -> Rc<Membership> {
        match membership.is_empty() {
            true => Rc::new(Membership::of_voters(self.voters.iter().copied())),
            false => membership,
        }
    }
}
