//! What becomes of a request at one node: it is answered once, and "not done" is said only if it is certain.

mod common;

use common::core::{accepted, accepted_in_round, append, config, pre_vote, vote};
use raftkv::kv::{
    Answer, Blobs, Command, Condition, Expiry, Failure, FailureCode, Found, Limits, Machine,
    Outcome, Range, ReadOp, Request, RequestId, Step, StepBuffer, TimeCondition, TimedOp,
    Transaction, WatchedBuffer, WriteOp,
};
use raftkv::node::{
    Config, NoGrowth, Node, Outgoing, Peer, PeerMessage, Routing, Standing, Ticket,
};
use raftkv::ordered::Few;
use raftkv::raft::{
    Config as RaftConfig, Distrust, Entry, Message, NodeId, Payload, Restored, Waits, node_id,
};

const FORWARD_TIMEOUT_TICKS: u64 = 5;

fn node_of(number: u64) -> NodeId {
    node_id(number, 7)
}

fn peer(number: u64) -> Peer {
    let standing = Standing::Member { cluster_id: 1 };
    Peer {
        id: node_of(number),
        name: format!("node-{number}"),
        address: String::new(),
        standing,
        limits: None,
    }
}

/// Node 1 of three, in term 0 and with an empty log.
fn node() -> Node {
    node_with_seed(1)
}

/// Each process of a node has another seed.
fn node_with_seed(seed: u64) -> Node {
    let config = Config {
        raft: RaftConfig {
            id: node_of(1),
            voters: (1..=3).map(node_of).collect(),
            seed,
            ..config(1, 3)
        },
        name: "node-1".to_string(),
        address: "node-1:6000".to_string(),
        initial: Few::new(),
        auto_members: true,
        limits: Limits::default(),
        forward_timeout_ticks: FORWARD_TIMEOUT_TICKS,
        snapshot_log_bytes: 1 << 20,
        snapshot_piece_bytes: 1 << 10,
    };
    Node::new(config, Restored::default(), Machine::default())
}

/// One turn of the loop; what left early comes first.
fn turn(node: &mut Node) -> Outgoing {
    let (ready, early) = node.take_ready(Waits::default());
    let mut messages = node.persisted(ready);
    let outgoing = node.carry_out().expect("entries can be applied");
    messages.extend(outgoing.messages);
    let answers = outgoing.answers;
    Outgoing { messages: [early, messages].concat(), answers }
}

fn hear(node: &mut Node, from: NodeId, message: Message) {
    node.peer_message(from, PeerMessage::Raft(message)).expect("one leader a term");
}

/// Leads term 1; the no-op is committed.
fn leader() -> Node {
    let mut node = node();
    while !node.raft().has_ready() {
        node.tick();
    }
    turn(&mut node);
    hear(&mut node, node_of(2), pre_vote(1, true));
    turn(&mut node);
    hear(&mut node, node_of(2), vote(1, true));
    turn(&mut node);
    hear(&mut node, node_of(2), accepted(1, 1));
    turn(&mut node);
    assert_eq!((node.raft().role_name(), node.raft().commit_index()), ("leader", 1));
    node
}

/// Follows node 2 in term 1, and is connected to it.
fn follower() -> Node {
    following(node())
}

fn following(mut node: Node) -> Node {
    node.peer_connected(peer(2));
    hear(&mut node, node_of(2), append(1, (0, 0), 0, Vec::new()));
    turn(&mut node);
    node
}

fn put(value: &[u8]) -> Request {
    let op = WriteOp::Put { key: b"k", value };
    Request::Write { command: Command::Write { request: None, op }.to_bytes().into() }
}

/// The limits of a follower's keys and values, in bytes, when it connects.
fn meets(node: &mut Node, number: u64, limits: Option<(u32, u32)>) {
    let limits =
        limits.map(|(key_bytes_max, value_bytes_max)| Limits { key_bytes_max, value_bytes_max });
    node.peer_connected(Peer { limits, ..peer(number) });
}

fn refusal(node: &mut Node, request: Request) -> Option<Failure> {
    node.request(77, request, Routing::Redirect);
    match turn(node).answers.pop() {
        Some((77, Answer::Failed(failure))) => Some(failure),
        _ => None,
    }
}

