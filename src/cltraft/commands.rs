//! The one-shot commands: one request, its answer to standard output.

use super::args::{Args, Command, Input};
use super::members;
use super::status::{self, Report};
use super::{Exit, complain};
use crate::client::{Client, ClientError, MemberChanged};
use crate::kv::{MemberRequest, Outcome};
use crate::protocol::frame::SKIP_BYTES_MAX;
use std::io::{self, Read, Write};

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

/// Carries out any command that is one request. `out` is flushed.
pub fn run(client: &mut Client, args: &Args, out: &mut dyn Write) -> Result<Exit, Trouble> {
    let exit = match &args.command {
        Command::Get { key } => get(client, key, out)?,
        Command::Put { key, value } => {
            client.put(key, &input(value)?)?;
            Exit::Done
        }
        Command::Delete { key } => match client.delete(key)?.outcome {
            Outcome::Deleted(true) => Exit::Done,
            _ => no(&missing(key)),
        },
        Command::CompareAndSet { key, expected, value } => {
            match client.compare_and_set(key, expected.as_deref(), value)?.outcome {
                Outcome::Swapped(true) => Exit::Done,
                _ if expected.is_none() => no(&format!("{}: the key exists", name(key))),
                _ => no(&format!("{}: does not hold the expected value", name(key))),
            }
        }
        Command::Increment { key, delta } => {
            if let Outcome::Counter(sum) = client.increment(key, *delta)?.outcome {
                writeln!(out, "{sum}")?;
            }
            Exit::Done
        }
        Command::Digest => {
            let state = client.digest()?;
            writeln!(out, "{:016x} index={} keys={}", state.digest, state.index, state.keys)?;
            Exit::Done
        }
        Command::MemberList => {
            out.write_all(members::table(&client.leader_status()?).as_bytes())?;
            Exit::Done
        }
        Command::Member(request) => change_members(client, request, out)?,
        Command::Status => status(client, &args.servers, out)?,
        Command::Verify { .. } | Command::Changes { .. } | Command::Help(_) | Command::Version => {
            unreachable!("these are not requests")
        }
    };
    out.flush()?;
    Ok(exit)
}

fn get(client: &mut Client, key: &[u8], out: &mut dyn Write) -> Result<Exit, Trouble> {
    let Some(value) = client.get(key)?.value else { return Ok(no(&missing(key))) };
    out.write_all(&value)?;
    out.write_all(b"\n")?;
    Ok(Exit::Done)
}

fn change_members(
    client: &mut Client,
    request: &MemberRequest,
    out: &mut dyn Write,
) -> Result<Exit, Trouble> {
    let MemberChanged { index, leader } = client.member(request.clone())?;
    match request {
        MemberRequest::Add { name } => writeln!(out, "{name} is a learner, since index {index}")?,
        MemberRequest::Promote { name } => writeln!(out, "{name} is a voter, since index {index}")?,
        MemberRequest::Remove { name } => writeln!(out, "{name} is removed, since index {index}")?,
        MemberRequest::Transfer { to: Some(name) } => writeln!(out, "{name} leads")?,
        MemberRequest::Transfer { to: None } => {
            // The answer has its number only; that it is known is enough if it is gone again.
            let name = client.leader_status().ok().and_then(|fields| members::own_name(&fields));
            writeln!(out, "{} leads", name.unwrap_or(format!("the node with number {leader}")))?;
        }
    }
    Ok(Exit::Done)
}

fn status(client: &mut Client, servers: &[String], out: &mut dyn Write) -> Result<Exit, Trouble> {
    let report = |server: &String| Report { server: server.clone(), answer: client.status(server) };
    let reports: Vec<_> = servers.iter().map(report).collect();
    out.write_all(status::table(&reports).as_bytes())?;
    out.flush()?;
    let warnings = status::warnings(&reports);
    for warning in &warnings {
        complain(&format!("warning: {warning}"));
    }
    for note in status::notes(&reports) {
        complain(&format!("note: {note}"));
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
