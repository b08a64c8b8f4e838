//! One PostgreSQL server on this machine: made, started, stopped, killed, frozen. Whoever starts one says where its files are and whom it
//! listens to: the local cluster, or the launcher of a master that has a machine or a container of its own.

pub mod archive;
mod holder;

pub use holder::{Holder, ServerState};

use crate::cluster::NodeId;
use crate::config::Secret;
use crate::limits;
use crate::pg::{self, Sessions};
use crate::process::{self, Bound, Process};
use crate::programs::{Owner, Programs};
use anyhow::{Context, bail};
use archive::Archive;
use nix::sys::signal::Signal;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A server of this machine, for one master.
#[derive(Clone, Debug)]
pub struct Master {
    pub node: NodeId,
    pub data: PathBuf,
    /// The folder of its socket.
    pub run: PathBuf,
    pub owner: Owner,
    pub archive: Archive,
    /// The superuser that a new one gets.
    pub user: String,
    pub password: Secret,
    pub listen: Listen,
    /// How long a start may take, crash recovery included.
    pub patience: Duration,
    /// How long an orderly stop may take, its checkpoint included, before the server is stopped without one.
    pub stop_patience: Duration,
    /// More settings, each as its name and value; they win over those of the project.
    pub settings: Vec<(String, String)>,
}

/// Whom a server listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Programs of this machine, with a password.
    Loopback,
    /// Every machine, with a password; and whoever reaches its socket, which is its owner alone, without one.
    Everywhere,
}

impl Listen {
    const fn addresses(self) -> &'static str {
        match self {
            Listen::Loopback => "127.0.0.1",
            Listen::Everywhere => "*",
        }
    }

    /// How initdb makes `pg_hba.conf`.
    const fn authentication(self) -> &'static [&'static str] {
        match self {
            Listen::Loopback => &["-A", "scram-sha-256"],
            Listen::Everywhere => &["--auth-local=trust", "--auth-host=scram-sha-256"],
        }
    }

    /// What `pg_hba.conf` has beside that.
    const fn access(self) -> &'static str {
        match self {
            Listen::Loopback => "",
            Listen::Everywhere => "\nhost all all all scram-sha-256\n",
        }
    }
}

/// Whether the path of a socket in this folder is short enough: it has room for 107 characters (Linux's `sockaddr_un`).
pub fn has_room_for_sockets(folder: &Path) -> bool {
    folder.as_os_str().len() + "/.s.PGSQL.65535".len() <= 107
}

impl Master {
    /// Whether its data folder has been made.
    pub fn exists(&self) -> bool {
        self.data.join("PG_VERSION").exists()
    }

    /// Makes the data folder. It appears under its name only when it is complete, so that a start
    /// that was interrupted begins anew. `durable` is for everything that outlives the day.
    ///
    /// # Errors
    /// What initdb said, or that it was given up.
    pub fn create(
        &self,
        programs: &Programs,
        durable: bool,
        give_up: &dyn Fn() -> bool,
    ) -> anyhow::Result<()> {
        let new = self.data.with_extension("new");
        if new.exists() {
            fs::remove_dir_all(&new).with_context(|| format!("remove {}", new.display()))?;
        }
        self.owner.make_folder(&new)?;
        let password = new.with_extension("password");
        fs::write(&password, self.password.reveal())?;
        self.owner.give(&password)?;
        let mut command = programs.command("initdb", self.owner);
        command
            .arg("-D")
            .arg(&new)
            .args(["-U", &self.user, "-E", "UTF8"])
            .args(self.listen.authentication());
        command
            .arg("--locale=C.UTF-8")
            .arg(format!("--pwfile={}", password.display()));
        if !durable {
            command.arg("--no-sync");
        }
        let bound = Bound {
            patience: limits::SERVER_MAKE,
            give_up,
            end: &process::kill_family,
        };
        let doing = format!("make the data folder of {}", self.node);
        let made = process::run(&mut command, &doing, &bound);
        fs::remove_file(&password)?;
        made?;
        let main = new.join("postgresql.conf");
        let text = fs::read_to_string(&main)?;
        fs::write(&main, format!("{text}\ninclude = 'imdb-ha.conf'\n"))?;
        let access = new.join("pg_hba.conf");
        let text = fs::read_to_string(&access)?;
        fs::write(&access, text + self.listen.access())?;
        // An empty folder of that name is replaced; one with something in it is somebody's, and stays.
        fs::rename(&new, &self.data).with_context(|| {
            format!(
                "make {}; if it is there and holds no data folder, move it away",
                self.data.display()
            )
        })
    }

