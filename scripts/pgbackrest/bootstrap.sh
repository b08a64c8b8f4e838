#!/usr/bin/env bash
# Sees that both masters can be backed up: their stanzas are there, and WAL reaches the repositories. A cluster that was
# started here needs none of it, since the stanzas are made before its first start; repeating it changes nothing.
set -euo pipefail
# shellcheck source=scripts/pgbackrest/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[ $# -eq 0 ] || { echo "usage: $0" >&2; exit 1; }
imdb_ha backup bootstrap
