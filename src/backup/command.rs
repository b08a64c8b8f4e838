//! Running pgBackRest: as the right user, with a deadline, and believed only as far as it can be.

use super::failure::{Class, Failure};
use super::info::Stanza;
use super::stanza;
use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::process::{self, Bound, Cut, Process};
use crate::programs::Owner;
use anyhow::Context;
use nix::sys::signal::Signal;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where the backups of both masters are configured, and what it takes to reach them.
#[derive(Clone, Debug)]
pub struct Place {
    folder: PathBuf,
    owner: Owner,
    /// The passphrase of the repositories, when it is not in their own configuration.
    passphrase: Option<crate::config::Secret>,
    /// With which pgBackRest logs in to each master.
    passwords: [Option<crate::config::Secret>; 2],
}

/// Where programs are, for those who run as somebody else.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Asked now and then while something runs: whether nobody wants it any more.
pub type GiveUp<'a> = &'a dyn Fn() -> bool;

/// For what is short enough to be waited for in any case.
pub const NEVER: GiveUp<'static> = &|| false;

/// Whether pgBackRest is installed. Without it a local cluster runs all the same, without backups.
pub fn is_installed() -> bool {
    let mut folders = PATH.split(':');
    folders.any(|folder| Path::new(folder).join("pgbackrest").exists())
}

impl Place {
    /// The place that the configuration names; nothing when it names none.
    ///
    /// # Errors
    /// When there is no user as whom pgBackRest can run.
    pub fn of(config: &Config) -> anyhow::Result<Option<Place>> {
        let Some(folder) = &config.backups.folder else {
            return Ok(None);
        };
        Ok(Some(Place {
            folder: PathBuf::from(folder),
            owner: Owner::find()?,
            passphrase: config.backups.passphrase.clone(),
            passwords: NodeId::BOTH.map(|node| config.master(node).password()),
        }))
    }

    /// The place in a folder, for what needs neither a login nor a passphrase of its own.
    pub fn at(folder: &Path, owner: Owner) -> Place {
        Place {
            folder: folder.to_path_buf(),
            owner,
            passphrase: None,
            passwords: [None, None],
        }
    }

    /// The same for somebody who cannot do without.
    ///
    /// # Errors
    /// When no place is configured.
    pub fn needed(config: &Config) -> anyhow::Result<Place> {
        let why = match is_installed() {
            true => {
                "no local cluster is running, and BACKUP_CONFIG_DIR names no folder with \
                 master1/pgbackrest.conf and master2/pgbackrest.conf"
            }
            false => "pgBackRest is not installed; scripts/install.sh installs it",
        };
        Place::of(config)?.with_context(|| format!("there are no backups here: {why}"))
    }

    /// The folder that holds `pgbackrest.conf` of a master.
    pub fn folder(&self, node: NodeId) -> PathBuf {
        self.folder.join(node.name())
    }

    /// The folder in which there is room for work on a master, beside its spool; that of the configuration may be read-only.
    pub fn scratch(&self, node: NodeId) -> PathBuf {
        let spool = self.option(node, "spool-path").map(PathBuf::from);
        let beside = spool.as_deref().and_then(Path::parent);
        beside.unwrap_or(&self.folder).to_path_buf()
    }

