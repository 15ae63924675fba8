//! The text side: cutting commands out of RESP arrays and typed lines, and writing RESP replies.
//!
//! A command is either `*2\r\n$3\r\nGET\r\n$1\r\na\r\n`, as libraries send it, or a line `GET a`, as a person
//! types it. The rules and the error texts are those of Redis. Where Redis buffers up to a gigabyte, a
//! command that is too long is skipped here as it arrives, answered with an error, and the connection
//! goes on.

use super::frame::{SKIP_BYTES_MAX, Skip};
use super::{Limits, client_frame_bytes_max};

/// The longest line that is taken for an inline command, without its end, in bytes (as in Redis).
pub const INLINE_BYTES_MAX: usize = 64 * 1024;
/// The most arguments of an array that are read or skipped; beyond it the stream is taken for broken
/// (as in Redis).
pub const MULTIBULK_COUNT_MAX: i64 = 1024 * 1024;
/// The most arguments of a command that is carried out, its name included. The arguments of a command
/// are looked at again whenever more of it arrives, and this bounds the work.
pub const ARGUMENTS_MAX: usize = 1024;
/// Room that is made for arguments before they are seen; most commands have no more.
const ROOM_FOR_ARGUMENTS: usize = 8;
/// The longest `*N` or `$N` line with its end, in bytes.
const NUMBER_LINE_BYTES_MAX: usize = 32;
/// Of the longest count in decimal.
const COUNT_DIGITS_MAX: usize = usize::MAX.ilog10() as usize + 1;
/// The longest `$N` line with its end that is written, in bytes.
const BULK_HEAD_BYTES_MAX: usize = 1 + COUNT_DIGITS_MAX + CRLF.len();

/// In bytes, but for the count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextLimits {
    pub arguments_max: usize,
    pub argument_bytes_max: usize,
    /// A whole array, from its `*` to its last line end.
    pub command_bytes_max: usize,
    pub inline_bytes_max: usize,
}

impl TextLimits {
    pub fn new(limits: &Limits) -> Self {
        TextLimits {
            arguments_max: ARGUMENTS_MAX,
            argument_bytes_max: limits.key_bytes_max.max(limits.value_bytes_max) as usize,
            command_bytes_max: client_frame_bytes_max(limits),
            inline_bytes_max: INLINE_BYTES_MAX,
        }
    }

    /// What an inbox must be able to hold, in bytes: with less, a command within the limits never fits.
    pub fn inbox_bytes_min(&self) -> usize {
        (self.command_bytes_max + NUMBER_LINE_BYTES_MAX).max(self.inline_bytes_max + 1)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextStep<'a> {
    /// Call again once there are this many bytes in all; never more than [`TextLimits::inbox_bytes_min`].
    NeedMore { at_least: usize },
    /// At least one argument, which is the command's name. Drop `consumed` bytes from the inbox.
    Command { args: Vec<&'a [u8]>, consumed: usize },
    /// An empty line or array, to be passed over in silence.
    Empty { consumed: usize },
    /// A command beyond a limit. Drop `consumed` bytes, let `skip` drop the rest of the command as it
    /// arrives, and answer `error`.
    Oversized { error: String, consumed: usize, skip: SkipCommand },
    /// Not the protocol: answer this error, then close.
    Error(ProtocolError),
    /// A browser was made to send this (`POST` or `Host:`, CVE-2016-10517): close without an answer.
    CrossProtocol,
}

/// What to answer with [`put_error`] before the connection is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtocolError(pub String);

fn protocol_error(what: &str) -> ProtocolError {
    ProtocolError(format!("ERR Protocol error: {what}"))
}

/// Looks for one command at the front of `inbox`. Its arguments are parts of it, or of `words`: those of a line, without
/// their quotes.
pub fn next_command<'a>(
    inbox: &'a [u8],
    words: &'a mut Vec<Vec<u8>>,
    limits: &TextLimits,
) -> TextStep<'a> {
    let step = match inbox.first() {
        None => Ok(TextStep::NeedMore { at_least: 1 }),
        Some(b'*') => next_array(inbox, limits),
        Some(_) => next_line(inbox, words, limits),
    };
    step.unwrap_or_else(TextStep::Error)
}

