//! The load generator: one thread, many connections, every kind of server in the same way.
//!
//! In a closed loop each client has up to `pipeline` requests on their way and sends the next ones when all of them
//! are answered. In an open loop requests are due at a fixed rate, whatever the server does, and their time is
//! counted from when they were due: a server that stops for a second pays for all that were due in it.

use crate::wire::{Step, Wire};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Latencies are counted from a microsecond to a minute.
const LATENCY_US_MAX: u64 = 60_000_000;
/// How long connections may take to be ready, and the last answers to come.
const PATIENCE: Duration = Duration::from_secs(30);
const READ_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone)]
pub struct Work {
    pub clients: usize,
    pub pipeline: usize,
    pub keys: u64,
    pub value_bytes: usize,
    /// Of all requests; the rest are writes.
    pub reads_percent: u32,
    /// Requests a second, in all; `None`: a closed loop.
    pub rate: Option<f64>,
    pub warmup: Duration,
    pub duration: Duration,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// When it was sent, or was due.
    pub begun: Instant,
    pub took: Duration,
}

impl Default for Work {
    fn default() -> Self {
        Work {
            clients: 64,
            pipeline: 1,
            keys: 100_000,
            value_bytes: 256,
            reads_percent: 0,
            rate: None,
            warmup: Duration::from_secs(2),
            duration: Duration::from_secs(8),
        }
    }
}

/// When the time that counts begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Begin,
    End,
}

#[derive(Debug)]
pub struct Measured {
    pub seconds: f64,
    pub operations: u64,
    /// In microseconds.
    pub latency: Histogram<u64>,
    /// In an open loop every request, in the order of their answers.
    pub each: Vec<Asked>,
    /// Good answers to each client.
    pub per_client: Vec<u64>,
    /// Answers that were errors, by their text.
    pub errors: BTreeMap<String, u64>,
    /// How long those took, in microseconds.
    pub error_latency: Histogram<u64>,
    /// Requests that were due, and not sent in time to be answered: no client was free.
    pub unsent: u64,
    /// The longest time without any good answer.
    pub longest_gap: Duration,
}

impl Measured {
    pub fn per_second(&self) -> f64 {
        self.operations as f64 / self.seconds
    }

    pub fn errors_in_all(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// What the next request is.
enum Source<'a> {
    Mix {
        work: &'a Work,
        rng: fastrand::Rng,
    },
    /// Each key once.
    Fill {
        next: u64,
        keys: u64,
    },
}

struct Client {
    stream: TcpStream,
    wire: Box<dyn Wire>,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    /// When each request that is not answered was sent, or was due.
    asked: VecDeque<Instant>,
    waits_to_write: bool,
    greeted: bool,
}

struct Driver<'a> {
    poll: Poll,
    clients: Vec<Client>,
    source: Source<'a>,
    value: Vec<u8>,
    buffer: Vec<u8>,
    counting: bool,
    keeps_each: bool,
    /// Of an open loop: the client whose turn it is.
    first: usize,
    measured: Measured,
    last_answer: Instant,
    last_error: Option<String>,
}

/// Drives `targets`, clients in turn on each.
pub fn drive(
    targets: &[SocketAddr],
    new_wire: &dyn Fn() -> Box<dyn Wire>,
    work: &Work,
    mark: &mut dyn FnMut(Mark),
) -> Result<Measured, String> {
    let source = Source::Mix { work, rng: fastrand::Rng::with_seed(1) };
    let mut driver = Driver::connect(targets, new_wire, work, source)?;
    let begin = Instant::now() + work.warmup;
    let end = begin + work.duration;
    let mut due = Schedule::new(work.rate);
    while Instant::now() < end {
        let now = Instant::now();
        if !driver.counting && now >= begin {
            mark(Mark::Begin);
            driver.begin_counting(Instant::now());
        }
        let until = if driver.counting { end } else { begin };
        driver.ask(work, &mut due, now)?;
        driver.turn(due.next(until))?;
    }
    mark(Mark::End);
    driver.end_counting(begin);
    driver.measured.unsent = due.waiting.len() as u64;
    Ok(driver.measured)
}

/// Of values that are written and not answered while a server is filled: what all of them take.
const FILL_BYTES_MAX: usize = 16 << 20;

