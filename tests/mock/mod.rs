//! A server that speaks the real protocol and does what a test tells it. Each test file uses a part of it.
#![allow(dead_code)]

use raftkv::kv::{
    Answer, Command, Failure, FailureCode, Found, LeaderHint, MemberRequest, Outcome, Range,
    ReadOp, Request, WriteOp,
};
use raftkv::node::Standing;
use raftkv::protocol::client::{ReplyBody, ReplyFrame, RequestBody, RequestFrame};
use raftkv::protocol::frame::{FrameStep, MAGIC, next_frame, put_frame};
use raftkv::protocol::hello::{Hello, HelloReply, Refused, RefusedCode, VERSION_MAX, Welcome};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

pub const CLUSTER: u64 = 0xc1;
pub const FRAME_BYTES_MAX: usize = 4 << 20;

/// What the mock does with a request.
pub enum Step {
    Reply(Answer),
    /// A reply, and then the connection is closed.
    Last(Answer),
    Status(Vec<(String, String)>),
    /// Several replies to one request, and then the end of the connection if it says so.
    Stream(Vec<ReplyBody>, bool),
    /// These bytes instead of a frame.
    Raw(Vec<u8>),
    /// The connection is closed without an answer.
    Close,
    /// Nothing, for ever.
    Silence,
    /// Connection and port are closed: the process is dead.
    Die,
}

/// What the mock does with a hello.
#[derive(Clone)]
pub enum Greeting {
    Welcome { cluster_id: u64, value_bytes_max: u32 },
    Refuse(String),
    Raw(Vec<u8>),
    Silence,
}

impl Greeting {
    pub fn normal() -> Self {
        Greeting::Welcome { cluster_id: CLUSTER, value_bytes_max: 1 << 20 }
    }
}

/// A request that reached the mock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Get(Vec<u8>),
    OpenSession,
    /// Session and sequence.
    Write(u64, u64),
    Digest,
    Read,
    Backup,
    Member(MemberRequest),
    Status,
    /// The first index that is wanted.
    Changes(Option<u64>),
}

type Handler = Box<dyn FnMut(&Seen, &RequestBody) -> Step + Send>;

struct Shared {
    greeting: Greeting,
    handler: Mutex<Handler>,
    seen: Mutex<Vec<Seen>>,
    dead: AtomicBool,
    address: String,
}

pub struct Mock {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Mock {
    pub fn start(handler: impl FnMut(&Seen, &RequestBody) -> Step + Send + 'static) -> Mock {
        Mock::greeting(Greeting::normal(), handler)
    }

    pub fn greeting(
        greeting: Greeting,
        handler: impl FnMut(&Seen, &RequestBody) -> Step + Send + 'static,
    ) -> Mock {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Mock::on(listener, greeting, handler)
    }

    pub fn on(
        listener: TcpListener,
        greeting: Greeting,
        handler: impl FnMut(&Seen, &RequestBody) -> Step + Send + 'static,
    ) -> Mock {
        let address = listener.local_addr().expect("it is bound").to_string();
        let shared = Arc::new(Shared {
            greeting,
            handler: Mutex::new(Box::new(handler)),
            seen: Mutex::new(Vec::new()),
            dead: AtomicBool::new(false),
            address,
        });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Mock { shared, acceptor: Some(acceptor) }
    }

