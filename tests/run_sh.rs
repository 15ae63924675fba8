//! Runs `run_sh.sh`, the test of `run.sh`, on the binaries that cargo has just built.

use std::path::Path;
use std::process::Command;

#[test]
fn run_sh_starts_stops_and_explains() {
    let binaries =
        Path::new(env!("CARGO_BIN_EXE_srvraft")).parent().expect("a binary has a folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/run_sh.sh");
    let output = Command::new("bash")
        .arg(script)
        .env("RAFTKV_BIN", binaries)
        .output()
        .expect("bash is needed to test run.sh");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
