//! Whether the archived WAL is whole. pgBackRest lists the first and the last segment and says nothing of what is missing
//! between, where no moment can be restored.

use super::archiver::Archiving;
use super::command::{NEVER, Place};
use super::entry::Entry;
use super::failure::Failure;
use super::info::Stanza;
use super::stanza;
use crate::cluster::NodeId;
use crate::limits;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Instant;

/// What pgBackRest knows of the data folder that a master has now. It numbers the folders that it has seen; a rebuilt master
/// has a new one, and nothing that this writes can be added to what the old one left.
pub struct Present<'a> {
    of: Option<&'a Value>,
    id: Option<u64>,
}

/// Segments that are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The first of them.
    pub first: String,
    pub segments: u64,
}

impl Hole {
    /// Whether no backup has begun behind it. The names are in the order of the segments.
    fn is_open(&self, newest_begins: &str) -> bool {
        self.first.as_str() >= newest_begins
    }
}

impl<'a> Present<'a> {
    pub fn of(node: NodeId, known: &'a Stanza) -> Present<'a> {
        let mut stanzas = known.raw.as_array().into_iter().flatten();
        let of = stanzas.find(|of| of["name"] == stanza(node));
        let folders = of.and_then(|of| of["db"].as_array());
        let ids = folders.into_iter().flatten();
        let id = ids.filter_map(|folder| folder["id"].as_u64()).max();
        Present { of, id }
    }

    /// Those entries that are backups of it.
    pub fn entries(&self, all: &[Entry]) -> Vec<Entry> {
        let labels: Vec<&str> = self
            .parts("backup")
            .filter_map(|backup| backup["label"].as_str())
            .collect();
        let is_present = |entry: &&Entry| labels.contains(&entry.label.as_str());
        all.iter().filter(is_present).cloned().collect()
    }

    /// The name of its archive, and the segment with which its newest backup begins: what is missing before that can be mended by
    /// nobody any more, and every later moment can be restored.
    fn archive(&self) -> Option<(&'a str, &'a str)> {
        let name = self.parts("archive").next()?["id"].as_str()?;
        let newest = self.parts("backup").last()?;
        Some((name, newest["archive"]["start"].as_str()?))
    }

    fn parts(&self, name: &str) -> impl Iterator<Item = &'a Value> {
        let id = self.id;
        let parts = self.of.and_then(|of| of[name].as_array());
        let parts = parts.into_iter().flatten();
        parts.filter(move |part| part["database"]["id"].as_u64() == id)
    }
}

/// Looks into the archive of one master now and then.
#[derive(Default)]
pub struct WalWatch {
    looked: Option<Instant>,
    suspected: Option<Hole>,
    confirmed: Option<Hole>,
}

impl WalWatch {
    /// The hole that was there at two looks. One look proves nothing: segments are handed over side by side, and old ones go
    /// while they are listed.
    ///
    /// # Errors
    /// When the archive cannot be listed.
    pub fn look(
        &mut self,
        place: &Place,
        node: NodeId,
        known: &Stanza,
        archiving: Option<&Archiving>,
    ) -> Result<Option<Hole>, Failure> {
        // With this option it is pgBackRest that leaves only what each backup needs.
        let thinned = place.option(node, "repo1-retention-archive").is_some();
        let recently = self
            .looked
            .is_some_and(|at| at.elapsed() < limits::BACKUP_WAL_LOOK);
        let (Some(archiving), Some((archive, from))) =
            (archiving, Present::of(node, known).archive())
        else {
            return Ok(self.confirmed.clone());
        };
        self.confirmed = self.confirmed.take().filter(|hole| hole.is_open(from));
        if thinned || recently {
            return Ok(self.confirmed.clone());
        }
        self.looked = Some(Instant::now());
        let folder = format!("archive/{}/{archive}", stanza(node));
        let arguments = ["repo-ls", &folder, "--recurse"];
        let listing = place.run(
            node,
            "list the archive of",
            &arguments,
            limits::BACKUP_ASK,
            NEVER,
        )?;
        let found = hole(&listing, from, archiving.segment_bytes);
        let same = found.as_ref().map(|hole| &hole.first)
            == self.suspected.as_ref().map(|hole| &hole.first);
        if same || found.is_none() {
            self.confirmed.clone_from(&found);
        }
        self.suspected = found;
        Ok(self.confirmed.clone())
    }
}

