//! Files that would wipe something, and what is found in the place of one: `imdb-ha load` refuses them, says why, and leaves every row where
//! it was. One cluster serves all of it.

mod common;

use common::films::*;
use common::{Cluster, clean_command, wait_until};
use flate2::Compression;
use flate2::write::GzEncoder;
use nix::sys::stat::Mode;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;

fn titles(first: u32, last: u32, genre: &str) -> String {
    let row = |id| format!("tt{id:07}\tmovie\tT{id}\tT{id}\t0\t1994\t\\N\t142\t{genre}\n");
    format!("{BASICS}{}", (first..=last).map(row).collect::<String>())
}

fn principals(last: u32) -> String {
    let row = |id| format!("tt{id:07}\t1\tnm{id:07}\tactor\t\\N\t\\N\n");
    format!("{PRINCIPALS}{}", (1..=last).map(row).collect::<String>())
}

fn names(last: u32) -> String {
    let row = |id| format!("nm{id:07}\tN{id}\t\\N\t\\N\tactor\ttt{id:07}\n");
    format!("{NAMES}{}", (1..=last).map(row).collect::<String>())
}

fn ratings(last: u32) -> String {
    let row = |id| format!("tt{id:07}\t5.0\t{id}\n");
    format!("{RATINGS}{}", (1..=last).map(row).collect::<String>())
}

fn packed(text: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(text).expect("in memory");
    packed.finish().expect("in memory")
}

/// A folder with one file.
fn one(name: &str, text: impl AsRef<[u8]>) -> Files {
    let files = Files::new();
    files.write(name, text);
    files
}

/// Everything that a load could change.
fn all(cluster: &Cluster) -> Vec<String> {
    rows(
        cluster,
        "SELECT (SELECT count(*) FROM titulos) AS t, (SELECT count(votos) FROM titulos) AS v, \
         (SELECT count(*) FROM titulo_genero) AS g, (SELECT count(*) FROM personas) AS p, \
         (SELECT count(*) FROM persona_profesion) AS pp, (SELECT count(*) FROM persona_conocida) AS pc, \
         (SELECT count(*) FROM participaciones) AS pa, (SELECT count(*) FROM rechazos) AS r, \
         (SELECT count(*) FROM cargas) AS c, (SELECT string_agg(genero, ',' ORDER BY id_genero) FROM generos) AS genres, \
         (SELECT count(*) FROM generos_imdb) AS gi, (SELECT count(*) FROM tipos_titulo) AS tt, \
         to_regnamespace('imdb_carga') IS NULL AS clean",
    )
}

/// Loads a folder, which must be refused and change nothing; says why it was.
fn refuse(cluster: &Cluster, files: &Files, flags: &[&str]) -> String {
    refuse_path(cluster, &files.path(), flags)
}

fn refuse_path(cluster: &Cluster, path: &Path, flags: &[&str]) -> String {
    let before = all(cluster);
    let mut command = clean_command();
    command.arg("load").arg(path).args(flags);
    command.env("IMDB_HA_DATA", &cluster.data);
    for (name, node) in [("MASTER1_URL", "master1"), ("MASTER2_URL", "master2")] {
        command.env(name, cluster.url(node));
    }
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("imdb-ha load");
    // Not an endless wait where nobody ever writes.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let ended = loop {
        match child.try_wait().expect("its state") {
            Some(status) => break Some(status),
            None if std::time::Instant::now() > deadline => break None,
            None => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
    };
    if ended.is_none() {
        let _ = child.kill();
    }
    let output = child.wait_with_output().expect("its end");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = ended.and_then(|status| status.code());
    assert_eq!(code, Some(1), "{path:?}: {told}");
    assert_eq!(all(cluster), before, "{told}");
    told
}

fn assert_has(told: &str, parts: &[&str]) {
    for part in parts {
        assert!(told.contains(part), "{part} is not in: {told}");
    }
}

