//! One node, pure: Raft, the state machine, and the requests that wait for them. Everything that comes
//! from outside is an input here, everything that goes out is collected until the turn's flush; no
//! socket, file or clock.
//!
//! Each request gets exactly one answer. A write that reached this leader's log is answered when its entry
//! (index *and* term) is applied, or with "outcome unknown" as soon as leadership is lost; a read when it is
//! confirmed and the state has caught up, or with "not done" when leadership is lost.

mod audit;
mod backups;
mod expiry;
mod log_growth;
mod members;
mod requests;

pub use backups::{BackupBytes, BackupRead, BackupTicket};
pub use members::{Applicant, Peer, Standing};

use crate::codec::Malformed;
use crate::kv::{self, Answer, Command, Executed, FailureCode, Limits, Machine, Outcome, Request};
use crate::ordered::{Few, InOrder};
use crate::raft::{
    self, Contradiction, Entry, Index, LogRead, Membership, Message, NodeId, Payload, Position,
    Raft, ReadId, Ready, Restored, SnapshotChunk, Term, Waits,
};
use audit::{Audit, Point};
use backups::Backups;
use log_growth::LogGrowth;
use members::{Connected, PendingTransfer};
use requests::{OUTCOME_UNKNOWN_ADVICE, failure};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// Requests that wait for an answer, in all. When it is reached, new ones are refused as not done.
pub const REQUESTS_MAX: usize = 65_536;
/// Log bytes applied per turn, so that catching up does not keep the loop from its heartbeats.
const APPLY_BYTES_PER_TURN: usize = 4 * 1024 * 1024;
/// The same in entries. Both are well below what the machine's history keeps, so that a change stream that
/// is level does not miss what is applied in one turn.
const APPLY_ENTRIES_PER_TURN: Index = 16_384;

/// Steps of searching through keys for clients, beyond which further searches wait for the next turn. One search
/// may go beyond it by what one search may cost.
const SEARCH_STEPS_PER_TURN: u64 = kv::RANGE_WORK_MAX as u64 / 4;

/// Keys whose memory is freed in one turn after they were flushed: some, of very many a part, and never so many
/// that the turn is long. The most is about what a turn may bring, so that what waits does not grow.
const FREED_PER_TURN: usize = 16 * 1024;
const FREED_FRACTION: usize = 32;
const FREED_PER_TURN_MAX: usize = 128 * 1024;

/// Of the log, kept in memory for followers that are a little behind. What they need of what is older is read from
/// the disk, if it is not much older than the newest snapshot.
const LOG_IN_MEMORY_BYTES: usize = 8 * 1024 * 1024;
/// Entries that are dropped from memory in one turn: more than a turn brings, and of a KiB each, they take some
/// milliseconds.
const EVICTED_PER_TURN: usize = 2 * APPLY_ENTRIES_PER_TURN as usize;
/// A snapshot is taken when the log since the last one has reached the configured size, and this fraction of
/// the state: so that the snapshots of a large state do not cost many times its changes.
const SNAPSHOT_STATE_FRACTION: usize = 4;

/// [`Config::snapshot_piece_bytes`] unless there is a reason for another size: it is written in a millisecond.
pub const SNAPSHOT_PIECE_BYTES: usize = 256 * 1024;

/// What nodes say to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerMessage {
    Raft(Message),
    /// A client's request that reached a node which is not the leader.
    Forward {
        id: u64,
        request: Request,
    },
    ForwardReply {
        id: u64,
        answer: Answer,
    },
    /// A follower's state digest after an index at which all compare, for its leader.
    DigestReport {
        index: Index,
        digest: u64,
    },
    /// What a majority of the voters have at that index, for one that has another.
    Diverged {
        index: Index,
        digest: u64,
    },
    /// The first entry of the log, for a member that does not know it yet.
    Found(Rc<Membership>),
    /// A node that wants to be taken in, for the leader.
    Applies(Applicant),
}

/// The caller's name for a request; its answer carries it.
pub type Ticket = u64;

/// What to do with a request when another node leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routing {
    /// Hand it to the leader and pass its answer on.
    Forward,
    /// Tell the client who leads.
    Redirect,
}

