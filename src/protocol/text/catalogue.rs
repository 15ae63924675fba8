//! The table of all text commands: behind `HELP`, `COMMAND`, the number of arguments, and `COMMANDS.md`.

use super::{unknown_subcommand, wrong_number};
use crate::protocol::resp::{
    Version, put_array, put_bulk, put_integer, put_map, put_null, put_simple,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Set,
    SetNx,
    SetEx,
    PSetEx,
    GetSet,
    GetDel,
    GetEx,
    Expire,
    PExpire,
    ExpireAt,
    PExpireAt,
    Ttl,
    PTtl,
    ExpireTime,
    PExpireTime,
    Persist,
    FlushAll,
    Function,
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
    Session,
    Get,
    MGet,
    MSet,
    StrLen,
    Append,
    Exists,
    Type,
    Keys,
    Scan,
    RandomKey,
    Range,
    Del,
    DelIfEq,
    Cas,
    Incr,
    Decr,
    IncrBy,
    DecrBy,
    DbSize,
    Digest,
    Info,
    Why,
    Raft,
    Time,
    Config,
    Command,
    Help,
    Ping,
    Echo,
    Hello,
    Auth,
    Select,
    Client,
    ReadOnly,
    ReadWrite,
    Reset,
    Quit,
    Changes,
    Subscribe,
    PSubscribe,
    Unsubscribe,
    PUnsubscribe,
    Role,
    Sentinel,
    Word(Word),
}

/// What ZooKeeper's tools ask for in four letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    Ruok,
    Srvr,
    Mntr,
    Isro,
    Conf,
}

/// Whom a command is about, which is also Redis's group of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Read,
    Write,
    /// Changes keys, whatever their type.
    Keyspace,
    Transactions,
    Server,
    Connection,
    PubSub,
}

pub struct Spec {
    pub verb: Verb,
    /// In lower case.
    pub name: &'static str,
    pub usage: &'static str,
    pub summary: &'static str,
    /// Fewest and most arguments after the name.
    pub arguments: (usize, usize),
    group: Group,
    /// The places of the first and the last key, and how far they are apart; all 0: there is none.
    keys: (i64, i64, i64),
}

const ANY: usize = usize::MAX;
const NO_KEY: (i64, i64, i64) = (0, 0, 0);
const ONE_KEY: (i64, i64, i64) = (1, 1, 1);
const ALL_KEYS: (i64, i64, i64) = (1, -1, 1);
const PAIRS: (i64, i64, i64) = (1, -1, 2);

use Group::{Connection, Keyspace, PubSub, Read, Server, Transactions, Write};

