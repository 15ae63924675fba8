//! Raw arguments and environment -> a checked [`Config`]. Everything after this file sees only good values.
//!
//! Every flag is a row of `flags::FLAGS`: its default is applied like a given value, and `--help` prints the
//! same row, so the three cannot disagree.

mod flags;
mod parse;
mod recover;

pub use parse::{parse_duration, parse_host_port, parse_size};
pub use recover::RecoverRequest;

use crate::kv::Limits;
use crate::ordered::Few;
use crate::protocol::{PEER_BATCH_BYTES_MAX, peer_frame_bytes_max};
use crate::raft::{self, NodeId};
use crate::suggest::closest;
use flags::{FLAGS, Raw};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The port of the practical, of `raft-service`, and the default everywhere.
pub const PORT: u16 = 6000;

/// A checked configuration of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub name: String,
    /// The number at the end of its name.
    pub number: u64,
    pub cluster: String,
    pub listen: SocketAddr,
    /// Where others and clients find this node: `host:port`.
    pub advertise: String,
    /// Those that a new cluster begins with, by number. A node that is not among them waits to be taken in.
    pub members: Few<u64, Member>,
    /// Whether a leader takes in nodes and makes learners voters by itself.
    pub auto_members: bool,
    pub data_dir: PathBuf,
    /// `None`: as `RUST_LOG` says.
    pub log_level: Option<log::LevelFilter>,
    pub heartbeat: Duration,
    /// The shortest election timeout; the longest is twice as long.
    pub election: Duration,
    pub request_timeout: Duration,
    pub segment_bytes: u64,
    pub snapshot_log_bytes: usize,
    pub limits: Limits,
    /// What the store may have; `None`: as much as there is.
    pub store_bytes_max: Option<usize>,
    pub append_bytes_max: usize,
    pub inflight_messages_max: usize,
    pub inflight_bytes_max: usize,
    pub uncommitted_bytes_max: usize,
    pub connections_max: usize,
    pub client_outbox_bytes_max: usize,
    /// What all connections together may have this node keep. The next two are parts of it.
    pub buffers_bytes_max: usize,
    pub unread_bytes_max: usize,
    pub unserved_bytes_max: usize,
    pub client_pipeline_max: usize,
    pub resolv_conf: PathBuf,
    pub hosts: PathBuf,
}

/// A member as the configuration names it. The address is a hint: another node may know another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    pub host: String,
    pub port: u16,
}

impl Member {
    /// `host:port`, with brackets around an IPv6 address.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Invocation {
    Run(Box<Config>),
    Recover(RecoverRequest),
    Help,
    Version,
}

/// A command line that cannot be followed: what is wrong, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub struct UsageError(pub String);

