//! `cltraft restore`: the keys of a backup into a running cluster, through its log. Members, sessions and the id
//! of the cluster that the backup is of are not restored: they are that cluster's, and not this one's.

use super::super::args::{FileName, Output};
use super::super::commands::Trouble;
use super::super::json::Object;
use super::super::progress::Progress;
use super::super::units::format_bytes;
use super::super::{Exit, complain};
use super::{name_of, read};
use crate::client::{Client, ClientConfig, ClientError, Written};
use crate::kv::{Blobs, Expiry, Store};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Keys and values of one write, in bytes; a longer pair goes alone. It fits into a frame of any server.
const BATCH_BYTES_MAX: usize = 32 * 1024;
const BATCH_KEYS_MAX: usize = 1024;
/// Writes under way, each in a session of its own, so that each is carried out once however often it is sent.
const WRITERS: usize = 4;
/// Between two looks at how far it has come.
const LOOK: Duration = Duration::from_millis(50);

pub fn restore(
    client: &mut Client,
    config: &ClientConfig,
    file: &FileName,
    merge: bool,
    output: Output,
    out: &mut dyn Write,
) -> Result<Exit, Trouble> {
    let (_, machine) = read(file)?;
    let before = client.digest()?;
    if before.keys > 0 && !merge {
        return Err(Trouble::Input(format!(
            "the cluster holds {} keys: nothing was done; --merge writes the backup's keys over those of the same \
             name, and leaves the others",
            before.keys
        )));
    }
    let (keys, digest) = (machine.store().len() as u64, machine.store().digest());
    let expiring = machine.store().expiring();
    let batches = batches(machine.store());
    drop(machine);
    write_all(config, &batches)?;
    let after = client.digest()?;
    let is_same = after.digest == digest;
    match output {
        Output::Table => {
            let verdict = if is_same { "the same" } else { "not that of the backup" };
            let (name, now) = (name_of(file), after.digest);
            writeln!(
                out,
                "{name}: {keys} keys restored; the cluster's digest is {now:016x}, {verdict}"
            )?;
        }
        Output::Json => {
            let object = Object::default()
                .number("keys", keys)
                .text("digest", &format!("{digest:016x}"))
                .number("keys_of_the_cluster", after.keys)
                .text("digest_of_the_cluster", &format!("{:016x}", after.digest))
                .bool("same", is_same);
            writeln!(out, "{}", object.finish())?;
        }
    }
    out.flush()?;
    match (is_same, before.keys) {
        (true, _) => Ok(Exit::Done),
        (false, 0) if expiring > 0 => {
            complain(&format!(
                "{expiring} of the keys go by themselves; the time of some may have come"
            ));
            Ok(Exit::Done)
        }
        (false, 0) => {
            complain(
                "the cluster was empty, and holds something else now: has somebody written meanwhile?",
            );
            Ok(Exit::No)
        }
        (false, _) => {
            complain("the cluster held keys before, so that this is to be expected");
            Ok(Exit::Done)
        }
    }
}

struct Batch {
    write: OneWrite,
    bytes: usize,
}

enum OneWrite {
    /// Keys and values, encoded.
    Many(Vec<u8>),
    /// A key that goes by itself, and when.
    Until { key: Vec<u8>, value: Vec<u8>, expires_at: u64 },
}

impl Batch {
    fn carry_out(&self, client: &mut Client) -> Result<Written, ClientError> {
        match &self.write {
            OneWrite::Many(encoded) => {
                client.put_many(Blobs::new(encoded).expect("it was just encoded"))
            }
            OneWrite::Until { key, value, expires_at } => {
                let at = i64::try_from(*expires_at).unwrap_or(i64::MAX);
                client.put_until(key, value, Expiry::At(at))
            }
        }
    }
}

fn batches(store: &Store) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut items: Vec<&[u8]> = Vec::new();
    let mut bytes = 0;
    let close = |items: &mut Vec<&[u8]>, bytes: &mut usize| {
        let write = OneWrite::Many(Blobs::to_bytes(items.drain(..)));
        Batch { write, bytes: std::mem::take(bytes) }
    };
    for (key, value) in store.range(b"", None) {
        let pair = key.len() + value.len();
        let expires_at = store.item(key).map_or(0, |item| item.expires_at);
        if expires_at != 0 {
            let (key, value) = (key.to_vec(), value.to_vec());
            batches.push(Batch { write: OneWrite::Until { key, value, expires_at }, bytes: pair });
            continue;
        }
        let is_full = bytes + pair > BATCH_BYTES_MAX || items.len() >= 2 * BATCH_KEYS_MAX;
        if is_full && !items.is_empty() {
            batches.push(close(&mut items, &mut bytes));
        }
        items.extend([&key[..], &value[..]]);
        bytes += pair;
    }
    if !items.is_empty() {
        batches.push(close(&mut items, &mut bytes));
    }
    batches
}

fn write_all(config: &ClientConfig, batches: &[Batch]) -> Result<(), ClientError> {
    let total: u64 = batches.iter().map(|batch| batch.bytes as u64).sum();
    let (next, done, failed) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let error = Mutex::new(None);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS.min(batches.len()))
            .map(|_| {
                scope.spawn(|| {
                    let config = ClientConfig { seed: fastrand::u64(..), ..config.clone() };
                    let mut client = Client::new(config);
                    while !failed.load(Ordering::Relaxed)
                        && let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        if let Err(trouble) = batch.carry_out(&mut client) {
                            let mut error = error.lock().unwrap_or_else(PoisonError::into_inner);
                            error.get_or_insert(trouble);
                            failed.store(true, Ordering::Relaxed);
                        } else {
                            done.fetch_add(batch.bytes as u64, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        let mut progress = Progress::on_stderr();
        while writers.iter().any(|writer| !writer.is_finished()) {
            progress.bar(done.load(Ordering::Relaxed), total, format_bytes);
            thread::sleep(LOOK);
        }
        progress.end();
    });
    let error = error.into_inner().unwrap_or_else(PoisonError::into_inner);
    if error.is_some() {
        let done = format_bytes(done.load(Ordering::Relaxed));
        complain(&format!("{done} were restored before it failed; run it again with --merge"));
    }
    // A part of the keys may be there, which is no promise that nothing was changed.
    match error {
        None => Ok(()),
        Some(
            ClientError::NotDone { why, servers } | ClientError::OutcomeUnknown { why, servers },
        ) => Err(ClientError::OutcomeUnknown { why, servers }),
    }
}
