//! Films are found by their words, however these are typed. One cluster with the sample and some titles more serves all of it.

mod common;

use common::films::MASTERS;
use common::{Answer, Cluster, wait_until};
use postgres::Client;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashSet};

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/sample");

/// Titles beside those of the sample; some are known, and the third column has their votes.
const MORE: &[(i32, &str, Option<i32>)] = &[
    (1_000_000_001, "Spiderweb Man", None),
    (1_000_000_002, "Araña Man", None),
    (1_000_000_003, "Arañaman", None),
    (1_000_000_004, "Araña-Man", Some(7)),
    (1_000_000_005, "Ærlighed på Łódźer Straße", None),
    (1_000_000_006, "Ο Μικρός Θίασος", None),
    (1_000_000_007, "Más\u{a0}Allá\u{2003}Del\u{200b}Mar", None),
    (1_000_000_008, "Rock'n'Roll-Fever", None),
    (1_000_000_009, "Ka\u{301}rma Po\u{302}lice", None),
    (1_000_000_010, "ЗВЁЗДНЫЙ путь", None),
    (1_000_000_011, "L´Heure d’été", None),
    (1_000_000_012, "東京物語", None),
    (1_000_000_013, "Zqx", Some(5)),
    (1_000_000_014, "Zqx Returns", Some(900_000)),
    (1_000_000_015, "The Zqx", Some(2_000_000)),
    (1_000_000_016, "Zqx", Some(6)),
    (1_000_000_017, "Zqx Forever", None),
    (1_000_000_018, "A Zqx Too Far", None),
    (1_000_000_019, "Zqx", None),
    (1_000_000_020, "The Wyvernmaster", Some(100)),
    (1_000_000_021, "Wyvernmaster II: The Return", Some(1_000)),
];

fn cluster() -> Cluster {
    let cluster = Cluster::start();
    let loaded = cluster.run(&["load", SAMPLE]);
    assert!(loaded.status.success(), "{loaded:?}");
    let mut first = cluster.sql("master1");
    for (id, title, votes) in MORE {
        let mean = votes.map(|_| "7.0");
        let sql = "INSERT INTO titulos VALUES ($1, 1, $2, $2, false, 2000, NULL, NULL, $3::text::numeric, $4)";
        first
            .execute(sql, &[id, title, &mean, votes])
            .expect("a title");
    }
    // One is called something else elsewhere, and its original title is a row as well.
    first
        .batch_execute(
            "INSERT INTO titulos_alternos (id_titulo, orden, titulo, region, es_original) VALUES \
             (99674, 1, 'El padrino: Parte III', 'ES', NULL), (99674, 2, 'The Godfather Part III', NULL, true), \
             (1000000020, 1, 'El señor de los guivernos', 'MX', false), (1000000021, 1, 'Guivernos II', 'MX', false); \
             ANALYZE titulos; ANALYZE titulos_alternos",
        )
        .expect("other titles");
    wait_until("all of it is on both masters", || {
        let count = "SELECT count(*) FROM titulos_alternos";
        let row = cluster.sql("master2").query_one(count, &[]);
        row.expect("a count").get::<_, i64>(0) == 4
    });
    cluster
}

#[test]
fn films_are_found_by_their_words_however_they_are_typed() {
    let cluster = cluster();
    every_title_is_found_each_way(&cluster);
    titles_that_a_parser_takes_for_something_else(&cluster);
    a_title_comes_first_that_is_the_words(&cluster);
    the_pages_of_the_best_are_stable(&cluster);
    other_titles(&cluster);
    a_slip_of_the_keyboard(&cluster);
    genres(&cluster);
    let compared = cluster.run(&["compare"]);
    assert_eq!(compared.status.code(), Some(0), "{compared:?}");
}

