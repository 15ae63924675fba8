//! The look-up of names over real sockets, against a small name server.

mod names;

use names::{Mood, NameServer, ResolverFiles};
use raftkv::net::{ResolverConfig, resolve_blocking};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

#[test]
fn blocking_look_up_of_addresses_and_hosts_asks_nobody() {
    let files = ResolverFiles::new("nameserver 127.0.0.1:1\n", "10.9.9.9 raft-7\n");
    let config = files.config();
    let found = resolve_blocking("raft-7", 6000, &config, soon()).unwrap();
    assert_eq!(found, ["10.9.9.9:6000".parse().unwrap()]);
    let found = resolve_blocking("::1", 6000, &config, soon()).unwrap();
    assert_eq!(found, ["[::1]:6000".parse().unwrap()]);
}

#[test]
fn blocking_look_up_asks_the_server_of_the_file() {
    let names = NameServer::start(&[("raft-0.raft-service.test", &["127.0.0.1", "::1"])]);
    let conf = format!("search test\noptions ndots:5\nnameserver {}\n", names.address());
    let files = ResolverFiles::new(&conf, "");
    let found = resolve_blocking("raft-0.raft-service", 6000, &files.config(), soon()).unwrap();
    let wanted = ["127.0.0.1:6000", "[::1]:6000"].map(|text| text.parse().unwrap());
    assert_eq!(found, wanted);
    let error = resolve_blocking("raft-9", 6000, &files.config(), soon()).unwrap_err();
    assert_eq!(error, "raft-9.test: no such name; raft-9: no such name");
}

#[test]
fn blocking_look_up_says_what_a_server_in_trouble_said() {
    let names = NameServer::start(&[("db.test", &["127.0.0.1"])]);
    let conf = format!("nameserver {}\noptions attempts:1\n", names.address());
    let files = ResolverFiles::new(&conf, "");
    let ask = || resolve_blocking("db.test.", 1, &files.config(), soon());
    names.behave(Mood::Fails);
    let failed = format!("db.test: {} answered SERVFAIL", names.address());
    assert_eq!(ask(), Err(failed));
    names.behave(Mood::Truncates);
    assert_eq!(ask(), Err("db.test: the answer is too long for one packet".to_string()));
    names.behave(Mood::Answers);
    assert_eq!(ask(), Ok(vec!["127.0.0.1:1".parse().unwrap()]));
}

#[test]
fn a_name_server_is_asked_over_ipv6_as_well() {
    let Ok(socket) = UdpSocket::bind("[::1]:0") else {
        return eprintln!("SKIPPED: this machine has no IPv6");
    };
    let names = NameServer::start_on(socket, &[("db.test", &["::1"])]);
    let files = ResolverFiles::new(&format!("nameserver {}\n", names.address()), "");
    let found = resolve_blocking("db.test", 6000, &files.config(), soon()).unwrap();
    assert_eq!(found, ["[::1]:6000".parse().unwrap()]);
}

#[test]
fn blocking_look_up_goes_round_a_dead_server_without_waiting() {
    // Bound and dropped: the kernel refuses what is sent there.
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let names = NameServer::start(&[("db.test", &["127.0.0.1"])]);
    let conf = format!("options timeout:30\nnameserver {dead}\nnameserver {}\n", names.address());
    let files = ResolverFiles::new(&conf, "");
    let found = resolve_blocking("db.test", 1, &files.config(), soon()).unwrap();
    assert_eq!(found, ["127.0.0.1:1".parse().unwrap()]);
}

#[test]
fn blocking_look_up_keeps_its_deadline() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let conf = format!("nameserver {}\noptions timeout:30\n", silent.local_addr().unwrap());
    let files = ResolverFiles::new(&conf, "");
    let deadline = Instant::now() + Duration::from_millis(100);
    let error = resolve_blocking("db.test", 1, &files.config(), deadline).unwrap_err();
    assert!(Instant::now() >= deadline);
    assert!(error.contains("not resolved in time"), "{error}");
}

#[test]
fn missing_files_mean_the_defaults() {
    let config =
        ResolverConfig { resolv_conf: "/nonexistent/r".into(), hosts: "/nonexistent/h".into() };
    let found = resolve_blocking("localhost", 5, &config, soon()).unwrap();
    assert_eq!(found[0], "127.0.0.1:5".parse().unwrap());
}
