//! Statements that reach a master late: they were sent, given up on and repeated on the other master, and
//! run when their own master can be reached again.

mod common;

use common::{Answer, Cluster, wait_until};
use std::process::Command;

/// The sessions that have served requests; the probe has asked other things.
const REQUESTS: &str = "%public.generos%";

fn put(cluster: &Cluster, id: i32, genero: &str) -> Answer {
    let body = serde_json::json!({ "genero": genero }).to_string();
    let headers = [("Content-Type", "application/json")];
    cluster.ask("PUT", &format!("/generos/{id}"), Some(&body), &headers)
}

fn post(cluster: &Cluster, id: i32) -> Answer {
    cluster.post(
        "/generos",
        &format!(r#"{{"id_genero":{id},"genero":"tarde"}}"#),
    )
}

/// Sends a signal to every session of the API on a master. Stopped, they hold what has been sent to
/// them, as a cut link does; replication goes on. `last` is what their last statement is like.
fn signal_sessions(cluster: &Cluster, node: &str, last: &str, signal: &str) {
    let rows = cluster.sql(node).query(
        "SELECT pid FROM pg_catalog.pg_stat_activity \
         WHERE application_name = 'imdb-ha' AND query LIKE $1",
        &[&last],
    );
    for row in rows.expect("the sessions") {
        let pid: i32 = row.get(0);
        let done = Command::new("kill")
            .args([signal, &pid.to_string()])
            .status();
        assert!(done.expect("kill").success());
    }
}

/// A row that was deleted on the other master meanwhile must not come back with the insert that comes late.
#[test]
fn an_insert_that_comes_late_brings_no_deleted_row_back() {
    let cluster = Cluster::start();
    wait_until("the durability is zero-loss", || {
        cluster.get("/health").body["durability"] == "zero-loss"
    });
    assert_eq!(post(&cluster, 1_001).status, 201);
    signal_sessions(&cluster, "master1", "%", "-STOP");
    let retried = post(&cluster, 1_003);
    assert_eq!(
        (retried.status, retried.node()),
        (201, "master2"),
        "{retried:?}"
    );
    let changed = put(&cluster, 1_003, "otro");
    assert_eq!(changed.status, 200, "{changed:?}");
    let deleted = cluster.ask("DELETE", "/generos/1003", None, &[]);
    assert_eq!(deleted.status, 200, "{deleted:?}");
    let mut first = cluster.sql("master1");
    wait_until("the deletion is on master1", || {
        let found = first.query("SELECT FROM imdb_ha.borrados WHERE id_genero = 1003", &[]);
        !found.expect("look").is_empty()
    });
    signal_sessions(&cluster, "master1", "%", "-CONT");
    cluster.wait_state("master1", "up");
    std::thread::sleep(std::time::Duration::from_millis(500));
    cluster.wait_equal();
    assert_eq!(cluster.get("/generos/1003").status, 404, "it came back");
}

/// Nobody waits any more for what was answered with 503, so it must not take itself for the newest.
#[test]
fn an_update_that_was_given_up_undoes_no_newer_one() {
    let cluster = Cluster::start_with(&[("POOL_SIZE", "2"), ("REQUEST_DEADLINE_MS", "5000")]);
    wait_until("the durability is zero-loss", || {
        cluster.get("/health").body["durability"] == "zero-loss"
    });
    assert_eq!(put(&cluster, 5, "antes").status, 200);
    let mut first = cluster.sql("master1");
    signal_sessions(&cluster, "master1", REQUESTS, "-STOP");
    let unknown = put(&cluster, 5, "viejo");
    assert_eq!(
        (unknown.status, unknown.code()),
        (503, "outcome_unknown"),
        "{unknown:?}"
    );
    wait_until("another session serves", || {
        put(&cluster, 5, "nuevo").status == 200
    });
    signal_sessions(&cluster, "master1", REQUESTS, "-CONT");
    std::thread::sleep(std::time::Duration::from_secs(1));
    let genero: String = first
        .query_one("SELECT genero FROM public.generos WHERE id_genero = 5", &[])
        .expect("read")
        .get(0);
    assert_eq!(
        genero, "nuevo",
        "the update that was given up came after the newer one"
    );
    cluster.wait_equal();
}

/// Clocks differ, so a deletion can be later than the request that follows it.
#[test]
fn a_row_that_follows_a_deletion_from_the_future_stays() {
    let cluster = Cluster::start();
    let bury = "INSERT INTO imdb_ha.borrados (id_genero, cuando, nodo, fila) \
        SELECT 1005, clock_timestamp() + interval '1 hour', 2, to_jsonb(g) FROM public.generos AS g LIMIT 1";
    let mut first = cluster.sql("master1");
    first.batch_execute(bury).expect("bury");
    let posted = post(&cluster, 1_005);
    assert_eq!(posted.status, 201, "{posted:?}");
    assert_eq!(post(&cluster, 1_005).status, 409);
    cluster.wait_equal();
    for node in ["master1", "master2"] {
        let row = cluster.sql(node).query(
            "SELECT FROM public.generos WHERE id_genero = 1005 AND cambiado_en > \
             (SELECT cuando FROM imdb_ha.borrados WHERE id_genero = 1005)",
            &[],
        );
        assert_eq!(row.expect("look").len(), 1, "{node}");
    }
    // What arrives while an insert of the API is under way fails it, and it is sent again.
    let mut late = first.transaction().expect("begin");
    let failed = late.batch_execute(
        "SET LOCAL imdb_ha.exacta = on; DELETE FROM public.generos WHERE id_genero = 1005; \
         INSERT INTO public.generos (id_genero, genero) VALUES (1005, 'tarde')",
    );
    let code = failed.expect_err("refused").code().cloned();
    assert_eq!(
        code,
        Some(postgres::error::SqlState::T_R_SERIALIZATION_FAILURE)
    );
}
