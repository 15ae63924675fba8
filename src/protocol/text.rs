//! What the words of a text command mean, and what the answers look like in RESP2.
//!
//! Names, arguments, replies and error texts are those of Redis where Redis has the command. One thing is
//! ours: errors keep apart what client libraries must keep apart. They repeat a command by themselves after
//! `CLUSTERDOWN` and `TRYAGAIN`, so these are said only of commands that were certainly not carried out. If
//! that is unknown, the error is `INDETERMINATE`, which no library repeats.

use super::resp::{parse_i64, put_array, put_bulk, put_error, put_integer, put_null, put_simple};
use crate::kv::{Answer, Command, Failure, FailureCode, Outcome, Refusal, Request, WriteOp};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextCommand {
    /// To be asked of the store; [`answer_to_resp`] writes the reply.
    Ask(Request),
    /// `+PONG`, or the message as a bulk string.
    Ping(Option<Vec<u8>>),
    /// The message as a bulk string.
    Echo(Vec<u8>),
    /// Sections in lower case; none: all of them. The reply is a bulk string.
    Info { sections: Vec<String> },
    /// [`help`] as a bulk string.
    Help,
    /// `+OK`, then close.
    Quit,
    /// What client libraries and `redis-cli` ask at their start; an empty array is enough for them.
    CommandDocs,
    /// For [`put_error`], code word included.
    Error(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Set,
    Get,
    Del,
    Cas,
    Incr,
    Decr,
    IncrBy,
    DecrBy,
    Digest,
    Info,
    Ping,
    Echo,
    Help,
    Quit,
    Command,
}

struct Spec {
    verb: Verb,
    name: &'static str,
    usage: &'static str,
    summary: &'static str,
    /// Fewest and most arguments after the name.
    arguments: (usize, usize),
}

const ANY: usize = usize::MAX;

#[rustfmt::skip]
const SPECS: [Spec; 15] = [
    spec(Verb::Set, "set", "SET key value", "store a value", (2, ANY)),
    spec(Verb::Get, "get", "GET key", "the value, or nothing", (1, 1)),
    spec(Verb::Del, "del", "DEL key", "remove a key: 1 if it was there, else 0", (1, ANY)),
    spec(Verb::Cas, "cas", "CAS key old new", "store new if the value is old: 1 if so, else 0", (3, 3)),
    spec(Verb::Incr, "incr", "INCR key", "add 1 to a number, the result", (1, 1)),
    spec(Verb::Decr, "decr", "DECR key", "subtract 1 from a number, the result", (1, 1)),
    spec(Verb::IncrBy, "incrby", "INCRBY key n", "add n to a number, the result", (2, 2)),
    spec(Verb::DecrBy, "decrby", "DECRBY key n", "subtract n from a number, the result", (2, 2)),
    spec(Verb::Digest, "digest", "DIGEST", "a hash of everything stored", (0, 0)),
    spec(Verb::Info, "info", "INFO [section ...]", "the state of this node", (0, ANY)),
    spec(Verb::Ping, "ping", "PING [message]", "PONG, or the message", (0, 1)),
    spec(Verb::Echo, "echo", "ECHO message", "the message", (1, 1)),
    spec(Verb::Help, "help", "HELP", "this list", (0, ANY)),
    spec(Verb::Quit, "quit", "QUIT", "close the connection", (0, ANY)),
    spec(Verb::Command, "command", "COMMAND", "for client libraries: an empty list", (0, ANY)),
];

const fn spec(
    verb: Verb,
    name: &'static str,
    usage: &'static str,
    summary: &'static str,
    arguments: (usize, usize),
) -> Spec {
    Spec { verb, name, usage, summary, arguments }
}

/// Every command with one line each.
pub fn help() -> String {
    let width = SPECS.iter().map(|spec| spec.usage.len()).max().unwrap_or(0);
    let mut text = String::new();
    for spec in &SPECS {
        text.push_str(&format!("{:width$}  {}\n", spec.usage, spec.summary));
    }
    text.push_str("Quote with \"...\" or '...'; numbers are 64-bit integers. Any node answers.\n");
    text
}

/// What a command means; `args` starts with its name. Lengths are not checked here
/// ([`super::Limits::check`]).
pub fn parse(args: &[Vec<u8>]) -> TextCommand {
    let Some((name, args)) = args.split_first() else {
        return TextCommand::Error("ERR empty command".to_owned());
    };
    let Some(spec) = SPECS.iter().find(|spec| name.eq_ignore_ascii_case(spec.name.as_bytes()))
    else {
        return TextCommand::Error(unknown_command(name, args));
    };
    let (fewest, most) = spec.arguments;
    if !(fewest..=most).contains(&args.len()) {
        return wrong_number(spec);
    }
    command(spec, args).unwrap_or_else(TextCommand::Error)
}

fn wrong_number(spec: &Spec) -> TextCommand {
    TextCommand::Error(format!("ERR wrong number of arguments for '{}' command", spec.name))
}

fn command(spec: &Spec, args: &[Vec<u8>]) -> Result<TextCommand, String> {
    Ok(match (spec.verb, args) {
        (Verb::Set, [key, value]) => write(WriteOp::Put { key, value }),
        (Verb::Set, _) => return Err("ERR syntax error".to_owned()),
        (Verb::Get, [key]) => TextCommand::Ask(Request::Get { key: key.as_slice().into() }),
        (Verb::Del, [key]) => write(WriteOp::Delete { key }),
        (Verb::Del, _) => return Err("ERR DEL takes one key".to_owned()),
        (Verb::Cas, [key, old, new]) => {
            write(WriteOp::CompareAndSet { key, expected: Some(old), value: new })
        }
        (Verb::Incr, [key]) => write(WriteOp::Increment { key, delta: 1 }),
        (Verb::Decr, [key]) => write(WriteOp::Increment { key, delta: -1 }),
        (Verb::IncrBy, [key, n]) => write(WriteOp::Increment { key, delta: integer(n)? }),
        (Verb::DecrBy, [key, n]) => {
            let delta = integer(n)?.checked_neg().ok_or("ERR decrement would overflow")?;
            write(WriteOp::Increment { key, delta })
        }
        (Verb::Digest, _) => TextCommand::Ask(Request::Digest),
        (Verb::Info, sections) => TextCommand::Info {
            sections: sections
                .iter()
                .map(|section| String::from_utf8_lossy(section).to_ascii_lowercase())
                .collect(),
        },
        (Verb::Ping, args) => TextCommand::Ping(args.first().cloned()),
        (Verb::Echo, [message]) => TextCommand::Echo(message.clone()),
        (Verb::Help, _) => TextCommand::Help,
        (Verb::Quit, _) => TextCommand::Quit,
        (Verb::Command, _) => TextCommand::CommandDocs,
        _ => wrong_number(spec),
    })
}

/// A text command has no session: it is executed as often as it is in the log, and put there once.
fn write(op: WriteOp<'_>) -> TextCommand {
    let command = Command::Write { request: None, op }.to_bytes();
    TextCommand::Ask(Request::Write { command: command.into() })
}

fn integer(bytes: &[u8]) -> Result<i64, String> {
    parse_i64(bytes).ok_or_else(|| NOT_AN_INTEGER.to_owned())
}

const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";

/// How much of an unknown command is repeated, in bytes (as in Redis).
const SHOWN_BYTES_MAX: usize = 128;

fn unknown_command(name: &[u8], args: &[Vec<u8>]) -> String {
    let mut shown = String::new();
    for argument in args {
        let Some(room) = SHOWN_BYTES_MAX.checked_sub(shown.len()).filter(|room| *room > 0) else {
            break;
        };
        shown.push_str(&format!("'{}' ", start_of(argument, room)));
    }
    let name = start_of(name, SHOWN_BYTES_MAX);
    format!("ERR unknown command '{name}', with args beginning with: {shown}")
}

fn start_of(bytes: &[u8], bytes_max: usize) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(&bytes[..bytes.len().min(bytes_max)])
}

