//! What the words of text commands mean and what is answered, against Redis's rules.

use raftkv::kv::{
    Answer, Blobs, Command, Condition, Failure, FailureCode, Found, LeaderHint, Limits, Outcome,
    Range, ReadOp, Refusal, Request, WriteOp,
};
use raftkv::protocol::resp::{ARGUMENTS_MAX, Version, parse_i64};
use raftkv::protocol::text::{
    self, ClientCommand, CommandQuery, ConfigQuery, Greeting, Reply, Shape, TextCommand, Word,
    answer_to_resp,
};
use std::rc::Rc;

fn parse(line: &str) -> TextCommand {
    let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    text::parse(&args, &Limits::default())
}

fn write(op: WriteOp<'_>) -> TextCommand {
    write_as(op, Shape::Plain)
}

fn write_as(op: WriteOp<'_>, shape: Shape) -> TextCommand {
    let command = Command::Write { request: None, op }.to_bytes();
    TextCommand::Ask { request: Request::Write { command: command.into() }, shape }
}

fn ask(request: Request, shape: Shape) -> TextCommand {
    TextCommand::Ask { request, shape }
}

fn increment(delta: i64) -> TextCommand {
    write(WriteOp::Increment { key: b"n", delta })
}

#[test]
fn each_command_is_understood_in_any_case() {
    let (key, value) = (&b"a"[..], &b"1"[..]);
    let swap = WriteOp::CompareAndSet { key, expected: Some(b"0"), value };
    for (line, expected) in [
        ("SET a 1", write(WriteOp::Put { key, value })),
        ("set a 1", write(WriteOp::Put { key, value })),
        ("Get a", ask(Request::Get { key: key.into() }, Shape::Plain)),
        ("DEL a", write(WriteOp::Delete { key })),
        ("CAS a 0 1", write(swap)),
        ("INCR n", increment(1)),
        ("DECR n", increment(-1)),
        ("INCRBY n -7", increment(-7)),
        ("DECRBY n 7", increment(-7)),
        ("INCRBY n -9223372036854775808", increment(i64::MIN)),
        ("DIGEST", ask(Request::Digest, Shape::Plain)),
        ("DBSIZE", ask(Request::Digest, Shape::KeyCount)),
        ("PING", TextCommand::Ping(None)),
        ("PING hi", TextCommand::Ping(Some(b"hi".to_vec()))),
        ("ECHO hi", TextCommand::Echo(b"hi".to_vec())),
        ("INFO", TextCommand::Info { sections: vec![] }),
        ("INFO Raft", TextCommand::Info { sections: vec!["raft".to_owned()] }),
        ("HELP", TextCommand::Help),
        ("QUIT", TextCommand::Quit),
        ("RESET", TextCommand::Reset),
        ("TIME", TextCommand::Time),
        ("READONLY", TextCommand::ReadOnly(true)),
        ("READWRITE", TextCommand::ReadOnly(false)),
        ("SELECT 0", TextCommand::Ok),
        ("AUTH default x", TextCommand::Ok),
        ("ruok", TextCommand::Word(Word::Ruok)),
        ("CONFIG GET a b", TextCommand::Config(ConfigQuery::Get(vec![b"a".into(), b"b".into()]))),
        ("COMMAND COUNT", TextCommand::Commands(CommandQuery::Count)),
        ("COMMAND INFO get x", TextCommand::Commands(CommandQuery::Info(vec![Some("get"), None]))),
        ("COMMAND DOCS get x", TextCommand::Commands(CommandQuery::Docs(vec!["get"]))),
    ] {
        assert_eq!(parse(line), expected, "{line}");
    }
}

#[test]
fn errors_are_those_of_redis_to_the_letter() {
    let unknown = |rest: &str| format!("ERR unknown command {rest}");
    for (line, expected) in [
        ("foo a b", unknown("'foo', with args beginning with: 'a' 'b' ")),
        ("foo", unknown("'foo', with args beginning with: ")),
        ("GET", "ERR wrong number of arguments for 'get' command".to_owned()),
        ("get a b", "ERR wrong number of arguments for 'get' command".to_owned()),
        ("SET a", "ERR wrong number of arguments for 'set' command".to_owned()),
        ("CAS a 1", "ERR wrong number of arguments for 'cas' command".to_owned()),
        ("INCRBY n 1.5", "ERR value is not an integer or out of range".to_owned()),
        ("INCRBY n 9223372036854775808", "ERR value is not an integer or out of range".to_owned()),
        ("DECRBY n -9223372036854775808", "ERR decrement would overflow".to_owned()),
        ("PING a b", "ERR wrong number of arguments for 'ping' command".to_owned()),
    ] {
        assert_eq!(parse(line), TextCommand::Error(expected), "{line}");
    }
    let long = vec![b'x'; 1_000_000];
    let args = [long.as_slice(); 5];
    let TextCommand::Error(text) = text::parse(&args, &Limits::default()) else {
        panic!("no such command")
    };
    assert!(text.len() < 400, "a long unknown command is not sent back whole");
}

