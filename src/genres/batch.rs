//! A batch of inserts on one master. It can be repeated, there or on the other: an id is drawn before
//! its row is inserted and kept over all tries, so a row whose fate is unknown after a lost connection
//! is sent again as the same row, and never becomes two.

use super::entry::{Entry, Try};
use super::store::{Genre, genre};
use crate::config::UseSequence;
use crate::dispatch::Attempt;
use crate::limits;
use crate::pg::Session;
use postgres::Error;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// What became of an insert.
#[derive(Clone, Debug)]
pub enum Created {
    Row(Genre),
    /// The id that the client chose is taken.
    Duplicate,
    /// `USE_SEQUENCE=true`, and the table has none.
    NoSequence,
    /// A later try took over, or nobody waited any more when it began, or a row that may have been this
    /// one was changed or deleted since.
    Superseded,
    /// No free id was found in [`limits::ID_DRAWS_MAX`] draws, or the ids are used up.
    NoFreeId,
}

/// Rows that go to a master as one statement and one commit.
pub(super) struct Batch {
    pub number: u64,
    pub entries: Vec<Arc<Entry>>,
    pub use_sequence: UseSequence,
    pub told_sequence: Arc<AtomicBool>,
}

/// A row that a try still has to insert.
struct Open<'a> {
    index: usize,
    entry: &'a Entry,
    id: Option<i32>,
    /// The id is from before this try, so an earlier one may have inserted it.
    kept: bool,
}

impl Open<'_> {
    /// An earlier try may have inserted it.
    fn is_doubtful(&self, attempt: Attempt) -> bool {
        self.kept && (attempt.may_have_happened || self.entry.may_have_happened())
    }

    /// An earlier try may have inserted it on the other master, or in an earlier call on either.
    fn may_be_elsewhere(&self, attempt: Attempt) -> bool {
        self.kept && (attempt.may_be_elsewhere || self.entry.may_have_happened())
    }
}

/// Where ids come from.
#[derive(Clone, Copy, PartialEq)]
enum Source {
    Sequence,
    Max,
    Nowhere,
}

pub(super) const DRAW: &str = include_str!("../../sql/draw_ids.sql");
const INSERT: &str = include_str!("../../sql/insert_genres.sql");
const OLDER: &str = include_str!("../../sql/older_genres.sql");
const SAME: &str = include_str!("../../sql/same_genres.sql");
pub(super) const BURIED: &str = include_str!("../../sql/buried_genres.sql");
pub(super) const ALIGN: &str = include_str!("../../sql/align_sequences.sql");
pub(super) const NEXT_BY_MAX: &str = "SELECT coalesce(max(id_genero), 0)::int8 + 1, imdb_ha.este_nodo()::int8 \
    FROM public.generos";
const LOCK: &str = "BEGIN; LOCK TABLE public.generos IN SHARE ROW EXCLUSIVE MODE";

impl Batch {
    /// One try: what became of each row, in the order of the entries.
    ///
    /// # Errors
    /// Those of the driver. Rows may have been inserted before one; their entries know.
    pub fn run(&self, session: &mut Session, attempt: Attempt) -> Result<Vec<Created>, Error> {
        let this = (self.number, attempt.number);
        let mut created = vec![Created::Superseded; self.entries.len()];
        let mut open = Vec::with_capacity(self.entries.len());
        for (index, entry) in self.entries.iter().enumerate() {
            if entry.begin() {
                let drawn = entry.enter(this);
                let id = entry.chosen.or(drawn);
                let kept = id.is_some();
                open.push(Open {
                    index,
                    entry,
                    id,
                    kept,
                });
            }
        }
        // A taken id is a row that a client gave this id to, or that arrived from the peer.
        for round in 0..limits::ID_DRAWS_MAX {
            if open.is_empty() {
                return Ok(created);
            }
            open = self.round(session, attempt, round, open, &mut created)?;
        }
        for row in open {
            created[row.index] = Created::NoFreeId;
        }
        Ok(created)
    }

