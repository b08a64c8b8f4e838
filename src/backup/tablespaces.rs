//! Tablespaces, which lie outside of the data folder under absolute paths. What is restored beside a running server must never reach the
//! files of that server, so each gets a folder of its own; and WAL that makes one, which PostgreSQL replays at the path of the original
//! whatever it is told, cannot be replayed beside it at all.

use super::command::{NEVER, Place};
use super::failure::{Class, Failure};
use super::stanza;
use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::pg::{self, Sessions};
use crate::process::{self, Bound};
use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The beginning of the name of each folder that a restore makes for a tablespace.
const OURS: &str = "imdb-ha-restored-";

/// Where a data folder has the links to its tablespaces.
pub const LINKS: &str = "pg_tblspc";

/// Beside a restored data folder: a link to each folder elsewhere that belongs to it, so that an interrupted restore leaves nothing behind.
const MAPPED: &str = "mapped";

const PRESENT: &str = include_str!("../../sql/tablespaces.sql");

/// A tablespace as a backup has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Tablespace {
    pub oid: u32,
    pub name: String,
    /// Where it was.
    pub destination: PathBuf,
}

impl Tablespace {
    /// Where it goes in a restore that stays: beside what it holds now, on the same disk, under a name that no other restore has.
    pub fn place(&self, at: &str) -> PathBuf {
        let name = self.destination.file_name().unwrap_or_default();
        let ours = name.to_string_lossy().starts_with(OURS);
        let base = match self.destination.parent() {
            Some(parent) if ours => parent,
            _ => &self.destination,
        };
        base.join(format!("{OURS}{}-{at}", self.oid))
    }
}

/// The tablespaces of a backup.
///
/// # Errors
/// When pgBackRest cannot be asked, or when what it says cannot be understood.
pub fn of_backup(place: &Place, node: NodeId, label: &str) -> Result<Vec<Tablespace>, Failure> {
    let doing = "ask pgBackRest about the tablespaces in a backup of";
    let set = format!("--set={label}");
    let arguments = ["info", &set, "--output=json"];
    let text = place.run(node, doing, &arguments, limits::BACKUP_ASK, NEVER)?;
    let fail = |error: anyhow::Error| Failure::new(Class::Other, node, doing, format!("{error:#}"));
    let raw = super::info::parse(&text, stanza(node)).map_err(fail)?.raw;
    let stanzas = raw.as_array().into_iter().flatten();
    let mut backups = stanzas.flat_map(|of| of["backup"].as_array().into_iter().flatten());
    let found = backups.find(|backup| backup["label"] == label);
    match found.map(|backup| &backup["tablespace"]) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(list) => serde_json::from_value(list.clone()).map_err(|error| fail(error.into())),
    }
}

/// A tablespace that a master has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    pub oid: u32,
    pub name: String,
    pub location: String,
    /// When it was made, in microseconds since 1970, as far as the master knows.
    pub made: Option<i64>,
}

/// The tablespaces of a running master.
///
/// # Errors
/// When it does not answer.
pub fn of_master(config: &Config, node: NodeId) -> anyhow::Result<Vec<Present>> {
    let settings = pg::connection_settings(config.master(node), limits::SETUP_CALL)?;
    let sessions = Sessions::start_patient(node, pg::without_waiting(settings))?;
    let found = sessions.run(limits::SETUP_CALL, |session| {
        let rows = session.client().query(PRESENT, &[])?;
        let of = |row: &postgres::Row| {
            Ok(Present {
                oid: row.try_get("oid")?,
                name: row.try_get("name")?,
                location: row.try_get("location")?,
                made: row.try_get("made")?,
            })
        };
        rows.iter().map(of).collect()
    });
    found.with_context(|| format!("ask {node} about its tablespaces"))
}

