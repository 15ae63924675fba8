//! What is no fault, but has to be seen to have happened: snapshots taken, sent and installed, logs cut off,
//! nodes that lost something and got it back.

use super::disk::SimDisk;
use super::faults::Fault;
use super::image::newest_snapshot;
use super::network::ConnId;
use super::world::{Health, MS, Number, World};
use raftkv::node::PeerMessage;
use raftkv::raft::{Message, Position, Term};
use raftkv::replica::Replica;
use raftkv::wal::SnapshotKind;
use std::collections::BTreeMap;

/// The newest piece of a snapshot on its way from one node to another.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    transfer: (Term, Position),
    offset: u64,
    is_last: bool,
    conn: Option<ConnId>,
}

pub type Transfers = BTreeMap<(Number, Number), Piece>;

/// A node before its flush.
pub struct Before {
    taking: Option<Position>,
    newest: Position,
    segments_removed: u64,
    snapshots_refused: u64,
    snapshots_set_aside: u64,
    incoming_given_up: u64,
    is_damaged: bool,
    is_out_of_space: bool,
}

impl Before {
    pub fn of(replica: &Replica<SimDisk>, disk: &SimDisk) -> Before {
        let taking = replica.wal().snapshot_progress(SnapshotKind::Own);
        Before {
            taking: taking.map(|(position, _)| position),
            newest: newest_snapshot(replica),
            segments_removed: disk.segments_removed(),
            snapshots_refused: disk.snapshots_refused(),
            snapshots_set_aside: disk.snapshots_set_aside(),
            incoming_given_up: disk.incoming_given_up(),
            is_damaged: replica.wal().damaged().is_some(),
            is_out_of_space: replica.is_out_of_space(),
        }
    }

    /// Since then.
    pub fn gave_up_incoming(&self, disk: &SimDisk) -> bool {
        disk.incoming_given_up() > self.incoming_given_up
    }
}

impl World {
    /// Returns whether the files on the disk are others than before the flush, not only longer.
    pub fn note_progress(&mut self, id: Number, before: &Before) -> bool {
        let process = self.process_ref(id).expect("it is its turn");
        let after = Before::of(&process.replica, &self.hosts[id as usize - 1].disk);
        let mut seen = Vec::new();
        if after.snapshots_set_aside > before.snapshots_set_aside {
            seen.push(Fault::SnapshotRefused);
        }
        if after.newest > before.newest {
            let is_own = before.taking == Some(after.newest);
            seen.push(if is_own { Fault::SnapshotTaken } else { Fault::SnapshotInstalled });
        }
        let was_taking =
            before.taking.is_some() || after.snapshots_refused > before.snapshots_refused;
        if was_taking && after.taking.is_none() && after.newest == before.newest {
            seen.push(Fault::SnapshotGivenUp);
        }
        if before.gave_up_incoming(&self.hosts[id as usize - 1].disk) {
            seen.push(Fault::IncomingGivenUp);
        }
        if after.segments_removed > before.segments_removed {
            seen.push(Fault::LogDropped);
        }
        if after.is_out_of_space && !before.is_out_of_space {
            seen.push(Fault::TurnHeld);
        }
        if after.is_damaged && !before.is_damaged {
            self.host(id).health = Health::Damaged;
        }
        if before.is_damaged && !after.is_damaged {
            seen.push(Fault::WholeAgain);
            self.host(id).health = Health::Whole;
        }
        let has_changed = seen.iter().any(|what| *what != Fault::TurnHeld);
        seen.into_iter().for_each(|what| self.faults.add(what));
        has_changed
    }

    /// Who sends whom a snapshot at the moment, to the best of anybody's knowledge.
    pub fn transfer_under_way(&self) -> Option<(Number, Number)> {
        let under_way = self.transfers.iter().find(|(_, piece)| !piece.is_last);
        under_way.map(|(pair, _)| *pair)
    }

    fn cut_transfer(&mut self, from: Number, to: Number) {
        match &mut self.cut_transfer_after {
            None => {}
            Some(0) => {
                self.cut_transfer_after = None;
                self.reset(from, to);
            }
            Some(left) => *left -= 1,
        }
    }

    pub fn note_piece(&mut self, from: Number, to: Number, message: &PeerMessage) {
        let PeerMessage::Raft(Message::InstallSnapshot {
            term,
            last_included_index: index,
            last_included_term,
            offset,
            done,
            ..
        }) = message
        else {
            return;
        };
        let position = Position { index: *index, term: *last_included_term };
        let piece = Piece {
            transfer: (*term, position),
            offset: *offset,
            is_last: *done,
            conn: self.network.conn(from, to),
        };
        let before = self.transfers.insert((from, to), piece);
        if std::mem::take(&mut self.next_receiver_is_full) {
            let until = self.now + self.nemesis.u64(20 * MS..=500 * MS);
            self.fill_disk(to, until);
        }
        if !piece.is_last {
            self.cut_transfer(from, to);
        }
        let Some(before) = before else { return };
        if before.transfer != piece.transfer {
            if !before.is_last {
                self.faults.add(Fault::TransferReplaced);
            }
        } else if piece.offset > 0 && before.conn != piece.conn {
            self.faults.add(Fault::TransferResumed);
        } else if piece.offset == 0 && before.offset > 0 {
            self.faults.add(Fault::TransferRestarted);
        }
    }
}
