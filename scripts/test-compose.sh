#!/usr/bin/env bash
# Tests the containers on a real engine: builds and starts them from this folder, tries what the manual's sections 3.6, 4.2, 4.3, 5, 6, 9
# and 12 promise command by command, strikes them, and removes everything again, its own volumes included. A line for each step.
#
#   scripts/test-compose.sh          everything
#   scripts/test-compose.sh --keep   and leaves the containers running, to look at
#
# It refuses while containers of this name are there: they may be somebody's, and names are fixed. Ports are not: it takes free ones, so
# that another PostgreSQL on 5432 does not keep it from running.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

keep=no
case ${1:-} in
  '') ;;
  --keep) keep=yes ;;
  *) echo "usage: $0 [--keep]" >&2; exit 2 ;;
esac

# A project of its own has volumes of its own. What a .env here says is for its owner's deployment.
export COMPOSE_PROJECT_NAME=imdb-ha-test COMPOSE_DISABLE_ENV_FILE=1
# So does what stands in its caller's environment.
for variable in $(grep -oE '\$\{[A-Z0-9_]+' docker-compose.yml | tr -d '{$' | sort -u); do unset "$variable"; done

# Four ports on which nobody listens, below those that the kernel gives to clients.
free_ports() {
  local found=() port
  while [ ${#found[@]} -lt 4 ]; do
    port=$((20000 + RANDOM % 10000))
    [[ " ${found[*]} " != *" $port "* ]] || continue
    ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || continue
    found+=("$port")
  done
  echo "${found[@]}"
}
read -r API_PORT MASTER1_PORT MASTER2_PORT REDIS_PORT < <(free_ports)
export API_PORT MASTER1_PORT MASTER2_PORT REDIS_PORT
readonly API=http://127.0.0.1:$API_PORT
readonly TOKEN='Authorization: Bearer imdb-ha-example-token'
readonly JSON='Content-Type: application/json'
readonly CONTAINERS=(imdb-master1 imdb-master2 imdb-redis imdb-api)

docker info >/dev/null 2>&1 || { echo "test-compose: no Docker engine answers; scripts/engine.sh starts one" >&2; exit 1; }
there=$(docker ps --all --quiet --filter name='^/(imdb-master[12]|imdb-redis|imdb-api|replication-setup)$')
[ -z "$there" ] || { echo "test-compose: containers of this name are there already; docker compose down removes them and keeps their volumes" >&2; exit 1; }

work=$(mktemp -d)
# The scripts of the backups mean the containers, and not a local cluster that may run here as well.
export IMDB_HA_DATA=$work/none
finish() {
  if [ "$keep" = yes ]; then
    echo "kept: COMPOSE_PROJECT_NAME=$COMPOSE_PROJECT_NAME docker compose down --volumes"
  else
    docker compose down --volumes --timeout 20 >/dev/null 2>&1
  fi
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

passed=0 failed=()
# Runs one step; what it prints is shown when it fails.
step() { # what is true, function with arguments
  local what=$1 began=$SECONDS code
  shift
  # Not as a condition, in which the shell would ignore that a step is to end at its first failure.
  (set -e; "$@") >"$work/step" 2>&1
  code=$?
  if [ "$code" -eq 0 ]; then
    passed=$((passed + 1))
    echo "ok      $what ($((SECONDS - began)) s)"
  else
    failed+=("$what")
    echo "FAILED  $what ($((SECONDS - began)) s)"
    tail -n 30 "$work/step" | sed 's/^/        /'
  fi
}

# Runs a command that must succeed and say something; what it said instead is printed.
expect() { # pattern, command...
  local pattern=$1 said
  shift
  said=$("$@" 2>&1 </dev/null) || { echo "'$*' failed: $said"; return 1; }
  grep -qE -- "$pattern" <<<"$said" || { echo "'$*' does not say $pattern: $said"; return 1; }
}

sql() { docker exec "$1" psql -U root -d bases2-db -Atqc "$2"; } # container, statement
imdb_ha() { docker compose exec -T imdb-api imdb-ha "$@"; }
answer() { curl -sS --max-time 15 -w ' %{http_code}' "$@" | tr -d '\n'; } # curl's arguments; the body and the status on one line
post() { answer -H "$JSON" -d "$2" "$API$1"; }
order() { answer -X POST -H "$TOKEN" "$API$1"; }

is_healthy() {
  local name
  for name in "${CONTAINERS[@]}"; do
    [ "$(docker inspect -f '{{.State.Health.Status}}' "$name")" = healthy ] || return 1
  done
  curl -s --max-time 2 "$API/health" | grep -q '"durability":"zero-loss"'
}

healthy_within() { # seconds
  local until=$((SECONDS + $1))
  until is_healthy; do
    [ "$SECONDS" -lt "$until" ] || { docker compose ps --all; curl -s --max-time 2 "$API/status"; return 1; }
    sleep 0.3
  done
}

# --- the steps -----------------------------------------------------------------------------------

# Without a .env, and with each line of the example in use.
config_is_clean() {
  local said
  sed -E "s/^#([A-Z_]+=)/\\1/" .env.example >"$work/env"
  grep -q '^ADMIN_TOKEN=' "$work/env"
  said=$(docker compose config --quiet 2>&1; docker compose --env-file "$work/env" config --quiet 2>&1)
  [ -z "$said" ] || { echo "$said"; return 1; }
  expect 'MASTER_SETTINGS: shared_buffers=2GB .*maintenance_work_mem=512MB$' docker compose --env-file "$work/env" config
  # The ports of the manual, unless others are wanted.
  published "$API_PORT" "$MASTER1_PORT" "$MASTER2_PORT" "$REDIS_PORT"
  unset API_PORT MASTER1_PORT MASTER2_PORT REDIS_PORT
  published 5000 5432 5433 6379
}

published() { # the ports of this machine in docker-compose.yml: of the API, both masters and Redis
  local said
  said=$(docker compose config | sed -nE 's/^ +published: "?([0-9]+)"?$/\1/p' | sort -n | xargs)
  [ "$said" = "$(printf '%s\n' "$@" | sort -n | xargs)" ] || { echo "published are $said, and not $*"; return 1; }
}

up() { docker compose up --detach --build --wait --wait-timeout 900; }

images_are_small() {
  local api master
  api=$(($(docker image inspect -f '{{.Size}}' imdb-ha) / 1000000))
  master=$(($(docker image inspect -f '{{.Size}}' imdb-ha-master) / 1000000))
  echo "imdb-ha $api MB, imdb-ha-master $master MB"
  [ "$api" -lt 120 ] && [ "$master" -lt 450 ]
}

containers_are_narrow() {
  expect '^999:999 true \[ALL\]$' docker inspect -f '{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}}' imdb-api
  expect '^postgres \[ALL\]$' docker inspect -f '{{.Config.User}} {{.HostConfig.CapDrop}}' imdb-master1
  ! docker exec imdb-api ls / || return 1
}

replication() { # section 3.6
  local node peer
  for node in 1 2; do
    peer=$((3 - node))
    expect "^sub_from_master$peer\|t\|slot_${peer}_to_$node\$" sql "imdb-master$node" 'SELECT subname, subenabled, subslotname FROM pg_subscription'
    expect '^pub_imdb$' sql "imdb-master$node" 'SELECT pubname FROM pg_publication'
    expect "^slot_${node}_to_$peer\|logical\|t\|" sql "imdb-master$node" 'SELECT slot_name, slot_type, active, restart_lsn FROM pg_replication_slots'
    expect "sub_from_master$peer" sql "imdb-master$node" 'SELECT * FROM pg_stat_subscription'
  done
  expect 'both directions are streaming' imdb_ha replication status
}

endpoints() { # section 6
  expect '"genero":"Telenovela"}.*"node_used":"master[12]"} 201$' post /generos '{"genero": "Telenovela"}'
  expect '"id_genero":9001.* 201$' post /generos '{"id_genero": 9001, "genero": "Radionovela"}'
  expect ' 409$' post /generos '{"id_genero": 9001, "genero": "Radionovela"}'
  expect "'genero'.* 400\$" post /generos '{"genero": " "}'
  expect '"ok":true,"active_node":"master[12]".* 200$' answer "$API/health"
  expect '"active_node":"master[12]"} 200$' answer "$API/active-node"
  expect ' 401$' answer -X POST "$API/switch-to-secondary"
  expect '"active_node":"master2"} 200$' order /switch-to-secondary
  expect '"node_used":"master2"} 201$' post /generos '{"genero": "Fotonovela"}'
  expect '"active_node":"master1"} 200$' order /switch-to-primary
}

# The first start has loaded the sample; what the manual has a web page for is one request, and the program in the container has the same command.
films() {
  local job
  expect '"titulo_principal":.* 200$' answer "$API/titulos/tt0078788"
  expect '333104 loaded \+ 2 rejected' imdb_ha load /usr/share/imdb-ha/sample
  printf 'tconst\taverageRating\tnumVotes\ntt0078788\t8.4\t700000\n' >"$work/title.ratings.tsv"
  expect ' 401$' answer -X POST -T "$work/title.ratings.tsv" "$API/load"
  job=$(curl -sS --max-time 15 -X POST -H "$TOKEN" -T "$work/title.ratings.tsv" "$API/load" | grep -oE '"id":[0-9]+' | grep -oE '[0-9]+')
  for _ in $(seq 60); do
    curl -s "$API/load/$job" | grep -q '"state":"running"' || break
    sleep 0.5
  done
  expect '"state":"done".*"rows_loaded":1,' curl -s "$API/load/$job"
  expect '"votos":700000.* 200$' answer "$API/titulos/78788"
  imdb_ha compare
}

# The API makes the first backups by itself, and a pgBackRest of one's own does not wait for it.
first_backups() {
  local until=$((SECONDS + 120)) said=''
  until said=$(curl -s --max-time 5 "$API/backups") && grep -q '"running":null' <<<"$said" &&
    grep -q '"type":"full","stanza":"imdb-master1"' <<<"$said" && grep -q '"type":"full","stanza":"imdb-master2"' <<<"$said"; do
    [ "$SECONDS" -lt "$until" ] || { echo "no first backups: $said"; return 1; }
    sleep 0.5
  done
}

backups() { # section 4.2
  local type
  first_backups
  for type in full diff incr; do
    docker exec imdb-master1 pgbackrest --stanza=imdb-master1 "--type=$type" backup
    expect "$type backup: " docker exec imdb-master1 pgbackrest --stanza=imdb-master1 info
  done
}

restores() { # section 4.3
  local label moment
  docker compose exec -T imdb-api imdb-ha backup run master1 --type full --json >"$work/run"
  label=$(grep -oE '[0-9]{8}-[0-9]{6}F' "$work/run" | head -n 1)
  expect ' 201$' post /generos '{"id_genero": 9101, "genero": "Before"}'
  sleep 1.1
  moment=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  sleep 1.1
  expect ' 200$' answer -X DELETE "$API/generos/9101"
  imdb_ha backup restore master1 --to "$moment" --yes
  expect '"Before".* 200$' answer "$API/generos/9101"
  imdb_ha backup restore master1 --set "$label" --yes
  expect ' 404$' answer "$API/generos/9101"
  # To the end of all that is archived.
  imdb_ha backup restore master2 --yes
  imdb_ha compare
  healthy_within 30
}

catalogue() { # section 5
  local type fields
  for type in full diff incr; do
    fields=$(docker exec imdb-redis redis-cli get "pgbackrest:latest:$type")
    for field in timestamp type stanza location size_bytes size_human duration_seconds status master; do
      grep -q "\"$field\":" <<<"$fields" || { echo "pgbackrest:latest:$type lacks $field: $fields"; return 1; }
    done
  done
  expect 'pgbackrest:backup:' docker exec imdb-redis redis-cli --scan --pattern 'pgbackrest:backup:*'
}

scripts() { # section 9
  scripts/pgbackrest/bootstrap.sh
  scripts/pgbackrest/run-backup.sh imdb-master2 incr --publish-redis --redis-service redis
  expect 'master2' scripts/pgbackrest/show-info.sh imdb-master2
  expect 'master1' scripts/pgbackrest/show-info.sh
  scripts/pgbackrest/run-backup.sh imdb-master2 incr --publish-redis --redis-key-prefix mine --redis-command 'docker exec -i imdb-redis redis-cli'
  expect 'imdb-master2' docker exec imdb-redis redis-cli get mine:latest:incr
  expect '^[1-9]' docker exec imdb-redis redis-cli llen mine:history:imdb-master2
  scripts/pgbackrest/simulate-backup-cycle.sh
  expect '"day":6|"day": 6' docker exec imdb-redis redis-cli get pgbackrest:simple:day6:imdb-master1
}

logs() { # section 12
  expect 'database system is ready' docker logs imdb-master1
  expect 'database system is ready' docker logs imdb-master2
  expect 'backup command end' docker exec imdb-master1 cat /var/log/pgbackrest/imdb-master1-backup.log
  expect 'listens on' docker logs imdb-api
  expect 'total_commands_processed' docker exec imdb-redis redis-cli INFO stats
  (timeout 3 docker exec imdb-redis redis-cli MONITOR || true) | grep -q OK
}

restarts() { docker inspect -f '{{.RestartCount}}' "$1"; } # container

# Until the engine has seen the end, all looks as well as before.
restarted_and_healthy() { # container, its restarts before
  local until=$((SECONDS + 30))
  until [ "$(restarts "$1")" -gt "$2" ]; do
    [ "$SECONDS" -lt "$until" ] || { echo "$1 was not started again"; return 1; }
    sleep 0.1
  done
  healthy_within 30
}

# The main process of a container dies, as by a fault of its own or for want of memory: the engine starts it again.
crashes() {
  local name count
  for name in "${CONTAINERS[@]}"; do
    count=$(restarts "$name")
    # On the engine's own machine, wherever that is. With this one right and no other: an engine that lacks a capability of its own
    # refuses a container all of them.
    docker run --rm --pid host --cap-drop ALL --cap-add KILL debian:trixie-slim sh -c "kill -9 $(docker inspect -f '{{.State.Pid}}' "$name")"
    restarted_and_healthy "$name" "$count"
  done
  # A server that dies under its launcher.
  count=$(restarts imdb-master1)
  docker exec imdb-master1 sh -c 'kill -9 $(head -n 1 /var/lib/imdb-ha/master1/data/postmaster.pid)'
  restarted_and_healthy imdb-master1 "$count"
}

# A master whose volume is lost is rebuilt from the other one, which serves meanwhile.
lost_volume() {
  expect ' 201$' post /generos '{"genero": "Survivor"}'
  docker compose rm --stop --force imdb-master2
  docker volume rm "${COMPOSE_PROJECT_NAME}_imdb_master2_data" 2>/dev/null || {
    # The API has it mounted.
    docker compose rm --stop --force imdb-api
    docker volume rm "${COMPOSE_PROJECT_NAME}_imdb_master2_data"
  }
  docker compose up --detach --wait --wait-timeout 300
  expect '"active_node":"master1".*"degraded"' answer "$API/health"
  # Writes go on while it is rebuilt, and are there in the end.
  # If the rebuilding fails, nobody says that it has ended.
  (for _ in $(seq 1200); do
    [ ! -e "$work/rebuilt" ] || break
    post /generos '{"genero": "Meanwhile"}'
    echo
    sleep 0.05
  done) >"$work/meanwhile" &
  imdb_ha rejoin master2 --yes
  touch "$work/rebuilt"
  wait
  ! grep -v ' 201$' "$work/meanwhile" || return 1
  expect "^$(wc -l <"$work/meanwhile")\$" sql imdb-master2 "SELECT count(*) FROM generos WHERE genero = 'Meanwhile'"
  imdb_ha compare
  healthy_within 30
}

down_and_up() {
  local sums before node
  sums='SELECT (SELECT sum(pg_catalog.hashtextextended(g::text, 0)) FROM generos AS g), (SELECT count(*) FROM titulos)'
  before=$(sql imdb-master1 "$sums")
  docker compose down
  docker compose up --detach --wait --wait-timeout 300
  healthy_within 30
  for node in imdb-master1 imdb-master2; do
    [ "$(sql "$node" "$sums")" = "$before" ] || { echo "$node: before $before, after $(sql "$node" "$sums")"; return 1; }
  done
  expect '^[1-9]' docker exec imdb-redis redis-cli llen imdb-ha:history
  expect 'full backup' docker exec imdb-master1 pgbackrest --stanza=imdb-master1 info
}

example_secrets_stay_home() {
  local said
  if said=$(API_ADDRESS=0.0.0.0 timeout 60 docker compose run --rm --no-deps imdb-api 2>&1); then echo "it serves: $said"; return 1; fi
  grep -q 'ADMIN_TOKEN: is the one of the example' <<<"$said" || { echo "$said"; return 1; }
  if said=$(DATABASE_ADDRESS=0.0.0.0 timeout 60 docker compose run --rm --no-deps imdb-master1 2>&1); then echo "it serves: $said"; return 1; fi
  grep -q 'POSTGRES_PASSWORD' <<<"$said" || { echo "$said"; return 1; }
  if said=$(DATABASE_ADDRESS=0.0.0.0 POSTGRES_PASSWORD=another timeout 60 docker compose run --rm --no-deps imdb-master1 2>&1); then echo "it serves: $said"; return 1; fi
  grep -q 'REPLICATION_PASSWORD' <<<"$said" || { echo "$said"; return 1; }
}

began=$SECONDS
step "docker compose config has no warning" config_is_clean
step "docker compose up --build --wait ends healthy" up
[ ${#failed[@]} -eq 0 ] || { docker compose logs --tail 20; echo "$passed passed, ${#failed[@]} failed"; exit 1; }
step "the images are small: $(images_are_small)" images_are_small
step "the containers may do little" containers_are_narrow
step "writes are safe on both masters" healthy_within 30
step "3.6: the replication is as the manual shows it" replication
step "6: the endpoints" endpoints
step "the films: the first start, a load, and a file over HTTP" films
step "4.2: backups by hand, of each type" backups
step "4.3: both masters taken back, to a moment and to a backup" restores
step "9: the scripts" scripts
step "5: the catalogue in Redis" catalogue
step "12: the logs" logs
step "what crashes is started again and gets well by itself" crashes
step "a lost volume is rebuilt while the other master serves" lost_volume
step "down and up keep everything" down_and_up
step "the secrets of the example are not published" example_secrets_stay_home
step "chaos: each kind of fault once, and nothing is lost" scripts/chaos.sh --on compose
grep -E '^[a-z]+-[a-z]+ |acknowledged' "$work/step" | sed 's/^/        /'
step "everything is well in the end" healthy_within 30
[ ${#failed[@]} -eq 0 ] || printf 'failed: %s\n' "${failed[@]}"
echo "$passed passed, ${#failed[@]} failed in $((SECONDS - began)) s"
[ ${#failed[@]} -eq 0 ]
