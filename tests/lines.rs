//! Real processes whose standard output or error takes nothing: a full disk, a pipe whose reader has exited, and one that
//! nobody reads. Nobody is harmed by a line that cannot be written, and data is not lost in silence.

#[allow(dead_code)] // Other tests use the rest.
mod processes;

use processes::{Cluster, await_condition, free_ports, run, wait_for_exit};
use raftkv::config::cluster_id;
use raftkv::lines;
use raftkv::node::Standing;
use raftkv::protocol::frame::{MAGIC, put_frame};
use raftkv::protocol::hello::{Hello, Role};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, PipeReader, PipeWriter, Read, Write, pipe};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

const QUICK: [&str; 4] = ["--heartbeat", "20ms", "--election", "150ms"];
const FILLING: u8 = b'#';

fn full_disk() -> OwnedFd {
    File::options().write(true).open("/dev/full").expect("Linux has it").into()
}

fn pipe_without_reader() -> OwnedFd {
    pipe().expect("a pipe").1.into()
}

/// A pipe that is full, and its reader, which does not read.
fn full_pipe() -> (PipeReader, OwnedFd) {
    let (reader, writer) = pipe().expect("a pipe");
    fill(&writer);
    (reader, writer.into())
}

fn fill(mut writer: &PipeWriter) {
    let flags = fcntl_getfl(writer.as_fd()).expect("its flags");
    fcntl_setfl(writer.as_fd(), flags | OFlags::NONBLOCK).expect("it is ours");
    for piece in [&[FILLING; 4096][..], &[FILLING]] {
        while writer.write(piece).is_ok() {}
    }
    // A process that gets it waits, unless it takes care not to.
    fcntl_setfl(writer.as_fd(), flags).expect("it is ours");
}

/// What can be read now, without the filling.
fn read_now(reader: &mut PipeReader) -> String {
    let flags = fcntl_getfl(reader.as_fd()).expect("its flags");
    fcntl_setfl(reader.as_fd(), flags | OFlags::NONBLOCK).expect("it is ours");
    let mut bytes = Vec::new();
    if let Err(error) = reader.read_to_end(&mut bytes) {
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
    bytes.retain(|byte| *byte != FILLING);
    String::from_utf8(bytes).expect("text")
}

fn dropped(cluster: &Cluster) -> u64 {
    cluster.info(0).expect("it answers")["log_lines_dropped"].parse().expect("a number")
}

/// A node that leads, with data, whose log goes there.
fn node_that_says_it_to(output: OwnedFd) -> Cluster {
    let mut cluster = Cluster::stopped(1, &QUICK);
    let mut command = cluster.command(0);
    command.stdin(Stdio::null());
    cluster.start_with_output(0, command, output);
    cluster.await_leader();
    assert_eq!(cluster.nc(0, "SET a 1\n"), "+OK\r\n");
    assert!(dropped(&cluster) > 0);
    cluster
}

#[test]
fn a_node_whose_log_is_on_a_full_disk_goes_on_and_tells_how_much_is_missing() {
    let mut cluster = node_that_says_it_to(full_disk());
    let trouble = "lines of its log are lost: stderr took no more (No space left on device)";
    assert!(cluster.nc(0, "WHY\n").contains(&format!("raft-0: {trouble}\r\n")));
    let metrics = cluster.nc(0, "GET /metrics HTTP/1.0\r\n\r\n");
    let sample = metrics.lines().find(|line| line.starts_with("raftkv_log_lines_dropped_total "));
    assert!(!sample.expect("it is counted").ends_with(" 0"), "{metrics}");
    assert_eq!(cluster.terminate(0).code(), Some(0));
    // And once more, from its data.
    let mut command = cluster.command(0);
    command.stdin(Stdio::null());
    cluster.start_with_output(0, command, full_disk());
    cluster.await_leader();
    assert_eq!(cluster.nc(0, "GET a\n"), "$1\r\n1\r\n");
}

#[test]
fn a_node_whose_logs_reader_has_exited_goes_on() {
    let mut cluster = node_that_says_it_to(pipe_without_reader());
    assert!(cluster.nc(0, "WHY\n").contains("stderr took no more (Broken pipe)"));
    assert_eq!(cluster.terminate(0).code(), Some(0));
}

#[test]
fn a_node_whose_log_nobody_reads_goes_on_and_says_later_how_many_lines_are_missing() {
    let (mut reader, output) = full_pipe();
    let mut cluster = node_that_says_it_to(output.try_clone().expect("a second handle"));
    let missing = dropped(&cluster);
    // Nor do the standard library's last words wait, when memory or stack are at their end.
    let flags = std::fs::read_to_string(format!("/proc/{}/fdinfo/2", cluster.process_id(0)));
    let flags = flags.expect("it runs");
    let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).expect("its flags");
    let flags = u32::from_str_radix(flags.trim(), 8).expect("a number");
    assert!(OFlags::from_bits_retain(flags).contains(OFlags::NONBLOCK), "{flags:o}");
    let why = "stderr took no more (nobody reads it, or too slowly)";
    let note = format!("WARN  [raftkv::lines] {missing} log lines were dropped: {why}\n");
    let mut said = String::new();
    await_condition("the count", || {
        said += &read_now(&mut reader);
        said.ends_with(&note)
    });
    assert_eq!(said.matches('\n').count(), 1, "{said}");
    assert!(!cluster.nc(0, "WHY\n").contains("lines of its log"));
    cluster.signal(0, Signal::HUP);
    await_condition("the lines after it", || {
        said += &read_now(&mut reader);
        said.ends_with("raft-0 has nothing to reload, and goes on: SIGHUP\n")
    });
    assert_eq!(dropped(&cluster), missing);
    // The description that others share waits for its reader as before.
    assert!(!fcntl_getfl(&output).expect("its flags").contains(OFlags::NONBLOCK));
    assert_eq!(cluster.terminate(0).code(), Some(0));
}

