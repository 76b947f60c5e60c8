#!/usr/bin/env bash
# Builds the fuzz targets (fuzz/) and runs them, each beginning with its committed corpus. Needs no tool but the compiler: libFuzzer is a dependency
# like any other, and the flags for coverage (fuzz/.cargo/config.toml) are those of a stable compiler. Called by ./dev, which prepares the environment.
#
#   ./dev fuzz [--brief] [--runs N | --seconds S] [TARGET | parsers | node]...
#   ./dev fuzz --minimise TARGET...        the committed corpus becomes the smallest that covers as much as it and all that was found
#
# Without a target all are run. `parsers` is those that need nothing of a node, so they build in a minute; `node` is the others. What is found goes to
# $CARGO_TARGET_DIR/fuzz/TARGET, where the next run begins; a target that has passed with a number of runs is not run again while it is the same program.
# A brief run begins with the committed corpus alone and keeps nothing: with one NSQUORUM_SEED (1 without it) it is the same each time.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

limit=(-max_total_time=60) stamp_of=seconds minimise='' brief=
wanted=()
while [ $# -gt 0 ]; do
    case "$1" in
        --runs) limit=("-runs=$2") stamp_of="$2" && shift ;;
        --seconds) limit=("-max_total_time=$2") && shift ;;
        --brief) brief=yes ;;
        --minimise) minimise=yes ;;
        *) wanted+=("$1") ;;
    esac
    shift
done
[ ${#wanted[@]} -gt 0 ] || wanted=(parsers node)

targets_of() { for file in "$1"/src/bin/*.rs; do basename "$file" .rs; done; }
packages=() targets=()
for name in "${wanted[@]}"; do
    if [ -d "$name/src/bin" ]; then
        packages+=("nsquorum-fuzz-$name")
        mapfile -t -O ${#targets[@]} targets < <(targets_of "$name")
    else
        package="$(dirname "$(dirname "$(dirname "$(ls -- */src/bin/"$name".rs)")")")"
        packages+=("nsquorum-fuzz-$package")
        targets+=("$name")
    fi
done

target_directory="${CARGO_TARGET_DIR:-$PWD/target}"
# One after the other: together they would share features of dependencies, and be other programs than alone.
for package in $(printf '%s\n' "${packages[@]}" | sort -u); do
    cargo build --locked --release -p "$package"
done
programs="$target_directory/$(rustc --version --verbose | sed -n 's/^host: //p')/release"
work="$target_directory/fuzz"
mkdir -p "$work"

# Longer inputs find nothing that shorter ones do not, and slow the search down.
length_max() {
    case "$1" in
        deflate | snappy) echo 512 ;;
        *) echo 2048 ;;
    esac
}

fuzz() {
    local target="$1" log="$work/$1.log" found="$work/$1" stamp=
    if [ -n "$brief" ]; then
        found="$work/brief/$target"
        rm -rf "$found"
    elif [ "$stamp_of" != seconds ]; then
        stamp="$work/$target-$(sha256sum "$programs/$target" | cut -c1-12)-$stamp_of.passed"
        [ ! -f "$stamp" ] || { cat "$stamp" && return; }
    fi
    mkdir -p "$found"
    # Reading what other processes may have found would make a run depend on time.
    local began=$SECONDS
    "$programs/$target" "${limit[@]}" "-seed=${NSQUORUM_SEED:-1}" -reload=0 "-max_len=$(length_max "$target")" -timeout=25 -print_final_stats=1 \
        "-artifact_prefix=$work/$target-" "$found" "corpus/$target" >"$log" 2>&1 ||
        { tail -n 40 "$log" >&2 && echo "FAILED: $target; the input lies in $work" >&2 && return 1; }
    local runs coverage figure
    runs="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
    coverage="$(grep -o 'cov: [0-9]*' "$log" | tail -n1 | cut -d' ' -f2)"
    figure="figure: fuzz $target: $runs executions in $((SECONDS - began)) s, $coverage places reached"
    echo "$figure"
    [ -z "$stamp" ] || echo "$figure (before)" >"$stamp"
}

for target in "${targets[@]}"; do
    if [ -n "$minimise" ]; then
        smallest="$(mktemp -d)"
        "$programs/$target" -merge=1 -use_counters=0 "-max_len=$(length_max "$target")" "$smallest" "corpus/$target" "$work/$target" >"$work/$target.log" 2>&1
        # Findings have names, not sums, and stay.
        find "corpus/$target" -type f ! -name '????????????????????????????????????????' -exec mv -t "$smallest" {} +
        rm -rf "corpus/$target"
        mv "$smallest" "corpus/$target"
        chmod 755 "corpus/$target"
        echo "$target: $(ls "corpus/$target" | wc -l) inputs"
    else
        fuzz "$target"
    fi
done