#[derive(Debug, Clone)]
pub struct Config {
    pub raft: raft::Config,
    /// This node's own name, such as `raft-2`.
    pub name: String,
    /// `host:port` where the others and clients find this node.
    pub address: String,
    /// Number and name of those that a new cluster begins with.
    pub initial: Few<u64, String>,
    /// Whether a leader takes in nodes and makes learners voters by itself.
    pub auto_members: bool,
    pub limits: Limits,
    /// How long a forwarded request waits for the leader's answer.
    pub forward_timeout_ticks: u64,
    /// Log bytes after which a snapshot is taken.
    pub snapshot_log_bytes: usize,
    /// Of a snapshot, written or sent at a time; at least 1. A key is never split, so a piece may be larger.
    pub snapshot_piece_bytes: usize,
}

#[derive(Debug)]
pub struct Node {
    raft: Raft,
    machine: Machine,
    config: Config,
    now_ticks: u64,
    /// In milliseconds of Unix time.
    wall_ms: u64,
    /// The newest entry of this node that removes keys whose time has come.
    removing_expired: Option<Position>,
    /// Begins anywhere, so that the leader's answer to what an earlier process of this node forwarded is
    /// not taken for the answer to what this one did.
    last_id: u64,
    /// Writes in this leader's log, by index.
    writes: InOrder<Index, PendingWrite>,
    reads: BTreeMap<ReadId, PendingRead>,
    /// How many of them are still to be read.
    unread: usize,
    /// Confirmed reads, by the index that has to be applied first; that never decreases.
    confirmed: VecDeque<(Index, ReadId)>,
    /// Of those that may be answered, the ones that look at many keys.
    searches: VecDeque<ReadId>,
    /// Steps that all searches have taken.
    search_steps: u64,
    /// Requests handed to a leader. Ids rise with time, so the first is the oldest.
    forwards: BTreeMap<u64, Forwarded>,
    /// Peers that a message can be handed to at the moment.
    connected: Few<NodeId, Connected>,
    /// At the leader: who wants to be taken in, and until when that holds, in ticks.
    applicants: Few<NodeId, (Applicant, u64)>,
    transfer: Option<PendingTransfer>,
    /// Requests that wait for a new leader to be known, while leadership is handed over.
    held: Vec<Held>,
    held_until_ticks: u64,
    /// Who has said that it does not lead that term any more.
    former_leader: Option<(NodeId, Term)>,
    /// The process is about to end: new requests are not taken.
    is_leaving: bool,
    rng: fastrand::Rng,
    audit: Audit,
    snapshot_is_due: bool,
    backups: Backups,
    refuses_growth: bool,
    /// The index at which a majority has another state than this node.
    diverged_at: Option<Index>,
    log_growth: LogGrowth,
    /// The log that is kept when the snapshot that is being taken is on disk comes after this.
    keeps_log_after: Position,
    /// The term this node leads, as of the last input.
    led_term: Option<Term>,
    tally: Tally,
    messages: Vec<(NodeId, PeerMessage)>,
    answers: Vec<(Ticket, Answer)>,
}

/// What became of requests, since this node began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub proposals: u64,
    pub reads: u64,
    pub forwards: u64,
    /// Keys that were removed because their time had come.
    pub expired: u64,
}

#[derive(Debug, Clone, Copy)]
enum Origin {
    Client(Ticket),
    Peer { node: NodeId, id: u64 },
}

#[derive(Debug)]
struct PendingWrite {
    term: Term,
    origin: Origin,
}

#[derive(Debug)]
struct PendingRead {
    origin: Origin,
    wanted: Wanted,
}

#[derive(Debug)]
enum Wanted {
    /// It has been read, and is the answer if this node led at that time.
    Found(Answer),
    Request(Request),
}

#[derive(Debug)]
struct Held {
    origin: Origin,
    request: Request,
    routing: Routing,
}

#[derive(Debug)]
struct Forwarded {
    ticket: Ticket,
    to: NodeId,
    request: Request,
    deadline_ticks: u64,
}

