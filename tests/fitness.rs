//! A master that answers and is of no use: it refuses writes, has no connection left, or holds up what its peer sends. And what a
//! person is told of it; over real servers.

mod common;

use common::{Cluster, wait_until};
use std::time::Duration;

fn alarms(cluster: &Cluster) -> String {
    cluster.get("/status").body["alarms"].to_string()
}

fn wait_well(cluster: &Cluster) {
    wait_until("both masters are up, zero-loss, without alarms", || {
        let status = cluster.get("/status").body;
        let up = |node: &str| status["masters"][node]["state"] == "up";
        let zero_loss = status["durability"]["level"] == "zero-loss";
        up("master1") && up("master2") && zero_loss && status["alarms"] == serde_json::json!([])
    });
}

/// Brings the traffic back to master1 once all is well.
fn home(cluster: &Cluster) {
    wait_well(cluster);
    if cluster.get("/active-node").body["active_node"] != "master1" {
        let answer = cluster.post("/switch-to-primary", "");
        assert_eq!(answer.status, 200, "{answer:?}");
        wait_well(cluster);
    }
}

fn sql(cluster: &Cluster, node: &str, statements: &[&str]) {
    let mut client = cluster.sql(node);
    for statement in statements {
        client
            .batch_execute(statement)
            .unwrap_or_else(|error| panic!("{node}: {statement}: {error:?}"));
    }
}

fn read_only(cluster: &Cluster, node: &str, on: bool) {
    let value = if on { "on" } else { "off" };
    let set = format!("ALTER SYSTEM SET default_transaction_read_only = {value}");
    sql(cluster, node, &[&set, "SELECT pg_reload_conf()"]);
}

/// Waits until the traffic has left master1 because of `message`, and looks at what is told of it.
fn assert_left(cluster: &Cluster, message: &str) {
    wait_until("the traffic has left master1", || {
        cluster.get("/active-node").body["active_node"] == "master2"
    });
    let answer = cluster.add(&format!("tras {message}"));
    assert_eq!(
        (answer.status, answer.node()),
        (201, "master2"),
        "{answer:?}"
    );
    let status = cluster.get("/status").body;
    let change = status["history"]
        .as_array()
        .expect("a history")
        .iter()
        .find(|change| change["what"] == "failover")
        .expect("a failover")
        .clone();
    assert_eq!(
        change["why"],
        "the active master refuses writes and its peer takes them"
    );
    assert!(
        change["cause"].to_string().contains(message),
        "{change}, not {message}"
    );
    let told = alarms(cluster);
    assert!(
        told.contains("master1: it answers and refuses writes") && told.contains(message),
        "{told}"
    );
}

/// Nobody writes at all, and the state that is shown is true all the same.
#[test]
fn a_master_that_refuses_writes_does_not_serve() {
    let cluster = Cluster::start();
    wait_well(&cluster);
    let history = || cluster.get("/status").body["history"].to_string();
    let before = cluster.get("/metrics");
    assert_eq!(before.status, 200);

    // Read-only, by somebody's hand.
    read_only(&cluster, "master1", true);
    assert_left(&cluster, "25006");
    cluster.wait_state("master1", "unfit");
    let refused = cluster.post("/switch-to-primary", "");
    assert_eq!(
        (refused.status, refused.code()),
        (409, "target_unfit"),
        "{refused:?}"
    );
    assert!(
        cluster
            .said()
            .contains("ALARM: master1: it answers and refuses writes")
    );

    // Both refuse: nobody is helped by a move.
    read_only(&cluster, "master2", true);
    wait_until("writes are said to be refused", || {
        let health = cluster.get("/health");
        health.status == 200 && health.body["ok"] == false && health.body["writes"] == "refused"
    });
    let strict = |code: i32| {
        let port = cluster.api.rsplit(':').next().expect("a port");
        let ask = |flags: &[&str]| cluster.run(&[&["health", "--port", port], flags].concat());
        assert_eq!(ask(&[]).status.code(), Some(0), "it serves reads");
        let told = ask(&["--strict"]);
        assert_eq!(told.status.code(), Some(code), "{told:?}");
    };
    strict(2);
    assert_eq!(cluster.get("/generos/1").status, 200);
    let answer = cluster.add("nadie");
    assert_eq!(
        (answer.status, answer.code()),
        (500, "database_error"),
        "{answer:?}"
    );
    let changes = |what: &str| history().matches(what).count();
    let moved = changes(r#""what":"failover""#);
    std::thread::sleep(Duration::from_secs(8)); // four times what makes one move
    assert_eq!(changes(r#""what":"failover""#), moved, "{}", history());
    assert_eq!(cluster.get("/active-node").body["active_node"], "master2");

    // Fit again, and nothing goes home by itself.
    read_only(&cluster, "master1", false);
    read_only(&cluster, "master2", false);
    wait_well(&cluster);
    strict(0);
    assert_eq!(cluster.get("/health").body["ok"], true);
    home(&cluster);

    // A column is gone, which EXPLAIN finds.
    sql(
        &cluster,
        "master1",
        &["ALTER TABLE generos RENAME COLUMN genero TO otro"],
    );
    assert_left(&cluster, "42703");
    sql(
        &cluster,
        "master1",
        &["ALTER TABLE generos RENAME COLUMN otro TO genero"],
    );
    home(&cluster);

    // A function beneath the trigger of a deletion, which only a trial finds; a client's deletion asks for it.
    sql(
        &cluster,
        "master1",
        &["ALTER TABLE imdb_ha.borrados RENAME TO otros"],
    );
    let deleted = cluster.ask("DELETE", "/generos/28", None, &[]);
    assert_eq!(deleted.status, 500, "{deleted:?}");
    assert_left(&cluster, "42P01");
    sql(
        &cluster,
        "master1",
        &["ALTER TABLE imdb_ha.otros RENAME TO borrados"],
    );
    home(&cluster);
    cluster.wait_equal();
    cluster.wait_compare();
}
