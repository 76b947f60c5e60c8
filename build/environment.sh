# Sourced by ./dev: what has to be installed, and where builds are kept.
#
# Everything that is built is kept outside the clone, so that `git clean` and a second clone cost nothing.

cache="${XDG_CACHE_HOME:-$HOME/.cache}/nsquorum"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
export PATH="$cache/tools/bin:${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
mkdir -p "$cache"

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
fail() { printf '%s\n' "$*" >&2; exit 1; }

# Debian packages that are needed and missing, one per line.
missing_packages() {
    command -v g++ >/dev/null || echo g++
    command -v make >/dev/null || echo make
    command -v git >/dev/null || echo git
    # bindgen reads RocksDB's C header through libclang; the -dev package brings the compiler's own headers along.
    ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* >/dev/null 2>&1 || echo libclang-dev
}

install_packages() {
    local packages
    packages="$(missing_packages)"
    [ -n "$packages" ] || return 0
    local command="apt-get install -y --no-install-recommends $(echo "$packages" | tr '\n' ' ')"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing: $(echo "$packages" | tr '\n' ' ')"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive $command >/dev/null
    else
        fail "Some packages are missing. Install them with:
    sudo $command"
    fi
}

require_rust() {
    command -v cargo >/dev/null || fail "Rust is missing. Install it from https://rustup.rs (1.95 or later), then try again."
    local version
    version="$(cargo --version | cut -d' ' -f2)"
    [ "$(printf '1.95.0\n%s\n' "$version" | sort -V | head -n1)" = 1.95.0 ] ||
        fail "Rust $version is too old: 1.95 or later is needed. Run: rustup update stable"
}

# Builds RocksDB once per machine and lets cargo link it (see build/rocksdb.sh).
prepare_rocksdb() {
    local version source
    version="$(sed -n '/name = "librocksdb-sys"/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock)"
    source() { ls -d "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/librocksdb-sys-"$version" 2>/dev/null | head -n1; }
    [ -n "$(source)" ] || cargo fetch --locked --quiet
    ROCKSDB_LIB_DIR="$(build/rocksdb.sh "$(source)" "$version" "$cache")"
    export ROCKSDB_LIB_DIR ROCKSDB_STATIC=1
}

prepare() {
    install_packages
    require_rust
    prepare_rocksdb
}

# cargo-deny, built once into the cache.
prepare_deny() {
    command -v cargo-deny >/dev/null && return 0
    say "building cargo-deny once"
    CARGO_TARGET_DIR="$cache/tools/target" cargo install --quiet --locked --root "$cache/tools" cargo-deny
    rm -rf "$cache/tools/target"
}

build_release() {
    cargo build --locked --release -p nsquorum -p nsquorum-faults
    export NSQUORUM_BIN="$CARGO_TARGET_DIR/release/nsquorum"
    export NSQUORUM_FAULTFS="$CARGO_TARGET_DIR/release/nsquorum-faultfs"
}
