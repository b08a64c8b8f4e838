//! Zero-loss over real masters: when commits wait for the peer, when they do not, and what a person can
//! tell the cluster meanwhile.

mod common;

use common::{Cluster, NO_HANG, wait_until};
use serde_json::Value;
use std::time::{Duration, Instant};

fn level(cluster: &Cluster) -> String {
    let answer = cluster.get("/health");
    answer.body["durability"].as_str().unwrap_or("").to_string()
}

fn wait_level(cluster: &Cluster, wanted: &str) {
    wait_until(&format!("the durability is {wanted}"), || {
        level(cluster) == wanted
    });
}

fn standby_names(cluster: &Cluster, node: &str) -> String {
    let row = cluster
        .sql(node)
        .query_one("SHOW synchronous_standby_names", &[]);
    row.expect("show").get(0)
}

/// The newest entry of the history of one kind.
fn newest(cluster: &Cluster, what: &str) -> Value {
    let history = cluster.get("/history");
    let entries = history.body["data"].as_array().expect("a list").clone();
    let found = entries.into_iter().find(|entry| entry["what"] == what);
    found.unwrap_or_else(|| panic!("no {what} in {:?}", history.body))
}

#[test]
fn only_the_active_master_waits_for_its_peer_and_a_handover_keeps_it_so() {
    let cluster = Cluster::start();
    wait_level(&cluster, "zero-loss");
    assert_eq!(
        standby_names(&cluster, "master1"),
        "FIRST 1 (sub_from_master1)"
    );
    assert_eq!(standby_names(&cluster, "master2"), "");
    // An acknowledged row is on the other master by the time of the answer.
    let mut second = cluster.sql("master2");
    for index in 0..20 {
        let id = cluster.add(&format!("en ambos {index}")).id() as i32;
        let rows = second
            .query("SELECT FROM public.generos WHERE id_genero = $1", &[&id])
            .expect("look");
        assert_eq!(rows.len(), 1, "row {id} was acknowledged before it arrived");
    }
    let switched = cluster.post("/switch-to-secondary", "");
    assert_eq!(switched.status, 200, "{switched:?}");
    assert_eq!(level(&cluster), "zero-loss", "the handover kept it");
    let handover = newest(&cluster, "handover");
    assert!(handover["stall_ms"].is_u64(), "{handover}");
    wait_until("master1 no longer waits", || {
        standby_names(&cluster, "master1").is_empty()
    });
    assert_eq!(
        standby_names(&cluster, "master2"),
        "FIRST 1 (sub_from_master2)"
    );
    cluster.wait_equal();
}

#[test]
fn a_peer_that_is_gone_stops_no_write_and_is_waited_for_again() {
    let cluster = Cluster::start();
    wait_level(&cluster, "zero-loss");
    for (harm, heal) in [("kill", "start"), ("freeze", "thaw")] {
        cluster.local(&[harm, "master2"]);
        for index in 0..5 {
            let answer = cluster.add(&format!("{harm} {index}"));
            assert_eq!(
                (answer.status, answer.node()),
                (201, "master1"),
                "{answer:?}"
            );
        }
        assert_eq!(level(&cluster), "degraded");
        let change = newest(&cluster, "durability");
        assert_eq!(
            (change["from"].as_str(), change["to"].as_str()),
            (Some("zero-loss"), Some("degraded"))
        );
        let status = cluster.get("/status").body["durability"].clone();
        assert!(status["reason"].as_str().is_some_and(|why| why.len() > 5));
        cluster.local(&[heal, "master2"]);
        wait_level(&cluster, "zero-loss");
        cluster.wait_equal();
    }
    // Who decides cannot be looked at: somebody holds that table, maybe with the very commit that waits for the order.
    let mut holder = cluster.sql("master1");
    let mut held = holder.transaction().expect("begin");
    held.batch_execute("LOCK TABLE imdb_ha.mandato IN ACCESS EXCLUSIVE MODE")
        .expect("lock");
    cluster.local(&["kill", "master2"]);
    let answer = cluster.add("nadie puede mirar");
    assert_eq!(
        (answer.status, answer.node()),
        (201, "master1"),
        "{answer:?}"
    );
    held.rollback().expect("let go");
    cluster.local(&["start", "master2"]);
    wait_level(&cluster, "zero-loss");
    cluster.wait_equal();
}

