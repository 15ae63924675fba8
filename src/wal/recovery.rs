//! From whatever a crash or a failing disk left behind to a log that can be appended to.
//!
//! First everything is read ([`Replay`], [`snapshots::find`]) and judged ([`judge`]), and nothing is
//! changed. Then the folder is made to say what was judged ([`repair`]); each step of that leaves a folder
//! that is judged the same, so that recovery may itself be cut short anywhere and repeated.
//!
//! What was lost is marked before anything else is changed (see [`super::marker`]). Of what is left, the
//! newest run of segments that goes on where the snapshot ends (without one: that begins at the beginning)
//! is kept. If that run is the last one, and ends as a crash may leave it, nothing is lost. Runs before it
//! hold only what the snapshot holds too: that is what a crash in the middle of a compaction looks like.

use super::active::{self, Active, UNFINISHED_RESERVE, UNFINISHED_SEGMENT};
use super::entries::Places;
use super::marker::{Marker, UNFINISHED_MARKER, one_line};
use super::replay::{Replay, Run, Segment, Stop};
use super::sector::{self, DATA_BYTES, SECTOR_BYTES};
use super::segment::{self, FIRST_SECTOR, FIRST_SEGMENT, Standing};
use super::shape::{LogShape, raise};
use super::snapshots::{self, Found, SNAPSHOTS_KEPT, Snapshots};
use super::{Batch, Disk, Recovered, Wal, WalConfig, WalError};
use crate::raft::{Entry, HardState, Position, Term};
use std::collections::VecDeque;

pub fn open<D: Disk>(mut disk: D, config: WalConfig) -> Result<(Wal<D>, Recovered), WalError> {
    let names = disk.list().map_err(|e| WalError::io("list", disk.path(""), e))?;
    let marker = Marker::read(&disk, &names)?;
    let found = snapshots::find(&disk, &names)?;
    let replay = Replay::read(&disk, &names)?;
    let verdict = judge(&disk, replay, &found, marker)?;
    repair(&mut disk, &names, &found, &verdict)?;
    resume(disk, config, &names, found, verdict)
}

/// What is kept, and what is to be done about the rest.
struct Verdict {
    kept: Option<Run>,
    /// The position before the first entry that is handed out: the snapshot's, or 0/0.
    base: Position,
    /// The log is of no use, and begins anew after `base`.
    is_void: bool,
    hard_state: HardState,
    /// What was lost and is not marked yet.
    new_marker: Option<Marker>,
    /// What was lost, now or earlier.
    damaged: Option<String>,
    lost_in_term: Term,
    notes: Vec<String>,
    /// The highest segment number in the folder, 0 if there is none.
    last_number: u64,
}

fn judge<D: Disk>(
    disk: &D,
    mut replay: Replay,
    found: &Found,
    marker: Option<Marker>,
) -> Result<Verdict, WalError> {
    let has_snapshots = !(found.finished.is_empty() && found.damaged.is_empty());
    if replay.numbers.is_empty() && marker.is_none() && has_snapshots {
        let what = "holds snapshots, but no log".to_owned();
        return Err(WalError::Foreign { folder: disk.path(""), what });
    }
    let snapshot = found.finished.last().map(|header| header.file.position);
    let base = snapshot.unwrap_or(Position { index: 0, term: 0 });
    let connected = replay.runs.iter().rposition(|run| run.connects_to(base));
    let is_last = connected.is_some_and(|at| at + 1 == replay.runs.len());
    let is_whole = replay.numbers.is_empty()
        || (is_last && replay.runs.last().is_some_and(|run| run.hole.is_none()));
    let lost = (!is_whole).then(|| what_is_lost(&replay, connected, base, snapshot.is_some()));
    if let Some(what) = &lost
        && !replay.is_hard_state_certain
    {
        let last = replay.numbers.last().copied().unwrap_or(FIRST_SEGMENT);
        let what = format!("the newest term and vote can not be read any more ({what})");
        return Err(WalError::corrupt(disk.path(&segment::file_name(last)), 0, what));
    }

    let mut notes: Vec<String> = found.damaged.iter().map(|(_, what)| what.clone()).collect();
    if is_whole {
        // Known to be covered by the snapshot.
        let damaged = replay.holes.iter().filter(|hole| !hole.is_missing);
        notes.extend(damaged.map(|hole| hole.what.clone()));
        notes.extend(replay.runs.last().and_then(Run::damage_to_copy));
    }
    let kept = match connected {
        Some(at) => Some(replay.runs.swap_remove(at)),
        None => replay.runs.pop(),
    };
    let agrees = |run: &Run| run.shape.term_at(base.index) == Some(base.term);
    let is_void = match &kept {
        Some(run) => connected.is_none() || !agrees(run),
        None => base.index > 0,
    };
    let mut hard_state = replay.hard_state;
    // A leader's snapshot gets its name before the log says that it belongs to that leader's term. Whoever
    // took it in had not voted in that term: a vote would be in the log.
    raise(&mut hard_state, HardState { term: base.term, voted_for: None });
    if let Some(marker) = &marker {
        raise(&mut hard_state, marker.hard_state);
    }
    let marked_in_term = marker.as_ref().map_or(0, |marker| marker.hard_state.term);
    let (new_marker, damaged) = account(marker, lost, hard_state);
    let lost_in_term = new_marker.as_ref().map_or(marked_in_term, |new| new.hard_state.term);
    let last_number = replay.numbers.last().copied().unwrap_or(0);
    Ok(Verdict {
        kept,
        base,
        is_void,
        hard_state,
        new_marker,
        damaged,
        lost_in_term,
        notes,
        last_number,
    })
}