    /// Writes the settings that depend on this start.
    fn configure(&self, port: u16) -> anyhow::Result<()> {
        // Without a socket TCP is left.
        let sockets = match has_room_for_sockets(&self.run) {
            true => self.run.display().to_string(),
            false => String::new(),
        };
        let text = format!(
            "# Written at each start by imdb-ha; put settings of your own into postgresql.auto.conf with ALTER SYSTEM.\n\n{}\n\
             cluster_name = '{}'\n\
             port = {port}\n\
             listen_addresses = '{}'\n\
             unix_socket_directories = '{}'\n\
             logging_collector = on\n\
             log_directory = 'log'\n\
             log_filename = 'postgresql-%a.log'\n\
             log_truncate_on_rotation = on\n\
             log_rotation_age = 1d\n\
             log_rotation_size = 0\n\
             {}{}",
            include_str!("../../sql/master.conf"),
            self.node,
            self.listen.addresses(),
            sockets.replace('\'', "''"),
            self.archive.settings(),
            self.own_settings(),
        );
        let path = self.data.join("imdb-ha.conf");
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(self.owner.give(&path)?)
    }

    fn own_settings(&self) -> String {
        let line = |(name, value): &(String, String)| {
            format!("{name} = '{}'\n", value.replace('\'', "''"))
        };
        self.settings.iter().map(line).collect()
    }

    /// Starts the server and waits until it accepts connections.
    ///
    /// # Errors
    /// When it runs already or does not come up, with the last lines of its log; or when `give_up` said
    /// so, and then what has begun to start is left to [`Master::stop`].
    pub fn start(
        &self,
        programs: &Programs,
        port: u16,
        give_up: &dyn Fn() -> bool,
    ) -> anyhow::Result<()> {
        if let Some(process) = self.process() {
            let frozen = if process.is_frozen() {
                "frozen (thaw it)"
            } else {
                "running"
            };
            bail!(
                "{} is {frozen} already, as process {}",
                self.node,
                process.pid
            );
        }
        self.remove_stale_locks(port)?;
        self.configure(port)?;
        self.archive.prepare(&self.data);
        let deadline = Instant::now() + limits::SERVER_START.min(self.patience);
        let bound = Bound {
            // It gives up by itself before that.
            patience: self.patience + Duration::from_secs(5),
            give_up,
            end: &|pg_ctl| self.end_start(pg_ctl),
        };
        loop {
            let log = self.data.join("start.log");
            let mut command = programs.command("pg_ctl", self.owner);
            self.archive.lend_passphrase(&mut command);
            command
                .arg("start")
                .arg("-D")
                .arg(&self.data)
                .arg("-l")
                .arg(&log)
                .args(["-s", "-w", "-t"]);
            command.arg(self.patience.as_secs().to_string());
            let doing = format!("start {}", self.node);
            let Err(error) = process::run(&mut command, &doing, &bound) else {
                return Ok(());
            };
            if give_up() {
                return Err(error);
            }
            let last = self.last_words(&log);
            // The children of a killed server hold its shared memory until they notice; they take
            // seconds, or are gone at once when `local kill` ended them too.
            let lingering = last.contains("pre-existing shared memory block");
            if !lingering || Instant::now() >= deadline {
                bail!("{error:#}; its log: {last}");
            }
            std::thread::sleep(Duration::from_millis(250));
        }
    }

    /// Ends a pg_ctl that waits for its server. A server that has its file already is left to
    /// [`Master::stop`], which gives it time; one that has not would be found by nobody.
    fn end_start(&self, pg_ctl: Process) {
        match self.process() {
            Some(_) => pg_ctl.signal(Signal::SIGKILL),
            None => process::kill_family(pg_ctl),
        }
    }

