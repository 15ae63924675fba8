//! What real processes do when they are sent a signal.

#[allow(dead_code)] // Other tests use the rest.
mod processes;

use processes::{Cluster, await_condition};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

const QUICK: [&str; 4] = ["--heartbeat", "20ms", "--election", "150ms"];

fn await_log(cluster: &Cluster, node: usize, what: &str) {
    await_condition(what, || cluster.log(node).contains(what));
}

#[test]
fn each_signal_that_asks_a_node_to_stop_stops_it_gracefully() {
    let stopping = [
        (Signal::TERM, "SIGTERM"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::POWER, "SIGPWR"),
    ];
    let mut cluster = Cluster::start(1, &QUICK);
    for (signal, name) in stopping {
        cluster.await_leader();
        cluster.signal(0, signal);
        assert_eq!(cluster.await_exit(0).code(), Some(0), "{name}");
        assert!(cluster.log(0).contains(&format!("raft-0 stops: {name}")), "{}", cluster.log(0));
        cluster.start_node(0);
    }
}

#[test]
fn a_leader_hands_over_when_the_terminals_quit_key_stops_it() {
    let mut cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    cluster.signal(leader, Signal::QUIT);
    assert_eq!(cluster.await_exit(leader).code(), Some(0));
    let log = cluster.log(leader);
    assert!(log.contains(&format!("raft-{leader} hands over and stops: SIGQUIT")), "{log}");
    assert_ne!(cluster.await_leader(), leader);
}

#[test]
fn a_hangup_asks_for_nothing_that_a_node_could_reload() {
    let mut cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let process = cluster.process_id(0);
    cluster.signal(0, Signal::HUP);
    await_log(&cluster, 0, "raft-0 has nothing to reload, and goes on: SIGHUP");
    assert_eq!(cluster.nc(0, "SET a 1\n"), "+OK\r\n");
    assert_eq!(cluster.info(0).expect("it answers")["process_id"], process.to_string());
    assert_eq!(cluster.terminate(0).code(), Some(0));
}

#[test]
fn a_node_that_is_asked_how_it_is_says_so_in_its_log_and_goes_on() {
    let mut cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    let node = (leader + 1) % 3;
    let is_ok = format!("raft-{node} is ok: raft-{leader} leads term ");
    await_condition(&is_ok, || {
        cluster.signal(node, Signal::USR1);
        cluster.log(node).contains(&is_ok)
    });
    await_log(&cluster, node, &format!("raft-{node} tells: Raft: raft_node={node} "));
    await_log(&cluster, node, &format!("raft-{node} tells: Keyspace: "));
    let other = (leader + 2) % 3;
    cluster.kill(other);
    await_condition("the lost one to be missed", || {
        cluster.signal(leader, Signal::USR2);
        let log = cluster.log(leader);
        log.contains(&format!("raft-{leader} is degraded: 2 of 3 nodes work."))
            && log.contains(&format!("raft-{leader} tells: raft-{other}: not connected for "))
    });
    assert_eq!(cluster.await_leader_among(&[leader, node]), leader);
    assert_eq!(cluster.nc(node, "SET a 1\n"), "+OK\r\n");
}

#[test]
fn asking_a_node_that_stops_how_it_is_does_not_end_it_at_once() {
    let mut cluster = Cluster::start(2, &["--heartbeat", "20ms", "--election", "1s"]);
    let leader = cluster.await_leader();
    cluster.pause(1 - leader);
    cluster.ask_to_stop(leader);
    await_log(&cluster, leader, "hands over and stops: SIGTERM");
    for signal in [Signal::USR1, Signal::HUP, Signal::XFSZ] {
        cluster.signal(leader, signal);
    }
    await_log(&cluster, leader, "(SIGUSR1)");
    assert!(!cluster.log(leader).contains("ends: "), "{}", cluster.log(leader));
    cluster.signal(leader, Signal::INT);
    assert_eq!(cluster.await_exit(leader).code(), Some(0));
    await_log(&cluster, leader, "ends: SIGINT");
    cluster.resume(1 - leader);
}

/// Both ends of a new terminal.
fn terminal() -> (OwnedFd, OwnedFd) {
    let master =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&master).expect("it is ours");
    unlockpt(&master).expect("it is ours");
    let path = ptsname(&master, Vec::new()).expect("it has a name");
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let other = open(path, flags, Mode::empty()).expect("its other end opens");
    (master, other)
}

/// The node in a session of its own, whose terminal this is; `words` come before its command line.
fn start_in_terminal(cluster: &mut Cluster, terminal: OwnedFd, words: &[&str], log: File) {
    let given = cluster.command(0);
    let mut command = Command::new("setsid");
    command.arg("--ctty").args(words).arg(given.get_program()).args(given.get_args());
    command.stdin(Stdio::from(terminal));
    cluster.start_with_output(0, command, log.into());
}

#[test]
fn a_node_that_loses_its_terminal_stops_gracefully_unless_it_was_told_to_ignore_that() {
    let mut cluster = Cluster::stopped(1, &QUICK);
    let log = || File::options().create(true).append(true).open(cluster.log_path(0)).unwrap();
    let (first, second) = (log(), log());
    let (ours, its) = terminal();
    start_in_terminal(&mut cluster, its, &[], first);
    cluster.await_leader();
    cluster.signal(0, Signal::HUP);
    await_log(&cluster, 0, "raft-0 has nothing to reload, and goes on: SIGHUP");
    drop(ours);
    assert_eq!(cluster.await_exit(0).code(), Some(0));
    await_log(&cluster, 0, "raft-0 has lost its terminal");
    await_log(&cluster, 0, "raft-0 stops: SIGHUP");

    let (ours, its) = terminal();
    start_in_terminal(&mut cluster, its, &["nohup"], second);
    cluster.await_leader();
    cluster.signal(0, Signal::HUP);
    drop(ours);
    cluster.signal(0, Signal::USR1);
    await_log(&cluster, 0, "(SIGUSR1)");
    assert_eq!(cluster.nc(0, "SET a 1\n"), "+OK\r\n");
    assert_eq!(cluster.log(0).matches("SIGHUP").count(), 3, "{}", cluster.log(0));
    assert_eq!(cluster.terminate(0).code(), Some(0));
}
