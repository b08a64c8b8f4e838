//! Whether a server and its database can be a master at all.

use super::reach::Reach;
use crate::cluster::NodeId;
use anyhow::bail;

/// Refuses what would break later, in the middle of something else.
///
/// # Errors
/// What it is, and what is needed.
pub(super) fn check(reach: &Reach, node: NodeId, done: &mut Vec<String>) -> anyhow::Result<()> {
    let found = reach.run(node, "ask for its settings", |session| {
        let row = session
            .client()
            .query_one(include_str!("../../sql/fit.sql"), &[])?;
        Ok(Found {
            version: row.try_get("version")?,
            wal_level: row.try_get("wal_level")?,
            database: row.try_get("database")?,
            encoding: row.try_get("encoding")?,
            locale: row.try_get("locale")?,
            new: row.try_get("new")?,
        })
    })?;
    refuse(&found, node)?;
    let folds = reach.run(node, "try its locale", |session| {
        let row = session
            .client()
            .query_one("SELECT pg_catalog.lower('ÓЖ') = 'óж'", &[])?;
        row.try_get::<_, bool>(0)
    })?;
    if folds {
        return Ok(());
    }
    let why = format!(
        "database {} of {node} has the locale {}, which knows no capitals but A to Z, so a search for ACCIÓN would not find Acción",
        found.database, found.locale
    );
    if found.new {
        bail!(
            "{why}; make it anew with another one, for instance LOCALE 'C.UTF-8' TEMPLATE template0"
        );
    }
    // It serves already, and an upgrade must not end that.
    done.push(format!("WARNING: {why}"));
    Ok(())
}

/// What a server says of itself.
struct Found {
    version: i32,
    wal_level: String,
    database: String,
    encoding: String,
    locale: String,
    /// Nothing of this program is there yet.
    new: bool,
}

fn refuse(found: &Found, node: NodeId) -> anyhow::Result<()> {
    if found.version < 160_000 {
        bail!(
            "{node} is PostgreSQL {}; origin = none needs 16 or newer",
            found.version / 10_000
        );
    }
    if found.wal_level != "logical" {
        bail!(
            "{node} has wal_level = {}; set it to logical (see sql/master.conf) and restart it",
            found.wal_level
        );
    }
    if found.encoding != "UTF8" {
        bail!(
            "database {0} of {node} has the encoding {1}, and titles of all languages need UTF8; make it anew, for instance with \
             CREATE DATABASE \"{0}\" ENCODING 'UTF8' LOCALE 'C.UTF-8' TEMPLATE template0",
            found.database,
            found.encoding
        );
    }
    Ok(())
}
