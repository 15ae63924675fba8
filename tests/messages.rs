//! What is encoded is decoded to the same, nothing else is decoded at all, and a hello is judged rightly.

use proptest::collection::vec;
use proptest::prelude::*;
use raftkv::kv::{
    Answer, BackupPart, BackupRequest, Blobs, Change, Command, Condition, Failure, FailureCode,
    Found, Key, LeaderHint, Outcome, Range, ReadOp, Refusal, Request, RequestId, Value, WriteOp,
};
use raftkv::node::{Applicant, PeerMessage, Standing};
use raftkv::ordered::Few;
use raftkv::protocol::changes::Streamed;
use raftkv::protocol::client::{
    BadRequest, ReplyBody, ReplyFrame, RequestBody, RequestFrame, request_id,
};
use raftkv::protocol::hello::{
    HELLO_BYTES_MAX, Hello, HelloReply, Identity, NAME_BYTES_MAX, Refused, RefusedCode, Role,
    VERSION_MAX, VERSION_MIN, Welcome, judge, judge_welcome,
};
use raftkv::protocol::peer::{self, NUMBER_MAX};
use raftkv::protocol::{Kind, Limits, client_frame_bytes_max, peer_frame_bytes_max};
use raftkv::raft::{AppendOutcome, Entry, Member, Membership, Message, Payload, node_id};
use std::rc::Rc;

// ---------------------------------------------------------------- arbitrary values

fn bytes(up_to: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..up_to)
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9ñ.-]{0,40}"
}

/// An encoded command of any kind.
fn command() -> impl Strategy<Value = Vec<u8>> {
    let request = proptest::option::of((1..=u64::MAX, any::<u64>()));
    (0..10u8, request, bytes(20), proptest::option::of(bytes(40)), bytes(40), any::<i64>())
        .prop_map(|(kind, request, key, expected, value, delta)| {
            let request = request.map(|(session, sequence)| RequestId { session, sequence });
            let (key, value) = (key.as_slice(), value.as_slice());
            let many;
            let op = match kind {
                0 => return Command::OpenSession.to_bytes(),
                1 => WriteOp::Put { key, value },
                2 => WriteOp::Delete { key },
                3 => WriteOp::CompareAndSet { key, expected: expected.as_deref(), value },
                4 => WriteOp::Increment { key, delta },
                5 => {
                    let condition = match expected.as_deref() {
                        Some(expected) => Condition::Equals(expected),
                        None if delta < 0 => Condition::Absent,
                        None => Condition::Present,
                    };
                    WriteOp::Set { key, value, condition, get: delta % 2 == 0 }
                }
                6 => WriteOp::Remove { key, expected: expected.as_deref(), get: delta < 0 },
                7 => {
                    many = Blobs::to_bytes([key, value, value, key]);
                    WriteOp::PutMany { pairs: Blobs::new(&many).unwrap() }
                }
                8 => {
                    many = Blobs::to_bytes([key, value, key]);
                    WriteOp::DeleteMany { keys: Blobs::new(&many).unwrap() }
                }
                _ => WriteOp::Append { key, value, bytes_max: delta as u32 },
            };
            Command::Write { request, op }.to_bytes()
        })
}

fn held() -> impl Strategy<Value = Value> {
    keyed().prop_map(Value::from)
}

fn keyed() -> impl Strategy<Value = Rc<[u8]>> {
    bytes(20).prop_map(Into::into)
}

