//! Bytes that are not what was written: what is cut, what is marked as damage, and that neither an
//! acknowledged entry nor a vote is ever lost silently.

use crate::mem_disk::{Files, MemDisk, SECTOR_BYTES};
use crate::model::{self, Batch, Model, command, hard_state, small_log};
use proptest::prelude::*;
use raftkv::wal::{Recovered, WalError};
use std::ops::Range;

pub const SEGMENT_BYTES: u64 = 1536;
const BATCH_HEADER_BYTES: usize = 45;
/// The segment header and the copy of the hard state.
pub const FRONT_BYTES: usize = 2 * SECTOR_BYTES;
const DATA_BYTES: usize = SECTOR_BYTES - 4;
const FIRST: &str = "wal-0000000000000001.log";
pub const SECOND: &str = "wal-0000000000000002.log";

/// Where in a segment's file a byte of its batches is.
fn offset(at: usize) -> usize {
    FRONT_BYTES + at / DATA_BYTES * SECTOR_BYTES + at % DATA_BYTES
}

/// A log, what it held after each batch, and where each batch is among the batches of its segment.
pub struct Written {
    pub files: Files,
    pub models: Vec<Model>,
    pub batches: Vec<(String, Range<usize>)>,
}

impl Written {
    pub fn new(segment_bytes: u64, batches: &[Batch]) -> Written {
        let disk = MemDisk::default();
        let mut written = Written { files: disk.files(), models: vec![], batches: vec![] };
        written.models = model::write(&disk, segment_bytes, &[]);
        for batch in batches {
            let models = model::write(&disk, segment_bytes, std::slice::from_ref(batch));
            written.models.extend_from_slice(&models[1..]);
            let name = model::segments(&disk.files()).into_keys().next_back().unwrap();
            let start = match written.batches.last() {
                Some((before, range)) if *before == name => range.end,
                _ => 0,
            };
            let bytes = &disk.files()[&name];
            let length = std::array::from_fn(|i| bytes[offset(start + 4 + i)]);
            let end = start + BATCH_HEADER_BYTES + u32::from_be_bytes(length) as usize;
            written.batches.push((name, start..end));
        }
        written.files = disk.files();
        written
    }

    pub fn small() -> Written {
        let written = Written::new(SEGMENT_BYTES, &small_log());
        assert_eq!(model::segments(&written.files).len(), 2, "an older and a newest segment");
        assert_eq!(written.batches[5].0, written.batches[6].0, "and two batches in the newest");
        written
    }

    pub fn all(&self) -> &Model {
        self.models.last().unwrap()
    }

    fn all_but_the_last(&self) -> &Model {
        &self.models[self.models.len() - 2]
    }

    fn last_batch(&self) -> (String, Range<usize>) {
        self.batches.last().unwrap().clone()
    }

    /// The log with a sector of a segment as it was in another one.
    fn with_sectors_of(&self, name: &str, other: &Files, sectors: &[usize]) -> Files {
        let mut files = self.files.clone();
        for sector in sectors {
            let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
            files.get_mut(name).unwrap()[range.clone()].copy_from_slice(&other[name][range]);
        }
        files
    }
}

pub fn recover(files: &Files) -> (MemDisk, Result<Recovered, WalError>) {
    let disk = MemDisk::holding(files);
    let result = model::open(&disk, SEGMENT_BYTES).map(|(_, recovered)| recovered);
    (disk, result)
}

/// A cut must stay cut: found again on a second start, and not in the way of what is appended.
fn check_usable(disk: &MemDisk, expected: &Model) {
    let next = Batch {
        hard_state: None,
        entries: vec![command(9, expected.last_index() + 1, b"after the cut")],
    };
    let models = model::write(disk, SEGMENT_BYTES, &[next]);
    assert_eq!(models[0], *expected);
    let (_, recovered) = model::open(disk, SEGMENT_BYTES).unwrap();
    assert_eq!((Model::of(&recovered), recovered.torn_bytes), (models[1].clone(), 0));
}

