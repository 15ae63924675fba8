//! etcd: gRPC, that is HTTP/2 with one stream a request. Only what `Put` and `Range` need: no compressed
//! headers are read, as the answer is the data, and an answer without data is an error.

use super::{Step, Wire, be32};
use std::collections::{BTreeMap, VecDeque};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const FRAME_HEAD_BYTES: usize = 9;
/// What the server may send before it hears that it was taken: given back well before it is used up.
const WINDOW_BYTES: u32 = 0x7fff_0000;
const GIVE_BACK_BYTES: u32 = 1 << 20;

#[derive(Debug, Default)]
pub struct Etcd {
    is_ready: bool,
    stream: u32,
    taken_bytes: u32,
    /// Streams in the order they were opened.
    open: VecDeque<u32>,
    /// What has come of them: whether there was data.
    data: BTreeMap<u32, bool>,
    ended: BTreeMap<u32, Result<(), String>>,
}

impl Etcd {
    fn call(&mut self, path: &[u8], message: &[u8], out: &mut Vec<u8>) {
        self.stream += if self.stream == 0 { 1 } else { 2 };
        self.open.push_back(self.stream);
        // POST, http, then fields that the table of the connection does not take up.
        let mut headers = vec![0x83, 0x86];
        put_header(&mut headers, &[0x04], path);
        put_header(&mut headers, &[0x01], b"localhost");
        put_header(&mut headers, &[0x0f, 0x10], b"application/grpc");
        put_header(&mut headers, b"\x00\x02te", b"trailers");
        put_frame(out, HEADERS, END_HEADERS, self.stream, &headers);
        let mut data = vec![0];
        data.extend_from_slice(&(message.len() as u32).to_be_bytes());
        data.extend_from_slice(message);
        put_frame(out, DATA, END_STREAM, self.stream, &data);
    }

    /// The answer to the oldest request, if it is there. Streams may end in another order.
    fn answer(&mut self, consumed: usize) -> Step {
        let ended = self.open.front().and_then(|stream| self.ended.remove(stream));
        match ended {
            Some(result) => {
                self.open.pop_front();
                Step::Answer { consumed, result }
            }
            None => Step::Passed(consumed),
        }
    }

    fn end(&mut self, stream: u32, result: Result<(), String>) {
        self.data.remove(&stream);
        self.ended.insert(stream, result);
    }
}

impl Wire for Etcd {
    fn greet(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        // Windows of streams (4) and of the connection as large as can be.
        let mut settings = vec![0, 4];
        settings.extend_from_slice(&WINDOW_BYTES.to_be_bytes());
        put_frame(out, SETTINGS, 0, 0, &settings);
        put_frame(out, WINDOW_UPDATE, 0, 0, &(WINDOW_BYTES - 65_535).to_be_bytes());
    }

    fn is_ready(&self) -> bool {
        self.is_ready
    }

    fn put(&mut self, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let mut message = Vec::with_capacity(key.len() + value.len() + 8);
        put_field(&mut message, 1, key);
        put_field(&mut message, 2, value);
        self.call(b"/etcdserverpb.KV/Put", &message, out);
    }

    fn get(&mut self, key: &[u8], out: &mut Vec<u8>) {
        let mut message = Vec::new();
        put_field(&mut message, 1, key);
        self.call(b"/etcdserverpb.KV/Range", &message, out);
    }

    fn step(&mut self, inbox: &[u8], out: &mut Vec<u8>) -> Result<Step, String> {
        if let Some(stream) = self.open.front()
            && self.ended.contains_key(stream)
        {
            return Ok(self.answer(0));
        }
        if inbox.len() < FRAME_HEAD_BYTES {
            return Ok(Step::NeedMore);
        }
        let length = (be32(inbox) >> 8) as usize;
        let (kind, flags) = (inbox[3], inbox[4]);
        let stream = be32(&inbox[5..]) & 0x7fff_ffff;
        let consumed = FRAME_HEAD_BYTES + length;
        let Some(payload) = inbox.get(FRAME_HEAD_BYTES..consumed) else {
            return Ok(Step::NeedMore);
        };
        match kind {
            SETTINGS if flags & ACK == 0 => {
                put_frame(out, SETTINGS, ACK, 0, &[]);
                self.is_ready = true;
            }
            PING if flags & ACK == 0 => put_frame(out, PING, ACK, 0, payload),
            DATA => {
                self.data.insert(stream, true);
                self.taken_bytes += length as u32;
                if self.taken_bytes >= GIVE_BACK_BYTES {
                    put_frame(out, WINDOW_UPDATE, 0, 0, &self.taken_bytes.to_be_bytes());
                    self.taken_bytes = 0;
                }
            }
            HEADERS if flags & END_STREAM != 0 => {
                let result = match self.data.contains_key(&stream) {
                    true => Ok(()),
                    false => Err("an error instead of data".to_string()),
                };
                self.end(stream, result);
            }
            RST_STREAM => self.end(stream, Err("the stream was reset".to_string())),
            GOAWAY => return Err("the server says goodbye".to_string()),
            _ => {}
        }
        Ok(self.answer(consumed))
    }
}

fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn put_header(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.push(value.len() as u8);
    out.extend_from_slice(value);
}

/// A field of bytes, as protobuf has them.
fn put_field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}