fn range() -> impl Strategy<Value = Range> {
    let bounds = (keyed(), proptest::option::of(keyed()), proptest::option::of(keyed()));
    (bounds, any::<(bool, bool, bool, u32)>()).prop_map(
        |((start, end, pattern), (reverse, with_values, partial, keys_max))| Range {
            start,
            end,
            reverse,
            pattern,
            with_values,
            keys_max,
            // Where to go on is only known of one direction.
            partial: partial && !reverse,
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        bytes(40).prop_map(|key| Request::Get { key: key.into() }),
        command().prop_map(|command| Request::Write { command: command.into() }),
        Just(Request::Digest),
        vec(keyed(), 0..4).prop_map(|keys| Request::Read(ReadOp::Values(keys))),
        vec(keyed(), 0..4).prop_map(|keys| Request::Read(ReadOp::Lengths(keys))),
        range().prop_map(|range| Request::Read(ReadOp::Range(range))),
        Just(Request::Read(ReadOp::RandomKey)),
        Just(Request::Backup(BackupRequest::Begin)),
        any::<u64>().prop_map(|index| Request::Backup(BackupRequest::Find { index })),
        any::<(u64, u64, u64)>().prop_map(|(index, term, offset)| Request::Backup(
            BackupRequest::Piece { index, term, offset }
        )),
    ]
}

fn backup_part() -> impl Strategy<Value = BackupPart> {
    prop_oneof![
        Just(BackupPart::Begun),
        Just(BackupPart::NotYet),
        any::<(u64, u64)>().prop_map(|(term, bytes)| BackupPart::Found { term, bytes }),
        keyed().prop_map(BackupPart::Piece),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Put),
        any::<bool>().prop_map(Outcome::Deleted),
        any::<bool>().prop_map(Outcome::Swapped),
        any::<i64>().prop_map(Outcome::Counter),
        (any::<bool>(), proptest::option::of(held()))
            .prop_map(|(done, old)| Outcome::Changed { done, old }),
        any::<u64>().prop_map(|session| Outcome::SessionOpened { session }),
        prop_oneof![
            Just(Refusal::NotAnInteger),
            Just(Refusal::Overflow),
            Just(Refusal::UnknownSession),
            Just(Refusal::StaleSequence),
            Just(Refusal::TooLong),
            Just(Refusal::AnswerForgotten)
        ]
        .prop_map(Outcome::Refused),
    ]
}

