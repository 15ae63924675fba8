#![forbid(unsafe_code)]
//! raftkv: a replicated key/value store. ARCHITECTURE.md tells the story; the modules, each depending
//! only on those above it:
//!
//! - [`codec`]: bytes to fields and back
//! - [`ordered`]: maps of a few items and of what waits, in little code
//! - [`raft`]: consensus, pure
//! - [`payload`]: what log entries carry, as bytes
//! - [`kv`]: the state machine, pure
//! - [`node`]: a Raft node with its state machine and waiting requests, pure
//! - [`protocol`]: bytes to messages and back, pure
//! - [`wal`]: the log on disk
//! - [`replica`]: node and log: persist, then speak
//! - [`net`]: sockets, names and signals
//! - [`lines`]: lines for people that harm nobody who writes them
//! - [`stamp`]: the time at the head of a line of the log
//! - [`suggest`]: what may have been meant, for both command lines
//! - [`config`]: the server's command line and environment, checked
//! - [`recover`]: a cluster out of one surviving data folder
//! - [`server`]: the loop turn
//! - [`client`]: the client library
//! - [`linearizable`]: is what clients saw possible? Pure
//! - [`cltraft`]: the client program
//!
//! Pure: no socket, file, clock, thread or global randomness.

pub mod client;
pub mod cltraft;
pub mod codec;
pub mod config;
pub mod kv;
pub mod linearizable;
pub mod lines;
pub mod net;
pub mod node;
pub mod ordered;
pub mod payload;
pub mod protocol;
pub mod raft;
pub mod recover;
pub mod replica;
pub mod server;
pub mod stamp;
pub mod suggest;
pub mod wal;
