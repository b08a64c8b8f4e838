//! The system under test: real masters and Redis of `local up --no-api`, an API of its own, and relays
//! on each way between the three. Does to them what the schedule says, and undoes it.

use crate::checker::Row;
use crate::common::{BINARY, Cluster, clean_command, clean_command_named};
use crate::relay::{Mode, Relay, free_port};
use crate::schedule::{Blow, Role, Way};
use postgres::NoTls;
use serde_json::Value;
use std::fs::OpenOptions;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use url::Url;

pub const MASTERS: [&str; 2] = ["master1", "master2"];

/// From a heal to everything being as before. A killed master's recovery is the longest part.
pub const RECOVERY: Duration = Duration::from_secs(60);
/// The read of all rows of a master that should answer. One that is frozen never would.
const READ: Duration = Duration::from_secs(10);
const API_START: Duration = Duration::from_secs(20);
const TURN: Duration = Duration::from_millis(10);

pub struct Lab {
    cluster: Cluster,
    api: Option<Child>,
    port: u16,
    log: Option<String>,
    /// From the API to each master.
    doors: [Relay; 2],
    /// From its peer to each master.
    links: [Relay; 2],
}

impl Lab {
    /// Starts everything and waits until it is well.
    pub fn start(log: Option<String>) -> Result<Lab, String> {
        let cluster = Cluster::start_flagged(&["--no-api"], &[]);
        let relay = |node: &str| -> Result<Relay, String> {
            let url = Url::parse(&cluster.url(node)).map_err(|error| error.to_string())?;
            let port = url.port().ok_or("a master's URL has no port")?;
            Relay::start(port).map_err(|error| format!("start a relay to {node}: {error}"))
        };
        let doors = [relay(MASTERS[0])?, relay(MASTERS[1])?];
        let links = [relay(MASTERS[0])?, relay(MASTERS[1])?];
        let port = free_port().map_err(|error| format!("find a port for the API: {error}"))?;
        let mut lab = Lab {
            cluster,
            api: None,
            port,
            log,
            doors,
            links,
        };
        lab.cluster.api = format!("http://127.0.0.1:{port}");
        let mut command = clean_command();
        command.args(["replication", "setup"]);
        command
            .env("MASTER1_URL", lab.cluster.url(MASTERS[0]))
            .env("MASTER2_URL", lab.cluster.url(MASTERS[1]));
        lab.name_peers(&mut command);
        succeed("lead the replication over the relays", command.output())?;
        lab.start_api()?;
        lab.wait_ready(RECOVERY)?;
        Ok(lab)
    }

    pub fn address(&self) -> String {
        self.cluster.api.clone()
    }

    /// The master that serves, as an index.
    pub fn active(&self) -> Result<usize, String> {
        let (_, body) = self.get("/active-node")?;
        let named = MASTERS.iter().position(|name| body["active_node"] == *name);
        named.ok_or_else(|| format!("/active-node answers {body}"))
    }

    /// What `/health` says about the writes that are acknowledged now.
    pub fn durability(&self) -> Result<String, String> {
        let (_, body) = self.get("/health")?;
        Ok(body["durability"].as_str().unwrap_or("").to_string())
    }

    /// Does one thing to the system. `active` is the master that served when the fault began.
    pub fn strike(&mut self, blow: Blow, active: usize) -> Result<(), String> {
        match blow {
            Blow::Kill(role) => self.local("kill", of_role(role, active)),
            Blow::Freeze(role) => self.local("freeze", of_role(role, active)),
            Blow::Stop(role) => self.local("stop", of_role(role, active)),
            Blow::CutApi(way) => {
                self.doors[active].set(mode(way));
                Ok(())
            }
            Blow::CutLink(way) => {
                self.links.iter().for_each(|link| link.set(mode(way)));
                Ok(())
            }
            Blow::Handover => self.switch(1 - active),
            Blow::KillApi => self.kill_api(),
        }
    }

    /// Undoes it.
    pub fn mend(&mut self, blow: Blow, active: usize) -> Result<(), String> {
        match blow {
            Blow::Kill(role) | Blow::Stop(role) => self.local("start", of_role(role, active)),
            Blow::Freeze(role) => self.local("thaw", of_role(role, active)),
            Blow::CutApi(_) => {
                self.doors[active].set(Mode::Pass);
                Ok(())
            }
            Blow::CutLink(_) => {
                self.links.iter().for_each(|link| link.set(Mode::Pass));
                Ok(())
            }
            Blow::Handover => {
                self.wait_ready(RECOVERY)?;
                self.switch(active)
            }
            Blow::KillApi => self.start_api(),
        }
    }

    /// Waits until another master than `active` serves.
    pub fn wait_moved(&self, active: usize, patience: Duration) -> Result<(), String> {
        until("the traffic is moved", patience, || {
            let now = self.active()?;
            let (status, body) = self.get("/health")?;
            match now != active && status == 200 {
                true => Ok(()),
                false => Err(format!("{} is active, /health says {body}", MASTERS[now])),
            }
        })
    }

    /// Waits until a master serves, both are up and stream to each other, and writes are as safe as
    /// the API promises at best.
    pub fn wait_ready(&self, patience: Duration) -> Result<(), String> {
        until("all is well", patience, || {
            let (status, health) = self.get("/health")?;
            if status != 200 || health["durability"] == "degraded" {
                return Err(format!("/health says {status} {health}"));
            }
            let (_, body) = self.get("/status")?;
            for name in MASTERS {
                let master = &body["masters"][name];
                if master["state"] != "up" {
                    return Err(format!(
                        "{name} is {}: {}",
                        master["state"], master["reason"]
                    ));
                }
            }
            let output = self.cluster.run(&["replication", "status", "--json"]);
            match output.status.success() {
                true => Ok(()),
                false => Err(String::from_utf8_lossy(&output.stdout).trim().to_string()),
            }
        })
    }

