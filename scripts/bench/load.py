#!/usr/bin/env python3
"""The measuring of scripts/bench-load.sh, which builds the program and starts this. Python's standard library only.

Each round does everything once, one after the other, and each starts when both masters have written out and received what
came before. Every result is checked before its time counts: what is read, or is in the tables, must be all rows of the files.
"""

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
GENERATOR = os.path.join(HERE, "imdb_data.py")
SEED = 1
IMDB_SQLITE = "imdb-sqlite==2.1.0"

# The file, and the columns of the bare table that takes it as it is.
FILES = {
    "name.basics": "nconst primaryName birthYear deathYear primaryProfession knownForTitles",
    "title.basics": "tconst titleType primaryTitle originalTitle isAdult startYear endYear runtimeMinutes genres",
    "title.akas": "titleId ordering title region language types attributes isOriginalTitle",
    "title.crew": "tconst directors writers",
    "title.episode": "tconst parentTconst seasonNumber episodeNumber",
    "title.principals": "tconst ordering nconst category job characters",
    "title.ratings": "tconst averageRating numVotes",
}
# The file that imdb-sqlite leaves out.
NOT_IN_SQLITE = "title.crew"
# The films' tables that the files become.
TABLES = [
    "titulos", "personas", "episodios", "titulo_genero", "participaciones", "titulo_director",
    "titulo_escritor", "persona_profesion", "persona_conocida", "titulos_alternos",
]
# What a session with an origin writes is not decoded for the other master. So psql has the master for itself, which it would not
# have otherwise, although nobody subscribes to its tables.
ORIGIN = "bench_load"
WITH_ORIGIN = f"SELECT pg_replication_origin_session_setup('{ORIGIN}')"

# The most that anything may take: this, and the time at this many rows a second.
PATIENCE = 120
SLOWEST = 8_000
# What the masters' WAL may take, and what their tables, SQLite's file and the files need for each row, in bytes.
ROOM = 8_000_000_000
ROOM_OF_ROW = 800
ROWS_PER_PRINCIPAL = 2.1

GOALS = {
    "copy": ("least", 0.7), "sqlite": ("least", 4.0), "both": ("most", 2.2),
    "memory": ("most", 200.0), "half": ("most", 1.1),
}


