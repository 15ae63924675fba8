//! The newest changes of the store, in the order of the log: what a change stream is fed from.
//!
//! Only effects are kept. A compare-and-set that found another value, the removal of a key that does not
//! exist, or a retry leave none. Each change belongs to the log index that made it, and the changes of
//! one index are kept or forgotten together, so that whoever has seen an index can go on at the next
//! one. It is filled by applying the log, so every node has it; it is no part of a snapshot: it begins
//! anew after one, and says so.

use super::value::BufferId;
use super::{Key, Store, Value};
use crate::codec::{Malformed, Reader, put_blob, put_u8, put_u64};
use crate::raft::Index;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;

/// The most changes that are kept.
pub const HISTORY_CHANGES_MAX: usize = 65_536;
/// The most memory for them, in bytes. A change that is longer is kept alone; several of one index that
/// are longer together are not kept at all.
pub const HISTORY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Changes are forgotten by pages of this size, in bytes; a longer one has a page of its own.
const PAGE_BYTES: usize = 16 * 1024;

/// What a change takes besides its key and value, in bytes.
const CHANGE_BYTES: usize = 96;

const SET: u8 = 0;
const DELETED: u8 = 1;
const FLUSHED: u8 = 2;
/// Only here: a value that was appended to is named by its buffer and its length, so that it is not copied.
const APPENDED: u8 = 3;

/// Of buffers that only the history still needs: a page with more of them, in bytes, is followed by another. So they
/// are forgotten in small parts, too.
const PAGE_BUFFER_BYTES: usize = 256 * 1024;

/// What became of a key, or of all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Set {
        key: Key,
        value: Rc<[u8]>,
    },
    Deleted {
        key: Key,
    },
    /// There are no keys any more.
    Flushed,
}

/// The same where the bytes are somebody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeRef<'a> {
    Set { key: &'a [u8], value: &'a [u8] },
    Deleted { key: &'a [u8] },
    Flushed,
}

impl Change {
    /// About how much memory it takes, or how long it is in an answer, in bytes; never too little.
    pub fn cost_bytes(&self) -> usize {
        self.view().cost_bytes()
    }

    pub fn view(&self) -> ChangeRef<'_> {
        match self {
            Change::Set { key, value } => ChangeRef::Set { key, value },
            Change::Deleted { key } => ChangeRef::Deleted { key },
            Change::Flushed => ChangeRef::Flushed,
        }
    }
}

impl<'a> ChangeRef<'a> {
    /// Whether it is of a key that begins so; the end of all keys is of every key.
    pub fn concerns(self, prefix: &[u8]) -> bool {
        match self {
            ChangeRef::Set { key, .. } | ChangeRef::Deleted { key } => key.starts_with(prefix),
            ChangeRef::Flushed => true,
        }
    }

    /// As [`Change::cost_bytes`].
    pub fn cost_bytes(self) -> usize {
        CHANGE_BYTES
            + match self {
                ChangeRef::Set { key, value } => key.len() + value.len(),
                ChangeRef::Deleted { key } => key.len(),
                ChangeRef::Flushed => 0,
            }
    }

    pub fn to_change(self) -> Change {
        match self {
            ChangeRef::Set { key, value } => Change::Set { key: key.into(), value: value.into() },
            ChangeRef::Deleted { key } => Change::Deleted { key: key.into() },
            ChangeRef::Flushed => Change::Flushed,
        }
    }

    pub fn encode(self, out: &mut Vec<u8>) {
        match self {
            ChangeRef::Set { key, value } => {
                put_u8(out, SET);
                put_blob(out, key);
                put_blob(out, value);
            }
            ChangeRef::Deleted { key } => {
                put_u8(out, DELETED);
                put_blob(out, key);
            }
            ChangeRef::Flushed => put_u8(out, FLUSHED),
        }
    }

    pub fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        match reader.u8("kind of a change")? {
            SET => {
                let key = reader.blob("key")?;
                Ok(ChangeRef::Set { key, value: reader.blob("value")? })
            }
            DELETED => Ok(ChangeRef::Deleted { key: reader.blob("key")? }),
            FLUSHED => Ok(ChangeRef::Flushed),
            _ => Err(Malformed("kind of a change")),
        }
    }
}

