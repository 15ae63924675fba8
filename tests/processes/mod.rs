//! Real `srvraft` processes on loopback, for tests that kill, pause and restart them.
//!
//! Every wait is for a condition and has a deadline; whatever was started is killed, by process id, when
//! the cluster is dropped, also after a failed assertion.

pub mod redis;

use raftkv::client::{Client, ClientConfig};
use raftkv::net::ResolverConfig;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// No condition waited for here takes longer on a machine that works at all.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Cluster {
    dir: PathBuf,
    ports: Vec<u16>,
    /// Where each is reached from here: 127.0.0.1, unless a test has it elsewhere.
    hosts: Vec<String>,
    /// How nodes and clients look names up, if they know the nodes by name.
    names: Option<ResolverConfig>,
    /// How many of them a new cluster begins with; the others join.
    initial: usize,
    nodes: Vec<Option<Child>>,
    flags: Vec<String>,
}

pub type Info = BTreeMap<String, String>;

impl Cluster {
    /// `size` nodes, all started; `flags` are given to each.
    pub fn start(size: usize, flags: &[&str]) -> Self {
        let mut cluster = Cluster::stopped(size, flags);
        for node in 0..size {
            cluster.start_node(node);
        }
        cluster
    }

    pub fn stopped(size: usize, flags: &[&str]) -> Self {
        Cluster::with_joiners(size, size, flags)
    }

