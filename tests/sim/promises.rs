//! The judge on disks: what a node says must be on its own, and what it promised must be there when it starts
//! again, unless the disk itself has lost it; and then the node must know that.

use super::disk::SimDisk;
use super::image::{Image, newest_snapshot, snapshot_name};
use super::invariants::{Judge, View};
use raftkv::node::PeerMessage;
use raftkv::raft::{AppendOutcome, HardState, Message, NodeId, Position, Term};
use raftkv::replica::Replica;
use raftkv::wal::{Recovered, SnapshotKind};

impl Judge {
    /// What a recovery of the durable bytes has to find.
    pub fn durable(&self, id: NodeId) -> &Image {
        &self.views[&id].durable
    }

    pub fn image_of(&self, recovered: &Recovered) -> Image {
        Image::of_recovered(recovered, self.reference.terms())
    }

    /// What the turn that is being flushed makes durable, if it comes to its end.
    pub fn under_way(&self, id: NodeId, replica: &Replica<SimDisk>) -> Image {
        let held = self.views[&id].held.clone();
        held.unwrap_or_else(|| Image::of_memory(replica, self.reference.terms()))
    }

    /// A flush is over: what its node takes for durable is held against what it says from now on.
    /// With `is_struck` a snapshot that is on it may be damaged; `gave_up_incoming`: a leader's snapshot was
    /// given up.
    pub fn flushed(
        &mut self,
        id: NodeId,
        replica: &Replica<SimDisk>,
        is_struck: bool,
        gave_up_incoming: bool,
    ) {
        let view = self.view(id);
        // What there is to say of a received piece is said in the next turn, or the next one that does not wait.
        let (this, last) = view.gave_up_incoming;
        let waited = view.held.is_some();
        view.gave_up_incoming = (gave_up_incoming || (waited && this), this || (waited && last));
        if self.note_start_over(id, replica) {
            return self.look(replica.node());
        }
        self.note_snapshot(id, newest_snapshot(replica), is_struck);
        let committed = self.reference.terms();
        let raft = replica.node().raft();
        let view = self.views.get_mut(&id).expect("the node is a member");
        if replica.is_out_of_space() {
            // Nothing of the turn is on disk. It is tried again, and what arrives meanwhile comes after it.
            view.held.get_or_insert_with(|| Image::of_memory(replica, committed));
        } else {
            if let Some(held) = view.held.take() {
                view.durable = Image { snapshot: view.durable.snapshot, ..held };
            } else {
                view.durable.follow(raft, raft.log().durable_index(), committed);
                view.durable.hard_state = raft.hard_state();
            }
            view.durable.is_damaged = raft.is_damaged();
        }
        self.look(replica.node());
    }

    /// A node that has found out that its state is not that of the others has nothing any more but its
    /// term and vote, and knows it. That it leaves the term is on its disk with the next flush.
    fn note_start_over(&mut self, id: NodeId, replica: &Replica<SimDisk>) -> bool {
        let raft = replica.node().raft();
        let view = self.views.get_mut(&id).expect("the node is a member");
        if !raft.is_damaged() || view.durable.is_damaged || !self.differing.remove(&id) {
            return false;
        }
        let before = std::mem::take(&mut view.durable);
        let durable = Image { hard_state: before.hard_state, is_damaged: true, ..Image::default() };
        let lost = std::mem::take(&mut view.lost).into_iter().chain([before]).collect();
        *view = View { durable, lost, term: view.term, ..View::default() };
        true
    }

    /// A snapshot is safe as soon as it has its name, and its log may follow later. One that turns out to be
    /// damaged costs nothing: the one before and the log have it all.
    fn note_snapshot(&mut self, id: NodeId, newest: Position, is_struck: bool) {
        let committed = self.reference.terms();
        let durable = &mut self.views.get_mut(&id).expect("the node is a member").durable;
        if durable.snapshot != newest {
            assert!(self.reference.has(newest), "node {id:x} has a snapshot of {newest:?}");
            let is_newer = durable.snapshot < newest;
            assert!(is_newer || is_struck, "node {id:x} goes back to a snapshot of {newest:?}");
            durable.terms = durable.terms_under(newest, committed).to_vec();
            durable.snapshot = newest;
        }
    }

    /// What leaves before the disk has what the turn brought may not speak of it.
    pub fn check_early(&mut self, id: NodeId, message: &PeerMessage, disk: &SimDisk) {
        let PeerMessage::Raft(message) = message else { return };
        match message {
            Message::AppendEntries { leader_commit, .. } => {
                let is_true = *leader_commit <= self.committed();
                assert!(is_true, "node {id:x} tells of a commit that is none");
            }
            Message::InstallSnapshot {
                last_included_index: index,
                last_included_term: term,
                offset,
                data,
                done,
                ..
            } => {
                let position = Position { index: *index, term: *term };
                assert!(
                    self.reference.has(position),
                    "node {id:x} sends a snapshot of {position:?}"
                );
                let name = snapshot_name(position);
                assert!(disk.has_durably(&name), "node {id:x} sends a snapshot that may be lost");
                let whole = self.reference.snapshot(*index);
                let rest = whole.get(*offset as usize..).expect("an offset in the snapshot");
                assert!(rest.starts_with(data), "node {id:x} sends another state at {index}");
                assert_eq!(rest.len() == data.len(), *done, "node {id:x}: the end of a snapshot");
            }
            _ => panic!("sent before it was synced: {message:?} of node {id:x}"),
        }
        let own = HardState { term: message.term(), voted_for: Some(id) };
        let durable = self.views[&id].durable.hard_state;
        assert_eq!(durable, own, "node {id:x} leads by a vote that is not on its disk");
    }

