//! The command line of `cltraft`: words and environment in, checked [`Args`] out. Pure.

use super::lang::Lang;
use super::options::{self, Given, MAIN_JOB};
use super::servers::{self, Listen};
use super::suggest::{COMMANDS, unknown_command};
use super::units::parse_duration;
use crate::kv::{MemberRequest, VALUE_BYTES_MAX};
use crate::payload::NAME_BYTES_MAX;
use crate::raft::Index;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

/// Of one-shot commands.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of the main job, as in the practical.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);
/// Connections of `bench`, and requests under way on each: what a node takes by default.
const BENCH_CLIENTS_MAX: u64 = 10_000;
const PIPELINE_MAX: u64 = 1024;
/// Requests a second that `bench` may be asked for.
const RATE_MAX: u64 = 10_000_000;
/// Each client of `verify` is a thread.
const VERIFY_CLIENTS_MAX: u64 = 256;
const VERIFY_KEYS_MAX: u64 = 10_000;

#[derive(Debug, PartialEq, Eq)]
pub struct Args {
    pub servers: Vec<String>,
    /// Of one-shot commands; `None`: for ever.
    pub timeout: Option<Duration>,
    pub lang: Lang,
    pub output: Output,
    pub command: Command,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// The main job: write, read back, verify, wait.
    MainJob {
        interval: Duration,
        /// `None`: for ever.
        count: Option<u64>,
        prefix: String,
        /// Where it says how it goes.
        listen: Option<Listen>,
    },
    Scan(Scan),
    Bench(BenchPlan),
    Verify(VerifyPlan),
    Backup {
        file: FileName,
        /// A file that is there is replaced.
        force: bool,
    },
    Restore {
        file: FileName,
        /// Also into a cluster that holds keys.
        merge: bool,
    },
    /// Of a backup, without a cluster.
    Check {
        file: FileName,
    },
    Get {
        key: Vec<u8>,
    },
    Put {
        key: Vec<u8>,
        value: Input,
        /// How long the key is to stay; `None`: for ever.
        ttl: Option<Duration>,
    },
    /// How long a key stays.
    Ttl {
        key: Vec<u8>,
    },
    /// From now on a key stays so long; `None`: for ever.
    Expire {
        key: Vec<u8>,
        ttl: Option<Duration>,
    },
    Delete {
        key: Vec<u8>,
    },
    /// `expected` is `None` with `--absent`: the key must not exist.
    CompareAndSet {
        key: Vec<u8>,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
    },
    Increment {
        key: Vec<u8>,
        delta: i64,
    },
    Status,
    Why,
    /// A line for every change.
    Changes {
        prefix: Vec<u8>,
        from: Option<Index>,
    },
    Digest,
    /// A table of the members, from the leader.
    MemberList,
    Member(MemberRequest),
    /// Of one command, or of everything.
    Help(Option<&'static str>),
    Version,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan {
    pub prefix: Vec<u8>,
    /// Keys from here on.
    pub start: Option<Vec<u8>>,
    /// Keys before this one.
    pub end: Option<Vec<u8>>,
    pub limit: Option<u64>,
    pub keys_only: bool,
}

/// What `bench` is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchPlan {
    /// Connections.
    pub clients: usize,
    /// Requests under way on each.
    pub pipeline: usize,
    pub duration: Duration,
    /// Before the time that counts.
    pub warmup: Duration,
    pub value_bytes: usize,
    /// Different ones.
    pub keys: u64,
    /// Of the requests; the rest are writes.
    pub reads_percent: u64,
    /// Requests a second, however long answers take; `None`: as many as are answered.
    pub rate: Option<u64>,
    pub seed: u64,
}

/// What `verify` is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyPlan {
    pub clients: usize,
    pub keys: usize,
    /// `None`: until it is stopped.
    pub duration: Option<Duration>,
    pub seed: u64,
    pub prefix: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileName {
    /// Standard output or input.
    Standard,
    Path(PathBuf),
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// For people.
    Table,
    /// One object, or one on each line.
    Json,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    Literal(Vec<u8>),
    Stdin,
}

/// Reads the words after the program's name. An error is a whole message, for people.
pub fn parse(
    words: impl IntoIterator<Item = OsString>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Args, String> {
    let given = Given::read(lexopt::Parser::from_args(words))?;
    let command = command(&given, env)?;
    let servers = match &command {
        Command::Help(_) | Command::Version | Command::Check { .. } => Vec::new(),
        _ => servers::servers(given.text("servers"), env)?,
    };
    let lang = match given.text("lang") {
        None => Lang::from_env(env),
        Some(name) => {
            Lang::parse(name).ok_or(format!("--lang {name}: the languages are en and es"))?
        }
    };
    let output = match given.text("output") {
        None | Some("table") => Output::Table,
        Some("json") => Output::Json,
        Some(other) => return Err(format!("--output {other}: there is table and json")),
    };
    let timeout = given.duration("timeout")?.unwrap_or(DEFAULT_TIMEOUT);
    Ok(Args { servers, timeout: (!timeout.is_zero()).then_some(timeout), lang, output, command })
}

fn command(given: &Given, env: &dyn Fn(&str) -> Option<String>) -> Result<Command, String> {
    let Some((name, rest)) = given.words.split_first() else {
        return without_command(given, env);
    };
    let name = String::from_utf8_lossy(name);
    let Some((known, usage)) = COMMANDS.into_iter().find(|(known, _)| *known == name) else {
        return Err(unknown_command(&name));
    };
    if given.has("help") {
        return Ok(Command::Help(Some(known)));
    }
    if let Some(option) = given.stranger(known) {
        return Err(format!("--{option} does not belong to '{known}': write {usage}"));
    }
    let wrong = |what: &str| format!("'{known}' {what}: write {usage}");
    build(known, rest, given)?.map_err(|what| wrong(&what))
}

fn without_command(given: &Given, env: &dyn Fn(&str) -> Option<String>) -> Result<Command, String> {
    if given.has("help") {
        return Ok(Command::Help(None));
    }
    if given.has("version") {
        return Ok(Command::Version);
    }
    if given.has("timeout") {
        return Err("--timeout needs a command; without one cltraft goes on for ever".to_owned());
    }
    if let Some(option) = given.stranger(MAIN_JOB) {
        let owner = options::owner(option).expect("what belongs to all is no stranger");
        let usage = COMMANDS.into_iter().find(|(known, _)| *known == owner);
        let usage = usage.map_or("", |(_, usage)| usage);
        return Err(format!("--{option} belongs to '{owner}': write {usage}"));
    }
    Ok(Command::MainJob {
        interval: given.duration("interval")?.unwrap_or(DEFAULT_INTERVAL),
        count: given.number("count", 1..=u64::MAX)?,
        prefix: given.text("prefix").unwrap_or_default().to_owned(),
        listen: servers::listen(given.text("listen"), env)?,
    })
}

/// The command from its words and options. The outer error is about an option, a whole message; the inner one
/// says what is wrong with the words.
fn build(name: &str, words: &[Vec<u8>], given: &Given) -> Result<Result<Command, String>, String> {
    Ok(match (name, words) {
        ("scan", [] | [_]) => Ok(Command::Scan(scan(words, given)?)),
        ("bench", []) => Ok(Command::Bench(bench(given)?)),
        ("verify", []) => Ok(Command::Verify(verify(given)?)),
        ("backup", [file]) => {
            Ok(Command::Backup { file: file_of(file), force: given.has("force") })
        }
        ("restore", [file]) => {
            Ok(Command::Restore { file: file_of(file), merge: given.has("merge") })
        }
        ("put", [key, value]) => {
            let ttl = given.duration("ttl")?;
            if ttl.is_some_and(|ttl| ttl.as_millis() == 0) {
                return Err("--ttl 0: a key stays for a millisecond at least".to_owned());
            }
            Ok(Command::Put { key: key.clone(), value: value_of(value), ttl })
        }
        ("ttl", [key]) => Ok(Command::Ttl { key: key.clone() }),
        ("expire", [key, time]) => {
            expire_time(time).map(|ttl| Command::Expire { key: key.clone(), ttl })
        }
        ("changes", []) => Ok(Command::Changes {
            prefix: given.text("prefix").unwrap_or_default().as_bytes().to_vec(),
            from: match given.text("from") {
                Some(text) => {
                    let index = text.parse();
                    Some(index.map_err(|_| format!("--from {text}: not a log index"))?)
                }
                None => None,
            },
        }),
        ("check", [file]) => Ok(Command::Check { file: file_of(file) }),
        _ => build_from_words(name, words, given.has("absent")),
    })
}

fn scan(words: &[Vec<u8>], given: &Given) -> Result<Scan, String> {
    Ok(Scan {
        prefix: words.first().cloned().unwrap_or_default(),
        start: given.bytes("start").map(<[u8]>::to_vec),
        end: given.bytes("end").map(<[u8]>::to_vec),
        limit: given.number("limit", 1..=u64::MAX)?,
        keys_only: given.has("keys-only"),
    })
}

fn bench(given: &Given) -> Result<BenchPlan, String> {
    let number =
        |name, range, default| Ok::<_, String>(given.number(name, range)?.unwrap_or(default));
    Ok(BenchPlan {
        clients: number("clients", 1..=BENCH_CLIENTS_MAX, 16)? as usize,
        // In an open loop it is only a limit, and one that should not be met.
        pipeline: number("pipeline", 1..=PIPELINE_MAX, if given.has("rate") { 64 } else { 1 })?
            as usize,
        duration: given.duration("duration")?.unwrap_or(Duration::from_secs(10)),
        warmup: given.duration("warmup")?.unwrap_or(Duration::from_secs(1)),
        value_bytes: number("value-size", 0..=VALUE_BYTES_MAX as u64, 100)? as usize,
        keys: number("keys", 1..=u64::MAX, 10_000)?,
        reads_percent: number("reads", 0..=100, 0)?,
        rate: given.number("rate", 1..=RATE_MAX)?,
        seed: number("seed", 0..=u64::MAX, fastrand::u64(..))?,
    })
}

fn verify(given: &Given) -> Result<VerifyPlan, String> {
    let number =
        |name, range, default| Ok::<_, String>(given.number(name, range)?.unwrap_or(default));
    let seed = number("seed", 0..=u64::MAX, fastrand::u64(..))?;
    Ok(VerifyPlan {
        clients: number("clients", 1..=VERIFY_CLIENTS_MAX, 8)? as usize,
        keys: number("keys", 1..=VERIFY_KEYS_MAX, 5)? as usize,
        // As long as nobody stops it, unless somebody says how long.
        duration: given.duration("duration")?,
        seed,
        prefix: match given.text("prefix") {
            Some(prefix) => prefix.to_owned(),
            None => format!("verify-{:08x}/", fastrand::u32(..)),
        },
    })
}

fn expire_time(word: &[u8]) -> Result<Option<Duration>, String> {
    if word == b"never" {
        return Ok(None);
    }
    let text = std::str::from_utf8(word).map_err(|_| "needs a TIME such as 10s".to_owned())?;
    parse_duration(text).map(Some).map_err(|error| format!("cannot use this TIME ({error})"))
}

fn file_of(word: &[u8]) -> FileName {
    if word == b"-" {
        FileName::Standard
    } else {
        FileName::Path(OsString::from_vec(word.to_vec()).into())
    }
}

/// The commands that are words only; the error says what is wrong with them.
fn build_from_words(name: &str, words: &[Vec<u8>], absent: bool) -> Result<Command, String> {
    match (name, words) {
        ("get", [key]) => Ok(Command::Get { key: key.clone() }),
        ("del", [key]) => Ok(Command::Delete { key: key.clone() }),
        ("cas", [key, value]) if absent => {
            Ok(Command::CompareAndSet { key: key.clone(), expected: None, value: value.clone() })
        }
        ("cas", [key, old, new]) if !absent => Ok(Command::CompareAndSet {
            key: key.clone(),
            expected: Some(old.clone()),
            value: new.clone(),
        }),
        ("incr", [key]) => Ok(Command::Increment { key: key.clone(), delta: 1 }),
        ("incr", [key, delta]) => {
            let delta = std::str::from_utf8(delta).ok().and_then(|text| text.parse().ok());
            let delta = delta.ok_or("needs a whole 64-bit number as DELTA")?;
            Ok(Command::Increment { key: key.clone(), delta })
        }
        ("member", words) => member(words),
        ("transfer", []) => Ok(Command::Member(MemberRequest::Transfer { to: None })),
        ("transfer", [node]) => {
            Ok(Command::Member(MemberRequest::Transfer { to: Some(node_name(node)?) }))
        }
        ("status", []) => Ok(Command::Status),
        ("why", []) => Ok(Command::Why),
        ("digest", []) => Ok(Command::Digest),
        ("help", []) => Ok(Command::Help(None)),
        ("help", [topic]) => {
            let topic = String::from_utf8_lossy(topic);
            match COMMANDS.into_iter().find(|(known, _)| *known == topic) {
                Some((known, _)) => Ok(Command::Help(Some(known))),
                None => Err(format!("knows no '{topic}'")),
            }
        }
        _ => Err(wrong_number(words.len())),
    }
}

/// `member`, and what comes after it.
fn member(words: &[Vec<u8>]) -> Result<Command, String> {
    let Some((action, rest)) = words.split_first() else { return Err(wrong_number(0)) };
    match (action.as_slice(), rest) {
        (b"list", []) => Ok(Command::MemberList),
        (b"add", [name]) => Ok(Command::Member(MemberRequest::Add { name: node_name(name)? })),
        (b"promote", [name]) => {
            Ok(Command::Member(MemberRequest::Promote { name: node_name(name)? }))
        }
        (b"remove", [name]) => {
            Ok(Command::Member(MemberRequest::Remove { name: node_name(name)? }))
        }
        (b"list" | b"add" | b"promote" | b"remove", _) => Err(wrong_number(words.len())),
        _ => {
            let action = String::from_utf8_lossy(action);
            let action: String = action.chars().filter(|c| !c.is_control()).take(40).collect();
            Err(format!("knows no '{action}'"))
        }
    }
}

/// Such as `raft-2`: the number alone could be anybody's.
fn node_name(word: &[u8]) -> Result<String, String> {
    let name = std::str::from_utf8(word).ok().filter(|name| !name.contains(char::is_control));
    let name = name.ok_or("needs a node's name in UTF-8")?;
    let is_name = name.len() <= NAME_BYTES_MAX
        && name
            .rsplit_once('-')
            .is_some_and(|(prefix, number)| !prefix.is_empty() && number.parse::<u16>().is_ok());
    if is_name {
        return Ok(name.to_owned());
    }
    let name: String = name.chars().take(40).collect();
    Err(format!("needs a node's name, such as raft-2, not '{name}'"))
}

fn wrong_number(words: usize) -> String {
    match words {
        0 => "needs more words".to_owned(),
        1 => "can't be done with 1 word".to_owned(),
        _ => format!("can't be done with {words} words (a value with spaces needs quotes)"),
    }
}

fn value_of(word: &[u8]) -> Input {
    if word == b"-" { Input::Stdin } else { Input::Literal(word.to_vec()) }
}
