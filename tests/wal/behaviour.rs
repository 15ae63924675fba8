//! A sound disk: what is synced comes back.

use crate::mem_disk::{Counts, DISK_FAILS, MemDisk};
use crate::model::{self, Batch, Model, command, config, hard_state, noop, small_log};
use proptest::prelude::*;
use raftkv::wal::{Wal, WalConfig, WalError};

#[test]
fn an_empty_folder_becomes_an_empty_log() {
    let (wal, recovered) = model::open(&MemDisk::default(), 4096).unwrap();
    assert_eq!(Model::of(&recovered), Model::default());
    assert_eq!((recovered.torn_bytes, wal.segments(), wal.bytes_on_disk()), (0, 1, 4096));
}

#[test]
fn what_is_synced_survives_restarts() {
    let disk = MemDisk::default();
    let mut expected = Model::default();
    for batch in small_log() {
        let models = model::write(&disk, 4096, &[batch]);
        assert_eq!(models[0], expected);
        expected = models[1].clone();
    }
    assert_eq!(Model::of(&model::open(&disk, 4096).unwrap().1), expected);
    assert_eq!(expected.entries.len(), 7);
    assert_eq!(expected.hard_state, hard_state(3, Some(1)));
}

#[test]
fn what_is_not_synced_is_not_written() {
    let disk = MemDisk::default();
    let (mut wal, _) = model::open(&disk, 4096).unwrap();
    let before = (disk.files(), disk.counts());
    wal.append_entries(&[noop(1, 1)]);
    wal.append_hard_state(hard_state(1, None));
    assert_eq!((disk.files(), disk.counts()), before);
}

#[test]
fn a_sync_is_one_write_and_one_fdatasync_and_without_need_nothing() {
    let disk = MemDisk::default();
    let (mut wal, _) = model::open(&disk, 4096).unwrap();
    let before = disk.counts();
    wal.append_entries(&[noop(1, 1), command(1, 2, b"x")]);
    wal.append_entries(&[command(1, 3, b"y")]);
    wal.sync().unwrap();
    let expected = Counts { writes: before.writes + 1, syncs: before.syncs + 1, ..before };
    assert_eq!(disk.counts(), expected);
    wal.append_hard_state(hard_state(1, Some(0)));
    wal.sync().unwrap();
    let expected = Counts { writes: expected.writes + 2, syncs: expected.syncs + 1, ..before };
    assert_eq!(disk.counts(), expected, "a changed hard state is written twice, synced once");
    wal.append_hard_state(hard_state(1, Some(0)));
    wal.append_entries(&[]);
    wal.sync().unwrap();
    assert_eq!(disk.counts(), expected);
}

#[test]
fn an_entry_takes_the_place_of_everything_from_its_index_on() {
    let disk = MemDisk::default();
    let (mut wal, _) = model::open(&disk, 4096).unwrap();
    wal.append_entries(&[noop(1, 1), command(2, 2, b"b"), command(3, 3, b"c"), noop(3, 4)]);
    wal.sync().unwrap();
    wal.append_entries(&[command(1, 2, b"an older term may replace a newer one")]);
    wal.sync().unwrap();
    wal.append_entries(&[command(4, 3, b"lost in its own batch")]);
    wal.append_entries(&[command(3, 3, b"new")]);
    wal.sync().unwrap();
    let (_, recovered) = model::open(&disk, 4096).unwrap();
    let older = command(1, 2, b"an older term may replace a newer one");
    assert_eq!(recovered.entries, vec![noop(1, 1), older, command(3, 3, b"new")]);
}

#[test]
fn a_log_goes_on_over_many_segments() {
    let disk = MemDisk::default();
    let batches: Vec<Batch> = (1..=200)
        .map(|index| Batch {
            hard_state: (index % 10 == 0).then(|| hard_state(index / 10, None)),
            entries: vec![command(index / 10, index, &[index as u8; 100])],
        })
        .collect();
    let models = model::write(&disk, 2048, &batches);
    let (wal, recovered) = model::open(&disk, 2048).unwrap();
    assert_eq!(Model::of(&recovered), models[200]);
    let files = model::segments(&disk.files());
    assert!(files.len() > 30, "{} segments", files.len());
    assert_eq!(wal.segments(), files.len());
    assert_eq!(wal.bytes_on_disk(), wal.segments() as u64 * 2048);
    assert!(files.values().all(|bytes| bytes.len() == 2048));
}

#[test]
fn a_batch_larger_than_a_segment_gets_one_of_its_size() {
    let disk = MemDisk::default();
    let large = |index| Batch { hard_state: None, entries: vec![command(1, index, &[1; 5000])] };
    let small = |index| Batch { hard_state: None, entries: vec![command(1, index, b"small")] };
    let models = model::write(&disk, 1024, &[small(1), large(2), small(3), large(4), small(5)]);
    let (wal, recovered) = model::open(&disk, 1024).unwrap();
    assert_eq!(recovered.entries, models[5].entries);
    let sizes: Vec<usize> = model::segments(&disk.files()).values().map(Vec::len).collect();
    assert_eq!(sizes, [1536, 6144, 1536, 6144, 1536], "whole sectors, at least one for batches");
    assert_eq!(wal.bytes_on_disk(), sizes.iter().sum::<usize>() as u64);
}