    pub fn address(&self) -> String {
        self.shared.address.clone()
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().expect("no panic").clone()
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.shared.die();
        self.acceptor.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
        // Wakes the acceptor, which then closes the port.
        let _ = TcpStream::connect(&self.address);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept() {
        if shared.dead.load(Ordering::SeqCst) {
            return;
        }
        let shared = Arc::clone(shared);
        thread::spawn(move || serve(stream, &shared));
    }
}

/// Returns, and so closes the connection, when the client does or a step says so.
fn serve(mut stream: TcpStream, shared: &Shared) {
    let mut inbox = Vec::new();
    while inbox.len() < MAGIC.len() {
        if !fill(&mut stream, &mut inbox) {
            return;
        }
    }
    assert_eq!(inbox[..MAGIC.len()], MAGIC);
    inbox.drain(..MAGIC.len());
    let Some(hello) = receive(&mut stream, &mut inbox) else { return };
    Hello::decode(&hello).expect("the client sends a good hello");
    let reply = match &shared.greeting {
        Greeting::Silence => {
            receive(&mut stream, &mut inbox);
            return;
        }
        Greeting::Raw(bytes) => bytes.clone(),
        Greeting::Refuse(reason) => hello_bytes(&HelloReply::Refused(Refused {
            code: RefusedCode::Busy,
            reason: reason.clone(),
        })),
        Greeting::Welcome { cluster_id, value_bytes_max } => {
            hello_bytes(&HelloReply::Welcome(Welcome {
                version: VERSION_MAX,
                cluster_id: *cluster_id,
                node: 0,
                incarnation: 1,
                name: "raft-0".to_owned(),
                frame_bytes_max: FRAME_BYTES_MAX as u32,
                key_bytes_max: 4096,
                value_bytes_max: *value_bytes_max,
                standing: Standing::Empty,
                address: String::new(),
            }))
        }
    };
    let _ = stream.write_all(&reply);
    while let Some(payload) = receive(&mut stream, &mut inbox) {
        if !respond(&mut stream, &payload, shared) {
            return;
        }
    }
}

/// Whether the connection goes on.
fn respond(stream: &mut TcpStream, payload: &[u8], shared: &Shared) -> bool {
    let request = RequestFrame::decode(payload).expect("the client sends good requests");
    let seen = describe(&request.body);
    shared.seen.lock().expect("no panic").push(seen.clone());
    let step = (shared.handler.lock().expect("no panic"))(&seen, &request.body);
    let body = match step {
        Step::Reply(answer) => ReplyBody::Answer(answer),
        Step::Last(answer) => {
            let _ = stream.write_all(&reply_bytes(request.id, ReplyBody::Answer(answer)));
            return false;
        }
        Step::Status(fields) => ReplyBody::Status(fields),
        Step::Stream(bodies, goes_on) => {
            let bytes: Vec<u8> =
                bodies.into_iter().flat_map(|body| reply_bytes(request.id, body)).collect();
            return stream.write_all(&bytes).is_ok() && goes_on;
        }
        Step::Raw(bytes) => return stream.write_all(&bytes).is_ok(),
        Step::Close => return false,
        Step::Silence => return true,
        Step::Die => {
            shared.die();
            return false;
        }
    };
    stream.write_all(&reply_bytes(request.id, body)).is_ok()
}

fn describe(body: &RequestBody) -> Seen {
    match body {
        RequestBody::Status => Seen::Status,
        RequestBody::Changes { from, .. } => Seen::Changes(*from),
        RequestBody::Ask(Request::Digest) => Seen::Digest,
        RequestBody::Ask(Request::Read(_)) => Seen::Read,
        RequestBody::Ask(Request::Backup(_)) => Seen::Backup,
        RequestBody::Ask(Request::Member(request)) => Seen::Member(request.clone()),
        RequestBody::Ask(Request::Get { key }) => Seen::Get(key.to_vec()),
        RequestBody::Ask(Request::Write { command }) => {
            match Command::decode(command).expect("checked by the frame's decoder") {
                Command::OpenSession => Seen::OpenSession,
                Command::Write { request, .. } => {
                    let id = request.expect("the client always uses a session");
                    Seen::Write(id.session, id.sequence)
                }
            }
        }
    }
}

pub fn reply_bytes(id: u64, body: ReplyBody) -> Vec<u8> {
    let mut out = Vec::new();
    put_frame(&mut out, |out| ReplyFrame { id, body }.encode(out));
    out
}

fn hello_bytes(reply: &HelloReply) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    put_frame(&mut out, |out| reply.encode(out));
    out
}

fn receive(stream: &mut TcpStream, inbox: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        match next_frame(inbox, FRAME_BYTES_MAX).expect("the client sends good frames") {
            FrameStep::Frame { payload, consumed } => {
                let payload = payload.to_vec();
                inbox.drain(..consumed);
                return Some(payload);
            }
            FrameStep::NeedMore { .. } => {}
            FrameStep::Oversized { .. } => panic!("the client keeps to the limit"),
        }
        if !fill(stream, inbox) {
            return None;
        }
    }
}

