//! What the tables hold at a named point after a backup, so that a restore of it can be told from anything else.
//!
//! It has to be exact while writes go on: the rows counted must be those of just the commits that stand in WAL before the point. So one
//! session locks all tables against writers, which lets every commit that has begun come to its end, and keeps the next from
//! beginning; meanwhile another sets the point and takes its snapshot. Then the lock goes, after some milliseconds, and the rows are
//! counted on the snapshot for as long as it takes. A point further on in WAL, as another tool would set it, stands behind commits that
//! the snapshot may or may not see.

use super::command::Place;
use super::entry::{Seal, notes};
use super::failure::{Class, Failure};
use super::keep;
use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use crate::pg::{self, Call, CallError, Session, Sessions};
use crossbeam_channel::{Receiver, Sender, bounded};
use postgres::IsolationLevel;
use postgres::error::SqlState;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const DOING: &str = "seal a backup of";
const TABLES: &str = include_str!("../../sql/seal_tables.sql");
const SETTINGS: &str = include_str!("../../sql/seal_settings.sql");

/// Of each table: the number of rows, and a checksum over them.
pub type Figures = BTreeMap<String, (i64, String)>;

/// A table by its name, and as it stands in a statement.
type Table = (String, String);

/// Sets a restore point, records what the tables hold there, and keeps both with the backup.
///
/// # Errors
/// Why there is no seal; the backup is there all the same.
pub fn seal(place: &Place, config: &Config, node: NodeId, label: &str) -> Result<Seal, Failure> {
    let fail = |class, cause: String| Failure::new(class, node, DOING, cause);
    let settings = pg::master_settings(config, node, limits::SEAL_SUM)
        .map_err(|error| fail(Class::Other, error.to_string()))?;
    let sessions = Sessions::start(node, pg::without_waiting(settings), 2)
        .map_err(|error| fail(Class::Other, format!("start a thread: {error}")))?;
    if let Some(why) = of_another_timeline(place, &sessions, node, label)? {
        place.keep(node, label, notes::SEAL, &why)?;
        return Err(fail(Class::Other, why));
    }
    let mut tried = 0;
    let (point, lsn, tables) = loop {
        // Recovery stops at the first point of a name, so no name may come twice.
        let now = jiff::Timestamp::now().as_millisecond();
        let point = format!("imdb-ha-{label}-{now}");
        let cause = match count_at(&sessions, &point) {
            Ok(Ok((lsn, tables))) => break (point, lsn, tables),
            Ok(Err(cause)) => cause,
            Err(error) => return Err(fail(class_of(&error), error.to_string())),
        };
        tried += 1;
        if tried == limits::SEAL_TRIES {
            let cause = format!("in {tried} tries the rows never stood still: {cause}");
            return Err(fail(Class::Other, cause));
        }
        std::thread::sleep(limits::SEAL_AGAIN);
    };
    let at = keep::now();
    wait_archived(&sessions, &lsn).map_err(|(class, cause)| fail(class, cause))?;
    let seal = Seal { point, at, tables };
    place.keep(node, label, notes::SEAL, &seal)?;
    Ok(seal)
}

/// Why a backup can have no seal any more: a restore has taken the master to another timeline since, and what is written there no
/// recovery of this backup comes to.
fn of_another_timeline(
    place: &Place,
    sessions: &Sessions,
    node: NodeId,
    label: &str,
) -> Result<Option<String>, Failure> {
    let known = place.info(node)?;
    let backup = known.backup(label);
    let made = backup.and_then(|backup| backup.archive.as_ref()?.stop.clone());
    let sql = "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn())";
    let now: String = sessions
        .run(limits::SEAL_POINT + limits::SETUP_CONNECT, move |session| {
            session.client().query_one(sql, &[])?.try_get(0)
        })
        .map_err(|error| Failure::new(class_of(&error), node, DOING, error.to_string()))?;
    let of = |segment: &str| segment.get(..8).map(str::to_string);
    Ok(match made.as_deref().map(of) {
        Some(made) if made != of(&now) => Some(format!(
            "{label} was made before {node} was taken back, so what it holds now is no measure for it"
        )),
        _ => None,
    })
}

