//! A whole cluster for a test: real masters, real Redis, the real binary, in a temporary folder and
//! on free ports. It ends with the test process, however that ends, because `local up --ephemeral`
//! stops when its standard input does.
#![allow(dead_code)] // each test binary uses a part of it

pub mod films;
pub mod pair;

use postgres::{Client, NoTls};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub const BINARY: &str = env!("CARGO_BIN_EXE_imdb-ha");

/// Tables of schema public beside `generos`, from sql/migrations.
pub const FILM_TABLES: usize = 16;

/// Rows of a new master: 28 genres and their codes, 11 types of titles, 13 categories, 46 professions.
pub const ROWS_FROM_THE_START: u64 = 126;

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
    pub headers: Vec<(String, String)>,
    pub took: Duration,
}

impl Answer {
    /// The machine's word of an error.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or("")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The id of the row that it speaks of.
    pub fn id(&self) -> i64 {
        self.body["data"]["id_genero"]
            .as_i64()
            .unwrap_or_else(|| panic!("no id in {self:?}"))
    }

    pub fn node(&self) -> &str {
        self.body["node_used"].as_str().unwrap_or("")
    }
}

pub struct Cluster {
    process: Child,
    stdin: Option<ChildStdin>,
    said: Arc<Mutex<String>>,
    pub status: Value,
    pub api: String,
    pub data: String,
    agent: ureq::Agent,
}

impl Cluster {
    pub fn start() -> Cluster {
        Cluster::start_with(&[])
    }

    /// Starts a cluster with more environment.
    pub fn start_with(environment: &[(&str, &str)]) -> Cluster {
        Cluster::start_flagged(&[], environment)
    }

    /// Starts a cluster with more flags of `local up`; with `--no-api` its `api` is empty.
    pub fn start_flagged(flags: &[&str], environment: &[(&str, &str)]) -> Cluster {
        let mut command = clean_command();
        command.args(["local", "up", "--ephemeral", "--json"]);
        command.args(flags);
        command.envs(environment.iter().copied());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = command.spawn().expect("start imdb-ha");
        let said = Arc::new(Mutex::new(String::new()));
        collect(process.stderr.take().expect("piped"), Arc::clone(&said));
        let stdin = process.stdin.take();
        let mut line = String::new();
        let mut stdout = BufReader::new(process.stdout.take().expect("piped"));
        stdout.read_line(&mut line).expect("read its state");
        let Ok(status) = serde_json::from_str::<Value>(&line) else {
            let _ = process.wait();
            panic!(
                "the cluster did not start: {}",
                said.lock().expect("the log")
            );
        };
        let text = |value: &Value| value.as_str().expect("a string").to_string();
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)));
        Cluster {
            process,
            stdin,
            said,
            api: status["api"].as_str().unwrap_or_default().to_string(),
            data: text(&status["data"]),
            status,
            agent: config.build().into(),
        }
    }

    /// What `local up` has printed so far, the API's log included.
    pub fn said(&self) -> String {
        self.said.lock().expect("the log").clone()
    }

    /// Runs the binary against this cluster.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = clean_command();
        command.args(arguments).env("IMDB_HA_DATA", &self.data);
        command
            .env("MASTER1_URL", self.url("master1"))
            .env("MASTER2_URL", self.url("master2"));
        command.output().expect("run imdb-ha")
    }

    /// Runs `imdb-ha local ...`, which must succeed.
    pub fn local(&self, arguments: &[&str]) {
        let output = self.run(&[&["local"], arguments].concat());
        assert!(output.status.success(), "local {arguments:?}: {output:?}");
    }

    pub fn url(&self, node: &str) -> String {
        self.status["masters"][node]["url"]
            .as_str()
            .expect("a URL")
            .to_string()
    }

    /// The state of a master, as `local status --json` tells it.
    pub fn server_state(&self, node: &str) -> String {
        let output = self.run(&["local", "status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        status["masters"][node]["state"]
            .as_str()
            .expect("a state")
            .to_string()
    }

    pub fn sql(&self, node: &str) -> Client {
        Client::connect(&self.url(node), NoTls)
            .unwrap_or_else(|error| panic!("connect to {node}: {error:?}"))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None, &[])
    }

    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.ask(
            "POST",
            path,
            Some(body),
            &[("Content-Type", "application/json")],
        )
    }

    /// Posts a genre by its name.
    pub fn add(&self, genero: &str) -> Answer {
        self.post(
            "/generos",
            &serde_json::json!({ "genero": genero }).to_string(),
        )
    }

    pub fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Answer {
        self.try_ask(method, path, body, headers)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.said()))
    }

    /// The same, where the connection itself may fail.
    pub fn try_ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, String> {
        let began = Instant::now();
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.api));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answered = match body {
            Some(body) => self
                .agent
                .run(request.body(body.to_string()).expect("a request")),
            None => self.agent.run(request.body(()).expect("a request")),
        };
        let mut response = answered.map_err(|error| error.to_string())?;
        let text = response
            .body_mut()
            .read_to_string()
            .map_err(|error| error.to_string())?;
        Ok(Answer {
            status: response.status().as_u16(),
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
            headers: response
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("").to_string()))
                .collect(),
            took: began.elapsed(),
        })
    }

    /// All rows of `generos` on one master, hidden columns included.
    pub fn rows(&self, node: &str) -> Vec<String> {
        self.sql(node)
            .query(
                "SELECT g::text FROM public.generos AS g ORDER BY id_genero",
                &[],
            )
            .expect("read generos")
            .iter()
            .map(|row| row.get(0))
            .collect()
    }

    /// Waits until both masters hold the same rows, and returns them.
    pub fn wait_equal(&self) -> Vec<String> {
        let mut pair = Default::default();
        wait_until("both masters are equal", || {
            pair = (self.rows("master1"), self.rows("master2"));
            pair.0 == pair.1
        });
        pair.0
    }

    /// Waits until `imdb-ha compare` finds the masters equal, and tells what it found last.
    pub fn wait_compare(&self) {
        let mut last = None;
        let deadline = Instant::now() + Duration::from_secs(60);
        while last
            .as_ref()
            .is_none_or(|output: &Output| !output.status.success())
        {
            assert!(Instant::now() < deadline, "the masters differ: {last:?}");
            last = Some(self.run(&["compare"]));
        }
    }

    /// Waits until the API holds `node` to be in `state`.
    pub fn wait_state(&self, node: &str, state: &str) {
        wait_until(&format!("{node} is {state}"), || {
            self.get("/status").body["masters"][node]["state"] == state
        });
    }

    /// The last lines of a server's log that are more than its course: why it was not as a test wants it.
    fn complaints(&self, node: &str) -> Vec<String> {
        const KINDS: [&str; 4] = ["WARNING:", "ERROR:", "FATAL:", "PANIC:"];
        const SHOWN: usize = 40;
        let folder = std::path::Path::new(&self.data).join(node).join("log");
        let mut logs: Vec<_> = std::fs::read_dir(folder)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        logs.sort();
        let text: String = logs
            .iter()
            .filter_map(|path| std::fs::read(path).ok())
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .collect();
        let said =
            |line: &&str| KINDS.iter().any(|kind| line.contains(kind)) || line.contains("timeout");
        let lines: Vec<&str> = text.lines().filter(said).collect();
        let skipped = lines.len().saturating_sub(SHOWN);
        lines
            .iter()
            .skip(skipped)
            .map(ToString::to_string)
            .collect()
    }

    /// Closes the connections that are kept, for which a stop of the API would wait a moment.
    fn hang_up(&mut self) {
        self.agent = ureq::Agent::new_with_defaults();
    }

    /// Ends the cluster as a user would, and waits for it.
    pub fn stop(&mut self) {
        self.hang_up();
        self.stdin = None;
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.process.try_wait().expect("its status").is_none() {
            assert!(
                Instant::now() < deadline,
                "the cluster does not stop:\n{}",
                self.said()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- what the cluster said ---\n{}", self.said());
            for node in ["master1", "master2"] {
                eprintln!("--- what {node} complained of ---");
                self.complaints(node)
                    .iter()
                    .for_each(|line| eprintln!("{line}"));
            }
        }
        self.hang_up();
        self.stdin = None;
        let _ = self.process.wait();
        if !thread::panicking() {
            let left = std::path::Path::new(&self.data).exists();
            assert!(!left, "the cluster left {} behind", self.data);
        }
    }
}

