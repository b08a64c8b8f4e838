//! Walks one table on both masters in chunks of its key. A chunk whose checksums are the same is done;
//! of any other the rows are read, and the keys whose rows differ are looked at until they have
//! settled. Memory is bounded by the chunk, whatever the table.

use super::reach::Masters;
use super::tables::Table;
use super::verdict::{Candidate, Key, Seen, Verdict, Version, next_rows, unlike};
use super::{Pace, barrier};
use crate::cluster::NodeId;
use crate::limits;
use crate::pg::Session;
use anyhow::bail;
use postgres::Row;
use std::sync::Arc;
use std::time::Instant;

/// What a walk has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Rows that were read on each master.
    pub rows: [u64; 2],
    pub differing: u64,
    pub unsettled: u64,
    /// The first of the differing keys, and of the unsettled ones.
    pub differences: Vec<Candidate>,
    pub moving: Vec<Candidate>,
    /// Why nothing could settle.
    pub trouble: Option<String>,
}

/// The rows after one key and up to another.
#[derive(Clone, Debug, Default)]
struct Range {
    after: Option<Key>,
    up_to: Option<Key>,
}

/// Compares one table.
///
/// # Errors
/// When a master cannot be asked, or answers with an error.
pub(super) fn compare(
    masters: &Masters,
    table: &Arc<Table>,
    name: &str,
    pace: Pace,
    progress: &mut dyn FnMut(&str, u64),
) -> anyhow::Result<Found> {
    let mut walk = Walk {
        masters,
        table,
        name,
        pace,
        rows: limits::COMPARE_ROWS_FIRST,
        candidates: Vec::new(),
        found: Found::default(),
        progress,
    };
    walk.range(Range::default(), NodeId::Master1, 0)?;
    walk.settle()?;
    Ok(walk.found)
}

struct Walk<'a> {
    masters: &'a Masters,
    table: &'a Arc<Table>,
    name: &'a str,
    pace: Pace,
    /// Rows of the next chunk.
    rows: i64,
    candidates: Vec<Candidate>,
    found: Found,
    progress: &'a mut dyn FnMut(&str, u64),
}

