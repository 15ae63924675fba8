//! `srvraft recover`: a cluster out of one surviving data folder, when a majority of the disks is lost.
//!
//! No rule of Raft allows this: what a lost majority has acknowledged without this node is gone, and only a
//! person can say that nobody will come back with it. So it is done by hand, to a node that does not run, and
//! for members that were named.
//!
//! One log entry makes this node the only member of a cluster with a new id; the others are among the removed.
//! The new id keeps every folder of the old cluster out, whichever way its log went on. A snapshot that
//! includes the entry comes with it, so that nodes that join get the new cluster from their first byte on:
//! with a part of the old log only, they would belong to the old cluster, and be refused. The entry is
//! appended between the snapshot's last byte and its name; so a crash leaves the old cluster or the new one,
//! and at worst one without that snapshot, which a second run then makes.

use crate::codec::Malformed;
use crate::config::RecoverRequest;
use crate::kv::Machine;
use crate::node::SNAPSHOT_PIECE_BYTES;
use crate::ordered::Few;
use crate::raft::{
    Entry, HardState, Index, Member, Membership, NodeId, Payload, Position, REMOVED_MAX, node_id,
    quorum,
};
use crate::replica;
use crate::wal::{Disk, Identity, Recovered, SnapshotKind, Wal, WalConfig, WalError};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub name: String,
    pub before: Rc<Membership>,
    pub after: Rc<Membership>,
    /// The newest entry that the folder held.
    pub last: Position,
    /// The entry that makes the new cluster.
    pub position: Position,
    pub keys: usize,
    /// The node was a learner, which may lack more than a voter.
    pub was_learner: bool,
    /// What else opening the folder brought to light.
    pub notes: Vec<String>,
}

/// Why nothing was done.
#[derive(Debug)]
pub enum RecoverError {
    Wal(WalError),
    /// The folder holds no data.
    Empty {
        name: String,
    },
    /// It lacks something of what it once held.
    Damaged {
        what: String,
    },
    /// An entry of the log that this program does not understand.
    Unreadable {
        index: Index,
        cause: Malformed,
    },
    /// The node was never in a cluster.
    NoCluster {
        name: String,
    },
    /// By its own log it is not, or no longer, a member.
    NoMember {
        name: String,
        was_removed: bool,
    },
    OnlyMember {
        name: String,
    },
    /// Members whose loss nobody has accepted.
    NotAccepted {
        name: String,
        others: Vec<String>,
        missing: Vec<String>,
    },
    /// Names that no other member has.
    NotMembers {
        names: Vec<String>,
        others: Vec<String>,
    },
}

impl From<WalError> for RecoverError {
    fn from(error: WalError) -> Self {
        RecoverError::Wal(error)
    }
}

/// Carries out the request. `cluster_id` is that of the new cluster.
///
/// # Errors
///
/// Everything but an error of the disk leaves the folder as a start of the node would have left it.
pub fn recover<D: Disk>(
    mut disk: D,
    request: &RecoverRequest,
    cluster_id: u64,
) -> Result<Report, RecoverError> {
    let RecoverRequest { name, number, .. } = request;
    let identity = Identity::load_existing(&mut disk, request.cluster_id, *number, name)?
        .ok_or_else(|| RecoverError::Empty { name: name.clone() })?;
    let config =
        WalConfig { segment_bytes: request.segment_bytes, salt_seed: identity.incarnation };
    let (mut wal, recovered) = Wal::open(disk, config)?;
    if let Some(what) = recovered.damaged {
        return Err(RecoverError::Damaged { what });
    }
    let (mut machine, changed_at) = replay(&mut wal, &recovered)?;
    let last = last(&recovered);
    let before = Rc::clone(machine.membership());
    let own = node_id(*number, identity.incarnation);
    let is_done = before.members.keys().eq([&own]);
    if is_done {
        finish(&mut wal, &mut machine, last, changed_at)?;
    }
    let after = Rc::new(alone(&before, own, request, cluster_id)?);

    let term = recovered.hard_state.term.max(last.term) + 1;
    let position = Position { index: last.index + 1, term };
    let payload = Payload::Members(Rc::clone(&after));
    let entry = Entry { index: position.index, term, payload };
    machine.apply(&entry).expect("members are no command");
    write_snapshot(&mut wal, &mut machine, position)?;
    wal.append_hard_state(HardState { term, voted_for: Some(own) });
    wal.append_entries(&[entry]);
    wal.sync()?;
    wal.finish_snapshot(SnapshotKind::Own)?;
    let mut notes = recovered.notes;
    if recovered.torn_bytes > 0 {
        notes.push(format!("cut {} bytes of a write that was not finished", recovered.torn_bytes));
    }
    Ok(Report {
        name: name.clone(),
        was_learner: !before.is_voter(own),
        before,
        after,
        last,
        position,
        keys: machine.store().len(),
        notes,
    })
}

