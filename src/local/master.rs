//! One PostgreSQL server on this machine: made, started, stopped, killed, frozen.

use super::archive::Archive;
use super::holder::Holder;
use super::layout::Layout;
use crate::cluster::NodeId;
use crate::config::SecretUrl;
use crate::limits;
use crate::process::{self, Bound, Process};
use crate::programs::{Owner, Programs};
use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use url::Url;

/// The manual's names for the local servers.
const USER: &str = "root";
const PASSWORD: &str = "root";
/// The manual's database.
pub const DATABASE: &str = "bases2-db";

/// A master of the local cluster.
#[derive(Clone, Debug)]
pub struct Master {
    pub node: NodeId,
    pub data: PathBuf,
    run: PathBuf,
    owner: Owner,
    archive: Archive,
}

/// Whether the path of a socket in this folder is short enough: it has room for 107 characters (Linux's `sockaddr_un`).
pub fn has_room_for_sockets(folder: &Path) -> bool {
    folder.as_os_str().len() + "/.s.PGSQL.65535".len() <= 107
}

impl Master {
    pub fn new(layout: &Layout, node: NodeId, owner: Owner) -> Master {
        Master {
            node,
            data: layout.master(node),
            run: layout.run(),
            owner,
            archive: Archive::new(layout, node, owner),
        }
    }

    /// Its connection string at `port`, for `database`.
    pub fn url(port: u16, database: &str) -> anyhow::Result<SecretUrl> {
        let text = format!("postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/{database}");
        Ok(SecretUrl::new(Url::parse(&text)?))
    }

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
        fs::write(&password, PASSWORD)?;
        self.owner.give(&password)?;
        let mut command = programs.command("initdb", self.owner);
        command
            .arg("-D")
            .arg(&new)
            .args(["-U", USER, "-A", "scram-sha-256", "-E", "UTF8"]);
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
            "# Written at each start by `imdb-ha local up`; put settings of your own into postgresql.auto.conf\n\
             # with ALTER SYSTEM.\n\n{}\n\
             cluster_name = '{}'\n\
             port = {port}\n\
             listen_addresses = '127.0.0.1'\n\
             unix_socket_directories = '{}'\n\
             logging_collector = on\n\
             log_directory = 'log'\n\
             log_filename = 'postgresql-%a.log'\n\
             log_truncate_on_rotation = on\n\
             log_rotation_age = 1d\n\
             log_rotation_size = 0\n\
             {}",
            include_str!("../../sql/master.conf"),
            self.node,
            sockets.replace('\'', "''"),
            self.archive.settings(),
        );
        let path = self.data.join("imdb-ha.conf");
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(self.owner.give(&path)?)
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
        self.archive.prepare(&self.data, &self.run, port);
        let deadline = Instant::now() + limits::SERVER_START;
        let bound = Bound {
            // It gives up by itself before that.
            patience: limits::SERVER_START + Duration::from_secs(5),
            give_up,
            end: &|pg_ctl| self.end_start(pg_ctl),
        };
        loop {
            let log = self.data.join("start.log");
            let mut command = programs.command("pg_ctl", self.owner);
            command
                .arg("start")
                .arg("-D")
                .arg(&self.data)
                .arg("-l")
                .arg(&log)
                .args(["-s", "-w", "-t"]);
            command.arg(limits::SERVER_START.as_secs().to_string());
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
        if process.wait_gone(limits::SERVER_STOP_FAST) {
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