/// A link that passes nothing looks like a streaming one, and so does a worker that is held up.
#[test]
fn a_peer_that_streams_and_confirms_nothing_is_given_up() {
    let cluster = Cluster::start();
    wait_level(&cluster, "zero-loss");
    // The apply worker waits for this lock for as long as it is held.
    let mut second = cluster.sql("master2");
    let mut lock = second.transaction().expect("begin");
    lock.batch_execute("LOCK TABLE public.generos IN ACCESS EXCLUSIVE MODE")
        .expect("lock");
    let answer = cluster.add("nadie confirma");
    assert_eq!(answer.status, 201, "{answer:?}");
    wait_level(&cluster, "degraded");
    let change = newest(&cluster, "durability");
    assert_eq!(change["why"], "commits waited too long for the peer");
    assert!(change["stall_ms"].as_u64() >= Some(500), "{change}");
    // Streaming again is not enough: it must have confirmed what it missed.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(level(&cluster), "degraded");
    lock.rollback().expect("unlock");
    wait_level(&cluster, "zero-loss");
    cluster.wait_equal();
}

#[test]
fn async_is_what_it_says_and_takes_back_what_zero_loss_left() {
    let cluster = Cluster::start_with(&[("DURABILITY", "async")]);
    assert_eq!(level(&cluster), "async");
    let names = "ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (sub_from_master1)'";
    let mut sql = cluster.sql("master1");
    sql.batch_execute(names).expect("set");
    sql.batch_execute("SELECT pg_reload_conf()")
        .expect("reload");
    wait_until("nobody waits", || {
        standby_names(&cluster, "master1").is_empty()
    });
    assert_eq!(cluster.add("sin esperar").status, 201);
    // Somebody else's setting is left alone, and named.
    let cluster = Cluster::start();
    wait_level(&cluster, "zero-loss");
    let mut sql = cluster.sql("master1");
    sql.batch_execute(
        "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (ajeno, sub_from_master1)'",
    )
    .expect("set");
    sql.batch_execute("SELECT pg_reload_conf()")
        .expect("reload");
    wait_level(&cluster, "degraded");
    let reason = cluster.get("/status").body["durability"]["reason"].to_string();
    assert!(
        reason.contains("not of this program") && reason.contains("RESET"),
        "{reason}"
    );
}

#[test]
fn a_pause_holds_the_traffic_and_a_person_may_move_it_all_the_same() {
    let cluster = Cluster::start();
    wait_level(&cluster, "zero-loss");
    for wrong in [
        "/pause",
        "/pause?for=x",
        "/pause?for=25h",
        "/pause?for=0s",
        "/pause?for=1m&x=1",
    ] {
        let answer = cluster.post(wrong, "");
        assert_eq!(
            (answer.status, answer.code()),
            (400, "parameter_invalid"),
            "{wrong}"
        );
    }
    let paused = cluster.post("/pause?for=10m", "");
    assert_eq!(paused.status, 200, "{paused:?}");
    assert!(paused.body["paused_until"].is_string(), "{paused:?}");
    assert!(cluster.get("/status").body["paused_until"].is_string());
    cluster.local(&["kill", "master1"]);
    wait_until("nobody serves", || cluster.get("/health").status == 500);
    let answer = cluster.add("en pausa");
    assert_eq!((answer.status, answer.code()), (503, "no_master"));
    let reason = answer.body["reason"].to_string();
    assert!(reason.contains("a pause holds the traffic"), "{reason}");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(cluster.get("/active-node").body["active_node"], "master1");
    let moved = cluster.post("/switch-to-secondary", "");
    assert_eq!(moved.status, 200, "{moved:?}");
    assert_eq!(cluster.add("a mano").node(), "master2");
    cluster.local(&["start", "master1"]);
    cluster.wait_state("master1", "up");
    cluster.local(&["kill", "master2"]);
    wait_until("nobody serves", || cluster.get("/health").status == 500);
    let resumed = cluster.post("/resume", "");
    assert_eq!(resumed.status, 200, "{resumed:?}");
    wait_until("it fails over", || cluster.get("/health").status == 200);
    assert_eq!(cluster.add("otra vez").node(), "master1");
    // A pause ends by itself.
    assert_eq!(cluster.post("/pause?for=1s", "").status, 200);
    wait_until("the pause is over", || {
        cluster.get("/status").body["paused_until"].is_null()
    });
    assert_eq!(newest(&cluster, "pause")["to"], "running");
}

