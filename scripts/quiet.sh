#!/usr/bin/env bash
# Walks a cluster of its own through every fault on either master (killed, restarted, frozen, cut off), away for 0, 1, 5 and
# 30 s, with the traffic switched back at once, later or never, without and with load: 192 rows, about 40 minutes. After
# each it times how long the API takes to say zero-loss again. That begins when it is possible: a master serves, both
# are up, and the switch has been answered. Times are in ms, those of being away in s.
#
#   scripts/quiet.sh                                 all of it
#   scripts/quiet.sh --away 0,1 --only active,idle   the rows of these times that have these words
#   scripts/quiet.sh --json                          for programs
#
# IMDB_HA_PROFILE=dev takes cargo's debug build. Exit code 1: a row took more than 1 s.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/chaos.sh" --quiet "$@"
