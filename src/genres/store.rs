//! Reads and writes of `public.generos` through the active master. Inserts go through the lane
//! (`lane.rs`); an update or a deletion is a call of its own, which can be repeated.

use super::keyed::{self, KeyedWrite, Written};
use super::keyed_lane::{KeyedLane, ThenWritten};
use super::lane::{Lane, Then};
use super::stamp;
use crate::cluster::NodeId;
use crate::config::UseSequence;
use crate::dispatch::{Attempt, Dispatch, Failed, Kind};
use crate::limits;
use crate::pg::Session;
use postgres::{Error, Row};
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

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
    /// An earlier try may have done it, and what it would have left is not there, or not any more.
    Unknown,
}

/// The store.
pub struct Store {
    dispatch: Arc<Dispatch>,
    use_sequence: UseSequence,
    lane: Lane,
    keyed: KeyedLane,
}

const SELECT: &str =
    "SELECT id_genero::int4, genero::text FROM public.generos WHERE id_genero = $1::int4";
pub(super) const STAMP: &str = "SELECT cambiado_en FROM public.generos WHERE id_genero = $1::int4";
// Both take only a row that is older than the request: a try that was given up on may still be on its
// way to a server that does not answer, and must not undo what has happened since. What they leave
// has exactly the stamp of the request, and by it a later try recognises it.
const UPDATE: &str = "UPDATE public.generos SET genero = $2::text, cambiado_en = $3::timestamptz \
    WHERE id_genero = $1::int4 AND cambiado_en < $3::timestamptz \
    RETURNING id_genero::int4, genero::text";
// The record of the deletion gets the time of the request too: imdb_ha.hora, for this statement alone.
const DELETE: &str = "WITH hora AS MATERIALIZED (\
    SELECT pg_catalog.set_config('imdb_ha.hora', ($2::timestamptz)::text, true)) \
    DELETE FROM public.generos USING hora \
    WHERE id_genero = $1::int4 AND cambiado_en < $2::timestamptz \
    RETURNING id_genero::int4, genero::text";
const UPDATED: &str = include_str!("../../sql/updated_genre.sql");
const DELETED: &str = include_str!("../../sql/deleted_genre.sql");
const DELETED_SINCE: &str = "SELECT FROM imdb_ha.borrados \
    WHERE id_genero = $1::int4 AND cuando >= $2::timestamptz LIMIT 1";
const LIST: &str = "SELECT id_genero::int4, genero::text FROM public.generos \
    WHERE id_genero > $1::int4 AND CASE \
        WHEN $2::text IS NULL THEN true \
        WHEN (SELECT imdb_ha.normaliza($2::text)) = '' THEN strpos(genero, $2::text) > 0 \
        ELSE strpos(imdb_ha.normaliza(genero), (SELECT imdb_ha.normaliza($2::text))) > 0 \
            OR strpos(imdb_ha.junta(genero), (SELECT imdb_ha.normaliza($2::text))) > 0 END \
    ORDER BY id_genero LIMIT $3::int8";

impl Store {
    /// Starts the lanes over `dispatch`.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(dispatch: Arc<Dispatch>, use_sequence: UseSequence) -> std::io::Result<Store> {
        let lane = Lane::start(Arc::clone(&dispatch), use_sequence)?;
        let keyed = KeyedLane::start(&dispatch, use_sequence)?;
        Ok(Store {
            dispatch,
            use_sequence,
            lane,
            keyed,
        })
    }

    /// Inserts a genre under `id`, or under the next free one. Never waits: `then` is called, once, by
    /// a thread of the lane, at the deadline at the latest.
    pub fn create(&self, id: Option<i32>, genero: String, deadline: Instant, then: Then) {
        self.lane.submit(id, genero, deadline, then);
    }

    /// Inserts a genre once, however often this key comes along. Never waits: `then` is called, once, by a thread for that.
    pub fn create_keyed(&self, write: KeyedWrite, deadline: Instant, then: ThenWritten) {
        self.keyed.submit(write, deadline, then);
    }

    /// Renames or deletes a genre once, however often this key comes along.
    ///
    /// # Errors
    /// Those of the dispatch.
    pub fn change_keyed(&self, write: KeyedWrite, deadline: Instant) -> Outcome<Written> {
        keyed::write(&self.dispatch, self.use_sequence, write, deadline)
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
            tries: Mutex::new(Tries {
                newest: 0,
                at: stamp::now(),
            }),
        });
        let tried = Arc::clone(&change);
        let outcome = self
            .dispatch
            .call(Kind::Write, deadline, move |session, attempt| {
                tried.run(session, attempt)
            });
        // Nobody waits for any of its tries now: one that still runs, late, is none of the newest.
        change.enter(u32::MAX);
        outcome
    }
}

