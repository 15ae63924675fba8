//! Where a fuzzer begins: for each target a few inputs that go deep, with a name.

use crate::documented::{documented, payload_of};
use crate::mem_disk::MemDisk;
use crate::model;
use raftkv::kv::{
    Command, Condition, Expiry, ReadOp, RequestId, Step, StepBuffer, TimeCondition, TimedOp,
    Transaction, WatchedBuffer, WriteOp,
};
use raftkv::protocol::Kind;
use raftkv::protocol::frame::{HEADER_BYTES, MAGIC};

pub type Seed = (String, Vec<u8>);

/// Streams in one piece of up to 256 bytes after the other, and byte by byte.
const FAST: [u8; 3] = [255, 255, 255];
const SLOW: [u8; 3] = [0, 0, 0];

fn seed(name: impl Into<String>, parts: &[&[u8]]) -> Seed {
    (name.into(), parts.concat())
}

/// The payloads of the documented messages of these types.
fn payloads(first: Kind, last: Kind) -> Vec<Seed> {
    documented()
        .iter()
        .map(|(name, bytes)| seed(*name, &[payload_of(bytes)]))
        .filter(|(_, payload)| (first as u8..=last as u8).contains(&payload[0]))
        .collect()
}

pub fn hello() -> Vec<Seed> {
    let reason = [b"x", "\u{e9}".repeat(300).as_bytes()].concat();
    let mut seeds = payloads(Kind::Hello, Kind::Refused);
    let refused = [Kind::Refused as u8, 1, 0, 0, 2, 0x59];
    assert_eq!(reason.len(), 0x259);
    seeds.push(seed("reason-to-be-cut", &[&refused, &reason]));
    seeds
}

pub fn client_messages() -> Vec<Seed> {
    payloads(Kind::Get, Kind::Failed)
}

pub fn peer_messages() -> Vec<Seed> {
    payloads(Kind::RequestPreVote, *Kind::ALL.last().expect("there are message types"))
}