/// The first place where the log that could be kept breaks off.
fn what_is_lost(
    replay: &Replay,
    connected: Option<usize>,
    base: Position,
    has_snapshot: bool,
) -> String {
    if let Some(hole) = connected.and_then(|at| replay.runs[at].hole.clone()) {
        return hole;
    }
    let after = if has_snapshot {
        format!("after entry {}, where the newest valid snapshot ends", base.index)
    } else {
        "after the beginning, without a snapshot".to_owned()
    };
    match (replay.holes.first(), replay.runs.last()) {
        (Some(hole), _) => hole.what.clone(),
        (None, Some(run)) => {
            let file = segment::file_name(run.newest.header.number);
            format!("the log that ends in {file} does not go on {after}")
        }
        (None, None) => format!("nothing is left of the log {after}"),
    }
}

/// What the marker is to say, if that is new, and what the owner is told.
fn account(
    marker: Option<Marker>,
    lost: Option<String>,
    hard_state: HardState,
) -> (Option<Marker>, Option<String>) {
    let lost = lost.map(|what| one_line(&what));
    match (marker, lost) {
        (None, None) => (None, None),
        (Some(marker), None) => (None, Some(marker.what)),
        (None, Some(what)) => (Some(Marker { what: what.clone(), hard_state }), Some(what)),
        (Some(marker), Some(what)) => {
            let known = marker.what.contains(&what) && marker.hard_state == hard_state;
            let new = Marker { hard_state, ..marker.and(&what) };
            let told = new.what.clone();
            ((!known).then_some(new), Some(told))
        }
    }
}

/// Marks what was lost, then removes every file that is of no use.
fn repair<D: Disk>(
    disk: &mut D,
    names: &[String],
    found: &Found,
    verdict: &Verdict,
) -> Result<(), WalError> {
    let unfinished = [UNFINISHED_SEGMENT, UNFINISHED_RESERVE, UNFINISHED_MARKER];
    for name in names {
        let is_unfinished = unfinished.contains(&name.as_str());
        if is_unfinished || active::is_spare(name) || snapshots::is_temporary(name) {
            remove(disk, name)?;
        }
    }
    if let Some(marker) = &verdict.new_marker {
        marker.write(disk)?;
    }
    // Also for names that a process made and did not live to sync: those of snapshots must be safe before
    // the log begins behind them.
    disk.sync_dir().map_err(|e| WalError::io("sync", disk.path(""), e))?;
    for (name, _) in &found.damaged {
        snapshots::set_aside(disk, name)?;
    }
    remove_segments(disk, names, verdict)?;
    let extra = found.finished.len().saturating_sub(SNAPSHOTS_KEPT);
    for header in &found.finished[..extra] {
        remove(disk, &header.file_name())?;
    }
    disk.sync_dir().map_err(|e| WalError::io("sync", disk.path(""), e))
}

/// Removes the segments that are not kept, oldest first: it is the newest that knows the hard state, and until
/// that is gone, the one that is kept must know it too.
fn remove_segments<D: Disk>(
    disk: &mut D,
    names: &[String],
    verdict: &Verdict,
) -> Result<(), WalError> {
    let is_kept = |number: &u64| verdict.kept.as_ref().is_some_and(|run| run.has_number(*number));
    let mut numbers: Vec<u64> =
        names.iter().filter_map(|name| segment::number_in(name)).filter(|n| !is_kept(n)).collect();
    numbers.sort_unstable();
    if let (Some(run), false) = (&verdict.kept, numbers.is_empty()) {
        let mut newest = reopen(disk, &run.newest)?;
        newest.write_copy(disk, verdict.hard_state)?;
        newest.sync(disk)?;
    }
    for number in numbers {
        remove(disk, &segment::file_name(number))?;
    }
    Ok(())
}

fn remove<D: Disk>(disk: &mut D, name: &str) -> Result<(), WalError> {
    disk.remove(name).map_err(|e| WalError::io("remove", disk.path(name), e))
}

