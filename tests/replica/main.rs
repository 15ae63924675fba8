//! The whole replica, log and state and disk, driven by hand.

#[path = "../common/mod.rs"]
mod common;
#[path = "../mem_disk/mod.rs"]
mod mem_disk;

mod divergence;
mod evicted;
mod full_disk;
mod late_disk;
mod snapshots;
mod times;

use common::core::{append, config, pre_vote, vote};
use mem_disk::MemDisk;
use raftkv::kv::{Answer, Command, Limits, Request, WriteOp};
use raftkv::node::{self, Outgoing, Peer, PeerMessage, Routing, Standing};
use raftkv::ordered::Few;
use raftkv::raft::{Message, NodeId};
use raftkv::replica::Replica;
use raftkv::wal::{Disk, WalConfig};

const SEGMENT_BYTES: u64 = 16 << 10;
/// More than a replica ever waits before it tries again.
const TICKS_MAX: usize = 1000;

/// Node 1 of so many voters.
fn open<D: Disk>(disk: D, voters: u64) -> Replica<D> {
    open_with(disk, voters, 32 << 10)
}

fn open_with<D: Disk>(disk: D, voters: u64, snapshot_log_bytes: usize) -> Replica<D> {
    let config = node::Config {
        raft: config(1, voters),
        name: "raft-1".to_string(),
        address: "node-1:6000".to_string(),
        initial: Few::new(),
        auto_members: true,
        limits: Limits::default(),
        forward_timeout_ticks: 50,
        snapshot_log_bytes,
        snapshot_piece_bytes: 4 << 10,
    };
    let wal = WalConfig { segment_bytes: SEGMENT_BYTES, salt_seed: 7 };
    Replica::open(config, disk, wal).expect("a disk that works").0
}

/// One turn; what left early comes first.
fn turn<D: Disk>(replica: &mut Replica<D>) -> Outgoing {
    let mut early = Vec::new();
    let outgoing = replica.flush(|messages| early = messages).expect("a full disk ends nothing");
    Outgoing { messages: [early, outgoing.messages].concat(), answers: outgoing.answers }
}

fn write(op: WriteOp<'_>) -> Request {
    Request::Write { command: Command::Write { request: None, op }.to_bytes().into() }
}

fn put(key: &str, value: &[u8]) -> Request {
    write(WriteOp::Put { key: key.as_bytes(), value })
}

/// Asks the only node of a cluster, and lets time pass until it has answered.
fn ask<D: Disk>(replica: &mut Replica<D>, request: Request) -> Answer {
    replica.inputs().request(1, request, Routing::Redirect);
    for _ in 0..TICKS_MAX {
        let mut answers = turn(replica).answers;
        if let Some((ticket, answer)) = answers.pop() {
            assert_eq!((ticket, answers.len()), (1, 0), "one answer");
            return answer;
        }
        replica.inputs().tick();
    }
    panic!("no answer");
}

fn elected<D: Disk>(replica: &mut Replica<D>) {
    while !replica.node().raft().is_leader() {
        replica.inputs().tick();
        turn(replica);
    }
}

/// Follows node 2 of three, and is connected to it.
fn follower(disk: &MemDisk) -> Replica<MemDisk> {
    let mut replica = open(disk.clone(), 3);
    meet(&mut replica, 2);
    hear(&mut replica, append(1, (0, 0), 0, Vec::new()));
    turn(&mut replica);
    replica
}

/// Leads term 1 of three by the vote of node 2, and is connected to it.
fn leader(disk: &MemDisk, snapshot_log_bytes: usize) -> Replica<MemDisk> {
    let mut replica = open_with(disk.clone(), 3, snapshot_log_bytes);
    meet(&mut replica, 2);
    while !replica.node().has_work() {
        replica.inputs().tick();
    }
    turn(&mut replica);
    for message in [pre_vote(1, true), vote(1, true)] {
        hear(&mut replica, message);
        turn(&mut replica);
    }
    assert!(replica.node().raft().is_leader());
    replica
}

fn meet(replica: &mut Replica<MemDisk>, id: NodeId) {
    let (name, address) = (format!("raft-{id}"), format!("node-{id}:6000"));
    let standing = Standing::Member { cluster_id: 1 };
    replica.inputs().peer_connected(Peer { id, name, address, standing, limits: None });
}

fn hear(replica: &mut Replica<MemDisk>, message: Message) {
    hear_from(replica, 2, message);
}

fn hear_from(replica: &mut Replica<MemDisk>, from: NodeId, message: Message) {
    replica.inputs().peer_message(from, PeerMessage::Raft(message)).expect("one leader a term");
}
