//! One backup, from the lock to the entry of what was made.

use super::Kind;
use super::command::{GiveUp, Place};
use super::entry::Entry;
use super::failure::{Class, Failure};
use super::info::{Stanza, State};
use super::wal::Present;
use super::{expiry, stanza};
use crate::cluster::NodeId;
use crate::limits;
use anyhow::Context;
use nix::fcntl::{Flock, FlockArg, OFlag};
use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Instant;

/// Bytes copied so far, of how many.
pub type Copied = (u64, u64);

/// Held while something is done to the backups of either master, by whichever process.
pub struct Claim {
    _lock: Flock<File>,
}

/// pgBackRest's own choice where `lock-path` is not set.
const LOCKS: &str = "/tmp/pgbackrest";

/// Not `.lock`, which is what pgBackRest takes for its own and may clear away.
const CLAIM: &str = "imdb-ha.claim";

impl Place {
    /// The file of the claim, among the locks of pgBackRest: the folder of the configuration may be read-only.
    fn lock_file(&self) -> anyhow::Result<File> {
        let folder = self.option(NodeId::Master1, "lock-path");
        let folder = PathBuf::from(folder.unwrap_or_else(|| LOCKS.to_string()));
        if !folder.exists() {
            self.owner().make_folder(&folder)?;
        }
        let path = folder.join(CLAIM);
        // No link is followed: the folder may be one in which others can make files.
        let open = |how: &mut OpenOptions| how.custom_flags(OFlag::O_NOFOLLOW.bits()).open(&path);
        match open(OpenOptions::new().append(true).create_new(true)) {
            Ok(file) => {
                self.owner().give(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("make {}", path.display())),
        }
        open(OpenOptions::new().append(true))
            // A lock needs no more than that, and somebody else may have made it.
            .or_else(|_| open(OpenOptions::new().read(true)))
            .with_context(|| format!("open {}", path.display()))
    }

    /// Claims the backups, for one piece of work at a time.
    ///
    /// # Errors
    /// [`Class::Busy`] when somebody else has claimed them.
    pub fn claim(&self, node: NodeId, doing: &str) -> Result<Claim, Failure> {
        let file = self
            .lock_file()
            .map_err(|error| Failure::new(Class::WrongUser, node, doing, format!("{error:#}")))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Claim { _lock: lock }),
            Err(_) => {
                let cause = "a backup, a trial restore or a restore is under way";
                Err(Failure::new(Class::Busy, node, doing, cause))
            }
        }
    }

    /// The same for somebody who can wait: a trial restore of the API's is over in seconds, and a big backup is not.
    ///
    /// # Errors
    /// [`Class::Busy`] when it has not become free within [`limits::CLAIM_PATIENCE`].
    pub fn claim_when_free(
        &self,
        node: NodeId,
        doing: &str,
        told: &mut dyn FnMut(&str),
    ) -> Result<Claim, Failure> {
        let began = Instant::now();
        let mut waits = false;
        loop {
            match self.claim(node, doing) {
                Err(failure)
                    if failure.class == Class::Busy && began.elapsed() < limits::CLAIM_PATIENCE =>
                {
                    if !waits && began.elapsed() >= limits::CLAIM_TOLD {
                        told(&format!("waiting: {}", failure.cause));
                        waits = true;
                    }
                    std::thread::sleep(limits::CLAIM_AGAIN);
                }
                outcome => return outcome,
            }
        }
    }

    /// Every backup of a master, oldest first.
    ///
    /// # Errors
    /// When pgBackRest cannot be asked, or cannot read its repository.
    pub fn entries(&self, node: NodeId) -> Result<Vec<Entry>, Failure> {
        Ok(self.known(node)?.1)
    }

    /// The same with what pgBackRest knows of the stanza.
    ///
    /// # Errors
    /// Those of [`Place::entries`].
    pub fn known(&self, node: NodeId) -> Result<(Stanza, Vec<Entry>), Failure> {
        let stanza = self.info(node)?;
        if let State::Unreadable(why) = stanza.state {
            let doing = "read the repository of";
            return Err(Failure::new(Class::of(Some(0), &why), node, doing, why));
        }
        let repository = self.option(node, "repo1-path").unwrap_or_default();
        let entries = of(node, &stanza, &repository);
        Ok((stanza, entries))
    }
}

fn of(node: NodeId, stanza: &Stanza, repository: &str) -> Vec<Entry> {
    let backups = stanza.backups.iter();
    backups
        .map(|backup| Entry::of(node, backup, repository))
        .collect()
}

