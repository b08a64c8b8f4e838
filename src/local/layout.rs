//! Where the local cluster lives: its folder, what is in it, and the file that says what runs; which
//! programs its masters run, and as whom.

use super::process::Process;
use crate::cluster::NodeId;
use crate::config::Config;
use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The oldest PostgreSQL that knows `origin = none`.
const OLDEST_POSTGRES: u32 = 16;
/// Where the packages of PostgreSQL are, a folder for each version.
const INSTALLED: &str = "/usr/lib/postgresql";

/// The folder of a local cluster.
#[derive(Clone, Debug)]
pub struct Layout {
    pub root: PathBuf,
    /// Whether it is another than this user's default, so that other commands must be told.
    pub named: bool,
}

/// What runs, as `up` wrote it down for the other commands. It holds no password.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// The process of `up`.
    pub up: Process,
    pub api: Option<Process>,
    pub redis: Option<Process>,
    pub ports: Ports,
    /// The address that the API listens on.
    pub bind: String,
    /// Whether the API has answered since the start.
    pub ready: bool,
}

/// The ports in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    pub api: u16,
    pub masters: [u16; 2],
    pub redis: u16,
}

impl Layout {
    /// The folder that the configuration names, or the default of this user.
    ///
    /// # Errors
    /// When there is neither.
    pub fn of(config: &Config) -> anyhow::Result<Layout> {
        let root = match (&config.data, Uid::effective().is_root(), &config.home) {
            (Some(data), ..) => PathBuf::from(data),
            (None, true, _) => PathBuf::from("/var/lib/imdb-ha"),
            (None, false, Some(home)) => Path::new(home).join(".local/state/imdb-ha"),
            (None, false, None) => bail!("HOME is not set; name a folder with --data"),
        };
        Ok(Layout {
            root: std::path::absolute(&root)?,
            named: config.data.is_some(),
        })
    }

    /// The data folder of a master.
    pub fn master(&self, node: NodeId) -> PathBuf {
        self.root.join(node.name())
    }

    pub fn redis(&self) -> PathBuf {
        self.root.join("redis")
    }

    /// Sockets of the masters.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// What the API logs.
    pub fn api_log(&self) -> PathBuf {
        self.root.join("api.log")
    }

    /// What a detached `up` prints.
    pub fn up_log(&self) -> PathBuf {
        self.root.join("up.log")
    }

    fn state_file(&self) -> PathBuf {
        self.root.join("state.json")
    }

    /// What runs, if anything was started in this folder and not stopped.
    ///
    /// # Errors
    /// A file that cannot be read or understood.
    pub fn state(&self) -> anyhow::Result<Option<State>> {
        let path = self.state_file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        serde_json::from_str(&text)
            .with_context(|| format!("understand {}", path.display()))
            .map(Some)
    }

    /// Writes down what runs; a reader sees the old or the new state, never half of one.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_state(&self, state: &State) -> anyhow::Result<()> {
        let path = self.state_file();
        let new = path.with_extension("json.new");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(serde_json::to_string_pretty(state)?.as_bytes())?;
            fs::rename(&new, &path)
        };
        write().with_context(|| format!("write {}", path.display()))
    }

    /// Forgets what ran.
    pub fn remove_state(&self) {
        let _ = fs::remove_file(self.state_file());
    }

    /// Makes the folder and claims it for this process, for as long as the result is kept.
    ///
    /// # Errors
    /// When it cannot be made, or when another `up` has it.
    pub fn claim(&self) -> anyhow::Result<Flock<File>> {
        fs::create_dir_all(&self.root)
            .with_context(|| format!("make the folder {}", self.root.display()))?;
        let path = self.root.join("up.lock");
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        // A process that was killed holds its lock until the last of its threads has ended.
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut file = file;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(lock),
                Err((unlocked, _)) if Instant::now() < deadline => file = unlocked,
                Err(_) => bail!(
                    "a local cluster is running in {} already; `imdb-ha local status` shows it and \
                     `imdb-ha local down` stops it",
                    self.root.display()
                ),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Whom the servers run as. PostgreSQL refuses to run as root, so root runs them as `postgres`.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// Nothing when the servers run as whoever started them.
    other: Option<(u32, u32)>,
}

impl Owner {
    /// The owner for this user.
    ///
    /// # Errors
    /// As root, when there is no user `postgres`.
    pub fn find() -> anyhow::Result<Owner> {
        if !Uid::effective().is_root() {
            return Ok(Owner { other: None });
        }
        match User::from_name("postgres")? {
            Some(user) => Ok(Owner {
                other: Some((user.uid.as_raw(), user.gid.as_raw())),
            }),
            None => bail!(
                "PostgreSQL does not run as root and there is no user postgres; install PostgreSQL's \
                 package or start as another user"
            ),
        }
    }