/// Appends the reply to a [`TextCommand::Ask`].
pub fn answer_to_resp(answer: &Answer, out: &mut Vec<u8>) {
    match answer {
        Answer::Value { value: Some(value), .. } => put_bulk(out, value),
        Answer::Value { value: None, .. } => put_null(out),
        Answer::Written { outcome, .. } => put_outcome(out, outcome),
        Answer::Digest { digest, keys, index, .. } => {
            put_array(out, 6);
            put_bulk(out, b"digest");
            put_bulk(out, format!("{digest:016x}").as_bytes());
            put_bulk(out, b"keys");
            put_bulk(out, keys.to_string().as_bytes());
            put_bulk(out, b"index");
            put_bulk(out, index.to_string().as_bytes());
        }
        Answer::Member { .. } => put_simple(out, "OK"),
        Answer::Failed(failure) => put_failure(out, failure),
    }
}

fn put_outcome(out: &mut Vec<u8>, outcome: &Outcome) {
    match *outcome {
        Outcome::Put => put_simple(out, "OK"),
        Outcome::Deleted(done) | Outcome::Swapped(done) => put_integer(out, i64::from(done)),
        Outcome::Counter(value) => put_integer(out, value),
        Outcome::SessionOpened { session } => put_bulk(out, session.to_string().as_bytes()),
        Outcome::Refused(refusal) => put_error(
            out,
            match refusal {
                Refusal::NotAnInteger => NOT_AN_INTEGER,
                Refusal::Overflow => "ERR increment or decrement would overflow",
                Refusal::UnknownSession => "ERR unknown session",
                Refusal::StaleSequence => "ERR a newer request of this session was executed",
            },
        ),
    }
}

fn put_failure(out: &mut Vec<u8>, failure: &Failure) {
    let word = match failure.code {
        FailureCode::OutcomeUnknown | FailureCode::TimedOut => "INDETERMINATE",
        FailureCode::NoLeader => "CLUSTERDOWN",
        FailureCode::NotLeader | FailureCode::Overloaded | FailureCode::ShuttingDown => "TRYAGAIN",
        FailureCode::TooLarge | FailureCode::Malformed | FailureCode::NotPossible => "ERR",
    };
    put_error(out, &format!("{word} {}", failure.message));
}
