//! `imdb-ha load`: puts IMDb's files into both masters at the speed of COPY.
//!
//! New tables are filled beside those that are there, on both masters at once, get their keys, and then take the place of the old ones
//! in one transaction on each master. Until then nobody sees anything of it, and whatever ends the load leaves the old rows as they were.
//! Every row that is in no table is in `rechazos`, with its line and the reason.

pub mod cells;
mod command;
mod known;
mod masters;
mod preflight;
mod read;
pub mod report;
mod rows;
mod sink;
mod stage;
mod swap;

pub use command::report;

use crate::cluster::NodeId;
use crate::config::Config;
use crate::imdb::format::{File, Layout, TABLES_MAX};
use crate::interrupt::Interrupt;
use crate::limits;
use crate::replication::setup::{self, Reach, begin};
use crate::replication::{compare, status};
use anyhow::{Context, bail};
use cells::{Bad, Rows};
use known::{Catalogues, Known, Places};
use masters::Masters;
use preflight::{Found, Scan};
use report::{OfFile, Phase, Progress};
use rows::Reader;
use sink::Sink;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::thread::Builder;
use std::time::{Duration, Instant};

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
    let files = wanted.files.iter().map(|found| OfFile::new(&found.name, found.layout));
    let progress = Progress {
        load: now.as_millisecond(),
        files: files.collect(),
        ..Progress::default()
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
    load.clear_origins();
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
        let before: f64 = self.progress.phases.iter().map(|(_, seconds)| seconds).sum();
        if ![Phase::Waiting, Phase::Done].contains(&self.progress.phase) {
            self.progress.phases.push((self.progress.phase, now - before));
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
        for node in NodeId::BOTH {
            let seen = self.masters.run(node, "look at the replication", move |session| {
                status::read(session.client(), node)
            })?;
            let troubles = seen.troubles();
            if !troubles.is_empty() {
                bail!("the masters are not joined, so nothing is loaded: {node}: {}", troubles.join("; "));
            }
        }
        Ok(())
    }

    /// Reads all files at once, and says of all of them what is wrong.
    fn preflight(&mut self) -> anyhow::Result<Vec<Scan>> {
        self.enter(Phase::Preflight);
        let counts = Mutex::new(vec![0; self.wanted.files.len()]);
        let files = &self.wanted.files;
        let (progress, tell, interrupt) = (&mut self.progress, &mut self.tell, self.wanted.interrupt);
        let scans = std::thread::scope(|scope| -> anyhow::Result<Vec<Result<Scan, String>>> {
            let mut threads = Vec::new();
            for (index, found) in files.iter().enumerate() {
                let counts = &counts;
                let count = move |rows| {
                    if let Ok(mut counts) = counts.lock() {
                        counts[index] = rows;
                    }
                };
                let interrupted = move || interrupt.is_some_and(Interrupt::is_asked);
                threads.push(
                    Builder::new()
                        .name("load-check".to_string())
                        .spawn_scoped(scope, move || preflight::scan(found, &interrupted, count))?,
                );
            }
            while !threads.iter().all(|thread| thread.is_finished()) {
                std::thread::sleep(Duration::from_millis(20));
                if let Ok(counts) = counts.lock() {
                    for (file, rows) in progress.files.iter_mut().zip(counts.iter()) {
                        (file.phase, file.rows) = (Phase::Preflight, *rows);
                    }
                }
                tell(progress);
            }
            let ended = threads.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|_| Err("reading it panicked; please report it".to_string()))
            });
            Ok(ended.collect())
        })?;
        self.check_interrupt()?;
        let wrong: Vec<&str> = scans.iter().filter_map(|scan| scan.as_ref().err().map(String::as_str)).collect();
        if !wrong.is_empty() {
            bail!("nothing was loaded, because of the files:\n  {}", wrong.join("\n  "));
        }
        let scans: Vec<Scan> = scans.into_iter().flatten().collect();
        for (file, scan) in self.progress.files.iter_mut().zip(&scans) {
            (file.phase, file.rows) = (Phase::Waiting, scan.rows);
        }
        Ok(scans)
    }

    fn alone(&self) -> anyhow::Result<()> {
        for node in &self.masters.nodes {
            if !self.reach.run(*node, "begin the load", begin)? {
                bail!("a set-up, a rejoin or another load is running on {node}; try again when it has ended");
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
            crate::output::say(&format!("{node}: finishing load {load}, which {} has already", node.peer()));
            let origin = format!("{}_0", self.origin);
            self.masters.run(node, "make an origin", {
                let origin = origin.clone();
                move |session| {
                    let sql = "SELECT pg_catalog.pg_replication_origin_create($1)";
                    session.client().execute(sql, &[&origin]).map(drop)
                }
            })?;
            swap::exchange(&self.masters, node, load, &script, &origin)?;
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

    /// Rows whose titles or persons are not even in a table would all be rejected; whoever asks for that has forgotten a file.
    fn check_needs(&self) -> anyhow::Result<()> {
        type Needs = fn(&Layout) -> bool;
        let needs: [(File, &str, &str, Needs); 2] = [
            (File::Titles, "title.basics", "titulos", |layout| layout.needs_titles),
            (File::Names, "name.basics", "personas", |layout| layout.needs_persons),
        ];
        for (file, name, table, needs) in needs {
            let Some(needy) = self.layouts().find(|layout| needs(layout)) else {
                continue;
            };
            if self.has(file) {
                continue;
            }
            let sql = format!("SELECT EXISTS (SELECT FROM public.{table})");
            let node = self.masters.nodes[0];
            let is_there: bool = self.masters.run(node, &format!("look into {table}"), move |session| {
                session.client().query_one(&sql, &[])?.try_get(0)
            })?;
            if !is_there {
                bail!("{} belongs to {table}, and that is empty: load {name} too", needy.name);
            }
        }
        Ok(())
    }

    /// Fills the new tables and gives them their keys; returns how they take the place of the old ones.
    fn stage(&mut self, scans: Vec<Scan>) -> anyhow::Result<Vec<(NodeId, String)>> {
        let names = stage::tables_of(self.layouts());
        let mut made = Vec::new();
        for node in self.masters.nodes.clone() {
            made.push((node, stage::definitions(&self.masters, node, &names)?));
        }
        let codes: BTreeSet<Vec<u8>> = scans.iter().flat_map(|scan| scan.genres.iter().cloned()).collect();
        let (genres, new_genres) = stage::genres(&self.masters, &codes)?;
        let mut catalogues = Catalogues {
            types: stage::catalogue(&self.masters, "tipos_titulo", "id_tipo_titulo::int, tipo_titulo")?,
            categories: stage::catalogue(&self.masters, "categorias", "id_categoria::int, categoria")?,
            professions: stage::catalogue(&self.masters, "profesiones", "id_profesion::int, profesion")?,
            genres,
        };
        let mut known = Known::default();
        if !self.has(File::Titles) {
            known.titles = stage::ids(&self.masters, "titulos", "id_titulo")?;
        }
        if !self.has(File::Names) {
            known.persons = stage::ids(&self.masters, "personas", "id_persona")?;
        }
        stage::prepare(&self.masters, &self.origin, TABLES_MAX + 1)?;
        self.enter(Phase::Rows);
        for (index, scan) in scans.into_iter().enumerate() {
            self.file(index, scan, &mut known, &mut catalogues)?;
        }
        self.enter(Phase::Keys);
        self.keys(&made)?;
        self.enter(Phase::Swap);
        let ended = jiff::Timestamp::now().to_string();
        let news = swap::News {
            load: self.progress.load,
            began: &self.began,
            ended: &ended,
            files: &self.progress.files,
            catalogues: &catalogues,
            genres: &new_genres,
        };
        let scripts: Vec<(NodeId, String)> =
            made.iter().map(|(node, made)| (*node, swap::script(made, &news))).collect();
        // The last moment at which nothing has happened.
        self.check_interrupt()?;
        for (node, script) in &scripts {
            swap::write_down(&self.masters, *node, self.progress.load, script)?;
        }
        Ok(scripts)
    }

    /// Loads one file: a thread reads, this one takes the lines apart, and others send.
    fn file(
        &mut self,
        index: usize,
        scan: Scan,
        known: &mut Known,
        catalogues: &mut Catalogues,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let Found { layout, path, name } = &self.wanted.files[index];
        self.progress.files[index].phase = Phase::Rows;
        let mut sink = Sink::open(&self.masters, layout, &self.origin)?;
        let mut reader = Reader::new(layout, Places::new(scan.scattered), known, catalogues);
        let mut rejects = Rows::default();
        let (blocks, queue) = crossbeam_channel::bounded(limits::LOAD_BLOCKS);
        let mut file = read::Lines::open(path).with_context(|| format!("open {name}"))?;
        Builder::new().name("load-read".to_string()).spawn(move || {
            loop {
                let mut block = Vec::with_capacity(limits::LOAD_BLOCK_BYTES + 4096);
                let read = file.next_block(&mut block);
                let over = !matches!(read, Ok(true));
                // Nobody listens any more when the load has failed.
                if blocks.send(read.map(|_| block)).is_err() || over {
                    break;
                }
            }
        })?;
        let mut line_number = 0;
        for block in queue {
            let block = block.with_context(|| format!("read {name}"))?;
            for line in read::lines(&block) {
                line_number += 1;
                if line_number == 1 {
                    continue;
                }
                let of_file = &mut self.progress.files[index];
                of_file.read += 1;
                let bad = match reader.take(line) {
                    Ok(()) => {
                        of_file.loaded += 1;
                        of_file.parts_rejected += reader.parts.len() as u64;
                        std::mem::take(&mut reader.parts)
                    }
                    Err(bad) => {
                        of_file.rejected += 1;
                        vec![bad]
                    }
                };
                if bad.is_empty() {
                    continue;
                }
                for (bad, number) in bad.iter().zip(1..) {
                    *self.progress.reasons.entry(bad.reason).or_default() += 1;
                    reject(&mut rejects, self.progress.load, layout.name, line_number, number, bad, line);
                }
            }
            for table in 0..layout.tables.len() {
                sink.send(table, std::mem::take(&mut reader.out[table].0))?;
            }
            sink.send_rejects(std::mem::take(&mut rejects.0))?;
            self.progress.files[index].seconds = began.elapsed().as_secs_f64();
            self.progress.seconds = self.clock.elapsed().as_secs_f64();
            (self.tell)(&self.progress);
            self.check_interrupt()?;
        }
        let of_file = &mut self.progress.files[index];
        if of_file.read != scan.rows {
            bail!("{name} was changed while it was read: {} rows, and {} before", of_file.read, scan.rows);
        }
        let counts = sink.end()?;
        // The first table of a file has one row per row; those of the crew have lists alone.
        if layout.file != File::Crew && counts.first() != Some(&of_file.loaded) {
            bail!("{name}: {} rows were sent and {:?} have arrived", of_file.loaded, counts.first());
        }
        of_file.seconds = began.elapsed().as_secs_f64();
        of_file.phase = Phase::Done;
        Ok(())
    }

    /// Keys, indexes and statistics, on both masters at once.
    fn keys(&self, made: &[(NodeId, stage::Definitions)]) -> anyhow::Result<()> {
        for index in 0..made[0].1.tables.len() {
            self.check_interrupt()?;
            let name = made[0].1.tables[index].name.clone();
            self.masters.all(&format!("make the keys of {name}"), |node| {
                let of_node = made.iter().find(|(other, _)| *other == node);
                let mut statements = of_node.map_or(Vec::new(), |(_, made)| made.tables[index].keys.clone());
                statements.push(format!("ANALYZE imdb_carga.{name}"));
                move |session| {
                    statements.iter().try_for_each(|statement| session.client().batch_execute(statement))
                }
            })?;
        }
        Ok(())
    }

    /// Lets the new tables take the place of the old ones, on one master after the other.
    fn exchange(&mut self, scripts: &[(NodeId, String)]) -> anyhow::Result<()> {
        if self.is_both() {
            // What somebody has written into the old tables must not arrive in the new ones.
            if let Err(why) = compare::settle(self.config)? {
                self.clear();
                bail!("the masters do not get level with each other, so nothing was changed: {why}");
            }
        }
        let origin = format!("{}_0", self.origin);
        for (done, (node, script)) in scripts.iter().enumerate() {
            let outcome = swap::exchange(&self.masters, *node, self.progress.load, script, &origin);
            if done == 0 && outcome.is_err() {
                self.clear();
            }
            outcome.with_context(|| match done {
                0 => "nothing was changed".to_string(),
                _ => format!(
                    "{} has the new rows and {node} has not; the next `imdb-ha load` finishes this one first",
                    node.peer()
                ),
            })?;
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

    /// The schema has gone with the exchange; the origins are nobody's any more.
    fn clear_origins(&self) {
        self.clear();
    }
}

/// A row of the table of what was rejected.
fn reject(rows: &mut Rows, load: i64, file: &str, line_number: i64, number: i32, bad: &Bad, line: &[u8]) {
    let mut digits = itoa::Buffer::new();
    rows.cell(digits.format(load).as_bytes());
    rows.any_text(file.as_bytes());
    rows.cell(digits.format(line_number).as_bytes());
    rows.number(number);
    match bad.column {
        "" => rows.cell(cells::NULL),
        column => rows.any_text(column.as_bytes()),
    };
    let detail: String = bad.detail.chars().take(limits::LOAD_DETAIL_CHARS).collect();
    let without_nul = |text: &[u8]| String::from_utf8_lossy(text).replace('\0', "\u{2400}");
    rows.any_text(bad.reason.in_database().as_bytes());
    rows.any_text(without_nul(detail.as_bytes()).as_bytes());
    rows.any_text(without_nul(line).as_bytes()).end();
}
