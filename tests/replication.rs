//! Setting the replication up and looking at it, over real masters.

mod common;

use common::{BINARY, Cluster, clean_command, wait_until};
use serde_json::Value;
use std::process::Output;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// Everything in the catalogues that a set-up could have made anew.
fn fingerprint(cluster: &Cluster) -> Vec<String> {
    let sql = "SELECT 'sub ' || oid || subname || subenabled || subslotname || suborigin || subsynccommit FROM pg_subscription \
        UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots \
        UNION ALL SELECT 'pub ' || oid || pubname || puballtables FROM pg_publication \
        UNION ALL SELECT 'role ' || oid || rolpassword FROM pg_authid WHERE rolname = 'replicator' \
        UNION ALL SELECT 'trigger ' || oid || tgname || tgenabled::text FROM pg_trigger WHERE tgrelid = 'generos'::regclass \
        UNION ALL SELECT 'rows ' || count(*) FROM generos ORDER BY 1";
    ["master1", "master2"]
        .iter()
        .flat_map(|node| cluster.sql(node).query(sql, &[]).expect("catalogues"))
        .map(|row| row.get(0))
        .collect()
}

#[test]
fn the_manuals_objects_are_there_and_a_second_setup_changes_nothing() {
    let cluster = Cluster::start();
    let before = fingerprint(&cluster);
    for expected in [
        "sub_from_master1",
        "sub_from_master2",
        "slot_1_to_2",
        "slot_2_to_1",
        "pub_imdb",
    ] {
        assert!(
            before.iter().any(|line| line.contains(expected)),
            "{expected}: {before:?}"
        );
    }
    let subscriptions: Vec<&String> = before
        .iter()
        .filter(|line| line.starts_with("sub "))
        .collect();
    assert!(
        subscriptions.iter().all(|line| line.contains("nonelocal")),
        "{subscriptions:?}"
    );

    // While rows are written, so that a subscription made anew would lose some.
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            (0..200)
                .filter(|number| cluster.add(&format!("g{number}")).status == 201)
                .count()
        });
        for _ in 0..3 {
            let again = cluster.run(&["replication", "setup"]);
            assert!(again.status.success(), "{}", said(&again));
            assert_eq!(said(&again).trim(), "nothing to do: the masters are joined");
        }
        assert_eq!(writing.join().expect("the writer"), 200);
    });
    assert_eq!(cluster.wait_equal().len(), 228);
    let same = |lines: &[String]| -> Vec<String> {
        lines
            .iter()
            .filter(|line| !line.starts_with("rows"))
            .cloned()
            .collect()
    };
    assert_eq!(same(&before), same(&fingerprint(&cluster)));
}

#[test]
fn a_lost_slot_is_reported_and_never_made_anew() {
    let cluster = Cluster::start();
    let mut first = cluster.sql("master1");
    let mut second = cluster.sql("master2");
    second
        .batch_execute("ALTER SUBSCRIPTION sub_from_master1 DISABLE")
        .expect("disable");
    wait_until("the slot is free", || {
        first
            .batch_execute("SELECT pg_drop_replication_slot('slot_1_to_2')")
            .is_ok()
    });
    let setup = cluster.run(&["replication", "setup"]);
    assert_eq!(setup.status.code(), Some(1));
    assert!(
        said(&setup).contains("lost its slot slot_1_to_2") && said(&setup).contains("rebuilt"),
        "{}",
        said(&setup)
    );
    let slots = first.query(
        "SELECT FROM pg_replication_slots WHERE slot_name = 'slot_1_to_2'",
        &[],
    );
    assert!(slots.expect("slots").is_empty(), "the slot was made anew");
    let status = cluster.run(&["replication", "status"]);
    assert_eq!(status.status.code(), Some(1));
    assert!(
        said(&status).contains("no slot slot_1_to_2"),
        "{}",
        said(&status)
    );
}

