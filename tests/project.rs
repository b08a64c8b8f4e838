//! Rules of the project that no compiler checks: who may use what, how long things get, and that the
//! documentation shows what the program has.

mod common;

use common::clean_command;
use std::fs;
use std::path::{Path, PathBuf};

fn sources() -> Vec<(String, String)> {
    let mut folders = vec![PathBuf::from("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                found.push((path.display().to_string(), text));
            }
        }
    }
    found.sort();
    assert!(found.len() > 30, "the sources were not found");
    found
}

/// The part of a file before its tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text)
}

/// What may be named where. A breach is a room with a wrong door.
const DOORS: &[(&str, &[&str])] = &[
    (
        "tiny_http::",
        &[
            "src/http/server.rs",
            "src/http/inner.rs",
            "src/http/answer.rs",
        ],
    ),
    ("httparse::", &["src/http/head.rs"]),
    ("r2d2::", &["src/pg/pool.rs", "src/pg/sessions.rs"]),
    ("r2d2_postgres::", &["src/pg/pool.rs"]),
    // A connection that is made elsewhere would be a plain one, whatever the URL says.
    ("NoTls", &["src/pg/pool.rs", "src/pg/settings.rs"]),
    ("rustls::", &["src/pg/tls/"]),
    (
        "redis::",
        &[
            "src/history.rs",
            "src/lease/",
            "src/redis_link.rs",
            "src/backup/catalog.rs",
            "src/config/check.rs",
        ],
    ),
    ("env::var", &["src/config/mod.rs", "src/config/gather.rs"]),
    (
        "Command::new",
        &[
            "src/local/",
            "src/server/",
            "src/programs.rs",
            "src/process.rs",
            "src/backup/",
        ],
    ),
    ("thread::spawn", &[]),
    ("clap", &["src/cli.rs", "src/main.rs"]),
    ("todo!(", &[]),
    ("dbg!(", &[]),
    (".unwrap()", &[]),
];

#[test]
fn each_library_is_used_in_its_own_room() {
    for (path, text) in sources() {
        for (name, rooms) in DOORS {
            let found = without_tests(&text).lines().any(|line| {
                let code = line.split("//").next().unwrap_or("");
                code.contains(name)
            });
            let allowed = rooms.iter().any(|room| path.starts_with(room));
            assert!(
                !found || allowed || path.starts_with("src/cluster/sim"),
                "{path} uses {name}"
            );
        }
    }
}

#[test]
fn the_pure_core_knows_nobody_and_arrows_point_down() {
    let rules = [
        (
            "src/cluster/",
            &[
                "std::time",
                "std::thread",
                "log::",
                "crate::pg",
                "crate::supervisor",
                "crate::limits",
                "crate::config",
            ][..],
        ),
        (
            "src/pg/",
            &[
                "crate::http",
                "crate::supervisor",
                "crate::dispatch",
                "crate::genres",
                "crate::replication",
            ],
        ),
        (
            "src/replication/",
            &[
                "crate::http",
                "crate::supervisor",
                "crate::local",
                "crate::dispatch",
            ],
        ),
        (
            "src/genres/",
            &["crate::http", "crate::supervisor", "crate::local"],
        ),
        ("src/server/", &["crate::local", "crate::launcher"]),
        ("src/launcher/", &["crate::local", "crate::http"]),
        ("src/backup/", &["crate::local", "crate::launcher"]),
        (
            "src/probe.rs",
            &["crate::http", "crate::local", "crate::genres"],
        ),
        (
            "src/supervisor.rs",
            &["crate::http", "crate::local", "crate::genres"],
        ),
        (
            "src/http/",
            &["crate::local", "crate::replication", "crate::probe"],
        ),
    ];
    for (path, text) in sources() {
        for (room, forbidden) in rules {
            for name in forbidden.iter().filter(|_| path.starts_with(room)) {
                assert!(!without_tests(&text).contains(name), "{path} uses {name}");
            }
        }
    }
}

#[test]
fn files_and_functions_fit_a_screen() {
    for (path, text) in sources() {
        let lines = without_tests(&text).lines().count();
        assert!(
            lines <= 420,
            "{path} has {lines} lines; is there a second room in it?"
        );
        let mut start = None;
        for (number, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let code = line.trim_start();
            if code.contains("fn ")
                && (code.starts_with("fn ") || code.starts_with("pub"))
                && start.is_none()
            {
                start = Some((number, indent, code.to_string()));
            }
            if let Some((from, of, name)) = &start {
                if code.starts_with('}') && indent == *of {
                    let long = number - from;
                    assert!(long <= 75, "{path}: {name} has {long} lines");
                    start = None;
                } else if code.ends_with(';') && indent == *of && number == *from {
                    start = None;
                }
            }
        }
    }
}

#[test]
fn the_documentation_shows_the_tables_of_the_program() {
    for (file, which) in [
        ("README.md", "routes"),
        ("README.md", "variables"),
        ("README.md", "errors"),
        ("ARCHITECTURE.md", "states"),
        ("ARCHITECTURE.md", "diagram"),
    ] {
        let output = clean_command()
            .args(["table", which])
            .output()
            .expect("run imdb-ha");
        let table = String::from_utf8(output.stdout).expect("text");
        let text = fs::read_to_string(file).expect(file);
        assert!(
            text.contains(table.trim_end()),
            "{file} does not show `imdb-ha table {which}`:\n{table}"
        );
    }
}

#[test]
fn every_dependency_and_every_room_is_explained() {
    let text = fs::read_to_string("ARCHITECTURE.md").expect("ARCHITECTURE.md");
    let manifest = fs::read_to_string("Cargo.toml").expect("Cargo.toml");
    let dependencies = manifest
        .split("[dependencies]")
        .nth(1)
        .expect("dependencies");
    let mut count = 0;
    for line in dependencies
        .lines()
        .take_while(|line| !line.starts_with("[["))
    {
        let Some((name, _)) = line.split_once(" = ") else {
            continue;
        };
        assert!(
            text.contains(&format!("| {name} |")),
            "ARCHITECTURE.md does not say what {name} is for"
        );
        count += 1;
    }
    assert!(count > 15, "the manifest was not understood");
    for (path, _) in sources() {
        let name = Path::new(&path)
            .strip_prefix("src")
            .expect("below src")
            .display()
            .to_string();
        let known = text.contains(&format!("`{name}`")) || name.ends_with("mod.rs");
        assert!(known, "ARCHITECTURE.md does not say what {name} is");
    }
}

/// The project speaks of itself alone.
#[test]
fn no_file_names_the_machine_it_was_written_on() {
    for file in [
        "README.md",
        "ARCHITECTURE.md",
        "scripts/up.sh",
        "scripts/test.sh",
        "scripts/install.sh",
        "Cargo.toml",
    ] {
        let text = fs::read_to_string(file).expect(file);
        for word in ["/work/", "../shared", "session's machine"] {
            assert!(!text.contains(word), "{file} names {word}");
        }
    }
}
