//! One replica: a node and its disk, and the one place where "persist, then speak" is done.
//!
//! The real server and a simulator drive the same `Replica`: inputs through [`Replica::inputs`], then one
//! [`Replica::flush`] per turn. The disk is behind [`Disk`]; time comes as ticks.
//!
//! Snapshots share the turn: a piece of the one that is being taken, and the pieces of one that is being
//! received, are written each by itself, and synced before much is not, so that no single sync is ever large. While
//! entries arrive, the own one is held back to a pace, so that they do not wait for it.

use crate::kv::{Answer, Loader, Machine};
use crate::node::{self, BackupBytes, BackupRead, Node, Outgoing, PeerMessage, Ticket, Unreadable};
use crate::raft::{
    Entry, Index, LogRead, Message, NodeId, Position, Ready, Restored, SnapshotChunk, SnapshotRead,
    Term, Waits,
};
use crate::wal::{
    BLOCK_BYTES, Disk, Recovered, SnapshotFile, SnapshotKind, Wal, WalConfig, WalError,
};
use std::fmt;
use std::rc::Rc;

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

/// Of a snapshot, read for a client at a time.
const BACKUP_PIECE_BYTES_MAX: usize = 256 * 1024;

/// Messages that leave in the middle of a flush.
#[derive(Debug)]
pub enum Speech {
    /// Nothing of what they speak of must be on disk first.
    Early(Vec<(NodeId, PeerMessage)>),
    /// What they speak of is on disk.
    Durable(Vec<(NodeId, PeerMessage)>),
}

pub struct Replica<D: Disk> {
    node: Node,
    wal: Wal<D>,
    /// A snapshot of the own state is being written.
    taking: Option<Position>,
    /// As of the last turn that went on with snapshots.
    seen_ticks: u64,
    /// When the last entry was written.
    written_at_ticks: u64,
    /// A snapshot that was just taken: what it makes needless goes little by little.
    tidying: Option<Position>,
    receiving: Option<Receiving>,
    /// Bytes of entries that this turn brought.
    turn_bytes: usize,
    /// How many entries the last flush has made durable.
    written_entries: usize,
    /// What the last flush has left for later.
    waits: Waits,
    /// A turn whose writing found no space: it is tried again, and nothing is said until it succeeds.
    held: Option<Ready>,
    turns: u64,
    /// Turns with the disk's reserve used up.
    low_turns: u64,
    /// There is no room for the next snapshot.
    lacks_room: bool,
    /// Only what frees space is taken.
    is_low: bool,
    /// The log says that a snapshot found no space.
    told_no_space: bool,
    /// When a snapshot may be tried again, after one found no space.
    snapshot_after_ticks: u64,
}

/// A snapshot that a leader sends.
struct Receiving {
    term: Term,
    position: Position,
    loader: Loader,
}

/// What start-up found, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Bytes of a write that was not finished, now cut off.
    pub torn_bytes: u64,
    /// What was lost, if something was.
    pub damaged: Option<String>,
    /// Damage that cost nothing.
    pub notes: Vec<String>,
}

/// Why a replica cannot go on. It must be dropped; what it knows is what a restart reads from disk.
#[derive(Debug)]
pub enum ReplicaError {
    Wal(WalError),
    Unreadable(Unreadable),
}

impl From<WalError> for ReplicaError {
    fn from(error: WalError) -> Self {
        ReplicaError::Wal(error)
    }
}

