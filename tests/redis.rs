//! Redis in trouble: whoever asks it holds up nobody's rows, and one that takes no writes is told with the cure.

mod common;

use common::{Cluster, wait_until};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn signal(name: &str, pid: &Value) {
    let sent = std::process::Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status();
    assert!(sent.expect("kill").success());
}

fn connect_to_redis(cluster: &Cluster) -> redis::Connection {
    let url = cluster.status["redis"].as_str().expect("redis");
    redis::Client::open(url)
        .and_then(|client| client.get_connection_with_timeout(Duration::from_secs(2)))
        .expect("redis")
}

fn tell(redis: &mut redis::Connection, command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    let mut told = redis::cmd(words[0]);
    told.arg(&words[1..])
        .exec(redis)
        .unwrap_or_else(|error| panic!("{command}: {error}"));
}

/// Ends the asking.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Has 24 clients ask for `path` again and again while rows are read and written, which must take no notice of them.
fn poll(cluster: &Cluster, path: &str) {
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        // Also when something fails: else the test would wait for them for ever.
        let end = End(&over);
        for _ in 0..24 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let answer = cluster.get(path);
                    let known = answer.status == 200
                        || (["overloaded", "late"].contains(&answer.code())
                            && answer.body["reason"].is_string())
                        || answer.code() == "no_master";
                    assert!(known, "{path}: {answer:?}");
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let began = Instant::now();
        // All of them are asking by now.
        std::thread::sleep(Duration::from_millis(300));
        let rows = (0..60).map(|index| match index % 3 {
            0 => cluster.add(&format!("{path} {index}")),
            _ => cluster.get("/generos/1"),
        });
        let statuses: Vec<u16> = rows.map(|answer| answer.status).collect();
        let took = began.elapsed();
        drop(end);
        assert!(
            statuses.iter().all(|status| matches!(status, 200 | 201)),
            "{statuses:?}"
        );
        // Behind pollers that have taken the workers each takes a second or two.
        assert!(took < Duration::from_secs(20), "{path}: {took:?}");
    });
    assert!(answered.load(Ordering::SeqCst) >= 24);
}

#[test]
fn who_asks_redis_or_the_conflict_logs_holds_up_no_rows() {
    let cluster = Cluster::start();
    assert_eq!(cluster.add("antes").status, 201);
    let redis = &cluster.status["pids"]["redis"];
    signal("STOP", redis);
    poll(&cluster, "/history");
    // What is known is answered from memory: nobody asks a Redis that has just not answered.
    let answer = cluster.get("/history");
    assert_eq!(answer.body["source"], "memory", "{answer:?}");
    assert!(answer.body["reason"].is_string(), "{answer:?}");
    signal("CONT", redis);
    wait_until("it is asked again", || {
        cluster.get("/history").body["source"] == "redis"
    });

    let mut clients = ["master1", "master2"].map(|node| cluster.sql(node));
    let mut locks = clients.each_mut().map(|client| {
        let mut lock = client.transaction().expect("begin");
        lock.batch_execute("LOCK TABLE imdb_ha.conflictos IN ACCESS EXCLUSIVE MODE")
            .expect("lock");
        lock
    });
    poll(&cluster, "/conflicts");
    locks
        .each_mut()
        .iter_mut()
        .for_each(|lock| lock.batch_execute("SELECT 1").expect("it holds on"));
    drop(locks);
    wait_until("the log is read again", || {
        cluster.get("/conflicts").status == 200
    });
}

/// A fault of Redis: how it is made, how it is undone, what its state is called, and what the alarm says to do.
type Fault = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    &'static str,
    &'static str,
);

const FAULTS: &[Fault] = &[
    (
        "read-only",
        &["REPLICAOF 127.0.0.1 1"],
        &["REPLICAOF NO ONE"],
        "failing",
        "REPLICAOF NO ONE",
    ),
    (
        "full",
        &[
            "CONFIG SET maxmemory-policy noeviction",
            "CONFIG SET maxmemory 1",
        ],
        &["CONFIG SET maxmemory 0"],
        "failing",
        "maxmemory",
    ),
    (
        "without replicas",
        &["CONFIG SET min-replicas-to-write 1"],
        &["CONFIG SET min-replicas-to-write 0"],
        "failing",
        "min-replicas-to-write",
    ),
    (
        "another kind of key",
        &["RENAME imdb-ha:history kept", "SET imdb-ha:history x"],
        &["RENAME kept imdb-ha:history"],
        "failing",
        "imdb-ha:history",
    ),
    (
        "scripts are forbidden",
        &["ACL SETUSER default -eval"],
        &["ACL SETUSER default +eval"],
        "failing",
        "EVAL",
    ),
    (
        "another password",
        &["CONFIG SET requirepass other", "CLIENT KILL TYPE normal"],
        &["CONFIG SET requirepass "],
        "failing",
        "REDIS_URL",
    ),
];

#[test]
fn a_redis_that_takes_no_writes_is_an_alarm_and_what_waited_is_written_after_it() {
    let cluster = Cluster::start();
    let mut redis = connect_to_redis(&cluster);
    let state = || cluster.get("/status").body["redis"]["state"].clone();
    for (name, make, undo, shown, advice) in FAULTS {
        wait_until("redis is well", || state() == "up");
        make.iter().for_each(|command| tell(&mut redis, command));
        wait_until(&format!("{name} is noticed"), || state() == *shown);
        let status = cluster.get("/status").body;
        let alarms = status["alarms"].to_string();
        assert!(alarms.contains(advice), "{name}: {alarms}");
        assert!(status["redis"]["error"].is_string(), "{status}");
        let output = cluster.run(&[
            "health",
            "--port",
            cluster.api.rsplit(':').next().expect("its port"),
        ]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            said.contains(&format!("\"redis\":\"{shown}\"")),
            "{name}: {output:?}"
        );
        // What happens meanwhile is shown at once, wherever it is kept.
        wait_until("a person can hold the traffic", || {
            cluster.post("/pause?for=1h", "").status == 200
        });
        let newest = cluster.get("/history").body;
        assert!(newest["data"][0]["to"] == "paused", "{name}: {newest}");
        let length: u64 = redis::cmd("LLEN")
            .arg("imdb-ha:history")
            .query(&mut redis)
            .unwrap_or(0);
        undo.iter().for_each(|command| tell(&mut redis, command));
        wait_until("what waited is written", || {
            let newest: Vec<String> = redis::cmd("LRANGE")
                .arg("imdb-ha:history")
                .arg(0)
                .arg(5)
                .query(&mut redis)
                .expect("the history");
            newest.iter().any(|entry| entry.contains("paused"))
        });
        wait_until("the alarm is over", || {
            cluster.get("/status").body["alarms"] == Value::Array(vec![])
        });
        wait_until("the pause ends", || {
            cluster.post("/resume", "").status == 200
        });
        wait_until("its end is written", || {
            redis::cmd("LLEN")
                .arg("imdb-ha:history")
                .query::<u64>(&mut redis)
                .expect("its length")
                > length
        });
    }
}