fn found() -> impl Strategy<Value = Found> {
    prop_oneof![
        vec(proptest::option::of(held()), 0..4).prop_map(Found::Values),
        vec(proptest::option::of(any::<u32>()), 0..4).prop_map(Found::Lengths),
        (vec(held(), 0..4), proptest::option::of(keyed()))
            .prop_map(|(items, next)| Found::Keys { items, next }),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let leader = proptest::option::of((any::<u64>(), ".{0,30}"));
    prop_oneof![
        (proptest::option::of(bytes(60)), any::<u64>(), any::<u64>()).prop_map(
            |(value, index, leader)| Answer::Value { value: value.map(Into::into), index, leader }
        ),
        (found(), any::<u64>(), any::<u64>()).prop_map(|(found, index, leader)| Answer::Found {
            found,
            index,
            leader
        }),
        (outcome(), any::<u64>(), any::<u64>())
            .prop_map(|(outcome, index, leader)| Answer::Written { outcome, index, leader }),
        any::<(u64, u64, u64, u64)>().prop_map(|(digest, keys, index, leader)| Answer::Digest {
            digest,
            keys,
            index,
            leader
        }),
        (backup_part(), any::<u64>(), any::<u64>())
            .prop_map(|(part, index, leader)| Answer::Backup { part, index, leader }),
        (proptest::sample::select(FailureCode::ALL.to_vec()), ".{0,60}", leader).prop_map(
            |(code, message, leader)| Answer::Failed(Failure {
                code,
                message,
                leader: leader.map(|(id, address)| LeaderHint { id, address }),
            })
        ),
    ]
}

/// Index and term of a log entry as seen in `term`.
fn position(term: u64) -> impl Strategy<Value = (u64, u64)> {
    prop_oneof![Just((0, 0)), (1..NUMBER_MAX - 100, 1..=term)]
}

fn append_entries() -> impl Strategy<Value = Message> {
    let numbers = (1..NUMBER_MAX, 0..NUMBER_MAX, 0..NUMBER_MAX);
    numbers.prop_flat_map(|(term, leader_commit, round)| {
        position(term).prop_flat_map(move |(prev_log_index, prev_log_term)| {
            let entry = (prev_log_term.max(1)..=term, proptest::option::of(bytes(40)));
            vec(entry, 0..6).prop_map(move |entries| Message::AppendEntries {
                term,
                prev_log_index,
                prev_log_term,
                leader_commit,
                round,
                entries: log_after(prev_log_index, entries),
            })
        })
    })
}

/// Entries in the order of their terms, as they are in every log.
fn log_after(prev_log_index: u64, mut entries: Vec<(u64, Option<Vec<u8>>)>) -> Vec<Entry> {
    entries.sort_by_key(|(term, _)| *term);
    let indexes = prev_log_index + 1..;
    let numbered = entries.into_iter().zip(indexes);
    numbered
        .map(|((term, command), index)| {
            let payload = command.map_or(Payload::Noop, |bytes| Payload::Command(bytes.into()));
            Entry { term, index, payload }
        })
        .collect()
}

fn snapshot_message() -> impl Strategy<Value = Message> {
    let data = prop::collection::vec(any::<u8>(), 0..50);
    (1..NUMBER_MAX, 1..NUMBER_MAX, 0..NUMBER_MAX - 50, data, any::<bool>(), any::<bool>()).prop_map(
        |(term, last_included_index, offset, data, done, is_reply)| {
            let last_included_term = term.min(7);
            if is_reply {
                let term = term.max(last_included_term);
                return Message::SnapshotReply {
                    term,
                    last_included_index,
                    last_included_term,
                    offset,
                };
            }
            let data = data.into();
            Message::InstallSnapshot {
                term,
                last_included_index,
                last_included_term,
                offset,
                data,
                done,
            }
        },
    )
}

fn raft_message() -> impl Strategy<Value = Message> {
    let ballot = || (1..NUMBER_MAX).prop_flat_map(|term| (Just(term), position(term)));
    let outcome = prop_oneof![
        (0..NUMBER_MAX).prop_map(|match_index| AppendOutcome::Accepted { match_index }),
        (0..NUMBER_MAX, 0..NUMBER_MAX, 0..NUMBER_MAX, any::<bool>()).prop_map(
            |(prev_log_index, hint_index, hint_term, lost_entries)| AppendOutcome::Rejected {
                prev_log_index,
                hint_index,
                hint_term,
                lost_entries
            }
        ),
    ];
    prop_oneof![
        ballot().prop_map(|(term, (last_log_index, last_log_term))| {
            Message::RequestPreVote { term, last_log_index, last_log_term }
        }),
        ballot().prop_map(|(term, (last_log_index, last_log_term))| {
            Message::RequestVote { term, last_log_index, last_log_term, by_leader: term % 2 == 0 }
        }),
        (1..NUMBER_MAX).prop_map(|term| Message::TimeoutNow { term }),
        (1..NUMBER_MAX, any::<bool>())
            .prop_map(|(term, granted)| Message::PreVoteReply { term, granted }),
        (1..NUMBER_MAX, any::<bool>())
            .prop_map(|(term, granted)| Message::VoteReply { term, granted }),
        append_entries(),
        (1..NUMBER_MAX, 0..NUMBER_MAX, outcome)
            .prop_map(|(term, round, outcome)| Message::AppendReply { term, round, outcome }),
        snapshot_message(),
    ]
}

fn peer_message() -> impl Strategy<Value = PeerMessage> {
    prop_oneof![
        raft_message().prop_map(PeerMessage::Raft),
        (any::<u64>(), request()).prop_map(|(id, request)| PeerMessage::Forward { id, request }),
        (any::<u64>(), answer()).prop_map(|(id, answer)| PeerMessage::ForwardReply { id, answer }),
        membership().prop_map(|membership| PeerMessage::Found(membership.into())),
        (any::<u64>(), name(), name())
            .prop_map(|(id, name, address)| PeerMessage::Applies(Applicant { id, name, address })),
    ]
}

fn membership() -> impl Strategy<Value = Membership> {
    let member = (name(), name(), any::<bool>()).prop_map(|(name, address, is_voter)| Member {
        name,
        address,
        is_voter,
    });
    let members = prop::collection::btree_map(any::<u64>(), member, 0..4);
    (any::<u64>(), members, vec(any::<u64>(), 0..4)).prop_map(|(cluster_id, members, removed)| {
        Membership { cluster_id, members: members.into_iter().collect(), removed: removed.into() }
    })
}

fn standing() -> impl Strategy<Value = Standing> {
    prop_oneof![
        Just(Standing::Empty),
        Just(Standing::Contacted),
        Just(Standing::Lost),
        (1..=u64::MAX).prop_map(|cluster_id| Standing::Member { cluster_id }),
    ]
}

fn request_frame() -> impl Strategy<Value = RequestFrame> {
    let changes = (vec(any::<u8>(), 0..10), proptest::option::of(any::<u64>()))
        .prop_map(|(prefix, from)| RequestBody::Changes { prefix, from });
    let ask = request().prop_map(RequestBody::Ask);
    let body = prop_oneof![ask, Just(RequestBody::Status), changes];
    (any::<u64>(), body).prop_map(|(id, body)| RequestFrame { id, body })
}

fn streamed() -> impl Strategy<Value = Streamed> {
    let blob = || vec(any::<u8>(), 0..10).prop_map(Rc::from);
    let change = prop_oneof![
        (blob(), blob()).prop_map(|(key, value)| Change::Set { key: Key::from(&*key), value }),
        blob().prop_map(|key| Change::Deleted { key: Key::from(&*key) }),
        Just(Change::Flushed),
    ];
    let changes = (any::<u64>(), vec(change, 0..5), any::<bool>())
        .prop_map(|(index, changes, more)| Streamed::Changes { index, changes, more });
    prop_oneof![
        any::<u64>().prop_map(|from| Streamed::Begun { from }),
        any::<u64>().prop_map(|index| Streamed::Progress { index }),
        changes,
    ]
}

fn reply_frame() -> impl Strategy<Value = ReplyFrame> {
    let body = prop_oneof![
        answer().prop_map(ReplyBody::Answer),
        vec((".{0,10}", ".{0,10}"), 0..5).prop_map(ReplyBody::Status),
        streamed().prop_map(ReplyBody::Changes),
    ];
    (any::<u64>(), body).prop_map(|(id, body)| ReplyFrame { id, body })
}

fn limits() -> impl Strategy<Value = Limits> {
    (any::<u32>(), any::<u32>())
        .prop_map(|(key_bytes_max, value_bytes_max)| Limits { key_bytes_max, value_bytes_max })
}

fn hello() -> impl Strategy<Value = Hello> {
    let role = prop_oneof![
        (any::<u64>(), any::<u64>(), name(), standing(), name(), limits()).prop_map(
            |(node, incarnation, name, standing, address, limits)| Role::Peer {
                node,
                incarnation,
                name,
                standing,
                address,
                limits: Some(limits)
            }
        ),
        name().prop_map(|name| Role::Client { name }),
    ];
    (any::<u16>(), any::<u16>(), any::<u64>(), role).prop_map(|(a, b, cluster_id, role)| Hello {
        version_min: a.min(b),
        version_max: a.max(b),
        cluster_id,
        role,
    })
}

fn hello_reply() -> impl Strategy<Value = HelloReply> {
    prop_oneof![
        (
            any::<u16>(),
            any::<(u64, u64, u64)>(),
            name(),
            any::<(u32, u32, u32)>(),
            standing(),
            name()
        )
            .prop_map(
                |(
                    version,
                    (cluster_id, node, incarnation),
                    name,
                    (frame, key, value),
                    standing,
                    address,
                )| {
                    HelloReply::Welcome(Welcome {
                        version,
                        cluster_id,
                        node,
                        incarnation,
                        name,
                        frame_bytes_max: frame,
                        key_bytes_max: key,
                        value_bytes_max: value,
                        standing,
                        address,
                    })
                }
            ),
        (any::<u8>(), ".{0,60}").prop_map(|(code, reason)| HelloReply::Refused(Refused {
            code: RefusedCode::from_u8(code),
            reason
        })),
    ]
}

fn payload_of(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut payload = Vec::new();
    encode(&mut payload);
    payload
}

// ---------------------------------------------------------------- messages

proptest! {
    #[test]
    fn every_message_survives_the_round_trip(
        message in peer_message(),
        request in request_frame(),
        reply in reply_frame(),
        hello in hello(),
        hello_reply in hello_reply(),
    ) {
        let payload = payload_of(|out| peer::encode(&message, out));
        prop_assert_eq!(peer::decode(&payload), Ok(message));
        let payload = payload_of(|out| request.encode(out));
        prop_assert_eq!(RequestFrame::decode(&payload), Ok(request));
        let payload = payload_of(|out| reply.encode(out));
        prop_assert_eq!(ReplyFrame::decode(&payload), Ok(reply));
        let payload = payload_of(|out| hello.encode(out));
        prop_assert_eq!(Hello::decode(&payload), Ok(hello));
        let payload = payload_of(|out| hello_reply.encode(out));
        prop_assert_eq!(HelloReply::decode(&payload), Ok(hello_reply));
    }

    #[test]
    fn a_message_cut_short_or_with_a_tail_is_malformed(
        message in peer_message(),
        request in request_frame(),
        reply in reply_frame(),
    ) {
        let payload = payload_of(|out| peer::encode(&message, out));
        for end in 0..payload.len() {
            prop_assert!(peer::decode(&payload[..end]).is_err(), "{end} of {}", payload.len());
        }
        prop_assert!(peer::decode(&[payload, vec![0]].concat()).is_err());

        let payload = payload_of(|out| request.encode(out));
        for end in 0..payload.len() {
            let BadRequest { id, .. } = RequestFrame::decode(&payload[..end]).unwrap_err();
            prop_assert_eq!(id, (end >= 9).then_some(request.id), "the answer needs the id");
        }
        prop_assert!(RequestFrame::decode(&[payload, vec![0]].concat()).is_err());

        let payload = payload_of(|out| reply.encode(out));
        for end in 0..payload.len() {
            prop_assert!(ReplyFrame::decode(&payload[..end]).is_err());
        }
        prop_assert!(ReplyFrame::decode(&[payload, vec![0]].concat()).is_err());
    }

    #[test]
    fn garbage_is_never_more_than_an_error(kind in any::<u8>(), tail in bytes(200)) {
        for first in Kind::ALL.map(|kind| kind as u8).into_iter().chain([kind]) {
            let payload = [&[first], tail.as_slice()].concat();
            let _ = peer::decode(&payload);
            let _ = RequestFrame::decode(&payload);
            let _ = ReplyFrame::decode(&payload);
            let _ = Hello::decode(&payload);
            let _ = HelloReply::decode(&payload);
            let _ = request_id(&payload);
        }
    }

    #[test]
    fn a_later_version_may_add_fields_to_the_hello(hello in hello(), reply in hello_reply(), new in bytes(9)) {
        let payload = [payload_of(|out| hello.encode(out)), new.clone()].concat();
        prop_assert_eq!(Hello::decode(&payload), Ok(hello));
        let payload = [payload_of(|out| reply.encode(out)), new].concat();
        prop_assert_eq!(HelloReply::decode(&payload), Ok(reply));
    }
}

fn ballot(term: u64, last_log_index: u64, last_log_term: u64) -> Message {
    Message::RequestVote { term, last_log_index, last_log_term, by_leader: false }
}

fn entry(term: u64, index: u64) -> Entry {
    Entry { term, index, payload: Payload::Noop }
}

fn append(term: u64, prev: (u64, u64), entries: Vec<Entry>) -> Message {
    Message::AppendEntries {
        term,
        prev_log_index: prev.0,
        prev_log_term: prev.1,
        leader_commit: 0,
        round: 0,
        entries,
    }
}

fn decoded(message: Message) -> Result<PeerMessage, String> {
    let payload = payload_of(|out| peer::encode(&PeerMessage::Raft(message), out));
    peer::decode(&payload).map_err(|malformed| malformed.0.to_owned())
}

#[test]
fn messages_that_make_no_sense_to_raft_are_malformed() {
    let last = NUMBER_MAX;
    for (nonsense, named) in [
        (ballot(0, 0, 0), "term"),
        (ballot(last + 1, 0, 0), "term"),
        (ballot(3, 0, 1), "last log entry"),
        (ballot(3, 1, 0), "last log entry"),
        (ballot(3, 1, 4), "last log entry"),
        (ballot(3, last + 1, 1), "last log entry"),
        (Message::VoteReply { term: 0, granted: false }, "term"),
        (Message::PreVoteReply { term: 0, granted: true }, "term"),
        (append(3, (0, 0), vec![entry(0, 1)]), "term of an entry"),
        (append(3, (0, 0), vec![entry(4, 1)]), "term of an entry"),
        (append(3, (0, 0), vec![entry(3, 1), entry(2, 2)]), "term of an entry"),
        (append(3, (7, 2), vec![entry(1, 8)]), "term of an entry"),
        (append(3, (last, 2), vec![entry(3, last + 1)]), "index of an entry"),
    ] {
        let error = decoded(nonsense.clone()).expect_err(&format!("{nonsense:?}"));
        assert!(error.starts_with(named), "{nonsense:?}: {error}");
    }
}

#[test]
fn messages_at_the_edge_of_sense_are_taken() {
    for message in [
        Message::PreVoteReply { term: 0, granted: false },
        ballot(1, 0, 0),
        ballot(NUMBER_MAX, NUMBER_MAX, NUMBER_MAX),
        append(3, (0, 0), vec![entry(1, 1), entry(1, 2), entry(3, 3)]),
        append(3, (NUMBER_MAX - 1, 3), vec![entry(3, NUMBER_MAX)]),
        append(3, (NUMBER_MAX, 3), vec![]),
    ] {
        assert_eq!(decoded(message.clone()), Ok(PeerMessage::Raft(message)));
    }
}

/// The count claims four billion entries, the frame holds two.
#[test]
fn a_count_of_entries_beyond_the_bytes_is_refused_before_anything_is_reserved() {
    let message = PeerMessage::Raft(append(3, (0, 0), vec![entry(1, 1), entry(2, 2)]));
    let mut payload = payload_of(|out| peer::encode(&message, out));
    let count = 1 + 5 * 8..1 + 5 * 8 + 4;
    assert_eq!(payload[count.clone()], [0, 0, 0, 2]);
    payload[count].copy_from_slice(&u32::MAX.to_be_bytes());
    let error = peer::decode(&payload).unwrap_err();
    assert_eq!(error.0, "number of entries: more than there are bytes");
}

// ---------------------------------------------------------------- hello

const CLUSTER: u64 = 0xc1;

/// The cluster that was founded.
const FOUNDED: Standing = Standing::Member { cluster_id: 77 };

/// What raft-0 knows: the names of two others, and that incarnation 9 of raft-1 was removed.
struct Known {
    peers: Few<u64, String>,
    membership: Membership,
}

fn known() -> Known {
    let members = [node_id(0, 10), node_id(1, 11), node_id(2, 22)];
    let mut membership = Membership { cluster_id: 77, ..Membership::of_voters(members) };
    membership.removed.push_back(node_id(1, 9));
    Known { peers: [1, 2].map(|node| (node, format!("raft-{node}"))).into(), membership }
}

fn us(known: &Known) -> Identity<'_> {
    Identity {
        cluster_id: CLUSTER,
        node: 0,
        incarnation: 10,
        name: "raft-0",
        standing: FOUNDED,
        membership: &known.membership,
        committed: &known.membership,
        peers: &known.peers,
    }
}

