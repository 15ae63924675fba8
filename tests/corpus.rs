//! The fuzz targets over the inputs that are kept in `fuzz/corpus`, without a fuzzer: seeds, and whatever once
//! failed.
//!
//! The seeds are made here, from what the formats say now. After a change of a format `UPDATE=1` writes them
//! anew.

mod corpus_seeds;
mod documented;
mod mem_disk;
mod streams;
#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

// The tests of the log use the rest.
#[allow(dead_code)]
#[path = "wal/model.rs"]
mod model;

use corpus_seeds::Seed;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

/// All that is kept, in bytes.
const CORPUS_BYTES_MAX: u64 = 100 * 1024;

struct Target {
    name: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> Vec<Seed>,
}

macro_rules! targets {
    ($($name:ident),*) => {
        [$(Target {
            name: stringify!($name),
            run: targets::$name::run,
            seeds: corpus_seeds::$name,
        }),*]
    };
}

const TARGETS: [Target; 9] = targets![
    client_messages,
    commands,
    frames,
    hello,
    http_requests,
    peer_messages,
    snapshot_loading,
    text_commands,
    wal_recovery
];

fn fuzz(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(path)
}

impl Target {
    fn folder(&self) -> PathBuf {
        fuzz("corpus").join(self.name)
    }

    /// The seeds as they should be in the folder.
    fn seed_files(&self) -> BTreeSet<(PathBuf, Vec<u8>)> {
        let seeds = (self.seeds)().into_iter();
        seeds.map(|(name, bytes)| (self.folder().join(format!("seed-{name}")), bytes)).collect()
    }

    /// Whatever is in the folder, what a fuzzer added there included.
    fn files(&self) -> Vec<PathBuf> {
        static UPDATE: Once = Once::new();
        if std::env::var_os("UPDATE").is_some() {
            UPDATE.call_once(|| TARGETS.iter().for_each(Target::write_seeds));
        }
        self.list()
    }

    fn write_seeds(&self) {
        fs::create_dir_all(self.folder()).unwrap();
        let old = self.list().into_iter().filter(|file| is_seed(file));
        old.for_each(|file| fs::remove_file(file).unwrap());
        self.seed_files().iter().for_each(|(file, bytes)| fs::write(file, bytes).unwrap());
    }

    fn list(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.folder()).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        files.map(|file| file.unwrap().path()).collect()
    }
}

#[test]
fn every_kept_input_passes() {
    for target in &TARGETS {
        let mut files = target.files();
        files.sort();
        assert!(!files.is_empty(), "no inputs for {}", target.name);
        for file in files {
            println!("{}", file.display());
            (target.run)(&fs::read(&file).unwrap());
        }
    }
}

/// Each input is also run cut short and with every byte changed: a corpus grows stale, its neighbours do not.
#[test]
fn the_neighbours_of_every_seed_pass() {
    for target in &TARGETS {
        for (name, seed) in (target.seeds)() {
            println!("{} {name}", target.name);
            for at in (0..seed.len()).step_by(seed.len().div_ceil(400)) {
                (target.run)(&seed[..at]);
                for change in [0x01, 0x80, 0xff] {
                    let mut changed = seed.clone();
                    changed[at] ^= change;
                    (target.run)(&changed);
                }
            }
        }
    }
}

#[test]
fn the_seeds_are_what_the_formats_say_now() {
    for target in &TARGETS {
        let kept = target.files().into_iter().filter(|file| is_seed(file));
        let kept: BTreeSet<_> = kept.map(|file| (file.clone(), fs::read(file).unwrap())).collect();
        let expected = target.seed_files();
        let differ: Vec<_> = kept.symmetric_difference(&expected).map(|(file, _)| file).collect();
        assert!(differ.is_empty(), "`UPDATE=1 cargo test --test corpus` makes these: {differ:?}");
    }
}

fn is_seed(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seed-"))
}

#[test]
fn every_target_is_known_here_and_to_the_fuzzer() {
    let here: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let sources = fs::read_dir(fuzz("fuzz_targets")).unwrap();
    let sources: BTreeSet<String> = sources
        .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(sources, here);
    let manifest = fs::read_to_string(fuzz("Cargo.toml")).unwrap();
    for name in &here {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}

#[test]
fn the_corpus_is_small() {
    let named =
        |file: &PathBuf| file.file_name().is_some_and(|n| n.to_string_lossy().contains('-'));
    let files = TARGETS.iter().flat_map(Target::files).filter(named);
    let bytes: u64 = files.map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes");
}