#[test]
fn a_node_whose_log_may_not_grow_goes_on() {
    let mut cluster = Cluster::stopped(1, &QUICK);
    let log = File::options().create(true).append(true).open(cluster.log_path(0)).unwrap();
    // Longer than any file of the node, and as long as a file may be.
    log.set_len(32 << 20).expect("a file with a hole");
    let given = cluster.command(0);
    let mut command = Command::new("bash");
    command.args(["-c", "ulimit -f $((32 << 10)); exec \"$0\" \"$@\""]).arg(given.get_program());
    command.args(given.get_args()).stdin(Stdio::null());
    cluster.start_with_output(0, command, log.into());
    cluster.await_leader();
    assert!(cluster.nc(0, "WHY\n").contains("stderr took no more (File too large)"));
    assert_eq!(cluster.terminate(0).code(), Some(0));
}

/// As a disk leaves it that was full when the node was killed.
#[test]
fn half_a_line_that_a_killed_node_left_is_not_glued_to_the_next() {
    let mut cluster = Cluster::stopped(1, &QUICK);
    std::fs::write(cluster.log_path(0), "half a li").expect("the file is the test's own");
    cluster.start_node(0);
    cluster.await_leader();
    let log = cluster.log(0);
    let (first, second) = log.split_once('\n').expect("it has lines");
    assert_eq!(first, "half a li");
    assert!(second.contains(" INFO  [raftkv::"), "{log}");
}

/// Names in a hello are whatever somebody sends.
#[test]
fn what_strangers_say_is_one_line_of_the_log_and_moves_no_cursor() {
    let cluster = Cluster::start(3, &["--log-level", "debug", "--cluster", "test"]);
    let leader = cluster.await_leader();
    let number = u64::from(leader == 0);
    let with_escapes = "evil\r\nraft_role:none\x1b[2J".to_string();
    let reversed = format!("evil\u{202e}{}", "\u{2028}".repeat(70));
    let peer = |name: &String| Role::Peer {
        node: number,
        incarnation: 7,
        name: name.clone(),
        standing: Standing::Empty,
        address: name.clone(),
        limits: None,
    };
    let client = |name: &String| Role::Client { name: name.clone() };
    for (role, is_answered) in [
        (peer(&with_escapes), false),
        (client(&with_escapes), false),
        (peer(&reversed), true),
        (client(&reversed), true),
    ] {
        let hello = Hello { version_min: 2, version_max: 2, cluster_id: cluster_id("test"), role };
        let mut bytes = MAGIC.to_vec();
        put_frame(&mut bytes, |out| hello.encode(out));
        let mut stream = cluster.connect(leader);
        stream.write_all(&bytes).expect("it is sent");
        assert_eq!(stream.read_exact(&mut [0; 8]).is_ok(), is_answered, "{hello:?}");
    }
    let shown = format!("evil\\u{{202e}}{}", "\\u{2028}".repeat(70));
    await_condition("both to be told", || {
        let log = cluster.log(leader);
        log.contains(&format!("client {shown}\n")) && log.contains(&format!(", not {shown}\n"))
    });
    let log = cluster.log(leader);
    assert!(
        log.chars().all(|letter| letter == '\n' || lines::clean(&letter.to_string()).len() == 1)
    );
    let info = cluster.info(leader).expect("it answers");
    assert_eq!(info["raft_role"], "leader");
    assert!(info["refused_0"].ends_with(&format!(", not {shown}")), "{info:?}");
}

const CHILD: &str = "RAFTKV_TEST_PANICS";

