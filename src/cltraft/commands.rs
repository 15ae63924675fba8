//! The one-shot commands: one request, its answer to standard output.

use super::args::{Args, Command, Input, Output};
use super::json::Object;
use super::status::{self, Report};
use super::{Exit, colour, complain, members, scan, why};
use crate::client::{self, Client, ClientError, Digest, Lifetime, MemberChanged, Written};
use crate::kv::{Expiry, MemberRequest, Outcome};
use crate::protocol::frame::SKIP_BYTES_MAX;
use std::io::{self, Read, Write};
use std::time::Duration;

/// What keeps a command from giving an answer.
pub enum Trouble {
    Client(ClientError),
    Input(String),
    Output(io::Error),
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        Trouble::Client(error)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Output(error)
    }
}

/// Carries out any command that is one request, or a few. `out` is flushed.
pub fn run(client: &mut Client, args: &Args, out: &mut dyn Write) -> Result<Exit, Trouble> {
    let mut to = To { output: args.output, out };
    let exit = match &args.command {
        Command::Get { key } => get(client, key, &mut to)?,
        Command::Put { key, value, ttl } => {
            let value = input(value)?;
            let written = match ttl {
                Some(ttl) => client.put_until(key, &value, after(*ttl))?,
                None => client.put(key, &value)?,
            };
            to.json(|| about(key, &written))?;
            Exit::Done
        }
        Command::Delete { key } => {
            let written = client.delete(key)?;
            let existed = written.outcome == Outcome::Deleted(true);
            to.json(|| about(key, &written).bool("deleted", existed))?;
            if existed { Exit::Done } else { no(&missing(key)) }
        }
        Command::CompareAndSet { key, expected, value } => {
            let written = client.compare_and_set(key, expected.as_deref(), value)?;
            let swapped = written.outcome == Outcome::Swapped(true);
            to.json(|| about(key, &written).bool("swapped", swapped))?;
            match expected {
                _ if swapped => Exit::Done,
                None => no(&format!("{}: the key exists", name(key))),
                Some(_) => no(&format!("{}: does not hold the expected value", name(key))),
            }
        }
        Command::Increment { key, delta } => {
            let written = client.increment(key, *delta)?;
            if let Outcome::Counter(sum) = written.outcome {
                to.say(
                    || format!("{sum}\n"),
                    || about(key, &written).text("value", &sum.to_string()),
                )?;
            }
            Exit::Done
        }
        Command::Ttl { key } => ttl(client, key, &mut to)?,
        Command::Expire { key, ttl } => {
            let written = client.expire(key, ttl.map_or(Expiry::Never, after))?;
            let done = matches!(written.outcome, Outcome::Changed { done: true, .. });
            // A key that stays anyway is not changed by being told to.
            let exists = done || (ttl.is_none() && client.expiry(key)?.expires_at.is_some());
            to.json(|| about(key, &written).bool("exists", exists))?;
            if exists { Exit::Done } else { no(&missing(key)) }
        }
        Command::Scan(scan) => {
            scan::run(client, scan, args.output, to.out)?;
            Exit::Done
        }
        Command::Digest => {
            let Digest { digest, keys, index, leader } = client.digest()?;
            to.say(
                || format!("{digest:016x} index={index} keys={keys}\n"),
                || {
                    let object = Object::default().text("digest", &format!("{digest:016x}"));
                    object.number("keys", keys).number("index", index).number("leader", leader)
                },
            )?;
            Exit::Done
        }
        Command::MemberList => {
            let fields = client.leader_status()?;
            to.say(|| members::table(&fields), || members::json(&fields))?;
            Exit::Done
        }
        Command::Member(request) => change_members(client, request, &mut to)?,
        Command::Status => status(client, &args.servers, &mut to)?,
        Command::Why => why_all(client, &args.servers, &mut to)?,
        _ => unreachable!("these are not requests"),
    };
    out.flush()?;
    Ok(exit)
}

/// Where answers go, and how they are written.
struct To<'a> {
    output: Output,
    out: &'a mut dyn Write,
}

impl To<'_> {
    /// As text, or as an object.
    fn say(
        &mut self,
        text: impl FnOnce() -> String,
        object: impl FnOnce() -> Object,
    ) -> io::Result<()> {
        match self.output {
            Output::Table => self.out.write_all(text().as_bytes()),
            Output::Json => writeln!(self.out, "{}", object().finish()),
        }
    }

    /// What is only worth saying to a program.
    fn json(&mut self, object: impl FnOnce() -> Object) -> io::Result<()> {
        self.say(String::new, object)
    }
}

fn about(key: &[u8], written: &Written) -> Object {
    let object = Object::default().bytes("key", key);
    object.number("index", written.index).number("leader", written.leader)
}