/// A bounded ring of changes: copies, one after the other, in pages. So keeping one allocates nothing, and the
/// oldest are forgotten without being looked at, which would be in no cache any more.
#[derive(Default)]
pub struct History {
    pages: VecDeque<Page>,
    /// The room of the page that was forgotten last: the next one's.
    spare: Vec<u8>,
    /// In all pages.
    changes: usize,
    bytes: usize,
    /// Everything from this index on is here.
    first: Index,
    /// The entry that is being applied. 0: none, and nothing is recorded.
    current: Index,
    /// Pages that were forgotten, ever.
    forgotten: usize,
    /// Where the changes of the current entry begin.
    mark: Mark,
    /// Buffers that are in the store no more.
    buffers: BTreeMap<BufferId, Value>,
    /// The entry that took each out of it, in order.
    buffers_by_age: VecDeque<(Index, BufferId)>,
    /// How many bytes all buffers have, and those that came with the last page.
    buffer_bytes: usize,
    page_buffer_bytes: usize,
}

/// Indexes with their changes, in order.
#[derive(Default)]
struct Page {
    bytes: Vec<u8>,
    changes: usize,
    last: Index,
}

#[derive(Default)]
struct Mark {
    /// Of all pages that there ever were.
    page: usize,
    bytes: usize,
    changes: usize,
}

/// Where a change begins: its page, of those that there are, and the byte in it.
type Place = (usize, usize);

/// The changes of one index, at least one.
#[derive(Clone)]
pub struct Batch<'a> {
    pub index: Index,
    store: &'a Store,
    begin: Place,
}

/// Some of the changes that were asked for are forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Everything from this index on is still here.
    pub first: Index,
}

impl History {
    /// Everything from this index on is here.
    pub fn first(&self) -> Index {
        self.first
    }

    pub fn len(&self) -> usize {
        self.changes
    }

    pub fn is_empty(&self) -> bool {
        self.changes == 0
    }

    /// Memory of what is kept, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn changes_from(&self, mut place: Place) -> impl Iterator<Item = At<'_>> {
        std::iter::from_fn(move || {
            let mut page = self.pages.get(place.0)?;
            while place.1 == page.bytes.len() {
                place = (place.0 + 1, 0);
                page = self.pages.get(place.0)?;
            }
            let mut reader = Reader::new(&page.bytes[place.1..]);
            let index = reader.u64("index of a change").expect(READABLE);
            let change = Kept::read(&mut reader).expect(READABLE);
            let kept = At { index, change, place };
            place.1 = page.bytes.len() - reader.rest().len();
            Some(kept)
        })
    }

    /// What follows comes from this state on.
    pub(super) fn start_after(&mut self, applied: Index) {
        *self = History { first: applied + 1, ..History::default() };
    }

    /// What follows belongs to the entry at `index`.
    pub(super) fn begin(&mut self, index: Index) {
        self.current = index;
        self.mark = Mark { page: self.forgotten + self.pages.len(), bytes: 0, changes: 0 };
        if let Some(page) = self.pages.back() {
            let (bytes, changes) = (page.bytes.len(), page.changes);
            self.mark = Mark { page: self.mark.page - 1, bytes, changes };
        }
    }

    pub(super) fn record(&mut self, change: ChangeRef<'_>) {
        self.record_with(change.cost_bytes(), |out| change.encode(out));
    }

    /// A value that is a buffer has become so long by an append.
    pub(super) fn record_append(&mut self, key: &[u8], buffer: BufferId, length: usize) {
        self.record_with(CHANGE_BYTES + key.len(), |out| {
            put_u8(out, APPENDED);
            put_blob(out, key);
            put_u64(out, buffer);
            put_u64(out, length as u64);
        });
    }

    /// Whether changes of the current entry are kept: not while a snapshot is loaded, nor if it has too many.
    fn is_recording(&self) -> bool {
        self.current != 0 && self.first <= self.current
    }

    fn record_with(&mut self, cost_bytes: usize, encode: impl FnOnce(&mut Vec<u8>)) {
        if !self.is_recording() {
            return;
        }
        self.make_room(cost_bytes);
        let page = self.pages.back_mut().expect("there is room for it");
        put_u64(&mut page.bytes, self.current);
        encode(&mut page.bytes);
        page.changes += 1;
        page.last = self.current;
        self.changes += 1;
        while self.pages.len() > 1
            && (self.changes > HISTORY_CHANGES_MAX || self.bytes > HISTORY_BYTES_MAX)
        {
            self.forget_page();
        }
        if self.first > self.current || self.buffer_bytes > HISTORY_BYTES_MAX {
            while !self.pages.is_empty() {
                self.forget_page();
            }
        }
    }

    /// The current entry takes a buffer out of the store. Readers of earlier changes still need it.
    pub(super) fn keep_buffer(&mut self, value: &Value) {
        let Some(id) = value.buffer().filter(|_| self.is_recording()) else { return };
        self.bytes += value.len();
        self.buffer_bytes += value.len();
        self.page_buffer_bytes += value.len();
        self.buffers.insert(id, value.clone());
        self.buffers_by_age.push_back((self.current, id));
    }

    fn forget_buffer(&mut self, id: BufferId) {
        let bytes = self.buffers.remove(&id).map_or(0, |value| value.len());
        self.bytes -= bytes;
        self.buffer_bytes -= bytes;
    }

    /// One of those that are in the store no more.
    pub(super) fn kept_buffer(&self, id: BufferId) -> Option<&Value> {
        self.buffers.get(&id)
    }

    /// The last page gets room for so many bytes.
    fn make_room(&mut self, bytes: usize) {
        let has_room = |page: &Page| page.bytes.capacity() - page.bytes.len() >= bytes;
        let has_many_buffers = self.page_buffer_bytes > PAGE_BUFFER_BYTES;
        if self.pages.back().is_some_and(has_room) && !has_many_buffers {
            return;
        }
        self.page_buffer_bytes = 0;
        let mut page = Page { bytes: std::mem::take(&mut self.spare), ..Page::default() };
        page.bytes.reserve_exact(bytes.max(PAGE_BYTES));
        self.bytes += page.bytes.capacity();
        self.pages.push_back(page);
    }

    /// The oldest one.
    fn forget_page(&mut self) {
        let Some(mut page) = self.pages.pop_front() else { return };
        self.forgotten += 1;
        self.first = page.last + 1;
        self.leave_out(&page);
        // No change before the one that took it out of the store names a buffer.
        while let Some((index, id)) = self.buffers_by_age.front().copied()
            && index < self.first
        {
            self.buffers_by_age.pop_front();
            self.forget_buffer(id);
        }
        if page.bytes.capacity() == PAGE_BYTES {
            page.bytes.clear();
            self.spare = page.bytes;
        }
    }

    fn leave_out(&mut self, page: &Page) {
        self.changes -= page.changes;
        self.bytes -= page.bytes.capacity();
    }

    /// The entry that is being applied changes nothing after all, and what is done to undo it is no change.
    pub(super) fn take_back(&mut self) {
        while self.forgotten + self.pages.len() > self.mark.page + 1
            && let Some(page) = self.pages.pop_back()
        {
            self.leave_out(&page);
        }
        if let Some(page) = self.pages.back_mut() {
            self.changes -= page.changes - self.mark.changes;
            page.bytes.truncate(self.mark.bytes);
            (page.changes, page.last) = (self.mark.changes, self.current - 1);
        }
        while let Some((index, id)) = self.buffers_by_age.back().copied()
            && index == self.current
        {
            self.buffers_by_age.pop_back();
            self.forget_buffer(id);
        }
        self.current = 0;
    }
}

