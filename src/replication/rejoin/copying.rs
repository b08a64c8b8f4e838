//! Waits until a new subscription has copied every table, and says how far it is.

use super::tables::Table;
use crate::cluster::NodeId;
use crate::limits;
use crate::replication::reach::Reach;
use anyhow::bail;
use std::time::{Duration, Instant};

/// What was seen of the copying at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    tables: i64,
    ready: i64,
    /// Names of the tables whose rows are all there.
    copied: Vec<String>,
    /// Rows that the source has sent of the tables that are being copied right now.
    rows: i64,
    received: i64,
    errors: i64,
}

/// Waits until all tables of the subscription on `node` are complete.
///
/// # Errors
/// When `node` cannot be asked, when copying fails again and again, or when nothing moves for
/// [`limits::COPY_STALL`].
pub(super) fn wait(
    reach: &Reach,
    node: NodeId,
    tables: &[Table],
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    let mut before = look(reach, node)?;
    let first_errors = before.errors;
    let (mut moved, mut told, mut most) = (Instant::now(), None::<Instant>, 0);
    loop {
        let seen = Seen {
            // The source may restart meanwhile; the copying begins anew then, by itself.
            rows: rows_sent(reach, node).unwrap_or(0),
            ..look(reach, node)?
        };
        // The sender ends before the last rows have been taken.
        most = most.max(copied(&seen, tables));
        let ready = seen.ready == seen.tables && seen.tables > 0;
        if ready || told.is_none_or(|at| at.elapsed() >= limits::COPY_TELL) {
            told = Some(Instant::now());
            progress(&words(node, &seen, most, tables));
        }
        if ready {
            return Ok(());
        }
        if seen.tables == 0 {
            bail!("the subscription of {node} is gone; somebody dropped it meanwhile");
        }
        if seen != before {
            moved = Instant::now();
        }
        let failures = seen.errors - first_errors;
        if failures >= limits::COPY_FAILURES_MAX || moved.elapsed() >= limits::COPY_STALL {
            bail!(
                "the copying does not get on ({failures} failures, {} s without a row); the log of {node} \
                 says why, and this command can be repeated",
                moved.elapsed().as_secs()
            );
        }
        before = seen;
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn look(reach: &Reach, node: NodeId) -> anyhow::Result<Seen> {
    reach.run(node, "look at the copying", move |session| {
        // Keeps the lock of the set-up, should the connection be a new one.
        crate::replication::reach::begin(session)?;
        let row = session.client().query_one(
            include_str!("../../../sql/copy_progress.sql"),
            &[&node.subscription()],
        )?;
        Ok(Seen {
            tables: row.try_get("tables")?,
            ready: row.try_get("ready")?,
            copied: row.try_get("copied")?,
            rows: 0,
            received: row.try_get("received")?,
            errors: row.try_get("errors")?,
        })
    })
}

fn rows_sent(reach: &Reach, node: NodeId) -> anyhow::Result<i64> {
    let doing = "ask for the rows sent";
    reach.run_within(limits::REJOIN_ASK, node.peer(), doing, |session| {
        let row = session
            .client()
            .query_one(include_str!("../../../sql/rows_sent.sql"), &[])?;
        row.try_get("rows")
    })
}

fn copied(seen: &Seen, tables: &[Table]) -> i64 {
    let of = |table: &&Table| seen.copied.contains(&table.name);
    let complete: i64 = tables.iter().filter(of).map(|table| table.rows).sum();
    complete + seen.rows
}

fn words(node: NodeId, seen: &Seen, rows: i64, tables: &[Table]) -> String {
    let expected: i64 = tables.iter().map(|table| table.rows).sum();
    // The statistics of the source may be behind its rows.
    let expected = expected.max(rows);
    let percent = (rows * 100).checked_div(expected).unwrap_or(100);
    format!(
        "{node}: {rows} of about {expected} rows copied ({percent} %), {} of {} tables complete",
        seen.ready, seen.tables
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_never_exceeds_the_whole() {
        let seen = Seen {
            tables: 1,
            ready: 0,
            copied: vec![],
            rows: 0,
            received: 0,
            errors: 0,
        };
        let line = words(NodeId::Master2, &seen, 0, &[]);
        assert!(line.contains("0 of about 0 rows copied (100 %)"), "{line}");
        let line = words(NodeId::Master2, &seen, 7, &[]);
        assert!(line.contains("7 of about 7 rows copied (100 %)"), "{line}");
    }
}
