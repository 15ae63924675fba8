//! Text commands: cut, understood, and answered here or by the node.

use super::talk::{Pause, Step};
use super::texts::{TextClient, TextTalk};
use super::{ReplyTo, Server, info};
use crate::kv::{Answer, Request};
use crate::net::ConnId;
use crate::node::Routing;
use crate::protocol::resp::{self, TextLimits, TextStep, Version};
use crate::protocol::text::{self, ClientCommand, Greeting, Reply, Shape, TextCommand};
use crate::wal::Disk;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

impl<D: Disk> Server<D> {
    pub(super) fn step_text(&mut self, conn: ConnId, talk: &mut TextTalk, now: Instant) -> Step {
        if talk.is_leaving() {
            return Err(Pause::NeedMore);
        }
        if let Some(skip) = &mut talk.skip {
            let dropped = skip.advance(self.links.net.inbox(conn).unwrap_or_default());
            let is_done = skip.is_done();
            match dropped {
                Ok(dropped) => self.links.net.consume(conn, dropped),
                Err(resp::ProtocolError(error)) => return self.last_words(conn, talk, &error),
            }
            if !is_done {
                return Err(Pause::NeedMore);
            }
            talk.skip = None;
        }
        if self.is_full(conn, talk.owed()) {
            return Err(Pause::MustWait);
        }
        let limits = TextLimits::new(&self.limits);
        let is_line = self.inbox(conn).first() != Some(&b'*');
        let mut words = Vec::new();
        match resp::next_command(self.inbox(conn), &mut words, &limits) {
            TextStep::NeedMore { .. } => Err(Pause::NeedMore),
            TextStep::Empty { consumed } => {
                self.links.net.consume(conn, consumed);
                Ok(())
            }
            TextStep::Oversized { error, consumed, skip } => {
                self.links.net.consume(conn, consumed);
                talk.skip = Some(skip);
                talk.collected.fail();
                self.say(conn, talk, |out, _| resp::put_error(out, &error))
            }
            TextStep::Error(resp::ProtocolError(error)) => self.last_words(conn, talk, &error),
            TextStep::CrossProtocol => {
                Err(Pause::Close("an HTTP request: this port takes no POST and no Host".into()))
            }
            TextStep::Command { args, consumed } => {
                let allowed = talk.context().map(|it| text::check_context(&args, &it));
                let parsed = match allowed {
                    Some(Err(error)) => Err(error),
                    // What goes into the log has to fit all members' limits.
                    _ => text::try_parse(&args, &self.replica.node().cluster_limits().limits),
                };
                let command = match parsed {
                    Ok(command) => self.resume_scan(command),
                    Err(error) => {
                        self.links.net.consume(conn, consumed);
                        self.requests += 1;
                        talk.collected.fail();
                        return self.say(conn, talk, |out, _| resp::put_error(out, &error));
                    }
                };
                if let TextCommand::Ask { shape, .. } = &command
                    && self.line.is_late()
                    && !talk.collected.is_queueing()
                {
                    let reply = Reply { shape: *shape, version: talk.client.version };
                    self.links.net.consume(conn, consumed);
                    self.requests += 1;
                    let failure = self.refuse_late();
                    self.answer_now(conn, talk, &failure, reply);
                    return Ok(());
                }
                if let Some(is_write) = talk.collected.is_write(&command)
                    && talk.hold(is_write)
                {
                    return Err(Pause::MustWait);
                }
                self.links.net.consume(conn, consumed);
                self.requests += 1;
                let command = match self.collect(conn, talk, command, now) {
                    Ok(step) => {
                        talk.recount();
                        return step;
                    }
                    Err(command) => command,
                };
                let step = match command {
                    TextCommand::Ask { request, shape } => {
                        self.ask_store(conn, talk, request, shape);
                        return Ok(());
                    }
                    TextCommand::Word(word) if is_line => self.raw_word(conn, talk, word, now),
                    command => self.command(conn, talk, command, now),
                };
                talk.recount();
                step
            }
        }
    }

    fn ask_store(&mut self, conn: ConnId, talk: &mut TextTalk, request: Request, shape: Shape) {
        let reply = Reply { shape, version: talk.client.version };
        if talk.client.read_only && !request.is_write() {
            let answer = self.replica.inputs().read_locally(&request);
            self.counts.reads += 1;
            self.counts.local_reads += 1;
            let reply = self.with_cursor(reply, &answer);
            return self.answer_now(conn, talk, &answer, reply);
        }
        let slot = talk.await_answer(request.is_write());
        let reply = ReplyTo::Slot(slot, reply);
        talk.awaited_bytes += self.ask(conn, reply, request, Routing::Forward);
    }

