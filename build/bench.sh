#!/usr/bin/env bash
# The benchmark against a node of its own, on the disk of the build cache; arguments go to `nsquorum bench`.
set -euo pipefail
: "${NSQUORUM_BIN:?is set by ./dev}"
mkdir -p "$CARGO_TARGET_DIR/bench"
work="$(mktemp -d "$CARGO_TARGET_DIR/bench/XXXXXX")"
node=
stop() {
    [ -z "$node" ] || { kill -TERM "$node" 2>/dev/null; wait "$node" || true; }
    rm -rf "$work"
}
trap stop EXIT
"$NSQUORUM_BIN" serve --data-path "$work/data" --tcp-address 127.0.0.1:0 --http-address 127.0.0.1:0 \
    --lookup-http-address 127.0.0.1:0 --ports-file "$work/ports.json" 2>"$work/log" &
node=$!
for _ in $(seq 300); do
    [ -s "$work/ports.json" ] && break
    kill -0 "$node" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
done
address() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$work/ports.json"; }
"$NSQUORUM_BIN" bench --nsqd-tcp-address "$(address tcp)" --http-address "$(address http)" --server-pid "$node" \
    --raw-dir "$work" "$@"
