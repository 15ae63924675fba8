//! `MULTI`, `EXEC`, `DISCARD`, `WATCH` and `UNWATCH`: what a connection collects until it becomes one entry of the
//! log.
//!
//! The node that a client is connected to only collects. What was watched goes along with the index at which it
//! was last changed, so whoever leads when the entry is applied decides alike.

use super::talk::Step;
use super::texts::TextTalk;
use super::{ReplyTo, Server};
use crate::kv::{
    Answer, Command, Failure, Found, ReadOp, Request, RequestId, STEP_ANSWER_BYTES, STEPS_MAX,
    Step as TransactionStep, StepBuffer, TimedOp, Transaction, WATCHED_KEYS_MAX, WatchedBuffer,
    WriteOp,
};
use crate::net::ConnId;
use crate::node::Routing;
use crate::ordered::InOrder;
use crate::protocol::client_frame_bytes_max;
use crate::protocol::resp::{put_array, put_error, put_simple};
use crate::protocol::text::{self, Planned, Reply, Shape, TextCommand};
use crate::wal::Disk;
use std::rc::Rc;
use std::time::Instant;

/// What a queued command takes besides its bytes.
const COMMAND_BYTES: usize = size_of::<Queued>();
/// What a plan takes, and a key that is being looked up, besides its bytes.
const PLAN_BYTES: usize = 64;
const KEY_BYTES: usize = 32;
/// Lists that grow have room for twice what is in them.
const HELD_TIMES: usize = 2;
/// Room in an entry for what is neither a watched key nor a step, in bytes.
const HEAD_BYTES: usize = 1024;

const ABORTED: &str = "EXECABORT Transaction discarded because of previous errors.";
const NOT_ALLOWED: &str = "ERR Command not allowed inside a transaction";

/// What a connection has collected.
#[derive(Debug, Default)]
pub struct Collected {
    queue: Option<Queue>,
    watched: WatchedBuffer,
    /// Somebody wanted to watch keys, and could not: what comes is not protected.
    watch_has_failed: bool,
    /// What answers are still to become, by their slots.
    plans: InOrder<u64, Plan>,
    /// What these take.
    plans_bytes: usize,
}

#[derive(Debug)]
enum Plan {
    /// These keys are watched from then on, unless all are forgotten meanwhile.
    Watch(Vec<Rc<[u8]>>),
    Exec {
        planned: Vec<Planned>,
        held_bytes: usize,
    },
}

impl Plan {
    fn bytes(&self) -> usize {
        PLAN_BYTES
            + match self {
                Plan::Watch(keys) => keys.iter().map(|key| KEY_BYTES + key.len()).sum(),
                // What is known of the answers is held as a reply is.
                Plan::Exec { planned, .. } => planned.capacity() * size_of::<Planned>(),
            }
    }
}

/// What came after `MULTI`.
#[derive(Debug)]
struct Queue {
    commands: Vec<Queued>,
    steps: StepBuffer,
    /// One was refused: nothing will be done.
    has_failed: bool,
    /// Of the commands.
    bytes: usize,
}

#[derive(Debug)]
enum Queued {
    /// The next of the steps, and how its answer is written.
    Step(Shape),
    /// What the node need not be asked.
    Local(TextCommand),
}

impl Collected {
    pub fn is_queueing(&self) -> bool {
        self.queue.is_some()
    }

    /// A command after `MULTI` could not be understood.
    pub fn fail(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.has_failed = true;
        }
    }

    /// As at the start of the connection. Keys that are still being looked up are not watched either.
    pub fn forget(&mut self) {
        self.queue = None;
        self.watched = WatchedBuffer::default();
        self.watch_has_failed = false;
        for plan in self.plans.values_mut() {
            let bytes = plan.bytes();
            if let Plan::Watch(keys) = plan {
                *keys = Vec::new();
            }
            self.plans_bytes -= bytes - plan.bytes();
        }
    }

    /// Whether `EXEC` goes to the log.
    fn is_for_the_log(&self) -> bool {
        let watches = self.watched.watched().count() > 0 || !self.plans.is_empty();
        self.queue
            .as_ref()
            .is_some_and(|queue| !queue.has_failed && (watches || queue.steps.steps().count() > 0))
    }

    /// Whether the command is a write or a read of the store, if it is one: it may have to wait for earlier
    /// ones.
    pub fn is_write(&self, command: &TextCommand) -> Option<bool> {
        match command {
            TextCommand::Exec(_) => self.is_for_the_log().then_some(true),
            TextCommand::Watch(_) => (!self.is_queueing()).then_some(false),
            TextCommand::Ask { request, .. } => (!self.is_queueing()).then(|| request.is_write()),
            _ => None,
        }
    }

    fn insert_plan(&mut self, slot: u64, plan: Plan) {
        self.plans_bytes += plan.bytes();
        self.plans.insert(slot, plan);
    }

    fn remove_plan(&mut self, slot: u64) -> Option<Plan> {
        let plan = self.plans.remove(&slot)?;
        self.plans_bytes -= plan.bytes();
        Some(plan)
    }

    /// What all of it takes.
    pub fn kept_bytes(&self) -> usize {
        HELD_TIMES * self.bytes() + self.plans_bytes
    }

    fn bytes(&self) -> usize {
        self.watched.bytes() + self.queue.as_ref().map_or(0, |queue| queue.bytes)
    }

    fn watch(&mut self, keys: &[Rc<[u8]>], versions: &[u64]) {
        for (key, version) in keys.iter().zip(versions) {
            // The first look counts.
            if !self.watched.contains(key) {
                self.watched.push(key, *version);
            }
        }
    }
}

