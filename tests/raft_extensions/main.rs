//! What goes beyond Figure 2 of the paper, or makes its rules precise: pre-vote, check-quorum,
//! replacement of a leader whose process ended, fast back-up, pipelining within limits, reads by
//! rounds, and disks that are slower than the network. Each test is named by the promise it holds.

#[path = "../common/mod.rs"]
mod common;

mod clusters;
mod disks;
mod elections;
mod evicted;
mod handovers;
mod leaders;
mod members;
mod pipelining;
mod reads;
mod replies;
mod snapshots;

use common::cluster::Cluster;
use common::core::*;
use raftkv::raft::{Index, Message, NodeId, Payload, Raft};

/// A follower of node 1 in term 1 that has just heard from it.
pub fn led_follower(id: NodeId, voters: u64) -> Raft {
    let mut raft = follower(id, voters, 1, &[]);
    step(&mut raft, 1, append(1, (0, 0), 0, vec![]));
    turn(&mut raft);
    raft
}

pub fn other_than(cluster: &Cluster, excluded: &[NodeId]) -> NodeId {
    let mut ids = cluster.ids().into_iter();
    ids.find(|id| !excluded.contains(id)).expect("another server")
}

/// A follower's log matches the leader's up to here, and is on its disk.
pub fn accepts(leader: &mut Raft, follower: NodeId, index: Index) {
    let reply = accepted(leader.term(), index);
    step(leader, follower, reply);
}

/// The leader of a cluster of one.
pub fn alone() -> Raft {
    let mut raft = follower(1, 1, 0, &[]);
    time_out(&mut raft);
    turn(&mut raft);
    turn(&mut raft);
    assert_eq!((raft.role_name(), raft.term(), raft.commit_index()), ("leader", 1, 1));
    raft
}

pub fn propose(raft: &mut Raft, payload_bytes: usize) -> Index {
    let payload = Payload::Command(vec![b'x'; payload_bytes].into());
    raft.propose(payload).expect("a leader with room").index
}

/// For each message with entries, the indexes of the first and the last.
pub fn spans(messages: &[Message]) -> Vec<(Index, Index)> {
    let entries = messages.iter().map(entries_of).filter(|entries| !entries.is_empty());
    entries.map(|entries| (entries[0].index, entries[entries.len() - 1].index)).collect()
}
