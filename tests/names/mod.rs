//! What several tests need: a small name server, and files that tell a resolver about it.
#![allow(dead_code, reason = "each test binary uses its own part")]

use raftkv::net::ResolverConfig;
use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{CLASS, Packet, QTYPE, RCODE, ResourceRecord, TYPE};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

type Names = Arc<Mutex<BTreeMap<String, Vec<IpAddr>>>>;

/// Answers A and AAAA questions on a port of its own until the end of the process.
pub struct NameServer {
    address: SocketAddr,
    names: Names,
}

impl NameServer {
    pub fn start(names: &[(&str, &[&str])]) -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = NameServer { address: socket.local_addr().unwrap(), names: Names::default() };
        for (name, addresses) in names {
            server.set(name, addresses);
        }
        let names = Arc::clone(&server.names);
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let answer = answer(&buffer[..len], &names.lock().unwrap());
                socket.send_to(&answer, from).unwrap();
            }
        });
        server
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on `name` has these addresses.
    pub fn set(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        self.names.lock().unwrap().insert(name.to_string(), addresses);
    }
}

fn answer(query: &[u8], names: &BTreeMap<String, Vec<IpAddr>>) -> Vec<u8> {
    let query = Packet::parse(query).unwrap();
    let question = query.questions[0].clone();
    let mut packet = query.into_reply();
    match names.get(&question.qname.to_string()) {
        None => *packet.rcode_mut() = RCODE::NameError,
        Some(addresses) => {
            let data = addresses.iter().filter_map(|address| match (address, question.qtype) {
                (IpAddr::V4(ip), QTYPE::TYPE(TYPE::A)) => Some(RData::A(A::from(*ip))),
                (IpAddr::V6(ip), QTYPE::TYPE(TYPE::AAAA)) => Some(RData::AAAA(AAAA::from(*ip))),
                _ => None,
            });
            let name = &question.qname;
            packet.answers =
                data.map(|data| ResourceRecord::new(name.clone(), CLASS::IN, 5, data)).collect();
        }
    }
    packet.build_bytes_vec().unwrap()
}

/// A `resolv.conf` and a `hosts` file of one test.
pub struct ResolverFiles {
    folder: PathBuf,
}

impl ResolverFiles {
    pub fn new(resolv_conf: &str, hosts: &str) -> ResolverFiles {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("raftkv-names-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("resolv.conf"), resolv_conf).unwrap();
        std::fs::write(folder.join("hosts"), hosts).unwrap();
        ResolverFiles { folder }
    }

    pub fn config(&self) -> ResolverConfig {
        ResolverConfig {
            resolv_conf: self.folder.join("resolv.conf"),
            hosts: self.folder.join("hosts"),
        }
    }
}

impl Drop for ResolverFiles {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
