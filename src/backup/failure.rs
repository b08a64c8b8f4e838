//! What can go wrong with pgBackRest, as a table. Its exit codes do not tell it alone: the same code stands for a
//! lock that somebody holds and for one that nobody may open.

use crate::cluster::NodeId;
use serde::Serialize;
use std::fmt;

/// A kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    Busy,
    NodeDown,
    DiskFull,
    WrongUser,
    ArchiveBroken,
    StanzaMismatch,
    Passphrase,
    Configuration,
    NoBackup,
    Damaged,
    Tablespace,
    LabelAhead,
    NotInstalled,
    TookTooLong,
    Interrupted,
    Other,
}

/// What is known of a class.
pub struct Row {
    pub class: Class,
    pub name: &'static str,
    /// Exit codes of pgBackRest (its build/error.yaml) that mean it.
    exits: &'static [i32],
    /// Words in its message that mean it, whatever the exit code.
    words: &'static [&'static str],
    /// Whether trying again can help without anybody's doing.
    pub retry: bool,
    /// What a person can do about it.
    pub hint: &'static str,
}

/// Every class. The first row that fits counts, so those that are told by words come before those that share their codes.
#[rustfmt::skip] // one row, one line
pub const CLASSES: &[Row] = &[
    Row { class: Class::DiskFull, name: "disk-full", exits: &[], words: &["No space left on device"], retry: true, hint: "make room where the repository is" },
    Row { class: Class::WrongUser, name: "wrong-user", exits: &[], words: &["Permission denied", "must not be run as root"], retry: false, hint: "run as the user that the data folder belongs to" },
    Row { class: Class::Busy, name: "busy", exits: &[50], words: &[], retry: true, hint: "another backup of this master is running" },
    Row { class: Class::NodeDown, name: "node-down", exits: &[49, 56, 57, 27], words: &[], retry: true, hint: "the master does not answer" },
    Row { class: Class::ArchiveBroken, name: "archive-broken", exits: &[44, 45, 68, 82, 87, 103], words: &[], retry: true, hint: "WAL does not get into the repository; see the master's log" },
    Row { class: Class::StanzaMismatch, name: "stanza-mismatch", exits: &[28, 51, 55, 58], words: &[], retry: true, hint: "the repository belongs to another data folder, or to none yet; `imdb-ha backup bootstrap` mends that" },
    Row { class: Class::Passphrase, name: "passphrase", exits: &[95], words: &["FormatError", "CryptoError", "unable to flush"], retry: false, hint: "the repository was made with another passphrase" },
    Row { class: Class::NoBackup, name: "no-backup", exits: &[75], words: &[], retry: false, hint: "no backup ended before that time" },
    Row { class: Class::LabelAhead, name: "label-ahead", exits: &[], words: &["not later than latest backup label"], retry: true, hint: "the newest backup was made with another time zone or clock, and its label is ahead; backups go on when UTC has passed it" },
    Row { class: Class::Configuration, name: "configuration", exits: &[29, 31, 32, 37], words: &[], retry: false, hint: "mend pgbackrest.conf" },
    Row { class: Class::Interrupted, name: "interrupted", exits: &[63], words: &[], retry: true, hint: "it was ended before its time" },
    Row { class: Class::NotInstalled, name: "not-installed", exits: &[], words: &[], retry: false, hint: "scripts/install.sh installs pgBackRest" },
    Row { class: Class::TookTooLong, name: "took-too-long", exits: &[], words: &[], retry: true, hint: "the machine or the repository is slow, or hangs" },
    Row { class: Class::Tablespace, name: "tablespace", exits: &[], words: &[], retry: false, hint: "make a backup now, which has the tablespace: no later moment can be restored without one" },
    Row { class: Class::Damaged, name: "damaged", exits: &[26], words: &[], retry: false, hint: "restore from an older backup, and make a full one" },
    Row { class: Class::Other, name: "other", exits: &[], words: &[], retry: true, hint: "see pgBackRest's log" },
];

impl Class {
    /// What is known of it.
    pub fn row(self) -> &'static Row {
        let other = &CLASSES[CLASSES.len() - 1];
        CLASSES
            .iter()
            .find(|row| row.class == self)
            .unwrap_or(other)
    }

    /// The class of what pgBackRest said when it ended with this code; without a code a signal ended it.
    pub fn of(exit: Option<i32>, said: &str) -> Class {
        let Some(exit) = exit else {
            return Class::Interrupted;
        };
        let fits = |row: &&Row| {
            row.exits.contains(&exit) || row.words.iter().any(|word| said.contains(word))
        };
        CLASSES
            .iter()
            .find(fits)
            .map_or(Class::Other, |row| row.class)
    }
}

/// The beginning of what a program said, for people: what was deciphered wrongly has bytes that a terminal obeys.
pub fn printable(said: &str, most: usize) -> String {
    let said = said.trim();
    let mut shown: String = said
        .chars()
        .take(most)
        .map(|letter| match letter {
            '\n' => ' ',
            letter if letter.is_control() => '?',
            letter => letter,
        })
        .collect();
    if said.chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}

/// Something that did not work.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    pub class: Class,
    pub node: NodeId,
    /// What was being done.
    pub doing: String,
    /// The whole cause.
    pub cause: String,
}

impl Failure {
    /// A failure that is none of pgBackRest's.
    pub fn new(class: Class, node: NodeId, doing: &str, cause: impl Into<String>) -> Failure {
        Failure {
            class,
            node,
            doing: doing.to_string(),
            cause: cause.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.class.row();
        write!(
            f,
            "{} {}: {} ({}: {})",
            self.doing, self.node, self.cause, row.name, row.hint
        )
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_exit_code_can_mean_two_things() {
        let busy = "unable to acquire lock on file '/x/imdb-master1-backup-1.lock': Resource temporarily unavailable";
        let denied =
            "unable to acquire lock on file '/x/imdb-master1-backup-1.lock': Permission denied";
        assert_eq!(Class::of(Some(50), busy), Class::Busy);
        assert_eq!(Class::of(Some(50), denied), Class::WrongUser);
        let full = "unable to write '/x/bundle/1': [28] No space left on device";
        assert_eq!(Class::of(Some(39), full), Class::DiskFull);
        assert_eq!(
            Class::of(Some(82), "WAL segment was not archived"),
            Class::ArchiveBroken
        );
        let ahead = "[029]: new backup label '20261129-023000F' is not later than latest backup label '20261129-163000F'";
        assert_eq!(Class::of(Some(29), ahead), Class::LabelAhead);
        assert_eq!(Class::of(None, ""), Class::Interrupted);
        assert_eq!(Class::of(Some(99), "?"), Class::Other);
    }

    #[test]
    fn every_class_has_its_row() {
        for row in CLASSES {
            assert_eq!(row.class.row().name, row.name);
            let json = serde_json::to_value(row.class).expect("a word");
            assert_eq!(json, row.name, "the same word in JSON");
        }
    }
}
