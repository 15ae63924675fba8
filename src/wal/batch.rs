//! The batch that the next sync writes: records one after the other, and what is known of them.

use super::record::{self, BATCH_HEADER_BYTES};
use crate::raft::{Entry, Index, Position};

/// Bytes of batch buffer kept between batches; what a rare huge batch needed above it is given back.
pub const KEPT_BUFFER_BYTES: usize = 4 << 20;

/// What was appended since the last sync.
pub struct Batch {
    /// Room for a batch header, then the records.
    pub bytes: Vec<u8>,
    /// The lowest and the highest index of an entry in it; 0 if there is none.
    pub first_index: Index,
    pub last_index: Index,
    /// The position of the entry that the last record is, if it is one.
    before: Option<Position>,
    /// It makes everything before it void.
    pub has_base: bool,
}

impl Batch {
    pub fn new() -> Self {
        Batch {
            bytes: vec![0; BATCH_HEADER_BYTES],
            first_index: 0,
            last_index: 0,
            before: None,
            has_base: false,
        }
    }

    pub fn put_entry(&mut self, entry: &Entry) {
        let Entry { term, index, .. } = *entry;
        record::put_entry(&mut self.bytes, self.before, entry);
        if self.first_index == 0 || index < self.first_index {
            self.first_index = index;
        }
        self.last_index = self.last_index.max(index);
        self.before = Some(Position { index, term });
    }

    pub fn put_base(&mut self, base: Position) {
        record::put_base(&mut self.bytes, base);
        self.first_index = 0;
        self.last_index = 0;
        self.before = None;
        self.has_base = true;
    }

    pub fn has_records(&self) -> bool {
        self.bytes.len() > BATCH_HEADER_BYTES
    }

    pub fn clear(&mut self) {
        self.bytes.truncate(BATCH_HEADER_BYTES);
        self.bytes.shrink_to(KEPT_BUFFER_BYTES);
        self.first_index = 0;
        self.last_index = 0;
        self.before = None;
        self.has_base = false;
    }
}
