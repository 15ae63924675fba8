//! Small clusters of cores driven by text scripts, `tests/golden/*.txt`, that print what happens.
//! Each script explains one behaviour and is the test of it. `UPDATE=1 cargo test --test golden`
//! rewrites what they print; `tests/golden/README.md` is the legend.

mod common;

use common::checker::Checker;
use common::cluster::{Cluster, Envelope, Server};
use common::core::{HEARTBEAT_TICKS, command};
use common::{text, trace};
use raftkv::raft::{Entry, HardState, NodeId, Term};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Messages that one `deliver` may take: more is a cluster that never falls silent.
const DELIVERIES_MAX: usize = 1_000;

struct Script {
    cluster: Cluster,
    checker: Checker,
    /// Copies that `keep` has made, for `replay`.
    kept: Vec<Envelope>,
    /// The names that the script gives to reads, by their ids.
    reads: BTreeMap<u64, String>,
    out: Vec<String>,
}

#[derive(Clone, Copy)]
struct Link {
    from: NodeId,
    to: NodeId,
}

impl Link {
    fn parse(text: &str) -> Link {
        let (from, to) = text.split_once("->").unwrap_or_else(|| panic!("not from->to: {text}"));
        Link { from: number(from), to: number(to) }
    }

    fn carries(&self, envelope: &Envelope) -> bool {
        (envelope.from, envelope.to) == (self.from, self.to)
    }
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_else(|_| panic!("not a number: {text}"))
}

fn numbers(text: &str) -> Vec<u64> {
    text.split([' ', ',']).filter(|part| !part.is_empty()).map(number).collect()
}

impl Script {
    fn new() -> Self {
        Script {
            cluster: Cluster::new(1),
            checker: Checker::default(),
            kept: Vec::new(),
            reads: BTreeMap::new(),
            out: Vec::new(),
        }
    }

    /// Carries out one directive. Returns the lines it prints.
    fn run(&mut self, line: &str) -> Vec<String> {
        let (directive, rest) = line.split_once(' ').unwrap_or((line, ""));
        let args: Vec<&str> = rest.split_whitespace().collect();
        match directive {
            "cluster" => self.cluster(&args),
            "disk" => self.disk(&args),
            "tick" => self.tick(&args),
            "run" => self.run_all(number(rest)),
            "elect" => self.elect(number(rest)),
            "campaign" => self.watch(number(rest), |c, id| c.campaign(id)),
            "propose" => self.propose(number(args[0]), &args[1..]),
            "read" => self.read(number(args[0]), &args[1..]),
            "connected" => self.peer(&args, Cluster::peer_connected),
            "unreachable" => self.peer(&args, Cluster::peer_unreachable),
            "ended" => self.peer(&args, Cluster::peer_process_ended),
            "deliver" => self.deliver(&args),
            "flight" => self.print_flight(),
            "drop" => self.drop_messages(Link::parse(rest)),
            "keep" => self.keep(Link::parse(rest)),
            "replay" => self.replay(Link::parse(rest)),
            "cut" => self.cut(Link::parse(rest)),
            "partition" => self.partition(rest),
            "heal" => self.cluster.heal(),
            "hold" => self.cluster.server_mut(number(rest)).disk_is_slow = true,
            "persist" => self.persist(number(rest)),
            "release" => self.release(number(rest)),
            "crash" => self.crash(number(rest)),
            "restart" => self.restart(number(rest)),
            "log" => self.log(number(rest)),
            "status" => self.status(),
            other => panic!("no such directive: {other}"),
        }
        std::mem::take(&mut self.out)
    }

    fn watch(&mut self, id: NodeId, act: impl FnOnce(&mut Cluster, NodeId)) {
        for line in trace::watch(&mut self.cluster, id, |cluster| act(cluster, id)) {
            self.out.push(self.with_read_names(&line));
        }
        self.checker.check(&self.cluster, id);
    }

