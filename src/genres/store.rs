//! Reads and writes of `public.generos` through the active master. Every write can be repeated: its
//! id is drawn before the insert and kept over all tries, so a row whose fate is unknown after a lost
//! connection is sent again as the same row, and never becomes two.

use crate::cluster::NodeId;
use crate::config::UseSequence;
use crate::dispatch::{Attempt, Dispatch, Failed, Kind};
use crate::limits;
use crate::pg::Session;
use postgres::{Error, Row};
use serde::Serialize;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// A genre, as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Genre {
    pub id_genero: i32,
    pub genero: String,
}

/// A result and the master that gave it.
pub type Outcome<T> = Result<(T, NodeId), Failed>;

/// What became of an insert.
#[derive(Debug)]
pub enum Created {
    Row(Genre),
    /// The id that the client chose is taken.
    Duplicate,
    /// `USE_SEQUENCE=true`, and the table has none.
    NoSequence,
    /// A later try took over; nobody waits for this answer.
    Superseded,
    /// No free id was found in [`limits::ID_DRAWS_MAX`] draws, or the ids are used up.
    NoFreeId,
}

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
    use_sequence: UseSequence,
    told_sequence: Arc<AtomicBool>,
}

const INSERT: &str = "INSERT INTO public.generos (id_genero, genero, cambiado_en) \
    VALUES ($1::int4, $2::text, $3::timestamptz) ON CONFLICT (id_genero) DO NOTHING \
    RETURNING id_genero::int4, genero::text";
const SELECT: &str =
    "SELECT id_genero::int4, genero::text FROM public.generos WHERE id_genero = $1::int4";
const SELECT_SAME: &str = "SELECT id_genero::int4, genero::text FROM public.generos \
    WHERE id_genero = $1::int4 AND genero = $2::text AND cambiado_en = $3::timestamptz";
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
const LIST: &str = "SELECT id_genero::int4, genero::text FROM public.generos \
    WHERE id_genero > $1::int4 AND ($2::text IS NULL OR strpos(lower(genero), lower($2::text)) > 0) \
    ORDER BY id_genero LIMIT $3::int8";
const HAS_SEQUENCE: &str =
    "SELECT pg_catalog.pg_get_serial_sequence('public.generos', 'id_genero') IS NOT NULL";
const DRAW: &str = "SELECT pg_catalog.nextval(\
    pg_catalog.pg_get_serial_sequence('public.generos', 'id_genero')::regclass)";
const ALIGN: &str = include_str!("../../sql/align_sequences.sql");
const NEXT_BY_MAX: &str = "SELECT coalesce(max(id_genero), 0)::int8 + 1 FROM public.generos";

