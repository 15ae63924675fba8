//! Random histories of batches, snapshots of both kinds, resets and compactions, with crashes at any
//! operation of any of them and of recovery, against a model in memory.

use crate::mem_disk::{DISK_FAILS, MemDisk};
use crate::model::{self, command, hard_state, noop, position};
use raftkv::raft::{Entry, HardState, Index, Position};
use raftkv::wal::{Recovered, SnapshotKind, Wal, WalError};

const SEGMENT_BYTES: u64 = 2048;

/// What a folder says.
#[derive(Debug, Clone, PartialEq)]
struct State {
    hard_state: HardState,
    /// The log: where it begins, and what follows.
    base: Position,
    entries: Vec<Entry>,
    /// Oldest first.
    snapshots: Vec<Position>,
}

impl State {
    fn empty() -> State {
        let hard_state = HardState::default();
        State { hard_state, base: position(0, 0), entries: vec![], snapshots: vec![] }
    }

    fn last_index(&self) -> Index {
        self.base.index + self.entries.len() as Index
    }

    fn snapshot(&self) -> Position {
        self.snapshots.last().copied().unwrap_or(position(0, 0))
    }

    fn term_at(&self, index: Index) -> Option<u64> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        let at = index.checked_sub(self.base.index + 1)?;
        self.entries.get(at as usize).map(|entry| entry.term)
    }

    fn append(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.entries.truncate((entry.index - self.base.index - 1) as usize);
            self.entries.push(entry.clone());
        }
    }

    fn reset(&mut self, base: Position) {
        self.base = base;
        self.entries.clear();
    }

    fn add_snapshot(&mut self, position: Position) {
        self.snapshots.push(position);
        if self.snapshots.len() > 2 {
            self.snapshots.remove(0);
        }
    }

    /// Starting does this to a log that the newest snapshot contradicts, and to a term before that
    /// snapshot's.
    fn started(&self) -> State {
        let mut state = self.clone();
        if self.hard_state.term < self.snapshot().term {
            state.hard_state = hard_state(self.snapshot().term, None);
        }
        if self.term_at(self.snapshot().index) != Some(self.snapshot().term) {
            state.reset(self.snapshot());
        }
        state
    }

    /// Whether recovery returns what it should of this.
    fn is_told_by(&self, recovered: &Recovered) -> bool {
        let state = self.started();
        let skipped = (state.snapshot().index - state.base.index) as usize;
        recovered.hard_state == state.hard_state
            && recovered.base == state.snapshot()
            && recovered.snapshot.map(|file| file.position) == state.snapshots.last().copied()
            && recovered.entries == state.entries[skipped..]
    }

    /// Entries that may follow: at times over older ones, but never over what a snapshot holds.
    fn random_entries(&self, rng: &mut fastrand::Rng) -> Vec<Entry> {
        let term = self.hard_state.term.max(1);
        let replaceable = self.last_index() - self.snapshot().index.max(self.base.index);
        let back = if rng.u8(..3) == 0 { rng.u64(..=replaceable.min(4)) } else { 0 };
        let first = self.last_index() + 1 - back;
        let mut entries = Vec::new();
        for index in first..first + rng.u64(1..4) {
            let bytes = vec![rng.u8(..); rng.usize(..700)];
            let is_noop = rng.u8(..8) == 0;
            entries.push(if is_noop { noop(term, index) } else { command(term, index, &bytes) });
        }
        entries
    }
}

/// The content of a snapshot: known from its position.
fn payload(position: Position) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(position.index * 1000 + position.term);
    let most = if rng.u8(..8) == 0 { 150_000 } else { 3000 };
    (0..rng.usize(..most)).map(|_| rng.u8(..)).collect()
}

/// What was acknowledged, and what else a crash may leave.
struct Promise {
    current: State,
    possible: Vec<State>,
    /// The log up to here may be gone.
    compacted: Index,
}

impl Promise {
    fn new() -> Promise {
        Promise { current: State::empty(), possible: vec![], compacted: 0 }
    }

