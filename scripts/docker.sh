# shellcheck shell=bash
# Docker mode: the nodes and the client as containers on a network of their own, under the names that
# they have in Kubernetes (raft-N.raft-service). Sourced by run.sh.
#
# Everything made here carries the label app=raftkv, and only what carries it is ever removed.

DOCKER_LABEL=app=raftkv
DOCKER_NETWORK=raftkv
DOCKER_START_SECONDS=60 # from the start of the containers to the client's first line

# Succeeds, or prints why not.
docker_usable() {
    command -v docker >/dev/null || { printf 'docker is not installed\n' && return 1; }
    timeout 10 docker info >/dev/null 2>&1 || { printf 'the docker daemon does not answer\n' && return 1; }
}

need_docker() {
    local reason
    reason=$(docker_usable) || die "$reason" \
        "install Docker Engine (https://docs.docker.com/engine/install/), start it, and see that 'docker info' works"
}

# Names of our containers, also of stopped ones.
docker_containers() {
    timeout 10 docker ps --all --filter "label=$DOCKER_LABEL" --format '{{.Names}}' 2>/dev/null || true
}

docker_any_container() {
    command -v docker >/dev/null && [[ -n $(docker_containers) ]]
}

# Nodes that joined later are known by their containers and volumes.
find_docker_nodes() {
    local node there
    there=$(docker_containers && docker volume ls --filter "label=$DOCKER_LABEL" --format '{{.Name}}' 2>/dev/null) ||
        there=
    NODES=("${INITIAL_NODES[@]}")
    for node in "${LATER_NODES[@]}"; do
        ! grep -qxE "(raftkv-)?$node" <<<"$there" || NODES+=("$node")
    done
}

docker_state() {
    local state
    state=$(docker container inspect --format '{{.State.Status}}' "$1" 2>/dev/null) || state=gone
    printf '%s\n' "$state"
}

# run_container NAME ARGUMENT...: what every container of ours has, whichever its image.
run_container() {
    local name=$1
    shift
    docker run --detach --name "$name" --hostname "$name" --label "$DOCKER_LABEL" \
        --network "$DOCKER_NETWORK" --read-only --cap-drop ALL --security-opt no-new-privileges \
        --env MISUBDOMINIODNS=raft-service "$@" >/dev/null ||
        die "container $name could not be started" "./run.sh down removes what was; the reason is above"
}

docker_run_node() {
    docker volume create --label "$DOCKER_LABEL" "raftkv-$1" >/dev/null
    run_container "$1" --network-alias "$1.raft-service" --env "MINOMBREPOD=$1" \
        --volume "raftkv-$1:/data" --env "RAFTKV_DATA_DIR=/data/$1" --stop-timeout 30 "$SERVER_IMAGE" "$1"
}

docker_check_names() {
    local name
    for name in "${NODES[@]}" client; do
        [[ $(docker_state "$name") == gone ]] ||
            die "a container named '$name' exists that is not ours" "rename or remove it: docker rm $name"
    done
}

docker_run() {
    [[ $# -eq 0 ]] || usage_error "docker takes no arguments (got: $*)"
    local node
    need_docker
    ! docker_any_container || die "containers of an earlier run are still there: $(docker_containers | xargs)" \
        "./run.sh status shows them; ./run.sh down removes them"
    find_docker_nodes
    docker_check_names
    images_build
    docker network inspect "$DOCKER_NETWORK" >/dev/null 2>&1 ||
        docker network create --label "$DOCKER_LABEL" "$DOCKER_NETWORK" >/dev/null
    for node in "${NODES[@]}"; do
        docker_run_node "$node"
    done
    run_container client --env "LANG=${LANG-}" "$CLIENT_IMAGE"
    docker_await
    docker_follow
}

docker_client_speaks() { [[ -n $(docker logs client 2>/dev/null | head -c 1) ]]; }

docker_all_running() {
    local name
    for name in "${NODES[@]}" client; do
        [[ $(docker_state "$name") == running ]] || return 1
    done
}

docker_speaks_or_broken() { docker_client_speaks || ! docker_all_running; }

docker_await() {
    local name
    say "waiting for the client's first line"
    wait_until "$DOCKER_START_SECONDS" docker_speaks_or_broken || true
    for name in "${NODES[@]}" client; do
        [[ $(docker_state "$name") == running ]] || {
            complain "container $name is $(docker_state "$name"); the end of its log:"
            docker logs --tail 20 "$name" 2>&1 | sed 's/^/    /' >&2
            die "the cluster is not whole" "./run.sh down removes what was started"
        }
    done
    docker_client_speaks ||
        complain "the client has said nothing for $DOCKER_START_SECONDS s; ./run.sh logs raft-0 may tell why"
}

# The client's log in the foreground, as a background job: see local_client.
docker_follow() {
    say "the client's log follows; Ctrl-C stops following, ./run.sh down removes the containers"
    trap 'docker_unfollow 130' INT
    trap 'docker_unfollow 131' QUIT
    trap 'docker_unfollow 143' TERM
    docker logs --follow client </dev/null &
    FOLLOWER=$!
    wait "$FOLLOWER" 2>/dev/null || true
    local status
    status=$(docker container inspect --format '{{.State.ExitCode}}' client 2>/dev/null) || status=gone
    case $status in
        gone | 0) say "the client was stopped from elsewhere" ;;
        *)
            complain "the client ended with status $status; the nodes run on, and ./run.sh down removes them"
            exit "$status"
            ;;
    esac
}

