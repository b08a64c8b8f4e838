//! Taking both masters back to a backup or a moment. Everything that can fail is done beside the running masters first; what follows is in an order
//! in which it may end anywhere and be run again. ARCHITECTURE.md has the reasons in one place.

mod beside;
mod commanded;
mod cutover;
mod marker;
mod order;
mod plan;
mod timeline;
mod wal;

use super::command::Place;
use super::tablespaces::{self, Tablespace};
use crate::cli::Restore;
use crate::cluster::NodeId;
use crate::config::Config;
use crate::output;
use crate::output::say;
use crate::replication::{compare, setup};
use anyhow::bail;
pub use commanded::{Commanded, system_at};
use cutover::Cutover;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use marker::Marker;
use plan::{Goal, Plan, Point};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The servers of both masters, as whoever runs them offers them.
pub trait Servers {
    /// Sees that these are the masters that the configuration and the backups mean.
    ///
    /// # Errors
    /// When they are not.
    fn check(&self, place: &Place) -> anyhow::Result<()>;

    /// The data folder of a master, whether it is there or not.
    ///
    /// # Errors
    /// When no cluster is running.
    fn data(&self, node: NodeId) -> anyhow::Result<PathBuf>;

    /// Whether it runs, or is certainly down.
    ///
    /// # Errors
    /// When it is neither, and what to do about it.
    fn runs(&self, node: NodeId) -> anyhow::Result<bool>;

    /// Stops it.
    ///
    /// # Errors
    /// When it lives on.
    fn stop(&self, node: NodeId) -> anyhow::Result<()>;

    /// Starts it, on a new and empty data folder if it has none, and waits until it takes connections.
    ///
    /// # Errors
    /// Why it does not.
    fn start(&self, node: NodeId) -> anyhow::Result<()>;

    /// How a person starts it, as the beginning of a sentence's object.
    fn start_by_hand(&self, node: NodeId) -> String;
}

/// Runs `imdb-ha backup restore`.
///
/// # Errors
/// What could not be done, and what state that leaves.
pub fn report(
    place: &Place,
    config: &Config,
    wanted: &Restore,
    servers: &dyn Servers,
) -> anyhow::Result<ExitCode> {
    let (node, now) = (wanted.node.id(), Timestamp::now());
    let goal = understand(wanted, now)?;
    // The other master is rebuilt in the end, which must not fail then.
    setup::is_as_safe_as_the_urls(config)?;
    servers.check(place)?;
    for of in NodeId::BOTH {
        servers.runs(of)?;
    }
    let cutover = Cutover {
        place,
        config,
        servers,
        node,
    };
    let data = servers.data(node)?;
    let kept = kept(&data, now);
    let mut marker = Marker {
        set: wanted.set.clone(),
        to: wanted.to.clone(),
        timeline: wanted.timeline,
        state: String::new(),
        label: String::new(),
        kept: kept.clone(),
        last: None,
        rows: BTreeMap::new(),
    };
    if let Some(found) = cutover::is_unfinished(&cutover, &marker)? {
        let line = format!(
            "an earlier restore of {node} to {} has not ended; the rest of it is to be done: {} is rebuilt from {node}",
            found.state,
            node.peer()
        );
        if wanted.dry_run {
            show(wanted, &[line], &json!({ "unfinished": found }));
            return Ok(ExitCode::SUCCESS);
        }
        ask(wanted, &[line])?;
        let _claim = place.claim_when_free(node, "restore", &mut say)?;
        marker::tidy(place, &data)?;
        return end(&cutover, wanted, &found, now);
    }
    let mut plan = plan::choose(&goal, &timeline::candidates(place, node, goal.timeline)?)?;
    plan.tablespaces = tablespaces(place, config, servers, &plan, now)?;
    let kept = data.exists().then_some(kept.as_path());
    let lines = plan.lines(kept, now);
    if wanted.dry_run {
        show(wanted, &lines, &plan.as_json(kept, now));
        return Ok(ExitCode::SUCCESS);
    }
    ask(wanted, &lines)?;
    let _claim = place.claim_when_free(node, "restore", &mut say)?;
    marker.state = plan.state();
    marker.label = plan.label.clone();
    marker::tidy(place, &data)?;
    // Of an earlier one that was ended by other means; from here on a note in the data folder says that it has been exchanged.
    marker::remove(&data)?;
    if servers.runs(node)? {
        wal::archive_all(config, node)?;
    }
    let (restored, marker) = beside::prepare(place, config, servers, &plan, marker)?;
    cutover.exchange(&restored, &marker)?;
    end(&cutover, wanted, &marker, now)
}