#[test]
fn what_another_member_would_not_take_is_refused_and_says_which_one() {
    let mut node = leader();
    let value = vec![0; 1000];
    meets(&mut node, 2, None);
    meets(&mut node, 3, Some((4096, 1 << 20)));
    assert_eq!(refusal(&mut node, put(&value)), None, "nobody takes less");
    assert_eq!(node.cluster_limits().trouble(&Limits::default()), None);
    meets(&mut node, 3, Some((4096, 999)));
    let failure = refusal(&mut node, put(&value)).expect("node 3 takes less");
    assert_eq!(failure.code, FailureCode::TooLarge);
    let name =
        |node: &Node, number| node.raft().membership().members[&node_of(number)].name.clone();
    let three = name(&node, 3);
    assert_eq!(
        failure.message,
        format!(
            "value of 1000 bytes, the limit is 999 bytes: send a shorter value; {three} takes no more, and has to \
             store it as well: nothing was done, give all nodes the same limits"
        )
    );
    assert_eq!(refusal(&mut node, put(&value[1..])), None);
    let trouble = node.cluster_limits().trouble(&Limits::default()).expect("they differ");
    assert!(trouble.contains(&format!("{three} takes 999")), "{trouble}");
    // What it reads is another matter.
    assert_eq!(refusal(&mut node, Request::Get { key: vec![0; 1000].into() }), None);
    meets(&mut node, 3, Some((4096, 2000)));
    assert_eq!(refusal(&mut node, put(&value)), None, "it has come back with another limit");
    // It has to store what is written while it is away.
    meets(&mut node, 3, Some((4096, 999)));
    node.peer_unreachable(node_of(3));
    meets(&mut node, 2, None);
    assert!(refusal(&mut node, put(&value)).is_some());
    meets(&mut node, 2, Some((0, 1 << 20)));
    let failure = refusal(&mut node, put(b"")).expect("node 2 takes no key at all");
    assert!(failure.message.starts_with("key of 1 bytes, the limit is 0"), "{}", failure.message);
    let two = name(&node, 2);
    assert!(failure.message.contains(&format!("{two} takes no more")), "{}", failure.message);
}

#[test]
fn a_transaction_is_no_way_around_the_limits_of_another_member() {
    let mut node = leader();
    let limits = Limits { value_bytes_max: 100_000, ..Limits::default() };
    meets(&mut node, 2, Some((limits.key_bytes_max, limits.value_bytes_max)));
    let transaction = |value: &[u8], steps: usize| {
        let mut buffer = StepBuffer::default();
        (0..steps).for_each(|_| buffer.push(&Step::Write(WriteOp::Put { key: b"k", value })));
        let watched = WatchedBuffer::default();
        let transaction = Transaction {
            watched: watched.watched(),
            answer_bytes_max: 1000,
            steps: buffer.steps(),
        };
        let op = WriteOp::Timed { stamp: 0, op: TimedOp::Transaction(transaction) };
        Request::Write { command: Command::Write { request: None, op }.to_bytes().into() }
    };
    assert_eq!(refusal(&mut node, transaction(&[0; 100_000], 2)), None);
    assert!(refusal(&mut node, transaction(&[0; 100_001], 1)).is_some(), "a value");
    let failure = refusal(&mut node, transaction(&[0; 100_000], 3)).expect("the whole entry");
    assert!(failure.message.starts_with("command of 300"), "{}", failure.message);
}

fn write(request: Option<RequestId>, op: WriteOp<'_>) -> Request {
    Request::Write { command: Command::Write { request, op }.to_bytes().into() }
}

/// All that is in the leader's log is committed; returns the answers.
fn commit(node: &mut Node) -> Vec<(Ticket, Answer)> {
    turn(node);
    let last = node.raft().log().last().index;
    hear(node, node_of(2), accepted(1, last));
    turn(node).answers
}