    /// Draws ids for the rows without one and inserts all; returns those whose drawn id was taken.
    fn round<'a>(
        &self,
        session: &mut Session,
        attempt: Attempt,
        round: u32,
        mut open: Vec<Open<'a>>,
        created: &mut [Created],
    ) -> Result<Vec<Open<'a>>, Error> {
        let this = (self.number, attempt.number);
        // Before anything is inserted, since a row that was made and then deleted must not come back.
        let doubtful = open.iter().filter(|row| row.is_doubtful(attempt));
        let before = find_same(session, doubtful)?;
        open.retain(|row| match row.id.and_then(|id| before.get(&id)) {
            Some(genre) => {
                created[row.index] = Created::Row(genre.clone());
                false
            }
            None => true,
        });
        let lacking = open.iter().filter(|row| row.id.is_none()).count();
        let mut source = Source::Nowhere;
        if lacking > 0 {
            // Where many are taken, more are drawn, so that a batch gets through a neighbourhood with few free ones.
            let count = lacking << (limits::ID_DRAW_SHIFT * round).min(limits::ID_DRAW_SHIFT_MAX);
            let drawn = self.draw(session, count.min(lacking.max(limits::ID_DRAW_MAX)))?;
            source = drawn.0;
            assign(&mut open, drawn.1, created, this);
        }
        let made = match source {
            Source::Max => self.insert_by_max(session, &mut open, created, this)?,
            _ => insert(session, &open)?,
        };
        if source == Source::Nowhere && lacking > 0 {
            open.retain(|row| {
                let lacks = row.id.is_none();
                if lacks {
                    created[row.index] = Created::NoSequence;
                }
                !lacks
            });
        }
        // Whatever a trigger of somebody else's has done with it: a row with this stamp is this row.
        let is_left = |row: &&Open| row.id.is_some_and(|id| !made.contains_key(&id));
        let there = find_same(session, open.iter().filter(is_left))?;
        open.retain(|row| {
            let found = row.id.and_then(|id| made.get(&id).or(there.get(&id)));
            if let Some(genre) = found {
                created[row.index] = Created::Row(genre.clone());
            }
            found.is_none()
        });
        let again = self.sort_out(session, attempt, open, created)?;
        if again.iter().any(|row| row.id.is_none()) && source != Source::Max {
            // The sequence is moved past the whole neighbourhood of the taken ids at once.
            session.query(ALIGN, &[])?;
        }
        Ok(again)
    }

    /// What becomes of rows that were not inserted; returns those that are tried again. One whose id has
    /// been deleted since its request gets a later stamp. If what was deleted, or what is under its id
    /// now, may have been this row, its outcome is unknown: it is not inserted again, under no id.
    fn sort_out<'a>(
        &self,
        session: &mut Session,
        attempt: Attempt,
        left: Vec<Open<'a>>,
        created: &mut [Created],
    ) -> Result<Vec<Open<'a>>, Error> {
        let this = (self.number, attempt.number);
        let buried = find_buried(session, &left)?;
        let doubtful = left.iter().filter(|row| row.is_doubtful(attempt));
        let older = find_older(session, doubtful)?;
        let mut again = Vec::new();
        for mut row in left {
            let never_here = row.id.is_some_and(|id| older.contains(&id));
            let is_doubtful =
                row.is_doubtful(attempt) && (!never_here || row.may_be_elsewhere(attempt));
            match row.id.and_then(|id| buried.get(&id)) {
                _ if is_doubtful => {}
                Some(deleted) => {
                    if row.entry.postpone(*deleted, this) {
                        again.push(row);
                    }
                }
                None if row.entry.chosen.is_some() => created[row.index] = Created::Duplicate,
                None => {
                    row.id = None;
                    row.kept = false;
                    again.push(row);
                }
            }
        }
        Ok(again)
    }

    /// The manual's detection: `USE_SEQUENCE` decides, and on `auto` the table's default does.
    fn draw(&self, session: &mut Session, count: usize) -> Result<(Source, Vec<i64>), Error> {
        let (mut has_sequence, mut free) = (false, Vec::new());
        if self.use_sequence != UseSequence::Never {
            for row in session.query(DRAW, &[&(count as i32)])? {
                let id: Option<i64> = row.try_get(0)?;
                has_sequence |= id.is_some();
                let is_free: bool = row.try_get(1)?;
                free.extend(id.filter(|_| is_free));
            }
            if !self.told_sequence.swap(true, Ordering::Relaxed) {
                let which = match has_sequence {
                    false => "MAX+1",
                    true => "its sequence",
                };
                log::info!("ids of generos come from {which}");
            }
        }
        let source = match (has_sequence, self.use_sequence) {
            (true, _) => Source::Sequence,
            (false, UseSequence::Always) => Source::Nowhere,
            (false, _) => Source::Max,
        };
        Ok((source, free))
    }

    /// Without a sequence: the ids after the highest, under the manual's lock, and of this master's half, so
    /// that nobody draws the same on the other side of a cut.
    fn insert_by_max(
        &self,
        session: &mut Session,
        open: &mut Vec<Open<'_>>,
        created: &mut [Created],
        this: Try,
    ) -> Result<HashMap<i32, Genre>, Error> {
        let mut locked = || {
            session.client().batch_execute(LOCK)?;
            let rows = session.query(NEXT_BY_MAX, &[])?;
            let (mut next, half): (i64, i64) = match rows.first() {
                Some(row) => (row.try_get(0)?, row.try_get(1)?),
                None => (i64::from(i32::MAX) + 1, 0),
            };
            for id in open.iter().filter_map(|row| row.id) {
                next = next.max(i64::from(id) + 1);
            }
            let lacking = open.iter().filter(|row| row.id.is_none()).count();
            assign(open, of_half(next, half, lacking), created, this);
            insert(session, open)
        };
        let made = locked();
        let end = if made.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = session.client().batch_execute(end);
        let made = made?; // what went wrong first is the cause
        ended?;
        Ok(made)
    }
}

