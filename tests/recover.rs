//! `srvraft recover` on a simulated disk: what it makes, what it refuses, and that a crash leaves the old
//! cluster or the new one.

#[path = "mem_disk/mod.rs"]
mod mem_disk;

use mem_disk::MemDisk;
use raftkv::config::{Config, Invocation, RecoverRequest, UsageError};
use raftkv::kv::{Command, Limits, Machine, WriteOp};
use raftkv::node;
use raftkv::ordered::Few;
use raftkv::raft::{
    self, Entry, HardState, Index, Member, Membership, NodeId, Payload, Position, Term, node_id,
};
use raftkv::recover::{RecoverError, Report, recover};
use raftkv::replica::Replica;
use raftkv::wal::{Identity, SnapshotKind, Wal, WalConfig};
use std::rc::Rc;

const CLUSTER_NAME_ID: u64 = 5;
const OLD: u64 = 0xc1;
const NEW: u64 = 0xc2;
const SEGMENT_BYTES: u64 = 4096;
const KEYS: u64 = 40;

fn id(at: u64) -> NodeId {
    node_id(at, at + 100)
}

fn members(voters: &[u64], learners: &[u64]) -> Membership {
    let member = |at: u64, is_voter: bool| {
        let (name, address) = (format!("raft-{at}"), format!("host-{at}:6000"));
        (id(at), Member { name, address, is_voter })
    };
    let voters = voters.iter().map(|at| member(*at, true));
    let all = voters.chain(learners.iter().map(|at| member(*at, false)));
    Membership { cluster_id: OLD, members: all.collect(), ..Membership::default() }
}

fn put(term: Term, index: Index) -> Entry {
    let (key, value) = (format!("k{index}"), format!("v{index}"));
    let op = WriteOp::Put { key: key.as_bytes(), value: value.as_bytes() };
    let command = Command::Write { request: None, op }.to_bytes();
    Entry { term, index, payload: Payload::Command(command.into()) }
}

fn wal_config() -> WalConfig {
    WalConfig { segment_bytes: SEGMENT_BYTES, salt_seed: 100 }
}

/// The folder of raft-0 in a cluster of these members, with a snapshot in the middle of its log.
fn folder(membership: Membership) -> MemDisk {
    let disk = MemDisk::default();
    Identity::load_or_create(&mut disk.clone(), CLUSTER_NAME_ID, 0, "raft-0", 100)
        .expect("a new folder");
    let (mut wal, _) = Wal::open(disk.clone(), wal_config()).expect("an empty log");
    wal.append_hard_state(HardState { term: 7, voted_for: Some(id(1)) });
    let mut machine = Machine::default();
    let founding = Entry { term: 1, index: 1, payload: Payload::Members(Rc::new(membership)) };
    let entries = [founding].into_iter().chain((2..KEYS + 2).map(|index| put(6, index)));
    for entry in entries {
        wal.append_entries(std::slice::from_ref(&entry));
        wal.sync().expect("it is stored");
        machine.apply(&entry).expect("it is a command");
        if entry.index == KEYS / 2 {
            take_snapshot(
                &mut wal,
                &mut machine,
                Position { index: entry.index, term: entry.term },
            );
        }
    }
    disk
}

fn take_snapshot(wal: &mut Wal<MemDisk>, machine: &mut Machine, position: Position) {
    wal.begin_snapshot(SnapshotKind::Own, position).expect("there is room");
    machine.begin_snapshot();
    let (bytes, is_last) = machine.snapshot_piece(usize::MAX);
    assert!(is_last);
    wal.append_snapshot(SnapshotKind::Own, &bytes).expect("there is room");
    wal.finish_snapshot(SnapshotKind::Own).expect("there is room");
}

fn request(accepted: &[&str]) -> RecoverRequest {
    RecoverRequest {
        name: "raft-0".to_owned(),
        number: 0,
        cluster_id: CLUSTER_NAME_ID,
        data_dir: "unused".into(),
        segment_bytes: SEGMENT_BYTES,
        accept_loss_of: accepted.iter().map(|name| name.to_string()).collect(),
    }
}

fn run(disk: &MemDisk, accepted: &[&str]) -> Result<Report, RecoverError> {
    recover(disk.clone(), &request(accepted), NEW)
}

/// A node on the folder, as `srvraft` starts it.
fn start(disk: &MemDisk) -> Replica<MemDisk> {
    let limits = Limits { key_bytes_max: 100, value_bytes_max: 1000 };
    let config = node::Config {
        raft: raft::Config {
            id: id(0),
            voters: Default::default(),
            heartbeat_ticks: 2,
            election_ticks_min: 10,
            election_ticks_max: 20,
            append_bytes_max: 1000,
            inflight_messages_max: 4,
            inflight_bytes_max: 10_000,
            uncommitted_bytes_max: 100_000,
            seed: 1,
        },
        name: "raft-0".to_owned(),
        address: "host-0:6000".to_owned(),
        initial: Few::new(),
        auto_members: true,
        limits,
        forward_timeout_ticks: 100,
        snapshot_log_bytes: 1 << 20,
        snapshot_piece_bytes: 1000,
    };
    Replica::open(config, disk.clone(), wal_config()).expect("it starts").0
}

