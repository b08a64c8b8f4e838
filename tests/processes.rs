//! Several API processes on one pair: one decides, the others follow, and losing it or Redis stops
//! nobody's requests.

mod common;

use common::{Cluster, IN_THE_END, clean_command, wait_until};
use serde_json::{Value, json};
use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// One more API beside that of the cluster.
struct Api {
    process: Child,
    url: String,
    agent: ureq::Agent,
}

impl Api {
    fn start(cluster: &Cluster) -> Api {
        Api::start_over(cluster, cluster.status["redis"].as_str().expect("redis"))
    }

    /// Starts one that reaches Redis at another address.
    fn start_over(cluster: &Cluster, redis: &str) -> Api {
        Api::start_with(cluster, &[("REDIS_URL", redis)])
    }

    /// Starts one with more environment.
    fn start_with(cluster: &Cluster, environment: &[(&str, &str)]) -> Api {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("a free port")
            .port();
        let mut command = clean_command();
        command
            .args(["serve", "--port", &port.to_string()])
            .env("MASTER1_URL", cluster.url("master1"))
            .env("MASTER2_URL", cluster.url("master2"))
            .envs(environment.iter().copied())
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

    /// Another one that it follows.
    fn led_by(&self) -> String {
        let leader = self.get("/status").1["role"]["leader"].clone();
        leader.as_str().unwrap_or("").to_string()
    }

    fn level(&self) -> String {
        let level = self.get("/health").1["durability"].clone();
        level.as_str().unwrap_or("").to_string()
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

/// The way from one process to Redis, which can be cut while Redis goes on.
struct Way {
    url: String,
    cut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Way {
    fn to_redis(cluster: &Cluster) -> Way {
        let url = cluster.status["redis"].as_str().expect("redis");
        let server = url
            .trim_start_matches("redis://")
            .trim_end_matches('/')
            .to_string();
        let server = server.split('/').next().expect("an address").to_string();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let way = Way {
            url: format!("redis://127.0.0.1:{port}"),
            cut: Arc::default(),
            open: Arc::default(),
        };
        let (cut, open) = (Arc::clone(&way.cut), Arc::clone(&way.open));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Whatever comes while it is cut ends at once.
                if cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(redis) = TcpStream::connect(&server) else {
                    continue;
                };
                let ends = [&client, &redis].map(|end| end.try_clone().expect("a copy"));
                open.lock().expect("the list").extend(ends);
                let pairs = [
                    (
                        client.try_clone().expect("a copy"),
                        redis.try_clone().expect("a copy"),
                    ),
                    (redis, client),
                ];
                for (mut from, mut to) in pairs {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        way
    }

    fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
        for end in self
            .open
            .lock()
            .expect("the list")
            .drain(..)
            .filter(|_| cut)
        {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

/// What two processes say all the time, beside what the masters say of themselves.
#[derive(Default)]
struct Watched {
    samples: usize,
    two_leaders: Vec<String>,
    false_words: Vec<String>,
}

/// Ends a look also when what is looked at fails: else the test would wait for it for ever.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Looks at both until `over`.
fn watch(mut masters: [postgres::Client; 2], apis: [&Api; 2], over: &AtomicBool) -> Watched {
    let mut names = || -> [String; 2] {
        masters.each_mut().map(|master| {
            let asked = master.query_one(
                "SELECT setting FROM pg_settings WHERE name = 'synchronous_standby_names'",
                &[],
            );
            asked.map_or("?".to_string(), |row| row.get(0))
        })
    };
    let began = Instant::now();
    let mut watched = Watched::default();
    while !over.load(Ordering::SeqCst) {
        let before = names();
        let told = [apis[0], apis[1], apis[0]].map(|api| api.get("/status").1);
        let after = names();
        watched.samples += 1;
        let at = began.elapsed().as_millis();
        if told.iter().all(|told| told["role"]["name"] == "leader") {
            watched.two_leaders.push(format!("{at} ms"));
        }
        for told in &told {
            let index = usize::from(told["active_node"] == "master2");
            if told["durability"]["level"] == "zero-loss"
                && [&before, &after]
                    .iter()
                    .all(|names| names[index].is_empty())
            {
                watched
                    .false_words
                    .push(format!("{at} ms: {}", told["role"]));
            }
        }
    }
    watched
}

/// How often the masters were told whom to wait for, by their own logs.
fn orders(cluster: &Cluster) -> usize {
    ["master1", "master2"]
        .iter()
        .flat_map(|node| {
            std::fs::read_dir(format!("{}/{node}/log", cluster.data)).expect("its log")
        })
        .map(|file| std::fs::read_to_string(file.expect("a log").path()).unwrap_or_default())
        .map(|log| {
            log.matches("\"synchronous_standby_names\" changed to")
                .count()
        })
        .sum()
}

/// The newest term that a master knows.
fn term(cluster: &Cluster, node: &str) -> (i64, String) {
    let row = cluster
        .sql(node)
        .query_one("SELECT termino, titular FROM imdb_ha.mandato", &[]);
    let row = row.expect("who decides");
    (row.get(0), row.get(1))
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

    // Without Redis whoever holds the masters' locks decides, and the other follows by what the masters say of it.
    signal("KILL", &status["pids"]["redis"]);
    wait_until("redis is gone", || {
        cluster.get("/status").body["redis"]["state"] == "down"
            && other.get("/status").1["redis"]["state"] == "down"
    });
    std::thread::sleep(Duration::from_secs(3));
    wait_until("the same one decides", || other.role() == "leader");
    wait_until("and is followed", || {
        cluster.get("/status").body["role"]["leader"] == json!(other.url)
    });
    for (path, node) in [
        ("/switch-to-secondary", "master2"),
        ("/switch-to-primary", "master1"),
    ] {
        let (code, body) = other.post(path, &Value::Null);
        assert_eq!(code, 200, "{body}");
        wait_until("the traffic moves for both", || {
            cluster.get("/active-node").body["active_node"] == node && other.active() == node
        });
        wait_until("with both masters in each commit", || {
            other.level() == "zero-loss" && cluster.get("/health").body["durability"] == "zero-loss"
        });
    }
    cluster.local(&["kill", "master1"]);
    let (code, body) = other.post("/generos", &json!({"genero": "sin redis"}));
    assert_eq!((code, &body["node_used"]), (201, &Value::from("master2")));
    let answer = cluster.add("sin redis tampoco");
    assert_eq!((answer.status, answer.node()), (201, "master2"));
    other.process.kill().expect("kill");
    // Whoever does not decide frees what waits in vain; and the locks of one that is dead are free.
    assert_eq!(cluster.add("solo").status, 201);
    wait_until("the last one decides", || {
        cluster.get("/status").body["role"]["name"] == "leader"
    });
    // One that starts now finds who decides on the masters, and takes over when that one stands still: its locks say nothing for
    // long, so they are taken from it, and it decides nothing when it wakes.
    let redis = cluster.status["redis"].as_str().expect("redis");
    let elsewhere = [("REDIS_URL", redis), ("ADVERTISE", "api3.example:5710")];
    let third = Api::start_with(&cluster, &elsewhere);
    wait_until("it follows", || third.led_by() == cluster.api);
    signal("STOP", &status["pids"]["api"]);
    wait_until("it decides", || third.role() == "leader");
    signal("CONT", &status["pids"]["api"]);
    for _ in 0..20 {
        assert_ne!(cluster.get("/status").body["role"]["name"], "leader");
    }
    // It is found where it says that others find it, and not where it listens.
    wait_until("the one that stood still follows", || {
        cluster.get("/status").body["role"]["leader"] == "http://api3.example:5710"
    });
    assert_eq!(third.role(), "leader");
}

/// Only its way to Redis is cut. It must not go on deciding beside the one that has the lease then, and orders of an earlier term
/// are refused, also those of a process that stood still.
#[test]
fn who_cannot_renew_the_lease_decides_no_longer() {
    let cluster = Cluster::start_flagged(&["--no-api"], &[]);
    let way = Way::to_redis(&cluster);
    let first = Api::start_over(&cluster, &way.url);
    wait_until("it decides", || first.role() == "leader");
    let mut second = Api::start(&cluster);
    wait_until("the other follows", || second.role() == "follower");
    wait_until("both say zero-loss", || {
        first.level() == "zero-loss" && second.level() == "zero-loss"
    });
    wait_until("both masters know who decides", || {
        term(&cluster, "master1") == term(&cluster, "master2")
    });
    let (old_term, old_holder) = term(&cluster, "master1");

    let given = orders(&cluster);
    let over = AtomicBool::new(false);
    let masters = ["master1", "master2"].map(|node| cluster.sql(node));
    let watched = std::thread::scope(|scope| {
        let watched = scope.spawn(|| watch(masters, [&first, &second], &over));
        let end = End(&over);
        way.cut(true);
        wait_until("the other decides", || second.role() == "leader");
        let (status, body) = second.post("/switch-to-secondary", &Value::Null);
        assert_eq!(status, 200, "{body}");
        wait_until("both serve from there", || {
            first.active() == "master2" && second.active() == "master2"
        });
        let (status, body) = first.post("/generos", &json!({"genero": "por el que fue"}));
        assert_eq!((status, &body["node_used"]), (201, &json!("master2")));
        wait_until("it follows, by what the masters say", || {
            first.led_by() == second.url
        });
        // Two that both give orders do it for as long as the cut lasts.
        std::thread::sleep(Duration::from_secs(4));
        drop(end);
        watched.join().expect("watch")
    });
    println!(
        "{} samples, {} orders",
        watched.samples,
        orders(&cluster) - given
    );
    assert!(watched.samples > 10);
    assert_eq!(watched.two_leaders, [""; 0]);
    assert_eq!(watched.false_words, [""; 0]);
    assert!(
        orders(&cluster) - given <= 6,
        "{} orders",
        orders(&cluster) - given
    );

    // Both masters know the newer term, and take no order of the older one.
    for node in ["master1", "master2"] {
        wait_until("it knows", || term(&cluster, node).0 > old_term);
        let refused = cluster
            .sql(node)
            .execute(
                "SELECT imdb_ha.empezar_orden($1, $2)",
                &[&old_term, &old_holder],
            )
            .expect_err("an order of an older term");
        assert_eq!(
            refused.code().map(|code| code.code()),
            Some("IHA01"),
            "{refused}"
        );
    }

    // The way is back, and the one that decides stands still: it has no word when it wakes.
    way.cut(false);
    wait_until("redis is up for it", || {
        first.get("/status").1["redis"]["state"] == "up"
    });
    assert_eq!(second.role(), "leader");
    let (term_before, _) = term(&cluster, "master2");
    signal("STOP", &json!(second.process.id()));
    wait_until("the first decides again", || first.role() == "leader");
    wait_until("the masters know it", || {
        term(&cluster, "master2").0 > term_before
    });
    signal("CONT", &json!(second.process.id()));
    for _ in 0..100 {
        assert_ne!(second.role(), "leader");
    }
    wait_until("it follows", || second.led_by() == first.url);

    // Redis forgets everything, and terms go on from what the masters know.
    let (before, _) = term(&cluster, "master2");
    let mut redis = connect_to_redis(&cluster);
    redis::cmd("FLUSHALL").exec(&mut redis).expect("flush");
    signal("TERM", &json!(first.process.id()));
    wait_until("the other decides", || second.role() == "leader");
    wait_until("by a newer term", || {
        ["master1", "master2"]
            .iter()
            .all(|node| term(&cluster, node).0 > before)
    });
    assert!(second.end() < Duration::from_secs(5));
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
        // At once, or somebody claims the lease in between.
        let mut both = redis::pipe();
        both.atomic().cmd("DEL").arg("imdb-ha:lease");
        both.cmd(value[0]).arg(&value[1..]);
        both.exec(&mut redis).expect("write");
        std::thread::sleep(Duration::from_millis(700));
        wait_until(&format!("one decides, with {value:?}"), || {
            let roles = [
                cluster.get("/status").body["role"]["name"].clone(),
                json!(other.role()),
            ];
            roles.contains(&json!("leader")) && roles.contains(&json!("follower"))
        });
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
        wait_until("redis is known to be silent", || {
            last.get("/status").1["redis"]["state"] == "down"
        });
        // By the lease until its time is over, and then by the masters' locks.
        std::thread::sleep(Duration::from_secs(4));
        wait_until("it decides without redis", || last.role() == "leader");
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

    // Somebody who holds the lock of the orders and does nothing holds no commits up.
    wait_until("it says zero-loss", || again.level() == "zero-loss");
    let mut idle = cluster.sql("master1");
    idle.batch_execute("SELECT pg_advisory_lock(1229800514, 2)")
        .expect("lock");
    cluster.local(&["kill", "master2"]);
    let (status, body) = again.post("/generos", &json!({"genero": "sin esperar"}));
    assert_eq!(status, 201, "{body}");

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
