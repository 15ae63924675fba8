//! One replica: a node and its disk, and the one place where "persist, then speak" is done.
//!
//! The real server and a simulator drive the same `Replica`: inputs through [`Replica::inputs`], then one
//! [`Replica::flush`] per turn. The disk is behind [`Disk`]; time comes as ticks.
//!
//! Snapshots share the turn: a piece of the one that is being taken, and the pieces of one that is being
//! received, are written each by itself, and synced before much is not, so that no single sync is ever large.
//!
//! The turn is here; `taking.rs` goes on with the own snapshot and looks after the room on the disk, `receiving.rs`
//! takes in a leader's, and `reading.rs` reads what others ask for.

mod reading;
mod receiving;
mod taking;

pub(crate) use reading::load;

use crate::kv::{Answer, Machine};
use crate::node::{self, Node, Outgoing, PeerMessage, Ticket, Unreadable};
use crate::raft::{Entry, Index, NodeId, Position, Ready, Restored, Waits};
use crate::wal::{Disk, Recovered, Wal, WalConfig, WalError};
use receiving::Receiving;
use std::fmt;
use std::rc::Rc;

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