fn peer_hello(node: u64, incarnation: u64, name: &str) -> Hello {
    peer_hello_of(node, incarnation, name, FOUNDED)
}

fn peer_hello_of(node: u64, incarnation: u64, name: &str, standing: Standing) -> Hello {
    let (name, address) = (name.to_owned(), format!("{name}:6000"));
    Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        cluster_id: CLUSTER,
        role: Role::Peer { node, incarnation, name, standing, address, limits: None },
    }
}

fn client_hello(cluster_id: u64) -> Hello {
    let role = Role::Client { name: "cltraft".to_owned() };
    Hello { version_min: VERSION_MIN, version_max: VERSION_MAX, cluster_id, role }
}

#[test]
fn hellos_that_fit_are_accepted() {
    let peers = known();
    for hello in [
        client_hello(0),
        client_hello(CLUSTER),
        peer_hello(1, 11, "raft-1"),
        peer_hello(2, 777, "raft-2"),
        peer_hello_of(1, 5, "raft-1", Standing::Empty),
        peer_hello_of(7, 5, "raft-7", Standing::Empty),
        peer_hello_of(1, 11, "raft-1", Standing::Lost),
        peer_hello_of(1, 5, "raft-1", Standing::Contacted),
        Hello { version_max: VERSION_MAX + 7, ..client_hello(0) },
        Hello { version_min: 0, ..client_hello(0) },
    ] {
        assert_eq!(judge(&hello, &us(&peers)), Ok(VERSION_MAX), "{hello:?}");
    }
}

