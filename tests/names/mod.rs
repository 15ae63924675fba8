//! What several tests need: a small name server, and files that tell a resolver about it.
#![allow(dead_code, reason = "each test binary uses its own part")]

use raftkv::net::ResolverConfig;
use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{CLASS, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// How a name server treats questions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Answers,
    /// As a server that is down behind a network that is not.
    Silent,
    /// SERVFAIL, as a cache that cannot reach the servers behind it.
    Fails,
    /// Says that the answer was too long for a packet, and sends nothing of it.
    Truncates,
}

/// What the thread of the server looks at for each question.
#[derive(Default)]
struct State {
    names: BTreeMap<String, Vec<IpAddr>>,
    mood: Mood,
    asked: u64,
}

/// Answers A and AAAA questions on a port of its own until the end of the process.
pub struct NameServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl NameServer {
    pub fn start(names: &[(&str, &[&str])]) -> NameServer {
        NameServer::start_on(UdpSocket::bind("127.0.0.1:0").unwrap(), names)
    }

    pub fn start_on(socket: UdpSocket, names: &[(&str, &[&str])]) -> NameServer {
        let server = NameServer { address: socket.local_addr().unwrap(), state: Arc::default() };
        for (name, addresses) in names {
            server.set(name, addresses);
        }
        let state = Arc::clone(&server.state);
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let mut state = state.lock().unwrap();
                state.asked += 1;
                if state.mood != Mood::Silent {
                    // The one that asked may be gone.
                    let _ = socket.send_to(&answer(&buffer[..len], &state), from);
                }
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
        self.state.lock().unwrap().names.insert(name.to_string(), addresses);
    }

    /// From now on it treats every question like this.
    pub fn behave(&self, mood: Mood) {
        self.state.lock().unwrap().mood = mood;
    }

    /// How many questions it has got.
    pub fn asked(&self) -> u64 {
        self.state.lock().unwrap().asked
    }
}

fn answer(query: &[u8], state: &State) -> Vec<u8> {
    let query = Packet::parse(query).unwrap();
    let question = query.questions[0].clone();
    let mut packet = query.into_reply();
    match (state.mood, state.names.get(&question.qname.to_string())) {
        (Mood::Fails, _) => *packet.rcode_mut() = RCODE::ServerFailure,
        (Mood::Truncates, _) => packet.set_flags(PacketFlag::TRUNCATION),
        (_, None) => *packet.rcode_mut() = RCODE::NameError,
        (_, Some(addresses)) => {
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