#[test]
fn a_full_store_refuses_what_makes_it_larger_and_takes_everything_else() {
    let mut node = leader();
    node.limit_store(Some(1000));
    let put = |key: &'static [u8], value: &'static [u8]| write(None, WriteOp::Put { key, value });
    for key in [b"a", b"b", b"c"] {
        assert_eq!(refusal(&mut node, put(key, b"12345")), None);
        assert_eq!(commit(&mut node).len(), 1);
    }
    assert_eq!(node.no_growth(), None);
    assert_eq!(refusal(&mut node, put(b"d", &[0; 230])), None, "the last one may go beyond it");
    // What is under way counts.
    let failure = refusal(&mut node, put(b"e", b"")).expect("it is full with what is under way");
    assert!(failure.is_store_full() && !failure.code.outcome_is_unknown(), "{failure:?}");
    commit(&mut node);
    assert_eq!(node.no_growth(), Some(NoGrowth::Store));
    for refused in [
        put(b"e", b""),
        put(b"a", b"123456"),
        write(None, WriteOp::Append { key: b"a", value: b"x", bytes_max: 100 }),
        write(None, WriteOp::Increment { key: b"n", delta: 1 }),
        put_for_a_while(),
    ] {
        assert!(
            refusal(&mut node, refused.clone()).is_some_and(|it| it.is_store_full()),
            "{refused:?}"
        );
    }
    let expiry = Expiry::After(100);
    let expire =
        TimedOp::Expire { key: b"a", expiry, condition: TimeCondition::Always, get: false };
    for taken in [
        put(b"a", b"54321"),
        put(b"b", b""),
        write(None, WriteOp::Append { key: b"a", value: b"", bytes_max: 100 }),
        write(None, WriteOp::Timed { stamp: 0, op: expire }),
        Request::Get { key: b"a".as_slice().into() },
        write(None, WriteOp::Delete { key: b"d" }),
    ] {
        assert_eq!(refusal(&mut node, taken.clone()), None, "{taken:?}");
    }
    commit(&mut node);
    assert_eq!(node.no_growth(), None);
    assert_eq!(refusal(&mut node, put(b"e", b"")), None, "there is room again");
    // Nothing of what was under way is counted any more.
    commit(&mut node);
    node.limit_store(Some(node.machine().store().stored_bytes() + 1));
    assert_eq!(refusal(&mut node, put(b"f", b"")), None);
}

#[test]
fn a_full_store_does_not_call_a_retry_not_done() {
    let mut node = leader();
    let open = Request::Write { command: Command::OpenSession.to_bytes().into() };
    assert_eq!(refusal(&mut node, open), None);
    commit(&mut node);
    let session = node.machine().applied();
    let request = Some(RequestId { session, sequence: 1 });
    let put = || write(request, WriteOp::Put { key: b"k", value: b"0123456789" });
    let other = write(None, WriteOp::Put { key: b"other", value: b"" });
    // Were it carried out again, it would need room.
    for request in [put(), other, write(None, WriteOp::Delete { key: b"k" })] {
        assert_eq!(refusal(&mut node, request), None);
        commit(&mut node);
    }
    node.limit_store(Some(10));
    assert_eq!(node.no_growth(), Some(NoGrowth::Store));
    node.request(8, put(), Routing::Redirect);
    let answers = turn(&mut node).answers;
    assert!(
        matches!(answers[..], [(8, Answer::Written { outcome: Outcome::Put, .. })]),
        "{answers:?}"
    );
}

/// For 100 ms.
fn put_for_a_while() -> Request {
    let (condition, expiry) = (Condition::Always, Expiry::After(100));
    let op = TimedOp::Set { key: b"k", value: b"v", condition, get: false, expiry };
    let op = WriteOp::Timed { stamp: 0, op };
    Request::Write { command: Command::Write { request: None, op }.to_bytes().into() }
}

fn get() -> Request {
    Request::Get { key: b"k"[..].into() }
}

fn ask(node: &mut Node, ticket: Ticket, request: Request) {
    node.request(ticket, request, Routing::Forward);
}

/// The codes of failures, by ticket.
fn failures(outgoing: &Outgoing) -> Vec<(Ticket, FailureCode)> {
    let code = |(ticket, answer): &(Ticket, Answer)| match answer {
        Answer::Failed(failure) => (*ticket, failure.code),
        other => panic!("{ticket} is answered {other:?}"),
    };
    outgoing.answers.iter().map(code).collect()
}

fn forwarded(outgoing: &Outgoing) -> Vec<(NodeId, u64)> {
    let id = |(to, message): &(NodeId, PeerMessage)| match message {
        PeerMessage::Forward { id, .. } => Some((*to, *id)),
        _ => None,
    };
    outgoing.messages.iter().filter_map(id).collect()
}

#[test]
fn a_write_is_answered_once_it_is_committed() {
    let mut node = leader();
    ask(&mut node, 7, put(b"a"));
    assert_eq!(turn(&mut node).answers, []);
    hear(&mut node, node_of(3), accepted(1, 2));
    let answer = Answer::Written { outcome: Outcome::Put, index: 2, leader: 1 };
    assert_eq!(turn(&mut node).answers, [(7, answer)]);
    assert_eq!(node.requests_pending(), 0);
}