/// What leaves a node at the end of a turn.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    pub messages: Vec<(NodeId, PeerMessage)>,
    pub answers: Vec<(Ticket, Answer)>,
}

/// A committed entry that is not a command of this version. Nothing after it can be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable {
    pub index: Index,
    pub cause: Malformed,
}

impl Node {
    /// A node as its disk remembers it; `machine` is the state of its newest snapshot.
    pub fn new(config: Config, restored: Restored, machine: Machine) -> Self {
        let is_fresh = restored.snapshot.is_none() && restored.entries.is_empty();
        let log_growth = LogGrowth::new(config.raft.id, is_fresh);
        let raft = Raft::restore(config.raft.clone(), restored);
        let mut rng = fastrand::Rng::with_seed(config.raft.seed);
        assert_eq!(machine.applied(), raft.commit_index(), "the state is that of the snapshot");
        Node {
            raft,
            machine,
            last_id: rng.u64(..) / 2,
            config,
            now_ticks: 0,
            wall_ms: 0,
            removing_expired: None,
            writes: InOrder::default(),
            reads: BTreeMap::new(),
            unread: 0,
            confirmed: VecDeque::new(),
            searches: VecDeque::new(),
            search_steps: 0,
            forwards: BTreeMap::new(),
            connected: Few::new(),
            applicants: Few::new(),
            transfer: None,
            held: Vec::new(),
            held_until_ticks: 0,
            former_leader: None,
            is_leaving: false,
            rng,
            audit: Audit::default(),
            snapshot_is_due: false,
            backups: Backups::default(),
            refuses_growth: false,
            diverged_at: None,
            log_growth,
            keeps_log_after: Position::default(),
            led_term: None,
            tally: Tally::default(),
            messages: Vec::new(),
            answers: Vec::new(),
        }
    }

    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Requests that have no answer yet.
    pub fn requests_pending(&self) -> usize {
        self.writes.len() + self.reads.len() + self.forwards.len() + self.held.len()
    }

    /// Steps that searches through keys have taken, since this node began.
    pub fn search_steps(&self) -> u64 {
        self.search_steps
    }

    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether a message can be handed to this node at the moment.
    #[inline(never)]
    pub fn is_connected(&self, id: NodeId) -> bool {
        self.connected.contains_key(&id)
    }

    /// Time since this node began.
    pub fn now_ticks(&self) -> u64 {
        self.now_ticks
    }

    // Inputs.

    pub fn tick(&mut self) {
        self.now_ticks += 1;
        self.raft.tick();
        self.expire_forwards();
        self.notice_lost_leadership();
        self.tick_members();
        self.release_held();
    }

    /// A client asks. The answer comes out of a later flush under the same ticket. Returns how long the value will
    /// be if it is a [`Request::Get`], as far as this node knows.
    pub fn request(&mut self, ticket: Ticket, request: Request, routing: Routing) -> usize {
        self.handle_request(Origin::Client(ticket), request, routing)
    }

    pub fn peer_message(
        &mut self,
        from: NodeId,
        message: PeerMessage,
    ) -> Result<(), Contradiction> {
        match message {
            PeerMessage::Raft(message) => {
                self.raft.step(from, message)?;
                self.notice_lost_leadership();
                self.release_held();
            }
            PeerMessage::Forward { id, request } => {
                // Only one hop: a node that is not the leader either says so, and nothing goes in circles.
                let origin = Origin::Peer { node: from, id };
                self.handle_request(origin, request, Routing::Redirect);
            }
            PeerMessage::ForwardReply { id, answer } => {
                self.forward_answered(from, id, answer);
            }
            PeerMessage::DigestReport { index, digest } => {
                self.compare(from, Point { index, digest });
            }
            PeerMessage::Diverged { index, digest } => {
                if self.raft.leader() == Some(from) {
                    self.learn_majority_state(Point { index, digest });
                }
            }
            PeerMessage::Found(founding) => self.learn_founding(founding),
            PeerMessage::Applies(applicant) => self.note_applicant(applicant),
        }
        Ok(())
    }

