//! A leader's snapshot, which takes the place of the own state: its pieces are written as they come, and read
//! as the state that they are; with the last one it is installed, as it was frozen at the leader or not at all.

use super::Replica;
use crate::kv::Loader;
use crate::raft::{Position, SnapshotChunk, Term};
use crate::wal::{Disk, SnapshotKind, WalError};

/// A snapshot that a leader sends.
pub(super) struct Receiving {
    term: Term,
    position: Position,
    loader: Loader,
}

impl<D: Disk> Replica<D> {
    /// Takes a piece of a leader's snapshot. Without space it is lost like a message, and what came
    /// before it; after a while the leader's next attempt is taken.
    pub(super) fn receive(&mut self, chunk: SnapshotChunk) -> Result<(), WalError> {
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
