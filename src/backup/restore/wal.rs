//! The WAL of a restored master on its three ways: from the running master into the archive, from a dead one's folder into the recovery, and, after
//! the recovery, from the restored folder into the archive again. A segment that is missing there is missing for every later restore.

use crate::backup::command::{NEVER, Place};
use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::output::say;
use crate::pg::{self, Sessions};
use anyhow::Context;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Sees that everything written on a running master until now is in its archive.
///
/// # Errors
/// When it does not answer. That the archive does not take it is told and is no error: see [`lend`].
pub fn archive_all(config: &Config, node: NodeId) -> anyhow::Result<()> {
    let settings = pg::master_settings(config, node, limits::SETUP_CALL)?;
    let sessions = Sessions::start_patient(node, pg::without_waiting(settings))?;
    let segment: String = sessions
        .run(limits::SETUP_CALL, |session| {
            // A recovery to a moment ends at the first transaction after it, so there must be one.
            session
                .client()
                .query_one("SELECT pg_catalog.pg_current_xact_id()::text", &[])?;
            let row = session.client().query_one(
                "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_switch_wal())",
                &[],
            )?;
            row.try_get(0)
        })
        .with_context(|| format!("end the WAL segment of {node}"))?;
    let deadline = Instant::now() + limits::RESTORE_ARCHIVE;
    loop {
        let waiting = format!("{segment}.ready");
        let waits: bool = sessions
            .run(limits::SETUP_CALL, move |session| {
                let row = session.client().query_one(
                    "SELECT EXISTS (SELECT FROM pg_catalog.pg_ls_archive_statusdir() WHERE name = $1)",
                    &[&waiting],
                )?;
                row.try_get(0)
            })
            .with_context(|| format!("see whether {node} has archived {segment}"))?;
        if !waits {
            return Ok(());
        }
        if Instant::now() >= deadline {
            say(&format!(
                "{node}: {segment} is not in the archive after {} s; taking it from the data folder",
                limits::RESTORE_ARCHIVE.as_secs()
            ));
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The name of a whole segment, or of a history.
fn is_wal(name: &str) -> bool {
    let hex = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte))
    };
    match name.strip_suffix(".history") {
        Some(number) => number.len() == 8 && hex(number),
        None => name.len() == 24 && hex(name),
    }
}

/// The WAL files in a data folder, oldest first; none when there is no such folder.
fn files(data: &Path) -> anyhow::Result<Vec<String>> {
    let folder = data.join("pg_wal");
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", folder.display())),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| is_wal(name)).collect();
    names.sort();
    Ok(names)
}

fn mark(data: &Path, name: &str, what: &str) -> PathBuf {
    data.join("pg_wal/archive_status")
        .join(format!("{name}.{what}"))
}

fn set_mark(place: &Place, data: &Path, name: &str, what: &str) -> anyhow::Result<()> {
    let path = mark(data, name, what);
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(path.parent().unwrap_or(data))?;
        place.owner().give(path.parent().unwrap_or(data))?;
        fs::write(&path, "")?;
        place.owner().give(&path)
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// Gives the recovery what the data folder `old` has and the archive lacks. The archive is asked first for each segment, so a file too many does
/// no harm. What is complete is also handed to the archive now, since the server that should have done it will not run again from there.
///
/// # Errors
/// Those of the file system.
pub fn lend(place: &Place, node: NodeId, old: &Path, new: &Path) -> anyhow::Result<()> {
    if is_another(old, new) {
        return Ok(());
    }
    let mut lent = 0;
    let mut takes = true;
    for name in files(old)? {
        if mark(old, &name, "done").exists() {
            continue;
        }
        let from = old.join("pg_wal").join(&name);
        // An archive that has failed once is not asked for each of what may be hundreds.
        if takes && mark(old, &name, "ready").exists() {
            let path = from.display().to_string();
            let push = ["--no-archive-async", "archive-push", path.as_str()];
            if let Err(failure) = place.run(
                node,
                "archive the last WAL of",
                &push,
                limits::RESTORE_ARCHIVE,
                NEVER,
            ) {
                say(&format!("{failure}"));
                takes = false;
            }
        }
        let to = new.join("pg_wal").join(&name);
        match fs::copy(&from, &to) {
            // A running server clears away what has been archived.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            copied => {
                copied.with_context(|| format!("copy {} to {}", from.display(), to.display()))?
            }
        };
        place.owner().give(&to)?;
        // Nobody may hand over the unfinished end of an abandoned timeline under the name of a whole segment.
        set_mark(place, new, &name, "done")?;
        lent += 1;
    }
    if lent > 0 {
        say(&format!(
            "{node}: {lent} WAL files taken from {}",
            old.display()
        ));
    }
    Ok(())
}

/// Whether two data folders are certainly not of one server: the first field of `pg_control` tells. One that was made anew after a loss has WAL of
/// the same names.
fn is_another(old: &Path, new: &Path) -> bool {
    let system = |data: &Path| {
        let control = fs::read(data.join("global/pg_control")).ok()?;
        control.first_chunk::<8>().copied()
    };
    matches!((system(old), system(new)), (Some(old), Some(new)) if old != new)
}

/// Marks what the restored server has written by itself, while it archived nothing, for handing over: the history of its timeline, without which
/// nobody would find that, and the segments before the one in which it stopped.
///
/// # Errors
/// Those of the file system.
pub fn promise(place: &Place, data: &Path, current: &str) -> anyhow::Result<()> {
    let timeline = current.get(..8).unwrap_or(current);
    for name in files(data)? {
        let own =
            name.starts_with(timeline) && (name.ends_with(".history") || name.as_str() < current);
        if own && !mark(data, &name, "done").exists() {
            set_mark(place, data, &name, "ready")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_segments_and_histories_are_wal() {
        assert!(is_wal("00000001000000000000000A"));
        assert!(is_wal("00000002.history"));
        for other in [
            "00000001000000000000000A.partial",
            "000000010000000000000004.00000028.backup",
            "archive_status",
            "xlogtemp.1234",
            "0000000g.history",
        ] {
            assert!(!is_wal(other), "{other}");
        }
    }
}
