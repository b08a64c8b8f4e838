//! The backup thread over real masters and real repositories: what it makes by itself, what it is asked for, and how it gets
//! over masters and processes that die in the middle.

mod common;

use common::{Answer, Cluster, clean_command_named, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::cell::Cell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::time::Duration;

/// The backups of a master, newest first, as the API shows them.
fn of(cluster: &Cluster, node: &str) -> Vec<Value> {
    let answer = cluster.get("/backups");
    let all = answer.body["backups"].as_array().expect("backups");
    let mine = all.iter().filter(|backup| backup["master"] == node);
    mine.cloned().collect()
}

fn newest(cluster: &Cluster, node: &str) -> Value {
    let newest = of(cluster, node)
        .first()
        .map(|backup| backup["label"].clone());
    newest.unwrap_or_default()
}

fn ask(cluster: &Cluster, node: &str, kind: &str) -> Answer {
    let body = json!({ "node": node, "type": kind }).to_string();
    cluster.post("/backups", &body)
}

/// Asks until nothing else is being done.
fn ask_in_turn(cluster: &Cluster, node: &str, kind: &str) -> Value {
    let mut job = Value::Null;
    wait_until("it is our turn", || {
        let answer = ask(cluster, node, kind);
        assert!([202, 409].contains(&answer.status), "{answer:?}");
        if answer.status == 202 {
            let path = format!("/backups/jobs/{}", answer.body["job"]["id"]);
            assert_eq!(answer.header("Location"), Some(path.as_str()));
            job = answer.body["job"].clone();
        }
        answer.status == 202
    });
    job
}

/// Waits for the end of a job and returns what is said of it then.
fn outcome(cluster: &Cluster, job: &Value) -> Value {
    let mut last = Value::Null;
    wait_until("the job has ended", || {
        let answer = cluster.get(&format!("/backups/jobs/{}", job["id"]));
        assert_eq!(answer.status, 200, "{answer:?}");
        last = answer.body["job"].clone();
        last["state"] != "running"
    });
    last
}

fn api_pid(cluster: &Cluster) -> i32 {
    let output = cluster.run(&["local", "status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    status["pids"]["api"].as_i64().map_or(0, |pid| pid as i32)
}

/// The backup that the API is running, if it is.
fn backup_process(api: i32) -> Option<Pid> {
    let pids = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_it = |pid: &i32| {
        let read =
            |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let stat = read("stat");
        let mut fields = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        let child = fields
            .nth(1)
            .is_some_and(|parent| parent == api.to_string());
        let line = read("cmdline");
        child && line.starts_with("pgbackrest") && line.ends_with("\0backup\0")
    };
    let mut found = pids.filter(is_it);
    found.next().map(Pid::from_raw)
}

/// Stops the backup that runs, or the next one that does.
fn stop_backup(cluster: &Cluster) -> Pid {
    let (api, stopped) = (api_pid(cluster), Cell::new(None));
    wait_until("a backup was caught", || {
        if let Some(process) = backup_process(api) {
            let sent = kill(process, Signal::SIGSTOP);
            stopped.set(sent.is_ok().then_some(process));
        }
        stopped.get().is_some()
    });
    stopped.get().expect("it was caught")
}

fn has_alarm(cluster: &Cluster, words: &str) -> bool {
    let answer = cluster.get("/status");
    let alarms = answer.body["alarms"].as_array().expect("alarms");
    alarms
        .iter()
        .any(|alarm| alarm.as_str().is_some_and(|alarm| alarm.contains(words)))
}

#[test]
fn backups_are_made_by_themselves_and_when_somebody_asks() {
    let cluster = Cluster::start_with(&[("BACKUP_FULL_EVERY", "1d")]);
    let nodes = ["master1", "master2"];
    wait_until("both masters have a full backup", || {
        nodes.iter().all(|node| {
            of(&cluster, node)
                .iter()
                .any(|backup| backup["type"] == "full")
        })
    });
    let made = of(&cluster, "master1");
    assert_eq!(made.len(), 1, "one is enough: {made:?}");
    assert_eq!(made[0]["because"], "schedule");
    let status = cluster.get("/status").body["backups"].clone();
    for node in nodes {
        let seen = &status["masters"][node];
        assert_eq!(seen["backups"], 1, "{status}");
        assert_eq!(seen["newest_good"]["type"], "full", "{status}");
    }
    let metrics = ureq::get(format!("{}/metrics", cluster.api)).call();
    let metrics = metrics.expect("metrics").body_mut().read_to_string();
    let metrics = metrics.expect("text");
    for name in [
        "imdb_ha_backup_age_seconds{master=\"master2\"}",
        "imdb_ha_backups_bad{master=\"master1\"} 0",
    ] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }

    // Asked for, and followed to its end.
    let job = ask_in_turn(&cluster, "master2", "incr");
    let ended = outcome(&cluster, &job);
    assert_eq!(ended["state"], "done", "{ended}");
    assert_eq!(ended["backup"]["type"], "incr");
    assert_eq!(ended["backup"]["because"], "asked");
    wait_until("everyone sees it", || {
        newest(&cluster, "master2") == ended["label"]
    });

    // While one runs, no other begins, and the answer says which it is that runs.
    let job = ask_in_turn(&cluster, "master1", "diff");
    let stopped = stop_backup(&cluster);
    let busy = ask(&cluster, "master2", "full");
    assert_eq!((busy.status, busy.code()), (409, "backup_busy"));
    assert_eq!(busy.body["job"]["id"], job["id"]);
    assert_eq!(cluster.get("/status").body["backups"]["state"], "running");
    kill(stopped, Signal::SIGCONT).expect("let it go on");
    assert_eq!(outcome(&cluster, &job)["backup"]["type"], "diff");

    // One that fails is told to whoever asked, and is no failure of the schedule.
    let job = ask_in_turn(&cluster, "master1", "diff");
    kill(stop_backup(&cluster), Signal::SIGKILL).expect("kill the backup");
    let ended = outcome(&cluster, &job);
    assert_eq!(ended["state"], "failed", "{ended}");
    assert_eq!(ended["failure"]["class"], "interrupted", "{ended}");
    let status = cluster.get("/status").body["backups"].clone();
    assert_ne!(status["state"], "failing", "{status}");
    assert_eq!(status["last_failure"], Value::Null, "{status}");

    // Somebody else's backup is noticed too.
    let by_hand = Cell::new(Value::Null);
    wait_until("the command has its turn", || {
        let output = cluster.run(&["backup", "run", "master1", "--json"]);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        by_hand.set(told["backup"]["label"].clone());
        output.status.success()
    });
    let by_hand = by_hand.take();
    wait_until("the API has it", || newest(&cluster, "master1") == by_hand);
    a_bad_one_is_replaced(&cluster);
}

/// Writes with a backup what came of restoring it, as a trial restore would.
fn judge(cluster: &Cluster, label: &Value, ok: bool) {
    let folder = format!("{}/pgbackrest/master2", cluster.data);
    let owner = fs::metadata(&folder).expect("its configuration");
    let verified = json!({
        "ok": ok, "at": jiff::Timestamp::now().to_string(), "seconds": 1.0, "checked": [],
        "error": if ok { Value::Null } else { json!("it was damaged on purpose") },
    });
    wait_until("it is written", || {
        let mut command = clean_command_named("pgbackrest");
        command.args([
            format!("--config-path={folder}"),
            "--stanza=imdb-master2".to_string(),
            format!("--set={}", label.as_str().expect("a label")),
            format!("--annotation=imdb-ha-verified={verified}"),
            "annotate".to_string(),
        ]);
        let command = command.uid(owner.uid()).gid(owner.gid());
        command.output().expect("run pgbackrest").status.success()
    });
}

/// A bad backup is an alarm, another full one is made in its place, and until that is known to be good nothing expires for it.
fn a_bad_one_is_replaced(cluster: &Cluster) {
    let fulls = || -> Vec<Value> {
        let all = of(cluster, "master2").into_iter();
        let fulls = all.filter(|backup| backup["type"] == "full");
        fulls.map(|backup| backup["label"].clone()).collect()
    };
    let good = fulls()[0].clone();
    judge(cluster, &good, true);
    let job = ask_in_turn(cluster, "master2", "full");
    let bad = outcome(cluster, &job)["label"].clone();
    judge(cluster, &bad, false);
    wait_until(
        "the alarm names the bad one and the one to go back to",
        || {
            let text = |label: &Value| label.as_str().expect("a label").to_string();
            let point = format!("the restore point is {}, good", text(&good));
            has_alarm(cluster, &format!("backup {} is bad", text(&bad)))
                && has_alarm(cluster, &point)
        },
    );
    // Two full ones are kept, of which the newer is bad; with a third the good one would be gone.
    wait_until("another one is made by itself", || fulls().len() == 3);
    assert_eq!(fulls()[1..], [bad, good]);
    judge(cluster, &fulls()[0], true);
    let job = ask_in_turn(cluster, "master2", "full");
    assert_eq!(outcome(cluster, &job)["state"], "done");
    wait_until("the rest expires as ever", || fulls().len() == 2);
    wait_until("the alarm is over", || !has_alarm(cluster, "is bad"));
}

#[test]
fn what_cannot_be_done_is_refused_with_its_reason() {
    let cluster = Cluster::start();
    let shown = cluster.get("/backups");
    assert_eq!(
        (shown.status, shown.body["state"].as_str()),
        (200, Some("off"))
    );
    for (body, code, status) in [
        (
            r#"{"node": "master3", "type": "full"}"#,
            "backup_invalid",
            400,
        ),
        (
            r#"{"node": "master1", "type": "drill", "label": "x"}"#,
            "backup_not_found",
            404,
        ),
        (
            r#"{"node": "master1", "type": "drill"}"#,
            "backup_not_found",
            404,
        ),
        ("{", "body_invalid", 400),
    ] {
        let answer = cluster.post("/backups", body);
        assert_eq!((answer.status, answer.code()), (status, code), "{body}");
    }
    for id in ["77", "x", "-1", "99999999999999999999"] {
        let answer = cluster.get(&format!("/backups/jobs/{id}"));
        assert_eq!((answer.status, answer.code()), (404, "job_not_found"));
    }
    cluster.local(&["freeze", "master2"]);
    cluster.wait_state("master2", "down");
    let refused = ask(&cluster, "master2", "full");
    assert_eq!((refused.status, refused.code()), (409, "backup_node_down"));
    let reason = refused.body["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("master2 is down"), "{reason}");
    // The other one is none the worse for it.
    let job = ask_in_turn(&cluster, "master1", "incr");
    let ended = outcome(&cluster, &job);
    assert_eq!(
        ended["backup"]["type"], "full",
        "there was none yet: {ended}"
    );
    cluster.local(&["thaw", "master2"]);
    cluster.wait_state("master2", "up");
    let job = ask_in_turn(&cluster, "master2", "full");
    assert_eq!(outcome(&cluster, &job)["state"], "done");
}

#[test]
fn masters_and_processes_that_die_hold_nothing_up_for_long() {
    let schedule = [("BACKUP_FULL_EVERY", "1d"), ("BACKUP_INCR_EVERY", "10s")];
    let cluster = Cluster::start_with(&schedule);
    wait_until("both masters have a backup", || {
        ["master1", "master2"]
            .iter()
            .all(|node| !newest(&cluster, node).is_null())
    });

    // The process dies in the middle of a backup, which for a while even outlives it and keeps its lock.
    let stopped = stop_backup(&cluster);
    let before = ["master1", "master2"].map(|node| newest(&cluster, node));
    let api = api_pid(&cluster);
    kill(Pid::from_raw(api), Signal::SIGKILL).expect("kill the API");
    wait_until("another API serves", || {
        let served = cluster.try_ask("GET", "/health", None, &[]);
        ![0, api].contains(&api_pid(&cluster)) && served.is_ok_and(|answer| answer.status == 200)
    });
    kill(stopped, Signal::SIGCONT).expect("let it go on to its end");
    wait_until("both masters have newer backups", || {
        let now = ["master1", "master2"].map(|node| newest(&cluster, node));
        now[0] != before[0] && now[1] != before[1]
    });

    // A master dies: its backups wait for it, it becomes an alarm, and those of the other go on.
    cluster.local(&["kill", "master2"]);
    cluster.wait_state("master2", "down");
    let before = ["master1", "master2"].map(|node| newest(&cluster, node));
    wait_until("a backup of master2 is overdue", || {
        let shown = cluster.get("/backups").body;
        let agenda = shown["agenda"].as_array().expect("an agenda");
        agenda.iter().any(|due| {
            let held = due["held"].as_str().unwrap_or_default();
            due["node"] == "master2" && held.starts_with("master2 is down")
        })
    });
    wait_until("that is an alarm", || {
        has_alarm(&cluster, "master2: its newest usable backup")
    });
    wait_until("master1 has another", || {
        newest(&cluster, "master1") != before[0]
    });
    assert_eq!(newest(&cluster, "master2"), before[1]);
    cluster.local(&["start", "master2"]);
    wait_until("it is made now", || {
        newest(&cluster, "master2") != before[1]
    });
    wait_until("the alarm is over", || {
        !has_alarm(&cluster, "master2: its newest usable backup")
    });
}

/// An API of its own on a cluster's masters, under the role `servicio`, with backups that pgBackRest makes under it too.
struct Plain {
    process: std::process::Child,
    url: String,
    agent: ureq::Agent,
}

impl Plain {
    fn start(cluster: &Cluster) -> Plain {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("its address").port();
        drop(free);
        let url = |node: &str| {
            let url = cluster.url(node);
            let (_, rest) = url.split_once('@').expect("a login");
            format!("postgresql://servicio:secreto@{rest}")
        };
        let process = common::clean_command()
            .args(["serve", "--port", &port.to_string()])
            .env("MASTER1_URL", url("master1"))
            .env("MASTER2_URL", url("master2"))
            .env(
                "REDIS_URL",
                cluster.status["redis"].as_str().expect("redis"),
            )
            .env("BACKUP_CONFIG_DIR", format!("{}/pgbackrest", cluster.data))
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("start an API");
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(20)));
        Plain {
            process,
            url: format!("http://127.0.0.1:{port}"),
            agent: config.build().into(),
        }
    }

    fn get(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.url);
        let Ok(mut response) = self.agent.get(url).call() else {
            return Value::Null;
        };
        let text = response.body_mut().read_to_string().unwrap_or_default();
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    fn alarms(&self) -> String {
        self.get("/status")["alarms"].to_string()
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What sql/roles.sql gives is enough for zero-loss and for backups that are called good, and what is missing is said at once.
#[test]
fn a_role_that_is_no_superuser_serves_and_gets_good_backups() {
    let cluster = Cluster::start_flagged(&["--no-api"], &[]);
    for node in ["master1", "master2"] {
        let mut client = cluster.sql(node);
        let sql = "CREATE ROLE servicio LOGIN PASSWORD 'secreto'";
        client.batch_execute(sql).expect("make a role");
        let path = format!("{}/pgbackrest/{node}/pgbackrest.conf", cluster.data);
        let text = std::fs::read_to_string(&path).expect("the configuration");
        let text = text
            .replace("pg1-user=root", "pg1-user=servicio")
            .replace("pg1-database=postgres", "pg1-database=bases2-db");
        assert!(text.contains("pg1-user=servicio"), "{text}");
        std::fs::write(&path, text).expect("write it");
    }
    let api = Plain::start(&cluster);
    wait_until("what is missing is an alarm", || {
        let alarms = api.alarms();
        let words = [
            "master1: the role servicio lacks",
            "ALTER SYSTEM on synchronous_standby_names (for zero-loss)",
            "SET on deadlock_timeout",
            "GRANT imdb_ha_api, imdb_ha_backup TO servicio",
            "master2: the role servicio lacks",
        ];
        words.iter().all(|word| alarms.contains(word))
    });
    for node in ["master1", "master2"] {
        let sql = "GRANT imdb_ha_api, imdb_ha_backup TO servicio";
        cluster.sql(node).batch_execute(sql).expect("grant it");
    }
    drop(api);
    let api = Plain::start(&cluster);
    wait_until("zero-loss", || {
        api.get("/health")["durability"] == "zero-loss"
    });
    let posted = api
        .agent
        .post(format!("{}/generos", api.url))
        .header("Content-Type", "application/json")
        .send("{\"genero\": \"Telenovela\"}");
    assert_eq!(posted.expect("an answer").status().as_u16(), 201);
    for node in ["master1", "master2"] {
        let mut shown = Value::Null;
        let mut tries = 0;
        while shown["backups"].as_array().is_none_or(|all| {
            !all.iter()
                .any(|one| one["master"] == node && one["verdict"] == "good")
        }) {
            tries += 1;
            assert!(tries < 1_200, "no good backup of {node}: {shown}");
            std::thread::sleep(Duration::from_millis(100));
            shown = api.get("/backups");
        }
    }
    assert!(!api.alarms().contains("lacks"), "{}", api.alarms());

    // Of servers that nobody here can stop and start nothing is restored, which is said before anything else.
    let output = common::clean_command()
        .args(["backup", "restore", "master1", "--dry-run"])
        .env("MASTER1_URL", cluster.url("master1"))
        .env("MASTER2_URL", cluster.url("master2"))
        .env("BACKUP_CONFIG_DIR", format!("{}/pgbackrest", cluster.data))
        .env("IMDB_HA_DATA", format!("{}/nothing", cluster.data))
        .output()
        .expect("run imdb-ha");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("which it can where `imdb-ha local up`"),
        "{told}"
    );
}
