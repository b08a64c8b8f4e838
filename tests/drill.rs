//! Backups are sealed exactly while writes go on, and a drill tells a good one from a bad one, whatever is wrong with it, and
//! leaves nothing behind.

mod common;

use common::{Cluster, clean_command, wait_until};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

fn json(output: &std::process::Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {output:?}"))
}

/// Makes a backup of master1 and returns its label.
fn backup(cluster: &Cluster, kind: &str) -> String {
    let output = cluster.run(&["backup", "run", "master1", "--type", kind, "--json"]);
    assert!(output.status.success(), "{output:?}");
    let label = json(&output)["backup"]["label"].clone();
    label.as_str().expect("a label").to_string()
}

/// Tries one, whose exit code must tell the same as its answer.
fn drill(cluster: &Cluster, label: &str) -> Value {
    let output = cluster.run(&["backup", "drill", label, "--json"]);
    let answer = json(&output);
    assert_eq!(answer["ok"] == true, output.status.success(), "{output:?}");
    assert_eq!(answer["drills"].as_array().map(Vec::len), Some(1));
    nothing_is_left(cluster);
    answer["drills"][0].clone()
}

fn assert_good(drill: &Value) {
    assert_eq!(drill["verified"]["ok"], true, "{drill}");
    let checked = drill["verified"]["checked"].to_string();
    for what in [
        "files:",
        "restored:",
        "recovered: to its seal",
        "pages:",
        "rows:",
    ] {
        assert!(checked.contains(what), "{what} was not checked: {drill}");
    }
}

/// The error of a bad one.
fn error_of(drill: &Value) -> &str {
    assert_eq!(drill["verified"]["ok"], false, "{drill}");
    drill["verified"]["error"].as_str().expect("an error")
}

fn verdict(cluster: &Cluster, label: &str) -> String {
    let list = json(&cluster.run(&["backup", "info", "master1", "--json"]));
    let backups = list["backups"].as_array().expect("a list");
    let found = backups.iter().find(|backup| backup["label"] == label);
    let verdict = &found.unwrap_or_else(|| panic!("no {label} in {list}"))["verdict"];
    verdict.as_str().expect("a verdict").to_string()
}

/// pgBackRest itself, as whoever the masters run as.
fn pgbackrest(cluster: &Cluster, arguments: &[&str]) -> String {
    pgbackrest_in(cluster, "UTC", arguments)
}

/// The same in another time zone.
fn pgbackrest_in(cluster: &Cluster, zone: &str, arguments: &[&str]) -> String {
    use std::os::unix::fs::MetadataExt;
    let folder = format!("{}/pgbackrest/master1", cluster.data);
    let of = fs::metadata(&folder).expect("the configuration");
    let me = fs::metadata("/proc/self").expect("this process").uid();
    let mut command = match of.uid() == me {
        true => Command::new("pgbackrest"),
        false => {
            let mut command = Command::new("setpriv");
            command.args([
                format!("--reuid={}", of.uid()),
                format!("--regid={}", of.gid()),
                "--clear-groups".to_string(),
                "pgbackrest".to_string(),
            ]);
            command
        }
    };
    command
        .args([
            format!("--config-path={folder}").as_str(),
            "--stanza=imdb-master1",
        ])
        .args(arguments)
        .env("TZ", zone)
        .env("PGPASSWORD", "root")
        .current_dir("/");
    let output = command.output().expect("run pgbackrest");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The seal of a backup, as it is kept.
fn seal(cluster: &Cluster, label: &str) -> Value {
    let info: Value =
        serde_json::from_str(&pgbackrest(cluster, &["info", "--output=json"])).expect("JSON");
    let backups = info[0]["backup"].as_array().expect("a list");
    let found = backups.iter().find(|backup| backup["label"] == label);
    let text = &found.expect("the backup")["annotation"]["imdb-ha-seal"];
    serde_json::from_str(text.as_str().expect("a seal")).expect("JSON")
}

fn set_seal(cluster: &Cluster, label: &str, seal: &Value) {
    let note = format!("--annotation=imdb-ha-seal={seal}");
    pgbackrest(cluster, &[&format!("--set={label}"), &note, "annotate"]);
}

fn repository(cluster: &Cluster, below: &str) -> PathBuf {
    Path::new(&cluster.data).join("backups/master1").join(below)
}

/// The files of master1's archive, oldest first.
fn archive(cluster: &Cluster) -> Vec<PathBuf> {
    let mut folders = vec![repository(cluster, "archive/imdb-master1/17-1")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the archive") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    found
}

fn name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .expect("a name")
}

/// No folder, no process, and no timeline of its own in the repository.
fn nothing_is_left(cluster: &Cluster) {
    let folder = format!("{}/pgbackrest/master1/drill", cluster.data);
    assert!(!Path::new(&folder).exists(), "{folder} is there still");
    for file in archive(cluster) {
        assert!(
            name(&file).starts_with("00000001"),
            "another timeline: {}",
            file.display()
        );
    }
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        assert!(!line.contains(&folder), "a process is left: {line:?}");
    }
}

