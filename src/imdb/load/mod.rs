//! `imdb-ha load`: puts IMDb's files into both masters at the speed of COPY.
//!
//! New tables are filled beside those that are there, on both masters at once, get their keys, and then take the place of the old ones
//! in one transaction on each master. Until then nobody sees anything of it, and whatever ends the load leaves the old rows as they were.
//! Every row that is in no table is in `rechazos`, with its line and the reason.

pub mod cells;
mod check;
mod command;
mod fill;
mod known;
mod masters;
mod orphans;
pub mod preflight;
mod ratings;
pub mod read;
pub mod report;
mod rows;
mod sink;
mod stage;
mod swap;

pub use command::{at_first_start, report};

use crate::cluster::NodeId;
use crate::config::Config;
use crate::imdb::format::{File, Layout};
use crate::interrupt::Interrupt;
use crate::replication::setup::{self, Reach, begin};
use crate::replication::{compare, status};
use anyhow::{Context, bail};
use masters::Masters;
use preflight::Found;
use report::{Phase, Progress};
use std::path::Path;
use std::time::Instant;

/// What is to be loaded, and where.
pub struct Wanted<'a> {
    pub files: Vec<Found>,
    /// Both, but for measuring.
    pub nodes: Vec<NodeId>,
    pub interrupt: Option<&'a Interrupt>,
}

/// Hears how far a load is.
pub type Tell<'a> = &'a mut (dyn FnMut(&Progress) + Send);

/// The files of a folder.
///
/// # Errors
/// When there are none, or one is there twice.
pub fn files_in(folder: &Path) -> anyhow::Result<Vec<Found>> {
    preflight::find(folder).map_err(anyhow::Error::msg)
}

/// Loads the files.
///
/// # Errors
/// Why nothing was loaded; the rows are then as they were, unless the error says otherwise.
pub fn run(config: &Config, wanted: Wanted<'_>, tell: Tell<'_>) -> anyhow::Result<Progress> {
    let now = jiff::Timestamp::now();
    let files = wanted
        .files
        .iter()
        .map(|found| (found.name.as_str(), found.layout));
    let progress = Progress {
        load: now.as_millisecond(),
        ..Progress::of(files)
    };
    let mut load = Load {
        config,
        masters: Masters::new(config, wanted.nodes.clone())?,
        reach: Reach::new(config)?,
        began: now.to_string(),
        origin: format!("imdb_ha_carga_{}", now.as_millisecond()),
        clock: Instant::now(),
        wanted,
        progress,
        tell,
    };
    load.greet()?;
    let scans = load.preflight()?;
    load.alone()?;
    load.finish_earlier()?;
    load.check_needs()?;
    let staged = load.stage(scans);
    if staged.is_err() {
        load.clear();
    }
    let scripts = staged?;
    load.exchange(&scripts)?;
    load.clear();
    load.enter(Phase::Done);
    load.progress.seconds = load.clock.elapsed().as_secs_f64();
    (load.tell)(&load.progress);
    Ok(load.progress)
}

struct Load<'a> {
    config: &'a Config,
    wanted: Wanted<'a>,
    masters: Masters,
    /// Holds the lock of the set-up: nobody may join or rebuild masters meanwhile, nor load.
    reach: Reach,
    began: String,
    origin: String,
    clock: Instant,
    progress: Progress,
    tell: Tell<'a>,
}

