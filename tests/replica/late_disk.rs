//! A leader whose own disk is late: the others' disks commit what it has not written yet.

use crate::*;
use common::core::accepted;
use raftkv::raft::Waits;

const LATE: Waits = Waits { sending: false, own_disk: true };
const SNAPSHOT_LOG_BYTES: usize = 4 << 10;

/// What both followers have on their disks, its log does not.
fn late_turn(replica: &mut Replica<MemDisk>) {
    replica.inputs().tick();
    replica.flush_with(LATE, |_| {}).expect("a disk that works");
    assert!(replica.waits().own_disk, "its own disk is late");
    all_accept(replica);
}

fn all_accept(replica: &mut Replica<MemDisk>) {
    let last = replica.node().raft().log().last().index;
    [2, 3].into_iter().for_each(|id| hear_from(replica, id, accepted(1, last)));
}

/// A restart would begin the log anew behind such a snapshot: if that rots, the one before it and the log do not
/// make up for it.
#[test]
fn no_snapshot_is_ahead_of_a_log_that_is_late() {
    let disk = MemDisk::default();
    let mut replica = leader(&disk, SNAPSHOT_LOG_BYTES);
    meet(&mut replica, 3);
    all_accept(&mut replica);
    turn(&mut replica);
    let last = replica.node().raft().log().durable_index();
    for number in 0..20 {
        let request = put(&format!("k{number}"), &[7; 1000]);
        replica.inputs().request(1, request, Routing::Redirect);
        late_turn(&mut replica);
    }
    late_turn(&mut replica);
    let raft = replica.node().raft();
    assert_eq!(replica.node().machine().applied(), raft.log().last().index);
    assert_eq!(raft.log().durable_index(), last, "nothing of it is on its own disk");

    let restarted = open(disk.after_power_cut(|| false), 3);
    assert_eq!(restarted.wal().snapshots(), []);
    assert_eq!(restarted.node().raft().log().last().index, last);

    assert!(replica.node().wants_snapshot(), "it had reason to take one");
    turn(&mut replica);
    assert!(replica.is_taking_snapshot(), "and does once its log is on disk");
}
