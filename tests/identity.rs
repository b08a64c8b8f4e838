//! Servers that are not the masters that they should be: another cluster's, each other's, an older copy. Real clusters, real binaries.

mod common;

use common::{BINARY, Cluster, clean_command, wait_until};
use serde_json::Value;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn port_of(cluster: &Cluster, node: &str) -> u16 {
    let url = cluster.url(node);
    let port = url
        .rsplit(':')
        .next()
        .and_then(|rest| rest.split('/').next());
    port.and_then(|port| port.parse().ok()).expect("a port")
}

/// Makes the next start of a master listen at another port.
fn move_port(cluster: &Cluster, node: &str, port: u16) {
    let path = std::path::Path::new(&cluster.data).join("state.json");
    let text = std::fs::read_to_string(&path).expect("state.json");
    let mut state: Value = serde_json::from_str(&text).expect("JSON");
    let index = if node == "master1" { 0 } else { 1 };
    state["ports"]["masters"][index] = port.into();
    std::fs::write(&path, state.to_string()).expect("write state.json");
}

/// Everything on a server that somebody who takes it for his own could have changed.
fn fingerprint(url: &str) -> Vec<String> {
    let sql = "SELECT 'setting ' || name || setting FROM pg_settings WHERE name = 'synchronous_standby_names' \
        UNION ALL SELECT 'sequence ' || last_value || is_called FROM generos_id_genero_seq \
        UNION ALL SELECT 'slot ' || slot_name || active || confirmed_flush_lsn FROM pg_replication_slots \
        UNION ALL SELECT 'sub ' || subname || subenabled || subsynccommit FROM pg_subscription \
        UNION ALL SELECT 'role ' || rolname || coalesce(rolpassword, '') FROM pg_authid WHERE rolname !~ '^pg_' \
        UNION ALL SELECT 'record ' || coalesce(obj_description('imdb_ha.este_nodo()'::regprocedure, 'pg_proc'), '') \
        UNION ALL SELECT 'row ' || g::text FROM generos AS g ORDER BY 1";
    let mut client = postgres::Client::connect(url, postgres::NoTls).expect("connect");
    let rows = client.query(sql, &[]).expect("ask");
    rows.iter().map(|row| row.get(0)).collect()
}

fn alarms(cluster: &Cluster) -> String {
    cluster.get("/status").body["alarms"].to_string()
}

fn state(cluster: &Cluster, node: &str) -> (String, String) {
    let status = cluster.get("/status").body;
    let text = |name: &str| {
        status["masters"][node][name]
            .as_str()
            .unwrap_or("")
            .to_string()
    };
    (text("state"), text("reason"))
}

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An API of its own over two addresses, without any Redis.
fn serve(urls: [&str; 2], more: &[(&str, &str)]) -> (Ends, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    drop(listener);
    let mut command: Command = clean_command();
    command.args(["serve", "--port", &port.to_string()]);
    command
        .env("MASTER1_URL", urls[0])
        .env("MASTER2_URL", urls[1]);
    command
        .env("REDIS_URL", "redis://127.0.0.1:1")
        .envs(more.iter().copied());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let child = command
        .spawn()
        .unwrap_or_else(|error| panic!("start {BINARY}: {error}"));
    (Ends(child), format!("http://127.0.0.1:{port}"))
}

/// Asks an API of its own until what it says is so.
fn wait_for(api: &str, path: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let agent = ureq::Agent::config_builder().http_status_as_error(false);
    let agent: ureq::Agent = agent
        .timeout_global(Some(Duration::from_secs(5)))
        .build()
        .into();
    let mut last = Value::Null;
    wait_until(what, || {
        let Ok(mut answer) = agent.get(format!("{api}{path}")).call() else {
            return false;
        };
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        last = serde_json::from_str(&text).unwrap_or(Value::Null);
        is_so(&last)
    });
    last
}

