//! How long no write is acknowledged when the leader is gone: killed, or paused so that its connections stay open
//! and silent, as those of a machine that has vanished.

use crate::Options;
use crate::report;
use crate::servers::{Cluster, Kind, try_put};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Between two attempts, over the survivors in turn: 200 writes a second over three nodes.
const BETWEEN: Duration = Duration::from_millis(5);
/// How long one attempt waits; the next ones do not wait for it.
const ATTEMPT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two trials, so that the cluster is whole and settled again.
const SETTLING: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy)]
enum Loss {
    Killed,
    Paused,
}

pub fn compare(options: &Options) -> Result<(), String> {
    for kind in options.servers.iter().filter(|kind| kind.nodes() > 1) {
        let mut cluster = Cluster::start(*kind, kind.nodes(), &options.raftkv, &options.data)?;
        for loss in [Loss::Killed, Loss::Paused] {
            // ZooKeeper notices a leader that says nothing after 10 s or more, by default.
            if matches!((kind, loss), (Kind::ZooKeeper, Loss::Paused)) {
                continue;
            }
            let mut times = Vec::new();
            for _ in 0..options.trials {
                times.push(trial(&mut cluster, loss)?);
            }
            println!("{}", report::times(&format!("{}: leader {loss:?}", kind.name()), &times));
        }
    }
    Ok(())
}

fn trial(cluster: &mut Cluster, loss: Loss) -> Result<Duration, String> {
    cluster.await_writable()?;
    thread::sleep(SETTLING);
    let leader = cluster.leader().ok_or("nobody leads")?;
    let addresses = cluster.addresses();
    let survivors: Vec<SocketAddr> =
        (0..addresses.len()).filter(|n| *n != leader).map(|n| addresses[n]).collect();
    match loss {
        Loss::Killed => cluster.kill(leader),
        Loss::Paused => cluster.signal(leader, Signal::STOP),
    }
    let took = first_write(cluster.kind, &survivors);
    match loss {
        Loss::Killed => cluster.spawn(leader)?,
        Loss::Paused => cluster.signal(leader, Signal::CONT),
    }
    took
}

/// From here to the first acknowledgement of a write that is sent from here on.
fn first_write(kind: Kind, survivors: &[SocketAddr]) -> Result<Duration, String> {
    let begun = Instant::now();
    let (sender, receiver) = mpsc::channel();
    for target in survivors.iter().copied().cycle() {
        let sender = sender.clone();
        thread::spawn(move || {
            if try_put(kind, target, b"failover", ATTEMPT).is_ok() {
                // The receiver is gone once the first one is there.
                let _ = sender.send(Instant::now());
            }
        });
        if let Ok(at) = receiver.recv_timeout(BETWEEN) {
            return Ok(at - begun);
        }
        if begun.elapsed() > PATIENCE {
            break;
        }
    }
    Err(format!("{}: nobody took a write for {} s", kind.name(), PATIENCE.as_secs()))
}