    /// A killed server leaves its lock files, and PostgreSQL believes them for as long as any process
    /// has the id in them, a zombie that nobody has reaped yet included. They are removed unless that
    /// process may be the server; one that only holds its shared memory PostgreSQL notices by itself.
    fn remove_stale_locks(&self, port: u16) -> anyhow::Result<()> {
        // A process that is ending has no command line for a moment.
        let deadline = Instant::now() + Duration::from_secs(1);
        while let Holder::Unclear(why) = self.holder() {
            if Instant::now() >= deadline {
                bail!(
                    "start {}: {why}; end that server, or remove the file if it is another's",
                    self.node
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let socket = self.run.join(format!(".s.PGSQL.{port}"));
        let of_socket = self.run.join(format!(".s.PGSQL.{port}.lock"));
        for path in [self.data.join("postmaster.pid"), of_socket, socket] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The file that the server logs to now; its collector begins another each day and writes the name down.
    pub fn log_file(&self) -> Option<PathBuf> {
        let text = fs::read_to_string(self.data.join("current_logfiles")).ok()?;
        let name = text.lines().find_map(|line| line.strip_prefix("stderr "))?;
        Some(self.data.join(name))
    }

    /// The end of the newer of the two places where a server says why it does not start: what it
    /// prints before its log collector runs, and the log.
    fn last_words(&self, start_log: &Path) -> String {
        let logs = fs::read_dir(self.data.join("log")).into_iter().flatten();
        let newest = logs
            .filter_map(|entry| Some(entry.ok()?.path()))
            .chain([start_log.to_path_buf()])
            .max_by_key(|path| fs::metadata(path).and_then(|file| file.modified()).ok());
        let text = newest
            .and_then(|path| fs::read(path).ok())
            .unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }

    /// Stops it: in order if it can be, at once if it must be. A frozen server is thawed first.
    ///
    /// # Errors
    /// When it is there still, or when it cannot be told whether it is.
    pub fn stop(&self) -> anyhow::Result<()> {
        let process = match self.holder() {
            Holder::Server(process) => process,
            Holder::NotTheServer => return Ok(()),
            Holder::Unclear(why) => bail!("stop {}: {why}", self.node),
        };
        process::thaw_family(process);
        process.signal(Signal::SIGINT);
        if process.wait_gone(self.stop_patience) {
            return Ok(());
        }
        process.signal(Signal::SIGQUIT);
        match process.wait_gone(limits::SERVER_STOP_IMMEDIATE) {
            true => Ok(()),
            false => self.kill(),
        }
    }

    /// SIGKILL to the whole server. Its few bytes of System V shared memory, which mark the data
    /// folder as taken, are removed too, because nobody else would if it is not started again.
    ///
    /// # Errors
    /// When it is there still.
    pub fn kill(&self) -> anyhow::Result<()> {
        let Some(process) = self.process() else {
            return Ok(());
        };
        let marker = fs::read_to_string(self.data.join("postmaster.pid"))
            .ok()
            .and_then(|text| Some(text.lines().nth(6)?.split_whitespace().nth(1)?.to_string()));
        process::kill_family(process);
        if process.lives() {
            bail!("kill {}: process {} lives on", self.node, process.pid);
        }
        if let Some(segment) = marker {
            let mut command = Command::new("ipcrm");
            command
                .args(["-m", &segment])
                .stdout(std::process::Stdio::null());
            let _ = command.stderr(std::process::Stdio::null()).status();
        }
        Ok(())
    }
}

/// Makes a database, unless it is there; `settings` lead to another one of the same server.
///
/// # Errors
/// Those of the server.
pub fn make_database(node: NodeId, settings: pg::Settings, database: &str) -> anyhow::Result<()> {
    // A server that was the active one when it ended still has commits wait for a peer that may be gone.
    let sessions = Sessions::start_patient(node, pg::without_waiting(settings))?;
    let name = database.to_string();
    sessions
        .run(limits::SETUP_CALL, move |session| {
            let found = session.client().query(
                "SELECT FROM pg_catalog.pg_database WHERE datname = $1",
                &[&name],
            )?;
            if found.is_empty() {
                let name = name.replace('"', "\"\"");
                let statement = format!("CREATE DATABASE \"{name}\"");
                session.client().batch_execute(&statement)?;
            }
            Ok(())
        })
        .with_context(|| format!("make the database {database} on {node}"))
}
