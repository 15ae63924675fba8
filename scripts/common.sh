# shellcheck shell=bash
# What every mode of run.sh shares: messages, waiting for a condition, ports, builds. Sourced, never run.

# Those that a new cluster begins with; they are the --peers of every node.
INITIAL_NODES=(raft-0 raft-1 raft-2)
# Those that can join it later, by being started.
# shellcheck disable=SC2034 # used where this is sourced
LATER_NODES=(raft-3 raft-4 raft-5 raft-6)
# Those that there are: the initial ones, and what each mode finds of the later ones.
# shellcheck disable=SC2034
NODES=("${INITIAL_NODES[@]}")
# shellcheck disable=SC2034 # used where this is sourced
SERVER_IMAGE=localhost:5001/servidor:latest
# shellcheck disable=SC2034
CLIENT_IMAGE=localhost:5001/cliente:latest
TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}
[[ $TARGET_DIR == /* ]] || TARGET_DIR=$PWD/$TARGET_DIR

# A reader that went away (./run.sh local | head) must not keep the script from stopping its nodes.
say() { printf 'run.sh: %s\n' "$*" 2>/dev/null || true; }

complain() { printf 'run.sh: %s\n' "$*" >&2 || true; }

# die WHAT [WHAT-TO-DO]
die() {
    complain "$1"
    [[ -z ${2-} ]] || complain "$2"
    exit 1
}

usage_error() {
    complain "$1"
    exit 2
}

is_node() {
    local node
    for node in "${INITIAL_NODES[@]}" "${LATER_NODES[@]}"; do
        [[ $node != "$1" ]] || return 0
    done
    return 1
}

how_to_get() {
    case $1 in
        cargo) printf 'get Rust from https://rustup.rs (for local: or set RAFTKV_BIN to a folder with the binaries)\n' ;;
        docker) printf 'install Docker Engine: https://docs.docker.com/engine/install/\n' ;;
        kind) printf 'see https://kind.sigs.k8s.io/docs/user/quick-start/#installation\n' ;;
        kubectl) printf 'see https://kubernetes.io/docs/tasks/tools/\n' ;;
    esac
}

# need_tools TOOL...: names all that are missing at once, and how to get them.
need_tools() {
    local tool missing=()
    for tool in "$@"; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    for tool in "${missing[@]}"; do
        complain "$tool is not installed, and this needs it"
        complain "  $(how_to_get "$tool")"
    done
    [[ ${#missing[@]} -eq 0 ]] || exit 1
    [[ " $* " != *' docker '* ]] || need_docker
}

# wait_until SECONDS COMMAND...: true as soon as the command is; false when the time is over.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

# Tells whether anybody accepts connections on 127.0.0.1:PORT.
port_open() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Tells whether a node speaks on 127.0.0.1:PORT: any reply to PING will do, also an error.
node_answers() {
    local reply
    reply=$(
        exec 2>/dev/null
        exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
        printf 'PING\r\n' >&3
        read -r -t 1 line <&3 && printf '%s' "$line"
    ) && [[ $reply == [+-]* ]]
}

# Says who listens on PORT, as far as this user may know: "process 4711 (nginx)".
listener_of() {
    local found
    found=$(ss -Hltnp "sport = :$1" 2>/dev/null |
        sed -n 's/.*users:(("\([^"]*\)",pid=\([0-9]*\).*/process \2 (\1)/p' | head -n 1) || true
    printf '%s\n' "${found:-another process}"
}

# The last lines of a log, indented, for an error message.
show_tail() {
    tail -n "${2:-20}" "$1" 2>/dev/null | sed 's/^/    /' >&2 || true
}

# The target for binaries that need nothing from their image: musl where it is installed, else glibc,
# linked statically. (A static glibc is sound here because no code calls getaddrinfo.)
static_target() {
    local host musl
    host=$(rustc -vV | sed -n 's/^host: //p')
    musl=${host%-gnu}-musl
    if [[ $host == *-gnu && -d $(rustc --print target-libdir --target "$musl" 2>/dev/null) ]]; then
        printf '%s\n' "$musl"
    else
        printf '%s\n' "$host"
    fi
}

# Builds srvraft and cltraft statically and prints the folder that has them.
build_static() {
    local target binary
    need_tools cargo
    target=$(static_target)
    complain "building static binaries for $target"
    # --target keeps crt-static away from build scripts and procedural macros, which cannot have it.
    # The paths of this machine would make two builds of one commit differ.
    RUSTFLAGS="${RUSTFLAGS-} -C target-feature=+crt-static --remap-path-prefix=$ROOT=/raftkv \
--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo" \
        cargo build --release --locked --target "$target" --manifest-path "$ROOT/Cargo.toml" >&2 ||
        die "the build failed" "the compiler's messages are above"
    for binary in srvraft cltraft; do
        ! LC_ALL=C ldd "$TARGET_DIR/$target/release/$binary" 2>/dev/null | grep '=>' >/dev/null ||
            die "$binary for $target is not static" "rustup target add ${target%-gnu}-musl"
    done
    printf '%s\n' "$TARGET_DIR/$target/release"
}