fn fill(stream: &mut TcpStream, inbox: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 4096];
    match stream.read(&mut chunk) {
        Ok(0) | Err(_) => false,
        Ok(count) => {
            inbox.extend_from_slice(&chunk[..count]);
            true
        }
    }
}

// Answers.

pub fn value(text: Option<&str>) -> Step {
    let value = text.map(|text| text.as_bytes().into());
    Step::Reply(Answer::Value { value, index: 9, leader: 2 })
}

pub fn written(outcome: Outcome) -> Step {
    Step::Reply(Answer::Written { outcome, index: 7, leader: 2 })
}

pub fn opened(session: u64) -> Step {
    written(Outcome::SessionOpened { session })
}

pub fn failed(code: FailureCode, hint: Option<&str>) -> Step {
    let leader = hint.map(|address| LeaderHint { id: 2, address: address.to_owned() });
    Step::Reply(Answer::Failed(Failure { code, message: String::new(), leader }))
}

/// A whole store of one node, which never fails.
#[derive(Default)]
pub struct Store {
    pub map: BTreeMap<Vec<u8>, Vec<u8>>,
    index: u64,
}

impl Store {
    pub fn handle(&mut self, body: &RequestBody) -> Step {
        let RequestBody::Ask(request) = body else { return Step::Close };
        Step::Reply(match request {
            Request::Get { key } => {
                let value = self.map.get(&key[..]).map(|value| value.as_slice().into());
                Answer::Value { value, index: self.index, leader: 2 }
            }
            Request::Digest => {
                Answer::Digest { digest: 0xabc, keys: 3, index: self.index, leader: 2 }
            }
            Request::Read(ReadOp::Range(range)) => {
                Answer::Found { found: self.range(range), index: self.index, leader: 2 }
            }
            Request::Read(_) => unreachable!("the client library has no such call"),
            Request::Backup(_) => unreachable!("backups are of real nodes"),
            Request::Member(_) => Answer::Member { index: self.index, leader: 2 },
            Request::Write { command } => {
                self.index += 1;
                let outcome = match Command::decode(command).expect("checked") {
                    Command::OpenSession => Outcome::SessionOpened { session: self.index },
                    Command::Write { op, .. } => self.apply(op),
                };
                Answer::Written { outcome, index: self.index, leader: 2 }
            }
        })
    }

    /// Partial, forwards, and without a pattern: all that the client library asks for.
    fn range(&self, range: &Range) -> Found {
        let from_start = self.map.range(range.start.to_vec()..);
        let before_end =
            |(key, _): &(&Vec<u8>, _)| range.end.as_ref().is_none_or(|end| key[..] < end[..]);
        let mut pairs = from_start.take_while(before_end);
        let mut items = Vec::new();
        for (key, value) in pairs.by_ref().take(range.keys_max as usize) {
            items.push(key.as_slice().into());
            items.extend(range.with_values.then(|| value.as_slice().into()));
        }
        Found::Keys { items, next: pairs.next().map(|(key, _)| key.as_slice().into()) }
    }

    fn apply(&mut self, op: WriteOp<'_>) -> Outcome {
        match op {
            WriteOp::Put { key, value } => {
                self.map.insert(key.to_vec(), value.to_vec());
                Outcome::Put
            }
            WriteOp::Delete { key } => Outcome::Deleted(self.map.remove(key).is_some()),
            WriteOp::CompareAndSet { key, expected, value } => {
                let matches = self.map.get(key).map(Vec::as_slice) == expected;
                if matches {
                    self.map.insert(key.to_vec(), value.to_vec());
                }
                Outcome::Swapped(matches)
            }
            WriteOp::Increment { key, delta } => {
                let old = self.map.get(key).map_or("0".into(), |v| String::from_utf8_lossy(v));
                let sum = old.parse::<i64>().expect("tests count with numbers") + delta;
                self.map.insert(key.to_vec(), sum.to_string().into_bytes());
                Outcome::Counter(sum)
            }
            other => unreachable!("the client library has no call for {other:?}"),
        }
    }
}
