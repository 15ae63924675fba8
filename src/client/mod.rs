//! The client library: blocking, one thread, one request at a time.
//!
//! A [`Client`] finds the leader by itself: it remembers the last one, follows the hints of nodes that are
//! not the leader, and otherwise goes round its servers, with short pauses, until one answers or the total
//! timeout is over. A connection that is lost on the way is no error; it is the next attempt's beginning.
//!
//! Reads are repeated as they are. Writes are carried out *exactly once*: the first write opens a session
//! in the cluster, each write has a sequence number in it, and every further attempt repeats both, so that
//! the cluster gives the first answer again instead of doing the write again (Raft thesis 6.3). What is
//! left is a write given up by timeout, or one whose session was forgotten meanwhile: these end in
//! [`ClientError::OutcomeUnknown`] if an attempt may have reached a server. [`ClientError::NotDone`] is a
//! promise.
//!
//! ```no_run
//! use raftkv::client::{Client, ClientConfig};
//!
//! let mut client = Client::new(ClientConfig::new(["127.0.0.1:6000", "127.0.0.1:6001"]));
//! client.put(b"colour", b"blue")?;
//! assert_eq!(client.get(b"colour")?.value.as_deref(), Some(&b"blue"[..]));
//! # Ok::<(), raftkv::client::ClientError>(())
//! ```

mod address;
mod backup;
mod call;
mod changes;
mod connection;
mod error;
mod route;
mod session;
mod status;

pub use address::parse_address;
pub use backup::BackupSource;
pub use changes::StreamEvent;
pub use error::{ClientError, ServerReason, Why, joined};

use crate::kv::{
    Answer, Blobs, Condition, Expiry, Found, MemberRequest, Outcome, Range, ReadOp, Request,
    TimeCondition, TimedOp, Value, WriteOp,
};
use crate::net::ResolverConfig;
use crate::raft::{Index, NodeId};
use call::Call;
use connection::Connection;
use route::Route;
use session::Session;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

/// Open connections kept, leader's and others'. Beyond it, one that is not in use is closed.
const CONNECTIONS_MAX: usize = 16;

#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// `host:port`, asked in this order while no leader is known. At least one.
    pub servers: Vec<String>,
    /// For the TCP handshake, and again for the hello. Short, because a machine that is gone never
    /// refuses: until this is over no other server is asked.
    pub connect_timeout: Duration,
    /// An attempt is given up when no byte of it has moved for this long. Several fsyncs of a slow disk
    /// fit in; a write repeated too early costs only the repetition.
    pub request_timeout: Duration,
    /// [`Change::NoLeader`] is told when nobody has answered for this long: an election is no news.
    pub tell_after: Duration,
    /// Of a request with all its attempts. `None`: for ever.
    pub total_timeout: Option<Duration>,
    pub resolver: ResolverConfig,
    /// For the servers' logs.
    pub name: String,
    /// Of the jitter in the pauses.
    pub seed: u64,
}

impl ClientConfig {
    /// The defaults: 300 ms to connect, 1 s for an attempt, 10 s in all.
    pub fn new<S: Into<String>>(servers: impl IntoIterator<Item = S>) -> Self {
        ClientConfig {
            servers: servers.into_iter().map(Into::into).collect(),
            connect_timeout: Duration::from_millis(300),
            request_timeout: Duration::from_millis(700),
            tell_after: Duration::from_secs(1),
            total_timeout: Some(Duration::from_secs(10)),
            resolver: ResolverConfig::default(),
            name: "raftkv-client".to_owned(),
            seed: fastrand::u64(..),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// `None`: no such key.
    pub value: Option<Vec<u8>>,
    /// The last log index that the read saw.
    pub index: Index,
    pub leader: NodeId,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Never [`Outcome::Refused`]; that is an error.
    pub outcome: Outcome,
    /// The log index of the write.
    pub index: Index,
    pub leader: NodeId,
}

/// A hash of the whole state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    pub digest: u64,
    /// The number of keys.
    pub keys: u64,
    /// The log index of the state.
    pub index: Index,
    pub leader: NodeId,
}

/// Some keys in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// With their values, if these were asked for.
    pub pairs: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// The least key that was not looked at; `None`: there are no more.
    pub next: Option<Vec<u8>>,
    /// The last log index that the read saw.
    pub index: Index,
    pub leader: NodeId,
}

