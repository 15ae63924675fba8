//! What the words of a text command mean, and what the answers look like in RESP.
//!
//! Names, arguments, replies and error texts are those of Redis where Redis has the command
//! (`COMMANDS.md` lists what differs). One thing is ours: errors keep apart what client libraries must
//! keep apart. They repeat a command by themselves after `CLUSTERDOWN` and `TRYAGAIN`, so these are said
//! only of commands that were certainly not carried out. If that is unknown, the error is
//! `INDETERMINATE`, which no library repeats.

mod catalogue;
mod cluster;
mod connection;
mod ranges;
mod reply;
mod streams;
mod strings;
mod times;

pub use catalogue::{CommandQuery, SPECS, Spec, Verb, Word, help, names};
pub use cluster::{RaftQuery, raft_help};
pub use connection::{ClientCommand, ConfigQuery, Greeting};
pub use reply::{Planned, Reply, Shape, answer_to_resp, transaction_to_resp};
pub use streams::{CHANNEL_BYTES_MAX, SentinelQuery, Subscribe};
pub use times::Time;

use super::resp::{ARGUMENTS_MAX, parse_i64};
use crate::kv::{Command, Limits, Range, ReadOp, Request, RequestId, WriteOp};
use crate::raft::Index;
use std::rc::Rc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextCommand {
    /// To be asked of the store; [`answer_to_resp`] writes the reply.
    Ask {
        request: Request,
        shape: Shape,
    },
    /// A page of keys; whoever knows the cursor makes an `Ask` of it.
    Scan {
        cursor: u64,
        range: Range,
    },
    /// `+PONG`, or the message as a bulk string.
    Ping(Option<Vec<u8>>),
    /// The message as a bulk string.
    Echo(Vec<u8>),
    /// Sections in lower case; none: all of them.
    Info {
        sections: Vec<String>,
    },
    /// [`help`], a text.
    Help,
    /// `+OK`, and nothing changes.
    Ok,
    /// `+OK`, then close.
    Quit,
    /// `+RESET`, and the connection is as it was at its start.
    Reset,
    Hello(Greeting),
    Client(ClientCommand),
    /// Whether this node may answer reads from what it has.
    ReadOnly(bool),
    /// Seconds and microseconds.
    Time,
    Config(ConfigQuery),
    Commands(CommandQuery),
    Word(Word),
    Multi,
    /// In a session, if it says so.
    Exec(Option<RequestId>),
    Discard,
    Watch(Vec<Rc<[u8]>>),
    Unwatch,
    /// What is wrong, in words.
    Why,
    Raft(RaftQuery),
    /// From here on the changes of keys that begin so, from this log index on.
    Changes {
        prefix: Vec<u8>,
        /// `None`: those that are still to come.
        from: Option<Index>,
    },
    Subscribe(Subscribe),
    Sentinel(SentinelQuery),
    /// Whether this node leads, and who else there is.
    Role,
    /// For [`super::resp::put_error`], code word included.
    Error(String),
}

/// What a command means; `args` starts with its name. `limits` go into what is proposed; whether keys
/// and values keep to them is not checked here ([`Limits::check`]).
pub fn parse(args: &[&[u8]], limits: &Limits) -> TextCommand {
    try_parse(args, limits).unwrap_or_else(TextCommand::Error)
}

/// Fails for a command that there is not, or not with so many words. That ends a transaction at once; what
/// else is wrong with a command shows only when it is carried out, as in Redis.
pub fn try_parse(args: &[&[u8]], limits: &Limits) -> Result<TextCommand, String> {
    let (spec, args) = look_up(args)?;
    Ok(command(spec, args, limits).unwrap_or_else(TextCommand::Error))
}

