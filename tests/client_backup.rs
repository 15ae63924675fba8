//! `cltraft backup`, `check` and `restore` against real nodes.

#[allow(dead_code)] // Other tests use the rest.
mod processes;

use processes::{Cluster, PATIENCE, await_condition, run, wait_for_exit};
use raftkv::client::{BackupSource, Client, ClientError, Why};
use raftkv::kv::Blobs;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("raftkv-backup-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a folder for the test");
        Folder(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("the name is text").to_owned()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("it is there");
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        entries.map(|entry| name(entry.expect("it can be read"))).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("the folder is the test's own");
    }
}

fn cltraft(cluster: &Cluster, words: &[&str]) -> Command {
    let servers: Vec<String> = (0..cluster.size()).map(|node| cluster.address(node)).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cltraft"));
    command.env_clear().args(["--servers", &servers.join(",")]).args(words);
    command
}

fn put_all(client: &mut Client, pairs: &[(String, String)]) {
    for some in pairs.chunks(100) {
        let items = some.iter().flat_map(|(key, value)| [key.as_bytes(), value.as_bytes()]);
        let encoded = Blobs::to_bytes(items);
        client.put_many(Blobs::new(&encoded).expect("just encoded")).expect("it is written");
    }
}

/// More than a few pieces of a snapshot, and many writes of a restore.
fn many(count: usize) -> Vec<(String, String)> {
    (0..count).map(|n| (format!("many/{n:06}"), format!("{n}-").repeat(100))).collect()
}

/// `"name":"text"` of an answer in JSON.
fn text<'a>(json: &'a str, name: &str) -> &'a str {
    let (_, after) = json.split_once(&format!("\"{name}\":\"")).unwrap_or_else(|| panic!("{json}"));
    after.split('"').next().expect("a split has a first part")
}