impl Load<'_> {
    fn is_both(&self) -> bool {
        self.masters.nodes.len() == 2
    }

    /// Notes how long the last phase took.
    fn enter(&mut self, phase: Phase) {
        let now = self.clock.elapsed().as_secs_f64();
        let before: f64 = self
            .progress
            .phases
            .iter()
            .map(|(_, seconds)| seconds)
            .sum();
        if ![Phase::Waiting, Phase::Done].contains(&self.progress.phase) {
            self.progress
                .phases
                .push((self.progress.phase, now - before));
        }
        self.progress.phase = phase;
        self.progress.seconds = now;
        (self.tell)(&self.progress);
    }

    fn check_interrupt(&self) -> anyhow::Result<()> {
        self.wanted.interrupt.map_or(Ok(()), Interrupt::check)
    }

    /// Sees that the masters are there and joined, before anybody waits for the files to be read.
    fn greet(&self) -> anyhow::Result<()> {
        for node in &self.masters.nodes {
            self.masters
                .is_alive(*node)
                .with_context(|| format!("reach {node}, which is to be loaded"))?;
        }
        if !self.is_both() {
            return Ok(());
        }
        let mut troubles = Vec::new();
        for node in NodeId::BOTH {
            let seen = self
                .masters
                .run(node, "look at the replication", move |session| {
                    status::read(session.client(), node)
                })?;
            let of_node = seen.troubles().into_iter();
            troubles.extend(of_node.map(|trouble| format!("{node}: {trouble}")));
        }
        if !troubles.is_empty() {
            bail!(
                "the masters are not joined, so nothing is loaded: {}",
                troubles.join("; ")
            );
        }
        Ok(())
    }

    fn alone(&self) -> anyhow::Result<()> {
        for node in &self.masters.nodes {
            if !self.reach.run(*node, "begin the load", begin)? {
                bail!(
                    "a set-up, a rejoin or another load is running on {node}; try again when it has ended"
                );
            }
        }
        Ok(())
    }

    /// Finishes a load that died between the two masters, and removes what is left of any other.
    fn finish_earlier(&self) -> anyhow::Result<()> {
        let mut left = Vec::new();
        for node in &self.masters.nodes {
            left.push((*node, stage::left(&self.masters, *node)?));
        }
        if let Some((node, load, script)) = stage::unfinished(&left) {
            crate::output::say(&format!(
                "{node}: finishing load {load}, which {} has already",
                node.peer()
            ));
            swap::exchange(&self.masters, node, load, &script, &self.origin)?;
            self.take_tables()?;
        }
        Ok(())
    }

    fn layouts(&self) -> impl Iterator<Item = &'static Layout> {
        self.wanted.files.iter().map(|found| found.layout)
    }

    fn has(&self, file: File) -> bool {
        self.layouts().any(|layout| layout.file == file)
    }

    /// Lets the new tables take the place of the old ones, on one master after the other.
    fn exchange(&mut self, scripts: &[(NodeId, String)]) -> anyhow::Result<()> {
        if self.is_both() {
            // What somebody has written into the old tables must not arrive in the new ones.
            if let Err(error) = compare::settle(self.config) {
                self.clear();
                return Err(error.context(
                    "the masters do not get level with each other, so nothing was changed",
                ));
            }
        }
        let load = self.progress.load;
        for (done, (node, script)) in scripts.iter().enumerate() {
            let outcome = swap::exchange(&self.masters, *node, load, script, &self.origin);
            let Err(error) = outcome else {
                continue;
            };
            // Only the master itself knows, if the answer was lost. What cannot be known is left for the next load, which will.
            match stage::left(&self.masters, *node).map(|left| left.done.contains(&load)) {
                Ok(true) => {}
                Ok(false) if done == 0 => {
                    self.clear();
                    return Err(error.context("nothing was changed"));
                }
                _ => {
                    let (peer, after) =
                        (node.peer(), "the next `imdb-ha load` ends this one first");
                    return Err(error.context(match done {
                        0 => format!("{node} has the new rows or the old ones, and {peer} the old ones; {after}"),
                        _ => format!("{peer} has the new rows and {node} the old ones; {after}"),
                    }));
                }
            }
        }
        self.take_tables()
    }

    fn take_tables(&self) -> anyhow::Result<()> {
        if !self.is_both() {
            return Ok(());
        }
        setup::take_tables(&self.reach)
            .context("the rows are loaded, but the masters do not replicate them yet; run `imdb-ha replication setup`")
    }

    /// Leaves nothing behind, as far as the masters can be reached; what stays is removed by the next load.
    fn clear(&self) {
        for node in &self.masters.nodes {
            if let Err(error) = stage::clear(&self.masters, *node) {
                crate::output::say(&format!("left for the next load to remove: {error:#}"));
            }
        }
    }
}
