#!/usr/bin/env bash
# Puts a cluster of its own, or the running containers, under load, strikes it with one fault after the other, and
# checks that no acknowledged write is lost, none is applied twice, no request fails and both masters end equal. Its
# own cluster has real masters with fsync on, in a temporary folder and on free ports. Each kind of fault once takes
# about a minute.
#
#   scripts/chaos.sh                                        each kind once
#   scripts/chaos.sh --faults 100 --seed 7                  a long run in another order
#   scripts/chaos.sh --only kill-active,handover --json     some kinds, for programs
#   scripts/chaos.sh --peace 180                            no fault for three minutes: no event, no failed request
#   scripts/chaos.sh --on compose                           the containers of docker-compose.yml, which must be up and
#                                                           healthy; it neither starts nor stops them
#   scripts/chaos.sh --help                                 all flags, and the kinds
#
# IMDB_HA_PROFILE=dev takes cargo's debug build, which is slower and made at once after a test run.
#
# Exit code 1: a promise was broken, or the system did not recover. A missed time is told, and counts with --strict.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=scripts/rust.sh
. scripts/rust.sh
scripts/install.sh >&2
echo "chaos: building (the first time takes some minutes)" >&2
# Run by itself and not by cargo, which would add an error of its own to what is found.
driver=$(cargo bench --locked --quiet --profile "${IMDB_HA_PROFILE:-bench}" --bench chaos --no-run --message-format=json |
  sed -nE 's/.*"name":"chaos".*"executable":"([^"]+)".*/\1/p')
[ -n "$driver" ] || { echo "chaos: cargo did not say what it built" >&2; exit 1; }
exec "$driver" "$@"
