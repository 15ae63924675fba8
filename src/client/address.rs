//! `host:port`, as people write it.

/// Splits `host:port`, `[v6]:port` or, if there is a `default_port`, `host` alone. The host may be a name
/// or a literal address; brackets are taken off. The error is a message for people.
pub fn parse_address(text: &str, default_port: Option<u16>) -> Result<(String, u16), String> {
    let wrong = |what: &str| format!("'{text}' is not an address: {what}");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(wrong("the ']' is missing"))?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(wrong("after ']' comes :port")),
            }
        }
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(wrong("an IPv6 address goes in brackets, as in [::1]:6000"));
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
        return Err(wrong("write host:port"));
    }
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port > 0),
        None => default_port,
    };
    Ok((host.to_owned(), port.ok_or(wrong("the port is a number from 1 to 65535"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_ones() {
        for (text, host, port) in [
            ("127.0.0.1:6001", "127.0.0.1", 6001),
            ("raft-0.raft-service", "raft-0.raft-service", 6000),
            ("[::1]:7000", "::1", 7000),
            ("[::1]", "::1", 6000),
            ("a.b.:65535", "a.b.", 65535),
        ] {
            assert_eq!(parse_address(text, Some(6000)), Ok((host.to_owned(), port)), "{text}");
        }
    }

    #[test]
    fn bad_ones() {
        for text in [
            "",
            ":6000",
            "a:",
            "a:0",
            "a:65536",
            "a:b",
            "::1",
            "[::1",
            "[::1]x",
            "http://a:1",
            "a b:1",
        ] {
            assert!(parse_address(text, Some(6000)).is_err(), "{text}");
        }
        assert!(parse_address("a", None).is_err());
    }
}
