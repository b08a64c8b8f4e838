//! The drill: a backup is restored beside the masters, started, checked and removed again, and what came of it is kept with it.
//!
//! It disturbs nobody: the server that it starts has a socket alone, archives nothing, follows nobody, and fetches WAL into a folder of
//! its own. What a backup is blamed for is decided in `blame.rs`.

use super::blame::{self, Ending};
use super::command::{GiveUp, Place};
use super::entry::{Entry, Seal, Verified, human, notes};
use super::failure::{Class, Failure};
use super::keep;
use super::scratch::{NotServing, Scratch};
use super::seal::{self, Figures};
use super::tablespaces;
use super::verify;
use crate::config::Config;
use crate::limits;
use crate::replication::rejoin;
use std::path::Path;
use std::time::Instant;

const DOING: &str = "try a backup of";

/// Why a drill ends before its end.
enum Trouble {
    /// The backup is bad, and so are these others, whose files it needs.
    Bad(String, Vec<String>),
    /// It is bad only after its own end: its WAL does not reach as far as it should.
    WalEnds(String),
    /// Nothing is known of the backup.
    Untried(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Untried(failure)
    }
}

/// How far the recovery goes.
#[derive(Clone, Copy)]
enum Until<'a> {
    Seal(&'a Seal),
    /// The end of the backup, where it is consistent.
    End,
}

struct Drill<'a> {
    place: &'a Place,
    config: &'a Config,
    entry: &'a Entry,
    give_up: GiveUp<'a>,
    told: &'a mut dyn FnMut(&str),
    checked: Vec<String>,
}

