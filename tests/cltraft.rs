//! The program `cltraft` as its users meet it: command lines, and the real binary against a mock server.

mod mock;

use mock::{Mock, Seen, Step, Store, failed, written};
use raftkv::cltraft::args::{Args, Command as Parsed, Input, Scan, parse};
use raftkv::cltraft::lang::Lang;
use raftkv::kv::{FailureCode, MemberRequest, Outcome, Refusal};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

// The command line.

fn parsed(words: &[&str], env: &[(&str, &str)]) -> Result<Args, String> {
    let env =
        |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
    parse(words.iter().map(Into::into), &env)
}

fn command(words: &[&str]) -> Parsed {
    parsed(words, &[]).unwrap_or_else(|error| panic!("{words:?}: {error}")).command
}

fn servers(words: &[&str], env: &[(&str, &str)]) -> Vec<String> {
    parsed(words, env).unwrap().servers
}

#[test]
fn without_words_it_verifies_every_two_seconds() {
    let args = parsed(&[], &[]).unwrap();
    let interval = Duration::from_secs(2);
    let job = Parsed::MainJob { interval, count: None, prefix: String::new(), listen: None };
    assert_eq!((args.command, args.lang), (job, Lang::English));
    let words = ["--interval", "500ms", "--count=3", "--prefix", "x.", "--lang", "es"];
    let args = parsed(&words, &[("LANG", "en_GB.UTF-8")]).unwrap();
    let interval = Duration::from_millis(500);
    let job = Parsed::MainJob { interval, count: Some(3), prefix: "x.".to_owned(), listen: None };
    assert_eq!((args.command, args.lang), (job, Lang::Spanish));
}

#[test]
fn commands_and_their_words() {
    let key = || b"k".to_vec();
    assert_eq!(command(&["get", "k"]), Parsed::Get { key: key() });
    assert_eq!(command(&["del", "k"]), Parsed::Delete { key: key() });
    let literal = |text: &str| Input::Literal(text.as_bytes().to_vec());
    assert_eq!(
        command(&["put", "k", "a b"]),
        Parsed::Put { key: key(), value: literal("a b"), ttl: None }
    );
    assert_eq!(
        command(&["put", "k", ""]),
        Parsed::Put { key: key(), value: literal(""), ttl: None }
    );
    assert_eq!(
        command(&["put", "k", "-"]),
        Parsed::Put { key: key(), value: Input::Stdin, ttl: None }
    );
    assert_eq!(
        command(&["put", "k", "-5"]),
        Parsed::Put { key: key(), value: literal("-5"), ttl: None }
    );
    assert_eq!(
        command(&["put", "--", "k", "--help"]),
        Parsed::Put { key: key(), value: literal("--help"), ttl: None }
    );
    let ttl = Some(Duration::from_secs(10));
    assert_eq!(
        command(&["put", "k", "v", "--ttl", "10s"]),
        Parsed::Put { key: key(), value: literal("v"), ttl }
    );
    assert_eq!(command(&["ttl", "k"]), Parsed::Ttl { key: key() });
    assert_eq!(command(&["expire", "k", "10s"]), Parsed::Expire { key: key(), ttl });
    assert_eq!(command(&["expire", "k", "never"]), Parsed::Expire { key: key(), ttl: None });
    let cas = |expected: Option<&[u8]>| Parsed::CompareAndSet {
        key: key(),
        expected: expected.map(<[u8]>::to_vec),
        value: b"new".to_vec(),
    };
    assert_eq!(command(&["cas", "k", "old", "new"]), cas(Some(b"old")));
    assert_eq!(command(&["cas", "--absent", "k", "new"]), cas(None));
    assert_eq!(command(&["cas", "k", "new", "--absent"]), cas(None));
    assert_eq!(command(&["incr", "k"]), Parsed::Increment { key: key(), delta: 1 });
    assert_eq!(command(&["incr", "k", "-12"]), Parsed::Increment { key: key(), delta: -12 });
    let changes = |prefix: &str, from| Parsed::Changes { prefix: prefix.into(), from };
    assert_eq!(command(&["changes"]), changes("", None));
    let words = ["changes", "--prefix", "user:", "--from", "15"];
    assert_eq!(command(&words), changes("user:", Some(15)));
    let name = || "raft-3".to_owned();
    assert_eq!(command(&["member", "list"]), Parsed::MemberList);
    assert_eq!(command(&["member", "add", "raft-3"]), member(MemberRequest::Add { name: name() }));
    let promote = MemberRequest::Promote { name: name() };
    assert_eq!(command(&["member", "promote", "raft-3"]), member(promote));
    let remove = MemberRequest::Remove { name: name() };
    assert_eq!(command(&["member", "remove", "raft-3"]), member(remove));
    let to = Some(name());
    assert_eq!(command(&["transfer", "raft-3"]), member(MemberRequest::Transfer { to }));
    assert_eq!(command(&["transfer"]), member(MemberRequest::Transfer { to: None }));
    assert_eq!(command(&["put", "--help"]), Parsed::Help(Some("put")));
    assert_eq!(command(&["help", "cas"]), Parsed::Help(Some("cas")));
    assert_eq!(command(&["-h"]), Parsed::Help(None));
    assert_eq!(command(&["-V"]), Parsed::Version);
}