impl TextTalk {
    /// The reply to what was collected, if this answer is one to it.
    pub fn collected_reply(&mut self, slot: u64, answer: &Answer, form: Reply) -> Option<Vec<u8>> {
        let mut reply = Vec::new();
        match self.collected.remove_plan(slot)? {
            Plan::Watch(keys) => match answer {
                Answer::Found { found: Found::Versions(versions), .. } => {
                    self.collected.watch(&keys, versions);
                    put_simple(&mut reply, "OK");
                }
                answer => {
                    self.collected.watch_has_failed |= !keys.is_empty();
                    text::answer_to_resp(answer, form, &mut reply);
                }
            },
            Plan::Exec { planned, held_bytes } => {
                self.release(held_bytes);
                text::transaction_to_resp(answer, &planned, form, &mut reply);
            }
        }
        Some(reply)
    }
}

impl<D: Disk> Server<D> {
    /// What begins, ends or watches, and whatever comes after `MULTI`. Gives back what is none of that.
    pub(super) fn collect(
        &mut self,
        conn: ConnId,
        talk: &mut TextTalk,
        command: TextCommand,
        now: Instant,
    ) -> Result<Step, TextCommand> {
        let is_queueing = talk.collected.is_queueing();
        Ok(match command {
            TextCommand::Multi if is_queueing => {
                self.refuse(conn, talk, "ERR MULTI calls can not be nested")
            }
            TextCommand::Multi => {
                let (commands, steps) = (Vec::new(), StepBuffer::default());
                talk.collected.queue = Some(Queue { commands, steps, has_failed: false, bytes: 0 });
                self.ok(conn, talk)
            }
            TextCommand::Watch(_) if is_queueing => {
                self.refuse(conn, talk, "ERR WATCH inside MULTI is not allowed")
            }
            TextCommand::Watch(keys) => self.watch_keys(conn, talk, keys),
            TextCommand::Unwatch if !is_queueing => {
                talk.collected.forget();
                self.ok(conn, talk)
            }
            TextCommand::Discard if is_queueing => {
                talk.collected.forget();
                self.ok(conn, talk)
            }
            TextCommand::Discard => self.refuse(conn, talk, "ERR DISCARD without MULTI"),
            TextCommand::Exec(_) if !is_queueing => {
                self.refuse(conn, talk, "ERR EXEC without MULTI")
            }
            TextCommand::Exec(request) => self.exec(conn, talk, request, now),
            command @ (TextCommand::Quit | TextCommand::Reset) => return Err(command),
            command if is_queueing => self.queue(conn, talk, command),
            command => return Err(command),
        })
    }

    fn ok(&mut self, conn: ConnId, talk: &mut TextTalk) -> Step {
        self.say(conn, talk, |out, _| put_simple(out, "OK"))
    }

    /// Not done, in the words for text clients.
    pub(super) fn say_failed(
        &mut self,
        conn: ConnId,
        talk: &mut TextTalk,
        failure: Failure,
    ) -> Step {
        let answer = Answer::Failed(failure);
        self.say(conn, talk, |out, _| text::answer_to_resp(&answer, Reply::default(), out))
    }

    fn refuse(&mut self, conn: ConnId, talk: &mut TextTalk, error: &str) -> Step {
        self.say(conn, talk, |out, _| put_error(out, error))
    }

