//! JSON (RFC 8259), as much of it as is written here: `--output json`.
//!
//! Keys and values of the store are any bytes. What is UTF-8 is a string under its own name; what is not is
//! base64 (RFC 4648, section 4) under the name with `_base64` after it. So a reader that finds the plain name
//! has the bytes as they are, and nothing is replaced in silence.

use std::fmt::{Display, Write};

/// An object under construction: `{"name":value,...}`.
#[derive(Debug)]
pub struct Object {
    text: String,
}

impl Default for Object {
    fn default() -> Self {
        Object { text: "{".to_owned() }
    }
}

impl Object {
    pub fn text(self, name: &str, value: &str) -> Self {
        self.raw(name, &string(value))
    }

    /// Of the store.
    pub fn bytes(self, name: &str, value: &[u8]) -> Self {
        match std::str::from_utf8(value) {
            Ok(text) => self.text(name, text),
            Err(_) => self.text(&format!("{name}_base64"), &base64(value)),
        }
    }

    pub fn number(self, name: &str, value: impl Into<i128>) -> Self {
        self.raw(name, &value.into().to_string())
    }

    /// What is no finite number is `null`.
    pub fn real(self, name: &str, value: f64) -> Self {
        if value.is_finite() { self.raw(name, &value.to_string()) } else { self.null(name) }
    }

    pub fn bool(self, name: &str, value: bool) -> Self {
        self.raw(name, if value { "true" } else { "false" })
    }

    pub fn null(self, name: &str) -> Self {
        self.raw(name, "null")
    }

    pub fn object(self, name: &str, value: Object) -> Self {
        let text = value.finish();
        self.raw(name, &text)
    }

    pub fn objects(self, name: &str, values: impl IntoIterator<Item = Object>) -> Self {
        self.array(name, values.into_iter().map(Object::finish))
    }

    pub fn texts<'a>(self, name: &str, values: impl IntoIterator<Item = &'a String>) -> Self {
        self.array(name, values.into_iter().map(|text| string(text)))
    }

    fn array(self, name: &str, values: impl Iterator<Item = impl Display>) -> Self {
        let values: Vec<String> = values.map(|value| value.to_string()).collect();
        self.raw(name, &format!("[{}]", values.join(",")))
    }

    fn raw(mut self, name: &str, value: &str) -> Self {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        let _ = write!(self.text, "{}:{value}", string(name));
        self
    }

    /// One line, without its end.
    pub fn finish(mut self) -> String {
        self.text.push('}');
        self.text
    }
}

fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Escapes are also what keeps a terminal from obeying a value.
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit) & 63) as usize;
            out.push(if digit <= three.len() { char::from(DIGITS[index]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_in_the_rfc() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
            (b"fooba", "Zm9vYmE="),
            (b"foobar", "Zm9vYmFy"),
            (b"\xff\xfe\xfd", "//79"),
        ] {
            assert_eq!(base64(bytes), text);
        }
    }

    #[test]
    fn objects_and_their_escapes() {
        let inner = Object::default().bool("yes", true).null("none");
        let text = Object::default()
            .text("a\"b", "x\\y\n\x1b[2J\u{7f}é")
            .bytes("key", b"k")
            .bytes("value", b"\xff")
            .number("n", i64::MIN)
            .real("r", 1.5)
            .real("nan", f64::NAN)
            .texts("t", &["1".to_owned(), "2".to_owned()])
            .objects("o", [inner])
            .finish();
        assert_eq!(
            text,
            "{\"a\\\"b\":\"x\\\\y\\n\\u001b[2J\\u007fé\",\"key\":\"k\",\"value_base64\":\"/w==\",\
             \"n\":-9223372036854775808,\"r\":1.5,\"nan\":null,\"t\":[\"1\",\"2\"],\
             \"o\":[{\"yes\":true,\"none\":null}]}"
        );
        assert_eq!(Object::default().finish(), "{}");
    }
}