/// Each writer writes two keys together, so that they differ in no state that there ever was.
#[test]
fn a_backup_under_writes_is_of_one_moment_and_has_all_that_was_acknowledged() {
    const WRITERS: usize = 8;
    let cluster = Cluster::start(3, &["--snapshot-log-bytes", "64KiB"]);
    cluster.await_leader();
    put_all(&mut cluster.client(), &many(2000));
    let folder = Folder::new();
    let (file, is_over) = (folder.file("b"), AtomicBool::new(false));
    let acknowledged: Vec<AtomicU64> = (0..WRITERS).map(|_| AtomicU64::new(0)).collect();
    let before = thread::scope(|scope| {
        for (writer, acknowledged) in acknowledged.iter().enumerate() {
            let (cluster, is_over) = (&cluster, &is_over);
            scope.spawn(move || {
                let mut client = cluster.client();
                // The first before all other keys, the second behind them.
                let names = [format!("a/{writer}"), format!("z/{writer}")];
                for number in 1.. {
                    let value = number.to_string();
                    let pairs = names.clone().map(|name| (name, value.clone()));
                    put_all(&mut client, &pairs);
                    acknowledged.store(number, Ordering::SeqCst);
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        await_condition("all writers to write", || {
            acknowledged.iter().all(|count| count.load(Ordering::SeqCst) > 3)
        });
        let before: Vec<u64> =
            acknowledged.iter().map(|count| count.load(Ordering::SeqCst)).collect();
        let (status, told, said) = run(&mut cltraft(&cluster, &["backup", &file]));
        is_over.store(true, Ordering::Relaxed);
        assert_eq!((status, said.as_str()), (Some(0), ""), "{told}");
        assert!(told.starts_with(&format!("{file}: 2016 keys, ")), "{told}");
        before
    });
    assert_eq!(folder.names(), ["b"], "nothing else is left");
    let fresh = Cluster::start(1, &[]);
    fresh.await_leader();
    let (status, told, said) = run(&mut cltraft(&fresh, &["restore", &file]));
    assert_eq!((status, said.as_str()), (Some(0), ""), "{told}");
    assert!(told.contains("2016 keys restored") && told.ends_with(", the same\n"), "{told}");
    let mut client = fresh.client();
    for (writer, before) in before.into_iter().enumerate() {
        let mut read = |key: String| client.get(key.as_bytes()).expect("it is read").value;
        let (first, second) = (read(format!("a/{writer}")), read(format!("z/{writer}")));
        assert_eq!(first, second, "writer {writer} is torn");
        let number: u64 = String::from_utf8(first.expect("it is there")).unwrap().parse().unwrap();
        assert!(number >= before, "writer {writer}: {before} was acknowledged, {number} is there");
    }
    let (_, checked, _) = run(&mut cltraft(&fresh, &["check", &file, "--output", "json"]));
    let digest = format!("{:016x}", client.digest().unwrap().digest);
    assert_eq!(text(&checked, "digest"), digest);
    let missing: Vec<String> = many(2000)
        .into_iter()
        .filter(|(key, value)| {
            client.get(key.as_bytes()).unwrap().value != Some(value.clone().into())
        })
        .map(|(key, _)| key)
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_damaged_byte_and_every_missing_end_is_noticed() {
    let cluster = Cluster::start(1, &[]);
    cluster.await_leader();
    put_all(&mut cluster.client(), &[("a".into(), "1".into()), ("b".into(), "2".into())]);
    let folder = Folder::new();
    let (file, bad) = (folder.file("good"), folder.file("bad"));
    assert_eq!(run(&mut cltraft(&cluster, &["backup", &file])).0, Some(0));
    assert_eq!(run(&mut cltraft(&cluster, &["check", &file])).0, Some(0));
    let good = fs::read(&file).unwrap();
    assert!(good.len() < 1000, "each byte takes a process: {}", good.len());
    let assert_noticed = |bytes: &[u8], what: &str| {
        fs::write(&bad, bytes).unwrap();
        let (status, told, said) = run(&mut cltraft(&cluster, &["check", &bad]));
        assert_eq!((status, told.as_str()), (Some(3), ""), "{what}: {said}");
        assert!(said.starts_with(&format!("{bad} is damaged at byte ")), "{what}: {said}");
    };
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        assert_noticed(&bytes, &format!("byte {at}"));
    }
    for length in (0..good.len()).step_by(7) {
        assert_noticed(&good[..length], &format!("cut after {length}"));
    }
    assert_noticed(&[&good[..], b"x"].concat(), "a byte too many");
    // Nothing of a damaged file is restored.
    fs::write(&bad, &good[..good.len() - 1]).unwrap();
    let fresh = Cluster::start(1, &[]);
    fresh.await_leader();
    assert_eq!(run(&mut cltraft(&fresh, &["restore", &bad])).0, Some(3));
    assert_eq!(fresh.client().digest().unwrap().keys, 0);
}

#[test]
fn a_restore_that_was_killed_is_run_again() {
    let cluster = Cluster::start(1, &[]);
    cluster.await_leader();
    put_all(&mut cluster.client(), &many(10_000));
    let folder = Folder::new();
    let file = folder.file("b");
    assert_eq!(run(&mut cltraft(&cluster, &["backup", &file])).0, Some(0));
    let fresh = Cluster::start(1, &[]);
    fresh.await_leader();
    let mut command = cltraft(&fresh, &["restore", &file]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut client = fresh.client();
    await_condition("the first keys", || client.digest().unwrap().keys > 0);
    child.kill().expect("the process is ours");
    wait_for_exit(&mut child);
    let (status, _, said) = run(&mut cltraft(&fresh, &["restore", &file]));
    assert!(status == Some(3) && said.contains("--merge"), "{said}");
    let (status, told, _) = run(&mut cltraft(&fresh, &["restore", &file, "--merge"]));
    assert!(status == Some(0) && told.ends_with(", the same\n"), "{told}");
    client.put(b"another", b"key").unwrap();
    let words = ["restore", "--merge", &file, "--output", "json"];
    let (status, told, said) = run(&mut cltraft(&fresh, &words));
    assert!(status == Some(0) && told.contains("\"same\":false"), "{told}");
    assert!(said.contains("to be expected"), "{said}");
}

#[test]
fn a_file_that_is_there_is_kept_and_a_pipe_will_do() {
    let cluster = Cluster::start(1, &[]);
    cluster.await_leader();
    let folder = Folder::new();
    let file = folder.file("b");
    fs::write(&file, "precious").unwrap();
    let (status, _, said) = run(&mut cltraft(&cluster, &["backup", &file]));
    assert!(status == Some(3) && said.contains("--force"), "{said}");
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    // A cluster without a key has a backup as well.
    let words = ["backup", "--force", &file, "--output", "json"];
    let (status, told, _) = run(&mut cltraft(&cluster, &words));
    assert!(status == Some(0) && told.contains("\"keys\":0,"), "{told}");
    let output = cltraft(&cluster, &["backup", "-"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut command = cltraft(&cluster, &["check", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &output.stdout).unwrap();
    let checked = child.wait_with_output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let nowhere = folder.file("no/such/folder");
    let (status, _, said) = run(&mut cltraft(&cluster, &["backup", &nowhere]));
    assert!(status == Some(3) && said.contains("no backup was made"), "{said}");
    assert_eq!(folder.names(), ["b"]);
}

/// Also of a node that has just started again, from the snapshot that it found.
#[test]
fn an_idle_cluster_needs_no_other_snapshot_and_a_lost_one_is_told() {
    let mut cluster = Cluster::start(1, &[]);
    cluster.await_leader();
    let mut client = cluster.client();
    put_all(&mut client, &many(10));
    let first = client.begin_backup().expect("it is there");
    let again = client.begin_backup().expect("it is there");
    assert_eq!(first, again);
    let bytes = client.backup_piece(&first, 0).expect("it is read");
    assert_eq!(bytes.len() as u64, first.bytes);
    let rest = client.backup_piece(&first, 7).expect("it is read");
    assert_eq!(rest, bytes[7..]);
    let gone = BackupSource { term: first.term + 1, ..first.clone() };
    for (source, offset) in [(&gone, 0), (&first, first.bytes), (&first, u64::MAX)] {
        let error = client.backup_piece(source, offset).expect_err("there is no such piece");
        assert!(matches!(&error, ClientError::NotDone { why: Why::Rejected(_), .. }), "{error}");
        assert!(error.to_string().contains("begin the backup again"), "{error}");
    }
    cluster.kill(0);
    cluster.start_node(0);
    cluster.await_leader();
    let mut client = cluster.client_of(0, PATIENCE);
    assert_eq!(client.backup_piece(&first, 0).expect("the file is still there"), bytes);
    let later = client.begin_backup().expect("it is there");
    assert!(later.index > first.index, "the new leader's own entry is in it");
}

#[test]
fn times_at_which_keys_go_are_restored() {
    let cluster = Cluster::start(1, &[]);
    cluster.await_leader();
    let told = |cluster: &Cluster, words: &[&str]| {
        let (status, told, said) = run(&mut cltraft(cluster, words));
        assert_eq!(status, Some(0), "{words:?}: {said}");
        told
    };
    told(&cluster, &["put", "a", "stays"]);
    told(&cluster, &["put", "b", "goes", "--ttl", "1h"]);
    told(&cluster, &["put", "c", "goes"]);
    told(&cluster, &["expire", "c", "2h"]);
    told(&cluster, &["put", "d", "stays", "--ttl", "1h"]);
    told(&cluster, &["expire", "d", "never"]);
    told(&cluster, &["expire", "a", "never"]);
    let (status, _, _) = run(&mut cltraft(&cluster, &["expire", "x", "never"]));
    assert_eq!(status, Some(1), "there is no such key");
    let folder = Folder::new();
    let file = folder.file("b");
    told(&cluster, &["backup", &file]);
    let fresh = Cluster::start(1, &[]);
    fresh.await_leader();
    assert!(told(&fresh, &["restore", &file]).ends_with(", the same\n"));
    for (key, time) in [("a", "never\n"), ("d", "never\n"), ("b", "35"), ("c", "71")] {
        let left = told(&fresh, &["ttl", key]);
        assert!(left.starts_with(time), "{key}: {left}");
    }
    let gone = told(&fresh, &["ttl", "b", "--output", "json"]);
    assert!(gone.starts_with("{\"key\":\"b\",\"exists\":true,\"milliseconds\":35"), "{gone}");
    assert_eq!(run(&mut cltraft(&fresh, &["ttl", "x"])).0, Some(1));
}
