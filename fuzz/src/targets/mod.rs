//! One module for each fuzz target, with one entry, `run`: it takes any bytes, and panics if they show a fault.
//! What several of them need is in `input` and `reply`.

pub mod client_messages;
pub mod commands;
pub mod frames;
pub mod hello;
pub mod http_requests;
pub mod input;
pub mod peer_messages;
pub mod reply;
pub mod snapshot_loading;
pub mod text_commands;
pub mod wal_recovery;