/// Its removal may be truncated yet, and it may be needed until it is committed.
#[test]
fn nobody_is_refused_for_a_removal_that_is_not_committed() {
    let peers = known();
    let mut committed = peers.membership.clone();
    committed.removed.clear();
    let hello = peer_hello(1, 9, "raft-1");
    let before = Identity { committed: &committed, ..us(&peers) };
    assert_eq!(judge(&hello, &before), Ok(VERSION_MAX));
    assert!(judge(&hello, &us(&peers)).is_err());
}

#[test]
fn hellos_that_do_not_fit_are_refused_with_the_reason() {
    let peers = known();
    let too_new = VERSION_MAX + 1;
    for (hello, code, says) in [
        (
            Hello { version_min: too_new, version_max: too_new, ..client_hello(0) },
            RefusedCode::Version,
            "bring the older side up to date",
        ),
        (
            Hello { version_min: 0, version_max: 0, ..client_hello(0) },
            RefusedCode::Version,
            "0 to 0",
        ),
        (client_hello(CLUSTER + 1), RefusedCode::Cluster, "00000000000000c2"),
        (
            Hello { cluster_id: 0, ..peer_hello(1, 11, "raft-1") },
            RefusedCode::Cluster,
            "not 0000000000000000",
        ),
        (
            peer_hello_of(3, 1, "raft-3", Standing::Lost),
            RefusedCode::UnknownNode,
            "with an empty folder it can come in anew",
        ),
        (peer_hello(1, 9, "raft-1"), RefusedCode::Removed, "was removed from the cluster"),
        (
            peer_hello_of(1, 11, "raft-1", Standing::Member { cluster_id: 78 }),
            RefusedCode::Cluster,
            "holds data of the cluster founded as 000000000000004e",
        ),
        (peer_hello(1 << 16, 1, "raft-65536"), RefusedCode::WrongNode, "above 65535"),
        (peer_hello(0, 10, "raft-0"), RefusedCode::WrongNode, "dialled itself"),
        (peer_hello(0, 99, "raft-0"), RefusedCode::WrongNode, "two nodes run under one name"),
        (peer_hello(1, 11, "other-1"), RefusedCode::WrongNode, "not other-1"),
    ] {
        let refused = judge(&hello, &us(&peers)).expect_err(&format!("{hello:?}"));
        assert_eq!(refused.code, code, "{hello:?}");
        assert!(refused.reason.contains(says), "{}", refused.reason);
    }
}

