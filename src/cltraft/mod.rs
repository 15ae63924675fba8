//! The program `cltraft`: a client that goes on writing, reading back and verifying, and single requests
//! from the command line. What it prints and how it exits is described in [`help`].
//!
//! The parts that decide something are pure and tested alone: the command line ([`args`]), what may be
//! read ([`ledger`]), what does not fit together ([`status`]). Here they meet the real standard streams,
//! environment and signals.

pub mod args;
mod backup;
mod bench;
mod changes;
mod colour;
mod commands;
mod data;
mod health;
pub mod help;
pub mod json;
pub mod lang;
pub mod ledger;
mod main_job;
pub mod members;
mod options;
mod probe;
mod progress;
mod scan;
pub mod servers;
mod signals;
pub mod status;
pub mod suggest;
mod table;
pub mod units;
mod verify;
mod why;

use crate::client::{Change, Client, ClientConfig, ClientError, joined};
use crate::lines::{self, clean};
use args::{Args, Command};
use bench::Bench;
use data::Data;
use health::Health;
use lang::Lang;
use main_job::{End, Job};
use servers::Listen;
use signals::Signals;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use verify::Verify;

/// How long a line of a command that goes on for long waits for a reader that is slow. For a reader that hangs it waits
/// once, and the lines after it are dropped at once, until the reader goes on.
const PATIENCE: Duration = Duration::from_secs(1);

/// The exit statuses, as documented in the help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    No = 1,
    Usage = 2,
    NotDone = 3,
    OutcomeUnknown = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Runs the program with the arguments and the environment of the process.