/// A command with several keys is one entry, so it happens as a whole or not at all.
#[test]
fn each_write_is_one_operation_however_many_keys_it_has() {
    let (key, value) = (&b"a"[..], &b"1"[..]);
    let set = |condition, get, shape| write_as(WriteOp::Set { key, value, condition, get }, shape);
    let remove = |expected, get, shape| write_as(WriteOp::Remove { key, expected, get }, shape);
    let many = Blobs::to_bytes([key, b"1", b"b", b"2"]);
    let many = Blobs::new(&many).unwrap();
    let keys = Blobs::to_bytes([key, b"b"]);
    let keys = Blobs::new(&keys).unwrap();
    let bytes_max = Limits::default().value_bytes_max;
    for (line, expected) in [
        ("SET a 1 NX", set(Condition::Absent, false, Shape::OkOrNull)),
        ("SET a 1 xx get", set(Condition::Present, true, Shape::Old)),
        ("SET a 1 NX NX", set(Condition::Absent, false, Shape::OkOrNull)),
        ("SET a 1 IFEQ 0", set(Condition::Equals(b"0"), false, Shape::OkOrNull)),
        ("SET a 1 GET", set(Condition::Always, true, Shape::Old)),
        ("SETNX a 1", set(Condition::Absent, false, Shape::Flag)),
        ("GETSET a 1", set(Condition::Always, true, Shape::Old)),
        ("GETDEL a", remove(None, true, Shape::Old)),
        ("DELIFEQ a 1", remove(Some(value), false, Shape::Flag)),
        ("DEL a b", write(WriteOp::DeleteMany { keys })),
        ("UNLINK a b", write(WriteOp::DeleteMany { keys })),
        ("MSET a 1 b 2", write(WriteOp::PutMany { pairs: many })),
        ("APPEND a 1", write(WriteOp::Append { key, value, bytes_max })),
    ] {
        assert_eq!(parse(line), expected, "{line}");
    }
}

#[test]
fn reads_of_several_keys_are_one_read() {
    let keys = || vec![b"a"[..].into(), b"b"[..].into()];
    let one = || vec![b"a"[..].into()];
    for (line, op, shape) in [
        ("MGET a b", ReadOp::Values(keys()), Shape::Plain),
        ("EXISTS a b", ReadOp::Lengths(keys()), Shape::Count),
        ("STRLEN a", ReadOp::Lengths(one()), Shape::Length),
        ("TYPE a", ReadOp::Lengths(one()), Shape::Type),
    ] {
        assert_eq!(parse(line), ask(Request::Read(op), shape), "{line}");
    }
}

#[test]
fn patterns_and_options_make_a_range() {
    let shared = |text: &str| -> Rc<[u8]> { text.as_bytes().into() };
    let all = Range {
        start: shared(""),
        end: None,
        reverse: false,
        pattern: None,
        with_values: false,
        keys_max: 10,
        partial: true,
    };
    let fitting = |start: &str, end: &str, pattern: &str| Range {
        start: shared(start),
        end: Some(shared(end)),
        pattern: Some(shared(pattern)),
        ..all.clone()
    };
    let scan = |cursor, range: Range| TextCommand::Scan { cursor, range };
    let plain = |range: Range| ask(Request::Read(ReadOp::Range(range)), Shape::Plain);
    let every = Range { keys_max: u32::MAX, partial: false, ..all.clone() };
    let valued = Range { with_values: true, ..every.clone() };
    for (line, expected) in [
        ("SCAN 0", scan(0, all.clone())),
        ("SCAN 7 MATCH *", scan(7, all.clone())),
        (
            "SCAN 7 count 20 match a:*",
            scan(7, Range { keys_max: 20, ..fitting("a:", "a;", "a:*") }),
        ),
        ("SCAN 0 MATCH a[b]", scan(0, fitting("a", "b", "a[b]"))),
        ("SCAN 0 TYPE string", scan(0, all.clone())),
        ("SCAN 0 TYPE hash", scan(0, Range { end: Some(shared("")), ..all.clone() })),
        ("KEYS *", plain(every.clone())),
        (
            "RANGE a b",
            plain(Range { start: shared("a"), end: Some(shared("b")), ..valued.clone() }),
        ),
        ("RANGE a  rev limit 3", {
            plain(Range { start: shared("a"), reverse: true, keys_max: 3, ..valued.clone() })
        }),
        ("RANDOMKEY", ask(Request::Read(ReadOp::RandomKey), Shape::First)),
    ] {
        assert_eq!(parse(line), expected, "{line}");
    }
    for (line, expected) in [
        ("SCAN x", "ERR invalid cursor"),
        ("SCAN 0 COUNT 0", "ERR syntax error"),
        ("SCAN 0 COUNT many", "ERR value is not an integer or out of range"),
        ("SCAN 0 MATCH", "ERR syntax error"),
        ("RANGE a b LIMIT", "ERR syntax error"),
        ("RANGE a b LIMIT -1", "ERR value is out of range, must be positive"),
        ("RANGE a", "ERR wrong number of arguments for 'range' command"),
    ] {
        assert_eq!(parse(line), TextCommand::Error(expected.to_owned()), "{line}");
    }
}

