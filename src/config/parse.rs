//! Single values: text to a number, time, size, address or path, or why not.

use super::PORT;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let bare_port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = bare_port.parse::<u16>() {
        return Ok(SocketAddr::from(([0, 0, 0, 0], port)));
    }
    text.parse().map_err(|_| {
        "not an address (no name) and a port, such as 0.0.0.0:6000 or [::1]:6000".to_string()
    })
}

pub fn parse_peers(text: &str) -> Result<Vec<(String, String, u16)>, String> {
    let peers = text.split(',').map(str::trim).filter(|peer| !peer.is_empty()).map(parse_peer);
    match peers.collect::<Result<Vec<_>, _>>()? {
        none if none.is_empty() => Err("no members: NAME=HOST:PORT,...".to_string()),
        peers => Ok(peers),
    }
}

pub fn parse_peer(text: &str) -> Result<(String, String, u16), String> {
    let wrong = || format!("'{text}' is not NAME=HOST:PORT, such as raft-0=10.0.0.1:6000");
    let (name, address) = text.split_once('=').ok_or_else(wrong)?;
    let (host, port) = parse_host_port(address).map_err(|_| wrong())?;
    if name.is_empty() {
        return Err(wrong());
    }
    Ok((name.to_string(), host, port))
}

/// `10.0.0.1:6000`, `[::1]:6000`, `raft-0.raft-service` (with the default port).
pub fn parse_host_port(text: &str) -> Result<(String, u16), String> {
    let wrong = || "not HOST:PORT, such as 10.0.0.1:6000".to_string();
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
        None => (text, PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(wrong());
    }
    Ok((host.to_string(), port))
}

pub fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("neither on nor off".to_string()),
    }
}

pub fn parse_text(text: &str) -> Result<String, String> {
    Ok(text.to_string())
}

pub fn parse_path(text: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(text))
}

pub fn parse_some_path(text: &str) -> Result<Option<PathBuf>, String> {
    parse_path(text).map(Some)
}

pub fn parse_level(text: &str) -> Result<Option<log::LevelFilter>, String> {
    text.parse()
        .map(Some)
        .map_err(|_| "not one of off, error, warn, info, debug, trace".to_string())
}

pub fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("not a whole number above 0".to_string()),
        Ok(count) => Ok(count),
    }
}

/// `50ms`, `2s`, `1m`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "not a time: a number with ms, s or m, such as 50ms".to_string();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let milliseconds = match unit {
        "ms" => number,
        "s" => number * 1e3,
        "m" | "min" => number * 60e3,
        _ => return Err(wrong()),
    };
    if !(1.0..=86_400e3).contains(&milliseconds) {
        return Err("not between 1 ms and a day".to_string());
    }
    Ok(Duration::from_micros((milliseconds * 1e3) as u64))
}

pub fn parse_size_u32(text: &str) -> Result<u32, String> {
    u32::try_from(parse_size(text)?).map_err(|_| "not below 4 GiB".to_string())
}

/// `4096`, `4KiB`, `1.5MiB`.
pub fn parse_size(text: &str) -> Result<usize, String> {
    let wrong = || "not a size: bytes, or a number with KiB, MiB or GiB".to_string();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let factor = match unit.trim() {
        "" | "B" => 1.0,
        "KiB" | "K" | "k" => 1024.0,
        "MiB" | "M" => 1024.0 * 1024.0,
        "GiB" | "G" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    let bytes = number * factor;
    if !(1.0..=1e15).contains(&bytes) {
        return Err("not between 1 byte and 1e15".to_string());
    }
    Ok(bytes as usize)
}
