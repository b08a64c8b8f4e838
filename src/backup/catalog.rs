//! The catalogue of the backups in Redis, under the manual's keys. All of it follows from what pgBackRest knows, so it can be
//! written again at any time.

use super::entry::Entry;
use super::info::Stanza;
use crate::cluster::NodeId;
use crate::config::Config;

/// Writes the catalogue.
pub struct Catalog {}

/// What there is to tell about one master.
pub struct Known {
    pub node: NodeId,
    pub stanza: Stanza,
    /// Oldest first.
    pub entries: Vec<Entry>,
}

impl Catalog {
    /// A catalogue in the Redis of the configuration; connects to nothing yet.
    pub fn new(_config: &Config) -> Catalog {
        Catalog {}
    }

    /// Sees that Redis has everything that is known, and nothing that is no longer there; returns whether anything had to be written.
    ///
    /// # Errors
    /// Those of Redis, within its time limits.
    pub fn publish(&mut self, _known: &[Known]) -> anyhow::Result<bool> {
        anyhow::bail!("not there yet")
    }
}