#[test]
fn a_scan_has_bounds_of_any_bytes() {
    let scan = |words: &[&str]| match command(words) {
        Parsed::Scan(scan) => scan,
        other => panic!("{other:?}"),
    };
    assert_eq!(scan(&["scan"]), Scan::default());
    let bounded = scan(&["scan", "p", "--start", "a", "--end=z", "--limit", "5", "--keys-only"]);
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    let (start, end) = (bytes("a"), bytes("z"));
    let expected = Scan { prefix: b"p".to_vec(), start, end, limit: Some(5), keys_only: true };
    assert_eq!(bounded, expected);
    let words = ["scan", "--start"].map(OsString::from).into_iter();
    let args = parse(words.chain([OsString::from_vec(b"\xff".to_vec())]), &|_| None).unwrap();
    let start = Some(b"\xff".to_vec());
    assert_eq!(args.command, Parsed::Scan(Scan { start, ..Scan::default() }));
}

#[test]
fn the_main_job_listens_in_kubernetes_and_where_it_is_told() {
    let listen = |words: &[&str], env: &[(&str, &str)]| {
        parsed(words, env).map(|args| match args.command {
            Parsed::MainJob { listen, .. } => {
                listen.map(|to| (to.address.to_string(), to.is_asked_for))
            }
            other => panic!("{other:?}"),
        })
    };
    let kubernetes = ("MISUBDOMINIODNS", "raft-service");
    let variable = ("RAFTKV_CLIENT_LISTEN", "127.0.0.1:7001");
    let at = |address: &str, is_asked_for| Ok(Some((address.to_owned(), is_asked_for)));
    assert_eq!(listen(&[], &[]), Ok(None));
    assert_eq!(listen(&[], &[kubernetes]), at("0.0.0.0:7000", false));
    assert_eq!(listen(&[], &[kubernetes, variable]), at("127.0.0.1:7001", true));
    assert_eq!(listen(&["--listen", "[::]:7000"], &[variable]), at("[::]:7000", true));
    assert_eq!(listen(&["--listen", "off"], &[kubernetes]), Ok(None));
    let error = listen(&["--listen", "7000"], &[]).unwrap_err();
    assert!(error.contains("such as 0.0.0.0:7000"), "{error}");
}

fn member(request: MemberRequest) -> Parsed {
    Parsed::Member(request)
}

