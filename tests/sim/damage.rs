//! What befalls the files of a machine whose process is down.
//!
//! The rule: nodes that have been struck, and are not known to be whole since, are at most a minority, and no
//! node is struck twice before it has started. An entry is committed when a majority has it, so at least one
//! node of that majority still has it; and as a node that has lost something neither votes nor campaigns, every
//! leader is elected by nodes that have lost nothing, which always include that one. Beyond that nobody can
//! promise anything: the only copy of what is acknowledged may be gone.
//!
//! Left out are `identity` and `damaged`, because a node without either refuses to start, and the newest file
//! of the log when files get lost: nothing on that disk can tell that it was ever there.

use super::faults::Fault;
use super::image::{newest_snapshot, snapshot_name};
use super::world::{Health, Number, World};
use crate::mem_disk::Files;

impl World {
    /// Perhaps strikes a machine just before its process starts.
    pub fn strike_files(&mut self, id: Number) {
        if self.nemesis.f64() >= self.swarm.rot || !self.may_be_struck(id) {
            return;
        }
        let mut files = self.host(id).disk.files();
        let struck = match self.nemesis.u32(0..10) {
            0 | 1 => self.lose_segment(&mut files),
            2 | 3 => self.lose_snapshot(&mut files),
            4 | 5 => self.misplace_snapshot(&mut files),
            _ => None,
        };
        let struck = struck.or_else(|| self.flip_bit(&mut files));
        let Some((fault, name)) = struck else { return };
        self.trace.event(self.now, &[6, id], || format!("{id}: {fault:?} {name}"));
        self.faults.add(fault);
        let host = self.host(id);
        host.disk.replace(&files);
        host.health = Health::Struck;
    }

    /// Perhaps a bit flips under a running process. It reads snapshots when it sends them, and its log not
    /// before its next start.
    pub fn strike_files_in_use(&mut self, id: Number) {
        let id = self.transfer_under_way().map_or(id, |(from, _)| from);
        if !self.is_up(id) || self.host(id).health != Health::Whole || !self.may_be_struck(id) {
            return;
        }
        let newest = self.process_ref(id).map(|process| newest_snapshot(&process.replica));
        let Some(newest) = newest.filter(|position| position.index > 0) else { return };
        let (name, files) = (snapshot_name(newest), self.host(id).disk.files());
        let at = self.nemesis.usize(0..files[&name].len());
        self.trace.event(self.now, &[11, id], || format!("{id}: bit flips in {name}, byte {at}"));
        self.faults.add(Fault::BitFlippedInUse);
        let host = self.host(id);
        host.disk.corrupt(&name, at);
        host.health = Health::Struck;
    }

    fn may_be_struck(&mut self, id: Number) -> bool {
        match self.host(id).health {
            Health::Whole => self.is_member_with_data(id) && self.is_enough(|at| at != id),
            Health::Damaged => true,
            Health::Struck => false,
        }
    }

    fn any_name(&mut self, names: &[String]) -> Option<String> {
        let last = names.len().checked_sub(1)?;
        Some(names[self.nemesis.usize(0..=last)].clone())
    }

    fn flip_bit(&mut self, files: &mut Files) -> Option<(Fault, String)> {
        let is_target = |name: &str| name != "identity" && !name.starts_with("damaged");
        let names: Vec<String> = files
            .iter()
            .filter(|(name, bytes)| is_target(name) && !bytes.is_empty())
            .map(|(name, _)| name.clone())
            .collect();
        let is_log = |name: &&String| name.starts_with("wal-");
        let logs: Vec<String> = names.iter().filter(is_log).cloned().collect();
        // The log is where it hurts.
        let targets = if self.nemesis.bool() { logs } else { names };
        let name = self.any_name(&targets)?;
        let bytes = files.get_mut(&name).expect("it is one of them");
        // Most of a file of the log is empty as yet.
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let within = if used > 0 && self.nemesis.u32(0..8) > 0 { used } else { bytes.len() };
        let at = self.nemesis.usize(0..within);
        bytes[at] ^= 1 << self.nemesis.u32(0..8);
        Some((Fault::BitFlipped, format!("{name}, byte {at}")))
    }

    fn lose_segment(&mut self, files: &mut Files) -> Option<(Fault, String)> {
        let mut names: Vec<String> =
            files.keys().filter(|name| name.starts_with("wal-")).cloned().collect();
        names.pop();
        let name = self.any_name(&names)?;
        files.remove(&name);
        Some((Fault::SegmentLost, name))
    }

    fn snapshot_name(&mut self, files: &Files) -> Option<String> {
        let is_finished = |name: &&String| name.starts_with("snapshot-") && !name.contains('.');
        let names: Vec<String> = files.keys().filter(is_finished).cloned().collect();
        self.any_name(&names)
    }

    fn lose_snapshot(&mut self, files: &mut Files) -> Option<(Fault, String)> {
        let name = self.snapshot_name(files)?;
        files.remove(&name);
        Some((Fault::SnapshotLost, name))
    }

    /// It gets the name of a newer one.
    fn misplace_snapshot(&mut self, files: &mut Files) -> Option<(Fault, String)> {
        let name = self.snapshot_name(files)?;
        let bytes = files.remove(&name).expect("it is one of them");
        let (index, term) = name.strip_prefix("snapshot-")?.split_once('-')?;
        let index = u64::from_str_radix(index, 16).ok()? + self.nemesis.u64(1..100);
        files.insert(format!("snapshot-{index:016x}-{term}"), bytes);
        Some((Fault::SnapshotMisplaced, name))
    }
}
