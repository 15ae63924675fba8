//! Drives raftkv and what one would pick instead with the same load, on one machine, and compares them.

mod crowd;
mod failover;
mod fairness;
mod limits;
mod load;
mod overload;
mod phases;
mod plot;
mod process;
mod report;
mod servers;
mod snapshot;
mod suite;
mod sweep;
mod turns;
mod watch;
mod wire;

use lexopt::prelude::*;
use load::Work;
use servers::Kind;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

const HELP: &str = "\
raftkv-bench: raftkv, Redis, etcd and ZooKeeper under the same load

Usage: raftkv-bench COMMAND [OPTIONS]

Commands:
  table     the comparison: every load, failover and memory, in interleaved rounds
  load      one load against one server (--server), one line a round
  failover  the leader killed, or paused: time until the next write is acknowledged
  memory    memory of idle nodes and with a million keys; restart with them
  sweep     how raftkv grows: --by values|clients|nodes|keys
  snapshot  SET at a fixed rate (--rate) without and with a snapshot of all keys under way, and the longest turns
            of each node's loop; a GiB: --keys 1000000 --value-bytes 1024 --rate 6000 --seconds 60
  fairness  63 ordinary clients of raftkv, alone and beside one greedy client of each kind
  overload  raftkv at twice what it can take, also with clients that never read, idle ones, and a storm of new ones
  phases    what the time of raftkv's loops goes to, by the number of clients
  limits    what the machine allows: syncs and round trips
Peers that are not installed are left out, and it is said so.

Options:
  --raftkv FILE      the server under test [../target/release/srvraft]
  --data DIR         where servers keep their data [the system's temporary folder]
  --server NAME      raftkv, redis, etcd or zookeeper; may be repeated [all]
  --rounds N         of which the median is taken [3]
  --seconds N        of each round, after a warm-up of a quarter [8]
  --clients N, --pipeline N, --keys N, --value-bytes N, --reads PERCENT, --nodes N
  --rate N           an open loop with N requests a second
  --only WORD        of fairness and overload: only the parts whose names have it in them
  --trials N         of a failover [20]
  --plot FILE        of a sweep: an SVG
  --awake            keeps idle cores awake with a loop of the lowest priority, for all servers alike
";

pub struct Options {
    pub raftkv: PathBuf,
    pub data: PathBuf,
    pub servers: Vec<Kind>,
    pub rounds: usize,
    pub trials: usize,
    pub nodes: Option<usize>,
    pub by: String,
    pub plot: Option<PathBuf>,
    pub work: Work,
    pub only: String,
    awake: bool,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("raftkv-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let (command, options) = parse().map_err(|error| error.to_string())?;
    if command == "help" {
        print!("{HELP}");
        return Ok(());
    }
    if command == "spin" {
        loop {
            std::hint::spin_loop();
        }
    }
    allow_many_files()?;
    let _spinners = if options.awake { Spinners::start()? } else { Spinners(Vec::new()) };
    match command.as_str() {
        "table" => suite::table(&options),
        "load" => suite::load(&options),
        "failover" => failover::compare(&options),
        "memory" => suite::memory(&options),
        "sweep" => sweep::run(&options),
        "snapshot" => snapshot::run(&options),
        "fairness" => fairness::run(&options),
        "phases" => phases::run(&options),
        "limits" => limits::run(&options),
        "overload" => overload::run(&options),
        other => Err(format!("{other} is no command; see --help")),
    }
}

fn parse() -> Result<(String, Options), lexopt::Error> {
    let mut command = String::new();
    let mut options = Options {
        raftkv: concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/srvraft").into(),
        data: std::env::temp_dir(),
        servers: Vec::new(),
        rounds: 3,
        trials: 20,
        nodes: None,
        by: "values".to_string(),
        plot: None,
        work: Work::default(),
        only: String::new(),
        awake: false,
    };
    let work = &mut options.work;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Value(word) if command.is_empty() => command = word.string()?,
            Short('h') | Long("help") => command = "help".to_string(),
            Long("raftkv") => options.raftkv = parser.value()?.into(),
            Long("data") => options.data = parser.value()?.into(),
            Long("server") => {
                let name = parser.value()?.string()?;
                let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
                options.servers.push(kind.ok_or(format!("{name} is no server; see --help"))?);
            }
            Long("rounds") => options.rounds = parser.value()?.parse()?,
            Long("trials") => options.trials = parser.value()?.parse()?,
            Long("nodes") => options.nodes = Some(parser.value()?.parse()?),
            Long("by") => options.by = parser.value()?.string()?,
            Long("plot") => options.plot = Some(parser.value()?.into()),
            Long("seconds") => {
                work.duration = Duration::from_secs_f64(parser.value()?.parse()?);
                work.warmup = work.duration / 4;
            }
            Long("clients") => work.clients = parser.value()?.parse()?,
            Long("pipeline") => work.pipeline = parser.value()?.parse()?,
            Long("keys") => work.keys = parser.value()?.parse()?,
            Long("value-bytes") => work.value_bytes = parser.value()?.parse()?,
            Long("reads") => work.reads_percent = parser.value()?.parse()?,
            Long("rate") => work.rate = Some(parser.value()?.parse()?),
            Long("only") => options.only = parser.value()?.string()?,
            Long("awake") => options.awake = true,
            other => return Err(other.unexpected()),
        }
    }
    if command.is_empty() {
        command = "help".to_string();
    }
    let chosen = std::mem::take(&mut options.servers);
    let wanted = if chosen.is_empty() { Kind::ALL.to_vec() } else { chosen };
    for kind in wanted {
        match kind.is_installed(&options.raftkv) {
            true => options.servers.push(kind),
            false => eprintln!("LEFT OUT: {} is not installed", kind.name()),
        }
    }
    Ok((command, options))
}

/// Ten thousand connections, and as many on the other side.
fn allow_many_files() -> Result<(), String> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).map_err(|error| format!("limit of open files: {error}"))
}

/// One a core: a machine that never sleeps answers at the speed of its programs, not of its waking.
struct Spinners(Vec<Child>);

impl Spinners {
    fn start() -> Result<Self, String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let spinners = (0..cores).map(|core| {
            Command::new("taskset")
                .args(["-c", &core.to_string(), "chrt", "-i", "0"])
                .arg(&program)
                .arg("spin")
                .spawn()
                .map_err(|error| format!("taskset and chrt (util-linux): {error}"))
        });
        Ok(Spinners(spinners.collect::<Result<_, _>>()?))
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        for spinner in &mut self.0 {
            let _ = spinner.kill();
            let _ = spinner.wait();
        }
    }
}
