//! As much of JSON (RFC 8259) as is written here.

use std::fmt::{Display, Write};

#[derive(Debug, Default)]
pub struct Json {
    text: String,
    needs_comma: bool,
}

impl Json {
    /// An object as the whole document.
    pub fn document(fill: impl FnOnce(&mut Json)) -> String {
        let mut json = Json::default();
        json.nested('{', '}', fill);
        json.text.push('\n');
        json.text
    }

    fn nested(&mut self, open: char, close: char, fill: impl FnOnce(&mut Json)) {
        self.open(open);
        fill(self);
        self.close(close);
    }

    // What every value takes is no part of the many functions that put one.

    #[inline(never)]
    fn open(&mut self, bracket: char) {
        self.comma();
        self.text.push(bracket);
        self.needs_comma = false;
    }

    #[inline(never)]
    fn close(&mut self, bracket: char) {
        self.text.push(bracket);
        self.needs_comma = true;
    }

    #[inline(never)]
    fn shown(&mut self, value: &dyn Display) {
        self.comma();
        let _ = write!(self.text, "{value}");
    }

    fn comma(&mut self) {
        if std::mem::replace(&mut self.needs_comma, true) {
            self.text.push(',');
        }
    }

    #[inline(never)]
    fn name(&mut self, name: &str) {
        self.string(name);
        self.text.push(':');
        self.needs_comma = false;
    }

    // Elements of an array.

    #[inline(never)]
    pub fn string(&mut self, text: &str) {
        self.comma();
        self.text.push('"');
        for character in text.chars() {
            match character {
                '"' | '\\' => self.text.extend(['\\', character]),
                // Characters that end lines in JavaScript, and `<`, are escaped too: whoever pastes this into
                // a page is safe.
                '\u{0}'..='\u{1f}' | '\u{7f}' | '<' | '\u{2028}' | '\u{2029}' => {
                    let _ = write!(self.text, "\\u{:04x}", u32::from(character));
                }
                _ => self.text.push(character),
            }
        }
        self.text.push('"');
    }

    /// An integer, or `true`, `false`, `null`.
    pub fn plain(&mut self, value: impl Display) {
        self.shown(&value);
    }

    pub fn object(&mut self, fill: impl FnOnce(&mut Json)) {
        self.nested('{', '}', fill);
    }

    pub fn array(&mut self, fill: impl FnOnce(&mut Json)) {
        self.nested('[', ']', fill);
    }

    // Members of an object.

    pub fn text_of(&mut self, name: &str, text: &str) {
        self.name(name);
        self.string(text);
    }

    pub fn plain_of(&mut self, name: &str, value: impl Display) {
        self.name(name);
        self.plain(value);
    }

    pub fn maybe_of(&mut self, name: &str, value: Option<impl Display>) {
        match value {
            Some(value) => self.plain_of(name, value),
            None => self.plain_of(name, "null"),
        }
    }

    pub fn object_of(&mut self, name: &str, fill: impl FnOnce(&mut Json)) {
        self.name(name);
        self.object(fill);
    }

    pub fn array_of(&mut self, name: &str, fill: impl FnOnce(&mut Json)) {
        self.name(name);
        self.array(fill);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_with_commas_between_them_at_every_depth() {
        let text = Json::document(|json| {
            json.text_of("a", "b");
            json.plain_of("n", 1);
            json.maybe_of("none", None::<u64>);
            json.array_of("list", |json| {
                json.array(|json| json.plain(1));
                json.array(|_| {});
                json.object(|json| json.plain_of("x", true));
                json.string("s");
            });
            json.object_of("empty", |_| {});
            json.plain_of("last", 2);
        });
        let expected = concat!(
            r#"{"a":"b","n":1,"none":null,"list":[[1],[],{"x":true},"s"],"#,
            r#""empty":{},"last":2}"#,
            "\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn whatever_a_name_holds_it_stays_a_string() {
        let text =
            Json::document(|json| json.text_of("a\"b", "\\ \n\u{0}\u{7f} </script> ä \u{2028}"));
        assert_eq!(text, "{\"a\\\"b\":\"\\\\ \\u000a\\u0000\\u007f \\u003c/script> ä \\u2028\"}\n");
    }
}
