//! A disk in memory that keeps only the promises of `Disk`: unsynced sectors survive a power cut in any
//! combination, unsynced names too, and any operation can be made to fail.

// Every test binary compiles all of it and uses a part.
#![allow(dead_code)]

use raftkv::wal::Disk;
use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub const SECTOR_BYTES: usize = 512;

/// The error of an operation that was made to fail.
pub const DISK_FAILS: &str = "the disk fails";
/// The error of an operation that found no room.
pub const DISK_IS_FULL: &str = "the disk is full";

/// Every file with its content.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Clones are the same disk.
#[derive(Clone, Default)]
pub struct MemDisk(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    files: Vec<FileState>,
    /// What a process sees, and what is on the disk.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    unsynced_names: Vec<NameChange>,
    counts: Counts,
    /// Changing operations left before every one of them fails.
    left: Option<usize>,
    /// Those that would take up room fail.
    full: bool,
    /// Changing operations left before the disk is full.
    left_until_full: Option<usize>,
}

#[derive(Default)]
struct FileState {
    written: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that the next sync will make durable.
    dirty: BTreeSet<usize>,
    /// Made without room of its own.
    grows: bool,
}

enum NameChange {
    Create(String, usize),
    /// Of the file that had the name then, whatever else survives of its names.
    Rename(String, String, usize),
    Remove(String),
}

/// What a power cut may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    Name,
    SectorOf(usize),
}

/// Operations so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub creates: usize,
    pub writes: usize,
    pub syncs: usize,
    pub dir_syncs: usize,
    pub other: usize,
}

impl Counts {
    pub fn total(&self) -> usize {
        self.creates + self.writes + self.syncs + self.dir_syncs + self.other
    }
}

impl MemDisk {
    /// A disk that durably holds these files.
    pub fn holding(files: &Files) -> MemDisk {
        let mut state = State::default();
        for (name, bytes) in files {
            state.names.insert(name.clone(), state.files.len());
            state.files.push(FileState {
                written: bytes.clone(),
                durable: bytes.clone(),
                dirty: BTreeSet::new(),
                grows: false,
            });
        }
        state.durable_names = state.names.clone();
        MemDisk(Rc::new(RefCell::new(state)))
    }

    pub fn files(&self) -> Files {
        let state = self.0.borrow();
        state
            .names
            .iter()
            .map(|(name, &id)| (name.clone(), state.files[id].written.clone()))
            .collect()
    }

    /// Whether a power cut leaves the name for sure.
    pub fn has_durably(&self, name: &str) -> bool {
        let state = self.0.borrow();
        state.names.get(name).is_some_and(|id| state.durable_names.get(name) == Some(id))
    }

    pub fn counts(&self) -> Counts {
        self.0.borrow().counts
    }

    /// Lets `left` more changing operations pass; the ones after it fail.
    pub fn fail_after(&self, left: usize) {
        self.0.borrow_mut().left = Some(left);
    }

    /// Lets `left` more changing operations pass; the one after it, and all later ones that take up room,
    /// find none.
    pub fn full_after(&self, left: usize) {
        self.0.borrow_mut().left_until_full = Some(left);
    }

    /// From now on, operations that take up room find none.
    pub fn make_full(&self) {
        self.0.borrow_mut().full = true;
    }

    /// Another disk with what processes see of this one.
    pub fn copy(&self) -> MemDisk {
        MemDisk::holding(&self.files())
    }

    pub fn heal(&self) {
        let mut state = self.0.borrow_mut();
        state.left = None;
        state.full = false;
        state.left_until_full = None;
    }

    /// What Linux does at a failed sync: what was to be synced is marked clean, and so no later sync
    /// will write it, but reads still see it.
    pub fn forget_to_sync(&self) {
        for file in &mut self.0.borrow_mut().files {
            file.dirty.clear();
        }
    }

    /// Flips a bit of what is on the disk, under whoever has it open.
    pub fn corrupt(&self, name: &str, at: usize) {
        let mut state = self.0.borrow_mut();
        let id = state.names[name];
        let FileState { written, durable, .. } = &mut state.files[id];
        written[at] ^= 1;
        if let Some(byte) = durable.get_mut(at) {
            *byte ^= 1;
        }
    }

    /// The state after a power cut: of each unsynced sector and name, `survives` says which is on disk.
    pub fn after_power_cut(&self, mut survives: impl FnMut() -> bool) -> MemDisk {
        self.after_power_cut_of(|_| survives())
    }

    /// The same, and `survives` is told what is in question: all names first, then each file's sectors, and
    /// both in the order in which a log would write them.
    pub fn after_power_cut_of(&self, mut survives: impl FnMut(Unsynced) -> bool) -> MemDisk {
        let state = self.0.borrow();
        let mut names = state.durable_names.clone();
        for change in &state.unsynced_names {
            if survives(Unsynced::Name) {
                apply(&mut names, change);
            }
        }
        let files: Files = names
            .into_iter()
            .map(|(name, id)| {
                let bytes = state.files[id].after_power_cut(|| survives(Unsynced::SectorOf(id)));
                (name, bytes)
            })
            .collect();
        MemDisk::holding(&files)
    }