fn look_up<'a, 'b>(args: &'a [&'b [u8]]) -> Result<(&'static Spec, &'a [&'b [u8]]), String> {
    if args.len() > ARGUMENTS_MAX {
        return Err(format!("ERR {} arguments, the limit is {ARGUMENTS_MAX}", args.len()));
    }
    let Some((name, args)) = args.split_first() else {
        return Err("ERR empty command".to_owned());
    };
    let Some(spec) = catalogue::find(name) else { return Err(unknown_command(name, args)) };
    let (fewest, most) = spec.arguments;
    if !(fewest..=most).contains(&args.len()) {
        return Err(wrong_number(spec.name));
    }
    Ok((spec, args))
}

/// In a context in which only a few commands are: the error for any other one that there is. `args`
/// starts with the name.
pub fn check_context(args: &[&[u8]], context: &Context) -> Result<(), String> {
    let spec = args.first().and_then(|name| catalogue::find(name));
    match spec {
        Some(spec) if !context.allowed.contains(&spec.verb) => Err(format!(
            "ERR Can't execute '{}': only {} are allowed in this context",
            spec.name, context.in_words
        )),
        _ => Ok(()),
    }
}

/// What a connection may say while it is spoken to.
#[derive(Debug)]
pub struct Context {
    allowed: &'static [Verb],
    in_words: &'static str,
}

impl Context {
    /// In RESP2; in Redis's words, as libraries know them.
    pub const SUBSCRIBED: Context = Context {
        allowed: &[
            Verb::Subscribe,
            Verb::PSubscribe,
            Verb::Unsubscribe,
            Verb::PUnsubscribe,
            Verb::Ping,
            Verb::Quit,
            Verb::Reset,
        ],
        in_words: "(P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET",
    };
    /// While changes are streamed.
    pub const STREAMING: Context = Context {
        allowed: &[Verb::Ping, Verb::Quit, Verb::Reset],
        in_words: "PING / QUIT / RESET",
    };
}

fn command(spec: &Spec, args: &[&[u8]], limits: &Limits) -> Result<TextCommand, String> {
    Ok(match spec.verb {
        Verb::Digest => ask(Request::Digest, Shape::Plain),
        Verb::DbSize => ask(Request::Digest, Shape::KeyCount),
        Verb::Info => TextCommand::Info {
            sections: args
                .iter()
                .map(|section| String::from_utf8_lossy(section).to_ascii_lowercase())
                .collect(),
        },
        Verb::Ping => TextCommand::Ping(args.first().map(|message| message.to_vec())),
        Verb::Echo => TextCommand::Echo(args[0].to_vec()),
        Verb::Help => TextCommand::Help,
        Verb::Quit => TextCommand::Quit,
        Verb::Reset => TextCommand::Reset,
        Verb::Hello => connection::hello(args)?,
        Verb::Auth => connection::auth(args)?,
        Verb::Select => connection::select(args[0])?,
        Verb::Client => TextCommand::Client(connection::client(args)?),
        Verb::Config => TextCommand::Config(connection::config(args)?),
        Verb::ReadOnly => TextCommand::ReadOnly(true),
        Verb::ReadWrite => TextCommand::ReadOnly(false),
        Verb::Time => TextCommand::Time,
        Verb::Command => TextCommand::Commands(catalogue::query(args)?),
        Verb::Keys => ranges::keys(args[0]),
        Verb::Scan => ranges::scan(args)?,
        Verb::Range => ranges::range(args)?,
        Verb::RandomKey => ask(Request::Read(ReadOp::RandomKey), Shape::First),
        Verb::Word(word) => TextCommand::Word(word),
        Verb::Expire
        | Verb::PExpire
        | Verb::ExpireAt
        | Verb::PExpireAt
        | Verb::Ttl
        | Verb::PTtl
        | Verb::ExpireTime
        | Verb::PExpireTime
        | Verb::Persist
        | Verb::GetEx => times::command(spec, args)?,
        Verb::FlushAll => flush(args)?,
        Verb::Function => function(args)?,
        Verb::Multi => TextCommand::Multi,
        Verb::Exec => TextCommand::Exec(None),
        Verb::Discard => TextCommand::Discard,
        Verb::Watch => TextCommand::Watch(args.iter().map(|key| (*key).into()).collect()),
        Verb::Unwatch => TextCommand::Unwatch,
        Verb::Session => session(args, limits)?,
        Verb::Why => TextCommand::Why,
        Verb::Raft => cluster::raft(args)?,
        Verb::Changes => streams::changes(args, limits)?,
        Verb::Subscribe => streams::subscribe(args, false, true)?,
        Verb::PSubscribe => streams::subscribe(args, true, true)?,
        Verb::Unsubscribe => streams::subscribe(args, false, false)?,
        Verb::PUnsubscribe => streams::subscribe(args, true, false)?,
        Verb::Sentinel => streams::sentinel(args)?,
        Verb::Role => TextCommand::Role,
        _ => strings::command(spec, args, limits)?,
    })
}

/// Of a command, while it is put together: most fit.
const ROOM_FOR_COMMAND: usize = 512;

/// A text command has no session unless it says so: it is executed as often as it is in the log, and put there
/// once.
#[inline(never)]
fn write(op: WriteOp<'_>, shape: Shape) -> TextCommand {
    ask_for_write(&Command::Write { request: None, op }, shape)
}

fn ask_for_write(command: &Command<'_>, shape: Shape) -> TextCommand {
    let mut bytes = Vec::with_capacity(ROOM_FOR_COMMAND);
    command.encode(&mut bytes);
    ask(Request::Write { command: bytes.into() }, shape)
}

/// Everything is gone at once, however it is said.
fn flush(args: &[&[u8]]) -> Result<TextCommand, String> {
    match args {
        [] => {}
        [how] if is_flush_mode(how) => {}
        _ => return Err(SYNTAX_ERROR.to_owned()),
    }
    Ok(write(WriteOp::Flush, Shape::Plain))
}

/// There is nothing to flush; clients of functions begin with that.
fn function(args: &[&[u8]]) -> Result<TextCommand, String> {
    let (name, args) = args.split_first().expect("its row asks for an argument");
    if !name.eq_ignore_ascii_case(b"flush") {
        return Err(unknown_subcommand("FUNCTION", name));
    }
    match args {
        [] => Ok(TextCommand::Ok),
        [how] if is_flush_mode(how) => Ok(TextCommand::Ok),
        _ => Err("ERR FUNCTION FLUSH only supports SYNC|ASYNC option".to_owned()),
    }
}

/// `OPEN`, or the name of a request and what it is to do.
fn session(args: &[&[u8]], limits: &Limits) -> Result<TextCommand, String> {
    if let [word] = args
        && word.eq_ignore_ascii_case(b"open")
    {
        return Ok(ask_for_write(&Command::OpenSession, Shape::Plain));
    }
    let [session, sequence, command @ ..] = args else { return Err(wrong_number("session")) };
    if command.is_empty() {
        return Err(wrong_number("session"));
    }
    let number = |bytes: &[u8]| {
        let number = parse_i64(bytes).and_then(|number| u64::try_from(number).ok());
        number.filter(|number| *number > 0).ok_or_else(|| NOT_AN_INTEGER.to_owned())
    };
    let id = RequestId { session: number(session)?, sequence: number(sequence)? };
    match parse(command, limits) {
        TextCommand::Ask { request: Request::Write { command }, shape } => {
            match Command::decode(&command) {
                Ok(Command::Write { request: None, op }) => {
                    Ok(ask_for_write(&Command::Write { request: Some(id), op }, shape))
                }
                _ => Err(NOT_IN_A_SESSION.to_owned()),
            }
        }
        TextCommand::Exec(None) => Ok(TextCommand::Exec(Some(id))),
        TextCommand::Error(error) => Err(error),
        _ => Err(NOT_IN_A_SESSION.to_owned()),
    }
}

const NOT_IN_A_SESSION: &str = "ERR SESSION takes a command that writes, or EXEC";

fn is_flush_mode(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"async") || word.eq_ignore_ascii_case(b"sync")
}

fn ask(request: Request, shape: Shape) -> TextCommand {
    TextCommand::Ask { request, shape }
}

fn owned(args: &[&[u8]]) -> Vec<Vec<u8>> {
    args.iter().map(|arg| arg.to_vec()).collect()
}

fn integer(bytes: &[u8]) -> Result<i64, String> {
    parse_i64(bytes).ok_or_else(|| NOT_AN_INTEGER.to_owned())
}

const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
const SYNTAX_ERROR: &str = "ERR syntax error";

fn wrong_number(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}

fn unknown_subcommand(command: &str, subcommand: &[u8]) -> String {
    let subcommand = start_of(subcommand, SHOWN_BYTES_MAX);
    format!("ERR unknown subcommand '{subcommand}'. Try {command} HELP.")
}

/// How much of an unknown command is repeated, in bytes (as in Redis).
const SHOWN_BYTES_MAX: usize = 128;

fn unknown_command(name: &[u8], args: &[&[u8]]) -> String {
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