/// The next test, in a process of its own that says it to `error`.
fn panics(error: Stdio) -> Child {
    Command::new(std::env::current_exe().expect("it runs"))
        .args(["--exact", "a_panic", "--ignored", "--nocapture"])
        .env(CHILD, "1")
        .env_remove("RUST_BACKTRACE")
        .stdout(Stdio::null())
        .stderr(error)
        .spawn()
        .expect("it starts")
}

#[test]
fn a_panic_is_one_line_and_waits_for_no_reader() {
    let (_reader, writer) = full_pipe();
    assert_eq!(wait_for_exit(&mut panics(writer.into())).code(), Some(0));
    let mut child = panics(Stdio::piped());
    assert_eq!(wait_for_exit(&mut child).code(), Some(0));
    let mut said = String::new();
    child.stderr.take().expect("it is piped").read_to_string(&mut said).expect("it is text");
    assert!(said.starts_with("dressed: thread 'a_panic' panicked at tests/lines.rs:"), "{said}");
    assert!(said.ends_with(": the first line\\nthe second\n"), "{said}");
}

#[test]
#[ignore = "panics: the test before this one runs it"]
fn a_panic() {
    if std::env::var_os(CHILD).is_some() {
        lines::set_panic_hook(|line| format!("dressed: {}", lines::clean(line)));
        let panicked = std::panic::catch_unwind(|| panic!("the first line\nthe second"));
        std::process::exit(i32::from(panicked.is_ok()));
    }
}

#[test]
fn help_is_printed_as_far_as_somebody_reads_it() {
    let srvraft = || Command::new(env!("CARGO_BIN_EXE_srvraft"));
    for words in [&["--help"][..], &["--version"]] {
        let (status, _, said) =
            run(srvraft().args(words).stdout(Stdio::from(pipe_without_reader())));
        assert_eq!((status, said.as_str()), (Some(0), ""));
        let (status, _, said) = run(srvraft().args(words).stdout(Stdio::from(full_disk())));
        assert_eq!(status, Some(1));
        assert!(said.starts_with("srvraft: cannot write to standard output: No space"), "{said}");
    }
    for error in [full_disk(), pipe_without_reader()] {
        let status = srvraft().arg("--nonsense").stderr(error).status().expect("it starts");
        assert_eq!(status.code(), Some(2));
    }
}

/// The main job, watched through its port.
struct MainJob {
    child: Child,
    address: String,
}

impl MainJob {
    fn start(cluster: &Cluster, stdout: Stdio, stderr: Stdio) -> MainJob {
        let address = format!("127.0.0.1:{}", free_ports(1)[0]);
        let child = Command::new(env!("CARGO_BIN_EXE_cltraft"))
            .env_clear()
            .args(["--servers", &cluster.address(0), "--interval", "1ms", "--listen", &address])
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .expect("cltraft starts");
        MainJob { child, address }
    }

    fn metric(&self, name: &str) -> Option<u64> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    }

    /// It verifies a hundred values more than it had when it dropped its first line. Returns what it says on its
    /// standard error, if that is a pipe.
    fn goes_on_without(mut self, stream: &str) -> String {
        let dropped = format!("raftkv_client_lines_dropped_total{{stream=\"{stream}\"}}");
        await_condition("a line to be dropped", || self.metric(&dropped).is_some_and(|n| n > 0));
        let reads = self.metric("raftkv_client_reads_total").expect("it answers");
        await_condition("more values", || {
            self.metric("raftkv_client_reads_total").is_some_and(|now| now > reads + 100)
        });
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("the process is ours");
        let mut said = String::new();
        if let Some(mut error) = self.child.stderr.take() {
            error.read_to_string(&mut said).expect("text");
        }
        assert_eq!(wait_for_exit(&mut self.child).code(), Some(0), "{said}");
        said
    }
}

#[test]
fn the_main_job_goes_on_verifying_when_its_lines_cannot_be_written() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let (_reader, never_read) = full_pipe();
    let no_space = "stdout took no more (No space left on device)";
    let slow = "stdout took no more (nobody reads it, or too slowly)";
    for (stdout, why) in [
        (full_disk(), no_space),
        (pipe_without_reader(), "stdout took no more (Broken pipe)"),
        (never_read.try_clone().expect("a second handle"), slow),
    ] {
        let job = MainJob::start(&cluster, stdout.into(), Stdio::piped());
        let said = job.goes_on_without("stdout");
        assert!(said.contains(&format!(" lines were dropped: {why}\nWrites: ")), "{said}");
    }
    for stderr in [full_disk(), pipe_without_reader(), never_read] {
        let job = MainJob::start(&cluster, Stdio::null(), stderr.into());
        assert_eq!(job.goes_on_without("stderr"), "");
    }
}

