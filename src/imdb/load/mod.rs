//! `imdb-ha load`: puts IMDb's files into both masters at the speed of COPY.
//!
//! New tables are filled beside those that are there, on both masters at once, get their keys, and then take the place of the old ones
//! in one transaction on each master, both of which end one right after the other. Until then nobody sees anything of it, and whatever ends
//! the load leaves the old rows as they were. Every row that is in no table is in `rechazos`, with its line and the reason.

pub mod cells;
mod check;
mod command;
mod exchange;
mod fill;
mod find;
mod known;
mod masters;
mod orphans;
mod packed;
pub mod preflight;
mod ratings;
pub mod read;
pub mod report;
mod room;
mod rows;
mod shrink;
mod sink;
mod stage;
mod swap;
mod taker;
mod unfinished;

pub use command::{at_first_start, report};
pub use shrink::Allow;
pub use unfinished::finish;

use crate::cluster::NodeId;
use crate::config::Config;
use crate::imdb::format::{File, Layout};
use crate::interrupt::{Interrupt, Interrupted};
use crate::replication::setup::Reach;
use crate::replication::{compare, status};
use anyhow::{Context, bail};
use exchange::{Exchange, Failed};
use masters::Masters;
use preflight::Found;
use report::{Phase, Progress};
use shrink::Count;
use std::path::Path;
use std::time::Instant;

/// What is to be loaded, and where.
pub struct Wanted<'a> {
    pub files: Vec<Found>,
    /// Both, but for measuring.
    pub nodes: Vec<NodeId>,
    pub allow: Allow,
    pub interrupt: Option<&'a Interrupt>,
}

/// Hears how far a load is.
pub type Tell<'a> = &'a mut (dyn FnMut(&Progress) + Send);

/// The files of a folder.
///
/// # Errors
/// When there are none, or one is there twice.
pub fn files_in(folder: &Path) -> anyhow::Result<Vec<Found>> {
    find::find(folder).map_err(anyhow::Error::msg)
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
        before: Vec::new(),
        wanted,
        progress,
        tell,
    };
    load.greet()?;
    let scans = load.preflight()?;
    unfinished::alone(&load.masters, &load.reach)?;
    unfinished::finish_earlier(&load.masters, &load.reach, &load.origin)?;
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
    /// The rows that were there of what is replaced, unless nobody minds how many are left.
    before: Vec<Count>,
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

    fn layouts(&self) -> impl Iterator<Item = &'static Layout> {
        self.wanted.files.iter().map(|found| found.layout)
    }

    fn has(&self, file: File) -> bool {
        self.layouts().any(|layout| layout.file == file)
    }

    /// Lets the new tables take the place of the old ones.
    fn exchange(&mut self, scripts: &[(NodeId, String)]) -> anyhow::Result<()> {
        let exchange = Exchange {
            masters: &self.masters,
            load: self.progress.load,
            scripts,
            origin: &self.origin,
            settle: &|| self.settle(),
            check: &|| self.check_interrupt(),
        };
        let Err(Failed { error, sent }) = exchange.run() else {
            return self.take_tables();
        };
        // Only a master itself knows, if the answer was lost. What cannot be known is left for the next load, which will.
        let has = |node: &NodeId| match sent {
            true => stage::left(&self.masters, *node)
                .ok()
                .map(|left| left.done.contains(&self.progress.load)),
            false => Some(false),
        };
        let have: Vec<Option<bool>> = self.masters.nodes.iter().map(has).collect();
        if have.iter().all(|has| *has == Some(true)) {
            return self.take_tables();
        }
        if have.iter().all(|has| *has == Some(false)) {
            self.clear();
            return Err(error.context("nothing was changed"));
        }
        let told = self.masters.nodes.iter().zip(have).map(|(node, has)| {
            let rows = match has {
                Some(true) => "the new rows",
                Some(false) => "the old ones",
                None => "the new rows or the old ones",
            };
            format!("{node} has {rows}")
        });
        let told = told.collect::<Vec<String>>().join(" and ");
        Err(error.context(format!(
            "{told}; the next `imdb-ha load` or `imdb-ha replication setup` ends this one first"
        )))
    }

    /// Waits until both masters have told each other everything, unless the load is interrupted.
    fn settle(&self) -> anyhow::Result<()> {
        if !self.is_both() {
            return self.check_interrupt();
        }
        let settled = match self.wanted.interrupt {
            Some(interrupt) => {
                let config = self.config.clone();
                interrupt.unless(move || compare::settle(&config))
            }
            None => compare::settle(self.config),
        };
        settled.map_err(|error| match error.is::<Interrupted>() {
            true => error,
            false => error.context("the masters do not get level with each other"),
        })
    }

    fn take_tables(&self) -> anyhow::Result<()> {
        match self.is_both() {
            true => unfinished::take_tables(&self.reach),
            false => Ok(()),
        }
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
