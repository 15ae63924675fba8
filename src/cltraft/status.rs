//! `cltraft status`: what each server says of itself, side by side, and what does not fit together.

use super::colour;
use super::json::Object;
use super::members::Listed;
use super::table::{MISSING, aligned, cell, line};
use super::units::{format_bytes, format_seconds};
use std::collections::{BTreeMap, BTreeSet};

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
const PEER: &str = "peer_";
const REFUSED: &str = "refused_";

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

    fn given(&self, key: &str) -> Option<&'a str> {
        self.0.get(key).copied().filter(|value| !value.is_empty())
    }

    fn is_removed(&self) -> bool {
        self.get("raft_role") == "removed"
    }

    fn is_waiting(&self) -> bool {
        self.get("raft_role") == "waiting"
    }

    fn members(&self) -> impl Iterator<Item = Listed<'a>> {
        let listed = self.0.iter().filter_map(|(key, value)| Listed::of(key, value));
        listed.filter(Listed::is_member)
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
    let mut rows = vec![COLUMNS.map(str::to_owned).to_vec()];
    rows.extend(reports.iter().map(|report| row(report).to_vec()));
    aligned(&rows)
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

/// The table with its first line bold, the leader's green, and what cannot be reached red.
pub fn coloured(table: &str) -> String {
    let paint = |(at, line): (usize, &str)| match line {
        _ if at == 0 => colour::painted(colour::BOLD, line),
        line if line.contains("unreachable: ") => colour::painted(colour::RED, line),
        line if line.split_whitespace().nth(2) == Some("leader") => {
            colour::painted(colour::GREEN, line)
        }
        line => line.to_owned(),
    };
    table.lines().enumerate().map(paint).map(|line| line + "\n").collect()
}

/// For programs: of each server its fields as they are, or why there are none.
pub fn json(reports: &[Report]) -> Object {
    let server = |report: &Report| {
        let object = Object::default().text("server", &report.server);
        match &report.answer {
            Ok(fields) => {
                let add = |object: Object, (key, value): &(String, String)| object.text(key, value);
                object.object("fields", fields.iter().fold(Object::default(), add))
            }
            Err(reason) => object.text("error", reason),
        }
    };
    Object::default().objects("servers", reports.iter().map(server))
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
    warnings.extend(different_clusters(&answered));
    for fields in &answered {
        let name = cell(fields.name());
        if let Some(what) = fields.given("raft_waits_for") {
            warnings.push(line(&format!("{name} waits {what}")));
        }
        if let Some(reason) = fields.given("growth_refused") {
            let what = match reason {
                "store" => "its store is full (--store-bytes-max)".to_owned(),
                "disk" => "its disk is nearly full".to_owned(),
                reason => format!("it lacks room ({reason})"),
            };
            warnings.push(line(&format!(
                "{name}: {what}; as leader it refuses what makes the state larger"
            )));
        }
        if let Some(what) = fields.given("limits_differ") {
            warnings.push(line(&format!("{name}: {what}")));
        }
        let refused = fields.peers().filter(|(_, state)| is_refusal(state));
        // Of one that was removed nothing else is to be expected.
        for (peer, state) in refused.filter(|_| !fields.is_removed()) {
            warnings.push(line(&format!("{name} about {peer}: {state}")));
        }
    }
    warnings
}

/// Whether one node turned the other away; "refused by ADDRESS" is only nobody's listening there.
fn is_refusal(state: &str) -> bool {
    state.contains("refuses this node: ") || state.contains("is refused: ")
}

/// What may be as it should be, and is worth knowing.
pub fn notes(reports: &[Report]) -> Vec<String> {
    let answered: Vec<Fields<'_>> = reports.iter().filter_map(Fields::of).collect();
    let mut notes = Vec::new();
    for fields in answered.iter().filter(|fields| fields.is_removed()) {
        let name = cell(fields.name());
        notes.push(format!(
            "{name} was removed from the cluster: stop it, or start it with an empty folder to come in anew"
        ));
    }
    for member in freshest(&answered).into_iter().flat_map(Fields::members) {
        let is_asked = answered.iter().any(|fields| fields.name() == member.name)
            || reports.iter().any(|report| report.server == member.address);
        if !is_asked {
            let (name, address) = (cell(member.name), cell(member.address));
            notes.push(format!(
                "{name} is a member too, at {address}; no server that was asked is it"
            ));
        }
    }
    for fields in &answered {
        let refused = fields.0.iter().filter(|(key, _)| key.starts_with(REFUSED));
        notes.extend(refused.map(|(_, what)| line(&format!("{}: {what}", fields.name()))));
    }
    notes
}

