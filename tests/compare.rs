//! Whether the comparison tells the truth about two real masters, and mends only what it may.

mod common;

use common::{Cluster, FILM_TABLES, IN_THE_END, ROWS_FROM_THE_START, wait_until};
use postgres::Client;
use serde_json::{Value, json};
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

fn cluster() -> Cluster {
    Cluster::start_with(&[("COMPARE_INTERVAL", "off")])
}

/// Runs `imdb-ha compare --json` and returns its exit code and report.
fn compare(cluster: &Cluster, arguments: &[&str]) -> (i32, Value) {
    let output = cluster.run(&[&["compare", "--json"], arguments].concat());
    let report =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {output:?}"));
    (output.status.code().expect("an exit code"), report)
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A session whose changes the peer never sees, and in which no trigger changes a row.
fn behind_the_back(cluster: &Cluster, node: &str) -> Client {
    let mut client = cluster.sql(node);
    client
        .batch_execute(
            "SELECT pg_replication_origin_create('test') WHERE pg_replication_origin_oid('test') IS NULL; \
             SELECT pg_replication_origin_session_setup('test'); \
             SET session_replication_role = replica; SET imdb_ha.reparar = 'on'",
        )
        .expect("an origin");
    client
}

fn all(client: &mut Client, sql: &str) -> Vec<String> {
    let rows = client.query(sql, &[]).expect(sql);
    rows.iter().map(|row| row.get(0)).collect()
}

/// The keys of the first table's report, each with what is the matter.
fn told(report: &Value, table: &str) -> Vec<(Value, String)> {
    let tables = report["tables"].as_array().expect("tables");
    let of_table = tables
        .iter()
        .find(|one| one["table"] == table)
        .expect(table);
    let differences = of_table["differences"].as_array().expect("differences");
    let each = differences.iter().map(|one| {
        let what = one["what"].as_str().expect("what").to_string();
        (one["key"].clone(), what)
    });
    each.collect()
}

#[test]
fn rows_on_their_way_are_no_difference() {
    let cluster = cluster();
    let hot: Vec<i64> = (0..3).map(|_| cluster.add("caliente").id()).collect();
    let (stop, writes) = (AtomicBool::new(false), AtomicUsize::new(0));
    let began = Instant::now();
    thread::scope(|scope| {
        for writer in 0..4 {
            let (cluster, stop, writes, hot) = (&cluster, &stop, &writes, &hot);
            scope.spawn(move || {
                for round in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let name = json!({ "genero": format!("{writer}-{round}") }).to_string();
                    let json = &[("Content-Type", "application/json")][..];
                    let made = cluster.post("/generos", &name);
                    let put = format!("/generos/{}", hot[round % hot.len()]);
                    let changed = cluster.ask("PUT", &put, Some(&name), json);
                    let deleted = match round % 3 {
                        0 => {
                            cluster
                                .ask("DELETE", &format!("/generos/{}", made.id()), None, &[])
                                .status
                        }
                        _ => 200,
                    };
                    assert_eq!((made.status, changed.status, deleted), (201, 200, 200));
                    writes.fetch_add(2, Ordering::SeqCst);
                    // Faster than this, a master without a processor of its own lags ever further behind.
                    thread::sleep(Duration::from_millis(15));
                }
            });
        }
        // For as long as it takes until there was something to see.
        let mut reports = Vec::new();
        while reports.len() < 8 || writes.load(Ordering::SeqCst) <= 200 {
            assert!(
                began.elapsed() < Duration::from_secs(120),
                "the writers are stuck"
            );
            reports.push(compare(&cluster, &[]));
        }
        stop.store(true, Ordering::SeqCst);
        for (code, report) in reports {
            assert_eq!(
                (code, report["state"].as_str()),
                (0, Some("equal")),
                "{report}"
            );
        }
    });
    let (writes, took) = (writes.load(Ordering::SeqCst), began.elapsed());
    println!("{writes} writes in {took:?}");
    let (code, report) = compare(&cluster, &["generos"]);
    assert_eq!(
        (code, report["tables"][0]["differing"].as_u64()),
        (0, Some(0)),
        "{report}"
    );
}

