//! The main job: write, read back, verify, wait; for ever.

use super::health::Health;
use super::lang::Lang;
use super::ledger::{Ledger, Mismatch};
use super::signals::Signals;
use crate::client::{Client, ClientError, Why};
use crate::lines;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Of a value, the characters that are shown.
const VALUE_CHARS_MAX: usize = 80;

pub struct Job {
    /// Between a read and the next write.
    pub interval: Duration,
    /// Writes, each with its read; `None`: for ever.
    pub count: Option<u64>,
    pub prefix: String,
    pub lang: Lang,
    /// Somebody may watch it through its port.
    pub answers_probes: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub writes: u64,
    pub reads: u64,
    pub wrong: u64,
}

/// Why the job ended.
#[derive(Debug)]
pub enum End {
    /// All writes and reads that were asked for are done.
    Finished,
    /// By a signal.
    Stopped,
    WrongValue,
    /// An error that trying again does not cure.
    GaveUp(ClientError),
    /// Nobody will ever read standard output.
    Output(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        End::Output(error)
    }
}

impl From<ClientError> for End {
    fn from(error: ClientError) -> End {
        if *error.why() == Why::Interrupted { End::Stopped } else { End::GaveUp(error) }
    }
}

pub struct Run<'a> {
    job: &'a Job,
    client: &'a mut Client,
    signals: &'a Signals,
    /// Set by the client's observer, taken back here.
    leader_changed: &'a AtomicBool,
    health: &'a Health,
    ledger: Ledger,
    tally: Tally,
}

impl<'a> Run<'a> {
    pub fn new(
        job: &'a Job,
        client: &'a mut Client,
        signals: &'a Signals,
        leader_changed: &'a AtomicBool,
        health: &'a Health,
    ) -> Self {
        let ledger = Ledger::new(&job.prefix);
        Run { job, client, signals, leader_changed, health, ledger, tally: Tally::default() }
    }

    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// The job's lines go to standard output, each as soon as it is true.
    pub fn until_the_end(&mut self) -> End {
        match self.go_on() {
            Ok(()) => End::Finished,
            Err(end) => end,
        }
    }

    fn go_on(&mut self) -> Result<(), End> {
        self.look_around()?;
        let mut left = self.job.count;
        loop {
            let key = self.write()?;
            self.read_back(&key)?;
            if self.leader_changed.swap(false, Ordering::Relaxed) {
                self.verify_all()?;
            }
            if let Some(left) = &mut left {
                *left -= 1;
                if *left == 0 {
                    return Ok(());
                }
            }
            self.health.waits(self.job.interval, Instant::now());
            if self.signals.wait(self.job.interval).is_break() {
                return Err(End::Stopped);
            }
        }
    }

    /// An earlier run may have left values: this one goes on after them.
    fn look_around(&mut self) -> Result<(), End> {
        let mut found = 0;
        for key in self.ledger.keys() {
            if let Some(value) = self.client.get(key.as_bytes())?.value {
                found += 1;
                self.ledger.found(&value);
            }
        }
        if found > 0 {
            let (_, value) = self.ledger.next_write();
            super::complain(&self.job.lang.goes_on(found, value));
        }
        Ok(())
    }

    fn write(&mut self) -> Result<String, End> {
        let lang = self.job.lang;
        let (key, value) = self.ledger.next_write();
        self.job.say(&lang.write_operation(&key, value))?;
        let begun = Instant::now();
        let result = self.client.put(key.as_bytes(), value.to_string().as_bytes());
        self.health.counts(self.client);
        match result {
            Ok(written) => {
                self.health.wrote(begun.elapsed());
                self.ledger.written();
                self.tally.writes += 1;
                self.job.say(&lang.submitted(written.index, written.leader))?;
            }
            Err(error @ ClientError::OutcomeUnknown { .. }) if *error.why() != Why::Interrupted => {
                self.health.outcome_unknown();
                self.ledger.perhaps_written();
                super::complain(&lang.outcome_unknown(&key, value, &error));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(key)
    }

    fn read_back(&mut self, key: &str) -> Result<(), End> {
        let lang = self.job.lang;
        self.job.say(&lang.read_operation(key))?;
        let value = self.verified(key)?;
        Ok(self.job.say(&lang.correct_value(key, &shown(value.as_deref(), lang)))?)
    }

    /// Whatever a new leader has forgotten is noticed now, rather than when its key's turn comes.
    fn verify_all(&mut self) -> Result<(), End> {
        let keys = self.ledger.known_keys();
        if keys.len() < 2 {
            return Ok(());
        }
        for key in &keys {
            self.verified(key)?;
        }
        super::complain(&self.job.lang.all_there(keys.len()));
        Ok(())
    }

    /// Reads `key`; a value that can't be right ends the job.
    fn verified(&mut self, key: &str) -> Result<Option<Vec<u8>>, End> {
        let begun = Instant::now();
        let read = self.client.get(key.as_bytes());
        self.health.counts(self.client);
        let value = read?.value;
        self.health.read(begun.elapsed());
        self.tally.reads += 1;
        let Err(mismatch) = self.ledger.check(key, value.as_deref()) else {
            self.health.verified(Instant::now());
            return Ok(value);
        };
        self.health.mismatch();
        self.tally.wrong += 1;
        self.job.say(&wrong_value(key, &mismatch, self.job.lang))?;
        Err(End::WrongValue)
    }
}

fn wrong_value(key: &str, mismatch: &Mismatch, lang: Lang) -> String {
    let expected: Vec<_> =
        mismatch.expected.iter().map(|value| shown(value.as_deref(), lang)).collect();
    lang.wrong_value(key, &expected.join(lang.or()), &shown(mismatch.read.as_deref(), lang))
}

/// A value for a line of text: anybody may have written anything.
fn shown(value: Option<&[u8]>, lang: Lang) -> String {
    let Some(value) = value else { return lang.nothing().to_owned() };
    let text = String::from_utf8_lossy(value);
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(VALUE_CHARS_MAX).collect()
}

impl Job {
    /// The job is to verify, and its lines tell of it: one that standard output does not take is dropped and counted, and
    /// the job goes on. It ends when its reader has seen enough (`cltraft | head`), unless others may watch it.
    fn say(&self, line: &str) -> io::Result<()> {
        match lines::stdout().try_say(line) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe && !self.answers_probes => {
                Err(error)
            }
            _ => Ok(()),
        }
    }
}