#[test]
fn a_file_that_would_wipe_something_is_refused_and_nothing_is_changed() {
    let cluster = Cluster::start();
    let files = Files::new();
    files.write("title.basics.tsv", titles(1, 100, "Drama"));
    files.write("name.basics.tsv", names(50));
    files.write("title.principals.tsv", principals(40));
    files.write("title.ratings.tsv", ratings(100));
    loaded(&cluster, &files);
    without_rows(&cluster);
    cut_off(&cluster);
    fewer_rows(&cluster);
    behind_the_packed_data(&cluster);
    in_the_place_of_a_file(&cluster);
    of_another_kind(&cluster);
    over_http(&cluster);
    wanted_all_the_same(&cluster);
    assert_equal(&cluster);
}

fn without_rows(cluster: &Cluster) {
    for (name, text) in [
        ("title.basics.tsv", BASICS),
        ("name.basics.tsv", NAMES),
        ("title.ratings.tsv", RATINGS),
    ] {
        let told = refuse(cluster, &one(name, text), &["--allow-shrink"]);
        assert_has(&told, &[name, "it has no rows", "--allow-empty"]);
    }
    let told = refuse(
        cluster,
        &one("title.crew.tsv.gz", packed(CREW.as_bytes())),
        &[],
    );
    assert_has(&told, &["title.crew.tsv.gz: it has no rows"]);
    // Who empties the people does not thereby take away the cast of every film.
    let told = refuse(cluster, &one("name.basics.tsv", NAMES), &["--allow-empty"]);
    assert_has(
        &told,
        &["0 instead of 40 in participaciones", "--allow-shrink"],
    );
}

fn cut_off(cluster: &Cluster) {
    // In a genre, in a letter of two bytes, in the second line, right before the end of the line; and of any size, so that the number of the
    // line is not that of a block.
    let whole = titles(1, 100, "Drama");
    let in_a_genre = &whole[..whole.len() - 2];
    let many = titles(1, 40_000, "Drama");
    let accented = titles(1, 100, "Drama\u{e9}").into_bytes();
    for (name, text, line) in [
        ("title.basics.tsv", in_a_genre.as_bytes().to_vec(), 101),
        (
            "title.basics.tsv",
            whole.as_bytes()[..whole.len() - 1].to_vec(),
            101,
        ),
        (
            "title.basics.tsv",
            accented[..accented.len() - 2].to_vec(),
            101,
        ),
        (
            "title.basics.tsv",
            whole.as_bytes()[..BASICS.len() + 20].to_vec(),
            2,
        ),
        (
            "title.basics.tsv",
            many.as_bytes()[..many.len() - 2].to_vec(),
            40_001,
        ),
        ("title.basics.tsv.gz", packed(in_a_genre.as_bytes()), 101),
    ] {
        let expected = format!("line {line}: the last line has no end, so the file was cut off");
        let told = refuse(cluster, &one(name, text), &["--allow-shrink"]);
        assert_has(&told, &[name, &expected]);
    }
}

fn fewer_rows(cluster: &Cluster) {
    // Cut off between two lines. A new genre, which comes before that, is not kept either.
    let told = refuse(
        cluster,
        &one("title.basics.tsv", titles(1, 89, "Dram")),
        &[],
    );
    assert_has(&told, &["89 instead of 100 in titulos", "--allow-shrink"]);
    // As many rows, but many of them are none.
    let broken = titles(1, 88, "Dram") + &"tt\tmovie\n".repeat(12);
    let told = refuse(cluster, &one("title.basics.tsv", broken), &[]);
    assert_has(
        &told,
        &[
            "88 instead of 100 in titulos",
            "88 instead of 100 in titulo_genero",
            "88 instead of 100 in titulos.votos",
        ],
    );
    // As many titles, without their genres; others, with which the cast of the old ones goes.
    let told = refuse(
        cluster,
        &one("title.basics.tsv", titles(1, 100, "\\N")),
        &[],
    );
    assert_has(&told, &["0 instead of 100 in titulo_genero"]);
    let files = one("title.basics.tsv", titles(7, 106, "Drama"));
    files.write("title.ratings.tsv", ratings(100));
    let told = refuse(cluster, &files, &[]);
    assert_has(
        &told,
        &[
            "34 instead of 40 in participaciones",
            "44 instead of 50 in persona_conocida",
        ],
    );
    let told = refuse(cluster, &one("title.ratings.tsv", ratings(89)), &[]);
    assert_has(&told, &["89 instead of 100 in titulos.votos"]);
    // A tenth less is the course of things.
    loaded(cluster, &one("title.ratings.tsv", ratings(90)));
    loaded(cluster, &one("title.ratings.tsv", ratings(100)));
}

