//! Requests and their answers: what a leader does itself, what is passed on to it, and what is held back for
//! the moment in which leadership changes hands.

use super::pending_writes::PENDING_WORK_MAX;
use super::{
    Forwarded, Held, Node, Origin, Outgoing, PeerMessage, PendingRead, PendingWrite, REQUESTS_MAX,
    Routing, SEARCH_STEPS_PER_TURN, Ticket, Wanted,
};
use crate::kv::{
    Answer, BackupRequest, Budget, Command, ENTRY_COPIES_BYTES_MAX, ENTRY_WORK_MAX, Executed,
    Failure, FailureCode, LeaderHint, Needs, ReadOp, Request, Seen,
};
use crate::raft::{self, Bytes, Index, NodeId, Payload, ProposeError, ReadId, number};
use std::rc::Rc;

/// What a leader does with a command.
enum Verdict {
    New { work: u64 },
    Executed(Executed),
}

impl Node {
    /// Returns how long the value is that is asked for, as far as it is known.
    pub(super) fn handle_request(
        &mut self,
        origin: Origin,
        request: Request,
        routing: Routing,
    ) -> usize {
        if let Err(failure) = self.check(&request) {
            self.answer(origin, Answer::Failed(failure));
            return 0;
        }
        if self.is_holding() {
            let value_bytes = self.value_bytes(&request);
            self.held.push(Held { origin, request, routing });
            return value_bytes;
        }
        if self.is_leaving {
            let what = format!("{} stops; nothing was done, ask another node", self.config.name);
            let leaving =
                Failure { leader: self.leader_hint(), ..failure(FailureCode::ShuttingDown, what) };
            self.answer(origin, Answer::Failed(leaving));
            return 0;
        }
        self.route(origin, request, routing)
    }

    fn route(&mut self, origin: Origin, request: Request, routing: Routing) -> usize {
        if let Request::Backup(step @ (BackupRequest::Find { .. } | BackupRequest::Piece { .. })) =
            request
        {
            self.go_on_with_backup(origin, step);
            return 0;
        }
        match (self.raft.leader(), origin) {
            (Some(leader), _) if leader == self.raft.id() => match request {
                Request::Write { command } => self.propose(origin, command),
                Request::Get { .. } | Request::Digest | Request::Read(_) | Request::Backup(_) => {
                    return self.begin_read(origin, request);
                }
                Request::Member(request) => self.change_members(origin, request),
            },
            (Some(leader), Origin::Client(ticket)) if routing == Routing::Forward => {
                let value_bytes = self.value_bytes(&request);
                self.forward(ticket, leader, request);
                return value_bytes;
            }
            _ => self.fail_not_leader(origin),
        }
        0
    }

    /// A peer passes on what its client asks. Only one hop: a node that is not the leader either says so, and
    /// nothing goes in circles.
    pub(super) fn take_forward(&mut self, from: NodeId, id: u64, request: Request) {
        let bytes = self.forward_bytes(&request);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let origin = Origin::Peer { node: from, id, bytes };
        *self.forwarded.get_or_insert_with(from, || 0) += bytes as usize;
        if self.raft.is_leader() && !self.raft.membership().contains(from) {
            let what = "the node that passed this on is no member; nothing was done, ask another";
            let stranger = failure(FailureCode::ShuttingDown, what.to_string());
            return self.answer(origin, Answer::Failed(stranger));
        }
        self.handle_request(origin, request, Routing::Redirect);
    }

    /// What a request of a peer takes until it is answered, and the answer to it.
    pub fn forward_bytes(&self, request: &Request) -> usize {
        request_bytes(request) + self.answer_bytes(request) + self.value_bytes(request)
    }

    /// ... of all that this peer has passed on and that are not answered.
    pub fn forwarded_bytes(&self, peer: NodeId) -> usize {
        self.forwarded.get(&peer).copied().unwrap_or(0)
    }

    /// ... of all peers.
    pub fn forwarded_bytes_of_all(&self) -> usize {
        self.forwarded.values().sum()
    }