    fn watch_keys(&mut self, conn: ConnId, talk: &mut TextTalk, keys: Vec<Rc<[u8]>>) -> Step {
        let being_watched: usize = talk
            .collected
            .plans
            .values()
            .map(|plan| if let Plan::Watch(keys) = plan { keys.len() } else { 0 })
            .sum();
        let watched = talk.collected.watched.watched().count() + being_watched + keys.len();
        let bytes = talk.collected.bytes() + keys.iter().map(|key| key.len()).sum::<usize>();
        if watched > WATCHED_KEYS_MAX || bytes > self.transaction_bytes_max() {
            talk.collected.watch_has_failed = true;
            let error = format!(
                "ERR too many keys are watched, the limit is {WATCHED_KEYS_MAX}: UNWATCH, and watch fewer"
            );
            return self.refuse(conn, talk, &error);
        }
        // While they are looked up, and when they are watched.
        let new: usize = keys.iter().map(|key| KEY_BYTES + key.len()).sum();
        if let Err(failure) = self.may_keep((1 + HELD_TIMES) * new) {
            talk.collected.watch_has_failed = true;
            return self.say_failed(conn, talk, failure);
        }
        let reply = Reply { shape: Shape::Plain, version: talk.client.version };
        let slot = talk.await_answer(false);
        talk.collected.insert_plan(slot, Plan::Watch(keys.clone()));
        // Also of a connection that takes old values: what it would watch is the newest.
        let request = Request::Read(ReadOp::Versions(keys));
        talk.awaited_bytes += self.ask(conn, ReplyTo::Slot(slot, reply), request, Routing::Forward);
        Ok(())
    }

    fn transaction_bytes_max(&self) -> usize {
        client_frame_bytes_max(&self.limits) - HEAD_BYTES
    }

    fn queue(&mut self, conn: ConnId, talk: &mut TextTalk, command: TextCommand) -> Step {
        let room = self.transaction_bytes_max().saturating_sub(talk.collected.bytes());
        let commands_max = STEPS_MAX.min(self.limits.answer_bytes_max() / STEP_ANSWER_BYTES);
        let bytes = command_bytes(&command);
        if let Err(failure) = self.may_keep(HELD_TIMES * bytes) {
            talk.collected.fail();
            return self.say_failed(conn, talk, failure);
        }
        let refused = self.step_of(&command).and_then(|shape| {
            let queue = talk.collected.queue.as_mut().expect("it is being queued");
            if bytes > room || queue.commands.len() >= commands_max {
                return Err(format!(
                    "ERR no room for the command: {} are queued, of at most {commands_max}, and it has \
                     {bytes} bytes, of at most {room}; nothing was done, send smaller transactions",
                    queue.commands.len()
                ));
            }
            queue.bytes += bytes;
            queue.commands.push(match (shape, command) {
                (Some(shape), TextCommand::Ask { request, .. }) => {
                    push_step(&mut queue.steps, request);
                    Queued::Step(shape)
                }
                (_, command) => Queued::Local(command),
            });
            Ok(())
        });
        match refused {
            Ok(()) => self.say(conn, talk, |out, _| put_simple(out, "QUEUED")),
            Err(error) => {
                talk.collected.fail();
                self.refuse(conn, talk, &error)
            }
        }
    }

    /// How the answer of a command that becomes a step is written; `None`: it is answered here. Fails if it
    /// can't be part of a transaction.
    fn step_of(&self, command: &TextCommand) -> Result<Option<Shape>, String> {
        match command {
            TextCommand::Ask { request, shape } => {
                self.limits.check(request).map_err(|failure| format!("ERR {}", failure.message))?;
                match request {
                    Request::Write { command } => match Command::decode(command) {
                        Ok(Command::Write { request: None, .. }) => Ok(Some(*shape)),
                        _ => Err(NOT_ALLOWED.to_owned()),
                    },
                    Request::Get { .. } => Ok(Some(Shape::First)),
                    Request::Read(_) | Request::Digest if *shape != Shape::Scan => Ok(Some(*shape)),
                    _ => Err(NOT_ALLOWED.to_owned()),
                }
            }
            TextCommand::Unwatch
            | TextCommand::Ping(_)
            | TextCommand::Echo(_)
            | TextCommand::Info { .. }
            | TextCommand::Help
            | TextCommand::Ok
            | TextCommand::Client(_)
            | TextCommand::ReadOnly(_)
            | TextCommand::Time
            | TextCommand::Config(_)
            | TextCommand::Commands(_)
            | TextCommand::Word(_)
            | TextCommand::Why
            | TextCommand::Raft(_)
            | TextCommand::Role
            | TextCommand::Sentinel(_)
            | TextCommand::Error(_) => Ok(None),
            _ => Err(NOT_ALLOWED.to_owned()),
        }
    }

