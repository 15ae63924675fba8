# shellcheck shell=bash
# What kind and any other Kubernetes cluster have in common: pushing the images, putting the manifests there,
# and following the client. Sourced by run.sh; scripts/kind.sh makes a cluster, `./run.sh k8s` is given one.
#
# Every kubectl call names its context, so that somebody's current one is never touched.

KUBE_CONTEXT=
KUBE_REGISTRY=localhost:5001 # as the manifests have it
KUBE_STAGES=(build push deploy logs down)
ROLLOUT_SECONDS=300 # the nodes of a new cluster also pull their images in this time

kubectl_there() { kubectl --context "$KUBE_CONTEXT" "$@"; }
kube() { kubectl_there --namespace default "$@"; }

k8s_command() {
    local stage=
    while [[ $# -gt 0 ]]; do
        case $1 in
            --context | --registry)
                [[ -n ${2-} ]] || usage_error "$1 needs a value"
                if [[ $1 == --context ]]; then KUBE_CONTEXT=$2; else KUBE_REGISTRY=$2; fi
                shift
                ;;
            --context=*) KUBE_CONTEXT=${1#*=} ;;
            --registry=*) KUBE_REGISTRY=${1#*=} ;;
            build | push | deploy | logs | down)
                [[ -z $stage ]] || usage_error "k8s takes one stage at a time (got: $stage $1)"
                stage=$1
                ;;
            *) usage_error "'$1' is no stage of k8s: $(joined "${KUBE_STAGES[@]}")" ;;
        esac
        shift
    done
    k8s_stage "$stage"
}

joined() { printf '%s' "$1" && shift && printf ', %s' "$@"; }

k8s_stage() {
    case $1 in
        build | push) need_tools docker ;;
        deploy | logs | down) need_kube_context ;;
        '')
            need_tools docker kubectl cargo
            need_kube_context
            ;;
    esac
    if [[ -n $1 ]]; then
        "kube_$1"
    else
        kube_build
        kube_push
        kube_deploy
        kube_logs
    fi
}

# Somebody's current context is not ours to guess.
need_kube_context() {
    local contexts
    need_tools kubectl
    contexts=$(kubectl config get-contexts --output name) || contexts=
    [[ -n $KUBE_CONTEXT ]] ||
        usage_error "k8s needs a cluster: ./run.sh k8s --context NAME (there are: ${contexts//$'\n'/ })"
    grep -qxF -- "$KUBE_CONTEXT" <<<"$contexts" ||
        die "kubectl knows no context '$KUBE_CONTEXT'" "there are: ${contexts//$'\n'/ }"
}

kube_build() {
    need_tools docker cargo
    images_build
}

kube_push() {
    local image
    need_tools docker
    for image in "$SERVER_IMAGE" "$CLIENT_IMAGE"; do
        docker image inspect "$image" >/dev/null 2>&1 ||
            die "there is no image $image to push" "the stage build makes it"
        [[ $KUBE_REGISTRY/${image#*/} == "$image" ]] || docker tag "$image" "$KUBE_REGISTRY/${image#*/}"
        docker push "$KUBE_REGISTRY/${image#*/}" || die "$KUBE_REGISTRY does not take the image" \
            "for a registry without TLS, Docker wants it in insecure-registries, except on localhost"
    done
}

# What is to be applied: kubernetes/ as it is, unless the images come from elsewhere, or the cluster has been
# scaled. (To scale it back here would take voters away without asking the others.)
kube_manifests() {
    local base=$1 replicas=$2 image
    printf 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n- %s\nimages:\n' "$base"
    for image in "${SERVER_IMAGE%:*}" "${CLIENT_IMAGE%:*}"; do
        printf -- '- name: %s\n  newName: %s/%s\n' "$image" "$KUBE_REGISTRY" "${image#*/}"
    done
    [[ -z $replicas ]] || printf 'replicas:\n- name: raft\n  count: %s\n' "$replicas"
}

kube_apply() {
    local replicas=$1 overlay status=0
    overlay=$(mktemp -d)
    kube_manifests "$(realpath --relative-to="$(realpath "$overlay")" "$ROOT/kubernetes")" "$replicas" \
        >"$overlay/kustomization.yaml"
    kubectl_there apply -k "$overlay" || status=$?
    rm -rf "$overlay"
    [[ $status == 0 ]] || die "the manifests were not applied; kubectl's reason is above" "where it is a field \
that may not change: kubectl --context $KUBE_CONTEXT delete statefulset raft --cascade=orphan, then again"
}

kube_deploy() {
    local replicas
    replicas=$(kube get statefulset raft --ignore-not-found --output 'jsonpath={.spec.replicas}') ||
        die "the cluster of context $KUBE_CONTEXT does not answer" "kubectl's reason is above"
    [[ $replicas =~ ^([0-9]+)?$ ]] || die "the StatefulSet raft has '$replicas' replicas, which is no number"
    kube delete pod client --ignore-not-found # hardly anything in a pod's specification can be changed
    kube_apply "$replicas"
    # The tag stays :latest, so a new image alone is no change that Kubernetes would see.
    if [[ -n $replicas ]]; then
        kube rollout restart statefulset/raft
        kube_replace_stuck
    fi
    kube_await
    kube get pods
}

# Pods that wait for an image that never came, crash, or fit on no machine are not replaced by a roll-out, which
# waits for them to get ready (kubernetes #67250). What is only starting is left alone.
kube_replace_stuck() {
    local name reason scheduled
    while IFS='|' read -r name reason scheduled; do
        case $reason in
            '' | ContainerCreating | PodInitializing) [[ $scheduled == False ]] || continue ;;
        esac
        say "$name is stuck (${reason:-fits on no machine}): it is replaced"
        kube delete pod "$name" --ignore-not-found --wait=false </dev/null
    done < <(kube get pods --selector app=rep --output "jsonpath={range .items[*]}{.metadata.name}|\
{.status.containerStatuses[0].state.waiting.reason}|\
{.status.conditions[?(@.type=='PodScheduled')].status}{'\\n'}{end}")
}

kube_await() {
    say "waiting for the pods (at most $ROLLOUT_SECONDS s)"
    kube rollout status statefulset/raft --timeout "${ROLLOUT_SECONDS}s" &&
        kube wait --for condition=Ready pod/client --timeout "${ROLLOUT_SECONDS}s" && return
    kube get pods --output wide >&2
    kube get events --sort-by .lastTimestamp 2>/dev/null | tail -n 15 >&2
    die "the pods are not ready" "kubectl --context $KUBE_CONTEXT describe pod raft-0 says more; \
when the images are mended, deploy again replaces what is stuck"
}

kube_logs() {
    need_tools kubectl
    say "the client's log follows; Ctrl-C stops following"
    kube logs --follow client
}

# Removes what was applied. The volumes stay: they are the data.
kube_down() {
    kubectl_there delete -k "$ROOT/kubernetes" --ignore-not-found
    say "removed; the data stays in the volume claims data-raft-N (kubectl --context $KUBE_CONTEXT get pvc)"
}