#[test]
fn mistakes_get_a_hint() {
    for (words, hint) in [
        (&["set", "a", "1"][..], "did you mean 'put'"),
        (&["--server", "x"], "did you mean --servers?"),
        (&["put", "a"], "write cltraft put KEY VALUE"),
        (&["put", "a", "b", "c"], "needs quotes"),
        (&["get"], "write cltraft get KEY"),
        (&["cas", "a", "b"], "--absent"),
        (&["incr", "a", "many"], "64-bit number"),
        (&["incr", "a", "9223372036854775808"], "64-bit number"),
        (&["get", "a", "--interval", "1s"], "--interval does not belong to 'get'"),
        (&["get", "a", "--absent"], "--absent does not belong"),
        (&["get", "a", "--from", "1"], "--from does not belong to 'get'"),
        (&["--from", "1"], "--from belongs to 'changes'"),
        (&["changes", "--from", "-1"], "--from -1: not a log index"),
        (&["changes", "a"], "can't be done with 1 word"),
        (&["--timeout", "1s"], "needs a command"),
        (&["--absent"], "belongs to 'cas'"),
        (&["--interval", "5"], "5s or 5ms"),
        (&["--count", "0"], "above 0"),
        (&["--count"], "--count needs a value"),
        (&["--lang", "fr"], "en and es"),
        (&["--servers", "a:b", "status"], "port"),
        (&["--servers", ",", "status"], "names no server"),
        (&["help", "me"], "knows no 'me'"),
        (&["-x"], "no option -x"),
        (&["member"], "'member' needs more words: write cltraft member list"),
        (&["member", "lst"], "knows no 'lst'"),
        (&["member", "list", "raft-1"], "can't be done with 2 words"),
        (
            &["member", "add"],
            "write cltraft member list, or cltraft member add|promote|remove NODE",
        ),
        (&["member", "remove", "3"], "a node's name, such as raft-2, not '3'"),
        (&["transfer", "leader"], "a node's name, such as raft-2, not 'leader'"),
        (&["transfer", "raft-1", "raft-2"], "write cltraft transfer [NODE]"),
        (&["transfer", "raft-1", "--count", "2"], "--count does not belong to 'transfer'"),
        (&["members"], "did you mean 'member'"),
        (&["list"], "did you mean 'scan'"),
        (&["scan", "a", "b"], "write cltraft scan [PREFIX]"),
        (&["scan", "--limit", "0"], "--limit 0: not a number above 0"),
        (&["--limit", "3"], "--limit belongs to 'scan'"),
        (&["get", "a", "--output", "xml"], "there is table and json"),
        (&["get", "a", "--keys-only"], "--keys-only does not belong to 'get'"),
    ] {
        let error = parsed(words, &[]).expect_err(hint);
        assert!(error.contains(hint), "{words:?}: {error}");
    }
}

#[test]
fn servers_come_from_the_option_then_the_environment() {
    let cluster = ("MISUBDOMINIODNS", "raft-service.default.svc.cluster.local");
    let list = ("RAFTKV_SERVERS", "b:1,c");
    assert_eq!(servers(&["--servers", "a, [::1]:7000,a:6000"], &[list]), ["a:6000", "[::1]:7000"]);
    assert_eq!(servers(&[], &[list, cluster]), ["b:1", "c:6000"]);
    let name = |number| format!("raft-{number}.raft-service.default.svc.cluster.local:6000");
    assert_eq!(servers(&[], &[cluster]), [name(0), name(1), name(2)]);
    let five = servers(&[], &[cluster, ("RAFTKV_REPLICAS", "5"), ("RAFTKV_PREFIX", "kv")]);
    assert_eq!(five.len(), 5);
    assert_eq!(five[4], "kv-4.raft-service.default.svc.cluster.local:6000");
    assert_eq!(servers(&[], &[]), ["127.0.0.1:6000", "127.0.0.1:6001", "127.0.0.1:6002"]);
    // As Kubernetes' service links do: a variable that is there and empty is not there.
    assert_eq!(servers(&[], &[("RAFTKV_SERVERS", "")]).len(), 3);
    for wrong in ["0", "100", "many"] {
        assert!(parsed(&[], &[cluster, ("RAFTKV_REPLICAS", wrong)]).is_err(), "{wrong}");
    }
}