/// The ways in which somebody may type a title. What is a word here is by the standard library's own notion of letters.
fn ways(title: &str) -> BTreeSet<String> {
    const APOSTROPHES: &str = "'’‘´`";
    let is_sign =
        |letter: char| !letter.is_alphanumeric() && !is_mark(letter) && !letter.is_whitespace();
    let spaced = title.replace(is_sign, " ");
    let mut ways: BTreeSet<String> = [
        title.to_string(),
        title.to_uppercase(),
        plain(title),
        spaced.clone(),
        title.replace(|letter| APOSTROPHES.contains(letter), ""),
        title.replace(is_sign, ""),
    ]
    .into();
    ways.extend(spaced.split_whitespace().map(str::to_string));
    ways.extend(title.split_whitespace().map(str::to_lowercase));
    let words: Vec<&str> = spaced.split_whitespace().collect();
    if let [one, two] = words[..] {
        ways.insert(format!("{one}{two}"));
        ways.insert(format!("{one}-{two}"));
    }
    if let [one] = words[..] {
        let letters: Vec<char> = one.chars().collect();
        let (start, end) = letters.split_at(letters.len() / 2);
        ways.insert([start, &[' '], end].concat().iter().collect());
    }
    // A sign is no word, unless there is nothing else.
    let has_letters = |text: &str| text.contains(char::is_alphanumeric);
    ways.retain(|way| !way.trim().is_empty() && (has_letters(way) || !has_letters(title)));
    ways
}

fn is_mark(letter: char) -> bool {
    ('\u{300}'..='\u{36f}').contains(&letter) || letter == '\u{200b}'
}

/// Without accents, as an English keyboard has it.
fn plain(title: &str) -> String {
    const PAIRS: &[(&str, &str)] = &[
        ("àáâãä", "a"),
        ("ÀÂ", "A"),
        ("ç", "c"),
        ("èéêë", "e"),
        ("É", "E"),
        ("ìíîï", "i"),
        ("ñń", "n"),
        ("òóôöō", "o"),
        ("ș", "s"),
        ("úü", "u"),
        ("Ž", "Z"),
        ("ø", "o"),
        ("łŁ", "l"),
        ("ź", "z"),
        ("å", "a"),
        ("Æ", "AE"),
        ("œ", "oe"),
        ("ß", "ss"),
        ("’", "'"),
        ("–", "-"),
    ];
    let one = |letter: char| match PAIRS.iter().find(|(from, _)| from.contains(letter)) {
        Some((_, to)) => (*to).to_string(),
        None if is_mark(letter) => String::new(),
        None => letter.to_string(),
    };
    title.chars().map(one).collect()
}

/// Each half of the titles on one master, with the statements of the database that a search uses.
fn every_title_is_found_each_way(cluster: &Cluster) {
    let misses = std::thread::scope(|scope| {
        let halves: Vec<_> = MASTERS
            .iter()
            .zip(0..)
            .map(|(node, half)| scope.spawn(move || not_found(&mut cluster.sql(node), half)))
            .collect();
        let misses = halves.into_iter().map(|half| half.join().expect("a half"));
        misses.flatten().collect::<Vec<String>>()
    });
    assert!(
        misses.is_empty(),
        "{} are not found: {misses:?}",
        misses.len()
    );
    // The whole way for some of them: those that are just the words come first.
    let rows = cluster.sql("master1").query(
        "SELECT id_titulo, titulo_principal FROM titulos WHERE id_titulo % 97 = 0 OR titulo_principal ~ '[^a-zA-Z0-9 ,:!]' AND id_titulo % 7 = 0 \
         ORDER BY 1",
        &[],
    );
    for row in rows.expect("titles") {
        let (id, title): (i32, String) = (row.get(0), row.get(1));
        if title.split_whitespace().count() <= 10 {
            let found = search(cluster, &title.to_uppercase());
            assert!(
                found.iter().take(10).any(|found| *found == i64::from(id)),
                "{id} {title}: {found:?}"
            );
        }
    }
}

fn not_found(client: &mut Client, half: i32) -> Vec<String> {
    let rows = client.query(
        "SELECT id_titulo, titulo FROM titulos, \
             unnest(ARRAY[titulo_principal, titulo_original, normalize(titulo_principal, NFD)]) AS titulo \
         WHERE id_titulo % 2 = $1",
        &[&half],
    );
    let mut typed: HashSet<(i32, String)> = HashSet::new();
    for row in rows.expect("titles") {
        let (id, title): (i32, String) = (row.get(0), row.get(1));
        typed.extend(ways(&title).into_iter().map(|way| (id, way)));
    }
    assert!(typed.len() > 50_000, "{}", typed.len());
    let (ids, ways): (Vec<i32>, Vec<String>) = typed.into_iter().unzip();
    let sql = "WITH typed AS MATERIALIZED (SELECT * FROM unnest($1::int4[], $2::text[]) AS w (id_titulo, way)), \
             queries AS MATERIALIZED (SELECT way, imdb_ha.consulta(way, 'contiene') AS query FROM (SELECT DISTINCT way FROM typed) AS w), \
             vectors AS MATERIALIZED (SELECT id_titulo, imdb_ha.buscable(titulo_principal, titulo_original) AS words FROM titulos) \
         SELECT id_titulo || ' by ' || way FROM typed JOIN queries USING (way) JOIN vectors USING (id_titulo) WHERE NOT words @@ query";
    let missed = client.query(sql, &[&ids, &ways]).expect("the look-up");
    missed.iter().map(|row| row.get(0)).collect()
}

