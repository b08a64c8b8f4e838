//! The work on the backups, one piece after the other: what was decided is done here, and what came of it is kept.

use super::command::NEVER;
use super::drill;
use super::entry::{Entry, Verified, notes, rfc3339};
use super::failure::{Class, Failure};
use super::keeper::{Shared, now};
use super::runner::{self, Copied};
use super::seal;
use super::task::{self, Aim, Task};
use crate::cluster::{NodeId, NodeState};
use crate::limits;
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A piece of work that runs, or is about to.
#[derive(Clone, Debug)]
pub struct Job {
    pub id: u64,
    pub node: NodeId,
    pub task: Task,
    /// `asked` or `schedule`.
    pub because: &'static str,
    /// Seconds since 1970.
    pub started: i64,
    pub copied: Option<Copied>,
    /// What is being done, in the words of whoever does it.
    pub step: Option<String>,
}

impl Job {
    pub(super) fn new(id: u64, node: NodeId, task: Task, because: &'static str) -> Job {
        Job {
            id,
            node,
            task,
            because,
            started: now(),
            copied: None,
            step: None,
        }
    }

    pub fn as_json(&self) -> Value {
        let percent = self
            .copied
            .and_then(|(copied, all)| (copied * 100).checked_div(all));
        json!({
            "id": self.id,
            "node": self.node,
            "type": self.task.name(),
            "label": self.task.label(),
            "because": self.because,
            "state": "running",
            "started": rfc3339(self.started),
            "copied_bytes": self.copied.map(|(copied, _)| copied),
            "total_bytes": self.copied.map(|(_, all)| all),
            "percent": percent,
            "step": self.step,
        })
    }
}

/// What came of a job.
pub struct Ended {
    job: Job,
    at: i64,
    outcome: Value,
}

impl Ended {
    pub fn id(&self) -> u64 {
        self.job.id
    }

    /// The job's own fields with those of its outcome.
    pub fn as_json(&self) -> Value {
        let mut all = self.job.as_json();
        all["ended"] = json!(rfc3339(self.at));
        all["seconds"] = json!(self.at - self.job.started);
        if let (Value::Object(all), Value::Object(outcome)) = (&mut all, &self.outcome) {
            all.extend(outcome.clone());
        }
        all
    }
}

/// What was reached.
enum Reached {
    Backup(Box<Entry>),
    Sealed,
    Tried(Verified),
}

/// Does one job, and keeps what came of it.
pub(super) fn serve(shared: &Shared, job: Job) {
    let run = AssertUnwindSafe(|| perform(shared, &job));
    let outcome = catch_unwind(run).unwrap_or_else(|_| {
        let cause = "it panicked; please report it";
        Err(Failure::new(
            Class::Other,
            job.node,
            &doing(&job.task),
            cause,
        ))
    });
    tell(&job, &outcome);
    let (node, aim, at) = (job.node, job.task.aim(), now());
    let mut state = shared.lock();
    match &outcome {
        Ok(_) => state.setbacks.clear(node, aim),
        Err(failure) if task::is_busy(failure) => {
            state.busy_until = at + limits::BACKUP_BUSY_PAUSE.as_secs() as i64;
        }
        // Whoever asked is told. The schedule has not failed, and would not try again for a long time, if ever.
        Err(_) if job.because == "asked" && aim == Aim::Backup => {}
        Err(failure) => state.setbacks.add(node, aim, failure.clone(), at),
    }
    let all = state.all[node.index()].clone().unwrap_or_default();
    let outcome = match outcome {
        Ok(Reached::Backup(entry)) => {
            json!({ "state": "done", "label": entry.label, "backup": entry.as_json(&all) })
        }
        Ok(Reached::Sealed) => json!({ "state": "done" }),
        Ok(Reached::Tried(verified)) => json!({ "state": "done", "verified": verified }),
        Err(failure) => json!({ "state": "failed", "failure": failure_as_json(&failure) }),
    };
    let job = state.running.take().unwrap_or(job);
    state.ended.push_back(Ended { job, at, outcome });
    if state.ended.len() > limits::BACKUP_JOBS_KEPT {
        state.ended.pop_front();
    }
    drop(state);
    shared.wake();
}