#[test]
fn a_write_is_unknown_as_soon_as_leadership_is_lost() {
    let mut node = leader();
    ask(&mut node, 7, put(b"a"));
    turn(&mut node);
    hear(&mut node, node_of(3), append(2, (0, 0), 0, Vec::new()));
    assert_eq!(failures(&turn(&mut node)), [(7, FailureCode::OutcomeUnknown)]);
    assert_eq!(node.requests_pending(), 0);
}

/// A leader that was paused for a while hears of its successor by one message, which replaces its entries
/// and tells that the new ones are committed.
#[test]
fn a_write_whose_place_in_the_log_another_entry_takes_is_unknown() {
    for payload in [Payload::Noop, Payload::Command(Command::OpenSession.to_bytes().into())] {
        let mut node = leader();
        ask(&mut node, 7, put(b"a"));
        turn(&mut node);
        let entry = Entry { term: 2, index: 2, payload };
        hear(&mut node, node_of(3), append(2, (1, 1), 2, vec![entry]));
        assert_eq!(failures(&turn(&mut node)), [(7, FailureCode::OutcomeUnknown)]);
        assert_eq!((node.machine().applied(), node.requests_pending()), (2, 0));
    }
}

/// What the new leader says is committed may well be the write itself.
#[test]
fn a_write_that_a_new_leader_commits_is_answered() {
    let mut node = leader();
    ask(&mut node, 7, put(b"a"));
    turn(&mut node);
    let entry = Entry { term: 2, index: 3, payload: Payload::Noop };
    hear(&mut node, node_of(3), append(2, (2, 1), 2, vec![entry]));
    let answer = Answer::Written { outcome: Outcome::Put, index: 2, leader: 1 };
    assert_eq!(turn(&mut node).answers, [(7, answer)]);
}

#[test]
fn a_read_is_not_done_once_leadership_is_lost() {
    let mut node = leader();
    ask(&mut node, 7, get());
    turn(&mut node);
    hear(&mut node, node_of(3), append(2, (0, 0), 0, Vec::new()));
    assert_eq!(failures(&turn(&mut node)), [(7, FailureCode::NotLeader)]);
    assert_eq!(node.requests_pending(), 0);
}

/// Once handed over, a write may be carried out whatever happens; a read that is not answered was not.
#[test]
fn a_forwarded_write_without_an_answer_is_unknown_and_a_read_not_done() {
    let by_time = |node: &mut Node| (0..FORWARD_TIMEOUT_TICKS).for_each(|_| node.tick());
    let by_connection = |node: &mut Node| node.peer_unreachable(node_of(2));
    for end in [&by_time as &dyn Fn(&mut Node), &by_connection] {
        let mut node = follower();
        ask(&mut node, 7, put(b"a"));
        ask(&mut node, 8, get());
        let ids = forwarded(&turn(&mut node));
        let [(to, first), (to_as_well, second)] = ids[..] else { panic!("{ids:?}") };
        assert_eq!((to, to_as_well), (node_of(2), node_of(2)));
        assert_ne!(first, second);
        end(&mut node);
        let outgoing = turn(&mut node);
        let expected = [(7, FailureCode::OutcomeUnknown), (8, FailureCode::NoLeader)];
        assert_eq!(failures(&outgoing), expected);
        assert_eq!((forwarded(&outgoing), node.requests_pending()), (Vec::new(), 0));
    }
}

/// A write that no leader got is certainly not done.
#[test]
fn what_cannot_be_forwarded_is_not_done() {
    let mut node = follower();
    node.peer_unreachable(node_of(2));
    ask(&mut node, 7, put(b"a"));
    let outgoing = turn(&mut node);
    assert_eq!(failures(&outgoing), [(7, FailureCode::NoLeader)]);
    assert_eq!(forwarded(&outgoing), []);
}

#[test]
fn only_the_asked_leader_answers_and_once() {
    let mut node = follower();
    ask(&mut node, 7, put(b"a"));
    let (_, id) = forwarded(&turn(&mut node))[0];
    let answer = Answer::Written { outcome: Outcome::Put, index: 2, leader: 2 };
    let reply = PeerMessage::ForwardReply { id, answer: answer.clone() };
    node.peer_message(node_of(3), reply.clone()).unwrap();
    assert_eq!(turn(&mut node).answers, []);
    node.peer_message(node_of(2), reply.clone()).unwrap();
    assert_eq!(turn(&mut node).answers, [(7, answer)]);
    node.peer_message(node_of(2), reply).unwrap();
    assert_eq!(turn(&mut node).answers, []);
}

