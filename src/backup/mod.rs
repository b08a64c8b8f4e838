//! Backups of both masters with pgBackRest, which are restored before they are called good.

pub mod alarms;
pub mod apart;
pub mod archiver;
pub mod blame;
pub mod catalog;
pub mod command;
pub mod cycle;
pub mod days;
pub mod drill;
pub mod drill_report;
pub mod entry;
pub mod expiry;
pub mod failure;
pub mod info;
pub mod keep;
pub mod keeper;
pub mod make;
pub mod report;
pub mod restore;
pub mod runner;
pub mod schedule;
pub mod scratch;
pub mod seal;
pub mod shown;
pub mod sockets;
pub mod stanza;
pub mod tablespaces;
pub mod task;
pub mod verify;
pub mod wal;
pub mod worker;

use crate::cluster::NodeId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// What has changed since the backup before, whatever that was.
    Incr,
    /// What has changed since the last full one.
    Diff,
    /// Everything.
    Full,
}

impl Kind {
    /// All of them, the one that can stand for all others first.
    pub const ALL: [Kind; 3] = [Kind::Full, Kind::Diff, Kind::Incr];

    /// Its name on pgBackRest's command line, in JSON and in Redis.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Full => "full",
            Kind::Diff => "diff",
            Kind::Incr => "incr",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(text: &str) -> Result<Kind, ()> {
        let found = Kind::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or(())
    }
}

/// pgBackRest's name for a master and all that belongs to it.
pub const fn stanza(node: NodeId) -> &'static str {
    match node {
        NodeId::Master1 => "imdb-master1",
        NodeId::Master2 => "imdb-master2",
    }
}
