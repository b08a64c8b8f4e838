//! One backup as it is told to everyone: what pgBackRest knows of it, and what was found out by restoring it. All of it is kept
//! by pgBackRest itself, as annotations, so that whoever has the repository has everything.

use super::info::Backup;
use super::{Kind, stanza};
use crate::cluster::NodeId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The annotations of a backup that are ours.
pub mod notes {
    /// Why it was made: `schedule`, `asked`, `cycle`.
    pub const BECAUSE: &str = "imdb-ha-because";
    /// The day of the manual's cycle, 1 to 6.
    pub const DAY: &str = "imdb-ha-day";
    /// A [`super::Seal`] as JSON.
    pub const SEAL: &str = "imdb-ha-seal";
    /// A [`super::Verified`] as JSON.
    pub const VERIFIED: &str = "imdb-ha-verified";
}

/// What the tables held at a named point after the backup, which a restore of it must hold too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// The restore point's name.
    pub point: String,
    /// When it was set, as RFC 3339.
    pub at: String,
    /// Of each table: the number of rows, and a checksum over them that does not depend on their order.
    pub tables: BTreeMap<String, (i64, String)>,
}

/// What came of restoring a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verified {
    pub ok: bool,
    /// When it ended, as RFC 3339.
    pub at: String,
    pub seconds: f64,
    /// What was checked.
    pub checked: Vec<String>,
    /// What was wrong.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// One backup.
#[derive(Clone, Debug)]
pub struct Entry {
    pub node: NodeId,
    pub label: String,
    pub kind: Kind,
    /// Seconds since 1970.
    pub start: i64,
    pub stop: i64,
    /// Bytes of the whole database.
    pub size: u64,
    /// Bytes of it that were copied.
    pub copied: u64,
    /// Bytes that this backup alone takes in the repository.
    pub stored: u64,
    /// The backups that it cannot be restored without.
    pub needs: Vec<String>,
    /// Whether a page failed its checksum when it was copied.
    pub page_errors: bool,
    pub because: Option<String>,
    pub day: Option<u8>,
    pub seal: Option<Seal>,
    /// Whether it is known that it can have none.
    pub unsealable: bool,
    pub verified: Option<Verified>,
    /// Where it lies in the repository.
    pub location: String,
}

impl Entry {
    /// The entry of a backup in the repository at `repository`. An annotation that cannot be understood is as good as none.
    pub fn of(node: NodeId, backup: &Backup, repository: &str) -> Entry {
        let note = |name: &str| backup.annotation.get(name);
        Entry {
            node,
            label: backup.label.clone(),
            kind: backup.kind,
            start: backup.timestamp.start,
            stop: backup.timestamp.stop,
            size: backup.info.size,
            copied: backup.info.delta,
            stored: backup.info.repository.delta,
            needs: backup.reference.clone().unwrap_or_default(),
            page_errors: backup.error.unwrap_or(false),
            because: note(notes::BECAUSE).cloned(),
            day: note(notes::DAY).and_then(|day| day.parse().ok()),
            seal: note(notes::SEAL).and_then(|text| serde_json::from_str(text).ok()),
            // What is written there instead is the reason.
            unsealable: note(notes::SEAL)
                .is_some_and(|text| serde_json::from_str::<String>(text).is_ok()),
            verified: note(notes::VERIFIED).and_then(|text| serde_json::from_str(text).ok()),
            location: format!("{repository}/backup/{}/{}", stanza(node), backup.label),
        }
    }

    /// Whether nothing speaks against restoring it: what it needs may, which only the whole list tells; see [`is_good`].
    fn is_sound(&self) -> bool {
        !self.page_errors && self.verified.as_ref().is_none_or(|verified| verified.ok)
    }

    /// Whether it was restored and that failed.
    pub fn has_failed(&self) -> bool {
        self.verified.as_ref().is_some_and(|verified| !verified.ok)
    }

    /// `good` when it has been restored, `bad` when it cannot be, else `untried`.
    pub fn verdict(&self, all: &[Entry]) -> &'static str {
        match (is_good(self, all), &self.verified) {
            (false, _) => "bad",
            (true, Some(_)) => "good",
            (true, None) => "untried",
        }
    }

    /// The manual's fields, and those that it lacks.
    pub fn as_json(&self, all: &[Entry]) -> Value {
        json!({
            "timestamp": rfc3339(self.start),
            "type": self.kind,
            "stanza": stanza(self.node),
            "location": self.location,
            "size_bytes": self.size,
            "size_human": human(self.size),
            "duration_seconds": self.stop - self.start,
            "status": if self.page_errors { "page-errors" } else { "completed" },
            "master": self.node,
            "label": self.label,
            "finished": rfc3339(self.stop),
            "copied_bytes": self.copied,
            "stored_bytes": self.stored,
            "needs": self.needs,
            "because": self.because,
            "day": self.day,
            "verdict": self.verdict(all),
            "verified": self.verified,
        })
    }
}

/// Whether a backup and everything that it needs are sound, as far as is known.
pub fn is_good(entry: &Entry, all: &[Entry]) -> bool {
    let of_node = |label: &String| {
        let mut found = all.iter().filter(|other| other.node == entry.node);
        found.find(|other| other.label == *label)
    };
    entry.is_sound() && entry.needs.iter().filter_map(of_node).all(Entry::is_sound)
}

/// A time as RFC 3339 in UTC.
pub fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.to_string())
}

/// Bytes as people write them, like the manual's `512MB`.
pub fn human(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, 0);
    const UNITS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match value < 10.0 && unit > 0 {
        true => format!("{value:.1}{}", UNITS[unit]),
        false => format!("{value:.0}{}", UNITS[unit]),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A backup of master1 that ended at `stop`.
    pub fn entry(label: &str, kind: Kind, stop: i64, needs: &[&str]) -> Entry {
        Entry {
            node: NodeId::Master1,
            label: label.to_string(),
            kind,
            start: stop - 2,
            stop,
            size: 31_472_608,
            copied: 8_450,
            stored: 408,
            needs: needs.iter().map(|label| (*label).to_string()).collect(),
            page_errors: false,
            because: None,
            day: None,
            seal: None,
            unsealable: false,
            verified: None,
            location: String::new(),
        }
    }

    #[test]
    fn a_backup_is_as_bad_as_what_it_needs() {
        let verified = |ok| Verified {
            ok,
            at: String::new(),
            seconds: 1.0,
            checked: vec![],
            error: None,
        };
        let mut full = entry("F", Kind::Full, 10, &[]);
        let incr = entry("I", Kind::Incr, 20, &["F"]);
        let all = [full.clone(), incr.clone()];
        assert_eq!(incr.verdict(&all), "untried");
        full.verified = Some(verified(false));
        let all = [full.clone(), incr.clone()];
        assert_eq!(incr.verdict(&all), "bad");
        full.verified = Some(verified(true));
        let all = [full.clone(), incr];
        assert_eq!(full.verdict(&all), "good");
        // Another master's backup of the same label is another backup.
        let other = Entry {
            node: NodeId::Master2,
            page_errors: true,
            ..full.clone()
        };
        assert_eq!(full.verdict(&[other, full.clone()]), "good");
    }

    #[test]
    fn sizes_and_times_are_written_like_the_manual_s() {
        assert_eq!(human(536_870_912), "512MB");
        assert_eq!(human(2_147_483_648), "2.0GB");
        assert_eq!(human(408), "408B");
        assert_eq!(rfc3339(1_759_838_400), "2025-10-07T12:00:00Z");
    }
}
