//! `cltraft status`: what each server says of itself, side by side, and what does not fit together.

use super::units::{format_bytes, format_seconds};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// One server's answer, or why there is none.
pub struct Report {
    pub server: String,
    pub answer: Result<Vec<(String, String)>, String>,
}

const COLUMNS: [&str; 10] = [
    "NODE",
    "SERVER",
    "ROLE",
    "TERM",
    "COMMIT",
    "APPLIED",
    "LOG SIZE",
    "LEADER",
    "UP",
    "CONNECTIONS",
];
/// Cells beyond this many characters are cut, so that no server can flood the terminal.
const CELL_CHARS_MAX: usize = 160;
const PEER: &str = "peer_";
const MISSING: &str = "-";

/// The fields of a server that answered. A server of another version may lack some.
struct Fields<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Fields<'a> {
    fn of(report: &'a Report) -> Option<Self> {
        let pairs = report.answer.as_ref().ok()?;
        Some(Fields(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()))
    }

    fn get(&self, key: &str) -> &'a str {
        self.0.get(key).copied().filter(|value| !value.is_empty()).unwrap_or(MISSING)
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.get(key).parse().ok()
    }

    /// The leader's name, its number if the name is missing, or nothing.
    fn leader(&self) -> Option<&'a str> {
        let (number, name) = (self.get("raft_leader"), self.get("raft_leader_name"));
        match (number, name) {
            ("-1" | MISSING, _) => None,
            (number, MISSING) => Some(number),
            (_, name) => Some(name),
        }
    }

    fn peers(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(|(key, value)| Some((key.strip_prefix(PEER)?, *value)))
    }

    fn name(&self) -> &'a str {
        match self.get("raft_name") {
            MISSING => self.get("raft_node"),
            name => name,
        }
    }
}