/// The leader answers to the node, and not to the process that asked.
#[test]
fn an_answer_to_an_earlier_process_is_not_taken_for_one_to_this() {
    let [(earlier_id, _), (id, mut node)] = [1, 2].map(|seed| {
        let mut node = following(node_with_seed(seed));
        ask(&mut node, 7, put(b"a"));
        (forwarded(&turn(&mut node))[0].1, node)
    });
    let answer = |index| Answer::Written { outcome: Outcome::Put, index, leader: 2 };
    for (id, index) in [(earlier_id, 2), (id, 3)] {
        let reply = PeerMessage::ForwardReply { id, answer: answer(index) };
        node.peer_message(node_of(2), reply).unwrap();
    }
    assert_eq!(turn(&mut node).answers, [(7, answer(3))]);
}

/// One hop, and nothing goes in circles.
#[test]
fn a_forwarded_request_is_not_forwarded_again() {
    let mut node = follower();
    node.peer_message(node_of(3), PeerMessage::Forward { id: 9, request: put(b"a") }).unwrap();
    let outgoing = turn(&mut node);
    assert_eq!(forwarded(&outgoing), []);
    let is_refused = |message: &(NodeId, PeerMessage)| {
        matches!(message, (to, PeerMessage::ForwardReply { id: 9, answer: Answer::Failed(failure) })
            if *to == node_of(3) && failure.code == FailureCode::NotLeader)
    };
    assert!(outgoing.messages.iter().any(is_refused), "{outgoing:?}");
}

/// Its removal is an entry like others, and before that is committed nobody misses the key: or another leader,
/// whose clock is behind, would bring it back.
#[test]
fn a_key_whose_time_has_come_is_read_until_its_removal_is_applied() {
    let mut node = leader();
    node.set_time(10_000);
    ask(&mut node, 1, put_for_a_while());
    turn(&mut node);
    hear(&mut node, node_of(2), accepted(1, 2));
    assert_eq!(turn(&mut node).answers.len(), 1);

    node.set_time(20_000);
    let mut read = |ticket, match_index, value: Option<&[u8]>| {
        ask(&mut node, ticket, get());
        let asked = turn(&mut node).messages.into_iter().find_map(|(_, message)| match message {
            PeerMessage::Raft(Message::AppendEntries { round, .. }) => Some(round),
            _ => None,
        });
        let round = asked.expect("the others are asked whether it leads");
        assert_eq!(node.raft().log().last().index, 3, "the removal is proposed, once");
        hear(&mut node, node_of(2), accepted_in_round(1, match_index, round));
        let answers = turn(&mut node).answers;
        let told = |answer: &Answer| match answer {
            Answer::Value { value, .. } => value.as_deref().map(<[u8]>::to_vec),
            other => panic!("{other:?}"),
        };
        let told: Vec<_> = answers.iter().map(|(of, answer)| (*of, told(answer))).collect();
        assert_eq!(told, [(ticket, value.map(<[u8]>::to_vec))]);
    };
    // A reply confirms the leader, and says nothing of the removal.
    read(2, 2, Some(b"v"));
    read(3, 2, Some(b"v"));
    // Asked for before the removal is committed, and answered after it.
    read(4, 3, Some(b"v"));
    read(5, 3, None);
}

/// What is applied in a turn may be due at once. Its removal is for the next turn: this one is written already.
#[test]
fn a_turn_ends_with_nothing_in_the_log_that_the_disk_was_not_given() {
    let mut node = leader();
    node.set_time(10_000);
    ask(&mut node, 1, put_for_a_while());
    turn(&mut node);
    node.set_time(20_000);
    hear(&mut node, node_of(2), accepted(1, 2));
    for (last, removed) in [(2, false), (3, false), (3, true)] {
        let (ready, _) = node.take_ready(Waits::default());
        node.persisted(ready);
        node.carry_out().expect("entries can be applied");
        assert_eq!(node.raft().log().last().index, last);
        assert_eq!(node.machine().store().is_empty(), removed);
        hear(&mut node, node_of(2), accepted(1, last));
    }
}

/// The newest round that the others are asked to confirm.
fn round_of(outgoing: &Outgoing) -> u64 {
    let round = |(_, message): &(NodeId, PeerMessage)| match message {
        PeerMessage::Raft(Message::AppendEntries { round, .. }) => Some(*round),
        _ => None,
    };
    outgoing.messages.iter().filter_map(round).max().expect("the others are asked")
}

