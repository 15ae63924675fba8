# shellcheck shell=bash
# The two images: static binaries for this machine's architecture, packed so that two builds of one commit
# have the same digest. Sourced by run.sh.
#
# A builder notes when it ran: as the time of every file and folder that it makes, and in the image's
# configuration. So the files come as a tar archive with fixed times, which the Dockerfiles unpack, and the
# configuration is written anew without them (image_pin).

IMAGE_USER=65532

# Seconds since 1970 that stand for "when": those of the commit.
image_epoch() {
    printf '%s\n' "${SOURCE_DATE_EPOCH:-$(git -C "$ROOT" log -1 --format=%ct 2>/dev/null || printf 0)}"
}

# The commit, and whether the tree differs from it.
image_revision() {
    local revision
    revision=$(git -C "$ROOT" rev-parse HEAD 2>/dev/null) || revision=unknown
    [[ $revision == unknown || -z $(git -C "$ROOT" status --porcelain 2>/dev/null) ]] || revision+=-dirty
    printf '%s\n' "$revision"
}

image_version() { sed -n '/^version = "\(.*\)"$/{s//\1/p;q}' "$ROOT/Cargo.toml"; }

# image_tar FILE USER FOLDER...: appends the folders below the current one, without what differs between builds.
image_tar() {
    tar --append --file "$1" --sort=name --format=gnu --mtime="@$(image_epoch)" \
        --owner="$2" --group="$2" --numeric-owner --mode=go-w "${@:3}"
}

# image_files BINARY ARCHIVE: what the image consists of: the program, and for a node the folder of its data.
image_files() {
    local binary=$1 archive=$2 files
    files=$(mktemp -d)
    mkdir -p "$files/usr/local/bin"
    install -m 755 "$binary" "$files/usr/local/bin/"
    chmod 755 "$files/usr" "$files/usr/local" "$files/usr/local/bin"
    rm -f "$archive"
    (cd "$files" && image_tar "$archive" 0 usr)
    # A new volume on /data takes over its owner. (scratch has no chown.)
    if [[ ${binary##*/} == srvraft ]]; then
        mkdir -m 755 "$files/data"
        (cd "$files" && image_tar "$archive" "$IMAGE_USER" data)
    fi
    rm -rf "$files"
}

# image_build TAG FOLDER ARGUMENT...
image_build() {
    local tag=$1 folder=$2 log
    shift 2
    log=$(mktemp)
    docker build --build-arg "VERSION=$(image_version)" --build-arg "REVISION=$(image_revision)" "$@" \
        --tag "$tag" "$folder" >"$log" 2>&1 || {
        show_tail "$log" 40
        rm -f "$log"
        die "the image $tag could not be built" "docker's messages are above"
    }
    rm -f "$log"
    image_pin "$tag"
}

# image_pin TAG: the same image without the times and the names of intermediate containers that its builder
# left in the configuration. Its id is the digest of that text.
image_pin() {
    local tag=$1 work epoch config digest
    epoch=$(date --utc --date="@$(image_epoch)" +%Y-%m-%dT%H:%M:%SZ)
    work=$(mktemp -d)
    docker save "$tag" | tar --extract --directory "$work"
    config=$(sed 's/.*"Config":"\([^"]*\)".*/\1/' "$work/manifest.json")
    sed -e 's/"created":"[^"]*"/"created":"'"$epoch"'"/g' -e 's/"container":"[^"]*",//' \
        -e 's/"container_config":.*,"created":/"created":/' -e 's/"docker_version":"[^"]*",//' \
        -e 's/"Image":"sha256:[^"]*"/"Image":""/' "$work/$config" >"$work/pinned"
    digest=$(sha256sum <"$work/pinned")
    mv "$work/pinned" "$work/${digest%% *}.json"
    sed -i 's|"Config":"[^"]*"|"Config":"'"${digest%% *}.json"'"|' "$work/manifest.json"
    # Nothing but what the manifest names: other lists of the same archive still name the old configuration.
    (cd "$work" && sed 's/.*"Layers":\[\([^]]*\)\].*/\1/; s/"//g' manifest.json | tr , '\n' |
        tar --create --dereference --hard-dereference manifest.json "${digest%% *}.json" --files-from -) |
        docker load --quiet >/dev/null || die "docker does not take the image $tag back"
    rm -rf "$work"
    say "$tag is $(docker image inspect --format '{{.Id}}' "$tag")"
}

# The base of the client image: what was asked for, or scratch where that cannot be had.
client_base() {
    local base=${RAFTKV_CLIENT_BASE:-alpine}
    if [[ $base == scratch ]] || docker image inspect "$base" >/dev/null 2>&1 || docker pull "$base" >&2; then
        printf '%s\n' "$base"
    else
        complain "the image '$base' is not here and cannot be pulled: the client image is built on scratch"
        complain "(it works the same, but has no shell and no nc; RAFTKV_CLIENT_BASE names another base)"
        printf 'scratch\n'
    fi
}

images_build() {
    local binaries base
    binaries=$(build_static)
    base=$(client_base)
    image_files "$binaries/srvraft" "$ROOT/docker/server/srvraft.tar"
    image_files "$binaries/cltraft" "$ROOT/docker/client/cltraft.tar"
    say "building $SERVER_IMAGE"
    image_build "$SERVER_IMAGE" "$ROOT/docker/server"
    say "building $CLIENT_IMAGE on $base"
    image_build "$CLIENT_IMAGE" "$ROOT/docker/client" --build-arg "BASE=$base"
    # What the tags stood for until now. An image that a container still uses stays.
    docker image prune --force --filter "label=$DOCKER_LABEL" >/dev/null || true
}
