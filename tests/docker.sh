#!/usr/bin/env bash
# Tests the images in real containers, without a cluster of Kubernetes: nodes and client with the pods' names, user,
# limits and read-only root, on a network of their own. Nodes are killed, paused, cut off, stopped, moved and robbed
# of their disks while the client writes, reads back and verifies; its log is the judge.
#
#   tests/docker.sh               every case, in the order of `tests/docker.sh list`
#   tests/docker.sh CASE...       only these
#
# Wants Docker Engine on this machine, whose containers can be reached from here by their addresses, and cargo. The
# case `registry` wants Debian's docker-registry too. Removes what it made, and nothing else.
#
# Exit status: 0 all is well, 1 something is not, 2 wrong usage, 130 Ctrl-C.

set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
for variable in $(compgen -e RAFTKV_ | grep -vx RAFTKV_CLIENT_BASE || true) MISUBDOMINIODNS MINOMBREPOD; do
    unset "$variable"
done
# shellcheck disable=SC2034 # for what is sourced
ROOT=$REPO
# shellcheck source=scripts/common.sh
source "$REPO/scripts/common.sh"
# shellcheck source=scripts/image.sh
source "$REPO/scripts/image.sh"
# shellcheck source=scripts/docker.sh
source "$REPO/scripts/docker.sh"
# shellcheck source=scripts/kube.sh
source "$REPO/scripts/kube.sh"
# shellcheck source=tests/docker/cluster.sh
source "$REPO/tests/docker/cluster.sh"

CASES=(build found names kill kill_leader kill_all pause pause_leader disconnect disconnect_leader majority
    stop_leader rolling_restart other_address lost_disk scale ipv6 registry)
SERVER_IMAGE=localhost:5001/$PREFIX-servidor:latest
CLIENT_IMAGE=localhost:5001/$PREFIX-cliente:latest
export RAFTKV_CLIENT_BASE=${RAFTKV_CLIENT_BASE:-scratch} # nothing has to be pulled for it
SERVER_IMAGE_BYTES_MAX=4194304
FIRST=(raft-0 raft-1 raft-2)
FIVE=("${FIRST[@]}" raft-3 raft-4)
TMP=$(mktemp -d)
IMAGES=("$SERVER_IMAGE" "$CLIENT_IMAGE") # to be removed at the end
FOLLOWER=
REGISTRY=