fn last(recovered: &Recovered) -> Position {
    recovered
        .entries
        .last()
        .map_or(recovered.base, |entry| Position { index: entry.index, term: entry.term })
}

/// The state after the whole log, committed or not: whoever could have said otherwise is given up. And the
/// index of its newest entry that names the members, if the snapshot does not hold it.
fn replay<D: Disk>(
    wal: &mut Wal<D>,
    recovered: &Recovered,
) -> Result<(Machine, Option<Index>), RecoverError> {
    let mut machine = match &recovered.snapshot {
        Some(file) => replica::load(wal, file, SNAPSHOT_PIECE_BYTES)?,
        None => Machine::default(),
    };
    let mut changed_at = None;
    for entry in &recovered.entries {
        let index = entry.index;
        if let Payload::Members(_) = &entry.payload {
            changed_at = Some(index);
        }
        machine.apply(entry).map_err(|cause| RecoverError::Unreadable { index, cause })?;
    }
    Ok((machine, changed_at))
}

/// The membership with this node as its only one, if that is what was asked for.
fn alone(
    before: &Membership,
    own: NodeId,
    request: &RecoverRequest,
    cluster_id: u64,
) -> Result<Membership, RecoverError> {
    let name = request.name.clone();
    if before.is_empty() {
        return Err(RecoverError::NoCluster { name });
    }
    let Some(member) = before.members.get(&own) else {
        let was_removed = before.was_removed(own);
        return Err(RecoverError::NoMember { name, was_removed });
    };
    let lost = || before.members.iter().filter(|(id, _)| **id != own);
    let others: Vec<String> = lost().map(|(_, member)| member.name.clone()).collect();
    if others.is_empty() {
        return Err(RecoverError::OnlyMember { name });
    }
    let accepted = &request.accept_loss_of;
    let unknown: Vec<String> =
        accepted.iter().filter(|name| !others.contains(name)).cloned().collect();
    if !unknown.is_empty() {
        return Err(RecoverError::NotMembers { names: unknown, others });
    }
    let mut missing: Vec<String> =
        others.iter().filter(|name| !accepted.contains(*name)).cloned().collect();
    missing.dedup(); // of one name may be several incarnations
    if !missing.is_empty() {
        return Err(RecoverError::NotAccepted { name, others, missing });
    }
    let mut removed: VecDeque<NodeId> = before.removed.clone();
    removed.extend(lost().map(|(id, _)| *id));
    removed.drain(..removed.len().saturating_sub(REMOVED_MAX));
    let voter = Member { is_voter: true, ..member.clone() };
    Ok(Membership { cluster_id, members: Few::from([(own, voter)]), removed })
}

/// An earlier run may not have lived to give its snapshot a name.
fn finish<D: Disk>(
    wal: &mut Wal<D>,
    machine: &mut Machine,
    last: Position,
    changed_at: Option<Index>,
) -> Result<(), WalError> {
    if changed_at.is_some() {
        write_snapshot(wal, machine, last)?;
        wal.finish_snapshot(SnapshotKind::Own)?;
    }
    Ok(())
}

