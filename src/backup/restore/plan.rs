//! Which backup a restore begins with, and what it means: decided purely, from what the repository has.

use super::timeline::Candidate;
use crate::backup::Kind;
use crate::backup::entry::{Entry, human, rfc3339};
use crate::backup::stanza;
use crate::backup::tablespaces::{INSTEAD, Present, Tablespace};
use crate::cluster::NodeId;
use anyhow::{Context, bail};
use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Up to where the WAL is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// As far as there is any.
    End,
    /// The last transaction that had committed at this moment.
    Moment(Timestamp),
    /// No further than the backup needs to be consistent.
    Backup,
}

/// What a person wants, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goal {
    pub node: NodeId,
    /// The label, when one was named.
    pub set: Option<String>,
    pub point: Point,
    pub timeline: Option<u32>,
}

/// What will be done.
#[derive(Clone, Debug)]
pub struct Plan {
    pub goal: Goal,
    pub label: String,
    pub kind: Kind,
    /// When the backup ended, in seconds since 1970.
    pub stop: i64,
    /// Bytes of the whole database.
    pub size: u64,
    pub verdict: &'static str,
    /// Newer ones that would have been taken, and why they were not.
    pub skipped: Vec<String>,
    /// Its tablespaces, and where each will be.
    pub tablespaces: Vec<(Tablespace, PathBuf)>,
}

/// Understands a moment: with a zone as RFC 3339 has it, or local time.
///
/// # Errors
/// When it is none, or has not come yet.
pub fn moment(text: &str, zone: &TimeZone, now: Timestamp) -> anyhow::Result<Timestamp> {
    let local = |text: &str| {
        let at: civil::DateTime = text.parse().ok()?;
        // A date alone is too easily meant as its end.
        let whole = text.contains(':');
        Some(
            at.to_zoned(zone.clone())
                .ok()
                .filter(|_| whole)?
                .timestamp(),
        )
    };
    let text = text.trim();
    let at = text.parse::<Timestamp>().ok().or_else(|| local(text));
    let Some(at) = at else {
        bail!(
            "--to: must be a time such as 2026-11-24T12:00:00Z, or 2026-11-24 12:00:00 in local time \
             (got {text:?})"
        );
    };
    if at > now {
        bail!("--to: {at} has not come yet (now it is {})", seconds(now));
    }
    Ok(at)
}

fn seconds(at: Timestamp) -> String {
    rfc3339(at.as_second())
}

/// The first moment that a backup can be taken to. The second in which it ended may have gone on after its end.
fn earliest(entry: &Entry) -> i64 {
    entry.stop + 1
}

/// Chooses the backup.
///
/// # Errors
/// That there is none, and what there is instead.
pub fn choose(goal: &Goal, candidates: &[Candidate]) -> anyhow::Result<Plan> {
    let node = goal.node;
    let all: Vec<Entry> = candidates.iter().map(|one| one.entry.clone()).collect();
    let plan = |entry: &Entry, skipped: Vec<String>| Plan {
        goal: goal.clone(),
        label: entry.label.clone(),
        kind: entry.kind,
        stop: entry.stop,
        size: entry.size,
        verdict: entry.verdict(&all),
        skipped,
        tablespaces: Vec::new(),
    };
    if let Some(label) = &goal.set {
        let entry = all.iter().find(|entry| entry.label == *label);
        let entry = entry.with_context(|| {
            format!("--set: {node} has no backup {label}; `imdb-ha backup info {node}` shows those that it has")
        })?;
        return Ok(plan(entry, Vec::new()));
    }
    let mut skipped = Vec::new();
    for one in candidates.iter().rev() {
        let entry = &one.entry;
        if let Point::Moment(at) = goal.point {
            if at < Timestamp::from_second(earliest(entry))? {
                continue;
            }
        }
        if entry.verdict(&all) == "bad" {
            let why = entry
                .verified
                .as_ref()
                .and_then(|found| found.error.clone());
            let why =
                why.unwrap_or_else(|| "it, or what it depends on, cannot be restored".to_string());
            skipped.push(format!("{} is bad: {why}", entry.label));
        } else if !one.leads_there {
            skipped.push(format!(
                "{} was made on timeline {}, after the moment to which an earlier restore went back",
                entry.label, one.timeline
            ));
        } else {
            return Ok(plan(entry, skipped));
        }
    }
    let usable = |one: &&Candidate| one.leads_there && one.entry.verdict(&all) != "bad";
    let oldest = candidates.iter().find(usable);
    let skipped = match skipped.is_empty() {
        true => String::new(),
        false => format!(" ({})", skipped.join("; ")),
    };
    match (goal.point, oldest) {
        (Point::Moment(at), Some(oldest)) => bail!(
            "--to: no backup of {node} leads to {at}{skipped}; the oldest moment that can be restored is {}, \
             with {}",
            rfc3339(earliest(&oldest.entry)),
            oldest.entry.label
        ),
        _ => bail!("{node} has no backup that can be restored{skipped}"),
    }
}

