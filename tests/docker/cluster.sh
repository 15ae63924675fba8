# shellcheck shell=bash
# A cluster in containers as the manifests want it, for tests/docker.sh: the pods' names, user, limits and read-only
# root, on a network and volumes of its own. Sourced, never run. Everything made here carries the label $PREFIX, and
# only what carries it is ever removed.

PREFIX=raftkv-test-$$
LABEL=app=$PREFIX
NETWORK=$PREFIX
SUBDOMAIN=raft-service.default.svc.cluster.local
WAIT_SECONDS=60      # for a condition that comes within seconds on an idle machine
ASK_SECONDS=2        # for a node's answer; one that is paused or cut off gives none
PROGRESS_WRITES=20   # acknowledged writes that show that the cluster goes on
CLIENT_INTERVAL=10ms # between two writes of the client: what a gap can be told to
GAPS=()              # what happened, and the longest time without an acknowledged write around it
MARK=0               # line of the client's log when the last thing happened
CHECKS_OK=0
CHECKS_FAILED=0

# check WHAT COMMAND...: one line of the result. The logs follow the first failure of a case.
check() {
    local what=$1
    shift
    if "$@"; then
        CHECKS_OK=$((CHECKS_OK + 1))
        printf 'ok      %s\n' "$what"
    else
        CHECKS_FAILED=$((CHECKS_FAILED + 1))
        printf 'FAILED  %s: %s\n' "$what" "$*"
        show_logs
    fi
}

note() { printf '        %s\n' "$*"; }

show_logs() {
    local name
    for name in $(containers); do
        printf '      | %s, %s\n' "$name" "$(docker container inspect --format '{{.State.Status}}' "$name")"
        docker logs --tail 12 "$name" 2>&1 | sed 's/^/      |   /'
    done
}

