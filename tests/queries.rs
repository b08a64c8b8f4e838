//! The queries over the films, over real masters. The rows are inserted on one master by SQL.

mod common;

use common::{Answer, Cluster, wait_until};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// A film, a series with two episodes, a title with an accent, and 60 titles of which 40 have ratings.
const FILMS: &str = r#"
INSERT INTO titulos VALUES
    (111161, 1, 'The Shawshank Redemption', 'The Shawshank Redemption', false, 1994, NULL, 142),
    (944947, 7, 'Game of Thrones', 'Game of Thrones', false, 2011, 2019, 57),
    (1480055, 3, 'Winter Is Coming', 'Winter Is Coming', false, 2011, NULL, 62),
    (1668746, 3, 'The Kingsroad', 'The Kingsroad', false, 2011, NULL, 56),
    (457430, 1, 'Pan''s Labyrinth', 'El laberinto del fauno', false, 2006, NULL, 118),
    (2147483647, 11, 'Spider-Man "∞" \ Ñandú', NULL, true, NULL, NULL, NULL);
UPDATE titulos SET promedio = nota, votos = cuantos
    FROM (VALUES (111161, 9.3, 2900000), (944947, 9.2, 2300000), (1480055, 8.9, 60000), (457430, 8.2, 700000)) AS de (titulo, nota, cuantos)
    WHERE id_titulo = titulo;
INSERT INTO episodios VALUES (1480055, 944947, 1, 1), (1668746, 944947, 1, 2);
INSERT INTO titulo_genero VALUES (111161, 9, 1), (944947, 9, 3), (944947, 1, 1), (944947, 3, 2), (457430, 27, 1);
INSERT INTO personas VALUES
    (1104, 'Frank Darabont', 1959, NULL), (209, 'Tim Robbins', 1958, NULL), (175, 'Stephen King', 1947, NULL), (7, NULL, NULL, NULL);
INSERT INTO titulo_director VALUES (111161, 1104, 1);
INSERT INTO titulo_escritor VALUES (111161, 1104, 2), (111161, 175, 1);
INSERT INTO participaciones VALUES
    (111161, 1, 209, 1, NULL, '{Andy Dufresne,"\"Andy\""}'), (111161, 2, 1104, 5, NULL, NULL), (111161, 3, 175, 4, 'short story', NULL);
INSERT INTO persona_profesion VALUES (1104, 46, 1), (1104, 19, 2);
INSERT INTO persona_conocida VALUES (1104, 111161, 1);
INSERT INTO titulos_alternos VALUES (111161, 1, 'Cadena perpetua', 'ES', NULL, '{imdbDisplay}', NULL, false);
-- Ten have the same votes, ten the same mean, every third has no year, and one a year before Christ.
INSERT INTO titulos SELECT 10000 + i, 1, 'Serie B número ' || i, 'Serie B', false, CASE WHEN i = 59 THEN -44 WHEN i % 3 > 0 THEN 1950 + i / 6 END, NULL, NULL,
    CASE WHEN i <= 10 THEN 5.5 WHEN i <= 40 THEN 1 + i / 10.0 END, CASE WHEN i BETWEEN 11 AND 20 THEN 50 WHEN i <= 40 THEN i * 10 END
    FROM generate_series(1, 60) AS i;
INSERT INTO titulo_genero SELECT 10000 + i, 28, 1 FROM generate_series(1, 60) AS i;
-- A long cast, and somebody in many titles.
INSERT INTO personas SELECT 5000 + i, 'Extra ' || i FROM generate_series(1, 150) AS i;
INSERT INTO participaciones SELECT 10001, i, 5000 + i, 2, NULL, NULL FROM generate_series(1, 150) AS i;
INSERT INTO participaciones SELECT 10000 + i, 900, 5001, 2, NULL, NULL FROM generate_series(1, 60) AS i;
INSERT INTO participaciones SELECT 10000 + i, 901, 5001, 3, NULL, NULL FROM generate_series(1, 60) AS i;
"#;

fn films() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = Cluster::start();
        cluster.sql("master1").batch_execute(FILMS).expect("films");
        cluster
    })
}