#[test]
fn the_main_jobs_reader_learns_where_lines_are_missing() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let (mut reader, writer) = full_pipe();
    let job = MainJob::start(&cluster, writer.into(), Stdio::null());
    let dropped = "raftkv_client_lines_dropped_total{stream=\"stdout\"}";
    await_condition("lines to be dropped", || job.metric(dropped).is_some_and(|n| n > 10));
    let mut said = String::new();
    await_condition("more lines", || {
        said += &read_now(&mut reader);
        said.lines().count() > 10
    });
    let mut lines = said.lines();
    let note = lines.next().expect("more than ten");
    let slow = " lines were dropped: stdout took no more (nobody reads it, or too slowly)";
    assert!(note.ends_with(slow), "{note}");
    for line in lines {
        let known =
            ["Write operation: key = ", "Operation ", "Read operation: key = ", "Correct value "];
        assert!(known.iter().any(|start| line.starts_with(start)), "{line}");
    }
    job.goes_on_without("stdout");
}

fn cltraft(cluster: &Cluster, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cltraft"));
    command.env_clear().args(["--servers", &cluster.address(0)]).args(words).stdin(Stdio::null());
    command
}

#[test]
fn changes_wait_for_their_reader_and_none_is_missing() {
    const COUNT: usize = 3000;
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let writes: String = (0..COUNT).map(|n| format!("SET k{n} {}\n", "v".repeat(100))).collect();
    assert_eq!(cluster.nc(0, &writes).lines().count(), COUNT);
    let (reader, writer) = full_pipe();
    let mut child = cltraft(&cluster, &["changes", "--from", "1"]);
    let mut child = child.stdout(writer).stderr(Stdio::piped()).spawn().expect("cltraft starts");
    let mut said = BufReader::new(child.stderr.take().expect("it is piped"));
    said.read_line(&mut String::new()).expect("it begins");
    let mut lines = BufReader::new(reader).lines();
    for n in 0..COUNT {
        let line = lines.next().expect("it goes on").expect("text");
        assert!(line.ends_with(&format!(" set k{n} {}", "v".repeat(100))), "{n}: {line}");
    }
    kill_process(Pid::from_child(&child), Signal::TERM).expect("the process is ours");
    assert_eq!(wait_for_exit(&mut child).code(), Some(0));
}

#[test]
fn a_signal_ends_changes_that_wait_for_their_reader_and_the_status_says_so() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    assert_eq!(cluster.nc(0, "SET a 1\n"), "+OK\r\n");
    let (_reader, writer) = full_pipe();
    let mut child = cltraft(&cluster, &["changes", "--from", "1"]);
    let mut child = child.stdout(writer).stderr(Stdio::piped()).spawn().expect("cltraft starts");
    let mut said = BufReader::new(child.stderr.take().expect("it is piped"));
    said.read_line(&mut String::new()).expect("it begins");
    kill_process(Pid::from_child(&child), Signal::TERM).expect("the process is ours");
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("text");
    // It may have been asked before it had anything to write.
    let status = wait_for_exit(&mut child).code();
    match status {
        Some(0) => assert_eq!(rest, ""),
        _ => {
            assert_eq!(status, Some(3));
            assert!(rest.contains("a signal came while it took no more"), "{rest}");
        }
    }
}

#[test]
fn data_that_cannot_be_written_is_an_error() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    assert_eq!(cluster.nc(0, "SET a 1\n"), "+OK\r\n");
    for words in [&["get", "a"][..], &["scan"], &["backup", "-"], &["changes", "--from", "1"]] {
        let (status, _, said) = run(cltraft(&cluster, words).stdout(Stdio::from(full_disk())));
        assert_eq!(status, Some(3), "{words:?}: {said}");
        assert!(said.contains("No space left on device"), "{words:?}: {said}");
    }
    // Half a backup is none, also for a reader that has exited.
    let (status, _, said) =
        run(cltraft(&cluster, &["backup", "-"]).stdout(Stdio::from(pipe_without_reader())));
    assert_eq!(status, Some(3), "{said}");
    assert!(said.contains("no backup was made"), "{said}");
}

#[test]
fn a_check_of_what_clients_see_ends_in_time_though_nobody_reads_its_progress() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let (_reader, never_read) = full_pipe();
    for stderr in [full_disk(), pipe_without_reader(), never_read] {
        let mut child = cltraft(&cluster, &["verify", "--duration", "2s"]);
        let mut child =
            child.stdout(Stdio::piped()).stderr(stderr).spawn().expect("cltraft starts");
        assert_eq!(wait_for_exit(&mut child).code(), Some(0));
        let mut said = String::new();
        child.stdout.take().expect("it is piped").read_to_string(&mut said).expect("text");
        assert!(said.starts_with("linearizable: operations "), "{said}");
    }
}