await() {
    local deadline=$((SECONDS + WAIT_SECONDS))
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

# Seconds since 1970, with thousandths.
clock() { date +%s.%3N; }
since() { awk -v from="$1" -v to="$(clock)" 'BEGIN { printf "%.2f", to - from }'; }

# ------------------------------------------------------------------- what the manifests say

# manifest FILE PATTERN: the first value that a line of a manifest gives.
manifest() { sed -n "s/^ *$2: *//p" "$REPO/kubernetes/base/$1" | head -n 1; }

# The memory limit of a manifest, as docker writes it: 1Gi is 1g.
memory_limit() {
    sed -n '/^ *limits:/,/memory:/s/^ *memory: *\([0-9]*\)\([MG]\)i$/\1\2/p' "$REPO/kubernetes/base/$1" |
        tr MG mg | head -n 1
}

# ---------------------------------------------------------------------- containers and names

containers() { docker ps --all --filter "label=$LABEL" --format '{{.Names}}'; }
nodes() { containers | sed -n "s/^$PREFIX-\(raft-[0-9]*\)\$/\1/p" | sort; }

# The network, with the first subnet of ours that nobody else has.
make_network() {
    local third
    for third in $(shuf --input-range 1-254); do
        SUBNET=10.231.$third
        ! docker network create --label "$LABEL" --subnet "$SUBNET.0/24" "$@" \
            "$NETWORK" >/dev/null 2>&1 || return 0
    done
    return 1
}

# create_container NAME ADDRESS LIMITS-FILE ARGUMENT...: not started. What every container here has, as its pod.
create_container() {
    local name=$1 address=$2 file=$3 memory
    shift 3
    memory=$(memory_limit "$file")
    docker create --name "$PREFIX-$name" --hostname "$name" --label "$LABEL" \
        --network "$NETWORK" --ip "$address" --network-alias "$name.$SUBDOMAIN" \
        --dns-search default.svc.cluster.local --dns-search svc.cluster.local --dns-search cluster.local \
        --dns-option ndots:5 --user "$(manifest "$file" runAsUser):$(manifest "$file" runAsGroup)" \
        --read-only --cap-drop ALL --security-opt no-new-privileges --memory "$memory" --memory-swap "$memory" \
        --stop-timeout "$(manifest "$file" terminationGracePeriodSeconds)" \
        --env "MISUBDOMINIODNS=$SUBDOMAIN" --env RAFTKV_REPLICAS=3 "$@" >/dev/null
}

# create_node NODE ADDRESS [ARGUMENT...]: on its volume, which is made if it is not there.
create_node() {
    local node=$1 address=$2
    shift 2
    docker volume create --label "$LABEL" "$PREFIX-$node" >/dev/null
    create_container "$node" "$address" statefulset.yaml --env "MINOMBREPOD=$node" \
        --env "RAFTKV_DATA_DIR=/data/$node" --volume "$PREFIX-$node:/data" \
        --entrypoint srvraft "$@" "${NODE_IMAGE:-$SERVER_IMAGE}" "$node"
}

create_client() {
    create_container client "$SUBNET.9" client.yaml --entrypoint cltraft "$CLIENT_IMAGE" \
        --interval "$CLIENT_INTERVAL" --lang en
}

# Where a node is at first; elsewhere NODE: where it goes.
at_first() { printf '%s.%s\n' "$SUBNET" $((10 + ${1#raft-})); }
elsewhere() { printf '%s.%s\n' "$SUBNET" $((100 + ${1#raft-})); }

started() { docker start "${@/#/$PREFIX-}" >/dev/null; }
state_of() { docker_state "$PREFIX-$1"; }
exit_code_of() { docker container inspect --format '{{.State.ExitCode}}' "$PREFIX-$1"; }

address_of() {
    docker container inspect --format "{{(index .NetworkSettings.Networks \"$NETWORK\").IPAddress}}" "$PREFIX-$1"
}

# ----------------------------------------------------------------------------- asking a node

# ask NODE LINE...: what it answers over TCP, from this machine. Nothing if it does not answer.
ask() {
    local address
    address=$(address_of "$1" 2>/dev/null) && [[ -n $address ]] || return 1
    shift
    # shellcheck disable=SC2016 # the inner bash expands it
    timeout "$ASK_SECONDS" bash -c 'exec 2>/dev/null 3<>"/dev/tcp/$0/6000" || exit 1
        printf "%s\r\n" "$@" >&3; cat <&3' "$address" "$@" | tr -d '\r'
}

info() { ask "$1" INFO QUIT; }
field() { info "$1" | sed -n "s/^$2://p"; }

is_ready() { ask "$1" 'GET /readyz HTTP/1.1' 'Host: raftkv' 'Connection: close' '' | grep '^HTTP/1.1 200 ' >/dev/null; }

all_ready() {
    local node
    for node in "$@"; do is_ready "$node" || return 1; done
}

# leader NODE...: the one that all of these name as their leader, in one term.
leader() {
    local node line first=
    for node in "$@"; do
        line=$(info "$node" | sed -n 's/^raft_term://p; s/^raft_leader_name://p' | xargs)
        [[ $line == *' '* ]] || return 1
        first=${first:-$line}
        [[ $line == "$first" ]] || return 1
    done
    printf '%s\n' "${first#* }"
}

has_leader() { leader "$@" >/dev/null; }

# The leader of these nodes, as soon as they agree on one; and one of them that is not.
the_leader() { await has_leader "$@" && leader "$@"; }
a_follower() { the_leader "$@" | grep -vxf - <(printf '%s\n' "$@") | head -n 1; }

# The state that a node has applied: index, digest and number of keys.
state_line() { info "$1" | sed -n 's/^raft_last_applied://p; s/^digest://p; s/^keys://p' | xargs; }

states_are_equal() {
    local node line first=
    for node in "$@"; do
        line=$(state_line "$node")
        [[ $line == *\ *\ * ]] || return 1
        first=${first:-$line}
        [[ $line == "$first" ]] || return 1
    done
    EQUAL_STATE=$first
}

voters_are() {
    local node listed
    for node in "$@"; do
        listed=$(info "$node" | sed -n 's/^member_\(raft-[0-9]*\):voter,.*/\1/p' | sort | xargs)
        [[ $listed == "$*" ]] || return 1
    done
}

# ------------------------------------------------------------------ what the client tells

# with_client ARGUMENT...: cltraft in the container of the client.
with_client() { docker exec "$PREFIX-client" cltraft "$@"; }

# inside NODE ARGUMENT...: cltraft in the network of that node, whatever it is cut off from, at that node only.
inside() {
    docker run --rm --network "container:$PREFIX-$1" --label "$LABEL" "$CLIENT_IMAGE" \
        --servers 127.0.0.1:6000 "${@:2}"
}

follow_client() {
    : >"$TMP/client.log"
    docker logs --follow --timestamps "$PREFIX-client" >>"$TMP/client.log" 2>&1 </dev/null &
    FOLLOWER=$!
}

unfollow_client() {
    : >"$TMP/client.log"
    [[ -n ${FOLLOWER-} ]] || return 0
    kill "$FOLLOWER" 2>/dev/null || true
    wait "$FOLLOWER" 2>/dev/null || true
    FOLLOWER=
}

log_lines() { wc -l <"$TMP/client.log"; }
client_says() { grep -q "$1" "$TMP/client.log"; }

# Remembers where the client's log is, right before something happens.
mark() { MARK=$(log_lines); }

written_since() { tail -n "+$(($1 + 1))" "$TMP/client.log" | grep -c ' submitted to ' || true; }
wrote_since() { (($(written_since "$1") >= PROGRESS_WRITES)); }

# So many writes from now on.
more_writes() { await wrote_since "$(log_lines)"; }

# The longest time between two acknowledged writes, in seconds, from the last one before the mark on.
longest_gap() {
    awk -v from="$MARK" '
        / submitted to / {
            split(substr($1, 12), time, /[:Z]/)
            now = time[1] * 3600 + time[2] * 60 + time[3]
            gap = now - before
            if (gap < 0) gap += 86400
            if (NR > from && before && gap > longest) longest = gap
            before = now
        }
        END { printf "%.3f\n", longest }' "$TMP/client.log"
}

# gap_around WHAT: notes it for the table at the end.
gap_around() {
    local gap
    gap=$(longest_gap)
    GAPS+=("$1|$gap s")
    note "longest time without an acknowledged write: $gap s"
}

wrong_values() { grep -c 'ERROR: wrong value' "$TMP/client.log" || true; }
unknown_outcomes() { grep -c 'It is unknown whether' "$TMP/client.log" || true; }

client_is_right() { [[ $(state_of client) == running && $(wrong_values) == 0 ]]; }

# --------------------------------------------------------------------------------- cleanup

remove_cluster() {
    unfollow_client
    docker ps --all --quiet --filter "label=$LABEL" | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
    docker volume ls --quiet --filter "label=$LABEL" | xargs --no-run-if-empty docker volume rm >/dev/null
    docker network ls --quiet --filter "label=$LABEL" | xargs --no-run-if-empty docker network rm >/dev/null
}