#[rustfmt::skip]
pub const SPECS: &[Spec] = &[
    spec(Verb::Set, "set",
        "SET key value [NX|XX|IFEQ old] [GET] [EX s|PX ms|EXAT s|PXAT ms|KEEPTTL]",
        "store a value, if the condition holds", (2, ANY), Write, ONE_KEY),
    spec(Verb::SetEx, "setex", "SETEX key seconds value",
        "store a value for some seconds", (3, 3), Write, ONE_KEY),
    spec(Verb::PSetEx, "psetex", "PSETEX key milliseconds value",
        "store a value for some milliseconds", (3, 3), Write, ONE_KEY),
    spec(Verb::SetNx, "setnx", "SETNX key value",
        "store a value if there is none: 1 if so, else 0", (2, 2), Write, ONE_KEY),
    spec(Verb::GetSet, "getset", "GETSET key value",
        "store a value, the one from before", (2, 2), Write, ONE_KEY),
    spec(Verb::GetDel, "getdel", "GETDEL key", "remove a key, its value", (1, 1), Write, ONE_KEY),
    spec(Verb::GetEx, "getex", "GETEX key [EX s|PX ms|EXAT s|PXAT ms|PERSIST]",
        "the value, and say anew when the key goes", (1, ANY), Write, ONE_KEY),
    spec(Verb::Get, "get", "GET key", "the value, or nothing", (1, 1), Read, ONE_KEY),
    spec(Verb::MGet, "mget", "MGET key [key ...]",
        "the values of several keys", (1, ANY), Read, ALL_KEYS),
    spec(Verb::MSet, "mset", "MSET key value [key value ...]",
        "store several values at once", (2, ANY), Write, PAIRS),
    spec(Verb::StrLen, "strlen", "STRLEN key",
        "the length of the value, 0 if there is none", (1, 1), Read, ONE_KEY),
    spec(Verb::Append, "append", "APPEND key value",
        "add to the end of the value, its length", (2, 2), Write, ONE_KEY),
    spec(Verb::Exists, "exists", "EXISTS key [key ...]",
        "how many of the keys exist", (1, ANY), Read, ALL_KEYS),
    spec(Verb::Type, "type", "TYPE key", "string, or none", (1, 1), Read, ONE_KEY),
    spec(Verb::Keys, "keys", "KEYS pattern", "the keys that fit", (1, 1), Read, NO_KEY),
    spec(Verb::Scan, "scan", "SCAN cursor [MATCH pattern] [COUNT n] [TYPE type]",
        "keys in steps, from cursor 0 to cursor 0", (1, ANY), Read, NO_KEY),
    spec(Verb::RandomKey, "randomkey", "RANDOMKEY", "any key", (0, 0), Read, NO_KEY),
    spec(Verb::Range, "range", "RANGE start end [LIMIT n] [REV]",
        "keys and values in order; end is not included, \"\" is no end", (2, ANY), Read, NO_KEY),
    spec(Verb::Del, "del", "DEL key [key ...]",
        "remove keys: how many there were", (1, ANY), Write, ALL_KEYS),
    spec(Verb::Del, "unlink", "UNLINK key [key ...]", "the same as DEL", (1, ANY), Write, ALL_KEYS),
    spec(Verb::DelIfEq, "delifeq", "DELIFEQ key value",
        "remove the key if it has the value: 1 if so, else 0", (2, 2), Write, ONE_KEY),
    spec(Verb::Cas, "cas", "CAS key old new",
        "store new if the value is old: 1 if so, else 0", (3, 3), Write, ONE_KEY),
    spec(Verb::Incr, "incr", "INCR key", "add 1 to a number, the result", (1, 1), Write, ONE_KEY),
    spec(Verb::Decr, "decr", "DECR key", "subtract 1 from a number, the result", (1, 1), Write, ONE_KEY),
    spec(Verb::IncrBy, "incrby", "INCRBY key n",
        "add n to a number, the result", (2, 2), Write, ONE_KEY),
    spec(Verb::DecrBy, "decrby", "DECRBY key n",
        "subtract n from a number, the result", (2, 2), Write, ONE_KEY),
    spec(Verb::Expire, "expire", "EXPIRE key seconds [NX|XX|GT|LT]",
        "let a key go after some time: 1 if so, else 0", (2, ANY), Keyspace, ONE_KEY),
    spec(Verb::PExpire, "pexpire", "PEXPIRE key milliseconds [NX|XX|GT|LT]",
        "the same in milliseconds", (2, ANY), Keyspace, ONE_KEY),
    spec(Verb::ExpireAt, "expireat", "EXPIREAT key unix-seconds [NX|XX|GT|LT]",
        "let a key go at a time: 1 if so, else 0", (2, ANY), Keyspace, ONE_KEY),
    spec(Verb::PExpireAt, "pexpireat", "PEXPIREAT key unix-milliseconds [NX|XX|GT|LT]",
        "the same in milliseconds", (2, ANY), Keyspace, ONE_KEY),
    spec(Verb::Persist, "persist", "PERSIST key",
        "let a key stay: 1 if it had a time, else 0", (1, 1), Keyspace, ONE_KEY),
    spec(Verb::Ttl, "ttl", "TTL key",
        "the seconds that a key has left; -1: it stays, -2: there is none", (1, 1), Read, ONE_KEY),
    spec(Verb::PTtl, "pttl", "PTTL key", "the same in milliseconds", (1, 1), Read, ONE_KEY),
    spec(Verb::ExpireTime, "expiretime", "EXPIRETIME key",
        "the time at which a key goes; -1: it stays, -2: there is none", (1, 1), Read, ONE_KEY),
    spec(Verb::PExpireTime, "pexpiretime", "PEXPIRETIME key",
        "the same in milliseconds", (1, 1), Read, ONE_KEY),
    spec(Verb::FlushAll, "flushall", "FLUSHALL [ASYNC|SYNC]",
        "remove all keys", (0, ANY), Server, NO_KEY),
    spec(Verb::FlushAll, "flushdb", "FLUSHDB [ASYNC|SYNC]",
        "remove all keys", (0, ANY), Server, NO_KEY),
    spec(Verb::Function, "function", "FUNCTION FLUSH [ASYNC|SYNC]",
        "there are no functions here", (1, ANY), Server, NO_KEY),
    spec(Verb::Multi, "multi", "MULTI",
        "queue what follows, for EXEC", (0, 0), Transactions, NO_KEY),
    spec(Verb::Exec, "exec", "EXEC",
        "carry out all that is queued as one", (0, 0), Transactions, NO_KEY),
    spec(Verb::Discard, "discard", "DISCARD",
        "forget what is queued and watched", (0, 0), Transactions, NO_KEY),
    spec(Verb::Watch, "watch", "WATCH key [key ...]",
        "let EXEC do nothing if one of the keys changes", (1, ANY), Transactions, ALL_KEYS),
    spec(Verb::Unwatch, "unwatch", "UNWATCH",
        "forget the watched keys", (0, 0), Transactions, NO_KEY),
    spec(Verb::Session, "session", "SESSION OPEN|id sequence command",
        "carry out a write once, however often it is sent", (1, ANY), Transactions, NO_KEY),
    spec(Verb::DbSize, "dbsize", "DBSIZE", "how many keys there are", (0, 0), Server, NO_KEY),
    spec(Verb::Digest, "digest", "DIGEST", "a hash of everything stored", (0, 0), Server, NO_KEY),
    spec(Verb::Info, "info", "INFO [section ...]", "the state of this node", (0, ANY), Server, NO_KEY),
    spec(Verb::Why, "why", "WHY",
        "why there is no leader, or what else is wrong, in words", (0, 0), Server, NO_KEY),
    spec(Verb::Raft, "raft", "RAFT STATUS|LEADER|MEMBERS|TRANSFER|ADD|PROMOTE|REMOVE|HELP [name]",
        "the cluster: who belongs to it and who leads, and changes of both", (1, ANY), Server, NO_KEY),
    spec(Verb::Time, "time", "TIME", "this node's clock: seconds, microseconds", (0, 0), Server, NO_KEY),
    spec(Verb::Config, "config", "CONFIG GET pattern [pattern ...]",
        "some settings, under Redis's names", (1, ANY), Server, NO_KEY),
    spec(Verb::Command, "command", "COMMAND [COUNT|DOCS|INFO] [name ...]",
        "the commands there are", (0, ANY), Server, NO_KEY),
    spec(Verb::Help, "help", "HELP", "this list", (0, ANY), Server, NO_KEY),
    spec(Verb::Ping, "ping", "PING [message]", "PONG, or the message", (0, 1), Connection, NO_KEY),
    spec(Verb::Echo, "echo", "ECHO message", "the message", (1, 1), Connection, NO_KEY),
    spec(Verb::Hello, "hello", "HELLO [2|3 [AUTH user password] [SETNAME name]]",
        "RESP2 or RESP3 from here on", (0, ANY), Connection, NO_KEY),
    spec(Verb::Auth, "auth", "AUTH [user] password",
        "there are no passwords here", (1, 2), Connection, NO_KEY),
    spec(Verb::Select, "select", "SELECT 0", "there is one database", (1, 1), Connection, NO_KEY),
    spec(Verb::Client, "client", "CLIENT ID|INFO|GETNAME|SETNAME|SETINFO",
        "this connection", (1, ANY), Connection, NO_KEY),
    spec(Verb::ReadOnly, "readonly", "READONLY",
        "reads of this connection may be stale", (0, 0), Connection, NO_KEY),
    spec(Verb::ReadWrite, "readwrite", "READWRITE",
        "reads of this connection are linearizable", (0, 0), Connection, NO_KEY),
    spec(Verb::Reset, "reset", "RESET", "the connection is as new", (0, 0), Connection, NO_KEY),
    spec(Verb::Quit, "quit", "QUIT", "close the connection", (0, ANY), Connection, NO_KEY),
    spec(Verb::Changes, "changes", "CHANGES [PREFIX prefix] [FROM index]",
        "from here on every change, in the order of the log", (0, ANY), PubSub, NO_KEY),
    spec(Verb::Subscribe, "subscribe", "SUBSCRIBE channel [channel ...]",
        "be told of what happens", (1, ANY), PubSub, NO_KEY),
    spec(Verb::PSubscribe, "psubscribe", "PSUBSCRIBE pattern [pattern ...]",
        "the same, for all channels that fit", (1, ANY), PubSub, NO_KEY),
    spec(Verb::Unsubscribe, "unsubscribe", "UNSUBSCRIBE [channel ...]",
        "be told no more, or not of these", (0, ANY), PubSub, NO_KEY),
    spec(Verb::PUnsubscribe, "punsubscribe", "PUNSUBSCRIBE [pattern ...]",
        "the same, for patterns", (0, ANY), PubSub, NO_KEY),
    spec(Verb::Role, "role", "ROLE", "whether this node leads", (0, 0), Server, NO_KEY),
    spec(Verb::Sentinel, "sentinel", "SENTINEL subcommand [name]",
        "where the leader is, and who else there is", (1, 2), Server, NO_KEY),
    spec(Verb::Word(Word::Ruok), "ruok", "ruok", "imok", (0, 0), Server, NO_KEY),
    spec(Verb::Word(Word::Srvr), "srvr", "srvr", "this node in a few lines", (0, 0), Server, NO_KEY),
    spec(Verb::Word(Word::Mntr), "mntr", "mntr",
        "names and values for monitoring", (0, 0), Server, NO_KEY),
    spec(Verb::Word(Word::Isro), "isro", "isro",
        "rw if there is a leader, else ro", (0, 0), Server, NO_KEY),
    spec(Verb::Word(Word::Conf), "conf", "conf",
        "the configuration of this node", (0, 0), Server, NO_KEY),
];

