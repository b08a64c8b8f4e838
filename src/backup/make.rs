//! A backup with all that belongs to it, for the commands: made, published, sealed.

use super::catalog::{Catalog, Known};
use super::command::{NEVER, Place};
use super::entry::Entry;
use super::failure::Failure;
use super::runner::{self, Wanted};
use super::seal;
use crate::bars::Bar;
use crate::cluster::NodeId;
use crate::config::Config;

/// A backup that is there, and what beside it did not work.
pub struct Made {
    pub entry: Entry,
    pub warnings: Vec<String>,
}

/// Makes one backup and tells everyone. The caller holds a [`runner::Claim`]. Redis hears of it before it is sealed, which may take
/// a while; neither can fail a backup that is there.
///
/// # Errors
/// Why there is no backup.
pub fn make(place: &Place, config: &Config, wanted: &Wanted, bar: &Bar) -> Result<Made, Failure> {
    let entry = runner::backup(place, wanted, NEVER, &|(done, all)| bar.set(done, all))?;
    let mut warnings = Vec::new();
    if let Err(error) = publish(place, config) {
        warnings.push(format!(
            "{error:#}; the API writes it when Redis is there again"
        ));
    }
    if let Err(failure) = seal::seal(place, config, wanted.node, &entry.label) {
        warnings.push(format!("{failure}; a restore of it can be tried without"));
    }
    Ok(Made { entry, warnings })
}

/// Sees that Redis has what is known of both masters; returns whether anything was missing.
///
/// # Errors
/// When neither repository can be read, or Redis cannot be written.
pub fn publish(place: &Place, config: &Config) -> anyhow::Result<bool> {
    let mut known = Vec::new();
    let mut failed = None;
    for node in NodeId::BOTH {
        match place.known(node) {
            Ok((stanza, entries)) => known.push(Known {
                node,
                stanza,
                entries,
            }),
            Err(failure) => failed = Some(failure),
        }
    }
    match failed {
        Some(failure) if known.is_empty() => Err(failure.into()),
        _ => Catalog::new(config).publish(&known),
    }
}
