//! The server's command line: what is wrong with one, in words that help, and what the README says of it.

use raftkv::cltraft::help::OVERVIEW;
use raftkv::config::{Config, Invocation, UsageError};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

const README: &str = include_str!("../README.md");

fn read(line: &str, env: &[(&str, &str)]) -> Result<Invocation, UsageError> {
    let args = line.split_whitespace().map(OsString::from);
    let env: BTreeMap<String, String> =
        env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Config::from_args(args, |name| env.get(name).cloned())
}

fn config(line: &str, env: &[(&str, &str)]) -> Config {
    match read(line, env) {
        Ok(Invocation::Run(config)) => *config,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn what_is_wrong_is_named_and_what_to_do_is_said() {
    for (line, hint) in [
        ("", "NAME is missing"),
        ("raft", "does not end in a number"),
        ("raft-0", "give --peers raft-0=HOST:PORT"),
        ("raft-0 raft-1", "a node has one NAME"),
        ("raft-0 --listen localhost:6000", "no name"),
        ("raft-0 --listen ::1:6000", "[::1]:6000"),
        ("raft-0 --peers ,", "no members"),
        ("raft-0 --peers 127.0.0.1:6000", "is not NAME=HOST:PORT"),
        ("raft-0 --peers raft-0=h:70000", "is not NAME=HOST:PORT"),
        ("raft-0 --peers raft-1=h:1,raft-2=h:2", "raft-0 is not among --peers"),
        ("raft-0 --peers raft-0=h:1,other-0=h:2", "names number 0 twice, raft-0 and other-0"),
        ("raft-0 --peers other-0=h:2", "raft-0 and other-0 have the same number"),
        ("raft-0 --peers raft-0=h:1 --heartbeat 50", "such as 50ms"),
        ("raft-0 --peers raft-0=h:1 --heartbeat 200ms", "less than twice"),
        ("raft-0 --peers raft-0=h:1 --value-bytes-max 1GiB", "lower the limit of values"),
        ("raft-0 --peers raft-0=h:1 --log-level verbose", "error, warn, info"),
        ("raft-0 --peer raft-0=h:1", "did you mean --peers?"),
        ("raft-0 --data_dir x", "did you mean --data-dir?"),
        ("raft-0 --lisen x", "did you mean --listen?"),
        ("raft-0 --connections-max", "--connections-max"),
    ] {
        let UsageError(what) = read(line, &[]).expect_err(line);
        assert!(what.contains(hint), "{line}: {what}");
    }
    let UsageError(what) = read("-v", &[]).expect_err("there is no -v");
    assert!(!what.contains("did you mean"), "one letter says too little: {what}");
    let UsageError(what) = read("raft-0", &[("RAFTKV_HEARTBEAT", "x")]).expect_err("no time");
    assert!(what.contains("RAFTKV_HEARTBEAT 'x'"), "{what}");
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_default() {
    let peers = ("RAFTKV_PEERS", "raft-0=[::1]:6000,raft-1=b");
    let given = config("raft-1", &[peers, ("RAFTKV_CONNECTIONS_MAX", "7")]);
    assert_eq!((given.number, given.connections_max, given.client_pipeline_max), (1, 7, 1024));
    assert_eq!(given.members[&0].address(), "[::1]:6000");
    assert_eq!(given.members[&1].address(), "b:6000");
    let given = config("raft-1 --connections-max 8", &[peers, ("RAFTKV_CONNECTIONS_MAX", "7")]);
    assert_eq!(given.connections_max, 8);
}

#[test]
fn in_kubernetes_a_name_is_enough() {
    let env = [
        ("MINOMBREPOD", "raft-4"),
        ("MISUBDOMINIODNS", "raft-service.default.svc.cluster.local"),
        ("RAFTKV_REPLICAS", "5"),
        // A service named `raft` would put this into every pod.
        ("RAFT_PORT", "tcp://10.0.0.1:6000"),
    ];
    let config = config("", &env);
    assert_eq!((config.name.as_str(), config.number, config.members.len()), ("raft-4", 4, 5));
    assert_eq!(config.members[&0].address(), "raft-0.raft-service.default.svc.cluster.local:6000");
    assert_eq!(config.listen.port(), 6000);
}

/// Cells of the README's table rows that begin with an option.
fn readme_rows() -> Vec<Vec<String>> {
    let cells = |row: &str| {
        let inner = row.trim_matches('|').replace("\\|", "/");
        inner.split('|').map(|cell| cell.trim().replace('`', "")).collect()
    };
    README.lines().filter(|line| line.starts_with("| `--")).map(cells).collect()
}

#[test]
fn the_readme_has_every_flag_of_the_server_with_its_default() {
    let rows: BTreeMap<String, String> =
        readme_rows().into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let help = Config::help();
    let flags: Vec<&str> = help.lines().filter(|line| line.starts_with("  --")).collect();
    assert!(flags.len() > 15, "{help}");
    for line in flags {
        let usage: Vec<&str> = line.split_whitespace().take(2).collect();
        let usage = usage.join(" ");
        let told = rows.get(&usage).unwrap_or_else(|| panic!("the README has no row for {usage}"));
        let default = line.strip_suffix(']').and_then(|line| line.rsplit_once(" ["));
        match default {
            Some((_, default)) => assert_eq!(told, default, "default of {usage}"),
            None => assert!(!told.is_empty(), "{usage}: what happens without it?"),
        }
    }
}

#[test]
fn the_readme_has_no_option_that_does_not_exist() {
    let names = |text: &str| -> BTreeSet<String> {
        let options = text.lines().filter_map(|line| line.strip_prefix("  --"));
        let end = |c: char| !c.is_ascii_alphanumeric() && c != '-';
        options.filter_map(|text| text.split(end).next().map(str::to_string)).collect()
    };
    let server = names(&Config::help());
    let client = names(OVERVIEW);
    assert!(server.contains("listen") && client.contains("servers"));
    let told: Vec<String> = readme_rows().iter().map(|row| row[0].clone()).collect();
    for name in &client {
        let row =
            told.iter().any(|row| row.split_whitespace().next() == Some(&format!("--{name}")));
        assert!(row, "the README has no row for cltraft's --{name}");
    }
    for row in told {
        let name = row.trim_start_matches('-').split_whitespace().next().unwrap_or_default();
        assert!(server.contains(name) || client.contains(name), "nobody knows {row}");
    }
}
