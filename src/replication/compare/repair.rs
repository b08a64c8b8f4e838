//! Makes the rows of one master like those of the other, whose rows are the truth.
//!
//! The writing session has a replication origin, so its changes are not sent back. It acts as an apply
//! worker does, so the triggers that stamp a change leave the stamps alone, and it says
//! `imdb_ha.reparar = on`, by which the triggers that settle conflicts let an older version pass. A row
//! is written only while it is still the version that was compared, under its lock; whatever was
//! written meanwhile stays, and the next round looks at it again.

use super::reach::Masters;
use super::report::{Repaired, Report, State};
use super::tables::Table;
use super::verdict::{Candidate, Key, Version};
use super::walk::version;
use super::{Measured, Pace, connect, measure};
use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::pg::{self, Session};
use anyhow::bail;
use postgres::{Client, Transaction};
use std::sync::Arc;
use std::time::Instant;

/// A name for what writes here. It is made when it is first needed, and kept: it belongs to one session
/// at a time, so that no two repairs write on the same master at once.
const ORIGIN: &str = "imdb_ha_repair";

/// Reasons that are told of rows that could not be mended.
const REASONS_MAX: usize = 10;

/// Values of a row as texts, with its version.
type Values = (Version, Vec<Option<String>>);

/// What became of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mended {
    Inserted,
    Updated,
    Deleted,
    /// Somebody wrote it meanwhile, or others took all the time of its batch.
    LeftAlone,
    Refused(String),
}

/// Compares and mends until the masters are equal, nothing more can be mended, or
/// [`limits::REPAIR_ROUNDS`] are over; the report is that of the last comparison.
///
/// # Errors
/// What could not be done; what was mended until then stays.
pub(super) fn run(
    config: &Config,
    masters: &Masters,
    wanted: &[String],
    from: NodeId,
    progress: &mut dyn FnMut(&str, u64),
) -> anyhow::Result<Report> {
    let target = from.peer();
    // Sessions of its own, since what it sets must not touch the sessions that compare.
    let writers = Masters::new(config)?;
    let mut repaired = Repaired {
        from: from.name(),
        ..Repaired::default()
    };
    for _ in 0..limits::REPAIR_ROUNDS {
        let (mut report, measured) = measure(masters, wanted, Pace::FAST, progress)?;
        let before = repaired.clone();
        repaired.refused.clear();
        if report.state == State::Differing {
            connect(&writers)?;
            begin(&writers, target)?;
            for table in &measured {
                mend_table(masters, &writers, table, from, &mut repaired)?;
            }
        }
        if !went_on(&before, &repaired) {
            report.repair = Some(repaired);
            return Ok(report);
        }
    }
    bail!(
        "repair {target}: still not equal after {} rounds; {} rows were mended",
        limits::REPAIR_ROUNDS,
        repaired.inserted + repaired.updated + repaired.deleted
    )
}

/// Whether a round has changed anything, or found something changing: then it is worth another.
fn went_on(before: &Repaired, after: &Repaired) -> bool {
    let done = |repaired: &Repaired| {
        (
            repaired.inserted + repaired.updated + repaired.deleted,
            repaired.left_alone,
        )
    };
    done(before) != done(after)
}

/// Asks for what a repair needs before anything is written.
fn begin(writers: &Masters, target: NodeId) -> anyhow::Result<()> {
    writers.run(target, "begin the repair", |session| {
        prepare(session.client())
    })
}

/// Makes a session one that repairs, unless it is: a lost connection is replaced by one that is not.
fn prepare(client: &mut Client) -> Result<(), postgres::Error> {
    let ready = client.query_one(
        "SELECT pg_catalog.pg_replication_origin_session_is_setup()",
        &[],
    )?;
    if ready.try_get(0)? {
        return Ok(());
    }
    client.query(
        "SELECT pg_catalog.pg_replication_origin_create($1) \
         WHERE pg_catalog.pg_replication_origin_oid($1) IS NULL",
        &[&ORIGIN],
    )?;
    client.batch_execute("SET session_replication_role = 'replica'; SET imdb_ha.reparar = 'on'")?;
    // Last, so that a session which has it has everything.
    client.query(
        "SELECT pg_catalog.pg_replication_origin_session_setup($1)",
        &[&ORIGIN],
    )?;
    Ok(())
}

