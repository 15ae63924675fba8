//! Starts and ends the servers: ours and those that Debian has, on loopback, data in one folder, durable
//! settings as they come.

use crate::process;
use crate::wire::{Etcd, Resp, Step, Wire, ZooKeeper};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a cluster may take to accept a write.
const START_PATIENCE: Duration = Duration::from_secs(60);
const ZOOKEEPER_CLASSES: &str = "/usr/share/java/zookeeper.jar";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Raftkv,
    Redis,
    Etcd,
    ZooKeeper,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Raftkv, Kind::Redis, Kind::Etcd, Kind::ZooKeeper];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Raftkv => "raftkv",
            Kind::Redis => "redis",
            Kind::Etcd => "etcd",
            Kind::ZooKeeper => "zookeeper",
        }
    }

    /// How many nodes it is compared with: Redis stands alone.
    pub fn nodes(self) -> usize {
        if self == Kind::Redis { 1 } else { 3 }
    }

    pub fn is_installed(self, raftkv: &Path) -> bool {
        match self {
            Kind::Raftkv => raftkv.exists(),
            Kind::Redis => Path::new("/usr/bin/redis-server").exists(),
            Kind::Etcd => Path::new("/usr/bin/etcd").exists(),
            Kind::ZooKeeper => Path::new(ZOOKEEPER_CLASSES).exists(),
        }
    }

    pub fn wire(self) -> Box<dyn Wire> {
        match self {
            Kind::Raftkv | Kind::Redis => Box::new(Resp),
            Kind::Etcd => Box::new(Etcd::default()),
            Kind::ZooKeeper => Box::new(ZooKeeper::default()),
        }
    }
}

struct Node {
    child: Option<Child>,
    client: SocketAddr,
    command: Vec<String>,
    log: PathBuf,
}

pub struct Cluster {
    pub kind: Kind,
    nodes: Vec<Node>,
    folder: PathBuf,
}

impl Cluster {
    /// Starts all nodes, with empty folders, and waits until one of them takes writes.
    pub fn start(kind: Kind, nodes: usize, raftkv: &Path, data: &Path) -> Result<Self, String> {
        let folder = data.join(format!("raftkv-bench-{}-{}", kind.name(), std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let ports = free_ports(nodes * 3);
        let nodes = (0..nodes)
            .map(|number| Node {
                child: None,
                client: SocketAddr::from(([127, 0, 0, 1], ports[number * 3])),
                command: command(kind, number, &ports, &folder, raftkv),
                log: folder.join(format!("{number}.log")),
            })
            .collect();
        let mut cluster = Cluster { kind, nodes, folder };
        (0..cluster.nodes.len()).try_for_each(|number| cluster.spawn(number))?;
        cluster.await_writable()?;
        Ok(cluster)
    }

    pub fn spawn(&mut self, number: usize) -> Result<(), String> {
        let node = &mut self.nodes[number];
        let output = |append| {
            File::options().create(true).append(append).open(&node.log).map_err(|e| e.to_string())
        };
        let child = Command::new(&node.command[0])
            .args(&node.command[1..])
            .stdin(Stdio::null())
            .stdout(output(true)?)
            .stderr(output(true)?)
            .spawn()
            .map_err(|error| format!("{}: {error}", node.command[0]))?;
        node.child = Some(child);
        Ok(())
    }

    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| node.child.as_ref()).map(Child::id).collect()
    }

