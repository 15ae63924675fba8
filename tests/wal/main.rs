//! The write-ahead log, from outside: what it keeps, what it cuts, what it refuses, and that it never
//! returns what was not written.

#[path = "../mem_disk/mod.rs"]
mod mem_disk;

mod behaviour;
mod crash;
mod damage;
mod entries;
mod folder;
mod format;
mod full_disk;
mod history;
mod marker;
mod model;
mod snapshots;
mod spares;
