//! The disk of a simulated machine: `MemDisk`, with an operation now and then that fails, or at which the
//! process ends, and with the ends that processes and machines come to.

use crate::mem_disk::{Files, MemDisk, Unsynced};
use raftkv::wal::{Disk, SET_ASIDE};
use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

/// Room on a disk that is not full: more than anybody wants.
const FREE_BYTES: u64 = 1 << 40;

/// What an armed disk will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The process does not live to see the end of the operation.
    Crash,
    /// A write is refused.
    Write,
    /// A sync is refused. The kernel takes what was to be synced for clean from then on.
    Sync,
}

/// Operations that change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Open,
    Write,
    Sync,
    Name,
    SyncDir,
}

#[derive(Debug, Default)]
struct State {
    armed: Option<(Failure, u32)>,
    /// What became of the armed failure. Nothing works any more until the next process.
    fired: Option<(Failure, Operation)>,
    /// There is no room for anything more.
    is_full: bool,
    operations: u64,
    segments_removed: u64,
    snapshots_refused: u64,
    snapshots_set_aside: u64,
    incoming_given_up: u64,
    hash: u64,
    rng: fastrand::Rng,
}

/// Clones are the same disk, the process's and the world's.
#[derive(Clone)]
pub struct SimDisk {
    mem: MemDisk,
    state: Rc<RefCell<State>>,
}

/// What a power cut did to what was not synced.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PowerCut {
    pub kept: usize,
    pub lost: usize,
    /// What was written later is kept, and something earlier is not.
    pub is_reordered: bool,
}

impl SimDisk {
    pub fn new(seed: u64) -> Self {
        let state = State { rng: fastrand::Rng::with_seed(seed), ..State::default() };
        SimDisk { mem: MemDisk::default(), state: Rc::new(RefCell::new(state)) }
    }

    /// The operation after the next `left` ones that it concerns fails.
    pub fn arm(&self, failure: Failure, left: u32) {
        self.state.borrow_mut().armed = Some((failure, left));
    }

    pub fn disarm(&self) {
        self.state.borrow_mut().armed = None;
    }

    pub fn fired(&self) -> Option<(Failure, Operation)> {
        self.state.borrow().fired
    }

    /// From now on there is no room left, or there is again.
    pub fn set_full(&self, is_full: bool) {
        self.state.borrow_mut().is_full = is_full;
        if is_full {
            self.mem.make_full();
        } else {
            self.mem.heal();
        }
    }

    pub fn is_full(&self) -> bool {
        self.state.borrow().is_full
    }

    /// Files of the log that were removed so far.
    pub fn segments_removed(&self) -> u64 {
        self.state.borrow().segments_removed
    }

    /// Snapshots that found no room so far.
    pub fn snapshots_refused(&self) -> u64 {
        self.state.borrow().snapshots_refused
    }

    /// Damaged snapshots that were taken out of use so far.
    pub fn snapshots_set_aside(&self) -> u64 {
        self.state.borrow().snapshots_set_aside
    }

    /// Snapshots of leaders that were removed before they were whole, on a full disk.
    pub fn incoming_given_up(&self) -> u64 {
        self.state.borrow().incoming_given_up
    }

    /// Flips a bit under whoever uses the file.
    pub fn corrupt(&self, name: &str, at: usize) {
        self.mem.corrupt(name, at);
    }

    pub fn has_durably(&self, name: &str) -> bool {
        self.mem.has_durably(name)
    }

    /// Changing operations so far.
    pub fn operations(&self) -> u64 {
        self.state.borrow().operations
    }

    /// Every operation so far, as one number.
    pub fn hash(&self) -> u64 {
        self.state.borrow().hash
    }

    /// The process is gone, the machine is not: what was written can be read, synced or not.
    pub fn process_ended(&mut self) {
        let mut state = self.state.borrow_mut();
        state.armed = None;
        state.fired = None;
    }

    /// The machine is gone: of what was not synced any part survives.
    pub fn power_cut(&mut self) -> PowerCut {
        self.process_ended();
        let mut state = self.state.borrow_mut();
        let survival = match state.rng.u32(0..5) {
            0 => 0.0,
            1 => 1.0,
            _ => state.rng.f64(),
        };
        let mut cut = PowerCut::default();
        let mut lost_of: Option<Unsynced> = None;
        self.mem = self.mem.after_power_cut_of(|part| {
            let survives = state.rng.f64() < survival;
            if survives {
                cut.kept += 1;
                cut.is_reordered |= lost_of == Some(part);
            } else {
                cut.lost += 1;
                lost_of = Some(part);
            }
            survives
        });
        if state.is_full {
            self.mem.make_full();
        }
        cut
    }

    /// A disk with what a power cut now would leave for sure.
    pub fn durable_image(&self) -> MemDisk {
        self.mem.after_power_cut(|| false)
    }

    pub fn files(&self) -> Files {
        self.mem.files()
    }

