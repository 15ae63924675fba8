//! The real disk: a locked folder with an identity.

use crate::mem_disk::{Files, MemDisk};
use crate::model::{self, Batch, Model, command, config, position, small_log};
use raftkv::wal::{FileDisk, Identity, SnapshotKind, Wal, WalError};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder that does not exist yet, for one test.
fn folder(test: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("wal").join(test);
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    folder
}

fn error_of<T>(result: Result<T, WalError>) -> WalError {
    result.err().expect("this is refused")
}

#[test]
fn a_log_on_a_real_disk_survives_restarts() {
    let folder = folder("restarts").join("made").join("with its parents");
    let mut expected = Model::default();
    for batch in small_log() {
        let (mut wal, recovered) =
            Wal::open(FileDisk::open(&folder).unwrap(), config(1536)).unwrap();
        assert_eq!(Model::of(&recovered), expected);
        batch.append_to(&mut wal);
        wal.sync().unwrap();
        expected.apply(&batch);
        let bytes: u64 = fs::read_dir(&folder)
            .unwrap()
            .map(|item| item.unwrap())
            .filter(|item| item.file_name().to_string_lossy().starts_with("wal-"))
            .map(|item| item.metadata().unwrap().len())
            .sum();
        assert_eq!(wal.bytes_on_disk(), bytes);
    }
    let (wal, recovered) = Wal::open(FileDisk::open(&folder).unwrap(), config(1536)).unwrap();
    assert_eq!((Model::of(&recovered), wal.segments()), (expected, 2));
}

#[test]
fn a_torn_tail_on_a_real_disk_is_cut() {
    let folder = folder("torn");
    let batches = small_log();
    let write = |batch: &Batch| {
        let (mut wal, recovered) =
            Wal::open(FileDisk::open(&folder).unwrap(), config(4096)).unwrap();
        batch.append_to(&mut wal);
        wal.sync().unwrap();
        recovered
    };
    write(&batches[0]);
    write(&batches[1]);
    let path = folder.join("wal-0000000000000001.log");
    let before = fs::read(&path).unwrap();
    write(&Batch { hard_state: None, entries: vec![command(1, 4, &[1; 1000])] });
    // The power went when the batch's last sector was on the disk, and its first was not.
    let mut torn = fs::read(&path).unwrap();
    torn[1024..1536].copy_from_slice(&before[1024..1536]);
    fs::write(&path, torn).unwrap();
    let recovered = write(&batches[2]);
    assert!(recovered.torn_bytes > 0 && recovered.entries.len() == 3);
    assert_eq!(recovered.damaged, None);
    let recovered = write(&batches[3]);
    assert_eq!((recovered.torn_bytes, recovered.entries.len()), (0, 4));
    // A file that lost its end gets it back, but not what was in it.
    fs::File::options().write(true).open(&path).unwrap().set_len(1536).unwrap();
    let recovered = write(&Batch::default());
    assert!(recovered.damaged.unwrap().contains("damaged at byte 1536: the file ends here"));
    assert_eq!(fs::metadata(&path).unwrap().len(), 4096, "the room is set aside again");
}

#[test]
fn snapshots_on_a_real_disk_replace_the_log_before_them() {
    let folder = folder("snapshots");
    let open = || Wal::open(FileDisk::open(&folder).unwrap(), config(2048)).unwrap();
    let payload: Vec<u8> = (0..300_000_u32).map(|at| (at / 7) as u8).collect();
    let (mut wal, _) = open();
    for index in 1..=9 {
        wal.append_entries(&[command(1, index, &[1; 900])]);
        wal.sync().unwrap();
    }
    wal.begin_snapshot(SnapshotKind::Own, position(8, 1)).unwrap();
    for part in payload.chunks(100_000) {
        wal.append_snapshot(SnapshotKind::Own, part).unwrap();
    }
    wal.finish_snapshot(SnapshotKind::Own).unwrap();
    wal.compact(8).unwrap();
    drop(wal);
    let (mut wal, recovered) = open();
    assert_eq!((recovered.base, recovered.entries.len(), wal.segments()), (position(8, 1), 1, 1));
    assert_eq!(wal.read_snapshot(position(8, 1), 0, usize::MAX).unwrap(), payload);
    assert_eq!(wal.read_snapshot(position(8, 1), 299_990, 100).unwrap(), payload[299_990..]);
    wal.mark_damaged("for a test").unwrap();
    drop(wal);
    assert_eq!(open().1.damaged.as_deref(), Some("for a test"));
}

