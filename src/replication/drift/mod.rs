//! What changes behind the back of a replication that works: somebody makes a table on one master, drops a subscription, disables the
//! triggers. Nothing of it is replicated, and most of it PostgreSQL does not even mention. Here it is read and judged; `src/watch.rs` looks
//! every few seconds, and `imdb-ha replication status` once.

mod functions;
mod judge;
mod tables;

use super::reach::Reach;
use super::rejoin::MARK;
use crate::cluster::NodeId;
use postgres::{Client, Row};

pub use judge::alarms;

/// What one master says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// A set-up has been here.
    prepared: bool,
    /// A rejoin has begun to rebuild this master and has not ended.
    rejoining: bool,
    /// Somebody is changing the replication, so that nothing can be said of it.
    pub changing: bool,
    /// Nothing, or whether it is enabled.
    subscription: Option<bool>,
    /// Its options that are not ours.
    options: Vec<String>,
    publication: Publication,
    /// The slot from which the peer reads.
    slot: bool,
    /// Whether `replicator` may log in and replicate.
    role: bool,
    triggers: Vec<String>,
    functions: Vec<String>,
    tables: Vec<Table>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Publication {
    Missing,
    /// It is made in another way than by the set-up.
    Other,
    Ours,
}

/// A table or view of schema `public`, by its name as SQL needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Table {
    name: String,
    /// As in `pg_class`.
    kind: char,
    unlogged: bool,
    /// In the order of the table, as they are written in `CREATE TABLE`.
    columns: Vec<String>,
    /// Those that can keep a row out.
    constraints: Vec<String>,
    /// Its rows can be told from each other.
    identified: bool,
    /// This master publishes it.
    sent: bool,
    /// The subscription of this master takes it.
    taken: bool,
}

/// Reads what [`alarms`] judges.
///
/// # Errors
/// Those of the driver.
pub fn read(client: &mut Client, node: NodeId) -> Result<Seen, postgres::Error> {
    let row = client.query_one(
        include_str!("../../../sql/drift.sql"),
        &[&node.subscription(), &node.slot(), &MARK],
    )?;
    let prepared = row.try_get("prepared")?;
    let subscription: bool = row.try_get("subscription")?;
    let enabled: bool = row.try_get("enabled")?;
    let mut seen = Seen {
        prepared,
        rejoining: row.try_get("rejoining")?,
        changing: row.try_get("changing")?,
        subscription: subscription.then_some(enabled),
        options: row.try_get("options")?,
        publication: publication(client)?,
        slot: row.try_get("slot")?,
        role: row.try_get("role")?,
        triggers: Vec::new(),
        functions: Vec::new(),
        tables: Vec::new(),
    };
    if prepared {
        if row.try_get("knows_triggers")? {
            seen.triggers = triggers(client)?;
        }
        seen.functions = functions::wrong(client, node)?;
        let rows = client.query(
            include_str!("../../../sql/drift_tables.sql"),
            &[&node.subscription()],
        )?;
        seen.tables = rows.iter().map(table).collect::<Result<_, _>>()?;
    }
    Ok(seen)
}

/// What a set-up will have mended of the triggers and functions of a master, in words; nothing before the first one.
pub(super) fn broken(reach: &Reach, node: NodeId) -> anyhow::Result<Vec<String>> {
    reach.run(node, "look at its triggers", move |session| {
        let client = session.client();
        let row = client.query_one(
            "SELECT pg_catalog.to_regprocedure('imdb_ha.disparadores_mal()') IS NOT NULL",
            &[],
        )?;
        if !row.try_get::<_, bool>(0)? {
            return Ok(Vec::new());
        }
        let triggers = triggers(client)?.into_iter();
        let triggers = triggers.map(|what| format!("trigger {what}"));
        let functions = functions::wrong(client, node)?.into_iter();
        let functions =
            functions.map(|name| format!("function imdb_ha.{name} was not that of this version"));
        Ok(triggers.chain(functions).collect())
    })
}

fn publication(client: &mut Client) -> Result<Publication, postgres::Error> {
    let row = client.query_one(include_str!("../../../sql/published.sql"), &[])?;
    Ok(match (row.try_get("there")?, row.try_get("whole")?) {
        (false, _) => Publication::Missing,
        (true, false) => Publication::Other,
        (true, true) => Publication::Ours,
    })
}

/// The triggers that are missing, replaced or enabled in another way than they must be, each with what is wrong with it.
fn triggers(client: &mut Client) -> Result<Vec<String>, postgres::Error> {
    let rows = client.query(
        "SELECT tabla || '.' || nombre, esta FROM imdb_ha.disparadores_mal() ORDER BY 1",
        &[],
    )?;
    let wrong = rows.iter().map(|row| {
        let (name, mode): (String, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
        let what = match mode.as_deref() {
            None => "is missing or another one",
            Some("D") => "is disabled",
            Some("O") => "fires for this master's own changes and not for those that arrive",
            Some("R") => "fires for changes that arrive and not for this master's own",
            Some(_) => "fires for all changes",
        };
        Ok(format!("{name} {what}"))
    });
    wrong.collect()
}

fn table(row: &Row) -> Result<Table, postgres::Error> {
    let kind: String = row.try_get("kind")?;
    Ok(Table {
        name: row.try_get("name")?,
        kind: kind.chars().next().unwrap_or('r'),
        unlogged: row.try_get("unlogged")?,
        columns: row.try_get("columns")?,
        constraints: row.try_get("constraints")?,
        identified: row.try_get("identified")?,
        sent: row.try_get("sent")?,
        taken: row.try_get("taken")?,
    })
}
