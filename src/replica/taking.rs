//! The snapshot of the own state: when one is taken, at which pace it is written, what goes once it is on the disk,
//! and the room that the disk has for the next one.
//!
//! While entries arrive it is held back to a pace, so that they do not wait for it. Without room for the next
//! snapshot the log would never end, so the older one of two is given up for it, and then what makes the state
//! larger is refused.

use super::Replica;
use crate::wal::{BLOCK_BYTES, Disk, SnapshotKind, WalError};

/// Turns between two attempts to make the reserve on a full disk again.
const FILL_RESERVE_TURNS: u64 = 64;
/// Turns between two looks at the room on the disk.
const LOOK_TURNS: u64 = 16;
/// Of a snapshot on disk, beside the payload: checksums, at most a part in so many, and the header.
const CHECKSUMS_FRACTION: usize = 1024;
/// Ticks between two attempts to write a snapshot, the own one or a leader's, to a full disk.
const FULL_SNAPSHOT_TICKS: u64 = 256;
/// Segments of the log that are removed at once, before their room is given back.
const SEGMENTS_PER_TURN: usize = 2;
/// While a snapshot is taken, at least twice as much of it is written in a turn as of the log, up to so many
/// bytes: so the log grows by half of the state meanwhile, or more if turns bring very much, but no turn
/// writes much more for it.
const PIECE_BYTES_MAX: usize = 1 << 20;
/// And at least so many pieces in every tick, which a disk bears beside the log. Without a pace it would write as
/// fast as it can, and every entry would wait for that.
const PIECES_PER_TICK: usize = 2;
/// So long after the last entry there is nobody who would wait.
const IDLE_TICKS: u64 = 100;

impl<D: Disk> Replica<D> {
    /// How much time has passed since the last turn that went on with snapshots.
    pub(super) fn ticks_passed(&mut self) -> u64 {
        let now = self.node.now_ticks();
        now - std::mem::replace(&mut self.seen_ticks, now)
    }

    /// Whether there have been no entries for a while.
    pub(super) fn is_idle(&self) -> bool {
        self.node.now_ticks() - self.written_at_ticks > IDLE_TICKS
    }

    /// How much of the snapshot that is being taken is due, so many ticks after the last piece.
    fn due_bytes(&self, ticks: u64) -> usize {
        let piece_bytes = self.node.config().snapshot_piece_bytes;
        if self.is_idle() {
            return piece_bytes;
        }
        let ticks = usize::try_from(ticks).unwrap_or(usize::MAX);
        let paced = piece_bytes.saturating_mul(PIECES_PER_TICK).saturating_mul(ticks);
        paced.max(2 * self.turn_bytes).min(PIECE_BYTES_MAX)
    }

    /// Goes on with the snapshot of the own state, or begins one if it is time.
    pub(super) fn take_snapshot(&mut self, ticks: u64) -> Result<(), WalError> {
        let Some(position) = self.taking else {
            let is_possible = self.tidying.is_none() && !self.waits_for_space();
            if is_possible && (self.node.wants_snapshot() || self.needs_snapshot_for_space()) {
                let position = self.node.begin_snapshot();
                self.taking = Some(position);
                let begun = self.wal.begin_snapshot(SnapshotKind::Own, position);
                return self.abandon_if_full(begun);
            }
            return Ok(());
        };
        let due_bytes = self.due_bytes(ticks);
        if due_bytes == 0 {
            return Ok(());
        }
        let (piece, is_last) = self.node.snapshot_piece(due_bytes);
        let mut written = self.wal.append_snapshot(SnapshotKind::Own, &piece);
        if is_last && written.is_ok() {
            let finished = self.wal.finish_snapshot(SnapshotKind::Own);
            written =
                finished.map(|file| self.node.snapshot_is_there(file.position, file.payload_bytes));
            if written.is_ok() {
                self.taking = None;
                self.tidying = Some(position);
                self.told_no_space = false;
                if self.is_low {
                    self.snapshot_after_ticks = self.node.now_ticks() + FULL_SNAPSHOT_TICKS;
                    return self.give_up_older();
                }
                return Ok(());
            }
        }
        self.abandon_if_full(written)
    }

