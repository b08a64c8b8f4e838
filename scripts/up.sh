#!/usr/bin/env bash
# Brings up the whole system on this machine: installs what is missing, builds, starts both masters, Redis and
# the API, joins the masters. Ctrl-C stops everything again; the data stays for the next start.
#
#   scripts/up.sh             in the foreground, a line per event
#   scripts/up.sh --detach    returns when the API is ready
#   scripts/up.sh --down      stops it
#   scripts/up.sh --help      and every flag of `imdb-ha local up` is taken too, such as --port or --data
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command=(local up)
arguments=()
for argument in "$@"; do
  case $argument in
    --down) command=(local down) ;;
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) arguments+=("$argument") ;;
  esac
done

binary=${CARGO_TARGET_DIR:-target}/release/imdb-ha
if [ "${command[1]}" = up ]; then
  # shellcheck source=scripts/rust.sh
  . scripts/rust.sh
  scripts/install.sh
  echo "up: building (the first time takes some minutes)"
  cargo build --release --locked
elif [ ! -x "$binary" ]; then
  echo "up: there is no $binary, so nothing was started from here" >&2
  exit 1
fi
# The first start loads real films, in seconds; LOAD_AT_START= loads none.
export LOAD_AT_START=${LOAD_AT_START-$PWD/data/sample}
exec "$binary" "${command[@]}" "${arguments[@]}"