/// When a key goes, in milliseconds of Unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// `None`: there is no such key; 0: never.
    pub expires_at: Option<u64>,
    /// What time it was at the leader.
    pub now: u64,
}

/// A change of who belongs to the cluster, or of who leads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberChanged {
    /// The log index of the change.
    pub index: Index,
    /// Who leads now, by number.
    pub leader: u64,
}

/// What the observer is told: each change once, not each attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A whole round of servers brought no answer.
    NoLeader { servers: Vec<ServerReason> },
    /// A request was answered by a leader other than the last, or again after a time without one.
    /// `server` is its address.
    Leader { leader: NodeId, server: String },
}

/// Who is known to lead, as the observer was last told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    /// Of a leader, and since then a round of the servers brought none.
    Interrupted,
    NoLeader,
    Leader(NodeId),
}

/// What became of attempts, since the client began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answers of nodes that do not lead.
    pub redirects: u64,
    /// Attempts without an answer in time.
    pub timeouts: u64,
    /// Connections that could not be made, or were lost during an attempt.
    pub connections_lost: u64,
    /// Answers that said no for another reason, such as overload.
    pub refusals: u64,
}

type Pause = Box<dyn FnMut(Duration) -> ControlFlow<()> + Send>;
type Observer = Box<dyn FnMut(&Change) + Send>;

pub struct Client {
    config: ClientConfig,
    route: Route,
    connections: BTreeMap<String, Connection>,
    session: Option<Session>,
    /// Of the first server that welcomed this client; later ones must be of the same. 0: none yet.
    cluster_id: u64,
    told: Told,
    counts: Counts,
    rng: fastrand::Rng,
    pause: Pause,
    observer: Observer,
}

impl Client {
    /// Connects to nobody yet.
    pub fn new(config: ClientConfig) -> Client {
        Client {
            route: Route::new(config.servers.clone()),
            connections: BTreeMap::new(),
            session: None,
            cluster_id: 0,
            told: Told::Nothing,
            counts: Counts::default(),
            rng: fastrand::Rng::with_seed(config.seed),
            pause: Box::new(|duration| {
                std::thread::sleep(duration);
                ControlFlow::Continue(())
            }),
            observer: Box::new(|_| {}),
            config,
        }
    }

    /// `observer` is told of every [`Change`].
    pub fn on_change(mut self, observer: impl FnMut(&Change) + Send + 'static) -> Self {
        self.observer = Box::new(observer);
        self
    }

    /// How to wait between attempts, instead of sleeping. `Break` ends the request under way with
    /// [`Why::Interrupted`]; during an attempt this is asked with a duration of zero.
    pub fn pause_with(
        mut self,
        pause: impl FnMut(Duration) -> ControlFlow<()> + Send + 'static,
    ) -> Self {
        self.pause = Box::new(pause);
        self
    }

    /// The leader's address, as the last answer or hint named it.
    pub fn leader(&self) -> Option<&str> {
        self.route.leader()
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// A linearizable read.
    pub fn get(&mut self, key: &[u8]) -> Result<Read, ClientError> {
        match self.read(Request::Get { key: key.into() })? {
            Answer::Value { value, index, leader } => {
                Ok(Read { value: value.map(|bytes| bytes.to_vec()), index, leader })
            }
            other => Err(self.nonsense(&other, false)),
        }
    }

    /// Writes `value`, whatever the key held.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<Written, ClientError> {
        self.write(WriteOp::Put { key, value })
    }

    /// The outcome says whether the key existed.
    pub fn delete(&mut self, key: &[u8]) -> Result<Written, ClientError> {
        self.write(WriteOp::Delete { key })
    }

    /// Writes `value` if the key holds `expected` (`None`: if it does not exist); the outcome says
    /// whether it did.
    pub fn compare_and_set(
        &mut self,
        key: &[u8],
        expected: Option<&[u8]>,
        value: &[u8],
    ) -> Result<Written, ClientError> {
        self.write(WriteOp::CompareAndSet { key, expected, value })
    }

    /// Adds `delta` to the decimal 64-bit integer that the key holds (a missing key counts as 0); the
    /// outcome is the sum.
    pub fn increment(&mut self, key: &[u8], delta: i64) -> Result<Written, ClientError> {
        self.write(WriteOp::Increment { key, delta })
    }

