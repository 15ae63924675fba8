//! Open files: every connection is one, and every file of the log.
//!
//! A node that cannot open the next file of its log has to end. So the limit is raised as far as it may be,
//! and clients share what the node does not need for itself.

use crate::config::Config;
use log::warn;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a node of one member has open at the most, and some to spare: standard streams, poll, signals,
/// listener and its reserve, the folder and its lock, old and new file of the log, questions for names.
const OWN_FILES: usize = 32;
/// A member is connected once, and for a moment it may be once more in each direction.
const FILES_PER_MEMBER: usize = 3;
/// Fewer than that are no use to anybody.
const CLIENTS_MIN: usize = 8;

/// `--connections-max`, or as many as the limit of open files allows. `Err`: not even a few.
pub fn connections_possible(config: &Config) -> Result<usize, String> {
    let wanted = config.connections_max;
    let own = OWN_FILES + FILES_PER_MEMBER * config.members.len() + super::links::HEADROOM;
    let files = raise_limit(own + wanted);
    let possible = files.saturating_sub(own).min(wanted);
    if possible < wanted.min(CLIENTS_MIN) {
        return Err(format!(
            "the limit of open files is {files}, and a node needs {} at least: raise it (ulimit -n)",
            own + CLIENTS_MIN
        ));
    }
    if possible < wanted {
        warn!(
            "connections are limited to {possible}, not to {wanted}: the limit of open files is {files}; \
             raise it (ulimit -n), or lower --connections-max"
        );
    }
    Ok(possible)
}

/// Raises the limit of this process to `wanted`, or as near to it as may be, and returns what it is.
fn raise_limit(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = wanted as u64;
    let Some(current) = limit.current.filter(|current| *current < wanted) else {
        return wanted as usize;
    };
    let target = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = Rlimit { current: Some(target), maximum: limit.maximum };
    let result = if setrlimit(Resource::Nofile, raised).is_ok() { target } else { current };
    result as usize
}