#[test]
fn a_greeting_says_the_version_and_a_name() {
    let greeting = |version, name: Option<&str>| {
        TextCommand::Hello(Greeting { version, name: name.map(str::to_owned) })
    };
    for (line, expected) in [
        ("HELLO", greeting(None, None)),
        ("HELLO 2", greeting(Some(Version::Resp2), None)),
        ("hello 3 setname me", greeting(Some(Version::Resp3), Some("me"))),
        ("HELLO 3 AUTH default x SETNAME me", greeting(Some(Version::Resp3), Some("me"))),
        ("CLIENT ID", TextCommand::Client(ClientCommand::Id)),
        ("client setname me", TextCommand::Client(ClientCommand::SetName("me".to_owned()))),
        (
            "CLIENT SETINFO LIB-NAME redis-py",
            TextCommand::Client(ClientCommand::SetLibraryName("redis-py".to_owned())),
        ),
    ] {
        assert_eq!(parse(line), expected, "{line}");
    }
}

#[test]
fn errors_about_options_are_those_of_redis_too() {
    let time = |command: &str| format!("ERR invalid expire time in '{command}' command");
    let number = || "ERR value is not an integer or out of range".to_owned();
    let incompatible =
        |what: &str| format!("ERR {what} options at the same time are not compatible");
    for (line, expected) in [
        ("SET a 1 NX XX", "ERR syntax error".to_owned()),
        ("SET a 1 NX IFEQ 1", "ERR syntax error".to_owned()),
        ("SET a 1 IFEQ", "ERR syntax error".to_owned()),
        ("SET a 1 nonsense", "ERR syntax error".to_owned()),
        ("SET a 1 EX", "ERR syntax error".to_owned()),
        ("SET a 1 EX soon", "ERR value is not an integer or out of range".to_owned()),
        ("SET a 1 EX 0", time("set")),
        ("SET a 1 PX -1", time("set")),
        ("SET a 1 EXAT 0", time("set")),
        ("SET a 1 EX 9223372036854776", time("set")),
        ("SET a 1 PX 9223372036854775807", time("set")),
        ("SET a 1 EX soon NONSENSE", "ERR syntax error".to_owned()),
        ("SET a 1 EX 1 PX 1", "ERR syntax error".to_owned()),
        ("SET a 1 EX 1 KEEPTTL", "ERR syntax error".to_owned()),
        ("SET a 1 KEEPTTL PXAT 1", "ERR syntax error".to_owned()),
        ("SET a 1 PERSIST", "ERR syntax error".to_owned()),
        ("SETEX a 0 1", time("setex")),
        ("SETEX a x 1", number()),
        ("PSETEX a -5 1", time("psetex")),
        ("GETEX a EX 0", time("getex")),
        ("GETEX a KEEPTTL", "ERR syntax error".to_owned()),
        ("GETEX a EX 1 PERSIST", "ERR syntax error".to_owned()),
        ("EXPIRE a x", number()),
        ("EXPIRE a 9223372036854776", time("expire")),
        ("EXPIRE a -9223372036854776", time("expire")),
        ("PEXPIRE a 9223372036854775807", time("pexpire")),
        ("EXPIREAT a 9223372036854776", time("expireat")),
        ("EXPIRE a x SOON", "ERR Unsupported option SOON".to_owned()),
        ("EXPIRE a 1 NX XX", incompatible("NX and XX, GT or LT")),
        ("EXPIRE a 1 LT NX", incompatible("NX and XX, GT or LT")),
        ("EXPIRE a 1 XX GT LT", incompatible("GT and LT")),
        ("FLUSHALL NOW", "ERR syntax error".to_owned()),
        ("FLUSHDB ASYNC SYNC", "ERR syntax error".to_owned()),
        ("FUNCTION LIST", "ERR unknown subcommand 'LIST'. Try FUNCTION HELP.".to_owned()),
        ("FUNCTION FLUSH x", "ERR FUNCTION FLUSH only supports SYNC|ASYNC option".to_owned()),
        ("SESSION OPEN x", "ERR wrong number of arguments for 'session' command".to_owned()),
        ("SESSION 0 1 DEL a", number()),
        ("SESSION 1 x DEL a", number()),
        ("SESSION 1 1", "ERR wrong number of arguments for 'session' command".to_owned()),
        ("SESSION 1 1 GET a", "ERR SESSION takes a command that writes, or EXEC".to_owned()),
        ("SESSION 1 1 SESSION OPEN", "ERR SESSION takes a command that writes, or EXEC".to_owned()),
        ("SESSION 1 1 MULTI", "ERR SESSION takes a command that writes, or EXEC".to_owned()),
        ("SESSION 1 1 INCR", "ERR wrong number of arguments for 'incr' command".to_owned()),
        ("MSET a 1 b", "ERR wrong number of arguments for 'mset' command".to_owned()),
        ("SELECT 1", "ERR DB index is out of range".to_owned()),
        ("SELECT one", "ERR value is not an integer or out of range".to_owned()),
        ("AUTH a b", "WRONGPASS invalid username-password pair or user is disabled.".to_owned()),
        ("HELLO 4", "NOPROTO unsupported protocol version".to_owned()),
        ("HELLO x", "ERR Protocol version is not an integer or out of range".to_owned()),
        ("HELLO 3 FOO", "ERR Syntax error in HELLO option 'FOO'".to_owned()),
        ("CLIENT FOO", "ERR unknown subcommand 'FOO'. Try CLIENT HELP.".to_owned()),
        ("CLIENT SETNAME", "ERR wrong number of arguments for 'client|setname' command".to_owned()),
        ("CLIENT SETINFO a b", "ERR Unrecognized option 'a'".to_owned()),
        ("CONFIG SET a b", "ERR unknown subcommand 'SET'. Try CONFIG HELP.".to_owned()),
        ("CONFIG GET", "ERR wrong number of arguments for 'config|get' command".to_owned()),
        ("COMMAND FOO", "ERR unknown subcommand 'FOO'. Try COMMAND HELP.".to_owned()),
    ] {
        assert_eq!(parse(line), TextCommand::Error(expected), "{line}");
    }
    let words = [&b"DEL"[..]; ARGUMENTS_MAX + 1];
    let TextCommand::Error(text) = text::parse(&words, &Limits::default()) else {
        panic!("too many keys, typed into one line")
    };
    assert_eq!(text, "ERR 1025 arguments, the limit is 1024");
}

