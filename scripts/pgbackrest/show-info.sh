#!/usr/bin/env bash
# Shows the backups of both masters, or of one.
#
#   show-info.sh [imdb-master1|imdb-master2]
set -euo pipefail
# shellcheck source=scripts/pgbackrest/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[ $# -le 1 ] || { echo "usage: $0 [imdb-master1|imdb-master2]" >&2; exit 1; }
arguments=()
if [ $# -eq 1 ]; then
  node=$(node_of "$1")
  arguments=("$node")
fi
imdb_ha backup info "${arguments[@]}"