impl Store {
    pub fn new(dispatch: Arc<Dispatch>, use_sequence: UseSequence) -> Store {
        Store {
            dispatch,
            use_sequence,
            told_sequence: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Inserts a genre under `id`, or under the next free one.
    ///
    /// # Errors
    /// Those of the dispatch.
    pub fn create(&self, id: Option<i32>, genero: String, deadline: Instant) -> Outcome<Created> {
        let insert = Insert {
            chosen: id,
            genero,
            at: SystemTime::now(),
            draw: Mutex::new(Draw {
                attempt: 0,
                id: None,
            }),
            use_sequence: self.use_sequence,
            told_sequence: Arc::clone(&self.told_sequence),
        };
        self.dispatch
            .call(Kind::Write, deadline, move |session, attempt| {
                insert.run(session, attempt)
            })
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
        let change = Change {
            id,
            genero,
            at: SystemTime::now(),
            newest: AtomicU32::new(0),
        };
        self.dispatch
            .call(Kind::Write, deadline, move |session, attempt| {
                change.run(session, attempt)
            })
    }
}

/// One update or deletion of a row, over all its tries.
struct Change {
    id: i32,
    /// The new name; none for a deletion.
    genero: Option<String>,
    /// The time of the request.
    at: SystemTime,
    /// The newest try.
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
                return Ok(match attempt.may_have_happened {
                    true => Changed::Unknown,
                    false => Changed::NotThere,
                });
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
}

/// One insert, over all its tries.
struct Insert {
    /// The client's choice.
    chosen: Option<i32>,
    genero: String,
    /// The stamp of the row, the same at every try.
    at: SystemTime,
    draw: Mutex<Draw>,
    use_sequence: UseSequence,
    told_sequence: Arc<AtomicBool>,
}

/// The id that was drawn for a row, and the newest try. Only the newest try may draw: an earlier one
/// can still be sitting on a frozen master, and when that thaws it must not insert under an id of its
/// own (seen in the first test of a freeze: one request, two rows).
struct Draw {
    attempt: u32,
    id: Option<i32>,
}

impl Insert {
    fn run(&self, session: &mut Session, attempt: Attempt) -> Result<Created, Error> {
        let drawn = {
            let mut draw = self.draw.lock().unwrap_or_else(PoisonError::into_inner);
            draw.attempt = draw.attempt.max(attempt.number);
            draw.id
        };
        if let Some(id) = self.chosen.or(drawn) {
            if let Some(row) = self.insert(session, id)? {
                return Ok(Created::Row(row));
            }
            if attempt.may_have_happened {
                let same = session.query(SELECT_SAME, &[&id, &self.genero, &self.at])?;
                if let Some(row) = same.first() {
                    return Ok(Created::Row(genre(row)?));
                }
            }
            if self.chosen.is_some() {
                return Ok(Created::Duplicate);
            }
        }
        match self.has_sequence(session)? {
            true => self.insert_by_sequence(session, attempt),
            false if self.use_sequence == UseSequence::Always => Ok(Created::NoSequence),
            false => self.insert_by_max(session, attempt),
        }
    }

    fn insert(&self, session: &mut Session, id: i32) -> Result<Option<Genre>, Error> {
        session
            .query(INSERT, &[&id, &self.genero, &self.at])?
            .first()
            .map(genre)
            .transpose()
    }

    /// Settles on a drawn id, unless a later try is under way.
    fn settle(&self, id: i32, attempt: Attempt) -> bool {
        let mut draw = self.draw.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = draw.attempt == attempt.number;
        if newest {
            draw.id = Some(id);
        }
        newest
    }

    /// The manual's detection: `USE_SEQUENCE` decides, and on `auto` the table's default does.
    fn has_sequence(&self, session: &mut Session) -> Result<bool, Error> {
        if self.use_sequence == UseSequence::Never {
            return Ok(false);
        }
        let rows = session.query(HAS_SEQUENCE, &[])?;
        let has = rows
            .first()
            .map(|row| row.try_get(0))
            .transpose()?
            .unwrap_or(false);
        if !self.told_sequence.swap(true, Ordering::Relaxed) {
            log::info!(
                "ids of generos come from {}",
                if has { "its sequence" } else { "MAX+1" }
            );
        }
        Ok(has)
    }

    /// Draws until an id is free. A taken one is a row that a client gave this id to, or that
    /// arrived from the peer; the sequence is then moved past its whole neighbourhood at once.
    fn insert_by_sequence(
        &self,
        session: &mut Session,
        attempt: Attempt,
    ) -> Result<Created, Error> {
        for _ in 0..limits::ID_DRAWS_MAX {
            let rows = session.query(DRAW, &[])?;
            let drawn: i64 = rows
                .first()
                .map(|row| row.try_get(0))
                .transpose()?
                .unwrap_or(i64::MAX);
            let Ok(id) = i32::try_from(drawn) else {
                return Ok(Created::NoFreeId);
            };
            if !self.settle(id, attempt) {
                return Ok(Created::Superseded);
            }
            if let Some(row) = self.insert(session, id)? {
                return Ok(Created::Row(row));
            }
            session.query(ALIGN, &[])?;
        }
        Ok(Created::NoFreeId)
    }

    /// Without a sequence: the next id after the highest, under the manual's lock.
    fn insert_by_max(&self, session: &mut Session, attempt: Attempt) -> Result<Created, Error> {
        let mut transaction = session.client().transaction()?;
        transaction.batch_execute("LOCK TABLE public.generos IN SHARE ROW EXCLUSIVE MODE")?;
        let next: i64 = transaction.query_one(NEXT_BY_MAX, &[])?.try_get(0)?;
        let Ok(id) = i32::try_from(next) else {
            return Ok(Created::NoFreeId);
        };
        if !self.settle(id, attempt) {
            return Ok(Created::Superseded);
        }
        let rows = transaction.query(INSERT, &[&id, &self.genero, &self.at])?;
        let row = rows.first().map(genre).transpose()?;
        transaction.commit()?;
        Ok(row.map_or(Created::NoFreeId, Created::Row))
    }
}

fn genre(row: &Row) -> Result<Genre, Error> {
    Ok(Genre {
        id_genero: row.try_get(0)?,
        genero: row.try_get(1)?,
    })
}