fn lead_alone(disk: &MemDisk) -> Replica<MemDisk> {
    let mut replica = start(disk);
    for _ in 0..100 {
        replica.inputs().tick();
        replica.flush(|_| {}).expect("the disk works");
    }
    assert!(replica.node().raft().is_leader(), "it needs nobody else");
    replica
}

#[test]
fn one_of_three_becomes_a_cluster_of_one_with_all_that_it_had() {
    let disk = folder(members(&[0, 1, 2], &[]));
    let report = run(&disk, &["raft-2", "raft-1"]).expect("all others are given up");
    assert_eq!(report.last, Position { index: KEYS + 1, term: 6 });
    assert_eq!(report.position, Position { index: KEYS + 2, term: 8 }, "a term nobody was in");
    assert_eq!((report.before.cluster_id, report.after.cluster_id), (OLD, NEW));
    let replica = lead_alone(&disk);
    let (raft, machine) = (replica.node().raft(), replica.node().machine());
    assert_eq!(raft.membership(), &report.after);
    assert_eq!(raft.membership().voters().collect::<Vec<_>>(), [id(0)]);
    assert_eq!(report.after.removed, [id(1), id(2)], "they cannot come back with their folders");
    assert_eq!(machine.store().len() as u64, KEYS);
    for index in 2..KEYS + 2 {
        let value = machine.store().get(format!("k{index}").as_bytes()).expect("it is there");
        assert_eq!(*value, *format!("v{index}").as_bytes());
    }
}

/// A node that joins is sent the state from its first byte as the new cluster's: with a part of the old log it
/// would belong to the old cluster, and be refused after a lost connection.
#[test]
fn what_is_sent_to_nodes_that_join_never_names_the_old_cluster() {
    let disk = folder(members(&[0, 1, 2], &[]));
    let report = run(&disk, &["raft-1", "raft-2"]).expect("it is done");
    let replica = start(&disk);
    assert_eq!(replica.wal().snapshots().last().map(|file| file.position), Some(report.position));
    assert_eq!(replica.node().raft().log().before(), report.position, "no older entry can be sent");
    assert_eq!(replica.node().machine().membership().cluster_id, NEW);
}

fn parsed(words: &[&str]) -> Result<Invocation, UsageError> {
    Config::from_args(words.iter().map(Into::into), |_| None)
}

#[test]
fn the_command_line_says_which_folder_and_whose_loss() {
    let words = ["recover", "raft-2", "--data-dir", "/d", "--accept-loss-of", "raft-0, raft-1"];
    let Ok(Invocation::Recover(request)) = parsed(&words) else { panic!("{:?}", parsed(&words)) };
    assert_eq!((request.number, request.data_dir.as_path()), (2, "/d".as_ref()));
    assert!(request.accept_loss_of.iter().eq(["raft-0", "raft-1"]));
    assert_eq!(parsed(&["recover", "--help"]), Ok(Invocation::Help));
    for (words, hint) in [
        (&["recover"][..], "NAME is missing"),
        (&["recover", "raft"], "does not end in a number"),
        (&["recover", "raft-1", "raft-2"], "one NAME is recovered at a time"),
        (&["recover", "raft-1", "--accept-loss", "raft-2"], "did you mean --accept-loss-of?"),
        (&["recover", "raft-1", "--peers", "raft-0=a:1"], "--peers does not belong to 'recover'"),
        (&["recover", "raft-1", "--data_dir", "d"], "did you mean --data-dir?"),
        (&["raft-1", "--accept-loss-of", "raft-2"], "there is no --accept-loss-of"),
    ] {
        let UsageError(what) = parsed(words).expect_err(hint);
        assert!(what.contains(hint), "{words:?}: {what}");
    }
}

fn refusal(disk: &MemDisk, accepted: &[&str]) -> String {
    let before = start(disk);
    let error = run(disk, accepted).expect_err("it is refused");
    let after = start(disk);
    let (before, after) = (before.node().raft(), after.node().raft());
    assert_eq!(before.membership(), after.membership(), "{error}");
    assert_eq!(before.hard_state(), after.hard_state(), "{error}");
    assert_eq!(before.log().last(), after.log().last(), "{error}");
    error.to_string()
}

#[test]
fn whose_data_is_at_risk_has_to_be_said_in_full() {
    let disk = folder(members(&[0, 1, 2], &[3]));
    let nothing = refusal(&disk, &[]);
    assert!(nothing.contains("--accept-loss-of raft-1,raft-2,raft-3"), "{nothing}");
    let too_few = refusal(&disk, &["raft-1", "raft-2"]);
    assert!(too_few.starts_with("raft-3 would be given up"), "{too_few}");
    let itself = refusal(&disk, &["raft-0", "raft-1", "raft-2", "raft-3"]);
    assert!(itself.contains("names raft-0; the other members are raft-1, raft-2"), "{itself}");
    let unknown = refusal(&disk, &["raft-1", "raft-2", "raft-33"]);
    assert!(unknown.contains("names raft-33;"), "{unknown}");
}