/// Damage is marked, at every start, until the owner says otherwise; the hard state is kept whatever is
/// lost; what is left is what the log once was; and the log can be used.
pub fn check_damaged(
    disk: &MemDisk,
    written: &Written,
    result: Result<Recovered, WalError>,
) -> (Vec<raftkv::raft::Entry>, String) {
    let recovered = result.unwrap_or_else(|error| panic!("{error}"));
    let text = recovered.damaged.clone().expect("the damage is noticed");
    assert!(!text.contains('\n'), "{text}");
    assert_eq!(recovered.hard_state, written.all().hard_state, "{text}");
    let entries = recovered.entries.clone();
    assert!(written.models.iter().any(|model| model.entries == entries), "{entries:?}");
    assert!(disk.files().contains_key("damaged"), "{text}");

    let next =
        Batch { hard_state: None, entries: vec![command(9, entries.len() as u64 + 1, b"x")] };
    let (mut wal, again) = model::open(disk, SEGMENT_BYTES).unwrap();
    assert_eq!((again.damaged.as_deref(), wal.damaged()), (Some(&text[..]), Some(&text[..])));
    assert_eq!((&again.entries, again.hard_state), (&entries, recovered.hard_state));
    next.append_to(&mut wal);
    wal.sync().unwrap();
    wal.mark_whole().unwrap();
    assert_eq!(wal.damaged(), None);
    let (_, whole) = model::open(disk, SEGMENT_BYTES).unwrap();
    let mut expected = Model { hard_state: recovered.hard_state, entries: entries.clone() };
    expected.apply(&next);
    assert_eq!(Model::of(&whole), expected);
    (entries, text)
}

fn check_refused(disk: &MemDisk, before: &Files, result: Result<Recovered, WalError>) -> String {
    let error = result.expect_err("this is refused");
    assert!(matches!(error, WalError::Corrupt { .. }), "{error}");
    assert_eq!(disk.files(), *before, "refusing changes nothing");
    let text = error.to_string();
    assert!(!text.contains('\n') && text.contains("wal-"), "{text}");
    text
}

/// No crash shortens a file, so what is missing at its end was lost, if only zeros were.
#[test]
fn a_newest_segment_cut_at_any_byte_is_damage_and_keeps_every_batch_before_the_cut() {
    let written = Written::small();
    let (newest, _) = written.last_batch();
    for cut in 0..SEGMENT_BYTES as usize {
        let mut files = written.files.clone();
        files.get_mut(&newest).unwrap().truncate(cut);
        let (disk, result) = recover(&files);
        if cut < FRONT_BYTES {
            // Of the hard state, neither the batches nor the copy is left.
            let text = check_refused(&disk, &files, result);
            assert!(text.contains("the newest term and vote can not be read any more"), "{text}");
            continue;
        }
        let (entries, text) = check_damaged(&disk, &written, result);
        assert!(text.contains(&newest), "{text}");
        // All its batches are in one sector, which is there as a whole or not at all.
        assert_eq!(entries, written.models[4].entries, "cut at {cut}");
    }
}

#[test]
fn an_older_segment_cut_at_any_byte_is_damage_unless_nothing_was_there() {
    let entry = |index, bytes| vec![command(1, index, &vec![7; bytes])];
    let batches = [(1, 200), (2, 100), (3, 700)]
        .map(|(index, bytes)| Batch { hard_state: None, entries: entry(index, bytes) });
    let written = Written::new(2048, &batches);
    let names: Vec<&str> = written.batches.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, [FIRST, FIRST, SECOND]);
    assert!(written.batches[1].1.end < DATA_BYTES, "one sector of the older segment is unused");
    for cut in 0..2048 {
        let mut files = written.files.clone();
        files.get_mut(FIRST).unwrap().truncate(cut);
        let (disk, result) = recover(&files);
        if cut >= FRONT_BYTES + SECTOR_BYTES {
            assert_eq!(Model::of(&result.unwrap()), *written.all(), "cut at {cut}");
        } else {
            let (entries, text) = check_damaged(&disk, &written, result);
            assert!(text.contains(FIRST) && entries.is_empty(), "cut at {cut}: {text}");
        }
    }
}

