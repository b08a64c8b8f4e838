//! The histories of a master. Each restore begins a new timeline, and a backup leads only to moments on those that it is an ancestor of.

use crate::backup::command::{NEVER, Place};
use crate::backup::entry::Entry;
use crate::backup::info::{Backup, State};
use crate::backup::stanza;
use crate::cluster::NodeId;
use crate::limits;
use anyhow::{Context, bail};
use serde_json::Value;
use std::collections::BTreeMap;

/// A backup that might be restored.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub entry: Entry,
    /// The timeline that it was made on.
    pub timeline: u32,
    /// Whether the wanted timeline goes on from it.
    pub leads_there: bool,
}

/// A timeline, as the archive of one data folder knows it: where each of its ancestors was left, as WAL positions.
struct Line {
    number: u32,
    left: BTreeMap<u32, u64>,
}

/// Every backup of a master, oldest first, judged by whether it leads to `wanted`, or to the newest timeline.
///
/// # Errors
/// When pgBackRest cannot be asked, or does not know the wanted timeline.
pub fn candidates(
    place: &Place,
    node: NodeId,
    wanted: Option<u32>,
) -> anyhow::Result<Vec<Candidate>> {
    let known = place.info(node)?;
    if let State::Unreadable(why) = known.state {
        bail!("read the repository of {node}: {why}");
    }
    let repository = place.option(node, "repo1-path").unwrap_or_default();
    let mut lines: BTreeMap<String, Line> = BTreeMap::new();
    let mut found = Vec::new();
    for backup in &known.backups {
        let archive = archive_of(&known.raw, node, &backup.label)
            .with_context(|| format!("find the archive of {}", backup.label))?;
        if !lines.contains_key(&archive) {
            lines.insert(archive.clone(), line(place, node, &archive, wanted)?);
        }
        let timeline = made_on(backup);
        let leads_there = match (lines.get(&archive), timeline, end_of(backup)) {
            (Some(line), Some(timeline), Some(end)) => leads(timeline, end, line),
            // Without positions pgBackRest has to decide.
            _ => true,
        };
        found.push(Candidate {
            entry: Entry::of(node, backup, &repository),
            timeline: timeline.unwrap_or(0),
            leads_there,
        });
    }
    Ok(found)
}

/// The timeline in the name of the last segment that it needs.
fn made_on(backup: &Backup) -> Option<u32> {
    let segment = backup.archive.as_ref()?.stop.as_ref()?;
    u32::from_str_radix(segment.get(..8)?, 16).ok()
}

fn end_of(backup: &Backup) -> Option<u64> {
    position(&backup.lsn.as_ref()?.stop)
}

/// A WAL position as PostgreSQL writes it.
fn position(text: &str) -> Option<u64> {
    let (high, low) = text.trim().split_once('/')?;
    let high = u64::from_str_radix(high, 16).ok()?;
    Some((high << 32) | u64::from_str_radix(low, 16).ok()?)
}

fn leads(made_on: u32, end: u64, line: &Line) -> bool {
    made_on == line.number || line.left.get(&made_on).is_some_and(|left| end <= *left)
}

/// The name of the archive that belongs to a backup: those of earlier data folders have others.
fn archive_of(raw: &Value, node: NodeId, label: &str) -> Option<String> {
    let all = raw.as_array()?;
    let of = all.iter().find(|one| one["name"] == stanza(node))?;
    let with = |list: &str, key: &str, value: &Value| -> Option<Value> {
        let list = of[list].as_array()?;
        list.iter().find(|one| one[key] == *value).cloned()
    };
    let database = with("backup", "label", &Value::from(label))?["database"]["id"].clone();
    let archives = of["archive"].as_array()?;
    let archive = archives
        .iter()
        .find(|one| one["database"]["id"] == database)?;
    archive["id"].as_str().map(str::to_string)
}

/// The wanted timeline of an archive, or its newest.
fn line(place: &Place, node: NodeId, archive: &str, wanted: Option<u32>) -> anyhow::Result<Line> {
    let folder = format!("archive/{}/{archive}", stanza(node));
    let ask = |arguments: &[&str]| {
        let doing = "read the histories in the archive of";
        place.run(node, doing, arguments, limits::BACKUP_ASK, NEVER)
    };
    let names = ask(&["repo-ls", &folder, "--filter=\\.history$"])?;
    let histories = names.lines().filter_map(|name| {
        let number = name.trim().strip_suffix(".history")?;
        u32::from_str_radix(number, 16).ok()
    });
    // The first has no history.
    let newest = histories.max().unwrap_or(1);
    let number = wanted.unwrap_or(newest);
    if number == 1 {
        return Ok(Line {
            number,
            left: BTreeMap::new(),
        });
    }
    if number == 0 || number > newest {
        bail!("--timeline: {node} has none of that number; its newest is {newest}");
    }
    let text = ask(&["repo-get", &format!("{folder}/{number:08X}.history")])?;
    Ok(Line {
        number,
        left: ancestors(&text),
    })
}

/// What a history file says: a line for each ancestor, with its number and the position at which it was left.
fn ancestors(text: &str) -> BTreeMap<u32, u64> {
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let number = fields.next()?.parse().ok()?;
        Some((number, position(fields.next()?)?))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_leads_only_to_timelines_that_left_its_own_after_it() {
        let text = "1\t0/50000A0\tno recovery target specified\n\n2\t1/0\tbefore 2026-11-24\n";
        let line = Line {
            number: 3,
            left: ancestors(text),
        };
        assert!(leads(1, 0x0500_00A0, &line));
        assert!(!leads(1, 0x0500_00A1, &line));
        assert!(leads(2, 0xFFFF_FFFF, &line));
        assert!(!leads(2, 0x1_0000_0001, &line));
        assert!(leads(3, u64::MAX, &line));
        assert!(!leads(4, 1, &line), "a sister");
    }

    #[test]
    fn each_data_folder_has_its_own_archive() {
        let raw: Value = serde_json::from_str(
            r#"[{"name":"imdb-master1",
                 "archive":[{"database":{"id":1},"id":"17-1"},{"database":{"id":2},"id":"17-2"}],
                 "backup":[{"label":"A","database":{"id":1}},{"label":"B","database":{"id":2}}]}]"#,
        )
        .expect("JSON");
        let of = |label: &str| archive_of(&raw, NodeId::Master1, label);
        assert_eq!(of("A").as_deref(), Some("17-1"));
        assert_eq!(of("B").as_deref(), Some("17-2"));
        assert_eq!(of("C"), None);
    }
}