    /// `size` nodes, of which the first `initial` are those that a new cluster begins with. None is started.
    pub fn with_joiners(size: usize, initial: usize, flags: &[&str]) -> Self {
        static CLUSTERS: AtomicU32 = AtomicU32::new(0);
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("raftkv-test-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).expect("a folder for the test");
        Cluster {
            dir,
            ports: free_ports(size),
            hosts: vec!["127.0.0.1".to_string(); size],
            names: None,
            initial,
            nodes: (0..size).map(|_| None).collect(),
            flags: flags.iter().map(|flag| flag.to_string()).collect(),
        }
    }

    pub fn size(&self) -> usize {
        self.ports.len()
    }

    pub fn address(&self, node: usize) -> String {
        format!("{}:{}", self.hosts[node], self.ports[node])
    }

    pub fn port(&self, node: usize) -> String {
        self.ports[node].to_string()
    }

    /// From now on all that is started knows the nodes as `raft-0.test` and so on, and looks that up.
    pub fn use_names(&mut self, resolver: ResolverConfig) {
        self.names = Some(resolver);
    }

    /// Where nodes and clients look for a node.
    fn known_as(&self, node: usize) -> String {
        match self.names {
            Some(_) => format!("raft-{node}.test:{}", self.ports[node]),
            None => self.address(node),
        }
    }

    /// The next process of this node has another address: one below 127.0.0.0/8, or `[::1]`.
    pub fn move_to(&mut self, node: usize, host: &str) {
        assert!(self.nodes[node].is_none(), "raft-{node} runs");
        self.hosts[node] = host.to_string();
    }

    pub fn data_dir(&self, node: usize) -> PathBuf {
        self.dir.join(format!("raft-{node}"))
    }

    /// Flips a bit in the oldest file of the log, at byte 20,000, of a node that does not run.
    pub fn damage_log(&self, node: usize) {
        let files = fs::read_dir(self.data_dir(node)).expect("the data folder");
        let paths = files.map(|file| file.expect("an entry").path());
        let mut logs: Vec<_> =
            paths.filter(|path| path.display().to_string().contains("wal-")).collect();
        logs.sort();
        let mut bytes = fs::read(&logs[0]).expect("the log");
        bytes[20_000] ^= 0x10;
        fs::write(&logs[0], bytes).expect("the file is the test's own");
    }

    /// The command line of a node, with its output in a file beside its data.
    pub fn command(&self, node: usize) -> Command {
        let peers: Vec<String> =
            (0..self.initial).map(|id| format!("raft-{id}={}", self.known_as(id))).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_srvraft"));
        command
            .arg(format!("raft-{node}"))
            .args(["--listen", &self.address(node), "--peers", &peers.join(",")])
            .args(["--advertise", &self.known_as(node)])
            .arg("--data-dir")
            .arg(self.data_dir(node))
            .args(&self.flags)
            .env_clear()
            .stdin(Stdio::null());
        if let Some(ResolverConfig { resolv_conf, hosts }) = &self.names {
            command.arg("--resolv-conf").arg(resolv_conf).arg("--hosts").arg(hosts);
        }
        command
    }

    pub fn start_node(&mut self, node: usize) {
        let command = self.command(node);
        self.start_command(node, command);
    }

    /// Starts a node in another way than [`Cluster::command`] has it.
    pub fn start_command(&mut self, node: usize, mut command: Command) {
        command.stdin(Stdio::null());
        let log = File::options().create(true).append(true).open(self.log_path(node));
        self.start_with_output(node, command, log.expect("a file for the log").into());
    }

    /// Starts a node whose log goes elsewhere, with the standard input that the command has.
    pub fn start_with_output(&mut self, node: usize, mut command: Command, output: OwnedFd) {
        assert!(self.nodes[node].is_none(), "raft-{node} runs already");
        let also = output.try_clone().expect("a second handle");
        let child = command.stdout(also).stderr(output).spawn().expect("srvraft starts");
        self.nodes[node] = Some(child);
    }

    pub fn log_path(&self, node: usize) -> PathBuf {
        self.dir.join(format!("raft-{node}.log"))
    }

    pub fn log(&self, node: usize) -> String {
        fs::read_to_string(self.log_path(node)).unwrap_or_default()
    }

    /// The most memory that a node ever had, in MiB.
    pub fn peak_mib(&self, node: usize) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process_id(node)));
        let status = status.expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a Linux process");
        let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
        kib.expect("a number") / 1024
    }

    pub fn process_id(&self, node: usize) -> u32 {
        self.nodes[node].as_ref().expect("the node runs").id()
    }

    pub fn signal(&self, node: usize, signal: Signal) {
        let child = self.nodes[node].as_ref().expect("the node runs");
        let pid = Pid::from_child(child);
        kill_process(pid, signal).expect("the process is ours");
    }

    pub fn pause(&self, node: usize) {
        self.signal(node, Signal::STOP);
    }

    pub fn resume(&self, node: usize) {
        self.signal(node, Signal::CONT);
    }

    /// `kill -9`.
    pub fn kill(&mut self, node: usize) {
        let mut child = self.nodes[node].take().expect("the node runs");
        child.kill().expect("the process is ours");
        child.wait().expect("the process ends");
    }

    /// SIGTERM, and no more.
    pub fn ask_to_stop(&self, node: usize) {
        self.signal(node, Signal::TERM);
    }

    /// SIGTERM, and how the process ended.
    pub fn terminate(&mut self, node: usize) -> ExitStatus {
        self.ask_to_stop(node);
        self.await_exit(node)
    }

    /// How the process ended that was asked to.
    pub fn await_exit(&mut self, node: usize) -> ExitStatus {
        let mut child = self.nodes[node].take().expect("the node runs");
        wait_for_exit(&mut child)
    }

    /// The data folder of a node that does not run is gone, as with a new disk. Returns where it is kept.
    pub fn wipe(&self, node: usize) -> PathBuf {
        assert!(self.nodes[node].is_none(), "raft-{node} runs");
        let kept = (0..).map(|n| self.dir.join(format!("raft-{node}.kept-{n}")));
        let kept = kept.into_iter().find(|path| !path.exists()).expect("there are many numbers");
        fs::rename(self.data_dir(node), &kept).expect("the folder is the test's own");
        kept
    }

    pub fn running(&self) -> Vec<usize> {
        (0..self.size()).filter(|node| self.nodes[*node].is_some()).collect()
    }

    pub fn connect(&self, node: usize) -> TcpStream {
        let stream = TcpStream::connect(self.address(node)).expect("the node accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout is set");
        stream
    }

    /// What `echo LINES | nc HOST PORT` prints.
    pub fn nc(&self, node: usize, lines: &str) -> String {
        try_nc(&self.address(node), lines).expect("the node answers and closes")
    }

    /// The fields of `INFO`, or `None` while the node does not answer.
    pub fn info(&self, node: usize) -> Option<Info> {
        let text = try_nc(&self.address(node), "INFO\n").ok()?;
        let pair = |line: &str| {
            line.split_once(':').map(|(name, value)| (name.to_string(), value.to_string()))
        };
        let info: Info = text.lines().filter_map(pair).collect();
        info.contains_key("raft_role").then_some(info)
    }

    /// Waits until all running nodes agree on a leader that says so itself, and returns it.
    pub fn await_leader(&self) -> usize {
        let running = self.running();
        self.await_leader_among(&running)
    }

    pub fn await_leader_among(&self, nodes: &[usize]) -> usize {
        let mut leader = None;
        await_condition(&format!("nodes {nodes:?} to agree on a leader"), || {
            let infos: Option<Vec<Info>> = nodes.iter().map(|node| self.info(*node)).collect();
            let Some(infos) = infos else { return false };
            let said: Vec<&str> = infos.iter().map(|info| info["raft_leader"].as_str()).collect();
            let Ok(named) = said[0].parse::<usize>() else { return false };
            let terms_agree = infos.iter().all(|info| info["raft_term"] == infos[0]["raft_term"]);
            let leads = nodes
                .iter()
                .position(|node| *node == named)
                .is_some_and(|at| infos[at]["raft_role"] == "leader");
            leader = Some(named);
            leads && terms_agree && said.iter().all(|other| *other == said[0])
        });
        leader.expect("the condition held")
    }

    /// Waits until these nodes, and no others, are members, all of them voters, and all say so and follow one
    /// leader.
    pub fn await_voters(&self, voters: &[usize]) -> usize {
        let names: Vec<String> = voters.iter().map(|node| format!("member_raft-{node}")).collect();
        await_condition(&format!("{voters:?} to be the voters"), || {
            voters.iter().all(|node| {
                let Some(info) = self.info(*node) else { return false };
                let listed = info.keys().filter(|key| key.starts_with("member_")).count();
                let votes = |name: &String| {
                    info.get(name).is_some_and(|member| member.starts_with("voter,"))
                };
                let role = info["raft_role"].as_str();
                listed == names.len()
                    && names.iter().all(votes)
                    && ["leader", "follower"].contains(&role)
            })
        });
        self.await_leader_among(voters)
    }

    /// Waits until every running node has applied as much as the others, and returns how much.
    pub fn await_same_applied(&self) -> u64 {
        let mut applied = Vec::new();
        await_condition("all nodes to apply the same", || {
            let number = |info: &Info, name: &str| info[name].parse::<u64>().expect("a number");
            let infos: Option<Vec<Info>> =
                self.running().into_iter().map(|node| self.info(node)).collect();
            let Some(infos) = infos else { return false };
            applied = infos.iter().map(|info| number(info, "raft_last_applied")).collect();
            let last: Vec<u64> =
                infos.iter().map(|info| number(info, "raft_last_log_index")).collect();
            applied.iter().chain(&last).all(|index| *index == applied[0])
        });
        applied[0]
    }

    /// A client that knows all nodes and tries for as long as anything here is waited for.
    pub fn client(&self) -> Client {
        let servers = (0..self.size()).map(|node| self.known_as(node));
        let mut config = ClientConfig::new(servers);
        config.total_timeout = Some(PATIENCE);
        config.resolver = self.names.clone().unwrap_or_default();
        Client::new(config)
    }

    /// A client of one node only.
    pub fn client_of(&self, node: usize, patience: Duration) -> Client {
        let mut config = ClientConfig::new([self.address(node)]);
        config.total_timeout = Some(patience);
        Client::new(config)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in 0..self.size() {
            if self.nodes[node].is_some() {
                self.kill(node);
            }
            if std::thread::panicking() {
                eprintln!("--- log of raft-{node}\n{}", self.log(node));
            }
        }
        if !std::thread::panicking() {
            fs::remove_dir_all(&self.dir).expect("the test's folder is its own");
        }
    }
}

/// Ports that were free a moment ago.
pub fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("it is bound").port()).collect()
}

fn try_nc(address: &str, lines: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(lines.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Asks again until the answer is yes.
pub fn await_condition(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn wait_for_exit(child: &mut Child) -> ExitStatus {
    let mut status = None;
    await_condition("the process to end", || {
        status = child.try_wait().expect("the process is ours");
        status.is_some()
    });
    status.expect("it ended")
}

/// Runs a command to its end: exit status, standard output, standard error.
pub fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}
