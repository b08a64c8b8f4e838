//! The stanza of a master in its repository: made, and made to fit again when the master got a new data folder.

use super::command::{NEVER, Place};
use super::failure::{Class, Failure};
use crate::cluster::NodeId;
use crate::limits;

/// What was done about a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It fits, made now or before.
    Fits,
    /// The data folder is another than the one of the backups so far; they stay, and the next one is a full one.
    Upgraded,
}

/// Sees that the stanza fits the data folder. Repeating it changes nothing. `online` is for a server that runs; without it there
/// must be none, and then WAL goes into the repository from the first segment on.
///
/// # Errors
/// What pgBackRest said.
pub fn ensure(place: &Place, node: NodeId, online: bool) -> Result<Outcome, Failure> {
    let online = match online {
        true => "--online",
        false => "--no-online",
    };
    let run = |doing, command| {
        place.run(
            node,
            doing,
            &[online, command],
            limits::BACKUP_STANZA,
            NEVER,
        )
    };
    match run("make the stanza of", "stanza-create") {
        Ok(_) => Ok(Outcome::Fits),
        Err(failure) if failure.class == Class::StanzaMismatch => {
            run("upgrade the stanza of", "stanza-upgrade").map(|_| Outcome::Upgraded)
        }
        Err(failure) => Err(failure),
    }
}
