//! The keeper of the backups: makes what is due and what somebody asks for, tries what was made, and sees that everyone knows.
//! One thread decides and looks, and so is never away for longer than a look takes; another does one piece of work at a time,
//! which may take hours.

use super::alarms::{self, Alarm};
use super::archiver::{Archivers, Archiving};
use super::catalog::{Catalog, Known};
use super::command::Place;
use super::entry::Entry;
use super::failure::Failure;
use super::schedule::{self, Due, Situation};
use super::task::{Aim, Setbacks, Task};
use super::wal::{Hole, Present, WalWatch};
use super::worker::{self, Ended, Job};
use crate::board::Board;
use crate::cluster::{ClusterView, NodeId, NodeState, Role};
use crate::config::Config;
use crate::limits;
use crate::quiet::Quiet;
use crossbeam_channel::{Receiver, Sender, select};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A handle on the keeper.
#[derive(Clone)]
pub struct Keeper {
    /// Why there are no backups, when there are none.
    pub(super) shared: Result<Arc<Shared>, String>,
}

/// Why something was not begun.
#[derive(Debug)]
pub enum Refused {
    /// There are no backups here, for this reason.
    Off(String),
    /// Something else is being done.
    Busy(Job),
    /// The master cannot be backed up now, for this reason.
    NotUp(String),
    /// There is no backup of this label.
    NoBackup,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Backup(super::Kind),
    /// To try this backup, or the newest.
    Drill(Option<String>),
}

pub(super) struct Shared {
    pub(super) place: Place,
    pub(super) config: Arc<Config>,
    pub(super) board: Arc<Board>,
    pub(super) since: i64,
    state: Mutex<State>,
    work: Sender<Job>,
    wake: Sender<()>,
}

/// What both threads and the API share.
#[derive(Default)]
pub(super) struct State {
    jobs: u64,
    pub(super) running: Option<Job>,
    /// The newest last.
    pub(super) ended: VecDeque<Ended>,
    /// Every backup of each master, oldest first; none before the first look.
    pub(super) all: [Option<Vec<Entry>>; 2],
    /// Those of the data folder that the master has now: nothing that it writes can be added to the others.
    pub(super) present: [Option<Vec<Entry>>; 2],
    pub(super) unreadable: [Option<Failure>; 2],
    archiving: [Option<Archiving>; 2],
    holes: [Option<Hole>; 2],
    pub(super) setbacks: Setbacks,
    /// Somebody else has the backups in hand; not before this time anew.
    pub(super) busy_until: i64,
    pub(super) agenda: Vec<Due>,
    pub(super) alarms: Vec<Alarm>,
}

/// Starts the threads; without backups there are none.
///
/// # Errors
/// When a thread cannot be started.
pub fn start(config: &Arc<Config>, board: Arc<Board>) -> anyhow::Result<Keeper> {
    let place = match Place::of(config) {
        Ok(Some(place)) => place,
        Ok(None) => return Ok(Keeper::off("BACKUP_CONFIG_DIR names no folder")),
        Err(error) => {
            log::error!("no backups: {error:#}");
            return Ok(Keeper::off(&format!("{error:#}")));
        }
    };
    // One of each can wait: whoever claims the work is the only one who sends, and a second wake-up means nothing.
    let (work, jobs) = crossbeam_channel::bounded(1);
    let (wake, woken) = crossbeam_channel::bounded(1);
    let shared = Arc::new(Shared {
        place,
        config: Arc::clone(config),
        board,
        since: now(),
        state: Mutex::default(),
        work,
        wake,
    });
    let archivers = Archivers::new(config)?;
    let (of_keeper, of_worker) = (Arc::clone(&shared), Arc::clone(&shared));
    std::thread::Builder::new()
        .name("backups".to_string())
        .spawn(move || of_keeper.keep(&woken, Watch::new(&of_keeper.config, archivers)))?;
    std::thread::Builder::new()
        .name("backup-work".to_string())
        .spawn(move || jobs.iter().for_each(|job| worker::serve(&of_worker, job)))?;
    Ok(Keeper { shared: Ok(shared) })
}

impl Keeper {
    fn off(reason: &str) -> Keeper {
        Keeper {
            shared: Err(reason.to_string()),
        }
    }