/// The bytes that a backup takes when it is restored: of the data folder, and of each tablespace.
///
/// # Errors
/// When its manifest cannot be read.
pub fn sizes(
    place: &Place,
    node: NodeId,
    label: &str,
) -> Result<(u64, BTreeMap<u32, u64>), Failure> {
    let path = format!("backup/{}/{label}/backup.manifest", stanza(node));
    let doing = "read the manifest of a backup of";
    let text = place.run(node, doing, &["repo-get", &path], limits::BACKUP_RUN, NEVER)?;
    Ok(sizes_in(&text))
}

/// A line of a manifest for each file: its path, and what is known of it as JSON.
fn sizes_in(manifest: &str) -> (u64, BTreeMap<u32, u64>) {
    let (mut data, mut tablespaces) = (0, BTreeMap::new());
    for line in manifest.lines() {
        let Some((path, known)) = line.split_once("={") else {
            continue;
        };
        let size = known.split_once("\"size\":").map_or("", |(_, rest)| rest);
        let digits = size.split(|byte: char| !byte.is_ascii_digit()).next();
        let Some(size) = digits.and_then(|digits| digits.parse::<u64>().ok()) else {
            continue;
        };
        match path
            .strip_prefix("pg_tblspc/")
            .and_then(|rest| rest.split_once('/'))
        {
            Some((oid, _)) if oid.parse::<u32>().is_ok() => {
                *tablespaces.entry(oid.parse().unwrap_or(0)).or_insert(0) += size;
            }
            _ if path.starts_with("pg_data/") => data += size,
            _ => {}
        }
    }
    (data, tablespaces)
}

/// The folders to which the links of a data folder lead, by the object ids in their names.
pub fn links(data: &Path) -> BTreeMap<u32, PathBuf> {
    let entries = fs::read_dir(data.join(LINKS)).into_iter().flatten();
    let of = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let oid = entry.file_name().to_str()?.parse().ok()?;
        Some((oid, fs::read_link(entry.path()).ok()?))
    };
    entries.filter_map(of).collect()
}

/// The folders that belong to the tablespaces of a data folder that nobody uses any more, for a person who removes it.
pub fn folders_of(data: &Path) -> Vec<PathBuf> {
    let of_link = |target: PathBuf| match is_ours(&target) {
        true => vec![target],
        false => versions_in(&target, data),
    };
    links(data).into_values().flat_map(of_link).collect()
}

/// The folders in that of a tablespace that belong to servers of the version of a data folder.
fn versions_in(folder: &Path, data: &Path) -> Vec<PathBuf> {
    let version = fs::read_to_string(data.join("PG_VERSION")).unwrap_or_default();
    let prefix = format!("PG_{}_", version.trim());
    let entries = fs::read_dir(folder).into_iter().flatten();
    let inside = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let versioned = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with(&prefix)
    };
    inside.filter(versioned).collect()
}

fn is_ours(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default();
    name.to_string_lossy().starts_with(OURS)
}

/// Makes the folders for the tablespaces of what is restored into `folder`, and remembers them there. They are made by the servers' user, to
/// whom everything in a tablespace's folder belongs.
///
/// # Errors
/// When a tablespace's own folder is not there, or a new one cannot be made.
pub fn make(place: &Place, folder: &Path, wanted: &[(Tablespace, PathBuf)]) -> anyhow::Result<()> {
    let mapped = folder.join(MAPPED);
    place.owner().make_folder(&mapped)?;
    for (tablespace, to) in wanted {
        let Tablespace { name, oid, .. } = tablespace;
        let base = to.parent().unwrap_or(to);
        if !base.is_dir() {
            bail!(
                "the folder of tablespace {name}, {}, is not there; see that its disk is mounted, or make it for the \
                 servers' user",
                base.display()
            );
        }
        let link = mapped.join(oid.to_string());
        std::os::unix::fs::symlink(to, &link)
            .with_context(|| format!("make the link {}", link.display()))?;
        let mut command = place.program("mkdir");
        command.args(["-m", "700", "--"]).arg(to);
        let doing = format!("make a folder for tablespace {name}");
        process::run(&mut command, &doing, &BRIEF)?;
    }
    Ok(())
}