    /// Makes `command` run as the owner, in a process group of its own, so that a Ctrl-C in the
    /// terminal reaches only the one who stops everything in order.
    pub fn apply(self, command: &mut std::process::Command) {
        use std::os::unix::process::CommandExt;
        if let Some((uid, gid)) = self.other {
            command.uid(uid).gid(gid);
        }
        command
            .process_group(0)
            .stdin(std::process::Stdio::null())
            .current_dir("/");
    }

    /// Makes a folder that belongs to the owner and nobody else.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn make_folder(self, path: &Path) -> anyhow::Result<()> {
        let make = || -> std::io::Result<()> {
            fs::create_dir_all(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
            self.give(path)
        };
        make().with_context(|| format!("make the folder {}", path.display()))
    }

    /// Gives a file to the owner.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn give(self, path: &Path) -> std::io::Result<()> {
        match self.other {
            Some((uid, gid)) => chown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }

    /// Checks that the owner gets to `path` at all; root's home is closed to everyone else.
    ///
    /// # Errors
    /// When it does not.
    pub fn check_reach(self, path: &Path) -> anyhow::Result<()> {
        let mut command = std::process::Command::new("/bin/sh");
        command
            .args(["-c", "cd \"$1\"", "sh"])
            .arg(path)
            .stderr(std::process::Stdio::null());
        self.apply(&mut command);
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            _ => bail!(
                "the user postgres, as whom the masters run, cannot reach {}; name another folder with --data",
                path.display()
            ),
        }
    }
}

/// PostgreSQL's programs.
#[derive(Clone, Debug)]
pub struct Programs(PathBuf);

impl Programs {
    /// The named folder; or the version that made `data`, since no other can run it; or the newest
    /// installed version, when there is no data yet.
    ///
    /// # Errors
    /// When they are not there.
    pub fn find(named: Option<&str>, data: &Path) -> anyhow::Result<Programs> {
        match named {
            Some(folder) if !Path::new(folder).join("pg_ctl").exists() => {
                bail!("PG_BIN: there is no pg_ctl in it (got {folder:?})")
            }
            Some(folder) => Ok(Programs(PathBuf::from(folder))),
            None => Programs::installed(Path::new(INSTALLED), data),
        }
    }

    fn installed(versions: &Path, data: &Path) -> anyhow::Result<Programs> {
        let of = |version: u32| versions.join(version.to_string()).join("bin");
        let there = |version: u32| of(version).join("pg_ctl").exists();
        let mark = data.join("PG_VERSION");
        match fs::read_to_string(&mark) {
            Ok(text) => {
                let made_by: u32 = text.trim().parse().with_context(|| {
                    format!("understand {} (it holds {:?})", mark.display(), text.trim())
                })?;
                if !there(made_by) {
                    bail!(
                        "{} was made by PostgreSQL {made_by}, whose programs are not in {}; install \
                         PostgreSQL {made_by}, or set PG_BIN to the folder of its programs",
                        data.display(),
                        of(made_by).display()
                    );
                }
                return Ok(Programs(of(made_by)));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", mark.display())),
        }
        let newest = fs::read_dir(versions)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
            .filter(|version| *version >= OLDEST_POSTGRES && there(*version))
            .max();
        match newest {
            Some(version) => Ok(Programs(of(version))),
            None => bail!(
                "no PostgreSQL {OLDEST_POSTGRES} or newer under {}; run scripts/install.sh, or set \
                 PG_BIN to the folder of its programs",
                versions.display()
            ),
        }
    }

    /// One of them, to be run as the owner.
    pub fn command(&self, name: &str, owner: Owner) -> Command {
        let mut command = Command::new(self.0.join(name));
        // Nothing of our own environment is the servers' business, least of all a password in it.
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C.UTF-8");
        owner.apply(&mut command);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_run_by_the_version_that_made_it() {
        let root = std::env::temp_dir().join(format!("imdb-ha-versions-{}", std::process::id()));
        let data = root.join("master1");
        fs::create_dir_all(&data).expect("a folder");
        for version in ["15", "16", "17", "common"] {
            let programs = root.join(version).join("bin");
            fs::create_dir_all(&programs).expect("a folder");
            fs::write(programs.join("pg_ctl"), "").expect("a program");
        }
        let found = |made_by: Option<&str>| {
            if let Some(version) = made_by {
                fs::write(data.join("PG_VERSION"), version).expect("a mark");
            }
            let programs = Programs::installed(&root, &data).map_err(|error| error.to_string());
            programs.map(|programs| programs.0)
        };
        let none = found(None);
        let (old, gone) = (found(Some("16\n")), found(Some("18\n")));
        fs::remove_dir_all(&root).expect("remove it");
        assert_eq!(none, Ok(root.join("17/bin")));
        assert_eq!(old, Ok(root.join("16/bin")));
        let why = gone.expect_err("18 is not there");
        assert!(why.contains("was made by PostgreSQL 18"), "{why}");
    }
}