pub fn frames() -> Vec<Seed> {
    let examples = documented();
    let frames = examples.iter().map(|(_, bytes)| bytes).filter(|bytes| !bytes.starts_with(&MAGIC));
    let frames: Vec<u8> = frames.flatten().copied().collect();
    let frame = |length: u32, bytes: usize| {
        [&length.to_be_bytes()[..], &[0; HEADER_BYTES - 4], &vec![b'x'; bytes]].concat()
    };
    let (within, above) = (frame(256, 256), frame(257, 257));
    let (known, seal): ([u8; 1], [u8; 1]) = ([0], [1]);
    vec![
        seed("conversation", &[&known, &FAST, &MAGIC, &frames]),
        seed("slow-frame", &[&known, &SLOW, &examples[0].1]),
        seed("at-the-limit", &[&seal, &FAST, &MAGIC, &within, &within]),
        seed("above-the-limit", &[&seal, &[6, 40, 99], &MAGIC, &above, &within]),
        seed("much-above-the-limit", &[&seal, &FAST, &frame(64 << 20, 100)]),
        seed("above-what-is-skipped", &[&seal, &FAST, &frame((64 << 20) + 1, 100)]),
        seed("empty-frame", &[&seal, &FAST, &frame(0, 8)]),
        seed("tls", &[&known, &FAST, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"]),
    ]
}

pub fn text_commands() -> Vec<Seed> {
    let array = |args: &[&[u8]]| {
        let mut out = Vec::new();
        raftkv::protocol::resp::put_array(&mut out, args.len());
        args.iter().for_each(|arg| raftkv::protocol::resp::put_bulk(&mut out, arg));
        out
    };
    let long = [b'v'; 101];
    let arrays = [
        array(&[b"SET", b"a", b"1"]),
        array(&[b"cas", b"a", b"1", b"2"]),
        array(&[b"IncrBy", b"a", b"-9223372036854775808"]),
        array(&[b"DECRBY", b"a", b"-9223372036854775808"]),
        b"*0\r\n*-1\r\n".to_vec(),
        array(&[b"unknown", b"\r\n", b"\xff\xfe"]),
    ]
    .concat();
    let too_long =
        [array(&[b"SET", b"a", &long]), array(&[&b"x"[..]; 9]), array(&[b"PING"])].concat();
    let lines = b"SET a \"two \\x41\\n words\"\r\nGET 'a\\'b'\nDEL a\nDIGEST\nINFO raft server\n\
        PING x\nECHO y\nHELP\nCOMMAND DOCS\nINCR a\nDECR a\nQUIT\n";
    let streams = b"CHANGES\nCHANGES FROM 7 PREFIX \"user \"\nCHANGES FROM -1\nSUBSCRIBE a b\n\
        PUNSUBSCRIBE\nSENTINEL get-master-addr-by-name mymaster\nSENTINEL x\nROLE\n";
    let browser = b"GET / HTTP/1.1\r\nHost: localhost:6000\r\n\r\n";
    vec![
        seed("arrays", &[&FAST, &arrays]),
        seed("arrays-slowly", &[&SLOW, &arrays]),
        seed("too-long", &[&[9, 70, 3], &too_long]),
        seed("lines", &[&FAST, lines]),
        seed("streams", &[&FAST, streams]),
        seed("lines-slowly", &[&SLOW, lines]),
        seed("browser", &[&FAST, browser]),
        seed("unbalanced", &[&FAST, b"SET a \"b\nSET a 'b'c\n"]),
        seed(
            "cluster",
            &[&FAST, b"WHY\nRAFT members\nRAFT ADD \"\\xff\"\nRAFT REMOVE ''\nRAFT x\n"],
        ),
    ]
}

pub fn http_requests() -> Vec<Seed> {
    let probe = b"GET /livez HTTP/1.1\r\nHost: 10.0.0.1:6000\r\nUser-Agent: kube-probe/1.29\r\n\
        Accept: */*\r\nConnection: close\r\n\r\n";
    let scrapes = b"GET /metrics?a=b HTTP/1.1\r\nHost: n\r\n\r\nHEAD / HTTP/1.0\n\
        Connection: keep-alive\n\n\r\nGET http://n:6000/readyz HTTP/1.1\r\nhost:n\r\n\
        Content-Length: 0\r\n\r\nPUT / HTTP/1.1\r\nHost: n\r\n\r\n";
    let body = b"GET / HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let long = [&b"GET / HTTP/1.1\r\nHost: n\r\nX: "[..], &[b'x'; 9000]].concat();
    vec![
        seed("probe", &[&FAST, probe]),
        seed("probe-slowly", &[&SLOW, probe]),
        seed("scrapes", &[&FAST, scrapes]),
        seed("scrapes-in-pieces", &[&[6, 40, 99], scrapes]),
        seed("body", &[&FAST, body]),
        seed("too-long", &[&FAST, &long]),
    ]
}

pub fn commands() -> Vec<Seed> {
    let write = |request, op| Command::Write { request, op }.to_bytes();
    let request = |sequence| Some(RequestId { session: 1, sequence });
    let (key, value) = (&b"key"[..], &b"9223372036854775806"[..]);
    let whole = [
        Command::OpenSession.to_bytes(),
        write(request(1), WriteOp::Put { key, value }),
        write(request(2), WriteOp::Increment { key, delta: 1 }),
        write(request(2), WriteOp::Increment { key, delta: 1 }),
        write(request(1), WriteOp::Delete { key }),
        write(None, WriteOp::CompareAndSet { key, expected: None, value: b"x" }),
        write(None, WriteOp::CompareAndSet { key, expected: Some(value), value: b"x" }),
        write(None, WriteOp::Delete { key }),
    ];
    let as_they_are = |commands: &[Vec<u8>]| -> Vec<u8> {
        commands.iter().flat_map(|bytes| [&[1, bytes.len() as u8], &bytes[..]].concat()).collect()
    };
    let whole = as_they_are(&whole);
    let timed = |stamp, op| write(None, WriteOp::Timed { stamp, op });
    let (condition, expiry, get) = (Condition::Always, Expiry::After(20), true);
    let until = TimedOp::Set { key, value: b"x", condition, get, expiry };
    let gone = TimedOp::Expire { key, expiry: Expiry::At(5), condition: TimeCondition::Lt, get };
    let times = as_they_are(&[
        timed(100, until),
        timed(90, TimedOp::RemoveExpired { keys_max: 3 }),
        timed(120, TimedOp::RemoveExpired { keys_max: 3 }),
        timed(130, until),
        timed(130, gone),
        write(None, WriteOp::Flush),
    ]);
    let (mut watched, mut steps) = (WatchedBuffer::default(), StepBuffer::default());
    watched.push(key, 0);
    steps.push(&Step::Write(WriteOp::Put { key, value: b"x" }));
    steps.push(&Step::Timed(until));
    steps.push(&Step::Write(WriteOp::Flush));
    steps.push(&Step::Read(ReadOp::Values(vec![key.into()])));
    steps.push(&Step::Read(ReadOp::Expiry(key.into())));
    let together = |answer_bytes_max| {
        let (watched, steps) = (watched.watched(), steps.steps());
        TimedOp::Transaction(Transaction { watched, answer_bytes_max, steps })
    };
    let transactions = as_they_are(&[
        timed(0, together(10)),
        timed(7, together(1000)),
        write(None, WriteOp::Put { key, value: b"y" }),
        timed(7, together(1000)),
    ]);
    // Increments of one key up to the end of the range and over it.
    let increment = [8, 1, 0x40, 0, 0, 0, 0, 0, 0, 0];
    vec![
        seed("as-they-are", &[&whole]),
        seed("put-together", &[&[10, 3, 0, 0, 2, 1, 4, 4, 1, 6, 1, 1, 0, 1, b'7', 8, 1], &[0; 8]]),
        seed("times", &[&times]),
        seed("transactions", &[&transactions]),
        seed("overflow", &[&increment, &increment, &increment]),
    ]
}

pub fn wal_recovery() -> Vec<Seed> {
    let disk = MemDisk::default();
    model::write(&disk, 1600, &model::small_log());
    let segments = model::segments(&disk.files());
    let first = segments.into_values().next().expect("a log has a segment");
    // A batch: flags, a vote if they begin a term, the length of each command. Together in one segment, or each
    // of them in one or two.
    let batches =
        [0x33, 1, 100, 30, 16, 0x10, 50, 0x71, 7, 0, 40, 50, 0x14, 60, 0x20, 3, 4, 0x02, 0x10, 9];
    let one_segment = [&[255, 7], &batches[..]].concat();
    let segments = [&[30, 7], &batches[..]].concat();
    let injured =
        |name, injuries: [[u8; 6]; 3], log: &[u8]| seed(name, &[&[0], &injuries.concat(), log]);
    let none = [0; 6];
    vec![
        seed("segment", &[&[1], &first]),
        injured("sound", [none; 3], &segments),
        injured("flipped-bit", [[1, 0, 2, 40, 5, 0], none, none], &one_segment),
        injured("flipped-bits", [[1, 0, 2, 40, 5, 0], [1, 1, 2, 3, 1, 0], none], &segments),
        injured("lost-sector", [[2, 0, 2, 0, 2, 0], none, none], &one_segment),
        injured("lost-end", [[2, 4, 2, 0, 3, 255], none, none], &segments),
        injured("cut-off", [[3, 4, 2, 60, 0, 0], [4, 4, 2, 0, 0, 0], none], &segments),
        injured("lost-file", [[5, 1, 0, 0, 0, 0], none, none], &segments),
        injured("misplaced-sector", [[6, 0, 2, 0, 0, 2], none, none], &one_segment),
        injured("copied-files", [[7, 0, 0, 0, 2, 0], [7, 0, 0, 0, 0, 0], none], &segments),
    ]
}

pub fn snapshot_loading() -> Vec<Seed> {
    let put = |out: &mut Vec<u8>, key: &[u8], expires_at: u64, value: &[u8]| {
        raftkv::codec::put_blob(out, key);
        raftkv::codec::put_u64(out, 5);
        raftkv::codec::put_u64(out, expires_at);
        raftkv::codec::put_blob(out, value);
    };
    let mut pairs = Vec::new();
    put(&mut pairs, b"a", 0, b"1");
    put(&mut pairs, b"ab", 2000, b"");
    put(&mut pairs, b"b", 0, &[b'x'; 70]);
    let mut out_of_order = pairs.clone();
    put(&mut out_of_order, b"a", 0, b"again");
    let mut no_time = pairs.clone();
    put(&mut no_time, b"c", u64::MAX, b"");
    let none: [u8; 5] = [4, 0, 0, 0, 0];
    // One that has executed nothing: id 3, sequence 0, used at 3.
    let session: &[u8] = &[
        29, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0,
    ];
    let claimed =
        |name, pieces: &[u8; 3], rest: &[&[u8]]| seed(name, &[&[1], pieces, &[1], &rest.concat()]);
    // Two like that: id and last use of each.
    let sessions = |id: u8, used_at: u8, other: u8, other_used_at: u8| {
        let one = |id, used_at| [&[0; 7][..], &[id], &[0; 15], &[used_at, 0]].concat();
        [&[54, 0, 0, 0, 2][..], &one(id, used_at), &one(other, other_used_at)].concat()
    };
    // Entries, the two snapshots, whether the log is compacted; then commands.
    let commands: [&[u8]; 7] = [
        &[18, 3, 5, 1],
        &[2],
        &[4, 1, 3, b'o', b'n', b'e'],
        &[5, 1, 1, 2, 1, b'2'],
        &[8, 3, 0, 0, 0, 0, 0, 0, 0, 9],
        &[4, 2, 60],
        &[b'v'; 60],
    ];
    let injured =
        |name, injuries: [[u8; 4]; 2]| seed(name, &[&[0], &injuries.concat(), &commands.concat()]);
    let sound = [0; 4];
    vec![
        claimed("empty", &FAST, &[&none]),
        claimed("pairs", &FAST, &[&none, &pairs]),
        claimed("pairs-slowly", &SLOW, &[&none, &pairs]),
        claimed("session", &[6, 40, 99], &[session, &pairs]),
        claimed("sessions-out-of-order", &FAST, &[&sessions(7, 8, 3, 9), &pairs]),
        claimed("sessions-used-at-once", &FAST, &[&sessions(3, 8, 7, 8), &pairs]),
        claimed("out-of-order", &FAST, &[&none, &out_of_order]),
        claimed("time-beyond-all", &FAST, &[&none, &no_time]),
        claimed("cut-short", &FAST, &[&none, &pairs[..pairs.len() - 1]]),
        injured("sound", [sound; 2]),
        injured("flipped-bit", [[1, 1, 0, 70], sound]),
        injured("both-cut", [[2, 0, 0, 80], [2, 1, 0, 3]]),
        injured("longer", [[3, 1, 0, 9], sound]),
        injured("lost-sector", [[4, 1, 0, 64], sound]),
        injured("both-lost", [[5, 0, 0, 0], [5, 0, 0, 0]]),
        injured("renamed", [[6, 0, 0, 40], sound]),
        injured("unfinished", [[7, 0, 0, 0], [7, 1, 0, 1]]),
    ]
}
