//! Every flag, once: name, default, help and where its value goes.

use super::parse::*;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Values as they were given, each parsed by itself; `check` sees to what they mean together.
#[derive(Debug, Default)]
pub struct Raw {
    pub cluster: String,
    pub listen: Option<SocketAddr>,
    pub peers: Option<Vec<(String, String, u16)>>,
    pub advertise: Option<(String, u16)>,
    pub auto_members: bool,
    pub replicas: u64,
    pub data_dir: Option<PathBuf>,
    pub log_level: Option<log::LevelFilter>,
    pub heartbeat: Duration,
    pub election: Duration,
    pub request_timeout: Duration,
    pub segment_bytes: u64,
    pub snapshot_log_bytes: usize,
    pub key_bytes_max: u32,
    pub value_bytes_max: u32,
    pub store_bytes_max: Option<usize>,
    pub append_bytes_max: usize,
    pub inflight_messages_max: usize,
    pub inflight_bytes_max: usize,
    pub uncommitted_bytes_max: usize,
    pub connections_max: usize,
    pub client_outbox_bytes_max: usize,
    pub buffers_bytes_max: usize,
    pub unread_bytes_max: Option<usize>,
    pub unserved_bytes_max: Option<usize>,
    pub client_pipeline_max: usize,
    pub resolv_conf: PathBuf,
    pub hosts: PathBuf,
}

pub struct Flag {
    pub name: &'static str,
    /// What the value is, for `--help`.
    pub value: &'static str,
    /// Empty: none.
    pub default: &'static str,
    pub help: &'static str,
    pub set: fn(&mut Raw, &str) -> Result<(), String>,
}

macro_rules! set {
    ($field:ident, $parse:expr) => {
        |raw, text| {
            raw.$field = $parse(text)?;
            Ok(())
        }
    };
}

