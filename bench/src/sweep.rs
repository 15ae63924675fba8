//! How raftkv grows with the size of values, the number of clients, nodes and keys; as plots too.

use crate::Options;

pub fn run(_: &Options) -> Result<(), String> {
    Err("not there yet".to_string())
}