/// The binary, without whatever the developer's own environment says about it.
pub fn clean_command() -> Command {
    clean_command_named(BINARY)
}

/// Another program, likewise.
pub fn clean_command_named(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    for (name, _) in std::env::vars() {
        let ours = [
            "MASTER1_",
            "MASTER2_",
            "REDIS_",
            "PORT",
            "BACKUP_",
            "BIND",
            "ADMIN_",
            "ADVERTISE",
            "USE_SEQ",
            "IMDB_HA_",
            "REPLICATION_",
            "PUBLISHED_",
            "MASTER_SETTINGS",
            "PEER_",
            "LOAD_",
        ];
        if ours.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

fn collect(mut from: impl Read + Send + 'static, into: Arc<Mutex<String>>) {
    thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(count) = from.read(&mut piece) {
            if count == 0 {
                return;
            }
            into.lock()
                .expect("the log")
                .push_str(&String::from_utf8_lossy(&piece[..count]));
        }
    });
}

/// Less than the time that a request gets, so what takes longer has waited for a master that says nothing; far more than anything else
/// takes on a machine that has other things to do as well.
pub const NO_HANG: Duration = Duration::from_secs(6);

/// An end, or a refusal, that waits for nobody comes within this time, wherever the tests run. What waits for somebody does so for ever.
pub const IN_THE_END: Duration = Duration::from_secs(40);

/// Waits for something to become true, for a minute at the most.
pub fn wait_until(what: &str, is_so: impl FnMut() -> bool) {
    wait_until_within(Duration::from_secs(60), what, is_so);
}

/// The same, with another patience.
pub fn wait_until_within(patience: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !is_so() {
        assert!(
            Instant::now() < deadline,
            "it did not come to pass that {what}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}
