//! A batch of inserts on one master. It can be repeated, there or on the other: an id is drawn before
//! its row is inserted and kept over all tries, so a row whose fate is unknown after a lost connection
//! is sent again as the same row, and never becomes two.

use super::store::{Genre, genre};
use crate::config::UseSequence;
use crate::dispatch::Attempt;
use crate::limits;
use crate::pg::Session;
use postgres::Error;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// What became of an insert.
#[derive(Clone, Debug)]
pub enum Created {
    Row(Genre),
    /// The id that the client chose is taken.
    Duplicate,
    /// `USE_SEQUENCE=true`, and the table has none.
    NoSequence,
    /// A later try took over, or nobody waited any more when it began.
    Superseded,
    /// No free id was found in [`limits::ID_DRAWS_MAX`] draws, or the ids are used up.
    NoFreeId,
}

/// One row to be inserted, over all its tries and batches.
pub(super) struct Entry {
    /// The client's choice.
    pub chosen: Option<i32>,
    genero: String,
    /// The stamp of the row, the time of its request: the same at every try.
    at: SystemTime,
    progress: AtomicU8,
    /// A try may have left the row somewhere. Set for good, since it may appear later still.
    maybe: AtomicBool,
    draw: Mutex<Draw>,
}

/// Progress of an entry. Whoever waits for it and whoever inserts it both move it on from `WAITING`,
/// and only one of them wins.
const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const ABANDONED: u8 = 2;

/// A try of a row: the number of the batch, and of the try within it. A later one is greater.
type Try = (u64, u32);

/// The id that was drawn for a row, and the newest try. Only the newest try may draw: an earlier one
/// can still be sitting on a frozen master, and when that thaws it must not insert under an id of its
/// own (seen in the first test of a freeze: one request, two rows).
struct Draw {
    newest: Try,
    id: Option<i32>,
}

impl Entry {
    pub fn new(chosen: Option<i32>, genero: String) -> Entry {
        Entry {
            chosen,
            genero,
            at: SystemTime::now(),
            progress: AtomicU8::new(WAITING),
            maybe: AtomicBool::new(false),
            draw: Mutex::new(Draw {
                newest: (0, 0),
                id: None,
            }),
        }
    }

    /// Begins a try, unless nobody waits for the row any more.
    fn begin(&self) -> bool {
        self.progress
            .compare_exchange(WAITING, BEGUN, Ordering::SeqCst, Ordering::SeqCst)
            .unwrap_or_else(|now| now)
            != ABANDONED
    }

    /// Stops waiting; no try begins after this. Returns whether one has begun, so that the outcome is
    /// unknown.
    pub fn abandon(&self) -> bool {
        let before = self.progress.swap(ABANDONED, Ordering::SeqCst);
        before == BEGUN || self.may_have_happened()
    }

    pub fn is_abandoned(&self) -> bool {
        self.progress.load(Ordering::SeqCst) == ABANDONED
    }

    pub fn may_have_happened(&self) -> bool {
        self.maybe.load(Ordering::SeqCst)
    }

