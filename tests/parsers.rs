//! The parsers of `protocol` against what a network can do to them: garbage, halves, slow bytes, lengths
//! that lie, flipped bits.

mod streams;

use proptest::collection::vec;
use proptest::prelude::*;
use raftkv::kv::Request;
use raftkv::protocol::Limits;
use raftkv::protocol::client::{RequestBody, RequestFrame, request_id};
use raftkv::protocol::frame::{
    FrameError, FrameStep, HEADER_BYTES, MAGIC, OVERSIZED_HEAD_BYTES, SKIP_BYTES_MAX, next_frame,
    put_frame,
};
use raftkv::protocol::resp::{
    ARGUMENTS_MAX, MULTIBULK_COUNT_MAX, TextLimits, TextStep, keys_to_get, next_command, put_array,
    put_bulk,
};
use raftkv::protocol::sniff::{Sniffed, sniff};
use raftkv::protocol::text::{self, TextCommand};
use streams::{Cut, FRAME_LIMIT, Said, cut_commands, cut_frames};

// ---------------------------------------------------------------- keys that are about to be read

proptest! {
    #[test]
    fn the_keys_of_whole_gets_at_the_front_are_known(
        keys in vec(vec(any::<u8>(), 0..20), 0..5),
        in_capitals in any::<bool>(),
        rest in vec(any::<u8>(), 0..50),
        cut in 0..50usize,
    ) {
        let mut inbox = Vec::new();
        for key in &keys {
            put_array(&mut inbox, 2);
            put_bulk(&mut inbox, if in_capitals { b"GET" } else { b"get" });
            put_bulk(&mut inbox, key);
        }
        let whole = inbox.len();
        inbox.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
        inbox.extend_from_slice(&rest);
        prop_assert!(keys_to_get(&inbox).eq(keys.iter().map(Vec::as_slice)));
        let known: Vec<&[u8]> = keys_to_get(&inbox[..whole.saturating_sub(cut)]).collect();
        prop_assert!(keys.iter().zip(&known).all(|(key, known)| key == known));
        prop_assert!(known.len() == keys.len() || cut > 0);
        // Whatever it is, it is only looked at.
        keys_to_get(&rest).for_each(drop);
    }
}

// ---------------------------------------------------------------- first bytes

#[test]
fn the_first_bytes_say_what_a_connection_speaks() {
    for (first_bytes, expected) in [
        (&b""[..], Sniffed::NeedMore),
        (&MAGIC[..1], Sniffed::NeedMore),
        (&MAGIC[..3], Sniffed::NeedMore),
        (&MAGIC[..], Sniffed::Binary),
        (b"*1\r\n$4\r\nPING\r\n", Sniffed::Text),
        (b"*", Sniffed::Text),
        (b"p", Sniffed::Text),
        (b"SET a 1\n", Sniffed::Text),
        (b"\r\nPING\r\n", Sniffed::Text),
        (b"\n", Sniffed::Text),
        (b"G", Sniffed::NeedMore),
        (b"GE", Sniffed::NeedMore),
        (b"GET /livez HTTP/1.1", Sniffed::NeedMore),
        (b"GET /livez HTTP/1.1\r\n", Sniffed::Http),
        (b"HEAD /livez HTTP/1.0\n", Sniffed::Http),
        (b"DELETE / HTTP/1.1\r\n", Sniffed::Http),
        (b"GET /livez\r\n", Sniffed::Text),
        (b"GET HTTP/1.1\n", Sniffed::Text),
        (b"GET a HTTP/2.0\n", Sniffed::Text),
        (b"GETSET", Sniffed::Text),
        (b"get /livez HTTP/1.1\r\n", Sniffed::Text),
        (b"POST / HTTP/1.1\r\n", Sniffed::Text),
        (b"DEL", Sniffed::NeedMore),
        (b"DEL a", Sniffed::Text),
    ] {
        assert_eq!(sniff(first_bytes), expected, "{}", first_bytes.escape_ascii());
    }
    let newer = [MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3] + 1];
    for refused in
        [&[0x16, 3, 1][..], &[0][..], &[0xff][..], &[MAGIC[0], b'X'][..], &newer[..], b" "]
    {
        assert!(matches!(sniff(refused), Sniffed::Refused(_)), "{}", refused.escape_ascii());
    }
}

