#!/usr/bin/env bash
# Runs every check of the project and ends with one line that sums them up. Installs what it needs.
#
#   scripts/test.sh           everything
#   scripts/test.sh NAME...   only these checks: the functions below, without check_
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

check_format() { cargo fmt --check; }

check_clippy() { cargo clippy --locked --all-targets --quiet -- -D warnings; }

check_scripts() { shellcheck scripts/*.sh .ci/run; }

check_rustdoc() { RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items --quiet; }

# The synchronous postgres crate runs a private tokio inside each client. Nothing else may bring one.
check_tokio() {
  local intruders
  intruders=$(cargo tree --locked --edges normal --prefix none -i tokio | awk '{print $1}' | sort -u |
    grep -vxE 'tokio|postgres|tokio-postgres|tokio-util|r2d2_postgres|imdb-ha' || true)
  [ -z "$intruders" ] || { echo "these bring tokio: $intruders"; return 1; }
  ! grep -nE '^(tokio|async-std|smol|futures)\b' Cargo.toml
}

# Everything that runs: pure code, and real masters, Redis and the binary.
check_tests() { cargo test --locked --quiet --no-fail-fast; }

# A cluster of a test ends with its test. What is still there a few seconds later was left behind: a folder, or
# a server that works in one.
check_nothing_left() {
  local left
  for _ in $(seq 50); do
    left=$(find "${TMPDIR:-/tmp}" -maxdepth 1 -name 'imdb-ha-*' -newer "$started_file" 2>/dev/null
      pgrep -fa "[ =]${TMPDIR:-/tmp}/imdb-ha-" 2>/dev/null | grep -vxFf "$running_before" || true)
    [ -n "$left" ] || return 0
    sleep 0.2
  done
  echo "left behind: $left"
  return 1
}

checks=(format clippy scripts rustdoc tokio tests nothing_left)
[ $# -eq 0 ] || checks=("$@")

# shellcheck source=scripts/rust.sh
. scripts/rust.sh
scripts/install.sh --test || { echo "0 passed, 1 failed"; exit 1; }
started_file=$(mktemp) running_before=$(mktemp)
# A line that nothing equals, since an empty list of patterns would mean all.
{ echo "-"; pgrep -fa "[ =]${TMPDIR:-/tmp}/imdb-ha-" || true; } >"$running_before" 2>/dev/null
trap 'rm -f "$started_file" "$running_before"' EXIT
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