// The binary.

fn cltraft(server: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cltraft"));
    command.env_clear().args(["--servers", server]).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(server: &str, words: &[&str]) -> Output {
    cltraft(server, words).output().expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("killed: {output:?}"))
}

type Shared = Arc<Mutex<Store>>;

fn store() -> (Mock, Shared) {
    let store = Shared::default();
    let mock = Mock::start({
        let store = Arc::clone(&store);
        move |_, body| store.lock().unwrap().handle(body)
    });
    (mock, store)
}

fn set(store: &Shared, key: &str, value: &str) {
    store.lock().unwrap().map.insert(key.into(), value.into());
}

const SPANISH: &str = "\
Operación de escritura: clave = a, valor = 1
Operación 2 sometida a 2
Operación de lectura: clave = a
Valor correcto leído: a = 1
Operación de escritura: clave = b, valor = 2
Operación 3 sometida a 2
Operación de lectura: clave = b
Valor correcto leído: b = 2
";

#[test]
fn the_main_job_speaks_the_words_of_the_practical() {
    let (mock, _) = store();
    let mut command = cltraft(&mock.address(), &["--count", "2", "--interval", "0"]);
    let output = command.env("LANG", "es_ES.UTF-8").output().unwrap();
    assert_eq!((status(&output), stdout(&output)), (0, SPANISH.to_owned()));
    let expected = format!(
        "El líder es 2 ({})\nEscrituras: 2, lecturas: 2, valores incorrectos: 0\n",
        mock.address()
    );
    assert_eq!(stderr(&output), expected);
}

#[test]
fn a_restart_goes_on_with_what_is_there() {
    let (mock, store) = store();
    let words = ["--count", "1", "--interval", "0", "--prefix", "p."];
    for (key, value) in [("p.a", "27"), ("p.b", "2"), ("p.c", "somebody's"), ("z", "999")] {
        set(&store, key, value);
    }
    let output = run(&mock.address(), &words);
    assert_eq!(status(&output), 0, "{output:?}");
    assert!(stdout(&output).starts_with("Write operation: key = p.b, value = 28\n"), "{output:?}");
    assert!(stderr(&output).contains("The store holds 3 of the keys already"), "{output:?}");
}

#[test]
fn a_wrong_value_ends_the_main_job() {
    let mut store = Store::default();
    let mock = Mock::start(move |seen, body| match seen {
        // A store that forgets the second write.
        Seen::Write(_, 2) => written(Outcome::Put),
        _ => store.handle(body),
    });
    let output = run(&mock.address(), &["--count", "5", "--interval", "0"]);
    assert_eq!(status(&output), 1);
    let last = stdout(&output).lines().last().unwrap().to_owned();
    assert_eq!(last, "ERROR: wrong value: b should be 2, read (nothing)");
    assert!(stderr(&output).ends_with("Writes: 2, reads: 2, wrong values: 1\n"), "{output:?}");
}

/// A store that answers the write number `lost` by closing the connection and forgets the session; the
/// write itself is done or not.
fn forgetful(lost: u64, done: bool) -> Mock {
    let mut store = Store::default();
    let mut attempts = 0;
    Mock::start(move |seen, body| {
        if matches!(seen, Seen::Write(1, sequence) if *sequence == lost) {
            attempts += 1;
            if attempts == 1 {
                if done {
                    store.handle(body);
                }
                return Step::Close;
            }
            return written(Outcome::Refused(Refusal::UnknownSession));
        }
        store.handle(body)
    })
}

