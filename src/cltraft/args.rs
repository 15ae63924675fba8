//! The command line of `cltraft`: words and environment in, checked [`Args`] out. Pure.

use super::lang::Lang;
use super::suggest::{COMMANDS, unknown_command, unknown_option};
use super::units::parse_duration;
use crate::client::parse_address;
use crate::kv::MemberRequest;
use crate::payload::NAME_BYTES_MAX;
use crate::raft::Index;
use lexopt::prelude::*;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

/// The three nodes of one machine.
const DEFAULT_SERVERS: &str = "127.0.0.1:6000,127.0.0.1:6001,127.0.0.1:6002";
/// The port if an address names none, and of every node in Kubernetes.
const CLUSTER_PORT: u16 = 6000;
/// Of one-shot commands.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of the main job, as in the practical.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);
const REPLICAS_MAX: u64 = 99;

#[derive(Debug, PartialEq, Eq)]
pub struct Args {
    pub servers: Vec<String>,
    /// Of one-shot commands; `None`: for ever.
    pub timeout: Option<Duration>,
    pub lang: Lang,
    pub command: Command,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// The main job: write, read back, verify, wait.
    Verify {
        interval: Duration,
        /// `None`: for ever.
        count: Option<u64>,
        prefix: String,
    },
    Get {
        key: Vec<u8>,
    },
    Put {
        key: Vec<u8>,
        value: Input,
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

#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    Literal(Vec<u8>),
    Stdin,
}

/// Everything as it was typed, before it is known to make sense.
#[derive(Default)]
struct Raw {
    words: Vec<Vec<u8>>,
    servers: Option<String>,
    timeout: Option<Duration>,
    lang: Option<Lang>,
    interval: Option<Duration>,
    count: Option<u64>,
    prefix: Option<String>,
    from: Option<Index>,
    absent: bool,
    help: bool,
    version: bool,
}

/// Reads the words after the program's name. An error is a whole message, for people.
pub fn parse(
    words: impl IntoIterator<Item = OsString>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Args, String> {
    let raw = read(lexopt::Parser::from_args(words))?;
    let command = command(&raw)?;
    let servers = match &command {
        Command::Help(_) | Command::Version => Vec::new(),
        _ => servers(raw.servers.as_deref(), env)?,
    };
    let lang = raw.lang.unwrap_or_else(|| Lang::from_env(env));
    let timeout = raw.timeout.unwrap_or(DEFAULT_TIMEOUT);
    Ok(Args { servers, timeout: (!timeout.is_zero()).then_some(timeout), lang, command })
}

fn read(mut parser: lexopt::Parser) -> Result<Raw, String> {
    let mut raw = Raw::default();
    loop {
        if let Some(number) = negative_number(&mut parser) {
            raw.words.push(number);
            continue;
        }
        match parser.next().map_err(|error| error.to_string())? {
            None => return Ok(raw),
            Some(Value(word)) => raw.words.push(word.into_vec()),
            Some(Short('h')) => raw.help = true,
            Some(Short('V')) => raw.version = true,
            Some(Short(letter)) => {
                let dash = "if it is a key or value, put -- before it";
                return Err(format!("there is no option -{letter} ({dash})"));
            }
            Some(Long(name)) => {
                let name = name.to_owned();
                option(&mut raw, &name, &mut parser)?;
            }
        }
    }
}

/// `-5` is a number here, as no option is a digit.
fn negative_number(parser: &mut lexopt::Parser) -> Option<Vec<u8>> {
    let mut words = parser.try_raw_args()?;
    let word = words.peek()?.to_str()?;
    let digits = word.strip_prefix('-')?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    words.next().map(OsString::into_vec)
}

fn option(raw: &mut Raw, name: &str, parser: &mut lexopt::Parser) -> Result<(), String> {
    match name {
        "absent" => raw.absent = true,
        "help" => raw.help = true,
        "version" => raw.version = true,
        "servers" => raw.servers = Some(text(name, parser)?),
        "prefix" => raw.prefix = Some(text(name, parser)?),
        "timeout" => raw.timeout = Some(duration(name, parser)?),
        "interval" => raw.interval = Some(duration(name, parser)?),
        "lang" => {
            let value = text(name, parser)?;
            let known = Lang::parse(&value);
            raw.lang = Some(known.ok_or(format!("--lang {value}: the languages are en and es"))?);
        }
        "count" => {
            let value = text(name, parser)?;
            let number = value.parse().ok().filter(|count| *count > 0);
            raw.count = Some(number.ok_or(format!("--count {value}: not a number above 0"))?);
        }
        "from" => {
            let value = text(name, parser)?;
            let index = value.parse().map_err(|_| format!("--from {value}: not a log index"))?;
            raw.from = Some(index);
        }
        unknown => return Err(unknown_option(unknown)),
    }
    Ok(())
}

fn text(name: &str, parser: &mut lexopt::Parser) -> Result<String, String> {
    let value = parser.value().map_err(|_| format!("--{name} needs a value"))?;
    value.into_string().map_err(|_| format!("--{name}: the value is not UTF-8 text"))
}

fn duration(name: &str, parser: &mut lexopt::Parser) -> Result<Duration, String> {
    parse_duration(&text(name, parser)?).map_err(|error| format!("--{name}: {error}"))
}

fn command(raw: &Raw) -> Result<Command, String> {
    let Some((name, rest)) = raw.words.split_first() else {
        return without_command(raw);
    };
    let name = String::from_utf8_lossy(name);
    let Some((known, usage)) = COMMANDS.into_iter().find(|(known, _)| *known == name) else {
        return Err(unknown_command(&name));
    };
    if raw.help {
        return Ok(Command::Help(Some(known)));
    }
    for (given, option) in [
        (raw.interval.is_some(), "interval"),
        (raw.count.is_some(), "count"),
        (raw.prefix.is_some() && known != "changes", "prefix"),
        (raw.from.is_some() && known != "changes", "from"),
        (raw.absent && known != "cas", "absent"),
    ] {
        if given {
            return Err(format!("--{option} does not belong to '{known}': write {usage}"));
        }
    }
    let wrong = |what: &str| format!("'{known}' {what}: write {usage}");
    if let ("changes", []) = (known, rest) {
        let prefix = raw.prefix.clone().unwrap_or_default().into_bytes();
        return Ok(Command::Changes { prefix, from: raw.from });
    }
    build(known, rest, raw.absent).map_err(|what| wrong(&what))
}

fn without_command(raw: &Raw) -> Result<Command, String> {
    if raw.help {
        return Ok(Command::Help(None));
    }
    if raw.version {
        return Ok(Command::Version);
    }
    if raw.absent {
        return Err("--absent belongs to 'cas': write cltraft cas --absent KEY NEW".to_owned());
    }
    if raw.from.is_some() {
        return Err("--from belongs to 'changes': write cltraft changes --from INDEX".to_owned());
    }
    if raw.timeout.is_some() {
        return Err("--timeout needs a command; without one cltraft goes on for ever".to_owned());
    }
    Ok(Command::Verify {
        interval: raw.interval.unwrap_or(DEFAULT_INTERVAL),
        count: raw.count,
        prefix: raw.prefix.clone().unwrap_or_default(),
    })
}

/// The command from its words; the error says what is wrong with them.
fn build(name: &str, words: &[Vec<u8>], absent: bool) -> Result<Command, String> {
    match (name, words) {
        ("get", [key]) => Ok(Command::Get { key: key.clone() }),
        ("put", [key, value]) => Ok(Command::Put { key: key.clone(), value: value_of(value) }),
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

/// Where the cluster is: the option, then the environment, then the local three.
fn servers(
    option: Option<&str>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<String>, String> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    if let Some(list) = option {
        return address_list("--servers", list);
    }
    if let Some(list) = set("RAFTKV_SERVERS") {
        return address_list("RAFTKV_SERVERS", &list);
    }
    let Some(domain) = set("MISUBDOMINIODNS") else {
        return address_list("the default", DEFAULT_SERVERS);
    };
    let prefix = set("RAFTKV_PREFIX").unwrap_or("raft".to_owned());
    let replicas = set("RAFTKV_REPLICAS").unwrap_or("3".to_owned());
    let count = replicas.parse().ok().filter(|count| (1..=REPLICAS_MAX).contains(count));
    let count: u64 = count.ok_or(format!(
        "RAFTKV_REPLICAS is '{replicas}': it must be a number from 1 to {REPLICAS_MAX}"
    ))?;
    Ok((0..count).map(|number| format!("{prefix}-{number}.{domain}:{CLUSTER_PORT}")).collect())
}

fn address_list(source: &str, list: &str) -> Result<Vec<String>, String> {
    let mut servers = Vec::new();
    for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let wrong = |what| format!("{source}: {what}");
        let (host, port) = parse_address(item, Some(CLUSTER_PORT)).map_err(wrong)?;
        let address =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        if !servers.contains(&address) {
            servers.push(address);
        }
    }
    if servers.is_empty() {
        return Err(format!("{source} names no server: write host:port,host:port,..."));
    }
    Ok(servers)
}
