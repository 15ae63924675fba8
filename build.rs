//! How a static binary for glibc is linked: without what it would carry along and never use. It stands here and
//! not in flags of run.sh, because the Dockerfile and a plain `cargo build` have to make the same binary.
//! musl's static binaries are small without it, and everything else is linked as ever.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// Unwind tables: with `panic = "abort"` nobody unwinds, and a stripped binary has no names to print beside its
/// frames. glibc's own are in its archive, out of the compiler's reach, so it is the linker that drops them. A
/// panic still says what and where. `INSERT` leaves the linker's own layout in force.
const NO_UNWIND_TABLES: &str = "SECTIONS { /DISCARD/ : { *(.eh_frame .eh_frame.* .gcc_except_table .gcc_except_table.*) } } INSERT AFTER .text;\n";

/// The first glibc whose start-up code reads packed relocations; an older one would jump through unrelocated
/// pointers before `main`.
const GLIBC_WITH_PACKED_RELOCATIONS: (u32, u32) = (2, 36);

/// glibc's `sscanf`, which would come with all formats of floating point, 120 KB, for one caller: a thread that
/// starts asks where its stack is (`pthread_getattr_np`), and for the first thread that is read from
/// /proc/self/maps with `sscanf`, line by line. What stands for it knows characters and touches no memory; it
/// never returns 2, so that no line fits, and the question has no answer. Then std sets no guard page of its
/// own, and who overflows the first stack ends with SIGSEGV, without the words. Newer ones have the second name.
const STANDS_FOR_SSCANF: [&str; 2] =
    ["-Wl,--defsym=__isoc99_sscanf=isascii", "-Wl,--defsym=__isoc23_sscanf=isascii"];

/// Not every linker fetches from glibc's archive what only stands for something else.
const FETCHES_THE_STAND_IN: &str = "-Wl,--undefined=isascii";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if !is_static_glibc_release() {
        return;
    }
    let script = Path::new(&variable("OUT_DIR")).join("no-unwind-tables.ld");
    fs::write(&script, NO_UNWIND_TABLES).expect("OUT_DIR can be written");
    link_arg(&format!("-T{}", script.display()));
    link_arg("-Wl,--no-eh-frame-hdr"); // the index of those tables
    link_arg(FETCHES_THE_STAND_IN);
    STANDS_FOR_SSCANF.iter().for_each(|argument| link_arg(argument));
    // The addresses that a position-independent binary mends at its start: a bit each instead of 24 bytes.
    if glibc_version() >= Some(GLIBC_WITH_PACKED_RELOCATIONS) {
        link_arg("-Wl,-z,pack-relative-relocs");
    }
}

/// Debug builds keep their tables, for debuggers.
fn is_static_glibc_release() -> bool {
    let features = variable("CARGO_CFG_TARGET_FEATURE");
    variable("PROFILE") == "release"
        && variable("CARGO_CFG_TARGET_ENV") == "gnu"
        && variable("CARGO_CFG_TARGET_OS") == "linux"
        && features.split(',').any(|feature| feature == "crt-static")
}

/// That of this machine, which is the one linked in, unless the build is for another.
fn glibc_version() -> Option<(u32, u32)> {
    if variable("HOST") != variable("TARGET") {
        return None;
    }
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?; // "glibc 2.36"
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn link_arg(argument: &str) {
    println!("cargo::rustc-link-arg-bins={argument}");
}

/// One that cargo sets, or leaves out where it would be empty.
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}