/// Refuses what leads over the making of a tablespace, as far as the master itself tells: the one is there now, the backup has it not, and it was
/// made before the moment. What it does not tell, such as one that was dropped since, stops the recovery.
///
/// # Errors
/// Which tablespace, and what to do.
pub fn refuse_later_tablespaces(
    goal: &Goal,
    label: &str,
    in_backup: &[Tablespace],
    present: &[Present],
) -> anyhow::Result<()> {
    let until = match goal.point {
        Point::End => i64::MAX,
        Point::Moment(at) => at.as_microsecond(),
        Point::Backup => return Ok(()),
    };
    // On an older timeline it may never have been made.
    let certain = goal.timeline.is_none();
    for one in present {
        let has = in_backup.iter().any(|tablespace| tablespace.oid == one.oid);
        let before = one.made.is_some_and(|made| made <= until) || goal.point == Point::End;
        if !has && before && certain {
            bail!(
                "tablespace {} ({}) of {} was made after {label} began: {INSTEAD}; nothing was changed",
                one.name,
                one.location,
                goal.node
            );
        }
    }
    Ok(())
}

impl Plan {
    /// What pgBackRest is told, beside where to restore to.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![format!("--set={}", self.label)];
        let timeline = self.goal.timeline;
        arguments.extend(timeline.map(|number| format!("--target-timeline={number}")));
        match self.goal.point {
            Point::End => arguments.push("--type=default".to_string()),
            Point::Backup => {
                arguments.push("--type=immediate".to_string());
                // Its own history, whatever has become of that since; pgBackRest's option for it is not allowed here.
                let own = "--recovery-option=recovery_target_timeline=current";
                arguments.push(own.to_string());
            }
            Point::Moment(at) => {
                arguments.push("--type=time".to_string());
                let at = at.to_zoned(TimeZone::UTC).strftime("%F %T.%6f+00");
                arguments.push(format!("--target={at}"));
            }
        }
        if self.goal.point != Point::End {
            arguments.push("--target-action=promote".to_string());
        }
        let map = |(tablespace, to): &(Tablespace, PathBuf)| {
            format!("--tablespace-map={}={}", tablespace.oid, to.display())
        };
        arguments.extend(self.tablespaces.iter().map(map));
        arguments
    }

    /// The state that both masters will hold.
    pub fn state(&self) -> String {
        let on = match self.goal.timeline {
            Some(number) => format!(" on timeline {number}"),
            None => String::new(),
        };
        match self.goal.point {
            Point::End => format!("the end of the archived WAL of {}{on}", self.goal.node),
            Point::Backup => format!("{}, when the backup ended", rfc3339(self.stop)),
            Point::Moment(at) => format!("{at}{on}"),
        }
    }

    /// What is lost.
    pub fn lost(&self, now: Timestamp) -> String {
        let node = self.goal.node;
        let since = match self.goal.point {
            Point::End => {
                let peer = node.peer();
                return format!(
                    "what is written while this runs, and what {peer} has and {node} never got"
                );
            }
            Point::Moment(at) => at,
            Point::Backup => Timestamp::from_second(self.stop).unwrap_or(now),
        };
        let span = now.as_second().saturating_sub(since.as_second()).max(0);
        format!(
            "everything written after {since} on either master, {}",
            span_words(span)
        )
    }

    /// The plan for a person, a line each. `kept` is where the data folder of now will be, if there is one.
    pub fn lines(&self, kept: Option<&Path>, now: Timestamp) -> Vec<String> {
        let Goal { node, .. } = self.goal;
        let peer = node.peer();
        let kept = match kept {
            Some(kept) => format!(
                "the data folder of {node} as it is now, as {}",
                kept.display()
            ),
            None => format!("nothing, since {node} has no data folder"),
        };
        let mut lines = vec![
            format!("both masters go back to {}", self.state()),
            format!(
                "from      {} backup {} of {node} ({}), ended {}, {}",
                self.kind,
                self.label,
                self.verdict,
                rfc3339(self.stop),
                human(self.size)
            ),
            format!("lost      {}", self.lost(now)),
            format!("kept      {kept}"),
            format!("rebuilt   {peer}, from {node}"),
        ];
        lines.extend(self.tablespaces.iter().map(|(tablespace, to)| {
            format!(
                "moved     tablespace {}, to {}",
                tablespace.name,
                to.display()
            )
        }));
        if self.goal.point == Point::End {
            lines.push(format!(
                "instead   where {node} alone is damaged, `imdb-ha rejoin {node}` brings it back from {peer} and loses nothing"
            ));
        }
        lines.extend(self.skipped.iter().map(|why| format!("skipped   {why}")));
        if self.verdict == "bad" {
            lines.push(format!(
                "WARNING   {} is bad, and was named all the same",
                self.label
            ));
        }
        lines
    }

    /// The same for programs.
    pub fn as_json(&self, kept: Option<&Path>, now: Timestamp) -> Value {
        json!({
            "node": self.goal.node,
            "stanza": stanza(self.goal.node),
            "label": self.label,
            "type": self.kind,
            "verdict": self.verdict,
            "state": self.state(),
            "lost": self.lost(now),
            "kept": kept,
            "rebuilt": self.goal.node.peer(),
            "skipped": self.skipped,
            "tablespaces": self.tablespaces.iter().map(|(tablespace, to)| json!({
                "name": tablespace.name, "was": tablespace.destination, "to": to,
            })).collect::<Vec<_>>(),
        })
    }
}