/// The first hole in an archive from this segment on.
fn hole(listing: &str, from: &str, segment_bytes: u64) -> Option<Hole> {
    // The name of a segment is its timeline, and its place as a number of 4 GiB and one within those.
    let per_log = (1 << 32) / segment_bytes.max(1);
    let read = |name: &str| -> Option<(u64, u64)> {
        let part = |at: usize| u64::from_str_radix(name.get(at..at + 8)?, 16).ok();
        Some((part(0)?, part(8)? * per_log + part(16)?))
    };
    let (first_timeline, first) = read(from)?;
    let segments: BTreeSet<(u64, u64)> = listing
        .lines()
        .filter_map(|line| {
            let name = line.rsplit('/').next()?;
            // Histories, ends of timelines and marks of backups have other names.
            let is_segment = name.as_bytes().get(24) == Some(&b'-');
            read(name).filter(|_| is_segment)
        })
        .filter(|segment| *segment >= (first_timeline, first))
        .collect();
    let mut expected = (first_timeline, first);
    for (timeline, number) in segments {
        // A new timeline begins where somebody left the one before.
        if timeline == expected.0 && number > expected.1 {
            let (log, within) = (expected.1 / per_log, expected.1 % per_log);
            return Some(Hole {
                first: format!("{timeline:08X}{log:08X}{within:08X}"),
                segments: number - expected.1,
            });
        }
        expected = (timeline, number + 1);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB16: u64 = 16 * 1024 * 1024;

    fn listing(names: &[&str]) -> String {
        let line = |name: &&str| {
            format!("0000000100000000/{name}-532bb2c01f967736cd5031359a61580de0314a8d.zst\n")
        };
        names.iter().map(line).collect()
    }

    #[test]
    fn a_hole_is_found_between_the_newest_backup_and_the_end() {
        let found = |names: &[&str], from| hole(&listing(names), from, MB16);
        let (one, two, three, five) = (
            "000000010000000000000001",
            "000000010000000000000002",
            "000000010000000000000003",
            "000000010000000000000005",
        );
        assert_eq!(found(&[one, two, three], one), None);
        // The order of the listing means nothing, nor does what lies before the newest backup.
        assert_eq!(found(&[three, two], two), None);
        assert_eq!(found(&[one, three], three), None);
        let told = |first: &str, segments| {
            Some(Hole {
                first: first.to_string(),
                segments,
            })
        };
        assert_eq!(found(&[one, three], one), told(two, 1));
        assert_eq!(found(&[one, two, five], one), told(three, 2));
        assert_eq!(found(&[two, three], one), told(one, 1));
        assert_eq!(found(&[], one), None, "nothing has arrived yet");
    }

    #[test]
    fn a_backup_behind_a_hole_ends_it() {
        let known = |newest: &str| {
            let backup = |start: &str| serde_json::json!({ "database": { "id": 1 }, "archive": { "start": start } });
            let raw = serde_json::json!([{
                "name": "imdb-master1",
                "db": [{ "id": 1 }],
                "archive": [{ "id": "17-1", "database": { "id": 1 } }],
                "backup": [backup("000000010000000000000001"), backup(newest)],
            }]);
            Stanza {
                state: super::super::info::State::Ready,
                backups: vec![],
                progress: None,
                raw,
            }
        };
        let names = [
            "000000010000000000000002",
            "000000010000000000000004",
            "000000010000000000000005",
        ];
        let found = |newest| {
            let known = known(newest);
            let (name, from) = Present::of(NodeId::Master1, &known).archive()?;
            assert_eq!(name, "17-1");
            hole(&listing(&names), from, MB16)
        };
        let open = found(names[0]).expect("the third is missing");
        assert!(open.is_open(names[0]));
        assert_eq!(found(names[1]), None);
        assert!(!open.is_open(names[1]));
        assert!(
            !open.is_open("000000020000000000000003"),
            "another timeline"
        );
    }

    #[test]
    fn numbers_carry_over_and_timelines_begin_anew() {
        let end = "0000000100000000000000FF";
        let next = "000000010000000100000000";
        assert_eq!(hole(&listing(&[end, next]), end, MB16), None);
        // With segments of 64 MB there are 64 of them in 4 GiB.
        let end = "00000001000000000000003F";
        assert_eq!(hole(&listing(&[end, next]), end, 4 * MB16), None);
        assert_eq!(
            hole(&listing(&[end, next]), end, MB16).map(|hole| hole.segments),
            Some(192)
        );
        let switched = listing(&[
            "000000010000000000000001",
            "000000010000000000000002",
            "000000020000000000000002",
        ]);
        assert_eq!(hole(&switched, "000000010000000000000001", MB16), None);
    }

    #[test]
    fn other_files_are_no_segments() {
        let text = "0000000100000000\n0000000100000000/000000010000000000000009.00000028.backup\n00000002.history\n\
                    0000000100000000/000000010000000000000009.partial-0a.zst\narchive.info\n";
        assert_eq!(hole(text, "000000010000000000000001", MB16), None);
    }
}
