//! ZooKeeper's client protocol: frames with a length, integers in network order.
//!
//! A read is `sync` and `getData` sent together, which is as strict as it gets there.

use super::{Step, Wire, be32};

const CREATE: i32 = 1;
const GET_DATA: i32 = 4;
const SET_DATA: i32 = 5;
const SYNC: i32 = 9;
const NODE_EXISTS: i32 = -110;
const SESSION_TIMEOUT_MS: i32 = 60_000;
/// Bytes of a reply's header: number, zxid, error.
const HEADER_BYTES: usize = 4 + 8 + 4;

#[derive(Debug, Default)]
pub struct ZooKeeper {
    is_ready: bool,
    number: i32,
    /// Numbers of requests whose answers only lead to the next one.
    silent: std::collections::BTreeSet<i32>,
}

impl ZooKeeper {
    fn request(&mut self, kind: i32, out: &mut Vec<u8>, fields: impl FnOnce(&mut Vec<u8>)) -> i32 {
        self.number += 1;
        frame(out, |out| {
            put_int(out, self.number);
            put_int(out, kind);
            fields(out);
        });
        self.number
    }
}

impl Wire for ZooKeeper {
    fn greet(&mut self, out: &mut Vec<u8>) {
        frame(out, |out| {
            put_int(out, 0);
            out.extend_from_slice(&0u64.to_be_bytes());
            put_int(out, SESSION_TIMEOUT_MS);
            out.extend_from_slice(&0u64.to_be_bytes());
            put_blob(out, &[0; 16]);
            out.push(0);
        });
    }

    fn is_ready(&self) -> bool {
        self.is_ready
    }

    fn create(&mut self, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        self.request(CREATE, out, |out| {
            put_path(out, key);
            put_blob(out, value);
            // One entry: everything, for the scheme `world`, whose only name is `anyone`.
            put_int(out, 1);
            put_int(out, 31);
            put_blob(out, b"world");
            put_blob(out, b"anyone");
            put_int(out, 0);
        });
    }

    fn put(&mut self, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        self.request(SET_DATA, out, |out| {
            put_path(out, key);
            put_blob(out, value);
            put_int(out, -1);
        });
    }

    fn get(&mut self, key: &[u8], out: &mut Vec<u8>) {
        let number = self.request(SYNC, out, |out| put_path(out, key));
        self.silent.insert(number);
        self.request(GET_DATA, out, |out| {
            put_path(out, key);
            out.push(0);
        });
    }

    fn step(&mut self, inbox: &[u8], _: &mut Vec<u8>) -> Result<Step, String> {
        if inbox.len() < 4 {
            return Ok(Step::NeedMore);
        }
        let consumed = 4 + be32(inbox) as usize;
        let Some(body) = inbox.get(4..consumed) else { return Ok(Step::NeedMore) };
        if !self.is_ready {
            self.is_ready = true;
            return Ok(Step::Passed(consumed));
        }
        if body.len() < HEADER_BYTES {
            return Err(format!("a reply of {} bytes", body.len()));
        }
        if self.silent.remove(&(be32(body) as i32)) {
            return Ok(Step::Passed(consumed));
        }
        let result = match be32(&body[12..]) as i32 {
            0 | NODE_EXISTS => Ok(()),
            error => Err(format!("error {error}")),
        };
        Ok(Step::Answer { consumed, result })
    }
}

fn put_int(out: &mut Vec<u8>, number: i32) {
    out.extend_from_slice(&number.to_be_bytes());
}

fn put_blob(out: &mut Vec<u8>, bytes: &[u8]) {
    put_int(out, bytes.len() as i32);
    out.extend_from_slice(bytes);
}

fn put_path(out: &mut Vec<u8>, key: &[u8]) {
    put_int(out, key.len() as i32 + 1);
    out.push(b'/');
    out.extend_from_slice(key);
}

fn frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    put_int(out, 0);
    write(out);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}
