//! Where the cluster is, and where the main job listens: from the command line or the environment. Pure.

use crate::client::parse_address;
use std::net::SocketAddr;

/// The three nodes of one machine.
const DEFAULT_SERVERS: &str = "127.0.0.1:6000,127.0.0.1:6001,127.0.0.1:6002";
/// The port if an address names none, and of every node in Kubernetes.
const CLUSTER_PORT: u16 = 6000;
const REPLICAS_MAX: u64 = 99;
/// Where the main job says how it goes, in Kubernetes.
const DEFAULT_LISTEN: &str = "0.0.0.0:7000";

/// Where the cluster is: the option, then the environment, then the local three.
pub fn servers(
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

/// Where the main job answers probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    pub address: SocketAddr,
    /// Somebody asked for it, so that it must work; else it is there if it can be.
    pub is_asked_for: bool,
}

/// The option, then the environment; then everywhere in Kubernetes, and nowhere else.
pub fn listen(
    option: Option<&str>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Listen>, String> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    let (source, text) = match (option, set("RAFTKV_CLIENT_LISTEN")) {
        (Some(text), _) => ("--listen", text.to_owned()),
        (None, Some(text)) => ("RAFTKV_CLIENT_LISTEN", text),
        (None, None) if set("MISUBDOMINIODNS").is_some() => ("", DEFAULT_LISTEN.to_owned()),
        (None, None) => return Ok(None),
    };
    if text == "off" {
        return Ok(None);
    }
    let address = text.parse().map_err(|_| {
        format!("{source} {text}: write an address and a port, such as 0.0.0.0:7000, or off")
    })?;
    Ok(Some(Listen { address, is_asked_for: !source.is_empty() }))
}