/// Tries one backup. The caller holds a [`super::runner::Claim`]. `told` hears one line about each step.
///
/// # Errors
/// Why it could not be tried. That it is bad is no error; the result says so.
pub fn run(
    place: &Place,
    config: &Config,
    entry: &Entry,
    give_up: GiveUp,
    told: &mut dyn FnMut(&str),
) -> Result<Verified, Failure> {
    let began = Instant::now();
    let mut drill = Drill {
        place,
        config,
        entry,
        give_up,
        told,
        checked: Vec::new(),
    };
    let (error, others) = match drill.all() {
        Ok(()) => (None, Vec::new()),
        Err(Trouble::Bad(error, others)) => (Some(error), others),
        Err(Trouble::WalEnds(error)) => (Some(error), Vec::new()),
        Err(Trouble::Untried(failure)) => return Err(failure),
    };
    if error.is_some() {
        drill.is_still_listed()?;
    }
    let verified = Verified {
        ok: error.is_none(),
        at: keep::now(),
        seconds: (began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
        checked: drill.checked,
        error,
    };
    let kept = place.keep(entry.node, &entry.label, notes::VERIFIED, &verified);
    kept.map_err(|mut failure| {
        let found = verified.error.as_deref().unwrap_or("it is good");
        failure.cause = format!("{}; what was found: {found}", failure.cause);
        failure
    })?;
    // Else one of them would be named as what can be restored instead.
    for label in others.iter().filter(|label| **label != entry.label) {
        let of_other = Verified {
            error: Some(format!(
                "found when {} was tried: {}",
                entry.label,
                verified.error.clone().unwrap_or_default()
            )),
            ..verified.clone()
        };
        place.keep(entry.node, label, notes::VERIFIED, &of_other)?;
    }
    Ok(verified)
}

impl Drill<'_> {
    fn tell(&mut self, line: &str) {
        (self.told)(line);
    }

    fn done(&mut self, what: String) {
        self.tell(&what);
        self.checked.push(what);
    }

    fn failure(&self, class: Class, cause: impl Into<String>) -> Failure {
        let doing = format!("try backup {} of", self.entry.label);
        Failure::new(class, self.entry.node, &doing, cause)
    }

    /// What went wrong beside the backup; being ended is no more than that, whatever was said last.
    fn untried(&self, error: &anyhow::Error) -> Trouble {
        let cause = format!("{error:#}");
        let class = match error.downcast_ref::<NotServing>() {
            _ if (self.give_up)() => Class::Interrupted,
            Some(NotServing::TookTooLong(_)) => Class::TookTooLong,
            _ if cause.contains("No space left on device") => Class::DiskFull,
            _ if cause.contains("not done after") => Class::TookTooLong,
            _ => Class::Other,
        };
        Trouble::Untried(self.failure(class, cause))
    }

    fn all(&mut self) -> Result<(), Trouble> {
        self.files()?;
        let until = self.entry.seal.as_ref().map_or(Until::End, Until::Seal);
        match self.restored(until) {
            Err(Trouble::WalEnds(why)) => {
                self.tell(&format!("{why}; trying how far it can be restored"));
                self.restored(Until::End)?;
                Err(Trouble::WalEnds(format!(
                    "it can be restored to its end, but to no later time: {why}"
                )))
            }
            outcome => outcome,
        }
    }

    /// A repository that cannot be read just now, or from which the backup has gone, makes none bad.
    fn is_still_listed(&self) -> Result<(), Failure> {
        let all = self.place.entries(self.entry.node)?;
        match all.iter().any(|other| other.label == self.entry.label) {
            true => Ok(()),
            false => Err(self.failure(Class::NoBackup, "it is not in the repository any more")),
        }
    }

    /// Reads every file that the backup needs.
    fn files(&mut self) -> Result<(), Trouble> {
        self.tell("reading its files");
        let set = format!("--set={}", self.entry.label);
        let (place, node) = (self.place, self.entry.node);
        let verify = |arguments: &[&str]| {
            place.run(node, DOING, arguments, limits::DRILL_STEP, self.give_up)
        };
        let run = match verify(&[&set, "--output=text", "--verbose", "verify"]) {
            // Before 2.55 it could only read all of them.
            Err(failure) if failure.cause.starts_with("[031]") => {
                verify(&["--output=text", "--verbose", "verify"])
            }
            run => run,
        };
        let files = verify::parse(&run?, &self.entry.label);
        match files.wrong {
            None => {
                self.done(format!("files: {} as they were written", files.valid));
                Ok(())
            }
            Some(wrong) => Err(Trouble::Bad(wrong, files.damaged)),
        }
    }

    /// Restores it, checks what came out, and removes that again in any case.
    fn restored(&mut self, until: Until) -> Result<(), Trouble> {
        let folder = self.place.scratch(self.entry.node).join("drill");
        let scratch = Scratch::new(self.place, self.config, self.entry.node, &folder);
        let mut scratch = scratch.map_err(|error| self.untried(&error))?;
        let outcome = self
            .room(&scratch)
            .and_then(|()| self.restore(&scratch, until))
            .and_then(|()| self.recover(&mut scratch, until))
            .and_then(|()| self.check(&scratch, until));
        // The next one removes what is left, so this speaks neither for nor against the backup.
        if let Err(error) = scratch.stop().and_then(|()| scratch.remove()) {
            log::warn!("after a trial restore: {error:#}");
        }
        outcome
    }

    fn room(&self, scratch: &Scratch) -> Result<(), Trouble> {
        let needed = self.entry.size / 100 * limits::DRILL_ROOM_PERCENT;
        let free = nix::sys::statvfs::statvfs(&scratch.data)
            .map(|of| of.blocks_available().saturating_mul(of.fragment_size()))
            .map_err(|error| {
                let cause = format!("ask for the room at {}: {error}", scratch.data.display());
                self.failure(Class::Other, cause)
            })?;
        match free >= needed {
            true => Ok(()),
            false => {
                let cause = format!(
                    "a trial restore in {} needs {}, and {} are free",
                    scratch.data.display(),
                    human(needed),
                    human(free)
                );
                Err(self.failure(Class::DiskFull, cause).into())
            }
        }
    }

    fn restore(&mut self, scratch: &Scratch, until: Until) -> Result<(), Trouble> {
        let path = |name| scratch.beside(name).display().to_string();
        let mut arguments = vec![
            format!("--pg1-path={}", scratch.data.display()),
            format!("--set={}", self.entry.label),
            "--no-delta".to_string(),
            // Else what is started would push WAL, and a timeline of its own, into the repository.
            "--archive-mode=off".to_string(),
            "--target-action=promote".to_string(),
            format!("--tablespace-map-all={}", path("tablespaces")),
            // The timeline of the backup: a later restore of the master may have left it before the point.
            "--recovery-option=recovery_target_timeline=current".to_string(),
        ];
        match until {
            Until::Seal(seal) => {
                arguments.push("--type=name".to_string());
                arguments.push(format!("--target={}", seal.point));
            }
            Until::End => arguments.push("--type=immediate".to_string()),
        }
        arguments.push("restore".to_string());
        self.tell("restoring it");
        let began = Instant::now();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let run = self.place.run(
            self.entry.node,
            DOING,
            &arguments,
            limits::DRILL_STEP,
            self.give_up,
        );
        match run {
            Ok(_) => {
                let seconds = began.elapsed().as_secs_f64();
                self.done(format!("restored: {seconds:.1} s"));
                Ok(())
            }
            Err(failure) if blame::is_of_the_backup(&failure) => {
                Err(Trouble::Bad(failure.cause, Vec::new()))
            }
            Err(failure) => Err(failure.into()),
        }
    }

    fn recover(&mut self, scratch: &mut Scratch, until: Until) -> Result<(), Trouble> {
        self.tell("starting it");
        let started = scratch.start(self.place, limits::DRILL_RECOVERY, self.give_up);
        let Err(error) = started else {
            let reached = match until {
                Until::Seal(seal) => format!("recovered: to its seal of {}", seal.at),
                Until::End => "recovered: to its end".to_string(),
            };
            self.done(reached);
            return Ok(());
        };
        let ended = match error.downcast_ref() {
            Some(NotServing::Ended(_, by_signal)) => Some(*by_signal),
            _ => None,
        };
        let Some(by_signal) = ended.filter(|_| !(self.give_up)()) else {
            return Err(self.untried(&error));
        };
        match blame::ending(&scratch.said(), by_signal) {
            Ending::OfTheMachine => Err(self.untried(&error)),
            Ending::Tablespace(which) => {
                if let Some(original) = self.place.option(self.entry.node, "pg1-path") {
                    tablespaces::undo(self.place, &which, Path::new(&original));
                }
                let cause = format!("{which} after it: {}", tablespaces::INSTEAD);
                Err(self.failure(Class::Tablespace, cause).into())
            }
            Ending::WalEnds(last) => Err(Trouble::WalEnds(lacking(last))),
            Ending::OfTheData => Err(Trouble::Bad(format!("{error:#}"), Vec::new())),
        }
    }

    fn check(&mut self, scratch: &Scratch, until: Until) -> Result<(), Trouble> {
        self.pages(scratch)?;
        let node = self.entry.node;
        let unfinished = scratch
            .with_session(limits::DRILL_SUM, |session| {
                rejoin::bears_mark(session.client())
            })
            .map_err(|error| self.untried(&error))?;
        if unfinished {
            let why = format!(
                "{node} was being rebuilt from {} then, and did not hold everything",
                node.peer()
            );
            return Err(Trouble::Bad(why, Vec::new()));
        }
        let Until::Seal(seal) = until else {
            return Ok(());
        };
        self.tell("counting its rows");
        let found = scratch
            .with_session(limits::DRILL_SUM, seal::figures_of)
            .map_err(|error| self.untried(&error))?;
        if let Some(difference) = difference(&seal.tables, &found) {
            return Err(Trouble::Bad(difference, Vec::new()));
        }
        let rows: i64 = seal.tables.values().map(|(rows, _)| rows).sum();
        let tables = seal.tables.len();
        self.done(format!(
            "rows: {rows}, the same as on {} when it was sealed (tables: {tables})",
            self.entry.node
        ));
        Ok(())
    }

    /// Every page of every table and index, in all databases.
    fn pages(&mut self, scratch: &Scratch) -> Result<(), Trouble> {
        if !scratch.has("pg_amcheck") {
            let cause = "pg_amcheck is not among PostgreSQL's programs";
            return Err(self.failure(Class::NotInstalled, cause).into());
        }
        self.tell("checking every page");
        let arguments = ["--all", "--install-missing", "--heapallindexed", "--jobs=2"];
        let run = scratch.run(
            self.place,
            "pg_amcheck",
            &arguments,
            limits::DRILL_STEP,
            self.give_up,
        );
        let Err(error) = run else {
            self.done("pages: pg_amcheck finds nothing wrong".to_string());
            return Ok(());
        };
        let cause = format!("{error:#}");
        match blame::is_damage(&cause) && !(self.give_up)() {
            true => Err(Trouble::Bad(cause, Vec::new())),
            false => Err(self.untried(&error)),
        }
    }
}

