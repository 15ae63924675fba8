//! What the kernel knows of a process.

use std::fs;

/// Clock ticks a second, as Linux counts them for everybody (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub cpu_seconds: f64,
    /// Bytes that were caused to be written to disk: whole pages.
    pub written_bytes: u64,
}

/// Of several processes together.
pub fn usage(pids: &[u32]) -> Usage {
    pids.iter().map(|pid| usage_of(*pid)).fold(Usage::default(), |sum, one| Usage {
        cpu_seconds: sum.cpu_seconds + one.cpu_seconds,
        written_bytes: sum.written_bytes + one.written_bytes,
    })
}

fn usage_of(pid: u32) -> Usage {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may have blanks and brackets in it; fields are counted from behind it.
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse().ok()).unwrap_or(0.0);
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    Usage {
        cpu_seconds: (ticks(11) + ticks(12)) / TICKS_PER_SECOND,
        written_bytes: field(&io, "write_bytes:").unwrap_or(0),
    }
}

/// Resident memory, in KiB.
pub fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    field(&status, "VmRSS:").unwrap_or(0)
}

/// Share of all CPU time that the hypervisor gave to others, between two calls of `cpu_times`.
pub fn steal_percent(before: (u64, u64), after: (u64, u64)) -> f64 {
    100.0 * (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64
}

/// Stolen, and all.
pub fn cpu_times() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    let times: Vec<u64> = first.split_whitespace().skip(1).flat_map(str::parse).collect();
    (times.get(7).copied().unwrap_or(0), times.iter().take(8).sum())
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line[name.len()..].split_whitespace().next()?.parse().ok()
}