/// To give all pages of a large file back at once takes as long as an election.
#[test]
fn the_room_of_a_large_snapshot_is_given_back_little_by_little() {
    const PIECE_BYTES: usize = 1 << 20;
    const PIECES: usize = 10;
    let folder = folder("large-snapshots");
    let (mut wal, _) = Wal::open(FileDisk::open(&folder).unwrap(), config(2048)).unwrap();
    for index in 1..=3 {
        wal.begin_snapshot(SnapshotKind::Own, position(index, 1)).unwrap();
        for _ in 0..PIECES {
            wal.append_snapshot(SnapshotKind::Own, &[index as u8; PIECE_BYTES]).unwrap();
        }
        wal.finish_snapshot(SnapshotKind::Own).unwrap();
    }
    let name = "snapshot-0000000000000001-0000000000000001";
    assert!(!folder.join(name).exists(), "its name goes at once");
    let left = || removed_bytes(&folder.join(name));
    let mut before = left();
    assert!(before >= (PIECES * PIECE_BYTES) as u64, "{before} bytes are left");
    while wal.is_freeing() {
        wal.free_some().unwrap();
        let now = left();
        assert!((1..=8 << 20).contains(&(before - now)), "{before} bytes, then {now}");
        before = now;
    }
    assert_eq!(left(), 0);
    wal.free_some().unwrap();
    let kept: Vec<_> = wal.snapshots().iter().map(|file| file.position.index).collect();
    assert_eq!(kept, [2, 3]);
    fs::remove_dir_all(&folder).unwrap();
}

/// How long the file still is that had this name, while this process holds it open.
fn removed_bytes(path: &Path) -> u64 {
    let wanted = format!("{} (deleted)", path.display());
    let open = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let mut held = open.filter(|fd| fs::read_link(fd).is_ok_and(|to| to == Path::new(&wanted)));
    held.next().map_or(0, |fd| fs::metadata(fd).unwrap().len())
}

#[test]
fn room_for_a_segment_is_set_aside_before_it_is_used() {
    use std::os::unix::fs::MetadataExt;
    let folder = folder("room");
    let _wal = Wal::open(FileDisk::open(&folder).unwrap(), config(1 << 20)).unwrap();
    let metadata = fs::metadata(folder.join("wal-0000000000000001.log")).unwrap();
    assert!(metadata.blocks() * 512 >= 1 << 20, "{} blocks", metadata.blocks());
}

#[test]
fn a_folder_in_use_is_refused_until_it_is_free() {
    let folder = folder("lock");
    let first = Wal::open(FileDisk::open(&folder).unwrap(), config(4096)).unwrap();
    let error = error_of(FileDisk::open(&folder));
    assert!(matches!(error, WalError::InUse { .. }));
    let expected = format!("data folder {} is in use by another process", folder.display());
    assert!(error.to_string().starts_with(&expected), "{error}");
    drop(first);
    FileDisk::open(&folder).unwrap();
}

#[test]
fn a_folder_that_can_not_be_made_is_named() {
    let folder = folder("not a folder");
    fs::create_dir_all(folder.parent().unwrap()).unwrap();
    fs::write(&folder, b"").unwrap();
    let error = error_of(FileDisk::open(&folder.join("data")));
    assert!(matches!(error, WalError::Io { .. }));
    assert!(error.to_string().contains("not a folder"), "{error}");
    fs::remove_file(&folder).unwrap();
}

#[test]
fn an_identity_stays_as_it_was_first_given() {
    let folder = folder("identity");
    for drawn in [17, 18] {
        let mut disk = FileDisk::open(&folder).unwrap();
        let identity = Identity::load_or_create(&mut disk, 0xff, 2, "raft-2", drawn).unwrap();
        let name = "raft-2".to_owned();
        assert_eq!(identity, Identity { cluster_id: 0xff, node: 2, name, incarnation: 17 });
        Wal::open(disk, config(4096)).unwrap();
    }
    let text = fs::read_to_string(folder.join("identity")).unwrap();
    assert!(text.starts_with("raftkv identity 1\ncluster 00000000000000ff\nnode 2\nname raft-2\n"));
    assert!(!folder.join("identity.tmp").exists());
}

#[test]
fn the_folder_of_another_node_or_cluster_is_refused_and_says_whose_it_is() {
    let disk = MemDisk::default();
    Identity::load_or_create(&mut disk.clone(), 1, 2, "raft-2", 17).unwrap();
    let files = disk.files();
    for (cluster, node, name) in [(9, 2, "raft-2"), (1, 0, "raft-2"), (1, 2, "other-2")] {
        let error = error_of(Identity::load_or_create(&mut disk.clone(), cluster, node, name, 18));
        let text = error.to_string();
        assert!(matches!(error, WalError::Foreign { .. }));
        let owner = "belongs to node raft-2 (number 2) of cluster 0000000000000001";
        assert!(text.contains(owner), "{text}");
        assert!(text.contains(&format!("not to node {name} (number {node})")), "{text}");
        assert_eq!(disk.files(), files);
    }
}