    /// A linearizable hash of the whole state.
    pub fn digest(&mut self) -> Result<Digest, ClientError> {
        match self.read(Request::Digest)? {
            Answer::Digest { digest, keys, index, leader } => {
                Ok(Digest { digest, keys, index, leader })
            }
            other => Err(self.nonsense(&other, false)),
        }
    }

    /// Keys in order, and their values if asked for; linearizable. A partial answer says where to go on.
    pub fn range(&mut self, range: Range) -> Result<Page, ClientError> {
        let with_values = range.with_values;
        let goes_on = {
            let start = Rc::clone(&range.start);
            move |next: &Rc<[u8]>| *next > start
        };
        match self.read(Request::Read(ReadOp::Range(range)))? {
            Answer::Found { found: Found::Keys { items, next }, index, leader }
                if (!with_values || items.len().is_multiple_of(2))
                    && next.as_ref().is_none_or(goes_on) =>
            {
                let pairs = if with_values {
                    let pair = |pair: &[Value]| (pair[0].to_vec(), Some(pair[1].to_vec()));
                    items.chunks_exact(2).map(pair).collect()
                } else {
                    items.iter().map(|key| (key.to_vec(), None)).collect()
                };
                Ok(Page { pairs, next: next.map(|key| key.to_vec()), index, leader })
            }
            other => Err(self.nonsense(&other, false)),
        }
    }

    /// Writes `value`, and says when the key goes.
    pub fn put_until(
        &mut self,
        key: &[u8],
        value: &[u8],
        expiry: Expiry,
    ) -> Result<Written, ClientError> {
        let condition = Condition::Always;
        // The leader says what time it is.
        self.write(WriteOp::Timed {
            stamp: 0,
            op: TimedOp::Set { key, value, condition, get: false, expiry },
        })
    }

    /// Says anew when a key goes. The outcome says whether it existed.
    pub fn expire(&mut self, key: &[u8], expiry: Expiry) -> Result<Written, ClientError> {
        let condition = TimeCondition::Always;
        self.write(WriteOp::Timed {
            stamp: 0,
            op: TimedOp::Expire { key, expiry, condition, get: false },
        })
    }

    /// When a key goes; linearizable.
    pub fn expiry(&mut self, key: &[u8]) -> Result<Lifetime, ClientError> {
        match self.read(Request::Read(ReadOp::Expiry(key.into())))? {
            Answer::Found { found: Found::Expiry { expires_at, now }, .. } => {
                Ok(Lifetime { expires_at, now })
            }
            other => Err(self.nonsense(&other, false)),
        }
    }

    /// Writes all of these keys at one moment.
    pub fn put_many(&mut self, pairs: Blobs<'_>) -> Result<Written, ClientError> {
        self.write(WriteOp::PutMany { pairs })
    }

    /// Changes who belongs to the cluster, or who leads it. Not repeated once it may have been done, as a second
    /// time is another change.
    pub fn member(&mut self, request: MemberRequest) -> Result<MemberChanged, ClientError> {
        let mut call = Call::once(self.config.total_timeout);
        match self.ask(Request::Member(request), &mut call)? {
            Answer::Member { index, leader } => Ok(MemberChanged { index, leader }),
            other => Err(self.nonsense(&other, true)),
        }
    }

    fn read(&mut self, request: Request) -> Result<Answer, ClientError> {
        let mut call = Call::read(self.config.total_timeout);
        self.ask(request, &mut call)
    }

    fn give_up(&self, why: Why, may_be_done: bool) -> ClientError {
        let servers = self.route.reasons();
        if may_be_done {
            ClientError::OutcomeUnknown { why, servers }
        } else {
            ClientError::NotDone { why, servers }
        }
    }

    fn nonsense(&self, answer: &Answer, may_be_done: bool) -> ClientError {
        let what = match answer {
            Answer::Value { .. } => "a value",
            Answer::Written { .. } => "the outcome of another kind of write",
            Answer::Digest { .. } => "a digest",
            Answer::Member { .. } => "a change of the members",
            Answer::Found { .. } => "several values",
            Answer::Backup { .. } => "a part of a backup",
            Answer::Failed(_) => "a failure",
        };
        self.give_up(Why::Nonsense(what.to_owned()), may_be_done)
    }
}
