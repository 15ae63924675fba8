//! `wire-protocol.md` says what the code does: every example in it is decoded to what it claims to be,
//! and what it claims to be is encoded to the same bytes; every message and every code is in it.

mod documented;

use documented::{DOCUMENT, documented, payload_of};
use raftkv::kv::{
    Answer, BackupPart, BackupRequest, Blobs, Change, Command, Condition, Expiry, Failure,
    FailureCode, Found, HISTORY_BYTES_MAX, HISTORY_CHANGES_MAX, Key, LeaderHint, MemberRequest,
    Outcome, READ_KEYS_MAX, Range, ReadOp, Refusal, Request, RequestId, SESSION_VALUE_BYTES_MAX,
    STEPS_MAX, Step, StepBuffer, StepOutcome, TimeCondition, TimedOp, Transaction,
    WATCHED_KEYS_MAX, WatchedBuffer, WriteOp,
};
use raftkv::node::{Applicant, PeerMessage, Standing};
use raftkv::protocol::changes::Streamed;
use raftkv::protocol::client::{ReplyBody, ReplyFrame, RequestBody, RequestFrame};
use raftkv::protocol::frame::{MAGIC, SKIP_BYTES_MAX, put_frame};
use raftkv::protocol::hello::{
    HELLO_BYTES_MAX, Hello, HelloReply, NAME_BYTES_MAX, REASON_BYTES_MAX, Refused, RefusedCode,
    Role, Welcome,
};
use raftkv::protocol::resp::{ARGUMENTS_MAX, INLINE_BYTES_MAX, MULTIBULK_COUNT_MAX};
use raftkv::protocol::{Kind, Limits, PEER_BATCH_BYTES_MAX, client_frame_bytes_max, peer};
use raftkv::raft::{AppendOutcome, Entry, Member, Membership, Message, Payload, node_id};
use std::collections::BTreeMap;
use std::rc::Rc;

const CLUSTER: u64 = 0x5af3_107a_4000_c0de;
const FOUNDED: u64 = 0x0f0e_0d0c_0b0a_0908;

/// What an example in the document is said to be.
#[derive(Debug, PartialEq)]
enum Example {
    /// The magic, then a hello.
    Opening(Hello),
    /// The magic, then the reply to it.
    OpeningReply(HelloReply),
    Hello(Hello),
    HelloReply(HelloReply),
    Request(RequestFrame),
    Reply(ReplyFrame),
    Peer(PeerMessage),
}

impl Example {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if matches!(self, Example::Opening(_) | Example::OpeningReply(_)) {
            out.extend_from_slice(&MAGIC);
        }
        put_frame(&mut out, |out| match self {
            Example::Opening(hello) | Example::Hello(hello) => hello.encode(out),
            Example::OpeningReply(reply) | Example::HelloReply(reply) => reply.encode(out),
            Example::Request(request) => request.encode(out),
            Example::Reply(reply) => reply.encode(out),
            Example::Peer(message) => peer::encode(message, out),
        });
        out
    }

    /// Reads bytes as what `self` is, whatever its values.
    fn decode_alike(&self, bytes: &[u8]) -> Example {
        let payload = payload_of(bytes);
        match self {
            Example::Opening(_) => Example::Opening(Hello::decode(payload).unwrap()),
            Example::Hello(_) => Example::Hello(Hello::decode(payload).unwrap()),
            Example::OpeningReply(_) => Example::OpeningReply(HelloReply::decode(payload).unwrap()),
            Example::HelloReply(_) => Example::HelloReply(HelloReply::decode(payload).unwrap()),
            Example::Request(_) => Example::Request(RequestFrame::decode(payload).unwrap()),
            Example::Reply(_) => Example::Reply(ReplyFrame::decode(payload).unwrap()),
            Example::Peer(_) => Example::Peer(peer::decode(payload).unwrap()),
        }
    }
}

fn client_hello(name: &str) -> Hello {
    let role = Role::Client { name: name.to_owned() };
    Hello { version_min: 2, version_max: 2, cluster_id: 0, role }
}

fn welcome(node: u64, incarnation: u64) -> HelloReply {
    HelloReply::Welcome(Welcome {
        version: 2,
        cluster_id: CLUSTER,
        node,
        incarnation,
        name: format!("raft-{node}"),
        frame_bytes_max: client_frame_bytes_max(&Limits::default()) as u32,
        key_bytes_max: Limits::default().key_bytes_max,
        value_bytes_max: Limits::default().value_bytes_max,
        standing: Standing::Member { cluster_id: FOUNDED },
        address: format!("raft-{node}.raft-service:6000"),
    })
}

