//! Real processes and real files: compaction, followers that are sent snapshots, and damaged disks.

#[allow(dead_code)] // The other tests use the rest.
mod processes;

use processes::{Cluster, Info, await_condition};
use raftkv::kv::{Command, Loader, WriteOp};
use raftkv::raft::{Entry, Payload};
use raftkv::wal::{FileDisk, SnapshotKind, Wal, WalConfig};
use std::fs;
use std::path::PathBuf;

/// Everything small, so that snapshots are taken and segments dropped all the time.
const SMALL: [&str; 8] = [
    "--heartbeat",
    "20ms",
    "--election",
    "150ms",
    "--snapshot-log-bytes",
    "64KiB",
    "--segment-bytes",
    "16KiB",
];

fn number(info: &Info, name: &str) -> u64 {
    info[name].parse().unwrap_or_else(|_| panic!("{name} is a number: {}", info[name]))
}

fn info(cluster: &Cluster, node: usize) -> Info {
    cluster.info(node).expect("the node answers")
}

/// Overwrites a hundred keys again and again, with values of 100 bytes.
fn overwrite(cluster: &Cluster, writes: usize) {
    let mut client = cluster.client();
    for write in 0..writes {
        let (key, value) = (format!("k{}", write % 100), format!("{write:0100}"));
        client.put(key.as_bytes(), value.as_bytes()).expect("it is written");
    }
}

fn digests(cluster: &Cluster) -> Vec<String> {
    cluster.await_same_applied();
    cluster.running().into_iter().map(|node| info(cluster, node)["digest"].clone()).collect()
}

fn segments(cluster: &Cluster, node: usize) -> Vec<PathBuf> {
    files(cluster, node, "wal-")
}

fn files(cluster: &Cluster, node: usize, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(cluster.data_dir(node)).expect("the data folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    let is_one = |path: &PathBuf| {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        name.starts_with(prefix) && !name.ends_with(".tmp")
    };
    paths.retain(is_one);
    paths.sort();
    paths
}

#[test]
fn log_and_snapshots_stay_bounded_while_few_keys_are_overwritten() {
    let cluster = Cluster::start(3, &SMALL);
    let leader = cluster.await_leader();
    let mut largest = 0;
    for _ in 0..8 {
        overwrite(&cluster, 500);
        let info = info(&cluster, leader);
        largest = largest.max(number(&info, "raft_log_bytes"));
        assert!(number(&info, "raft_snapshots") <= 2);
    }
    // 4000 writes of about 180 bytes are 720 kB of log. Two snapshots apart, and what follows them.
    assert!(largest < 400 * 1024, "{largest}");
    let info = info(&cluster, leader);
    assert!(number(&info, "raft_log_first_index") > 2000, "{info:?}");
}

#[test]
fn a_follower_that_was_away_for_long_is_sent_a_snapshot() {
    let mut cluster = Cluster::start(3, &SMALL);
    let leader = cluster.await_leader();
    overwrite(&cluster, 200);
    let away = (leader + 1) % 3;
    cluster.kill(away);
    overwrite(&cluster, 3000);
    let first = number(&info(&cluster, leader), "raft_log_first_index");
    assert!(first > 1000, "the log it would need is gone: {first}");
    cluster.start_node(away);
    let digests = digests(&cluster);
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    assert!(number(&info(&cluster, away), "raft_log_first_index") > 1000);
    overwrite(&cluster, 100);
}

#[test]
fn a_restart_loads_the_snapshot_and_the_log_after_it() {
    let mut cluster = Cluster::start(3, &SMALL);
    cluster.await_leader();
    overwrite(&cluster, 1500);
    let before = digests(&cluster);
    for node in 0..3 {
        cluster.kill(node);
    }
    for node in 0..3 {
        cluster.start_node(node);
    }
    cluster.await_leader();
    assert_eq!(digests(&cluster), before);
    let mut client = cluster.client();
    let value = client.get(b"k99").expect("it is read").value.expect("it is there");
    assert_eq!(value, format!("{:0100}", 1499).into_bytes());
}

#[test]
fn a_corrupt_newest_snapshot_falls_back_to_the_older_one_and_the_log() {
    let mut cluster = Cluster::start(3, &SMALL);
    let leader = cluster.await_leader();
    overwrite(&cluster, 2500);
    let before = digests(&cluster);
    let node = (leader + 1) % 3;
    cluster.kill(node);
    let snapshots = files(&cluster, node, "snapshot-");
    assert_eq!(snapshots.len(), 2, "{snapshots:?}");
    flip_a_bit(&snapshots[1], 3000);
    cluster.start_node(node);
    assert_eq!(digests(&cluster), before);
    let info = info(&cluster, node);
    assert_eq!(info["raft_damaged"], "0", "nothing was lost: {info:?}");
    let log = cluster.log(node);
    assert!(log.contains("is damaged at byte"), "it says what it found: {log}");
    assert!(!log.contains("does not vote"), "nor was anything lost and fetched again: {log}");
}

fn flip_a_bit(path: &PathBuf, at: usize) {
    let mut bytes = fs::read(path).expect("the file is there");
    bytes[at] ^= 0x10;
    fs::write(path, bytes).expect("the file is ours");
}