/// What is wanted.
pub struct Wanted<'a> {
    pub node: NodeId,
    pub kind: Kind,
    /// Kept with the backup; see [`super::entry::notes`].
    pub notes: &'a [(&'a str, String)],
}

/// Makes one backup. The caller holds a [`Claim`]. What pgBackRest answers proves nothing: it fails when only the clearing away of old
/// backups failed, and makes another kind than was asked when one is missing. So what it has before and after counts.
///
/// # Errors
/// Why there is no new backup.
pub fn backup(
    place: &Place,
    wanted: &Wanted,
    give_up: GiveUp,
    progress: &dyn Fn(Copied),
) -> Result<Entry, Failure> {
    let node = wanted.node;
    let doing = format!("make a backup ({}) of", wanted.kind);
    // Of a repository that cannot be read nothing would be known, and an old backup taken for the new one.
    let (before, entries) = place.known(node)?;
    if before.state == State::Missing {
        stanza::ensure(place, node, true)?;
    }
    let looked = Cell::new(Instant::now());
    let give_up = || {
        if looked.get().elapsed() >= limits::BACKUP_LOOK {
            let copied = place.info(node).ok().and_then(|stanza| stanza.progress);
            copied.into_iter().for_each(progress);
            looked.set(Instant::now());
        }
        give_up()
    };
    let notes = wanted
        .notes
        .iter()
        .map(|(name, value)| format!("--annotation={name}={value}"));
    let run = |clear: bool| {
        let mut arguments = vec![format!("--type={}", wanted.kind)];
        arguments.extend(notes.clone());
        arguments.extend((!clear).then(|| "--no-expire-auto".to_string()));
        arguments.push("backup".to_string());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        place.run(node, &doing, &arguments, limits::BACKUP_RUN, &give_up)
    };
    let present = Present::of(node, &before).entries(&entries);
    // pgBackRest makes a full one where there is none that another could rest on.
    let full = wanted.kind == Kind::Full || !present.iter().any(|entry| entry.kind == Kind::Full);
    let clear = expiry::may_run(place, node, &entries, full);
    let outcome = match run(clear) {
        // The master got a new data folder since, so whatever is made is a full one.
        Err(failure) if failure.class == Class::StanzaMismatch => {
            stanza::ensure(place, node, true)?;
            run(expiry::may_run(place, node, &entries, true))
        }
        outcome => outcome,
    };
    let after = place.entries(node)?;
    if !clear {
        expiry::thin_out(place, node, &after);
    }
    let new = after
        .into_iter()
        .rfind(|entry| before.backup(&entry.label).is_none());
    match (new, outcome) {
        (Some(entry), Ok(_)) => Ok(entry),
        (Some(entry), Err(failure)) => {
            log::warn!("backup {} is there, and yet: {failure}", entry.label);
            Ok(entry)
        }
        (None, Err(failure)) => Err(failure),
        (None, Ok(said)) => {
            let cause = format!("pgBackRest is content, and there is none: {}", said.trim());
            Err(Failure::new(Class::Other, node, &doing, cause))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs::Owner;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_claim_is_one_for_both_masters_and_lies_among_the_locks() {
        let root = std::env::temp_dir().join(format!("imdb-ha-claim-{}", std::process::id()));
        let (configuration, locks) = (root.join("configuration"), root.join("run/locks"));
        fs::create_dir_all(configuration.join("master1")).expect("a folder");
        let text = format!("[global]\nlock-path={}\n", locks.display());
        fs::write(configuration.join("master1/pgbackrest.conf"), text).expect("a file");
        let place = Place::at(&configuration, Owner::find().expect("an owner"));
        let claim = |node| place.claim(node, "try").map_err(|failure| failure.class);

        let held = claim(NodeId::Master1).expect("nobody has it");
        assert_eq!(claim(NodeId::Master2).err(), Some(Class::Busy));
        drop(held);
        let file = locks.join(CLAIM);
        let read_only = std::os::unix::fs::PermissionsExt::from_mode(0o444);
        fs::set_permissions(&file, read_only).expect("its permissions");
        assert!(claim(NodeId::Master2).is_ok());
        assert_eq!(
            fs::read_dir(&configuration).expect("a folder").count(),
            1,
            "nothing is written beside the configuration"
        );

        let other = root.join("other");
        fs::rename(&file, &other).expect("another name");
        symlink(&other, &file).expect("a link");
        assert_eq!(claim(NodeId::Master1).err(), Some(Class::WrongUser));
        fs::remove_dir_all(&root).expect("remove it");
    }
}
