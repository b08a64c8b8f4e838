//! A load of more than a master may keep for its peer: the slots must not be lost over what is not even sent.

mod common;

use common::{Cluster, wait_until};
use std::fmt::Write;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const BASICS: &str =
    "nconst\tprimaryName\tbirthYear\tdeathYear\tprimaryProfession\tknownForTitles\n";

/// What each master may keep.
const KEPT: &str = "64MB";

/// So many people with names of 500 characters are twice as much in one table alone.
const PEOPLE: u32 = 250_000;

#[test]
fn a_load_of_more_than_the_slots_may_keep_loses_neither() {
    let cluster = Cluster::start_flagged(&["--no-api"], &[]);
    for node in ["master1", "master2"] {
        let mut sql = cluster.sql(node);
        let set = format!("ALTER SYSTEM SET max_slot_wal_keep_size = '{KEPT}'");
        for statement in [set.as_str(), "SELECT pg_reload_conf()"] {
            sql.batch_execute(statement).expect("the bound");
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut people = BASICS.to_string();
    for id in 1..=PEOPLE {
        let _ = writeln!(
            people,
            "nm{id:07}\tN{id} {}\t\\N\t\\N\tactor,writer\t\\N",
            "x".repeat(500)
        );
    }
    fs::write(folder.path().join("name.basics.tsv"), people).expect("people");

    // A slot is lost at a checkpoint, of which a long load sees many.
    let over = AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        for node in ["master1", "master2"] {
            let (over, mut sql) = (&over, cluster.sql(node));
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    sql.batch_execute("CHECKPOINT").expect("a checkpoint");
                    std::thread::sleep(Duration::from_millis(200));
                }
            });
        }
        let output = cluster.run(&["load", &folder.path().display().to_string()]);
        over.store(true, Ordering::SeqCst);
        output
    });
    assert!(output.status.success(), "{output:?}");
    for (node, slot) in [("master1", "slot_1_to_2"), ("master2", "slot_2_to_1")] {
        let mut sql = cluster.sql(node);
        let people = sql.query_one("SELECT count(*) FROM personas", &[]);
        assert_eq!(people.expect("count").get::<_, i64>(0), i64::from(PEOPLE));
        let kept = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1";
        let status = sql.query_one(kept, &[&slot]).expect("the slot");
        assert_ne!(status.get::<_, String>(0), "lost");
    }
    wait_until("both directions stream", || {
        cluster.run(&["replication", "status"]).status.success()
    });
    cluster.wait_compare();
}
