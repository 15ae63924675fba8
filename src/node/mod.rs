//! One node, pure: Raft, the state machine, and the requests that wait for them. Everything that comes
//! from outside is an input here, everything that goes out is collected until the turn's flush; no
//! socket, file or clock.
//!
//! Each request gets exactly one answer. A write that reached this leader's log is answered when its entry
//! (index *and* term) is applied, or with "outcome unknown" as soon as leadership is lost; a read when it is
//! confirmed and the state has caught up, or with "not done" when leadership is lost.
//!
//! The inputs are here; `turn.rs` is the flush, and `requests.rs` what becomes of requests.

mod audit;
mod backups;
mod divergence;
mod expiry;
mod growth;
mod limits;
mod log_growth;
mod members;
mod pending_writes;
mod requests;
mod snapshot;
mod turn;

pub use backups::{BackupBytes, BackupRead, BackupTicket};
pub use growth::NoGrowth;
pub use limits::ClusterLimits;
pub use members::{Applicant, Peer, Standing};
pub use requests::request_bytes;

use crate::codec::Malformed;
use crate::kv::{self, Answer, Limits, Machine, Request};
use crate::ordered::Few;
use crate::raft::{
    self, Distrust, Index, Membership, Message, NodeId, Position, Raft, ReadId, Restored, Term,
};
use audit::{Audit, Point};
use backups::Backups;
use log_growth::LogGrowth;
use members::{Connected, PendingTransfer};
pub use pending_writes::PENDING_WORK_MAX;
use pending_writes::{PendingWrite, PendingWrites};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// Requests that wait for an answer, in all. When it is reached, new ones are refused as not done.
pub const REQUESTS_MAX: usize = 65_536;

/// Steps of searching through keys for clients, beyond which further searches wait for the next turn. One search
/// may go beyond it by what one search may cost.
const SEARCH_STEPS_PER_TURN: u64 = kv::RANGE_WORK_MAX as u64 / 4;

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
    writes: PendingWrites,
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
    /// About how many bytes the requests of each peer take, and their answers will, that are not answered.
    forwarded: Few<NodeId, usize>,
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
    is_disk_low: bool,
    store_bytes_max: Option<usize>,
    /// The limits of other nodes, as they said last.
    others_limits: Few<NodeId, Limits>,
    cluster_limits: ClusterLimits,
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
    /// `bytes`: what it counts in [`Node::forwarded_bytes`] until it is answered.
    Peer {
        node: NodeId,
        id: u64,
        bytes: u32,
    },
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
            cluster_limits: ClusterLimits::alone(config.limits),
            others_limits: Few::new(),
            config,
            now_ticks: 0,
            wall_ms: 0,
            removing_expired: None,
            writes: PendingWrites::default(),
            reads: BTreeMap::new(),
            unread: 0,
            confirmed: VecDeque::new(),
            searches: VecDeque::new(),
            search_steps: 0,
            forwards: BTreeMap::new(),
            forwarded: Few::new(),
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
            is_disk_low: false,
            store_bytes_max: None,
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
        self.look_at_limits();
        self.release_held();
    }

    /// A client asks. The answer comes out of a later flush under the same ticket. Returns how long the value will
    /// be if it is a [`Request::Get`], as far as this node knows.
    pub fn request(&mut self, ticket: Ticket, request: Request, routing: Routing) -> usize {
        self.handle_request(Origin::Client(ticket), request, routing)
    }

    pub fn peer_message(&mut self, from: NodeId, message: PeerMessage) -> Result<(), Distrust> {
        match message {
            PeerMessage::Raft(message) => {
                self.check_sender(from)?;
                self.raft.step(from, message)?;
                self.notice_lost_leadership();
                self.release_held();
            }
            PeerMessage::Forward { id, request } => {
                self.take_forward(from, id, request);
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

    /// A request that was to be handed to a leader was not, and never will be.
    pub fn forward_not_sent(&mut self, id: u64) {
        let Some(forwarded) = self.forwards.remove(&id) else { return };
        let what = "the leader was not reached; nothing was done, try again".to_string();
        let failure = requests::failure(kv::FailureCode::NoLeader, what);
        self.answers.push((forwarded.ticket, Answer::Failed(failure)));
    }

    /// The peer's connection was closed by its side, and a new one refused.
    pub fn peer_process_ended(&mut self, peer: NodeId) {
        self.raft.peer_process_ended(peer);
    }
}