/// All but its name.
fn write_snapshot<D: Disk>(
    wal: &mut Wal<D>,
    machine: &mut Machine,
    position: Position,
) -> Result<(), WalError> {
    wal.begin_snapshot(SnapshotKind::Own, position)?;
    machine.begin_snapshot();
    loop {
        let (piece, is_last) = machine.snapshot_piece(SNAPSHOT_PIECE_BYTES);
        wal.append_snapshot(SnapshotKind::Own, &piece)?;
        if is_last {
            return Ok(());
        }
    }
}

fn names(membership: &Membership) -> String {
    let names: Vec<&str> = membership.members.values().map(|member| member.name.as_str()).collect();
    names.join(", ")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { name, before, after, last, position, .. } = self;
        let lost: Vec<&str> = before
            .members
            .iter()
            .filter(|(id, _)| !after.contains(**id))
            .map(|(_, member)| member.name.as_str())
            .collect();
        let lost = lost.join(" and ");
        for note in &self.notes {
            writeln!(f, "note:    {note}")?;
        }
        writeln!(
            f,
            "found:   log up to index {}, term {}; {} keys",
            last.index, last.term, self.keys
        )?;
        writeln!(f, "before:  cluster {:016x} of {}", before.cluster_id, names(before))?;
        let Position { index, term } = position;
        writeln!(
            f,
            "now:     cluster {:016x} of {name} alone, since index {index}, term {term}",
            after.cluster_id
        )?;
        if self.was_learner {
            writeln!(f, "careful: {name} was a learner, and may lack more than a voter would")?;
        }
        writeln!(f, "lost:    what {lost} acknowledged and {name} had not heard of")?;
        writeln!(
            f,
            "next:    start {name} as before; nodes with empty folders come in by themselves"
        )?;
        let voters_lost = before.voters().filter(|id| !after.contains(*id)).count();
        if voters_lost >= quorum::majority(before.voter_count()) {
            writeln!(
                f,
                "never:   start {lost} with their old folders: together they would go on as the cluster before"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoverError::Wal(error) => write!(f, "{error}"),
            RecoverError::Empty { name } => {
                write!(f, "the folder of {name} is empty: recover a node that has its data")
            }
            RecoverError::Damaged { what } => write!(
                f,
                "{what}; a folder that has lost something itself cannot stand for the whole cluster: recover \
                 another node's, if one is whole; nothing was recovered"
            ),
            RecoverError::Unreadable { index, cause } => write!(
                f,
                "log entry {index} cannot be applied: {cause}; was it written by a newer version? Recover \
                 with that version; nothing was recovered"
            ),
            RecoverError::NoCluster { name } => write!(
                f,
                "{name} belongs to no cluster yet, and has no data: recover a node that has its data"
            ),
            RecoverError::NoMember { name, was_removed: true } => write!(
                f,
                "{name} was removed from its cluster, and does not know what happened since: recover a \
                 member"
            ),
            RecoverError::NoMember { name, was_removed: false } => write!(
                f,
                "by its own log {name} is no member (yet), and lacks what came after: recover a member"
            ),
            RecoverError::OnlyMember { name } => write!(
                f,
                "{name} is the only member of its cluster: there is nothing to recover; start it"
            ),
            RecoverError::NotAccepted { name, others, missing } => write!(
                f,
                "{} would be given up: what they acknowledged and {name} had not heard of is lost then, and \
                 they cannot come back with their folders. If they are lost for good, keep a copy of this \
                 folder, and say so: --accept-loss-of {}; nothing was changed",
                missing.join(" and "),
                others.join(",")
            ),
            RecoverError::NotMembers { names, others } => write!(
                f,
                "--accept-loss-of names {}; the other members are {}; nothing was changed",
                names.join(" and "),
                others.join(", ")
            ),
        }
    }
}

impl std::error::Error for RecoverError {}
