//! A leader whose memory has only the newest part of its log, and a follower that needs what is before it.

use crate::*;
use common::core::{accepted, entries_of, rejected};
use raftkv::raft::{Entry, Index, Position};

/// Of the log, so much stays in memory, and after so much a snapshot is taken.
const LOG_BYTES: usize = 32 << 10;
const VALUE_BYTES: usize = 1000;

/// So many writes, each of them committed by node 2.
fn write_some(replica: &mut Replica<MemDisk>, count: usize) {
    for number in 0..count {
        let request = put(&format!("k{number}"), &[number as u8; VALUE_BYTES]);
        replica.inputs().request(1, request, Routing::Redirect);
        turn(replica);
        let (term, last) = (replica.node().raft().term(), replica.node().raft().log().last().index);
        hear_from(replica, 2, accepted(term, last));
        turn(replica);
    }
}

/// The same with so large a state that the log between two snapshots is longer than what stays in memory, and
/// just then.
fn leader_with_evicted(disk: &MemDisk) -> Replica<MemDisk> {
    let mut replica = leader(disk, LOG_BYTES);
    write_some(&mut replica, 400);
    while !lacks_snapshot(&replica) {
        write_some(&mut replica, 1);
    }
    replica
}

/// Whether some entries are neither in memory nor in a snapshot.
fn lacks_snapshot(replica: &Replica<MemDisk>) -> bool {
    let newest = replica.wal().snapshots().last().expect("one was taken").position;
    !replica.is_taking_snapshot() && replica.node().raft().log().evicted() > newest
}

/// Lets node 3 say that its log ends at `has`, and then that it takes all that it is sent, until it has `upto`.
/// Returns what it was sent, or how far the snapshot goes that it is offered after that.
fn catch_up(
    replica: &mut Replica<MemDisk>,
    mut has: Position,
    upto: Index,
) -> Result<Vec<Entry>, Index> {
    let (mut has_spoken, mut got) = (false, Vec::new());
    meet(replica, 3);
    for _ in 0..TICKS_MAX {
        let was_heard = has_spoken;
        let messages = turn(replica).messages.into_iter().filter(|(to, _)| *to == 3);
        for (_, message) in messages {
            let PeerMessage::Raft(message) = message else { continue };
            if let Message::InstallSnapshot { last_included_index, .. } = message
                && was_heard
            {
                return Err(last_included_index);
            }
            let Message::AppendEntries { term, prev_log_index, .. } = message else { continue };
            let entries = entries_of(&message);
            if prev_log_index == has.index {
                got.extend_from_slice(entries);
                has.index += entries.len() as Index;
                hear_from(replica, 3, accepted(term, has.index));
            } else {
                hear_from(replica, 3, rejected(term, prev_log_index, (has.index, has.term)));
            }
            has_spoken = true;
        }
        if has.index >= upto {
            return Ok(got);
        }
        replica.inputs().tick();
    }
    panic!("it is not sent what it needs");
}

#[test]
fn a_follower_is_sent_what_is_not_in_memory_any_more_from_the_disk() {
    let mut replica = leader_with_evicted(&MemDisk::default());
    let log = replica.node().raft().log();
    let (before, evicted, last) = (log.before(), log.evicted().index, log.last().index);
    assert!(before.index + 10 < evicted && evicted < last);
    let got = catch_up(&mut replica, before, last).expect("no snapshot");
    let indexes: Vec<Index> = got.iter().map(|entry| entry.index).collect();
    assert_eq!(indexes, (before.index + 1..=last).collect::<Vec<Index>>());
    let log = replica.node().raft().log();
    assert!(log.iter_from(evicted + 1).eq(&got[(evicted - before.index) as usize..]));
    let snapshot = replica.wal().snapshots().last().expect("one was taken").position.index;
    assert!(before.index < snapshot && snapshot < evicted, "on both sides of the snapshot");
    replica.inputs().tick();
    turn(&mut replica);
    assert_eq!(replica.node().raft().match_indexes(), [(2, last), (3, last)]);
}

/// It still has the state; and a snapshot that ends before what it has of the log would be of no use.
#[test]
fn a_leader_that_can_not_read_its_log_takes_a_snapshot_for_whoever_needs_it() {
    let disk = MemDisk::default();
    let mut replica = leader_with_evicted(&disk);
    let log = replica.node().raft().log();
    let (before, evicted, last) = (log.before(), log.evicted(), log.last().index);
    for name in disk.files().into_keys().filter(|name| name.starts_with("wal-")) {
        (2000..SEGMENT_BYTES as usize).step_by(512).for_each(|at| disk.corrupt(&name, at));
    }
    assert!(catch_up(&mut replica, before, last).is_err(), "the log is not sent");
    assert_eq!(replica.node().raft().log().before(), evicted);
    while catch_up(&mut replica, before, last).is_err_and(|index| index < evicted.index) {
        replica.inputs().tick();
    }
    assert!(replica.node().raft().log_connects_to_snapshot());
}