/// The table, a line for each server in the order asked.
pub fn table(reports: &[Report]) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    rows.extend(reports.iter().map(row));
    let mut widths = [0; COLUMNS.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            write!(line, "{cell:<width$}  ").expect("a String takes everything");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row(report: &Report) -> [String; COLUMNS.len()] {
    let mut cells = [MISSING; COLUMNS.len()].map(str::to_owned);
    cells[1].clone_from(&report.server);
    let Some(fields) = Fields::of(report) else {
        let reason = report.answer.as_ref().err().map_or("", String::as_str);
        cells[9] = cell(&format!("unreachable: {reason}"));
        return cells;
    };
    let size = |key| fields.number(key).map_or(MISSING.to_owned(), format_bytes);
    cells[0] = cell(fields.name());
    cells[2] = cell(fields.get("raft_role"));
    cells[3] = cell(fields.get("raft_term"));
    cells[4] = cell(fields.get("raft_commit_index"));
    cells[5] = cell(fields.get("raft_last_applied"));
    cells[6] = size("raft_log_bytes");
    cells[7] = cell(fields.leader().unwrap_or(MISSING));
    cells[8] = fields.number("uptime_in_seconds").map_or(MISSING.to_owned(), format_seconds);
    let peers: Vec<_> = fields.peers().map(|(name, state)| format!("{name} {state}")).collect();
    cells[9] = if peers.is_empty() { MISSING.to_owned() } else { cell(&peers.join(", ")) };
    cells
}

/// Text from a server, made safe to print: one line, no control characters, bounded.
fn cell(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if clean.chars().count() <= CELL_CHARS_MAX {
        return clean;
    }
    clean.chars().take(CELL_CHARS_MAX - 3).chain("...".chars()).collect()
}

/// What a person should know at a glance; empty if all is well.
pub fn warnings(reports: &[Report]) -> Vec<String> {
    let answered: Vec<Fields<'_>> = reports.iter().filter_map(Fields::of).collect();
    if answered.is_empty() {
        return vec!["no server answered".to_owned()];
    }
    let mut warnings = Vec::new();
    warnings.extend(no_majority(reports.len(), &answered));
    warnings.extend(leader_trouble(&answered));
    let clusters: BTreeSet<_> = answered.iter().map(|f| f.get("cluster_id")).collect();
    if clusters.len() > 1 {
        let list: Vec<_> = clusters.into_iter().map(cell).collect();
        warnings.push(format!("the servers belong to different clusters: {}", list.join(", ")));
    }
    warnings
}

/// The cluster's size is known from the peers that a node has; asking fewer servers than a majority
/// proves nothing.
fn no_majority(asked: usize, answered: &[Fields<'_>]) -> Option<String> {
    let size = answered.iter().map(|fields| fields.peers().count() + 1).max()?;
    let size = if size == 1 { asked } else { size };
    let majority = size / 2 + 1;
    (asked >= majority && answered.len() < majority).then(|| {
        format!("no majority: {} of {size} answered, {majority} are needed", answered.len())
    })
}

fn leader_trouble(answered: &[Fields<'_>]) -> Vec<String> {
    let mut warnings = Vec::new();
    let leaders: BTreeSet<_> = answered.iter().filter_map(Fields::leader).collect();
    match leaders.len() {
        0 => warnings.push("no leader is known".to_owned()),
        1 => {
            let ignorant = answered.iter().filter(|fields| fields.leader().is_none());
            let names: Vec<_> = ignorant.map(|fields| cell(fields.name())).collect();
            if !names.is_empty() {
                warnings.push(format!("no leader known to {}", names.join(", ")));
            }
        }
        _ => {
            let says =
                |f: &Fields<'_>| Some(format!("{} says {}", cell(f.name()), cell(f.leader()?)));
            let list: Vec<_> = answered.iter().filter_map(says).collect();
            warnings.push(format!("the nodes disagree on the leader: {}", list.join(", ")));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u64, role: &str, leader: i64) -> Report {
        let mut pairs = vec![
            ("raft_node".to_owned(), number.to_string()),
            ("raft_name".to_owned(), format!("raft-{number}")),
            ("raft_role".to_owned(), role.to_owned()),
            ("raft_term".to_owned(), "4".to_owned()),
            ("raft_commit_index".to_owned(), "120".to_owned()),
            ("raft_last_applied".to_owned(), "119".to_owned()),
            ("raft_log_bytes".to_owned(), "67108864".to_owned()),
            ("raft_leader".to_owned(), leader.to_string()),
            ("uptime_in_seconds".to_owned(), "61".to_owned()),
            ("cluster_id".to_owned(), "77".to_owned()),
            ("something_new".to_owned(), "ignored".to_owned()),
        ];
        if leader >= 0 {
            pairs.push(("raft_leader_name".to_owned(), format!("raft-{leader}")));
        }
        for peer in (0..3).filter(|peer| *peer != number) {
            pairs.push((format!("peer_raft-{peer}"), "connected".to_owned()));
        }
        Report { server: format!("127.0.0.1:600{number}"), answer: Ok(pairs) }
    }

    fn down(number: u64) -> Report {
        let server = format!("127.0.0.1:600{number}");
        Report { server, answer: Err("connection refused".to_owned()) }
    }

    #[test]
    fn a_healthy_cluster() {
        let reports = [node(0, "follower", 1), node(1, "leader", 1), node(2, "follower", 1)];
        let text = table(&reports);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[0].starts_with("NODE    SERVER          ROLE      TERM  COMMIT"), "{text}");
        assert_eq!(
            lines[2],
            "raft-1  127.0.0.1:6001  leader    4     120     119      64.0 MiB  raft-1  61 s  \
             raft-0 connected, raft-2 connected"
        );
        assert_eq!(warnings(&reports), Vec::<String>::new());
    }

    #[test]
    fn an_unreachable_server_has_its_line() {
        let reports = [node(0, "leader", 0), node(1, "follower", 0), down(2)];
        let text = table(&reports);
        let last = text.lines().last().unwrap();
        assert!(
            last.contains("127.0.0.1:6002") && last.ends_with("unreachable: connection refused")
        );
        assert!(warnings(&reports).is_empty());
    }

    #[test]
    fn a_lost_majority_is_said() {
        let reports = [node(0, "pre-candidate", -1), down(1), down(2)];
        let warnings = warnings(&reports);
        assert_eq!(warnings, ["no majority: 1 of 3 answered, 2 are needed", "no leader is known"]);
    }

    #[test]
    fn asking_one_server_is_no_lost_majority() {
        assert!(warnings(&[node(0, "follower", 2)]).is_empty());
    }

    #[test]
    fn two_opinions_on_the_leader() {
        let reports = [node(0, "leader", 0), node(1, "leader", 1), node(2, "follower", -1)];
        assert_eq!(
            warnings(&reports),
            ["the nodes disagree on the leader: raft-0 says raft-0, raft-1 says raft-1"]
        );
        let reports = [node(0, "leader", 0), node(1, "follower", -1), node(2, "follower", 0)];
        assert_eq!(warnings(&reports), ["no leader known to raft-1"]);
    }

    #[test]
    fn different_clusters_and_nobody() {
        let mut stranger = node(1, "follower", 0);
        stranger.answer.as_mut().unwrap()[9].1 = "78".to_owned();
        let found = warnings(&[node(0, "leader", 0), stranger]);
        assert_eq!(found, ["the servers belong to different clusters: 77, 78"]);
        assert_eq!(warnings(&[down(0), down(1)]), ["no server answered"]);
    }

    #[test]
    fn missing_and_hostile_fields() {
        let answer = vec![
            ("raft_name".to_owned(), "evil\x1b[2J\nraft-9".to_owned()),
            ("raft_role".to_owned(), "x".repeat(10_000)),
            ("raft_log_bytes".to_owned(), "many".to_owned()),
        ];
        let text = table(&[Report { server: "s:1".to_owned(), answer: Ok(answer) }]);
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains('\x1b'));
        assert!(text.len() < 1000);
    }
}