/// Makes all keys, with as many requests on their way as goes well with every server.
pub fn fill(
    targets: &[SocketAddr],
    new_wire: &dyn Fn() -> Box<dyn Wire>,
    work: &Work,
) -> Result<f64, String> {
    let under_way = (FILL_BYTES_MAX / work.value_bytes.max(1)).max(1);
    let (clients, pipeline) = (under_way.min(64), (under_way / 64).clamp(1, 8));
    let work = Work { clients, pipeline, rate: None, ..work.clone() };
    let source = Source::Fill { next: 0, keys: work.keys };
    let mut driver = Driver::connect(targets, new_wire, &work, source)?;
    let begun = Instant::now();
    driver.begin_counting(begun);
    while driver.measured.operations < work.keys {
        driver.ask(&work, &mut Schedule::new(None), Instant::now())?;
        driver.turn(Instant::now() + Duration::from_secs(1))?;
        if let Some(error) = &driver.last_error {
            return Err(format!("filling failed: {error}"));
        }
        if driver.last_answer.elapsed() > PATIENCE {
            return Err(format!("filling stands still at {}", driver.measured.operations));
        }
    }
    Ok(work.keys as f64 / begun.elapsed().as_secs_f64())
}

/// When requests of an open loop are due.
struct Schedule {
    interval: Option<Duration>,
    next: Instant,
    /// Due and not sent yet, as no client is free.
    waiting: VecDeque<Instant>,
}

impl Schedule {
    fn new(rate: Option<f64>) -> Self {
        let interval = rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
        Schedule { interval, next: Instant::now(), waiting: VecDeque::new() }
    }

    fn advance(&mut self, now: Instant) {
        let Some(interval) = self.interval else { return };
        while self.next <= now {
            self.waiting.push_back(self.next);
            self.next += interval;
        }
    }

    fn next(&self, until: Instant) -> Instant {
        if self.interval.is_some() { until.min(self.next) } else { until }
    }
}

impl<'a> Driver<'a> {
    fn connect(
        targets: &[SocketAddr],
        new_wire: &dyn Fn() -> Box<dyn Wire>,
        work: &Work,
        source: Source<'a>,
    ) -> Result<Self, String> {
        let poll = Poll::new().map_err(|error| error.to_string())?;
        let now = Instant::now();
        let mut value = vec![0; work.value_bytes];
        fastrand::Rng::with_seed(2).fill(&mut value);
        let measured = Measured {
            seconds: 0.0,
            operations: 0,
            each: Vec::new(),
            latency: new_histogram(),
            per_client: vec![0; work.clients],
            errors: BTreeMap::new(),
            error_latency: new_histogram(),
            unsent: 0,
            longest_gap: Duration::ZERO,
        };
        let mut driver = Driver {
            poll,
            clients: Vec::new(),
            source,
            value,
            buffer: vec![0; READ_BYTES],
            counting: false,
            keeps_each: work.rate.is_some(),
            first: 0,
            measured,
            last_answer: now,
            last_error: None,
        };
        for number in 0..work.clients {
            driver.add_client(targets[number % targets.len()], new_wire())?;
            // A storm of connections is another test than this one.
            if number % 64 == 63 {
                driver.turn(Instant::now() + Duration::from_millis(10))?;
            }
        }
        while !driver.clients.iter().all(|client| client.greeted && client.wire.is_ready()) {
            if now.elapsed() > PATIENCE {
                return Err("not all connections were ready in time".to_string());
            }
            driver.turn(Instant::now() + Duration::from_millis(100))?;
        }
        Ok(driver)
    }

