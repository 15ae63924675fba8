//! The page `/`: what it is told by its node, and what a real browser makes of it.
//!
//! The tests with a browser need Chromium, which `cargo test` does not; `CHROMIUM` names another program.

#[allow(dead_code)] // Other tests use the rest.
mod processes;

use processes::{Cluster, PATIENCE, await_condition, wait_for_exit};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

const QUICK: [&str; 4] = ["--heartbeat", "20ms", "--election", "150ms"];

/// The body of an answer that has status 200.
fn get(address: &str, path: &str) -> String {
    let answer = fetch(address, path);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    answer.split_once("\r\n\r\n").expect("a head").1.to_string()
}

fn fetch(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the node accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout is set");
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

// JSON, as strictly as a browser reads it.

#[derive(Debug, Clone, PartialEq)]
enum Json {
    Plain(String),
    Text(String),
    List(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

impl Json {
    fn read(text: &str) -> Json {
        let mut rest = text;
        let json = Json::value(&mut rest);
        assert_eq!(rest, "\n", "nothing follows");
        json
    }

    fn value(rest: &mut &str) -> Json {
        match rest.as_bytes()[0] {
            b'"' => Json::Text(Json::text(rest)),
            b'[' => Json::List(Json::items(rest, ']', Json::value)),
            b'{' => {
                let pairs = Json::items(rest, '}', |rest| {
                    let name = Json::text(rest);
                    *rest = rest.strip_prefix(':').expect("a colon");
                    (name, Json::value(rest))
                });
                let count = pairs.len();
                let object: BTreeMap<_, _> = pairs.into_iter().collect();
                assert_eq!(object.len(), count, "no name stands twice: {object:?}");
                Json::Object(object)
            }
            _ => {
                let end = rest.find([',', ']', '}']).expect("an end");
                let (plain, after) = rest.split_at(end);
                let is_word = ["true", "false", "null"].contains(&plain);
                assert!(is_word || plain.parse::<u64>().is_ok(), "{plain}");
                *rest = after;
                Json::Plain(plain.to_string())
            }
        }
    }

    fn items<T>(rest: &mut &str, close: char, read: impl Fn(&mut &str) -> T) -> Vec<T> {
        let mut items = Vec::new();
        *rest = &rest[1..];
        if let Some(after) = rest.strip_prefix(close) {
            *rest = after;
            return items;
        }
        loop {
            items.push(read(rest));
            if let Some(after) = rest.strip_prefix(close) {
                *rest = after;
                return items;
            }
            *rest = rest.strip_prefix(',').unwrap_or_else(|| panic!("a comma before {rest}"));
        }
    }

    fn text(rest: &mut &str) -> String {
        let mut text = String::new();
        let mut chars = rest.strip_prefix('"').expect("a string").chars();
        loop {
            match chars.next().expect("an end") {
                '"' => break,
                '\\' => match chars.next().expect("an escape") {
                    'u' => {
                        let code: String = chars.by_ref().take(4).collect();
                        let code = u32::from_str_radix(&code, 16).expect("four hex digits");
                        text.push(char::from_u32(code).expect("a character"));
                    }
                    escaped => text.push(escaped),
                },
                character => {
                    assert!(character >= ' ', "control characters are escaped");
                    text.push(character);
                }
            }
        }
        *rest = chars.as_str();
        text
    }

    fn at(&self, name: &str) -> &Json {
        let Json::Object(object) = self else { panic!("{self:?} is no object") };
        object.get(name).unwrap_or_else(|| panic!("{name} is not in {object:?}"))
    }

    fn list(&self) -> &[Json] {
        let Json::List(list) = self else { panic!("{self:?} is no list") };
        list
    }

    fn said(&self) -> &str {
        match self {
            Json::Text(text) | Json::Plain(text) => text,
            other => panic!("{other:?} is neither text nor number"),
        }
    }

    fn number(&self) -> u64 {
        self.said().parse().expect("a number")
    }
}

/// Waits until the node has a sample, and knows what is committed.
fn await_samples(cluster: &Cluster, node: usize) {
    await_condition("a sample", || {
        let status = status(cluster, node);
        let samples = status.at("samples").list();
        samples.last().is_some_and(|sample| sample.list()[COMMIT_INDEX].number() > 0)
    });
}

/// Where a sample has it.
const COMMIT_INDEX: usize = 9;

fn status(cluster: &Cluster, node: usize) -> Json {
    Json::read(&get(&cluster.address(node), "/status.json"))
}

#[test]
fn the_status_tells_of_every_node_and_of_the_log() {
    let cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    for key in 0..50 {
        assert_eq!(cluster.nc(leader, &format!("SET k{key} value\n")), "+OK\r\n");
    }
    cluster.await_same_applied();
    for node in 0..3 {
        let status = status(&cluster, node);
        assert_eq!(status.at("name").said(), format!("raft-{node}"));
        assert_eq!(status.at("leader").at("name").said(), format!("raft-{leader}"));
        assert_eq!(status.at("leader").at("address").said(), cluster.address(leader));
        assert_eq!(status.at("health").at("level").said(), "ok");
        let nodes = status.at("nodes").list();
        assert_eq!(nodes.len(), 3);
        for (number, one) in nodes.iter().enumerate() {
            assert_eq!(one.at("name").said(), format!("raft-{number}"));
            assert_eq!(one.at("address").said(), cluster.address(number));
            assert_eq!(one.at("role").said(), if number == leader { "leader" } else { "follower" });
            assert_eq!(one.at("is_self").said(), (number == node).to_string());
            assert_eq!(one.at("is_answering").said(), "true");
            let is_known = node == leader || number == node;
            assert_eq!(one.at("lag").said(), if is_known { "0" } else { "null" });
        }
        let log = status.at("log");
        let last = log.at("last").number();
        assert!(last >= 52, "the founding, the no-op and the writes: {last}");
        assert_eq!((log.at("commit").number(), log.at("applied").number()), (last, last));
        let tail = log.at("tail").list();
        assert_eq!(tail.len(), 32);
        let newest = tail[31].list();
        assert_eq!((newest[0].number(), newest[2].said()), (last, "write"));
        assert!(!get(&cluster.address(node), "/status.json").contains("value"), "nor any key");
        assert_eq!(status.at("store").at("keys").number(), 50);
    }
}

#[test]
fn samples_count_what_a_second_brought_and_events_what_happened() {
    let mut cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    (0..3).for_each(|node| await_samples(&cluster, node));
    for key in 0..40 {
        assert_eq!(
            cluster.nc(leader, &format!("SET k{key} 1\nGET k{key}\n")),
            "+OK\r\n$1\r\n1\r\n"
        );
    }
    let sums = |node: usize| {
        let history = Json::read(&get(&cluster.address(node), "/history.json"));
        let fields: Vec<&str> = history.at("sample_fields").list().iter().map(Json::said).collect();
        let mut sums = BTreeMap::new();
        for sample in history.at("samples").list() {
            assert_eq!(sample.list().len(), fields.len());
            for (field, value) in fields.iter().zip(sample.list()) {
                *sums.entry(field.to_string()).or_insert(0) += value.number();
            }
        }
        sums
    };
    await_condition("everything to be counted at the leader", || {
        let sums = sums(leader);
        let at_least = |field: &str, count| sums.get(field).is_some_and(|sum| *sum >= count);
        at_least("reads", 40) && at_least("writes", 40) && at_least("request_p99_us", 1)
    });
    assert_eq!(sums(leader)["reads"], 40, "and nothing twice");
    let follower = (leader + 1) % 3;
    await_condition("the writes to be counted at a follower", || {
        sums(follower).get("writes").is_some_and(|writes| *writes >= 40)
    });
    assert_eq!(sums(follower)["reads"], 0, "they were none of its clients'");

    cluster.kill(leader);
    let told = |text: &str| {
        let status = status(&cluster, follower);
        let mut before = u64::MAX;
        status.at("events").list().iter().any(|event| {
            let number = event.at("number").number();
            assert!(number < before, "the newest first");
            before = number;
            event.at("at_ms").number() > 1_600_000_000_000 && event.at("text").said().contains(text)
        })
    };
    await_condition("the loss to be told", || told(&format!("raft-{leader} is disconnected")));
    let next = cluster.await_leader_among(&[follower, (leader + 2) % 3]);
    await_condition("the election to be told", || {
        told(&format!("raft-{next} leads term")) || told(&format!("follows raft-{next} in term"))
    });
}

#[test]
fn snapshots_are_events_with_their_origin() {
    let flags = ["--heartbeat", "20ms", "--election", "150ms", "--snapshot-log-bytes", "64KiB"];
    let mut cluster = Cluster::start(3, &flags);
    let leader = cluster.await_leader();
    let late = (leader + 1) % 3;
    cluster.kill(late);
    cluster.wipe(late);
    let mut client = cluster.client();
    for key in 0..300_u32 {
        client.put(&key.to_be_bytes(), &[b'v'; 1000]).expect("it is written");
    }
    await_condition("its own snapshot to be told", || {
        tells_of_snapshot(&cluster, leader, " is taken")
    });
    drop(client);
    cluster.start_node(late);
    await_condition("the node to answer", || cluster.info(late).is_some());
    await_condition("the leader's to be told", || {
        tells_of_snapshot(&cluster, late, " has come from the leader")
    });
}

fn tells_of_snapshot(cluster: &Cluster, node: usize, end: &str) -> bool {
    let status = status(cluster, node);
    let mut texts = status.at("events").list().iter().map(|event| event.at("text").said());
    texts.any(|text| text.starts_with("a snapshot up to index ") && text.ends_with(end))
}

#[test]
fn the_page_is_sent_with_a_policy_and_not_kept() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let page = fetch(&cluster.address(0), "/?query");
    let (head, body) = page.split_once("\r\n\r\n").expect("a head");
    for field in [
        "Content-Type: text/html; charset=utf-8",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Content-Security-Policy: default-src 'none'; script-src 'sha256-",
    ] {
        assert!(head.contains(&format!("\r\n{field}")), "{head}");
    }
    assert!(body.starts_with("<!doctype html>") && body.trim_end().ends_with("</html>"));
    let json = fetch(&cluster.address(0), "/status.json");
    assert!(json.contains("\r\nContent-Type: application/json\r\n"), "{json}");
    assert!(!json.contains("Access-Control"), "no other site reads it");
    let missing = fetch(&cluster.address(0), "/favicon.ico");
    assert!(
        missing.starts_with("HTTP/1.1 404 ") && missing.contains("\n/status.json "),
        "{missing}"
    );
}

// With a browser.

struct Seen {
    dom: String,
    /// What was written to the console.
    console: Vec<String>,
    /// Addresses that the page asked for.
    asked: Vec<String>,
}

/// Shows a page to a browser without a window for so long, as its own clock goes, and returns what it has become.
fn browse(url: &str, virtual_ms: u32, flags: &[&str]) -> Seen {
    static VISITS: AtomicU32 = AtomicU32::new(0);
    let visit = VISITS.fetch_add(1, Ordering::Relaxed);
    let dir: PathBuf =
        std::env::temp_dir().join(format!("raftkv-page-{}-{visit}", std::process::id()));
    fs::create_dir_all(&dir).expect("a folder for the browser");
    let output = |name: &str| File::create(dir.join(name)).expect("a file for its output");
    let program = std::env::var("CHROMIUM").unwrap_or("chromium".to_string());
    let mut child = Command::new(program)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        // What the browser asks its maker for by itself finds nobody.
        .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
        .args(["--enable-logging=stderr", "--dump-dom", "--window-size=1200,900"])
        .arg(format!("--virtual-time-budget={virtual_ms}"))
        .arg(format!("--user-data-dir={}", dir.join("profile").display()))
        .arg(format!("--log-net-log={}", dir.join("net.json").display()))
        .args(flags)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(output("dom"))
        .stderr(output("log"))
        .spawn()
        .expect("chromium starts");
    let exit = wait_for_exit(&mut child);
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    let (dom, log, net) = (read("dom"), read("log"), read("net.json"));
    assert!(exit.success() && dom.contains("</html>"), "{exit:?}: {log}");
    let console = log.lines().filter(|line| line.contains("CONSOLE")).map(str::to_string);
    // An event in each line; what the browser asks for by itself has no page as its initiator.
    let by_page = net.lines().filter(|line| line.contains("\"initiator\":\"http"));
    let asked = by_page.filter_map(|line| line.split("\"url\":\"").nth(1)?.split('"').next());
    let seen = Seen { console: console.collect(), asked: asked.map(str::to_string).collect(), dom };
    fs::remove_dir_all(&dir).expect("the folder is the test's own");
    seen
}

impl Seen {
    fn of(cluster: &Cluster, node: usize) -> Seen {
        browse(&format!("http://{}/", cluster.address(node)), 3000, &[])
    }

    /// What stands in the element with this id, with its markup.
    fn inside(&self, id: &str) -> &str {
        let begin = self.dom.find(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("no {id}"));
        let tag = self.dom[..begin].rfind('<').expect("a tag") + 1;
        let name = self.dom[tag..].split(' ').next().expect("its name");
        let open = begin + self.dom[begin..].find('>').expect("its end") + 1;
        let rest = &self.dom[open..];
        &rest[..rest.find(&format!("</{name}>")).expect("an end")]
    }

    fn assert_quiet(&self, address: &str) {
        assert!(self.console.is_empty(), "{:?}", self.console);
        let own = format!("http://{address}/");
        assert!(
            self.asked.iter().any(|url| *url == format!("{own}status.json")),
            "{:?}",
            self.asked
        );
        for url in &self.asked {
            assert!(url.starts_with(&own), "{url} is elsewhere");
        }
    }
}

#[test]
#[ignore = "needs chromium"]
fn a_browser_shows_the_nodes_with_their_roles_and_numbers_that_move() {
    let cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    cluster.await_same_applied();
    await_samples(&cluster, leader);
    for node in [leader, (leader + 1) % 3] {
        let seen = Seen::of(&cluster, node);
        seen.assert_quiet(&cluster.address(node));
        let rows = seen.inside("rows");
        assert_eq!(rows.matches("<tr>").count(), 3, "{rows}");
        assert_eq!(rows.matches(">follower</span>").count(), 2, "{rows}");
        let row = rows.split("<tr>").find(|row| row.contains(">leader</span>")).expect("a leader");
        assert!(row.contains(&format!("raft-{leader}")), "{row}");
        let said = seen.inside("headline");
        assert!(said.contains(&format!("raft-{leader} leads term ")), "{said}");
        assert_eq!(seen.inside("level"), "✓ Works");
        assert_eq!(seen.inside("map").matches("class=\"up\"").count(), 2, "two connections");
        assert_eq!(seen.inside("cluster"), "raftkv");
        assert!(seen.inside("list").contains("<time"), "{}", seen.inside("list"));
        assert!(seen.dom.contains(&format!("<title>raft-{node}, ")), "a title of its own");
    }
    let before = Seen::of(&cluster, leader).inside("logline").to_string();
    for key in 0..30 {
        assert_eq!(cluster.nc(leader, &format!("SET k{key} 1\n")), "+OK\r\n");
    }
    let after = Seen::of(&cluster, leader);
    assert_ne!(after.inside("logline"), before);
    assert!(
        after.inside("tiles").contains("<dt>Keys</dt><dd>30</dd>"),
        "{}",
        after.inside("tiles")
    );
    assert!(after.inside("plots").contains("class=\"s0\""), "lines are drawn");
    assert!(after.inside("tail").contains("<small>write</small>"), "{}", after.inside("tail"));
}

#[test]
#[ignore = "needs chromium"]
fn a_browser_shows_in_words_why_there_is_no_leader() {
    let mut cluster = Cluster::start(3, &QUICK);
    let leader = cluster.await_leader();
    for node in (0..3).filter(|node| *node != leader) {
        cluster.kill(node);
    }
    await_condition("nobody to lead", || cluster.nc(leader, "RAFT LEADER\n") == "$-1\r\n");
    let seen = Seen::of(&cluster, leader);
    seen.assert_quiet(&cluster.address(leader));
    let said = seen.inside("headline");
    assert!(said.starts_with("There is no leader in term "), "{said}");
    assert!(
        said.contains("reaches 0 of 2 other voters, and 2 of 3 must reach each other."),
        "{said}"
    );
    let details = seen.inside("details");
    for node in (0..3).filter(|node| *node != leader) {
        assert!(details.contains(&format!("raft-{node}: not connected for ")), "{details}");
    }
    assert_eq!(seen.inside("level"), "✕ Down");
    assert_eq!(seen.inside("map").matches("class=\"broken\"").count(), 2);
}

#[test]
#[ignore = "needs chromium"]
fn a_page_whose_node_is_gone_says_so_and_goes_on_asking() {
    let cluster = Cluster::start(1, &QUICK);
    cluster.await_leader();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let behind = cluster.address(0);
    // Passes on what is asked for until it has passed on the second status, and is gone then.
    let passing = thread::spawn(move || {
        let mut statuses = 0;
        while statuses < 2 {
            let (mut stream, _) = listener.accept().expect("the browser comes");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout is set");
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let Some(path) = head.split(' ').nth(1) else { continue };
            statuses += u32::from(path == "/status.json");
            stream.write_all(fetch(&behind, path).as_bytes()).expect("the browser reads");
        }
    });
    let seen = browse(&format!("http://{address}/"), 15_000, &[]);
    passing.join().expect("all was passed on");
    assert_eq!(seen.inside("headline"), "raft-0 does not answer.");
    let details = seen.inside("details");
    assert!(
        details.contains("This page goes on asking.") && details.contains("is as of "),
        "{details}"
    );
    assert!(seen.dom.contains("<body class=\"stale\">"), "what is below is marked");
    let asked = seen.asked.iter().filter(|url| url.ends_with("/status.json")).count();
    assert!(asked > 4, "asked {asked} times");
}

#[test]
#[ignore = "needs chromium"]
fn a_name_with_markup_is_shown_as_text() {
    let name = "<img src=x onerror=alert(1)>\"'\\";
    let cluster = Cluster::start(1, &["--cluster", name]);
    cluster.await_leader();
    let seen = Seen::of(&cluster, 0);
    seen.assert_quiet(&cluster.address(0));
    assert_eq!(seen.inside("cluster"), "&lt;img src=x onerror=alert(1)&gt;\"'\\");
}

#[test]
#[ignore = "needs chromium"]
fn a_screen_reader_finds_its_way() {
    let cluster = Cluster::start(3, &QUICK);
    cluster.await_leader();
    await_samples(&cluster, 0);
    let seen = Seen::of(&cluster, 0);
    let dom = &seen.dom;
    assert!(dom.contains("<html lang=\"en\">") && dom.contains("<meta name=\"viewport\""));
    for landmark in ["<header>", "<main ", "<footer>", "<h1 ", "href=\"#main\""] {
        assert_eq!(dom.matches(landmark).count(), 1, "{landmark}");
    }
    assert!(dom.contains("id=\"headline\" role=\"status\" aria-live=\"polite\""));
    assert_eq!(dom.matches("aria-live").count(), 1, "one thing is read out by itself");
    assert_eq!(dom.matches("<th scope=\"col\">").count(), 4);
    assert_eq!(seen.inside("rows").matches("<th scope=\"row\">").count(), 3);
    // Plots can be walked through, and say what they show.
    let plots = seen.inside("plots");
    assert_eq!(plots.matches("role=\"slider\"").count(), 3, "{plots}");
    assert_eq!(plots.matches("aria-valuetext=\"Now: ").count(), 3, "{plots}");
    assert_eq!(plots.matches("tabindex=\"0\"").count(), 3, "{plots}");
    assert!(dom.contains("aria-pressed=\"false\""), "updates can be paused");
    // Nothing that is named by another element is left without its name.
    for labelled in dom.split("aria-labelledby=\"").skip(1) {
        let id = labelled.split('"').next().expect("an id");
        assert!(dom.contains(&format!("id=\"{id}\"")), "{id}");
    }
}