/// The end of a sector is the end of what a crash may take away: the same as if it was never written.
#[test]
fn a_last_segment_that_is_zero_from_a_sector_on_is_torn_there() {
    let batches: Vec<Batch> = (1..=8)
        .map(|i| Batch { hard_state: None, entries: vec![command(1, i, &[i as u8; 300])] })
        .collect();
    let written = Written::new(8192, &batches);
    let (name, last) = written.last_batch();
    let last_sector = offset(last.start) / SECTOR_BYTES;
    for sector in last_sector + 1..8192 / SECTOR_BYTES {
        let mut files = written.files.clone();
        files.get_mut(&name).unwrap()[sector * SECTOR_BYTES..].fill(0);
        let (disk, result) = recover(&files);
        let is_torn = sector * SECTOR_BYTES < offset(last.end);
        let expected = if is_torn { written.all_but_the_last() } else { written.all() };
        let recovered = result.unwrap();
        assert_eq!(Model::of(&recovered), *expected);
        assert_eq!(recovered.torn_bytes > 0, is_torn);
        check_usable(&disk, expected);
    }
}

/// The rule that everything rests on: whatever bit is flipped, in the last batch too, recovery returns
/// all that was acknowledged or says that something is missing, and it never returns an older hard state.
#[test]
fn any_flipped_bit_is_harmless_or_known_for_damage() {
    let written = Written::small();
    let (mut damaged, mut harmless) = (0, 0);
    for (name, bytes) in &model::segments(&written.files) {
        for bit in 0..bytes.len() * 8 {
            let at = bit / 8;
            let mut files = written.files.clone();
            files.get_mut(name).unwrap()[at] ^= 1 << (bit % 8);
            let (disk, result) = recover(&files);
            if (SECTOR_BYTES..FRONT_BYTES).contains(&at) {
                let recovered = result.unwrap();
                assert_eq!(recovered.damaged, None);
                assert_eq!(recovered.notes.len(), usize::from(name == SECOND));
                let Recovered { hard_state, entries, .. } = recovered;
                assert_eq!(Model { hard_state, entries }, *written.all(), "bit {bit} of {name}");
                harmless += 1;
            } else {
                let text = check_damaged(&disk, &written, result).1;
                assert!(text.contains(name.as_str()), "bit {bit} of {name}: {text}");
                damaged += 1;
            }
        }
    }
    assert_eq!(harmless, 2 * SECTOR_BYTES * 8);
    assert_eq!(damaged, 2 * (SEGMENT_BYTES as usize - SECTOR_BYTES) * 8);
}

/// The same with a last batch of many sectors that a crash has torn: the batches before it are safe.
#[test]
fn any_flipped_bit_of_a_torn_log_is_harmless_or_known_for_damage() {
    let mut batches = small_log();
    let before = Written::new(4096, &batches);
    batches.push(Batch { hard_state: None, entries: vec![command(3, 8, &[0x77; 1500])] });
    let written = Written::new(4096, &batches);
    let (name, last) = written.last_batch();
    assert_eq!(name, FIRST);
    let sectors = offset(last.start) / SECTOR_BYTES..=offset(last.end) / SECTOR_BYTES;
    for missing in sectors {
        let torn = written.with_sectors_of(FIRST, &before.files, &[missing]);
        for bit in (0..torn[FIRST].len() * 8).step_by(7) {
            let mut files = torn.clone();
            files.get_mut(FIRST).unwrap()[bit / 8] ^= 1 << (bit % 8);
            let (disk, result) = recover(&files);
            let is_copy = (SECTOR_BYTES..FRONT_BYTES).contains(&(bit / 8));
            if is_copy {
                assert_eq!(result.unwrap().entries, before.all().entries);
            } else {
                let (entries, _) = check_damaged(&disk, &before, result);
                assert!(entries.len() <= before.all().entries.len());
            }
        }
    }
}