#[test]
fn each_kind_of_difference_is_found_by_key_and_mended_without_an_echo() {
    let cluster = cluster();
    let (mut first, mut second) = (
        behind_the_back(&cluster, "master1"),
        behind_the_back(&cluster, "master2"),
    );
    first
        .batch_execute(
            "INSERT INTO generos (id_genero, genero) VALUES (1001, 'solo en el primero')",
        )
        .expect("insert");
    second
        .batch_execute(
            "INSERT INTO generos (id_genero, genero) VALUES (2002, 'solo en el segundo'); \
             DELETE FROM generos WHERE id_genero = 3; \
             UPDATE generos SET genero = 'otra', cambiado_en = now() WHERE id_genero = 5; \
             UPDATE generos SET nodo = 2 WHERE id_genero = 6",
        )
        .expect("change");
    let (code, report) = compare(&cluster, &[]);
    assert_eq!(
        (code, report["state"].as_str()),
        (1, Some("differing")),
        "{report}"
    );
    let expected = [
        (
            json!({ "id_genero": "1001" }),
            "missing on master2".to_string(),
        ),
        (
            json!({ "id_genero": "2002" }),
            "missing on master1".to_string(),
        ),
        (
            json!({ "id_genero": "3" }),
            "missing on master2".to_string(),
        ),
        (json!({ "id_genero": "5" }), "not the same".to_string()),
        (json!({ "id_genero": "6" }), "not the same".to_string()),
    ];
    assert_eq!(told(&report, "generos"), expected);

    // Which stored tuples master1 has: an echo of the repair would write some anew.
    let tuples = "SELECT concat_ws(' ', id_genero, xmin, ctid) FROM generos ORDER BY id_genero";
    let (rows, before) = (cluster.rows("master1"), all(&mut first, tuples));
    let repair = cluster.run(&["compare", "--repair", "master1"]);
    assert_eq!(repair.status.code(), Some(0), "{}", text(&repair));
    let said = "repair from master1: 2 inserted, 2 updated, 1 deleted, 0 left alone";
    assert!(text(&repair).contains(said), "{}", text(&repair));
    assert!(
        text(&repair).contains("the masters are equal"),
        "{}",
        text(&repair)
    );
    cluster
        .sql("master2")
        .batch_execute("INSERT INTO generos (id_genero, genero) VALUES (3000, 'seña')")
        .expect("insert");
    wait_until("what was written later has arrived", || {
        all(
            &mut first,
            "SELECT genero FROM generos WHERE id_genero = 3000",
        )
        .len()
            == 1
    });
    let mut after = all(&mut first, tuples);
    after.retain(|tuple| !tuple.starts_with("3000 "));
    assert_eq!(after, before);
    let mut mended = cluster.rows("master2");
    mended.retain(|row| !row.starts_with("(3000,"));
    assert_eq!(mended, rows);

    // What was mended goes on being replicated, both ways.
    cluster.ask(
        "PUT",
        "/generos/3",
        Some(r#"{"genero": "otra vez"}"#),
        &[("Content-Type", "application/json")],
    );
    cluster
        .sql("master2")
        .batch_execute("DELETE FROM generos WHERE id_genero = 1001")
        .expect("delete");
    wait_until("the deletion has arrived", || {
        all(
            &mut first,
            "SELECT genero FROM generos WHERE id_genero = 1001",
        )
        .is_empty()
    });
    cluster.wait_equal();
}

#[test]
fn the_older_version_is_the_truth_when_it_is_named_so() {
    let cluster = cluster();
    behind_the_back(&cluster, "master1")
        .batch_execute(
            "UPDATE generos SET genero = 'nueva', cambiado_en = now() WHERE id_genero = 7",
        )
        .expect("update");
    let older = cluster.rows("master2");
    let (code, report) = compare(&cluster, &["--repair", "master2"]);
    assert_eq!(
        (code, report["repair"]["updated"].as_u64()),
        (0, Some(1)),
        "{report}"
    );
    assert_eq!(cluster.rows("master1"), older);
    assert_eq!(cluster.rows("master2"), older);
}

/// What README says that a role needs which is no superuser.
#[test]
fn a_plain_role_compares_and_with_four_grants_repairs() {
    let cluster = cluster();
    for node in ["master1", "master2"] {
        let mut client = behind_the_back(&cluster, node);
        let sql = "CREATE ROLE simple LOGIN PASSWORD 'simple'; GRANT pg_monitor TO simple; \
             GRANT SELECT ON ALL TABLES IN SCHEMA public TO simple; \
             GRANT INSERT, UPDATE, DELETE ON generos TO simple";
        client.batch_execute(sql).expect("a role");
    }
    behind_the_back(&cluster, "master2")
        .batch_execute("DELETE FROM generos WHERE id_genero = 8; UPDATE generos SET genero = 'x' WHERE id_genero = 9")
        .expect("change");
    let as_simple = |arguments: &[&str]| {
        let url = |node: &str| cluster.url(node).replace("root:root", "simple:simple");
        let mut command = common::clean_command();
        command
            .args(arguments)
            .env("MASTER1_URL", url("master1"))
            .env("MASTER2_URL", url("master2"));
        command.output().expect("run imdb-ha")
    };
    let differing = as_simple(&["compare"]);
    assert!(
        text(&differing).contains("2 DIFFER"),
        "{}",
        text(&differing)
    );
    let refused = as_simple(&["compare", "--repair", "master1"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused);
    assert!(
        said.contains("begin the repair on master2") && said.contains("permission denied"),
        "{said}"
    );
    cluster
        .sql("master2")
        .batch_execute(
            "GRANT SET ON PARAMETER session_replication_role TO simple; \
             GRANT EXECUTE ON FUNCTION pg_replication_origin_create(text), pg_replication_origin_oid(text), \
                 pg_replication_origin_session_setup(text), pg_replication_origin_session_is_setup() TO simple",
        )
        .expect("grant");
    let repaired = as_simple(&["compare", "--repair", "master1"]);
    assert!(
        text(&repaired).contains("1 inserted, 1 updated, 0 deleted"),
        "{}",
        text(&repaired)
    );
    assert_eq!(repaired.status.code(), Some(0));
    assert_eq!(cluster.rows("master1"), cluster.rows("master2"));
}

/// The row to be mended is being written by somebody else, whose transaction ends only once the repair
/// waits for it.
#[test]
fn a_newer_write_is_left_alone_and_looked_at_again() {
    let cluster = cluster();
    behind_the_back(&cluster, "master2")
        .batch_execute("UPDATE generos SET genero = 'errada' WHERE id_genero = 5")
        .expect("update");
    let mut writer = cluster.sql("master2");
    let mut transaction = writer.transaction().expect("begin");
    transaction
        .batch_execute("UPDATE generos SET genero = 'más nueva' WHERE id_genero = 5")
        .expect("update");
    thread::scope(|scope| {
        let repair = scope.spawn(|| compare(&cluster, &["--repair", "master1"]));
        let mut watcher = cluster.sql("master2");
        wait_until("the repair waits for the row", || {
            let waiting = "SELECT query FROM pg_stat_activity \
                 WHERE application_name = 'imdb-ha compare' AND wait_event_type = 'Lock'";
            !all(&mut watcher, waiting).is_empty()
        });
        transaction.commit().expect("commit");
        let (code, report) = repair.join().expect("the repair");
        assert_eq!(code, 0, "{report}");
        assert_eq!(report["repair"]["left_alone"], 1, "{report}");
        assert_eq!(report["repair"]["updated"], 0, "{report}");
    });
    for node in ["master1", "master2"] {
        let now = all(
            &mut cluster.sql(node),
            "SELECT genero FROM generos WHERE id_genero = 5",
        );
        assert_eq!(now, ["más nueva"], "{node}");
    }
}

/// Rows are mended while the API writes the same rows: no acknowledged write may be undone by it.
#[test]
fn a_repair_among_writes_undoes_none_of_them() {
    let cluster = cluster();
    behind_the_back(&cluster, "master2")
        .batch_execute(
            "DELETE FROM generos WHERE id_genero BETWEEN 1 AND 10; \
             UPDATE generos SET genero = 'errada', cambiado_en = now() - interval '1 day' \
             WHERE id_genero BETWEEN 11 AND 20",
        )
        .expect("change");
    let stop = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = std::collections::BTreeMap::new();
            let mut round = 0_i64;
            // Each of the rows once, at least.
            while !stop.load(Ordering::SeqCst) || round < 20 {
                let (id, name) = (round * 7 % 20 + 1, format!("escrito {round}"));
                let body = json!({ "genero": name }).to_string();
                let json = &[("Content-Type", "application/json")][..];
                let put = cluster.ask("PUT", &format!("/generos/{id}"), Some(&body), json);
                assert_eq!(put.status, 200, "{put:?}");
                written.insert(id, name);
                round += 1;
                thread::sleep(Duration::from_millis(5));
            }
            written
        });
        for _ in 0..3 {
            // Rows that are written all the time may stay unsettled; none is mended wrongly.
            compare(&cluster, &["--repair", "master1"]);
        }
        stop.store(true, Ordering::SeqCst);
        writer.join().expect("the writer")
    });
    let (code, report) = compare(&cluster, &["--repair", "master1"]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(written.len(), 20);
    for node in ["master1", "master2"] {
        let now = all(
            &mut cluster.sql(node),
            "SELECT genero FROM generos WHERE id_genero <= 20 ORDER BY id_genero",
        );
        assert_eq!(now, written.values().cloned().collect::<Vec<_>>(), "{node}");
    }
}

