#!/usr/bin/env bash
# Tests run.sh. The paths of kind and k8s meet stand-ins for docker, kind, kubectl and cargo that record how they are
# called and keep a little state; the local path runs real processes from the folder RAFTKV_BIN.
#
#   cargo test --test run_sh                       (builds the binaries and runs this)
#   RAFTKV_BIN=target/debug bash tests/run_sh.sh
#
# Everything happens in a copy of the scripts in a temporary folder.

set -euo pipefail
set -m # background jobs get a process group of their own, so that Ctrl-C can be sent to one of them

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BINARIES=${RAFTKV_BIN:+$(cd "$RAFTKV_BIN" && pwd)}
for variable in $(compgen -e RAFTKV_) MISUBDOMINIODNS MINOMBREPOD CARGO_TARGET_DIR; do
    unset "$variable"
done

TMP=$(mktemp -d)
HOUSE=$TMP/house   # the copy that is tested
CALLS=$TMP/calls   # one line per call of a stand-in
STATE=$TMP/state   # what the stand-ins remember
OUT=$TMP/out       # output of the command under test
PASSED=0
FAILED=0
SKIPPED=0
WAIT_SECONDS=60 # for a condition that comes soon on an idle machine, and late on a busy one

leave() {
    trap - EXIT
    [[ -z $BINARIES ]] || RAFTKV_DATA=$TMP/data "$HOUSE/run.sh" down >/dev/null 2>&1 || true
    rm -rf "$TMP"
}
trap leave EXIT

# check WHAT COMMAND...: one test.
check() {
    local what=$1
    shift
    if "$@"; then
        PASSED=$((PASSED + 1))
        printf 'ok    %s\n' "$what"
    else
        FAILED=$((FAILED + 1))
        printf 'FAIL  %s: %s\n' "$what" "$*"
        sed 's/^/      | /' "$OUT"
    fi
}

skip() {
    SKIPPED=$((SKIPPED + 1))
    printf 'skip  %s\n' "$1"
}

await() {
    local deadline=$((SECONDS + WAIT_SECONDS))
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

# run STATUS ARGUMENT...: runs run.sh and tells whether it ended with that status.
run() {
    local expected=$1 status=0
    shift
    "$HOUSE/run.sh" "$@" >"$OUT" 2>&1 </dev/null || status=$?
    [[ $status == "$expected" ]] || { printf '(exit status %s)\n' "$status" >>"$OUT" && return 1; }
}

says() { grep -qF -- "$1" "$OUT"; }
says_nothing_of() { ! says "$1"; }
first_line_is() { [[ $(head -n 1 "$OUT") == "$1" ]]; }

# ---------------------------------------------------------------------------------- stand-ins

make_house() {
    mkdir -p "$HOUSE" "$STATE" "$TMP/bin" "$TMP/core"
    cp -r "$REPO/run.sh" "$REPO/scripts" "$REPO/docker" "$REPO/kubernetes" "$REPO/Cargo.toml" "$HOUSE"
    # A PATH without docker, kind and kubectl, whatever this machine has.
    local tool
    for tool in bash env sh sed awk grep head tail cut cat cp mkdir rm rmdir install ldd dirname xargs \
        timeout touch sleep setsid ss du tar mktemp date sha256sum realpath chmod mv tr; do
        ln -sf "$(command -v "$tool")" "$TMP/core/$tool"
    done
}

# stand_in NAME: records its arguments, and its standard input where a manifest comes that way.
stand_in() {
    {
        printf '#!/usr/bin/env bash\nSTATE=%q\nCALLS=%q\n' "$STATE" "$CALLS"
        # shellcheck disable=SC2016 # the stand-in expands it
        printf 'printf "%%s\\n" "%s $*" >>"$CALLS"\n' "$1"
        cat
    } >"$TMP/bin/$1"
    chmod +x "$TMP/bin/$1"
}

make_stand_ins() {
    stand_in docker <<'BODY'
# As a builder leaves it: with its own time and the names of its containers.
built_image() {
    local work now
    work=$(mktemp -d)
    now=$(date --utc +%Y-%m-%dT%H:%M:%S.%NZ)
    printf '{"config":{"Env":["PATH=/bin"],"Image":"sha256:%s"},"container":"%s","container_config":{"Cmd":["%s"]},' \
        "$RANDOM" "$RANDOM" "$RANDOM" >"$work/0815.json"
    printf '"created":"%s","docker_version":"1","history":[{"created":"%s","created_by":"ADD"}],"os":"linux"}' \
        "$now" "$now" >>"$work/0815.json"
    printf 'a layer\n' >"$work/layer.tar"
    printf '[{"Config":"0815.json","RepoTags":["it"],"Layers":["layer.tar"]}]' >"$work/manifest.json"
    printf 'another list\n' >"$work/index.json"
    tar --create --directory "$work" .
    rm -r "$work"
}
case "$*" in
    info) [[ ! -e $STATE/docker-down ]] ;;
    *publish=5001*) [[ ! -e $STATE/registry ]] || cat "$STATE/registry" ;;
    *NetworkSettings*) [[ -e $STATE/connected ]] && echo '{}' || echo null ;;
    *.Config.Image*) echo registry:3 ;;
    *.State.Status*) exit 1 ;;
    *'network connect kind'*) touch "$STATE/connected" ;;
    *'{{.Id}}'*) echo sha256:4711 ;;
    *registry:3) echo raftkv-registry >"$STATE/registry" ;;
    'exec --interactive'*) cat >>"$STATE/hosts.toml" ;;
    build*) touch "$STATE/built" ;;
    save*) built_image ;;
    load*) rm -rf "$STATE/loaded" && mkdir "$STATE/loaded" && tar --extract --directory "$STATE/loaded" ;;
    'image inspect localhost:5001/'*) [[ -e $STATE/built ]] ;;
    push*refuses*) exit 1 ;;
    pull* | 'image inspect'*) [[ ! -e $STATE/no-images ]] ;;
    *label=app=raftkv-registry*) [[ ! -e $STATE/registry ]] || echo 4711 ;;
    'rm --force 4711') rm "$STATE/registry" ;;
    *) ;;