pub const FLAGS: &[Flag] = &[
    Flag {
        name: "listen",
        value: "ADDR:PORT",
        default: "0.0.0.0:6000",
        help: "where peers and clients connect; [::]:6000 for IPv6 too",
        set: set!(listen, |text| parse_listen(text).map(Some)),
    },
    Flag {
        name: "peers",
        value: "NAME=HOST:PORT,...",
        default: "",
        help: "those a new cluster begins with; else they follow from NAME, --replicas and MISUBDOMINIODNS",
        set: set!(peers, |text| parse_peers(text).map(Some)),
    },
    Flag {
        name: "advertise",
        value: "HOST:PORT",
        default: "",
        help: "where others find this node; else as in --peers, by MISUBDOMINIODNS, or --listen",
        set: set!(advertise, |text| parse_host_port(text).map(Some)),
    },
    Flag {
        name: "auto-members",
        value: "on/off",
        default: "on",
        help: "take in nodes that wait, also for members whose disk is lost, without being asked",
        set: set!(auto_members, parse_switch),
    },
    Flag {
        name: "replicas",
        value: "N",
        default: "3",
        help: "how many they are without --peers: PREFIX-0 to PREFIX-(N-1)",
        set: set!(replicas, |text| parse_count(text).map(|n| n as u64)),
    },
    Flag {
        name: "data-dir",
        value: "DIR",
        default: "",
        help: "data folder, ./data/NAME if not given; one process at a time",
        set: set!(data_dir, parse_some_path),
    },
    Flag {
        name: "cluster",
        value: "TEXT",
        default: "raftkv",
        help: "name of the cluster; nodes of another one are refused",
        set: set!(cluster, parse_text),
    },
    Flag {
        name: "log-level",
        value: "LEVEL",
        default: "",
        help: "error, warn, info, debug or trace; else from RUST_LOG, else info",
        set: set!(log_level, parse_level),
    },
    Flag {
        name: "heartbeat",
        value: "TIME",
        default: "50ms",
        help: "between two heartbeats of a leader",
        set: set!(heartbeat, parse_duration),
    },
    Flag {
        name: "election",
        value: "TIME",
        default: "300ms",
        help: "shortest election timeout; each is drawn between this and twice this",
        set: set!(election, parse_duration),
    },
    Flag {
        name: "request-timeout",
        value: "TIME",
        default: "5s",
        help: "how long a request that was passed on waits for the leader's answer",
        set: set!(request_timeout, parse_duration),
    },
    Flag {
        name: "segment-bytes",
        value: "SIZE",
        default: "16MiB",
        help: "size of a file of the write-ahead log",
        set: set!(segment_bytes, |text| parse_size(text).map(|n| n as u64)),
    },
    Flag {
        name: "snapshot-log-bytes",
        value: "SIZE",
        default: "128MiB",
        help: "log after which a snapshot is taken; a quarter of the state if that is more",
        set: set!(snapshot_log_bytes, parse_size),
    },
    Flag {
        name: "key-bytes-max",
        value: "SIZE",
        default: "4KiB",
        help: "longest key; of all nodes the smallest counts",
        set: set!(key_bytes_max, parse_size_u32),
    },
    Flag {
        name: "value-bytes-max",
        value: "SIZE",
        default: "1MiB",
        help: "longest value; of all nodes the smallest counts",
        set: set!(value_bytes_max, parse_size_u32),
    },
    Flag {
        name: "store-bytes-max",
        value: "SIZE",
        default: "none",
        help: "keys, values, 256 bytes for each; when full, writes that need more are refused",
        set: set!(store_bytes_max, parse_limit),
    },
    Flag {
        name: "append-bytes-max",
        value: "SIZE",
        default: "256KiB",
        help: "entries in one AppendEntries; a larger entry goes alone",
        set: set!(append_bytes_max, parse_size),
    },
    Flag {
        name: "inflight-messages-max",
        value: "N",
        default: "64",
        help: "AppendEntries under way to one follower; the rest waits in the log",
        set: set!(inflight_messages_max, parse_count),
    },
    Flag {
        name: "inflight-bytes-max",
        value: "SIZE",
        default: "4MiB",
        help: "entries under way to one follower; the rest waits in the log",
        set: set!(inflight_bytes_max, parse_size),
    },
    Flag {
        name: "uncommitted-bytes-max",
        value: "SIZE",
        default: "64MiB",
        help: "writes that wait for a majority; more are refused as not done",
        set: set!(uncommitted_bytes_max, parse_size),
    },
    Flag {
        name: "connections-max",
        value: "N",
        default: "10000",
        help: "open connections; further clients are refused, members are not",
        set: set!(connections_max, parse_count),
    },
    Flag {
        name: "client-outbox-bytes-max",
        value: "SIZE",
        default: "4MiB",
        help: "answers a client has not read; its requests wait until it reads",
        set: set!(client_outbox_bytes_max, parse_size),
    },
    Flag {
        name: "buffers-bytes-max",
        value: "SIZE",
        default: "256MiB",
        help: "memory for all connections together: buffers and what clients and peers have this node keep",
        set: set!(buffers_bytes_max, parse_size),
    },
    Flag {
        name: "unread-bytes-max",
        value: "SIZE",
        default: "",
        help: "of it, answers that clients have not read: a quarter if not given, at most half; those with most are closed",
        set: set!(unread_bytes_max, |text| parse_size(text).map(Some)),
    },
    Flag {
        name: "unserved-bytes-max",
        value: "SIZE",
        default: "",
        help: "of it, requests that are not whole or wait: a quarter if not given, at most half; then long ones take turns",
        set: set!(unserved_bytes_max, |text| parse_size(text).map(Some)),
    },
    Flag {
        name: "client-pipeline-max",
        value: "N",
        default: "1024",
        help: "unanswered requests of one connection; further ones wait unread",
        set: set!(client_pipeline_max, parse_count),
    },
    Flag {
        name: "resolv-conf",
        value: "FILE",
        default: "/etc/resolv.conf",
        help: "name servers, search domains and ndots; read anew for every look-up",
        set: set!(resolv_conf, parse_path),
    },
    Flag {
        name: "hosts",
        value: "FILE",
        default: "/etc/hosts",
        help: "names that need no name server",
        set: set!(hosts, parse_path),
    },
];
