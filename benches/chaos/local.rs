//! A cluster of its own on this machine: real masters and Redis of `local up --no-api`, an API of its own,
//! and relays on each way between the three.

use crate::common::{BINARY, Cluster, clean_command, clean_command_named};
use crate::lab::{MASTERS, System, not_done_by_system, of_role, until};
use crate::relay::{Mode, Relay, free_port};
use crate::schedule::{Blow, Way};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::OpenOptions;
use std::net::{TcpStream, ToSocketAddrs};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use url::Url;

const API_START: Duration = Duration::from_secs(20);
const REDIS_START: Duration = Duration::from_secs(5);

pub struct Local {
    cluster: Cluster,
    api: Option<Child>,
    address: String,
    port: u16,
    log: Option<String>,
    /// In the place of the cluster's own, once that was killed.
    redis: Option<Child>,
    urls: [String; 2],
    /// From the API to each master.
    doors: [Relay; 2],
    /// From its peer to each master.
    links: [Relay; 2],
}

impl Local {
    /// Starts everything.
    ///
    /// # Errors
    /// What does not start.
    pub fn start(log: Option<String>) -> Result<Local, String> {
        let cluster = Cluster::start_flagged(&["--no-api"], &[]);
        let relay = |node: &str| -> Result<Relay, String> {
            let url = Url::parse(&cluster.url(node)).map_err(|error| error.to_string())?;
            let port = url.port().ok_or("a master's URL has no port")?;
            Relay::start(port).map_err(|error| format!("start a relay to {node}: {error}"))
        };
        let doors = [relay(MASTERS[0])?, relay(MASTERS[1])?];
        let links = [relay(MASTERS[0])?, relay(MASTERS[1])?];
        let port = free_port().map_err(|error| format!("find a port for the API: {error}"))?;
        let mut local = Local {
            urls: MASTERS.map(|node| cluster.url(node)),
            cluster,
            api: None,
            address: format!("http://127.0.0.1:{port}"),
            port,
            log,
            redis: None,
            doors,
            links,
        };
        let mut command = clean_command();
        command.args(["replication", "setup"]);
        command
            .env("MASTER1_URL", &local.urls[0])
            .env("MASTER2_URL", &local.urls[1]);
        local.name_peers(&mut command);
        succeed("lead the replication over the relays", command.output())?;
        local.start_api()?;
        Ok(local)
    }

    fn run(&self, verb: &str, node: usize) -> Result<(), String> {
        let output = self.cluster.run(&["local", verb, MASTERS[node]]);
        succeed(&format!("{verb} {}", MASTERS[node]), Ok(output))
    }

    fn set_links(&self, mode: Mode) {
        self.links.iter().for_each(|link| link.set(mode));
    }

    fn name_peers(&self, command: &mut Command) {
        for (node, link) in self.links.iter().enumerate() {
            let name = format!("MASTER{}_PEER_ADDRESS", node + 1);
            command.env(name, format!("127.0.0.1:{}", link.port));
        }
    }

    /// Starts the API, and waits until it takes connections.
    fn start_api(&mut self) -> Result<(), String> {
        let mut command = command_that_ends_with_us(BINARY, &["serve"]);
        for (node, door) in self.doors.iter().enumerate() {
            let mut url = Url::parse(&self.urls[node]).map_err(|e| e.to_string())?;
            url.set_port(Some(door.port)).map_err(|()| "set a port")?;
            command.env(format!("MASTER{}_URL", node + 1), url.as_str());
        }
        command
            .env("REDIS_URL", self.redis_url())
            .env("PORT", self.port.to_string());
        self.name_peers(&mut command);
        if let Some(path) = &self.log {
            let file = OpenOptions::new().create(true).append(true).open(path);
            command.stderr(file.map_err(|error| format!("open {path}: {error}"))?);
        }
        let child = command.spawn();
        self.api = Some(child.map_err(|error| format!("start the API: {error}"))?);
        until("the API answers", API_START, || {
            connect(("127.0.0.1", self.port))
        })
    }

    fn redis_url(&self) -> &str {
        self.cluster.status["redis"].as_str().unwrap_or_default()
    }