pub fn main() -> ExitCode {
    signals::let_long_files_fail();
    lines::set_panic_hook(clean);
    // What one request has to say is waited for, as by every other tool.
    lines::stderr().set_patience(Duration::MAX);
    let env = |name: &str| std::env::var(name).ok();
    let args = match args::parse(std::env::args_os().skip(1), &env) {
        Ok(args) => args,
        Err(message) => {
            complain(&format!("{message}\nTry 'cltraft --help'."));
            return Exit::Usage.into();
        }
    };
    if goes_on_for_long(&args.command) {
        lines::stderr().set_patience(PATIENCE);
    }
    let exit = match args.command {
        Command::Help(topic) => print(topic.map_or(help::OVERVIEW, help::of)),
        Command::Version => print(concat!("cltraft ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::MainJob { interval, count, ref prefix, listen } => {
            let (prefix, lang) = (prefix.clone(), args.lang);
            let job = Job { interval, count, prefix, lang, answers_probes: false };
            main_job(&args, job, listen)
        }
        Command::Changes { ref prefix, from } => {
            let client = Client::new(client_config(&args)).on_change(tell_no_leader(args.lang));
            changes::run(client, prefix, from)
        }
        _ => one_request(&args),
    };
    exit.into()
}

fn goes_on_for_long(command: &Command) -> bool {
    matches!(
        command,
        Command::MainJob { .. }
            | Command::Changes { .. }
            | Command::Bench(_)
            | Command::Verify(_)
            | Command::Backup { .. }
            | Command::Restore { .. }
    )
}

fn client_config(args: &Args) -> ClientConfig {
    ClientConfig {
        total_timeout: args.timeout,
        name: concat!("cltraft/", env!("CARGO_PKG_VERSION")).to_owned(),
        ..ClientConfig::new(args.servers.iter().cloned())
    }
}

fn one_request(args: &Args) -> Exit {
    let mut client = Client::new(client_config(args)).on_change(tell_no_leader(args.lang));
    let mut out = io::stdout().lock();
    let result = match &args.command {
        Command::Bench(plan) => Signals::install().map_err(no_signals).and_then(|signals| {
            let (servers, timeout) = (&args.servers, args.timeout);
            let bench = Bench { plan, servers, timeout, output: args.output };
            bench.run(&mut client, &signals, &mut Data::on_stdout(&signals))
        }),
        Command::Verify(plan) => Signals::install().map_err(no_signals).and_then(|signals| {
            let verify = Verify { plan, config: &client_config(args), output: args.output };
            verify.run(&mut client, &signals, &mut Data::on_stdout(&signals))
        }),
        Command::Backup { file, force } => {
            backup::backup(&mut client, file, *force, args.output, &mut out)
        }
        Command::Restore { file, merge } => {
            let config = client_config(args);
            backup::restore(&mut client, &config, file, *merge, args.output, &mut out)
        }
        Command::Check { file } => backup::check(file, args.output, &mut out),
        _ => commands::run(&mut client, args, &mut out),
    };
    match result {
        Ok(exit) => exit,
        Err(commands::Trouble::Client(error)) => {
            complain(&error.to_string());
            match error {
                ClientError::NotDone { .. } => Exit::NotDone,
                ClientError::OutcomeUnknown { .. } => Exit::OutcomeUnknown,
            }
        }
        Err(commands::Trouble::Input(message)) => {
            complain(&message);
            Exit::NotDone
        }
        Err(commands::Trouble::Output(error)) => output_failed(&error),
    }
}

fn tell_no_leader(lang: Lang) -> impl FnMut(&Change) {
    move |change| {
        if let Change::NoLeader { servers } = change {
            complain(&lang.no_leader(&joined(servers)));
        }
    }
}

fn no_signals(error: io::Error) -> commands::Trouble {
    commands::Trouble::Input(format!("cannot catch signals: {error}"))
}

fn main_job(args: &Args, mut job: Job, listen: Option<Listen>) -> Exit {
    let signals = match Signals::install() {
        Ok(signals) => Arc::new(signals),
        Err(error) => {
            complain(&format!("cannot catch signals: {error}"));
            return Exit::NotDone;
        }
    };
    let health = Arc::new(Health::new(job.interval, Instant::now()));
    if let Some(listen) = listen {
        match answer_probes(listen, job.lang, &health) {
            Ok(answers) => job.answers_probes = answers,
            Err(exit) => return exit,
        }
    }
    let leader_changed = Arc::new(AtomicBool::new(false));
    let config = ClientConfig { total_timeout: None, ..client_config(args) };
    let mut client = Client::new(config)
        .on_change(announce(job.lang, Arc::clone(&leader_changed), Arc::clone(&health)))
        .pause_with({
            let (signals, health) = (Arc::clone(&signals), Arc::clone(&health));
            move |duration| {
                health.waits(duration, Instant::now());
                signals.wait(duration)
            }
        });
    let mut run = main_job::Run::new(&job, &mut client, &signals, &leader_changed, &health);
    lines::stdout().set_patience(PATIENCE);
    lines::stdout().set_note(job.lang.dropped());
    let end = run.until_the_end();
    let tally = run.tally();
    let exit = match end {
        End::Finished | End::Stopped => Exit::Done,
        End::WrongValue => Exit::No,
        End::GaveUp(error) => {
            complain(&error.to_string());
            Exit::NotDone
        }
        End::Output(error) if error.kind() == ErrorKind::BrokenPipe => return Exit::Done,
        End::Output(error) => output_failed(&error),
    };
    lines::stdout().retry();
    let untold = lines::stdout().untold_note();
    if let Some(note) = untold {
        complain(&note);
    }
    complain(&job.lang.summary(tally.writes, tally.reads, tally.wrong));
    exit
}

/// Whether they are answered: who did not ask for probes can do without them.
fn answer_probes(listen: Listen, lang: Lang, health: &Arc<Health>) -> Result<bool, Exit> {
    match probe::start(listen.address, Arc::clone(health)) {
        Ok(address) => {
            complain(&lang.listening(&address));
            Ok(true)
        }
        Err(error) => {
            complain(&lang.cannot_listen(&listen.address, &error));
            if listen.is_asked_for { Err(Exit::NotDone) } else { Ok(false) }
        }
    }
}

/// Says each change of state once, on standard error.
fn announce(
    lang: Lang,
    leader_changed: Arc<AtomicBool>,
    health: Arc<Health>,
) -> impl FnMut(&Change) {
    move |change| match change {
        Change::NoLeader { servers } => {
            health.leader(None);
            complain(&lang.no_leader(&joined(servers)));
        }
        Change::Leader { leader, server } => {
            health.leader(Some((*leader, server)));
            leader_changed.store(true, Ordering::Relaxed);
            complain(&lang.leader_found(*leader, server));
        }
    }
}

/// For people. If nobody can read it any more, there is nobody to tell; what servers say in it moves no cursor.
fn complain(message: &str) {
    let mut stderr = lines::stderr();
    message.lines().for_each(|line| stderr.say(&clean(line)));
}

fn print(text: &str) -> Exit {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => Exit::Done,
        Err(error) => output_failed(&error),
    }
}

/// A reader that has seen enough (`cltraft | head`) is no failure.
fn output_failed(error: &io::Error) -> Exit {
    if error.kind() == ErrorKind::BrokenPipe {
        return Exit::Done;
    }
    complain(&format!("cannot write to standard output: {error}"));
    Exit::NotDone
}
