//! Whether two masters hold the same rows, seen at one moment while one of them is written to. The
//! writes are held for as long as it takes to take a snapshot on both, some milliseconds; the
//! counting goes on in the snapshots while the writes go on.

use super::tables::Table;
use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::pg::Sessions;
use crate::replication::reach::{Reach, sessions_of_setup};
use anyhow::{Context, bail};
use std::time::{Duration, Instant};

/// Rows and a checksum of one table.
type Sum = (i64, String);

/// Sees that both masters hold the same rows in all `tables` of schema public, and returns their number.
/// `written` is the master that is written to.
///
/// # Errors
/// The tables that differ, or why it could not be seen.
pub(super) fn check(
    config: &Config,
    reach: &Reach,
    written: NodeId,
    tables: &[Table],
) -> anyhow::Result<i64> {
    let open = |node| sessions_of_setup(config, node, limits::REJOIN_COUNT);
    let readers = [open(NodeId::Master1)?, open(NodeId::Master2)?];
    let tables: Vec<&Table> = tables
        .iter()
        .filter(|table| table.schema == "public")
        .collect();
    let mut last = String::new();
    for _ in 0..limits::SETTLE_TRIES {
        let taken = take_snapshots(reach, &readers, written, &tables);
        // Whatever came of it, nobody waits for us any longer.
        reach.run(written, "let the writes go on", |session| {
            session.client().batch_execute("ROLLBACK")
        })?;
        if let Err(error) = taken {
            last = format!("{error:#}");
            std::thread::sleep(limits::SETTLE_PAUSE);
            continue;
        }
        let [first, second] = sums(&readers, &tables)?;
        let differing: Vec<String> = tables
            .iter()
            .zip(first.iter().zip(&second))
            .filter(|(_, (first, second))| first != second)
            .map(|(table, (first, second))| {
                let name = &table.name;
                format!(
                    "{name} ({} rows on master1, {} on master2)",
                    first.0, second.0
                )
            })
            .collect();
        if differing.is_empty() {
            return Ok(first.iter().map(|sum| sum.0).sum());
        }
        last = format!("these tables differ: {}", differing.join(", "));
    }
    bail!("see that both masters hold the same rows: {last}")
}

/// Holds the writes, waits until the peer has them all, and takes a snapshot on both.
fn take_snapshots(
    reach: &Reach,
    readers: &[Sessions; 2],
    written: NodeId,
    tables: &[&Table],
) -> anyhow::Result<()> {
    for node in NodeId::BOTH {
        run(&readers[node.index()], node, "begin to read", |client| {
            client.batch_execute(
                "ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
                 SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'",
            )
        })?;
    }
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    // If this program freezes here, the server ends the session and the writes go on.
    let hold = format!(
        "BEGIN; SET LOCAL lock_timeout = '{0}ms'; SET LOCAL idle_in_transaction_session_timeout = '{1}ms'; \
         LOCK TABLE {2} IN SHARE MODE",
        limits::SETTLE_LOCK.as_millis(),
        2 * limits::SETTLE_HOLD.as_millis(),
        names.join(", ")
    );
    let target = reach.run(written, "hold the writes", move |session| {
        session.client().batch_execute(&hold)?;
        let row = session.client().query_one(
            "SELECT (pg_catalog.pg_current_wal_flush_lsn() - '0/0')::bigint",
            &[],
        )?;
        row.try_get::<_, i64>(0)
    })?;
    let deadline = Instant::now() + limits::SETTLE_HOLD;
    while confirmed(reach, written)? < target {
        if Instant::now() >= deadline {
            bail!(
                "{} has not applied within {} ms what {written} had written",
                written.peer(),
                limits::SETTLE_HOLD.as_millis()
            );
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    // The first query of such a transaction takes its snapshot.
    for node in NodeId::BOTH {
        run(&readers[node.index()], node, "take a snapshot", |client| {
            client.batch_execute("SELECT 1")
        })?;
    }
    Ok(())
}

/// Up to where the peer has confirmed to have applied the WAL of `written`.
fn confirmed(reach: &Reach, written: NodeId) -> anyhow::Result<i64> {
    let confirmed: Option<i64> = reach.run(written, "ask how far its peer is", move |session| {
        let row = session.client().query_opt(
            "SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_catalog.pg_replication_slots \
                 WHERE slot_name = $1",
            &[&written.slot()],
        )?;
        row.map(|row| row.try_get(0)).transpose()
    })?;
    confirmed.with_context(|| format!("{written} has no slot {}", written.slot()))
}

/// The sums of all tables on both masters, which count side by side.
fn sums(readers: &[Sessions; 2], tables: &[&Table]) -> anyhow::Result<[Vec<Sum>; 2]> {
    let statements: Vec<String> = tables
        .iter()
        .map(|table| {
            format!(
                "SELECT count(*), coalesce(sum(hashtextextended(ROW({})::text, 0)::numeric), 0)::text FROM {}",
                table.columns.join(", "),
                table.name
            )
        })
        .collect();
    let of = |node: NodeId| -> anyhow::Result<Vec<Sum>> {
        let statements = statements.clone();
        run(
            &readers[node.index()],
            node,
            "count the rows",
            move |client| {
                let sum = |statement: &String| -> Result<Sum, postgres::Error> {
                    let row = client.query_one(statement, &[])?;
                    Ok((row.try_get(0)?, row.try_get(1)?))
                };
                statements.iter().map(sum).collect()
            },
        )
    };
    std::thread::scope(|scope| {
        let second = scope.spawn(|| of(NodeId::Master2));
        let first = of(NodeId::Master1);
        let second = second
            .join()
            .map_err(|_| anyhow::anyhow!("counting the rows panicked"))?;
        Ok([first?, second?])
    })
}

fn run<T: Send + 'static>(
    reader: &Sessions,
    node: NodeId,
    doing: &str,
    mut work: impl FnMut(&mut postgres::Client) -> Result<T, postgres::Error> + Send + 'static,
) -> anyhow::Result<T> {
    reader
        .run(limits::REJOIN_COUNT, move |session| work(session.client()))
        .with_context(|| format!("{doing} on {node}"))
}
