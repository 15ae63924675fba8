//! What this node counts, for Prometheus. Counting costs a turn a few additions; everything else is
//! looked up when it is asked for. Names follow Prometheus's conventions: base units, `_total` for what
//! only grows.

use super::histogram::{BYTES, ENTRIES, Histogram, SECONDS, Syncs};
use super::talk::Talk;
use super::{Server, memory};
use crate::lines;
use crate::node::NoGrowth;
use crate::protocol::exposition::{Decimal, Exposition};
use crate::raft::{NodeId, Term};
use crate::wal::Disk;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// As they are named in `INFO`.
const ROLES: [&str; 7] =
    ["leader", "follower", "learner", "candidate", "pre-candidate", "waiting", "removed"];

#[derive(Debug)]
pub struct Counts {
    pub http_requests: u64,
    requests: Histogram,
    /// Reads of this node's clients that were answered, and of those the ones that it answered from what it has.
    pub reads: u64,
    pub local_reads: u64,
    /// Requests that were refused because they had waited for too long.
    pub late: u64,
    pub syncs: Syncs,
    batch_entries: Histogram,
    batch_bytes: Histogram,
    leader: Option<(Term, NodeId)>,
    leader_changes: u64,
    started_at: Duration,
}

impl Counts {
    pub fn new(syncs: Syncs) -> Self {
        Counts {
            http_requests: 0,
            requests: Histogram::new(&SECONDS),
            reads: 0,
            local_reads: 0,
            late: 0,
            syncs,
            batch_entries: Histogram::new(&ENTRIES),
            batch_bytes: Histogram::new(&BYTES),
            leader: None,
            leader_changes: 0,
            // Only ever shown, so a clock that is wrong harms nothing.
            started_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    pub fn answered(&mut self, took: Duration) {
        self.requests.observe(Decimal::seconds(took));
    }

    /// What one sync wrote to the log.
    pub fn wrote_batch(&mut self, entries: usize, bytes: usize) {
        if entries > 0 {
            self.batch_entries.observe(Decimal::whole(entries as u64));
            self.batch_bytes.observe(Decimal::whole(bytes as u64));
        }
    }

    pub fn look_at_leader(&mut self, term: Term, leader: Option<NodeId>) {
        let Some(leader) = leader else { return };
        if self.leader != Some((term, leader)) {
            self.leader = Some((term, leader));
            self.leader_changes += 1;
        }
    }
}

pub fn exposed<D: Disk>(server: &Server<D>, now: Instant) -> Vec<u8> {
    let mut out = Exposition::default();
    put_process(server, now, &mut out);
    put_raft(server, now, &mut out);
    put_peers(server, &mut out);
    put_requests(server, &mut out);
    put_connections(server, &mut out);
    put_storage(server, &mut out);
    put_turns(server, &mut out);
    out.into_bytes()
}

fn put_process<D: Disk>(server: &Server<D>, now: Instant, out: &mut Exposition) {
    let Server { config, counts, started, .. } = server;
    let version = ("version", env!("CARGO_PKG_VERSION"));
    out.info("raftkv_build_info", "Of which build the process is.", &[version]);
    let labels = [("name", config.name.as_str()), ("cluster", config.cluster.as_str())];
    out.info("raftkv_node_info", "Which node this is.", &labels);
    let help = "Start of the process since the Unix epoch.";
    out.gauge("process_start_time_seconds", help, Decimal::seconds(counts.started_at));
    let uptime = Decimal::seconds(now - *started);
    out.gauge("raftkv_uptime_seconds", "Time since the log was read back.", uptime);
    let help = "Lines of the log that standard error did not take.";
    out.counter("raftkv_log_lines_dropped_total", help, lines::stderr().dropped());
    if let Some(bytes) = memory::resident_bytes() {
        out.gauge("process_resident_memory_bytes", "Resident memory size.", bytes);
    }
}

fn put_raft<D: Disk>(server: &Server<D>, now: Instant, out: &mut Exposition) {
    let node = server.replica.node();
    let raft = node.raft();
    let role = server.role();
    let roles = ROLES.map(|name| (name, u8::from(name == role)));
    out.gauges("raftkv_role", "1 for the role that the node is in.", "role", roles);
    let ready = u8::from(server.unready(now).is_empty());
    out.gauge("raftkv_ready", "Whether /readyz says so.", ready);
    out.gauge("raftkv_term", "Current term.", raft.term());
    let has_leader = u8::from(raft.leader().is_some());
    out.gauge("raftkv_has_leader", "Whether a leader of the term is known.", has_leader);
    out.gauge("raftkv_commit_index", "Newest entry known to be committed.", raft.commit_index());
    out.gauge("raftkv_applied_index", "Newest entry applied.", node.machine().applied());
    out.gauge("raftkv_log_last_index", "Newest entry in the log.", raft.log().last().index);
    let elections = raft.elections();
    let help = "Elections that this node has begun.";
    out.counter("raftkv_elections_started_total", help, elections.begun);
    out.counter("raftkv_elections_won_total", "Elections that it has won.", elections.won);
    let help = "Leaders that this node has known, one for each term with one.";
    out.counter("raftkv_leader_changes_total", help, server.counts.leader_changes);
    let membership = raft.membership();
    let voters = membership.voter_count();
    let members = [("voter", voters), ("learner", membership.members.len() - voters)];
    out.gauges("raftkv_members", "Members of the cluster.", "counts_as", members);
    out.gauge("raftkv_damaged", "Whether the disk has lost data.", u8::from(raft.is_damaged()));
}

fn put_peers<D: Disk>(server: &Server<D>, out: &mut Exposition) {
    let raft = server.replica.node().raft();
    let connected = server.links.peers().map(|(name, is)| (name, u8::from(is)));
    out.gauges("raftkv_peer_connected", "Whether a peer is connected.", "peer", connected);
    let members = &raft.membership().members;
    let matches = raft.match_indexes();
    let matches = || {
        let named = |(id, index): &(NodeId, u64)| Some((members.get(id)?.name.as_str(), *index));
        matches.iter().filter_map(named)
    };
    let help = "At the leader: how far a peer's log is known to match.";
    out.gauges("raftkv_peer_match_index", help, "peer", matches());
    let last = raft.log().last().index;
    let lags = matches().map(|(name, index)| (name, last.saturating_sub(index)));
    let help = "At the leader: entries that a peer is not known to have.";
    out.gauges("raftkv_peer_lag_entries", help, "peer", lags);
}

fn put_requests<D: Disk>(server: &Server<D>, out: &mut Exposition) {
    let node = server.replica.node();
    let tally = node.tally();
    let help = "Requests of clients, binary and text.";
    out.counter("raftkv_requests_total", help, server.requests);
    let help =
        "Requests refused because they had waited while more was asked than the node can take.";
    out.counter("raftkv_late_requests_total", help, server.counts.late);
    out.counter("raftkv_http_requests_total", "Requests over HTTP.", server.counts.http_requests);
    let pending = node.requests_pending();
    out.gauge("raftkv_requests_pending", "Requests that have no answer yet.", pending);
    let help = "Writes that this node, leading, has put into the log.";
    out.counter("raftkv_proposals_total", help, tally.proposals);
    let help = "Reads that this node, leading, has begun to confirm.";
    out.counter("raftkv_reads_total", help, tally.reads);
    let help = "Requests that this node has passed on to a leader.";
    out.counter("raftkv_forwarded_total", help, tally.forwards);
}

fn put_connections<D: Disk>(server: &Server<D>, out: &mut Exposition) {
    let mut of = [("peer", 0), ("client", 0), ("text", 0), ("http", 0), ("unknown", 0)];
    let talks = server.talks.values();
    talks.for_each(|talk| {
        let at = match talk {
            Talk::Peer { .. } => 0,
            Talk::Client(_) => 1,
            Talk::Text(_) => 2,
            Talk::Http => 3,
            Talk::Undecided | Talk::AwaitingHello | Talk::AwaitingWelcome { .. } => 4,
        };
        of[at].1 += 1;
    });
    // The conversation that asks is not among them while it is being answered.
    of[3].1 += 1;
    // Those that have not said anything yet are no conversations.
    let silent = server.links.net.connections().saturating_sub(server.talks.len() + 1);
    of[4].1 += silent;
    out.gauges("raftkv_connections", "Open connections.", "protocol", of);
    let net = &server.links.net;
    let help = "Answers that clients have not read.";
    out.gauge("raftkv_unread_bytes", help, server.unread_bytes());
    let help = "Clients that were closed because all together had too many answers unread.";
    out.counter("raftkv_unread_clients_closed_total", help, server.unread.closed);
    let help = "Requests of clients that are not whole, or wait to be served.";
    out.gauge("raftkv_unserved_bytes", help, net.clients_unserved());
    let help =
        "Clients that were closed because their long requests did not end while others waited.";
    out.counter("raftkv_unserved_clients_closed_total", help, net.unserved_closed());
    let help = "What connections have this node hold, by kind.";
    out.gauges("raftkv_buffers_bytes", help, "of", server.buffers().parts());
    let help = "The limit of what all connections together have this node hold.";
    out.gauge("raftkv_buffers_max_bytes", help, server.config.buffers_bytes_max);
    let help = "The most memory that this node needs beside its data.";
    out.gauge("raftkv_memory_needed_max_bytes", help, memory::needed_max(&server.config));
    let help = "Connections that were closed because all together had this node hold too much.";
    out.counter("raftkv_buffers_connections_closed_total", help, server.memory.closed);
    let help = "Requests that were refused because something would have been kept for them.";
    out.counter("raftkv_buffers_requests_refused_total", help, server.memory.refused);
    let help = "Bytes read from all connections.";
    out.counter("raftkv_network_received_bytes_total", help, net.received_bytes());
    let help = "Bytes written to all connections.";
    out.counter("raftkv_network_sent_bytes_total", help, net.sent_bytes());
}

fn put_storage<D: Disk>(server: &Server<D>, out: &mut Exposition) {
    let wal = server.replica.wal();
    let machine = server.replica.node().machine();
    let snapshots = wal.snapshots();
    out.gauge("raftkv_log_bytes", "Size of the log on disk.", wal.bytes_on_disk());
    out.gauge("raftkv_log_segments", "Files of the log.", wal.segments());
    out.gauge("raftkv_snapshots", "Snapshots on disk.", snapshots.len());
    let newest = snapshots.last();
    let index = newest.map_or(0, |file| file.position.index);
    out.gauge("raftkv_snapshot_index", "Newest entry in the newest snapshot.", index);
    let bytes = newest.map_or(0, |file| file.payload_bytes);
    out.gauge("raftkv_snapshot_bytes", "Size of the newest snapshot.", bytes);
    let space = server.replica.space();
    let spaces = ["ok", "low", "none"].map(|name| (name, u8::from(name == space)));
    let help = "Room on the disk: low refuses what grows, none holds up every write.";
    out.gauges("raftkv_disk_space", help, "space", spaces);
    let refused = server.replica.node().no_growth();
    let reasons = NoGrowth::ALL.map(|reason| (reason.name(), u8::from(refused == Some(reason))));
    let help = "Whether a leader refuses what makes the state larger, and for what reason.";
    out.gauges("raftkv_growth_refused", help, "reason", reasons);
    let help = "Memory of keys and values with what belongs to them.";
    out.gauge("raftkv_store_bytes", help, machine.store().stored_bytes());
    let help = "--store-bytes-max; 0: none.";
    out.gauge("raftkv_store_bytes_max", help, server.config.store_bytes_max.unwrap_or(0));
    let help = "Keys in the store that go by themselves.";
    out.gauge("raftkv_expiring_keys", help, machine.store().expiring());
    let help = "Keys that were removed because their time had come.";
    out.counter("raftkv_expired_keys_total", help, server.replica.node().tally().expired);
    out.gauge("raftkv_keys", "Keys in the store.", machine.store().len());
    let bytes = machine.store().bytes();
    out.gauge("raftkv_keyspace_bytes", "Size of keys and values in the store.", bytes);
    out.gauge("raftkv_sessions", "Sessions of clients.", machine.sessions().len());
}

fn put_turns<D: Disk>(server: &Server<D>, out: &mut Exposition) {
    let counts = &server.counts;
    let help = "Time from a client's request to its answer.";
    out.histogram("raftkv_request_seconds", help, counts.requests.buckets());
    let help = "Time that one sync to the disk took, with the writes that it is for.";
    out.histogram("raftkv_fsync_seconds", help, counts.syncs.borrow().all.buckets());
    let help = "Time that one turn of the loop took, between two waits.";
    out.histogram("raftkv_loop_turn_seconds", help, server.turns.all.buckets());
    let help = "The same without its syncs to the disk.";
    out.histogram("raftkv_loop_turn_unsynced_seconds", help, server.turns.unsynced.buckets());
    let help = "Entries that one sync of the log made durable.";
    out.histogram("raftkv_batch_entries", help, counts.batch_entries.buckets());
    let help = "Size of the entries that one sync of the log made durable.";
    out.histogram("raftkv_batch_bytes", help, counts.batch_bytes.buckets());
}