/// The copy of the hard state is what tells it when the batch that set it is lost; without both, nobody
/// knows which votes were given.
#[test]
fn a_node_that_may_have_lost_a_vote_does_not_start() {
    let batches = [
        Batch { hard_state: Some(hard_state(4, None)), entries: vec![command(4, 1, b"a")] },
        Batch { hard_state: Some(hard_state(5, Some(2))), entries: vec![] },
    ];
    let written = Written::new(SEGMENT_BYTES, &batches);
    let (_, last) = written.last_batch();
    let flipped = |places: &[usize]| {
        let mut files = written.files.clone();
        for &at in places {
            files.get_mut(FIRST).unwrap()[at] ^= 1;
        }
        files
    };
    let in_batch = offset(last.end - 1);
    let (disk, result) = recover(&flipped(&[in_batch]));
    check_damaged(&disk, &written, result);
    for places in [[in_batch, SECTOR_BYTES + 20], [0, SECTOR_BYTES + 20]] {
        let files = flipped(&places);
        let (disk, result) = recover(&files);
        let text = check_refused(&disk, &files, result);
        assert!(text.contains("the newest term and vote can not be read any more"), "{text}");
        assert!(text.contains("replace this node by an empty one"), "{text}");
    }
}

/// W11: the sectors of the last batch reach the disk in any order, so that any of them may be missing.
#[test]
fn a_last_batch_with_any_sectors_missing_is_cut() {
    let mut rng = fastrand::Rng::with_seed(11);
    let mut batches = small_log();
    batches[6].entries[1] = command(3, 7, &(0..6000).map(|_| rng.u8(1..)).collect::<Vec<_>>());
    let before = Written::new(16 << 10, &batches[..6]);
    let written = Written::new(16 << 10, &batches);
    let (name, last) = written.last_batch();
    let sectors: Vec<usize> =
        (offset(last.start) / SECTOR_BYTES..=offset(last.end - 1) / SECTOR_BYTES).collect();
    assert!(sectors.len() > 10);
    let without = |missing: &[usize]| {
        let files = written.with_sectors_of(&name, &before.files, missing);
        let (disk, result) = recover(&files);
        let recovered = result.unwrap_or_else(|error| panic!("without {missing:?}: {error}"));
        assert_eq!(Model::of(&recovered), *written.all_but_the_last(), "without {missing:?}");
        assert_eq!(disk.files(), before.files, "without {missing:?}: nothing of the batch is left");
        assert_eq!(recovered.torn_bytes > 0, missing.len() < sectors.len());
        check_usable(&disk, written.all_but_the_last());
    };
    for &sector in &sectors {
        without(&[sector]);
    }
    without(&sectors);
    for _ in 0..500 {
        let some: Vec<usize> = sectors.iter().copied().filter(|_| rng.bool()).collect();
        if !some.is_empty() {
            without(&some);
        }
    }
    assert_eq!(Model::of(&recover(&written.files).1.unwrap()), *written.all());
}

/// A batch header that lies in two sectors, of which a crash kept the first.
#[test]
fn a_header_of_which_one_half_is_missing_is_cut() {
    for reach in 1..BATCH_HEADER_BYTES {
        let filled = DATA_BYTES - reach - BATCH_HEADER_BYTES - 5 - 17;
        let first = Batch { hard_state: None, entries: vec![command(1, 1, &vec![1; filled])] };
        let last = Batch { hard_state: None, entries: vec![command(1, 2, &[2; 900])] };
        let before = Written::new(4096, std::slice::from_ref(&first));
        let written = Written::new(4096, &[first, last]);
        assert_eq!(written.batches[1].1.start, DATA_BYTES - reach);
        for missing in [vec![2], vec![3], vec![4], vec![2, 3], vec![2, 4], vec![3, 4]] {
            let files = written.with_sectors_of(FIRST, &before.files, &missing);
            let (disk, result) = recover(&files);
            assert_eq!(Model::of(&result.unwrap()), *before.all(), "{reach}: {missing:?}");
            check_usable(&disk, before.all());
        }
    }
}

