//! What users are promised when a master dies, freezes, comes back; over real servers. Times are not
//! asserted but for hangs: they are measured by the bench.

mod common;

use common::{Cluster, NO_HANG, wait_until};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn assert_front_answers(cluster: &Cluster) {
    for path in ["/active-node", "/status", "/health"] {
        let answer = cluster.get(path);
        assert!(answer.took < NO_HANG, "{path} took {:?}", answer.took);
    }
}

fn ids(rows: &[String]) -> Vec<&str> {
    rows.iter()
        .filter_map(|row| row.trim_start_matches('(').split(',').next())
        .collect()
}

#[test]
fn a_killed_master_is_replaced_and_comes_home_by_command() {
    let cluster = Cluster::start();
    assert_eq!(cluster.add("antes").node(), "master1");
    cluster.local(&["kill", "master1"]);
    let during = cluster.add("durante");
    assert_eq!(
        (during.status, during.node()),
        (201, "master2"),
        "{during:?}"
    );
    assert!(during.took < NO_HANG, "{during:?}");
    assert_eq!(during.id() % 2, 0, "master2 draws even ids");
    assert_front_answers(&cluster);
    assert_eq!(cluster.server_state("master1"), "down");

    // Home only when it is there and has everything.
    let refused = cluster.post("/switch-to-primary", "");
    assert_eq!(
        (refused.status, refused.code()),
        (409, "target_down"),
        "{refused:?}"
    );
    assert_eq!(refused.body["active_node"], "master2");
    cluster.local(&["start", "master1"]);
    cluster.wait_state("master1", "up");
    assert_eq!(
        cluster.get("/active-node").body["active_node"],
        "master2",
        "it went home by itself"
    );
    let home = cluster.post("/switch-to-primary", "");
    assert_eq!(
        (home.status, &home.body),
        (200, &json!({ "ok": true, "active_node": "master1" }))
    );
    let after = cluster.add("después");
    assert_eq!(
        (after.status, after.node(), after.id() % 2),
        (201, "master1", 1),
        "{after:?}"
    );
    assert_eq!(cluster.wait_equal().len(), 28 + 3);

    let why = cluster.get("/status").body["history"].to_string();
    for what in ["failover", "handover", "start"] {
        assert!(
            why.contains(&format!(r#""what":"{what}""#)),
            "{what} is not in the history: {why}"
        );
    }
}

#[test]
fn a_frozen_master_hangs_nobody() {
    let cluster = Cluster::start();
    cluster.add("antes");
    cluster.local(&["freeze", "master1"]);
    assert_eq!(cluster.server_state("master1"), "frozen");
    std::thread::scope(|scope| {
        // More writers than there are sessions and workers, all of which meet the frozen master.
        let writers: Vec<_> = (0..40)
            .map(|number| {
                scope.spawn({
                    let cluster = &cluster;
                    move || cluster.add(&format!("helado {number}"))
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        assert_front_answers(&cluster);
        for writer in writers {
            let answer = writer.join().expect("a writer");
            assert_eq!(
                (answer.status, answer.node()),
                (201, "master2"),
                "{answer:?}"
            );
            assert!(answer.took < NO_HANG, "{answer:?}");
        }
    });
    assert_front_answers(&cluster);
    cluster.local(&["thaw", "master1"]);
    cluster.wait_state("master1", "up");
    let rows = cluster.wait_equal();
    let frozen = rows.iter().filter(|row| row.contains("helado")).count();
    assert_eq!(frozen, 40, "a request became two rows or none: {rows:?}");
    wait_until("the traffic goes home", || {
        cluster.post("/switch-to-primary", "").status == 200
    });
}

#[test]
fn both_masters_gone_is_said_and_either_of_them_brings_the_service_back() {
    let cluster = Cluster::start();
    for returning in ["master1", "master2"] {
        cluster.local(&["kill", "master1"]);
        cluster.local(&["kill", "master2"]);
        wait_until("nobody serves", || cluster.get("/health").status == 500);
        let refused = cluster.add("nadie");
        assert_eq!(
            (refused.status, refused.code()),
            (503, "no_master"),
            "{refused:?}"
        );
        assert_eq!(refused.header("Retry-After"), Some("1"));
        let reason = refused.body["reason"].as_str().expect("a reason");
        assert!(
            reason.contains("master1 is down") && reason.contains("master2 is down"),
            "{reason}"
        );
        assert!(refused.took < NO_HANG, "{refused:?}");
        assert_eq!(cluster.get("/generos/1").status, 503);
        assert_front_answers(&cluster);

        cluster.local(&["start", returning]);
        wait_until("it serves again", || cluster.get("/health").status == 200);
        let answer = cluster.add(&format!("vuelve {returning}"));
        assert_eq!(
            (answer.status, answer.node()),
            (201, returning),
            "{answer:?}"
        );
        let other = if returning == "master1" {
            "master2"
        } else {
            "master1"
        };
        cluster.local(&["start", other]);
        cluster.wait_state(other, "up");
    }
    let rows = cluster.wait_equal();
    assert_eq!(rows.len(), 28 + 2, "{rows:?}");
    assert!(!cluster.said().contains("panicked"), "{}", cluster.said());
}

/// Ends the writers of a test that fails in the middle, too.
struct EndsOnDrop<'a>(&'a AtomicBool);

impl Drop for EndsOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asynchronous replication: nothing acknowledged is gone for good, because the killed master comes
/// back with its disk; and nothing is there twice.
#[test]
fn under_load_every_acknowledged_row_is_there_once_on_both_masters() {
    let cluster = Cluster::start();
    let ended = AtomicBool::new(false);
    let acknowledged: Mutex<HashMap<String, i64>> = Mutex::default();
    let failed: Mutex<Vec<String>> = Mutex::default();
    std::thread::scope(|scope| {
        let _end = EndsOnDrop(&ended);
        for writer in 0..8 {
            let (cluster, ended, acknowledged, failed) = (&cluster, &ended, &acknowledged, &failed);
            scope.spawn(move || {
                for number in 0..20_000 {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    let name = format!("carga {writer}-{number}");
                    let answer = cluster.add(&name);
                    match answer.status {
                        201 => drop(acknowledged.lock().expect("lock").insert(name, answer.id())),
                        _ => failed.lock().expect("lock").push(format!("{answer:?}")),
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_millis(700));
        cluster.local(&["kill", "master1"]);
        std::thread::sleep(Duration::from_millis(700));
        cluster.local(&["start", "master1"]);
        cluster.wait_state("master1", "up");
        wait_until("the traffic goes home", || {
            cluster.post("/switch-to-primary", "").status == 200
        });
        // The way out of master1 is open again within the half second after which its peer reconnects.
        wait_until("it goes back", || {
            cluster.post("/switch-to-secondary", "").status == 200
        });
        cluster.local(&["freeze", "master2"]);
        std::thread::sleep(Duration::from_millis(1_500));
        cluster.local(&["thaw", "master2"]);
        std::thread::sleep(Duration::from_millis(300));
    });
    cluster.wait_state("master2", "up");
    let rows = cluster.wait_equal();
    let acknowledged = acknowledged.into_inner().expect("lock");
    let failed = failed.into_inner().expect("lock");
    assert!(
        failed.is_empty(),
        "{} requests failed, the first with {}",
        failed.len(),
        failed[0]
    );
    assert!(
        acknowledged.len() > 100,
        "hardly any load: {}",
        acknowledged.len()
    );
    let mut times: HashMap<&str, usize> = HashMap::new();
    for row in &rows {
        *times
            .entry(row.split('"').nth(1).unwrap_or(""))
            .or_default() += 1;
    }
    for name in acknowledged.keys() {
        assert_eq!(times.get(name.as_str()), Some(&1), "{name}");
    }
}

#[test]
fn two_versions_of_a_row_end_as_the_newer_one_on_both_masters() {
    let cluster = Cluster::start();
    let mut first = cluster.sql("master1");
    let mut second = cluster.sql("master2");
    for (sql, name) in [
        (&mut first, "sub_from_master2"),
        (&mut second, "sub_from_master1"),
    ] {
        sql.batch_execute(&format!("ALTER SUBSCRIPTION {name} DISABLE"))
            .expect("disable");
    }
    // The same new id on both, and an update of one row on both; the later one is on another side.
    first
        .batch_execute("INSERT INTO generos (id_genero, genero) VALUES (700, 'viejo')")
        .expect("insert");
    second
        .batch_execute("INSERT INTO generos (id_genero, genero) VALUES (700, 'nuevo')")
        .expect("insert");
    second
        .batch_execute("UPDATE generos SET genero = 'viejo' WHERE id_genero = 1")
        .expect("update");
    first
        .batch_execute("UPDATE generos SET genero = 'nuevo' WHERE id_genero = 1")
        .expect("update");
    // Meanwhile master2 lacks rows, so the traffic is not moved there.
    let refused = cluster.post("/switch-to-secondary", "");
    assert_eq!(
        (refused.status, refused.code()),
        (409, "target_behind"),
        "{refused:?}"
    );
    assert_eq!(
        cluster.run(&["replication", "status"]).status.code(),
        Some(1)
    );

    for (sql, name) in [
        (&mut first, "sub_from_master2"),
        (&mut second, "sub_from_master1"),
    ] {
        sql.batch_execute(&format!("ALTER SUBSCRIPTION {name} ENABLE"))
            .expect("enable");
    }
    let rows = cluster.wait_equal();
    assert_eq!(ids(&rows).len(), 29);
    wait_until("the newer versions have won", || {
        let texts = "SELECT string_agg(genero, ',') FROM generos WHERE id_genero IN (1, 700)";
        let of = |sql: &mut postgres::Client| -> String {
            sql.query_one(texts, &[]).expect("rows").get(0)
        };
        of(&mut first) == "nuevo,nuevo" && of(&mut second) == "nuevo,nuevo"
    });
    wait_until("both directions stream again", || {
        cluster.run(&["replication", "status"]).status.success()
    });
    wait_until("the traffic moves", || {
        cluster.post("/switch-to-secondary", "").status == 200
    });
}

/// A row that is moved to a key which is taken on the other side must not stop the replication.
#[test]
fn a_key_that_moves_onto_a_taken_one_leaves_one_row() {
    let cluster = Cluster::start();
    let mut first = cluster.sql("master1");
    let mut second = cluster.sql("master2");
    first
        .batch_execute("INSERT INTO generos (id_genero, genero) VALUES (800, 'viajero')")
        .expect("insert");
    cluster.wait_equal();
    for (sql, name) in [
        (&mut first, "sub_from_master2"),
        (&mut second, "sub_from_master1"),
    ] {
        sql.batch_execute(&format!("ALTER SUBSCRIPTION {name} DISABLE"))
            .expect("disable");
    }
    second
        .batch_execute("INSERT INTO generos (id_genero, genero) VALUES (900, 'residente')")
        .expect("insert");
    first
        .batch_execute("UPDATE generos SET id_genero = 900 WHERE id_genero = 800")
        .expect("update");
    for (sql, name) in [
        (&mut first, "sub_from_master2"),
        (&mut second, "sub_from_master1"),
    ] {
        sql.batch_execute(&format!("ALTER SUBSCRIPTION {name} ENABLE"))
            .expect("enable");
    }
    wait_until("one row is left, the same on both", || {
        let rows = cluster.rows("master1");
        rows == cluster.rows("master2") && rows.len() == 29 && rows[28].contains("viajero")
    });
    cluster.add("sigue");
    cluster.wait_equal();
}

/// A write that was given up on may still reach its server much later, and must not undo what has
/// happened since.
#[test]
fn a_late_write_loses_against_a_newer_one() {
    let cluster = Cluster::start();
    let put = |text: &str| {
        let body = json!({ "genero": text }).to_string();
        cluster.ask(
            "PUT",
            "/generos/5",
            Some(&body),
            &[("Content-Type", "application/json")],
        )
    };
    // Frozen with a PUT and a DELETE inside; both are repeated on the other master.
    cluster.local(&["freeze", "master1"]);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| put("lento"));
        let gone = scope.spawn(|| cluster.ask("DELETE", "/generos/6", None, &[]));
        assert_eq!(slow.join().expect("a put").status, 200);
        assert_eq!(gone.join().expect("a delete").status, 200);
    });
    assert_eq!(put("rápido").status, 200);
    assert_eq!(
        cluster
            .post("/generos", r#"{"id_genero": 6, "genero": "de vuelta"}"#)
            .status,
        201
    );
    cluster.local(&["thaw", "master1"]);
    cluster.wait_state("master1", "up");
    wait_until("the newer versions are on both masters", || {
        let rows = cluster.rows("master1");
        rows == cluster.rows("master2")
            && rows[4].contains("rápido")
            && rows[5].contains("de vuelta")
    });
    // The traffic is not moved to a master that has frozen a moment ago.
    cluster.local(&["freeze", "master1"]);
    let refused = cluster.post("/switch-to-primary", "");
    assert_eq!(
        (refused.status, refused.code()),
        (409, "target_down"),
        "{refused:?}"
    );
    cluster.local(&["thaw", "master1"]);
    cluster.wait_state("master1", "up");
    wait_until("it goes home", || {
        cluster.post("/switch-to-primary", "").status == 200
    });
    // A deletion whose first try got lost does not claim what it does not know. The row before it leaves
    // a connection that is open, on which that try begins.
    assert_eq!(cluster.add("antes").node(), "master1");
    cluster.local(&["freeze", "master1"]);
    let never = cluster.ask("DELETE", "/generos/77777", None, &[]);
    assert_eq!(
        (never.status, never.code()),
        (503, "outcome_unknown"),
        "{never:?}"
    );
}

/// Sessions that the server ends for being idle, and an API that stood still itself, are nobody's
/// failure.
#[test]
fn idle_sessions_and_a_sleeping_api_are_no_outage() {
    let cluster = Cluster::start();
    cluster
        .sql("master1")
        .batch_execute("ALTER SYSTEM SET idle_session_timeout = '300ms'")
        .expect("set");
    cluster
        .sql("master1")
        .execute("SELECT pg_reload_conf()", &[])
        .expect("reload");
    cluster.add("uno");
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(700));
        let answer = cluster.get("/generos/1");
        assert_eq!(
            (answer.status, answer.node()),
            (200, "master1"),
            "{answer:?}"
        );
    }
    let pid = cluster.status["pids"]["api"]
        .as_i64()
        .expect("a pid")
        .to_string();
    let signal = |name: &str| {
        let sent = std::process::Command::new("kill")
            .args(["-s", name, &pid])
            .status();
        assert!(sent.expect("kill").success());
    };
    signal("STOP");
    std::thread::sleep(Duration::from_millis(2_500));
    signal("CONT");
    let answer = cluster.add("despierto");
    assert_eq!(
        (answer.status, answer.node()),
        (201, "master1"),
        "{answer:?}"
    );
    // The log is written by a thread of its own, so the line may come after the answer.
    wait_until("the pause is in the log", || {
        cluster.said().contains("nobody listened")
    });
    let said = cluster.said();
    assert!(
        !said.contains("failover") && !said.contains("outage"),
        "{said}"
    );
}

#[test]
fn ended_sessions_are_no_failover_and_an_ended_api_is_started_again() {
    let cluster = Cluster::start();
    let mut sql = cluster.sql("master1");
    for round in 0..5 {
        cluster.add(&format!("antes {round}"));
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'imdb-ha'";
        sql.execute(end, &[]).expect("end the sessions");
        let answer = cluster.add(&format!("después {round}"));
        assert_eq!(
            (answer.status, answer.node()),
            (201, "master1"),
            "{answer:?}"
        );
    }
    assert!(!cluster.said().contains("failover"), "{}", cluster.said());

    let pid = cluster.status["pids"]["api"]
        .as_i64()
        .expect("a pid")
        .to_string();
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid])
        .status()
        .expect("kill");
    assert!(killed.success());
    wait_until("the API answers again", || {
        cluster
            .try_ask("GET", "/health", None, &[])
            .is_ok_and(|answer| answer.status == 200)
    });
    assert_eq!(cluster.add("otra vez").status, 201);
    assert_eq!(cluster.wait_equal().len(), 28 + 11);
}

#[test]
fn without_redis_everything_but_the_history_goes_on() {
    let cluster = Cluster::start();
    let url = cluster.status["redis"].as_str().expect("a URL");
    let mut redis = redis::Client::open(url)
        .and_then(|client| client.get_connection())
        .expect("redis");
    let mut length = || {
        redis::cmd("LLEN")
            .arg("imdb-ha:history")
            .query::<u64>(&mut redis)
            .unwrap_or(0)
    };
    wait_until("the start is in Redis", || length() >= 5);

    let pid = cluster.status["pids"]["redis"]
        .as_i64()
        .expect("a pid")
        .to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-9", &pid])
            .status()
            .expect("kill")
            .success()
    );
    wait_until("its loss is noticed", || {
        cluster.get("/status").body["redis"]["state"] == "down"
    });
    cluster.local(&["kill", "master1"]);
    let answer = cluster.add("sin redis");
    assert_eq!(
        (answer.status, answer.node()),
        (201, "master2"),
        "{answer:?}"
    );
    let history = cluster.get("/status").body["history"].clone();
    assert!(history.to_string().contains("failover"), "{history}");
}

#[test]
fn with_a_token_only_its_holder_switches_and_nobody_reads_it() {
    let token = "not-for-everyone-1234";
    let cluster = Cluster::start_with(&[("ADMIN_TOKEN", token)]);
    let switch =
        |headers: &[(&str, &str)]| cluster.ask("POST", "/switch-to-secondary", Some(""), headers);
    for wrong in [
        &[][..],
        &[("Authorization", "Bearer wrong-wrong-wrong-wrong")],
        &[("Authorization", token)],
    ] {
        let answer = switch(wrong);
        assert_eq!(
            (answer.status, answer.code()),
            (401, "unauthorized"),
            "{answer:?}"
        );
        assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer"));
    }
    assert_eq!(cluster.get("/generos/1").status, 200, "reading is open");
    let bearer = format!("Bearer {token}");
    assert_eq!(switch(&[("Authorization", &bearer)]).status, 200);
    assert_eq!(cluster.get("/active-node").body["active_node"], "master2");

    let status = cluster.get("/status").body.to_string();
    let processes = std::process::Command::new("ps")
        .args(["-eo", "args"])
        .output()
        .expect("ps");
    let api_log = std::fs::read_to_string(format!("{}/api.log", cluster.data)).expect("the log");
    for place in [
        status,
        String::from_utf8_lossy(&processes.stdout).into_owned(),
        api_log,
        cluster.said(),
    ] {
        assert!(
            !place.contains(token) && !place.contains("repl_pass") && !place.contains("root:root"),
            "{place}"
        );
    }
    for node in ["master1", "master2"] {
        let log = std::process::Command::new("grep")
            .args([
                "-rlE",
                "repl_pass|not-for-everyone",
                &format!("{}/{node}/log", cluster.data),
            ])
            .output()
            .expect("grep");
        assert!(
            log.stdout.is_empty(),
            "a password in the log of {node}: {log:?}"
        );
    }
}

/// The manual's way without a sequence: the next id after the highest, under a lock, of the master's half.
#[test]
fn without_the_sequence_ids_follow_the_highest() {
    let cluster = Cluster::start_with(&[("USE_SEQUENCE", "false")]);
    cluster.post("/generos", r#"{"id_genero": 40, "genero": "x"}"#);
    let next: Vec<i64> = (0..3).map(|_| cluster.add("y").id()).collect();
    assert_eq!(next, [41, 43, 45]);
    let together: Vec<i64> = std::thread::scope(|scope| {
        let adding: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| cluster.add("z").id()))
            .collect();
        adding
            .into_iter()
            .map(|thread| thread.join().expect("an insert"))
            .collect()
    });
    let mut sorted = together.clone();
    sorted.sort_unstable();
    let expected: Vec<i64> = (47..).step_by(2).take(8).collect();
    assert_eq!(sorted, expected, "{together:?}");
}

/// An untended lock on the table must become an error in time, and the API must outlive it.
#[test]
fn a_locked_table_is_an_answer_in_time() {
    let cluster = Cluster::start();
    let mut sql = cluster.sql("master1");
    let mut transaction = sql.transaction().expect("begin");
    transaction
        .batch_execute("LOCK TABLE generos IN ACCESS EXCLUSIVE MODE")
        .expect("lock");
    let began = Instant::now();
    let answer = cluster.add("bloqueado");
    assert_eq!((answer.status, answer.code()), (503, "late"), "{answer:?}");
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    assert_front_answers(&cluster);
    transaction.rollback().expect("rollback");
    assert_eq!(cluster.add("libre").status, 201);
    let active: Value = cluster.get("/active-node").body["active_node"].clone();
    assert_eq!(active, "master1");
}

/// A master that freezes while it sends a transaction leaves half of it applied on its peer, whose
/// locks nobody else would release for `wal_receiver_timeout`.
#[test]
fn half_a_transaction_of_a_frozen_master_holds_nobody_up() {
    let cluster = Cluster::start();
    let id = 500_000;
    for try_number in 0.. {
        assert!(try_number < 5, "it was never caught in the middle");
        let first = id + try_number * 400_000;
        let many = format!(
            "SET synchronous_commit = local; INSERT INTO public.generos (id_genero, genero) \
             SELECT i, 'a medias' FROM generate_series({first}, {first} + 99999) AS i"
        );
        cluster
            .sql("master1")
            .batch_execute(&many)
            .expect("insert many");
        let mut second = cluster.sql("master2");
        let mut applying = move || {
            let worker = "SELECT FROM pg_stat_activity WHERE backend_xid IS NOT NULL \
                AND backend_type = 'logical replication apply worker'";
            !second.query(worker, &[]).expect("look").is_empty()
        };
        wait_until("it is being applied", &mut applying);
        std::thread::sleep(Duration::from_millis(100));
        cluster.local(&["freeze", "master1"]);
        std::thread::sleep(Duration::from_millis(400));
        if !applying() {
            cluster.local(&["thaw", "master1"]); // all of it had arrived
            cluster.wait_state("master1", "up");
            continue;
        }
        // Early in the transaction, so it has been applied, and nobody knows yet whether it will stay.
        let body = format!("{{\"id_genero\": {}, \"genero\": \"a tiempo\"}}", first + 3);
        let answer = cluster.post("/generos", &body);
        assert_eq!(
            (answer.status, answer.node()),
            (201, "master2"),
            "{answer:?}"
        );
        assert!(answer.took < NO_HANG, "{answer:?}");
        wait_until("it is in the log", || {
            cluster.said().contains("in the middle of a transaction")
        });
        cluster.local(&["thaw", "master1"]);
        cluster.wait_state("master1", "up");
        // The rest of it takes its time on a busy machine.
        cluster.wait_compare();
        return;
    }
}