docker_unfollow() {
    kill "$FOLLOWER" 2>/dev/null || true
    say "the containers run on: ./run.sh status, ./run.sh kill raft-2, ./run.sh down"
    exit "$1"
}

docker_kill() {
    [[ $(docker_state "$1") == running ]] || die "$1 is not running" "./run.sh start $1 starts it"
    docker kill "$1" >/dev/null
    say "container $1 was killed with SIGKILL; ./run.sh start $1 brings it back"
}

docker_stop() {
    [[ $(docker_state "$1") == running ]] || die "$1 is not running" "./run.sh start $1 starts it"
    docker stop "$1" >/dev/null
    say "container $1 has stopped with status $(docker container inspect --format '{{.State.ExitCode}}' "$1")"
}

# A container keeps its volume from being removed, so it goes too; start makes both anew.
docker_wipe() {
    [[ $(docker_state "$1") != running ]] || die "$1 is running" \
        "./run.sh kill $1 first: a disk is not taken out of a node that writes to it"
    docker volume ls --quiet --filter "label=$DOCKER_LABEL" | grep -x "raftkv-$1" >/dev/null ||
        die "$1 has no data: there is no volume raftkv-$1 of ours"
    [[ $(docker_state "$1") == gone ]] || docker rm "$1" >/dev/null
    docker volume rm "raftkv-$1" >/dev/null
    say "$1 has lost its data: the volume raftkv-$1 is removed; ./run.sh start $1 brings it back with an empty one"
}

docker_start() {
    local node names=("$@")
    find_docker_nodes
    [[ $# -gt 0 ]] || names=("${NODES[@]}")
    for node in "${names[@]}"; do
        case $(docker_state "$node") in
            running) [[ $# -eq 0 ]] || die "$node is running already" ;;
            gone) docker_run_node "$node" && say "container $node was made, on the volume raftkv-$node" ;;
            *) docker start "$node" >/dev/null && say "container $node is up again" ;;
        esac
    done
}

docker_logs() {
    local follow=()
    [[ ${2-} != -f ]] || follow=(--follow)
    docker logs --tail 50 "${follow[@]}" "$1"
}

# Ends as cltraft status does: 0 only if the cluster is healthy.
docker_status() {
    local status=0
    if [[ $(docker_state client) == running ]]; then
        docker exec client cltraft status || status=$?
    else
        docker run --rm --network "$DOCKER_NETWORK" --env MISUBDOMINIODNS=raft-service \
            "$CLIENT_IMAGE" status || status=$?
    fi
    printf '\n'
    docker ps --all --filter "label=$DOCKER_LABEL" --format 'table {{.Names}}\t{{.Status}}\t{{.Image}}'
    return "$status"
}

docker_down() {
    local names
    mapfile -t names < <(docker_containers)
    docker stop "${names[@]}" >/dev/null
    docker rm --force "${names[@]}" >/dev/null
    docker network ls --quiet --filter "label=$DOCKER_LABEL" | xargs --no-run-if-empty docker network rm >/dev/null
    say "containers removed: ${names[*]}; the data stays in the volumes raftkv-raft-N"
}

docker_clean() {
    local volumes
    docker_usable >/dev/null || return 0
    mapfile -t volumes < <(docker volume ls --quiet --filter "label=$DOCKER_LABEL")
    if [[ ${#volumes[@]} -eq 0 ]]; then
        say "there are no docker volumes of ours"
        return
    fi
    say "removing the docker volumes ${volumes[*]}"
    docker volume rm "${volumes[@]}" >/dev/null
}
