//! What somebody changes by hand on one master or on both: each is an alarm that says what to do, and that does it.

mod common;

use common::{Cluster, clean_command, wait_until};
use postgres::Client;
use std::process::Output;

const MASTERS: [&str; 2] = ["master1", "master2"];

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn alarms(cluster: &Cluster) -> Vec<String> {
    let status = cluster.get("/status");
    let alarms = status.body["alarms"].as_array().expect("alarms");
    alarms
        .iter()
        .map(|alarm| alarm.as_str().expect("a text").to_string())
        .collect()
}

/// Waits until there is an alarm with these parts, and returns it.
fn alarm(cluster: &Cluster, parts: &[&str]) -> String {
    let mut found = None;
    let mut told = Vec::new();
    let what = format!("an alarm says {parts:?}");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while found.is_none() {
        told = alarms(cluster);
        let is_it = |alarm: &&String| parts.iter().all(|part| alarm.contains(part));
        found = told.iter().find(is_it).cloned();
        assert!(
            found.is_some() || std::time::Instant::now() < deadline,
            "{what}: {told:#?}"
        );
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    found.unwrap_or_else(|| panic!("{told:?}"))
}

fn wait_no_alarm(cluster: &Cluster) {
    let mut told = Vec::new();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        told.clone_from(&alarms(cluster));
        if told.is_empty() {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{told:#?}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// What a command sees that looks once.
fn seen_at_once(cluster: &Cluster) -> Vec<String> {
    let status = said(&cluster.run(&["replication", "status"]));
    let alarms = status.lines().filter(|line| line.contains("ALARM"));
    alarms.map(ToString::to_string).collect()
}

fn set_up(cluster: &Cluster) -> String {
    let output = cluster.run(&["replication", "setup"]);
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

fn run(client: &mut Client, sql: &str) {
    client
        .batch_execute(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

fn texts(client: &mut Client, sql: &str) -> Vec<String> {
    let rows = client.query(sql, &[]);
    let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

#[test]
fn what_the_replication_rests_on_is_watched_and_mended_by_the_set_up() {
    let cluster = Cluster::start();
    let [mut first, mut second] = MASTERS.map(|node| cluster.sql(node));
    assert_eq!(seen_at_once(&cluster), [""; 0]);

    // As a restore of data alone leaves the triggers, and as somebody who wanted to try something leaves the rest.
    run(
        &mut first,
        "ALTER TABLE public.generos DISABLE TRIGGER ALL; ALTER TABLE public.generos ENABLE TRIGGER ALL; \
         ALTER SUBSCRIPTION sub_from_master2 SET (origin = any, streaming = parallel, disable_on_error = true)",
    );
    run(
        &mut second,
        "ALTER TABLE public.generos DISABLE TRIGGER generos_sellar; DROP TRIGGER generos_enterrar ON public.generos; \
         CREATE OR REPLACE TRIGGER generos_conciliar BEFORE INSERT ON public.generos FOR EACH ROW EXECUTE FUNCTION imdb_ha.sellar(); \
         CREATE OR REPLACE FUNCTION imdb_ha.adelantar() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
         ALTER ROLE replicator NOLOGIN; ALTER PUBLICATION pub_imdb SET (publish = 'insert')",
    );
    alarm(
        &cluster,
        &[
            "master1: ",
            "public.generos.generos_conciliar fires for this master's own changes",
            "replication setup",
        ],
    );
    alarm(
        &cluster,
        &[
            "master1: ",
            "origin = any, disable_on_error = true, streaming = parallel",
            "replication setup",
        ],
    );
    for part in [
        "generos_sellar is disabled",
        "generos_enterrar is missing",
        "generos_conciliar is missing or another one",
        "not those of this version: adelantar;",
        "role replicator is missing or may not log in",
        "pub_imdb does not publish",
    ] {
        alarm(&cluster, &["master2: ", part, "replication setup"]);
    }
    let told = set_up(&cluster);
    for line in [
        "master1: mended: trigger public.generos.generos_conciliar",
        "master1: subscription sub_from_master2 got its options",
        "master2: mended: trigger public.generos.generos_enterrar is missing",
        "master2: mended: function imdb_ha.adelantar",
        "master2: role replicator got its password",
        "master2: publication pub_imdb made anew",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert_eq!(seen_at_once(&cluster), [""; 0]);
    wait_no_alarm(&cluster);
    assert_eq!(
        set_up(&cluster).trim(),
        "nothing to do: the masters are joined"
    );
    cluster.add("sigue");
    cluster.wait_equal();

    run(&mut second, "ALTER SUBSCRIPTION sub_from_master1 DISABLE");
    run(&mut first, "DROP SUBSCRIPTION sub_from_master2");
    alarm(
        &cluster,
        &[
            "master2: subscription sub_from_master1 is disabled",
            "replication setup",
        ],
    );
    alarm(
        &cluster,
        &[
            "master1: subscription sub_from_master2 is missing",
            "replication setup",
        ],
    );
    set_up(&cluster);
    wait_no_alarm(&cluster);
    cluster.add("y sigue");
    cluster.wait_equal();
    refused_databases(&cluster);
}

/// What would break later is refused at once, by its name.
fn refused_databases(cluster: &Cluster) {
    for (name, options, parts) in [
        (
            "latina",
            "ENCODING 'LATIN1' LOCALE 'C'",
            ["has the encoding LATIN1", "need UTF8"],
        ),
        (
            "sin_codigo",
            "ENCODING 'SQL_ASCII' LOCALE 'C'",
            ["has the encoding SQL_ASCII", "need UTF8"],
        ),
        (
            "sin_mayusculas",
            "ENCODING 'UTF8' LOCALE 'C'",
            ["has the locale C", "ACCIÓN"],
        ),
    ] {
        let mut command = clean_command();
        command.args(["replication", "setup"]);
        for node in MASTERS {
            run(
                &mut cluster.sql(node),
                &format!("CREATE DATABASE {name} TEMPLATE template0 {options}"),
            );
            let url = cluster.url(node);
            let (server, _) = url.rsplit_once('/').expect("a database");
            command.env(
                format!("{}_URL", node.to_uppercase()),
                format!("{server}/{name}"),
            );
        }
        let refused = command.output().expect("run the set-up");
        assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
        for part in parts {
            assert!(said(&refused).contains(part), "{part}: {}", said(&refused));
        }
    }
}

#[test]
fn tables_that_are_not_on_both_masters_stop_nothing_and_are_told() {
    let cluster = Cluster::start();
    let [mut first, mut second] = MASTERS.map(|node| cluster.sql(node));
    run(
        &mut first,
        "CREATE TABLE borrador (id int PRIMARY KEY, \"Con espacios\" text); INSERT INTO borrador SELECT n, 'x' FROM generate_series(1, 3) AS n; \
         CREATE VIEW vista AS SELECT 1 AS uno; CREATE TEMP TABLE temporal (a int); INSERT INTO temporal VALUES (1)",
    );
    for client in [&mut first, &mut second] {
        run(
            client,
            "CREATE TABLE nueva (id int PRIMARY KEY); CREATE UNLOGGED TABLE volatil (id int PRIMARY KEY); \
             CREATE TABLE partida (id int PRIMARY KEY) PARTITION BY RANGE (id); \
             CREATE TABLE partida_1 PARTITION OF partida FOR VALUES FROM (0) TO (100); \
             CREATE TABLE sin_clave (a int); CREATE TABLE otra (id int PRIMARY KEY, a text)",
        );
    }
    run(
        &mut first,
        "INSERT INTO nueva VALUES (1); INSERT INTO volatil VALUES (1); INSERT INTO partida VALUES (1); \
         ALTER TABLE otra ADD COLUMN b int DEFAULT 7 NOT NULL, ADD CHECK (b > 0)",
    );
    // None of it is in the way of what is replicated.
    cluster.add("no se detiene");
    cluster.wait_equal();

    let of_scratch = alarm(
        &cluster,
        &[
            "public.borrador is on master1 alone",
            "DROP TABLE public.borrador",
        ],
    );
    alarm(
        &cluster,
        &[
            "view public.vista is on master1 alone",
            "DROP VIEW public.vista",
        ],
    );
    alarm(
        &cluster,
        &[
            "public.nueva is not replicated",
            "replication setup",
            "imdb-ha compare public.nueva",
        ],
    );
    alarm(&cluster, &["public.partida_1 is not replicated"]);
    alarm(
        &cluster,
        &[
            "public.volatil is unlogged on master1 and master2",
            "SET LOGGED",
        ],
    );
    alarm(
        &cluster,
        &[
            "public.otra is not the same",
            "only on master1: CHECK ((b > 0)), b integer NOT NULL",
        ],
    );
    assert!(
        !alarms(&cluster)
            .iter()
            .any(|alarm| alarm.contains("temporal"))
    );

    // What they say is done.
    let (_, statement) = of_scratch.split_once("as well (").expect("a statement");
    let (statement, _) = statement.split_once(") and run").expect("its end");
    run(&mut second, statement);
    run(
        &mut second,
        "ALTER TABLE otra ADD COLUMN b int DEFAULT 7 NOT NULL, ADD CHECK (b > 0); CREATE VIEW vista AS SELECT 1 AS uno",
    );
    for client in [&mut first, &mut second] {
        run(client, "ALTER TABLE volatil SET LOGGED");
    }
    let told = set_up(&cluster);
    for name in ["borrador", "nueva", "volatil"] {
        let warning = format!("WARNING: public.{name} is replicated from now on");
        assert!(told.contains(&warning), "{told}");
    }
    assert!(!told.contains("public.otra is replicated"), "{told}");
    alarm(
        &cluster,
        &["public.sin_clave has no primary key on master1 and master2"],
    );
    for client in [&mut first, &mut second] {
        run(client, "ALTER TABLE sin_clave REPLICA IDENTITY FULL");
    }
    wait_no_alarm(&cluster);
    let repaired = cluster.run(&[
        "compare", "--repair", "master1", "borrador", "nueva", "volatil", "partida",
    ]);
    assert!(repaired.status.success(), "{}", said(&repaired));
    run(
        &mut first,
        "INSERT INTO borrador VALUES (9, 'y'); INSERT INTO partida VALUES (2); INSERT INTO otra VALUES (1, 'a', 1); \
         INSERT INTO sin_clave VALUES (5); UPDATE sin_clave SET a = 6",
    );
    let sums = "SELECT (SELECT count(*) FROM borrador) || ' ' || (SELECT count(*) FROM nueva) || ' ' || \
        (SELECT count(*) FROM volatil) || ' ' || (SELECT count(*) FROM partida) || ' ' || (SELECT sum(b) FROM otra) \
        || ' ' || (SELECT sum(a) FROM sin_clave)";
    wait_until("all of it is on the other master", || {
        texts(&mut second, sums) == ["4 1 1 2 1 6"]
    });
    let quiet = cluster.run(&["replication", "setup"]);
    assert_eq!(said(&quiet).trim(), "nothing to do: the masters are joined");
}

#[test]
fn a_worker_that_has_stopped_goes_on_when_its_alarm_is_followed() {
    let cluster = Cluster::start();
    let [mut first, mut second] = MASTERS.map(|node| cluster.sql(node));
    let table = "CREATE TABLE notas (id int PRIMARY KEY)";
    run(&mut first, table);
    run(&mut second, table);
    set_up(&cluster);

    // A table that one master has lost.
    run(&mut second, "DROP TABLE notas");
    run(&mut first, "INSERT INTO notas VALUES (1)");
    alarm(
        &cluster,
        &[
            "master2: ",
            "\"public.notas\" does not exist",
            "make the table on this master too",
        ],
    );
    alarm(
        &cluster,
        &[
            "table public.notas is on master1 alone",
            "CREATE TABLE public.notas (id integer NOT NULL",
        ],
    );
    run(&mut second, table);
    set_up(&cluster);
    cluster.add("tras crearla");
    cluster.wait_equal();
    wait_no_alarm(&cluster);

    // A password that was changed on the server alone is missed at the next connection.
    run(
        &mut first,
        "DO $$ DECLARE rol text; BEGIN FOR rol IN SELECT rolname FROM pg_roles WHERE rolname LIKE 'replicator%' LOOP \
             EXECUTE format('ALTER ROLE %I PASSWORD %L', rol, 'otra'); END LOOP; END $$",
    );
    run(
        &mut first,
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'slot_1_to_2'",
    );
    alarm(
        &cluster,
        &[
            "master2: ",
            "password authentication failed for user \"replicator_",
            "replication setup",
        ],
    );
    assert!(set_up(&cluster).contains("master1: role replicator got its password"));
    cluster.add("con su clave");
    cluster.wait_equal();
    wait_no_alarm(&cluster);

    // A publication that is missing while something is written cannot be mended by making it anew.
    run(
        &mut first,
        "DROP PUBLICATION pub_imdb; INSERT INTO notas VALUES (2)",
    );
    alarm(
        &cluster,
        &[
            "master1: publication pub_imdb is missing",
            "imdb-ha rejoin master2",
        ],
    );
    set_up(&cluster);
    alarm(
        &cluster,
        &[
            "master2: ",
            "publication \"pub_imdb\" does not exist",
            "imdb-ha rejoin master2",
        ],
    );
    let rejoined = cluster.run(&["rejoin", "master2", "--yes"]);
    assert!(rejoined.status.success(), "{}", said(&rejoined));
    wait_no_alarm(&cluster);
    assert_eq!(
        texts(&mut second, "SELECT id::text FROM notas ORDER BY id"),
        ["1", "2"]
    );

    // A table of which only the WAL knows any more.
    run(&mut second, "DROP TABLE notas");
    run(&mut first, "INSERT INTO notas VALUES (3); DROP TABLE notas");
    alarm(
        &cluster,
        &[
            "master2: ",
            "\"public.notas\" does not exist",
            "imdb-ha rejoin master2",
        ],
    );
    let rejoined = cluster.run(&["rejoin", "master2", "--yes"]);
    assert!(rejoined.status.success(), "{}", said(&rejoined));
    cluster.add("sin la tabla");
    cluster.wait_equal();
    wait_no_alarm(&cluster);
}

#[test]
fn columns_of_every_kind_may_be_added_to_the_genres() {
    let cluster = Cluster::start();
    let [mut first, mut second] = MASTERS.map(|node| cluster.sql(node));
    run(
        &mut first,
        "ALTER TABLE generos ADD COLUMN sobra int; ALTER TABLE generos DROP COLUMN sobra; \
         ALTER TABLE generos ADD COLUMN largo int GENERATED ALWAYS AS (length(genero)) STORED, \
             ADD COLUMN orden int GENERATED ALWAYS AS IDENTITY, ADD COLUMN turno int GENERATED BY DEFAULT AS IDENTITY, \
             ADD COLUMN nota text",
    );
    // In another order, and with one that the other master does not have yet and that must not be null.
    run(
        &mut second,
        "ALTER TABLE generos ADD COLUMN nota text, ADD COLUMN turno int GENERATED BY DEFAULT AS IDENTITY, \
             ADD COLUMN orden int GENERATED ALWAYS AS IDENTITY, ADD COLUMN largo int GENERATED ALWAYS AS (length(genero)) STORED, \
             ADD COLUMN nueva text NOT NULL DEFAULT 'aún no'",
    );
    // The same numbers for the rows that were there.
    let rows = "SELECT concat_ws(' ', id_genero, genero, cambiado_en, nodo, largo, orden, turno, nota) FROM generos ORDER BY id_genero";
    assert_eq!(texts(&mut first, rows), texts(&mut second, rows));

    // An update of a row that is missing there arrives without that column, which gets its default.
    run(
        &mut second,
        "SELECT pg_replication_origin_create('prueba'); SELECT pg_replication_origin_session_setup('prueba'); \
         SET session_replication_role = replica; DELETE FROM generos_imdb WHERE id_genero = 28; DELETE FROM generos WHERE id_genero = 28; \
         RESET session_replication_role",
    );
    run(
        &mut first,
        "UPDATE generos SET genero = 'Del oeste' WHERE id_genero = 28",
    );
    let of_west = "SELECT nueva FROM generos WHERE genero = 'Del oeste'";
    wait_until("it is there", || texts(&mut second, of_west) == ["aún no"]);
    alarm(
        &cluster,
        &[
            "public.generos is not the same",
            "only on master2: nueva text NOT NULL",
        ],
    );
    run(
        &mut first,
        "ALTER TABLE generos ADD COLUMN nueva text NOT NULL DEFAULT 'aún no'",
    );
    run(
        &mut second,
        "INSERT INTO generos_imdb VALUES ('Western', 28); SELECT pg_replication_origin_session_reset()",
    );

    for (from, to) in [("master1", "master2"), ("master2", "master1")] {
        let (here, there) = (&mut cluster.sql(from), &mut cluster.sql(to));
        // A name of its own each time: the row of the first time may be there still.
        let name = format!("más largo de {from}");
        run(
            here,
            &format!(
                "INSERT INTO generos (genero, nota) VALUES ('un género', 'a'); INSERT INTO generos (id_genero, genero) VALUES (910, 'se muda'); \
                 UPDATE generos SET genero = '{name}' WHERE genero = 'un género'"
            ),
        );
        wait_until("it is there", || {
            texts(
                there,
                &format!("SELECT genero FROM generos WHERE genero = '{name}'"),
            )
            .len()
                == 1
        });
        // Each is settled by another branch: an update of what was deleted, two inserts, a deletion of what is not there.
        run(here, &format!("ALTER SUBSCRIPTION sub_from_{to} DISABLE"));
        run(
            there,
            &format!("ALTER SUBSCRIPTION sub_from_{from} DISABLE"),
        );
        run(
            there,
            &format!(
                "DELETE FROM generos WHERE genero = '{name}'; INSERT INTO generos (id_genero, genero) VALUES (900, 'de allá')"
            ),
        );
        run(
            here,
            &format!(
                "UPDATE generos SET nota = 'b' WHERE genero = '{name}'; INSERT INTO generos (id_genero, genero) VALUES (900, 'de aquí'); \
                 INSERT INTO generos (id_genero, genero) VALUES (901, 'breve'); DELETE FROM generos WHERE id_genero = 901; \
                 UPDATE generos SET id_genero = 902 WHERE id_genero = 910"
            ),
        );
        run(here, &format!("ALTER SUBSCRIPTION sub_from_{to} ENABLE"));
        run(there, &format!("ALTER SUBSCRIPTION sub_from_{from} ENABLE"));
        wait_until("both are equal", || texts(here, rows) == texts(there, rows));
        assert_eq!(
            texts(
                here,
                "SELECT genero || largo FROM generos WHERE id_genero = 900"
            ),
            ["de aquí7"]
        );
        run(here, "DELETE FROM generos WHERE id_genero IN (900, 902)");
        wait_until("both are equal", || texts(here, rows) == texts(there, rows));
        assert_eq!(cluster.add(&format!("de {from}")).status, 201);
    }
    wait_until("both are equal", || {
        texts(&mut first, rows) == texts(&mut second, rows)
    });
    wait_no_alarm(&cluster);
    cluster.wait_compare();
    let errors = "SELECT apply_error_count::text FROM pg_stat_subscription_stats";
    for client in [&mut first, &mut second] {
        assert_eq!(texts(client, errors), ["0"]);
    }
}