#[test]
fn an_unknown_outcome_is_resolved_by_the_next_read() {
    for done in [true, false] {
        let mock = forgetful(27, done);
        let output = run(&mock.address(), &["--count", "27", "--interval", "0"]);
        assert_eq!(status(&output), 0, "{output:?}");
        assert!(stderr(&output).contains("unknown whether a = 27 was written"), "{output:?}");
        let last =
            if done { "Correct value read: a = 27\n" } else { "Correct value read: a = 1\n" };
        assert!(stdout(&output).ends_with(last), "{output:?}");
    }
}

#[test]
fn after_a_change_of_leader_everything_is_read_again() {
    let mut store = Store::default();
    let mut died = false;
    let mock = Mock::start(move |seen, body| match seen {
        Seen::Write(_, 3) if !died => {
            died = true;
            store.map.remove(&b"a"[..]);
            failed(FailureCode::NoLeader, None)
        }
        _ => store.handle(body),
    });
    let output = run(&mock.address(), &["--count", "5", "--interval", "0"]);
    assert_eq!(status(&output), 1, "{output:?}");
    assert!(stdout(&output).ends_with("ERROR: wrong value: a should be 1, read (nothing)\n"));
}

fn terminate(child: &Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
}

/// Waits for a line on the child's standard error that contains `text`.
fn await_line(stream: impl Read, text: &str) -> BufReader<impl Read> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "ended before '{text}'");
    }
    reader
}