#[test]
fn a_server_of_another_cluster_at_a_masters_address_is_neither_used_nor_changed() {
    let (ours, other) = (Cluster::start(), Cluster::start());
    let id = |cluster: &Cluster| {
        cluster.get("/health").body["cluster"]
            .as_str()
            .expect("an id")
            .to_string()
    };
    assert_ne!(id(&ours), id(&other));
    assert_eq!(ours.add("propia").status, 201);
    other.add("ajena");
    other.wait_equal();
    ours.wait_equal();

    // The other cluster's master1 comes up where ours was. Its own peer is away, so its slot is there for whoever takes it.
    ours.local(&["stop", "master1"]);
    other.local(&["stop", "master1"]);
    other.local(&["stop", "master2"]);
    let (url, theirs) = (ours.url("master1"), port_of(&other, "master1"));
    move_port(&other, "master1", port_of(&ours, "master1"));
    other.local(&["start", "master1"]);
    let before = fingerprint(&url);
    assert!(
        before
            .iter()
            .any(|line| line.contains("slot slot_1_to_2false")),
        "{before:?}"
    );

    wait_until("it is known to be another server", || {
        state(&ours, "master1").1.contains("another server answers")
    });
    let (is, why) = state(&ours, "master1");
    assert!(is == "down" && why.contains(&id(&other)), "{is}: {why}");
    assert!(
        alarms(&ours).contains("master1: another server answers"),
        "{}",
        alarms(&ours)
    );
    wait_until("the alarm is logged", || {
        ours.said()
            .contains("ALARM: master1: another server answers")
    });
    // Whoever is asked to use it refuses, and so does every command.
    let switched = ours.ask("POST", "/switch-to-primary?force=true", None, &[]);
    assert_eq!(
        (switched.status, switched.code()),
        (409, "target_down"),
        "{switched:?}"
    );
    for command in [
        &["replication", "setup"][..],
        &["rejoin", "master1", "--yes"],
        &["compare"],
    ] {
        let refused = ours.run(command);
        let told = said(&refused);
        assert!(
            !refused.status.success() && told.contains("another server"),
            "{command:?}: {told}"
        );
    }
    for index in 0..20 {
        let answer = ours.add(&format!("sola {index}"));
        assert_eq!(
            (answer.status, answer.node()),
            (201, "master2"),
            "{answer:?}"
        );
        assert_eq!(ours.get("/health").body["durability"], "degraded");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(fingerprint(&url), before);

    // An API that knows nothing yet believes neither of two that contradict each other, unless it is told.
    let second = ours.url("master2");
    let (_one, api) = serve([&url, &second], &[]);
    let both = |status: &Value| {
        ["master1", "master2"].iter().all(|node| {
            status["masters"][node]["reason"]
                .to_string()
                .contains("CLUSTER_ID")
        })
    };
    let status = wait_for(
        &api,
        "/status",
        "it says that they contradict each other",
        both,
    );
    let of_strangers = |alarm: &&Value| alarm.to_string().contains("another server answers");
    let told = status["alarms"].as_array().expect("alarms");
    let told = told.iter().filter(of_strangers).count();
    assert_eq!(
        (&status["serving"], told),
        (&Value::Bool(false), 2),
        "{status}"
    );
    let (_two, api) = serve([&url, &second], &[("CLUSTER_ID", &id(&ours))]);
    wait_for(
        &api,
        "/health",
        "it serves from the one that is meant",
        |health| health["active_node"] == "master2",
    );
    assert_eq!(fingerprint(&url), before);

    // Our own comes back, and is taken for what it is.
    other.local(&["stop", "master1"]);
    move_port(&other, "master1", theirs);
    ours.local(&["start", "master1"]);
    ours.wait_state("master1", "up");
    assert_eq!(ours.wait_equal().len(), 28 + 1 + 20);
    wait_until("the alarm is over", || alarms(&ours) == "[]");
    wait_until("it is zero-loss again", || {
        ours.get("/health").body["durability"] == "zero-loss"
    });
}

#[test]
fn exchanged_addresses_and_two_names_of_one_server_are_said_to_be_just_that() {
    let cluster = Cluster::start_flagged(&["--no-api"], &[]);
    let (first, second) = (cluster.url("master1"), cluster.url("master2"));
    let other_name = first.replace("127.0.0.1", "localhost");
    let run = |urls: [&str; 2], arguments: &[&str]| {
        let mut command = clean_command();
        command
            .args(arguments)
            .env("MASTER1_URL", urls[0])
            .env("MASTER2_URL", urls[1]);
        said(&command.output().expect("run"))
    };
    let before = [fingerprint(&first), fingerprint(&second)];
    for command in [
        &["replication", "setup"][..],
        &["rejoin", "master2", "--yes"],
    ] {
        let told = run([&first, &other_name], command);
        assert!(told.contains("lead to the same server"), "{told}");
        let told = run([&second, &first], command);
        assert!(told.contains("are exchanged"), "{told}");
    }
    let reason = |node: &'static str, words: &'static str| {
        move |status: &Value| {
            status["masters"][node]["reason"]
                .to_string()
                .contains(words)
        }
    };
    let (_one, api) = serve([&first, &other_name], &[]);
    wait_for(
        &api,
        "/status",
        "it says that they are one",
        reason("master2", "lead to the same server"),
    );
    wait_for(&api, "/health", "it serves from that one", |health| {
        health["active_node"] == "master1" && health["ok"] == true
    });
    let (_two, api) = serve([&second, &first], &[]);
    wait_for(
        &api,
        "/status",
        "it says that they are exchanged",
        reason("master1", "are exchanged"),
    );
    wait_for(
        &api,
        "/status",
        "it says that they are exchanged",
        reason("master2", "are exchanged"),
    );
    wait_for(&api, "/health", "nobody serves", |health| {
        health["ok"] == false
    });
    drop((_one, _two));
    let stays = |fingerprint: Vec<String>| -> Vec<String> {
        let moves = |line: &String| {
            !line.starts_with("slot ")
                && !line.starts_with("setting ")
                && !line.starts_with("sequence ")
        };
        fingerprint.into_iter().filter(moves).collect()
    };
    assert_eq!(
        [stays(fingerprint(&first)), stays(fingerprint(&second))],
        before.map(stays)
    );
}

/// Copies a data folder as somebody does by hand, with owners and modes.
fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.expect("run cp").success());
}

