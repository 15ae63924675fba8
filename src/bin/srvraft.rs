//! One node of the cluster: reads the configuration, opens the data folder, and runs the loop.

#![forbid(unsafe_code)]

use log::{Log, Metadata, Record};
use raftkv::config::{self, Config, Invocation, RecoverRequest, UsageError};
use raftkv::lines::{self, clean_line, count_note};
use raftkv::net::catch_early_signals;
use raftkv::node;
use raftkv::raft::node_id;
use raftkv::recover::{self, RecoverError};
use raftkv::replica::Replica;
use raftkv::server::{Server, ServerError, TimedDisk};
use raftkv::stamp;
use raftkv::wal::{FileDisk, Identity, WalConfig};
use simple_logger::SimpleLogger;
use std::io::{ErrorKind, Write};
use std::mem::ManuallyDrop;
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

/// As for every Unix command: the command line is wrong.
const EXIT_USAGE: u8 = 2;

/// What a line has between its time and its words.
const WARN: &str = "WARN  [raftkv::lines]";
const PANIC: &str = "ERROR [srvraft]";

fn main() -> ExitCode {
    catch_early_signals();
    let args = std::env::args_os().skip(1);
    match Config::from_args(args, |name| std::env::var(name).ok()) {
        Ok(Invocation::Help) => print(&Config::help()),
        Ok(Invocation::Version) => print(concat!("srvraft ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Invocation::Recover(request)) => match recover_folder(&request) {
            Ok(report) => {
                // It is done, whoever reads it.
                print(&report.to_string());
                ExitCode::SUCCESS
            }
            Err(error) => {
                complain(&error.to_string());
                ExitCode::FAILURE
            }
        },
        Ok(Invocation::Run(config)) => match run(*config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                log::error!("{error}");
                ExitCode::FAILURE
            }
        },
        Err(UsageError(what)) => {
            complain(&format!("{what}\nsrvraft --help lists all flags"));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// To standard output. A reader that has seen enough (`srvraft --help | head`) is no failure.
fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            complain(&format!("cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// For the person at the command line, and no line of the log.
fn complain(what: &str) {
    // If nobody can read it any more, there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "srvraft: {what}");
}

/// On the real folder, under a random id. The disk is the server's: one of another type would bring all of
/// the log's code a second time.
fn recover_folder(request: &RecoverRequest) -> Result<recover::Report, RecoverError> {
    let (disk, _) = TimedDisk::new(FileDisk::open_existing(&request.data_dir)?);
    recover::recover(disk, request, fastrand::u64(1..))
}

fn run(config: Config) -> Result<(), ServerError> {
    start_logger(&config);
    let disk = FileDisk::open(&config.data_dir).map_err(ServerError::Wal)?;
    let (mut disk, syncs) = TimedDisk::new(disk);
    let identity = Identity::load_or_create(
        &mut disk,
        config::cluster_id(&config.cluster),
        config.number,
        &config.name,
        fastrand::u64(1..1 << 48),
    )
    .map_err(ServerError::Wal)?;
    let seed = fastrand::u64(..);
    let node = node::Config {
        raft: config.raft(node_id(config.number, identity.incarnation), seed),
        name: config.name.clone(),
        address: config.advertise.clone(),
        initial: config.members.iter().map(|(number, m)| (*number, m.name.clone())).collect(),
        auto_members: config.auto_members,
        limits: config.limits,
        forward_timeout_ticks: config.ticks(config.request_timeout),
        snapshot_log_bytes: config.snapshot_log_bytes,
        snapshot_piece_bytes: node::SNAPSHOT_PIECE_BYTES,
    };
    let wal = WalConfig { segment_bytes: config.segment_bytes, salt_seed: identity.incarnation };
    let (replica, opened) = Replica::open(node, disk, wal).map_err(ServerError::Wal)?;
    if opened.torn_bytes > 0 {
        let bytes = opened.torn_bytes;
        log::warn!("cut {bytes} bytes off the log: a write that was not finished, nor answered");
    }
    for note in &opened.notes {
        log::warn!("{note}");
    }
    if let Some(damage) = opened.damaged {
        log::error!("{damage}; this node does not vote until it has got back what it lost");
    }
    // The process ends with it. To free a million keys first would take a while, and bring nothing.
    let mut server =
        ManuallyDrop::new(Server::new(config, identity, replica, syncs, Instant::now())?);
    server.run()
}

/// The level is the flag's, else that of `RUST_LOG`, else info.
fn start_logger(config: &Config) {
    let logger = SimpleLogger::new();
    let logger = match config.log_level {
        Some(level) => logger.with_level(level),
        None => logger.with_level(log::LevelFilter::Info).env(),
    };
    lines::stderr().set_note(|count, why| dressed(WARN, &count_note("log line", count, why)));
    lines::set_panic_hook(|line| dressed(PANIC, line));
    log::set_max_level(logger.max_level());
    log::set_boxed_logger(Box::new(Harmless(logger))).expect("no other logger is set");
}

/// The logger says which lines are wanted. It would write them with `eprintln`, which panics when standard error takes
/// no more, and waits for a reader that hangs; so they are written here. Its feature for times brings a calendar with
/// time zones.
struct Harmless(SimpleLogger);

impl Log for Harmless {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            let head = format!("{:<5} [{}]", record.level(), record.target());
            let line = dressed(&head, &record.args().to_string());
            lines::stderr().say(&line);
        }
    }

    /// What could not be written is tried again.
    fn flush(&self) {
        lines::stderr().retry();
    }
}

/// With the time at its head.
fn dressed(head: &str, text: &str) -> String {
    clean_line(&format!("{} {head} ", stamp::utc(SystemTime::now())), text)
}
