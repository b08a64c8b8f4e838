//! What a person has to look at about the backups.

use super::archiver::Archiving;
use super::entry::{Entry, is_good};
use super::failure::Failure;
use super::schedule::{shortest, span};
use super::task::{Aim, Setbacks};
use super::wal::Hole;
use crate::cluster::NodeId;
use crate::config::Plan;
use crate::limits;
use serde::Serialize;
use std::time::Duration;

/// One alarm. The code and the master stay the same for as long as it is the same alarm; the text may have figures in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alarm {
    pub code: &'static str,
    pub node: NodeId,
    pub text: String,
}

/// What is judged.
pub struct Facts<'a> {
    /// Seconds since 1970.
    pub now: i64,
    /// Since when this program has been looking.
    pub since: i64,
    pub plan: Plan,
    /// Every backup of each master, oldest first, or why they are not known.
    pub all: [Option<&'a [Entry]>; 2],
    /// Those of the present data folder.
    pub present: [Option<&'a [Entry]>; 2],
    pub unreadable: [Option<&'a Failure>; 2],
    pub setbacks: &'a Setbacks,
    pub archiving: [Option<&'a Archiving>; 2],
    pub holes: [Option<&'a Hole>; 2],
}

/// Everything that is wrong, master by master.
pub fn alarms(facts: &Facts) -> Vec<Alarm> {
    let of_node = |node: NodeId| {
        let found = [
            unreadable(facts, node),
            age(facts, node),
            failing(facts, node, Aim::Backup),
            failing(facts, node, Aim::Seal),
            failing(facts, node, Aim::Drill),
            bad(facts, node),
            archiving(facts, node),
            missing(facts, node),
        ];
        found
            .into_iter()
            .flatten()
            .map(move |(code, text)| Alarm { code, node, text })
    };
    NodeId::BOTH.into_iter().flat_map(of_node).collect()
}

type Found = Option<(&'static str, String)>;

fn unreadable(facts: &Facts, node: NodeId) -> Found {
    let failure = facts.unreadable[node.index()]?;
    Some(("unreadable", failure.to_string()))
}

/// The backup to go back to: the newest that was restored, or else the newest of which nothing bad is known.
pub fn restore_point(entries: &[Entry]) -> Option<&Entry> {
    let tried = entries
        .iter()
        .rfind(|entry| entry.verdict(entries) == "good");
    tried.or_else(|| entries.iter().rfind(|entry| is_good(entry, entries)))
}

fn age(facts: &Facts, node: NodeId) -> Found {
    let entries = facts.present[node.index()]?;
    let shortest = shortest(facts.plan)?;
    let seconds = |time: Duration| time.as_secs() as i64;
    match entries.iter().rfind(|entry| is_good(entry, entries)) {
        Some(newest) => {
            let age = facts.now - newest.stop;
            (age > 2 * seconds(shortest)).then(|| {
                let (age, every) = (rough(age), span(shortest));
                let text = format!(
                    "its newest usable backup, {}, is {age} old; there should be one every {every}",
                    newest.label
                );
                ("age", text)
            })
        }
        None => {
            let failed = facts.setbacks.of(node, Aim::Backup).is_some();
            let long = facts.now - facts.since > seconds(limits::BACKUP_NEVER_AFTER);
            (failed || long).then(|| ("never", "it has no usable backup at all".to_string()))
        }
    }
}

/// An age in its largest unit.
fn rough(seconds: i64) -> String {
    let units = [
        (2 * 86_400, 86_400, "d"),
        (2 * 3_600, 3_600, "h"),
        (120, 60, "min"),
    ];
    let fits = units.iter().find(|(least, ..)| seconds >= *least);
    match fits {
        Some((_, unit, name)) => format!("{} {name}", seconds / unit),
        None => format!("{seconds} s"),
    }
}

fn failing(facts: &Facts, node: NodeId, aim: Aim) -> Found {
    let setback = facts.setbacks.of(node, aim)?;
    let hopeless = !setback.failure.class.row().retry;
    let code = match aim {
        Aim::Backup => "backup-fails",
        Aim::Seal => "seal-fails",
        Aim::Drill => "drill-fails",
    };
    let again = match setback.times {
        1 => String::new(),
        times => format!("{times} times in a row, lastly: "),
    };
    let is_alarm = hopeless || setback.times >= limits::BACKUP_FAILURES_ALARM;
    is_alarm.then(|| (code, format!("{again}{}", setback.failure)))
}

/// A backup that cannot be restored, by its own fault. Those that need it are bad with it and add nothing.
fn bad(facts: &Facts, node: NodeId) -> Found {
    let entries = facts.all[node.index()]?;
    let own = |entry: &&Entry| entry.page_errors || entry.has_failed();
    let newest = entries.iter().rfind(own)?;
    let found = newest.verified.as_ref();
    let found = found.and_then(|verified| verified.error.as_deref());
    let why = found.unwrap_or("pages in it fail their checksums");
    let others = entries
        .iter()
        .filter(|entry| entry.verdict(entries) == "bad")
        .count()
        - 1;
    let others = match others {
        0 => String::new(),
        others => format!(" ({others} more are bad)"),
    };
    let point = match restore_point(entries) {
        Some(point) => format!(
            "the restore point is {}, {}",
            point.label,
            point.verdict(entries)
        ),
        None => "there is no other to go back to".to_string(),
    };
    Some((
        "bad",
        format!("backup {} is bad: {why}{others}; {point}", newest.label),
    ))
}

fn archiving(facts: &Facts, node: NodeId) -> Found {
    let seen = facts.archiving[node.index()]?;
    if !seen.on {
        let text =
            "archive_mode is off, so no backup of it can be made, and nothing after one restored";
        return Some(("archiving", text.to_string()));
    }
    let what = match (&seen.failing, seen.waiting) {
        (Some(segment), _) => {
            format!("it could not archive WAL segment {segment}; its log tells why")
        }
        (None, waiting) if waiting >= limits::BACKUP_WAL_WAITING_MAX => {
            "its WAL is not archived as fast as it is made".to_string()
        }
        _ => return None,
    };
    Some((
        "archiving",
        format!("{what}; {} segments wait", seen.waiting),
    ))
}

fn missing(facts: &Facts, node: NodeId) -> Found {
    let Hole { first, segments } = facts.holes[node.index()]?;
    let text = format!(
        "{segments} WAL segments are missing from its archive, from {first} on; no moment between them and the next backup \
         can be restored"
    );
    Some(("wal-hole", text))
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::super::entry::Verified;
    use super::super::entry::tests::entry;
    use super::super::failure::Class;
    use super::*;

    const HOUR: i64 = 3_600;
    const NOW: i64 = 1_000 * HOUR;

    fn judged(
        entries: &[Entry],
        change: impl FnOnce(&mut Setbacks),
        archiving: Option<Archiving>,
    ) -> Vec<(&'static str, String)> {
        let mut setbacks = Setbacks::default();
        change(&mut setbacks);
        let hours = |hours: u64| Some(Duration::from_secs(hours * 3_600));
        let facts = Facts {
            now: NOW,
            since: NOW - 10,
            plan: Plan::Every {
                full: hours(24),
                diff: None,
                incr: hours(6),
            },
            all: [Some(entries), None],
            present: [Some(entries), None],
            unreadable: [None, None],
            setbacks: &setbacks,
            archiving: [archiving.as_ref(), None],
            holes: [None, None],
        };
        alarms(&facts)
            .into_iter()
            .map(|alarm| (alarm.code, alarm.text))
            .collect()
    }

    fn codes(found: &[(&'static str, String)]) -> Vec<&'static str> {
        found.iter().map(|(code, _)| *code).collect()
    }

    fn at(label: &str, hours_ago: i64, needs: &[&str], ok: Option<bool>) -> Entry {
        let verified = ok.map(|ok| Verified {
            ok,
            at: String::new(),
            seconds: 1.0,
            checked: vec![],
            error: (!ok).then(|| "a file is damaged".to_string()),
        });
        Entry {
            verified,
            ..entry(label, Kind::Full, NOW - hours_ago * HOUR, needs)
        }
    }

    #[test]
    fn an_old_newest_backup_is_an_alarm_and_none_at_all_is_after_the_first_failure() {
        let nothing = |_: &mut Setbacks| {};
        assert_eq!(judged(&[at("F", 12, &[], None)], nothing, None), []);
        let told = judged(&[at("F", 13, &[], None)], nothing, None);
        assert_eq!(
            told,
            [(
                "age",
                "its newest usable backup, F, is 13 h old; there should be one every 6 h"
                    .to_string()
            )]
        );
        assert_eq!(judged(&[], nothing, None), []);
        let told = judged(
            &[],
            |setbacks| {
                let failure = Failure::new(
                    Class::NodeDown,
                    NodeId::Master1,
                    "make a backup of",
                    "refused",
                );
                setbacks.add(NodeId::Master1, Aim::Backup, failure, NOW);
            },
            None,
        );
        assert_eq!(codes(&told), ["never"]);
    }

    #[test]
    fn a_bad_one_is_named_with_the_one_to_go_back_to() {
        let entries = [
            at("F1", 4, &[], Some(true)),
            at("F2", 3, &[], None),
            at("F3", 2, &[], Some(false)),
            at("I3", 1, &["F3"], None),
        ];
        let told = judged(&entries, |_| {}, None);
        let text =
            "backup F3 is bad: a file is damaged (1 more are bad); the restore point is F1, good";
        assert_eq!(told, [("bad", text.to_string())]);
        assert_eq!(
            restore_point(&entries[1..]).map(|entry| entry.label.as_str()),
            Some("F2")
        );
        // What is bad does not count as young either.
        let told = judged(&entries[2..], |_| {}, None);
        assert_eq!(codes(&told), ["bad"]);
        assert!(told[0].1.ends_with("there is no other to go back to"));
    }

    #[test]
    fn what_trying_does_not_mend_is_an_alarm_at_once_and_the_rest_after_three_times() {
        let fresh = [at("F", 1, &[], None)];
        let after = |class, times: i64| {
            let fail = |setbacks: &mut Setbacks| {
                for _ in 0..times {
                    let failure =
                        Failure::new(class, NodeId::Master1, "make a backup of", "it is so");
                    setbacks.add(NodeId::Master1, Aim::Backup, failure, NOW);
                }
            };
            codes(&judged(&fresh, fail, None))
        };
        assert_eq!(after(Class::Passphrase, 1), ["backup-fails"]);
        assert_eq!(after(Class::DiskFull, 2), [""; 0]);
        assert_eq!(after(Class::DiskFull, 3), ["backup-fails"]);
    }

    #[test]
    fn archiving_that_stands_still_is_an_alarm() {
        let fresh = [at("F", 1, &[], None)];
        let seen = |on, failing: Option<&str>, waiting| {
            let failing = failing.map(str::to_string);
            let archiving = Archiving {
                on,
                failing,
                waiting,
                segment_bytes: 16 * 1024 * 1024,
            };
            codes(&judged(&fresh, |_| {}, Some(archiving)))
        };
        assert_eq!(seen(true, None, 63), [""; 0]);
        assert_eq!(seen(true, None, 64), ["archiving"]);
        assert_eq!(
            seen(true, Some("000000010000000000000007"), 1),
            ["archiving"]
        );
        assert_eq!(seen(false, None, 0), ["archiving"]);
    }
}
