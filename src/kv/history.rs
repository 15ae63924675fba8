//! The newest changes of the store, in the order of the log: what a change stream is fed from.
//!
//! Only effects are kept. A compare-and-set that found another value, the removal of a key that does not
//! exist, or a retry leave none. Each change belongs to the log index that made it, and the changes of
//! one index are kept or forgotten together, so that whoever has seen an index can go on at the next
//! one. It is filled by applying the log, so every node has it; it is no part of a snapshot: it begins
//! anew after one, and says so.

use super::Key;
use crate::codec::{Malformed, Reader, put_blob, put_u8, put_u64};
use crate::raft::Index;
use std::collections::VecDeque;
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
    history: &'a History,
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

    /// The changes of `from` and later indices, in order.
    pub fn since(&self, from: Index) -> Result<impl Iterator<Item = Batch<'_>>, Compacted> {
        if from < self.first {
            return Err(Compacted { first: self.first });
        }
        let page = self.pages.partition_point(|page| page.last < from);
        let mut changes = self.changes_from((page, 0)).skip_while(move |it| it.index < from);
        let mut next = changes.next();
        Ok(std::iter::from_fn(move || {
            let first = next.take()?;
            next = changes.find(|it| it.index != first.index);
            Some(Batch { index: first.index, history: self, begin: first.place })
        }))
    }

    fn changes_from(&self, mut place: Place) -> impl Iterator<Item = Kept<'_>> {
        std::iter::from_fn(move || {
            let mut page = self.pages.get(place.0)?;
            while place.1 == page.bytes.len() {
                place = (place.0 + 1, 0);
                page = self.pages.get(place.0)?;
            }
            let mut reader = Reader::new(&page.bytes[place.1..]);
            let index = reader.u64("index of a change").expect(READABLE);
            let change = ChangeRef::read(&mut reader).expect(READABLE);
            let kept = Kept { index, change, place };
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
        // Outside of any entry (a snapshot is being loaded), or the index has too many changes.
        if self.current == 0 || self.first > self.current {
            return;
        }
        self.make_room(change.cost_bytes());
        let page = self.pages.back_mut().expect("there is room for it");
        put_u64(&mut page.bytes, self.current);
        change.encode(&mut page.bytes);
        page.changes += 1;
        page.last = self.current;
        self.changes += 1;
        while self.pages.len() > 1
            && (self.changes > HISTORY_CHANGES_MAX || self.bytes > HISTORY_BYTES_MAX)
        {
            self.forget_page();
        }
        if self.first > self.current {
            while !self.pages.is_empty() {
                self.forget_page();
            }
        }
    }

    /// The last page gets room for so many bytes.
    fn make_room(&mut self, bytes: usize) {
        let has_room = |page: &Page| page.bytes.capacity() - page.bytes.len() >= bytes;
        if self.pages.back().is_some_and(has_room) {
            return;
        }
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
        self.current = 0;
    }
}

const READABLE: &str = "a change is kept as it was written";

/// A change, and where it is.
struct Kept<'a> {
    index: Index,
    change: ChangeRef<'a>,
    place: Place,
}

/// Without its contents: it is no part of the state, and of two equal states one may remember more.
impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").finish_non_exhaustive()
    }
}

impl<'a> Batch<'a> {
    pub fn changes(&self) -> impl Iterator<Item = ChangeRef<'a>> + use<'a> {
        let index = self.index;
        let all = self.history.changes_from(self.begin);
        all.take_while(move |it| it.index == index).map(|it| it.change)
    }
}