    fn becomes(&mut self, state: State) {
        self.current = state;
        self.possible.clear();
    }
}

struct Run<'a> {
    wal: Wal<MemDisk>,
    promise: &'a mut Promise,
    rng: &'a mut fastrand::Rng,
}

impl Run<'_> {
    fn sync(&mut self, next: State) -> Result<(), WalError> {
        let state = &self.promise.current;
        self.promise.possible =
            vec![State { hard_state: next.hard_state, ..state.clone() }, next.clone()];
        self.wal.sync()?;
        self.promise.becomes(next);
        Ok(())
    }

    fn batch(&mut self) -> Result<(), WalError> {
        let mut next = self.promise.current.clone();
        if self.rng.u8(..4) == 0 {
            self.raise_term(&mut next);
        }
        let entries = next.random_entries(self.rng);
        next.append(&entries);
        self.wal.append_entries(&entries);
        self.sync(next)
    }

    fn raise_term(&mut self, next: &mut State) {
        let vote = self.rng.bool().then(|| self.rng.u64(..3));
        next.hard_state = hard_state(next.hard_state.term + 1, vote);
        self.wal.append_hard_state(next.hard_state);
    }

    fn snapshot(&mut self, kind: SnapshotKind, at: Position) -> Result<(), WalError> {
        self.wal.begin_snapshot(kind, at)?;
        let payload = payload(at);
        for part in payload.chunks(self.rng.usize(1000..100_000)) {
            self.wal.append_snapshot(kind, part)?;
        }
        let mut next = self.promise.current.clone();
        next.add_snapshot(at);
        self.promise.possible = vec![next.clone()];
        self.wal.finish_snapshot(kind)?;
        self.promise.becomes(next);
        Ok(())
    }

    fn own_snapshot(&mut self) -> Result<(), WalError> {
        let state = &self.promise.current;
        let oldest = state.snapshot().index.max(state.base.index) + 1;
        if oldest > state.last_index() {
            return Ok(());
        }
        let index = self.rng.u64(oldest..=state.last_index());
        let term = state.term_at(index).unwrap();
        self.snapshot(SnapshotKind::Own, position(index, term))
    }

    /// A snapshot from the leader of a new term: of entries that this log lacks, or has differently.
    fn incoming_snapshot(&mut self) -> Result<(), WalError> {
        let mut next = self.promise.current.clone();
        self.raise_term(&mut next);
        self.sync(next)?;
        let state = &self.promise.current;
        let oldest = state.snapshot().index.max(state.base.index) + 1;
        let index = self.rng.u64(oldest..=state.last_index() + 5);
        let at = position(index, state.hard_state.term);
        self.snapshot(SnapshotKind::Incoming, at)?;
        self.wal.reset(at);
        let mut next = self.promise.current.clone();
        next.reset(at);
        if self.rng.bool() {
            let entries = next.random_entries(self.rng);
            self.wal.append_entries(&entries);
            next.append(&entries);
        }
        self.sync(next)
    }

    fn step(&mut self) -> Result<(), WalError> {
        match self.rng.u8(..12) {
            0 | 1 => self.own_snapshot(),
            2 => self.incoming_snapshot(),
            3 | 4 => match self.promise.current.snapshots[..] {
                [older, _] => {
                    self.promise.compacted = older.index;
                    self.wal.compact(older.index)
                }
                _ => Ok(()),
            },
            _ => self.batch(),
        }
    }

    /// What is read again from a place in the log is what was written there last.
    fn read_again(&mut self) {
        let state = &self.promise.current;
        let oldest = state.base.index.max(self.promise.compacted) + 1;
        if oldest <= state.last_index() {
            let first = self.rng.u64(oldest..=state.last_index());
            let expected = &state.entries[(first - state.base.index - 1) as usize..];
            let found = self.wal.read_entries(first..=state.last_index(), usize::MAX);
            assert_eq!(found.expect("nothing is damaged"), expected, "from {first} on");
        }
    }
}

