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
        let Some(consumed) = reply_bytes(inbox)? else { return Ok(Step::NeedMore) };
        let result = match inbox[0] {
            b'-' => Err(String::from_utf8_lossy(&inbox[1..consumed]).trim_end().to_string()),
            _ => Ok(()),
        };
        Ok(Step::Answer { consumed, result })
    }
}

/// How long the reply at the front is, once it is whole.
fn reply_bytes(inbox: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = inbox.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let after = end + 2;
    let text = String::from_utf8_lossy(&inbox[1..end]);
    // -1 stands for nothing at all.
    let count = || text.parse::<i64>().map_err(|_| format!("a length of {text:?}"));
    match inbox[0] {
        b'+' | b':' | b'_' | b'-' => Ok(Some(after)),
        b'$' => {
            let whole = usize::try_from(count()?).map_or(after, |length| after + length + 2);
            Ok((inbox.len() >= whole).then_some(whole))
        }
        b'*' => {
            let mut whole = after;
            for _ in 0..count()?.max(0) {
                let Some(item) = reply_bytes(&inbox[whole..])? else { return Ok(None) };
                whole += item;
            }
            Ok(Some(whole))
        }
        other => Err(format!("an answer that begins with {:?}", char::from(other))),
    }
}

pub fn command(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}