#[test]
fn segments_of_another_size_than_now_configured_are_read_and_filled() {
    let disk = MemDisk::default();
    let batches = small_log();
    model::write(&disk, 1500, &batches[..4]);
    let models = model::write(&disk, 8192, &batches[4..]);
    let (wal, recovered) = model::open(&disk, 512).unwrap();
    assert_eq!(Model::of(&recovered), *models.last().unwrap());
    let sizes: Vec<usize> = model::segments(&disk.files()).values().map(Vec::len).collect();
    assert_eq!(sizes, [1536, 8192]);
    assert_eq!(wal.bytes_on_disk(), sizes.iter().sum::<usize>() as u64);
}

#[test]
fn a_failed_write_or_sync_is_final() {
    // A small batch is a write and a sync; one that needs a segment has five operations before those.
    for (entry_bytes, operations) in [(10, 2), (2000, 7)] {
        for passing in 0..operations {
            let disk = MemDisk::default();
            let (mut wal, _) = model::open(&disk, 1536).unwrap();
            wal.append_entries(&[noop(1, 1)]);
            wal.sync().unwrap();
            disk.fail_after(passing);
            wal.append_entries(&[command(1, 2, &vec![1; entry_bytes])]);
            let error = wal.sync().unwrap_err();
            assert!(matches!(error, WalError::Io { .. }), "{error}");
            disk.heal();
            let files = disk.files();
            for _ in 0..2 {
                wal.append_entries(&[command(1, 9, b"not even looked at")]);
                let error = wal.sync().unwrap_err();
                assert!(
                    matches!(&error, WalError::Stopped { first } if first.contains(DISK_FAILS))
                );
            }
            assert_eq!(disk.files(), files);
            let (_, recovered) = model::open(&disk, 1024).unwrap();
            assert_eq!(recovered.entries[0], noop(1, 1));
            assert!(recovered.entries.len() <= 2);
        }
        let disk = MemDisk::default();
        let (mut wal, _) = model::open(&disk, 1536).unwrap();
        let before = disk.counts().total();
        wal.append_entries(&[command(1, 1, &vec![1; entry_bytes])]);
        wal.sync().unwrap();
        assert_eq!(disk.counts().total() - before, operations, "every operation was failed once");
    }
}

/// The kernel may have marked as clean what it could not write: a second sync would succeed, and lie.
#[test]
fn a_sync_that_fails_is_not_tried_again() {
    let disk = MemDisk::default();
    let (mut wal, _) = model::open(&disk, 4096).unwrap();
    let before = disk.counts();
    disk.fail_after(1);
    wal.append_entries(&[noop(1, 1)]);
    wal.sync().unwrap_err();
    wal.sync().unwrap_err();
    let expected = Counts { writes: before.writes + 1, syncs: before.syncs + 1, ..before };
    assert_eq!(disk.counts(), expected);
}

#[test]
#[should_panic(expected = "entry 3 leaves a gap: the newest entry is 1")]
fn a_gap_in_what_is_appended_is_a_bug_of_the_caller() {
    let (mut wal, _) = model::open(&MemDisk::default(), 4096).unwrap();
    wal.append_entries(&[noop(1, 1)]);
    wal.append_entries(&[noop(1, 3)]);
}

#[test]
#[should_panic(expected = "entry 2 has term 1, below term 2 of entry 1")]
fn a_term_that_goes_backwards_is_a_bug_of_the_caller() {
    let (mut wal, _) = model::open(&MemDisk::default(), 4096).unwrap();
    wal.append_entries(&[noop(2, 1), noop(1, 2)]);
}

#[test]
#[should_panic(expected = "the vote of term 2 went to node 1, and later elsewhere")]
fn a_second_vote_in_a_term_is_a_bug_of_the_caller() {
    let (mut wal, _) = model::open(&MemDisk::default(), 4096).unwrap();
    wal.append_hard_state(hard_state(2, Some(1)));
    wal.append_hard_state(hard_state(2, Some(0)));
}

#[test]
fn the_same_log_of_another_node_has_other_checksums() {
    let header_of = |salt_seed| {
        let disk = MemDisk::default();
        Wal::open(disk.clone(), WalConfig { salt_seed, ..config(4096) }).unwrap();
        model::segments(&disk.files())
    };
    assert_ne!(header_of(1), header_of(2));
    assert_eq!(header_of(1), header_of(1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Appends, replacements, votes, several appends to a batch, unsynced appends and restarts, against
    /// a list in memory.
    #[test]
    fn any_history_is_what_a_list_in_memory_says(
        seed: u64,
        steps in prop::collection::vec(0_u8..10, 1..60),
        segment_bytes in prop::sample::select(vec![600_u64, 2048, 4096]),
    ) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let disk = MemDisk::default();
        let mut wal = model::open(&disk, segment_bytes).unwrap().0;
        let mut synced = Model::default();
        let mut appended = Model::default();
        for step in steps {
            match step {
                0 => {
                    drop(wal);
                    let (opened, recovered) = model::open(&disk, segment_bytes).unwrap();
                    prop_assert_eq!(Model::of(&recovered), synced.clone());
                    prop_assert_eq!(recovered.torn_bytes, 0);
                    wal = opened;
                    appended = synced.clone();
                }
                1..=5 => {
                    let batch = appended.random_batch(&mut rng, 200);
                    batch.append_to(&mut wal);
                    appended.apply(&batch);
                }
                _ => {
                    wal.sync().unwrap();
                    synced = appended.clone();
                }
            }
        }
        let (_, recovered) = model::open(&disk, segment_bytes).unwrap();
        prop_assert_eq!(Model::of(&recovered), synced);
    }
}
