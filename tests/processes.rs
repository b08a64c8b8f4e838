//! Several API processes on one pair: one decides, the others follow, and losing it or Redis stops
//! nobody's requests.

mod common;

use common::{Cluster, IN_THE_END, clean_command, wait_until};
use serde_json::{Value, json};
use std::io::Read;
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// One more API beside that of the cluster.
struct Api {
    process: Child,
    url: String,
    agent: ureq::Agent,
}

impl Api {
    fn start(cluster: &Cluster) -> Api {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("a free port")
            .port();
        let mut command = clean_command();
        command
            .args(["serve", "--port", &port.to_string()])
            .env("MASTER1_URL", cluster.url("master1"))
            .env("MASTER2_URL", cluster.url("master2"))
            .env(
                "REDIS_URL",
                cluster.status["redis"].as_str().expect("redis"),
            )
            .stderr(Stdio::null());
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(20)));
        let api = Api {
            process: command.spawn().expect("start an API"),
            url: format!("http://127.0.0.1:{port}"),
            agent: config.build().into(),
        };
        wait_until("the other API serves", || api.get("/health").0 == 200);
        api
    }

    fn get(&self, path: &str) -> (u16, Value) {
        self.answer(self.agent.get(format!("{}{path}", self.url)).call())
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self.agent.post(format!("{}{path}", self.url));
        let request = request.header("Content-Type", "application/json");
        self.answer(request.send(body.to_string()))
    }

    fn answer(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> (u16, Value) {
        let Ok(mut answer) = answer else {
            return (0, Value::Null);
        };
        let mut text = String::new();
        let _ = answer.body_mut().as_reader().read_to_string(&mut text);
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        (answer.status().as_u16(), body)
    }

    /// Ends it in order, and returns how long that took.
    fn end(&mut self) -> Duration {
        let began = Instant::now();
        signal("TERM", &json!(self.process.id()));
        let status = self.process.wait().expect("wait for it");
        assert!(status.success(), "{status}");
        began.elapsed()
    }

    fn role(&self) -> String {
        let name = self.get("/status").1["role"]["name"].clone();
        name.as_str().unwrap_or("").to_string()
    }

    fn active(&self) -> String {
        let node = self.get("/active-node").1["active_node"].clone();
        node.as_str().unwrap_or("").to_string()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

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

#[test]
fn one_process_decides_and_the_others_follow() {
    let cluster = Cluster::start();
    let other = Api::start(&cluster);
    wait_until("it follows", || other.role() == "follower");
    assert_eq!(cluster.get("/status").body["role"]["name"], "leader");
    let leader = other.get("/status").1["role"]["leader"].clone();
    assert_eq!(leader, Value::from(cluster.api.clone()));

    // A command goes to the one that decides; the others say where that is, and do nothing.
    let (status, body) = other.post("/switch-to-secondary", &Value::Null);
    assert_eq!((status, &body["code"]), (409, &Value::from("not_leader")));
    assert!(
        body["reason"]
            .as_str()
            .is_some_and(|why| why.contains(&cluster.api)),
        "{body}"
    );
    assert_eq!(cluster.get("/active-node").body["active_node"], "master1");

    let switched = cluster.post("/switch-to-secondary", "");
    assert_eq!(switched.status, 200, "{switched:?}");
    let began = Instant::now();
    wait_until("the other one follows", || other.active() == "master2");
    println!("followed after {} ms", began.elapsed().as_millis());
    let (status, body) = other.post("/generos", &json!({"genero": "por el otro"}));
    assert_eq!((status, &body["node_used"]), (201, &Value::from("master2")));

    // A pause of the one that decides holds the others as well.
    assert_eq!(cluster.post("/pause?for=10m", "").status, 200);
    wait_until("the pause is known", || {
        other.get("/status").1["paused_until"].is_string()
    });
    assert_eq!(cluster.post("/resume", "").status, 200);
    wait_until("the end of it too", || {
        other.get("/status").1["paused_until"].is_null()
    });
    // A failover is everybody's.
    cluster.local(&["kill", "master2"]);
    let (status, body) = other.post("/generos", &json!({"genero": "tras la caída"}));
    assert_eq!(
        (status, &body["node_used"]),
        (201, &Value::from("master1")),
        "{body}"
    );
    wait_until("both serve from master1", || {
        other.active() == "master1" && cluster.get("/active-node").body["active_node"] == "master1"
    });
}

#[test]
fn losing_the_process_that_decides_or_redis_stops_nobody() {
    let cluster = Cluster::start();
    let mut other = Api::start(&cluster);
    wait_until("it follows", || other.role() == "follower");
    wait_until("the traffic moves", || {
        cluster.post("/switch-to-secondary", "").status == 200
    });
    wait_until("the other one follows", || other.active() == "master2");

    // The one that decides stands still: the other takes over from where it was.
    let status = cluster.run(&["local", "status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    signal("STOP", &status["pids"]["api"]);
    let (code, body) = other.post("/generos", &json!({"genero": "huérfano"}));
    assert_eq!(code, 201, "{body}");
    wait_until("the other one decides", || other.role() == "leader");
    assert_eq!(other.active(), "master2");
    let (code, _) = other.post("/switch-to-primary", &Value::Null);
    assert_eq!(code, 200);
    signal("CONT", &status["pids"]["api"]);
    wait_until("the first one follows now", || {
        let body = cluster.get("/status").body;
        body["role"]["name"] == "follower" && body["active_node"] == "master1"
    });

    // Without Redis both go on, and both fail over by themselves.
    signal("KILL", &status["pids"]["redis"]);
    wait_until("redis is gone", || {
        cluster.get("/status").body["role"]["name"] == "orphan"
    });
    assert_eq!(other.role(), "leader");
    cluster.local(&["kill", "master1"]);
    let (code, body) = other.post("/generos", &json!({"genero": "sin redis"}));
    assert_eq!((code, &body["node_used"]), (201, &Value::from("master2")));
    let answer = cluster.add("sin redis tampoco");
    assert_eq!((answer.status, answer.node()), (201, "master2"));
    other.process.kill().expect("kill");
    // The orphan frees what waits in vain, although it does not decide.
    assert_eq!(cluster.add("solo").status, 201);
}

/// Whatever else gets into the key, it is nobody's lease: else all would decide, or none, until a person
/// deleted it.
#[test]
fn a_key_that_holds_no_lease_is_free() {
    let cluster = Cluster::start();
    let other = Api::start(&cluster);
    wait_until("it follows", || other.role() == "follower");
    let mut redis = connect_to_redis(&cluster);
    let gone = r#"{"holder":"gone","address":"http://x","active":"master2","serving":true}"#;
    let values = [
        vec!["SET", "imdb-ha:lease", "basura"],
        vec!["SET", "imdb-ha:lease", "[1]"],
        vec!["SET", "imdb-ha:lease", "7"],
        vec!["SET", "imdb-ha:lease", r#"{"holder":null}"#],
        vec!["RPUSH", "imdb-ha:lease", "x"],
        vec!["SET", "imdb-ha:lease", gone],
    ];
    for value in values {
        redis::cmd("DEL")
            .arg("imdb-ha:lease")
            .exec(&mut redis)
            .expect("delete");
        let mut command = redis::cmd(value[0]);
        command.arg(&value[1..]).exec(&mut redis).expect("write");
        std::thread::sleep(Duration::from_millis(700));
        let roles = [
            cluster.get("/status").body["role"]["name"].clone(),
            json!(other.role()),
        ];
        assert!(
            roles.contains(&json!("leader")) && roles.contains(&json!("follower")),
            "{value:?}: {roles:?}"
        );
    }
    assert_eq!(cluster.get("/active-node").body["active_node"], "master1");
}

/// Who followed does not decide as soon as Redis is back: what was decided meanwhile would be undone.
#[test]
fn who_decided_without_redis_goes_on_deciding_with_it() {
    let cluster = Cluster::start();
    let redis = &cluster.status["pids"]["redis"];
    let other = Api::start(&cluster);
    let last = Api::start(&cluster);
    wait_until("they follow", || {
        other.role() == "follower" && last.role() == "follower"
    });
    // Redis answers the connection first that is the oldest, so the youngest is to decide.
    let pids = [
        cluster.status["pids"]["api"].clone(),
        json!(other.process.id()),
    ];
    pids.iter().for_each(|pid| signal("STOP", pid));
    wait_until("the last one decides", || last.role() == "leader");
    pids.iter().for_each(|pid| signal("CONT", pid));
    wait_until("the others follow", || {
        other.role() == "follower" && cluster.get("/status").body["role"]["name"] == "follower"
    });
    for (path, node) in [
        ("/switch-to-secondary", "master2"),
        ("/switch-to-primary", "master1"),
    ] {
        signal("STOP", redis);
        wait_until("the others are orphans", || {
            other.role() == "orphan" && cluster.get("/status").body["role"]["name"] == "orphan"
        });
        let (status, body) = last.post(path, &Value::Null);
        assert_eq!(status, 200, "{body}");
        signal("CONT", redis);
        wait_until("the other follows again", || other.role() == "follower");
        wait_until("it serves from there", || other.active() == node);
        assert_eq!(
            (last.role().as_str(), last.active().as_str()),
            ("leader", node)
        );
    }
}

/// A lease that outlived its holder would have a restart follow its own dead predecessor.
#[test]
fn an_orderly_stop_gives_the_lease_back() {
    let cluster = Cluster::start_flagged(&["--no-api"], &[]);
    let mut redis = connect_to_redis(&cluster);
    let mut lease = || -> Option<String> {
        let held = redis::cmd("GET").arg("imdb-ha:lease").query(&mut redis);
        held.expect("redis")
    };
    let mut first = Api::start(&cluster);
    wait_until("it decides", || first.role() == "leader");
    wait_until("it has the lease", || lease().is_some());
    let mut second = Api::start(&cluster);
    wait_until("the other follows", || second.role() == "follower");

    // A follower has nothing to give back.
    let before = lease();
    assert!(second.end() < Duration::from_secs(1));
    let holder = |record: Option<String>| -> Value {
        let record: Value = serde_json::from_str(&record.expect("a lease")).expect("JSON");
        record["holder"].clone()
    };
    assert_eq!(holder(lease()), holder(before));

    first.end();
    assert_eq!(lease(), None, "the lease outlived its holder");
    let mut again = Api::start(&cluster);
    let role = again.get("/status").1["role"]["name"].clone();
    assert_eq!(role, "leader", "it follows the process that it replaces");

    // A Redis that says nothing holds nobody up.
    signal("STOP", &cluster.status["pids"]["redis"]);
    assert!(again.end() < IN_THE_END);
    signal("CONT", &cluster.status["pids"]["redis"]);
}

#[test]
fn a_port_that_is_taken_is_named_with_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port();
    let mut command = clean_command();
    command.args(["serve", "--port", &port.to_string()]);
    let output = command.output().expect("run imdb-ha");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let error =
        format!("listen on 127.0.0.1:{port} (choose another with --port): Address already in use");
    assert!(said.contains(&error), "{said}");
}