    /// The script's own names instead of read ids.
    fn with_read_names(&self, line: &str) -> String {
        let Some((who, rest)) = line.split_once(": read ") else { return line.into() };
        let (id, rest) = rest.split_once(' ').expect("a read id and what became of it");
        format!("{who}: read {} {rest}", self.reads[&number(id)])
    }

    fn cluster(&mut self, args: &[&str]) {
        let settings: Vec<(&str, usize)> = args[1..]
            .iter()
            .map(|arg| arg.split_once('=').expect("setting=number"))
            .map(|(name, value)| (name, number(value) as usize))
            .collect();
        self.cluster = Cluster::with(number(args[0]), |config| {
            for (name, value) in &settings {
                match *name {
                    "append_bytes_max" => config.append_bytes_max = *value,
                    "inflight_messages_max" => config.inflight_messages_max = *value,
                    "inflight_bytes_max" => config.inflight_bytes_max = *value,
                    "uncommitted_bytes_max" => config.uncommitted_bytes_max = *value,
                    other => panic!("no such setting: {other}"),
                }
            }
        });
    }

    /// `disk 1 term=3 log=1,1,2`: the server starts anew with this on its disk.
    fn disk(&mut self, args: &[&str]) {
        let id = number(args[0]);
        let (mut term, mut terms) = (0, Vec::new());
        for arg in &args[1..] {
            match arg.split_once('=').expect("name=value") {
                ("term", value) => term = number(value),
                ("log", value) => terms = numbers(value),
                (other, _) => panic!("no such part of a disk: {other}"),
            }
        }
        self.cluster.crash(id, 0);
        let disk = &mut self.cluster.server_mut(id).disk;
        disk.hard_state = HardState { term, voted_for: None };
        let entry = |(index, term): (u64, &Term)| Entry {
            term: *term,
            index,
            payload: command(&format!("t{term}i{index}")),
        };
        disk.entries = (1..).zip(&terms).map(entry).collect();
        self.cluster.restart(id);
    }

    /// `tick 1,2 10`, `tick all 5`: time passes for these servers; what they send waits.
    fn tick(&mut self, args: &[&str]) {
        let ids = if args[0] == "all" { self.cluster.up() } else { numbers(args[0]) };
        for _ in 0..number(args[1]) {
            for id in &ids {
                self.tick_one(*id);
            }
        }
    }

    fn tick_one(&mut self, id: NodeId) {
        self.watch(id, |cluster, id| {
            cluster.tick(id);
            cluster.turn(id);
        });
    }

    /// `run 30`: time passes for everybody, messages arrive at once; only what changes is printed.
    fn run_all(&mut self, ticks: u64) {
        for _ in 0..ticks {
            for id in self.cluster.up() {
                self.tick_one(id);
            }
            while !self.cluster.in_flight.is_empty() {
                let envelope = self.cluster.in_flight.remove(0);
                self.arrive(envelope);
            }
        }
    }

    /// `elect 1`: the server is elected, and everybody knows that its no-op is committed. Prints no
    /// more than that.
    fn elect(&mut self, id: NodeId) {
        let quiet = self.out.len();
        self.watch(id, |cluster, id| cluster.campaign(id));
        self.deliver(&[]);
        self.run_all(u64::from(HEARTBEAT_TICKS));
        self.out.truncate(quiet);
        let raft = self.cluster.raft(id);
        assert!(raft.is_leader(), "server {id} is elected: {}", self.cluster.summary());
        let commit_index = raft.commit_index();
        for (_, server) in self.cluster.servers().filter(|(_, server)| server.is_up()) {
            assert_eq!(server.raft().commit_index(), commit_index, "everybody knows");
        }
        self.out.push(format!("{id}@{} leader", raft.term()));
    }

    fn propose(&mut self, id: NodeId, commands: &[&str]) {
        let mut refusals = Vec::new();
        self.watch(id, |cluster, id| {
            for command in commands {
                if let Err(error) = cluster.propose(id, command) {
                    refusals.push(format!("{id}: {command} is refused: {error:?}"));
                }
            }
            cluster.turn(id);
        });
        self.out.append(&mut refusals);
    }