const BRIEF: Bound<'static> = Bound {
    patience: limits::BACKUP_ASK,
    give_up: NEVER,
    end: &process::kill_family,
};

/// Removes the folders that [`make`] has made for what was restored into `folder`, unless `original` lives in them by now.
///
/// # Errors
/// When one of them cannot be removed.
pub fn remove_mapped(place: &Place, folder: &Path, original: &Path) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder.join(MAPPED)).into_iter().flatten();
    let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    remove(place, targets.collect(), original)
}

/// The same for the tablespaces of a whole data folder.
///
/// # Errors
/// When one of them cannot be removed.
pub fn remove_linked(place: &Place, data: &Path, original: &Path) -> anyhow::Result<()> {
    remove(place, links(data).into_values().collect(), original)
}

/// By the servers' user, who can name any folder here and must not have one removed that is not his.
fn remove(place: &Place, targets: Vec<PathBuf>, original: &Path) -> anyhow::Result<()> {
    let used: Vec<PathBuf> = links(original).into_values().collect();
    for target in targets {
        if !is_ours(&target) || used.contains(&target) || !target.exists() {
            continue;
        }
        let mut command = place.program("rm");
        command.args(["-rf", "--"]).arg(&target);
        let bound = Bound {
            patience: limits::BACKUP_EXPIRE,
            ..BRIEF
        };
        process::run(
            &mut command,
            &format!("remove {}", target.display()),
            &bound,
        )?;
    }
    Ok(())
}

/// Sees that a server on `data` reaches nothing outside of it but the folders in `allowed`, and that it can make no tablespace while it
/// recovers: for that it has to make a link, which the folder of the links does not take.
///
/// # Errors
/// When there is another link, or when the servers' user can write in spite of the permissions.
pub fn close(place: &Place, data: &Path, allowed: &[PathBuf]) -> anyhow::Result<()> {
    for entry in fs::read_dir(data).with_context(|| format!("read {}", data.display()))? {
        let path = entry?.path();
        if path.is_symlink() {
            bail!("{} leads out of what was restored", path.display());
        }
    }
    for (oid, target) in links(data) {
        if !allowed.iter().any(|folder| target.starts_with(folder)) {
            bail!(
                "tablespace {oid} leads to {}, which is not its own",
                target.display()
            );
        }
    }
    set_mode(data, 0o500)?;
    let links = data.join(LINKS);
    let mut command = place.program("test");
    command.arg("-w").arg(&links);
    let ended = process::finish(&mut command, &BRIEF).context("run test")?;
    match ended {
        Ok(ended) if ended.status.code() == Some(1) => Ok(()),
        _ => bail!(
            "{} cannot be protected from the servers' user, so a server on it could write to the tablespaces of the \
             master",
            links.display()
        ),
    }
}

/// Lets a server on `data` make tablespaces again.
///
/// # Errors
/// Those of the file system.
pub fn open(data: &Path) -> anyhow::Result<()> {
    set_mode(data, 0o700)
}

fn set_mode(data: &Path, mode: u32) -> anyhow::Result<()> {
    let links = data.join(LINKS);
    match fs::set_permissions(&links, fs::Permissions::from_mode(mode)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("set the permissions of {}", links.display()))
        }
        _ => Ok(()),
    }
}

/// Removes the links and folders of tablespaces that were dropped in the WAL: the server could not, while its folder was closed.
///
/// # Errors
/// Those of the file system.
pub fn forget_dropped(
    place: &Place,
    data: &Path,
    there: &[u32],
    original: &Path,
) -> anyhow::Result<()> {
    let mut gone = links(data);
    gone.retain(|oid, _| !there.contains(oid));
    for oid in gone.keys() {
        let link = data.join(LINKS).join(oid.to_string());
        fs::remove_file(&link).with_context(|| format!("remove {}", link.display()))?;
    }
    remove(place, gone.into_values().collect(), original)
}

