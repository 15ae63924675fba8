//! The look-up for callers that may block: the client library and the command line.

use super::resolver::{Progress, Query, ResolverConfig};
use mio::{Events, Poll, Token};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Instant;

/// The addresses of `host`, an address or a name, each with `port`; never none. Waits until `deadline` at
/// most. The error says what was asked, of whom, and what came of it.
pub fn resolve_blocking(
    host: &str,
    port: u16,
    config: &ResolverConfig,
    deadline: Instant,
) -> Result<Vec<SocketAddr>, String> {
    let mut query = Query::new(host, config, fastrand::u64(..), Token(0));
    let failed = |error: io::Error| format!("{host}: cannot look the name up: {error}");
    let mut poll = Poll::new().map_err(failed)?;
    let mut events = Events::with_capacity(8);
    loop {
        let now = Instant::now();
        let until = match query.drive(poll.registry(), now) {
            Progress::Done(addresses) => {
                return Ok(addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect());
            }
            Progress::Failed(reason) => return Err(reason),
            Progress::Pending(until) => until.min(deadline),
        };
        if deadline <= now {
            let trouble = query.trouble().unwrap_or("no answer yet");
            return Err(format!("{host}: not resolved in time: {trouble}"));
        }
        match poll.poll(&mut events, Some(until.saturating_duration_since(now))) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(failed(error)),
            _ => {}
        }
    }
}
