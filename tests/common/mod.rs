//! What the tests of the consensus core share: single cores in a chosen state (`core`), clusters of
//! them with a network and disks of their own (`cluster`), the promises they must keep (`checker`),
//! and words for what happens (`text`, `trace`).

// Every test binary compiles all of it and uses a part.
#![allow(dead_code)]

pub mod checker;
pub mod cluster;
pub mod core;
pub mod text;
pub mod trace;
