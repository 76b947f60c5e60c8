#!/usr/bin/env bash
# Every acceptance line with its full count. Resumable: a line that has passed is not run again while nothing that it runs has changed
# (texts may change, and the example does not touch what other lines run). Writes a report with each line's command, result, time, figures and seeds.
#
#   ./dev prove                 all lines
#   ./dev prove LINE...         these lines
#   ./dev prove --list          the lines
set -euo pipefail

commit="$(git rev-parse --short HEAD)"
git diff --quiet HEAD -- || commit="$commit-dirty"
work="$CARGO_TARGET_DIR/prove"
mkdir -p "$work"
: "${NSQUORUM_SEED:=$(date +%s)}"
export NSQUORUM_SEED

cluster_test() { cargo test --locked --release -p nsquorum-cluster-tests --test "$1" -- --nocapture --test-threads 1 "${@:2}"; }
node_test() { cargo test --locked --release -p nsquorum-node-tests --test "$1" -- --nocapture --test-threads 1 "${@:2}"; }
# The path of the pinned stock nsqd, built where it is not yet.
stock_nsqd() (
    # shellcheck source=tests/interop/clients.sh
    . tests/interop/clients.sh
    # shellcheck source=tests/stock/programs.sh
    . tests/stock/programs.sh
    require_tools go
    stock_programs
    echo "$stock_bin/nsqd"
)

# Where a line's log and result are: the name says what it ran on.
place() {
    local inputs=(Cargo.toml Cargo.lock .cargo clippy.toml dev build/environment.sh build/rocksdb.sh build/bench.sh crates tests)
    [ ! -d proto ] || inputs+=(proto)
    [ "$1" != invoices ] || inputs+=(examples)
    [ "$1" != fuzz ] || inputs+=(fuzz build/fuzz.sh)
    local key
    case "$commit" in
        *-dirty) key="$commit" ;;
        *) key="$(git ls-tree -r HEAD -- "${inputs[@]}" | sha256sum | cut -c1-12)" ;;
    esac
    echo "$work/$1-$key"
}

# Names of the lines, in the order in which they run: cheap ones first.
lines=(check topic-histories leader-histories storage power-steps power-cut disk-errors damage disk-full memory connections restart starts clusters quorum-loss many-topics power-loss partitions leader-kills leader-pauses rolling-restarts cluster-clients interop nsqjs-suite stock-lookup stock-tools stock-nsqd migration fuzz invoices bench cluster-bench)