#[test]
fn integers_are_taken_as_redis_takes_them() {
    for (text, value) in [
        ("0", 0),
        ("-1", -1),
        ("9223372036854775807", i64::MAX),
        ("-9223372036854775808", i64::MIN),
    ] {
        assert_eq!(parse_i64(text.as_bytes()), Some(value));
    }
    for text in ["", "-", "+1", "01", "-0", "-01", " 1", "1 ", "9223372036854775808", "1x", "ñ"] {
        assert_eq!(parse_i64(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn help_has_a_line_for_every_command() {
    let help = text::help();
    for line in help.lines().filter(|line| line.contains("  ")) {
        let name = line.split(' ').next().unwrap().as_bytes();
        let unknown = matches!(parse(std::str::from_utf8(name).unwrap()), TextCommand::Error(text)
            if text.contains("unknown command"));
        assert!(!unknown, "{line}");
    }
    for name in text::names() {
        let lines = help.lines().filter(|line| {
            line.split(' ').next().is_some_and(|word| word.eq_ignore_ascii_case(name))
        });
        assert_eq!(lines.count(), 1, "{name}");
    }
}

fn resp(answer: &Answer) -> String {
    resp_as(answer, Reply::default())
}

fn resp_as(answer: &Answer, reply: Reply) -> String {
    let mut out = Vec::new();
    answer_to_resp(answer, reply, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_same_outcome_is_answered_as_the_command_wants_it() {
    let changed = |done, old: Option<&str>| {
        written(Outcome::Changed { done, old: old.map(|old| old.as_bytes().into()) })
    };
    let lengths = |lengths: &[Option<u32>]| Answer::Found {
        found: Found::Lengths(lengths.to_vec()),
        index: 7,
        leader: 2,
    };
    let values = Answer::Found {
        found: Found::Values(vec![Some(b"x"[..].into()), None]),
        index: 7,
        leader: 2,
    };
    let digest = Answer::Digest { digest: 0xab, keys: 3, index: 7, leader: 2 };
    for (answer, shape, resp2, resp3) in [
        (changed(true, None), Shape::OkOrNull, "+OK\r\n", "+OK\r\n"),
        (changed(false, None), Shape::OkOrNull, "$-1\r\n", "_\r\n"),
        (changed(true, None), Shape::Flag, ":1\r\n", ":1\r\n"),
        (changed(false, None), Shape::Flag, ":0\r\n", ":0\r\n"),
        (changed(true, None), Shape::Old, "$-1\r\n", "_\r\n"),
        (changed(false, Some("x")), Shape::Old, "$1\r\nx\r\n", "$1\r\nx\r\n"),
        (lengths(&[Some(0), None, Some(5)]), Shape::Count, ":2\r\n", ":2\r\n"),
        (lengths(&[Some(5)]), Shape::Length, ":5\r\n", ":5\r\n"),
        (lengths(&[None]), Shape::Length, ":0\r\n", ":0\r\n"),
        (lengths(&[Some(0)]), Shape::Type, "+string\r\n", "+string\r\n"),
        (lengths(&[None]), Shape::Type, "+none\r\n", "+none\r\n"),
        (values, Shape::Plain, "*2\r\n$1\r\nx\r\n$-1\r\n", "*2\r\n$1\r\nx\r\n_\r\n"),
        (digest, Shape::KeyCount, ":3\r\n", ":3\r\n"),
    ] {
        let (two, three) = (Version::Resp2, Version::Resp3);
        assert_eq!(resp_as(&answer, Reply { shape, version: two }), resp2, "{shape:?}");
        assert_eq!(resp_as(&answer, Reply { shape, version: three }), resp3, "{shape:?}");
    }
}

fn written(outcome: Outcome) -> Answer {
    Answer::Written { outcome, index: 7, leader: 2 }
}

#[test]
fn answers_become_the_replies_of_redis() {
    let value =
        |value: Option<&[u8]>| Answer::Value { value: value.map(Into::into), index: 7, leader: 2 };
    for (answer, expected) in [
        (value(Some(b"a\r\nb")), "$4\r\na\r\nb\r\n"),
        (value(None), "$-1\r\n"),
        (written(Outcome::Put), "+OK\r\n"),
        (written(Outcome::Deleted(true)), ":1\r\n"),
        (written(Outcome::Deleted(false)), ":0\r\n"),
        (written(Outcome::Swapped(true)), ":1\r\n"),
        (written(Outcome::Swapped(false)), ":0\r\n"),
        (written(Outcome::Counter(-3)), ":-3\r\n"),
        (
            written(Outcome::Refused(Refusal::NotAnInteger)),
            "-ERR value is not an integer or out of range\r\n",
        ),
        (
            written(Outcome::Refused(Refusal::Overflow)),
            "-ERR increment or decrement would overflow\r\n",
        ),
        (
            Answer::Digest { digest: 0xab, keys: 3, index: 7, leader: 2 },
            "*6\r\n$6\r\ndigest\r\n$16\r\n00000000000000ab\r\n$4\r\nkeys\r\n$1\r\n3\r\n\
             $5\r\nindex\r\n$1\r\n7\r\n",
        ),
    ] {
        assert_eq!(resp(&answer), expected);
    }
}

/// Client libraries repeat a command by themselves after these words, so none may mean "perhaps done".
#[test]
fn only_what_was_certainly_not_done_has_a_word_that_libraries_retry() {
    for code in FailureCode::ALL {
        let leader = Some(LeaderHint { id: 1, address: "raft-1:6000".to_owned() });
        let failure = Failure { code, message: "what\r\nhappened".to_owned(), leader };
        let reply = resp(&Answer::Failed(failure));
        let (word, message) = reply[1..].split_once(' ').unwrap();
        assert_eq!(message, "what  happened\r\n");
        let expected = match code {
            FailureCode::NoLeader => "CLUSTERDOWN",
            FailureCode::NotLeader | FailureCode::Overloaded | FailureCode::ShuttingDown => {
                "TRYAGAIN"
            }
            FailureCode::Compacted => "COMPACTED",
            FailureCode::TooLarge | FailureCode::Malformed | FailureCode::NotPossible => "ERR",
            FailureCode::OutcomeUnknown | FailureCode::TimedOut => "INDETERMINATE",
        };
        assert_eq!(word, expected, "{code:?}");
        assert_eq!(word == "INDETERMINATE", code.outcome_is_unknown());
    }
}
