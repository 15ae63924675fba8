//! Which protocol a connection speaks, by its first bytes.
//!
//! The binary magic starts with a byte that no text starts with, `*` starts a RESP array, and a letter a
//! line that somebody types, or an HTTP request: which of the two, the line's end tells. Anything else
//! is refused at once, with a reason for the log: guessing would only turn a wrong port or an unexpected
//! TLS hello into a puzzling error later.

use super::frame::MAGIC;
use super::http;
use super::resp::INLINE_BYTES_MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniffed {
    /// Too few bytes to tell. Whoever sends no more is closed by a timeout.
    NeedMore,
    /// The magic is there, whole; it is still to be consumed.
    Binary,
    /// RESP arrays or inline commands; nothing is to be consumed.
    Text,
    /// An HTTP request; nothing is to be consumed.
    Http,
    /// To be closed, for this reason.
    Refused(&'static str),
}

const TLS_HANDSHAKE: u8 = 0x16;

/// Looks at the first bytes of a connection, all of those that have come so far.
pub fn sniff(first_bytes: &[u8]) -> Sniffed {
    match first_bytes.first() {
        None => Sniffed::NeedMore,
        // Redis skips empty lines before a command.
        Some(b'*' | b'\r' | b'\n') => Sniffed::Text,
        Some(byte) if byte.is_ascii_alphabetic() => {
            match http::is_request(first_bytes, INLINE_BYTES_MAX) {
                None => Sniffed::NeedMore,
                Some(true) => Sniffed::Http,
                Some(false) => Sniffed::Text,
            }
        }
        Some(&byte) if byte == MAGIC[0] => sniff_magic(first_bytes),
        Some(&TLS_HANDSHAKE) => Sniffed::Refused("a TLS hello: this port speaks plain TCP"),
        Some(_) => Sniffed::Refused("neither the magic nor a text command"),
    }
}

fn sniff_magic(first_bytes: &[u8]) -> Sniffed {
    let (name, format) = MAGIC.split_at(MAGIC.len() - 1);
    let seen = first_bytes.len().min(name.len());
    if first_bytes[..seen] != name[..seen] {
        return Sniffed::Refused("a wrong magic");
    }
    match first_bytes.get(name.len()) {
        None => Sniffed::NeedMore,
        Some(byte) if *byte == format[0] => Sniffed::Binary,
        Some(_) => Sniffed::Refused("a frame format that this version does not know"),
    }
}