esac
BODY
    stand_in kind <<'BODY'
case "$*" in
    'get clusters') echo somebody-elses; [[ ! -e $STATE/cluster ]] || echo raftkv ;;
    'get nodes'*) printf 'raftkv-%s\n' control-plane worker worker2 worker3 worker4 ;;
    'create cluster'*) cat >"$STATE/kind.yaml"; touch "$STATE/cluster" ;;
    'delete cluster'*) rm "$STATE/cluster" ;;
esac
BODY
    stand_in kubectl <<'BODY'
case "$*" in
    *'apply -f -') cat >"$STATE/applied.yaml" ;;
    *'apply -k '*)
        [[ ! -e $STATE/apply-fails ]] || exit 1
        cp "${*: -1}/kustomization.yaml" "$STATE/overlay.yaml" && touch "$STATE/deployed"
        ;;
    *'get statefulset raft '*)
        [[ ! -e $STATE/unreachable ]] || exit 1
        [[ ! -e $STATE/deployed ]] || { cat "$STATE/replicas" 2>/dev/null || printf 3; }
        ;;
    *'get pods --selector app=rep '*) [[ ! -e $STATE/pods ]] || cat "$STATE/pods" ;;
    'config get-contexts --output name') printf '%s\n' somebody-elses kind-raftkv production ;;
    *'rollout status'*) [[ ! -e $STATE/never-ready ]] ;;
    *'logs --follow client') echo 'Operación de escritura: clave = a, valor = 1' ;;
esac
BODY
    stand_in rustc <<'BODY'
case "$*" in
    -vV) echo 'host: x86_64-unknown-linux-gnu' ;;
    *target-libdir*musl) [[ -e $STATE/musl ]] && echo "$STATE" || echo /nowhere ;;
esac
BODY
    stand_in cargo <<'BODY'