fn rows(answer: &Answer) -> Vec<i64> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let rows = answer.body["data"].as_array().expect("a page");
    let id = |row: &Value| row["id_titulo"].as_i64().expect("an id");
    rows.iter().map(id).collect()
}

fn search(query: &str) -> Vec<i64> {
    rows(&films().get(&format!("/titulos?{query}")))
}

/// All ids of a list, page by page.
fn pages(cluster: &Cluster, path: &str, limit: usize) -> Vec<i64> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let answer = cluster.get(&format!("{path}&limit={limit}{after}"));
        let page = rows(&answer);
        assert!(page.len() <= limit, "{path}");
        all.extend(&page);
        let Some(next) = answer.body["next"].as_str() else {
            return all;
        };
        assert_eq!(page.len(), limit, "only the last page is shorter: {path}");
        assert!(all.len() < 1_000, "{path} does not end");
        after = format!("&after={next}");
    }
}

#[test]
fn a_title_with_everything() {
    let expected = json!({
        "ok": true,
        "data": {
            "tconst": "tt0111161", "id_titulo": 111161, "tipo": "movie",
            "titulo_principal": "The Shawshank Redemption", "titulo_original": "The Shawshank Redemption",
            "es_adulto": false, "anio_inicio": 1994, "anio_fin": null, "duracion_min": 142,
            "generos": [{ "id_genero": 9, "genero": "Drama" }],
            "calificacion": { "promedio": 9.3, "votos": 2900000 },
            "serie": null,
            "directores": [{ "nconst": "nm0001104", "nombre": "Frank Darabont" }],
            "escritores": [{ "nconst": "nm0000175", "nombre": "Stephen King" }, { "nconst": "nm0001104", "nombre": "Frank Darabont" }],
            "reparto": [
                { "orden": 1, "nconst": "nm0000209", "nombre": "Tim Robbins", "categoria": "actor", "trabajo": null, "personajes": ["Andy Dufresne", "\"Andy\""] },
                { "orden": 2, "nconst": "nm0001104", "nombre": "Frank Darabont", "categoria": "director", "trabajo": null, "personajes": [] },
                { "orden": 3, "nconst": "nm0000175", "nombre": "Stephen King", "categoria": "writer", "trabajo": "short story", "personajes": [] },
            ],
            "titulos_alternos": [
                { "titulo": "Cadena perpetua", "region": "ES", "idioma": null, "tipos": ["imdbDisplay"], "atributos": [], "es_original": false },
            ],
            "totales": { "directores": 1, "escritores": 2, "reparto": 3, "titulos_alternos": 1, "episodios": 0 },
        },
        "node_used": "master1",
    });
    for form in ["tt0111161", "111161", "0111161"] {
        let answer = films().get(&format!("/titulos/{form}"));
        assert_eq!(
            (answer.status, answer.body),
            (200, expected.clone()),
            "{form}"
        );
    }
}

#[test]
fn series_episodes_and_bare_titles() {
    let series = films().get("/titulos/tt0944947").body;
    assert_eq!(series["data"]["totales"]["episodios"], 2);
    let names = |list: &Value| -> Vec<String> {
        let rows = list.as_array().expect("a list").iter();
        rows.map(|row| row["genero"].as_str().unwrap_or("").to_string())
            .collect()
    };
    assert_eq!(
        names(&series["data"]["generos"]),
        ["Acción", "Aventura", "Drama"]
    );
    let episode = films().get("/titulos/tt1668746").body;
    let expected = json!({ "tconst": "tt0944947", "titulo": "Game of Thrones", "temporada": 1, "episodio": 2 });
    assert_eq!(episode["data"]["serie"], expected);
    assert_eq!(episode["data"]["calificacion"], Value::Null);
    let bare = films().get("/titulos/2147483647").body;
    assert_eq!(bare["data"]["tconst"], "tt2147483647");
    assert_eq!(
        bare["data"]["titulo_principal"],
        "Spider-Man \"∞\" \\ Ñandú"
    );
    for empty in [
        "generos",
        "directores",
        "escritores",
        "reparto",
        "titulos_alternos",
    ] {
        assert_eq!(bare["data"][empty], json!([]), "{empty}");
    }
    let long = films().get("/titulos/10001").body;
    assert_eq!(long["data"]["reparto"].as_array().map(Vec::len), Some(100));
    assert_eq!(long["data"]["totales"]["reparto"], 152);
}

