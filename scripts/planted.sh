#!/usr/bin/env bash
# Can the tests fail? Plants each bug of tests/planted/*.patch into a copy of this tree, one after the other,
# and lets those look for it that its header names:
#
#   Bug:        what it breaks
#   Rule:       which rule says so
#   Test:       BINARY NAME of a test that finds it (no such line: only the simulator does)
#   Simulator:  yes, or "no: REASON" if it cannot or need not find it
#
# scripts/planted.sh [BUG...]     all of them if none is named
#
#   PLANTED_RUNS=n   seeds that the simulator may use for each (3000; 0: it is not asked)
#   PLANTED_SEED=n   the first of them (1)
#   PLANTED_DIR=dir  where the copy, its build and its logs go; kept, so that the next run is faster (a folder in
#                    /tmp, removed if all goes well)
#
# The table says in which run the simulator found a bug, and how long it took to build and look, in all. First
# everybody has to pass without a bug. Exit 1 if a bug is not found by all that should, does not apply or
# does not compile.

set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

RUNS=${PLANTED_RUNS:-3000}
SEED=${PLANTED_SEED:-1}
SIMULATOR=clusters_keep_every_promise_under_every_fault
TIME_MAX=900 # seconds for one look; a bug may also stop a test for good, which counts as found

# What the simulator gains from the slow settings of a release, building it again for each bug would cost.
export CARGO_PROFILE_RELEASE_LTO=false CARGO_PROFILE_RELEASE_CODEGEN_UNITS=64
export CARGO_PROFILE_RELEASE_OPT_LEVEL=2 CARGO_PROFILE_RELEASE_INCREMENTAL=true
export CARGO_TERM_COLOR=never

say() { printf 'planted.sh: %s\n' "$*" >&2; }

die() {
    say "$@"
    exit 1
}

# The folder in /tmp, with its logs, is left only to whoever has to see why.
clean_up() {
    if (($1 == 0)); then
        rm -rf "$WORK"
    else
        say "logs are in $LOG"
    fi
}

prepare() {
    if [[ -n ${PLANTED_DIR-} ]]; then
        mkdir -p "$PLANTED_DIR"
        WORK=$(cd "$PLANTED_DIR" && pwd)
    else
        WORK=$(mktemp -d "${TMPDIR:-/tmp}/raftkv-planted.XXXXXX")
        trap 'clean_up $?' EXIT
    fi
    TREE=$WORK/tree
    LOG=$WORK/log
    export CARGO_TARGET_DIR=$WORK/target
    rm -rf "$TREE"
    mkdir -p "$TREE" "$LOG"
    # What git knows or would take, as it is now; a repository of its own, or git apply would look for another.
    # With new times, or cargo would take what it built last, with a bug, for the same.
    (cd "$ROOT" && git ls-files -z --cached --others --exclude-standard |
        tar --create --null --files-from - --ignore-failed-read 2>/dev/null) | tar --extract --touch --directory "$TREE"
    git -C "$TREE" init --quiet
    cd "$TREE"
}

# field NAME PATCH
field() { sed -n "/^diff /q; s/^$1: *//p" "$2"; }

has_simulator() { ((RUNS > 0)) && [[ -e tests/sim.rs || -e tests/sim ]]; }

# compile LOG CARGO-TEST-ARGUMENTS...
compile() {
    local log=$1
    shift
    cargo test --quiet "$@" --no-run >"$log" 2>&1
}

# passes LOG COMMAND...: whether it ends well, in time.
passes() {
    local log=$1
    shift
    timeout --kill-after=10 "$TIME_MAX" "$@" >"$log" 2>&1
}

run_test() { # LOG BINARY NAME
    passes "$1" cargo test --quiet --test "$2" -- --exact "$3"
}

run_simulator() { # LOG
    SIM_SEED=$SEED SIM_RUNS=$RUNS passes "$1" cargo test --quiet --release --test sim -- --exact "$SIMULATOR"
}

