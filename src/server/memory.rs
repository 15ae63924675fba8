//! How much memory connections make this node keep, and what it does when that is too much.
//!
//! There are ten thousand of them, and each may have much: requests that are not whole, answers that it does not read,
//! keys that it watches, a transaction that it queues. Each kind has a limit of its own, and all of them together have
//! one, `--buffers-bytes-max`, so that no mixture costs more:
//!
//! - Near the limit (`NEAR_PART`) long requests take turns and nobody may have much unread.
//! - Whatever would have the node keep more for a client is refused then, as not done.
//! - At the limit new clients are refused, and those who hold most are closed. Members never are.
//!
//! What is held counts, not what is in it: rooms of buffers as they are, and what an item takes beside its bytes.

use super::talk::Talk;
use super::{AWAITED_BYTES_MAX, Server};
use crate::config::Config;
use crate::kv::{
    ENTRY_COPIES_BYTES_MAX, Failure, FailureCode, HISTORY_BYTES_MAX, HISTORY_CHANGES_MAX,
    SESSIONS_MAX,
};
use crate::net::ConnId;
use crate::wal::Disk;
use log::warn;
use std::cell::Cell;
use std::fs;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What a connection takes that has said nothing: its place here and in `net`, and its conversation.
pub const CONNECTION_BYTES: usize = 2 * 1024;
/// What a connection to another node takes beside its buffers: names, addresses, its place in several maps.
const PEER_BYTES: usize = 4 * 1024;
/// Parts of `--buffers-bytes-max`: what clients collect, and what is under way for other nodes' clients.
const KEPT_PART: usize = 8;
const PEERS_PART: usize = 4;
/// A node that is no member is not closed for holding less than this when peers hold too much.
const STRANGER_BYTES: usize = 256 * 1024;
/// From one part in so many below the limit on, memory is short.
const NEAR_PART: usize = 8;
/// When connections are closed, this part of the limit is to be free again.
const FREED_PART: usize = 16;
/// The least time between two lines about it in the log.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// What all connections have of one kind, in bytes.
pub type Total = Rc<Cell<usize>>;

/// What somebody takes of a total, until it is gone, whatever becomes of its connection.
#[derive(Debug, Default)]
pub struct Charge {
    bytes: usize,
    total: Total,
}