    /// About how long the answer will be, but for the value that [`Node::request`] looks up. A thousand small
    /// requests for a large value are a thousand large answers, so a value counts before it is copied: as it is
    /// now, at this node. That is no promise, but off only by what changes meanwhile.
    pub fn answer_bytes(&self, request: &Request) -> usize {
        let (store, limits) = (self.machine.store(), &self.config.limits);
        match request {
            Request::Read(op) => op.answer_bytes(store, limits).min(limits.answer_bytes_max()),
            Request::Write { command } => match Command::decode(command) {
                Ok(Command::Write { op, .. }) => op.answer_bytes(store, limits),
                _ => 0,
            },
            Request::Backup(BackupRequest::Piece { .. }) => limits.answer_bytes_max(),
            Request::Get { .. } | Request::Backup(_) | Request::Digest | Request::Member(_) => 0,
        }
    }

    /// How long the value of the one key that is asked for is here, and now.
    fn value_bytes(&self, request: &Request) -> usize {
        match request {
            Request::Get { key } => self.machine.store().value_bytes(key).unwrap_or(0),
            _ => 0,
        }
    }

    /// What is refused without asking anybody.
    pub(super) fn check(&self, request: &Request) -> Result<(), Failure> {
        self.config.limits.check(request)?;
        self.cluster_limits.check(request, &self.config.limits)?;
        if self.raft.is_removed() {
            let message = format!("{} was removed from the cluster; ask another", self.config.name);
            return Err(failure(FailureCode::ShuttingDown, message));
        }
        self.check_growth(request)?;
        if self.requests_pending() >= REQUESTS_MAX {
            return Err(overloaded(format!("{REQUESTS_MAX} requests are unanswered")));
        }
        Ok(())
    }

    pub(super) fn propose(&mut self, origin: Origin, mut command: Bytes) {
        let work = match self.judge(&command) {
            Ok(Verdict::New { work }) => work,
            Ok(Verdict::Executed(executed)) => return self.answer_written(origin, executed),
            Err(failure) => return self.answer(origin, Answer::Failed(failure)),
        };
        Command::stamp(&mut command, self.now_ms());
        let growth_bytes = self.growth_of(&command);
        match self.raft.propose(Payload::Command(command)) {
            Ok(position) => {
                let write = PendingWrite { term: position.term, origin, work, growth_bytes };
                self.writes.insert(position.index, write);
                self.tally.proposals += 1;
            }
            Err(ProposeError::NotLeader | ProposeError::HandingOver) => {
                self.fail_not_leader(origin)
            }
            Err(ProposeError::Overloaded) => {
                let limit = self.config.raft.uncommitted_bytes_max;
                let what = format!("{limit} bytes of writes are not yet committed");
                self.answer(origin, Answer::Failed(overloaded(what)));
            }
        }
    }

    /// What is to become of a command that reached its leader.
    fn judge(&self, command: &Bytes) -> Result<Verdict, Failure> {
        let command = Command::decode(command)
            .map_err(|malformed| failure(FailureCode::Malformed, malformed.to_string()))?;
        // A retry of what is applied already needs no second entry (the check at apply stays).
        if let Command::Write { request: Some(id), .. } = command
            && let Seen::Before(executed) = self.machine.sessions().seen(id)
        {
            return Ok(Verdict::Executed(executed));
        }
        self.check_needs(command.needs(self.machine.store())).map(|work| Verdict::New { work })
    }

    /// Whether an entry that needs so much may be proposed. Returns its work. What is in the log before it may add
    /// to its copies, all in all no more than the log's own bytes.
    fn check_needs(&self, needs: Needs) -> Result<u64, Failure> {
        if needs.copies > ENTRY_COPIES_BYTES_MAX {
            let message = format!(
                "the transaction appends to values of {} bytes in all, the limit is {ENTRY_COPIES_BYTES_MAX}: \
                 nothing was done, send smaller transactions",
                needs.copies
            );
            return Err(failure(FailureCode::TooLarge, message));
        }
        if needs.work > ENTRY_WORK_MAX {
            let message = "the command would keep all others waiting for too long: nothing was done, \
                           send smaller ones";
            return Err(failure(FailureCode::TooLarge, message.to_string()));
        }
        if self.writes.work() > 0 && self.writes.work() + needs.work > PENDING_WORK_MAX {
            let what = "the writes before this one take too long already";
            return Err(overloaded(what.to_string()));
        }
        Ok(needs.work)
    }

    /// Returns how long the value is that is asked for.
    pub(super) fn begin_read(&mut self, origin: Origin, request: Request) -> usize {
        let id = self.next_id();
        if !self.raft.read(id) {
            self.fail_not_leader(origin);
            return 0;
        }
        self.tally.reads += 1;
        let (wanted, value_bytes) = self.look_up(request);
        self.unread += usize::from(matches!(wanted, Wanted::Request(_)));
        self.reads.insert(id, PendingRead { origin, wanted });
        value_bytes
    }

