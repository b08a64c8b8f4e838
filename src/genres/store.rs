//! Reads and writes of `public.generos` through the active master. Inserts go through the lane
//! (`lane.rs`); an update or a deletion is a call of its own, which can be repeated.

use super::lane::{Lane, Then};
use crate::cluster::NodeId;
use crate::config::UseSequence;
use crate::dispatch::{Attempt, Dispatch, Failed, Kind};
use crate::limits;
use crate::pg::Session;
use postgres::{Error, Row};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// A genre, as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Genre {
    pub id_genero: i32,
    pub genero: String,
}

/// A result and the master that gave it.
pub type Outcome<T> = Result<(T, NodeId), Failed>;

/// What became of an update or a deletion.
#[derive(Debug)]
pub enum Changed {
    /// The row as it is now, or was.
    Row(Genre),
    /// There is no row with this id.
    NotThere,
    /// There is none, and an earlier try may be why, or may have met one.
    Unknown,
}

/// The store.
pub struct Store {
    dispatch: Arc<Dispatch>,
    lane: Lane,
}

const SELECT: &str =
    "SELECT id_genero::int4, genero::text FROM public.generos WHERE id_genero = $1::int4";
const SELECT_STAMP: &str = "SELECT id_genero::int4, genero::text, cambiado_en FROM public.generos \
    WHERE id_genero = $1::int4";
// Both take only a row that is older than the request: a try that was given up on may still be on its
// way to a server that does not answer, and must not undo what has happened since.
const UPDATE: &str = "UPDATE public.generos SET genero = $2::text, cambiado_en = $3::timestamptz \
    WHERE id_genero = $1::int4 AND cambiado_en < $3::timestamptz \
    RETURNING id_genero::int4, genero::text";
// The record of the deletion gets the time of the request too: imdb_ha.hora, for this statement alone.
const DELETE: &str = "WITH hora AS MATERIALIZED (\
    SELECT pg_catalog.set_config('imdb_ha.hora', ($2::timestamptz)::text, true)) \
    DELETE FROM public.generos USING hora \
    WHERE id_genero = $1::int4 AND cambiado_en <= $2::timestamptz \
    RETURNING id_genero::int4, genero::text";
const DELETED: &str = include_str!("../../sql/deleted_genre.sql");
const LIST: &str = "SELECT id_genero::int4, genero::text FROM public.generos \
    WHERE id_genero > $1::int4 AND ($2::text IS NULL OR strpos(lower(genero), lower($2::text)) > 0) \
    ORDER BY id_genero LIMIT $3::int8";

impl Store {
    /// Starts the lanes over `dispatch`.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(dispatch: Arc<Dispatch>, use_sequence: UseSequence) -> std::io::Result<Store> {
        let lane = Lane::start(Arc::clone(&dispatch), use_sequence)?;
        Ok(Store { dispatch, lane })
    }

    /// Inserts a genre under `id`, or under the next free one. Never waits: `then` is called, once, by
    /// a thread of the lane, at the deadline at the latest.
    pub fn create(&self, id: Option<i32>, genero: String, deadline: Instant, then: Then) {
        self.lane.submit(id, genero, deadline, then);
    }

    /// The genre with this id, if there is one.
    ///
    /// # Errors
    /// Those of the dispatch.
    pub fn read(&self, id: i32, deadline: Instant) -> Outcome<Option<Genre>> {
        self.dispatch.call(Kind::Read, deadline, move |session, _| {
            session
                .query(SELECT, &[&id])?
                .first()
                .map(genre)
                .transpose()
        })
    }

    /// Up to `limit` genres with ids after `after`, those whose name contains `part` if it is given.
    ///
    /// # Errors
    /// Those of the dispatch.
    pub fn list(
        &self,
        after: i32,
        part: Option<String>,
        limit: i64,
        deadline: Instant,
    ) -> Outcome<Vec<Genre>> {
        self.dispatch.call(Kind::Read, deadline, move |session, _| {
            session
                .query(LIST, &[&after, &part, &limit])?
                .iter()
                .map(genre)
                .collect()
        })
    }

    /// Renames a genre.
    ///
    /// # Errors
    /// Those of the dispatch.
    pub fn update(&self, id: i32, genero: String, deadline: Instant) -> Outcome<Changed> {
        self.change(id, Some(genero), deadline)
    }

    /// Deletes a genre and returns it.
    ///
    /// # Errors
    /// Those of the dispatch.
    pub fn delete(&self, id: i32, deadline: Instant) -> Outcome<Changed> {
        self.change(id, None, deadline)
    }

    fn change(&self, id: i32, genero: Option<String>, deadline: Instant) -> Outcome<Changed> {
        let change = Arc::new(Change {
            id,
            genero,
            at: SystemTime::now(),
            newest: AtomicU32::new(0),
        });
        let tried = Arc::clone(&change);
        let outcome = self
            .dispatch
            .call(Kind::Write, deadline, move |session, attempt| {
                tried.run(session, attempt)
            });
        // Nobody waits for any of its tries now: one that still runs, late, is none of the newest.
        change.newest.store(u32::MAX, Ordering::SeqCst);
        outcome
    }
}

/// One update or deletion of a row, over all its tries.
struct Change {
    id: i32,
    /// The new name; none for a deletion.
    genero: Option<String>,
    /// The time of the request.
    at: SystemTime,
    /// The newest try; past all of them when the request has been answered.
    newest: AtomicU32,
}

impl Change {
    fn run(&self, session: &mut Session, attempt: Attempt) -> Result<Changed, Error> {
        self.newest.fetch_max(attempt.number, Ordering::SeqCst);
        let mut at = self.at;
        for _ in 0..limits::ID_DRAWS_MAX {
            let changed = match &self.genero {
                Some(genero) => session.query(UPDATE, &[&self.id, genero, &at])?,
                None => session.query(DELETE, &[&self.id, &at])?,
            };
            if let Some(row) = changed.first() {
                return Ok(Changed::Row(genre(row)?));
            }
            let found = session.query(SELECT_STAMP, &[&self.id])?;
            let Some(row) = found.first() else {
                return self.explain_absence(session, attempt, at);
            };
            let stamp: SystemTime = row.try_get(2)?;
            let row = genre(row)?;
            if self.genero.as_ref() == Some(&row.genero) && stamp == at {
                return Ok(Changed::Row(row)); // an earlier try did it
            }
            // The row is newer than the request: another request was faster, or the clocks differ.
            // Whoever waits for this try wants it done now; nobody waits for an earlier one.
            if self.newest.load(Ordering::SeqCst) != attempt.number {
                break;
            }
            at = stamp + Duration::from_micros(1);
        }
        Ok(Changed::Unknown)
    }

    /// There is no row: because an earlier try deleted it, because it never was, or for a reason that
    /// cannot be told from these two.
    fn explain_absence(
        &self,
        session: &mut Session,
        attempt: Attempt,
        at: SystemTime,
    ) -> Result<Changed, Error> {
        if !attempt.may_have_happened {
            return Ok(Changed::NotThere);
        }
        if self.genero.is_some() {
            return Ok(Changed::Unknown);
        }
        let deleted = session.query(DELETED, &[&self.id, &at])?;
        deleted
            .first()
            .map_or(Ok(Changed::Unknown), |row| Ok(Changed::Row(genre(row)?)))
    }
}

/// The genre in the first two columns of a row.
pub(super) fn genre(row: &Row) -> Result<Genre, Error> {
    Ok(Genre {
        id_genero: row.try_get(0)?,
        genero: row.try_get(1)?,
    })
}