/// A tablespace that the WAL makes, at which a server on a closed data folder ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Its object id and folder; nothing when the WAL needs one that the backup has not.
    pub made: Option<(u32, PathBuf)>,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.made {
            Some((oid, folder)) => {
                let folder = folder.display();
                write!(f, "the WAL makes tablespace {oid} in {folder}")
            }
            None => f.write_str("the WAL needs a tablespace that the backup has not"),
        }
    }
}

/// Whether that is why a server ended, by its log.
pub fn stopped_at(log: &str) -> Option<Stopped> {
    let refused = format!("\"{LINKS}/");
    let at = log.lines().position(|line| {
        line.contains(&refused) && line.contains("Permission denied") && line.contains("FATAL")
    })?;
    let of_record = |line: &str| {
        let (_, record) = line.split_once(" for Tablespace/CREATE: ")?;
        let (oid, folder) = record.trim().split_once(' ')?;
        Some((oid.parse().ok()?, PathBuf::from(folder.trim_matches('"'))))
    };
    Some(Stopped {
        made: log.lines().skip(at).take(4).find_map(of_record),
    })
}

/// Removes what a server made before it was stopped: an empty folder inside that of the tablespace, for which `original` could not make one there
/// any more. One that `original` uses is left alone.
pub fn undo(place: &Place, stopped: &Stopped, original: &Path) {
    let Some((_, folder)) = &stopped.made else {
        return;
    };
    if links(original).values().any(|used| used == folder) {
        return;
    }
    for made in versions_in(folder, original) {
        let mut command = place.program("rmdir");
        command.arg("--").arg(&made);
        // What is not empty is somebody's.
        let _ = process::finish(&mut command, &BRIEF);
    }
}

/// What to do when the WAL makes a tablespace.
pub const INSTEAD: &str = "a server beside the master would write to that folder of the master's; choose a moment before that, or a backup that was \
                           made after it";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tablespace_goes_beside_what_it_holds_now_however_often() {
        let of = |destination: &str| Tablespace {
            oid: 16400,
            name: "fast".to_string(),
            destination: PathBuf::from(destination),
        };
        let first = of("/disk/fast").place("A");
        assert_eq!(first, Path::new("/disk/fast/imdb-ha-restored-16400-A"));
        let second = of(&first.display().to_string()).place("B");
        assert_eq!(second, Path::new("/disk/fast/imdb-ha-restored-16400-B"));
    }

    #[test]
    fn a_server_that_was_kept_from_making_a_tablespace_says_which() {
        let log = "2026-11-29 02:30:00.000 UTC [7] FATAL:  could not create symbolic link \"pg_tblspc/16400\": Permission denied\n\
                   2026-11-29 02:30:00.000 UTC [7] CONTEXT:  WAL redo at 0/5000028 for Tablespace/CREATE: 16400 \"/disk/fast\"\n";
        let said = stopped_at(log).expect("it was kept from it");
        assert_eq!(said.made, Some((16400, PathBuf::from("/disk/fast"))));
        assert!(
            stopped_at("FATAL:  could not open file \"base/5/1\": Permission denied").is_none()
        );
        let missing = "FATAL:  could not create directory \"pg_tblspc/16400/PG_17_202406281\": Permission denied";
        assert!(stopped_at(missing).is_some());
    }

    #[test]
    fn a_manifest_tells_what_each_tablespace_takes() {
        let text = "[backup]\nbackup-label=\"A\"\n\n[target:file]\npg_data/PG_VERSION={\"checksum\":\"x\",\"size\":3,\"timestamp\":1}\n\
                    pg_tblspc/16400/PG_17_202406281/5/16401={\"size\":8192,\"timestamp\":1}\n\
                    pg_tblspc/16400/PG_17_202406281/5/16402={\"timestamp\":1,\"size\":10}\n\
                    [target:path]\npg_data/base={}\n";
        assert_eq!(sizes_in(text), (3, BTreeMap::from([(16400, 8202)])));
    }
}
