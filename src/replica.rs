//! One replica: a node and its disk, and the one place where "persist, then speak" is done.
//!
//! The real server and a simulator drive the same `Replica`: inputs through [`Replica::inputs`], then one
//! [`Replica::flush`] per turn. The disk is behind [`Disk`]; time comes as ticks.
//!
//! Snapshots share the turn: a piece of the one that is being taken, and the pieces of one that is being
//! received, are written and synced each by itself, so that no single sync is ever large.

use crate::kv::{Answer, Loader, Machine};
use crate::node::{self, Node, Outgoing, PeerMessage, Ticket, Unreadable};
use crate::raft::{
    Index, Message, NodeId, Position, Ready, Restored, SnapshotChunk, SnapshotRead, Term,
};
use crate::wal::{Disk, Recovered, SnapshotFile, SnapshotKind, Wal, WalConfig, WalError};
use std::fmt;
use std::rc::Rc;

/// Turns between two attempts to make the reserve on a full disk again.
const FILL_RESERVE_TURNS: u64 = 64;

pub struct Replica<D: Disk> {
    node: Node,
    wal: Wal<D>,
    /// A snapshot of the own state is being written.
    taking: Option<Position>,
    receiving: Option<Receiving>,
    /// A turn whose writing found no space: it is tried again, and nothing is said until it succeeds.
    held: Option<Ready>,
    /// Turns with the disk's reserve used up.
    low_turns: u64,
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
        let node = Node::new(config, restored, machine);
        let replica =
            Replica { node, wal, taking: None, receiving: None, held: None, low_turns: 0 };
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

    /// Whether the next flush has something to do without further input.
    pub fn has_work(&self) -> bool {
        self.held.is_none() && (self.node.has_work() || self.taking.is_some())
    }

    /// Whether the last turn waits for space on the disk.
    pub fn is_out_of_space(&self) -> bool {
        self.held.is_some()
    }

    /// Ends the turn. `early` sends what may leave before it is on disk; then everything the turn brought
    /// is written and synced, once; then this node's own disk counts, what is committed is applied, and
    /// what is returned may be sent.
    pub fn flush(
        &mut self,
        early: impl FnOnce(Vec<(NodeId, PeerMessage)>),
    ) -> Result<Outgoing, ReplicaError> {
        let ready = match self.held.take() {
            Some(ready) => ready,
            None => self.begin_turn(early)?,
        };
        match self.wal.sync() {
            Ok(()) => {}
            Err(error) if error.is_full() => {
                self.held = Some(ready);
                return Ok(Outgoing::default());
            }
            Err(error) => return Err(error.into()),
        }
        let mut outgoing = self.node.persisted(ready).map_err(ReplicaError::Unreadable)?;
        if self.wal.damaged().is_some() && !self.node.raft().is_damaged() {
            self.wal.mark_whole()?;
            log::info!("has got back what was lost, and votes again");
        }
        self.look_for_space()?;
        self.take_snapshot()?;
        if let Some(index) = self.node.diverged_at() {
            outgoing.answers.extend(self.start_over(index)?);
        }
        Ok(outgoing)
    }

    /// While the reserve is used up, only what frees space is taken, and now and then it is tried again.
    fn look_for_space(&mut self) -> Result<(), WalError> {
        if self.wal.is_low() {
            self.low_turns += 1;
            if self.low_turns.is_multiple_of(FILL_RESERVE_TURNS) {
                self.wal.fill_reserve()?;
            }
        }
        self.node.refuse_growth(self.wal.is_low());
        Ok(())
    }

    /// Sends what may leave early, and hands the disk what the turn brought.
    fn begin_turn(
        &mut self,
        early: impl FnOnce(Vec<(NodeId, PeerMessage)>),
    ) -> Result<Ready, WalError> {
        let (mut ready, mut messages) = self.node.take_ready();
        for read in &ready.snapshot_reads {
            messages.extend(self.read_chunk(read)?);
        }
        early(messages);
        if let Some(hard_state) = ready.hard_state {
            self.wal.append_hard_state(hard_state);
        }
        self.wal.append_entries(&ready.entries);
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
        self.receiving = None;
        Ok(self.node.start_over())
    }

    /// Goes on with the snapshot of the own state, or begins one if it is time.
    fn take_snapshot(&mut self) -> Result<(), WalError> {
        let Some(position) = self.taking else {
            if self.node.wants_snapshot() {
                let position = self.node.begin_snapshot();
                self.taking = Some(position);
                let begun = self.wal.begin_snapshot(SnapshotKind::Own, position);
                return self.abandon_if_full(begun);
            }
            return Ok(());
        };
        let (piece, is_last) = self.node.snapshot_piece();
        let mut written = self.wal.append_snapshot(SnapshotKind::Own, &piece);
        if is_last && written.is_ok() {
            written = self.wal.finish_snapshot(SnapshotKind::Own).map(|_| ());
            if written.is_ok() {
                self.taking = None;
                return self.drop_old_log(position);
            }
        }
        self.abandon_if_full(written)
    }

    /// Without space there is no snapshot now; the next one is due when the log has grown again.
    fn abandon_if_full(&mut self, result: Result<(), WalError>) -> Result<(), WalError> {
        match result {
            Err(error) if error.is_full() => {
                log::warn!("no space for a snapshot: {error}");
                self.taking = None;
                self.node.abandon_snapshot();
                self.wal.abandon_snapshot(SnapshotKind::Own)
            }
            other => other,
        }
    }

    /// With a snapshot safely on disk, the log that the *older* one of two covers is not needed: if the newest
    /// turns out to be unreadable, the older one and the log after it still make the state.
    fn drop_old_log(&mut self, newest: Position) -> Result<(), WalError> {
        self.node.snapshot_saved(newest);
        if let [older, _] = self.wal.snapshots() {
            let upto = older.position.index;
            self.wal.compact(upto)?;
        }
        Ok(())
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

    /// Writes a piece of a leader's snapshot, and installs it with the last one.
    fn receive(&mut self, chunk: SnapshotChunk) -> Result<(), WalError> {
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
        self.wal.finish_snapshot(SnapshotKind::Incoming)?;
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
