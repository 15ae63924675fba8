//! Commands after which the server speaks without being asked, and those that libraries find the leader
//! with.

use super::{SYNTAX_ERROR, TextCommand, integer, owned, unknown_subcommand, wrong_number};
use crate::kv::Limits;
use crate::raft::Index;

/// The longest name of a channel, pattern or master, in bytes.
pub const CHANNEL_BYTES_MAX: usize = 256;

/// `SUBSCRIBE` and its like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Names are patterns.
    pub by_pattern: bool,
    /// `false`: they are not wanted any more.
    pub wanted: bool,
    /// None: all there are, if they are not wanted any more.
    pub names: Vec<Vec<u8>>,
}

impl Subscribe {
    /// As the reply names it.
    pub fn verb(&self) -> &'static str {
        match (self.by_pattern, self.wanted) {
            (false, true) => "subscribe",
            (false, false) => "unsubscribe",
            (true, true) => "psubscribe",
            (true, false) => "punsubscribe",
        }
    }
}

/// What `SENTINEL` is asked for. Names are those of a master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SentinelQuery {
    MasterAddress(Vec<u8>),
    Masters,
    Master(Vec<u8>),
    Replicas(Vec<u8>),
    Sentinels(Vec<u8>),
    CheckQuorum(Vec<u8>),
    MyId,
}

pub(super) fn changes(args: &[&[u8]], limits: &Limits) -> Result<TextCommand, String> {
    let (mut prefix, mut from) = (Vec::new(), None);
    let mut options = args;
    while let Some((option, rest)) = options.split_first() {
        let [value, rest @ ..] = rest else { return Err(SYNTAX_ERROR.to_owned()) };
        match option.to_ascii_lowercase().as_slice() {
            b"prefix" if value.len() > limits.key_bytes_max as usize => {
                let (bytes, max) = (value.len(), limits.key_bytes_max);
                return Err(format!("ERR prefix of {bytes} bytes, keys have up to {max}"));
            }
            b"prefix" => prefix = value.to_vec(),
            b"from" => {
                let index = Index::try_from(integer(value)?);
                from = Some(index.map_err(|_| "ERR FROM is a log index, which is never negative")?);
            }
            _ => return Err(SYNTAX_ERROR.to_owned()),
        }
        options = rest;
    }
    Ok(TextCommand::Changes { prefix, from })
}

pub(super) fn subscribe(
    names: &[&[u8]],
    by_pattern: bool,
    wanted: bool,
) -> Result<TextCommand, String> {
    if let Some(long) = names.iter().find(|name| name.len() > CHANNEL_BYTES_MAX) {
        let bytes = long.len();
        return Err(format!("ERR channel of {bytes} bytes, the limit is {CHANNEL_BYTES_MAX}"));
    }
    Ok(TextCommand::Subscribe(Subscribe { by_pattern, wanted, names: owned(names) }))
}

pub(super) fn sentinel(args: &[&[u8]]) -> Result<TextCommand, String> {
    let (what, rest) = args.split_first().expect("its row asks for an argument");
    let lower = what.to_ascii_lowercase();
    let query = match (lower.as_slice(), rest) {
        (b"get-master-addr-by-name", [name]) => SentinelQuery::MasterAddress(name.to_vec()),
        (b"masters", []) => SentinelQuery::Masters,
        (b"master", [name]) => SentinelQuery::Master(name.to_vec()),
        (b"replicas" | b"slaves", [name]) => SentinelQuery::Replicas(name.to_vec()),
        (b"sentinels", [name]) => SentinelQuery::Sentinels(name.to_vec()),
        (b"ckquorum", [name]) => SentinelQuery::CheckQuorum(name.to_vec()),
        (b"myid", []) => SentinelQuery::MyId,
        (
            b"get-master-addr-by-name"
            | b"masters"
            | b"master"
            | b"replicas"
            | b"slaves"
            | b"sentinels"
            | b"ckquorum"
            | b"myid",
            _,
        ) => {
            let name = String::from_utf8_lossy(&lower);
            return Err(wrong_number(&format!("sentinel|{name}")));
        }
        _ => return Err(unknown_subcommand("SENTINEL", what)),
    };
    Ok(TextCommand::Sentinel(query))
}