fn ask(cluster: &Cluster, q: &str, more: &str) -> Answer {
    let q: String = url::form_urlencoded::byte_serialize(q.as_bytes()).collect();
    cluster.get(&format!("/titulos?q={q}{more}"))
}

fn ids(answer: &Answer) -> Vec<i64> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let rows = answer.body["data"].as_array().expect("a page").iter();
    rows.map(|row| row["id_titulo"].as_i64().expect("an id"))
        .collect()
}

fn search(cluster: &Cluster, q: &str) -> Vec<i64> {
    ids(&ask(cluster, q, "&limit=100"))
}

fn titles(answer: &Answer) -> Vec<String> {
    let rows = answer.body["data"].as_array().expect("a page").iter();
    rows.map(|row| {
        row["titulo_principal"]
            .as_str()
            .expect("a title")
            .to_string()
    })
    .collect()
}

fn titles_that_a_parser_takes_for_something_else(cluster: &Cluster) {
    for (title, ways) in [
        (
            "Face/Off",
            &["face off", "off face", "faceoff", "face-off", "FACE/OFF"][..],
        ),
        (
            "A.I. Artificial Intelligence",
            &[
                "ai",
                "a.i.",
                "a i",
                "AI artificial",
                "artificial intelligence a.i",
            ],
        ),
        (
            "L.A. Confidential",
            &["la confidential", "l.a. confidential", "L A confidential"],
        ),
        (
            "Startup.com",
            &["startup", "startup com", "startup.com", "startupcom"],
        ),
        (
            "Catch-22",
            &["catch 22", "catch22", "catch-22", "22 catch", "catch"],
        ),
        ("U-571", &["u571", "u 571", "571", "u-571"]),
        ("$", &["$"]),
        ("8½", &["8½", "8 1/2", "8", "8 ½"]),
        (
            "Spider-Man",
            &[
                "spider man",
                "spiderman",
                "spider-man",
                "Spider’Man",
                "SPIDER–MAN",
                "spider-m*",
                "spiderm*",
            ],
        ),
        (
            "Araña Man",
            &[
                "arana man",
                "aranaman",
                "araña-man",
                "aran\u{303}a man",
                "arañaman*",
            ],
        ),
        ("Arañaman", &["arana man", "aranaman", "araña-man", "arañ*"]),
        (
            "Ærlighed på Łódźer Straße",
            &[
                "aerlighed",
                "ærlighed pa lodzer strasse",
                "ÆRLIGHED PÅ ŁÓDŹER STRASSE",
                "straẞe",
            ],
        ),
        (
            "Ο Μικρός Θίασος",
            &["μικρος θιασος", "ΜΙΚΡΌΣ ΘΊΑΣΟΣ", "ο μικροσ"],
        ),
        (
            "Más\u{a0}Allá\u{2003}Del\u{200b}Mar",
            &["mas alla delmar", "más allá", "alla\u{a0}mas"],
        ),
        (
            "Rock'n'Roll-Fever",
            &[
                "rocknroll fever",
                "rock n roll fever",
                "rock'n'roll",
                "rock’n’roll",
                "rocknrollfever",
            ],
        ),
        (
            "Ka\u{301}rma Po\u{302}lice",
            &["karma police", "kárma pôlice", "KÁRMA"],
        ),
        (
            "ЗВЁЗДНЫЙ путь",
            &["звездный", "звёздный ПУТЬ", "зве\u{308}здныи\u{306}"],
        ),
        (
            "L´Heure d’été",
            &["lheure dete", "l'heure d'été", "heure ete", "l´heure"],
        ),
        ("東京物語", &["東京物語", "東京物*", "東京 物語"]),
    ] {
        for way in ways {
            let answer = ask(cluster, way, "&limit=100");
            assert!(
                titles(&answer).iter().any(|found| found == title),
                "{title} by {way}: {answer:?}"
            );
        }
    }
    // Letters and signs that mean something to those who look words up.
    for q in [
        "a'b\\",
        "''",
        "\\",
        "&|!()<->:*",
        "* :* \\:*",
        "'\"';--",
        "\u{1f600}",
        "^the",
        "=2",
    ] {
        let answer = ask(cluster, q, "");
        assert!(
            answer.status == 200 || answer.code() == "parameter_invalid",
            "{q}: {answer:?}"
        );
    }
}

