//! HTTP/1.0 and 1.1 (RFC 9112), as much of it as a probe, a scraper or a browser that looks at a page
//! needs: GET and HEAD without a body. Everything else is answered with its status, and the connection
//! closed.
//!
//! A request is looked at once its head is whole, so that slow bytes make no difference. What two
//! readers of the same bytes could understand in different ways is refused: a body, a line that goes on
//! in the next one, a space before a colon, two `Host` lines.

use std::fmt::Write;

/// The longest head of a request, from its first line to its empty one, in bytes.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

/// In upper case, as they are sent. `POST` is not among them: whoever begins with it is hung up on
/// ([`super::resp::TextStep::CrossProtocol`]).
const METHODS: [&[u8]; 8] =
    [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpStep {
    /// Call again once there are this many bytes in all; never more than [`HEAD_BYTES_MAX`].
    NeedMore { at_least: usize },
    /// Drop `consumed` bytes from the inbox, and answer.
    Request { request: Request, consumed: usize },
    /// Answer with this status, then close.
    Error(Status),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Without the query.
    pub path: String,
    /// The answer goes without its body.
    pub is_head: bool,
    pub connection: Connection,
}

/// What is to become of the connection after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    Close,
    /// What HTTP/1.1 does anyway.
    Keep,
    /// HTTP/1.0, and has to be said.
    KeepAlive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    UriTooLong,
    HeadTooLarge,
    Unavailable,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Status::Ok => "200 OK",
            Status::BadRequest => "400 Bad Request",
            Status::NotFound => "404 Not Found",
            Status::MethodNotAllowed => "405 Method Not Allowed",
            Status::UriTooLong => "414 URI Too Long",
            Status::HeadTooLarge => "431 Request Header Fields Too Large",
            Status::Unavailable => "503 Service Unavailable",
        }
    }
}

pub struct Response<'a> {
    pub status: Status,
    pub content_type: &'a str,
    /// What a browser may do with it: `Content-Security-Policy`.
    pub policy: Option<&'a str>,
    pub body: &'a [u8],
}

pub const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

impl Response<'_> {
    /// The answer to a request; one to `HEAD` is the same without its body.
    pub fn encode(&self, is_head: bool, connection: Connection, out: &mut Vec<u8>) {
        let mut head = format!("HTTP/1.1 {}\r\n", self.status.line());
        let length = self.body.len();
        let _ = write!(head, "Content-Type: {}\r\nContent-Length: {length}\r\n", self.content_type);
        head.push_str("Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
        if let Some(policy) = self.policy {
            let _ = write!(
                head,
                "Content-Security-Policy: {policy}\r\nReferrer-Policy: no-referrer\r\n"
            );
        }
        if self.status == Status::MethodNotAllowed {
            head.push_str("Allow: GET, HEAD\r\n");
        }
        head.push_str(match connection {
            Connection::Close => "Connection: close\r\n\r\n",
            Connection::Keep => "\r\n",
            Connection::KeepAlive => "Connection: keep-alive\r\n\r\n",
        });
        out.extend_from_slice(head.as_bytes());
        if !is_head {
            out.extend_from_slice(self.body);
        }
    }
}

/// The last answer on a connection whose requests cannot be read on.
pub fn put_error(status: Status, out: &mut Vec<u8>) {
    let body = format!("{}\n", status.line());
    let response =
        Response { status, content_type: PLAIN_TEXT, policy: None, body: body.as_bytes() };
    response.encode(false, Connection::Close, out);
}

/// Whether the first line of a connection is that of a request: `None` if more bytes have to tell. `GET
/// key` is a text command as well; the end of the line, ` HTTP/1.x`, makes the difference. A line that
/// does not end within `line_bytes_max` is none.
pub fn is_request(first_bytes: &[u8], line_bytes_max: usize) -> Option<bool> {
    if !begins_with_method(first_bytes)? {
        return Some(false);
    }
    let window = &first_bytes[..first_bytes.len().min(line_bytes_max + 1)];
    match window.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            let line = trim_line(&window[..end]);
            // A key may be called that, too.
            let has_target = line.iter().filter(|byte| **byte == b' ').count() > 1;
            Some(has_target && version(line).is_some())
        }
        None if window.len() > line_bytes_max => Some(false),
        None => None,
    }
}

fn begins_with_method(bytes: &[u8]) -> Option<bool> {
    const LONGEST_WITH_SPACE: usize = 8;
    match bytes.iter().take(LONGEST_WITH_SPACE).position(|byte| *byte == b' ') {
        Some(end) => Some(METHODS.contains(&&bytes[..end])),
        None if METHODS.iter().any(|method| method.starts_with(bytes)) => None,
        None => Some(false),
    }
}