    /// With a snapshot safely on disk, the log that the *older* one of two covers is not needed: if the
    /// newest turns out to be unreadable, the older one and the log after it still make the state. It
    /// goes a part in every turn.
    pub(super) fn tidy(&mut self, ticks: u64) -> Result<(), WalError> {
        if ticks > 0 {
            self.wal.free_some()?;
        }
        let Some(newest) = self.tidying else { return Ok(()) };
        self.node.snapshot_saved(newest);
        if self.wal.is_freeing() {
            return Ok(());
        }
        let is_done = match self.wal.snapshots() {
            [older, _] => {
                let upto = older.position.index;
                self.wal.compact_some(upto, SEGMENTS_PER_TURN)?
            }
            _ => true,
        };
        if is_done {
            self.tidying = None;
        }
        Ok(())
    }

    // The room on the disk.

    /// While the reserve is used up, or there is no room for the next snapshot (without which the log
    /// would never end), only what frees space is taken.
    pub(super) fn look_for_space(&mut self) -> Result<(), WalError> {
        self.turns += 1;
        if self.turns.is_multiple_of(LOOK_TURNS) {
            let mut has_room = self.has_room_for_snapshot()?;
            if !has_room {
                self.give_up_older()?;
                has_room = self.has_room_for_snapshot()?;
            }
            self.lacks_room = !has_room;
        }
        if self.wal.is_low() {
            self.low_turns += 1;
            if self.low_turns.is_multiple_of(FILL_RESERVE_TURNS) {
                self.wal.fill_reserve()?;
            }
        }
        let is_low = self.wal.is_low() || self.held.is_some() || self.lacks_room;
        if is_low != std::mem::replace(&mut self.is_low, is_low) {
            tell_space(is_low);
        }
        self.node.refuse_growth(is_low);
        Ok(())
    }

    /// With a newer snapshot log could be removed, and the state may have become smaller.
    fn needs_snapshot_for_space(&self) -> bool {
        let newest = self.wal.snapshots().last().map_or(0, |file| file.position.index);
        self.is_low && self.node.machine().applied() > newest
    }

    /// Whether what is still to be written of the snapshot that is being taken, or all of the next one,
    /// has room. With only a little more than that, it stays as it was found last.
    fn has_room_for_snapshot(&self) -> Result<bool, WalError> {
        let Some(free) = self.wal.free_bytes()? else { return Ok(true) };
        let payload = self.node.machine().snapshot_bytes();
        let whole = (payload + payload / CHECKSUMS_FRACTION + BLOCK_BYTES) as u64;
        let progress = self.wal.snapshot_progress(SnapshotKind::Own);
        let written = progress.map_or(0, |(_, bytes)| bytes);
        let wanted = whole.saturating_sub(written) + self.wal.segment_bytes();
        let more = if self.lacks_room { wanted / 8 } else { 0 };
        Ok(free >= wanted + more)
    }

    /// Without space there is no snapshot now. The older one of two is given up, and with it the log
    /// that only it needs; after a while it is tried again.
    fn abandon_if_full(&mut self, result: Result<(), WalError>) -> Result<(), WalError> {
        match result {
            Err(error) if error.is_full() => {
                self.taking = None;
                self.wait_for_space("a snapshot", &error);
                self.node.abandon_snapshot();
                self.node.take_snapshot_soon();
                self.wal.abandon_snapshot(SnapshotKind::Own)?;
                self.give_up_older()
            }
            other => other,
        }
    }

    pub(super) fn wait_for_space(&mut self, what: &str, error: &WalError) {
        if !std::mem::replace(&mut self.told_no_space, true) {
            log::warn!("no space for {what}: {error}; it is tried again until there is");
        }
        self.snapshot_after_ticks = self.node.now_ticks() + FULL_SNAPSHOT_TICKS;
    }

    pub(super) fn waits_for_space(&self) -> bool {
        self.node.now_ticks() < self.snapshot_after_ticks
    }

    pub(super) fn give_up_older(&mut self) -> Result<(), WalError> {
        self.wal.drop_spares()?;
        self.wal.drop_older_snapshot()?;
        match self.wal.snapshots() {
            [newest] => {
                let upto = newest.position.index;
                self.wal.compact(upto)
            }
            _ => Ok(()),
        }
    }
}

fn tell_space(is_low: bool) {
    if is_low {
        log::warn!(
            "the disk is nearly full: as a leader this node refuses what makes the state larger, until there is \
             room for the log and the next snapshot"
        );
    } else {
        log::info!("there is room on the disk again");
    }
}
