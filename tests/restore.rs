//! Taking both masters back to a moment, over real masters and real backups.

mod common;

use common::{Cluster, clean_command, wait_until};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// `imdb-ha backup ...`, which finds the cluster by its data folder.
fn command(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = clean_command();
    command.arg("backup").args(arguments);
    command
        .env("IMDB_HA_DATA", &cluster.data)
        .stdin(Stdio::null());
    command
}

fn backup(cluster: &Cluster, arguments: &[&str]) -> Output {
    command(cluster, arguments).output().expect("run imdb-ha")
}

fn must(cluster: &Cluster, arguments: &[&str]) -> Value {
    let output = backup(cluster, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

/// Restores, which must succeed, and returns what it tells.
fn restore(cluster: &Cluster, arguments: &[&str]) -> Value {
    let told = must(
        cluster,
        &[&["restore"], arguments, &["--yes", "--json"]].concat(),
    );
    assert_eq!(told["ok"], true, "{told}");
    told
}

/// The words of a restore that must fail.
fn refused(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = backup(cluster, &[&["restore"], arguments].concat());
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    said(&output)
}

/// Kills a restore as soon as it says `words`.
fn kill_at(cluster: &Cluster, arguments: &[&str], words: &str) {
    let mut command = command(cluster, &[&["restore"], arguments, &["--yes"]].concat());
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run imdb-ha");
    let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut all = Vec::new();
    for line in lines {
        let line = line.expect("a line");
        let there = line.contains(words);
        all.push(line);
        if there {
            child.kill().expect("SIGKILL");
            break;
        }
    }
    let status = child.wait().expect("its end");
    assert!(status.code().is_none(), "it was to be killed: {all:?}");
}

/// Now, as the masters' clock has it, with a little room on both sides.
fn moment() -> String {
    let room = Duration::from_millis(1_100);
    std::thread::sleep(room);
    let now = jiff_now();
    std::thread::sleep(room);
    now
}

fn jiff_now() -> String {
    let output = Command::new("date")
        .args(["-u", "+%FT%T.%6NZ"])
        .output()
        .expect("run date");
    String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_string()
}

fn insert(cluster: &Cluster, node: &str, tag: &str, rows: u32) {
    let sql = format!(
        "INSERT INTO generos (genero) SELECT '{tag} ' || n FROM generate_series(1, {rows}) AS n"
    );
    cluster.sql(node).batch_execute(&sql).expect("insert");
}

/// On each master: all rows, and those with a tag.
fn counts(cluster: &Cluster, tag: &str) -> [(i64, i64); 2] {
    ["master1", "master2"].map(|node| {
        let row = cluster.sql(node).query_one(
            "SELECT count(*), count(*) FILTER (WHERE genero LIKE $1 || ' %') FROM generos",
            &[&tag],
        );
        let row = row.expect("count");
        (row.get(0), row.get(1))
    })
}

/// Both masters replicate both ways, are equal, archive, and take writes through the API.
fn assert_whole(cluster: &Cluster) {
    wait_until("both directions stream", || {
        cluster.run(&["replication", "status"]).status.success()
    });
    cluster.wait_equal();
    let port = cluster.api.rsplit(':').next().expect("a port");
    let mut compare = clean_command();
    compare.arg("compare").env("PORT", port);
    let compared = compare
        .env("MASTER1_URL", cluster.url("master1"))
        .env("MASTER2_URL", cluster.url("master2"))
        .output()
        .expect("run imdb-ha");
    assert!(compared.status.success(), "{}", said(&compared));
    let added = cluster.add("después de todo");
    assert_eq!(added.status, 201, "{added:?}");
    let read = cluster.get(&format!("/generos/{}", added.id()));
    assert_eq!(read.status, 200, "{read:?}");
    // The other direction, which only a row of the other master can show.
    insert(cluster, "master2", "vuelta", 1);
    wait_until("it arrives", || counts(cluster, "vuelta")[0].1 == 1);
    let gone = cluster.ask("DELETE", &format!("/generos/{}", added.id()), None, &[]);
    assert_eq!(gone.status, 200, "{gone:?}");
    let sql = "DELETE FROM generos WHERE genero LIKE 'vuelta %'";
    cluster.sql("master2").batch_execute(sql).expect("delete");
    cluster.wait_equal();
    must(cluster, &["bootstrap", "--json"]);
}

/// Folders of the cluster whose name begins so.
fn folders(cluster: &Cluster, prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(&cluster.data).expect("the folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(prefix)).collect()
}

#[test]
fn both_masters_go_back_to_a_moment_wherever_the_restore_is_interrupted() {
    let cluster = Cluster::start();
    let none = refused(&cluster, &["master1", "--yes"]);
    assert!(
        none.contains("has no backup that can be restored"),
        "{none}"
    );
    let before = jiff_now();
    let made = must(&cluster, &["run", "master1", "--type", "full", "--json"]);
    let label = made["backup"]["label"]
        .as_str()
        .expect("a label")
        .to_string();
    insert(&cluster, "master1", "antes", 1_000);
    cluster.wait_equal();
    let to = moment();
    insert(&cluster, "master1", "luego", 1_000);
    cluster.wait_equal();
    let with_both = moment();
    cluster
        .sql("master2")
        .batch_execute("DELETE FROM generos")
        .expect("an accident");
    wait_until("it is gone from both", || {
        counts(&cluster, "antes") == [(0, 0); 2]
    });

    refuses_what_cannot_be_done(&cluster, &before, &to);
    let unchanged = folders(&cluster, "master1");
    let plan = must(
        &cluster,
        &["restore", "master1", "--to", &to, "--dry-run", "--json"],
    );
    assert_eq!(plan["plan"]["label"], label.as_str(), "{plan}");
    assert_eq!(plan["plan"]["rebuilt"], "master2", "{plan}");
    assert_eq!(folders(&cluster, "master1"), unchanged);
    assert_eq!(counts(&cluster, "antes"), [(0, 0); 2]);

    // The traffic is on the other master, whose state is thrown away.
    let moved = cluster.post("/switch-to-secondary", "");
    assert_eq!(moved.status, 200, "{moved:?}");
    let told = restore(&cluster, &["master1", "--to", &to]);
    assert_eq!(told["rows"]["public.generos"], 1_028, "{told}");
    assert_eq!(told["equal"], true, "{told}");
    assert_eq!(counts(&cluster, "antes"), [(1_028, 1_000); 2]);
    assert_whole(&cluster);
    let kept = told["kept"].as_str().expect("a folder");
    assert!(
        std::path::Path::new(kept).join("PG_VERSION").exists(),
        "{kept}"
    );

    // Past the moment to which it went back is another history.
    let args = ["master1", "--to", &with_both, "--timeline", "1"];
    kill_at(&cluster, &args, "recovering to");
    assert_eq!(
        counts(&cluster, "antes"),
        [(1_028, 1_000); 2],
        "nothing was changed"
    );
    kill_at(&cluster, &args, "taken out of service");
    kill_at(&cluster, &args, "exchanged");
    let told = restore(&cluster, &args);
    assert_eq!(told["rows"]["public.generos"], 2_028, "{told}");
    assert_eq!(counts(&cluster, "luego"), [(2_028, 1_000); 2]);
    assert_whole(&cluster);
    for left in [".restored", ".restoring"] {
        assert_eq!(
            folders(&cluster, &format!("master1{left}")),
            Vec::<String>::new()
        );
    }
    a_restore_that_a_rejoin_has_ended_is_over(&cluster, &args);
    assert_eq!(counts(&cluster, "otra"), [(2_028, 0); 2]);
    assert_whole(&cluster);
}

/// Its note is still there, and must not make the same command rebuild a peer that has been good since.
fn a_restore_that_a_rejoin_has_ended_is_over(cluster: &Cluster, args: &[&str]) {
    kill_at(cluster, args, "exchanged");
    cluster.local(&["start", "master1"]);
    let mut rejoin = clean_command();
    rejoin.args(["rejoin", "master2", "--yes", "--data", &cluster.data]);
    let rejoined = rejoin.output().expect("run imdb-ha");
    assert!(rejoined.status.success(), "{}", said(&rejoined));
    insert(cluster, "master2", "otra", 5);
    wait_until("it arrives", || counts(cluster, "otra")[0].1 == 5);
    cluster.local(&["kill", "master2"]);
    let told = refused(cluster, &[args, &["--yes"]].concat());
    assert!(told.contains("`imdb-ha local start master2`"), "{told}");
    assert!(told.contains("nothing was changed"), "{told}");
    cluster.local(&["start", "master2"]);
    assert_eq!(counts(cluster, "otra")[1].1, 5, "nothing was changed");
    // The same command is a restore again.
    restore(cluster, args);
}

fn refuses_what_cannot_be_done(cluster: &Cluster, before: &str, to: &str) {
    let of = |arguments: &[&str]| refused(cluster, &[&["master1"], arguments].concat());
    let unasked = of(&["--to", to]);
    assert!(unasked.contains("add --yes"), "{unasked}");
    for (time, words) in [
        ("yesterday", "--to: must be a time"),
        ("2126-01-01T00:00:00Z", "has not come yet"),
        (before, "the oldest moment that can be restored is"),
    ] {
        let told = of(&["--to", time, "--yes"]);
        assert!(told.contains(words), "{told}");
    }
    let told = of(&["--set", "20010101-000000F", "--yes"]);
    assert!(told.contains("has no backup 20010101-000000F"), "{told}");
    let told = of(&["--to", to, "--timeline", "7", "--yes"]);
    assert!(told.contains("its newest is 1"), "{told}");
    let both = backup(cluster, &["restore", "master1", "--to", to, "--set", "x"]);
    assert_eq!(both.status.code(), Some(2), "{}", said(&both));
    cluster.local(&["freeze", "master2"]);
    let told = of(&["--to", to, "--yes"]);
    cluster.local(&["thaw", "master2"]);
    assert!(told.contains("local thaw master2"), "{told}");
    cluster.wait_state("master2", "up");
}

#[test]
fn a_master_that_is_down_or_gone_is_restored_and_its_peer_too() {
    let cluster = Cluster::start();
    must(&cluster, &["run", "master1", "--type", "full", "--json"]);
    insert(&cluster, "master1", "antes", 1_000);
    cluster.wait_equal();
    // Neither runs, and what was written last is in no archive.
    cluster.local(&["kill", "master2"]);
    cluster.local(&["kill", "master1"]);
    let told = restore(&cluster, &["master1"]);
    assert_eq!(told["rows"]["public.generos"], 1_028, "{told}");
    assert_eq!(counts(&cluster, "antes"), [(1_028, 1_000); 2]);
    assert_whole(&cluster);

    // The label alone means the backup as it ended, whatever came after.
    let made = must(&cluster, &["run", "master1", "--type", "full", "--json"]);
    let label = made["backup"]["label"]
        .as_str()
        .expect("a label")
        .to_string();
    insert(&cluster, "master1", "luego", 10);
    cluster.wait_equal();
    cluster.local(&["kill", "master1"]);
    let data = cluster.status["masters"]["master1"]["data"]
        .as_str()
        .expect("a folder");
    std::fs::remove_dir_all(data).expect("delete the data");
    let told = restore(&cluster, &["master1", "--set", &label]);
    assert_eq!(told["kept"], Value::Null, "{told}");
    assert_eq!(counts(&cluster, "luego"), [(1_028, 0); 2]);
    assert_whole(&cluster);

    // What it held while it was being rebuilt is no state to go back to: it was some part of it.
    let mark = |text: &str| {
        let sql = format!("COMMENT ON SCHEMA imdb_ha IS {text}");
        cluster.sql("master1").batch_execute(&sql).expect("mark");
    };
    mark("'imdb-ha rejoin has not ended'");
    let halfway = moment();
    mark("NULL");
    let told = refused(&cluster, &["master1", "--to", &halfway, "--yes"]);
    assert!(told.contains("was being rebuilt from master2"), "{told}");
    assert!(told.contains("nothing was changed"), "{told}");
    assert_whole(&cluster);
}

/// A folder for a tablespace of each master, as its server's user.
fn disks(cluster: &Cluster, name: &str) -> [PathBuf; 2] {
    ["master1", "master2"].map(|node| {
        let data = PathBuf::from(
            cluster.status["masters"][node]["data"]
                .as_str()
                .expect("a folder"),
        );
        let owner = std::fs::metadata(&data).expect("the data folder");
        // With a blank, as paths may have.
        let disk = PathBuf::from(&cluster.data).join(format!("{name} of {node}"));
        std::fs::create_dir(&disk).expect("make a folder");
        std::os::unix::fs::chown(&disk, Some(owner.uid()), Some(owner.gid())).expect("give it");
        disk
    })
}

/// Makes a tablespace on each master with a table of ten thousand rows in it, which both hold.
fn fill(cluster: &Cluster, name: &str) -> [PathBuf; 2] {
    let disks = disks(cluster, name);
    for (node, disk) in ["master1", "master2"].into_iter().zip(&disks) {
        let mut client = cluster.sql(node);
        let sql = format!("CREATE TABLESPACE {name} LOCATION '{}'", disk.display());
        client.batch_execute(&sql).expect("make a tablespace");
        let sql =
            format!("CREATE TABLE {name}_caja (id int PRIMARY KEY, v text) TABLESPACE {name}");
        client.batch_execute(&sql).expect("make a table");
    }
    let joined = cluster.run(&["replication", "setup"]);
    assert!(joined.status.success(), "{}", said(&joined));
    let sql = format!("INSERT INTO {name}_caja SELECT n, 'a' FROM generate_series(1, 10000) AS n");
    cluster.sql("master1").batch_execute(&sql).expect("fill it");
    wait_until("it arrives", || {
        values(cluster, name)[1] == [("a".to_string(), 10_000)]
    });
    disks
}

/// What the table in a tablespace holds on each master.
fn values(cluster: &Cluster, name: &str) -> [Vec<(String, i64)>; 2] {
    let sql = format!("SELECT v, count(*) FROM {name}_caja GROUP BY v ORDER BY v");
    ["master1", "master2"].map(|node| {
        let rows = cluster.sql(node).query(&sql, &[]).expect("read it");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    })
}

fn change(cluster: &Cluster, name: &str, value: &str) {
    let sql = format!("UPDATE {name}_caja SET v = '{value}'");
    cluster
        .sql("master1")
        .batch_execute(&sql)
        .expect("change it");
    wait_until("it arrives", || {
        values(cluster, name)
            == [
                vec![(value.to_string(), 10_000)],
                vec![(value.to_string(), 10_000)],
            ]
    });
}

fn inside(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn run_backup(cluster: &Cluster, kind: &str) -> String {
    let made = must(cluster, &["run", "master1", "--type", kind, "--json"]);
    made["backup"]["label"]
        .as_str()
        .expect("a label")
        .to_string()
}

/// Everything that a server on restored data can reach is its own, whatever tablespaces there are.
#[test]
fn a_restore_never_writes_to_the_tablespaces_of_the_running_master() {
    let cluster = Cluster::start();
    let [disk, _] = fill(&cluster, "antes");
    let full = run_backup(&cluster, "full");
    let drilled = must(&cluster, &["drill", &full, "--json"]);
    assert_eq!(drilled["ok"], true, "{drilled}");
    let to = moment();
    change(&cluster, "antes", "b");
    let both = |value: &str| {
        [
            vec![(value.to_string(), 10_000)],
            vec![(value.to_string(), 10_000)],
        ]
    };

    kill_at(&cluster, &["master1", "--to", &to], "recovering to");
    assert_eq!(values(&cluster, "antes"), both("b"), "nothing was changed");
    let told = restore(&cluster, &["master1", "--to", &to]);
    assert_eq!(values(&cluster, "antes"), both("a"));
    let old = told["kept_tablespaces"][0].as_str().expect("a folder");
    assert!(Path::new(old).starts_with(&disk), "{told}");
    let names = inside(&disk);
    assert_eq!(
        names.len(),
        2,
        "the old one and the new one alone: {names:?}"
    );
    // A person does not need it any more.
    std::fs::remove_dir_all(old).expect("remove it");
    std::fs::remove_dir_all(told["kept"].as_str().expect("a folder")).expect("remove it");

    // Once more, from a backup of what was restored.
    let again = run_backup(&cluster, "full");
    let to = moment();
    change(&cluster, "antes", "c");
    restore(&cluster, &["master1", "--to", &to]);
    assert_eq!(values(&cluster, "antes"), both("a"), "from {again}");
    assert!(
        inside(&disk)
            .iter()
            .all(|name| name.starts_with("imdb-ha-restored-"))
    );

    of_a_later_tablespace(&cluster);
}

/// One that was made after the backup cannot come back beside the master.
fn of_a_later_tablespace(cluster: &Cluster) {
    let old = run_backup(cluster, "full");
    let [disk, _] = fill(cluster, "luego");
    let to = moment();
    change(cluster, "luego", "b");
    let held = values(cluster, "luego");
    for more in ["--dry-run", "--yes"] {
        let told = refused(cluster, &["master1", "--to", &to, more]);
        assert!(told.contains("tablespace luego"), "{told}");
        assert!(told.contains("nothing was changed"), "{told}");
    }
    // A restore test whose way leads there: the seal of a backup that was made later.
    let new = run_backup(cluster, "incr");
    copy_seal(cluster, &new, &old);
    let output = backup(cluster, &["drill", &old, "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let told = said(&output);
    assert!(told.contains("\"class\":\"tablespace\""), "{told}");
    assert!(told.contains(&disk.display().to_string()), "{told}");
    assert_eq!(values(cluster, "luego"), held, "no restore has reached it");
    let drilled = must(cluster, &["drill", &new, "--json"]);
    assert_eq!(drilled["ok"], true, "{drilled}");

    // The master does not know of it any more, so it is the recovery that stops.
    for node in ["master1", "master2"] {
        let mut client = cluster.sql(node);
        client
            .batch_execute("DROP TABLE luego_caja")
            .expect("drop it");
        client
            .batch_execute("DROP TABLESPACE luego")
            .expect("drop it");
    }
    let told = refused(cluster, &["master1", "--to", &to, "--yes"]);
    assert!(told.contains(&format!("in {}", disk.display())), "{told}");
    assert!(told.contains("nothing was changed"), "{told}");
    assert_eq!(inside(&disk), [""; 0], "it can be used again");
}

/// Gives a backup the seal of another, so that it is tried up to there.
fn copy_seal(cluster: &Cluster, from: &str, to: &str) {
    let raw = must(cluster, &["info", "master1", "--raw"]);
    let backups = raw[0]["backup"].as_array().expect("a list");
    let of = backups
        .iter()
        .find(|one| one["label"] == from)
        .expect("it is there");
    let seal = of["annotation"]["imdb-ha-seal"].as_str().expect("a seal");
    let folder = format!("{}/pgbackrest/master1", cluster.data);
    let owner = std::fs::metadata(&folder).expect("the configuration");
    let mut command = Command::new("setpriv");
    if owner.uid() != std::fs::metadata("/proc/self").expect("this process").uid() {
        command.args([
            format!("--reuid={}", owner.uid()),
            format!("--regid={}", owner.gid()),
            "--clear-groups".to_string(),
        ]);
    }
    command.args(["--", "pgbackrest"]).args([
        format!("--config-path={folder}"),
        "--stanza=imdb-master1".to_string(),
        format!("--set={to}"),
        format!("--annotation=imdb-ha-seal={seal}"),
        "annotate".to_string(),
    ]);
    let output = command.current_dir("/").output().expect("run pgbackrest");
    assert!(output.status.success(), "{}", said(&output));
}

/// The commands by which plain servers are stopped and started, with pg_ctl as PostgreSQL's user.
fn plain_commands(cluster: &Cluster) -> Vec<(String, String)> {
    let programs = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL");
    let versions = programs.map(|entry| entry.expect("an entry").path());
    let mut commands = Vec::new();
    let versions: Vec<PathBuf> = versions.collect();
    for node in ["master1", "master2"] {
        let data = cluster.status["masters"][node]["data"]
            .as_str()
            .expect("a folder");
        let made_by = std::fs::read_to_string(format!("{data}/PG_VERSION")).expect("a version");
        let of_version = versions.iter().find(|path| path.ends_with(made_by.trim()));
        let pg_ctl = of_version.expect("its programs").join("bin/pg_ctl");
        let owner = std::fs::metadata(data).expect("the data folder");
        let user = match owner.uid() == std::fs::metadata("/proc/self").expect("this process").uid()
        {
            true => String::new(),
            false => format!(
                "setpriv --reuid={} --regid={} --clear-groups -- ",
                owner.uid(),
                owner.gid()
            ),
        };
        let base = format!("{user}'{}' -D '{data}' -s -w", pg_ctl.display());
        let upper = node.to_uppercase();
        commands.push((
            format!("{upper}_STOP_COMMAND"),
            format!("{base} -m fast stop"),
        ));
        commands.push((
            format!("{upper}_START_COMMAND"),
            format!("{base} -l '{data}/start.log' start"),
        ));
    }
    commands
}

/// Servers that something else runs are stopped and started by the commands that the configuration names, which are looked at first.
#[test]
fn servers_of_ones_own_are_restored_by_way_of_commands() {
    let cluster = Cluster::start();
    run_backup(&cluster, "full");
    insert(&cluster, "master1", "antes", 100);
    cluster.wait_equal();
    let to = moment();
    insert(&cluster, "master1", "luego", 100);
    cluster.wait_equal();
    let run = |arguments: &[&str], commands: &[(String, String)]| {
        let mut command = command(
            &cluster,
            &[&["restore", "master1", "--to", &to], arguments].concat(),
        );
        command
            .envs(
                commands
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str())),
            )
            .output()
            .expect("run imdb-ha")
    };
    let mut commands = plain_commands(&cluster);
    let good = commands[3].1.clone();
    commands[3].1 = "/nowhere/pg_ctl start".to_string();
    let told = said(&run(&["--dry-run"], &commands));
    let words = "MASTER2_START_COMMAND: there is no program /nowhere/pg_ctl";
    assert!(told.contains(words), "{told}");
    commands[3].1 = good;
    let output = run(&["--yes", "--json"], &commands);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(counts(&cluster, "antes"), [(128, 100); 2]);
    assert_eq!(counts(&cluster, "luego"), [(128, 0); 2]);
    wait_until("both directions stream", || {
        cluster.run(&["replication", "status"]).status.success()
    });
}
