//! A disk without room: what is refused has not been done, reads and deletes go on, and everything goes
//! on by itself when there is room again.

use crate::common::core::{append, entry};
use crate::mem_disk::MemDisk;
use crate::*;
use raftkv::kv::{FailureCode, Outcome};
use raftkv::node::{PeerMessage, Ticket};
use raftkv::raft::{Bytes, Entry, NodeId};
use raftkv::wal::Disk;
use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

/// A disk of so many bytes that knows how much room there is.
#[derive(Clone)]
struct SmallDisk {
    mem: MemDisk,
    bytes: Rc<Cell<u64>>,
}

impl SmallDisk {
    fn of(bytes: u64) -> Self {
        SmallDisk { mem: MemDisk::default(), bytes: Rc::new(Cell::new(bytes)) }
    }

    fn room(&self) -> u64 {
        let used: usize = self.mem.files().values().map(Vec::len).sum();
        self.bytes.get().saturating_sub(used as u64)
    }

    fn take(&self, bytes: u64) -> io::Result<()> {
        if bytes > self.room() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Disk for SmallDisk {
    /// The file, and how long it is.
    type File = (usize, u64);

    fn list(&self) -> io::Result<Vec<String>> {
        self.mem.list()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.mem.read(name)
    }

    fn read_at(&self, name: &str, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        self.mem.read_at(name, offset, bytes)
    }

    fn create(&mut self, name: &str, bytes: u64) -> io::Result<Self::File> {
        self.take(bytes)?;
        Ok((self.mem.create(name, bytes)?, bytes))
    }

    fn open(&mut self, name: &str, bytes: u64) -> io::Result<Self::File> {
        let length = self.mem.read(name)?.len() as u64;
        self.take(bytes.saturating_sub(length))?;
        Ok((self.mem.open(name, bytes)?, length.max(bytes)))
    }

    fn write_at(&mut self, file: &mut Self::File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        self.take(end.saturating_sub(file.1))?;
        file.1 = file.1.max(end);
        self.mem.write_at(&mut file.0, offset, bytes)
    }

    fn sync_data(&mut self, file: &mut Self::File) -> io::Result<()> {
        self.mem.sync_data(&mut file.0)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.mem.rename(from, to)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.mem.remove(name)
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        self.mem.sync_dir()
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(Some(self.room()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.mem.path(name)
    }
}

fn is_refused(answer: &Answer) -> bool {
    matches!(answer, Answer::Failed(failure) if failure.code == FailureCode::Overloaded)
}

fn is_written(answer: &Answer) -> bool {
    matches!(answer, Answer::Written { outcome: Outcome::Put, .. })
}

fn value_of<D: Disk>(replica: &mut Replica<D>, key: &str) -> Option<Vec<u8>> {
    match ask(replica, Request::Get { key: key.as_bytes().into() }) {
        Answer::Value { value, .. } => value.map(|value| value.to_vec()),
        other => panic!("a read is answered: {other:?}"),
    }
}

#[test]
fn a_full_leader_refuses_what_grows_and_deletes_make_room_again() {
    let disk = SmallDisk::of(600 << 10);
    // What is deleted brings less log than that: only the want of space is a reason for a snapshot.
    let mut replica = open_with(disk.clone(), 1, 100 << 10);
    elected(&mut replica);
    let mut next = 0;
    for _ in 0..3 {
        let first = next;
        loop {
            let answer = ask(&mut replica, put(&format!("k{next}"), &[7; 1000]));
            if is_refused(&answer) {
                break;
            }
            assert!(is_written(&answer), "{answer:?}");
            next += 1;
            assert!(next - first < 1000, "a disk of 600 KiB has no end");
        }
        assert_eq!(replica.space(), "low");
        assert_eq!(
            replica.wal().snapshots().len(),
            1,
            "the older one goes before a write is refused"
        );
        assert_eq!(value_of(&mut replica, &format!("k{next}")), None, "refused is not done");
        assert_eq!(value_of(&mut replica, &format!("k{first}")), Some(vec![7; 1000]));
        for key in first..next {
            let key = format!("k{key}");
            let answer = ask(&mut replica, write(WriteOp::Delete { key: key.as_bytes() }));
            let outcome = Outcome::Deleted(true);
            assert!(matches!(answer, Answer::Written { outcome: o, .. } if o == outcome));
        }
        let ticks = (0..TICKS_MAX).position(|_| {
            replica.inputs().tick();
            turn(&mut replica);
            replica.space() == "ok"
        });
        assert!(ticks.is_some(), "it makes room by itself: {:?}", disk.room());
        assert!(is_written(&ask(&mut replica, put("after", b"x"))));
    }
    let digest = replica.node().machine().store().digest();
    drop(replica);
    let mut again = open(disk, 1);
    elected(&mut again);
    assert_eq!(value_of(&mut again, "after"), Some(b"x".to_vec()));
    assert_eq!(again.node().machine().store().digest(), digest);
}

/// The way out without help: the log could be cut, if only there were a snapshot.
#[test]
fn a_snapshot_is_taken_as_soon_as_it_fits_into_what_is_left() {
    const KEYS: usize = 100;
    let disk = SmallDisk::of(2 << 20);
    let mut replica = open_with(disk.clone(), 1, 1 << 20);
    elected(&mut replica);
    for key in 0..KEYS {
        assert!(is_written(&ask(&mut replica, put(&format!("k{key}"), &[7; 1000]))));
    }
    // Somebody else takes nearly all the rest.
    disk.bytes.set(disk.bytes.get() - disk.room() + (8 << 10));
    for _ in 0..TICKS_MAX {
        replica.inputs().tick();
        turn(&mut replica);
    }
    assert_eq!((replica.space(), replica.wal().snapshots().len()), ("low", 0));
    for key in 0..KEYS {
        let key = format!("k{key}");
        ask(&mut replica, write(WriteOp::Delete { key: key.as_bytes() }));
    }
    for _ in 0..TICKS_MAX {
        replica.inputs().tick();
        turn(&mut replica);
    }
    assert_eq!((replica.space(), replica.wal().snapshots().len()), ("ok", 1));
    assert!(replica.wal().segments() <= 2, "{} segments", replica.wal().segments());
}

#[test]
fn a_full_leader_goes_on_by_itself_when_room_comes_back() {
    let disk = SmallDisk::of(400 << 10);
    let mut replica = open(disk.clone(), 1);
    elected(&mut replica);
    let mut key = 0;
    while !is_refused(&ask(&mut replica, put(&format!("k{key}"), &[7; 1000]))) {
        key += 1;
    }
    disk.bytes.set(2 << 20);
    for _ in 0..TICKS_MAX {
        replica.inputs().tick();
        turn(&mut replica);
    }
    assert_eq!(replica.space(), "ok");
    assert!(is_written(&ask(&mut replica, put("after", b"x"))));
}

/// More than what is left of a segment, and than the reserve.
fn large_entries(count: u64) -> Vec<Entry> {
    let command = |index| {
        let op = WriteOp::Put { key: b"large", value: &[3; 2 * SEGMENT_BYTES as usize] };
        let bytes = Command::Write { request: None, op }.to_bytes();
        Entry { payload: raftkv::raft::Payload::Command(bytes.into()), ..entry(index, 1) }
    };
    (1..=count).map(command).collect()
}

fn accepted_upto(messages: &[(NodeId, PeerMessage)]) -> bool {
    let is_reply =
        |message: &PeerMessage| matches!(message, PeerMessage::Raft(Message::AppendReply { .. }));
    messages.iter().any(|(_, message)| is_reply(message))
}

/// It promises nothing, and tells nothing: but its clients are the leader's affair.
#[test]
fn a_full_follower_acknowledges_nothing_and_passes_requests_on() {
    let disk = MemDisk::default();
    let mut replica = follower(&disk);
    disk.make_full();
    hear(&mut replica, append(1, (0, 0), 0, large_entries(1)));
    let outgoing = turn(&mut replica);
    assert!(replica.is_out_of_space() && replica.space() == "none");
    assert_eq!(outgoing, Outgoing::default(), "nothing is on its disk");

    const TICKET: Ticket = 9;
    replica.inputs().request(TICKET, put("k", b"v"), Routing::Forward);
    let messages = turn(&mut replica).messages;
    let [(2, PeerMessage::Forward { id, .. })] = &messages[..] else { panic!("{messages:?}") };
    let answer = Answer::Written { outcome: Outcome::Put, index: 5, leader: 2 };
    let reply = PeerMessage::ForwardReply { id: *id, answer: answer.clone() };
    replica.inputs().peer_message(2, reply).expect("a leader's answer");
    assert_eq!(turn(&mut replica).answers, [(TICKET, answer)]);

    for _ in 0..TICKS_MAX {
        hear(&mut replica, append(1, (0, 0), 0, Vec::new()));
        assert!(!accepted_upto(&turn(&mut replica).messages), "it acknowledges nothing");
    }
    disk.heal();
    assert!(accepted_upto(&turn(&mut replica).messages));
    assert!(turn(&mut replica).messages.is_empty(), "what could not be said is not kept");
    assert_eq!(replica.space(), "ok");
}

#[test]
fn what_waits_for_space_is_not_counted_as_written_before_it_is() {
    let disk = MemDisk::default();
    let mut replica = follower(&disk);
    let written = |replica: &Replica<MemDisk>| replica.turn_written().0;
    hear(&mut replica, append(1, (0, 0), 0, vec![entry(1, 1)]));
    turn(&mut replica);
    assert_eq!(written(&replica), 1);
    disk.make_full();
    hear(&mut replica, append(1, (1, 1), 0, large_entries(2).split_off(1)));
    turn(&mut replica);
    assert!(replica.is_out_of_space());
    assert_eq!(written(&replica), 0);
    disk.heal();
    turn(&mut replica);
    assert_eq!(written(&replica), 1);
    turn(&mut replica);
    assert_eq!(written(&replica), 0, "once");
}

/// What a follower's disk lacks is no reason to refuse what its leader can do.
#[test]
fn a_follower_with_little_room_refuses_nothing() {
    let disk = MemDisk::default();
    let mut replica = follower(&disk);
    // Room for what is set aside, but none to set aside more.
    disk.make_full();
    let mut entries = large_entries(1);
    let op = WriteOp::Put { key: b"k", value: &[3; SEGMENT_BYTES as usize * 3 / 4] };
    let bytes: Bytes = Command::Write { request: None, op }.to_bytes().into();
    entries[0].payload = raftkv::raft::Payload::Command(bytes.clone());
    hear(&mut replica, append(1, (0, 0), 0, entries));
    turn(&mut replica);
    let second = Entry { payload: raftkv::raft::Payload::Command(bytes), ..entry(2, 1) };
    hear(&mut replica, append(1, (1, 1), 0, vec![second]));
    turn(&mut replica);
    assert_eq!(replica.space(), "low");
    replica.inputs().request(1, put("k", b"v"), Routing::Redirect);
    let answers = turn(&mut replica).answers;
    let [(1, Answer::Failed(failure))] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(failure.code, FailureCode::NotLeader);
    replica.inputs().request(2, put("k", b"v"), Routing::Forward);
    let messages = turn(&mut replica).messages;
    assert!(matches!(messages[..], [(2, PeerMessage::Forward { .. })]), "{messages:?}");
}
