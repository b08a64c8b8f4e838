//! Whether both masters hold the same rows, before they are joined and soon after it: joining copies nothing. There is no stream
//! yet that a comparison could wait for, so a table is read as a whole, in one statement on each master.

use super::compare::{self, Masters};
use crate::limits;
use crate::pg::Session;
use anyhow::bail;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A table as one master has it, or what of it both have; names are quoted as SQL needs them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Table {
    target: String,
    columns: BTreeSet<String>,
    bytes: u64,
}

/// The tables of a master by their names.
type Tables = BTreeMap<String, Table>;

/// The number of rows of a table, and the sum of their hashes.
type Sum = (i64, String);

/// Waits until every table that both masters have holds the same rows on both. What was equal once stays so, because what comes after
/// it is replicated or is looked at later.
///
/// # Errors
/// The tables that still differ when `patience` is over, counted from the first look; and what could not be read.
pub(super) fn wait(masters: &Masters, patience: Duration) -> anyhow::Result<()> {
    compare::connect(masters)?;
    let mut tables = shared(masters)?;
    let mut deadline = None;
    loop {
        let mut differing = Vec::new();
        for (name, table) in &tables {
            let [first, second] = sums(masters, name, table)?;
            if first != second {
                differing.push((name.clone(), first.0, second.0));
            }
        }
        if differing.is_empty() {
            return Ok(());
        }
        if Instant::now() >= *deadline.get_or_insert_with(|| Instant::now() + patience) {
            bail!(
                "{} and joining the masters copies nothing; `imdb-ha rejoin NODE` makes one anew from the other",
                described(&differing)
            );
        }
        tables.retain(|name, _| differing.iter().any(|(other, ..)| other == name));
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Which of these tables, by their names, are not proven to hold the same rows on both masters: they differ for longer than `patience`, or are too large to be read for
/// this.
///
/// # Errors
/// What could not be read.
pub(super) fn unproven(
    masters: &Masters,
    names: &[String],
    patience: Duration,
) -> anyhow::Result<Vec<String>> {
    compare::connect(masters)?;
    let mut tables = shared(masters)?;
    tables.retain(|_, table| names.contains(&table.target));
    let (large, mut tables): (Tables, Tables) = tables
        .into_iter()
        .partition(|(_, table)| table.bytes > limits::EQUAL_AT_ONCE_BYTES);
    let deadline = Instant::now() + patience;
    loop {
        let mut differing = Tables::new();
        for (name, table) in tables {
            let [first, second] = sums(masters, &name, &table)?;
            if first != second {
                differing.insert(name, table);
            }
        }
        if differing.is_empty() || Instant::now() >= deadline {
            let unproven = large.into_values().chain(differing.into_values());
            return Ok(unproven.map(|table| table.target).collect());
        }
        tables = differing;
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn described(differing: &[(String, i64, i64)]) -> String {
    let tables = differing.iter().map(|(name, first, second)| {
        format!("{name} differs ({first} rows on master1, {second} on master2)")
    });
    tables.collect::<Vec<_>>().join(", ")
}

/// The tables that both masters have, with the columns that both have.
fn shared(masters: &Masters) -> anyhow::Result<Tables> {
    let [first, second] = masters.both_within(limits::SETUP_CALL, "list the tables", |_| list)?;
    let both = first.into_iter().filter_map(|(name, here)| {
        let there = second.get(&name)?;
        Some((name, in_common(here, there)))
    });
    Ok(both.collect())
}

fn in_common(here: Table, there: &Table) -> Table {
    Table {
        columns: here.columns.intersection(&there.columns).cloned().collect(),
        bytes: here.bytes.max(there.bytes),
        ..here
    }
}

fn list(session: &mut Session) -> Result<Tables, postgres::Error> {
    let rows = session.query(include_str!("../../sql/equal_tables.sql"), &[])?;
    let table = |row: &postgres::Row| {
        let columns: Vec<String> = row.try_get("columns")?;
        let table = Table {
            target: row.try_get("target")?,
            columns: columns.into_iter().collect(),
            bytes: row.try_get::<_, i64>("bytes")?.unsigned_abs(),
        };
        Ok((row.try_get("name")?, table))
    };
    rows.iter().map(table).collect()
}

/// The sums of a table, which both masters work out at the same time.
fn sums(masters: &Masters, name: &str, table: &Table) -> anyhow::Result<[Sum; 2]> {
    let (patience, statement) = (patience_for(table.bytes), statement(table));
    masters.both_within(patience, &format!("sum up {name}"), |_| {
        let bound = format!("SET statement_timeout = {}", patience.as_millis());
        let statement = statement.clone();
        move |session: &mut Session| {
            session.client().batch_execute(&bound)?;
            let row = session.client().query_one(&statement, &[])?;
            Ok((row.try_get(0)?, row.try_get(1)?))
        }
    })
}

/// How long a master may take to read a table of so many bytes.
fn patience_for(bytes: u64) -> Duration {
    limits::SETUP_CALL + Duration::from_secs(bytes / limits::EQUAL_BYTES_PER_S)
}

/// A sum needs no order of the rows and, unlike a combination of bits, keeps two rows that are the same.
fn statement(table: &Table) -> String {
    let columns: Vec<&str> = table.columns.iter().map(String::as_str).collect();
    format!(
        "SELECT count(*), coalesce(sum(pg_catalog.hashtextextended(ROW({})::text, 0)), 0)::text FROM {}",
        columns.join(", "),
        table.target
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[&str], bytes: u64) -> Table {
        Table {
            target: "public.t".to_string(),
            columns: columns.iter().map(|name| name.to_string()).collect(),
            bytes,
        }
    }

    #[test]
    fn what_both_have_is_compared_in_one_order_and_by_the_size_of_the_larger() {
        let common = in_common(table(&["b", "a", "solo"], 1), &table(&["a", "b"], 7));
        assert_eq!(common, table(&["a", "b"], 7));
        assert!(statement(&common).contains("ROW(a, b)::text"));
    }

    #[test]
    fn a_large_table_gets_the_time_that_it_needs() {
        assert_eq!(patience_for(0), limits::SETUP_CALL);
        assert!(patience_for(20 * 1024 * 1024 * 1024) > Duration::from_secs(600));
    }

    #[test]
    fn each_table_that_differs_is_named() {
        let text = described(&[("a".to_string(), 1, 2), ("b".to_string(), 3, 3)]);
        assert_eq!(
            text,
            "a differs (1 rows on master1, 2 on master2), b differs (3 rows on master1, 3 on master2)"
        );
    }
}
