//! What the words of a text command mean, and what the answers look like in RESP.
//!
//! Names, arguments, replies and error texts are those of Redis where Redis has the command
//! (`COMMANDS.md` lists what differs). One thing is ours: errors keep apart what client libraries must
//! keep apart. They repeat a command by themselves after `CLUSTERDOWN` and `TRYAGAIN`, so these are said
//! only of commands that were certainly not carried out. If that is unknown, the error is
//! `INDETERMINATE`, which no library repeats.

mod catalogue;
mod connection;
mod ranges;
mod reply;
mod streams;
mod strings;

pub use catalogue::{CommandQuery, SPECS, Spec, Verb, Word, help, names};
pub use connection::{ClientCommand, ConfigQuery, Greeting};
pub use reply::{Reply, Shape, answer_to_resp};
pub use streams::{CHANNEL_BYTES_MAX, SentinelQuery, Subscribe};

use super::resp::{ARGUMENTS_MAX, parse_i64};
use crate::kv::{Limits, Range, ReadOp, Request};
use crate::raft::Index;

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
pub fn parse(args: &[Vec<u8>], limits: &Limits) -> TextCommand {
    if args.len() > ARGUMENTS_MAX {
        let text = format!("ERR {} arguments, the limit is {ARGUMENTS_MAX}", args.len());
        return TextCommand::Error(text);
    }
    let Some((name, args)) = args.split_first() else {
        return TextCommand::Error("ERR empty command".to_owned());
    };
    let Some(spec) = catalogue::find(name) else {
        return TextCommand::Error(unknown_command(name, args));
    };
    let (fewest, most) = spec.arguments;
    if !(fewest..=most).contains(&args.len()) {
        return TextCommand::Error(wrong_number(spec.name));
    }
    command(spec, args, limits).unwrap_or_else(TextCommand::Error)
}

/// In a context in which only a few commands are: the error for any other one that there is. `args`
/// starts with the name.
pub fn check_context(args: &[Vec<u8>], context: &Context) -> Result<(), String> {
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

fn command(spec: &Spec, args: &[Vec<u8>], limits: &Limits) -> Result<TextCommand, String> {
    Ok(match spec.verb {
        Verb::Digest => ask(Request::Digest, Shape::Plain),
        Verb::DbSize => ask(Request::Digest, Shape::KeyCount),
        Verb::Info => TextCommand::Info {
            sections: args
                .iter()
                .map(|section| String::from_utf8_lossy(section).to_ascii_lowercase())
                .collect(),
        },
        Verb::Ping => TextCommand::Ping(args.first().cloned()),
        Verb::Echo => TextCommand::Echo(args[0].clone()),
        Verb::Help => TextCommand::Help,
        Verb::Quit => TextCommand::Quit,
        Verb::Reset => TextCommand::Reset,
        Verb::Hello => connection::hello(args)?,
        Verb::Auth => connection::auth(args)?,
        Verb::Select => connection::select(&args[0])?,
        Verb::Client => TextCommand::Client(connection::client(args)?),
        Verb::Config => TextCommand::Config(connection::config(args)?),
        Verb::ReadOnly => TextCommand::ReadOnly(true),
        Verb::ReadWrite => TextCommand::ReadOnly(false),
        Verb::Time => TextCommand::Time,
        Verb::Command => TextCommand::Commands(catalogue::query(args)?),
        Verb::Keys => ranges::keys(&args[0]),
        Verb::Scan => ranges::scan(args)?,
        Verb::Range => ranges::range(args)?,
        Verb::RandomKey => ask(Request::Read(ReadOp::RandomKey), Shape::First),
        Verb::Word(word) => TextCommand::Word(word),
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

fn ask(request: Request, shape: Shape) -> TextCommand {
    TextCommand::Ask { request, shape }
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