#[test]
fn what_cannot_be_compared_is_said_in_time() {
    let cluster = cluster();
    // A direction that does not stream: the new row may be on its way, and nobody can tell.
    let mut second = cluster.sql("master2");
    second
        .batch_execute("ALTER SUBSCRIPTION sub_from_master1 DISABLE")
        .expect("disable");
    let id = cluster.add("en camino").id();
    let (code, report) = compare(&cluster, &["--repair", "master2"]);
    assert_eq!(
        (code, report["state"].as_str()),
        (1, Some("unsettled")),
        "{report}"
    );
    assert_eq!(
        (report["differing"].as_u64(), report["unsettled"].as_u64()),
        (Some(0), Some(1)),
        "{report}"
    );
    assert_eq!(
        told(&report, "generos"),
        [(
            json!({ "id_genero": id.to_string() }),
            "missing on master2".to_string()
        )]
    );
    assert!(
        report["troubles"]
            .to_string()
            .contains("sub_from_master1 is disabled"),
        "{report}"
    );
    assert_eq!(report["repair"]["deleted"], 0, "{report}");
    let shown = text(&cluster.run(&["compare"]));
    assert!(
        shown.contains("NOT SETTLED") && shown.contains("(not settled)"),
        "{shown}"
    );
    second
        .batch_execute("ALTER SUBSCRIPTION sub_from_master1 ENABLE")
        .expect("enable");
    cluster.wait_equal();
    wait_until("the masters are equal", || compare(&cluster, &[]).0 == 0);

    let unknown = cluster.run(&["compare", "nada"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        text(&unknown).contains("neither master has a table nada"),
        "{}",
        text(&unknown)
    );

    cluster.local(&["freeze", "master2"]);
    let began = Instant::now();
    let (code, report) = compare(&cluster, &[]);
    let took = began.elapsed();
    cluster.local(&["thaw", "master2"]);
    assert_eq!(
        (code, report["state"].as_str()),
        (1, Some("failed")),
        "{report}"
    );
    assert!(
        report["error"]
            .as_str()
            .expect("an error")
            .contains("on master2"),
        "{report}"
    );
    assert!(took < IN_THE_END, "it took {took:?}");

    cluster.local(&["kill", "master2"]);
    let dead = cluster.run(&["compare"]);
    assert_eq!(dead.status.code(), Some(1));
    let shown = text(&dead);
    assert!(
        shown.contains("master2") && shown.contains("Connection refused"),
        "{shown}"
    );
}

/// Everything that makes a text of a row depend on the session or on the order of its columns.
#[test]
fn wide_rows_with_awkward_keys_are_compared_exactly() {
    let cluster = cluster();
    let mut masters = ["master1", "master2"].map(|node| behind_the_back(&cluster, node));
    let database = "ALTER DATABASE \"bases2-db\" SET";
    masters[1]
        .batch_execute(&format!(
            "{database} datestyle = 'German'; {database} timezone = 'Asia/Tokyo'; \
             {database} intervalstyle = 'iso_8601'; {database} bytea_output = 'escape'; \
             {database} extra_float_digits = 0"
        ))
        .expect("settings");
    let columns = [
        "\"la clave\" text",
        "parte varchar(40)",
        "n numeric(20, 5)",
        "f float8",
        "g float4",
        "cuando timestamptz",
        "fecha date",
        "hace interval",
        "datos bytea",
        "lista text[]",
        "j jsonb",
        "si boolean",
        "c char(5)",
        "doble float8 GENERATED ALWAYS AS (f * 2) STORED",
    ];
    for (client, turned) in masters.iter_mut().zip([false, true]) {
        let mut columns = columns.to_vec();
        if turned {
            columns.reverse();
        }
        client
            .batch_execute(&format!(
                "CREATE TABLE \"Ancha \"\" tabla\" ({}, PRIMARY KEY (parte, \"la clave\"))",
                columns.join(", ")
            ))
            .expect("create");
        client
            .batch_execute(
                "INSERT INTO \"Ancha \"\" tabla\" (\"la clave\", parte, n, f, g, cuando, fecha, hace, \
                     datos, lista, j, si, c) \
                 SELECT CASE i % 5 WHEN 0 THEN '' WHEN 1 THEN 'it''s \"' || i WHEN 2 THEN E'\\\\ñ\\n' \
                         WHEN 3 THEN '{x,y}' ELSE 'NULL' END, \
                     CASE WHEN i % 7 = 0 THEN 'É' ELSE 'e' END || i, i / 7.0, \
                     CASE WHEN i % 11 = 0 THEN 'NaN' ELSE 1 / (i + 0.1)::float8 END, i / 3.0::float4, \
                     '2024-01-31 23:59:59.123456+00'::timestamptz + i * interval '1 hour', \
                     CASE WHEN i % 2 = 0 THEN date '2024-01-31' + i END, make_interval(mins => i), \
                     decode(md5(i::text), 'hex'), ARRAY['a', NULL, 'b \"' || i], \
                     jsonb_build_object('i', i), i % 2 = 0, 'a' || i % 10 \
                 FROM generate_series(1, 3000) AS i",
            )
            .expect("insert");
    }
    let name = "Ancha \" tabla";
    let (code, report) = compare(&cluster, &[name]);
    assert_eq!((code, report["rows"].as_u64()), (0, Some(3000)), "{report}");

    masters[1]
        .batch_execute(
            "UPDATE \"Ancha \"\" tabla\" SET f = f + 1e-15 WHERE parte = 'e1'; \
             UPDATE \"Ancha \"\" tabla\" SET fecha = NULL WHERE parte = 'e2'; \
             UPDATE \"Ancha \"\" tabla\" SET lista[2] = 'NULL' WHERE parte = 'É7'; \
             DELETE FROM \"Ancha \"\" tabla\" WHERE parte = 'e5'; \
             INSERT INTO \"Ancha \"\" tabla\" (\"la clave\", parte) VALUES ('\"', '''')",
        )
        .expect("change");
    let (code, report) = compare(&cluster, &[]);
    assert_eq!(code, 1, "{report}");
    let key = |parte: &str, clave: &str| json!({ "parte": parte, "la clave": clave });
    let mut expected = vec![
        (key("'", "\""), "missing on master1".to_string()),
        (key("e1", "it's \"1"), "not the same".to_string()),
        (key("e2", "\\ñ\n"), "not the same".to_string()),
        (key("e5", ""), "missing on master2".to_string()),
        (key("É7", "\\ñ\n"), "not the same".to_string()),
    ];
    expected.sort_by_key(|(key, _)| key["parte"].as_str().map(str::to_string));
    assert_eq!(told(&report, name), expected);
    let (code, report) = compare(&cluster, &["--repair", "master1", name]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(
        report["repair"],
        json!({ "from": "master1", "inserted": 1, "updated": 3, "deleted": 1, "left_alone": 0, "refused": [] })
    );
}

#[test]
fn a_big_table_in_chunks_and_tables_that_are_not_the_same() {
    let cluster = cluster();
    let mut masters = ["master1", "master2"].map(|node| behind_the_back(&cluster, node));
    for client in &mut masters {
        client
            .batch_execute(
                "CREATE TABLE grande (a int, b text, c text, PRIMARY KEY (a, b)); \
                 INSERT INTO grande SELECT i / 3, 'fila ' || i % 3, md5(i::text) FROM generate_series(1, 200000) AS i; \
                 CREATE TABLE sin_clave (a int); CREATE TABLE vacia (a int PRIMARY KEY)",
            )
            .expect("create");
    }
    let (code, report) = compare(&cluster, &[]);
    assert_eq!(code, 0, "{report}");
    let tables = report["tables"].as_array().expect("tables");
    let of = |name: &str| {
        let table = tables.iter().find(|table| table["table"] == name);
        table.unwrap_or_else(|| panic!("no {name}: {report}"))
    };
    println!("200,000 rows: {} s", of("grande")["seconds"]);
    for table in tables {
        let name = table["table"].as_str().expect("a name");
        let expected = if name == "sin_clave" {
            "no-key"
        } else {
            "equal"
        };
        assert_eq!(table["state"], expected, "{table}");
    }
    assert_eq!(tables.len(), FILM_TABLES + 4);
    assert_eq!(of("vacia")["rows"], json!({ "master1": 0, "master2": 0 }));

    // A hole, far more rows on the second than a chunk holds, and one changed row near the end.
    masters[0]
        .batch_execute("DELETE FROM grande WHERE a BETWEEN 1000 AND 21000")
        .expect("delete");
    masters[1]
        .batch_execute("UPDATE grande SET c = 'otra' WHERE a = 66000 AND b = 'fila 1'")
        .expect("update");
    let (code, report) = compare(&cluster, &["grande"]);
    let table = &report["tables"][0];
    assert_eq!(
        (code, &table["differing"]),
        (1, &json!(60_004)),
        "{}",
        report["tables"][0]["differing"]
    );
    assert_eq!(
        table["rows"],
        json!({ "master1": 139_997, "master2": 200_000 })
    );
    assert_eq!(
        (
            table["cut"].as_bool(),
            table["differences"].as_array().map(Vec::len)
        ),
        (Some(true), Some(1_000))
    );
    println!(
        "200,000 rows, 60,004 of them different: {} s",
        table["seconds"]
    );
    let shown = text(&cluster.run(&["compare", "grande"]));
    assert!(
        shown.contains("60004 DIFFER") && shown.contains("and 59994 more"),
        "{shown}"
    );

    masters[0]
        .batch_execute(
            "DROP TABLE grande; DROP TABLE vacia; CREATE TABLE vacia (a bigint PRIMARY KEY, b int)",
        )
        .expect("drop");
    let (code, report) = compare(&cluster, &[]);
    assert_eq!(
        (code, report["state"].as_str()),
        (1, Some("differing")),
        "{report}"
    );
    let reasons = report["tables"].to_string();
    assert!(reasons.contains("master1 does not have it"), "{reasons}");
    assert!(reasons.contains("master2 has no column b"), "{reasons}");
    let alone = compare(&cluster, &["generos", "sin_clave"]);
    assert_eq!(alone.0, 0, "{alone:?}");
}

#[test]
fn the_api_compares_in_the_background_and_says_what_came_out() {
    let cluster = cluster();
    assert_eq!(cluster.get("/status").body["compare"]["state"], "off");
    // Where a master takes its time to say which tables it has, the comparison itself tells.
    let mut unknown = cluster.post("/compare", r#"{"tables": ["generos", "nada"]}"#);
    wait_until("an unknown table is refused", || {
        if [202, 409].contains(&unknown.status) {
            unknown = cluster.post("/compare", r#"{"tables": ["generos", "nada"]}"#);
        }
        unknown.status == 400
    });
    assert_eq!((unknown.status, unknown.code()), (400, "table_unknown"));
    assert!(
        unknown.body["error"].to_string().contains("nada"),
        "{unknown:?}"
    );
    let wrong = cluster.post("/compare", r#"{"tables": "generos"}"#);
    assert_eq!((wrong.status, wrong.code()), (400, "tables_invalid"));
    for node in ["master1", "master2"] {
        behind_the_back(&cluster, node)
            .batch_execute(
                "CREATE TABLE grande (a int PRIMARY KEY, b text); \
                 INSERT INTO grande SELECT i, md5(i::text) FROM generate_series(1, 100000) AS i",
            )
            .expect("create");
    }
    // Without a body, and so without a type, it is about all tables.
    let begun = cluster.ask("POST", "/compare", None, &[]);
    assert_eq!(
        (begun.status, &begun.body["job"]["id"]),
        (202, &json!(1)),
        "{begun:?}"
    );
    let busy = cluster.post("/compare", r#"{"tables": ["generos"]}"#);
    assert_eq!(
        (busy.status, busy.code(), &busy.body["job"]["id"]),
        (409, "compare_busy", &json!(1))
    );
    let finished = |id: u64| {
        wait_until("the comparison has ended", || {
            let seen = cluster.get("/compare").body;
            seen["running"].is_null() && seen["last"]["id"] == id
        });
        cluster.get("/compare").body["last"].clone()
    };
    let last = finished(1);
    assert_eq!(
        (last["state"].as_str(), last["rows"].as_u64()),
        (Some("equal"), Some(100_000 + ROWS_FROM_THE_START)),
        "{last}"
    );

    behind_the_back(&cluster, "master1")
        .batch_execute("DELETE FROM generos WHERE id_genero = 3")
        .expect("delete");
    assert_eq!(
        cluster
            .post("/compare", r#"{"tables": ["generos"]}"#)
            .status,
        202
    );
    let last = finished(2);
    assert_eq!(
        told(&last, "generos"),
        [(
            json!({ "id_genero": "3" }),
            "missing on master1".to_string()
        )]
    );
    let status = cluster.get("/status").body;
    let summary = &status["compare"];
    assert_eq!(
        (&summary["state"], &summary["differing"], &summary["tables"]),
        (&json!("differing"), &json!(1), &json!(1))
    );
    assert!(
        status["alarms"]
            .to_string()
            .contains("the masters differ in 1 rows"),
        "{status}"
    );

    // A frozen master: an answer in time, and a failure of the job, not of the program.
    cluster.local(&["freeze", "master2"]);
    let begun = cluster.post("/compare", r#"{"tables": ["generos"]}"#);
    assert_eq!(begun.status, 202, "{begun:?}");
    let last = finished(3);
    cluster.local(&["thaw", "master2"]);
    assert_eq!(last["state"], "failed", "{last}");
    assert!(last["error"].to_string().contains("on master2"), "{last}");
    assert_eq!(cluster.get("/status").body["compare"]["state"], "failed");
}

#[test]
fn the_schedule_compares_and_lets_a_turn_pass_while_a_master_is_away() {
    let cluster = Cluster::start_with(&[("COMPARE_INTERVAL", "1s")]);
    let summary = || cluster.get("/status").body["compare"].clone();
    wait_until("a comparison has ended", || summary()["state"] == "equal");
    cluster.local(&["kill", "master2"]);
    wait_until("a turn was let pass", || {
        summary()["skipped"]
            .as_str()
            .is_some_and(|why| why.starts_with("master2 is "))
    });
    cluster.local(&["start", "master2"]);
    wait_until("it compares again", || {
        summary()["skipped"].is_null() && summary()["state"] == "equal"
    });
}
