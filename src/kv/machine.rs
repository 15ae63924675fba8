//! The replicated state machine: committed log entries in, outcomes out. The same entries give the same
//! state and outcomes on every node.

use super::session::{Executed, Seen, Sessions};
use super::store::Store;
use super::{Command, FreeBudget, History, Moment, Outcome, Refusal, RequestId, WriteOp, snapshot};
use crate::codec::Malformed;
use crate::raft::{Entry, Index, Membership, Payload};
use std::rc::Rc;

#[derive(Debug, Default)]
pub struct Machine {
    store: Store,
    sessions: Sessions,
    applied: Index,
    /// The latest stamp that was applied, in milliseconds of Unix time: the time of the log. An earlier
    /// stamp, of a leader whose clock is behind its predecessor's, counts as this one, so time never goes
    /// back.
    clock_ms: u64,
    /// Who belongs to the cluster, as of `applied`.
    membership: Rc<Membership>,
    /// The beginning of the snapshot that is being taken, until it is out.
    snapshot_head: Option<Vec<u8>>,
}

impl Machine {
    /// Applies the next entry of the log. An error means that the entry is not a command, which every
    /// leader checks before it proposes one.
    pub fn apply(&mut self, entry: &Entry) -> Result<Option<Executed>, Malformed> {
        assert_eq!(entry.index, self.applied + 1, "entries are applied in order, each once");
        self.store.history_mut().begin(entry.index);
        let executed = match &entry.payload {
            Payload::Noop => None,
            Payload::Members(membership) => {
                self.membership = Rc::clone(membership);
                None
            }
            Payload::Command(bytes) => Some(self.execute(entry.index, Command::decode(bytes)?)),
        };
        self.applied = entry.index;
        Ok(executed)
    }

    /// Says which keys are read or written next: so they are looked for at the same time. Nothing but time depends
    /// on it. Returns how many it has taken, at most [`super::LOOK_AHEAD_KEYS`].
    pub fn look_ahead(&self, keys: &mut dyn Iterator<Item = &[u8]>) -> usize {
        self.store.look_ahead(keys)
    }

    fn execute(&mut self, index: Index, command: Command<'_>) -> Executed {
        match command {
            Command::OpenSession => {
                self.sessions.open(index);
                Executed { index, outcome: Outcome::SessionOpened { session: index } }
            }
            Command::Write { request: None, op } => {
                Executed { index, outcome: self.carry_out(index, op) }
            }
            Command::Write { request: Some(request), op } => self.execute_once(index, request, op),
        }
    }

    fn execute_once(&mut self, index: Index, request: RequestId, op: WriteOp<'_>) -> Executed {
        let refused = |refusal| Executed { index, outcome: Outcome::Refused(refusal) };
        match self.sessions.seen(request) {
            Seen::Before(executed) => executed,
            Seen::Stale => refused(Refusal::StaleSequence),
            Seen::UnknownSession => refused(Refusal::UnknownSession),
            Seen::New => {
                let executed = Executed { index, outcome: self.carry_out(index, op) };
                self.sessions.executed(request, executed.clone());
                executed
            }
        }
    }

    fn carry_out(&mut self, index: Index, op: WriteOp<'_>) -> Outcome {
        if let WriteOp::Timed { stamp, .. } = op {
            self.clock_ms = self.clock_ms.max(stamp);
        }
        self.store.apply(op, Moment { index, now_ms: self.clock_ms })
    }

    pub(super) fn restored(
        mut store: Store,
        sessions: Sessions,
        applied: Index,
        clock_ms: u64,
        membership: Rc<Membership>,
    ) -> Self {
        store.history_mut().start_after(applied);
        Machine { store, sessions, applied, clock_ms, membership, snapshot_head: None }
    }

    /// This state has taken the place of `old`, whose memory [`Machine::free_some`] frees.
    pub fn free_slowly(&mut self, old: Machine) {
        self.store.free_slowly(old.store);
    }

    /// Frees some of the memory of what was flushed, replaced or deleted: all at once would take too long.
    pub fn free_some(&mut self, budget: FreeBudget) {
        self.store.free_some(budget);
    }

    /// Begins a snapshot of the state as it is now; one that is being taken is abandoned.
    pub fn begin_snapshot(&mut self) {
        let mut head = Vec::new();
        snapshot::put_head(&mut head, self);
        self.snapshot_head = Some(head);
        self.store.freeze();
    }

    /// The next piece of it, of about `bytes_max`, and whether it is the last. The first piece holds all
    /// sessions, and the last key of a piece is whole.
    pub fn snapshot_piece(&mut self, bytes_max: usize) -> (Vec<u8>, bool) {
        let mut piece = self.snapshot_head.take().unwrap_or_default();
        let is_last = self.store.take_frozen(&mut piece, bytes_max);
        (piece, is_last)
    }

    /// About how many bytes a snapshot of the state as it is now has.
    pub fn snapshot_bytes(&self) -> usize {
        snapshot::size(&self.store, &self.sessions)
    }

    pub fn abandon_snapshot(&mut self) {
        self.snapshot_head = None;
        self.store.thaw();
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The newest changes of the store, by log index.
    pub fn history(&self) -> &History {
        self.store.history()
    }

    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Who belongs to the cluster, as of what is applied.
    pub fn membership(&self) -> &Rc<Membership> {
        &self.membership
    }

    /// The time of the log, in milliseconds of Unix time.
    pub fn clock_ms(&self) -> u64 {
        self.clock_ms
    }

    /// The index of the newest entry that was applied.
    pub fn applied(&self) -> Index {
        self.applied
    }
}
