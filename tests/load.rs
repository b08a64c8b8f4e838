//! `imdb-ha load` into real masters: what becomes of each row, of the sample, and of files that cannot be loaded.

mod common;

use common::films::*;
use common::{Cluster, wait_until};
use serde_json::Value;
use std::fs;

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/sample");

#[test]
fn each_quirk_of_the_files_is_a_row_or_a_reject_with_its_reason() {
    let cluster = Cluster::start();
    let files = Files::new();
    let long = "x".repeat(3_000);
    files.write("title.basics.tsv", format!(
        "{BASICS}tt0000001\tmovie\t\"Open quote\tUn \"título\"\t0\t1994\t\\N\t142\tDrama,Sci-Fi\n\
         tt0000002\ttvSeries\ta\\b\\N\t\\N\t0\t2001\t2005\t\\N\t\\N\n\
         tt0000003\ttvEpisode\tPilot\tPilot\t1\t\\N\t\\N\t0\tComedy\r\n\
         tt35557166\tpodcastSeries\t{long}\t\t0\t-44\t\\N\t\\N\tExperimental,Drama,Drama\n\
         tt0000001\tmovie\tAgain\tAgain\t0\t\\N\t\\N\t\\N\t\\N\n\
         tt0000004\tmovie\tShifted\tShifted\t0\t\\N\t\\N\tDrama,Short\t\\N\n\
         ttx\tmovie\tT\tT\t0\t\\N\t\\N\t\\N\t\\N\n\
         tt0000005\tmovie\tToo\tfew\t0\n\
         tt0000006\tmovie\tT\tT\t\\N\t\\N\t\\N\t\\N\t\\N\n\
         tt0000007\tmovie\tT\tT\t0\t99999\t\\N\t\\N\t\\N\n\
         tt0000008\tmovie\tnu\0l\tT\t0\t\\N\t\\N\t\\N\t\\N\n"
    ));
    files.packed("name.basics.tsv.gz", &format!(
        "{NAMES}nm0000001\tÁlvaro \\ Núñez\t1930\t2001\tactor,juggler\ttt0000001,tt0000404,tt0000003\n\
         nm0000002\t\\N\t\\N\t\\N\t\\N\t\\N\n\
         nm0000001\tTwin\t\\N\t\\N\t\\N\t\\N\n\
         nm0000003\tY\t19x0\t\\N\t\\N\t\\N\n"
    ));
    files.write("title.crew.tsv", format!(
        "{CREW}tt0000001\tnm0000001,nm0000404\tnm0000002,nm0000002\ntt0000002\t\\N\tnm0000404,nm0000001\ntt0000404\t\\N\t\\N\n\
         tt0000001\t\\N\t\\N\n"
    ));
    files.write("title.principals.tsv", format!(
        "{PRINCIPALS}tt0000001\t1\tnm0000001\tactor\t\\N\t[\"The \\\"Boss\\\"\",\"A\\\\B\\tC\"]\n\
         tt0000001\t2\tnm0000001\tdirector\tco-director\t\\N\n\
         tt0000001\t2\tnm0000002\twriter\t\\N\t\\N\n\
         tt0000001\t3\tnm0000404\tactor\t\\N\t\\N\n\
         tt0000404\t1\tnm0000001\tactor\t\\N\t\\N\n\
         tt0000002\t1\tnm0000002\tcook\t\\N\t[\"Half\n\
         tt0000001\t4\tnm0000002\tself\t\\N\t[]\n\
         tt0000001\t1\tnm0000002\tself\t\\N\t\\N\n"
    ));
    files.write("title.episode.tsv", format!(
        "{EPISODE}tt0000003\ttt0000002\t1\t\\N\ntt0000001\ttt0000404\t1\t1\ntt0000404\ttt0000002\t1\t2\n"
    ));
    files.write("title.akas.tsv", format!(
        "{AKAS}tt0000001\t1\tUno\tES\t\\N\timdbDisplay\x02tv\tfestival \"title\"\x02working\t0\n\
         tt0000001\t2\tOne\t\\N\ten\t\\N\t\\N\t\\N\n\
         tt0000002\t1\tDos\tXWW\t\\N\toriginal\t\\N\t1\n\
         tt0000001\t1\tUno otra vez\tMX\t\\N\t\\N\t\\N\t0\n\
         tt0000404\t1\tNada\t\\N\t\\N\t\\N\t\\N\t0\n\
         tt0000001\t3\tTres\tAR\t\\N\t\\N\t\\N\t2\n"
    ));
    files.write("title.ratings.tsv", format!(
        "{RATINGS}tt0000001\t9.3\t2900000\ntt0000002\t9.35\t10\ntt0000003\t10.0\t\\N\ntt0000404\t5.0\t5\ntt0000001\t1.0\t1\n"
    ));
    let outcome = loaded(&cluster, &files);
    assert_equal(&cluster);

    assert_eq!(counts(&outcome, "title.basics"), (11, 4, 7, 1));
    assert_eq!(counts(&outcome, "name.basics"), (4, 2, 2, 1));
    assert_eq!(counts(&outcome, "title.crew"), (4, 2, 2, 3));
    assert_eq!(counts(&outcome, "title.principals"), (8, 4, 4, 1));
    assert_eq!(counts(&outcome, "title.episode"), (3, 1, 2, 0));
    assert_eq!(counts(&outcome, "title.akas"), (6, 3, 3, 0));
    assert_eq!(counts(&outcome, "title.ratings"), (5, 1, 4, 0));
    assert_eq!(
        rows(
            &cluster,
            "SELECT archivo, filas_leidas, filas_cargadas, filas_rechazadas, partes_rechazadas FROM cargas ORDER BY 1"
        ),
        [
            "(name.basics,4,2,2,1)",
            "(title.akas,6,3,3,0)",
            "(title.basics,11,4,7,1)",
            "(title.crew,4,2,2,3)",
            "(title.episode,3,1,2,0)",
            "(title.principals,8,4,4,1)",
            "(title.ratings,5,1,4,0)",
        ]
    );

    assert_eq!(
        rows(
            &cluster,
            "SELECT id_titulo, tipo_titulo, left(titulo_principal, 12) AS a, titulo_original, es_adulto, \
            anio_inicio, anio_fin, duracion_min, length(titulo_principal) \
            FROM titulos JOIN tipos_titulo USING (id_tipo_titulo) ORDER BY 1"
        ),
        [
            r#"(1,movie,"""Open quote","Un ""título""",f,1994,,142,11)"#,
            r#"(2,tvSeries,"a\\b\\N",,f,2001,2005,,5)"#,
            "(3,tvEpisode,Pilot,Pilot,t,,,0,5)",
            r#"(35557166,podcastSeries,xxxxxxxxxxxx,"",f,-44,,,3000)"#,
        ]
    );
    assert_eq!(
        rows(
            &cluster,
            "SELECT id_titulo, orden, codigo_imdb, genero FROM titulo_genero JOIN generos_imdb USING (id_genero) \
            JOIN generos USING (id_genero) ORDER BY 1, 2"
        ),
        [
            "(1,1,Drama,Drama)",
            "(1,2,Sci-Fi,\"Ciencia ficción\")",
            "(3,1,Comedy,Comedia)",
            "(35557166,1,Experimental,Experimental)",
            "(35557166,2,Drama,Drama)",
        ]
    );
    assert_eq!(
        rows(&cluster, "SELECT * FROM personas ORDER BY 1"),
        [r#"(1,"Álvaro \\ Núñez",1930,2001)"#, "(2,,,)"]
    );
    assert_eq!(
        rows(
            &cluster,
            "SELECT profesion, orden FROM persona_profesion JOIN profesiones USING (id_profesion) ORDER BY 2"
        ),
        ["(actor,1)", "(juggler,2)"]
    );
    assert_eq!(
        rows(&cluster, "SELECT * FROM persona_conocida ORDER BY 3"),
        ["(1,1,1)", "(1,3,3)"]
    );
    assert_eq!(rows(&cluster, "SELECT * FROM titulo_director"), ["(1,1,1)"]);
    assert_eq!(
        rows(&cluster, "SELECT * FROM titulo_escritor ORDER BY 1"),
        ["(1,2,1)", "(2,1,2)"]
    );
    assert_eq!(
        rows(
            &cluster,
            "SELECT id_titulo, orden, id_persona, categoria, trabajo, personajes[1] AS uno, personajes[2] AS dos, \
            cardinality(personajes) FROM participaciones JOIN categorias USING (id_categoria) ORDER BY 1, 2"
        ),
        [
            "(1,1,1,actor,,\"The \"\"Boss\"\"\",\"A\\\\B\tC\",2)",
            "(1,2,1,director,co-director,,,)",
            "(1,4,2,self,,,,0)",
            "(2,1,2,cook,,,,)",
        ]
    );
    assert_eq!(rows(&cluster, "SELECT * FROM episodios"), ["(3,2,1,)"]);
    assert_eq!(
        rows(
            &cluster,
            "SELECT id_titulo, orden, titulo, region, idioma, tipos[2] AS t, cardinality(tipos) AS n, \
            atributos[1] AS a, es_original FROM titulos_alternos ORDER BY 1, 2"
        ),
        [
            r#"(1,1,Uno,ES,,tv,2,"festival ""title""",f)"#,
            "(1,2,One,,en,,,,)",
            "(2,1,Dos,XWW,,,1,,t)",
        ]
    );
    assert_eq!(
        rows(
            &cluster,
            "SELECT id_titulo, promedio, votos FROM titulos WHERE votos IS NOT NULL"
        ),
        ["(1,9.3,2900000)"]
    );

    // Every row and column that is in no table, with its line, which counts from the header.
    assert_eq!(
        rows(
            &cluster,
            "SELECT archivo, linea, num, columna, motivo, detalle FROM rechazos ORDER BY 1, 2, 3"
        ),
        [
            "(name.basics,2,1,knownForTitles,\"identificador inexistente\",tt0000404)",
            "(name.basics,4,1,nconst,\"clave repetida\",nm0000001)",
            "(name.basics,5,1,birthYear,\"número no válido\",19x0)",
            "(title.akas,5,1,ordering,\"clave repetida\",1)",
            "(title.akas,6,1,titleId,\"identificador inexistente\",tt0000404)",
            "(title.akas,7,1,isOriginalTitle,\"valor no válido\",2)",
            "(title.basics,5,1,genres,\"clave repetida\",Drama)",
            "(title.basics,6,1,tconst,\"clave repetida\",tt0000001)",
            "(title.basics,7,1,runtimeMinutes,\"número no válido\",\"Drama,Short\")",
            "(title.basics,8,1,tconst,\"identificador no válido\",ttx)",
            "(title.basics,9,1,,\"número de columnas\",\"5 en vez de 9\")",
            "(title.basics,10,1,isAdult,\"falta el valor\",\"\\\\N\")",
            "(title.basics,11,1,startYear,\"número no válido\",99999)",
            "(title.basics,12,1,,\"carácter NUL\",\"\")",
            "(title.crew,2,1,directors,\"identificador inexistente\",nm0000404)",
            "(title.crew,2,2,writers,\"clave repetida\",nm0000002)",
            "(title.crew,3,1,writers,\"identificador inexistente\",nm0000404)",
            "(title.crew,4,1,tconst,\"identificador inexistente\",tt0000404)",
            "(title.crew,5,1,tconst,\"clave repetida\",tt0000001)",
            "(title.episode,3,1,parentTconst,\"identificador inexistente\",tt0000404)",
            "(title.episode,4,1,tconst,\"identificador inexistente\",tt0000404)",
            "(title.principals,4,1,ordering,\"clave repetida\",2)",
            "(title.principals,5,1,nconst,\"identificador inexistente\",nm0000404)",
            "(title.principals,6,1,tconst,\"identificador inexistente\",tt0000404)",
            "(title.principals,7,1,characters,\"JSON no válido\",\"[\"\"Half\")",
            "(title.principals,9,1,ordering,\"clave repetida\",1)",
            "(title.ratings,3,1,averageRating,\"número no válido\",9.35)",
            "(title.ratings,4,1,numVotes,\"falta el valor\",\"\\\\N\")",
            "(title.ratings,5,1,tconst,\"identificador inexistente\",tt0000404)",
            "(title.ratings,6,1,tconst,\"clave repetida\",tt0000001)",
        ]
    );
    let whole = rows(
        &cluster,
        "SELECT fila FROM rechazos WHERE archivo = 'title.basics' AND linea = 12",
    );
    assert!(whole[0].contains("nu\u{2400}l"), "{whole:?}");

    // The line stands beside the first of its rejects.
    assert_eq!(
        rows(
            &cluster,
            "SELECT num, fila IS NULL FROM rechazos WHERE archivo = 'title.crew' AND linea = 2 ORDER BY 1"
        ),
        ["(1,f)", "(2,t)"]
    );
    assert_eq!(
        new_values(&cluster),
        ["Experimental", "podcastSeries", "cook", "juggler"]
    );

    // The new tables have what the old ones had: keys, foreign keys, and rows that are replicated.
    let found = cluster
        .sql("master1")
        .execute("INSERT INTO titulo_genero VALUES (1, 4711, 3)", &[]);
    assert!(
        found
            .expect_err("no such genre")
            .code()
            .is_some_and(|code| code.code() == "23503")
    );
    cluster
        .sql("master1")
        .execute(
            "UPDATE titulos SET promedio = NULL, votos = NULL WHERE id_titulo = 1",
            &[],
        )
        .expect("a change");
    wait_until("the change arrives", || {
        let left = cluster
            .sql("master2")
            .query_one("SELECT count(votos) FROM titulos", &[]);
        left.expect("a count").get::<_, i64>(0) == 0
    });
}

#[test]
fn the_sample_has_two_rejects_and_can_be_loaded_again_while_the_api_serves() {
    let cluster = Cluster::start();
    let sample = |arguments: &[&str]| {
        let output = cluster.run(&[&["load", SAMPLE], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        output
    };
    let first: Value = serde_json::from_slice(&sample(&["--json"]).stdout).expect("JSON");
    assert_eq!(
        (&first["rows_read"], &first["rows_rejected"]),
        (&Value::from(333_106), &Value::from(2))
    );
    assert_eq!(first["reasons"], serde_json::json!({"duplicate key": 2}));
    let rejects = rows(
        &cluster,
        "SELECT archivo, linea, detalle FROM rechazos ORDER BY 2",
    );
    assert_eq!(
        rejects,
        [
            "(title.basics,3019,tt0078788)",
            "(title.basics,12276,tt0850669)"
        ]
    );
    assert_equal(&cluster);

    // A second load, while somebody reads and others write.
    let done = std::sync::atomic::AtomicBool::new(false);
    let text = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut session = cluster.sql("master2");
            let mut looks = 0;
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                let row = session
                    .query_one("SELECT count(*) FROM participaciones", &[])
                    .expect("readable");
                assert_eq!(row.get::<_, i64>(0), 234_349);
                looks += 1;
            }
            looks
        });
        let writer = scope.spawn(|| {
            let mut written = 0;
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                assert_eq!(
                    cluster.add(&format!("durante la carga {written}")).status,
                    201
                );
                written += 1;
            }
            written
        });
        let text = String::from_utf8_lossy(&sample(&[]).stdout).into_owned();
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(reader.join().expect("the reader") > 0 && writer.join().expect("the writer") > 0);
        text
    });
    for part in [
        "333106 rows read = 333104 loaded + 2 rejected",
        "rejected: 2 times duplicate key",
        "title.crew.tsv.gz",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    cluster.wait_equal();
    assert_equal(&cluster);
    assert_eq!(rows(&cluster, "SELECT count(*) FROM rechazos"), ["(2)"]);
    assert_eq!(
        rows(&cluster, "SELECT count(DISTINCT id_carga) FROM cargas"),
        ["(2)"]
    );
    // Nothing is left but the new tables, and nobody sent them to the other master.
    assert_eq!(
        rows(
            &cluster,
            "SELECT count(*) FROM pg_replication_origin WHERE roname LIKE 'imdb%'"
        ),
        ["(0)"]
    );
    assert_eq!(
        rows(&cluster, "SELECT to_regnamespace('imdb_carga') IS NULL"),
        ["(t)"]
    );
    assert_eq!(
        rows(
            &cluster,
            "SELECT sum(apply_error_count) FROM pg_stat_subscription_stats"
        ),
        ["(0)"]
    );
    assert_eq!(
        cluster.get("/conflicts").body["data"],
        serde_json::json!([])
    );

    // The new tables are replicated like the old ones, and nobody was alarmed in between.
    let status =
        String::from_utf8_lossy(&cluster.run(&["replication", "status"]).stdout).into_owned();
    assert!(!status.contains("ALARM"), "{status}");
    assert!(!cluster.said().contains("ALARM"), "{}", cluster.said());

    // A genre with films stays.
    let kept = cluster.ask("DELETE", "/generos/9", None, &[]);
    assert_eq!((kept.status, kept.code()), (409, "genero_in_use"));
}

