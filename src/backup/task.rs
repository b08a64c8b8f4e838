//! The things that are done about backups, and what of them has failed.

use super::Kind;
use super::failure::{Class, Failure};
use crate::cluster::NodeId;

/// One thing to do about the backups of one master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    Backup { kind: Kind, day: Option<u8> },
    Seal { label: String },
    Drill { label: String },
}

/// What a task is for; each has failures of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    Seal,
    Backup,
    Drill,
}

impl Task {
    pub fn aim(&self) -> Aim {
        match self {
            Task::Backup { .. } => Aim::Backup,
            Task::Seal { .. } => Aim::Seal,
            Task::Drill { .. } => Aim::Drill,
        }
    }

    /// Its name in JSON: a kind of backup, `seal` or `drill`.
    pub fn name(&self) -> &'static str {
        match self {
            Task::Backup { kind, .. } => kind.name(),
            Task::Seal { .. } => "seal",
            Task::Drill { .. } => "drill",
        }
    }

    /// The backup that it is about, if that is there already.
    pub fn label(&self) -> Option<&str> {
        match self {
            Task::Backup { .. } => None,
            Task::Seal { label } | Task::Drill { label } => Some(label),
        }
    }
}

/// The last failure of an aim that has not been reached since.
#[derive(Clone, Debug)]
pub struct Setback {
    pub failure: Failure,
    /// Seconds since 1970.
    pub at: i64,
    /// How many there were in a row.
    pub times: u32,
}

/// What failed, for each master and aim.
#[derive(Clone, Debug, Default)]
pub struct Setbacks([[Option<Setback>; 3]; 2]);

impl Setbacks {
    pub fn of(&self, node: NodeId, aim: Aim) -> Option<&Setback> {
        self.0[node.index()][aim as usize].as_ref()
    }

    /// The newest of all.
    pub fn last(&self) -> Option<&Setback> {
        let all = self.0.iter().flatten().flatten();
        all.max_by_key(|setback| setback.at)
    }

    /// Keeps a failure.
    pub fn add(&mut self, node: NodeId, aim: Aim, failure: Failure, at: i64) {
        let before = self.of(node, aim).map_or(0, |setback| setback.times);
        self.0[node.index()][aim as usize] = Some(Setback {
            failure,
            at,
            times: before.saturating_add(1),
        });
    }

    /// Forgets what failed, because it has worked.
    pub fn clear(&mut self, node: NodeId, aim: Aim) {
        self.0[node.index()][aim as usize] = None;
    }
}

/// Whether a failure only means that somebody else was first.
pub fn is_busy(failure: &Failure) -> bool {
    failure.class == Class::Busy
}
