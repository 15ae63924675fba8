//! Snapshots that a leader sends, as its pieces come: in order or not, twice, late, or not to the end.

use crate::*;
use raftkv::kv::Machine;
use raftkv::raft::{Position, Term};
use raftkv::wal::{SnapshotFile, SnapshotKind, Wal};

const PIECE_BYTES: usize = 9000;

/// A leader's snapshots.
struct Source {
    files: Vec<(SnapshotFile, Vec<u8>)>,
}

impl Source {
    /// Two of them, of about 100 and 130 KiB.
    fn new() -> Self {
        let disk = MemDisk::default();
        let mut replica = open(disk.clone(), 1);
        elected(&mut replica);
        let mut key = 0;
        while key < 100 || replica.wal().snapshots().len() < 2 {
            ask(&mut replica, put(&format!("k{key}"), &[7; 1000]));
            key += 1;
        }
        let wal = WalConfig { segment_bytes: SEGMENT_BYTES, salt_seed: 7 };
        let (mut wal, _) = Wal::open(disk.copy(), wal).expect("a sound disk");
        let files: Vec<SnapshotFile> = wal.snapshots().to_vec();
        let mut read = |file: SnapshotFile| {
            let bytes = wal.read_snapshot(file.position, 0, usize::MAX).expect("a sound disk");
            (file, bytes)
        };
        Source { files: files.into_iter().map(&mut read).collect() }
    }

    fn older(&self) -> &(SnapshotFile, Vec<u8>) {
        &self.files[0]
    }

    fn newer(&self) -> &(SnapshotFile, Vec<u8>) {
        &self.files[1]
    }
}

fn pieces(bytes: &[u8]) -> impl Iterator<Item = usize> + use<> {
    (0..bytes.len()).step_by(PIECE_BYTES)
}

/// The piece at an offset, in a term of its leader.
fn piece((file, bytes): &(SnapshotFile, Vec<u8>), term: Term, offset: usize) -> Message {
    let data = &bytes[offset..(offset + PIECE_BYTES).min(bytes.len())];
    let Position { index, term: last_included_term } = file.position;
    Message::InstallSnapshot {
        term,
        last_included_index: index,
        last_included_term,
        offset: offset as u64,
        done: offset + data.len() == bytes.len(),
        data: data.into(),
    }
}

/// Hears a piece from a leader, and returns how far the follower says that it has come: in the next
/// turn, when that is on its disk.
fn send(replica: &mut Replica<MemDisk>, from: u64, message: Message) -> Option<u64> {
    replica.inputs().peer_message(from, PeerMessage::Raft(message)).expect("one leader a term");
    turn(replica);
    turn(replica).messages.into_iter().find_map(|(_, message)| match message {
        PeerMessage::Raft(Message::SnapshotReply { offset, .. }) => Some(offset),
        _ => None,
    })
}

fn send_all(replica: &mut Replica<MemDisk>, snapshot: &(SnapshotFile, Vec<u8>), term: Term) {
    for offset in pieces(&snapshot.1) {
        send(replica, 2, piece(snapshot, term, offset));
    }
}

fn is_at(replica: &Replica<MemDisk>, snapshot: &(SnapshotFile, Vec<u8>)) -> bool {
    let machine: &Machine = replica.node().machine();
    machine.applied() == snapshot.0.position.index
}

#[test]
fn pieces_that_come_twice_or_too_early_are_written_once() {
    let source = Source::new();
    let newer = source.newer();
    let mut replica = follower(&MemDisk::default());
    let last = (newer.1.len() - 1) / PIECE_BYTES * PIECE_BYTES;
    for offset in pieces(&newer.1).take_while(|offset| *offset < last) {
        assert_eq!(send(&mut replica, 2, piece(newer, 1, last)), Some(offset as u64), "too early");
        let after = Some((offset + PIECE_BYTES) as u64);
        for _ in 0..2 {
            assert_eq!(send(&mut replica, 2, piece(newer, 1, offset)), after);
        }
        assert!(!is_at(&replica, newer));
    }
    for _ in 0..2 {
        send(&mut replica, 2, piece(newer, 1, last));
    }
    assert!(is_at(&replica, newer));
    assert_eq!(replica.wal().snapshots().len(), 1);
}