fn class_of(error: &CallError) -> Class {
    match error {
        CallError::Verdict(_) => Class::Other,
        _ => Class::NodeDown,
    }
}

/// Whether somebody else was in the way, who may be gone at the next try.
fn gives_way(error: &CallError) -> bool {
    let error = match error {
        CallError::Verdict(error) => error,
        // A deadlock, which the server has ended by rolling our transaction back.
        CallError::NotStarted(cause) => {
            return cause.contains(SqlState::T_R_DEADLOCK_DETECTED.code());
        }
        _ => return false,
    };
    let ours = [
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::QUERY_CANCELED,
        // A table was dropped between the list and the lock.
        SqlState::UNDEFINED_TABLE,
    ];
    error.code().is_some_and(|code| ours.contains(code))
}

/// Sets the point and counts the rows there; returns its position in WAL too. The inner error is somebody in the way, who may be gone
/// the next time.
fn count_at(
    sessions: &Sessions,
    point: &str,
) -> Result<Result<(String, Figures), String>, CallError> {
    let (tell_locked, locked) = bounded(1);
    let (tell_set, set) = bounded(1);
    let point = point.to_string();
    let holding = sessions.submit(move |session| hold(session, &tell_locked, &set))?;
    let counting = sessions.submit(move |session| count(session, &point, &locked, &tell_set))?;
    let held = wait(
        holding,
        // Connecting comes first, and the machine may be slow.
        limits::SETUP_CONNECT + limits::SEAL_LOCK + limits::SEAL_POINT,
        "no answer while the tables were locked",
    );
    let held = match held {
        Err(error) if gives_way(&error) => return Ok(Err(error.to_string())),
        outcome => outcome?,
    };
    let counted = wait(
        counting,
        limits::SETUP_CONNECT + limits::SEAL_SUM,
        "no answer while the rows were counted",
    )?;
    // The lock's own end is the proof that it was held until then.
    let too_late = || "setting a restore point took too long".to_string();
    Ok(counted.filter(|_| held).ok_or_else(too_late))
}

fn wait<T>(call: Call<T>, patience: Duration, otherwise: &str) -> Result<T, CallError> {
    match call.reply().recv_timeout(patience) {
        Ok(outcome) => outcome,
        Err(_) => call.give_up(otherwise),
    }
}

/// Keeps the writers out until the point is set; tells whether it did.
fn hold(
    session: &mut Session,
    locked: &Sender<Vec<Table>>,
    set: &Receiver<()>,
) -> Result<bool, postgres::Error> {
    let mut transaction = session.client().transaction()?;
    let tables = tables(&mut transaction)?;
    let targets: Vec<&str> = tables.iter().map(|(_, target)| target.as_str()).collect();
    if !targets.is_empty() {
        // All of them together take no longer than one of them may.
        let bound = limits::SEAL_LOCK.as_millis();
        // An automatic vacuum gives way to a lock when that has looked for a deadlock, so it looks early.
        transaction.batch_execute(&format!(
            "SET LOCAL statement_timeout = {bound}; SET LOCAL deadlock_timeout = {}; \
             SET LOCAL idle_in_transaction_session_timeout = {}",
            limits::SEAL_DEADLOCK.as_millis(),
            limits::SEAL_ABANDONED.as_millis()
        ))?;
        transaction.batch_execute(&format!("LOCK TABLE {} IN SHARE MODE", targets.join(", ")))?;
    }
    let done = locked.send(tables).is_ok() && set.recv_timeout(limits::SEAL_POINT).is_ok();
    transaction.commit()?;
    Ok(done)
}

