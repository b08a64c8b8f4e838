//! The system under test, wherever it runs: what is the same everywhere, by its API and by what the
//! masters themselves say.

use crate::checker::{Mark, Row};
use crate::common::clean_command;
use crate::load::IDS;
use crate::schedule::{Blow, Role};
use postgres::{Client, NoTls};
use serde_json::Value;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

pub const MASTERS: [&str; 2] = ["master1", "master2"];

/// From a heal to everything being as before. A killed master's recovery is the longest part.
pub const RECOVERY: Duration = Duration::from_secs(60);
/// The read of all rows of a master that should answer. One that is frozen never would.
const READ: Duration = Duration::from_secs(10);
/// The removal of all rows of the load at the end, of which a long run makes a hundred thousand.
const REMOVAL: Duration = Duration::from_secs(120);
/// Rows that are removed in one transaction.
const REMOVED_AT_ONCE: i64 = 5_000;
/// An answer of the API to a question of ours; it answers a person's switch within 2 s and anything within 8.
const ASK: Duration = Duration::from_secs(15);
const TURN: Duration = Duration::from_millis(10);

/// How the text of a row of any load begins.
const PREFIX: &str = "caos ";
/// The smallest id that a load chooses by itself, and the end of those that there are.
const IDS_FROM: i64 = 500_000_000;
const IDS_END: i64 = i32::MAX as i64;

/// A place where the system runs: how it is reached, and how faults are done to it there.
pub trait System {
    /// The address of the API.
    fn api(&self) -> &str;

    /// What the API wants from those who move the traffic.
    fn token(&self) -> Option<&str>;

    /// The URL of a master itself, without anything that this program puts in between.
    fn url(&self, node: usize) -> &str;

    /// Whether the database is somebody's, to whom it must be given back as it was.
    fn is_borrowed(&self) -> bool;

    /// Does one thing to it. `active` is the master that served when the fault began.
    ///
    /// # Errors
    /// What could not be done.
    fn strike(&mut self, blow: Blow, active: usize) -> Result<(), String>;

    /// Undoes it.
    ///
    /// # Errors
    /// What could not be undone.
    fn mend(&mut self, blow: Blow, active: usize) -> Result<(), String>;

    /// Undoes whatever is done to it now, also where a strike or a mend has failed.
    ///
    /// # Errors
    /// What is broken still.
    fn restore(&mut self) -> Result<(), String>;

    /// Whether its parts run, as far as their keeper knows.
    ///
    /// # Errors
    /// Which part does not, and what it does instead.
    fn parts_are_well(&self) -> Result<(), String>;
}

pub struct Lab {
    system: Box<dyn System>,
    agent: ureq::Agent,
    /// The master that served at first.
    first: usize,
    pub mark: Mark,
}