/// The log goes on: what was read last is made durable, and what was judged becomes part of the log.
fn resume<D: Disk>(
    mut disk: D,
    config: WalConfig,
    names: &[String],
    found: Found,
    verdict: Verdict,
) -> Result<(Wal<D>, Recovered), WalError> {
    let mut reserve = names.iter().find_map(|name| active::reserve_in(name));
    let Verdict { kept, base, is_void, hard_state, .. } = verdict;
    let mut torn_bytes = 0;
    let mut entries = Vec::new();
    let mut places = Places::default();
    let (active, standing, shape, closed) = match kept {
        Some(run) => {
            if run.newest.stop == Stop::Torn {
                torn_bytes = run.newest.torn_bytes();
            }
            let active = mend(&mut disk, &run.newest, hard_state, verdict.damaged.is_some())?;
            entries = run.entries;
            places = run.places;
            (active, run.standing, run.shape, run.closed)
        }
        None => {
            let start = Standing { hard_state, ..Standing::START };
            let number = verdict.last_number + 1;
            let from = (&mut VecDeque::new(), &mut reserve);
            let made = active::create_segment(&mut disk, &config, number, start, 0, from);
            let shape = LogShape::starting_after(start.last, start.hard_state);
            (made.map_err(|e| e.into_error())?, start, shape, VecDeque::new())
        }
    };
    let snapshot = found.finished.last().map(|header| header.file);
    let first_kept = found.finished.len().saturating_sub(SNAPSHOTS_KEPT);
    let mut wal = Wal {
        disk,
        config,
        active,
        closed,
        standing,
        shape,
        batch: Batch::new(),
        image: Default::default(),
        snapshots: Snapshots::new(found.finished[first_kept..].to_vec()),
        places,
        spares: VecDeque::new(),
        reserve,
        damaged: verdict.damaged.clone(),
        failed: None,
    };
    if hard_state != standing.hard_state {
        wal.append_hard_state(hard_state);
    }
    if is_void {
        wal.reset(base);
    }
    wal.sync()?;
    wal.fill_reserve()?;
    let entries = if is_void { Vec::new() } else { after(entries, base) };
    let Verdict { damaged, lost_in_term, notes, .. } = verdict;
    let recovered =
        Recovered { hard_state, snapshot, base, entries, torn_bytes, damaged, lost_in_term, notes };
    Ok((wal, recovered))
}

/// The entries behind `base`, of a log that holds or directly follows it.
fn after(mut entries: Vec<Entry>, base: Position) -> Vec<Entry> {
    let before = entries.partition_point(|entry| entry.index <= base.index);
    entries.drain(..before);
    entries
}

/// Opens a segment to be written to at the end of its last valid batch.
fn reopen<D: Disk>(disk: &mut D, segment: &Segment) -> Result<Active<D::File>, WalError> {
    let header = segment.header;
    let name = header.file_name();
    let file =
        disk.open(&name, header.capacity).map_err(|e| WalError::io("open", disk.path(&name), e))?;
    let partial_at = segment.end / DATA_BYTES * DATA_BYTES;
    Ok(Active {
        header,
        file,
        end: segment.end as u64,
        partial: segment.sectors.data[partial_at..segment.end].to_vec(),
        last_index: segment.last_index,
    })
}

/// Opens the segment that the log ends in, makes durable what was judged valid, and makes the rest go away
/// for good.
///
/// What was written last may have been read from memory only: its writer may have died before the sync, or
/// at a sync that failed and left the pages marked clean. Written again, it is sure to reach the disk. So may
/// the zeros over what was rotten; as long as there is a marker, all that is not in use is made zero again.
fn mend<D: Disk>(
    disk: &mut D,
    segment: &Segment,
    hard_state: HardState,
    is_marked: bool,
) -> Result<Active<D::File>, WalError> {
    let header = segment.header;
    let mut active = reopen(disk, segment)?;
    if segment.end == 0 {
        active.write(disk, 0, &header.encode())?;
    }
    active.write_copy(disk, hard_state)?;
    let first = segment.last_batch / DATA_BYTES;
    let number = FIRST_SECTOR + first as u64;
    let mut image = Vec::new();
    let valid = &segment.sectors.data[first * DATA_BYTES..segment.end];
    sector::encode(header.salt, number, valid, &mut image);
    let valid_at = number * SECTOR_BYTES as u64;
    if !image.is_empty() {
        active.write(disk, valid_at, &image)?;
    }
    // The rest: sectors that hold something, rotten or torn.
    let used_sectors = FIRST_SECTOR + (segment.sectors.used() / DATA_BYTES) as u64;
    let used_bytes = if is_marked { header.capacity } else { used_sectors * SECTOR_BYTES as u64 };
    active.clear(disk, valid_at + image.len() as u64..used_bytes)?;
    active.sync(disk)?;
    Ok(active)
}