#[test]
fn a_log_that_rotted_is_repaired_from_the_peers() {
    // No snapshots, so that the log is all there is.
    let mut cluster = Cluster::start(3, &["--heartbeat", "20ms", "--election", "150ms"]);
    let leader = cluster.await_leader();
    overwrite(&cluster, 300);
    let before = digests(&cluster);
    let node = (leader + 1) % 3;
    cluster.kill(node);
    flip_a_bit(&segments(&cluster, node)[0], 20_000);
    cluster.start_node(node);
    await_condition("the node to be whole again", || {
        cluster.info(node).is_some_and(|info| info["raft_damaged"] == "0")
    });
    assert!(cluster.log(node).contains("does not vote"), "it says what happened");
    assert_eq!(digests(&cluster), before);
    // And it votes again: with the old leader gone, the two elect one of them.
    cluster.kill(leader);
    cluster.await_leader();
    overwrite(&cluster, 10);
}

#[test]
fn with_a_majority_damaged_nobody_is_elected_and_the_nodes_say_why() {
    let mut cluster = Cluster::start(3, &["--heartbeat", "20ms", "--election", "150ms"]);
    cluster.await_leader();
    overwrite(&cluster, 300);
    for node in 0..3 {
        cluster.kill(node);
    }
    for node in 0..2 {
        flip_a_bit(&segments(&cluster, node)[0], 20_000);
    }
    for node in 0..3 {
        cluster.start_node(node);
    }
    await_condition("the nodes to answer", || (0..3).all(|node| cluster.info(node).is_some()));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(2);
    while std::time::Instant::now() < until {
        for node in 0..3 {
            assert_ne!(info(&cluster, node)["raft_role"], "leader", "made up out of a minority");
        }
    }
    for node in 0..2 {
        assert_eq!(info(&cluster, node)["raft_damaged"], "1");
        assert!(cluster.log(node).contains("does not vote"));
    }
    assert!(cluster.nc(2, "GET k1\n").starts_with("-CLUSTERDOWN"));
    await_condition("all to say what may be wrong", || {
        let says = |node, what: &str| cluster.log(node).contains(what);
        says(0, "this node has lost data and does not vote")
            && says(1, "if a majority has, only a sound copy of a data folder helps")
            && says(2, "some of them may have lost data, and do not vote")
    });
}

/// Gives a node a newest snapshot with one value changed, in the place of the one that it has. All
/// checksums are right: as if its memory had failed it.
fn falsify_state(cluster: &Cluster, node: usize) {
    let disk = FileDisk::open(&cluster.data_dir(node)).expect("the node is down");
    let wal = WalConfig { segment_bytes: 16 << 10, salt_seed: 1 };
    let (mut wal, _) = Wal::open(disk, wal).expect("a sound folder");
    let newest = *wal.snapshots().last().expect("a snapshot was taken");
    let payload = wal.read_snapshot(newest.position, 0, usize::MAX).expect("it is sound");
    let mut loader = Loader::default();
    loader.feed(&payload).expect("it is sound");
    let mut machine = loader.finish().expect("it is sound");
    let op = WriteOp::Put { key: b"still", value: b"false" };
    let command = Command::Write { request: None, op }.to_bytes();
    let index = newest.position.index + 1;
    let entry = Entry { term: 1, index, payload: Payload::Command(command.into()) };
    machine.apply(&entry).expect("a command");
    machine.begin_snapshot();
    let (mut payload, is_last) = machine.snapshot_piece(usize::MAX);
    assert!(is_last);
    payload[1..9].copy_from_slice(&newest.position.index.to_be_bytes());
    wal.begin_snapshot(SnapshotKind::Own, newest.position).expect("room");
    wal.append_snapshot(SnapshotKind::Own, &payload).expect("room");
    wal.finish_snapshot(SnapshotKind::Own).expect("room");
}

#[test]
fn a_replica_whose_state_differs_says_so_and_fetches_it_again() {
    let mut cluster = Cluster::start(3, &SMALL);
    let leader = cluster.await_leader();
    // Nothing writes to this key any more: only a comparison can find it.
    cluster.client().put(b"still", b"true").expect("it is written");
    overwrite(&cluster, 1500);
    cluster.await_same_applied();
    let node = (leader + 1) % 3;
    cluster.kill(node);
    falsify_state(&cluster, node);
    cluster.start_node(node);
    cluster.await_same_applied();
    let differs = info(&cluster, node)["digest"] != info(&cluster, leader)["digest"];
    assert!(differs || cluster.log(node).contains("is not the one that a majority has"));
    let mut client = cluster.client();
    for write in 0..600 {
        client.put(b"another", write.to_string().as_bytes()).expect("a majority is sound");
    }
    await_condition("the node to notice, and to be whole again", || {
        let log = cluster.log(node);
        log.contains("is not the one that a majority has: it is thrown away and fetched again")
            && log.contains("has got back what was lost")
    });
    let digests = digests(&cluster);
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    assert_eq!(info(&cluster, node)["raft_damaged"], "0");
}