#[test]
fn no_text_in_any_language_starts_with_the_magic() {
    assert!(MAGIC[0] >= 0x80);
    assert!(std::str::from_utf8(&MAGIC[..2]).is_err());
}

proptest! {
    /// Waiting for more must never change an answer.
    #[test]
    fn more_bytes_never_change_what_was_sniffed(
        first_bytes in prop_oneof![
            vec(any::<u8>(), 0..8),
            "(GET|HEAD|DELETE|[A-Z]{0,8}) /?[a-z]{0,3} ?(HTTP/1.[01x])?\r?\n?.{0,3}"
                .prop_map(String::into_bytes),
        ],
        magic in 0..=4usize,
    ) {
        let first_bytes = [&MAGIC[..magic], &first_bytes].concat();
        let mut decided = Sniffed::NeedMore;
        for end in 0..=first_bytes.len() {
            let now = sniff(&first_bytes[..end]);
            prop_assert!(decided == Sniffed::NeedMore || decided == now);
            decided = now;
        }
        // Only a line that may be a request is waited for to its end.
        let is_open = first_bytes.len() < MAGIC.len() || !first_bytes.contains(&b'\n');
        prop_assert!(is_open || decided != Sniffed::NeedMore);
    }
}

// ---------------------------------------------------------------- frames

fn frame_of(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put_frame(&mut frame, |out| out.extend_from_slice(payload));
    frame
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => vec(any::<u8>(), 1..60), 1 => vec(any::<u8>(), 200..400)]
}

proptest! {
    #[test]
    fn frames_are_cut_the_same_at_any_speed(payloads in vec(payload(), 0..8), chunk in 1..300usize) {
        let stream: Vec<u8> = payloads.iter().flat_map(|payload| frame_of(payload)).collect();
        let expected: Vec<Cut> = payloads
            .into_iter()
            .map(|payload| match payload.len() {
                0..=FRAME_LIMIT => Cut::Frame(payload),
                payload_bytes => {
                    Cut::Oversized { head: payload[..OVERSIZED_HEAD_BYTES].to_vec(), payload_bytes }
                }
            })
            .collect();
        for chunk in [1, chunk, stream.len().max(1)] {
            prop_assert_eq!(cut_frames(stream.chunks(chunk)), expected.clone());
        }
    }

    #[test]
    fn garbage_on_the_wire_ends_in_an_error_or_in_waiting(stream in vec(any::<u8>(), 0..400)) {
        let whole = cut_frames(stream.chunks(stream.len().max(1)));
        prop_assert_eq!(cut_frames(stream.chunks(1)), whole);
    }
}

/// Whatever bit is flipped: no frame is taken for a right one, and the stream is never believed again.
#[test]
fn every_flipped_bit_in_a_frame_is_noticed() {
    let payload: Vec<u8> = (1..=40).collect();
    let whole = [frame_of(&payload), frame_of(b"the next one"), vec![0; 1000]].concat();
    for bit in 0..(HEADER_BYTES + payload.len()) * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let cuts = cut_frames(damaged.chunks(damaged.len()));
        let frames = cuts.iter().filter(|cut| matches!(cut, Cut::Frame(_))).count();
        assert_eq!(frames, 0, "bit {bit}: {cuts:?}");
    }
}

#[test]
fn a_frame_that_lies_about_its_length_reserves_nothing_and_is_refused() {
    let header = |length: usize| [(length as u32).to_be_bytes(), [0; 4]].concat();
    let limit = SKIP_BYTES_MAX + 1;
    assert_eq!(
        next_frame(&header(limit), FRAME_LIMIT),
        Err(FrameError::TooLong { payload_bytes: limit })
    );
    assert_eq!(next_frame(&header(0), FRAME_LIMIT), Err(FrameError::Empty));
    // As long as is just skipped: the head is awaited, no more.
    assert_eq!(
        next_frame(&header(SKIP_BYTES_MAX), FRAME_LIMIT),
        Ok(FrameStep::NeedMore { at_least: HEADER_BYTES + OVERSIZED_HEAD_BYTES })
    );
}