/// Opens the log, holds what it finds against the promise, and goes on until the disk fails.
fn run(
    disk: &MemDisk,
    promise: &mut Promise,
    most: usize,
    rng: &mut fastrand::Rng,
) -> Result<(), WalError> {
    let (mut wal, recovered) = model::open(disk, SEGMENT_BYTES)?;
    assert_eq!((&recovered.damaged, &recovered.notes), (&None, &vec![]));
    let candidates = std::iter::once(&promise.current).chain(&promise.possible);
    let Some(found) = candidates.rev().find(|state| state.is_told_by(&recovered)) else {
        panic!("found {recovered:?} instead of {:?}", promise.current);
    };
    promise.becomes(found.started());
    if let Some(file) = recovered.snapshot {
        let read = wal.read_snapshot(file.position, 0, usize::MAX)?;
        assert!(read == payload(file.position), "another snapshot's content");
    }
    let mut run = Run { wal, promise, rng };
    for _ in 0..most {
        run.step()?;
        run.read_again();
    }
    Ok(())
}

/// A damaged newest snapshot is one of the things that may happen to a folder that is not in use, as long
/// as an older one or the beginning is left to go on from.
fn damage_newest_snapshot(disk: &MemDisk, promise: &mut Promise, rng: &mut fastrand::Rng) -> bool {
    let (_, recovered) = model::open(disk, SEGMENT_BYTES).unwrap();
    let candidates = std::iter::once(&promise.current).chain(&promise.possible);
    let found = candidates.rev().find(|state| state.is_told_by(&recovered)).unwrap().started();
    promise.becomes(found);
    let state = &mut promise.current;
    let Some(newest) = state.snapshots.pop() else { return false };
    if state.snapshot().index < state.base.index.max(promise.compacted) {
        state.snapshots.push(newest);
        return false;
    }
    let name = format!("snapshot-{:016x}-{:016x}", newest.index, newest.term);
    let bytes = disk.files()[&name].len();
    disk.corrupt(&name, rng.usize(..bytes));
    let (_, recovered) = model::open(disk, SEGMENT_BYTES).unwrap();
    assert_eq!((recovered.damaged, recovered.notes.len()), (None, 1));
    true
}

#[test]
fn no_crash_loses_a_snapshot_or_what_follows_it() {
    let mut damaged = 0;
    for seed in 0..800 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut disk = MemDisk::default();
        let mut promise = Promise::new();
        for _ in 0..8 {
            disk.fail_after(rng.usize(..60));
            if let Err(error) = run(&disk, &mut promise, 12, &mut rng) {
                let is_injected = |e: &std::io::Error| e.to_string() == DISK_FAILS;
                let injected = matches!(&error, WalError::Io { source, .. } if is_injected(source));
                assert!(injected, "seed {seed}: {error}");
            }
            disk.heal();
            match rng.u8(..4) {
                0 => {}
                1 => disk.forget_to_sync(),
                _ => {
                    let chance = rng.f64();
                    disk = disk.after_power_cut(|| rng.f64() < chance);
                }
            }
            if rng.u8(..8) == 0 {
                damaged += usize::from(damage_newest_snapshot(&disk, &mut promise, &mut rng));
            }
        }
        run(&disk, &mut promise, 0, &mut rng).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
    assert!(damaged > 70, "only {damaged} snapshots could be damaged");
}

/// One history with everything in it, with a power cut at every single operation.
#[test]
fn a_history_may_be_cut_short_at_every_operation() {
    for passing in 0.. {
        let mut survival = fastrand::Rng::with_seed(passing as u64);
        let mut complete = false;
        for chance in [0.0, 0.5, 1.0] {
            let mut rng = fastrand::Rng::with_seed(77);
            let disk = MemDisk::default();
            let mut promise = Promise::new();
            disk.fail_after(passing);
            complete = run(&disk, &mut promise, 60, &mut rng).is_ok();
            disk.heal();
            let disk = disk.after_power_cut(|| survival.f64() < chance);
            run(&disk, &mut promise, 5, &mut rng).unwrap();
        }
        if complete {
            assert!(passing > 200, "only {passing} operations");
            break;
        }
    }
}
