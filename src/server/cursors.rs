//! What the numbers of `SCAN` mean. Redis's libraries know only numbers, so a node remembers for each
//! the key at which to go on. As that is a key, and not a place, keys that come and go do not matter to
//! those that stay.

use super::Server;
use super::memory::{Charge, Total};
use crate::kv::{Answer, Found, ReadOp, Request};
use crate::ordered::InOrder;
use crate::protocol::text::{Reply, Shape, TextCommand};
use crate::wal::Disk;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Cursors that a node remembers, and what their keys take, in bytes; the oldest are forgotten for a new one.
const CURSORS_MAX: usize = 4096;
const CURSORS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a cursor takes besides its key.
const CURSOR_BYTES: usize = 48;

#[derive(Debug)]
pub struct Cursors {
    next_keys: InOrder<u64, Rc<[u8]>>,
    last: u64,
    kept: Charge,
}

impl Default for Cursors {
    /// Begins with the time, so that a cursor of an earlier process is not taken for one of this one.
    fn default() -> Self {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let last = time.as_micros() as u64;
        Cursors { next_keys: InOrder::default(), last, kept: Charge::default() }
    }
}

impl Cursors {
    pub fn new(all_kept: &Total) -> Self {
        Cursors { kept: Charge::new(all_kept), ..Cursors::default() }
    }

    fn remember(&mut self, next: Rc<[u8]>) -> u64 {
        self.kept.add(CURSOR_BYTES + next.len());
        while self.next_keys.len() >= CURSORS_MAX || self.kept.bytes() > CURSORS_BYTES_MAX {
            let Some((_, oldest)) = self.next_keys.pop_first() else { break };
            self.kept.take(CURSOR_BYTES + oldest.len());
        }
        self.last += 1;
        self.next_keys.insert(self.last, next);
        self.last
    }
}

impl<D: Disk> Server<D> {
    /// A `SCAN` begins, or goes on where its cursor says.
    pub(super) fn resume_scan(&self, command: TextCommand) -> TextCommand {
        let TextCommand::Scan { cursor, mut range } = command else { return command };
        if cursor != 0 {
            let Some(next) = self.cursors.next_keys.get(&cursor) else {
                let text = "ERR invalid cursor: it is too old, or another node's; start again at 0";
                return TextCommand::Error(text.to_string());
            };
            range.start = range.start.max(next.clone());
        }
        let request = Request::Read(ReadOp::Range(range));
        TextCommand::Ask { request, shape: Shape::Scan }
    }

    /// A page that is not the last one gets a cursor.
    pub(super) fn with_cursor(&mut self, reply: Reply, answer: &Answer) -> Reply {
        match (reply.shape, answer) {
            (Shape::Scan, Answer::Found { found: Found::Keys { next, .. }, .. }) => {
                let cursor = next.clone().map_or(0, |next| self.cursors.remember(next));
                Reply { shape: Shape::Page(cursor), ..reply }
            }
            _ => reply,
        }
    }
}
