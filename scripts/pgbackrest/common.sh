# shellcheck shell=bash
# Sourced by the scripts beside it. Runs `imdb-ha` where the masters are: on the local cluster of this machine, or inside
# the container of the API when that is what runs. IMDB_HA_BIN names another binary.

# The stanza's master; says what is wrong with any other word, and ends.
node_of() { # stanza
  case $1 in
    imdb-master1) echo master1 ;;
    imdb-master2) echo master2 ;;
    *)
      echo "$0: there is no stanza '$1'; there are imdb-master1 and imdb-master2" >&2
      exit 1
      ;;
  esac
}

binary() {
  local root found
  root=$(dirname "${BASH_SOURCE[0]}")/../..
  for found in "${IMDB_HA_BIN:-}" "${CARGO_TARGET_DIR:-$root/target}/release/imdb-ha" "$(command -v imdb-ha || true)"; do
    [ ! -x "$found" ] || { echo "$found"; return; }
  done
}

# Whether the API runs as the manual's compose service.
in_compose() {
  command -v docker >/dev/null || return 1
  local id
  id=$(docker compose ps --status running --quiet imdb-api 2>/dev/null) && [ -n "$id" ]
}

imdb_ha() { # arguments
  local here
  here=$(binary)
  # A local cluster that runs comes first: whoever has started one means it.
  if [ -n "$here" ] && "$here" local status >/dev/null 2>&1; then
    "$here" "$@"
  elif in_compose; then
    # The settings of the caller count inside as well.
    docker compose exec -T ${BACKUP_KEY_PREFIX:+-e "BACKUP_KEY_PREFIX=$BACKUP_KEY_PREFIX"} \
      ${REDIS_URL:+-e "REDIS_URL=$REDIS_URL"} imdb-api imdb-ha "$@"
  elif [ -n "$here" ]; then
    "$here" "$@"
  else
    echo "$0: nothing runs here: start the local cluster with scripts/up.sh, or the containers with docker compose up" >&2
    exit 1
  fi
}