fn ask(id: u64, request: Request) -> Example {
    Example::Request(RequestFrame { id, body: RequestBody::Ask(request) })
}

fn get(id: u64) -> Example {
    ask(id, Request::Get { key: b"a"[..].into() })
}

fn write(id: u64, command: Command<'_>) -> Example {
    ask(id, Request::Write { command: command.to_bytes().into() })
}

/// A command in a session; session 0 is none.
fn command(session: u64, sequence: u64, op: WriteOp<'_>) -> Command<'_> {
    let request = (session != 0).then_some(RequestId { session, sequence });
    Command::Write { request, op }
}

const PUT: WriteOp<'_> = WriteOp::Put { key: b"a", value: b"1" };

fn answer(id: u64, answer: Answer) -> Example {
    Example::Reply(ReplyFrame { id, body: ReplyBody::Answer(answer) })
}

fn value(id: u64, index: u64, value: Option<&[u8]>) -> Example {
    answer(id, Answer::Value { value: value.map(Into::into), index, leader: 2 })
}

fn written(id: u64, index: u64, outcome: Outcome) -> Example {
    answer(id, Answer::Written { outcome, index, leader: 2 })
}

fn not_leader(id: u64) -> Example {
    let leader = LeaderHint { id: 2, address: "raft-2.raft-service:6000".to_owned() };
    answer(
        id,
        Answer::Failed(Failure {
            code: FailureCode::NotLeader,
            message: "raft-1 is not the leader, raft-2 is".to_owned(),
            leader: Some(leader),
        }),
    )
}

fn raft(message: Message) -> Example {
    Example::Peer(PeerMessage::Raft(message))
}

fn hello_examples() -> Vec<(&'static str, Example)> {
    let peer = Role::Peer {
        node: 1,
        incarnation: 0xbbcc_ddee_ff00,
        name: "raft-1".to_owned(),
        standing: Standing::Empty,
        address: "raft-1.raft-service:6000".to_owned(),
        limits: Some(Limits { key_bytes_max: 4096, value_bytes_max: 1_048_576 }),
    };
    let mut of_0_1_0 = peer.clone();
    if let Role::Peer { limits, .. } = &mut of_0_1_0 {
        *limits = None;
    }
    let refused = Refused {
        code: RefusedCode::Cluster,
        reason: "raft-2 is of cluster 5af3107a4000c0de, not 0000000000000001".to_owned(),
    };
    vec![
        ("hello-client", Example::Hello(client_hello("cltraft"))),
        (
            "hello-peer",
            Example::Hello(Hello {
                version_min: 2,
                version_max: 2,
                cluster_id: CLUSTER,
                role: peer,
            }),
        ),
        (
            "hello-peer-of-0.1.0",
            Example::Hello(Hello {
                version_min: 2,
                version_max: 2,
                cluster_id: CLUSTER,
                role: of_0_1_0,
            }),
        ),
        ("welcome", Example::HelloReply(welcome(2, 0x3344_5566_7788))),
        ("refused", Example::HelloReply(HelloReply::Refused(refused))),
    ]
}

fn blobs(encoded: &[u8]) -> Blobs<'_> {
    Blobs::new(encoded).unwrap()
}

fn shared(bytes: &[u8]) -> Rc<[u8]> {
    bytes.into()
}

fn found(id: u64, found: Found) -> Example {
    answer(id, Answer::Found { found, index: 14, leader: 2 })
}

fn backup(id: u64, part: BackupPart) -> Example {
    answer(id, Answer::Backup { part, index: 12, leader: 2 })
}

