#!/usr/bin/env bash
# Installs what this project needs and the machine lacks, and nothing else. Says what it will do before it does it.
#
#   scripts/install.sh          what `scripts/up.sh` needs: PostgreSQL 16 or newer, pgBackRest, Redis, curl, a linker
#   scripts/install.sh --test   and what `scripts/test.sh` needs beside that: shellcheck, python3, rustfmt, clippy
#   scripts/install.sh --engine and a Docker engine with Compose, for `scripts/test-compose.sh`
#   scripts/install.sh --plan   only prints what it would install
#
# Supported: Debian 12 and 13, Ubuntu 24.04; as root or with sudo. A machine that has everything needs no root.
set -euo pipefail

# PostgreSQL 16 is the first that can leave rows of a foreign origin out of a subscription (origin = none),
# and so the first on which two masters can replicate to each other without a loop.
readonly OLDEST_POSTGRES=16
readonly TRIXIE_SOURCES=/etc/apt/sources.list.d/imdb-ha-trixie.sources
readonly TRIXIE_PREFERENCES=/etc/apt/preferences.d/imdb-ha-trixie

die() {
  echo "install: $*" >&2
  exit 1
}

want_test=no
want_engine=no
plan_only=no
for argument in "$@"; do
  case $argument in
    --test) want_test=yes ;;
    --engine) want_engine=yes ;;
    --plan) plan_only=yes ;;
    *) die "unknown option '$argument'; the options are --test, --engine and --plan" ;;
  esac
done

# --- what is there -------------------------------------------------------------------------------

