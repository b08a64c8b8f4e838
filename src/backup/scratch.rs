//! A server on a restored data folder that nobody else can reach: it listens on a socket in a folder of its owner's, replicates nothing,
//! archives nothing, and ends with us.

use super::command::{GiveUp, Place};
use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::pg::{Session, Sessions};
use crate::process::{self, Process};
use crate::programs::Programs;
use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A folder for one server.
pub struct Scratch {
    pub node: NodeId,
    /// The data folder in it.
    pub data: PathBuf,
    folder: PathBuf,
    programs: Programs,
    user: String,
    database: String,
    child: Option<Child>,
}

/// The port in the socket's name; no TCP port is taken.
const PORT: u16 = 5432;

impl Scratch {
    /// An empty folder for a server like `node`, at `folder`; what an interrupted one left there is removed.
    ///
    /// # Errors
    /// When it cannot be made, or when somebody still serves from it.
    pub fn new(
        place: &Place,
        config: &Config,
        node: NodeId,
        folder: &Path,
    ) -> anyhow::Result<Scratch> {
        let original = place
            .option(node, "pg1-path")
            .with_context(|| format!("pgbackrest.conf of {node} has no pg1-path"))?;
        let programs = Programs::find(config.pg_bin.as_deref(), Path::new(&original))?;
        let url = config.master(node);
        let scratch = Scratch {
            node,
            data: folder.join("data"),
            folder: folder.to_path_buf(),
            programs,
            user: url.user(),
            database: url.database(),
            child: None,
        };
        scratch.remove()?;
        place.owner().make_folder(&scratch.folder)?;
        place.owner().make_folder(&scratch.data)?;
        Ok(scratch)
    }

    /// One of PostgreSQL's programs, ended with us, that reaches this server.
    fn program(&self, place: &Place, name: &str) -> std::process::Command {
        let mut command = place.program(self.programs.path(name));
        command
            .env("PGHOST", &self.folder)
            .env("PGPORT", PORT.to_string())
            .env("PGUSER", &self.user);
        command
    }

    /// Starts the server and waits until it has recovered and takes writes.
    ///
    /// # Errors
    /// The last lines of its log, or that it was given up.
    pub fn start(
        &mut self,
        place: &Place,
        patience: Duration,
        give_up: GiveUp,
    ) -> anyhow::Result<()> {
        // Everyone who reaches the socket is trusted, and that is its owner alone.
        let access = self.folder.join("pg_hba.conf");
        fs::write(&access, "local all all trust\n")?;
        place.owner().give(&access)?;
        let log = fs::File::create(self.log())?;
        let folder = self.folder.display();
        let mut command = self.program(place, "postgres");
        command.arg("-D").arg(&self.data);
        for setting in [
            format!("unix_socket_directories={folder}"),
            format!("hba_file={}", access.display()),
            format!("port={PORT}"),
            "listen_addresses=".to_string(),
            "logging_collector=off".to_string(),
            "log_destination=stderr".to_string(),
            "archive_mode=off".to_string(),
            "synchronous_standby_names=".to_string(),
            // Its subscriptions must not fetch anything under the name of the server that it was.
            "max_logical_replication_workers=0".to_string(),
            "shared_buffers=64MB".to_string(),
            "cluster_name=scratch".to_string(),
        ] {
            command.arg("-c").arg(setting);
        }
        command
            .stdout(log.try_clone()?)
            .stderr(log)
            .stdin(Stdio::null());
        self.child = Some(
            command
                .spawn()
                .context("start a server on what was restored")?,
        );
        let deadline = Instant::now() + patience;
        while !self.is_open(place)? {
            if let Some(status) = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().ok())
                .flatten()
            {
                bail!(
                    "the server on what was restored ended ({status}): {}",
                    self.last_words()
                );
            }
            if give_up() {
                bail!("interrupted");
            }
            if Instant::now() >= deadline {
                bail!(
                    "the server on what was restored has not recovered after {} s: {}",
                    patience.as_secs(),
                    self.last_words()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Whether it has recovered; one that still does answers questions too, or none.
    fn is_open(&self, place: &Place) -> anyhow::Result<bool> {
        if !self.folder.join(format!(".s.PGSQL.{PORT}")).exists() {
            return Ok(false);
        }
        let mut command = self.program(place, "psql");
        command.args([
            "-X",
            "-At",
            "-d",
            "postgres",
            "-c",
            "SELECT pg_catalog.pg_is_in_recovery()",
        ]);
        let bound = process::Bound {
            patience: limits::SCRATCH_ASK,
            give_up: &|| false,
            end: &process::kill_family,
        };
        let ended =
            process::finish(&mut command, &bound).context("ask the server on what was restored")?;
        Ok(ended.is_ok_and(|ended| ended.out.starts_with(b"f")))
    }

    /// Runs one of PostgreSQL's programs against it, such as `pg_amcheck`.
    ///
    /// # Errors
    /// What it said when it failed.
    pub fn run(
        &self,
        place: &Place,
        name: &str,
        arguments: &[&str],
        patience: Duration,
        give_up: GiveUp,
    ) -> anyhow::Result<()> {
        let mut command = self.program(place, name);
        command.args(arguments);
        let bound = process::Bound {
            patience,
            give_up,
            end: &process::kill_family,
        };
        process::run(&mut command, name, &bound)
    }

    /// Does something in its database, which has the name of the original's.
    ///
    /// # Errors
    /// Those of the server, or that it took longer than `patience`.
    pub fn with_session<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl FnOnce(&mut Session) -> Result<T, postgres::Error> + Send + 'static,
    ) -> anyhow::Result<T> {
        let mut settings = postgres::Config::new();
        settings
            .host_path(&self.folder)
            .port(PORT)
            .user(&self.user)
            .dbname(&self.database)
            .connect_timeout(limits::CONNECT_TIMEOUT)
            .application_name("imdb-ha");
        let sessions = Sessions::start_patient(self.node, settings)?;
        Ok(sessions.run(patience, work)?)
    }

    /// Stops the server in an orderly way; its data folder stays.
    ///
    /// # Errors
    /// When it lives on.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        if let Some(process) = Process::with_id(child.id() as i32) {
            process.signal(Signal::SIGINT);
            if !process.wait_gone(limits::SCRATCH_STOP) {
                process::kill_family(process);
            }
            if process.lives() {
                bail!(
                    "the server on what was restored lives on as process {}",
                    process.pid
                );
            }
        }
        let _ = child.wait();
        Ok(())
    }

    /// Removes everything, the data folder included.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remove(&self) -> anyhow::Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.folder.display()))
            }
            _ => Ok(()),
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    fn last_words(&self) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(6)..].join(" | ")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            log::error!("{error:#}");
        }
    }
}