/// The one whose members are the newest: the leader, or who has the newest entry that names them.
fn freshest<'a, 'b>(answered: &'b [Fields<'a>]) -> Option<&'b Fields<'a>> {
    let founded = answered.iter().filter(|fields| fields.members().next().is_some());
    founded.max_by_key(|f| (f.get("raft_role") == "leader", f.number("raft_membership_index")))
}

/// The voters are known from the members that a node lists; a server of another version may list none, and then
/// they are taken to be its peers and itself. Asking fewer servers than a majority proves nothing.
fn no_majority(asked: usize, answered: &[Fields<'_>]) -> Option<String> {
    let (size, there) = match freshest(answered) {
        Some(fields) => count_voters(fields, answered),
        None => {
            let founded = answered.iter().filter(|fields| !fields.is_waiting());
            let size = founded.map(|fields| fields.peers().count() + 1).max()?;
            (if size == 1 { asked } else { size }, answered.len())
        }
    };
    let majority = size / 2 + 1;
    (asked >= majority && there < majority)
        .then(|| format!("no majority: {there} of {size} voters answered, {majority} are needed"))
}

/// All, and those that answered: a node of a voter's name and another incarnation has lost its disk.
fn count_voters(listing: &Fields<'_>, answered: &[Fields<'_>]) -> (usize, usize) {
    let voters: Vec<Listed<'_>> = listing.members().filter(Listed::is_voter).collect();
    let is_there = |voter: &&Listed<'_>| {
        let is_it =
            |f: &Fields<'_>| f.name() == voter.name && voter.has_incarnation(f.get("incarnation"));
        answered.iter().any(is_it)
    };
    (voters.len(), voters.iter().filter(is_there).count())
}