line_check() { ./dev check; }                                                                # acceptance 1 (part)
line_nsqjs_suite() { tests/interop/nsqjs_suite/run; }                                        # all of NSQ 2
line_migration() { tests/stock/migration/run --count 100000 && tests/stock/migration/run --nodes 3 --count 100000; } # all of NSQ 3
line_interop() { # acceptance 2
    tests/interop/run --count 100000 && tests/interop/run --count 20000 --transport all --pairs all && tests/interop/run --nodes 3 --count 30000
}
line_fuzz() { build/fuzz.sh --runs 10000000; }                                                # all of NSQ 5
line_invoices() { examples/invoices/run --count 5000; }                                      # acceptance 2
line_power_cut() { NSQUORUM_KILLS=50 node_test power_cut; }                                  # acceptance 3
line_topic_histories() {                                                                     # acceptance 4
    NSQUORUM_HISTORIES=100000 cargo test --locked --release -p nsquorum-topic -- --nocapture
}
line_leader_histories() {                                                                    # acceptance 4
    NSQUORUM_HISTORIES=20000 cargo test --locked --release -p nsquorum-broker --lib -- --nocapture
}
line_storage() { NSQUORUM_CASES=2000 NSQUORUM_FLIPS=1000 cargo test --locked --release -p nsquorum-storage -- --nocapture; } # acceptance 5
line_power_steps() { NSQUORUM_FAILURES=100 cargo test --locked --release -p nsquorum-broker --test one_node -- --nocapture power_cut; } # acceptance 5
line_disk_errors() { NSQUORUM_FAILURES=100 node_test disk_errors; }                          # acceptance 5
line_damage() { NSQUORUM_FLIPS=1000 node_test damage; }                                      # acceptance 5
line_bench() { build/bench.sh --runs 5 --json "$(place bench).json"; }                          # acceptance 6
line_cluster_bench() {                                                                         # three replicas 8
    build/bench.sh --nodes 3 --runs 5 --json "$(place cluster-bench).json"
    build/bench.sh --nodes 3 --runs 1 --seconds 60 --case mpub-consumed --json "$(place cluster-bench)-60s.json"
}
line_disk_full() { NSQUORUM_FULL_DISKS=20 node_test disk_full; }                                                 # acceptance 7
line_memory() { NSQUORUM_BACKLOG=1000000 node_test memory; }                                 # acceptance 7
line_connections() { # all of NSQ, 4
    NSQUORUM_STOCK_NSQD=$(stock_nsqd) NSQUORUM_CONNECTIONS=10000 NSQUORUM_BUSY_CONNECTIONS=1000 NSQUORUM_BUSY_MESSAGES=200 node_test connections
}
line_clusters() { cluster_test three_nodes; }                                                 # three replicas, 1 (small)
line_quorum_loss() { cluster_test quorum_loss; }                                             # three replicas, 4
line_many_topics() { NSQUORUM_TOPICS=500 cluster_test many_topics; }                          # three replicas, 9
line_power_loss() { NSQUORUM_KILLS=50 NSQUORUM_ROUNDS=30 cluster_test power_loss; }          # three replicas, 3
line_partitions() { NSQUORUM_ROUNDS=10 cluster_test partitions; }                            # three replicas, 7 and 3 (cut off)
line_leader_kills() { NSQUORUM_LEADER_KILLS=100 cluster_test leader_death killed; }           # three replicas 5
line_leader_pauses() { NSQUORUM_LEADER_PAUSES=20 cluster_test leader_death paused; }         # three replicas 5
line_rolling_restarts() { NSQUORUM_ROLLING_RESTARTS=20 cluster_test rolling; }               # three replicas 6
line_cluster_clients() { tests/interop/run --cluster --count 300000 --kills 10; }            # three replicas 1, 2
line_stock_lookup() { tests/stock/lookupd_differential; }                                       # all of NSQ 1 (nsqlookupd)
line_stock_nsqd() { # all of NSQ 1 (HTTP, TCP, statsd)
    for what in http tcp statsd; do
        tests/stock/run "$what" && tests/stock/run "$what" --nodes 3 || return
    done
}
line_stock_tools() { tests/stock/tools --count 5000 --rounds 5; }                             # all of NSQ 2 (nsqadmin, tools)
line_starts() { NSQUORUM_STARTS=50 node_test starts; }                                         # all of NSQ 1
line_restart() { node_test restart; }                                                        # acceptance 1, 7

if [ "${1:-}" = --list ]; then
    printf '%s\n' "${lines[@]}"
    exit 0
fi
all_lines=("${lines[@]}")
[ $# = 0 ] || lines=("$@")

for line in "${lines[@]}"; do
    function="line_${line//-/_}"
    declare -F "$function" >/dev/null || { echo "no line $line; see ./dev prove --list" >&2; exit 2; }
    at="$(place "$line")"
    [ -f "$at.passed" ] && continue
    printf '== %s\n' "$line" >&2
    started=$(date +%s)
    # Not as a condition: bash ignores `set -e` in there, and only a line's last command would count.
    set +e
    (set -e; "$function") >"$at.log" 2>&1
    status=$?
    set -e
    # A test that this machine has no right to run says so and ends well; that proves nothing.
    if [ "$status" != 0 ]; then result=FAILED; elif grep -q '^NOT RUN' "$at.log"; then result="NOT RUN"; else result=passed; fi
    echo "$result in $(($(date +%s) - started)) s, seed $NSQUORUM_SEED, at $commit" | tee "$at.result" >&2
    [ "$result" != passed ] || touch "$at.passed"
done

{
    echo "# Proof of $commit"
    echo
    echo "$(date -u +%FT%TZ), $(nproc) cores, $(uname -sr), $(sed -n 's/model name.*: //p' /proc/cpuinfo | head -n1)"
    for line in "${all_lines[@]}"; do
        at="$(place "$line")"
        printf '\n## %s: %s\n\n' "$line" "$(cat "$at.result" 2>/dev/null || echo "not run")"
        printf '    %s\n\n' "$(declare -f "line_${line//-/_}" | sed -n '3p' | sed 's/^ *//')"
        [ -f "$at.log" ] || continue
        # Figures, verdicts and closing lines; the whole log lies beside the report.
        grep -E '^(figure:|NOT RUN|seed|test result:|run [0-9]|[a-z-]+ +[0-9.]+k? )|target (met|MISSED)|[0-9]+ passed|agree|FAILED|panicked' "$at.log" |
            grep -v '0 passed; 0 failed' | sed 's/^/    /' | tail -n 60 || true
    done
} >"$work/report-$commit.md"
echo "$work/report-$commit.md"
for line in "${lines[@]}"; do [ -f "$(place "$line").passed" ] || exit 1; done
