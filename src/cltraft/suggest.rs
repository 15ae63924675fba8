//! Commands and options by name, and what somebody may have meant by a name that is none of them.

use crate::suggest::closest;

/// The commands, each with how to write it.
pub const COMMANDS: [(&str, &str); 20] = [
    ("get", "cltraft get KEY"),
    ("put", "cltraft put KEY VALUE"),
    ("del", "cltraft del KEY"),
    ("cas", "cltraft cas KEY OLD NEW, or cltraft cas --absent KEY NEW"),
    ("incr", "cltraft incr KEY [DELTA]"),
    ("ttl", "cltraft ttl KEY"),
    ("expire", "cltraft expire KEY TIME"),
    ("scan", "cltraft scan [PREFIX]"),
    ("status", "cltraft status"),
    ("why", "cltraft why"),
    ("digest", "cltraft digest"),
    ("changes", "cltraft changes [--prefix TEXT] [--from INDEX]"),
    ("member", "cltraft member list, or cltraft member add|promote|remove NODE"),
    ("transfer", "cltraft transfer [NODE]"),
    ("backup", "cltraft backup FILE"),
    ("restore", "cltraft restore FILE"),
    ("check", "cltraft check FILE"),
    ("bench", "cltraft bench"),
    ("verify", "cltraft verify"),
    ("help", "cltraft help [COMMAND]"),
];

/// What people type who come from another store.
const SYNONYMS: [(&str, &str); 36] = [
    ("set", "put"),
    ("write", "put"),
    ("store", "put"),
    ("read", "get"),
    ("show", "get"),
    ("delete", "del"),
    ("remove", "del"),
    ("rm", "del"),
    ("swap", "cas"),
    ("increment", "incr"),
    ("inc", "incr"),
    ("incrby", "incr"),
    ("decr", "incr"),
    ("info", "status"),
    ("stat", "status"),
    ("hash", "digest"),
    ("watch", "changes"),
    ("stream", "changes"),
    ("monitor", "changes"),
    ("nodes", "member"),
    ("add", "member"),
    ("join", "member"),
    ("promote", "member"),
    ("handover", "transfer"),
    ("move-leader", "transfer"),
    ("list", "scan"),
    ("keys", "scan"),
    ("ls", "scan"),
    ("range", "scan"),
    ("dump", "backup"),
    ("save", "backup"),
    ("snapshot", "backup"),
    ("load", "restore"),
    ("import", "restore"),
    ("benchmark", "bench"),
    ("lincheck", "verify"),
];

/// The message for a command that does not exist.
pub fn unknown_command(name: &str) -> String {
    let lower = name.to_lowercase();
    let synonym = SYNONYMS.into_iter().find(|(word, _)| *word == lower).map(|(_, known)| known);
    let near = synonym.or_else(|| closest(&lower, COMMANDS.into_iter().map(|(known, _)| known)));
    let usage = near.and_then(|near| COMMANDS.into_iter().find(|(known, _)| *known == near));
    let name: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
    match usage {
        Some((near, usage)) => {
            format!("there is no command '{name}', did you mean '{near}'? Write {usage}")
        }
        None => format!("there is no command '{name}'; cltraft --help shows them all"),
    }
}

/// The message for an option that does not exist.
pub fn unknown_option(name: &str) -> String {
    let hint = closest(name, super::options::names());
    let hint = hint.map_or(String::new(), |near| format!(", did you mean --{near}?"));
    format!("there is no option --{name}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_other_stores_and_slips() {
        for (typed, meant) in [
            ("set", "put"),
            ("SET", "put"),
            ("delete", "del"),
            ("gte", "get"),
            ("statsu", "status"),
            ("members", "member"),
            ("join", "member"),
            ("move-leader", "transfer"),
        ] {
            let message = unknown_command(typed);
            assert!(message.contains(&format!("did you mean '{meant}'")), "{message}");
        }
        assert!(!unknown_command("frobnicate").contains("did you mean"));
        assert!(!unknown_command("x").contains("did you mean"));
        assert!(!unknown_command("").contains("did you mean"));
    }

    #[test]
    fn options() {
        assert_eq!(
            unknown_option("server"),
            "there is no option --server, did you mean --servers?"
        );
        assert_eq!(unknown_option("verbose"), "there is no option --verbose");
    }
}