#[test]
fn files_that_cannot_be_loaded_are_refused_before_anything_is_touched() {
    let cluster = Cluster::start();
    let files = Files::new();
    let title = format!("{BASICS}tt0000001\tmovie\tUno\tUno\t0\t1994\t\\N\t142\tDrama\n");
    files.write("title.basics.tsv", &title);
    loaded(&cluster, &files);
    let before = rows(&cluster, "SELECT * FROM cargas");

    let nothing = Files::new();
    assert!(refused(&cluster, &nothing).contains("has none of IMDb's files"));
    let both = Files::new();
    both.write("title.basics.tsv", &title)
        .packed("title.basics.tsv.gz", &title);
    assert!(refused(&cluster, &both).contains("both there; keep one"));
    // Everything that is wrong is said at once, each with its file and line.
    let wrong = Files::new();
    wrong.write(
        "title.basics.tsv",
        title.replace("runtimeMinutes", "runtime"),
    );
    wrong.write(
        "name.basics.tsv",
        [
            NAMES.as_bytes(),
            b"nm0000001\tA\t\\N\t\\N\t\\N\t\\N\nnm0000002\t\xff\t\\N\t\\N\t\\N\t\\N\n",
        ]
        .concat(),
    );
    wrong.write("title.ratings.tsv", format!("{RATINGS}tt0000001\t5.0\n"));
    wrong.write("title.episode.tsv", "");
    let told = refused(&cluster, &wrong);
    for part in [
        "title.basics.tsv, line 1: its columns are",
        "name.basics.tsv, line 3: this is not UTF-8",
        "title.ratings.tsv, line 2: it has 2 columns and not 3",
        "title.episode.tsv, line 1: the file is empty",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // A file that was cut off.
    let cut = Files::new();
    cut.packed("title.basics.tsv.gz", &title.repeat(500));
    let whole = fs::read(cut.path().join("title.basics.tsv.gz")).expect("packed");
    cut.write("title.basics.tsv.gz", &whole[..whole.len() - 12]);
    let told = refused(&cluster, &cut);
    assert!(
        told.contains("title.basics.tsv.gz, line") && !told.contains("UTF-8"),
        "{told}"
    );
    // Principals of persons that nobody has loaded.
    let orphans = Files::new();
    orphans.write(
        "title.principals.tsv",
        format!("{PRINCIPALS}tt0000001\t1\tnm0000001\tactor\t\\N\t\\N\n"),
    );
    assert!(refused(&cluster, &orphans).contains("load name.basics too"));
    // More rows of scattered titles than can be remembered, nearly all of which come before it is known that they are.
    let scattered = Files::new();
    let mut akas = AKAS.to_string();
    for place in 1..=1_000_001 {
        akas.push_str(&format!("tt1\t{place}\tA\t\\N\t\\N\t\\N\t\\N\t0\n"));
    }
    akas.push_str("tt2\t1\tA\t\\N\t\\N\t\\N\t\\N\t0\ntt1\t1000002\tA\t\\N\t\\N\t\\N\t\\N\t0\n");
    scattered.write("title.akas.tsv", &akas);
    let told = refused(&cluster, &scattered);
    assert!(
        told.contains("title.akas.tsv, line 10") && told.contains("do not stand together; sort"),
        "{told}"
    );
    // Something of somebody else's that would be lost.
    let view = "CREATE VIEW public.viejas AS SELECT * FROM public.titulos";
    cluster.sql("master2").batch_execute(view).expect("a view");
    let told = refused(&cluster, &files);
    assert!(
        told.contains("on master2") && told.contains("titulos (view public.viejas)"),
        "{told}"
    );
    cluster
        .sql("master2")
        .batch_execute("DROP VIEW public.viejas")
        .expect("dropped");
    // Masters that are not joined.
    cluster
        .sql("master2")
        .batch_execute("ALTER SUBSCRIPTION sub_from_master1 DISABLE")
        .expect("disabled");
    let told = refused(&cluster, &files);
    assert!(
        told.contains("the masters are not joined") && told.contains("sub_from_master1"),
        "{told}"
    );
    cluster
        .sql("master2")
        .batch_execute("ALTER SUBSCRIPTION sub_from_master1 ENABLE")
        .expect("enabled");

    assert_eq!(rows(&cluster, "SELECT * FROM cargas"), before);
    assert_eq!(
        rows(&cluster, "SELECT titulo_principal FROM titulos"),
        ["(Uno)"]
    );
    assert_eq!(
        rows(&cluster, "SELECT to_regnamespace('imdb_carga') IS NULL"),
        ["(t)"]
    );
}

#[test]
fn a_part_of_the_files_keeps_the_rest_and_what_belongs_to_nothing_any_more_is_told() {
    let cluster = Cluster::start();
    let all = Files::new();
    let title = |id: u32| format!("tt{id:07}\tmovie\tT{id}\tT{id}\t0\t1994\t\\N\t142\tDrama\n");
    all.write(
        "title.basics.tsv",
        format!("{BASICS}{}{}{}", title(1), title(2), title(3)),
    );
    all.write(
        "name.basics.tsv",
        format!("{NAMES}nm0000001\tA\t\\N\t\\N\tactor\ttt0000001,tt0000003\n"),
    );
    all.write(
        "title.ratings.tsv",
        format!("{RATINGS}tt0000001\t5.0\t5\ntt0000003\t6.0\t6\n"),
    );
    all.write("title.principals.tsv", format!("{PRINCIPALS}tt0000001\t1\tnm0000001\tactor\t\\N\t\\N\ntt0000003\t1\tnm0000001\tself\t\\N\t\\N\n"));
    loaded(&cluster, &all);
    // A reader of the tables who is nobody's superuser keeps his right.
    for node in MASTERS {
        let sql = "CREATE ROLE lector LOGIN PASSWORD 'x'; GRANT SELECT ON titulos, titulo_genero TO lector";
        cluster.sql(node).batch_execute(sql).expect("a role");
    }

    let titles = Files::new();
    titles.write(
        "title.basics.tsv",
        format!("{BASICS}{}{}", title(1), title(2)),
    );
    let outcome = loaded_with(&cluster, &titles, &["--allow-shrink"]);
    assert_equal(&cluster);
    assert_eq!(
        (&outcome["rows_orphaned"], &outcome["orphans"]),
        (
            &Value::from(3),
            &serde_json::json!({"name.basics": 1, "title.principals": 1, "title.ratings": 1})
        )
    );
    assert_eq!(
        rows(
            &cluster,
            "SELECT id_titulo, promedio, votos FROM titulos WHERE votos IS NOT NULL"
        ),
        ["(1,5.0,5)"]
    );
    assert_eq!(
        rows(
            &cluster,
            "SELECT archivo, linea, num, columna, motivo, detalle FROM rechazos ORDER BY 1"
        ),
        [
            "(name.basics,0,1,id_titulo,\"identificador inexistente\",3)",
            "(title.principals,0,1,id_titulo,\"identificador inexistente\",3)",
            "(title.ratings,0,1,id_titulo,\"identificador inexistente\",3)",
        ]
    );
    let kept = rows(
        &cluster,
        "SELECT fila FROM rechazos WHERE archivo = 'title.ratings'",
    );
    assert!(
        kept[0].contains("votos") && kept[0].contains('6'),
        "{kept:?}"
    );
    assert_eq!(
        rows(
            &cluster,
            "SELECT has_table_privilege('lector', 'titulos', 'SELECT') AND has_table_privilege('lector', 'titulo_genero', 'SELECT') \
            AND has_table_privilege('replicator', 'titulos', 'SELECT')"
        ),
        ["(t)"]
    );
    // Ratings alone, of the titles that are there.
    let ratings = Files::new();
    ratings.write(
        "title.ratings.tsv",
        format!("{RATINGS}tt0000002\t7.0\t7\ntt0000003\t6.0\t6\n"),
    );
    assert_eq!(
        counts(&loaded(&cluster, &ratings), "title.ratings"),
        (2, 1, 1, 0)
    );
    assert_eq!(
        rows(
            &cluster,
            "SELECT id_titulo, promedio, votos FROM titulos WHERE votos IS NOT NULL"
        ),
        ["(2,7.0,7)"]
    );
    assert_eq!(
        rows(
            &cluster,
            "SELECT linea, detalle FROM rechazos WHERE archivo = 'title.ratings'"
        ),
        ["(3,tt0000003)"]
    );
    assert_equal(&cluster);
    let foreign = "SELECT conname, confrelid::regclass, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f' ORDER BY 1";
    assert_eq!(rows(&cluster, foreign).len(), 18);
}