/// The keys of the `GET`s at the front of `inbox`, as far as they are there, and as libraries write them.
pub fn keys_to_get(mut inbox: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (name, rest) = inbox.strip_prefix(b"*2\r\n$3\r\n")?.split_at_checked(3)?;
        if !name.eq_ignore_ascii_case(b"get") {
            return None;
        }
        let bulk = rest.strip_prefix(CRLF)?;
        let (length, header) = bulk_header(bulk).ok()??;
        let (key, rest) = bulk[header..].split_at_checked(length)?;
        inbox = rest.strip_prefix(CRLF)?;
        Some(key)
    })
}

fn next_array<'a>(inbox: &'a [u8], limits: &TextLimits) -> Result<TextStep<'a>, ProtocolError> {
    let Some((count, mut at)) = array_header(inbox)? else {
        return Ok(TextStep::NeedMore { at_least: inbox.len() + 1 });
    };
    if count == 0 {
        return Ok(TextStep::Empty { consumed: at });
    }
    if count > limits.arguments_max {
        let error = format!("ERR {count} arguments, the limit is {}", limits.arguments_max);
        return Ok(TextStep::Oversized { error, consumed: at, skip: SkipCommand::new(count, 0) });
    }
    let mut args = Vec::with_capacity(count.min(ROOM_FOR_ARGUMENTS));
    while args.len() < count {
        let Some((length, header)) = bulk_header(&inbox[at..])? else {
            return Ok(TextStep::NeedMore { at_least: inbox.len() + 1 });
        };
        let start = at + header;
        let end = start + length + CRLF.len();
        if let Err(error) = check_argument(length, end, limits) {
            let skip = SkipCommand::new(count - args.len() - 1, length + CRLF.len());
            return Ok(TextStep::Oversized { error, consumed: start, skip });
        }
        let Some(bulk) = inbox.get(start..end) else {
            return Ok(TextStep::NeedMore { at_least: end });
        };
        args.push(bulk.strip_suffix(CRLF).ok_or_else(unterminated)?);
        at = end;
    }
    Ok(command(args, at))
}

fn check_argument(length: usize, end: usize, limits: &TextLimits) -> Result<(), String> {
    if length > limits.argument_bytes_max {
        return Err(format!(
            "ERR argument of {length} bytes, the limit is {} bytes",
            limits.argument_bytes_max
        ));
    }
    if end > limits.command_bytes_max {
        return Err(format!(
            "ERR command of {end} bytes or more, the limit is {} bytes",
            limits.command_bytes_max
        ));
    }
    Ok(())
}

fn command(args: Vec<&[u8]>, consumed: usize) -> TextStep<'_> {
    let name = &args[0];
    let is_host = name.get(..HOST.len()).is_some_and(|start| start.eq_ignore_ascii_case(HOST));
    if is_host || name.eq_ignore_ascii_case(b"post") {
        return TextStep::CrossProtocol;
    }
    TextStep::Command { args, consumed }
}

const CRLF: &[u8] = b"\r\n";
const HOST: &[u8] = b"host:";

fn unterminated() -> ProtocolError {
    protocol_error("expected CRLF after an argument")
}

/// The number of arguments (0 for the empty arrays that Redis passes over) and the header's length.
fn array_header(inbox: &[u8]) -> Result<Option<(usize, usize)>, ProtocolError> {
    let Some((line, header)) = number_line(inbox, "too big mbulk count string")? else {
        return Ok(None);
    };
    match parse_i64(&line[1..]) {
        Some(count) if count <= MULTIBULK_COUNT_MAX => Ok(Some((count.max(0) as usize, header))),
        _ => Err(protocol_error("invalid multibulk length")),
    }
}