#[test]
fn force_moves_at_once_and_says_so() {
    let cluster = Cluster::start();
    wait_level(&cluster, "zero-loss");
    let wrong = cluster.post("/switch-to-secondary?force=si", "");
    assert_eq!((wrong.status, wrong.code()), (400, "parameter_invalid"));
    // What master1 writes does not arrive, so an orderly switch is refused.
    let mut second = cluster.sql("master2");
    second
        .batch_execute("ALTER SUBSCRIPTION sub_from_master1 DISABLE")
        .expect("disable");
    let id = cluster.add("aún no llegó").id();
    let refused = cluster.post("/switch-to-secondary", "");
    assert_eq!(
        (refused.status, refused.code()),
        (409, "target_behind"),
        "{refused:?}"
    );
    assert_eq!(cluster.get("/active-node").body["active_node"], "master1");
    let forced = cluster.post("/switch-to-secondary?force=true", "");
    assert_eq!(forced.status, 200, "{forced:?}");
    assert_eq!(cluster.add("forzado").node(), "master2");
    let why = newest(&cluster, "handover")["why"].to_string();
    assert!(why.contains("forced"), "{why}");
    assert_eq!(cluster.get(&format!("/generos/{id}")).status, 404);
    second
        .batch_execute("ALTER SUBSCRIPTION sub_from_master1 ENABLE")
        .expect("enable");
    wait_until("the row arrives", || {
        cluster.get(&format!("/generos/{id}")).status == 200
    });
    // Not even force serves from a master that does not answer.
    cluster.local(&["kill", "master1"]);
    let refused = cluster.post("/switch-to-primary?force=true", "");
    assert_eq!(
        (refused.status, refused.code()),
        (409, "target_down"),
        "{refused:?}"
    );
}

/// The history outlives the API, and is there without Redis too.
#[test]
fn the_history_is_kept_in_redis_and_bounded_by_the_question() {
    let cluster = Cluster::start();
    wait_level(&cluster, "zero-loss");
    cluster.local(&["kill", "master1"]);
    assert_eq!(cluster.add("tras la caída").status, 201);
    wait_until("it is in redis", || {
        let body = cluster.get("/history").body;
        let entries = body["data"].as_array().cloned().unwrap_or_default();
        body["source"] == "redis" && entries.iter().any(|entry| entry["what"] == "failover")
    });
    let failover = newest(&cluster, "failover");
    for (field, value) in [("from", "master1"), ("to", "master2")] {
        assert_eq!(failover[field], value, "{failover}");
    }
    for field in ["why", "at", "duration_ms", "stall_ms"] {
        assert!(!failover[field].is_null(), "no {field} in {failover}");
    }
    let one = cluster.get("/history?limit=1").body;
    assert_eq!(one["data"].as_array().map(Vec::len), Some(1));
    for wrong in [
        "/history?limit=0",
        "/history?limit=1001",
        "/history?after=1",
    ] {
        assert_eq!(cluster.get(wrong).code(), "parameter_invalid", "{wrong}");
    }
    let redis = cluster.status["pids"]["redis"].to_string();
    let killed = std::process::Command::new("kill")
        .args(["-9", &redis])
        .status();
    assert!(killed.expect("kill").success());
    let began = Instant::now();
    let alone = cluster.get("/history");
    assert_eq!(
        (alone.status, &alone.body["source"]),
        (200, &Value::from("memory"))
    );
    assert!(began.elapsed() < NO_HANG);
    assert!(newest(&cluster, "failover")["why"].is_string());
    assert_eq!(cluster.add("sin redis").status, 201);
}

/// PostgreSQL tells waiting commits of a new setting by its checkpointer, which a slow disk can keep busy
/// for long.
#[test]
fn a_busy_checkpointer_keeps_no_commit_waiting_for_a_peer_that_is_gone() {
    let cluster = Cluster::start();
    wait_level(&cluster, "zero-loss");
    let checkpointer = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
    let row = cluster.sql("master1").query_one(checkpointer, &[]);
    let pid: i32 = row.expect("its process").get(0);
    let signal = |name: &str| {
        let sent = std::process::Command::new("kill")
            .args(["-s", name, &pid.to_string()])
            .status();
        assert!(sent.expect("kill").success());
    };
    signal("STOP");
    cluster.local(&["kill", "master2"]);
    for index in 0..3 {
        let answer = cluster.add(&format!("sin comprobador {index}"));
        assert_eq!(
            (answer.status, answer.node()),
            (201, "master1"),
            "{answer:?}"
        );
        assert!(answer.took < NO_HANG, "{answer:?}");
    }
    wait_until("it is in the log", || {
        cluster.said().contains("freed one by one")
    });
    signal("CONT");
    cluster.local(&["start", "master2"]);
    wait_level(&cluster, "zero-loss");
    cluster.wait_equal();
}

