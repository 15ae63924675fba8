//! What happened to a server, told from how it looked before and after.

use super::cluster::{Cluster, Server};
use super::text;
use raftkv::raft::{Entry, HardState, Index, NodeId};

/// How a server looks from outside.
pub struct Look {
    role: &'static str,
    leader: Option<NodeId>,
    hard_state: HardState,
    log: Vec<Entry>,
    commit_index: Index,
}

impl Look {
    /// `None` for a crashed server.
    pub fn at(server: &Server) -> Option<Look> {
        let raft = server.core()?;
        Some(Look {
            role: raft.role_name(),
            leader: raft.leader(),
            hard_state: raft.hard_state(),
            log: raft.log().iter_from(1).cloned().collect(),
            commit_index: raft.commit_index(),
        })
    }
}

/// Does something to one server and says what came of it, one line each. The reads that were
/// confirmed or aborted are taken from the server.
pub fn watch(cluster: &mut Cluster, id: NodeId, act: impl FnOnce(&mut Cluster)) -> Vec<String> {
    let before = Look::at(cluster.server(id)).expect("the server is up");
    act(cluster);
    let after = Look::at(cluster.server(id)).expect("the server is up");
    let mut events = Vec::new();
    role_events(&before, &after, &mut events);
    log_events(&before, &after, &mut events);
    let server = cluster.server_mut(id);
    for read in std::mem::take(&mut server.confirmed_reads) {
        events.push(format!("read {} may be answered from index {}", read.id, read.index));
    }
    for read in std::mem::take(&mut server.aborted_reads) {
        events.push(format!("read {read} is given up"));
    }
    let who = format!("{id}@{} {}", after.hard_state.term, after.role);
    events.into_iter().map(|event| format!("{who}: {event}")).collect()
}

fn role_events(before: &Look, after: &Look, events: &mut Vec<String>) {
    if before.hard_state.term != after.hard_state.term {
        events.push(format!("new term, was {} in term {}", before.role, before.hard_state.term));
    } else if before.role != after.role {
        events.push(format!("was {}", before.role));
    }
    match after.hard_state.voted_for {
        Some(candidate) if before.hard_state != after.hard_state => {
            events.push(format!("vote for {candidate}"));
        }
        _ => {}
    }
    match after.leader {
        Some(leader) if before.leader != after.leader && after.role == "follower" => {
            events.push(format!("follows {leader}"));
        }
        None if before.leader.is_some()
            && before.role == "follower"
            && after.role == "follower" =>
        {
            events.push("knows no leader".into());
        }
        _ => {}
    }
}

fn log_events(before: &Look, after: &Look, events: &mut Vec<String>) {
    let same = before.log.iter().zip(&after.log).take_while(|(old, new)| old == new).count();
    if same < before.log.len() {
        events.push(format!("remove {}", text::entries(&before.log[same..])));
    }
    if same < after.log.len() {
        events.push(format!("append {}", text::entries(&after.log[same..])));
    }
    if before.commit_index != after.commit_index {
        let committed = &after.log[before.commit_index as usize..after.commit_index as usize];
        events.push(format!("commit {}", text::entries(committed)));
    }
}
