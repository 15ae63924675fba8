//! `srvraft recover NAME --accept-loss-of NAME,...`: its own few words, and those flags of a node that say
//! which folder it is about.

use super::flags::{FLAGS, Raw};
use super::{
    SEGMENT_BYTES_MIN, UsageError, bad_value, cluster_id, split_name, unknown_flag, variable,
};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

/// The word that stands where a node's name does.
pub const COMMAND: &str = "recover";
/// Flags of a node that mean the same here.
const SHARED: [&str; 3] = ["data-dir", "cluster", "segment-bytes"];
const ACCEPT_LOSS_OF: &str = "accept-loss-of";

/// Which folder is to become a cluster of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoverRequest {
    pub name: String,
    pub number: u64,
    /// Of the cluster's name, as in hellos.
    pub cluster_id: u64,
    pub data_dir: PathBuf,
    pub segment_bytes: u64,
    /// Members whose data is given up; empty: nobody has said so.
    pub accept_loss_of: BTreeSet<String>,
}

/// `None`: help is asked for.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Option<RecoverRequest>, UsageError> {
    let mut raw = Raw::default();
    for flag in FLAGS.iter().filter(|flag| SHARED.contains(&flag.name)) {
        let variable = variable(flag.name);
        let given = env(&variable).filter(|text| !text.is_empty());
        let source = if given.is_some() { variable.as_str() } else { flag.name };
        let text = given.unwrap_or_else(|| flag.default.to_string());
        if !text.is_empty() {
            (flag.set)(&mut raw, &text).map_err(|why| bad_value(source, &text, &why))?;
        }
    }
    let mut name = None;
    let mut accept_loss_of = BTreeSet::new();
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next().map_err(|e| UsageError(e.to_string()))? {
        match arg {
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => return Ok(None),
            lexopt::Arg::Long(ACCEPT_LOSS_OF) => {
                let value = parser.value().map_err(|e| UsageError(e.to_string()))?;
                let names = value.to_string_lossy();
                let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
                accept_loss_of.extend(names.map(str::to_owned));
            }
            lexopt::Arg::Long(long) => {
                let flag = FLAGS.iter().find(|flag| flag.name == long);
                let Some(flag) = flag.filter(|flag| SHARED.contains(&flag.name)) else {
                    return Err(not_here(long, flag.is_some()));
                };
                let value = parser.value().map_err(|e| UsageError(e.to_string()))?;
                let text = value.to_string_lossy();
                (flag.set)(&mut raw, &text)
                    .map_err(|why| bad_value(&format!("--{}", flag.name), &text, &why))?;
            }
            lexopt::Arg::Short(short) => return Err(unknown_flag(&format!("-{short}"))),
            lexopt::Arg::Value(value) if name.is_none() => {
                name = Some(value.to_string_lossy().into_owned());
            }
            lexopt::Arg::Value(value) => {
                let text = value.to_string_lossy();
                return Err(UsageError(format!("'{text}': one NAME is recovered at a time")));
            }
        }
    }
    let name = name.or_else(|| env("MINOMBREPOD").filter(|name| !name.is_empty()));
    let name = name.ok_or_else(|| {
        UsageError("NAME is missing: srvraft recover raft-0 --accept-loss-of ...".to_string())
    })?;
    let (_, number) = split_name(&name).map_err(UsageError)?;
    Ok(Some(RecoverRequest {
        number,
        cluster_id: cluster_id(&raw.cluster),
        data_dir: raw.data_dir.unwrap_or_else(|| PathBuf::from("data").join(&name)),
        segment_bytes: raw.segment_bytes.max(SEGMENT_BYTES_MIN),
        name,
        accept_loss_of,
    }))
}

fn not_here(flag: &str, is_known: bool) -> UsageError {
    if is_known {
        return UsageError(format!("--{flag} does not belong to '{COMMAND}'"));
    }
    if flag.starts_with("accept") {
        return UsageError(format!("there is no --{flag} (did you mean --{ACCEPT_LOSS_OF}?)"));
    }
    unknown_flag(&format!("--{flag}"))
}