#[test]
fn the_dialer_notices_whom_it_reached() {
    let peers = known();
    let welcome = |node, incarnation, name: &str| Welcome {
        version: VERSION_MAX,
        cluster_id: CLUSTER,
        node,
        incarnation,
        name: name.to_owned(),
        frame_bytes_max: 1,
        key_bytes_max: 1,
        value_bytes_max: 1,
        standing: FOUNDED,
        address: format!("{name}:6000"),
    };
    let right = welcome(1, 11, "raft-1");
    assert_eq!(judge_welcome(&right, &us(&peers), 1), Ok(()));
    for (wrong, code) in [
        (welcome(2, 22, "raft-2"), RefusedCode::WrongNode),
        (welcome(0, 10, "raft-0"), RefusedCode::WrongNode),
        (welcome(1, 9, "raft-1"), RefusedCode::Removed),
        (Welcome { cluster_id: 5, ..right.clone() }, RefusedCode::Cluster),
        (Welcome { version: VERSION_MAX + 1, ..right.clone() }, RefusedCode::Version),
    ] {
        let refused = judge_welcome(&wrong, &us(&peers), 1).expect_err("another node");
        assert_eq!(refused.code, code, "{refused}");
    }
}

/// Names and reasons may come from anywhere; the frame limit of the hello holds all the same.
#[test]
fn long_names_and_reasons_are_cut_at_a_character() {
    let long = "ñ".repeat(2000);
    let payload = payload_of(|out| peer_hello(1, 1, &long).encode(out));
    assert!(payload.len() <= HELLO_BYTES_MAX);
    let Role::Peer { name, .. } = Hello::decode(&payload).unwrap().role else {
        panic!("the role of a peer");
    };
    assert_eq!(name, "ñ".repeat(NAME_BYTES_MAX / 2));

    let refused = HelloReply::Refused(Refused { code: RefusedCode::Busy, reason: long });
    let payload = payload_of(|out| refused.encode(out));
    assert!(payload.len() <= HELLO_BYTES_MAX);
    assert!(HelloReply::decode(&payload).is_ok());
}

