//! The programs of PostgreSQL and pgBackRest: where they are, and as whom they run.

use anyhow::{Context, bail};
use nix::unistd::{Uid, User};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest PostgreSQL that knows `origin = none`.
const OLDEST_POSTGRES: u32 = 16;
/// Where the packages of PostgreSQL are, a folder for each version.
const INSTALLED: &str = "/usr/lib/postgresql";

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

    /// Writes a file that only the owner reads; a reader sees the old or the new one, never half of one.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_private(self, path: &Path, text: &str) -> anyhow::Result<()> {
        let write = || -> std::io::Result<()> {
            let new = path.with_extension("new");
            fs::write(&new, "")?;
            fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
            fs::write(&new, text)?;
            self.give(&new)?;
            fs::rename(&new, path)
        };
        write().with_context(|| format!("write {}", path.display()))
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

    /// Where one of them is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
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