    /// All rows of one master, read from itself and not over a relay.
    pub fn rows(&self, node: usize) -> Result<Vec<Row>, String> {
        let url = self.cluster.url(MASTERS[node]);
        let (tell, told) = mpsc::channel();
        thread::spawn(move || tell.send(read_rows(&url).map_err(|error| format!("{error:?}"))));
        let read = told
            .recv_timeout(READ)
            .unwrap_or_else(|_| Err("no answer".to_string()));
        read.map_err(|error| format!("read the rows of {}: {error}", MASTERS[node]))
    }

    fn get(&self, path: &str) -> Result<(u16, Value), String> {
        self.ask("GET", path)
    }

    fn ask(&self, method: &str, path: &str) -> Result<(u16, Value), String> {
        let answer = self.cluster.try_ask(method, path, None, &[]);
        let answer = answer.map_err(|error| format!("{method} {path}: {error}"))?;
        Ok((answer.status, answer.body))
    }

    fn switch(&self, to: usize) -> Result<(), String> {
        let path = ["/switch-to-primary", "/switch-to-secondary"][to];
        match self.ask("POST", path)? {
            (200, _) => Ok(()),
            (status, body) => Err(format!("POST {path}: {status} {body}")),
        }
    }

    fn local(&self, verb: &str, node: usize) -> Result<(), String> {
        let output = self.cluster.run(&["local", verb, MASTERS[node]]);
        succeed(&format!("{verb} {}", MASTERS[node]), Ok(output))
    }

    fn name_peers(&self, command: &mut Command) {
        for (node, link) in self.links.iter().enumerate() {
            let name = format!("MASTER{}_PEER_ADDRESS", node + 1);
            command.env(name, format!("127.0.0.1:{}", link.port));
        }
    }

    /// Starts the API so that the kernel ends it with this process, however that ends.
    fn start_api(&mut self) -> Result<(), String> {
        let mut command = clean_command_named("setpriv");
        command.args(["--pdeathsig", "KILL", "--", BINARY, "serve"]);
        for (node, door) in self.doors.iter().enumerate() {
            let mut url =
                Url::parse(&self.cluster.url(MASTERS[node])).map_err(|e| e.to_string())?;
            url.set_port(Some(door.port)).map_err(|()| "set a port")?;
            command.env(format!("MASTER{}_URL", node + 1), url.as_str());
        }
        let redis = self.cluster.status["redis"].as_str().unwrap_or_default();
        command
            .env("REDIS_URL", redis)
            .env("PORT", self.port.to_string());
        self.name_peers(&mut command);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(match &self.log {
                None => Stdio::null(),
                Some(path) => {
                    let file = OpenOptions::new().create(true).append(true).open(path);
                    file.map_err(|error| format!("open {path}: {error}"))?
                        .into()
                }
            });
        self.api = Some(
            command
                .spawn()
                .map_err(|error| format!("start the API: {error}"))?,
        );
        until("the API answers", API_START, || {
            match self.get("/health")? {
                (200, _) => Ok(()),
                (status, body) => Err(format!("/health says {status} {body}")),
            }
        })
    }

    fn kill_api(&mut self) -> Result<(), String> {
        let Some(mut api) = self.api.take() else {
            return Ok(());
        };
        let ended = api.kill().and_then(|()| api.wait());
        ended
            .map(drop)
            .map_err(|error| format!("kill the API: {error}"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // `local up` cannot stop a master in order while a relay holds what its clients sent.
        for relay in self.doors.iter().chain(&self.links) {
            relay.set(Mode::Pass);
        }
        let _ = self.kill_api();
    }
}

fn of_role(role: Role, active: usize) -> usize {
    match role {
        Role::Active => active,
        Role::Passive => 1 - active,
    }
}

fn mode(way: Way) -> Mode {
    match way {
        Way::Reset => Mode::Cut,
        Way::Hole => Mode::Hole,
    }
}

fn read_rows(url: &str) -> Result<Vec<Row>, postgres::Error> {
    let mut client = postgres::Client::connect(url, NoTls)?;
    let rows = client.query(
        "SELECT id_genero::bigint, genero, g::text FROM public.generos AS g",
        &[],
    )?;
    rows.iter()
        .map(|row| {
            Ok(Row {
                id: row.try_get(0)?,
                text: row.try_get(1)?,
                whole: row.try_get(2)?,
            })
        })
        .collect()
}

/// Tries until it works out, and tells what was wrong the last time when it never does.
pub fn until(
    what: &str,
    patience: Duration,
    mut is_so: impl FnMut() -> Result<(), String>,
) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    loop {
        match is_so() {
            Ok(()) => return Ok(()),
            Err(why) if Instant::now() >= deadline => {
                let seconds = patience.as_secs();
                return Err(format!("not so after {seconds} s that {what}: {why}"));
            }
            Err(_) => thread::sleep(TURN),
        }
    }
}

fn succeed(doing: &str, output: std::io::Result<Output>) -> Result<(), String> {
    let output = output.map_err(|error| format!("{doing}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{doing}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}
