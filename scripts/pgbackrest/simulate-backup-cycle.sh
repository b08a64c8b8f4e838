#!/usr/bin/env bash
# Makes the manual's six days of backups one after the other, nine in all, with five rows before each.
#
#   simulate-backup-cycle.sh [imdb-master1|imdb-master2]
set -euo pipefail
# shellcheck source=scripts/pgbackrest/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[ $# -le 1 ] || { echo "usage: $0 [imdb-master1|imdb-master2]" >&2; exit 1; }
node=$(node_of "${1:-imdb-master1}")
imdb_ha backup cycle "$node"