    /// A value is looked up when it is asked for, if the state is that of the newest commit: the read takes effect
    /// at that moment, provided that this node led then, which the round will show. So one look says what the
    /// answer is and how long. A read that is not done yet goes first: otherwise, with a write between the two,
    /// the later one would see less.
    fn look_up(&self, request: Request) -> (Wanted, usize) {
        let applied = self.machine.applied();
        let is_newest = self.raft.knows_commit() && applied == self.raft.commit_index();
        match &request {
            Request::Get { key } if is_newest && self.unread == 0 => {
                let value = self.machine.store().get(key);
                let value_bytes = value.as_ref().map_or(0, |value| value.len());
                let leader = number(self.raft.id());
                (Wanted::Found(Answer::Value { value, index: applied, leader }), value_bytes)
            }
            _ => {
                let value_bytes = self.value_bytes(&request);
                (Wanted::Request(request), value_bytes)
            }
        }
    }

    /// A read that waits no more.
    pub(super) fn take_read(&mut self, id: ReadId) -> Option<PendingRead> {
        let read = self.reads.remove(&id)?;
        self.unread -= usize::from(matches!(read.wanted, Wanted::Request(_)));
        Some(read)
    }

    pub(super) fn forward(&mut self, ticket: Ticket, leader: NodeId, request: Request) {
        if !self.connected.contains_key(&leader) {
            let what = format!(
                "node {} leads, and there is no connection to it; try again",
                number(leader)
            );
            let failure = failure(FailureCode::NoLeader, what);
            return self.answers.push((ticket, Answer::Failed(failure)));
        }
        let id = self.next_id();
        let forwarded = Forwarded {
            ticket,
            to: leader,
            request: request.clone(),
            deadline_ticks: self.now_ticks + self.config.forward_timeout_ticks,
        };
        self.forwards.insert(id, forwarded);
        self.tally.forwards += 1;
        self.messages.push((leader, PeerMessage::Forward { id, request }));
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The leader's answer. One that has handed over meanwhile has done nothing, and the next one is asked.
    pub(super) fn forward_answered(&mut self, from: NodeId, id: u64, answer: Answer) {
        if self.forwards.get(&id).is_none_or(|forwarded| forwarded.to != from) {
            return;
        }
        let forwarded = self.forwards.remove(&id).expect("it was just there");
        let is_not_leader = matches!(
            &answer,
            Answer::Failed(Failure { code: FailureCode::NotLeader | FailureCode::NoLeader, .. })
        );
        let Forwarded { ticket, request, .. } = forwarded;
        if !is_not_leader {
            return self.answers.push((ticket, answer));
        }
        // It says so before its successor does; its successor is asked.
        if self.raft.leader() == Some(from) {
            self.former_leader = Some((from, self.raft.term()));
            self.held_until_ticks =
                self.now_ticks + 2 * u64::from(self.config.raft.election_ticks_max);
        }
        self.handle_request(Origin::Client(ticket), request, Routing::Forward);
    }

    /// Whether requests wait for leadership to be settled: it is being handed over, or just was.
    fn is_holding(&self) -> bool {
        let leader = self.raft.leader().map(|leader| (leader, self.raft.term()));
        let is_unsettled = leader.is_none() || leader == self.former_leader;
        self.raft.is_handing_over() || (is_unsettled && self.now_ticks < self.held_until_ticks)
    }

    /// Once a leader is known again, or it has taken too long, what was held back is taken up.
    pub(super) fn release_held(&mut self) {
        if self.may_release_held() {
            for Held { origin, request, routing } in std::mem::take(&mut self.held) {
                self.route(origin, request, routing);
            }
        }
    }

    pub(super) fn may_release_held(&self) -> bool {
        !self.held.is_empty() && !self.is_holding()
    }

    pub(super) fn expire_forwards(&mut self) {
        while let Some((id, forwarded)) = self.forwards.first_key_value() {
            if forwarded.deadline_ticks > self.now_ticks {
                return;
            }
            let id = *id;
            self.fail_forward(id, "the leader did not answer in time");
        }
    }

    pub(super) fn fail_forward(&mut self, id: u64, what: &str) {
        let Some(forwarded) = self.forwards.remove(&id) else { return };
        let failure = if forwarded.request.is_write() {
            failure(FailureCode::OutcomeUnknown, format!("{what}; {OUTCOME_UNKNOWN_ADVICE}"))
        } else {
            failure(FailureCode::NoLeader, format!("{what}; nothing was read, try again"))
        };
        self.answers.push((forwarded.ticket, Answer::Failed(failure)));
    }

    pub(super) fn notice_lost_leadership(&mut self) {
        let leads = self.raft.is_leader().then(|| self.raft.term());
        if std::mem::replace(&mut self.led_term, leads) == leads {
            return;
        }
        let (log, commit_index) = (self.raft.log(), self.raft.commit_index());
        // What is committed will be applied here all the same, and is answered then. The new leader's
        // first message may have replaced entries and told of their commit: those are others' entries.
        let uncommitted = self.writes.extract(|index, write| {
            *index > commit_index || log.term_at(*index) != Some(write.term)
        });
        for write in uncommitted {
            let mut failure = failure(
                FailureCode::OutcomeUnknown,
                format!(
                    "leadership was lost before the write was committed; {OUTCOME_UNKNOWN_ADVICE}"
                ),
            );
            failure.leader = self.leader_hint();
            self.answer(write.origin, Answer::Failed(failure));
        }
    }

    pub(super) fn answer_reads(&mut self) {
        while let Some((index, id)) = self.confirmed.front().copied() {
            if index > self.machine.applied() {
                return;
            }
            self.confirmed.pop_front();
            match self.reads.get(&id).map(|read| &read.wanted) {
                Some(Wanted::Request(Request::Read(op))) if op.is_search() => {
                    self.searches.push_back(id);
                }
                _ => self.answer_read(id),
            }
        }
    }

    /// Some of the searches: the others' reads do not wait for them, and the turn stays short.
    pub(super) fn search(&mut self) {
        let upto = self.search_steps + SEARCH_STEPS_PER_TURN;
        while self.search_steps < upto
            && let Some(id) = self.searches.pop_front()
        {
            self.answer_read(id);
        }
    }

    fn answer_read(&mut self, id: ReadId) {
        let Some(read) = self.take_read(id) else { return };
        let answer = match read.wanted {
            Wanted::Found(answer) => answer,
            Wanted::Request(Request::Backup(_)) => self.begin_backup(),
            Wanted::Request(request) => self.read_answer(&request, id),
        };
        self.answer(read.origin, answer);
    }

    /// What this node has at the moment, without asking whether there is newer.
    pub fn read_locally(&mut self, request: &Request) -> Answer {
        if let Err(failure) = self.check(request) {
            return Answer::Failed(failure);
        }
        if self.machine.applied() == 0 || self.diverged_at.is_some() {
            let what = format!("{} has no state to read from; ask another", self.config.name);
            return Answer::Failed(failure(FailureCode::NoLeader, what));
        }
        let number = self.next_id();
        self.read_answer(request, number)
    }

    /// `number` is another one each time.
    pub(super) fn read_answer(&mut self, request: &Request, number: u64) -> Answer {
        let (index, leader) = (self.machine.applied(), raft::number(self.raft.id()));
        let store = self.machine.store();
        match request {
            Request::Get { key } => Answer::Value { value: store.get(key), index, leader },
            Request::Digest => {
                Answer::Digest { digest: store.digest(), keys: store.len() as u64, index, leader }
            }
            Request::Backup(_) => {
                let what = "a backup needs a leader that knows it leads; ask without READONLY";
                Answer::Failed(failure(FailureCode::NotPossible, what.to_string()))
            }
            Request::Read(op) => {
                let mut budget = Budget::of(self.config.limits.answer_bytes_max());
                let found = op.carry_out(store, &mut budget, number, self.now_ms());
                self.search_steps += budget.worked() as u64;
                match found {
                    Ok(found) => Answer::Found { found, index, leader },
                    Err(failure) => Answer::Failed(failure),
                }
            }
            Request::Write { .. } | Request::Member(_) => unreachable!("writes are not read"),
        }
    }

    pub(super) fn answer_written(&mut self, origin: Origin, executed: Executed) {
        let Executed { index, outcome } = executed;
        self.answer(origin, Answer::Written { outcome, index, leader: number(self.raft.id()) });
    }

    pub(super) fn answer_changed(&mut self, origin: Origin, index: Index) {
        self.answer(origin, Answer::Member { index, leader: number(self.raft.id()) });
    }

    pub(super) fn fail_not_leader(&mut self, origin: Origin) {
        let failure = match self.leader_hint() {
            Some(leader) => Failure {
                code: FailureCode::NotLeader,
                message: format!("node {} leads, at {}; ask there", leader.id, leader.address),
                leader: Some(leader),
            },
            None => failure(
                FailureCode::NoLeader,
                format!("no leader is known in term {}; try again", self.raft.term()),
            ),
        };
        self.answer(origin, Answer::Failed(failure));
    }

    pub(super) fn leader_hint(&self) -> Option<LeaderHint> {
        let id = self.raft.leader().filter(|id| *id != self.raft.id())?;
        let address = self.raft.membership().members.get(&id)?.address.clone();
        Some(LeaderHint { id: number(id), address })
    }

    #[inline(never)]
    pub(super) fn answer(&mut self, origin: Origin, answer: Answer) {
        match origin {
            Origin::Client(ticket) => self.answers.push((ticket, answer)),
            Origin::Peer { node, id, bytes } => {
                let left = self.forwarded.get(&node).map_or(0, |all| all - bytes as usize);
                match left {
                    0 => drop(self.forwarded.remove(&node)),
                    left => drop(self.forwarded.insert(node, left)),
                }
                self.messages.push((node, PeerMessage::ForwardReply { id, answer }));
            }
        }
    }
}

impl Outgoing {
    /// The state that these answers are from has turned out to be wrong before they left.
    pub fn doubt(&mut self) {
        let answers = self.answers.iter_mut().map(|(_, answer)| answer);
        let passed_on = self.messages.iter_mut().filter_map(|(_, message)| match message {
            PeerMessage::ForwardReply { answer, .. } => Some(answer),
            _ => None,
        });
        for answer in answers.chain(passed_on) {
            let (code, advice) = match answer {
                Answer::Value { .. }
                | Answer::Found { .. }
                | Answer::Digest { .. }
                | Answer::Backup { .. } => {
                    (FailureCode::ShuttingDown, "nothing was read, ask another")
                }
                Answer::Written { .. } => (FailureCode::OutcomeUnknown, OUTCOME_UNKNOWN_ADVICE),
                Answer::Member { .. } | Answer::Failed(_) => continue,
            };
            let what = format!("the state of this node is not that of the others; {advice}");
            *answer = Answer::Failed(failure(code, what));
        }
    }
}

pub(super) const OUTCOME_UNKNOWN_ADVICE: &str =
    "it may or may not take effect: read before trying again, or retry it in its session";

/// What a request takes besides the bytes that are in it: its place in the maps of those who wait.
const REQUEST_BYTES: usize = 256;
/// What each of its keys takes besides its bytes.
const KEY_BYTES: usize = 32;

/// What a request takes while it waits for its answer.
pub fn request_bytes(request: &Request) -> usize {
    let keys = |keys: &[Rc<[u8]>]| keys.iter().map(|key| KEY_BYTES + key.len()).sum();
    let own = match request {
        Request::Get { key } => key.len(),
        Request::Write { command } => command.len(),
        Request::Read(
            ReadOp::Values(wanted) | ReadOp::Lengths(wanted) | ReadOp::Versions(wanted),
        ) => keys(wanted),
        Request::Read(ReadOp::Range(range)) => {
            let bounds = [Some(&range.start), range.end.as_ref(), range.pattern.as_ref()];
            bounds.into_iter().flatten().map(|bytes| KEY_BYTES + bytes.len()).sum()
        }
        Request::Read(ReadOp::Expiry(key)) => key.len(),
        Request::Read(ReadOp::RandomKey | ReadOp::Digest)
        | Request::Digest
        | Request::Backup(_)
        | Request::Member(_) => 0,
    };
    REQUEST_BYTES + own
}

/// Whether a request can make the state larger.
pub(super) fn grows(request: &Request) -> bool {
    match request {
        Request::Write { command } => match Command::decode(command) {
            Ok(Command::Write { op, .. }) => op.grows(),
            _ => true,
        },
        Request::Get { .. }
        | Request::Digest
        | Request::Read(_)
        | Request::Backup(_)
        | Request::Member(_) => false,
    }
}

pub(super) fn failure(code: FailureCode, message: String) -> Failure {
    Failure { code, message, leader: None }
}

pub(super) fn overloaded(what: String) -> Failure {
    failure(FailureCode::Overloaded, format!("{what}; nothing was done, try again later"))
}