class Failed(Exception):
    """What makes the whole run worthless."""


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def run(command, seconds, environment=None):
    """Runs a command to its end, at most so long. Returns its time in s, its peak resident memory in MB, and its output."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        began = time.monotonic()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors,
            env={**os.environ, **(environment or {})}, start_new_session=True,
        )
        late = threading.Event()

        def stop():
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            timer.cancel()
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        took = time.monotonic() - began
        output.seek(0), errors.seek(0)
        out, err = output.read().decode(errors="replace"), errors.read().decode(errors="replace")
    if process.returncode:
        why = f"had not ended after {seconds:.0f} s" if late.is_set() else f"ended with {process.returncode}"
        raise Failed(f"{command[0]} {why}: {' '.join(command[1:])[:200]}\n{(out + err)[-2000:]}")
    return took, usage.ru_maxrss / 1024, out + err


class Cluster:
    """Two joined masters in a temporary folder, gone when their standard input is closed, and so with this program."""

    def __init__(self, binary, log):
        self.process = subprocess.Popen(
            [binary, "local", "up", "--ephemeral", "--no-api", "--json"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
        )
        timer = threading.Timer(PATIENCE, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        if not line:
            self.end()
            raise Failed(f"the cluster did not start; see {log.name}")
        state = json.loads(line)
        self.urls = [state["masters"][node]["url"] for node in ("master1", "master2")]
        self.environment = {"MASTER1_URL": self.urls[0], "MASTER2_URL": self.urls[1], "IMDB_HA_DATA": state["data"]}

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            say(f"the cluster, process {self.process.pid}, has not ended yet")

    def sql(self, which, *statements, seconds=PATIENCE):
        arguments = [part for statement in statements for part in ("-c", statement)]
        return run(["psql", self.urls[which], "-XqAt", "-v", "ON_ERROR_STOP=1", *arguments], seconds)[2].strip()

    def stop_archiving(self):
        """Takes WAL for archived. pgBackRest compresses it in the background, and would do so into the next measurement."""
        for which in (0, 1):
            self.sql(which, "ALTER SYSTEM SET archive_command = 'true'", "SELECT pg_reload_conf()")

    def settle(self):
        """Waits until nothing that came before has work left on either master."""
        self.sql(0, "SET client_min_messages = error", "DROP SCHEMA IF EXISTS bench CASCADE", "CREATE SCHEMA bench")
        for which in (0, 1):
            self.sql(which, "CHECKPOINT", seconds=PATIENCE * 5)
        deadline = time.monotonic() + PATIENCE * 5
        for which in (0, 1):
            now = self.sql(which, "SELECT pg_current_wal_lsn()")
            behind = f"SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn < '{now}'"
            while self.sql(which, behind) != "0":
                if time.monotonic() > deadline:
                    raise Failed(f"the other master has not received what master{which + 1} sends")
                time.sleep(0.2)


class Data:
    """The files of one size, made once and kept."""

    def __init__(self, cache, principals):
        with open(GENERATOR, "rb") as generator:
            version = hashlib.sha256(generator.read()).hexdigest()[:8]
        self.folder = os.path.join(cache, f"{principals}-principals-seed-{SEED}-{version}")
        manifest = f"{self.folder}.json"
        if not os.path.exists(manifest):
            say(f"making {principals} principals and the rest in {self.folder}")
            # A key that comes twice is left out: imdb-sqlite gives up at the first.
            command = [sys.executable, GENERATOR, "--principals", str(principals), "--seed", str(SEED), "--duplicates", "0"]
            took, _, out = run([*command, "--out", self.folder], PATIENCE + principals * ROWS_PER_PRINCIPAL / SLOWEST)
            say(f"made in {took:.1f} s")
            with open(f"{manifest}.part", "w") as file:
                file.write(out)
            os.replace(f"{manifest}.part", manifest)
        with open(manifest) as file:
            self.rows = {made["file"].removesuffix(".tsv.gz"): made["rows"] for made in json.load(file)["files"]}
        self.all_rows = sum(self.rows.values())
        self.patience = PATIENCE + self.all_rows / SLOWEST

    def path(self, name):
        return os.path.join(self.folder, f"{name}.tsv.gz")

    def warm(self):
        """Reads all files, so that nobody is the first to wait for the disk."""
        for name in FILES:
            with open(self.path(name), "rb") as file:
                while file.read(1 << 20):
                    pass


class Bench:
    def __init__(self, arguments, cache, work, cluster):
        self.binary, self.cache, self.work, self.cluster = arguments.binary, cache, work, cluster
        self.whole, self.halved = Data(cache, arguments.principals), None
        if "half" in arguments.only:
            self.halved = Data(cache, max(1, arguments.principals // 2))
        self.results = {}

    def note(self, name, seconds, rows, memory=None):
        self.results.setdefault(name, []).append((seconds, rows, memory))
        peak = f", {memory:.0f} MB" if memory else ""
        say(f"{name}: {rows} rows in {seconds:.2f} s{peak}")

    def load(self, name, data, *flags):
        command = [self.binary, "load", data.folder, *flags, "--json"]
        took, peak, out = run(command, data.patience, self.cluster.environment)
        told = json.loads(out[out.index("{"):].splitlines()[0])
        if not told["ok"] or told["rows_read"] != data.all_rows:
            raise Failed(f"load read {told['rows_read']} rows of {data.all_rows}: {told}")
        if told["rows_loaded"] + told["rows_rejected"] != told["rows_read"]:
            raise Failed(f"load does not tell what became of each row: {told}")
        self.note(name, took, data.all_rows, peak)
        self.note(f"{name}, rows", told["phases"]["rows"], data.all_rows)

    def load_one(self):
        self.load("load-one", self.whole, "--only", "master1")

    def load_both(self):
        self.load("load-both", self.whole)

    def half(self):
        self.load("half", self.halved, "--only", "master1")

    def copy_files(self):
        """The files as they are, into bare tables of text, one after the other."""
        total = 0.0
        for name, columns in FILES.items():
            table = f"bench.{name.replace('.', '_')}"
            definition = ", ".join(f'"{column}" text' for column in columns.split())
            self.cluster.sql(0, f"CREATE TABLE {table} ({definition})")
            copy = rf"\copy {table} FROM pstdin WITH (FORMAT csv, DELIMITER E'\t', NULL '\N', QUOTE E'\b', HEADER)"
            unpacked = ["bash", "-c", 'set -o pipefail; zcat "$0" | psql "$@"', self.whole.path(name)]
            total += self.copy(unpacked, copy, self.whole.rows[name])
        self.note("copy-files", total, self.whole.all_rows)

    def copy_rows(self):
        """What the loader made of the files, into bare tables with the same columns."""
        files = {table: os.path.join(self.work, f"{table}.copy") for table in TABLES}
        counts = {}
        for table, file in files.items():
            told = run(["psql", self.cluster.urls[0], "-X", "-c", rf"\copy public.{table} TO '{file}'"], self.whole.patience)[2]
            counts[table] = int(re.fullmatch(r"COPY (\d+)", told.strip())[1])
        if not counts["participaciones"]:
            raise Failed("copy-rows takes the rows that load-one has loaded, and there are none")
        total = 0.0
        for table, file in files.items():
            self.cluster.sql(0, f"CREATE TABLE bench.{table} (LIKE public.{table} INCLUDING GENERATED)")
            total += self.copy(["psql"], rf"\copy bench.{table} FROM '{file}'", counts[table])
            os.remove(file)
        self.note("copy-rows", total, self.whole.all_rows)
        say(f"these are {sum(counts.values())} rows of tables")

    def copy(self, command, copy, rows):
        psql = [self.cluster.urls[0], "-X", "-v", "ON_ERROR_STOP=1", "-c", WITH_ORIGIN, "-c", copy]
        took, _, told = run([*command, *psql], self.whole.patience)
        if f"COPY {rows}\n" not in told:
            raise Failed(f"{copy}: {rows} rows were expected: {told}")
        return took

    def imdb_sqlite(self):
        """Into a file of SQLite, with its indexes, which is what it does by default."""
        venv = os.path.join(self.cache, IMDB_SQLITE.replace("==", "-"))
        program = os.path.join(venv, "bin/imdb-sqlite")
        if not os.path.exists(program):
            run([sys.executable, "-m", "venv", venv], PATIENCE)
            run([os.path.join(venv, "bin/pip"), "install", "--quiet", IMDB_SQLITE], PATIENCE * 5)
        database = os.path.join(self.work, "imdb.db")
        # It downloads what is not in its cache; with this it could not.
        nowhere = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy")}
        command = [program, "--db", database, "--cache-dir", self.whole.folder]
        took, _, told = run(command, self.whole.patience, nowhere)
        rows = self.whole.all_rows - self.whole.rows[NOT_IN_SQLITE]
        with contextlib.closing(sqlite3.connect(database)) as connection:
            tables = ("people", "titles", "akas", "crew", "episodes", "ratings")
            there = sum(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables)
        os.remove(database)
        if there != rows:
            raise Failed(f"imdb-sqlite has {there} rows of {rows}")
        self.note("imdb-sqlite", took, rows)
        self.note("imdb-sqlite, rows", seconds_between(told, "Populating database", "Creating table indices"), rows)


def seconds_between(log, first, last):
    """The time between two lines of imdb-sqlite's log."""
    def at(words):
        found = re.search(rf"([-\d]+ [:\d]+),(\d+) {words}", log)
        if not found:
            raise Failed(f"imdb-sqlite did not say '{words}'")
        return datetime.datetime.fromisoformat(found[1]).timestamp() + int(found[2]) / 1000

    return at(last) - at(first)


