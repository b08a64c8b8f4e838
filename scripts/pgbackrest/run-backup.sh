#!/usr/bin/env bash
# Makes a backup of one master now.
set -euo pipefail
# shellcheck source=scripts/pgbackrest/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat >&2 <<USAGE
usage: $0 <imdb-master1|imdb-master2> <full|incr|diff> [options]
  --publish-redis             see that it is in Redis (which happens in any case), and say so
  --redis-key-prefix PREFIX   what the keys begin with (default: pgbackrest)
  --redis-service NAME        the Redis service of the compose deployment
  --redis-command COMMAND     another client to write last: and history: with, such as 'redis-cli -h other'
USAGE
  exit 1
}

[ $# -ge 2 ] || usage
stanza=$1
node=$(node_of "$stanza")
type=$2
shift 2
case $type in
  full | incr | diff) ;;
  *) echo "$0: there is no type '$type'; there are full, incr and diff" >&2; exit 1 ;;
esac

publish=no client=''
while [ $# -gt 0 ]; do
  case $1 in
    --publish-redis) publish=yes; shift; continue ;;
    --redis-key-prefix | --redis-service | --redis-command)
      [ $# -ge 2 ] || { echo "$0: $1 needs a value" >&2; usage; } ;;
    *) echo "$0: unknown option '$1'" >&2; usage ;;
  esac
  case $1 in
    --redis-key-prefix) export BACKUP_KEY_PREFIX=$2 ;;
    --redis-service) redis_service=$2 ;;
    --redis-command) client=$2 ;;
  esac
  shift 2
done

imdb_ha backup run "$node" --type "$type"
[ "$publish" = no ] || imdb_ha backup publish
if [ "$publish" = yes ] && [ -n "$client" ]; then
  prefix=${BACKUP_KEY_PREFIX:-pgbackrest}
  info=$(imdb_ha backup info --raw "$node")
  # The command may have arguments.
  read -r -a command <<<"$client"
  printf '%s' "$info" | "${command[@]}" -x set "$prefix:last:$stanza" >/dev/null
  printf '%s' "$info" | "${command[@]}" -x lpush "$prefix:history:$stanza" >/dev/null
  echo "written with '$client': $prefix:last:$stanza, $prefix:history:$stanza"
fi
