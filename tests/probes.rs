//! What a probe does beside asking must not make its master look silent.

mod common;

use common::{Cluster, wait_until, wait_until_within};
use std::time::Duration;

fn wait_zero_loss(cluster: &Cluster) {
    wait_until("the durability is zero-loss", || {
        cluster.get("/health").body["durability"] == "zero-loss"
    });
}

/// Longer than a machine with other things to do takes for an answer, and shorter than what is done to the masters here.
const SILENCE: (&str, &str) = ("SILENCE_DEADLINE_MS", "3000");

#[test]
fn a_locked_conflict_log_is_no_silence() {
    let cluster = Cluster::start_with(&[SILENCE]);
    wait_zero_loss(&cluster);
    let mut sql = cluster.sql("master1");
    let mut lock = sql.transaction().expect("begin");
    lock.batch_execute("LOCK TABLE imdb_ha.conflictos, imdb_ha.borrados IN ACCESS EXCLUSIVE MODE")
        .expect("lock");
    std::thread::sleep(Duration::from_millis(4_500));
    let status = cluster.get("/status").body;
    assert_eq!(status["active_node"], "master1", "it failed over");
    assert_eq!(status["masters"]["master1"]["state"], "up");
    lock.rollback().expect("unlock");
    wait_until("the conflicts are counted again", || {
        cluster.get("/status").body["conflicts"]["master1"] == 0
    });
}

/// Days of deletions can be due at once, and of keys.
#[test]
fn pruning_many_deletions_and_keys_is_no_silence() {
    let cluster = Cluster::start_with(&[("SILENCE_DEADLINE_MS", "2000")]);
    wait_zero_loss(&cluster);
    let mut sql = cluster.sql("master1");
    sql.batch_execute(
        "INSERT INTO imdb_ha.borrados SELECT n, now() - interval '40 days', 1, \
         jsonb_build_object('id_genero', n, 'genero', 'x', 'cambiado_en', now() - interval '50 days', 'nodo', 1) \
         FROM generate_series(100001, 105000) AS n; \
         INSERT INTO imdb_ha.claves SELECT 'vieja ' || n, '', 'POST', n, 'x', now() - interval '26 hours', 1 \
         FROM generate_series(1, 3000) AS n; \
         INSERT INTO imdb_ha.claves VALUES ('de ayer', '', 'POST', 1, 'x', now() - interval '23 hours', 1); \
         CREATE FUNCTION public.lento() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM pg_sleep(0.0005); RETURN OLD; END $$; \
         CREATE TRIGGER lento BEFORE DELETE ON imdb_ha.borrados FOR EACH ROW EXECUTE FUNCTION public.lento()",
    )
    .expect("fill");
    wait_until("the deletions are on master2", || {
        let there = cluster
            .sql("master2")
            .query_one("SELECT count(*) FROM imdb_ha.borrados", &[]);
        there.expect("count").get::<_, i64>(0) == 5_000
    });
    // As the changes of the other master's own pruning do, somebody locks a few of them.
    let mut holder = cluster.sql("master1");
    let mut held = holder.transaction().expect("begin");
    held.execute(
        "SELECT FROM imdb_ha.borrados WHERE id_genero <= 100010 FOR UPDATE",
        &[],
    )
    .expect("hold");
    // A probe prunes first of all after its start.
    let api = cluster.status["pids"]["api"].to_string();
    let killed = std::process::Command::new("kill")
        .args(["-9", &api])
        .status();
    assert!(killed.expect("kill").success());
    let mut left = || -> i64 {
        let left = sql.query_one("SELECT count(*) FROM imdb_ha.borrados", &[]);
        left.expect("count").get(0)
    };
    // A pruning that failed for want of a processor is tried again after a minute, perhaps more than once.
    let patience = Duration::from_secs(300);
    wait_until_within(patience, "others are pruned", || left() < 5_000);
    held.rollback().expect("let go");
    wait_until_within(patience, "all are pruned", || left() == 0);
    // The keys of a day are kept, on both masters, and those before them on neither.
    for node in ["master1", "master2"] {
        let mut sql = cluster.sql(node);
        wait_until_within(patience, "old keys are forgotten", || {
            let keys = sql.query("SELECT clave FROM imdb_ha.claves", &[]);
            let keys = keys.expect("the keys");
            keys.len() == 1 && keys[0].get::<_, String>(0) == "de ayer"
        });
    }
    wait_zero_loss(&cluster);
    let said = cluster.said();
    assert!(!said.contains("silent past the deadline"), "{said}");
}
