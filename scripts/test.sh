#!/usr/bin/env bash
# Runs every check of the project and ends with one line that sums them up. Installs what it needs.
#
#   scripts/test.sh           everything
#   scripts/test.sh NAME...   only these checks: the functions below, without check_
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

check_format() { cargo fmt --check; }

check_clippy() { cargo clippy --locked --all-targets --quiet -- -D warnings; }

check_scripts() { shellcheck scripts/*.sh scripts/pgbackrest/*.sh .ci/run; }

check_rustdoc() { RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items --quiet; }

# The synchronous postgres crate runs a private tokio inside each client. Nothing else may bring one.
check_tokio() {
  local intruders
  intruders=$(cargo tree --locked --edges normal --prefix none -i tokio | awk '{print $1}' | sort -u |
    grep -vxE 'tokio|postgres|tokio-postgres|tokio-util|r2d2_postgres|imdb-ha' || true)
  [ -z "$intruders" ] || { echo "these bring tokio: $intruders"; return 1; }
  ! grep -nE '^(tokio|async-std|smol|futures)\b' Cargo.toml
}

# Files of tests that run side by side, each with one test at a time. A test waits more than it works, and two processors
# have room for three; with more, those that measure times fail because they get no processor.
files_at_once=3

# The longest first, so that none of them is left to run alone at the end.
longest=(load_faults identity compare rejoin failover fitness retries backups local lane drill load load_files words upload restore drift conflicts keys queries quiet durability catalog replication tls redis imdb_ha load_room launcher http_conformance)

declare -A running=() # name of a file of tests by its process

# Everything that runs: pure code, and real masters, Redis and the binary. Its clusters live in a folder that no
# other cluster of this machine is in, so that what is left behind is known to be theirs.
check_tests() {
  local built path name failed=()
  local -A path_of=()
  built=$(cargo test --locked --quiet --no-run --message-format=json-render-diagnostics) || return 1
  while read -r path; do
    name=$(basename "$path")
    path_of[${name%-*}]=$path
  done < <(sed -n 's/.*"profile":{[^}]*"test":true}.*"executable":"\([^"]*\)".*/\1/p' <<<"$built")
  [ ${#path_of[@]} -gt 0 ] || { echo "cargo has built no tests"; return 1; }
  for name in "${longest[@]}" "${!path_of[@]}"; do
    path=${path_of[$name]:-}
    [ -n "$path" ] || continue
    unset "path_of[$name]"
    [ ${#running[@]} -lt $files_at_once ] || end_of_a_file
    TMPDIR=$tests_folder RUST_TEST_THREADS=1 "$path" --quiet >"$tests_folder/$name.log" 2>&1 &
    running[$!]=$name
  done
  while [ ${#running[@]} -gt 0 ]; do end_of_a_file; done
  [ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}"; return 1; }
}

# Waits until one of the running files of tests has ended, and shows what it has said, which belongs together.
end_of_a_file() {
  local process code=0
  wait -n -p process "${!running[@]}" || code=$?
  echo "--- ${running[$process]}, ended after $((SECONDS - began)) s"
  cat "$tests_folder/${running[$process]}.log"
  [ "$code" -eq 0 ] || failed+=("${running[$process]}")
  unset "running[$process]"
}

# One fault of each kind under load, in the same folder, with what the tests have built.
check_chaos() { IMDB_HA_PROFILE=dev TMPDIR=$tests_folder scripts/chaos.sh; }

# The containers, where a Docker engine can be had.
check_compose() {
  local code=0 ours=yes
  # An engine that somebody has started stays.
  ! kill -0 "$(cat /run/imdb-ha-engine/pid 2>/dev/null)" 2>/dev/null || ours=no
  scripts/engine.sh || code=$?
  # What cannot be had is told above and fails nobody's tests.
  case $code in
    0) IMDB_HA_PROFILE=dev scripts/test-compose.sh || code=1 ;;
    3) echo "compose: NOT TESTED, for want of an engine"; code=0 ;;
  esac
  [ "$ours" = no ] || scripts/engine.sh down
  return "$code"
}

# Folders and processes of the tests that are there still. A process is told by its command line or its working
# folder, which is all that Redis has; the API has only its environment.
left_of_tests() {
  local folder line all
  find "$tests_folder" -mindepth 1 -maxdepth 1 -name 'imdb-ha-*'
  for folder in /proc/[0-9]*; do
    line=$({ tr '\0' ' ' <"$folder/cmdline"; } 2>/dev/null)
    all="$line $(readlink "$folder/cwd" 2>/dev/null)"
    [[ $line != *imdb-ha* ]] || all+=$({ tr '\0' ' ' <"$folder/environ"; } 2>/dev/null)
    [[ $all != *"$tests_folder"* ]] || echo "process ${folder#/proc/}: $line"
  done
}

# A cluster of a test ends with its test. What is still there a few seconds later was left behind.
check_nothing_left() {
  local left
  for _ in $(seq 50); do
    left=$(left_of_tests)
    [ -n "$left" ] || return 0
    sleep 0.2
  done
  echo "left behind: $left"
  return 1
}

checks=(format clippy scripts rustdoc tokio tests chaos compose nothing_left)
[ $# -eq 0 ] || checks=("$@")

# shellcheck source=scripts/rust.sh
. scripts/rust.sh
scripts/install.sh --test || { echo "0 passed, 1 failed"; exit 1; }
tests_folder=$(mktemp -d "${TMPDIR:-/tmp}/imdb-ha-tests-XXXXXX") || exit 1
# The masters run as another user when root tests, who must get through to their folders.
chmod 755 "$tests_folder"
# A cluster ends with its test. Nothing is removed under a server that lives.
trap '[ ${#running[@]} -eq 0 ] || kill "${!running[@]}"; [ -n "$(left_of_tests)" ] || rm -rf "$tests_folder"' EXIT
passed=0 failed=()
for check in "${checks[@]}"; do
  declare -F "check_$check" >/dev/null || { echo "test: there is no check '$check'; there are: ${checks[*]}" >&2; exit 2; }
  began=$SECONDS
  if "check_$check"; then
    passed=$((passed + 1))
    echo "ok      $check ($((SECONDS - began)) s)"
  else
    failed+=("$check")
    echo "FAILED  $check ($((SECONDS - began)) s)"
  fi
done
[ ${#failed[@]} -eq 0 ] || echo "failed: ${failed[*]}"
echo "$passed passed, ${#failed[@]} failed"
[ ${#failed[@]} -eq 0 ]