leave() {
    trap - EXIT INT TERM
    stop_registry
    remove_cluster || true
    docker image rm "${IMAGES[@]}" >/dev/null 2>&1 || true
    # What a build leaves without a name before its configuration is pinned, as after ./run.sh docker.
    docker image prune --force --filter "label=$DOCKER_LABEL" >/dev/null || true
    rm -rf "$TMP"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ------------------------------------------------------------------------------- the frame

# begin: what every case with a cluster begins with.
begin() {
    [[ $(state_of client) != gone ]] || case_found
    check "the cluster is well, and the client writes" well
    mark
}

well() { kill -0 "$FOLLOWER" && await is_well && more_writes; }
is_well() { with_client status >/dev/null 2>&1; }

# goes_on WHAT: the client's writes are acknowledged again after what has just happened.
goes_on() {
    check "writes go on" more_writes
    gap_around "$1"
}

# recovered NODE...: all that must hold when everything is up again.
recovered() {
    check "all nodes are ready: $*" await all_ready "$@"
    check "writes go on, and every value that was read is right" still_right
    docker pause "$PREFIX-client" >/dev/null # so that the state stands still
    check "all nodes have the same state" await states_are_equal "$@"
    note "index, digest and keys at each: ${EQUAL_STATE-}"
    docker unpause "$PREFIX-client" >/dev/null
}

still_right() { more_writes && client_is_right; }

# stop_well NODE: SIGTERM to process 1, which ends by itself with status 0 long before Docker would kill it.
stop_well() {
    local began
    began=$(clock)
    docker stop "$PREFIX-$1" >/dev/null
    check "$1 ended by itself with status 0 ($(since "$began") s)" test "$(exit_code_of "$1")" = 0
}

# ------------------------------------------------------------------------------- the cases

# Two builds of one tree are the same image, and a small one.
case_build() {
    local size again=localhost:5001/$PREFIX-again:latest
    size=$(docker image inspect --format '{{.Size}}' "$SERVER_IMAGE")
    check "the server's image is small ($size bytes)" test "$size" -le "$SERVER_IMAGE_BYTES_MAX"
    note "the client's image on $RAFTKV_CLIENT_BASE: $(docker image inspect --format '{{.Size}}' "$CLIENT_IMAGE") bytes"
    IMAGES+=("$again")
    image_build "$again" "$REPO/docker/server" --no-cache >/dev/null
    check "a second build has the same digest" test "$(image_id "$again")" = "$(image_id "$SERVER_IMAGE")"
}

image_id() { docker image inspect --format '{{.Id}}' "$1"; }

case_found() {
    local node began first
    remove_cluster
    check "there is a network for it" make_network
    for node in "${FIRST[@]}"; do create_node "$node" "$(at_first "$node")"; done
    create_client
    began=$(clock)
    started "${FIRST[@]}" client
    follow_client
    check "the client verifies a value" await client_says 'Correct value read'
    first=$(date --date "$(grep -m 1 'Correct value read' "$TMP/client.log" | cut -d' ' -f1)" +%s.%3N)
    note "from 'docker start' of all four to the first verified read:" \
        "$(awk -v from="$began" -v to="$first" 'BEGIN { printf "%.2f", to - from }') s"
    for node in "${FIRST[@]}" client; do check "$node has no rights that it does not need" is_hardened "$node"; done
    recovered "${FIRST[@]}"
}

# is_hardened CONTAINER: as the kernel has it, not as it was asked for.
is_hardened() {
    local process status
    process=$(docker container inspect --format '{{.State.Pid}}' "$PREFIX-$1")
    status=$(<"/proc/$process/status")
    grep -qP '^Uid:\t65532\t65532\t65532\t65532$' <<<"$status" && grep -qP '^NSpid:\t.*\t1$' <<<"$status" &&
        grep -qP '^CapBnd:\t0+$' <<<"$status" && grep -qP '^CapEff:\t0+$' <<<"$status" &&
        grep -qP '^NoNewPrivs:\t1$' <<<"$status" && grep -qP '^\S+ / \S+ ro[, ]' "/proc/$process/mounts"
}

# Short names go through the search domains, as in a pod; full ones need none.
case_names() {
    begin
    check "a short name" reaches raft-1.raft-service
    check "a name with its namespace" reaches raft-1.raft-service.default
    check "a full name" reaches "raft-1.$SUBDOMAIN"
    check "a full name with a dot at its end" reaches "raft-1.$SUBDOMAIN."
    check "a name that does not exist is named" names_what_it_asked_for
}

reaches() { with_client --servers "$1" get a >/dev/null; }

# Docker's name server asks the machine's for what it does not know, and that one may take its time.
names_what_it_asked_for() {
    local said status=0
    said=$(with_client --servers raft-9.raft-service --timeout 5s get a 2>&1) || status=$?
    [[ $status == 3 && $said == *'raft-9.raft-service:6000: raft-9.raft-service'*:* ]]
}

kill_and_start() {
    docker kill "$PREFIX-$1" >/dev/null
    goes_on "docker kill of $2"
    started "$1"
    recovered "${FIRST[@]}"
}

case_kill() {
    begin
    kill_and_start "$(a_follower "${FIRST[@]}")" "a follower"
}

case_kill_leader() {
    begin
    kill_and_start "$(the_leader "${FIRST[@]}")" "the leader"
}

# As when the only machine loses its power.
case_kill_all() {
    begin
    docker kill "${FIRST[@]/#/$PREFIX-}" >/dev/null
    mark
    started "${FIRST[@]}"
    goes_on "docker kill of all three, and docker start"
    recovered "${FIRST[@]}"
}

pause_and_unpause() {
    docker pause "$PREFIX-$1" >/dev/null
    goes_on "docker pause of $2"
    docker unpause "$PREFIX-$1" >/dev/null
    recovered "${FIRST[@]}"
}

case_pause() {
    begin
    pause_and_unpause "$(a_follower "${FIRST[@]}")" "a follower"
}

case_pause_leader() {
    local paused
    begin
    paused=$(the_leader "${FIRST[@]}")
    pause_and_unpause "$paused" "the leader"
    check "somebody else leads" test "$(the_leader "${FIRST[@]}")" != "$paused"
}

disconnect() { docker network disconnect "$NETWORK" "$PREFIX-$1"; }
# connect NODE: where it was, under its name.
connect() { docker network connect --ip "$(at_first "$1")" --alias "$1.$SUBDOMAIN" "$NETWORK" "$PREFIX-$1"; }

case_disconnect() {
    local node
    begin
    node=$(a_follower "${FIRST[@]}")
    disconnect "$node"
    goes_on "docker network disconnect of a follower"
    check "$node does not serve what may be old" serves_nothing "$node"
    connect "$node"
    recovered "${FIRST[@]}"
}

# serves_nothing NODE: from its own network, a read and a write fail, and say in which way.
serves_nothing() {
    local status=0
    inside "$1" --timeout 2s get a >/dev/null 2>&1 || status=$?
    [[ $status == 3 ]] || return 1
    status=0
    inside "$1" --timeout 2s put cut-off here >/dev/null 2>&1 || status=$?
    [[ $status == 3 || $status == 4 ]] || return 1
    CUT_OFF_STATUS=$status
}

# What was refused as not done is not there; of what is unknown, nobody can say.
keeps_its_word() {
    local status=0
    with_client get cut-off >/dev/null 2>&1 || status=$?
    [[ $CUT_OFF_STATUS == 4 || $status == 1 ]]
}

case_disconnect_leader() {
    local node others
    begin
    node=$(the_leader "${FIRST[@]}")
    mapfile -t others < <(printf '%s\n' "${FIRST[@]}" | grep -vx "$node")
    disconnect "$node"
    check "the others have a leader" await has_leader "${others[@]}"
    goes_on "docker network disconnect of the leader"
    check "$node, alone, gives up its office" await leads_nobody "$node"
    check "... and serves nothing" serves_nothing "$node"
    note "a write to it ended with status $CUT_OFF_STATUS (3: not done, 4: unknown)"
    connect "$node"
    recovered "${FIRST[@]}"
    check "what it said of that write is true" keeps_its_word
}

leads_nobody() { ! inside "$1" --timeout 2s status 2>/dev/null | grep " leader " >/dev/null; }

case_majority() {
    local survivor others before
    begin
    survivor=$(the_leader "${FIRST[@]}")
    mapfile -t others < <(printf '%s\n' "${FIRST[@]}" | grep -vx "$survivor")
    docker kill "${others[@]/#/$PREFIX-}" >/dev/null
    check "without a majority $survivor gives up its office" await leads_nobody "$survivor"
    check "... serves nothing" serves_nothing "$survivor"
    check "... and is alive, but not ready" alive_and_not_ready "$survivor"
    before=$(log_lines)
    started "${others[0]}"
    check "with two nodes the client goes on" await wrote_since "$before"
    started "${others[1]}"
    recovered "${FIRST[@]}"
    check "what was said of the write meanwhile is true" keeps_its_word
}

alive_and_not_ready() {
    ask "$1" 'GET /livez HTTP/1.1' 'Host: raftkv' 'Connection: close' '' | grep '^HTTP/1.1 200 ' >/dev/null && ! is_ready "$1"
}

case_stop_leader() {
    local node round
    for round in 1 2 3; do
        begin
        node=$(the_leader "${FIRST[@]}")
        stop_well "$node"
        goes_on "docker stop of the leader, $round"
        check "it has said that it hands over" hands_over "$node"
        started "$node"
        check "$node is ready again" await is_ready "$node"
    done
    recovered "${FIRST[@]}"
}

# Of this start of it: what follows, as of others who disconnect meanwhile, is of any length.
hands_over() { log_since_start "$1" | grep "hands over and stops: SIGTERM" >/dev/null; }

log_since_start() {
    docker logs --since "$(docker container inspect --format '{{.State.StartedAt}}' "$PREFIX-$1")" "$PREFIX-$1" 2>&1
}

case_rolling_restart() {
    local node unknown
    begin
    unknown=$(unknown_outcomes)
    for node in "${FIRST[@]}"; do
        stop_well "$node"
        started "$node"
        check "$node is ready again" await is_ready "$node"
    done
    goes_on "restart of all three, one by one"
    note "writes meanwhile: $(written_since "$MARK"), of unknown outcome: $(($(unknown_outcomes) - unknown))," \
        "wrong values: $(wrong_values)"
    recovered "${FIRST[@]}"
}

# A pod that is made anew keeps its volume and its name, and nothing else.
case_other_address() {
    local node before
    for node in "${FIRST[@]}"; do
        begin
        before=$(field "$node" incarnation)
        docker rm --force "$PREFIX-$node" >/dev/null
        create_node "$node" "$(elsewhere "$node")"
        started "$node"
        check "$node is ready at $(elsewhere "$node")" await is_ready "$node"
        check "... and is the same member" test "$(field "$node" incarnation)" = "$before"
        goes_on "$node made anew with another address"
    done
    recovered "${FIRST[@]}"
    for node in "${FIRST[@]}"; do
        docker rm --force "$PREFIX-$node" >/dev/null
        create_node "$node" "$(at_first "$node")"
        started "$node"
        check "$node is back where it was" await all_ready "${FIRST[@]}"
    done
}

case_lost_disk() {
    begin
    lose_disk "$(a_follower "${FIRST[@]}")" "a follower"
    begin
    lose_disk "$(the_leader "${FIRST[@]}")" "the leader"
}

lose_disk() {
    local node=$1 before began
    before=$(field "$node" incarnation)
    docker rm --force "$PREFIX-$node" >/dev/null
    docker volume rm "$PREFIX-$node" >/dev/null
    create_node "$node" "$(at_first "$node")"
    began=$(clock)
    started "$node"
    check "$node is a voter again" await voter_and_ready "$node"
    note "$(since "$began") s after its start"
    goes_on "volume of $2 removed"
    check "... as another incarnation" test "$(field "$node" incarnation)" != "$before"
    recovered "${FIRST[@]}"
}

voter_and_ready() { is_ready "$1" && voters_are "${FIRST[@]}"; }

case_scale() {
    local node led other
    begin
    for node in raft-3 raft-4; do
        create_node "$node" "$(at_first "$node")"
    done
    started raft-3 raft-4
    check "all five are voters" await voters_are "${FIVE[@]}"
    goes_on "from three nodes to five"
    recovered "${FIVE[@]}"
    mark
    led=$(the_leader "${FIVE[@]}")
    other=$(a_follower "${FIVE[@]}")
    docker kill "$PREFIX-$led" "$PREFIX-$other" >/dev/null
    goes_on "docker kill of two of five, the leader and another"
    started "$led" "$other"
    recovered "${FIVE[@]}"
    check "raft-4 leads, and so removes itself" transfers raft-4
    for node in raft-4 raft-3; do
        mark
        check "$node is removed" removes "$node"
        stop_well "$node"
        goes_on "member remove and docker stop of $node"
        docker rm "$PREFIX-$node" >/dev/null
        docker volume rm "$PREFIX-$node" >/dev/null
    done
    check "three are voters" await voters_are "${FIRST[@]}"
    recovered "${FIRST[@]}"
}

transfers() { with_client transfer "$1" >/dev/null; }
removes() { with_client member remove "$1" >/dev/null; }

# Nodes that listen on IPv6 only, under names that have addresses of both kinds.
case_ipv6() {
    local node
    remove_cluster
    check "there is a network for it" make_network --ipv6 --subnet "fd37:$(printf '%x' $(($$ % 65536)))::/64"
    for node in "${FIRST[@]}"; do
        create_node "$node" "$(at_first "$node")" --ip6 "$(six "$node")" --env "RAFTKV_LISTEN=[$(six "$node")]:6000"
    done
    create_client
    started "${FIRST[@]}" client
    follow_client
    check "the client verifies a value over IPv6" await client_says 'Correct value read'
    mark
    check "nobody listens on IPv4" nobody_answers_over_ipv4
    node=$(with_client member list | sed -n 's/^\(raft-[0-9]*\) .* yes$/\1/p')
    docker kill "$PREFIX-$node" >/dev/null
    goes_on "docker kill of the leader, over IPv6"
    started "$node"
    check "$node comes back" await is_well
    check "every value that was read is right" still_right
    remove_cluster
}

six() { printf 'fd37:%x::%x\n' $(($$ % 65536)) $((16 + ${1#raft-})); }

nobody_answers_over_ipv4() {
    local node
    for node in "${FIRST[@]}"; do ! info "$node" | grep . >/dev/null || return 1; done
}

# Both images by way of a registry, from which they come back as they were. As `./run.sh k8s --registry` does it.
case_registry() {
    local server client image
    if ! command -v docker-registry >/dev/null; then
        note "SKIPPED: there is no docker-registry (Debian: docker-registry)"
        return
    fi
    remove_cluster # containers would keep the images here
    check "a registry answers" start_registry
    server=$(image_id "$SERVER_IMAGE") client=$(image_id "$CLIENT_IMAGE")
    KUBE_REGISTRY=localhost:$REGISTRY_AT
    check "both images are pushed" push_both
    for image in "$SERVER_IMAGE" "$CLIENT_IMAGE"; do IMAGES+=("$KUBE_REGISTRY/${image#*/}"); done
    docker image rm "${IMAGES[@]}" >/dev/null 2>&1 || true
    check "... and are here no more" no_image "$server" "$client"
    check "both are pulled" pull_both
    SERVER_IMAGE=$KUBE_REGISTRY/${SERVER_IMAGE#*/} CLIENT_IMAGE=$KUBE_REGISTRY/${CLIENT_IMAGE#*/}
    check "... with the digests that they had" \
        test "$(image_id "$SERVER_IMAGE") $(image_id "$CLIENT_IMAGE")" = "$server $client"
    case_found
}

no_image() {
    local id
    for id in "$@"; do ! docker image inspect "$id" >/dev/null 2>&1 || return 1; done
}

push_both() { (kube_push >"$TMP/push.log" 2>&1) || { cat "$TMP/push.log" && return 1; }; }

pull_both() {
    local image
    for image in "$SERVER_IMAGE" "$CLIENT_IMAGE"; do
        docker pull --quiet "$KUBE_REGISTRY/${image#*/}" >/dev/null || return 1
    done
}

# On port 5001, or the next one that is free.
start_registry() {
    for ((REGISTRY_AT = 5001; REGISTRY_AT < 5050; REGISTRY_AT++)); do
        port_open "$REGISTRY_AT" || break
    done
    mkdir "$TMP/registry"
    printf '%s\n' 'version: 0.1' 'storage:' "  filesystem: {rootdirectory: $TMP/registry}" \
        'http:' "  addr: 127.0.0.1:$REGISTRY_AT" >"$TMP/registry.yml"
    docker-registry serve "$TMP/registry.yml" >"$TMP/registry.log" 2>&1 </dev/null &
    REGISTRY=$!
    await registry_answers
}

registry_answers() { port_open "$REGISTRY_AT" && kill -0 "$REGISTRY"; }

stop_registry() {
    [[ -n $REGISTRY ]] || return 0
    kill "$REGISTRY" 2>/dev/null || true
    wait "$REGISTRY" 2>/dev/null || true
    REGISTRY=
}

# -------------------------------------------------------------------------------- the whole

is_case() {
    local name
    for name in "${CASES[@]}"; do [[ $name != "$1" ]] || return 0; done
    return 1
}

sum_up() {
    local gap
    printf '\nLongest time without an acknowledged write, around\n'
    for gap in "${GAPS[@]}"; do printf '  %-55s %s\n' "${gap%|*}" "${gap#*|}"; done
    printf '%s ok, %s failed, in %s s\n' "$CHECKS_OK" "$CHECKS_FAILED" "$SECONDS"
    [[ $CHECKS_FAILED == 0 ]]
}

main() {
    local name
    [[ ${1-} != list ]] || { printf '%s\n' "${CASES[@]}" && exit; }
    for name in "$@"; do is_case "$name" || usage_error "'$name' is no case: ${CASES[*]}"; done
    [[ $# -gt 0 ]] || set -- "${CASES[@]}"
    need_tools docker cargo
    images_build
    for name in "$@"; do
        printf '\n== %s (after %s s)\n' "${name//_/ }" "$SECONDS"
        "case_$name"
    done
    sum_up
}

main "$@"