#[test]
fn a_frame_that_is_too_long_can_be_answered_and_the_next_one_is_read() {
    let key = vec![b'k'; 2 * FRAME_LIMIT];
    let ask = |id, key: &[u8]| RequestFrame {
        id,
        body: RequestBody::Ask(Request::Get { key: key.into() }),
    };
    let mut stream = Vec::new();
    put_frame(&mut stream, |out| ask(77, &key).encode(out));
    put_frame(&mut stream, |out| ask(78, b"k").encode(out));
    for chunk in [1, 7, stream.len()] {
        let cuts = cut_frames(stream.chunks(chunk));
        let [Cut::Oversized { head, .. }, Cut::Frame(next)] = &cuts[..] else {
            panic!("{cuts:?}");
        };
        assert_eq!(request_id(head), Some(77));
        assert_eq!(RequestFrame::decode(next), Ok(ask(78, b"k")));
    }
}

// ---------------------------------------------------------------- text: cutting commands

fn error(says: &str) -> Said {
    Said::Error(format!("ERR Protocol error: {says}"))
}

fn array(args: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    put_array(&mut out, args.len());
    args.iter().for_each(|arg| put_bulk(&mut out, arg));
    out
}

fn words(words: &[&[u8]]) -> Said {
    Said::Command(words.iter().map(|word| word.to_vec()).collect())
}

/// The same at any speed, which every case must be.
fn said(stream: &[u8]) -> Vec<Said> {
    let whole = cut_commands(stream.chunks(stream.len().max(1)));
    assert_eq!(cut_commands(stream.chunks(1)), whole, "{}", stream.escape_ascii());
    whole
}