fn a_title_comes_first_that_is_the_words(cluster: &Cluster) {
    let zqx: Vec<i64> = [16, 13, 19, 14, 17, 15, 18]
        .map(|id| 1_000_000_000 + id)
        .to_vec();
    for q in ["zqx", "ZQX", "zqx!", "zqx*"] {
        assert_eq!(search(cluster, q), zqx, "{q}");
    }
    // Whoever asks for another order gets it.
    let by_votes = [15, 14, 16, 13, 19, 18, 17].map(|id| 1_000_000_000 + id);
    assert_eq!(ids(&ask(cluster, "zqx", "&orden=votos")), by_votes);
    assert_eq!(
        ids(&ask(cluster, "zqx", "&votos=6")),
        [16, 14, 15].map(|id| 1_000_000_000 + id)
    );
    assert_eq!(ids(&ask(cluster, "zqx", "&hasta=1999")), [0i64; 0]);
    // The other title counts as well, and one word that is two.
    assert_eq!(
        search(cluster, "aranaman"),
        [1_000_000_004, 1_000_000_003, 1_000_000_002]
    );
    let found = titles(&ask(cluster, "spiderman", "&limit=2"));
    assert_eq!(found[0], "Spider-Man");
    for (q, first) in [
        ("alien", "Alien"),
        ("the godfather part iii", "The Godfather Part III"),
        ("face off", "Face/Off"),
        ("heat", "Heat"),
    ] {
        assert_eq!(titles(&ask(cluster, q, "&limit=1")), [first], "{q}");
    }
}

fn the_pages_of_the_best_are_stable(cluster: &Cluster) {
    for q in ["zqx", "the", "man", "love story", "the man*"] {
        let path = |limit: usize, after: &str| ask(cluster, q, &format!("&limit={limit}{after}"));
        let pages = |limit: usize, most: usize| {
            let (mut all, mut after) = (Vec::new(), String::new());
            loop {
                let answer = path(limit, &after);
                all.extend(ids(&answer));
                match answer.body["next"].as_str() {
                    Some(next) if all.len() < most => after = format!("&after={next}"),
                    _ => break,
                }
            }
            all.truncate(most);
            all
        };
        let whole = pages(100, 400);
        assert_eq!(
            whole.iter().collect::<HashSet<_>>().len(),
            whole.len(),
            "{q}"
        );
        for limit in [1, 7] {
            let most = limit * 12;
            assert_eq!(
                pages(limit, most),
                whole[..most.min(whole.len())],
                "{q} by {limit}"
            );
        }
        // All of them are there, whatever the order.
        if whole.len() < 400 {
            let by_year = ids(&ask(cluster, q, "&orden=anio&limit=100")).len();
            assert_eq!(by_year, whole.len().min(100), "{q}");
        }
    }
    for (more, named) in [
        ("&after=votos_5_1", "after (orden=votos)"),
        ("&after=relevancia_9_5_1", "after (next)"),
        (
            "&orden=votos&after=relevancia_0_5_1",
            "after (orden=relevancia)",
        ),
    ] {
        let answer = ask(cluster, "zqx", more);
        assert_eq!(
            (answer.status, answer.code()),
            (400, "parameter_invalid"),
            "{more}"
        );
        let text = answer.body["error"].as_str().expect("a text");
        assert!(text.contains(named), "{more}: {text}");
    }
}

