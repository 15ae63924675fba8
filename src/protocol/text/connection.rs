//! Commands about the connection itself, and about the server behind it.

use super::{
    NOT_AN_INTEGER, SHOWN_BYTES_MAX, TextCommand, owned, start_of, unknown_subcommand, wrong_number,
};
use crate::protocol::resp::{Version, parse_i64};

/// The longest name of a connection or of a client library, in bytes.
pub const CLIENT_NAME_BYTES_MAX: usize = 255;

/// What `HELLO` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Greeting {
    /// `None`: as before.
    pub version: Option<Version>,
    pub name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCommand {
    Id,
    Info,
    GetName,
    SetName(String),
    SetLibraryName(String),
    SetLibraryVersion(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigQuery {
    /// Patterns of names.
    Get(Vec<Vec<u8>>),
}

impl ClientCommand {
    /// Of what it carries.
    pub fn bytes(&self) -> usize {
        match self {
            ClientCommand::SetName(text)
            | ClientCommand::SetLibraryName(text)
            | ClientCommand::SetLibraryVersion(text) => text.len(),
            ClientCommand::Id | ClientCommand::Info | ClientCommand::GetName => 0,
        }
    }
}

impl ConfigQuery {
    /// Of what it carries.
    pub fn bytes(&self) -> usize {
        let ConfigQuery::Get(patterns) = self;
        patterns.iter().map(Vec::len).sum()
    }
}

pub(super) fn hello(args: &[&[u8]]) -> Result<TextCommand, String> {
    let mut greeting = Greeting::default();
    let Some((version, mut options)) = args.split_first() else {
        return Ok(TextCommand::Hello(greeting));
    };
    greeting.version = Some(match parse_i64(version) {
        Some(2) => Version::Resp2,
        Some(3) => Version::Resp3,
        Some(_) => return Err("NOPROTO unsupported protocol version".to_owned()),
        None => return Err("ERR Protocol version is not an integer or out of range".to_owned()),
    });
    while let Some((option, rest)) = options.split_first() {
        options = match rest {
            [user, password, rest @ ..] if option.eq_ignore_ascii_case(b"auth") => {
                auth(&[*user, *password])?;
                rest
            }
            [name, rest @ ..] if option.eq_ignore_ascii_case(b"setname") => {
                greeting.name = Some(client_name(name)?);
                rest
            }
            _ => {
                let option = start_of(option, SHOWN_BYTES_MAX);
                return Err(format!("ERR Syntax error in HELLO option '{option}'"));
            }
        };
    }
    Ok(TextCommand::Hello(greeting))
}

/// There are no passwords here: what Redis says when it has none either.
pub(super) fn auth(args: &[&[u8]]) -> Result<TextCommand, String> {
    match args {
        [_] => Err("ERR AUTH <password> called without any password configured for the default \
                    user. Are you sure your configuration is correct?"
            .to_owned()),
        [user, _] if *user == b"default" => Ok(TextCommand::Ok),
        _ => Err("WRONGPASS invalid username-password pair or user is disabled.".to_owned()),
    }
}

pub(super) fn select(index: &[u8]) -> Result<TextCommand, String> {
    match parse_i64(index).map(i32::try_from) {
        Some(Ok(0)) => Ok(TextCommand::Ok),
        Some(Ok(_)) => Err("ERR DB index is out of range".to_owned()),
        _ => Err(NOT_AN_INTEGER.to_owned()),
    }
}

pub(super) fn client(args: &[&[u8]]) -> Result<ClientCommand, String> {
    let (name, args) = args.split_first().expect("its row asks for an argument");
    let lower = name.to_ascii_lowercase();
    let known: &[&[u8]] = &[b"id", b"info", b"getname", b"setname", b"setinfo"];
    if !known.contains(&lower.as_slice()) {
        return Err(unknown_subcommand("CLIENT", name));
    }
    Ok(match (lower.as_slice(), args) {
        (b"id", []) => ClientCommand::Id,
        (b"info", []) => ClientCommand::Info,
        (b"getname", []) => ClientCommand::GetName,
        (b"setname", [name]) => ClientCommand::SetName(client_name(name)?),
        (b"setinfo", [option, value]) => set_info(option, value)?,
        _ => {
            let name = String::from_utf8_lossy(&lower);
            return Err(wrong_number(&format!("client|{name}")));
        }
    })
}

fn set_info(option: &[u8], value: &[u8]) -> Result<ClientCommand, String> {
    let text = |what: &str| {
        plain_text(what, value)?.ok_or_else(|| {
            format!("ERR {what} cannot contain spaces, newlines or special characters.")
        })
    };
    match option.to_ascii_lowercase().as_slice() {
        b"lib-name" => Ok(ClientCommand::SetLibraryName(text("lib-name")?)),
        b"lib-ver" => Ok(ClientCommand::SetLibraryVersion(text("lib-ver")?)),
        _ => Err(format!("ERR Unrecognized option '{}'", start_of(option, SHOWN_BYTES_MAX))),
    }
}

fn client_name(name: &[u8]) -> Result<String, String> {
    plain_text("client name", name)?.ok_or_else(|| {
        "ERR Client names cannot contain spaces, newlines or special characters.".to_owned()
    })
}

/// It is printed in a line of fields that are kept apart by spaces.
fn plain_text(what: &str, bytes: &[u8]) -> Result<Option<String>, String> {
    if bytes.len() > CLIENT_NAME_BYTES_MAX {
        let length = bytes.len();
        return Err(format!("ERR {what} of {length} bytes, the limit is {CLIENT_NAME_BYTES_MAX}"));
    }
    let is_plain = bytes.iter().all(u8::is_ascii_graphic);
    Ok(is_plain.then(|| String::from_utf8_lossy(bytes).into_owned()))
}

pub(super) fn config(args: &[&[u8]]) -> Result<ConfigQuery, String> {
    let (name, patterns) = args.split_first().expect("its row asks for an argument");
    if !name.eq_ignore_ascii_case(b"get") {
        return Err(unknown_subcommand("CONFIG", name));
    }
    if patterns.is_empty() {
        return Err(wrong_number("config|get"));
    }
    Ok(ConfigQuery::Get(owned(patterns)))
}