/// The first ids from `next` on that are odd or even as `half` is.
pub(super) fn of_half(next: i64, half: i64, count: usize) -> Vec<i64> {
    let first = next + (next - half).rem_euclid(2);
    (first..).step_by(2).take(count).collect()
}

/// Gives drawn ids to the rows without one. A row is closed when the ids are used up, or when a later
/// try has taken it over; it stays without one when its id is one that a client of this batch chose.
fn assign(open: &mut Vec<Open<'_>>, drawn: Vec<i64>, created: &mut [Created], this: Try) {
    let in_use: HashSet<i32> = open.iter().filter_map(|row| row.id).collect();
    let mut drawn = drawn.into_iter();
    open.retain_mut(|row| {
        if row.id.is_some() {
            return true;
        }
        let Some(id) = drawn.next() else {
            return true;
        };
        let Ok(id) = i32::try_from(id) else {
            created[row.index] = Created::NoFreeId;
            return false;
        };
        if in_use.contains(&id) {
            return true;
        }
        row.id = Some(id);
        row.entry.settle(id, this)
    });
}

/// The rows with an id as one statement; returns those that were inserted. Each is its own commit
/// unless a transaction is open.
fn insert(session: &mut Session, open: &[Open<'_>]) -> Result<HashMap<i32, Genre>, Error> {
    let rows = || open.iter().filter(|row| row.id.is_some());
    if rows().next().is_none() {
        return Ok(HashMap::new());
    }
    let ids: Vec<i32> = rows().filter_map(|row| row.id).collect();
    let names: Vec<&str> = rows().map(|row| row.entry.genero()).collect();
    let times: Vec<SystemTime> = rows().map(|row| row.entry.at()).collect();
    let bound = limits::LANE_LOCK_WAIT_MS.to_string();
    let mut made = HashMap::with_capacity(ids.len());
    for row in session.query(INSERT, &[&ids, &names, &times, &bound])? {
        let row = genre(&row)?;
        made.insert(row.id_genero, row);
    }
    for row in open
        .iter()
        .filter(|row| row.id.is_some_and(|id| made.contains_key(&id)))
    {
        // What comes after in this try may fail, and then the row must be found again, not be made anew.
        row.entry.may_be_there();
    }
    Ok(made)
}

/// Which of these rows are there, or have been: their stamps are nobody else's.
fn find_same<'a>(
    session: &mut Session,
    rows: impl Iterator<Item = &'a Open<'a>>,
) -> Result<HashMap<i32, Genre>, Error> {
    let rows: Vec<(i32, &Entry)> = rows.filter_map(|row| Some((row.id?, row.entry))).collect();
    let mut there = HashMap::new();
    if rows.is_empty() {
        return Ok(there);
    }
    let ids: Vec<i32> = rows.iter().map(|(id, _)| *id).collect();
    let names: Vec<&str> = rows.iter().map(|(_, entry)| entry.genero()).collect();
    let times: Vec<SystemTime> = rows.iter().map(|(_, entry)| entry.at()).collect();
    for row in session.query(SAME, &[&ids, &names, &times])? {
        let row = genre(&row)?;
        there.insert(row.id_genero, row);
    }
    Ok(there)
}