    /// What leaves at the end of a flush is what its node's disk would repeat after a crash.
    pub fn check_sent(
        &mut self,
        id: NodeId,
        to: NodeId,
        message: &PeerMessage,
        replica: &Replica<SimDisk>,
    ) {
        let PeerMessage::Raft(message) = message else { return };
        let View { durable, gave_up_incoming: (this, last), .. } = &self.views[&id];
        let HardState { term, voted_for } = durable.hard_state;
        let is_promised = match message {
            Message::RequestPreVote { .. } | Message::PreVoteReply { .. } => true,
            Message::VoteReply { granted: true, term: of } => {
                term > *of || (term == *of && voted_for == Some(to))
            }
            Message::RequestVote { term: of, .. } => {
                term > *of || (term == *of && voted_for == Some(id))
            }
            Message::AppendReply { outcome: AppendOutcome::Accepted { match_index }, .. } => {
                term > message.term()
                    || (term == message.term() && *match_index <= durable.last_index())
            }
            Message::SnapshotReply {
                last_included_index: index,
                last_included_term,
                offset,
                ..
            } => {
                let position = Position { index: *index, term: *last_included_term };
                let is_kept = *this || *last || has_received(replica, position, *offset);
                term >= message.term() && is_kept
            }
            other => term >= other.term(),
        };
        assert!(is_promised, "sent before it was synced: {message:?} of node {id:x}");
        match message {
            Message::VoteReply { granted: true, term: of } => self.note_vote(id, *of, to),
            Message::RequestVote { term: of, .. } => self.note_vote(id, *of, id),
            _ => {}
        }
    }

    fn note_vote(&mut self, voter: NodeId, term: Term, candidate: NodeId) {
        let first = *self.votes.entry((voter, term)).or_insert(candidate);
        assert_eq!(first, candidate, "node {voter:x} votes twice in term {term}");
    }

    /// The process has ended; `under_way` is what it was writing.
    pub fn ended(&mut self, id: NodeId, under_way: Option<Image>) {
        let view = self.view(id);
        let (durable, lost) = (std::mem::take(&mut view.durable), std::mem::take(&mut view.lost));
        *view = View { durable, lost, written: under_way, ..View::default() };
    }

    /// A start found this on the disk. It is acted on, and so is a promise from now on. Returns whether the
    /// newest snapshot was of no use any more.
    ///
    /// What the disk was writing may be there or not, the log and the hard state each for itself: the copy of
    /// the hard state is written beside the batch. Only a disk that has lost something, and only if the
    /// node says so, may hold less; what is left of its log is held against all other logs, as ever.
    pub fn started(&mut self, id: NodeId, replica: &Replica<SimDisk>, is_struck: bool) -> bool {
        let committed = self.reference.terms();
        let found = Image::of_memory(replica, committed);
        assert!(self.reference.has(found.snapshot), "node {id:x} found {:?}", found.snapshot);
        let view = self.views.entry(id).or_default();
        assert!(!view.is_gone, "node {id:x} has lost its disk and is back");
        let images: Vec<&Image> = std::iter::once(&view.durable).chain(&view.written).collect();
        let is_kept =
            images.iter().any(|image| image.terms_under(found.snapshot, committed) == found.terms)
                && images.iter().any(|image| image.is_damaged == found.is_damaged);
        let is_lost = is_struck && found.is_damaged;
        let hard_state = promised_hard_state(&images, &found);
        assert!(
            (is_kept || is_lost) && hard_state.is_some(),
            "node {id:x} promised {:?}, perhaps wrote {:?}, and its disk has {found:?}",
            view.durable,
            view.written
        );
        let fell_back = found.snapshot < view.durable.snapshot;
        assert!(is_struck || !fell_back, "node {id:x} has lost a snapshot");
        let mut lost = std::mem::take(&mut view.lost);
        if !is_kept {
            lost.push(std::mem::take(&mut view.durable));
        }
        let hard_state = hard_state.expect("it was just checked");
        *view = View { durable: Image { hard_state, ..found }, lost, ..View::default() };
        self.look(replica.node());
        fell_back
    }
}

/// The one that was found; or the one to which the found snapshot is news; or the one after which a node that
/// has lost something begins a term of its own.
fn promised_hard_state(images: &[&Image], found: &Image) -> Option<HardState> {
    let of_snapshot = HardState { term: found.snapshot.term, voted_for: None };
    let promised = || {
        images
            .iter()
            .map(|image| image.hard_state)
            .map(|promised| if promised.term < of_snapshot.term { of_snapshot } else { promised })
    };
    let is_anew = |before: &HardState| {
        let new = HardState { term: before.term + 1, voted_for: None };
        found.is_damaged && found.hard_state == new
    };
    promised().find(|hard_state| *hard_state == found.hard_state).or(promised().find(is_anew))
}

/// A transfer does not outlive the process, so this much need only be written; and what was said of one that
/// has come to its end, was given up on a full disk, or has given way to a newer one meanwhile, means
/// nothing any more: the next piece is answered with what there is.
fn has_received(replica: &Replica<SimDisk>, position: Position, offset: u64) -> bool {
    let is_over = replica.node().raft().commit_index() >= position.index;
    match replica.wal().snapshot_progress(SnapshotKind::Incoming) {
        Some((of, bytes)) if of == position => offset <= bytes,
        Some((of, _)) if of > position => true,
        _ => offset == 0 || is_over,
    }
}
