//! `docs/reliability.md` names the tests of every promise: they exist, and are tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The rows of all tables: an id, a promise, and its tests.
fn rows() -> Vec<[String; 3]> {
    let text = fs::read_to_string(root().join("docs/reliability.md")).unwrap();
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let is_id = |cell: &str| cell.chars().last().is_some_and(|last| last.is_ascii_digit());
    let rows = text.lines().filter(|line| line.starts_with('|')).map(cells);
    rows.filter(|row| is_id(&row[0]))
        .map(|row| row.try_into().unwrap_or_else(|row| panic!("three cells: {row:?}")))
        .collect()
}

/// What stands between backquotes.
fn names(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Whether the file has a function of this name that `cargo test` runs, of its own or of proptest's.
fn has_test(source: &str, function: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let starts = [format!("fn {function}("), format!("fn {function}<")];
    let at = lines.iter().position(|line| starts.iter().any(|start| line.starts_with(start)));
    at.is_some_and(|at| {
        lines[..at].iter().rev().take_while(|line| line.starts_with('#')).any(|l| *l == "#[test]")
    })
}

fn problem(name: &str) -> Option<String> {
    let tests = root().join("tests");
    let Some((file, function)) = name.split_once("::") else {
        let is_script = name.starts_with("golden/") && tests.join(name).is_file();
        return (!is_script).then(|| format!("{name} is no script"));
    };
    match fs::read_to_string(tests.join(file)) {
        Err(error) => Some(format!("{name}: {error}")),
        Ok(source) => (!has_test(&source, function)).then(|| format!("{name} is no test")),
    }
}

#[test]
fn every_promise_names_tests_that_exist() {
    let rows = rows();
    let ids: BTreeSet<&String> = rows.iter().map(|[id, ..]| id).collect();
    assert_eq!(ids.len(), rows.len(), "an id stands for one promise");
    assert!(rows.len() > 50, "{} rows were understood", rows.len());
    let mut problems = Vec::new();
    for [id, promise, tests] in &rows {
        let names = names(tests);
        if names.is_empty() || promise.is_empty() {
            problems.push(format!("{id} has no test"));
        }
        problems.extend(names.into_iter().filter_map(problem).map(|what| format!("{id}: {what}")));
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn a_name_without_a_test_is_noticed() {
    for name in ["promises.rs::rows", "promises.rs::no_such_function", "none.rs::a", "golden/x.txt"]
    {
        assert!(problem(name).is_some(), "{name}");
    }
    assert_eq!(problem("promises.rs::a_name_without_a_test_is_noticed"), None);
}