impl Lab {
    /// Takes a system over once it is well, within `patience`.
    ///
    /// # Errors
    /// What is not well.
    pub fn take(system: Box<dyn System>, patience: Duration) -> Result<Lab, String> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(ASK));
        let since = SystemTime::UNIX_EPOCH.elapsed();
        let run = since.map_err(|error| error.to_string())?.as_millis();
        let mut lab = Lab {
            system,
            agent: config.build().into(),
            first: 0,
            mark: Mark {
                prefix: format!("{PREFIX}{run:x} "),
                ids_from: IDS_FROM,
            },
        };
        lab.wait_ready(patience)?;
        lab.first = lab.active()?;
        if lab.system.is_borrowed() {
            lab.mark.ids_from = free_ids(lab.system.url(lab.first))?;
        }
        Ok(lab)
    }

    pub fn address(&self) -> String {
        self.system.api().to_string()
    }

    /// The master that serves, as an index.
    pub fn active(&self) -> Result<usize, String> {
        let (_, body) = self.ask("GET", "/active-node")?;
        let named = MASTERS.iter().position(|name| body["active_node"] == *name);
        named.ok_or_else(|| format!("/active-node answers {body}"))
    }

    /// What `/status` says about the writes that are acknowledged now, and why.
    pub fn durability_and_reason(&self) -> Result<(String, String), String> {
        let (_, body) = self.ask("GET", "/status")?;
        let text = |name: &str| body["durability"][name].as_str().unwrap_or("").to_string();
        Ok((text("level"), text("reason")))
    }

    /// What `/health` says about the writes that are acknowledged now.
    pub fn durability(&self) -> Result<String, String> {
        let (_, body) = self.ask("GET", "/health")?;
        Ok(body["durability"].as_str().unwrap_or("").to_string())
    }

    /// What the history has, newest first.
    pub fn history(&self) -> Result<Vec<Value>, String> {
        match self.ask("GET", "/history?limit=100")? {
            (200, body) => Ok(body["data"].as_array().cloned().unwrap_or_default()),
            (status, body) => Err(format!("/history answers {status} {body}")),
        }
    }

    /// How many walsenders the API has woken.
    pub fn wakeups(&self) -> Result<u64, String> {
        let (_, metrics) = self.ask("GET", "/metrics")?;
        let counted = metrics.as_str().unwrap_or_default().lines();
        Ok(counted
            .filter(|line| line.starts_with("imdb_ha_walsender_wakeups_total{"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>() as u64)
    }

    /// Does one thing to the system. `active` is the master that served when the fault began.
    pub fn strike(&mut self, blow: Blow, active: usize) -> Result<(), String> {
        match blow {
            Blow::Handover => self.switch(1 - active),
            blow => self.system.strike(blow, active),
        }
    }

    /// Undoes it.
    pub fn mend(&mut self, blow: Blow, active: usize) -> Result<(), String> {
        match blow {
            Blow::Handover => {
                self.wait_ready(RECOVERY)?;
                self.switch(active)
            }
            blow => self.system.mend(blow, active),
        }
    }

    /// Waits until another master than `active` serves.
    pub fn wait_moved(&self, active: usize, patience: Duration) -> Result<(), String> {
        until("the traffic is moved", patience, || {
            let now = self.active()?;
            let (status, body) = self.ask("GET", "/health")?;
            match now != active && status == 200 {
                true => Ok(()),
                false => Err(format!("{} is active, /health says {body}", MASTERS[now])),
            }
        })
    }

    /// Waits until a master serves and both are up.
    pub fn wait_up(&self, patience: Duration) -> Result<(), String> {
        until("both masters are up", patience, || self.are_up())
    }

    fn are_up(&self) -> Result<(), String> {
        let (status, body) = self.ask("GET", "/status")?;
        let up = |name: &&str| body["masters"][name]["state"] == "up";
        match MASTERS.iter().all(up) && body["serving"] == true {
            true => Ok(()),
            false => Err(format!("/status says {status} {body}")),
        }
    }

    /// Waits until a master serves, both are up and stream to each other, writes are as safe as the API
    /// promises at best, it takes commands again, and every part runs.
    pub fn wait_ready(&self, patience: Duration) -> Result<(), String> {
        until("all is well", patience, || {
            let (status, health) = self.ask("GET", "/health")?;
            if status != 200 || health["durability"] == "degraded" {
                return Err(format!("/health says {status} {health}"));
            }
            let (_, body) = self.ask("GET", "/status")?;
            if body["role"]["name"] != "leader" {
                return Err(format!("the API's role is {}", body["role"]));
            }
            for name in MASTERS {
                let master = &body["masters"][name];
                if master["state"] != "up" {
                    return Err(format!(
                        "{name} is {}: {}",
                        master["state"], master["reason"]
                    ));
                }
            }
            self.both_stream()?;
            self.system.parts_are_well()
        })
    }

    /// All rows of one master whose text begins with `prefix`, read from itself.
    pub fn rows(&self, node: usize, prefix: &str) -> Result<Vec<Row>, String> {
        let prefix = prefix.to_string();
        let read = ask_master(self.system.url(node), READ, move |client| {
            read_rows(client, &prefix)
        });
        read.map_err(|error| format!("read the rows of {}: {error}", MASTERS[node]))
    }

    /// Gives a system back that is somebody's: whole, without the rows of the load, and with the traffic
    /// where it was. One that was made for the run ends with it.
    ///
    /// # Errors
    /// What is left for a person to do.
    pub fn give_back(&mut self) -> Result<(), String> {
        if !self.system.is_borrowed() {
            return Ok(());
        }
        let restored = self.system.restore();
        let whole = restored.and_then(|()| self.wait_ready(RECOVERY));
        // Also where something else is wrong: nobody misses them.
        let removed = self.remove_rows().map_err(|error| {
            let prefix = &self.mark.prefix;
            format!("{error}; rows whose text begins with '{prefix}' are left")
        });
        let wrong: Vec<String> = [whole, removed]
            .into_iter()
            .filter_map(Result::err)
            .collect();
        if !wrong.is_empty() {
            return Err(wrong.join("; "));
        }
        match self.active()? == self.first {
            true => Ok(()),
            false => self.switch(self.first),
        }
    }

    fn remove_rows(&self) -> Result<(), String> {
        let prefix = self.mark.prefix.clone();
        let removed = ask_master(self.system.url(self.active()?), REMOVAL, move |client| {
            let some = "DELETE FROM public.generos WHERE id_genero IN \
                        (SELECT id_genero FROM public.generos WHERE starts_with(genero, $1) LIMIT $2)";
            while client.execute(some, &[&prefix, &REMOVED_AT_ONCE])? > 0 {}
            Ok(())
        });
        removed.map_err(|error| format!("remove the rows of the load: {error}"))?;
        until("the rows of the load are gone", RECOVERY, || {
            (0..MASTERS.len()).try_for_each(|node| {
                match self.rows(node, &self.mark.prefix)?.len() {
                    0 => Ok(()),
                    count => Err(format!("{} has {count} still", MASTERS[node])),
                }
            })
        })
    }

    /// By the program's own command, which asks both masters.
    fn both_stream(&self) -> Result<(), String> {
        let mut command = clean_command();
        command.args(["replication", "status", "--json"]);
        for node in 0..MASTERS.len() {
            command.env(format!("MASTER{}_URL", node + 1), self.system.url(node));
        }
        let output = command.output();
        let output = output.map_err(|error| format!("run imdb-ha replication status: {error}"))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stdout).trim().to_string()),
        }
    }

    fn ask(&self, method: &str, path: &str) -> Result<(u16, Value), String> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.system.api()));
        if let Some(token) = self.system.token() {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let answered = self.agent.run(request.body(()).expect("a request"));
        let read = answered.and_then(|mut response| {
            let text = response.body_mut().read_to_string()?;
            Ok((response.status().as_u16(), text))
        });
        let (status, text) = read.map_err(|error| format!("{method} {path}: {error}"))?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok((status, body))
    }

    /// Moves the traffic; it is refused while its target is not fit.
    pub fn switch(&self, to: usize) -> Result<(), String> {
        let path = ["/switch-to-primary", "/switch-to-secondary"][to];
        match self.ask("POST", path)? {
            (200, _) => Ok(()),
            (status, body) => Err(format!("POST {path}: {status} {body}")),
        }
    }
}