fn request_examples() -> Vec<(&'static str, Example)> {
    let swap = |key, expected, value| WriteOp::CompareAndSet { key, expected, value };
    let name = "raft-1".to_owned();
    let pairs = Blobs::to_bytes([&b"a"[..], b"1", b"b", b"2"]);
    let keys = Blobs::to_bytes([&b"a"[..], b"b"]);
    let range = Range {
        start: shared(b"a"),
        end: Some(shared(b"c")),
        reverse: false,
        pattern: Some(shared(b"a*")),
        with_values: false,
        keys_max: 10,
        partial: true,
    };
    let status = RequestFrame { id: 10, body: RequestBody::Status };
    let timed = |op| WriteOp::Timed { stamp: 0, op };
    let (mut watched, mut steps) = (WatchedBuffer::default(), StepBuffer::default());
    watched.push(b"a", 12);
    steps.push(&Step::Write(WriteOp::Increment { key: b"n", delta: 1 }));
    steps.push(&Step::Read(ReadOp::Values(vec![shared(b"a")])));
    let transaction = TimedOp::Transaction(Transaction {
        watched: watched.watched(),
        answer_bytes_max: 1 << 20,
        steps: steps.steps(),
    });
    let changes = |id, prefix: &str, from| {
        let body = RequestBody::Changes { prefix: prefix.as_bytes().to_vec(), from };
        Example::Request(RequestFrame { id, body })
    };
    vec![
        ("get", get(1)),
        ("write-open-session", write(2, Command::OpenSession)),
        ("write-put", write(3, command(7, 1, PUT))),
        ("write-put-without-session", write(4, command(0, 0, PUT))),
        ("write-delete", write(5, command(7, 2, WriteOp::Delete { key: b"a" }))),
        ("write-compare-and-set", write(6, command(7, 3, swap(b"a", Some(b"1"), b"22")))),
        ("write-compare-and-set-absent", write(7, command(7, 4, swap(b"b", None, b"")))),
        ("write-increment", write(8, command(7, 5, WriteOp::Increment { key: b"n", delta: -2 }))),
        (
            "write-set",
            write(
                13,
                command(
                    7,
                    6,
                    WriteOp::Set {
                        key: b"a",
                        value: b"2",
                        condition: Condition::Equals(b"1"),
                        get: true,
                    },
                ),
            ),
        ),
        (
            "write-remove",
            write(14, command(7, 7, WriteOp::Remove { key: b"a", expected: None, get: true })),
        ),
        ("write-put-many", write(15, command(7, 8, WriteOp::PutMany { pairs: blobs(&pairs) }))),
        ("write-delete-many", write(16, command(7, 9, WriteOp::DeleteMany { keys: blobs(&keys) }))),
        (
            "write-append",
            write(
                17,
                command(7, 10, WriteOp::Append { key: b"a", value: b"xyz", bytes_max: 1 << 20 }),
            ),
        ),
        ("read-values", ask(18, Request::Read(ReadOp::Values(vec![shared(b"a"), shared(b"b")])))),
        ("read-lengths", ask(19, Request::Read(ReadOp::Lengths(vec![shared(b"a")])))),
        ("read-range", ask(20, Request::Read(ReadOp::Range(range)))),
        ("read-random-key", ask(21, Request::Read(ReadOp::RandomKey))),
        ("backup-begin", ask(22, Request::Backup(BackupRequest::Begin))),
        ("backup-find", ask(23, Request::Backup(BackupRequest::Find { index: 12 }))),
        (
            "backup-piece",
            ask(24, Request::Backup(BackupRequest::Piece { index: 12, term: 3, offset: 262_144 })),
        ),
        (
            "write-set-until",
            write(
                22,
                command(
                    7,
                    11,
                    timed(TimedOp::Set {
                        key: b"a",
                        value: b"1",
                        condition: Condition::Always,
                        get: false,
                        expiry: Expiry::After(60_000),
                    }),
                ),
            ),
        ),
        (
            "write-expire",
            write(
                23,
                command(
                    7,
                    12,
                    timed(TimedOp::Expire {
                        key: b"a",
                        expiry: Expiry::At(1_800_000_000_000),
                        condition: TimeCondition::Lt,
                        get: true,
                    }),
                ),
            ),
        ),
        ("write-transaction", write(24, command(7, 13, timed(transaction)))),
        ("write-flush", write(25, command(7, 14, WriteOp::Flush))),
        ("read-expiry", ask(26, Request::Read(ReadOp::Expiry(shared(b"a"))))),
        (
            "read-versions",
            ask(27, Request::Read(ReadOp::Versions(vec![shared(b"a"), shared(b"b")]))),
        ),
        ("read-digest", ask(28, Request::Read(ReadOp::Digest))),
        ("digest", ask(9, Request::Digest)),
        ("member-remove", ask(11, Request::Member(MemberRequest::Remove { name }))),
        ("member-transfer", ask(12, Request::Member(MemberRequest::Transfer { to: None }))),
        ("status", Example::Request(status)),
        ("changes-from", changes(22, "user:", Some(15))),
        ("changes", changes(23, "", None)),
    ]
}

