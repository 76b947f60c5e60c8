# shellcheck shell=bash
# Sourced by programs that run stock NSQ clients: tests/interop/run and examples/invoices/run.
#
# Each function prepares one toolchain in the cache and sets a variable that says where it is. What is installed
# depends only on pinned files (requirements, package-lock.json, go.sum), and the folder's name is a hash of
# them, so a changed pin gets a new folder and an unchanged one works without a network. A folder becomes
# visible by a rename (or a marker) after its last step: an interrupted installation does not look complete.

clients_cache="${XDG_CACHE_HOME:-$HOME/.cache}/nsquorum/clients"

clients_fail() {
    echo "error: $*" >&2
    exit 2
}

# require_tools [python] [node] [go] [java]: all that is missing is said at once, with the line that installs it.
require_tools() {
    local tool missing=() packages=()
    for tool in "$@"; do
        case "$tool" in
        python)
            if ! command -v python3 >/dev/null; then
                missing+=("python3") packages+=(python3 python3-venv)
            elif ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
                missing+=("the venv module of python3") packages+=(python3-venv)
            elif ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
                clients_fail "python3 is $(python3 -V), but 3.10 or newer is needed"
            fi
            ;;
        node)
            command -v node >/dev/null || { missing+=("node") packages+=(nodejs); }
            command -v npm >/dev/null || { missing+=("npm") packages+=(npm); }
            ;;
        go)
            command -v go >/dev/null || { missing+=("go") packages+=(golang-go); }
            ;;
        java)
            if ! command -v javac >/dev/null; then
                missing+=("javac") packages+=(default-jdk-headless)
            elif [ "$(javac -version 2>&1 | sed 's/[^0-9]*\([0-9]*\).*/\1/')" -lt 17 ]; then
                clients_fail "javac is $(javac -version 2>&1), but 17 or newer is needed"
            fi
            command -v mvn >/dev/null || { missing+=("mvn") packages+=(maven); }
            ;;
        *) clients_fail "require_tools does not know $tool" ;;
        esac
    done
    [ ${#missing[@]} -eq 0 ] && return
    local line="apt-get install -y --no-install-recommends ${packages[*]}"
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        echo "installing ${packages[*]}" >&2
        apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive $line >&2 && return
        clients_fail "missing: ${missing[*]}; this failed: $line"
    fi
    clients_fail "missing: ${missing[*]}; as root: $line"
}

content_hash() {
    cat "$@" | sha256sum | cut -c1-12
}

# python_client REQUIREMENTS: sets client_python, an interpreter that has them. The first line of the file with
# "# build:" names what the others need to be built with; build isolation would fetch that unpinned.
python_client() {
    local requirements=$1 build version dir
    build=$(sed -n 's/^# build: //p' "$requirements")
    version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    dir="$clients_cache/python$version-$(content_hash "$requirements")"
    if [ ! -e "$dir/.complete" ]; then
        echo "installing $(basename "$(dirname "$requirements")")/$(basename "$requirements") into $dir" >&2
        # A venv knows its own path and cannot be renamed: here a marker says that it is complete.
        rm -rf "$dir"
        mkdir -p "$clients_cache"
        python3 -m venv "$dir"
        # shellcheck disable=SC2086 # a list of requirements
        "$dir/bin/pip" install --quiet --disable-pip-version-check $build >&2
        "$dir/bin/pip" install --quiet --disable-pip-version-check --no-build-isolation -r "$requirements" >&2
        touch "$dir/.complete"
    fi
    # shellcheck disable=SC2034 # for the script that sources this
    client_python="$dir/bin/python"
}

# node_client FOLDER: sets NODE_PATH to the modules of FOLDER/package-lock.json.
node_client() {
    local from=$1 dir
    dir="$clients_cache/node-$(content_hash "$from/package.json" "$from/package-lock.json")"
    if [ ! -d "$dir" ]; then
        echo "installing $(basename "$from")/package-lock.json into $dir" >&2
        rm -rf "$dir.new"
        mkdir -p "$dir.new"
        cp "$from/package.json" "$from/package-lock.json" "$dir.new/"
        (cd "$dir.new" && npm ci --ignore-scripts --no-audit --no-fund --silent >&2)
        mv "$dir.new" "$dir"
    fi
    export NODE_PATH="$dir/node_modules"
}

# go_client FOLDER: sets client_go, the program built from it.
go_client() {
    local from=$1 hash
    hash=$(content_hash "$from"/go.mod "$from"/go.sum "$from"/*.go)
    client_go="$clients_cache/go-$hash"
    if [ ! -x "$client_go" ]; then
        echo "building $(basename "$from") into $client_go" >&2
        mkdir -p "$clients_cache"
        # The Go that is here is the one used: fetching another toolchain is no part of a test.
        (cd "$from" && GOTOOLCHAIN=local GOFLAGS=-mod=readonly go build -buildvcs=false -o "$client_go.new" . >&2)
        mv "$client_go.new" "$client_go"
    fi
}

# java_client FOLDER: sets client_java, a folder with the classes built from it and the jars that its pom.xml pins.
java_client() {
    local from=$1
    client_java="$clients_cache/java-$(content_hash "$from/pom.xml" "$from"/*.java)"
    if [ ! -d "$client_java" ]; then
        echo "building $(basename "$from") into $client_java" >&2
        rm -rf "$client_java.new"
        mkdir -p "$client_java.new"
        # Maven only fetches, and fails when a checksum does not fit; to build with it as well would take more of its plugins.
        mvn -B -q -C -Dstyle.color=never -f "$from/pom.xml" dependency:copy-dependencies -DoutputDirectory="$client_java.new/jars" >&2
        javac -XDignore.symbol.file -cp "$client_java.new/jars/*" -d "$client_java.new/classes" "$from"/*.java >&2
        mv "$client_java.new" "$client_java"
    fi
}

# nsquorum_binary: prints the newest built binary: NSQUORUM_BIN, else what cargo left in its target folders.
nsquorum_binary() {
    local root=$1 targets target profile found=""
    if [ -n "${NSQUORUM_BIN:-}" ]; then
        [ -x "$NSQUORUM_BIN" ] || clients_fail "NSQUORUM_BIN is $NSQUORUM_BIN, which is no program"
        echo "$NSQUORUM_BIN"
        return
    fi
    targets=("$root/target" "${XDG_CACHE_HOME:-$HOME/.cache}/nsquorum/target")
    [ -z "${CARGO_TARGET_DIR:-}" ] || targets=("$CARGO_TARGET_DIR" "${targets[@]}")
    for target in "${targets[@]}"; do
        for profile in release debug; do
            if [ -x "$target/$profile/nsquorum" ] && { [ -z "$found" ] || [ "$target/$profile/nsquorum" -nt "$found" ]; }; then
                found="$target/$profile/nsquorum"
            fi
        done
    done
    [ -n "$found" ] || clients_fail "no nsquorum binary is built: cargo build --release -p nsquorum, or set NSQUORUM_BIN"
    echo "$found"
}
