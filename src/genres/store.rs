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
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

/// A genre, as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Genre {
    pub id_genero: i32,
    /// Absent only where the row is gone and its text is not known.
    pub genero: Option<String>,
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
const UPDATE: &str = "UPDATE public.generos SET genero = $2::text, cambiado_en = $3::timestamptz \
    WHERE id_genero = $1::int4 RETURNING id_genero::int4, genero::text";
const DELETE: &str =
    "DELETE FROM public.generos WHERE id_genero = $1::int4 RETURNING id_genero::int4, genero::text";
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

    /// Renames a genre; nothing when there is none with this id.
    ///
    /// # Errors
    /// Those of the dispatch.
    pub fn update(&self, id: i32, genero: String, deadline: Instant) -> Outcome<Option<Genre>> {
        let at = SystemTime::now();
        self.dispatch
            .call(Kind::Write, deadline, move |session, _| {
                session
                    .query(UPDATE, &[&id, &genero, &at])?
                    .first()
                    .map(genre)
                    .transpose()
            })
    }

    /// Deletes a genre and returns it; nothing when there is none with this id.
    ///
    /// # Errors
    /// Those of the dispatch.
    pub fn delete(&self, id: i32, deadline: Instant) -> Outcome<Option<Genre>> {
        self.dispatch
            .call(Kind::Write, deadline, move |session, attempt| {
                let deleted = session
                    .query(DELETE, &[&id])?
                    .first()
                    .map(genre)
                    .transpose()?;
                // Gone at a second try: the first one did it.
                let gone = attempt.may_have_happened.then_some(Genre {
                    id_genero: id,
                    genero: None,
                });
                Ok(deleted.or(gone))
            })
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
                let there = session
                    .query(SELECT, &[&id])?
                    .first()
                    .map(genre)
                    .transpose()?;
                if let Some(row) = there.filter(|row| row.genero.as_ref() == Some(&self.genero)) {
                    return Ok(Created::Row(row));
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
