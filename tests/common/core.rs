//! One core in a chosen state, driven by hand, and messages in few words.

use raftkv::raft::{
    AppendOutcome, Config, Entry, HardState, Index, Message, NodeId, Payload, Raft, Ready, Round,
    Term,
};

/// Timeouts of the tests, in ticks: short, so that a script needs few.
pub const HEARTBEAT_TICKS: u32 = 2;
pub const ELECTION_TICKS_MIN: u32 = 10;
pub const ELECTION_TICKS_MAX: u32 = 20;

/// Node `id` of the voters 1 to `voters`.
pub fn config(id: NodeId, voters: u64) -> Config {
    Config {
        heartbeat_ticks: HEARTBEAT_TICKS,
        election_ticks_min: ELECTION_TICKS_MIN,
        election_ticks_max: ELECTION_TICKS_MAX,
        ..Config::new(id, 1..=voters, id)
    }
}

pub fn command(text: &str) -> Payload {
    Payload::Command(text.as_bytes().into())
}

/// The entry every test puts at this place: the same for everybody, as Raft promises.
pub fn entry(index: Index, term: Term) -> Entry {
    Entry { term, index, payload: command(&format!("{index}@{term}")) }
}

/// Entries from `first` on, of these terms.
pub fn entries(first: Index, terms: &[Term]) -> Vec<Entry> {
    (first..).zip(terms).map(|(index, term)| entry(index, *term)).collect()
}

/// The terms of a node's log, as the figures of the paper draw it.
pub fn terms(raft: &Raft) -> Vec<Term> {
    raft.log().iter_from(raft.log().before().index + 1).map(|entry| entry.term).collect()
}

/// A node that was started with this term and log on its disk.
pub fn started(config: Config, term: Term, log_terms: &[Term]) -> Raft {
    Raft::new(config, HardState { term, voted_for: None }, entries(1, log_terms))
}

pub fn follower(id: NodeId, voters: u64, term: Term, log_terms: &[Term]) -> Raft {
    started(config(id, voters), term, log_terms)
}

/// One turn of the loop on a disk that works at once.
pub fn turn(raft: &mut Raft) -> Ready {
    let ready = raft.take_ready();
    raft.persisted();
    ready
}

/// All that leaves in one turn, in its order.
pub fn sent(raft: &mut Raft) -> Vec<(NodeId, Message)> {
    let Ready { mut early, mut messages, .. } = turn(raft);
    early.append(&mut messages);
    early
}

/// What leaves for one node in one turn.
pub fn sent_to(raft: &mut Raft, to: NodeId) -> Vec<Message> {
    sent(raft).into_iter().filter(|(id, _)| *id == to).map(|(_, message)| message).collect()
}

/// The one message that leaves in one turn.
pub fn only_reply(raft: &mut Raft) -> Message {
    let mut messages = sent(raft);
    assert_eq!(messages.len(), 1, "one message: {messages:?}");
    messages.remove(0).1
}

pub fn step(raft: &mut Raft, from: NodeId, message: Message) {
    raft.step(from, message).expect("no contradiction");
}

/// Lets time pass until this follower or candidate times out; the requests are still to be taken.
pub fn time_out(raft: &mut Raft) {
    let (role, term) = (raft.role_name(), raft.term());
    assert_ne!(role, "leader");
    let is_new = |raft: &Raft| raft.has_ready() || raft.role_name() != role || raft.term() != term;
    for _ in 0..ELECTION_TICKS_MAX {
        raft.tick();
        if is_new(raft) {
            return;
        }
    }
    panic!("no timeout within {ELECTION_TICKS_MAX} ticks");
}

/// Lets time pass until others would believe a leader to be gone, but not as long as any timeout.
pub fn forget_leader(raft: &mut Raft) {
    for _ in 0..ELECTION_TICKS_MIN {
        raft.tick();
    }
}

fn others(raft: &Raft) -> Vec<NodeId> {
    raft.config().voters.iter().copied().filter(|id| *id != raft.id()).collect()
}