#[test]
fn nodes_that_are_no_members_are_refused_and_a_learner_is_not() {
    let others = ["raft-1", "raft-2"];
    let no_member = refusal(&folder(members(&[1, 2], &[])), &others);
    assert!(no_member.contains("by its own log raft-0 is no member"), "{no_member}");
    let mut left = members(&[1, 2], &[]);
    left.removed.push_back(id(0));
    let removed = refusal(&folder(left), &others);
    assert!(removed.contains("was removed from its cluster"), "{removed}");
    let alone = refusal(&folder(members(&[0], &[])), &others);
    assert!(alone.contains("is the only member of its cluster"), "{alone}");
    let nobody = refusal(&folder(members(&[], &[])), &others);
    assert!(nobody.contains("belongs to no cluster yet"), "{nobody}");
    let learner = folder(members(&[1, 2], &[0]));
    let report = run(&learner, &others).expect("better than nothing");
    assert!(report.was_learner && report.to_string().contains("careful: raft-0 was a learner"));
    lead_alone(&learner);
}

#[test]
fn an_empty_folder_and_another_nodes_folder_are_refused() {
    let empty = run(&MemDisk::default(), &["raft-1"]).expect_err("there is nothing");
    assert!(matches!(empty, RecoverError::Empty { .. }), "{empty}");
    let disk = folder(members(&[0, 1, 2], &[]));
    let mut others = request(&["raft-1", "raft-2"]);
    others.cluster_id = 6;
    let error = recover(disk.clone(), &others, NEW).expect_err("of another cluster");
    assert!(error.to_string().contains("belongs to node raft-0"), "{error}");
}

#[test]
fn a_damaged_log_is_refused_and_stays_marked_as_damaged() {
    let disk = folder(members(&[0, 1, 2], &[]));
    let segments: Vec<String> =
        disk.files().into_keys().filter(|name| name.starts_with("wal-")).collect();
    let newest = segments.last().expect("there is a log");
    // In the first batch of the newest segment, behind the snapshot: batches follow it.
    disk.corrupt(newest, 1024 + 100);
    for _ in 0..2 {
        let error = run(&disk, &["raft-1", "raft-2"]).expect_err("it lacks something");
        assert!(matches!(error, RecoverError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("recover another node's"), "{error}");
    }
    assert!(start(&disk).node().raft().is_damaged());
}

/// What a folder says after a crash: the old cluster and all of its log, or the new one.
fn is_done(disk: &MemDisk) -> bool {
    let replica = start(disk);
    let raft = replica.node().raft();
    let cluster_id = raft.membership().cluster_id;
    if cluster_id == OLD {
        assert_eq!(raft.log().last().index, KEYS + 1);
        assert_eq!(raft.membership().voter_count(), 3);
        return false;
    }
    assert_eq!((cluster_id, raft.membership().voter_count()), (NEW, 1));
    true
}

#[test]
fn a_crash_at_any_operation_leaves_the_old_cluster_or_the_new_one() {
    let accepted = ["raft-1", "raft-2"];
    let mut rng = fastrand::Rng::with_seed(1);
    let (mut undone, mut done) = (0, 0);
    for operations in 0.. {
        let disk = folder(members(&[0, 1, 2], &[])).copy();
        disk.fail_after(operations);
        let finished = run(&disk, &accepted).is_ok();
        disk.heal();
        for _ in 0..8 {
            let crashed = disk.after_power_cut(|| rng.bool());
            assert!(!finished || is_done(&crashed), "it was said to be done");
            let again = run(&crashed, &accepted);
            match again {
                Ok(_) => undone += 1,
                Err(RecoverError::OnlyMember { .. }) => done += 1,
                Err(error) => panic!("after {operations} operations: {error}"),
            }
            let replica = lead_alone(&crashed);
            assert_eq!(replica.node().raft().membership().cluster_id, NEW);
            assert_eq!(replica.node().machine().store().len() as u64, KEYS);
            let newest = replica.wal().snapshots().last().expect("there is one").position.index;
            assert!(newest >= KEYS + 2, "a second run makes the snapshot that a crash prevented");
        }
        if finished {
            break;
        }
    }
    assert!(undone > 50 && done > 8, "{undone} undone, {done} done");
}

#[test]
fn a_full_disk_leaves_everything_as_it_was() {
    let disk = folder(members(&[0, 1, 2], &[])).copy();
    disk.make_full();
    let error = run(&disk, &["raft-1", "raft-2"]).expect_err("there is no room for a snapshot");
    assert!(matches!(&error, RecoverError::Wal(error) if error.is_full()), "{error}");
    disk.heal();
    assert!(!is_done(&disk));
    run(&disk, &["raft-1", "raft-2"]).expect("with room it is done");
}
