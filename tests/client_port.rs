//! The main job's own port: probes, metrics and a line of text, of the real program.

mod mock;

use mock::{Mock, Store, failed};
use raftkv::kv::FailureCode;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// A main job that is stopped when the test is over, however that ends.
struct Job {
    child: Child,
    address: String,
    /// Its standard error, after the line that names the address.
    said: BufReader<std::process::ChildStderr>,
}

impl Job {
    fn start(server: &str, interval: &str) -> Job {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cltraft"))
            .env_clear()
            .args(["--servers", server, "--interval", interval, "--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut said = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("it says where it listens");
        let address = line.trim().strip_prefix("Probes are answered at ");
        let address = address.unwrap_or_else(|| panic!("{line}")).to_owned();
        Job { child, address, said }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("it accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout is set");
        stream
    }

    /// All that is answered to these bytes.
    fn ask(&self, bytes: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers and closes");
        answer
    }

    fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: client\r\n\r\n"))
    }

    fn await_answer(&self, path: &str, start: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.get(path);
            if answer.starts_with(start) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{path} is not {start}: {answer}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("it ends");
    }
}

fn honest() -> Mock {
    let mut store = Store::default();
    Mock::start(move |_, body| store.handle(body))
}

/// The value of a sample.
fn sample(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name}: {metrics}")).parse().expect("a number")
}

#[test]
fn ready_after_the_first_verification_with_metrics_and_a_line() {
    let mock = honest();
    let job = Job::start(&mock.address(), "10ms");
    assert!(job.get("/livez").ends_with("\r\n\r\nalive\n"));
    assert!(job.await_answer("/readyz", "HTTP/1.1 200 OK").ends_with("\r\n\r\nready\n"));
    let metrics = job.get("/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"));
    let (writes, reads) = (
        sample(&metrics, "raftkv_client_writes_total"),
        sample(&metrics, "raftkv_client_reads_total"),
    );
    assert!(writes >= 1.0 && reads >= 1.0, "{metrics}");
    assert_eq!(sample(&metrics, "raftkv_client_write_seconds_count"), writes);
    assert_eq!(sample(&metrics, "raftkv_client_mismatches_total"), 0.0);
    assert_eq!(sample(&metrics, "raftkv_client_errors_total{kind=\"timeout\"}"), 0.0);
    let leader =
        format!("raftkv_client_leader_info{{leader=\"2\",address=\"{}\"}}", mock.address());
    assert_eq!(sample(&metrics, &leader), 1.0);
    assert!(job.get("/elsewhere").starts_with("HTTP/1.1 404 "));
}

#[test]
fn whatever_is_not_http_gets_one_line() {
    let mock = honest();
    let job = Job::start(&mock.address(), "1h");
    job.await_answer("/readyz", "HTTP/1.1 200 OK");
    // `nc client 7000`: nothing is said at all.
    for bytes in ["", "status\n", "GET key\n", "\n"] {
        let line = job.ask(bytes);
        assert!(
            line.starts_with("ready; writes 1, reads 1, wrong values 0, "),
            "{bytes:?}: {line}"
        );
        assert!(line.ends_with(&format!("leader 2 ({})\n", mock.address())), "{line}");
    }
    // `echo -n x | nc -N client 7000`: the end of the bytes is the end of the line.
    let mut stream = job.connect();
    stream.write_all(b"x").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut line = String::new();
    stream.read_to_string(&mut line).unwrap();
    assert!(line.starts_with("ready; "), "{line}");
}

#[test]
fn without_a_leader_it_is_alive_and_not_ready_and_redirects_are_counted() {
    let mock = Mock::start(|_, _| failed(FailureCode::NoLeader, None));
    let mut job = Job::start(&mock.address(), "10ms");
    let mut line = String::new();
    job.said.read_line(&mut line).expect("it complains");
    assert!(line.starts_with("No leader can be reached"), "{line}");
    assert!(job.get("/livez").starts_with("HTTP/1.1 200 OK"));
    let answer = job.get("/readyz");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("nothing has been verified yet\n"), "{answer}");
    assert!(job.ask("\n").ends_with("leader none\n"));
    // The count is written down when the request ends, which it does once there is a leader.
    let found = Arc::new(AtomicBool::new(false));
    let mut store = Store::default();
    let mock = Mock::start({
        let found = Arc::clone(&found);
        move |_, body| match found.load(Ordering::Relaxed) {
            true => store.handle(body),
            false => {
                found.store(true, Ordering::Relaxed);
                failed(FailureCode::NoLeader, None)
            }
        }
    });
    let job = Job::start(&mock.address(), "10ms");
    job.await_answer("/readyz", "HTTP/1.1 200 OK");
    assert_eq!(sample(&job.get("/metrics"), "raftkv_client_redirects_total"), 1.0);
}

#[test]
fn half_a_request_and_too_many_connections_hinder_nobody() {
    let mock = honest();
    let job = Job::start(&mock.address(), "1h");
    job.await_answer("/readyz", "HTTP/1.1 200 OK");
    let mut half = job.connect();
    half.write_all(b"GET /livez HT").unwrap();
    assert!(job.get("/livez").starts_with("HTTP/1.1 200 OK"), "others are answered meanwhile");
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(9000));
    assert!(job.ask(&long).starts_with("HTTP/1.1 414 "));
    half.write_all(b"TP/1.1\r\nHost: client\r\n\r\n").unwrap();
    let mut answer = String::new();
    half.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("alive\n"), "{answer}");
    let crowd: Vec<TcpStream> = (0..64)
        .map(|_| {
            let mut stream = job.connect();
            // One too many may be closed before it has said anything.
            let _ = stream.write_all(b"GET /");
            stream
        })
        .collect();
    drop(crowd);
    assert!(job.await_answer_when_calm("/livez").starts_with("HTTP/1.1 200 OK"));
}

impl Job {
    /// Asks until the connections of before are gone.
    fn await_answer_when_calm(&self, path: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut stream = self.connect();
            let request = format!("GET {path} HTTP/1.1\r\nHost: client\r\n\r\n");
            let mut answer = String::new();
            let asked = stream.write_all(request.as_bytes());
            if asked.and_then(|()| stream.read_to_string(&mut answer)).is_ok() && !answer.is_empty()
            {
                return answer;
            }
            assert!(Instant::now() < deadline, "it does not answer again");
        }
    }
}

#[test]
fn an_address_that_was_asked_for_and_is_taken_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cltraft"));
    command.env_clear().args(["--servers", "127.0.0.1:1", "--listen", &address]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with(&format!("Cannot answer probes at {address}: ")), "{said}");
}

/// Prometheus's own opinion. Its tools are no part of what `cargo test` needs.
#[test]
#[ignore = "needs promtool"]
fn promtool_is_content_with_the_clients_metrics() {
    let mock = honest();
    let job = Job::start(&mock.address(), "10ms");
    job.await_answer("/readyz", "HTTP/1.1 200 OK");
    let answer = job.get("/metrics");
    let (_, text) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("promtool is there");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(text.as_bytes()).expect("promtool reads");
    drop(input);
    let output = child.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
