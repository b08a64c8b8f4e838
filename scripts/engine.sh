#!/usr/bin/env bash
# Sees that a Docker engine with Compose answers, and that the base images of this project are there. Where there is no engine it installs
# and starts one, as root; where no registry can be reached it makes the images from Debian's packages.
#
#   scripts/engine.sh        exit code 3 when no engine can be had here, with the reason
#   scripts/engine.sh down   stops the engine that this script has started
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
readonly STATE=/run/imdb-ha-engine

none() {
  echo "engine: there is no Docker engine here and none can be had: $*" >&2
  exit 3
}

answers() { timeout 20 docker info >/dev/null 2>&1; }

start() {
  [ "$(id -u)" -eq 0 ] || none "starting one needs root"
  "$here/install.sh" --engine || none "it cannot be installed"
  mkdir -p "$STATE"
  echo "engine: starting dockerd, whose log is $STATE/log"
  setsid dockerd >"$STATE/log" 2>&1 </dev/null &
  echo $! >"$STATE/pid"
  for _ in $(seq 60); do
    ! answers || return 0
    [ -e "/proc/$(cat "$STATE/pid")" ] || break
    sleep 0.5
  done
  tail -n 5 "$STATE/log" >&2
  rm -f "$STATE/pid"
  none "dockerd does not come up"
}

# The address that this machine has its own packages from; Ubuntu's has no Debian.
mirror() {
  { cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true; } |
    awk '$1 == "URIs:" {print $2; exit} $1 == "deb" {for (i = 2; i < NF; i++) if ($i ~ /^https?:/) {print $i; exit}}'
}

make_debian() {
  local root; root=$(mktemp -d)
  debootstrap --variant=minbase --include=ca-certificates trixie "$root" "$(mirror)" >/dev/null
  # A machine behind a proxy of its own trusts what others do not.
  cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/" 2>/dev/null || true
  chroot "$root" update-ca-certificates >/dev/null 2>&1
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
  tar -C "$root" -c . | docker import - debian:trixie-slim >/dev/null
  rm -rf "$root"
}

make_redis() {
  docker build --quiet -t redis:8-alpine - >/dev/null <<'DOCKERFILE'
FROM debian:trixie-slim
RUN apt-get update && apt-get install -y --no-install-recommends redis-server && rm -rf /var/lib/apt/lists/*
WORKDIR /data
CMD ["redis-server", "--protected-mode", "no"]
DOCKERFILE
}

image() { # name, function that makes it
  ! docker image inspect "$1" >/dev/null 2>&1 || return 0
  echo "engine: fetching $1"
  ! timeout 120 docker pull --quiet "$1" >/dev/null 2>&1 || return 0
  echo "engine: no registry has it; making it from Debian's packages"
  # In a shell of its own, which ends at its first failure: as a condition it would go on.
  (set -e; "$2") &
  wait $! || none "$1 cannot be had from a registry, nor be made here"
}

# An engine that runs no container, or whose containers reach nobody, builds nothing.
works() {
  local said
  said=$(timeout 180 docker run --rm debian:trixie-slim apt-get -qq update 2>&1) ||
    none "a container cannot fetch Debian's packages: $(tail -n 1 <<<"$said")"
}

case ${1:-up} in
  up)
    answers || start
    if ! docker compose version >/dev/null 2>&1 && [ "$(id -u)" -eq 0 ]; then "$here/install.sh" --engine || true; fi
    docker compose version >/dev/null 2>&1 || none "it has no 'docker compose'"
    image debian:trixie-slim make_debian
    works
    image redis:8-alpine make_redis
    ;;
  down)
    # It may have ended by itself.
    [ ! -e "$STATE/pid" ] || kill "$(cat "$STATE/pid")" || true
    rm -f "$STATE/pid"
    ;;
  *) echo "usage: $0 [down]" >&2; exit 2 ;;
esac