/// Which master a role is, as an index.
pub fn of_role(role: Role, active: usize) -> usize {
    match role {
        Role::Active => active,
        Role::Passive => 1 - active,
    }
}

/// The answer to a blow that a place does not have, or that is asked of the API.
pub fn not_done_by_system(blow: Blow) -> Result<(), String> {
    Err(format!("{blow:?} is not done to the system here"))
}

/// Does something on a master that may be frozen or out of reach: nobody waits for longer than `patience`.
fn ask_master<T: Send + 'static>(
    url: &str,
    patience: Duration,
    work: impl FnOnce(&mut Client) -> Result<T, postgres::Error> + Send + 'static,
) -> Result<T, String> {
    let (url, (tell, told)) = (url.to_string(), mpsc::channel());
    thread::spawn(move || {
        let done = Client::connect(&url, NoTls).and_then(|mut client| work(&mut client));
        tell.send(done.map_err(|error| format!("{error:?}")))
    });
    told.recv_timeout(patience)
        .unwrap_or_else(|_| Err(format!("no answer within {} s", patience.as_secs())))
}

fn read_rows(client: &mut Client, prefix: &str) -> Result<Vec<Row>, postgres::Error> {
    let rows = client.query(
        "SELECT id_genero::bigint, genero, g::text FROM public.generos AS g WHERE starts_with(genero, $1)",
        &[&prefix],
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

/// Where the ids of the load may begin in a database that has rows of its own.
fn free_ids(url: &str) -> Result<i64, String> {
    let count = IDS as i64;
    let found = ask_master(url, READ, move |client| {
        let free = "SELECT begins FROM generate_series($1::bigint, $2, $3) AS begins WHERE NOT EXISTS (\
                    SELECT FROM public.generos WHERE id_genero >= begins AND id_genero < begins + $3) \
                    ORDER BY begins LIMIT 1";
        let row = client.query_opt(free, &[&IDS_FROM, &(IDS_END - count), &count])?;
        row.map(|row| row.try_get(0)).transpose()
    });
    found
        .map_err(|error| format!("look for ids that are free: {error}"))?
        .ok_or_else(|| format!("there are no {count} ids free in a row from {IDS_FROM} on"))
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