fn reply_examples() -> Vec<(&'static str, Example)> {
    let fields = [("raft_role", "leader"), ("term", "4")];
    let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let unknown = Failure {
        code: FailureCode::OutcomeUnknown,
        message: "raft-2 lost its leadership: the write may be carried out yet".to_owned(),
        leader: None,
    };
    let streamed = |it| Example::Reply(ReplyFrame { id: 22, body: ReplyBody::Changes(it) });
    let changes = vec![
        Change::Set { key: Key::from(&b"user:1"[..]), value: shared(b"Ann") },
        Change::Deleted { key: Key::from(&b"user:2"[..]) },
        Change::Flushed,
    ];
    let compacted = Failure {
        code: FailureCode::Compacted,
        message: "changes up to index 14 are forgotten; read the keys again and go on from 41"
            .to_owned(),
        leader: None,
    };
    let digest = Answer::Digest { digest: 0x8f1e_2d3c_4b5a_6978, keys: 3, index: 12, leader: 2 };
    vec![
        ("value", value(1, 12, Some(b"1"))),
        ("value-absent", value(1, 12, None)),
        ("written-session", written(2, 7, Outcome::SessionOpened { session: 7 })),
        ("written-put", written(3, 8, Outcome::Put)),
        ("written-deleted", written(5, 9, Outcome::Deleted(true))),
        ("written-swapped", written(6, 10, Outcome::Swapped(false))),
        ("written-counter", written(8, 11, Outcome::Counter(-2))),
        (
            "written-changed",
            written(13, 12, Outcome::Changed { done: true, old: Some(shared(b"1").into()) }),
        ),
        ("found-values", found(18, Found::Values(vec![Some(shared(b"1").into()), None]))),
        ("found-lengths", found(19, Found::Lengths(vec![Some(5)]))),
        (
            "found-keys",
            found(20, Found::Keys { items: vec![shared(b"a").into()], next: Some(shared(b"ab")) }),
        ),
        (
            "written-transaction",
            written(
                24,
                15,
                Outcome::Transaction(Some(vec![
                    StepOutcome::Written(Outcome::Counter(1)),
                    StepOutcome::Found(Found::Values(vec![Some(shared(b"1").into())])),
                ])),
            ),
        ),
        ("written-transaction-aborted", written(24, 15, Outcome::Transaction(None))),
        (
            "found-expiry",
            found(
                26,
                Found::Expiry { expires_at: Some(1_800_000_000_000), now: 1_799_999_999_000 },
            ),
        ),
        ("found-versions", found(27, Found::Versions(vec![12, 0]))),
        ("found-digest", found(28, Found::Digest { digest: 0x8f1e_2d3c_4b5a_6978, keys: 3 })),
        ("written-refused", written(8, 11, Outcome::Refused(Refusal::NotAnInteger))),
        ("state-digest", answer(9, digest)),
        ("status-reply", Example::Reply(ReplyFrame { id: 10, body: ReplyBody::Status(fields) })),
        ("member-reply", answer(11, Answer::Member { index: 13, leader: 2 })),
        ("backup-begun", backup(22, BackupPart::Begun)),
        ("backup-not-yet", backup(23, BackupPart::NotYet)),
        ("backup-found", backup(23, BackupPart::Found { term: 3, bytes: 300_000 })),
        ("backup-bytes", backup(24, BackupPart::Piece(shared(b"abc")))),
        ("failed-not-leader", not_leader(3)),
        ("changes-reply-begun", streamed(Streamed::Begun { from: 15 })),
        ("changes-reply", streamed(Streamed::Changes { index: 16, changes, more: false })),
        ("changes-reply-progress", streamed(Streamed::Progress { index: 40 })),
        ("failed-compacted", answer(22, Answer::Failed(compacted))),
        ("failed-outcome-unknown", answer(3, Answer::Failed(unknown))),
    ]
}

/// One voter, one learner, one that was removed.
fn membership() -> Membership {
    let member = |number: u64, is_voter| {
        let name = format!("raft-{number}");
        let address = format!("{name}.raft-service:6000");
        (node_id(number, 0x1122_3344_5566 + number), Member { name, address, is_voter })
    };
    Membership {
        cluster_id: FOUNDED,
        members: [member(0, true), member(1, false)].into(),
        removed: [node_id(1, 0xaabb_ccdd_eeff)].into(),
    }
}

