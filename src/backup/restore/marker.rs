//! A note inside a restored data folder of what is still to be done with it. It is exchanged together with the folder, so it tells an
//! interrupted restore how far it got, and there is no second place that could say something else.

use super::beside::folders;
use crate::backup::command::Place;
use crate::backup::tablespaces;
use crate::output::say;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What is kept with a restored folder until both masters hold what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// What was asked for, word for word.
    pub set: Option<String>,
    pub to: Option<String>,
    pub timeline: Option<u32>,
    /// The state in words.
    pub state: String,
    pub label: String,
    /// Where the folder of before is kept.
    pub kept: PathBuf,
    /// The last transaction that was recovered.
    pub last: Option<String>,
    /// Rows of each table then.
    pub rows: BTreeMap<String, i64>,
}

fn path(data: &Path) -> PathBuf {
    data.join("imdb-ha-restore.json")
}

/// Leaves it in a folder.
///
/// # Errors
/// Those of the file system.
pub fn write(place: &Place, data: &Path, marker: &Marker) -> anyhow::Result<()> {
    let path = path(data);
    let text = serde_json::to_string_pretty(marker)?;
    let write = || -> std::io::Result<()> {
        fs::write(&path, text)?;
        place.owner().give(&path)?;
        fs::File::open(&path)?.sync_all()
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// The one in a folder; one that cannot be understood is as good as none.
pub fn read(data: &Path) -> Option<Marker> {
    let text = fs::read_to_string(path(data)).ok()?;
    serde_json::from_str(&text).ok()
}

/// Takes it away: there is nothing more to be done.
///
/// # Errors
/// Those of the file system.
pub fn remove(data: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path(data)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path(data).display()))
        }
        _ => Ok(()),
    }
}

/// Puts in order what an interrupted restore left beside the data folder: an exchange that was begun is ended, and what had not been exchanged is
/// removed, since the masters have gone on since.
///
/// # Errors
/// Those of the file system.
pub fn tidy(place: &Place, data: &Path) -> anyhow::Result<()> {
    let (restored, _) = folders(data);
    if !restored.exists() {
        return Ok(());
    }
    if !data.exists() && read(&restored).is_some() {
        return rename(&restored, data);
    }
    match read(data) {
        Some(marker) => rename(&restored, &marker.kept),
        None => {
            say(&format!(
                "removing {}, which an interrupted restore left",
                restored.display()
            ));
            tablespaces::remove_linked(place, &restored, data)?;
            fs::remove_dir_all(&restored).with_context(|| format!("remove {}", restored.display()))
        }
    }
}

/// Renames a folder, and sees that this outlives a power cut.
///
/// # Errors
/// Those of the file system.
pub fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::rename(from, to)
        .with_context(|| format!("rename {} to {}", from.display(), to.display()))?;
    sync_around(to)
}

/// Brings the names in the folder around `path` to the disk.
///
/// # Errors
/// Those of the file system.
pub fn sync_around(path: &Path) -> anyhow::Result<()> {
    let around = path.parent().unwrap_or(path);
    let synced = fs::File::open(around).and_then(|folder| folder.sync_all());
    synced.with_context(|| format!("sync {}", around.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs::Owner;

    /// Whatever step an exchange was interrupted at, the old data is kept and the restored one is in its place.
    #[test]
    fn an_exchange_is_ended_from_wherever_it_was_left() {
        let root = std::env::temp_dir().join(format!("imdb-ha-marker-{}", std::process::id()));
        let data = root.join("master1");
        let kept = root.join("master1.before-x");
        let (restored, _) = folders(&data);
        let place = Place::at(&root, Owner::find().expect("a user"));
        let marker = Marker {
            set: None,
            to: None,
            timeline: None,
            state: String::new(),
            label: String::new(),
            kept: kept.clone(),
            last: None,
            rows: BTreeMap::new(),
        };
        let begin = |folders: &[(&Path, bool)]| {
            let _ = fs::remove_dir_all(&root);
            for (folder, new) in folders {
                fs::create_dir_all(folder).expect("a folder");
                fs::write(folder.join("which"), if *new { "new" } else { "old" }).expect("a file");
                if *new {
                    write(&place, folder, &marker).expect("a marker");
                }
            }
            tidy(&place, &data).expect("tidied");
            let which = |folder: &Path| fs::read_to_string(folder.join("which")).ok();
            (which(&data), which(&kept), restored.exists())
        };
        let (new, old) = (Some("new".to_string()), Some("old".to_string()));
        // Exchanged, and the old one not yet named.
        let told = begin(&[(&data, true), (&restored, false)]);
        assert_eq!(told, (new.clone(), old.clone(), false));
        // Where folders cannot be exchanged at once: the old one was moved away.
        let told = begin(&[(&kept, false), (&restored, true)]);
        assert_eq!(told, (new.clone(), old.clone(), false));
        // Not exchanged: the masters have gone on.
        let told = begin(&[(&data, false), (&restored, true)]);
        assert_eq!(told, (old, None, false));
        // Nothing was left.
        let told = begin(&[(&data, true)]);
        assert_eq!(told, (new, None, false));
        fs::remove_dir_all(&root).expect("remove it");
    }
}
