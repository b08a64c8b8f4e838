//! Whether the two masters hold the same rows, found out while writes go on, and mended on request.
//!
//! A row that differs may only be on its way. So a key counts as differing when it differs, then both
//! directions have passed a barrier behind everything that was read, and it differs still with neither
//! version touched since. What was written meanwhile is looked at again.

mod barrier;
mod reach;
mod repair;
mod report;
mod tables;
mod verdict;
mod walk;

pub use reach::Masters;
pub use report::{Report, State};

use crate::cli::Compare;
use crate::config::Config;
use crate::limits;
use crate::output;
use crate::pg::Session;
use report::{TableReport, TableState};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tables::{Catalog, Pairing};

/// How fast a comparison reads.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Time that one chunk should take.
    chunk: Duration,
    /// Whether it rests after each chunk.
    gentle: bool,
}

impl Pace {
    /// Somebody waits for the result.
    pub const FAST: Pace = Pace {
        chunk: limits::COMPARE_CHUNK_FAST,
        gentle: false,
    };
    /// Nobody does, and requests go on beside it.
    pub const GENTLE: Pace = Pace {
        chunk: limits::COMPARE_CHUNK_GENTLE,
        gentle: true,
    };
}

/// Why there is no comparison.
#[derive(Debug)]
pub enum Failure {
    /// Neither master has this table.
    UnknownTable(String),
    /// A master could not be asked, or answered with an error.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Failed(error)
    }
}

impl From<Failure> for anyhow::Error {
    fn from(failure: Failure) -> anyhow::Error {
        match failure {
            Failure::UnknownTable(name) => {
                anyhow::anyhow!("compare: neither master has a table {name}")
            }
            Failure::Failed(error) => error,
        }
    }
}

/// Waits until each master has applied what the other one has written so far.
///
/// # Errors
/// What is in the way. A master that is only slow to answer, because much is being done there, is asked again for a while.
pub fn settle(config: &Config) -> anyhow::Result<()> {
    let masters = Masters::new(config)?;
    let deadline = Instant::now() + limits::COMPARE_SETTLE;
    loop {
        let passed = barrier::pass(&masters);
        match passed.and_then(|passed| passed.map_err(anyhow::Error::msg)) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => std::thread::sleep(limits::BARRIER_NUDGE),
        }
    }
}

/// Compares the tables of this name, or all of schema public, and tells of each table how many of its
/// rows have been read so far.
///
/// # Errors
/// See [`Failure`].
pub fn run(
    masters: &Masters,
    wanted: &[String],
    pace: Pace,
    progress: &mut dyn FnMut(&str, u64),
) -> Result<Report, Failure> {
    Ok(measure(masters, wanted, pace, progress)?.0)
}

/// Whether either master has each of these tables; a cheap question before a long comparison.
///
/// # Errors
/// See [`Failure`].
pub fn check(masters: &Masters, wanted: &[String]) -> Result<(), Failure> {
    paired(masters, wanted, limits::COMPARE_CHECK).map(drop)
}

/// `imdb-ha compare`: exit code 1 unless the masters are equal.
///
/// # Errors
/// What could not be done.
pub fn report(config: &Config, wanted: &Compare) -> anyhow::Result<ExitCode> {
    let outcome = compare_and_mend(config, wanted);
    let report = match outcome {
        Err(error) if wanted.json => {
            output::print(Report::failed(format!("{error:#}")).as_json());
            return Ok(ExitCode::FAILURE);
        }
        outcome => outcome?,
    };
    match wanted.json {
        true => output::print(report.as_json()),
        false => output::print(report.as_text().trim_end()),
    }
    Ok(match report.state {
        State::Equal => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn compare_and_mend(config: &Config, wanted: &Compare) -> anyhow::Result<Report> {
    let masters = Masters::new(config)?;
    let terminal = std::io::stderr().is_terminal();
    let mut progress = |table: &str, rows: u64| {
        if terminal {
            // Nobody minds a line of progress that could not be written.
            let _ = write!(
                std::io::stderr(),
                "\r\x1b[K{}: {rows} rows",
                tables::shown(table)
            );
        }
    };
    let report = match wanted.repair {
        None => run(&masters, &wanted.tables, Pace::FAST, &mut progress).map_err(Into::into),
        Some(from) => repair::run(config, &masters, &wanted.tables, from.id(), &mut progress),
    };
    if terminal {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    report
}

/// A table that was compared, and what was found in it.
type Measured = (String, Arc<tables::Table>, walk::Found);

/// The comparison, with what the repair needs of it beside the report.
fn measure(
    masters: &Masters,
    wanted: &[String],
    pace: Pace,
    progress: &mut dyn FnMut(&str, u64),
) -> Result<(Report, Vec<Measured>), Failure> {
    masters.renew();
    let began = Instant::now();
    connect(masters)?;
    let mut report = Report::begin();
    let mut measured = Vec::new();
    for (name, pairing) in paired(masters, wanted, limits::COMPARE_CALL)? {
        let table = match pairing {
            Pairing::Comparable(table) => Arc::new(table),
            Pairing::Unlike(reason) => {
                report.add(TableReport::not_compared(&name, TableState::Unlike, reason));
                continue;
            }
            Pairing::NoKey => {
                let reason = "it has no primary key".to_string();
                report.add(TableReport::not_compared(&name, TableState::NoKey, reason));
                continue;
            }
        };
        let of_table = Instant::now();
        let found = walk::compare(masters, &table, &name, pace, progress)?;
        report.add(TableReport::compared(
            &name,
            &table,
            &found,
            of_table.elapsed(),
        ));
        measured.push((name, table, found));
    }
    report.end(began.elapsed(), barrier::troubles(masters)?);
    Ok((report, measured))
}

/// Connects to both masters before anything is read. A busy master can take longer for it than the pool
/// waits, so one miss is not the end.
pub(super) fn connect(masters: &Masters) -> anyhow::Result<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        let connected = masters.both_within(
            limits::COMPARE_CALL / limits::COMPARE_CONNECTS,
            "connect for the comparison",
            |_| |session: &mut Session| session.query("SELECT 1", &[]).map(drop),
        );
        match connected {
            Err(_) if tries < limits::COMPARE_CONNECTS => {}
            connected => return connected.map(drop),
        }
    }
}

fn paired(
    masters: &Masters,
    wanted: &[String],
    patience: Duration,
) -> Result<Vec<(String, Pairing)>, Failure> {
    let catalogs: [Catalog; 2] =
        masters.both_within(patience, "read the list of tables", |_| {
            |session: &mut Session| {
                let rows = session.query(include_str!("../../../sql/compare_tables.sql"), &[])?;
                tables::catalog(&rows)
            }
        })?;
    tables::pair(&catalogs, wanted).map_err(Failure::UnknownTable)
}
