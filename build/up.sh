#!/usr/bin/env bash
# Starts a node in ./nsquorum-data and says what to try. Ctrl-C stops it cleanly.
set -euo pipefail
binary="$1"
shift
data="${NSQUORUM_DATA:-$PWD/nsquorum-data}"
mkdir -p "$data"
"$binary" serve --data-path "$data" --broadcast-address 127.0.0.1 "$@" &
node=$!
stop() { kill -TERM "$node" 2>/dev/null || true; }
trap stop INT TERM
for _ in $(seq 300); do
    kill -0 "$node" 2>/dev/null || { wait "$node"; exit $?; }
    if (exec 3<>/dev/tcp/127.0.0.1/4151) 2>/dev/null &&
        [ "$(printf 'GET /ping HTTP/1.0\r\n\r\n' | { exec 3<>/dev/tcp/127.0.0.1/4151; cat >&3; tail -n1 <&3; })" = OK ]; then
        break
    fi
    sleep 0.1
done
cat <<TEXT

nsquorum is running. Any NSQ client can use it as it is.

    nsqd TCP      127.0.0.1:4150      publish and consume
    nsqd HTTP     127.0.0.1:4151      curl -d 'hello' 'http://127.0.0.1:4151/pub?topic=greetings'
    lookup HTTP   127.0.0.1:4161      curl 'http://127.0.0.1:4161/lookup?topic=greetings'
    data          $data

Try, in another terminal:

    $binary tail greetings --channel me        # prints what arrives; leave it running
    $binary pub greetings 'hello'              # "OK" means: on disk
    examples/invoices/run 127.0.0.1:4150       # invoices through unchanged pynsq and nsqjs clients, added up at the end
    curl 'http://127.0.0.1:4151/stats?format=json'

Then kill it the hard way (kill -9 $node), start it again with ./dev up, and look: nothing that was answered OK is gone.
Stop it with Ctrl-C. Check the stopped directory with: $binary verify $data

TEXT
wait "$node" || code=$?
# A signal ends the wait, not the node: wait for its clean end.
while kill -0 "$node" 2>/dev/null; do wait "$node" || code=$?; done
exit "${code:-0}"
