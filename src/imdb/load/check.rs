//! Whether the files can be loaded at all, before anything is touched.

use super::Load;
use super::preflight::{self, Scan};
use super::report::Phase;
use crate::imdb::format::{File, Layout};
use crate::interrupt::Interrupt;
use anyhow::bail;
use std::sync::Mutex;
use std::thread::Builder;
use std::time::Duration;

impl Load<'_> {
    /// Reads all files at once, and says of all of them what is wrong.
    pub(super) fn preflight(&mut self) -> anyhow::Result<Vec<Scan>> {
        self.enter(Phase::Preflight);
        let counts = Mutex::new(vec![0; self.wanted.files.len()]);
        let files = &self.wanted.files;
        let (progress, tell, interrupt) =
            (&mut self.progress, &mut self.tell, self.wanted.interrupt);
        let allow_empty = self.wanted.allow.empty;
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
                        .spawn_scoped(scope, move || {
                            preflight::scan(found, allow_empty, &interrupted, count)
                        })?,
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
                thread
                    .join()
                    .unwrap_or_else(|_| Err("reading it panicked; please report it".to_string()))
            });
            Ok(ended.collect())
        })?;
        self.check_interrupt()?;
        let wrong: Vec<&str> = scans
            .iter()
            .filter_map(|scan| scan.as_ref().err().map(String::as_str))
            .collect();
        if !wrong.is_empty() {
            bail!(
                "nothing was loaded, because of the files:\n  {}",
                wrong.join("\n  ")
            );
        }
        let scans: Vec<Scan> = scans.into_iter().flatten().collect();
        for (file, scan) in self.progress.files.iter_mut().zip(&scans) {
            (file.phase, file.rows) = (Phase::Waiting, scan.rows);
        }
        Ok(scans)
    }

    /// Rows whose titles or persons are not even in a table would all be rejected; whoever asks for that has forgotten a file.
    pub(super) fn check_needs(&self) -> anyhow::Result<()> {
        type Needs = fn(&Layout) -> bool;
        let needs: [(File, &str, &str, Needs); 2] = [
            (File::Titles, "title.basics", "titulos", |layout| {
                layout.needs_titles
            }),
            (File::Names, "name.basics", "personas", |layout| {
                layout.needs_persons
            }),
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
            let is_there: bool =
                self.masters
                    .run(node, &format!("look into {table}"), move |session| {
                        session.client().query_one(&sql, &[])?.try_get(0)
                    })?;
            if !is_there {
                bail!(
                    "{} belongs to {table}, and that is empty: load {name} too",
                    needy.name
                );
            }
        }
        Ok(())
    }
}