    fn read(&mut self, id: NodeId, names: &[&str]) {
        let first = self.reads.len() as u64;
        self.reads.extend((first..).zip(names.iter().map(|name| name.to_string())));
        let mut refused = false;
        self.watch(id, |cluster, id| {
            for read in first..first + names.len() as u64 {
                refused |= !cluster.read(id, read);
            }
            cluster.turn(id);
        });
        if refused {
            self.out.push(format!("{id}: is not the leader"));
        }
    }

    fn peer(&mut self, args: &[&str], act: fn(&mut Cluster, NodeId, NodeId)) {
        let [id, peer] = args else { panic!("two servers") };
        let peer = number(peer);
        self.watch(number(id), |cluster, id| {
            act(cluster, id, peer);
            cluster.turn(id);
        });
    }

    /// `deliver`: everything, and what comes of it, until silence. `deliver 1->2`: what is in
    /// flight on this link, and nothing that comes of it.
    fn deliver(&mut self, args: &[&str]) {
        if let [link] = args {
            for envelope in self.take(Link::parse(link)) {
                self.deliver_one(envelope);
            }
            return;
        }
        for _ in 0..DELIVERIES_MAX {
            if self.cluster.in_flight.is_empty() {
                return;
            }
            let envelope = self.cluster.in_flight.remove(0);
            self.deliver_one(envelope);
        }
        panic!("no silence after {DELIVERIES_MAX} messages");
    }

    fn deliver_one(&mut self, envelope: Envelope) {
        let arrives = self.cluster.is_connected(envelope.from, envelope.to);
        self.out.push(format!("{}{}", shown(&envelope), if arrives { "" } else { " LOST" }));
        self.arrive(envelope);
    }

    fn arrive(&mut self, envelope: Envelope) {
        if !self.cluster.is_connected(envelope.from, envelope.to) {
            return;
        }
        self.checker.check_sent(&envelope);
        self.watch(envelope.to, |cluster, id| {
            cluster.arrive(envelope);
            cluster.turn(id);
        });
    }

    fn take(&mut self, link: Link) -> Vec<Envelope> {
        let in_flight = std::mem::take(&mut self.cluster.in_flight);
        let (taken, left) = in_flight.into_iter().partition(|envelope| link.carries(envelope));
        self.cluster.in_flight = left;
        taken
    }

    fn print_flight(&mut self) {
        self.out.extend(self.cluster.in_flight.iter().map(shown));
    }

    fn drop_messages(&mut self, link: Link) {
        for envelope in self.take(link) {
            self.out.push(format!("{} LOST", shown(&envelope)));
        }
    }

    /// Makes copies of what is in flight on a link.
    fn keep(&mut self, link: Link) {
        self.kept.extend(self.cluster.in_flight.iter().filter(|kept| link.carries(kept)).cloned());
    }

    /// Delivers the copies: late, or once more.
    fn replay(&mut self, link: Link) {
        let kept = std::mem::take(&mut self.kept);
        let (replayed, left): (Vec<_>, Vec<_>) =
            kept.into_iter().partition(|envelope| link.carries(envelope));
        self.kept = left;
        for envelope in replayed {
            self.deliver_one(envelope);
        }
    }

    fn cut(&mut self, link: Link) {
        self.cluster.cut(link.from, link.to);
    }

    /// `partition 1 | 2 3`.
    fn partition(&mut self, groups: &str) {
        let (group, others) = groups.split_once('|').expect("two groups");
        self.cluster.partition(&numbers(group), &numbers(others));
    }

    /// The slow disk finishes what it was given, and is given what has gathered meanwhile.
    fn persist(&mut self, id: NodeId) {
        self.watch(id, |cluster, id| {
            cluster.finish_turn(id);
            cluster.turn(id);
        });
    }

    fn release(&mut self, id: NodeId) {
        self.cluster.server_mut(id).disk_is_slow = false;
        if self.cluster.server(id).is_writing() {
            self.persist(id);
        }
    }