fn values(outgoing: &Outgoing) -> Vec<(Ticket, Vec<u8>)> {
    let value = |(ticket, answer): &(Ticket, Answer)| match answer {
        Answer::Value { value: Some(value), .. } => (*ticket, value.to_vec()),
        Answer::Found { found: Found::Values(values), .. } => match &values[..] {
            [Some(value)] => (*ticket, value.to_vec()),
            other => panic!("{ticket} is answered {other:?}"),
        },
        other => panic!("{ticket} is answered {other:?}"),
    };
    outgoing.answers.iter().map(value).collect()
}

/// A state that is not yet that of the commit index may lack what an earlier leader has acknowledged.
#[test]
fn a_new_leader_looks_nothing_up_before_it_has_applied_what_is_committed() {
    const ENTRIES: u64 = 20_000;
    let mut node = follower();
    let entry = |index: u64| match put(&index.to_be_bytes()) {
        Request::Write { command } => Entry { term: 1, index, payload: Payload::Command(command) },
        other => panic!("{other:?}"),
    };
    hear(&mut node, node_of(2), append(1, (0, 0), 0, (1..=ENTRIES).map(entry).collect()));
    turn(&mut node);
    while node.raft().role_name() != "pre-candidate" {
        node.tick();
    }
    turn(&mut node);
    hear(&mut node, node_of(3), pre_vote(2, true));
    turn(&mut node);
    hear(&mut node, node_of(3), vote(2, true));
    turn(&mut node);
    hear(&mut node, node_of(3), accepted(2, ENTRIES + 1));
    turn(&mut node);
    let (applied, commit_index) = (node.machine().applied(), node.raft().commit_index());
    assert!(applied > 0 && applied < commit_index && commit_index == ENTRIES + 1);
    ask(&mut node, 1, get());
    let outgoing = turn(&mut node);
    assert_eq!((&outgoing.answers[..], node.machine().applied()), (&[][..], commit_index));
    hear(&mut node, node_of(3), accepted_in_round(2, commit_index, round_of(&outgoing)));
    assert_eq!(values(&turn(&mut node)), [(1, ENTRIES.to_be_bytes().to_vec())]);
}

/// Those of a connection are sent one after the other: with a write between them, the second one must not see less.
#[test]
fn a_later_read_sees_no_less_than_an_earlier_one() {
    let mut node = leader();
    ask(&mut node, 1, put(b"old"));
    turn(&mut node);
    hear(&mut node, node_of(2), accepted(1, 2));
    turn(&mut node);
    ask(&mut node, 2, put(b"new"));
    ask(&mut node, 3, Request::Read(ReadOp::Values(vec![b"k"[..].into()])));
    let round = round_of(&turn(&mut node));
    ask(&mut node, 4, get());
    turn(&mut node);
    hear(&mut node, node_of(2), accepted_in_round(1, 3, round));
    let mut outgoing = turn(&mut node);
    assert!(matches!(outgoing.answers.remove(0), (2, Answer::Written { .. })));
    assert_eq!(values(&outgoing), [(3, b"new".to_vec())]);
    let round = round_of(&outgoing);
    hear(&mut node, node_of(2), accepted_in_round(1, 3, round));
    assert_eq!(values(&turn(&mut node)), [(4, b"new".to_vec())]);
}

/// It was there when it was asked for, and nobody else led then: how long it takes to know is no matter.
#[test]
fn a_value_is_looked_up_when_it_is_asked_for_and_told_when_the_leader_is_confirmed() {
    let mut node = leader();
    ask(&mut node, 1, put(b"old"));
    turn(&mut node);
    hear(&mut node, node_of(2), accepted(1, 2));
    turn(&mut node);
    assert_eq!(node.request(2, get(), Routing::Forward), b"old".len());
    ask(&mut node, 3, put(b"new"));
    let outgoing = turn(&mut node);
    assert_eq!(outgoing.answers, []);
    hear(&mut node, node_of(2), accepted(1, 3));
    assert!(matches!(turn(&mut node).answers[..], [(3, Answer::Written { .. })]));
    hear(&mut node, node_of(2), accepted_in_round(1, 3, round_of(&outgoing)));
    assert_eq!(values(&turn(&mut node)), [(2, b"old".to_vec())]);
}