#[test]
fn a_name_that_would_forge_a_line_of_the_log_is_malformed() {
    let payload = payload_of(|out| peer_hello(1, 1, "raft-1\nall is well").encode(out));
    assert_eq!(Hello::decode(&payload).unwrap_err().0, "name");
}

// ---------------------------------------------------------------- limits

fn write(op: WriteOp<'_>) -> Request {
    let request = Some(RequestId { session: u64::MAX, sequence: u64::MAX });
    Request::Write { command: Command::Write { request, op }.to_bytes().into() }
}

#[test]
fn the_longest_request_fits_the_frames_and_a_longer_one_is_too_large() {
    let limits = Limits { key_bytes_max: 30, value_bytes_max: 50_000 };
    let swap = |key: usize, expected: usize, value: usize| {
        let (key, expected, value) = (vec![1; key], vec![2; expected], vec![3; value]);
        let expected = Some(expected.as_slice());
        write(WriteOp::CompareAndSet { key: &key, expected, value: &value })
    };
    let longest = swap(30, 50_000, 50_000);
    assert_eq!(limits.check(&longest), Ok(()));
    let body = RequestBody::Ask(longest.clone());
    let payload = payload_of(|out| RequestFrame { id: u64::MAX, body }.encode(out));
    assert!(payload.len() <= client_frame_bytes_max(&limits));
    let forward = PeerMessage::Forward { id: u64::MAX, request: longest };
    let payload = payload_of(|out| peer::encode(&forward, out));
    assert!(payload.len() <= peer_frame_bytes_max(&limits));

    for (request, what) in [
        (swap(31, 1, 1), "key of 31 bytes"),
        (swap(1, 50_001, 1), "value of 50001 bytes"),
        (swap(1, 1, 50_001), "value of 50001 bytes"),
        (Request::Get { key: vec![0; 31].into() }, "key of 31 bytes"),
    ] {
        let failure = limits.check(&request).unwrap_err();
        assert_eq!(failure.code, FailureCode::TooLarge);
        assert!(failure.message.starts_with(what), "{}", failure.message);
    }
}

