#!/usr/bin/env bash
# Measures inserts per second over HTTP with 1, 16 and 64 clients, beside pgbench on the same masters, on a cluster of
# its own in a temporary folder: real masters with fsync on, a release build. Prints medians.
#
#   scripts/bench-writes.sh [ROUNDS [SECONDS]]     3 rounds of 5 s for each figure by default; about two minutes
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for number in "$@"; do
  [[ $number =~ ^[0-9]+$ ]] || { echo "bench-writes: ROUNDS and SECONDS are numbers (got '$number')" >&2; exit 2; }
done
# shellcheck source=scripts/rust.sh
. scripts/rust.sh
scripts/install.sh
exec cargo bench --locked --quiet --bench writes -- "$@"
