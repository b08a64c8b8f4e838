//! The manual's cycle, its keys in Redis, and the scripts, against real masters, pgBackRest and Redis.

mod common;

use common::{BINARY, Cluster, clean_command_named, wait_until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Output;

fn redis(cluster: &Cluster) -> redis::Connection {
    let url = cluster.status["redis"].as_str().expect("a URL");
    let client = redis::Client::open(url).expect("a Redis URL");
    client.get_connection().expect("connect to Redis")
}

fn json(redis: &mut redis::Connection, key: &str) -> Value {
    let text: Option<String> = redis::cmd("GET").arg(key).query(redis).expect("GET");
    let text = text.unwrap_or_else(|| panic!("there is no {key}"));
    serde_json::from_str(&text).expect("JSON")
}

fn history(redis: &mut redis::Connection, stanza: &str) -> Vec<String> {
    let key = format!("pgbackrest:history:{stanza}");
    let all: Vec<String> = redis::cmd("LRANGE")
        .arg(key)
        .arg(0)
        .arg(-1)
        .query(redis)
        .expect("LRANGE");
    all.iter()
        .map(|text| {
            let value: Value = serde_json::from_str(text).expect("JSON");
            let backups = value[0]["backup"].as_array().expect("backups").clone();
            assert_eq!(backups.len(), 1);
            backups[0]["label"].as_str().expect("a label").to_string()
        })
        .collect()
}

/// Without what goes on by itself: which WAL is in the archive.
fn at_rest(value: &str) -> String {
    let Ok(mut json) = serde_json::from_str::<Value>(value) else {
        return value.to_string();
    };
    if let Some(stanza) = json.get_mut(0).and_then(Value::as_object_mut) {
        stanza.remove("archive");
    }
    json.to_string()
}

/// Every key of the catalogue with its value.
fn dump(redis: &mut redis::Connection) -> BTreeSet<(String, String)> {
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("pgbackrest:*")
        .query(redis)
        .expect("KEYS");
    let keys = keys
        .into_iter()
        .filter(|key| key != "pgbackrest:fingerprint");
    keys.map(|key| {
        let kind: String = redis::cmd("TYPE").arg(&key).query(redis).expect("TYPE");
        let mut all = match kind.as_str() {
            "string" => redis::cmd("MGET").arg(&key).query::<Vec<String>>(redis),
            "list" => redis::cmd("LRANGE").arg(&key).arg(0).arg(-1).query(redis),
            "hash" => redis::cmd("HGETALL").arg(&key).query(redis),
            _ => redis::cmd("SMEMBERS").arg(&key).query(redis),
        }
        .expect("its value");
        if kind == "set" {
            all.sort();
        }
        let all: Vec<String> = all.iter().map(|value| at_rest(value)).collect();
        (key, all.join("\n"))
    })
    .collect()
}

fn raw(cluster: &Cluster, node: &str) -> Value {
    let output = cluster.run(&["backup", "info", "--raw", node]);
    assert!(output.status.success(), "{output:?}");
    let all: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    all[0].clone()
}

fn script(cluster: &Cluster, name: &str, arguments: &[&str]) -> Output {
    let path = format!("{}/scripts/pgbackrest/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut command = clean_command_named(&path);
    command.args(arguments).env("IMDB_HA_DATA", &cluster.data);
    command.env("IMDB_HA_BIN", BINARY);
    command.output().expect("run the script")
}

#[test]
fn the_manual_s_cycle_is_in_info_and_in_every_key_and_survives_the_loss_of_redis() {
    let cluster = Cluster::start();
    let output = script(&cluster, "simulate-backup-cycle.sh", &[]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(said.contains("9 backups of master1 in "), "{said}");

    let info = raw(&cluster, "master1");
    let backups = info["backup"].as_array().expect("backups");
    let types: Vec<&str> = backups
        .iter()
        .map(|backup| backup["type"].as_str().expect("a type"))
        .collect();
    assert_eq!(
        types,
        [
            "full", "incr", "incr", "diff", "incr", "incr", "diff", "diff", "full"
        ]
    );
    let rows = cluster.wait_equal();
    assert_eq!(
        rows.iter()
            .filter(|row| row.contains("Género Backup Test"))
            .count(),
        45
    );

    let mut redis = redis(&cluster);
    let last = json(&mut redis, "pgbackrest:last:imdb-master1");
    // The seal came after it; everything else must be the same.
    assert_eq!(last[0]["backup"].as_array().map(Vec::len), Some(9));
    assert_eq!(last[0]["db"], info["db"], "the system id to its last digit");
    for backup in backups {
        let start = backup["timestamp"]["start"].as_i64().expect("a time");
        let at = jiff::Timestamp::from_second(start).expect("a time");
        let entry = json(&mut redis, &format!("pgbackrest:backup:imdb-master1:{at}"));
        assert_eq!(entry, json(&mut redis, &format!("pgbackrest:backup:{at}")));
        assert_eq!(entry["timestamp"], at.to_string());
        assert_eq!(entry["label"], backup["label"]);
        assert_eq!(entry["type"], backup["type"]);
        assert_eq!(entry["size_bytes"], backup["info"]["size"]);
        assert_eq!(entry["copied_bytes"], backup["info"]["delta"]);
        assert_eq!(entry["stanza"], "imdb-master1");
        assert_eq!(entry["master"], "master1");
        let stop = backup["timestamp"]["stop"].as_i64().expect("a time");
        assert_eq!(entry["duration_seconds"], stop - start);
        let location = entry["location"].as_str().expect("a place");
        assert!(std::path::Path::new(location).is_dir(), "{location}");
    }
    let newest = |kind: &str| {
        let of_kind = backups.iter().rfind(|backup| backup["type"] == kind);
        of_kind.expect("one")["label"].clone()
    };
    for kind in ["full", "diff", "incr"] {
        assert_eq!(
            json(&mut redis, &format!("pgbackrest:latest:{kind}"))["label"],
            newest(kind)
        );
        assert_eq!(
            json(
                &mut redis,
                &format!("pgbackrest:latest:{kind}:imdb-master1")
            )["label"],
            newest(kind)
        );
    }
    let labels: Vec<&str> = backups
        .iter()
        .rev()
        .map(|backup| backup["label"].as_str().expect("a label"))
        .collect();
    assert_eq!(history(&mut redis, "imdb-master1"), labels);
    // The manual's days, each with its last backup.
    let metadata = |field: String, redis: &mut redis::Connection| -> String {
        redis::cmd("HGET")
            .arg("pgbackrest:metadata:imdb-master1")
            .arg(field)
            .query(redis)
            .expect("HGET")
    };
    for (day, at) in [(1, 0), (2, 1), (3, 3), (4, 4), (5, 6), (6, 8)] {
        let backup = &backups[at];
        let simple = json(
            &mut redis,
            &format!("pgbackrest:simple:day{day}:imdb-master1"),
        );
        assert_eq!(simple["label"], backup["label"]);
        assert_eq!(simple["timestamp_unix"]["fin"], backup["timestamp"]["stop"]);
        assert_eq!(
            metadata(format!("day{day}_label"), &mut redis),
            backup["label"].as_str().expect("a label")
        );
        assert_eq!(metadata(format!("day{day}_type"), &mut redis), types[at]);
        let then = json(&mut redis, &format!("pgbackrest:day{day}:imdb-master1"));
        assert_eq!(then[0]["backup"].as_array().map(Vec::len), Some(at + 1));
    }

    // Everything lost: the API writes it again by itself, and publishing once more changes nothing.
    assert!(cluster.run(&["backup", "publish"]).status.success());
    let before = dump(&mut redis);
    redis::cmd("FLUSHALL")
        .query::<()>(&mut redis)
        .expect("FLUSHALL");
    let mut after = BTreeSet::new();
    wait_until("the catalogue is in Redis again", || {
        after = dump(&mut redis);
        after.len() >= before.len()
    });
    let differing: Vec<_> = before.symmetric_difference(&after).collect();
    assert!(differing.is_empty(), "{differing:#?}");
    wait_until("there is nothing left to publish", || {
        let again = cluster.run(&["backup", "publish"]);
        String::from_utf8_lossy(&again.stdout).contains("already")
    });
    assert_eq!(dump(&mut redis), before);
    // One key alone is missed too, and somebody else's is left alone.
    redis::cmd("SET")
        .arg("pgbackrest:theirs")
        .arg("x")
        .query::<()>(&mut redis)
        .expect("SET");
    for key in ["pgbackrest:latest:full", "pgbackrest:keys"] {
        redis::cmd("DEL")
            .arg(key)
            .query::<()>(&mut redis)
            .expect("DEL");
        wait_until("the key is there again", || {
            redis::cmd("EXISTS")
                .arg(key)
                .query::<bool>(&mut redis)
                .expect("EXISTS")
        });
    }
    assert!(
        redis::cmd("EXISTS")
            .arg("pgbackrest:theirs")
            .query::<bool>(&mut redis)
            .expect("EXISTS")
    );
    // What somebody made something else of is made anew: what had expired is gone from a history, and nothing else.
    for key in ["history:imdb-master1", "metadata:imdb-master1", "keys"] {
        redis::cmd("SET")
            .arg(format!("pgbackrest:{key}"))
            .arg("x")
            .query::<()>(&mut redis)
            .expect("SET");
    }
    let mark = "pgbackrest:fingerprint";
    let replaced = redis::pipe().del(mark).sadd(mark, "x").to_owned();
    replaced.query::<()>(&mut redis).expect("SADD");
    redis::cmd("DEL")
        .arg("pgbackrest:theirs")
        .query::<()>(&mut redis)
        .expect("DEL");
    wait_until("everything is what it was", || dump(&mut redis) == before);
}

#[test]
fn a_backup_does_not_need_redis_and_the_scripts_take_the_manual_s_arguments() {
    let cluster = Cluster::start();
    for (name, arguments, named) in [
        ("run-backup.sh", &[][..], "usage"),
        ("run-backup.sh", &["imdb", "full"], "'imdb'"),
        ("run-backup.sh", &["imdb-master1", "huge"], "'huge'"),
        (
            "run-backup.sh",
            &["imdb-master1", "full", "--fast"],
            "'--fast'",
        ),
        (
            "run-backup.sh",
            &["imdb-master1", "full", "--redis-command"],
            "--redis-command",
        ),
        ("show-info.sh", &["imdb-master3"], "'imdb-master3'"),
        ("simulate-backup-cycle.sh", &["master1"], "'master1'"),
    ] {
        let output = script(&cluster, name, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            output.status.code(),
            Some(1),
            "{name} {arguments:?}: {said}"
        );
        assert!(said.contains(named), "{name} {arguments:?}: {said}");
    }
    let output = script(&cluster, "bootstrap.sh", &[]);
    assert!(output.status.success(), "{output:?}");

    let mut redis = redis(&cluster);
    let port = cluster.status["redis"]
        .as_str()
        .expect("a URL")
        .rsplit(':')
        .next()
        .expect("a port")
        .to_string();
    let client = format!("redis-cli -p {port}");
    let output = script(
        &cluster,
        "run-backup.sh",
        &[
            "imdb-master1",
            "incr",
            "--publish-redis",
            "--redis-key-prefix",
            "copy",
            "--redis-command",
            &client,
        ],
    );
    assert!(output.status.success(), "{output:?}");
    let label = json(&mut redis, "copy:latest:full")["label"].clone();
    // The first is a full one, whatever was asked for.
    assert_eq!(
        json(&mut redis, "copy:last:imdb-master1")[0]["backup"][0]["label"],
        label
    );

    // Redis goes. The backup is made, and says that nobody heard of it.
    let pid = cluster.status["pids"]["redis"]
        .as_i64()
        .expect("a process id");
    let killed = clean_command_named("kill")
        .args(["-9", &pid.to_string()])
        .status();
    assert!(killed.expect("kill").success());
    let output = cluster.run(&["backup", "run", "master1", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let made: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let warning = made["warnings"][0].as_str().expect("a warning");
    assert!(
        warning.contains("catalogue of the backups to redis"),
        "{warning}"
    );
    assert_eq!(made["backup"]["type"], "incr");
    let output = script(&cluster, "show-info.sh", &["imdb-master1"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains(made["backup"]["label"].as_str().expect("a label")),
        "{said}"
    );
    assert_eq!(said.lines().count(), 2, "{said}");
}
