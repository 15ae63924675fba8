# shellcheck shell=bash
# Local mode: three (or more) srvraft processes on this machine, and cltraft in the foreground. Sourced by run.sh.
#
#   $DATA/raft-N/       the node's data folder
#   $DATA/raft-N.log    its log (outside of the folder, which belongs to the node alone)
#   $DATA/run/*.pid     process ids; one counts only while /proc says that it is the process we started
#   $DATA/run/owner     pid of the run.sh in whose terminal the client is; only that one stops it all
#   $DATA/run/port      port of raft-0, so that a second terminal need not be told
#   $DATA/run/bin       folder of the binaries, for the same reason

DATA=${RAFTKV_DATA:-$ROOT/data}
[[ $DATA == /* ]] || DATA=$PWD/$DATA
RUN_DIR=$DATA/run
BASE_PORT=${RAFTKV_PORT:-$(cat "$RUN_DIR/port" 2>/dev/null || printf '6000')}
[[ $BASE_PORT =~ ^[0-9]{1,5}$ ]] || die "RAFTKV_PORT=$BASE_PORT is not a port number"
BIN_DIR=${RAFTKV_BIN:-$(cat "$RUN_DIR/bin" 2>/dev/null || printf '%s' "$TARGET_DIR/release")}
[[ $BIN_DIR == /* ]] || BIN_DIR=$PWD/$BIN_DIR
START_SECONDS=15 # for a node to answer; reading a large log back is the slow part
STOP_SECONDS=10  # for a node to end after SIGTERM, before SIGKILL

node_port() { printf '%s\n' $((BASE_PORT + ${1##*-})); }
node_log() { printf '%s\n' "$DATA/$1.log"; }
pid_file() { printf '%s\n' "$RUN_DIR/$1.pid"; }

# Nodes that joined later are known by what they left here.
find_local_nodes() {
    local node
    NODES=("${INITIAL_NODES[@]}")
    for node in "${LATER_NODES[@]}"; do
        [[ ! -e $DATA/$node && ! -e $(pid_file "$node") ]] || NODES+=("$node")
    done
}
find_local_nodes

# name=host:port of the nodes that a cluster begins with, comma-separated.
initial_peers() {
    local node list=()
    for node in "${INITIAL_NODES[@]}"; do list+=("$node=127.0.0.1:$(node_port "$node")"); done
    (IFS=, && printf '%s\n' "${list[*]}")
}

# host:port of every node, comma-separated.
local_addresses() {
    local node list=()
    for node in "${NODES[@]}"; do list+=("127.0.0.1:$(node_port "$node")"); done
    (IFS=, && printf '%s\n' "${list[*]}")
}

# Prints what tells a process from every other that ever had its pid: its start time and the boot.
# Fails if there is no such process, or only its zombie. (Its command line would not do: for a moment
# after the fork, and for seconds on a slow disk, that is still ours.)
process_identity() {
    local stat fields
    read -r stat 2>/dev/null <"/proc/$1/stat" || return 1
    read -r -a fields <<<"${stat##*) }" # the name before it is in brackets, and may hold anything
    [[ ${fields[0]} != [ZX] ]] || return 1
    printf '%s %s\n' "${fields[19]}" "$(</proc/sys/kernel/random/boot_id)"
}

# write_pid NAME PID: a pid file has the pid and, as pids are used again, the identity.
write_pid() {
    printf '%s %s\n' "$2" "$(process_identity "$2" || printf 'gone')" >"$(pid_file "$1")"
}

# Prints the pid of a node, or of the client, if it is alive and ours.
live_pid() {
    local pid identity
    read -r pid identity 2>/dev/null <"$(pid_file "$1")" || return 1
    [[ $pid =~ ^[0-9]+$ && -n $identity && $(process_identity "$pid") == "$identity" ]] || return 1
    printf '%s\n' "$pid"
}

is_running() { live_pid "$1" >/dev/null; }
is_stopped() { ! is_running "$1"; }

local_any_running() {
    local name
    for name in "${NODES[@]}" client; do
        ! is_running "$name" || return 0
    done
    return 1
}

# Also true when every node has been killed but the cluster was not taken down.
local_any_pid_file() { compgen -G "$RUN_DIR/*.pid" >/dev/null; }

local_build() {
    if [[ -n ${RAFTKV_BIN-} ]]; then
        [[ -x $BIN_DIR/srvraft && -x $BIN_DIR/cltraft ]] ||
            die "RAFTKV_BIN=$RAFTKV_BIN has no srvraft and cltraft" "unset it to build them with cargo"
        return
    fi
    BIN_DIR=$TARGET_DIR/release # whatever folder an earlier run took them from
    need_tools cargo
    say "building with cargo build --release (the first time takes a few minutes)"
    cargo build --release --manifest-path "$ROOT/Cargo.toml" ||
        die "the build failed" "the compiler's messages are above"
}

check_port_free() {
    local port
    port=$(node_port "$1")
    ! port_open "$port" ||
        die "port $port, which $1 needs, is in use by $(listener_of "$port")" \
            "stop that, or take other ports: RAFTKV_PORT=7000 ./run.sh local"
}

# Starts a node in a session of its own, so that Ctrl-C reaches it only through us.
spawn_node() {
    local node=$1
    mkdir -p "$RUN_DIR"
    printf '%s\n' "$BASE_PORT" >"$RUN_DIR/port"
    printf '%s\n' "$BIN_DIR" >"$RUN_DIR/bin"
    setsid "$BIN_DIR/srvraft" "$node" --listen "127.0.0.1:$(node_port "$node")" \
        --advertise "127.0.0.1:$(node_port "$node")" --peers "$(initial_peers)" --data-dir "$DATA/$node" \
        </dev/null >>"$(node_log "$node")" 2>&1 &
    write_pid "$node" "$!"
    disown # its end is no news for this shell
}

# True when there is nothing more to wait for: the node answers, or it is gone.
answers_or_gone() { node_answers "$(node_port "$1")" || is_stopped "$1"; }

await_node() {
    local node=$1 port
    port=$(node_port "$node")
    wait_until "$START_SECONDS" answers_or_gone "$node" || true
    if is_stopped "$node"; then
        complain "$node ended at once; the end of its log, $(node_log "$node"):"
        show_tail "$(node_log "$node")"
        rm -f "$(pid_file "$node")"
        exit 1
    fi
    node_answers "$port" || {
        complain "$node (process $(live_pid "$node")) does not answer on port $port after $START_SECONDS s:"
        show_tail "$(node_log "$node")"
        exit 1
    }
    say "$node is up: process $(live_pid "$node"), 127.0.0.1:$port, log $(node_log "$node")"
}

# Ends nodes (and the client) with SIGTERM, all at the same time, and waits for them.
terminate() {
    local name pid
    for name in "$@"; do
        ! pid=$(live_pid "$name") || kill -TERM "$pid" 2>/dev/null || true
    done
    for name in "$@"; do
        if ! wait_until "$STOP_SECONDS" is_stopped "$name"; then
            complain "$name did not end within $STOP_SECONDS s of SIGTERM; sending SIGKILL"
            ! pid=$(live_pid "$name") || kill -KILL "$pid" 2>/dev/null || true
            wait_until "$STOP_SECONDS" is_stopped "$name" || complain "$name is stuck in the kernel"
        fi
        rm -f "$(pid_file "$name")"
    done
}

# The way out of ./run.sh local, whatever the reason. A cluster that another terminal took down may have
# been started again by then, and is not ours any more.
local_leave() {
    trap '' INT QUIT TERM HUP
    trap - EXIT
    if [[ $(cat "$RUN_DIR/owner" 2>/dev/null) != "$$" ]]; then
        say "taken down from another terminal"
        return
    fi
    find_local_nodes # some may have joined since
    terminate client "${NODES[@]}"
    rm -rf -- "$RUN_DIR"
    say "stopped; the data stays in $DATA (./run.sh clean removes it)"
}

# A shell whose terminal is closed sends SIGHUP and SIGTERM at once: the second must not end what the first began.
local_signalled() {
    trap '' INT QUIT TERM HUP
    exit "$1"
}

local_run() {
    [[ $# -eq 0 ]] || usage_error "local takes no arguments (got: $*)"
    local node
    ! local_any_running || die "a local cluster is running already, with its data in $DATA" \
        "./run.sh status shows it; ./run.sh down stops it"
    local_build
    BASE_PORT=${RAFTKV_PORT:-6000} # whatever port an earlier run left behind
    for node in "${NODES[@]}"; do check_port_free "$node"; done
    rm -rf -- "$RUN_DIR"
    mkdir -p "$RUN_DIR"
    printf '%s\n' "$$" >"$RUN_DIR/owner"

    trap local_leave EXIT
    trap 'local_signalled 129' HUP
    trap 'local_signalled 130' INT
    trap 'local_signalled 131' QUIT
    trap 'local_signalled 143' TERM
    trap '' PIPE
    for node in "${NODES[@]}"; do spawn_node "$node"; done
    for node in "${NODES[@]}"; do await_node "$node"; done
    local_client
}

# The client in the foreground. It runs as a background job because bash answers signals at once only
# while it waits for one of those.
local_client() {
    local status=0 pid
    say "the client follows; Ctrl-C stops everything; another terminal: ./run.sh status, ./run.sh kill raft-2"
    "$BIN_DIR/cltraft" --servers "$(local_addresses)" </dev/null &
    pid=$!
    write_pid client "$pid"
    wait "$pid" 2>/dev/null || status=$?
    case $status in
        0 | 130 | 143) say "the client was stopped" && exit 0 ;;
        *) complain "the client ended with status $status" && exit "$status" ;;
    esac
}

local_kill() {
    local pid
    pid=$(live_pid "$1") || die "$1 is not running" "./run.sh start $1 starts it"
    kill -KILL "$pid"
    wait_until "$STOP_SECONDS" is_stopped "$1" || die "$1 (process $pid) is still there after SIGKILL"
    say "$1 (process $pid) was killed with SIGKILL; ./run.sh start $1 brings it back"
}

local_stop() {
    is_running "$1" || die "$1 is not running" "./run.sh start $1 starts it"
    terminate "$1"
    printf '0 stopped\n' >"$(pid_file "$1")" # the cluster is still up, and this node is one of it
    say "$1 has stopped; ./run.sh start $1 brings it back"
}

local_wipe() {
    local folder=$DATA/$1
    ! is_running "$1" || die "$1 is running (process $(live_pid "$1"))" \
        "./run.sh kill $1 first: a disk is not taken out of a node that writes to it"
    [[ -d $folder ]] || die "$1 has no data: there is no $folder"
    rm -rf -- "$folder"
    say "$1 has lost its data: $folder is removed; ./run.sh start $1 brings it back with an empty disk"
}

local_start() {
    local node names=("$@") started=()
    [[ $# -gt 0 ]] || names=("${NODES[@]}")
    [[ -x $BIN_DIR/srvraft ]] || local_build
    for node in "${names[@]}"; do
        if is_running "$node"; then
            [[ $# -eq 0 ]] || die "$node is running already (process $(live_pid "$node"))"
            continue
        fi
        check_port_free "$node"
        spawn_node "$node"
        started+=("$node")
    done
    [[ ${#started[@]} -gt 0 ]] || die "every node is running already"
    for node in "${started[@]}"; do await_node "$node"; done
}

local_logs() {
    local follow=()
    [[ -f $(node_log "$1") ]] || die "$1 has no log yet: $(node_log "$1")"
    [[ ${2-} != -f ]] || follow=(-F)
    tail -n 50 "${follow[@]}" "$(node_log "$1")"
}

# Ends as cltraft status does: 0 only if the cluster is healthy.
local_status() {
    local node pid status=0
    if [[ -x $BIN_DIR/cltraft ]]; then
        RAFTKV_SERVERS=$(local_addresses) "$BIN_DIR/cltraft" status || status=$?
    else
        complain "the nodes cannot be asked: there is no cltraft in $BIN_DIR (cargo build --release makes it)"
        status=1
    fi
    printf '\n%-8s %8s %10s %6s  %s\n' process pid memory port log
    for node in "${NODES[@]}"; do
        pid=$(live_pid "$node") || pid=
        printf '%-8s %8s %10s %6s  %s\n' "$node" "${pid:-down}" "$(resident_memory "$pid")" \
            "$(node_port "$node")" "$(node_log "$node")"
    done
    return "$status"
}

resident_memory() {
    [[ -n $1 ]] || { printf -- '-\n' && return; }
    awk '/^VmRSS:/ { printf "%.1f MiB\n", $2 / 1024 }' "/proc/$1/status" 2>/dev/null || printf -- '-\n'
}

local_down() {
    local node stopped=()
    for node in "${NODES[@]}"; do
        ! is_running "$node" || stopped+=("$node")
    done
    rm -f "$RUN_DIR/owner"
    terminate client "${NODES[@]}"
    rm -rf -- "$RUN_DIR"
    say "local nodes stopped: ${stopped[*]:-none was running}; the data stays in $DATA"
}

local_clean() {
    local node path removed=
    for node in "${NODES[@]}"; do
        for path in "$DATA/$node" "$(node_log "$node")"; do
            [[ -e $path ]] || continue
            removed=1
            say "removing $path ($(du -sh "$path" | cut -f1))"
            rm -rf -- "$path"
        done
    done
    rm -rf -- "$RUN_DIR"
    rmdir "$DATA" 2>/dev/null || true # somebody else's files stay
    [[ -n $removed ]] || say "there is no local data in $DATA"
}