# Everybody passes without a bug, and every named test is there.
check_without_bugs() {
    local patch binary name known
    say "without a bug: building, then $# bugs' finders"
    for patch in "$@"; do
        read -r binary name <<<"$(field Test "$patch")"
        [[ -n $binary ]] || continue
        printf '%s %s\n' "$binary" "$name"
    done | sort -u >"$LOG/tests"
    while read -r binary name; do
        compile "$LOG/build" --test "$binary" || die "$binary does not compile, see $LOG/build"
        known=$(cargo test --quiet --test "$binary" -- --list 2>/dev/null)
        [[ $'\n'$known == *$'\n'"$name: test"* ]] || die "$binary has no test $name"
        run_test "$LOG/clean" "$binary" "$name" </dev/null || die "$name fails without a bug, see $LOG/clean"
    done <"$LOG/tests"
    has_simulator || return 0
    compile "$LOG/build" --release --test sim || die "the simulator does not compile, see $LOG/build"
    run_simulator "$LOG/clean" || die "the simulator fails without a bug, see $LOG/clean"
}

# look_with_test BUG BINARY NAME: prints what came of it.
look_with_test() {
    local bug=$1 binary=$2 name=$3
    if ! compile "$LOG/$bug.build" --test "$binary"; then
        printf 'DOES NOT COMPILE'
    elif run_test "$LOG/$bug.test" "$binary" "$name"; then
        printf 'NOT FOUND'
    else
        printf '%s' "${name##*::}"
    fi
}

look_with_simulator() {
    local bug=$1 found
    if ! compile "$LOG/$bug.build" --release --test sim; then
        printf 'DOES NOT COMPILE'
    elif run_simulator "$LOG/$bug.sim"; then
        printf 'NOT IN %d SEEDS' "$RUNS"
    else
        found=$(grep -o 'SIM_SEED=[0-9]*' "$LOG/$bug.sim" | head -n 1 | cut -d= -f2) || true
        if [[ -n $found ]]; then
            printf 'run %d' $((found - SEED + 1))
        else
            printf 'NO SEED TO BLAME'
        fi
    fi
}

# look PATCH: one row of the table. Fails if somebody who should find the bug did not.
look() {
    local patch=$1 bug binary name by_test=- by_simulator=- start=$SECONDS
    bug=$(basename "$patch" .patch)
    read -r binary name <<<"$(field Test "$patch")"
    if ! git apply "$patch" 2>"$LOG/$bug.apply"; then
        by_test='DOES NOT APPLY'
    else
        [[ -z $binary ]] || by_test=$(look_with_test "$bug" "$binary" "$name")
        if [[ $(field Simulator "$patch") == yes ]] && has_simulator; then
            by_simulator=$(look_with_simulator "$bug")
        fi
        git apply --reverse "$patch"
    fi
    [[ $by_test$by_simulator != -- ]] || by_test='NOBODY LOOKED'
    printf '%-34s  %-16s  %7d  %s\n' "$bug" "$by_simulator" $((SECONDS - start)) "$by_test"
    [[ $by_test$by_simulator != *[A-Z][A-Z]* ]]
}

main() {
    local patches=() bug patch failed=0
    for bug in "$@"; do
        patches+=("$ROOT/tests/planted/${bug%.patch}.patch")
        [[ -e ${patches[-1]} ]] || die "there is no ${patches[-1]}"
    done
    (($# > 0)) || patches=("$ROOT"/tests/planted/*.patch)
    prepare
    check_without_bugs "${patches[@]}"
    has_simulator || say "there is no simulator, or it is not asked"
    printf '%-34s  %-16s  %7s  %s\n' bug simulator seconds 'named test'
    for patch in "${patches[@]}"; do
        look "$patch" || failed=$((failed + 1))
    done
    printf '%d bugs, %d of them not found\n' "${#patches[@]}" "$failed"
    ((failed == 0))
}

main "$@"
