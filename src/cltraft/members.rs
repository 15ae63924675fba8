//! The members of the cluster as a server lists them in its status, and as a table: `cltraft member list`.

use super::json::Object;
use super::table::{MISSING, aligned, cell};

const MEMBER: &str = "member_";
const APPLICANT: &str = "applicant_";
/// How a node that is not taken in yet stands among voters and learners.
const WAITING: &str = "waiting";

/// A member, or a node that waits to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed<'a> {
    pub name: &'a str,
    /// `voter`, `learner` or `waiting`.
    pub counts_as: &'a str,
    /// Hexadecimal digits.
    pub incarnation: &'a str,
    pub address: &'a str,
}

impl<'a> Listed<'a> {
    /// From the name and the value of one field; `None` if it is about something else.
    pub fn of(key: &'a str, value: &'a str) -> Option<Self> {
        let mut listed = match key.strip_prefix(MEMBER) {
            Some(name) => Listed { name, counts_as: MISSING, incarnation: "", address: "" },
            None => {
                let name = key.strip_prefix(APPLICANT)?;
                Listed { name, counts_as: WAITING, incarnation: "", address: "" }
            }
        };
        for part in value.split(',') {
            match part.split_once('=') {
                None => listed.counts_as = part,
                Some(("incarnation", incarnation)) => listed.incarnation = incarnation,
                Some(("address", address)) => listed.address = address,
                // A later version says more.
                Some(_) => {}
            }
        }
        Some(listed)
    }

    pub fn is_voter(&self) -> bool {
        self.counts_as == "voter"
    }

    pub fn is_member(&self) -> bool {
        self.counts_as != WAITING
    }

    /// Whether a data folder of this incarnation, as its node says it, is this one's.
    pub fn has_incarnation(&self, digits: &str) -> bool {
        let number = |digits| u64::from_str_radix(digits, 16).ok();
        number(self.incarnation).is_some_and(|own| number(digits) == Some(own))
    }
}

/// The name of the node that answered.
pub fn own_name(fields: &[(String, String)]) -> Option<String> {
    let (_, name) = fields.iter().find(|(key, _)| key == "raft_name")?;
    Some(cell(name))
}

/// Of what the leader says.
pub fn table(fields: &[(String, String)]) -> String {
    let leader = own_name(fields);
    let titles = ["NODE", "NUMBER", "COUNTS AS", "INCARNATION", "ADDRESS", "LEADS"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for (key, value) in fields {
        let Some(listed) = Listed::of(key, value) else { continue };
        let name = cell(listed.name);
        let number = name.rsplit_once('-').map_or(MISSING, |(_, number)| number).to_owned();
        let leads = if leader.as_ref() == Some(&name) { "yes" } else { MISSING }.to_owned();
        let (counts_as, incarnation) = (cell(listed.counts_as), cell(listed.incarnation));
        rows.push(vec![name, number, counts_as, incarnation, cell(listed.address), leads]);
    }
    aligned(&rows)
}

/// The same for programs.
pub fn json(fields: &[(String, String)]) -> Object {
    let leader = own_name(fields);
    let listed = fields.iter().filter_map(|(key, value)| Listed::of(key, value));
    let member = |listed: Listed<'_>| {
        let name = cell(listed.name);
        let leads = leader.as_ref() == Some(&name);
        Object::default()
            .text("node", &name)
            .text("counts_as", &cell(listed.counts_as))
            .text("incarnation", &cell(listed.incarnation))
            .text("address", &cell(listed.address))
            .bool("leads", leads)
    };
    Object::default().objects("members", listed.map(member))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn voters_learners_and_those_that_wait() {
        let text = table(&fields(&[
            ("raft_name", "raft-1"),
            ("member_raft-0", "voter,incarnation=00000000000a,address=127.0.0.1:6000"),
            ("member_raft-1", "voter,incarnation=00000000000b,address=127.0.0.1:6001"),
            ("member_raft-2", "learner,incarnation=00000000000c,address=127.0.0.1:6002"),
            ("applicant_raft-3", "incarnation=00000000000d,address=127.0.0.1:6003"),
        ]));
        assert_eq!(
            text,
            "NODE    NUMBER  COUNTS AS  INCARNATION   ADDRESS         LEADS\n\
             raft-0  0       voter      00000000000a  127.0.0.1:6000  -\n\
             raft-1  1       voter      00000000000b  127.0.0.1:6001  yes\n\
             raft-2  2       learner    00000000000c  127.0.0.1:6002  -\n\
             raft-3  3       waiting    00000000000d  127.0.0.1:6003  -\n"
        );
    }

    #[test]
    fn hostile_and_missing_fields_stay_one_line_each() {
        let text = table(&fields(&[
            ("member_\x1b[2Jraft-0\n", "voter\n,address=\x07"),
            ("member_", ""),
            ("member_raft-9", &"x".repeat(10_000)),
        ]));
        assert_eq!(text.lines().count(), 4);
        assert!(!text.contains('\x1b') && !text.contains('\x07') && text.len() < 2000, "{text}");
    }

    #[test]
    fn incarnations_are_compared_as_numbers() {
        let listed = Listed::of("member_raft-0", "voter,incarnation=00000000000a").expect("one");
        assert!(listed.has_incarnation("000000000000000a") && !listed.has_incarnation("b"));
        let unknown = Listed::of("member_raft-0", "voter").expect("one");
        assert!(!unknown.has_incarnation("") && !unknown.has_incarnation("-"));
    }
}
