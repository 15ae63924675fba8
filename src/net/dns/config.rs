//! The two files that tell a machine how to find names: `/etc/resolv.conf` and `/etc/hosts`.
//!
//! Both parsers take what they understand and skip what they do not, like every other resolver: an odd
//! line in a file that somebody else writes is no reason to stop a node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// More name servers than this are ignored, as in glibc and musl.
pub const NAMESERVERS_MAX: usize = 3;
/// Search domains beyond this are ignored; Kubernetes allows itself as many.
pub const SEARCH_DOMAINS_MAX: usize = 32;
/// The longest host name in characters, without a trailing dot.
pub const HOST_NAME_MAX: usize = 253;

const DNS_PORT: u16 = 53;
const NDOTS_MAX: usize = 15;
const TIMEOUT_MAX_S: u64 = 30;
const ATTEMPTS_MAX: u32 = 5;
const LABEL_MAX: usize = 63;

/// What `/etc/resolv.conf` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvConf {
    /// Never empty, at most [`NAMESERVERS_MAX`].
    pub nameservers: Vec<SocketAddr>,
    /// Domains to append, without dots at their ends, at most [`SEARCH_DOMAINS_MAX`].
    pub search: Vec<String>,
    /// A name with at least as many dots is first asked for as it stands.
    pub ndots: usize,
    /// How long to wait for an answer to one packet.
    pub timeout: Duration,
    /// How often each server is asked the same question.
    pub attempts: u32,
}

impl Default for ResolvConf {
    /// What a machine without the file does: ask the name server on this host.
    fn default() -> Self {
        ResolvConf {
            nameservers: vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DNS_PORT)],
            search: Vec::new(),
            ndots: 1,
            // glibc waits 5 s. A cluster's name server is near, and a lost packet must not cost that much.
            timeout: Duration::from_secs(1),
            attempts: 2,
        }
    }
}

impl ResolvConf {
    /// Reads the text of a `resolv.conf`; an empty text gives the default.
    pub fn parse(text: &str) -> ResolvConf {
        let mut conf = ResolvConf::default();
        let mut nameservers = Vec::new();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or("");
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => nameservers.extend(words.next().and_then(nameserver)),
                // The last of `domain` and `search` counts.
                Some("search") => conf.search = search_domains(words, SEARCH_DOMAINS_MAX),
                Some("domain") => conf.search = search_domains(words, 1),
                Some("options") => words.for_each(|word| conf.option(word)),
                _ => {}
            }
        }
        nameservers.truncate(NAMESERVERS_MAX);
        if !nameservers.is_empty() {
            conf.nameservers = nameservers;
        }
        conf
    }

    fn option(&mut self, word: &str) {
        let Some((name, value)) = word.split_once(':') else { return };
        let Ok(value) = value.parse::<u64>() else { return };
        match name {
            "ndots" => self.ndots = value.min(NDOTS_MAX as u64) as usize,
            "timeout" => self.timeout = Duration::from_secs(value.clamp(1, TIMEOUT_MAX_S)),
            "attempts" => self.attempts = value.clamp(1, u64::from(ATTEMPTS_MAX)) as u32,
            _ => {}
        }
    }

    /// The full names to ask for, in order, for a host name written in some file or flag.
    ///
    /// A trailing dot means that the name is complete. Otherwise it is asked for as it stands first if it
    /// has `ndots` dots or already ends in a search domain, and last if not.
    pub fn candidates(&self, host: &str) -> Vec<String> {
        let name = host.strip_suffix('.').unwrap_or(host);
        if name.len() < host.len() {
            return vec![name.to_string()];
        }
        let dots = name.bytes().filter(|byte| *byte == b'.').count();
        let as_it_stands_first =
            dots >= self.ndots || self.search.iter().any(|domain| is_below(name, domain));
        let mut names: Vec<String> = self
            .search
            .iter()
            .map(|domain| format!("{name}.{domain}"))
            .filter(|full| full.len() <= HOST_NAME_MAX)
            .collect();
        names.insert(if as_it_stands_first { 0 } else { names.len() }, name.to_string());
        names
    }
}

fn search_domains<'a>(words: impl Iterator<Item = &'a str>, max: usize) -> Vec<String> {
    let domains = words.map(|word| word.trim_matches('.')).filter(|domain| is_host_name(domain));
    domains.take(max).map(str::to_string).collect()
}

/// An address, with port 53 unless another one follows: `10.0.0.10`, `127.0.0.1:5353`, `[::1]:5353`.
/// Other resolvers know no port here; it lets a name server run without root's rights.
fn nameserver(word: &str) -> Option<SocketAddr> {
    let address = word.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
    address.or_else(|_| word.parse()).ok()
}

fn is_below(name: &str, domain: &str) -> bool {
    let (name, domain) = (name.as_bytes(), domain.as_bytes());
    name.len() > domain.len() + 1
        && name[name.len() - domain.len() - 1] == b'.'
        && name[name.len() - domain.len()..].eq_ignore_ascii_case(domain)
}

/// Whether this can be a host name: labels of letters, digits, `-` and `_`, of legal lengths.
pub fn is_host_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= HOST_NAME_MAX
        && name.split('.').all(|label| {
            (1..=LABEL_MAX).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        })
}

/// The address that `host` is, if it is one rather than a name: `10.0.0.1`, `::1`, `[::1]`.
pub fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse().ok(),
    }
}

/// What `/etc/hosts` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    /// Names in lower case.
    entries: Vec<(String, IpAddr)>,
}

impl Hosts {
    /// Reads the text of a `hosts` file: lines of an address and its names.
    pub fn parse(text: &str) -> Hosts {
        let mut entries = Vec::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or("").split_ascii_whitespace();
            let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
            entries.extend(words.map(|name| (name.to_ascii_lowercase(), address)));
        }
        Hosts { entries }
    }

    /// The addresses of a name. `localhost` and names below it are this machine, whatever the file says.
    pub fn get(&self, host: &str) -> Vec<IpAddr> {
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if name == "localhost" || name.ends_with(".localhost") {
            return vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        }
        let matching = self.entries.iter().filter(|(entry, _)| *entry == name);
        matching.map(|(_, address)| *address).collect()
    }
}
