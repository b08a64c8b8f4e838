//! Files like IMDb's for a test, loading them, and what has become of them.

use super::Cluster;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Output;

pub const MASTERS: [&str; 2] = ["master1", "master2"];

pub const BASICS: &str = "tconst\ttitleType\tprimaryTitle\toriginalTitle\tisAdult\tstartYear\tendYear\truntimeMinutes\tgenres\n";
pub const NAMES: &str =
    "nconst\tprimaryName\tbirthYear\tdeathYear\tprimaryProfession\tknownForTitles\n";
pub const AKAS: &str =
    "titleId\tordering\ttitle\tregion\tlanguage\ttypes\tattributes\tisOriginalTitle\n";
pub const CREW: &str = "tconst\tdirectors\twriters\n";
pub const EPISODE: &str = "tconst\tparentTconst\tseasonNumber\tepisodeNumber\n";
pub const PRINCIPALS: &str = "tconst\tordering\tnconst\tcategory\tjob\tcharacters\n";
pub const RATINGS: &str = "tconst\taverageRating\tnumVotes\n";

/// A folder of files, which goes with the test.
pub struct Files(tempfile::TempDir);

impl Files {
    pub fn new() -> Files {
        Files(tempfile::tempdir().expect("a folder"))
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> &Files {
        fs::write(self.0.path().join(name), text).expect(name);
        self
    }

    pub fn packed(&self, name: &str, text: &str) -> &Files {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(text.as_bytes()).expect("in memory");
        self.write(name, packed.finish().expect("in memory"))
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().to_path_buf()
    }
}

pub fn load(cluster: &Cluster, files: &Files, flags: &[&str]) -> Output {
    let folder = files.path().display().to_string();
    cluster.run(&[&["load", "--json", &folder], flags].concat())
}

pub fn loaded(cluster: &Cluster, files: &Files) -> Value {
    loaded_with(cluster, files, &[])
}

pub fn loaded_with(cluster: &Cluster, files: &Files, flags: &[&str]) -> Value {
    let output = load(cluster, files, flags);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Why a load was refused.
pub fn refused(cluster: &Cluster, files: &Files) -> String {
    let output = load(cluster, files, &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The same rows on both masters, as text.
pub fn rows(cluster: &Cluster, sql: &str) -> Vec<String> {
    let sql = format!("SELECT r::text FROM ({sql}) AS r");
    let [first, second] = MASTERS.map(|node| -> Vec<String> {
        let found = cluster.sql(node).query(&sql, &[]);
        let found = found.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        found.iter().map(|row| row.get(0)).collect()
    });
    assert_eq!(first, second, "{sql}");
    first
}

pub fn counts(outcome: &Value, file: &str) -> (u64, u64, u64, u64) {
    let files = outcome["files"].as_array().expect("files");
    let of_file = files.iter().find(|of| {
        of["file"]
            .as_str()
            .is_some_and(|name| name.starts_with(file))
    });
    let of_file = of_file.unwrap_or_else(|| panic!("{file}: {outcome}"));
    let count = |name: &str| of_file[name].as_u64().expect("a count");
    (
        count("read"),
        count("loaded"),
        count("rejected"),
        count("parts_rejected"),
    )
}

/// The genres, types, categories and professions that did not come with the schema.
pub fn new_values(cluster: &Cluster) -> Vec<String> {
    let genres = rows(
        cluster,
        "SELECT codigo_imdb FROM generos_imdb WHERE id_genero > 28 ORDER BY 1",
    );
    // Each has a code, and the other way round.
    assert_eq!(
        genres,
        rows(
            cluster,
            "SELECT genero FROM generos WHERE id_genero > 28 ORDER BY 1"
        )
    );
    let mut all = genres;
    for (value, table, highest) in [
        ("tipo_titulo", "tipos_titulo", 11),
        ("categoria", "categorias", 13),
        ("profesion", "profesiones", 46),
    ] {
        let sql =
            format!("SELECT {value} FROM {table} WHERE id_{value} > {highest} ORDER BY id_{value}");
        all.extend(rows(cluster, &sql));
    }
    let bare = |row: String| row.trim_matches(['(', ')']).to_string();
    all.into_iter().map(bare).collect()
}

pub fn assert_equal(cluster: &Cluster) {
    let output = cluster.run(&["compare"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