    /// Begins something that somebody wants, and returns at once.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn begin(&self, node: NodeId, wanted: &Wanted) -> Result<Job, Refused> {
        let shared = self
            .shared
            .as_ref()
            .map_err(|why| Refused::Off(why.clone()))?;
        let task = match wanted {
            Wanted::Backup(kind) => {
                may_be_backed_up(&shared.board, node).map_err(Refused::NotUp)?;
                Task::Backup {
                    kind: *kind,
                    day: None,
                }
            }
            Wanted::Drill(label) => {
                let state = shared.lock();
                let all = state.all[node.index()].as_deref().unwrap_or_default();
                let entry = match label {
                    Some(label) => all.iter().find(|entry| entry.label == *label),
                    None => all.last(),
                };
                let label = entry.ok_or(Refused::NoBackup)?.label.clone();
                Task::Drill { label }
            }
        };
        shared.begin(node, task, "asked").map_err(Refused::Busy)
    }
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Since when a master may be backed up, in seconds since 1970, or why not.
fn may_be_backed_up(board: &Board, node: NodeId) -> Result<i64, String> {
    let view = board.look().0;
    let seen = view.node(node);
    match seen.state {
        NodeState::Up => {
            let ago_ms = board.now_ms().saturating_sub(seen.since_ms);
            Ok(now() - (ago_ms / 1_000) as i64)
        }
        state => Err(format!("{node} is {state}: {}", seen.reason)),
    }
}

/// Why this process makes no backups by itself, if it does not.
fn not_ours(view: &ClusterView, now_ms: u64) -> Option<String> {
    match view.role_at(now_ms) {
        Role::Follower(leader) => Some(format!(
            "the API at {} decides and makes them",
            leader.address
        )),
        Role::Unknown => Some("whether another process makes them is being asked".to_string()),
        Role::Leader | Role::Orphan => None,
    }
}

/// What the deciding thread looks with, and what it remembers of its looks.
struct Watch {
    catalog: Catalog,
    archivers: Archivers,
    looked: Option<Instant>,
    redis: Quiet,
    wal: [WalWatch; 2],
    told: Vec<Alarm>,
}

impl Watch {
    fn new(config: &Config, archivers: Archivers) -> Watch {
        Watch {
            catalog: Catalog::new(config),
            archivers,
            looked: None,
            redis: Quiet::default(),
            wal: Default::default(),
            told: Vec::new(),
        }
    }

