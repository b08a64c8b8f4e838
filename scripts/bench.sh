#!/usr/bin/env bash
# Measures what a failover costs, on a cluster of its own in a temporary folder: real masters with fsync on, one
# curl at a time. Prints the median and the worst of each figure.
#
#   scripts/bench.sh [ROUNDS]     5 rounds by default, at most 50; about 8 s each
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rounds=${1:-5}
[[ $rounds =~ ^[0-9]+$ && $rounds -ge 1 && $rounds -le 50 ]] || { echo "bench: ROUNDS is 1 to 50 (got '$rounds')" >&2; exit 2; }
# shellcheck source=scripts/rust.sh
. scripts/rust.sh
scripts/install.sh
cargo build --release --locked --quiet
binary=$(realpath "${CARGO_TARGET_DIR:-target}/release/imdb-ha")

work=$(mktemp -d)
mkfifo "$work/stdin"
"$binary" local up --ephemeral --json <"$work/stdin" >"$work/state" 2>"$work/log" &
cluster=$!
exec 3>"$work/stdin" # the cluster stops when this is closed, and so with this script
finish() {
  exec 3>&-
  wait "$cluster" || true
  rm -rf "$work"
}
trap finish EXIT
for _ in $(seq 600); do [ -s "$work/state" ] && break; kill -0 "$cluster" 2>/dev/null || { cat "$work/log" >&2; exit 1; }; sleep 0.1; done

field() { sed -E "s/.*\"$1\":\"([^\"]*)\".*/\1/" "$work/state"; }
api=$(field api)
IMDB_HA_DATA=$(sed -E 's/.*"ready":[a-z]+,"data":"([^"]*)".*/\1/' "$work/state")
export IMDB_HA_DATA
url() { sed -E "s/.*\"$1\":\{[^}]*\"url\":\"([^\"]*)\".*/\1/" "$work/state"; }

MASTER1_URL=$(url master1)
MASTER2_URL=$(url master2)
export MASTER1_URL MASTER2_URL

now_ms() { echo $(($(date +%s%N) / 1000000)); }
post() { curl -sS -m 10 -o "$work/answer" -w '%{http_code}' -H 'Content-Type: application/json' -d "{\"genero\": \"$1\"}" "$api/generos" || true; }
note() { echo "$2" >>"$work/$1"; }
until_true() { for _ in $(seq 2000); do "$@" && return; sleep 0.005; done; echo "bench: gave up on: $*" >&2; exit 1; }
posted() { [ "$(post "$1")" = 201 ]; }
switched() { [ "$(curl -sS -o "$work/answer" -w '%{http_code}' -X POST "$api/switch-to-$1")" = 200 ]; }
there() { [ "$(psql "$MASTER2_URL" -Atqc "SELECT count(*) FROM generos WHERE genero = '$1'")" = 1 ]; }

# Time from the fault to the first acknowledged row, and the slowest answer of what needs no master meanwhile.
fault() { # name, what to do to master1, how to undo it
  local before path
  before=$(now_ms)
  "$binary" local "$2" master1 >/dev/null
  until_true posted "$1"
  note "$1" $(($(now_ms) - before))
  for path in /active-node /status /health; do
    note "front" "$(curl -sS -o /dev/null -w '%{time_total}' "$api$path" | awk '{printf "%d", $1 * 1000 + 0.5}')"
  done
  before=$(now_ms)
  "$binary" local "$3" master1 >/dev/null
  until_true switched primary # refused at once for as long as it is down or behind
  note "return after $1" $(($(now_ms) - before))
}

for round in $(seq "$rounds"); do
  row="fila $round"
  [ "$(post "$row")" = 201 ] || { cat "$work/answer" >&2; exit 1; }
  before=$(now_ms)
  until_true there "$row"
  note "row on the other master" $(($(now_ms) - before))
  fault "kill" kill start
  fault "freeze" freeze thaw
  # The way out of master1 is open again within the half second after which its peer reconnects.
  until_true "$binary" replication status --json >"$work/answer"
  for to in secondary primary; do
    before=$(now_ms)
    switched "$to" || { cat "$work/answer" >&2; exit 1; }
    note "handover" $(($(now_ms) - before))
  done
done

show() { # file, words
  sort -n "$work/$1" | awk -v words="$2" '{v[NR] = $1} END {printf "%-58s median %5d ms   worst %5d ms\n", words, v[int((NR + 1) / 2)], v[NR]}'
}
echo "$rounds rounds on $(nproc) cores, $("$binary" --version)"
show "kill" "kill -9 of the active master to the first 201"
show "freeze" "freeze of the active master to the first 201"
show "front" "/active-node, /status, /health while it is dead or frozen"
show "row on the other master" "a posted row to be on the other master"
show "return after kill" "start of the killed master to having the traffic back"
show "return after freeze" "thaw of the frozen master to having the traffic back"
show "handover" "switch-to-secondary, switch-to-primary"