impl<D: Disk> Replica<D> {
    /// Takes up where the disk left off.
    pub fn open(config: node::Config, disk: D, wal: WalConfig) -> Result<(Self, Opened), WalError> {
        let (mut wal, recovered) = Wal::open(disk, wal)?;
        let Recovered {
            hard_state,
            snapshot,
            base,
            entries,
            torn_bytes,
            damaged,
            lost_in_term,
            notes,
        } = recovered;
        let machine = match snapshot {
            Some(file) => load(&mut wal, &file, config.snapshot_piece_bytes)?,
            None => Machine::default(),
        };
        let restored = Restored {
            hard_state,
            snapshot: snapshot.map(|file| file.position),
            membership: Rc::clone(machine.membership()),
            base,
            entries,
            lost_in_term,
        };
        let mut node = Node::new(config, restored, machine);
        if let Some(file) = snapshot {
            node.snapshot_is_there(file.position, file.payload_bytes);
        }
        let replica = Replica {
            node,
            wal,
            taking: None,
            seen_ticks: 0,
            written_at_ticks: 0,
            tidying: None,
            receiving: None,
            turn_bytes: 0,
            written_entries: 0,
            waits: Waits::default(),
            held: None,
            turns: 0,
            low_turns: 0,
            lacks_room: false,
            is_low: false,
            told_no_space: false,
            snapshot_after_ticks: 0,
        };
        Ok((replica, Opened { torn_bytes, damaged, notes }))
    }

    pub fn node(&self) -> &Node {
        &self.node
    }

    /// For inputs: they change memory only, until the flush.
    pub fn inputs(&mut self) -> &mut Node {
        &mut self.node
    }

    pub fn wal(&self) -> &Wal<D> {
        &self.wal
    }

    /// Whether the next flush has something to do without further input, apart from what the last one has
    /// left for later.
    pub fn has_work(&self) -> bool {
        // Room is given back with the ticks, and a snapshot waits for them when there is more to do.
        let may_tidy = self.tidying.is_some() && !self.wal.is_freeing();
        let may_take = self.taking.is_some() && self.is_idle();
        let goes_on = (may_take || may_tidy) && !self.waits.own_disk;
        self.held.is_none() && (self.node.has_work_with(self.waits) || goes_on)
    }

    /// Whether a flush would do nothing but leave `wanted` for later. Then it is left, and there is no need for
    /// one.
    pub fn leaves_all(&mut self, wanted: Waits) -> bool {
        let waits = self.node.raft().may_wait(wanted);
        let leaves_all = waits.sending && self.held.is_none() && !self.node.has_work_with(waits);
        if leaves_all {
            self.waits = waits;
        }
        leaves_all
    }

    /// What the last flush has left for later.
    pub fn waits(&self) -> Waits {
        self.waits
    }

    /// Whether a snapshot of the own state is being written, or what it made needless is going.
    pub fn is_taking_snapshot(&self) -> bool {
        self.taking.is_some() || self.tidying.is_some()
    }

    /// Entries that the last flush has made durable, and their size in bytes.
    pub fn turn_written(&self) -> (usize, usize) {
        (self.written_entries, self.turn_bytes)
    }