#[test]
fn a_missing_sector_in_the_middle_is_damage() {
    let batches: Vec<Batch> = (1..=8)
        .map(|i| Batch { hard_state: None, entries: vec![command(1, i, &[i as u8; 700])] })
        .collect();
    let written = Written::new(16 << 10, &batches);
    let (_, last) = written.last_batch();
    for sector in 2..offset(last.start) / SECTOR_BYTES {
        let mut files = written.files.clone();
        let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
        files.get_mut(FIRST).unwrap()[range].fill(0);
        let (disk, result) = recover(&files);
        let (entries, _) = check_damaged(&disk, &written, result);
        let whole =
            |(_, range): &&(String, Range<usize>)| offset(range.end) <= sector * SECTOR_BYTES;
        assert_eq!(entries.len(), written.batches.iter().take_while(whole).count());
    }
}

#[test]
fn a_bad_batch_is_damage_if_only_the_header_of_a_later_one_is_valid() {
    let batches: Vec<Batch> = (1..=3)
        .map(|i| Batch { hard_state: None, entries: vec![command(1, i, &[i as u8; 900])] })
        .collect();
    let written = Written::new(16 << 10, &batches);
    let [(_, second), (_, third)] = &written.batches[1..] else { panic!("three batches") };
    // The first sector of the second batch is older, and the last one of the third is missing.
    let before = Written::new(16 << 10, &batches[..1]);
    let missing = [offset(second.start) / SECTOR_BYTES, offset(third.end) / SECTOR_BYTES];
    let files = written.with_sectors_of(FIRST, &before.files, &missing);
    let (disk, result) = recover(&files);
    let (entries, text) = check_damaged(&disk, &written, result);
    assert_eq!(entries.len(), 1);
    let place = format!("header follows at byte {}", offset(third.start));
    assert!(text.contains(&place), "{text}");
}

/// A user may well keep a backup of the data folder in the store itself.
#[test]
fn copies_of_earlier_batches_in_a_torn_one_prove_nothing() {
    let copied = Written::new(16 << 10, &small_log());
    let copy: Vec<u8> = (0..2000).map(|at| copied.files[FIRST][offset(at)]).collect();
    let mut batches = small_log();
    batches.push(Batch { hard_state: None, entries: vec![command(3, 8, &copy)] });
    let written = Written::new(16 << 10, &batches);
    let (name, last) = written.last_batch();
    let missing = offset(last.end) / SECTOR_BYTES;
    let files = written.with_sectors_of(&name, &copied.files, &[missing]);
    let (_, result) = recover(&files);
    assert_eq!(Model::of(&result.unwrap()), *written.all_but_the_last());
}

#[test]
fn a_missing_segment_is_damage_and_named() {
    let batches: Vec<Batch> = (1..=9)
        .map(|i| Batch {
            hard_state: Some(hard_state(i, None)),
            entries: vec![command(1, i, &[7; 300])],
        })
        .collect();
    let written = Written::new(SEGMENT_BYTES, &batches);
    let names: Vec<String> = model::segments(&written.files).into_keys().collect();
    assert_eq!(names.len(), 9);
    for (at, name) in names[..names.len() - 1].iter().enumerate() {
        let mut files = written.files.clone();
        files.remove(name);
        let (disk, result) = recover(&files);
        let (entries, text) = check_damaged(&disk, &written, result);
        assert_eq!(entries.len(), at);
        if at > 0 {
            assert!(text.contains(name.as_str()) && text.contains("missing"), "{text}");
        } else {
            assert!(text.contains("does not go on after the beginning"), "{text}");
        }
    }
}

#[test]
fn a_segment_under_the_name_of_another_is_refused() {
    let written = Written::small();
    for (from, to) in [(FIRST, "wal-0000000000000003.log"), (FIRST, SECOND), (SECOND, FIRST)] {
        let mut files = written.files.clone();
        files.insert(to.to_owned(), files[from].clone());
        let (disk, result) = recover(&files);
        let text = check_refused(&disk, &files, result);
        assert!(text.contains("under the name of another"), "{text}");
    }
    for name in ["wal-2.log", "wal-000000000000000A.log", "wal-0000000000000002.log.bak"] {
        let mut files = written.files.clone();
        files.insert(name.to_owned(), vec![]);
        let (disk, result) = recover(&files);
        assert!(check_refused(&disk, &files, result).contains(name));
    }
}

