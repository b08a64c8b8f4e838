//! The WAL archive of a server: what it is told about it, and the stanza, made before its first start, so that no WAL is ever without a
//! place to go.

use crate::backup::command::Place;
use crate::backup::stanza::{self, Outcome};
use crate::cluster::NodeId;
use crate::output::say_with_time as say;
use anyhow::Context;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a master's WAL and backups go, if they go anywhere.
#[derive(Clone, Debug)]
pub struct Archive {
    node: NodeId,
    place: Option<Place>,
}

impl Archive {
    /// The archive that pgBackRest's configuration at `place` names; without one nothing is archived.
    pub fn new(node: NodeId, place: Option<Place>) -> Archive {
        Archive { node, place }
    }

    /// What the server is told about its WAL.
    pub fn settings(&self) -> String {
        let Some(place) = &self.place else {
            return "archive_mode = off\n".to_string();
        };
        let folder = place.folder(self.node).display().to_string();
        format!(
            "archive_mode = on\n\
             archive_command = 'env TZ=UTC pgbackrest --config-path=\"{}\" --stanza={} archive-push %p'\n",
            folder.replace('\'', "''"),
            crate::backup::stanza(self.node)
        )
    }

    /// Gives a server what its archiver needs to encrypt.
    pub fn lend_passphrase(&self, command: &mut Command) {
        if let Some(place) = &self.place {
            place.lend_passphrase(command);
        }
    }

    /// Readies the archive of a server that does not run and is about to. Whatever is wrong is told and is no error: the server
    /// keeps its WAL, and hands it over once it can.
    pub fn prepare(&self, data: &Path) {
        let Some(place) = &self.place else {
            return;
        };
        if let Err(error) = self.ready(place, data) {
            say(&format!(
                "ALARM: {}: {error:#}; no WAL is archived until then",
                self.node
            ));
        }
    }

    fn ready(&self, place: &Place, data: &Path) -> anyhow::Result<()> {
        for name in ["repo1-path", "spool-path", "lock-path", "log-path"] {
            if let Some(folder) = place.option(self.node, name) {
                place.owner().make_folder(Path::new(&folder))?;
            }
        }
        let system = system_of(data)?;
        let mark = place.scratch(self.node).join("system-id");
        let known = fs::read_to_string(&mark).is_ok_and(|text| text.trim() == system.to_string());
        let repository = place.option(self.node, "repo1-path").map(PathBuf::from);
        let made = repository.map(|repository| {
            let archive = repository.join("archive");
            archive.join(crate::backup::stanza(self.node))
        });
        if known && made.is_some_and(|made| made.join("archive.info").exists()) {
            return Ok(());
        }
        let outcome = stanza::ensure(place, self.node, false)?;
        if outcome == Outcome::Upgraded {
            say(&format!(
                "{}: a new data folder; the backups of the old one stay",
                self.node
            ));
        }
        place.owner().write_private(&mark, &format!("{system}\n"))
    }
}

/// The number that tells a data folder from every other: the first field of `pg_control`.
///
/// # Errors
/// When it cannot be read.
pub fn system_of(data: &Path) -> anyhow::Result<u64> {
    let path = data.join("global/pg_control");
    let mut first = [0_u8; 8];
    File::open(&path)
        .and_then(|mut file| file.read_exact(&mut first))
        .with_context(|| format!("read {}", path.display()))?;
    Ok(u64::from_ne_bytes(first))
}