/// Whatever was promised under the old one is gone, so nobody may take the node for the one that promised it.
#[test]
fn an_identity_without_its_log_is_that_of_another_incarnation() {
    let mut disk = MemDisk::default();
    let load = |disk: &mut MemDisk, drawn| {
        Identity::load_or_create(disk, 0xff, 2, "raft-2", drawn)
            .map(|identity| identity.incarnation)
    };
    assert_eq!(load(&mut disk, 17).unwrap(), 17);
    drop(Wal::open(disk.clone(), config(4096)).unwrap());
    assert_eq!(load(&mut disk, 18).unwrap(), 17);
    let mut files = disk.files();
    files.retain(|name, _| name == "identity");
    let mut disk = MemDisk::holding(&files);
    assert_eq!(load(&mut disk, 19).unwrap(), 19);
    assert_eq!(load(&mut disk, 20).unwrap(), 20, "still without a log");
}

/// Its log may be gone for a moment, but what it knows to have lost is written down.
#[test]
fn a_node_that_ends_in_the_recovery_from_damage_stays_the_same() {
    let sound = MemDisk::default();
    let start = |disk: &MemDisk, drawn| {
        let identity = Identity::load_or_create(&mut disk.clone(), 1, 2, "raft-2", drawn)?;
        Wal::open(disk.clone(), config(4096)).map(|_| identity.incarnation)
    };
    assert_eq!(start(&sound, 17).unwrap(), 17);
    let mut files = sound.files();
    let (_, log) = files.iter_mut().find(|(name, _)| name.starts_with("wal-")).unwrap();
    log[0] ^= 1;
    let mut ended_without_a_log = 0;
    for passing in 0.. {
        let disk = MemDisk::holding(&files);
        disk.fail_after(passing);
        let first = start(&disk, 18);
        disk.heal();
        let disk = disk.after_power_cut(|| true);
        let has_log = disk.files().keys().any(|name| name.starts_with("wal-"));
        ended_without_a_log += u32::from(!has_log);
        assert_eq!(start(&disk, 19).unwrap(), 17, "after {passing} operations");
        if first.is_ok() {
            break;
        }
    }
    assert!(ended_without_a_log > 0);
}

#[test]
fn a_log_without_an_identity_is_refused() {
    let disk = MemDisk::default();
    drop(model::open(&disk, 4096).unwrap());
    let error = error_of(Identity::load_or_create(&mut disk.clone(), 1, 2, "raft-2", 17));
    assert!(matches!(error, WalError::Foreign { .. }));
    assert!(error.to_string().contains("no file that says whose it is"), "{error}");
}

#[test]
fn an_identity_is_there_as_a_whole_or_not_at_all() {
    let create = |disk: &MemDisk, drawn| {
        let identity = Identity::load_or_create(&mut disk.clone(), 1, 2, "raft-2", drawn)?;
        Wal::open(disk.clone(), config(4096)).map(|_| identity)
    };
    let mut rng = fastrand::Rng::with_seed(3);
    for _ in 0..200 {
        for passing in 0.. {
            let disk = MemDisk::default();
            disk.fail_after(passing);
            let first = create(&disk, 17);
            disk.heal();
            let disk = if rng.bool() { disk.after_power_cut(|| rng.bool()) } else { disk };
            let found = create(&disk, 18).unwrap();
            assert!(first.is_err() || found.incarnation == 17);
            let disk = disk.after_power_cut(|| false);
            assert_eq!(create(&disk, 19).unwrap(), found);
            if first.is_ok() {
                assert!(passing >= 5, "an identity needs more than {passing} operations");
                break;
            }
        }
    }
}

#[test]
fn a_damaged_identity_is_refused_whatever_bit_is_flipped() {
    let disk = MemDisk::default();
    Identity::load_or_create(&mut disk.clone(), 1, 2, "raft-2", 17).unwrap();
    let sound = disk.files()["identity"].clone();
    let mut damaged: Vec<Vec<u8>> = (0..sound.len()).map(|cut| sound[..cut].to_vec()).collect();
    for bit in 0..sound.len() * 8 {
        let mut bytes = sound.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        damaged.push(bytes);
    }
    for bytes in damaged {
        let files = Files::from([("identity".to_owned(), bytes)]);
        let mut disk = MemDisk::holding(&files);
        let error = error_of(Identity::load_or_create(&mut disk, 1, 2, "raft-2", 17));
        let expected = matches!(error, WalError::Corrupt { .. } | WalError::UnknownVersion { .. });
        assert!(expected && error.to_string().contains("identity"), "{error}");
        assert_eq!(disk.files(), files);
    }
}

#[test]
fn a_name_that_would_break_the_file_is_refused() {
    for name in ["", "two\nlines", &"x".repeat(256)] {
        let mut disk = MemDisk::default();
        let error = error_of(Identity::load_or_create(&mut disk, 1, 2, name, 17));
        assert!(error.to_string().contains("1 to 255 bytes"), "{error}");
        assert!(!error.to_string().contains('\n') && disk.files().is_empty());
    }
}
