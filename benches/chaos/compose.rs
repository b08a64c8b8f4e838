//! The containers of docker-compose.yml, which somebody has started and goes on using: struck and mended by
//! the engine, and left as they were found.

use crate::docker::{Container, docker};
use crate::lab::{System, not_done_by_system, of_role};
use crate::schedule::{Blow, Role};
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use url::Url;

const NETWORK: &str = "imdb-network";
/// The containers, the masters first.
const NAMES: [&str; 4] = ["imdb-master1", "imdb-master2", "imdb-redis", "imdb-api"];
const REDIS: usize = 2;
const API: usize = 3;
/// A name that one process of this machine has, until it ends. Two runs would find each other's faults.
const CLAIM: &str = "imdb-ha chaos on compose";

pub struct Compose {
    api: String,
    token: Option<String>,
    urls: [String; 2],
    /// As they were found. They go by their ids: who replaces one meanwhile must not be struck.
    found: Vec<Container>,
    /// Held for as long as the run lasts.
    _claim: UnixListener,
    /// Whether something has been done that may not have been undone.
    is_struck: bool,
}

impl Compose {
    /// Finds the deployment, whose containers must all be well.
    ///
    /// # Errors
    /// What is not there or not well, and what would set it right.
    pub fn find() -> Result<Compose, String> {
        let claim = claim()?;
        let found = Container::look(&NAMES).map_err(|error| {
            format!("{error}\n`docker compose up --detach --wait` starts the deployment")
        })?;
        let complaints: Vec<String> = found
            .iter()
            .filter_map(|container| container.complaint(NETWORK))
            .collect();
        if !complaints.is_empty() {
            return Err(format!(
                "the deployment is not well: {}\n`docker compose up --detach --wait` starts what has ended; \
                 `docker unpause NAME` and `docker network connect {NETWORK} NAME` undo the rest",
                complaints.join(", ")
            ));
        }
        let [first, second, _, api] = &found[..] else {
            return Err(format!("docker tells {} containers", found.len()));
        };
        let (address, port) = api.published(5000)?;
        Ok(Compose {
            api: format!("http://{address}:{port}"),
            token: api.variable("ADMIN_TOKEN").map(str::to_string),
            urls: [
                url_from_here(api, "MASTER1_URL", first)?,
                url_from_here(api, "MASTER2_URL", second)?,
            ],
            found,
            _claim: claim,
            is_struck: false,
        })
    }

    fn id(&self, index: usize) -> &str {
        &self.found[index].id
    }

    /// How the containers are now.
    ///
    /// # Errors
    /// That one is gone, in favour of a new one or not: somebody else is at work here.
    fn look(&self) -> Result<Vec<Container>, String> {
        let now = Container::look(&NAMES)?;
        let new = now
            .iter()
            .zip(&self.found)
            .find(|(now, then)| now.id != then.id);
        match new {
            None => Ok(now),
            Some((now, _)) => Err(format!(
                "{} is another container than at the start: somebody else is at work here",
                now.name
            )),
        }
    }

    /// Undoes what is done to one container now.
    fn restore_one(&self, index: usize) -> Result<(), String> {
        let id = self.id(index);
        let now = Container::look(&[id]);
        let now = now.map_err(|error| format!("look at {}: {error}", NAMES[index]))?;
        for now in now {
            if now.is_paused() {
                docker(&["unpause", id])?;
            }
            if !now.is_on(NETWORK) {
                self.reconnect(index)?;
            }
            if !now.is_running() {
                docker(&["start", id])?;
            }
        }
        Ok(())
    }

    /// Who was cut off has lost its names.
    fn reconnect(&self, index: usize) -> Result<(), String> {
        let aliases = self.found[index].aliases(NETWORK);
        let mut arguments = vec!["network", "connect"];
        for alias in &aliases {
            arguments.extend(["--alias", alias]);
        }
        arguments.extend([NETWORK, self.id(index)]);
        docker(&arguments).map(drop)
    }
}

impl System for Compose {
    fn api(&self) -> &str {
        &self.api
    }

    fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    fn url(&self, node: usize) -> &str {
        &self.urls[node]
    }

    fn is_borrowed(&self) -> bool {
        true
    }

    fn strike(&mut self, blow: Blow, active: usize) -> Result<(), String> {
        self.is_struck = true;
        let master = |role: Role| self.id(of_role(role, active));
        let done = match blow {
            Blow::Kill(role) => docker(&["kill", master(role)]),
            Blow::Freeze(role) => docker(&["pause", master(role)]),
            Blow::Restart(role) => docker(&["restart", master(role)]),
            Blow::Isolate(role) => docker(&["network", "disconnect", NETWORK, master(role)]),
            Blow::KillApi => docker(&["kill", self.id(API)]),
            Blow::KillRedis => docker(&["kill", self.id(REDIS)]),
            Blow::CutApi(_) | Blow::CutLink(_) | Blow::Handover => {
                return not_done_by_system(blow);
            }
        };
        done.map(drop)
    }

    /// To the engine a kill is a person's act, so nothing comes back by itself.
    fn mend(&mut self, blow: Blow, active: usize) -> Result<(), String> {
        let master = |role: Role| self.id(of_role(role, active));
        let done = match blow {
            Blow::Kill(role) => docker(&["start", master(role)]),
            Blow::Freeze(role) => docker(&["unpause", master(role)]),
            Blow::Restart(_) => return Ok(()),
            Blow::Isolate(role) => return self.reconnect(of_role(role, active)),
            Blow::KillApi => docker(&["start", self.id(API)]),
            Blow::KillRedis => docker(&["start", self.id(REDIS)]),
            Blow::CutApi(_) | Blow::CutLink(_) | Blow::Handover => {
                return not_done_by_system(blow);
            }
        };
        done.map(drop)
    }

    fn restore(&mut self) -> Result<(), String> {
        self.is_struck = false;
        let failed: Vec<String> = (0..NAMES.len())
            .filter_map(|index| self.restore_one(index).err())
            .collect();
        match failed.is_empty() {
            true => Ok(()),
            false => Err(failed.join(", ")),
        }
    }

    fn parts_are_well(&self) -> Result<(), String> {
        let now = self.look()?;
        let complaint = now
            .iter()
            .find_map(|container| container.complaint(NETWORK));
        complaint.map_or(Ok(()), Err)
    }
}

impl Drop for Compose {
    /// For a run that ended in the middle of a fault, by a panic.
    fn drop(&mut self) {
        if self.is_struck {
            if let Err(error) = self.restore() {
                eprintln!("chaos: the deployment is not as it was: {error}");
            }
        }
    }
}

fn claim() -> Result<UnixListener, String> {
    let bound =
        SocketAddr::from_abstract_name(CLAIM).and_then(|address| UnixListener::bind_addr(&address));
    bound.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => "another run strikes the deployment already".to_string(),
        _ => format!("claim the deployment for this run: {error}"),
    })
}

/// The URL by which the API reaches a master, as it is from outside its network.
fn url_from_here(api: &Container, variable: &str, master: &Container) -> Result<String, String> {
    let url = api.variable(variable);
    let url = url.ok_or_else(|| format!("{} has no {variable}", api.name))?;
    let wrong = |what: &str| format!("{variable} of {}: {what}", api.name);
    let mut url = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
    let (address, port) = master.published(5432)?;
    url.set_host(Some(&address))
        .map_err(|error| wrong(&error.to_string()))?;
    // What it says of certificates is meant for the other side of the engine.
    url.set_query(None);
    url.set_port(Some(port))
        .map_err(|()| wrong("it takes no port"))?;
    Ok(url.into())
}
