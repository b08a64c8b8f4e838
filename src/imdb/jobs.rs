//! Loads that were asked for over HTTP: one file each, one at a time, with what came of the last ones.

use super::format::Layout;
use super::load::preflight::Found;
use super::load::read::{Lines, lines};
use super::load::report::{Phase, Progress};
use super::load::{self, Allow, Wanted};
use crate::cluster::NodeId;
use crate::config::Config;
use crate::limits;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A handle on the loads.
#[derive(Clone)]
pub struct Jobs {
    config: Arc<Config>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    last: u64,
    /// Newest first; the first one may be running.
    jobs: VecDeque<Job>,
}

/// One load.
#[derive(Clone, Debug)]
struct Job {
    id: u64,
    started: String,
    progress: Progress,
    error: Option<String>,
}

/// Why a load was not begun.
#[derive(Debug)]
pub enum Refused {
    /// Another one is running.
    Busy(Value),
    /// What came is none of the files.
    Invalid(String),
    /// No thread could be started.
    Failed(String),
}

impl Jobs {
    pub fn new(config: Arc<Config>) -> Jobs {
        Jobs {
            config,
            state: Arc::default(),
        }
    }

    /// Where a file is kept while it arrives and is loaded. It has no name there, so that nothing is left when the process dies.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn room(&self) -> std::io::Result<File> {
        match &self.config.load_dir {
            Some(folder) => tempfile::tempfile_in(folder),
            None => tempfile::tempfile(),
        }
    }

    /// Sees that no load is running.
    ///
    /// # Errors
    /// [`Refused::Busy`].
    pub fn check_free(&self) -> Result<(), Refused> {
        match self.lock().jobs.front().filter(|job| job.is_running()) {
            Some(job) => Err(Refused::Busy(job.as_json())),
            None => Ok(()),
        }
    }

    /// Begins to load a file, and returns its number and how it is.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn begin(&self, file: File, allow: Allow) -> Result<(u64, Value), Refused> {
        // The file has no name but this one, for as long as it is open.
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let layout = which(&path).map_err(Refused::Invalid)?;
        let job = {
            let mut state = self.lock();
            if let Some(job) = state.jobs.front().filter(|job| job.is_running()) {
                return Err(Refused::Busy(job.as_json()));
            }
            state.last += 1;
            let job = Job {
                id: state.last,
                started: format!("{:.3}", jiff::Timestamp::now()),
                progress: Progress::of([(layout.name, layout)]),
                error: None,
            };
            state.jobs.push_front(job.clone());
            state.jobs.truncate(limits::LOAD_JOBS_KEPT);
            job
        };
        let (jobs, id) = (self.clone(), job.id);
        let started = std::thread::Builder::new()
            .name("load".to_string())
            .spawn(move || {
                let found = Found {
                    layout,
                    path,
                    name: layout.name.to_string(),
                };
                let run = AssertUnwindSafe(|| jobs.run(id, found, allow));
                let outcome = catch_unwind(run)
                    .unwrap_or_else(|_| Err("it panicked; please report it".to_string()));
                jobs.end(id, outcome);
                drop(file);
            });
        if let Err(error) = started {
            let why = format!("start a thread: {error}");
            self.end(id, Err(why.clone()));
            return Err(Refused::Failed(why));
        }
        Ok((id, job.as_json()))
    }

    fn run(&self, id: u64, found: Found, allow: Allow) -> Result<Progress, String> {
        let wanted = Wanted {
            files: vec![found],
            nodes: NodeId::BOTH.to_vec(),
            allow,
            interrupt: None,
        };
        log::info!("load {id}: {} begins", wanted.files[0].name);
        let mut tell = |progress: &Progress| {
            if let Some(job) = self.lock().jobs.iter_mut().find(|job| job.id == id) {
                job.progress = progress.clone();
            }
        };
        load::run(&self.config, wanted, &mut tell).map_err(|error| format!("{error:#}"))
    }

    fn end(&self, id: u64, outcome: Result<Progress, String>) {
        let mut state = self.lock();
        let Some(job) = state.jobs.iter_mut().find(|job| job.id == id) else {
            return;
        };
        match outcome {
            Ok(progress) => {
                log::info!("load {id}: {}", progress.sentence());
                job.progress = progress;
            }
            Err(error) => {
                log::error!("load {id} failed: {error}");
                job.progress.phase = Phase::Failed;
                job.error = Some(error);
            }
        }
    }

    /// One load, if it is remembered.
    pub fn job(&self, id: u64) -> Option<Value> {
        self.lock()
            .jobs
            .iter()
            .find(|job| job.id == id)
            .map(Job::as_json)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    fn is_running(&self) -> bool {
        ![Phase::Done, Phase::Failed].contains(&self.progress.phase)
    }

    fn as_json(&self) -> Value {
        let mut shown = json!({
            "id": self.id,
            "state": match self.progress.phase {
                Phase::Done => "done",
                Phase::Failed => "failed",
                _ => "running",
            },
            "started": self.started,
            "error": self.error,
        });
        if let (Some(shown), Value::Object(progress)) =
            (shown.as_object_mut(), self.progress.as_json())
        {
            shown.extend(progress);
        }
        shown
    }
}

/// Which of the files this is, by its first line.
fn which(path: &std::path::Path) -> Result<&'static Layout, String> {
    let mut block = Vec::new();
    let read = Lines::open(path).and_then(|mut file| file.next_block(&mut block));
    read.map_err(|error| format!("it cannot be read: {error}"))?;
    let line = lines(&block).next().ok_or("it is empty")?;
    let line = String::from_utf8_lossy(line);
    let line = line.strip_prefix('\u{feff}').unwrap_or(&line);
    let shown: String = line.chars().take(limits::LOG_LINE_SHOWN).collect();
    Layout::of_header(line)
        .ok_or_else(|| format!("its first line is that of none of IMDb's files: {shown:?}"))
}
