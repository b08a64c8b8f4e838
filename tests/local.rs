//! The local cluster as a person uses it: up, down, again, ports that are taken, signals.

mod common;

use common::{BINARY, Cluster, IN_THE_END, clean_command, clean_command_named, wait_until};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

/// A folder for a cluster that is not ephemeral; whatever runs in it is ended with the test.
struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Home {
        let root = std::env::temp_dir().join(format!("imdb-ha-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&root).expect("a folder");
        Home(root)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = clean_command();
        command.args(arguments).env("IMDB_HA_DATA", &self.0);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("run imdb-ha")
    }

    fn status(&self) -> Value {
        let output = self.run(&["local", "status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.run(&["local", "down"]);
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn get(url: &str) -> Value {
    let text = ureq::get(url)
        .call()
        .expect("an answer")
        .body_mut()
        .read_to_string()
        .expect("text");
    serde_json::from_str(&text).expect("JSON")
}

fn port_of(status: &Value, node: &str) -> u16 {
    let url = status["masters"][node]["url"].as_str().expect("a URL");
    let (_, port) = url.rsplit_once(':').expect("a port");
    port.split('/')
        .next()
        .and_then(|port| port.parse().ok())
        .expect("a number")
}

fn lives(pid: &Value) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    !stat.contains(") Z ")
}

#[test]
fn up_down_and_up_again_keep_the_data_and_leave_no_process() {
    let home = Home::new("again");
    // The API's port is taken, so it says that it uses another.
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let free = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let asked = free.local_addr().expect("its address").port();
    let master1 = ["--master1-port", &asked.to_string()].map(str::to_string);
    let up = [
        &["local", "up", "--detach", "--port", &port][..],
        &[&master1[0], &master1[1]],
    ]
    .concat();
    let refused = home.run(&up);
    assert!(
        !refused.status.success()
            && said(&refused).contains(&format!("port {asked} of master1 is taken")),
        "{}",
        said(&refused)
    );
    drop(free);
    // It has masters of its own, and says that it does not use those that are named here.
    let elsewhere = "postgresql://root:hunter2@db1.example/imdb";
    let up = home
        .command(&up)
        .env("MASTER1_URL", elsewhere)
        .output()
        .expect("run imdb-ha");
    assert!(up.status.success(), "{}", said(&up));
    for line in [
        format!("port {port} is taken, so the API uses "),
        format!("master1: up on port {asked}"),
        "not used here: MASTER1_URL. ".to_string(),
    ] {
        assert!(said(&up).contains(&line), "{line}: {}", said(&up));
    }
    assert!(!said(&up).contains("hunter2"));
    // Each line that it gives to try is run as it stands, and answers.
    let text = said(&up);
    let to_try: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("  curl "))
        .collect();
    assert_eq!(to_try.len(), 7, "seven lines to try: {text}");
    for line in to_try {
        let answer = Command::new("sh")
            .args([
                "-c",
                &format!("curl -sS --max-time 10 -w '\\n%{{http_code}}' {line}"),
            ])
            .output()
            .expect("curl");
        let answer = said(&answer);
        let code = answer.trim_end().rsplit('\n').next().unwrap_or_default();
        assert!(code == "200" || code == "201", "curl {line}: {answer}");
    }

    let status = home.status();
    let api = status["api"].as_str().expect("a URL").to_string();
    let body = r#"{"genero": "duradero"}"#;
    let made = ureq::post(format!("{api}/generos"))
        .content_type("application/json")
        .send(body);
    assert_eq!(made.expect("an answer").status(), 201);
    for node in ["master1", "master2"] {
        let of_node = &status["masters"][node];
        assert_eq!(of_node["state"], "up");
        assert!(
            of_node["url"]
                .as_str()
                .is_some_and(|url| url.starts_with("postgresql://"))
        );
        assert!(
            of_node["data"]
                .as_str()
                .is_some_and(|data| data.ends_with(node))
                && lives(&of_node["pid"])
        );
    }
    // A second one in the same folder is refused in the foreground, and shown when detached.
    let twice = home.run(&["local", "up"]);
    assert!(
        !twice.status.success() && said(&twice).contains("running"),
        "{}",
        said(&twice)
    );
    assert!(said(&home.run(&["local", "up", "--detach"])).contains("running already"));
    let others = home.run(&[
        "local",
        "up",
        "--detach",
        "--master2-port",
        &asked.to_string(),
    ]);
    assert!(
        !others.status.success() && said(&others).contains("on other ports"),
        "{}",
        said(&others)
    );

    let began = Instant::now();
    let down = home.run(&["local", "down"]);
    assert!(
        down.status.success() && began.elapsed() < IN_THE_END,
        "{}",
        said(&down)
    );
    for pid in [
        &status["pids"]["up"],
        &status["pids"]["api"],
        &status["pids"]["redis"],
        &status["masters"]["master1"]["pid"],
    ] {
        assert!(!lives(pid), "{pid} is still there");
    }
    let none = home.run(&["local", "status"]);
    assert_eq!(
        (
            none.status.code(),
            said(&none).contains("no local cluster is running")
        ),
        (Some(1), true)
    );

    // Somebody has taken one of its ports meanwhile: it does not move by itself.
    let before = status["cluster"].as_str().expect("an id").to_string();
    let of_master2 = port_of(&status, "master2");
    let other = TcpListener::bind(("127.0.0.1", of_master2)).expect("its port");
    let refused = home.run(&["local", "up", "--detach", "--port", &port]);
    let why = said(&refused);
    assert!(
        !refused.status.success()
            && why.contains(&format!("port {of_master2} of master2 is taken"))
            && why.contains("--move-ports"),
        "{why}"
    );
    let moved = home.run(&["local", "up", "--detach", "--move-ports", "--port", &port]);
    let text = said(&moved);
    assert!(
        text.contains(&format!("port {of_master2} is taken, so master2 uses "))
            && text.contains(&before),
        "{text}"
    );
    assert_ne!(port_of(&home.status(), "master2"), of_master2);
    // The port that was asked for once is kept like the others.
    assert_eq!(port_of(&home.status(), "master1"), asked);
    assert!(home.run(&["local", "down"]).status.success());
    drop(other);

    let up = home.run(&[
        "local",
        "up",
        "--detach",
        "--json",
        "--move-ports",
        "--port",
        &port,
    ]);
    let line = String::from_utf8_lossy(&up.stdout).into_owned();
    let status: Value = serde_json::from_str(&line).expect("JSON on standard output");
    let found = get(&format!(
        "{}/generos?genero=duradero",
        status["api"].as_str().expect("a URL")
    ));
    assert_eq!(found["data"][0]["genero"], "duradero");
    let api = status["api"].as_str().expect("a URL");
    assert_eq!(get(&format!("{api}/health"))["cluster"], before.as_str());
}

#[test]
fn a_signal_stops_everything_even_with_a_frozen_and_a_killed_master() {
    for signal in ["INT", "TERM"] {
        let home = Home::new(&format!("signal-{signal}"));
        let mut up = home
            .command(&["local", "up", "--port", "5080"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start");
        wait_until("it is ready", || {
            let output = home.run(&["local", "status", "--json"]);
            serde_json::from_slice::<Value>(&output.stdout)
                .is_ok_and(|status| status["ready"] == true)
        });
        let status = home.status();
        assert!(home.run(&["local", "freeze", "master1"]).status.success());
        assert!(home.run(&["local", "kill", "master2"]).status.success());
        assert!(
            !home.run(&["local", "kill", "master2"]).status.success(),
            "it is dead already"
        );
        let began = Instant::now();
        let sent = Command::new("kill")
            .args(["-s", signal, &up.id().to_string()])
            .status();
        assert!(sent.expect("kill").success());
        assert!(up.wait().expect("its end").success());
        assert!(began.elapsed() < IN_THE_END, "{:?}", began.elapsed());
        for pid in [
            &status["pids"]["api"],
            &status["pids"]["redis"],
            &status["masters"]["master1"]["pid"],
        ] {
            assert!(!lives(pid), "{pid} is still there");
        }
    }
}

#[test]
fn an_up_that_was_killed_is_cleaned_up_by_down_or_by_the_next_up() {
    let home = Home::new("killed");
    for next in ["down", "up"] {
        assert!(
            home.run(&["local", "up", "--detach", "--port", "5090"])
                .status
                .success()
        );
        let status = home.status();
        let up = status["pids"]["up"].to_string();
        assert!(
            Command::new("kill")
                .args(["-9", &up])
                .status()
                .expect("kill")
                .success()
        );
        wait_until("it is gone", || !lives(&status["pids"]["up"]));
        let output = match next {
            "down" => home.run(&["local", "down"]),
            _ => home.run(&["local", "up", "--detach", "--port", "5090"]),
        };
        assert!(output.status.success(), "{}", said(&output));
        for pid in [
            &status["pids"]["api"],
            &status["pids"]["redis"],
            &status["masters"]["master2"]["pid"],
        ] {
            assert!(!lives(pid), "{pid} is still there");
        }
    }
}

#[test]
fn an_ephemeral_cluster_leaves_nothing_behind() {
    let mut cluster = Cluster::start();
    let (data, pids) = (cluster.data.clone(), cluster.status.clone());
    cluster.local(&["kill", "master1"]);
    cluster.stop();
    assert!(!std::path::Path::new(&data).exists());
    for pid in [
        &pids["pids"]["api"],
        &pids["pids"]["redis"],
        &pids["masters"]["master2"]["pid"],
    ] {
        assert!(!lives(pid), "{pid} is still there");
    }
}

/// For an API that somebody else runs: everything but the API is there, joined, and can be seen.
#[test]
fn a_cluster_without_an_api_has_joined_masters_and_redis() {
    let cluster = Cluster::start_flagged(&["--no-api"], &[]);
    let status = &cluster.status;
    assert!(status["api"].is_null() && status["pids"]["api"].is_null());
    assert_eq!(status["ready"], true);
    assert!(lives(&status["pids"]["redis"]));
    let streaming = cluster.run(&["replication", "status"]);
    assert!(streaming.status.success(), "{}", said(&streaming));
    let shown = cluster.run(&["local", "status"]);
    assert!(
        said(&shown).contains("not started here"),
        "{}",
        said(&shown)
    );
}

/// Whoever started it may be gone altogether, with nobody left to read what it says.
#[test]
fn an_ephemeral_cluster_ends_with_its_parent() {
    let mut up = clean_command()
        .args(["local", "up", "--ephemeral", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start");
    let mut line = String::new();
    let mut stdout = BufReader::new(up.stdout.take().expect("piped"));
    stdout.read_line(&mut line).expect("its state");
    let status: Value = serde_json::from_str(&line).expect("JSON");
    let data = status["data"].as_str().expect("a folder").to_string();

    // A master started from a shell with an open file must not keep that file open.
    let keep = format!("{data}/open-file");
    let script =
        format!("exec 9>{keep}; {BINARY} local kill master1 && {BINARY} local start master1");
    let mut shell = clean_command_named("bash");
    let output = shell
        .args(["-c", &script])
        .env("IMDB_HA_DATA", &data)
        .output()
        .expect("run bash");
    assert!(output.status.success(), "{}", said(&output));
    let pid = std::fs::read_to_string(format!("{data}/master1/postmaster.pid")).expect("its id");
    let files = std::fs::read_dir(format!("/proc/{}/fd", pid.lines().next().expect("a line")))
        .expect("its files");
    let held = files
        .flatten()
        .filter_map(|file| std::fs::read_link(file.path()).ok());
    assert!(
        held.into_iter()
            .all(|path| path != std::path::Path::new(&keep)),
        "the file is held open"
    );

    // Its three pipes close at once, as they do when a parent dies.
    drop((up.stdin.take(), stdout, up.stderr.take()));
    wait_until("nothing is left", || !std::path::Path::new(&data).exists());
    up.wait().expect("its end");
    for pid in [
        &status["pids"]["api"],
        &status["pids"]["redis"],
        &status["masters"]["master2"]["pid"],
    ] {
        assert!(!lives(pid), "{pid} is still there");
    }
}

#[test]
fn commands_that_make_no_sense_say_why() {
    let cluster = Cluster::start();
    let fails = |arguments: &[&str], why: &str| {
        let output = cluster.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(
            said(&output).contains(why),
            "{arguments:?}: {}",
            said(&output)
        );
    };
    fails(&["local", "thaw", "master1"], "master1 is up");
    fails(&["local", "start", "master1"], "master1 is running already");
    cluster.local(&["freeze", "master1"]);
    fails(&["local", "start", "master1"], "frozen (thaw it) already");
    fails(&["local", "freeze", "master1"], "master1 is frozen");
    // A frozen master can be stopped in order, and started again.
    let stopped = cluster.run(&["local", "stop", "master1", "--json"]);
    assert_eq!(
        said(&stopped).trim(),
        r#"{"ok":true,"node":"master1","state":"down"}"#
    );
    fails(&["local", "kill", "master1"], "master1 is down");
    cluster.local(&["start", "master1"]);
    cluster.wait_state("master1", "up");

    let output = clean_command()
        .args(["local", "kill", "master3"])
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(2));
    let completions = clean_command()
        .args(["completions", "bash"])
        .output()
        .expect("run");
    assert!(completions.status.success() && said(&completions).contains("--silence-deadline-ms"));
}

/// Docker gives root no right to trace processes, and so no look at the working folders of others.
#[test]
fn root_that_may_not_trace_finds_the_masters_and_stops_them() {
    let id = Command::new("id").arg("-u").output().expect("run id");
    if id.stdout != b"0\n" {
        return; // Who runs the masters as himself needs no such right.
    }
    let untraced = |arguments: &[&str]| {
        let mut command = clean_command_named("setpriv");
        command
            .args(["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"])
            .arg(BINARY)
            .args(arguments);
        command
    };
    let mut up = untraced(&["local", "up", "--ephemeral", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start");
    let mut line = String::new();
    let mut stdout = BufReader::new(up.stdout.take().expect("piped"));
    stdout.read_line(&mut line).expect("its state");
    let status: Value = serde_json::from_str(&line).expect("JSON");
    let data = status["data"].as_str().expect("a folder").to_string();
    let masters = ["master1", "master2"].map(|node| status["masters"][node].clone());
    assert!(
        masters
            .iter()
            .all(|master| master["state"] == "up" && lives(&master["pid"])),
        "{line}"
    );
    let killed = untraced(&["local", "kill", "master2"])
        .env("IMDB_HA_DATA", &data)
        .output()
        .expect("run setpriv");
    assert!(killed.status.success(), "{}", said(&killed));
    assert!(!lives(&masters[1]["pid"]));
    drop(up.stdin.take());
    assert!(up.wait().expect("its end").success());
    assert!(!lives(&masters[0]["pid"]) && !std::path::Path::new(&data).exists());
}

#[test]
fn a_server_that_may_be_the_one_of_the_folder_keeps_its_lock_file() {
    let cluster = Cluster::start();
    cluster.local(&["kill", "master1"]);
    // A process that is called postgres and does not say which folder it serves; it waits for a line.
    let program = format!("{}/postgres", cluster.data);
    std::os::unix::fs::symlink("/bin/sh", &program).expect("a link");
    let mut other = Command::new(&program)
        .args(["-c", "read line"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("start it");
    let lock = format!("{}/master1/postmaster.pid", cluster.data);
    std::fs::write(&lock, format!("{}\n", other.id())).expect("write the lock file");
    wait_until("it runs under its name", || {
        cluster.server_state("master1") == "unknown"
    });
    for action in ["start", "kill", "stop"] {
        let output = cluster.run(&["local", action, "master1"]);
        assert!(
            !output.status.success()
                && said(&output).contains("does not show which folder it serves"),
            "{action}: {}",
            said(&output)
        );
    }
    assert!(std::path::Path::new(&lock).exists());
    other.kill().expect("end it");
    other.wait().expect("its end");
    cluster.local(&["start", "master1"]);
}

/// pg_ctl waits up to a minute for a server that recovers from a crash.
#[test]
fn a_signal_stops_a_start_that_waits_for_a_master() {
    let home = Home::new("slow");
    let ready = home.run(&["local", "up", "--detach", "--port", "5070"]);
    assert!(ready.status.success(), "{}", said(&ready));
    let server = home.status()["masters"]["master1"]["pid"].to_string();
    let program = std::fs::read(format!("/proc/{server}/cmdline")).expect("its command line");
    let program = String::from_utf8_lossy(&program);
    let program = program.split('\0').next().expect("a program");
    let programs = std::path::Path::new(program).parent().expect("a folder");
    assert!(home.run(&["local", "down"]).status.success());

    // These programs start the server and go on waiting.
    let slow = home.0.join("programs");
    std::fs::create_dir(&slow).expect("a folder");
    let script = format!(
        "#!/bin/sh\n{}/pg_ctl \"$@\"\nexec sleep 50\n",
        programs.display()
    );
    std::fs::write(slow.join("pg_ctl"), script).expect("a script");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(slow.join("pg_ctl"), mode).expect("make it a program");
    let mut up = home
        .command(&["local", "up", "--port", "5070"])
        .env("PG_BIN", &slow)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start");
    let state_of = |status: &Value, node: &str| status["masters"][node]["state"] == "up";
    wait_until("both masters are up", || {
        let output = home.run(&["local", "status", "--json"]);
        serde_json::from_slice::<Value>(&output.stdout)
            .is_ok_and(|status| state_of(&status, "master1") && state_of(&status, "master2"))
    });
    let status = home.status();
    let began = Instant::now();
    let sent = Command::new("kill").arg(up.id().to_string()).status();
    assert!(sent.expect("kill").success());
    assert!(up.wait().expect("its end").success());
    assert!(began.elapsed() < IN_THE_END, "{:?}", began.elapsed());
    for node in ["master1", "master2"] {
        assert!(!lives(&status["masters"][node]["pid"]), "{node} lives");
    }
}

#[test]
fn every_action_tells_its_outcome_as_json() {
    let home = Home::new("json");
    let json = |arguments: &[&str]| -> Value {
        let output = home.run(&[&["local"], arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{arguments:?}: {}", said(&output)))
    };
    let up = home.run(&["local", "up", "--detach", "--port", "5060"]);
    assert!(up.status.success(), "{}", said(&up));
    for (action, state) in [
        ("freeze", "frozen"),
        ("thaw", "up"),
        ("kill", "down"),
        ("start", "up"),
        ("stop", "down"),
    ] {
        assert_eq!(
            json(&[action, "master1"]),
            serde_json::json!({"ok": true, "node": "master1", "state": state})
        );
    }
    let down = json(&["down"]);
    assert_eq!(down["ok"], true);
    assert!(
        down["seconds"]
            .as_f64()
            .is_some_and(|seconds| seconds < 10.0)
    );
    assert_eq!(down["data"], home.0.display().to_string());
}