    /// Logs what has become an alarm, and what is none any more, once.
    fn tell(&mut self, alarms: &[Alarm]) {
        let same = |one: &Alarm, other: &Alarm| (one.code, one.node) == (other.code, other.node);
        let missing_in =
            |alarm: &Alarm, others: &[Alarm]| !others.iter().any(|other| same(alarm, other));
        for alarm in alarms.iter().filter(|alarm| missing_in(alarm, &self.told)) {
            log::error!("ALARM: {}: {}", alarm.node, alarm.text);
        }
        for alarm in self.told.iter().filter(|alarm| missing_in(alarm, alarms)) {
            log::info!("{}: no alarm any more ({})", alarm.node, alarm.code);
        }
        self.told = alarms.to_vec();
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it is held leaves a whole value behind: only whole values are put in.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the deciding thread look at once.
    pub(super) fn wake(&self) {
        let _ = self.wake.try_send(());
    }

    /// Hands a task to the working thread, unless that has one.
    fn begin(&self, node: NodeId, task: Task, because: &'static str) -> Result<Job, Job> {
        let mut state = self.lock();
        if let Some(running) = &state.running {
            return Err(running.clone());
        }
        state.jobs += 1;
        let job = Job::new(state.jobs, node, task, because);
        match self.work.try_send(job.clone()) {
            Ok(()) => state.running = Some(job.clone()),
            Err(_) => return Err(job),
        }
        Ok(job)
    }

    /// Life of the deciding thread. A turn that panics is told and another one follows, since a program that has silently
    /// stopped making backups is the worst of all.
    fn keep(&self, woken: &Receiver<()>, mut watch: Watch) {
        loop {
            let changed = self.board.look().1;
            let turn = AssertUnwindSafe(|| self.turn(&mut watch));
            let pause = catch_unwind(turn).unwrap_or_else(|_| {
                log::error!("a turn of the backups panicked; please report it");
                limits::BACKUP_REFRESH
            });
            select! {
                recv(woken) -> _ => watch.looked = None,
                recv(changed) -> _ => {}
                default(pause) => {}
            }
        }
    }

    /// Looks if it is time to, decides, and returns how long nothing more is to be done.
    fn turn(&self, watch: &mut Watch) -> Duration {
        let look_in = |watch: &Watch| {
            let passed = watch.looked.map(|looked| looked.elapsed());
            limits::BACKUP_REFRESH.saturating_sub(passed.unwrap_or(limits::BACKUP_REFRESH))
        };
        if look_in(watch).is_zero() {
            watch.looked = Some(Instant::now());
            self.look(watch);
        }
        let now = now();
        let next = self.decide(now);
        watch.tell(&self.lock().alarms);
        if let Some(due) = schedule::first(now, &next) {
            log::info!("{}: {} now: {}", due.node, due.task.name(), due.why);
            // Whoever asked a moment before goes first.
            let _ = self.begin(due.node, due.task.clone(), "schedule");
        }
        let next_due = next
            .iter()
            .filter(|due| due.at > now)
            .map(|due| due.at - now)
            .min();
        let next_due = next_due.map_or(limits::BACKUP_REFRESH, |seconds| {
            Duration::from_secs(seconds as u64)
        });
        look_in(watch).min(next_due)
    }

    /// Asks pgBackRest what there is and the masters how they archive, and sees that the catalogue has it.
    fn look(&self, watch: &mut Watch) {
        let mut known = Vec::new();
        for node in NodeId::BOTH {
            let found = self.place.known(node);
            let archiving = self.archiving(watch, node);
            let hole = found.as_ref().ok().and_then(|(stanza, _)| {
                let wal = &mut watch.wal[node.index()];
                let hole = wal.look(&self.place, node, stanza, archiving.as_ref());
                hole.inspect_err(|failure| log::debug!("{failure}")).ok()?
            });
            let mut state = self.lock();
            state.archiving[node.index()] = archiving;
            state.holes[node.index()] = hole;
            match found {
                Ok((stanza, entries)) => {
                    let present = Present::of(node, &stanza).entries(&entries);
                    let newest = present.last().map_or(0, |entry| entry.stop);
                    // Whoever made it, by which way ever: it works. Of one from a time to come nobody knows when that was.
                    let since = |at: i64| at < newest && newest <= now();
                    if state
                        .setbacks
                        .of(node, Aim::Backup)
                        .is_some_and(|setback| since(setback.at))
                    {
                        state.setbacks.clear(node, Aim::Backup);
                    }
                    state.all[node.index()] = Some(entries.clone());
                    state.present[node.index()] = Some(present);
                    state.unreadable[node.index()] = None;
                    known.push(Known {
                        node,
                        stanza,
                        entries,
                    });
                }
                // What was known last is shown on, and nothing is decided on it.
                Err(failure) => state.unreadable[node.index()] = Some(failure),
            }
        }
        if not_ours(&self.board.look().0, self.board.now_ms()).is_some() || known.is_empty() {
            return;
        }
        match watch.catalog.publish(&known) {
            Ok(_) => {
                if watch.redis.clear() {
                    log::info!("the catalogue of the backups is in Redis again");
                }
            }
            Err(error) => {
                let text = format!("publish the catalogue of the backups: {error:#}");
                if watch.redis.admit(&text).is_some() {
                    log::warn!("{text}");
                }
            }
        }
    }

    /// How a master archives; nothing of one that is away, which is told elsewhere.
    fn archiving(&self, watch: &Watch, node: NodeId) -> Option<Archiving> {
        may_be_backed_up(&self.board, node).ok()?;
        let answer = watch.archivers.ask(node);
        answer.inspect_err(|error| log::debug!("{error}")).ok()
    }

    /// Decides what comes next and what is an alarm, and keeps both for whoever asks.
    fn decide(&self, now: i64) -> Vec<Due> {
        let not_ours = not_ours(&self.board.look().0, self.board.now_ms());
        let able = NodeId::BOTH.map(|node| match &not_ours {
            Some(why) => Err(why.clone()),
            None => may_be_backed_up(&self.board, node),
        });
        let backups = &self.config.backups;
        let mut state = self.lock();
        let readable = |node: NodeId| state.unreadable[node.index()].is_none();
        let present = NodeId::BOTH.map(|node| state.present[node.index()].as_deref());
        let holes = NodeId::BOTH.map(|node| state.holes[node.index()].as_ref());
        let mut agenda = schedule::agenda(&Situation {
            now,
            plan: backups.plan,
            drill_every: backups.drill_every,
            entries: NodeId::BOTH.map(|node| present[node.index()].filter(|_| readable(node))),
            able,
            active: self.board.active(),
            setbacks: &state.setbacks,
            holes,
        });
        let alarms = alarms::alarms(&alarms::Facts {
            now,
            since: self.since,
            plan: backups.plan,
            all: NodeId::BOTH.map(|node| state.all[node.index()].as_deref()),
            present,
            unreadable: NodeId::BOTH.map(|node| state.unreadable[node.index()].as_ref()),
            setbacks: &state.setbacks,
            archiving: NodeId::BOTH.map(|node| state.archiving[node.index()].as_ref()),
            holes,
        });
        // Further ahead, the clock has been set back since.
        let ahead = state.busy_until - now;
        if ahead > 0 && ahead <= limits::BACKUP_BUSY_PAUSE.as_secs() as i64 {
            for due in agenda.iter_mut().filter(|due| due.held.is_none()) {
                due.held = Some("somebody else has the backups in hand".to_string());
            }
        }
        state.alarms = alarms;
        state.agenda.clone_from(&agenda);
        // One thing at a time.
        if state.running.is_some() {
            agenda.clear();
        }
        agenda
    }
}
