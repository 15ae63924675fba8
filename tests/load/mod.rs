//! Writers that write while something happens to a cluster, and the check of what they were told.

use crate::processes::{Cluster, await_condition};
use raftkv::client::Client;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// What one writer was told.
#[derive(Default)]
pub struct Told {
    increments: u64,
    puts: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Increments one shared counter and writes keys of its own until told to stop. With a session nothing
/// may be doubled, so the counter must end at the number of answered increments.
fn write_until(stop: &AtomicBool, writer: usize, mut client: Client) -> Told {
    let mut told = Told::default();
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        client.increment(b"counter", 1).expect("a session makes the retry safe");
        told.increments += 1;
        let (key, value) = (format!("k{writer}-{round}"), format!("v{writer}-{round}"));
        client.put(key.as_bytes(), value.as_bytes()).expect("a session makes the retry safe");
        told.puts.insert(key.into_bytes(), value.into_bytes());
        round += 1;
    }
    told
}

pub fn with_writers(cluster: &mut Cluster, mut trouble: impl FnMut(&mut Cluster)) -> Vec<Told> {
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (stop, client) = (stop.clone(), cluster.client());
            thread::spawn(move || write_until(&stop, writer, client))
        })
        .collect();
    trouble(cluster);
    stop.store(true, Ordering::Relaxed);
    writers.into_iter().map(|writer| writer.join().expect("no write failed")).collect()
}

/// Waits until the cluster has committed more, so that the trouble before was survived under load.
pub fn await_progress(cluster: &Cluster, leader: usize) {
    let commit = |cluster: &Cluster| -> u64 {
        let info = cluster.info(leader);
        info.map_or(0, |info| info["raft_commit_index"].parse().expect("a number"))
    };
    let before = commit(cluster);
    await_condition("a hundred more entries", || commit(cluster) > before + 100);
}

pub fn check_told(cluster: &Cluster, told: &[Told]) {
    let mut client = cluster.client();
    let increments: u64 = told.iter().map(|told| told.increments).sum();
    let counter = client.get(b"counter").expect("it is read").value.expect("it is there");
    assert_eq!(counter, increments.to_string().into_bytes(), "nothing lost, nothing doubled");
    for (key, value) in told.iter().flat_map(|told| &told.puts) {
        let read = client.get(key).expect("it is read").value;
        assert_eq!(read.as_ref(), Some(value), "{} was answered", String::from_utf8_lossy(key));
    }
}