impl Walk<'_> {
    /// Walks a range in chunks that `driver` bounds.
    fn range(&mut self, range: Range, driver: NodeId, depth: u32) -> anyhow::Result<()> {
        if depth > limits::COMPARE_DEPTH {
            bail!("compare {}: it grows faster than it can be read", self.name);
        }
        let mut after = range.after.clone();
        loop {
            let began = Instant::now();
            let rest = Range {
                after: after.clone(),
                up_to: range.up_to.clone(),
            };
            let bound = self.bound(driver, rest.clone())?;
            let chunk = match &bound {
                Some(_) => Range {
                    after: after.clone(),
                    up_to: bound.clone(),
                },
                None => rest,
            };
            self.chunk(chunk, depth)?;
            let took = began.elapsed();
            self.rows = next_rows(self.rows, took, self.pace.chunk, limits::COMPARE_ROWS_MAX);
            if self.pace.gentle {
                std::thread::sleep(took.min(limits::COMPARE_CHUNK_GENTLE * 10));
            }
            if self.candidates.len() >= limits::COMPARE_BATCH {
                self.settle()?;
            }
            match bound {
                Some(key) => after = Some(key),
                None => return Ok(()),
            }
        }
    }

    /// One chunk. A side with far more rows than expected gets to cut it anew.
    fn chunk(&mut self, chunk: Range, depth: u32) -> anyhow::Result<()> {
        let limit = self.rows * 2;
        let [first, second] = self.sums(&chunk, limit)?;
        if first.0.max(second.0) >= limit {
            let larger = NodeId::BOTH[usize::from(second.0 > first.0)];
            return self.range(chunk, larger, depth + 1);
        }
        if first != second {
            let rows = self.rows_of(&chunk, limit)?;
            if let Some(full) = rows.iter().position(|rows| rows.len() as i64 >= limit) {
                return self.range(chunk, NodeId::BOTH[full], depth + 1);
            }
            self.candidates.extend(unlike(rows));
        }
        self.found.rows[0] += first.0 as u64;
        self.found.rows[1] += second.0 as u64;
        (self.progress)(self.name, self.found.rows[0].max(self.found.rows[1]));
        Ok(())
    }

    /// The last key of the next chunk as `driver` has it; nothing when what is left is less than that.
    fn bound(&self, driver: NodeId, rest: Range) -> anyhow::Result<Option<Key>> {
        let (sql, skip) = (self.table.bound(), self.rows - 1);
        self.masters
            .run(driver, &self.doing("cut"), move |session| {
                let row = session
                    .client()
                    .query_opt(&sql, &[&rest.after, &rest.up_to, &skip])?;
                row.map(|row| row.try_get(0)).transpose()
            })
    }

    fn sums(&self, chunk: &Range, limit: i64) -> anyhow::Result<[(i64, String); 2]> {
        self.masters.both(&self.doing("sum up"), |_| {
            let (sql, chunk) = (self.table.sum(), chunk.clone());
            move |session: &mut Session| {
                let row = session
                    .client()
                    .query_one(&sql, &[&chunk.after, &chunk.up_to, &limit])?;
                Ok((row.try_get(0)?, row.try_get(1)?))
            }
        })
    }

    fn rows_of(&self, chunk: &Range, limit: i64) -> anyhow::Result<[Vec<(Key, Version)>; 2]> {
        self.masters.both(&self.doing("read rows"), |_| {
            let (sql, chunk) = (self.table.rows(), chunk.clone());
            move |session: &mut Session| {
                let rows = session
                    .client()
                    .query(&sql, &[&chunk.after, &chunk.up_to, &limit])?;
                rows.iter()
                    .map(|row| Ok((row.try_get(0)?, version(row, 1)?)))
                    .collect()
            }
        })
    }

    /// Looks at the candidates until each has settled, or [`limits::COMPARE_LOOKS`] times. Only what
    /// nobody writes needs a barrier; the rest is watched until one master is seen to follow the other.
    fn settle(&mut self) -> anyhow::Result<()> {
        let mut open = std::mem::take(&mut self.candidates);
        let mut standing = true;
        for _ in 0..limits::COMPARE_LOOKS {
            if open.is_empty() {
                break;
            }
            let mut settled = false;
            if standing {
                match barrier::pass(self.masters)? {
                    Ok(()) => settled = true,
                    Err(trouble) => self.found.trouble = Some(trouble),
                }
            }
            let now = look_up(self.masters, self.table, &self.doing("look again"), &open)?;
            let mut left = Vec::new();
            standing = false;
            for (mut candidate, now) in open.into_iter().zip(now) {
                match candidate.look(now, settled) {
                    Verdict::Equal => continue,
                    Verdict::Differs => self.found.note(candidate),
                    Verdict::Standing => {
                        standing = true;
                        left.push(candidate);
                    }
                    Verdict::Moving => left.push(candidate),
                }
            }
            open = left;
            // Without a barrier nothing tells a difference from a row on its way.
            if self.found.trouble.is_some() {
                break;
            }
            std::thread::sleep(limits::COMPARE_LOOK_PAUSE);
        }
        self.found.unsettled += open.len() as u64;
        let room = limits::COMPARE_KEYS_MAX.saturating_sub(self.found.moving.len());
        self.found.moving.extend(open.into_iter().take(room));
        Ok(())
    }

    fn doing(&self, what: &str) -> String {
        format!("{what} {}", self.name)
    }
}

impl Found {
    fn note(&mut self, candidate: Candidate) {
        self.differing += 1;
        if self.differences.len() < limits::COMPARE_KEYS_MAX {
            self.differences.push(candidate);
        }
    }
}

/// Reads the rows of the candidates on both masters as they are now.
fn look_up(
    masters: &Masters,
    table: &Arc<Table>,
    doing: &str,
    candidates: &[Candidate],
) -> anyhow::Result<Vec<Seen>> {
    let mut found = Vec::with_capacity(candidates.len());
    for batch in candidates.chunks(limits::COMPARE_LOOKUP) {
        let keys = Arc::new(table.transposed(batch.iter().map(|candidate| &candidate.key)));
        let seen = masters.both(doing, |_| {
            let (sql, keys) = (table.lookup(), Arc::clone(&keys));
            move |session: &mut Session| {
                let values: Vec<_> = keys.iter().map(|keys| keys as _).collect();
                let rows = session.client().query(&sql, &values)?;
                rows.iter()
                    .map(|row| Ok((row.try_get::<_, i64>(0)?, version(row, 1)?)))
                    .collect::<Result<Vec<_>, postgres::Error>>()
            }
        })?;
        let mut rows: Vec<Seen> = vec![[None, None]; batch.len()];
        for (node, of_node) in NodeId::BOTH.into_iter().zip(seen) {
            for (place, version) in of_node {
                rows[place as usize - 1][node.index()] = Some(version);
            }
        }
        found.append(&mut rows);
    }
    Ok(found)
}

/// The version of a row, whose two columns begin at `column`.
pub(super) fn version(row: &Row, column: usize) -> Result<Version, postgres::Error> {
    Ok(Version {
        content: row.try_get(column)?,
        tuple: row.try_get(column + 1)?,
    })
}