/// Which of their ids belong to a row here that is older than they are. Had one of them ever been
/// here, what is there now would be newer.
fn find_older<'a>(
    session: &mut Session,
    rows: impl Iterator<Item = &'a Open<'a>>,
) -> Result<HashSet<i32>, Error> {
    let rows: Vec<(i32, SystemTime)> = rows
        .filter_map(|row| Some((row.id?, row.entry.at())))
        .collect();
    if rows.is_empty() {
        return Ok(HashSet::new());
    }
    let (ids, times): (Vec<i32>, Vec<SystemTime>) = rows.into_iter().unzip();
    let found = session.query(OLDER, &[&ids, &times])?;
    found.iter().map(|row| row.try_get(0)).collect()
}

/// When the ids of rows that were not inserted were deleted last, of those that nobody has and that were
/// deleted after the row's own time.
fn find_buried(
    session: &mut Session,
    left: &[Open<'_>],
) -> Result<HashMap<i32, SystemTime>, Error> {
    let rows = || left.iter().filter_map(|row| Some((row.id?, row.entry)));
    let ids: Vec<i32> = rows().map(|(id, _)| id).collect();
    let mut buried = HashMap::new();
    if ids.is_empty() {
        return Ok(buried);
    }
    let times: Vec<SystemTime> = rows().map(|(_, entry)| entry.at()).collect();
    for row in session.query(BURIED, &[&ids, &times])? {
        buried.insert(row.try_get(0)?, row.try_get(1)?);
    }
    Ok(buried)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_master_draws_from_its_own_half() {
        assert_eq!(of_half(29, 1, 3), [29, 31, 33]);
        assert_eq!(of_half(30, 1, 2), [31, 33]);
        assert_eq!(of_half(29, 2, 3), [30, 32, 34]);
        assert_eq!(of_half(30, 2, 1), [30]);
        assert!(of_half(30, 2, 0).is_empty());
    }

    /// A drawn id that a client of the same batch chose would be the same key twice in one statement.
    #[test]
    fn a_drawn_id_keeps_clear_of_those_that_clients_chose() {
        let entries =
            [Some(7), None, None, Some(9), None].map(|chosen| Entry::new(chosen, String::new()));
        let this = (1, 0);
        let mut open = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            entry.enter(this);
            open.push(Open {
                index,
                entry,
                id: entry.chosen,
                kept: entry.chosen.is_some(),
            });
        }
        let mut created = vec![Created::Superseded; entries.len()];
        assign(&mut open, vec![5, 7, 9], &mut created, this);
        let ids: Vec<_> = open.iter().map(|row| row.id).collect();
        // The two that got none draw again in the next round.
        assert_eq!(ids, [Some(7), Some(5), None, Some(9), None]);
    }
}
