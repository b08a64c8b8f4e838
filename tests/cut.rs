//! The link between the masters is really cut, by relays that let nothing through, and both are written.

mod common;
#[allow(dead_code)]
#[path = "../benches/chaos/relay.rs"]
mod relay;

use common::{Cluster, clean_command, wait_until};
use relay::{Mode, Relay};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn port_of(cluster: &Cluster, node: &str) -> u16 {
    let url = url::Url::parse(&cluster.url(node)).expect("a URL");
    url.port().expect("a port")
}

fn apply_errors(cluster: &Cluster, node: &str) -> i64 {
    let errors =
        "SELECT coalesce(sum(apply_error_count), 0)::bigint FROM pg_stat_subscription_stats";
    let row = cluster.sql(node).query_one(errors, &[]);
    row.expect("its statistics").get(0)
}

/// The same id inserted with different text, and the same row updated, on both sides of a cut.
#[test]
fn both_sides_of_a_cut_end_equal_and_the_conflicts_are_listed() {
    let cluster = Cluster::start();
    let nodes = ["master1", "master2"];
    let relays = nodes.map(|node| Relay::start(port_of(&cluster, node)).expect("a relay"));
    let mut setup = clean_command();
    setup.args(["replication", "setup"]);
    for (index, node) in nodes.iter().enumerate() {
        let number = index + 1;
        setup.env(format!("MASTER{number}_URL"), cluster.url(node));
        let address = format!("127.0.0.1:{}", relays[index].port);
        setup.env(format!("MASTER{number}_PEER_ADDRESS"), address);
    }
    let setup = setup.output().expect("run the set-up");
    assert!(setup.status.success(), "{setup:?}");
    wait_until("both directions stream through the relays", || {
        cluster.run(&["replication", "status"]).status.success()
    });
    let shared = cluster.add("de los dos").id();
    cluster.wait_equal();

    for (round, mode) in [Mode::Hole, Mode::Cut].into_iter().enumerate() {
        for relay in &relays {
            relay.set(mode);
        }
        let id = 900_000 + round;
        for node in nodes {
            let mut sql = cluster.sql(node);
            sql.batch_execute(&format!(
                "SET synchronous_commit = local; \
                 INSERT INTO public.generos (id_genero, genero) VALUES ({id}, 'de {node}'); \
                 UPDATE public.generos SET genero = 'cambiado en {node} {round}' WHERE id_genero = {shared}"
            ))
            .expect("write");
        }
        std::thread::sleep(Duration::from_millis(1_500));
        // The cut itself counts as one.
        let errors = nodes.map(|node| apply_errors(&cluster, node));
        for relay in &relays {
            relay.set(Mode::Pass);
        }
        let healed = Instant::now();
        let rows = cluster.wait_equal();
        println!(
            "equal {} ms after the link was back ({mode:?})",
            healed.elapsed().as_millis()
        );
        let kept = |text: &str| rows.iter().any(|row| row.contains(text));
        assert!(
            kept("de master2") && kept(&format!("cambiado en master2 {round}")),
            "{rows:?}"
        );
        wait_until("both directions stream", || {
            cluster.run(&["replication", "status"]).status.success()
        });
        let now = nodes.map(|node| apply_errors(&cluster, node));
        assert_eq!(now, errors, "a conflict stopped an apply worker");
    }
    let conflicts = cluster.get("/conflicts").body;
    let kinds: Vec<&str> = conflicts["data"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|entry: &Value| entry["kind"].as_str())
        .collect();
    for kind in ["insert_insert", "update_update"] {
        assert!(kinds.contains(&kind), "no {kind} in {conflicts}");
    }
}

/// What is acknowledged on both sides of a cut: rows with drawn ids are all kept, and of two with one chosen id
/// the later one is, with both in the list of the conflicts.
#[test]
fn drawn_ids_never_meet_and_a_chosen_one_that_does_is_listed_with_both_versions() {
    let cluster = Cluster::start_with(&[("USE_SEQUENCE", "false")]);
    let nodes = ["master1", "master2"];
    let links = |verb: &str| {
        for (node, peer) in [("master1", "master2"), ("master2", "master1")] {
            let sql = format!("ALTER SUBSCRIPTION sub_from_{peer} {verb}");
            cluster.sql(node).batch_execute(&sql).expect(verb);
        }
    };
    links("DISABLE");
    let mut kept = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        if index == 1 {
            let moved = cluster.post("/switch-to-secondary?force=true", "");
            assert_eq!(moved.status, 200, "{moved:?}");
        }
        for number in 0..3 {
            let added = cluster.add(&format!("{node} {number}"));
            assert_eq!((added.status, added.node()), (201, *node), "{added:?}");
            kept.push(format!("({},\"{node} {number}\"", added.id()));
        }
        let chosen = json!({ "id_genero": 700_001, "genero": format!("elegido en {node}") });
        let chosen = cluster.post("/generos", &chosen.to_string());
        assert_eq!((chosen.status, chosen.node()), (201, *node), "{chosen:?}");
    }
    links("ENABLE");
    let rows = cluster.wait_equal();
    for row in &kept {
        assert!(
            rows.iter().any(|found| found.starts_with(row)),
            "{row}: {rows:?}"
        );
    }
    assert!(
        rows.iter().any(|row| row.contains("elegido en master2")),
        "{rows:?}"
    );
    wait_until("both masters list the conflict", || {
        let conflicts = cluster.get("/conflicts").body;
        let entries = conflicts["data"].as_array().expect("a list");
        nodes.iter().all(|node| {
            entries.iter().any(|entry| {
                let names = [&entry["local"]["genero"], &entry["remote"]["genero"]];
                entry["master"] == *node
                    && entry["key"] == "700001"
                    && entry["kind"] == "insert_insert"
                    && names.contains(&&json!("elegido en master1"))
                    && names.contains(&&json!("elegido en master2"))
            })
        })
    });
}