    /// The connection to a peer is gone: what was handed to it may have been carried out or not.
    pub fn peer_unreachable(&mut self, peer: NodeId) {
        self.connected.remove(&peer);
        self.raft.peer_unreachable(peer);
        let lost: Vec<u64> =
            self.forwards.iter().filter(|(_, f)| f.to == peer).map(|(id, _)| *id).collect();
        for id in lost {
            self.fail_forward(id, "the connection to the leader was lost");
        }
    }

    /// The peer's connection was closed by its side, and a new one refused.
    pub fn peer_process_ended(&mut self, peer: NodeId) {
        self.raft.peer_process_ended(peer);
    }

    // The turn's flush, in this order; `Replica` calls them.

    /// Whether the flush has anything to do.
    pub fn has_work(&self) -> bool {
        self.has_work_with(Waits::default())
    }

    /// The same, apart from what waits.
    pub fn has_work_with(&self, waits: Waits) -> bool {
        self.raft.has_ready_with(waits)
            || !self.messages.is_empty()
            || !self.answers.is_empty()
            || self.has_backup_reads()
            || !self.searches.is_empty()
            || self.may_release_held()
            || self.machine.applied() < self.raft.commit_index()
    }

    /// What is to be written, and what may be sent before that: a leader's entries, forwarded requests.
    pub fn take_ready(&mut self, waits: Waits) -> (Ready, Vec<(NodeId, PeerMessage)>) {
        self.evict_log();
        self.release_held();
        self.remove_expired();
        let mut ready = self.raft.take_ready_with(waits);
        let mut early = std::mem::take(&mut self.messages);
        let appends = std::mem::take(&mut ready.early);
        early.extend(appends.into_iter().map(|(to, message)| (to, PeerMessage::Raft(message))));
        (ready, early)
    }

    /// All of the `Ready` is on disk. Returns what may be sent now: whoever waits for it need not wait for
    /// this node's state machine.
    pub fn persisted(&mut self, ready: Ready) -> Vec<(NodeId, PeerMessage)> {
        self.raft.persisted();
        self.notice_lost_leadership();
        let messages = ready.messages.into_iter();
        messages.map(|(to, message)| (to, PeerMessage::Raft(message))).collect()
    }

    /// Applies what is committed, and answers what can be answered.
    pub fn carry_out(&mut self) -> Result<Outgoing, Unreadable> {
        self.abort_reads();
        for read in self.raft.take_reads() {
            self.confirmed.push_back((read.index, read.id));
        }
        self.apply_committed()?;
        self.answer_reads();
        self.search();
        let waiting = self.machine.store().flushed();
        let freed = (waiting / FREED_FRACTION).clamp(FREED_PER_TURN, FREED_PER_TURN_MAX);
        self.machine.free_flushed(freed);
        let messages = std::mem::take(&mut self.messages);
        Ok(Outgoing { messages, answers: std::mem::take(&mut self.answers) })
    }

    // Snapshots; `Replica` moves their bytes.

    pub fn wants_snapshot(&self) -> bool {
        let is_long = self.log_growth.is_long(1);
        let is_read = self.raft.is_sending_snapshot() || self.is_backed_up();
        self.snapshot_is_due || self.backup_wants_snapshot() || (is_long && !is_read)
    }

    /// The newest one has turned out to be unreadable.
    pub fn take_snapshot_soon(&mut self) {
        self.snapshot_is_due = true;
    }

    /// Begins a snapshot of what is applied.
    pub fn begin_snapshot(&mut self) -> Position {
        self.log_growth.restart();
        self.snapshot_is_due = false;
        self.keeps_log_after = self.raft.log().evicted();
        self.machine.begin_snapshot();
        let index = self.machine.applied();
        let term = self.raft.log().term_at(index).expect("what is applied is in the log");
        Position { index, term }
    }

    /// The next piece of it, of about that size, and whether that is the last one.
    pub fn snapshot_piece(&mut self, bytes_max: usize) -> (Vec<u8>, bool) {
        self.machine.snapshot_piece(bytes_max)
    }