fn behind_the_packed_data(cluster: &Cluster) {
    let text = titles(1, 100, "Drama");
    let whole = packed(text.as_bytes());
    let halves = [
        packed(&text.as_bytes()[..500]),
        packed(&text.as_bytes()[500..]),
    ];
    for parts in [
        [&whole[..], &[0; 512], &[]],
        [&halves[0], &halves[1], &[0]],
        [&halves[0], &[0; 70_000], &halves[1]],
    ] {
        let outcome = loaded(cluster, &one("title.basics.tsv.gz", parts.concat()));
        assert_eq!(counts(&outcome, "title.basics"), (100, 100, 0, 0));
    }
    let page = b"<html>502 Bad Gateway</html>\n";
    let told = refuse(
        cluster,
        &one("title.basics.tsv.gz", [&whole[..], page].concat()),
        &[],
    );
    let expected = format!(
        "{} bytes that are no gzip come after the packed data",
        page.len()
    );
    assert_has(&told, &["title.basics.tsv.gz", &expected]);
}

fn in_the_place_of_a_file(cluster: &Cluster) {
    let text = titles(1, 100, "Drama");
    for inner in ["title.basics.tsv", "title.basics.tsv.gz", "data.tsv"] {
        let files = Files::new();
        fs::create_dir(files.path().join("title.basics.tsv")).expect("a folder");
        let content = match inner.ends_with("gz") {
            true => packed(text.as_bytes()),
            false => text.clone().into_bytes(),
        };
        files.write(&format!("title.basics.tsv/{inner}"), content);
        files.write("title.basics.tsv/.DS_Store", "x");
        let outcome = loaded(cluster, &files);
        assert_eq!(
            counts(&outcome, "title.basics"),
            (100, 100, 0, 0),
            "{inner}"
        );
    }
    let files = Files::new();
    let folder = files.path().join("title.basics.tsv");
    fs::create_dir(&folder).expect("a folder");
    assert_has(
        &refuse(cluster, &files, &[]),
        &["title.basics.tsv is a folder: it is empty"],
    );
    fs::write(folder.join("movies.csv"), "x").expect("a file");
    let told = refuse(cluster, &files, &[]);
    assert_has(
        &told,
        &["none of what is in it is called like it (movies.csv)"],
    );
    for name in ["title.basics.tsv", "data.tsv"] {
        fs::write(folder.join(name), &text).expect("a file");
    }
    let told = refuse(cluster, &files, &[]);
    assert_has(
        &told,
        &["more than one file that it could be (data.tsv, title.basics.tsv)"],
    );

    // What would be waited for without end, or read without end.
    let files = Files::new();
    let path = files.path().join("title.basics.tsv");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("a FIFO");
    assert_has(
        &refuse(cluster, &files, &[]),
        &["title.basics.tsv: it is a FIFO"],
    );
    fs::remove_file(&path).expect("removed");
    let _listener = UnixListener::bind(&path).expect("a socket");
    assert_has(
        &refuse(cluster, &files, &[]),
        &["title.basics.tsv: it is a socket"],
    );
    fs::remove_file(&path).expect("removed");
    symlink("/dev/zero", &path).expect("a link");
    assert_has(
        &refuse(cluster, &files, &[]),
        &["title.basics.tsv: it is a device"],
    );
    fs::remove_file(&path).expect("removed");
    symlink("nowhere", &path).expect("a link");
    assert_has(
        &refuse(cluster, &files, &[]),
        &["title.basics.tsv: No such file"],
    );
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("a folder");
    nix::unistd::mkfifo(&path.join("data.tsv"), Mode::S_IRWXU).expect("a FIFO");
    assert_has(
        &refuse(cluster, &files, &[]),
        &["title.basics.tsv/data.tsv: it is a FIFO"],
    );
}

