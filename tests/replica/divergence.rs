//! A state that is not the one that a majority has is not served any more: it is thrown away, and
//! fetched again.

use crate::common::core::{accepted, accepted_in_round, entries};
use crate::*;
use raftkv::kv::FailureCode;
use raftkv::raft::{Entry, Index, Payload};

/// Where replicas compare, and one entry more.
const POINT: Index = 512;

/// Puts of different values to one key.
fn log(upto: Index) -> Vec<Entry> {
    let command = |index: Index| {
        let value = index.to_string();
        let op = WriteOp::Put { key: b"k", value: value.as_bytes() };
        Command::Write { request: None, op }.to_bytes()
    };
    let mut log = entries(1, &vec![1; upto as usize]);
    for entry in &mut log {
        entry.payload = Payload::Command(command(entry.index).into());
    }
    log
}

#[test]
fn a_follower_that_differs_throws_its_state_away_and_is_whole_once_it_has_it_again() {
    let disk = MemDisk::default();
    let mut replica = follower(&disk);
    hear(&mut replica, append(1, (0, 0), POINT, log(POINT)));
    let messages = turn(&mut replica).messages;
    let reported = messages.iter().find_map(|(_, message)| match message {
        PeerMessage::DigestReport { index, digest } => Some((*index, *digest)),
        _ => None,
    });
    let digest = replica.node().machine().store().digest();
    assert_eq!(reported, Some((POINT, digest)));

    // What somebody who does not lead says means nothing, nor does what agrees.
    let told = |digest| PeerMessage::Diverged { index: POINT, digest };
    replica.inputs().peer_message(3, told(digest ^ 1)).expect("no contradiction");
    replica.inputs().peer_message(2, told(digest)).expect("no contradiction");
    turn(&mut replica);
    assert!(!replica.node().raft().is_damaged());

    replica.inputs().request(7, Request::Get { key: b"k"[..].into() }, Routing::Forward);
    turn(&mut replica);
    replica.inputs().peer_message(2, told(digest ^ 1)).expect("no contradiction");
    let answers = turn(&mut replica).answers;
    let [(7, Answer::Failed(failure))] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(failure.code, FailureCode::NoLeader, "a read was not done: {failure:?}");
    assert!(replica.node().raft().is_damaged(), "it does not vote");
    assert_eq!((replica.node().machine().applied(), replica.wal().snapshots().len()), (0, 0));
    assert!(replica.wal().damaged().is_some_and(|what| what.contains("index 512")));
    turn(&mut replica);

    // A crash in between forgets nothing of that.
    drop(replica);
    let mut replica = open(disk, 3);
    assert!(replica.node().raft().is_damaged());
    let mut entries = log(POINT + 1);
    entries[POINT as usize].term = replica.node().raft().term() + 1;
    let term = entries[POINT as usize].term;
    hear(&mut replica, append(term, (0, 0), POINT + 1, entries));
    turn(&mut replica);
    turn(&mut replica);
    assert_eq!(replica.node().machine().applied(), POINT + 1);
    assert!(!replica.node().raft().is_damaged(), "the leader's own term is committed here");
    assert_eq!(replica.wal().damaged(), None);
}

#[test]
fn a_leader_that_differs_from_its_followers_gives_up_its_office_and_its_state() {
    let mut replica = leader(&MemDisk::default(), 32 << 10);
    for ticket in 0..POINT {
        replica.inputs().request(ticket, put("k", b"v"), Routing::Redirect);
    }
    turn(&mut replica);
    hear(&mut replica, accepted(1, POINT));
    turn(&mut replica);
    assert_eq!(replica.node().machine().applied(), POINT);
    let digest = replica.node().machine().store().digest();
    let report = |digest| PeerMessage::DigestReport { index: POINT, digest };

    // One against one says nothing about who is right.
    replica.inputs().peer_message(2, report(digest ^ 1)).expect("no contradiction");
    turn(&mut replica);
    assert!(replica.node().raft().is_leader());
    // A read and a write that would be answered in the very turn in which it finds out.
    replica.inputs().request(POINT, Request::Get { key: b"k"[..].into() }, Routing::Redirect);
    replica.inputs().request(POINT + 1, put("k", b"v"), Routing::Redirect);
    turn(&mut replica);
    let accepted_in_first_round = accepted_in_round(1, POINT + 1, 1);
    hear(&mut replica, accepted_in_first_round);
    replica.inputs().peer_message(3, report(digest ^ 1)).expect("no contradiction");
    let answers = turn(&mut replica).answers;
    let code = |ticket| {
        let is_it = |(of, _): &&(u64, Answer)| *of == ticket;
        match answers.iter().find(is_it).map(|(_, answer)| answer) {
            Some(Answer::Failed(failure)) => failure.code,
            other => panic!("{ticket} is answered {other:?}"),
        }
    };
    assert_eq!(code(POINT), FailureCode::ShuttingDown, "no value of a state that is wrong");
    assert_eq!(code(POINT + 1), FailureCode::OutcomeUnknown);
    assert!(!replica.node().raft().is_leader());
    assert!(replica.node().raft().is_damaged());
    replica.inputs().request(POINT, Request::Get { key: b"k"[..].into() }, Routing::Redirect);
    let answers = turn(&mut replica).answers;
    assert!(matches!(answers[..], [(POINT, Answer::Failed(_))]), "it serves nothing: {answers:?}");
}

#[test]
fn a_leader_tells_the_one_that_differs() {
    let mut replica = leader(&MemDisk::default(), 32 << 10);
    for ticket in 0..POINT {
        replica.inputs().request(ticket, put("k", b"v"), Routing::Redirect);
    }
    turn(&mut replica);
    hear(&mut replica, accepted(1, POINT));
    turn(&mut replica);
    let digest = replica.node().machine().store().digest();
    for (node, digest) in [(2, digest), (3, digest ^ 1)] {
        let report = PeerMessage::DigestReport { index: POINT, digest };
        replica.inputs().peer_message(node, report).expect("no contradiction");
    }
    let messages = turn(&mut replica).messages;
    assert!(
        messages.contains(&(3, PeerMessage::Diverged { index: POINT, digest })),
        "{messages:?}"
    );
    assert!(!messages.iter().any(|(to, m)| *to == 2 && matches!(m, PeerMessage::Diverged { .. })));
}