    fn answer_now(&mut self, conn: ConnId, talk: &mut TextTalk, answer: &Answer, reply: Reply) {
        let mut bytes = Vec::new();
        text::answer_to_resp(answer, reply, &mut bytes);
        talk.answer_at_once(bytes);
        if let Some(outbox) = self.links.net.outbox(conn) {
            talk.write_ready(outbox);
        }
    }

    /// What the node need not be asked.
    pub(super) fn command(
        &mut self,
        conn: ConnId,
        talk: &mut TextTalk,
        command: TextCommand,
        now: Instant,
    ) -> Step {
        match command {
            TextCommand::Ask { .. }
            | TextCommand::Scan { .. }
            | TextCommand::Multi
            | TextCommand::Exec(_)
            | TextCommand::Discard
            | TextCommand::Watch(_) => unreachable!("the node is asked, or it was collected"),
            // In a transaction, where it comes too late to change anything.
            TextCommand::Unwatch => self.say(conn, talk, |out, _| resp::put_simple(out, "OK")),
            // So that it can be told apart from what comes without being asked for.
            TextCommand::Ping(message)
                if talk.client.version == Version::Resp2 && talk.context().is_some() =>
            {
                self.say(conn, talk, |out, _| {
                    resp::put_array(out, 2);
                    resp::put_bulk(out, b"pong");
                    resp::put_bulk(out, &message.unwrap_or_default());
                })
            }
            TextCommand::Ping(None) => self.say(conn, talk, |out, _| resp::put_simple(out, "PONG")),
            TextCommand::Ping(Some(message)) | TextCommand::Echo(message) => {
                self.say(conn, talk, |out, _| resp::put_bulk(out, &message))
            }
            TextCommand::Info { sections } => {
                let text = info::text(&self.sections(now), &sections);
                self.say(conn, talk, |out, version| resp::put_text(out, version, &text))
            }
            TextCommand::Why => {
                let text = self.why(now).text();
                self.say(conn, talk, |out, version| resp::put_text(out, version, &text))
            }
            TextCommand::Raft(query) => {
                let mut reply = Vec::new();
                self.put_raft(query, now, &mut reply, talk.client.version);
                self.say(conn, talk, |out, _| out.extend_from_slice(&reply))
            }
            TextCommand::Help => {
                self.say(conn, talk, |out, version| resp::put_text(out, version, &text::help()))
            }
            TextCommand::Commands(query) => {
                self.say(conn, talk, |out, version| query.put_reply(out, version))
            }
            TextCommand::Config(query) => {
                let settings = self.settings(&query);
                self.say(conn, talk, |out, version| put_settings(out, version, &settings))
            }
            TextCommand::Time => self.say(conn, talk, |out, _| put_time(out)),
            TextCommand::Word(word) => {
                let text = self.word(word, now);
                self.say(conn, talk, |out, version| resp::put_text(out, version, &text))
            }
            TextCommand::Hello(greeting) => self.greet(conn, talk, greeting),
            TextCommand::Client(command) => self.client(conn, talk, command),
            TextCommand::ReadOnly(read_only) => {
                talk.client.read_only = read_only;
                self.say(conn, talk, |out, _| resp::put_simple(out, "OK"))
            }
            TextCommand::Ok => self.say(conn, talk, |out, _| resp::put_simple(out, "OK")),
            TextCommand::Error(error) => {
                self.say(conn, talk, |out, _| resp::put_error(out, &error))
            }
            TextCommand::Reset => {
                talk.client = TextClient { id: talk.client.id, ..TextClient::default() };
                talk.collected.forget();
                self.stop_listening(conn, talk);
                self.say(conn, talk, |out, _| resp::put_simple(out, "RESET"))
            }
            TextCommand::Quit => {
                self.leave(conn, talk);
                self.say(conn, talk, |out, _| resp::put_simple(out, "OK"))
            }
            TextCommand::Changes { prefix, from } => {
                self.stream_to_text(conn, talk, prefix, from, now)
            }
            TextCommand::Subscribe(command) => self.subscribe(conn, talk, command),
            TextCommand::Sentinel(query) => self.sentinel(conn, talk, &query),
            TextCommand::Role => self.role_reply(conn, talk),
        }
    }

    /// What comes without being asked for ends.
    fn stop_listening(&mut self, conn: ConnId, talk: &mut TextTalk) {
        talk.stop_listening();
        self.streams.forget(conn);
        self.herald.forget(conn);
    }