/// Those that belong to no cluster (yet, or any more) have no say.
fn leader_trouble(answered: &[Fields<'_>]) -> Vec<String> {
    let mut warnings = Vec::new();
    let members: Vec<_> = answered.iter().filter(|f| !f.is_removed() && !f.is_waiting()).collect();
    let leaders: BTreeSet<_> = members.iter().filter_map(|fields| fields.leader()).collect();
    match leaders.len() {
        0 => warnings.push("no leader is known".to_owned()),
        1 => {
            let ignorant = members.iter().filter(|fields| fields.leader().is_none());
            let names: Vec<_> = ignorant.map(|fields| cell(fields.name())).collect();
            if !names.is_empty() {
                warnings.push(format!("no leader known to {}", names.join(", ")));
            }
        }
        _ => {
            let says =
                |f: &&Fields<'_>| Some(format!("{} says {}", cell(f.name()), cell(f.leader()?)));
            let list: Vec<_> = members.iter().filter_map(says).collect();
            warnings.push(format!("the nodes disagree on the leader: {}", list.join(", ")));
        }
    }
    warnings
}

/// Under different names, or founded separately under one.
fn different_clusters(answered: &[Fields<'_>]) -> Option<String> {
    let ids: BTreeSet<_> = answered.iter().map(|fields| fields.get("cluster_id")).collect();
    if ids.len() > 1 {
        let list: Vec<_> = ids.into_iter().map(cell).collect();
        return Some(format!("the servers belong to different clusters: {}", list.join(", ")));
    }
    let founded =
        |f: &&Fields<'_>| f.given("raft_cluster_id").is_some_and(|id| id.contains(|c| c != '0'));
    let founded: Vec<_> = answered.iter().filter(founded).collect();
    let ids: BTreeSet<_> = founded.iter().map(|fields| fields.get("raft_cluster_id")).collect();
    let says =
        |f: &&Fields<'_>| format!("{} to {}", cell(f.name()), cell(f.get("raft_cluster_id")));
    (ids.len() > 1).then(|| {
        let list: Vec<_> = founded.into_iter().map(|fields| says(&fields)).collect();
        format!("the servers belong to clusters that were founded separately: {}", list.join(", "))
    })
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
            ("incarnation".to_owned(), format!("{:016x}", number + 10)),
            ("raft_cluster_id".to_owned(), "00000000000000c1".to_owned()),
            ("raft_membership_index".to_owned(), "1".to_owned()),
            ("raft_waits_for".to_owned(), String::new()),
            ("something_new".to_owned(), "ignored".to_owned()),
        ];
        if leader >= 0 {
            pairs.push(("raft_leader_name".to_owned(), format!("raft-{leader}")));
        }
        for peer in (0..3).filter(|peer| *peer != number) {
            pairs.push((format!("peer_raft-{peer}"), "connected".to_owned()));
        }
        for member in 0..3 {
            let text =
                format!("voter,incarnation={:012x},address=127.0.0.1:600{member}", member + 10);
            pairs.push((format!("member_raft-{member}"), text));
        }
        Report { server: format!("127.0.0.1:600{number}"), answer: Ok(pairs) }
    }

    fn set(report: &mut Report, name: &str, value: &str) {
        let pairs = report.answer.as_mut().expect("it answered");
        pairs.retain(|(key, _)| key != name);
        pairs.push((name.to_owned(), value.to_owned()));
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
        assert_eq!(
            warnings,
            ["no majority: 1 of 3 voters answered, 2 are needed", "no leader is known"]
        );
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
        set(&mut stranger, "cluster_id", "78");
        let found = warnings(&[node(0, "leader", 0), stranger]);
        assert_eq!(found, ["the servers belong to different clusters: 77, 78"]);
        assert_eq!(warnings(&[down(0), down(1)]), ["no server answered"]);
    }

    #[test]
    fn two_founded_separately_under_one_name_are_different_clusters() {
        let mut stranger = node(1, "leader", 1);
        set(&mut stranger, "raft_cluster_id", "00000000000000c2");
        let found = warnings(&[node(0, "follower", 1), stranger]);
        let expected = "the servers belong to clusters that were founded separately: \
                        raft-0 to 00000000000000c1, raft-1 to 00000000000000c2";
        assert_eq!(found, [expected]);
    }

    #[test]
    fn a_node_that_waits_says_for_what_and_has_no_say_on_the_leader() {
        let mut waiting = node(2, "waiting", -1);
        set(&mut waiting, "raft_cluster_id", "0000000000000000");
        set(&mut waiting, "raft_waits_for", "to be taken in");
        (0..3).for_each(|member| {
            let pairs = waiting.answer.as_mut().expect("it answered");
            pairs.retain(|(key, _)| *key != format!("member_raft-{member}"));
        });
        let found = warnings(&[node(0, "leader", 0), node(1, "follower", 0), waiting]);
        assert_eq!(found, ["raft-2 waits to be taken in"]);
    }

    #[test]
    fn a_voter_that_came_back_without_its_disk_is_none() {
        let mut empty = node(2, "waiting", -1);
        set(&mut empty, "incarnation", "00000000000000ff");
        let found = warnings(&[node(0, "follower", -1), empty, down(1)]);
        assert_eq!(found[0], "no majority: 1 of 3 voters answered, 2 are needed");
    }

    #[test]
    fn a_refused_peer_is_a_warning_with_its_reason_in_full() {
        let mut leader = node(0, "leader", 0);
        let state = format!("disconnected: it refuses this node: {}", "so ".repeat(80));
        set(&mut leader, "peer_raft-2", &state);
        let found = warnings(&[leader, node(1, "follower", 0)]);
        assert_eq!(found, [format!("raft-0 about raft-2: {state}")]);
        for reason in ["a connection from ::1 is refused: so", "its welcome is refused: so"] {
            let mut leader = node(0, "leader", 0);
            set(&mut leader, "peer_raft-2", &format!("disconnected: {reason}"));
            assert_eq!(warnings(&[leader, node(1, "follower", 0)]).len(), 1, "{reason}");
        }
        let mut leader = node(0, "leader", 0);
        set(&mut leader, "peer_raft-2", "disconnected: refused by 127.0.0.1:6002");
        let found = warnings(&[leader, node(1, "follower", 0), down(2)]);
        assert!(found.is_empty(), "a process that does not run is not turned away: {found:?}");
    }

    #[test]
    fn members_that_nobody_asked_and_removed_nodes_are_notes() {
        let mut leader = node(0, "leader", 0);
        set(&mut leader, "member_raft-3", "learner,incarnation=0d,address=127.0.0.1:6003");
        set(&mut leader, "refused_0", "a connection from 127.0.0.1 is refused: Removed: so");
        set(&mut leader, "applicant_raft-7", "incarnation=0e,address=127.0.0.1:6007");
        let mut removed = node(4, "removed", 2);
        set(&mut removed, "raft_membership_index", "0");
        set(&mut removed, "peer_raft-0", "disconnected: it refuses this node: Removed: so");
        let reports = [leader, node(1, "follower", 0), down(2), removed];
        assert_eq!(warnings(&reports), Vec::<String>::new());
        let notes = notes(&reports);
        assert_eq!(notes.len(), 3, "{notes:?}");
        assert!(notes[0].starts_with("raft-4 was removed from the cluster: stop it"), "{notes:?}");
        assert!(notes[1].starts_with("raft-3 is a member too, at 127.0.0.1:6003"), "{notes:?}");
        assert_eq!(notes[2], "raft-0: a connection from 127.0.0.1 is refused: Removed: so");
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