    fn exec(
        &mut self,
        conn: ConnId,
        talk: &mut TextTalk,
        request: Option<RequestId>,
        now: Instant,
    ) -> Step {
        let Collected { queue, watched, watch_has_failed, .. } = &mut *talk.collected;
        let queue = queue.take().expect("it is being queued");
        let watched = std::mem::take(watched);
        if std::mem::take(watch_has_failed) || queue.has_failed {
            talk.collected.forget();
            return self.refuse(conn, talk, ABORTED);
        }
        let Some((planned, held_bytes)) = self.plan(conn, talk, queue.commands, now) else {
            let error = "ERR the answers of the transaction would be too long; nothing was done";
            return self.refuse(conn, talk, error);
        };
        let steps = queue.steps.steps();
        if steps.count() == 0 && watched.watched().count() == 0 {
            return self.say(conn, talk, |out, _| {
                put_array(out, planned.len());
                planned.iter().for_each(|planned| planned.put_ready(out));
            });
        }
        // Whoever leads checks it against its own limits.
        let limits = self.replica.node().cluster_limits().limits;
        let answer_bytes_max = limits.answer_bytes_max() as u32;
        let watched = watched.watched();
        let transaction = Transaction { watched, answer_bytes_max, steps };
        let op = WriteOp::Timed { stamp: 0, op: TimedOp::Transaction(transaction) };
        let command = Command::Write { request, op }.to_bytes().into();
        let reply = Reply { shape: Shape::Plain, version: talk.client.version };
        let slot = talk.await_answer(true);
        talk.hold_bytes(held_bytes);
        talk.collected.insert_plan(slot, Plan::Exec { planned, held_bytes });
        let request = Request::Write { command };
        talk.awaited_bytes += self.ask(conn, ReplyTo::Slot(slot, reply), request, Routing::Forward);
        Ok(())
    }

    /// What is answered here is so before anything is done; `None`: that would be too long.
    fn plan(
        &mut self,
        conn: ConnId,
        talk: &mut TextTalk,
        commands: Vec<Queued>,
        now: Instant,
    ) -> Option<(Vec<Planned>, usize)> {
        let (mut planned, mut bytes) = (Vec::new(), 0);
        for command in commands {
            planned.push(match command {
                Queued::Step(shape) => Planned::Step(shape),
                Queued::Local(command) => {
                    talk.aside = Some(Vec::new());
                    let ended = self.command(conn, talk, command, now);
                    let reply = talk.aside.take().unwrap_or_default();
                    debug_assert!(ended.is_ok(), "nothing that ends a connection is queued");
                    bytes += reply.len();
                    if bytes > self.limits.answer_bytes_max() {
                        return None;
                    }
                    Planned::Ready(reply)
                }
            });
        }
        Some((planned, bytes))
    }
}

/// What a command takes while it is queued.
fn command_bytes(command: &TextCommand) -> usize {
    let bytes = match command {
        TextCommand::Ask { request: Request::Write { command }, .. } => command.len(),
        TextCommand::Ask { request: Request::Get { key }, .. } => key.len(),
        TextCommand::Ask { request: Request::Read(op), .. } => {
            let mut encoded = Vec::new();
            op.encode(&mut encoded);
            encoded.len()
        }
        TextCommand::Ping(Some(message)) | TextCommand::Echo(message) => message.len(),
        TextCommand::Info { sections } => sections.iter().map(String::len).sum(),
        TextCommand::Error(text) => text.len(),
        TextCommand::Config(query) => query.bytes(),
        TextCommand::Commands(query) => query.bytes(),
        TextCommand::Client(command) => command.bytes(),
        _ => 0,
    };
    COMMAND_BYTES + bytes
}

fn push_step(steps: &mut StepBuffer, request: Request) {
    match request {
        Request::Get { key } => {
            steps.push(&TransactionStep::Read(ReadOp::Values(vec![key])));
        }
        Request::Read(op) => steps.push(&TransactionStep::Read(op)),
        Request::Digest => steps.push(&TransactionStep::Read(ReadOp::Digest)),
        Request::Write { command } => match Command::decode(&command) {
            Ok(Command::Write { op: WriteOp::Timed { op, .. }, .. }) => {
                steps.push(&TransactionStep::Timed(op));
            }
            Ok(Command::Write { op, .. }) => steps.push(&TransactionStep::Write(op)),
            _ => unreachable!("it was looked at before"),
        },
        Request::Member(_) | Request::Backup(_) => unreachable!("there is no such command"),
    }
}