#[test]
fn a_person_with_films() {
    for form in ["nm0001104", "1104"] {
        let answer = films().get(&format!("/personas/{form}"));
        let expected = json!({
            "ok": true,
            "data": {
                "nconst": "nm0001104", "id_persona": 1104, "nombre": "Frank Darabont", "anio_nacimiento": 1959, "anio_muerte": null,
                "profesiones": ["writer", "director"],
                "conocida_por": [{ "tconst": "tt0111161", "titulo_principal": "The Shawshank Redemption", "anio_inicio": 1994 }],
                "peliculas": [{
                    "tconst": "tt0111161", "id_titulo": 111161, "tipo": "movie", "titulo_principal": "The Shawshank Redemption",
                    "anio_inicio": 1994, "calificacion": { "promedio": 9.3, "votos": 2900000 },
                    // The direction is among the principals, the writing in title.crew alone.
                    "papeles": [
                        { "categoria": "director", "trabajo": null, "personajes": [] },
                        { "categoria": "writer", "trabajo": null, "personajes": [] },
                    ],
                }],
            },
            "next": null,
            "node_used": "master1",
        });
        assert_eq!((answer.status, answer.body), (200, expected), "{form}");
    }
    let nobody = films().get("/personas/nm0000007").body;
    assert_eq!(
        (&nobody["data"]["nombre"], &nobody["data"]["peliculas"]),
        (&Value::Null, &json!([]))
    );
}