/// One update or deletion of a row, over all its tries.
struct Change {
    id: i32,
    /// The new name; none for a deletion.
    genero: Option<String>,
    tries: Mutex<Tries>,
}

struct Tries {
    /// The newest try; past all of them when the request has been answered.
    newest: u32,
    /// The stamp: that of the request, or just after that of a newer row, which only a try moves that is
    /// the newest and before which none can have taken effect. So a change has never left but one.
    at: SystemTime,
}

impl Change {
    fn run(&self, session: &mut Session, attempt: Attempt) -> Result<Changed, Error> {
        let mut at = self.enter(attempt.number);
        let doubtful = attempt.may_have_happened;
        if doubtful {
            if let Some(row) = self.find_trace(session, at)? {
                return Ok(Changed::Row(row));
            }
        }
        for _ in 0..limits::ID_DRAWS_MAX {
            let changed = match &self.genero {
                Some(genero) => session.query(UPDATE, &[&self.id, genero, &at])?,
                None => session.query(DELETE, &[&self.id, &at])?,
            };
            if let Some(row) = changed.first() {
                return Ok(Changed::Row(genre(row)?));
            }
            let found = session.query(STAMP, &[&self.id])?;
            if doubtful {
                return self.explain(session, attempt, at, found.is_empty());
            }
            let Some(row) = found.first() else {
                return Ok(Changed::NotThere);
            };
            // The row is newer than the request: another request was faster, or the clocks differ.
            // Whoever waits for this try wants it done now; nobody waits for an earlier one.
            match self.move_past(row.try_get(0)?, attempt.number) {
                Some(later) => at = later,
                None => break,
            }
        }
        Ok(Changed::Unknown)
    }

    /// What is to be said of a try that has changed nothing, when an earlier one may have: what is there is
    /// newer than the request, or nothing is there.
    fn explain(
        &self,
        session: &mut Session,
        attempt: Attempt,
        at: SystemTime,
        absent: bool,
    ) -> Result<Changed, Error> {
        // The earlier try may have come a moment ago.
        if let Some(row) = self.find_trace(session, at)? {
            return Ok(Changed::Row(row));
        }
        // Had there been a row since the request, its deletion would be on record.
        let never = absent
            && !attempt.may_be_elsewhere
            && session.query(DELETED_SINCE, &[&self.id, &at])?.is_empty();
        Ok(match never {
            true => Changed::NotThere,
            false => Changed::Unknown,
        })
    }

    /// What this change has left at an earlier try, if that can still be seen: an update may have been
    /// overwritten since.
    fn find_trace(&self, session: &mut Session, at: SystemTime) -> Result<Option<Genre>, Error> {
        let found = match &self.genero {
            Some(genero) => session.query(UPDATED, &[&self.id, genero, &at])?,
            None => session.query(DELETED, &[&self.id, &at])?,
        };
        found.first().map(genre).transpose()
    }

    /// Tells that a try is under way, and returns the stamp.
    fn enter(&self, number: u32) -> SystemTime {
        let mut tries = self.tries();
        tries.newest = tries.newest.max(number);
        tries.at
    }

    /// Moves the stamp past that of a newer row, unless a later try is under way or nobody waits any more.
    fn move_past(&self, stamp: SystemTime, number: u32) -> Option<SystemTime> {
        let mut tries = self.tries();
        let may = tries.newest == number;
        if may {
            tries.at = stamp::after(stamp);
        }
        may.then_some(tries.at)
    }

    fn tries(&self) -> MutexGuard<'_, Tries> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The genre in the first two columns of a row.
pub(super) fn genre(row: &Row) -> Result<Genre, Error> {
    Ok(Genre {
        id_genero: row.try_get(0)?,
        genero: row.try_get(1)?,
    })
}
