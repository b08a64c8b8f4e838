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

# The project's folder, which has the compose file: the scripts may be called from anywhere.
project=$(dirname "${BASH_SOURCE[0]}")/../..
place='' redis_service=''

binary() {
  local found
  for found in "${IMDB_HA_BIN:-}" "${CARGO_TARGET_DIR:-$project/target}/release/imdb-ha" "$(command -v imdb-ha || true)"; do
    [ ! -x "$found" ] || { realpath "$found"; return; }
  done
}

# Compose, as a part of docker or as the program of its own that it once was. Nothing here reads standard input.
compose() { # arguments
  if docker compose version >/dev/null 2>&1; then
    (cd "$project" && docker compose "$@" </dev/null)
  elif command -v docker-compose >/dev/null; then
    (cd "$project" && docker-compose "$@" </dev/null)
  else
    return 1
  fi
}

# Where the masters are: `here` on the local cluster, which comes first since whoever has started one means it; `compose` when the
# API runs as the manual's service; `elsewhere` when only a binary is there, whose settings say it; or nothing.
where_it_runs() {
  local here id
  here=$(binary)
  if [ -n "$here" ] && "$here" local status >/dev/null 2>&1; then
    echo here
  elif id=$(compose ps --status running --quiet imdb-api 2>/dev/null) && [ -n "$id" ]; then
    echo compose
  elif [ -n "$here" ]; then
    echo elsewhere
  fi
}

# With `redis_service` set, that is the Redis inside the containers' network; elsewhere no service is a host.
imdb_ha() { # arguments
  [ -n "$place" ] || place=$(where_it_runs)
  case $place in
    here | elsewhere) "$(binary)" "$@" ;;
    compose)
      # A REDIS_URL of the caller's means another network than the containers', and may hold a password.
      compose exec -T ${BACKUP_KEY_PREFIX:+-e "BACKUP_KEY_PREFIX=$BACKUP_KEY_PREFIX"} \
        ${redis_service:+-e "REDIS_URL=redis://$redis_service:6379"} imdb-api imdb-ha "$@"
      ;;
    *)
      echo "$0: nothing runs here: start the local cluster with scripts/up.sh, or the containers with docker compose up" >&2
      exit 1
      ;;
  esac
}