/// A span as people say it.
fn span_words(seconds: i64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::entry::{Verified, tests::entry};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn candidate(label: &str, stop: i64) -> Candidate {
        Candidate {
            entry: entry(label, Kind::Full, stop, &[]),
            timeline: 1,
            leads_there: true,
        }
    }

    fn goal(point: Point) -> Goal {
        Goal {
            node: NodeId::Master1,
            set: None,
            point,
            timeline: None,
        }
    }

    #[test]
    fn the_newest_backup_before_the_moment_is_taken() {
        let all = [candidate("A", 100), candidate("B", 200)];
        let of = |second| choose(&goal(Point::Moment(at(second))), &all).map(|plan| plan.label);
        assert_eq!(of(201).expect("one"), "B");
        // In the second of its end it may not have ended yet.
        assert_eq!(of(200).expect("one"), "A");
        let error = of(100).expect_err("none").to_string();
        assert!(error.starts_with("--to: no backup"), "{error}");
        assert!(error.contains("1970-01-01T00:01:41Z, with A"), "{error}");
        assert_eq!(choose(&goal(Point::End), &all).expect("one").label, "B");
        assert!(choose(&goal(Point::End), &[]).is_err());
    }

    #[test]
    fn bad_backups_and_those_of_an_abandoned_timeline_are_skipped() {
        let mut all = [
            candidate("A", 100),
            candidate("B", 200),
            candidate("C", 300),
        ];
        all[2].leads_there = false;
        all[1].entry.verified = Some(Verified {
            ok: false,
            at: String::new(),
            seconds: 1.0,
            checked: vec![],
            error: Some("a bundle is damaged".to_string()),
        });
        let plan = choose(&goal(Point::End), &all).expect("one");
        assert_eq!(plan.label, "A");
        assert_eq!(plan.skipped.len(), 2);
        assert!(
            plan.skipped[1].contains("a bundle is damaged"),
            "{:?}",
            plan.skipped
        );
        // Somebody who names it gets it, and is warned.
        let named = Goal {
            set: Some("B".to_string()),
            ..goal(Point::Backup)
        };
        let plan = choose(&named, &all).expect("it is there");
        let lines = plan.lines(Some(Path::new("/kept")), at(400)).join("\n");
        assert!(lines.contains("WARNING"), "{lines}");
        assert!(
            plan.arguments()
                .contains(&"--recovery-option=recovery_target_timeline=current".to_string())
        );
        let missing = Goal {
            set: Some("X".to_string()),
            ..goal(Point::Backup)
        };
        assert!(choose(&missing, &all).is_err());
    }

    #[test]
    fn a_moment_is_understood_and_handed_on_in_utc() {
        let now = at(2_000_000_000);
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let of = |text: &str| moment(text, &zone, now).map_err(|error| error.to_string());
        let noon: Timestamp = "2026-11-24T12:00:00Z".parse().expect("a time");
        for text in [
            "2026-11-24T12:00:00Z",
            "2026-11-24 13:00:00+01:00",
            "2026-11-24 14:00:00",
            " 2026-11-24T14:00:00.000 ",
        ] {
            assert_eq!(of(text), Ok(noon), "{text}");
        }
        for text in [
            "yesterday",
            "2026-11-24",
            "",
            "12:00",
            "2026-13-01 10:00:00",
        ] {
            let error = of(text).expect_err(text);
            assert!(error.starts_with("--to: must be a time"), "{error}");
        }
        let error = of("2033-05-18T03:33:21Z").expect_err("a second late");
        assert!(error.contains("has not come yet"), "{error}");
        let plan = choose(&goal(Point::Moment(noon)), &[candidate("A", 100)]).expect("one");
        let arguments = plan.arguments().join(" ");
        assert!(
            arguments.contains("--target=2026-11-24 12:00:00.000000+00"),
            "{arguments}"
        );
    }
}
