//! The containers of docker-compose.yml, which somebody has started and goes on using: struck and mended by
//! the engine, and left as they were found.

use crate::docker::{Container, docker};
use crate::lab::{System, not_done_by_system, of_role};
use crate::schedule::{Blow, Role};
use url::Url;

const NETWORK: &str = "imdb-network";
const MASTERS_OF: [&str; 2] = ["imdb-master1", "imdb-master2"];
const REDIS: &str = "imdb-redis";
const API: &str = "imdb-api";
const ALL: [&str; 4] = [MASTERS_OF[0], MASTERS_OF[1], REDIS, API];

pub struct Compose {
    api: String,
    token: Option<String>,
    urls: [String; 2],
    /// The names of each container on the network, in the order of [`ALL`]. Who is cut off loses them.
    aliases: Vec<Vec<String>>,
    /// Whether something has been done that may not have been undone.
    is_struck: bool,
}

impl Compose {
    /// Finds the deployment, whose containers must all be well.
    ///
    /// # Errors
    /// What is not there or not well, and what would set it right.
    pub fn find() -> Result<Compose, String> {
        let found = look().map_err(|error| {
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
            aliases: found
                .iter()
                .map(|container| container.aliases(NETWORK))
                .collect(),
            is_struck: false,
        })
    }

    fn reconnect(&self, name: &str) -> Result<(), String> {
        let index = ALL.iter().position(|one| *one == name);
        let aliases = index.and_then(|index| self.aliases.get(index));
        let mut arguments = vec!["network", "connect"];
        for alias in aliases.into_iter().flatten() {
            arguments.extend(["--alias", alias]);
        }
        arguments.extend([NETWORK, name]);
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
        let master = |role: Role| MASTERS_OF[of_role(role, active)];
        let done = match blow {
            Blow::Kill(role) => docker(&["kill", master(role)]),
            Blow::Freeze(role) => docker(&["pause", master(role)]),
            Blow::Restart(role) => docker(&["restart", master(role)]),
            Blow::Isolate(role) => docker(&["network", "disconnect", NETWORK, master(role)]),
            Blow::KillApi => docker(&["kill", API]),
            Blow::KillRedis => docker(&["kill", REDIS]),
            Blow::CutApi(_) | Blow::CutLink(_) | Blow::Handover => {
                return not_done_by_system(blow);
            }
        };
        done.map(drop)
    }

    /// To the engine a kill is a person's act, so nothing comes back by itself.
    fn mend(&mut self, blow: Blow, active: usize) -> Result<(), String> {
        let master = |role: Role| MASTERS_OF[of_role(role, active)];
        let done = match blow {
            Blow::Kill(role) => docker(&["start", master(role)]),
            Blow::Freeze(role) => docker(&["unpause", master(role)]),
            Blow::Restart(_) => return Ok(()),
            Blow::Isolate(role) => return self.reconnect(master(role)),
            Blow::KillApi => docker(&["start", API]),
            Blow::KillRedis => docker(&["start", REDIS]),
            Blow::CutApi(_) | Blow::CutLink(_) | Blow::Handover => {
                return not_done_by_system(blow);
            }
        };
        done.map(drop)
    }

    fn restore(&mut self) -> Result<(), String> {
        for container in look()? {
            let name = container.name.as_str();
            if container.is_paused() {
                docker(&["unpause", name])?;
            }
            if !container.is_on(NETWORK) {
                self.reconnect(name)?;
            }
            if !container.is_running() {
                docker(&["start", name])?;
            }
        }
        self.is_struck = false;
        Ok(())
    }

    fn parts_are_well(&self) -> Result<(), String> {
        let found = look()?;
        let complaint = found
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

fn look() -> Result<Vec<Container>, String> {
    Container::look(&ALL)
}

/// The URL by which the API reaches a master, as it is from outside its network.
fn url_from_here(api: &Container, variable: &str, master: &Container) -> Result<String, String> {
    let url = api.variable(variable);
    let url = url.ok_or_else(|| format!("{API} has no {variable}"))?;
    let wrong = |what: &str| format!("{variable} of {API}: {what}");
    let mut url = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
    let (address, port) = master.published(5432)?;
    url.set_host(Some(&address))
        .map_err(|error| wrong(&error.to_string()))?;
    url.set_port(Some(port))
        .map_err(|()| wrong("it takes no port"))?;
    Ok(url.into())
}