/// A failure with the words for people.
pub fn failure_as_json(failure: &Failure) -> Value {
    json!({
        "node": failure.node,
        "class": failure.class,
        "retry": failure.class.row().retry,
        "error": failure.to_string(),
    })
}

fn doing(task: &Task) -> String {
    match task {
        Task::Backup { kind, .. } => format!("make a backup ({kind}) of"),
        Task::Seal { label } => format!("record what backup {label} must hold, of"),
        Task::Drill { label } => format!("try backup {label} of"),
    }
}

fn tell(job: &Job, outcome: &Result<Reached, Failure>) {
    let node = job.node;
    match outcome {
        Ok(Reached::Backup(entry)) => {
            let (kind, took) = (entry.kind, entry.stop - entry.start);
            let sizes = [entry.copied, entry.size].map(super::entry::human);
            let [copied, size] = sizes;
            log::info!(
                "{node}: backup {} ({kind}) made in {took} s: {copied} of {size} copied",
                entry.label
            );
        }
        Ok(Reached::Sealed) => log::info!(
            "{node}: what {} must hold is recorded",
            job.task.label().unwrap_or("")
        ),
        Ok(Reached::Tried(verified)) => {
            let label = job.task.label().unwrap_or("");
            match &verified.error {
                None if verified.ok => log::info!(
                    "{node}: backup {label} was restored and is good ({:.1} s)",
                    verified.seconds
                ),
                error => log::error!(
                    "{node}: backup {label} is bad: {}",
                    error.as_deref().unwrap_or("no reason is known")
                ),
            }
        }
        Err(failure) if task::is_busy(failure) => log::info!("not now: {failure}"),
        Err(failure) => log::warn!("{failure}"),
    }
}

fn perform(shared: &Shared, job: &Job) -> Result<Reached, Failure> {
    let (place, node) = (&shared.place, job.node);
    let _claim = match job.because {
        // The schedule comes again; a person is told that it takes a while, and not to come again.
        "schedule" => place.claim(node, &doing(&job.task))?,
        _ => {
            let mut told = |line: &str| set(shared, |job| job.step = Some(line.to_string()));
            place.claim_when_free(node, &doing(&job.task), &mut told)?
        }
    };
    match &job.task {
        Task::Backup { kind, day } => {
            let mut notes = vec![(notes::BECAUSE, job.because.to_string())];
            notes.extend(day.map(|day| (notes::DAY, day.to_string())));
            let wanted = runner::Wanted {
                node,
                kind: *kind,
                notes: &notes,
            };
            let progress = |copied| set(shared, |job| job.copied = Some(copied));
            let entry = runner::backup(place, &wanted, &|| is_away(shared, node), &progress)?;
            // Everyone hears of it now: the rest may take a while.
            shared.wake();
            set(shared, |job| {
                job.step = Some("recording what it must hold".to_string())
            });
            if let Err(failure) = seal::seal(place, &shared.config, node, &entry.label) {
                log::warn!("backup {} is made, and yet: {failure}", entry.label);
                shared.lock().setbacks.add(node, Aim::Seal, failure, now());
            }
            Ok(Reached::Backup(Box::new(entry)))
        }
        Task::Seal { label } => {
            seal::seal(place, &shared.config, node, label)?;
            Ok(Reached::Sealed)
        }
        Task::Drill { label } => {
            let entries = place.entries(node)?;
            let entry = entries
                .iter()
                .find(|entry| entry.label == *label)
                .ok_or_else(|| {
                    let cause = "it has expired meanwhile";
                    Failure::new(Class::NoBackup, node, &doing(&job.task), cause)
                })?;
            let mut told = |line: &str| set(shared, |job| job.step = Some(line.to_string()));
            let verified = drill::run(place, &shared.config, entry, NEVER, &mut told)?;
            Ok(Reached::Tried(verified))
        }
    }
}

/// Changes what is shown of the running job.
fn set(shared: &Shared, change: impl FnOnce(&mut Job)) {
    if let Some(job) = &mut shared.lock().running {
        change(job);
    }
}

/// Whether a master has been down for so long that its backup is not waited for any more.
fn is_away(shared: &Shared, node: NodeId) -> bool {
    let view = shared.board.look().0;
    let seen = view.node(node);
    let since_ms = shared.board.now_ms().saturating_sub(seen.since_ms);
    seen.state == NodeState::Down && since_ms > limits::BACKUP_AWAY_MS
}