#[test]
fn a_master_put_back_from_an_older_copy_does_not_serve_until_it_is_rebuilt() {
    let cluster = Cluster::start();
    let data = std::path::PathBuf::from(&cluster.data);
    let (folder, copy) = (data.join("master1"), data.join("copy"));
    cluster.add("antes");
    cluster.wait_equal();
    cluster.local(&["stop", "master1"]);
    copy_folder(&folder, &copy);
    cluster.local(&["start", "master1"]);
    // As it was, it is no older copy of itself.
    cluster.wait_state("master1", "up");
    let home = || cluster.ask("POST", "/switch-to-primary", None, &[]);
    wait_until("it has the traffic", || home().status == 200);
    let ids: Vec<i64> = (0..3)
        .map(|index| cluster.add(&format!("fila {index}")).id())
        .collect();
    cluster.wait_equal();
    cluster.local(&["kill", "master1"]);
    wait_until("master2 serves", || {
        cluster.get("/active-node").body["active_node"] == "master2"
    });
    // It applies all of this at once when it comes back, so that its WAL is soon longer than it was.
    for index in 0..60 {
        assert_eq!(
            cluster.add(&format!("{index} {}", "x".repeat(100))).status,
            201
        );
    }
    std::fs::remove_dir_all(&folder).expect("remove the folder");
    copy_folder(&copy, &folder);
    cluster.local(&["start", "master1"]);

    wait_until("it is known to be older", || {
        state(&cluster, "master1")
            .1
            .contains("an older copy of itself")
    });
    assert!(
        alarms(&cluster).contains("an older copy of master1 answers"),
        "{}",
        alarms(&cluster)
    );
    // Nothing but that is known to an API that has just started.
    let (_other, api) = serve([&cluster.url("master1"), &cluster.url("master2")], &[]);
    wait_for(&api, "/status", "another API knows it too", |status| {
        status["masters"]["master1"]["reason"]
            .to_string()
            .contains("an older copy of itself")
    });
    for _ in 0..20 {
        assert_eq!(state(&cluster, "master1").0, "catching-up");
        assert_eq!(cluster.get("/health").body["durability"], "degraded");
        std::thread::sleep(Duration::from_millis(100));
    }
    let refused = home();
    assert_eq!(
        (refused.status, refused.code()),
        (409, "target_behind"),
        "{refused:?}"
    );
    assert!(
        refused.body["reason"]
            .to_string()
            .contains("rejoin master1"),
        "{refused:?}"
    );

    let rejoined = cluster.run(&["rejoin", "master1"]);
    let told = said(&rejoined);
    assert!(
        rejoined.status.success() && told.contains("an older copy of itself"),
        "{told}"
    );
    cluster.wait_state("master1", "up");
    wait_until("it has the traffic again", || home().status == 200);
    let more: Vec<i64> = (0..3)
        .map(|index| cluster.add(&format!("otra {index}")).id())
        .collect();
    assert!(
        more.iter().all(|id| !ids.contains(id)),
        "{ids:?} and then {more:?}"
    );
    assert_eq!(cluster.wait_equal().len(), 28 + 1 + 3 + 60 + 3);
    wait_until("the alarm is over", || alarms(&cluster) == "[]");
    wait_until("it is zero-loss again", || {
        cluster.get("/health").body["durability"] == "zero-loss"
    });
}