fn peer_examples() -> Vec<(&'static str, Example)> {
    let (term, last_log_index, last_log_term) = (5, 12, 4);
    let put = Payload::Command(command(7, 1, PUT).to_bytes().into());
    let entries = vec![
        Entry { term, index: 13, payload: Payload::Noop },
        Entry { term, index: 14, payload: put },
        Entry { term, index: 15, payload: Payload::Members(membership().into()) },
    ];
    let append = Message::AppendEntries {
        term,
        prev_log_index: 12,
        prev_log_term: 4,
        leader_commit: 11,
        round: 3,
        entries,
    };
    let reply = |outcome| raft(Message::AppendReply { term, round: 3, outcome });
    let rejected = AppendOutcome::Rejected {
        prev_log_index: 12,
        hint_index: 9,
        hint_term: 3,
        lost_entries: false,
    };
    let (last_included_index, last_included_term, offset) = (12, 4, 262_144);
    let install = Message::InstallSnapshot {
        term,
        last_included_index,
        last_included_term,
        offset,
        data: b"abc"[..].into(),
        done: true,
    };
    let received = Message::SnapshotReply { term, last_included_index, last_included_term, offset };
    let (index, digest) = (1024, 0x0123_4567_89ab_cdef);
    let forward = PeerMessage::Forward { id: 41, request: Request::Get { key: b"a"[..].into() } };
    let applicant = Applicant {
        id: node_id(3, 0x0123_4567_89ab),
        name: "raft-3".to_owned(),
        address: "raft-3.raft-service:6000".to_owned(),
    };
    let found = Answer::Value { value: Some(b"1"[..].into()), index: 12, leader: 2 };
    vec![
        ("request-pre-vote", raft(Message::RequestPreVote { term, last_log_index, last_log_term })),
        ("pre-vote-reply", raft(Message::PreVoteReply { term, granted: true })),
        (
            "request-vote",
            raft(Message::RequestVote { term, last_log_index, last_log_term, by_leader: false }),
        ),
        ("vote-reply", raft(Message::VoteReply { term, granted: false })),
        ("append-entries", raft(append)),
        ("append-reply-accepted", reply(AppendOutcome::Accepted { match_index: 15 })),
        ("append-reply-rejected", reply(rejected)),
        ("install-snapshot", raft(install)),
        ("snapshot-reply", raft(received)),
        ("timeout-now", raft(Message::TimeoutNow { term })),
        ("forward", Example::Peer(forward)),
        ("digest-report", Example::Peer(PeerMessage::DigestReport { index, digest })),
        ("diverged", Example::Peer(PeerMessage::Diverged { index, digest })),
        ("found", Example::Peer(PeerMessage::Found(membership().into()))),
        ("applies", Example::Peer(PeerMessage::Applies(applicant))),
        ("forward-reply", Example::Peer(PeerMessage::ForwardReply { id: 41, answer: found })),
    ]
}

fn conversation() -> Vec<(&'static str, Example)> {
    let put = command(15, 1, PUT);
    vec![
        ("talk-01-client", Example::Opening(client_hello("example"))),
        ("talk-02-node", Example::OpeningReply(welcome(2, 0x3344_5566_7788))),
        ("talk-03-client", write(1, Command::OpenSession)),
        ("talk-04-node", written(1, 15, Outcome::SessionOpened { session: 15 })),
        ("talk-05-client", write(2, put)),
        ("talk-06-node", written(2, 16, Outcome::Put)),
        ("talk-07-client", write(3, put)),
        ("talk-08-node", written(3, 16, Outcome::Put)),
        ("talk-09-client", get(4)),
        ("talk-10-node", value(4, 16, Some(b"1"))),
        ("talk-11-client", Example::Opening(client_hello("example"))),
        ("talk-12-node", Example::OpeningReply(welcome(1, 0xbbcc_ddee_ff00))),
        ("talk-13-client", get(1)),
        ("talk-14-node", not_leader(1)),
    ]
}

