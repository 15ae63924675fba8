#!/usr/bin/env bash
# Starts a whole raftkv cluster with one command, and lets a second terminal break it and look at it.
#
# Four ways to run the same thing: processes (scripts/local.sh), containers (scripts/docker.sh), Kubernetes in
# Docker (scripts/kind.sh) and any other Kubernetes (scripts/kube.sh). This file chooses between them and reads
# the command line.
# Everything that is stopped or removed was started by this script: processes are found by their pid
# file and checked against /proc before a signal, containers by their label, the kind cluster by name.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/common.sh
source "$ROOT/scripts/common.sh"
# shellcheck source=scripts/local.sh
source "$ROOT/scripts/local.sh"
# shellcheck source=scripts/image.sh
source "$ROOT/scripts/image.sh"
# shellcheck source=scripts/docker.sh
source "$ROOT/scripts/docker.sh"
# shellcheck source=scripts/kube.sh
source "$ROOT/scripts/kube.sh"
# shellcheck source=scripts/kind.sh
source "$ROOT/scripts/kind.sh"

COMMANDS=(local docker kind k8s status kill stop start wipe logs down clean help)

usage() {
    cat <<'USAGE'
Usage: ./run.sh [COMMAND]

Start a cluster of three nodes (raft-0, raft-1, raft-2) and follow the log of its client:
  (nothing)         kind if docker, kind and kubectl are all usable, else local
  local             processes on 127.0.0.1:6000-6002, data in ./data; Ctrl-C stops them
  docker            containers on the network raftkv; Ctrl-C stops following, down removes them
  kind              a Kubernetes cluster in Docker, made anew, with a registry on localhost:5001
  kind STAGE        one stage of that: up, build, push, deploy, logs, down
  k8s --context NAME [--registry HOST:PORT] [STAGE]
                    in any other Kubernetes cluster: build, push, deploy, logs, down; without a STAGE
                    the first four. The images go to localhost:5001 or the registry that is given

From a second terminal, for local and docker alike:
  status            what every node says of itself, and its process or container
  kill raft-N       kill -9, as a crash does
  stop raft-N       SIGTERM, as an orderly shutdown does
  start [raft-N]    start that node again; without a name, every node that is down;
                    raft-3 to raft-6 join the cluster by being started
  wipe raft-N       remove the data of a node that does not run, as a lost disk does
  logs raft-N [-f]  the last lines of a node's log; -f follows
  down              stop and remove whatever this script started; data stays
  clean             remove the data too (only when nothing runs)
  help              this text

Environment:
  RAFTKV_PORT=6000             port of raft-0 in local mode; the others follow
  RAFTKV_DATA=./data           data, logs and pid files in local mode
  RAFTKV_BIN=DIR               use srvraft and cltraft from DIR instead of building (local mode)
  RAFTKV_CLIENT_BASE=alpine    base image of the client image
  RAFTKV_REGISTRY_IMAGE=registry:3   image of the registry for kind

Exit status: 0 done, 1 refused or failed (the message says what to do), 2 wrong usage, 130 Ctrl-C;
while the client is in the foreground, the client's own status (1: it read a wrong value);
after status, 1 or 3 if the cluster is not healthy.
USAGE
}

