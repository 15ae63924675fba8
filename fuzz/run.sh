#!/usr/bin/env bash
# Fuzzes one target, or each in turn: fuzz/run.sh TARGET|all [SECONDS [OPTION OF LIBFUZZER ...]]
# Needs cargo-fuzz (cargo install cargo-fuzz --locked) and a C++ compiler; stable Rust will do.
#
# What is found to be interesting stays in fuzz/grown/TARGET, for the next run to go on from. An input that fails
# is left in fuzz/artifacts/TARGET, with the command that repeats it on the screen.
#
# SANITIZER=address also watches memory: slower, and it needs RUSTC_BOOTSTRAP=1 or a nightly Rust.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# A parser that takes longer or more for 4 KiB trusts a length that it should not.
readonly LIMITS=(-timeout=10 -rss_limit_mb=512)

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

targets() {
    basename --suffix=.rs --multiple fuzz_targets/*.rs
}

run() {
    local target=$1 seconds=$2
    shift 2
    mkdir -p "grown/$target"
    cargo fuzz run --sanitizer "${SANITIZER:-none}" "$target" "grown/$target" "corpus/$target" -- \
        "-max_total_time=$seconds" -print_final_stats=1 "${LIMITS[@]}" "$@"
}

[[ $# -gt 0 ]] || fail "usage: fuzz/run.sh TARGET|all [SECONDS [OPTION OF LIBFUZZER ...]]" "targets:" "$(targets)"
target=$1 seconds=${2:-60}
shift "$(($# < 2 ? $# : 2))"
[[ $seconds =~ ^[1-9][0-9]*$ ]] || fail "SECONDS is a number above 0, not '$seconds'"
[[ $target == all || -f fuzz_targets/$target.rs ]] || fail "no target '$target'; there are:" "$(targets)"
cargo fuzz --version >/dev/null 2>&1 || fail "cargo-fuzz is missing: cargo install cargo-fuzz --locked"

if [[ $target != all ]]; then
    run "$target" "$seconds" "$@"
    exit
fi
for each in $(targets); do
    printf '==== %s\n' "$each"
    run "$each" "$seconds" "$@"
done
