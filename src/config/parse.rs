//! Single values: text to a number, time, size, address or path, or why not.

use super::PORT;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Digits after the point that count: so many times the largest factor are below 2^64.
const FRACTION_DIGITS: usize = 9;

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
    let microseconds_each = match unit {
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" | "min" => 60_000_000,
        _ => return Err(wrong()),
    };
    let microseconds = decimal(number, microseconds_each).ok_or_else(wrong)?;
    if !(1_000..=86_400_000_000).contains(&microseconds) {
        return Err("not between 1 ms and a day".to_string());
    }
    Ok(Duration::from_micros(microseconds))
}

pub fn parse_size_u32(text: &str) -> Result<u32, String> {
    u32::try_from(parse_size(text)?).map_err(|_| "not below 4 GiB".to_string())
}

/// A size, or `none`.
pub fn parse_limit(text: &str) -> Result<Option<usize>, String> {
    match text {
        "none" => Ok(None),
        size => parse_size(size).map(Some),
    }
}

/// `4096`, `4KiB`, `1.5MiB`.
pub fn parse_size(text: &str) -> Result<usize, String> {
    let wrong = || "not a size: bytes, or a number with KiB, MiB or GiB".to_string();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim() {
        "" | "B" => 1,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        _ => return Err(wrong()),
    };
    let bytes = decimal(number, factor).ok_or_else(wrong)?;
    if !(1..=1_000_000_000_000_000).contains(&bytes) {
        return Err("not between 1 byte and 1e15".to_string());
    }
    Ok(bytes as usize)
}

/// `1.5` times a factor of up to 2^30, rounded down. Floating point would bring tables of 10 KB to read what
/// people write here. What is too large for 64 bits is `u64::MAX`, above every limit.
fn decimal(text: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let mut value = 0u64;
    for digit in whole.bytes() {
        value = value.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    }
    let mut value = value.saturating_mul(factor);
    let (mut part, mut unit) = (0, 1);
    for digit in fraction.bytes().take(FRACTION_DIGITS) {
        part = part * 10 + u64::from(digit - b'0');
        unit *= 10;
    }
    value = value.saturating_add(part * factor / unit);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against floating point, which is exact enough for so few digits.
        #[test]
        fn a_decimal_is_the_number_times_its_unit(
            whole in 0u32..1_000_000, part in 0u32..1000, factor in 1u64..=1 << 30
        ) {
            let text = format!("{whole}.{part:03}");
            let expected = text.parse::<f64>().unwrap() * factor as f64;
            let got = decimal(&text, factor).unwrap() as f64;
            prop_assert!((expected - got).abs() < 1.0 + expected * 1e-12, "{got} for {expected}");
        }
    }

    #[test]
    fn what_is_no_decimal_is_none_and_what_is_too_large_is_the_largest() {
        for text in ["", ".", "1.2.3", "-1", "+1", "1e3", "x", "1.x", "1 "] {
            assert_eq!(decimal(text, 1), None, "{text:?}");
        }
        assert_eq!((decimal("5.", 10), decimal(".5", 10)), (Some(50), Some(5)));
        assert_eq!(decimal("1.9999999999999", 1), Some(1));
        assert_eq!(decimal("0.999999999", 1 << 30), Some((1 << 30) - 2));
        assert_eq!(decimal("99999999999999999999", 1), Some(u64::MAX));
        assert_eq!(decimal("9999999999999", 1 << 30), Some(u64::MAX));
    }
}