/// The tablespaces of the backup, and where each will be.
///
/// # Errors
/// When the way to the moment leads over the making of another one.
fn tablespaces(
    place: &Place,
    config: &Config,
    servers: &dyn Servers,
    plan: &Plan,
    now: Timestamp,
) -> anyhow::Result<Vec<(Tablespace, PathBuf)>> {
    let node = plan.goal.node;
    let found = tablespaces::of_backup(place, node, &plan.label)?;
    if servers.runs(node)? {
        let present = tablespaces::of_master(config, node)?;
        plan::refuse_later_tablespaces(&plan.goal, &plan.label, &found, &present)?;
    }
    let at = in_names(now);
    let with_place = |tablespace: Tablespace| {
        let to = tablespace.place(&at);
        (tablespace, to)
    };
    Ok(found.into_iter().map(with_place).collect())
}

/// A time as it stands in the names of folders.
fn in_names(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC)
        .strftime("%Y%m%dT%H%M%SZ")
        .to_string()
}

/// What is wanted, as far as it can be understood without asking anybody.
fn understand(wanted: &Restore, now: Timestamp) -> anyhow::Result<Goal> {
    let to = wanted.to.as_deref();
    let moment = to.map(|text| plan::moment(text, &TimeZone::system(), now));
    let point = match (moment.transpose()?, &wanted.set) {
        (Some(at), _) => Point::Moment(at),
        (None, Some(_)) => Point::Backup,
        (None, None) => Point::End,
    };
    if wanted.timeline.is_some() && point == Point::Backup {
        bail!("--timeline: a backup has its own; leave it out with --set");
    }
    Ok(Goal {
        node: wanted.node.id(),
        set: wanted.set.clone(),
        point,
        timeline: wanted.timeline,
    })
}

/// Where the data folder of now will be.
fn kept(data: &Path, now: Timestamp) -> PathBuf {
    let mut name = data.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".before-{}", in_names(now)));
    data.with_file_name(name)
}

/// The last steps, and what has become of everything.
fn end(
    cutover: &Cutover,
    wanted: &Restore,
    marker: &Marker,
    began: Timestamp,
) -> anyhow::Result<ExitCode> {
    let node = cutover.node;
    let compared = cutover.finish()?;
    let equal = compared.state == compare::State::Equal;
    let seconds = Timestamp::now().duration_since(began).as_secs_f64();
    let next = format!("imdb-ha backup run {node} --type full");
    let kept = marker.kept.exists().then_some(&marker.kept);
    let folders = kept.map_or(Vec::new(), |kept| tablespaces::folders_of(kept));
    if wanted.json {
        output::print(json!({
            "ok": true, "node": node, "state": marker.state, "label": marker.label, "last": marker.last,
            "rows": marker.rows, "compared": compared.rows, "equal": equal, "kept": kept,
            "kept_tablespaces": folders,
            "seconds": (seconds * 10.0).round() / 10.0, "next": next,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    let peer = node.peer();
    let held = match equal {
        true => format!("both hold the same {} rows", compared.rows),
        false => format!("{peer} is rebuilt; what is not proven equal is above"),
    };
    output::print(format_args!(
        "both masters are back at {} after {seconds:.1} s: {held}",
        marker.state
    ));
    for (table, rows) in &marker.rows {
        output::print(format_args!("  {rows} rows in {table}"));
    }
    if let Some(last) = &marker.last {
        output::print(format_args!("  the last transaction is of {last}"));
    }
    if let Some(kept) = kept {
        output::print(format_args!(
            "  the data of {node} before this is in {}; remove it when nobody needs it",
            kept.display()
        ));
    }
    for folder in folders {
        output::print(format_args!(
            "  and a tablespace of it in {}",
            folder.display()
        ));
    }
    output::print(format_args!("begin a new series of backups now: {next}"));
    Ok(ExitCode::SUCCESS)
}

/// Shows a plan and does nothing.
fn show(wanted: &Restore, lines: &[String], plan: &serde_json::Value) {
    match wanted.json {
        true => output::print(json!({ "ok": true, "dry_run": true, "plan": plan })),
        false => lines.iter().for_each(output::print),
    }
}

/// Lets a person decide.
///
/// # Errors
/// When the answer is no, or when nobody can be asked.
fn ask(wanted: &Restore, lines: &[String]) -> anyhow::Result<()> {
    lines.iter().for_each(|line| say(line));
    if wanted.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!(
            "nobody can be asked whether to do that; add --yes, or look with --dry-run. Nothing was changed"
        );
    }
    let _ = write!(std::io::stderr(), "Do it? Type yes: ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => bail!("nothing was changed"),
    }
}