    /// What is on a disk that nobody uses becomes this.
    pub fn replace(&mut self, files: &Files) {
        self.mem = MemDisk::holding(files);
        if self.is_full() {
            self.mem.make_full();
        }
    }

    /// Whether the operation is to be carried out.
    fn begin(&self, operation: Operation, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        state.operations += 1;
        let seed = state.hash ^ operation as u64;
        state.hash = xxhash_rust::xxh3::xxh3_64_with_seed(bytes, seed);
        match state.fired {
            None => {}
            Some((Failure::Crash, _)) => return Err(io::Error::other("the process has ended")),
            Some((failure, of)) => {
                panic!("a failed {of:?} ({failure:?}) ends the process: {operation:?}")
            }
        }
        let Some((failure, left)) = &mut state.armed else { return Ok(()) };
        let concerns = match failure {
            Failure::Crash => true,
            Failure::Write => matches!(operation, Operation::Create | Operation::Write),
            Failure::Sync => matches!(operation, Operation::Sync | Operation::SyncDir),
        };
        if !concerns {
            return Ok(());
        }
        if *left > 0 {
            *left -= 1;
            return Ok(());
        }
        state.fired = Some((*failure, operation));
        state.armed = None;
        Err(io::Error::other("a fault of the simulation"))
    }

    /// Somewhere in the middle, both ends included.
    fn part_of(&self, bytes: usize) -> usize {
        self.state.borrow_mut().rng.usize(0..=bytes)
    }

    /// A part of a write at `offset` that ends with a whole sector, or all of it.
    fn sectors_of(&self, offset: u64, bytes: usize) -> usize {
        const SECTOR_BYTES: u64 = 512;
        let part = self.part_of(bytes);
        let end = (offset + part as u64) / SECTOR_BYTES * SECTOR_BYTES;
        if part == bytes { bytes } else { end.saturating_sub(offset) as usize }
    }

    /// Half of the operations that a crash ends are done all the same.
    fn is_done_all_the_same(&self) -> bool {
        let mut state = self.state.borrow_mut();
        matches!(state.fired, Some((Failure::Crash, _))) && state.rng.bool()
    }
}

impl Disk for SimDisk {
    type File = usize;

    fn list(&self) -> io::Result<Vec<String>> {
        self.mem.list()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.mem.read(name)
    }

    fn read_at(&self, name: &str, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        self.mem.read_at(name, offset, bytes)
    }

    fn create(&mut self, name: &str, bytes: u64) -> io::Result<usize> {
        let result = self.begin(Operation::Create, name.as_bytes());
        if let Err(error) = result {
            // A full disk leaves the name, but no room.
            if self.part_of(1) == 1 {
                let _ = self.mem.create(name, 0);
            }
            return Err(error);
        }
        if self.is_full() && name.starts_with("snapshot-") {
            self.state.borrow_mut().snapshots_refused += 1;
        }
        // There may not even be room for a name.
        if self.is_full() && self.part_of(1) == 1 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.mem.create(name, bytes)
    }

    fn open(&mut self, name: &str, bytes: u64) -> io::Result<usize> {
        self.begin(Operation::Open, name.as_bytes())?;
        self.mem.open(name, bytes)
    }

    fn write_at(&mut self, file: &mut usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let result = self.begin(Operation::Write, bytes);
        let written =
            if result.is_ok() { bytes.len() } else { self.sectors_of(offset, bytes.len()) };
        // The first error is the one that is told; that the disk is full as well is none of its business.
        result.and(self.mem.write_at(file, offset, &bytes[..written]))
    }

    fn sync_data(&mut self, file: &mut usize) -> io::Result<()> {
        let result = self.begin(Operation::Sync, &[]);
        if result.is_ok() || self.is_done_all_the_same() {
            self.mem.sync_data(file)?;
        } else if let Some((Failure::Sync, _)) = self.fired() {
            self.mem.forget_to_sync();
        }
        result
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let result = self.begin(Operation::Name, to.as_bytes());
        if result.is_ok() || self.is_done_all_the_same() {
            self.mem.rename(from, to)?;
            self.state.borrow_mut().snapshots_set_aside += u64::from(to == SET_ASIDE);
        }
        result
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let result = self.begin(Operation::Name, name.as_bytes());
        if result.is_ok() || self.is_done_all_the_same() {
            self.mem.remove(name)?;
            let mut state = self.state.borrow_mut();
            state.segments_removed += u64::from(name.starts_with("wal-"));
            let is_given_up = state.is_full && name.starts_with("snapshot-incoming");
            state.incoming_given_up += u64::from(is_given_up);
        }
        result
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        let result = self.begin(Operation::SyncDir, &[]);
        if result.is_ok() || self.is_done_all_the_same() {
            self.mem.sync_dir()?;
        }
        result
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(Some(if self.is_full() { 0 } else { FREE_BYTES }))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.mem.path(name)
    }
}
