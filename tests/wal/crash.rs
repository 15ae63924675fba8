//! Crashes at every operation, of the log and of its recovery.

use crate::mem_disk::{DISK_FAILS, MemDisk};
use crate::model::{self, Batch, Model, command};
use raftkv::wal::WalError;

const SEGMENT_BYTES: u64 = 2560;

/// What may be found after a crash: what was acknowledged, or that and the batch that was under way, or of
/// that only the hard state.
struct Promise {
    acknowledged: Model,
    under_way: Option<Model>,
}

impl Promise {
    fn check(&self, found: &Model, seed: u64) {
        let kept = *found == self.acknowledged
            || self.under_way.as_ref().is_some_and(|under_way| {
                found == under_way
                    || *found
                        == Model { hard_state: under_way.hard_state, ..self.acknowledged.clone() }
            });
        assert!(kept, "seed {seed}: found {found:?} instead of {:?}", self.acknowledged);
    }
}

/// Nothing but the failing disk may stop a log that crashes left behind.
fn check_injected(error: &WalError, seed: u64) {
    let injected = matches!(error, WalError::Io { source, .. } if source.to_string() == DISK_FAILS);
    assert!(injected, "seed {seed}: {error}");
}

/// Opens the log and writes to it until the disk fails or `most` batches are written. What recovery
/// returned has been acted on, and so is a promise from then on.
fn run(disk: &MemDisk, promise: &mut Promise, most: usize, rng: &mut fastrand::Rng, seed: u64) {
    let (mut wal, recovered) = match model::open(disk, SEGMENT_BYTES) {
        Ok(opened) => opened,
        Err(error) => return check_injected(&error, seed),
    };
    let found = Model::of(&recovered);
    promise.check(&found, seed);
    *promise = Promise { acknowledged: found, under_way: None };
    for _ in 0..most {
        let batch = promise.acknowledged.random_batch(rng, 700);
        let mut next = promise.acknowledged.clone();
        next.apply(&batch);
        batch.append_to(&mut wal);
        promise.under_way = Some(next.clone());
        if let Err(error) = wal.sync() {
            return check_injected(&error, seed);
        }
        *promise = Promise { acknowledged: next, under_way: None };
    }
}

/// Random histories: each run ends at a random operation, by the death of the process, a failed sync
/// that the kernel forgets about, or a power cut that keeps any part of what was not synced.
#[test]
fn no_crash_loses_what_was_acknowledged_or_finds_what_was_not_written() {
    for seed in 0..3000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut disk = MemDisk::default();
        let mut promise = Promise { acknowledged: Model::default(), under_way: None };
        for _ in 0..8 {
            disk.fail_after(rng.usize(..25));
            run(&disk, &mut promise, 10, &mut rng, seed);
            disk.heal();
            match rng.u8(..4) {
                0 => {}
                1 => disk.forget_to_sync(),
                _ => {
                    let chance = rng.f64();
                    disk = disk.after_power_cut(|| rng.f64() < chance);
                }
            }
        }
        run(&disk, &mut promise, 0, &mut rng, seed);
    }
}

/// A torn batch is cut, with power cuts at every operation of the recovery itself.
#[test]
fn recovery_may_be_cut_short_at_every_operation_and_repeated() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let disk = MemDisk::default();
        let first = Batch { hard_state: None, entries: vec![command(1, 1, b"acknowledged")] };
        let last = Batch { hard_state: None, entries: vec![command(1, 2, &[0xff; 4000])] };
        let models = model::write(&disk, 8192, &[first]);
        let (mut wal, _) = model::open(&disk, 8192).unwrap();
        last.append_to(&mut wal);
        disk.fail_after(1);
        wal.sync().unwrap_err();
        disk.heal();
        let mut first_sector = true;
        let torn = disk.after_power_cut(|| !std::mem::take(&mut first_sector) && rng.bool());
        let mut passing = 0;
        loop {
            let disk = MemDisk::holding(&torn.files());
            disk.fail_after(passing);
            let complete = model::open(&disk, 8192).is_ok();
            let disk = disk.after_power_cut(|| rng.bool());
            let (_, recovered) = model::open(&disk, 8192).unwrap();
            assert_eq!(Model::of(&recovered), models[1], "seed {seed}, {passing} operations");
            if complete {
                break;
            }
            passing += 1;
        }
        assert!(passing >= 4, "a recovery of {passing} operations can not have cut anything");
    }
}

/// A process that is killed between its write and its sync leaves a batch that only memory holds.
/// Whoever reads it there must make it durable before acting on it.
#[test]
fn a_batch_found_after_a_killed_process_is_durable_once_recovery_returns() {
    for forgotten in [false, true] {
        let disk = MemDisk::default();
        let (mut wal, _) = model::open(&disk, 4096).unwrap();
        wal.append_entries(&[command(1, 1, b"written, not synced")]);
        disk.fail_after(1);
        wal.sync().unwrap_err();
        disk.heal();
        if forgotten {
            disk.forget_to_sync();
        }
        let (_, recovered) = model::open(&disk, 4096).unwrap();
        assert_eq!(recovered.entries.len(), 1);
        let disk = disk.after_power_cut(|| false);
        let (_, again) = model::open(&disk, 4096).unwrap();
        assert_eq!(again, recovered);
    }
}

/// A torn batch is cut, but the sync of that fails, and the kernel takes the zeros for written: what is
/// torn is gone for processes, and still on the disk. It may come back in the middle of a later batch.
#[test]
fn what_a_failed_cut_left_on_the_disk_is_never_taken_for_damage() {
    let batch = |index, byte: u8| Batch {
        hard_state: None,
        entries: vec![command(1, index, &[byte; 1500])],
    };
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let disk = MemDisk::default();
        let (mut wal, _) = model::open(&disk, 8192).unwrap();
        batch(1, 1).append_to(&mut wal);
        disk.fail_after(1);
        wal.sync().unwrap_err();
        disk.heal();
        let disk = disk.after_power_cut(|| rng.bool());

        // Opening makes some operations; the sync of the cut is among them.
        disk.fail_after(rng.usize(..8));
        let _ = model::open(&disk, 8192);
        disk.heal();
        disk.forget_to_sync();
        let (mut wal, recovered) = model::open(&disk, 8192).unwrap();
        let found = recovered.entries.len() as u64;
        Batch { hard_state: None, entries: vec![command(1, found + 1, b"small")] }
            .append_to(&mut wal);
        wal.sync().unwrap();
        batch(found + 2, 2).append_to(&mut wal);
        disk.fail_after(1);
        wal.sync().unwrap_err();
        let disk = disk.after_power_cut(|| rng.bool());
        let (_, recovered) = model::open(&disk, 8192).unwrap();
        let last = Model::of(&recovered).last_index();
        assert!([found + 1, found + 2].contains(&last), "seed {seed}: {last}");
    }
}
