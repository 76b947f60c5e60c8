# shellcheck shell=bash
# Sourced by tests that run the stock NSQ programs beside nsquorum or on it. After tests/interop/clients.sh.
#
# go.mod pins the exact version; a newest one is never asked for, and not every Go module proxy would tell.

# stock_programs: sets stock_bin, a folder with nsqd, nsqlookupd, nsqadmin, nsq_to_file, nsq_to_http, nsq_to_nsq, nsq_tail, nsq_stat, to_nsq,
# bench_writer, bench_reader and bench_channels.
stock_programs() {
    local from
    from="$(dirname "${BASH_SOURCE[0]}")"
    stock_bin="$clients_cache/stock-$(content_hash "$from/go.mod" "$from/go.sum" "${BASH_SOURCE[0]}")"
    [ ! -d "$stock_bin" ] || return 0
    echo "building the stock NSQ programs into $stock_bin" >&2
    rm -rf "$stock_bin.new"
    mkdir -p "$stock_bin.new"
    (
        cd "$from"
        export GOTOOLCHAIN=local GOFLAGS=-mod=readonly
        go build -buildvcs=false -o "$stock_bin.new/" github.com/nsqio/nsq/apps/... github.com/nsqio/nsq/bench/... >&2
    )
    mv "$stock_bin.new" "$stock_bin"
}