# In the order in which a round does them: what is compared stands side by side.
MEASUREMENTS = {
    "load-one": (Bench.load_one, "imdb-ha load --only master1, the whole"),
    "copy-files": (Bench.copy_files, r"psql \copy of the files into bare tables of text"),
    "copy-rows": (Bench.copy_rows, r"psql \copy of the loaded rows into bare tables"),
    "load-both": (Bench.load_both, "imdb-ha load into both masters, the whole"),
    "half": (Bench.half, "imdb-ha load --only master1 of half as much"),
    "imdb-sqlite": (Bench.imdb_sqlite, f"{IMDB_SQLITE}, the whole"),
}
PARTS = {
    "load-one, rows": "  its rows alone", "load-both, rows": "  its rows alone",
    "half, rows": "  its rows alone", "imdb-sqlite, rows": "  its rows alone, without indexes",
}


def report(results):
    def seconds(name):
        return statistics.median(took for took, _, _ in results[name])

    def rate(name):
        return results[name][0][1] / seconds(name)

    def memory(name):
        return max(peak for _, _, peak in results[name])

    print(f"\n{'what':<52} {'rows':>11} {'seconds':>8} {'rows/s':>10}  peak memory")
    for name, (_, words) in MEASUREMENTS.items():
        for shown, words in ((name, words), (f"{name}, rows", PARTS.get(f"{name}, rows"))):
            if shown in results:
                peak = f"{memory(shown):.0f} MB" if results[shown][0][2] else ""
                print(f"{words:<52} {results[shown][0][1]:>11,} {seconds(shown):>8.2f} {rate(shown):>10,.0f}  {peak}".rstrip())
    ratios = [
        ("copy", r"rows of load-one : \copy of the files", ("load-one, rows", "copy-files"), lambda: rate("load-one, rows") / rate("copy-files")),
        ("copy", r"rows of load-one : \copy of the loaded rows", ("load-one, rows", "copy-rows"), lambda: rate("load-one, rows") / rate("copy-rows")),
        ("sqlite", "load-one : imdb-sqlite, the whole of both", ("load-one", "imdb-sqlite"), lambda: rate("load-one") / rate("imdb-sqlite")),
        ("both", "time of load-both : load-one, the whole", ("load-one", "load-both"), lambda: seconds("load-both") / seconds("load-one")),
        ("memory", "peak memory of load-one, MB", ("load-one",), lambda: memory("load-one")),
        ("memory", "peak memory of load-both, MB", ("load-both",), lambda: memory("load-both")),
        ("half", "peak memory, whole : half", ("load-one", "half"), lambda: memory("load-one") / memory("half")),
    ]
    print(f"\n{'ratio':<52} {'is':>8}  goal")
    for goal, words, needs, value in ratios:
        if all(name in results for name in needs):
            kind, limit = GOALS[goal]
            met = value() >= limit if kind == "least" else value() <= limit
            print(f"{words:<52} {value():>8.2f}  at {kind} {limit}{'' if met else '   MISSED'}")
        else:
            print(f"{words:<52}        -  not measured")