#[test]
fn what_is_missing_is_mended_and_said() {
    let cluster = Cluster::start();
    let mut second = cluster.sql("master2");
    second
        .batch_execute("ALTER SUBSCRIPTION sub_from_master1 DISABLE")
        .expect("disable");
    cluster.add("mientras tanto");
    let status = cluster.run(&["replication", "status", "--json"]);
    let seen: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!(
        (status.status.code(), &seen["ok"]),
        (Some(1), &Value::Bool(false))
    );
    assert_eq!(
        seen["masters"]["master2"]["replication"]["in"]["enabled"],
        false
    );

    let setup = cluster.run(&["replication", "setup"]);
    assert_eq!(
        said(&setup).trim(),
        "master2: subscription sub_from_master1 enabled"
    );
    cluster.wait_equal();
    wait_until("both directions stream", || {
        cluster.run(&["replication", "status"]).status.success()
    });
    // The milliseconds are those of the last change, which PostgreSQL remembers for a while.
    let status = cluster.run(&["replication", "status"]);
    assert!(said(&status).contains("lag 0 bytes"), "{}", said(&status));

    // Another password is taken over on both sides of both links.
    let mut command = clean_command();
    command
        .args(["replication", "setup"])
        .env("REPLICATION_PASSWORD", r"it's a \ password");
    command
        .env("MASTER1_URL", cluster.url("master1"))
        .env("MASTER2_URL", cluster.url("master2"));
    let setup = command.output().expect("run the set-up");
    assert!(setup.status.success(), "{}", said(&setup));
    assert_eq!(
        said(&setup).matches("got its password").count(),
        2,
        "{}",
        said(&setup)
    );
    cluster.add("después");
    cluster.wait_equal();
    wait_until("both directions stream", || {
        cluster.run(&["replication", "status"]).status.success()
    });
}

#[test]
fn masters_that_differ_are_not_joined() {
    let cluster = Cluster::start();
    // As two servers that were never joined: nothing of the replication, and another row on one.
    for (node, subscription) in [
        ("master1", "sub_from_master2"),
        ("master2", "sub_from_master1"),
    ] {
        cluster
            .sql(node)
            .batch_execute(&format!("DROP SUBSCRIPTION {subscription}"))
            .expect("drop");
    }
    cluster
        .sql("master2")
        .batch_execute("INSERT INTO generos VALUES (99, 'solo aquí')")
        .expect("insert");
    let setup = cluster.run(&["replication", "setup"]);
    assert_eq!(setup.status.code(), Some(1));
    assert!(
        said(&setup).contains("28 rows on master1, 29 on master2"),
        "{}",
        said(&setup)
    );
}

/// A subscription that was dropped with its slot is not made anew over rows that it has missed.
#[test]
fn a_dropped_link_is_joined_again_only_while_nothing_is_missing() {
    let cluster = Cluster::start();
    let mut second = cluster.sql("master2");
    second
        .batch_execute("DROP SUBSCRIPTION sub_from_master1")
        .expect("drop");
    let again = cluster.run(&["replication", "setup"]);
    assert!(
        again.status.success() && said(&again).contains("sub_from_master1 created"),
        "{}",
        said(&again)
    );
    second
        .batch_execute("DROP SUBSCRIPTION sub_from_master1")
        .expect("drop");
    cluster.add("se perdería");
    let refused = cluster.run(&["replication", "setup"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said(&refused).contains("generos differs (29 rows on master1, 28 on master2)"),
        "{}",
        said(&refused)
    );
}

#[test]
fn a_master_that_is_not_there_or_too_plain_is_one_clear_error() {
    let cluster = Cluster::start();
    cluster.local(&["stop", "master2"]);
    let status = cluster.run(&["replication", "status"]);
    assert_eq!(status.status.code(), Some(1));
    assert!(
        said(&status).contains("Connection refused"),
        "{}",
        said(&status)
    );
    let setup = cluster.run(&["replication", "setup"]);
    assert_eq!(setup.status.code(), Some(1));
    assert!(
        said(&setup).contains("master2") && !said(&setup).contains("root:root"),
        "{}",
        said(&setup)
    );

    let wrong = std::process::Command::new(BINARY)
        .args(["replication", "status"])
        .env("MASTER1_URL", "postgresql://root:hunter2@127.0.0.1:1")
        .env("PORT", "no")
        .output()
        .expect("run imdb-ha");
    assert_eq!(wrong.status.code(), Some(2));
    let text = said(&wrong);
    assert!(
        text.contains("MASTER1_URL: names no database") && text.contains("PORT: must be"),
        "{text}"
    );
    assert!(!text.contains("hunter2"), "{text}");
}