/// A request that was held back while nobody led is no exception, when the last vote is the own one.
#[test]
fn what_was_held_back_is_taken_up_with_the_turn_after_the_election() {
    let mut node = follower();
    ask(&mut node, 7, put(b"a"));
    let [(_, id)] = forwarded(&turn(&mut node))[..] else { panic!("it is not passed on") };
    let (code, message) = (FailureCode::NotLeader, "it has handed over".to_string());
    let answer = Answer::Failed(Failure { code, message, leader: None });
    let reply = PeerMessage::ForwardReply { id, answer };
    node.peer_message(node_of(2), reply).expect("one leader a term");
    while node.raft().role_name() != "pre-candidate" {
        node.tick();
    }
    turn(&mut node);
    hear(&mut node, node_of(2), pre_vote(2, true));
    hear(&mut node, node_of(2), vote(2, true));
    assert_eq!(node.raft().role_name(), "candidate");
    assert_eq!(turn(&mut node).answers, []);
    // The no-op, and nothing else.
    assert_eq!((node.raft().role_name(), node.raft().log().last().index), ("leader", 1));
    assert!(node.has_work());
    turn(&mut node);
    assert_eq!((node.raft().log().last().index, node.requests_pending()), (2, 1));
}

/// Looks at every key as often as a search may.
fn search() -> Request {
    let range = Range {
        start: b"".as_slice().into(),
        end: None,
        reverse: false,
        pattern: Some([&b"*".repeat(200)[..], b"z"].concat().into()),
        with_values: false,
        keys_max: u32::MAX,
        partial: false,
    };
    let mut steps = StepBuffer::default();
    steps.push(&Step::Read(ReadOp::Range(range)));
    let (watched, steps) = (WatchedBuffer::default(), steps.steps());
    let transaction = Transaction { watched: watched.watched(), answer_bytes_max: 64, steps };
    let op = WriteOp::Timed { stamp: 0, op: TimedOp::Transaction(transaction) };
    Request::Write { command: Command::Write { request: None, op }.to_bytes().into() }
}

/// A leader with so many keys that a search costs very much, and its log.
fn leader_with_many_keys() -> Node {
    let mut node = leader();
    let keys: Vec<String> = (0..10_000).map(|key| format!("a-key-of-{key:022}")).collect();
    let pairs = Blobs::to_bytes(keys.iter().flat_map(|key| [key.as_bytes(), b"v"]));
    let op = WriteOp::PutMany { pairs: Blobs::new(&pairs).expect("pairs") };
    let command = Command::Write { request: None, op }.to_bytes().into();
    ask(&mut node, 0, Request::Write { command });
    turn(&mut node);
    hear(&mut node, node_of(3), accepted(1, 2));
    turn(&mut node);
    assert_eq!(node.machine().store().len(), 10_000);
    node
}

#[test]
fn a_turn_applies_a_part_of_what_is_committed_however_short_the_entries_are() {
    let mut node = leader_with_many_keys();
    let applied = node.machine().applied();
    (1..=8).for_each(|ticket| ask(&mut node, ticket, search()));
    turn(&mut node);
    hear(&mut node, node_of(3), accepted(1, applied + 8));
    for done in 1..=8 {
        let answers = turn(&mut node).answers;
        assert_eq!((answers.len(), node.machine().applied()), (1, applied + done));
        assert_eq!(node.has_work(), done < 8);
    }
}

#[test]
fn writes_that_would_take_too_long_together_are_refused_as_not_done() {
    let mut node = leader_with_many_keys();
    let mut taken = 0;
    let refused = loop {
        ask(&mut node, taken, search());
        let outgoing = turn(&mut node);
        if !outgoing.answers.is_empty() {
            break failures(&outgoing);
        }
        taken += 1;
        assert!(taken < 1000, "they would be answered after seconds");
    };
    assert_eq!(refused, [(taken, FailureCode::Overloaded)]);
    assert!(taken > 10, "{taken}");
    let last = node.raft().log().last().index;
    hear(&mut node, node_of(3), accepted(1, last));
    while node.has_work() {
        turn(&mut node);
    }
    ask(&mut node, taken, search());
    assert!(turn(&mut node).answers.is_empty(), "there is room again");
    // As for those whose entries somebody else may have replaced.
    hear(&mut node, node_of(3), append(2, (0, 0), 0, Vec::new()));
    assert_eq!(failures(&turn(&mut node)), [(taken, FailureCode::OutcomeUnknown)]);
    assert_eq!(node.requests_pending(), 0);
}