const fn spec(
    verb: Verb,
    name: &'static str,
    usage: &'static str,
    summary: &'static str,
    arguments: (usize, usize),
    group: Group,
    keys: (i64, i64, i64),
) -> Spec {
    Spec { verb, name, usage, summary, arguments, group, keys }
}

#[inline(never)]
pub(super) fn find(name: &[u8]) -> Option<&'static Spec> {
    SPECS.iter().find(|spec| name.eq_ignore_ascii_case(spec.name.as_bytes()))
}

/// Of all commands, in lower case.
pub fn names() -> impl Iterator<Item = &'static str> {
    SPECS.iter().map(|spec| spec.name)
}

/// Every command with one line each.
pub fn help() -> String {
    let width = SPECS.iter().map(|spec| spec.usage.len()).max().unwrap_or(0);
    let mut text = String::new();
    for spec in SPECS {
        text.push_str(&format!("{:width$}  {}\n", spec.usage, spec.summary));
    }
    text.push_str("Quote with \"...\" or '...'; numbers are 64-bit integers. Any node answers.\n");
    text
}

/// What `COMMAND` asks for. Names of no command are `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandQuery {
    Count,
    Info(Vec<Option<&'static str>>),
    Docs(Vec<&'static str>),
}

pub(super) fn query(args: &[&[u8]]) -> Result<CommandQuery, String> {
    let Some((what, wanted)) = args.split_first() else {
        return Ok(CommandQuery::Info(names().map(Some).collect()));
    };
    let known = |name: &&[u8]| find(name).map(|spec| spec.name);
    match what.to_ascii_lowercase().as_slice() {
        b"count" if wanted.is_empty() => Ok(CommandQuery::Count),
        b"count" => Err(wrong_number("command|count")),
        b"info" if wanted.is_empty() => Ok(CommandQuery::Info(names().map(Some).collect())),
        b"info" => Ok(CommandQuery::Info(wanted.iter().map(known).collect())),
        b"docs" if wanted.is_empty() => Ok(CommandQuery::Docs(names().collect())),
        b"docs" => Ok(CommandQuery::Docs(wanted.iter().filter_map(known).collect())),
        _ => Err(unknown_subcommand("COMMAND", what)),
    }
}

impl CommandQuery {
    /// Of what it carries.
    pub fn bytes(&self) -> usize {
        match self {
            CommandQuery::Count => 0,
            CommandQuery::Info(wanted) => size_of_val(&wanted[..]),
            CommandQuery::Docs(wanted) => size_of_val(&wanted[..]),
        }
    }

    pub fn put_reply(&self, out: &mut Vec<u8>, version: Version) {
        match self {
            CommandQuery::Count => put_integer(out, SPECS.len() as i64),
            CommandQuery::Info(wanted) => {
                put_array(out, wanted.len());
                for name in wanted {
                    match name.and_then(|name| find(name.as_bytes())) {
                        Some(spec) => spec.put_info(out),
                        None if version == Version::Resp2 => out.extend_from_slice(b"*-1\r\n"),
                        None => put_null(out, version),
                    }
                }
            }
            CommandQuery::Docs(wanted) => {
                put_map(out, version, wanted.len());
                for spec in wanted.iter().filter_map(|name| find(name.as_bytes())) {
                    put_bulk(out, spec.name.as_bytes());
                    spec.put_docs(out, version);
                }
            }
        }
    }
}

impl Spec {
    /// Name, arity, flags, places of keys; then categories, hints, more places of keys, and subcommands,
    /// of which there is nothing to say.
    fn put_info(&self, out: &mut Vec<u8>) {
        put_array(out, 10);
        put_bulk(out, self.name.as_bytes());
        put_integer(out, self.arity());
        let flags = self.flags();
        put_array(out, flags.len());
        flags.iter().for_each(|flag| put_simple(out, flag));
        let (first, last, step) = self.keys;
        [first, last, step].iter().for_each(|place| put_integer(out, *place));
        (0..4).for_each(|_| put_array(out, 0));
    }

    /// The number of words, the name included; if it is but the least, negative.
    fn arity(&self) -> i64 {
        let (fewest, most) = self.arguments;
        let least = fewest as i64 + 1;
        if fewest == most { least } else { -least }
    }

    fn flags(&self) -> &'static [&'static str] {
        match self.group {
            Group::Read => &["readonly"],
            Group::Write => &["write", "denyoom"],
            Group::Keyspace => &["write", "fast"],
            Group::Server | Group::Transactions => &[],
            Group::PubSub => &["pubsub", "noscript", "loading", "stale"],
            Group::Connection => &["fast"],
        }
    }

    fn put_docs(&self, out: &mut Vec<u8>, version: Version) {
        let group = match self.group {
            Group::Read | Group::Write => "string",
            Group::Keyspace => "generic",
            Group::Transactions => "transactions",
            Group::Server => "server",
            Group::Connection => "connection",
            Group::PubSub => "pubsub",
        };
        put_map(out, version, 3);
        let since = env!("CARGO_PKG_VERSION");
        for (name, value) in [("summary", self.summary), ("since", since), ("group", group)] {
            put_bulk(out, name.as_bytes());
            put_bulk(out, value.as_bytes());
        }
    }
}