    /// As whom everything runs that touches a data folder.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// What an option is set to in the configuration of a master, in whichever section it stands.
    pub fn option(&self, node: NodeId, name: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.folder(node).join("pgbackrest.conf")).ok()?;
        let values = text.lines().filter_map(|line| line.split_once('='));
        let mut values = values.filter(|(key, _)| key.trim() == name);
        values
            .next_back()
            .map(|(_, value)| value.trim().to_string())
    }

    /// A program that is ended with us, since nobody else would know of it.
    pub(super) fn program(&self, name: impl AsRef<OsStr>) -> Command {
        let with = Path::new("/usr/bin/setpriv");
        let mut command = match with.exists() {
            true => {
                let mut command = Command::new(with);
                command.args(["--pdeathsig", "TERM", "--"]).arg(name);
                command
            }
            false => Command::new(name),
        };
        command
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C.UTF-8")
            // A label is the time of day, and pgBackRest refuses one that is not later than the last: local time repeats an hour
            // each autumn, and leaps when the machine's zone is set.
            .env("TZ", "UTC");
        self.owner.apply(&mut command);
        command
    }

    /// Lets a program read the repositories, such as a server that fetches WAL from there.
    pub fn lend_passphrase(&self, command: &mut Command) {
        if let Some(passphrase) = &self.passphrase {
            command.env("PGBACKREST_REPO1_CIPHER_PASS", passphrase.reveal());
        }
    }

    /// pgBackRest for a master. What it says comes on standard error, where no warning gets between JSON.
    fn command(&self, node: NodeId, arguments: &[&str]) -> Command {
        let mut command = self.program("pgbackrest");
        command
            .arg(format!("--config-path={}", self.folder(node).display()))
            .arg(format!("--stanza={}", stanza(node)))
            .args(["--log-level-console=off", "--log-level-stderr=warn"])
            .args(arguments);
        self.lend_passphrase(&mut command);
        if let Some(password) = &self.passwords[node.index()] {
            command.env("PGPASSWORD", password.reveal());
        }
        command
    }

    /// Runs pgBackRest for a master and returns what it wrote to standard output.
    ///
    /// # Errors
    /// Its failure, told apart by [`Class`].
    pub fn run(
        &self,
        node: NodeId,
        doing: &str,
        arguments: &[&str],
        patience: Duration,
        give_up: GiveUp,
    ) -> Result<String, Failure> {
        let mut command = self.command(node, arguments);
        let fail = |class, cause: String| Failure::new(class, node, doing, cause);
        let bound = Bound {
            patience,
            give_up,
            end: &end,
        };
        let ended = match process::finish(&mut command, &bound) {
            Ok(Ok(ended)) => ended,
            Ok(Err(Cut::GivenUp)) => {
                return Err(fail(Class::Interrupted, "given up".to_string()));
            }
            Ok(Err(Cut::TookTooLong)) => {
                let cause = format!("not done after {} s", patience.as_secs());
                return Err(fail(Class::TookTooLong, cause));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(fail(
                    Class::NotInstalled,
                    format!("run pgbackrest: {error}"),
                ));
            }
            Err(error) => return Err(fail(Class::Other, format!("run pgbackrest: {error}"))),
        };
        let code = ended.status.code();
        if code == Some(0) {
            return Ok(String::from_utf8_lossy(&ended.out).into_owned());
        }
        let said = [ended.err.as_slice(), ended.out.as_slice()].concat();
        let said = String::from_utf8_lossy(&said);
        // What was deciphered with another passphrase has bytes that a terminal obeys.
        let said = said.replace(|letter: char| letter.is_control() && letter != '\n', "?");
        let class = match code {
            // setpriv's own word for a program that is not there.
            Some(127) => Class::NotInstalled,
            code => match Class::of(code, &said) {
                // It tries to write several times, and says what came of the last one: that its file is not there.
                Class::Other | Class::ArchiveBroken if self.is_full(node) => Class::DiskFull,
                class => class,
            },
        };
        Err(fail(class, in_one_line(&said, ended.status)))
    }

    /// Whether the repository of a master has no room left.
    fn is_full(&self, node: NodeId) -> bool {
        let Some(repository) = self.option(node, "repo1-path") else {
            return false;
        };
        nix::sys::statvfs::statvfs(repository.as_str()).is_ok_and(|found| {
            found.blocks_available() * found.fragment_size() < limits::REPOSITORY_ROOM
        })
    }

    /// What pgBackRest knows of the backups of a master. Its exit code says nothing: a stanza that is missing or a repository
    /// that cannot be read is a success to it.
    ///
    /// # Errors
    /// When it cannot be asked, or when what it says cannot be understood.
    pub fn info(&self, node: NodeId) -> Result<Stanza, Failure> {
        let doing = "ask pgBackRest about the backups of";
        let text = self.run(
            node,
            doing,
            &["info", "--output=json"],
            limits::BACKUP_ASK,
            NEVER,
        )?;
        super::info::parse(&text, stanza(node))
            .map_err(|error| Failure::new(Class::Other, node, doing, format!("{error:#}")))
    }
}

/// In an orderly way, so that no half of a backup is taken for a whole one; at once if it does not listen.
fn end(process: Process) {
    process.signal(Signal::SIGTERM);
    if !process.wait_gone(Duration::from_secs(5)) {
        process::kill_family(process);
    }
}

/// Its words without the decoration of the log.
fn in_one_line(said: &str, status: std::process::ExitStatus) -> String {
    let lines = said.lines().map(|line| {
        let line = line.trim();
        let line = line.strip_prefix("ERROR: ").unwrap_or(line);
        // On standard output it has a time and a process number in front.
        line.split_once("ERROR: ").map_or(line, |(_, rest)| rest)
    });
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    match lines.is_empty() {
        true => format!("it said nothing ({status})"),
        false => lines[lines.len().saturating_sub(6)..].join(" | "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pgbackrest_knows_no_time_zone_but_utc() {
        let place = Place::at(Path::new("/configuration"), Owner::find().expect("a user"));
        let command = place.command(NodeId::Master1, &["backup"]);
        let mut set = command.get_envs();
        let found = set.find(|(name, _)| *name == "TZ");
        assert_eq!(found.and_then(|(_, value)| value), Some(OsStr::new("UTC")));
    }
}