    /// The snapshot at `newest` that was taken is on disk: the log before it goes, but for what followers that are a
    /// little behind still need.
    pub fn snapshot_saved(&mut self, newest: Position) {
        self.raft.compact(newest, self.keeps_log_after);
    }

    /// Drops from memory what is applied and on disk of the log, but for the newest part.
    fn evict_log(&mut self) {
        let kept = LOG_IN_MEMORY_BYTES.min(self.config.snapshot_log_bytes);
        self.raft.evict(self.machine.applied(), kept, EVICTED_PER_TURN);
    }

    /// Entries that were read from the disk for a follower; none if they can't be. Then it is sent a snapshot, and
    /// a new one if there is none that the log goes on from.
    pub fn log_read(
        &mut self,
        read: LogRead,
        entries: Vec<Entry>,
    ) -> Option<(NodeId, PeerMessage)> {
        let message = self.raft.log_read(read, entries);
        self.snapshot_is_due |= !self.raft.log_connects_to_snapshot();
        message.map(|(to, message)| (to, PeerMessage::Raft(message)))
    }

    pub fn abandon_snapshot(&mut self) {
        self.machine.abandon_snapshot();
    }

    /// Space is scarce: only what frees some is taken.
    pub fn refuse_growth(&mut self, refuse: bool) {
        self.refuses_growth = refuse;
    }

    /// The turn waits for space on the disk, and this node promises nothing. What promises nothing goes
    /// on: a follower's clients are served by its leader, and whoever asked for what cannot be done is
    /// told so.
    pub fn held(&mut self) -> Outgoing {
        self.raft.drop_messages();
        self.abort_reads();
        self.notice_lost_leadership();
        let messages = std::mem::take(&mut self.messages);
        Outgoing { messages, answers: std::mem::take(&mut self.answers) }
    }

    fn abort_reads(&mut self) {
        for id in self.raft.take_aborted_reads() {
            if let Some(read) = self.take_read(id) {
                self.fail_not_leader(read.origin);
            }
        }
    }

    /// Whether a piece of a leader's snapshot has become useless; the leader is told.
    pub fn snapshot_is_covered(&mut self, chunk: &SnapshotChunk) -> bool {
        self.raft.is_covered(chunk)
    }

    pub fn snapshot_received(&mut self, chunk: &SnapshotChunk, next: u64) {
        self.raft.snapshot_received(chunk, next);
    }

    /// A leader's snapshot is on disk, and `machine` is its state. Returns whether the log is void.
    pub fn install_snapshot(&mut self, chunk: &SnapshotChunk, machine: Machine) -> bool {
        let is_void = self.raft.install_snapshot(chunk, Rc::clone(machine.membership()));
        let old = std::mem::replace(&mut self.machine, machine);
        self.machine.free_slowly(old);
        self.log_growth.restart();
        // Their entries were committed, but what became of them is now only in the state.
        for write in self.writes.extract(|index, _| *index <= chunk.position.index) {
            let what = format!("the write's entry is in a snapshot; {OUTCOME_UNKNOWN_ADVICE}");
            self.answer(write.origin, Answer::Failed(failure(FailureCode::OutcomeUnknown, what)));
        }
        is_void
    }

    // What is committed.

    fn apply_committed(&mut self) -> Result<(), Unreadable> {
        let mut bytes = 0;
        let upto = self.raft.commit_index().min(self.machine.applied() + APPLY_ENTRIES_PER_TURN);
        while self.machine.applied() < upto && bytes < APPLY_BYTES_PER_TURN {
            let index = self.machine.applied() + 1;
            let entry = self.raft.log().get(index).expect("what is committed is in the log");
            let (term, cost_bytes) = (entry.term, entry.cost_bytes());
            let removes_expired = matches!(&entry.payload,
                Payload::Command(command) if Command::removes_expired(command));
            let executed =
                self.machine.apply(entry).map_err(|cause| Unreadable { index, cause })?;
            bytes += cost_bytes;
            if removes_expired
                && let Some(Executed { outcome: Outcome::Counter(keys), .. }) = executed
            {
                self.tally.expired += keys as u64;
            }
            let digest = self.machine.store().digest();
            if let Some(point) = self.audit.applied(index, digest) {
                self.report(point);
            }
            let state = self.machine.store().bytes() / SNAPSHOT_STATE_FRACTION;
            self.log_growth.add(cost_bytes, self.config.snapshot_log_bytes.max(state));
            if let Some(write) = self.writes.remove(&index) {
                assert_eq!(
                    write.term, term,
                    "pending writes end with the leadership they began in"
                );
                match executed {
                    Some(executed) => self.answer_written(write.origin, executed),
                    None => self.answer_changed(write.origin, index),
                }
            }
        }
        Ok(())
    }