/// Mends the differing keys of a table. Deletions come first and insertions last, so that what one
/// row gives up under another unique index is free for the next.
fn mend_table(
    masters: &Masters,
    writers: &Masters,
    (name, table, found): &Measured,
    from: NodeId,
    repaired: &mut Repaired,
) -> anyhow::Result<()> {
    let target = from.peer();
    let mut candidates = found.differences.clone();
    let order = |candidate: &Candidate| {
        let (truth, there) = (
            &candidate.seen[from.index()],
            &candidate.seen[target.index()],
        );
        (truth.is_some(), there.is_none())
    };
    candidates.sort_by_key(order);
    for batch in candidates.chunks(limits::COMPARE_LOOKUP) {
        let truths = truths(masters, table, name, from, batch)?;
        let (table, batch) = (Arc::clone(table), batch.to_vec());
        let outcomes = writers.run(target, &format!("mend {name}"), move |session| {
            prepare(session.client())?;
            let began = Instant::now();
            let mut outcomes = Vec::with_capacity(batch.len());
            for (candidate, truth) in batch.iter().zip(&truths) {
                let pair = Pair {
                    key: &candidate.key,
                    truth: truth.as_ref(),
                    compared_truth: candidate.seen[from.index()].as_ref(),
                    compared: candidate.seen[target.index()].as_ref(),
                };
                // Each row may have waited for a lock, and nobody waits longer than for one call.
                outcomes.push(match began.elapsed() < limits::COMPARE_CALL / 2 {
                    true => mend(session.client(), &table, &pair)?,
                    false => Mended::LeftAlone,
                });
            }
            Ok(outcomes)
        })?;
        for outcome in outcomes {
            match outcome {
                Mended::Inserted => repaired.inserted += 1,
                Mended::Updated => repaired.updated += 1,
                Mended::Deleted => repaired.deleted += 1,
                Mended::LeftAlone => repaired.left_alone += 1,
                Mended::Refused(reason) if repaired.refused.len() < REASONS_MAX => {
                    repaired
                        .refused
                        .push(format!("{name} on {target}: {reason}"));
                }
                Mended::Refused(_) => {}
            }
        }
    }
    Ok(())
}

/// One key: the true row now and as it was compared, and the row to be mended as it was compared.
struct Pair<'a> {
    key: &'a Key,
    truth: Option<&'a Values>,
    compared_truth: Option<&'a Version>,
    compared: Option<&'a Version>,
}

/// The rows of `from`, as they are now.
fn truths(
    masters: &Masters,
    table: &Arc<Table>,
    name: &str,
    from: NodeId,
    batch: &[Candidate],
) -> anyhow::Result<Vec<Option<Values>>> {
    let keys = table.transposed(batch.iter().map(|candidate| &candidate.key));
    let (sql, size) = (table.lookup_values(), batch.len());
    masters.run(
        from,
        &format!("read rows of {name}"),
        move |session: &mut Session| {
            let values: Vec<_> = keys.iter().map(|keys| keys as _).collect();
            let mut truths: Vec<Option<Values>> = vec![None; size];
            for row in session.client().query(&sql, &values)? {
                let place: i64 = row.try_get(0)?;
                truths[place as usize - 1] = Some((version(&row, 1)?, row.try_get(3)?));
            }
            Ok(truths)
        },
    )
}

/// Mends one row in a transaction of its own. The server's refusal is an outcome; a lost connection is
/// an error.
fn mend(client: &mut Client, table: &Table, pair: &Pair) -> Result<Mended, postgres::Error> {
    if pair.truth.map(|(version, _)| version) != pair.compared_truth {
        return Ok(Mended::LeftAlone);
    }
    let mut transaction = client.transaction()?;
    match write(&mut transaction, table, pair) {
        Ok(mended @ (Mended::LeftAlone | Mended::Refused(_))) => {
            transaction.rollback()?;
            Ok(mended)
        }
        Ok(mended) => {
            transaction.commit()?;
            Ok(mended)
        }
        Err(error) if error.as_db_error().is_some() => {
            let key = pair.key.join(", ");
            let reason = format!("key {key}: {}", pg::explain(&error));
            transaction.rollback()?;
            Ok(Mended::Refused(reason))
        }
        Err(error) => Err(error),
    }
}

fn write(
    transaction: &mut Transaction,
    table: &Table,
    pair: &Pair,
) -> Result<Mended, postgres::Error> {
    let row = transaction.query_opt(&table.lock(), &[pair.key])?;
    let here = row.map(|row| version(&row, 0)).transpose()?;
    if here.as_ref() != pair.compared {
        return Ok(Mended::LeftAlone);
    }
    let (changed, mended) = match (pair.truth, here) {
        (None, None) => return Ok(Mended::LeftAlone),
        (None, Some(_)) => (
            transaction.execute(&table.delete(), &[pair.key])?,
            Mended::Deleted,
        ),
        (Some((_, values)), None) => {
            let inserted = transaction.execute(&table.insert(), &[values])?;
            (inserted, Mended::Inserted)
        }
        (Some((_, values)), Some(_)) => match table.update() {
            Some(update) => {
                let updated = transaction.execute(&update, &[pair.key, values])?;
                (updated, Mended::Updated)
            }
            None => (0, Mended::Updated),
        },
    };
    let after = transaction.query_opt(&table.read(), &[pair.key])?;
    let after = after.map(|row| version(&row, 0)).transpose()?;
    let content = |version: &Version| version.content.clone();
    if changed == 1 && after.as_ref().map(content) == pair.truth.map(|(truth, _)| content(truth)) {
        return Ok(mended);
    }
    Ok(Mended::Refused(format!(
        "key {}: a trigger on the table does not let it be written as it is",
        pair.key.join(", ")
    )))
}
