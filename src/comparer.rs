//! Compares the masters in the background: on a schedule, and when somebody asks. One thread does both,
//! so that there is never more than one comparison, on sessions of its own, gently.

use crate::board::Board;
use crate::cluster::{NodeId, NodeState, Role};
use crate::config::Config;
use crate::limits;
use crate::replication::compare::{self, Failure, Masters, Pace, Report, State};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use serde::Serialize;
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A handle on the comparer.
#[derive(Clone)]
pub struct Comparer {
    shared: Arc<Shared>,
    jobs: Sender<Job>,
}

/// A comparison that runs or waits for its turn.
#[derive(Clone, Debug, Serialize)]
pub struct Job {
    pub id: u64,
    /// Empty for all.
    pub tables: Vec<String>,
    /// `asked` or `schedule`.
    pub because: &'static str,
    pub started: String,
}

/// Why a comparison was not begun.
#[derive(Debug)]
pub enum Refused {
    /// Another one is running.
    Busy(Job),
    /// Neither master has this table.
    UnknownTable(String),
}

struct Shared {
    interval: Option<Duration>,
    masters: Masters,
    state: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    jobs: u64,
    running: Option<Job>,
    last: Option<(u64, Report)>,
    /// Why the schedule's last turn was let pass.
    skipped: Option<String>,
}

/// Starts the thread; it connects to nothing before its first comparison.
///
/// # Errors
/// When a thread cannot be started.
pub fn start(config: &Config, board: Arc<Board>) -> anyhow::Result<Comparer> {
    let (jobs, asked) = crossbeam_channel::bounded(1);
    let shared = Arc::new(Shared {
        interval: config.compare_interval,
        masters: Masters::new(config)?,
        state: Mutex::new(Progress::default()),
    });
    let of_thread = Arc::clone(&shared);
    std::thread::Builder::new()
        .name("comparer".to_string())
        .spawn(move || of_thread.serve(&asked, &board))?;
    Ok(Comparer { shared, jobs })
}

impl Comparer {
    /// Begins a comparison of these tables, or of all, and returns at once.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn begin(&self, tables: Vec<String>) -> Result<Job, Refused> {
        if let Some(running) = &self.shared.lock().running {
            return Err(Refused::Busy(running.clone()));
        }
        // A master that cannot be asked is told by the comparison itself.
        if !tables.is_empty() {
            if let Err(Failure::UnknownTable(name)) = compare::check(&self.shared.masters, &tables)
            {
                return Err(Refused::UnknownTable(name));
            }
        }
        let job = self.shared.claim(tables, "asked").map_err(Refused::Busy)?;
        // The queue has room for one, and whoever claims is the only one who sends.
        if self.jobs.try_send(job.clone()).is_err() {
            self.shared.lock().running = None;
            return Err(Refused::Busy(job));
        }
        Ok(job)
    }

    /// What runs, and the whole of what came out last.
    pub fn details(&self) -> Value {
        let progress = self.shared.lock();
        let last = progress.last.as_ref().map(|(id, report)| {
            let mut last = json!({ "id": id });
            if let (Value::Object(last), Value::Object(report)) = (&mut last, report.as_json()) {
                last.extend(report);
            }
            last
        });
        json!({ "ok": true, "running": progress.running, "last": last, "skipped": progress.skipped })
    }

    /// The figures of the last comparison, for `/status`.
    pub fn summary(&self) -> Value {
        let progress = self.shared.lock();
        let report = progress.last.as_ref().map(|(_, report)| report);
        let state = match (report, &progress.running, self.shared.interval) {
            (Some(report), ..) => report.state.name(),
            (None, Some(_), _) => "running",
            (None, None, Some(_)) => "waiting",
            (None, None, None) => "off",
        };
        json!({
            "state": state,
            "running": progress.running.is_some(),
            "at": report.map(|report| &report.at),
            "seconds": report.map(|report| report.seconds),
            "tables": report.map(|report| report.tables.len()),
            "rows": report.map(|report| report.rows),
            "differing": report.map(|report| report.differing),
            "unsettled": report.map(|report| report.unsettled),
            "error": report.and_then(|report| report.error.as_ref()),
            "skipped": progress.skipped,
        })
    }

    /// What somebody should look at, if there is anything.
    pub fn alarm(&self) -> Option<String> {
        let progress = self.shared.lock();
        let (_, report) = progress.last.as_ref()?;
        let differs = report.state == State::Differing;
        differs.then(|| {
            format!(
                "the masters differ in {} rows (compared at {}); GET /compare and \
                 imdb-ha compare tell which, --repair mends them, and the next comparison (POST /compare) clears this",
                report.differing, report.at
            )
        })
    }
}