impl Charge {
    pub fn new(total: &Total) -> Self {
        Charge { bytes: 0, total: Rc::clone(total) }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn set(&mut self, bytes: usize) {
        self.total.set(self.total.get() - self.bytes + bytes);
        self.bytes = bytes;
    }

    pub fn add(&mut self, bytes: usize) {
        self.set(self.bytes + bytes);
    }

    pub fn take(&mut self, bytes: usize) {
        self.set(self.bytes - bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[derive(Debug, Default)]
pub struct Memory {
    /// What clients collect: transactions, watched keys, subscriptions, names, cursors.
    pub kept: Total,
    /// As of the last turn.
    is_short: bool,
    /// Connections that were closed.
    pub closed: u64,
    /// What clients were refused.
    pub refused: u64,
    told: Option<(Instant, u64)>,
}

/// What is held, by kind, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Buffers {
    pub connections: usize,
    /// Inboxes and outboxes of clients.
    pub clients: usize,
    /// Replies that earlier ones hold back.
    pub replies: usize,
    pub kept: usize,
    /// Requests without an answer, and their answers.
    pub under_way: usize,
    /// Inboxes and outboxes of other nodes, and what is passed on to them or carried out for them.
    pub peers: usize,
}

impl Buffers {
    /// As they are called in `INFO` and in metrics.
    pub fn parts(&self) -> [(&'static str, usize); 6] {
        let Buffers { connections, clients, replies, kept, under_way, peers } = *self;
        [
            ("connections", connections),
            ("clients", clients),
            ("replies", replies),
            ("kept", kept),
            ("under_way", under_way),
            ("peers", peers),
        ]
    }

    pub fn total(&self) -> usize {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }
}

impl<D: Disk> Server<D> {
    pub(super) fn buffers(&self) -> Buffers {
        let net = &self.links.net;
        Buffers {
            connections: net.connections_known() * CONNECTION_BYTES,
            clients: net.clients_held(),
            replies: self.unread.held_bytes.get(),
            kept: self.memory.kept.get(),
            under_way: self.asked_bytes,
            peers: net.peers_held() + self.links.known() * PEER_BYTES + self.for_peers_bytes(),
        }
    }

    /// What other nodes' clients have under way here.
    fn for_peers_bytes(&self) -> usize {
        self.links.passing_bytes_of_all() + self.replica.node().forwarded_bytes_of_all()
    }

    /// Whether nothing more is to be carried out for other nodes' clients.
    pub(super) fn do_peers_have_enough(&self) -> bool {
        self.for_peers_bytes() >= self.config.buffers_bytes_max / PEERS_PART
    }

    /// Whether so many bytes more may be kept for a client. Fails with what it is told: not done.
    pub(super) fn may_keep(&mut self, bytes: usize) -> Result<(), Failure> {
        let max = self.config.buffers_bytes_max;
        let (kept, all) = (self.memory.kept.get(), self.buffers().total());
        if kept + bytes <= max / KEPT_PART && all + bytes <= near(max) {
            return Ok(());
        }
        self.memory.refused += 1;
        let message = format!(
            "all clients together have this node keep {kept} bytes of {all} for all connections, too much for \
             {bytes} more; nothing was done, try again later"
        );
        Err(Failure { code: FailureCode::Overloaded, message, leader: None })
    }

    /// Whether commands are refused for which the node would hold more.
    pub(super) fn is_memory_refused(&self) -> bool {
        let kept_max = self.config.buffers_bytes_max / KEPT_PART;
        self.memory.is_short || self.memory.kept.get() >= near(kept_max)
    }

    /// Whether each client may have little, as all together have much.
    pub(super) fn is_memory_short(&self) -> bool {
        self.memory.is_short
    }

    /// Once a turn: what follows from how much is held.
    pub(super) fn look_at_memory(&mut self, now: Instant) {
        let (buffers, max) = (self.buffers(), self.config.buffers_bytes_max);
        let total = buffers.total();
        self.memory.is_short = total >= near(max);
        self.links.net.be_short_of_memory(self.memory.is_short);
        self.links.refuse_clients(total >= max);
        if total > max {
            let candidates =
                self.held_by_connection(|is_stranger, is_peer| is_stranger || !is_peer);
            self.close_who_hold_most(
                candidates,
                total - (max - max / FREED_PART),
                (total, max),
                now,
            );
        }
        let peers_max = max / PEERS_PART;
        if buffers.peers > peers_max && self.links.strangers().next().is_some() {
            let mut strangers = self.held_by_connection(|is_stranger, _| is_stranger);
            strangers.retain(|(_, bytes)| *bytes > STRANGER_BYTES);
            let freed = buffers.peers - peers_max;
            self.close_who_hold_most(strangers, freed, (buffers.peers, peers_max), now);
        }
    }

    /// Connections, those with most first, and what each makes this node keep.
    fn held_by_connection(&self, wanted: impl Fn(bool, bool) -> bool) -> Vec<(ConnId, usize)> {
        let strangers: Vec<(ConnId, usize)> = self.links.strangers().collect();
        let held = |(conn, buffers): (ConnId, usize)| {
            let talk = self.talks.get(&conn);
            let is_peer = matches!(talk, Some(Talk::Peer { .. } | Talk::AwaitingWelcome { .. }));
            let more = match talk {
                Some(Talk::Text(text)) => text.held_bytes() + text.kept_bytes(),
                Some(Talk::Client(client)) => client.kept_bytes(),
                _ => 0,
            };
            let stranger = strangers.iter().find(|(stranger, _)| *stranger == conn);
            let (is_stranger, passing) = (stranger.is_some(), stranger.map_or(0, |it| it.1));
            let more = more + passing;
            wanted(is_stranger, is_peer).then_some((conn, CONNECTION_BYTES + buffers + more))
        };
        let mut all: Vec<_> = self.links.net.held_by_connection().filter_map(held).collect();
        all.sort_unstable_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        all
    }

    fn close_who_hold_most(
        &mut self,
        candidates: Vec<(ConnId, usize)>,
        to_free: usize,
        (total, max): (usize, usize),
        now: Instant,
    ) {
        let (mut freed, mut closed) = (0, 0);
        for (conn, bytes) in candidates {
            if freed >= to_free {
                break;
            }
            self.close(conn, &format!("it makes this node hold {bytes} bytes"), now);
            (freed, closed) = (freed + bytes, closed + 1);
        }
        self.memory.closed += closed;
        let (told_at, told) = self.memory.told.unwrap_or((self.started, 0));
        let is_due = now.saturating_duration_since(told_at) >= TOLD_EVERY;
        if closed > 0 && (self.memory.told.is_none() || is_due) {
            warn!(
                "{} connections are closed, the last {closed} of them made this node hold {freed} bytes: all \
                 together {total}, the limit is {max} (--buffers-bytes-max is {})",
                self.memory.closed - told,
                self.config.buffers_bytes_max
            );
            self.memory.told = Some((now, self.memory.closed));
        }
    }
}

/// Where memory begins to be short.
fn near(max: usize) -> usize {
    max - max / NEAR_PART
}

/// The program, its stack, its tables of fixed size, and samples for the page.
const PROGRAM_BYTES: usize = 16 * 1024 * 1024;
/// The newest part of the log, and what one turn may add before it is dropped.
const LOG_BYTES: usize = 16 * 1024 * 1024;
/// What a session takes with its answer, at most.
const SESSION_BYTES: usize = 512;
/// What a change in the history takes beside its bytes.
const CHANGE_BYTES: usize = 64;
/// Pieces of snapshots that are written, sent, received and read for backups.
const PIECES_BYTES: usize = 8 * 1024 * 1024;
/// What the allocator cannot use of what it has from the system: one part in so many of all.
const ALLOCATOR_PART: usize = 8;

/// The most memory that a node takes beside its data, in its parts. The data are `keyspace_bytes` and about 150 bytes for
/// each key, and while a snapshot is taken, again what changes meanwhile.
pub fn needed(config: &Config) -> [(&'static str, usize); 9] {
    let parts = [
        ("buffers", config.buffers_bytes_max),
        ("uncommitted", config.uncommitted_bytes_max),
        // What one turn brings is written at once, and what others have under way.
        ("batch", 2 * AWAITED_BYTES_MAX),
        ("log", LOG_BYTES),
        ("history", HISTORY_BYTES_MAX + HISTORY_CHANGES_MAX * CHANGE_BYTES),
        ("sessions", SESSIONS_MAX * SESSION_BYTES),
        ("pieces", PIECES_BYTES),
        ("entry", ENTRY_COPIES_BYTES_MAX),
    ];
    let sum: usize = parts.iter().map(|(_, bytes)| bytes).sum::<usize>() + PROGRAM_BYTES;
    let [a, b, c, d, e, f, g, h] = parts;
    [a, b, c, d, e, f, g, h, ("program", PROGRAM_BYTES + sum / ALLOCATOR_PART)]
}

/// The sum of these.
pub fn needed_max(config: &Config) -> usize {
    needed(config).iter().map(|(_, bytes)| bytes).sum()
}

/// What is resident; `None` where there is no `/proc`.
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Invocation;
    use crate::server::texts::TextTalk;

    fn default_config() -> Config {
        let args = ["raft-0", "--peers", "raft-0=127.0.0.1:6000"].map(Into::into);
        match Config::from_args(args, |_| None) {
            Ok(Invocation::Run(config)) => *config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_help_says_how_much_memory_a_node_needs_beside_its_data() {
        let config = default_config();
        const MIB: usize = 1024 * 1024;
        let parts = needed(&config);
        let of_flags = config.buffers_bytes_max + config.uncommitted_bytes_max;
        let sum = (needed_max(&config) * ALLOCATOR_PART).div_ceil(ALLOCATOR_PART + 1);
        let others = format!("{} MiB, and an eighth", (sum - of_flags) / MIB);
        let all = format!("{} MiB with the defaults", needed_max(&config).div_ceil(MIB));
        let help = Config::help();
        assert!(help.contains(&others) && help.contains(&all), "{others}, {all}, {parts:?}");
    }

    #[test]
    fn the_manifests_ask_for_what_a_node_needs_and_leave_room_for_data() {
        const MIB: usize = 1024 * 1024;
        let text = include_str!("../../kubernetes/base/statefulset.yaml");
        let sizes = text.lines().filter_map(|line| line.trim().strip_prefix("memory: "));
        let bytes = |size: &str| {
            let (number, factor) = match size.strip_suffix("Mi") {
                Some(number) => (number, MIB),
                None => (size.strip_suffix("Gi").expect("Mi or Gi"), 1024 * MIB),
            };
            number.parse::<usize>().expect("a number") * factor
        };
        let [asked, limit] = sizes.map(bytes).collect::<Vec<_>>()[..] else { panic!("two sizes") };
        let needed = needed_max(&default_config());
        assert!(asked >= needed && limit >= needed + 400 * MIB, "{asked}, {limit}, {needed}");
    }

    #[test]
    fn a_connection_takes_no_more_than_is_counted() {
        let here = size_of::<Option<(ConnId, Talk)>>() + size_of::<TextTalk>();
        let collected = size_of::<crate::server::transactions::Collected>();
        let sum = here + collected + crate::net::CONNECTION_BYTES;
        // A place in half a dozen sets and maps, and in the lists of the loop.
        assert!(sum + 6 * 64 <= CONNECTION_BYTES, "{sum}");
    }

    #[test]
    fn a_charge_is_given_back_when_its_owner_is_gone() {
        let total = Total::default();
        let (mut one, mut other) = (Charge::new(&total), Charge::new(&total));
        one.add(100);
        other.set(50);
        other.add(5);
        other.take(15);
        assert_eq!((one.bytes(), other.bytes(), total.get()), (100, 40, 140));
        drop(one);
        assert_eq!(total.get(), 40);
        other.set(0);
        assert_eq!(total.get(), 0);
    }
}
