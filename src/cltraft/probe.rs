//! The port of the client's pod (7000): `/livez`, `/readyz` and `/metrics` over HTTP, and one line of text for
//! `nc client 7000` and whatever else connects.
//!
//! The job itself blocks, so this has threads: one that accepts, and one for each of a few connections. All
//! that they share with the job is [`Health`].

use super::health::Health;
use crate::protocol::exposition;
use crate::protocol::http::{
    self, Connection, HEAD_BYTES_MAX, HttpStep, PLAIN_TEXT, Response, Status, put_error,
};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Connections at the same time; one more is closed at once.
const CONNECTIONS_MAX: usize = 32;
/// Who says nothing for so long wants the line of text.
const SILENCE: Duration = Duration::from_millis(300);
/// For a whole request, and again for its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// After a failed accept, such as for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A first line that is longer is none of HTTP; up to here one is told that it is too long.
const LINE_BYTES_MAX: usize = 2 * HEAD_BYTES_MAX;
const READ_BYTES: usize = 1024;

/// Listens, and answers from now on, until the process ends. Returns the address.
pub fn start(address: SocketAddr, health: Arc<Health>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let local = listener.local_addr()?;
    thread::Builder::new().name("probe".to_owned()).spawn(move || accept(&listener, &health))?;
    Ok(local)
}

fn accept(listener: &TcpListener, health: &Arc<Health>) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(_) => {
                thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (health, serving) = (Arc::clone(health), Arc::clone(&open));
        let serve = move || {
            // Whoever went away needs no answer.
            let _ = serve(stream, &health);
            serving.fetch_sub(1, Ordering::Relaxed);
        };
        if thread::Builder::new().name("probe connection".to_owned()).spawn(serve).is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn serve(mut stream: TcpStream, health: &Health) -> io::Result<()> {
    let answer = match listen_to(&mut stream)? {
        Asked::Http(request) => respond(&request, health),
        Asked::Wrong(status) => {
            let mut out = Vec::new();
            put_error(status, &mut out);
            out
        }
        Asked::Line => health.line(Instant::now()).into_bytes(),
    };
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&answer)?;
    // Closing with bytes unread would be a reset, and the answer could be lost with it.
    stream.shutdown(Shutdown::Write)?;
    drain(&mut stream)
}

enum Asked {
    Http(http::Request),
    Wrong(Status),
    Line,
}

/// Until it is clear what is wanted. One request for each connection: probes need no more.
fn listen_to(stream: &mut TcpStream) -> io::Result<Asked> {
    let until = Instant::now() + PATIENCE;
    let mut inbox = Vec::new();
    stream.set_read_timeout(Some(SILENCE))?;
    loop {
        let mut chunk = [0; READ_BYTES];
        let count = match stream.read(&mut chunk) {
            Ok(count) => count,
            Err(error) if is_timeout(&error) && inbox.is_empty() => return Ok(Asked::Line),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        inbox.extend_from_slice(&chunk[..count]);
        let is_over = count == 0 || inbox.contains(&b'\n');
        match http::is_request(&inbox, LINE_BYTES_MAX) {
            Some(false) if is_over || inbox.len() > LINE_BYTES_MAX => return Ok(Asked::Line),
            None if count == 0 => return Ok(Asked::Line),
            Some(false) | None => {}
            Some(true) => match http::next_request(&inbox) {
                HttpStep::Request { request, .. } => return Ok(Asked::Http(request)),
                HttpStep::Error(status) => return Ok(Asked::Wrong(status)),
                HttpStep::NeedMore { .. } if count == 0 => {
                    return Ok(Asked::Wrong(Status::BadRequest));
                }
                HttpStep::NeedMore { .. } => {}
            },
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn respond(request: &http::Request, health: &Health) -> Vec<u8> {
    let now = Instant::now();
    let judged = |trouble: Option<String>, well: &str| match trouble {
        None => (Status::Ok, PLAIN_TEXT, format!("{well}\n").into_bytes()),
        Some(why) => (Status::Unavailable, PLAIN_TEXT, format!("{why}\n").into_bytes()),
    };
    let (status, content_type, body) = match request.path.as_str() {
        "/" => (Status::Ok, PLAIN_TEXT, health.line(now).into_bytes()),
        "/livez" => judged(health.stuck(now), "alive"),
        "/readyz" => judged(health.stale(now), "ready"),
        "/metrics" => (Status::Ok, exposition::CONTENT_TYPE, health.metrics(now)),
        _ => {
            let text = "404 Not Found: there is /livez, /readyz and /metrics\n";
            (Status::NotFound, PLAIN_TEXT, text.into())
        }
    };
    let mut out = Vec::new();
    let response = Response { status, content_type, policy: None, body: &body };
    response.encode(request.is_head, Connection::Close, &mut out);
    out
}

/// What still comes is thrown away, until the other side closes as well, or its time is over.
fn drain(stream: &mut TcpStream) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    let mut chunk = [0; READ_BYTES];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
