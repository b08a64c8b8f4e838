//! The migrations of the films' tables: in order, each once, each in one transaction with its record. The tables that settle
//! conflicts are not among them: `sql/schema.sql` is applied at each set-up, and says of itself what is missing.

use super::reach::Reach;
use crate::cluster::NodeId;
use crate::limits;
use crate::pg::unsent;
use anyhow::Context;

/// One step of the schema. Numbers count from 1 without gaps; a step that has been published never changes again.
struct Migration {
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration {
        name: "imdb",
        sql: include_str!("../../sql/migrations/0001_imdb.sql"),
    },
    Migration {
        name: "palabras",
        sql: include_str!("../../sql/migrations/0002_palabras.sql"),
    },
];

/// The replication origin of what a migration writes.
const ORIGIN: &str = "imdb_ha_migracion";

/// What a master has on record of a migration, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Applied {
    number: i32,
    name: String,
    /// Whether its text is that of this program; `None` for one that this program does not have.
    same: Option<bool>,
}

/// Applies what `node` lacks.
///
/// # Errors
/// When the master has a migration that this program does not have, or has in another form; nothing was changed then.
pub(super) fn apply(reach: &Reach, node: NodeId, done: &mut Vec<String>) -> anyhow::Result<()> {
    let applied = reach.run(node, "look at its migrations", |session| {
        let client = session.client();
        client.batch_execute(include_str!("../../sql/migrations.sql"))?;
        let rows = client.query(
            "SELECT numero, nombre, sha256 FROM imdb_ha.migraciones ORDER BY numero",
            &[],
        )?;
        let sums = rows.iter().map(|row| {
            let number: i32 = row.try_get(0)?;
            let known = usize::try_from(number - 1)
                .ok()
                .and_then(|index| MIGRATIONS.get(index));
            let same = match known {
                Some(known) => {
                    let same = client.query_one(
                        "SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to($1, 'UTF8')), 'hex') = $2",
                        &[&known.sql, &row.try_get::<_, String>(2)?],
                    )?;
                    Some(same.try_get(0)?)
                }
                None => None,
            };
            Ok(Applied { number, name: row.try_get(1)?, same })
        });
        sums.collect::<Result<Vec<Applied>, postgres::Error>>()
    })?;
    let from = next(&applied).map_err(anyhow::Error::msg);
    let from = from.with_context(|| format!("bring the tables of {node} up to date"))?;
    for (number, migration) in (1i32..).zip(MIGRATIONS).skip(from) {
        let doing = format!("apply migration {number} ({})", migration.name);
        reach.run_within(limits::MIGRATION, node, &doing, move |session| {
            // The peer makes the rows of a migration by itself, and may not have their tables yet, at which its apply worker would stop.
            unsent(session.client(), ORIGIN, |client| {
                let mut transaction = client.transaction()?;
                // That of this session fits what takes a moment.
                let patience = limits::MIGRATION.as_millis();
                transaction.batch_execute(&format!("SET LOCAL statement_timeout = {patience}"))?;
                transaction.batch_execute(migration.sql)?;
                transaction.execute(
                    "INSERT INTO imdb_ha.migraciones (numero, nombre, sha256) VALUES ($1, $2, \
                     pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to($3, 'UTF8')), 'hex'))",
                    &[&number, &migration.name, &migration.sql],
                )?;
                transaction.commit()
            })
        })?;
        done.push(format!(
            "{node}: migration {number} ({}) applied",
            migration.name
        ));
    }
    Ok(())
}

/// How many migrations a master has, if they are the first of ours.
fn next(applied: &[Applied]) -> Result<usize, String> {
    for (expected, found) in (1i32..).zip(applied) {
        let named = format!("migration {} ({})", found.number, found.name);
        if found.number != expected {
            return Err(format!(
                "its record has {named} where number {expected} should be"
            ));
        }
        match found.same {
            Some(true) => {}
            Some(false) => {
                return Err(format!(
                    "{named} was applied there in another form than this program has; a migration never changes, \
                     so one of the two was edited"
                ));
            }
            None => {
                return Err(format!(
                    "it has {named}, which this program does not know; it belongs to a newer version"
                ));
            }
        }
    }
    Ok(applied.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(number: i32, same: Option<bool>) -> Applied {
        Applied {
            number,
            name: "imdb".to_string(),
            same,
        }
    }

    #[test]
    fn only_what_is_missing_is_applied() {
        assert_eq!(next(&[]), Ok(0));
        assert_eq!(next(&[applied(1, Some(true))]), Ok(1));
    }

    #[test]
    fn a_changed_an_unknown_and_a_missing_migration_are_refused() {
        let refused = |applied: &[Applied]| next(applied).expect_err("refused");
        assert!(refused(&[applied(1, Some(false))]).contains("another form"));
        let newer = [applied(1, Some(true)), applied(3, None)];
        assert!(refused(&newer).contains("number 2 should be"));
        let newer = [applied(1, Some(true)), applied(2, None)];
        assert!(refused(&newer).contains("newer version"));
        assert!(refused(&[applied(2, None)]).contains("number 1 should be"));
    }
}