# Number of single-letter edits from one word to the other.
edit_distance() {
    local from=$1 to=$2 row column cost best
    local -A distance
    for ((row = 0; row <= ${#from}; row++)); do
        for ((column = 0; column <= ${#to}; column++)); do
            if ((row == 0 || column == 0)); then
                distance[$row,$column]=$((row + column))
                continue
            fi
            cost=1
            [[ ${from:row-1:1} != "${to:column-1:1}" ]] || cost=0
            best=$((distance[$((row - 1)),$((column - 1))] + cost))
            ((best <= distance[$((row - 1)),$column] + 1)) || best=$((distance[$((row - 1)),$column] + 1))
            ((best <= distance[$row,$((column - 1))] + 1)) || best=$((distance[$row,$((column - 1))] + 1))
            distance[$row,$column]=$best
        done
    done
    printf '%s\n' "${distance[${#from},${#to}]}"
}

closest_command() {
    local word=${1:0:20} command distance best_distance=99 best=
    for command in "${COMMANDS[@]}"; do
        distance=$(edit_distance "$word" "$command")
        if ((distance < best_distance)); then
            best_distance=$distance
            best=$command
        fi
    done
    printf '%s\n' "$best"
}

unknown_command() {
    local closest
    closest=$(closest_command "$1")
    complain "'$1' is not a command; did you mean this one?"
    usage | sed -n "s/^  $closest /    .\/run.sh $closest /p" | head -n 1 >&2
    complain "./run.sh help shows them all"
    exit 2
}

# Prints the mode and the reason for it, tab-separated.
choose_mode() {
    local reason
    if ! reason=$(docker_usable); then
        printf 'local\t%s\n' "$reason"
    elif ! command -v kind >/dev/null; then
        printf 'local\tkind is not installed\n'
    elif ! command -v kubectl >/dev/null; then
        printf 'local\tkubectl is not installed\n'
    else
        printf 'kind\tdocker, kind and kubectl are all usable\n'
    fi
}

run_default() {
    local mode reason
    IFS=$'\t' read -r mode reason < <(choose_mode)
    say "mode $mode, because $reason"
    case $mode in
        local) local_run ;;
        kind) kind_run ;;
    esac
}

# Where the nodes live that kill, stop, start and logs are about.
running_mode() {
    if local_any_running || { local_any_pid_file && ! docker_any_container; }; then
        printf 'local\n'
    elif docker_any_container; then
        printf 'docker\n'
    else
        printf 'none\n'
    fi
}

# Runs local_VERB or docker_VERB for a node, wherever the cluster is.
node_command() {
    local verb=$1 name=${2-} mode
    [[ -n $name ]] || usage_error "$verb needs a node: ./run.sh $verb raft-2 (nodes: ${NODES[*]})"
    is_node "$name" || die_no_node "$name"
    mode=$(running_mode)
    # Data outlives its cluster.
    [[ $mode != none || $verb != wipe || ! -d $DATA/$name ]] || mode=local
    [[ $mode != none ]] || die_nothing_runs
    shift
    "${mode}_${verb}" "$@"
}

start_command() {
    local mode
    if [[ -n ${1-} ]]; then
        is_node "$1" || die_no_node "$1"
    fi
    mode=$(running_mode)
    # Nodes started one by one, with no client, make a cluster too: local needs nothing to be there before.
    [[ $mode != none ]] || mode=local
    "${mode}_start" "$@"
}

logs_command() {
    if [[ ${1-} == client ]] && docker_any_container; then
        docker_logs "$@"
    elif [[ ${1-} == client ]]; then
        die "the client's log is in the terminal where ./run.sh runs" "./run.sh kind logs shows it for kind"
    elif [[ -n ${1-} ]] && is_node "$1" && ! docker_any_container; then
        local_logs "$@" # the log outlives its node
    else
        node_command logs "$@"
    fi
}

die_no_node() {
    die "there is no node '$1'" \
        "the nodes are: ${NODES[*]}; ${LATER_NODES[*]} can join (./run.sh start ${LATER_NODES[0]})"
}

die_nothing_runs() {
    if kind_cluster_exists; then
        die "the nodes run in the kind cluster $KIND_CLUSTER" \
            "use kubectl, for example: kubectl --context $KIND_CONTEXT delete pod raft-2"
    fi
    die "no cluster is running" "./run.sh starts one"
}

status_command() {
    local found='' status=0
    if local_any_running; then
        found=1
        local_status || status=$?
    fi
    if docker_any_container; then
        found=1
        docker_status || status=$?
    fi
    if kind_cluster_exists; then
        found=1
        kind_status || status=$?
    fi
    [[ -n $found ]] || die "no cluster is running" "./run.sh starts one"
    return "$status"
}

down_command() {
    local found=
    if local_any_pid_file; then found=1 && local_down; fi
    if docker_any_container; then found=1 && docker_down; fi
    if kind_cluster_exists; then found=1 && kind_down; fi
    [[ -n $found ]] || say "nothing of ours is running"
}

clean_command() {
    ! local_any_running || die "local nodes are running" "./run.sh down first"
    ! docker_any_container || die "containers are still there" "./run.sh down first"
    local_clean
    docker_clean
}

main() {
    local command=${1-}
    [[ $# -eq 0 ]] || shift
    case $command in
        '') run_default ;;
        local) local_run "$@" ;;
        docker) docker_run "$@" ;;
        kind) kind_command "$@" ;;
        k8s) k8s_command "$@" ;;
        kill | stop | wipe) node_command "$command" "$@" ;;
        start) start_command "$@" ;;
        logs) logs_command "$@" ;;
        status | down | clean)
            # Whoever writes `down raft-2` does not mean all of them.
            [[ $# -eq 0 ]] || usage_error "$command is for the whole cluster and takes no arguments (got: $*)"
            "${command}_command"
            ;;
        help | -h | --help) usage ;;
        *) unknown_command "$command" ;;
    esac
}

main "$@"