impl Config {
    /// Command line first, then the environment (`RAFTKV_LISTEN` for `--listen`), then the default.
    pub fn from_args(
        args: impl IntoIterator<Item = OsString>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Invocation, UsageError> {
        let mut args = args.into_iter().peekable();
        if args.next_if(|first| first == recover::COMMAND).is_some() {
            let request = recover::parse(args, env)?;
            return Ok(request.map_or(Invocation::Help, Invocation::Recover));
        }
        let mut raw = Raw::default();
        for flag in FLAGS {
            let variable = variable(flag.name);
            let given = env(&variable).filter(|text| !text.is_empty());
            let source = if given.is_some() { variable.as_str() } else { flag.name };
            let text = given.unwrap_or_else(|| flag.default.to_string());
            if !text.is_empty() {
                (flag.set)(&mut raw, &text).map_err(|why| bad_value(source, &text, &why))?;
            }
        }
        let mut name = None;
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(arg) = parser.next().map_err(|e| UsageError(e.to_string()))? {
            match arg {
                lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => return Ok(Invocation::Help),
                lexopt::Arg::Short('V') | lexopt::Arg::Long("version") => {
                    return Ok(Invocation::Version);
                }
                lexopt::Arg::Long(long) => {
                    let flag = FLAGS.iter().find(|flag| flag.name == long);
                    let flag = flag.ok_or_else(|| unknown_flag(&format!("--{long}")))?;
                    let value = parser.value().map_err(|e| UsageError(e.to_string()))?;
                    let text = value.to_string_lossy();
                    (flag.set)(&mut raw, &text)
                        .map_err(|why| bad_value(&format!("--{}", flag.name), &text, &why))?;
                }
                lexopt::Arg::Short(short) => return Err(unknown_flag(&format!("-{short}"))),
                lexopt::Arg::Value(value) if name.is_none() => {
                    name = Some(value.to_string_lossy().into_owned());
                }
                lexopt::Arg::Value(value) => {
                    let text = value.to_string_lossy();
                    let name = name.unwrap_or_default();
                    return Err(UsageError(format!(
                        "'{name}' and '{text}': a node has one NAME, and everything else is a --flag"
                    )));
                }
            }
        }
        let name = name.or_else(|| env("MINOMBREPOD").filter(|name| !name.is_empty()));
        let name = name.ok_or_else(|| {
            UsageError("NAME is missing: the node's name, such as raft-0".to_string())
        })?;
        raw.check(name, env("MISUBDOMINIODNS").filter(|domain| !domain.is_empty()))
            .map(|config| Invocation::Run(Box::new(config)))
    }

    /// The text of `--help`.
    pub fn help() -> String {
        let mut text = String::from(
            "srvraft: one node of a replicated key/value store.\n\n\
             Usage: srvraft NAME [--FLAG VALUE]...\n       \
             srvraft recover NAME [--data-dir DIR] --accept-loss-of NAME,...\n\n\
             NAME ends in the node's number, such as raft-0; it may also come from MINOMBREPOD.\n\
             Every flag may also be given in the environment: RAFTKV_LISTEN for --listen.\n\
             TIME is a number with ms, s or m; SIZE a number of bytes, or with KiB, MiB or GiB.\n\n",
        );
        for flag in FLAGS {
            let default = match flag.default {
                "" => String::new(),
                default => format!(" [{default}]"),
            };
            let usage = format!("--{} {}", flag.name, flag.value);
            text.push_str(&format!("  {usage:<30} {}{default}\n", flag.help));
        }
        text.push_str(
            "\n  -h, --help                     this text\n  \
             -V, --version                  the version\n\n\
             A node alone:   srvraft raft-0 --peers raft-0=127.0.0.1:6000\n\
             One of three:   srvraft raft-0 --peers raft-0=a:6000,raft-1=b:6000,raft-2=c:6000\n\
             In Kubernetes:  srvraft raft-0, with MISUBDOMINIODNS=raft-service.default.svc.cluster.local\n\n\
             recover is for when a majority of the disks is lost. It makes a cluster out of the folder of one\n\
             node that does not run, and gives up what the others acknowledged without it; --accept-loss-of has\n\
             to name all of them. Nodes with empty folders come in by themselves afterwards.\n\n\
             Signals: SIGTERM, SIGINT, SIGQUIT, SIGALRM, SIGXCPU and SIGPWR stop the node, a leader hands over first;\n\
             a second one ends it at once. SIGUSR1 and SIGUSR2 make it write its state into the log. SIGHUP makes it\n\
             reload nothing; it stops if its terminal was closed, unless nohup has it ignore that.\n\n\
             The log goes to standard error. The node never waits for it: lines that cannot be written are dropped,\n\
             counted (INFO: log_lines_dropped), and the count is logged once the log can be written again.\n\n\
             Memory: beside its data, a node takes at most --buffers-bytes-max, --uncommitted-bytes-max and\n\
             156 MiB, and an eighth of the sum for what the allocator cannot use: 536 MiB with the defaults. INFO\n\
             says it as memory_needed_max_bytes, with its parts. The data: keyspace_bytes, about 150 bytes for each\n\
             key, and while a snapshot is taken, again what changes meanwhile.\n\n\
             Exit status: 0 after a signal to stop, 1 if it cannot start or go on, 2 for a wrong command line.\n",
        );
        text
    }

    /// The settings of the consensus core, in ticks of `self.tick()`.
    pub fn raft(&self, id: NodeId, seed: u64) -> raft::Config {
        let election_ticks_min = self.ticks(self.election).max(2);
        let heartbeat_ticks = self.ticks(self.heartbeat).max(1);
        raft::Config {
            id,
            voters: BTreeSet::new(),
            heartbeat_ticks: u32::try_from(heartbeat_ticks).unwrap_or(u32::MAX),
            election_ticks_min: u32::try_from(election_ticks_min).unwrap_or(u32::MAX),
            election_ticks_max: u32::try_from(2 * election_ticks_min).unwrap_or(u32::MAX),
            append_bytes_max: self.append_bytes_max,
            inflight_messages_max: self.inflight_messages_max,
            inflight_bytes_max: self.inflight_bytes_max,
            uncommitted_bytes_max: self.uncommitted_bytes_max,
            seed,
        }
    }

    /// The unit of the core's time: a fifth of a heartbeat, at least a millisecond.
    pub fn tick(&self) -> Duration {
        (self.heartbeat / 5).max(Duration::from_millis(1))
    }

    /// How many ticks last at least that long.
    pub fn ticks(&self, duration: Duration) -> u64 {
        u64::try_from(duration.as_micros().div_ceil(self.tick().as_micros())).unwrap_or(u64::MAX)
    }
}

impl Raw {
    fn check(self, name: String, subdomain: Option<String>) -> Result<Config, UsageError> {
        let (prefix, id) = split_name(&name).map_err(UsageError)?;
        let listen = self.listen.expect("the flag has a default");
        let members = match self.peers {
            Some(peers) => members_given(peers)?,
            None => members_by_name(prefix, self.replicas, subdomain.as_deref())?,
        };
        match members.get(&id) {
            Some(member) if member.name != name => {
                return Err(UsageError(format!(
                    "{name} and {} have the same number; numbers tell members apart",
                    member.name
                )));
            }
            _ => {}
        }
        let advertise = match self.advertise {
            Some((host, port)) => Member { name: name.clone(), host, port }.address(),
            None => own_address(&members, &name, subdomain.as_deref(), listen)?,
        };
        if self.election < self.heartbeat * 2 {
            return Err(UsageError(format!(
                "--election {:?} is less than twice --heartbeat {:?}: one lost heartbeat would cost an \
                 election",
                self.election, self.heartbeat
            )));
        }
        if self.append_bytes_max > PEER_BATCH_BYTES_MAX {
            return Err(UsageError(format!(
                "--append-bytes-max is {}, at most {PEER_BATCH_BYTES_MAX} fit into a frame",
                self.append_bytes_max
            )));
        }
        let limits =
            Limits { key_bytes_max: self.key_bytes_max, value_bytes_max: self.value_bytes_max };
        limits.validate().map_err(UsageError)?;
        let buffers_min = buffers_bytes_min(&limits);
        if self.buffers_bytes_max < buffers_min {
            return Err(UsageError(format!(
                "--buffers-bytes-max is {}, at least {buffers_min} are needed with these lengths of keys and values",
                self.buffers_bytes_max
            )));
        }
        // Command lines of before there was a total go on working: the total holds all the same.
        let part = |wanted: Option<usize>| {
            wanted.unwrap_or(self.buffers_bytes_max / 4).min(self.buffers_bytes_max / 2)
        };
        let unread_bytes_max = part(self.unread_bytes_max);
        let unserved_bytes_max = part(self.unserved_bytes_max);
        Ok(Config {
            data_dir: self.data_dir.unwrap_or_else(|| PathBuf::from("data").join(&name)),
            name,
            number: id,
            cluster: self.cluster,
            listen,
            advertise,
            members,
            auto_members: self.auto_members,
            log_level: self.log_level,
            heartbeat: self.heartbeat,
            election: self.election,
            request_timeout: self.request_timeout,
            snapshot_log_bytes: self.snapshot_log_bytes,
            segment_bytes: self.segment_bytes.max(SEGMENT_BYTES_MIN),
            limits,
            store_bytes_max: self.store_bytes_max,
            append_bytes_max: self.append_bytes_max,
            inflight_messages_max: self.inflight_messages_max,
            inflight_bytes_max: self.inflight_bytes_max,
            uncommitted_bytes_max: self.uncommitted_bytes_max,
            connections_max: self.connections_max,
            client_outbox_bytes_max: self.client_outbox_bytes_max,
            buffers_bytes_max: self.buffers_bytes_max,
            unread_bytes_max,
            unserved_bytes_max,
            client_pipeline_max: self.client_pipeline_max,
            resolv_conf: self.resolv_conf,
            hosts: self.hosts,
        })
    }
}

/// What a node needs to serve anybody: what may be under way, and a few messages of the greatest length.
fn buffers_bytes_min(limits: &Limits) -> usize {
    const UNDER_WAY: usize = 16 * 1024 * 1024;
    UNDER_WAY + peer_frame_bytes_max(limits).saturating_mul(4)
}

/// Where a node says that it is to be found, if nobody says it.
fn own_address(
    members: &Few<u64, Member>,
    name: &str,
    subdomain: Option<&str>,
    listen: SocketAddr,
) -> Result<String, UsageError> {
    if let Some(own) = members.values().find(|member| member.name == name) {
        return Ok(own.address());
    }
    match subdomain {
        Some(subdomain) => Ok(format!("{name}.{subdomain}:{PORT}")),
        None if !listen.ip().is_unspecified() => Ok(listen.to_string()),
        None => Err(UsageError(format!(
            "{name} is not among --peers, so the others would not find it: say where it is with \
             --advertise HOST:PORT"
        ))),
    }
}

const SEGMENT_BYTES_MIN: u64 = 4 * 1024;

fn members_given(peers: Vec<(String, String, u16)>) -> Result<Few<u64, Member>, UsageError> {
    let mut members = Few::new();
    for (name, host, port) in peers {
        let (_, id) = split_name(&name).map_err(UsageError)?;
        let member = Member { name: name.clone(), host, port };
        if let Some(other) = members.insert(id, member) {
            return Err(UsageError(format!(
                "--peers names number {id} twice, {} and {name}; numbers tell members apart",
                other.name
            )));
        }
    }
    Ok(members)
}

fn members_by_name(
    prefix: &str,
    replicas: u64,
    subdomain: Option<&str>,
) -> Result<Few<u64, Member>, UsageError> {
    let Some(subdomain) = subdomain else {
        return Err(UsageError(format!(
            "the other members are unknown: give --peers {prefix}-0=HOST:PORT,..., or set \
             MISUBDOMINIODNS (in Kubernetes: the service's domain)"
        )));
    };
    let member = |id: u64| {
        let name = format!("{prefix}-{id}");
        let host = format!("{name}.{subdomain}");
        (id, Member { name, host, port: PORT })
    };
    Ok((0..replicas).map(member).collect())
}

/// `raft-2` -> (`raft`, 2).
pub fn split_name(name: &str) -> Result<(&str, u64), String> {
    let parts = name.rsplit_once('-');
    let digits_only = |number: &str| number.bytes().all(|byte| byte.is_ascii_digit());
    match parts {
        Some((prefix, number)) if !prefix.is_empty() && digits_only(number) => {
            match number.parse() {
                Ok(number) if number <= raft::NUMBER_MAX => Ok((prefix, number)),
                _ => Err(format!("the number of '{name}' is above {}", raft::NUMBER_MAX)),
            }
        }
        _ => Err(format!("'{name}' does not end in a number, as raft-0 does")),
    }
}

/// The id in every hello: nodes of clusters with other names do not talk to each other. 0 means "any".
pub fn cluster_id(name: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name.as_bytes()).max(1)
}

fn variable(flag: &str) -> String {
    format!("RAFTKV_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

fn bad_value(source: &str, text: &str, why: &str) -> UsageError {
    UsageError(format!("{source} '{text}': {why}"))
}

fn unknown_flag(flag: &str) -> UsageError {
    let bare = flag.trim_start_matches('-').replace('_', "-");
    let known = FLAGS.iter().map(|flag| flag.name).chain(["help", "version"]);
    let meant = closest(&bare, known);
    let hint = meant.map_or(String::new(), |known| format!(" (did you mean --{known}?)"));
    UsageError(format!("there is no {flag}{hint}"))
}
