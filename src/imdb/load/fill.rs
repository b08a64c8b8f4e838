//! Filling the new tables, beside those that are there.

use super::known::{Catalogues, Ids, Known, Places};
use super::preflight::{Found, Scan};
use super::read::{CUT_OFF, Lines};
use super::report::Phase;
use super::room;
use super::rows::Reader;
use super::shrink::{Count, RATED};
use super::sink::Sink;
use super::taker::Taker;
use super::{Load, stage};
use crate::cluster::NodeId;
use crate::imdb::format::{File, Layout, TITULOS};
use crate::limits;
use anyhow::{Context, bail};
use crossbeam_channel::{Receiver, TrySendError};
use std::collections::BTreeSet;
use std::io;
use std::thread::Builder;
use std::time::Instant;

impl Load<'_> {
    /// Fills the new tables and gives them their keys; returns how they take the place of the old ones.
    pub(super) fn stage(&mut self, mut scans: Vec<Scan>) -> anyhow::Result<Vec<(NodeId, String)>> {
        let mut names = stage::tables_of(self.layouts());
        if self.rates_titles_there() {
            names.push(TITULOS[0].name);
        }
        let mut made = Vec::new();
        for node in self.masters.nodes.clone() {
            made.push((node, stage::definitions(&self.masters, node, &names)?));
        }
        self.count_before(&scans)?;
        let codes: BTreeSet<Vec<u8>> = scans
            .iter()
            .flat_map(|scan| scan.genres.iter().cloned())
            .collect();
        let (genres, mut new_genres) = stage::genres(&self.masters, &codes)?;
        let mut catalogues = Catalogues {
            types: stage::catalogue(
                &self.masters,
                "tipos_titulo",
                "id_tipo_titulo::int, tipo_titulo",
            )?,
            categories: stage::catalogue(
                &self.masters,
                "categorias",
                "id_categoria::int, categoria",
            )?,
            professions: stage::catalogue(
                &self.masters,
                "profesiones",
                "id_profesion::int, profesion",
            )?,
            genres,
            genres_used: Ids::default(),
        };
        let mut known = self.known(&mut scans)?;
        stage::prepare(&self.masters)?;
        self.enter(Phase::Rows);
        let mut arrived: Vec<Count> = Vec::new();
        if self.rates_titles_there() {
            self.rate_titles_there(&mut known)?;
        }
        for (index, scan) in scans.into_iter().enumerate() {
            arrived.extend(self.file(index, scan, &mut known, &mut catalogues)?);
        }
        arrived.push((RATED, known.ratings.given));
        self.check_shrink(&arrived)?;
        // Of titles that were all rejected nothing is left, and no genre either.
        new_genres.retain(|(number, _)| catalogues.genres_used.has(*number));
        self.enter(Phase::Keys);
        self.keys(&made)?;
        self.enter(Phase::Swap);
        self.write_down(&made, &catalogues, &new_genres)
    }

    /// Whether there are ratings for titles that are there already.
    fn rates_titles_there(&self) -> bool {
        self.has(File::Ratings) && !self.has(File::Titles)
    }

    /// What no file will tell before it is needed.
    fn known(&self, scans: &mut [Scan]) -> anyhow::Result<Known> {
        let mut known = Known::default();
        for (scan, layout) in scans.iter_mut().zip(self.layouts()) {
            if layout.file == File::Ratings {
                known.ratings = std::mem::take(&mut scan.ratings);
            }
        }
        if self.has(File::Titles) && !self.has(File::Ratings) {
            known.ratings = self.ratings_there()?;
        }
        // Those that are rated anew become known on the way.
        if !self.has(File::Titles) && !self.rates_titles_there() {
            known.titles = stage::ids(&self.masters, "titulos", "id_titulo")?;
        }
        if !self.has(File::Names) {
            known.persons = stage::ids(&self.masters, "personas", "id_persona")?;
        }
        Ok(known)
    }

    /// Loads one file: a thread reads, this one takes the lines apart, and others send. Returns how many rows each table has got.
    fn file(
        &mut self,
        index: usize,
        scan: Scan,
        known: &mut Known,
        catalogues: &mut Catalogues,
    ) -> anyhow::Result<Vec<Count>> {
        let began = Instant::now();
        let Found { layout, path, name } = &self.wanted.files[index];
        let layout: &'static Layout = layout;
        self.progress.files[index].phase = Phase::Rows;
        let mut sink = Sink::open(&self.masters, layout.tables, &self.origin)?;
        let reader = Reader::new(layout, Places::new(scan.scattered), known, catalogues);
        let mut taker = Taker::new(self.progress.load, reader);
        let file = Lines::open(path).with_context(|| format!("open {name}"))?;
        for block in blocks_of(file)? {
            let block = block.with_context(|| format!("read {name}"))?;
            taker.take(&block, &mut self.progress, index, &mut |rejects| {
                sink.send_rejects(rejects)
            })?;
            if let Some(what) = taker.reader.overflow() {
                bail!("{name}, line {}: {what}", taker.line);
            }
            for table in 0..layout.tables.len() {
                sink.send(table, std::mem::take(&mut taker.reader.out[table].0))?;
            }
            self.progress.files[index].seconds = began.elapsed().as_secs_f64();
            self.progress.seconds = self.clock.elapsed().as_secs_f64();
            (self.tell)(&self.progress);
            self.check_interrupt()?;
        }
        if layout.file == File::Titles && !self.has(File::Ratings) {
            taker.reject_lost_ratings(&mut |rejects| sink.send_rejects(rejects))?;
        }
        let of_file = &mut self.progress.files[index];
        if of_file.read != scan.rows {
            bail!(
                "{name} was changed while it was read: it has {} rows now, and had {}",
                of_file.read,
                scan.rows
            );
        }
        let counts = sink.end()?;
        // The first table of a file has one row per row; those of the crew have lists alone, and ratings are in the rows of titles.
        let arrived = match layout.file {
            File::Crew => None,
            File::Ratings => Some(known.ratings.given),
            _ => counts.first().copied(),
        };
        if let Some(arrived) = arrived.filter(|arrived| *arrived != of_file.loaded) {
            bail!(
                "{name}: {} rows were sent and {arrived} have arrived",
                of_file.loaded
            );
        }
        of_file.seconds = began.elapsed().as_secs_f64();
        of_file.phase = Phase::Done;
        let names = layout.tables.iter().map(|table| table.name);
        Ok(names.zip(counts).collect())
    }

    /// Keys, indexes and statistics, on all masters at once, and on each of them for several tables at a time.
    fn keys(&self, made: &[(NodeId, stage::Definitions)]) -> anyhow::Result<()> {
        let mut lanes = Vec::new();
        let mut feeds = Vec::new();
        for (node, made) in made {
            let (feed, queue) = crossbeam_channel::bounded::<Vec<String>>(0);
            for _ in 0..limits::LOAD_KEY_LANES {
                let queue = queue.clone();
                let node = *node;
                let lane = self.masters.begin(node, move |session| {
                    for statement in queue.iter().flatten() {
                        if let Err(why) =
                            room::wait(session.client(), node, limits::LOAD_ROOM_OF_KEYS)?
                        {
                            return Ok(Err(why));
                        }
                        session.client().batch_execute(&statement)?;
                    }
                    Ok(Ok(()))
                })?;
                lanes.push((node, lane));
            }
            feeds.push((*node, feed, self.key_statements(made)));
        }
        let mut asked = Instant::now();
        while feeds.iter().any(|(.., left)| !left.is_empty()) {
            self.check_interrupt()?;
            for (_, feed, left) in &mut feeds {
                match left.pop().map(|next| feed.try_send(next)) {
                    None | Some(Ok(())) => {}
                    Some(Err(TrySendError::Full(next))) => left.push(next),
                    // Its lanes have ended too early, and say why.
                    Some(Err(TrySendError::Disconnected(_))) => left.clear(),
                }
            }
            if asked.elapsed() >= limits::LOAD_BEAT {
                for (node, ..) in &feeds {
                    let alive = self.masters.is_alive(*node);
                    alive.with_context(|| format!("make the keys on {node}"))?;
                }
                asked = Instant::now();
            }
            std::thread::sleep(limits::LOAD_KEY_PAUSE);
        }
        drop(feeds);
        let outcomes: Vec<anyhow::Result<()>> = lanes
            .into_iter()
            .map(|(node, lane)| {
                let outcome = self.masters.wait(node, lane).map_err(anyhow::Error::from);
                let outcome = outcome.and_then(|ended| ended.map_err(anyhow::Error::msg));
                outcome.with_context(|| format!("make the keys on {node}"))
            })
            .collect();
        outcomes.into_iter().collect()
    }

    /// The statements for each table, the one with most to do last.
    fn key_statements(&self, made: &stage::Definitions) -> Vec<Vec<String>> {
        let rows_of = |table: &str| {
            let mut files = self.progress.files.iter();
            let file = files.find(|file| file.layout.tables.iter().any(|of| of.name == table));
            file.map_or(0, |file| file.loaded)
        };
        let mut tables: Vec<(u64, Vec<String>)> = made
            .tables
            .iter()
            .map(|table| {
                let mut statements = table.keys.clone();
                // Beside the statistics, for the rows that are not frozen: which pages all of them can be seen on.
                statements.push(format!("VACUUM (ANALYZE) imdb_carga.{}", table.name));
                (rows_of(&table.name) * statements.len() as u64, statements)
            })
            .collect();
        tables.sort();
        tables
            .into_iter()
            .map(|(_, statements)| statements)
            .collect()
    }
}

/// The blocks of a file, read by a thread of its own, which ends when nobody listens any more.
fn blocks_of(mut file: Lines) -> io::Result<Receiver<io::Result<Vec<u8>>>> {
    let (blocks, queue) = crossbeam_channel::bounded(limits::LOAD_BLOCKS);
    Builder::new()
        .name("load-read".to_string())
        .spawn(move || {
            loop {
                let mut block = Vec::with_capacity(limits::LOAD_BLOCK_BYTES + 4096);
                let read = match file.next_block(&mut block) {
                    Ok(false) => break,
                    // It was read to its end before, and had one then.
                    Ok(true) if file.is_unended() => Err(io::Error::other(CUT_OFF)),
                    Ok(true) => Ok(block),
                    Err(error) => Err(error),
                };
                let failed = read.is_err();
                if blocks.send(read).is_err() || failed {
                    break;
                }
            }
        })?;
    Ok(queue)
}