#[test]
fn lines_are_split_as_redis_splits_them() {
    for (line, expected) in [
        (&b"PING\n"[..], words(&[b"PING"])),
        (b"PING\r\n", words(&[b"PING"])),
        (b"  SET \t a   1  \r\n", words(&[b"SET", b"a", b"1"])),
        (b"\r\n\n\r\nPING\n", words(&[b"PING"])),
        (b"SET a \"two words\"\n", words(&[b"SET", b"a", b"two words"])),
        (br#"E "\n\r\t\b\a\"\\\x41\xfF\xg""#, words(&[b"E", b"\n\r\t\x08\x07\"\\A\xffxg"])),
        (br#"E 'a\'b\n"c'"#, words(&[b"E", b"a'b\\n\"c"])),
        (b"E \"\" ''", words(&[b"E", b"", b""])),
        (b"E a\"b c\"", words(&[b"E", b"ab c"])),
        (b"E \"a\"b", error("unbalanced quotes in request")),
        (b"E 'a'b", error("unbalanced quotes in request")),
        (b"E \"a", error("unbalanced quotes in request")),
        (b"E 'a\\'", error("unbalanced quotes in request")),
        (b"E \"a\\\"", error("unbalanced quotes in request")),
        (&[b'x'; 121], error("too big inline request")),
    ] {
        let line = [line, b"\n"].concat();
        assert_eq!(said(&line), [expected], "{}", line.escape_ascii());
    }
    let longest = [&[b'x'; 120][..], b"\n"].concat();
    assert_eq!(said(&longest), [words(&[&[b'x'; 120]])]);
}

#[test]
fn arrays_are_read_and_broken_ones_get_the_texts_of_redis() {
    for (array, expected) in [
        (&b"*1\r\n$4\r\nPING\r\n"[..], words(&[b"PING"])),
        (b"*0\r\n*-1\r\n*2\r\n$1\r\n\n\r\n$0\r\n\r\n", words(&[b"\n", b""])),
        (b"*x\r\n", error("invalid multibulk length")),
        (b"*01\r\n", error("invalid multibulk length")),
        (b"*1048577\r\n", error("invalid multibulk length")),
        (b"*99999999999999999999\r\n", error("invalid multibulk length")),
        (b"*1000000000000000000000000000000000000", error("too big mbulk count string")),
        (b"*1\r\n+", error("expected '$', got '+'")),
        (b"*1\r\n\r\n", error("expected '$', got '\\r'")),
        (b"*1\r\n$-1\r\n", error("invalid bulk length")),
        (b"*1\r\n$x\r\n", error("invalid bulk length")),
        (b"*1\r\n$67108865\r\n", error("invalid bulk length")),
        (b"*1\r\n$1000000000000000000000000000000000000", error("too big bulk count string")),
        (b"*1\r\n$1\r\nabc", error("expected CRLF after an argument")),
    ] {
        assert_eq!(said(array), [expected], "{}", array.escape_ascii());
    }
    assert_eq!(MULTIBULK_COUNT_MAX, 1048576);
    assert_eq!(SKIP_BYTES_MAX, 67108864);
}

#[test]
fn a_command_that_is_too_long_is_skipped_and_the_next_one_is_read() {
    let long = vec![b'$'; 101];
    let cases: [(Vec<u8>, &str); 5] = [
        (array(&[b"SET", b"a", &long]), "ERR argument of 101 bytes, the limit is 100 bytes"),
        (array(&[&long, b"a", &long]), "ERR argument of 101 bytes, the limit is 100 bytes"),
        (
            array(&[b"SET", &[b'v'; 100], &[b'v'; 100], &[b'v'; 100], b"x"]),
            "ERR command of 337 bytes or more, the limit is 300 bytes",
        ),
        (array(&[&b"1"[..]; 9]), "ERR 9 arguments, the limit is 8"),
        (array(&[&b""[..]; 500]), "ERR 500 arguments, the limit is 8"),
    ];
    for (too_long, says) in cases {
        let stream = [too_long, array(&[b"PING"])].concat();
        assert_eq!(said(&stream), [Said::TooLong(says.to_owned()), words(&[b"PING"])]);
    }
    let broken = [&b"*9\r\n$1\r\na\r\n"[..], b"oops"].concat();
    assert_eq!(said(&broken)[1..], [error("expected '$', got 'o'")]);
}

#[test]
fn what_a_browser_sends_is_hung_up_on() {
    for stream in [
        &b"POST / HTTP/1.1\r\n"[..],
        b"post / HTTP/1.1\r\n",
        b"Host: localhost:6000\r\n",
        b"host:localhost\n",
        b"*1\r\n$4\r\nPOST\r\n",
    ] {
        assert_eq!(said(stream), [Said::CrossProtocol], "{}", stream.escape_ascii());
    }
    let get = b"GET / HTTP/1.1\r\nHost: localhost:6000\r\n\r\nSET a 1\r\n";
    assert_eq!(said(get), [words(&[b"GET", b"/", b"HTTP/1.1"]), Said::CrossProtocol]);
}

#[test]
fn the_default_limits_let_the_longest_command_through() {
    let limits = Limits::default();
    let text_limits = TextLimits::new(&limits);
    let key = vec![b'k'; limits.key_bytes_max as usize];
    let value = vec![b'v'; limits.value_bytes_max as usize];
    let longest = array(&[b"CAS", &key, &value, &value]);
    assert!(longest.len() <= text_limits.inbox_bytes_min());
    let mut words = Vec::new();
    let step = next_command(&longest, &mut words, &text_limits);
    let TextStep::Command { args, consumed } = step else {
        panic!("the longest command is taken");
    };
    assert_eq!(consumed, longest.len());
    let TextCommand::Ask { request, .. } = text::parse(&args, &limits) else {
        panic!("a compare-and-set");
    };
    assert_eq!(limits.check(&request), Ok(()));
    assert_eq!(text_limits.arguments_max, ARGUMENTS_MAX);
}

fn text_stream() -> impl Strategy<Value = Vec<u8>> {
    let args = vec(vec(any::<u8>(), 0..130), 1..12);
    let arrays = args.prop_map(|args| {
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        array(&args)
    });
    let piece = prop_oneof![
        3 => arrays,
        2 => "[ a-z0-9\"'\\\\]{0,40}\r?\n".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..30),
        1 => "[*$]-?[0-9]{0,9}(\r\n)?".prop_map(String::into_bytes),
    ];
    vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn commands_are_cut_the_same_at_any_speed(stream in text_stream(), chunk in 1..100usize) {
        let whole = cut_commands(stream.chunks(stream.len().max(1)));
        prop_assert_eq!(&cut_commands(stream.chunks(1)), &whole);
        prop_assert_eq!(&cut_commands(stream.chunks(chunk)), &whole);
        for said in whole {
            if let Said::Command(args) = said {
                let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                text::parse(&args, &Limits::default());
            }
        }
    }

    #[test]
    fn an_array_within_the_limits_arrives_as_it_was_sent(
        args in vec(vec(any::<u8>(), 0..25), 1..8),
    ) {
        let slices: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(cut_commands(array(&slices).chunks(1)), [Said::Command(args.clone())]);
    }
}