# The newest PostgreSQL server of this machine, as a major version; nothing when there is none.
newest_postgres() {
  local postgres newest=0 major
  for postgres in /usr/lib/postgresql/*/bin/postgres; do
    [ -x "$postgres" ] || continue
    major=$(basename "${postgres%/bin/postgres}")
    [ "$major" -gt "$newest" ] && newest=$major
  done
  echo "$newest"
}

# The newest PostgreSQL that this pgBackRest backs up. Support came with these releases, by its release notes:
# 2.48 brought PostgreSQL 16, 2.54 brought 17, 2.57 brought 18.
pgbackrest_reaches() {
  local version minor
  version=$(pgbackrest version 2>/dev/null | grep -oE '[0-9]+\.[0-9]+' | head -n 1) || version=0.0
  minor=${version#*.}
  if [ "${version%%.*}" != 2 ]; then echo 0
  elif [ "$minor" -ge 57 ]; then echo 18
  elif [ "$minor" -ge 54 ]; then echo 17
  elif [ "$minor" -ge 48 ]; then echo 16
  else echo 0
  fi
}

system_name() {
  # shellcheck source=/dev/null
  (. /etc/os-release 2>/dev/null && echo "${ID:-unknown}-${VERSION_ID:-unknown}") || echo unknown
}

# --- what is missing -----------------------------------------------------------------------------

system=$(system_name)
# Trixie's libc brings trixie's base-files along, so that Debian 12 calls itself 13 from then on, also when the
# installation broke off half-way. What this script added before tells that it is not one.
[ ! -e "$TRIXIE_SOURCES" ] || system=debian-12
packages=()
use_trixie=no
reasons=()

need() { # package, reason
  packages+=("$1")
  reasons+=("  $1: $2")
}

command -v cc >/dev/null || need gcc "Rust needs a linker"
[ -e /usr/include/stdio.h ] || need libc6-dev "Rust links against the C library"
command -v curl >/dev/null || need curl "the examples are typed with it"

postgres=$(newest_postgres)
reach=0
command -v pgbackrest >/dev/null && reach=$(pgbackrest_reaches)
if [ "$postgres" -lt "$OLDEST_POSTGRES" ] || [ "$reach" -lt "$postgres" ]; then
  case $system in
    debian-12) use_trixie=yes; server=postgresql-17 ;;
    debian-13) server=postgresql-17 ;;
    ubuntu-24.04) server=postgresql-16 ;;
    *) server= ;;
  esac
  [ "$postgres" -ge "$OLDEST_POSTGRES" ] || need "${server:-postgresql}" "the masters; this machine has PostgreSQL ${postgres/#0/none}"
  wanted=$postgres
  [ "$wanted" -ge "$OLDEST_POSTGRES" ] || wanted=${server#postgresql-}
  [ "$reach" -ge "${wanted:-$OLDEST_POSTGRES}" ] || need pgbackrest "backups of PostgreSQL ${wanted:-$OLDEST_POSTGRES}"
fi

command -v redis-server >/dev/null || need redis-server "history and backup catalogue"
components=()
if [ "$want_test" = yes ]; then
  command -v shellcheck >/dev/null || need shellcheck "checks the scripts"
  command -v python3 >/dev/null || need python3 "makes the films that the loader is tested with"
  # Rust belongs to a user: root, who may be asked to install the packages, needs none.
  if command -v cargo >/dev/null; then
    if command -v rustup >/dev/null; then
      cargo fmt --version >/dev/null 2>&1 || components+=(rustfmt)
      cargo clippy --version >/dev/null 2>&1 || components+=(clippy)
    else
      cargo fmt --version >/dev/null 2>&1 || need rustfmt "checks the format; this cargo is the system's own"
      cargo clippy --version >/dev/null 2>&1 || need rust-clippy "checks the code; this cargo is the system's own"
    fi
  fi
fi

if [ "$want_engine" = yes ]; then
  compose=docker-compose
  [ "$system" != ubuntu-24.04 ] || compose=docker-compose-v2
  command -v dockerd >/dev/null || need docker.io "the engine that runs the containers"
  case $system in debian-*) command -v docker >/dev/null || need docker-cli "the command docker" ;; esac
  command -v iptables >/dev/null || need iptables "the engine's networks"
  docker compose version >/dev/null 2>&1 || need "$compose" "docker compose"
  docker buildx version >/dev/null 2>&1 || need docker-buildx "builds the images"
  command -v debootstrap >/dev/null || need debootstrap "makes base images where no registry can be reached"
fi

if [ ${#packages[@]} -eq 0 ] && [ ${#components[@]} -eq 0 ]; then
  echo "install: nothing is missing"
  exit 0
fi

if [ ${#packages[@]} -gt 0 ]; then
  case $system in
    debian-12 | debian-13 | ubuntu-24.04) ;;
    *) die "this is $system, and this script installs on Debian 12, Debian 13 and Ubuntu 24.04 only;" \
      "install by hand and start again: ${packages[*]} (PostgreSQL $OLDEST_POSTGRES or newer)" ;;
  esac
fi

echo "install: this machine ($system) lacks:"
[ ${#reasons[@]} -eq 0 ] || printf '%s\n' "${reasons[@]}"
[ ${#components[@]} -eq 0 ] || printf '  rustup component %s\n' "${components[@]}"
# Debian 12's Compose is the old one, so the engine and its parts come from Debian 13 as well.
case " ${packages[*]} " in
  *" docker"*) [ "$system" != debian-12 ] || use_trixie=yes ;;
esac
if [ "$use_trixie" = yes ]; then
  echo "install: Debian 12's own PostgreSQL and pgBackRest are too old, so both come from Debian 13 (trixie), which is"
  echo "install: added with a low priority; what they need comes with them: libc, libssl, perl and some 15 to 40 packages"
  echo "install: more are upgraded, base-files among them, so /etc/os-release says Debian 13 afterwards"
fi
[ "$plan_only" = no ] || exit 0

# --- install it ----------------------------------------------------------------------------------

as_root=()
if [ ${#packages[@]} -gt 0 ] && [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null ||
    die "installing ${packages[*]} needs root and there is no sudo; run '$0${*:+ $*}' once as root"
  as_root=(sudo)
fi

write_as_root() { # path; content on standard input
  "${as_root[@]}" mkdir -p "$(dirname "$1")"
  "${as_root[@]}" tee "$1" >/dev/null
}

# The addresses that this machine has a suite from, one a line, whichever of the two formats its sources have.
mirror_of() { # suite
  { cat /etc/apt/sources.list.d/*.sources 2>/dev/null || true; } | awk -v suite="$1" '
    function tell() {if (uri != "" && has) print uri; uri = ""; has = 0}
    /^[[:space:]]*$/ || /^Types:/ {tell()}
    /^URIs:/ {uri = $2}
    /^Suites:/ {for (i = 2; i <= NF; i++) if ($i == suite) has = 1}
    END {tell()}'
  { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true; } | awk -v suite="$1" '
    $1 == "deb" {for (i = 2; i < NF; i++) if ($i ~ /^(https?|mirror[^:]*):/ && $(i + 1) == suite) print $i}'
}

add_trixie() {
  local mirror security
  mirror=$(mirror_of bookworm | head -n 1)
  security=$(mirror_of bookworm-security | head -n 1)
  [ -n "$mirror" ] || die "no mirror with Debian 12 (bookworm) found in /etc/apt; add one and start again"
  write_as_root "$TRIXIE_SOURCES" < <(
    cat <<SOURCES
# Added by imdb-ha: PostgreSQL 17 and pgBackRest for Debian 12.
Types: deb
URIs: $mirror
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
    # What has come from trixie gets its security updates from there too.
    [ -z "$security" ] || cat <<SOURCES

Types: deb
URIs: $security
Suites: trixie-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
  )
  # Below 500, so that nothing is taken from trixie unless it is asked for by name. An installed package has 100
  # too, so `apt upgrade` keeps what came from trixie up to date.
  write_as_root "$TRIXIE_PREFERENCES" <<'PREFERENCES'
Package: *
Pin: release n=trixie
Pin-Priority: 100

Package: *
Pin: release n=trixie-security
Pin-Priority: 100
PREFERENCES
}

# Debian's packages start servers of their own on 5432 and 6379, the ports of this project. For the time of the
# installation a policy forbids it, and PostgreSQL's package is told to create no cluster.
policy=/usr/sbin/policy-rc.d
remove_policy=no
forbid_services() {
  write_as_root /etc/postgresql-common/createcluster.d/imdb-ha.conf <<<"create_main_cluster = false"
  # One of our own is here when an earlier installation was killed.
  [ ! -e "$policy" ] || grep -q imdb-ha "$policy" || return 0
  remove_policy=yes
  printf '#!/bin/sh\n# imdb-ha, while it installs\nexit 101\n' | write_as_root "$policy"
  "${as_root[@]}" chmod 755 "$policy"
}
allow_services() {
  [ "$remove_policy" = no ] || "${as_root[@]}" rm -f "$policy"
}

if [ ${#packages[@]} -gt 0 ]; then
  log=$(mktemp)
  trap 'allow_services; rm -f "$log"' EXIT
  [ "$use_trixie" = no ] || add_trixie
  forbid_services
  run() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "$@" >>"$log" 2>&1 </dev/null || {
      tail -n 20 "$log" >&2
      die "'$*' failed; its last lines are above"
    }
  }
  started=$SECONDS
  echo "install: installing, which takes a minute or two"
  run apt-get update
  # A machine that has just booted may be upgrading itself.
  apt_install=(apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300)
  target=()
  [ ! -e "$TRIXIE_SOURCES" ] || target=(-t trixie)
  # Packages of the machine's own suite first. From the newer one, where there is one, come PostgreSQL, pgBackRest and
  # what must fit a cargo of 1.85 or newer.
  own=() newer=()
  for package in "${packages[@]}"; do
    case $package in postgresql* | pgbackrest | rust* | docker*) newer+=("$package") ;; *) own+=("$package") ;; esac
  done
  if [ -n "$(dpkg --audit)" ]; then
    echo "install: an earlier installation was interrupted and is completed first"
    # What it cannot configure, for want of a package, the line after it completes.
    (run dpkg --configure -a) 2>/dev/null || true
    run "${apt_install[@]}" "${target[@]}" --fix-broken
  fi
  [ ${#own[@]} -eq 0 ] || run "${apt_install[@]}" "${own[@]}"
  # The package enables its service for the next boot, and that Redis would take port 6379.
  case " ${own[*]} " in
    *" redis-server "*) run update-rc.d redis-server disable ;;
  esac
  [ ${#newer[@]} -eq 0 ] || run "${apt_install[@]}" "${target[@]}" "${newer[@]}"
  # apt ends well when a Ctrl-C ends the dpkg that it waits for, so ask what has become of the packages.
  for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] ||
      die "the installation of $package was interrupted; start again"
  done
  echo "install: installed ${packages[*]} in $((SECONDS - started)) s"
fi
[ ${#components[@]} -eq 0 ] || rustup component add "${components[@]}"
