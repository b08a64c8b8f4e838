//! The films' tables and the migrations that make them, over real masters.

mod common;

use common::{Cluster, FILM_TABLES, wait_until};
use postgres::Client;
use std::process::Output;

const MASTERS: [&str; 2] = ["master1", "master2"];

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn texts(client: &mut Client, sql: &str) -> Vec<String> {
    let rows = client
        .query(sql, &[])
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// How everything in schema public is made on one master, and what stands in the catalogues.
fn schema(cluster: &Cluster, node: &str) -> Vec<String> {
    texts(
        &mut cluster.sql(node),
        "SELECT concat_ws(' ', 'column', table_name, column_name, data_type, is_nullable, column_default, generation_expression) AS line \
             FROM information_schema.columns WHERE table_schema = 'public' \
         UNION ALL SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(oid)) \
             FROM pg_constraint WHERE connamespace = 'public'::regnamespace \
         UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' \
         UNION ALL SELECT concat_ws(' ', 'code', codigo_imdb, id_genero) FROM generos_imdb \
         UNION ALL SELECT concat_ws(' ', 'type', id_tipo_titulo, tipo_titulo) FROM tipos_titulo \
         UNION ALL SELECT concat_ws(' ', 'category', id_categoria, categoria) FROM categorias \
         UNION ALL SELECT concat_ws(' ', 'genre', id_genero, genero) FROM generos \
         ORDER BY line",
    )
}

/// What a master has on record of its migrations.
fn record(cluster: &Cluster, node: &str) -> Vec<String> {
    texts(
        &mut cluster.sql(node),
        "SELECT m::text FROM imdb_ha.migraciones AS m ORDER BY numero",
    )
}

/// The tables whose changes a master sends, and those whose changes it takes.
fn replicated(cluster: &Cluster, node: &str) -> [Vec<String>; 2] {
    let mut client = cluster.sql(node);
    [
        "SELECT tablename::text FROM pg_publication_tables WHERE schemaname = 'public' ORDER BY 1",
        "SELECT c.relname::text FROM pg_subscription_rel AS r JOIN pg_class AS c ON c.oid = r.srrelid \
         WHERE c.relnamespace = 'public'::regnamespace AND r.srsubstate = 'r' ORDER BY 1",
    ]
    .map(|sql| texts(&mut client, sql))
}

/// Titles written on either master arrive on the other, where words find them without their accents; and
/// neither apply worker has ever failed.
fn assert_replicates(cluster: &Cluster) {
    let tables = texts(
        &mut cluster.sql("master1"),
        "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1",
    );
    assert_eq!(tables.len(), FILM_TABLES + 1, "{tables:?}");
    for (node, id) in [("master1", 1), ("master2", 2)] {
        assert_eq!(
            replicated(cluster, node),
            [tables.clone(), tables.clone()],
            "on {node}"
        );
        let title = format!(
            "INSERT INTO titulos VALUES ({id}, 1, 'Él, canción número {id}', 'Ω original', false, 1953, NULL, NULL, 7.5, 10)"
        );
        cluster.sql(node).batch_execute(&title).expect("a title");
    }
    for node in MASTERS {
        let mut client = cluster.sql(node);
        wait_until(&format!("{node} has both titles"), || {
            texts(&mut client, "SELECT titulo_principal FROM titulos").len() == 2
        });
        for (words, found) in [
            ("cancion numero", 2),
            ("CANCIÓN 2", 1),
            ("ω", 2),
            ("canciones", 0),
        ] {
            // Those that are kept beside a title with a rating are made on each master, and not sent.
            for of_title in [
                "buscable",
                "imdb_ha.buscable(titulo_principal, titulo_original)",
            ] {
                let sql = format!(
                    "SELECT id_titulo::text FROM titulos WHERE {of_title} @@ imdb_ha.consulta('{words}', 'contiene')"
                );
                assert_eq!(texts(&mut client, &sql).len(), found, "{words} on {node}");
            }
        }
        let errors = "SELECT subname || ': ' || apply_error_count || ', ' || sync_error_count \
             FROM pg_stat_subscription_stats WHERE apply_error_count + sync_error_count > 0";
        assert_eq!(texts(&mut client, errors), [""; 0], "on {node}");
    }
}

#[test]
fn both_masters_have_the_same_tables_and_send_each_other_what_is_in_them() {
    let cluster = Cluster::start();
    let made = schema(&cluster, "master1");
    assert_eq!(made, schema(&cluster, "master2"));
    for line in [
        "code Sci-Fi 22",
        "genre 22 Ciencia ficción",
        "type 1 movie",
        "category 13 archive_sound",
    ] {
        assert!(made.iter().any(|made| made == line), "no {line}: {made:?}");
    }
    let without_key = "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' \
        AND relnamespace IN ('public'::regnamespace, 'imdb_ha'::regnamespace) \
        AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = pg_class.oid AND indisprimary)";
    assert_eq!(texts(&mut cluster.sql("master1"), without_key), [""; 0]);

    let records = MASTERS.map(|node| record(&cluster, node));
    let again = cluster.run(&["replication", "setup"]);
    assert_eq!(said(&again).trim(), "nothing to do: the masters are joined");
    assert_eq!(records, MASTERS.map(|node| record(&cluster, node)));
    assert_eq!(made, schema(&cluster, "master1"));
    assert_replicates(&cluster);

    // A genre that titles have stays; one that has its code alone takes it along.
    cluster
        .sql("master1")
        .batch_execute("INSERT INTO titulo_genero VALUES (1, 9, 1)")
        .expect("a genre of a title");
    let kept = cluster.ask("DELETE", "/generos/9", None, &[]);
    assert_eq!(
        (kept.status, kept.code()),
        (409, "genero_in_use"),
        "{kept:?}"
    );
    let gone = cluster.ask("DELETE", "/generos/10", None, &[]);
    assert_eq!(gone.status, 200, "{gone:?}");
    assert_eq!(cluster.wait_equal().len(), 27);
    for node in MASTERS {
        let mut client = cluster.sql(node);
        let codes = "SELECT codigo_imdb FROM generos_imdb WHERE id_genero IN (9, 10)";
        wait_until(&format!("the code is gone on {node}"), || {
            texts(&mut client, codes) == ["Drama"]
        });
    }
    // The genre goes when the title no longer has it, whichever master was told so.
    cluster
        .sql("master2")
        .batch_execute("DELETE FROM titulo_genero")
        .expect("delete");
    wait_until("the genre may go", || {
        cluster.ask("DELETE", "/generos/9", None, &[]).status == 200
    });
    cluster.wait_equal();
    let compared = cluster.run(&["compare"]);
    assert!(compared.status.success(), "{}", said(&compared));
}

#[test]
fn a_record_that_is_not_this_programs_is_refused_and_nothing_is_changed() {
    let cluster = Cluster::start();
    let before = MASTERS.map(|node| schema(&cluster, node));
    let mut second = cluster.sql("master2");
    let good =
        "DELETE FROM imdb_ha.migraciones; INSERT INTO imdb_ha.migraciones SELECT * FROM buena";
    second
        .batch_execute("CREATE TEMP TABLE buena AS TABLE imdb_ha.migraciones")
        .expect("a copy");
    for (sql, reason) in [
        (
            "UPDATE imdb_ha.migraciones SET sha256 = repeat('0', 64)",
            "migration 1 (imdb) was applied there in another form than this program has",
        ),
        (
            "INSERT INTO imdb_ha.migraciones (numero, nombre, sha256) VALUES (3, 'futura', '')",
            "it has migration 3 (futura), which this program does not know; it belongs to a newer version",
        ),
        (
            "UPDATE imdb_ha.migraciones SET numero = numero + 2",
            "its record has migration 3 (imdb) where number 1 should be",
        ),
    ] {
        second.batch_execute(sql).expect(sql);
        let records = MASTERS.map(|node| record(&cluster, node));
        let refused = cluster.run(&["replication", "setup"]);
        assert_eq!(refused.status.code(), Some(1), "{sql}");
        let text = said(&refused);
        assert!(
            text.contains("bring the tables of master2 up to date") && text.contains(reason),
            "{sql}: {text}"
        );
        assert_eq!(records, MASTERS.map(|node| record(&cluster, node)), "{sql}");
        assert_eq!(before, MASTERS.map(|node| schema(&cluster, node)), "{sql}");
        second.batch_execute(good).expect("the good record");
    }
    let again = cluster.run(&["replication", "setup"]);
    assert_eq!(said(&again).trim(), "nothing to do: the masters are joined");
}

#[test]
fn masters_of_a_version_without_the_films_are_brought_up_to_date() {
    let cluster = Cluster::start();
    let deleted = cluster.ask("DELETE", "/generos/3", None, &[]);
    assert_eq!(deleted.status, 200, "{deleted:?}");
    cluster.wait_equal();
    let whole = schema(&cluster, "master1");
    for node in MASTERS {
        cluster
            .sql(node)
            .batch_execute(include_str!("fixtures/before-films.sql"))
            .expect("an earlier version");
    }
    for (node, peer) in [("master1", "master2"), ("master2", "master1")] {
        let refresh = format!("ALTER SUBSCRIPTION sub_from_{peer} REFRESH PUBLICATION");
        cluster.sql(node).batch_execute(&refresh).expect("refresh");
        assert_eq!(replicated(&cluster, node), [["generos"], ["generos"]]);
    }
    let upgraded = cluster.run(&["replication", "setup"]);
    let text = said(&upgraded);
    let lines: Vec<&str> = text.lines().collect();
    let names = "categorias, public.episodios, public.generos_imdb";
    for (node, line) in [("master1", lines[4]), ("master2", lines[5])] {
        let begin = format!("{node}: publication pub_imdb publishes public.cargas, public.{names}");
        assert!(line.starts_with(&begin), "{line}");
    }
    let lines = [&lines[..4], &lines[6..]].concat();
    assert_eq!(
        lines,
        [
            "master1: migration 1 (imdb) applied",
            "master1: migration 2 (palabras) applied",
            "master2: migration 1 (imdb) applied",
            "master2: migration 2 (palabras) applied",
            "master2: subscription sub_from_master1 takes the tables that master1 publishes now",
            "master1: subscription sub_from_master2 takes the tables that master2 publishes now",
        ]
    );
    assert_eq!(schema(&cluster, "master1"), whole);
    assert_eq!(schema(&cluster, "master2"), whole);
    assert!(
        whole.iter().any(|line| line == "code Action 1"),
        "{whole:?}"
    );
    assert!(
        !whole.iter().any(|line| line.starts_with("code Adventure")),
        "{whole:?}"
    );
    // What the migrations wrote was sent to nobody, so nothing is left of the way to that.
    assert_replicates(&cluster);
    for node in MASTERS {
        let origins = "SELECT roname FROM pg_replication_origin WHERE roname !~ '^pg_'";
        assert_eq!(texts(&mut cluster.sql(node), origins), [""; 0], "on {node}");
    }
    let again = cluster.run(&["replication", "setup"]);
    assert_eq!(said(&again).trim(), "nothing to do: the masters are joined");
    words_of_titles_that_were_there(&cluster, &whole);
}

/// From the version before the words: the titles stay, and are found by the new ones.
fn words_of_titles_that_were_there(cluster: &Cluster, whole: &[String]) {
    for node in MASTERS {
        let mut client = cluster.sql(node);
        client
            .batch_execute("DELETE FROM imdb_ha.migraciones WHERE numero = 2")
            .expect("an earlier record");
        let back = "ALTER TABLE titulos DROP COLUMN buscable; DROP INDEX titulos_buscable, titulos_alternos_palabras; \
             DROP FUNCTION imdb_ha.consulta, imdb_ha.lectura, imdb_ha.lexema, imdb_ha.buscable, imdb_ha.palabras, imdb_ha.sueltas, imdb_ha.citado, \
             imdb_ha.solo_signos, imdb_ha.junta, imdb_ha.normaliza, imdb_ha.separa, imdb_ha.signos, imdb_ha.letras; ";
        client.batch_execute(back).expect("without the words");
        let sql = include_str!("../sql/migrations/0001_imdb.sql");
        let functions = &sql[sql
            .find("CREATE FUNCTION imdb_ha.sin_acentos")
            .expect("there")
            ..sql.find("-- A rating stands in the row").expect("there")];
        client.batch_execute(functions).expect("the old functions");
        client
            .batch_execute(
                "ALTER TABLE titulos ADD COLUMN buscable tsvector GENERATED ALWAYS AS ( \
                 CASE WHEN votos IS NOT NULL THEN imdb_ha.buscable(titulo_principal, titulo_original) END) STORED; \
                 CREATE INDEX titulos_buscable ON titulos USING gin (imdb_ha.buscable(titulo_principal, titulo_original)); \
                 CREATE INDEX titulos_calificados ON titulos USING gin (buscable) WHERE votos IS NOT NULL",
            )
            .expect("the old columns");
    }
    cluster
        .sql("master1")
        .batch_execute(
            "INSERT INTO titulos VALUES (7, 1, 'Face/Off', 'Face/Off', false, 1997, NULL, NULL, 7.3, 9), \
             (8, 1, 'Straße', 'Straße', false, 1997, NULL, NULL, NULL, NULL)",
        )
        .expect("titles");
    wait_until("the titles arrive", || {
        texts(
            &mut cluster.sql("master2"),
            "SELECT titulo_principal FROM titulos",
        )
        .len()
            == 4
    });
    let upgraded = said(&cluster.run(&["replication", "setup"]));
    for node in MASTERS {
        let line = format!("{node}: migration 2 (palabras) applied");
        assert!(upgraded.contains(&line), "{upgraded}");
        let found = "SELECT id_titulo::text FROM titulos WHERE buscable @@ imdb_ha.consulta('off face', 'contiene') \
             OR imdb_ha.buscable(titulo_principal, titulo_original) @@ imdb_ha.consulta('STRASSE', 'exacta') ORDER BY 1";
        assert_eq!(
            texts(&mut cluster.sql(node), found),
            ["7", "8"],
            "on {node}"
        );
        assert_eq!(schema(cluster, node), whole, "on {node}");
    }
}

/// Joining copies nothing, so a row of any table would be missing on the other master for ever.
#[test]
fn masters_are_joined_only_when_all_their_tables_are_equal() {
    let cluster = Cluster::start();
    for (node, peer) in [("master1", "master2"), ("master2", "master1")] {
        let drop = format!("DROP SUBSCRIPTION sub_from_{peer}");
        cluster.sql(node).batch_execute(&drop).expect("drop");
    }
    let (mut first, mut second) = (cluster.sql("master1"), cluster.sql("master2"));
    second
        .batch_execute("INSERT INTO titulos SELECT n, 1, 'Roma', 'Roma', false FROM generate_series(1, 3) AS n")
        .expect("titles");
    // As many rows on both, and not the same ones; their times look different to sessions of different time zones.
    let load = |seconds| {
        format!(
            "INSERT INTO cargas VALUES (1, 'a', 1, 1, 0, 0, '2026-01-01 00:00:00+00', '2026-01-01 00:00:{seconds}+00')"
        )
    };
    second.batch_execute(&load("07")).expect("a load");
    first.batch_execute(&load("08")).expect("a load");
    first
        .batch_execute("ALTER DATABASE \"bases2-db\" SET timezone = 'America/Guatemala'")
        .expect("a setting");
    let refused = cluster.run(&["replication", "setup"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let text = said(&refused);
    assert!(
        text.contains(
            "cargas differs (1 rows on master1, 1 on master2), titulos differs (0 rows on master1, 3 on master2) \
             and joining the masters copies nothing"
        ),
        "{text}"
    );
    let slots = "SELECT slot_name::text FROM pg_replication_slots";
    assert_eq!(texts(&mut first, slots), [""; 0]);

    first
        .batch_execute(
            "INSERT INTO titulos SELECT n, 1, 'Roma', 'Roma', false FROM generate_series(3, 1, -1) AS n; \
             UPDATE cargas SET fin = '2026-01-01 00:00:07+00'",
        )
        .expect("the same rows");
    let joined = cluster.run(&["replication", "setup"]);
    assert!(joined.status.success(), "{}", said(&joined));
    assert_eq!(
        said(&joined).matches("created, with slot").count(),
        2,
        "{}",
        said(&joined)
    );
}