#[test]
fn the_films_of_a_person_page_by_page() {
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let answer = films().get(&format!("/personas/5001?limit=7{after}"));
        let films = answer.body["data"]["peliculas"]
            .as_array()
            .expect("films")
            .clone();
        for film in &films {
            assert!(
                film["papeles"]
                    .as_array()
                    .is_some_and(|parts| parts.len() >= 2),
                "{film}"
            );
        }
        seen.extend(
            films
                .iter()
                .map(|film| film["id_titulo"].as_i64().expect("an id")),
        );
        match answer.body["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    let expected: Vec<i64> = (10_001..=10_060).rev().collect();
    assert_eq!(seen, expected);
    let number = films().get("/personas/5001?limit=1&after=10002");
    assert_eq!(number.body["data"]["peliculas"][0]["tconst"], "tt0010001");
}

#[test]
fn words_are_found_in_both_titles_without_accents_or_case() {
    for (query, found) in [
        ("q=shawshank", vec![111_161]),
        ("q=REDEMPTION+the", vec![111_161]),
        ("q=shawshank+thrones", vec![]),
        ("q=laberinto", vec![457_430]),
        ("q=labyrinth+fauno", vec![457_430]),
        ("q=%C3%B1andu", vec![2_147_483_647]),
        ("q=NAND%C3%9A", vec![2_147_483_647]),
        ("q=n%CC%83andu", vec![2_147_483_647]),
        ("q=spider-man", vec![2_147_483_647]),
        ("q=man+spider", vec![2_147_483_647]),
        ("q=spider-m*", vec![2_147_483_647]),
        ("q=shawsh", vec![]),
        ("q=shawsh*", vec![111_161]),
        ("q=shawsh*+redem*+the", vec![111_161]),
        ("q=game+shawsh*", vec![]),
        ("q=%27+%7C+%26+redemption+!+:*abc", vec![]),
        ("q=the", vec![111_161, 1_668_746]),
        ("q=redemption+%26+%7C+!", vec![111_161]),
    ] {
        assert_eq!(search(query), found, "{query}");
    }
}

#[test]
fn filters_hold_together() {
    for (query, found) in [
        ("tipo=tvSeries", vec![944_947]),
        ("tipo=tvseries", vec![944_947]),
        ("tipo=tvPilot", vec![]),
        ("genero=9", vec![111_161, 944_947]),
        ("genero=Drama&tipo=movie", vec![111_161]),
        ("genero=drama&hasta=2000", vec![111_161]),
        ("genero=War", vec![457_430]),
        (
            "desde=2006&hasta=2011&votos=60000",
            vec![944_947, 457_430, 1_480_055],
        ),
        (
            "desde=2006&hasta=2011",
            vec![944_947, 457_430, 1_480_055, 1_668_746],
        ),
        (
            "desde=1995&orden=-anio",
            vec![457_430, 944_947, 1_480_055, 1_668_746],
        ),
        (
            "desde=1995&orden=anio&votos=60000",
            vec![1_480_055, 944_947, 457_430],
        ),
        ("votos=60000", vec![111_161, 944_947, 457_430, 1_480_055]),
        (
            "votos=60000&orden=-votos",
            vec![1_480_055, 457_430, 944_947, 111_161],
        ),
        (
            "votos=60000&orden=promedio",
            vec![111_161, 944_947, 1_480_055, 457_430],
        ),
        (
            "votos=60000&orden=-promedio&tipo=movie",
            vec![457_430, 111_161],
        ),
        ("q=serie&genero=War", vec![]),
        ("q=serie+7&genero=28&tipo=movie&desde=1951", vec![10_007]),
        ("hasta=0", vec![10_059]),
    ] {
        assert_eq!(search(query), found, "{query}");
    }
    let of_genre = films().get("/generos/9/titulos?tipo=movie");
    assert_eq!(rows(&of_genre), [111_161]);
    let row = &films().get("/titulos?q=shawshank").body["data"][0];
    let expected = json!({
        "tconst": "tt0111161", "id_titulo": 111161, "tipo": "movie", "titulo_principal": "The Shawshank Redemption",
        "titulo_original": "The Shawshank Redemption", "es_adulto": false, "anio_inicio": 1994, "anio_fin": null, "duracion_min": 142,
        "generos": [{ "id_genero": 9, "genero": "Drama" }], "calificacion": { "promedio": 9.3, "votos": 2900000 },
    });
    assert_eq!(*row, expected);
}

#[test]
fn every_order_has_each_title_once_however_it_is_paged() {
    for list in [
        "/titulos?",
        "/titulos?q=serie",
        "/generos/28/titulos?",
        "/titulos?q=num*&tipo=movie",
    ] {
        let mut sizes = HashSet::new();
        for orden in ["votos", "-votos", "promedio", "-promedio", "anio", "-anio"] {
            let path = format!("{list}&orden={orden}");
            let whole = pages(films(), &path, 100);
            for limit in [1, 7, 40] {
                assert_eq!(pages(films(), &path, limit), whole, "{path} by {limit}");
            }
            let distinct: HashSet<&i64> = whole.iter().collect();
            assert_eq!(distinct.len(), whole.len(), "{path}");
            sizes.insert(whole.len());
            let answer = films().get(&format!("{path}&limit=100"));
            let key = |row: &Value| match orden.trim_start_matches('-') {
                "votos" => row["calificacion"]["votos"].as_f64(),
                "promedio" => row["calificacion"]["promedio"].as_f64(),
                _ => row["anio_inicio"].as_f64(),
            };
            let keys: Vec<Option<f64>> = answer.body["data"]
                .as_array()
                .expect("rows")
                .iter()
                .map(key)
                .collect();
            let known: Vec<f64> = keys.iter().map_while(|key| *key).collect();
            assert!(
                keys[known.len()..].iter().all(Option::is_none),
                "{path}: those without come last"
            );
            let sorted = match orden.starts_with('-') {
                true => known.is_sorted_by(|one, two| one <= two),
                false => known.is_sorted_by(|one, two| one >= two),
            };
            assert!(sorted && known.len() > 30, "{path}: {known:?}");
        }
        assert_eq!(sizes.len(), 1, "{list}: {sizes:?}");
    }
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    for (path, status, code, named) in [
        ("/titulos/foo", 400, "tconst_invalid", ""),
        ("/titulos/nm0111161", 400, "tconst_invalid", ""),
        ("/titulos/tt0", 400, "tconst_invalid", ""),
        ("/titulos/2147483648", 400, "tconst_invalid", ""),
        ("/titulos/tt9999999", 404, "titulo_not_found", "tt9999999"),
        ("/titulos/tt0111161?x=1", 400, "parameter_invalid", "x"),
        ("/personas/tt0111161", 400, "nconst_invalid", ""),
        ("/personas/nm9999999", 404, "persona_not_found", "nm9999999"),
        (
            "/personas/209?limit=101",
            400,
            "parameter_invalid",
            "limit (1..100)",
        ),
        (
            "/personas/209?after=x",
            400,
            "parameter_invalid",
            "after (tconst)",
        ),
        ("/generos/12345/titulos", 404, "genero_not_found", "12345"),
        ("/generos/x/titulos", 400, "id_invalid", ""),
        (
            "/generos/9/titulos?genero=9",
            400,
            "parameter_invalid",
            "genero",
        ),
        (
            "/titulos?genero=12345",
            400,
            "parameter_invalid",
            "genero (12345",
        ),
        (
            "/titulos?genero=Nothing",
            400,
            "parameter_invalid",
            "genero (Nothing",
        ),
        (
            "/titulos?tipo=film",
            400,
            "parameter_invalid",
            "tipo (film: movie, short, tvEpisode",
        ),
        (
            "/titulos?orden=titulo",
            400,
            "parameter_invalid",
            "orden (relevancia, votos, -votos",
        ),
        ("/titulos?after=5", 400, "parameter_invalid", "after (next)"),
        (
            "/titulos?orden=anio&after=votos_5_1",
            400,
            "parameter_invalid",
            "after (orden=votos)",
        ),
        (
            "/titulos?limit=0",
            400,
            "parameter_invalid",
            "limit (1..100)",
        ),
        ("/titulos?page=2", 400, "parameter_invalid", "page"),
    ] {
        let answer = films().get(path);
        assert_eq!(
            (answer.status, answer.code()),
            (status, code),
            "{path}: {answer:?}"
        );
        let text = answer.body["error"].as_str().expect("a text");
        assert!(text.contains(named), "{path}: {text}");
    }
}

#[test]
fn an_empty_database_answers_too() {
    let cluster = Cluster::start();
    for path in [
        "/titulos",
        "/titulos?q=the",
        "/titulos?orden=-anio&tipo=movie",
        "/generos/9/titulos",
    ] {
        let answer = cluster.get(path);
        let expected = json!({ "ok": true, "data": [], "next": null, "node_used": "master1" });
        assert_eq!((answer.status, answer.body), (200, expected), "{path}");
    }
    assert_eq!(cluster.get("/titulos/tt0111161").code(), "titulo_not_found");
    assert_eq!(
        cluster.get("/personas/nm0000151").code(),
        "persona_not_found"
    );
}

#[test]
fn a_failover_in_the_middle_of_a_walk_is_a_pause() {
    let cluster = Cluster::start();
    cluster.sql("master1").batch_execute(FILMS).expect("films");
    let count = |node: &str| -> i64 {
        let row = cluster
            .sql(node)
            .query_one("SELECT count(*) FROM participaciones", &[]);
        row.expect("a count").get(0)
    };
    wait_until("the films are on both masters", || {
        count("master2") == count("master1")
    });
    let whole = pages(&cluster, "/titulos?q=serie&orden=promedio", 100);
    let killed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for path in [
            "/titulos?q=serie&orden=promedio",
            "/generos/28/titulos?orden=promedio",
        ] {
            let (cluster, killed, whole) = (&cluster, &killed, &whole);
            scope.spawn(move || {
                let mut after_kill = 0;
                while after_kill < 3 {
                    after_kill += usize::from(killed.load(Ordering::SeqCst));
                    assert_eq!(pages(cluster, path, 5), *whole);
                    assert_eq!(cluster.get("/titulos/tt0111161").status, 200);
                }
            });
        }
        cluster.local(&["kill", "master1"]);
        killed.store(true, Ordering::SeqCst);
    });
    let after = cluster.get("/titulos/tt0111161");
    assert_eq!((after.status, after.node()), (200, "master2"));
    assert_eq!(cluster.get("/personas/1104").node(), "master2");
}