    /// Tells the leader of the own state at a point of comparison.
    fn report(&mut self, point: Point) {
        let Point { index, digest } = point;
        match self.raft.leader() {
            Some(leader) if leader == self.raft.id() => self.compare(leader, point),
            Some(leader) => {
                self.messages.push((leader, PeerMessage::DigestReport { index, digest }));
            }
            None => {}
        }
    }

    /// At the leader: a voter's state at a point.
    fn compare(&mut self, from: NodeId, point: Point) {
        let membership = self.raft.membership();
        if !self.raft.is_leader() || !membership.is_voter(from) {
            return;
        }
        let voters = membership.voter_count();
        let Some((agreed, differing)) = self.audit.report(from, point, voters) else {
            return;
        };
        for node in differing {
            if node == self.raft.id() {
                self.learn_majority_state(agreed);
            } else {
                let Point { index, digest } = agreed;
                self.messages.push((node, PeerMessage::Diverged { index, digest }));
            }
        }
    }

    fn learn_majority_state(&mut self, agreed: Point) {
        if self.audit.contradicts(agreed) {
            self.diverged_at = Some(agreed.index);
        }
    }

    /// The index at which a majority has another state than this node, which must not be served any more.
    pub fn diverged_at(&self) -> Option<Index> {
        self.diverged_at
    }

    /// Points at which all voters' states were compared and equal, under this leader.
    pub fn digests_compared(&self) -> u64 {
        self.audit.compared()
    }

    /// What this node knows of the state is worthless, its disk is empty now, and its term and vote are all
    /// it keeps. Every request that waits is answered with what is known of it.
    pub fn start_over(&mut self) -> Vec<(Ticket, Answer)> {
        let restored = Restored {
            hard_state: self.raft.hard_state(),
            lost_in_term: self.raft.term(),
            ..Restored::default()
        };
        let mut machine = Machine::default();
        machine.free_slowly(std::mem::take(&mut self.machine));
        let mut fresh = Node::new(self.config.clone(), restored, machine);
        fresh.connected = std::mem::take(&mut self.connected);
        fresh.last_id = self.last_id;
        fresh.wall_ms = self.wall_ms;
        std::mem::replace(self, fresh).give_up()
    }

    fn give_up(mut self) -> Vec<(Ticket, Answer)> {
        self.abandon_backups();
        let ids: Vec<u64> = self.forwards.keys().copied().collect();
        for id in ids {
            self.fail_forward(id, "this node gave up its state");
        }
        for write in std::mem::take(&mut self.writes).into_values() {
            let what = format!("this node gave up its state; {OUTCOME_UNKNOWN_ADVICE}");
            self.answer(write.origin, Answer::Failed(failure(FailureCode::OutcomeUnknown, what)));
        }
        if let Some(transfer) = self.transfer.take() {
            let what = "this node gave up its state; ask for the status".to_string();
            self.answer(
                transfer.origin,
                Answer::Failed(failure(FailureCode::OutcomeUnknown, what)),
            );
        }
        for held in std::mem::take(&mut self.held) {
            let what = "this node gave up its state; ask another".to_string();
            self.answer(held.origin, Answer::Failed(failure(FailureCode::ShuttingDown, what)));
        }
        for read in std::mem::take(&mut self.reads).into_values() {
            let what = "this node gave up its state; ask another".to_string();
            self.answer(read.origin, Answer::Failed(failure(FailureCode::ShuttingDown, what)));
        }
        self.answers
    }
}