    /// Nothing more is read, and the connection is closed after the answers to what came before.
    pub(super) fn leave(&mut self, conn: ConnId, talk: &mut TextTalk) {
        talk.leave();
        self.stop_listening(conn, talk);
    }

    /// From the reply to it on, the connection speaks what was asked for.
    fn greet(&mut self, conn: ConnId, talk: &mut TextTalk, greeting: Greeting) -> Step {
        let Greeting { version, name } = greeting;
        let client = &mut talk.client;
        client.version = version.unwrap_or(client.version);
        client.name = name.unwrap_or_else(|| std::mem::take(&mut client.name));
        let id = client.id as i64;
        let leads = self.replica.node().raft().is_leader();
        self.say(conn, talk, |out, version| {
            resp::put_map(out, version, 7);
            let mut field = |name: &str, value: &str| {
                resp::put_bulk(out, name.as_bytes());
                resp::put_bulk(out, value.as_bytes());
            };
            field("server", "raftkv");
            field("version", env!("CARGO_PKG_VERSION"));
            field("mode", "standalone");
            field("role", if leads { "master" } else { "replica" });
            resp::put_bulk(out, b"proto");
            resp::put_integer(out, if version == Version::Resp3 { 3 } else { 2 });
            resp::put_bulk(out, b"id");
            resp::put_integer(out, id);
            resp::put_bulk(out, b"modules");
            resp::put_array(out, 0);
        })
    }

    fn client(&mut self, conn: ConnId, talk: &mut TextTalk, command: ClientCommand) -> Step {
        let client = &mut talk.client;
        match command {
            ClientCommand::Id => {
                let id = client.id as i64;
                return self.say(conn, talk, |out, _| resp::put_integer(out, id));
            }
            ClientCommand::Info => {
                let text = self.client_line(conn, client);
                return self.say(conn, talk, |out, version| resp::put_text(out, version, &text));
            }
            ClientCommand::GetName => {
                let name = client.name.clone();
                return self.say(conn, talk, |out, version| match name.as_str() {
                    "" => resp::put_null(out, version),
                    name => resp::put_bulk(out, name.as_bytes()),
                });
            }
            ClientCommand::SetName(name) => client.name = name,
            ClientCommand::SetLibraryName(name) => client.library_name = name,
            ClientCommand::SetLibraryVersion(version) => client.library_version = version,
        }
        self.say(conn, talk, |out, _| resp::put_simple(out, "OK"))
    }

    /// The fields of Redis's line of which there is something to say.
    fn client_line(&self, conn: ConnId, client: &TextClient) -> String {
        let remote = self.links.net.remote_addr(conn);
        format!(
            "id={} addr={} laddr={} name={} db=0 resp={} lib-name={} lib-ver={} flags={}\n",
            client.id,
            remote.map_or(String::new(), |address| address.to_string()),
            self.links.net.local_addr(),
            client.name,
            if client.version == Version::Resp3 { 3 } else { 2 },
            client.library_name,
            client.library_version,
            if client.read_only { "r" } else { "N" },
        )
    }

    /// An answer that is known at once, in its turn.
    pub(super) fn say(
        &mut self,
        conn: ConnId,
        talk: &mut TextTalk,
        write: impl FnOnce(&mut Vec<u8>, Version),
    ) -> Step {
        let mut reply = Vec::new();
        write(&mut reply, talk.client.version);
        self.said(conn, talk, reply)
    }

    #[inline(never)]
    fn said(&mut self, conn: ConnId, talk: &mut TextTalk, reply: Vec<u8>) -> Step {
        talk.answer_at_once(reply);
        if let Some(outbox) = self.links.net.outbox(conn) {
            talk.write_ready(outbox);
        }
        Ok(())
    }

    /// The stream can't be understood any more: says so, and closes once all answers are out.
    fn last_words(&mut self, conn: ConnId, talk: &mut TextTalk, error: &str) -> Step {
        self.leave(conn, talk);
        self.say(conn, talk, |out, _| resp::put_error(out, error))
    }
}

fn put_settings(out: &mut Vec<u8>, version: Version, settings: &[(&str, String)]) {
    resp::put_map(out, version, settings.len());
    for (name, value) in settings {
        resp::put_bulk(out, name.as_bytes());
        resp::put_bulk(out, value.as_bytes());
    }
}

fn put_time(out: &mut Vec<u8>) {
    // A clock before 1970 is set wrongly; that is not for this command to judge.
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    resp::put_array(out, 2);
    resp::put_bulk(out, time.as_secs().to_string().as_bytes());
    resp::put_bulk(out, time.subsec_micros().to_string().as_bytes());
}