#[test]
fn sigterm_ends_an_idle_client_at_once() {
    let (mock, _) = store();
    let mut child = cltraft(&mock.address(), &["--interval", "1h"]).spawn().unwrap();
    let _out = await_line(child.stdout.take().unwrap(), "Correct value read: a = 1");
    terminate(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(status(&output), 0);
    assert!(stderr(&output).ends_with("Writes: 1, reads: 1, wrong values: 0\n"), "{output:?}");
}

#[test]
fn sigterm_ends_a_client_that_looks_for_a_leader() {
    let mock = Mock::start(|_, _| failed(FailureCode::NoLeader, None));
    let mut child = cltraft(&mock.address(), &[]).spawn().unwrap();
    let mut err = await_line(child.stderr.take().unwrap(), "No leader can be reached");
    terminate(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    err.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "Writes: 0, reads: 0, wrong values: 0\n", "said once");
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let (mock, _) = store();
    let mut child = cltraft(&mock.address(), &["--interval", "0"]).spawn().unwrap();
    drop(await_line(child.stdout.take().unwrap(), "Write operation: key = a, value = 1"));
    let output = child.wait_with_output().unwrap();
    assert_eq!(status(&output), 0);
    assert_eq!(stderr(&output), format!("The leader is 2 ({})\n", mock.address()));
}

#[test]
fn one_request_at_a_time() {
    let (mock, _) = store();
    let at = mock.address();
    let table: [(&[&str], i32, &str); 12] = [
        (&["get", "k"], 1, ""),
        (&["put", "k", "v"], 0, ""),
        (&["get", "k"], 0, "v\n"),
        (&["cas", "k", "v", "w"], 0, ""),
        (&["cas", "k", "v", "x"], 1, ""),
        (&["cas", "--absent", "k", "x"], 1, ""),
        (&["get", "k"], 0, "w\n"),
        (&["del", "k"], 0, ""),
        (&["del", "k"], 1, ""),
        (&["incr", "n"], 0, "1\n"),
        (&["incr", "n", "-3"], 0, "-2\n"),
        (&["digest"], 0, "0000000000000abc index=16 keys=3\n"),
    ];
    for (words, exit, text) in table {
        let output = run(&at, words);
        assert_eq!((status(&output), stdout(&output).as_str()), (exit, text), "{words:?}");
        assert_eq!(stderr(&output).is_empty(), exit == 0, "{words:?}: {output:?}");
    }
}

#[test]
fn answers_as_json_for_programs() {
    let (mock, store) = store();
    let at = mock.address();
    store.lock().unwrap().map.insert(b"bin".to_vec(), vec![0xff, 0]);
    let table: [(&[&str], i32, &str); 11] = [
        (&["get", "k"], 1, r#"{"key":"k","value":null,"index":0,"leader":2}"#),
        (&["put", "k", "a \"b\""], 0, r#"{"key":"k","index":2,"leader":2}"#),
        (&["get", "k"], 0, r#"{"key":"k","value":"a \"b\"","index":2,"leader":2}"#),
        (&["get", "bin"], 0, r#"{"key":"bin","value_base64":"/wA=","index":2,"leader":2}"#),
        (&["cas", "k", "x", "w"], 1, r#"{"key":"k","index":4,"leader":2,"swapped":false}"#),
        (&["incr", "n", "-3"], 0, r#"{"key":"n","index":6,"leader":2,"value":"-3"}"#),
        (&["del", "k"], 0, r#"{"key":"k","index":8,"leader":2,"deleted":true}"#),
        (&["digest"], 0, r#"{"digest":"0000000000000abc","keys":3,"index":8,"leader":2}"#),
        (
            &["member", "add", "raft-3"],
            0,
            r#"{"node":"raft-3","result":"is a learner","index":8,"leader":2}"#,
        ),
        (
            &["scan"],
            0,
            "{\"key\":\"bin\",\"value_base64\":\"/wA=\"}\n{\"key\":\"n\",\"value\":\"-3\"}",
        ),
        (&["scan", "--keys-only", "--limit", "1"], 0, r#"{"key":"bin"}"#),
    ];
    for (words, exit, text) in table {
        let output = run(&at, &[words, &["--output", "json"]].concat());
        let told = (status(&output), stdout(&output));
        assert_eq!(told, (exit, format!("{text}\n")), "{words:?}");
    }
}

#[test]
fn a_scan_goes_through_all_pages_and_is_escaped() {
    let (mock, store) = store();
    for number in 0..2500 {
        set(&store, &format!("k{number:04}"), "v");
    }
    set(&store, "j", "a\tb");
    set(&store, "l\n", "");
    let text = stdout(&run(&mock.address(), &["scan"]));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[2501]), (2502, "j\ta\\tb", "l\\n\t"));
    assert!(lines[1..2501].iter().enumerate().all(|(n, line)| *line == format!("k{n:04}\tv")));
    let text = stdout(&run(&mock.address(), &["scan", "k1", "--limit", "1001", "--keys-only"]));
    assert_eq!((text.lines().count(), text.lines().last()), (1000, Some("k1999")));
    let text = stdout(&run(&mock.address(), &["scan", "--start", "k24", "--limit", "1"]));
    assert_eq!(text, "k2400\tv\n");
}

#[test]
fn status_as_json_has_every_field_and_the_warnings() {
    let answer = vec![("raft_name".to_owned(), "raft-\"0".to_owned())];
    let node = Mock::start(move |_, _| Step::Status(answer.clone()));
    let list = format!("{},127.0.0.1:1", node.address());
    let output = run(&list, &["status", "--output", "json"]);
    let text = stdout(&output);
    let expected = format!(
        r#"{{"servers":[{{"server":"{}","fields":{{"raft_name":"raft-\"0"}}}},{{"server":"127.0.0.1:1","error":"connection refused"}}],"warnings":["#,
        node.address()
    );
    assert!(text.starts_with(&expected) && text.lines().count() == 1, "{text}");
    assert_eq!((status(&output), stderr(&output).as_str()), (1, ""));
}

#[test]
fn why_prints_what_each_server_says_of_itself() {
    let says = |fields: &[(&str, &str)]| {
        let answer: Vec<(String, String)> =
            fields.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Mock::start(move |_, _| Step::Status(answer.clone()))
    };
    let well = says(&[("health", "ok"), ("why_0", "raft-0 leads term 2.")]);
    let ill =
        says(&[("health", "down"), ("why_0", "There is no leader."), ("why_1", "raft-1: \u{7}")]);
    let output = run(&well.address(), &["why"]);
    let expected = format!("{}: ok\n  raft-0 leads term 2.\n", well.address());
    assert_eq!((status(&output), stdout(&output)), (0, expected));
    let output = run(&format!("{},127.0.0.1:1", ill.address()), &["why"]);
    let expected = format!(
        "{}: down\n  There is no leader.\n  raft-1:  \n127.0.0.1:1: unreachable\n  connection refused\n",
        ill.address()
    );
    assert_eq!((status(&output), stdout(&output)), (1, expected));
    assert_eq!(status(&run("127.0.0.1:1", &["why"])), 3);
    let output = run(&well.address(), &["why", "--output", "json"]);
    let expected = format!(
        r#"{{"servers":[{{"server":"{}","health":"ok","why":["raft-0 leads term 2."]}}]}}"#,
        well.address()
    );
    assert_eq!(stdout(&output).trim_end(), expected);
}

#[test]
fn a_value_from_standard_input_arrives_as_it_is() {
    let (mock, store) = store();
    let mut command = cltraft(&mock.address(), &["put", "k", "-"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"two\nlines\0\xff").unwrap();
    assert_eq!(status(&child.wait_with_output().unwrap()), 0);
    assert_eq!(store.lock().unwrap().map[&b"k"[..]], b"two\nlines\0\xff");
}

#[test]
fn exit_statuses_tell_not_done_from_unknown() {
    let words = |command: &[&'static str]| [&["--timeout", "500ms"], command].concat();
    let lost = Mock::start(|_, _| failed(FailureCode::NoLeader, None));
    let output = run(&lost.address(), &words(&["put", "k", "v"]));
    assert_eq!(status(&output), 3);
    let expected = format!(
        "not done: no leader answered within 500ms ({at}: no leader known)\n",
        at = lost.address()
    );
    assert_eq!(stderr(&output), expected);
    let deaf = Mock::start(|seen, _| match seen {
        Seen::OpenSession => mock::opened(5),
        _ => Step::Close,
    });
    let output = run(&deaf.address(), &words(&["put", "k", "v"]));
    assert_eq!(status(&output), 4);
    assert!(stderr(&output).contains("outcome unknown: "), "{output:?}");
    let output = run(&deaf.address(), &["frobnicate"]);
    assert_eq!(status(&output), 2);
    assert!(stderr(&output).contains("Try 'cltraft --help'"), "{output:?}");
}

#[test]
fn status_shows_every_server_and_warns() {
    let fields = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect::<Vec<_>>()
    };
    let answer = fields(&[
        ("raft_name", "raft-0"),
        ("raft_role", "candidate"),
        ("raft_leader", "-1"),
        ("peer_raft-1", "connecting"),
        ("peer_raft-2", "connecting"),
    ]);
    let node = Mock::start(move |_, _| Step::Status(answer.clone()));
    // Port 1 on the loopback: nobody listens there.
    let list = format!("{},127.0.0.1:1", node.address());
    let output = run(&list, &["status"]);
    assert_eq!(status(&output), 1, "{output:?}");
    let lines: Vec<_> = stdout(&output).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[1].starts_with("raft-0  ") && lines[1].ends_with("raft-2 connecting"));
    assert!(lines[2].ends_with("unreachable: connection refused"));
    let expected = "warning: no majority: 1 of 3 voters answered, 2 are needed\n\
                    warning: no leader is known\n";
    assert_eq!(stderr(&output), expected);
    assert_eq!(status(&run("127.0.0.1:1", &["status"])), 3);
}

#[test]
fn help_and_version_go_to_standard_output() {
    let output = run("unused:1", &["--help"]);
    assert!(status(&output) == 0 && stdout(&output).contains("Exit status:"));
    let output = run("unused:1", &["incr", "--help"]);
    assert!(stdout(&output).starts_with("Usage: cltraft incr KEY [DELTA]\n"));
    let output = run("unused:1", &["--version"]);
    assert_eq!(stdout(&output), concat!("cltraft ", env!("CARGO_PKG_VERSION"), "\n"));
}