    fn crash(&mut self, id: NodeId) {
        self.cluster.crash(id, 0);
        self.checker.crashed(id);
    }

    fn restart(&mut self, id: NodeId) {
        self.cluster.restart(id);
        self.log(id);
    }

    /// The log; a bar ends what is known to be committed, a star marks what is not on disk.
    fn log(&mut self, id: NodeId) {
        let server = self.cluster.server(id);
        let raft = server.raft();
        let mut line = format!("{id}@{}:", raft.term());
        for entry in raft.log().iter_from(1) {
            let bar = if entry.index == raft.commit_index() + 1 { " |" } else { "" };
            let star = if server.disk.holds(entry) { "" } else { "*" };
            write!(line, "{bar} {}{star}", text::entry(entry)).expect("strings take it all");
        }
        self.out.push(line);
    }

    fn status(&mut self) {
        let line = |(id, server): (NodeId, &Server)| match server.core() {
            None => format!("{id} crashed"),
            Some(raft) => {
                let last = raft.log().last();
                format!(
                    "{id}@{} {} leader={} last={}@{} commit={}",
                    raft.term(),
                    raft.role_name(),
                    raft.leader().map_or("none".into(), |id| id.to_string()),
                    last.index,
                    last.term,
                    raft.commit_index()
                )
            }
        };
        self.out.extend(self.cluster.servers().map(line));
    }
}

fn shown(envelope: &Envelope) -> String {
    let Envelope { from, to, message } = envelope;
    format!("{from} -> {to} {}", text::message(message))
}

/// A script with what it prints now: lines that begin with `> ` are directives, `#` and blank lines
/// stay, everything else is output and replaced.
fn play(script: &str) -> String {
    let mut cluster = Script::new();
    let mut out = String::new();
    for line in script.lines() {
        let directive = line.strip_prefix("> ");
        if directive.is_some() || line.is_empty() || line.starts_with('#') {
            writeln!(out, "{line}").expect("strings take it all");
        }
        for printed in directive.map_or(Vec::new(), |directive| cluster.run(directive.trim())) {
            writeln!(out, "{printed}").expect("strings take it all");
        }
    }
    out
}

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = std::fs::read_dir(&folder).expect("the folder of scripts");
    let paths = files.map(|file| file.expect("a file in it").path());
    let mut scripts: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|ext| ext == "txt")).collect();
    scripts.sort();
    scripts
}

/// The first line that differs, with its number.
fn first_difference(expected: &str, actual: &str) -> String {
    let (mut expected, mut actual) = (expected.lines(), actual.lines());
    for line in 1.. {
        let (old, new) = (expected.next(), actual.next());
        if old != new {
            let show = |line: Option<&str>| line.unwrap_or("(the end)").to_string();
            return format!("line {line}\n  expected: {}\n  printed:  {}", show(old), show(new));
        }
        assert!(old.is_some(), "the texts differ");
    }
    unreachable!("lines are counted without end")
}

#[test]
fn every_script_prints_what_it_says() {
    let update = std::env::var_os("UPDATE").is_some();
    let scripts = scripts();
    assert!(scripts.len() >= 15, "the scripts are there");
    let mut wrong = Vec::new();
    for path in scripts {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let expected = std::fs::read_to_string(&path).expect("a readable script");
        assert!(expected.starts_with("# "), "{name} says what it shows");
        let actual = play(&expected);
        if update {
            std::fs::write(&path, actual).expect("a writable script");
        } else if actual != expected {
            wrong.push(format!("{name}: {}", first_difference(&expected, &actual)));
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE=1 accepts what is printed", wrong.join("\n"));
}

/// The scripts rely on it: a seed gives the same timeouts each time.
#[test]
fn a_script_prints_the_same_each_time() {
    let script = "> cluster 5\n> run 60\n> status\n";
    let printed = play(script);
    assert!(printed.contains("commit 1@1 no-op"), "a leader was elected:\n{printed}");
    assert_eq!(printed, play(script));
}
