//! Exactly-once execution (Raft thesis 6.3).

use crate::*;
use raftkv::kv::{SESSIONS_MAX, Seen, Sessions};

#[test]
fn a_session_is_named_by_the_index_that_opened_it() {
    let mut machine = Machine::default();
    let noop = Entry { term: 1, index: 1, payload: Payload::Noop };
    assert_eq!(machine.apply(&noop), Ok(None));
    assert_eq!((open(&mut machine), open(&mut machine)), (2, 3));
    assert_eq!((machine.sessions().len(), machine.applied()), (2, 3));
}

/// Thesis 6.3: a retry is answered with the first execution's outcome and index, however often it
/// is in the log.
#[test]
fn a_retry_returns_the_first_outcome_and_index() {
    let mut machine = Machine::default();
    let session = open(&mut machine);
    let first = request(&mut machine, session, 1);
    assert_eq!(first, Executed { index: 2, outcome: Outcome::Counter(1) });
    for _ in 0..3 {
        assert_eq!(request(&mut machine, session, 1), first);
    }
    assert_eq!(get(machine.store(), "n").as_deref(), Some("1"));
    assert_eq!(counter(request(&mut machine, session, 2)), 2);
}

/// Whatever else happened to the key meanwhile.
#[test]
fn a_retry_is_not_affected_by_later_writes() {
    let mut machine = Machine::default();
    let session = open(&mut machine);
    let request = Some(RequestId { session, sequence: 1 });
    let write = Command::Write { request, op: cas("a", None, "mine") };
    let first = apply(&mut machine, write);
    assert_eq!(first.outcome, Outcome::Swapped(true));
    apply(&mut machine, Command::Write { request: None, op: put("a", "other") });
    assert_eq!(apply(&mut machine, write), first);
    assert_eq!(get(machine.store(), "a").as_deref(), Some("other"));
}

/// A refusal by the store is an outcome too: the retry gets the same, though it would succeed by
/// now.
#[test]
fn a_refused_request_stays_refused() {
    let mut machine = Machine::default();
    let session = open(&mut machine);
    apply(&mut machine, Command::Write { request: None, op: put("n", "x") });
    let refused = request(&mut machine, session, 1);
    assert_eq!(refused.outcome, Outcome::Refused(Refusal::NotAnInteger));
    apply(&mut machine, Command::Write { request: None, op: delete("n") });
    assert_eq!(request(&mut machine, session, 1), refused);
    assert_eq!(get(machine.store(), "n"), None);
}

#[test]
fn an_older_request_is_stale() {
    let mut machine = Machine::default();
    let session = open(&mut machine);
    request(&mut machine, session, 5);
    for sequence in [1, 4] {
        let executed = request(&mut machine, session, sequence);
        let expected = Outcome::Refused(Refusal::StaleSequence);
        assert_eq!((executed.outcome, executed.index), (expected, machine.applied()));
    }
    assert_eq!(counter(request(&mut machine, session, 9)), 2, "numbers may be left out");
}

/// Any number may be a session's first.
#[test]
fn a_session_may_begin_with_any_sequence_number() {
    for first in [0, 1, 7, u64::MAX] {
        let mut machine = Machine::default();
        let session = open(&mut machine);
        assert_eq!(counter(request(&mut machine, session, first)), 1, "{first}");
        assert_eq!(counter(request(&mut machine, session, first)), 1, "{first} again");
    }
}

#[test]
fn a_session_that_was_never_opened_is_unknown() {
    let mut machine = Machine::default();
    let session = open(&mut machine);
    let executed = request(&mut machine, session + 1, 1);
    assert_eq!(executed.outcome, Outcome::Refused(Refusal::UnknownSession));
    assert!(machine.store().is_empty());
}

#[test]
fn sessions_do_not_share_sequence_numbers() {
    let mut machine = Machine::default();
    let (a, b) = (open(&mut machine), open(&mut machine));
    assert_eq!(counter(request(&mut machine, a, 1)), 1);
    assert_eq!(counter(request(&mut machine, b, 1)), 2);
    assert_eq!(counter(request(&mut machine, a, 1)), 1);
}

/// Without a session a write is executed as often as it is in the log.
#[test]
fn a_write_without_a_session_is_executed_each_time() {
    let mut machine = Machine::default();
    for expected in 1..=3 {
        let executed = apply(&mut machine, Command::Write { request: None, op: increment("n", 1) });
        assert_eq!(counter(executed), expected);
    }
}

/// When the table is full, opening a session forgets the one that was not used for longest, by log
/// order.
#[test]
fn the_least_recently_used_session_is_forgotten() {
    let mut machine = Machine::default();
    let sessions: Vec<u64> = (0..SESSIONS_MAX).map(|_| open(&mut machine)).collect();
    // All but the second and third are used, the first one last.
    for session in sessions[3..].iter().chain([&sessions[0]]) {
        request(&mut machine, *session, 1);
    }
    let forgotten = |machine: &Machine, session: u64| {
        machine.sessions().seen(RequestId { session, sequence: 1 }) == Seen::UnknownSession
    };
    let mut expected = vec![sessions[1], sessions[2], sessions[3], sessions[4]];
    assert!(!expected.iter().any(|session| forgotten(&machine, *session)));
    while !expected.is_empty() {
        open(&mut machine);
        assert_eq!(machine.sessions().len(), SESSIONS_MAX, "the table is full and stays so");
        assert!(forgotten(&machine, expected.remove(0)), "in the order of their use");
        assert!(!expected.iter().any(|session| forgotten(&machine, *session)), "and no other");
    }
    assert!(!forgotten(&machine, sessions[0]), "used last, though opened first");
    let refused = request(&mut machine, sessions[1], 1);
    assert_eq!(refused.outcome, Outcome::Refused(Refusal::UnknownSession), "certainly not done");
}

#[test]
fn a_full_table_forgets_nobody_without_need() {
    let mut sessions = Sessions::default();
    assert!(sessions.is_empty());
    for index in 1..=SESSIONS_MAX as Index {
        sessions.open(index);
    }
    let seen = |sessions: &Sessions, session| sessions.seen(RequestId { session, sequence: 0 });
    assert_eq!(seen(&sessions, 1), Seen::New);
    sessions.open(SESSIONS_MAX as Index + 1);
    assert_eq!((seen(&sessions, 1), seen(&sessions, 2)), (Seen::UnknownSession, Seen::New));
}

/// The table of sessions stays small, so a long value is not in it; whoever retries learns that it was
/// done.
#[test]
fn a_retry_gets_the_value_from_before_only_if_it_is_short() {
    let mut machine = Machine::default();
    let session = open(&mut machine);
    for (sequence, length) in [(1, SESSION_VALUE_BYTES_MAX), (2, SESSION_VALUE_BYTES_MAX + 1)] {
        let value = "v".repeat(length);
        apply(&mut machine, Command::Write { request: None, op: put("k", &value) });
        let request = Some(RequestId { session, sequence });
        let op = WriteOp::Remove { key: b"k", expected: None, get: true };
        let first = apply(&mut machine, Command::Write { request, op });
        let old = Some(value.as_bytes().into());
        assert_eq!(first.outcome, Outcome::Changed { done: true, old });
        let again = apply(&mut machine, Command::Write { request, op });
        let is_short = length <= SESSION_VALUE_BYTES_MAX;
        let forgotten = Outcome::Refused(Refusal::AnswerForgotten);
        assert_eq!(again.outcome, if is_short { first.outcome } else { forgotten });
        assert_eq!(again.index, first.index);
    }
}
