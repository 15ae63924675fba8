//! redis-rb as a client of Sentinel, through the death of the leader. It checks the `ROLE` of every server
//! that it is sent to, which redis-py does not.
//!
//! It needs ruby with the gem `redis` (Debian: ruby-redis), which `cargo test` does not.

#[allow(dead_code)] // Other tests use the rest.
mod processes;

use std::process::Command;

#[test]
#[ignore = "needs ruby with redis"]
fn it_writes_through_the_death_of_the_leader() {
    let mut ruby = Command::new("ruby");
    ruby.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/redis_ruby.rb"));
    processes::redis::sentinel_client_survives_the_leader(ruby);
}