/// A node for tests may have limits of a few bytes; what it says of itself does not shrink with them.
#[test]
fn a_status_fits_a_frame_however_small_the_limits_are() {
    let limits = Limits { key_bytes_max: 1, value_bytes_max: 1 };
    let fields = (0..100).map(|i| (format!("field_number_{i}"), "x".repeat(100))).collect();
    let payload =
        payload_of(|out| ReplyFrame { id: 1, body: ReplyBody::Status(fields) }.encode(out));
    assert!(payload.len() <= client_frame_bytes_max(&limits));
}

/// A leader fills a batch until it is full, so the last entry may be the longest there is.
#[test]
fn a_full_batch_and_one_longest_entry_fit_a_frame_between_nodes() {
    let limits = Limits::default();
    let longest = client_frame_bytes_max(&limits) - 1024 + 60;
    let mut entries = Vec::new();
    let mut cost = 0;
    while cost < raftkv::protocol::PEER_BATCH_BYTES_MAX {
        let last = cost + Entry::OVERHEAD_BYTES + 1 >= raftkv::protocol::PEER_BATCH_BYTES_MAX;
        let command = vec![7; if last { longest } else { 1 }];
        let index = entries.len() as u64 + 1;
        let entry = Entry { term: 1, index, payload: Payload::Command(command.into()) };
        cost += entry.cost_bytes();
        entries.push(entry);
    }
    let message = PeerMessage::Raft(append(1, (0, 0), entries));
    let payload = payload_of(|out| peer::encode(&message, out));
    assert!(payload.len() <= peer_frame_bytes_max(&limits));
}

/// Each command of its own would be an allocation for each entry.
#[test]
fn the_commands_of_a_message_are_parts_of_one_block() {
    let commands = [&b"first"[..], b"", b"third"];
    let of = |command: &[u8]| Payload::Command(command.into());
    let sent: Vec<Entry> = (1..)
        .zip(commands)
        .map(|(index, bytes)| Entry { term: 1, index, payload: of(bytes) })
        .collect();
    let message = PeerMessage::Raft(append(1, (0, 0), sent.clone()));
    let payload = payload_of(|out| peer::encode(&message, out));
    let Ok(PeerMessage::Raft(Message::AppendEntries { entries, .. })) = peer::decode(&payload)
    else {
        panic!("what was encoded can be decoded")
    };
    assert_eq!(entries, sent);
    let places = |entries: &[Entry]| -> Vec<usize> {
        let place = |entry: &Entry| match &entry.payload {
            Payload::Command(bytes) => bytes.as_ptr().addr(),
            _ => unreachable!("commands were sent"),
        };
        entries.iter().map(place).collect()
    };
    // Between two commands are the term, the length and the kind of the later one.
    const HEAD_BYTES: usize = 13;
    let places = places(&entries);
    assert_eq!([places[1] - places[0], places[2] - places[1]], [5 + HEAD_BYTES, HEAD_BYTES]);
}

#[test]
fn limits_that_no_frame_can_hold_are_refused_at_the_start() {
    assert_eq!(Limits::default().validate(), Ok(()));
    let huge = Limits { key_bytes_max: 10, value_bytes_max: u32::MAX };
    assert!(huge.validate().unwrap_err().contains("lower the limit of values"));
}

#[test]
fn a_refusal_stays_one_line_in_a_log() {
    let refused =
        Refused { code: RefusedCode::Busy, reason: "full\nall is well\x1b[2J".to_string() };
    assert_eq!(refused.to_string(), "Busy: full all is well [2J");
}
