//! What a newcomer meets: films at the first start, and a load that shows how far it is.

mod common;

use common::{BINARY, Cluster};
use std::process::Command;

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/sample");

#[test]
fn the_first_start_loads_the_sample_and_the_next_one_nothing() {
    let cluster = Cluster::start_with(&[("LOAD_AT_START", SAMPLE)]);
    let said = "333106 rows read = 333104 loaded + 2 rejected";
    assert!(cluster.said().contains(said), "{}", cluster.said());
    for id in ["tt0111161", "111161"] {
        let title = cluster.get(&format!("/titulos/{id}"));
        let name = &title.body["data"]["titulo_principal"];
        assert_eq!(
            (title.status, name.as_str()),
            (200, Some("The Shawshank Redemption"))
        );
    }
    let loads = "SELECT count(DISTINCT id_carga) FROM cargas";
    let loads = || -> i64 {
        let row = cluster.sql("master2").query_one(loads, &[]);
        row.expect("a count").get(0)
    };
    assert_eq!(loads(), 1);
    // As the containers start.
    let start = |folder: &str| {
        let mut command = common::clean_command();
        command.args(["replication", "setup", "--at-start"]);
        command
            .env("IMDB_HA_DATA", &cluster.data)
            .env("LOAD_AT_START", folder);
        for (name, node) in [("MASTER1_URL", "master1"), ("MASTER2_URL", "master2")] {
            command.env(name, cluster.url(node));
        }
        let output = command.output().expect("imdb-ha");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(!start(SAMPLE).contains("load:"));
    assert_eq!(loads(), 1);
    // What cannot be loaded is told, and the start goes on.
    for node in ["master1", "master2"] {
        let sql = "SET session_replication_role = replica; DELETE FROM cargas; DELETE FROM titulos";
        cluster.sql(node).batch_execute(sql).expect("emptied");
    }
    assert!(
        start("/nowhere")
            .contains("load: ALARM nothing was loaded: /nowhere: No such file or directory")
    );
}

#[test]
fn a_load_on_a_terminal_has_a_bar_per_file_and_else_no_control_characters() {
    let cluster = Cluster::start_flagged(&["--no-api"], &[]);
    let shown = |through: &[&str]| {
        let mut command = Command::new(through[0]);
        command.args(&through[1..]);
        for (name, node) in [("MASTER1_URL", "master1"), ("MASTER2_URL", "master2")] {
            command.env(name, cluster.url(node));
        }
        let output = command.output().expect(through[0]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    // `script` runs a command on a terminal of its own.
    let on_a_terminal = format!("stty cols 120; {BINARY} load {SAMPLE}");
    let text = shown(&["script", "-qec", &on_a_terminal, "/dev/null"]);
    for file in [
        "title.basics",
        "name.basics",
        "title.crew",
        "title.principals",
    ] {
        let of_file =
            |line: &&str| line.contains(file) && line.contains("rows/s") && line.contains("to go");
        assert!(
            text.split('\r').any(|line| of_file(&line)),
            "{file}: {text}"
        );
    }
    let text = shown(&[BINARY, "load", SAMPLE]);
    assert!(!text.contains('\u{1b}') && !text.contains('\r'), "{text}");
    assert!(text.contains("333104 loaded + 2 rejected"), "{text}");
}
