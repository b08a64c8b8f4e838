#!/usr/bin/env bash
# Measures how long searches, titles and persons take over HTTP with 16 connections, and prints the median and the p99 of
# each kind. Words and ids are picked from the films that are there.
#
#   scripts/bench-queries.sh http://HOST:PORT [SECONDS]   an API with films; 20 s by default
#   scripts/bench-queries.sh [SECONDS [TITLES]]           a cluster of its own in a temporary folder, with films that it makes:
#                                                         630000 titles by default, with 5 million participations; five minutes
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for word in "$@"; do
  [[ $word =~ ^([0-9]+|http://[^/]+/?)$ ]] || { echo "bench-queries: expected http://HOST:PORT or a number (got '$word')" >&2; exit 2; }
done
# shellcheck source=scripts/rust.sh
. scripts/rust.sh
scripts/install.sh
exec cargo bench --locked --quiet --bench queries -- "$@"
