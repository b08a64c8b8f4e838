#!/usr/bin/env bash
# Measures how long searches, titles and persons take over HTTP with 16 connections, and prints the median and the p99 of
# each kind. Words and ids are picked from the films that are there.
#
#   scripts/bench-queries.sh http://HOST:PORT [SECONDS]   an API with films; 20 s by default
#   scripts/bench-queries.sh [SECONDS [PARTICIPATIONS]]   a cluster of its own in a temporary folder, with films that it makes:
#                                                         5 million by default, with 630,000 titles; four minutes
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for word in "$@"; do
  [[ $word =~ ^([0-9]+|http://[^/]+/?)$ ]] || { echo "bench-queries: expected http://HOST:PORT or a number (got '$word')" >&2; exit 2; }
done
[[ $* == *http* ]] || command -v python3 >/dev/null || { echo "bench-queries: making films needs python3; on Debian: python3" >&2; exit 1; }
# shellcheck source=scripts/rust.sh
. scripts/rust.sh
scripts/install.sh
exec cargo bench --locked --quiet --bench queries -- "$@"