/// A candidate of `term` whose requests have left and whose vote for itself is on disk.
pub fn candidate_with(config: Config, term: Term, log_terms: &[Term]) -> Raft {
    let mut raft = started(config, term - 1, log_terms);
    time_out(&mut raft);
    turn(&mut raft);
    for id in others(&raft) {
        step(&mut raft, id, Message::PreVoteReply { term, granted: true });
    }
    turn(&mut raft);
    assert_eq!((raft.role_name(), raft.term()), ("candidate", term));
    raft
}

pub fn candidate(id: NodeId, voters: u64, term: Term, log_terms: &[Term]) -> Raft {
    candidate_with(config(id, voters), term, log_terms)
}

/// A leader of `term` that nobody has answered yet; its no-op is on its own disk and under way.
pub fn leader_with(config: Config, term: Term, log_terms: &[Term]) -> Raft {
    let mut raft = candidate_with(config, term, log_terms);
    for id in others(&raft) {
        step(&mut raft, id, vote(term, true));
    }
    turn(&mut raft);
    assert_eq!((raft.role_name(), raft.term()), ("leader", term));
    raft
}

pub fn leader(id: NodeId, voters: u64, term: Term, log_terms: &[Term]) -> Raft {
    leader_with(config(id, voters), term, log_terms)
}

/// A leader whose no-op is committed and known to be so by everybody.
pub fn settled_leader_with(config: Config, term: Term, log_terms: &[Term]) -> Raft {
    let mut raft = leader_with(config, term, log_terms);
    let last = raft.log().last().index;
    for id in others(&raft) {
        step(&mut raft, id, accepted(term, last));
    }
    turn(&mut raft);
    assert_eq!(raft.commit_index(), last);
    raft
}

pub fn settled_leader(id: NodeId, voters: u64, term: Term, log_terms: &[Term]) -> Raft {
    settled_leader_with(config(id, voters), term, log_terms)
}

/// AppendEntries after (`index`, `term`) of the log, in read round 0.
pub fn append(
    term: Term,
    prev: (Index, Term),
    leader_commit: Index,
    entries: Vec<Entry>,
) -> Message {
    let (prev_log_index, prev_log_term) = prev;
    Message::AppendEntries { term, prev_log_index, prev_log_term, leader_commit, round: 0, entries }
}

pub fn accepted(term: Term, match_index: Index) -> Message {
    accepted_in_round(term, match_index, 0)
}

pub fn accepted_in_round(term: Term, match_index: Index, round: Round) -> Message {
    Message::AppendReply { term, round, outcome: AppendOutcome::Accepted { match_index } }
}

pub fn rejected(term: Term, prev_log_index: Index, hint: (Index, Term)) -> Message {
    let (hint_index, hint_term) = hint;
    let outcome =
        AppendOutcome::Rejected { prev_log_index, hint_index, hint_term, lost_entries: false };
    Message::AppendReply { term, round: 0, outcome }
}

pub fn vote(term: Term, granted: bool) -> Message {
    Message::VoteReply { term, granted }
}

pub fn pre_vote(term: Term, granted: bool) -> Message {
    Message::PreVoteReply { term, granted }
}

/// A request for votes by a candidate whose log ends at (`index`, `term`).
pub fn request_vote(term: Term, last: (Index, Term)) -> Message {
    let (last_log_index, last_log_term) = last;
    Message::RequestVote { term, last_log_index, last_log_term, by_leader: false }
}

pub fn request_pre_vote(term: Term, last: (Index, Term)) -> Message {
    let (last_log_index, last_log_term) = last;
    Message::RequestPreVote { term, last_log_index, last_log_term }
}

/// The entries of an AppendEntries; nothing else has any.
pub fn entries_of(message: &Message) -> &[Entry] {
    match message {
        Message::AppendEntries { entries, .. } => entries,
        other => panic!("not AppendEntries: {other:?}"),
    }
}
