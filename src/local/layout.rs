//! Where the local cluster lives: its folder, what is in it, and the file that says what runs.

use crate::cluster::NodeId;
use crate::config::{Config, Secret, SecretUrl};
use crate::limits;
use crate::process::Process;
use crate::programs::Owner;
use crate::server::{Listen, Master};
use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Uid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use url::Url;

/// The manual's superuser of the local servers, and its password.
pub const USER: &str = "root";
pub const PASSWORD: &str = "root";
/// The manual's database.
pub const DATABASE: &str = "bases2-db";

/// The connection string of a local server at `port`, for `database`.
///
/// # Errors
/// A name that fits in no URL.
pub fn url(port: u16, database: &str) -> anyhow::Result<SecretUrl> {
    let text = format!("postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/{database}");
    Ok(SecretUrl::new(Url::parse(&text)?))
}

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
    /// Which cluster it is, once the masters have been joined.
    #[serde(default)]
    pub cluster: Option<String>,
}

/// What a cluster keeps from one start to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its id, as the masters have it.
    pub cluster: Option<String>,
    pub ports: Ports,
    /// The port of the API that was asked for. It has another if that was taken at the first start.
    pub asked_api: u16,
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
            (None, false, Some(home)) => home.join(".local/state/imdb-ha"),
            (None, false, None) => bail!("HOME is not set; name a folder with --data"),
        };
        let root = std::path::absolute(&root)?;
        // It stands in configurations of PostgreSQL and pgBackRest, and in commands to copy.
        if root.to_str().is_none() {
            bail!(
                "the folder {root:?} of a local cluster is not UTF-8; name another one with --data"
            );
        }
        Ok(Layout {
            root,
            named: config.data.is_some(),
        })
    }

    /// The data folder of a master.
    pub fn master(&self, node: NodeId) -> PathBuf {
        self.root.join(node.name())
    }

    /// The server of a master. What is configured for it beside its place is up to whoever starts it.
    pub fn server(&self, node: NodeId, owner: Owner) -> Master {
        Master {
            node,
            data: self.master(node),
            run: self.run(),
            owner,
            archive: super::archive::of(self, node, owner),
            user: USER.to_string(),
            password: Secret::new(PASSWORD),
            listen: Listen::Loopback,
            patience: limits::SERVER_START,
            stop_patience: limits::SERVER_STOP_FAST,
            settings: Vec::new(),
        }
    }

    pub fn redis(&self) -> PathBuf {
        self.root.join("redis")
    }

    /// How pgBackRest is configured for each master, and the passphrase.
    pub fn pgbackrest(&self) -> PathBuf {
        self.root.join("pgbackrest")
    }

    /// The repositories: WAL and backups of each master.
    pub fn backups(&self) -> PathBuf {
        self.root.join("backups")
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

    fn kept_file(&self) -> PathBuf {
        self.root.join("cluster.json")
    }

    /// What runs, if anything was started in this folder and not stopped.
    ///
    /// # Errors
    /// A file that cannot be read or understood.
    pub fn state(&self) -> anyhow::Result<Option<State>> {
        read(&self.state_file())
    }

    /// Writes down what runs; a reader sees the old or the new state, never half of one.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_state(&self, state: &State) -> anyhow::Result<()> {
        write(&self.state_file(), state)
    }

    /// What the cluster in this folder had at its last start, if there was one.
    ///
    /// # Errors
    /// A file that cannot be read or understood.
    pub fn kept(&self) -> anyhow::Result<Option<Kept>> {
        read(&self.kept_file())
    }

    /// Writes down what the next start needs.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn keep(&self, kept: &Kept) -> anyhow::Result<()> {
        write(&self.kept_file(), kept)
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

fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    serde_json::from_str(&text)
        .with_context(|| format!("understand {}", path.display()))
        .map(Some)
}

fn write(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let new = path.with_extension("json.new");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&new)?;
        file.write_all(serde_json::to_string_pretty(value)?.as_bytes())?;
        fs::rename(&new, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}