    fn add_client(&mut self, target: SocketAddr, wire: Box<dyn Wire>) -> Result<(), String> {
        let mut stream =
            TcpStream::connect(target).map_err(|error| format!("connect {target}: {error}"))?;
        let token = Token(self.clients.len());
        self.poll
            .registry()
            .register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)
            .map_err(|error| error.to_string())?;
        self.clients.push(Client {
            stream,
            wire,
            inbox: Vec::new(),
            outbox: Vec::new(),
            asked: VecDeque::new(),
            waits_to_write: true,
            greeted: false,
        });
        Ok(())
    }

    fn begin_counting(&mut self, now: Instant) {
        self.counting = true;
        self.last_answer = now;
        self.measured.latency.reset();
        self.measured.each.clear();
        self.measured.errors.clear();
        self.measured.error_latency.reset();
        self.measured.per_client.fill(0);
        self.measured.operations = 0;
    }

    fn end_counting(&mut self, begun: Instant) {
        self.measured.longest_gap = self.measured.longest_gap.max(self.last_answer.elapsed());
        self.measured.seconds = begun.elapsed().as_secs_f64();
    }

    /// Sends what is to be sent now.
    fn ask(&mut self, work: &Work, due: &mut Schedule, now: Instant) -> Result<(), String> {
        due.advance(now);
        // Those that fell due together are spread over all, and sent with one call each.
        let share = due.waiting.len().div_ceil(self.clients.len());
        for at in 0..self.clients.len() {
            if work.rate.is_none() {
                if self.clients[at].asked.is_empty() {
                    (0..work.pipeline).for_each(|_| self.ask_one(at, now));
                    self.write(at)?;
                }
                continue;
            }
            // Another one is the first each time.
            let number = (at + self.first) % self.clients.len();
            let free = work.pipeline.saturating_sub(self.clients[number].asked.len());
            let taken = share.min(free).min(due.waiting.len());
            if taken > 0 {
                due.waiting.drain(..taken).for_each(|begun| self.ask_one(number, begun));
                self.write(number)?;
            }
        }
        self.first += 1;
        Ok(())
    }

    fn ask_one(&mut self, number: usize, begun: Instant) {
        let client = &mut self.clients[number];
        let out = &mut client.outbox;
        match &mut self.source {
            Source::Mix { work, rng } => {
                let key = key(rng.u64(..work.keys));
                if rng.u32(..100) < work.reads_percent {
                    client.wire.get(&key, out);
                } else {
                    client.wire.put(&key, &self.value, out);
                }
            }
            Source::Fill { next, keys } if *next < *keys => {
                client.wire.create(&key(*next), &self.value, out);
                *next += 1;
            }
            Source::Fill { .. } => return,
        }
        client.asked.push_back(begun);
    }

    fn turn(&mut self, until: Instant) -> Result<(), String> {
        let mut events = Events::with_capacity(1024);
        let timeout = until.saturating_duration_since(Instant::now());
        match self.poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(error.to_string());
            }
            _ => {}
        }
        for event in &events {
            let number = event.token().0;
            let client = &mut self.clients[number];
            if event.is_writable() && !client.greeted {
                client.stream.set_nodelay(true).map_err(|error| error.to_string())?;
                client.greeted = true;
                client.wire.greet(&mut client.outbox);
            }
            if event.is_writable() {
                self.write(number)?;
            }
            if event.is_readable() {
                self.read(number)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, number: usize) -> Result<(), String> {
        let client = &mut self.clients[number];
        let mut written = 0;
        while written < client.outbox.len() {
            match client.stream.write(&client.outbox[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(format!("sending failed: {error}")),
            }
        }
        client.outbox.drain(..written);
        client.waits_to_write = !client.outbox.is_empty();
        Ok(())
    }

    fn read(&mut self, number: usize) -> Result<(), String> {
        loop {
            let client = &mut self.clients[number];
            match client.stream.read(&mut self.buffer) {
                Ok(0) => return Err(self.closed("the server closed a connection")),
                Ok(count) => client.inbox.extend_from_slice(&self.buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(self.closed(&format!("receiving failed: {error}"))),
            }
        }
        self.take_answers(number)
    }

    fn closed(&self, what: &str) -> String {
        match &self.last_error {
            Some(error) => format!("{what}; its last error was: {error}"),
            None => what.to_string(),
        }
    }

    fn take_answers(&mut self, number: usize) -> Result<(), String> {
        let now = Instant::now();
        let client = &mut self.clients[number];
        let mut taken = 0;
        loop {
            match client.wire.step(&client.inbox[taken..], &mut client.outbox)? {
                Step::NeedMore => break,
                Step::Passed(count) => taken += count,
                Step::Answer { consumed, result } => {
                    taken += consumed;
                    let begun = client.asked.pop_front().ok_or("an answer to nothing")?;
                    let latency = ((now - begun).as_micros() as u64).max(1);
                    match result {
                        Ok(()) => {
                            let gap = now - self.last_answer;
                            self.measured.longest_gap = self.measured.longest_gap.max(gap);
                            self.last_answer = now;
                            self.measured.operations += 1;
                            if self.keeps_each {
                                self.measured.each.push(Asked { begun, took: now - begun });
                            }
                            self.measured.per_client[number] += 1;
                            self.measured.latency.saturating_record(latency);
                        }
                        Err(error) => {
                            *self.measured.errors.entry(error.clone()).or_default() += 1;
                            self.measured.error_latency.saturating_record(latency);
                            self.last_error = Some(error);
                        }
                    }
                }
            }
        }
        client.inbox.drain(..taken);
        if client.waits_to_write || client.outbox.is_empty() { Ok(()) } else { self.write(number) }
    }
}

fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("sound bounds")
}

/// Sixteen bytes.
pub fn key(number: u64) -> Vec<u8> {
    format!("key:{number:012}").into_bytes()
}