    /// The one that the cluster started first, and later the one that was started here.
    fn kill_redis(&mut self) -> Result<(), String> {
        if self.redis.is_some() {
            return end("Redis", &mut self.redis);
        }
        let id = self.cluster.status["pids"]["redis"].as_i64();
        let id = id.ok_or("the cluster does not say which process Redis is")?;
        kill(Pid::from_raw(id as i32), Signal::SIGKILL)
            .map_err(|error| format!("kill Redis: {error}"))
    }

    /// One that keeps nothing: what the API needs in it, it must write anew.
    fn start_redis(&mut self) -> Result<(), String> {
        let url = Url::parse(self.redis_url()).map_err(|error| error.to_string())?;
        let port = url.port().ok_or("the URL of Redis has no port")?;
        let number = port.to_string();
        let flags = [
            "--bind",
            "127.0.0.1",
            "--port",
            &number,
            "--save",
            "",
            "--appendonly",
            "no",
        ];
        let child = command_that_ends_with_us("redis-server", &flags).spawn();
        self.redis = Some(child.map_err(|error| format!("start Redis: {error}"))?);
        until("Redis answers", REDIS_START, || {
            connect(("127.0.0.1", port))
        })
    }
}

impl System for Local {
    fn api(&self) -> &str {
        &self.address
    }

    fn token(&self) -> Option<&str> {
        None
    }

    fn url(&self, node: usize) -> &str {
        &self.urls[node]
    }

    fn is_borrowed(&self) -> bool {
        false
    }

    fn strike(&mut self, blow: Blow, active: usize) -> Result<(), String> {
        match blow {
            Blow::Kill(role) => self.run("kill", of_role(role, active)),
            Blow::Freeze(role) => self.run("freeze", of_role(role, active)),
            Blow::Restart(role) => self.run("stop", of_role(role, active)),
            Blow::CutApi(way) => {
                self.doors[active].set(mode(way));
                Ok(())
            }
            Blow::CutLink(way) => {
                self.set_links(mode(way));
                Ok(())
            }
            Blow::Isolate(role) => {
                self.doors[of_role(role, active)].set(Mode::Hole);
                self.set_links(Mode::Hole);
                Ok(())
            }
            Blow::KillApi => end("the API", &mut self.api),
            Blow::KillRedis => self.kill_redis(),
            Blow::Handover => not_done_by_system(blow),
        }
    }

    fn mend(&mut self, blow: Blow, active: usize) -> Result<(), String> {
        match blow {
            Blow::Kill(role) | Blow::Restart(role) => self.run("start", of_role(role, active)),
            Blow::Freeze(role) => self.run("thaw", of_role(role, active)),
            Blow::CutApi(_) => {
                self.doors[active].set(Mode::Pass);
                Ok(())
            }
            Blow::CutLink(_) => {
                self.set_links(Mode::Pass);
                Ok(())
            }
            Blow::Isolate(role) => {
                self.set_links(Mode::Pass);
                self.doors[of_role(role, active)].set(Mode::Pass);
                Ok(())
            }
            Blow::KillApi => self.start_api(),
            Blow::KillRedis => self.start_redis(),
            Blow::Handover => not_done_by_system(blow),
        }
    }

    /// It is thrown away as it is.
    fn restore(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Nobody keeps them but this program, which would have noticed.
    fn parts_are_well(&self) -> Result<(), String> {
        Ok(())
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // `local up` cannot stop a master in order while a relay holds what its clients sent.
        for relay in self.doors.iter().chain(&self.links) {
            relay.set(Mode::Pass);
        }
        let _ = end("the API", &mut self.api);
        let _ = end("Redis", &mut self.redis);
    }
}

/// A program that the kernel ends with this process, however that ends.
fn command_that_ends_with_us(program: &str, arguments: &[&str]) -> Command {
    let mut command = clean_command_named("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command.args(arguments);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn end(what: &str, child: &mut Option<Child>) -> Result<(), String> {
    let Some(mut child) = child.take() else {
        return Ok(());
    };
    let ended = child.kill().and_then(|()| child.wait());
    ended
        .map(drop)
        .map_err(|error| format!("kill {what}: {error}"))
}

fn connect(address: impl ToSocketAddrs) -> Result<(), String> {
    let connected = TcpStream::connect(address);
    connected.map(drop).map_err(|error| error.to_string())
}

fn mode(way: Way) -> Mode {
    match way {
        Way::Reset => Mode::Cut,
        Way::Hole => Mode::Hole,
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
