//! What is found out about a backup is kept with it, as pgBackRest's annotation of it.

use super::command::{NEVER, Place};
use super::failure::{Class, Failure};
use crate::cluster::NodeId;
use crate::limits;
use serde::Serialize;
use std::time::Instant;

/// The time as it is kept: RFC 3339, to the millisecond.
pub fn now() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_millisecond(now.as_millisecond())
        .unwrap_or(now)
        .to_string()
}

impl Place {
    /// Keeps something with a backup, in the place of what was kept there under the same name.
    ///
    /// # Errors
    /// When it is not kept: the backup is gone, or somebody holds the repository for longer than this waits.
    pub fn keep(
        &self,
        node: NodeId,
        label: &str,
        name: &str,
        value: &impl Serialize,
    ) -> Result<(), Failure> {
        let doing = "keep what is known of a backup of";
        let value = serde_json::to_string(value)
            .map_err(|error| Failure::new(Class::Other, node, doing, error.to_string()))?;
        let set = format!("--set={label}");
        let note = format!("--annotation={name}={value}");
        let deadline = Instant::now() + limits::NOTE_PATIENCE;
        loop {
            let arguments = [set.as_str(), note.as_str(), "annotate"];
            match self.run(node, doing, &arguments, limits::BACKUP_ASK, NEVER) {
                Err(failure) if failure.class == Class::Busy && Instant::now() < deadline => {
                    std::thread::sleep(limits::NOTE_AGAIN);
                }
                outcome => return outcome.map(drop),
            }
        }
    }
}