/// What an order meets is told, once, and the order is given again until it is followed.
#[test]
fn an_order_that_a_master_refuses_is_told_and_given_again() {
    let cluster = Cluster::start();
    wait_level(&cluster, "zero-loss");
    let settings = format!("{}/master1/imdb-ha.conf", cluster.data);
    let written = std::fs::read_to_string(&settings).expect("the settings");
    let reload = |text: String| {
        std::fs::write(&settings, text).expect("write the settings");
        let reloaded = cluster
            .sql("master1")
            .execute("SELECT pg_reload_conf()", &[]);
        reloaded.expect("reload");
    };
    reload(format!("{written}\nallow_alter_system = off\n"));
    wait_until("ALTER SYSTEM is refused", || {
        let row = cluster
            .sql("master1")
            .query_one("SHOW allow_alter_system", &[]);
        row.expect("show").get::<_, String>(0) == "off"
    });
    cluster.local(&["kill", "master2"]);
    let told = "change synchronous_standby_names of master1: ERROR 0A000: ALTER SYSTEM is not allowed in this environment";
    wait_until("the refusal is told", || cluster.said().contains(told));
    let line = cluster.said();
    let line = line.lines().find(|line| line.contains(told)).expect("it");
    assert!(
        line.contains("WARN") && line.ends_with("; it is asked again"),
        "{line}"
    );
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(
        cluster.said().matches(told).count(),
        1,
        "{}",
        cluster.said()
    );
    reload(written);
    wait_until("it is followed", || {
        standby_names(&cluster, "master1").is_empty()
    });
    assert_eq!(cluster.add("sin esperar").status, 201);
}

/// A process of a server that stands still until this is dropped.
struct Stopped(i32);

impl Stopped {
    fn stop(cluster: &Cluster, node: &str, backend_type: &str) -> Stopped {
        let process = "SELECT pid FROM pg_stat_activity WHERE backend_type = $1";
        let row = cluster.sql(node).query_one(process, &[&backend_type]);
        let stopped = Stopped(row.expect("its process").get(0));
        stopped.signal("STOP");
        stopped
    }

    fn signal(&self, name: &str) {
        let sent = std::process::Command::new("kill")
            .args(["-s", name, &self.0.to_string()])
            .status();
        assert!(sent.expect("kill").success());
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.signal("CONT");
    }
}

/// WAL that reaches the disk because a segment is full, in the middle of a transaction, wakes nobody: just like a
/// flush that comes between a walsender's look and its sleep, but whenever one likes.
#[test]
fn a_walsender_that_has_missed_its_wake_up_is_woken() {
    let cluster = Cluster::start();
    wait_level(&cluster, "zero-loss");
    for (node, name) in [
        ("master1", "wal_sender_timeout"),
        ("master2", "wal_receiver_timeout"),
    ] {
        let mut sql = cluster.sql(node);
        let set = format!("ALTER SYSTEM SET {name} = '1h'");
        sql.batch_execute(&set).expect("set");
        sql.batch_execute("SELECT pg_reload_conf()")
            .expect("reload");
    }
    let woken = || {
        let answer = ureq::get(format!("{}/metrics", cluster.api)).call();
        let metrics = answer.expect("metrics").body_mut().read_to_string();
        let metrics = metrics.expect("text");
        let line = "imdb_ha_walsender_wakeups_total{master=\"master1\"} ";
        let value = metrics.lines().find_map(|text| text.strip_prefix(line));
        value.expect("the figure").parse::<u64>().expect("a number")
    };
    // Nothing else wakes it: neither the process that flushes now and then, nor its peer's answers.
    let writer = Stopped::stop(&cluster, "master1", "walwriter");
    let peer = Stopped::stop(&cluster, "master2", "logical replication apply worker");
    let before = woken();
    let mut sql = cluster.sql("master1");
    let mut open = sql.transaction().expect("begin");
    for _ in 0..40 {
        let much = "SELECT pg_logical_emit_message(true, 'prueba', repeat('x', 1000000))";
        open.execute(much, &[]).expect("write WAL");
    }
    let behind = "SELECT (SELECT sent_lsn FROM pg_stat_replication) < pg_current_wal_flush_lsn()";
    let mut look = cluster.sql("master1");
    wait_until("the walsender has sent what is on the disk", || {
        woken() > before && !look.query_one(behind, &[]).expect("look").get::<_, bool>(0)
    });
    open.rollback().expect("roll back");
    drop((writer, peer));
    assert_eq!(cluster.add("sigue").status, 201);
    cluster.wait_equal();
}