    /// A call that held this row failed. If that is known to have changed nothing, the row waits again.
    pub fn failed(&self, may_have_happened: bool) {
        if may_have_happened {
            self.maybe.store(true, Ordering::SeqCst);
        } else if !self.may_have_happened() {
            let _ =
                self.progress
                    .compare_exchange(BEGUN, WAITING, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// Forgets the id that was drawn, unless the row may be there under it.
    pub fn forget_id(&self) {
        if !self.may_have_happened() {
            self.draw().id = None;
        }
    }

    /// Tells that a try is under way; returns the id that was drawn before.
    fn enter(&self, this: Try) -> Option<i32> {
        let mut draw = self.draw();
        draw.newest = draw.newest.max(this);
        draw.id
    }

    /// Settles on a drawn id, unless a later try is under way.
    fn settle(&self, id: i32, this: Try) -> bool {
        let mut draw = self.draw();
        let newest = draw.newest == this;
        if newest {
            draw.id = Some(id);
        }
        newest
    }

    fn draw(&self) -> std::sync::MutexGuard<'_, Draw> {
        self.draw.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

/// Where ids come from.
#[derive(Clone, Copy, PartialEq)]
enum Source {
    Sequence,
    Max,
    Nowhere,
}

const DRAW: &str = include_str!("../../sql/draw_ids.sql");
const INSERT: &str = include_str!("../../sql/insert_genres.sql");
const SAME: &str = include_str!("../../sql/same_genres.sql");
const ALIGN: &str = include_str!("../../sql/align_sequences.sql");
const NEXT_BY_MAX: &str = "SELECT coalesce(max(id_genero), 0)::int8 + 1 FROM public.generos";
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
        for _ in 0..limits::ID_DRAWS_MAX {
            if open.is_empty() {
                return Ok(created);
            }
            open = self.round(session, attempt, open, &mut created)?;
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
        mut open: Vec<Open<'a>>,
        created: &mut [Created],
    ) -> Result<Vec<Open<'a>>, Error> {
        let this = (self.number, attempt.number);
        // Before anything is inserted, since a row that was made and then deleted must not come back.
        let before = find_same(session, attempt, &open, &HashMap::new())?;
        open.retain(|row| match row.id.and_then(|id| before.get(&id)) {
            Some(genre) if row.kept => {
                created[row.index] = Created::Row(genre.clone());
                false
            }
            _ => true,
        });
        let lacking = open.iter().filter(|row| row.id.is_none()).count();
        let mut source = Source::Nowhere;
        if lacking > 0 {
            let drawn = self.draw(session, lacking)?;
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
        let there = find_same(session, attempt, &open, &made)?;
        let mut taken = Vec::new();
        for mut row in open {
            let found = row.id.and_then(|id| made.get(&id).or(there.get(&id)));
            match found {
                Some(genre) => created[row.index] = Created::Row(genre.clone()),
                None if row.entry.chosen.is_some() => created[row.index] = Created::Duplicate,
                None => {
                    row.id = None;
                    row.kept = false;
                    taken.push(row);
                }
            }
        }
        if !taken.is_empty() && source != Source::Max {
            // The sequence is moved past the whole neighbourhood of the taken ids at once.
            session.query(ALIGN, &[])?;
        }
        Ok(taken)
    }

    /// The manual's detection: `USE_SEQUENCE` decides, and on `auto` the table's default does.
    fn draw(&self, session: &mut Session, count: usize) -> Result<(Source, Vec<i64>), Error> {
        let mut drawn = Vec::new();
        if self.use_sequence != UseSequence::Never {
            for row in session.query(DRAW, &[&(count as i32)])? {
                drawn.extend(row.try_get::<_, Option<i64>>(0)?);
            }
            if !self.told_sequence.swap(true, Ordering::Relaxed) {
                let which = match drawn.is_empty() {
                    true => "MAX+1",
                    false => "its sequence",
                };
                log::info!("ids of generos come from {which}");
            }
        }
        let source = match (drawn.is_empty(), self.use_sequence) {
            (false, _) => Source::Sequence,
            (true, UseSequence::Always) => Source::Nowhere,
            (true, _) => Source::Max,
        };
        Ok((source, drawn))
    }

    /// Without a sequence: the ids after the highest, under the manual's lock.
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
            let mut next = rows.first().map_or(Ok(i64::MAX), |row| row.try_get(0))?;
            for id in open.iter().filter_map(|row| row.id) {
                next = next.max(i64::from(id) + 1);
            }
            let lacking = open.iter().filter(|row| row.id.is_none()).count() as i64;
            assign(open, (next..next + lacking).collect(), created, this);
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
    let names: Vec<&str> = rows().map(|row| row.entry.genero.as_str()).collect();
    let times: Vec<SystemTime> = rows().map(|row| row.entry.at).collect();
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
        row.entry.maybe.store(true, Ordering::SeqCst);
    }
    Ok(made)
}

/// Which of the rows that were not inserted have been before, by an earlier try.
fn find_same(
    session: &mut Session,
    attempt: Attempt,
    open: &[Open<'_>],
    made: &HashMap<i32, Genre>,
) -> Result<HashMap<i32, Genre>, Error> {
    let doubtful: Vec<(i32, &Entry)> = open
        .iter()
        .filter(|row| row.kept && (attempt.may_have_happened || row.entry.may_have_happened()))
        .filter_map(|row| Some((row.id?, row.entry)))
        .filter(|(id, _)| !made.contains_key(id))
        .collect();
    if doubtful.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<i32> = doubtful.iter().map(|(id, _)| *id).collect();
    let names: Vec<&str> = doubtful
        .iter()
        .map(|(_, entry)| entry.genero.as_str())
        .collect();
    let times: Vec<SystemTime> = doubtful.iter().map(|(_, entry)| entry.at).collect();
    let mut there = HashMap::new();
    for row in session.query(SAME, &[&ids, &names, &times])? {
        let row = genre(&row)?;
        there.insert(row.id_genero, row);
    }
    Ok(there)
}