const READABLE: &str = "a change is kept as it was written";

/// A change as it is kept.
enum Kept<'a> {
    Whole(ChangeRef<'a>),
    Appended { key: &'a [u8], buffer: BufferId, length: usize },
}

/// ... and where.
struct At<'a> {
    index: Index,
    change: Kept<'a>,
    place: Place,
}

impl<'a> Kept<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        if reader.rest().first() != Some(&APPENDED) {
            return ChangeRef::read(reader).map(Kept::Whole);
        }
        reader.u8("kind of a change")?;
        let key = reader.blob("key")?;
        let buffer = reader.u64("buffer")?;
        Ok(Kept::Appended { key, buffer, length: reader.u64("length")? as usize })
    }
}

/// Without its contents: it is no part of the state, and of two equal states one may remember more.
impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").finish_non_exhaustive()
    }
}

impl Store {
    /// The changes of `from` and later indices, in order.
    pub fn changes_since(&self, from: Index) -> Result<impl Iterator<Item = Batch<'_>>, Compacted> {
        let history = &self.history;
        if from < history.first {
            return Err(Compacted { first: history.first });
        }
        let page = history.pages.partition_point(|page| page.last < from);
        let mut changes = history.changes_from((page, 0)).skip_while(move |it| it.index < from);
        let mut next = changes.next();
        Ok(std::iter::from_fn(move || {
            let first = next.take()?;
            next = changes.find(|it| it.index != first.index);
            Some(Batch { index: first.index, store: self, begin: first.place })
        }))
    }
}

impl<'a> Batch<'a> {
    pub fn changes(&self) -> impl Iterator<Item = ChangeRef<'a>> + use<'a> {
        let (index, store) = (self.index, self.store);
        let all = store.history.changes_from(self.begin).take_while(move |it| it.index == index);
        all.map(move |it| match it.change {
            Kept::Whole(change) => change,
            Kept::Appended { key, buffer, length } => {
                ChangeRef::Set { key, value: store.buffer_then(key, buffer, length) }
            }
        })
    }
}
