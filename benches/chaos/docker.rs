//! The Docker engine, by its own command: each call has a deadline, since an engine that is busy or hangs
//! must not hold a run up for good. What it says of a container is read here and nowhere else.

use crate::lab::until;
use serde_json::Value;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// Anything but a restart takes less than a second, on an engine with nothing else to do.
const PATIENCE: Duration = Duration::from_secs(30);
/// An orderly stop gets 30 s (`stop_grace_period`) before it is none any more.
const RESTART_PATIENCE: Duration = Duration::from_secs(60);
/// From the end of a command until all that it said is here.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What a command may say; the state of four containers takes 60 kB.
const ANSWER_MAX: u64 = 4 * 1024 * 1024;

/// Runs one command of `docker`, and returns what it says.
///
/// # Errors
/// What the engine complains of, or that it does not answer.
pub fn docker(arguments: &[&str]) -> Result<String, String> {
    let doing = format!("docker {}", arguments.join(" "));
    let patience = match arguments.first() {
        Some(&"restart") => RESTART_PATIENCE,
        _ => PATIENCE,
    };
    run(arguments, patience).map_err(|error| format!("{doing}: {error}"))
}

fn run(arguments: &[&str], patience: Duration) -> Result<String, String> {
    let mut command = Command::new("docker");
    // A Ctrl-C is for this program, which then ends in order, and needs the engine for it.
    command.args(arguments).process_group(0);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let said = collect(child.stdout.take());
    let complained = collect(child.stderr.take());
    let mut status = None;
    let ended = until("the command has ended", patience, || {
        status = child.try_wait().map_err(|error| error.to_string())?;
        status.map(drop).ok_or_else(|| "it runs".to_string())
    });
    if let Err(error) = ended {
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    let words = |from: Receiver<String>| from.recv_timeout(LAST_WORDS).unwrap_or_default();
    match status.is_some_and(|status| status.success()) {
        true => Ok(words(said)),
        false => Err(words(complained).trim().to_string()),
    }
}

fn collect(from: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (tell, told) = channel();
    thread::spawn(move || {
        let mut text = String::new();
        let read = from.map(|pipe| pipe.take(ANSWER_MAX).read_to_string(&mut text));
        tell.send(match read {
            Some(Ok(_)) => text,
            _ => String::new(),
        })
    });
    told
}

/// A container, as the engine tells it.
#[derive(Debug)]
pub struct Container {
    pub name: String,
    /// What it is called for good: a container that takes its place has another one.
    pub id: String,
    state: Value,
    networks: Value,
    ports: Value,
    environment: Vec<String>,
}

impl Container {
    /// Asks the engine about all of `names`, which it tells in that order.
    ///
    /// # Errors
    /// Those of [`docker`], which names a container that does not exist.
    pub fn look(names: &[&str]) -> Result<Vec<Container>, String> {
        let said = docker(&[&["inspect", "--type", "container"], names].concat())?;
        let told: Vec<Value> = serde_json::from_str(&said)
            .map_err(|error| format!("docker inspect says what nobody understands: {error}"))?;
        Ok(told.iter().map(Container::read).collect())
    }

    fn read(told: &Value) -> Container {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let environment = told["Config"]["Env"].as_array();
        Container {
            name: text(&told["Name"]).trim_start_matches('/').to_string(),
            id: text(&told["Id"]),
            state: told["State"].clone(),
            networks: told["NetworkSettings"]["Networks"].clone(),
            ports: told["NetworkSettings"]["Ports"].clone(),
            environment: environment.into_iter().flatten().map(text).collect(),
        }
    }

    pub fn is_paused(&self) -> bool {
        self.state["Paused"] == true
    }

    pub fn is_running(&self) -> bool {
        self.state["Running"] == true
    }

    pub fn is_on(&self, network: &str) -> bool {
        self.networks.get(network).is_some()
    }

    /// What keeps it from being well.
    pub fn complaint(&self, network: &str) -> Option<String> {
        let state = self.state["Status"].as_str().unwrap_or("missing");
        let health = self.state["Health"]["Status"].as_str().unwrap_or("healthy");
        let name = &self.name;
        match (state, health) {
            ("running", "healthy") if self.is_on(network) => None,
            ("running", "healthy") => Some(format!("{name} is not on {network}")),
            ("running", health) => Some(format!("{name} is {health}")),
            (state, _) => Some(format!("{name} is {state}")),
        }
    }

    /// Its names on a network, without that which the engine makes of its id.
    pub fn aliases(&self, network: &str) -> Vec<String> {
        let told = self.networks[network]["Aliases"].as_array();
        let mut names: Vec<String> = told
            .into_iter()
            .flatten()
            .filter_map(|alias| alias.as_str())
            .filter(|alias| !self.id.starts_with(alias))
            .map(str::to_string)
            .collect();
        names.dedup();
        names
    }

    /// A variable of its environment that has a value.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let values = self.environment.iter();
        let mut values = values.filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        values.next().filter(|value| !value.is_empty())
    }

    /// Where a port of it is reached from this machine, as an address and a port.
    ///
    /// # Errors
    /// That it is not.
    pub fn published(&self, port: u16) -> Result<(String, u16), String> {
        let first = &self.ports[format!("{port}/tcp")][0];
        let number = first["HostPort"]
            .as_str()
            .and_then(|text| text.parse().ok());
        let number =
            number.ok_or_else(|| format!("port {port} of {} is not published", self.name))?;
        let address = match first["HostIp"].as_str() {
            None | Some("" | "0.0.0.0" | "::") => "127.0.0.1",
            Some(address) => address,
        };
        Ok((address.to_string(), number))
    }
}