/// Its name was given to it when its header was durable.
#[test]
fn a_newest_segment_without_its_header_is_damage_and_without_a_hard_state_refused() {
    let written = Written::small();
    let front = &written.files[SECOND][..FRONT_BYTES];
    let models = &written.models[..5];
    for header_bytes in [0, 1, 40, SECTOR_BYTES - 1] {
        let mut bytes = front.to_vec();
        bytes[header_bytes..SECTOR_BYTES].fill(0);
        let mut files = written.files.clone();
        files.get_mut(SECOND).unwrap()[..FRONT_BYTES].copy_from_slice(&bytes);
        let (disk, result) = recover(&files);
        let (entries, text) = check_damaged(&disk, &written, result);
        assert!(text.contains(SECOND) && entries == models[4].entries, "{text}");
        files.remove(FIRST);
        let (disk, result) = recover(&files);
        let (entries, _) = check_damaged(&disk, &written, result);
        assert!(entries.is_empty());
        files.get_mut(SECOND).unwrap()[SECTOR_BYTES..].fill(0);
        let (disk, result) = recover(&files);
        check_refused(&disk, &files, result);
    }
}

#[test]
fn what_a_crash_left_half_made_is_removed() {
    let written = Written::new(SEGMENT_BYTES, &small_log()[..5]);
    for name in ["segment.tmp", "reserve.tmp", "damaged.tmp", "snapshot-own.tmp"] {
        for left in [&[][..], &[1; 700]] {
            let mut files = written.files.clone();
            files.insert(name.to_owned(), left.to_vec());
            let (disk, result) = recover(&files);
            assert_eq!(Model::of(&result.unwrap()), *written.all());
            assert_eq!(disk.files(), written.files);
            check_usable(&disk, written.all());
        }
    }
}

#[test]
fn a_torn_tail_is_damage_once_the_next_segment_exists() {
    let batches: Vec<Batch> = (1..=3)
        .map(|i| Batch { hard_state: None, entries: vec![command(1, i, &[i as u8; 900])] })
        .collect();
    let before = Written::new(3072, &batches[..1]);
    let written = Written::new(3072, &batches);
    assert_eq!(written.batches[2].0, SECOND);
    let (_, second) = &written.batches[1];
    let files = written.with_sectors_of(FIRST, &before.files, &[offset(second.end) / SECTOR_BYTES]);
    let (disk, result) = recover(&files);
    let (entries, text) = check_damaged(&disk, &written, result);
    assert_eq!(entries.len(), 1);
    assert!(
        text.contains("where batch 2 should be; the next segment begins with batch 3"),
        "{text}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn garbage_never_panics(
        garbage in prop::collection::vec(any::<u8>(), 0..2000),
        number in 1_u64..3,
        at in 0_usize..1600,
    ) {
        let files = Files::from([(format!("wal-{number:016x}.log"), garbage.clone())]);
        let _ = recover(&files);
        // Garbage in a sound log.
        let written = Written::small();
        let mut files = written.files.clone();
        let bytes = files.get_mut(&format!("wal-{number:016x}.log")).unwrap();
        bytes.resize(bytes.len().max(at + garbage.len()), 0);
        bytes[at..at + garbage.len()].copy_from_slice(&garbage);
        if let Ok(recovered) = recover(&files).1 {
            let known = |model: &Model| model.entries == recovered.entries;
            prop_assert!(written.models.iter().any(known));
        }
        // Garbage in the other files.
        for name in ["damaged", "snapshot-0000000000000003-0000000000000001"] {
            let mut files = written.files.clone();
            files.insert(name.to_owned(), garbage.clone());
            let _ = recover(&files);
        }
    }
}