fn flip_a_byte(path: &Path) {
    let mut bytes = fs::read(path).expect("read it");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("damage it");
}

#[test]
fn a_seal_is_exact_under_load_and_a_drill_sees_what_differs() {
    let cluster = Cluster::start();
    let stop = AtomicBool::new(false);
    let labels = thread::scope(|scope| {
        for writer in 0..6 {
            let (cluster, stop) = (&cluster, &stop);
            scope.spawn(move || {
                let mut number = 0;
                while !stop.load(Ordering::SeqCst) {
                    number += 1;
                    assert_eq!(cluster.add(&format!("g{writer}-{number}")).status, 201);
                    if number % 10 == 0 {
                        // Rows that change and go are in the checksums too.
                        let id = cluster.add(&format!("x{writer}-{number}")).id();
                        cluster.ask("DELETE", &format!("/generos/{id}"), None, &[]);
                    }
                }
            });
        }
        let labels: Vec<String> = ["full", "incr", "incr"]
            .iter()
            .map(|kind| backup(&cluster, kind))
            .collect();
        stop.store(true, Ordering::SeqCst);
        labels
    });
    let rows: Vec<i64> = labels
        .iter()
        .map(|label| {
            seal(&cluster, label)["tables"]["generos"][0]
                .as_i64()
                .expect("rows")
        })
        .collect();
    assert!(
        rows[0] < rows[1] && rows[1] < rows[2],
        "writes went on: {rows:?}"
    );
    for label in &labels {
        assert_good(&drill(&cluster, label));
        assert_eq!(verdict(&cluster, label), "good");
    }

    // The same backup, of which other things are said.
    let [first, _, last] = labels.as_slice() else {
        panic!("three backups")
    };
    let sealed = seal(&cluster, last);
    let mut other = sealed.clone();
    other["tables"]["generos"][1] = "12345".into();
    set_seal(&cluster, last, &other);
    let bad = drill(&cluster, last);
    assert!(error_of(&bad).contains("are not those"), "{bad}");
    assert_eq!(bad["restore_point"], labels[1].as_str());
    assert_eq!(bad["restore_point_verdict"], "good");
    assert_eq!(verdict(&cluster, last), "bad");
    other["tables"]["generos"][0] = (rows[2] + 1).into();
    set_seal(&cluster, last, &other);
    assert!(error_of(&drill(&cluster, last)).contains(&format!("has {} rows", rows[2])));
    set_seal(&cluster, last, &sealed);
    assert_good(&drill(&cluster, last));
    assert_eq!(verdict(&cluster, last), "good");

    // Nobody noticed: both masters stream, and WAL reaches the repository as before.
    cluster.wait_equal();
    let output = cluster.run(&["backup", "bootstrap"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(verdict(&cluster, first), "good");
}

#[test]
fn damage_is_found_and_an_older_good_backup_is_named() {
    let cluster = Cluster::start();
    let older = backup(&cluster, "full");
    assert_good(&drill(&cluster, &older));
    cluster.add("between");
    let newer = backup(&cluster, "full");
    let above = backup_beside_a_long_transaction(&cluster);
    assert_good(&drill(&cluster, &newer));
    assert_good(&drill(&cluster, &above));

    // WAL that is gone: the backup can be restored, the time after it cannot.
    let gone: Vec<PathBuf> = archive(&cluster)
        .into_iter()
        .filter(|path| !name(path).ends_with(".backup"))
        .collect();
    let taken: Vec<(PathBuf, Vec<u8>)> = gone
        .iter()
        .skip_while(|path| name(path)[..24] <= *stop_of(&cluster, &above))
        .map(|path| (path.clone(), fs::read(path).expect("read it")))
        .collect();
    assert!(!taken.is_empty());
    taken
        .iter()
        .for_each(|(path, _)| fs::remove_file(path).expect("remove it"));
    let bad = drill(&cluster, &above);
    let error = error_of(&bad);
    assert!(error.contains("can be restored to its end"), "{bad}");
    assert!(
        error.contains(&name(&taken[0].0)[..24]),
        "the segment is named: {bad}"
    );
    assert_eq!(bad["restore_point"], newer.as_str());
    for (path, bytes) in &taken {
        fs::write(path, bytes).expect("put it back");
        use std::os::unix::fs::MetadataExt;
        let of = fs::metadata(path.parent().expect("a folder")).expect("its owner");
        std::os::unix::fs::chown(path, Some(of.uid()), Some(of.gid())).expect("give it back");
    }
    assert_good(&drill(&cluster, &above));

    // A byte in a file that the newest backup needs and that belongs to another: both are bad.
    let bundle = repository(&cluster, &format!("backup/imdb-master1/{newer}/bundle/1"));
    flip_a_byte(&bundle);
    let output = cluster.run(&["backup", "drill", &above]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("BAD") && said.contains(&older), "{said}");
    let bad = drill(&cluster, &above);
    assert!(error_of(&bad).contains("invalid"), "{bad}");
    assert_eq!(bad["restore_point"], older.as_str());
    assert_eq!(verdict(&cluster, &newer), "bad");
    assert_eq!(verdict(&cluster, &above), "bad");
    flip_a_byte(&bundle);
    assert_good(&drill(&cluster, &newer));

    // A file that nobody can read because it is not there.
    let moved = bundle.with_extension("moved");
    fs::rename(&bundle, &moved).expect("move it away");
    assert!(error_of(&drill(&cluster, &newer)).contains("missing"));
    fs::rename(&moved, &bundle).expect("move it back");
    assert_good(&drill(&cluster, &newer));

    a_killed_one_is_cleared_away(&cluster, &newer);
    labels_are_of_no_other_time_zone(&cluster);
}

/// A seal waits for a transaction that has written, and keeps no other writer waiting for as long.
/// Labels are UTC from the machine's zone on, and a backup of before, with a label that is ahead, is told from other failures.
fn labels_are_of_no_other_time_zone(cluster: &Cluster) {
    let label = backup(cluster, "incr");
    let list = json(&cluster.run(&["backup", "info", "master1", "--json"]));
    let backups = list["backups"].as_array().expect("a list");
    let found = backups
        .iter()
        .find(|backup| backup["label"] == label.as_str());
    let begun = found.expect("the backup")["timestamp"]
        .as_str()
        .expect("a time");
    let digits: String = begun.chars().filter(char::is_ascii_digit).collect();
    let own = label.rsplit('_').next().expect("a label").replace('-', "");
    assert_eq!(own, format!("{}I", &digits[..14]));

    pgbackrest_in(cluster, "XXX-14", &["--type=full", "backup"]);
    let output = cluster.run(&["backup", "run", "master1", "--type", "full"]);
    assert!(!output.status.success(), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("(label-ahead: "), "{told}");
}

fn backup_beside_a_long_transaction(cluster: &Cluster) -> String {
    let mut session = cluster.sql("master1");
    let mut transaction = session.transaction().expect("a transaction");
    let insert = "INSERT INTO public.generos (id_genero, genero) VALUES (30001, 'slow')";
    transaction.execute(insert, &[]).expect("write");
    thread::scope(|scope| {
        let making = scope.spawn(|| backup(cluster, "incr"));
        // It ends only after the seal has been in its way; were that not so, the seal would have less to wait for, and no harm done.
        for number in 0..40 {
            assert_eq!(cluster.add(&format!("beside-{number}")).status, 201);
            thread::sleep(Duration::from_millis(100));
        }
        assert!(!making.is_finished(), "the seal did not wait");
        transaction.commit().expect("commit");
        making.join().expect("a backup")
    })
}

/// Kills drills in the middle, the last one while its server is frozen and so outlives it. They work in a folder in which a socket
/// would have too long a path.
fn a_killed_one_is_cleared_away(cluster: &Cluster, label: &str) {
    let short = std::env::temp_dir().join(format!("imdb-ha-drill-{}-", std::process::id()));
    let short = short.to_str().expect("text");
    let root = PathBuf::from(format!("{short:x<100}"));
    let sockets = PathBuf::from(short);
    fs::create_dir(&root).expect("a folder");
    fs::create_dir(&sockets).expect("a folder");
    for node in ["master1", "master2"] {
        let original = PathBuf::from(format!("{}/pgbackrest/{node}", cluster.data));
        let text = fs::read_to_string(original.join("pgbackrest.conf")).expect("a configuration");
        let spool = format!("spool-path={}", original.join("spool").display());
        let text = text.replace(
            &spool,
            &format!("spool-path={}", root.join("spool").display()),
        );
        fs::create_dir(root.join(node)).expect("a folder");
        fs::write(root.join(node).join("pgbackrest.conf"), text).expect("a configuration");
        let passphrase = original.join("conf.d");
        std::os::unix::fs::symlink(passphrase, root.join(node).join("conf.d")).expect("a link");
    }
    let command = || {
        let mut command = clean_command();
        command
            .args(["backup", "drill", label])
            .env("IMDB_HA_DATA", &cluster.data)
            .env("BACKUP_CONFIG_DIR", &root)
            .env("TMPDIR", &sockets);
        command
    };
    for (step, freeze) in [("restoring it", false), ("checking every page", true)] {
        let mut process = command()
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a drill");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let reached = lines.map_while(Result::ok).any(|line| line.contains(step));
        assert!(reached, "it never came to {step}");
        let mut server = None;
        if freeze {
            let text =
                fs::read_to_string(root.join("drill/data/postmaster.pid")).expect("a server");
            let id = text.lines().next().expect("its id").to_string();
            signal("STOP", &id);
            server = Some(id);
        }
        process.kill().expect("SIGKILL");
        process.wait().expect("its end");
        if let Some(id) = &server {
            assert!(
                Path::new(&format!("/proc/{id}")).exists(),
                "it was to outlive the drill"
            );
        }
        let output = command().output().expect("run a drill");
        assert!(output.status.success(), "{output:?}");
        assert!(!root.join("drill").exists(), "its folder is there still");
        assert_eq!(
            fs::read_dir(&sockets).expect("a folder").count(),
            0,
            "a socket is left"
        );
        if let Some(id) = &server {
            wait_until("the server of the killed drill is gone", || {
                !Path::new(&format!("/proc/{id}")).exists()
            });
        }
    }
    fs::remove_dir_all(&root).expect("remove it");
    fs::remove_dir(&sockets).expect("remove it");
    nothing_is_left(cluster);
}

fn signal(signal: &str, id: &str) {
    let mut command = Command::new("kill");
    let status = command.args([&format!("-{signal}"), id]).status();
    assert!(status.expect("run kill").success());
}

/// The last WAL segment that a backup needs.
fn stop_of(cluster: &Cluster, label: &str) -> String {
    let info: Value =
        serde_json::from_str(&pgbackrest(cluster, &["info", "--output=json"])).expect("JSON");
    let backups = info[0]["backup"].as_array().expect("a list");
    let found = backups.iter().find(|backup| backup["label"] == label);
    let stop = &found.expect("the backup")["archive"]["stop"];
    stop.as_str().expect("a segment").to_string()
}
