//! What this node knows of itself and of the others, for the page.

use super::json::Json;
use super::samples::{SAMPLES_MAX, Sample};
use crate::raft::{Entry, Payload};
use crate::server::unix_ms;
use crate::server::{Server, memory};
use crate::wal::Disk;
use std::time::Instant;

/// Entries of the log's end that are listed.
const TAIL_MAX: u64 = 32;
/// Samples that come with each status; who has missed more asks for all.
const LATEST_SAMPLES: usize = 10;

/// The present state.
pub fn status<D: Disk>(server: &Server<D>, now: Instant) -> String {
    Json::document(|json| {
        put_node(server, now, json);
        put_health(server, now, json);
        put_members(server, now, json);
        put_log(server, json);
        put_store(server, json);
        put_samples(server, LATEST_SAMPLES, json);
        put_events(server, json);
    })
}

/// The last minutes, a sample a second.
pub fn history<D: Disk>(server: &Server<D>) -> String {
    Json::document(|json| put_samples(server, SAMPLES_MAX, json))
}

fn put_node<D: Disk>(server: &Server<D>, now: Instant, json: &mut Json) {
    let raft = server.replica.node().raft();
    json.plain_of("now_ms", unix_ms());
    json.text_of("name", &server.config.name);
    json.text_of("cluster", &server.config.cluster);
    json.text_of("version", env!("CARGO_PKG_VERSION"));
    json.plain_of("uptime_seconds", (now - server.started).as_secs());
    json.text_of("role", server.role());
    json.plain_of("term", raft.term());
    let leader = raft.leader().and_then(|id| raft.membership().members.get(&id));
    match leader {
        Some(leader) => json.object_of("leader", |json| {
            json.text_of("name", &leader.name);
            json.text_of("address", &leader.address);
        }),
        None => json.maybe_of("leader", None::<u64>),
    }
    json.plain_of("election_ms", server.config.election.as_millis());
    json.maybe_of("memory_bytes", memory::resident_bytes());
}

fn put_health<D: Disk>(server: &Server<D>, now: Instant, json: &mut Json) {
    let why = server.why(now);
    json.object_of("health", |json| {
        json.text_of("level", why.level.name());
        json.text_of("headline", &why.headline);
        json.array_of("details", |json| why.details.iter().for_each(|one| json.string(one)));
    });
}

fn put_members<D: Disk>(server: &Server<D>, now: Instant, json: &mut Json) {
    json.array_of("nodes", |json| {
        for node in server.members(now) {
            json.object(|json| {
                json.text_of("name", &node.name);
                json.plain_of("number", node.number);
                json.text_of("address", &node.address);
                json.text_of("counts_as", node.counts_as);
                json.text_of("role", node.role);
                json.plain_of("is_self", node.is_self);
                json.plain_of("is_connected", node.is_connected);
                json.plain_of("is_answering", node.is_answering);
                json.text_of("state", &node.state);
                json.maybe_of("match_index", node.match_index);
                json.maybe_of("lag", node.lag);
            });
        }
    });
}

fn put_log<D: Disk>(server: &Server<D>, json: &mut Json) {
    let wal = server.replica.wal();
    let node = server.replica.node();
    let (raft, log) = (node.raft(), node.raft().log());
    let newest = wal.snapshots().last();
    json.object_of("log", |json| {
        json.plain_of("first", log.before().index + 1);
        json.plain_of("last", log.last().index);
        json.plain_of("durable", log.durable_index());
        json.plain_of("commit", raft.commit_index());
        json.plain_of("applied", node.machine().applied());
        json.plain_of("bytes", wal.bytes_on_disk());
        json.plain_of("snapshots", wal.snapshots().len());
        json.plain_of("snapshot_index", newest.map_or(0, |file| file.position.index));
        json.plain_of("snapshot_bytes", newest.map_or(0, |file| file.payload_bytes));
        json.text_of("space", server.replica.space());
        // Index, term, kind, size. Keys and values are nobody's business here.
        json.array_of("tail", |json| {
            let from = log.last().index.saturating_sub(TAIL_MAX - 1).max(log.evicted().index + 1);
            log.iter_from(from).for_each(|entry| put_entry(entry, json));
        });
    });
}

fn put_entry(entry: &Entry, json: &mut Json) {
    json.array(|json| {
        json.plain(entry.index);
        json.plain(entry.term);
        json.string(match entry.payload {
            Payload::Noop => "no-op",
            Payload::Command(_) => "write",
            Payload::Members(_) => "members",
        });
        json.plain(entry.payload.len());
    });
}

fn put_store<D: Disk>(server: &Server<D>, json: &mut Json) {
    let machine = server.replica.node().machine();
    json.object_of("store", |json| {
        json.plain_of("keys", machine.store().len());
        json.plain_of("bytes", machine.store().bytes());
    });
    let peers = server.links.peers_connected();
    json.plain_of("clients", server.links.net.connections().saturating_sub(peers));
    json.plain_of("requests_pending", server.replica.node().requests_pending());
}

fn put_samples<D: Disk>(server: &Server<D>, count: usize, json: &mut Json) {
    json.array_of("sample_fields", |json| {
        Sample::FIELDS.iter().for_each(|field| json.string(field));
    });
    json.array_of("samples", |json| {
        for sample in server.samples.newest(count) {
            json.array(|json| sample.values().iter().for_each(|value| json.plain(value)));
        }
    });
}

fn put_events<D: Disk>(server: &Server<D>, json: &mut Json) {
    json.array_of("events", |json| {
        for event in server.watch.events.newest() {
            json.object(|json| {
                json.plain_of("number", event.number);
                json.plain_of("at_ms", event.at_ms);
                json.text_of("kind", event.kind.name());
                json.text_of("text", &event.text);
            });
        }
    });
}
