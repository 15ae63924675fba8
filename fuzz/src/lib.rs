#![forbid(unsafe_code)]
//! What the fuzz targets run. `tests/corpus.rs` of the product runs the same functions over the inputs that
//! are kept, so that they are compiled and true without a fuzzer.

pub mod targets;

#[path = "../../tests/mem_disk/mod.rs"]
pub mod mem_disk;
#[path = "../../tests/wal/model.rs"]
pub mod model;
#[path = "../../tests/streams/mod.rs"]
pub mod streams;
