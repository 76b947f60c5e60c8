#!/usr/bin/env bash
# Builds librocksdb.a once, from the sources inside the librocksdb-sys crate, and prints the folder that holds it.
#
# Cargo would compile these 342 C++ files again for every profile and every clean clone (seven minutes on two cores each
# time). Most of that is header parsing, so the files are concatenated sixteen at a time ("unity build"): three to
# five minutes, once per machine. A group that does not compile as one unit is split in two until it does.
set -euo pipefail

usage="usage: build/rocksdb.sh CRATE_SOURCE_DIR CRATE_VERSION CACHE_DIR"
crate_dir="${1:?$usage}"
crate_version="${2:?$usage}"
cache_dir="${3:?$usage}"

arch="$(uname -m)"
case "$arch" in
    x86_64) cpu_flags=(-march=x86-64-v2 -msse4.2 -mpclmul) ;; # hardware CRC32C
    aarch64) cpu_flags=(-march=armv8-a+crc+crypto) ;;
    *) cpu_flags=() ;;
esac
flags=(-std=c++20 -O2 -fPIC -w -include cstdint -DNDEBUG -DHAVE_ALIGNED_NEW -DHAVE_UINT128_EXTENSION -DOS_LINUX
    -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX -DROCKSDB_SCHED_GETCPU_PRESENT -DROCKSDB_AUXV_GETAUXVAL_PRESENT
    -DROCKSDB_FALLOCATE_PRESENT -DROCKSDB_RANGESYNC_PRESENT "${cpu_flags[@]}")
compiler="${CXX:-g++}"
key="$(printf '%s\n' "$crate_version" "$("$compiler" -dumpfullversion)" "$arch" "${flags[@]}" | sha256sum | cut -c1-16)"
out="$cache_dir/rocksdb-$key"
if [ -f "$out/librocksdb.a" ]; then
    echo "$out"
    exit 0
fi

work="$(mktemp -d "${TMPDIR:-/tmp}/rocksdb-build.XXXXXX")"
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
cd "$crate_dir"
includes=(-I rocksdb/include -I rocksdb -I .)

grep -v '^util/build_version.cc$' rocksdb_lib_sources.txt | tr -d '\r' | sed '/^ *$/d; s#^#rocksdb/#' >"$work/sources"
echo build_version.cc >>"$work/sources"
# Neighbours in the list come from one directory; a directory change starts a new group, so that clashes stay rare.
split -l 16 -d -a 3 "$work/sources" "$work/group."

cat >"$work/compile" <<'SCRIPT'
#!/usr/bin/env bash
set -euo pipefail
group="$1"; shift
compile() { # list-file object-stem; the remaining arguments are the compiler call
    local list="$1" stem="$2"; shift 2
    sed 's/.*/#include "&"/' "$list" >"$stem.cc"
    if "$@" -c "$stem.cc" -o "$stem.o" 2>"$stem.log"; then return; fi
    if [ "$(wc -l <"$list")" -le 1 ]; then cat "$stem.log" >&2; exit 1; fi
    rm -f "$stem.o"
    local half=$(( ($(wc -l <"$list") + 1) / 2 ))
    head -n "$half" "$list" >"$list.a"; tail -n +"$((half + 1))" "$list" >"$list.b"
    compile "$list.a" "$stem.a" "$@"; compile "$list.b" "$stem.b" "$@"
}
compile "$group" "$group.unit" "$@"
SCRIPT
chmod +x "$work/compile"
echo "building RocksDB once into $out (three to five minutes on two cores)" >&2
find "$work" -name 'group.???' -print0 |
    xargs -0 -P "$(nproc)" -I{} "$work/compile" {} "$compiler" "${flags[@]}" -I "$PWD" "${includes[@]}"
ar crs "$work/librocksdb.a" "$work"/*.o
mv "$work/librocksdb.a" "$out/librocksdb.a.tmp"
mv "$out/librocksdb.a.tmp" "$out/librocksdb.a" # only a complete library ever has this name
echo "$out"