    /// Lines of all logs with these words in them, node by node.
    pub fn logged(&self, words: &str) -> Vec<String> {
        let logs = self.nodes.iter().map(|node| fs::read_to_string(&node.log).unwrap_or_default());
        let with_words = |log: String| {
            log.lines().filter(|line| line.contains(words)).map(String::from).collect()
        };
        logs.flat_map::<Vec<String>, _>(with_words).collect()
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.client).collect()
    }

    pub fn signal(&self, number: usize, signal: Signal) {
        if let Some(child) = &self.nodes[number].child {
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }

    pub fn signal_all(&self, signal: Signal) {
        (0..self.nodes.len()).for_each(|number| self.signal(number, signal));
    }

    /// `kill -9`, and the end of the process.
    pub fn kill(&mut self, number: usize) {
        if let Some(mut child) = self.nodes[number].child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Memory of each node, in KiB.
    pub fn resident_kib(&self) -> Vec<u64> {
        self.pids().into_iter().map(process::resident_kib).collect()
    }

    pub fn await_writable(&self) -> Result<(), String> {
        let begun = Instant::now();
        while begun.elapsed() < START_PATIENCE {
            if let Some(leader) = self.leader()
                && self.try_put(leader, b"ready", Duration::from_secs(1)).is_ok()
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let logs = self.folder.display();
        Err(format!("{} takes no writes; its logs are in {logs}", self.kind.name()))
    }

    /// One write over a connection of its own.
    pub fn try_put(&self, number: usize, key: &[u8], patience: Duration) -> Result<(), String> {
        try_put(self.kind, self.nodes[number].client, key, patience)
    }

    /// The number of the node that leads, as the nodes say.
    pub fn leader(&self) -> Option<usize> {
        if self.kind == Kind::Redis {
            return Some(0);
        }
        (0..self.nodes.len()).find(|number| self.leads(*number))
    }

    fn leads(&self, number: usize) -> bool {
        let client = self.nodes[number].client;
        match self.kind {
            Kind::Redis => true,
            Kind::Raftkv => ask(client, b"INFO raft\r\nQUIT\r\n").contains("role:leader"),
            Kind::ZooKeeper => {
                let said = ask(client, b"srvr");
                said.contains("Mode: leader") || said.contains("Mode: standalone")
            }
            Kind::Etcd => metrics(client).contains("\netcd_server_is_leader 1"),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.signal_all(Signal::CONT);
        (0..self.nodes.len()).for_each(|number| self.kill(number));
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A write over a new connection, answered within the given time.
pub fn try_put(
    kind: Kind,
    target: SocketAddr,
    key: &[u8],
    patience: Duration,
) -> Result<(), String> {
    let until = Instant::now() + patience;
    let mut stream = TcpStream::connect_timeout(&target, patience).map_err(|e| e.to_string())?;
    let mut wire = kind.wire();
    let mut out = Vec::new();
    wire.greet(&mut out);
    let (mut inbox, mut asked) = (Vec::new(), false);
    let mut buffer = [0; 4096];
    loop {
        if wire.is_ready() && !asked {
            wire.create(key, b"value", &mut out);
            asked = true;
        }
        stream.write_all(&out).map_err(|error| error.to_string())?;
        out.clear();
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("no answer in time".to_string());
        }
        stream.set_read_timeout(Some(left)).map_err(|error| error.to_string())?;
        let count = stream.read(&mut buffer).map_err(|error| error.to_string())?;
        if count == 0 {
            return Err("closed".to_string());
        }
        inbox.extend_from_slice(&buffer[..count]);
        loop {
            match wire.step(&inbox, &mut out)? {
                Step::NeedMore => break,
                Step::Passed(consumed) => drop(inbox.drain(..consumed)),
                Step::Answer { result, .. } => return result,
            }
        }
    }
}

/// Whatever a server says to this until it closes the connection or stops talking.
pub fn ask(target: SocketAddr, words: &[u8]) -> String {
    let mut said = Vec::new();
    let patience = Duration::from_millis(500);
    if let Ok(mut stream) = TcpStream::connect_timeout(&target, patience) {
        let _ = stream.set_read_timeout(Some(patience));
        let _ = stream.write_all(words);
        let _ = stream.read_to_end(&mut said);
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// What a server's Prometheus endpoint says, with the head of the answer.
pub fn metrics(target: SocketAddr) -> String {
    ask(target, b"GET /metrics HTTP/1.0\r\n\r\n")
}

fn free_ports(count: usize) -> Vec<u16> {
    // All at once, so that no port comes twice.
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("bound").port()).collect()
}

/// The command line of a node; `ports` has three for each.
fn command(kind: Kind, number: usize, ports: &[u16], folder: &Path, raftkv: &Path) -> Vec<String> {
    let data = folder.join(number.to_string());
    fs::create_dir_all(&data).expect("a folder for data");
    let nodes = ports.len() / 3;
    let (client, peer) = (ports[number * 3], ports[number * 3 + 1]);
    let data_text = data.display().to_string();
    let words: Vec<String> = match kind {
        Kind::Raftkv => {
            let peers: Vec<String> =
                (0..nodes).map(|n| format!("raft-{n}=127.0.0.1:{}", ports[n * 3])).collect();
            let (listen, peers) = (format!("127.0.0.1:{client}"), peers.join(","));
            let name = format!("raft-{number}");
            vec![
                raftkv.display().to_string(),
                name,
                "--listen".into(),
                listen,
                "--peers".into(),
                peers,
                "--data-dir".into(),
                data_text,
                // As many clients as the sweep has, and those that look at the nodes.
                "--connections-max".into(),
                "10100".into(),
            ]
        }
        Kind::Redis => {
            let port = client.to_string();
            let words = [
                "/usr/bin/redis-server",
                "--port",
                &port,
                "--bind",
                "127.0.0.1",
                "--dir",
                &data_text,
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--save",
                "",
            ];
            words.map(String::from).to_vec()
        }
        Kind::Etcd => {
            let url = |port: u16| format!("http://127.0.0.1:{port}");
            let initial: Vec<String> =
                (0..nodes).map(|n| format!("n{n}={}", url(ports[n * 3 + 1]))).collect();
            vec![
                "/usr/bin/etcd".into(),
                format!("--name=n{number}"),
                format!("--data-dir={data_text}"),
                format!("--listen-client-urls={}", url(client)),
                format!("--advertise-client-urls={}", url(client)),
                format!("--listen-peer-urls={}", url(peer)),
                format!("--initial-advertise-peer-urls={}", url(peer)),
                format!("--initial-cluster={}", initial.join(",")),
                "--log-level=error".into(),
            ]
        }
        Kind::ZooKeeper => {
            fs::write(data.join("myid"), format!("{}\n", number + 1)).expect("myid");
            let config = folder.join(format!("{number}.cfg"));
            fs::write(&config, zookeeper_config(client, &data, ports)).expect("configuration");
            vec![
                "java".into(),
                "-Dzookeeper.admin.enableServer=false".into(),
                "-Dzookeeper.log.threshold=WARN".into(),
                "-cp".into(),
                ZOOKEEPER_CLASSES.into(),
                "org.apache.zookeeper.server.quorum.QuorumPeerMain".into(),
                config.display().to_string(),
            ]
        }
    };
    words
}

/// Debian's sample values; all clients come from one address here.
fn zookeeper_config(client: u16, data: &Path, ports: &[u16]) -> String {
    let mut text = format!(
        "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPort={client}\n\
         clientPortAddress=127.0.0.1\nmaxClientCnxns=0\n4lw.commands.whitelist=srvr\n",
        data.display()
    );
    let servers = ports.len() / 3;
    for n in (0..servers).filter(|_| servers > 1) {
        let (peer, election) = (ports[n * 3 + 1], ports[n * 3 + 2]);
        text.push_str(&format!("server.{}=127.0.0.1:{peer}:{election}\n", n + 1));
    }
    text
}