def parse_arguments():
    def number(least, most):
        def parse(text):
            if not text.isdecimal() or not least <= int(text) <= most:
                raise argparse.ArgumentTypeError(f"is {least} to {most} (got '{text}')")
            return int(text)
        return parse

    def names(text):
        chosen = text.split(",")
        for name in chosen:
            if name not in MEASUREMENTS:
                raise argparse.ArgumentTypeError(f"names one or more of {', '.join(MEASUREMENTS)} (got '{name}')")
        return chosen

    parser = argparse.ArgumentParser(prog="bench-load", description="Measures the loader beside psql and imdb-sqlite.")
    parser.add_argument("principals", nargs="?", metavar="PRINCIPALS", type=number(1, 100_000_000), default=5_000_000)
    parser.add_argument("--rounds", type=number(1, 20), default=3, help="how often; the median counts (3)")
    parser.add_argument("--only", type=names, default=list(MEASUREMENTS), help=f"some of {','.join(MEASUREMENTS)}")
    parser.add_argument("--archive", action="store_true", help="leaves the masters' WAL archive on; by default it is off for everybody")
    parser.add_argument("--binary", help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(arguments, cache):
    needed = ROOM + int(arguments.principals * ROWS_PER_PRINCIPAL * ROOM_OF_ROW)
    free = shutil.disk_usage(cache).free
    if free < needed:
        raise Failed(f"{cache} has room for {free >> 20} MB, and this needs {needed >> 20}; TMPDIR names another place")
    with tempfile.TemporaryDirectory(prefix="imdb-ha-bench-") as work, open(os.path.join(cache, "cluster.log"), "w") as log:
        cluster = Cluster(arguments.binary, log)
        try:
            if not arguments.archive:
                cluster.stop_archiving()
            cluster.sql(0, f"SELECT pg_replication_origin_create('{ORIGIN}')")
            bench = Bench(arguments, cache, work, cluster)
            say(f"the files are in {cache} and stay there; their {bench.whole.all_rows} rows take"
                f" {sum(os.path.getsize(bench.whole.path(name)) for name in FILES) >> 20} MB")
            for _ in range(arguments.rounds):
                for name, (do, _) in MEASUREMENTS.items():
                    if name in arguments.only:
                        cluster.settle()
                        bench.whole.warm()
                        do(bench)
        finally:
            cluster.end()
    version = run([arguments.binary, "--version"], PATIENCE)[2].strip()
    print(f"{arguments.rounds} rounds on {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f} at the end, {version}", end="")
    print(f", WAL archive {'on' if arguments.archive else 'off'}")
    report(bench.results)


def main():
    arguments = parse_arguments()
    if arguments.check:
        return
    if not arguments.binary:
        sys.exit("bench-load: start it with scripts/bench-load.sh")
    # A signal ends it as Ctrl-C does: what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench-load: stopped"))
    cache = os.path.join(tempfile.gettempdir(), f"imdb-ha-bench-load-{os.getuid()}")
    try:
        os.makedirs(cache, mode=0o755, exist_ok=True)
        measure(arguments, cache)
    except (Failed, OSError) as error:
        sys.exit(f"bench-load: {error}")
    except KeyboardInterrupt:
        sys.exit("bench-load: stopped")


if __name__ == "__main__":
    main()