fn examples() -> Vec<(&'static str, Example)> {
    [hello_examples(), request_examples(), reply_examples(), peer_examples(), conversation()]
        .into_iter()
        .flatten()
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

#[test]
fn every_example_is_encoded_and_decoded_as_the_document_says() {
    let documented = documented();
    let mut by_name: BTreeMap<_, _> = documented.iter().cloned().collect();
    assert_eq!(by_name.len(), documented.len(), "a name is used once");
    for (name, example) in examples() {
        let bytes = by_name.remove(name).unwrap_or_else(|| panic!("no example {name}"));
        assert_eq!(hex(&example.encode()), hex(&bytes), "{name}: {example:?}");
        assert_eq!(example.decode_alike(&bytes), example, "{name}");
    }
    assert!(by_name.is_empty(), "examples that nothing checks: {:?}", by_name.keys());
}

#[test]
fn every_message_type_has_an_example_and_a_row() {
    let examples = documented();
    for kind in Kind::ALL {
        let row = format!("| `0x{:02x}` | `{kind:?}` |", kind as u8);
        assert!(DOCUMENT.contains(&row), "{row}");
        let shown = examples.iter().any(|(_, bytes)| payload_of(bytes)[0] == kind as u8);
        assert!(shown, "no example of {kind:?}");
    }
}

#[test]
fn every_code_has_a_row() {
    for code in FailureCode::ALL {
        let row = format!("| {} | `{code:?}` |", code as u8);
        assert!(DOCUMENT.contains(&row), "{row}");
    }
    for code in RefusedCode::KNOWN {
        let row = format!("| {} | `{code:?}` |", code.to_u8());
        assert!(DOCUMENT.contains(&row), "{row}");
    }
    let refusals = [
        (1, Refusal::NotAnInteger),
        (2, Refusal::Overflow),
        (3, Refusal::UnknownSession),
        (4, Refusal::StaleSequence),
        (5, Refusal::TooLong),
        (6, Refusal::AnswerForgotten),
        (7, Refusal::TransactionTooLarge),
    ];
    for (code, refusal) in refusals {
        let row = format!("| {code} | `{refusal:?}` |");
        assert!(DOCUMENT.contains(&row), "{row}");
        let bytes = written(1, 1, Outcome::Refused(refusal)).encode();
        assert_eq!(payload_of(&bytes).last(), Some(&code));
    }
}

#[test]
fn the_limits_are_those_of_the_code() {
    let default = Limits::default();
    for row in [
        format!("| key | key_bytes_max of `Welcome`; {} bytes by default |", default.key_bytes_max),
        format!(
            "| value, expected value | value_bytes_max of `Welcome`; {} bytes by default |",
            default.value_bytes_max
        ),
        format!("| payload between nodes | the same and {PEER_BATCH_BYTES_MAX} bytes |"),
        format!("| payload before the hello is accepted | {HELLO_BYTES_MAX} bytes |"),
        format!("| payload that is skipped | {SKIP_BYTES_MAX} bytes |"),
        format!("| name in a hello | {NAME_BYTES_MAX} bytes |"),
        format!("| reason of a refusal | {REASON_BYTES_MAX} bytes |"),
        format!("| line of a text command | {INLINE_BYTES_MAX} bytes |"),
        format!("| arguments of a text command | {ARGUMENTS_MAX} |"),
        format!(
            "| arguments of a text command that is skipped | {MULTIBULK_COUNT_MAX}, each up to \
             {SKIP_BYTES_MAX} bytes |"
        ),
        format!("was answered with was longer than {SESSION_VALUE_BYTES_MAX} bytes"),
        format!("of the keys that follow, up to {READ_KEYS_MAX} |"),
        format!("of the watched keys that follow, up to {WATCHED_KEYS_MAX} |"),
        format!("of the steps that follow, up to {STEPS_MAX} |"),
        format!("{HISTORY_CHANGES_MAX} changes, of at most {HISTORY_BYTES_MAX} bytes"),
    ] {
        assert!(DOCUMENT.contains(&row), "{row}");
    }
}

/// The parameters and the check value that the document gives, computed bit by bit as it describes them.
#[test]
fn the_checksum_is_the_one_described() {
    assert!(DOCUMENT.contains("polynomial `1edc6f41`") && DOCUMENT.contains("`82f63b78`"));
    assert!(DOCUMENT.contains("of the nine bytes `123456789` is `e3069283`"));
    let mut described = 0xffff_ffff_u32;
    for byte in b"123456789" {
        described ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = described & 1 == 1;
            described >>= 1;
            if carry {
                described ^= 0x82f6_3b78;
            }
        }
    }
    described ^= 0xffff_ffff;
    assert_eq!(described, 0xe306_9283);
    let mut frame = Vec::new();
    put_frame(&mut frame, |out| out.extend_from_slice(b"123456789"));
    assert_eq!(frame[4..8], described.to_be_bytes());
}
