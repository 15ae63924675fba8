//! What the words of text commands mean and what is answered, against Redis's rules.

use raftkv::kv::{
    Answer, Command, Failure, FailureCode, LeaderHint, Outcome, Refusal, Request, WriteOp,
};
use raftkv::protocol::resp::parse_i64;
use raftkv::protocol::text::{self, TextCommand, answer_to_resp};

fn parse(line: &str) -> TextCommand {
    let args: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
    text::parse(&args)
}

fn write(op: WriteOp<'_>) -> TextCommand {
    let command = Command::Write { request: None, op }.to_bytes();
    TextCommand::Ask(Request::Write { command: command.into() })
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
        ("Get a", TextCommand::Ask(Request::Get { key: key.into() })),
        ("DEL a", write(WriteOp::Delete { key })),
        ("CAS a 0 1", write(swap)),
        ("INCR n", increment(1)),
        ("DECR n", increment(-1)),
        ("INCRBY n -7", increment(-7)),
        ("DECRBY n 7", increment(-7)),
        ("INCRBY n -9223372036854775808", increment(i64::MIN)),
        ("DIGEST", TextCommand::Ask(Request::Digest)),
        ("PING", TextCommand::Ping(None)),
        ("PING hi", TextCommand::Ping(Some(b"hi".to_vec()))),
        ("ECHO hi", TextCommand::Echo(b"hi".to_vec())),
        ("INFO", TextCommand::Info { sections: vec![] }),
        ("INFO Raft", TextCommand::Info { sections: vec!["raft".to_owned()] }),
        ("HELP", TextCommand::Help),
        ("QUIT", TextCommand::Quit),
        ("COMMAND DOCS", TextCommand::CommandDocs),
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
        ("SET a 1 NX", "ERR syntax error".to_owned()),
        ("DEL a b", "ERR DEL takes one key".to_owned()),
        ("CAS a 1", "ERR wrong number of arguments for 'cas' command".to_owned()),
        ("INCRBY n 1.5", "ERR value is not an integer or out of range".to_owned()),
        ("INCRBY n 9223372036854775808", "ERR value is not an integer or out of range".to_owned()),
        ("DECRBY n -9223372036854775808", "ERR decrement would overflow".to_owned()),
        ("PING a b", "ERR wrong number of arguments for 'ping' command".to_owned()),
    ] {
        assert_eq!(parse(line), TextCommand::Error(expected), "{line}");
    }
    let args = vec![vec![b'x'; 1_000_000]; 5];
    let TextCommand::Error(text) = text::parse(&args) else { panic!("no such command") };
    assert!(text.len() < 400, "a long unknown command is not sent back whole");
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
        let unknown = matches!(text::parse(&[name.to_vec()]), TextCommand::Error(text)
            if text.contains("unknown command"));
        assert!(!unknown, "{line}");
    }
    for name in ["SET", "GET", "DEL", "CAS", "INCR", "DECR", "INCRBY", "DECRBY", "DIGEST", "INFO"]
        .into_iter()
        .chain(["PING", "ECHO", "HELP", "QUIT", "COMMAND"])
    {
        let lines = help.lines().filter(|line| line.split(' ').next() == Some(name));
        assert_eq!(lines.count(), 1, "{name}");
    }
}

fn resp(answer: &Answer) -> String {
    let mut out = Vec::new();
    answer_to_resp(answer, &mut out);
    String::from_utf8(out).unwrap()
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
            FailureCode::TooLarge | FailureCode::Malformed | FailureCode::NotPossible => "ERR",
            FailureCode::OutcomeUnknown | FailureCode::TimedOut => "INDETERMINATE",
        };
        assert_eq!(word, expected, "{code:?}");
        assert_eq!(word == "INDETERMINATE", code.outcome_is_unknown());
    }
}
