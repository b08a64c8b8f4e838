//! How the archiving of WAL goes, in the words of the masters themselves. Without it a backup is one moment, and nothing after it.

use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::pg::{self, Session, Sessions};
use std::time::Duration;

const ARCHIVER: &str = include_str!("../../sql/archiver.sql");

/// What a master says of its archiving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archiving {
    pub on: bool,
    /// The segment that the newest try could not hand over.
    pub failing: Option<String>,
    /// Segments that wait.
    pub waiting: i64,
    pub segment_bytes: u64,
}

/// Asks the masters, on sessions of its own.
pub struct Archivers {
    sessions: [Sessions; 2],
}

impl Archivers {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn new(config: &Config) -> anyhow::Result<Archivers> {
        let patience = Duration::from_millis(limits::STATEMENT_TIMEOUT_MS);
        let open = |node: NodeId| -> anyhow::Result<Sessions> {
            let settings = pg::master_settings(config, node, patience)?;
            Ok(Sessions::start(node, pg::without_waiting(settings), 1)?)
        };
        Ok(Archivers {
            sessions: [open(NodeId::Master1)?, open(NodeId::Master2)?],
        })
    }

    /// Asks one master.
    ///
    /// # Errors
    /// Why it gave no answer, in words.
    pub fn ask(&self, node: NodeId) -> Result<Archiving, String> {
        let answer = self.sessions[node.index()].run(limits::BACKUP_ARCHIVER_ASK, read);
        answer.map_err(|error| format!("ask {node} about its archiving: {error}"))
    }
}

fn read(session: &mut Session) -> Result<Archiving, postgres::Error> {
    let rows = session.query(ARCHIVER, &[])?;
    // The view has one row, always.
    let Some(row) = rows.first() else {
        return Ok(Archiving {
            on: false,
            failing: None,
            waiting: 0,
            segment_bytes: 0,
        });
    };
    let failing: Option<bool> = row.try_get("failing")?;
    let segment: Option<String> = row.try_get("segment")?;
    Ok(Archiving {
        on: row.try_get::<_, String>("mode")? != "off",
        failing: segment.filter(|_| failing == Some(true)),
        waiting: row.try_get("waiting")?,
        segment_bytes: row.try_get::<_, i64>("segment_bytes")?.unsigned_abs(),
    })
}
