//! Rebuilding a master from the other one, which goes on serving; over real masters.

mod common;

use common::{Cluster, FILM_TABLES, IN_THE_END, ROWS_FROM_THE_START, clean_command, wait_until};
use serde_json::Value;
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// `imdb-ha rejoin`, told where the cluster and its API are.
fn command(cluster: &Cluster, arguments: &[&str]) -> std::process::Command {
    let port = cluster.api.rsplit(':').next().expect("a port");
    let mut command = clean_command();
    command.arg("rejoin").args(arguments).env("PORT", port);
    command
        .env("MASTER1_URL", cluster.url("master1"))
        .env("MASTER2_URL", cluster.url("master2"));
    command
}

fn rejoin(cluster: &Cluster, arguments: &[&str]) -> Output {
    command(cluster, arguments).output().expect("run imdb-ha")
}

fn must_rejoin(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = rejoin(cluster, arguments);
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

/// Kills a master and deletes its data folder, as a disk that is gone.
fn lose_data(cluster: &Cluster, node: &str) {
    cluster.local(&["kill", node]);
    let data = cluster.status["masters"][node]["data"]
        .as_str()
        .expect("a folder");
    std::fs::remove_dir_all(data).expect("delete the data");
}

/// Posts genres without a pause until `work` is done, and returns the names that were acknowledged.
fn while_writing<T>(cluster: &Cluster, tag: &str, work: impl FnOnce() -> T) -> (Vec<String>, T) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut acknowledged = Vec::new();
            for number in 0.. {
                if done.load(Ordering::SeqCst) {
                    break;
                }
                let name = format!("{tag}-{number}");
                let answer = cluster.add(&name);
                assert_eq!(answer.status, 201, "{answer:?}");
                acknowledged.push(name);
            }
            acknowledged
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::SeqCst);
        let acknowledged = writer.join().expect("the writer");
        match outcome {
            Ok(outcome) => (acknowledged, outcome),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Both masters hold the same rows, and these among them.
fn assert_kept(cluster: &Cluster, names: &[String]) {
    cluster.wait_equal();
    for node in ["master1", "master2"] {
        let found = cluster.sql(node).query_one(
            "SELECT count(DISTINCT genero) FROM generos WHERE genero = ANY ($1)",
            &[&names],
        );
        let found: i64 = found.expect("count").get(0);
        assert_eq!(found, names.len() as i64, "on {node}");
    }
}

fn insert_many(cluster: &Cluster, node: &str, rows: u32) {
    cluster
        .sql(node)
        .batch_execute(&format!(
            "INSERT INTO generos (genero) SELECT 'fila ' || n FROM generate_series(1, {rows}) AS n"
        ))
        .expect("insert");
}

fn wait_both_stream(cluster: &Cluster) {
    wait_until("both directions stream", || {
        cluster.run(&["replication", "status"]).status.success()
    });
}

/// Slots on a master, for the peer and for copying.
fn slots(cluster: &Cluster, node: &str) -> Vec<String> {
    let rows = cluster.sql(node).query(
        "SELECT slot_name::text FROM pg_replication_slots ORDER BY 1",
        &[],
    );
    rows.expect("slots").iter().map(|row| row.get(0)).collect()
}

#[test]
fn a_master_that_lost_its_data_is_rebuilt_while_writes_go_on() {
    let cluster = Cluster::start();
    insert_many(&cluster, "master1", 50_000);
    // An empty master begins with the genres that come with the schema; this one is no row that only it has.
    let deleted = cluster.ask("DELETE", "/generos/3", None, &[]);
    assert_eq!(deleted.status, 200, "{deleted:?}");
    cluster.wait_equal();
    let (names, told) = while_writing(&cluster, "durante", || {
        lose_data(&cluster, "master1");
        let start = cluster.run(&["local", "start", "master1"]);
        assert!(
            start.status.success() && said(&start).contains("master1 has lost its data"),
            "{}",
            said(&start)
        );
        assert!(
            said(&start).contains("imdb-ha rejoin master1"),
            "{}",
            said(&start)
        );
        // A set-up does not join an empty master, and takes the right one for the empty one.
        let setup = cluster.run(&["replication", "setup"]);
        assert!(
            !setup.status.success() && said(&setup).contains("`imdb-ha rejoin master1`"),
            "{}",
            said(&setup)
        );
        must_rejoin(&cluster, &["master1"])
    });
    assert!(names.len() > 100, "{} rows were written", names.len());
    // The genres, their deletions, what carries their updates and the keys of requests are four more.
    let all = FILM_TABLES + 4;
    let complete = format!("rows copied (100 %), {all} of {all} tables complete");
    assert!(told.contains(&complete), "{told}");
    assert!(told.contains("master1 is rebuilt from master2"), "{told}");
    assert_kept(&cluster, &names);
    assert_eq!(slots(&cluster, "master1"), ["slot_1_to_2"]);
    assert_eq!(slots(&cluster, "master2"), ["slot_2_to_1"]);

    // It is as good as before: it takes the traffic, draws ids of its own, and is sent on.
    cluster.wait_state("master1", "up");
    wait_until("the traffic is back", || {
        cluster.ask("POST", "/switch-to-primary", None, &[]).status == 200
    });
    let answer = cluster.add("de vuelta");
    assert_eq!(
        (answer.node(), answer.id() % 2),
        ("master1", 1),
        "{answer:?}"
    );
    cluster.wait_equal();

    // The other way round, right after, and the one that is rebuilt has all its data: only by force.
    let refused = rejoin(&cluster, &["master2"]);
    assert!(
        !refused.status.success() && said(&refused).contains("add --yes"),
        "{}",
        said(&refused)
    );
    let rows = cluster.rows("master1").len();
    let (names, told) = while_writing(&cluster, "otra", || {
        must_rejoin(&cluster, &["master2", "--yes", "--json"])
    });
    assert_kept(&cluster, &names);
    assert_eq!(cluster.rows("master1").len(), rows + names.len());
    let line = told.lines().next().expect("a line");
    let outcome: Value = serde_json::from_str(line).expect("JSON on standard output");
    assert_eq!(
        (&outcome["ok"], &outcome["node"]),
        (&true.into(), &"master2".into())
    );
}

#[test]
fn a_master_whose_slot_is_lost_is_rebuilt_and_nothing_of_it_is_thrown_away_unasked() {
    let cluster = Cluster::start();
    let (mut first, mut second) = (cluster.sql("master1"), cluster.sql("master2"));
    // master1 keeps next to nothing for master2, which is told to stop reading.
    for sql in [
        "ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'",
        "SELECT pg_reload_conf()",
    ] {
        first.batch_execute(sql).expect("the bound");
    }
    second
        .batch_execute("ALTER SUBSCRIPTION sub_from_master1 DISABLE")
        .expect("disable");
    let alarms = || cluster.get("/status").body["alarms"].to_string();
    assert_eq!(alarms(), "[]");
    let write = "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000)) FROM generate_series(1, 5)";
    wait_until("the alarm is raised", || {
        first.batch_execute(write).expect("write");
        alarms().contains("master1: ") && alarms().contains("imdb-ha rejoin master2")
    });
    wait_until("the slot is lost", || {
        let more = format!("{write}; SELECT pg_switch_wal(); CHECKPOINT");
        more.split("; ")
            .for_each(|part| first.batch_execute(part).expect("write"));
        alarms().contains("slot_1_to_2 is lost")
    });
    assert!(
        cluster.said().contains("ALARM: master1: "),
        "{}",
        cluster.said()
    );
    let status = cluster.run(&["replication", "status"]);
    assert!(
        !status.status.success() && said(&status).contains("ALARM        slot slot_1_to_2 is lost"),
        "{}",
        said(&status)
    );

    // A row that master1 has not got: the way there is closed too.
    first
        .batch_execute("ALTER SUBSCRIPTION sub_from_master2 DISABLE")
        .expect("disable");
    second
        .batch_execute("INSERT INTO generos (genero) VALUES ('solo en master2')")
        .expect("insert");
    cluster.add("solo en master1");
    let refused = rejoin(&cluster, &["master2"]);
    assert!(
        !refused.status.success()
            && said(&refused).contains("master2 has 1 rows that master1 lacks"),
        "{}",
        said(&refused)
    );
    // Nothing was changed by the refusal; the row arrives as soon as it may, and the rest is a rejoin.
    first
        .batch_execute("ALTER SUBSCRIPTION sub_from_master2 ENABLE")
        .expect("enable");
    wait_until("the row has arrived", || {
        cluster
            .rows("master1")
            .iter()
            .any(|row| row.contains("solo en master2"))
    });
    must_rejoin(&cluster, &["master2"]);
    let rows = cluster.wait_equal();
    assert_eq!(rows.len(), 30, "{rows:?}");
    wait_until("the alarm is over", || alarms() == "[]");
    let again = cluster.run(&["replication", "setup"]);
    assert_eq!(said(&again).trim(), "nothing to do: the masters are joined");
}

/// Ends a child at once, as `kill -9` does.
fn kill(mut child: Child) {
    child.kill().expect("kill");
    child.wait().expect("its end");
}

#[test]
fn a_rejoin_that_was_killed_at_any_moment_is_simply_repeated() {
    let cluster = Cluster::start();
    insert_many(&cluster, "master1", 60_000);
    cluster.wait_equal();
    let (names, ()) = while_writing(&cluster, "durante", || {
        lose_data(&cluster, "master2");
        cluster.local(&["start", "master2"]);
        for milliseconds in [60, 120, 180, 240, 300, 400, 500, 650, 800, 1000] {
            let mut command = command(&cluster, &["master2", "--yes"]);
            let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            std::thread::sleep(Duration::from_millis(milliseconds));
            kill(child.expect("start"));
            assert!(cluster.rows("master1").len() > 60_000, "master1 is whole");
        }
        // In the middle of the copying, the master itself. What the last rejoin has begun may have been copied by now, so anew.
        lose_data(&cluster, "master2");
        cluster.local(&["start", "master2"]);
        let child = command(&cluster, &["master2", "--yes"])
            .stderr(Stdio::piped())
            .spawn();
        let child = child.expect("start");
        wait_until("it copies", || {
            let mark = "SELECT FROM pg_subscription_rel WHERE srsubstate <> 'r'";
            !cluster
                .sql("master2")
                .query(mark, &[])
                .expect("ask")
                .is_empty()
        });
        cluster.local(&["kill", "master2"]);
        let output = child.wait_with_output().expect("its end");
        assert!(!output.status.success(), "{}", said(&output));
        cluster.local(&["start", "master2"]);
        let setup = cluster.run(&["replication", "setup"]);
        let unfinished = said(&setup).contains("a rejoin of master2 has not ended");
        assert!(unfinished || setup.status.success(), "{}", said(&setup));
        must_rejoin(&cluster, &["master2", "--yes"]);
    });
    assert_kept(&cluster, &names);
    assert_eq!(
        slots(&cluster, "master1"),
        ["slot_1_to_2"],
        "nothing is left of the copies"
    );
    assert_eq!(slots(&cluster, "master2"), ["slot_2_to_1"]);
    wait_both_stream(&cluster);
}

#[test]
fn a_source_that_restarts_in_the_middle_loses_nothing() {
    let cluster = Cluster::start();
    insert_many(&cluster, "master1", 60_000);
    let before = cluster.wait_equal();
    let mut command = command(&cluster, &["master2", "--yes"]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.expect("start");
    wait_until("it copies", || {
        let mark = "SELECT FROM pg_subscription_rel WHERE srsubstate <> 'r'";
        !cluster
            .sql("master2")
            .query(mark, &[])
            .expect("ask")
            .is_empty()
    });
    cluster.local(&["kill", "master1"]);
    // Half a copy is nothing to serve from, even when nobody else is there.
    std::thread::sleep(Duration::from_secs(4));
    assert_ne!(
        cluster.get("/status").body["masters"]["master2"]["state"],
        "up"
    );
    assert_eq!(cluster.add("a nadie").status, 503);
    cluster.local(&["start", "master1"]);
    let first = child.wait_with_output().expect("its end");
    if !first.status.success() {
        must_rejoin(&cluster, &["master2", "--yes"]);
    }
    assert_eq!(cluster.wait_equal(), before, "{}", said(&first));
    wait_both_stream(&cluster);
}

#[test]
fn a_rejoin_that_cannot_be_is_refused_within_seconds() {
    let cluster = Cluster::start();
    let refused = |arguments: &[&str], why: &str| {
        let began = Instant::now();
        let output = rejoin(&cluster, arguments);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(why) && !text.contains("root:root"), "{text}");
        assert!(began.elapsed() < IN_THE_END, "{:?}", began.elapsed());
    };
    refused(
        &["master1", "--yes"],
        "hand over to master2 first (POST /switch-to-secondary)",
    );
    refused(&["master2"], "add --yes");
    cluster.local(&["freeze", "master1"]);
    wait_until("master2 serves", || {
        cluster.get("/active-node").body["active_node"] == "master2"
    });
    refused(
        &["master1", "--yes"],
        "master1 must run, with an empty database at least",
    );
    refused(
        &["master2", "--yes"],
        "master2 is not rebuilt, because master1 would be its source",
    );
    cluster.local(&["thaw", "master1"]);
    cluster.local(&["stop", "master2"]);
    refused(&["master2", "--yes"], "master2 must run");
    refused(&["master1", "--yes"], "Connection refused");
    cluster.local(&["start", "master2"]);

    // Both addresses lead to one server: it would be cleared to be filled from itself.
    let mut same = command(&cluster, &["master2", "--yes"]);
    let output = same
        .env("MASTER2_URL", cluster.url("master1"))
        .output()
        .expect("run");
    assert!(
        said(&output).contains("is the same database as MASTER1_URL"),
        "{}",
        said(&output)
    );
    // A table that is not this program's is not made by it, and nothing is changed.
    for node in ["master1", "master2"] {
        cluster
            .sql(node)
            .batch_execute("CREATE TABLE public.ajena (id int PRIMARY KEY)")
            .expect("create");
    }
    assert!(cluster.run(&["replication", "setup"]).status.success());
    cluster
        .sql("master2")
        .batch_execute("DROP TABLE public.ajena")
        .expect("drop");
    wait_both_stream(&cluster);
    refused(&["master2", "--yes"], "master2 has no table public.ajena");
    wait_both_stream(&cluster);
    cluster.wait_equal();
}

/// A cluster in a folder of its own that stays, ended with the test.
struct Home(std::path::PathBuf);

impl Home {
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = clean_command();
        command.args(arguments).env("IMDB_HA_DATA", &self.0);
        command.output().expect("run imdb-ha")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.run(&["local", "down"]);
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn up_with_one_masters_folder_gone_serves_from_the_other_and_says_what_to_do() {
    let root = std::env::temp_dir().join(format!("imdb-ha-rejoin-{}", std::process::id()));
    std::fs::create_dir_all(&root).expect("a folder");
    let home = Home(root);
    let up = ["local", "up", "--detach", "--port", "5170"];
    assert!(home.run(&up).status.success());
    assert!(home.run(&["local", "down"]).status.success());
    // Its folder is there and empty, as a mount point whose disk is new.
    let data = home.0.join("master2");
    std::fs::remove_dir_all(&data).expect("delete the data");
    std::fs::create_dir(&data).expect("an empty folder");

    let again = home.run(&up);
    let text = said(&again);
    assert!(again.status.success(), "{text}");
    assert!(
        text.contains("is missing or empty, while master1 has data"),
        "{text}"
    );
    assert!(text.contains("ALARM: master2 has lost its data"), "{text}");
    let hint = text
        .lines()
        .find(|line| line.contains("imdb-ha rejoin master2"))
        .expect("the command to run");
    let status: Value =
        serde_json::from_slice(&home.run(&["local", "status", "--json"]).stdout).expect("JSON");
    let api = status["api"].as_str().expect("a URL");
    let made = ureq::post(format!("{api}/generos"))
        .content_type("application/json")
        .send(r#"{"genero": "sola"}"#);
    let body = made
        .expect("an answer")
        .body_mut()
        .read_to_string()
        .expect("text");
    assert!(body.contains(r#""node_used":"master1""#), "{body}");

    // The command that was printed is the one that works.
    let mut rejoin = clean_command();
    for word in hint.split_whitespace() {
        match word.split_once('=') {
            Some((name, value)) => rejoin.env(name, value),
            None if word == "imdb-ha" => &mut rejoin,
            None => rejoin.arg(word),
        };
    }
    let rejoined = rejoin.output().expect("run imdb-ha");
    assert!(rejoined.status.success(), "{}", said(&rejoined));
    assert!(
        said(&rejoined).contains(&format!(
            "both hold the same {} rows",
            ROWS_FROM_THE_START + 1
        )),
        "{}",
        said(&rejoined)
    );
    assert!(home.run(&["local", "down"]).status.success());
    let last = home.run(&up);
    assert!(
        last.status.success() && said(&last).contains("both directions are streaming"),
        "{}",
        said(&last)
    );
}
