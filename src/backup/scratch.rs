//! A server on a restored data folder that nobody else can reach: it listens on a socket in a folder of its owner's, replicates nothing,
//! archives nothing, and ends with us.

use super::apart;
use super::command::{GiveUp, Place};
use super::sockets::{self, PORT};
use super::tablespaces;
use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::pg::{self, Session, Sessions};
use crate::process::{self, Process};
use crate::programs::Programs;
use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A folder for one server.
pub struct Scratch {
    pub node: NodeId,
    /// The data folder in it.
    pub data: PathBuf,
    folder: PathBuf,
    /// Where its socket is: the folder, unless that has a name too long for a socket.
    sockets: PathBuf,
    /// The folders beside its own that are its tablespaces'.
    pub tablespaces: Vec<PathBuf>,
    programs: Programs,
    /// Who may be asked for in turn until one of them is there: what was restored may be older than a role. In the end its superuser.
    users: Vec<String>,
    database: String,
    child: Option<Child>,
}

/// Why a server on restored data does not serve.
#[derive(Debug)]
pub enum NotServing {
    Interrupted,
    /// It goes on recovering, or does not answer.
    TookTooLong(String),
    /// It ended by itself, or by a signal; what it said is in [`Scratch::said`].
    Ended(String, bool),
}

impl std::fmt::Display for NotServing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NotServing::Interrupted => f.write_str("interrupted"),
            NotServing::TookTooLong(cause) | NotServing::Ended(cause, _) => f.write_str(cause),
        }
    }
}

impl std::error::Error for NotServing {}

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
        let mut scratch = Scratch {
            node,
            data: folder.join("data"),
            folder: folder.to_path_buf(),
            sockets: folder.to_path_buf(),
            tablespaces: vec![folder.to_path_buf()],
            programs,
            users: apart::logins(place, node, url.user()),
            database: url.database(),
            child: None,
        };
        scratch.end_leftovers()?;
        tablespaces::remove_mapped(place, folder, Path::new(&original))?;
        scratch.remove()?;
        place.owner().make_folder(&scratch.folder)?;
        place.owner().make_folder(&scratch.data)?;
        scratch.sockets = sockets::place(&scratch.folder, place.owner())?;
        Ok(scratch)
    }

    /// The folder that holds everything of it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A path beside the data folder, removed along with it.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Whether PostgreSQL's program of that name is installed.
    pub fn has(&self, name: &str) -> bool {
        self.programs.path(name).exists()
    }

    /// Ends what somebody left here who was killed: in the moment before the kernel is told to end it with its parent, nobody
    /// would. Whoever works here has claimed the backups, so none of it is anybody's.
    fn end_leftovers(&self) -> anyhow::Result<()> {
        let left = || {
            let here = self.folder.as_os_str().as_bytes();
            Process::naming(here, &["postgres", "pgbackrest", "setpriv"])
        };
        for process in left() {
            log::warn!(
                "ending process {}, which an interrupted one left in {}",
                process.pid,
                self.folder.display()
            );
            end(process);
        }
        match left().first() {
            Some(process) => bail!(
                "process {} still uses {}",
                process.pid,
                self.folder.display()
            ),
            None => Ok(()),
        }
    }

    /// One of PostgreSQL's programs, ended with us, that reaches this server.
    fn program(&self, place: &Place, name: &str) -> std::process::Command {
        let mut command = place.program(self.programs.path(name));
        command
            .env("PGHOST", &self.sockets)
            .env("PGPORT", PORT.to_string())
            .env("PGUSER", self.user());
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
        let access = self.access();
        fs::write(&access, "local all all trust\n")?;
        place.owner().give(&access)?;
        apart::see_file(place, &self.data)?;
        tablespaces::close(place, &self.data, &self.tablespaces)?;
        let log = fs::File::create(self.log())?;
        let mut command = self.program(place, "postgres");
        place.lend_passphrase(&mut command);
        command.arg("-D").arg(&self.data);
        for setting in apart::settings(&self.data, &self.sockets, &self.access()) {
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
                let cause = format!(
                    "the server on what was restored ended ({status}): {}",
                    self.last_words()
                );
                bail!(NotServing::Ended(cause, status.signal().is_some()));
            }
            if give_up() {
                bail!(NotServing::Interrupted);
            }
            if Instant::now() >= deadline {
                let cause = format!(
                    "the server on what was restored has not recovered after {} s: {}",
                    patience.as_secs(),
                    self.last_words()
                );
                bail!(NotServing::TookTooLong(cause));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        tablespaces::open(&self.data)
    }

    fn user(&self) -> &str {
        self.users.first().map_or("postgres", String::as_str)
    }

    /// Who may connect, as a file beside the data folder.
    fn access(&self) -> PathBuf {
        self.beside("pg_hba.conf")
    }

    /// Whether it has recovered; one that still does answers questions too, or none.
    fn is_open(&mut self, place: &Place) -> anyhow::Result<bool> {
        if !self.sockets.join(format!(".s.PGSQL.{PORT}")).exists() {
            return Ok(false);
        }
        let mut command = self.program(place, "psql");
        command.args([
            "-X",
            "-At",
            "-d",
            "postgres",
            "-c",
            "SELECT pg_catalog.pg_is_in_recovery(), rolname FROM pg_catalog.pg_roles WHERE oid = 10",
        ]);
        let bound = process::Bound {
            patience: limits::SCRATCH_ASK,
            give_up: &|| false,
            end: &process::kill_family,
        };
        let ended =
            process::finish(&mut command, &bound).context("ask the server on what was restored")?;
        let Ok(ended) = ended else {
            return Ok(false);
        };
        let said = String::from_utf8_lossy(&ended.out);
        if let Some(superuser) = said.trim_end_matches('\n').strip_prefix("f|") {
            // Everybody is trusted here, and checking every page takes the one that initdb made.
            self.users = vec![superuser.to_string()];
            return Ok(true);
        }
        if String::from_utf8_lossy(&ended.err).contains("does not exist") {
            self.users.rotate_left(1);
        }
        Ok(false)
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
        let settings = pg::over_socket(&self.sockets, PORT, self.user(), &self.database);
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
        // One that has been waited for has left its id to others.
        let ended = child.try_wait().is_ok_and(|status| status.is_some());
        if let Some(process) = Process::with_id(child.id() as i32).filter(|_| !ended) {
            end(process);
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
        sockets::remove(&self.folder)?;
        tablespaces::open(&self.data)?;
        // Whoever was ended a moment ago may still be writing into it.
        let deadline = Instant::now() + limits::SCRATCH_REMOVE;
        loop {
            match remove_folder(&self.folder) {
                Err(_) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                outcome => return outcome,
            }
        }
    }

    /// All that the server has said.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log()).unwrap_or_default()).into_owned()
    }

    fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    fn last_words(&self) -> String {
        let text = self.said();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(6)..].join(" | ")
    }
}

/// In an orderly way if that is quick, else at once.
fn end(process: Process) {
    process::thaw_family(process);
    process.signal(Signal::SIGINT);
    if !process.wait_gone(limits::SCRATCH_STOP) {
        process::kill_family(process);
    }
}

fn remove_folder(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            log::error!("{error:#}");
        }
    }
}