/// What to say when recovery ran out of WAL after this segment.
fn lacking(last: Option<String>) -> String {
    let next = |last: &str| blame::next_segment(last, limits::WAL_SEGMENT_BYTES);
    match last.as_deref().and_then(next) {
        Some(next) => format!("WAL segment {next} is missing in the archive or damaged"),
        None => "the archive has none of the WAL after the backup".to_string(),
    }
}

/// The first table that does not hold what it should.
fn difference(expected: &Figures, found: &Figures) -> Option<String> {
    for (table, (rows, checksum)) in expected {
        match found.get(table) {
            None => return Some(format!("table {table} is missing")),
            Some((there, _)) if there != rows => {
                return Some(format!(
                    "table {table} has {there} rows, and had {rows} when the backup was sealed"
                ));
            }
            Some((_, there)) if there != checksum => {
                return Some(format!(
                    "the {rows} rows of table {table} are not those of when the backup was sealed"
                ));
            }
            Some(_) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_missing_shorter_or_other_is_named() {
        let of = |tables: &[(&str, i64, &str)]| -> Figures {
            tables
                .iter()
                .map(|(name, rows, sum)| ((*name).to_string(), (*rows, (*sum).to_string())))
                .collect()
        };
        let sealed = of(&[("generos", 3, "42")]);
        assert_eq!(difference(&sealed, &sealed), None);
        let said = |found: &[(&str, i64, &str)]| difference(&sealed, &of(found)).expect("other");
        assert!(said(&[]).contains("generos is missing"));
        assert!(said(&[("generos", 2, "42")]).contains("2 rows"));
        assert!(said(&[("generos", 3, "41")]).contains("not those"));
        // A table that was made after the seal is no fault.
        assert_eq!(
            difference(&sealed, &of(&[("generos", 3, "42"), ("x", 1, "1")])),
            None
        );
    }

    #[test]
    fn the_segment_that_is_missing_is_named() {
        assert!(
            lacking(Some("000000010000000000000007".to_string()))
                .contains("000000010000000000000008")
        );
        assert!(lacking(None).contains("none of the WAL"));
    }
}
