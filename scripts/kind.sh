# shellcheck shell=bash
# Kind mode: a Kubernetes cluster in Docker with a registry on localhost:5001, as kind documents it
# (https://kind.sigs.k8s.io/docs/user/local-registry/). What happens in it is in scripts/kube.sh. Sourced by
# run.sh.

KIND_CLUSTER=raftkv
KIND_CONTEXT=kind-$KIND_CLUSTER
REGISTRY_NAME=raftkv-registry
REGISTRY_PORT=5001 # part of the image names in kubernetes/
REGISTRY_LABEL=app=raftkv-registry

need_kind() { need_tools docker kind kubectl; }

kind_cluster_exists() {
    command -v kind >/dev/null && kind get clusters 2>/dev/null | grep -x "$KIND_CLUSTER" >/dev/null
}

need_kind_cluster() {
    need_kind
    kind_cluster_exists || die "there is no kind cluster '$KIND_CLUSTER'" "./run.sh kind up makes it"
}

# shellcheck disable=SC2034 # KUBE_CONTEXT is scripts/kube.sh's
kind_command() {
    local stage=${1-}
    [[ $# -le 1 ]] || usage_error "kind takes one stage at a time (got: $*)"
    KUBE_CONTEXT=$KIND_CONTEXT
    case $stage in
        '') kind_run ;;
        up) kind_up ;;
        build | push) "kube_$stage" ;;
        deploy | logs)
            need_kind_cluster
            "kube_$stage"
            ;;
        down)
            need_kind_cluster
            kind_down
            ;;
        *) usage_error "'$stage' is no stage of kind: up, build, push, deploy, logs, down" ;;
    esac
}

# From nothing to the client's log. An earlier cluster of ours is removed first.
# shellcheck disable=SC2034
kind_run() {
    KUBE_CONTEXT=$KIND_CONTEXT
    need_tools docker kind kubectl cargo
    ! kind_cluster_exists || kind_down
    kind_up
    kube_build
    kube_push
    kube_deploy
    kube_logs
}

kind_up() {
    need_kind
    if kind_cluster_exists; then
        say "the kind cluster '$KIND_CLUSTER' exists; ./run.sh kind down removes it"
        return
    fi
    local registry
    registry=$(kind_registry)
    say "making the kind cluster '$KIND_CLUSTER': one control plane, four workers"
    kind_config | kind create cluster --name "$KIND_CLUSTER" --config -
    kind_connect_registry "$registry"
    kind_announce_registry | kubectl --context "$KIND_CONTEXT" apply -f -
}

kind_config() {
    cat <<'CONFIG'
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
- role: control-plane
- role: worker
- role: worker
- role: worker
- role: worker
containerdConfigPatches:
- |-
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
CONFIG
}

# Prints the name of the container behind localhost:5001, which is started if nothing is there. A
# registry that somebody else runs there (kind's own recipe takes the same port) serves us as well.
kind_registry() {
    local name
    name=$(docker ps --filter "publish=$REGISTRY_PORT" --format '{{.Names}}' | head -n 1)
    if [[ -n $name ]]; then
        [[ $(docker container inspect --format '{{.Config.Image}}' "$name") == *registry* ]] ||
            die "container $name has port $REGISTRY_PORT, where the registry belongs" "stop it: docker stop $name"
        complain "using the registry '$name' on localhost:$REGISTRY_PORT"
    else
        name=$REGISTRY_NAME
        kind_start_registry >&2
    fi
    printf '%s\n' "$name"
}

kind_start_registry() {
    say "starting the registry '$REGISTRY_NAME' on localhost:$REGISTRY_PORT"
    if [[ $(docker_state "$REGISTRY_NAME") != gone ]]; then
        docker start "$REGISTRY_NAME"
        return
    fi
    ! port_open "$REGISTRY_PORT" ||
        die "port $REGISTRY_PORT, which the registry needs, is in use by $(listener_of "$REGISTRY_PORT")"
    docker run --detach --restart always --name "$REGISTRY_NAME" --label "$REGISTRY_LABEL" \
        --publish "127.0.0.1:$REGISTRY_PORT:5000" "${RAFTKV_REGISTRY_IMAGE:-registry:3}"
}

# Inside the nodes localhost is the node itself: containerd is told that localhost:5001 means the
# registry's container, which joins their network.
kind_connect_registry() {
    local registry=$1 node folder=/etc/containerd/certs.d/localhost:$REGISTRY_PORT
    while read -r node; do
        docker exec "$node" mkdir -p "$folder"
        printf '[host."http://%s:5000"]\n' "$registry" |
            docker exec --interactive "$node" cp /dev/stdin "$folder/hosts.toml"
    done < <(kind get nodes --name "$KIND_CLUSTER")
    [[ $(docker container inspect --format '{{json .NetworkSettings.Networks.kind}}' "$registry") != null ]] ||
        docker network connect kind "$registry"
}

# The well-known object by which tools find a cluster's local registry (KEP-1755).
kind_announce_registry() {
    cat <<CONFIG
apiVersion: v1
kind: ConfigMap
metadata:
  name: local-registry-hosting
  namespace: kube-public
data:
  localRegistryHosting.v1: |
    host: "localhost:$REGISTRY_PORT"
    help: "https://kind.sigs.k8s.io/docs/user/local-registry/"
CONFIG
}

kind_status() { kubectl --context "$KIND_CONTEXT" --namespace default get pods --output wide; }

# Removes the cluster and, if it is ours, the registry.
kind_down() {
    say "removing the kind cluster '$KIND_CLUSTER'"
    kind delete cluster --name "$KIND_CLUSTER"
    docker ps --all --quiet --filter "label=$REGISTRY_LABEL" | xargs --no-run-if-empty docker rm --force >/dev/null
}