impl Shared {
    /// Life of the thread.
    fn serve(&self, asked: &Receiver<Job>, board: &Board) {
        let first = |interval: Duration| Instant::now() + interval.min(limits::COMPARE_FIRST);
        let mut due = self.interval.map(first);
        // How long to wait after a comparison that failed: one that fails again and again must not be all that the masters do.
        let mut retry = limits::COMPARE_RETRY;
        loop {
            let asked = match due {
                Some(due) => asked.recv_deadline(due),
                None => asked.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let on_schedule = matches!(asked, Err(RecvTimeoutError::Timeout));
            let job = match asked {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    let skipped = not_now(board);
                    self.lock().skipped.clone_from(&skipped);
                    if skipped.is_some() {
                        due = self.soon(limits::COMPARE_RETRY);
                        continue;
                    }
                    // Whoever asked first runs instead, and that will do.
                    self.claim(Vec::new(), "schedule").ok()
                }
            };
            if job.map(|job| self.compare(job)) == Some(State::Failed) {
                due = self.soon(retry);
                retry = retry.saturating_mul(2);
            } else if on_schedule {
                due = self.interval.map(|interval| Instant::now() + interval);
                retry = limits::COMPARE_RETRY;
            }
        }
    }

    /// The next turn of a schedule, if there is one: after this pause, and no later than it would be.
    fn soon(&self, pause: Duration) -> Option<Instant> {
        let interval = self.interval?;
        Some(Instant::now() + interval.min(pause))
    }

    /// Makes a job the one that runs.
    fn claim(&self, tables: Vec<String>, because: &'static str) -> Result<Job, Job> {
        let mut progress = self.lock();
        if let Some(running) = &progress.running {
            return Err(running.clone());
        }
        progress.jobs += 1;
        let job = Job {
            id: progress.jobs,
            tables,
            because,
            started: format!("{:.3}", jiff::Timestamp::now()),
        };
        progress.running = Some(job.clone());
        Ok(job)
    }

    fn compare(&self, job: Job) -> State {
        let run = || compare::run(&self.masters, &job.tables, Pace::GENTLE, &mut |_, _| {});
        let report = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(report)) => report,
            Ok(Err(failure)) => Report::failed(format!("{:#}", anyhow::Error::from(failure))),
            Err(_) => Report::failed("the comparison panicked; please report it".to_string()),
        };
        let told = report.as_text();
        let told = told.trim_end();
        match report.state {
            State::Equal => log::info!("compare: {}", told.lines().last().unwrap_or("")),
            State::Differing => log::error!("compare: {told}"),
            State::Unsettled | State::Failed => log::warn!("compare: {told}"),
        }
        let state = report.state;
        let mut progress = self.lock();
        progress.last = Some((job.id, report));
        progress.running = None;
        state
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        // A panic while it is held leaves a whole value behind: only whole values are put in.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the schedule's turn is let pass: a master that is not there to be compared, or another process
/// that does it for all.
fn not_now(board: &Board) -> Option<String> {
    let view = board.look().0;
    if let Role::Follower(leader) = view.role_at(board.now_ms()) {
        return Some(format!("the process at {} does it", leader.address));
    }
    let mut missing = NodeId::BOTH
        .into_iter()
        .map(|node| (node, view.node(node).state))
        .filter(|(_, state)| *state != NodeState::Up);
    missing
        .next()
        .map(|(node, state)| format!("{node} is {state}"))
}
