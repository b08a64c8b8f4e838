//! The folder of a master that a launcher runs, and two locks in it by which others, in other containers too, learn and order.
//!
//! - `launcher` is locked for as long as the launcher lives, and says what its server is doing.
//! - `hold` is locked by whoever needs the server down. An order that ends with who gave it cannot be forgotten: when that process is
//!   killed, the kernel gives the lock back, and the server starts again.

use crate::limits;
use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a launcher says of its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saying {
    /// It is being made or started.
    Starting,
    Up,
    /// It is down because somebody holds it.
    Held,
}

/// What each is called in the file.
const WORDS: [(Saying, &str); 3] = [
    (Saying::Starting, "starting"),
    (Saying::Up, "up"),
    (Saying::Held, "held"),
];

impl Saying {
    /// Its name.
    pub fn name(self) -> &'static str {
        let found = WORDS.iter().find(|(saying, _)| *saying == self);
        found.map_or("unknown", |(_, word)| word)
    }

    fn of(text: &str) -> Option<Saying> {
        let found = WORDS.iter().find(|(_, word)| *word == text.trim());
        found.map(|(saying, _)| *saying)
    }
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

/// The launcher's claim on its folder, and the file in which it says what its server is doing.
pub struct Claim(Flock<File>);

/// Keeps the server down until it is dropped, or this process ends.
#[derive(Debug)]
pub struct Hold {
    _lock: Flock<File>,
}

impl Home {
    /// The folder around the data folder of a master.
    pub fn around(data: &Path) -> Home {
        Home(data.parent().unwrap_or(data).to_path_buf())
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    fn open(&self, name: &str) -> anyhow::Result<File> {
        let path = self.0.join(name);
        let mut options = OpenOptions::new();
        let opened = options.create(true).truncate(false).read(true).write(true);
        opened
            .open(&path)
            .with_context(|| format!("open {}", path.display()))
    }

    /// Whether a launcher has ever run here.
    pub fn is_one(&self) -> bool {
        self.0.join("launcher").exists()
    }

    /// Claims the folder for this launcher, for as long as the result is kept: two servers on one data folder would destroy it, and
    /// PostgreSQL itself cannot see one in another container.
    ///
    /// # Errors
    /// When another one has it.
    pub fn claim(&self) -> anyhow::Result<Claim> {
        // A process that was killed holds its lock until the last of its threads has ended.
        match patiently(
            self.open("launcher")?,
            FlockArg::LockExclusiveNonblock,
            limits::LAUNCHER_CLAIM,
        )? {
            Some(lock) => Ok(Claim(lock)),
            None => bail!(
                "another launcher runs the server in {}; two on one data folder would destroy it",
                self.0.display()
            ),
        }
    }

    /// What the launcher says; nothing when none runs.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn asked(&self) -> anyhow::Result<Option<Saying>> {
        if !self.is_one() {
            return Ok(None);
        }
        let file = self.open("launcher")?;
        if Flock::lock(file, FlockArg::LockSharedNonblock).is_ok() {
            return Ok(None);
        }
        let text = fs::read_to_string(self.0.join("launcher"))?;
        // It may be writing just now.
        Ok(Some(Saying::of(&text).unwrap_or(Saying::Starting)))
    }

    /// Whether somebody holds the server down.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn is_held(&self) -> anyhow::Result<bool> {
        let file = self.open("hold")?;
        Ok(Flock::lock(file, FlockArg::LockSharedNonblock).is_err())
    }

    /// Has the server stopped, and kept down for as long as the result is kept. It may still run for a moment.
    ///
    /// # Errors
    /// When somebody else holds it.
    pub fn hold(&self) -> anyhow::Result<Hold> {
        // The launcher itself looks with a lock for an instant.
        match patiently(
            self.open("hold")?,
            FlockArg::LockExclusiveNonblock,
            limits::LAUNCHER_CLAIM,
        )? {
            Some(lock) => Ok(Hold { _lock: lock }),
            None => bail!(
                "somebody else holds the server in {} down",
                self.0.display()
            ),
        }
    }
}

/// Tries to lock a file for so long; nothing when somebody else keeps it.
fn patiently(
    mut file: File,
    how: FlockArg,
    patience: Duration,
) -> anyhow::Result<Option<Flock<File>>> {
    let deadline = Instant::now() + patience;
    loop {
        match Flock::lock(file, how) {
            Ok(lock) => return Ok(Some(lock)),
            Err((unlocked, _)) if Instant::now() < deadline => file = unlocked,
            Err(_) => return Ok(None),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Claim {
    /// Says what the server is doing.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn say(&mut self, saying: Saying) -> anyhow::Result<()> {
        let mut write = || -> std::io::Result<()> {
            let file = &mut *self.0;
            file.rewind()?;
            file.write_all(saying.name().as_bytes())?;
            file.set_len(saying.name().len() as u64)
        };
        write().context("write down what the server is doing")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_lasts_as_long_as_who_gave_it() {
        let root = std::env::temp_dir().join(format!("imdb-ha-home-{}", std::process::id()));
        fs::create_dir_all(&root).expect("a folder");
        let home = Home::around(&root.join("data"));
        assert_eq!(home.asked().expect("asked"), None);
        let mut claim = home.claim().expect("the first one");
        assert!(home.claim().is_err(), "a second launcher");
        for (saying, _) in WORDS {
            claim.say(saying).expect("said");
            assert_eq!(home.asked().expect("asked"), Some(saying));
        }
        assert!(!home.is_held().expect("looked"));
        let hold = home.hold().expect("held");
        assert!(home.is_held().expect("looked"));
        assert!(home.hold().is_err(), "by two");
        drop(hold);
        assert!(!home.is_held().expect("looked"));
        drop(claim);
        assert_eq!(home.asked().expect("asked"), None);
        fs::remove_dir_all(root).expect("remove it");
    }
}
