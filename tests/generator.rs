//! The generator of files like IMDb's, which the bench and other tests of the loader take their rows from: what it makes must be as
//! odd as the real files, in the amounts that it says, and the same each time.

use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder of its own for a test, gone at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let unique = format!("imdb-ha-generator-{name}-{}", std::process::id());
        Folder(std::env::temp_dir().join(unique))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn python(script: &str, arguments: &[&str]) -> Output {
    Command::new("python3")
        .arg(script)
        .args(arguments)
        .output()
        .expect("run python3, which scripts/install.sh --test installs")
}

/// Makes files and returns how many rows each is said to have.
fn generate(folder: &Folder, arguments: &[&str]) -> BTreeMap<String, usize> {
    let out = folder.0.display().to_string();
    let output = python(
        "scripts/bench/imdb_data.py",
        &[&["--out", &out], arguments].concat(),
    );
    assert!(output.status.success(), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let files = told["files"].as_array().expect("files").iter();
    let rows = files.map(|file| {
        let name = file["file"].as_str().expect("a name").to_string();
        let count = file["rows"].as_u64().expect("rows");
        (name, usize::try_from(count).expect("a count"))
    });
    rows.collect()
}

const FILES: [(&str, &str); 7] = [
    (
        "name.basics",
        "nconst primaryName birthYear deathYear primaryProfession knownForTitles",
    ),
    (
        "title.akas",
        "titleId ordering title region language types attributes isOriginalTitle",
    ),
    (
        "title.basics",
        "tconst titleType primaryTitle originalTitle isAdult startYear endYear runtimeMinutes genres",
    ),
    ("title.crew", "tconst directors writers"),
    (
        "title.episode",
        "tconst parentTconst seasonNumber episodeNumber",
    ),
    (
        "title.principals",
        "tconst ordering nconst category job characters",
    ),
    ("title.ratings", "tconst averageRating numVotes"),
];

/// The rows of a file, each of which has as many fields as the header, none of them empty.
fn rows(folder: &Path, name: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(folder.join(format!("{name}.tsv"))).expect("UTF-8");
    assert!(text.ends_with('\n') && !text.contains('\r'), "{name}");
    let (_, header) = FILES
        .iter()
        .find(|(file, _)| *file == name)
        .expect("a file");
    let mut lines = text.split_terminator('\n');
    assert_eq!(lines.next(), Some(header.replace(' ', "\t").as_str()));
    let width = header.split(' ').count();
    let rows: Vec<Vec<String>> = lines
        .map(|line| line.split('\t').map(str::to_string).collect())
        .collect();
    for row in &rows {
        assert_eq!(row.len(), width, "{name}: {row:?}");
        assert!(row.iter().all(|field| !field.is_empty()), "{name}: {row:?}");
    }
    assert!(
        rows.is_sorted_by(|one, next| one[0] <= next[0]),
        "{name} is not in the order of its ids"
    );
    rows
}

/// The ids in a column, which may hold a list of them.
fn ids(rows: &[Vec<String>], column: usize) -> impl Iterator<Item = &str> {
    let lists = rows.iter().map(move |row| row[column].as_str());
    lists
        .filter(|list| *list != "\\N")
        .flat_map(|list| list.split(','))
}

/// Every column with ids of another file: file, column, and whether they are people.
const REFERENCES: [(&str, usize, bool); 10] = [
    ("name.basics", 5, false),
    ("title.akas", 0, false),
    ("title.crew", 0, false),
    ("title.crew", 1, true),
    ("title.crew", 2, true),
    ("title.episode", 0, false),
    ("title.episode", 1, false),
    ("title.principals", 0, false),
    ("title.principals", 2, true),
    ("title.ratings", 0, false),
];

/// How many references there are, and how many of them lead to no row.
fn dangling(folder: &Path) -> (usize, usize) {
    let own = ["title.basics", "name.basics"].map(|name| rows(folder, name));
    let [titles, people] = own
        .each_ref()
        .map(|rows| ids(rows, 0).collect::<HashSet<&str>>());
    let (mut all, mut lost) = (0, 0);
    for (name, column, is_person) in REFERENCES {
        let rows = rows(folder, name);
        let known = if is_person { &people } else { &titles };
        for id in ids(&rows, column) {
            let (kind, digits) = id.split_at(2);
            assert_eq!(kind, if is_person { "nm" } else { "tt" }, "{name}: {id}");
            assert!(
                matches!(digits.len(), 7 | 8) && digits.parse::<u32>().is_ok(),
                "{name}: {id}"
            );
            all += 1;
            lost += usize::from(!known.contains(id));
        }
    }
    (all, lost)
}

/// How many rows have the key of another one before them.
fn doubled(folder: &Path, name: &str) -> usize {
    let columns = match name {
        "title.akas" | "title.principals" => 2,
        _ => 1,
    };
    let rows = rows(folder, name);
    let keys: HashSet<&[String]> = rows.iter().map(|row| &row[..columns]).collect();
    rows.len() - keys.len()
}

#[test]
fn the_same_seed_makes_the_same_bytes_and_another_one_others() {
    let folders = ["one", "same", "other", "plain"].map(Folder::new);
    for (folder, seed) in folders.iter().zip(["7", "7", "8", "7"]) {
        let more: &[&str] = if folder.0 == folders[3].0 {
            &["--plain"]
        } else {
            &[]
        };
        let arguments = [&["--principals", "3000", "--seed", seed], more].concat();
        generate(folder, &arguments);
    }
    for (name, _) in FILES {
        let packed = format!("{name}.tsv.gz");
        let [one, same, other] = [0, 1, 2].map(|index: usize| {
            let path: &Path = &folders[index].0;
            fs::read(path.join(&packed)).expect("a file")
        });
        assert_eq!(one, same, "{name}");
        assert_ne!(one, other, "{name}");
        let unpacked = Command::new("gzip")
            .arg("-dc")
            .arg(folders[0].0.join(&packed))
            .output()
            .expect("gzip");
        let plain = fs::read(folders[3].0.join(format!("{name}.tsv"))).expect("a file");
        assert!(
            unpacked.status.success() && unpacked.stdout == plain,
            "{name}"
        );
    }
}

#[test]
fn the_files_have_the_amounts_and_the_faults_that_were_asked_for() {
    let folder = Folder::new("faults");
    let told = generate(
        &folder,
        &["--principals", "20000", "--duplicates", "3", "--plain"],
    );
    for (name, _) in FILES {
        let rows = rows(&folder.0, name);
        assert_eq!(told[&format!("{name}.tsv")], rows.len(), "{name}");
        assert_eq!(doubled(&folder.0, name), 3, "{name}");
    }
    assert_eq!(told["title.principals.tsv"], 20_003);
    // 54,957,563 to 97,617,046, and 15,063,390.
    assert_eq!(told["title.akas.tsv"], 11_263);
    assert_eq!(told["name.basics.tsv"], 3_089);
    let (all, lost) = dangling(&folder.0);
    assert!(lost > 0 && lost * 500 < all, "{lost} of {all}");

    generate(
        &folder,
        &[
            "--principals",
            "20000",
            "--dangling",
            "0",
            "--duplicates",
            "0",
            "--plain",
        ],
    );
    assert_eq!(dangling(&folder.0).1, 0);
    for (name, _) in FILES {
        assert_eq!(doubled(&folder.0, name), 0, "{name}");
    }
}

#[test]
fn the_files_are_as_odd_as_the_real_ones() {
    let folder = Folder::new("odd");
    generate(&folder, &["--principals", "60000", "--plain"]);
    let titles = rows(&folder.0, "title.basics");
    let akas = rows(&folder.0, "title.akas");
    let principals = rows(&folder.0, "title.principals");
    let people = rows(&folder.0, "name.basics");
    let has = |rows: &[Vec<String>], what: &str, is: &dyn Fn(&[String]) -> bool| {
        assert!(rows.iter().any(|row| is(row)), "nothing is {what}");
    };
    has(&titles, "a title that begins with a quote sign", &|row| {
        row[2].starts_with('"') && row[2].matches('"').count() == 1
    });
    has(&titles, "a title with a backslash", &|row| {
        row[2].contains('\\')
    });
    has(&titles, "an original title in another script", &|row| {
        row[3].chars().next().is_some_and(|first| first > '\u{3ff}')
    });
    has(&titles, "an id of 7 digits", &|row| row[0].len() == 9);
    has(&titles, "an id of 8 digits", &|row| row[0].len() == 10);
    has(&akas, "a list of types", &|row| row[5].contains('\u{2}'));
    has(&akas, "a title of more than 512 characters", &|row| {
        row[2].chars().count() > 512
    });
    has(&people, "a name with an accent", &|row| {
        row[1].contains(['é', 'ü', 'Ł'])
    });
    let characters = principals.iter().map(|row| row[5].as_str());
    let lists = characters.filter(|list| *list != "\\N");
    let lists: Vec<(&str, Vec<String>)> = lists
        .map(|list| (list, serde_json::from_str(list).expect(list)))
        .collect();
    for escape in ["\\\"", "\\\\"] {
        assert!(lists.iter().any(|(list, _)| list.contains(escape)));
    }
    assert!(lists.iter().any(|(_, names)| names.len() > 1));
    // Six rows in ten are of categories that have them.
    let share = lists.len() * 100 / principals.len();
    assert!((40..70).contains(&share), "{share} % have characters");
    let episodes = titles.iter().filter(|row| row[1] == "tvEpisode").count();
    let share = episodes * 100 / titles.len();
    assert!((72..82).contains(&share), "{share} % are episodes");
    assert!(titles.iter().all(|row| row[8].split(',').count() <= 3));
}

#[test]
fn wrong_arguments_are_told_by_name_before_anything_is_made() {
    let folder = Folder::new("wrong");
    let out = folder.0.display().to_string();
    let generator = |more: [&str; 2]| {
        let arguments = ["--out", &out, more[0], more[1]];
        python("scripts/bench/imdb_data.py", &arguments)
    };
    let bench = |more: [&str; 2]| {
        python(
            "scripts/bench/load.py",
            &["--check", &format!("{}={}", more[0], more[1])],
        )
    };
    let outputs = [
        ("--principals", generator(["--principals", "0"])),
        ("--seed", generator(["--seed", "x"])),
        ("--dangling", generator(["--dangling", "2"])),
        ("--duplicates", generator(["--duplicates", "-1"])),
        ("--rounds", bench(["--rounds", "0"])),
        ("--only", bench(["--only", "nothing"])),
        (
            "PRINCIPALS",
            python("scripts/bench/load.py", &["--check", "many"]),
        ),
    ];
    for (name, output) in outputs {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        assert!(
            said.contains(name) && said.contains("(got '"),
            "{name}: {said}"
        );
    }
    assert!(!folder.0.exists());
}
