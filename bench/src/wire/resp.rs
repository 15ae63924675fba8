//! Redis and raftkv.

use super::{Step, Wire};

#[derive(Debug, Default)]
pub struct Resp;

impl Wire for Resp {
    fn greet(&mut self, _: &mut Vec<u8>) {}

    fn is_ready(&self) -> bool {
        true
    }

    fn put(&mut self, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        command(&[b"SET", key, value], out);
    }

    fn get(&mut self, key: &[u8], out: &mut Vec<u8>) {
        command(&[b"GET", key], out);
    }

    fn step(&mut self, inbox: &[u8], _: &mut Vec<u8>) -> Result<Step, String> {
        let Some(end) = inbox.windows(2).position(|pair| pair == b"\r\n") else {
            return Ok(Step::NeedMore);
        };
        let (line, after) = (&inbox[..end], end + 2);
        let text = String::from_utf8_lossy(&line[1..]);
        let answer = |consumed, result| Ok(Step::Answer { consumed, result });
        match line[0] {
            b'+' | b':' | b'_' => answer(after, Ok(())),
            b'-' => answer(after, Err(text.into_owned())),
            b'$' => {
                let length: i64 = text.parse().map_err(|_| format!("a bulk string of {text}"))?;
                let consumed = match usize::try_from(length) {
                    Ok(length) => after + length + 2,
                    Err(_) => after,
                };
                if inbox.len() < consumed { Ok(Step::NeedMore) } else { answer(consumed, Ok(())) }
            }
            other => Err(format!("an answer that begins with {:?}", char::from(other))),
        }
    }
}

fn command(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}
