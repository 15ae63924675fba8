//! What is said to each kind of server: a write, a strict read, and how to tell its answers.

mod etcd;
mod resp;
mod zookeeper;

pub use etcd::Etcd;
pub use resp::{Resp, command};
pub use zookeeper::ZooKeeper;

/// What has arrived on a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing whole yet.
    NeedMore,
    /// So many bytes that answer no request: a greeting, housekeeping.
    Passed(usize),
    /// The answer to the oldest request.
    Answer { consumed: usize, result: Result<(), String> },
}

/// One connection. Answers come in the order of the requests.
pub trait Wire {
    /// What a client says first.
    fn greet(&mut self, out: &mut Vec<u8>);

    /// Whether the greeting is answered, and requests can be sent.
    fn is_ready(&self) -> bool;

    /// Makes what a later `put` writes to, where that has to exist.
    fn create(&mut self, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        self.put(key, value, out);
    }

    fn put(&mut self, key: &[u8], value: &[u8], out: &mut Vec<u8>);

    /// The strictest read there is: linearizable with raftkv and etcd, `sync` and then the data with ZooKeeper.
    fn get(&mut self, key: &[u8], out: &mut Vec<u8>);

    /// The next thing in `inbox`; `out` takes what has to be said to it.
    fn step(&mut self, inbox: &[u8], out: &mut Vec<u8>) -> Result<Step, String>;
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}
