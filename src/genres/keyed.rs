//! Writes that bear a key of their client's (`Idempotency-Key`). What was done under a key is a row of `imdb_ha.claves`, written by the very
//! statement that writes the genre: here and on the peer the one is there if and only if the other is. So a request whose key is there has
//! been done, whoever tries it again: this process, another one after this was killed, or the client. Each is a commit of its own, since a
//! key that is taken must fail nobody else's row.

use super::batch::{ALIGN, BURIED, DRAW, NEXT_BY_MAX, of_half};
use super::stamp;
use super::store::{Genre, Outcome, STAMP};
use crate::config::UseSequence;
use crate::dispatch::{Attempt, Dispatch, Failed, Kind};
use crate::limits;
use crate::pg::Session;
use postgres::error::SqlState;
use postgres::{Error, Row};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

/// A write and its key.
#[derive(Debug)]
pub struct KeyedWrite {
    pub key: String,
    /// What the request says, in the same words each time: another text under the same key is another request.
    pub request: String,
    pub action: Action,
}

/// What is to be done.
#[derive(Debug)]
pub enum Action {
    /// A new genre, under an id of the client's or the next free one.
    Create {
        id: Option<i32>,
        genero: String,
    },
    Rename {
        id: i32,
        genero: String,
    },
    Remove {
        id: i32,
    },
}

/// What became of such a write.
#[derive(Clone, Debug)]
pub enum Written {
    Done {
        /// The genre as it was then.
        row: Genre,
        /// The number of the master that has done it.
        nodo: i16,
        /// An earlier request had done it.
        replayed: bool,
    },
    /// Another request has been done under this key.
    Reused,
    /// One under this key is being done all the time.
    Busy,
    /// There is no genre with this id.
    NotThere,
    /// The id that the client chose is taken.
    Duplicate,
    /// `USE_SEQUENCE=true`, and the table has none.
    NoSequence,
    /// No free id was found.
    NoFreeId,
    /// It may have been done on the master that cannot be reached, or it was overtaken again and again.
    Unknown,
}

const FIND: &str = include_str!("../../sql/keyed_find.sql");
const INSERT: &str = include_str!("../../sql/keyed_insert.sql");
const UPDATE: &str = include_str!("../../sql/keyed_update.sql");
const DELETE: &str = include_str!("../../sql/keyed_delete.sql");
/// Writes a few bytes that nobody takes. Its commit waits for the peer like any other, and so for what was committed before it.
const PASS_ON: &str = "SELECT pg_catalog.pg_logical_emit_message(true, 'imdb_ha', '')";
/// The constraint of `imdb_ha.claves`.
const KEY_OF_KEYS: &str = "claves_pkey";

/// Does a write, once. Another one under its key that is under way is waited for.
pub(super) fn write(
    dispatch: &Dispatch,
    use_sequence: UseSequence,
    write: KeyedWrite,
    deadline: Instant,
) -> Outcome<Written> {
    let tries = Tries {
        newest: 0,
        at: stamp::now(),
        id: None,
        doubtful: false,
        elsewhere: false,
    };
    let keyed = Arc::new(Keyed {
        write,
        use_sequence,
        tries: Mutex::new(tries),
    });
    loop {
        let tried = Arc::clone(&keyed);
        let outcome = dispatch.call(Kind::Write, deadline, move |session, attempt| {
            tried.run(session, attempt)
        });
        let busy = matches!(outcome, Ok((Written::Busy, _)));
        if busy && Instant::now() + limits::KEY_BUSY_PAUSE < deadline {
            std::thread::sleep(limits::KEY_BUSY_PAUSE);
            continue;
        }
        let doubtful = keyed.end();
        return outcome.map_err(|failed| Failed {
            may_have_happened: failed.may_have_happened || doubtful,
            ..failed
        });
    }
}

/// One write over all its tries.
struct Keyed {
    write: KeyedWrite,
    use_sequence: UseSequence,
    tries: Mutex<Tries>,
}

/// Only the newest try changes the stamp or the id, and only while somebody waits for it: an earlier one may still sit on a frozen master.
struct Tries {
    /// Counted from 1 as they begin; [`ANSWERED`] when nobody waits any more.
    newest: u64,
    /// The stamp of what is written.
    at: SystemTime,
    /// The id that was drawn.
    id: Option<i32>,
    /// An earlier try may have been done, anywhere.
    doubtful: bool,
    /// An earlier try may have been done on the other master.
    elsewhere: bool,
}