/// The length of an argument and of its header.
fn bulk_header(bytes: &[u8]) -> Result<Option<(usize, usize)>, ProtocolError> {
    if let Some(&byte) = bytes.first().filter(|byte| **byte != b'$') {
        return Err(protocol_error(&format!("expected '$', got '{}'", byte.escape_ascii())));
    }
    let Some((line, header)) = number_line(bytes, "too big bulk count string")? else {
        return Ok(None);
    };
    match parse_i64(&line[1..]).and_then(|length| usize::try_from(length).ok()) {
        Some(length) if length <= SKIP_BYTES_MAX => Ok(Some((length, header))),
        _ => Err(protocol_error("invalid bulk length")),
    }
}

/// The line at the front, without its end, and its length with it.
fn number_line<'a>(
    bytes: &'a [u8],
    too_big: &str,
) -> Result<Option<(&'a [u8], usize)>, ProtocolError> {
    let window = &bytes[..bytes.len().min(NUMBER_LINE_BYTES_MAX)];
    match window.windows(CRLF.len()).position(|pair| pair == CRLF) {
        Some(end) => Ok(Some((&window[..end], end + CRLF.len()))),
        None if window.len() == NUMBER_LINE_BYTES_MAX => Err(protocol_error(too_big)),
        None => Ok(None),
    }
}

/// The rest of a command that is too long. It is dropped as it arrives, argument by argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkipCommand {
    /// Those whose `$` line has not come yet.
    arguments_left: usize,
    argument: Skip,
}

impl SkipCommand {
    fn new(arguments_left: usize, bytes: usize) -> Self {
        SkipCommand { arguments_left, argument: Skip::new(bytes) }
    }

    pub fn is_done(&self) -> bool {
        self.arguments_left == 0 && self.argument.is_done()
    }

    /// How many bytes at the front of `inbox` are to be dropped now. While the command is not done,
    /// call again when more have come.
    pub fn advance(&mut self, inbox: &[u8]) -> Result<usize, ProtocolError> {
        let mut dropped = self.argument.advance(inbox.len());
        while self.argument.is_done() && self.arguments_left > 0 {
            let Some((length, header)) = bulk_header(&inbox[dropped..])? else {
                break;
            };
            dropped += header;
            self.arguments_left -= 1;
            self.argument = Skip::new(length + CRLF.len());
            dropped += self.argument.advance(inbox.len() - dropped);
        }
        Ok(dropped)
    }
}

fn next_line<'a>(
    inbox: &[u8],
    words: &'a mut Vec<Vec<u8>>,
    limits: &TextLimits,
) -> Result<TextStep<'a>, ProtocolError> {
    let window = &inbox[..inbox.len().min(limits.inline_bytes_max + 1)];
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        if window.len() > limits.inline_bytes_max {
            return Err(protocol_error("too big inline request"));
        }
        return Ok(TextStep::NeedMore { at_least: inbox.len() + 1 });
    };
    let line = window[..end].strip_suffix(b"\r").unwrap_or(&window[..end]);
    *words = split_line(line).ok_or_else(|| protocol_error("unbalanced quotes in request"))?;
    if words.is_empty() {
        return Ok(TextStep::Empty { consumed: end + 1 });
    }
    Ok(command(words.iter().map(Vec::as_slice).collect(), end + 1))
}

/// Splits a line into words as Redis does: `"..."` with escapes, `'...'` with only `\'`, and after a closing
/// quote a space. `None`: the quotes do not match.
fn split_line(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii_start();
    while !rest.is_empty() {
        let mut word = Vec::new();
        rest = take_word(rest, &mut word)?.trim_ascii_start();
        words.push(word);
    }
    Some(words)
}

/// Moves the word at the front into `word`; the answer is what follows.
fn take_word<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return Some(rest),
            [space, ..] if space.is_ascii_whitespace() => return Some(rest),
            [b'"', quoted @ ..] => return take_double_quoted(quoted, word).filter(at_word_end),
            [b'\'', quoted @ ..] => return take_single_quoted(quoted, word).filter(at_word_end),
            [byte, after @ ..] => {
                word.push(*byte);
                rest = after;
            }
        }
    }
}