    /// What there is on the disk, in a word: `ok`; `low`, the reserve is in use; `none`, a turn waits.
    pub fn space(&self) -> &'static str {
        match (&self.held, self.is_low) {
            (Some(_), _) => "none",
            (None, true) => "low",
            (None, false) => "ok",
        }
    }

    /// Whether the last turn waits for space on the disk.
    pub fn is_out_of_space(&self) -> bool {
        self.held.is_some()
    }

    /// [`Replica::flush_with`], where nothing is left for later; what may be sent once the disk has it comes
    /// first in what is returned.
    pub fn flush(
        &mut self,
        early: impl FnOnce(Vec<(NodeId, PeerMessage)>),
    ) -> Result<Outgoing, ReplicaError> {
        let mut early = Some(early);
        let mut durable = Vec::new();
        let mut outgoing = self.flush_with(Waits::default(), |speech| match speech {
            Speech::Early(messages) => early.take().expect("once")(messages),
            Speech::Durable(messages) => durable = messages,
        })?;
        durable.append(&mut outgoing.messages);
        outgoing.messages = durable;
        Ok(outgoing)
    }

    /// Ends the turn; what a leader may leave of `wanted` for a later one, it leaves. What may be sent before it
    /// is on disk goes to `speak`; then everything the turn brought is written and synced, once; then this
    /// node's own disk counts, and what had to wait for that goes to `speak`; then what is committed is applied,
    /// and what is returned may be sent.
    pub fn flush_with(
        &mut self,
        wanted: Waits,
        mut speak: impl FnMut(Speech),
    ) -> Result<Outgoing, ReplicaError> {
        let was_held = self.held.is_some();
        self.written_entries = 0;
        let ready = match self.held.take() {
            Some(ready) => ready,
            None => self.begin_turn(wanted, &mut speak)?,
        };
        match self.wal.sync() {
            Ok(()) if was_held => log::warn!("there is room for the log again; this node goes on"),
            Ok(()) => {}
            Err(error) if error.is_full() => {
                if !was_held {
                    log::error!(
                        "no room for the log ({error}): until there is, this node acknowledges nothing, \
                         and goes on by itself then"
                    );
                }
                self.held = Some(ready);
                self.wal.free_some()?;
                self.look_for_space()?;
                let ticks = self.ticks_passed();
                self.take_snapshot(ticks)?;
                return Ok(self.node.held());
            }
            Err(error) => return Err(error.into()),
        }
        self.written_entries = ready.entries.len();
        let durable = self.node.persisted(ready);
        // A log that is about to be thrown away is not acknowledged; whoever misses that asks again.
        if self.node.diverged_at().is_none() {
            speak(Speech::Durable(durable));
        }
        let mut outgoing = self.node.carry_out().map_err(ReplicaError::Unreadable)?;
        if self.waits.own_disk && self.node.diverged_at().is_none() {
            // Snapshots go on in turns that sync: so none is ahead of the log on disk.
            return Ok(outgoing);
        }
        if self.wal.damaged().is_some() && !self.node.raft().is_damaged() {
            self.wal.mark_whole()?;
            log::info!("has got back what was lost, and votes again");
        }
        self.look_for_space()?;
        let ticks = self.ticks_passed();
        self.take_snapshot(ticks)?;
        self.tidy(ticks)?;
        if let Some(index) = self.node.diverged_at() {
            // They speak of a log that is about to be thrown away; whoever misses one asks again.
            outgoing.messages.retain(|(_, message)| !matches!(message, PeerMessage::Raft(_)));
            outgoing.doubt();
            outgoing.answers.extend(self.start_over(index)?);
        }
        Ok(outgoing)
    }

    /// While the reserve is used up, or there is no room for the next snapshot (without which the log
    /// would never end), only what frees space is taken.
    fn look_for_space(&mut self) -> Result<(), WalError> {
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

    /// Sends what may leave early, and hands the disk what the turn brought.
    fn begin_turn(
        &mut self,
        wanted: Waits,
        speak: &mut impl FnMut(Speech),
    ) -> Result<Ready, WalError> {
        self.waits = self.node.raft().may_wait(wanted);
        let (mut ready, mut messages) = self.node.take_ready(self.waits);
        self.waits.own_disk &= self.node.raft().log().has_unwritten();
        for read in &ready.snapshot_reads {
            messages.extend(self.read_chunk(read)?);
        }
        for read in &ready.log_reads {
            messages.extend(self.read_log(read)?);
        }
        self.read_for_backups()?;
        speak(Speech::Early(messages));
        if let Some(hard_state) = ready.hard_state {
            self.wal.append_hard_state(hard_state);
        }
        self.wal.append_entries(&ready.entries);
        self.turn_bytes = ready.entries.iter().map(Entry::cost_bytes).sum();
        if self.turn_bytes > 0 {
            self.written_at_ticks = self.node.now_ticks();
        }
        for chunk in std::mem::take(&mut ready.snapshot_chunks) {
            self.receive(chunk)?;
        }
        Ok(ready)
    }

    /// A majority has another state than this node at `index`. What is here is thrown away, and fetched
    /// again as after a damage of the disk; until then this node does not vote.
    fn start_over(&mut self, index: Index) -> Result<Vec<(Ticket, Answer)>, WalError> {
        let what = format!("the state at index {index} is not the one that a majority has");
        log::error!("{what}: it is thrown away and fetched again");
        self.wal.void(&what)?;
        self.taking = None;
        self.tidying = None;
        self.receiving = None;
        // The node's time begins anew.
        self.snapshot_after_ticks = 0;
        self.seen_ticks = 0;
        self.written_at_ticks = 0;
        Ok(self.node.start_over())
    }

    /// How much time has passed since the last turn that went on with snapshots.
    fn ticks_passed(&mut self) -> u64 {
        let now = self.node.now_ticks();
        now - std::mem::replace(&mut self.seen_ticks, now)
    }

    /// Whether there have been no entries for a while.
    fn is_idle(&self) -> bool {
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
    fn take_snapshot(&mut self, ticks: u64) -> Result<(), WalError> {
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

    fn wait_for_space(&mut self, what: &str, error: &WalError) {
        if !std::mem::replace(&mut self.told_no_space, true) {
            log::warn!("no space for {what}: {error}; it is tried again until there is");
        }
        self.snapshot_after_ticks = self.node.now_ticks() + FULL_SNAPSHOT_TICKS;
    }

    fn waits_for_space(&self) -> bool {
        self.node.now_ticks() < self.snapshot_after_ticks
    }

    fn give_up_older(&mut self) -> Result<(), WalError> {
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

    /// With a snapshot safely on disk, the log that the *older* one of two covers is not needed: if the
    /// newest turns out to be unreadable, the older one and the log after it still make the state. It
    /// goes a part in every turn.
    fn tidy(&mut self, ticks: u64) -> Result<(), WalError> {
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

    /// Entries that are not in memory any more, for a follower.
    fn read_log(&mut self, read: &LogRead) -> Result<Option<(NodeId, PeerMessage)>, WalError> {
        let entries = match self.wal.read_entries(read.first..=read.last, read.bytes_max) {
            Ok(entries) => entries,
            Err(error @ WalError::BadLog { .. }) => {
                log::error!("{error}");
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        Ok(self.node.log_read(*read, entries))
    }

    /// The next piece of the newest snapshot, for a follower.
    fn read_chunk(
        &mut self,
        read: &SnapshotRead,
    ) -> Result<Option<(NodeId, PeerMessage)>, WalError> {
        let SnapshotRead { to, term, position, offset } = *read;
        let file = self.wal.snapshots().iter().find(|file| file.position == position).copied();
        // Replaced by a newer one in this very moment; that is asked for next.
        let Some(file) = file else { return Ok(None) };
        let bytes_max = self.node.config().snapshot_piece_bytes;
        let data = match self.wal.read_snapshot(position, offset, bytes_max) {
            Ok(data) => data,
            Err(error @ WalError::BadSnapshot { .. }) => {
                log::error!("{error}; the state in memory is whole, and a new snapshot is taken");
                self.node.take_snapshot_soon();
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let message = Message::InstallSnapshot {
            term,
            last_included_index: position.index,
            last_included_term: position.term,
            offset,
            done: offset + data.len() as u64 >= file.payload_bytes,
            data: data.into(),
        };
        Ok(Some((to, PeerMessage::Raft(message))))
    }

    /// Pieces of snapshots that clients have asked for.
    fn read_for_backups(&mut self) -> Result<(), WalError> {
        let limits = &self.node.config().limits;
        let bytes_max = BACKUP_PIECE_BYTES_MAX.min(limits.answer_bytes_max());
        for (ticket, read) in self.node.take_backup_reads() {
            let BackupRead { position, offset } = read;
            let mut files = self.wal.snapshots().iter();
            let is_there =
                files.any(|file| file.position == position && offset < file.payload_bytes);
            let bytes = if is_there {
                match self.wal.read_snapshot(position, offset, bytes_max) {
                    Ok(bytes) => BackupBytes::Read(bytes),
                    Err(error @ WalError::BadSnapshot { .. }) => {
                        log::error!("{error}; a new snapshot is taken");
                        self.node.take_snapshot_soon();
                        BackupBytes::Gone
                    }
                    Err(error) => return Err(error),
                }
            } else {
                BackupBytes::Gone
            };
            self.node.backup_read(ticket, read, bytes);
        }
        Ok(())
    }

    /// Takes a piece of a leader's snapshot. Without space it is lost like a message, and what came
    /// before it; after a while the leader's next attempt is taken.
    fn receive(&mut self, chunk: SnapshotChunk) -> Result<(), WalError> {
        if self.waits_for_space() {
            return Ok(());
        }
        match self.receive_piece(chunk) {
            Err(error) if error.is_full() => {
                self.receiving = None;
                self.wait_for_space("the leader's snapshot", &error);
                self.wal.abandon_snapshot(SnapshotKind::Incoming)?;
                self.give_up_older()
            }
            other => other,
        }
    }

    /// Writes a piece, and installs the snapshot with the last one.
    fn receive_piece(&mut self, chunk: SnapshotChunk) -> Result<(), WalError> {
        // A leader goes on to newer snapshots, never back: a chunk of an older one is late.
        let is_late = |receiving: &Receiving| {
            receiving.term == chunk.term && receiving.position > chunk.position
        };
        if self.node.snapshot_is_covered(&chunk) || self.receiving.as_ref().is_some_and(is_late) {
            return Ok(());
        }
        let is_same = |receiving: &Receiving| {
            receiving.term == chunk.term && receiving.position == chunk.position
        };
        if !self.receiving.as_ref().is_some_and(is_same) {
            if self.receiving.take().is_some() {
                self.wal.abandon_snapshot(SnapshotKind::Incoming)?;
            }
            self.wal.begin_snapshot(SnapshotKind::Incoming, chunk.position)?;
            let SnapshotChunk { term, position, .. } = chunk;
            self.receiving = Some(Receiving { term, position, loader: Loader::default() });
        }
        let progress = self.wal.snapshot_progress(SnapshotKind::Incoming);
        let have = progress.map_or(0, |(_, bytes)| bytes);
        if chunk.offset != have {
            self.node.snapshot_received(&chunk, have);
            return Ok(());
        }
        let receiving = self.receiving.as_mut().expect("it was just begun");
        if receiving.loader.feed(&chunk.data).is_err() {
            return self.refuse_snapshot(&chunk);
        }
        self.wal.append_snapshot(SnapshotKind::Incoming, &chunk.data)?;
        if chunk.done {
            return self.install(&chunk);
        }
        self.node.snapshot_received(&chunk, have + chunk.data.len() as u64);
        Ok(())
    }

    fn install(&mut self, chunk: &SnapshotChunk) -> Result<(), WalError> {
        let receiving = self.receiving.take().expect("its last piece was just written");
        let machine = match receiving.loader.finish() {
            Ok(machine) if machine.applied() == chunk.position.index => machine,
            _ => return self.refuse_snapshot(chunk),
        };
        let file = self.wal.finish_snapshot(SnapshotKind::Incoming)?;
        self.node.snapshot_is_there(file.position, file.payload_bytes);
        self.tidying = None;
        self.told_no_space = false;
        if self.taking.take().is_some() {
            self.wal.abandon_snapshot(SnapshotKind::Own)?;
        }
        if self.node.install_snapshot(chunk, machine) {
            self.wal.reset(chunk.position);
        }
        Ok(())
    }

    /// What arrived is not what was frozen at the leader: it is thrown away, and asked for again.
    fn refuse_snapshot(&mut self, chunk: &SnapshotChunk) -> Result<(), WalError> {
        self.receiving = None;
        self.wal.abandon_snapshot(SnapshotKind::Incoming)?;
        self.node.snapshot_received(chunk, 0);
        Ok(())
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

/// The state of a snapshot file, read piece by piece.
pub(crate) fn load<D: Disk>(
    wal: &mut Wal<D>,
    file: &SnapshotFile,
    piece_bytes: usize,
) -> Result<Machine, WalError> {
    let mut loader = Loader::default();
    let mut offset = 0;
    while offset < file.payload_bytes {
        let piece = wal.read_snapshot(file.position, offset, piece_bytes)?;
        offset += piece.len() as u64;
        loader.feed(&piece).map_err(|malformed| wal.bad_snapshot(file, malformed.0))?;
    }
    loader.finish().map_err(|malformed| wal.bad_snapshot(file, malformed.0))
}

impl fmt::Display for ReplicaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplicaError::Wal(error) => write!(f, "{error}"),
            ReplicaError::Unreadable(Unreadable { index, cause }) => write!(
                f,
                "log entry {index} is committed but cannot be applied: {cause}; was it written by a \
                 newer version? Run that version on this data folder"
            ),
        }
    }
}

impl std::error::Error for ReplicaError {}