#[test]
fn an_entry_that_would_keep_a_turn_too_long_is_refused_before_it_is_proposed() {
    let mut node = leader();
    let keys: Vec<String> = (0..100_000).map(|key| key.to_string()).collect();
    let keys = Blobs::to_bytes(keys.iter().map(String::as_bytes));
    let op = WriteOp::DeleteMany { keys: Blobs::new(&keys).expect("keys") };
    let command = Command::Write { request: None, op }.to_bytes().into();
    let last = node.raft().log().last();
    ask(&mut node, 1, Request::Write { command });
    assert_eq!(failures(&turn(&mut node)), [(1, FailureCode::TooLarge)]);
    assert_eq!(node.raft().log().last(), last);
}

/// It was to be handed to the leader, and waited for that in vain.
#[test]
fn what_was_not_sent_to_the_leader_is_not_done() {
    let mut node = follower();
    ask(&mut node, 7, put(b"a"));
    ask(&mut node, 8, put(b"b"));
    let sent = forwarded(&turn(&mut node));
    node.forward_not_sent(sent[0].1);
    assert_eq!(failures(&turn(&mut node)), [(7, FailureCode::NoLeader)]);
    node.peer_unreachable(node_of(2));
    node.forward_not_sent(sent[1].1);
    assert_eq!(failures(&turn(&mut node)), [(8, FailureCode::OutcomeUnknown)], "once");
}

#[test]
fn what_a_peer_has_under_way_counts_with_its_answer_until_that_is_given() {
    let mut node = leader();
    let value = vec![b'v'; 10_000];
    node.peer_message(node_of(2), PeerMessage::Forward { id: 1, request: put(&value) }).unwrap();
    node.peer_message(node_of(3), PeerMessage::Forward { id: 1, request: get() }).unwrap();
    assert!((10_000..11_000).contains(&node.forwarded_bytes(node_of(2))));
    assert!((1..1000).contains(&node.forwarded_bytes(node_of(3))), "there is no value");
    turn(&mut node);
    hear(&mut node, node_of(2), accepted_in_round(1, 2, 1));
    turn(&mut node);
    assert_eq!(node.forwarded_bytes_of_all(), 0);
    node.peer_message(node_of(3), PeerMessage::Forward { id: 2, request: get() }).unwrap();
    assert!((10_000..11_000).contains(&node.forwarded_bytes(node_of(3))), "of the answer");
}

#[test]
fn nothing_is_done_for_a_node_that_is_no_member() {
    let mut node = leader();
    let request = put(b"a");
    node.peer_message(node_of(9), PeerMessage::Forward { id: 5, request }).unwrap();
    let outgoing = turn(&mut node);
    let is_refused = |message: &(NodeId, PeerMessage)| {
        matches!(message, (to, PeerMessage::ForwardReply { id: 5, answer: Answer::Failed(failure) })
            if *to == node_of(9) && failure.code == FailureCode::ShuttingDown)
    };
    assert!(outgoing.messages.iter().any(is_refused), "{outgoing:?}");
    assert_eq!((node.raft().log().last().index, node.forwarded_bytes_of_all()), (1, 0));
}

/// A stranger asks for votes, as a leader may; a member, or a node of the same cluster that this one does not know yet,
/// may do so.
#[test]
fn consensus_is_no_affair_of_a_node_that_is_no_member() {
    let ask_for_votes = |term| {
        let by_leader = true;
        let message = Message::RequestVote { term, last_log_index: 9, last_log_term: 9, by_leader };
        PeerMessage::Raft(message)
    };
    let mut node = follower();
    let own_cluster = node.raft().membership().cluster_id;
    for standing in [Standing::Empty, Standing::Lost, Standing::Member { cluster_id: 99 }] {
        node.peer_connected(Peer { standing, ..peer(9) });
        let heard = node.peer_message(node_of(9), ask_for_votes(5));
        assert_eq!(heard, Err(Distrust::Stranger), "{standing:?}");
        assert_eq!((node.raft().term(), node.raft().leader()), (1, Some(node_of(2))));
    }
    let standing = Standing::Member { cluster_id: own_cluster };
    node.peer_connected(Peer { standing, ..peer(9) });
    node.peer_message(node_of(9), ask_for_votes(5)).expect("it may know more than this node");
    assert_eq!(node.raft().term(), 5);
    node.peer_message(node_of(3), ask_for_votes(6)).expect("a member, connected or not");
    assert_eq!(node.raft().term(), 6);
}