/// Sets the point when the writers are kept out, lets them go on, and counts.
fn count(
    session: &mut Session,
    point: &str,
    locked: &Receiver<Vec<Table>>,
    set: &Sender<()>,
) -> Result<Option<(String, Figures)>, postgres::Error> {
    // Begun beforehand, because writers wait from the lock on; the snapshot is taken by the first query.
    let builder = session.client().build_transaction();
    let mut transaction = builder
        .isolation_level(IsolationLevel::RepeatableRead)
        .start()?;
    transaction.batch_execute(SETTINGS)?;
    let Ok(tables) = locked.recv_timeout(limits::SETUP_CONNECT + limits::SEAL_LOCK) else {
        return Ok(None);
    };
    let set_point = "SELECT pg_catalog.pg_create_restore_point($1)::text";
    let lsn = transaction.query_one(set_point, &[&point])?.try_get(0)?;
    let _ = set.send(());
    let figures = figures(&mut transaction, &tables)?;
    transaction.commit()?;
    Ok(Some((lsn, figures)))
}

fn tables(transaction: &mut postgres::Transaction) -> Result<Vec<Table>, postgres::Error> {
    let rows = transaction.query(TABLES, &[])?;
    rows.iter()
        .map(|row| Ok((row.try_get("name")?, row.try_get("target")?)))
        .collect()
}

fn figures(
    transaction: &mut postgres::Transaction,
    tables: &[Table],
) -> Result<Figures, postgres::Error> {
    let mut figures = Figures::new();
    for (name, target) in tables {
        // A column may have the name of the table, so the row is asked for as `t.*`.
        let row = transaction.query_one(
            &format!(
                "SELECT count(*), coalesce(sum(pg_catalog.hashtextextended((t.*)::text, 0)::numeric), 0)::text \
                 FROM {target} AS t"
            ),
            &[],
        )?;
        figures.insert(name.clone(), (row.try_get(0)?, row.try_get(1)?));
    }
    Ok(figures)
}

/// What the tables of a server hold now, for comparison with a seal.
///
/// # Errors
/// Those of the server.
pub fn figures_of(session: &mut Session) -> Result<Figures, postgres::Error> {
    let builder = session.client().build_transaction();
    let mut transaction = builder
        .isolation_level(IsolationLevel::RepeatableRead)
        .start()?;
    transaction.batch_execute(SETTINGS)?;
    let tables = tables(&mut transaction)?;
    figures(&mut transaction, &tables)
}

/// Ends the segment with the point and waits until the archive has it: a restore that looks for it before would not find it, and the
/// blame would fall on the backup. What follows in the same segment does no harm, because recovery stops at the point.
fn wait_archived(sessions: &Sessions, lsn: &str) -> Result<(), (Class, String)> {
    let call = |error: CallError| (class_of(&error), error.to_string());
    let lsn = lsn.to_string();
    // The position is that behind the point, which may be the first of the next segment.
    let end =
        "SELECT pg_catalog.pg_walfile_name($1::text::pg_lsn - 1) FROM pg_catalog.pg_switch_wal()";
    let segment: String = sessions
        .run(limits::SEAL_POINT + limits::SETUP_CONNECT, move |session| {
            session.query(end, &[&lsn])?[0].try_get(0)
        })
        .map_err(call)?;
    let deadline = Instant::now() + limits::SEAL_ARCHIVE;
    // Segments go in order; names of other files end differently, or are shorter.
    let is_in = "SELECT coalesce(left(last_archived_wal, 24) COLLATE \"C\" >= $1::text AND length(last_archived_wal) >= 24, false) \
                 FROM pg_catalog.pg_stat_archiver";
    loop {
        let name = segment.clone();
        let archived: bool = sessions
            .run(limits::SEAL_POINT + limits::SETUP_CONNECT, move |session| {
                session.query(is_in, &[&name])?[0].try_get(0)
            })
            .map_err(call)?;
        if archived {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let cause = format!(
                "WAL segment {segment}, which holds the restore point, is not archived after {} s",
                limits::SEAL_ARCHIVE.as_secs()
            );
            return Err((Class::ArchiveBroken, cause));
        }
        std::thread::sleep(limits::SEAL_LOOK);
    }
}