printf 'RUSTFLAGS%s\n' "${RUSTFLAGS-}" >>"$CALLS"
while [[ $# -gt 0 ]]; do
    [[ $1 != --target ]] || target=$2
    [[ $1 != --manifest-path ]] || folder=${2%/*}
    shift
done
mkdir -p "$folder/target/$target/release"
for binary in srvraft cltraft; do echo '#!/bin/sh' >"$folder/target/$target/release/$binary"; done
BODY
}

forget() {
    rm -rf "$STATE"
    mkdir -p "$STATE"
    : >"$CALLS"
}

# with_tools COMMAND...: in a world where docker, kind, kubectl and cargo are the stand-ins.
with_tools() { PATH=$TMP/bin:$TMP/core "$@"; }

# called PATTERN...: calls that match these extended patterns were made, in this order.
called() {
    local pattern line=0 found
    for pattern in "$@"; do
        found=$(tail -n "+$((line + 1))" "$CALLS" | grep -nE -m 1 -- "$pattern" | cut -d: -f1) || return 1
        line=$((line + found))
    done
}

never_called() { ! grep -qE -- "$1" "$CALLS"; }

# Every kubectl call must name the context first: somebody's current one is not ours to touch.
every_kubectl_names_the_context() {
    grep -q '^kubectl --context' "$CALLS" && ! grep '^kubectl' "$CALLS" |
        grep -v '^kubectl config get-contexts ' | grep -v "^kubectl --context ${1-kind-raftkv} " >/dev/null
}

# ------------------------------------------------------------------------------------- tests

test_choice() {
    forget
    check "without arguments, kind where everything is there" with_tools run 0
    check "... and the first line says so" \
        first_line_is "run.sh: mode kind, because docker, kind and kubectl are all usable"
    touch "$STATE/docker-down"
    check "a daemon that does not answer means local (which finds a stand-in cargo here)" with_tools run 1
    check "... and the first line says so" \
        first_line_is "run.sh: mode local, because the docker daemon does not answer"
    mv "$TMP/bin/kind" "$TMP/bin/not-kind"
    forget
    check "no kind means local" with_tools run 1
    check "... and the first line says so" first_line_is "run.sh: mode local, because kind is not installed"
    check "kind by name needs kind" with_tools run 1 kind
    check "... and says how to get it" says "https://kind.sigs.k8s.io"
    mv "$TMP/bin/not-kind" "$TMP/bin/kind"
}

test_kind_from_nothing() {
    forget
    check "kind from nothing" with_tools run 0 kind
    check "makes everything in order" called \
        '^docker run .*--name raftkv-registry .*--publish 127.0.0.1:5001:5000 registry:3$' \
        '^kind create cluster --name raftkv --config -$' \
        '^docker exec raftkv-control-plane mkdir -p /etc/containerd/certs.d/localhost:5001$' \
        '^docker exec raftkv-worker4 mkdir -p /etc/containerd/certs.d/localhost:5001$' \
        '^docker network connect kind raftkv-registry$' \
        '^kubectl --context kind-raftkv apply -f -$' \
        '^cargo build --release --locked --target x86_64-unknown-linux-gnu ' \
        '^docker build .*--tag localhost:5001/servidor:latest .*/docker/server$' \
        '^docker build .*BASE=alpine --tag localhost:5001/cliente:latest .*/docker/client$' \
        '^docker push localhost:5001/servidor:latest$' \
        '^docker push localhost:5001/cliente:latest$' \
        '^kubectl --context kind-raftkv apply -k /' \
        '^kubectl --context kind-raftkv --namespace default rollout status statefulset/raft ' \
        '^kubectl --context kind-raftkv --namespace default wait --for condition=Ready pod/client ' \
        '^kubectl --context kind-raftkv --namespace default logs --follow client$'
    check "links statically" called '^RUSTFLAGS.*\+crt-static'
    check "always with the context" every_kubectl_names_the_context
    check "removes no cluster where there was none of ours" never_called '^kind delete'
    check "restarts nothing in a new cluster" never_called 'rollout restart'
    check "applies the manifests" grep -qE '^- .*/kubernetes$' "$STATE/overlay.yaml"
    check "... with the images that were pushed" grep -q '  newName: localhost:5001/servidor$' "$STATE/overlay.yaml"
    check "... and as many nodes as they say" lacks "$STATE/overlay.yaml" replicas
    check "the cluster has four workers" test "$(grep -c '^- role: worker' "$STATE/kind.yaml")" = 4
    check "... which know the registry" grep -q '^\[host."http://raftkv-registry:5000"\]$' "$STATE/hosts.toml"
    check "... and announce it" grep -q 'host: "localhost:5001"' "$STATE/applied.yaml"
    check "the client's log is shown" says "Operación de escritura: clave = a, valor = 1"
}

test_kind_again() {
    : >"$CALLS"
    check "kind a second time" with_tools run 0 kind
    check "removes our cluster, and makes it anew" called \
        '^kind delete cluster --name raftkv$' '^kind create cluster --name raftkv'
    check "touches nobody else's" never_called 'somebody-elses'
    check "always with the context" every_kubectl_names_the_context
    : >"$CALLS"
    check "kind up keeps a cluster that is there" with_tools run 0 kind up
    check "... and says so" says "exists"
    check "... and makes none" never_called '^kind create'
}

test_kind_stages() {
    : >"$CALLS"
    check "kind build by itself" with_tools run 0 kind build
    check "... pushes nothing" never_called '^docker push'
    touch "$STATE/musl"
    check "kind build prefers musl" with_tools run 0 kind build
    check "... for the target" called '^cargo build --release --locked --target x86_64-unknown-linux-musl '
    touch "$STATE/no-images"
    check "kind build without a base image" with_tools run 0 kind build
    check "... falls back to scratch" called '^docker build .*BASE=scratch --tag localhost:5001/cliente:latest'
    check "... and says so" says "cannot be pulled"
    : >"$CALLS"
    rm "$STATE/built"
    check "kind push without images" with_tools run 1 kind push
    check "... says what to do" says "the stage build makes it"
    touch "$STATE/built"
    check "kind push by itself" with_tools run 0 kind push
    check "... builds nothing" never_called '^(cargo|docker build)'
    test_kind_deploy_again
    touch "$STATE/never-ready"
    check "pods that never get ready are a failure" with_tools run 1 kind deploy
    check "... which shows them, and what to do" called 'get pods' 'get events'
    rm "$STATE/never-ready"
    check "kind down" with_tools run 0 kind down
    check "... removes the cluster and our registry" called '^kind delete cluster --name raftkv$' \
        '^docker rm --force 4711$'
    check "kind deploy without a cluster" with_tools run 1 kind deploy
    check "... says what to do" says "./run.sh kind up"
    check "a stage that does not exist" with_tools run 2 kind fly
    check "... names those that do" says "up, build, push, deploy, logs, down"
}

lacks() { [[ -s $1 ]] && ! grep -q -- "$2" "$1"; }

test_kind_deploy_again() {
    : >"$CALLS"
    printf '%s\n' 'raft-0||True' 'raft-1|ImagePullBackOff|True' 'raft-2|ContainerCreating|True' \
        'raft-3|CrashLoopBackOff|True' 'raft-4||False' >"$STATE/pods"
    printf 5 >"$STATE/replicas"
    check "kind deploy again" with_tools run 0 kind deploy
    check "... replaces the client, the pods, and those that are stuck" called 'delete pod client' 'apply -k' \
        'rollout restart statefulset/raft' 'delete pod raft-1 ' 'delete pod raft-3 ' 'delete pod raft-4 ' \
        'rollout status'
    check "... says why" says "raft-1 is stuck (ImagePullBackOff)"
    check "... and leaves alone what runs or is starting" never_called 'delete pod raft-[02]'
    check "... and keeps the cluster's size" grep -q '  count: 5$' "$STATE/overlay.yaml"
    check "... and always with the context" every_kubectl_names_the_context
    rm "$STATE/pods" "$STATE/replicas"
    touch "$STATE/apply-fails"
    check "manifests that cannot be applied are a failure" with_tools run 1 kind deploy
    check "... which says what to do" says "--cascade=orphan"
    rm "$STATE/apply-fails"
}

test_k8s() {
    forget
    check "k8s needs a context" with_tools run 2 k8s
    check "... and names those that there are" says "somebody-elses kind-raftkv production"
    check "k8s in a context that kubectl does not know" with_tools run 1 k8s --context produktion
    check "... names those that it knows" says "somebody-elses kind-raftkv production"
    check "... and has done nothing" never_called '^(cargo|docker (build|push))|apply'
    : >"$CALLS"
    check "k8s in another cluster, with its registry" \
        with_tools run 0 k8s --context production --registry registry.example:5000
    check "does everything in order" called '^cargo build ' '^docker build .*/docker/server$' \
        '^docker tag localhost:5001/servidor:latest registry.example:5000/servidor:latest$' \
        '^docker push registry.example:5000/servidor:latest$' \
        '^docker push registry.example:5000/cliente:latest$' \
        '^kubectl --context production apply -k ' 'rollout status' 'logs --follow client$'
    check "... in that context only" every_kubectl_names_the_context production
    check "... from that registry" grep -q '  newName: registry.example:5000/cliente$' "$STATE/overlay.yaml"
    check "... without kind" never_called '^kind (create|delete)'
    : >"$CALLS"
    check "k8s deploy by itself" with_tools run 0 k8s --context=production deploy
    check "... builds and pushes nothing" never_called '^(cargo|docker)'
    : >"$CALLS"
    check "k8s down" with_tools run 0 k8s down --context production
    check "... removes what was applied" called '^kubectl --context production delete -k .*/kubernetes '
    check "... and leaves the volumes" says "data-raft-N"
    check "a registry that refuses" with_tools run 1 k8s --context production --registry refuses:1 push
    check "... says why that may be" says "insecure-registries"
    touch "$STATE/unreachable"
    check "a cluster that does not answer" with_tools run 1 k8s --context production deploy
    check "... is named" says "the cluster of context production does not answer"
    check "a stage that does not exist" with_tools run 2 k8s --context production fly
    check "... names those that do" says "build, push, deploy, logs, down"
    check "two stages at once" with_tools run 2 k8s --context production push deploy
    check "k8s without any tool" with_core run 1 k8s --context production
    check "... names every one, and how to get it" all_are_named docker kubectl cargo
}

all_are_named() {
    local tool
    for tool in "$@"; do says "$tool is not installed" || return 1; done
    says "https://docs.docker.com/engine/install/" && says "https://kubernetes.io/docs/tasks/tools/"
}

# Two builds at different times are the same bytes: of the files, and of the image's configuration.
test_images() {
    local config
    forget
    check "images are built" with_tools run 0 kind build
    cp "$HOUSE/docker/server/srvraft.tar" "$TMP/first.tar"
    config=$(cd "$STATE/loaded" && echo ./*.json)
    check "... with the data folder owned by the node's user" \
        grep -qE '^drwxr-xr-x 65532/65532 .* data/$' <(tar tvf "$TMP/first.tar" --numeric-owner)
    check "... and the program by root" \
        grep -qE '^-rwxr-xr-x 0/0 .* usr/local/bin/srvraft$' <(tar tvf "$TMP/first.tar" --numeric-owner)
    check "... whose configuration has no time of its own" lacks "$STATE/loaded/${config%% *}" "20[0-9][0-9]-"
    check "... nor a builder's containers" lacks "$STATE/loaded/${config%% *}" container
    check "... and what the program needs" grep -q '"Env":\["PATH=/bin"\].*"created_by":"ADD"' \
        "$STATE/loaded/${config%% *}"
    check "... under its digest" grep -q "\"Config\":\"$(sha256sum <"$STATE/loaded/${config%% *}" | cut -c1-64).json\"" \
        "$STATE/loaded/manifest.json"
    check "... with its layers, and no other list" test -e "$STATE/loaded/layer.tar" -a ! -e "$STATE/loaded/index.json"
    check "images are built again" with_tools run 0 kind build
    check "... of the same files" cmp "$TMP/first.tar" "$HOUSE/docker/server/srvraft.tar"
    check "... and the same configuration" test -e "$STATE/loaded/${config%% *}"
}

test_foreign_registry() {
    forget
    printf 'kind-registry\n' >"$STATE/registry"
    check "a registry that is there already serves us" with_tools run 0 kind up
    check "... under its own name" grep -q 'http://kind-registry:5000' "$STATE/hosts.toml"
    check "... and none of ours is started" never_called '^docker run'
}

test_usage() {
    check "help" run 0 help
    check "an unknown command" run 2 stauts
    check "... suggests the closest" says "./run.sh status"
    check "a node that does not exist" run 1 kill raft-9
    check "... names those that do" says "raft-0 raft-1 raft-2"
    check "kill without a node" run 2 kill
    check "status of nothing" with_core run 1 status
    check "kill with nothing running" with_core run 1 kill raft-2
    check "... says how to start" says "./run.sh starts one"
    check "down of nothing is no error" with_core run 0 down
    check "down of one node is refused" run 2 down raft-2
    check "clean of one node is refused" run 2 clean raft-2
    check "local without cargo" with_core run 1 local
    check "... says how to get it" says "https://rustup.rs"
    check "docker without docker" with_core run 1 docker
    check "... says how to get it" says "https://docs.docker.com/engine/install/"
}

# with_core COMMAND...: in a world without docker, kind, kubectl and cargo.
with_core() { PATH=$TMP/core "$@"; }

free_base_port() {
    local base port
    while true; do
        base=$((20000 + RANDOM % 10000))
        for port in $base $((base + 1)) $((base + 2)) $((base + 3)); do
            ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || continue 2
        done
        printf '%s\n' "$base"
        return
    done
}

# Starts ./run.sh local in the background; its output goes to $TMP/local.
# The file is emptied here, not by the job: what an earlier cluster said must not be taken for news.
start_local() {
    : >"$TMP/local"
    LANG=es_ES.UTF-8 "$HOUSE/run.sh" local >>"$TMP/local" 2>&1 </dev/null &
    LOCAL=$!
}

client_verifies() { grep -q 'Valor correcto leído' "$TMP/local"; }
local_ended() { ! kill -0 "$LOCAL" 2>/dev/null; }
pid_of() { cut -d' ' -f1 "$RAFTKV_DATA/run/$1.pid"; }
gone() { [[ -z $(tr -d '\0' 2>/dev/null <"/proc/$1/cmdline") ]]; } # a zombie has no command line

all_gone() {
    local pid
    for pid in "$@"; do gone "$pid" || return 1; done
}

ended_with() {
    local status=0
    await local_ended || return 1
    wait "$LOCAL" || status=$?
    [[ $status == "$1" ]]
}

with_data() { RAFTKV_DATA=$1 "${@:2}"; }

# A second terminal: nobody has told it the port, or where the binaries are, and it could not build them.
told_nothing() { (unset RAFTKV_PORT RAFTKV_BIN && with_core "$@"); }

cluster_pids() { pid_of raft-0 && pid_of raft-1 && pid_of raft-2 && pid_of client; }

test_local_life() {
    local pids old
    start_local
    check "local: the client verifies a value" await client_verifies
    mapfile -t pids < <(cluster_pids)
    check "local: status" run 0 status
    check "... shows processes" says "${pids[2]}"
    check "status, without being told port and binaries" told_nothing run 0 status
    check "... shows the nodes" says "127.0.0.1:$((RAFTKV_PORT + 1))"
    check "local: logs" run 0 logs raft-0
    check "a second cluster on the same data" run 1 local
    check "... says what to do" says "./run.sh down stops it"
    check "clean while it runs" run 1 clean
    check "a second cluster on the same ports" with_data "$TMP/other" run 1 local
    check "... says which port and who has it" says "port $RAFTKV_PORT, which raft-0 needs, is in use by"

    old=$(pid_of raft-2)
    check "kill raft-2" run 0 kill raft-2
    check "... kills exactly that" gone "$old"
    check "kill raft-2 again" run 1 kill raft-2
    check "... says what to do" says "./run.sh start raft-2"
    check "start raft-2, without being told port and binaries" told_nothing run 0 start raft-2
    check "... on its own port" says "127.0.0.1:$((RAFTKV_PORT + 2))"
    check "start raft-2 again" run 1 start raft-2
    check "stop raft-1" run 0 stop raft-1
    check "start of all that are down" run 0 start
    check "... is of raft-1" says "raft-1 is up"
    check "... and of no other" says_nothing_of "raft-0 is up"

    test_local_members

    mapfile -t pids < <(cluster_pids && pid_of raft-3)
    kill -INT -- "-$LOCAL" # what a terminal does on Ctrl-C
    check "Ctrl-C ends it" ended_with 130
    check "... and every process, also those started from elsewhere" all_gone "${pids[@]}"
    check "... and leaves the data" test -d "$RAFTKV_DATA/raft-0"
}

# status_row PATTERN: a line of cltraft's table, of ./run.sh status, is like this.
status_row() {
    "$HOUSE/run.sh" status >"$TMP/status" 2>/dev/null || true # a node that has just come may still wait
    grep -qE -- "$1" "$TMP/status"
}

# ./run.sh status is content: every member answers, and is not waiting or learning.
is_healthy() { "$HOUSE/run.sh" status >/dev/null 2>&1; }

# A fourth node, and a lost disk, in the cluster that runs.
test_local_members() {
    check "wipe of a node that runs" run 1 wipe raft-2
    check "... says what to do" says "./run.sh kill raft-2 first"
    check "... and leaves its data" test -e "$RAFTKV_DATA/raft-2/identity"
    check "wipe of a node that does not exist" run 1 wipe raft-7
    check "... names those that can join" says "raft-3 raft-4 raft-5 raft-6 can join"
    check "wipe without a node" run 2 wipe
    check "wipe of a node without data" run 1 wipe raft-3
    check "... says so" says "raft-3 has no data"
    check "start raft-3" run 0 start raft-3
    check "... joins, and becomes a voter" await status_row '^raft-3 +127.0.0.1:[0-9]+ +(follower|leader) '
    check "kill raft-2 for good" run 0 kill raft-2
    cp "$RAFTKV_DATA/raft-2/identity" "$TMP/identity"
    check "wipe raft-2" run 0 wipe raft-2
    check "... says what it removes" says "$RAFTKV_DATA/raft-2 is removed"
    check "... and has removed it" test ! -e "$RAFTKV_DATA/raft-2"
    check "start raft-2 with an empty disk" run 0 start raft-2
    check "... comes back as a member" await status_row '^raft-2 +127.0.0.1:[0-9]+ +(follower|leader) '
    check "... of another incarnation" differs "$TMP/identity" "$RAFTKV_DATA/raft-2/identity"
    check "... and all is well" await is_healthy
}

differs() { [[ -s $1 && -s $2 ]] && ! cmp -s "$1" "$2"; }

test_local_ends() {
    local pids
    start_local
    check "local: on the old data" await client_verifies
    mapfile -t pids < <(cluster_pids)
    check "down from another terminal" run 0 down
    check "... ends the first one too, in good order" ended_with 0
    check "... and every process" all_gone "${pids[@]}"

    start_local
    check "local: once more" await client_verifies
    mapfile -t pids < <(cluster_pids)
    kill -TERM "$LOCAL"
    check "SIGTERM ends it" ended_with 143
    check "... and every process" all_gone "${pids[@]}"

    start_local
    check "local: once more" await client_verifies
    mapfile -t pids < <(cluster_pids)
    kill -QUIT -- "-$LOCAL" # what a terminal does on Ctrl-\
    check "Ctrl-\\ ends it" ended_with 131
    check "... and every process" all_gone "${pids[@]}"

    start_local
    check "local: once more" await client_verifies
    mapfile -t pids < <(cluster_pids)
    kill -HUP -- "-$LOCAL"  # what a shell does whose terminal is closed,
    kill -TERM -- "-$LOCAL" # and at once
    check "a closed terminal ends it" await local_ended
    check "... and every process" all_gone "${pids[@]}"
    check "clean" run 0 clean
    check "... says what it removes" says "removing $RAFTKV_DATA/raft-0"
    check "... and has removed it" test ! -e "$RAFTKV_DATA/raft-0"
}

test_local_broken_node() {
    mkdir -p "$RAFTKV_DATA"
    printf 'not a folder\n' >"$RAFTKV_DATA/raft-1"
    check "a node that ends at once" run 1 local
    check "... is named, with its log" says "raft-1 ended at once"
    check "... and the others are stopped" run 1 status
    rm "$RAFTKV_DATA/raft-1"
}

# A pid file that survived a crash of the machine may name somebody else's process.
test_foreign_pid() {
    local bystander
    sleep 600 &
    bystander=$!
    mkdir -p "$RAFTKV_DATA/run"
    printf '%s 12345 an-earlier-boot\n' "$bystander" >"$RAFTKV_DATA/run/raft-0.pid"
    check "a stale pid file is no running node" run 1 kill raft-0
    check "down with a stale pid file" run 0 down
    check "... does not touch the stranger" kill -0 "$bystander"
    kill "$bystander"
    wait "$bystander" 2>/dev/null || true
}

main() {
    make_house
    make_stand_ins
    test_usage
    if (exec 3<>/dev/tcp/127.0.0.1/5001) 2>/dev/null; then
        skip "kind, because something listens on port 5001 of this machine"
    else
        test_choice
        test_kind_from_nothing
        test_kind_again
        test_kind_stages
        test_foreign_registry
        test_k8s
        test_images
    fi
    if [[ -z $BINARIES ]]; then
        skip "local, because RAFTKV_BIN names no folder with srvraft and cltraft"
    else
        export RAFTKV_BIN=$BINARIES RAFTKV_DATA=$TMP/data RAFTKV_PORT
        RAFTKV_PORT=$(free_base_port)
        test_local_life
        test_local_ends
        test_local_broken_node
        test_foreign_pid
    fi
    printf '%s passed, %s failed, %s skipped\n' "$PASSED" "$FAILED" "$SKIPPED"
    [[ $FAILED -eq 0 ]]
}

main
