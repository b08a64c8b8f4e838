#!/usr/bin/env bash
# Measures the loader of IMDb's files beside `psql \copy` and imdb-sqlite, on the same files, on a cluster of its own in a
# temporary folder: real masters with fsync on, a release build. Prints medians, and the ratios next to their goals.
#
#   scripts/bench-load.sh [PRINCIPALS] [--rounds N] [--only NAME,...]     5,000,000 rows of title.principals, the other
#                                   files in proportion, and 3 rounds by default; --help tells more
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v python3 >/dev/null || { echo "bench-load: this needs python3; on Debian: python3 and python3-venv" >&2; exit 1; }
# What is wrong with the arguments is told before anything is built.
case " $* " in *" --help "* | *" -h "*) exec python3 scripts/bench/load.py --help ;; esac
python3 scripts/bench/load.py --check "$@"
# shellcheck source=scripts/rust.sh
. scripts/rust.sh
scripts/install.sh
cargo build --release --locked --quiet
exec python3 scripts/bench/load.py --binary "$(realpath "${CARGO_TARGET_DIR:-target}/release/imdb-ha")" "$@"