    /// Counts a changing operation, and says whether it fails.
    fn begin(&self, count: fn(&mut Counts) -> &mut usize) -> (RefMut<'_, State>, io::Result<()>) {
        let mut state = self.0.borrow_mut();
        *count(&mut state.counts) += 1;
        let mut result = match &mut state.left {
            Some(0) => Err(io::Error::other(DISK_FAILS)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        };
        match &mut state.left_until_full {
            Some(0) => {
                state.left_until_full = None;
                state.full = true;
                result = Err(full());
            }
            Some(left) => *left -= 1,
            None => {}
        }
        (state, result)
    }

    fn change_name(&self, change: NameChange) -> io::Result<()> {
        let (mut state, result) = self.begin(|counts| &mut counts.other);
        result?;
        apply(&mut state.names, &change);
        state.unsynced_names.push(change);
        Ok(())
    }
}

fn full() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, DISK_IS_FULL)
}

fn apply(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    match change {
        NameChange::Create(name, id) => {
            names.insert(name.clone(), *id);
        }
        NameChange::Rename(from, to, id) => {
            names.remove(from);
            names.insert(to.clone(), *id);
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
    }
}

fn sectors(start: usize, end: usize) -> std::ops::Range<usize> {
    start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES)
}

impl FileState {
    fn lengthen(&mut self, bytes: usize) {
        let old = self.written.len();
        if bytes > old {
            self.written.resize(bytes, 0);
            self.dirty.extend(sectors(old, bytes));
        }
    }

    /// One sector becomes durable; a durable file is as long as its last durable sector says.
    fn keep(durable: &mut Vec<u8>, written: &[u8], sector: usize) {
        let start = sector * SECTOR_BYTES;
        let end = (start + SECTOR_BYTES).min(written.len());
        if durable.len() < end {
            durable.resize(end, 0);
        }
        durable[start..end].copy_from_slice(&written[start..end]);
    }

    fn after_power_cut(&self, mut survives: impl FnMut() -> bool) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for &sector in &self.dirty {
            if survives() {
                FileState::keep(&mut bytes, &self.written, sector);
            }
        }
        bytes
    }
}

impl Disk for MemDisk {
    type File = usize;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.borrow().names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let state = self.0.borrow();
        let id = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(state.files[id].written.clone())
    }

    fn read_at(&self, name: &str, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let state = self.0.borrow();
        let id = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        let written = &state.files[id].written;
        let start = written.len().min(offset as usize);
        Ok(written[start..written.len().min(start.saturating_add(bytes))].to_vec())
    }

    fn create(&mut self, name: &str, bytes: u64) -> io::Result<usize> {
        let (mut state, result) = self.begin(|counts| &mut counts.creates);
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = state.files.len();
        state.files.push(FileState { grows: bytes == 0, ..FileState::default() });
        let change = NameChange::Create(name.to_owned(), id);
        apply(&mut state.names, &change);
        state.unsynced_names.push(change);
        // A full disk leaves the name, but no room.
        result?;
        if state.full && bytes > 0 {
            return Err(full());
        }
        state.files[id].lengthen(bytes as usize);
        Ok(id)
    }

    fn open(&mut self, name: &str, bytes: u64) -> io::Result<usize> {
        let (mut state, result) = self.begin(|counts| &mut counts.other);
        result?;
        let id = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        if state.full && state.files[id].written.len() < bytes as usize {
            return Err(full());
        }
        state.files[id].grows = false;
        state.files[id].lengthen(bytes as usize);
        Ok(id)
    }

    fn write_at(&mut self, file: &mut usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (mut state, result) = self.begin(|counts| &mut counts.writes);
        let is_full = state.full;
        let file = &mut state.files[*file];
        let start = offset as usize;
        let end = start + bytes.len();
        let length = file.written.len();
        if is_full && end > length {
            return Err(full());
        }
        assert!(end <= length || (file.grows && start <= length), "a write beyond a file's end");
        file.lengthen(end);
        // A failing write may have written something all the same.
        file.written[start..end].copy_from_slice(bytes);
        file.dirty.extend(sectors(start, end));
        result
    }

    fn sync_data(&mut self, file: &mut usize) -> io::Result<()> {
        let (mut state, result) = self.begin(|counts| &mut counts.syncs);
        result?;
        let FileState { written, durable, dirty, .. } = &mut state.files[*file];
        for sector in std::mem::take(dirty) {
            FileState::keep(durable, written, sector);
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let file = self.0.borrow().names.get(from).copied();
        let Some(id) = file else { return Err(io::ErrorKind::NotFound.into()) };
        self.change_name(NameChange::Rename(from.to_owned(), to.to_owned(), id))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.change_name(NameChange::Remove(name.to_owned()))
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        let (mut state, result) = self.begin(|counts| &mut counts.dir_syncs);
        result?;
        state.unsynced_names.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new("mem").join(name)
    }
}
