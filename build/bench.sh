#!/usr/bin/env bash
# The benchmark against a node of its own, or with `--nodes 3` first against a cluster of its own, on the disk of the build cache; all other
# arguments go to `nsquorum bench`.
set -euo pipefail
: "${NSQUORUM_BIN:?is set by ./dev}"
nodes=1
if [ "${1:-}" = --nodes ]; then
    nodes="$2"
    shift 2
fi
mkdir -p "$CARGO_TARGET_DIR/bench"
work="$(mktemp -d "$CARGO_TARGET_DIR/bench/XXXXXX")"
server=
stop() {
    [ -z "$server" ] || { kill -TERM "$server" 2>/dev/null; wait "$server" || true; }
    rm -rf "$work"
}
trap stop EXIT

# Waits for the file that says that all serve.
served() {
    for _ in $(seq 300); do
        [ -s "$1" ] && return
        kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
        sleep 0.1
    done
}

if [ "$nodes" -gt 1 ]; then
    "$NSQUORUM_BIN" up --nodes "$nodes" --dir "$work/cluster" --base-port "${NSQUORUM_BENCH_PORT:-24150}" >"$work/log" 2>&1 &
    server=$!
    served "$work/cluster/cluster.json"
    "$NSQUORUM_BIN" bench --cluster-dir "$work/cluster" --raw-dir "$work" "$@"
else
    "$NSQUORUM_BIN" serve --data-path "$work/data" --tcp-address 127.0.0.1:0 --http-address 127.0.0.1:0 \
        --lookup-tcp-address 127.0.0.1:0 --lookup-http-address 127.0.0.1:0 --ports-file "$work/ports.json" 2>"$work/log" &
    server=$!
    served "$work/ports.json"
    address() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$work/ports.json"; }
    "$NSQUORUM_BIN" bench --nsqd-tcp-address "$(address tcp)" --http-address "$(address http)" --server-pid "$server" \
        --raw-dir "$work" "$@"
fi