const ANSWERED: u64 = u64::MAX;

/// What came of drawing an id.
enum Drawn {
    Id(i32),
    /// It belongs to a row already.
    Taken,
    Impossible(Written),
}

impl Keyed {
    fn run(&self, session: &mut Session, attempt: Attempt) -> Result<Written, Error> {
        let Some(this) = self.enter(attempt) else {
            return Ok(Written::Unknown);
        };
        for _ in 0..limits::ID_DRAWS_MAX {
            if let Some(found) = self.find(session)? {
                return Ok(found);
            }
            let step = match &self.write.action {
                Action::Create { id, genero } => self.create(session, this, *id, genero),
                Action::Rename { id, .. } | Action::Remove { id } => {
                    self.change(session, this, *id)
                }
            };
            match step {
                Ok(Some(written)) => return Ok(written),
                Ok(None) => {}
                // It came by itself, or from the peer, since it was looked for. Nothing else of the statement has happened.
                Err(error) if is_key_taken(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(match &self.write.action {
            Action::Create { id: None, .. } => Written::NoFreeId,
            _ => Written::Unknown,
        })
    }

    /// What was done under this key, if its change is here.
    fn find(&self, session: &mut Session) -> Result<Option<Written>, Error> {
        let KeyedWrite { key, request, .. } = &self.write;
        let found = session.query(FIND, &[key, request])?;
        let Some(row) = found.first() else {
            return Ok(None);
        };
        if !row.try_get::<_, bool>(4)? {
            return Ok(Some(Written::Reused));
        }
        // After a crash it may be here alone, and what is answered must be on both masters where everything is.
        session.query(PASS_ON, &[])?;
        Ok(Some(Written::Done {
            row: Genre {
                id_genero: row.try_get(0)?,
                genero: row.try_get(1)?,
            },
            nodo: row.try_get(2)?,
            // With its own stamp it was an earlier try of this very request.
            replayed: row.try_get::<_, SystemTime>(3)? != self.tries().at,
        }))
    }

    /// Inserts; nothing, if that is to be tried again.
    fn create(
        &self,
        session: &mut Session,
        this: u64,
        chosen: Option<i32>,
        genero: &str,
    ) -> Result<Option<Written>, Error> {
        let drawn = self.tries().id;
        let id = match chosen.or(drawn) {
            Some(id) => id,
            None => match self.draw(session)? {
                Drawn::Id(id) => id,
                Drawn::Impossible(why) => return Ok(Some(why)),
                Drawn::Taken => {
                    session.query(ALIGN, &[])?;
                    return Ok(None);
                }
            },
        };
        // Kept for the next try, which then makes the same row and not another one.
        let Some(at) = self.settle(this, |tries| tries.id = Some(id)) else {
            return Ok(Some(Written::Unknown));
        };
        let KeyedWrite { key, request, .. } = &self.write;
        let rows = session.query(INSERT, &[key, request, &id, &genero, &at])?;
        if let Some(written) = judge(&rows)? {
            return Ok(Some(written));
        }
        let deleted = session.query(BURIED, &[&vec![id], &vec![at]])?;
        if let Some(row) = deleted.first() {
            let deleted: SystemTime = row.try_get(1)?;
            return Ok(self.again(this, |tries| tries.at = stamp::after(deleted)));
        }
        if chosen.is_some() {
            return Ok(Some(self.unless_elsewhere(Written::Duplicate)));
        }
        session.query(ALIGN, &[])?;
        // Under another id it is another row. If an earlier try has made the first one elsewhere, the later stamp of this one counts when the two
        // meet, and the first one goes (sql/conflicts.sql).
        Ok(self.again(this, |tries| {
            tries.id = None;
            tries.at = stamp::now();
        }))
    }

    /// The next id, as [`super::batch::Batch`] draws it. Without a sequence nothing is locked: who meets the lane there draws again.
    fn draw(&self, session: &mut Session) -> Result<Drawn, Error> {
        let of = |id: i64| i32::try_from(id).map_err(|_| Drawn::Impossible(Written::NoFreeId));
        if self.use_sequence != UseSequence::Never {
            let rows = session.query(DRAW, &[&1_i32])?;
            if let Some(row) = rows.first() {
                let (id, free): (Option<i64>, bool) = (row.try_get(0)?, row.try_get(1)?);
                if let Some(id) = id {
                    return Ok(match (of(id), free) {
                        (Ok(id), true) => Drawn::Id(id),
                        (Ok(_), false) => Drawn::Taken,
                        (Err(none), _) => none,
                    });
                }
            }
        }
        if self.use_sequence == UseSequence::Always {
            return Ok(Drawn::Impossible(Written::NoSequence));
        }
        let rows = session.query(NEXT_BY_MAX, &[])?;
        let (next, half) = match rows.first() {
            Some(row) => (row.try_get(0)?, row.try_get(1)?),
            None => (i64::from(i32::MAX) + 1, 0),
        };
        let next = of_half(next, half, 1).first().copied();
        Ok(match of(next.unwrap_or(i64::MAX)) {
            Ok(id) => Drawn::Id(id),
            Err(none) => none,
        })
    }

    /// Renames or deletes; nothing, if that is to be tried again.
    fn change(&self, session: &mut Session, this: u64, id: i32) -> Result<Option<Written>, Error> {
        let at = self.tries().at;
        let KeyedWrite {
            key,
            request,
            action,
        } = &self.write;
        let rows = match action {
            Action::Rename { genero, .. } => {
                session.query(UPDATE, &[key, request, &id, genero, &at])?
            }
            _ => session.query(DELETE, &[key, request, &id, &at])?,
        };
        if let Some(written) = judge(&rows)? {
            return Ok(Some(written));
        }
        let found = session.query(STAMP, &[&id])?;
        let Some(row) = found.first() else {
            return Ok(Some(self.unless_elsewhere(Written::NotThere)));
        };
        // The row is newer than the request. Its key is not here, so this request has not been done here, and whoever waits for it wants it done now.
        let newer: SystemTime = row.try_get(0)?;
        Ok(self.again(this, |tries| tries.at = stamp::after(newer)))
    }

    /// Begins a try and returns its number, if somebody still waits.
    fn enter(&self, attempt: Attempt) -> Option<u64> {
        let mut tries = self.tries();
        tries.doubtful |= attempt.may_have_happened;
        tries.elsewhere |= attempt.may_be_elsewhere;
        if tries.newest == ANSWERED {
            return None;
        }
        tries.newest += 1;
        Some(tries.newest)
    }

    /// Nobody waits any more. Returns whether a try may have been done before the last one.
    fn end(&self) -> bool {
        let mut tries = self.tries();
        tries.newest = ANSWERED;
        tries.doubtful
    }

    /// Changes what the next statement writes and returns its stamp, if this is the newest try and somebody waits for it.
    fn settle(&self, this: u64, change: impl FnOnce(&mut Tries)) -> Option<SystemTime> {
        let mut tries = self.tries();
        if tries.newest != this {
            return None;
        }
        change(&mut tries);
        Some(tries.at)
    }

    /// The same before another round; otherwise the end of this try.
    fn again(&self, this: u64, change: impl FnOnce(&mut Tries)) -> Option<Written> {
        match self.settle(this, change) {
            Some(_) => None,
            None => Some(Written::Unknown),
        }
    }

    /// A verdict that holds here, unless the request may have been done where nobody can look.
    fn unless_elsewhere(&self, verdict: Written) -> Written {
        match self.tries().elsewhere {
            true => Written::Unknown,
            false => verdict,
        }
    }

    fn tries(&self) -> MutexGuard<'_, Tries> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a statement has done; nothing, if it found no row that it may write.
fn judge(rows: &[Row]) -> Result<Option<Written>, Error> {
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    if !row.try_get::<_, bool>(0)? {
        return Ok(Some(Written::Busy));
    }
    let Some(nodo) = row.try_get(1)? else {
        return Ok(None);
    };
    Ok(Some(Written::Done {
        row: Genre {
            id_genero: row.try_get(2)?,
            genero: row.try_get(3)?,
        },
        nodo,
        replayed: false,
    }))
}

/// Whether a statement failed because its key is there.
fn is_key_taken(error: &Error) -> bool {
    let taken = error.code() == Some(&SqlState::UNIQUE_VIOLATION);
    let constraint = error.as_db_error().and_then(|error| error.constraint());
    taken && constraint == Some(KEY_OF_KEYS)
}
