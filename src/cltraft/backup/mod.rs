//! `cltraft backup`, `check` and `restore`.

mod file;
mod restore;

use super::args::{FileName, Output};
use super::commands::Trouble;
use super::json::Object;
use super::progress::Progress;
use super::units::format_bytes;
use super::{Exit, complain};
use crate::client::{BackupSource, Client};
use crate::kv::Machine;
use file::{Header, Writer};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

pub use restore::restore;

/// Takes a backup while the cluster serves.
pub fn backup(
    client: &mut Client,
    file: &FileName,
    force: bool,
    output: Output,
    out: &mut dyn Write,
) -> Result<Exit, Trouble> {
    match file {
        FileName::Standard => {
            // Also if its reader has exited: half a backup is none.
            let trouble = |error: io::Error| {
                Trouble::Input(format!("cannot write standard output: {error}; no backup was made"))
            };
            let (header, machine, _) = take(client, &mut *out).map_err(|error| match error {
                Trouble::Output(error) => trouble(error),
                other => other,
            })?;
            out.flush().map_err(trouble)?;
            // Standard output is the backup.
            complain(&described("standard output", &header, &machine));
            Ok(Exit::Done)
        }
        FileName::Path(path) => {
            if path.exists() && !force {
                let path = path.display();
                let what =
                    format!("{path} is there already: nothing was done; --force replaces it");
                return Err(Trouble::Input(what));
            }
            let (header, machine) = to_file(client, path)?;
            tell(output, &path.display().to_string(), &header, &machine, out)?;
            Ok(Exit::Done)
        }
    }
}

/// A file that is there is whole: it gets its name when everything is on the disk.
fn to_file(client: &mut Client, path: &Path) -> Result<(Header, Machine), Trouble> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    let trouble = |error: io::Error| {
        Trouble::Input(format!("cannot write {}: {error}; no backup was made", path.display()))
    };
    let write = |client: &mut Client| {
        let file = File::create(&temporary).map_err(trouble)?;
        let (header, machine, file) = take(client, file).map_err(|error| match error {
            Trouble::Output(error) => trouble(error),
            other => other,
        })?;
        file.sync_all().map_err(trouble)?;
        fs::rename(&temporary, path).map_err(trouble)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = File::open(parent.unwrap_or(Path::new("."))).map_err(trouble)?;
        folder.sync_all().map_err(trouble)?;
        Ok((header, machine))
    };
    let result = write(client);
    if result.is_err() {
        // It may not even have been made.
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn take<W: Write>(client: &mut Client, out: W) -> Result<(Header, Machine, W), Trouble> {
    let source: BackupSource = client.begin_backup()?;
    let taken_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let BackupSource { cluster_id, index, term, bytes, .. } = source;
    let header = Header { cluster_id, index, term, taken_at, bytes };
    let mut writer = Writer::begin(out, &header)?;
    let mut progress = Progress::on_stderr();
    let mut offset = 0;
    let nonsense =
        |what: &str| Trouble::Input(format!("{} sent no sensible snapshot: {what}", source.server));
    while offset < bytes {
        let piece = client.backup_piece(&source, offset)?;
        offset += piece.len() as u64;
        if piece.is_empty() || offset > bytes {
            return Err(nonsense("a piece of it is too short or too long"));
        }
        writer.add(&piece)?.map_err(|malformed| nonsense(malformed.0))?;
        progress.bar(offset, bytes, format_bytes);
    }
    progress.end();
    let (out, machine) = writer.end()?;
    let machine = machine.map_err(|malformed| nonsense(malformed.0))?;
    if machine.applied() != index {
        return Err(nonsense("it is of another index"));
    }
    Ok((header, machine, out))
}

/// Reads a backup from its beginning to its end.
fn read(file: &FileName) -> Result<(Header, Machine), Trouble> {
    let mut progress = Progress::on_stderr();
    let mut told = |done, total| progress.bar(done, total, format_bytes);
    let name = name_of(file);
    let result = match file {
        FileName::Standard => file::read(&mut io::stdin().lock(), &mut told),
        FileName::Path(path) => {
            let open = File::open(path);
            let mut source =
                open.map_err(|error| Trouble::Input(format!("cannot open {name}: {error}")))?;
            file::read(&mut source, &mut told)
        }
    };
    progress.end();
    result.map_err(|bad| Trouble::Input(format!("{name} {bad}; nothing was done")))
}

fn name_of(file: &FileName) -> String {
    match file {
        FileName::Standard => "standard input".to_owned(),
        FileName::Path(path) => path.display().to_string(),
    }
}

/// Whether a file is a whole backup.
pub fn check(file: &FileName, output: Output, out: &mut dyn Write) -> Result<Exit, Trouble> {
    let (header, machine) = read(file)?;
    tell(output, &name_of(file), &header, &machine, out)?;
    Ok(Exit::Done)
}

fn tell(
    output: Output,
    name: &str,
    header: &Header,
    machine: &Machine,
    out: &mut dyn Write,
) -> io::Result<()> {
    match output {
        Output::Table => writeln!(out, "{}", described(name, header, machine))?,
        Output::Json => writeln!(out, "{}", json(name, header, machine).finish())?,
    }
    out.flush()
}

fn described(name: &str, header: &Header, machine: &Machine) -> String {
    let store = machine.store();
    format!(
        "{name}: {} keys, {}, digest {:016x}, index {}, cluster {:016x}",
        store.len(),
        format_bytes(header.bytes),
        store.digest(),
        header.index,
        header.cluster_id
    )
}

fn json(name: &str, header: &Header, machine: &Machine) -> Object {
    let store = machine.store();
    Object::default()
        .text("file", name)
        .number("keys", store.len() as u64)
        .number("bytes", header.bytes)
        .text("digest", &format!("{:016x}", store.digest()))
        .number("index", header.index)
        .number("term", header.term)
        .text("cluster", &format!("{:016x}", header.cluster_id))
        .number("taken_at", header.taken_at)
}