fn at_word_end(rest: &&[u8]) -> bool {
    rest.first().is_none_or(u8::is_ascii_whitespace)
}

fn take_double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (byte, after) = match rest {
            [] => return None,
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex_digit(*high) << 4 | hex_digit(*low), after)
            }
            [b'\\', escaped, after @ ..] => (unescape(*escaped), after),
            [byte, after @ ..] => (*byte, after),
        };
        word.push(byte);
        rest = after;
    }
}

fn take_single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (byte, after) = match rest {
            [] => return None,
            [b'\'', after @ ..] => return Some(after),
            [b'\\', b'\'', after @ ..] => (b'\'', after),
            [byte, after @ ..] => (*byte, after),
        };
        word.push(byte);
        rest = after;
    }
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// A decimal integer as Redis takes it: no plus, no leading zeros, no spaces, no `-0`.
pub fn parse_i64(bytes: &[u8]) -> Option<i64> {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let canonical = match digits {
        [b'0'] => digits.len() == bytes.len(),
        [b'1'..=b'9', ..] => true,
        _ => false,
    };
    if !canonical {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// `text` must not have a line end.
pub fn put_simple(out: &mut Vec<u8>, text: &str) {
    put_line(out, b'+', text);
}

/// `text` starts with the code word, `ERR` for example. Line ends in it become spaces.
pub fn put_error(out: &mut Vec<u8>, text: &str) {
    put_line(out, b'-', text);
}

#[inline(never)]
pub fn put_integer(out: &mut Vec<u8>, value: i64) {
    put_line(out, b':', &value.to_string());
}

#[inline(never)]
pub fn put_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(BULK_HEAD_BYTES_MAX + bytes.len() + CRLF.len());
    put_count(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(CRLF);
}

/// Which RESP a connection speaks; `HELLO` changes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Version {
    #[default]
    Resp2,
    Resp3,
}

/// "No such value".
pub fn put_null(out: &mut Vec<u8>, version: Version) {
    out.extend_from_slice(match version {
        Version::Resp2 => b"$-1\r\n",
        Version::Resp3 => b"_\r\n",
    });
}

/// The start of a map; its keys and values follow in turn.
pub fn put_map(out: &mut Vec<u8>, version: Version, pairs: usize) {
    match version {
        Version::Resp2 => put_array(out, 2 * pairs),
        Version::Resp3 => put_count(out, b'%', pairs),
    }
}

/// A text for people.
pub fn put_text(out: &mut Vec<u8>, version: Version, text: &str) {
    match version {
        Version::Resp2 => put_bulk(out, text.as_bytes()),
        Version::Resp3 => {
            const FORMAT: &str = "txt:";
            put_count(out, b'=', FORMAT.len() + text.len());
            out.extend_from_slice(FORMAT.as_bytes());
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(CRLF);
        }
    }
}

/// The start of an array; its elements follow.
pub fn put_array(out: &mut Vec<u8>, elements: usize) {
    put_count(out, b'*', elements);
}

/// The start of what nobody asked for: a push, and an array in the version that has none.
pub fn put_push(out: &mut Vec<u8>, version: Version, elements: usize) {
    match version {
        Version::Resp2 => put_array(out, elements),
        Version::Resp3 => put_count(out, b'>', elements),
    }
}

/// Every value that is read begins with one, so it is not worth an allocation.
fn put_count(out: &mut Vec<u8>, kind: u8, count: usize) {
    let mut digits = [0; COUNT_DIGITS_MAX];
    let (mut at, mut rest) = (digits.len(), count);
    while at == digits.len() || rest > 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.push(kind);
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(CRLF);
}

#[inline(never)]
fn put_line(out: &mut Vec<u8>, kind: u8, text: &str) {
    out.push(kind);
    out.extend(text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(CRLF);
}