/// A line without its end, which may be a bare line feed (section 2.2).
fn trim_line(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The digit after ` HTTP/1.` at the end of a request line.
fn version(line: &[u8]) -> Option<u8> {
    let (before, digit) = line.split_at_checked(line.len().checked_sub(1)?)?;
    (before.ends_with(b" HTTP/1.") && digit[0].is_ascii_digit()).then(|| digit[0] - b'0')
}

/// Looks for one request at the front of `inbox`.
pub fn next_request(inbox: &[u8]) -> HttpStep {
    let window = &inbox[..inbox.len().min(HEAD_BYTES_MAX)];
    let Some(consumed) = head_end(window) else {
        let line = window.trim_ascii_start();
        return match window.len() == HEAD_BYTES_MAX {
            false => HttpStep::NeedMore { at_least: inbox.len() + 1 },
            true if line.is_empty() || line.contains(&b'\n') => {
                HttpStep::Error(Status::HeadTooLarge)
            }
            true => HttpStep::Error(Status::UriTooLong),
        };
    };
    match parse_head(&window[..consumed]) {
        Ok(request) => HttpStep::Request { request, consumed },
        Err(status) => HttpStep::Error(status),
    }
}

/// Where the head ends, with its empty line. Empty lines before a request are passed over (section 2.2).
fn head_end(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut has_begun) = (0, false);
    while let Some(length) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        let is_empty = trim_line(&bytes[at..at + length]).is_empty();
        at += length + 1;
        if is_empty && has_begun {
            return Some(at);
        }
        has_begun |= !is_empty;
    }
    None
}

fn parse_head(head: &[u8]) -> Result<Request, Status> {
    let mut lines =
        head.split(|byte| *byte == b'\n').map(trim_line).filter(|line| !line.is_empty());
    let line = lines.next().ok_or(Status::BadRequest)?;
    let minor = version(line).ok_or(Status::BadRequest)?;
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(_), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Status::BadRequest);
    };
    let is_head = match method {
        b"GET" => false,
        b"HEAD" => true,
        _ if is_token(method) => return Err(Status::MethodNotAllowed),
        _ => return Err(Status::BadRequest),
    };
    let path = path(target).ok_or(Status::BadRequest)?;
    let fields = lines.try_fold(Fields::default(), Fields::add)?;
    // Section 3.2: one in HTTP/1.1, and never two.
    if fields.hosts > 1 || (fields.hosts == 0 && minor > 0) {
        return Err(Status::BadRequest);
    }
    let connection = match minor {
        _ if fields.close => Connection::Close,
        0 if fields.keep_alive => Connection::KeepAlive,
        0 => Connection::Close,
        _ => Connection::Keep,
    };
    Ok(Request { path, is_head, connection })
}

/// The path of `/path?query`, or of `http://host/path?query` (section 3.2.2).
fn path(target: &[u8]) -> Option<String> {
    let target =
        std::str::from_utf8(target).ok().filter(|t| t.bytes().all(|b| b.is_ascii_graphic()))?;
    let whole = match target.strip_prefix("http://") {
        Some(after) => after.find(['/', '?']).map_or("/", |at| &after[at..]),
        None if target.starts_with('/') => target,
        None => return None,
    };
    let path = whole.split('?').next().unwrap_or_default();
    Some(if path.is_empty() { "/".to_string() } else { path.to_string() })
}

/// What matters of the lines after the first.
#[derive(Debug, Default)]
struct Fields {
    hosts: usize,
    close: bool,
    keep_alive: bool,
}

impl Fields {
    fn add(mut self, line: &[u8]) -> Result<Self, Status> {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Status::BadRequest)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let is_text = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
        if !is_token(name) || !value.iter().all(is_text) {
            return Err(Status::BadRequest);
        }
        match &name.to_ascii_lowercase()[..] {
            b"host" => self.hosts += 1,
            b"connection" => {
                let says = |option: &[u8]| {
                    let mut options = value.split(|byte| *byte == b',');
                    options.any(|one| one.trim_ascii().eq_ignore_ascii_case(option))
                };
                self.close |= says(b"close");
                self.keep_alive |= says(b"keep-alive");
            }
            // A body would be the next request to a reader that does not know how long it is.
            b"transfer-encoding" => return Err(Status::BadRequest),
            b"content-length" if value != b"0" => return Err(Status::BadRequest),
            _ => {}
        }
        Ok(self)
    }
}

/// A method or a field's name (RFC 9110, section 5.6.2).
fn is_token(bytes: &[u8]) -> bool {
    let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(is_of_token)
}