fn get(client: &mut Client, key: &[u8], to: &mut To<'_>) -> Result<Exit, Trouble> {
    let client::Read { value, index, leader } = client.get(key)?;
    if to.output == Output::Json {
        let object = Object::default().bytes("key", key);
        let object = match &value {
            Some(value) => object.bytes("value", value),
            None => object.null("value"),
        };
        to.json(|| object.number("index", index).number("leader", leader))?;
    }
    let Some(value) = value else { return Ok(no(&missing(key))) };
    if to.output == Output::Table {
        to.out.write_all(&value)?;
        to.out.write_all(b"\n")?;
    }
    Ok(Exit::Done)
}

fn after(ttl: Duration) -> Expiry {
    Expiry::After(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX))
}

fn ttl(client: &mut Client, key: &[u8], to: &mut To<'_>) -> Result<Exit, Trouble> {
    let Lifetime { expires_at, now } = client.expiry(key)?;
    let object = Object::default().bytes("key", key).bool("exists", expires_at.is_some());
    let left =
        expires_at.filter(|at| *at != 0).map(|at| Duration::from_millis(at.saturating_sub(now)));
    to.json(|| match left {
        Some(left) => object.number("milliseconds", left.as_millis() as u64),
        None => object.null("milliseconds"),
    })?;
    if expires_at.is_none() {
        return Ok(no(&missing(key)));
    }
    if to.output == Output::Table {
        match left {
            Some(left) => writeln!(to.out, "{:.3}s", left.as_secs_f64())?,
            None => writeln!(to.out, "never")?,
        }
    }
    Ok(Exit::Done)
}

fn change_members(
    client: &mut Client,
    request: &MemberRequest,
    to: &mut To<'_>,
) -> Result<Exit, Trouble> {
    let MemberChanged { index, leader } = client.member(request.clone())?;
    let (name, is) = match request {
        MemberRequest::Add { name } => (name.clone(), "is a learner"),
        MemberRequest::Promote { name } => (name.clone(), "is a voter"),
        MemberRequest::Remove { name } => (name.clone(), "is removed"),
        MemberRequest::Transfer { to: Some(name) } => (name.clone(), "leads"),
        MemberRequest::Transfer { to: None } => {
            // The answer has its number only; that it is known is enough if it is gone again.
            let name = client.leader_status().ok().and_then(|fields| members::own_name(&fields));
            (name.unwrap_or(format!("the node with number {leader}")), "leads")
        }
    };
    to.say(
        || match is {
            "leads" => format!("{name} leads\n"),
            _ => format!("{name} {is}, since index {index}\n"),
        },
        || {
            let object = Object::default().text("node", &name).text("result", is);
            object.number("index", index).number("leader", leader)
        },
    )?;
    Ok(Exit::Done)
}

fn ask_all(client: &mut Client, servers: &[String]) -> Vec<Report> {
    let report = |server: &String| Report { server: server.clone(), answer: client.status(server) };
    servers.iter().map(report).collect()
}

fn why_all(client: &mut Client, servers: &[String], to: &mut To<'_>) -> Result<Exit, Trouble> {
    let reports = ask_all(client, servers);
    to.say(|| why::text(&reports), || why::json(&reports))?;
    if reports.iter().all(|report| report.answer.is_err()) {
        return Ok(Exit::NotDone);
    }
    Ok(if why::is_well(&reports) { Exit::Done } else { Exit::No })
}

fn status(client: &mut Client, servers: &[String], to: &mut To<'_>) -> Result<Exit, Trouble> {
    let reports = ask_all(client, servers);
    let (warnings, notes) = (status::warnings(&reports), status::notes(&reports));
    to.say(
        || {
            let table = status::table(&reports);
            if colour::on_stdout() { status::coloured(&table) } else { table }
        },
        || status::json(&reports).texts("warnings", &warnings).texts("notes", &notes),
    )?;
    to.out.flush()?;
    // A program has them in its object.
    if to.output == Output::Table {
        for warning in &warnings {
            complain(&format!("warning: {warning}"));
        }
        for note in &notes {
            complain(&format!("note: {note}"));
        }
    }
    if reports.iter().all(|report| report.answer.is_err()) {
        return Ok(Exit::NotDone);
    }
    Ok(if warnings.is_empty() { Exit::Done } else { Exit::No })
}

fn input(value: &Input) -> Result<Vec<u8>, Trouble> {
    let Input::Literal(bytes) = value else {
        return read_all(io::stdin().lock()).map_err(Trouble::Input);
    };
    Ok(bytes.clone())
}

/// No value can be longer than a frame.
fn read_all(source: impl Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let limit = SKIP_BYTES_MAX as u64;
    source
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot read standard input: {error}"))?;
    if bytes.len() as u64 > limit {
        return Err(format!("standard input has more than {limit} bytes: too long for a value"));
    }
    Ok(bytes)
}

fn no(message: &str) -> Exit {
    complain(message);
    Exit::No
}

fn missing(key: &[u8]) -> String {
    format!("{}: no such key", name(key))
}

fn name(key: &[u8]) -> String {
    String::from_utf8_lossy(key).chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_input_is_taken_as_it_is_and_bounded() {
        assert_eq!(read_all(&b"line\n\0\xff"[..]), Ok(b"line\n\0\xff".to_vec()));
        assert!(read_all(io::repeat(0)).is_err());
    }
}
