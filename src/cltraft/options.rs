//! The options of `cltraft`: which there are, whose they are, and what was given. Pure.

use super::suggest::unknown_option;
use super::units::parse_duration;
use lexopt::prelude::*;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

/// Among the commands of an option: the main job, which has no name.
pub const MAIN_JOB: &str = "";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Text,
    Bytes,
}

struct Spec {
    name: &'static str,
    takes: Takes,
    /// The commands that have it; all of them if there are none.
    commands: &'static [&'static str],
}

const fn flag(name: &'static str, commands: &'static [&'static str]) -> Spec {
    Spec { name, takes: Takes::Nothing, commands }
}

const fn text(name: &'static str, commands: &'static [&'static str]) -> Spec {
    Spec { name, takes: Takes::Text, commands }
}

const fn bytes(name: &'static str, commands: &'static [&'static str]) -> Spec {
    Spec { name, takes: Takes::Bytes, commands }
}

const SPECS: &[Spec] = &[
    flag("help", &[]),
    flag("version", &[]),
    text("servers", &[]),
    text("timeout", &[]),
    text("lang", &[]),
    text("output", &[]),
    text("interval", &[MAIN_JOB]),
    text("count", &[MAIN_JOB]),
    text("listen", &[MAIN_JOB]),
    text("prefix", &[MAIN_JOB, "verify", "changes"]),
    text("from", &["changes"]),
    flag("absent", &["cas"]),
    text("ttl", &["put"]),
    bytes("start", &["scan"]),
    bytes("end", &["scan"]),
    text("limit", &["scan"]),
    flag("keys-only", &["scan"]),
    text("clients", &["bench", "verify"]),
    text("duration", &["bench", "verify"]),
    text("keys", &["bench", "verify"]),
    text("seed", &["bench", "verify"]),
    text("pipeline", &["bench"]),
    text("warmup", &["bench"]),
    text("value-size", &["bench"]),
    text("reads", &["bench"]),
    text("rate", &["bench"]),
    flag("force", &["backup"]),
    flag("merge", &["restore"]),
];

/// The names of all options.
pub fn names() -> impl Iterator<Item = &'static str> {
    SPECS.iter().map(|spec| spec.name)
}

/// A command that has this option; `None`: all have.
pub fn owner(name: &str) -> Option<&'static str> {
    let spec = SPECS.iter().find(|spec| spec.name == name)?;
    spec.commands.iter().find(|command| **command != MAIN_JOB).copied()
}

/// Everything as it was typed, before it is known to make sense.
#[derive(Debug, Default)]
pub struct Given {
    pub words: Vec<Vec<u8>>,
    /// By name, with their values; of one that comes twice the last.
    options: BTreeMap<&'static str, Vec<u8>>,
}

impl Given {
    pub fn read(mut parser: lexopt::Parser) -> Result<Self, String> {
        let mut given = Given::default();
        loop {
            if let Some(number) = negative_number(&mut parser) {
                given.words.push(number);
                continue;
            }
            let name = match parser.next().map_err(|error| error.to_string())? {
                None => return Ok(given),
                Some(Value(word)) => {
                    given.words.push(word.into_vec());
                    continue;
                }
                Some(Short('h')) => "help".to_owned(),
                Some(Short('V')) => "version".to_owned(),
                Some(Short(letter)) => {
                    let dash = "if it is a key or value, put -- before it";
                    return Err(format!("there is no option -{letter} ({dash})"));
                }
                Some(Long(name)) => name.to_owned(),
            };
            let spec = SPECS.iter().find(|spec| spec.name == name);
            let spec = spec.ok_or_else(|| unknown_option(&name))?;
            let value = match spec.takes {
                Takes::Nothing => Vec::new(),
                Takes::Text | Takes::Bytes => {
                    let value = parser.value();
                    value.map_err(|_| format!("--{name} needs a value"))?.into_vec()
                }
            };
            if spec.takes == Takes::Text && std::str::from_utf8(&value).is_err() {
                return Err(format!("--{name}: the value is not UTF-8 text"));
            }
            given.options.insert(spec.name, value);
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.options.contains_key(name)
    }

    /// An option that the command does not have.
    pub fn stranger(&self, command: &str) -> Option<&'static str> {
        let given = SPECS.iter().filter(|spec| self.has(spec.name));
        let mut strangers =
            given.filter(|spec| !spec.commands.is_empty() && !spec.commands.contains(&command));
        strangers.next().map(|spec| spec.name)
    }

    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.options.get(name).map(Vec::as_slice)
    }

    /// Of an option whose value is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.bytes(name)?).ok()
    }

    pub fn duration(&self, name: &str) -> Result<Option<Duration>, String> {
        let parse = |text| parse_duration(text).map_err(|error| format!("--{name}: {error}"));
        self.text(name).map(parse).transpose()
    }

    pub fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, String> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| range.contains(number));
        let what = match (range.start(), range.end()) {
            (least, &u64::MAX) if *least == 0 => "a number".to_owned(),
            (least, &u64::MAX) => format!("a number above {}", least - 1),
            (least, most) => format!("a number from {least} to {most}"),
        };
        number.map(Some).ok_or(format!("--{name} {text}: not {what}"))
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
