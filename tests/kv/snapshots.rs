//! Snapshots: the state at one moment, taken piece by piece while it goes on changing.

use crate::machine::{log_of, step};
use crate::*;
use raftkv::kv::{FreeBudget, Loader};
use raftkv::raft::Membership;
use std::rc::Rc;

/// Takes the whole snapshot that was begun, in pieces of this size.
fn take(machine: &mut Machine, piece_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let (piece, is_last) = machine.snapshot_piece(piece_bytes);
        bytes.extend(piece);
        if is_last {
            return bytes;
        }
    }
}

fn load(bytes: &[u8], piece_bytes: usize) -> Result<Machine, raftkv::codec::Malformed> {
    let mut loader = Loader::default();
    for piece in bytes.chunks(piece_bytes) {
        loader.feed(piece)?;
    }
    loader.finish()
}

fn machine_of(entries: &[Entry]) -> Machine {
    let mut machine = Machine::default();
    for entry in entries {
        machine.apply(entry).expect("a command");
    }
    machine
}

proptest! {
    /// Whatever changes between the pieces, the snapshot is the state at its beginning, sessions included:
    /// what is loaded from it goes on exactly like the original.
    #[test]
    fn a_snapshot_is_the_state_at_its_beginning(
        steps in prop::collection::vec(step(), 0..120),
        begin in 0usize..120,
        entries_per_piece in 0usize..4,
        piece_bytes in 1usize..60,
        load_bytes in 1usize..40,
    ) {
        let log = log_of(&steps);
        let begin = begin.min(log.len());
        let mut machine = machine_of(&log[..begin]);
        machine.free_some(FreeBudget::ALL);
        let frozen = format!("{machine:?}");
        machine.begin_snapshot();
        let (mut bytes, mut later) = (Vec::new(), log[begin..].iter());
        loop {
            let (piece, is_last) = machine.snapshot_piece(piece_bytes);
            bytes.extend(piece);
            if is_last {
                break;
            }
            for entry in later.by_ref().take(entries_per_piece) {
                machine.apply(entry).expect("a command");
            }
        }
        for entry in later {
            machine.apply(entry).expect("a command");
        }
        let mut restored = load(&bytes, load_bytes).expect("what was taken can be loaded");
        prop_assert_eq!(format!("{restored:?}"), frozen);
        for entry in &log[begin..] {
            restored.apply(entry).expect("a command");
        }
        restored.free_some(FreeBudget::ALL);
        machine.free_some(FreeBudget::ALL);
        prop_assert_eq!(format!("{restored:?}"), format!("{machine:?}"));
    }

    /// No piece is larger than was asked for by more than one pair, the first with its sessions apart.
    #[test]
    fn pieces_are_bounded(keys in 1usize..200, piece_bytes in 64usize..1000) {
        let mut machine = Machine::default();
        for key in 0..keys {
            let (key, value) = (format!("key{key}"), "v".repeat(50));
            apply(&mut machine, Command::Write { request: None, op: put(&key, &value) });
        }
        machine.begin_snapshot();
        loop {
            let (piece, is_last) = machine.snapshot_piece(piece_bytes);
            prop_assert!(piece.len() < piece_bytes + 4 + 6 + 8 + 8 + 4 + 50);
            if is_last {
                break;
            }
        }
    }

    #[test]
    fn damaged_snapshots_do_not_load_and_never_panic(
        steps in prop::collection::vec(step(), 0..60),
        at in any::<prop::sample::Index>(),
        bit in 0u32..8,
        cut in any::<prop::sample::Index>(),
    ) {
        let mut machine = machine_of(&log_of(&steps));
        machine.begin_snapshot();
        let bytes = take(&mut machine, 1000);
        prop_assert!(load(&bytes[..cut.index(bytes.len())], 7).is_err(), "cut short");
        let mut flipped = bytes.clone();
        flipped[at.index(bytes.len())] ^= 1 << bit;
        // The session table has no digest of its own: the file's checksums are its guard.
        if let Ok(loaded) = load(&flipped, 7) {
            prop_assert_eq!(loaded.store().digest(), machine.store().digest());
        }
    }

    #[test]
    fn garbage_does_not_load(bytes in prop::collection::vec(any::<u8>(), 1..300)) {
        let is_empty_state = bytes.len() >= 37 && bytes[17..37].iter().all(|byte| *byte == 0);
        prop_assert!(load(&bytes, 11).is_err() || is_empty_state);
    }
}

/// A key that came after the freeze leaves nothing in a piece, but passing it takes time.
#[test]
fn keys_that_are_newer_than_a_snapshot_are_passed_a_bounded_number_at_a_time() {
    const NEW_KEYS: usize = 10_000;
    const PIECE_BYTES: usize = 320;
    let mut machine = Machine::default();
    apply(&mut machine, Command::Write { request: None, op: put("a", "1") });
    machine.begin_snapshot();
    for key in 0..NEW_KEYS {
        apply(&mut machine, Command::Write { request: None, op: put(&format!("b{key}"), "2") });
    }
    let mut pieces = 1;
    let mut bytes = Vec::new();
    loop {
        let (piece, is_last) = machine.snapshot_piece(PIECE_BYTES);
        bytes.extend(piece);
        if is_last {
            break;
        }
        pieces += 1;
    }
    assert!(pieces >= NEW_KEYS / PIECE_BYTES, "{pieces} pieces");
    assert_eq!(load(&bytes, 100).expect("a whole snapshot").store().len(), 1);
}

#[test]
fn a_snapshot_that_is_abandoned_leaves_nothing_behind() {
    let mut machine = Machine::default();
    apply(&mut machine, Command::Write { request: None, op: put("a", "1") });
    let before = format!("{machine:?}");
    machine.begin_snapshot();
    machine.abandon_snapshot();
    assert_eq!(format!("{machine:?}"), before);
    apply(&mut machine, Command::Write { request: None, op: put("a", "2") });
    machine.begin_snapshot();
    let restored = load(&take(&mut machine, 10), 3).expect("a whole snapshot");
    assert_eq!(get(restored.store(), "a").as_deref(), Some("2"));
}

#[test]
fn a_session_in_a_snapshot_still_knows_what_it_executed() {
    let mut machine = Machine::default();
    let session = open(&mut machine);
    let first = request(&mut machine, session, 1);
    machine.begin_snapshot();
    let mut restored = load(&take(&mut machine, 10), 3).expect("a whole snapshot");
    assert_eq!(request(&mut restored, session, 1), first, "not executed again");
    assert_eq!(counter(request(&mut restored, session, 2)), 2);
}

#[test]
fn the_members_are_part_of_a_snapshot() {
    let membership = Rc::new(Membership { cluster_id: 7, ..Membership::of_voters([1, 2, 5]) });
    let payload = Payload::Members(Rc::clone(&membership));
    let mut machine = machine_of(&[Entry { term: 1, index: 1, payload }]);
    machine.begin_snapshot();
    let loaded = load(&take(&mut machine, 50), 50).expect("it can be read");
    assert_eq!(*loaded.membership(), membership);
}