#[test]
fn an_older_snapshot_that_arrives_late_or_in_the_middle_of_a_newer_one_changes_nothing() {
    let source = Source::new();
    let (older, newer) = (source.older(), source.newer());
    let mut replica = follower(&MemDisk::default());
    for offset in pieces(&newer.1) {
        send(&mut replica, 2, piece(newer, 1, offset));
        send(
            &mut replica,
            2,
            piece(older, 1, offset.min(older.1.len() - 1) / PIECE_BYTES * PIECE_BYTES),
        );
    }
    assert!(is_at(&replica, newer));
    send_all(&mut replica, older, 1);
    send_all(&mut replica, newer, 1);
    assert!(is_at(&replica, newer));
    assert_eq!(replica.wal().snapshots(), [newer.0], "installed once, and nothing else");
}

#[test]
fn a_newer_snapshot_takes_the_place_of_one_that_is_being_received() {
    let source = Source::new();
    let (older, newer) = (source.older(), source.newer());
    let mut replica = follower(&MemDisk::default());
    for offset in pieces(&older.1).take(3) {
        send(&mut replica, 2, piece(older, 1, offset));
    }
    send_all(&mut replica, newer, 1);
    assert!(is_at(&replica, newer));
}

/// What the old leader had frozen need not be what the new one has, byte for byte.
#[test]
fn a_new_leader_begins_the_transfer_anew() {
    let source = Source::new();
    let newer = source.newer();
    let mut replica = follower(&MemDisk::default());
    for offset in pieces(&newer.1).take(4) {
        send(&mut replica, 2, piece(newer, 1, offset));
    }
    let next = 4 * PIECE_BYTES;
    assert_eq!(send(&mut replica, 3, piece(newer, 2, next)), Some(0), "from the beginning");
    send(&mut replica, 2, piece(newer, 1, next));
    for offset in pieces(&newer.1) {
        assert!(!is_at(&replica, newer));
        send(&mut replica, 3, piece(newer, 2, offset));
    }
    assert!(is_at(&replica, newer));
}

#[test]
fn a_snapshot_that_is_not_what_was_frozen_is_asked_for_again() {
    let source = Source::new();
    let newer = source.newer();
    let mut changed = newer.clone();
    let middle = changed.1.len() / 2;
    changed.1[middle] ^= 1;
    let mut replica = follower(&MemDisk::default());
    send_all(&mut replica, &changed, 1);
    assert_eq!((replica.node().machine().applied(), replica.wal().snapshots().len()), (0, 0));
    send_all(&mut replica, newer, 1);
    assert!(is_at(&replica, newer));
}

#[test]
fn a_leaders_snapshot_that_finds_no_room_is_taken_when_there_is_some() {
    let source = Source::new();
    let newer = source.newer();
    let disk = MemDisk::default();
    let mut replica = follower(&disk);
    disk.make_full();
    send_all(&mut replica, newer, 1);
    assert_eq!(replica.node().machine().applied(), 0);
    disk.heal();
    for _ in 0..TICKS_MAX {
        replica.inputs().tick();
    }
    hear(&mut replica, append(1, (0, 0), 0, Vec::new()));
    turn(&mut replica);
    send_all(&mut replica, newer, 1);
    assert!(is_at(&replica, newer));
}

/// So that entries do not wait for it: two pieces in a tick, and between ticks twice the log. When nobody has written
/// for a while, a piece in every turn.
#[test]
fn a_snapshot_keeps_a_pace_while_entries_arrive() {
    const PER_TICK: u64 = 8 << 10;
    const SLACK: u64 = 2 << 10;
    let mut replica = open_with(MemDisk::default(), 1, 300 << 10);
    elected(&mut replica);
    let mut key = 0;
    while !replica.is_taking_snapshot() {
        ask(&mut replica, put(&format!("k{key}"), &[7; 1000]));
        key += 1;
    }
    let written = |replica: &Replica<MemDisk>| {
        let progress = replica.wal().snapshot_progress(SnapshotKind::Own);
        progress.expect("it is not finished").1
    };
    ask(&mut replica, put("small", b"entry"));
    let before = written(&replica);
    for _ in 0..10 {
        turn(&mut replica);
    }
    assert_eq!(written(&replica), before, "nothing between two ticks");
    assert!(!replica.has_work());
    for ticks in [1, 2] {
        let before = written(&replica);
        (0..ticks).for_each(|_| replica.inputs().tick());
        turn(&mut replica);
        let more = written(&replica) - before;
        assert!((ticks * PER_TICK..ticks * PER_TICK + SLACK).contains(&more), "{more} bytes");
    }
    let before = written(&replica);
    ask(&mut replica, put("large", &[7; 20_000]));
    assert!(written(&replica) - before >= 40_000, "twice the log");

    (0..150).for_each(|_| replica.inputs().tick());
    let before = written(&replica);
    for pieces in 1..=3 {
        assert!(replica.has_work());
        turn(&mut replica);
        assert!(written(&replica) - before >= pieces * PER_TICK / 2);
    }
}