fn other_titles(cluster: &Cluster) {
    assert_eq!(search(cluster, "el padrino"), [99_674]);
    assert_eq!(search(cluster, "PADRINO parte"), [99_674]);
    // By votes, and page by page.
    assert_eq!(search(cluster, "guivernos"), [1_000_000_021, 1_000_000_020]);
    let first = ask(cluster, "guivernos", "&limit=1");
    assert_eq!(ids(&first), [1_000_000_021]);
    let next = format!(
        "&limit=1&after={}",
        first.body["next"].as_str().expect("more")
    );
    assert_eq!(ids(&ask(cluster, "guivernos", &next)), [1_000_000_020]);
    assert_eq!(search(cluster, "senor guivernos"), [1_000_000_020]);
    // Those that have the words themselves come once, and before the others.
    let found = search(cluster, "godfather iii");
    assert_eq!(
        found.iter().filter(|id| **id == 99_674).count(),
        1,
        "{found:?}"
    );
}

fn a_slip_of_the_keyboard(cluster: &Cluster) {
    let near = |q: &str, more: &str| {
        let answer = ask(cluster, q, more);
        assert_eq!(ids(&answer), [0i64; 0], "{q}");
        answer.body["did_you_mean"].clone()
    };
    for (q, expected) in [
        ("wyvernmastre", "The Wyvernmaster"),
        ("wyvenmaster", "The Wyvernmaster"),
        ("the wivernmaster", "The Wyvernmaster"),
        ("WYVËRNMASTERR return", "Wyvernmaster II: The Return"),
        ("shawshenk redemption", "The Shawshank Redemption"),
        ("shwashenk redemption", "The Shawshank Redemption"),
        ("casablanka", "Casablanca"),
        ("godfahter part iii", "The Godfather Part III"),
    ] {
        let found = near(q, "");
        let found = found
            .as_array()
            .unwrap_or_else(|| panic!("nothing for {q}"));
        assert!(
            found.len() <= 5 && found.contains(&json!(expected)),
            "{q}: {found:?}"
        );
    }
    // Words that are there are no slip; nor is anything said of what is like nothing, beside what was found, or on a later page.
    for q in [
        "godfather zebra",
        "qqqqxxxx",
        "xq",
        "\u{1f600}",
        "wyvernmastre qqqqxxxx zzzzyyyy",
    ] {
        assert_eq!(near(q, ""), Value::Null, "{q}");
    }
    assert_eq!(near("wyvernmaster", "&hasta=1901"), Value::Null);
    assert_eq!(near("wyvernmastre", "&after=relevancia_0_5_1"), Value::Null);
    assert_eq!(ask(cluster, "alien", "").body["did_you_mean"], Value::Null);
    let of_genre = cluster.get("/generos/9/titulos?q=casablanka");
    assert_eq!(of_genre.body["did_you_mean"][0], "Casablanca");
}

fn genres(cluster: &Cluster) {
    for name in [
        "Straße",
        "ΛΌΓΟΣ",
        "Cine\u{a0}Mudo",
        "C++",
        "Rock'n'Roll",
        "Ma\u{301}gico",
    ] {
        assert_eq!(cluster.add(name).status, 201, "{name}");
    }
    let found = |part: &str, more: &str| {
        let part: String = url::form_urlencoded::byte_serialize(part.as_bytes()).collect();
        let answer = cluster.get(&format!("/generos?genero={part}{more}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        let rows = answer.body["data"].as_array().expect("rows").iter();
        rows.map(|row| row["genero"].as_str().expect("a name").to_string())
            .collect::<Vec<_>>()
    };
    for (part, name) in [
        ("accion", "Acción"),
        ("acción", "Acción"),
        ("ACCIÓN", "Acción"),
        ("accio\u{301}n", "Acción"),
        ("acc", "Acción"),
        ("strasse", "Straße"),
        ("STRAẞE", "Straße"),
        ("straße", "Straße"),
        ("λογος", "ΛΌΓΟΣ"),
        ("λόγοσ", "ΛΌΓΟΣ"),
        ("cine mudo", "Cine\u{a0}Mudo"),
        ("cine\u{a0}mu", "Cine\u{a0}Mudo"),
        ("++", "C++"),
        ("rocknroll", "Rock'n'Roll"),
        ("rock’n’roll", "Rock'n'Roll"),
        ("mágico", "Ma\u{301}gico"),
        ("ciencia-ficcion", "Ciencia ficción"),
    ] {
        assert_eq!(found(part, ""), [name], "{part}");
    }
    assert_eq!(found("music", ""), ["Música", "Musical"]);
    assert_eq!(found("music", "&limit=1&after=16"), ["Musical"]);
    assert_eq!(found("nothing like that", ""), [""; 0]);
}
