//! Commands as bytes.

use crate::*;
use raftkv::codec::Malformed;

proptest! {
    #[test]
    fn a_command_is_read_back(
        request in prop::option::of((1u64.., any::<u64>())),
        op in op(),
    ) {
        let request = request.map(|(session, sequence)| RequestId { session, sequence });
        let command = Command::Write { request, op: op.as_write() };
        let bytes = command.to_bytes();
        prop_assert_eq!(Command::decode(&bytes), Ok(command));
        for len in 0..bytes.len() {
            prop_assert!(Command::decode(&bytes[..len]).is_err(), "cut after {len} bytes");
        }
        let longer = [&bytes[..], &[0]].concat();
        prop_assert!(Command::decode(&longer).is_err(), "a byte after the end");
    }

    /// Garbage is an error or a command, never a panic; and a command has one form only, or a
    /// digest of the log would not be one of its meaning.
    #[test]
    fn garbage_is_an_error_or_the_bytes_of_a_command(
        bytes in prop::collection::vec(any::<u8>(), 0..64)
    ) {
        if let Ok(command) = Command::decode(&bytes) {
            prop_assert_eq!(command.to_bytes(), bytes);
        }
    }

    /// The same, nearer to what is valid: one byte of a command is another.
    #[test]
    fn a_command_with_a_changed_byte_is_an_error_or_another_command(
        op in op(),
        at in any::<prop::sample::Index>(),
        by in 1u8..,
    ) {
        let request = Some(RequestId { session: 1, sequence: 1 });
        let command = Command::Write { request, op: op.as_write() };
        let mut bytes = command.to_bytes();
        bytes[at.index(command.to_bytes().len())] ^= by;
        if let Ok(other) = Command::decode(&bytes) {
            prop_assert_ne!(other, command);
            prop_assert_eq!(other.to_bytes(), bytes);
        }
    }
}

#[test]
fn opening_a_session_is_one_byte() {
    assert_eq!(Command::OpenSession.to_bytes(), [0]);
    assert_eq!(Command::decode(&[0]), Ok(Command::OpenSession));
    assert!(Command::decode(&[]).is_err());
}

/// A length that claims more than there is allocates nothing and is an error.
#[test]
fn a_claimed_length_beyond_the_bytes_is_an_error() {
    let mut bytes = Command::Write { request: None, op: put("a", "1") }.to_bytes();
    let key_length = 1;
    bytes[key_length..key_length + 4].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(Command::decode(&bytes).is_err());
}

/// A sequence number means nothing without a session.
#[test]
fn a_sequence_number_without_a_session_is_an_error() {
    let request = Some(RequestId { session: 7, sequence: 1 });
    let mut bytes = Command::Write { request, op: delete("a") }.to_bytes();
    assert!(Command::decode(&bytes).is_ok());
    bytes[1 + 7] = 0;
    assert_eq!(Command::decode(&bytes), Err(Malformed("session: 0 is none")));
    bytes[1 + 8 + 7] = 0;
    assert_eq!(Command::decode(&bytes), Err(Malformed("session: 0 is none")), "nor 0 and 0");
}

/// The first byte says whether there is a session, and nobody pays for one that is not there.
#[test]
fn a_command_without_a_session_is_shorter_by_session_and_sequence() {
    let of = |request| Command::Write { request, op: put("a", "1") }.to_bytes();
    assert_eq!(of(None), b"\x01\0\0\0\x01a\0\0\0\x011");
    let session = [&7u64.to_be_bytes()[..], &9u64.to_be_bytes()].concat();
    let expected = [&[0x41], &session[..], &of(None)[1..]].concat();
    assert_eq!(of(Some(RequestId { session: 7, sequence: 9 })), expected);
}

/// What opens a session is of none.
#[test]
fn opening_a_session_within_a_session_is_an_error() {
    let id = [&7u64.to_be_bytes()[..], &1u64.to_be_bytes()].concat();
    for rest in [&[][..], &id, &[&id[..], &[0; 4]].concat()] {
        assert!(Command::decode(&[&[0x40], rest].concat()).is_err(), "{rest:?}");
    }
}

/// What a node checks against its limits before it proposes.
#[test]
fn an_operation_tells_its_key_and_its_longest_value() {
    assert_eq!((put("k", "12").key_bytes(), put("k", "12").value_bytes()), (1, 2));
    assert_eq!((delete("k").key_bytes(), delete("k").value_bytes()), (1, 0));
    assert_eq!(cas("k", Some("12345"), "1").value_bytes(), 5);
    assert_eq!(cas("k", None, "123").value_bytes(), 3);
    assert_eq!((increment("k", 1).key_bytes(), increment("k", 1).value_bytes()), (1, 0));
}