fn of_another_kind(cluster: &Cluster) {
    let text = titles(1, 100, "Drama");
    let files = one("title.basics.tsv", &text);
    let file = files.path().join("title.basics.tsv");
    assert_has(
        &refuse_path(cluster, &file, &[]),
        &["is no folder; name the folder"],
    );
    let missing = files.path().join("missing");
    assert_has(
        &refuse_path(cluster, &missing, &[]),
        &["missing: No such file"],
    );
    let utf16: Vec<u8> = format!("\u{feff}{text}")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for (content, what) in [
        (
            packed(&packed(text.as_bytes())),
            "line 1: the file is packed twice",
        ),
        (
            b"PK\x03\x04\x14\0\0\0\x08\0\xfc\xff".to_vec(),
            "line 1: the file is a ZIP archive",
        ),
        (utf16, "line 1: the file is in UTF-16"),
        (
            text.replace('\n', "\r").into_bytes(),
            "line 1: its columns are",
        ),
    ] {
        let told = refuse(cluster, &one("title.basics.tsv.gz", content), &[]);
        assert_has(&told, &["title.basics.tsv.gz", what]);
    }
}

fn over_http(cluster: &Cluster) {
    let send =
        |query: &str, text: &str| cluster.ask("POST", &format!("/load{query}"), Some(text), &[]);
    let ended = |query: &str, text: &str| {
        let answer = send(query, text);
        assert_eq!(answer.status, 202, "{answer:?}");
        let place = answer.header("Location").expect("a job").to_string();
        let mut job = Value::Null;
        wait_until("the load has ended", || {
            job = cluster.get(&place).body["job"].clone();
            job["state"] != "running"
        });
        job
    };
    let before = all(cluster);
    for (query, text, expected) in [
        ("", titles(1, 80, "Dram"), "80 instead of 100 in titulos"),
        ("?allow_shrink=true", BASICS.to_string(), "it has no rows"),
        (
            "?allow_empty=true",
            BASICS.to_string(),
            "0 instead of 40 in participaciones",
        ),
        (
            "?allow_empty=true",
            titles(1, 100, "Drama").trim_end().to_string(),
            "line 101: the last line has no end",
        ),
    ] {
        let job = ended(query, &text);
        assert_eq!(job["state"], "failed", "{query}: {job}");
        assert_has(job["error"].as_str().expect("why"), &[expected]);
    }
    let wrong = send("?allow_shrink=1", BASICS);
    assert_eq!((wrong.status, wrong.code()), (400, "parameter_invalid"));
    assert_eq!(all(cluster), before);
    let job = ended("?allow_shrink=true", &titles(1, 60, "Drama"));
    assert_eq!(job["state"], "done", "{job}");
    assert_eq!(
        rows(cluster, "SELECT count(*), count(votos) FROM titulos"),
        ["(60,60)"]
    );
}

fn wanted_all_the_same(cluster: &Cluster) {
    loaded_with(
        cluster,
        &one("title.basics.tsv", titles(1, 20, "Drama")),
        &["--allow-shrink"],
    );
    assert_eq!(rows(cluster, "SELECT count(*) FROM titulos"), ["(20)"]);
    let empty = one("name.basics.tsv", NAMES);
    empty.write("title.principals.tsv", PRINCIPALS);
    loaded_with(cluster, &empty, &["--allow-empty"]);
    let left =
        "SELECT (SELECT count(*) FROM personas) AS p, (SELECT count(*) FROM participaciones) AS c";
    assert_eq!(rows(cluster, left), ["(0,0)"]);
}
